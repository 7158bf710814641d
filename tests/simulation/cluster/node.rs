//! A node of a cluster: the engine, its peers, and its sockets to Redis; and the loop that drives them.
//!
//! Main type: [`Node`]. What follows from what it does is looked at in `judge`.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use crieur::application::{Application, Endpoint, Lane, Peer as Origin, PeerAddress};
use crieur::config::{Console, HistoryLimits, HubConfig, ServerLimits, Timeouts};
use crieur::handover::Incoming;
use crieur::hub::access::policy::Policy;
use crieur::hub::replay::Slice;
use crieur::hub::{Hub, command};
use crieur::journal::Journal;
use crieur::net::engine::{Carried, Driver, Engine, Step};
use crieur::redis::address::{Login, Server};
use crieur::redis::simulated::{EPOCH_MILLIS, SimulatedRedis};
use crieur::redis::simulated_sockets::SimulatedSockets;
use crieur::redis::{Redis, Settings};
use crieur::routes::Routes;
use crieur::time::Timestamp;

use crate::clock::VirtualClock;
use crate::dice::Dice;
use crate::state::write;
use crate::tape::Tape;
use crate::wire::{End, Socket, watch_writes};
use crate::witness::Witness;

use super::peer::{Kind, Memory, Peer};
use super::reading::Reading;

type NodeEngine = Engine<Socket, Witness, VirtualClock>;

/// What all nodes are told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Configuration {
    pub(super) history: HistoryLimits,
    pub(super) slice: Slice,
    pub(super) maxlen: usize,
    pub(super) timeout: Duration,
}

pub(super) struct Node {
    pub(super) number: usize,
    engine: Option<NodeEngine>,
    pub(super) routes: Rc<RefCell<Routes>>,
    pub(super) tape: Tape,
    clock: Rc<Cell<u64>>,
    /// When its process began.
    began: Rc<Cell<u64>>,
    pub(super) sockets: SimulatedSockets,
    pub(super) peers: Vec<Peer>,
    pub(super) reading: Reading,
}

impl Node {
    /// A process that begins now. `clock` is that of the world.
    pub(super) fn start(
        number: usize,
        configuration: Configuration,
        clock: &Rc<Cell<u64>>,
        dice: &mut Dice,
    ) -> Self {
        let (routes, tape) = (routes(configuration, dice), Tape::default());
        let began = Rc::new(Cell::new(clock.get()));
        let engine = Engine::new(
            witness(&routes, &tape),
            virtual_clock(clock, &began),
            limits(),
            Timeouts::default(),
            dice.next_u64(),
        );
        Self {
            number,
            engine: Some(engine),
            routes,
            tape,
            clock: Rc::clone(clock),
            began,
            sockets: SimulatedSockets::default(),
            peers: Vec::new(),
            reading: Reading::new(configuration),
        }
    }

    /// Its process becomes another program, which goes on with all but the sockets to Redis; nobody notices. What it had sent
    /// may still be on its way, unless it waited for that first.
    pub(super) fn hand_over(&mut self, dice: &mut Dice) {
        let mut engine = self.engine.take().expect("it runs");
        let (state, wires) = write(&mut engine);
        drop(engine);
        self.sockets.leave();
        self.routes = routes(self.reading.configuration, dice);
        let mut incoming = Incoming::begin(&state[..]).expect("a state");
        let connections = wires.len();
        let mut sockets = wires.into_iter().map(|wire| Socket::inherited(wire, None));
        let restored = Engine::restore(
            witness(&self.routes, &self.tape),
            virtual_clock(&self.clock, &self.began),
            limits(),
            Timeouts::default(),
            dice.next_u64(),
            &mut incoming,
            &mut sockets,
        );
        let (engine, carried) = restored.expect("it is whole");
        let lost = 0;
        assert_eq!(carried, Carried { connections, lost });
        engine.check_invariants();
        self.engine = Some(engine);
    }

    /// The time of its process.
    pub(super) fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.clock.get() - self.began.get())
    }

    pub(super) fn is_ready(&self) -> bool {
        self.routes.borrow().is_ready()
    }

    /// Somebody connects, perhaps one who was there before.
    pub(super) fn connect(&mut self, kind: Kind, memory: Option<Memory>, dice: &mut Dice) {
        let (socket, wire) = Socket::pair(None);
        let origin = Origin {
            address: PeerAddress::Ip(([127, 0, 0, 1], 1).into()),
            lane: Lane::Clients,
        };
        let now = self.now();
        let engine = self.engine.as_mut().expect("it runs");
        let mut peer = Peer::new(engine.insert(socket, origin, now), wire, kind);
        if let Some(memory) = memory {
            peer.come_back(memory, dice);
        }
        self.peers.push(peer);
    }

    /// Iterations of its loop until nothing of this moment is left to be done. `percent` of what is ready is told.
    pub(super) fn turn(&mut self, redis: Option<&SimulatedRedis>, percent: usize, dice: &mut Dice) {
        let mut engine = self.engine.take().expect("it runs");
        let mut percent = percent;
        for _ in 0..100 {
            let mut drive = Drive {
                node: self,
                redis,
                percent,
                dice,
            };
            engine
                .run_iteration(&mut drive)
                .expect("no poll fails here");
            watch_writes(&mut engine);
            percent = 0;
            let is_due = |at: Option<Timestamp>| at.is_some_and(|at| at <= self.now());
            let work = engine.application().next_work();
            if !is_due(work) && !is_due(engine.next_timer()) {
                break;
            }
        }
        self.engine = Some(engine);
        let routes = self.routes.borrow();
        routes.hub().check_invariants();
        routes
            .hub()
            .redis()
            .expect("there is one")
            .check_invariants();
    }

    /// Peers that the node has dropped leave; what they remember.
    pub(super) fn drop_the_dropped(&mut self) -> Vec<Memory> {
        let mut memories = Vec::new();
        self.peers.retain(|peer| {
            let is_dropped = peer.wire.borrow().is_dropped;
            if is_dropped {
                let is_right = peer.may_go() || peer.kind == Kind::Http;
                assert!(is_right, "{} of {} is dropped", peer.id, self.number);
                memories.extend(peer.memory());
            }
            !is_dropped
        });
        memories
    }

    /// Its process is killed; what its peers remember.
    pub(super) fn kill(mut self, dice: &mut Dice) -> Vec<Memory> {
        self.sockets.end(dice.rng());
        self.peers.iter().filter_map(Peer::memory).collect()
    }
}

/// A hub and its Redis that know nothing yet.
fn routes(configuration: Configuration, dice: &mut Dice) -> Rc<RefCell<Routes>> {
    let Configuration {
        history,
        slice,
        maxlen,
        timeout,
    } = configuration;
    let settings = Settings {
        stream: "crieur".into(),
        maxlen,
        timeout,
        history: history.age_max,
        takes_position: command::takes_position,
    };
    let server = Server {
        endpoint: Endpoint::Unix("/redis".into()),
        login: Login::default(),
    };
    let redis = Redis::new(settings, vec![server], dice.next_u64());
    let policy = Policy {
        local_publish: true,
        ..Policy::default()
    };
    let ping_interval = Timeouts::default().ping_interval;
    let journal = Journal::of_stream(history);
    let hub = Hub::new(HubConfig::default(), ping_interval, policy, journal);
    let hub = hub.with_slices(slice).with_redis(redis);
    Rc::new(RefCell::new(Routes::new(hub, Console::Off)))
}

fn witness(routes: &Rc<RefCell<Routes>>, tape: &Tape) -> Witness {
    Witness {
        routes: Rc::clone(routes),
        notes: Rc::default(),
        replaying: HashSet::new(),
        tape: Some(tape.clone()),
        publishes: 0,
    }
}

fn virtual_clock(clock: &Rc<Cell<u64>>, began: &Rc<Cell<u64>>) -> VirtualClock {
    VirtualClock {
        micros: Rc::clone(clock),
        began: Rc::clone(began),
        spent_micros: Rc::default(),
        look_micros: Rc::default(),
        wall_ahead: Rc::new(Cell::new(EPOCH_MILLIS as i64 * 1000)),
    }
}

/// Nobody is cut off for being slow: that is another simulation's.
fn limits() -> ServerLimits {
    ServerLimits {
        send_queue_bytes_max: 1 << 30,
        buffer_bytes_max: 1 << 30,
        ..ServerLimits::default()
    }
}

/// What drives the loop of a node once.
struct Drive<'a> {
    node: &'a mut Node,
    /// What its sockets lead to.
    redis: Option<&'a SimulatedRedis>,
    percent: usize,
    dice: &'a mut Dice,
}

impl Drive<'_> {
    /// Bytes go to Redis and come from there.
    fn pump(&mut self) {
        let now = self.node.now();
        let mut routes = self.node.routes.borrow_mut();
        let uplinks = routes.uplinks().expect("there is a Redis");
        let rng = self.dice.rng();
        self.node.sockets.pump(self.redis, uplinks, rng, now);
    }
}

impl Driver<Socket, Witness, VirtualClock> for Drive<'_> {
    fn take_events(&mut self, engine: &mut NodeEngine, _: Timestamp) -> io::Result<bool> {
        let percent = std::mem::take(&mut self.percent);
        let mut events = Vec::new();
        for peer in &mut self.node.peers {
            let wire = &mut *peer.wire.borrow_mut();
            let has_ended = wire.end != End::None && !peer.is_end_told;
            let is_due = wire.has_arrived || has_ended || wire.has_writable_edge();
            if is_due && self.dice.chance(percent) {
                let readiness = wire.take_readiness(false);
                peer.is_end_told |= readiness.is_ending;
                wire.is_refused &= !readiness.is_writable;
                events.push((peer.id, readiness));
            }
        }
        self.dice.shuffle(&mut events);
        let came = !events.is_empty();
        for (id, readiness) in events {
            engine.handle_ready(id, readiness, self.node.now());
        }
        Ok(came)
    }

    fn has_waiting(&self, _: Lane, _: Timestamp) -> bool {
        false
    }

    fn observe(&mut self, engine: &mut NodeEngine, step: Step) {
        // As the server does: what a round of input was about is one write, and a read follows the work on the last one.
        if matches!(step, Step::Input | Step::Work | Step::Timers) {
            self.pump();
        }
        engine.check_invariants();
    }
}
