//! What carries the product's connections: TCP, or a Unix socket on the publishers' lane.

use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};

use super::transport::{Received, Transport};

/// A connected socket.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket of this host.
    Unix(UnixStream),
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
        }
    }

    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    #[inline]
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write_vectored(slices),
            Self::Unix(stream) => stream.write_vectored(slices),
        }
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
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
        }
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.deregister(registry),
            Self::Unix(stream) => stream.deregister(registry),
        }
    }
}
