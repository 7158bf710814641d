//! What a session tells its owner: events of the input, and deadlines that passed.

use std::time::Duration;

use super::close::CloseCode;
use super::error::ProtocolError;
use super::message::Message;

/// What happened on a connection.
#[derive(Debug)]
pub enum Event<'a> {
    /// A whole message.
    Message(Message<'a>),
    /// The answer to a Ping of ours (§5.5.3).
    Pong {
        /// How long it took, from the Ping's leaving the send queue.
        round_trip: Duration,
    },
    /// A message that came after our Close; its content is gone.
    Discarded,
    /// The peer broke the protocol: answer with [`super::session::Session::fail`].
    Failed(ProtocolError),
    /// The peer's Close came. It has been answered if it was the first.
    Closed {
        /// The code that it gave.
        code: Option<CloseCode>,
    },
}

/// What a deadline that passed means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expiry {
    /// The peer was silent; a Ping has been queued.
    PingDue,
    /// The peer gave no sign of life after the Ping; the session is closed.
    PongOverdue,
    /// A message was not complete in time: close with 1008.
    Message,
    /// The socket took nothing for too long: cut off with 1013.
    Write,
    /// The closing handshake was not finished in time; the session is closed.
    Close,
}

impl<'a> From<Result<Message<'a>, ProtocolError>> for Event<'a> {
    fn from(result: Result<Message<'a>, ProtocolError>) -> Self {
        result.map_or_else(Self::Failed, Event::Message)
    }
}
