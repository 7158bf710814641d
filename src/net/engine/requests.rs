//! Requests that ask for no upgrade: permission, bodies, answers, and the place of whoever
//! publishes over HTTP.
//!
//! A connection that only asks counts like a handshake and makes room for others. One that has
//! shown that it may publish has a place among those who are let in, as if it were upgraded.

use std::mem;

use log::{debug, log};

use crate::application::{
    Application, BodyPermit, Census, Figures, Framing, Lane, Peer, Request, Response, Status,
};
use crate::http::head::Head;
use crate::id::ConnectionId;
use crate::metrics::Metrics;
use crate::net::connection::{Kind, Transport};
use crate::net::shell::{Shell, ShellOutbox};
use crate::time::{Clock, Timestamp};
use crate::ws::event::Rejection;

use super::Engine;

/// What a probe may ask for.
struct ShellFigures<'a, T, C> {
    shell: &'a Shell<T, C>,
    is_stopping: bool,
}

impl<T, C> Figures for ShellFigures<'_, T, C> {
    fn is_accepting(&self) -> bool {
        !self.is_stopping
    }

    fn metrics(&self) -> &Metrics {
        &self.shell.metrics
    }

    fn census(&self) -> Census {
        let of = |kind: Kind| self.shell.kinds[kind as usize];
        Census {
            open: of(Kind::Open),
            http: of(Kind::Http),
            handshakes: of(Kind::Handshake),
            closing: of(Kind::Closing),
            send_queue_bytes: self.shell.pinned.unsent_bytes() as u64,
            buffer_bytes: self.shell.pinned.bytes() as u64,
        }
    }
}

impl<T: Transport, A: Application, C: Clock> Engine<T, A, C> {
    pub(super) fn request<'a>(
        &self,
        peer: Peer,
        head: &'a Head<'a>,
        now: Timestamp,
    ) -> Request<'a> {
        Request {
            peer,
            head,
            now,
            unix_now: self.shell.clock.unix_now(),
        }
    }

    /// Whether the first request of a new connection waits for those that may be about to publish:
    /// they come first, however many ask for pages.
    pub(super) fn defers(&mut self, id: ConnectionId, head: &Head<'_>, now: Timestamp) -> bool {
        let Some(connection) = self.shell.connections.get(id) else {
            return false;
        };
        let request = self.request(connection.peer, head, now);
        let is_deferred = !self.application.is_urgent(&request);
        if let Some(connection) = self.shell.connections.get_mut(id) {
            connection.marks.is_served |= is_deferred;
        }
        is_deferred
    }

    /// A request's head is there: it is answered, or its body is read.
    pub(super) fn handle_request(
        &mut self,
        id: ConnectionId,
        head: &Head<'_>,
        framing: Framing,
        now: Timestamp,
    ) {
        let Some(connection) = self.shell.connections.get(id) else {
            return;
        };
        let request = self.request(connection.peer, head, now);
        if connection.marks.is_write_failed && !self.application.is_urgent(&request) {
            // Nobody reads the answer; behind it may be what counts though its sender has gone.
            return self.pass_over(id, framing, now);
        }
        if self.limits.has_rates() && self.application.is_limited(&request) {
            self.limit(id, now);
        }
        match self.application.permit_body(&request, framing) {
            Ok(Some(permit)) => {
                let received = self.receive(id, head, framing, permit, now);
                if let Err(response) = received {
                    self.respond(id, &response, now);
                }
            }
            Ok(None) => {
                let figures = ShellFigures {
                    shell: &self.shell,
                    is_stopping: self.is_stopping,
                };
                let response = self
                    .application
                    .handle_probe(&request, &figures)
                    .unwrap_or_else(|| self.application.handle_request(&request));
                // Nobody knows what a body that isn't wanted is, or whether it comes.
                let has_body = !matches!(framing, Framing::None | Framing::Length(0));
                let stays = head.keeps_connection() && !has_body && response.status == Status::OK;
                self.answer(id, &response, stays, now);
            }
            Err(response) => self.respond(id, &response, now),
        }
    }

    fn pass_over(&mut self, id: ConnectionId, framing: Framing, now: Timestamp) {
        if let Some(connection) = self.shell.connections.get_mut(id) {
            match framing {
                Framing::None | Framing::Length(0) => connection.session.pass_over(now),
                _ => connection.session.handle_end(),
            }
        }
    }

    fn receive(
        &mut self,
        id: ConnectionId,
        head: &Head<'_>,
        framing: Framing,
        permit: BodyPermit,
        now: Timestamp,
    ) -> Result<(), Response> {
        self.check_place_of(id)?;
        if permit.is_authorized {
            self.give_place(id);
        }
        if let Some(connection) = self.shell.connections.get_mut(id) {
            let received = connection.session.receive(head, framing, permit, now);
            received.map_err(|error| Response::new(error.status(), error.to_string()))?;
        }
        Ok(())
    }

    /// A request's body is there: it is answered.
    pub(super) fn handle_body(
        &mut self,
        id: ConnectionId,
        body: &[u8],
        permit: BodyPermit,
        stays: bool,
        now: Timestamp,
    ) {
        // Who shows only now what it takes may find that others have come first.
        if let Err(response) = self.check_place_of(id) {
            return self.respond(id, &response, now);
        }
        let mut outbox = ShellOutbox::new(&mut self.shell, id, now);
        let response = self.application.handle_body(id, body, permit, &mut outbox);
        let has_shown_it = permit.is_authorized || response.status == Status::OK;
        if has_shown_it {
            self.give_place(id);
        }
        self.answer(id, &response, stays && has_shown_it, now);
    }

    fn answer(&mut self, id: ConnectionId, response: &Response, stays: bool, now: Timestamp) {
        if !stays {
            return self.respond(id, response, now);
        }
        let unix_now = self.shell.clock.unix_now();
        let Some(connection) = self.shell.connections.get_mut(id) else {
            return;
        };
        connection.session.answer(response, unix_now, now);
        if connection.is_over(self.limits.send_queue_bytes_max) {
            connection.flush_at_last(&mut self.shell.scratch, now);
            if connection.is_over(self.limits.send_queue_bytes_max) {
                let level = self.fault_log.level(now);
                log!(
                    level,
                    "{id} {}: it does not read its answers",
                    connection.peer
                );
                self.shell.metrics.slow_consumers += 1;
                connection.session.handle_end();
            }
        }
    }

    /// Answers a request, and ends its connection.
    pub(super) fn respond(&mut self, id: ConnectionId, response: &Response, now: Timestamp) {
        let unix_now = self.shell.clock.unix_now();
        if let Some(connection) = self.shell.connections.get_mut(id) {
            let code = response.status.code;
            debug!(
                connection:% = id, peer:% = connection.peer, status = code;
                "{id} {}: answered {code}", connection.peer
            );
            connection.session.respond(response, unix_now, now);
        }
    }

    /// Answers a request that broke a rule of HTTP or of the handshake.
    pub(super) fn reject(&mut self, id: ConnectionId, rejection: Rejection, now: Timestamp) {
        self.shell.metrics.requests_rejected += 1;
        if rejection.is_of_upgrade() {
            self.shell.metrics.upgrades_invalid += 1;
        }
        if let Some(connection) = self.shell.connections.get(id) {
            debug!(
                connection:% = id, peer:% = connection.peer, reason:% = rejection;
                "{id} {}: {rejection}", connection.peer
            );
        }
        self.respond(id, &rejection.response(), now);
    }

    /// Ends a connection that is not upgraded; who awaits an answer is told why.
    pub(super) fn turn_away(&mut self, id: ConnectionId, why: &str, now: Timestamp) {
        let response = self.shell.unavailable(why);
        if let Some(connection) = self.shell.connections.get_mut(id)
            && connection.session.is_between_requests()
        {
            return connection.session.leave(now);
        }
        self.respond(id, &response, now);
    }

    /// Whether another connection of a lane may be let in.
    pub(super) fn check_places(&mut self, lane: Lane) -> Result<(), Response> {
        if self.is_stopping {
            return Err(self.shell.unavailable("stopping"));
        }
        if self.lanes[lane as usize].admitted >= self.admissions_max(lane) {
            return Err(self.shell.unavailable("full"));
        }
        Ok(())
    }

    /// Whether a connection that publishes over HTTP has a place, or may be given one.
    fn check_place_of(&mut self, id: ConnectionId) -> Result<(), Response> {
        if self.is_stopping {
            return Err(self.shell.unavailable("stopping"));
        }
        match self.shell.connections.get(id) {
            Some(connection) if !connection.marks.is_publisher => {
                self.check_places(connection.peer.lane)
            }
            _ => Ok(()),
        }
    }

    fn give_place(&mut self, id: ConnectionId) {
        if let Some(connection) = self.shell.connections.get_mut(id)
            && !mem::replace(&mut connection.marks.is_publisher, true)
        {
            self.lanes[connection.peer.lane as usize].admitted += 1;
        }
        self.shell.recount(id);
    }

    pub(super) fn give_up_place(&mut self, id: ConnectionId) {
        if let Some(connection) = self.shell.connections.get_mut(id)
            && mem::take(&mut connection.marks.is_publisher)
        {
            self.lanes[connection.peer.lane as usize].admitted -= 1;
            self.shell.recount(id);
        }
    }
}
