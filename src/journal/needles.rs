//! Needles: the fingerprints that a search looks for.
//!
//! Owns the sorts of fingerprints, and how a run of them is searched for any of a few needles, at vector speed,
//! or of many. Knows neither entries nor what a fingerprint stands for. Main type: [`Needles`].
//!
//! Invariant: whatever its form, a set finds the first fingerprint of a run that is among its needles.

/// The sorts of fingerprints. Those of one are compared with needles of the same one alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stream {
    /// Of what an entry is for as a whole.
    Page,
    /// Of the names that it has values under.
    Name,
    /// Of a name and a value.
    Pair,
    /// Of a value, under whatever name.
    Value,
}

impl Stream {
    /// How many sorts there are.
    pub(super) const COUNT: usize = 4;
}

/// What a search looks for: an entry that has one of these fingerprints.
#[derive(Debug)]
pub struct Needles {
    streams: [NeedleSet; Stream::COUNT],
    /// Sorted and distinct.
    pages: Vec<u32>,
    is_empty: bool,
}

impl Needles {
    /// Needles of all streams, in any order. An entry that has more fingerprints than are kept is found if one
    /// of `pages` is among those that it has in [`Stream::Page`].
    #[must_use]
    pub fn new(needles: Vec<(Stream, u32)>, pages: Vec<u32>) -> Self {
        // One sort of numbers, with the stream in front: the code of three takes as much room as all else here.
        let keyed = |stream: usize, needle: u32| (stream as u64) << 32 | u64::from(needle);
        let needles = needles.iter();
        let needles = needles.map(|&(stream, needle)| keyed(stream as usize, needle));
        let pages = pages.iter().map(|&page| keyed(Stream::COUNT, page));
        let mut all: Vec<_> = needles.chain(pages).collect();
        all.sort_unstable();
        all.dedup();
        let mut needles = Self {
            streams: <[NeedleSet; Stream::COUNT]>::default(),
            pages: Vec::new(),
            is_empty: true,
        };
        for chunk in all.chunk_by(|a, b| a >> 32 == b >> 32) {
            let of_stream = chunk.iter().map(|&keyed| keyed as u32).collect();
            let stream = (chunk[0] >> 32) as usize;
            if stream == Stream::COUNT {
                needles.pages = of_stream;
            } else {
                needles.streams[stream] = NeedleSet::new(of_stream);
                needles.is_empty = false;
            }
        }
        needles
    }

    /// Whether nothing is looked for.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.is_empty
    }

    /// Bytes asked of the heap.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let streams = self.streams.iter().map(NeedleSet::heap_bytes);
        self.pages.capacity() * size_of::<u32>() + streams.sum::<usize>()
    }

    /// The streams that have needles, each with these.
    pub(super) fn by_stream(&self) -> impl Iterator<Item = (usize, &NeedleSet)> {
        let streams = self.streams.iter().enumerate();
        streams.filter(|(_, needles)| !matches!(needles, NeedleSet::None))
    }

    /// Whether something is looked for on a page that one of `fingerprints` is of.
    pub(super) fn are_for_page(&self, fingerprints: &[u32]) -> bool {
        let mut fingerprints = fingerprints.iter();
        fingerprints.any(|fingerprint| self.pages.binary_search(fingerprint).is_ok())
    }
}

/// The needles of one stream, in the form in which they are found fastest. A few are repeated until the form
/// is full.
#[derive(Default, Debug)]
pub(super) enum NeedleSet {
    /// There are none.
    #[default]
    None,
    /// One or two, which most searches have.
    UpTo2([u32; 2]),
    /// Up to four.
    UpTo4([u32; 4]),
    /// Up to eight.
    UpTo8([u32; 8]),
    /// More.
    Many(ManyNeedles),
}

impl NeedleSet {
    /// A set of `needles`, which are sorted and distinct.
    fn new(needles: Vec<u32>) -> Self {
        match needles.len() {
            0 => Self::None,
            1..=2 => Self::UpTo2(repeated(&needles)),
            3..=4 => Self::UpTo4(repeated(&needles)),
            5..=8 => Self::UpTo8(repeated(&needles)),
            _ => Self::Many(ManyNeedles::new(needles)),
        }
    }

    /// Where in `fingerprints` the first needle is.
    pub(super) fn find(&self, fingerprints: &[u32]) -> Option<usize> {
        match self {
            Self::None => None,
            Self::UpTo2(needles) => find_few(fingerprints, needles),
            Self::UpTo4(needles) => find_few(fingerprints, needles),
            Self::UpTo8(needles) => find_few(fingerprints, needles),
            Self::Many(needles) => needles.find(fingerprints),
        }
    }

    const fn heap_bytes(&self) -> usize {
        match self {
            Self::Many(needles) => needles.heap_bytes(),
            _ => 0,
        }
    }
}

/// An array of `needles`, of which there is one at least.
fn repeated<const N: usize>(needles: &[u32]) -> [u32; N] {
    std::array::from_fn(|i| needles[i % needles.len()])
}

/// Fingerprints that are compared before it is asked whether there was a hit among them: the compiler makes
/// a few vector comparisons for each needle of it, without a branch.
const CHUNK: usize = 32;

fn find_few<const N: usize>(fingerprints: &[u32], needles: &[u32; N]) -> Option<usize> {
    let is_needle = |fingerprint: u32| {
        let needles = needles.iter();
        needles.fold(false, |hit, &needle| hit | (fingerprint == needle))
    };
    let (chunks, _) = fingerprints.as_chunks::<CHUNK>();
    let has_needle = |chunk: &[u32; CHUNK]| {
        let fingerprints = chunk.iter();
        fingerprints.fold(false, |hit, &fingerprint| hit | is_needle(fingerprint))
    };
    let chunk = chunks.iter().position(has_needle).unwrap_or(chunks.len());
    let start = chunk * CHUNK;
    let mut rest = fingerprints[start..].iter();
    let offset = rest.position(|&fingerprint| is_needle(fingerprint))?;
    Some(start + offset)
}

/// Too many needles to compare each fingerprint with all.
#[derive(Debug)]
pub(super) struct ManyNeedles {
    /// Distinct.
    sorted: Vec<u32>,
    /// A bit for the low bits of each needle, which few other fingerprints pass. A power of two.
    words: Vec<u64>,
}

/// Bits of the first check for each needle: one in so many other fingerprints passes it.
const NEEDLE_BITS: usize = 32;

/// Words at least, so that next to nothing passes if the needles are no more than some dozens.
const WORDS_MIN: usize = 128;

impl ManyNeedles {
    fn new(sorted: Vec<u32>) -> Self {
        let count = (sorted.len() * NEEDLE_BITS / 64).next_power_of_two();
        let mut words = vec![0; count.max(WORDS_MIN)];
        let mask = words.len() - 1;
        for &needle in &sorted {
            words[(needle as usize / 64) & mask] |= 1 << (needle % 64);
        }
        Self { sorted, words }
    }

    fn find(&self, fingerprints: &[u32]) -> Option<usize> {
        let mask = self.words.len() - 1;
        let is_needle = |fingerprint: &u32| {
            let word = self.words[(*fingerprint as usize / 64) & mask];
            (word >> (fingerprint % 64)) & 1 == 1 && self.sorted.binary_search(fingerprint).is_ok()
        };
        fingerprints.iter().position(is_needle)
    }

    const fn heap_bytes(&self) -> usize {
        self.sorted.capacity() * size_of::<u32>() + self.words.capacity() * size_of::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastrand::Rng;

    #[test]
    fn every_form_finds_what_a_plain_look_finds() {
        let mut random = Rng::with_seed(1);
        for count in [1, 2, 3, 4, 5, 8, 9, 100, 2048] {
            let mut needles: Vec<u32> = (0..count).map(|_| random.u32(..)).collect();
            needles.sort_unstable();
            needles.dedup();
            let set = NeedleSet::new(needles.clone());
            assert_eq!(matches!(set, NeedleSet::Many(_)), count > 8);
            for len in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5] {
                // Others share their low bits with a needle.
                let mut run: Vec<u32> = (0..len)
                    .map(|_| needles[random.usize(..needles.len())] ^ 1 << random.u32(16..32))
                    .collect();
                run.retain(|other| !needles.contains(other));
                assert_eq!(set.find(&run), None);
                for at in 0..run.len() {
                    let mut run = run.clone();
                    run[at..].fill(needles[random.usize(..needles.len())]);
                    assert_eq!(set.find(&run), Some(at), "of {count} in {len}");
                }
            }
        }
    }

    #[test]
    fn needles_are_those_of_their_stream() {
        let needles = vec![(Stream::Value, 7), (Stream::Page, 5), (Stream::Value, 7)];
        let needles = Needles::new(needles, vec![9, 3, 9]);
        assert!(!needles.is_empty());
        let found: Vec<_> = needles
            .by_stream()
            .map(|(stream, set)| (stream, set.find(&[5, 7])))
            .collect();
        assert_eq!(found, [(0, Some(0)), (3, Some(1))]);
        assert!(needles.are_for_page(&[4, 9]));
        assert!(!needles.are_for_page(&[5]));
        assert!(Needles::new(Vec::new(), Vec::new()).is_empty());
    }
}
