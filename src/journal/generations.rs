//! Which process kept which entries. Main type: [`Generations`].
//!
//! Invariant: there is one at least, the last is this process's; their starts ascend.

use super::id::{EntryId, Generation, Position};
use super::record::{GENERATIONS_MAX, POSITION_MAX};
use crate::handover::{Malformed, push_varint, take_varint};

/// The generations whose entries may be known, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Generations(Vec<(Generation, Position)>);

impl Generations {
    /// Each with the position that it began behind, in order; the last is this process's.
    #[must_use]
    pub const fn new(generations: Vec<(Generation, Position)>) -> Self {
        Self(generations)
    }

    /// The id of a position: an entry's is of the generation that has kept it, and stays so.
    #[must_use]
    pub fn id(&self, position: Position) -> EntryId {
        let mut kept_by = self.0.iter().rev();
        let kept_by = kept_by.find(|(_, start)| *start < position);
        let (generation, _) = *kept_by.unwrap_or(&self.0[0]);
        EntryId::Own {
            generation,
            position,
        }
    }

    /// Whether a generation may have told a position, where the log ends at `head`.
    #[must_use]
    pub fn have_told(&self, generation: Generation, position: Position, head: Position) -> bool {
        let Some(index) = self.0.iter().position(|&(of, _)| of == generation) else {
            return false;
        };
        let end = self.0.get(index + 1).map_or(head, |&(_, start)| start);
        (self.0[index].1..=end).contains(&position)
    }

    /// What a successor must know.
    pub(super) fn save(&self) -> Vec<u8> {
        let Self(generations) = self;
        to_bytes(generations)
    }

    /// Those that were saved.
    ///
    /// # Errors
    /// As for [`from_bytes`].
    pub(super) fn restore(bytes: &[u8]) -> Result<Self, Malformed> {
        from_bytes(bytes).map(Self)
    }
}

/// Each generation and its position, as varints.
pub(super) fn to_bytes(generations: &[(Generation, Position)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (Generation(generation), Position(position)) in generations {
        push_varint(&mut bytes, *generation);
        push_varint(&mut bytes, *position);
    }
    bytes
}

/// The generations of [`to_bytes`].
///
/// # Errors
/// There are none or too many, or they aren't in order.
pub(super) fn from_bytes(mut bytes: &[u8]) -> Result<Vec<(Generation, Position)>, Malformed> {
    let mut generations = Vec::new();
    while !bytes.is_empty() {
        let generation = Generation(take_varint(&mut bytes)?);
        let position = Position(take_varint(&mut bytes)?);
        let newest = generations.last().map_or(Position(0), |&(_, start)| start);
        if !(newest..=POSITION_MAX).contains(&position) {
            return Err(Malformed("a generation begins at no such position"));
        }
        generations.push((generation, position));
    }
    if !(1..=GENERATIONS_MAX).contains(&generations.len()) {
        return Err(Malformed("there are no generations, or too many"));
    }
    Ok(generations)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(generation: u64, position: u64) -> EntryId {
        EntryId::Own {
            generation: Generation(generation),
            position: Position(position),
        }
    }

    #[test]
    fn an_id_is_its_generations() {
        let generations = [(1, 0), (2, 5), (3, 5), (4, 8)];
        let generations = generations.map(|(of, start)| (Generation(of), Position(start)));
        let generations = Generations::new(generations.to_vec());
        for (position, generation) in [(0, 1), (1, 1), (5, 1), (6, 3), (8, 3), (9, 4), (20, 4)] {
            assert_eq!(
                generations.id(Position(position)),
                id(generation, position),
                "{position}"
            );
        }
        let have_told = |(generation, position)| {
            generations.have_told(Generation(generation), Position(position), Position(10))
        };
        let told = [(1, 0), (1, 5), (2, 5), (3, 5), (3, 8), (4, 8), (4, 10)];
        assert!(told.into_iter().all(have_told));
        let others = [(1, 6), (2, 4), (2, 6), (3, 9), (4, 7), (4, 11), (5, 9)];
        assert!(!others.into_iter().any(have_told));
    }

    #[test]
    fn what_is_saved_is_restored() {
        let all = |count: u64| (0..count).map(|at| (Generation(u64::MAX - at), Position(at / 2)));
        for count in [1, 2, GENERATIONS_MAX as u64] {
            let generations = Generations::new(all(count).collect());
            let saved = generations.save();
            assert_eq!(Generations::restore(&saved), Ok(generations));
            for cut in 0..saved.len() {
                if let Ok(cut) = Generations::restore(&saved[..cut]) {
                    assert_ne!(cut.save(), saved);
                }
            }
        }
        let at = |position| vec![(Generation(1), position)];
        assert!(from_bytes(&to_bytes(&at(POSITION_MAX))).is_ok());
        let unordered = [(Generation(1), Position(2)), (Generation(2), Position(1))];
        for refused in [
            Vec::new(),
            all(GENERATIONS_MAX as u64 + 1).collect(),
            at(POSITION_MAX.next()),
            unordered.to_vec(),
        ] {
            assert!(from_bytes(&to_bytes(&refused)).is_err(), "{refused:?}");
        }
    }
}
