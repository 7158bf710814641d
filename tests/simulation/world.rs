//! The server's loop without a poll: the world decides which bytes arrive when, in which order
//! readiness is told, and what time it is; and holds what comes out against what must.

mod judge;

use std::cell::{Cell, RefCell};
use std::num::NonZeroU32;
use std::rc::Rc;
use std::time::Duration;

use crieur::application::Lane;
use crieur::config::{HubConfig, ServerLimits, Timeouts};
use crieur::hub::Hub;
use crieur::id::ConnectionId;
use crieur::net::engine::{Engine, Readiness};
use crieur::time::{Clock, Timestamp};

use crate::client::{Client, Stage};
use crate::dice::Dice;
use crate::trust::{Papers, Trust};
use crate::wire::{End, Socket};
use crate::witness::{Note, Witness};

/// How long clients get to take their Close.
const DRAIN: Duration = Duration::from_secs(5);

const SECOND: u64 = 1_000_000;

/// How many turns of the loop a run has before it comes to its end.
const TURNS: (usize, usize) = (50, 350);

/// A clock that is moved by hand. Within a turn of the loop each look at it costs some time, so that
/// turns come to the end of theirs; what is done is still done at the turn's time.
struct VirtualClock {
    micros: Rc<Cell<u64>>,
    /// What the looks of this turn have cost.
    spent_micros: Rc<Cell<u64>>,
    look_micros: u64,
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        let spent_micros = self.spent_micros.get() + self.look_micros;
        self.spent_micros.set(spent_micros);
        Timestamp::from_micros(self.micros.get() + spent_micros)
    }

    fn unix_now(&self) -> Duration {
        Duration::from_micros(self.micros.get())
    }
}

/// What the engine is doing; a connection may come to its end for reasons of its own in each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Input,
    Timers,
    Shed,
    /// Everybody but publishers is told that the server stops.
    Shutdown,
    /// They are told too.
    LastShutdown,
}

/// What a run has seen.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Tally {
    pub(crate) clients: u64,
    pub(crate) published: u64,
    pub(crate) deliveries: u64,
    pub(crate) cut_off: u64,
    /// Upgrades that were refused because of their origin.
    pub(crate) forbidden: u64,
    /// Connections that had to make room for others.
    pub(crate) displaced: u64,
    /// Clients who were not read for a while.
    pub(crate) throttled: u64,
}

/// The server, its clients, and what is to be true of them.
pub(crate) struct World {
    dice: Dice,
    clock: Rc<Cell<u64>>,
    /// What the server's looks at the clock have cost in this turn.
    spent_micros: Rc<Cell<u64>>,
    limits: ServerLimits,
    trust: Trust,
    /// How many clients there are at most, and how many come at once.
    crowd: (usize, usize),
    /// Whether clients send more at once than a read returns.
    has_bursts: bool,
    engine: Engine<Socket, Witness, VirtualClock>,
    hub: Rc<RefCell<Hub>>,
    notes: Rc<RefCell<Vec<Note>>>,
    phase: Phase,
    clients: Vec<Client>,
    /// Names of those who are gone, for events that come too late.
    past: Vec<ConnectionId>,
    is_stopping: bool,
    publishers_told_by: Option<Timestamp>,
    turns: usize,
    /// How many were cut off before what is being observed.
    slow_consumers: u64,
    tally: Tally,
}

/// Runs the world of `seed` from its beginning to its end.
pub(crate) fn run(seed: u64) -> Tally {
    let mut world = World::new(seed);
    let turns = world.dice.between(TURNS.0, TURNS.1);
    for _ in 0..turns {
        world.live();
        world.turn();
        if world.dice.chance(4) {
            world.jump();
        }
    }
    world.end();
    let metrics = world.engine.metrics();
    world.tally.displaced = metrics.connections_displaced;
    world.tally.throttled = metrics.reads_throttled;
    world.tally
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let limits = ServerLimits {
            connections_max: dice.pick(&[6, 40]),
            publishers_max: dice.pick(&[3, 40]),
            send_queue_bytes_max: dice.pick(&[2_000, 20_000, 200_000]),
            buffer_bytes_max: dice.pick(&[150_000, 100_000_000]),
            messages_per_second: dice.pick(&[None, None, NonZeroU32::new(1)]),
            bytes_per_second: dice.pick(&[None, None, NonZeroU32::new(5000)]),
            ..ServerLimits::default()
        };
        let trust = Trust::new(&mut dice);
        let crowd = if dice.chance(10) { (150, 12) } else { (30, 1) };
        let hub = Hub::new(HubConfig::default(), trust.policy());
        let hub = Rc::new(RefCell::new(hub));
        let notes = Rc::new(RefCell::new(Vec::new()));
        let witness = Witness {
            hub: Rc::clone(&hub),
            notes: Rc::clone(&notes),
        };
        let clock = Rc::new(Cell::new(0));
        let spent_micros = Rc::new(Cell::new(0));
        let virtual_clock = VirtualClock {
            micros: Rc::clone(&clock),
            spent_micros: Rc::clone(&spent_micros),
            // By the seed itself, as below.
            look_micros: [0, 100, 600][(seed % 3) as usize],
        };
        let engine = Engine::new(witness, virtual_clock, limits, Timeouts::default(), seed);
        Self {
            dice,
            clock,
            spent_micros,
            limits,
            trust,
            crowd,
            // By the seed itself: what other seeds have found stays where it was.
            has_bursts: seed.is_multiple_of(4) && limits.messages_per_second.is_none(),
            engine,
            hub,
            notes,
            phase: Phase::Input,
            clients: Vec::new(),
            past: Vec::new(),
            is_stopping: false,
            publishers_told_by: None,
            turns: 0,
            slow_consumers: 0,
            tally: Tally::default(),
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.clock.get())
    }

    // What clients do.

    /// A moment in the life of the crowd.
    fn live(&mut self) {
        let now = self.clock.get();
        self.clock.set(now + self.dice.below(400) as u64);
        let (crowd_max, count) = self.crowd;
        if self.clients.len() < 4 || (self.clients.len() < crowd_max && self.dice.chance(20)) {
            (0..count).for_each(|_| self.connect());
        }
        for _ in 0..self.dice.below(10) {
            let which = self.dice.below(self.clients.len());
            self.act(which);
        }
        for client in &mut self.clients {
            if self.dice.chance(60) {
                let bytes = self.dice.pick(&[1, 2, 7, 100, 10_000, usize::MAX]);
                client.arrive(bytes, now);
            }
            let is_cut_off = client.stage == Stage::Gone;
            let wire = &mut *client.wire.borrow_mut();
            if wire.room != usize::MAX && is_cut_off && self.dice.chance(20) {
                wire.room = usize::MAX;
            }
            if wire.room != usize::MAX && self.dice.chance(30) {
                // Reading slowly, or at last all.
                wire.room = self
                    .dice
                    .pick(&[wire.room + 1, wire.room + 300, 20_000, usize::MAX]);
            }
            wire.read_max = self.dice.pick(&[1, 50, usize::MAX, usize::MAX, usize::MAX]);
            wire.interrupts = u64::from(self.dice.chance(3));
        }
    }

    fn connect(&mut self) {
        let papers = Papers::new(self.trust, &mut self.dice);
        if !self.engine.has_room(papers.lane) {
            return;
        }
        let (socket, wire) = Socket::pair();
        if self.dice.chance(10) {
            wire.borrow_mut().room = self.dice.below(300);
        }
        let id = self.engine.insert(socket, papers.peer(), self.now());
        let now = self.clock.get();
        let mut client = Client::new(id, wire, self.trust, papers, now, &mut self.dice);
        let has_rate =
            self.limits.messages_per_second.is_some() || self.limits.bytes_per_second.is_some();
        client.is_limited = has_rate && papers.is_limited(self.trust);
        self.clients.push(client);
        self.tally.clients += 1;
    }

    fn act(&mut self, which: usize) {
        let (client, dice) = (&mut self.clients[which], &mut self.dice);
        if client.is_done || client.hang_up.is_some() {
            return;
        }
        match dice.below(100) {
            0..=29 => client.chat(dice),
            30..=84 if !client.is_audience => {
                self.tally.published += 1;
                client.publish(self.tally.published, dice);
            }
            85..=93 => client.wire.borrow_mut().room = dice.pick(&[0, 1, 50, 400, 5000]),
            94..=96 => client.finish(self.clock.get(), dice),
            97 if self.has_bursts => client.burst(dice),
            _ => {}
        }
    }

    // What the server does.

    /// One iteration of the loop.
    fn turn(&mut self) {
        for _ in 0..self.dice.between(1, 3) {
            self.take_input(70);
        }
        for _ in 0..self.dice.below(4) {
            let count = self.dice.pick(&[1, 2, 32]);
            self.engine.flush_deliveries(count, self.now());
            self.observe();
        }
        self.close_turn();
    }

    /// Tells `percent` of the edges that there are, in any order, and some that there are not.
    fn take_input(&mut self, percent: usize) -> bool {
        self.spent_micros.set(0);
        self.engine.begin_turn(self.now());
        let mut events = Vec::new();
        for client in &mut self.clients {
            let wire = &mut *client.wire.borrow_mut();
            let has_ended = wire.end != End::None && !client.is_end_told;
            let is_due = wire.has_arrived || has_ended || wire.has_writable_edge();
            let is_spurious = percent < 100 && self.dice.chance(3);
            if (is_due && self.dice.chance(percent)) || is_spurious {
                let readiness = Readiness {
                    is_readable: wire.has_arrived || is_spurious,
                    is_writable: wire.has_writable_edge() || is_spurious,
                    is_ending: wire.end != End::None,
                    is_failed: wire.end == End::Reset,
                    is_urgent: false,
                };
                client.is_end_told |= readiness.is_ending;
                wire.has_arrived = false;
                events.push((client.id, readiness));
            }
        }
        let came = !events.is_empty();
        if percent < 100 && !self.past.is_empty() && self.dice.chance(5) {
            let stale = self.past[self.dice.below(self.past.len())];
            let readiness = Readiness {
                is_readable: true,
                is_writable: true,
                is_ending: true,
                is_failed: true,
                is_urgent: true,
            };
            events.push((stale, readiness));
        }
        self.dice.shuffle(&mut events);
        for (id, readiness) in events {
            let client = self.clients.iter().find(|client| client.id == id);
            if let Some(client) = client.filter(|_| readiness.is_writable) {
                client.wire.borrow_mut().is_refused = false;
            }
            self.engine.handle_ready(id, readiness, self.now());
            self.observe();
        }
        self.engine.read_again(self.now());
        self.observe();
        self.engine.flush_replies(self.now());
        self.observe();
        came
    }

    fn close_turn(&mut self) {
        self.phase = Phase::Shed;
        self.engine.shed(self.now());
        self.observe();
        self.phase = Phase::Timers;
        // The server does what is left of it in its next turns; time is over for all at once.
        loop {
            self.spent_micros.set(0);
            self.engine.handle_timers(self.now());
            let next = self.engine.next_deadline();
            if next.is_none_or(|next| next > self.now()) {
                break;
            }
        }
        self.observe();
        if self.publishers_told_by.is_some_and(|by| by <= self.now()) || self.is_their_turn() {
            self.publishers_told_by = None;
            self.phase = Phase::LastShutdown;
            self.engine.shut_down_publishers(self.now());
            self.observe();
        }
        self.phase = Phase::Input;
        self.engine.make_room(Lane::Clients, self.now());
        self.engine.make_room(Lane::Publishers, self.now());
        self.engine.reap(self.now());
        self.observe();
        self.drop_the_dropped();
        self.check_turn();
    }

    /// Whether it is time to tell the publishers that the server stops.
    fn is_their_turn(&self) -> bool {
        self.publishers_told_by.is_some() && self.engine.are_clients_told()
    }

    /// What has arrived is there for the next read, all of it.
    fn hand_over(&self) {
        for client in &self.clients {
            client.wire.borrow_mut().read_max = usize::MAX;
        }
    }

    /// Turns until nothing is left to do at this time.
    fn rest(&mut self) {
        self.hand_over();
        for _ in 0..10_000 {
            let came = self.take_input(100);
            while self.engine.has_deliveries() {
                self.engine.flush_deliveries(2, self.now());
                self.observe();
            }
            self.close_turn();
            if !came && !self.engine.has_ready() && !self.engine.has_deliveries() {
                // Time watches over every connection.
                let has_deadline = self.engine.next_deadline().is_some();
                assert_eq!(has_deadline, !self.clients.is_empty());
                return self.clients.iter().for_each(Client::check_at_rest);
            }
        }
        panic!("the loop doesn't come to rest");
    }

    /// All that clients have written arrives, what follows from that too; then time passes.
    fn jump(&mut self) {
        self.hand_over();
        let mut has_arrived = true;
        while has_arrived {
            for client in &mut self.clients {
                client.arrive(usize::MAX, self.clock.get());
            }
            // Some jumps come before the server has looked.
            if self.dice.chance(30) {
                break;
            }
            self.rest();
            has_arrived = self.clients.iter().any(Client::has_more);
        }
        let next = self.engine.next_deadline();
        let micros = match self.dice.below(3) {
            0 => next.map_or(0, |next| (next - self.now()).as_micros() as u64),
            1 => self.dice.below(40_000_000) as u64,
            _ => self.dice.below(2_000_000) as u64,
        };
        self.clock.set(self.clock.get() + micros);
        self.turn();
    }

    /// Lets time pass until everything that time can do is done.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds / 5 {
            for _ in 0..3 {
                for client in &mut self.clients {
                    client.arrive(usize::MAX, self.clock.get());
                }
                self.rest();
            }
            self.clock.set(self.clock.get() + 5 * SECOND);
        }
        self.rest();
    }

    fn end(&mut self) {
        if self.dice.chance(50) {
            for client in &self.clients {
                client.wire.borrow_mut().room = usize::MAX;
            }
            // Longer than any time limit, and than who is throttled takes to be heard out.
            self.pass(300);
            for client in &mut self.clients {
                client.is_limited = false;
                client.check_at_rest();
            }
            let left = self.clients.iter();
            let silent = left.filter(|client| client.is_silent || client.stuck_at.is_some());
            assert_eq!(silent.count(), 0, "who is dead is still there");
        }
        if self.dice.chance(60) {
            self.shut_down();
        } else {
            for client in &mut self.clients {
                let end = self.dice.pick(&[End::Eof, End::Reset]);
                client.hang_up.get_or_insert(end);
                client.is_silent = false;
            }
        }
        self.pass(90);
        self.check_end();
    }

    fn shut_down(&mut self) {
        if self.dice.chance(50) {
            self.rest();
        }
        self.phase = Phase::Shutdown;
        self.is_stopping = true;
        self.publishers_told_by = Some(self.now() + DRAIN / 2);
        self.engine.shut_down(self.now());
        self.observe();
        self.phase = Phase::Input;
    }
}
