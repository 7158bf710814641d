//! Which protocol a connection speaks: HTTP from its first byte, WebSocket from an upgrade on.
//!
//! What both do is asked of [`Protocol`], what only one does of that one. Knows no sockets.

use std::time::Duration;

use crate::config::Timeouts;
use crate::handover::{Fields, Malformed, Members};
use crate::http::exchange::{self, Exchange};
use crate::time::Timestamp;
use crate::wire::buffers::Buffers;
use crate::wire::carried::{FrameNumbers, Frames};
use crate::wire::input::Input;
use crate::wire::pinned::PinnedBytes;
use crate::wire::send_queue::SendQueue;
use crate::ws::event as session;
use crate::ws::handshake::AcceptKey;
use crate::ws::session::Session;

/// The protocol's side of a connection.
#[derive(Debug)]
pub enum Protocol {
    /// Requests are answered; the connection may be upgraded yet.
    Http(Exchange),
    /// The connection is upgraded.
    WebSocket(Session),
}

/// An idle connection costs no more for the choice.
const _: () = assert!(size_of::<Protocol>() <= 160);

/// What a turn's input holds.
#[derive(Debug)]
pub enum Event<'a> {
    /// Of a connection that speaks HTTP.
    Http(exchange::Event<'a>),
    /// Of one that is upgraded.
    WebSocket(session::Event<'a>),
}

/// What a deadline that passed means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expiry {
    /// Of a connection that speaks HTTP.
    Http(exchange::Expiry),
    /// Of one that is upgraded.
    WebSocket(session::Expiry),
}

impl Protocol {
    /// HTTP, on a connection that was accepted at `now`.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self::Http(Exchange::new(now))
    }

    /// Upgrades a connection that speaks HTTP; does nothing to one that doesn't.
    pub fn upgrade(&mut self, accept: AcceptKey, message_bytes_max: usize, now: Timestamp) {
        if let Self::Http(exchange) = self {
            let exchange = std::mem::replace(exchange, Exchange::new(now));
            let buffers = exchange.into_buffers();
            *self = Self::WebSocket(Session::accept(buffers, accept, message_bytes_max, now));
        }
    }

    /// HTTP's side, while that is spoken.
    #[must_use]
    pub const fn exchange(&self) -> Option<&Exchange> {
        match self {
            Self::Http(exchange) => Some(exchange),
            Self::WebSocket(_) => None,
        }
    }

    /// HTTP's side, while that is spoken.
    pub const fn exchange_mut(&mut self) -> Option<&mut Exchange> {
        match self {
            Self::Http(exchange) => Some(exchange),
            Self::WebSocket(_) => None,
        }
    }

    /// The session, while messages are exchanged.
    #[inline]
    pub const fn open_session_mut(&mut self) -> Option<&mut Session> {
        match self {
            Self::WebSocket(session) if session.is_open() => Some(session),
            _ => None,
        }
    }

    /// Whether messages are exchanged.
    #[inline]
    #[must_use]
    pub const fn is_open(&self) -> bool {
        matches!(self, Self::WebSocket(session) if session.is_open())
    }

    /// Whether requests are awaited or answered.
    #[must_use]
    pub const fn is_serving_http(&self) -> bool {
        matches!(self, Self::Http(exchange) if exchange.is_serving())
    }

    /// Whether the body of a request is awaited.
    #[must_use]
    pub const fn is_receiving(&self) -> bool {
        matches!(self, Self::Http(exchange) if exchange.is_receiving())
    }

    /// Whether the connection may be dropped.
    #[inline]
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        match self {
            Self::Http(exchange) => exchange.is_closed(),
            Self::WebSocket(session) => session.is_closed(),
        }
    }

    /// Since when it has not been open, or has been about to end; `None` while it is open, and when it is
    /// closed.
    #[must_use]
    pub const fn unopened_since(&self) -> Option<Timestamp> {
        match self {
            Self::Http(exchange) => exchange.since(),
            Self::WebSocket(session) => session.ending_since(),
        }
    }

    /// Bytes that have come of what is unfinished; those of a request's body are not among them.
    #[must_use]
    pub fn unfinished_bytes(&self) -> usize {
        match self {
            Self::Http(exchange) => exchange.buffers().tail_bytes(),
            Self::WebSocket(session) => session.unfinished_bytes(),
        }
    }

    /// When the first byte came of what is unfinished.
    #[must_use]
    pub const fn unfinished_since(&self) -> Option<Timestamp> {
        self.buffers().begun()
    }

    #[inline]
    const fn buffers(&self) -> &Buffers {
        match self {
            Self::Http(exchange) => exchange.buffers(),
            Self::WebSocket(session) => session.buffers(),
        }
    }

    /// What waits to be written.
    #[inline]
    #[must_use]
    pub const fn queue(&self) -> &SendQueue {
        self.buffers().queue()
    }

    // Input.

    /// Begins a turn in which `received` was read, and which takes `taken_max` frames or requests at most.
    #[must_use]
    pub fn begin_turn<'a>(&mut self, received: &'a mut [u8], taken_max: usize) -> Input<'a> {
        match self {
            Self::Http(exchange) => exchange.begin_turn(received, taken_max),
            Self::WebSocket(session) => session.begin_turn(received, taken_max),
        }
    }

    /// The next thing that the turn's input holds, or `None` when it is used up, or when the turn has taken
    /// as much of it as it may.
    pub fn next_event<'e>(
        &mut self,
        input: &'e mut Input<'_>,
        now: Timestamp,
        head_bytes_max: usize,
    ) -> Option<Event<'e>> {
        match self {
            Self::Http(exchange) => exchange.next_event(input, head_bytes_max).map(Event::Http),
            Self::WebSocket(session) => session.next_event(input, now).map(Event::WebSocket),
        }
    }

    /// Ends a turn: keeps what is left over.
    pub fn end_turn(&mut self, input: Input<'_>, now: Timestamp) {
        match self {
            Self::Http(exchange) => exchange.end_turn(input, now),
            Self::WebSocket(session) => session.end_turn(input, now),
        }
    }

    /// Bytes were read: the peer lives.
    pub fn handle_read(&mut self, now: Timestamp) {
        if let Self::WebSocket(session) = self {
            session.handle_read(now);
        }
    }

    /// Nothing was read in the last `pause`, by our own choice: that is not the peer's fault.
    pub fn handle_pause(&mut self, pause: Duration, now: Timestamp) {
        match self {
            Self::Http(exchange) => exchange.handle_pause(pause),
            Self::WebSocket(session) => session.handle_pause(pause, now),
        }
    }

    /// The peer sends no more; what is queued still goes out.
    pub fn handle_eof(&mut self, now: Timestamp) {
        match self {
            Self::Http(exchange) => exchange.handle_eof(now),
            Self::WebSocket(session) => session.handle_eof(now),
        }
    }

    /// The connection failed, or has come to its end: there is nobody to talk to.
    pub fn handle_end(&mut self) {
        match self {
            Self::Http(exchange) => exchange.handle_end(),
            Self::WebSocket(session) => session.handle_end(),
        }
    }

    // Output.

    /// The socket took `sent` bytes of the queue.
    #[inline]
    pub fn handle_sent(&mut self, sent: usize, now: Timestamp) {
        match self {
            Self::Http(exchange) => exchange.handle_sent(sent),
            Self::WebSocket(session) => session.handle_sent(sent, now),
        }
    }

    /// The socket refused a write.
    pub fn handle_blocked(&mut self, now: Timestamp) {
        match self {
            Self::Http(exchange) => exchange.handle_blocked(now),
            Self::WebSocket(session) => session.handle_blocked(now),
        }
    }

    /// Whether the sending side of TCP is to be shut now; says so once.
    #[inline]
    pub fn take_shutdown(&mut self) -> bool {
        match self {
            Self::Http(exchange) => exchange.take_shutdown(),
            Self::WebSocket(session) => session.take_shutdown(),
        }
    }

    // Time.

    /// When [`Protocol::handle_timeout`] is due; `None` once it is closed.
    #[inline]
    #[must_use]
    pub fn poll_timeout(&self, timeouts: &Timeouts) -> Option<Timestamp> {
        match self {
            Self::Http(exchange) => exchange.poll_timeout(timeouts),
            Self::WebSocket(session) => session.poll_timeout(timeouts),
        }
    }

    /// Does what is due at `now`; `None` if nothing is.
    pub fn handle_timeout(&mut self, now: Timestamp, timeouts: &Timeouts) -> Option<Expiry> {
        match self {
            Self::Http(exchange) => exchange.handle_timeout(now, timeouts).map(Expiry::Http),
            Self::WebSocket(session) => {
                let expiry = session.handle_timeout(now, timeouts);
                expiry.map(Expiry::WebSocket)
            }
        }
    }

    // Bounds.

    /// Bytes that the connection makes the process keep, shared frames counted in full.
    #[must_use]
    pub fn pinned_bytes(&self) -> usize {
        self.buffers().pinned_bytes()
    }

    /// What waits to be written, when it has been looked at again what of it the history holds.
    pub fn update_queue(&mut self) -> &SendQueue {
        match self {
            Self::Http(exchange) => exchange.buffers().queue(),
            Self::WebSocket(session) => session.update_queue(),
        }
    }

    /// Brings what is charged to the process up to date. To be called at the end of whatever changed
    /// something.
    #[inline]
    pub fn settle(&mut self, pinned: &PinnedBytes) {
        match self {
            Self::Http(exchange) => exchange.settle(pinned),
            Self::WebSocket(session) => session.settle(pinned),
        }
    }

    /// Gives back all that is charged; the connection is about to be dropped.
    pub fn release(&mut self, pinned: &PinnedBytes) {
        match self {
            Self::Http(exchange) => exchange.release(pinned),
            Self::WebSocket(session) => session.release(pinned),
        }
    }

    // Handover.

    /// Writes what a successor must know, between two turns, when each of [`SendQueue::shared`] has its number in
    /// `frames`.
    pub fn save(&self, members: &mut Members<'_>, frames: &FrameNumbers) {
        match self {
            Self::Http(exchange) => exchange.save(members, frames),
            Self::WebSocket(session) => session.save(members, frames),
        }
    }

    /// What was saved; nothing of it is charged yet, and none of its frames. The number of its state says which of the
    /// two it is.
    ///
    /// # Errors
    /// As [`Exchange::restore`] or [`Session::restore`].
    pub fn restore(fields: &Fields<'_>, frames: &Frames) -> Result<Self, Malformed> {
        if Session::is_in(fields) {
            Session::restore(fields, frames).map(Self::WebSocket)
        } else {
            Exchange::restore(fields, frames).map(Self::Http)
        }
    }

    /// Asserts what is true between any two calls.
    pub fn check_invariants(&self) {
        match self {
            Self::Http(exchange) => exchange.check_invariants(),
            Self::WebSocket(session) => session.check_invariants(),
        }
    }
}

#[cfg(test)]
mod tests;
