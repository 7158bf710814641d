//! What travels: notifications of an exact length that carry a sequence number and a text that
//! depends on it, and the subscriptions that match them.
//!
//! Every field has a fixed width, so that a delivery is compared whole with the bytes that are
//! expected, and its sequence number is found without parsing.

use crate::dialect::Dialect;
use crate::frame;
use crate::id::{ID_BYTES_MAX, Id};

const DELIVERY_START: &[u8] = b"{\"type\":\"notification\",\"notification\":";
const PUBLISH_START: &[u8] = b"{\"sender\":\"server\"";
const KEY_START: &[u8] = b",\"key\":\"";
const UNKEPT: &[u8] = b",\"keep\":false";
const NOTIFICATION_START: &[u8] = b",\"notification\":";

/// A numbered delivery up to its id, and behind it (6.1).
const NUMBERED_START: &[u8] = b"{\"type\":\"notification\",\"id\":\"";
const NUMBERED_MIDDLE: &[u8] = b"\",\"notification\":";

/// Digits of a value and of a sequence number.
pub(crate) const VALUE_DIGITS: usize = 6;
const SEQUENCE_DIGITS: usize = 12;

/// Values that the digits can tell apart.
pub(crate) const VALUES_MAX: usize = 1_000_000;

/// The stock of text that notifications are cut from; a prime, so that cuts seldom repeat.
const STOCK_BYTES: usize = 65_521;

/// An application's ping (protocol, 1.2), and what it is answered.
pub(crate) const PING: &[u8] = b"{\"type\":\"ping\"}";
pub(crate) const PONG: &[u8] = b"{\"type\":\"pong\"}";

/// What a numbered connection's ping is answered, up to the id.
pub(crate) const NUMBERED_PONG_START: &[u8] = b"{\"type\":\"pong\",\"id\":\"";

/// How a notification says whom it is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Topic {
    /// By `channel`: the short form.
    Channel,
    /// By `package`, `page` and `filters`: the form of the existing apps.
    Filter,
}

/// The layout of a notification.
#[derive(Debug)]
pub(crate) struct Layout {
    dialect: Dialect,
    topic: Topic,
    /// What stands before the value, between value and sequence number, and before the text.
    parts: [&'static str; 3],
    end: &'static str,
    bytes: usize,
    stock: Vec<u8>,
}

impl Layout {
    /// Notifications of `bytes` bytes.
    pub(crate) fn new(topic: Topic, bytes: usize) -> Result<Self, String> {
        Self::of(Dialect::Crieur, topic, bytes)
    }

    /// The same, delivered as another server does.
    pub(crate) fn of(dialect: Dialect, topic: Topic, bytes: usize) -> Result<Self, String> {
        let (parts, end) = match topic {
            Topic::Channel => (["{\"channel\":\"", "\",\"id\":\"", "\",\"text\":\""], "\"}"),
            Topic::Filter => (
                [
                    "{\"type\":\"chat\",\"package\":\"load\",\"page\":\"measure\",\"filters\":{\"values\":{\"channel\":\"",
                    "\"}},\"message\":{\"id\":\"",
                    "\",\"text\":\"",
                ],
                "\"}}",
            ),
        };
        let fixed = parts.iter().map(|part| part.len()).sum::<usize>() + end.len();
        let bytes_min = fixed + VALUE_DIGITS + SEQUENCE_DIGITS;
        if bytes < bytes_min {
            return Err(format!(
                "a notification of this topic has at least {bytes_min} bytes, not {bytes}"
            ));
        }
        Ok(Self {
            dialect,
            topic,
            parts,
            end,
            bytes,
            stock: stock(),
        })
    }

    /// Bytes of a delivery as a frame.
    pub(crate) fn frame_bytes(&self) -> usize {
        // Where quotation marks are escaped, there are fewer than 64.
        self.bytes + NUMBERED_START.len() + ID_BYTES_MAX + NUMBERED_MIDDLE.len() + 1 + 10 + 64
    }

    /// Appends the frame that every subscriber is to get that isn't numbered.
    pub(crate) fn push_frame(&self, value: u32, notification: &[u8], out: &mut Vec<u8>) {
        self.dialect.push_frame(value, notification, out);
    }

    /// Appends the notification itself.
    pub(crate) fn push_notification(&self, sequence: u64, value: u32, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(self.parts[0].as_bytes());
        push_digits(u64::from(value), VALUE_DIGITS, out);
        out.extend_from_slice(self.parts[1].as_bytes());
        push_digits(sequence, SEQUENCE_DIGITS, out);
        out.extend_from_slice(self.parts[2].as_bytes());
        let mut missing = self.bytes - (out.len() - start) - self.end.len();
        let mut from = (sequence.wrapping_mul(7919) % STOCK_BYTES as u64) as usize;
        while missing > 0 {
            let part = missing.min(STOCK_BYTES - from);
            out.extend_from_slice(&self.stock[from..from + part]);
            missing -= part;
            from = 0;
        }
        out.extend_from_slice(self.end.as_bytes());
    }

    /// The sequence number in the payload of a delivery, as far as one can be found there.
    pub(crate) fn sequence_of(&self, payload: &[u8]) -> Option<u64> {
        let (start, is_escaped) = match id_of_delivery(payload) {
            Some(id) => {
                let id_len = id.as_bytes().len();
                (NUMBERED_START.len() + id_len + NUMBERED_MIDDLE.len(), false)
            }
            None => self.dialect.notification_at(DELIVERY_START.len()),
        };
        let len = |part: &str| match is_escaped {
            true => part.len() + part.matches('"').count(),
            false => part.len(),
        };
        let start = start + len(self.parts[0]) + VALUE_DIGITS + len(self.parts[1]);
        let digits = payload.get(start..start + SEQUENCE_DIGITS)?;
        digits.iter().try_fold(0, |sum, digit| {
            digit
                .is_ascii_digit()
                .then(|| sum * 10 + u64::from(digit - b'0'))
        })
    }

    /// The message that subscribes to the values, and to nothing else. With `since` its
    /// deliveries are numbered, and what was missed behind an id comes first.
    pub(crate) fn subscribe(
        &self,
        values: impl Iterator<Item = u32>,
        since: Option<&[u8]>,
    ) -> Vec<u8> {
        let mut text = b"{\"sender\":\"client\",\"subscriptions\":[".to_vec();
        for (index, value) in values.enumerate() {
            if index > 0 {
                text.push(b',');
            }
            if self.topic == Topic::Filter {
                text.extend_from_slice(b"{\"package\":\"load\",\"page\":\"measure\",\"filters\":{\"values\":{\"channel\":[");
            }
            text.push(b'"');
            push_digits(u64::from(value), VALUE_DIGITS, &mut text);
            text.push(b'"');
            if self.topic == Topic::Filter {
                text.extend_from_slice(b"]}}}");
            }
        }
        text.push(b']');
        if let Some(since) = since {
            text.extend_from_slice(b",\"since\":\"");
            text.extend_from_slice(since);
            text.push(b'"');
        }
        text.push(b'}');
        text
    }
}

/// The pieces of the payload that publishes a notification (2.1), with a key (6.2) unless that
/// is empty, and for those who are there now only (6.2) unless it is to be kept.
pub(crate) const fn publish<'a>(
    key: &'a [u8],
    is_kept: bool,
    notification: &'a [u8],
) -> [&'a [u8]; 8] {
    let (start, end): (&[u8], &[u8]) = match key {
        [] => (b"", b""),
        _ => (KEY_START, b"\""),
    };
    [
        PUBLISH_START,
        start,
        key,
        end,
        if is_kept { b"" } else { UNKEPT },
        NOTIFICATION_START,
        notification,
        b"}",
    ]
}

/// The pieces of the payload that delivers it (2.2).
pub(crate) const fn delivery(notification: &[u8]) -> [&[u8]; 3] {
    [DELIVERY_START, notification, b"}"]
}

/// The pieces of the payload that delivers it with its id (6.1).
pub(crate) fn numbered_delivery<'a>(id: &'a Id, notification: &'a [u8]) -> [&'a [u8]; 5] {
    let id = id.as_bytes();
    [NUMBERED_START, id, NUMBERED_MIDDLE, notification, b"}"]
}

/// What [`publish`] has put into a payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Published<'a> {
    pub(crate) notification: &'a [u8],
    pub(crate) is_kept: bool,
}

/// The notification in a payload that [`publish`] made; for the floor, which parses nothing.
pub(crate) fn published(payload: &[u8]) -> Option<Published<'_>> {
    let mut rest = payload.strip_prefix(PUBLISH_START)?;
    if let Some(keyed) = rest.strip_prefix(KEY_START) {
        let end = keyed.iter().position(|&byte| byte == b'"')?;
        rest = &keyed[end + 1..];
    }
    let unkept = rest.strip_prefix(UNKEPT);
    let rest = unkept.unwrap_or(rest);
    Some(Published {
        notification: rest.strip_prefix(NOTIFICATION_START)?.strip_suffix(b"}")?,
        is_kept: unkept.is_none(),
    })
}

/// The id that a delivery begins with, if it is numbered.
pub(crate) fn id_of_delivery(payload: &[u8]) -> Option<Id> {
    let rest = payload.strip_prefix(NUMBERED_START)?;
    let end = rest.iter().position(|&byte| byte == b'"')?;
    Id::parse(&rest[..end])
}

/// The text behind `"name":` in flat JSON of ours that has no escapes.
pub(crate) fn text_of<'a>(json: &'a [u8], name: &str) -> Option<&'a str> {
    let text = std::str::from_utf8(json).ok()?;
    let (_, rest) = text.split_once(&format!("\"{name}\":"))?;
    let rest = rest.trim_start().strip_prefix('"')?;
    rest.split_once('"').map(|(text, _)| text)
}

/// The id in an answer, if it has one.
///
/// # Errors
/// An id that no server may give.
pub(crate) fn id_of(json: &[u8]) -> Result<Option<Id>, String> {
    let Some(text) = text_of(json, "id") else {
        return Ok(None);
    };
    let id = Id::parse(text.as_bytes());
    id.map(Some)
        .ok_or_else(|| format!("{text:?} is no id (protocol, 6.1)"))
}

/// The number behind `"name":` in flat JSON of ours; for answers and Close reasons.
pub(crate) fn number_of(json: &[u8], name: &str) -> Option<u64> {
    let text = std::str::from_utf8(json).ok()?;
    let (_, rest) = text.split_once(&format!("\"{name}\":"))?;
    let rest = rest.trim_start();
    let end = rest.find(|c: char| !c.is_ascii_digit());
    rest[..end.unwrap_or(rest.len())].parse().ok()
}

/// How many recipients a publisher is to be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Recipients {
    Exactly(u32),
    /// Those of one node, which nobody knows.
    AtMost(u32),
}

/// Checks what the server says about a notification: all expected recipients, none dropped, and
/// not the repetition of another.
pub(crate) fn check_delivered(json: &[u8], expected: Recipients) -> Result<(), String> {
    let shown = String::from_utf8_lossy(json);
    let told = number_of(json, "delivered");
    let (is_right, count) = match expected {
        Recipients::Exactly(count) => (told == Some(u64::from(count)), count),
        Recipients::AtMost(count) => (told.is_some_and(|told| told <= u64::from(count)), count),
    };
    if !is_right {
        return Err(format!(
            "the publisher was told {shown}, where {count} have subscribed"
        ));
    }
    if number_of(json, "dropped").is_some_and(|dropped| dropped > 0) {
        return Err(format!("the server cut subscribers off: {shown}"));
    }
    if shown.contains("\"repeated\"") {
        return Err(format!("a key of its own was taken for another's: {shown}"));
    }
    Ok(())
}

fn push_digits(number: u64, digits: usize, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + digits, b'0');
    let mut rest = number;
    for digit in out[start..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

/// Letters in no order, the same in every run.
fn stock() -> Vec<u8> {
    const LETTERS: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .";
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let letter = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        LETTERS[(state >> 58) as usize]
    };
    (0..STOCK_BYTES).map(letter).collect()
}

/// Appends the frame that a subscriber is to get.
pub(crate) fn push_delivery_frame(notification: &[u8], out: &mut Vec<u8>) {
    frame::push_server_frame(frame::TEXT, &delivery(notification), out);
}

/// Appends the frame that a numbered subscriber is to get.
pub(crate) fn push_numbered_frame(id: &Id, notification: &[u8], out: &mut Vec<u8>) {
    frame::push_server_frame(frame::TEXT, &numbered_delivery(id, notification), out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notifications_have_the_length_that_was_asked_for_and_tell_their_sequence() {
        for topic in [Topic::Channel, Topic::Filter] {
            for bytes in [200, 2048, 200_000] {
                let layout = Layout::new(topic, bytes).expect("long enough");
                for sequence in [0, 7, 999_999_999_999] {
                    let mut notification = Vec::new();
                    layout.push_notification(sequence, 17, &mut notification);
                    assert_eq!(notification.len(), bytes);
                    let payload = delivery(&notification).concat();
                    assert_eq!(layout.sequence_of(&payload), Some(sequence));
                    let id = Id::parse(b"0123456789abcdef-7").expect("an id");
                    let payload = numbered_delivery(&id, &notification).concat();
                    assert_eq!(layout.sequence_of(&payload), Some(sequence));
                    assert_eq!(id_of_delivery(&payload), Some(id));
                    for key in [&b""[..], b"load-7"] {
                        for is_kept in [true, false] {
                            let sent = publish(key, is_kept, &notification).concat();
                            let expected = Published {
                                notification: &notification,
                                is_kept,
                            };
                            assert_eq!(published(&sent), Some(expected));
                        }
                    }
                }
            }
            assert!(Layout::new(topic, 40).is_err());
        }
    }

    #[test]
    fn texts_differ_from_one_notification_to_the_next() {
        let layout = Layout::new(Topic::Filter, 200).expect("long enough");
        let text = |sequence| {
            let mut out = Vec::new();
            layout.push_notification(sequence, 0, &mut out);
            out.split_off(160)
        };
        assert!((0..1000).all(|sequence| text(sequence) != text(sequence + 1)));
    }

    #[test]
    fn subscriptions_are_those_of_the_protocol() {
        let text = |topic, since| {
            let layout = Layout::new(topic, 200).expect("long enough");
            String::from_utf8(layout.subscribe([2, 5].into_iter(), since)).expect("text")
        };
        assert_eq!(
            text(Topic::Channel, None),
            "{\"sender\":\"client\",\"subscriptions\":[\"000002\",\"000005\"]}"
        );
        assert_eq!(
            text(Topic::Channel, Some(b"a-1")),
            "{\"sender\":\"client\",\"subscriptions\":[\"000002\",\"000005\"],\"since\":\"a-1\"}"
        );
        assert!(text(Topic::Filter, None).ends_with(
            ",{\"package\":\"load\",\"page\":\"measure\",\"filters\":{\"values\":{\"channel\":[\"000005\"]}}}]}"
        ));
    }

    #[test]
    fn what_is_published_is_that_of_the_protocol() {
        assert_eq!(
            publish(b"k-1", true, b"{}").concat(),
            b"{\"sender\":\"server\",\"key\":\"k-1\",\"notification\":{}}"
        );
        assert_eq!(
            publish(b"", true, b"{}").concat(),
            b"{\"sender\":\"server\",\"notification\":{}}"
        );
        assert_eq!(
            publish(b"", false, b"{}").concat(),
            b"{\"sender\":\"server\",\"keep\":false,\"notification\":{}}"
        );
    }

    #[test]
    fn ids_are_found_in_answers() {
        let id = Id::parse(b"a-1");
        assert_eq!(id_of(b"{\"delivered\":3,\"id\":\"a-1\"}"), Ok(id));
        assert_eq!(id_of(b"{\"delivered\":3}"), Ok(None));
        assert!(id_of(b"{\"id\":\"a b\"}").is_err());
        assert_eq!(
            text_of(b"{\"reason\":\"expired\"}", "reason"),
            Some("expired")
        );
    }

    #[test]
    fn what_the_publisher_is_told_is_checked() {
        assert_eq!(
            check_delivered(b"{\"delivered\":3}", Recipients::Exactly(3)),
            Ok(())
        );
        assert_eq!(
            check_delivered(b"{\"delivered\": 3,\"dropped\":0}", Recipients::Exactly(3)),
            Ok(())
        );
        assert_eq!(
            check_delivered(b"{\"delivered\":3,\"id\":\"a-1\"}", Recipients::Exactly(3)),
            Ok(())
        );
        for told in [
            "{\"delivered\":2}",
            "{\"delivered\":3,\"dropped\":1}",
            "{\"delivered\":3,\"id\":\"a-1\",\"repeated\":true}",
            "{}",
            "\u{fffd}",
        ] {
            assert!(
                check_delivered(told.as_bytes(), Recipients::Exactly(3)).is_err(),
                "{told}"
            );
        }
    }
}
