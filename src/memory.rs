//! Giving memory back when a crowd has left.
//!
//! By itself, glibc gives the system back what was a mapping of its own, or lay at the end of the
//! heap. [`Departures`] says when a table is made smaller, [`fix_mmap_threshold`] sees to it that
//! large tables are mappings, and [`Trimmer`] gives back what small pieces leave in the midst.

use std::time::Duration;

use crate::time::Timestamp;

/// Has the allocator give every large piece a mapping of its own. To be called once, at the start.
///
/// By itself, glibc raises the size from which it does so to that of the largest piece that was
/// freed (up to 32 MiB), and what comes next lies in the midst of the heap. Other allocators don't.
pub fn fix_mmap_threshold() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        /// glibc's own value, until it moves.
        const MAPPING_BYTES: libc::c_int = 128 * 1024;
        // SAFETY: it sets a parameter of the allocator, under the allocator's lock.
        #[expect(
            unsafe_code,
            reason = "20 crowds of 10,000 connections leave 3.4 MiB without it, 0.4 MiB with it"
        )]
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPING_BYTES);
        }
    }
}

/// Says when a table is worth being made smaller: when as many entries have left since the last
/// time as are still there. So what it costs to look through the table is paid by those that have
/// left.
#[derive(Default, Debug)]
pub struct Departures(usize);

/// Fewer are no crowd, unless nobody is left: for tables through which a look takes as long as they were
/// once.
pub const CROWD_MIN: usize = 64;

impl Departures {
    /// Takes into account that so many entries have `left`, and so many `remain`. Says whether to
    /// make the table smaller now, which takes `left_min` of them unless none remains.
    pub const fn update(&mut self, left: usize, remain: usize, left_min: usize) -> bool {
        self.0 += left;
        let is_crowd = self.0 >= left_min && self.0 >= remain;
        let is_last = self.0 > 0 && remain == 0;
        if is_crowd || is_last {
            self.0 = 0;
        }
        is_crowd || is_last
    }
}

/// Gives the free pages in the midst of the heap back to the system. Takes up to a millisecond for
/// the heap of ten thousand connections. Other allocators do it as they see fit.
fn trim_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: it may be called at any time, from any thread, and changes nothing in use.
        #[expect(
            unsafe_code,
            reason = "180 MiB in the queues of slow readers leave 180 MiB without it, 1 MiB with it; 100 lists of 384 KiB that leave together, 11 MiB and less than 4"
        )]
        unsafe {
            libc::malloc_trim(0);
        }
    }
}

/// Bytes that peers must have pinned before the heap is worth a look.
const PEAK_BYTES_MIN: usize = 1024 * 1024;

/// How long after a look the next one waits.
const TRIM_INTERVAL: Duration = Duration::from_secs(1);

/// Knows when much of the heap has become free: what was kept for peers has gone out to them, or as many
/// connections have left as remain, with all that they had subscribed to.
#[derive(Default, Debug)]
pub struct Trimmer {
    /// Connections that have left since the last look, and when the first of them did.
    left: usize,
    left_since: Timestamp,
    /// The most that was pinned since then.
    peak_bytes: usize,
    trimmed: Timestamp,
    due: Option<Timestamp>,
}

impl Trimmer {
    /// When [`Trimmer::update`] has something to do, if nothing happens before.
    #[must_use]
    pub const fn due(&self) -> Option<Timestamp> {
        self.due
    }

    /// Takes into account that so many connections have just `left`, so many `remain`, and so many bytes are
    /// pinned now. Looks through the heap if that is worth it, and says whether it was. A crowd has a moment
    /// to leave whole.
    pub fn update(&mut self, left: usize, remain: usize, bytes: usize, now: Timestamp) -> bool {
        if self.left == 0 && left > 0 {
            self.left_since = now;
        }
        self.left += left;
        self.peak_bytes = self.peak_bytes.max(bytes);
        let left_min = if remain == 0 { 1 } else { CROWD_MIN };
        let is_crowd_gone = self.left >= left_min && self.left >= remain;
        let is_flood_gone = self.peak_bytes >= PEAK_BYTES_MIN && bytes <= self.peak_bytes / 4;
        let since = match (is_flood_gone, is_crowd_gone) {
            (true, _) => self.trimmed,
            (false, true) => self.trimmed.max(self.left_since),
            (false, false) => {
                self.due = None;
                return false;
            }
        };
        let due = since + TRIM_INTERVAL;
        if now < due {
            self.due = Some(due);
            return false;
        }
        trim_heap();
        *self = Self {
            peak_bytes: bytes,
            trimmed: now,
            ..Self::default()
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_made_smaller_when_as_many_have_left_as_remain() {
        let mut departures = Departures::default();
        assert!(!departures.update(99, 100, CROWD_MIN));
        assert!(departures.update(1, 100, CROWD_MIN));
        assert!(
            !departures.update(0, 99, CROWD_MIN),
            "the next crowd is counted anew"
        );
        assert!(!departures.update(63, 1, CROWD_MIN));
        assert!(departures.update(1, 1, CROWD_MIN));
        assert!(departures.update(1, 0, CROWD_MIN), "the last one");
        assert!(!departures.update(0, 0, CROWD_MIN));
        let mut departures = Departures::default();
        assert!(!departures.update(1, 2, 1) && departures.update(1, 2, 1));
    }

    #[test]
    fn the_heap_is_looked_through_when_much_has_gone_and_not_too_often() {
        let at = |millis: u64| Timestamp::from_micros(millis * 1000);
        let mut trimmer = Trimmer::default();
        assert!(!trimmer.update(0, 9, 16 * PEAK_BYTES_MIN, at(2000)));
        assert!(!trimmer.update(0, 9, 4 * PEAK_BYTES_MIN + 1, at(2000)));
        assert!(trimmer.update(0, 9, 4 * PEAK_BYTES_MIN, at(2000)));
        // What was left then is a peak of its own: it waits, and is not forgotten.
        assert!(!trimmer.update(0, 9, 0, at(2001)));
        assert_eq!(trimmer.due(), Some(at(3000)));
        assert!(trimmer.update(0, 9, 0, at(3000)));
        assert_eq!(trimmer.due(), None);
        assert!(!trimmer.update(0, 9, PEAK_BYTES_MIN - 1, at(8000)));
        assert!(!trimmer.update(0, 9, 0, at(8000)));
        // A crowd has a second to leave whole; of a few among many, nothing is worth a look.
        assert!(!trimmer.update(CROWD_MIN, 4, 0, at(9000)));
        assert_eq!(trimmer.due(), Some(at(10_000)));
        assert!(!trimmer.update(3, 1, 0, at(9500)));
        assert!(trimmer.update(0, 1, 0, at(10_000)));
        assert!(!trimmer.update(1, 2, 0, at(20_000)));
        assert_eq!(trimmer.due(), None);
    }
}
