//! What the log keeps of a notification, and how it is sent.
//!
//! A delivery has two encodings (protocol 2.2, 6.1): one for clients that don't number what they get, one with
//! the id. Each is made when it is first needed, and shared by all that get it. Main type: [`Entry`].

use std::time::Duration;

use super::id::{EntryId, OWN_ID_BYTES_MAX, StreamId};
use super::record::KEY_BYTES_MAX;
use crate::handover::{Fields, Malformed, Members};
use crate::wire::shared::{SHARED_OVERHEAD_BYTES, SharedBytes, WeakBytes};
use crate::ws::frame::EncodedFrame;

const BEFORE_TYPE: &str = r#"{"type":"#;
const BEFORE_ID: &str = r#","id":""#;
const BEHIND_ID: &str = r#"","notification":"#;
const BEFORE_NOTIFICATION: &str = r#","notification":"#;
const BEHIND_NOTIFICATION: &str = "}";

/// What is passed on of what a publisher has sent, byte for byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Content<'a> {
    /// Its `type`, as JSON.
    pub kind: &'a str,
    /// The notification.
    pub notification: &'a str,
}

impl Content<'_> {
    /// What a client gets that doesn't number deliveries.
    #[must_use]
    pub fn plain(&self) -> EncodedFrame {
        EncodedFrame::text(&[
            BEFORE_TYPE.as_bytes(),
            self.kind.as_bytes(),
            BEFORE_NOTIFICATION.as_bytes(),
            self.notification.as_bytes(),
            BEHIND_NOTIFICATION.as_bytes(),
        ])
    }

    /// One of these.
    #[must_use]
    pub fn encode(&self, id: EntryId, encoding: Encoding) -> EncodedFrame {
        match encoding {
            Encoding::Plain => self.plain(),
            Encoding::Numbered => self.numbered(id),
        }
    }

    /// The same with its id.
    #[must_use]
    pub fn numbered(&self, id: EntryId) -> EncodedFrame {
        EncodedFrame::text(&[
            BEFORE_TYPE.as_bytes(),
            self.kind.as_bytes(),
            BEFORE_ID.as_bytes(),
            id.text().as_bytes(),
            BEHIND_ID.as_bytes(),
            self.notification.as_bytes(),
            BEHIND_NOTIFICATION.as_bytes(),
        ])
    }
}

/// An encoding of a delivery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Encoding {
    /// Without its id.
    Plain = 0,
    /// With its id.
    Numbered = 1,
}

impl Encoding {
    /// All, in the order of their numbers.
    const ALL: [Self; 2] = [Self::Plain, Self::Numbered];
}

// Members of an entry's record.
const PUBLISHED: u8 = 1;
/// A bit for each encoding, by its number.
const ENCODINGS: u8 = 2;
const KIND: u8 = 3;
const NOTIFICATION: u8 = 4;
const KEY: u8 = 5;
const DELIVERED: u8 = 6;
const STREAM_ID: u8 = 7;

/// A notification in the log.
#[derive(Debug)]
pub struct Entry {
    /// When it was published, on a clock that is behind zero for what an earlier process has kept.
    published_micros: i64,
    /// By [`Encoding`]; there is one at least.
    frames: [Option<EncodedFrame>; 2],
    /// The numbered encoding that was made and isn't kept here; those who wait for it share it.
    lent: WeakBytes,
    kind_len: u32,
    notification_len: u32,
    /// What its publisher calls it by.
    key: Option<Box<str>>,
    /// Connections that it was queued to when it was published.
    delivered: u32,
}

impl Entry {
    /// An entry with one of its encodings.
    #[must_use]
    pub fn new(
        content: Content<'_>,
        id: EntryId,
        encoding: Encoding,
        key: Option<&str>,
        published_micros: i64,
    ) -> Self {
        let mut entry = Self::without_encoding(content, key, published_micros);
        entry.put(content.encode(id, encoding), encoding);
        entry
    }

    fn without_encoding(content: Content<'_>, key: Option<&str>, published_micros: i64) -> Self {
        Self {
            published_micros,
            frames: [None, None],
            lent: WeakBytes::default(),
            kind_len: saturate(content.kind.len()),
            notification_len: saturate(content.notification.len()),
            key: key.map(Into::into),
            delivered: 0,
        }
    }

    /// Writes what a successor must know. `id` is what a stream has called it, if it is of one.
    pub(super) fn save(&self, id: Option<StreamId>, members: &mut Members<'_>) {
        let Self {
            published_micros,
            frames,
            // The queues that wait for it have it as a frame of their own.
            lent: _,
            // Of the texts.
            kind_len: _,
            notification_len: _,
            key,
            delivered,
        } = self;
        let Content { kind, notification } = self.content();
        let is_there = |encoding: &Encoding| frames[*encoding as usize].is_some();
        let encodings = Encoding::ALL.into_iter().filter(is_there);
        members.signed(PUBLISHED, *published_micros);
        members.number(
            ENCODINGS,
            encodings.map(|encoding| 1 << encoding as u64).sum(),
        );
        members.bytes(KIND, kind.as_bytes());
        members.bytes(NOTIFICATION, notification.as_bytes());
        members.bytes(KEY, key.as_deref().unwrap_or_default().as_bytes());
        members.number(DELIVERED, (*delivered).into());
        if let Some(id) = id {
            id.save(STREAM_ID, members);
        }
    }

    /// The entry that was saved into `fields`, with each of the encodings that it had. Only one that was lent is lost.
    ///
    /// # Errors
    /// It is none, or has encodings that aren't known.
    pub(super) fn carried(fields: &Fields<'_>, id: EntryId) -> Result<Self, Malformed> {
        let content = Content {
            kind: fields.text(KIND)?,
            notification: Self::saved_notification(fields)?,
        };
        let key = fields.text(KEY)?;
        if key.len() > KEY_BYTES_MAX {
            return Err(Malformed("an entry has too long a key"));
        }
        let key = (!key.is_empty()).then_some(key);
        let mut entry = Self::without_encoding(content, key, fields.signed(PUBLISHED));
        entry.delivered = fields.narrow(DELIVERED)?;
        let encodings = fields.number(ENCODINGS);
        if !(1..1 << Encoding::ALL.len()).contains(&encodings) {
            return Err(Malformed("an entry has no such encodings"));
        }
        for encoding in Encoding::ALL {
            if encodings >> encoding as u64 & 1 == 1 {
                entry.put(content.encode(id, encoding), encoding);
            }
        }
        Ok(entry)
    }

    /// The notification of the entry that was saved into `fields`.
    ///
    /// # Errors
    /// It is no text.
    pub fn saved_notification<'a>(fields: &Fields<'a>) -> Result<&'a str, Malformed> {
        fields.text(NOTIFICATION)
    }

    /// What a stream has called the entry that was saved into `fields`.
    ///
    /// # Errors
    /// It is of none.
    pub(super) fn saved_stream_id(fields: &Fields<'_>) -> Result<StreamId, Malformed> {
        let id = StreamId::saved(STREAM_ID, fields)?;
        id.ok_or(Malformed("an entry of a stream has no id"))
    }

    /// Its encodings as queues share them, the plain one first. In this order they have their numbers in a state.
    pub(super) fn frames(&self) -> impl Iterator<Item = &SharedBytes> {
        self.frames.iter().flatten().map(EncodedFrame::shared)
    }

    fn put(&mut self, frame: EncodedFrame, encoding: Encoding) {
        frame.shared().retain();
        self.frames[encoding as usize] = Some(frame);
    }

    /// One of its encodings, if it is there.
    #[must_use]
    pub const fn encoded(&self, encoding: Encoding) -> Option<&EncodedFrame> {
        self.frames[encoding as usize].as_ref()
    }

    /// Makes one of its encodings that isn't there. It takes the place of the other if nobody else holds that;
    /// else it is kept beside it if it has no more than `bytes_max`, or lent. `id` is the entry's.
    pub fn encode(&mut self, id: EntryId, encoding: Encoding, bytes_max: usize) -> EncodedFrame {
        let is_lent = encoding == Encoding::Numbered;
        if let Some(lent) = self.lent.upgrade().filter(|_| is_lent) {
            return EncodedFrame::of(lent);
        }
        let frame = self.content().encode(id, encoding);
        if !self.frames().any(SharedBytes::is_shared) {
            self.release();
            self.frames = [None, None];
            self.put(frame.clone(), encoding);
        } else if frame.as_bytes().len() + SHARED_OVERHEAD_BYTES <= bytes_max {
            self.put(frame.clone(), encoding);
        } else if is_lent {
            self.lent = frame.shared().downgrade();
        }
        frame
    }

    /// What its publisher has sent.
    #[must_use]
    pub fn content(&self) -> Content<'_> {
        let frame = self.frames.iter().flatten().next();
        let payload = frame.expect("an entry has an encoding").payload();
        let kind = BEFORE_TYPE.len()..BEFORE_TYPE.len() + self.kind_len as usize;
        let end = payload.len() - BEHIND_NOTIFICATION.len();
        let notification = end - self.notification_len as usize..end;
        // They were texts when they were put together.
        let text = |bytes| std::str::from_utf8(bytes).unwrap_or_default();
        Content {
            kind: text(&payload[kind]),
            notification: text(&payload[notification]),
        }
    }

    /// What its publisher calls it by.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// How long ago it was published.
    #[must_use]
    pub fn age(&self, now_micros: i64) -> Duration {
        let micros = now_micros.saturating_sub(self.published_micros);
        Duration::from_micros(u64::try_from(micros).unwrap_or_default())
    }

    /// How many connections it was queued to when it was published; 0 if that isn't known.
    #[must_use]
    pub const fn delivered(&self) -> u32 {
        self.delivered
    }

    /// Notes how many connections it is queued to.
    pub const fn note_delivered(&mut self, delivered: u32) {
        self.delivered = delivered;
    }

    /// Bytes of memory that it takes, all of its encodings included. One that isn't numbered counts as if it were:
    /// what it takes doesn't grow when the other takes its place. The history adds what a stream's id may be longer.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let frames = self.frames.iter().flatten();
        let frames = frames.map(|frame| frame.as_bytes().len() + SHARED_OVERHEAD_BYTES);
        let is_plain = self.encoded(Encoding::Numbered).is_none();
        let id = if is_plain {
            BEFORE_ID.len() + OWN_ID_BYTES_MAX
        } else {
            0
        };
        let key = self.key.as_ref().map_or(0, |key| key.len());
        size_of::<Self>() + frames.sum::<usize>() + id + key
    }

    /// Lets go of the encodings: queues that hold them still pay for them from now on.
    pub fn release(&self) {
        self.frames().for_each(SharedBytes::release);
    }
}

/// A message is far shorter than 4 GiB, by its limit.
fn saturate(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::id::{Generation, Position};
    use super::*;

    const ID: EntryId = EntryId::Own {
        generation: Generation(0xab),
        position: Position(7),
    };

    const PLAIN: &str = r#"{"type":"chat","notification":{"a": 1.0}}"#;
    const NUMBERED: &str = r#"{"type":"chat","id":"00000000000000ab-7","notification":{"a": 1.0}}"#;

    fn content() -> Content<'static> {
        Content {
            kind: r#""chat""#,
            notification: r#"{"a": 1.0}"#,
        }
    }

    #[test]
    fn an_encoding_takes_the_place_of_one_that_nobody_holds() {
        for (first, second) in [
            (Encoding::Plain, Encoding::Numbered),
            (Encoding::Numbered, Encoding::Plain),
        ] {
            let mut entry = Entry::new(content(), ID, first, None, 0);
            let bytes = entry.bytes();
            let frame = entry.encode(ID, second, 0);
            assert!(entry.encoded(first).is_none());
            assert!(entry.encoded(second).is_some() && frame.shared().is_retained());
            assert!(entry.bytes() <= bytes || second == Encoding::Plain);
            assert_eq!(entry.content(), content());
        }
    }

    #[test]
    fn both_encodings_are_kept_and_counted_while_both_are_held() {
        for (first, second) in [
            (Encoding::Plain, Encoding::Numbered),
            (Encoding::Numbered, Encoding::Plain),
        ] {
            let mut entry = Entry::new(content(), ID, first, None, 0);
            let held = entry.encoded(first).expect("it was made").clone();
            let bytes = entry.bytes();
            let frame = entry.encode(ID, second, 0);
            assert!(entry.encoded(second).is_none() && !frame.shared().is_retained());
            assert_eq!(entry.bytes(), bytes);
            let again = entry.encode(ID, second, 0);
            let is_shared = again.as_bytes().as_ptr() == frame.as_bytes().as_ptr();
            assert_eq!(is_shared, second == Encoding::Numbered);
            drop((again, frame));
            let frame = entry.encode(ID, second, usize::MAX);
            assert!(entry.bytes() > bytes && frame.shared().is_retained());
            let (plain, numbered) = match first {
                Encoding::Plain => (&held, &frame),
                Encoding::Numbered => (&frame, &held),
            };
            assert_eq!(plain.payload(), PLAIN.as_bytes());
            assert_eq!(numbered.payload(), NUMBERED.as_bytes());
            entry.release();
            assert!(!plain.shared().is_retained() && !numbered.shared().is_retained());
        }
    }

    #[test]
    fn contents_of_any_length_are_found_again() {
        for len in [0, 1, 60, 100, 125, 126, 65_500, 65_536, 70_000] {
            let notification = "x".repeat(len);
            let content = Content {
                kind: r#""notification""#,
                notification: &notification,
            };
            for encoding in [Encoding::Plain, Encoding::Numbered] {
                let entry = Entry::new(content, ID, encoding, Some("key"), -5);
                assert_eq!(entry.content(), content, "{len}");
                assert_eq!(entry.age(-1), Duration::from_micros(4));
                assert_eq!((entry.age(-9), entry.key()), (Duration::ZERO, Some("key")));
            }
        }
    }
}
