//! The log as it must be: every notification that was published, with its id, its key and its time, and how
//! far back the history reaches for certain, and not any more for certain.
//!
//! What the product's history costs in bytes isn't known to the byte here, so there are two bounds: what an entry
//! takes at least, and at most. Positions count from 1; 0 is ahead of the first.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use crieur::config::HistoryLimits;
use crieur::hub::filter::{Notification, Subscription, matches};
use crieur::journal::record::StoredEntry;

use crate::client::Counts;
use crate::dice::Dice;
use crate::texts::Publication;

/// What an entry takes at most, beside its texts.
const ENTRY_BYTES_MAX: usize = 1500;

/// What the looks at the clock cost in a turn at most.
const SPENT_MICROS_MAX: i64 = 20_000;

/// Some moment between the first and the second, in microseconds: within a turn the server's clock goes on.
pub(crate) type Moment = (i64, i64);

/// A notification that was published.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: Rc<str>,
    /// When, as the process sees it that serves now.
    published: Moment,
    /// The same on the wall clock.
    wall: Moment,
    /// What was published at once with it ends here.
    batch_end: u64,
    notification: Notification<'static>,
    key: Option<&'static str>,
    /// What clients get that don't number what they get, and what those get that do.
    pub(crate) plain: Rc<str>,
    pub(crate) numbered: Rc<str>,
    /// How many connections it was for.
    pub(crate) counts: Counts,
}

/// How an id that a client shows may be answered.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    /// All behind this position is to come.
    Resumed(u64),
    /// That, or that it is too old.
    Either(u64),
    /// It is too old.
    Expired,
    /// It isn't one of this log.
    Unknown,
}

/// Whether another notification with a key is there.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum First {
    None,
    Perhaps(u64),
    At(u64),
}

/// The log.
pub(crate) struct Log {
    limits: HistoryLimits,
    first_generation: u64,
    generation: u64,
    wall_ahead: i64,
    /// The id ahead of the first entry.
    origin: Rc<str>,
    entries: Vec<Entry>,
    positions: HashMap<Rc<str>, u64>,
    /// The newest with each key.
    keys: HashMap<&'static str, u64>,
    /// The bounds are those of the entries up to here.
    sealed: u64,
    /// Entries up to here have left the history, for their bytes; and what the others take at least.
    gone: u64,
    others_bytes_min: usize,
    /// Entries behind here have not left it for their bytes; and what they take at most.
    sure: u64,
    sure_bytes_max: usize,
    /// Ids that were given and mean nothing any more.
    forgotten: Vec<Rc<str>>,
}

impl Log {
    /// Nothing; the wall clock is ahead by so many microseconds.
    pub(crate) fn new(limits: HistoryLimits, generation: u64, wall_ahead: i64) -> Self {
        let origin: Rc<str> = id(generation, 0);
        Self {
            limits,
            first_generation: generation,
            generation,
            wall_ahead,
            positions: HashMap::from([(Rc::clone(&origin), 0)]),
            origin,
            entries: Vec::new(),
            keys: HashMap::new(),
            sealed: 0,
            gone: 0,
            others_bytes_min: 0,
            sure: 0,
            sure_bytes_max: 0,
            forgotten: Vec::new(),
        }
    }

    /// Another one, of a process that doesn't know this one.
    pub(crate) fn afresh(&mut self, generation: u64, wall_ahead: i64) -> Self {
        let mut log = Self::new(self.limits, generation, wall_ahead);
        log.forgotten = std::mem::take(&mut self.forgotten);
        log.forgotten
            .extend(self.positions.drain().map(|(id, _)| id));
        // In the order of their texts: that of a table isn't the same again.
        log.forgotten.sort_unstable();
        log
    }

    /// A process that begins now goes on with what there was up to `head`.
    pub(crate) fn go_on(&mut self, head: u64, generation: u64, now: i64, wall_ahead: i64) {
        if head > 0 {
            assert!(self.entry(head).batch_end <= head, "a part of an array");
        }
        (self.generation, self.wall_ahead) = (generation, wall_ahead);
        let lost = self.entries.split_off(head as usize);
        for Entry { id, .. } in lost {
            self.positions.remove(&id);
            self.forgotten.push(id);
        }
        self.keys.clear();
        self.sealed = 0;
        (self.gone, self.others_bytes_min) = (0, 0);
        (self.sure, self.sure_bytes_max) = (0, 0);
        for position in 1..=head {
            let entry = &mut self.entries[position as usize - 1];
            // Nothing becomes younger than it can be, whatever the wall clock says.
            let (from, to) = entry.wall;
            entry.published = ((from - wall_ahead).min(now), (to - wall_ahead).min(now));
            // How many it was for isn't written down.
            entry.counts = Counts {
                recipients: 0,
                dropped: 0..=0,
            };
            if let Some(key) = entry.key {
                self.keys.insert(key, position);
            }
            self.measure(position);
        }
    }

    /// Holds an entry that was read back against what it was.
    pub(crate) fn check_stored(&self, position: u64, stored: &StoredEntry<'_>) {
        let StoredEntry {
            unix_micros,
            key,
            kind,
            notification,
        } = stored;
        let entry = self.entry(position);
        let id = &entry.id;
        let text = format!(r#"{{"type":{kind},"id":"{id}","notification":{notification}}}"#);
        assert_eq!(text, *entry.numbered);
        assert_eq!(*key, entry.key);
        let (from, to) = entry.wall;
        assert!(
            (from..=to).contains(&(*unix_micros as i64)),
            "{unix_micros}"
        );
    }

    pub(crate) fn is_on(&self) -> bool {
        self.limits.bytes_max > 0 && !self.limits.age_max.is_zero()
    }

    /// That of the process which has begun it.
    pub(crate) const fn first_generation(&self) -> u64 {
        self.first_generation
    }

    /// The position of the newest entry.
    pub(crate) fn head(&self) -> u64 {
        self.entries.len() as u64
    }

    pub(crate) fn entry(&self, position: u64) -> &Entry {
        &self.entries[position as usize - 1]
    }

    /// The id of a position.
    pub(crate) fn id(&self, position: u64) -> &Rc<str> {
        match position {
            0 => &self.origin,
            _ => &self.entry(position).id,
        }
    }

    /// The position that an id was given to.
    pub(crate) fn position(&self, id: &str) -> Option<u64> {
        self.positions.get(id).copied()
    }

    /// Appends what is published at some time; returns its position. To be sealed.
    pub(crate) fn push(&mut self, publication: &Publication, counts: Counts, now: Moment) -> u64 {
        let position = self.head() + 1;
        let id = id(self.generation, position);
        let numbered = publication.numbered(&id);
        self.positions.insert(Rc::clone(&id), position);
        self.entries.push(Entry {
            id,
            published: now,
            wall: (now.0 + self.wall_ahead, now.1 + self.wall_ahead),
            batch_end: position,
            notification: publication.notification.clone(),
            key: publication.key,
            plain: Rc::clone(&publication.delivered),
            numbered,
            counts,
        });
        if let Some(key) = publication.key {
            self.keys.insert(key, position);
        }
        position
    }

    /// Ends what was published at once: nothing of it leaves the history before.
    pub(crate) fn seal(&mut self) {
        let head = self.head();
        for position in self.sealed + 1..=head {
            self.entries[position as usize - 1].batch_end = head;
            self.measure(position);
        }
    }

    /// Follows what the entry at a position, the newest then, does to the bounds.
    fn measure(&mut self, position: u64) {
        let bytes_max = self.limits.bytes_max;
        self.sealed = position;
        self.others_bytes_min += self.bytes_min(position);
        while self.others_bytes_min > bytes_max {
            self.gone += 1;
            self.others_bytes_min -= self.bytes_min(self.gone);
        }
        self.sure_bytes_max += self.bytes_max(position);
        while self.sure_bytes_max > bytes_max {
            self.sure += 1;
            self.sure_bytes_max -= self.bytes_max(self.sure);
        }
    }

    fn bytes_min(&self, position: u64) -> usize {
        self.entry(position).plain.len()
    }

    fn bytes_max(&self, position: u64) -> usize {
        let entry = self.entry(position);
        entry.plain.len() + entry.numbered.len() + ENTRY_BYTES_MAX
    }

    /// Entries up to here have left the history for certain, because of its bytes.
    pub(crate) const fn gone(&self) -> u64 {
        self.gone
    }

    /// Entries behind here are in the history for certain, as far as bytes go.
    pub(crate) const fn sure(&self) -> u64 {
        self.sure
    }

    /// Whether bytes alone are no reason for an entry to have left the history.
    pub(crate) const fn is_within_bytes(&self, position: u64) -> bool {
        position > self.sure
    }

    /// Whether an entry is in the history for certain.
    pub(crate) fn is_there(&self, position: u64, now: Moment) -> bool {
        // What a turn spends is taken back at its end, but not what was dropped in it.
        let age_max = now.1 + SPENT_MICROS_MAX - self.entry(position).published.0;
        self.is_on() && self.is_within_bytes(position) && age(age_max) <= self.limits.age_max
    }

    fn is_too_old(&self, position: u64, now: Moment) -> bool {
        let age_min = now.0 - self.entry(position).published.1;
        age(age_min) > self.limits.age_max
    }

    /// How a client may be answered that shows an id.
    pub(crate) fn judge(&self, since: &str, now: Moment) -> Answer {
        if !self.is_on() {
            return Answer::Expired;
        }
        let Some(position) = self.position(since) else {
            return Answer::Unknown;
        };
        let next = position + 1;
        if position == self.head() || self.is_there(next, now) {
            Answer::Resumed(position)
        } else if next <= self.gone || self.is_too_old(next, now) {
            Answer::Expired
        } else {
            Answer::Either(position)
        }
    }

    /// Another notification with a key that is there still.
    pub(crate) fn find_key(&self, key: &str, now: Moment) -> First {
        match self.keys.get(key) {
            Some(&position) if self.is_there(position, now) => First::At(position),
            Some(&position) if position > self.gone => First::Perhaps(position),
            _ => First::None,
        }
    }

    /// The first entry behind a position that one of these matches.
    pub(crate) fn next_match(
        &self,
        position: u64,
        subscriptions: &[Subscription<'_>],
    ) -> Option<u64> {
        let behind = (position + 1)..=self.head();
        behind.into_iter().find(|&position| {
            let notification = &self.entry(position).notification;
            let mut subscriptions = subscriptions.iter();
            subscriptions.any(|one| matches(one, notification))
        })
    }

    // What clients show.

    /// An id that was given some time.
    pub(crate) fn any_id(&self, dice: &mut Dice) -> Rc<str> {
        if !self.forgotten.is_empty() && dice.chance(15) {
            return Rc::clone(&self.forgotten[dice.below(self.forgotten.len())]);
        }
        Rc::clone(self.id(dice.below(self.entries.len() + 1) as u64))
    }

    /// What looks like an id, or doesn't, and was never given.
    pub(crate) fn invented_id(&self, dice: &mut Dice) -> Rc<str> {
        let (head, generation) = (self.head(), self.generation);
        match dice.below(7) {
            0 => id(dice.next_u64(), dice.below(head as usize + 2) as u64),
            1 => id(generation, head + 1),
            2 => id(generation, u64::MAX - dice.below(2) as u64),
            3 => format!("{generation:016x}-0{head}").into(),
            4 => format!("{generation:x}-{head}é").into(),
            5 => "9".repeat(dice.between(1, 300)).into(),
            _ => format!("{generation:016x}").into(),
        }
    }
}

fn age(micros: i64) -> Duration {
    Duration::from_micros(micros.max(0) as u64)
}

fn id(generation: u64, position: u64) -> Rc<str> {
    format!("{generation:016x}-{position}").into()
}
