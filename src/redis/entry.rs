//! Entries of a stream: their fields, their ids, and the tag that tells an entry from another with the same id.
//!
//! | field | what | who writes it |
//! | --- | --- | --- |
//! | `n` | one notification as a client sends it, never with `key` | anybody |
//! | `t` | a [`Nonce`], 16 hexadecimal digits | nodes |
//! | `k` | its key | nodes |
//! | `b` | a barrier: the identity of the Redis that it speaks for; without `n` | nodes |
//!
//! Other fields are ignored, but count in the tag. Of JSON only the envelope is known that a node puts around what it
//! was given. Main types: [`WholeId`] and [`Content`].

use std::fmt;

use super::reply::{Broken, List, Reply};
use crate::handover::{Fields, Malformed};
use crate::journal::id::tag_of;

/// An entry of a stream: its id in Redis, and what tells it from another with the same. It may be one that is too long to be
/// told, which [`StreamId::new`](crate::journal::id::StreamId::new) refuses.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct WholeId {
    /// Milliseconds since the Unix epoch, by the clock of Redis.
    pub millis: u64,
    /// Of those of the same millisecond.
    pub sequence: u64,
    /// A hash of all its fields.
    pub tag: u64,
}

impl WholeId {
    /// As a state holds it.
    pub(super) const fn numbers(self) -> [u64; 3] {
        let Self {
            millis,
            sequence,
            tag,
        } = self;
        [millis, sequence, tag]
    }

    /// The ids of which a member holds the numbers.
    pub(super) fn restore_all(fields: &Fields<'_>, member: u8) -> Result<Vec<Self>, Malformed> {
        let mut numbers = fields.numbers(member);
        let mut ids = Vec::new();
        while let Some(millis) = numbers.next() {
            let (Some(sequence), Some(tag)) = (numbers.next(), numbers.next()) else {
                return Err(Malformed("an id of a stream is cut off"));
            };
            ids.push(Self {
                millis,
                sequence,
                tag,
            });
        }
        Ok(ids)
    }

    /// That of no entry: it is ahead of all.
    pub(super) const NONE: Self = Self {
        millis: 0,
        sequence: 0,
        tag: 0,
    };
}

/// What tells an entry of this node from all others; consecutive.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Nonce(pub u64);

/// Decimal digits that both numbers of an id may have together, so that it is an id on the wire as well.
const ID_DIGITS_MAX: usize = 22;

/// Where an entry is in a stream: its id there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) struct Place {
    pub(super) millis: u64,
    pub(super) sequence: u64,
}

impl Place {
    /// Ahead of all.
    pub(super) const START: Self = Self {
        millis: 0,
        sequence: 0,
    };

    /// The one ahead of it.
    pub(super) const fn before(self) -> Self {
        match self.sequence.checked_sub(1) {
            Some(sequence) => Self { sequence, ..self },
            None => Self {
                millis: self.millis.saturating_sub(1),
                sequence: if self.millis == 0 { 0 } else { u64::MAX },
            },
        }
    }

    /// As a state holds it.
    pub(super) const fn numbers(self) -> [u64; 2] {
        let Self { millis, sequence } = self;
        [millis, sequence]
    }

    /// The places of which a member holds the numbers.
    pub(super) fn restore_all(fields: &Fields<'_>, member: u8) -> Result<Vec<Self>, Malformed> {
        let mut numbers = fields.numbers(member);
        let mut places = Vec::new();
        while let Some(millis) = numbers.next() {
            let sequence = numbers.next();
            let sequence = sequence.ok_or(Malformed("a place of a stream is cut off"))?;
            places.push(Self { millis, sequence });
        }
        Ok(places)
    }

    /// Reads it as Redis writes it.
    pub(super) fn read(text: &[u8]) -> Option<Self> {
        let (millis, sequence) = std::str::from_utf8(text).ok()?.split_once('-')?;
        let millis = decimal(millis)?;
        let sequence = decimal(sequence)?;
        Some(Self { millis, sequence })
    }

    /// Whether it has few enough digits to be told to clients.
    pub(super) fn is_tellable(self) -> bool {
        let digits = |number: u64| number.checked_ilog10().unwrap_or(0) as usize + 1;
        digits(self.millis) + digits(self.sequence) <= ID_DIGITS_MAX
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.millis, self.sequence)
    }
}

impl From<WholeId> for Place {
    fn from(id: WholeId) -> Self {
        let WholeId {
            millis, sequence, ..
        } = id;
        Self { millis, sequence }
    }
}

/// A decimal number of which there is one text.
fn decimal(text: &str) -> Option<u64> {
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit());
    let is_only_text = !text.starts_with('0') || text == "0";
    (is_decimal && is_only_text)
        .then(|| text.parse().ok())
        .flatten()
}

/// Sixteen hexadecimal digits, in small letters.
fn hexadecimal(text: &[u8]) -> Option<u64> {
    let is_digit = |byte| matches!(byte, &(b'0'..=b'9' | b'a'..=b'f'));
    let is_whole = text.len() == 16 && text.iter().all(is_digit);
    let text = std::str::from_utf8(text).ok().filter(|_| is_whole)?;
    u64::from_str_radix(text, 16).ok()
}

/// A whole id as the scripts keep it for a key: `millis-sequence-tag`.
pub(super) fn read_whole_id(text: &[u8]) -> Option<WholeId> {
    let dash = text.iter().rposition(|byte| *byte == b'-')?;
    let Place { millis, sequence } = Place::read(&text[..dash])?;
    let tag = hexadecimal(&text[dash + 1..])?;
    Some(WholeId {
        millis,
        sequence,
        tag,
    })
}

/// What an entry says.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Content<'a> {
    /// The first `n`.
    pub(super) json: Option<&'a [u8]>,
    /// The first `t`, if it is a nonce.
    pub(super) nonce: Option<Nonce>,
    /// The first `k`.
    pub(super) key: Option<&'a [u8]>,
    has_barrier: bool,
}

impl Content<'_> {
    pub(super) const fn is_barrier(&self) -> bool {
        self.has_barrier && self.json.is_none()
    }
}

/// An entry of a reply: where it is, and its fields.
pub(super) fn read(entry: Reply<'_>) -> Result<(Place, List<'_>), Broken> {
    const NO_ENTRY: Broken = Broken("an entry is not what it should be");
    let parts = entry.list().ok_or(NO_ENTRY)?;
    let (Some(id), Some(fields), 2) = (parts.at(0), parts.at(1), parts.len()) else {
        return Err(NO_ENTRY);
    };
    let place = id.text().and_then(Place::read).ok_or(NO_ENTRY)?;
    let fields = fields.list().ok_or(NO_ENTRY)?;
    if fields.len() % 2 != 0 || fields.iter().any(|field| field.text().is_none()) {
        return Err(NO_ENTRY);
    }
    Ok((place, fields))
}

/// The names and values of fields, in their order.
fn pairs(fields: List<'_>) -> impl Iterator<Item = (&[u8], &[u8])> {
    let text = move |at| fields.at(at).and_then(Reply::text).unwrap_or_default();
    (0..fields.len() / 2).map(move |pair| (text(2 * pair), text(2 * pair + 1)))
}

/// What an entry with these fields says.
pub(super) fn content(fields: List<'_>) -> Content<'_> {
    let mut content = Content::default();
    let mut has_nonce = false;
    for (name, value) in pairs(fields) {
        match name {
            b"n" if content.json.is_none() => content.json = Some(value),
            b"k" if content.key.is_none() => content.key = Some(value),
            b"t" if !has_nonce => {
                has_nonce = true;
                content.nonce = hexadecimal(value).map(Nonce);
            }
            b"b" => content.has_barrier = true,
            _ => {}
        }
    }
    content
}

/// The whole id of an entry with these fields.
pub(super) fn whole_id(place: Place, fields: List<'_>) -> WholeId {
    let Place { millis, sequence } = place;
    let tag = tag_of(pairs(fields));
    WholeId {
        millis,
        sequence,
        tag,
    }
}

/// Sixteen hexadecimal digits.
pub(super) fn digits(number: u64) -> [u8; 16] {
    std::array::from_fn(|at| {
        let digit = number >> (60 - 4 * at) & 15;
        b"0123456789abcdef"[digit as usize]
    })
}

/// The value of `n`; `kind` and `notification` are JSON already.
pub(super) fn json(kind: &str, notification: &str, is_kept: bool) -> String {
    const ENVELOPE: usize = r#"{"type":,"notification":,"keep":false}"#.len();
    let mut json = String::with_capacity(ENVELOPE + kind.len() + notification.len());
    for part in [r#"{"type":"#, kind, r#","notification":"#, notification] {
        json.push_str(part);
    }
    json.push_str(if is_kept { "}" } else { r#","keep":false}"# });
    json
}

#[cfg(test)]
mod tests {
    use super::super::reply::Inbox;
    use super::*;

    #[test]
    fn a_place_has_one_text() {
        for (text, millis, sequence) in [
            ("0-0", 0, 0),
            ("1795702284393-12", 1_795_702_284_393, 12),
            (
                "18446744073709551615-18446744073709551615",
                u64::MAX,
                u64::MAX,
            ),
        ] {
            let place = Place { millis, sequence };
            assert_eq!(Place::read(text.as_bytes()), Some(place));
            assert_eq!(place.to_string(), text);
        }
        for text in [
            "",
            "-",
            "1",
            "1-",
            "-1",
            "1-2-3",
            "01-1",
            "1-+1",
            "18446744073709551616-1",
        ] {
            assert_eq!(Place::read(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_place_has_one_ahead_of_it() {
        let place = |millis, sequence| Place { millis, sequence };
        assert_eq!(place(5, 1).before(), place(5, 0));
        assert_eq!(place(5, 0).before(), place(4, u64::MAX));
        assert_eq!(Place::START.before(), Place::START);
    }

    #[test]
    fn a_place_with_too_many_digits_is_not_told() {
        let place = |millis, sequence| Place { millis, sequence };
        assert!(place(1_795_702_284_393, 999_999_999).is_tellable());
        assert!(!place(1_795_702_284_393, 1_000_000_000).is_tellable());
        assert!(place(0, 0).is_tellable());
        assert!(!place(u64::MAX, u64::MAX).is_tellable());
    }

    #[test]
    fn a_whole_id_is_read_as_it_is_kept() {
        let id = WholeId {
            millis: 7,
            sequence: 0,
            tag: 0x0123_4567_89ab_cdef,
        };
        assert_eq!(read_whole_id(b"7-0-0123456789abcdef"), Some(id));
        assert_eq!(digits(id.tag), *b"0123456789abcdef");
        for text in [
            "7-0",
            "7-0-",
            "7-0-0123456789ABCDEF",
            "7-0-123456789abcdef",
            "x-0-0123456789abcdef",
            "",
        ] {
            assert_eq!(read_whole_id(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn the_tag_is_the_same_for_ever() {
        let none: [(&[u8], &[u8]); 0] = [];
        assert_eq!(digits(tag_of(none)), TAGS[0]);
        let one: [(&[u8], &[u8]); 1] = [(b"n", b"{}")];
        assert_eq!(digits(tag_of(one)), TAGS[1]);
        let two: [(&[u8], &[u8]); 2] = [(b"n", b"{}"), (b"t", b"0000000000000001")];
        assert_eq!(digits(tag_of(two)), TAGS[2]);
        // What ends where counts.
        let other: [(&[u8], &[u8]); 1] = [(b"n{", b"}")];
        assert_ne!(tag_of(one), tag_of(other));
    }

    const TAGS: [[u8; 16]; 3] = [
        *b"4a8c0437d2b447e8",
        *b"cbd6116c40f5ee79",
        *b"ab7f10cdf8c98469",
    ];

    fn with_entry(bytes: &[u8], look: impl FnOnce(Result<(Place, List<'_>), Broken>)) {
        let mut inbox = Inbox::new(1000);
        inbox.push(bytes);
        let whole = inbox.next().expect("a reply").expect("a whole one");
        look(read(whole.reply(inbox.bytes())));
    }

    #[test]
    fn the_first_of_two_fields_counts() {
        let bytes = b"*2\r\n$3\r\n1-2\r\n*8\r\n$1\r\nn\r\n$1\r\n1\r\n$1\r\nn\r\n$1\r\n2\r\n$1\r\nx\r\n$1\r\n3\r\n\
            $1\r\nt\r\n$16\r\n000000000000000a\r\n";
        with_entry(bytes, |entry| {
            let (place, fields) = entry.expect("an entry");
            let content = content(fields);
            assert_eq!((place.millis, place.sequence), (1, 2));
            assert_eq!(content.json, Some(b"1".as_slice()));
            assert_eq!(content.nonce, Some(Nonce(10)));
            assert!(content.key.is_none() && !content.is_barrier());
        });
    }

    #[test]
    fn a_barrier_has_no_notification() {
        with_entry(
            b"*2\r\n$3\r\n1-2\r\n*2\r\n$1\r\nb\r\n$3\r\na/-\r\n",
            |entry| {
                assert!(content(entry.expect("an entry").1).is_barrier());
            },
        );
        let both = b"*2\r\n$3\r\n1-2\r\n*4\r\n$1\r\nb\r\n$3\r\na/-\r\n$1\r\nn\r\n$2\r\n{}\r\n";
        with_entry(both, |entry| {
            assert!(!content(entry.expect("an entry").1).is_barrier());
        });
    }

    #[test]
    fn what_is_no_entry_is_broken() {
        for bytes in [
            b":1\r\n".as_slice(),
            b"*1\r\n$3\r\n1-2\r\n",
            b"*2\r\n$1\r\n1\r\n*0\r\n",
            b"*2\r\n$3\r\n1-2\r\n*1\r\n$1\r\nn\r\n",
            b"*2\r\n$3\r\n1-2\r\n*2\r\n$1\r\nn\r\n:1\r\n",
            b"*2\r\n$3\r\n1-2\r\n+x\r\n",
            b"*3\r\n$3\r\n1-2\r\n*0\r\n:1\r\n",
        ] {
            with_entry(bytes, |entry| assert!(entry.is_err(), "{bytes:?}"));
        }
        // An entry that was deleted meanwhile.
        with_entry(b"*2\r\n$3\r\n1-2\r\n*-1\r\n", |entry| {
            assert_eq!(entry.map(|(_, fields)| fields.len()), Ok(0));
        });
    }

    #[test]
    fn the_envelope_says_what_is_not_kept() {
        assert_eq!(
            json("\"a\"", "[1]", true),
            r#"{"type":"a","notification":[1]}"#
        );
        assert_eq!(
            json("\"a\"", "{}", false),
            r#"{"type":"a","notification":{},"keep":false}"#
        );
    }
}
