//! How many lines of the log a peer can cause: lines at info fill a disk, so each kind that a
//! peer can repeat has a rate. What is beyond it is still said at debug, and counted in a line
//! at info.
//!
//! Knows ids and the time. Main types: [`LogLimit`] and [`ListLog`]. Invariant: a connection is
//! in the table of a [`ListLog`] only after a line that counted against the rate of all, so the
//! table is small; it is forgotten when there is nothing to be remembered, or when it goes.

use std::collections::HashMap;
use std::time::Duration;

use log::{Level, info, log};

use crate::count::Count;
use crate::id::ConnectionId;
use crate::time::Timestamp;

/// Lines about lists of one connection: an app subscribes when it connects, and when a channel
/// is opened.
const LISTS_EACH: Rate = Rate::new(5, 1);

/// Lines about lists of all connections together.
const LISTS: Rate = Rate::new(1000, 100);

/// Lines of one kind about peers that were refused something.
const REFUSALS: Rate = Rate::new(100, 10);

/// Connections about which nothing has to be remembered are looked for when the table has this
/// many more than after the last look.
const IDLE_MIN: usize = 64;

/// So many lines at once, and so many per second in the long run.
#[derive(Clone, Copy, Debug)]
struct Rate {
    /// For one line to be allowed again.
    interval: Duration,
    /// For all of them.
    whole: Duration,
}

impl Rate {
    const fn new(burst: u32, per_second: u32) -> Self {
        let interval = Duration::from_micros(1_000_000 / per_second as u64);
        let whole = Duration::from_micros(1_000_000 / per_second as u64 * burst as u64);
        Self { interval, whole }
    }
}

/// A token bucket, and what it left out.
#[derive(Clone, Copy, Default, Debug)]
struct Bucket {
    full_at: Timestamp,
    /// Lines that were left out since the last one that wasn't.
    left_out: u64,
}

impl Bucket {
    /// Takes a line out and says how many were left out before it; `None` if this one is, too.
    fn take(&mut self, rate: Rate, now: Timestamp) -> Option<u64> {
        let full_at = self.full_at.max(now) + rate.interval;
        if full_at - now > rate.whole {
            self.left_out += 1;
            return None;
        }
        self.full_at = full_at;
        Some(std::mem::take(&mut self.left_out))
    }

    fn is_settled(self, now: Timestamp) -> bool {
        self.left_out == 0 && self.full_at <= now
    }
}

/// The lines of one kind about peers that were refused something, of all peers together: a
/// stranger that is closed for it comes back.
#[derive(Default, Debug)]
pub(crate) struct LogLimit(Bucket);

impl LogLimit {
    /// The level of one line more. Says how many were left out before it.
    pub(crate) fn level(&mut self, now: Timestamp) -> Level {
        match self.0.take(REFUSALS, now) {
            None => return Level::Debug,
            Some(0) => {}
            Some(1) => info!(left_out = 1; "1 line like the next was left out"),
            Some(left_out) => info!(left_out; "{left_out} lines like the next were left out"),
        }
        Level::Info
    }
}

/// The lines about the lists of subscriptions that connections send.
#[derive(Default, Debug)]
pub(crate) struct ListLog {
    all: Bucket,
    /// Those that have sent one lately.
    connections: HashMap<ConnectionId, Bucket>,
    /// How many were left after the last look for settled ones.
    swept_len: usize,
}

impl ListLog {
    /// Notes that a connection has sent a list of so many subscriptions.
    pub(crate) fn note(&mut self, id: ConnectionId, subscriptions: usize, now: Timestamp) {
        let level = self.level(id, now);
        let count = Count(subscriptions as u64, "subscription");
        log!(level, connection:% = id, subscriptions; "{id} has {count}");
    }

    /// The connection is gone. Its lines that were left out since the last one are counted.
    pub(crate) fn forget(&mut self, id: ConnectionId) {
        if let Some(bucket) = self.connections.remove(&id) {
            say_left_out(id, bucket.left_out);
            self.swept_len = self.swept_len.min(self.connections.len());
            self.shrink();
        }
    }

    /// Bytes on the heap, about.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.connections.capacity() * size_of::<(ConnectionId, Bucket)>()
    }

    fn level(&mut self, id: ConnectionId, now: Timestamp) -> Level {
        // Asked first, so that a connection over its rate takes nothing from the others.
        let mut bucket = self.connections.get(&id).copied().unwrap_or_default();
        let left_out = bucket.take(LISTS_EACH, now);
        let level = match left_out.map(|left_out| (left_out, self.all.take(LISTS, now))) {
            // It is in the table, for it has had lines.
            None => Level::Debug,
            // What is left out for all is not remembered for each: the table stays small.
            Some((_, None)) => return Level::Debug,
            Some((left_out, Some(of_all))) => {
                say_left_out(id, left_out);
                if of_all > 0 {
                    let were = if of_all == 1 { "was" } else { "were" };
                    let count = Count(of_all, "list");
                    info!(left_out = of_all; "{count} of all connections {were} left out");
                }
                Level::Info
            }
        };
        self.connections.insert(id, bucket);
        self.sweep(now);
        level
    }

    fn sweep(&mut self, now: Timestamp) {
        if self.connections.len() >= 2 * self.swept_len + IDLE_MIN {
            self.connections.retain(|_, bucket| !bucket.is_settled(now));
            self.swept_len = self.connections.len();
            self.shrink();
        }
    }

    fn shrink(&mut self) {
        if self.connections.capacity() > 4 * self.connections.len() {
            self.connections.shrink_to(2 * self.connections.len());
        }
    }
}

fn say_left_out(id: ConnectionId, left_out: u64) {
    if left_out > 0 {
        let were = if left_out == 1 { "was" } else { "were" };
        let count = Count(left_out, "list");
        info!(connection:% = id, left_out; "{count} of {id} {were} left out");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at_millis(millis: u64) -> Timestamp {
        Timestamp::from_micros(7_000_000 + millis * 1000)
    }

    const START: Timestamp = at_millis(0);

    const fn id(index: u32) -> ConnectionId {
        ConnectionId { index, serial: 3 }
    }

    fn info_lines(count: usize, mut level: impl FnMut() -> Level) -> usize {
        (0..count).filter(|_| level() == Level::Info).count()
    }

    #[test]
    fn a_burst_and_one_more() {
        let mut limit = LogLimit::default();
        assert_eq!(info_lines(100, || limit.level(START)), 100);
        assert_eq!(info_lines(3, || limit.level(START)), 0);
        assert_eq!(limit.0.left_out, 3);
        // A tenth of a second gives one back.
        assert_eq!(info_lines(1, || limit.level(at_millis(99))), 0);
        assert_eq!(info_lines(3, || limit.level(at_millis(100))), 1);
        assert_eq!(limit.0.left_out, 2);
        // However long it was quiet, the burst is no larger.
        let later = at_millis(3_600_000);
        assert_eq!(info_lines(200, || limit.level(later)), 100);
        // A clock that seems to go back gives nothing.
        assert_eq!(info_lines(10, || limit.level(START)), 0);
    }

    #[test]
    fn a_connection_has_a_rate_of_its_own_and_takes_nothing_from_others() {
        let mut log = ListLog::default();
        assert_eq!(info_lines(2000, || log.level(id(1), START)), 5);
        assert_eq!(log.connections[&id(1)].left_out, 1995);
        assert_eq!(log.all.left_out, 0);
        assert_eq!(info_lines(6, || log.level(id(2), START)), 5);
        assert_eq!(info_lines(2, || log.level(id(1), at_millis(999))), 0);
        assert_eq!(info_lines(2, || log.level(id(1), at_millis(1000))), 1);
        assert_eq!(log.connections[&id(1)].left_out, 1);
        log.forget(id(1));
        log.forget(id(2));
        assert_eq!(log.heap_bytes(), 0);
    }

    #[test]
    fn all_connections_together_have_a_rate() {
        let mut log = ListLog::default();
        let mut next = 0;
        let mut level = |log: &mut ListLog, now| {
            next += 1;
            log.level(id(next), now)
        };
        assert_eq!(info_lines(1000, || level(&mut log, START)), 1000);
        assert_eq!(info_lines(500, || level(&mut log, START)), 0);
        assert_eq!((log.all.left_out, log.connections.len()), (500, 1000));
        assert_eq!(info_lines(500, || level(&mut log, at_millis(1000))), 100);
        assert_eq!((log.all.left_out, log.connections.len()), (400, 1100));
        // What a connection had left out is remembered while all have too many.
        assert_eq!(info_lines(6, || log.level(id(1), at_millis(1050))), 5);
        assert_eq!(log.connections[&id(1)].left_out, 1);
        assert_eq!(info_lines(1000, || log.level(id(9999), at_millis(1050))), 0);
        assert_eq!(info_lines(1, || log.level(id(1), at_millis(2050))), 1);
    }

    #[test]
    fn connections_that_are_quiet_are_forgotten() {
        let mut log = ListLog::default();
        for index in 0..10_000 {
            // Each has one line, so it is settled after a second.
            let now = at_millis(u64::from(index) * 20);
            assert_eq!(log.level(id(index), now), Level::Info);
            assert!(log.connections.len() <= 2 * 51 + IDLE_MIN, "{index}");
        }
        // One that has had lines left out waits for its end.
        info_lines(6, || log.level(id(10_000), at_millis(300_000)));
        for index in 20_000..21_000 {
            log.level(id(index), at_millis(400_000 + u64::from(index)));
        }
        assert_eq!(log.connections[&id(10_000)].left_out, 1);
        for index in (0..21_000).rev() {
            log.forget(id(index));
        }
        assert_eq!(log.heap_bytes(), 0);
    }
}
