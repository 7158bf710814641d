//! Deadlines: one a connection, kept in a heap that knows where each slot's entry sits.
//!
//! Activity doesn't touch the heap: a deadline that turns out to be too early is recomputed
//! when it comes. So an idle connection costs one entry, and one that is gone costs nothing.
//!
//! Invariants: the heap is ordered by deadline; `positions[slot]` is where the slot's entry
//! is, or `ABSENT`.

use crate::time::Timestamp;

const ABSENT: u32 = u32::MAX;

/// Slots for which there is room when there are none.
const KEPT_MAX: usize = 64;

#[derive(Clone, Copy, Debug)]
struct Entry {
    deadline: Timestamp,
    slot: u32,
}

/// A deadline for some of the slots.
#[derive(Default, Debug)]
pub struct Timers {
    heap: Vec<Entry>,
    positions: Vec<u32>,
}

impl Timers {
    /// The earliest deadline and its slot.
    #[must_use]
    pub fn first(&self) -> Option<(Timestamp, u32)> {
        self.heap.first().map(|entry| (entry.deadline, entry.slot))
    }

    /// The deadline of `slot`.
    #[must_use]
    pub fn deadline(&self, slot: u32) -> Option<Timestamp> {
        let position = *self.positions.get(slot as usize)?;
        self.heap.get(position as usize).map(|entry| entry.deadline)
    }

    /// Gives `slot` this deadline in place of any it had.
    pub fn set(&mut self, slot: u32, deadline: Timestamp) {
        if self.positions.len() <= slot as usize {
            self.positions.resize(slot as usize + 1, ABSENT);
        }
        let entry = Entry { deadline, slot };
        match self.positions[slot as usize] {
            ABSENT => {
                self.heap.push(entry);
                self.sift_up(self.heap.len() - 1);
            }
            position => {
                self.heap[position as usize] = entry;
                self.sift(position as usize);
            }
        }
    }

    /// Takes the deadline of `slot` away.
    pub fn clear(&mut self, slot: u32) {
        let Some(&position) = self.positions.get(slot as usize) else {
            return;
        };
        if position == ABSENT {
            return;
        }
        self.positions[slot as usize] = ABSENT;
        self.heap.swap_remove(position as usize);
        if (position as usize) < self.heap.len() {
            self.sift(position as usize);
        }
    }

    /// Gives back the memory of a crowd that has gone.
    pub fn shrink(&mut self) {
        while self.positions.last() == Some(&ABSENT) {
            self.positions.pop();
        }
        self.positions.shrink_to(KEPT_MAX);
        self.heap.shrink_to(KEPT_MAX);
    }

    /// Asserts what is true between any two calls.
    pub(super) fn check_invariants(&self) {
        for (position, entry) in self.heap.iter().enumerate() {
            let parent = position.saturating_sub(1) / 2;
            assert!(self.heap[parent].deadline <= entry.deadline);
            assert_eq!(self.positions[entry.slot as usize] as usize, position);
        }
        let present = self
            .positions
            .iter()
            .filter(|&&position| position != ABSENT);
        assert_eq!(present.count(), self.heap.len());
    }

    fn sift(&mut self, position: usize) {
        let position = self.sift_up(position);
        self.sift_down(position);
    }

    fn sift_up(&mut self, mut position: usize) -> usize {
        let entry = self.heap[position];
        while position > 0 {
            let parent = (position - 1) / 2;
            if self.heap[parent].deadline <= entry.deadline {
                break;
            }
            self.place(position, self.heap[parent]);
            position = parent;
        }
        self.place(position, entry);
        position
    }

    fn sift_down(&mut self, mut position: usize) {
        let entry = self.heap[position];
        loop {
            let left = 2 * position + 1;
            let Some(mut child) = self.heap.get(left).map(|_| left) else {
                break;
            };
            if let Some(right) = self.heap.get(left + 1)
                && right.deadline < self.heap[left].deadline
            {
                child = left + 1;
            }
            if entry.deadline <= self.heap[child].deadline {
                break;
            }
            self.place(position, self.heap[child]);
            position = child;
        }
        self.place(position, entry);
    }

    fn place(&mut self, position: usize, entry: Entry) {
        self.heap[position] = entry;
        self.positions[entry.slot as usize] = position as u32;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use fastrand::Rng;

    #[test]
    fn deadlines_come_in_order_whatever_was_done() {
        for seed in 0..50 {
            let mut random = Rng::with_seed(seed);
            let mut timers = Timers::default();
            let mut model: BTreeMap<u32, Timestamp> = BTreeMap::new();
            for _ in 0..400 {
                let slot = random.u64(0..=30) as u32;
                if random.u64(0..=3) == 0 {
                    timers.clear(slot);
                    timers.shrink();
                    model.remove(&slot);
                } else {
                    let deadline = Timestamp::from_micros(random.u64(0..=50));
                    timers.set(slot, deadline);
                    model.insert(slot, deadline);
                }
                let first = model.values().min().copied();
                assert_eq!(
                    timers.first().map(|(deadline, _)| deadline),
                    first,
                    "seed {seed}"
                );
                assert_eq!(
                    timers.deadline(slot),
                    model.get(&slot).copied(),
                    "seed {seed}"
                );
            }
            let mut last = Timestamp::ZERO;
            while let Some((deadline, slot)) = timers.first() {
                assert!(deadline >= last, "seed {seed}");
                assert_eq!(model.remove(&slot), Some(deadline), "seed {seed}");
                last = deadline;
                timers.clear(slot);
            }
            assert!(model.is_empty(), "seed {seed}");
            timers.shrink();
            assert!(timers.positions.is_empty());
        }
    }
}
