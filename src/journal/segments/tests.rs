//! The history on a simulated disk, by way of the handle that the server has: what a start takes over after
//! processes were killed, machines crashed and writes failed, beside a model of what was delivered.

use fastrand::Rng;

use super::*;
use crate::handover::{Fields, Malformed, Members};
use crate::journal::generations::to_bytes;
use crate::journal::record::{POSITION_MAX, encode_entries};
use crate::journal::simulated::SimulatedDisk;
use crate::journal::write_ahead::WriteAhead;

/// So small that a segment has few entries.
const BYTES_MAX: u64 = 300;

/// Calls do this much of their work when a process is killed in them: nothing, a bit, all but a bit, all.
const DONE_BYTES: [usize; 5] = [0, 1, 13, 60, usize::MAX];

/// How the last process ended, and so what the next must find.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Owed {
    /// All that was delivered.
    All,
    /// All that was delivered, or nothing.
    AllOrNothing,
    Nothing,
}

/// A disk, the process that uses it, and what must be on it.
struct World {
    disk: SimulatedDisk,
    rng: Rng,
    process: Option<WriteAhead>,
    /// Whether the process becomes another program ahead of all that it publishes.
    is_carried: bool,
    generation: u64,
    /// By position; the last `in_flight` of them were not delivered, since the process was killed over them.
    published: Vec<String>,
    in_flight: usize,
    generations: Vec<(Generation, Position)>,
    owed: Owed,
    /// No more of the front than this may be missing.
    first_max: u64,
    /// That was restored last, to which nothing comes back.
    first: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            disk: SimulatedDisk::default(),
            rng: Rng::with_seed(seed),
            process: None,
            is_carried: false,
            generation: 0,
            published: Vec::new(),
            in_flight: 0,
            generations: Vec::new(),
            owed: Owed::AllOrNothing,
            first_max: 0,
            first: 0,
        }
    }

    /// The same world twice: in the second, processes are carried.
    fn both(seed: u64) -> [Self; 2] {
        [false, true].map(|is_carried| Self {
            is_carried,
            ..Self::new(seed)
        })
    }

    /// The process becomes another program. On the disk nothing happens.
    fn carry(&mut self) {
        let Some(process) = self.process.take() else {
            return;
        };
        let save = |process: &WriteAhead| {
            let mut bytes = Vec::new();
            process.save(&mut Members::new(&mut bytes));
            bytes
        };
        let calls = self.disk.calls();
        let saved = save(&process);
        drop(process);
        let fields = Fields::parse(&saved).expect("members");
        let carried = WriteAhead::carried(&fields, BYTES_MAX, |_| Ok(self.disk.again()));
        let carried = carried.expect("a log");
        assert_eq!(save(&carried), saved);
        assert_eq!(self.disk.calls(), calls);
        self.process = Some(carried);
    }

    /// Starts a process, which is killed in a call of its start or of those to come.
    fn start_killed_at(&mut self, killed_at: Option<(u64, usize)>) {
        self.process = None;
        let (storage, boot) = self.disk.start();
        if let Some((call, done_bytes)) = killed_at {
            self.disk.kill_at(call, done_bytes);
        }
        self.generation += 1;
        let generation = Generation(self.generation);
        match Segments::open(storage, BYTES_MAX, Some(boot), generation) {
            Ok((segments, restored)) => {
                self.check(&restored);
                self.process = Some(WriteAhead::new(segments));
                self.owed = Owed::All;
            }
            // What the call has done is enough, or it isn't.
            Err(_) => assert!(self.disk.is_killed()),
        }
    }

    fn start(&mut self) {
        self.start_killed_at(None);
        assert!(self.process.is_some());
    }

    fn check(&mut self, restored: &Restored) {
        let entries: Vec<_> = restored.entries.iter().collect();
        let end = restored.first.0 as usize + entries.len();
        let new = (Generation(self.generation), Position(end as u64));
        assert_eq!(restored.generations.last(), Some(&new));
        let known = &restored.generations;
        // Of those that have kept nothing none need be known.
        let is_empty = self.published.len() == self.in_flight;
        if !is_empty && !self.generations.iter().any(|ours| known.contains(ours)) {
            // A start may have begun afresh already that was killed before it returned.
            assert_eq!((end, restored.first), (0, Position(0)));
            assert!(self.owed != Owed::All, "all is lost");
            self.generations.clear();
            self.first_max = 0;
        } else {
            assert_ne!(self.owed, Owed::Nothing, "it was to be invalid");
            let delivered = self.published.len() - self.in_flight;
            assert!(end >= delivered, "what was delivered is lost");
            assert!(
                end == delivered || end == self.published.len(),
                "an array is whole"
            );
            assert!(restored.first.0 <= self.first_max, "too little is kept");
            for (entry, text) in entries
                .iter()
                .zip(&self.published[restored.first.0 as usize..])
            {
                assert_eq!(entry.notification, text);
            }
        }
        self.first = restored.first.0;
        self.published.truncate(end);
        self.in_flight = 0;
        self.generations.push(new);
        // Those that have kept nothing need not be known.
        let next = self.generations.iter().skip(1);
        let has_kept = self.generations.iter().zip(next);
        let has_kept = has_kept.filter(|((_, start), (_, next))| start < next);
        let ours: Vec<_> = has_kept.map(|(ours, _)| ours).collect();
        let missing = ours.iter().filter(|ours| !known.contains(ours)).count();
        assert!(missing <= ours.len().saturating_sub(GENERATIONS_MAX / 2));
    }

    /// Publishes some at once, and delivers them if the process lives on.
    fn publish(&mut self, count: usize) {
        if self.is_carried {
            self.carry();
        }
        let Some(process) = &self.process else { return };
        let first = Position(self.published.len() as u64).next();
        let key = self.rng.alphanumeric().to_string();
        let texts = (0..count as u64).map(|at| format!("{}-{}", self.generation, first.0 + at));
        self.published.extend(texts);
        let published = &self.published[first.0 as usize - 1..];
        let entries = published.iter().map(|text| StoredEntry {
            unix_micros: first.0,
            key: Some(&key),
            kind: "\"notification\"",
            notification: text,
        });
        process.append(first, entries);
        assert!(process.is_pending() || process.is_failed());
        process.commit();
        if self.disk.is_killed() {
            self.in_flight = count;
            self.process = None;
        }
        // At least this much of the newest is kept, of which each may be a record.
        let mut bytes = 0;
        let lengths = self.published.iter().rev().map(|text| text.len() + 57);
        let kept = lengths.take_while(|length| {
            bytes += *length as u64;
            bytes <= BYTES_MAX
        });
        let first = (self.published.len() - kept.count()) as u64;
        self.first_max = first.max(self.first);
    }

    fn close(&mut self) {
        if let Some(process) = self.process.take() {
            process.close();
        }
    }

    fn kill(&mut self) {
        self.process = None;
    }

    fn reboot(&mut self) {
        let is_clean = self.disk.mark().is_some() && !self.disk.is_killed();
        self.process = None;
        self.disk.reboot(&mut self.rng);
        if !is_clean && self.owed == Owed::All {
            self.owed = Owed::AllOrNothing;
        }
    }
}

/// A world for each of [`DONE_BYTES`], and once more to be carried.
fn worlds(seed: u64) -> impl Iterator<Item = (World, usize)> {
    let done_bytes = DONE_BYTES.into_iter();
    done_bytes.flat_map(move |done_bytes| World::both(seed).map(|world| (world, done_bytes)))
}

/// Processes that end in each way, the one with the number `killed` by being killed in a call. Returns how many calls
/// that one has made.
fn live(world: &mut World, killed: usize, at: Option<(u64, usize)>) -> u64 {
    let mut calls = 0;
    for process in 0..4 {
        let killed_at = at.filter(|_| process == killed);
        world.start_killed_at(killed_at);
        for count in [1, 3, 1, 2, 1, 1] {
            world.publish(count);
        }
        if process != 1 {
            world.close();
        }
        if process == killed {
            calls = world.disk.calls();
        }
        if killed_at.is_some() && world.disk.is_killed() {
            break;
        }
    }
    calls
}

#[test]
fn a_process_that_is_killed_in_any_call_loses_nothing() {
    for killed in 0..4 {
        let calls = live(&mut World::new(0), killed, None);
        assert!(calls > 8);
        for call in 0..calls {
            for (mut world, done_bytes) in worlds(0) {
                live(&mut world, killed, Some((call, done_bytes)));
                assert!(world.disk.is_killed());
                world.start();
                world.publish(2);
                world.kill();
                world.start();
                world.publish(2);
                world.close();
                world.reboot();
                world.start();
            }
        }
    }
}

#[test]
fn a_machine_that_crashes_behind_any_call_leaves_all_or_nothing() {
    for killed in 0..4 {
        let calls = live(&mut World::new(0), killed, None);
        for call in 0..calls {
            for (mut world, done_bytes) in (0..10).flat_map(worlds) {
                live(&mut world, killed, Some((call, done_bytes)));
                world.reboot();
                world.start();
                world.publish(2);
                world.close();
                world.reboot();
                world.start();
            }
        }
    }
}

#[test]
fn a_write_that_fails_makes_the_files_nothing_before_anything_is_delivered() {
    let calls = live(&mut World::new(0), 0, None);
    for failing in 0..calls {
        let lengths = (1..4).flat_map(|length| worlds(0).map(move |world| (length, world)));
        for (length, (mut world, done_bytes)) in lengths {
            world.start();
            let begun = world.disk.calls();
            world
                .disk
                .fail(begun + failing..begun + failing + length, done_bytes);
            for count in [1, 3, 1, 2, 1, 1, 1] {
                world.publish(count);
            }
            let process = world.process.take().expect("it isn't killed");
            let was_failing = process.is_failed();
            process.commit();
            assert_eq!(process.write_errors(), u64::from(was_failing));
            assert!(!process.is_pending());
            process.close();
            if process.is_failed() {
                assert_eq!(process.write_errors(), 1);
                world.owed = Owed::Nothing;
            }
            world.start();
            world.publish(1);
            world.kill();
            world.start();
        }
    }
}

/// Whether a start finds anything on `disk`, in the boot it is in.
fn restored(disk: &SimulatedDisk, boot: Option<BootMark>) -> Vec<String> {
    let (storage, same_boot) = disk.start();
    let boot = boot.or(Some(same_boot)).filter(|boot| *boot != [0xff; 16]);
    let (_, restored) =
        Segments::open(storage, BYTES_MAX, boot, Generation(99)).expect("it is readable");
    let texts = restored
        .entries
        .iter()
        .map(|entry| entry.notification.to_owned());
    texts.collect()
}

/// No boot is known.
const UNKNOWN: Option<BootMark> = Some([0xff; 16]);

#[test]
fn without_a_proof_of_the_boot_only_a_clean_end_counts() {
    let mut world = World::new(0);
    world.start();
    world.publish(2);
    world.close();
    assert_eq!(restored(&world.disk, UNKNOWN), world.published);
    assert!(world.disk.mark().is_none(), "that start may deliver");
    assert!(restored(&world.disk, UNKNOWN).is_empty());
    assert!(restored(&world.disk, None).is_empty());
}

#[test]
fn a_segment_that_is_cut_anywhere_has_whole_arrays() {
    let mut world = World::new(0);
    world.start();
    world.publish(1);
    world.publish(3);
    let bytes = world.disk.segment(Side::Even).clone();
    for cut in 0..=bytes.len() {
        *world.disk.segment(Side::Even) = bytes[..cut].to_vec();
        world.disk.segment(Side::Odd).clear();
        let texts = restored(&world.disk, None);
        assert_eq!(texts, world.published[..texts.len()]);
        assert!([0, 1, 4].contains(&texts.len()), "{texts:?}");
    }
}

#[test]
fn a_bit_that_is_wrong_costs_the_history_or_its_older_half() {
    let (disk, published) = two_segments();
    let segments = Side::ALL.map(|side| disk.segment(side).clone());
    let all = restored(&disk, None).len();
    for (damaged, whole) in [(Side::Even, Side::Odd), (Side::Odd, Side::Even)] {
        for bit in 0..segments[damaged as usize].len() * 8 {
            *disk.segment(whole) = segments[whole as usize].clone();
            *disk.segment(damaged) = segments[damaged as usize].clone();
            disk.segment(damaged)[bit / 8] ^= 1 << (bit % 8);
            let texts = restored(&disk, None);
            assert!(texts.is_empty() || damaged == Side::Even);
            assert!(texts.len() < all && published.ends_with(&texts));
        }
    }
}

/// A disk with two full segments, of which the newer is on the odd side; and what they have.
fn two_segments() -> (SimulatedDisk, Vec<String>) {
    let mut world = World::new(0);
    world.start();
    for _ in 0..9 {
        world.publish(1);
    }
    assert!(world.disk.segment(Side::Odd).len() > 200);
    (world.disk, world.published)
}

#[test]
fn an_older_half_is_not_left_behind_alone_when_the_newer_is_damaged() {
    // In its header, and behind it.
    for bit in [8, 1200] {
        for call in 0..6 {
            for done_bytes in [0, usize::MAX] {
                let (disk, _) = two_segments();
                disk.segment(Side::Odd)[bit / 8] ^= 1;
                let (storage, boot) = disk.start();
                disk.kill_at(call, done_bytes);
                let opened = Segments::open(storage, BYTES_MAX, Some(boot), Generation(9));
                assert_eq!(opened.is_err(), disk.is_killed());
                assert!(restored(&disk, None).is_empty());
            }
        }
    }
}

#[test]
fn a_process_that_is_killed_while_it_makes_the_files_invalid_leaves_all_or_nothing() {
    for published in 1..12 {
        for call in 0..4 {
            for (mut world, done_bytes) in worlds(0) {
                world.start();
                for _ in 0..published {
                    world.publish(1);
                }
                let next = world.disk.calls();
                world.disk.fail(next..next + 1, done_bytes);
                world.disk.kill_at(next + 1 + call, done_bytes);
                world.publish(1);
                world.owed = Owed::Nothing;
                if world.disk.is_killed() {
                    // Perhaps of the newer half only.
                    (world.owed, world.first_max) = (Owed::AllOrNothing, u64::MAX);
                }
                world.start();
                world.publish(1);
                world.kill();
                world.start();
            }
        }
    }
}

/// A segment with `count` entries behind `first`.
fn segment(ordinal: u64, first: u64, count: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let header = Header {
        ordinal,
        boot: Some(BootMark::default()),
        first: Position(first),
        generations: vec![(Generation(1), Position(0))],
    };
    header.encode(&mut bytes).expect("short");
    for position in first + 1..=first + count {
        let entry = StoredEntry {
            unix_micros: position,
            key: None,
            kind: "1",
            notification: "2",
        };
        let entries = std::iter::once(entry);
        encode_entries(&mut bytes, Position(position), entries).expect("short");
    }
    seal(&mut bytes, Chain::FIRST);
    bytes
}

#[test]
fn an_older_half_counts_if_it_leads_to_the_newer() {
    // Of the older on the even side the ordinal, what it is behind, and how many it has; how many entries are restored.
    // With a header in the wrong file it isn't known which is the newer.
    for (ordinal, first, count, all) in [
        (4, 0, 3, 5),
        (4, 1, 2, 4),
        (4, 3, 0, 2),
        (4, 0, 2, 2),
        (4, 0, 4, 2),
        (4, 4, 0, 2),
        (2, 0, 3, 2),
        (5, 0, 3, 0),
    ] {
        let disk = SimulatedDisk::default();
        *disk.segment(Side::Even) = segment(ordinal, first, count);
        *disk.segment(Side::Odd) = segment(5, 3, 2);
        assert_eq!(
            restored(&disk, None).len(),
            all,
            "{ordinal} {first} {count}"
        );
    }
}

#[test]
fn a_mark_counts_for_the_very_files_that_it_was_set_for() {
    let mut world = World::new(0);
    world.start();
    world.publish(1);
    world.close();
    let mark = world.disk.mark().clone().expect("a mark");
    world.start();
    world.publish(1);
    world.kill();
    for length in 0..=mark.len() {
        *world.disk.mark() = Some(mark[..length].to_vec());
        let disk = world.disk.segment(Side::Even).clone();
        assert!(restored(&world.disk, UNKNOWN).is_empty());
        *world.disk.segment(Side::Even) = disk;
    }
}

#[test]
fn generations_and_segments_are_bounded() {
    let [_, mut world] = World::both(0);
    for _ in 0..GENERATIONS_MAX + 3 {
        world.start();
        world.publish(1);
        for side in Side::ALL {
            assert!(world.disk.segment(side).len() < 2000);
        }
    }
    world.start();
}

/// Members of a log on disk that is open, but for those of its segments that `write` puts in once more.
fn carried(write: impl Fn(&mut Members<'_>)) -> Result<WriteAhead, Malformed> {
    let disk = SimulatedDisk::default();
    let (storage, boot) = disk.start();
    let opened = Segments::open(storage, BYTES_MAX, Some(boot), Generation(1));
    let (segments, _) = opened.expect("it is writable");
    let mut bytes = Vec::new();
    let members = &mut Members::new(&mut bytes);
    members.nested(3, |members| {
        segments.save(members);
        write(members);
    });
    WriteAhead::carried(&Fields::parse(&bytes)?, BYTES_MAX, |_| Ok(disk.again()))
}

#[test]
fn segments_are_carried_within_their_limits_only() {
    let length = segment(0, 0, 0).len() as u64;
    let Position(max) = POSITION_MAX;
    let generations = |count: u64, start: u64| {
        let generations = (0..count).map(|at| (Generation(at), Position(start)));
        to_bytes(&generations.collect::<Vec<_>>())
    };
    type Write<'a> = &'a dyn Fn(&mut Members<'_>);
    let taken: [Write<'_>; 5] = [
        &|_| {},
        &|members| members.number(3, max - max % 2),
        &|members| members.number(6, length),
        &|members| members.number(7, max),
        &|members| members.bytes(2, &generations(64, 0)),
    ];
    for (number, write) in taken.into_iter().enumerate() {
        let log = carried(write).unwrap_or_else(|error| panic!("{number}: {error}"));
        assert!(!log.is_failed(), "{number}");
    }
    let refused: [Write<'_>; 9] = [
        &|members| members.bytes(1, &[1; 15]),
        &|members| members.bytes(2, &generations(65, 0)),
        &|members| members.bytes(2, &generations(1, 1)),
        &|members| members.present_bytes(2, b""),
        &|members| members.number(3, max + 1),
        &|members| members.number(5, 1 << 32),
        &|members| members.number(6, length + 1),
        &|members| members.number(7, max + 1),
        &|members| members.number(9, 1),
    ];
    for (number, write) in refused.into_iter().enumerate() {
        assert!(carried(write).is_err(), "{number}");
    }
}

#[test]
fn a_segment_of_another_length_is_a_write_that_failed() {
    for length in [0, 1, 10, 80, 200] {
        let mut world = World::new(0);
        world.start();
        world.publish(2);
        let process = world.process.as_ref().expect("it lives");
        let mut bytes = Vec::new();
        process.save(&mut Members::new(&mut bytes));
        world.disk.segment(Side::Even).resize(length, 0);
        let fields = Fields::parse(&bytes).expect("members");
        let open = |_: &Fields<'_>| Ok(world.disk.again());
        let log = WriteAhead::carried(&fields, BYTES_MAX, open).expect("a log");
        assert!(log.is_failed() && !log.is_pending());
        assert_eq!(log.write_errors(), 1);
        world.owed = Owed::Nothing;
        world.start();
    }
}

#[test]
fn whatever_happens_nothing_that_was_delivered_is_missing() {
    for mut world in (0..3000).flat_map(World::both) {
        for _ in 0..world.rng.usize(1..12) {
            let is_killed = world.rng.bool();
            let at = (world.rng.u64(..12), DONE_BYTES[world.rng.usize(..5)]);
            world.start_killed_at(is_killed.then_some(at));
            for _ in 0..world.rng.usize(..8) {
                let count = world.rng.usize(1..4);
                world.publish(count);
            }
            match world.rng.u8(..6) {
                0 | 1 => world.close(),
                2 => world.reboot(),
                3 => {
                    world.close();
                    world.reboot();
                }
                _ => world.kill(),
            }
        }
        world.start();
    }
}
