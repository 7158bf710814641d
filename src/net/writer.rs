//! How a send queue is written: in one piece, copied together, or as a vector.
//!
//! Main type: [`Writer`]. Every write to a connection goes through it, so what has to be on disk before is.

use std::io::{self, IoSlice};

use crate::application::WriteBarrier;
use crate::id::ConnectionId;
use crate::wire::send_queue::{SLICES_MAX, SendQueue};

use super::transport::Transport;

/// Frames that are smaller than this on average are copied together: one piece costs the
/// kernel less than many, and the copy less than that.
const COPIED_BYTES_MAX: usize = 512;

/// Bytes that are copied together at most.
const SCRATCH_BYTES: usize = 64 * 1024;

/// What connections share to be written.
pub(super) struct Writer {
    /// What comes before any write.
    barrier: Option<Box<dyn WriteBarrier>>,
    /// Where small frames are copied together; empty in between.
    scratch: Vec<u8>,
    /// Connections that took less than they were offered for the first time.
    blocked: Vec<ConnectionId>,
}

impl Writer {
    pub(super) const fn new(barrier: Option<Box<dyn WriteBarrier>>) -> Self {
        Self {
            barrier,
            scratch: Vec::new(),
            blocked: Vec::new(),
        }
    }

    /// Has whoever watches the transports watch that of `id` for room to write.
    pub(super) fn note_blocked(&mut self, id: ConnectionId) {
        self.blocked.push(id);
    }

    /// The next of those that are to be watched for room to write.
    pub(super) fn next_blocked(&mut self) -> Option<ConnectionId> {
        self.blocked.pop()
    }

    /// Offers what waits in `queue` to `transport`, once; returns how many bytes it offered, and how many were
    /// taken.
    ///
    /// # Errors
    /// As the transport's.
    pub(super) fn write_once(
        &mut self,
        queue: &SendQueue,
        transport: &mut impl Transport,
    ) -> io::Result<(usize, usize)> {
        if let Some(barrier) = &self.barrier
            && barrier.is_pending()
        {
            barrier.commit();
        }
        if let Some(bytes) = queue.single() {
            return Ok((bytes.len(), transport.write(bytes)?));
        }
        let segments = queue.segments_len();
        if queue.unsent_bytes() <= segments * COPIED_BYTES_MAX {
            self.scratch.clear();
            queue.copy_into(&mut self.scratch, SCRATCH_BYTES);
            if !self.scratch.is_empty() {
                return Ok((self.scratch.len(), transport.write(&self.scratch)?));
            }
        }
        // Clearing a thousand slices costs as much as writing a few.
        if segments <= 64 {
            write_vector::<64>(queue, transport)
        } else {
            write_vector::<SLICES_MAX>(queue, transport)
        }
    }
}

fn write_vector<const LEN: usize>(
    queue: &SendQueue,
    transport: &mut impl Transport,
) -> io::Result<(usize, usize)> {
    let mut slices = [IoSlice::new(&[]); LEN];
    let filled = queue.gather(&mut slices);
    let offered = slices[..filled].iter().map(|slice| slice.len()).sum();
    Ok((offered, transport.write_vectored(&slices[..filled])?))
}
