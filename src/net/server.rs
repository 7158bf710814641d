//! The loop itself: one poll, its readiness, the signals, the clock. What an iteration does, and in which
//! order, is [`Engine::run_iteration`]. Main type: [`Server`].

use std::io;
use std::mem;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use log::{debug, info, warn};
use mio::{Events, Interest, Poll, Token};
use rustix::time::{ClockId, clock_gettime};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR2};
use signal_hook_mio::v1_0::Signals;

use crate::application::{Application, Lane};
use crate::config::{ListenAddress, ServerConfig};
use crate::count::Count;
use crate::handover::program::Program;
use crate::handover::signals;
use crate::id::ConnectionId;
use crate::time::{Clock, Timestamp};

use self::handover::Handover;
use self::uplinks::UplinkSockets;
use super::engine::{Driver, Engine, Readiness, Step};
use super::listener::Listener;
use super::socket::Socket;

mod error;
mod handover;
mod inherited;
#[cfg(test)]
mod tests;
mod uplinks;

pub use error::{RunError, StartError};
pub use handover::{Host, answer};
pub use inherited::Inherited;

/// Events that one poll may bring.
const EVENTS_MAX: usize = 1024;

/// Connections that one listener accepts however little time there is.
const ACCEPTS_A_TURN_MIN: usize = 16;

/// How often the loop looks for input that came before it was told to stop.
const LAST_ROUNDS_MAX: usize = 64;

/// What it takes from its beginning.
const SIGNALS_TAKEN: [i32; 3] = [SIGTERM, SIGINT, SIGHUP];

/// Tokens that no connection can have: its slot would be out of reach.
const SIGNALS: Token = Token(u32::MAX as usize);
const FIRST_LISTENER: usize = u32::MAX as usize - 3;

/// What connections are registered for: edges of input. Most take whatever is written to them; those that don't are
/// registered for both.
const INPUT_INTEREST: Interest = Interest::READABLE.add(Interest::PRIORITY);
const BOTH_INTERESTS: Interest = INPUT_INTEREST.add(Interest::WRITABLE);

/// What is taken for granted of a connection that was just accepted.
const FIRST_READINESS: Readiness = Readiness {
    is_readable: true,
    is_writable: false,
    is_ending: false,
    is_failed: false,
    is_urgent: false,
};

/// The system's monotonic clock, which goes on across `exec`.
fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    // It began at the boot.
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

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

/// Where a server is in its life, as a service manager is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// It listens nowhere yet, since its application isn't ready.
    Waiting,
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
    sources: Sources,
    engine: Engine<Socket, A, MonotonicClock>,
    handover: Handover,
}

/// What events come from.
struct Sources {
    poll: Poll,
    events: Events,
    /// Whether the events are those of a poll that has waited, which nobody has looked at.
    has_polled: bool,
    /// How many polls there have been; wraps.
    polls: u64,
    signals: Signals,
    /// Those that it was given alone, unwatched, until it listens.
    listeners: Vec<Listener>,
    /// Where it is yet to listen, once its application is ready.
    unbound: Option<Box<ServerConfig>>,
    /// None if the application has none.
    uplinks: Option<Box<UplinkSockets>>,
    drain: Duration,
    is_stop_asked: bool,
    /// Whether it has begun to stop.
    is_stopping: bool,
    /// Until when the engine isn't told so, if what peers await elsewhere takes so long.
    settling_until: Option<Timestamp>,
    is_reload_asked: bool,
    is_handover_asked: bool,
    forced_by: Option<i32>,
}

impl<A: Application> Server<A> {
    /// Listens on all addresses of the configuration, or will do so when `application` is ready. From here on SIGTERM,
    /// SIGINT and SIGHUP are the server's. `seed` is the jitter's.
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
        listeners: Vec<Listener>,
        config: &ServerConfig,
        application: A,
        seed: u64,
    ) -> Result<Self, StartError> {
        let mut sources = Sources::new(listeners, config, &SIGNALS_TAKEN)?;
        sources.listen_if(application.is_ready())?;
        let clock = MonotonicClock(Instant::now());
        let engine = Engine::new(application, clock, config.limits, config.timeouts, seed);
        Ok(Self::of(sources, engine))
    }

    fn of(mut sources: Sources, mut engine: Engine<Socket, A, MonotonicClock>) -> Self {
        let has_uplinks = engine.uplinks().is_some();
        sources.uplinks = has_uplinks.then(|| Box::new(UplinkSockets::new()));
        Self {
            sources,
            engine,
            handover: Handover::default(),
        }
    }

    /// Has SIGUSR2 make the server become `program`, in the same process and with its connections.
    ///
    /// # Errors
    /// The system has no signals for us.
    pub fn with_program(mut self, program: Program) -> Result<Self, StartError> {
        self.sources.signals.add_signal(SIGUSR2)?;
        self.handover.program = Some(program);
        Ok(self)
    }

    /// The addresses that are listened on, with what for.
    ///
    /// # Errors
    /// As the operating system's.
    pub fn local_addrs(&self) -> io::Result<Vec<(ListenAddress, Lane)>> {
        let listeners = self.sources.listeners.iter();
        listeners
            .map(|listener| Ok((listener.local_addr()?, listener.lane())))
            .collect()
    }

    /// Serves until a signal stops it, or for ever as another program; tells `host` of each phase that begins.
    ///
    /// # Errors
    /// It can't listen, or go on.
    pub fn run(&mut self, host: &mut dyn Host) -> Result<Stopped, RunError> {
        let phase = if self.sources.is_listening() {
            host.listening(&self.local_addrs()?);
            Phase::Serving
        } else {
            Phase::Waiting
        };
        self.arrive();
        host.enter(phase);
        // Those that came while there were no handlers come now.
        signals::unblock()?;
        loop {
            if let Some(stopped) = self.turn(host)? {
                return Ok(stopped);
            }
        }
    }

    /// Waits for what is next, and does it. Says how the server has come to its end, if it has.
    fn turn(&mut self, host: &mut dyn Host) -> Result<Option<Stopped>, RunError> {
        let Self {
            sources,
            engine,
            handover,
        } = self;
        let timeout = sources.poll_timeout(engine, handover);
        sources.poll(timeout)?;
        sources.has_polled = true;
        engine.run_iteration(&mut Hosted {
            sources,
            handover,
            host,
        })?;
        sources.watch_writes(engine);
        if let Some(signal) = sources.forced_by {
            return Ok(Some(Stopped::Forced(signal)));
        }
        if engine.is_drained() {
            let metrics = engine.metrics();
            let (connections, upgrades) = (metrics.connections_accepted, metrics.upgrades);
            let delivered = metrics.deliveries;
            info!(
                connections, upgrades, delivered;
                "stopped: {}, {}, {} since the start",
                Count(connections, "connection"),
                Count(upgrades, "upgrade"),
                Count(delivered, "delivered notification")
            );
            return Ok(Some(Stopped::Drained));
        }
        if !sources.is_listening() && !sources.is_stop_asked {
            self.listen_if_ready(host)?;
        }
        if self.sources.is_handover_asked || !self.handover.is_idle() {
            self.advance_handover(host);
        }
        Ok(None)
    }

    /// Begins to serve, if the application has become ready.
    fn listen_if_ready(&mut self, host: &mut dyn Host) -> Result<(), RunError> {
        self.sources
            .listen_if(self.engine.application().is_ready())?;
        if self.sources.is_listening() {
            host.listening(&self.local_addrs()?);
            host.enter(Phase::Serving);
        }
        Ok(())
    }
}

impl Sources {
    /// Those of a server that is to listen on all addresses of `config`, beside what `listeners` listen on, and takes
    /// `signals`.
    fn new(
        listeners: Vec<Listener>,
        config: &ServerConfig,
        signals: &[i32],
    ) -> Result<Self, StartError> {
        let poll = Poll::new()?;
        let mut signals = Signals::new(signals)?;
        poll.registry()
            .register(&mut signals, SIGNALS, Interest::READABLE)?;
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS_MAX),
            has_polled: false,
            polls: 0,
            signals,
            listeners,
            unbound: Some(Box::new(config.clone())),
            uplinks: None,
            drain: config.drain,
            is_stop_asked: false,
            is_stopping: false,
            settling_until: None,
            is_reload_asked: false,
            is_handover_asked: false,
            forced_by: None,
        })
    }

    /// Whether it listens on all that it is to listen on.
    const fn is_listening(&self) -> bool {
        self.unbound.is_none()
    }

    /// Listens everywhere, if it doesn't yet and the application `is_ready`.
    fn listen_if(&mut self, is_ready: bool) -> Result<(), StartError> {
        let Some(config) = self.unbound.take_if(|_| is_ready) else {
            return Ok(());
        };
        // Publishers first: they are let in before the crowd is.
        let publishers = config.publish_listen.iter().cloned();
        let publishers = publishers.map(|address| (address, Lane::Publishers));
        let clients = config.listen.iter().copied().map(ListenAddress::Tcp);
        let clients = clients.map(|address| (address, Lane::Clients));
        for (address, lane) in publishers.chain(clients) {
            let listener = Listener::bind(&address, lane, &config)
                .map_err(|error| StartError::Listen(address, error))?;
            self.listeners.push(listener);
        }
        let registry = self.poll.registry();
        for (number, listener) in self.listeners.iter_mut().enumerate() {
            let token = Token(FIRST_LISTENER - number);
            listener.register(registry, token)?;
        }
        Ok(())
    }

    /// How long the poll may wait: not at all while there is work, else until the next
    /// deadline.
    fn poll_timeout<A: Application>(
        &self,
        engine: &Engine<Socket, A, MonotonicClock>,
        handover: &Handover,
    ) -> Option<Duration> {
        let now = engine.now();
        let mut listeners = self.listeners.iter();
        let can_accept =
            listeners.any(|listener| listener.is_ready(now) && engine.has_room(listener.lane()));
        let mut uplinks = self.uplinks.iter();
        let has_more = uplinks.any(|uplinks| uplinks.has_more());
        if can_accept || has_more || engine.has_work() || self.has_request(handover) {
            return Some(Duration::ZERO);
        }
        let pauses = self
            .listeners
            .iter()
            .filter(|listener| listener.is_paused(now))
            .filter_map(Listener::paused_until);
        let others = engine.next_deadline().into_iter();
        let others = others
            .chain(handover.next_look(now))
            .chain(self.settling_until);
        let next = pauses.chain(others).min()?;
        // Rounded up to whole milliseconds, which is what epoll counts in: never too early.
        let wait = next - now;
        Some(Duration::from_millis(wait.as_micros().div_ceil(1000) as u64))
    }

    /// Whether a signal was seen that nobody has done anything about: between two polls, or while a program was tried out.
    /// No event tells of it again.
    const fn has_request(&self, handover: &Handover) -> bool {
        let is_stop_new = self.is_stop_asked && !self.is_stopping;
        is_stop_new || self.is_reload_asked || (self.is_handover_asked && handover.is_idle())
    }

    /// Waits for events. A signal that comes meanwhile is one of them.
    fn poll(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.polls = self.polls.wrapping_add(1);
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.events.clear();
                Ok(())
            }
            polled => polled,
        }
    }

    /// Tells the engine what the events say.
    fn tell<A: Application>(
        &mut self,
        engine: &mut Engine<Socket, A, MonotonicClock>,
        now: Timestamp,
    ) {
        let mut has_signals = false;
        for event in &self.events {
            match event.token() {
                SIGNALS => has_signals = true,
                uplinks::READER | uplinks::WRITER => {
                    if let Some(uplinks) = &mut self.uplinks {
                        uplinks.handle_ready(event);
                    }
                }
                Token(token)
                    if token <= FIRST_LISTENER && FIRST_LISTENER - token < self.listeners.len() =>
                {
                    self.listeners[FIRST_LISTENER - token].handle_ready(self.polls);
                }
                token => {
                    let readiness = Readiness {
                        is_readable: event.is_readable(),
                        is_writable: event.is_writable(),
                        is_ending: event.is_read_closed() || event.is_error(),
                        is_failed: event.is_error(),
                        is_urgent: event.is_priority(),
                    };
                    engine.handle_ready(connection_of(token), readiness, now);
                }
            }
        }
        if has_signals {
            self.handle_signals();
        }
    }

    fn accept<A: Application>(
        &mut self,
        engine: &mut Engine<Socket, A, MonotonicClock>,
        now: Timestamp,
    ) {
        let registry = self.poll.registry();
        for listener in &mut self.listeners {
            let mut accepted = 0;
            while listener.is_ready(now) && engine.has_room(listener.lane()) {
                let is_over =
                    || accepted >= ACCEPTS_A_TURN_MIN && engine.is_input_over(engine.now());
                if accepted >= listener.burst() || is_over() {
                    listener.leave();
                    break;
                }
                let Some((socket, peer)) = listener.accept(now) else {
                    if listener.is_paused(now) {
                        engine.count_accept_pause();
                    }
                    break;
                };
                accepted += 1;
                let id = engine.insert(socket, peer, now);
                let Some(socket) = engine.transport_mut(id) else {
                    continue;
                };
                if let Err(error) = registry.register(socket, token_of(id), INPUT_INTEREST) {
                    debug!(connection:% = id, peer:% = peer, reason:% = error; "{peer}: not registered: {error}");
                    engine.discard(id);
                    continue;
                }
                // Whoever connects has something to say, and has mostly said it.
                engine.handle_ready(id, FIRST_READINESS, now);
            }
            if let Err(error) = listener.update_watch(registry) {
                warn!("a listening socket is not watched: {error}");
            }
        }
    }

    /// Has the poll tell when those can be written to again that took no more.
    fn watch_writes<A: Application>(&mut self, engine: &mut Engine<Socket, A, MonotonicClock>) {
        while let Some(id) = engine.next_blocked() {
            let Some(socket) = engine.transport_mut(id) else {
                continue;
            };
            let registry = self.poll.registry();
            if let Err(error) = registry.reregister(socket, token_of(id), BOTH_INTERESTS) {
                // It is cut off when its writes are overdue.
                warn!("{id} is not watched for writing: {error}");
            }
        }
    }

    /// Has what the application wants read from its own server and written to it.
    fn pump<A: Application>(&mut self, engine: &mut Engine<Socket, A, MonotonicClock>) {
        let Some(sockets) = &mut self.uplinks else {
            return;
        };
        let now = engine.now();
        if let Some(uplinks) = engine.uplinks() {
            sockets.pump(self.poll.registry(), uplinks, now);
        }
    }

    /// Tells the engine that it stops, when nobody awaits an answer from elsewhere any more, or for too long. To be called
    /// ahead of the rest of an iteration, which goes on with it.
    fn stop_if_settled<A: Application>(&mut self, engine: &mut Engine<Socket, A, MonotonicClock>) {
        let Some(until) = self.settling_until else {
            return;
        };
        let now = engine.now();
        if engine.settle(false) || until <= now {
            self.settling_until = None;
            // All of it takes no longer than without such answers.
            let drained_by = until + self.drain / 2;
            let connections = engine.connections_len();
            let count = Count(connections as u64, "connection");
            let are = if connections == 1 { "is" } else { "are" };
            info!(connections; "stopping: {count} {are} told");
            engine.shut_down(drained_by.saturating_since(now), now);
        }
    }

    fn handle_signals(&mut self) {
        for signal in self.signals.pending() {
            if signal == SIGHUP || signal == SIGUSR2 {
                self.is_reload_asked = true;
                self.is_handover_asked |= signal == SIGUSR2;
            } else if mem::replace(&mut self.is_stop_asked, true) {
                self.forced_by = Some(signal);
            }
        }
    }
}

/// The sources, with what is around them.
struct Hosted<'a> {
    sources: &'a mut Sources,
    handover: &'a Handover,
    host: &'a mut dyn Host,
}

impl<A: Application> Driver<Socket, A, MonotonicClock> for Hosted<'_> {
    fn take_events(
        &mut self,
        engine: &mut Engine<Socket, A, MonotonicClock>,
        now: Timestamp,
    ) -> io::Result<bool> {
        let sources = &mut *self.sources;
        if !mem::take(&mut sources.has_polled) {
            sources.poll(Some(Duration::ZERO))?;
        }
        sources.tell(engine, now);
        sources.accept(engine, now);
        Ok(!sources.events.is_empty())
    }

    fn handle_commands(
        &mut self,
        engine: &mut Engine<Socket, A, MonotonicClock>,
    ) -> io::Result<()> {
        if mem::take(&mut self.sources.is_reload_asked) && !self.sources.is_stop_asked {
            let is_listening = self.sources.is_listening();
            if is_listening {
                self.host.enter(Phase::Reloading);
            }
            engine.reload();
            // Else that is told when there is a new program, or none.
            if is_listening && self.handover.is_idle() && !self.sources.is_handover_asked {
                self.host.enter(Phase::Serving);
            }
        }
        if self.sources.is_stop_asked && !mem::replace(&mut self.sources.is_stopping, true) {
            self.host.enter(Phase::Stopping);
            // What publishers had sent before is taken in, that of those among them that have yet to be
            // accepted, too.
            for _ in 0..LAST_ROUNDS_MAX {
                let now = engine.now();
                engine.begin_turn(now);
                if !engine.take_input(self, now)? {
                    break;
                }
            }
            // A client that comes from now on finds nobody.
            for mut listener in self.sources.listeners.drain(..) {
                if let Err(error) = listener.unwatch(self.sources.poll.registry()) {
                    warn!("a listening socket is still watched: {error}");
                }
            }
            self.sources.unbound = None;
            // A publisher that never ceases has something under way at any time: the others don't wait for it.
            self.sources.settling_until = Some(engine.now() + self.sources.drain / 2);
            self.sources.stop_if_settled(engine);
            if self.sources.settling_until.is_some() {
                info!("stopping when publishers have their answers");
            }
        }
        Ok(())
    }

    fn has_waiting(&self, lane: Lane, now: Timestamp) -> bool {
        let mut listeners = self.sources.listeners.iter();
        listeners.any(|listener| listener.lane() == lane && listener.is_ready(now))
    }

    fn observe(&mut self, engine: &mut Engine<Socket, A, MonotonicClock>, step: Step) {
        // What a round of input has to be written is written at once; what is asked for next leaves behind the work on
        // what was brought last.
        if matches!(step, Step::Input | Step::Work | Step::Timers) {
            self.sources.pump(engine);
        }
        if step == Step::Work {
            self.sources.stop_if_settled(engine);
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
