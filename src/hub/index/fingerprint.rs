//! What a subscription asks for beyond the list that it waits in, as one word that is cheap to
//! hold against a notification: most entries that don't match are passed over where the list is
//! read, without a look at their criteria.
//!
//! ```text
//! | lane 3 | lane 2 | lane 1 | lane 0 |      16 bits each
//! ```
//!
//! Of a subscription, each lane is about one criterion and has a bit for each value that this
//! accepts. Of a notification, each lane has a bit for each of its values. A criterion can be met
//! only if each of its lanes has a bit in common with the same lane of the notification. With
//! fewer criteria than lanes, a criterion has several; each lane hashes in its own way, so
//! one value is taken for another in one of 16, 256, 65,536 cases. Hashes are keyed: nobody can choose
//! values that are taken for others. Main type: [`Fingerprint`]. Invariant: what meets all criteria
//! is never passed over.

use std::hash::{BuildHasher, RandomState};

use super::checks::CheckedCriterion;
use super::texts::TextId;

const LANES: u32 = 4;
const LANE_BITS: u32 = u64::BITS / LANES;
/// The lowest lane.
const LANE: u64 = (1 << LANE_BITS) - 1;
/// The top bit of each lane.
const TOPS: u64 = (u64::MAX / LANE) << (LANE_BITS - 1);

/// What is asked for, or what there is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Fingerprint(pub(super) u64);

impl Fingerprint {
    /// That of a subscription that asks for nothing more.
    pub(super) const NOTHING: Self = Self(0);

    /// That of a notification that may meet any criterion.
    pub(super) const EVERYTHING: Self = Self(u64::MAX);

    /// That of criteria, of which there is one at least, and each accepts something. `turn` says
    /// which of them have a lane if they are more than the lanes: with different turns, all do.
    pub(super) fn asked(
        hasher: &RandomState,
        criteria: &[CheckedCriterion<'_>],
        turn: u32,
    ) -> Self {
        let lanes = (0..LANES).map(|lane| {
            let criterion = turn.wrapping_add(lane) as usize % criteria.len();
            of_criterion(hasher, &criteria[criterion]) & LANE << (lane * LANE_BITS)
        });
        Self(lanes.fold(0, |all, lane| all | lane))
    }

    /// Adds a value that a notification has under a name; `None`: that it has any.
    pub(super) fn offer(&mut self, hasher: &RandomState, name: TextId, value: Option<TextId>) {
        self.0 |= bits(hasher, name, value);
    }

    /// Whether a notification of which this is `offered` may meet what is asked for.
    pub(super) const fn may_be_met_by(self, offered: Self) -> bool {
        let common = self.0 & offered.0;
        // What is added carries into the top bit of a lane if there is a bit below.
        let carried = (common & !TOPS) + !TOPS;
        (common | carried) & TOPS == TOPS
    }
}

fn of_criterion(hasher: &RandomState, criterion: &CheckedCriterion<'_>) -> u64 {
    match criterion.accepted {
        None => bits(hasher, criterion.name, None),
        Some(accepted) => {
            let values = accepted.iter();
            let values = values.map(|&value| {
                let value = TextId::from_word(value);
                bits(hasher, criterion.name, Some(value))
            });
            values.fold(0, |all, value| all | value)
        }
    }
}

/// One bit in each lane, and another one in each.
fn bits(hasher: &RandomState, name: TextId, value: Option<TextId>) -> u64 {
    let hash = hasher.hash_one((name, value));
    let lanes = (0..LANES).map(|lane| {
        let bit = (hash >> (lane * LANE_BITS)) % u64::from(LANE_BITS);
        1 << (u64::from(lane * LANE_BITS) + bit)
    });
    lanes.fold(0, |all, lane: u64| all | lane)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastrand::Rng;

    fn id(word: u32) -> TextId {
        TextId::from_word(word)
    }

    /// Criteria that each accept so many values, no two the same.
    fn asked(hasher: &RandomState, accepted: &[&[u32]], turn: u32) -> Fingerprint {
        let criteria = (1..)
            .zip(accepted)
            .map(|(name, accepted)| CheckedCriterion {
                name: id(name),
                accepted: (!accepted.is_empty()).then_some(accepted),
            });
        Fingerprint::asked(hasher, &criteria.collect::<Vec<_>>(), turn)
    }

    fn offered(hasher: &RandomState, values: &[(u32, u32)]) -> Fingerprint {
        let mut offered = Fingerprint::default();
        for &(name, value) in values {
            offered.offer(hasher, id(name), None);
            offered.offer(hasher, id(name), Some(id(value)));
        }
        offered
    }

    #[test]
    fn each_lane_has_to_have_something_in_common() {
        let mut random = Rng::with_seed(7);
        let mut both = [0, 0];
        for _ in 0..100_000 {
            // A lane in five has nothing in common.
            let a = random.u64(..) | random.u64(..);
            let b = random.u64(..) & random.u64(..) & random.u64(..);
            let mut lanes = (0..LANES).map(|lane| (a & b) >> (lane * LANE_BITS) & LANE);
            let naive = lanes.all(|lane| lane != 0);
            assert_eq!(Fingerprint(a).may_be_met_by(Fingerprint(b)), naive);
            both[usize::from(naive)] += 1;
        }
        assert!(both.iter().all(|&count| count > 10_000), "{both:?}");
        for lane in 0..LANES {
            for bit in [0, LANE_BITS - 1] {
                let without = Fingerprint(!(LANE << (lane * LANE_BITS)));
                let with = Fingerprint(without.0 | 1 << (lane * LANE_BITS + bit));
                assert!(!without.may_be_met_by(Fingerprint::EVERYTHING));
                assert!(with.may_be_met_by(Fingerprint::EVERYTHING));
            }
        }
    }

    #[test]
    fn what_meets_all_criteria_may_meet_them() {
        let hasher = RandomState::new();
        let accepted: [&[u32]; 9] = [&[7], &[], &[8, 9], &[], &[1], &[2], &[3], &[4, 5, 6], &[5]];
        for count in 1..=accepted.len() {
            for turn in (0..20).chain(u32::MAX - 5..=u32::MAX) {
                let asked = asked(&hasher, &accepted[..count], turn);
                let values = (1..).zip(&accepted[..count]);
                let values = values.map(|(name, accepted)| (name, *accepted.last().unwrap_or(&99)));
                let offered = offered(&hasher, &values.collect::<Vec<_>>());
                assert!(asked.may_be_met_by(offered));
                assert!(asked.may_be_met_by(Fingerprint::EVERYTHING));
                assert!(!asked.may_be_met_by(Fingerprint::default()));
            }
        }
    }

    /// How many of a thousand criteria may be met by a notification that meets none of them.
    fn mistaken(accepted: usize) -> usize {
        let hasher = RandomState::new();
        let offered = offered(&hasher, &[(1, 1), (2, 2)]);
        let values: Vec<u32> = (100..100 + 1000 * accepted as u32).collect();
        let lists = values.chunks(accepted);
        let mistaken = lists.filter(|list| asked(&hasher, &[list], 0).may_be_met_by(offered));
        mistaken.count()
    }

    #[test]
    fn few_that_are_not_met_are_taken_for_met() {
        // 0.3, 3 and 21 % are expected: a lane has four bits of sixteen.
        for (accepted, per_thousand_max) in [(1, 30), (2, 100), (4, 400)] {
            let mistaken = mistaken(accepted);
            assert!(mistaken <= per_thousand_max, "{accepted}: {mistaken}");
        }
    }

    #[test]
    fn every_criterion_has_its_turn() {
        let hasher = RandomState::new();
        let accepted: [&[u32]; 9] = [&[7]; 9];
        let lane_of = |bits: u64, lane| bits & LANE << (lane * LANE_BITS);
        for name in 1..=9 {
            let own = bits(&hasher, id(name), Some(id(7)));
            let has_turn = |turn| {
                let Fingerprint(asked) = asked(&hasher, &accepted, turn);
                (0..LANES).any(|lane| lane_of(asked, lane) == lane_of(own, lane))
            };
            let turns = (0..9).filter(|&turn| has_turn(turn)).count();
            assert!(turns >= LANES as usize, "{turns}");
        }
    }
}
