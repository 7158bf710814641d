//! What the server trusts in a run, and what a client shows: what follows from both is said here by
//! the protocol's words, not by the product's policy.

use std::net::SocketAddr;

use crieur::application::{Lane, Peer, PeerAddress};
use crieur::hub::access::origin::AllowedOrigins;
use crieur::hub::access::policy::Policy;
use crieur::hub::access::token_file::PublishTokens;

use crate::dice::Dice;

/// What a publisher shows, or puts into its message.
pub(crate) const TOKEN: &str = "0123456789abcdef";
const WRONG_TOKEN: &str = "0123456789abcdeF";

/// Of the server's own pages, of pages that are let in, and of others.
const OWN_ORIGIN: &str = "http://localhost";
const FRIENDLY_ORIGIN: &str = "https://friend.example";
const FOREIGN_ORIGIN: &str = "https://friend.example:8443";

/// What the server was told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trust {
    pub(crate) has_lane: bool,
    pub(crate) has_tokens: bool,
    pub(crate) has_origins: bool,
}

impl Trust {
    pub(crate) fn new(dice: &mut Dice) -> Self {
        Self {
            has_lane: dice.chance(30),
            has_tokens: dice.chance(40),
            has_origins: dice.chance(40),
        }
    }

    /// The same as the product is told it.
    pub(crate) fn policy(self) -> Policy {
        let tokens = || PublishTokens::parse(TOKEN).expect("a token");
        let origins = || AllowedOrigins::parse([FRIENDLY_ORIGIN]).expect("an origin");
        Policy {
            local_publish: true,
            has_lane: self.has_lane,
            publish_tokens: self.has_tokens.then(tokens),
            origins: self.has_origins.then(origins),
            ..Policy::default()
        }
    }
}

/// Whether a client may publish.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Right {
    Granted,
    WithToken,
    Never,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum From {
    ThisHost,
    Elsewhere,
    UnixSocket,
}

/// Where a client comes from and what it shows with its upgrade.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Papers {
    pub(crate) lane: Lane,
    from: From,
    origin: Option<&'static str>,
    token: Option<&'static str>,
}

impl Papers {
    pub(crate) fn new(trust: Trust, dice: &mut Dice) -> Self {
        let (lane, from) = if trust.has_lane && dice.chance(40) {
            let from = [From::ThisHost, From::Elsewhere, From::UnixSocket];
            (Lane::Publishers, dice.pick(&from))
        } else if dice.chance(80) {
            (Lane::Clients, From::ThisHost)
        } else {
            (Lane::Clients, From::Elsewhere)
        };
        let origins = [OWN_ORIGIN, FRIENDLY_ORIGIN, FOREIGN_ORIGIN];
        Self {
            lane,
            from,
            origin: dice.chance(15).then(|| dice.pick(&origins)),
            token: match dice.below(10) {
                0..=3 => Some(TOKEN),
                4 => Some(WRONG_TOKEN),
                _ => None,
            },
        }
    }

    pub(crate) fn peer(&self) -> Peer {
        let address = match self.from {
            From::ThisHost => Some([127, 0, 0, 1]),
            From::Elsewhere => Some([192, 0, 2, 1]),
            From::UnixSocket => None,
        };
        Peer {
            address: address.map_or(PeerAddress::Unix, |address| {
                PeerAddress::Ip(SocketAddr::from((address, 1)))
            }),
            lane: self.lane,
        }
    }

    /// The fields that its upgrade has more than others.
    pub(crate) fn fields(&self) -> String {
        let origin = self.origin.map(|origin| format!("Origin: {origin}\r\n"));
        let token = self.token;
        let token = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
        origin.into_iter().chain(token).collect()
    }

    /// A program of this host, and no browser.
    fn is_local(&self) -> bool {
        self.from == From::ThisHost && self.origin.is_none()
    }

    pub(crate) fn right(&self, trust: Trust) -> Right {
        let is_client = self.lane == Lane::Clients;
        let is_local = self.is_local() || self.from == From::UnixSocket && self.origin.is_none();
        match trust {
            Trust { has_lane: true, .. } if is_client => Right::Never,
            Trust {
                has_tokens: true, ..
            } if self.token == Some(TOKEN) => Right::Granted,
            Trust {
                has_tokens: true, ..
            } => Right::WithToken,
            _ if is_local => Right::Granted,
            _ => Right::Never,
        }
    }

    /// Whether its upgrade is accepted.
    pub(crate) fn is_let_in(&self, trust: Trust) -> bool {
        let is_excused = trust.has_tokens && self.right(trust) == Right::Granted;
        !trust.has_origins || is_excused || self.origin != Some(FOREIGN_ORIGIN)
    }

    /// Whether the rates of clients hold for it.
    pub(crate) fn is_limited(&self, trust: Trust) -> bool {
        self.right(trust) != Right::Granted && !self.is_local()
    }
}
