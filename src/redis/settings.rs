//! Which stream is used, and within which bounds.

use std::time::Duration;

/// Which stream is used, and within which bounds.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The key of the stream; the other keys begin with it and a colon.
    pub stream: Box<str>,
    /// How many entries the stream keeps, about.
    pub maxlen: usize,
    /// How long an answer of Redis is waited for; at least two milliseconds.
    pub timeout: Duration,
    /// How far back the history reaches, and how long a key is remembered.
    pub history: Duration,
    /// Whether the entry with this `n` takes a position: it is valid, and kept.
    pub takes_position: fn(&str) -> bool,
}

impl Settings {
    /// The key of the epoch.
    pub(super) fn epoch_key(&self) -> String {
        format!("{}:epoch", self.stream)
    }

    /// How long a read waits for entries, in milliseconds; never 0, which would be for ever.
    pub(super) fn block_millis(&self) -> u64 {
        let millis = self.timeout.as_millis() / 2;
        u64::try_from(millis).unwrap_or(u64::MAX).max(1)
    }
}
