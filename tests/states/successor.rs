//! A server in memory that goes on from a state as one with sockets does. Any bytes may be a state here: nothing panics,
//! what can't be gone on from is refused, and what is gone on from keeps every promise.
//!
//! The body of the fuzz target `state`, too. Main type: [`Successor`].

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::num::NonZeroU32;
use std::rc::Rc;
use std::time::Duration;

use crieur::application::{Application, BodyUse, Endpoint, Lane, Peer, PeerAddress, Uplinks};
use crieur::config::{Console, HistoryLimits, HubConfig, ServerLimits, Timeouts};
use crieur::handover::{Fields, Incoming, Outgoing, StateError};
use crieur::hub::Hub;
use crieur::hub::access::addresses::AddressLimits;
use crieur::hub::access::jwt::ClientKeys;
use crieur::hub::access::policy::Policy;
use crieur::hub::access::proxy::TrustedProxies;
use crieur::hub::access::token_file::PublishTokens;
use crieur::hub::command;
use crieur::id::ConnectionId;
use crieur::journal::Journal;
use crieur::journal::id::Generation;
use crieur::net::engine::{Carried, Driver, Engine, Readiness};
use crieur::net::transport::{Received, Transport};
use crieur::redis::address::{Login, Server};
use crieur::redis::{Redis, Settings};
use crieur::routes::Routes;
use crieur::time::{Clock, Timestamp};

/// What publishers show, and what clients' tokens are signed with.
pub(crate) const PUBLISH_TOKEN: &str = "a-token-that-was-made-up";
pub(crate) const CLIENT_KEY: &str = "a-key-that-was-made-up-for-tests";

/// What addresses may do, how much clients may send, and what the history may take.
pub(crate) const UPGRADES_PER_SECOND: f64 = 0.02;
pub(crate) const MESSAGES_PER_SECOND: u32 = 4;
pub(crate) const BYTES_PER_SECOND: u32 = 5000;
pub(crate) const HISTORY_SECONDS: u64 = 3600;
pub(crate) const HISTORY_BYTES: usize = 12_000;
pub(crate) const PING_SECONDS: u64 = 2;

/// The time of the system, by a clock that jumps: in 2026.
const UNIX_NOW: Duration = Duration::from_secs(1_795_000_000);

// Kinds of records, and a member.
const ENTRY: u8 = 9;
const HUB: u8 = 10;
const CONNECTION: u8 = 13;
const INDEX: u8 = 1;

/// Slots that are tried; the bound is another one.
const INDEX_MAX: u64 = 1 << 12;

/// What is for most of those who have subscribed to something: kept, with a key that is known, and for the moment.
const PUBLISHED: &str = r#"[{"notification":{"channel":"Production"}},{"key":"the first","notification":{"channel":"Test"}},
    {"keep":false,"notification":{"channel":"Production","package":"p","page":"q","filters":{"values":{"channel":2}}}}]"#;

/// An iteration has an end; so many of them must be enough for anything.
const ITERATIONS_MAX: usize = 2000;

/// A connection, as both its ends see it.
#[derive(Default)]
pub(crate) struct Wire {
    to_server: RefCell<VecDeque<u8>>,
    from_server: RefCell<Vec<u8>>,
    /// Whether the peer sends no more.
    has_ended: Cell<bool>,
    /// Whether the server sends no more.
    is_shut: Cell<bool>,
    /// Whether the server has closed it.
    is_dropped: Cell<bool>,
}

impl Wire {
    /// What the server has sent since this was asked last.
    pub(crate) fn take(&self) -> Vec<u8> {
        self.from_server.take()
    }

    /// How it stands with the server's side.
    pub(crate) fn end(&self) -> &'static str {
        match (self.is_shut.get(), self.is_dropped.get()) {
            (_, true) => "closed",
            (true, false) => "shut",
            (false, false) => "open",
        }
    }
}

/// The server's end. It takes everything.
pub(crate) struct End(Rc<Wire>);

impl Transport for End {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut waiting = self.0.to_server.borrow_mut();
        if waiting.is_empty() && !self.0.has_ended.get() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let len = waiting.len().min(buffer.len());
        for (place, byte) in buffer.iter_mut().zip(waiting.drain(..len)) {
            *place = byte;
        }
        let is_drained = len < buffer.len();
        Ok(Received { len, is_drained })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        assert!(!self.0.is_shut.get(), "it writes behind its own end");
        self.0.from_server.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        slices.iter().map(|slice| self.write(slice)).sum()
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        self.0.is_shut.set(true);
        Ok(())
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.0.is_dropped.set(true);
    }
}

/// The ends of the connections of a state, in their order. There is one for each that is asked for.
#[derive(Default)]
struct Ends {
    /// Those that were taken.
    taken: Rc<RefCell<Vec<Rc<Wire>>>>,
}

impl Iterator for Ends {
    type Item = End;

    fn next(&mut self) -> Option<End> {
        let wire = Rc::<Wire>::default();
        self.taken.borrow_mut().push(Rc::clone(&wire));
        Some(End(wire))
    }

    fn nth(&mut self, _: usize) -> Option<End> {
        self.next()
    }
}

/// A clock that is moved by hand. While the loop runs a microsecond passes between two looks at it.
#[derive(Clone, Default)]
struct Hand {
    micros: Rc<Cell<u64>>,
    runs: Rc<Cell<bool>>,
}

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        let micros = self.micros.get() + u64::from(self.runs.get());
        self.micros.set(micros);
        Timestamp::from_micros(micros)
    }

    fn unix_now(&self) -> Duration {
        UNIX_NOW
    }
}

/// What is ready.
#[derive(Default)]
struct Events(Vec<(ConnectionId, Readiness)>);

type MemoryEngine = Engine<End, Routes, Hand>;

impl Driver<End, Routes, Hand> for Events {
    fn take_events(&mut self, engine: &mut MemoryEngine, now: Timestamp) -> io::Result<bool> {
        let events = std::mem::take(&mut self.0);
        for (id, readiness) in &events {
            engine.handle_ready(*id, *readiness, now);
        }
        Ok(!events.is_empty())
    }

    fn has_waiting(&self, _: Lane, _: Timestamp) -> bool {
        false
    }
}

/// A server that goes on from a state.
pub(crate) struct Successor {
    engine: MemoryEngine,
    clock: Hand,
    events: Events,
    /// The connections that have come over, in the order of their slots.
    pub(crate) peers: Vec<(ConnectionId, Rc<Wire>)>,
    /// What has come over.
    pub(crate) carried: Carried,
}

impl Successor {
    /// Goes on from `state` at `now`, by the server's clock.
    pub(crate) fn take_over(state: &[u8], now: Timestamp) -> Result<Self, StateError> {
        Self::with_history(HISTORY_BYTES, state, now)
    }

    /// The same with so much room for the history.
    pub(crate) fn with_history(
        bytes_max: usize,
        state: &[u8],
        now: Timestamp,
    ) -> Result<Self, StateError> {
        let clock = Hand::default();
        clock.micros.set(now.as_micros());
        let (history, limits, timeouts) = settings(bytes_max);
        let hub = hub(history, timeouts, is_of_redis(state));
        let mut ends = Ends::default();
        let taken = Rc::clone(&ends.taken);
        let mut state = Incoming::begin(state)?;
        let (mut engine, carried) = Engine::restore(
            Routes::new(hub, Console::Off),
            clock.clone(),
            limits,
            timeouts,
            1,
            &mut state,
            &mut ends,
        )?;
        let taken = taken.take();
        let peers = engine.transports_mut().map(|(id, end)| {
            let mut taken = taken.iter();
            let wire = taken.find(|wire| Rc::ptr_eq(wire, &end.0));
            let wire = wire.expect("it was given");
            (id, Rc::clone(wire))
        });
        let peers = peers.collect();
        let successor = Self {
            engine,
            clock,
            events: Events::default(),
            peers,
            carried,
        };
        successor.check_invariants();
        Ok(successor)
    }

    /// One that follows nobody, on a Redis that several servers share.
    pub(crate) fn on_redis(now: Timestamp) -> Self {
        let clock = Hand::default();
        clock.micros.set(now.as_micros());
        let (history, limits, timeouts) = settings(HISTORY_BYTES);
        let routes = Routes::new(hub(history, timeouts, true), Console::Off);
        Self {
            engine: Engine::new(routes, clock.clone(), limits, timeouts, 1),
            clock,
            events: Events::default(),
            peers: Vec::new(),
            carried: Carried::default(),
        }
    }

    /// Its way to Redis.
    pub(crate) fn uplinks(&mut self) -> &mut dyn Uplinks {
        self.engine.uplinks().expect("it has one")
    }

    /// The same, as it is.
    pub(crate) fn redis(&self) -> &Redis {
        let hub = self.engine.application().hub();
        hub.redis().expect("it has one")
    }

    /// A peer comes from this host, to a place behind all others.
    pub(crate) fn connect(&mut self) {
        let wire = Rc::<Wire>::default();
        let now = self.clock.now();
        let peer = Peer {
            address: PeerAddress::Unix,
            lane: Lane::Publishers,
        };
        let id = self.engine.insert(End(Rc::clone(&wire)), peer, now);
        self.peers.push((id, wire));
    }

    /// What a further successor would get.
    pub(crate) fn state(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut state = Outgoing::begin(&mut bytes as &mut dyn Write).expect("memory");
        self.engine.save(&mut state).expect("memory");
        state.finish().expect("memory");
        bytes
    }

    /// Says what registering the connections with a poll says.
    pub(crate) fn register(&mut self) {
        for place in 0..self.peers.len() {
            self.tell(place);
        }
    }

    fn tell(&mut self, place: usize) {
        let (id, wire) = &self.peers[place];
        let readiness = Readiness {
            is_readable: !wire.to_server.borrow().is_empty() || wire.has_ended.get(),
            is_ending: wire.has_ended.get(),
            is_writable: true,
            ..Readiness::default()
        };
        if !wire.is_dropped.get() {
            self.events.0.push((*id, readiness));
        }
    }

    /// The peer at `place` sends `bytes`.
    pub(crate) fn send(&mut self, place: usize, bytes: &[u8]) {
        let (_, wire) = &self.peers[place];
        wire.to_server.borrow_mut().extend(bytes);
        self.tell(place);
    }

    /// The peer at `place` sends no more.
    pub(crate) fn end(&mut self, place: usize) {
        self.peers[place].1.has_ended.set(true);
        self.tell(place);
    }

    /// Somebody publishes `body`, who may.
    fn publish(&mut self, body: &str) {
        let nobody = ConnectionId {
            index: u32::MAX,
            serial: 0,
        };
        let now = self.engine.now();
        self.engine.act(now, |routes, outbox| {
            routes.handle_body(nobody, body.as_bytes(), BodyUse::Publish, outbox);
        });
        self.check_invariants();
    }

    /// Lets time pass, and the loop run until there is nothing to do any more.
    pub(crate) fn pass(&mut self, time: Duration) {
        let micros = self.clock.micros.get() + time.as_micros() as u64;
        self.clock.micros.set(micros);
        self.clock.runs.set(true);
        for _ in 0..ITERATIONS_MAX {
            let run = self.engine.run_iteration(&mut self.events);
            run.expect("nothing fails in memory");
            self.check_invariants();
            if !self.engine.has_work() {
                return;
            }
        }
        panic!("it has something to do for ever");
    }

    fn check_invariants(&self) {
        self.engine.check_invariants();
        self.engine.application().hub().check_invariants();
    }
}

/// What the options of [`options`](super::options) amount to, but for so much room for the history.
fn settings(bytes_max: usize) -> (HistoryLimits, ServerLimits, Timeouts) {
    let history = HistoryLimits {
        age_max: Duration::from_secs(HISTORY_SECONDS),
        bytes_max,
    };
    let limits = ServerLimits {
        messages_per_second: NonZeroU32::new(MESSAGES_PER_SECOND),
        bytes_per_second: NonZeroU32::new(BYTES_PER_SECOND),
        ..ServerLimits::default()
    };
    let timeouts = Timeouts {
        ping_interval: Duration::from_secs(PING_SECONDS),
        ..Timeouts::default()
    };
    (history, limits, timeouts)
}

/// Whether the order of notifications was kept in Redis.
fn is_of_redis(state: &[u8]) -> bool {
    records(state)
        .iter()
        .any(|(kind, _)| Redis::is_record(*kind))
}

fn hub(history: HistoryLimits, timeouts: Timeouts, has_redis: bool) -> Hub {
    let journal = match has_redis {
        true => Journal::of_stream(history),
        false => Journal::new(history, Generation(1)),
    };
    let ping_interval = timeouts.ping_interval;
    let hub = Hub::new(HubConfig::default(), ping_interval, policy(), journal);
    if !has_redis {
        return hub;
    }
    let settings = Settings {
        stream: "crieur".into(),
        maxlen: 100_000,
        timeout: Duration::from_secs(1),
        history: history.age_max,
        takes_position: command::takes_position,
    };
    let server = Server {
        endpoint: Endpoint::Unix("/redis".into()),
        login: Login::default(),
    };
    hub.with_redis(Redis::new(settings, vec![server], 1))
}

/// The policy that the options of [`options`](super::options) amount to.
fn policy() -> Policy {
    let cidr = |text: &str| text.parse().expect("a network");
    Policy {
        local_publish: true,
        has_lane: true,
        publish_tokens: Some(PublishTokens::parse(PUBLISH_TOKEN).expect("a token")),
        client_keys: Some(ClientKeys::parse(CLIENT_KEY).expect("a key")),
        proxies: TrustedProxies(vec![cidr("127.0.0.0/8"), cidr("::1")]),
        metrics_from: vec![cidr("127.0.0.0/8")],
        address_limits: AddressLimits {
            connections_max: Some(100),
            upgrades_per_second: Some(UPGRADES_PER_SECOND),
        },
        ..Policy::default()
    }
}

/// The records of a state, as far as they are whole.
fn records(mut state: &[u8]) -> Vec<(u8, &[u8])> {
    let mut records = Vec::new();
    while let Some((&[kind, ref length @ ..], rest)) = state.split_first_chunk::<5>() {
        let length = u32::from_le_bytes(*length) as usize;
        let Some((members, rest)) = rest.split_at_checked(length) else {
            break;
        };
        records.push((kind, members));
        state = rest;
    }
    records
}

/// Whether some connection has so high a slot that all tables with it take seconds.
fn is_large(records: &[(u8, &[u8])]) -> bool {
    let mut connections = records.iter().filter(|(kind, _)| *kind == CONNECTION);
    connections.any(|(_, members)| {
        let fields = Fields::parse(members);
        fields.is_ok_and(|fields| fields.number(INDEX) > INDEX_MAX)
    })
}

fn assert_same(state: &[u8], other: &[u8], what: &str) {
    let mut pairs = state.iter().zip(other);
    let at = pairs.position(|(one, other)| one != other);
    let at = at.unwrap_or_else(|| state.len().min(other.len()));
    let shown = |state: &[u8]| {
        let end = state.len().min(at + 40);
        state[at.saturating_sub(60).min(end)..end]
            .escape_ascii()
            .to_string()
    };
    let (one, again) = (shown(state), shown(other));
    assert!(
        state == other,
        "{what} it is another, at {at}:\n{one}\n{again}"
    );
}

/// Goes on from `bytes` at a time that is far from zero, if they are a state; says what has come over.
///
/// Whatever the bytes are: what has come over is written again, and goes on from there; it lives on, and everybody comes
/// to an end.
pub(crate) fn check(bytes: &[u8]) -> Option<Carried> {
    let now = Timestamp::from_micros(1_000_000_000);
    let records = records(bytes);
    if is_large(&records) {
        return Some(Carried::default());
    }
    let mut successor = Successor::take_over(bytes, now).ok()?;
    let carried = successor.carried;
    assert_eq!(successor.peers.len(), carried.connections);

    let state = successor.state();
    assert_same(&state, &successor.state(), "written twice");
    let mut again = Successor::take_over(&state, now).expect("it was written");
    let connections = carried.connections;
    assert_eq!(
        again.carried,
        Carried {
            connections,
            lost: 0
        }
    );
    // Without the hub's own record behind those of the history, nothing is known of what is due.
    let mut of_hub = records.iter().map(|(kind, _)| *kind).rev();
    if of_hub.find(|kind| matches!(*kind, HUB | ENTRY)) == Some(HUB) {
        assert_same(&state, &again.state(), "by the successor");
    }

    again.register();
    again.publish(PUBLISHED);
    again.pass(Duration::ZERO);
    for place in 0..again.peers.len() {
        // What goes on with a message, or is none.
        again.send(place, b"\x81\x82\0\0\0\0{}0\r\n\r\n");
    }
    for seconds in [0, 1, 30] {
        again.pass(Duration::from_secs(seconds));
    }
    for place in 0..again.peers.len() {
        again.end(place);
    }
    again.pass(Duration::ZERO);
    for _ in 0..4 {
        again.pass(Duration::from_secs(100));
    }
    assert_eq!(again.engine.connections_len(), 0, "somebody stays for ever");
    assert_eq!(again.engine.pinned_bytes(), 0, "bytes are kept for nobody");
    Some(carried)
}
