//! Subscribing: what a list of subscriptions needs, and what it changes.
//!
//! A list is taken whole or not at all: room for it and permission are asked before anything
//! is changed.

use std::net::IpAddr;

use super::Hub;
use super::access::policy::PublishRight;
use super::answers::reply_error;
use super::clearances::{Uncleared, Verifier};
use super::command::{CommandError, ErrorCode};
use super::filter::Subscription;
use super::holdings::Holdings;
use crate::application::Outbox;
use crate::id::ConnectionId;
use crate::ws::close::CloseCode;

/// What a list changes of what is limited.
struct Change {
    before: Holdings,
    after: Holdings,
    /// The address whose share has to have room for it.
    counts_for: Option<IpAddr>,
}

impl Hub {
    /// Gives a connection these subscriptions in place of what it had, or tells it why not. With `since` it
    /// numbers its deliveries, and may be caught up first.
    pub(super) fn subscribe(
        &mut self,
        id: ConnectionId,
        subscriptions: &[Subscription<'_>],
        token: Option<&str>,
        since: Option<&str>,
        outbox: &mut dyn Outbox,
    ) {
        let change = Change {
            before: self.holdings_of(id),
            after: Holdings::of(subscriptions),
            counts_for: self.address_of(id),
        };
        if let Err(error) = self.check_room(id, subscriptions, &change) {
            return reply_error(id, &error, outbox);
        }
        match self.clear(id, subscriptions, token, outbox) {
            Ok(()) => {}
            Err(Uncleared::NotAllowed { position }) => {
                let detail = format!("subscriptions[{position}] is not allowed by the token");
                let error = CommandError::new(ErrorCode::Forbidden, detail);
                return reply_error(id, &error, outbox);
            }
            Err(Uncleared::Unauthorized(why)) => {
                self.metrics.tokens_refused += 1;
                return self.close(id, CloseCode::UNAUTHORIZED, why.reason(), outbox);
            }
        }
        if let Some(address) = change.counts_for {
            self.addresses
                .exchange(address, change.before, change.after);
        }
        self.list_log.note(id, subscriptions.len(), outbox.now());
        // Whatever it was being caught up with, it has asked for something else.
        self.replays.remove(id);
        match since {
            Some(since) => self.subscribe_since(id, subscriptions, since, outbox),
            None => self.go_live(id, subscriptions, outbox),
        }
    }

    /// The address whose share the subscriptions of a connection count against.
    fn address_of(&self, id: ConnectionId) -> Option<IpAddr> {
        let (rights, peer) = self.connections.find(id)?;
        self.policy.counted_address(rights.publish, peer.into())
    }

    /// Checks that there is room for these, among all and in the share of an address.
    fn check_room(
        &mut self,
        id: ConnectionId,
        subscriptions: &[Subscription<'_>],
        change: &Change,
    ) -> Result<(), CommandError> {
        let limits = &self.config.limits;
        let others = self.replays.holdings_beside(id);
        let detail = if !self.index.has_room_for(id, subscriptions, others, limits) {
            self.metrics.subscriptions_refused_full += 1;
            "the server has no room for more subscriptions, values or texts"
        } else if change.counts_for.is_some_and(|address| {
            let Change { before, after, .. } = *change;
            !self.addresses.has_room_for(address, before, after)
        }) {
            self.metrics.subscriptions_refused_share += 1;
            "this address has used up its share of subscriptions, values or texts"
        } else {
            return Ok(());
        };
        Err(CommandError::new(ErrorCode::TooManySubscriptions, detail))
    }

    /// Checks by its tokens that a connection may subscribe to these.
    fn clear(
        &mut self,
        id: ConnectionId,
        subscriptions: &[Subscription<'_>],
        token: Option<&str>,
        outbox: &mut dyn Outbox,
    ) -> Result<(), Uncleared> {
        let Some(keys) = &self.policy.client_keys else {
            return Ok(());
        };
        let rights = self.connections.find(id).map(|(rights, _)| rights);
        let may_publish = rights.is_some_and(|rights| rights.publish == PublishRight::Granted);
        // On the publishers' lane a client's token is of no use.
        let takes_token = may_publish || self.clearances.has(id);
        let verifier = Verifier {
            keys,
            limits: &self.config.limits,
            now: outbox.now(),
            unix_now: outbox.unix_now(),
        };
        let token = token.filter(|_| takes_token);
        let expiry = self.clearances.check(id, subscriptions, token, &verifier)?;
        if let (Some(until), Some(rights)) = (expiry, rights) {
            outbox.readmit(id, &self.admission(rights, Some(until)));
        }
        Ok(())
    }
}
