//! What was read last, with its tags: by it a reader finds where a stream that lost its end goes on otherwise.
//!
//! Main type: [`Trail`]. Invariant: places ascend.

use std::collections::VecDeque;

use super::entry::{Place, WholeId};

/// How many ids are remembered.
pub(super) const TRAIL_MAX: usize = 1024;

#[derive(Default)]
pub(super) struct Trail(VecDeque<WholeId>);

impl Trail {
    /// The oldest that is remembered.
    pub(super) fn front(&self) -> Option<WholeId> {
        self.0.front().copied()
    }

    /// The newest.
    pub(super) fn back(&self) -> Option<WholeId> {
        self.0.back().copied()
    }

    /// Adds what was read behind all others.
    pub(super) fn push(&mut self, id: WholeId) {
        if self.0.len() == TRAIL_MAX {
            self.0.pop_front();
        }
        self.0.push_back(id);
    }

    /// All that is remembered, the oldest first.
    pub(super) fn ids(&self) -> impl Iterator<Item = WholeId> {
        self.0.iter().copied()
    }

    /// Where this very entry is.
    pub(super) fn find(&self, id: WholeId) -> Option<usize> {
        self.find_place(id.into()).filter(|at| self.0[*at] == id)
    }

    /// Whether there is an entry at this place.
    pub(super) fn has_place(&self, place: Place) -> bool {
        self.find_place(place).is_some()
    }

    fn find_place(&self, place: Place) -> Option<usize> {
        self.0
            .binary_search_by_key(&place, |id| Place::from(*id))
            .ok()
    }

    /// Forgets all but the first `len`.
    pub(super) fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    pub(super) fn check_invariants(&self) {
        assert!(self.0.len() <= TRAIL_MAX);
        let places = self.0.iter().map(|id| Place::from(*id));
        assert!(places.is_sorted_by(|one, next| one < next));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn id(millis: u64, tag: u64) -> WholeId {
        WholeId {
            millis,
            sequence: 0,
            tag,
        }
    }

    #[test]
    fn the_last_are_remembered_with_their_tags() {
        let mut trail = Trail::default();
        assert_eq!((trail.front(), trail.back()), (None, None));
        for millis in 1..=TRAIL_MAX as u64 + 1 {
            trail.push(id(millis, 7));
            trail.check_invariants();
        }
        assert_eq!(trail.front(), Some(id(2, 7)));
        assert_eq!(trail.find(id(2, 7)), Some(0));
        assert_eq!(trail.find(id(2, 8)), None);
        assert!(trail.has_place(id(2, 8).into()) && !trail.has_place(id(1, 7).into()));
        trail.truncate(1);
        assert_eq!(trail.back(), Some(id(2, 7)));
    }
}
