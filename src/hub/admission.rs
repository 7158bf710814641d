//! Admission: whether an upgrade is accepted, what is granted to its connection, and which address
//! it counts against.
//!
//! What the policy decides is taken as it is; here it becomes entries in the hub's tables.

use std::net::IpAddr;

use log::debug;

use super::Hub;
use super::access::addresses;
use super::access::policy::PublishRight;
use super::clearances::Verifier;
use super::connections::{CompactAddress, Rights};
use super::holdings::Holdings;
use super::post;
use crate::application::{
    Admission, Lane, PeerAddress, Refusal, Refused, Request, Response, Status,
};
use crate::id::ConnectionId;
use crate::time::Timestamp;

impl Hub {
    /// Lets a connection in, or says why not. One that `stays` is answered when it has published, others are
    /// closed.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn admit(
        &mut self,
        id: ConnectionId,
        request: &Request<'_>,
        stays: bool,
    ) -> Result<Admission, Refused> {
        let decision = self.policy.evaluate(request);
        if !decision.is_origin_allowed {
            return Err(Refused {
                refusal: Refusal::Forbidden,
                response: Response::new(Status::FORBIDDEN, "this origin is not allowed"),
            });
        }
        let (publish, peer) = (decision.publish, decision.peer);
        if let Some(counted) = decision.counted_address {
            self.count_address(counted, peer.address, request.now)
                .map_err(|refused| Refused {
                    refusal: Refusal::RateLimited,
                    response: post::too_many(refused),
                })?;
        }
        let rights = Rights {
            publish,
            stays,
            is_own: decision.is_own,
        };
        self.connections.insert(id, peer, rights);
        let may = match publish {
            PublishRight::Granted => "may publish",
            PublishRight::WithToken => "may publish with a token",
            PublishRight::Never => "may not publish",
        };
        debug!(connection:% = id, peer:% = peer; "{id} is {peer}, and {may}");
        let deadline = match (peer.lane, publish) {
            (Lane::Clients, _) | (_, PublishRight::Granted) => {
                self.await_token(id, request, publish)
            }
            // A peer that shows nothing must not keep publishers out of their own lane.
            (Lane::Publishers, _) => Some(request.now + self.config.token_timeout),
        };
        Ok(Admission {
            on_behalf_of: (peer != request.peer).then_some(peer.address),
            is_limited: decision.is_limited,
            ..self.admission(rights, deadline)
        })
    }

    /// What a connection may have that may publish, or not.
    pub(super) const fn admission(&self, rights: Rights, deadline: Option<Timestamp>) -> Admission {
        let Rights { publish, stays, .. } = rights;
        Admission {
            message_bytes_max: self.message_bytes_max(publish),
            on_behalf_of: None,
            is_limited: !matches!(publish, PublishRight::Granted),
            // It may be a notification with its token.
            drains_after_hang_up: matches!(publish, PublishRight::WithToken),
            closes_last: stays && matches!(publish, PublishRight::Granted),
            deadline,
        }
    }

    /// Bytes of a message from a connection that may publish, or not.
    pub(super) const fn message_bytes_max(&self, publish: PublishRight) -> usize {
        let limits = &self.config.limits;
        match publish {
            PublishRight::Granted => limits.publish_bytes_max,
            PublishRight::WithToken | PublishRight::Never => limits.message_bytes_max,
        }
    }

    /// When a connection has to have shown a client's token, or when the one that it has shown
    /// expires; `None` where it needs none.
    fn await_token(
        &mut self,
        id: ConnectionId,
        request: &Request<'_>,
        publish: PublishRight,
    ) -> Option<Timestamp> {
        let keys = self.policy.client_keys.as_ref()?;
        let token = self.policy.client_token(request.head);
        // A publisher needs none.
        if token.is_none() && publish == PublishRight::Granted {
            return None;
        }
        let verifier = Verifier {
            keys,
            limits: &self.config.limits,
            now: request.now,
            unix_now: request.unix_now,
        };
        let awaited_until = request.now + self.config.token_timeout;
        let token = token.as_deref();
        Some(self.clearances.admit(id, token, &verifier, awaited_until))
    }

    /// Counts one connection or request more against the limits of an address.
    pub(super) fn count_address(
        &mut self,
        counted: IpAddr,
        address: PeerAddress,
        now: Timestamp,
    ) -> Result<(), addresses::Refused> {
        self.addresses.admit(counted, now).inspect_err(|refused| {
            debug!(peer:% = address, reason:% = refused; "{address} is refused: {refused}");
        })
    }

    /// A connection counts against no address any more.
    pub(super) fn uncount(
        &mut self,
        id: ConnectionId,
        publish: PublishRight,
        peer: CompactAddress,
    ) {
        if let Some(address) = self.policy.counted_address(publish, peer.into()) {
            let held = self.holdings_of(id);
            self.addresses.exchange(address, held, Holdings::default());
            self.addresses.leave(address);
        }
    }
}
