//! One HTTP/1.1 connection without its socket: requests and their answers, one after the other, up to
//! the last one, or up to the one that is an upgrade (RFC 9110 §7.8), with which the connection leaves
//! this room.
//!
//! ```text
//!            .----------------------------- answer -----------------------------.
//!            v                                                                  |
//! Head --request--> (the owner decides) --receive--> Body --whole--> (the owner decides)
//!   |                    |      \_________ await_answer ___________________/    |
//!   |                    v                       v                              |
//!   |                 upgrade                  Answer --answer----------------->'
//!   `--late, bad--> respond --> Lingering --flushed, EOF, time--> Closed
//! ```
//!
//! Call order of a turn: [`Exchange::begin_turn`], [`Exchange::next_event`] until it returns `None`,
//! [`Exchange::end_turn`]. Each event says how it is to be answered before the next one is asked for.
//! Time comes in as an argument; [`Exchange::poll_timeout`] says when to come back.
//!
//! Three times bound an exchange. A head has the time of a handshake, from the connection's beginning or
//! from its own first byte. A body, and an answer that is awaited, have the time of a message. So long a
//! connection that has been answered may be silent.
//!
//! Invariants: nothing is queued after the last answer; what arrives then is never parsed; `Closed` is
//! final; nothing is parsed while an answer is awaited.

mod saved;

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use super::body::{BodyError, BodyReader, Framing};
use super::head::{Head, HeadError};
use super::host::{self, HostError};
use super::response::{CONTINUE, Occasion, Response};
use super::status::Status;
use crate::config::Timeouts;
use crate::time::Timestamp;
use crate::wire::buffers::Buffers;
use crate::wire::input::Input;
use crate::wire::lingering::Lingering;
use crate::wire::pinned::PinnedBytes;

/// More empty lines than any honest client sends in front of a request; one more, and it is refused.
const EMPTY_LINES_MAX: u8 = 4;

/// HTTP's side of one connection.
#[derive(Debug)]
pub struct Exchange {
    buffers: Buffers,
    state: State,
    /// How much of the head that has begun was searched for its end.
    head_scanned: u32,
    /// How many empty lines have come in front of it.
    empty_lines: u8,
    /// Whether the request, as far as it has come, is HEAD.
    is_head: bool,
}

#[derive(Debug)]
enum State {
    /// A request's head is awaited.
    Head {
        /// Since the connection began, or since the last answer.
        since: Timestamp,
        /// Whether it is the connection's first.
        is_first: bool,
    },
    /// The rest of a request's body is awaited.
    Body {
        /// Since its head was there.
        since: Timestamp,
        body: Box<Body>,
    },
    /// The application has the request, and owes the answer.
    Answer {
        since: Timestamp,
        /// Whether the client means to send another request.
        stays: bool,
        /// Whether the client sends no more: it has shut its sending side.
        has_ended: bool,
    },
    /// The last answer is queued.
    Lingering(Lingering),
    Closed,
}

/// A request whose head is gone and whose body is to come.
#[derive(Debug)]
struct Body {
    reader: BodyReader,
    /// Whether the client means to send another request.
    stays: bool,
}

/// What happened on a connection.
#[derive(Debug)]
pub enum Event<'a> {
    /// A request for an upgrade to WebSocket whose head is valid as HTTP: take the connection over with
    /// [`Exchange::into_buffers`], or answer it with [`Exchange::respond`].
    Upgrade {
        /// The request.
        head: Head<'a>,
    },
    /// Any other request: answer it with [`Exchange::answer`] or [`Exchange::respond`], have its body read
    /// with [`Exchange::receive`], promise an answer with [`Exchange::await_answer`], or leave it with
    /// [`Exchange::pass_over`].
    Request {
        /// The request.
        head: Head<'a>,
        /// How the end of its body would be found.
        framing: Framing,
    },
    /// The whole body of a request: answer it as a request without one.
    Body {
        /// The body.
        body: Cow<'a, [u8]>,
        /// Whether the client means to send another request.
        stays: bool,
    },
    /// A request that can't be taken: answer it with [`Rejection::response`], by [`Exchange::respond`].
    Rejected(Rejection),
}

/// Why a request was rejected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rejection {
    /// Its head can't be read.
    Head(HeadError),
    /// It doesn't say whom it is for.
    Host {
        /// The rule that it breaks.
        error: HostError,
        /// Whether it asks for an upgrade.
        is_upgrade: bool,
    },
    /// Its body can't be read.
    Body(BodyError),
}

impl Rejection {
    /// The answer that tells the client.
    #[must_use]
    pub fn response(self) -> Response {
        match self {
            Self::Head(error) => Response::new(error.status(), error.to_string()),
            Self::Host { error, .. } => Response::new(Status::BAD_REQUEST, error.to_string()),
            Self::Body(error) => Response::new(error.status(), error.to_string()),
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head(error) => fmt::Display::fmt(error, f),
            Self::Host { error, .. } => fmt::Display::fmt(error, f),
            Self::Body(error) => fmt::Display::fmt(error, f),
        }
    }
}

/// What a deadline that passed means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expiry {
    /// A request was not finished in time, or none ever came: answer with 408, by [`Exchange::respond`].
    Request,
    /// The answer was not there in time: answer with 503, by [`Exchange::respond`].
    Answer,
    /// No further request came on a connection that was kept for one; it is ended without a word.
    Idle,
    /// The end took too long; the exchange is closed.
    Close,
}

impl Exchange {
    /// The exchange of a connection that was accepted at `now`.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self {
            buffers: Buffers::default(),
            state: State::Head {
                since: now,
                is_first: true,
            },
            head_scanned: 0,
            empty_lines: 0,
            is_head: false,
        }
    }

    /// What it keeps of the byte stream.
    #[inline]
    #[must_use]
    pub const fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    /// The same, to be handed on to the protocol that the connection is upgraded to.
    #[must_use]
    pub fn into_buffers(self) -> Buffers {
        self.buffers
    }

    /// Whether requests are awaited or answered.
    #[must_use]
    pub const fn is_serving(&self) -> bool {
        !matches!(self.state, State::Lingering(_) | State::Closed)
    }

    /// Whether the body of a request is awaited.
    #[must_use]
    pub const fn is_receiving(&self) -> bool {
        matches!(self.state, State::Body { .. })
    }

    /// Whether the application owes an answer: nothing is parsed until it is there.
    #[must_use]
    pub const fn is_answer_due(&self) -> bool {
        matches!(self.state, State::Answer { .. })
    }

    /// Whether nothing has come of a further request: there is nothing to be answered.
    #[must_use]
    pub const fn is_between_requests(&self) -> bool {
        let State::Head { is_first, .. } = self.state else {
            return false;
        };
        !is_first && !self.buffers.has_tail()
    }

    /// Whether the connection may be dropped.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Since when requests have been served without one that is an upgrade, or since when it has been
    /// about to end; `None` when it is closed.
    #[must_use]
    pub const fn since(&self) -> Option<Timestamp> {
        match &self.state {
            State::Head { since, .. } | State::Body { since, .. } | State::Answer { since, .. } => {
                Some(*since)
            }
            State::Lingering(lingering) => Some(lingering.since()),
            State::Closed => None,
        }
    }

    /// The one place where the state changes.
    fn set_state(&mut self, next: State) {
        let is_edge = match (&self.state, &next) {
            (State::Closed, State::Closed) => true,
            (State::Closed, _) => false,
            (State::Lingering(_), next) => matches!(next, State::Lingering(_) | State::Closed),
            _ => true,
        };
        debug_assert!(is_edge, "{:?} -> {next:?}", self.state);
        self.state = next;
    }

    // Input.

    /// Begins a turn in which `received` was read, and which takes `requests_max` requests at most.
    #[must_use]
    pub fn begin_turn<'a>(&mut self, received: &'a mut [u8], requests_max: usize) -> Input<'a> {
        self.buffers.begin_turn(received, requests_max)
    }

    /// Ends a turn: keeps what is left over.
    pub fn end_turn(&mut self, mut input: Input<'_>, now: Timestamp) {
        if !self.is_serving() {
            input.discard();
        }
        self.buffers.end_turn(input, false, now);
    }

    /// The next thing that the turn's input holds, or `None` when it is used up, when the turn has
    /// taken as much of it as it may, or while an answer is awaited.
    pub fn next_event<'e>(
        &mut self,
        input: &'e mut Input<'_>,
        head_bytes_max: usize,
    ) -> Option<Event<'e>> {
        match self.state {
            State::Head { .. } if !input.cursor().is_exhausted() => {
                self.next_request(input, head_bytes_max)
            }
            // A body that is whole already, being empty, waits for no input.
            State::Body { ref body, .. }
                if !input.cursor().is_exhausted() || body.reader.is_whole() =>
            {
                self.next_body(input)
            }
            State::Head { .. } | State::Body { .. } | State::Answer { .. } => None,
            State::Lingering(_) | State::Closed => {
                input.discard();
                None
            }
        }
    }

    fn next_request<'e>(
        &mut self,
        input: &'e mut Input<'_>,
        head_bytes_max: usize,
    ) -> Option<Event<'e>> {
        if !self.skip_empty_lines(input) {
            return None;
        }
        let (unused, cursor) = input.parts();
        // Known before the head is: what can't be read, or is late, is answered too.
        self.is_head = unused.starts_with(b"HEAD ");
        let unused_len = unused.len();
        let scanned = self.head_scanned as usize;
        let (head, length) = match Head::parse(unused, scanned, head_bytes_max) {
            Ok(Some(whole)) => whole,
            Ok(None) => {
                self.head_scanned = u32::try_from(unused_len).unwrap_or(u32::MAX);
                return None;
            }
            Err(error) => return Some(Event::Rejected(Rejection::Head(error))),
        };
        cursor.advance_request(length);
        self.head_scanned = 0;
        let is_upgrade = head.asks_for_websocket();
        if let Err(error) = host::check(&head) {
            return Some(Event::Rejected(Rejection::Host { error, is_upgrade }));
        }
        if is_upgrade {
            return Some(Event::Upgrade { head });
        }
        cursor.count();
        Some(match Framing::of(&head) {
            Ok(framing) => Event::Request { head, framing },
            Err(error) => Event::Rejected(Rejection::Body(error)),
        })
    }

    /// Passes over the empty lines in front of a request line (RFC 9112 §2.2), which some clients send behind
    /// the body before. One by one as they come: what is kept of them would be a request that has begun. Says
    /// whether there is something behind them; half a line end isn't.
    fn skip_empty_lines(&mut self, input: &mut Input<'_>) -> bool {
        while self.empty_lines < EMPTY_LINES_MAX && input.unused().starts_with(b"\r\n") {
            self.empty_lines += 1;
            input.cursor_mut().advance(2);
            input.cursor_mut().finish();
        }
        match input.unused() {
            [] => false,
            b"\r" => self.empty_lines == EMPTY_LINES_MAX,
            _ => true,
        }
    }

    fn next_body<'e>(&mut self, input: &'e mut Input<'_>) -> Option<Event<'e>> {
        let State::Body { body, .. } = &mut self.state else {
            return None;
        };
        let stays = body.stays;
        let (unused, cursor) = input.parts();
        // What is there in one piece is lent as it lies.
        let lent_length = body.reader.unread_length();
        let bytes = if let Some(length) = lent_length.filter(|&length| length <= unused.len()) {
            cursor.advance(length);
            Cow::Borrowed(&unused[..length])
        } else {
            match body.reader.read(unused) {
                Ok(taken) => cursor.advance(taken),
                Err(error) => return Some(Event::Rejected(Rejection::Body(error))),
            };
            if !body.reader.is_whole() {
                return None;
            }
            Cow::Owned(body.reader.take_body())
        };
        Some(Event::Body { body: bytes, stays })
    }

    // Answers.

    /// Has the body of a request read, up to `bytes_max`.
    ///
    /// # Errors
    /// [`BodyError::TooLarge`] if more is announced than that; nothing is read then.
    pub fn receive(
        &mut self,
        head: &Head<'_>,
        framing: Framing,
        bytes_max: usize,
        now: Timestamp,
    ) -> Result<(), BodyError> {
        let reader = BodyReader::new(framing, bytes_max)?;
        // RFC 9110 §10.1.1: not to HTTP/1.0, and only where there is something to wait for.
        let is_awaited = head.minor_version >= 1 && !reader.is_whole();
        if is_awaited && head.fields.has_token("expect", "100-continue") {
            let queue = self.buffers.queue_mut();
            queue.push_own(|into| into.extend_from_slice(CONTINUE));
        }
        self.is_head = head.method == "HEAD";
        let stays = head.keeps_connection();
        self.set_state(State::Body {
            since: now,
            body: Box::new(Body { reader, stays }),
        });
        Ok(())
    }

    /// Promises the answer to a request, whose body has been read if it has one, for later: it is given with
    /// [`Exchange::answer`] if `stays`, else with [`Exchange::respond`]. Until then nothing is parsed.
    pub fn await_answer(&mut self, stays: bool, now: Timestamp) {
        self.set_state(State::Answer {
            since: now,
            stays,
            has_ended: false,
        });
    }

    /// Gives the answer that was promised; nothing if none was. The connection `may_stay` if its client means
    /// it to. `unix_now` is `now` by the wall clock, since the Unix epoch.
    pub fn give_answer(
        &mut self,
        response: &Response,
        may_stay: bool,
        unix_now: Duration,
        now: Timestamp,
    ) {
        let State::Answer { stays, since, .. } = self.state else {
            return;
        };
        // That nothing was parsed meanwhile is not the client's delay.
        self.buffers.excuse(now - since);
        if stays && may_stay {
            self.answer(response, unix_now, now);
        } else {
            self.respond(response, unix_now, now);
        }
    }

    /// Answers a request, whose body has been read if it has one; the next may follow. `unix_now` is
    /// `now` by the wall clock, since the Unix epoch.
    pub fn answer(&mut self, response: &Response, unix_now: Duration, now: Timestamp) {
        let bytes = response.encode_kept(self.occasion(unix_now));
        let queue = self.buffers.queue_mut();
        queue.push_own(|into| into.extend_from_slice(&bytes));
        self.pass_over(now);
    }

    /// Leaves a request without a body unanswered: its client has gone.
    pub fn pass_over(&mut self, now: Timestamp) {
        (self.is_head, self.empty_lines) = (false, 0);
        self.set_state(State::Head {
            since: now,
            is_first: false,
        });
    }

    /// Answers a request, and ends the connection with it. `unix_now` is `now` by the wall clock, since the
    /// Unix epoch.
    pub fn respond(&mut self, response: &Response, unix_now: Duration, now: Timestamp) {
        let bytes = response.encode(self.occasion(unix_now));
        let queue = self.buffers.queue_mut();
        queue.push_own(|into| into.extend_from_slice(&bytes));
        let has_ended = matches!(
            self.state,
            State::Answer {
                has_ended: true,
                ..
            }
        );
        self.linger(now);
        if has_ended {
            self.set_state(State::Lingering(Lingering::after_eof(now)));
        }
    }

    const fn occasion(&self, unix_now: Duration) -> Occasion {
        Occasion {
            unix_now,
            is_head: self.is_head,
        }
    }

    // The end.

    /// Ends a connection between two requests without a word: the client would take it for the
    /// answer to what it is about to ask.
    pub fn leave(&mut self, now: Timestamp) {
        if self.is_between_requests() {
            self.linger(now);
        }
    }

    fn linger(&mut self, now: Timestamp) {
        self.buffers.forget_input();
        self.set_state(State::Lingering(Lingering::new(now)));
    }

    /// The connection failed, or has come to its end: there is nobody to talk to.
    pub fn handle_end(&mut self) {
        self.buffers.forget_input();
        self.set_state(State::Closed);
    }

    /// The peer sends no more. It may have shut its sending side only, so what is queued still goes
    /// out; then that is the end.
    pub fn handle_eof(&mut self, now: Timestamp) {
        if self.buffers.queue().is_empty() && !self.is_answer_due() {
            return self.handle_end();
        }
        self.buffers.forget_input();
        match self.state {
            // The answer that is awaited is owed, too; it ends the connection.
            State::Answer { since, .. } => self.set_state(State::Answer {
                since,
                stays: false,
                has_ended: true,
            }),
            State::Lingering(lingering) => {
                let since = lingering.since();
                self.set_state(State::Lingering(Lingering::after_eof(since)));
            }
            _ => self.set_state(State::Lingering(Lingering::after_eof(now))),
        }
    }

    /// Whether the sending side of TCP is to be shut now; says so once.
    pub fn take_shutdown(&mut self) -> bool {
        match &mut self.state {
            State::Lingering(lingering) if self.buffers.queue().is_empty() => {
                lingering.take_shutdown()
            }
            _ => false,
        }
    }

    // Output.

    /// The socket took `sent` bytes of the queue.
    pub fn handle_sent(&mut self, sent: usize) {
        self.buffers.handle_sent(sent);
        if let State::Lingering(lingering) = &self.state
            && lingering.ends_when_flushed()
            && self.buffers.queue().is_empty()
        {
            self.set_state(State::Closed);
        }
    }

    /// The socket refused a write.
    pub fn handle_blocked(&mut self, now: Timestamp) {
        self.buffers.handle_blocked(now);
    }

    // Time.

    /// Nothing was read in the last `pause`, by our own choice: it is not the peer's delay.
    pub fn handle_pause(&mut self, pause: Duration) {
        self.buffers.excuse(pause);
    }

    /// When [`Exchange::handle_timeout`] is due; `None` once the exchange is closed.
    #[must_use]
    pub fn poll_timeout(&self, timeouts: &Timeouts) -> Option<Timestamp> {
        match &self.state {
            State::Head {
                since,
                is_first: true,
            } => Some(*since + timeouts.handshake),
            State::Head { since, .. } => Some(match self.buffers.begun() {
                Some(begun) => begun + timeouts.handshake,
                None => *since + timeouts.message,
            }),
            State::Body { since, .. } | State::Answer { since, .. } => {
                Some(*since + timeouts.message)
            }
            State::Lingering(lingering) => Some(lingering.since() + timeouts.close),
            State::Closed => None,
        }
    }

    /// Does what is due at `now`; `None` if nothing is.
    pub fn handle_timeout(&mut self, now: Timestamp, timeouts: &Timeouts) -> Option<Expiry> {
        self.poll_timeout(timeouts).filter(|due| *due <= now)?;
        Some(match self.state {
            State::Head { .. } if self.is_between_requests() => {
                self.leave(now);
                Expiry::Idle
            }
            State::Head { .. } | State::Body { .. } => Expiry::Request,
            State::Answer { .. } => Expiry::Answer,
            State::Lingering(_) | State::Closed => {
                self.handle_end();
                Expiry::Close
            }
        })
    }

    // Bounds.

    /// Brings what is charged to the process up to date. To be called at the end of whatever
    /// changed the exchange.
    pub fn settle(&mut self, pinned: &PinnedBytes) {
        let body_bytes = match &self.state {
            State::Body { body, .. } => size_of::<Body>() + body.reader.pinned_bytes(),
            _ => 0,
        };
        self.buffers.settle(body_bytes, pinned);
    }

    /// Gives back all that is charged; the connection is about to be dropped.
    pub fn release(&mut self, pinned: &PinnedBytes) {
        self.handle_end();
        self.buffers.release(pinned);
    }

    /// Asserts what is true between any two calls.
    pub fn check_invariants(&self) {
        self.buffers.check_invariants();
        assert!(self.is_possible());
    }
}

#[cfg(test)]
mod tests;
