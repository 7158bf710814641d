//! What a connection keeps of its byte stream, in both directions. Main type: [`Buffers`].
//!
//! Each protocol owns one, and hands it on at an upgrade. Call order of a turn: [`Buffers::begin_turn`]
//! lends the input, the protocol takes from it, [`Buffers::end_turn`] keeps what is incomplete.
//! [`Buffers::settle`] comes at the end of whatever changed something here.
//!
//! Invariants: an idle connection owns no memory here; `begun` is set while something is unfinished.

use std::time::Duration;

use crate::handover::{Fields, Malformed, Members};
use crate::time::Timestamp;

use super::carried::{FrameNumbers, Frames};
use super::input::Input;
use super::pinned::PinnedBytes;
use super::send_queue::SendQueue;

/// A tail that was long once must not stay long for a few bytes more than these.
const TAIL_KEPT_BYTES: usize = 512;

// Members of a connection.
const TAIL: u8 = 28;
const BEGUN: u8 = 29;
const BLOCKED_SINCE: u8 = 30;

/// Output that waits and input that is unfinished.
#[derive(Default, Debug)]
pub struct Buffers {
    queue: SendQueue,
    #[expect(
        clippy::box_collection,
        reason = "few connections have one, and all would be 16 bytes wider"
    )]
    tail: Option<Box<Vec<u8>>>,
    /// When the first byte came of what is unfinished.
    begun: Option<Timestamp>,
    /// While writes block: when the socket last took something.
    blocked_since: Option<Timestamp>,
    /// What unfinished input has charged to the process.
    charged_bytes: u32,
}

impl Buffers {
    /// What waits to be written.
    #[inline]
    #[must_use]
    pub const fn queue(&self) -> &SendQueue {
        &self.queue
    }

    /// What waits to be written, for the protocol that queues.
    #[inline]
    pub const fn queue_mut(&mut self) -> &mut SendQueue {
        &mut self.queue
    }

    // Input.

    /// Begins a turn in which `received` was read, and which takes `taken_max` frames or requests at most.
    #[must_use]
    pub fn begin_turn<'a>(&mut self, received: &'a mut [u8], taken_max: usize) -> Input<'a> {
        let tail = self.tail.take().map_or_else(Vec::new, |tail| *tail);
        Input::new(tail, received, taken_max)
    }

    /// Ends a turn: keeps what is left over. `has_more` says whether the protocol itself keeps something
    /// unfinished beside it.
    pub fn end_turn(&mut self, input: Input<'_>, has_more: bool, now: Timestamp) {
        let (has_finished, mut tail) = input.into_rest();
        if has_finished {
            self.begun = None;
        }
        if tail.is_empty() && !has_more {
            self.begun = None;
        } else {
            self.begun.get_or_insert(now);
        }
        if !tail.is_empty() {
            if tail.capacity() > 2 * tail.len().max(TAIL_KEPT_BYTES) {
                tail.shrink_to_fit();
            }
            self.tail = Some(Box::new(tail));
        }
    }

    /// Forgets the unfinished input: no more of it will be parsed.
    pub fn forget_input(&mut self) {
        self.tail = None;
        self.begun = None;
    }

    /// Whether bytes are left over.
    #[must_use]
    pub const fn has_tail(&self) -> bool {
        self.tail.is_some()
    }

    /// Bytes that are left over.
    #[must_use]
    pub fn tail_bytes(&self) -> usize {
        self.tail.as_ref().map_or(0, |tail| tail.len())
    }

    /// When the first byte came of what is unfinished.
    #[must_use]
    pub const fn begun(&self) -> Option<Timestamp> {
        self.begun
    }

    /// What is unfinished could not go on for so long: that is not its peer's fault.
    pub fn excuse(&mut self, pause: Duration) {
        self.begun = self.begun.map(|begun| begun + pause);
    }

    // Output.

    /// The socket took `sent` bytes; says whether the write before had blocked.
    #[inline]
    pub fn handle_sent(&mut self, sent: usize) -> bool {
        self.queue.advance(sent);
        self.blocked_since.take().is_some()
    }

    /// The socket refused a write.
    pub fn handle_blocked(&mut self, now: Timestamp) {
        self.blocked_since.get_or_insert(now);
    }

    /// While writes block: when the socket last took something.
    #[must_use]
    pub const fn blocked_since(&self) -> Option<Timestamp> {
        self.blocked_since
    }

    // Bounds.

    /// Bytes that the connection makes the process keep, shared frames counted in full.
    #[must_use]
    pub fn pinned_bytes(&self) -> usize {
        self.queue.pinned_bytes() + self.queue.charged_bytes() + self.charged_bytes as usize
    }

    /// Brings what is charged to the process up to date. `more_bytes` is the memory of the unfinished input
    /// that the protocol itself keeps.
    pub fn settle(&mut self, more_bytes: usize, pinned: &PinnedBytes) {
        self.queue.settle(pinned);
        let tail_bytes = self
            .tail
            .as_ref()
            .map_or(0, |tail| size_of::<Vec<u8>>() + tail.capacity());
        // Far less than 4 GiB, by the limits of messages and heads.
        let bytes = u32::try_from(tail_bytes + more_bytes).unwrap_or(u32::MAX);
        if bytes != self.charged_bytes {
            pinned.subtract(self.charged_bytes as usize);
            pinned.add(bytes as usize);
            self.charged_bytes = bytes;
        }
    }

    /// Forgets everything and gives back all that is charged.
    pub fn release(&mut self, pinned: &PinnedBytes) {
        self.queue.clear();
        self.forget_input();
        self.settle(0, pinned);
    }

    // Handover.

    /// Writes what a successor must know, as [`SendQueue::save`]; not within a turn.
    pub fn save(&self, members: &mut Members<'_>, frames: &FrameNumbers) {
        let Self {
            queue,
            tail,
            begun,
            blocked_since,
            // By `settle`.
            charged_bytes: _,
        } = self;
        queue.save(members, frames);
        members.bytes(TAIL, tail.as_deref().map_or(&[], Vec::as_slice));
        members.time(BEGUN, *begun);
        members.time(BLOCKED_SINCE, *blocked_since);
    }

    /// What was saved; nothing of it is charged yet.
    ///
    /// # Errors
    /// As [`SendQueue::restore`]; or bytes are left over, and not the time since when.
    pub fn restore(fields: &Fields<'_>, frames: &Frames) -> Result<Self, Malformed> {
        let tail = fields.bytes(TAIL);
        let begun = fields.time(BEGUN);
        if !tail.is_empty() && begun.is_none() {
            return Err(Malformed("unfinished input has no time"));
        }
        Ok(Self {
            queue: SendQueue::restore(fields, frames)?,
            tail: (!tail.is_empty()).then(|| Box::new(tail.to_vec())),
            begun,
            blocked_since: fields.time(BLOCKED_SINCE),
            charged_bytes: 0,
        })
    }

    /// Asserts what is true between any two calls; `more_bytes` and `pinned` as in [`Buffers::settle`], after
    /// it.
    pub fn check_invariants(&self) {
        self.queue.check_invariants();
        assert!(self.tail.as_ref().is_none_or(|tail| !tail.is_empty()));
        assert!(self.tail.is_none() || self.begun.is_some());
    }
}
