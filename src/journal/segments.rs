//! The history on disk: two segments that take turns, and whether they may be believed at a start.
//!
//! Knows no files; [`Storage`] does. Main types: [`Segments`], and [`Restored`], what they had at the start.
//! The log is appended to the newer segment. When the entries of that have more than `bytes_max`, the older one is cut
//! to nothing and becomes the newer: its header says what was so by then. So both together always have at least
//! `bytes_max` of the newest entries, or all.
//!
//! What the files have is taken for the history only if nothing that was delivered can be missing from them:
//! - in the same boot, where what a process wrote outlives it. Only a record that it was writing may be cut off; such
//!   a tail was not delivered, and is cut;
//! - in another, if the mark of a clean end is there and no entries are behind it. All was synced before it was set,
//!   and it is gone for good before a start returns that could deliver anything.
//!
//! Otherwise the history begins afresh. The order of calls matters, since the process can die between any two:
//! - A start proves the boot (with a record) before it removes the mark, so one of both proofs is always there.
//! - Files that can't be believed are made nothing in such an order that what is left until the last can't be believed
//!   either: the older segment first, damaged ones last. When a write fails, the older goes first too, and the newer
//!   alone has no gap.

use std::io;

use super::id::{Generation, Position};
use super::record::{
    BootMark, Chain, Ending, GENERATIONS_MAX, Header, Record, Records, Start, StoredEntry, TooLong,
    seal,
};
use super::storage::{Side, Storage};

mod saved;
#[cfg(test)]
mod tests;

/// The segments, open for the log to be appended.
pub struct Segments {
    storage: Box<dyn Storage>,
    /// A segment whose entries have more than this isn't appended to.
    bytes_max: u64,
    boot: Option<BootMark>,
    /// At most [`GENERATIONS_MAX`]; the last is that of this process.
    generations: Vec<(Generation, Position)>,
    /// The end of the newer segment, behind which the next record goes.
    tail: Tail,
    /// Of the newer segment, the records of entries.
    entries_bytes: u64,
    /// The position of the newest entry.
    end: Position,
    /// Whether the mark of a clean end may be set. It isn't whenever something is appended.
    is_marked: bool,
}

/// What the segments had at the start.
pub struct Restored {
    /// The generations that are known, oldest first, each with the first position that it was told at. The last is the
    /// new one, at the position of the newest entry.
    pub generations: Vec<(Generation, Position)>,
    /// The position ahead of the first entry.
    pub first: Position,
    /// The entries behind it, without a gap.
    pub entries: StoredEntries,
}

/// Entries that were restored: at most two segments, as they were read.
pub struct StoredEntries {
    /// Whole records each, the older first.
    segments: Vec<Vec<u8>>,
}

impl StoredEntries {
    /// In the order of their positions.
    pub fn iter(&self) -> impl Iterator<Item = StoredEntry<'_>> {
        let records = self.segments.iter().flat_map(|bytes| {
            let mut records = Records::new(bytes);
            std::iter::from_fn(move || records.next_record().ok())
        });
        let entries = records.filter_map(|record| match record {
            Record::Entries(entries) => Some(entries),
            Record::Header(_) | Record::Start(_) => None,
        });
        entries.flat_map(|entries| entries.iter())
    }
}

/// Where a segment ends: that of an ordinal, so many bytes long, of such content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Tail {
    ordinal: u64,
    length: u64,
    chain: Chain,
}

/// What the mark of a clean end has, with a check behind it.
const MARK_BYTES: usize = 24;

impl Tail {
    /// Where the header of a segment goes.
    const fn ahead_of(ordinal: u64) -> Self {
        Self {
            ordinal,
            length: 0,
            chain: Chain::FIRST,
        }
    }

    fn side(&self) -> Side {
        Side::of(self.ordinal)
    }

    fn to_mark(self) -> Vec<u8> {
        let [ordinal, length] = [self.ordinal, self.length].map(u64::to_le_bytes);
        let mut mark = [&ordinal[..], &length, &self.chain.0.to_le_bytes()].concat();
        let check = Chain::FIRST.then(&mark);
        mark.extend_from_slice(&check.0.to_le_bytes());
        mark
    }

    /// `None` for a mark that a process was killed over.
    fn from_mark(mark: &[u8]) -> Option<Self> {
        let mark: &[u8; MARK_BYTES] = mark.try_into().ok()?;
        let (content, check) = mark.split_last_chunk()?;
        let is_valid = Chain::FIRST.then(content).0 == u32::from_le_bytes(*check);
        let (ordinal, rest) = content.split_first_chunk()?;
        let (length, chain) = rest.split_first_chunk()?;
        is_valid.then_some(Self {
            ordinal: u64::from_le_bytes(*ordinal),
            length: u64::from_le_bytes(*length),
            chain: Chain(u32::from_le_bytes(*chain.first_chunk()?)),
        })
    }
}

/// What is found of a segment at a start.
enum Found {
    /// Nothing, or a header that is cut off: no record has followed it.
    Nothing,
    /// Its header can't be read, so it isn't known which segment it is.
    Damaged,
    Segment(Segment),
}

/// A segment as far as its records are whole.
struct Segment {
    /// As of its header, then of the starts behind it.
    boot: Option<BootMark>,
    generations: Vec<(Generation, Position)>,
    /// Ahead of its first entry.
    first: Position,
    /// Of its last entry, or `first`.
    end: Position,
    tail: Tail,
    entries_bytes: u64,
    /// What is behind its whole records.
    ending: Ending,
    /// Whether the server ended cleanly here, and no entries followed.
    is_marked: bool,
    bytes: Vec<u8>,
}

impl Found {
    fn read(storage: &mut dyn Storage, side: Side, mark: Option<Tail>) -> io::Result<Self> {
        let bytes = storage.read(side)?;
        let mut records = Records::new(&bytes);
        let header = match records.next_record() {
            Ok(Record::Header(header)) if Side::of(header.ordinal) == side => header,
            Err(Ending::Whole | Ending::Torn) => return Ok(Self::Nothing),
            Ok(_) | Err(Ending::Corrupt) => return Ok(Self::Damaged),
        };
        let mut segment = Segment::new(header, &records);
        segment.is_marked = mark == Some(segment.tail);
        segment.ending = loop {
            let record = match records.next_record() {
                Ok(record) => record,
                Err(ending) => break ending,
            };
            if !segment.take(&record, &records) {
                break Ending::Corrupt;
            }
            segment.is_marked |= mark == Some(segment.tail);
        };
        segment.bytes = bytes;
        Ok(Self::Segment(segment))
    }

    /// In this order they are made nothing.
    fn rank(&self) -> (u8, u64) {
        match self {
            Self::Nothing => (0, 0),
            Self::Segment(segment) => (1, segment.tail.ordinal),
            Self::Damaged => (2, 0),
        }
    }
}

impl Segment {
    fn new(header: Header, records: &Records) -> Self {
        Self {
            boot: header.boot,
            generations: header.generations,
            first: header.first,
            end: header.first,
            tail: Tail {
                ordinal: header.ordinal,
                length: records.len() as u64,
                chain: records.chain(),
            },
            entries_bytes: 0,
            ending: Ending::Whole,
            is_marked: false,
            bytes: Vec::new(),
        }
    }

    /// Takes the record that was read last, if it goes on from those ahead of it.
    fn take(&mut self, record: &Record, records: &Records) -> bool {
        let length = records.len() as u64;
        match record {
            Record::Start(start) if start.position == self.end => {
                self.boot = start.boot;
                add_generation(&mut self.generations, start.generation, start.position);
            }
            Record::Entries(entries) if entries.first == self.end.next() => {
                self.end = entries.last();
                self.entries_bytes += length - self.tail.length;
                self.is_marked = false;
            }
            _ => return false,
        }
        self.tail.length = length;
        self.tail.chain = records.chain();
        true
    }

    /// Why something may be missing from it that was delivered, if that can be.
    fn doubt(&self, boot: Option<BootMark>) -> Option<&'static str> {
        let is_same_boot = boot.is_some() && self.boot == boot;
        match self.ending {
            // Nothing was delivered since.
            _ if self.is_marked => None,
            Ending::Corrupt => Some("its newest segment is damaged"),
            Ending::Whole | Ending::Torn if is_same_boot => None,
            Ending::Whole | Ending::Torn => {
                Some("the server was not ended cleanly, and the machine may have been since")
            }
        }
    }

    /// Whether `newer` begins where this one ends. What is behind that doesn't matter.
    fn leads_to(&self, newer: &Self) -> bool {
        newer.tail.ordinal - self.tail.ordinal == 1 && self.end == newer.first
    }

    /// Its whole records.
    fn into_bytes(mut self) -> Vec<u8> {
        self.bytes.truncate(self.tail.length as usize);
        self.bytes
    }
}

/// Adds a generation that begins at `position`. One that has kept nothing gives way to it, but for the first: no id
/// of it was ever told.
fn add_generation(
    generations: &mut Vec<(Generation, Position)>,
    generation: Generation,
    position: Position,
) {
    let has_kept_nothing = |&(_, start): &(Generation, Position)| start == position;
    if generations.len() > 1 && generations.last().is_some_and(has_kept_nothing) {
        generations.pop();
    }
    if generations.len() >= GENERATIONS_MAX {
        generations.remove(0);
    }
    generations.push((generation, position));
}

/// Makes nothing of what `storage` has, so that no later start takes it over.
///
/// # Errors
/// It may be there.
pub fn discard(storage: &mut dyn Storage) -> io::Result<()> {
    for side in Side::ALL {
        storage.truncate(side, 0)?;
    }
    storage.remove_mark()
}

impl Segments {
    /// Takes over what `storage` has, if it can be believed, and begins afresh otherwise, with a line in the log that
    /// says why. `boot` tells whether the machine was started since, if that is known; `generation` is that of the
    /// ids to come.
    ///
    /// # Errors
    /// The storage can't be read or written. Nothing that was delivered is lost by that.
    pub fn open(
        storage: Box<dyn Storage>,
        bytes_max: u64,
        boot: Option<BootMark>,
        generation: Generation,
    ) -> io::Result<(Self, Restored)> {
        let mut segments = Self {
            storage,
            bytes_max,
            boot,
            generations: Vec::new(),
            tail: Tail::ahead_of(0),
            entries_bytes: 0,
            end: Position(0),
            is_marked: true,
        };
        let restored = segments.take_over(generation)?;
        Ok((segments, restored))
    }

    fn take_over(&mut self, generation: Generation) -> io::Result<Restored> {
        let mark = self.storage.read_mark()?;
        let mark = mark.and_then(|mark| Tail::from_mark(&mark));
        let even = Found::read(&mut *self.storage, Side::Even, mark)?;
        let odd = Found::read(&mut *self.storage, Side::Odd, mark)?;
        let (older, newest, sides) = if even.rank() <= odd.rank() {
            (even, odd, [Side::Even, Side::Odd])
        } else {
            (odd, even, [Side::Odd, Side::Even])
        };
        let doubt = match newest {
            Found::Nothing => None,
            Found::Damaged => Some("one of its segments is damaged"),
            Found::Segment(newest) => match newest.doubt(self.boot) {
                None => return self.go_on(generation, older, newest),
                doubt => doubt,
            },
        };
        if let Some(doubt) = doubt {
            log::warn!("the history on disk is not taken over, and begins afresh: {doubt}");
        }
        for side in sides {
            self.storage.truncate(side, 0)?;
        }
        self.begin(generation)
    }

    /// Begins afresh, with both segments cut to nothing.
    fn begin(&mut self, generation: Generation) -> io::Result<Restored> {
        add_generation(&mut self.generations, generation, self.end);
        let mut header = self.header(self.tail.ordinal)?;
        self.write(&mut header)?;
        self.remove_mark()?;
        Ok(self.restored(Position(0), Vec::new()))
    }

    /// Goes on behind what is to be believed.
    fn go_on(
        &mut self,
        generation: Generation,
        older: Found,
        newest: Segment,
    ) -> io::Result<Restored> {
        self.tail = newest.tail;
        self.entries_bytes = newest.entries_bytes;
        self.end = newest.end;
        self.generations.clone_from(&newest.generations);
        if newest.bytes.len() as u64 > self.tail.length {
            self.storage.truncate(self.tail.side(), self.tail.length)?;
        }
        self.prove_start(generation)?;
        self.remove_mark()?;
        let (mut first, mut read) = (newest.first, Vec::with_capacity(2));
        match older {
            Found::Segment(older) if older.leads_to(&newest) => {
                first = older.first;
                read.push(older.into_bytes());
            }
            Found::Nothing => {}
            Found::Segment(_) | Found::Damaged => {
                log::warn!("the older half of the history on disk is damaged, and not taken over");
            }
        }
        read.push(newest.into_bytes());
        Ok(self.restored(first, read))
    }

    fn restored(&self, first: Position, segments: Vec<Vec<u8>>) -> Restored {
        Restored {
            generations: self.generations.clone(),
            first,
            entries: StoredEntries { segments },
        }
    }

    /// Tells a later start of this one, and of the boot that it is in.
    fn prove_start(&mut self, generation: Generation) -> io::Result<()> {
        let (position, boot) = (self.end, self.boot);
        add_generation(&mut self.generations, generation, position);
        let mut record = Vec::new();
        let start = Start {
            generation,
            position,
            boot,
        };
        start.encode(&mut record)?;
        self.write(&mut record)
    }

    /// The position of the newest entry.
    #[must_use]
    pub fn end(&self) -> Position {
        self.end
    }

    /// Writes records of entries, whose checks it puts in; the last entry is at `end`. This is one write, and where a
    /// segment is begun a truncation ahead of it.
    ///
    /// # Errors
    /// The files may have a part of it. They are to be made nothing before anything of it is delivered:
    /// [`Self::invalidate`].
    pub(super) fn append(&mut self, batch: &mut [u8], end: Position) -> io::Result<()> {
        if self.is_marked {
            self.remove_mark()?;
        }
        let bytes = batch.len() as u64;
        if self.entries_bytes > self.bytes_max {
            let next = Tail::ahead_of(self.tail.ordinal + 1);
            let mut records = self.header(next.ordinal)?;
            records.extend_from_slice(batch);
            self.storage.truncate(next.side(), 0)?;
            self.tail = next;
            self.entries_bytes = 0;
            self.write(&mut records)?;
        } else {
            self.write(batch)?;
        }
        self.entries_bytes += bytes;
        self.end = end;
        Ok(())
    }

    /// The record that a segment begins with.
    fn header(&self, ordinal: u64) -> Result<Vec<u8>, TooLong> {
        let header = Header {
            ordinal,
            boot: self.boot,
            first: self.end,
            generations: self.generations.clone(),
        };
        let mut record = Vec::new();
        header.encode(&mut record)?;
        Ok(record)
    }

    fn write(&mut self, records: &mut [u8]) -> io::Result<()> {
        let chain = seal(records, self.tail.chain);
        self.storage.append(self.tail.side(), records)?;
        self.tail.chain = chain;
        self.tail.length += records.len() as u64;
        Ok(())
    }

    fn remove_mark(&mut self) -> io::Result<()> {
        self.storage.remove_mark()?;
        self.is_marked = false;
        Ok(())
    }

    /// Makes sure that no later start takes the files for the history, since something can't be written to them.
    /// Returns whether that worked; if not it may be tried again. A process that is killed in the middle leaves
    /// nothing, or all that was delivered until now, or its newer half.
    pub(super) fn invalidate(&mut self) -> bool {
        // The newest alone can be believed, the older alone can't: it must not be what is left.
        let newest = self.tail.side();
        let are_gone = self.make_nothing(newest.other()) && self.make_nothing(newest);
        are_gone || self.storage.forget_boot().is_ok()
    }

    fn make_nothing(&mut self, side: Side) -> bool {
        self.storage.truncate(side, 0).is_ok() || self.storage.remove(side).is_ok()
    }

    /// A clean end: all is made to last, and then the mark is set. Nothing is to be delivered any more.
    ///
    /// # Errors
    /// What was written may not last. A mark that can't be set is told in the log alone: the segments are whole
    /// without it.
    pub(super) fn close(&mut self) -> io::Result<()> {
        for side in Side::ALL {
            self.storage.sync(side)?;
        }
        self.is_marked = true;
        if let Err(error) = self.storage.write_mark(&self.tail.to_mark()) {
            log::warn!(
                "cannot mark the history on disk as complete, so it won't outlive a reboot: {error}"
            );
        }
        Ok(())
    }
}
