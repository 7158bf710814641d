//! JSON that is read later, or only in part.
//!
//! Knows no message. Main types: [`Json`] and [`TextSeed`].

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// JSON as it was written, known to be well-formed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Json<'a>(pub(super) &'a str);

impl<'de> Deserialize<'de> for Json<'de> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        <&RawValue>::deserialize(json).map(|raw| Self(raw.get()))
    }
}

impl<'a> Json<'a> {
    /// Has `seed` read it.
    pub(super) fn read<S: DeserializeSeed<'a>>(
        self,
        seed: S,
    ) -> Result<S::Value, serde_json::Error> {
        seed.deserialize(&mut serde_json::Deserializer::from_str(self.0))
    }

    /// The text of a string; `None` for anything else, and where no Unicode text is meant.
    pub(super) fn text(self) -> Option<Cow<'a, str>> {
        self.read(TextSeed).ok()
    }

    /// Which of `names` this string is.
    fn name_among(self, names: &[&'static str]) -> Option<&'static str> {
        let is = |text: &str| names.iter().copied().find(|name| *name == text);
        let inner = self.0.strip_prefix('"')?.strip_suffix('"')?;
        if inner.contains('\\') {
            is(&self.text()?)
        } else {
            is(inner)
        }
    }
}

/// The next member of an object that is one of `names`; its value is to be read next.
///
/// Names are taken as they were written. Read as bytes they could hide a control character that
/// JSON forbids; read as text, a lone surrogate would fail though nobody asked for the member.
pub(super) fn next_member<'de, M: MapAccess<'de>>(
    map: &mut M,
    names: &[&'static str],
) -> Result<Option<&'static str>, M::Error> {
    while let Some(name) = map.next_key::<Json<'de>>()? {
        if let Some(name) = name.name_among(names) {
            return Ok(Some(name));
        }
        map.next_value::<IgnoredAny>()?;
    }
    Ok(None)
}

/// A text, borrowed where it was written without escapes.
pub(super) struct TextSeed;

impl<'de> DeserializeSeed<'de> for TextSeed {
    type Value = Cow<'de, str>;

    fn deserialize<D: de::Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for TextSeed {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}
