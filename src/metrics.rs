//! What the server counts: plain numbers of one thread. [`exposition`] shows them.

pub mod exposition;
pub mod process;
pub mod saved;
pub mod text;

use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// How many bounds a histogram has.
const BOUNDS: usize = 12;

/// The sizes by which a histogram tells values apart.
pub trait Bounds {
    /// Upper bounds, the smallest first.
    const ALL: [u64; BOUNDS];
}

/// Microseconds of work.
#[derive(Clone, Copy, Default, Debug)]
pub struct WorkMicros;

impl Bounds for WorkMicros {
    const ALL: [u64; BOUNDS] = [
        10, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 250_000, 1_000_000,
    ];
}

/// Microseconds of round trips, which take seconds with phones.
#[derive(Clone, Copy, Default, Debug)]
pub struct RoundTripMicros;

impl Bounds for RoundTripMicros {
    const ALL: [u64; BOUNDS] = [
        100, 500, 1_000, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
        5_000_000,
    ];
}

/// Numbers of connections.
#[derive(Clone, Copy, Default, Debug)]
pub struct Recipients;

impl Bounds for Recipients {
    const ALL: [u64; BOUNDS] = [0, 1, 2, 5, 10, 25, 100, 250, 1_000, 2_500, 10_000, 50_000];
}

/// Log lines that were dropped because their reader was too slow. The log's own thread counts them, hence the atomic.
pub static LOG_LINES_DROPPED: AtomicU64 = AtomicU64::new(0);

/// Values by size.
#[derive(Clone, Copy, Default)]
pub struct Histogram<B> {
    counts: [u64; BOUNDS + 1],
    sum: u64,
    bounds: PhantomData<B>,
}

impl<B: Bounds> Histogram<B> {
    /// Counts `value`.
    pub fn observe(&mut self, value: u64) {
        let bucket = B::ALL.iter().take_while(|&&bound| bound < value);
        self.counts[bucket.count()] += 1;
        self.sum = self.sum.saturating_add(value);
    }

    /// Upper bounds, none for the last, each with how many values lie up to it and above the
    /// one before.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let bounds = B::ALL.into_iter().map(Some).chain([None]);
        bounds.zip(self.counts)
    }

    /// All values together.
    #[must_use]
    pub const fn sum(&self) -> u64 {
        self.sum
    }
}

impl<B> fmt::Debug for Histogram<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count: u64 = self.counts.iter().sum();
        write!(f, "{count} values, {} in all", self.sum)
    }
}

/// Codes that are counted one by one.
pub const CLOSE_CODES: [u16; 13] = [
    1000, 1001, 1002, 1003, 1006, 1007, 1008, 1009, 1011, 1013, 1005, 3000, 3003,
];

/// Ends of open connections, by code.
#[derive(Clone, Copy, Default, Debug)]
pub struct ClosedByCode {
    counts: [u64; CLOSE_CODES.len()],
    others: u64,
}

impl ClosedByCode {
    /// Counts an end with `code`; 1005 and 1006 mean what RFC 6455 §7.4.1 says.
    pub fn count(&mut self, code: u16) {
        match CLOSE_CODES.iter().position(|&known| known == code) {
            Some(position) => self.counts[position] += 1,
            None => self.others += 1,
        }
    }

    /// All counts with their names.
    pub fn all(&self) -> impl Iterator<Item = (String, u64)> {
        let known = CLOSE_CODES.iter().map(u16::to_string).zip(self.counts);
        known.chain([("other".to_owned(), self.others)])
    }
}

/// Counters since the start.
#[derive(Clone, Copy, Default, Debug)]
pub struct Metrics {
    /// TCP connections accepted.
    pub connections_accepted: u64,
    /// TCP connections dropped, for whatever reason.
    pub connections_dropped: u64,
    /// Handshakes that were completed.
    pub upgrades: u64,
    /// Upgrades that were refused because the server was full or stopping.
    pub upgrades_refused_full: u64,
    /// Upgrades that the application refused.
    pub upgrades_forbidden: u64,
    /// Upgrades of addresses that had come too often.
    pub upgrades_rate_limited: u64,
    /// Upgrades that broke a rule of the opening handshake.
    pub upgrades_invalid: u64,
    /// How open connections ended.
    pub closed: ClosedByCode,
    /// Requests that broke a rule of HTTP or of the opening handshake.
    pub requests_rejected: u64,
    /// Handshakes that were not finished in time.
    pub handshakes_expired: u64,
    /// Connections that were not open, and were dropped to make room for new ones.
    pub connections_displaced: u64,
    /// Connections that ended without a Close.
    pub closed_without_close: u64,
    /// Connections closed because the peer broke the protocol, a size limit or a time limit.
    pub protocol_errors: u64,
    /// Peers that gave no sign of life after a Ping.
    pub peers_dead: u64,
    /// Connections cut off because they did not take their notifications.
    pub slow_consumers: u64,
    /// Messages that came after our Close.
    pub messages_discarded: u64,
    /// Frames queued to subscribers.
    pub deliveries: u64,
    /// Deliveries that a full queue did not take.
    pub deliveries_dropped: u64,
    /// Events for connections that were gone.
    pub events_stale: u64,
    /// Times that accepting had to pause because descriptors or memory had run out.
    pub accept_pauses: u64,
    /// Bytes read from peers.
    pub bytes_read: u64,
    /// Times that a client over its rate was not read for a while.
    pub reads_throttled: u64,
    /// Microseconds from sending a Ping to its Pong.
    pub ping_round_trip_micros: Histogram<RoundTripMicros>,
    /// Microseconds of the loop's turns, from the end of a poll to the next: so long input
    /// may have to wait.
    pub turn_micros: Histogram<WorkMicros>,
    /// Microseconds by which timers were late, the worst of a turn: what the loop, the machine
    /// and a halt of the process have made them wait. Polls are counted in milliseconds, so up to
    /// one of these is no fault.
    pub loop_lag_micros: Histogram<WorkMicros>,
    /// Programs that have taken over from the one before.
    pub handovers_completed: u64,
    /// Programs that couldn't have taken over.
    pub handovers_refused: u64,
    /// Programs that should have taken over, and didn't begin.
    pub handovers_failed: u64,
    /// Microseconds from the last turn of the program before to the first of this one.
    pub handover_micros: u64,
}

/// What has come of a handover.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HandoverEnd {
    /// Nothing was done for so long.
    Completed(Duration),
    /// The program could not have taken over.
    Refused,
    /// It did not begin.
    Failed,
}

/// Why an upgrade is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The server is full, or stopping.
    Full,
    /// The application does not allow it.
    Forbidden,
    /// Its address has come too often.
    RateLimited,
    /// It breaks a rule of the opening handshake.
    Invalid,
}

impl Metrics {
    /// Counts a handover.
    pub const fn count_handover(&mut self, end: HandoverEnd) {
        match end {
            HandoverEnd::Completed(pause) => {
                self.handovers_completed += 1;
                self.handover_micros = pause.as_micros() as u64;
            }
            HandoverEnd::Refused => self.handovers_refused += 1,
            HandoverEnd::Failed => self.handovers_failed += 1,
        }
    }

    /// Counts an upgrade that was refused.
    pub const fn count_refusal(&mut self, refusal: Refusal) {
        match refusal {
            Refusal::Full => self.upgrades_refused_full += 1,
            Refusal::Forbidden => self.upgrades_forbidden += 1,
            Refusal::RateLimited => self.upgrades_rate_limited += 1,
            Refusal::Invalid => self.upgrades_invalid += 1,
        }
    }
}

/// What clients were told that have shown an id.
#[derive(Clone, Copy, Default, Debug)]
pub struct Resumes {
    /// They get all that they have missed.
    pub resumed: u64,
    /// The history doesn't reach back so far.
    pub expired: u64,
    /// It isn't an id of this history.
    pub unknown: u64,
    /// Their token withholds what was published before.
    pub forbidden: u64,
}

/// What the hub has counted since the start.
#[derive(Clone, Copy, Default, Debug)]
pub struct HubMetrics {
    /// Connections that were closed for lack of a valid token.
    pub tokens_refused: u64,
    /// Lists of subscriptions that were refused because the server had as many as it may.
    pub subscriptions_refused_full: u64,
    /// Lists of subscriptions that were refused because their address had its share.
    pub subscriptions_refused_share: u64,
    /// Notifications that were taken.
    pub notifications_delivered: u64,
    /// Notifications that were not published again, as another with their key was before.
    pub notifications_repeated: u64,
    /// Clients that have shown an id.
    pub resumes: Resumes,
    /// Entries of the history that were queued to clients that have missed them.
    pub entries_replayed: u64,
    /// Directories of the history that could not be written at the start.
    pub history_write_errors: u64,
    /// Clients that were closed because what they were promised had left the history.
    pub replays_lost: u64,
    /// Notifications that broke a rule.
    pub notifications_invalid: u64,
    /// Attempts of the operator's own programs to publish without permission.
    pub notifications_forbidden: u64,
    /// The same of peers that may be anybody.
    pub notifications_of_strangers: u64,
    /// Attempts to publish of addresses that had come too often.
    pub notifications_rate_limited: u64,
    /// Other requests of addresses that had come too often.
    pub requests_rate_limited: u64,
    /// Recipients of a notification.
    pub recipients: Histogram<Recipients>,
    /// Microseconds that it took to find them.
    pub match_micros: Histogram<WorkMicros>,
    /// Microseconds that it took to queue it to them.
    pub fan_out_micros: Histogram<WorkMicros>,
    /// Entries of the stream that are no notifications.
    pub entries_invalid: u64,
    /// Clients that were told that they may have missed something.
    pub gaps: u64,
}

/// What is counted of a Redis that is shared with other servers.
#[derive(Clone, Copy, Default, Debug)]
pub struct RedisFigures {
    /// Whether publishing is possible.
    pub is_up: bool,
    /// Links that came up.
    pub connects: u64,
    /// From sending an append to its answer.
    pub round_trip_micros: Histogram<RoundTripMicros>,
    /// Entries that were appended.
    pub written: u64,
    /// Entries that were passed on, barriers among them.
    pub read: u64,
    /// When the newest entry was appended that was read, in milliseconds since the Unix epoch, if reading lags behind.
    pub lagging_at_millis: Option<u64>,
    /// Doubts because something was lost.
    pub doubts_lost: u64,
    /// Doubts because the stream was trimmed.
    pub doubts_trimmed: u64,
    /// Entries that weren't appended since Redis was out of reach.
    pub refused_unreachable: u64,
    /// Since too much waited.
    pub refused_full: u64,
    /// That may have been.
    pub refused_unanswered: u64,
    /// Which Redis has refused.
    pub refused_by_redis: u64,
    /// Entries that wait or are on their way.
    pub pending: u64,
}
