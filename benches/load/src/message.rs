//! What travels: notifications of an exact length that carry a sequence number and a text that
//! depends on it, and the subscriptions that match them.
//!
//! Every field has a fixed width, so that a delivery is compared whole with the bytes that are
//! expected, and its sequence number is found without parsing.

use crate::frame;

const DELIVERY_START: &[u8] = b"{\"type\":\"notification\",\"notification\":";
const PUBLISH_START: &[u8] = b"{\"sender\":\"server\",\"notification\":";

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
            topic,
            parts,
            end,
            bytes,
            stock: stock(),
        })
    }

    /// Bytes of a delivery as a frame.
    pub(crate) fn frame_bytes(&self) -> usize {
        self.bytes + DELIVERY_START.len() + 1 + 10
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
        let start = DELIVERY_START.len() + self.parts[0].len() + VALUE_DIGITS + self.parts[1].len();
        let digits = payload.get(start..start + SEQUENCE_DIGITS)?;
        digits.iter().try_fold(0, |sum, digit| {
            digit
                .is_ascii_digit()
                .then(|| sum * 10 + u64::from(digit - b'0'))
        })
    }

    /// The message that subscribes to the values, and to nothing else.
    pub(crate) fn subscribe(&self, values: impl Iterator<Item = u32>) -> Vec<u8> {
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
        text.extend_from_slice(b"]}");
        text
    }
}

/// The pieces of the payload that publishes a notification (2.1).
pub(crate) const fn publish(notification: &[u8]) -> [&[u8]; 3] {
    [PUBLISH_START, notification, b"}"]
}

/// The pieces of the payload that delivers it (2.2).
pub(crate) const fn delivery(notification: &[u8]) -> [&[u8]; 3] {
    [DELIVERY_START, notification, b"}"]
}

/// The notification in a payload that [`publish`] made; for the floor, which parses nothing.
pub(crate) fn published(payload: &[u8]) -> Option<&[u8]> {
    payload.strip_prefix(PUBLISH_START)?.strip_suffix(b"}")
}

/// The number behind `"name":` in flat JSON of ours; for answers and Close reasons.
pub(crate) fn number_of(json: &[u8], name: &str) -> Option<u64> {
    let text = std::str::from_utf8(json).ok()?;
    let (_, rest) = text.split_once(&format!("\"{name}\":"))?;
    let rest = rest.trim_start();
    let end = rest.find(|c: char| !c.is_ascii_digit());
    rest[..end.unwrap_or(rest.len())].parse().ok()
}

/// Checks what the server says about a notification: all expected recipients, none dropped.
pub(crate) fn check_delivered(json: &[u8], expected: u32) -> Result<(), String> {
    let shown = String::from_utf8_lossy(json);
    if number_of(json, "delivered") != Some(u64::from(expected)) {
        return Err(format!(
            "the publisher was told {shown}, where {expected} have subscribed"
        ));
    }
    if number_of(json, "dropped").is_some_and(|dropped| dropped > 0) {
        return Err(format!("the server cut subscribers off: {shown}"));
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
                    let sent = publish(&notification).concat();
                    assert_eq!(published(&sent), Some(&notification[..]));
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
        let text = |topic| {
            let layout = Layout::new(topic, 200).expect("long enough");
            String::from_utf8(layout.subscribe([2, 5].into_iter())).expect("text")
        };
        assert_eq!(
            text(Topic::Channel),
            "{\"sender\":\"client\",\"subscriptions\":[\"000002\",\"000005\"]}"
        );
        assert!(text(Topic::Filter).ends_with(
            ",{\"package\":\"load\",\"page\":\"measure\",\"filters\":{\"values\":{\"channel\":[\"000005\"]}}}]}"
        ));
    }

    #[test]
    fn what_the_publisher_is_told_is_checked() {
        assert_eq!(check_delivered(b"{\"delivered\":3}", 3), Ok(()));
        assert_eq!(
            check_delivered(b"{\"delivered\": 3,\"dropped\":0}", 3),
            Ok(())
        );
        for told in [
            "{\"delivered\":2}",
            "{\"delivered\":3,\"dropped\":1}",
            "{}",
            "\u{fffd}",
        ] {
            assert!(check_delivered(told.as_bytes(), 3).is_err(), "{told}");
        }
    }
}
