//! A listening socket: accepts within a budget, and survives running out of descriptors.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use log::warn;
use mio::net::{TcpListener, TcpStream};
use socket2::{Domain, Protocol, Socket, Type};

use crate::time::Timestamp;

/// Connections that the kernel keeps for us until we accept them.
const BACKLOG: i32 = 4096;

/// How long accepting pauses when there are no descriptors or no memory for it.
const PAUSE: Duration = Duration::from_millis(100);

/// How long the next word about it waits.
const PAUSE_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// A socket that listens, registered for edges.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    /// An edge was seen, and no accept has said since that there are no more.
    is_ready: bool,
    paused_until: Option<Timestamp>,
    pause_logged: Option<Timestamp>,
}

impl Listener {
    /// Listens on `address`.
    ///
    /// # Errors
    /// As the operating system's: the port is in use, not ours to take, the address not here.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            // `[::]` and `0.0.0.0` can then be listened on side by side.
            socket.set_only_v6(true)?;
        }
        // On Linux what is accepted inherits it, which saves a call for each.
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(Self {
            socket: TcpListener::from_std(socket.into()),
            is_ready: false,
            paused_until: None,
            pause_logged: None,
        })
    }

    /// The address that is listened on, with the port that the system chose for port 0.
    ///
    /// # Errors
    /// As the operating system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The socket, to be registered with a poll.
    pub const fn source(&mut self) -> &mut TcpListener {
        &mut self.socket
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
    pub fn accept(&mut self, now: Timestamp) -> Option<(TcpStream, SocketAddr)> {
        loop {
            match self.socket.accept() {
                Ok(accepted) => {
                    self.paused_until = None;
                    return Some(accepted);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.is_ready = false;
                    return None;
                }
                Err(error) if is_exhausted(&error) => {
                    self.paused_until = Some(now + PAUSE);
                    // Connections that come and go would make it a line for each pause.
                    if self
                        .pause_logged
                        .is_none_or(|at| at + PAUSE_LOG_INTERVAL <= now)
                    {
                        self.pause_logged = Some(now);
                        warn!("accepting pauses: {error}");
                    }
                    return None;
                }
                // The connection failed before we came to it, or a signal came: the next.
                Err(_) => {}
            }
        }
    }
}

/// No descriptors (EMFILE, ENFILE) or no memory (ENOBUFS, ENOMEM) for another connection.
fn is_exhausted(error: &io::Error) -> bool {
    const ENOMEM: i32 = 12;
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const ENOBUFS: i32 = 105;
    matches!(
        error.raw_os_error(),
        Some(ENOMEM | ENFILE | EMFILE | ENOBUFS)
    )
}
