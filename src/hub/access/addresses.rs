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

use crate::handover::{Fields, Malformed, Members};
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
    /// The most that any address came over with: those may be more, until they leave.
    carried_max: u32,
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

/// An address that has no connections, and has asked for some lately.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IdleAddress {
    prefix: Prefix,
    /// When its bucket is full again.
    full_at: Timestamp,
}

// Members of an address' record.
const PREFIX: u8 = 1;
const FULL_AT: u8 = 2;

impl IdleAddress {
    /// Writes it.
    pub fn save(&self, members: &mut Members<'_>) {
        let Self {
            prefix: Prefix(prefix),
            full_at,
        } = self;
        members.number(PREFIX, *prefix);
        members.time(FULL_AT, Some(*full_at));
    }

    /// Reads what was written.
    ///
    /// # Errors
    /// It is no such address.
    pub fn restore(fields: &Fields<'_>) -> Result<Self, Malformed> {
        let full_at = fields.time(FULL_AT);
        Ok(Self {
            prefix: Prefix(fields.number(PREFIX)),
            full_at: full_at.ok_or(Malformed("an address has asked for nothing"))?,
        })
    }
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
            carried_max: 0,
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

    // What a successor is told: the addresses without connections one by one, and of the others what is told with each
    // of their connections.

    /// The addresses without connections that have used up some of their rate, the stalest first.
    pub fn save(&self) -> impl Iterator<Item = IdleAddress> {
        let Self {
            // What is configured.
            connections_max: _,
            // From the connections.
            carried_max: _,
            bucket: _,
            share: _,
            entries,
            idle,
            now,
        } = self;
        idle.iter().filter_map(move |prefix| {
            let entry = entries.get(prefix)?;
            let is_remembered = entry.connections == 0 && entry.full_at > *now;
            is_remembered.then_some(IdleAddress {
                prefix: *prefix,
                full_at: entry.full_at,
            })
        })
    }

    /// When the bucket of an address is full again, if it isn't.
    #[must_use]
    pub fn full_at(&self, address: IpAddr) -> Option<Timestamp> {
        let entry = self.entries.get(&Prefix::from(address))?;
        (entry.full_at > self.now).then_some(entry.full_at)
    }

    /// Remembers an address without connections. They are told in their order.
    pub fn remember(&mut self, address: IdleAddress, now: Timestamp) {
        let IdleAddress { prefix, full_at } = address;
        self.now = self.now.max(now);
        let full_at = self.bounded(full_at);
        if full_at <= self.now {
            return;
        }
        let entry = self.entries.entry(prefix).or_default();
        entry.full_at = entry.full_at.max(full_at);
        if !std::mem::replace(&mut entry.is_queued, true) {
            self.idle.push_back(prefix);
        }
        if self.idle.len() > IDLE_MAX {
            self.forget_stalest();
        }
    }

    /// Counts a connection of `address` that was admitted before this table was made. It holds `holdings`, and may be
    /// one more than would be admitted now.
    pub fn carry(
        &mut self,
        address: IpAddr,
        holdings: Holdings,
        full_at: Option<Timestamp>,
        now: Timestamp,
    ) {
        self.now = self.now.max(now);
        let full_at = full_at.map(|full_at| self.bounded(full_at));
        let entry = self.entries.entry(Prefix::from(address)).or_default();
        entry.connections = entry.connections.saturating_add(1);
        self.carried_max = self.carried_max.max(entry.connections);
        entry.holdings = entry.holdings.exchange(Holdings::default(), holdings);
        entry.full_at = entry.full_at.max(full_at.unwrap_or_default());
    }

    /// A time at which a bucket can be full again: it was of another rate, or of none, when it was told.
    fn bounded(&self, full_at: Timestamp) -> Timestamp {
        let whole = self.bucket.map_or(Duration::ZERO, |bucket| bucket.whole);
        full_at.min(self.now + whole)
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
        let connections_max = self.connections_max.max(self.carried_max);
        for entry in self.entries.values() {
            assert!(entry.connections <= connections_max);
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
mod tests;
