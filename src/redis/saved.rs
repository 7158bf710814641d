//! What a successor must know of a stream: how far it was read, what was read and not passed on, what is on its way to it, and
//! which Redis it was. One record of all that, then one of each append, each batch and each outcome.
//!
//! Sockets don't go over. What is written is what is known when the link has ended, and a successor does what follows on
//! each loss of it: it connects, sees whether the stream and its Redis are what they were, and reads on. So what waits is
//! sent by the successor, and what was sent is answered by what it reads. Logins don't go over either: they come from the
//! arguments and files of the successor.

use std::borrow::Cow;
use std::io;
use std::os::unix::ffi::OsStrExt;

use super::barriers::Barriers;
use super::reader::Reader;
use super::writer::{Outcome, Writer};
use super::{Nonce, Redis, RedisFigures};
use crate::application::{Endpoint, State};
use crate::handover::{Fields, Malformed};
use crate::metrics::saved::Counters;
use crate::time::Timestamp;
// Kinds of records.
const REDIS: u8 = 14;
const APPEND: u8 = 16;
const BATCH: u8 = 17;
const OUTCOME: u8 = 18;

// Members of REDIS.
const STREAM: u8 = 1;
/// Where the server in use listens, or the one that was tried.
const SERVER: u8 = 2;
const AWAY_SINCE: u8 = 3;
const HAS_POSITION: u8 = 4;
const HAS_WANTED_POSITION: u8 = 5;
const IS_READY: u8 = 6;
const FIGURES: u8 = 7;
const WRITER: u8 = 8;
const READER: u8 = 9;
const BARRIERS: u8 = 10;

impl Redis {
    /// Writes what a successor must know.
    ///
    /// # Errors
    /// As those of `state`.
    pub fn save(&self, state: &mut State<'_>) -> io::Result<()> {
        let Self {
            settings,
            servers,
            // From a file.
            password: _,
            // Is drawn anew.
            rng: _,
            now: _,
            // They end here.
            link: _,
            read: _,
            write,
            at,
            // Begin anew.
            tried: _,
            backoff: _,
            complained_at: _,
            away_since,
            // A server is asked with each link.
            lacks_scripts: _,
            writer,
            reader,
            barriers,
            outcomes,
            has_position,
            has_wanted_position,
            is_ready,
            figures,
        } = self;
        state.record(REDIS, |members| {
            members.bytes(STREAM, settings.stream.as_bytes());
            members.bytes(SERVER, &text_of(&servers[*at].endpoint));
            members.time(AWAY_SINCE, *away_since);
            members.number(HAS_POSITION, (*has_position).into());
            members.number(HAS_WANTED_POSITION, (*has_wanted_position).into());
            members.number(IS_READY, (*is_ready).into());
            members.numbers(FIGURES, &figures.save());
            members.nested(WRITER, |members| writer.save(members));
            members.nested(READER, |members| reader.save(members));
            members.nested(BARRIERS, |members| barriers.save(members));
        })?;
        for append in writer.appends() {
            state.record(APPEND, |members| append.save(write, members))?;
        }
        for batch in reader.batches() {
            state.record(BATCH, |members| batch.save(members))?;
        }
        for outcome in outcomes {
            state.record(OUTCOME, |members| outcome.save(members))?;
        }
        Ok(())
    }

    /// Whether a record is one that [`Redis::save`] has written.
    #[must_use]
    pub const fn is_record(kind: u8) -> bool {
        matches!(kind, REDIS | APPEND | BATCH | OUTCOME)
    }

    /// Takes the next record that [`Redis::save`] has written, of a stream with the same name.
    ///
    /// # Errors
    /// It can't go on from there.
    pub fn restore(
        &mut self,
        kind: u8,
        fields: &Fields<'_>,
        now: Timestamp,
    ) -> Result<(), Malformed> {
        match kind {
            REDIS => self.restore_head(fields, now),
            APPEND => self.writer.carry(fields, now + self.settings.timeout),
            BATCH => self.reader.carry(fields),
            OUTCOME => {
                let outcome = Outcome::restore(fields)?;
                if !self.writer.is_recent(&outcome.nonces()) {
                    return Err(Malformed(
                        "something is told of an append that nobody has made",
                    ));
                }
                self.outcomes.push_back(outcome);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Whether somebody will be told what becomes of the entry with this nonce.
    #[must_use]
    pub fn awaits(&self, nonce: Nonce) -> bool {
        let tells = |outcome: &Outcome| outcome.nonces().contains(&nonce.0);
        self.writer.awaits(nonce) || self.outcomes.iter().any(tells)
    }

    fn restore_head(&mut self, fields: &Fields<'_>, now: Timestamp) -> Result<(), Malformed> {
        if fields.bytes(STREAM) != self.settings.stream.as_bytes() {
            return Err(Malformed("it is of another stream (--redis-stream)"));
        }
        const LACKING: Malformed = Malformed("what is known of a stream is cut off");
        self.writer = Writer::restore(&fields.nested(WRITER)?.ok_or(LACKING)?)?;
        self.reader = Reader::restore(&fields.nested(READER)?.ok_or(LACKING)?)?;
        self.barriers = Barriers::restore(&fields.nested(BARRIERS)?.ok_or(LACKING)?)?;
        self.outcomes.clear();
        self.has_position = fields.number(HAS_POSITION) != 0;
        self.has_wanted_position = fields.number(HAS_WANTED_POSITION) != 0;
        self.is_ready = fields.number(IS_READY) != 0;
        if self.is_ready && !self.has_position {
            return Err(Malformed("a stream was read that has no position"));
        }
        self.figures = RedisFigures::restore(fields.numbers(FIGURES));
        let mut servers = self.servers.iter();
        let at = servers.position(|server| *text_of(&server.endpoint) == *fields.bytes(SERVER));
        self.at = at.unwrap_or(0);
        self.tell(now);
        self.away_since = Some(fields.time(AWAY_SINCE).unwrap_or(now));
        Ok(())
    }
}

/// An address or a path, which begins with a slash.
fn text_of(endpoint: &Endpoint) -> Cow<'_, [u8]> {
    match endpoint {
        Endpoint::Tcp(address) => address.to_string().into_bytes().into(),
        Endpoint::Unix(path) => path.as_os_str().as_bytes().into(),
    }
}

impl Counters for RedisFigures {
    fn each(&mut self, visit: &mut dyn FnMut(&mut u64)) {
        let Self {
            // What is there now.
            is_up: _,
            lagging_at_millis: _,
            pending: _,
            // The writer's.
            written: _,
            connects,
            round_trip_micros,
            read,
            doubts_lost,
            doubts_trimmed,
            refused_unreachable,
            refused_full,
            refused_unanswered,
            refused_by_redis,
        } = self;
        visit(connects);
        round_trip_micros.each(visit);
        visit(read);
        visit(doubts_lost);
        visit(doubts_trimmed);
        visit(refused_unreachable);
        visit(refused_full);
        visit(refused_unanswered);
        visit(refused_by_redis);
    }
}

#[cfg(test)]
impl Redis {
    /// All that a handover changes, without one: a successor that was begun with `seed` can't be told apart from this.
    pub(crate) fn lose_links(&mut self, seed: u64, now: Timestamp) {
        self.tell(now);
        self.writer.handle_end(&self.write, true);
        self.writer.hold(false);
        self.reader.handle_end();
        self.read.end();
        self.write.end();
        self.link = super::Link::Down {
            retry_at: Timestamp::ZERO,
        };
        (self.tried, self.backoff) = (0, std::time::Duration::ZERO);
        self.away_since = self.away_since.or(Some(now));
        self.lacks_scripts = false;
        self.rng = Self::new(self.settings.clone(), self.servers.clone(), seed).rng;
    }
}
