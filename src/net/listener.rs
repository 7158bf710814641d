//! A listening socket: accepts within a budget, and survives running out of descriptors.

use std::io;
use std::net::{self, SocketAddr};
use std::os::fd::AsFd;
use std::os::unix;
use std::path::Path;
use std::time::Duration;

use log::warn;
use mio::event::Source;
use mio::net::{TcpListener, UnixListener};
use socket2::{Domain, Protocol, SockRef, Socket as Unbound, Type};

use crate::application::{Lane, Peer, PeerAddress};
use crate::config::{ListenAddress, ServerConfig};
use crate::time::Timestamp;

use super::socket::Socket;
use super::socket_file::SocketFile;

mod saved;

pub use saved::saved_address;

/// Connections that the kernel keeps for us until we accept them.
const BACKLOG: i32 = 4096;

/// Bytes that a socket takes beyond those that are on their way (`TCP_NOTSENT_LOWAT`, tcp(7)). Without
/// a bound the kernel keeps megabytes for each client that doesn't read, which no limit of ours
/// counts, and a Ping waits behind them.
const NOT_SENT_BYTES_MAX: u32 = 128 * 1024;

/// How long accepting pauses when there are no descriptors or no memory for it, or it fails for
/// what else may last.
const PAUSE: Duration = Duration::from_millis(100);

/// How long the next word about it waits.
const PAUSE_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// A socket that listens, registered for edges.
#[derive(Debug)]
pub struct Listener {
    socket: ListenerSocket,
    /// The lane that it is.
    lane: Lane,
    /// An edge was seen, and no accept has said since that there are no more.
    is_ready: bool,
    paused_until: Option<Timestamp>,
    pause_logged: Option<Timestamp>,
}

#[derive(Debug)]
enum ListenerSocket {
    Tcp(TcpListener),
    /// With its file, if that is ours to remove.
    Unix(UnixListener, Option<SocketFile>),
}

impl Listener {
    /// Listens on `address`, in the way that `config` says. A Unix socket gets its permissions whatever the umask.
    ///
    /// # Errors
    /// As the operating system's: the address is in use, not ours to take, not here.
    pub fn bind(address: &ListenAddress, lane: Lane, config: &ServerConfig) -> io::Result<Self> {
        let socket = match address {
            ListenAddress::Tcp(address) => {
                ListenerSocket::Tcp(bind_tcp(*address, config.reuse_port)?)
            }
            ListenAddress::Unix(path) => {
                let (socket, file) = SocketFile::listen(path, config.socket_mode, BACKLOG)?;
                ListenerSocket::Unix(UnixListener::from_std(socket), Some(file))
            }
        };
        Ok(Self::new(socket, lane))
    }

    /// Takes over a TCP socket that listens already.
    ///
    /// # Errors
    /// It doesn't listen.
    pub fn from_std_tcp(socket: net::TcpListener, lane: Lane) -> io::Result<Self> {
        check_listening(&socket)?;
        SockRef::from(&socket).set_tcp_nodelay(true)?;
        SockRef::from(&socket).set_tcp_notsent_lowat(NOT_SENT_BYTES_MAX)?;
        socket.set_nonblocking(true)?;
        let socket = ListenerSocket::Tcp(TcpListener::from_std(socket));
        Ok(Self::new(socket, lane))
    }

    /// Takes over a Unix socket that listens already; its file stays when it is closed.
    ///
    /// # Errors
    /// It doesn't listen.
    pub fn from_std_unix(socket: unix::net::UnixListener, lane: Lane) -> io::Result<Self> {
        check_listening(&socket)?;
        socket.set_nonblocking(true)?;
        let socket = ListenerSocket::Unix(UnixListener::from_std(socket), None);
        Ok(Self::new(socket, lane))
    }

    const fn new(socket: ListenerSocket, lane: Lane) -> Self {
        Self {
            socket,
            lane,
            is_ready: false,
            paused_until: None,
            pause_logged: None,
        }
    }

    /// The address that is listened on, with the port that the system chose for port 0.
    ///
    /// # Errors
    /// As the operating system's.
    pub fn local_addr(&self) -> io::Result<ListenAddress> {
        match &self.socket {
            ListenerSocket::Tcp(socket) => socket.local_addr().map(ListenAddress::Tcp),
            ListenerSocket::Unix(_, Some(file)) => Ok(ListenAddress::Unix(file.path().to_owned())),
            ListenerSocket::Unix(socket, None) => {
                let address = socket.local_addr()?;
                // One without a path has no name that could be written.
                let path = address.as_pathname().map(Path::to_owned);
                Ok(ListenAddress::Unix(path.unwrap_or_default()))
            }
        }
    }

    /// The socket, to be registered with a poll.
    pub const fn source(&mut self) -> &mut dyn Source {
        match &mut self.socket {
            ListenerSocket::Tcp(socket) => socket,
            ListenerSocket::Unix(socket, _) => socket,
        }
    }

    /// The lane that this is.
    #[must_use]
    pub const fn lane(&self) -> Lane {
        self.lane
    }

    /// An edge was seen.
    pub const fn handle_ready(&mut self) {
        self.is_ready = true;
    }

    /// When accepting goes on, if it is paused.
    #[must_use]
    pub const fn paused_until(&self) -> Option<Timestamp> {
        self.paused_until
    }

    /// Whether accepting is paused at `now`.
    #[must_use]
    pub fn is_paused(&self, now: Timestamp) -> bool {
        self.paused_until.is_some_and(|until| until > now)
    }

    /// Whether [`Listener::accept`] may have something at `now`.
    #[must_use]
    pub fn is_ready(&self, now: Timestamp) -> bool {
        self.is_ready && !self.is_paused(now)
    }

    /// The next connection, or `None` when there is none or accepting has to pause.
    pub fn accept(&mut self, now: Timestamp) -> Option<(Socket, Peer)> {
        loop {
            match self.socket.accept() {
                Ok((socket, address)) => {
                    self.paused_until = None;
                    let lane = self.lane;
                    return Some((socket, Peer { address, lane }));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.is_ready = false;
                    return None;
                }
                // The connection failed before we came to it, or a signal came: the next.
                Err(error) if is_passing(&error) => {}
                Err(error) => {
                    self.pause(now, &error);
                    return None;
                }
            }
        }
    }

    /// No descriptors, no memory, or what else may last: to go on at once would be to go round
    /// in circles.
    fn pause(&mut self, now: Timestamp, error: &io::Error) {
        self.paused_until = Some(now + PAUSE);
        // Connections that come and go would make it a line for each pause.
        let last = self.pause_logged;
        if last.is_none_or(|at| at + PAUSE_LOG_INTERVAL <= now) {
            self.pause_logged = Some(now);
            warn!("accepting pauses: {error}");
        }
    }
}

impl ListenerSocket {
    fn accept(&self) -> io::Result<(Socket, PeerAddress)> {
        match self {
            Self::Tcp(socket) => {
                let (stream, address) = socket.accept()?;
                Ok((Socket::Tcp(stream), PeerAddress::Ip(address)))
            }
            Self::Unix(socket, _) => {
                let (stream, _) = socket.accept()?;
                Ok((Socket::Unix(stream), PeerAddress::Unix))
            }
        }
    }
}

/// To accept from a socket that doesn't listen would fail for ever.
fn check_listening(socket: &impl AsFd) -> io::Result<()> {
    if SockRef::from(socket).is_listener()? {
        return Ok(());
    }
    let why = "the socket does not listen";
    Err(io::Error::new(io::ErrorKind::InvalidInput, why))
}

fn bind_tcp(address: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = Unbound::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        // `[::]` and `0.0.0.0` can then be listened on side by side.
        socket.set_only_v6(true)?;
    }
    // On Linux what is accepted inherits it, which saves a call for each.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(NOT_SENT_BYTES_MAX)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// Whether it was about the one connection that was to be accepted, or about nothing.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionReset, HostUnreachable, Interrupted, NetworkDown,
        NetworkUnreachable,
    };
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkDown
            | NetworkUnreachable
    )
}

#[cfg(test)]
mod tests {
    use std::net::Shutdown;

    use super::*;

    #[test]
    fn what_fails_for_ever_is_tried_now_and_then() {
        let address = ListenAddress::Tcp(([127, 0, 0, 1], 0).into());
        let listener = Listener::bind(&address, Lane::Clients, &ServerConfig::default());
        let mut listener = listener.expect("a free port");
        let ListenerSocket::Tcp(socket) = &listener.socket else {
            unreachable!("it is TCP");
        };
        SockRef::from(socket)
            .shutdown(Shutdown::Both)
            .expect("it listens");
        listener.handle_ready();
        let now = Timestamp::ZERO;
        assert!(listener.accept(now).is_none());
        assert!(listener.is_paused(now) && !listener.is_paused(now + PAUSE));
        assert!(listener.accept(now + PAUSE).is_none());
    }

    #[test]
    fn several_listen_on_one_port_only_if_all_want_to() {
        let bind = |address: &ListenAddress, reuse_port| {
            let config = ServerConfig {
                reuse_port,
                ..ServerConfig::default()
            };
            Listener::bind(address, Lane::Clients, &config)
        };
        let any = ListenAddress::Tcp(([127, 0, 0, 1], 0).into());
        let first = bind(&any, true).expect("a free port");
        let address = first.local_addr().expect("an address");
        let second = bind(&address, true).expect("the first shares it");
        assert_eq!(second.local_addr().expect("an address"), address);
        let refused = bind(&address, false).expect_err("this one doesn't");
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        let alone = bind(&any, false).expect("a free port");
        let address = alone.local_addr().expect("an address");
        let refused = bind(&address, true).expect_err("the first doesn't");
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
    }
}
