//! Ids of notifications (protocol, 6.1): opaque, short, compared by their bytes alone.

use std::fmt;

/// The longest that a server may give.
pub(crate) const ID_BYTES_MAX: usize = 40;

/// Hexadecimal digits of what tells an entry of a stream from another in the same place.
const TAG_DIGITS: usize = 16;

/// An id. Bytes behind its end are zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Id {
    bytes: [u8; ID_BYTES_MAX],
    len: u8,
}

impl Id {
    /// Reads an id; `None` if no server may give it.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"._:-".contains(byte);
        if text.is_empty() || text.len() > ID_BYTES_MAX || !text.iter().all(is_allowed) {
            return None;
        }
        let mut bytes = [0; ID_BYTES_MAX];
        bytes[..text.len()].copy_from_slice(text);
        let len = text.len() as u8;
        Some(Self { bytes, len })
    }

    /// Where an entry of a stream stands that has this id (protocol, 8): `millis-sequence-tag`, of which the first two
    /// ascend. `None` for ids of a server on its own.
    pub(crate) fn place(&self) -> Option<(u64, u64)> {
        let text = std::str::from_utf8(self.as_bytes()).ok()?;
        let mut parts = text.split('-');
        let mut next = || parts.next();
        let (millis, sequence, tag) = (next()?, next()?, next()?);
        let is_tag = tag.len() == TAG_DIGITS && tag.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_whole = is_tag && parts.next().is_none();
        let place = (millis.parse().ok()?, sequence.parse().ok()?);
        is_whole.then_some(place)
    }

    /// Its text.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.as_bytes()))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_the_protocol() {
        let longest = [b'a'; ID_BYTES_MAX];
        for text in [&b"0123456789abcdef-7"[..], b"1-0", b"a.b_c:d-E", &longest] {
            assert_eq!(Id::parse(text).expect("allowed").as_bytes(), text);
        }
        let too_long = [b'a'; ID_BYTES_MAX + 1];
        for text in [&b""[..], b"a b", b"\"", "é".as_bytes(), &too_long] {
            assert_eq!(Id::parse(text), None);
        }
    }

    #[test]
    fn ids_of_a_stream_say_where_they_stand() {
        let place = |text: &str| Id::parse(text.as_bytes()).expect("allowed").place();
        let longest = "9999999999999-999999999-0123456789abcdef";
        assert_eq!(longest.len(), ID_BYTES_MAX);
        assert_eq!(place(longest), Some((9_999_999_999_999, 999_999_999)));
        assert_eq!(
            place("1795702284393-10-0123456789abcdef"),
            Some((1_795_702_284_393, 10))
        );
        for own in [
            "0123456789abcdef-7",
            "1-0",
            "1-0-7",
            "1-0-0123456789abcdeg",
            "1-0-0123456789abcdef-1",
            "a-0-0123456789abcdef",
        ] {
            assert_eq!(place(own), None, "{own}");
        }
    }
}
