//! Publishing over HTTP: permission, what is taken, and how it is answered.
//!
//! A request is judged by the same rules as an upgrade and the message after it. What its head shows
//! comes first, so that no body is read of a peer that may not publish; a token in the body is as
//! good, but then the body is small, and its address has a rate.

use log::log;

use super::Hub;
use super::access::addresses::Refused;
use super::access::policy::{Decision, PublishRight, bearer};
use super::answers::PUBLISHER_TOKEN_NEEDED;
use super::command::{self, Batch, CommandError, ErrorCode, Publication};
use super::publish::Origin;
use super::remote::{append_of, unavailable_response};
use crate::application::{Answer, BodyPermit, Framing, Outbox, Peer, Request, Response, Status};
use crate::http::head::Head;
use crate::id::ConnectionId;
use crate::time::Timestamp;

impl Hub {
    /// Answers a request for the position now, which is told to whoever may publish.
    pub fn answer_position(&mut self, request: &Request<'_>, decision: &Decision) -> Response {
        if decision.publish == PublishRight::Never || !decision.is_origin_allowed {
            let why = "this connection may not publish";
            return self.forbid(decision.peer, request.now, why);
        }
        if decision.publish != PublishRight::Granted {
            if bearer(request.head).is_some() {
                let why = "the token is not a publisher's";
                return self.forbid(decision.peer, request.now, why);
            }
            return unauthorized();
        }
        let id = self.journal.id(self.journal.head());
        Response::json(Status::OK, command::position_reply(id))
            .with_field("Cache-Control", "no-store".to_owned())
    }

    /// Decides by its head whether the body of a request to publish is read.
    ///
    /// # Errors
    /// The answer, if it isn't.
    pub fn permit_post(
        &mut self,
        request: &Request<'_>,
        framing: Framing,
        decision: &Decision,
    ) -> Result<BodyPermit, Response> {
        let head = request.head;
        if head.method != "POST" {
            let response = Response::new(Status::METHOD_NOT_ALLOWED, "only POST publishes");
            return Err(response.with_field("Allow", "POST"));
        }
        if decision.publish == PublishRight::Never || !decision.is_origin_allowed {
            return Err(self.forbid(
                decision.peer,
                request.now,
                "this connection may not publish",
            ));
        }
        let is_authorized = decision.publish == PublishRight::Granted;
        if !is_authorized {
            self.charge_address(decision, request.now)
                .map_err(|refused| {
                    self.metrics.notifications_rate_limited += 1;
                    rate_limited(refused)
                })?;
            // A better one in the body would not excuse it.
            if bearer(head).is_some() {
                return Err(self.forbid(
                    decision.peer,
                    request.now,
                    "the token is not a publisher's",
                ));
            }
        }
        if !is_json(head) {
            let why = "Content-Type must be application/json";
            return Err(Response::new(Status::UNSUPPORTED_MEDIA_TYPE, why));
        }
        if framing == Framing::None {
            let why = "Content-Length or chunked transfer coding is required";
            return Err(Response::new(Status::LENGTH_REQUIRED, why));
        }
        Ok(BodyPermit {
            bytes_max: self.message_bytes_max(decision.publish),
            is_authorized,
        })
    }

    /// Refuses a peer that may not publish.
    fn forbid(&mut self, peer: Peer, now: Timestamp, detail: &str) -> Response {
        let level = self.forbidden_log.level(now);
        log!(level, "{peer} may not publish");
        self.metrics.notifications_forbidden += 1;
        forbidden(detail)
    }

    /// Charges a request that publishes nothing to its address, unless it shows that it might.
    ///
    /// # Errors
    /// The answer to one that comes too often.
    pub fn charge_request(
        &mut self,
        request: &Request<'_>,
        decision: &Decision,
    ) -> Result<(), Response> {
        self.charge_address(decision, request.now)
            .map_err(|refused| {
                self.metrics.requests_rate_limited += 1;
                too_many(refused)
            })
    }

    /// An address asks over HTTP as often as it may come for an upgrade. Publishers are charged to none.
    fn charge_address(&mut self, decision: &Decision, now: Timestamp) -> Result<(), Refused> {
        if let Some(counted) = decision.counted_address {
            self.count_address(counted, decision.peer.address, now)?;
            self.addresses.leave(counted);
        }
        Ok(())
    }

    /// Publishes what a body says, all of it or nothing.
    pub fn handle_post(
        &mut self,
        id: ConnectionId,
        body: &[u8],
        is_authorized: bool,
        outbox: &mut dyn Outbox,
    ) -> Answer {
        let posted = self.publish_body(id, body, is_authorized, outbox);
        posted.unwrap_or_else(Answer::Now)
    }

    fn publish_body(
        &mut self,
        id: ConnectionId,
        body: &[u8],
        is_authorized: bool,
        outbox: &mut dyn Outbox,
    ) -> Result<Answer, Response> {
        let text = std::str::from_utf8(body).map_err(|_| {
            let error = CommandError::new(ErrorCode::InvalidJson, "not JSON: not UTF-8");
            bad_request(&error)
        })?;
        let batch = command::parse_batch(text).map_err(|error| bad_request(&error))?;
        if !is_authorized && let Err(response) = self.check_tokens(&batch) {
            let level = self.forbidden_log.level(outbox.now());
            log!(level, "{id} may not publish");
            self.metrics.notifications_forbidden += 1;
            return Err(response);
        }
        let publications = read_all(&batch, self.journal.is_on()).map_err(|error| {
            self.metrics.notifications_invalid += 1;
            bad_request(&error)
        })?;
        let (start, now) = (self.journal.head(), outbox.now());
        if self.redis.is_some() && !publications.is_empty() {
            let entries: Vec<_> = publications.iter().map(append_of).collect();
            let nonces = self.append(&entries, now);
            let nonces =
                nonces.map_err(|refusal| unavailable_response(&refusal, outbox.retry_ms()))?;
            self.owed.expect_receipts(id, nonces, batch.is_array);
            return Ok(Answer::Later);
        }
        let places = publications.iter();
        let places: Vec<_> = places
            .map(|publication| self.enter(publication, now))
            .collect();
        self.journal.seal(start, outbox);
        let entered = publications.iter().zip(places);
        let receipts: Vec<_> = entered
            .map(|(publication, place)| {
                let start = outbox.now();
                self.deliver(Origin::Connection(id), publication, place, start, outbox)
            })
            .collect();
        let text = command::batch_reply(&receipts, batch.is_array);
        Ok(Answer::Now(Response::json(Status::OK, text)))
    }

    /// Checks that every notification has a good token beside it.
    fn check_tokens(&self, batch: &Batch<'_>) -> Result<(), Response> {
        let mut tokens = batch.publishes.iter().map(|publish| &publish.token);
        if batch.publishes.is_empty() || tokens.clone().any(Option::is_none) {
            return Err(unauthorized());
        }
        let is_good = |token: &str| self.policy.accepts_publish_token(token);
        if tokens.all(|token| token.as_deref().is_some_and(is_good)) {
            Ok(())
        } else {
            Err(forbidden(PUBLISHER_TOKEN_NEEDED))
        }
    }
}

fn read_all<'a>(batch: &Batch<'a>, takes_keys: bool) -> Result<Vec<Publication<'a>>, CommandError> {
    let read = |(position, publish): (usize, &command::Publish<'a>)| {
        publish.read(takes_keys).map_err(|error| {
            if batch.is_array {
                error.at(position)
            } else {
                error
            }
        })
    };
    batch.publishes.iter().enumerate().map(read).collect()
}

fn bad_request(error: &CommandError) -> Response {
    Response::json(Status::BAD_REQUEST, error.reply())
}

fn forbidden(detail: &str) -> Response {
    let error = CommandError::new(ErrorCode::Forbidden, detail);
    Response::json(Status::FORBIDDEN, error.reply())
}

/// The answer to an address that has or asks too much.
pub(super) fn too_many(refused: Refused) -> Response {
    Response::new(Status::TOO_MANY_REQUESTS, refused.to_string())
        .with_field("Retry-After", refused.retry_seconds().to_string())
}

fn rate_limited(refused: Refused) -> Response {
    let error = CommandError::new(ErrorCode::RateLimited, refused.to_string());
    Response::json(Status::TOO_MANY_REQUESTS, error.reply())
        .with_field("Retry-After", refused.retry_seconds().to_string())
}

fn unauthorized() -> Response {
    let error = CommandError::new(ErrorCode::Forbidden, PUBLISHER_TOKEN_NEEDED);
    Response::json(Status::UNAUTHORIZED, error.reply()).with_field("WWW-Authenticate", "Bearer")
}

/// Whether the body is said to be JSON; its parameters change nothing (RFC 8259 §11).
fn is_json(head: &Head<'_>) -> bool {
    head.fields.only_value("content-type").is_some_and(|value| {
        let media_type = value.split(|&byte| byte == b';').next().unwrap_or_default();
        media_type
            .trim_ascii()
            .eq_ignore_ascii_case(b"application/json")
    })
}
