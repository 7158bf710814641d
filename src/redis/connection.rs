//! One connection to Redis: its states, what is to be written, and which answers are awaited.
//!
//! ```text
//! Idle ──open──▶ Opening ──connected──▶ Greeting ──all answers──▶ Ready
//!   ▲               │                      │                        │
//!   └───────────────┴──────── end ─────────┴────────────────────────┘
//! ```
//!
//! Knows the greeting, and no other command. Main type: [`Connection`]. Invariants: answers come in the order of
//! `awaited`; `start <= out.len()`, and what lies ahead of `start` the socket has.

use std::collections::VecDeque;
use std::ops::Range;

use super::address::Login;
use super::command;
use super::entry::Nonce;
use super::identity::Identity;
use super::reply::{Broken, Inbox, REPLY_BYTES_MAX, Whole, word};
use super::settings::Settings;
use crate::time::Timestamp;

/// What an idle connection keeps of its buffer, in bytes.
const KEPT_BYTES: usize = 64 << 10;

/// What was asked, in the order of the answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Asked {
    Greeting(Greeted),
    /// What the append that begins with this nonce says.
    Append(Nonce),
    /// To begin a transaction.
    Multi,
    /// What the append that begins with this nonce says in a transaction.
    Queued(Nonce),
    /// To execute it.
    Exec,
    Barrier,
    Ping,
    /// A script is loaded once more.
    Load,
    Read,
}

/// The parts of a greeting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Greeted {
    Auth,
    Select,
    Name,
    Role,
    Info,
    Epoch,
    Script,
}

/// Why this Redis isn't of use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Unfit {
    Broken(Broken),
    /// It refuses a command, with the first word of its error.
    Refused(&'static str, Box<str>),
    NotMaster,
}

impl From<Broken> for Unfit {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

/// What a greeting has brought.
#[derive(Default)]
pub(super) struct Greeting {
    pub(super) identity: Identity,
    /// The value of the epoch's key; empty if there is none.
    pub(super) epoch: Vec<u8>,
    pub(super) lacks_scripts: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Idle,
    Opening,
    Greeting,
    Ready,
}

pub(super) struct Connection {
    state: State,
    /// Whether nobody has been told yet that it is to be opened.
    is_wanted: bool,
    out: Vec<u8>,
    start: usize,
    /// How many bytes were written ahead of those in `out`.
    base: u64,
    inbox: Inbox,
    awaited: VecDeque<(Asked, Timestamp)>,
    heard: Timestamp,
    greeting: Greeting,
}

impl Connection {
    pub(super) fn new() -> Self {
        Self {
            state: State::Idle,
            is_wanted: false,
            out: Vec::new(),
            start: 0,
            base: 0,
            inbox: Inbox::new(REPLY_BYTES_MAX),
            awaited: VecDeque::new(),
            heard: Timestamp::ZERO,
            greeting: Greeting::default(),
        }
    }

    /// Is to be opened; `reply_bytes_max` bounds each reply.
    pub(super) fn open(&mut self, reply_bytes_max: usize) {
        *self = Self {
            state: State::Opening,
            is_wanted: true,
            inbox: Inbox::new(reply_bytes_max),
            ..Self::new()
        };
    }

    pub(super) fn end(&mut self) {
        *self = Self::new();
    }

    /// Whether it is to be opened and nobody was told; true once.
    pub(super) const fn take_wanted(&mut self) -> bool {
        std::mem::replace(&mut self.is_wanted, false)
    }

    pub(super) fn is_open(&self) -> bool {
        self.state != State::Idle
    }

    /// Whether it is being opened, by somebody who was told so.
    pub(super) fn is_opening(&self) -> bool {
        self.state == State::Opening && !self.is_wanted
    }

    pub(super) fn is_connected(&self) -> bool {
        matches!(self.state, State::Greeting | State::Ready)
    }

    pub(super) fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    pub(super) const fn greeting(&self) -> &Greeting {
        &self.greeting
    }

    /// Is connected: greets. `scripts` are loaded with it.
    pub(super) fn greet(
        &mut self,
        settings: &Settings,
        login: &Login,
        scripts: &[&str],
        now: Timestamp,
    ) {
        assert_eq!(self.state, State::Opening);
        self.state = State::Greeting;
        self.heard = now;
        let mut say = |asked, arguments: &[&[u8]]| {
            self.queue(Asked::Greeting(asked), now, |out| {
                command::write(out, arguments)
            });
        };
        match (&login.user, &login.password) {
            (Some(user), Some(password)) => say(
                Greeted::Auth,
                &[b"AUTH", user.as_bytes(), password.as_bytes()],
            ),
            (None, Some(password)) => say(Greeted::Auth, &[b"AUTH", password.as_bytes()]),
            (_, None) => {}
        }
        if login.database != 0 {
            let database = login.database.to_string();
            say(Greeted::Select, &[b"SELECT", database.as_bytes()]);
        }
        say(Greeted::Name, &[b"CLIENT", b"SETNAME", b"crieur"]);
        say(Greeted::Role, &[b"ROLE"]);
        say(Greeted::Info, &[b"INFO", b"server"]);
        say(Greeted::Info, &[b"INFO", b"replication"]);
        for script in scripts {
            say(Greeted::Script, &[b"SCRIPT", b"LOAD", script.as_bytes()]);
        }
        say(Greeted::Epoch, &[b"GET", settings.epoch_key().as_bytes()]);
    }

    /// Takes an answer to a part of the greeting.
    pub(super) fn take_greeting(&mut self, part: Greeted, whole: &Whole) -> Result<(), Unfit> {
        let reply = whole.reply(self.inbox.bytes());
        let greeting = &mut self.greeting;
        let refused = |command| match reply.error() {
            Some(error) => Err(Unfit::Refused(command, word(error).into())),
            None => Ok(()),
        };
        match part {
            Greeted::Auth => refused("AUTH")?,
            Greeted::Select => refused("SELECT")?,
            Greeted::Name => {}
            Greeted::Role => {
                refused("ROLE")?;
                let role = reply.list().and_then(|list| list.at(0)).or(Some(reply));
                if role.and_then(|role| role.text()) != Some(b"master") {
                    return Err(Unfit::NotMaster);
                }
            }
            Greeted::Info => greeting.identity.read(reply.text().unwrap_or_default()),
            Greeted::Script => greeting.lacks_scripts |= reply.text().is_none(),
            Greeted::Epoch => {
                refused("GET")?;
                greeting.epoch = reply.text().unwrap_or_default().to_vec();
            }
        }
        if self.awaited.is_empty() {
            self.state = State::Ready;
        }
        Ok(())
    }

    /// Has a command written. Where its bytes lie in all that was ever written to this connection.
    pub(super) fn queue(
        &mut self,
        asked: Asked,
        now: Timestamp,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Range<u64> {
        let from = self.base + self.out.len() as u64;
        write(&mut self.out);
        self.awaited.push_back((asked, now));
        from..self.base + self.out.len() as u64
    }

    pub(super) fn unsent(&self) -> &[u8] {
        &self.out[self.start..]
    }

    /// The socket has taken the first `len` of what is unsent.
    pub(super) fn note_sent(&mut self, len: usize) {
        self.start = (self.start + len).min(self.out.len());
        if self.start == self.out.len() {
            self.base += self.out.len() as u64;
            self.start = 0;
            self.out.clear();
            self.out.shrink_to(KEPT_BYTES);
        }
    }

    /// The bytes that were queued as `range`, if the socket has taken none of them.
    pub(super) fn untaken(&self, range: &Range<u64>) -> Option<&[u8]> {
        let start = usize::try_from(range.start.checked_sub(self.base)?).ok()?;
        let end = usize::try_from(range.end.checked_sub(self.base)?).ok()?;
        (start >= self.start)
            .then(|| self.out.get(start..end))
            .flatten()
    }

    pub(super) fn push(&mut self, bytes: &[u8], now: Timestamp) {
        self.inbox.push(bytes);
        self.heard = now;
    }

    /// The next answer that is whole, to what was asked at which time.
    pub(super) fn next_answer(&mut self) -> Result<Option<(Asked, Timestamp, Whole)>, Broken> {
        let Some(whole) = self.inbox.next()? else {
            return Ok(None);
        };
        let unasked = Broken("it says what nobody has asked");
        let (asked, at) = self.awaited.pop_front().ok_or(unasked)?;
        Ok(Some((asked, at, whole)))
    }

    pub(super) const fn inbox(&mut self) -> &mut Inbox {
        &mut self.inbox
    }

    /// Whether an answer is awaited.
    pub(super) fn is_awaiting(&self) -> bool {
        !self.awaited.is_empty()
    }

    /// Since when an answer is awaited and nothing has come.
    pub(super) fn silent_since(&self) -> Option<Timestamp> {
        self.awaited
            .front()
            .map(|(_, asked)| (*asked).max(self.heard))
    }

    /// When something came last.
    pub(super) const fn heard(&self) -> Timestamp {
        self.heard
    }
}
