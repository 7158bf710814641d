//! What is configured about trust, put together: one question about a request, one [`Decision`].
//!
//! Knows heads of requests and tokens, no connections. Main type: [`Policy`].

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::application::{Lane, Peer, PeerAddress, Request};
use crate::http::head::Head;

use super::addresses::AddressLimits;
use super::console_key::ConsoleKey;
use super::jwt::ClientKeys;
use super::local::{is_foreign, is_local};
use super::origin::AllowedOrigins;
use super::proxy::{Cidr, TrustedProxies};
use super::token_file::PublishTokens;

/// Whether a connection may publish.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PublishRight {
    /// It has shown what it takes.
    Granted,
    /// With a token in its message.
    WithToken,
    /// Not on this connection.
    Never,
}

/// What is configured about trust.
#[derive(Default, Debug)]
pub struct Policy {
    /// Whether being local is enough to publish, where nothing else is asked for.
    pub local_publish: bool,
    /// Whether publishers have a lane of their own, and no business elsewhere.
    pub has_lane: bool,
    /// What publishers have to show.
    pub publish_tokens: Option<PublishTokens>,
    /// What the console on this host has to show, where publishers have something else, or a lane of their own, too.
    pub console_key: Option<ConsoleKey>,
    /// What signs the tokens that clients have to show.
    pub client_keys: Option<ClientKeys>,
    /// The origins that are allowed; `None`: all.
    pub origins: Option<AllowedOrigins>,
    /// The proxies that are believed about the clients behind them.
    pub proxies: TrustedProxies,
    /// Networks that are shown the metrics, beside this host.
    pub metrics_from: Vec<Cidr>,
    /// What one address may take.
    pub address_limits: AddressLimits,
}

/// What the policy says about one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision {
    /// Whether the connection may publish.
    pub publish: PublishRight,
    /// Whether the page that makes the request may make it; a request that no page makes may.
    pub is_origin_allowed: bool,
    /// The peer, or, where that is a trusted proxy, the client that it forwards for.
    pub peer: Peer,
    /// The address whose limits the connection counts against.
    pub counted_address: Option<IpAddr>,
    /// Whether the rates of clients apply to the connection.
    pub is_limited: bool,
    /// Whether it comes from where no stranger is: it may publish, is a program of this host, is on the publishers' lane
    /// and neither a browser nor behind a proxy, or shows a publisher's token that was good before the tokens were read again.
    pub is_own: bool,
}

impl Policy {
    /// Decides about a request, whether it is for an upgrade or not.
    #[must_use]
    pub fn evaluate(&self, request: &Request<'_>) -> Decision {
        let publish = self.publish_right(request);
        let peer = self.client_of(request);
        let is_granted = publish == PublishRight::Granted;
        Decision {
            publish,
            is_origin_allowed: self.allows_origin(request, publish),
            peer,
            counted_address: self.counted_address(publish, peer.address),
            is_limited: !is_granted && !self.is_exempt(request, peer),
            is_own: is_granted || self.is_own(request),
        }
    }

    fn publish_right(&self, request: &Request<'_>) -> PublishRight {
        let lane = request.peer.lane;
        if self.shows_console_key(request) {
            return PublishRight::Granted;
        }
        if self.has_lane && lane == Lane::Clients {
            return PublishRight::Never;
        }
        if let Some(tokens) = &self.publish_tokens {
            let is_shown = bearer(request.head).is_some_and(|token| tokens.accepts(token));
            return if is_shown {
                PublishRight::Granted
            } else {
                PublishRight::WithToken
            };
        }
        let is_trusted = match (lane, request.peer.address.ip()) {
            // The socket's permissions say who may open it.
            (Lane::Publishers, None) => !is_foreign(request.head),
            (Lane::Publishers, Some(_)) => is_local(request),
            (Lane::Clients, _) => self.trusts_local() && is_local(request),
        };
        if is_trusted {
            PublishRight::Granted
        } else {
            PublishRight::Never
        }
    }

    fn shows_console_key(&self, request: &Request<'_>) -> bool {
        let key = self.console_key.as_ref();
        key.is_some_and(|key| {
            let shown = bearer(request.head);
            shown.is_some_and(|shown| key.is_shown_by(request, shown))
        })
    }

    /// Whether a program of this host may publish without anything to show for it.
    #[must_use]
    pub fn trusts_local(&self) -> bool {
        // Behind a proxy, everybody comes from this host.
        self.local_publish
            && !self.has_lane
            && self.publish_tokens.is_none()
            && self.proxies.0.is_empty()
    }

    /// The peer of a request, or, where that is a trusted proxy, the client that it forwards for.
    fn client_of(&self, request: &Request<'_>) -> Peer {
        let peer = request.peer;
        let Some(ip) = peer.address.ip() else {
            return peer;
        };
        let address = match self.proxies.client(ip, request.head) {
            Some(client) if client == ip.to_canonical() => peer.address,
            Some(client) => PeerAddress::Ip(SocketAddr::new(client, 0)),
            None => PeerAddress::Unknown,
        };
        Peer { address, ..peer }
    }

    /// Whether a request, which `client` makes, is this host's own or a trusted proxy's own.
    fn is_exempt(&self, request: &Request<'_>, client: Peer) -> bool {
        let is_proxy = |ip| self.proxies.trusts(ip);
        let is_own = client == request.peer && client.address.ip().is_some_and(is_proxy);
        is_own || is_local(request)
    }

    /// Whether a request that may not publish is the operator's own all the same.
    fn is_own(&self, request: &Request<'_>) -> bool {
        let shown = bearer(request.head);
        (request.peer.lane == Lane::Publishers && !is_foreign(request.head))
            || is_local(request)
            || shown.is_some_and(|token| self.has_accepted(token))
    }

    /// Whether `token` was a publisher's before the tokens were read again.
    #[must_use]
    pub fn has_accepted(&self, token: &[u8]) -> bool {
        let tokens = self.publish_tokens.as_ref();
        tokens.is_some_and(|tokens| tokens.has_accepted(token))
    }

    /// Whether a request is shown the figures: one of a program on this host, or from a network
    /// that was named; behind a trusted proxy, the client's address counts.
    #[must_use]
    pub fn shows_metrics(&self, request: &Request<'_>) -> bool {
        let client = self.client_of(request);
        let is_named = |address| self.metrics_from.iter().any(|cidr| cidr.contains(address));
        client.address.ip().is_some_and(is_named)
            || (self.proxies.0.is_empty() && is_local(request))
    }

    /// The address whose limits a connection counts against. Publishers count against none, nor does this
    /// host, over a Unix socket or not, nor a trusted proxy that speaks for itself. Clients that a proxy
    /// doesn't name share the limits of the unspecified address.
    #[must_use]
    pub fn counted_address(&self, publish: PublishRight, address: PeerAddress) -> Option<IpAddr> {
        match address {
            _ if publish == PublishRight::Granted => None,
            PeerAddress::Unix => None,
            PeerAddress::Unknown => Some(Ipv6Addr::UNSPECIFIED.into()),
            PeerAddress::Ip(address) => {
                let ip = address.ip().to_canonical();
                (!ip.is_loopback() && !self.proxies.trusts(ip)).then_some(ip)
            }
        }
    }

    /// Whether a message's token gives the right to publish.
    #[must_use]
    pub fn accepts_publish_token(&self, token: &str) -> bool {
        let tokens = self.publish_tokens.as_ref();
        tokens.is_some_and(|tokens| tokens.accepts(token.as_bytes()))
    }

    /// The token that a client shows with its upgrade. Where publishers have tokens, the one in
    /// the same place is theirs.
    #[must_use]
    pub fn client_token<'a>(&self, head: &Head<'a>) -> Option<Cow<'a, str>> {
        let token = shown_token(head).map(String::from_utf8_lossy);
        token.filter(|token| !self.accepts_publish_token(token))
    }

    /// Whether the origin of a request is allowed. With a publisher's token, any is.
    fn allows_origin(&self, request: &Request<'_>, publish: PublishRight) -> bool {
        let has_token = publish == PublishRight::Granted && self.publish_tokens.is_some();
        let mut origins = self.origins.iter();
        has_token || origins.all(|origins| origins.allows(request.head))
    }
}

/// The token that an upgrade shows: in `Authorization`, or in the target.
fn shown_token<'a>(head: &Head<'a>) -> Option<&'a [u8]> {
    bearer(head).or_else(|| query_token(head.target).map(str::as_bytes))
}

/// The token of `Authorization: Bearer` (RFC 6750 §2.1); none at all if there are two such fields.
pub fn bearer<'a>(head: &Head<'a>) -> Option<&'a [u8]> {
    let value = head.fields.only_value("Authorization")?;
    let (scheme, token) = value.split_first_chunk::<7>()?;
    scheme
        .eq_ignore_ascii_case(b"Bearer ")
        .then(|| token.trim_ascii())
}

/// The first `token` of the target's query (RFC 6750 §2.3). A JSON Web Token has no byte that
/// would have to be escaped, so nothing is unescaped.
fn query_token(target: &str) -> Option<&str> {
    let (_, query) = target.split_once('?')?;
    let query = query.split('#').next()?;
    query
        .split('&')
        .find_map(|pair| pair.strip_prefix("token="))
}
