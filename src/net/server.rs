//! The loop itself: one poll, its readiness, the clock.
//!
//! Every iteration takes in all input that is ready and looks again before it writes to
//! subscribers, so that a burst of notifications, from however many publishers, costs each
//! subscriber one write. Long flushes are cut into slices, between which input is taken in:
//! a fan-out to thousands delays nobody's handshake.

use std::fmt;
use std::io;
use std::mem;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use log::{debug, info};
use mio::{Events, Interest, Poll, Token};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;

use crate::application::{Application, Lane};
use crate::config::{ListenAddress, ServerConfig};
use crate::id::ConnectionId;
use crate::time::{Clock, Timestamp};

use super::engine::{Engine, Readiness};
use super::listener::Listener;
use super::socket::Socket;

/// Events that one poll may bring.
const EVENTS_MAX: usize = 1024;

/// Connections that one listener accepts before others have their turn, and those that it accepts
/// however little time there is.
const ACCEPTS_A_TURN_MAX: usize = 256;
const ACCEPTS_A_TURN_MIN: usize = 16;

/// How often the loop looks for more input before it writes deliveries, and for how long.
const GATHER_ROUNDS_MAX: usize = 16;
const GATHER_TIME_MAX: Duration = Duration::from_micros(300);

/// How often the loop looks for input that came before it was told to stop.
const LAST_ROUNDS_MAX: usize = 64;

/// Connections written between two looks at the clock, and the time until input is taken in.
const FLUSHES_A_CHUNK: usize = 8;
const FLUSH_TIME_MAX: Duration = Duration::from_millis(1);

/// Tokens that no connection can have: its slot would be out of reach.
const SIGNALS: Token = Token(u32::MAX as usize);
const FIRST_LISTENER: usize = u32::MAX as usize - 1;

/// Microseconds since the server was made.
#[derive(Clone, Copy, Debug)]
pub struct MonotonicClock(Instant);

impl Clock for MonotonicClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.elapsed().as_micros() as u64)
    }

    fn unix_now(&self) -> Duration {
        // A clock before 1970 is wrong by so much that every date is in its future.
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
    }
}

/// Why a server can't start.
#[derive(Debug)]
pub enum StartError {
    /// An address can't be listened on.
    Listen(ListenAddress, io::Error),
    /// The system has no poll or no signals for us.
    System(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(address, error) => {
                write!(f, "cannot listen on {address}: ")?;
                match error.kind() {
                    io::ErrorKind::AddrInUse => match address {
                        ListenAddress::Tcp(_) => f.write_str("the port is in use"),
                        ListenAddress::Unix(_) => f.write_str("it is in use"),
                    },
                    io::ErrorKind::AddrNotAvailable => {
                        f.write_str("this machine does not have the address")
                    }
                    io::ErrorKind::PermissionDenied => f.write_str(
                        "permission denied (ports below 1024 need CAP_NET_BIND_SERVICE)",
                    ),
                    _ => write!(f, "{error}"),
                }
            }
            Self::System(error) => write!(f, "cannot set up the event loop: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

/// Where a server is in its life, for whoever watches over it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// It serves.
    Serving,
    /// It reads again what it can; it serves afterwards.
    Reloading,
    /// It lets nobody in any more, and ends soon.
    Stopping,
}

/// How a server came to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stopped {
    /// A signal asked for it, and everybody was told.
    Drained,
    /// A second signal, this one, ended it at once.
    Forced(i32),
}

/// Sockets and engine.
pub struct Server<A> {
    poll: Poll,
    signals: Signals,
    listeners: Vec<Listener>,
    engine: Engine<Socket, A, MonotonicClock>,
    drain: Duration,
    /// When the last connection must be gone, once the server is stopping.
    drained_by: Option<Timestamp>,
    /// When publishers are told that the server stops, if not all clients have been by then.
    publishers_told_by: Option<Timestamp>,
    is_stop_asked: bool,
    is_reload_asked: bool,
    forced_by: Option<i32>,
}

impl<A: Application> Server<A> {
    /// Listens on all addresses of the configuration. From here on SIGTERM, SIGINT and SIGHUP
    /// are the server's. `seed` is the jitter's.
    ///
    /// # Errors
    /// What the system doesn't grant.
    pub fn bind(config: &ServerConfig, application: A, seed: u64) -> Result<Self, StartError> {
        Self::bind_beside(Vec::new(), config, application, seed)
    }

    /// The same, for a server that was given `listeners` already.
    ///
    /// # Errors
    /// What the system doesn't grant.
    pub fn bind_beside(
        mut listeners: Vec<Listener>,
        config: &ServerConfig,
        application: A,
        seed: u64,
    ) -> Result<Self, StartError> {
        let poll = Poll::new()?;
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
        poll.registry()
            .register(&mut signals, SIGNALS, Interest::READABLE)?;
        // Publishers first: they are let in before the crowd is.
        let publishers = config.publish_listen.iter().cloned();
        let publishers = publishers.map(|address| (address, Lane::Publishers));
        let clients = config.listen.iter().copied().map(ListenAddress::Tcp);
        let clients = clients.map(|address| (address, Lane::Clients));
        for (address, lane) in publishers.chain(clients) {
            let listener = Listener::bind(&address, lane, config.socket_mode)
                .map_err(|error| StartError::Listen(address, error))?;
            listeners.push(listener);
        }
        for (number, listener) in listeners.iter_mut().enumerate() {
            let token = Token(FIRST_LISTENER - number);
            poll.registry()
                .register(listener.source(), token, Interest::READABLE)?;
        }
        let clock = MonotonicClock(Instant::now());
        Ok(Self {
            poll,
            signals,
            listeners,
            engine: Engine::new(application, clock, config.limits, config.timeouts, seed),
            drain: config.drain,
            drained_by: None,
            publishers_told_by: None,
            is_stop_asked: false,
            is_reload_asked: false,
            forced_by: None,
        })
    }

    /// The addresses that are listened on, with what for.
    ///
    /// # Errors
    /// As the operating system's.
    pub fn local_addrs(&self) -> io::Result<Vec<(ListenAddress, Lane)>> {
        let listeners = self.listeners.iter();
        listeners
            .map(|listener| Ok((listener.local_addr()?, listener.lane())))
            .collect()
    }

    /// Serves until a signal stops it, and tells `observe` of each phase that begins.
    ///
    /// # Errors
    /// A poll that fails, which is the system's fault or our bug.
    pub fn run(&mut self, mut observe: impl FnMut(Phase)) -> io::Result<Stopped> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        observe(Phase::Serving);
        loop {
            let timeout = self.poll_timeout();
            self.poll(&mut events, timeout)?;
            let began = self.engine.now();
            self.engine.begin_turn(began);
            self.take_input(&events, began);
            self.gather(&mut events)?;
            if mem::take(&mut self.is_reload_asked) && !self.is_stop_asked {
                observe(Phase::Reloading);
                self.engine.reload();
                observe(Phase::Serving);
            }
            if self.is_stop_asked && self.drained_by.is_none() {
                observe(Phase::Stopping);
                self.take_all_input(&mut events)?;
                self.stop(self.engine.now());
            }
            self.flush();
            let now = self.engine.now();
            self.tell_publishers(now);
            self.engine.shed(now);
            self.engine.handle_timers(now);
            for listener in &self.listeners {
                if listener.is_ready(now) {
                    self.engine.make_room(listener.lane(), now);
                }
            }
            self.engine.reap(now);
            self.engine.end_turn();
            if let Some(signal) = self.forced_by {
                return Ok(Stopped::Forced(signal));
            }
            if let Some(drained_by) = self.drained_by
                && (self.engine.connections_len() == 0 || drained_by <= now)
            {
                info!("stopped; {:?}", self.engine.metrics());
                return Ok(Stopped::Drained);
            }
        }
    }

    /// How long the poll may wait: not at all while there is work, else until the next
    /// deadline.
    fn poll_timeout(&self) -> Option<Duration> {
        let now = self.engine.now();
        let can_accept = self
            .listeners
            .iter()
            .any(|listener| listener.is_ready(now) && self.engine.has_room(listener.lane()));
        if can_accept || self.engine.has_ready() || self.engine.has_deliveries() {
            return Some(Duration::ZERO);
        }
        let pauses = self
            .listeners
            .iter()
            .filter(|listener| listener.is_paused(now))
            .filter_map(Listener::paused_until);
        let deadlines = self
            .engine
            .next_deadline()
            .into_iter()
            .chain(self.engine.next_trim())
            .chain(self.drained_by)
            .chain(self.publishers_told_by);
        let next = pauses.chain(deadlines).min()?;
        // Rounded up to whole milliseconds, which is what epoll counts in: never too early.
        let wait = next - now;
        Some(Duration::from_millis(wait.as_micros().div_ceil(1000) as u64))
    }

    /// Waits for events. A signal that comes meanwhile is one of them.
    fn poll(&mut self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        match self.poll.poll(events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                events.clear();
                Ok(())
            }
            polled => polled,
        }
    }

    /// Takes in what is ready: connections, input, signals. Answers are written, deliveries only
    /// queued. Says whether anything came.
    fn take_input(&mut self, events: &Events, now: Timestamp) -> bool {
        let is_reading_on = self.engine.has_ready();
        for event in events.iter() {
            match event.token() {
                SIGNALS => self.handle_signals(),
                Token(token)
                    if token <= FIRST_LISTENER && FIRST_LISTENER - token < self.listeners.len() =>
                {
                    self.listeners[FIRST_LISTENER - token].handle_ready();
                }
                token => {
                    let readiness = Readiness {
                        is_readable: event.is_readable(),
                        is_writable: event.is_writable(),
                        is_ending: event.is_read_closed() || event.is_error(),
                        is_failed: event.is_error(),
                        is_urgent: event.is_priority(),
                    };
                    self.engine
                        .handle_ready(connection_of(token), readiness, now);
                }
            }
        }
        self.accept(now);
        self.engine.read_again(now);
        self.engine.flush_replies(now);
        is_reading_on || !events.is_empty()
    }

    /// Looks for more input before deliveries are written, within bounds.
    fn gather(&mut self, events: &mut Events) -> io::Result<()> {
        if !self.engine.has_deliveries() {
            return Ok(());
        }
        let start = self.engine.now();
        for _ in 0..GATHER_ROUNDS_MAX {
            self.poll(events, Some(Duration::ZERO))?;
            let now = self.engine.now();
            if !self.take_input(events, now)
                || now - start >= GATHER_TIME_MAX
                || self.engine.is_input_over(now)
            {
                break;
            }
        }
        Ok(())
    }

    /// Takes in what publishers had sent before the server was told to stop, those among them
    /// that have yet to be accepted.
    fn take_all_input(&mut self, events: &mut Events) -> io::Result<()> {
        for _ in 0..LAST_ROUNDS_MAX {
            self.poll(events, Some(Duration::ZERO))?;
            let now = self.engine.now();
            self.engine.begin_turn(now);
            if !self.take_input(events, now) {
                break;
            }
        }
        Ok(())
    }

    /// Writes deliveries for a slice of time; what is left comes in the next iteration.
    fn flush(&mut self) {
        let start = self.engine.now();
        let mut now = start;
        while self.engine.has_deliveries() && now - start < FLUSH_TIME_MAX {
            self.engine.flush_deliveries(FLUSHES_A_CHUNK, now);
            now = self.engine.now();
        }
    }

    fn accept(&mut self, now: Timestamp) {
        for listener in &mut self.listeners {
            for accepted in 0..ACCEPTS_A_TURN_MAX {
                if accepted >= ACCEPTS_A_TURN_MIN && self.engine.is_input_over(self.engine.now()) {
                    break;
                }
                if !listener.is_ready(now) || !self.engine.has_room(listener.lane()) {
                    break;
                }
                let Some((socket, peer)) = listener.accept(now) else {
                    if listener.is_paused(now) {
                        self.engine.count_accept_pause();
                    }
                    break;
                };
                let id = self.engine.insert(socket, peer, now);
                let Some(socket) = self.engine.transport_mut(id) else {
                    continue;
                };
                let interest = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
                if let Err(error) = self
                    .poll
                    .registry()
                    .register(socket, token_of(id), interest)
                {
                    debug!(connection:% = id, peer:% = peer, reason:% = error; "{peer}: not registered: {error}");
                    self.engine.discard(id);
                }
            }
        }
    }

    fn handle_signals(&mut self) {
        for signal in self.signals.pending() {
            if signal == SIGHUP {
                self.is_reload_asked = true;
            } else if mem::replace(&mut self.is_stop_asked, true) {
                self.forced_by = Some(signal);
            }
        }
    }

    /// Begins to stop: clients that are connected are told, who comes finds nobody.
    fn stop(&mut self, now: Timestamp) {
        info!(
            "stopping: {} connections are told",
            self.engine.connections_len()
        );
        self.drained_by = Some(now + self.drain);
        self.publishers_told_by = Some(now + self.drain / 2);
        self.listeners.clear();
        self.engine.shut_down(now);
    }

    /// Tells publishers that the server stops when the clients have been told: until then, what
    /// they send is answered. One client that takes nothing doesn't keep them for ever.
    fn tell_publishers(&mut self, now: Timestamp) {
        if let Some(told_by) = self.publishers_told_by
            && (told_by <= now || self.engine.are_clients_told())
        {
            self.publishers_told_by = None;
            self.engine.shut_down_publishers(now);
        }
    }
}

/// The token of a connection: its serial above its slot.
const fn token_of(id: ConnectionId) -> Token {
    Token(((id.serial as usize) << 32) | id.index as usize)
}

const fn connection_of(token: Token) -> ConnectionId {
    ConnectionId {
        index: token.0 as u32,
        serial: (token.0 >> 32) as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_name_connections() {
        for id in [(0, 0), (1, 7), (0xffff, u32::MAX), (123_456, 1 << 31)] {
            let id = ConnectionId {
                index: id.0,
                serial: id.1,
            };
            assert_eq!(connection_of(token_of(id)), id);
            assert!(token_of(id) != SIGNALS && token_of(id).0 != FIRST_LISTENER);
        }
    }
}
