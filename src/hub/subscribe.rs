//! Subscribing: what stands in the way of a list of subscriptions, and what it changes.
//!
//! A list is taken whole or not at all: room for it and permission are asked before anything
//! is changed.

use std::hash::BuildHasher;
use std::net::IpAddr;

use log::log;

use super::access::policy::PublishRight;
use super::command::{self, CommandError, ErrorCode};
use super::filter::{Subscription, covers};
use super::holdings::Holdings;
use super::{Clearance, Hub, TOKEN_MISSING, close, reason_of, reply_error};
use crate::application::Outbox;
use crate::id::ConnectionId;
use crate::ws::close::CloseCode;

/// What a list changes of what is limited.
struct Change {
    before: Holdings,
    after: Holdings,
    /// Whose share has to have room for it.
    counts_for: Option<IpAddr>,
}

/// Why a client may not subscribe.
enum Uncleared {
    /// To this: the connection stays.
    Forbidden(CommandError),
    /// At all: the word for the Close.
    Unauthorized(&'static str),
}

impl Hub {
    /// Gives a connection these subscriptions in place of what it had, or tells it why not.
    pub(super) fn subscribe(
        &mut self,
        id: ConnectionId,
        subscriptions: &[Subscription<'_>],
        token: Option<&str>,
        outbox: &mut dyn Outbox,
    ) {
        let change = Change {
            before: self.index.holdings_of(id),
            after: Holdings::of(subscriptions),
            counts_for: self.address_of(id),
        };
        if let Err(error) = self.check_room(id, subscriptions, &change) {
            return reply_error(id, &error, outbox);
        }
        if self.policy.client_keys.is_some() {
            match self.clear(id, subscriptions, token, outbox) {
                Ok(()) => {}
                Err(Uncleared::Forbidden(error)) => return reply_error(id, &error, outbox),
                Err(Uncleared::Unauthorized(reason)) => {
                    self.metrics.tokens_refused += 1;
                    return close(CloseCode::UNAUTHORIZED, reason, outbox);
                }
            }
        }
        self.index.replace(id, subscriptions);
        if let Some(address) = change.counts_for {
            self.addresses
                .exchange(address, change.before, change.after);
        }
        self.list_log.note(id, subscriptions.len(), outbox.now());
        let heartbeat = self.config.ping_interval;
        outbox.reply(&command::subscribed_reply(subscriptions.len(), heartbeat));
    }

    /// The address whose share the subscriptions of a connection count against.
    fn address_of(&self, id: ConnectionId) -> Option<IpAddr> {
        let (rights, peer) = self.connections.find(id)?;
        self.counted_address(rights.publish, peer.into())
    }

    /// Checks that there is room for these, among all and in the share of an address.
    fn check_room(
        &mut self,
        id: ConnectionId,
        subscriptions: &[Subscription<'_>],
        change: &Change,
    ) -> Result<(), CommandError> {
        let limits = &self.config.limits;
        let detail = if !self.index.has_room_for(id, subscriptions, limits) {
            self.metrics.subscriptions_refused_full += 1;
            "the server has as many subscriptions, values or texts as it may for all clients"
        } else if change.counts_for.is_some_and(|address| {
            let Change { before, after, .. } = *change;
            !self.addresses.has_room_for(address, before, after)
        }) {
            self.metrics.subscriptions_refused_share += 1;
            "this address has its share of the subscriptions, values or texts of all clients"
        } else {
            return Ok(());
        };
        Err(CommandError::new(ErrorCode::TooManySubscriptions, detail))
    }

    /// Checks that a client may subscribe to these by the token that comes with them, or by the
    /// one before. A new token replaces the old one together with the subscriptions, or not at
    /// all: nobody keeps what only an older one allows. The one that was granted may come with
    /// every list: it isn't looked at again, so it holds when the key that signed it has gone.
    fn clear(
        &mut self,
        id: ConnectionId,
        subscriptions: &[Subscription<'_>],
        token: Option<&str>,
        outbox: &mut dyn Outbox,
    ) -> Result<(), Uncleared> {
        let rights = self.connections.find(id).map(|(rights, _)| rights);
        let may_publish = rights.is_some_and(|rights| rights.publish == PublishRight::Granted);
        let is_stranger = !may_publish && !self.clearances.contains_key(&id);
        let shown = token.map(|token| self.token_hasher.hash_one(token));
        let clearance = self.clearances.get(&id);
        let is_known = match clearance {
            Some(Clearance::Granted { shown: known, .. }) => shown == Some(*known),
            _ => false,
        };
        let grant = match (token.filter(|_| !is_known), &self.policy.client_keys) {
            // On the publishers' lane a client's token is of no use.
            _ if is_stranger => None,
            (Some(token), Some(keys)) => {
                let grant = keys.verify(token, outbox.unix_now(), &self.config.limits);
                Some(grant.map_err(|error| {
                    let level = self.token_log.level(outbox.now());
                    log!(level, connection:% = id, reason:% = error; "{id}: {error}");
                    Uncleared::Unauthorized(reason_of(error))
                })?)
            }
            _ => None,
        };
        let allowed = match (&grant, clearance) {
            (Some(grant), _) => &grant.allow,
            (None, Some(Clearance::Granted { allowed, .. })) => allowed,
            (None, Some(Clearance::Refused(error))) => {
                return Err(Uncleared::Unauthorized(reason_of(*error)));
            }
            (None, _) => return Err(Uncleared::Unauthorized(TOKEN_MISSING)),
        };
        let is_allowed = |wanted| allowed.iter().any(|allowed| covers(allowed, wanted));
        if let Some(position) = subscriptions.iter().position(|wanted| !is_allowed(wanted)) {
            return Err(Uncleared::Forbidden(CommandError::new(
                ErrorCode::Forbidden,
                format!("subscriptions[{position}] is not among what the token allows"),
            )));
        }
        if let (Some(grant), Some(shown)) = (grant, shown) {
            let until = outbox.now() + grant.time_left(outbox.unix_now());
            let granted = Clearance::Granted {
                allowed: grant.allow,
                until,
                shown,
            };
            self.clearances.insert(id, granted);
            if let Some(rights) = rights {
                outbox.readmit(self.admission(rights, Some(until)));
            }
        }
        Ok(())
    }
}
