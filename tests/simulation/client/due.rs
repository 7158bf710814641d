//! What a client has to get, and why it may be closed.

use std::ops::RangeInclusive;
use std::rc::Rc;

/// How many connections a notification was for, and how many of them were cut off over it.
#[derive(Clone, Debug)]
pub(crate) struct Counts {
    pub(crate) recipients: usize,
    pub(crate) dropped: RangeInclusive<usize>,
}

/// What a publisher is told.
#[derive(Clone, Debug)]
pub(crate) struct Receipt {
    pub(crate) counts: Counts,
    /// Of what was published, or of what this is a repetition of.
    pub(crate) id: Option<Rc<str>>,
    pub(crate) is_repeated: bool,
}

/// The position that an id tells, in the only way in which this file knows the product's ids.
fn position(id: &str) -> u64 {
    let position = id.split_once('-').map(|(_, position)| position.parse());
    position.and_then(Result::ok).unwrap_or_default()
}

impl Receipt {
    /// The position in the log that it tells of.
    pub(crate) fn position(&self) -> u64 {
        self.id.as_deref().map_or(0, position)
    }

    /// Whether `text` tells this, between `before` and the end.
    pub(crate) fn is_told_by(&self, text: &str, before: &str) -> bool {
        let Self {
            counts,
            id,
            is_repeated,
        } = self;
        let id = id.as_ref().map(|id| format!(r#","id":"{id}""#));
        let mut more = id.unwrap_or_default();
        if *is_repeated {
            more += r#","repeated":true"#;
        }
        counts.dropped.clone().any(|dropped| {
            let delivered = counts.recipients - dropped;
            let dropped = match dropped {
                _ if *is_repeated => String::new(),
                0 => String::new(),
                _ => format!(r#","dropped":{dropped}"#),
            };
            text == format!(r#"{before}"delivered":{delivered}{dropped}{more}}}"#)
        })
    }
}

/// A text that a client has to get.
#[derive(Debug)]
pub(crate) enum Expected {
    Exactly(Rc<str>),
    /// What the log has at this position.
    Kept(u64, Rc<str>),
    Error(&'static str),
    Published(Receipt),
}

/// What an answer takes at most whose text isn't known to the byte, and what a frame takes beside its payload.
const ANSWER_BYTES_MAX: usize = 400;
const HEADER_BYTES_MAX: usize = 10;

impl Expected {
    /// The position in the log that it tells of.
    pub(super) fn position(&self) -> u64 {
        match self {
            Self::Exactly(text) => id_told_by(text).map_or(0, position),
            Self::Kept(position, _) => *position,
            Self::Error(_) => 0,
            Self::Published(receipt) => receipt.position(),
        }
    }

    /// How long it is at least, if it counts as long as `is_counted` says of a position in the log.
    pub(super) fn bytes_min(&self, is_counted: impl Fn(u64) -> bool) -> usize {
        match self {
            Self::Exactly(text) => text.len(),
            Self::Kept(position, text) if is_counted(*position) => text.len(),
            Self::Kept(..) | Self::Error(_) | Self::Published(_) => 0,
        }
    }

    /// The same, and how long it is at most, as a frame.
    pub(super) fn bytes_max(&self, is_counted: impl Fn(u64) -> bool) -> usize {
        let payload = match self {
            Self::Exactly(_) => self.bytes_min(is_counted),
            Self::Kept(position, _) if !is_counted(*position) => return 0,
            Self::Kept(_, text) => text.len(),
            Self::Error(_) | Self::Published(_) => ANSWER_BYTES_MAX,
        };
        payload + HEADER_BYTES_MAX
    }
}

/// Why the server closes a connection after a message, or by itself.
#[derive(Debug)]
pub(crate) enum Cause {
    Published(Receipt),
    Policy(&'static str),
    Binary,
    Shutdown,
    /// What it was promised isn't there any more.
    Broken,
}

/// The id that a text tells, up to which its reader has all that is for it.
pub(crate) fn id_told_by(text: &str) -> Option<&str> {
    let (kind, members) = text.split_once(',')?;
    let members = match kind {
        r#"{"type":"subscribed""# => members.split_once(r#""heartbeat":25,"#)?.1,
        _ => members,
    };
    let (id, _) = members.strip_prefix(r#""id":""#)?.split_once('"')?;
    Some(id)
}
