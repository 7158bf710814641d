//! Several servers, one order: the notifications of all of them are the entries of one Redis Stream.
//!
//! Sans-IO: two connections to one Redis, one that reads and blocks, one that writes. Bytes come and go through
//! [`Uplinks`], the time comes as an argument. What is to be published is [appended](Redis::append), and comes back as
//! [`Event::Entry`] in the order of the stream, as everything does that others append. Knows no subscription and no
//! connection of a client, and no JSON but the envelope of an entry.
//!
//! Main type: [`Redis`]. Invariants: both connections lead to the same Redis or to none; an append is answered once, by an
//! [`Event::Entry`] that is its own, an [`Event::Repeated`] or an [`Event::Refused`]; entries are passed on in the order of
//! the stream, each once.

pub mod address;
mod barriers;
mod command;
mod connection;
mod entry;
mod failure;
pub mod fuzzing;
mod identity;
mod reader;
mod reply;
pub mod saved;
mod scripts;
mod settings;
#[doc(hidden)]
pub mod simulated;
#[doc(hidden)]
pub mod simulated_sockets;
mod trail;
mod transaction;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use fastrand::Rng;
use log::{info, warn};

use self::address::{Login, Server};
use self::barriers::Barriers;
use self::connection::{Asked, Connection, Unfit};
use self::entry::Content;
pub use self::entry::{Nonce, WholeId};
use self::failure::Failure;
pub use self::reader::Doubt;
use self::reader::{Reader, Step};
use self::reply::{Broken, REPLY_BYTES_MAX, word};
pub use self::scripts::Append;
use self::scripts::{Scripts, needs_script};
pub use self::settings::Settings;
pub use self::writer::{Nonces, Refusal};
use self::writer::{Outcome, Outcomes, Writer};
use crate::application::{Endpoint, Uplink, Uplinks};
pub use crate::metrics::RedisFigures;
use crate::time::Timestamp;

/// How long is waited after all servers have failed, at first and at most.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// A server that is silent for so many times as long as an answer may take is given up.
const SILENCES_MAX: u32 = 5;

/// The longest reply after one that was too long: one entry, which Redis bounds itself.
const CAREFUL_BYTES_MAX: usize = 1 << 30;

/// How often it is said that Redis is out of reach.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// What has happened, in the order in which it is to be taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event<'a> {
    /// The next entry of the stream.
    Entry {
        /// Its id.
        id: WholeId,
        /// Whose publisher awaits it here.
        own: Option<Nonce>,
        /// What it is known by.
        key: Option<&'a str>,
        /// The notification with its envelope; `None` if there is none, or it isn't UTF-8, or its id can't be told to clients.
        json: Option<&'a str>,
    },
    /// What was before can't be resumed from, at any node.
    Barrier(WholeId),
    /// The barrier that ends a doubt has been read: behind it all is certain again.
    Mended,
    /// Something may be gone.
    Doubt(Doubt),
    /// These weren't published, or may not have been.
    Refused(Nonces, Refusal),
    /// By its key it was there before, and this node has passed it on.
    Repeated(Nonce, WholeId),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Link {
    Down { retry_at: Timestamp },
    Opening { until: Timestamp },
    Up { since: Timestamp },
}

/// A stream, and what this node has to do with it.
pub struct Redis {
    settings: Settings,
    servers: Vec<Server>,
    password: Option<Box<str>>,
    rng: Rng,
    /// The latest time that it was told.
    now: Timestamp,
    link: Link,
    /// The server in use, or tried.
    at: usize,
    /// How many have failed in this round.
    tried: usize,
    backoff: Duration,
    /// Since when there is no link.
    away_since: Option<Timestamp>,
    complained_at: Option<Timestamp>,
    lacks_scripts: bool,
    read: Connection,
    write: Connection,
    writer: Writer,
    reader: Reader,
    barriers: Barriers,
    outcomes: Outcomes,
    /// Whether an entry or a barrier has been passed on that gives a position.
    has_position: bool,
    has_wanted_position: bool,
    is_ready: bool,
    figures: RedisFigures,
}

impl Redis {
    /// Uses the first of `servers` that is a master. `seed` is random: nodes with the same would take each other's entries
    /// for their own.
    ///
    /// # Panics
    /// Without a server.
    #[must_use]
    pub fn new(settings: Settings, servers: Vec<Server>, seed: u64) -> Self {
        assert!(!servers.is_empty(), "there is a server");
        let mut rng = Rng::with_seed(seed);
        // Neither counts so far that it comes to its end.
        let [first, first_of_barriers] =
            [rng.u64(..1 << 63), rng.u64(1 << 63..u64::MAX - (1 << 62))];
        Self {
            settings,
            servers,
            password: None,
            rng,
            now: Timestamp::ZERO,
            link: Link::Down {
                retry_at: Timestamp::ZERO,
            },
            at: 0,
            tried: 0,
            backoff: Duration::ZERO,
            away_since: Some(Timestamp::ZERO),
            complained_at: None,
            lacks_scripts: false,
            read: Connection::new(),
            write: Connection::new(),
            writer: Writer::new(first),
            reader: Reader::new(),
            barriers: Barriers::new(first_of_barriers),
            outcomes: VecDeque::new(),
            has_position: false,
            has_wanted_position: false,
            is_ready: false,
            figures: RedisFigures::default(),
        }
    }

    /// Appends entries, all of them or none, in their order. Each is answered by an event.
    ///
    /// # Errors
    /// They aren't appended, and no event will answer them.
    pub fn append(&mut self, entries: &[Append<'_>], now: Timestamp) -> Result<Nonces, Refusal> {
        self.tell(now);
        let appended = self.try_append(entries);
        if let Err(refusal) = &appended {
            self.count_refused(entries.len() as u64, refusal);
        }
        appended
    }

    fn try_append(&mut self, entries: &[Append<'_>]) -> Result<Nonces, Refusal> {
        if !self.is_reachable() {
            return Err(Refusal::OutOfReach);
        }
        let is_up = matches!(self.link, Link::Up { .. });
        if is_up && self.lacks_scripts && needs_script(entries) {
            return Err(Refusal::ByRedis("NOSCRIPT".into()));
        }
        self.writer.append(&self.settings, entries, self.now)
    }

    /// What has happened next, until there is nothing more.
    pub fn next_event(&mut self, now: Timestamp) -> Option<Event<'_>> {
        self.handle_timeout(now);
        if let Some(outcome) = self.outcomes.pop_front() {
            return Some(self.tell_outcome(outcome));
        }
        if !self.reader.has_next() {
            self.look_for_position();
            return None;
        }
        let event = match self.reader.next()? {
            Step::Doubt(doubt) => {
                match doubt {
                    Doubt::Lost => self.figures.doubts_lost += 1,
                    Doubt::Trimmed => self.figures.doubts_trimmed += 1,
                }
                Event::Doubt(doubt)
            }
            Step::Mended => Event::Mended,
            Step::Barrier(id) => {
                self.figures.read += 1;
                self.has_position = true;
                Event::Barrier(id)
            }
            Step::Entry(id, content) => {
                self.figures.read += 1;
                let own = content.nonce.filter(|nonce| self.writer.read_back(*nonce));
                self.writer.pass(|first| first == id, &mut self.outcomes);
                let (key, json) = texts(id, content);
                self.has_position =
                    self.has_position || json.is_some_and(self.settings.takes_position);
                Event::Entry { id, own, key, json }
            }
        };
        Some(event)
    }

    fn tell_outcome(&mut self, outcome: Outcome) -> Event<'static> {
        match outcome {
            Outcome::Refused(nonces, refusal) => {
                self.count_refused(nonces.end - nonces.start, &refusal);
                Event::Refused(nonces, refusal)
            }
            Outcome::Repeated(nonce, id) => Event::Repeated(nonce, id),
        }
    }

    const fn count_refused(&mut self, entries: u64, refusal: &Refusal) {
        let figures = &mut self.figures;
        *match refusal {
            Refusal::OutOfReach | Refusal::NotSent => &mut figures.refused_unreachable,
            Refusal::Full => &mut figures.refused_full,
            Refusal::Unanswered => &mut figures.refused_unanswered,
            Refusal::ByRedis(_) => &mut figures.refused_by_redis,
        } += entries;
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.tell(now);
        let now = self.now;
        self.writer.handle_timeout(now, &mut self.outcomes);
        self.barriers.handle_timeout(now);
        match self.link {
            Link::Down { retry_at } if retry_at <= now => self.attempt(),
            Link::Opening { until } if until <= now => self.fail(&Failure::Silent, None),
            Link::Up { .. } if self.given_up_at().is_some_and(|at| at <= now) => {
                self.fail(&Failure::Silent, None);
            }
            Link::Up { .. } if self.ping_at().is_some_and(|at| at <= now) => {
                let ping = |out: &mut Vec<u8>| command::write(out, &[b"PING"]);
                self.write.queue(Asked::Ping, now, ping);
            }
            _ => {}
        }
    }

    /// When something is to be done; what is past means that there are events.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        if !self.outcomes.is_empty() || self.reader.has_next() || self.looks_for_position() {
            return Some(Timestamp::ZERO);
        }
        let link = match self.link {
            Link::Down { retry_at } => Some(retry_at),
            Link::Opening { until } => Some(until),
            Link::Up { .. } => {
                // A stall is noticed when it begins.
                let stalled_at = self.stalled_at().filter(|at| *at > self.now);
                [stalled_at, self.given_up_at(), self.ping_at()]
                    .into_iter()
                    .flatten()
                    .min()
            }
        };
        // That it is out of reach is noticed when it begins.
        let away_at = self.away_since.map(|since| since + self.settings.timeout);
        let others = [
            self.writer.next_deadline(),
            self.barriers.next_deadline(),
            away_at.filter(|at| *at > self.now),
            link,
        ];
        others.into_iter().flatten().min()
    }

    /// How long an answer is waited for.
    #[must_use]
    pub const fn timeout(&self) -> Duration {
        self.settings.timeout
    }

    /// Whether what is published may get to Redis in time.
    #[must_use]
    pub fn is_reachable(&self) -> bool {
        let is_away = |since| self.now.saturating_since(since) >= self.settings.timeout;
        let is_stalled = self.stalled_at().is_some_and(|at| at <= self.now);
        !self.away_since.is_some_and(is_away) && !is_stalled
    }

    /// Whether the tail of the stream has been read, and there is a position.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// Whether nothing was sent whose publisher awaits an answer.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.outcomes.is_empty() && self.writer.is_settled()
    }

    /// Whether no publisher awaits an answer.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.outcomes.is_empty() && self.writer.entries() == 0
    }

    /// Whether appends wait, and aren't sent.
    pub const fn hold(&mut self, is_held: bool) {
        self.writer.hold(is_held);
    }

    /// The password of servers whose URL has none, from the next connection on.
    pub fn set_password(&mut self, password: Option<Box<str>>) {
        self.password = password;
    }

    /// What was counted.
    #[must_use]
    pub fn figures(&self) -> RedisFigures {
        let lags = !self.reader.is_caught_up();
        RedisFigures {
            is_up: matches!(self.link, Link::Up { .. }) && self.is_reachable(),
            written: self.writer.written(),
            pending: self.writer.entries() as u64,
            lagging_at_millis: lags.then(|| self.reader.passed().millis),
            ..self.figures
        }
    }

    /// What was passed on last, for tests.
    #[doc(hidden)]
    #[must_use]
    pub const fn passed(&self) -> WholeId {
        self.reader.passed()
    }

    /// Panics unless what must always hold does.
    pub fn check_invariants(&self) {
        self.writer.check_invariants();
        self.reader.check_invariants();
        let is_up = matches!(self.link, Link::Up { .. });
        let is_opening = matches!(self.link, Link::Opening { .. });
        for connection in [&self.read, &self.write] {
            assert_eq!(connection.is_open(), is_up || is_opening);
            assert!(!is_up || connection.is_ready());
        }
        assert_eq!(self.away_since.is_none(), is_up);
        assert!(!self.is_ready || self.has_position);
    }

    fn tell(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
    }

    // The link.

    fn attempt(&mut self) {
        let until = self.now + self.settings.timeout;
        let is_careful = self.reader.is_careful();
        let bytes_max = if is_careful {
            CAREFUL_BYTES_MAX
        } else {
            REPLY_BYTES_MAX
        };
        self.read.open(bytes_max);
        self.write.open(REPLY_BYTES_MAX);
        self.link = Link::Opening { until };
    }

    /// The link isn't there, or not any more, since this connection has `ended` or for another reason.
    fn fail(&mut self, failure: &Failure, ended: Option<Uplink>) {
        self.complain(failure);
        let closed_here = ended != Some(Uplink::Writer);
        self.writer.handle_end(&self.write, closed_here);
        self.reader.handle_end();
        self.read.end();
        self.write.end();
        let now = self.now;
        let is_steady = match self.link {
            Link::Up { since } => {
                self.away_since = Some(now);
                self.tried = 0;
                let is_steady = now.saturating_since(since) >= self.settings.timeout;
                if is_steady {
                    self.backoff = Duration::ZERO;
                }
                if failure.is_of_server() {
                    self.at = (self.at + 1) % self.servers.len();
                }
                is_steady
            }
            Link::Opening { .. } | Link::Down { .. } => {
                self.tried += 1;
                self.at = (self.at + 1) % self.servers.len();
                self.tried < self.servers.len()
            }
        };
        if is_steady {
            self.attempt();
            return;
        }
        self.tried = 0;
        self.backoff = (self.backoff * 2).clamp(BACKOFF_MIN, BACKOFF_MAX);
        // All nodes come back at once otherwise.
        let wait = self.backoff.mul_f64(0.75 + self.rng.f64() / 2.0);
        self.link = Link::Down {
            retry_at: now + wait,
        };
    }

    fn complain(&mut self, failure: &Failure) {
        let is_due = |at| self.now.saturating_since(at) >= COMPLAINT_INTERVAL;
        let was_up = matches!(self.link, Link::Up { .. });
        if was_up || self.complained_at.is_none_or(is_due) {
            let endpoint = &self.servers[self.at].endpoint;
            warn!(reason:% = failure; "Redis at {endpoint} is out of reach: {failure}");
            self.complained_at = Some(self.now);
        }
    }

    fn greet(&mut self, uplink: Uplink) {
        let Server { login, .. } = &self.servers[self.at];
        let password = self.password.as_deref().map(str::to_owned);
        let login = Login {
            password: login.password.clone().or(password),
            ..login.clone()
        };
        let scripts = Scripts::TEXTS;
        let (connection, scripts): (_, &[&str]) = match uplink {
            Uplink::Reader => (&mut self.read, &[]),
            Uplink::Writer => (&mut self.write, &scripts),
        };
        connection.greet(&self.settings, &login, scripts, self.now);
    }

    /// Both have been greeted.
    fn come_up(&mut self) -> Result<(), Failure> {
        let (read, write) = (self.read.greeting(), self.write.greeting());
        if read.identity.run_id != write.identity.run_id {
            return Err(Failure::TwoServers);
        }
        let endpoint = &self.servers[self.at].endpoint;
        info!("Redis at {endpoint} is connected");
        if write.lacks_scripts && !self.lacks_scripts {
            warn!("Redis at {endpoint} takes no scripts: keys and arrays are refused");
        }
        self.lacks_scripts = write.lacks_scripts;
        if write.identity.run_id.is_empty() {
            warn!(
                "Redis at {endpoint} doesn't say which it is (INFO): it isn't noticed when it is restarted"
            );
        }
        let has_read = self.reader.has_read();
        self.barriers.meet(&write.identity, &write.epoch, has_read);
        if !self.reader.is_checking() {
            self.barriers.take_suspicion();
            self.reader.settle(&mut self.barriers);
        }
        self.figures.connects += 1;
        self.away_since = None;
        self.complained_at = None;
        self.tried = 0;
        self.link = Link::Up { since: self.now };
        Ok(())
    }

    /// When it is no more to be expected that a server answers in time.
    fn stalled_at(&self) -> Option<Timestamp> {
        self.silent_after(1)
    }

    fn given_up_at(&self) -> Option<Timestamp> {
        self.silent_after(SILENCES_MAX)
    }

    fn silent_after(&self, timeouts: u32) -> Option<Timestamp> {
        let limit = self.settings.timeout * timeouts;
        let block = Duration::from_millis(self.settings.block_millis());
        let read = self.read.silent_since().map(|since| since + block + limit);
        let write = self.write.silent_since().map(|since| since + limit);
        let is_up = matches!(self.link, Link::Up { .. });
        read.into_iter().chain(write).min().filter(|_| is_up)
    }

    /// When an idle writer asks whether anybody is there.
    fn ping_at(&self) -> Option<Timestamp> {
        let is_idle = !self.write.is_awaiting();
        is_idle.then(|| self.write.heard() + self.settings.timeout)
    }

    // Answers.

    fn take_answers(&mut self, uplink: Uplink) -> Result<(), Failure> {
        let mut refusal = None;
        loop {
            let connection = match uplink {
                Uplink::Reader => &mut self.read,
                Uplink::Writer => &mut self.write,
            };
            let Some((asked, at, whole)) = connection.next_answer()? else {
                break;
            };
            let reply = whole.reply(connection.inbox().bytes());
            let error = match asked {
                Asked::Greeting(part) => {
                    connection.take_greeting(part, &whole)?;
                    None
                }
                Asked::Multi => {
                    self.writer.take_multi(reply);
                    None
                }
                Asked::Queued(nonce) => {
                    let taken = self.writer.take_queued(nonce, reply, &mut self.outcomes);
                    taken?.map(str::to_owned)
                }
                Asked::Append(_) | Asked::Exec => {
                    let outcomes = &mut self.outcomes;
                    let taken = match asked {
                        Asked::Append(nonce) => self.writer.take_answer(nonce, reply, outcomes),
                        _ => self.writer.take_exec(reply, outcomes),
                    };
                    let error = taken?.map(str::to_owned);
                    if error.is_none() {
                        let round_trip = self.now.saturating_since(at);
                        self.figures
                            .round_trip_micros
                            .observe(round_trip.as_micros() as u64);
                    }
                    let reader = &self.reader;
                    self.writer
                        .pass(|first| reader.has_passed(first), &mut self.outcomes);
                    error
                }
                Asked::Barrier => match (reply.text(), reply.error()) {
                    (Some(value), _) => {
                        self.barriers.take_value(value, self.now);
                        self.reader.settle(&mut self.barriers);
                        None
                    }
                    (None, Some(error)) => {
                        let error = word(error).to_owned();
                        self.barriers.take_error(self.now);
                        Some(error)
                    }
                    (None, None) => return Err(Broken("a barrier is answered oddly").into()),
                },
                Asked::Ping | Asked::Load => reply.error().map(|error| word(error).to_owned()),
                Asked::Read => {
                    if let Some(error) = reply.error() {
                        let word = word(error).into();
                        return Err(Unfit::Refused("reading", word).into());
                    }
                    self.reader.take_answer(whole);
                    self.take_whole_read()?;
                    None
                }
            };
            if let Some(error) = error {
                self.take_error(&error);
                if failure::is_of_server(&error) {
                    refusal = Some(Unfit::Refused("writing", error.into()));
                }
            }
        }
        if let Some(refusal) = refusal {
            return Err(refusal.into());
        }
        let are_ready = self.read.is_ready() && self.write.is_ready();
        if are_ready && matches!(self.link, Link::Opening { .. }) {
            self.come_up()?;
        }
        Ok(())
    }

    /// The writer was refused something.
    fn take_error(&mut self, error: &str) {
        if error == "NOSCRIPT" {
            for script in Scripts::TEXTS {
                let load: [&[u8]; 3] = [b"SCRIPT", b"LOAD", script.as_bytes()];
                self.write
                    .queue(Asked::Load, self.now, |out| command::write(out, &load));
            }
        }
    }

    /// What was read is looked at when all of the request is answered.
    fn take_whole_read(&mut self) -> Result<(), Failure> {
        if self.read.is_awaiting() {
            return Ok(());
        }
        if !self.read.inbox().is_read() {
            return Err(Broken("it says what nobody has asked").into());
        }
        let bytes = self.read.inbox().take();
        self.reader
            .take_answers(bytes, &self.settings, &mut self.barriers)?;
        self.look_for_position();
        Ok(())
    }

    /// Whether [`look_for_position`](Self::look_for_position) has something to do: what was read last is passed on by a call
    /// that can't do it.
    fn looks_for_position(&self) -> bool {
        let is_due = self.has_position || !self.has_wanted_position;
        !self.is_ready && is_due && self.reader.is_caught_up()
    }

    /// Whether the start is over. If the stream has nothing that gives a position, a barrier is to do that.
    fn look_for_position(&mut self) {
        if !self.looks_for_position() {
            return;
        }
        if self.has_position {
            self.is_ready = true;
        } else {
            self.has_wanted_position = true;
            self.barriers.want();
            self.reader.settle(&mut self.barriers);
        }
    }

    /// Has a barrier written if one is due.
    fn write_barrier(&mut self) {
        let Some((identity, known, nonce)) = self.barriers.take_due() else {
            return;
        };
        let (writer, settings) = (&self.writer, &self.settings);
        self.write.queue(Asked::Barrier, self.now, |out| {
            writer
                .scripts()
                .write_barrier(out, settings, (&identity, known, nonce));
        });
    }
}

/// The key and the notification of an entry, as far as they are texts.
fn texts(id: WholeId, content: Content<'_>) -> (Option<&str>, Option<&str>) {
    let is_tellable = entry::Place::from(id).is_tellable();
    let text = |bytes| std::str::from_utf8(bytes).ok();
    let json = content.json.filter(|_| is_tellable).and_then(text);
    (content.key.and_then(text), json)
}

impl Uplinks for Redis {
    fn take_connect(&mut self, uplink: Uplink) -> Option<Endpoint> {
        let connection = match uplink {
            Uplink::Reader => &mut self.read,
            Uplink::Writer => &mut self.write,
        };
        let is_wanted = connection.take_wanted();
        is_wanted.then(|| self.servers[self.at].endpoint.clone())
    }

    fn is_open(&self, uplink: Uplink) -> bool {
        self.connection(uplink).is_open()
    }

    fn handle_connected(&mut self, uplink: Uplink, now: Timestamp) {
        self.tell(now);
        if self.connection(uplink).is_opening() {
            self.greet(uplink);
        }
    }

    fn takes_input(&self, uplink: Uplink) -> bool {
        uplink == Uplink::Writer || self.reader.takes_input()
    }

    fn handle_received(&mut self, uplink: Uplink, bytes: &[u8], now: Timestamp) {
        self.tell(now);
        let connection = match uplink {
            Uplink::Reader => &mut self.read,
            Uplink::Writer => &mut self.write,
        };
        // What an earlier attempt has brought is of no use.
        if !connection.is_connected() {
            return;
        }
        connection.push(bytes, now);
        match self.take_answers(uplink) {
            Ok(()) => self.forget_read(uplink),
            Err(failure) => {
                if failure == Broken("a reply is too long").into() && uplink == Uplink::Reader {
                    self.reader.be_careful();
                }
                self.fail(&failure, None);
            }
        }
    }

    fn unsent(&mut self, uplink: Uplink) -> &[u8] {
        let is_up = matches!(self.link, Link::Up { .. });
        match uplink {
            Uplink::Reader => {
                if is_up {
                    self.reader.ask(&mut self.read, &self.settings, self.now);
                }
                self.read.unsent()
            }
            Uplink::Writer => {
                if is_up {
                    self.write_barrier();
                    self.writer.send(&mut self.write, self.now);
                }
                self.write.unsent()
            }
        }
    }

    fn handle_sent(&mut self, uplink: Uplink, len: usize, now: Timestamp) {
        self.tell(now);
        match uplink {
            Uplink::Reader => self.read.note_sent(len),
            Uplink::Writer => self.write.note_sent(len),
        }
    }

    fn handle_end(&mut self, uplink: Uplink, error: Option<&io::Error>, now: Timestamp) {
        self.tell(now);
        let connection = self.connection(uplink);
        // Its successor is on its way already.
        if connection.is_opening() || connection.is_connected() {
            let failure = Failure::Ended(error.map(io::Error::to_string));
            self.fail(&failure, Some(uplink));
        }
    }
}

impl Redis {
    const fn connection(&self, uplink: Uplink) -> &Connection {
        match uplink {
            Uplink::Reader => &self.read,
            Uplink::Writer => &self.write,
        }
    }

    /// Answers of a request that isn't answered as a whole stay where they are.
    fn forget_read(&mut self, uplink: Uplink) {
        match uplink {
            Uplink::Reader if self.reader.is_collecting() => {}
            Uplink::Reader => self.read.inbox().forget_read(),
            Uplink::Writer => self.write.inbox().forget_read(),
        }
    }
}
