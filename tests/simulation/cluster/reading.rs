//! What a node has read of the stream, in that order, and what follows from it for whoever shows an id.
//!
//! Main type: [`Reading`]. Invariants: nothing is read twice; each entry is the one behind the last on its branch, unless
//! the node has said that something may be gone.

use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use super::node::Configuration;
use super::peer::Peer;
use super::truth::{Truth, What};

/// An entry that a node has read.
pub(super) struct Read {
    pub(super) record: usize,
    at: u64,
    /// It was there when the node began.
    is_of_tail: bool,
    /// How many queues took it.
    pub(super) queued: usize,
    /// The same of those that have hung up, if they weren't being caught up.
    pub(super) queued_perhaps: usize,
}

/// What a node has read, in that order.
pub(super) struct Reading {
    pub(super) configuration: Configuration,
    pub(super) reads: Vec<Read>,
    pub(super) known: HashMap<usize, usize>,
    /// Nothing ahead of here can be resumed from.
    pub(super) floor: usize,
    /// What its newest position is called by.
    pub(super) name: Option<usize>,
    /// It has said that something may be gone since it read the newest; or ever.
    pub(super) has_doubt: bool,
    pub(super) has_doubted: bool,
    /// Nothing can be resumed from.
    pub(super) is_cut: bool,
    /// It has read something that isn't looked at yet.
    pub(super) is_fresh: bool,
    pub(super) invalid: u64,
    pub(super) gaps: u64,
}

impl Reading {
    pub(super) fn new(configuration: Configuration) -> Self {
        Self {
            configuration,
            reads: Vec::new(),
            known: HashMap::new(),
            floor: 0,
            name: None,
            has_doubt: false,
            has_doubted: false,
            is_cut: false,
            is_fresh: false,
            invalid: 0,
            gaps: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.reads.len()
    }

    /// The newest record that it has read.
    pub(super) fn newest(&self) -> Option<usize> {
        self.reads.last().map(|read| read.record)
    }

    pub(super) fn has_read(&self, record: usize) -> bool {
        self.known.contains_key(&record)
    }

    /// The id of its newest position.
    pub(super) fn id<'a>(&self, truth: &'a Truth) -> &'a Rc<str> {
        &truth.record(self.name.expect("it has a position")).id
    }

    /// What the position is called now that was the newest when so many were read.
    pub(super) fn id_at<'a>(&self, len: usize, truth: &'a Truth) -> &'a Rc<str> {
        let is_kept = |read: &&Read| truth.record(read.record).kept().is_some();
        let has_barrier = len <= self.floor
            && !self.reads[len..self.floor]
                .iter()
                .any(|read| is_kept(&read));
        let named = match has_barrier {
            true => self.reads.get(self.floor),
            false => {
                let is_name = |read: &&Read| truth.record(read.record).names_position();
                self.reads[..len].iter().rfind(is_name)
            }
        };
        &truth.record(named.expect("it had a position").record).id
    }

    /// Takes the next entry.
    pub(super) fn push(&mut self, record: usize, truth: &mut Truth, is_ready: bool, now: u64) {
        assert!(!self.has_read(record), "{record} is read twice");
        self.check_order(record, truth, now);
        self.known.insert(record, self.len());
        let entry = truth.record(record);
        match entry.what {
            What::Barrier => self.floor = self.len(),
            What::Invalid => self.invalid += 1,
            What::Said(_) => {}
        }
        if entry.names_position() {
            self.name = Some(record);
        }
        self.reads.push(Read {
            record,
            at: now,
            is_of_tail: !is_ready,
            queued: 0,
            queued_perhaps: 0,
        });
        (self.has_doubt, self.is_fresh) = (false, true);
        truth.note_read(record);
    }

    /// Nothing is left out, unless that was doubted.
    fn check_order(&self, record: usize, truth: &Truth, now: u64) {
        let mut ahead = truth.record(record).ahead;
        let Some(newest) = self.newest() else {
            return self.check_start(record, truth, now);
        };
        if !self.has_doubt {
            assert_eq!(
                ahead,
                Some(newest),
                "ahead of {record}, read without a doubt"
            );
            return;
        }
        // What was there before the first is what the start has left out.
        let first = self.reads[0].record;
        let is_unread = |ahead: &usize| *ahead > first && !self.has_read(*ahead);
        while let Some(skipped) = ahead.filter(is_unread) {
            let is_there = truth.redis.has(skipped);
            assert!(
                !is_there,
                "{skipped} is there, and is left out ahead of {record}"
            );
            ahead = truth.record(skipped).ahead;
        }
    }

    /// A start leaves out nothing that the history would have. What came just before it may be a little younger.
    fn check_start(&self, record: usize, truth: &Truth, now: u64) {
        let age_max = self.configuration.history.age_max.as_micros() as u64 / 2;
        let mut ahead = truth.record(record).ahead;
        let is_barrier = matches!(truth.record(record).what, What::Barrier);
        while let Some(skipped) = ahead.filter(|_| !is_barrier) {
            let entry = truth.record(skipped);
            let is_old = entry.at + age_max < now || !entry.names_position();
            let is_left_out = truth.redis.has(skipped) && !is_old && !truth.has_moved;
            assert!(!is_left_out, "{skipped} is left out by a start at {record}");
            if matches!(entry.what, What::Barrier) {
                return;
            }
            ahead = entry.ahead;
        }
    }

    /// The next that it has read from `at` on which a history keeps and `peer` wants.
    pub(super) fn next_kept(&self, peer: &Peer, truth: &Truth) -> Option<usize> {
        let wants = |at: &usize| {
            let record = truth.record(self.reads[*at].record);
            record.kept().is_some_and(|kept| peer.wants(kept))
        };
        (peer.at..self.len()).find(wants)
    }

    /// How a list may be answered that shows an id: whether with true, and whether with false.
    pub(super) fn judge(&self, since: &str, truth: &Truth, now: u64) -> (bool, bool) {
        let record = truth.named(since);
        let place = record.and_then(|record| self.known.get(&record).copied());
        let names = |record: usize| truth.record(record).names_position();
        let place = place.filter(|place| names(self.reads[*place].record));
        let Some(place) = place.filter(|place| *place >= self.floor && !self.is_cut) else {
            return (false, true);
        };
        let behind = &self.reads[place + 1..];
        let is_kept = |read: &&Read| truth.record(read.record).kept().is_some();
        let Some(next) = behind.iter().find(is_kept) else {
            return (true, false);
        };
        let age_max = self.configuration.history.age_max;
        let age = Duration::from_micros(now - truth.record(next.record).at.min(next.at));
        let is_young = age + Duration::from_secs(1) < age_max;
        (true, !is_young || next.is_of_tail && truth.has_moved)
    }

    /// Whether an id may still come.
    pub(super) fn may_come(&self, since: &str, truth: &Truth) -> bool {
        let newest = self.name.map(|name| truth.record(name).place);
        let record = truth.named(since).map(|at| truth.record(at));
        record.is_some_and(|record| Some(record.place) > newest)
    }
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = self.reads.len().saturating_sub(20);
        let newest: Vec<_> = self.reads[from..].iter().map(|read| read.record).collect();
        let Self { floor, is_cut, .. } = self;
        write!(f, "…{newest:?}, from {floor}, cut {is_cut}")
    }
}
