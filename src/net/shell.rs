//! What the application's answers touch while it handles a message: the table of connections,
//! the lists of those that have something to be written, and the budget.
//!
//! Apart from the engine, so that the application can be called with it. Queues only: nothing
//! is written here but what a full queue needs to have written before it is judged.

use std::collections::VecDeque;
use std::mem;
use std::time::Duration;

use crate::application::{Admission, Delivered, Outbox, Response, Status};
use crate::id::ConnectionId;
use crate::metrics::Metrics;
use crate::time::{Clock, Timestamp};
use crate::ws::close::{CloseCode, CloseFrame};
use crate::ws::frame::{EncodedFrame, Opcode};
use crate::ws::pinned::PinnedBytes;
use fastrand::Rng;

use super::connection::Transport;
use super::connections::Connections;

/// How long a client that is closed for its own sake stays away, in milliseconds.
const RETRY_MS: (u64, u64) = (1_000, 10_000);

/// Frames that are queued to subscribers before they are written. Even where a frame is shared,
/// each of its entries takes memory, and time.
pub(super) const UNWRITTEN_MAX: usize = 1 << 20;

/// Connections, lists and budget.
pub(super) struct Shell<T, C> {
    pub(super) clock: C,
    pub(super) connections: Connections<T>,
    /// Connections with an answer to be written: handshakes, replies, control frames.
    pub(super) replies: Vec<ConnectionId>,
    /// Connections with deliveries to be written.
    pub(super) deliveries: VecDeque<ConnectionId>,
    /// Connections whose queue did not take a delivery: to be cut off.
    pub(super) overflowed: Vec<ConnectionId>,
    /// Frames that were queued to subscribers since the list of deliveries was last empty.
    pub(super) unwritten: usize,
    /// Where small frames are copied together for a write; empty in between.
    pub(super) scratch: Vec<u8>,
    pub(super) pinned: PinnedBytes,
    pub(super) random: Rng,
    pub(super) metrics: Metrics,
    pub(super) send_queue_bytes_max: usize,
    /// How many connections there are, by [`super::connection::Kind`].
    pub(super) kinds: [u64; 4],
}

impl<T: Transport, C> Shell<T, C> {
    /// Whether deliveries are to be written before more of them are queued.
    pub(super) const fn is_congested(&self) -> bool {
        self.unwritten >= UNWRITTEN_MAX
    }

    /// Counts a connection as what it has become.
    pub(super) fn recount(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(id) {
            let kind = connection.kind();
            let counted = mem::replace(&mut connection.counted, kind);
            self.kinds[counted as usize] -= 1;
            self.kinds[kind as usize] += 1;
        }
    }

    /// Puts a connection on the list of those with an answer to be written.
    pub(super) fn mark_reply(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(id)
            && !mem::replace(&mut connection.marks.has_reply, true)
        {
            self.replies.push(id);
        }
    }

    /// Puts a connection on the list of those with deliveries to be written.
    pub(super) fn mark_delivery(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(id)
            && !mem::replace(&mut connection.marks.has_delivery, true)
        {
            self.deliveries.push_back(id);
        }
    }

    /// Gives back the memory of a crowd that has gone.
    pub(super) fn shrink(&mut self) {
        self.connections.shrink();
        self.replies.shrink_to_fit();
        self.deliveries.shrink_to_fit();
        self.overflowed.shrink_to_fit();
    }

    /// Milliseconds after which a client that is closed now should come back.
    pub(super) fn retry_ms(&mut self) -> u64 {
        self.random.u64(RETRY_MS.0..=RETRY_MS.1)
    }

    /// The answer to who can't be served now.
    pub(super) fn unavailable(&mut self, why: &str) -> Response {
        let seconds = self.retry_ms().div_ceil(1000);
        Response::new(Status::SERVICE_UNAVAILABLE, why)
            .with_field("Retry-After", seconds.to_string())
    }

    /// Writes what is queued, where one event brings more than may wait. Those that it was for
    /// stay on the list, for what else follows from a write.
    fn relieve(&mut self, now: Timestamp) {
        for &id in &self.deliveries {
            if let Some(connection) = self.connections.get_mut(id) {
                connection.flush(&mut self.scratch, now);
            }
        }
        self.unwritten = 0;
    }

    /// Queues `frame` to one connection and says whether its queue took it; `None` if the
    /// connection takes no part any more.
    #[inline]
    fn deliver_to(
        &mut self,
        frame: &EncodedFrame,
        id: ConnectionId,
        now: Timestamp,
    ) -> Option<bool> {
        let connection = self.connections.get_mut(id)?;
        if !connection.session.is_open() || connection.marks.is_overflowed {
            return None;
        }
        let frame_len = frame.as_bytes().len();
        if !connection.has_room(frame_len, self.send_queue_bytes_max) {
            // It may be long only because nobody has tried to write it yet.
            connection.flush_at_last(&mut self.scratch, now);
            if !connection.has_room(frame_len, self.send_queue_bytes_max) {
                connection.marks.is_overflowed = true;
                self.overflowed.push(id);
                return Some(false);
            }
        }
        connection.session.send_shared(frame.clone());
        if !mem::replace(&mut connection.marks.has_delivery, true) {
            self.deliveries.push_back(id);
        }
        Some(true)
    }
}

/// The way out for the application while it handles a message of the connection `id`.
pub(super) struct ShellOutbox<'a, T, C> {
    shell: &'a mut Shell<T, C>,
    id: ConnectionId,
    now: Timestamp,
}

impl<'a, T, C> ShellOutbox<'a, T, C> {
    pub(super) const fn new(shell: &'a mut Shell<T, C>, id: ConnectionId, now: Timestamp) -> Self {
        Self { shell, id, now }
    }
}

impl<T: Transport, C> ShellOutbox<'_, T, C> {
    /// Queues a message to the connection that is being answered; nothing behind a delivery
    /// that its queue did not take.
    fn send(&mut self, opcode: Opcode, payload: &[u8]) {
        let Some(connection) = self.shell.connections.get_mut(self.id) else {
            return;
        };
        if connection.marks.is_overflowed {
            return;
        }
        connection.session.send(opcode, payload);
        if connection.is_over(self.shell.send_queue_bytes_max) {
            connection.flush_at_last(&mut self.shell.scratch, self.now);
            // Who asks without reading the answers is a slow consumer too.
            if connection.is_over(self.shell.send_queue_bytes_max) {
                connection.marks.is_overflowed = true;
                self.shell.overflowed.push(self.id);
            }
        }
        if !mem::replace(&mut connection.marks.has_reply, true) {
            self.shell.replies.push(self.id);
        }
    }
}

impl<T: Transport, C: Clock> Outbox for ShellOutbox<'_, T, C> {
    fn reply(&mut self, payload: &str) {
        self.send(Opcode::Text, payload.as_bytes());
    }

    fn reply_binary(&mut self, payload: &[u8]) {
        self.send(Opcode::Binary, payload);
    }

    fn deliver(&mut self, frame: &EncodedFrame, recipients: &[ConnectionId]) -> Delivered {
        let mut delivered = Delivered::default();
        if !recipients.is_empty() {
            frame.pin(&self.shell.pinned);
            if self.shell.is_congested() {
                self.shell.relieve(self.now);
            }
        }
        for &id in recipients {
            match self.shell.deliver_to(frame, id, self.now) {
                Some(true) => delivered.queued += 1,
                Some(false) => delivered.dropped += 1,
                None => {}
            }
        }
        self.shell.unwritten += delivered.queued;
        self.shell.metrics.deliveries += delivered.queued as u64;
        self.shell.metrics.deliveries_dropped += delivered.dropped as u64;
        delivered
    }

    fn close(&mut self, code: CloseCode, reason: &str) {
        if let Some(connection) = self.shell.connections.get_mut(self.id)
            && connection.session.is_open()
        {
            self.shell.metrics.closed.count(code.as_u16());
            connection
                .session
                .close(&CloseFrame::new(code, reason), self.now);
        }
        self.shell.mark_reply(self.id);
    }

    fn readmit(&mut self, admission: Admission) {
        if let Some(connection) = self.shell.connections.get_mut(self.id) {
            connection.admit(&admission);
        }
    }

    fn retry_ms(&mut self) -> u64 {
        self.shell.retry_ms()
    }

    fn now(&self) -> Timestamp {
        self.shell.clock.now()
    }

    fn unix_now(&self) -> Duration {
        self.shell.clock.unix_now()
    }
}
