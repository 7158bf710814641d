//! The log of notifications: what was published lately, in one order, each with an id.
//!
//! A log with one writer. Knows neither sockets nor JSON, and no subscriptions: what an entry says is text,
//! what it is found by are fingerprints that the hub makes. Main type: [`Journal`]. Call order of what
//! is published together: [`Journal::push`] for each, [`Journal::seal`], and only then is any of it sent.
//!
//! Where the order is that of a stream ([`Journal::of_stream`]), [`Journal::push_read`] takes the place of the first;
//! [`Journal::mark`], [`Journal::cut`] and [`Journal::mend`] tell what else is read of the stream, in its order.

pub mod boot;
pub mod column;
pub mod directory;
pub mod entry;
#[doc(hidden)]
pub mod fuzzing;
pub mod generations;
pub mod history;
pub mod id;
mod ids;
pub mod needles;
pub mod record;
pub mod saved;
pub mod segments;
#[doc(hidden)]
pub mod simulated;
pub mod storage;
pub mod write_ahead;

use std::time::Duration;

use self::column::{Column, Fingerprints};
use self::entry::{Content, Encoding, Entry};
use self::generations::Generations;
use self::history::History;
use self::id::{EntryId, Generation, Position, StreamId};
pub use self::ids::NotResumed;
use self::ids::{Ids, StreamIds};
use self::record::StoredEntry;
use self::segments::Restored;
use self::write_ahead::WriteAhead;
use crate::config::HistoryLimits;
use crate::time::{Clock, Timestamp};
use crate::ws::frame::EncodedFrame;

/// The log.
pub struct Journal {
    ids: Ids,
    history: History,
    /// While nothing is kept: the position of the newest notification.
    unkept: Position,
    /// Where it is kept beside memory.
    write_ahead: Option<WriteAhead>,
}

impl Journal {
    /// An empty log of a process that has drawn `generation`.
    #[must_use]
    pub fn new(limits: HistoryLimits, generation: Generation) -> Self {
        let generations = vec![(generation, Position::default())];
        Self::empty(limits, Ids::Own(Generations::new(generations)))
    }

    /// An empty log of a stream, whose entries have ids already.
    #[must_use]
    pub fn of_stream(limits: HistoryLimits) -> Self {
        Self::empty(limits, Ids::Stream(StreamIds::default()))
    }

    fn empty(limits: HistoryLimits, ids: Ids) -> Self {
        let start = Position::default();
        Self {
            history: History::new(limits, start).with_id_bytes(ids.entry_bytes()),
            ids,
            unkept: start,
            write_ahead: None,
        }
    }

    /// The log that goes on from what was `restored`, and is written by `write_ahead`. `unix_now` is the time of
    /// the wall clock at which the server's clock begins. `fingerprint` finds what a notification is found by.
    #[must_use]
    pub fn restore(
        limits: HistoryLimits,
        restored: &Restored,
        write_ahead: WriteAhead,
        unix_now: Duration,
        mut fingerprint: impl FnMut(&str, &mut Fingerprints),
    ) -> Self {
        let mut journal = Self {
            ids: Ids::Own(Generations::new(restored.generations.clone())),
            history: History::new(limits, restored.first),
            unkept: restored.first,
            write_ahead: Some(write_ahead),
        };
        let mut fingerprints = Fingerprints::default();
        for stored in restored.entries.iter() {
            fingerprints.clear();
            fingerprint(stored.notification, &mut fingerprints);
            let id = journal.entry_id(journal.head().next());
            let content = Content {
                kind: stored.kind,
                notification: stored.notification,
            };
            let published = micros_since(Duration::from_micros(stored.unix_micros), unix_now);
            let entry = Entry::new(content, id, Encoding::Numbered, stored.key, published);
            journal.history.push(entry, &fingerprints);
            journal.history.shrink_to_bytes();
        }
        while journal.history.expire(0, None) {}
        journal
    }

    /// Where it is kept beside memory.
    #[must_use]
    pub const fn write_ahead(&self) -> Option<&WriteAhead> {
        self.write_ahead.as_ref()
    }

    /// Whether anything is kept.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.history.is_on()
    }

    /// The newest entries.
    #[must_use]
    pub const fn history(&self) -> &History {
        &self.history
    }

    /// What the entries of the history are found by.
    #[must_use]
    pub const fn column(&self) -> &Column {
        self.history.column()
    }

    /// The position of the newest notification.
    #[must_use]
    pub fn head(&self) -> Position {
        self.history.head().max(self.unkept)
    }

    /// Where the history begins: the position ahead of all that is kept.
    fn start(&self) -> Position {
        self.history.start().max(self.unkept)
    }

    /// The id of the entry at a position, which its frames say. Of a stream's, only those of the history are known, and
    /// the one ahead of them; any other is [`StreamId::NONE`], from which nobody can resume.
    #[must_use]
    pub fn entry_id(&self, position: Position) -> EntryId {
        self.ids.entry_id(position)
    }

    /// The id of a position, which a client is told that has all up to there. It is that of the entry, but the
    /// barrier's if one stands behind it.
    #[must_use]
    pub fn id(&self, position: Position) -> EntryId {
        self.ids.id(position)
    }

    /// The position that a client shows, if everything behind it is there.
    ///
    /// # Errors
    /// Why it isn't.
    pub fn locate(&self, text: &str, now: Timestamp) -> Result<Position, NotResumed> {
        if !self.is_on() {
            return Err(NotResumed::Expired);
        }
        let id: EntryId = text.parse().map_err(|_| NotResumed::Unknown)?;
        let position = self.ids.locate(id, self.head())?;
        if self.history.reaches_back_to(position, micros(now)) {
            Ok(position)
        } else {
            Err(NotResumed::Expired)
        }
    }

    /// The position of the notification with a key.
    #[must_use]
    pub fn find_key(&self, key: &str) -> Option<Position> {
        self.history.find_key(key)
    }

    /// Appends a notification that this log gives an id; returns its position.
    pub fn push(
        &mut self,
        content: Content<'_>,
        encoding: Encoding,
        key: Option<&str>,
        fingerprints: &Fingerprints,
        now: Timestamp,
    ) -> Position {
        debug_assert!(!self.ids.are_of_stream(), "a stream gives its ids itself");
        let position = self.head().next();
        if self.is_on() {
            let id = self.entry_id(position);
            let entry = Entry::new(content, id, encoding, key, micros(now));
            self.history.push(entry, fingerprints);
        } else {
            self.unkept = position;
        }
        position
    }

    /// Appends a notification that was read from the stream, where its id is `id`; returns its position. It was
    /// published at `published_micros` on the server's clock, which is behind zero for what an earlier process has
    /// seen. What isn't kept, or isn't valid, takes no position and isn't shown here.
    pub fn push_read(
        &mut self,
        id: StreamId,
        content: Content<'_>,
        encoding: Encoding,
        key: Option<&str>,
        fingerprints: &Fingerprints,
        published_micros: i64,
    ) -> Position {
        let id = EntryId::Stream(id);
        let position = self.head().next();
        self.ids.push(id);
        if self.is_on() {
            let entry = Entry::new(content, id, encoding, key, published_micros);
            self.history.push(entry, fingerprints);
        } else {
            self.unkept = position;
            self.trim_ids();
        }
        position
    }

    /// A barrier was read from the stream: nothing before it can be resumed from, here or at any other node. From now on
    /// the newest position is called by its id.
    pub fn mark(&mut self, barrier: StreamId) {
        if let Some(ids) = self.stream_ids() {
            ids.mark(barrier);
        }
    }

    /// Something of the stream may be gone. Nothing can be resumed from until [`Journal::mend`]. From then on what was
    /// appended meanwhile can be, as far as it stands behind the barrier.
    pub fn cut(&mut self) {
        if let Some(ids) = self.stream_ids() {
            ids.set_cut(true);
        }
    }

    /// The barrier that was written because of the last cut, or one behind it, has been marked: all behind it is certain
    /// again. An older one doesn't do: it may stand ahead of what is gone.
    pub fn mend(&mut self) {
        if let Some(ids) = self.stream_ids() {
            ids.set_cut(false);
        }
    }

    fn stream_ids(&mut self) -> Option<&mut StreamIds> {
        match &mut self.ids {
            Ids::Stream(ids) => Some(ids),
            Ids::Own(_) => {
                debug_assert!(false, "this log is of no stream");
                None
            }
        }
    }

    /// Ends what is published together, which began behind `start`.
    pub fn seal(&mut self, start: Position, clock: &(impl Clock + ?Sized)) {
        if let Some(write_ahead) = &self.write_ahead
            && start < self.history.head()
        {
            let unix_micros = u64::try_from(clock.unix_now().as_micros()).unwrap_or(u64::MAX);
            let entries = self.history.behind(start).map(|entry| {
                let Content { kind, notification } = entry.content();
                StoredEntry {
                    unix_micros,
                    key: entry.key(),
                    kind,
                    notification,
                }
            });
            write_ahead.append(start.next(), entries);
        }
        self.shrink_to_bytes();
    }

    fn shrink_to_bytes(&mut self) {
        self.history.shrink_to_bytes();
        self.trim_ids();
    }

    /// Lets go of the ids of what has left the history.
    fn trim_ids(&mut self) {
        if self.ids.are_of_stream() {
            self.ids.trim(self.start());
        }
    }

    /// What is sent of the entry at a position, if it is there, which is being published: older ones make room.
    pub fn frame(&mut self, position: Position, encoding: Encoding) -> Option<EncodedFrame> {
        let frame = self.encode(position, encoding, usize::MAX);
        self.shrink_to_bytes();
        frame
    }

    /// The same of one that was published before; nothing makes room for it.
    pub fn replayed_frame(&mut self, position: Position) -> Option<EncodedFrame> {
        self.encode(position, Encoding::Numbered, self.history.bytes_left())
    }

    fn encode(
        &mut self,
        position: Position,
        encoding: Encoding,
        bytes_max: usize,
    ) -> Option<EncodedFrame> {
        if let Some(frame) = self.history.get(position)?.encoded(encoding) {
            return Some(frame.clone());
        }
        let id = self.entry_id(position);
        let encode = |entry: &mut Entry| entry.encode(id, encoding, bytes_max);
        self.history.update(position, encode)
    }

    /// Notes how many connections the entry at a position was queued to.
    pub fn note_delivered(&mut self, position: Position, delivered: usize) {
        let delivered = u32::try_from(delivered).unwrap_or(u32::MAX);
        self.history
            .update(position, |entry| entry.note_delivered(delivered));
    }

    /// How many connections the entry at a position was queued to when it was published; 0 if that isn't known.
    #[must_use]
    pub fn delivered(&self, position: Position) -> usize {
        let entry = self.history.get(position);
        entry.map_or(0, |entry| entry.delivered() as usize)
    }

    /// Drops some of what is too old, but nothing behind `needed`. Says whether there is more of it.
    pub fn expire(&mut self, now: Timestamp, needed: Option<Position>) -> bool {
        let has_more = self.history.expire(micros(now), needed);
        self.trim_ids();
        if let Ids::Stream(ids) = &mut self.ids {
            ids.shrink();
        }
        has_more
    }

    /// How long it is until the oldest entry is too old.
    #[must_use]
    pub fn time_left(&self, now: Timestamp) -> Option<Duration> {
        self.history.time_left(micros(now))
    }

    /// The position of the entry with this id, if the history has it.
    #[must_use]
    pub fn find(&self, id: &str, now: Timestamp) -> Option<Position> {
        let position = self.locate(id, now).ok()?;
        let entry = self.history.get(position)?;
        let is_it = self.entry_id(position).text().as_str() == id;
        (is_it && entry.age(micros(now)) <= self.history.limits().age_max).then_some(position)
    }

    /// Bytes of the notification at a position.
    #[must_use]
    pub fn notification_len(&self, position: Position) -> usize {
        let entry = self.history.get(position);
        entry.map_or(0, |entry| entry.content().notification.len())
    }

    /// How long ago the entry at a position was published.
    #[must_use]
    pub fn age_of(&self, position: Position, now: Timestamp) -> Duration {
        let entry = self.history.get(position);
        entry.map_or(Duration::ZERO, |entry| entry.age(micros(now)))
    }

    /// The age of the oldest entry.
    #[must_use]
    pub fn age(&self, now: Timestamp) -> Duration {
        let oldest = self.history.oldest();
        oldest.map_or(Duration::ZERO, |entry| entry.age(micros(now)))
    }

    /// Asserts what must hold between two calls.
    pub fn check_invariants(&self) {
        self.history.check_invariants();
        if let Ids::Stream(ids) = &self.ids {
            ids.check_invariants(self.start(), self.head());
        }
    }
}

/// What lies between two times of the wall clock; less than nothing for what comes first.
fn micros_since(time: Duration, origin: Duration) -> i64 {
    let micros = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    // A clock that was set back makes nothing younger than it can be.
    (micros(time) - micros(origin)).min(0)
}

/// Entries of an earlier process are older than the clock.
fn micros(now: Timestamp) -> i64 {
    i64::try_from(now.as_micros()).unwrap_or(i64::MAX)
}
