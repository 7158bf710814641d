//! Requests: heads, bodies and answers, up to the one that is an upgrade.
//!
//! Three times bound them. A head has the time of a handshake, from the connection's beginning or
//! from its own first byte. A body has the time of a message, from its head on. And so long
//! a connection that has been answered may be silent.

use std::borrow::Cow;
use std::time::Duration;

use crate::config::Timeouts;
use crate::http::body::{BodyError, BodyPermit, BodyReader, Framing};
use crate::http::head::Head;
use crate::http::host;
use crate::http::response::{CONTINUE, Occasion, Response};
use crate::time::Timestamp;
use crate::ws::event::{Event, Expiry, Rejection};
use crate::ws::handshake::{asks_for_upgrade, check_upgrade};
use crate::ws::incoming::Input;

use super::{RequestStep, Session, State};

/// More empty lines than any honest client sends in front of a request; one more, and it is refused.
pub(super) const EMPTY_LINES_MAX: u8 = 4;

/// A request whose head is gone and whose body is to come.
#[derive(Debug)]
pub(super) struct Receiving {
    reader: BodyReader,
    permit: BodyPermit,
    stays: bool,
}

impl Receiving {
    pub(super) const fn pinned_bytes(&self) -> usize {
        self.reader.pinned_bytes()
    }
}

impl Session {
    /// Whether nothing has come of a further request: there is nothing to be answered.
    #[must_use]
    pub fn is_between_requests(&self) -> bool {
        matches!(
            self.state,
            State::Connecting {
                step: RequestStep::Next,
                ..
            }
        ) && self.incoming.is_none()
    }

    pub(super) fn next_request<'e>(
        &mut self,
        input: &'e mut Input<'_>,
        head_bytes_max: usize,
    ) -> Option<Event<'e>> {
        if !self.skip_empty_lines(input) {
            return None;
        }
        let unused = &input.bytes[input.position..];
        let unused_len = unused.len();
        // Known before the head is: what can't be read, or is late, is answered too.
        if let State::Connecting { is_head, .. } = &mut self.state {
            *is_head = unused.starts_with(b"HEAD ");
        }
        let (head, length) = match Head::parse(unused, input.head_scanned, head_bytes_max) {
            Ok(None) => {
                input.head_scanned = unused_len;
                return None;
            }
            Err(error) => return Some(Event::Rejected(Rejection::Head(error))),
            Ok(Some(whole)) => whole,
        };
        input.request_start = input.position;
        input.position += length;
        input.head_scanned = 0;
        input.has_finished = true;
        let is_upgrade = asks_for_upgrade(&head);
        if let Err(error) = host::check(&head) {
            return Some(Event::Rejected(Rejection::Host { error, is_upgrade }));
        }
        if !is_upgrade {
            input.frames += 1;
            return Some(match Framing::of(&head) {
                Ok(framing) => Event::Request { head, framing },
                Err(error) => Event::Rejected(Rejection::Body(error)),
            });
        }
        Some(match check_upgrade(&head) {
            Ok(accept) => Event::Upgrade { head, accept },
            Err(error) => Event::Rejected(Rejection::Handshake(error)),
        })
    }

    /// Passes over the empty lines in front of a request line (RFC 9112 §2.2), which some clients send behind
    /// the body before. One by one as they come: what is kept of them would be a request that has begun. Says
    /// whether there is something behind them; half a line end isn't.
    fn skip_empty_lines(&mut self, input: &mut Input<'_>) -> bool {
        let State::Connecting { empty_lines, .. } = &mut self.state else {
            return false;
        };
        while *empty_lines < EMPTY_LINES_MAX && input.bytes[input.position..].starts_with(b"\r\n") {
            *empty_lines += 1;
            input.position += 2;
            input.has_finished = true;
        }
        match &input.bytes[input.position..] {
            [] => false,
            b"\r" => *empty_lines == EMPTY_LINES_MAX,
            _ => true,
        }
    }

    /// Has the body of a request read, up to what `permit` grants.
    ///
    /// # Errors
    /// [`BodyError::TooLarge`] if more is announced than that; nothing is read then.
    pub fn receive(
        &mut self,
        head: &Head<'_>,
        framing: Framing,
        permit: BodyPermit,
        now: Timestamp,
    ) -> Result<(), BodyError> {
        let reader = BodyReader::new(framing, permit.bytes_max)?;
        // RFC 9110 §10.1.1: not to HTTP/1.0, and only where there is something to wait for.
        let is_awaited = head.minor_version >= 1 && !reader.is_whole();
        if is_awaited && head.fields.has_token("expect", "100-continue") {
            self.queue.push_own(|into| into.extend_from_slice(CONTINUE));
        }
        self.receiving = Some(Box::new(Receiving {
            reader,
            permit,
            stays: head.keeps_connection(),
        }));
        self.set_state(State::Connecting {
            since: now,
            step: RequestStep::Body,
            is_head: head.method == "HEAD",
            empty_lines: 0,
        });
        Ok(())
    }

    pub(super) fn next_body<'e>(&mut self, input: &'e mut Input<'_>) -> Option<Event<'e>> {
        let receiving = self.receiving.as_mut()?;
        let (permit, stays) = (receiving.permit, receiving.stays);
        let start = input.position;
        let unused = &input.bytes[start..];
        // What is there in one piece is lent as it lies.
        let lent_length = receiving
            .reader
            .unread_length()
            .filter(|&length| length <= unused.len());
        let body = if let Some(length) = lent_length {
            input.position += length;
            self.receiving = None;
            Cow::Borrowed(&input.bytes[start..start + length])
        } else {
            match receiving.reader.read(unused) {
                Ok(taken) => input.position += taken,
                Err(error) => return Some(Event::Rejected(Rejection::Body(error))),
            }
            let received = self
                .receiving
                .take_if(|receiving| receiving.reader.is_whole())?;
            Cow::Owned(received.reader.into_body())
        };
        Some(Event::Body {
            body,
            permit,
            stays,
        })
    }

    /// Answers a request, whose body has been read if it has one; the next may follow. `unix_now` is
    /// `now` by the wall clock, since the Unix epoch.
    pub fn answer(&mut self, response: &Response, unix_now: Duration, now: Timestamp) {
        let bytes = response.encode_kept(self.occasion(unix_now));
        self.queue.push_own(|into| into.extend_from_slice(&bytes));
        self.set_state(State::Connecting {
            since: now,
            step: RequestStep::Next,
            is_head: false,
            empty_lines: 0,
        });
    }

    /// Leaves a request without a body unanswered: its client has gone.
    pub fn pass_over(&mut self, now: Timestamp) {
        self.set_state(State::Connecting {
            since: now,
            step: RequestStep::Next,
            is_head: false,
            empty_lines: 0,
        });
    }

    /// Answers a request, and ends the connection with it. `unix_now` is `now` by the wall clock, since the
    /// Unix epoch.
    pub fn respond(&mut self, response: &Response, unix_now: Duration, now: Timestamp) {
        let bytes = response.encode(self.occasion(unix_now));
        self.queue.push_own(|into| into.extend_from_slice(&bytes));
        self.linger(now);
    }

    const fn occasion(&self, unix_now: Duration) -> Occasion {
        let is_head = matches!(self.state, State::Connecting { is_head: true, .. });
        Occasion { unix_now, is_head }
    }

    /// Ends a connection between two requests without a word: the client would take it for the
    /// answer to what it is about to ask.
    pub fn leave(&mut self, now: Timestamp) {
        if self.is_between_requests() {
            self.linger(now);
        }
    }

    pub(super) fn request_deadline(&self, timeouts: &Timeouts) -> Option<Timestamp> {
        let State::Connecting { since, step, .. } = self.state else {
            return None;
        };
        Some(match (step, self.message_begun()) {
            (RequestStep::First, _) => since + timeouts.handshake,
            (RequestStep::Next, Some(begun)) => begun + timeouts.handshake,
            (RequestStep::Next, None) | (RequestStep::Body, _) => since + timeouts.message,
        })
    }

    pub(super) fn handle_late_request(&mut self, now: Timestamp) -> Expiry {
        if self.is_between_requests() {
            self.leave(now);
            return Expiry::Idle;
        }
        Expiry::Handshake
    }
}
