//! One WebSocket connection without its socket, from the answer to its upgrade to the last byte of its
//! end: the states of RFC 6455.
//!
//! ```text
//! Open --close--> Closing --peer's Close, ours unsent--> Lingering --flushed, EOF, time--> Closed
//!   |                 |                                      ^                                ^
//!   |--peer's Close, fail, cut off---------------------------'                                |
//!   |                 `-----------peer's Close, ours sent-------------------------------------|
//!   `----------------- EOF, time, I/O failure ------------------------------------------------'
//! ```
//!
//! Call order of a turn: [`Session::begin_turn`] with what was read, [`Session::next_event`] until it
//! returns `None`, [`Session::end_turn`]. Events are pulled: what needs no decision (Ping, Close) is
//! answered here. Bytes to send gather in the send queue. Time comes in as an argument;
//! [`Session::poll_timeout`] says when to come back.
//!
//! Invariants: nothing is queued after a Close frame; what arrives after a failure is never parsed
//! (§7.1.7); fragments are kept only while the session is open; `Closed` is final.

mod closing;
mod saved;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::config::Timeouts;
use crate::time::Timestamp;
use crate::wire::buffers::Buffers;
use crate::wire::input::Input;
use crate::wire::lingering::Lingering;
use crate::wire::pinned::PinnedBytes;
use crate::wire::send_queue::SendQueue;

use super::close::CloseFrame;
use super::error::ProtocolError;
use super::event::{Event, Expiry};
use super::frame::{EncodedFrame, FrameHeader, Opcode, Role, decode_header, encode_frame};
use super::handshake::{AcceptKey, encode_accept};
use super::heartbeat::{Due, Heartbeat};
use super::message::{Message, MessageAssembler, Progress};

/// The protocol's side of one connection.
#[derive(Debug)]
pub struct Session {
    state: State,
    buffers: Buffers,
    heartbeat: Heartbeat,
    /// The fragments of a message that is not finished (§5.4).
    fragments: Option<Box<MessageAssembler>>,
    /// The newest Ping that came while writes block; older ones need no answer (§5.5.3).
    pending_pong: Option<Box<PongPayload>>,
}

/// Boxed once more, it is half as wide in every session that has none.
#[derive(Debug)]
struct PongPayload(Box<[u8]>);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Open {
        message_bytes_max: usize,
        /// Where the answer to the upgrade ends in the stream of bytes.
        answer_end: u64,
    },
    /// Our Close is queued or sent; the peer's has not come. Data frames are skipped.
    Closing {
        since: Timestamp,
        /// So many bytes are left to come of the current one.
        skip_bytes: usize,
    },
    /// All is said: input is discarded unparsed.
    Lingering(Lingering),
    Closed,
}

/// What an idle connection costs is mostly this.
const _: () = assert!(size_of::<Session>() <= 160);

impl Session {
    /// The session of a connection whose upgrade is answered with `accept`. `buffers` are what the
    /// handshake left; messages up to `message_bytes_max` are taken.
    #[must_use]
    pub fn accept(
        mut buffers: Buffers,
        accept: AcceptKey,
        message_bytes_max: usize,
        now: Timestamp,
    ) -> Self {
        let queue = buffers.queue_mut();
        queue.push_own(|into| encode_accept(into, accept));
        Self {
            state: State::Open {
                message_bytes_max,
                answer_end: queue.end_position(),
            },
            buffers,
            heartbeat: Heartbeat::new(now),
            fragments: None,
            pending_pong: None,
        }
    }

    /// What it keeps of the byte stream.
    #[inline]
    #[must_use]
    pub const fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    /// What waits to be written, when it has been looked at again what of it others pay for.
    pub fn update_queue(&mut self) -> &SendQueue {
        let queue = self.buffers.queue_mut();
        queue.update_retained();
        queue
    }

    /// Whether messages are exchanged.
    #[inline]
    #[must_use]
    pub const fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// Whether the connection may be dropped.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Bytes that have come of what is unfinished, fragments included.
    #[must_use]
    pub fn unfinished_bytes(&self) -> usize {
        let fragments = self.fragments.as_ref();
        self.buffers.tail_bytes() + fragments.map_or(0, |fragments| fragments.buffered_len())
    }

    /// Since when the session has been about to end; `None` while it is open, and when it is closed.
    #[must_use]
    pub const fn ending_since(&self) -> Option<Timestamp> {
        match &self.state {
            State::Closing { since, .. } => Some(*since),
            State::Lingering(lingering) => Some(lingering.since()),
            State::Open { .. } | State::Closed => None,
        }
    }

    /// The one place where the state changes.
    fn set_state(&mut self, next: State) {
        let is_edge = match (self.state, next) {
            (State::Open { .. }, State::Open { .. }) => false,
            (State::Open { .. }, _) => true,
            (State::Closing { .. }, next) => !matches!(next, State::Open { .. }),
            (State::Lingering(_), next) => matches!(next, State::Lingering(_) | State::Closed),
            (State::Closed, next) => next == State::Closed,
        };
        debug_assert!(is_edge, "{:?} -> {next:?}", self.state);
        self.fragments = None;
        self.state = next;
    }

    // Input.

    /// Begins a turn in which `received` was read, and which takes `frames_max` frames at most.
    #[must_use]
    pub fn begin_turn<'a>(&mut self, received: &'a mut [u8], frames_max: usize) -> Input<'a> {
        self.buffers.begin_turn(received, frames_max)
    }

    /// Ends a turn: keeps what is left over.
    pub fn end_turn(&mut self, mut input: Input<'_>, now: Timestamp) {
        if !self.is_parsing() {
            input.discard();
        }
        let has_fragments = self.fragments.is_some();
        self.buffers.end_turn(input, has_fragments, now);
    }

    const fn is_parsing(&self) -> bool {
        matches!(self.state, State::Open { .. } | State::Closing { .. })
    }

    /// Bytes were read: the peer lives.
    pub fn handle_read(&mut self, now: Timestamp) {
        self.heartbeat.handle_life(now);
    }

    /// Nothing was read in the last `pause`, by our own choice: it counts neither as silence
    /// nor as delay of a message.
    pub fn handle_pause(&mut self, pause: Duration, now: Timestamp) {
        self.heartbeat.handle_life(now);
        self.buffers.excuse(pause);
    }

    /// The connection failed, or has come to its end: there is nobody to talk to.
    pub fn handle_end(&mut self) {
        self.forget_input();
        self.set_state(State::Closed);
    }

    /// The next thing that the turn's input holds, or `None` when it is used up, or when the turn
    /// has taken as much of it as it may.
    pub fn next_event<'e>(
        &mut self,
        input: &'e mut Input<'_>,
        now: Timestamp,
    ) -> Option<Event<'e>> {
        input.free_message();
        match self.state {
            State::Open {
                message_bytes_max, ..
            } => self.next_frame(input, message_bytes_max, now),
            State::Closing { since, skip_bytes } => {
                self.next_discarded(input, since, skip_bytes, now)
            }
            State::Lingering(_) | State::Closed => {
                input.discard();
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
        while !input.cursor().is_exhausted() {
            let header = match self.next_header(input.unused(), message_bytes_max) {
                Ok(header) => header?,
                Err(error) => return Some(Event::Failed(error)),
            };
            input.cursor_mut().advance(header.header_len);
            let payload = input.cursor_mut().advance(header.payload_len);
            input.cursor_mut().count();
            header.unmask(input.get_mut(payload.clone()));
            if header.opcode.is_control() {
                let event = self.handle_control(header.opcode, input.get(payload), now);
                if self.fragments.is_none() {
                    input.cursor_mut().finish();
                }
                match event {
                    Some(event) => return Some(event),
                    None => continue,
                }
            }
            if header.fin && self.fragments.is_none() {
                input.cursor_mut().finish();
                return Some(MessageAssembler::whole(&header, input.get(payload)).into());
            }
            match self.take_fragment(&header, input.get(payload)) {
                Ok(None) => {}
                Ok(Some(fragments)) => {
                    let (kind, message) = fragments.into_message();
                    input.cursor_mut().finish();
                    return Some(Message::new(kind, input.lend(message)).into());
                }
                Err(error) => return Some(Event::Failed(error)),
            }
        }
        None
    }

    /// The header of the next frame, once the whole frame is there.
    fn next_header(
        &self,
        unused: &[u8],
        message_bytes_max: usize,
    ) -> Result<Option<FrameHeader>, ProtocolError> {
        let fragments = self.fragments.as_deref();
        let buffered_len = fragments.map_or(0, MessageAssembler::buffered_len);
        // Fragments share the limit of their message.
        let header = decode_header(
            unused,
            Role::Server,
            message_bytes_max.saturating_sub(buffered_len),
        );
        let header = header.map_err(|error| match error {
            ProtocolError::TooBig { bytes, .. } => ProtocolError::TooBig {
                bytes: bytes.saturating_add(buffered_len as u64),
                bytes_max: message_bytes_max,
            },
            other => other,
        })?;
        let Some(header) = header else {
            return Ok(None);
        };
        match header.opcode {
            Opcode::Continuation if fragments.is_none() => {
                return Err(ProtocolError::UnexpectedContinuation);
            }
            Opcode::Text | Opcode::Binary if fragments.is_some() => {
                return Err(ProtocolError::ExpectedContinuation);
            }
            _ => {}
        }
        Ok((unused.len() >= header.frame_len()).then_some(header))
    }

    /// Takes a fragment; returns all of them if it was the last.
    fn take_fragment(
        &mut self,
        header: &FrameHeader,
        payload: &[u8],
    ) -> Result<Option<MessageAssembler>, ProtocolError> {
        let fragments = self.fragments.get_or_insert_default();
        match fragments.accept(header, payload)? {
            Progress::Unfinished => Ok(None),
            Progress::Whole | Progress::Assembled => Ok(self.fragments.take().map(|whole| *whole)),
        }
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
        if self.buffers.blocked_since().is_some() {
            self.pending_pong = Some(Box::new(PongPayload(payload.into())));
        } else {
            self.buffers
                .queue_mut()
                .push_own(|into| encode_frame(into, Opcode::Pong, payload));
        }
    }

    // Output.

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
            self.buffers
                .queue_mut()
                .push_own(|into| encode_frame(into, opcode, payload));
        }
    }

    /// Queues a frame that others share; only while the session is open.
    #[inline]
    pub fn send_shared(&mut self, frame: &EncodedFrame) {
        debug_assert!(self.is_open(), "a frame for a session that is not open");
        self.buffers.queue_mut().push_shared(frame.shared().clone());
    }

    /// The socket took `sent` bytes of the queue.
    pub fn handle_sent(&mut self, sent: usize, now: Timestamp) {
        if self.buffers.handle_sent(sent) {
            // A phone in the middle of a long download is alive.
            self.handle_read(now);
        }
        if let Some(pong) = self.pending_pong.take()
            && self.is_open()
        {
            let queue = self.buffers.queue_mut();
            queue.push_own(|into| encode_frame(into, Opcode::Pong, &pong.0));
        }
        let queue = self.buffers.queue();
        self.heartbeat.handle_sent(queue.sent_position(), now);
        if let State::Lingering(lingering) = self.state
            && lingering.ends_when_flushed()
            && queue.is_empty()
        {
            self.set_state(State::Closed);
        }
    }

    /// The socket refused a write.
    pub fn handle_blocked(&mut self, now: Timestamp) {
        self.buffers.handle_blocked(now);
    }

    // Time.

    /// When [`Session::handle_timeout`] is due; `None` once the session is closed.
    #[must_use]
    pub fn poll_timeout(&self, timeouts: &Timeouts) -> Option<Timestamp> {
        if let State::Open { .. } = self.state {
            let heartbeat = self.heartbeat.deadline(timeouts).into_iter();
            let others = self.write_deadline(timeouts).into_iter();
            return heartbeat
                .chain(others)
                .chain(self.message_deadline(timeouts))
                .min();
        }
        self.ending_since().map(|since| since + timeouts.close)
    }

    fn write_deadline(&self, timeouts: &Timeouts) -> Option<Timestamp> {
        self.buffers
            .blocked_since()
            .map(|since| since + timeouts.write)
    }

    fn message_deadline(&self, timeouts: &Timeouts) -> Option<Timestamp> {
        self.buffers.begun().map(|begun| begun + timeouts.message)
    }

    /// Does what is due at `now`; `None` if nothing is.
    pub fn handle_timeout(&mut self, now: Timestamp, timeouts: &Timeouts) -> Option<Expiry> {
        let is_due = |due: Option<Timestamp>| due.is_some_and(|due| due <= now);
        if let State::Open { .. } = self.state {
            if is_due(self.write_deadline(timeouts)) {
                return Some(Expiry::Write);
            }
            if is_due(self.message_deadline(timeouts)) {
                return Some(Expiry::Message);
            }
            return self.check_heartbeat(now, timeouts);
        }
        is_due(self.poll_timeout(timeouts)).then(|| {
            self.handle_end();
            Expiry::Close
        })
    }

    fn check_heartbeat(&mut self, now: Timestamp, timeouts: &Timeouts) -> Option<Expiry> {
        match self.heartbeat.due(now, timeouts)? {
            Due::Ping => {
                self.buffers
                    .queue_mut()
                    .push_own(|into| encode_frame(into, Opcode::Ping, b""));
                self.heartbeat
                    .handle_ping(self.buffers.queue_mut().end_position());
                Some(Expiry::PingDue)
            }
            Due::End => {
                self.handle_end();
                Some(Expiry::PongOverdue)
            }
        }
    }

    // Bounds.

    /// Brings what is charged to the process up to date. To be called at the end of whatever
    /// changed the session.
    #[inline]
    pub fn settle(&mut self, pinned: &PinnedBytes) {
        let fragments_bytes = self.fragments.as_ref().map_or(0, |fragments| {
            size_of::<MessageAssembler>() + fragments.pinned_bytes()
        });
        self.buffers.settle(fragments_bytes, pinned);
    }

    /// Gives back all that is charged; the connection is about to be dropped.
    pub fn release(&mut self, pinned: &PinnedBytes) {
        self.handle_end();
        self.buffers.release(pinned);
    }

    /// Asserts what is true between any two calls.
    pub fn check_invariants(&self) {
        self.buffers.check_invariants();
        let has_fragments = self.fragments.is_some();
        assert!(self.is_open() || !has_fragments);
        assert!(self.is_parsing() || !self.buffers.has_tail());
        if let Some(fragments) = &self.fragments {
            assert!(fragments.is_unfinished());
            fragments.check_invariants();
        }
        assert!(!has_fragments || self.buffers.begun().is_some());
        let is_lingering = matches!(self.state, State::Lingering(_));
        assert!(!is_lingering || self.pending_pong.is_none());
    }
}
