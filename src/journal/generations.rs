//! Which process kept which entries. Main type: [`Generations`].
//!
//! Invariant: there is one at least, the last is this process's; their starts ascend.

use super::id::{EntryId, Generation, Position};

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
        EntryId {
            generation,
            position,
        }
    }

    /// Whether an id may have been told, where the log ends at `head`.
    #[must_use]
    pub fn has_told(&self, id: EntryId, head: Position) -> bool {
        let Some(index) = self.0.iter().position(|&(of, _)| of == id.generation) else {
            return false;
        };
        let end = self.0.get(index + 1).map_or(head, |&(_, start)| start);
        (self.0[index].1..=end).contains(&id.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(generation: u64, position: u64) -> EntryId {
        EntryId {
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
        let told = [(1, 0), (1, 5), (2, 5), (3, 5), (3, 8), (4, 8), (4, 10)];
        for (generation, position) in told {
            assert!(generations.has_told(id(generation, position), Position(10)));
        }
        for (generation, position) in [(1, 6), (2, 4), (2, 6), (3, 9), (4, 7), (4, 11), (5, 9)] {
            assert!(!generations.has_told(id(generation, position), Position(10)));
        }
    }
}
