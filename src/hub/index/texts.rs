//! Every text of the index, stored once and counted.
//!
//! Packages, pages, names and values come from a small vocabulary that many subscriptions
//! repeat. A text lives as long as somebody counts as its user. Most are short, and lie in their
//! record: comparing one is one look at memory instead of two. Main type: [`Texts`].

use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;

use super::table::{IdTable, Records};

/// Names a text that is in use. One more than the number of its record, so that no text at all
/// takes no more room than one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct TextId(NonZeroU32);

impl TextId {
    fn new(record: u32) -> Self {
        Self(NonZeroU32::MIN.saturating_add(record))
    }

    const fn record(self) -> u32 {
        self.0.get() - 1
    }

    /// The id as a word, in the same order.
    pub(super) const fn word(self) -> u32 {
        self.0.get()
    }

    /// The id that `word` stands for.
    pub(super) fn from_word(word: u32) -> Self {
        Self(NonZeroU32::new(word).expect("it was made of an id"))
    }
}

/// The texts in use.
#[derive(Default)]
pub(super) struct Texts {
    hasher: RandomState,
    table: IdTable,
    records: Records<Record>,
    /// The lengths of all texts together.
    bytes: usize,
}

struct Record {
    text: Bytes,
    users: u32,
}

/// The longest text that lies in its record, which takes half a cache line.
const SHORT_BYTES_MAX: usize = 22;

/// The bytes of a text.
enum Bytes {
    Short(u8, [u8; SHORT_BYTES_MAX]),
    Long(Box<[u8]>),
}

impl Bytes {
    fn new(text: &str) -> Self {
        let mut short = [0; SHORT_BYTES_MAX];
        match (u8::try_from(text.len()), short.get_mut(..text.len())) {
            (Ok(len), Some(start)) => {
                start.copy_from_slice(text.as_bytes());
                Self::Short(len, short)
            }
            _ => Self::Long(text.as_bytes().into()),
        }
    }

    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Short(len, short) => &short[..usize::from(*len)],
            Self::Long(long) => long,
        }
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_slice()).expect("it was copied from a text")
    }

    fn heap_bytes(&self) -> usize {
        match self {
            Self::Short(..) => 0,
            Self::Long(long) => long.len(),
        }
    }
}

impl Texts {
    /// The id of `text`, with one user more.
    pub(super) fn acquire(&mut self, text: &str) -> TextId {
        let id = self.find(text).unwrap_or_else(|| {
            let id = self.records.insert(Record {
                text: Bytes::new(text),
                users: 0,
            });
            self.table.insert(self.hasher.hash_one(text), id);
            self.bytes += text.len();
            TextId::new(id)
        });
        self.records[id.record()].users += 1;
        id
    }

    /// One user less; the last one takes the text along.
    pub(super) fn release(&mut self, id: TextId) {
        let record = &mut self.records[id.record()];
        record.users -= 1;
        if record.users == 0 {
            let hash = self.hasher.hash_one(record.text.as_str());
            self.bytes -= record.text.as_slice().len();
            self.table.remove(hash, id.record());
            self.records.remove(id.record());
        }
    }

    /// The id of `text` if it is in use.
    pub(super) fn find(&self, text: &str) -> Option<TextId> {
        let is_text = |id| self.is(TextId::new(id), text);
        self.table
            .find(self.hasher.hash_one(text), is_text)
            .map(TextId::new)
    }

    /// The text that `id` names.
    pub(super) fn text(&self, id: TextId) -> &str {
        self.records[id.record()].text.as_str()
    }

    /// Whether `id` names `text`.
    pub(super) fn is(&self, id: TextId, text: &str) -> bool {
        self.records[id.record()].text.as_slice() == text.as_bytes()
    }

    /// The lengths of all texts together.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        let texts = self
            .records
            .iter()
            .map(|(_, record)| record.text.heap_bytes());
        texts.sum::<usize>() + self.records.heap_bytes() + self.table.heap_bytes()
    }

    /// Asserts that every text is found, and that its users are those that `users_of` counts.
    pub(super) fn check_invariants(&self, users_of: impl Fn(TextId) -> u32) {
        assert_eq!(self.table.len(), self.records.len());
        let lengths = self.records.iter().map(|(_, r)| r.text.as_slice().len());
        assert_eq!(lengths.sum::<usize>(), self.bytes);
        for (id, record) in self.records.iter() {
            assert_eq!(self.find(record.text.as_str()), Some(TextId::new(id)));
            assert_eq!(record.users, users_of(TextId::new(id)), "users of a text");
            assert!(record.users > 0, "a text without a user is gone");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::entry_bytes;
    use super::*;

    #[test]
    fn texts_of_every_length_are_told_apart() {
        let mut texts = Texts::default();
        let all = "\u{e9}".repeat(20);
        let all: Vec<&str> = (0..=all.len()).filter_map(|end| all.get(..end)).collect();
        let ids: Vec<TextId> = all.iter().map(|text| texts.acquire(text)).collect();
        for (text, &id) in all.iter().zip(&ids) {
            assert_eq!((texts.text(id), texts.find(text)), (*text, Some(id)));
        }
        texts.check_invariants(|_| 1);
        ids.into_iter().for_each(|id| texts.release(id));
        assert_eq!(texts.heap_bytes(), 0);
    }

    #[test]
    fn a_record_is_half_a_cache_line() {
        assert_eq!(entry_bytes::<Record>(), 32);
    }

    #[test]
    fn a_text_lives_as_long_as_its_users() {
        let mut texts = Texts::default();
        let (first, second) = (texts.acquire("a"), texts.acquire("a"));
        let other = texts.acquire("");
        assert_eq!((first, texts.records.len(), texts.bytes()), (second, 2, 1));
        texts.release(first);
        assert_eq!((texts.text(second), texts.find("a")), ("a", Some(second)));
        texts.release(second);
        assert_eq!((texts.find("a"), texts.find("")), (None, Some(other)));
        assert_eq!(texts.bytes(), 0);
        texts.release(other);
        assert_eq!(texts.heap_bytes(), 0);
    }
}
