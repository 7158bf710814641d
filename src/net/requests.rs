//! HTTP in a connection's turn: upgrades, permission, bodies, answers, and the places of those who
//! publish over HTTP.
//!
//! A connection that only asks counts like a handshake and makes room for others. One that has
//! shown that it may publish has a place among those that are let in, as if it were upgraded.

use log::{debug, log};

use crate::application::{Application, BodyPermit, Framing, Peer, Request, Response, Status};
use crate::http::exchange::{Event, Rejection};
use crate::http::head::Head;
use crate::time::Clock;
use crate::ws::handshake::check_upgrade;

use super::shell::ShellOutbox;
use super::transport::Transport;
use super::turn::Turn;

impl<T: Transport, A: Application, C: Clock> Turn<'_, T, A, C> {
    #[inline(never)]
    pub(super) fn handle_request_event(&mut self, event: Event<'_>) {
        match event {
            Event::Upgrade { head } => self.handle_upgrade(&head),
            Event::Request { head, framing } => self.handle_request(&head, framing),
            Event::Body { body, stays } => self.handle_body(&body, stays),
            Event::Rejected(rejection) => {
                let is_upgrade = matches!(
                    rejection,
                    Rejection::Host {
                        is_upgrade: true,
                        ..
                    }
                );
                self.reject(&rejection.to_string(), &rejection.response(), is_upgrade);
            }
        }
        if let Some((connection, context)) = self.shell.entry(self.id) {
            connection.settle_standing(context);
        }
    }

    fn request<'a>(&self, peer: Peer, head: &'a Head<'a>) -> Request<'a> {
        Request {
            peer,
            head,
            now: self.now,
            unix_now: self.shell.context.unix_now(),
        }
    }

    /// Whether the first request of a new connection waits for those that may be about to publish:
    /// they come first, however many ask for pages.
    pub(super) fn defers(&mut self, head: &Head<'_>) -> bool {
        let Some((connection, _)) = self.shell.entry(self.id) else {
            return false;
        };
        let peer = connection.peer;
        let is_deferred = !self.application.is_urgent(&self.request(peer, head));
        if let Some((connection, _)) = self.shell.entry(self.id) {
            connection.io.is_served |= is_deferred;
        }
        is_deferred
    }

    fn handle_upgrade(&mut self, head: &Head<'_>) {
        let accept = match check_upgrade(head) {
            Ok(accept) => accept,
            Err(error) => return self.reject(&error.to_string(), &error.response(), true),
        };
        let (id, now) = (self.id, self.now);
        let Some((connection, context)) = self.shell.entry(id) else {
            return;
        };
        let peer = connection.peer;
        connection.give_up_place(context);
        let admitted = match context.places.check(peer.lane) {
            Ok(()) => {
                let request = self.request(peer, head);
                self.application.handle_upgrade(id, &request)
            }
            Err(refusal) => Err(context.refused(refusal)),
        };
        match admitted {
            Ok(admission) => {
                let Some((connection, context)) = self.shell.entry(id) else {
                    return;
                };
                let bytes_max = admission.message_bytes_max;
                connection.protocol.upgrade(accept, bytes_max, now);
                connection.admit(&admission);
                if admission.is_limited {
                    connection.limit(context, now);
                }
                connection.enter(context);
                context.metrics.upgrades += 1;
            }
            Err(response) => {
                let metrics = &mut self.shell.context.metrics;
                metrics.count_refusal(response.status.code);
                self.shell.respond(id, &response, now);
            }
        }
    }

    /// Answers a request that broke a rule of HTTP or of the handshake.
    fn reject(&mut self, reason: &str, response: &Response, is_upgrade: bool) {
        let id = self.id;
        if let Some((connection, context)) = self.shell.entry(id) {
            context.metrics.requests_rejected += 1;
            context.metrics.upgrades_invalid += u64::from(is_upgrade);
            debug!(
                connection:% = id, peer:% = connection.peer, reason = reason;
                "{id} {}: {reason}", connection.peer
            );
        }
        self.shell.respond(id, response, self.now);
    }

    /// A request's head is there: it is answered, or its body is read.
    fn handle_request(&mut self, head: &Head<'_>, framing: Framing) {
        let Some((connection, _)) = self.shell.entry(self.id) else {
            return;
        };
        let (peer, is_write_failed) = (connection.peer, connection.io.is_write_failed);
        let request = self.request(peer, head);
        if is_write_failed && !self.application.is_urgent(&request) {
            // Nobody reads the answer; behind it may be what counts though its sender has gone.
            return self.pass_over(framing);
        }
        if self.shell.context.limits.has_rates() && self.application.is_limited(&request) {
            let now = self.now;
            if let Some((connection, context)) = self.shell.entry(self.id) {
                connection.limit(context, now);
            }
        }
        match self.application.permit_body(&request, framing) {
            Ok(Some(permit)) => {
                if let Err(response) = self.receive(head, framing, permit) {
                    self.shell.respond(self.id, &response, self.now);
                }
            }
            Ok(None) => {
                let figures = &self.shell.context;
                let response = self
                    .application
                    .handle_probe(&request, figures)
                    .unwrap_or_else(|| self.application.handle_request(&request));
                // Nobody knows what a body that isn't wanted is, or whether it comes.
                let has_body = !matches!(framing, Framing::None | Framing::Length(0));
                let stays = head.keeps_connection() && !has_body && response.status == Status::OK;
                self.answer(&response, stays);
            }
            Err(response) => self.shell.respond(self.id, &response, self.now),
        }
    }

    fn pass_over(&mut self, framing: Framing) {
        let now = self.now;
        if let Some((connection, _)) = self.shell.entry(self.id)
            && let Some(exchange) = connection.protocol.exchange_mut()
        {
            match framing {
                Framing::None | Framing::Length(0) => exchange.pass_over(now),
                _ => exchange.handle_end(),
            }
        }
    }

    fn receive(
        &mut self,
        head: &Head<'_>,
        framing: Framing,
        permit: BodyPermit,
    ) -> Result<(), Response> {
        self.check_place()?;
        let (id, now) = (self.id, self.now);
        if let Some((connection, context)) = self.shell.entry(id) {
            connection.grants.is_body_authorized = permit.is_authorized;
            if permit.is_authorized {
                connection.take_place(context);
            }
            if let Some(exchange) = connection.protocol.exchange_mut() {
                let received = exchange.receive(head, framing, permit.bytes_max, now);
                received.map_err(|error| Response::new(error.status(), error.to_string()))?;
            }
        }
        Ok(())
    }

    /// A request's body is there: it is answered.
    fn handle_body(&mut self, body: &[u8], stays: bool) {
        // A request that shows only now what it takes may find that others have come first.
        if let Err(response) = self.check_place() {
            return self.shell.respond(self.id, &response, self.now);
        }
        let (id, now) = (self.id, self.now);
        let Some((connection, _)) = self.shell.entry(id) else {
            return;
        };
        let is_authorized = connection.grants.is_body_authorized;
        let mut outbox = ShellOutbox::new(self.shell, id, now);
        let permit = BodyPermit {
            bytes_max: body.len(),
            is_authorized,
        };
        let response = self.application.handle_body(id, body, permit, &mut outbox);
        let has_shown_it = is_authorized || response.status == Status::OK;
        if has_shown_it && let Some((connection, context)) = self.shell.entry(id) {
            connection.take_place(context);
        }
        self.answer(&response, stays && has_shown_it);
    }

    /// Whether a connection that publishes over HTTP has a place, or may be given one.
    fn check_place(&mut self) -> Result<(), Response> {
        let Some((connection, context)) = self.shell.entry(self.id) else {
            return Ok(());
        };
        let checked = context.places.check(connection.peer.lane);
        match checked {
            Err(super::places::Refusal::Full) if connection.grants.is_publisher => Ok(()),
            checked => checked.map_err(|refusal| context.refused(refusal)),
        }
    }

    fn answer(&mut self, response: &Response, stays: bool) {
        let (id, now) = (self.id, self.now);
        if !stays {
            return self.shell.respond(id, response, now);
        }
        let Some((connection, context)) = self.shell.entry(id) else {
            return;
        };
        if let Some(exchange) = connection.protocol.exchange_mut() {
            exchange.answer(response, context.unix_now(), now);
        }
        let bytes_max = context.limits.send_queue_bytes_max;
        if connection.is_over(bytes_max) {
            connection.write_queue_at_last(&mut context.scratch, now);
            if connection.is_over(bytes_max) {
                let level = context.fault_log.level(now);
                log!(
                    level,
                    "{id} {}: it does not read its answers",
                    connection.peer
                );
                context.metrics.slow_consumers += 1;
                connection.protocol.handle_end();
            }
        }
    }
}
