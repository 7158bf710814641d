//! A turn of one connection: what its input holds, or what is due for it, becomes calls of the application
//! and changes of its state.
//!
//! Main type: [`Turn`]. A turn ends after so many frames, requests or bytes of answers, whatever a peer
//! sends; what is left of its input is kept for the next.

use log::debug;

use crate::application::{Application, CloseCause, Message, Response, Status};
use crate::id::ConnectionId;
use crate::time::{Clock, Timestamp};
use crate::wire::input::Input;
use crate::ws::close::CloseCode;
use crate::ws::event as session;

use super::connection::NO_CLOSE;
use super::protocol::{Event, Expiry};
use super::schedule::Priority;
use super::shell::{Shell, ShellOutbox};
use super::transport::Transport;
use crate::http::exchange;

/// Frames or requests of a connection that are handled in one turn; so many more of a publisher's.
pub(super) const FRAMES_A_TURN_MAX: usize = 256;
const PUBLISHER_FRAMES_FACTOR: usize = 4;

/// Bytes of answers after which a connection's turn ends, and beyond which they are written at
/// once. A thousand connections that send nothing but Pings must not make us keep a thousand
/// times what a turn reads.
pub(super) const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// What §7.4.1 of RFC 6455 calls a Close without a code.
const NO_STATUS: u16 = 1005;

/// One connection's turn.
pub(super) struct Turn<'a, T, A, C> {
    pub(super) application: &'a mut A,
    pub(super) shell: &'a mut Shell<T, C>,
    pub(super) id: ConnectionId,
    pub(super) now: Timestamp,
}

impl<T: Transport, A: Application, C: Clock> Turn<'_, T, A, C> {
    /// Hands what was held back and what was `received` to the protocol, and its events to the
    /// application.
    pub(super) fn handle_input(&mut self, received: &mut [u8]) {
        let received_len = received.len();
        let Some((connection, _)) = self.shell.entry(self.id) else {
            return;
        };
        let frames_max = match connection.priority() {
            Priority::Publisher => FRAMES_A_TURN_MAX * PUBLISHER_FRAMES_FACTOR,
            Priority::New | Priority::Served => FRAMES_A_TURN_MAX,
        };
        let mut input = connection.protocol.begin_turn(received, frames_max);
        let unsent_bytes_max = connection.protocol.queue().unsent_bytes() + ANSWER_BYTES_MAX;
        let is_held = self.handle_events(&mut input, unsent_bytes_max);
        let (id, now) = (self.id, self.now);
        let Some((connection, context)) = self.shell.entry(id) else {
            return;
        };
        let frames = input.cursor().taken();
        connection.charge(frames, received_len, context, now);
        connection.io.has_input = is_held || input.is_cut_short();
        connection.io.is_served |= frames > 0;
        connection.protocol.end_turn(input, now);
        let unsent_bytes = connection.protocol.queue().unsent_bytes();
        if unsent_bytes > 0 {
            connection.mark_reply(context);
        }
        if unsent_bytes > ANSWER_BYTES_MAX {
            connection.flush(context, now);
        }
    }

    /// Handles what the input holds, until it is used up or the turn is over. Says whether some of it is
    /// held back.
    fn handle_events(&mut self, input: &mut Input<'_>, unsent_bytes_max: usize) -> bool {
        let (id, now) = (self.id, self.now);
        while let Some((connection, context)) = self.shell.entry(id) {
            if connection.protocol.queue().unsent_bytes() > unsent_bytes_max
                || connection.is_paused()
            {
                return !input.is_used_up();
            }
            let is_served = connection.io.is_served;
            let head_bytes_max = context.limits.head_bytes_max;
            let event = connection.protocol.next_event(input, now, head_bytes_max);
            let Some(event) = event else {
                // Until the answer is there, what comes behind its request waits.
                return connection.is_answer_due() && !input.is_used_up();
            };
            if let Event::Http(exchange::Event::Request { head, .. }) = &event
                && !is_served
                && self.defers(head)
            {
                input.put_back();
                return true;
            }
            let schedule = &self.shell.context.schedule;
            let (was_congested, unwritten) = (schedule.is_congested(), schedule.unwritten());
            self.handle_event(event);
            // A publisher that sends much at once waits until subscribers have had their turn.
            let schedule = &self.shell.context.schedule;
            let is_congested = was_congested || schedule.is_congested();
            if is_congested && schedule.unwritten() != unwritten {
                return !input.is_used_up();
            }
        }
        false
    }

    #[inline]
    fn handle_event(&mut self, event: Event<'_>) {
        match event {
            Event::WebSocket(session::Event::Message(message)) => self.handle_message(message),
            Event::WebSocket(event) => self.handle_session_event(&event),
            Event::Http(event) => self.handle_request_event(event),
        }
        self.conclude();
    }

    fn handle_message(&mut self, message: Message<'_>) {
        let mut outbox = ShellOutbox::new(self.shell, self.now);
        self.application
            .handle_message(self.id, message, &mut outbox);
    }

    /// Whatever isn't a message. Apart, so that messages don't pay for what this needs.
    #[inline(never)]
    fn handle_session_event(&mut self, event: &session::Event<'_>) {
        let (id, now) = (self.id, self.now);
        let Some((connection, context)) = self.shell.entry(id) else {
            return;
        };
        let peer = connection.peer;
        match *event {
            session::Event::Message(_) => {}
            session::Event::Pong { round_trip } => {
                let micros = round_trip.as_micros() as u64;
                context.metrics.ping_round_trip_micros.observe(micros);
            }
            session::Event::Discarded => context.metrics.messages_discarded += 1,
            session::Event::Failed(error) => {
                let cause = CloseCause::Protocol(error);
                self.shell.close(id, cause, self.application, now);
            }
            session::Event::Closed { code } => {
                // If it answers ours, that one has been counted.
                if connection.grants.is_admitted {
                    let code = code.map_or(NO_STATUS, CloseCode::as_u16);
                    context.metrics.closed.count(code);
                }
                match code {
                    Some(code) => {
                        debug!(connection:% = id, peer:% = peer, code = code.as_u16(); "{id} {peer}: closed with {code}");
                    }
                    None => debug!(connection:% = id, peer:% = peer; "{id} {peer}: closed"),
                }
            }
        }
        if let Some((connection, context)) = self.shell.entry(id) {
            connection.settle_standing(context);
        }
    }

    /// Does what is due.
    pub(super) fn handle_expiry(&mut self) {
        let (id, now) = (self.id, self.now);
        let Some((connection, context)) = self.shell.entry(id) else {
            return;
        };
        if connection.own_deadline().is_some_and(|due| due <= now) {
            connection.deadline = None;
            let mut outbox = ShellOutbox::new(self.shell, now);
            self.application.handle_deadline(id, &mut outbox);
        } else {
            let expiry = connection.protocol.handle_timeout(now, &context.timeouts);
            let Some(expiry) = expiry else {
                return;
            };
            self.handle_late(expiry);
        }
        if let Some((connection, context)) = self.shell.entry(id) {
            // A thousand Pings that are due at once are written in slices, like deliveries.
            connection.mark_delivery(context);
            connection.settle(context);
        }
        self.conclude();
    }

    fn handle_late(&mut self, expiry: Expiry) {
        let (id, now) = (self.id, self.now);
        let Some((connection, context)) = self.shell.entry(id) else {
            return;
        };
        let peer = connection.peer;
        let cause = match expiry {
            Expiry::Http(exchange::Expiry::Request) => {
                debug!(connection:% = id, peer:% = peer; "{id} {peer}: no handshake in time");
                context.metrics.handshakes_expired += 1;
                let late = Response::new(Status::REQUEST_TIMEOUT, "no request in time");
                return self.shell.respond(id, &late, now);
            }
            Expiry::Http(exchange::Expiry::Answer) => {
                let late = context.unavailable("no answer in time");
                return self.shell.respond(id, &late, now);
            }
            Expiry::Http(exchange::Expiry::Idle | exchange::Expiry::Close)
            | Expiry::WebSocket(session::Expiry::PingDue | session::Expiry::Close) => return,
            Expiry::WebSocket(session::Expiry::PongOverdue) => {
                debug!(connection:% = id, peer:% = peer; "{id} {peer}: no sign of life");
                context.metrics.peers_dead += 1;
                return context.metrics.closed.count(NO_CLOSE);
            }
            Expiry::WebSocket(session::Expiry::Message) => CloseCause::UnfinishedMessage,
            Expiry::WebSocket(session::Expiry::Write) => CloseCause::SlowConsumer,
        };
        self.shell.close(id, cause, self.application, now);
    }

    /// Brings up to date what follows from what was done, before anything else is.
    #[inline]
    pub(super) fn conclude(&mut self) {
        self.shell.conclude(self.application, self.now);
    }
}
