//! `filters.values`, which subscriptions and notifications share: lists, names, scalars.
//!
//! Reads what was written; what it means on which side is [`super::content`]'s. Main types:
//! [`Given`] and the seeds that read it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::json::{TextSeed, next_member};
use super::path::{JsonPath, bounded};
use crate::hub::filter::{NameMap, float_text};

/// What is in `filters.values`, on either side.
#[derive(Default)]
pub(super) enum Given<'a> {
    #[default]
    Absent,
    True,
    Scalars(Vec<Cow<'a, str>>),
    Named(NameMap<'a, Entry<'a>>),
}

/// What is under a name in `filters.values`.
pub(super) enum Entry<'a> {
    True,
    Scalars(Vec<Cow<'a, str>>),
}

/// `filters`: an object, or nothing in one of the ways to say so.
pub(super) struct FiltersSeed<'t>(pub(super) &'t mut JsonPath);

impl<'de> DeserializeSeed<'de> for FiltersSeed<'_> {
    type Value = Given<'de>;

    fn deserialize<D: de::Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for FiltersSeed<'_> {
    type Value = Given<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("filters")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(Given::Absent)
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<Self::Value, S::Error> {
        match list.next_element::<IgnoredAny>()? {
            // An empty array is PHP's empty object.
            None => Ok(Given::Absent),
            Some(_) => Err(de::Error::custom("")),
        }
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let path = self.0;
        let mut values = None;
        while next_member(&mut map, &["values"])?.is_some() {
            if values.is_some() {
                return Err(path.fail_duplicate(".filters.values"));
            }
            path.enter(
                ".filters.values",
                "an object, a scalar or a list of scalars",
            );
            values = Some(map.next_value_seed(ValuesSeed {
                path,
                is_entry: false,
            })?);
        }
        Ok(values.unwrap_or_default())
    }
}

/// `filters.values`, or what is under one of its names.
struct ValuesSeed<'t> {
    path: &'t mut JsonPath,
    is_entry: bool,
}

impl<'de> DeserializeSeed<'de> for ValuesSeed<'_> {
    type Value = Given<'de>;

    fn deserialize<D: de::Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValuesSeed<'_> {
    type Value = Given<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("values")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(Given::Absent)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Self::Value, E> {
        self.path.count_value(&text_of(value))?;
        Ok(if value {
            Given::True
        } else {
            Given::Scalars(vec![text_of(false)])
        })
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Self::Value, E> {
        self.scalar(ScalarSeed.visit_u64(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
        self.scalar(ScalarSeed.visit_i64(value))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Self::Value, E> {
        self.scalar(ScalarSeed.visit_f64(value))
    }

    fn visit_borrowed_str<E: de::Error>(self, value: &'de str) -> Result<Self::Value, E> {
        self.scalar(ScalarSeed.visit_borrowed_str(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Self::Value, E> {
        self.scalar(ScalarSeed.visit_str(value))
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<Self::Value, S::Error> {
        let mut scalars = Vec::new();
        while let Some(scalar) = list.next_element_seed(ScalarSeed)? {
            self.path.count_value(&scalar)?;
            scalars.push(scalar);
        }
        if self.is_entry && scalars.is_empty() {
            // It stores a name, so it counts.
            self.path.count_value("")?;
        }
        Ok(Given::Scalars(scalars))
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let path = self.path;
        if self.is_entry {
            return Err(de::Error::custom(""));
        }
        let mut entries = Vec::new();
        loop {
            path.enter(".filters.values", "an object whose names are Unicode text");
            let Some(name) = map.next_key_seed(TextSeed)? else {
                break;
            };
            path.enter(".filters.values", "a scalar or a list of scalars");
            match map.next_value_seed(EntrySeed(path)) {
                Ok(entry) => entries.push((name, entry)),
                Err(error) => {
                    path.name(&name);
                    return Err(error);
                }
            }
        }
        NameMap::new(entries).map(Given::Named).map_err(|name| {
            let name = bounded(&name);
            path.fail_duplicate(&format!(".filters.values.{name}"))
        })
    }
}

impl<'a> ValuesSeed<'_> {
    fn scalar<E: de::Error>(self, scalar: Result<Cow<'a, str>, E>) -> Result<Given<'a>, E> {
        let scalar = scalar?;
        self.path.count_value(&scalar)?;
        Ok(Given::Scalars(vec![scalar]))
    }
}

/// What is under a name: as the whole of `values`, but for names and nothing.
struct EntrySeed<'t>(&'t mut JsonPath);

impl<'de> DeserializeSeed<'de> for EntrySeed<'_> {
    type Value = Entry<'de>;

    fn deserialize<D: de::Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        let seed = ValuesSeed {
            path: self.0,
            is_entry: true,
        };
        match seed.deserialize(json)? {
            Given::True => Ok(Entry::True),
            Given::Scalars(scalars) => Ok(Entry::Scalars(scalars)),
            Given::Absent | Given::Named(_) => Err(de::Error::custom("")),
        }
    }
}

/// A scalar, by its text.
pub(super) struct ScalarSeed;

impl<'de> DeserializeSeed<'de> for ScalarSeed {
    type Value = Cow<'de, str>;

    fn deserialize<D: de::Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ScalarSeed {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a scalar")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Self::Value, E> {
        Ok(text_of(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Cow::Owned(value.to_string()))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Cow::Owned(value.to_string()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Self::Value, E> {
        let text = float_text(value).ok_or_else(|| E::custom(""))?;
        Ok(Cow::Owned(text))
    }

    fn visit_borrowed_str<E: de::Error>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(value.to_owned()))
    }
}

/// The text that a boolean compares by.
pub(super) const fn text_of(value: bool) -> Cow<'static, str> {
    Cow::Borrowed(if value { "true" } else { "false" })
}
