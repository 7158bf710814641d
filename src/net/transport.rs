//! What carries the bytes of a connection: TCP or a Unix socket in the product, memory in a simulation.

use std::io::{self, IoSlice};

/// Bytes that are read at once, at most.
pub const READ_BYTES_MAX: usize = 64 * 1024;

/// What a read brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received {
    /// How many bytes; 0 at the peer's end of file.
    pub len: usize,
    /// Whether there is nothing more to read now: readiness will be told again when there is.
    pub is_drained: bool,
}

/// A byte stream that never blocks: what can't be done now is [`io::ErrorKind::WouldBlock`].
pub trait Transport {
    /// Reads into `buffer`, which isn't empty.
    ///
    /// # Errors
    /// As the transport's.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<Received>;

    /// Writes some of `bytes` and says how many.
    ///
    /// # Errors
    /// As the transport's.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Writes some of `slices`, one behind the other, and says how many bytes.
    ///
    /// # Errors
    /// As the transport's.
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Whether the transport has taken bytes that it has yet to send, or has bytes of its own to send. Bytes that
    /// it has taken count as sent: what it holds when its connection is dropped is lost.
    fn wants_write(&self) -> bool {
        false
    }

    /// Sends what [`Transport::wants_write`] speaks of, which is false afterwards.
    ///
    /// # Errors
    /// As the transport's; what could not be sent stays.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Tells the peer that nothing more will be sent.
    ///
    /// # Errors
    /// As the transport's.
    fn shutdown_write(&mut self) -> io::Result<()>;
}
