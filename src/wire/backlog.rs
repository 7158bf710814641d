//! The segments of a send queue, and those behind its first.
//!
//! Knows how many of their bytes somebody else pays for: an owner that retains them, the history, lets go of
//! the oldest first, so what isn't retained any more is found from the front. Main type: [`Backlog`].
//!
//! Invariant: `retained_bytes` is what the retained segments from `released_len` on hold.

use std::collections::VecDeque;

use crate::handover::{Malformed, push_varint, take_bytes, take_varint};

use super::carried::{FrameNumbers, Frames};
use super::shared::SharedBytes;

/// Bytes that are written one behind the other.
#[derive(Debug)]
pub(super) enum Segment {
    /// Others may hold them too.
    Shared(SharedBytes),
    /// The same, and an owner that retains them paid for them when they were queued.
    Retained(SharedBytes),
    /// This queue's alone.
    Own(Vec<u8>),
}

impl Segment {
    #[inline]
    pub(super) fn of_shared(bytes: SharedBytes) -> Self {
        if bytes.is_retained() {
            Self::Retained(bytes)
        } else {
            Self::Shared(bytes)
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Shared(bytes) | Self::Retained(bytes) => bytes.as_bytes(),
            Self::Own(bytes) => bytes,
        }
    }

    pub(super) fn own_capacity(&self) -> usize {
        match self {
            Self::Shared(_) | Self::Retained(_) => 0,
            Self::Own(bytes) => bytes.capacity(),
        }
    }

    /// Its bytes, if somebody else pays for them now.
    pub(super) fn retained_bytes(&self) -> usize {
        match self {
            Self::Retained(bytes) if bytes.is_retained() => bytes.as_bytes().len(),
            _ => 0,
        }
    }

    /// The bytes, if others may hold them too.
    pub(super) const fn shared(&self) -> Option<&SharedBytes> {
        match self {
            Self::Shared(bytes) | Self::Retained(bytes) => Some(bytes),
            Self::Own(_) => None,
        }
    }

    /// Appends it to a state: 0, its length and its bytes; or one more than the number of the frame that it shares, and
    /// the length of that. All of it, even of one that is half sent: that part is what tells how much must still go out.
    pub(super) fn save(&self, state: &mut Vec<u8>, frames: &FrameNumbers) {
        match self {
            // Whether a frame is retained is seen when it is pushed again.
            Self::Shared(bytes) | Self::Retained(bytes) => {
                let number = frames.get(bytes);
                debug_assert!(number.is_some(), "the frame has no number");
                // None can have the number that stands for it else: its reader loses this connection alone.
                push_varint(
                    state,
                    number.map_or(u64::MAX, |number| u64::from(number) + 1),
                );
                push_varint(state, bytes.as_bytes().len() as u64);
            }
            Self::Own(bytes) => {
                push_varint(state, 0);
                push_varint(state, bytes.len() as u64);
                state.extend_from_slice(bytes);
            }
        }
    }

    /// Takes the next one off the front of a state.
    pub(super) fn restore(state: &mut &[u8], frames: &Frames) -> Result<Self, Malformed> {
        let number = take_varint(state)?;
        let len = take_varint(state)?;
        // An empty one would never be done with.
        if len == 0 {
            return Err(Malformed("a segment is empty"));
        }
        let Some(number) = number.checked_sub(1) else {
            return Ok(Self::Own(take_bytes(state, len)?.to_vec()));
        };
        Ok(Self::of_shared(frames.get(number, len)?.clone()))
    }
}

/// The segments behind the first.
#[derive(Default, Debug)]
pub(super) struct Backlog {
    segments: VecDeque<Segment>,
    /// How many of the first segments are known not to be retained.
    released_len: usize,
    /// What the others hold, of those that were retained when they were queued.
    retained_bytes: usize,
}

impl Backlog {
    pub(super) fn push(&mut self, segment: Segment) {
        self.retained_bytes += counted(&segment);
        self.segments.push_back(segment);
    }

    pub(super) fn pop(&mut self) -> Option<Segment> {
        let first = self.segments.pop_front()?;
        match self.released_len.checked_sub(1) {
            Some(released_len) => self.released_len = released_len,
            None => self.retained_bytes -= counted(&first),
        }
        Some(first)
    }

    pub(super) fn last_mut(&mut self) -> Option<&mut Segment> {
        self.segments.back_mut()
    }

    /// Forgets all but the first `len`.
    pub(super) fn truncate(&mut self, len: usize) {
        let forgotten = self.segments.iter().skip(len.max(self.released_len));
        self.retained_bytes -= forgotten.map(counted).sum::<usize>();
        self.released_len = self.released_len.min(len);
        self.segments.truncate(len);
        self.segments.shrink_to_fit();
    }

    /// Looks again what is retained still.
    pub(super) fn update_retained(&mut self) {
        while let Some(segment) = self.segments.get(self.released_len)
            && segment.retained_bytes() == 0
        {
            self.retained_bytes -= counted(segment);
            self.released_len += 1;
        }
    }

    /// Bytes that somebody else paid for when it was last looked at.
    pub(super) const fn retained_bytes(&self) -> usize {
        self.retained_bytes
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.segments.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Appends all of them to a state.
    pub(super) fn save(&self, state: &mut Vec<u8>, frames: &FrameNumbers) {
        let Self {
            segments,
            // Counted when they are pushed again.
            released_len: _,
            retained_bytes: _,
        } = self;
        for segment in segments {
            segment.save(state, frames);
        }
    }

    /// Bytes that the list itself takes.
    pub(super) fn heap_bytes(&self) -> usize {
        size_of::<Self>() + self.segments.capacity() * size_of::<Segment>()
    }

    /// Asserts what the head of this file promises.
    pub(super) fn check_invariants(&self) {
        assert!(self.released_len <= self.len());
        let others = self.iter().skip(self.released_len);
        assert_eq!(self.retained_bytes, others.map(counted).sum::<usize>());
    }
}

/// What a segment adds to `retained_bytes`.
fn counted(segment: &Segment) -> usize {
    match segment {
        Segment::Retained(bytes) => bytes.as_bytes().len(),
        Segment::Shared(_) | Segment::Own(_) => 0,
    }
}
