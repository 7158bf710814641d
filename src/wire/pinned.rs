//! How many bytes the process keeps for its peers: tails, fragments and send queues together.
//!
//! A bound per connection is no bound: 10,000 connections times 1 MiB is 10 GB. So everything
//! that a peer can make us keep is charged here, by what it pins in memory.

use std::cell::Cell;
use std::rc::Rc;

/// A counter that everything which pins memory for peers shares; a clone is another handle.
#[derive(Clone, Debug)]
pub struct PinnedBytes(Rc<Account>);

#[derive(Debug)]
struct Account {
    bytes: Cell<usize>,
    bytes_max: usize,
    unsent_bytes: Cell<usize>,
}

impl PinnedBytes {
    /// An empty account that is over its limit beyond `bytes_max`.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self(Rc::new(Account {
            bytes: Cell::new(0),
            bytes_max,
            unsent_bytes: Cell::new(0),
        }))
    }

    /// What is charged now.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.bytes.get()
    }

    /// Bytes that wait in all send queues, a shared frame once for each of its recipients: a figure
    /// to be shown, which bounds nothing.
    #[must_use]
    pub fn unsent_bytes(&self) -> usize {
        self.0.unsent_bytes.get()
    }

    /// Notes that a send queue holds `unsent_bytes` instead of `noted`.
    pub fn note_unsent(&self, noted: usize, unsent_bytes: usize) {
        debug_assert!(self.unsent_bytes() >= noted, "less is noted than was");
        let others = self.unsent_bytes().saturating_sub(noted);
        self.0.unsent_bytes.set(others.saturating_add(unsent_bytes));
    }

    /// Whether more is charged than the limit allows.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.bytes() > self.0.bytes_max
    }

    /// Charges `bytes`.
    pub fn add(&self, bytes: usize) {
        self.0.bytes.set(self.bytes().saturating_add(bytes));
    }

    /// Gives back `bytes` that were charged.
    pub fn subtract(&self, bytes: usize) {
        debug_assert!(self.bytes() >= bytes, "more is given back than was charged");
        self.0.bytes.set(self.bytes().saturating_sub(bytes));
    }
}
