//! What a session tells its owner: events of the input, and deadlines that passed.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::http::body::{BodyError, BodyPermit, Framing};
use crate::http::head::{Head, HeadError};
use crate::http::host::HostError;
use crate::http::response::Response;
use crate::http::status::Status;

use super::close::CloseCode;
use super::error::ProtocolError;
use super::handshake::{AcceptKey, HandshakeError};
use super::message::Message;

/// What happened on a connection.
#[derive(Debug)]
pub enum Event<'a> {
    /// A valid request for an upgrade: answer it with [`super::session::Session::accept`] or
    /// [`super::session::Session::respond`] before the next event is asked for.
    Upgrade {
        /// The request.
        head: Head<'a>,
        /// The answer to its key.
        accept: AcceptKey,
    },
    /// Any other request: answer it with [`super::session::Session::answer`] or
    /// [`super::session::Session::respond`], or have its body read with
    /// [`super::session::Session::receive`], before the next event is asked for.
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
        /// What was granted to it.
        permit: BodyPermit,
        /// Whether the client means to send another request.
        stays: bool,
    },
    /// A request that can't be taken: answer it with [`Rejection::response`], by
    /// [`super::session::Session::respond`].
    Rejected(Rejection),
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
    /// It breaks a rule of the opening handshake.
    Handshake(HandshakeError),
}

impl Rejection {
    /// Whether an upgrade was asked for, as far as could be read.
    #[must_use]
    pub const fn is_of_upgrade(self) -> bool {
        matches!(
            self,
            Self::Handshake(_)
                | Self::Host {
                    is_upgrade: true,
                    ..
                }
        )
    }

    /// The answer that tells the client.
    #[must_use]
    pub fn response(self) -> Response {
        match self {
            Self::Head(error) => Response::new(error.status(), error.to_string()),
            Self::Host { error, .. } => Response::new(Status::BAD_REQUEST, error.to_string()),
            Self::Body(error) => Response::new(error.status(), error.to_string()),
            Self::Handshake(error) => error.response(),
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head(error) => fmt::Display::fmt(error, f),
            Self::Host { error, .. } => fmt::Display::fmt(error, f),
            Self::Body(error) => fmt::Display::fmt(error, f),
            Self::Handshake(error) => fmt::Display::fmt(error, f),
        }
    }
}

/// What a deadline that passed means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expiry {
    /// A request was not finished in time, or none ever came: answer with 408, by
    /// [`super::session::Session::respond`].
    Handshake,
    /// No further request came on a connection that was kept for one; it is ended without a word.
    Idle,
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
