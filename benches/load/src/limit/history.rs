//! What the floor keeps for clients that come back, where it is told to: everything, for ever, by
//! value, each entry as the frame that a numbered connection gets.

use std::collections::HashMap;

use crate::id::Id;
use crate::message::push_numbered_frame;

#[derive(Debug)]
struct Entry {
    position: u64,
    frame: Vec<u8>,
}

/// All entries. The first has position 1.
#[derive(Debug, Default)]
pub(super) struct History {
    newest: u64,
    entries: HashMap<u32, Vec<Entry>>,
}

impl History {
    /// The id of the newest entry, or the one ahead of the first.
    pub(super) fn id(&self) -> Id {
        let text = format!("0-{}", self.newest);
        Id::parse(text.as_bytes()).expect("digits and a hyphen are an id")
    }

    /// Keeps a notification; returns its frame.
    pub(super) fn keep(&mut self, value: u32, notification: &[u8]) -> &[u8] {
        self.newest += 1;
        let mut frame = Vec::new();
        push_numbered_frame(&self.id(), notification, &mut frame);
        let position = self.newest;
        let entries = self.entries.entry(value).or_default();
        entries.push(Entry { position, frame });
        entries.last().map_or(&[], |entry| &entry.frame)
    }

    /// What a successor has to know: the newest position, and each entry's value, position and frame.
    pub(super) fn all(&self) -> (u64, impl Iterator<Item = (u32, u64, &[u8])>) {
        let entries = self.entries.iter().flat_map(|(&value, entries)| {
            let entries = entries.iter();
            entries.map(move |one| (value, one.position, &one.frame[..]))
        });
        (self.newest, entries)
    }

    /// Begins where a predecessor was.
    pub(super) fn begin_at(newest: u64) -> Self {
        Self {
            newest,
            ..Self::default()
        }
    }

    /// Puts an entry of a predecessor back; those of a value come in their order.
    pub(super) fn restore(&mut self, value: u32, position: u64, frame: Vec<u8>) {
        let entries = self.entries.entry(value).or_default();
        entries.push(Entry { position, frame });
    }

    /// The frames of a value's entries behind an id; `None` if the id is none of this history.
    pub(super) fn since(&self, value: u32, id: &str) -> Option<Vec<&[u8]>> {
        let position: u64 = id.strip_prefix("0-")?.parse().ok()?;
        if position > self.newest {
            return None;
        }
        let entries = self.entries.get(&value).map_or(&[][..], |all| &all[..]);
        let first = entries.partition_point(|entry| entry.position <= position);
        Some(entries[first..].iter().map(|one| &one.frame[..]).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame;
    use crate::message::id_of_delivery;

    #[test]
    fn what_is_behind_an_id_is_found() {
        let mut history = History::default();
        for (value, text) in [(1, "a"), (2, "b"), (1, "c")] {
            history.keep(value, text.as_bytes());
        }
        let found = |value, id| -> Option<Vec<Id>> {
            let id_of = |frame: &&[u8]| {
                let header = frame::scan(frame).expect("valid").expect("complete");
                id_of_delivery(&frame[header.header_len..]).expect("numbered")
            };
            Some(history.since(value, id)?.iter().map(id_of).collect())
        };
        let ids = |texts: &[&str]| {
            let id = |text: &&str| Id::parse(text.as_bytes()).expect("an id");
            Some(texts.iter().map(id).collect::<Vec<_>>())
        };
        assert_eq!(found(1, "0-0"), ids(&["0-1", "0-3"]));
        assert_eq!(found(1, "0-1"), ids(&["0-3"]));
        assert_eq!(found(2, "0-2"), ids(&[]));
        assert_eq!(found(3, "0-0"), ids(&[]));
        assert_eq!((found(1, "0-4"), found(1, "x")), (None, None));
    }
}
