//! A log that is carried now and then, beside one that stays: whatever is done with both, nobody can tell which is which.

use std::mem;
use std::time::Duration;

use fastrand::Rng;

use super::*;
use crate::handover::{Incoming, StateError};
use crate::journal::column::ENTRY_STREAM_MAX;
use crate::journal::entry::{Content, Encoding};
use crate::journal::id::{EntryId, Generation};
use crate::journal::needles::{Needles, Stream};
use crate::journal::segments::Segments;
use crate::journal::simulated::SimulatedDisk;
use crate::time::{Clock, Timestamp};
use crate::wire::shared::SharedBytes;
use crate::ws::frame::EncodedFrame;

/// So small that the first entries go soon.
const LIMITS: HistoryLimits = HistoryLimits {
    age_max: Duration::from_secs(10),
    bytes_max: 6000,
};

/// So small that segments take turns.
const SEGMENT_BYTES_MAX: u64 = 2000;

/// The wall clock at the origin of the other.
const BEGAN: Duration = Duration::from_secs(1_700_000_000);

struct Stopped(Timestamp);

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        self.0
    }

    fn unix_now(&self) -> Duration {
        BEGAN + Duration::from_micros(self.0.as_micros())
    }
}

fn fingerprint(notification: &str, fingerprints: &mut Fingerprints) {
    let len = notification.len() as u32;
    fingerprints.push(Stream::Page, len % 3);
    fingerprints.push(Stream::Value, len);
    if len.is_multiple_of(5) {
        (0..=ENTRY_STREAM_MAX as u32).for_each(|pair| fingerprints.push(Stream::Pair, pair));
    }
}

pub(in crate::journal) fn fingerprints(notification: &str) -> Fingerprints {
    let mut fingerprints = Fingerprints::default();
    fingerprint(notification, &mut fingerprints);
    fingerprints
}

pub(in crate::journal) fn save(journal: &Journal, numbers: &mut FrameNumbers) -> Vec<u8> {
    numbers.begin();
    let mut out = Outgoing::begin(Vec::new()).expect("taken");
    journal.save(&mut out, numbers).expect("taken");
    out.finish().expect("taken")
}

fn save_log(log: &WriteAhead) -> Vec<u8> {
    let mut bytes = Vec::new();
    log.save(&mut Members::new(&mut bytes));
    bytes
}

fn restore_log(disk: &SimulatedDisk, saved: &[u8]) -> Result<WriteAhead, Malformed> {
    let fields = Fields::parse(saved)?;
    WriteAhead::carried(&fields, SEGMENT_BYTES_MAX, |_| Ok(disk.again()))
}

pub(in crate::journal) fn restore(
    limits: HistoryLimits,
    state: &[u8],
    mut write_ahead: Option<WriteAhead>,
) -> Result<(Journal, Frames), StateError> {
    let mut state = Incoming::begin(state)?;
    let (mut journal, mut frames) = (None, Frames::default());
    while let Some((kind, fields)) = state.next_record()? {
        let fields = fields?;
        match (kind, &mut journal) {
            (JOURNAL_RECORD, None) => {
                journal = Some(Journal::carried(limits, &fields, write_ahead.take())?);
            }
            (ENTRY_RECORD, Some(journal)) => {
                let fingerprints = fingerprints(Entry::saved_notification(&fields)?);
                journal.carry(&fields, &fingerprints, &mut frames)?;
            }
            _ => return Err(Malformed("none of its records").into()),
        }
    }
    let journal = journal.ok_or(Malformed("no log"))?;
    journal.check_carried()?;
    Ok((journal, frames))
}

/// A log, where it is kept, and what queues hold of it.
struct Life {
    journal: Journal,
    disk: Option<SimulatedDisk>,
    held: Vec<(Position, EncodedFrame)>,
    numbers: FrameNumbers,
}

impl Life {
    fn new(disk: Option<SimulatedDisk>) -> Self {
        Self {
            journal: Journal::new(LIMITS, Generation(1)),
            disk,
            held: Vec::new(),
            numbers: FrameNumbers::default(),
        }
    }

    /// A process begins, where the one before was killed.
    fn start(&mut self, generation: Generation, now: Timestamp) {
        self.held.clear();
        self.journal = Journal::new(LIMITS, generation);
        let Some(disk) = &self.disk else { return };
        let (storage, boot) = disk.start();
        let opened = Segments::open(storage, SEGMENT_BYTES_MAX, Some(boot), generation);
        let (segments, restored) = opened.expect("nothing fails");
        let write_ahead = WriteAhead::new(segments);
        let unix_now = Stopped(now).unix_now();
        self.journal = Journal::restore(LIMITS, &restored, write_ahead, unix_now, fingerprint);
    }

    /// The process becomes another program.
    fn carry(&mut self) {
        let log = self.journal.write_ahead().map(save_log);
        let state = save(&self.journal, &mut self.numbers);
        assert_eq!(save(&self.journal, &mut self.numbers), state);
        let number = |frame: &EncodedFrame| self.numbers.get(frame.shared());
        let held = mem::take(&mut self.held).into_iter();
        let held = held.map(|(at, frame)| (at, number(&frame), frame.as_bytes().to_vec()));
        let held: Vec<_> = held.collect();
        self.journal = Journal::new(LIMITS, Generation(0));

        let restore_log = |log: &Vec<u8>| {
            restore_log(self.disk.as_ref().expect("it is kept"), log).expect("a log")
        };
        let write_ahead = log.as_ref().map(restore_log);
        let (journal, frames) = restore(LIMITS, &state, write_ahead).expect("a state");
        self.journal = journal;
        let held = held.into_iter().map(|(at, number, bytes)| {
            let frame = match number {
                Some(number) => frames.get(number.into(), bytes.len() as u64).cloned(),
                None => Ok(SharedBytes::new(bytes.clone())),
            };
            let frame = EncodedFrame::of(frame.expect("its frame"));
            assert_eq!(frame.as_bytes(), bytes);
            (at, frame)
        });
        self.held = held.collect();
        drop(frames);

        self.journal.check_invariants();
        self.numbers = FrameNumbers::default();
        assert_eq!(save(&self.journal, &mut self.numbers), state);
        assert_eq!(self.journal.write_ahead().map(save_log), log);
    }

    /// Lets go of frames that are lent: those that a carried log doesn't know any more.
    fn forget_lent(&mut self) {
        let start = self.journal.history().start();
        self.held
            .retain(|(at, frame)| *at <= start || frame.shared().is_retained());
    }

    /// All that can be seen of it.
    fn view(&self, now: Timestamp) -> Vec<String> {
        let journal = &self.journal;
        let (start, head) = (journal.history().start().0, journal.head().0);
        let mut view = vec![
            format!("{start}..={head}, {} bytes", journal.history().bytes()),
            format!("{:?}, {:?}", journal.age(now), journal.time_left(now)),
        ];
        for position in start.saturating_sub(2)..=head + 1 {
            let of = |generation| EntryId::Own {
                generation: Generation(generation),
                position: Position(position),
            };
            let ids = (1..9).map(|generation| of(generation).to_string());
            let located = ids.map(|id| journal.locate(&id, now));
            view.push(format!("{position}: {:?}", located.collect::<Vec<_>>()));
            let Some(entry) = journal.history().get(Position(position)) else {
                continue;
            };
            let frames = [Encoding::Plain, Encoding::Numbered].map(|encoding| {
                let frame = entry.encoded(encoding)?;
                assert!(frame.shared().is_retained());
                Some((frame.as_bytes(), frame.shared().is_shared()))
            });
            let micros = i64::try_from(now.as_micros()).expect("a time");
            view.push(format!(
                "{} {:?} {:?} {frames:?} {:?} {} {}",
                journal.id(Position(position)),
                entry.content(),
                entry.key(),
                entry.age(micros),
                journal.delivered(Position(position)),
                entry.bytes(),
            ));
        }
        for key in (0..KEYS).map(key) {
            view.push(format!("{:?}", journal.find_key(&key)));
        }
        for needle in [
            (Stream::Page, 1),
            (Stream::Value, 17),
            (Stream::Pair, 3),
            (Stream::Name, 1),
        ] {
            let needles = Needles::new(vec![needle], vec![2]);
            for from in (0..journal.history().len()).step_by(5) {
                view.push(format!("{:?}", journal.column().search(&needles, from, 9)));
            }
        }
        if let (Some(log), Some(disk)) = (journal.write_ahead(), &self.disk) {
            let (end, errors, calls) = (log.end(), log.write_errors(), disk.calls());
            view.push(format!("{end:?} {} {errors} {calls}", log.is_pending()));
        }
        view
    }
}

const KEYS: u32 = 12;

fn key(number: u32) -> String {
    format!("key-{number}")
}

/// Two lives of one log, of which the second is carried.
struct Twins {
    lives: [Life; 2],
    rng: Rng,
    now: Timestamp,
    generation: u64,
    carried: usize,
}

impl Twins {
    fn new(seed: u64) -> Self {
        let rng = Rng::with_seed(seed);
        let is_on_disk = seed.is_multiple_of(2);
        let life = || Life::new(is_on_disk.then(SimulatedDisk::default));
        let mut twins = Self {
            lives: [life(), life()],
            rng,
            now: Timestamp::from_micros(1_000_000),
            generation: 0,
            carried: 0,
        };
        twins.start();
        twins
    }

    fn start(&mut self) {
        self.generation += 1;
        for life in &mut self.lives {
            life.start(Generation(self.generation), self.now);
        }
    }

    /// Does the same with both; what comes of it is the same.
    fn both<R: PartialEq + std::fmt::Debug>(&mut self, act: impl FnMut(&mut Life) -> R) {
        let [stays, carried] = self.lives.each_mut().map(act);
        assert_eq!(stays, carried);
    }

    /// A position that the log has, or had, or will have.
    fn position(&mut self) -> Position {
        let journal = &self.lives[0].journal;
        let (start, head) = (journal.history().start().0, journal.head().0);
        Position(self.rng.u64(start.saturating_sub(1)..=head + 1))
    }

    fn publish(&mut self) {
        let clock = Stopped(self.now);
        let count = self.rng.usize(1..4);
        let entries: Vec<_> = (0..count)
            .map(|_| {
                let len = match self.rng.u8(..8) {
                    0 => self.rng.usize(60..70),
                    1 => self.rng.usize(1000..2000),
                    _ => self.rng.usize(..40),
                };
                let key = self.rng.bool().then(|| key(self.rng.u32(..KEYS)));
                let is_plain = self.rng.bool();
                let encoding = [Encoding::Numbered, Encoding::Plain][usize::from(is_plain)];
                ("é".repeat(len), key, encoding, self.rng.u32(..100))
            })
            .collect();
        let repeats = self.rng.u8(..8) == 0;
        self.both(|life| {
            let start = life.journal.head();
            let mut receipts = Vec::new();
            for (text, key, encoding, delivered) in &entries {
                let found = key.as_deref().and_then(|key| life.journal.find_key(key));
                if let Some(found) = found.filter(|_| !repeats) {
                    receipts.push((found, life.journal.delivered(found)));
                    continue;
                }
                let content = Content {
                    kind: r#""chat""#,
                    notification: text,
                };
                let (key, now) = (key.as_deref(), clock.now());
                let fingerprints = fingerprints(text);
                let at = life
                    .journal
                    .push(content, *encoding, key, &fingerprints, now);
                life.journal.note_delivered(at, *delivered as usize);
                receipts.push((at, 0));
            }
            life.journal.seal(start, &clock);
            receipts
        });
    }

    fn send(&mut self) {
        let (position, is_replayed) = (self.position(), self.rng.bool());
        let encoding = [Encoding::Plain, Encoding::Numbered][self.rng.usize(..2)];
        let is_held = self.rng.bool();
        self.both(|life| {
            let frame = if is_replayed {
                life.journal.replayed_frame(position)
            } else {
                life.journal.frame(position, encoding)
            };
            let bytes = frame.as_ref().map(|frame| frame.as_bytes().to_vec());
            let frame = frame.filter(|_| is_held);
            life.held.extend(frame.map(|frame| (position, frame)));
            bytes
        });
    }

    fn step(&mut self) {
        match self.rng.u8(..16) {
            0..4 => self.publish(),
            4..7 => self.send(),
            7 => {
                let count = self.rng.usize(..4);
                self.both(|life| {
                    let len = life.held.len();
                    life.held.drain(..count.min(len)).count()
                });
            }
            8 | 9 => {
                let micros = self.rng.u64(..3_000_000);
                self.now = self.now + Duration::from_micros(micros);
                let needed = self.position();
                let needed = self.rng.bool().then_some(needed);
                let now = self.now;
                self.both(|life| life.journal.expire(now, needed));
            }
            10 | 11 => self.both(|life| life.journal.write_ahead().map(WriteAhead::commit)),
            12 if self.lives[0].disk.is_some() => match self.rng.u8(..4) {
                0 => self.start(),
                1 => {
                    let (length, done) = (self.rng.u64(1..4), self.rng.usize(..50));
                    self.both(|life| {
                        let disk = life.disk.as_ref().expect("it is kept");
                        let calls = disk.calls();
                        disk.fail(calls..calls + length, done);
                        calls
                    });
                }
                _ => {}
            },
            // An attempt that comes to nothing: the log goes on.
            13 => {
                let numbers = &mut self.lives[1].numbers;
                let journal = &self.lives[1].journal;
                save(journal, numbers);
            }
            _ => {
                self.both(|life| life.journal.write_ahead().map(WriteAhead::commit));
                self.lives.iter_mut().for_each(Life::forget_lent);
                self.lives[1].carry();
                self.carried += 1;
            }
        }
    }

    fn check(&self) {
        let [stays, carried] = self.lives.each_ref().map(|life| life.view(self.now));
        assert_eq!(stays, carried);
    }
}

#[test]
fn nobody_can_tell_a_log_that_is_carried_from_one_that_stays() {
    let (mut carried, mut gone) = (0, 0);
    for seed in 0..100 {
        let mut twins = Twins::new(seed);
        for _ in 0..80 {
            let before = twins.carried;
            twins.step();
            // To look at all takes far longer than to do something.
            if twins.carried > before || twins.rng.u8(..4) == 0 {
                twins.check();
            }
        }
        twins.both(|life| life.journal.write_ahead().map(WriteAhead::commit));
        twins.start();
        twins.check();
        carried += twins.carried;
        gone += twins.lives[1].journal.history().start().0;
    }
    assert!(carried > 700 && gone > 300, "{carried}, {gone}");
}

/// A log with some entries, with each combination of encodings, on a disk.
fn some() -> Life {
    let mut life = Life::new(Some(SimulatedDisk::default()));
    life.start(Generation(1), Timestamp::ZERO);
    for number in 0..6 {
        let (start, text) = (life.journal.head(), "1".repeat(number));
        let content = Content {
            kind: r#""chat""#,
            notification: &text,
        };
        let (encoding, fingerprints) = (Encoding::Plain, fingerprints(&text));
        let key = (number % 2 == 0).then(|| key(number as u32));
        let now = Timestamp::from_micros(number as u64);
        let at = life
            .journal
            .push(content, encoding, key.as_deref(), &fingerprints, now);
        life.journal.note_delivered(at, number);
        life.journal.seal(start, &Stopped(now));
        if number % 3 > 0 {
            let plain = life.journal.frame(at, encoding).expect("it is there");
            life.held.extend((number % 3 > 1).then_some((at, plain)));
            life.journal.replayed_frame(at).expect("it is there");
        }
    }
    life.journal.write_ahead().expect("it is kept").commit();
    life
}

#[test]
fn what_is_lent_is_made_once_more() {
    let mut life = some();
    let position = Position(2);
    let plain = life
        .journal
        .frame(position, Encoding::Plain)
        .expect("there");
    life.held.push((position, plain));
    // There is no room for a second encoding.
    let lend = |life: &mut Life| life.journal.encode(position, Encoding::Numbered, 0);
    let lent = lend(&mut life).expect("it is there");
    assert!(!lent.shared().is_retained());
    let bytes = life.journal.history().bytes();
    life.held.push((position, lent.clone()));
    life.carry();
    assert_eq!(life.journal.history().bytes(), bytes);
    let (_, held) = life.held.last().expect("it is held").clone();
    assert_eq!(held.as_bytes(), lent.as_bytes());
    let [again, same] = [lend(&mut life), lend(&mut life)].map(|frame| frame.expect("there"));
    assert_eq!(again.as_bytes(), lent.as_bytes());
    assert_eq!(again.as_bytes().as_ptr(), same.as_bytes().as_ptr());
    assert_ne!(again.as_bytes().as_ptr(), held.as_bytes().as_ptr());
}

#[test]
fn a_process_that_is_killed_when_it_was_carried_leaves_all_that_was_published() {
    for _ in 0..2 {
        let mut life = some();
        let head = life.journal.head();
        for _ in 0..3 {
            life.carry();
        }
        life.start(Generation(2), Timestamp::ZERO);
        assert_eq!(
            (life.journal.head(), life.journal.history().len()),
            (head, 6)
        );
    }
}

#[test]
fn other_limits_keep_positions_and_frames() {
    let off = HistoryLimits {
        bytes_max: 0,
        ..LIMITS
    };
    let mut life = some();
    let state = save(&life.journal, &mut life.numbers);
    let (mut journal, frames) = restore(off, &state, None).expect("a state");
    assert_eq!((journal.head(), journal.history().len()), (Position(6), 0));
    let shared = life
        .journal
        .history()
        .oldest()
        .and_then(|entry| entry.frames().next());
    let shared = shared.expect("an encoding");
    let frame = frames
        .get(0, shared.as_bytes().len() as u64)
        .expect("there");
    assert_eq!(frame.as_bytes(), shared.as_bytes());
    assert!(!frame.is_retained());

    let now = Timestamp::ZERO;
    let content = life.journal.history().oldest().expect("there").content();
    let publish = |journal: &mut Journal| {
        journal.push(
            content,
            Encoding::Plain,
            None,
            &Fingerprints::default(),
            now,
        )
    };
    assert_eq!(publish(&mut journal), Position(7));
    let state = save(&journal, &mut FrameNumbers::default());
    let (journal, _) = restore(off, &state, None).expect("a state");
    assert_eq!(save(&journal, &mut FrameNumbers::default()), state);
    let (mut journal, _) = restore(LIMITS, &state, None).expect("a state");
    assert_eq!(
        (journal.head(), journal.history().start()),
        (Position(7), Position(7))
    );
    assert!(
        journal
            .locate(&journal.id(Position(7)).to_string(), now)
            .is_ok()
    );
    assert!(
        journal
            .locate(&journal.id(Position(6)).to_string(), now)
            .is_err()
    );
    assert_eq!(publish(&mut journal), Position(8));
    journal.check_invariants();

    let few = HistoryLimits {
        bytes_max: life.journal.history().bytes() - 1,
        ..LIMITS
    };
    let state = save(&life.journal, &mut life.numbers);
    let (journal, _) = restore(few, &state, None).expect("a state");
    assert_eq!(
        (journal.head(), journal.history().start()),
        (Position(6), Position(1))
    );
    journal.check_invariants();
    let state = save(&journal, &mut FrameNumbers::default());
    let (journal, _) = restore(off, &state, None).expect("a state");
    assert_eq!(journal.head(), Position(6));
}

#[test]
fn members_and_frames_have_the_numbers_that_they_always_had() {
    let life = some();
    let state = save(&life.journal, &mut FrameNumbers::default());
    let mut expected = Outgoing::begin(Vec::new()).expect("taken");
    let mut record = |kind, write: &dyn Fn(&mut Members<'_>)| {
        expected
            .record(kind, |members| write(members))
            .expect("taken");
    };
    record(8, &|members| {
        members.bytes(1, &[1, 0]);
        members.nested(2, |members| members.number(1, 0));
        members.number(3, 0);
    });
    for (number, encodings) in [1, 2, 3, 1, 2, 3].into_iter().enumerate() {
        record(9, &|members| {
            members.signed(1, number as i64);
            members.number(2, encodings);
            members.bytes(3, br#""chat""#);
            members.bytes(4, "1".repeat(number).as_bytes());
            if number % 2 == 0 {
                members.bytes(5, key(number as u32).as_bytes());
            }
            members.size(6, number);
        });
    }
    assert!(state == expected.finish().expect("taken"));

    let (_, frames) = restore(LIMITS, &state, None).expect("a state");
    let entries = life.journal.history().entries();
    let encodings = entries.flat_map(|entry| {
        [Encoding::Plain, Encoding::Numbered].map(|encoding| entry.encoded(encoding))
    });
    for (number, frame) in encodings.flatten().enumerate() {
        let bytes = frame.as_bytes();
        let found = frames.get(number as u64, bytes.len() as u64);
        assert_eq!(found.expect("its frame").as_bytes(), bytes);
    }
}

/// Members of an entry that is taken, but for those that `write` puts in once more.
fn carry_entry(write: impl FnOnce(&mut Members<'_>)) -> Result<Journal, Malformed> {
    let mut bytes = Vec::new();
    let members = &mut Members::new(&mut bytes);
    members.number(2, 1);
    members.bytes(3, b"1");
    members.bytes(4, b"2");
    write(members);
    let mut journal = Journal::new(LIMITS, Generation(1));
    journal.carry(
        &Fields::parse(&bytes)?,
        &Fingerprints::default(),
        &mut Frames::default(),
    )?;
    journal.check_invariants();
    Ok(journal)
}

#[test]
fn an_entry_is_taken_within_its_limits_only() {
    type Write = fn(&mut Members<'_>);
    let taken: [Write; 7] = [
        |_| {},
        |members| members.number(2, 3),
        |members| members.bytes(5, &[b'k'; 255]),
        |members| members.number(6, u32::MAX.into()),
        |members| members.signed(1, i64::MIN),
        |members| members.signed(1, i64::MAX),
        |members| members.present_bytes(3, b""),
    ];
    for (number, write) in taken.into_iter().enumerate() {
        let mut journal = carry_entry(write).unwrap_or_else(|error| panic!("{number}: {error}"));
        for now in [Timestamp::ZERO, Timestamp::from_micros(u64::MAX)] {
            let _ = (journal.time_left(now), journal.age(now));
            journal.expire(now, Some(Position(0)));
        }
        assert!(journal.replayed_frame(Position(1)).is_some());
    }
    let refused: [Write; 8] = [
        |members| members.present_bytes(2, b"1"),
        |members| members.number(2, 4),
        |members| members.number(2, u64::MAX),
        |members| members.bytes(5, &[b'k'; 256]),
        |members| members.number(6, u64::from(u32::MAX) + 1),
        |members| members.bytes(3, b"\xff"),
        |members| members.bytes(4, b"\xff"),
        |members| members.bytes(5, b"\xff"),
    ];
    for (number, write) in refused.into_iter().enumerate() {
        assert!(carry_entry(write).is_err(), "{number}");
    }
}

#[test]
fn a_log_ends_at_a_position_within_the_limit() {
    let carried = |start: u64, unkept: u64| {
        let mut bytes = Vec::new();
        let members = &mut Members::new(&mut bytes);
        members.bytes(GENERATIONS, &[1, 0]);
        members.nested(HISTORY, |members| members.number(1, start));
        members.number(UNKEPT, unkept);
        Journal::carried(LIMITS, &Fields::parse(&bytes)?, None)
    };
    let Position(max) = POSITION_MAX;
    assert!(carried(max + 1, 0).is_err() && carried(0, max + 1).is_err());
    let entry = || {
        let mut bytes = Vec::new();
        let members = &mut Members::new(&mut bytes);
        members.number(2, 2);
        members.bytes(4, b"2");
        bytes
    };
    for (start, unkept) in [(max - 1, 0), (0, max - 1)] {
        let mut journal = carried(start, unkept).expect("a log");
        let mut carry = || {
            let (bytes, fingerprints) = (entry(), Fingerprints::default());
            let fields = Fields::parse(&bytes)?;
            journal.carry(&fields, &fingerprints, &mut Frames::default())
        };
        assert!(carry().is_ok() && carry().is_err());
        assert_eq!(journal.head(), POSITION_MAX);
    }
    assert!(Journal::carried(LIMITS, &Fields::parse(&[]).expect("members"), None).is_err());
}

#[test]
fn a_log_on_disk_that_ends_elsewhere_is_refused() {
    let mut life = some();
    let state = save(&life.journal, &mut life.numbers);
    let log = life
        .journal
        .write_ahead()
        .map(save_log)
        .expect("it is kept");
    let (start, content) = (
        life.journal.head(),
        Content {
            kind: "1",
            notification: "2",
        },
    );
    let (disk, numbers) = (life.disk.clone().expect("it is kept"), &mut life.numbers);
    let now = Timestamp::ZERO;
    life.journal.push(
        content,
        Encoding::Plain,
        None,
        &Fingerprints::default(),
        now,
    );
    life.journal.seal(start, &Stopped(now));
    let newer = life
        .journal
        .write_ahead()
        .map(save_log)
        .expect("it is kept");
    let newer_state = save(&life.journal, numbers);
    for (state, log, is_taken) in [
        (&state, &newer, false),
        (&newer_state, &newer, true),
        // A segment is longer then than it was. So nothing is written to disk any more, and nothing has to fit.
        (&newer_state, &log, true),
    ] {
        let log = restore_log(&disk, log).expect("a log");
        assert_eq!(restore(LIMITS, state, Some(log)).is_ok(), is_taken);
    }
    assert!(restored(&disk).is_empty(), "it was made nothing");
}

/// The positions that a start finds.
fn restored(disk: &SimulatedDisk) -> Vec<u64> {
    let mut life = Life::new(Some(disk.clone()));
    life.start(Generation(9), Timestamp::ZERO);
    let history = life.journal.history();
    (history.start().0 + 1..=history.head().0).collect()
}

/// Goes on with whatever was restored.
fn go_on(mut journal: Journal) {
    journal.check_invariants();
    let content = Content {
        kind: "1",
        notification: "2",
    };
    for _ in 0..3 {
        let (start, now) = (journal.head(), Timestamp::from_micros(1 << 40));
        if start >= POSITION_MAX {
            return;
        }
        let at = journal.push(
            content,
            Encoding::Plain,
            Some("key"),
            &fingerprints("2"),
            now,
        );
        journal.note_delivered(at, 1);
        journal.seal(start, &Stopped(now));
        journal.frame(at, Encoding::Numbered);
        let _ = journal.locate(&journal.id(at).to_string(), now);
        journal.expire(now, None);
        if let Some(write_ahead) = journal.write_ahead() {
            write_ahead.commit();
        }
    }
    journal.check_invariants();
}

#[test]
fn a_state_that_is_damaged_is_refused_or_gone_on_from() {
    let mut life = some();
    let state = save(&life.journal, &mut life.numbers);
    let mut rng = Rng::with_seed(1);
    let (mut refused, mut taken) = (0, 0);
    let mut attempt = |damaged: &[u8]| match restore(LIMITS, damaged, None) {
        Ok((journal, _)) => {
            taken += 1;
            go_on(journal);
        }
        Err(_) => refused += 1,
    };
    for cut in 0..state.len() {
        attempt(&state[..cut]);
    }
    for bit in 0..state.len() * 8 {
        let mut damaged = state.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        attempt(&damaged);
    }
    for _ in 0..20_000 {
        let mut damaged = state.clone();
        for _ in 0..rng.usize(1..6) {
            let at = rng.usize(..damaged.len());
            damaged[at] = [0, 1, 0x7f, 0x80, 0xff, rng.u8(..)][rng.usize(..6)];
        }
        attempt(&damaged);
    }
    assert!(refused > 1000 && taken > 1000, "{refused}, {taken}");
}

#[test]
fn a_log_on_disk_that_is_damaged_is_refused_or_gone_on_from() {
    let life = some();
    let log = life
        .journal
        .write_ahead()
        .map(save_log)
        .expect("it is kept");
    let state = save(&life.journal, &mut FrameNumbers::default());
    let segments = crate::journal::storage::Side::ALL;
    let disk = life.disk.as_ref().expect("it is kept");
    let bytes = segments.map(|side| disk.segment(side).clone());
    let mut rng = Rng::with_seed(1);
    let (mut refused, mut failed, mut taken) = (0, 0, 0);
    for round in 0..log.len() * 9 + 10_000 {
        let mut damaged = log.clone();
        match round.checked_sub(log.len() * 8) {
            None => damaged[round / 8] ^= 1 << (round % 8),
            Some(cut) if cut < log.len() => damaged.truncate(cut),
            Some(_) => {
                for _ in 0..rng.usize(1..6) {
                    let at = rng.usize(..damaged.len());
                    damaged[at] = [0, 1, 0x7f, 0x80, 0xff, rng.u8(..)][rng.usize(..6)];
                }
            }
        }
        for (side, bytes) in segments.into_iter().zip(&bytes) {
            disk.segment(side).clone_from(bytes);
        }
        let Ok(log) = restore_log(disk, &damaged) else {
            refused += 1;
            continue;
        };
        failed += u64::from(log.is_failed());
        if let Ok((journal, _)) = restore(LIMITS, &state, Some(log)) {
            taken += 1;
            go_on(journal);
        }
    }
    assert!(
        refused > 100 && failed > 100 && taken > 100,
        "{refused}, {failed}, {taken}"
    );
}
