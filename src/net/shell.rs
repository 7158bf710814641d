//! The connections and what they share, and what happens to them: by the application's word, through
//! [`ShellOutbox`], and on the shell's own account.
//!
//! Apart from the engine, so that the application can be called with it. Queues only: nothing
//! is written here but what a full queue needs to have written before it is judged.

use std::time::Duration;

use log::{debug, log};

use crate::application::{
    Admission, Application, CloseCause, Delivered, Deliveries, Figures, Gauges, Peer, Replies,
    Response, Status, WriteBarrier,
};
use crate::config::{ServerLimits, Timeouts};
use crate::id::ConnectionId;
use crate::metrics::Metrics;
use crate::time::{Clock, Timestamp};
use crate::ws::close::{CloseCode, CloseFrame};
use crate::ws::frame::{EncodedFrame, Opcode};

use super::connection::Connection;
use super::connections::Connections;
use super::context::Context;
use super::schedule::List;
use super::transport::Transport;

/// The connections with what they share.
pub(super) struct Shell<T, C> {
    pub(super) connections: Connections<T>,
    pub(super) context: Context<C>,
}

impl<T: Transport, C: Clock> Shell<T, C> {
    /// No connections yet; `seed` is the jitter's.
    pub(super) fn new(
        clock: C,
        limits: ServerLimits,
        timeouts: Timeouts,
        barrier: Option<Box<dyn WriteBarrier>>,
        seed: u64,
    ) -> Self {
        Self {
            connections: Connections::default(),
            context: Context::new(clock, limits, timeouts, barrier, seed),
        }
    }

    /// The connection that `id` names, if it is still there, with what it shares with others.
    #[inline]
    pub(super) fn entry(
        &mut self,
        id: ConnectionId,
    ) -> Option<(&mut Connection<T>, &mut Context<C>)> {
        let connection = self.connections.get_mut(id)?;
        Some((connection, &mut self.context))
    }

    /// Takes the first connection of a list, with what it shares with others; those that are gone are
    /// passed over.
    pub(super) fn pop(&mut self, list: List) -> Option<(&mut Connection<T>, &mut Context<C>)> {
        let id = loop {
            let id = self.context.schedule.pop(list)?;
            if self.connections.get(id).is_some() {
                break id;
            }
        };
        let (connection, context) = self.entry(id)?;
        connection.membership.remove(list);
        Some((connection, context))
    }

    /// Takes a new connection in.
    pub(super) fn insert(&mut self, transport: T, peer: Peer, now: Timestamp) -> ConnectionId {
        let id = self
            .connections
            .insert(|id| Connection::new(id, peer, transport, now));
        let context = &mut self.context;
        context.places.enter(peer.lane);
        context.metrics.connections_accepted += 1;
        context
            .timers
            .set(id.index, now + context.timeouts.handshake);
        id
    }

    /// Takes a connection out of its slot.
    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<Connection<T>> {
        let connection = self.connections.remove(id)?;
        let context = &mut self.context;
        context.timers.clear(id.index);
        context
            .places
            .leave(connection.peer.lane, connection.counted());
        context.metrics.connections_dropped += 1;
        Some(connection)
    }

    /// Gives back the memory of a crowd that has gone.
    pub(super) fn shrink(&mut self) {
        self.connections.shrink();
        self.context.schedule.shrink();
        self.context.timers.shrink();
    }

    /// Brings up to date what follows from whatever was changed: connections whose queue did not take a
    /// delivery are cut off, and the application is told of those that have left Open, before it
    /// is asked anything else.
    #[inline]
    pub(super) fn conclude<A: Application>(&mut self, application: &mut A, now: Timestamp) {
        let schedule = &self.context.schedule;
        if !schedule.is_empty(List::Overflowed) || !schedule.is_empty(List::Gone) {
            self.conclude_changes(application, now);
        }
    }

    fn conclude_changes<A: Application>(&mut self, application: &mut A, now: Timestamp) {
        while let Some(id) = self.context.schedule.pop(List::Overflowed) {
            self.close(id, CloseCause::SlowConsumer, application, now);
            if let Some((connection, context)) = self.entry(id) {
                connection.membership.remove(List::Overflowed);
                connection.mark_delivery(context);
                connection.settle(context);
            }
        }
        while let Some((connection, _)) = self.pop(List::Gone) {
            let id = connection.id;
            application.handle_end(id, None, now);
            application.handle_gone(id);
        }
    }

    /// Closes a connection on the shell's own account.
    pub(super) fn close<A: Application>(
        &mut self,
        id: ConnectionId,
        cause: CloseCause,
        application: &mut A,
        now: Timestamp,
    ) {
        let Some((connection, context)) = self.entry(id) else {
            return;
        };
        let peer = connection.peer;
        let Some(session) = connection.protocol.open_session_mut() else {
            return;
        };
        let code = cause.close_code();
        application.handle_end(id, Some(cause), now);
        let reason = application.close_reason(cause, context.retry_ms());
        let frame = CloseFrame::new(code, reason);
        let level = context.fault_log.level(now);
        log!(
            level, connection:% = id, peer:% = peer, code = code.as_u16(), reason:% = cause;
            "{id} {peer}: {cause}, closed with {code}"
        );
        context.metrics.closed.count(code.as_u16());
        match cause {
            CloseCause::SlowConsumer | CloseCause::Overload => {
                context.metrics.slow_consumers += 1;
                session.cut_off(&frame, now);
            }
            CloseCause::Protocol(_) | CloseCause::UnfinishedMessage => {
                context.metrics.protocol_errors += 1;
                session.fail(&frame, now);
            }
            CloseCause::Shutdown => session.close(&frame, now),
        }
    }

    /// Answers a request, and ends its connection.
    pub(super) fn respond(&mut self, id: ConnectionId, response: &Response, now: Timestamp) {
        let Some((connection, context)) = self.entry(id) else {
            return;
        };
        let (peer, code) = (connection.peer, response.status.code);
        if let Some(exchange) = connection.protocol.exchange_mut() {
            debug!(
                connection:% = id, peer:% = peer, status = code;
                "{id} {peer}: answered {code}"
            );
            exchange.respond(response, context.unix_now(), now);
        }
    }

    /// Answers a request on a connection that may have further ones, unless it doesn't read its answers.
    pub(super) fn answer(&mut self, id: ConnectionId, response: &Response, now: Timestamp) {
        let Some((connection, context)) = self.entry(id) else {
            return;
        };
        if let Some(exchange) = connection.protocol.exchange_mut() {
            exchange.answer(response, context.unix_now(), now);
            connection.check_answers(context, now);
        }
    }

    /// Gives the answer that was promised for later; nothing if none is awaited.
    fn give_answer(&mut self, id: ConnectionId, response: &Response, now: Timestamp) {
        let Some((connection, context)) = self.entry(id) else {
            return;
        };
        if !connection.is_answer_due() {
            return;
        }
        let is_good = response.status == Status::OK;
        connection.decide_place(is_good, context);
        let may_stay = is_good || connection.grants.body_use.is_authorized();
        if let Some(exchange) = connection.protocol.exchange_mut() {
            exchange.give_answer(response, may_stay, context.unix_now(), now);
            connection.check_answers(context, now);
            // What came behind the request waits in the buffer of its connection.
            connection.io.has_input |= connection.protocol.unfinished_bytes() > 0;
            connection.schedule(context);
            connection.mark_reply(context);
        }
    }

    /// Ends a connection that is not upgraded; a client that awaits an answer is told why.
    pub(super) fn turn_away(&mut self, id: ConnectionId, why: &str, now: Timestamp) {
        let response = self.context.unavailable(why);
        if let Some((connection, _)) = self.entry(id)
            && let Some(exchange) = connection.protocol.exchange_mut()
            && exchange.is_between_requests()
        {
            return exchange.leave(now);
        }
        self.respond(id, &response, now);
    }

    /// Drops a connection that isn't open; a client that has no answer yet is sent one.
    pub(super) fn drop_at_once(&mut self, id: ConnectionId, now: Timestamp) {
        let Some((connection, context)) = self.entry(id) else {
            return;
        };
        debug!(connection:% = id, peer:% = connection.peer; "{id} {}: makes room", connection.peer);
        context.metrics.connections_displaced += 1;
        if connection.protocol.is_serving_http() {
            self.turn_away(id, "full", now);
        }
        if let Some((connection, context)) = self.entry(id) {
            connection.protocol.handle_end();
            connection.settle(context);
        }
    }

    /// Stops keeping things for a connection, of which the process has too many.
    pub(super) fn let_go<A: Application>(
        &mut self,
        id: ConnectionId,
        application: &mut A,
        now: Timestamp,
    ) {
        let Some((connection, context)) = self.entry(id) else {
            return;
        };
        if connection.protocol.is_open() {
            self.close(id, CloseCause::Overload, application, now);
        } else if connection.protocol.is_serving_http() {
            self.turn_away(id, "overloaded", now);
        } else {
            let (peer, cause) = (connection.peer, CloseCause::Overload);
            let level = context.fault_log.level(now);
            log!(
                level, connection:% = id, peer:% = peer, reason:% = cause;
                "{id} {peer}: {cause}, dropped"
            );
            connection.protocol.release(&context.pinned);
        }
        if let Some((connection, context)) = self.entry(id) {
            connection.mark_delivery(context);
            connection.settle(context);
        }
    }

    /// Writes what is queued, where one event brings more than may wait. The connections that it was for
    /// stay on the list, for what else follows from a write.
    fn relieve(&mut self, now: Timestamp) {
        for id in self.context.schedule.ids(List::Deliveries) {
            if let Some(connection) = self.connections.get_mut(id) {
                connection.write_queue(&mut self.context.writer, now);
            }
        }
        self.context.schedule.note_written();
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
        let (connection, context) = self.entry(id)?;
        if connection.is_overflowed() || !connection.protocol.is_open() {
            return None;
        }
        let (bytes, bytes_max) = (frame.shared(), context.limits.send_queue_bytes_max);
        if !connection.has_room(bytes, bytes_max) {
            // It may be long only because nobody has tried to write it yet.
            connection.write_queue_at_last(&mut context.writer, now);
            if !connection.has_room(bytes, bytes_max) {
                connection.overflow(context);
                return Some(false);
            }
        }
        let session = connection.protocol.open_session_mut()?;
        session.send_shared(frame);
        connection.note_behind(context);
        connection.mark_delivery(context);
        Some(true)
    }

    /// Cuts off connections whose queue is over its limit, as the history has let go of what is in it; looks at
    /// `connections_max` of those that are behind.
    pub(super) fn check_behind(&mut self, connections_max: usize, now: Timestamp) {
        let len = self.context.schedule.len(List::Behind);
        for _ in 0..len.min(connections_max) {
            let Some((connection, context)) = self.pop(List::Behind) else {
                break;
            };
            let bytes_max = context.limits.send_queue_bytes_max;
            if !connection.protocol.is_open() || connection.is_overflowed() {
                continue;
            }
            if connection.is_left_behind(bytes_max) {
                connection.write_queue_at_last(&mut context.writer, now);
                if connection.is_left_behind(bytes_max) {
                    connection.overflow(context);
                }
                connection.mark_delivery(context);
            }
            connection.note_behind(context);
        }
    }

    /// Queues a message to one connection; nothing behind a delivery that its queue did not take.
    fn send(&mut self, id: ConnectionId, opcode: Opcode, payload: &[u8], now: Timestamp) {
        let Some((connection, context)) = self.entry(id) else {
            return;
        };
        if connection.is_overflowed() {
            return;
        }
        if let Some(session) = connection.protocol.open_session_mut() {
            session.send(opcode, payload);
        }
        let bytes_max = context.limits.send_queue_bytes_max;
        if connection.is_left_behind(bytes_max) {
            connection.write_queue_at_last(&mut context.writer, now);
            // A peer that asks without reading the answers is a slow consumer too.
            if connection.is_left_behind(bytes_max) {
                connection.overflow(context);
            }
        }
        connection.mark_reply(context);
    }

    /// Asserts what is true between any two calls of the engine. A timer may be armed for as much later
    /// than a connection's deadline as `late_max` says.
    pub(super) fn check_invariants(&self, late_max: Duration) {
        let (connections, context) = (&self.connections, &self.context);
        let membership_of = |id| connections.get(id).map(|connection| connection.membership);
        context.schedule.check_invariants(membership_of);
        context.timers.check_invariants();
        let counted = connections.iter().map(|connection| {
            let is_let_in = connection.grants.is_admitted || connection.grants.is_publisher;
            (connection.peer.lane, connection.counted(), is_let_in)
        });
        context.places.check_invariants(counted);
        for connection in connections.iter() {
            connection.check_invariants(&context.timeouts);
            let armed = context.timers.deadline(connection.id.index);
            let due = connection.next_deadline(&context.timeouts);
            let is_in_time = |due| armed.is_some_and(|armed| armed <= due + late_max);
            // A connection that is to be written is settled then.
            let is_armed = connection.is_to_be_written() || due.is_none_or(is_in_time);
            assert!(is_armed, "{} has no timer", connection.id);
        }
        let queues = connections.iter().map(|one| one.protocol.queue());
        let noted: usize = queues.map(|queue| queue.noted_bytes()).sum();
        assert_eq!(context.pinned.unsent_bytes(), noted);
    }
}

impl<T, C> Figures for Shell<T, C> {
    fn is_accepting(&self) -> bool {
        !self.context.places.is_stopping()
    }

    fn metrics(&self) -> &Metrics {
        &self.context.metrics
    }

    fn gauges(&self) -> Gauges {
        self.context.gauges()
    }

    fn unsent_bytes(&self, id: ConnectionId) -> usize {
        let connection = self.connections.get(id);
        connection.map_or(0, |connection| connection.protocol.queue().unsent_bytes())
    }
}

/// The ways out for the application at one moment.
pub(super) struct ShellOutbox<'a, T, C> {
    shell: &'a mut Shell<T, C>,
    now: Timestamp,
}

impl<'a, T, C> ShellOutbox<'a, T, C> {
    pub(super) const fn new(shell: &'a mut Shell<T, C>, now: Timestamp) -> Self {
        Self { shell, now }
    }
}

impl<T: Transport, C: Clock> Clock for ShellOutbox<'_, T, C> {
    fn now(&self) -> Timestamp {
        self.shell.context.now()
    }

    fn unix_now(&self) -> Duration {
        self.shell.context.unix_now()
    }
}

impl<T: Transport, C: Clock> Deliveries for ShellOutbox<'_, T, C> {
    fn deliver(&mut self, frame: &EncodedFrame, recipients: &[ConnectionId]) -> Delivered {
        let mut delivered = Delivered::default();
        if !recipients.is_empty() {
            frame.shared().pin(&self.shell.context.pinned);
            if self.shell.context.schedule.is_congested() {
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
        let context = &mut self.shell.context;
        context.schedule.count_unwritten(delivered.queued);
        context.metrics.deliveries += delivered.queued as u64;
        context.metrics.deliveries_dropped += delivered.dropped as u64;
        delivered
    }

    fn is_cut_off(&mut self, id: ConnectionId) -> bool {
        let connection = self.shell.connections.get(id);
        connection.is_some_and(Connection::is_overflowed)
    }

    fn has_room(&mut self, id: ConnectionId, frame: &EncodedFrame) -> bool {
        let entry = self.shell.entry(id);
        entry.is_none_or(|(connection, context)| {
            connection.has_room(frame.shared(), context.limits.send_queue_bytes_max)
        })
    }

    fn close(&mut self, id: ConnectionId, code: CloseCode, reason: &str) {
        let Some((connection, context)) = self.shell.entry(id) else {
            return;
        };
        if let Some(session) = connection.protocol.open_session_mut() {
            context.metrics.closed.count(code.as_u16());
            session.close(&CloseFrame::new(code, reason), self.now);
            connection.settle_standing(context);
            // If it was paused, what waited is discarded.
            connection.schedule(context);
        }
        connection.mark_reply(context);
    }

    fn retry_ms(&mut self) -> u64 {
        self.shell.context.retry_ms()
    }
}

impl<T: Transport, C: Clock> Replies for ShellOutbox<'_, T, C> {
    fn reply(&mut self, to: ConnectionId, payload: &str) {
        self.shell
            .send(to, Opcode::Text, payload.as_bytes(), self.now);
    }

    fn reply_binary(&mut self, to: ConnectionId, payload: &[u8]) {
        self.shell.send(to, Opcode::Binary, payload, self.now);
    }

    fn respond(&mut self, to: ConnectionId, response: &Response) {
        self.shell.give_answer(to, response, self.now);
    }

    fn readmit(&mut self, id: ConnectionId, admission: &Admission) {
        if let Some((connection, context)) = self.shell.entry(id) {
            connection.admit(admission);
            // Its deadline may be another one.
            connection.mark_reply(context);
        }
    }

    fn is_drained(&mut self, id: ConnectionId) -> bool {
        let entry = self.shell.entry(id);
        entry.is_none_or(|(connection, _)| connection.protocol.queue().is_empty())
    }

    fn unsent_bytes(&mut self, id: ConnectionId) -> usize {
        Figures::unsent_bytes(self.shell, id)
    }

    fn peer(&mut self, id: ConnectionId) -> Option<Peer> {
        self.shell
            .connections
            .get(id)
            .map(|connection| connection.peer)
    }

    fn await_drained(&mut self, id: ConnectionId) {
        if let Some((connection, context)) = self.shell.entry(id) {
            connection.grants.awaits_drained = true;
            connection.mark_delivery(context);
        }
    }

    fn pause_input(&mut self, id: ConnectionId) {
        if let Some((connection, _)) = self.shell.entry(id) {
            connection.grants.is_paused = true;
        }
    }

    fn resume_input(&mut self, id: ConnectionId) {
        if let Some((connection, context)) = self.shell.entry(id) {
            connection.handle_pause(self.now);
            connection.grants.is_paused = false;
            // What came meanwhile waits in the buffer of its connection, or in its socket.
            connection.io.has_input |= connection.protocol.unfinished_bytes() > 0;
            connection.schedule(context);
            connection.mark_reply(context);
        }
    }
}
