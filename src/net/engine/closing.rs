//! How connections come to their end: on the shell's own account, to save memory, at a
//! shutdown; and what follows when a session has changed its state.

use std::cmp::Reverse;
use std::mem;

use log::{debug, log};

use crate::application::{Application, CloseCause, Lane};
use crate::id::ConnectionId;
use crate::net::connection::{Connection, Transport};
use crate::time::{Clock, Timestamp};
use crate::ws::close::CloseFrame;

use super::{Engine, SPARE_CONNECTIONS};

/// How many clients a second come back after a shutdown.
const RETURNS_A_SECOND: u64 = 500;

/// The shortest and the longest time over which they are spread, in milliseconds.
const RETRY_SPREAD_MS: (u64, u64) = (1_000, 60_000);

impl<T: Transport, A: Application, C: Clock> Engine<T, A, C> {
    /// Closes a connection on the shell's own account.
    pub(super) fn close(&mut self, id: ConnectionId, cause: CloseCause, now: Timestamp) {
        let frame = self.close_frame(cause);
        let Some(connection) = self.shell.connections.get_mut(id) else {
            return;
        };
        if !connection.session.is_open() {
            return;
        }
        let level = self.fault_log.level(now);
        log!(
            level, connection:% = id, peer:% = connection.peer, code = cause.close_code().as_u16(), reason:% = cause;
            "{id} {}: {cause}, closed with {}",
            connection.peer,
            cause.close_code()
        );
        let code = cause.close_code().as_u16();
        self.shell.metrics.closed.count(code);
        match cause {
            CloseCause::SlowConsumer | CloseCause::Overload => {
                self.shell.metrics.slow_consumers += 1;
                connection.session.cut_off(&frame, now);
            }
            CloseCause::Protocol(_) | CloseCause::UnfinishedMessage => {
                self.shell.metrics.protocol_errors += 1;
                connection.session.fail(&frame, now);
            }
            CloseCause::Shutdown => connection.session.close(&frame, now),
        }
    }

    fn close_frame(&mut self, cause: CloseCause) -> CloseFrame {
        let retry_ms = self.shell.retry_ms();
        CloseFrame::new(
            cause.close_code(),
            self.application.close_reason(cause, retry_ms),
        )
    }

    /// Cuts off those whose queue did not take a delivery.
    pub(super) fn cut_off_overflowed(&mut self, now: Timestamp) {
        while let Some(id) = self.shell.overflowed.pop() {
            self.close(id, CloseCause::SlowConsumer, now);
            self.shell.mark_delivery(id);
            self.settle(id);
        }
    }

    /// If the process keeps more for its peers than it may: lets go of those for whom it keeps
    /// the most, until an eighth of the budget is free. Who leaves anyway goes first. Whoever
    /// has less than half of an even share stays: all of those together are below the limit.
    pub fn shed(&mut self, now: Timestamp) {
        if !self.shell.pinned.is_over() {
            return;
        }
        let connections = &self.shell.connections;
        let half_share = self.limits.buffer_bytes_max / (2 * connections.len().max(1));
        let mut worst: Vec<_> = connections
            .iter()
            .filter(|connection| !connection.session.is_closed())
            .map(|connection| (connection.session.pinned_bytes(), connection))
            .filter(|&(bytes, _)| bytes > half_share)
            .map(|(bytes, connection)| {
                (connection.session.is_open(), Reverse(bytes), connection.id)
            })
            .collect();
        worst.sort_unstable();
        // Frames that are half written are finished if nothing more comes; else they go next.
        let mut finishing_bytes = 0;
        for (_, _, id) in worst {
            let bytes = self.shell.pinned.bytes().saturating_sub(finishing_bytes);
            if bytes <= self.limits.buffer_bytes_max / 8 * 7 {
                break;
            }
            self.let_go(id, now);
            let connection = self.shell.connections.get(id);
            finishing_bytes += connection.map_or(0, |left| left.session.pinned_bytes());
        }
    }

    /// If all room of a lane is taken: lets go of those who have been about to begin or to end for the
    /// longest, so that whoever says nothing keeps nobody else out. Half of the spare room is
    /// freed: a newcomer stays at least until it has been read once.
    pub fn make_room(&mut self, lane: Lane, now: Timestamp) {
        if self.has_room(lane) {
            return;
        }
        let mut waiting: Vec<_> = self
            .shell
            .connections
            .iter()
            .filter(|connection| connection.peer.lane == lane && !connection.marks.is_publisher)
            .filter_map(|connection| {
                let since = connection.session.unopened_since()?;
                Some((since, connection.id.serial, connection.id))
            })
            .collect();
        let count = waiting.len().min(SPARE_CONNECTIONS / 2);
        if count < waiting.len() {
            waiting.select_nth_unstable_by_key(count, |&(since, serial, _)| (since, serial));
        }
        for &(_, _, id) in &waiting[..count] {
            self.displace(id, now);
        }
    }

    /// Drops a connection that isn't open; who has no answer yet is sent one.
    fn displace(&mut self, id: ConnectionId, now: Timestamp) {
        let Some(connection) = self.shell.connections.get(id) else {
            return;
        };
        debug!(connection:% = id, peer:% = connection.peer; "{id} {}: makes room", connection.peer);
        self.shell.metrics.connections_displaced += 1;
        if connection.session.is_connecting() {
            self.turn_away(id, "full", now);
        }
        if let Some(connection) = self.shell.connections.get_mut(id) {
            connection.session.handle_end();
        }
        self.settle(id);
    }

    /// Stops keeping things for a connection.
    fn let_go(&mut self, id: ConnectionId, now: Timestamp) {
        let Some(connection) = self.shell.connections.get_mut(id) else {
            return;
        };
        if connection.session.is_open() {
            self.close(id, CloseCause::Overload, now);
        } else if connection.session.is_connecting() {
            self.turn_away(id, "overloaded", now);
        } else {
            let level = self.fault_log.level(now);
            log!(
                level, connection:% = id, peer:% = connection.peer, reason:% = CloseCause::Overload;
                "{id} {}: {}, dropped",
                connection.peer,
                CloseCause::Overload
            );
            connection.session.handle_end();
            connection.session.release(&self.shell.pinned);
        }
        self.shell.mark_delivery(id);
        self.settle(id);
    }

    /// Starts to stop: nobody is let in any more, and all are told but publishers that may have
    /// more to say.
    pub fn shut_down(&mut self, now: Timestamp) {
        self.is_stopping = true;
        self.dismiss(|connection| !connection.closes_last(), now);
    }

    /// Whether all that [`Engine::shut_down`] told have it, as far as they are still there.
    pub fn are_clients_told(&self) -> bool {
        !self.shell.connections.iter().any(|connection| {
            let session = &connection.session;
            !connection.closes_last() && !session.is_closed() && session.queue().unsent_bytes() > 0
        })
    }

    /// Tells the publishers too.
    pub fn shut_down_publishers(&mut self, now: Timestamp) {
        self.dismiss(Connection::closes_last, now);
    }

    /// Starts to close the connections that are meant; each gets a time of its own to come
    /// back, spread evenly, so that they don't all come at once.
    fn dismiss(&mut self, is_meant: impl Fn(&Connection<T>) -> bool, now: Timestamp) {
        let connections = self.shell.connections.iter();
        let meant = connections.filter(|connection| is_meant(connection));
        let ids: Vec<_> = meant
            .map(|connection| (connection.id, connection.session.is_open()))
            .collect();
        let clients = ids.iter().filter(|(_, is_open)| *is_open).count().max(1) as u64;
        let spread_ms =
            (clients * 1000 / RETURNS_A_SECOND).clamp(RETRY_SPREAD_MS.0, RETRY_SPREAD_MS.1);
        let mut open = 0;
        for (id, _) in ids {
            let Some(connection) = self.shell.connections.get_mut(id) else {
                continue;
            };
            if connection.session.is_open() {
                open += 1;
                let code = CloseCause::Shutdown.close_code().as_u16();
                self.shell.metrics.closed.count(code);
                let retry_ms = spread_ms * open / clients;
                let reason = self
                    .application
                    .close_reason(CloseCause::Shutdown, retry_ms);
                let frame = CloseFrame::new(CloseCause::Shutdown.close_code(), reason);
                connection.session.close(&frame, now);
            } else if connection.session.is_connecting() {
                self.turn_away(id, "stopping", now);
            }
            self.shell.mark_delivery(id);
            self.settle(id);
        }
    }

    /// Tells the application of a connection that has left Open, once; and whoever has
    /// published over HTTP and leaves gives up its place.
    pub(super) fn settle_gone(&mut self, id: ConnectionId) {
        let Some(connection) = self.shell.connections.get(id) else {
            return;
        };
        if connection.session.is_open() && !connection.marks.is_publisher {
            return;
        }
        if !connection.session.is_connecting() {
            self.give_up_place(id);
        }
        if let Some(connection) = self.shell.connections.get_mut(id)
            && connection.marks.is_admitted
            && !connection.session.is_open()
        {
            connection.marks.is_admitted = false;
            self.lanes[connection.peer.lane as usize].admitted -= 1;
            self.application.handle_gone(id);
        }
        self.shell.recount(id);
    }

    /// Brings everything that follows from a session's state up to date. To be called at the
    /// end of whatever changed it.
    pub(super) fn settle(&mut self, id: ConnectionId) {
        self.settle_gone(id);
        let Some(connection) = self.shell.connections.get_mut(id) else {
            return;
        };
        connection.session.settle(&self.shell.pinned);
        if connection.session.is_closed() {
            if !mem::replace(&mut connection.marks.is_reaped, true) {
                self.closed.push(id);
            }
            return;
        }
        if connection.has_work() && !mem::replace(&mut connection.marks.is_ready, true) {
            self.ready.push(id, connection.priority());
        }
        // A later deadline waits until the earlier one comes and is found too early.
        if let Some(deadline) = connection.next_deadline(&self.timeouts)
            && self
                .timers
                .deadline(id.index)
                .is_none_or(|armed| deadline < armed)
        {
            self.timers.set(id.index, deadline);
        }
    }

    /// Drops the connections that are closed. Slots are freed here and nowhere else, so that
    /// an id stays good for a whole iteration.
    pub fn reap(&mut self, now: Timestamp) {
        let mut left = 0;
        while let Some(id) = self.closed.pop() {
            self.timers.clear(id.index);
            if let Some(mut connection) = self.shell.connections.remove(id) {
                // The peer may have shut only its sending side: what it is owed is tried once.
                connection.flush(&mut self.shell.scratch, now);
                connection.session.release(&self.shell.pinned);
                self.shell.metrics.connections_dropped += 1;
                self.lanes[connection.peer.lane as usize].connections -= 1;
                self.shell.kinds[connection.counted as usize] -= 1;
                left += 1;
            }
        }
        if self.departures.update(left, self.shell.connections.len()) {
            self.shrink();
        }
        self.trimmer.update(self.shell.pinned.bytes(), now);
    }

    /// A crowd that has left must not keep its memory. Each list has a connection once.
    fn shrink(&mut self) {
        self.closed.shrink_to_fit();
        self.ready.shrink();
        self.timers.shrink();
        self.shell.shrink();
    }
}
