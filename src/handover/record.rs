//! The members of a record, written and read.

use std::error::Error;
use std::fmt;
use std::io;

use crate::time::Timestamp;

/// Numbers of members are below this.
const MEMBERS_MAX: usize = 48;

/// Writes the members of a record, in any order.
#[derive(Debug)]
pub struct Members<'b>(&'b mut Vec<u8>);

impl<'b> Members<'b> {
    /// Members that are appended to `bytes`.
    pub const fn new(bytes: &'b mut Vec<u8>) -> Self {
        Self(bytes)
    }

    /// A number; 0 is left out.
    pub fn number(&mut self, member: u8, value: u64) {
        if value != 0 {
            self.tag(member, false);
            push_varint(self.0, value);
        }
    }

    /// A size or a length; 0 is left out.
    pub fn size(&mut self, member: u8, value: usize) {
        self.number(member, value as u64);
    }

    /// A number with a sign; 0 is left out.
    pub fn signed(&mut self, member: u8, value: i64) {
        // The sign goes to the lowest bit, so that small numbers of either sign are short.
        self.number(member, ((value << 1) ^ (value >> 63)).cast_unsigned());
    }

    /// A point in time; none is left out.
    pub fn time(&mut self, member: u8, at: Option<Timestamp>) {
        self.number(member, at.map_or(0, |at| at.as_micros().saturating_add(1)));
    }

    /// Some bytes; none are left out.
    pub fn bytes(&mut self, member: u8, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.present_bytes(member, bytes);
        }
    }

    /// Some bytes that are there although there may be none of them.
    pub fn present_bytes(&mut self, member: u8, bytes: &[u8]) {
        self.tag(member, true);
        push_varint(self.0, bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// Some numbers in an order that is for ever: what is added goes to the end.
    pub fn numbers(&mut self, member: u8, numbers: &[u64]) {
        let mut bytes = Vec::new();
        for &number in numbers {
            push_varint(&mut bytes, number);
        }
        self.bytes(member, &bytes);
    }

    /// Members of their own, which are there although there may be none of them.
    pub fn nested(&mut self, member: u8, write: impl FnOnce(&mut Members<'_>)) {
        let mut bytes = Vec::new();
        write(&mut Members(&mut bytes));
        self.present_bytes(member, &bytes);
    }

    /// Any number of things that have members of their own, in an order; none are left out.
    pub fn list<T>(
        &mut self,
        member: u8,
        things: impl IntoIterator<Item = T>,
        mut write: impl FnMut(T, &mut Members<'_>),
    ) {
        let (mut bytes, mut own) = (Vec::new(), Vec::new());
        for thing in things {
            own.clear();
            write(thing, &mut Members(&mut own));
            push_varint(&mut bytes, own.len() as u64);
            bytes.extend_from_slice(&own);
        }
        self.bytes(member, &bytes);
    }

    fn tag(&mut self, member: u8, is_bytes: bool) {
        debug_assert!(usize::from(member) < MEMBERS_MAX, "member {member}");
        push_varint(self.0, u64::from(member) << 1 | u64::from(is_bytes));
    }
}

/// Appends `value` in groups of seven bits, the lowest first.
pub fn push_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Takes a varint off the front of `bytes`.
///
/// # Errors
///
/// `bytes` end within it, or it is beyond 64 bits.
pub fn take_varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes
            .split_first()
            .ok_or(Malformed("a number is cut off"))?;
        *bytes = rest;
        let group = u64::from(byte & 0x7f);
        if group << shift >> shift != group {
            break;
        }
        value |= group << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Malformed("a number is too large"))
}

/// Takes `len` bytes off the front of `bytes`.
///
/// # Errors
///
/// There are fewer.
pub fn take_bytes<'a>(bytes: &mut &'a [u8], len: u64) -> Result<&'a [u8], Malformed> {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let (taken, rest) = bytes
        .split_at_checked(len)
        .ok_or(Malformed("bytes are cut off"))?;
    *bytes = rest;
    Ok(taken)
}

#[derive(Clone, Copy)]
enum Value<'a> {
    Absent,
    Number(u64),
    Bytes(&'a [u8]),
}

/// The members of a record, to be read in any order. What isn't there, or is of the other kind, reads as 0, `None` or empty.
pub struct Fields<'a>([Value<'a>; MEMBERS_MAX]);

impl<'a> Fields<'a> {
    /// Parses members; those with numbers that this program doesn't know are skipped.
    ///
    /// # Errors
    ///
    /// The bytes are no members.
    pub fn parse(mut bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut values = [Value::Absent; MEMBERS_MAX];
        while !bytes.is_empty() {
            let tag = take_varint(&mut bytes)?;
            let number = take_varint(&mut bytes)?;
            let value = if tag & 1 == 0 {
                Value::Number(number)
            } else {
                Value::Bytes(take_bytes(&mut bytes, number)?)
            };
            let place = usize::try_from(tag >> 1).ok();
            if let Some(place) = place.and_then(|member| values.get_mut(member)) {
                *place = value;
            }
        }
        Ok(Self(values))
    }

    fn value(&self, member: u8) -> Value<'a> {
        let values = self.0.get(usize::from(member));
        values.copied().unwrap_or(Value::Absent)
    }

    /// A number.
    #[must_use]
    pub fn number(&self, member: u8) -> u64 {
        match self.value(member) {
            Value::Number(number) => number,
            _ => 0,
        }
    }

    /// A number of a narrower type.
    ///
    /// # Errors
    ///
    /// It doesn't fit.
    pub fn narrow<N: TryFrom<u64>>(&self, member: u8) -> Result<N, Malformed> {
        N::try_from(self.number(member)).map_err(|_| Malformed("a number is out of range"))
    }

    /// A number with a sign.
    #[must_use]
    pub fn signed(&self, member: u8) -> i64 {
        let number = self.number(member);
        (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
    }

    /// A point in time.
    #[must_use]
    pub fn time(&self, member: u8) -> Option<Timestamp> {
        let micros = self.number(member).checked_sub(1)?;
        Some(Timestamp::from_micros(micros))
    }

    /// Bytes.
    #[must_use]
    pub fn bytes(&self, member: u8) -> &'a [u8] {
        self.present_bytes(member).unwrap_or_default()
    }

    /// Bytes, or that they aren't there.
    #[must_use]
    pub fn present_bytes(&self, member: u8) -> Option<&'a [u8]> {
        match self.value(member) {
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// Numbers, as far as they are whole.
    pub fn numbers(&self, member: u8) -> impl Iterator<Item = u64> + use<'a> {
        let mut bytes = self.bytes(member);
        std::iter::from_fn(move || take_varint(&mut bytes).ok())
    }

    /// The members of each of some things, in their order, up to one that is malformed.
    pub fn list(&self, member: u8) -> impl Iterator<Item = Result<Self, Malformed>> + use<'a> {
        let mut bytes = self.bytes(member);
        std::iter::from_fn(move || {
            if bytes.is_empty() {
                return None;
            }
            let own = take_varint(&mut bytes).and_then(|len| take_bytes(&mut bytes, len));
            let fields = own.and_then(Fields::parse);
            if fields.is_err() {
                bytes = &[];
            }
            Some(fields)
        })
    }

    /// Bytes that are text.
    ///
    /// # Errors
    ///
    /// They are no UTF-8.
    pub fn text(&self, member: u8) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes(member)).map_err(|_| Malformed("a text is not UTF-8"))
    }

    /// Members of their own, or that they aren't there.
    ///
    /// # Errors
    ///
    /// The bytes are no members.
    pub fn nested(&self, member: u8) -> Result<Option<Self>, Malformed> {
        self.present_bytes(member).map(Fields::parse).transpose()
    }
}

impl fmt::Debug for Fields<'_> {
    /// Without what is in it: a state holds secrets.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_there = |value: &&Value<'_>| !matches!(value, Value::Absent);
        write!(
            formatter,
            "Fields({})",
            self.0.iter().filter(is_there).count()
        )
    }
}

/// What was written can't be what a server writes; the text says why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0)
    }
}

impl Error for Malformed {}

impl From<Malformed> for io::Error {
    fn from(malformed: Malformed) -> Self {
        Self::new(io::ErrorKind::InvalidData, malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Members<'_>)) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut Members::new(&mut bytes));
        bytes
    }

    #[test]
    fn what_is_written_is_read() {
        let at = Timestamp::from_micros(0);
        let bytes = written(|members| {
            members.number(1, u64::MAX);
            members.signed(2, i64::MIN);
            members.signed(3, -1);
            members.time(4, Some(at));
            members.bytes(5, b"five");
            members.nested(6, |members| members.size(1, 300));
            members.nested(7, |_| {});
            members.numbers(8, &[0, 300, u64::MAX]);
        });
        let fields = Fields::parse(&bytes).expect("members");
        assert_eq!(fields.number(1), u64::MAX);
        assert_eq!([fields.signed(2), fields.signed(3)], [i64::MIN, -1]);
        assert_eq!(fields.time(4), Some(at));
        assert_eq!(
            (fields.bytes(5), fields.text(5)),
            (&b"five"[..], Ok("five"))
        );
        let nested = fields.nested(6).expect("members").expect("there");
        assert_eq!(nested.narrow::<u16>(1), Ok(300));
        assert!(nested.narrow::<u8>(1).is_err());
        assert!(fields.nested(7).expect("members").is_some());
        assert!(fields.numbers(8).eq([0, 300, u64::MAX]));
    }

    #[test]
    fn what_is_nothing_takes_nothing_and_reads_as_nothing() {
        let bytes = written(|members| {
            members.number(1, 0);
            members.signed(2, 0);
            members.time(3, None);
            members.bytes(4, b"");
        });
        assert!(bytes.is_empty());
        let fields = Fields::parse(&bytes).expect("members");
        assert_eq!(
            (fields.number(1), fields.signed(2), fields.time(3)),
            (0, 0, None)
        );
        assert_eq!(fields.bytes(4), b"");
        assert!(fields.nested(5).expect("members").is_none());
        // Nor does what is of the other kind, or beyond all members.
        let bytes = written(|members| members.bytes(1, b"1"));
        let fields = Fields::parse(&bytes).expect("members");
        assert_eq!((fields.number(1), fields.number(200)), (0, 0));
    }

    #[test]
    fn members_that_are_not_known_are_skipped() {
        let mut bytes = Vec::new();
        for tag in [60 << 1, 1 << 40, u64::MAX - 1] {
            push_varint(&mut bytes, tag);
            push_varint(&mut bytes, 7);
        }
        push_varint(&mut bytes, 99 << 1 | 1);
        push_varint(&mut bytes, 3);
        bytes.extend(b"abc");
        Members::new(&mut bytes).number(2, 5);
        assert_eq!(Fields::parse(&bytes).expect("members").number(2), 5);
    }

    #[test]
    fn numbers_of_any_size_are_told_apart_from_damage() {
        for value in (0..64)
            .flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit])
            .chain([u64::MAX])
        {
            let mut bytes = Vec::new();
            push_varint(&mut bytes, value);
            assert_eq!(
                bytes.len(),
                (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
            );
            for cut in 0..bytes.len() {
                assert!(take_varint(&mut &bytes[..cut]).is_err());
            }
            let rest = &mut &bytes[..];
            assert_eq!(take_varint(rest), Ok(value));
            assert!(rest.is_empty());
        }
        // One bit more than 64; and more groups than any number has.
        let mut too_large = [0xff; 10];
        too_large[9] = 2;
        assert!(take_varint(&mut &too_large[..]).is_err());
        assert!(take_varint(&mut &[0x80; 11][..]).is_err());
    }

    #[test]
    fn things_of_a_list_come_in_their_order_up_to_one_that_is_malformed() {
        let lengths = [3, 0, 200];
        let bytes = written(|members| {
            members.list(1, lengths, |len, members| members.bytes(2, &vec![7; len]));
            members.list(3, [0; 0], |_: i32, _| {});
        });
        let fields = Fields::parse(&bytes).expect("members");
        let read = fields
            .list(1)
            .map(|fields| fields.expect("members").bytes(2).len());
        assert!(read.eq(lengths));
        assert!(fields.list(3).next().is_none() && fields.present_bytes(3).is_none());
        let list = fields.bytes(1);
        for cut in 0..list.len() {
            let bytes = written(|members| members.bytes(1, &list[..cut]));
            let fields = Fields::parse(&bytes).expect("members");
            let read: Vec<_> = fields.list(1).collect();
            let is_whole = [0, 6, 7].contains(&cut);
            assert_eq!(read.iter().all(Result::is_ok), is_whole, "{cut}");
            assert!(read.iter().rev().skip(1).all(Result::is_ok));
        }
    }

    #[test]
    fn bytes_that_are_cut_off_are_malformed() {
        let bytes = written(|members| {
            members.number(1, 1 << 20);
            members.bytes(2, b"two");
        });
        let whole = [0, 4, bytes.len()];
        for cut in 0..=bytes.len() {
            assert_eq!(
                Fields::parse(&bytes[..cut]).is_ok(),
                whole.contains(&cut),
                "{cut}"
            );
        }
    }
}
