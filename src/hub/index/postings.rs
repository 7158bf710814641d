//! Where the entries of one connection lie, and what is to be checked when one is met.
//!
//! Knows nothing of the lists but their ids. Main type: [`Postings`].

use std::ops::{Deref, DerefMut};

use super::checks::Checks;
use super::lists::ListId;

/// Where an entry lies.
#[derive(Clone, Copy)]
pub(super) struct Posting {
    pub(super) list: ListId,
    /// Its position in the list.
    pub(super) position: u32,
}

/// The postings of a connection, and what they need. Most have one without a check, and it needs
/// no allocation: ten thousand small ones, taken between messages, would keep the heap from
/// shrinking when they are gone.
#[derive(Default)]
pub(super) enum Postings {
    #[default]
    None,
    One(Posting),
    Several(Box<Several>),
}

pub(super) struct Several {
    postings: Box<[Posting]>,
    /// What is to be checked beyond the lists.
    checks: Checks,
}

impl Postings {
    pub(super) fn new(postings: Vec<Posting>, checks: Checks) -> Self {
        match postings[..] {
            [] => Self::None,
            [posting] if checks.is_empty() => Self::One(posting),
            _ => Self::Several(Box::new(Several {
                postings: postings.into_boxed_slice(),
                checks,
            })),
        }
    }

    pub(super) const fn checks(&self) -> Option<&Checks> {
        match self {
            Self::None | Self::One(_) => None,
            Self::Several(several) => Some(&several.checks),
        }
    }

    /// Bytes that they have asked of the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        let Self::Several(several) = self else {
            return 0;
        };
        size_of::<Several>()
            + size_of_val::<[Posting]>(&several.postings)
            + several.checks.heap_bytes()
    }
}

impl Deref for Postings {
    type Target = [Posting];

    fn deref(&self) -> &[Posting] {
        match self {
            Self::None => &[],
            Self::One(posting) => std::slice::from_ref(posting),
            Self::Several(several) => &several.postings,
        }
    }
}

impl DerefMut for Postings {
    fn deref_mut(&mut self) -> &mut [Posting] {
        match self {
            Self::None => &mut [],
            Self::One(posting) => std::slice::from_mut(posting),
            Self::Several(several) => &mut several.postings,
        }
    }
}
