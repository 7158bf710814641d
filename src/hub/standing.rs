//! What each connection does, as operators are told it: its state, and what is said of it in every answer.
//!
//! Reads the hub's tables and changes nothing.

use std::time::Duration;

use super::Hub;
use super::access::policy::PublishRight;
use super::command::{JsonText, Whom};
use super::connections::CompactAddress;
use super::owed::Line;
use super::recent::{Ended, Tenant};
use crate::application::PeerAddress;
use crate::id::ConnectionId;
use crate::time::Timestamp;

/// What a connection does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// It has subscriptions, and gets what matches.
    Live,
    /// It is being sent what it has missed.
    CatchingUp,
    /// It has no subscriptions yet: its list waits for an id that hasn't been read.
    ListWaits,
    NoSubscriptions,
    /// It has no subscriptions, as it has to show a token first.
    TokenAwaited,
    /// It may publish, and has no subscriptions.
    Publisher,
}

impl State {
    pub(super) const ALL: [Self; 6] = [
        Self::Live,
        Self::CatchingUp,
        Self::ListWaits,
        Self::NoSubscriptions,
        Self::TokenAwaited,
        Self::Publisher,
    ];

    /// The word for it.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::CatchingUp => "catching-up",
            Self::ListWaits => "list-waits",
            Self::NoSubscriptions => "no-subscriptions",
            Self::TokenAwaited => "token-awaited",
            Self::Publisher => "publisher",
        }
    }
}

/// A moment by both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) now: Timestamp,
    /// Since the Unix epoch.
    pub(super) unix_now: Duration,
}

impl Moment {
    /// A time in milliseconds since the Unix epoch.
    pub(super) fn millis(self, at: Timestamp) -> u64 {
        let (ago, ahead) = (self.now - at, at - self.now);
        let time = self.unix_now.saturating_sub(ago).saturating_add(ahead);
        time.as_millis() as u64
    }
}

impl Hub {
    /// What a connection does.
    pub(super) fn state_of(&self, id: ConnectionId, publish: PublishRight) -> State {
        if self.replays.contains(id) {
            State::CatchingUp
        } else if self.index.subscriptions_of(id) > 0 {
            State::Live
        } else if self.owed.line(id).and_then(Line::awaits).is_some() {
            State::ListWaits
        } else if publish == PublishRight::Granted {
            State::Publisher
        } else if self.clearances.has(id) && self.clearances.allowed(id).is_none() {
            State::TokenAwaited
        } else {
            State::NoSubscriptions
        }
    }

    /// Whether a connection is one of those that are asked about.
    pub(super) fn is_meant(
        &self,
        id: ConnectionId,
        address: CompactAddress,
        whom: &Whom<'_>,
    ) -> bool {
        match whom {
            Whom::User(user) => self.clearances.user(id) == Some(user),
            _ => is_meant(id, address, None, whom),
        }
    }

    /// Begins an object with what is said of every connection.
    pub(super) fn begin_connection(
        &self,
        id: ConnectionId,
        address: CompactAddress,
        state: State,
        json: &mut JsonText,
    ) {
        json.begin(None);
        write_tenant(id, address, self.clearances.user(id), json);
        json.plain("state", &state.word());
    }

    /// Writes the connections that have ended, of those that are asked about.
    pub(super) fn write_ended(&self, whom: &Whom<'_>, moment: Moment, json: &mut JsonText) {
        json.begin_list("ended");
        let is_meant = |ended: &&Ended| {
            let Tenant { id, address, user } = &ended.tenant;
            is_meant(*id, *address, user.as_deref(), whom)
        };
        for ended in self.recent.ended().filter(is_meant) {
            let Tenant { id, address, user } = &ended.tenant;
            json.begin(None);
            write_tenant(*id, *address, user.as_deref(), json);
            json.number("at", moment.millis(ended.at));
            json.plain("reason", &ended.reason.unwrap_or("left"));
            json.flag("cut_off", ended.reason.is_some());
            json.number("subscriptions", ended.subscriptions as u64);
            json.end();
        }
        json.end_list();
    }

    /// Whom a connection is of.
    pub(super) fn tenant(&self, id: ConnectionId) -> Option<Tenant> {
        let (_, address) = self.connections.find(id)?;
        let user = self.clearances.user(id).map(Box::from);
        Some(Tenant { id, address, user })
    }

    /// Notes how a connection ends: by a Close of the server for this reason, or as its peer has left. Only the first
    /// counts.
    pub fn note_end(&mut self, id: ConnectionId, reason: Option<&'static str>, now: Timestamp) {
        if !self.connections.note_end(id) {
            return;
        }
        let Some((rights, _)) = self.connections.find(id) else {
            return;
        };
        let subscriptions = self.holdings_of(id).subscriptions as usize;
        let is_publisher = rights.publish == PublishRight::Granted && !rights.stays;
        // It has its receipt, most likely.
        if reason.is_none() && is_publisher && subscriptions == 0 {
            return;
        }
        if let Some(tenant) = self.tenant(id) {
            self.recent.note_end(Ended {
                at: now,
                tenant,
                reason,
                subscriptions,
            });
        }
    }
}

/// What names a connection.
pub(super) fn write_tenant(
    id: ConnectionId,
    address: CompactAddress,
    user: Option<&str>,
    json: &mut JsonText,
) {
    json.plain("connection", &id);
    json.plain("peer", &address);
    if let Some(user) = user {
        json.text("user", user);
    }
}

fn is_meant(
    id: ConnectionId,
    address: CompactAddress,
    user: Option<&str>,
    whom: &Whom<'_>,
) -> bool {
    match whom {
        Whom::Anybody => true,
        Whom::Connection(wanted) => *wanted == id,
        Whom::User(wanted) => user == Some(wanted),
        Whom::Address(wanted) => match PeerAddress::from(address) {
            PeerAddress::Ip(address) => address.ip() == *wanted,
            PeerAddress::Unix | PeerAddress::Unknown => false,
        },
    }
}
