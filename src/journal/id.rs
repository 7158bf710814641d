//! Ids: positions in the log, as clients and publishers see them (protocol 6.1).
//!
//! An id is the generation of the process that gave it and a position in the log. Each start draws a
//! generation of its own, so no id is given twice, whatever the clock does and however often the server
//! restarts. Main type: [`EntryId`].

use std::fmt;
use std::str::FromStr;

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

/// A position and the generation that it was told in: `0123456789abcdef-42`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntryId {
    /// Of the process that gave it.
    pub generation: Generation,
    /// In the log.
    pub position: Position,
}

/// Hexadecimal digits of a generation.
const GENERATION_DIGITS: usize = 16;

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

/// Decimal digits of the largest position.
const POSITION_DIGITS: usize = 20;

/// Bytes of the longest id.
pub(super) const ID_BYTES_MAX: usize = GENERATION_DIGITS + 1 + POSITION_DIGITS;

impl EntryId {
    /// Its text.
    #[must_use]
    pub fn text(&self) -> IdText {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let (Generation(generation), Position(mut position)) = (self.generation, self.position);
        let mut bytes = [b'-'; ID_BYTES_MAX];
        let mut start = ID_BYTES_MAX;
        loop {
            start -= 1;
            bytes[start] = b'0' + (position % 10) as u8;
            position /= 10;
            if position == 0 {
                break;
            }
        }
        start -= 1 + GENERATION_DIGITS;
        let digits = bytes[start..].chunks_exact_mut(2);
        for (digits, byte) in digits.zip(generation.to_be_bytes()) {
            digits[0] = HEX[usize::from(byte >> 4)];
            digits[1] = HEX[usize::from(byte & 15)];
        }
        let start = start as u8;
        IdText { bytes, start }
    }
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
        let (generation, position) = text.split_once('-').ok_or(UnknownId)?;
        let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if generation.len() != GENERATION_DIGITS || !generation.bytes().all(is_digit) {
            return Err(UnknownId);
        }
        let is_decimal = position.bytes().all(|byte| byte.is_ascii_digit());
        if !is_decimal || (position.starts_with('0') && position != "0") {
            return Err(UnknownId);
        }
        let generation = u64::from_str_radix(generation, 16).map_err(|_| UnknownId)?;
        let position = position.parse().map_err(|_| UnknownId)?;
        Ok(Self {
            generation: Generation(generation),
            position: Position(position),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_text() {
        for (generation, position, text) in [
            (0, 0, "0000000000000000-0"),
            (0x0123_4567_89ab_cdef, 42, "0123456789abcdef-42"),
            (u64::MAX, u64::MAX, "ffffffffffffffff-18446744073709551615"),
        ] {
            let id = EntryId {
                generation: Generation(generation),
                position: Position(position),
            };
            assert_eq!(id.to_string(), text);
            assert_eq!(text.parse(), Ok(id));
            assert!(text.len() <= 40);
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
            assert_eq!(text.parse::<EntryId>(), Err(UnknownId), "{text}");
        }
    }
}
