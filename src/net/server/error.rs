//! Why a server can't start, or not go on: in words that say what to do. Main types: [`StartError`] and [`RunError`].

use std::fmt;
use std::io;

use crate::config::ListenAddress;
use crate::handover::StateError;

/// Why a server can't start.
#[derive(Debug)]
pub enum StartError {
    /// An address can't be listened on.
    Listen(ListenAddress, io::Error),
    /// The system has no poll or no signals for us.
    System(io::Error),
    /// What the program before has left is of no use.
    State(StateError),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(address, error) => {
                write!(f, "cannot listen on {address}: ")?;
                let is_unix = matches!(address, ListenAddress::Unix(_));
                f.write_str(match (error.kind(), is_unix) {
                    (io::ErrorKind::AddrInUse, false) => {
                        "the port is in use: stop what listens there, or choose another one"
                    }
                    (io::ErrorKind::AddrInUse, true) => {
                        "it is in use: stop the server that listens there, or choose another path"
                    }
                    (io::ErrorKind::AddrNotAvailable, _) => {
                        "this machine does not have the address"
                    }
                    (io::ErrorKind::PermissionDenied, false) => {
                        "permission denied (ports below 1024 need CAP_NET_BIND_SERVICE)"
                    }
                    (io::ErrorKind::PermissionDenied, true) => {
                        "permission denied: this user must be allowed to write into its folder"
                    }
                    (io::ErrorKind::NotFound, true) => "its folder is missing: create it",
                    _ => return fmt::Display::fmt(error, f),
                })
            }
            Self::System(error) => write!(f, "cannot set up the event loop: {error}"),
            Self::State(error) => write!(f, "cannot take over: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

/// Why a server ends that nobody has stopped.
#[derive(Debug)]
pub enum RunError {
    /// It was ready to listen, and couldn't.
    Start(StartError),
    /// The poll fails, which is the system's fault or our bug.
    Loop(io::Error),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(error) => fmt::Display::fmt(error, f),
            Self::Loop(error) => write!(f, "the event loop failed: {error}"),
        }
    }
}

impl std::error::Error for RunError {}

impl From<StartError> for RunError {
    fn from(error: StartError) -> Self {
        Self::Start(error)
    }
}

impl From<io::Error> for RunError {
    fn from(error: io::Error) -> Self {
        Self::Loop(error)
    }
}
