//! Why a client can't go on, in words that say what to do. Main type: [`ClientError`].

use std::fmt;
use std::io;

use crate::ws::error::ProtocolError;
use crate::ws::handshake::ClientHandshakeError;

use super::answer::{Answer, TLS};

/// Why the client can't go on.
#[derive(Debug)]
pub enum ClientError {
    /// The system, or the peer by way of it.
    Io(io::Error),
    /// Nothing came within the time that was given.
    TimedOut,
    /// The peer hung up without a Close.
    HungUp,
    /// The peer hung up before it said anything.
    NoAnswer,
    /// The server does not take us.
    Handshake(ClientHandshakeError),
    /// The server answers something else than the upgrade.
    Refused(Answer),
    /// The server's answer is no HTTP.
    NotHttp,
    /// The server's answer is one of TLS.
    Tls,
    /// The server broke the protocol.
    Protocol(ProtocolError),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => match error.kind() {
                io::ErrorKind::ConnectionRefused => {
                    f.write_str("connection refused (is the server running?)")
                }
                // Of a path: names of hosts that there are not have no number.
                io::ErrorKind::NotFound if error.raw_os_error().is_some() => {
                    f.write_str("there is no such socket (is the server running?)")
                }
                io::ErrorKind::PermissionDenied => {
                    f.write_str("permission denied (--socket-mode of the server says who may)")
                }
                _ => fmt::Display::fmt(error, f),
            },
            Self::TimedOut => f.write_str("no answer in time"),
            Self::HungUp => f.write_str("the server hung up"),
            Self::NoAnswer => f.write_str(
                "the server hung up without an answer (a port that speaks TLS may do so)",
            ),
            Self::Handshake(error) => fmt::Display::fmt(error, f),
            Self::Refused(answer) => fmt::Display::fmt(answer, f),
            Self::NotHttp => f.write_str("the server does not speak HTTP"),
            Self::Tls => f.write_str(TLS),
            Self::Protocol(error) => write!(f, "the server broke the protocol: {error}"),
        }
    }
}

impl std::error::Error for ClientError {}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::TimedOut,
            _ => Self::Io(error),
        }
    }
}

impl From<ProtocolError> for ClientError {
    fn from(error: ProtocolError) -> Self {
        Self::Protocol(error)
    }
}
