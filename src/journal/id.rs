//! Ids: positions in the log, as clients and publishers see them (protocol 6.1, 8).
//!
//! Without Redis an id is the generation of the process that gave it and a position in the log. Each start draws a
//! generation of its own, so no id is given twice, whatever the clock does and however often the server restarts. With
//! Redis it is the id that the stream gave to the entry, and a tag: after a failover a stream may give an id once more,
//! but to an entry that says something else. Main types: [`EntryId`], [`StreamId`].
//!
//! Invariant: an id has one text, of at most [`ID_BYTES_MAX`] bytes, and a text is one id's.

use std::fmt;
use std::hash::Hasher;
use std::str::FromStr;

use siphasher::sip::SipHasher13;

use crate::handover::{Fields, Malformed, Members};

/// What tells the ids of one start of the server from those of another; random.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Generation(pub u64);

/// A position in the log: how many notifications were kept up to here, in this generation and in those that
/// it goes on from. The entry at position 1 is the first; 0 is ahead of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Position(pub u64);

impl Position {
    /// The one behind it.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// An entry of a stream: its id in Redis, and what tells it from another that was given the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct StreamId {
    // Together they have no more than `PLACE_DIGITS` decimal digits.
    millis: u64,
    sequence: u64,
    tag: u64,
}

/// What a position is called, or the entry at it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntryId {
    /// A position and the generation that it was told in: `0123456789abcdef-42`.
    Own {
        /// Of the process that gave it.
        generation: Generation,
        /// In the log.
        position: Position,
    },
    /// An entry of a stream: `1795702284393-0-0123456789abcdef`.
    Stream(StreamId),
}

/// Hexadecimal digits of a generation, and of a tag.
const HEX_DIGITS: usize = 16;

/// Decimal digits of the largest position.
const POSITION_DIGITS: usize = 20;

/// Decimal digits of an entry's id in Redis, both numbers together. Times have 13 until 2286, so a thousand million entries
/// a millisecond have room; but whoever adds an entry by hand may give it a longer one.
const PLACE_DIGITS: usize = 22;

/// Bytes of the longest id of our own.
pub(super) const OWN_ID_BYTES_MAX: usize = HEX_DIGITS + 1 + POSITION_DIGITS;

/// Bytes of the longest id.
pub const ID_BYTES_MAX: usize = PLACE_DIGITS + 2 + HEX_DIGITS;

const _: () = assert!(OWN_ID_BYTES_MAX <= ID_BYTES_MAX);

/// A text that isn't one of our ids.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnknownId;

/// The text of an id, put together without a look at how it is to be formatted: it goes into each receipt and each
/// numbered delivery.
#[derive(Clone, Copy, Debug)]
pub struct IdText {
    bytes: [u8; ID_BYTES_MAX],
    start: u8,
}

impl StreamId {
    /// Ahead of all; Redis never gives it.
    pub const NONE: Self = Self {
        millis: 0,
        sequence: 0,
        tag: 0,
    };

    /// The entry that Redis calls `millis-sequence`, milliseconds since 1970 and a number among those of one of them.
    /// `tag` is [`tag_of`] its fields.
    ///
    /// # Errors
    /// The two have so many digits that the text would be too long for an id.
    pub fn new(millis: u64, sequence: u64, tag: u64) -> Result<Self, UnknownId> {
        let digits = |number: u64| number.checked_ilog10().unwrap_or(0) as usize + 1;
        let id = Self {
            millis,
            sequence,
            tag,
        };
        let fits = digits(millis) + digits(sequence) <= PLACE_DIGITS;
        fits.then_some(id).ok_or(UnknownId)
    }

    /// The entry whose id in Redis is `text`. `tag` is [`tag_of`] its fields.
    ///
    /// # Errors
    /// It is none, or is too long.
    pub fn of_entry(text: &str, tag: u64) -> Result<Self, UnknownId> {
        let (millis, sequence) = text.split_once('-').ok_or(UnknownId)?;
        Self::new(read_decimal(millis)?, read_decimal(sequence)?, tag)
    }

    /// Where it stands in the stream: milliseconds since 1970, and a number among those of one of them. On one branch
    /// of a stream they ascend.
    #[must_use]
    pub const fn place(self) -> (u64, u64) {
        (self.millis, self.sequence)
    }

    /// What tells it from another in the same place of another branch.
    #[must_use]
    pub const fn tag(self) -> u64 {
        self.tag
    }

    /// Writes it into a state.
    pub fn save(self, member: u8, members: &mut Members<'_>) {
        let Self {
            millis,
            sequence,
            tag,
        } = self;
        members.numbers(member, &[millis, sequence, tag]);
    }

    /// The id that was saved into a member, or that there is none.
    ///
    /// # Errors
    /// It isn't whole, or too long.
    pub fn saved(member: u8, fields: &Fields<'_>) -> Result<Option<Self>, Malformed> {
        if fields.bytes(member).is_empty() {
            return Ok(None);
        }
        let mut numbers = fields.numbers(member);
        let mut next = || {
            numbers
                .next()
                .ok_or(Malformed("an id of a stream is cut off"))
        };
        let (millis, sequence, tag) = (next()?, next()?, next()?);
        let id = Self::new(millis, sequence, tag);
        id.map(Some)
            .map_err(|_| Malformed("an id of a stream is too long"))
    }
}

/// The tag of an entry that has these fields, each a name and a value, in the order in which the stream has them. It is
/// the same at all nodes, and in all versions of this program.
pub fn tag_of<'a>(fields: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(TAG_KEY, 0);
    for (name, value) in fields {
        for bytes in [name, value] {
            // Redis has no longer ones.
            let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            hasher.write(&len.to_le_bytes());
            hasher.write(bytes);
        }
    }
    hasher.finish()
}

/// It needn't be secret: who may add entries to the stream may publish anyway.
const TAG_KEY: u64 = 0x6372_6965_7572_0001;

impl EntryId {
    /// Its text.
    #[must_use]
    pub fn text(&self) -> IdText {
        // From the end, with the dashes already in their places.
        let mut bytes = [b'-'; ID_BYTES_MAX];
        let start = match *self {
            Self::Own {
                generation: Generation(generation),
                position: Position(position),
            } => {
                let dash = put_decimal(&mut bytes, ID_BYTES_MAX, position) - 1;
                put_hexadecimal(&mut bytes, dash, generation)
            }
            Self::Stream(StreamId {
                millis,
                sequence,
                tag,
            }) => {
                let dash = put_hexadecimal(&mut bytes, ID_BYTES_MAX, tag) - 1;
                let dash = put_decimal(&mut bytes, dash, sequence) - 1;
                put_decimal(&mut bytes, dash, millis)
            }
        };
        let start = start as u8;
        IdText { bytes, start }
    }
}

/// Puts a number ahead of `end`; returns where it starts.
fn put_decimal(bytes: &mut [u8; ID_BYTES_MAX], end: usize, mut number: u64) -> usize {
    let mut start = end;
    loop {
        start -= 1;
        bytes[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return start;
        }
    }
}

/// The same with all digits of a hexadecimal number.
fn put_hexadecimal(bytes: &mut [u8; ID_BYTES_MAX], end: usize, number: u64) -> usize {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let start = end - HEX_DIGITS;
    let digits = bytes[start..end].chunks_exact_mut(2);
    for (digits, byte) in digits.zip(number.to_be_bytes()) {
        digits[0] = HEX[usize::from(byte >> 4)];
        digits[1] = HEX[usize::from(byte & 15)];
    }
    start
}

impl IdText {
    /// The text as bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start as usize..]
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // It is ASCII.
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text().as_str())
    }
}

impl FromStr for EntryId {
    type Err = UnknownId;

    /// Reads an id as it was written: there is one text for each.
    fn from_str(text: &str) -> Result<Self, UnknownId> {
        let (ahead, last) = text.rsplit_once('-').ok_or(UnknownId)?;
        if ahead.contains('-') {
            let id = StreamId::of_entry(ahead, read_hexadecimal(last)?)?;
            return Ok(Self::Stream(id));
        }
        Ok(Self::Own {
            generation: Generation(read_hexadecimal(ahead)?),
            position: Position(read_decimal(last)?),
        })
    }
}

/// Reads a number that has all of its digits, in lower case.
fn read_hexadecimal(text: &str) -> Result<u64, UnknownId> {
    let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != HEX_DIGITS || !text.bytes().all(is_digit) {
        return Err(UnknownId);
    }
    u64::from_str_radix(text, 16).map_err(|_| UnknownId)
}

/// Reads a number without a sign and without zeros ahead of it.
fn read_decimal(text: &str) -> Result<u64, UnknownId> {
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_decimal || (text.starts_with('0') && text != "0") {
        return Err(UnknownId);
    }
    text.parse().map_err(|_| UnknownId)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<EntryId, UnknownId> {
        text.parse()
    }

    #[test]
    fn an_id_has_one_text() {
        for (generation, position, text) in [
            (0, 0, "0000000000000000-0"),
            (0x0123_4567_89ab_cdef, 42, "0123456789abcdef-42"),
            (u64::MAX, u64::MAX, "ffffffffffffffff-18446744073709551615"),
        ] {
            let id = EntryId::Own {
                generation: Generation(generation),
                position: Position(position),
            };
            assert_eq!(id.to_string(), text);
            assert_eq!(parse(text), Ok(id));
            assert!(text.len() <= OWN_ID_BYTES_MAX);
        }
        for text in [
            "",
            "-",
            "0123456789abcdef",
            "0123456789abcdef-",
            "0123456789abcdef-042",
            "0123456789abcdef-+4",
            "0123456789abcdef- 4",
            "0123456789abcdef-18446744073709551616",
            "0123456789ABCDEF-4",
            "123456789abcdef-4",
            "+123456789abcdef-4",
            "0123456789abcdef-4-",
            "0123456789abcdeé-4",
        ] {
            assert_eq!(parse(text), Err(UnknownId), "{text}");
        }
    }

    #[test]
    fn an_id_of_a_stream_has_one_text() {
        for (millis, sequence, tag, text) in [
            (0, 0, 0, "0-0-0000000000000000"),
            (1, 0, 0xa, "1-0-000000000000000a"),
            // It has as many digits as a generation.
            (
                1_234_567_890_123_456,
                7,
                1,
                "1234567890123456-7-0000000000000001",
            ),
            (
                1_795_702_284_393,
                10,
                0x0123_4567_89ab_cdef,
                "1795702284393-10-0123456789abcdef",
            ),
            (
                9_999_999_999_999,
                999_999_999,
                u64::MAX,
                "9999999999999-999999999-ffffffffffffffff",
            ),
            (u64::MAX, 99, 5, "18446744073709551615-99-0000000000000005"),
            (10, u64::MAX, 5, "10-18446744073709551615-0000000000000005"),
        ] {
            let id = StreamId::new(millis, sequence, tag).expect("short enough");
            assert_eq!((id.place(), id.tag()), ((millis, sequence), tag));
            assert_eq!(EntryId::Stream(id).to_string(), text);
            assert_eq!(parse(text), Ok(EntryId::Stream(id)));
            assert!(text.len() <= 40);
            let of_redis = format!("{millis}-{sequence}");
            assert_eq!(StreamId::of_entry(&of_redis, tag), Ok(id));
        }
        for (millis, sequence) in [
            (u64::MAX, 100),
            (100, u64::MAX),
            (u64::MAX, u64::MAX),
            (9_999_999_999_999, 9_999_999_999),
        ] {
            assert_eq!(StreamId::new(millis, sequence, 0), Err(UnknownId));
            let text = format!("{millis}-{sequence}");
            assert_eq!(StreamId::of_entry(&text, 0), Err(UnknownId));
            assert_eq!(parse(&format!("{text}-0000000000000000")), Err(UnknownId));
        }
        for text in [
            "--",
            "1--0123456789abcdef",
            "-1-0123456789abcdef",
            "1-1-",
            "1-1-123456789abcdef",
            "1-1-00123456789abcdef",
            "1-1-0123456789ABCDEF",
            "1-1-+123456789abcdef",
            "1-1-0123456789abcdeé",
            "01-1-0123456789abcdef",
            "1-01-0123456789abcdef",
            "1-00-0123456789abcdef",
            "+1-1-0123456789abcdef",
            "1-+1-0123456789abcdef",
            " 1-1-0123456789abcdef",
            "1- 1-0123456789abcdef",
            "a-1-0123456789abcdef",
            "18446744073709551616-1-0123456789abcdef",
            "1-1-1-0123456789abcdef",
            "1-1-0123456789abcdef-",
            "1-1-0123456789abcdef-1",
        ] {
            assert_eq!(parse(text), Err(UnknownId), "{text}");
        }
        for text in ["", "1", "1-", "-1", "1-1-1", "01-1", "1-a", "$", "*"] {
            assert_eq!(StreamId::of_entry(text, 0), Err(UnknownId), "{text}");
        }
    }

    fn tag(fields: &[(&str, &str)]) -> u64 {
        let fields = fields.iter();
        tag_of(fields.map(|(name, value)| (name.as_bytes(), value.as_bytes())))
    }

    /// They were computed by another implementation. Nodes of two versions that tag one entry in two ways would take
    /// each other's ids for those of a branch that was left.
    #[test]
    fn a_tag_is_the_same_in_all_versions() {
        let json = r#"{"type":"chat","notification":{"a":1}}"#;
        let long = "é".repeat(1000);
        for (fields, expected) in [
            (&[("n", json)][..], 0xefa5_7488_68c7_15ad),
            (
                &[("n", json), ("t", "0123456789abcdef"), ("k", "key-1")],
                0x42fd_e920_65c0_a420,
            ),
            (
                &[("b", "run/-"), ("", ""), ("x", &long)],
                0x9350_36d8_81a4_2a4e,
            ),
        ] {
            assert_eq!(tag(fields), expected, "{:#018x}", tag(fields));
        }
    }

    #[test]
    fn whatever_differs_in_an_entry_gives_it_another_tag() {
        let all: [&[(&str, &str)]; 14] = [
            &[],
            &[("", "")],
            &[("", ""), ("", "")],
            &[("n", "")],
            &[("", "n")],
            &[("n", "1")],
            &[("n1", "")],
            &[("n", "2")],
            &[("N", "1")],
            &[("n", "1"), ("t", "2")],
            &[("t", "2"), ("n", "1")],
            &[("n", "1t"), ("", "2")],
            &[("n", "1"), ("n", "1")],
            &[("n", "1"), ("t", "3")],
        ];
        let mut tags: Vec<_> = all.iter().map(|fields| tag(fields)).collect();
        tags.sort_unstable();
        tags.dedup();
        assert_eq!(tags.len(), all.len());
    }

    #[test]
    fn an_id_of_a_stream_is_saved_whole() {
        let id = |millis, sequence, tag| StreamId::new(millis, sequence, tag).expect("an id");
        let ids = [StreamId::NONE, id(1, 2, 3), id(u64::MAX, 99, u64::MAX)];
        for id in ids {
            let mut bytes = Vec::new();
            id.save(7, &mut Members::new(&mut bytes));
            let fields = Fields::parse(&bytes).expect("members");
            assert_eq!(StreamId::saved(7, &fields), Ok(Some(id)));
            assert_eq!(StreamId::saved(6, &fields), Ok(None));
        }
        for numbers in [&[1][..], &[1, 2], &[u64::MAX, u64::MAX, 0]] {
            let mut bytes = Vec::new();
            Members::new(&mut bytes).numbers(7, numbers);
            let fields = Fields::parse(&bytes).expect("members");
            assert!(StreamId::saved(7, &fields).is_err(), "{numbers:?}");
        }
    }
}
