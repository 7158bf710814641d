//! A listening socket: accepts within a budget, and survives running out of descriptors.
//!
//! It is watched by level, unlike connections: the next poll tells of a connection that was left, so that none has
//! to be asked for in vain. While nobody can be accepted, it isn't watched.

use std::io;
use std::mem;
use std::net::{self, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix;
use std::path::Path;
use std::time::Duration;

use log::warn;
use mio::net::{TcpListener, UnixListener};
use mio::{Registry, Token};
use rustix::event::epoll::{self, EventData, EventFlags};
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

/// Connections that are accepted at one event at most: one at the first, and twice as many as before at each that
/// comes in the very next poll.
const BURST_MAX: usize = 256;

/// A socket that listens.
#[derive(Debug)]
pub struct Listener {
    socket: ListenerSocket,
    /// The lane that it is.
    lane: Lane,
    /// An event was seen, and neither has an accept said since that there are no more, nor is it left to the next
    /// event to tell of them.
    is_ready: bool,
    /// What the poll knows it by, once it does.
    token: Option<Token>,
    /// Whether the poll tells of connections.
    is_watched: bool,
    /// How many connections are accepted before it is left to the next event whether there are more.
    burst: usize,
    /// The last poll that told of it.
    told_in: u64,
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
            token: None,
            is_watched: false,
            burst: 1,
            told_in: 0,
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

    /// Has `registry` watch it from now on.
    ///
    /// # Errors
    /// As the operating system's.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let data = EventData::new_u64(token.0 as u64);
        epoll::add(registry, self.socket.as_fd(), data, EventFlags::IN)?;
        self.token = Some(token);
        self.is_watched = true;
        Ok(())
    }

    /// Has `registry` watch it no more. To be called before it is closed: where a service manager has the socket too, it
    /// stays watched, and would tell of connections for ever.
    ///
    /// # Errors
    /// As the operating system's.
    pub fn unwatch(&mut self, registry: &Registry) -> io::Result<()> {
        if mem::take(&mut self.is_watched) {
            // To watch for nothing isn't enough: that it has failed would be told at every poll.
            epoll::delete(registry, self.socket.as_fd())?;
        }
        Ok(())
    }

    /// Has `registry` tell of connections, but not as long as those that it has told of can't be accepted.
    ///
    /// # Errors
    /// As the operating system's.
    pub fn update_watch(&mut self, registry: &Registry) -> io::Result<()> {
        match (self.token, self.is_ready) {
            (Some(token), false) if !self.is_watched => self.register(registry, token),
            (_, true) => self.unwatch(registry),
            _ => Ok(()),
        }
    }

    /// The lane that this is.
    #[must_use]
    pub const fn lane(&self) -> Lane {
        self.lane
    }

    /// The poll with this number has told of it.
    pub fn handle_ready(&mut self, poll: u64) {
        let is_next = poll.wrapping_sub(self.told_in) == 1;
        self.burst = match is_next {
            true => BURST_MAX.min(self.burst * 2),
            false => 1,
        };
        self.told_in = poll;
        self.is_ready = true;
    }

    /// How many connections are to be accepted before the next poll tells whether there are more.
    #[must_use]
    pub const fn burst(&self) -> usize {
        self.burst
    }

    /// It is left to the next poll whether there are more.
    pub const fn leave(&mut self) {
        self.is_ready = false;
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
                    self.burst = 1;
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
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket, _) => socket.as_fd(),
        }
    }

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

    use mio::{Events, Poll};

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
        listener.handle_ready(1);
        let now = Timestamp::ZERO;
        assert!(listener.accept(now).is_none());
        assert!(listener.is_paused(now) && !listener.is_paused(now + PAUSE));
        assert!(listener.accept(now + PAUSE).is_none());
    }

    /// How many of the listener's events a poll tells of that doesn't wait.
    fn told(poll: &mut Poll) -> usize {
        let mut events = Events::with_capacity(8);
        poll.poll(&mut events, Some(Duration::ZERO))
            .expect("a poll");
        events.iter().count()
    }

    #[test]
    fn what_is_left_is_told_again_unless_nobody_can_be_accepted() {
        let address = ListenAddress::Tcp(([127, 0, 0, 1], 0).into());
        let listener = Listener::bind(&address, Lane::Clients, &ServerConfig::default());
        let mut listener = listener.expect("a free port");
        let Ok(ListenAddress::Tcp(address)) = listener.local_addr() else {
            unreachable!("it is TCP");
        };
        let mut poll = Poll::new().expect("a poll");
        listener
            .register(poll.registry(), Token(7))
            .expect("registered");
        let _clients = [(); 3].map(|()| net::TcpStream::connect(address).expect("connected"));
        let now = Timestamp::ZERO;
        assert_eq!(told(&mut poll), 1);
        listener.handle_ready(1);
        // There is no room for it.
        listener.update_watch(poll.registry()).expect("changed");
        assert_eq!(told(&mut poll), 0);
        assert!(listener.is_ready(now));
        // Now there is.
        assert!(listener.accept(now).is_some());
        listener.leave();
        listener.update_watch(poll.registry()).expect("changed");
        assert_eq!(told(&mut poll), 1);
        assert!(listener.accept(now).is_some() && listener.accept(now).is_some());
        assert_eq!(told(&mut poll), 0);
        assert!(listener.accept(now).is_none() && !listener.is_ready(now));
    }

    #[test]
    fn a_socket_that_somebody_else_has_too_is_not_watched_when_it_is_closed() {
        let address = ListenAddress::Tcp(([127, 0, 0, 1], 0).into());
        let listener = Listener::bind(&address, Lane::Clients, &ServerConfig::default());
        let mut listener = listener.expect("a free port");
        let Ok(ListenAddress::Tcp(address)) = listener.local_addr() else {
            unreachable!("it is TCP");
        };
        let _of_the_service_manager = listener
            .socket
            .as_fd()
            .try_clone_to_owned()
            .expect("a descriptor");
        let mut poll = Poll::new().expect("a poll");
        let registry = poll.registry();
        listener.register(registry, Token(7)).expect("registered");
        listener.unwatch(registry).expect("it was watched");
        drop(listener);
        let _client = net::TcpStream::connect(address).expect("connected");
        assert_eq!(told(&mut poll), 0);
    }

    #[test]
    fn a_socket_that_has_failed_is_not_told_of_while_nobody_can_be_accepted() {
        let address = ListenAddress::Tcp(([127, 0, 0, 1], 0).into());
        let listener = Listener::bind(&address, Lane::Clients, &ServerConfig::default());
        let mut listener = listener.expect("a free port");
        let mut poll = Poll::new().expect("a poll");
        listener
            .register(poll.registry(), Token(7))
            .expect("registered");
        let socket = listener.socket.as_fd();
        SockRef::from(&socket)
            .shutdown(Shutdown::Both)
            .expect("it listens");
        assert_eq!(told(&mut poll), 1);
        listener.handle_ready(1);
        assert!(listener.accept(Timestamp::ZERO).is_none());
        listener.update_watch(poll.registry()).expect("changed");
        assert_eq!(told(&mut poll), 0);
    }

    #[test]
    fn as_many_are_accepted_as_seem_to_come() {
        let address = ListenAddress::Tcp(([127, 0, 0, 1], 0).into());
        let listener = Listener::bind(&address, Lane::Clients, &ServerConfig::default());
        let mut listener = listener.expect("a free port");
        let mut burst_at = |poll| {
            listener.handle_ready(poll);
            listener.burst()
        };
        assert_eq!([3, 4, 5].map(&mut burst_at), [1, 2, 4]);
        assert_eq!(burst_at(7), 1, "there was a poll without");
        let last = (8..100).map(&mut burst_at).last();
        assert_eq!(last, Some(BURST_MAX));
        assert!(listener.accept(Timestamp::ZERO).is_none());
        listener.handle_ready(100);
        assert_eq!(listener.burst(), 2, "one was asked for in vain");
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
