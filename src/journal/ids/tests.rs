//! A node that reads a stream, beside the list of all that it has read: what the log says of an id, a look at the whole
//! list says too.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;

use super::*;
use crate::config::HistoryLimits;
use crate::handover::Outgoing;
use crate::journal::column::Fingerprints;
use crate::journal::entry::{Content, Encoding};
use crate::journal::id::Generation;
use crate::journal::saved::tests::{fingerprints, restore, save};
use crate::journal::{Journal, micros};
use crate::time::{Clock, Timestamp};
use crate::wire::carried::{FrameNumbers, Frames};

/// So small that the first entries go soon.
const LIMITS: HistoryLimits = HistoryLimits {
    age_max: Duration::from_secs(10),
    bytes_max: 6000,
};

const OFF: HistoryLimits = HistoryLimits {
    bytes_max: 0,
    ..LIMITS
};

struct Stopped(Timestamp);

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        self.0
    }

    fn unix_now(&self) -> Duration {
        Duration::from_micros(self.0.as_micros())
    }
}

fn id(millis: u64, sequence: u64, tag: u64) -> StreamId {
    StreamId::new(millis, sequence, tag).expect("short enough")
}

fn text(id: StreamId) -> String {
    EntryId::Stream(id).to_string()
}

/// Appends an entry that says what its id is, and more.
fn push(journal: &mut Journal, id: StreamId, more: usize, published: i64) -> Position {
    let notification = format!("\"{} {}\"", text(id), "x".repeat(more));
    let content = Content {
        kind: r#""chat""#,
        notification: &notification,
    };
    let (encoding, fingerprints) = (Encoding::Plain, fingerprints(&notification));
    journal.push_read(id, content, encoding, None, &fingerprints, published)
}

fn carry(journal: &Journal, limits: HistoryLimits) -> Journal {
    let state = save(journal, &mut FrameNumbers::default());
    let (journal, _) = restore(limits, &state, None).expect("a state");
    journal
}

/// Something that was read.
#[derive(Clone, Copy, Debug)]
struct Read {
    id: StreamId,
    what: What,
    /// The newest position when it was read.
    at: Position,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    /// An entry of the log, which was published then.
    Entry(i64),
    /// What isn't kept, or isn't valid.
    Passed,
    Barrier,
}

struct Node {
    journal: Journal,
    limits: HistoryLimits,
    /// All that was read, in order.
    read: Vec<Read>,
    is_cut: bool,
    /// The stream's next id has at least this place.
    place: (u64, u64),
    now: Timestamp,
    rng: Rng,
    /// How often what was seen.
    seen: BTreeMap<&'static str, u32>,
}

impl Node {
    fn new(seed: u64) -> Self {
        let limits = match seed % 8 {
            0 => OFF,
            _ => LIMITS,
        };
        Self {
            journal: Journal::of_stream(limits),
            limits,
            read: Vec::new(),
            is_cut: false,
            place: (1_795_702_284_393, 0),
            now: Timestamp::from_micros(1_000_000),
            rng: Rng::with_seed(seed),
            seen: BTreeMap::new(),
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    fn head(&self) -> Position {
        let is_entry = |read: &&Read| matches!(read.what, What::Entry(_));
        Position(self.read.iter().filter(is_entry).count() as u64)
    }

    fn start(&self) -> Position {
        match self.limits.is_on() {
            true => self.journal.history().start(),
            false => self.head(),
        }
    }

    /// The id of the stream's next entry.
    fn next(&mut self) -> StreamId {
        if self.rng.u8(..3) == 0 {
            self.place = (self.place.0 + self.rng.u64(1..4), 0);
        }
        let (millis, sequence) = self.place;
        self.place.1 += 1;
        id(millis, sequence, self.rng.u64(..))
    }

    fn note(&mut self, id: StreamId, what: What) {
        let is_entry = matches!(what, What::Entry(_));
        let at = Position(self.head().0 + u64::from(is_entry));
        self.read.push(Read { id, what, at });
    }

    fn read_entry(&mut self) {
        let id = self.next();
        if self.rng.u8(..6) == 0 {
            return self.note(id, What::Passed);
        }
        let published = micros(self.now) - self.rng.i64(0..2_000_000);
        let more = match self.rng.u8(..8) {
            0 => self.rng.usize(1000..2000),
            _ => self.rng.usize(..300),
        };
        self.note(id, What::Entry(published));
        let start = self.journal.head();
        assert_eq!(push(&mut self.journal, id, more, published), self.head());
        if self.rng.bool() {
            self.journal.seal(start, &Stopped(self.now));
        }
    }

    fn read_barrier(&mut self) {
        let id = self.next();
        self.note(id, What::Barrier);
        self.journal.mark(id);
    }

    /// The stream goes on from an older state, by a clock that may be behind.
    fn fall_back(&mut self) {
        if let Some(read) = self.rng.choice(&self.read) {
            self.place = read.id.place();
        }
        // Most often it is noticed.
        if self.rng.u8(..8) > 0 {
            self.journal.cut();
            self.is_cut = true;
        }
    }

    fn carry(&mut self) {
        self.count("carried");
        let before = self.view();
        let is_within = self.journal.history().bytes() <= self.limits.bytes_max;
        self.journal = carry(&self.journal, self.limits);
        // What was appended and not sealed makes room for itself there.
        if is_within {
            assert_eq!(self.view(), before);
        }
        if self.rng.u8(..8) == 0 {
            self.limits = match self.rng.u8(..4) {
                0 => OFF,
                1 => HistoryLimits {
                    bytes_max: 3000,
                    ..LIMITS
                },
                _ => LIMITS,
            };
            self.journal = carry(&self.journal, self.limits);
        }
    }

    fn view(&self) -> Vec<String> {
        let bytes = self.journal.history().bytes();
        let mut view = vec![format!("{bytes} {:?}", self.journal.ids)];
        view.extend(self.read.iter().map(|read| {
            let located = self.journal.locate(&text(read.id), self.now);
            format!("{} {located:?}", self.journal.id(read.at))
        }));
        view
    }

    fn step(&mut self) {
        match self.rng.u8(..32) {
            0..18 => self.read_entry(),
            18 => self.read_barrier(),
            19 => self.fall_back(),
            20..22 if self.is_cut => {
                self.read_barrier();
                self.journal.mend();
                self.is_cut = false;
            }
            20..24 => {
                self.now = self.now + Duration::from_micros(self.rng.u64(..9_000_000));
                let needed = Position(self.rng.u64(..=self.head().0));
                let needed = self.rng.bool().then_some(needed);
                while self.journal.expire(self.now, needed) {}
            }
            24..28 => {
                let position = Position(self.rng.u64(self.start().0..=self.head().0 + 1));
                let frame = match self.rng.bool() {
                    true => self.journal.replayed_frame(position),
                    false => self.journal.frame(position, Encoding::Numbered),
                };
                if let Some(frame) = frame {
                    let payload = String::from_utf8_lossy(frame.payload());
                    let said = format!(r#","id":"{}","#, text(self.entry_id(position)));
                    assert!(payload.contains(&said), "{payload}");
                }
            }
            _ => self.carry(),
        }
    }

    /// The id of an entry that was read.
    fn entry_id(&self, position: Position) -> StreamId {
        let is_it = |read: &&Read| matches!(read.what, What::Entry(_)) && read.at == position;
        let entry = self.read.iter().find(is_it);
        entry.map_or(StreamId::NONE, |read| read.id)
    }

    /// What is known: from the newest barrier on, or from where ids have fallen without one.
    fn counting(&self) -> &[Read] {
        let mut from = 0;
        let mut newest = None;
        for (index, read) in self.read.iter().enumerate() {
            let place = Some(read.id.place());
            match read.what {
                What::Passed => continue,
                What::Entry(_) if newest < place => {}
                What::Entry(_) | What::Barrier => from = index,
            }
            newest = place;
        }
        &self.read[from..]
    }

    fn expected(&self, id: StreamId) -> Result<Position, NotResumed> {
        if !self.limits.is_on() {
            return Err(NotResumed::Expired);
        }
        if self.is_cut {
            return Err(NotResumed::Unknown);
        }
        let counting = self.counting().iter();
        let counting: Vec<_> = counting.filter(|read| read.what != What::Passed).collect();
        let is_there = |read: &&&Read| read.at >= self.start();
        let first = counting.iter().find(is_there);
        if let Some(found) = counting.iter().find(|read| read.id == id) {
            let behind = self.read.iter().find_map(|read| match read.what {
                What::Entry(published) if read.at > found.at => Some(published),
                _ => None,
            });
            let oldest = micros(self.now) - 10_000_000;
            let is_whole = behind.is_none_or(|published| published >= oldest);
            return match is_there(&found) && is_whole {
                true => Ok(found.at),
                false => Err(NotResumed::Expired),
            };
        }
        if counting.iter().all(|read| read.id.place() < id.place()) {
            return Err(NotResumed::Ahead);
        }
        match first.is_some_and(|first| id.place() < first.id.place()) {
            true => Err(NotResumed::Expired),
            false => Err(NotResumed::Unknown),
        }
    }

    /// Shows the log an id.
    fn show(&mut self, id: StreamId) {
        let found = self.journal.locate(&text(id), self.now);
        assert_eq!(found, self.expected(id), "{id:?}\n{:#?}", self.read);
        match found {
            Ok(position) => {
                let shown = self.read.iter().rposition(|read| read.id == id);
                let behind = &self.read[shown.expect("it was read") + 1..];
                assert!(behind.iter().all(|read| read.what != What::Barrier) && !self.is_cut);
                let behind = behind.iter().filter(|read| read.what != What::Passed);
                let mut behind = behind.map(|read| format!("\"{} ", text(read.id)));
                for entry in self.journal.history().behind(position) {
                    let expected = behind.next().expect("it was read");
                    assert!(entry.content().notification.starts_with(&expected));
                }
                assert_eq!(behind.next(), None, "it is missing");
                let is_newest = position == self.journal.head();
                self.count(match self.entry_id(position) == id {
                    true if is_newest => "the newest",
                    true => "one that is there",
                    false => "a barrier",
                });
            }
            Err(_) if !self.limits.is_on() => self.count("off"),
            Err(_) if self.is_cut => self.count("cut"),
            Err(NotResumed::Expired) => {
                let start = self.start();
                let is_it = |read: &Read| read.id == id && read.what != What::Passed;
                let is_there = |read: &Read| is_it(read) && read.at >= start;
                let is_there = self.counting().iter().any(is_there);
                self.count(if is_there { "too old" } else { "gone" });
            }
            Err(NotResumed::Ahead) => self.count("ahead"),
            Err(NotResumed::Unknown) => {
                let is_it = |read: &&Read| read.id.place() == id.place();
                let others = self.read.iter().filter(is_it).count();
                self.count(if others > 1 { "given twice" } else { "unknown" });
            }
        }
    }

    fn check(&mut self) {
        self.journal.check_invariants();
        let (start, head) = (self.start(), self.head());
        assert_eq!(self.journal.head(), head);
        let barrier = self.counting().first().copied();
        let barrier = barrier.filter(|read| read.what == What::Barrier);
        for position in (start.0..=head.0).map(Position) {
            let entry = self.entry_id(position);
            assert_eq!(self.journal.entry_id(position), EntryId::Stream(entry));
            let barrier = barrier.filter(|read| read.at == position);
            let named = barrier.map_or(entry, |read| read.id);
            assert_eq!(self.journal.id(position), EntryId::Stream(named));
        }
        if start > Position(0) {
            let gone = EntryId::Stream(StreamId::NONE);
            assert_eq!(self.journal.entry_id(Position(start.0 - 1)), gone);
            self.count("trimmed");
        }
        if head > Position(0) && self.limits.is_on() && !self.is_cut {
            let newest = self.journal.id(head).to_string();
            assert_eq!(self.journal.locate(&newest, self.now), Ok(head));
        }
        for _ in 0..4 {
            let Some(&Read { id: shown, .. }) = self.rng.choice(&self.read) else {
                break;
            };
            self.show(shown);
            let (millis, sequence) = shown.place();
            self.show(id(millis, sequence, shown.tag() ^ 1));
            self.show(id(millis, sequence + 1, shown.tag()));
            self.show(id(millis - 1, sequence, shown.tag()));
        }
        self.show(id(1 << 50, 0, 1));
        self.show(StreamId::NONE);
    }
}

#[test]
fn an_id_is_located_where_a_look_at_all_that_was_read_finds_it() {
    let mut seen = BTreeMap::<_, u32>::new();
    for seed in 0..2000 {
        let mut node = Node::new(seed);
        node.check();
        for _ in 0..60 {
            node.step();
            if node.rng.u8(..4) == 0 {
                node.check();
            }
        }
        for (what, count) in node.seen {
            *seen.entry(what).or_default() += count;
        }
    }
    let all = [
        "a barrier",
        "ahead",
        "carried",
        "cut",
        "given twice",
        "gone",
        "off",
        "one that is there",
        "the newest",
        "too old",
        "trimmed",
        "unknown",
    ];
    assert!(seen.keys().copied().eq(all), "{seen:?}");
    assert!(seen.values().all(|&count| count > 500), "{seen:?}");
}

/// Nothing that isn't an id of a stream, or of this log, is one of the other sort.
#[test]
fn ids_of_the_other_sort_are_unknown() {
    let now = Timestamp::ZERO;
    let mut stream = Journal::of_stream(LIMITS);
    push(&mut stream, id(5, 0, 7), 0, 0);
    let mut own = Journal::new(LIMITS, Generation(1));
    let content = Content {
        kind: "1",
        notification: "2",
    };
    own.push(
        content,
        Encoding::Plain,
        None,
        &Fingerprints::default(),
        now,
    );
    for (journal, is_known) in [(&stream, false), (&own, true)] {
        let own = journal.locate("0000000000000001-1", now);
        assert_eq!(own.is_ok(), is_known);
        let stream = journal.locate("5-0-0000000000000007", now);
        assert_eq!(stream.is_ok(), !is_known);
        for text in ["", "5-0", "5-0-7", "0-0-0-0", "$"] {
            assert_eq!(journal.locate(text, now), Err(NotResumed::Unknown));
        }
    }
}

#[test]
fn a_stream_that_is_empty_has_the_id_of_its_barrier() {
    let now = Timestamp::ZERO;
    for limits in [LIMITS, OFF] {
        let mut journal = Journal::of_stream(limits);
        let none = EntryId::Stream(StreamId::NONE);
        assert_eq!(journal.id(Position(0)), none);
        assert!(journal.locate(&none.to_string(), now).is_err());
        journal.mark(id(5, 0, 7));
        let mut journal = carry(&journal, limits);
        journal.check_invariants();
        assert_eq!(journal.id(Position(0)).to_string(), "5-0-0000000000000007");
        assert_eq!(journal.entry_id(Position(0)), none);
        let expected = match limits.is_on() {
            true => Ok(Position(0)),
            false => Err(NotResumed::Expired),
        };
        assert_eq!(journal.locate(&text(id(5, 0, 7)), now), expected);
        assert_eq!(push(&mut journal, id(5, 1, 8), 0, 0), Position(1));
        assert_eq!(journal.id(Position(1)), EntryId::Stream(id(5, 1, 8)));
        assert_eq!(journal.locate(&text(id(5, 0, 7)), now), expected);
    }
}

#[test]
fn nothing_is_located_between_a_cut_and_its_barrier() {
    let now = Timestamp::ZERO;
    let mut journal = Journal::of_stream(LIMITS);
    let known = [id(1, 0, 1), id(2, 0, 2), id(3, 0, 3)];
    let locate = |journal: &Journal| known.map(|id| journal.locate(&text(id), now));
    let unknown = [Err(NotResumed::Unknown); 3];
    for id in known {
        push(&mut journal, id, 0, 0);
    }
    assert_eq!(locate(&journal), [1, 2, 3].map(|at| Ok(Position(at))));
    journal.cut();
    assert_eq!(locate(&journal), unknown);
    // A barrier of an earlier doubt.
    journal.mark(id(4, 0, 4));
    assert_eq!(locate(&journal), unknown);
    assert_eq!(
        journal.locate(&text(id(4, 0, 4)), now),
        Err(NotResumed::Unknown)
    );
    let mut journal = carry(&journal, LIMITS);
    push(&mut journal, id(5, 0, 5), 0, 0);
    journal.mark(id(6, 0, 6));
    assert_eq!(locate(&journal), unknown);
    journal.mend();
    assert_eq!(locate(&journal), [Err(NotResumed::Expired); 3]);
    assert_eq!(journal.locate(&text(id(6, 0, 6)), now), Ok(Position(4)));
}

/// What a stream's ids take is within `--history-bytes`.
#[test]
fn ids_are_charged_and_their_memory_is_given_back() {
    let mut stream = Journal::of_stream(HistoryLimits::default());
    let mut own = Journal::new(HistoryLimits::default(), Generation(1));
    const ENTRIES: u64 = 1000;
    for at in 1..=ENTRIES {
        push(&mut stream, id(at, 0, 7), 0, 0);
        let content = stream.history().get(Position(at)).expect("there").content();
        let fingerprints = fingerprints(content.notification);
        own.push(
            content,
            Encoding::Plain,
            None,
            &fingerprints,
            Timestamp::ZERO,
        );
    }
    let [bytes, bytes_own] = [&stream, &own].map(|journal| journal.history().bytes());
    let Ids::Stream(ids) = &stream.ids else {
        panic!("it is of a stream")
    };
    // It has doubled its room not long ago at worst, and half of it is what is charged on average.
    let room = ids.row.capacity() * size_of::<StreamId>();
    let charged = bytes - bytes_own;
    assert_eq!(charged, 39 * ENTRIES as usize);
    assert!(
        room * 3 / 4 <= charged,
        "{room} bytes are charged as {charged}"
    );
    assert_eq!(carry(&stream, LIMITS).history().bytes_left() / 200, 0);

    let late = Timestamp::from_micros(1 << 40);
    while stream.expire(late, None) {}
    let Ids::Stream(ids) = &stream.ids else {
        panic!("it is of a stream")
    };
    assert_eq!((ids.row.len(), ids.row.capacity()), (0, 0));
    let newest = id(ENTRIES, 0, 7);
    assert_eq!(stream.id(stream.head()), EntryId::Stream(newest));
    assert_eq!(stream.locate(&text(newest), late), Ok(Position(ENTRIES)));
}

/// A log of a stream whose first entry has left it, with a barrier on its way and a doubt.
fn some() -> Journal {
    let limits = HistoryLimits::default();
    let mut journal = Journal::of_stream(limits);
    push(&mut journal, id(1, 0, 1), 0, -400_000_000);
    push(&mut journal, id(2, 0, 2), 0, 5);
    journal.mark(id(3, 0, 3));
    push(&mut journal, id(3, 1, 4), 0, 6);
    journal.cut();
    journal.expire(Timestamp::ZERO, None);
    assert_eq!(journal.history().len(), 2);
    journal
}

#[test]
fn members_have_the_numbers_that_they_always_had() {
    let state = save(&some(), &mut FrameNumbers::default());
    let mut expected = Outgoing::begin(Vec::new()).expect("taken");
    let mut record = |kind, write: &dyn Fn(&mut Members<'_>)| {
        expected
            .record(kind, |members| write(members))
            .expect("taken");
    };
    record(8, &|members| {
        members.nested(2, |members| members.number(1, 1));
        members.nested(4, |members| {
            members.bytes(1, &[1, 0, 1]);
            members.number(2, 2);
            members.bytes(3, &[3, 0, 3]);
            members.number(4, 1);
        });
    });
    for (micros, text, id) in [
        (5, "\"2-0-0000000000000002 \"", [2, 0, 2]),
        (6, "\"3-1-0000000000000004 \"", [3, 1, 4]),
    ] {
        record(9, &|members| {
            members.signed(1, micros);
            members.number(2, 1);
            members.bytes(3, br#""chat""#);
            members.bytes(4, text.as_bytes());
            members.bytes(7, &id);
        });
    }
    assert!(state == expected.finish().expect("taken"));
}

/// A log that is carried, from the members of its record that `write` puts behind its own, and one entry likewise.
fn carried(
    write: impl FnOnce(&mut Members<'_>),
    write_entry: impl FnOnce(&mut Members<'_>),
) -> Result<Journal, Malformed> {
    let mut bytes = Vec::new();
    let members = &mut Members::new(&mut bytes);
    members.nested(2, |_| {});
    members.nested(4, |_| {});
    write(members);
    let mut journal = Journal::of_stream(LIMITS);
    journal.go_on(&Fields::parse(&bytes)?)?;
    let mut bytes = Vec::new();
    let members = &mut Members::new(&mut bytes);
    members.number(2, 2);
    members.bytes(3, b"1");
    members.bytes(4, b"2");
    members.numbers(7, &[5, 0, 7]);
    write_entry(members);
    let fields = Fields::parse(&bytes)?;
    journal.carry(&fields, &Fingerprints::default(), &mut Frames::default())?;
    journal.check_carried()?;
    journal.check_invariants();
    Ok(journal)
}

#[test]
fn a_state_is_taken_only_if_its_ids_fit_together() {
    type Write = fn(&mut Members<'_>);
    let none: Write = |_| {};
    let mut journal = carried(none, none).expect("a log");
    let frame = journal.replayed_frame(Position(1)).expect("there");
    assert_eq!(
        frame.payload(),
        br#"{"type":1,"id":"5-0-0000000000000007","notification":2}"#
    );
    let at_its_end: Write = |members| members.nested(4, |members| members.number(2, 1));
    assert!(carried(at_its_end, none).is_ok());
    let refused: [(Write, Write); 7] = [
        // Beyond the end.
        (
            |members| members.nested(4, |members| members.number(2, 2)),
            none,
        ),
        (
            |members| members.nested(4, |members| members.number(2, u64::MAX)),
            none,
        ),
        (
            |members| members.nested(4, |members| members.bytes(1, &[1, 2])),
            none,
        ),
        (
            |members| members.nested(4, |members| members.numbers(3, &[u64::MAX, 100, 1])),
            none,
        ),
        (none, |members| members.number(7, 0x80)),
        (none, |members| members.present_bytes(7, b"")),
        (none, |members| members.numbers(7, &[u64::MAX, u64::MAX, 1])),
    ];
    for (number, (write, write_entry)) in refused.into_iter().enumerate() {
        assert!(carried(write, write_entry).is_err(), "{number}");
    }
}

#[test]
fn a_log_goes_on_with_ids_of_its_own_sort_only() {
    let own = || Journal::new(LIMITS, Generation(1));
    for (saved, is_taken) in [(own(), true), (some(), false)] {
        let state = save(&saved, &mut FrameNumbers::default());
        let mut state = crate::handover::Incoming::begin(&state[..]).expect("a state");
        let (_, fields) = state.next_record().expect("whole").expect("a record");
        let fields = fields.expect("members");
        assert_eq!(own().go_on(&fields).is_ok(), is_taken);
        let mut stream = Journal::of_stream(LIMITS);
        assert_eq!(stream.go_on(&fields).is_ok(), !is_taken);
    }
}

#[test]
fn a_state_that_is_damaged_is_refused_or_gone_on_from() {
    let state = save(&some(), &mut FrameNumbers::default());
    let mut rng = Rng::with_seed(1);
    let (mut refused, mut taken) = (0, 0);
    for round in 0..20_000 {
        let mut damaged = state.clone();
        for _ in 0..round % 6 {
            let at = rng.usize(..damaged.len());
            damaged[at] = [0, 1, 0x7f, 0x80, 0xff, rng.u8(..)][rng.usize(..6)];
        }
        let Ok((mut journal, _)) = restore(LIMITS, &damaged, None) else {
            refused += 1;
            continue;
        };
        taken += 1;
        journal.check_invariants();
        if !journal.ids.are_of_stream() || journal.head() >= Position(1 << 59) {
            continue;
        }
        for millis in [4, 1 << 50, 3] {
            let at = push(&mut journal, id(millis, 0, 5), 0, 0);
            let named = journal.id(at).to_string();
            for text in ["1-0-0000000000000001", "2-0-0000000000000002", &named] {
                let _ = journal.locate(text, Timestamp::ZERO);
            }
            journal.seal(Position(0), &Stopped(Timestamp::ZERO));
            journal.check_invariants();
        }
        journal.mark(id(9, 0, 9));
        journal.mend();
        let newest = journal.id(journal.head()).to_string();
        assert_eq!(journal.locate(&newest, Timestamp::ZERO), Ok(journal.head()));
    }
    assert!(refused > 1000 && taken > 1000, "{refused}, {taken}");
}
