//! HTTP in a connection's turn: upgrades, permission, bodies, answers, and the places of publishers
//! over HTTP.
//!
//! A connection that only asks counts like a handshake and makes room for others. One that has
//! shown that it may publish has a place among those that are let in, as if it were upgraded.

use log::debug;

use crate::application::{
    Action, Answer, Application, BodyPermit, BodyUse, Framing, Peer, Refusal, Refused, Request,
    Response, Status,
};
use crate::http::exchange::{Event, Rejection};
use crate::http::head::Head;
use crate::time::Clock;
use crate::ws::handshake::check_upgrade;

use super::places::NoPlace;
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
            Err(reason) => Err(Refused {
                refusal: Refusal::Full,
                response: context.refused(reason),
            }),
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
            Err(Refused { refusal, response }) => {
                self.shell.context.metrics.count_refusal(refusal);
                self.shell.respond(id, &response, now);
            }
        }
    }

    /// Answers a request that broke a rule of HTTP or of the handshake.
    fn reject(&mut self, reason: &str, response: &Response, is_upgrade: bool) {
        let id = self.id;
        if let Some((connection, context)) = self.shell.entry(id) {
            context.metrics.requests_rejected += 1;
            if is_upgrade {
                context.metrics.count_refusal(Refusal::Invalid);
            }
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
        let figures = &*self.shell;
        let decision = self
            .application
            .handle_request(self.id, &request, framing, figures);
        let (id, now) = (self.id, self.now);
        if decision.is_limited
            && let Some((connection, context)) = self.shell.entry(id)
        {
            connection.limit(context, now);
        }
        // Nobody knows what a body that isn't wanted is, or whether it comes.
        let has_body = !matches!(framing, Framing::None | Framing::Length(0));
        let stays = head.keeps_connection() && !has_body;
        match decision.action {
            Action::Respond(response) => {
                self.answer(&response, stays && response.status == Status::OK);
            }
            Action::ReadBody(permit) => {
                if let Err(response) = self.receive(head, framing, permit) {
                    self.shell.respond(id, &response, now);
                }
            }
            Action::Later => {
                if let Some((connection, _)) = self.shell.entry(id) {
                    connection.grants.body_use = BodyUse::default();
                }
                self.await_answer(stays);
            }
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
            connection.grants.body_use = permit.body_use;
            if permit.body_use.is_authorized() {
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
        let body_use = connection.grants.body_use;
        let mut outbox = ShellOutbox::new(self.shell, now);
        let answer = self
            .application
            .handle_body(id, body, body_use, &mut outbox);
        let is_authorized = body_use.is_authorized();
        let Some((connection, context)) = self.shell.entry(id) else {
            return;
        };
        match answer {
            Answer::Now(response) => {
                let has_shown_it = is_authorized || response.status == Status::OK;
                if has_shown_it {
                    connection.take_place(context);
                }
                self.answer(&response, stays && has_shown_it);
            }
            Answer::Later => {
                connection.grants.has_place_on_trial =
                    !is_authorized && !connection.grants.is_publisher;
                connection.take_place(context);
                self.await_answer(stays);
            }
        }
    }

    fn await_answer(&mut self, stays: bool) {
        let now = self.now;
        if let Some((connection, _)) = self.shell.entry(self.id)
            && let Some(exchange) = connection.protocol.exchange_mut()
        {
            exchange.await_answer(stays, now);
        }
    }

    fn answer(&mut self, response: &Response, stays: bool) {
        if stays {
            self.shell.answer(self.id, response, self.now);
        } else {
            self.shell.respond(self.id, response, self.now);
        }
    }

    /// Whether a connection that publishes over HTTP has a place, or may be given one.
    fn check_place(&mut self) -> Result<(), Response> {
        let Some((connection, context)) = self.shell.entry(self.id) else {
            return Ok(());
        };
        let checked = context.places.check(connection.peer.lane);
        match checked {
            Err(NoPlace::Full) if connection.grants.is_publisher => Ok(()),
            checked => checked.map_err(|reason| context.refused(reason)),
        }
    }
}
