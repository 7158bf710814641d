//! Records: what a segment of the history on disk consists of, encoded and decoded.
//!
//! Knows no files. A record is
//!
//! ```text
//!   0        4               8       12
//!   | length | length check  | check | payload: a tag, and what it says
//! ```
//!
//! with integers in little endian. Both checks are the low half of SipHash-1-3, whose key is the one ahead: for the
//! check of the length the check of the record before, for that of the payload the check of the length. So
//! a record is only valid in its place, behind the very records that it was written behind. The length has a
//! check of its own because a length that is wrong must not look like a record that is cut off: the
//! latter is what a killed process leaves, the former a file that can't be believed.
//!
//! Records are encoded without their checks (`encode_entries` and its like), and `seal` puts these in when it is
//! known where the records go. `Records` decodes; it never panics and never allocates more than its input has,
//! whatever the bytes are.

use std::hash::Hasher;
use std::io;

use siphasher::sip::SipHasher13;

use super::id::{Generation, Position};

/// One notification as it is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoredEntry<'a> {
    /// When it was published, in microseconds since 1970.
    pub unix_micros: u64,
    /// What its publisher tells repetitions by; of 1 to 255 bytes.
    pub key: Option<&'a str>,
    /// The type of the notification, as JSON.
    pub kind: &'a str,
    /// The notification, byte for byte.
    pub notification: &'a str,
}

/// What tells one boot of the machine from another.
pub type BootMark = [u8; 16];

/// How many generations a segment names: those of the newest starts.
pub const GENERATIONS_MAX: usize = 64;

/// Bytes of the longest key.
pub(super) const KEY_BYTES_MAX: usize = u8::MAX as usize;

/// No log gets there; so counting on from a position can't overflow.
pub(super) const POSITION_MAX: Position = Position(1 << 60);

/// What the first record of a segment says: all that was so when the segment was begun.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Header {
    /// How many segments there were before; the newer of two has the greater.
    pub(super) ordinal: u64,
    /// In which boot it was written, where that was known.
    pub(super) boot: Option<BootMark>,
    /// The position ahead of its first entry.
    pub(super) first: Position,
    /// The generations that are known, oldest first, each with the first position that it was told at.
    pub(super) generations: Vec<(Generation, Position)>,
}

/// A start of the server that goes on in a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Start {
    pub(super) generation: Generation,
    /// The position of the newest entry at that time.
    pub(super) position: Position,
    pub(super) boot: Option<BootMark>,
}

/// What was published at once: one notification or an array of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entries<'a> {
    /// Of the first of them.
    pub(super) first: Position,
    pub(super) count: u32,
    /// Was found to have `count` entries and nothing else.
    bytes: &'a [u8],
}

/// A record that was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Record<'a> {
    Header(Header),
    Start(Start),
    Entries(Entries<'a>),
}

/// A record that is longer than a length can say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TooLong;

impl From<TooLong> for io::Error {
    fn from(_: TooLong) -> Self {
        Self::new(
            io::ErrorKind::FileTooLarge,
            "more was published at once than a record can have",
        )
    }
}

/// How the records of a segment end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ending {
    /// With the last byte.
    Whole,
    /// With the beginning of a record: what a process leaves that is killed while it writes.
    Torn,
    /// With what isn't a record: nothing of ours leaves that in a file that is to be believed.
    Corrupt,
}

/// What precedes the payload of a record.
const PREFIX_BYTES: usize = 12;

/// What the checks of a segment begin with; its first bytes are not all zero, then.
const FIRST_CHECK: u32 = 0x6372_6965;

// The first byte of a payload. The header's tag is the version of the format too.
const TAG_HEADER: u8 = 0x11;
const TAG_START: u8 = 2;
const TAG_ENTRIES: u8 = 3;

/// The check of the record ahead of a place, and so the place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Chain(pub(super) u32);

impl Chain {
    /// Ahead of the first record.
    pub(super) const FIRST: Self = Self(FIRST_CHECK);

    /// Behind `bytes` that follow.
    pub(super) fn then(self, bytes: &[u8]) -> Self {
        let mut hasher = SipHasher13::new_with_keys(u64::from(self.0), 0);
        hasher.write(bytes);
        Self(hasher.finish() as u32)
    }
}

impl Header {
    pub(super) fn encode(&self, buffer: &mut Vec<u8>) -> Result<(), TooLong> {
        encode(buffer, TAG_HEADER, |buffer| {
            buffer.extend_from_slice(&self.ordinal.to_le_bytes());
            put_boot(buffer, self.boot);
            buffer.extend_from_slice(&self.first.0.to_le_bytes());
            for (Generation(generation), Position(position)) in &self.generations {
                buffer.extend_from_slice(&generation.to_le_bytes());
                buffer.extend_from_slice(&position.to_le_bytes());
            }
        })
    }

    fn decode(mut bytes: &[u8]) -> Option<Self> {
        let bytes = &mut bytes;
        let ordinal = take_u64(bytes)?;
        let boot = take_boot(bytes)?;
        let first = take_position(bytes)?;
        let mut generations = Vec::new();
        while !bytes.is_empty() {
            let generation = Generation(take_u64(bytes)?);
            let position = take_position(bytes)?;
            generations.push((generation, position));
        }
        let is_valid = generations.len() <= GENERATIONS_MAX
            && generations.is_sorted_by_key(|(_, position)| *position)
            && generations.iter().all(|(_, position)| *position <= first);
        is_valid.then_some(Self {
            ordinal,
            boot,
            first,
            generations,
        })
    }
}

impl Start {
    pub(super) fn encode(&self, buffer: &mut Vec<u8>) -> Result<(), TooLong> {
        encode(buffer, TAG_START, |buffer| {
            buffer.extend_from_slice(&self.generation.0.to_le_bytes());
            buffer.extend_from_slice(&self.position.0.to_le_bytes());
            put_boot(buffer, self.boot);
        })
    }

    fn decode(mut bytes: &[u8]) -> Option<Self> {
        let bytes = &mut bytes;
        let start = Self {
            generation: Generation(take_u64(bytes)?),
            position: take_position(bytes)?,
            boot: take_boot(bytes)?,
        };
        bytes.is_empty().then_some(start)
    }
}

/// Appends one record to `buffer`, with all of `entries`, of which the first is at `first`. Returns how many
/// they are. No entries are no record.
pub(super) fn encode_entries<'a>(
    buffer: &mut Vec<u8>,
    first: Position,
    entries: impl Iterator<Item = StoredEntry<'a>>,
) -> Result<u32, TooLong> {
    let (start, mut count) = (buffer.len(), 0u32);
    let result = encode(buffer, TAG_ENTRIES, |buffer| {
        buffer.extend_from_slice(&first.0.to_le_bytes());
        let count_at = buffer.len();
        buffer.extend_from_slice(&[0; 4]);
        for entry in entries {
            put_entry(buffer, &entry);
            // An entry has bytes: with so many of them the length doesn't fit either.
            count = count.saturating_add(1);
        }
        buffer[count_at..count_at + 4].copy_from_slice(&count.to_le_bytes());
    });
    if count == 0 {
        buffer.truncate(start);
    }
    result.map(|()| count)
}

/// Appends a record with room for its checks; takes it back where it is too long.
fn encode(
    buffer: &mut Vec<u8>,
    tag: u8,
    payload: impl FnOnce(&mut Vec<u8>),
) -> Result<(), TooLong> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; PREFIX_BYTES]);
    buffer.push(tag);
    payload(buffer);
    let Ok(length) = u32::try_from(buffer.len() - start - PREFIX_BYTES) else {
        buffer.truncate(start);
        return Err(TooLong);
    };
    buffer[start..start + 4].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

/// A length that doesn't fit makes a record that is too long, which [`encode`] takes back.
fn put_entry(buffer: &mut Vec<u8>, entry: &StoredEntry) {
    let key = entry.key.unwrap_or_default();
    debug_assert!(key.len() <= KEY_BYTES_MAX && entry.key != Some(""));
    buffer.extend_from_slice(&entry.unix_micros.to_le_bytes());
    buffer.push(key.len() as u8);
    buffer.extend_from_slice(&(entry.kind.len() as u32).to_le_bytes());
    buffer.extend_from_slice(&(entry.notification.len() as u32).to_le_bytes());
    for text in [key, entry.kind, entry.notification] {
        buffer.extend_from_slice(text.as_bytes());
    }
}

fn put_boot(buffer: &mut Vec<u8>, boot: Option<BootMark>) {
    buffer.push(boot.is_some().into());
    buffer.extend_from_slice(&boot.unwrap_or_default());
}

/// Puts in the checks of all records in `bytes`, which go behind `chain`. Returns what the next go behind.
pub(super) fn seal(bytes: &mut [u8], mut chain: Chain) -> Chain {
    let mut rest = bytes;
    while let Some((prefix, behind)) = rest.split_first_chunk_mut::<PREFIX_BYTES>() {
        let (length, checks) = prefix.split_at_mut(4);
        let (length_check, check) = checks.split_at_mut(4);
        let (payload, next) = behind.split_at_mut(to_u32(length) as usize);
        chain = chain.then(length);
        length_check.copy_from_slice(&chain.0.to_le_bytes());
        chain = chain.then(payload);
        check.copy_from_slice(&chain.0.to_le_bytes());
        rest = next;
    }
    chain
}

/// Decodes the records of a segment from its start.
pub(super) struct Records<'a> {
    bytes: &'a [u8],
    /// Where the record ends that was returned last; at most `bytes.len()`.
    at: usize,
    /// Of that record.
    chain: Chain,
}

impl<'a> Records<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            chain: Chain::FIRST,
        }
    }

    /// How many bytes the records have that were returned so far.
    pub(super) fn len(&self) -> usize {
        self.at
    }

    pub(super) fn chain(&self) -> Chain {
        self.chain
    }

    /// The next record; or how they end, again and again.
    pub(super) fn next_record(&mut self) -> Result<Record<'a>, Ending> {
        let rest = &self.bytes[self.at..];
        if rest.is_empty() {
            return Err(Ending::Whole);
        }
        let Some((prefix, rest)) = rest.split_first_chunk::<PREFIX_BYTES>() else {
            return Err(Ending::Torn);
        };
        let chain = self.chain.then(&prefix[..4]);
        if chain.0 != to_u32(&prefix[4..8]) {
            return Err(Ending::Corrupt);
        }
        let length = to_u32(prefix) as usize;
        let payload = rest.get(..length).ok_or(Ending::Torn)?;
        let chain = chain.then(payload);
        if chain.0 != to_u32(&prefix[8..]) {
            return Err(Ending::Corrupt);
        }
        let record = decode_payload(payload).ok_or(Ending::Corrupt)?;
        self.at += PREFIX_BYTES + length;
        self.chain = chain;
        Ok(record)
    }
}

/// What a payload says, if it is one of ours.
fn decode_payload(payload: &[u8]) -> Option<Record<'_>> {
    let (tag, bytes) = payload.split_first()?;
    match *tag {
        TAG_HEADER => Header::decode(bytes).map(Record::Header),
        TAG_START => Start::decode(bytes).map(Record::Start),
        TAG_ENTRIES => Entries::decode(bytes).map(Record::Entries),
        _ => None,
    }
}

impl<'a> Entries<'a> {
    fn decode(mut bytes: &'a [u8]) -> Option<Self> {
        let first = take_position(&mut bytes)?;
        let count = to_u32(take(&mut bytes, 4)?);
        let entries = Self {
            first,
            count,
            bytes,
        };
        // Each takes at least a byte: what is counted is bounded by the input.
        for _ in 0..count {
            take_entry(&mut bytes)?;
        }
        (count > 0 && first > Position(0) && bytes.is_empty()).then_some(entries)
    }

    /// The position of the last of them.
    pub(super) fn last(&self) -> Position {
        Position(self.first.0 + u64::from(self.count) - 1)
    }

    /// In the order in which they were published.
    pub(super) fn iter(&self) -> impl Iterator<Item = StoredEntry<'a>> + use<'a> {
        let mut bytes = self.bytes;
        std::iter::from_fn(move || take_entry(&mut bytes))
    }
}

fn take_entry<'a>(bytes: &mut &'a [u8]) -> Option<StoredEntry<'a>> {
    let unix_micros = take_u64(bytes)?;
    let key_len = take(bytes, 1)?[0];
    let kind_len = to_u32(take(bytes, 4)?);
    let notification_len = to_u32(take(bytes, 4)?);
    let mut text = |len: usize| std::str::from_utf8(take(bytes, len)?).ok();
    let key = text(key_len.into())?;
    Some(StoredEntry {
        unix_micros,
        key: (!key.is_empty()).then_some(key),
        kind: text(kind_len as usize)?,
        notification: text(notification_len as usize)?,
    })
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(taken)
}

fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*taken))
}

fn take_position(bytes: &mut &[u8]) -> Option<Position> {
    let position = Position(take_u64(bytes)?);
    (position <= POSITION_MAX).then_some(position)
}

/// `None` is a boot that can't be read, `Some(None)` one that was unknown.
#[allow(clippy::option_option)]
fn take_boot(bytes: &mut &[u8]) -> Option<Option<BootMark>> {
    let is_known = take(bytes, 1)?[0];
    let (mark, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    match is_known {
        0 => Some(None),
        1 => Some(Some(*mark)),
        _ => None,
    }
}

/// Of the first four bytes, which the caller has seen to.
fn to_u32(bytes: &[u8]) -> u32 {
    bytes
        .first_chunk()
        .map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry<'a>(key: Option<&'a str>, notification: &'a str) -> StoredEntry<'a> {
        StoredEntry {
            unix_micros: 1_700_000_000_000_001,
            key,
            kind: "\"notification\"",
            notification,
        }
    }

    fn header() -> Header {
        let generations = (0..GENERATIONS_MAX as u64).map(|at| (Generation(!at), Position(at)));
        Header {
            ordinal: 7,
            boot: Some([9; 16]),
            first: Position(63),
            generations: generations.collect(),
        }
    }

    const START: Start = Start {
        generation: Generation(5),
        position: Position(63),
        boot: None,
    };

    /// A segment with a record of each sort, sealed; and where each ends.
    fn segment() -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        let mut note = |bytes: &Vec<u8>| ends.push(bytes.len());
        header().encode(&mut bytes).expect("short");
        note(&bytes);
        START.encode(&mut bytes).expect("short");
        note(&bytes);
        let entries = [entry(None, "{}"), entry(Some("k"), "[\"é\"]")];
        let count = encode_entries(&mut bytes, Position(64), entries.into_iter());
        assert_eq!(count, Ok(2));
        note(&bytes);
        START.encode(&mut bytes).expect("short");
        note(&bytes);
        seal(&mut bytes, Chain::FIRST);
        (bytes, ends)
    }

    /// Where the whole records end, and how.
    fn read(bytes: &[u8]) -> (usize, Ending) {
        let mut records = Records::new(bytes);
        loop {
            if let Err(ending) = records.next_record() {
                return (records.len(), ending);
            }
        }
    }

    #[test]
    fn records_are_read_as_they_were_written() {
        let (bytes, _) = segment();
        let mut records = Records::new(&bytes);
        assert_eq!(records.next_record(), Ok(Record::Header(header())));
        assert_eq!(records.next_record(), Ok(Record::Start(START)));
        let Ok(Record::Entries(entries)) = records.next_record() else {
            panic!("entries");
        };
        assert_eq!(
            (entries.first, entries.last()),
            (Position(64), Position(65))
        );
        let texts = [entry(None, "{}"), entry(Some("k"), "[\"é\"]")];
        assert_eq!(entries.iter().collect::<Vec<_>>(), texts);
        assert_eq!(records.next_record(), Ok(Record::Start(START)));
        assert_eq!(records.next_record(), Err(Ending::Whole));
        assert_eq!(records.next_record(), Err(Ending::Whole));
    }

    #[test]
    fn a_segment_that_is_cut_off_anywhere_is_torn_behind_whole_records() {
        let (bytes, ends) = segment();
        for cut in 0..=bytes.len() {
            let whole = ends.iter().rev().find(|end| **end <= cut).copied();
            let ending = [Ending::Torn, Ending::Whole][usize::from(whole.unwrap_or(0) == cut)];
            assert_eq!(read(&bytes[..cut]), (whole.unwrap_or(0), ending), "{cut}");
        }
    }

    #[test]
    fn a_bit_that_is_wrong_is_never_taken_for_a_cut() {
        let (bytes, ends) = segment();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let whole = ends.iter().rev().find(|end| **end <= bit / 8).copied();
            assert_eq!(read(&damaged), (whole.unwrap_or(0), Ending::Corrupt));
        }
        assert_eq!(read(&[0; 100]), (0, Ending::Corrupt));
    }

    #[test]
    fn a_record_is_valid_in_its_place_only() {
        let (bytes, ends) = segment();
        // Without the second, and with the third twice.
        let without = [&bytes[..ends[0]], &bytes[ends[1]..]].concat();
        assert_eq!(read(&without), (ends[0], Ending::Corrupt));
        let twice = [&bytes[..ends[2]], &bytes[ends[1]..]].concat();
        assert_eq!(read(&twice), (ends[2], Ending::Corrupt));
    }

    #[test]
    fn what_is_not_ours_is_refused_behind_valid_checks_too() {
        let entries = |count: u32, rest: &[u8]| {
            let first = 1u64.to_le_bytes();
            [&[TAG_ENTRIES], &first[..], &count.to_le_bytes(), rest].concat()
        };
        let texts = |key: u8, kind: u32, notification: u32, rest: &[u8]| {
            let lengths = [kind.to_le_bytes(), notification.to_le_bytes()].concat();
            entries(1, &[&[0; 8][..], &[key], &lengths, rest].concat())
        };
        assert!(decode_payload(&texts(1, 1, 1, b"kab")).is_some());
        for payload in [
            vec![],
            vec![0],
            vec![TAG_HEADER; 9],
            vec![TAG_START; 9],
            entries(0, b""),
            entries(u32::MAX, b""),
            texts(1, 1, 1, b"ka"),
            texts(1, 1, 1, b"kabc"),
            texts(1, 1, 1, b"ka\xff"),
            texts(0, u32::MAX, u32::MAX, b""),
            [&[TAG_ENTRIES], &[0xff; 12][..]].concat(),
        ] {
            assert_eq!(decode_payload(&payload), None, "{payload:?}");
        }
    }

    #[test]
    fn a_header_names_generations_in_order_and_not_too_many() {
        let refused = |header: Header| {
            let mut bytes = Vec::new();
            header.encode(&mut bytes).expect("short");
            seal(&mut bytes, Chain::FIRST);
            assert_eq!(read(&bytes), (0, Ending::Corrupt));
        };
        let mut many = header();
        many.generations.push((Generation(1), Position(63)));
        refused(many);
        let mut unordered = header();
        unordered.generations.swap(3, 4);
        refused(unordered);
        let first = Position(62);
        refused(Header { first, ..header() });
        let first = Position(POSITION_MAX.0 + 1);
        refused(Header { first, ..header() });
    }

    #[test]
    fn no_entries_are_no_record() {
        let mut bytes = b"before".to_vec();
        let count = encode_entries(&mut bytes, Position(1), std::iter::empty());
        assert_eq!((count, bytes), (Ok(0), b"before".to_vec()));
    }
}
