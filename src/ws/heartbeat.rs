//! The Ping that finds a dead peer (RFC 6455 §5.5.2): when to send it, and when to give up.
//!
//! Whatever is read counts as life, not only the Pong. The wait for it begins when the Ping
//! has left the send queue: before, the peer can't have seen it. The Pong that comes in the end
//! says how long the way there and back takes.

use std::time::Duration;

use crate::config::Timeouts;
use crate::handover::{Fields, Malformed, Members};
use crate::time::Timestamp;

// Members of a connection.
const HEARD: u8 = 22;
const PING: u8 = 23;
const PING_VALUE: u8 = 24;

// What became of the Ping, in a state.
const NONE: u64 = 0;
const QUEUED: u64 = 1;
const SENT: u64 = 2;
const OUTLIVED: u64 = 3;

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

    /// Where the Ping that is in the queue ends in the stream.
    pub(super) const fn queued_end(&self) -> Option<u64> {
        match self.ping {
            Ping::Queued { end_position } => Some(end_position),
            Ping::None | Ping::Sent { .. } | Ping::Outlived { .. } => None,
        }
    }

    /// Writes what a successor must know.
    pub(super) fn save(&self, members: &mut Members<'_>) {
        let Self { heard, ping } = self;
        members.time(HEARD, Some(*heard));
        match *ping {
            Ping::None => members.number(PING, NONE),
            Ping::Queued { end_position } => {
                members.number(PING, QUEUED);
                members.number(PING_VALUE, end_position);
            }
            Ping::Sent { at } => {
                members.number(PING, SENT);
                members.time(PING_VALUE, Some(at));
            }
            Ping::Outlived { sent_at } => {
                members.number(PING, OUTLIVED);
                members.time(PING_VALUE, Some(sent_at));
            }
        }
    }

    /// What was saved. Whether the queue has the Ping is for the caller to check.
    pub(super) fn restore(fields: &Fields<'_>) -> Result<Self, Malformed> {
        let at = |member| {
            fields
                .time(member)
                .ok_or(Malformed("a heartbeat has no time"))
        };
        Ok(Self {
            heard: at(HEARD)?,
            ping: match fields.number(PING) {
                NONE => Ping::None,
                QUEUED => Ping::Queued {
                    end_position: fields.number(PING_VALUE),
                },
                SENT => Ping::Sent {
                    at: at(PING_VALUE)?,
                },
                OUTLIVED => Ping::Outlived {
                    sent_at: at(PING_VALUE)?,
                },
                _ => return Err(Malformed("what became of a Ping isn't known")),
            },
        })
    }
}
