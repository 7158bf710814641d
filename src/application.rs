//! What the shell offers to an application, and what it expects of one.
//!
//! The shell owns connections and bytes; the application owns meaning. They meet in one call a
//! message: borrowed text goes in, and frames that own themselves and ids come out, in two ways:
//! [`Replies`] to one connection, now or later, and [`Deliveries`] to others. The product's application is
//! the hub behind its routes; the conformance suite runs an echo.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::handover::{Fields, Malformed, Members, Outgoing};
pub use crate::http::body::Framing;
use crate::http::head::Head;
pub use crate::http::response::Response;
pub use crate::http::status::Status;
use crate::id::ConnectionId;
use crate::metrics::Metrics;
pub use crate::metrics::Refusal;
use crate::time::{Clock, Timestamp};
use crate::wire::carried::{FrameNumbers, Frames};
use crate::ws::close::CloseCode;
use crate::ws::error::ProtocolError;
use crate::ws::frame::EncodedFrame;
pub use crate::ws::message::Message;

/// Which of the server's lanes a connection came through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lane {
    /// Everybody's.
    Clients,
    /// The API's own, whose connections clients can't use up.
    Publishers,
}

/// The other end of a connection, or the peer that it speaks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PeerAddress {
    /// An address; the port is 0 if a proxy told it, without a port.
    Ip(SocketAddr),
    /// A Unix socket, whose other end has no address.
    Unix,
    /// A trusted proxy that doesn't say for which peer it speaks: for none in particular, and not for itself.
    Unknown,
}

impl PeerAddress {
    /// The address, without a port.
    #[must_use]
    pub const fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(address.ip()),
            Self::Unix | Self::Unknown => None,
        }
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) if address.port() == 0 => fmt::Display::fmt(&address.ip(), f),
            Self::Ip(address) => fmt::Display::fmt(address, f),
            Self::Unix => f.write_str("a Unix socket"),
            Self::Unknown => f.write_str("an unknown address"),
        }
    }
}

/// Where a connection comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// The other end.
    pub address: PeerAddress,
    /// The lane.
    pub lane: Lane,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.address, f)
    }
}

/// A request, as the application may know it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Where it comes from.
    pub peer: Peer,
    /// What was asked.
    pub head: &'a Head<'a>,
    /// When.
    pub now: Timestamp,
    /// The same by the wall clock, since the Unix epoch.
    pub unix_now: Duration,
}

/// What the application grants to a connection whose upgrade it accepts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Admission {
    /// The largest message that it may send, in bytes of payload, fragments added up.
    pub message_bytes_max: usize,
    /// The peer that a trusted proxy speaks for: to be named in logs.
    pub on_behalf_of: Option<PeerAddress>,
    /// When [`Application::handle_deadline`] is to be called, if the connection is open then.
    pub deadline: Option<Timestamp>,
    /// Whether the rates of clients apply.
    pub is_limited: bool,
    /// Whether what it has sent beyond them counts though it has hung up.
    pub drains_after_hang_up: bool,
    /// Whether it is served until everybody else has been told that the server stops.
    pub closes_last: bool,
}

/// What is granted to a request whose body is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BodyPermit {
    /// The longest body that is taken.
    pub bytes_max: usize,
    /// What the body is for.
    pub body_use: BodyUse,
}

/// What the body of a request is for, as far as its head has shown that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyUse {
    /// It publishes, which its head has shown that it may.
    Publish,
    /// It publishes, if the body shows that it may.
    PublishByToken {
        /// Whether its sender can be none but the operator's own.
        is_own: bool,
    },
    /// It asks for an explanation, which its head has shown that it may.
    Explain,
}

impl Default for BodyUse {
    fn default() -> Self {
        Self::PublishByToken { is_own: false }
    }
}

impl BodyUse {
    /// Whether the head has shown all that it takes; else the body has to.
    #[must_use]
    pub const fn is_authorized(self) -> bool {
        matches!(self, Self::Publish | Self::Explain)
    }
}

/// Why the shell closes a connection on its own account.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseCause {
    /// The peer broke RFC 6455, or the size limit.
    Protocol(ProtocolError),
    /// A message was not complete in time.
    UnfinishedMessage,
    /// The peer did not take its notifications fast enough.
    SlowConsumer,
    /// The process as a whole keeps too many bytes for its peers.
    Overload,
    /// The server is stopping.
    Shutdown,
}

impl CloseCause {
    /// The status code that says so.
    #[must_use]
    pub const fn close_code(self) -> CloseCode {
        match self {
            Self::Protocol(error) => error.close_code(),
            Self::UnfinishedMessage => CloseCode::POLICY_VIOLATION,
            Self::SlowConsumer | Self::Overload => CloseCode::TRY_AGAIN_LATER,
            Self::Shutdown => CloseCode::GOING_AWAY,
        }
    }
}

impl fmt::Display for CloseCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protocol(error) => fmt::Display::fmt(error, f),
            Self::UnfinishedMessage => f.write_str("a message was not complete in time"),
            Self::SlowConsumer => f.write_str("it does not take its notifications fast enough"),
            Self::Overload => f.write_str("the server keeps too much for its peers"),
            Self::Shutdown => f.write_str("the server is stopping"),
        }
    }
}

/// What became of a delivery.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Delivered {
    /// Connections whose send queue took the frame.
    pub queued: usize,
    /// Connections that were cut off because their queue was full.
    pub dropped: usize,
}

/// The way out to others: what a notification becomes, and an end that nobody has asked for. Needs no
/// message of anybody's; a timer or another server may be the reason.
pub trait Deliveries: Clock {
    /// Queues `frame` to each of `recipients`, which name no connection twice. A connection
    /// that is gone or closing takes nothing and counts nowhere.
    fn deliver(&mut self, frame: &EncodedFrame, recipients: &[ConnectionId]) -> Delivered;

    /// Whether a connection is about to be cut off, since its queue didn't take a delivery.
    fn is_cut_off(&mut self, _id: ConnectionId) -> bool {
        false
    }

    /// Whether the send queue of a connection takes `frame` now; if it doesn't, it does when it has drained.
    fn has_room(&mut self, id: ConnectionId, frame: &EncodedFrame) -> bool;

    /// Starts the closing handshake with an open connection. What was queued to it before goes out first, what
    /// it sends from now on is discarded.
    fn close(&mut self, id: ConnectionId, code: CloseCode, reason: &str);

    /// Milliseconds after which a client that is closed now should come back; jittered.
    fn retry_ms(&mut self) -> u64;
}

/// The way out to one connection, by its id: at once, while its message is handled, or later. A connection
/// that is gone takes nothing.
pub trait Replies: Clock {
    /// Queues a text message.
    fn reply(&mut self, to: ConnectionId, payload: &str);

    /// Queues a binary message.
    fn reply_binary(&mut self, to: ConnectionId, payload: &[u8]);

    /// Gives the answer that [`Answer::Later`] or [`Action::Later`] has promised; nothing before that was
    /// returned.
    fn respond(&mut self, to: ConnectionId, response: &Response);

    /// Grants something else, from the next message on.
    fn readmit(&mut self, id: ConnectionId, admission: &Admission);

    /// Whether nothing waits in the connection's send queue.
    fn is_drained(&mut self, id: ConnectionId) -> bool;

    /// Bytes that wait in the connection's send queue.
    fn unsent_bytes(&mut self, _id: ConnectionId) -> usize {
        0
    }

    /// Where a connection comes from; for a request behind a proxy, where the proxy is.
    fn peer(&mut self, _id: ConnectionId) -> Option<Peer> {
        None
    }

    /// Has [`Application::handle_drained`] called, once, when the connection's send queue is empty.
    fn await_drained(&mut self, id: ConnectionId);

    /// Takes no further message of a connection until [`Replies::resume_input`]; what comes meanwhile waits, and
    /// is no fault of its peer's.
    fn pause_input(&mut self, id: ConnectionId);

    /// Takes messages again.
    fn resume_input(&mut self, id: ConnectionId);
}

/// Every way out.
pub trait Outbox: Deliveries + Replies {}

impl<T: Deliveries + Replies> Outbox for T {}

/// A refused upgrade.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// Why, as it is counted.
    pub refusal: Refusal,
    /// What tells the client.
    pub response: Response,
}

/// What becomes of a request that asks for no upgrade.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    /// What comes next.
    pub action: Action,
    /// Whether the rates of clients apply to its connection from now on.
    pub is_limited: bool,
}

/// What comes next for a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// It is answered.
    Respond(Response),
    /// Its body is read, and [`Application::handle_body`] has the answer.
    ReadBody(BodyPermit),
    /// [`Replies::respond`] has the answer.
    Later,
}

/// The answer to a request whose body was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// This.
    Now(Response),
    /// [`Replies::respond`] has it.
    Later,
}

/// What has to be written elsewhere before anything is written to a connection.
pub trait WriteBarrier {
    /// Whether something is to be written first.
    fn is_pending(&self) -> bool;

    /// Writes it.
    fn commit(&self);
}

/// What the shell knows of itself: readiness, counters, gauges.
pub trait Figures {
    /// Whether connections are let in; not while it stops.
    fn is_accepting(&self) -> bool;

    /// What has been counted so far.
    fn metrics(&self) -> &Metrics;

    /// How much there is of everything now.
    fn gauges(&self) -> Gauges;

    /// Bytes that wait in a connection's send queue.
    fn unsent_bytes(&self, _id: ConnectionId) -> usize {
        0
    }
}

/// Connections and bytes at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Gauges {
    /// Open sessions.
    pub open: u64,
    /// Connections that have published over HTTP.
    pub http: u64,
    /// Connections that have not been let in yet.
    pub handshakes: u64,
    /// Connections that are about to end.
    pub closing: u64,
    /// Bytes that wait to be written; a frame counts for each of its recipients.
    pub send_queue_bytes: u64,
    /// Bytes that are kept for peers; a shared frame counts once.
    pub buffer_bytes: u64,
}

/// One of the two connections to the server that keeps the order: what is read blocks, what is written doesn't wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Uplink {
    /// What is read comes through it.
    Reader,
    /// What is written goes through it.
    Writer,
}

/// Where a server listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Endpoint {
    /// An address and a port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => fmt::Display::fmt(address, f),
            Self::Unix(path) => fmt::Display::fmt(&path.display(), f),
        }
    }
}

/// Connections that the application has to servers of its own: bytes in, bytes out, no sockets.
///
/// Whoever has the sockets asks [`Uplinks::take_connect`] first, then [`Uplinks::is_open`]: any other call may have ended
/// both connections and begun a new attempt.
pub trait Uplinks {
    /// Where one is to be opened now; told once for each attempt, whose socket takes the place of the one before.
    fn take_connect(&mut self, uplink: Uplink) -> Option<Endpoint>;

    /// Whether its socket is of use; else it is closed.
    fn is_open(&self, uplink: Uplink) -> bool;

    /// It is connected: bytes can be written.
    fn handle_connected(&mut self, uplink: Uplink, now: Timestamp);

    /// Whether more is taken now; what isn't read waits in the socket.
    fn takes_input(&self, uplink: Uplink) -> bool;

    /// Takes what was read.
    fn handle_received(&mut self, uplink: Uplink, bytes: &[u8], now: Timestamp);

    /// What is to be written now. What was shown once counts as sent, until the connection ends.
    fn unsent(&mut self, uplink: Uplink) -> &[u8];

    /// The socket has taken the first `len` bytes of what was shown.
    fn handle_sent(&mut self, uplink: Uplink, len: usize, now: Timestamp);

    /// It couldn't be opened, or it has ended.
    fn handle_end(&mut self, uplink: Uplink, error: Option<&io::Error>, now: Timestamp);
}

/// What runs behind the shell.
///
/// A connection is known from an accepted [`Application::handle_upgrade`] to [`Application::handle_gone`]; only
/// in between do other calls name it, but for requests, which have connections of their own. All
/// calls come one after the other.
pub trait Application {
    /// Decides about a valid upgrade. A connection that is admitted is told to
    /// [`Application::handle_gone`] later, exactly once.
    ///
    /// # Errors
    /// Why it is refused.
    fn handle_upgrade(
        &mut self,
        id: ConnectionId,
        request: &Request<'_>,
    ) -> Result<Admission, Refused>;

    /// Whether a request that asks for no upgrade may be one to publish: it is handled before
    /// others are.
    fn is_urgent(&self, _request: &Request<'_>) -> bool {
        false
    }

    /// Decides what becomes of a request that asks for no upgrade and whose body, if it has one, was not
    /// read.
    fn handle_request(
        &mut self,
        id: ConnectionId,
        request: &Request<'_>,
        framing: Framing,
        figures: &dyn Figures,
    ) -> Decision;

    /// Answers a request whose body was asked for; `body_use` as the permit said.
    fn handle_body(
        &mut self,
        _id: ConnectionId,
        _body: &[u8],
        _body_use: BodyUse,
        _outbox: &mut dyn Outbox,
    ) -> Answer {
        Answer::Now(Response::new(Status::NOT_FOUND, "there is nothing here"))
    }

    /// Takes a message of an open connection.
    fn handle_message(&mut self, id: ConnectionId, message: Message<'_>, outbox: &mut dyn Outbox);

    /// The deadline of an open connection's [`Admission`] has come; there is no further one
    /// unless [`Replies::readmit`] grants it.
    fn handle_deadline(&mut self, _id: ConnectionId, _outbox: &mut dyn Outbox) {}

    /// The send queue of a connection has drained, as [`Replies::await_drained`] asked to be told.
    fn handle_drained(&mut self, _id: ConnectionId, _outbox: &mut dyn Outbox) {}

    /// What is asked before each write to a connection.
    fn write_barrier(&self) -> Option<Box<dyn WriteBarrier>> {
        None
    }

    /// When there is something to do that no event asks for; what is past means now.
    fn next_work(&self) -> Option<Timestamp> {
        None
    }

    /// Does a little of it, in much less than a millisecond.
    fn handle_work(&mut self, _outbox: &mut dyn Outbox) {}

    /// The operator has asked for what can be read again to be read again.
    fn handle_reload(&mut self) {}

    /// The connections that it has to a server of its own, if it has one.
    fn uplinks(&mut self) -> Option<&mut dyn Uplinks> {
        None
    }

    /// Whether it can serve: nobody is listened for before.
    fn is_ready(&self) -> bool {
        true
    }

    /// Whether nothing is under way elsewhere that a peer here awaits. While `is_held` more waits and isn't sent, and
    /// what waits doesn't count.
    fn settle(&mut self, _is_held: bool) -> bool {
        true
    }

    /// An admitted connection ends: for `cause`, if the shell closes it on its own account, else for a reason that the
    /// application knows itself, or as its peer has left. [`Application::handle_gone`] follows. Each may be told twice,
    /// the cause first. Of a server that stops no cause is told.
    fn handle_end(&mut self, _id: ConnectionId, _cause: Option<CloseCause>, _now: Timestamp) {}

    /// An admitted connection is no longer open: it gets nothing from now on.
    fn handle_gone(&mut self, id: ConnectionId);

    /// The reason of a Close frame that the shell starts, at most 123 bytes.
    fn close_reason(&self, cause: CloseCause, retry_ms: u64) -> String;

    // Handover.

    /// Writes what is of no connection in particular; `frames` numbers what queues may hold as well.
    ///
    /// # Errors
    /// As those of `state`.
    fn save(&self, _state: &mut State<'_>, _frames: &mut FrameNumbers) -> io::Result<()> {
        Ok(())
    }

    /// Writes what belongs to an admitted connection.
    fn save_connection(&self, _id: ConnectionId, _members: &mut Members<'_>) {}

    /// Takes a record that [`Application::save`] has written, in the same order; others aren't shown.
    ///
    /// # Errors
    /// It can't go on from there: the whole state is of no use.
    fn restore(
        &mut self,
        _kind: u8,
        _fields: &Fields<'_>,
        _frames: &mut Frames,
        _now: Timestamp,
    ) -> Result<(), Malformed> {
        Ok(())
    }

    /// Takes an admitted connection over, or changes nothing.
    ///
    /// # Errors
    /// It can't be taken over: it is dropped, and this application was never told of it.
    fn restore_connection(
        &mut self,
        _id: ConnectionId,
        _peer: Peer,
        _fields: &Fields<'_>,
        _now: Timestamp,
    ) -> Result<(), Malformed> {
        Ok(())
    }
}

/// A state that is being written, wherever it goes.
pub type State<'w> = Outgoing<&'w mut dyn io::Write>;
