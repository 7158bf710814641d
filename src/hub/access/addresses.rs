//! What each address does, so that none does too much: how many connections it has, how fast
//! it asks for new ones, and what they have subscribed to.
//!
//! Knows addresses and the time, no requests. Main type: [`Addresses`]. Invariants: an address
//! that has connections is in the table; of those that have none, at most
//! [`IDLE_MAX`] are, the ones that were heard of last, and they hold no subscriptions.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::hub::holdings::Holdings;
use crate::time::Timestamp;

/// Addresses without connections that are remembered for the rate of their upgrades. A peer
/// with more addresses gains nothing when they are forgotten: each of them has a burst of its own.
pub const IDLE_MAX: usize = 16_384;

/// Addresses that are looked at in each call whether they can be forgotten: more than a call can
/// add, so that the table shrinks under load.
const SWEPT_MAX: usize = 2;

/// Seconds of the rate that may come at once.
const BURST_SECONDS: f64 = 2.0;

/// The table is made smaller when it has this many times more room than entries.
const SPARSE_FACTOR: usize = 4;

const MICROS_PER_SECOND: f64 = 1e6;

/// One upgrade a day.
const RATE_MIN: f64 = 1.0 / 86_400.0;

/// One upgrade a microsecond, which is as finely as time is counted.
const RATE_MAX: f64 = MICROS_PER_SECOND;

/// What one address may do; for IPv6, what a /64 prefix may, which is what one customer has.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct AddressLimits {
    /// Connections at once.
    pub connections_max: Option<u32>,
    /// Upgrades per second in the long run, more than zero. Two seconds' worth may come at once,
    /// and at least one.
    pub upgrades_per_second: Option<f64>,
}

/// Why an address can't have one more connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// It has as many as it may have.
    TooManyConnections,
    /// It has asked for too many lately.
    TooManyUpgrades {
        /// When it may ask again.
        retry_after: Duration,
    },
}

impl Refused {
    /// Whole seconds after which it may ask again; nobody knows when a connection ends.
    #[must_use]
    pub const fn retry_seconds(self) -> u64 {
        match self {
            Self::TooManyConnections => 10,
            Self::TooManyUpgrades { retry_after } => retry_after.as_secs() + 1,
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooManyConnections => "too many connections from this address",
            Self::TooManyUpgrades { .. } => "too many requests from this address",
        })
    }
}

/// The addresses that are connected or were so lately.
#[derive(Debug)]
pub struct Addresses {
    connections_max: u32,
    bucket: Option<Bucket>,
    /// What all connections of an address may hold together.
    share: Option<Holdings>,
    entries: HashMap<Prefix, Entry>,
    /// Addresses without connections, the stalest first; and some that have come back since.
    idle: VecDeque<Prefix>,
    /// The latest time that was told.
    now: Timestamp,
}

#[derive(Clone, Copy, Default, Debug)]
struct Entry {
    /// What its connections have subscribed to; nothing if it has none.
    holdings: Holdings,
    /// When its bucket is full again.
    full_at: Timestamp,
    connections: u32,
    /// Whether it is in the queue of idle addresses, which has it once.
    is_queued: bool,
}

/// What is counted as one address: an IPv4 address, or a /64 prefix of IPv6.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Prefix(u64);

/// The /64 whose lower half an IPv4 address takes the place of; of 0000::/8, which is reserved
/// (RFC 4291 §2.4), so no peer comes from there.
const IPV4_NETWORK: u64 = 1 << 32;

impl From<IpAddr> for Prefix {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => IPV4_NETWORK | u64::from(address.to_bits()),
            IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
        })
    }
}

/// A token bucket, whose level is the time until it is full.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// For one token to come back.
    interval: Duration,
    /// For all of them.
    whole: Duration,
}

impl Addresses {
    /// An empty table. `share` is what one address may hold; `None`: all that there is.
    ///
    /// # Panics
    /// If the rate isn't more than zero.
    #[must_use]
    pub fn new(limits: AddressLimits, share: Option<Holdings>) -> Self {
        Self {
            connections_max: limits.connections_max.unwrap_or(u32::MAX),
            bucket: limits.upgrades_per_second.map(Bucket::new),
            share,
            entries: HashMap::new(),
            idle: VecDeque::new(),
            now: Timestamp::ZERO,
        }
    }

    /// Counts one connection more of `address`, until it is told to [`Addresses::leave`].
    ///
    /// # Errors
    /// [`Refused`]; then nothing is counted.
    pub fn admit(&mut self, address: IpAddr, now: Timestamp) -> Result<(), Refused> {
        self.now = self.now.max(now);
        self.sweep();
        let key = Prefix::from(address);
        let mut entry = self.entries.get(&key).copied().unwrap_or_default();
        if entry.connections >= self.connections_max {
            return Err(Refused::TooManyConnections);
        }
        if let Some(bucket) = self.bucket {
            entry.full_at = bucket.take(entry.full_at, self.now)?;
        }
        entry.connections += 1;
        self.entries.insert(key, entry);
        Ok(())
    }

    /// Whether a connection of `address` may hold `after` in place of `before`.
    #[must_use]
    pub fn has_room_for(&self, address: IpAddr, before: Holdings, after: Holdings) -> bool {
        let entry = self.entries.get(&Prefix::from(address));
        let held = entry.map_or_else(Holdings::default, |entry| entry.holdings);
        let exchanged = held.exchange(before, after);
        self.share.is_none_or(|share| exchanged.is_within(share))
    }

    /// A connection of `address` that was admitted holds `after` in place of `before`.
    pub fn exchange(&mut self, address: IpAddr, before: Holdings, after: Holdings) {
        let Some(entry) = self.entries.get_mut(&Prefix::from(address)) else {
            debug_assert!(false, "it was admitted");
            return;
        };
        entry.holdings = entry.holdings.exchange(before, after);
    }

    /// A connection of `address` that was admitted, and holds nothing any more, is gone.
    pub fn leave(&mut self, address: IpAddr) {
        let key = Prefix::from(address);
        let Some(entry) = self.entries.get_mut(&key) else {
            debug_assert!(false, "it was admitted");
            return;
        };
        entry.connections = entry.connections.saturating_sub(1);
        debug_assert!(entry.connections > 0 || entry.holdings == Holdings::default());
        if entry.connections == 0 && !entry.is_queued {
            entry.is_queued = true;
            self.idle.push_back(key);
        }
        self.sweep();
    }

    /// How many addresses are in the table.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the table is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Asserts what must hold between two calls.
    pub fn check_invariants(&self) {
        let queued = self.entries.values().filter(|entry| entry.is_queued);
        assert_eq!(queued.count(), self.idle.len());
        for entry in self.entries.values() {
            assert!(entry.connections <= self.connections_max);
            assert!(entry.connections > 0 || entry.is_queued);
            assert!(entry.connections > 0 || entry.holdings == Holdings::default());
        }
        let idle = self.entries.values().filter(|entry| entry.connections == 0);
        assert!(idle.count() <= IDLE_MAX);
    }

    /// Forgets some of the addresses about which there is nothing to be remembered, and those
    /// for which there is no room.
    fn sweep(&mut self) {
        for _ in 0..SWEPT_MAX {
            let Some(key) = self.idle.front() else { break };
            let entry = self.entries.get(key).copied().unwrap_or_default();
            let is_settled = entry.connections > 0 || entry.full_at <= self.now;
            // Those behind it left later, so they are hardly full if this one isn't.
            if !is_settled && self.idle.len() <= IDLE_MAX {
                break;
            }
            self.forget_stalest();
        }
    }

    fn forget_stalest(&mut self) {
        let Some(key) = self.idle.pop_front() else {
            return;
        };
        match self.entries.get_mut(&key) {
            Some(entry) if entry.connections > 0 => entry.is_queued = false,
            _ => drop(self.entries.remove(&key)),
        }
        if self.idle.len() * SPARSE_FACTOR < self.idle.capacity() {
            self.idle.shrink_to(self.idle.len() * 2);
        }
        if self.entries.len() * SPARSE_FACTOR < self.entries.capacity() {
            self.entries.shrink_to(self.entries.len() * 2);
        }
    }
}

impl Bucket {
    /// From one a day to a million a second; what is beyond counts as that.
    fn new(rate: f64) -> Self {
        assert!(rate > 0.0, "a rate of {rate}");
        let rate = rate.clamp(RATE_MIN, RATE_MAX);
        let interval = (MICROS_PER_SECOND / rate).round() as u64;
        let burst = (BURST_SECONDS * rate).ceil() as u64;
        Self {
            interval: Duration::from_micros(interval),
            whole: Duration::from_micros(interval * burst),
        }
    }

    /// When a bucket is full again that is full at `full_at` and that a token is taken out of.
    fn take(self, full_at: Timestamp, now: Timestamp) -> Result<Timestamp, Refused> {
        let full_at = full_at.max(now) + self.interval;
        let retry_after = (full_at - now).saturating_sub(self.whole);
        if retry_after.is_zero() {
            Ok(full_at)
        } else {
            Err(Refused::TooManyUpgrades { retry_after })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const START: Timestamp = Timestamp::from_micros(1_000_000_000);

    fn table(connections_max: Option<u32>, upgrades_per_second: Option<f64>) -> Addresses {
        let limits = AddressLimits {
            connections_max,
            upgrades_per_second,
        };
        Addresses::new(limits, None)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    fn numbered(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(number).into()
    }

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn too_fast(retry_after: Duration) -> Result<(), Refused> {
        Err(Refused::TooManyUpgrades { retry_after })
    }

    #[test]
    fn connections_at_max_and_one_more() {
        let mut table = table(Some(2), None);
        let (one, other) = (ip("192.0.2.1"), ip("192.0.2.2"));
        assert_eq!(table.admit(one, START), Ok(()));
        assert_eq!(table.admit(one, START), Ok(()));
        for _ in 0..3 {
            assert_eq!(table.admit(one, START), Err(Refused::TooManyConnections));
        }
        assert_eq!(table.admit(other, START), Ok(()));
        table.leave(one);
        assert_eq!(table.admit(one, START), Ok(()));
        assert_eq!(table.admit(one, START), Err(Refused::TooManyConnections));
        for address in [one, one, other] {
            table.leave(address);
        }
        assert!(table.is_empty());
        assert_eq!((table.entries.capacity(), table.idle.capacity()), (0, 0));
    }

    #[test]
    fn without_limits_everybody_is_admitted() {
        let mut table = table(None, None);
        for _ in 0..1000 {
            assert_eq!(table.admit(ip("::1"), START), Ok(()));
        }
    }

    #[test]
    fn a_64_prefix_counts_as_one_address() {
        let mut table = table(Some(1), None);
        for (address, is_new) in [
            ("2001:db8:0:1::1", true),
            ("2001:db8:0:1:ffff::1", false),
            ("2001:db8:0:2::1", true),
            ("192.0.2.1", true),
            ("::ffff:192.0.2.1", false),
            ("192.0.2.2", true),
        ] {
            let admitted = table.admit(ip(address), START);
            assert_eq!(admitted.is_ok(), is_new, "{address}");
        }
        table.leave(ip("2001:db8:0:1:2:3:4:5"));
        assert_eq!(table.admit(ip("2001:db8:0:1::1"), START), Ok(()));
    }

    #[test]
    fn what_an_address_holds_at_max_and_one_more() {
        let holdings = |text_bytes, subscriptions, values| Holdings {
            text_bytes,
            subscriptions,
            values,
        };
        let none = Holdings::default();
        let share = holdings(10, 20, 30);
        let mut table = Addresses::new(AddressLimits::default(), Some(share));
        let (one, other) = (ip("2001:db8:0:1::1"), ip("2001:db8:0:2::1"));
        for address in [one, one, other] {
            assert_eq!(table.admit(address, START), Ok(()));
        }
        let first = holdings(4, 5, 6);
        table.exchange(one, none, first);
        assert!(table.has_room_for(one, none, holdings(6, 15, 24)));
        for more in [
            holdings(7, 15, 24),
            holdings(6, 16, 24),
            holdings(6, 15, 25),
        ] {
            assert!(!table.has_room_for(one, none, more));
            // The rest of its /64 has the same share, and others have theirs.
            assert!(!table.has_room_for(ip("2001:db8:0:1::2"), none, more));
            assert!(table.has_room_for(other, none, more));
        }
        table.exchange(one, none, holdings(6, 15, 24));
        // What a connection has makes room for as much.
        assert!(table.has_room_for(one, first, first));
        assert!(!table.has_room_for(one, first, holdings(5, 5, 6)));
        assert!(table.has_room_for(one, none, none));
        table.exchange(one, holdings(6, 15, 24), none);
        table.leave(one);
        assert!(table.has_room_for(one, none, holdings(6, 15, 24)));
        table.exchange(one, first, none);
        table.leave(one);
        assert!(table.has_room_for(one, none, share));
    }

    #[test]
    fn an_entry_is_small() {
        assert_eq!(size_of::<(Prefix, Entry)>(), 40);
    }

    #[test]
    fn upgrades_come_in_bursts_and_are_refilled() {
        let mut table = table(None, Some(2.0));
        let address = ip("192.0.2.1");
        for _ in 0..4 {
            assert_eq!(table.admit(address, START), Ok(()));
        }
        let half = Duration::from_millis(500);
        // Being refused costs nothing.
        for _ in 0..3 {
            assert_eq!(table.admit(address, START), too_fast(half));
        }
        let micro = Duration::from_micros(1);
        let almost = START + (half - micro);
        assert_eq!(table.admit(address, almost), too_fast(micro));
        assert_eq!(table.admit(ip("192.0.2.2"), almost), Ok(()));
        assert_eq!(table.admit(address, START + half), Ok(()));
        assert_eq!(table.admit(address, START + half), too_fast(half));
        // However long it was quiet, the burst is no larger.
        let later = START + seconds(3600);
        for _ in 0..4 {
            assert_eq!(table.admit(address, later), Ok(()));
        }
        assert_eq!(table.admit(address, later), too_fast(half));
        // A clock that seems to go back gives nothing.
        assert_eq!(table.admit(address, START), too_fast(half));
    }

    #[test]
    fn leaving_gives_no_upgrade_back() {
        let mut table = table(Some(1), Some(0.5));
        let address = ip("192.0.2.1");
        assert_eq!(table.admit(address, START), Ok(()));
        // Too many connections are refused first, which costs nothing of the rate.
        assert_eq!(
            table.admit(address, START),
            Err(Refused::TooManyConnections)
        );
        table.leave(address);
        assert_eq!(table.admit(address, START), too_fast(seconds(2)));
        assert_eq!(table.admit(address, START + seconds(2)), Ok(()));
    }

    #[test]
    fn rates_of_all_sizes() {
        for (rate, burst, retry_micros) in [
            (f64::MIN_POSITIVE, 1, 86_400_000_000),
            (1e-9, 1, 86_400_000_000),
            (0.1, 1, 10_000_000),
            (0.5, 1, 2_000_000),
            (0.6, 2, 1_666_667),
            (1.0, 2, 1_000_000),
            (1.1, 3, 909_091),
            (3.0, 6, 333_333),
            (7.0, 14, 142_857),
            (1000.0, 2000, 1000),
        ] {
            let mut table = table(None, Some(rate));
            for _ in 0..burst {
                assert_eq!(table.admit(ip("::1"), START), Ok(()), "{rate}");
            }
            let retry_after = Duration::from_micros(retry_micros);
            assert_eq!(table.admit(ip("::1"), START), too_fast(retry_after));
        }
        for rate in [1e6, 1e300, f64::INFINITY] {
            let bucket = Bucket::new(rate);
            assert_eq!(bucket.interval, Duration::from_micros(1));
            assert_eq!(bucket.whole, seconds(2));
        }
    }

    #[test]
    #[should_panic(expected = "a rate of NaN")]
    fn a_rate_is_more_than_zero() {
        let _ = table(None, Some(f64::NAN));
    }

    #[test]
    fn an_idle_address_is_forgotten_once_its_bucket_is_full() {
        let mut table = table(None, Some(1.0));
        for number in 0..100 {
            assert_eq!(table.admit(numbered(number), START), Ok(()));
        }
        for number in 0..100 {
            table.leave(numbered(number));
        }
        assert_eq!(table.len(), 100);
        let stays = ip("::1");
        let now = START + seconds(1);
        // Each call forgets two and adds one at most.
        assert_eq!(table.admit(stays, now), Ok(()));
        assert_eq!(table.len(), 100 - SWEPT_MAX + 1);
        for number in 1000..1050 {
            let now = now + seconds(number);
            assert_eq!(table.admit(stays, now), Ok(()));
        }
        assert_eq!((table.len(), table.idle.len()), (1, 0));
        assert!(table.entries.capacity() < 10 && table.idle.capacity() == 0);
    }

    #[test]
    fn an_address_that_comes_back_is_not_forgotten() {
        let mut table = table(Some(1), Some(1.0));
        let address = ip("192.0.2.1");
        for round in 0..10 {
            let now = START + seconds(10 * round);
            assert_eq!(table.admit(address, now), Ok(()));
            assert_eq!(table.admit(address, now), Err(Refused::TooManyConnections));
            table.leave(address);
            assert!(table.idle.len() <= 1);
        }
        assert_eq!(table.admit(address, START + seconds(100)), Ok(()));
        let now = START + seconds(1000);
        for _ in 0..3 {
            assert_eq!(table.admit(address, now), Err(Refused::TooManyConnections));
        }
        assert_eq!((table.len(), table.idle.len()), (1, 0));
    }

    #[test]
    fn the_queue_has_an_address_once_and_lets_nobody_block_it() {
        let mut table = table(None, Some(1.0));
        let [back, gone, other] = [1, 2, 3].map(numbered);
        for address in [back, gone] {
            assert_eq!(table.admit(address, START), Ok(()));
        }
        for address in [back, gone] {
            table.leave(address);
        }
        assert_eq!(table.admit(back, START), Ok(()));
        table.leave(back);
        assert_eq!((table.len(), table.idle.len()), (2, 2));
        let full = START + seconds(1);
        assert_eq!(table.admit(back, full), Ok(()));
        // The first is connected again, and its bucket isn't full; the second one's is.
        assert_eq!(table.admit(other, full), Ok(()));
        assert_eq!((table.len(), table.idle.len()), (2, 0));
        // An address that left the queue joins it again.
        table.leave(back);
        assert_eq!(table.idle, [back.into()]);
        assert_eq!(table.admit(other, START + seconds(60)), Ok(()));
        assert_eq!((table.len(), table.idle.len()), (1, 0));
    }

    #[test]
    fn many_addresses_take_no_more_than_their_room() {
        let mut table = table(None, Some(0.001));
        let busy = ip("::1");
        assert_eq!(table.admit(busy, START), Ok(()));
        let count = 2 * IDLE_MAX as u32;
        for number in 0..count {
            assert_eq!(table.admit(numbered(number), START), Ok(()));
            table.leave(numbered(number));
            assert!(table.len() <= IDLE_MAX + 1 && table.idle.len() <= IDLE_MAX);
        }
        assert_eq!(table.len(), IDLE_MAX + 1);
        // The stalest are gone; the others, and addresses with connections, are not.
        let kept = count - IDLE_MAX as u32;
        assert!(table.admit(numbered(kept), START).is_err());
        assert!(table.admit(busy, START).is_err());
        assert_eq!(table.admit(numbered(kept - 1), START), Ok(()));
    }
}
