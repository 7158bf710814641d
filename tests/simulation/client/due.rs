//! What a client has to get, and why it may be closed.

use std::ops::RangeInclusive;
use std::rc::Rc;

/// How many connections a notification was for, and how many of them were cut off over it.
#[derive(Clone, Debug)]
pub(crate) struct Counts {
    pub(crate) recipients: usize,
    pub(crate) dropped: RangeInclusive<usize>,
}

impl Counts {
    /// Whether `text` tells these, between `before` and `after`.
    pub(super) fn are_told_by(&self, text: &str, before: &str) -> bool {
        self.dropped.clone().any(|dropped| {
            let delivered = self.recipients - dropped;
            let more = match dropped {
                0 => String::new(),
                _ => format!(r#","dropped":{dropped}"#),
            };
            text == format!(r#"{before}"delivered":{delivered}{more}}}"#)
        })
    }
}

/// A text that a client has to get.
#[derive(Debug)]
pub(crate) enum Expected {
    Exactly(Rc<str>),
    Error(&'static str),
    Published(Counts),
}

impl Expected {
    /// How long it is at least.
    pub(super) fn bytes_min(&self) -> usize {
        match self {
            Self::Exactly(text) => text.len(),
            Self::Error(_) | Self::Published(_) => 0,
        }
    }
}

/// Why the server closes a connection after a message, or by itself.
#[derive(Debug)]
pub(crate) enum Cause {
    Published(Counts),
    Policy(&'static str),
    Binary,
    Shutdown,
}
