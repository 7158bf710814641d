//! Every limit and every time of the server, with its default, in one place.
//!
//! What is in a `Config` has been validated: the parts that use it check nothing again.

use std::time::Duration;

/// What the hub allows to one connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HubLimits {
    /// Subscriptions that a connection may have at once.
    pub subscriptions_max: usize,
    /// Values in all subscriptions of a connection together; a wildcard counts as one.
    pub values_max: usize,
    /// Bytes of a message from a connection that may not publish.
    pub message_bytes_max: usize,
    /// Bytes of a message from a connection that may publish by where it comes from.
    pub publish_bytes_max: usize,
}

impl Default for HubLimits {
    fn default() -> Self {
        Self {
            subscriptions_max: 256,
            values_max: 1024,
            message_bytes_max: 64 * 1024,
            publish_bytes_max: 1024 * 1024,
        }
    }
}

/// What the hub needs to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HubConfig {
    /// The limits of a connection.
    pub limits: HubLimits,
    /// After how much silence the server pings; told to clients.
    pub ping_interval: Duration,
    /// Whether a local peer may publish.
    pub local_publish: bool,
}

impl Default for HubConfig {
    fn default() -> Self {
        Self {
            limits: HubLimits::default(),
            ping_interval: Duration::from_secs(25),
            local_publish: true,
        }
    }
}
