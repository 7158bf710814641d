//! What a connection has received but not used yet, and the view of it that a turn works on.
//!
//! Bytes are read into a buffer that all connections share. Only a frame or a head that is
//! incomplete leaves a tail here, and only fragments are kept; an idle connection keeps
//! nothing. For a turn the `Incoming` is taken out of its session, so that a message can be
//! lent from it while the session answers.

use std::time::Duration;

use crate::time::Timestamp;

use super::message::MessageAssembler;

/// The unfinished input of one connection.
#[derive(Default, Debug)]
pub struct Incoming {
    tail: Vec<u8>,
    assembler: MessageAssembler,
    /// When the first byte came of what is unfinished.
    begun: Option<Timestamp>,
    /// How much of the tail has been searched for the end of a head.
    head_scanned: usize,
}

/// The bytes of one turn: the tail and what was received, as one slice.
#[derive(Debug)]
pub struct Input<'a> {
    /// The bytes; those before `position` are used up.
    pub(super) bytes: &'a mut [u8],
    pub(super) position: usize,
    pub(super) assembler: &'a mut MessageAssembler,
    pub(super) head_scanned: usize,
    /// Whether something that had begun was finished in this turn.
    pub(super) has_finished: bool,
    /// Whether the assembler holds a message that was lent and is done with.
    pub(super) is_lent: bool,
    /// Where the request that was taken last begins.
    pub(super) request_start: usize,
    /// How many frames or requests were taken from the input, but for the upgrade.
    pub(super) frames: usize,
    /// How many may be, so that a turn ends whatever the input is made of.
    pub(super) frames_max: usize,
}

/// What a turn left over, to be given back to [`Incoming::keep`].
#[derive(Debug)]
pub struct Leftover {
    position: usize,
    head_scanned: usize,
    has_finished: bool,
    /// How many frames or requests the turn took from the input, but for the upgrade.
    pub frames: usize,
    /// Whether it took as many as it may, and there may be more.
    pub is_cut_short: bool,
}

impl Input<'_> {
    /// Whether every byte is used up.
    #[must_use]
    pub const fn is_used_up(&self) -> bool {
        self.position == self.bytes.len()
    }

    /// Puts the request that was taken last back.
    pub fn put_back_request(&mut self) {
        debug_assert!(self.request_start < self.position, "no request was taken");
        self.position = self.request_start;
        self.frames -= 1;
    }

    /// Whether the turn has taken as much as it may.
    pub(super) const fn is_exhausted(&self) -> bool {
        self.frames >= self.frames_max
    }

    /// Ends the turn.
    #[must_use]
    pub fn finish(self) -> Leftover {
        if self.is_lent {
            self.assembler.reset();
        }
        Leftover {
            position: self.position,
            head_scanned: self.head_scanned,
            has_finished: self.has_finished,
            frames: self.frames,
            is_cut_short: self.is_exhausted() && !self.is_used_up(),
        }
    }
}

impl Incoming {
    /// The view for a turn in which `received` was read, and which takes `frames_max` frames or
    /// requests from it at most.
    pub fn input<'a>(&'a mut self, received: &'a mut [u8], frames_max: usize) -> Input<'a> {
        let bytes = if self.tail.is_empty() {
            received
        } else {
            self.tail.extend_from_slice(received);
            &mut self.tail
        };
        Input {
            bytes,
            position: 0,
            assembler: &mut self.assembler,
            head_scanned: self.head_scanned,
            has_finished: false,
            is_lent: false,
            request_start: 0,
            frames: 0,
            frames_max,
        }
    }

    /// Keeps what the turn left over of its input; `received` as it was given to it.
    pub fn keep(&mut self, received: &[u8], leftover: &Leftover, now: Timestamp) {
        if self.tail.is_empty() {
            self.tail.extend_from_slice(&received[leftover.position..]);
        } else {
            self.tail.drain(..leftover.position);
        }
        // A tail that was long once must not stay long for one byte.
        if self.tail.capacity() > 2 * self.tail.len().max(512) {
            self.tail.shrink_to_fit();
        }
        self.head_scanned = leftover.head_scanned;
        if leftover.has_finished {
            self.begun = None;
        }
        if self.is_empty() {
            self.begun = None;
        } else {
            self.begun.get_or_insert(now);
        }
    }

    /// What is unfinished could not go on for so long: that is not its peer's fault.
    pub fn excuse(&mut self, pause: Duration) {
        self.begun = self.begun.map(|begun| begun + pause);
    }

    /// Forgets the fragments of an unfinished message.
    pub fn forget_message(&mut self) {
        self.assembler.reset();
    }

    /// Whether nothing is kept.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.tail.is_empty() && !self.assembler.is_unfinished()
    }

    /// Bytes that are kept, fragments included.
    #[must_use]
    pub const fn unfinished_bytes(&self) -> usize {
        self.tail.len() + self.assembler.buffered_len()
    }

    /// When the first byte came of what is unfinished.
    #[must_use]
    pub const fn begun(&self) -> Option<Timestamp> {
        self.begun
    }

    /// Bytes of memory that this takes beside its own size.
    #[must_use]
    pub const fn pinned_bytes(&self) -> usize {
        self.tail.capacity() + self.assembler.pinned_bytes()
    }
}
