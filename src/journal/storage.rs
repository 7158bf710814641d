//! What the history on disk needs of a file system.
//!
//! [`Storage`] is implemented by [`Directory`](super::directory::Directory), and by
//! [`SimulatedStorage`](super::simulated::SimulatedStorage) for tests. Two files, the segments; a mark that says that
//! the server ended cleanly; and a way to give up the proof that the machine wasn't started again.

use std::io;
use std::os::fd::BorrowedFd;

use crate::handover::Members;

/// Which of the two segments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// Those with an even ordinal.
    Even = 0,
    /// Those with an odd ordinal.
    Odd = 1,
}

impl Side {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Even, Self::Odd];

    /// Where the segment with this ordinal is.
    #[must_use]
    pub const fn of(ordinal: u64) -> Self {
        if ordinal.is_multiple_of(2) {
            Self::Even
        } else {
            Self::Odd
        }
    }

    /// The one beside it.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Even => Self::Odd,
            Self::Odd => Self::Even,
        }
    }
}

/// A file system, in few words. What has returned outlives the process; what was synced outlives the machine.
/// A call that fails may have done a part of its work.
pub trait Storage {
    /// All of a segment; nothing where there is none.
    ///
    /// # Errors
    /// Those of the file system, as for all that follow.
    fn read(&mut self, side: Side) -> io::Result<Vec<u8>>;

    /// How long a segment is.
    ///
    /// # Errors
    /// It isn't known.
    fn length(&self, side: Side) -> io::Result<u64>;

    /// Writes behind the end of a segment. What a killed process leaves of it is a beginning.
    ///
    /// # Errors
    /// A part may have been written.
    fn append(&mut self, side: Side, bytes: &[u8]) -> io::Result<()>;

    /// Cuts a segment to `length`, which is at most what it has.
    ///
    /// # Errors
    /// Nothing was cut.
    fn truncate(&mut self, side: Side, length: u64) -> io::Result<()>;

    /// Makes a segment last.
    ///
    /// # Errors
    /// It may not last.
    fn sync(&mut self, side: Side) -> io::Result<()>;

    /// The mark of a clean end, if there is one. It may be a part of one.
    ///
    /// # Errors
    /// It isn't known whether there is one.
    fn read_mark(&mut self) -> io::Result<Option<Vec<u8>>>;

    /// Sets that mark, and makes it last.
    ///
    /// # Errors
    /// It may be there, or a part of it.
    fn write_mark(&mut self, mark: &[u8]) -> io::Result<()>;

    /// Removes that mark if it is there, and makes it last in any case that it is gone.
    ///
    /// # Errors
    /// It may be there.
    fn remove_mark(&mut self) -> io::Result<()>;

    /// Makes a segment nothing in another way than [`Self::truncate`], since that has failed. It isn't used any more.
    ///
    /// # Errors
    /// It is as it was.
    fn remove(&mut self, side: Side) -> io::Result<()>;

    /// Gives up the proof that this is the same boot, so that a later start takes these segments for nothing.
    ///
    /// # Errors
    /// There is no such proof that could be given up.
    fn forget_boot(&mut self) -> io::Result<()>;

    /// Writes what a successor must know that is given [`Self::descriptors`].
    fn save(&self, members: &mut Members<'_>);

    /// The descriptors that it goes on with.
    fn descriptors(&self) -> Vec<BorrowedFd<'_>>;
}
