//! Clearances: what clients have shown that need a token, and what they may subscribe to by it.
//!
//! Knows ids, tokens and the time; neither what connections are nor what they are told. Main type:
//! [`Clearances`]. Invariants: where clients need tokens, a connection has a clearance from its
//! upgrade until it is gone, unless it could publish when it came or is on the publishers' lane;
//! subscriptions and the token that allows them are replaced together; the table has room for
//! little more than what is in it.

use std::collections::HashMap;
use std::time::Duration;

use log::log;
use sha2::{Digest, Sha256};

use super::access::jwt::{ClientKeys, TokenError, USER_BYTES_MAX};
use super::command;
use super::filter::{Subscription, covers};
use crate::config::HubLimits;
use crate::handover::{Fields, Malformed, Members};
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
    /// Lines about clients without a good token.
    log: LogLimit,
}

/// What one connection has shown.
pub(super) enum Clearance {
    /// Nothing yet.
    Awaited,
    /// A good token.
    Granted(Granted),
    /// A bad token with its upgrade.
    Refused(Unauthorized),
}

/// What a good token grants.
pub(super) struct Granted {
    /// What may be subscribed to.
    allowed: Vec<Subscription<'static>>,
    /// When the token expires.
    until: Timestamp,
    /// Whether what was published before may be asked for.
    allows_history: bool,
    /// By what the token is known again.
    shown: Shown,
    /// Whose it is, for people.
    user: Option<Box<str>>,
}

const SHOWN_BYTES: usize = 16;

/// The first half of the SHA-256 of a token: another process knows the token by it too, and nobody makes one that is
/// taken for another.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Shown([u8; SHOWN_BYTES]);

impl Shown {
    fn of(token: &str) -> Self {
        let hash: [u8; 2 * SHOWN_BYTES] = Sha256::digest(token.as_bytes()).into();
        let (half, _) = hash.split_first_chunk().expect("it is twice as long");
        Self(*half)
    }
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
        let verified = token.map(|token| self.verify(id, token, Shown::of(token), verifier));
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
        let token = token.map(|token| (token, Shown::of(token)));
        let new = match token.filter(|&(_, shown)| !self.is_known(id, shown)) {
            Some((token, shown)) => Some(
                self.verify(id, token, shown, verifier)
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
        Some(self.granted(id)?.until)
    }

    /// Whose token a connection has shown, for people.
    pub(super) fn user(&self, id: ConnectionId) -> Option<&str> {
        self.granted(id)?.user.as_deref()
    }

    /// What a connection may subscribe to by its token; `None` if it has shown no good one.
    pub(super) fn allowed(&self, id: ConnectionId) -> Option<&[Subscription<'static>]> {
        Some(&self.granted(id)?.allowed)
    }

    fn granted(&self, id: ConnectionId) -> Option<&Granted> {
        match self.table.get(&id)? {
            Clearance::Granted(granted) => Some(granted),
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

    /// Writes what a connection has shown; of one without a clearance, nothing.
    pub(super) fn save(&self, id: ConnectionId, members: &mut Members<'_>) {
        let Self {
            table,
            // Its bursts begin anew.
            log: _,
        } = self;
        if let Some(clearance) = table.get(&id) {
            clearance.save(members);
        }
    }

    /// Gives a connection the clearance that was written.
    pub(super) fn carry(&mut self, id: ConnectionId, clearance: Clearance) {
        self.table.insert(id, clearance);
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

    /// Whether what is `shown` is the token that the connection was granted its clearance for.
    fn is_known(&self, id: ConnectionId, shown: Shown) -> bool {
        match self.table.get(&id) {
            Some(Clearance::Granted(granted)) => granted.shown == shown,
            _ => false,
        }
    }

    fn verify(
        &mut self,
        id: ConnectionId,
        token: &str,
        shown: Shown,
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
                shown,
                user: grant.user,
            }),
            Err(error) => {
                let level = self.log.level(now);
                log!(level, connection:% = id, reason:% = error; "{id}: {error}");
                Err(error.into())
            }
        }
    }
}

// Members of a connection's record, among those of hub/saved.rs.
const KIND: u8 = 3;
const REASON: u8 = 4;
const ALLOWED: u8 = 5;
const UNTIL: u8 = 6;
const SHOWN: u8 = 7;
const ALLOWS_HISTORY: u8 = 18;
const USER: u8 = 24;

// What KIND says.
const NONE: u64 = 0;
const AWAITED: u64 = 1;
const GRANTED: u64 = 2;
const REFUSED: u64 = 3;

impl Clearance {
    fn save(&self, members: &mut Members<'_>) {
        match self {
            Self::Awaited => members.number(KIND, AWAITED),
            Self::Granted(granted) => {
                members.number(KIND, GRANTED);
                granted.save(members);
            }
            Self::Refused(why) => {
                members.number(KIND, REFUSED);
                members.number(REASON, why.number());
            }
        }
    }

    /// Reads what was written of a connection, if it has a clearance.
    ///
    /// # Errors
    /// It is none that there is.
    pub(super) fn restore(fields: &Fields<'_>) -> Result<Option<Self>, Malformed> {
        match fields.number(KIND) {
            NONE => Ok(None),
            AWAITED => Ok(Some(Self::Awaited)),
            GRANTED => Granted::restore(fields).map(|granted| Some(Self::Granted(granted))),
            REFUSED => {
                Unauthorized::from_number(fields.number(REASON)).map(|why| Some(Self::Refused(why)))
            }
            _ => Err(Malformed("a clearance is of no kind that there is")),
        }
    }
}

impl Granted {
    fn save(&self, members: &mut Members<'_>) {
        let Self {
            allowed,
            until,
            allows_history,
            shown: Shown(shown),
            user,
        } = self;
        let mut list = Vec::new();
        command::write_subscriptions(allowed, &mut list);
        members.bytes(ALLOWED, &list);
        members.time(UNTIL, Some(*until));
        members.number(ALLOWS_HISTORY, u64::from(*allows_history));
        members.bytes(SHOWN, shown);
        members.bytes(USER, user.as_deref().unwrap_or_default().as_bytes());
    }

    fn restore(fields: &Fields<'_>) -> Result<Self, Malformed> {
        let allowed = command::parse_list(fields.text(ALLOWED)?)?;
        let shown = fields.bytes(SHOWN).try_into();
        let user = fields.text(USER)?;
        if user.len() > USER_BYTES_MAX {
            return Err(Malformed("the label of a token is too long"));
        }
        Ok(Self {
            allowed: allowed.into_iter().map(Subscription::into_owned).collect(),
            until: fields.time(UNTIL).ok_or(Malformed("a token has no end"))?,
            allows_history: fields.number(ALLOWS_HISTORY) != 0,
            shown: Shown(shown.map_err(|_| Malformed("a token's hash isn't as long as one"))?),
            user: (!user.is_empty()).then(|| user.into()),
        })
    }
}

impl Unauthorized {
    /// What stands for it in a state.
    const fn number(self) -> u64 {
        match self {
            Self::Missing => 1,
            Self::Expired => 2,
            Self::Invalid => 3,
        }
    }

    fn from_number(number: u64) -> Result<Self, Malformed> {
        let all = [Self::Missing, Self::Expired, Self::Invalid];
        let why = all.into_iter().find(|why| why.number() == number);
        why.ok_or(Malformed("a token is refused for no reason that there is"))
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
            let deadline = self.clearances.admit(ID, token, &verifier, at(110));
            self.carry();
            deadline
        }

        /// Goes on with what is written of the clearances, and read.
        fn carry(&mut self) {
            let bytes = saved(&self.clearances);
            let mut carried = Clearances::default();
            let fields = Fields::parse(&bytes).expect("members");
            if let Some(clearance) = Clearance::restore(&fields).expect("a clearance") {
                carried.carry(ID, clearance);
            }
            assert_eq!(saved(&carried), bytes);
            carried.check_invariants(|id| id == ID);
            self.clearances = carried;
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
            self.carry();
            result
        }
    }

    fn saved(clearances: &Clearances) -> Vec<u8> {
        let mut bytes = Vec::new();
        clearances.save(ID, &mut Members::new(&mut bytes));
        bytes
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

    #[test]
    fn what_is_no_clearance_is_malformed() {
        let good = |members: &mut Members<'_>| {
            members.number(KIND, GRANTED);
            members.bytes(ALLOWED, b"[]");
            members.time(UNTIL, Some(at(1)));
            members.bytes(SHOWN, &[7; SHOWN_BYTES]);
        };
        let restored = |write: &dyn Fn(&mut Members<'_>)| {
            let mut bytes = Vec::new();
            good(&mut Members::new(&mut bytes));
            // What comes later counts.
            write(&mut Members::new(&mut bytes));
            Clearance::restore(&Fields::parse(&bytes).expect("members"))
                .map(|known| known.is_some())
        };
        assert_eq!(restored(&|_| {}), Ok(true));
        for kind in [AWAITED, 4, u64::MAX] {
            let is_there = restored(&|members| members.number(KIND, kind));
            assert_eq!(is_there.is_ok(), kind == AWAITED);
        }
        for reason in 0..5 {
            let is_there = restored(&|members| {
                members.number(KIND, REFUSED);
                members.number(REASON, reason);
            });
            assert_eq!(is_there.is_ok(), (1..=3).contains(&reason));
        }
        assert!(restored(&|members| members.bytes(ALLOWED, b"[7]")).is_err());
        assert!(restored(&|members| members.bytes(ALLOWED, b"\xff")).is_err());
        assert!(restored(&|members| members.present_bytes(ALLOWED, b"")).is_err());
        assert!(restored(&|members| members.bytes(UNTIL, b"1")).is_err());
        assert!(restored(&|members| members.bytes(USER, b"\xff")).is_err());
        for (len, is_good) in [(USER_BYTES_MAX, true), (USER_BYTES_MAX + 1, false)] {
            let is_there = restored(&|members| members.bytes(USER, "u".repeat(len).as_bytes()));
            assert_eq!(is_there.is_ok(), is_good);
        }
        for len in [0, SHOWN_BYTES - 1, SHOWN_BYTES + 1] {
            assert!(restored(&|members| members.present_bytes(SHOWN, &vec![7; len])).is_err());
        }
    }

    #[test]
    fn a_token_is_known_by_half_of_its_sha_256() {
        // FIPS 180-2, appendix B.1.
        let half = [
            0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea, 0x41, 0x41, 0x40, 0xde, 0x5d, 0xae,
            0x22, 0x23,
        ];
        assert_eq!(Shown::of("abc").0, half);
    }
}
