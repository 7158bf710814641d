//! Nodes against a simulated Redis, under a virtual clock, with links that break and servers that fail.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::time::Duration;

use fastrand::Rng;

use super::address::{Login, Server};
use super::entry::{Place, digits};
use super::simulated::{SimulatedRedis, Taken};
use super::simulated_sockets::SimulatedSockets;
use super::*;
use crate::application::{Endpoint, Uplink};

mod handover_tests;
mod transaction_tests;

const TIMEOUT: Duration = Duration::from_secs(1);

fn settings() -> Settings {
    Settings {
        stream: "crieur".into(),
        maxlen: 100_000,
        timeout: TIMEOUT,
        history: Duration::from_secs(600),
        takes_position: |json| !json.contains(r#""keep":false"#),
    }
}

fn servers() -> Vec<Server> {
    let server = |path: &str| Server {
        endpoint: Endpoint::Unix(path.into()),
        login: Login {
            database: 3,
            password: Some("secret".to_owned()),
            ..Login::default()
        },
    };
    vec![server("/a"), server("/b")]
}

/// What became of a nonce.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Answer {
    None,
    Own(WholeId),
    Repeated(WholeId),
    Refused(Refusal),
}

/// What a node was told, in its order.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Told {
    Entry(WholeId),
    Barrier(WholeId),
    Doubt(Doubt),
    Mended,
}

/// A node: its side of Redis, its sockets, and what a hub would know.
struct Node {
    redis: Redis,
    sockets: SimulatedSockets,
    answers: BTreeMap<u64, Answer>,
    keys: HashMap<u64, String>,
    told: Vec<Told>,
    handovers: usize,
}

impl Node {
    fn new(seed: u64) -> Self {
        Self {
            redis: Redis::new(settings(), servers(), seed),
            sockets: SimulatedSockets::default(),
            answers: BTreeMap::new(),
            keys: HashMap::new(),
            told: Vec::new(),
            handovers: 0,
        }
    }

    fn append(&mut self, entries: &[Append<'_>], now: Timestamp) -> Option<Range<u64>> {
        let nonces = self.redis.append(entries, now).ok()?;
        assert_eq!(nonces.end - nonces.start, entries.len() as u64);
        for (nonce, entry) in nonces.clone().zip(entries) {
            assert_eq!(self.answers.insert(nonce, Answer::None), None);
            if let Some(key) = entry.key {
                self.keys.insert(nonce, key.to_owned());
            }
        }
        Some(nonces)
    }

    fn answer(&mut self, nonce: u64, answer: Answer) {
        let before = self.answers.insert(nonce, answer);
        assert_eq!(before, Some(Answer::None), "{nonce} is answered once");
    }

    fn take_events(&mut self, now: Timestamp, max: usize) {
        for _ in 0..max {
            let told = match self.redis.next_event(now) {
                None => return,
                Some(Event::Entry { id, own, json, .. }) => {
                    assert!(json.is_some());
                    if let Some(Nonce(nonce)) = own {
                        self.answer(nonce, Answer::Own(id));
                    }
                    Told::Entry(id)
                }
                Some(Event::Barrier(id)) => Told::Barrier(id),
                Some(Event::Mended) => Told::Mended,
                Some(Event::Doubt(doubt)) => Told::Doubt(doubt),
                Some(Event::Refused(nonces, refusal)) => {
                    assert!(!nonces.is_empty());
                    for nonce in nonces {
                        self.answer(nonce, Answer::Refused(refusal.clone()));
                    }
                    continue;
                }
                Some(Event::Repeated(Nonce(nonce), id)) => {
                    // What was trimmed ahead of it can't be passed on.
                    let has_doubt = self.told.iter().any(|told| matches!(told, Told::Doubt(_)));
                    assert!(has_doubt || self.told.contains(&Told::Entry(id)));
                    self.answer(nonce, Answer::Repeated(id));
                    continue;
                }
            };
            self.told.push(told);
        }
    }

    fn passed(&self) -> Vec<WholeId> {
        let ids = self.told.iter().filter_map(|told| match told {
            Told::Entry(id) | Told::Barrier(id) => Some(*id),
            Told::Doubt(_) | Told::Mended => None,
        });
        ids.collect()
    }
}

struct World {
    rng: Rng,
    now: Timestamp,
    server: SimulatedRedis,
    is_there: bool,
    nodes: Vec<Node>,
    /// A node becomes another process once in so many turns, if at all.
    handover_turns: Option<u32>,
}

impl World {
    fn new(seed: u64, nodes: usize) -> Self {
        let mut rng = Rng::with_seed(seed);
        let nodes = (0..nodes).map(|_| Node::new(rng.u64(..))).collect();
        Self {
            rng,
            now: Timestamp::ZERO,
            server: SimulatedRedis::new("crieur"),
            is_there: true,
            nodes,
            handover_turns: None,
        }
    }

    /// Bytes move, and some events are taken.
    fn turn(&mut self, millis: u64) {
        self.now = self.now + Duration::from_millis(millis);
        self.server.run(self.now, &mut self.rng);
        for node in &mut self.nodes {
            let turns = self.handover_turns;
            if turns.is_some_and(|turns| self.rng.u32(..turns) == 0) {
                node.hand_over(self.rng.u64(..), self.now);
            }
            if node.redis.next_deadline().is_some_and(|at| at <= self.now) {
                node.redis.handle_timeout(self.now);
            }
            let server = self.is_there.then_some(&self.server);
            node.sockets
                .pump(server, &mut node.redis, &mut self.rng, self.now);
            node.redis.check_invariants();
            let max = if self.rng.u8(..4) == 0 {
                self.rng.usize(..3)
            } else {
                usize::MAX
            };
            node.take_events(self.now, max);
            node.redis.check_invariants();
        }
    }

    /// Until everything is quiet and whole again.
    fn rest(&mut self) {
        self.server.stop(false);
        self.server.fill(false);
        self.server.demote(false);
        self.is_there = true;
        self.handover_turns = None;
        for node in &mut self.nodes {
            node.redis.hold(false);
        }
        for _ in 0..300 {
            self.turn(40);
        }
        for node in &mut self.nodes {
            node.take_events(self.now, usize::MAX);
            assert!(node.redis.is_ready() && node.redis.is_reachable() && node.redis.is_settled());
        }
    }

    fn append_something(&mut self) {
        let rng = &mut self.rng;
        let count = if rng.u8(..4) == 0 { rng.usize(1..5) } else { 1 };
        let keys: Vec<_> = (0..count)
            .map(|_| (rng.u8(..3) == 0).then(|| format!("key {}", rng.u8(..20))))
            .collect();
        let texts: Vec<_> = (0..count).map(|_| rng.u32(..).to_string()).collect();
        let entries = keys.iter().zip(&texts).map(|(key, text)| Append {
            kind: "\"kind\"",
            notification: text,
            is_kept: rng.u8(..5) > 0,
            key: key.as_deref(),
        });
        let entries: Vec<_> = entries.collect();
        let node = rng.usize(..self.nodes.len());
        self.nodes[node].append(&entries, self.now);
    }

    /// Nothing is lost by what happens here.
    fn stir(&mut self) {
        match self.rng.u8(..100) {
            0..40 => self.append_something(),
            // They go together.
            40..60 => (0..3).for_each(|_| self.append_something()),
            60..75 => {
                let json = format!(r#"{{"type":"other","notification":{}}}"#, self.rng.u64(..));
                self.server.add(&[(b"x", b"1"), (b"n", json.as_bytes())]);
            }
            75..80 => {
                let node = self.rng.usize(..self.nodes.len());
                let uplink = *self
                    .rng
                    .choice(&[Uplink::Reader, Uplink::Writer])
                    .expect("one");
                let Node { redis, sockets, .. } = &mut self.nodes[node];
                sockets.cut(uplink, redis, &mut self.rng, self.now);
            }
            80..82 => self.server.kill_clients(),
            82..85 => self.server.stop(true),
            85..89 => self.server.stop(false),
            89 => self.server.fill(true),
            90..92 => self.server.fill(false),
            92 => self.is_there = false,
            93..96 => self.is_there = true,
            96 => self.server.attach_replica(),
            97 => self.server.flush_scripts(),
            _ => {
                let node = self.rng.usize(..self.nodes.len());
                let is_held = self.rng.bool();
                self.nodes[node].redis.hold(is_held);
            }
        }
    }

    fn some_time(&mut self) -> u64 {
        match self.rng.u8(..20) {
            0 => self.rng.u64(..2500),
            1..5 => self.rng.u64(..200),
            _ => self.rng.u64(..5),
        }
    }

    /// Of each node: what it has in the log, and whether that agrees with what its publishers were told.
    fn check_answers(&self) {
        self.check(&self.server.log());
    }

    /// The same with what any server has taken.
    fn check(&self, log: &[Taken]) {
        for node in &self.nodes {
            let mut taken: BTreeMap<u64, &Taken> = BTreeMap::new();
            let mut before = None;
            for entry in log {
                let Some(nonce) = nonce_of(entry).filter(|nonce| node.answers.contains_key(nonce))
                else {
                    continue;
                };
                assert_eq!(taken.insert(nonce, entry), None, "it was sent once");
                // An earlier process may have sent it, and Redis has come to read that when its time was over.
                let unanswered = Answer::Refused(Refusal::Unanswered);
                if node.handovers > 0 && node.answers[&nonce] == unanswered {
                    continue;
                }
                assert!(before < Some(nonce), "the order is kept");
                before = Some(nonce);
            }
            for (nonce, answer) in &node.answers {
                let entry = taken.get(nonce);
                match answer {
                    Answer::None => panic!("{nonce} was never answered"),
                    Answer::Own(id) => assert_eq!(entry.map(|entry| entry.id), Some(*id)),
                    Answer::Repeated(id) => {
                        assert!(entry.is_none());
                        let first = log
                            .iter()
                            .find(|entry| entry.id == *id)
                            .expect("it is there");
                        let key = field(first, b"k").expect("a key");
                        assert_eq!(key, node.keys[nonce].as_bytes());
                    }
                    Answer::Refused(refusal) => {
                        assert!(
                            entry.is_none() || *refusal == Refusal::Unanswered,
                            "{refusal}"
                        );
                    }
                }
            }
        }
    }
}

fn field<'a>(entry: &'a Taken, name: &[u8]) -> Option<&'a [u8]> {
    let field = entry.fields.iter().find(|(field, _)| field == name);
    field.map(|(_, value)| value.as_slice())
}

fn nonce_of(entry: &Taken) -> Option<u64> {
    let text = std::str::from_utf8(field(entry, b"t")?).ok()?;
    u64::from_str_radix(text, 16).ok()
}

/// How many seeds are tried; `CRIEUR_REDIS_SEEDS` has a range of others.
fn seeds(count: u64) -> Range<u64> {
    let given = std::env::var("CRIEUR_REDIS_SEEDS").ok();
    let range = given.as_deref().and_then(|text| text.split_once(".."));
    let range = range.and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    range.unwrap_or(0..count)
}

/// Says which seed it was.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the seed was {}", self.0);
        }
    }
}

#[test]
fn every_node_passes_on_the_same_and_each_append_is_answered_once() {
    pass_on(100, |_| None);
}

/// Lives of nodes, which become other processes once in so many turns.
fn pass_on(count: u64, handover_turns: fn(&mut Rng) -> Option<u32>) {
    let mut answers: BTreeMap<String, usize> = BTreeMap::new();
    for seed in seeds(count) {
        let _seed = Seed(seed);
        let mut world = World::new(seed, 2);
        world.handover_turns = handover_turns(&mut world.rng);
        for _ in 0..world.rng.usize(..120) {
            world.stir();
            let millis = world.some_time();
            world.turn(millis);
        }
        world.rest();
        world.check_answers();
        let log: Vec<_> = world.server.log().iter().map(|entry| entry.id).collect();
        for node in &world.nodes {
            let passed = node.passed();
            assert!(
                !passed.is_empty() && log.ends_with(&passed),
                "in order, each once"
            );
            // Who begins may find entries of others, and nobody who speaks for this Redis.
            let doubts = node.told.iter().enumerate();
            let mut doubts = doubts.filter(|(_, told)| matches!(told, Told::Doubt(_)));
            assert!(doubts.all(|(at, _)| at == 0));
            for answer in node.answers.values() {
                let name = match answer {
                    Answer::Refused(refusal) => format!("{refusal:?}"),
                    other => format!("{other:?}")
                        .split('(')
                        .next()
                        .unwrap_or_default()
                        .to_owned(),
                };
                *answers.entry(name).or_default() += 1;
            }
        }
        // A node that comes later has a position at once, and reads no more than it has to.
        world.nodes = vec![Node::new(seed + 1_000_000)];
        world.rest();
        let passed = world.nodes[0].passed();
        let log_now: Vec<_> = world.server.log().iter().map(|entry| entry.id).collect();
        assert!(
            !passed.is_empty() && log_now == log && log.ends_with(&passed),
            "{passed:?} {log_now:?}"
        );
    }
    let all = [
        "Own",
        "Repeated",
        "NotSent",
        "Unanswered",
        "ByRedis(\"OOM\")",
        "ByRedis(\"NOSCRIPT\")",
    ];
    assert!(
        all.iter().all(|name| answers.contains_key(*name)),
        "{answers:?}"
    );
}

#[test]
fn a_stream_that_is_another_one_is_told_and_nothing_is_passed_on_twice() {
    pass_on_forks(100, |_| None);
}

/// The same where Redis loses something.
fn pass_on_forks(count: u64, handover_turns: fn(&mut Rng) -> Option<u32>) {
    let (mut lost, mut trimmed, mut forks) = (0, 0, 0);
    for seed in seeds(count) {
        let _seed = Seed(seed);
        let mut world = World::new(seed, 2);
        // Of the replicas. A node that was away while ids went back and forth again passes over those that went back.
        let clock = *world.rng.choice(&[-3_600_000, 0, 3_600_000]).expect("one");
        world.rest();
        world.handover_turns = handover_turns(&mut world.rng);
        for _ in 0..world.rng.usize(..80) {
            match world.rng.u8(..60) {
                0 => world.server.restart(0),
                1 => {
                    let lacking = world.rng.usize(..8);
                    world.server.fail_over(lacking, clock);
                }
                2 if world.rng.bool() => world.server.flush(),
                3 => world.server.trim(world.rng.usize(..5)),
                4 => world.server.demote(true),
                5..8 => world.server.demote(false),
                _ => world.stir(),
            }
            let millis = world.some_time();
            world.turn(millis);
        }
        world.rest();
        // What Redis has now.
        let stream: Vec<_> = world
            .server
            .entries()
            .iter()
            .map(|entry| entry.id)
            .collect();
        for node in &world.nodes {
            let passed = node.passed();
            let mut once = passed.clone();
            once.sort_by_key(|id| (Place::from(*id), id.tag));
            once.dedup();
            assert_eq!(once.len(), passed.len(), "nothing is passed on twice");
            let mut rest = passed.iter();
            let missing = stream
                .iter()
                .filter(|id| !rest.by_ref().any(|other| other == *id));
            let missing: Vec<_> = missing.collect();
            // All that is there was passed on, in its order.
            assert!(
                missing.is_empty(),
                "{missing:?} of {stream:?}: {:?}",
                node.told
            );
            let mut is_cut = false;
            for told in &node.told {
                match told {
                    Told::Doubt(doubt) => {
                        is_cut = true;
                        match doubt {
                            Doubt::Lost => lost += 1,
                            Doubt::Trimmed => trimmed += 1,
                        }
                    }
                    Told::Mended => {
                        assert!(is_cut);
                        is_cut = false;
                    }
                    Told::Entry(_) | Told::Barrier(_) => {}
                }
            }
            assert!(!is_cut, "each doubt ends");
            // What isn't there any more, and was passed on behind something that is, or just gone, was doubted.
            let is_gone = passed.last().is_some_and(|last| !stream.contains(last));
            assert!(!is_gone || stream.is_empty());
            let is_fork = !passed.is_sorted_by_key(|id| Place::from(*id));
            forks += usize::from(is_fork);
            let has_doubt = node.told.iter().any(|told| matches!(told, Told::Doubt(_)));
            assert!(!is_fork || has_doubt);
        }
    }
    assert!(
        lost > 0 && trimmed > 0 && forks > 0,
        "{lost} {trimmed} {forks}"
    );
}

#[test]
fn nonces_of_nodes_differ() {
    let first = |seed| {
        let mut node = Node::new(seed);
        node.redis.away_since = None;
        let entry = Append {
            kind: "1",
            notification: "1",
            is_kept: true,
            key: None,
        };
        node.append(&[entry], Timestamp::ZERO).expect("taken").start
    };
    assert_ne!(first(1), first(2));
    assert_eq!(digits(1), *b"0000000000000001");
}

const APPEND: Append<'_> = Append {
    kind: "\"kind\"",
    notification: "1",
    is_kept: true,
    key: None,
};

fn refused(node: &mut Node, entries: &[Append<'_>], now: Timestamp) -> Option<Refusal> {
    node.redis.append(entries, now).err()
}

/// One node that is up, and nothing else happens.
fn quiet() -> World {
    let mut world = World::new(7, 1);
    world.rest();
    world
}

#[test]
fn a_server_that_is_silent_costs_errors_and_no_link() {
    let mut world = quiet();
    world.server.stop(true);
    let now = world.now;
    let nonces = world.nodes[0]
        .append(&[APPEND], now)
        .expect("nobody knows yet");
    for _ in 0..100 {
        world.turn(16);
    }
    let node = &mut world.nodes[0];
    let unanswered = Answer::Refused(Refusal::Unanswered);
    assert_eq!(node.answers[&nonces.start], unanswered);
    assert!(!node.redis.is_reachable());
    assert_eq!(
        refused(node, &[APPEND], world.now),
        Some(Refusal::OutOfReach)
    );
    world.server.stop(false);
    for _ in 0..10 {
        world.turn(1);
    }
    let node = &mut world.nodes[0];
    assert!(node.redis.is_reachable());
    assert_eq!(node.redis.figures().connects, 1);
    assert!(
        matches!(node.told.last(), Some(Told::Entry(_))),
        "it was taken, and is passed on"
    );
    let now = world.now;
    assert!(node.append(&[APPEND], now).is_some());
    // A server that is silent for longer is given up.
    world.server.stop(true);
    for _ in 0..600 {
        world.turn(20);
    }
    world.server.stop(false);
    world.rest();
    assert!(world.nodes[0].redis.figures().connects > 1);
}

#[test]
fn what_waits_is_bounded() {
    let mut world = quiet();
    let now = world.now;
    let node = &mut world.nodes[0];
    node.redis.hold(true);
    let many = vec![APPEND; writer::PENDING_MAX + 5];
    let len = node.append(&many, now).map(|nonces| nonces.count());
    assert_eq!(len, Some(many.len()), "one alone is taken");
    assert_eq!(refused(node, &[APPEND], now), Some(Refusal::Full));
    node.redis.hold(false);
    world.rest();

    let now = world.now;
    let node = &mut world.nodes[0];
    node.redis.hold(true);
    for _ in 0..writer::PENDING_MAX {
        node.append(&[APPEND], now).expect("it is taken");
    }
    assert_eq!(refused(node, &[APPEND], now), Some(Refusal::Full));
    node.redis.hold(false);
    world.rest();

    let now = world.now;
    let node = &mut world.nodes[0];
    node.redis.hold(true);
    let text = format!("\"{}\"", "x".repeat(writer::PENDING_BYTES_MAX / 2));
    let large = Append {
        notification: &text,
        ..APPEND
    };
    assert!(node.append(&[large], now).is_some());
    assert_eq!(refused(node, &[large], now), Some(Refusal::Full));
    assert!(node.append(&[APPEND], now).is_some());
    assert_eq!(node.redis.figures().pending, 2);
    assert!(node.redis.is_settled(), "what waits is nobody else's");
    node.redis.hold(false);
    world.rest();
    world.check_answers();
    assert_eq!(world.nodes[0].redis.figures().pending, 0);
}

#[test]
fn what_waits_goes_out_with_the_next_link_or_never() {
    let mut world = quiet();
    world.is_there = false;
    world.server.kill_clients();
    world.turn(1);
    let now = world.now;
    let first = world.nodes[0]
        .append(&[APPEND], now)
        .expect("it waits")
        .start;
    let redis = &world.nodes[0].redis;
    assert!(redis.is_settled() && !redis.is_idle(), "nothing was sent");
    world.turn(500);
    world.is_there = true;
    for _ in 0..50 {
        world.turn(10);
    }
    assert!(matches!(world.nodes[0].answers[&first], Answer::Own(_)));
    assert!(world.nodes[0].redis.is_idle());

    world.is_there = false;
    world.server.kill_clients();
    world.turn(1);
    let now = world.now;
    let second = world.nodes[0]
        .append(&[APPEND], now)
        .expect("it waits")
        .start;
    for _ in 0..20 {
        world.turn(60);
    }
    assert_eq!(
        world.nodes[0].answers[&second],
        Answer::Refused(Refusal::NotSent)
    );
    assert_eq!(
        refused(&mut world.nodes[0], &[APPEND], world.now),
        Some(Refusal::OutOfReach)
    );
    world.rest();
    world.check_answers();
    assert!(world.nodes[0].redis.figures().refused_unreachable >= 2);
}

#[test]
fn one_barrier_a_failover() {
    let mut world = World::new(3, 4);
    world.rest();
    let barriers = |world: &World| {
        let log = world.server.log();
        log.iter()
            .filter(|entry| field(entry, b"b").is_some())
            .count()
    };
    let before = barriers(&world);
    assert!(before >= 1);
    for clock in [0, 0, -3_600_000] {
        world.append_something();
        world.rest();
        let before = barriers(&world);
        world.server.fail_over(0, clock);
        world.rest();
        assert_eq!(barriers(&world), before + 1);
        for node in &world.nodes {
            let last = node.told.last();
            assert_eq!(last, Some(&Told::Mended));
        }
    }
    // And for whoever comes later there is nothing to be written.
    let before = barriers(&world);
    world.nodes.push(Node::new(99));
    world.rest();
    assert_eq!(barriers(&world), before);
}

#[test]
fn a_start_at_a_redis_that_nobody_speaks_for_is_in_doubt() {
    let mut world = quiet();
    world.append_something();
    world.rest();
    world.server.fail_over(1, 0);
    // No barrier can be written.
    world.server.fill(true);
    world.nodes = vec![Node::new(8)];
    for _ in 0..40 {
        world.turn(20);
    }
    let node = &world.nodes[0];
    assert!(node.redis.is_ready());
    assert_eq!(node.told.first(), Some(&Told::Doubt(Doubt::Lost)));
    assert!(!node.told.contains(&Told::Mended), "{:?}", node.told);
    world.rest();
    assert_eq!(world.nodes[0].told.last(), Some(&Told::Mended));
}

#[test]
fn a_replica_is_passed_over() {
    let mut world = quiet();
    world.server.demote(true);
    // A replica can be read; whoever writes is told.
    let now = world.now;
    world.nodes[0].append(&[APPEND], now);
    for _ in 0..20 {
        world.turn(10);
    }
    let node = &mut world.nodes[0];
    let mut asked = Vec::new();
    let mut now = world.now;
    for _ in 0..40 {
        now = now + Duration::from_millis(100);
        node.redis.handle_timeout(now);
        for uplink in [Uplink::Reader, Uplink::Writer] {
            if let Some(endpoint) = node.redis.take_connect(uplink) {
                asked.push(endpoint);
                node.redis.handle_connected(uplink, now);
                node.redis.handle_received(
                    uplink,
                    b"+OK\r\n+OK\r\n+OK\r\n*1\r\n$5\r\nslave\r\n",
                    now,
                );
            }
        }
        node.redis.check_invariants();
    }
    let servers = servers();
    let are_all = servers
        .iter()
        .all(|server| asked.contains(&server.endpoint));
    assert!(are_all, "{asked:?}");
    world.rest();
}

/// What a server says to a greeting that it is fine with.
fn welcome(run_id: &str, scripts: usize) -> String {
    let info = format!("run_id:{run_id}\r\n");
    let script = "$1\r\nx\r\n".repeat(scripts);
    format!(
        "+OK\r\n+OK\r\n+OK\r\n*1\r\n$6\r\nmaster\r\n${}\r\n{info}\r\n$0\r\n\r\n{script}$-1\r\n",
        info.len()
    )
}

/// A Redis that is greeted, its reader by the first of these.
fn greeted(run_ids: [&str; 2]) -> Redis {
    let mut redis = Redis::new(settings(), servers(), 5);
    redis.handle_timeout(Timestamp::ZERO);
    for (uplink, run_id) in [Uplink::Reader, Uplink::Writer].into_iter().zip(run_ids) {
        assert!(redis.take_connect(uplink).is_some() && redis.take_connect(uplink).is_none());
        redis.handle_connected(uplink, Timestamp::ZERO);
        let greeting = String::from_utf8_lossy(redis.unsent(uplink)).into_owned();
        assert!(
            greeting.starts_with(
                "*2\r\n$4\r\nAUTH\r\n$6\r\nsecret\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n"
            )
        );
        redis.handle_sent(uplink, greeting.len(), Timestamp::ZERO);
        let scripts = if uplink == Uplink::Writer { 2 } else { 0 };
        redis.handle_received(uplink, welcome(run_id, scripts).as_bytes(), Timestamp::ZERO);
    }
    redis
}

#[test]
fn both_connections_lead_to_one_server() {
    let mut redis = greeted(["a", "a"]);
    assert!(redis.figures().is_up);
    let mut redis_of_two = greeted(["a", "b"]);
    assert!(!redis_of_two.figures().is_up);
    assert_eq!(
        redis_of_two.take_connect(Uplink::Reader),
        Some(Endpoint::Unix("/b".into()))
    );
    // The first thing that is read is the newest entry, the first that is written a barrier.
    let asked = String::from_utf8_lossy(redis.unsent(Uplink::Reader)).into_owned();
    assert!(asked.contains("XREVRANGE") && !asked.contains("XREAD\r\n"));
    let written = String::from_utf8_lossy(redis.unsent(Uplink::Writer)).into_owned();
    assert!(written.starts_with("*9\r\n$7\r\nEVALSHA\r\n"));
}

#[test]
fn a_reply_that_is_too_long_is_asked_for_alone() {
    let mut redis = greeted(["a", "a"]);
    let answer = |redis: &mut Redis, reply: &str| {
        let len = redis.unsent(Uplink::Reader).len();
        let asked = String::from_utf8_lossy(redis.unsent(Uplink::Reader)).into_owned();
        redis.handle_sent(Uplink::Reader, len, Timestamp::ZERO);
        redis.handle_received(Uplink::Reader, reply.as_bytes(), Timestamp::ZERO);
        asked
    };
    answer(&mut redis, "*0\r\n");
    let asked = answer(
        &mut redis,
        "*1\r\n*2\r\n$6\r\ncrieur\r\n*1\r\n*2\r\n$3\r\n5-0\r\n*2\r\n$1\r\nn\r\n$300000000\r\n",
    );
    assert!(asked.contains("COUNT\r\n$4\r\n1024\r\n"));
    assert!(!redis.figures().is_up);
    redis.handle_timeout(Timestamp::ZERO + BACKOFF_MAX);
    for uplink in [Uplink::Reader, Uplink::Writer] {
        assert!(redis.take_connect(uplink).is_some());
        redis.handle_connected(uplink, Timestamp::ZERO);
        let len = redis.unsent(uplink).len();
        redis.handle_sent(uplink, len, Timestamp::ZERO);
        let scripts = if uplink == Uplink::Writer { 2 } else { 0 };
        redis.handle_received(uplink, welcome("a", scripts).as_bytes(), Timestamp::ZERO);
    }
    answer(&mut redis, "*0\r\n*0\r\n");
    let asked = answer(
        &mut redis,
        "*1\r\n*2\r\n$6\r\ncrieur\r\n*1\r\n*2\r\n$3\r\n5-0\r\n*2\r\n$1\r\nn\r\n$300000000\r\n",
    );
    assert!(asked.contains("COUNT\r\n$1\r\n1\r\n"), "{asked}");
    assert!(redis.figures().is_up, "it is waited for");
}

#[test]
fn what_is_held_is_sent_later_and_a_stranger_does_not_answer_for_it() {
    let mut world = quiet();
    let now = world.now;
    let node = &mut world.nodes[0];
    node.redis.hold(true);
    let nonce = node.append(&[APPEND], now).expect("it waits").start;
    let made_up = world.server.add(&[(b"n", b"1"), (b"t", &digits(nonce))]);
    for _ in 0..20 {
        world.turn(1);
    }
    let node = &mut world.nodes[0];
    assert_eq!(node.told.last(), Some(&Told::Entry(made_up)));
    assert_eq!(node.answers[&nonce], Answer::None);
    assert_eq!(
        world.server.log().last().map(|entry| entry.id),
        Some(made_up)
    );
    node.redis.hold(false);
    for _ in 0..20 {
        world.turn(1);
    }
    let answer = &world.nodes[0].answers[&nonce];
    assert!(matches!(answer, Answer::Own(id) if *id != made_up));
}

#[test]
fn a_stream_that_is_filled_anew_at_once_is_noticed() {
    let mut world = quiet();
    for _ in 0..3 {
        world.server.add(&[(b"n", b"1")]);
    }
    for _ in 0..10 {
        world.turn(0);
    }
    let before = world.nodes[0].told.len();
    world.server.flush();
    let new = [2, 3, 4, 5, 6].map(|text: u8| world.server.add(&[(b"n", &[b'0' + text])]));
    world.rest();
    let told = &world.nodes[0].told[before..];
    assert_eq!(told[0], Told::Doubt(Doubt::Lost));
    let entries = new.map(Told::Entry);
    assert!(told[1..].starts_with(&entries), "{told:?}");
}

#[test]
fn a_stream_that_is_filled_anew_from_an_earlier_id_on_is_noticed() {
    let mut world = quiet();
    let add = |world: &mut World| {
        let id = world.server.add(&[(b"n", b"1")]);
        (0..10).for_each(|_| world.turn(0));
        id
    };
    let read = [(); 3].map(|()| add(&mut world));
    // Dropping what is the oldest is no reason for doubt.
    world.server.trim(1);
    let next = add(&mut world);
    let told = &world.nodes[0].told;
    assert!(told.ends_with(&[Told::Entry(read[2]), Told::Entry(next)]));
    let before = told.len();
    world.server.flush();
    world.server.set_clock(-3_600_000);
    world.server.add(&[(b"n", b"2")]);
    world.server.set_clock(10);
    let new = world.server.add(&[(b"n", b"3")]);
    world.rest();
    let told = &world.nodes[0].told[before..];
    assert!(
        told.starts_with(&[Told::Doubt(Doubt::Lost), Told::Entry(new)]),
        "{told:?}"
    );
    assert!(told.ends_with(&[Told::Mended]), "{told:?}");
}

#[test]
fn a_barrier_whose_id_is_too_long_ends_no_doubt() {
    let mut world = quiet();
    let before = world.nodes[0].told.len();
    world.server.flush();
    world.server.set_clock(i64::MAX);
    for _ in 0..1000 {
        world.server.add(&[(b"n", b"1")]);
    }
    // What comes now has the milliseconds of the newest, and a digit more than may be told.
    world.server.set_clock(0);
    for _ in 0..300 {
        world.turn(10);
    }
    let told = &world.nodes[0].told[before..];
    assert!(matches!(told[0], Told::Doubt(_)));
    let Some(Told::Barrier(id)) = told.last() else {
        panic!("a barrier is the last: {:?}", told.last());
    };
    assert_eq!(id.sequence, 1000);
}

#[test]
fn a_start_waits_for_nothing_once_all_is_read() {
    for entries in [0, 3, 2000] {
        let mut world = World::new(7, 1);
        for _ in 0..entries {
            world.server.add(&[(b"n", b"1")]);
        }
        // As a hub does: an event at a time, and only when there is something to do.
        let mut left_ms = settings().block_millis() - 10;
        while !world.nodes[0].redis.is_ready() {
            world.server.run(world.now, &mut world.rng);
            let World {
                server,
                rng,
                now,
                nodes,
                ..
            } = &mut world;
            let node = &mut nodes[0];
            node.sockets.pump(Some(server), &mut node.redis, rng, *now);
            while node.redis.next_deadline().is_some_and(|at| at <= *now) {
                node.take_events(*now, 1);
            }
            *now = *now + Duration::from_millis(1);
            left_ms = left_ms.checked_sub(1).expect("it is ready by then");
        }
    }
}

/// The same against a real one, which `CRIEUR_REDIS_URL` names by its Unix socket and a user. It is flushed, by its default
/// user, who has no password.
mod real {
    use std::io::{ErrorKind, Read, Write};
    use std::os::unix::net::UnixStream;
    use std::path::Path;
    use std::time::Instant;

    use super::super::address::{Address, Location};
    use super::super::entry::{self, whole_id};
    use super::super::reply::Inbox;
    use super::*;

    /// What a command answers.
    fn ask(path: &Path, command: &[&[u8]], look: impl FnOnce(super::super::reply::Reply<'_>)) {
        let mut socket = UnixStream::connect(path).expect("a Redis");
        let mut bytes = Vec::new();
        command::write(&mut bytes, command);
        socket.write_all(&bytes).expect("it takes commands");
        let mut inbox = Inbox::new(REPLY_BYTES_MAX);
        loop {
            let mut buffer = [0; 4096];
            let len = socket.read(&mut buffer).expect("it answers");
            inbox.push(&buffer[..len]);
            if let Some(whole) = inbox.next().expect("a reply") {
                return look(whole.reply(inbox.bytes()));
            }
        }
    }

    fn log(path: &Path) -> Vec<Taken> {
        let mut log = Vec::new();
        ask(path, &[b"XRANGE", b"crieur", b"-", b"+"], |reply| {
            for reply in reply.list().expect("a list").iter() {
                let (place, fields) = entry::read(reply).expect("an entry");
                let id = whole_id(place, fields);
                let texts: Vec<_> = fields.iter().filter_map(|text| text.text()).collect();
                let fields = texts
                    .chunks(2)
                    .map(|pair| (pair[0].to_vec(), pair[1].to_vec()));
                let fields = fields.collect();
                let ahead = log.len().checked_sub(1);
                log.push(Taken { id, fields, ahead });
            }
        });
        log
    }

    #[derive(Default)]
    struct Sockets([Option<UnixStream>; 2]);

    impl Sockets {
        fn pump(&mut self, path: &Path, redis: &mut Redis, now: Timestamp) {
            for uplink in [Uplink::Reader, Uplink::Writer] {
                let socket = &mut self.0[uplink as usize];
                if redis.take_connect(uplink).is_some() {
                    let opened = UnixStream::connect(path).expect("a Redis");
                    opened.set_nonblocking(true).expect("it can be");
                    *socket = Some(opened);
                    redis.handle_connected(uplink, now);
                }
                let Some(stream) = socket.as_mut().filter(|_| redis.is_open(uplink)) else {
                    *socket = None;
                    continue;
                };
                let mut buffer = [0; 10_000];
                match stream.read(&mut buffer) {
                    Ok(0) => redis.handle_end(uplink, None, now),
                    Ok(len) => redis.handle_received(uplink, &buffer[..len], now),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => redis.handle_end(uplink, Some(&error), now),
                }
                let unsent = redis.unsent(uplink);
                let sent = if unsent.is_empty() {
                    0
                } else {
                    stream.write(unsent).unwrap_or(0)
                };
                redis.handle_sent(uplink, sent, now);
            }
        }
    }

    #[test]
    #[ignore = "flushes the Redis that CRIEUR_REDIS_URL names"]
    fn a_real_one_does_the_same() {
        let url = std::env::var("CRIEUR_REDIS_URL").expect("a URL of a Redis");
        let address: Address = url.parse().expect("a URL");
        let Location::Unix(path) = &address.location else {
            panic!("{} is no Unix socket", address.location);
        };
        ask(path, &[b"FLUSHALL"], |_| {});
        ask(path, &[b"SCRIPT", b"FLUSH"], |_| {});
        let mut world = World::new(1, 3);
        for node in &mut world.nodes {
            for server in &mut node.redis.servers {
                server.login = address.login.clone();
            }
        }
        let start = Instant::now();
        let mut sockets = [Sockets::default(), Sockets::default(), Sockets::default()];
        let mut appends = 0;
        while start.elapsed() < Duration::from_secs(6) {
            world.now = Timestamp::from_micros(start.elapsed().as_micros() as u64);
            for (node, sockets) in world.nodes.iter_mut().zip(&mut sockets) {
                node.redis.handle_timeout(world.now);
                sockets.pump(path, &mut node.redis, world.now);
                node.take_events(world.now, usize::MAX);
                node.redis.check_invariants();
            }
            let is_ready = world.nodes.iter().all(|node| node.redis.is_ready());
            if is_ready && start.elapsed() < Duration::from_secs(4) {
                for _ in 0..1 + appends % 3 {
                    world.append_something();
                }
                appends += 1;
                match appends % 4000 {
                    1000 => ask(path, &[b"CLIENT", b"KILL", b"TYPE", b"normal"], |_| {}),
                    2000 => ask(path, &[b"SCRIPT", b"FLUSH"], |_| {}),
                    3000 => ask(path, &[b"CONFIG", b"SET", b"maxmemory", b"1"], |_| {}),
                    3100 => ask(path, &[b"CONFIG", b"SET", b"maxmemory", b"0"], |_| {}),
                    _ => {}
                }
            }
        }
        let log = log(path);
        let ids: Vec<_> = log.iter().map(|entry| entry.id).collect();
        let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
        for node in &world.nodes {
            assert_eq!(node.passed(), ids);
            assert!(!node.told.iter().any(|told| matches!(told, Told::Doubt(_))));
            for answer in node.answers.values() {
                let text = format!("{answer:?}");
                let kind = text.split("Id").next().unwrap_or_default().to_owned();
                *kinds.entry(kind).or_default() += 1;
            }
        }
        world.check(&log);
        let barriers = log
            .iter()
            .filter(|entry| field(entry, b"b").is_some())
            .count();
        println!(
            "{appends} appends, {} entries, {barriers} barriers, {kinds:?}",
            ids.len()
        );
        assert!(barriers >= 1 && appends > 100);
        // Another Redis, by what it says of itself.
        ask(path, &[b"FLUSHALL"], |_| {});
        let until = start.elapsed() + Duration::from_secs(3);
        while start.elapsed() < until {
            world.now = Timestamp::from_micros(start.elapsed().as_micros() as u64);
            for (node, sockets) in world.nodes.iter_mut().zip(&mut sockets) {
                node.redis.handle_timeout(world.now);
                sockets.pump(path, &mut node.redis, world.now);
                node.take_events(world.now, usize::MAX);
            }
        }
        let ids: Vec<_> = self::log(path).iter().map(|entry| entry.id).collect();
        for node in &world.nodes {
            let told = &node.told[log.len()..];
            println!("{told:?}");
            assert_eq!(told.first(), Some(&Told::Doubt(Doubt::Lost)));
            assert!(told.contains(&Told::Mended));
            assert!(node.passed().ends_with(&ids));
        }
    }
}
