//! One WebSocket connection without its socket: the states of RFC 6455 from the first byte of
//! the handshake to the last of the close.
//!
//! ```text
//! Connecting --accept--> Open --close / peer's Close--> Closing --answered, EOF--> Closed
//!      \________________refuse, bad request______________/                           ^
//!       \________________________ EOF, time, I/O failure ___________________________/
//! ```
//!
//! A connection that speaks HTTP is Connecting for as long as its requests are answered.
//!
//! Events are pulled: [`Session::next_event`] reads the turn's input and answers what needs no
//! decision itself (Ping, Close). Bytes to send gather in the send queue. Time
//! comes in as an argument; [`Session::poll_timeout`] says when to come back.
//!
//! Invariants: nothing is queued after a Close frame or an HTTP error; what arrives after a
//! failure is never parsed (§7.1.7); `Closed` is final.

mod closing;
mod request;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::config::Timeouts;
use crate::time::Timestamp;

use super::close::CloseFrame;
use super::error::ProtocolError;
use super::event::{Event, Expiry};
use super::frame::{EncodedFrame, FrameHeader, Opcode, Role, decode_header, encode_frame};
use super::handshake::{AcceptKey, encode_accept};
use super::heartbeat::{Due, Heartbeat};
use super::incoming::{Incoming, Input, Leftover};
use super::message::{MessageAssembler, Progress};
use super::pinned::PinnedBytes;
use super::send_queue::SendQueue;

use self::request::Receiving;

/// The protocol's side of one connection.
#[derive(Debug)]
pub struct Session {
    state: State,
    queue: SendQueue,
    incoming: Option<Box<Incoming>>,
    /// The body of the request that is being received.
    receiving: Option<Box<Receiving>>,
    /// What the unfinished input has charged to the process.
    incoming_charged_bytes: usize,
    /// The newest Ping that came while writes block; older ones need no answer (§5.5.3).
    pending_pong: Option<Box<PongPayload>>,
    heartbeat: Heartbeat,
    /// While writes block: when the socket last took something.
    blocked_since: Option<Timestamp>,
}

/// Boxed once more, it is half as wide in every session that has none.
#[derive(Debug)]
struct PongPayload(Box<[u8]>);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Connecting {
        since: Timestamp,
        step: RequestStep,
        /// Whether the request, as far as it has come, is HEAD.
        is_head: bool,
        /// How many empty lines have come in front of it.
        empty_lines: u8,
    },
    Open {
        message_bytes_max: usize,
        /// Where the answer to the upgrade ends in the stream of bytes.
        answer_end: u64,
    },
    Closing {
        since: Timestamp,
        step: ClosingStep,
    },
    Closed,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum RequestStep {
    /// The head of the first request is awaited, since the connection began.
    First,
    /// The rest of a request's body is awaited, since its head was there.
    Body,
    /// The head of a further request is awaited, since the last answer.
    Next,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ClosingStep {
    /// Our Close is queued or sent; the peer's has not come. Data frames are skipped: this
    /// many bytes are left to come of the current one.
    AwaitClose { skip_bytes: usize },
    /// All is said: the queue is to be flushed, then the peer's end of file awaited. Input is
    /// discarded unparsed.
    Linger { is_write_shut: bool },
    /// The peer's end of file came: the queue is to be flushed.
    Flush,
}

/// What an idle connection costs is mostly this.
const _: () = assert!(size_of::<Session>() <= 160);

impl Session {
    /// A session whose connection was accepted at `now`.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self {
            state: State::Connecting {
                since: now,
                step: RequestStep::First,
                is_head: false,
                empty_lines: 0,
            },
            queue: SendQueue::default(),
            incoming: None,
            receiving: None,
            incoming_charged_bytes: 0,
            pending_pong: None,
            heartbeat: Heartbeat::new(now),
            blocked_since: None,
        }
    }

    /// Whether messages are exchanged.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// Whether requests are awaited or answered: the handshake isn't finished, if it ever will be.
    #[must_use]
    pub const fn is_connecting(&self) -> bool {
        matches!(self.state, State::Connecting { .. })
    }

    /// Bytes that have come of what is unfinished; those of a body are not among them.
    #[must_use]
    pub fn unfinished_bytes(&self) -> usize {
        let incoming = self.incoming.as_ref();
        incoming.map_or(0, |incoming| incoming.unfinished_bytes())
    }

    /// Whether the body of a request is awaited.
    #[must_use]
    pub const fn is_receiving(&self) -> bool {
        self.receiving.is_some()
    }

    /// Since when the session has been about to begin, or to end; `None` while it is open, and
    /// when it is closed.
    #[must_use]
    pub const fn unopened_since(&self) -> Option<Timestamp> {
        match self.state {
            State::Connecting { since, .. } | State::Closing { since, .. } => Some(since),
            State::Open { .. } | State::Closed => None,
        }
    }

    /// Whether the connection may be dropped.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// What waits to be written.
    #[must_use]
    pub const fn queue(&self) -> &SendQueue {
        &self.queue
    }

    /// Whether the socket refused the last write.
    #[must_use]
    pub const fn is_blocked(&self) -> bool {
        self.blocked_since.is_some()
    }

    /// The one place where the state changes.
    fn set_state(&mut self, next: State) {
        let is_edge = matches!(
            (self.state, next),
            (
                State::Connecting { .. },
                State::Connecting { .. }
                    | State::Open { .. }
                    | State::Closing { .. }
                    | State::Closed
            ) | (
                State::Open { .. } | State::Closing { .. },
                State::Closing { .. } | State::Closed
            ) | (State::Closed, State::Closed)
        );
        debug_assert!(is_edge, "{:?} -> {next:?}", self.state);
        self.state = next;
    }

    // Input.

    /// Takes the unfinished input out for a turn.
    #[must_use]
    pub fn take_incoming(&mut self) -> Incoming {
        self.incoming
            .take()
            .map_or_else(Incoming::default, |incoming| *incoming)
    }

    /// Puts the unfinished input back at the end of a turn in which `received` was read.
    pub fn keep_incoming(
        &mut self,
        mut incoming: Incoming,
        received: &[u8],
        leftover: &Leftover,
        now: Timestamp,
    ) {
        if self.is_parsing() {
            incoming.keep(received, leftover, now);
            if !self.is_open() {
                incoming.forget_message();
            }
            if !incoming.is_empty() {
                self.incoming = Some(Box::new(incoming));
            }
        }
    }

    const fn is_parsing(&self) -> bool {
        !matches!(
            self.state,
            State::Closed
                | State::Closing {
                    step: ClosingStep::Linger { .. } | ClosingStep::Flush,
                    ..
                }
        )
    }

    /// Bytes were read: the peer lives.
    pub fn handle_read(&mut self, now: Timestamp) {
        self.heartbeat.handle_life(now);
    }

    /// Nothing was read in the last `pause`, by our own choice: it counts neither as silence
    /// nor as delay of a message.
    pub fn handle_pause(&mut self, pause: Duration, now: Timestamp) {
        self.heartbeat.handle_life(now);
        if let Some(incoming) = &mut self.incoming {
            incoming.excuse(pause);
        }
    }

    /// The connection failed, or has come to its end: there is nobody to talk to.
    pub fn handle_end(&mut self) {
        self.set_state(State::Closed);
    }

    /// The next thing that the turn's input holds, or `None` when it is used up, or when the turn
    /// has taken as much of it as it may.
    pub fn next_event<'e>(
        &mut self,
        input: &'e mut Input<'_>,
        now: Timestamp,
        head_bytes_max: usize,
    ) -> Option<Event<'e>> {
        if input.is_lent {
            input.is_lent = false;
            input.assembler.reset();
        }
        match self.state {
            State::Connecting { .. } if input.is_exhausted() => None,
            State::Connecting {
                step: RequestStep::Body,
                ..
            } => self.next_body(input),
            State::Connecting { .. } => self.next_request(input, head_bytes_max),
            State::Open {
                message_bytes_max, ..
            } => self.next_frame(input, message_bytes_max, now),
            State::Closing {
                since,
                step: ClosingStep::AwaitClose { skip_bytes },
            } => self.next_discarded(input, since, skip_bytes, now),
            State::Closing {
                step: ClosingStep::Linger { .. } | ClosingStep::Flush,
                ..
            }
            | State::Closed => {
                input.position = input.bytes.len();
                None
            }
        }
    }

    fn next_frame<'e>(
        &mut self,
        input: &'e mut Input<'_>,
        message_bytes_max: usize,
        now: Timestamp,
    ) -> Option<Event<'e>> {
        while !input.is_exhausted() {
            let header = match next_header(input, message_bytes_max) {
                Ok(header) => header?,
                Err(error) => return Some(Event::Failed(error)),
            };
            let start = input.position + header.header_len;
            let end = input.position + header.frame_len();
            header.unmask(&mut input.bytes[start..end]);
            input.position = end;
            input.frames += 1;
            if header.opcode.is_control() {
                let event = self.handle_control(header.opcode, &input.bytes[start..end], now);
                input.has_finished |= !input.assembler.is_unfinished();
                match event {
                    Some(event) => return Some(event),
                    None => continue,
                }
            }
            match input.assembler.accept(&header, &input.bytes[start..end]) {
                Err(error) => return Some(Event::Failed(error)),
                Ok(Progress::Unfinished) => {}
                Ok(Progress::Whole) => {
                    input.has_finished = true;
                    return Some(MessageAssembler::whole(&header, &input.bytes[start..end]).into());
                }
                Ok(Progress::Assembled) => {
                    input.has_finished = true;
                    input.is_lent = true;
                    return Some(input.assembler.assembled().into());
                }
            }
        }
        None
    }

    /// A control frame in the open state (§5.5).
    fn handle_control(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        now: Timestamp,
    ) -> Option<Event<'static>> {
        match opcode {
            Opcode::Ping => self.answer_ping(payload),
            Opcode::Close => {
                return Some(match CloseFrame::decode(payload) {
                    Ok(frame) => self.answer_close(frame.code, now),
                    Err(error) => Event::Failed(ProtocolError::ClosePayload(error)),
                });
            }
            // §5.5.3: a Pong needs no answer, and says what its Ping said, which is nothing here.
            Opcode::Pong if payload.is_empty() => {
                let round_trip = self.heartbeat.handle_pong(now)?;
                return Some(Event::Pong { round_trip });
            }
            _ => {}
        }
        None
    }

    fn answer_ping(&mut self, payload: &[u8]) {
        if self.is_blocked() {
            self.pending_pong = Some(Box::new(PongPayload(payload.into())));
        } else {
            self.queue
                .push_own(|into| encode_frame(into, Opcode::Pong, payload));
        }
    }

    // Output.

    /// Completes the handshake; messages up to `message_bytes_max` are taken from now on.
    pub fn accept(&mut self, accept: AcceptKey, message_bytes_max: usize) {
        self.queue.push_own(|into| encode_accept(into, accept));
        self.set_state(State::Open {
            message_bytes_max,
            answer_end: self.queue.end_position(),
        });
    }

    /// Messages up to `message_bytes_max` are taken from the next one on.
    pub fn limit_messages(&mut self, bytes_max: usize) {
        if let State::Open {
            message_bytes_max, ..
        } = &mut self.state
        {
            *message_bytes_max = bytes_max;
        }
    }

    /// Queues a whole message for this connection alone.
    pub fn send(&mut self, opcode: Opcode, payload: &[u8]) {
        debug_assert!(!opcode.is_control(), "control frames are the session's own");
        if self.is_open() {
            self.queue
                .push_own(|into| encode_frame(into, opcode, payload));
        }
    }

    /// Queues a frame that others share; only while the session is open.
    #[inline]
    pub fn send_shared(&mut self, frame: EncodedFrame) {
        debug_assert!(self.is_open(), "a frame for a session that is not open");
        self.queue.push_shared(frame);
    }

    /// The socket took `sent` bytes of the queue.
    pub fn handle_sent(&mut self, sent: usize, now: Timestamp) {
        self.queue.advance(sent);
        if self.blocked_since.take().is_some() {
            // A phone in the middle of a long download is alive.
            self.handle_read(now);
        }
        if let Some(pong) = self.pending_pong.take()
            && self.is_open()
        {
            self.queue
                .push_own(|into| encode_frame(into, Opcode::Pong, &pong.0));
        }
        self.heartbeat.handle_sent(self.queue.sent_position(), now);
        let is_flushing = matches!(
            self.state,
            State::Closing {
                step: ClosingStep::Flush,
                ..
            }
        );
        if is_flushing && self.queue.is_empty() {
            self.set_state(State::Closed);
        }
    }

    /// The socket refused a write.
    pub fn handle_blocked(&mut self, now: Timestamp) {
        self.blocked_since.get_or_insert(now);
    }

    // Time.

    /// When [`Session::handle_timeout`] is due; `None` once the session is closed.
    #[must_use]
    pub fn poll_timeout(&self, timeouts: &Timeouts) -> Option<Timestamp> {
        match self.state {
            State::Connecting { .. } => self.request_deadline(timeouts),
            State::Open { .. } => self.open_deadline(timeouts),
            State::Closing { since, .. } => Some(since + timeouts.close),
            State::Closed => None,
        }
    }

    fn open_deadline(&self, timeouts: &Timeouts) -> Option<Timestamp> {
        let write = self.blocked_since.map(|since| since + timeouts.write);
        let message = self.message_begun().map(|begun| begun + timeouts.message);
        [self.heartbeat.deadline(timeouts), write, message]
            .into_iter()
            .flatten()
            .min()
    }

    fn message_begun(&self) -> Option<Timestamp> {
        self.incoming.as_ref().and_then(|incoming| incoming.begun())
    }

    /// Does what is due at `now`; `None` if nothing is.
    pub fn handle_timeout(&mut self, now: Timestamp, timeouts: &Timeouts) -> Option<Expiry> {
        let is_due = |since: Timestamp, after: Duration| since + after <= now;
        match self.state {
            State::Connecting { .. }
                if self
                    .request_deadline(timeouts)
                    .is_some_and(|deadline| deadline <= now) =>
            {
                Some(self.handle_late_request(now))
            }
            State::Closing { since, .. } if is_due(since, timeouts.close) => {
                self.set_state(State::Closed);
                Some(Expiry::Close)
            }
            State::Open { .. }
                if self
                    .blocked_since
                    .is_some_and(|since| is_due(since, timeouts.write)) =>
            {
                Some(Expiry::Write)
            }
            State::Open { .. }
                if self
                    .message_begun()
                    .is_some_and(|begun| is_due(begun, timeouts.message)) =>
            {
                Some(Expiry::Message)
            }
            State::Open { .. } => self.check_heartbeat(now, timeouts),
            _ => None,
        }
    }

    fn check_heartbeat(&mut self, now: Timestamp, timeouts: &Timeouts) -> Option<Expiry> {
        match self.heartbeat.due(now, timeouts)? {
            Due::Ping => {
                self.queue
                    .push_own(|into| encode_frame(into, Opcode::Ping, b""));
                self.heartbeat.handle_ping(self.queue.end_position());
                Some(Expiry::PingDue)
            }
            Due::End => {
                self.set_state(State::Closed);
                Some(Expiry::PongOverdue)
            }
        }
    }

    // Bounds.

    /// Bytes that this connection makes the process keep, shared frames counted in full.
    #[must_use]
    pub fn pinned_bytes(&self) -> usize {
        self.queue.kept_bytes() + self.queue.charged_bytes() + self.incoming_charged_bytes
    }

    /// Brings what is charged to the process up to date. To be called at the end of whatever
    /// changed the session.
    pub fn settle(&mut self, pinned: &PinnedBytes) {
        self.queue.settle(pinned);
        let incoming_bytes = self.incoming.as_ref().map_or(0, |incoming| {
            size_of::<Incoming>() + incoming.pinned_bytes()
        });
        let body_bytes = self.receiving.as_ref().map_or(0, |receiving| {
            size_of::<Receiving>() + receiving.pinned_bytes()
        });
        let bytes = incoming_bytes + body_bytes;
        pinned.subtract(self.incoming_charged_bytes);
        pinned.add(bytes);
        self.incoming_charged_bytes = bytes;
    }

    /// Gives back all that is charged; the session is about to be dropped.
    pub fn release(&mut self, pinned: &PinnedBytes) {
        self.queue.clear();
        self.incoming = None;
        self.receiving = None;
        self.settle(pinned);
    }
}

/// The header of the next frame, once the whole frame is there.
fn next_header(
    input: &Input<'_>,
    message_bytes_max: usize,
) -> Result<Option<FrameHeader>, ProtocolError> {
    let unused = &input.bytes[input.position..];
    let buffered_len = input.assembler.buffered_len();
    // Fragments share the limit of their message.
    let header =
        decode_header(unused, Role::Server, message_bytes_max - buffered_len).map_err(|error| {
            match error {
                ProtocolError::TooBig { bytes, .. } => ProtocolError::TooBig {
                    bytes: bytes.saturating_add(buffered_len as u64),
                    bytes_max: message_bytes_max,
                },
                other => other,
            }
        })?;
    let Some(header) = header else {
        return Ok(None);
    };
    if !header.opcode.is_control() {
        input.assembler.check_order(header.opcode)?;
    }
    Ok((unused.len() >= header.frame_len()).then_some(header))
}
