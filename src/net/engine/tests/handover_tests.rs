//! An engine that is handed over at random, beside one that isn't: their peers see the same.

use fastrand::Rng;

use super::*;
use crate::handover::{Incoming, Outgoing};
use crate::metrics::Histogram;
use crate::metrics::saved::Counters;
use crate::net::engine::Carried;

/// An engine and its peers.
struct World {
    engine: TestEngine,
    peers: Vec<(ConnectionId, Rc<Wire>)>,
    limits: ServerLimits,
}

/// What a peer or time does.
#[derive(Clone, Debug)]
enum Act {
    Accept,
    Send(usize, Vec<u8>),
    HangUp(usize),
    /// Its socket takes so many bytes.
    MakeRoom(usize, usize),
}

impl World {
    fn new(limits: ServerLimits) -> Self {
        let engine = engine_with(limits, Timeouts::default());
        Self {
            engine,
            peers: Vec::new(),
            limits,
        }
    }

    fn act(&mut self, act: &Act, now: Timestamp) {
        match act {
            Act::Accept => {
                let peer = accept(&mut self.engine, now);
                self.peers.push(peer);
            }
            Act::Send(peer, bytes) => {
                let (id, wire) = &self.peers[*peer];
                wire.sent.borrow_mut().extend_from_slice(bytes);
                self.engine.handle_ready(*id, READABLE, now);
            }
            Act::HangUp(peer) => {
                let (id, wire) = &self.peers[*peer];
                wire.has_ended.set(true);
                let readiness = Readiness {
                    is_ending: true,
                    ..READABLE
                };
                self.engine.handle_ready(*id, readiness, now);
            }
            Act::MakeRoom(peer, room) => {
                let (id, wire) = &self.peers[*peer];
                wire.room.set(*room);
                let is_writable = *room > 0;
                let readiness = Readiness {
                    is_writable,
                    ..Readiness::default()
                };
                self.engine.handle_ready(*id, readiness, now);
            }
        }
    }

    /// As much of an iteration as there is behind its events; `shares` of the deliveries are written.
    fn go_on(&mut self, shares: usize, now: Timestamp) {
        self.engine.read_again(now);
        self.engine.flush_replies(now);
        self.engine.flush_deliveries(shares, now);
        self.engine.handle_timers(now);
        self.engine.reap(now);
        self.engine.check_invariants();
    }

    fn state(&mut self) -> (Vec<u8>, Vec<Rc<Wire>>) {
        let mut bytes = Vec::new();
        let mut state = Outgoing::begin(&mut bytes as &mut dyn io::Write).expect("memory");
        self.engine.save(&mut state).expect("memory");
        state.finish().expect("memory");
        let ends = self.engine.transports();
        (bytes, ends.map(|end| Rc::clone(&end.0)).collect())
    }

    /// Another engine goes on from what this one has written.
    fn hand_over(&mut self, now: Timestamp) {
        let (bytes, wires) = self.state();
        let (again, _) = self.state();
        assert!(bytes == again, "written twice, it is the same");
        let count = self.engine.connections_len();
        let (engine, carried) = self.restored(&bytes, &wires);
        assert_eq!(
            carried,
            Carried {
                connections: count,
                lost: 0
            }
        );
        self.engine = engine;
        let (again, _) = self.state();
        assert!(bytes == again, "it is the same in the successor");
        self.register(now);
    }

    fn restored(&self, bytes: &[u8], wires: &[Rc<Wire>]) -> (TestEngine, Carried) {
        let mut state = Incoming::begin(bytes).expect("a state");
        let mut ends = wires.iter().map(|wire| WireEnd(Rc::clone(wire)));
        let application = ToAllOthers::default();
        let timeouts = Timeouts::default();
        Engine::restore(
            application,
            Stopped,
            self.limits,
            timeouts,
            1,
            &mut state,
            &mut ends,
        )
        .expect("it is whole")
    }

    /// Registering says at once what is ready.
    fn register(&mut self, now: Timestamp) {
        for (id, wire) in &self.peers {
            let has_ended = wire.has_ended.get();
            let readiness = Readiness {
                is_readable: has_ended || !wire.sent.borrow().is_empty(),
                is_writable: wire.room.get() > 0,
                is_ending: has_ended,
                ..Readiness::default()
            };
            if self.engine.transport_mut(*id).is_some() {
                self.engine.handle_ready(*id, readiness, now);
            }
        }
    }
}

/// What a client may send, whole.
fn message(random: &mut Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    let key = MaskingKey([random.u8(..), 2, 3, 4]);
    match random.u8(0..10) {
        0 => bytes.extend(control_frame(0x9)),
        1 => bytes.extend(control_frame(0xa)),
        2 => bytes.extend(control_frame(0x8)),
        // Fragments, with a Ping between them.
        3 => {
            let text = "fragmented é".as_bytes();
            let cut = random.usize(1..text.len());
            encode_masked_frame(&mut bytes, Opcode::Text, &text[..cut], key);
            bytes[0] &= 0x7f;
            bytes.extend(control_frame(0x9));
            encode_masked_frame(&mut bytes, Opcode::Continuation, &text[cut..], key);
        }
        // Against the rules.
        4 if random.bool() => bytes.extend([0xff; 20]),
        5 => encode_masked_frame(&mut bytes, Opcode::Text, b"many 5", key),
        _ => {
            let length = random.usize(0..300);
            encode_masked_frame(&mut bytes, Opcode::Text, &vec![b'x'; length], key);
        }
    }
    bytes
}

fn act(random: &mut Rng, unsent: &mut Vec<Vec<u8>>) -> Act {
    let choice = random.u8(0..100);
    if unsent.is_empty() || (choice < 4 && unsent.len() < 12) {
        unsent.push(UPGRADE.as_bytes().to_vec());
        return Act::Accept;
    }
    let peer = random.usize(0..unsent.len());
    match choice {
        4..8 => Act::MakeRoom(peer, random.usize(0..200)),
        8..14 => Act::MakeRoom(peer, usize::MAX),
        14 => Act::HangUp(peer),
        _ => {
            let bytes = &mut unsent[peer];
            if bytes.is_empty() {
                *bytes = message(random);
            }
            let count = random.usize(1..=bytes.len());
            Act::Send(peer, bytes.drain(..count).collect())
        }
    }
}

#[test]
fn peers_of_an_engine_that_is_handed_over_see_what_others_see() {
    let (mut handovers, mut bytes) = (0, 0);
    for seed in 0..200 {
        let mut random = Rng::with_seed(seed);
        let limits = ServerLimits {
            send_queue_bytes_max: 2000,
            ..ServerLimits::default()
        };
        let (mut stays, mut moves) = (World::new(limits), World::new(limits));
        let (mut unsent, mut now) = (Vec::new(), Timestamp::ZERO);
        for step in 0..300 {
            let act = act(&mut random, &mut unsent);
            now = now + Duration::from_millis(random.u64(0..400));
            let shares = random.usize(0..20);
            for world in [&mut stays, &mut moves] {
                world.act(&act, now);
                world.go_on(shares, now);
            }
            if random.u8(0..4) == 0 {
                handovers += 1;
                moves.hand_over(now);
            }
            // What registering said is handled, and deliveries are written: now both have done the same.
            for world in [&mut stays, &mut moves] {
                while world.engine.has_ready() || world.engine.has_deliveries() {
                    world.go_on(100, now);
                }
            }
            for ((id, one), (_, other)) in stays.peers.iter().zip(&moves.peers) {
                let what = format!("seed {seed}, step {step}, {act:?}, {id}");
                assert!(*one.got.borrow() == *other.got.borrow(), "{what}");
                assert_eq!(one.is_shut.get(), other.is_shut.get(), "{what}");
                assert_eq!(one.sent.borrow().len(), other.sent.borrow().len(), "{what}");
            }
            // A deadline that was put off waits for the earlier one; in the successor it doesn't.
            let counted = [&stays, &moves].map(|world| {
                let mut metrics = *world.engine.metrics();
                metrics.loop_lag_micros = Histogram::default();
                metrics.save()
            });
            assert_eq!(counted[0], counted[1], "seed {seed}, step {step}, {act:?}");
            let counts = [&stays, &moves].map(|world| world.engine.connections_len());
            assert_eq!(counts[0], counts[1], "seed {seed}, step {step}, {act:?}");
        }
        bytes += stays
            .peers
            .iter()
            .map(|(_, wire)| wire.got.borrow().len())
            .sum::<usize>();
    }
    assert!(
        handovers > 10_000 && bytes > 500_000,
        "{handovers} handovers, {bytes} bytes"
    );
}

#[test]
fn a_record_that_is_damaged_closes_its_connection_only() {
    let mut world = World::new(ServerLimits::default());
    for _ in 0..3 {
        let peer = connect(&mut world.engine);
        world.peers.push(peer);
    }
    // What is half received shows which session has which transport.
    for (number, (id, wire)) in world.peers.iter().enumerate() {
        let mut text = Vec::new();
        let key = MaskingKey([0; 4]);
        encode_masked_frame(
            &mut text,
            Opcode::Text,
            format!("from {number}").as_bytes(),
            key,
        );
        wire.sent.borrow_mut().extend_from_slice(&text[..7]);
        world.engine.handle_ready(*id, READABLE, Timestamp::ZERO);
        wire.sent.borrow_mut().extend_from_slice(&text[7..]);
    }
    let (bytes, wires) = world.state();
    // Its unfinished input is `f` behind a header; it is the second record of three.
    let half = [0x81, 0x86, 0, 0, 0, 0, b'f'];
    let places = bytes.windows(half.len()).enumerate();
    let mut places = places.filter_map(|(at, window)| (window == half).then_some(at));
    let at = places.nth(1).expect("three of them");
    let mut damaged = bytes.clone();
    // More bytes than the record has.
    damaged[at - 1] = 0x7f;
    let (engine, carried) = world.restored(&damaged, &wires);
    assert_eq!(
        carried,
        Carried {
            connections: 2,
            lost: 1
        }
    );
    world.engine = engine;
    world.register(Timestamp::ZERO);
    world.go_on(100, Timestamp::ZERO);
    let got: Vec<_> = world.peers.iter().map(|(_, wire)| texts(wire)).collect();
    assert_eq!(got[0], ["from 2"]);
    assert!(got[1].is_empty());
    assert_eq!(got[2], ["from 0"]);
}
