//! Writing ahead: what was published is on disk before any byte of it, or of its receipt, reaches a socket.
//!
//! Must not know sockets. Whoever writes to one asks [`WriteAhead::is_pending`] first, which costs a load, and has
//! [`WriteAhead::commit`] write what is: so there is one write a turn, however much was published in it. After a
//! write that failed the files are made invalid before anything else happens, and nothing is written from then on.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use super::id::Position;
use super::record::{StoredEntry, encode_entries};
use super::segments::Segments;
use super::storage::Storage;
use crate::handover::{Fields, Malformed, Members};

/// With more than this pending it is written without waiting for the end of the turn.
const PENDING_BYTES_MAX: usize = 1 << 20;

/// How much of its buffer is kept when it has been written.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// A handle to the one log on disk; clones are handles to the same.
#[derive(Clone)]
pub struct WriteAhead(Rc<Shared>);

struct Shared {
    /// Whether [`WriteAhead::commit`] has something to do.
    is_pending: Cell<bool>,
    log: RefCell<Log>,
}

struct Log {
    segments: Segments,
    /// Records without their checks.
    pending: Vec<u8>,
    /// The position of the last entry in them; that of the segments if there is none.
    end: Position,
    state: State,
    write_errors: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Writing = 0,
    /// A write has failed, and a later start could still take the files for whole: that is tried to be changed
    /// ahead of each delivery.
    Failing = 1,
    /// A write has failed, and the files are nothing.
    Failed = 2,
}

impl State {
    const ALL: [Self; 3] = [Self::Writing, Self::Failing, Self::Failed];
}

// Members of a log on disk. The state is its place in `State::ALL`.
const STATE: u8 = 1;
const WRITE_ERRORS: u8 = 2;
const SEGMENTS: u8 = 3;

impl WriteAhead {
    /// Goes on where the segments end.
    #[must_use]
    pub fn new(segments: Segments) -> Self {
        Self::of(Log {
            end: segments.end(),
            segments,
            pending: Vec::new(),
            state: State::Writing,
            write_errors: 0,
        })
    }

    fn of(log: Log) -> Self {
        Self(Rc::new(Shared {
            is_pending: Cell::new(false),
            log: RefCell::new(log),
        }))
    }

    /// Writes what is pending to disk, and into `members` what a successor must know that is given
    /// [`Self::with_descriptors`]. This one can still go on.
    pub fn save(&self, members: &mut Members<'_>) {
        if self.is_pending() {
            self.commit();
        }
        let Shared {
            // There is nothing now.
            is_pending: _,
            log,
        } = &*self.0;
        log.borrow().save(members);
    }

    /// Shows the descriptors that a successor goes on with, in the order that it wants them in.
    pub fn with_descriptors<R>(&self, show: impl FnOnce(&[BorrowedFd<'_>]) -> R) -> R {
        show(&self.0.log.borrow().segments.descriptors())
    }

    /// Goes on where another program of this process has ended, which has saved `fields`. `open` makes the storage of
    /// what it has said of itself. Where the newer segment has another length than it had, this is as if a write had
    /// failed.
    ///
    /// # Errors
    /// `fields` are none that could be gone on from, or `open` says so.
    pub fn carried(
        fields: &Fields<'_>,
        bytes_max: u64,
        open: impl FnOnce(&Fields<'_>) -> Result<Box<dyn Storage>, Malformed>,
    ) -> Result<Self, Malformed> {
        let state = State::ALL.get(fields.narrow::<usize>(STATE)?);
        let segments = fields.nested(SEGMENTS)?;
        let segments = segments.ok_or(Malformed("a log has no segments"))?;
        let segments = Segments::carried(&segments, bytes_max, open)?;
        let mut log = Log {
            end: segments.end(),
            segments,
            pending: Vec::new(),
            state: *state.ok_or(Malformed("a log is in no such state"))?,
            write_errors: fields.number(WRITE_ERRORS),
        };
        if log.state == State::Writing
            && let Err(error) = log.segments.check_length()
        {
            log.fail(&error);
        }
        Ok(Self::of(log))
    }

    /// The position of the newest entry that was appended, as long as the log can be written.
    pub(super) fn end(&self) -> Option<Position> {
        let log = self.0.log.borrow();
        (log.state == State::Writing).then_some(log.end)
    }

    /// Takes what was published at once, to be written by the next [`Self::commit`]. The first of `entries` has the
    /// position `first`, which is that behind the newest. A later start has all of them or none.
    pub fn append<'a>(&self, first: Position, entries: impl Iterator<Item = StoredEntry<'a>>) {
        let mut log = self.0.log.borrow_mut();
        log.append(first, entries);
        self.0.is_pending.set(log.has_work());
    }

    /// Whether something was published and isn't written yet. Then nothing may be sent.
    #[inline]
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.0.is_pending.get()
    }

    /// Writes what is pending. Afterwards all that was published may be sent, whether or not the write has failed.
    pub fn commit(&self) {
        self.0.log.borrow_mut().commit();
        self.0.is_pending.set(false);
    }

    /// A clean end: what is pending is written, all is made to last, and marked as complete. Nothing may be
    /// published any more.
    pub fn close(&self) {
        self.commit();
        let mut log = self.0.log.borrow_mut();
        if log.state == State::Writing
            && let Err(error) = log.segments.close()
        {
            log.fail(&error);
        }
    }

    /// How many writes have failed; at most one, since nothing is written afterwards.
    #[must_use]
    pub fn write_errors(&self) -> u64 {
        self.0.log.borrow().write_errors
    }

    /// Whether the history is kept in memory only since a write has failed.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        self.0.log.borrow().state != State::Writing
    }
}

impl Log {
    fn save(&self, members: &mut Members<'_>) {
        let Self {
            segments,
            // It was written.
            pending: _,
            // So this is the end of the segments.
            end: _,
            state,
            write_errors,
        } = self;
        members.number(STATE, *state as u64);
        members.number(WRITE_ERRORS, *write_errors);
        members.nested(SEGMENTS, |members| segments.save(members));
    }

    fn has_work(&self) -> bool {
        !self.pending.is_empty() || self.state == State::Failing
    }

    fn append<'a>(&mut self, first: Position, entries: impl Iterator<Item = StoredEntry<'a>>) {
        if self.state != State::Writing {
            return;
        }
        debug_assert_eq!(first, self.end.next(), "positions have no gap");
        match encode_entries(&mut self.pending, first, entries) {
            Ok(count) => self.end.0 += u64::from(count),
            Err(error) => self.fail(&error.into()),
        }
        if self.pending.len() > PENDING_BYTES_MAX {
            self.commit();
        }
    }

    fn commit(&mut self) {
        if self.state == State::Failing {
            self.invalidate();
        }
        if self.pending.is_empty() {
            return;
        }
        match self.segments.append(&mut self.pending, self.end) {
            Ok(()) => self.pending.clear(),
            Err(error) => self.fail(&error),
        }
        self.pending.shrink_to(KEPT_BYTES_MAX);
    }

    fn fail(&mut self, error: &io::Error) {
        self.pending = Vec::new();
        self.write_errors += 1;
        self.state = State::Failing;
        self.invalidate();
        log::error!(
            "cannot write the history to disk, so it is kept in memory alone from now on: {error}"
        );
        if self.state == State::Failing {
            log::error!(
                "cannot make the history on disk invalid either: remove its files before the next start, or \
                 clients may miss what was published since"
            );
        }
    }

    fn invalidate(&mut self) {
        if self.segments.invalidate() {
            self.state = State::Failed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::id::Generation;
    use crate::journal::simulated::SimulatedDisk;

    fn open(disk: &SimulatedDisk) -> (WriteAhead, Vec<String>) {
        let (storage, boot) = disk.start();
        let opened = Segments::open(storage, 10_000, Some(boot), Generation(1));
        let (segments, restored) = opened.expect("it is readable");
        let entries = restored.entries.iter();
        let texts = entries.map(|entry| entry.notification.to_owned());
        (WriteAhead::new(segments), texts.collect())
    }

    fn append(log: &WriteAhead, first: u64, texts: &[&str]) {
        let entries = texts.iter().map(|text| StoredEntry {
            unix_micros: 1,
            key: None,
            kind: "\"notification\"",
            notification: text,
        });
        log.append(Position(first), entries);
    }

    /// Another program of the same process goes on with it.
    fn carry(disk: &SimulatedDisk, log: WriteAhead) -> WriteAhead {
        let mut bytes = Vec::new();
        log.save(&mut Members::new(&mut bytes));
        drop(log);
        let fields = Fields::parse(&bytes).expect("members");
        let carried = WriteAhead::carried(&fields, 10_000, |_| Ok(disk.again()));
        let carried = carried.expect("a log");
        let mut again = Vec::new();
        carried.save(&mut Members::new(&mut again));
        assert_eq!(again, bytes);
        carried
    }

    #[test]
    fn what_is_pending_is_written_ahead_of_what_a_successor_must_know() {
        let disk = SimulatedDisk::default();
        let (log, _) = open(&disk);
        let other = log.clone();
        append(&log, 1, &["1"]);
        let log = carry(&disk, log);
        assert!(!other.is_pending() && !log.is_pending());
        assert_eq!(log.end(), Some(Position(1)));
        let calls = disk.calls();
        let log = carry(&disk, log);
        assert_eq!(disk.calls(), calls);
        append(&log, 2, &["2"]);
        log.close();
        assert!(disk.mark().is_some());
        let log = carry(&disk, log);
        append(&log, 3, &["3"]);
        log.commit();
        assert!(disk.mark().is_none(), "it is known that there was one");
        assert_eq!(open(&disk).1, ["1", "2", "3"]);
    }

    #[test]
    fn a_log_in_no_known_state_is_not_gone_on_from() {
        let disk = SimulatedDisk::default();
        let (log, _) = open(&disk);
        for (state, is_taken) in [
            (0, true),
            (1, true),
            (2, true),
            (3, false),
            (u64::MAX, false),
        ] {
            let mut bytes = Vec::new();
            let members = &mut Members::new(&mut bytes);
            log.save(members);
            members.number(STATE, state);
            let fields = Fields::parse(&bytes).expect("members");
            let carried = WriteAhead::carried(&fields, 10_000, |_| Ok(disk.again()));
            assert_eq!(carried.is_ok(), is_taken);
        }
        let none = Fields::parse(&[]).expect("members");
        assert!(WriteAhead::carried(&none, 10_000, |_| Ok(disk.again())).is_err());
        let mut bytes = Vec::new();
        log.save(&mut Members::new(&mut bytes));
        let fields = Fields::parse(&bytes).expect("members");
        assert!(WriteAhead::carried(&fields, 10_000, |_| Err(Malformed("none"))).is_err());
    }

    #[test]
    fn what_a_turn_publishes_is_one_write() {
        let disk = SimulatedDisk::default();
        let (log, _) = open(&disk);
        let calls = disk.calls();
        assert!(!log.is_pending());
        log.commit();
        assert_eq!(disk.calls(), calls);
        append(&log, 1, &["1"]);
        let other = log.clone();
        append(&other, 2, &["2", "3"]);
        append(&other, 4, &[]);
        assert!(log.is_pending());
        assert_eq!(disk.calls(), calls);
        log.commit();
        assert!(!log.is_pending());
        assert_eq!(disk.calls(), calls + 1);
        assert_eq!(open(&disk).1, ["1", "2", "3"]);
    }

    #[test]
    fn what_is_pending_is_bounded_and_its_buffer_given_back() {
        let disk = SimulatedDisk::default();
        let (log, _) = open(&disk);
        let text = "x".repeat(PENDING_BYTES_MAX);
        append(&log, 1, &[&text]);
        assert!(!log.is_pending());
        assert!(log.0.log.borrow().pending.capacity() <= KEPT_BYTES_MAX);
        assert_eq!(open(&disk).1, [text]);
    }

    #[test]
    fn a_failure_ends_it_and_is_counted_once() {
        let disk = SimulatedDisk::default();
        let (mut log, _) = open(&disk);
        append(&log, 1, &["1"]);
        log.commit();
        assert!(!log.is_failed());
        let calls = disk.calls();
        disk.fail(calls..calls + 1, 5);
        for position in 2..5 {
            append(&log, position, &["x"]);
            log.commit();
            assert!(log.is_failed() && !log.is_pending());
            log = carry(&disk, log);
        }
        log.close();
        assert_eq!(log.write_errors(), 1);
        assert_eq!(open(&disk).1, [""; 0]);
    }

    #[test]
    fn a_clean_end_is_taken_back_by_what_is_published_behind_it() {
        let disk = SimulatedDisk::default();
        let (log, _) = open(&disk);
        append(&log, 1, &["1"]);
        log.close();
        assert!(disk.mark().is_some());
        append(&log, 2, &["2"]);
        log.commit();
        assert!(disk.mark().is_none());
        log.close();
        disk.reboot(&mut fastrand::Rng::with_seed(1));
        assert_eq!(open(&disk).1, ["1", "2"]);
    }

    #[test]
    fn files_that_cannot_be_made_invalid_are_tried_again_ahead_of_each_delivery() {
        let disk = SimulatedDisk::default();
        let (mut log, _) = open(&disk);
        append(&log, 1, &["1"]);
        log.commit();
        let calls = disk.calls();
        disk.fail(calls..u64::MAX, 5);
        append(&log, 2, &["2"]);
        log.commit();
        for position in 3..5 {
            append(&log, position, &["x"]);
            assert!(log.is_pending());
            log.commit();
            assert!(!log.is_pending());
            log = carry(&disk, log);
        }
        disk.fail(0..0, 0);
        append(&log, 5, &["5"]);
        log.commit();
        append(&log, 6, &["6"]);
        assert!(!log.is_pending());
        assert_eq!(log.write_errors(), 1);
        assert_eq!(open(&disk).1, [""; 0]);
    }
}
