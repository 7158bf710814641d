//! The criteria that a connection's subscriptions have beside those of their lists.
//!
//! ```text
//! words: | criteria | name | values | value | value | name | ANY | criteria | name | ...
//!        '------------------ a check -----------------------------''------ another one ---
//! ```
//!
//! A check is all that one subscription asks for beyond its list; those of a connection lie in one run of
//! memory, so that looking into one is one look at memory in most cases. Texts are there by their ids,
//! the values of a criterion sorted. Main type: [`Checks`].

use super::texts::TextId;

/// Stands for the number of values where any will do.
const ANY: u32 = u32::MAX;

/// The checks of a connection.
#[derive(Default)]
pub(super) struct Checks(Box<[u32]>);

/// Checks while they are made.
#[derive(Default)]
pub(super) struct ChecksDraft(Vec<u32>);

/// One of the criteria of a check.
#[derive(Clone, Copy)]
pub(super) struct CheckedCriterion<'c> {
    pub(super) name: TextId,
    /// The words of the ids of the values, sorted; `None` is any value.
    pub(super) accepted: Option<&'c [u32]>,
}

impl ChecksDraft {
    /// Adds a check and says where it begins.
    pub(super) fn add(&mut self, criteria: &[CheckedCriterion<'_>]) -> u32 {
        let start = word(self.0.len());
        self.0.push(word(criteria.len()));
        for &CheckedCriterion { name, accepted } in criteria {
            self.0.push(name.word());
            self.0
                .push(accepted.map_or(ANY, |values| word(values.len())));
            self.0.extend(accepted.unwrap_or_default());
        }
        start
    }

    pub(super) fn finish(self) -> Checks {
        Checks(self.0.into_boxed_slice())
    }
}

impl Checks {
    /// Whether there is none.
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The criteria of the check that begins at `start`.
    pub(super) fn at(&self, start: u32) -> impl Iterator<Item = CheckedCriterion<'_>> {
        let (count, words) = take_one(&self.0[start as usize..]);
        Criteria { words, count }
    }

    /// Where the checks begin.
    pub(super) fn starts(&self) -> impl Iterator<Item = u32> {
        let first = (!self.is_empty()).then_some(0);
        std::iter::successors(first, |&start| {
            let (count, words) = take_one(&self.0[start as usize..]);
            let mut criteria = Criteria { words, count };
            criteria.by_ref().for_each(drop);
            let next = self.0.len() - criteria.words.len();
            (next < self.0.len()).then(|| word(next))
        })
    }

    /// The texts of all criteria, each as often as it is there.
    pub(super) fn texts(&self) -> impl Iterator<Item = TextId> {
        let criteria = self.starts().flat_map(|start| self.at(start));
        criteria.flat_map(|criterion| {
            let values = criterion.accepted.unwrap_or_default().iter();
            std::iter::once(criterion.name).chain(values.map(|&value| TextId::from_word(value)))
        })
    }

    /// Bytes on the heap.
    pub(super) const fn heap_bytes(&self) -> usize {
        size_of_val::<[u32]>(&self.0)
    }
}

/// The rest of a check.
struct Criteria<'c> {
    words: &'c [u32],
    count: u32,
}

impl<'c> Iterator for Criteria<'c> {
    type Item = CheckedCriterion<'c>;

    fn next(&mut self) -> Option<CheckedCriterion<'c>> {
        self.count = self.count.checked_sub(1)?;
        let (name, words) = take_one(self.words);
        let (values, words) = take_one(words);
        let len = if values == ANY { 0 } else { values as usize };
        let (accepted, words) = words.split_at(len);
        self.words = words;
        Some(CheckedCriterion {
            name: TextId::from_word(name),
            accepted: (values != ANY).then_some(accepted),
        })
    }
}

fn take_one(words: &[u32]) -> (u32, &[u32]) {
    let (&first, rest) = words.split_first().expect("a check is whole");
    (first, rest)
}

fn word(number: usize) -> u32 {
    u32::try_from(number).expect("limits keep texts and values far below 2^32")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_read_as_they_were_made() {
        let criterion = |name, accepted| CheckedCriterion {
            name: TextId::from_word(name),
            accepted,
        };
        let all = [
            &[criterion(7, None)][..],
            &[
                criterion(1, Some(&[2, 3, 9])),
                criterion(4, None),
                criterion(5, Some(&[6])),
            ],
            &[criterion(8, Some(&[1]))],
        ];
        let mut draft = ChecksDraft::default();
        let starts = all.map(|check| draft.add(check));
        let checks = draft.finish();
        assert!(checks.starts().eq(starts));
        for (start, check) in starts.into_iter().zip(all) {
            let words = |c: &CheckedCriterion<'_>| (c.name.word(), c.accepted.map(<[u32]>::to_vec));
            assert!(
                checks
                    .at(start)
                    .map(|c| words(&c))
                    .eq(check.iter().map(words))
            );
        }
        let texts: Vec<_> = checks.texts().map(TextId::word).collect();
        assert_eq!(texts, [7, 1, 2, 3, 9, 4, 5, 6, 8, 1]);
        let none = ChecksDraft::default().finish();
        assert!(none.is_empty() && none.starts().next().is_none() && none.heap_bytes() == 0);
    }
}
