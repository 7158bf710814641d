//! What carries the product's connections: TCP, or a Unix socket on the publishers' lane; and those that it has to a server
//! of its own.

use std::io::{self, IoSlice, Read, Write};
use std::net::{self, Shutdown};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix;
use std::time::Duration;

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use rustix::net::{AddressFamily, sockopt};
use socket2::{SockRef, TcpKeepalive};

use crate::application::Endpoint;

use super::transport::{Received, Transport};

/// How long a server may be silent before the kernel asks whether it is there, and between two such questions.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// A connected socket.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket of this host.
    Unix(UnixStream),
    /// That of a program which only tries whether it could go on: nothing can be done with it.
    Absent,
}

impl Socket {
    /// Begins to connect to `endpoint`, without waiting; [`Socket::is_connected`] tells what came of it, once the socket is
    /// writable.
    ///
    /// # Errors
    /// As the operating system's; also [`io::ErrorKind::WouldBlock`] where the backlog of a Unix socket is full.
    pub fn connect(endpoint: &Endpoint) -> io::Result<Self> {
        match endpoint {
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect(*address)?;
                stream.set_nodelay(true)?;
                let keepalive = TcpKeepalive::new()
                    .with_time(KEEPALIVE)
                    .with_interval(KEEPALIVE);
                SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
                Ok(Self::Tcp(stream))
            }
            Endpoint::Unix(path) => UnixStream::connect(path).map(Self::Unix),
        }
    }

    /// Whether it has a peer: not while it is still connecting.
    ///
    /// # Errors
    /// Why it couldn't be connected, or has ended since.
    pub fn is_connected(&self) -> io::Result<bool> {
        let (error, peer) = match self {
            Self::Tcp(stream) => (stream.take_error()?, stream.peer_addr().map(drop)),
            Self::Unix(stream) => (stream.take_error()?, stream.peer_addr().map(drop)),
            Self::Absent => return absent(),
        };
        match (error, peer) {
            (Some(error), _) => Err(error),
            (None, Ok(())) => Ok(true),
            (None, Err(error)) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            (None, Err(error)) => Err(error),
        }
    }

    /// The socket that an earlier program has had.
    #[must_use]
    pub fn inherited(descriptor: OwnedFd) -> Self {
        match sockopt::socket_domain(&descriptor) {
            Ok(AddressFamily::UNIX) => {
                let stream = unix::net::UnixStream::from(descriptor);
                Self::Unix(UnixStream::from_std(stream))
            }
            // What is no socket at all fails with what is done first.
            _ => Self::Tcp(TcpStream::from_std(net::TcpStream::from(descriptor))),
        }
    }

    /// What a successor is given.
    #[must_use]
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Tcp(stream) => Some(stream.as_fd()),
            Self::Unix(stream) => Some(stream.as_fd()),
            Self::Absent => None,
        }
    }
}

fn absent<T>() -> io::Result<T> {
    Err(io::ErrorKind::NotConnected.into())
}

#[cfg(test)]
impl Socket {
    /// Two that are connected with each other.
    pub(super) fn pair() -> [Self; 2] {
        let (one, other) = UnixStream::pair().expect("a pair of sockets");
        [one, other].map(Self::Unix)
    }
}

impl Transport for Socket {
    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        match self {
            Self::Tcp(stream) => {
                let len = stream.read(buffer)?;
                let is_drained = len < buffer.len();
                Ok(Received { len, is_drained })
            }
            Self::Unix(stream) => Ok(Received {
                len: stream.read(buffer)?,
                // A read ends at a descriptor that was sent along (unix(7)), whatever lies behind it.
                is_drained: false,
            }),
            Self::Absent => absent(),
        }
    }

    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
            Self::Absent => absent(),
        }
    }

    #[inline]
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write_vectored(slices),
            Self::Unix(stream) => stream.write_vectored(slices),
            Self::Absent => absent(),
        }
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
            Self::Absent => absent(),
        }
    }
}

impl Source for Socket {
    fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.register(registry, token, interests),
            Self::Unix(stream) => stream.register(registry, token, interests),
            Self::Absent => absent(),
        }
    }

    fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.reregister(registry, token, interests),
            Self::Unix(stream) => stream.reregister(registry, token, interests),
            Self::Absent => absent(),
        }
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.deregister(registry),
            Self::Unix(stream) => stream.deregister(registry),
            Self::Absent => absent(),
        }
    }
}
