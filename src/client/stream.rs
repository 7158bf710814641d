//! The socket of a client: TCP or Unix, and blocking. Main type: [`Stream`].

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use super::error::ClientError;
use super::url::{Place, Url};

/// How long connecting and the handshake may take.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection to a server.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Connects to the place of `url`. Reads and writes fail then when they take longer than a handshake may.
    pub(super) fn connect(url: &Url) -> Result<Self, ClientError> {
        let stream = match url.place() {
            Place::Tcp { host, port } => {
                let stream = connect_any(host, *port)?;
                stream.set_nodelay(true)?;
                stream.set_write_timeout(Some(CONNECT_TIMEOUT))?;
                Self::Tcp(stream)
            }
            Place::Unix(path) => Self::Unix(connect_unix(path)?),
        };
        stream.set_read_timeout(Some(CONNECT_TIMEOUT))?;
        Ok(stream)
    }

    pub(super) fn set_read_timeout(&self, timeout: Option<Duration>) -> Result<(), ClientError> {
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(timeout),
            Self::Unix(stream) => stream.set_read_timeout(timeout),
        }
        .map_err(ClientError::from)
    }

    pub(super) fn write_all(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes),
            Self::Unix(stream) => stream.write_all(bytes),
        }
        .map_err(ClientError::from)
    }

    /// As [`Self::read_more`], until a time however little comes at once. Later reads wait no longer than this one.
    pub(super) fn read_until(
        &mut self,
        unused: &mut Vec<u8>,
        deadline: Instant,
    ) -> Result<(), ClientError> {
        let remaining = deadline.saturating_duration_since(Instant::now());
        // A time-out of zero is none.
        if remaining.is_zero() {
            return Err(ClientError::TimedOut);
        }
        self.set_read_timeout(Some(remaining))?;
        self.read_more(unused)
    }

    /// Appends what the server has sent, a byte at least.
    pub(super) fn read_more(&mut self, unused: &mut Vec<u8>) -> Result<(), ClientError> {
        let mut buffer = [0; 16 * 1024];
        let read = match self {
            Self::Tcp(stream) => stream.read(&mut buffer),
            Self::Unix(stream) => stream.read(&mut buffer),
        };
        match read? {
            0 => Err(ClientError::HungUp),
            received => {
                unused.extend_from_slice(&buffer[..received]);
                Ok(())
            }
        }
    }
}

/// Tries every address of the host, an IPv6 address being in brackets; the last error counts.
fn connect_any(host: &str, port: u16) -> io::Result<TcpStream> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Where a server listens and doesn't accept, connecting waits for as long as a write may.
fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_write_timeout(Some(CONNECT_TIMEOUT))?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket.into())
}
