//! What the process around a server has to say to a successor: its log, its secrets as they were read, and its directory;
//! and what a successor makes of it.
//!
//! Main types: [`Process`] and [`Left`].

use std::mem;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use log::{LevelFilter, info};

use crate::application::Lane;
use crate::config::ListenAddress;
use crate::handover::{Fields, Malformed, Members};
use crate::journal::write_ahead::WriteAhead;
use crate::metrics::LOG_LINES_DROPPED;
use crate::net::server::{Host, Phase};

use super::console_key;
use super::logging::LogWriter;
use super::notify::Notifier;
use super::reload::Reload;
use super::trust::Secrets;

// Members of what a process leaves.
const LEVEL: u8 = 1;
const LINES: u8 = 2;
const LINES_DROPPED: u8 = 3;
const PUBLISH_TOKENS: u8 = 4;
const CLIENT_KEYS: u8 = 5;
const DIRECTORY: u8 = 6;
const REDIS_PASSWORD: u8 = 7;
const REDIS_ADDRESSES: u8 = 8;
const CONSOLE_KEY: u8 = 9;

/// How long the lines of the log may take that are there when a successor is about to begin.
const LOG_TIMEOUT: Duration = Duration::from_millis(20);

/// This process, around a server.
pub(super) struct Process {
    pub(super) notifier: Notifier,
    pub(super) logs: Rc<LogWriter>,
    pub(super) reload: Rc<Reload>,
    pub(super) write_ahead: Option<WriteAhead>,
    /// Where the names of Redis have led: a successor's connections would wait for a name server.
    pub(super) redis_addresses: String,
    /// Lines of the log that a successor was to write.
    pub(super) left_lines: Vec<u8>,
    /// The key of the console that nobody was shown yet.
    pub(super) fresh_key: Option<String>,
    /// Says where the server listens, and in which way it serves.
    pub(super) announce: Announce,
}

/// See [`Host::listening`].
pub(super) type Announce = Box<dyn Fn(&[(ListenAddress, Lane)])>;

impl Host for Process {
    fn enter(&mut self, phase: Phase) {
        if phase == Phase::Waiting {
            info!("waiting for Redis before it listens");
        }
        self.notifier.tell(phase);
    }

    fn listening(&mut self, addresses: &[(ListenAddress, Lane)]) {
        (self.announce)(addresses);
        if let Some(key) = &self.fresh_key {
            self.logs.flush(LOG_TIMEOUT);
            console_key::show(key, addresses);
        }
    }

    fn save(&self, members: &mut Members<'_>) {
        let Self {
            // From the environment.
            notifier: _,
            // Its lines are last.
            logs: _,
            reload,
            write_ahead,
            redis_addresses,
            left_lines: _,
            // With the secrets.
            fresh_key: _,
            // From arguments.
            announce: _,
        } = self;
        members.number(LEVEL, log::max_level() as u64);
        members.number(LINES_DROPPED, LOG_LINES_DROPPED.load(Ordering::Relaxed));
        let secrets = reload.secrets();
        let Secrets {
            publish_tokens,
            client_keys,
            redis_password,
            console_key,
        } = &*secrets;
        for (member, text) in [
            (PUBLISH_TOKENS, publish_tokens),
            (CLIENT_KEYS, client_keys),
            (REDIS_PASSWORD, redis_password),
            (CONSOLE_KEY, console_key),
        ] {
            members.bytes(member, text.as_deref().unwrap_or_default().as_bytes());
        }
        members.bytes(REDIS_ADDRESSES, redis_addresses.as_bytes());
        if let Some(write_ahead) = write_ahead {
            members.nested(DIRECTORY, |members| write_ahead.save(members));
        }
    }

    fn leave(&mut self, members: &mut Members<'_>) {
        self.left_lines = self.logs.leave(LOG_TIMEOUT);
        members.bytes(LINES, &self.left_lines);
    }

    fn stay(&mut self) {
        self.logs.stay(mem::take(&mut self.left_lines));
    }

    fn with_descriptors(&self, show: &mut dyn FnMut(&[BorrowedFd<'_>])) {
        match &self.write_ahead {
            Some(write_ahead) => write_ahead.with_descriptors(|descriptors| show(descriptors)),
            None => show(&[]),
        }
    }
}

/// What a process has left that a successor begins with.
pub(super) struct Left {
    pub(super) level: LevelFilter,
    pub(super) lines: Vec<u8>,
    pub(super) lines_dropped: u64,
    pub(super) secrets: Secrets,
    pub(super) redis_addresses: String,
}

impl Left {
    /// What [`Process`] has written.
    pub(super) fn restore(fields: &Fields<'_>) -> Result<Self, Malformed> {
        let text = |member| {
            let text = fields.text(member)?;
            Ok((!text.is_empty()).then(|| text.to_owned()))
        };
        let level = LevelFilter::iter().nth(fields.narrow(LEVEL)?);
        Ok(Self {
            level: level.ok_or(Malformed("the log has no such level"))?,
            lines: fields.bytes(LINES).to_vec(),
            lines_dropped: fields.number(LINES_DROPPED),
            secrets: Secrets {
                publish_tokens: text(PUBLISH_TOKENS)?,
                client_keys: text(CLIENT_KEYS)?,
                redis_password: text(REDIS_PASSWORD)?,
                console_key: text(CONSOLE_KEY)?,
            },
            redis_addresses: fields.text(REDIS_ADDRESSES)?.to_owned(),
        })
    }
}

/// What was left of the directory of the history, if there is one.
pub(super) fn directory<'a>(fields: &Fields<'a>) -> Result<Option<Fields<'a>>, Malformed> {
    fields.nested(DIRECTORY)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::path::Path;

    use super::*;
    use crate::handover::program::Predecessor;
    use crate::net::server::Inherited;

    #[test]
    fn what_the_first_state_says_of_its_process_is_read_for_ever() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/states/1.state");
        let inherited = Inherited::read(Predecessor {
            state: File::open(path).expect("a state"),
            descriptors: None,
        });
        let inherited = inherited.expect("it is kept readable");
        let fields = inherited.host().expect("members");
        let left = Left::restore(&fields).expect("it is kept readable");
        assert_eq!(left.level, LevelFilter::Info);
        assert!(left.lines.starts_with(b"[2026-11-26T14:14:"));
        assert!(left.lines.ends_with(b"\n"));
        assert_eq!(left.lines_dropped, 0);
        let Secrets {
            publish_tokens,
            client_keys,
            redis_password,
            console_key,
        } = left.secrets;
        assert_eq!(publish_tokens.as_deref(), Some("a-token-that-was-made-up"));
        assert_eq!(
            client_keys.as_deref(),
            Some("a-key-that-was-made-up-for-tests")
        );
        assert_eq!(redis_password, None);
        assert_eq!(console_key, None);
        assert!(directory(&fields).expect("members").is_some());
    }
}
