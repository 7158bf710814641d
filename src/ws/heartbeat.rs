//! The Ping that finds a dead peer (RFC 6455 §5.5.2): when to send it, and when to give up.
//!
//! Whatever is read counts as life, not only the Pong. The wait for it begins when the Ping
//! has left the send queue: before, the peer can't have seen it. The Pong that comes in the end
//! says how long the way there and back takes.

use std::time::Duration;

use crate::config::Timeouts;
use crate::time::Timestamp;

/// What is known of the life of one peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heartbeat {
    /// When the peer was last known to be alive.
    heard: Timestamp,
    ping: Ping,
}

#[derive(Clone, Copy, Debug)]
enum Ping {
    None,
    /// In the send queue; its last byte has this position in the stream.
    Queued {
        end_position: u64,
    },
    /// Sent, and nothing was read since.
    Sent {
        at: Timestamp,
    },
    /// Sent, and something was read since, but not the Pong: it is awaited for its time alone.
    Outlived {
        sent_at: Timestamp,
    },
}

/// What is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Due {
    /// A Ping.
    Ping,
    /// The end: no sign of life came after the Ping.
    End,
}

impl Heartbeat {
    pub(super) const fn new(now: Timestamp) -> Self {
        Self {
            heard: now,
            ping: Ping::None,
        }
    }

    /// A sign of life.
    pub(super) const fn handle_life(&mut self, now: Timestamp) {
        self.heard = now;
        if let Ping::Sent { at } = self.ping {
            self.ping = Ping::Outlived { sent_at: at };
        }
    }

    /// A Pong that may answer the Ping: how long that took, if it has left.
    pub(super) fn handle_pong(&mut self, now: Timestamp) -> Option<Duration> {
        let (Ping::Sent { at: sent_at } | Ping::Outlived { sent_at }) = self.ping else {
            return None;
        };
        self.ping = Ping::None;
        Some(now - sent_at)
    }

    /// The Ping that was due is in the queue and ends at `end_position` of the stream.
    pub(super) const fn handle_ping(&mut self, end_position: u64) {
        self.ping = Ping::Queued { end_position };
    }

    /// The stream has been sent up to `position`.
    pub(super) const fn handle_sent(&mut self, position: u64, now: Timestamp) {
        if let Ping::Queued { end_position } = self.ping
            && position >= end_position
        {
            self.ping = Ping::Sent { at: now };
        }
    }

    /// When something is due; `None` while a Ping can't leave, which others watch over.
    pub(super) fn deadline(&self, timeouts: &Timeouts) -> Option<Timestamp> {
        match self.ping {
            Ping::None | Ping::Outlived { .. } => Some(self.heard + timeouts.ping_interval),
            Ping::Queued { .. } => None,
            Ping::Sent { at } => Some(at + timeouts.pong),
        }
    }

    /// What is due at `now`.
    pub(super) fn due(&self, now: Timestamp, timeouts: &Timeouts) -> Option<Due> {
        self.deadline(timeouts)
            .filter(|deadline| *deadline <= now)?;
        match self.ping {
            Ping::None | Ping::Outlived { .. } => Some(Due::Ping),
            Ping::Queued { .. } => None,
            Ping::Sent { .. } => Some(Due::End),
        }
    }
}
