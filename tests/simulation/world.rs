//! The server's loop without a poll: the world decides which bytes arrive when, in which order
//! readiness is told, and what time it is; and holds what comes out against what must.

mod judge;
mod post;
mod process;

use std::cell::{Cell, RefCell};
use std::io;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::time::Duration;

use crieur::application::Lane;
use crieur::config::{Console, HistoryLimits, HubConfig, ServerLimits};
use crieur::hub::Hub;
use crieur::hub::replay::Slice;
use crieur::id::ConnectionId;
use crieur::journal::Journal;
use crieur::journal::id::Generation;
use crieur::journal::simulated::SimulatedDisk;
use crieur::net::engine::{Driver, Engine, Readiness, Step};
use crieur::routes::Routes;
use crieur::time::Timestamp;
use fastrand::Rng;

use crate::client::{Client, Memory, Stage};
use crate::clock::VirtualClock;
use crate::dice::Dice;
use crate::log::Log;
use crate::texts::Style;
use crate::trust::{Papers, Trust};
use crate::wire::{End, Socket, watch_writes};
use crate::witness::{Note, Witness};

use self::post::Post;

/// How long clients get to take their Close.
const DRAIN: Duration = Duration::from_secs(5);

const SECOND: u64 = 1_000_000;

/// By how many microseconds the wall clock is ahead at first.
const WALL_AHEAD: i64 = 1_000_000_000_000;

/// How many turns of the loop a run has before it comes to its end.
const TURNS: (usize, usize) = (50, 350);

/// The server's engine in this world.
pub(crate) type WorldEngine = Engine<Socket, Witness, VirtualClock>;

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
    /// Clients that were throttled.
    pub(crate) throttled: u64,
    /// Ids that clients have shown, and got what was missed; or were told that something may be missing.
    pub(crate) resumed: u64,
    pub(crate) not_resumed: u64,
    /// Notifications that were missed and came then.
    pub(crate) replayed: u64,
    /// Notifications that were there already, by their key.
    pub(crate) repeated: u64,
    /// Lists that have waited until a client was caught up, and clients that couldn't be, since the history had no
    /// room for what they had missed.
    pub(crate) held: u64,
    pub(crate) broken: u64,
    /// Processes that have ended before the run has; after those that went on with the history of the one before, and
    /// those that didn't.
    pub(crate) restarts: u64,
    pub(crate) survived: u64,
    pub(crate) forgotten: u64,
    /// How often a process became another program.
    pub(crate) replaced: u64,
}

/// The server, its clients, and what is to be true of them.
pub(crate) struct World {
    dice: Dice,
    clock: Rc<Cell<u64>>,
    /// What the server's looks at the clock have cost in this turn.
    spent_micros: Rc<Cell<u64>>,
    /// What each of them costs, and whether that is always nothing.
    look_micros: Rc<Cell<u64>>,
    has_time: bool,
    limits: ServerLimits,
    trust: Trust,
    /// How many clients there are at most, and how many come at once.
    crowd: (usize, usize),
    /// In percent, how often a client reads on that has stopped to.
    eagerness: usize,
    /// Whether clients send more at once than a read returns.
    has_bursts: bool,
    /// Whether clients come that number what they get.
    numbers: bool,
    history: HistoryLimits,
    slice: Slice,
    log: Log,
    disk: Option<SimulatedDisk>,
    /// A write of the process has failed.
    has_failed: bool,
    /// Of what is in the log up to here, somebody has got something, or was told.
    leaked: u64,
    /// Whether processes end before the run does, and when this one began.
    restarts: bool,
    /// Decides when the process becomes another program, if it does.
    replacing: Option<Rng>,
    began: Rc<Cell<u64>>,
    /// By how many microseconds the wall clock is ahead.
    wall_ahead: Rc<Cell<i64>>,
    /// What has left the history, as it was when the turn began.
    gone: u64,
    /// Of clients that were there once.
    memories: Vec<Memory>,
    /// What is being published by HTTP.
    posted: Option<Post>,
    routes: Rc<RefCell<Routes>>,
    notes: Rc<RefCell<Vec<Note>>>,
    phase: Phase,
    clients: Vec<Client>,
    /// Ids of connections that are gone, for events that come too late.
    past: Vec<ConnectionId>,
    /// How much of what is ready the next iterations are told, in percent, and in how many rounds at most.
    told: (usize, usize),
    /// Whether anything was told in this iteration.
    came: bool,
    is_stop_asked: bool,
    is_stopping: bool,
    turns: usize,
    /// How many were cut off before what is being observed.
    slow_consumers: u64,
    tally: Tally,
}

/// Runs the world of `seed` from its beginning to its end.
pub(crate) fn run(seed: u64) -> Tally {
    let (mut world, mut engine) = World::new(seed);
    let turns = world.dice.between(TURNS.0, TURNS.1);
    for _ in 0..turns {
        world.live(&mut engine);
        if world.restarts && world.dice.chance(3) {
            world.dangerous_turn(&mut engine);
            if world.is_killed() || world.dice.chance(30) {
                engine = world.restart(engine);
            }
            continue;
        }
        world.turn(&mut engine);
        if world.dice.chance(4) {
            world.jump(&mut engine);
        }
        while world.is_replaced() {
            engine = world.become_another(engine);
        }
    }
    world.end(&mut engine);
    world.count(&engine);
    world.tally
}

/// How far back the history reaches.
fn history_limits(numbers: bool, dice: &mut Dice) -> HistoryLimits {
    let default = HistoryLimits::default();
    if !numbers {
        return default;
    }
    match dice.below(10) {
        0..=3 => default,
        4..=6 => HistoryLimits {
            bytes_max: dice.pick(&[3_000, 10_000, 50_000, 200_000]),
            ..default
        },
        7 | 8 => HistoryLimits {
            age_max: Duration::from_secs(dice.between(1, 20) as u64),
            ..default
        },
        _ => HistoryLimits {
            bytes_max: 0,
            ..default
        },
    }
}

/// How far clients are caught up at once.
fn slice(numbers: bool, dice: &mut Dice) -> Slice {
    if !numbers || dice.chance(25) {
        return Slice::default();
    }
    Slice {
        entries: dice.pick(&[1, 3, 1000]),
        bytes: dice.pick(&[1, 500, 10_000]),
    }
}

impl World {
    fn new(seed: u64) -> (Self, WorldEngine) {
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
        let numbers = seed % 5 > 1;
        let history = history_limits(numbers, &mut dice);
        let eagerness = if numbers { dice.pick(&[30, 5]) } else { 30 };
        let slice = slice(numbers, &mut dice);
        let has_disk = numbers && history.is_on() && dice.chance(60);
        let policy = trust.policy();
        let journal = Journal::new(history, Generation(0));
        let nobody = Hub::new(HubConfig::default(), Duration::ZERO, policy, journal);
        let mut world = Self {
            history,
            disk: has_disk.then(SimulatedDisk::default),
            has_failed: false,
            leaked: 0,
            began: Rc::default(),
            wall_ahead: Rc::new(Cell::new(WALL_AHEAD)),
            restarts: numbers && dice.chance(60),
            replacing: (seed % 2 == 1).then(|| Rng::with_seed(seed)),
            dice,
            clock: Rc::default(),
            spent_micros: Rc::default(),
            look_micros: Rc::default(),
            has_time: seed.is_multiple_of(3),
            limits,
            trust,
            crowd,
            eagerness,
            // By the seed itself: what other seeds have found stays where it was.
            has_bursts: seed.is_multiple_of(4) && limits.messages_per_second.is_none(),
            slice,
            numbers,
            log: Log::new(history, 0, WALL_AHEAD),
            gone: 0,
            memories: Vec::new(),
            posted: None,
            // The first process replaces it.
            routes: Rc::new(RefCell::new(Routes::new(nobody, Console::Off))),
            notes: Rc::default(),
            phase: Phase::Input,
            clients: Vec::new(),
            past: Vec::new(),
            told: (100, 1),
            came: false,
            is_stop_asked: false,
            is_stopping: false,
            turns: 0,
            slow_consumers: 0,
            tally: Tally::default(),
        };
        let engine = world.start();
        (world, engine)
    }

    /// The time of the process.
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.clock.get() - self.began.get())
    }

    // What clients do.

    /// A moment in the life of the crowd.
    fn live(&mut self, engine: &mut WorldEngine) {
        let now = self.clock.get();
        self.clock.set(now + self.dice.below(400) as u64);
        let (crowd_max, count) = self.crowd;
        if self.clients.len() < 4 || (self.clients.len() < crowd_max && self.dice.chance(20)) {
            (0..count).for_each(|_| self.connect(engine));
        }
        for _ in 0..self.dice.below(10) {
            let which = self.dice.below(self.clients.len());
            self.act(which);
        }
        if self.numbers && self.dice.chance(4) {
            self.post(engine);
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
            if wire.room != usize::MAX && self.dice.chance(self.eagerness) {
                // Reading slowly, or at last all.
                wire.room = self
                    .dice
                    .pick(&[wire.room + 1, wire.room + 300, 20_000, usize::MAX]);
            }
            wire.read_max = self.dice.pick(&[1, 50, usize::MAX, usize::MAX, usize::MAX]);
            wire.interrupts = u64::from(self.dice.chance(3));
        }
    }

    fn connect(&mut self, engine: &mut WorldEngine) {
        let papers = Papers::new(self.trust, &mut self.dice);
        if !engine.has_room(papers.lane) {
            return;
        }
        let (socket, wire) = Socket::pair(self.disk.clone());
        if self.dice.chance(10) {
            wire.borrow_mut().room = self.dice.below(300);
        }
        let id = engine.insert(socket, papers.peer(), self.now());
        let now = self.clock.get();
        let mut client = Client::new(id, wire, self.trust, papers, now, &mut self.dice);
        let has_rate =
            self.limits.messages_per_second.is_some() || self.limits.bytes_per_second.is_some();
        client.is_limited = has_rate && papers.is_limited(self.trust);
        if self.numbers {
            client.numbers = self.dice.chance(60);
            if !self.memories.is_empty() && self.dice.chance(60) {
                let which = self.dice.below(self.memories.len());
                let memory = self.memories.swap_remove(which);
                client.come_back(memory, &mut self.dice);
            }
        }
        self.clients.push(client);
        self.tally.clients += 1;
    }

    fn act(&mut self, which: usize) {
        let style = self.style();
        let (client, dice) = (&mut self.clients[which], &mut self.dice);
        if client.is_done || client.hang_up.is_some() {
            return;
        }
        match dice.below(100) {
            0..=29 => client.chat(&self.log, dice),
            30..=84 if !client.is_audience => {
                self.tally.published += 1;
                client.publish(self.tally.published, style, dice);
            }
            85..=93 => client.wire.borrow_mut().room = dice.pick(&[0, 1, 50, 400, 5000]),
            94..=96 => client.finish(self.clock.get(), dice),
            97 if self.has_bursts => client.burst(dice),
            98 if client.numbers => client.lose_connection(dice),
            _ => {}
        }
    }

    const fn style(&self) -> Style {
        Style {
            has_keys: self.numbers,
            is_short: false,
        }
    }

    // What the server does.

    /// One iteration of the loop that is told some of what is ready.
    fn turn(&mut self, engine: &mut WorldEngine) {
        self.told = (70, self.dice.between(1, 3));
        // Between all deliveries at once, and a few of them.
        let look_micros = self.dice.pick(&[0, 100, 600]);
        self.look_micros
            .set(if self.has_time { 0 } else { look_micros });
        self.iterate(engine);
    }

    /// An iteration; and, as time is over for all connections at once, what the server does about that in
    /// the next ones. Says whether anything was ready.
    fn iterate(&mut self, engine: &mut WorldEngine) -> bool {
        self.came = false;
        engine.run_iteration(self).expect("no poll fails here");
        watch_writes(engine);
        let came = self.came;
        if self.is_killed() {
            return false;
        }
        while engine.next_timer().is_some_and(|next| next <= self.now()) {
            self.told = (0, 1);
            engine.run_iteration(self).expect("no poll fails here");
            watch_writes(engine);
        }
        self.drop_the_dropped();
        self.check_turn(engine);
        came
    }

    /// Tells `percent` of the edges that there are, in any order, and some that there are not.
    fn tell(&mut self, percent: usize, engine: &mut WorldEngine) -> bool {
        let mut events = Vec::new();
        for client in &mut self.clients {
            let wire = &mut *client.wire.borrow_mut();
            let has_ended = wire.end != End::None && !client.is_end_told;
            let is_due = wire.has_arrived || has_ended || wire.has_writable_edge();
            let is_spurious = percent < 100 && self.dice.chance(3);
            if (is_due && self.dice.chance(percent)) || is_spurious {
                let readiness = wire.take_readiness(is_spurious);
                client.is_end_told |= readiness.is_ending;
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
            engine.handle_ready(id, readiness, self.now());
            self.look(engine);
        }
        came
    }

    /// What has arrived is there for the next read, all of it.
    fn allow_long_reads(&self) {
        for client in &self.clients {
            client.wire.borrow_mut().read_max = usize::MAX;
        }
    }

    /// Turns until nothing is left to do at this time.
    fn rest(&mut self, engine: &mut WorldEngine) {
        self.allow_long_reads();
        for _ in 0..10_000 {
            self.told = (100, 1);
            let came = self.iterate(engine);
            // As of this time, and not a moment later.
            let look_micros = self.look_micros.replace(0);
            self.spent_micros.set(0);
            let has_work = engine.has_work();
            self.look_micros.set(look_micros);
            if !came && !has_work {
                // Time watches over every connection.
                let has_deadline = engine.next_timer().is_some();
                assert_eq!(has_deadline, !self.clients.is_empty());
                return self.clients.iter().for_each(Client::check_at_rest);
            }
        }
        panic!("the loop doesn't come to rest");
    }

    /// All that clients have written arrives, what follows from that too; then time passes.
    fn jump(&mut self, engine: &mut WorldEngine) {
        self.allow_long_reads();
        let mut has_arrived = true;
        while has_arrived {
            for client in &mut self.clients {
                client.arrive(usize::MAX, self.clock.get());
            }
            // Some jumps come before the server has looked.
            if self.dice.chance(30) {
                break;
            }
            self.rest(engine);
            has_arrived = self.clients.iter().any(Client::has_more);
        }
        let next = engine.next_timer();
        let micros = match self.dice.below(3) {
            0 => next.map_or(0, |next| (next - self.now()).as_micros() as u64),
            1 => self.dice.below(40_000_000) as u64,
            _ => self.dice.below(2_000_000) as u64,
        };
        self.clock.set(self.clock.get() + micros);
        self.turn(engine);
    }

    /// Lets time pass until everything that time can do is done.
    fn pass(&mut self, seconds: u64, engine: &mut WorldEngine) {
        for _ in 0..seconds / 5 {
            for _ in 0..3 {
                for client in &mut self.clients {
                    client.arrive(usize::MAX, self.clock.get());
                }
                self.rest(engine);
            }
            self.clock.set(self.clock.get() + 5 * SECOND);
        }
        self.rest(engine);
    }

    fn end(&mut self, engine: &mut WorldEngine) {
        if self.dice.chance(50) {
            for client in &self.clients {
                client.wire.borrow_mut().room = usize::MAX;
            }
            // Longer than any time limit, and than it takes to drain a throttled client.
            self.pass(300, engine);
            for client in &mut self.clients {
                client.is_limited = false;
                client.check_at_rest();
            }
            let left = self.clients.iter();
            let silent = left.filter(|client| client.is_silent || client.stuck_at.is_some());
            assert_eq!(silent.count(), 0, "a dead client is still there");
        }
        if self.dice.chance(60) {
            self.shut_down(engine);
        } else {
            for client in &mut self.clients {
                let end = self.dice.pick(&[End::Eof, End::Reset]);
                client.hang_up.get_or_insert(end);
                client.is_silent = false;
            }
        }
        self.pass(90, engine);
        self.check_end(engine);
    }

    fn shut_down(&mut self, engine: &mut WorldEngine) {
        if self.dice.chance(50) {
            self.rest(engine);
        }
        self.is_stop_asked = true;
    }
}

impl Driver<Socket, Witness, VirtualClock> for World {
    /// What is done is done at the iteration's time; looks at the clock cost what bounds its steps.
    fn step_time(&self, _: Timestamp) -> Timestamp {
        self.now()
    }

    fn take_events(&mut self, engine: &mut WorldEngine, _: Timestamp) -> io::Result<bool> {
        self.spent_micros.set(0);
        let (percent, rounds) = self.told;
        if rounds == 0 || percent == 0 {
            return Ok(false);
        }
        self.told.1 -= 1;
        let came = self.tell(percent, engine);
        self.came |= came;
        Ok(came)
    }

    fn handle_commands(&mut self, engine: &mut WorldEngine) -> io::Result<()> {
        if self.is_stop_asked && !self.is_stopping {
            self.phase = Phase::Shutdown;
            self.is_stopping = true;
            engine.shut_down(DRAIN, self.now());
        }
        Ok(())
    }

    fn has_waiting(&self, _: Lane, _: Timestamp) -> bool {
        true
    }

    fn observe(&mut self, engine: &mut WorldEngine, step: Step) {
        self.phase = match step {
            // As `handle_commands` left it.
            Step::Commands => self.phase,
            Step::Input | Step::Work | Step::Deliveries | Step::Ends => Phase::Input,
            Step::Stopping => Phase::LastShutdown,
            Step::Memory => Phase::Shed,
            Step::Timers => Phase::Timers,
        };
        self.look(engine);
        engine.check_invariants();
        self.spent_micros.set(0);
        self.phase = Phase::Input;
    }
}
