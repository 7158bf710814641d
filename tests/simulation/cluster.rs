//! Several servers and one Redis: each node is a server's loop without a poll, as in `world`, and its sockets to Redis
//! are memory too. The cluster decides which bytes move when, what time it is, and what breaks; peers connect to any
//! node, and come back to any other.
//!
//! Main type: [`Cluster`]. What Redis has taken is known by `truth`, what each node must make of it by `judge`.

mod judge;
mod node;
mod peer;
mod reading;
mod truth;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use crieur::application::{Application, Uplink};
use crieur::config::HistoryLimits;
use crieur::hub::replay::Slice;
use crieur::redis::simulated::SimulatedRedis;
use crieur::time::Timestamp;

use crate::dice::Dice;
use crate::texts::{self, Style};

use self::judge::Court;
use self::node::{Configuration, Node};
use self::peer::{Kind, Memory};
use self::truth::Truth;

const MILLISECOND: u64 = 1000;

/// What publishers send.
const STYLE: Style = Style {
    has_keys: true,
    is_short: true,
};

/// How many turns a run has before it comes to its end.
const TURNS: (usize, usize) = (20, 120);

/// How long a turn is while everything comes to rest, how many there may be, and in how many nothing has to happen.
const REST_MILLIS: u64 = 50;
const REST_TURNS_MAX: usize = 600;
const QUIET_TURNS: usize = 25;

/// What a run has seen.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Tally {
    pub(crate) entries: u64,
    pub(crate) deliveries: u64,
    pub(crate) receipts: u64,
    /// Notifications that were there already, by their key.
    pub(crate) repeated: u64,
    /// Publishers that were told that it wasn't published, or may not have been.
    pub(crate) refused: u64,
    pub(crate) unanswered: u64,
    /// Ids that clients have shown, and got what was missed; of those, lists that have waited; or were told that
    /// something may be missing.
    pub(crate) resumed: u64,
    pub(crate) awaited: u64,
    pub(crate) not_resumed: u64,
    /// Notifications that were missed and came then.
    pub(crate) replayed: u64,
    /// Times that a node said that something may be gone, and clients that were told.
    pub(crate) doubts: u64,
    pub(crate) gaps: u64,
    /// Entries that somebody has read, and Redis has lost.
    pub(crate) lost: u64,
    /// Nodes that were killed, and began anew.
    pub(crate) killed: u64,
    /// Nodes that have become other programs.
    pub(crate) handed_over: u64,
}

impl Tally {
    /// Adds what another run has seen.
    pub(crate) const fn add(&mut self, other: &Self) {
        self.entries += other.entries;
        self.deliveries += other.deliveries;
        self.receipts += other.receipts;
        self.repeated += other.repeated;
        self.refused += other.refused;
        self.unanswered += other.unanswered;
        self.resumed += other.resumed;
        self.awaited += other.awaited;
        self.not_resumed += other.not_resumed;
        self.replayed += other.replayed;
        self.doubts += other.doubts;
        self.gaps += other.gaps;
        self.lost += other.lost;
        self.killed += other.killed;
        self.handed_over += other.handed_over;
    }

    /// Whether everything has happened that a cluster is tried for.
    pub(crate) const fn is_complete(&self) -> bool {
        self.deliveries > 0
            && self.repeated > 0
            && self.refused > 0
            && self.unanswered > 0
            && self.replayed > 0
            && self.awaited > 0
            && self.not_resumed > 0
            && self.gaps > 0
            && self.lost > 0
            && self.killed > 0
            && self.handed_over > 0
    }
}

/// The nodes, their Redis, and what is to be true of them.
struct Cluster {
    dice: Dice,
    clock: Rc<Cell<u64>>,
    configuration: Configuration,
    redis: SimulatedRedis,
    truth: Truth,
    /// Whether anything leads to Redis.
    is_there: bool,
    is_stopped: bool,
    is_full: bool,
    is_replica: bool,
    /// By how many milliseconds the clocks of replicas are off. One for all: a node that was away while ids went back and
    /// forth again passes over those that went back.
    shift: i64,
    /// Whether Redis loses entries in this run.
    loses: bool,
    /// Something has happened that is a reason for doubts.
    may_doubt: bool,
    /// Redis was a replica for a while. A node whose links were idle then finds that out with its next one.
    has_wavered: bool,
    nodes: Vec<Node>,
    nodes_begun: usize,
    memories: Vec<Memory>,
    peers_max: usize,
    tally: Tally,
}

/// Runs the cluster of `seed` from its beginning to its end.
pub(crate) fn run(seed: u64) -> Tally {
    let mut cluster = Cluster::new(seed);
    cluster.rest();
    for _ in 0..cluster.dice.between(TURNS.0, TURNS.1) {
        cluster.live();
        if cluster.dice.chance(12) {
            cluster.stir();
        }
        if cluster.dice.chance(6) {
            cluster.hand_over();
        }
        let millis = cluster.some_time();
        cluster.turn(millis);
        if cluster.dice.chance(1) {
            cluster.rest();
        }
    }
    cluster.rest();
    // Whoever comes now finds everything.
    cluster.start_node();
    cluster.rest();
    cluster.truth.check();
    cluster.tally.entries = cluster.truth.len() as u64;
    cluster.tally
}

fn configuration(seed: u64, dice: &mut Dice) -> Configuration {
    let age_max = Duration::from_secs(dice.pick(&[300, 300, 300, 20, 5]));
    Configuration {
        history: HistoryLimits {
            age_max,
            ..HistoryLimits::default()
        },
        slice: match dice.below(3) {
            0 => Slice::default(),
            _ => Slice {
                entries: dice.pick(&[1, 3, 1000]),
                bytes: dice.pick(&[1, 500, 10_000]),
            },
        },
        // With the least of these the stream is trimmed ahead of readers.
        maxlen: if seed.is_multiple_of(8) { 5 } else { 100_000 },
        timeout: Duration::from_secs(1),
    }
}

impl Cluster {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let configuration = configuration(seed, &mut dice);
        let redis = SimulatedRedis::new("crieur");
        let mut cluster = Self {
            clock: Rc::default(),
            configuration,
            truth: Truth::new(redis.clone()),
            redis,
            is_there: true,
            is_stopped: false,
            is_full: false,
            is_replica: false,
            shift: dice.pick(&[-3_600_000, 0, 0, 3_600_000]),
            loses: dice.chance(70),
            may_doubt: true,
            has_wavered: false,
            nodes: Vec::new(),
            nodes_begun: 0,
            memories: Vec::new(),
            peers_max: dice.pick(&[3, 8, 20]),
            tally: Tally::default(),
            dice,
        };
        (0..2 + seed % 2).for_each(|_| cluster.start_node());
        cluster
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.clock.get())
    }

    fn start_node(&mut self) {
        let number = self.nodes_begun;
        self.nodes_begun += 1;
        let node = Node::start(number, self.configuration, &self.clock, &mut self.dice);
        self.nodes.push(node);
    }

    fn some_time(&mut self) -> u64 {
        match self.dice.below(20) {
            0 => self.dice.below(2500) as u64,
            1..5 => self.dice.below(200) as u64,
            _ => self.dice.below(5) as u64,
        }
    }

    // What peers do.

    fn live(&mut self) {
        for _ in 0..self.dice.below(3) {
            let which = self.dice.below(self.nodes.len());
            let node = &mut self.nodes[which];
            if node.is_ready() && node.peers.len() < self.peers_max {
                let kind =
                    self.dice
                        .pick(&[Kind::Ephemeral, Kind::Ephemeral, Kind::Kept, Kind::Http]);
                let mut memory = None;
                if kind != Kind::Http && !self.memories.is_empty() && self.dice.chance(60) {
                    let which = self.dice.below(self.memories.len());
                    memory = Some(self.memories.swap_remove(which));
                }
                node.connect(kind, memory, &mut self.dice);
            }
        }
        for node in &mut self.nodes {
            for peer in &mut node.peers {
                if self.dice.chance(25) {
                    peer.act(&mut self.truth, &mut self.dice);
                }
                if self.dice.chance(60) {
                    peer.arrive(self.dice.pick(&[1, 100, 10_000, usize::MAX, usize::MAX]));
                }
                if self.dice.chance(20) {
                    peer.relax();
                }
            }
        }
        if self.dice.chance(15) {
            self.add_from_outside();
        }
    }

    /// Somebody appends to the stream who isn't a node.
    fn add_from_outside(&mut self) {
        if self.is_stopped || self.is_full || self.is_replica {
            return;
        }
        let publication = loop {
            let number = self.truth.number();
            let publication = texts::publication(&mut self.dice, number, false, STYLE);
            if publication.key.is_none() {
                break publication;
            }
        };
        if self.dice.chance(80) {
            self.truth.announce(&publication);
            let entry = publication.entry();
            self.redis.add(&[(b"x", b"1"), (b"n", entry.as_bytes())]);
            return;
        }
        const INVALID: [&[u8]; 6] = [
            b"{",
            b"",
            b"\xff",
            br#"{"notification":{"package":"p"}}"#,
            br#"[{"notification":{"channel":"a"}}]"#,
            br#"{"notification":{"channel":"a"},"key":"1"}"#,
        ];
        let invalid = self.dice.pick(&INVALID);
        // Equal entries of one millisecond would be one on two branches.
        let number = self.dice.next_u64().to_be_bytes();
        match self.dice.below(6) {
            0 => self.redis.add(&[(b"x", &number)]),
            _ => self.redis.add(&[(b"n", invalid), (b"x", &number)]),
        };
    }

    // What breaks.

    fn stir(&mut self) {
        let which = self.dice.below(self.nodes.len());
        match self.dice.below(100) {
            0..25 => self.cut(which),
            25..30 => self.redis.kill_clients(),
            30..36 => self.set_stopped(true),
            36..46 => self.set_stopped(false),
            46..51 => self.set_full(true),
            51..58 => self.set_full(false),
            58..62 => self.is_there = false,
            62..70 => self.is_there = true,
            70..73 => self.redis.attach_replica(),
            73..76 => self.redis.flush_scripts(),
            76..82 => self.replace_node(which),
            _ if !self.loses => {}
            82..85 => {
                // What its disk lacks.
                let lacking = self.dice.pick(&[0, 1, 4]);
                self.redis.restart(lacking);
                self.may_doubt = true;
            }
            85..87 => {
                self.redis.restart(0);
                self.redis.flush();
                self.may_doubt = true;
            }
            87..93 => {
                let lacking = self.dice.below(9);
                self.redis.fail_over(lacking, self.shift);
                self.truth.has_moved |= self.shift != 0;
                self.may_doubt = true;
            }
            93..95 => {
                self.redis.flush();
                self.may_doubt = true;
                // Its new ids may be lower ones.
                if self.dice.chance(50) {
                    self.redis.set_clock(self.shift);
                    self.truth.has_moved |= self.shift != 0;
                }
            }
            95..97 => {
                self.redis.trim(self.dice.below(6));
                self.may_doubt = true;
            }
            _ => self.set_replica(!self.is_replica),
        }
    }

    /// The link of a node breaks, wherever its bytes are.
    fn cut(&mut self, which: usize) {
        let uplink = self.dice.pick(&[Uplink::Reader, Uplink::Writer]);
        let node = &mut self.nodes[which];
        let (now, rng) = (node.now(), self.dice.rng());
        let mut routes = node.routes.borrow_mut();
        let uplinks = routes.uplinks().expect("there is a Redis");
        node.sockets.cut(uplink, uplinks, rng, now);
    }

    fn set_stopped(&mut self, is_stopped: bool) {
        self.is_stopped = is_stopped;
        self.redis.stop(is_stopped);
    }

    fn set_full(&mut self, is_full: bool) {
        self.is_full = is_full;
        self.redis.fill(is_full);
    }

    fn set_replica(&mut self, is_replica: bool) {
        self.has_wavered |= self.is_replica != is_replica;
        self.is_replica = is_replica;
        self.redis.demote(is_replica);
    }

    /// A node is killed, and another one begins.
    fn replace_node(&mut self, which: usize) {
        let node = self.nodes.remove(which);
        self.memories.extend(node.kill(&mut self.dice));
        self.start_node();
        self.tally.killed += 1;
    }

    /// A node becomes another program, as it may once it serves.
    fn hand_over(&mut self) {
        let which = self.dice.below(self.nodes.len());
        let node = &mut self.nodes[which];
        if node.is_ready() {
            node.hand_over(&mut self.dice);
            self.tally.handed_over += 1;
        }
    }

    // What nodes do.

    /// Some time passes, and each node does something.
    fn turn(&mut self, millis: u64) {
        let micros = self.clock.get() + millis * MILLISECOND;
        self.clock.set(micros + self.dice.below(300) as u64);
        self.redis.run(self.now(), self.dice.rng());
        for which in 0..self.nodes.len() {
            self.turn_node(which, 80);
            if self.dice.chance(60) {
                self.redis.run(self.now(), self.dice.rng());
            }
        }
    }

    fn turn_node(&mut self, which: usize, percent: usize) {
        let redis = self.is_there.then_some(&self.redis);
        let node = &mut self.nodes[which];
        node.turn(redis, percent, &mut self.dice);
        let mut court = Court {
            truth: &mut self.truth,
            tally: &mut self.tally,
            may_doubt: self.may_doubt || self.has_wavered || self.configuration.maxlen < 1000,
            now: self.clock.get(),
        };
        node.follow(&mut court);
        for peer in &mut node.peers {
            peer.take(&mut self.dice);
        }
        self.memories.extend(node.drop_the_dropped());
    }

    /// Everything is whole again, until nothing is under way.
    fn rest(&mut self) {
        self.set_stopped(false);
        self.set_full(false);
        self.set_replica(false);
        self.is_there = true;
        let mut quiet = 0;
        for _ in 0..REST_TURNS_MAX {
            for peer in self.nodes.iter_mut().flat_map(|node| &mut node.peers) {
                peer.relax();
                peer.arrive(usize::MAX);
            }
            self.clock.set(self.clock.get() + REST_MILLIS * MILLISECOND);
            for which in 0..self.nodes.len() {
                self.redis.run(self.now(), self.dice.rng());
                self.turn_node(which, 100);
            }
            quiet = if self.unrest().is_none() {
                quiet + 1
            } else {
                0
            };
            if quiet == QUIET_TURNS {
                return self.check_at_rest();
            }
        }
        panic!("there is no rest: {:?}", self.unrest());
    }

    /// What is under way.
    fn unrest(&self) -> Option<String> {
        let tip = self.redis.tip();
        self.nodes.iter().find_map(|node| {
            let routes = node.routes.borrow();
            let redis = routes.hub().redis().expect("there is one");
            let Node {
                number, reading, ..
            } = node;
            let reasons = [
                (!routes.is_ready(), "isn't ready"),
                (!redis.is_reachable(), "doesn't reach Redis"),
                (!redis.is_settled(), "awaits an answer of Redis"),
                (reading.newest() != tip, "hasn't read all"),
                (reading.is_cut, "is in doubt"),
            ];
            let reason = reasons.into_iter().find(|(is_so, _)| *is_so);
            let peers = || {
                let mut peers = node.peers.iter();
                peers.find_map(|peer| {
                    Some(format!("{}, {:?}: {}", peer.id, peer.kind, peer.unrest()?))
                })
            };
            let reason = reason.map(|(_, text)| text.to_owned()).or_else(peers);
            reason.map(|reason| format!("{number} {reason}: {reading:?} of {tip:?}"))
        })
    }

    /// All nodes are even, and nobody lacks what he was promised.
    fn check_at_rest(&mut self) {
        let names: Vec<_> = self.nodes.iter().map(|node| node.reading.name).collect();
        assert!(names.windows(2).all(|two| two[0] == two[1]), "{names:?}");
        self.truth.check();
        let lost = self.truth.lost();
        self.tally.lost = lost.len() as u64;
        for node in &mut self.nodes {
            for peer in &mut node.peers {
                let Some(promise) = peer.promise else {
                    continue;
                };
                for &record in &lost {
                    let is_missing =
                        self.truth.is_promised(record, promise) && !node.reading.has_read(record);
                    assert!(
                        !is_missing,
                        "{} of {} was promised what follows {promise:?}; {record} is lost, and it isn't told",
                        peer.id, node.number
                    );
                }
            }
        }
        for node in &mut self.nodes {
            let newest = node.reading.name;
            for peer in node.peers.iter_mut().filter(|peer| peer.is_numbered) {
                peer.promise = newest.map(|newest| self.truth.promise(newest));
            }
        }
        self.may_doubt = false;
    }
}
