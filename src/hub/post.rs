//! Publishing over HTTP: permission, what is taken, and how it is answered.
//!
//! A request is judged by the same rules as an upgrade and the message after it. What its head shows
//! comes first, so that no body is read of a peer that may not publish; a token in the body is as
//! good, but then the body is small, and its address has a rate.

use std::borrow::Cow;

use log::{Level, log};

use super::Hub;
use super::access::addresses;
use super::access::policy::{Decision, PublishRight, bearer};
use super::answers::{PUBLISHER_TOKEN_NEEDED, unavailable};
use super::command::{self, Batch, CommandError, ErrorCode, Publication};
use super::operators::check_body;
use super::publish::Origin;
use super::recent::Refused;
use super::remote::{append_of, unavailable_response};
use crate::application::{Answer, BodyPermit, BodyUse, Framing, Outbox, Request, Response, Status};
use crate::http::head::Head;
use crate::id::ConnectionId;
use crate::time::Timestamp;

/// The detail of a refusal where nothing would help.
pub(super) const MAY_NOT_PUBLISH: &str = "this connection may not publish";

/// The detail of a refusal where another token would.
pub(super) const NO_PUBLISHERS_TOKEN: &str = "the token is not a publisher's";

impl Hub {
    /// Answers a request for the position now, which is told to whoever may publish.
    pub fn answer_position(&mut self, request: &Request<'_>, decision: &Decision) -> Response {
        if let Err(refused) = self.permit_question(request, decision) {
            return refused;
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
            return Err(self.forbid_post(decision, request, MAY_NOT_PUBLISH));
        }
        let is_authorized = decision.publish == PublishRight::Granted;
        if !is_authorized {
            self.charge_address(decision, request.now)
                .map_err(|refused| {
                    self.metrics.notifications_rate_limited += 1;
                    let code = ErrorCode::RateLimited.as_str();
                    self.note_refused(decision, request, code, refused.to_string());
                    rate_limited(refused)
                })?;
            // A better one in the body would not excuse it.
            if bearer(head).is_some() {
                return Err(self.forbid_post(decision, request, NO_PUBLISHERS_TOKEN));
            }
        }
        check_body(request, framing).inspect_err(|response| {
            let (code, detail) = match response.status {
                Status::LENGTH_REQUIRED => ("length-required", "it has no length"),
                _ => (
                    "unsupported-media-type",
                    "its Content-Type isn't application/json",
                ),
            };
            self.note_refused(decision, request, code, detail);
        })?;
        Ok(BodyPermit {
            bytes_max: self.message_bytes_max(decision.publish),
            body_use: match is_authorized {
                true => BodyUse::Publish,
                false => BodyUse::PublishByToken {
                    is_own: decision.is_own,
                },
            },
        })
    }

    /// Refuses a peer that may not publish.
    fn forbid_post(
        &mut self,
        decision: &Decision,
        request: &Request<'_>,
        detail: &'static str,
    ) -> Response {
        self.note_refused(decision, request, ErrorCode::Forbidden.as_str(), detail);
        self.forbid(decision, request, detail)
    }

    /// Refuses a peer that may not publish, whatever it has asked for.
    pub(super) fn forbid(
        &mut self,
        decision: &Decision,
        request: &Request<'_>,
        detail: &'static str,
    ) -> Response {
        let peer = decision.peer;
        let level = self.count_forbidden(decision.is_own, request.now);
        log!(level, peer:% = peer, reason = detail; "{peer} may not publish");
        forbidden(detail)
    }

    /// Counts one that may not publish. Returns the level of the line about it.
    pub(super) fn count_forbidden(&mut self, is_own: bool, now: Timestamp) -> Level {
        match is_own {
            true => {
                self.metrics.notifications_forbidden += 1;
                self.forbidden_log.level(now)
            }
            false => {
                self.metrics.notifications_of_strangers += 1;
                self.stranger_log.level(now)
            }
        }
    }

    /// Notes a publish that its head was enough to refuse.
    fn note_refused(
        &mut self,
        decision: &Decision,
        request: &Request<'_>,
        code: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) {
        let refused = Refused {
            at: request.now,
            code,
            detail: detail.into(),
            address: Some(decision.peer.address.into()),
            id: None,
        };
        self.recent.note_refusal(decision.is_own, refused);
    }

    /// Notes a publish of a request whose body was read.
    pub(super) fn note_post_refusal(
        &mut self,
        id: ConnectionId,
        error: &CommandError,
        is_own: bool,
        outbox: &mut dyn Outbox,
    ) {
        let peer = outbox.peer(id);
        let refused = Refused {
            at: outbox.now(),
            code: error.code.as_str(),
            detail: error.detail.clone().into(),
            address: peer.map(|peer| peer.address.into()),
            id: Some(id),
        };
        self.recent.note_refusal(is_own, refused);
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
    fn charge_address(
        &mut self,
        decision: &Decision,
        now: Timestamp,
    ) -> Result<(), addresses::Refused> {
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
        body_use: BodyUse,
        outbox: &mut dyn Outbox,
    ) -> Answer {
        let posted = self.publish_body(id, body, body_use, outbox);
        posted.unwrap_or_else(Answer::Now)
    }

    fn publish_body(
        &mut self,
        id: ConnectionId,
        body: &[u8],
        body_use: BodyUse,
        outbox: &mut dyn Outbox,
    ) -> Result<Answer, Response> {
        let is_own = body_use != BodyUse::PublishByToken { is_own: false };
        let text = std::str::from_utf8(body)
            .map_err(|_| CommandError::new(ErrorCode::InvalidJson, "not JSON: not UTF-8"));
        let batch = text.and_then(command::parse_batch);
        let batch = batch.map_err(|error| {
            self.note_post_refusal(id, &error, is_own, outbox);
            bad_request(&error)
        })?;
        if !body_use.is_authorized() {
            self.check_tokens(id, &batch, is_own, outbox)?;
        }
        let publications = read_all(&batch, self.journal.is_on()).map_err(|error| {
            self.metrics.notifications_invalid += 1;
            self.note_post_refusal(id, &error, true, outbox);
            bad_request(&error)
        })?;
        let (start, now) = (self.journal.head(), outbox.now());
        if self.redis.is_some() && !publications.is_empty() {
            let entries: Vec<_> = publications.iter().map(append_of).collect();
            let nonces = self.append(&entries, now);
            let nonces = nonces.map_err(|refusal| {
                self.note_post_refusal(id, &unavailable(&refusal), true, outbox);
                unavailable_response(&refusal, outbox.retry_ms())
            })?;
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
    fn check_tokens(
        &mut self,
        id: ConnectionId,
        batch: &Batch<'_>,
        is_own: bool,
        outbox: &mut dyn Outbox,
    ) -> Result<(), Response> {
        let tokens = batch
            .publishes
            .iter()
            .map(|publish| publish.token.as_deref());
        let is_shown = !batch.publishes.is_empty() && tokens.clone().all(|token| token.is_some());
        let mut shown = tokens.flatten();
        let bad = shown.find(|token| !self.policy.accepts_publish_token(token));
        if is_shown && bad.is_none() {
            return Ok(());
        }
        let is_former = bad.is_some_and(|token| self.policy.has_accepted(token.as_bytes()));
        let error = CommandError::new(ErrorCode::Forbidden, PUBLISHER_TOKEN_NEEDED);
        let is_own = is_own || is_former;
        let level = self.count_forbidden(is_own, outbox.now());
        log!(level, connection:% = id, reason = PUBLISHER_TOKEN_NEEDED; "{id} may not publish");
        self.note_post_refusal(id, &error, is_own, outbox);
        match is_shown {
            true => Err(Response::json(Status::FORBIDDEN, error.reply())),
            false => Err(unauthorized()),
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

pub(super) fn bad_request(error: &CommandError) -> Response {
    Response::json(Status::BAD_REQUEST, error.reply())
}

/// The answer to an address that has or asks too much.
pub(super) fn too_many(refused: addresses::Refused) -> Response {
    Response::new(Status::TOO_MANY_REQUESTS, refused.to_string())
        .with_field("Retry-After", refused.retry_seconds().to_string())
}

fn rate_limited(refused: addresses::Refused) -> Response {
    let error = CommandError::new(ErrorCode::RateLimited, refused.to_string());
    Response::json(Status::TOO_MANY_REQUESTS, error.reply())
        .with_field("Retry-After", refused.retry_seconds().to_string())
}

/// The answer to a request that may not publish; `detail` says why.
pub(super) fn forbidden(detail: &'static str) -> Response {
    let error = CommandError::new(ErrorCode::Forbidden, detail);
    Response::json(Status::FORBIDDEN, error.reply())
}

pub(super) fn unauthorized() -> Response {
    let error = CommandError::new(ErrorCode::Forbidden, PUBLISHER_TOKEN_NEEDED);
    Response::json(Status::UNAUTHORIZED, error.reply()).with_field("WWW-Authenticate", "Bearer")
}

/// Whether the body is said to be JSON; its parameters change nothing (RFC 8259 §11).
pub(super) fn is_json(head: &Head<'_>) -> bool {
    head.fields.only_value("content-type").is_some_and(|value| {
        let media_type = value.split(|&byte| byte == b';').next().unwrap_or_default();
        media_type
            .trim_ascii()
            .eq_ignore_ascii_case(b"application/json")
    })
}
