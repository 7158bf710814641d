//! The column: beside each entry of the history, what it is found by.
//!
//! Owns a few 32-bit fingerprints an entry, in a stream for each sort, and the search for the next entry that
//! has one of some needles. It doesn't know what a fingerprint stands for: whoever makes both sides sees to it
//! that what matches has a fingerprint in common. So a hit may be false, and has to be confirmed; a miss is
//! certain. Main types: [`Column`], [`Fingerprints`] (what goes in) and [`Needles`] (what is looked for).
//!
//! ```text
//! entry            0     1        2     3 (has too many)
//! starts of Pair   0     1        3     4
//! stream Pair    [ a ] [ b c ]  [ d ]  [ ]       a needle only meets its own stream, as one run of numbers
//! ```
//!
//! Invariants: all blocks but the last are full; in each stream the starts of a block ascend and none is
//! beyond its end; an entry with more fingerprints than [`ENTRY_STREAM_MAX`] in a stream is found by those of
//! `Page` alone, by whoever looks for anything on that page, and is in the list of its block.

use std::collections::VecDeque;

use super::needles::{Needles, Stream};

/// How many sorts of fingerprints there are.
const STREAMS: usize = Stream::COUNT;

/// Entries a block.
const BLOCK_ENTRIES: usize = 1024;

/// Entries that a search looks at first. Twice as many follow, and so on.
const STRIDE_MIN: usize = 32;

/// Fingerprints that an entry may have in a stream. A block's offsets fit in 16 bits so.
pub const ENTRY_STREAM_MAX: usize = 64;

const _: () = assert!((BLOCK_ENTRIES - 1) * ENTRY_STREAM_MAX <= u16::MAX as usize);

/// Where the fingerprints of an entry begin, in each stream of its block.
type Starts = [u16; STREAMS];

/// What one entry is found by; to be used again for the next one, so that it needn't allocate.
#[derive(Default, Debug)]
pub struct Fingerprints {
    streams: [Vec<u32>; STREAMS],
    has_too_many: bool,
}

impl Fingerprints {
    /// Empties it, for another entry.
    pub fn clear(&mut self) {
        self.streams.iter_mut().for_each(Vec::clear);
        self.has_too_many = false;
    }

    /// The entry is found by `fingerprint` too.
    ///
    /// # Panics
    /// It has too many in [`Stream::Page`], which must be complete.
    pub fn push(&mut self, stream: Stream, fingerprint: u32) {
        let fingerprints = &mut self.streams[stream as usize];
        if fingerprints.len() == ENTRY_STREAM_MAX {
            assert_ne!(stream, Stream::Page, "an entry is for a few things");
            self.has_too_many = true;
        } else {
            fingerprints.push(fingerprint);
        }
    }

    /// Whether there are more than are kept. More of them change nothing then: every search for something that
    /// has a page in common with the entry finds it.
    #[must_use]
    pub const fn has_too_many(&self) -> bool {
        self.has_too_many
    }

    /// What of `stream` is kept.
    fn kept(&self, stream: usize) -> &[u32] {
        let is_kept = !self.has_too_many || stream == Stream::Page as usize;
        if is_kept { &self.streams[stream] } else { &[] }
    }
}

/// What a search came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Search {
    /// The entry with this index may match; none between it and where the search began does.
    Hit(usize),
    /// No entry ahead of this index matches, from where the search began. It is the length when the search is
    /// through.
    LookedTo(usize),
}

/// The fingerprints of a row of entries, which come at the back and go at the front. An index counts from
/// the oldest that is there.
#[derive(Default, Debug)]
pub struct Column {
    blocks: VecDeque<Block>,
    /// Entries of the first block that are gone; fewer than it has.
    popped: usize,
}

impl Column {
    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        let Some(last) = self.blocks.back() else {
            return 0;
        };
        (self.blocks.len() - 1) * BLOCK_ENTRIES + last.len() - self.popped
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Adds an entry at the back, and says how many bytes it is to be charged for here. What all entries are
    /// charged for covers [`Self::heap_bytes`] but for what a block may have to spare at either end.
    pub fn push(&mut self, fingerprints: &Fingerprints) -> usize {
        if self.blocks.back().is_none_or(Block::is_full) {
            self.blocks.push_back(Block::default());
        }
        let at = self.blocks.len() - 1;
        self.blocks[at].push(fingerprints)
    }

    /// Removes the entry at the front, and says how many bytes [`Self::push`] had charged for it; `None` if
    /// there is no entry.
    pub fn pop_front(&mut self) -> Option<usize> {
        let block = self.blocks.front()?;
        let bytes = block.charged_bytes(self.popped);
        self.popped += 1;
        if self.popped == block.len() {
            self.blocks.pop_front();
            self.popped = 0;
        }
        Some(bytes)
    }

    /// Bytes asked of the heap.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let blocks = self.blocks.iter().map(Block::heap_bytes);
        self.blocks.capacity() * size_of::<Block>() + blocks.sum::<usize>()
    }

    /// Looks for an entry that may match among `entries_max`, beginning with the one at `from`.
    #[must_use]
    pub fn search(&self, needles: &Needles, from: usize, entries_max: usize) -> Search {
        let len = self.len();
        if needles.is_empty() {
            return Search::LookedTo(len);
        }
        let to = len.min(from.saturating_add(entries_max)) + self.popped;
        let mut at = from.min(len) + self.popped;
        // One stream may hit early and another never: little of it is looked through in vain for each hit.
        let mut stride = STRIDE_MIN;
        while at < to {
            let (block, first) = (at / BLOCK_ENTRIES, at % BLOCK_ENTRIES);
            let end = to.min((block + 1) * BLOCK_ENTRIES).min(at + stride);
            stride = BLOCK_ENTRIES.min(2 * stride);
            let last = first + (end - at);
            if let Some(hit) = self.blocks[block].find(needles, first, last) {
                return Search::Hit(block * BLOCK_ENTRIES + hit - self.popped);
            }
            at = end;
        }
        Search::LookedTo(to - self.popped)
    }

    /// Asserts what must hold between two calls.
    pub fn check_invariants(&self) {
        let ahead_of_last = self.blocks.len().saturating_sub(1);
        assert!(self.blocks.iter().take(ahead_of_last).all(Block::is_full));
        match self.blocks.front() {
            Some(front) => assert!(self.popped < front.len()),
            None => assert_eq!(self.popped, 0),
        }
        self.blocks.iter().for_each(Block::check_invariants);
    }
}

/// Entries that are kept, and go, together.
#[derive(Default, Debug)]
struct Block {
    starts: Vec<Starts>,
    streams: [Vec<u32>; STREAMS],
    /// The entries that have too many fingerprints, ascending.
    rich: Vec<u16>,
}

impl Block {
    const fn len(&self) -> usize {
        self.starts.len()
    }

    const fn is_full(&self) -> bool {
        self.len() == BLOCK_ENTRIES
    }

    fn push(&mut self, fingerprints: &Fingerprints) -> usize {
        let entry = self.len();
        let starts = self.streams.each_ref().map(|stream| stream.len() as u16);
        self.starts.push(starts);
        for (number, stream) in self.streams.iter_mut().enumerate() {
            stream.extend_from_slice(fingerprints.kept(number));
        }
        if fingerprints.has_too_many() {
            self.rich.push(entry as u16);
        }
        if self.is_full() {
            self.starts.shrink_to_fit();
            self.streams.iter_mut().for_each(Vec::shrink_to_fit);
            self.rich.shrink_to_fit();
        }
        self.charged_bytes(entry)
    }

    /// What the fingerprints of `entry` take, and what leads to them.
    fn charged_bytes(&self, entry: usize) -> usize {
        let fingerprints = (0..STREAMS).map(|stream| {
            let (start, end) = (self.start(stream, entry), self.start(stream, entry + 1));
            (end - start) * size_of::<u32>()
        });
        let is_rich = self.rich.binary_search(&(entry as u16)).is_ok();
        size_of::<Starts>() + fingerprints.sum::<usize>() + usize::from(is_rich) * size_of::<u16>()
    }

    fn heap_bytes(&self) -> usize {
        let fingerprints: usize = self.streams.iter().map(Vec::capacity).sum();
        self.starts.capacity() * size_of::<Starts>()
            + fingerprints * size_of::<u32>()
            + self.rich.capacity() * size_of::<u16>()
    }

    /// Where the fingerprints of `entry` begin, which may be the one behind the last.
    fn start(&self, stream: usize, entry: usize) -> usize {
        let starts = self.starts.get(entry);
        starts.map_or(self.streams[stream].len(), |starts| starts[stream].into())
    }

    /// Which entry the fingerprint at `offset` is of.
    fn entry_at(&self, stream: usize, offset: usize) -> usize {
        let is_ahead = |starts: &Starts| usize::from(starts[stream]) <= offset;
        self.starts.partition_point(is_ahead) - 1
    }

    /// The first entry from `first` up to `last`, exclusive, that may match.
    fn find(&self, needles: &Needles, first: usize, last: usize) -> Option<usize> {
        let mut end = last;
        for (stream, needles) in needles.by_stream() {
            let start = self.start(stream, first);
            let fingerprints = &self.streams[stream][start..self.start(stream, end)];
            if let Some(offset) = needles.find(fingerprints) {
                end = self.entry_at(stream, start + offset);
            }
        }
        let rich = self
            .rich
            .partition_point(|&entry| usize::from(entry) < first);
        let rich = self.rich[rich..].iter().map(|&entry| usize::from(entry));
        let is_for = |&entry: &usize| {
            let page = Stream::Page as usize;
            let range = self.start(page, entry)..self.start(page, entry + 1);
            needles.are_for_page(&self.streams[page][range])
        };
        let mut rich = rich.take_while(|&entry| entry < end).filter(is_for);
        rich.next().or_else(|| (end < last).then_some(end))
    }

    fn check_invariants(&self) {
        assert!(!self.starts.is_empty() && self.len() <= BLOCK_ENTRIES);
        assert!(self.rich.is_sorted() && self.rich.iter().all(|&at| usize::from(at) < self.len()));
        for stream in 0..STREAMS {
            let starts = (0..=self.len()).map(|entry| self.start(stream, entry));
            assert!(starts.is_sorted() && self.start(stream, 0) == 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprints(of: &[(Stream, u32)]) -> Fingerprints {
        let mut fingerprints = Fingerprints::default();
        of.iter()
            .for_each(|&(stream, fingerprint)| fingerprints.push(stream, fingerprint));
        fingerprints
    }

    fn rich(page: u32) -> Fingerprints {
        let values = (0..=ENTRY_STREAM_MAX as u32).map(|value| (Stream::Value, value));
        let all: Vec<_> = values.chain([(Stream::Page, page)]).collect();
        fingerprints(&all)
    }

    fn needles(of: &[(Stream, u32)]) -> Needles {
        Needles::new(of.to_vec(), Vec::new())
    }

    #[test]
    fn entries_are_found_across_blocks_and_after_some_are_gone() {
        let mut column = Column::default();
        let numbers = 3 * BLOCK_ENTRIES as u32 + 17;
        for number in 0..numbers {
            column.push(&fingerprints(&[(Stream::Value, number), (Stream::Name, 1)]));
        }
        for gone in 0..numbers {
            assert_eq!(column.len(), (numbers - gone) as usize);
            for ahead in [0, 1, 1023, 1024, 2000] {
                let number = gone + ahead;
                let needles = needles(&[(Stream::Value, number)]);
                let index = ahead as usize;
                let found = column.search(&needles, 0, usize::MAX);
                if number >= numbers {
                    assert_eq!(found, Search::LookedTo(column.len()));
                    continue;
                }
                assert_eq!(found, Search::Hit(index));
                assert_eq!(column.search(&needles, index, 1), Search::Hit(index));
                assert_eq!(column.search(&needles, 0, index), Search::LookedTo(index));
                let behind = column.search(&needles, index + 1, usize::MAX);
                assert_eq!(behind, Search::LookedTo(column.len()));
            }
            assert!(column.pop_front().is_some());
            column.check_invariants();
        }
        assert_eq!((column.len(), column.pop_front()), (0, None));
        let needles = needles(&[(Stream::Name, 1)]);
        assert_eq!(column.search(&needles, 0, 1), Search::LookedTo(0));
        assert_eq!(column.search(&needles, 9, 1), Search::LookedTo(0));
    }

    #[test]
    fn of_several_needles_the_first_entry_counts() {
        let mut column = Column::default();
        for entry in [
            &[(Stream::Page, 1), (Stream::Pair, 2)][..],
            &[],
            &[(Stream::Page, 7)],
            &[(Stream::Value, 7), (Stream::Value, 8)],
            &[],
        ] {
            column.push(&fingerprints(entry));
        }
        let needles = needles(&[(Stream::Value, 8), (Stream::Page, 7), (Stream::Pair, 7)]);
        for (from, found) in [
            (0, Search::Hit(2)),
            (2, Search::Hit(2)),
            (3, Search::Hit(3)),
            (4, Search::LookedTo(5)),
        ] {
            assert_eq!(column.search(&needles, from, usize::MAX), found);
        }
    }

    #[test]
    fn an_entry_with_too_many_is_found_by_its_page() {
        let mut column = Column::default();
        let as_many: Vec<_> = (0..ENTRY_STREAM_MAX as u32)
            .map(|value| (Stream::Value, value))
            .collect();
        column.push(&fingerprints(&as_many));
        for page in [4, 5, 5] {
            column.push(&rich(page));
        }
        let needles = |pages: &[u32]| Needles::new(vec![(Stream::Pair, 1)], pages.to_vec());
        for (pages, from, found) in [
            (&[5][..], 0, Search::Hit(2)),
            (&[5], 3, Search::Hit(3)),
            (&[6, 4], 0, Search::Hit(1)),
            (&[4], 2, Search::LookedTo(4)),
            (&[], 0, Search::LookedTo(4)),
        ] {
            assert_eq!(column.search(&needles(pages), from, usize::MAX), found);
        }
        let nothing = Needles::new(Vec::new(), vec![4, 5]);
        assert_eq!(column.search(&nothing, 0, 1), Search::LookedTo(4));
    }

    #[test]
    fn what_is_charged_covers_what_is_used_but_for_two_blocks() {
        let typical = [
            (Stream::Page, 1),
            (Stream::Name, 2),
            (Stream::Pair, 3),
            (Stream::Value, 4),
        ];
        let typical = fingerprints(&typical);
        for (entry, each) in [
            (&typical, 24),
            (&Fingerprints::default(), 8),
            (&rich(1), 14),
        ] {
            let mut column = Column::default();
            let mut charged = 0;
            let spare = 2 * (BLOCK_ENTRIES * each + size_of::<Block>());
            for count in 0..40_000 {
                charged += column.push(entry);
                if count >= 20_000 {
                    charged -= column.pop_front().expect("there are entries");
                }
                assert_eq!(charged, column.len() * each);
                let blocks = column.blocks.capacity() * size_of::<Block>();
                assert!(column.heap_bytes() - blocks <= charged + spare);
                assert!(blocks <= 64 * size_of::<Block>());
            }
        }
        let mut full = Column::default();
        for _ in 0..2 * BLOCK_ENTRIES {
            full.push(&typical);
        }
        let blocks = full.blocks.capacity() * size_of::<Block>();
        assert_eq!(
            full.heap_bytes() - blocks,
            full.len() * 24,
            "nothing to spare"
        );
    }
}
