//! Clearances: what clients have shown that need a token, and what they may subscribe to by it.
//!
//! Knows ids, tokens and the time; neither what connections are nor what they are told. Main type:
//! [`Clearances`]. Invariants: where clients need tokens, a connection has a clearance from its
//! upgrade until it is gone, unless it could publish when it came or is on the publishers' lane;
//! subscriptions and the token that allows them are replaced together; the table has room for
//! little more than what is in it.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use log::log;

use super::access::jwt::{ClientKeys, TokenError};
use super::filter::{Subscription, covers};
use crate::config::HubLimits;
use crate::id::ConnectionId;
use crate::log_limit::LogLimit;
use crate::time::Timestamp;
use crate::ws::close::CloseCode;

/// The table is made smaller when it has this many times more room than entries.
const SPARSE_FACTOR: usize = 4;

/// Entries for which the smallest table has room.
const CAPACITY_MIN: usize = 4;

/// What the connections have shown that need a token.
#[derive(Default)]
pub(super) struct Clearances {
    table: HashMap<ConnectionId, Clearance>,
    /// Keyed, so that nobody makes a token with the hash of another.
    token_hasher: RandomState,
    /// Lines about clients without a good token.
    log: LogLimit,
}

enum Clearance {
    /// Nothing yet.
    Awaited,
    /// A good token.
    Granted(Granted),
    /// A bad token with its upgrade.
    Refused(Unauthorized),
}

/// What a good token grants.
struct Granted {
    /// What may be subscribed to.
    allowed: Vec<Subscription<'static>>,
    /// When the token expires.
    until: Timestamp,
    /// Whether what was published before may be asked for.
    allows_history: bool,
    /// The token's hash, by which it is known again.
    shown: u64,
}

/// Why a connection is closed that has no good token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unauthorized {
    /// It has shown none.
    Missing,
    /// The one that it has shown has expired.
    Expired,
    /// The one that it has shown breaks another rule.
    Invalid,
}

impl Unauthorized {
    /// The word for it in a Close.
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Missing => "token-missing",
            Self::Expired => "token-expired",
            Self::Invalid => "token-invalid",
        }
    }
}

impl From<TokenError> for Unauthorized {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Expired => Self::Expired,
            _ => Self::Invalid,
        }
    }
}

/// Why a connection may not subscribe to a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Uncleared {
    /// The token does not allow the subscription at this position; others it may allow.
    NotAllowed { position: usize },
    /// The connection may not subscribe at all.
    Unauthorized(Unauthorized),
}

/// What tokens are verified by, and when.
pub(super) struct Verifier<'a> {
    pub(super) keys: &'a ClientKeys,
    pub(super) limits: &'a HubLimits,
    pub(super) now: Timestamp,
    pub(super) unix_now: Duration,
}

impl Clearances {
    /// Notes what a client shows with its upgrade; without a token it has until `awaited_until`
    /// to show one. Returns when [`Clearances::reason_to_close`] is to be asked: a Close tells the
    /// client of a bad token, because browsers show that to the page, unlike the status of an
    /// upgrade.
    pub(super) fn admit(
        &mut self,
        id: ConnectionId,
        token: Option<&str>,
        verifier: &Verifier<'_>,
        awaited_until: Timestamp,
    ) -> Timestamp {
        let verified = token.map(|token| self.verify(id, token, verifier));
        let (clearance, deadline) = match verified {
            None => (Clearance::Awaited, awaited_until),
            Some(Ok(granted)) => {
                let until = granted.until;
                (Clearance::Granted(granted), until)
            }
            Some(Err(why)) => (Clearance::Refused(why), verifier.now),
        };
        self.table.insert(id, clearance);
        deadline
    }

    /// Checks that a client may subscribe to these by the token that comes with them, or by the
    /// one before. Returns when a token that was shown for the first time expires.
    ///
    /// A new token replaces the old one together with the subscriptions, or not at all: no client
    /// keeps what only an older one allows. The one that was granted may come with every list: it
    /// isn't looked at again, so it holds when the key that signed it has gone.
    pub(super) fn check(
        &mut self,
        id: ConnectionId,
        subscriptions: &[Subscription<'_>],
        token: Option<&str>,
        verifier: &Verifier<'_>,
    ) -> Result<Option<Timestamp>, Uncleared> {
        let new = match token.filter(|token| !self.is_known(id, token)) {
            Some(token) => Some(
                self.verify(id, token, verifier)
                    .map_err(Uncleared::Unauthorized)?,
            ),
            None => None,
        };
        let allowed = match (&new, self.table.get(&id)) {
            (Some(granted), _) | (None, Some(Clearance::Granted(granted))) => &granted.allowed,
            (None, Some(Clearance::Refused(why))) => return Err(Uncleared::Unauthorized(*why)),
            (None, Some(Clearance::Awaited) | None) => {
                return Err(Uncleared::Unauthorized(Unauthorized::Missing));
            }
        };
        let is_allowed = |wanted| allowed.iter().any(|allowed| covers(allowed, wanted));
        if let Some(position) = subscriptions.iter().position(|wanted| !is_allowed(wanted)) {
            return Err(Uncleared::NotAllowed { position });
        }
        Ok(new.map(|granted| {
            let until = granted.until;
            self.table.insert(id, Clearance::Granted(granted));
            until
        }))
    }

    /// Whether a connection has a clearance, even if no token has been shown for it yet.
    pub(super) fn has(&self, id: ConnectionId) -> bool {
        self.table.contains_key(&id)
    }

    /// Whether a connection may be caught up with what was published before; only a token says no.
    pub(super) fn allows_history(&self, id: ConnectionId) -> bool {
        match self.table.get(&id) {
            Some(Clearance::Granted(granted)) => granted.allows_history,
            Some(Clearance::Awaited | Clearance::Refused(_)) | None => true,
        }
    }

    /// When the token of a connection expires.
    pub(super) fn expiry(&self, id: ConnectionId) -> Option<Timestamp> {
        match self.table.get(&id)? {
            Clearance::Granted(granted) => Some(granted.until),
            Clearance::Awaited | Clearance::Refused(_) => None,
        }
    }

    /// Why a connection is closed when its deadline has come, for the log; `None` if it has no
    /// clearance.
    pub(super) fn reason_to_close(
        &mut self,
        id: ConnectionId,
        now: Timestamp,
    ) -> Option<&'static str> {
        let why = match self.table.get(&id)? {
            Clearance::Awaited => Unauthorized::Missing,
            Clearance::Granted(_) => Unauthorized::Expired,
            Clearance::Refused(why) => *why,
        };
        let (reason, code) = (why.reason(), CloseCode::UNAUTHORIZED.as_u16());
        let level = self.log.level(now);
        log!(level, connection:% = id, code = code, reason = reason; "{id} is closed: {reason}");
        Some(reason)
    }

    /// Forgets a connection that is gone.
    pub(super) fn remove(&mut self, id: ConnectionId) {
        self.table.remove(&id);
        if self.table.capacity() > SPARSE_FACTOR * self.table.len() {
            self.table.shrink_to(2 * self.table.len());
        }
    }

    /// Bytes on the heap, about, without what tokens allow.
    pub(super) fn heap_bytes(&self) -> usize {
        self.table.capacity() * size_of::<(ConnectionId, Clearance)>()
    }

    /// Asserts what must hold between two calls; `is_connected` knows the connections.
    pub(super) fn check_invariants(&self, is_connected: impl Fn(ConnectionId) -> bool) {
        assert!(self.table.keys().all(|&id| is_connected(id)));
        assert!(self.table.capacity() <= SPARSE_FACTOR * self.table.len().max(CAPACITY_MIN));
    }

    /// Whether `token` is the one that the connection was granted its clearance for.
    fn is_known(&self, id: ConnectionId, token: &str) -> bool {
        match self.table.get(&id) {
            Some(Clearance::Granted(granted)) => granted.shown == self.token_hasher.hash_one(token),
            _ => false,
        }
    }

    fn verify(
        &mut self,
        id: ConnectionId,
        token: &str,
        verifier: &Verifier<'_>,
    ) -> Result<Granted, Unauthorized> {
        let &Verifier {
            keys,
            limits,
            now,
            unix_now,
        } = verifier;
        match keys.verify(token, unix_now, limits) {
            Ok(grant) => Ok(Granted {
                until: now + grant.time_left(unix_now),
                allowed: grant.allow,
                allows_history: grant.history,
                shown: self.token_hasher.hash_one(token),
            }),
            Err(error) => {
                let level = self.log.level(now);
                log!(level, connection:% = id, reason:% = error; "{id}: {error}");
                Err(error.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    /// `{"exp":1000,"allow":["a"]}`
    const A: &str = "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjEwMDAsImFsbG93IjpbImEiXX0.vj7Patr6mhiQOlkjs6LcrV2g24S2TatFbesO7pV47V8";
    /// `{"exp":2000,"allow":["b"]}`
    const B: &str = "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjIwMDAsImFsbG93IjpbImIiXX0.5MOgdFsdlmOdwDCJUJX4oQy-EIuSDiV17vKtyPxBc1E";
    /// `{"exp":10,"allow":["a"]}`
    const OLD: &str = "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjEwLCJhbGxvdyI6WyJhIl19.u1gqyUpT0YCGz7FQZcvTTNBC7QhMXFDLtBX5hOJUH7c";

    const ID: ConnectionId = ConnectionId {
        index: 3,
        serial: 1,
    };
    const MISSING: Uncleared = Uncleared::Unauthorized(Unauthorized::Missing);
    const EXPIRED: Uncleared = Uncleared::Unauthorized(Unauthorized::Expired);
    const INVALID: Uncleared = Uncleared::Unauthorized(Unauthorized::Invalid);

    const fn at(seconds: u64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    /// Clearances at second 100 by both clocks.
    struct Bench {
        clearances: Clearances,
        keys: ClientKeys,
        limits: HubLimits,
    }

    impl Bench {
        fn new() -> Self {
            Self {
                clearances: Clearances::default(),
                keys: ClientKeys::parse(KEY).expect("a key"),
                limits: HubLimits::default(),
            }
        }

        fn admit(&mut self, token: Option<&str>) -> Timestamp {
            let verifier = verifier(&self.keys, &self.limits);
            self.clearances.admit(ID, token, &verifier, at(110))
        }

        fn check(
            &mut self,
            channels: &[&'static str],
            token: Option<&str>,
        ) -> Result<Option<Timestamp>, Uncleared> {
            let channels = channels.iter().copied();
            let list: Vec<_> = channels
                .map(|channel| Subscription::Channel(channel.into()))
                .collect();
            let verifier = verifier(&self.keys, &self.limits);
            let result = self.clearances.check(ID, &list, token, &verifier);
            self.clearances.check_invariants(|id| id == ID);
            result
        }
    }

    fn verifier<'a>(keys: &'a ClientKeys, limits: &'a HubLimits) -> Verifier<'a> {
        Verifier {
            keys,
            limits,
            now: at(100),
            unix_now: Duration::from_secs(100),
        }
    }

    #[test]
    fn a_token_may_come_with_the_upgrade_or_with_a_list() {
        let mut bench = Bench::new();
        assert_eq!(bench.admit(Some(A)), at(1000));
        assert_eq!(bench.check(&["a"], None), Ok(None));

        let mut bench = Bench::new();
        assert_eq!(bench.admit(None), at(110));
        assert_eq!(bench.check(&["a"], None), Err(MISSING));
        assert_eq!(bench.check(&["a"], Some(A)), Ok(Some(at(1000))));
        assert_eq!(bench.clearances.expiry(ID), Some(at(1000)));
    }

    #[test]
    fn a_new_token_takes_over_with_its_list_or_not_at_all() {
        let mut bench = Bench::new();
        bench.admit(Some(A));
        let refused = Uncleared::NotAllowed { position: 1 };
        assert_eq!(bench.check(&["b", "a"], Some(B)), Err(refused));
        assert_eq!(bench.check(&["a"], None), Ok(None));
        assert_eq!(bench.check(&["b"], Some(B)), Ok(Some(at(2000))));
        let refused = Uncleared::NotAllowed { position: 0 };
        assert_eq!(bench.check(&["a"], None), Err(refused));
    }

    #[test]
    fn a_token_that_was_granted_is_not_verified_again() {
        let mut bench = Bench::new();
        bench.admit(Some(A));
        bench.keys = ClientKeys::parse(&KEY.replace('0', "1")).expect("a key");
        assert_eq!(bench.check(&["a"], Some(A)), Ok(None));
        assert_eq!(bench.check(&["b"], Some(B)), Err(INVALID));
    }

    #[test]
    fn a_connection_is_closed_for_what_its_token_lacks() {
        for (token, deadline, why) in [
            (None, at(110), Unauthorized::Missing),
            (Some(A), at(1000), Unauthorized::Expired),
            (Some(OLD), at(100), Unauthorized::Expired),
            (Some("a.b.c"), at(100), Unauthorized::Invalid),
        ] {
            let mut bench = Bench::new();
            assert_eq!(bench.admit(token), deadline);
            let reason = bench.clearances.reason_to_close(ID, deadline);
            assert_eq!(reason, Some(why.reason()));
            bench.clearances.remove(ID);
            assert_eq!(bench.clearances.reason_to_close(ID, deadline), None);
            assert_eq!(bench.clearances.heap_bytes(), 0);
        }
        let mut bench = Bench::new();
        bench.admit(Some(OLD));
        assert_eq!(bench.check(&["a"], None), Err(EXPIRED));
    }
}
