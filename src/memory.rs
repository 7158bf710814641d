//! Giving memory back when a crowd has left.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Timestamp;

/// Allocations beyond this are mappings of their own, as long as no larger one is freed: glibc
/// takes that as a hint to put the next ones on its heap, which only shrinks from its end.
pub const MAPPING_BYTES: usize = 128 * 1024;

/// Frees what a list has, which may be large, without teaching the allocator to keep such
/// pieces: it is made small first, where it lies.
pub fn free<T>(mut list: Vec<T>) {
    list.clear();
    list.shrink_to(1);
}

/// Makes a list that is a quarter full or less as small as twice what is in it; a list that
/// takes no more than `kept` entries is left alone.
///
/// A small one moves to a new place: where it lies, it may be the last on the heap, and then
/// all that was freed before it could not be given back.
pub fn shrink_sparse<T>(list: &mut Vec<T>, kept: usize) {
    if list.capacity() <= kept || list.len() * 4 > list.capacity() {
        return;
    }
    if list.is_empty() {
        free(std::mem::take(list));
    } else if list.capacity() * size_of::<T>() > MAPPING_BYTES {
        list.shrink_to(list.len() * 2);
    } else {
        let mut smaller = Vec::with_capacity(list.len() * 2);
        smaller.append(list);
        *list = smaller;
    }
}

/// The same for a queue.
pub fn shrink_sparse_queue<T>(queue: &mut VecDeque<T>, kept: usize) {
    if queue.capacity() > kept && queue.len() * 4 <= queue.capacity() {
        let mut smaller = VecDeque::with_capacity(queue.len() * 2);
        smaller.append(queue);
        *queue = smaller;
    }
}

/// Gives the free pages in the midst of the heap back to the system: by itself, glibc only cuts
/// the heap off behind the last piece that is in use. Takes up to a millisecond for the heap of
/// ten thousand connections. Other allocators do it as they see fit.
fn trim_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: it may be called at any time, from any thread, and changes nothing in use.
        #[expect(
            unsafe_code,
            reason = "20 crowds of 10,000 connections leave 1.2 MiB without it"
        )]
        unsafe {
            libc::malloc_trim(0);
        }
    }
}

/// Connections that must have left before the heap is worth a look.
const LEFT_MIN: usize = 64;

/// Bytes that peers must have pinned before it is.
const PEAK_BYTES_MIN: usize = 1024 * 1024;

/// How long after a look the next one waits.
const TRIM_INTERVAL: Duration = Duration::from_secs(1);

/// Knows when much of the heap has become free: a crowd has left, or what was kept for peers has
/// gone out to them.
#[derive(Default, Debug)]
pub struct Trimmer {
    /// Connections that have left since the last look.
    left: usize,
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

    /// Takes into account that so many connections have `left`, so many are there, and so many
    /// bytes are pinned now. Looks through the heap if that is worth it, and says whether it was.
    pub fn update(
        &mut self,
        left: usize,
        connections: usize,
        bytes: usize,
        now: Timestamp,
    ) -> bool {
        self.left += left;
        self.peak_bytes = self.peak_bytes.max(bytes);
        let is_crowd_gone = self.left >= LEFT_MIN && self.left >= 4 * connections;
        let is_flood_gone = self.peak_bytes >= PEAK_BYTES_MIN && bytes <= self.peak_bytes / 4;
        if !is_crowd_gone && !is_flood_gone {
            self.due = None;
            return false;
        }
        let due = self.trimmed + TRIM_INTERVAL;
        if now < due {
            self.due = Some(due);
            return false;
        }
        trim_heap();
        *self = Self {
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
    fn the_heap_is_looked_through_when_much_has_gone_and_not_too_often() {
        let at = |millis: u64| Timestamp::from_micros(millis * 1000);
        let mut trimmer = Trimmer::default();
        assert!(!trimmer.update(63, 0, 0, at(2000)));
        assert!(trimmer.update(1, 0, 0, at(2000)), "a crowd has left");
        // The next one waits, and is not forgotten.
        assert!(!trimmer.update(400, 100, 0, at(2001)));
        assert_eq!(trimmer.due(), Some(at(3000)));
        assert!(trimmer.update(0, 100, 0, at(3000)));
        assert_eq!(trimmer.due(), None);
        // Whoever stays is more than a quarter of who left.
        assert!(!trimmer.update(400, 101, 0, at(5000)));
        assert!(!trimmer.update(0, 1000, PEAK_BYTES_MIN, at(6000)));
        assert!(!trimmer.update(0, 1000, PEAK_BYTES_MIN / 4 + 1, at(6000)));
        assert!(trimmer.update(0, 1000, PEAK_BYTES_MIN / 4, at(6000)));
        assert!(!trimmer.update(0, 1000, PEAK_BYTES_MIN - 1, at(8000)));
        assert!(!trimmer.update(0, 1000, 0, at(8000)));
    }

    #[test]
    fn what_is_sparse_gets_small_and_the_rest_stays() {
        let mut list: Vec<u32> = (0..1000).collect();
        shrink_sparse(&mut list, 0);
        assert!(list.capacity() >= 1000);
        list.truncate(100);
        shrink_sparse(&mut list, 0);
        assert_eq!((list.len(), list.capacity()), (100, 200));
        list.clear();
        shrink_sparse(&mut list, 300);
        assert_eq!(list.capacity(), 200);
        shrink_sparse(&mut list, 64);
        assert_eq!(list.capacity(), 0);

        let mut queue: VecDeque<u32> = (0..1000).collect();
        queue.truncate(3);
        shrink_sparse_queue(&mut queue, 64);
        assert!(queue.capacity() < 64 && queue.iter().eq(&[0, 1, 2]));
    }
}
