//! The server's processes: how one begins with what is on the disk, and how it ends: killed, in an orderly way, or
//! with the machine.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;

use crieur::config::{Console, HubConfig, Timeouts};
use crieur::handover::{Fields, Incoming, Members};
use crieur::hub::Hub;
use crieur::journal::Journal;
use crieur::journal::id::Generation;
use crieur::journal::segments::{Restored, Segments};
use crieur::journal::simulated::SimulatedDisk;
use crieur::journal::write_ahead::WriteAhead;
use crieur::net::engine::{Carried, Engine};
use crieur::routes::Routes;

use crieur::time::Clock;

use crate::clock::VirtualClock;
use crate::state::write;
use crate::wire::Socket;
use crate::witness::Witness;

use super::{SECOND, World, WorldEngine};

/// What has become of the processes since one was serving.
#[derive(Clone, Copy, Default, Debug)]
struct Fate {
    /// It ended in an orderly way.
    is_clean: bool,
    /// A write of it failed.
    has_failed: bool,
    reboots: u32,
    /// A start of another one didn't come to its end.
    is_start_disturbed: bool,
}

impl Fate {
    /// Whether the next one has to go on with all that was delivered.
    const fn is_kept(self) -> bool {
        let outlives_reboot = self.is_clean && self.reboots == 1 && !self.is_start_disturbed;
        !self.has_failed && (self.reboots == 0 || outlives_reboot)
    }
}

impl World {
    /// The first process.
    pub(super) fn start(&mut self) -> WorldEngine {
        // There is nothing to be kept.
        self.begin(Fate {
            has_failed: true,
            ..Fate::default()
        })
    }

    fn virtual_clock(&self) -> VirtualClock {
        VirtualClock {
            micros: Rc::clone(&self.clock),
            began: Rc::clone(&self.began),
            spent_micros: Rc::clone(&self.spent_micros),
            look_micros: Rc::clone(&self.look_micros),
            wall_ahead: Rc::clone(&self.wall_ahead),
        }
    }

    fn begin(&mut self, mut fate: Fate) -> WorldEngine {
        self.began.set(self.clock.get());
        let clock = self.virtual_clock();
        let ping_interval = Timeouts::default().ping_interval;
        let mut generation = self.dice.next_u64();
        let journal = Journal::new(self.history, Generation(generation));
        let policy = self.trust.policy();
        let hub = Hub::new(HubConfig::default(), ping_interval, policy, journal);
        let mut hub = hub.with_slices(self.slice);
        if let Some(disk) = self.disk.clone() {
            let (opened, restored) = self.open(&disk, &mut generation, &mut fate);
            self.follow_restored(&restored, generation, fate);
            let unix_now = clock.unix_now();
            let write_ahead = WriteAhead::new(opened);
            hub = hub.with_history(self.history, &restored, write_ahead, unix_now);
        } else {
            self.forget(generation);
        }
        self.routes = Rc::new(RefCell::new(Routes::new(hub, Console::Off)));
        let witness = Witness {
            routes: Rc::clone(&self.routes),
            notes: Rc::clone(&self.notes),
            replaying: HashSet::new(),
            tape: None,
            publishes: 0,
        };
        let jitter = self.dice.next_u64();
        Engine::new(witness, clock, self.limits, Timeouts::default(), jitter)
    }

    /// Opens what is on the disk; some starts are killed over it, or fail.
    fn open(
        &mut self,
        disk: &SimulatedDisk,
        generation: &mut u64,
        fate: &mut Fate,
    ) -> (Segments, Restored) {
        let bytes_max = self.history.bytes_max as u64;
        loop {
            let (storage, boot) = disk.start();
            let call = self.dice.below(5) as u64;
            match self.dice.below(10) {
                0 => disk.kill_at(call, self.dice.below(200)),
                1 => disk.fail(call..call + 1, self.dice.below(200)),
                _ => {}
            }
            let opened = Segments::open(storage, bytes_max, Some(boot), Generation(*generation));
            if let Ok(opened) = opened {
                disk.kill_at(u64::MAX, 0);
                disk.fail(0..0, 0);
                return opened;
            }
            *generation = self.dice.next_u64();
            let is_rebooted = self.dice.chance(10);
            if is_rebooted {
                disk.reboot(self.dice.rng());
            }
            fate.is_start_disturbed = true;
            fate.reboots += u32::from(is_rebooted);
        }
    }

    /// What was there is not known any more.
    fn forget(&mut self, generation: u64) {
        self.log = self.log.afresh(generation, self.wall_ahead.get());
        (self.leaked, self.gone) = (0, 0);
    }

    /// Holds what a process found on the disk against what was delivered and acknowledged.
    fn follow_restored(&mut self, restored: &Restored, generation: u64, fate: Fate) {
        let first = restored.first.0;
        let entries: Vec<_> = restored.entries.iter().collect();
        let Generation(oldest) = restored.generations[0].0;
        // A start that didn't come to its end may have begun afresh.
        let is_kept = oldest == self.log.first_generation();
        if !is_kept {
            assert!(entries.is_empty() && first == 0);
            assert!(!fate.is_kept(), "all is forgotten: {fate:?}");
            self.tally.forgotten += 1;
            self.forget(oldest);
            return self.go_on(0, generation);
        }
        let head = first + entries.len() as u64;
        let leaked = self.leaked;
        assert!(
            (leaked..=self.log.head()).contains(&head),
            "{head} are there, and {leaked} were told of: {fate:?}"
        );
        for (position, entry) in (first + 1..).zip(&entries) {
            self.log.check_stored(position, entry);
        }
        self.go_on(head, generation);
        assert!(first <= self.log.sure(), "less than the history is there");
        self.gone = self.log.gone();
        self.tally.survived += 1;
    }

    fn go_on(&mut self, head: u64, generation: u64) {
        let (now, wall_ahead) = (self.clock.get() as i64, self.wall_ahead.get());
        self.log.go_on(head, generation, now, wall_ahead);
    }

    // How a process becomes another program.

    /// Whether it does so now: by a die of its own, so that what seeds have found stays where it was.
    pub(super) fn is_replaced(&mut self) -> bool {
        let is_stopping = self.is_stop_asked || self.is_killed();
        let replacing = self.replacing.as_mut();
        replacing.is_some_and(|dice| dice.u8(..100) < 8) && !is_stopping
    }

    /// What the process knows is written, and built anew. Nobody notices. Now and then nothing comes of it.
    pub(super) fn become_another(&mut self, mut engine: WorldEngine) -> WorldEngine {
        let log = self.write_ahead().map(|log| {
            let mut members = Vec::new();
            log.save(&mut Members::new(&mut members));
            members
        });
        let (state, wires) = write(&mut engine);
        let (again, _) = write(&mut engine);
        assert!(state == again, "written twice it is the same");
        let dice = self.replacing.as_mut().expect("there is one");
        if dice.u8(..5) == 0 {
            // The program can't take over, or the system refuses.
            return engine;
        }
        let (jitter, generation) = (dice.u64(..), Generation(dice.u64(..)));
        let replaying = engine.application().replaying.clone();
        drop(engine);
        let connections = wires.len();
        let disk = self.disk.clone();
        let sockets = wires
            .into_iter()
            .map(|wire| Socket::inherited(wire, disk.clone()));
        let sockets: Vec<_> = sockets.collect();
        let mut journal = Journal::new(self.history, generation);
        if let (Some(log), Some(disk)) = (&log, &self.disk) {
            let fields = Fields::parse(log).expect("members");
            let bytes_max = self.history.bytes_max as u64;
            let log = WriteAhead::carried(&fields, bytes_max, |_| Ok(disk.again()));
            journal = journal.kept_in(log.expect("it goes on"));
        }
        let ping_interval = Timeouts::default().ping_interval;
        let policy = self.trust.policy();
        let hub = Hub::new(HubConfig::default(), ping_interval, policy, journal);
        let hub = hub.with_slices(self.slice);
        self.routes = Rc::new(RefCell::new(Routes::new(hub, Console::Off)));
        let witness = Witness {
            routes: Rc::clone(&self.routes),
            notes: Rc::clone(&self.notes),
            replaying,
            tape: None,
            publishes: 0,
        };
        let (clock, timeouts) = (self.virtual_clock(), Timeouts::default());
        let mut incoming = Incoming::begin(&state[..]).expect("a state");
        let restored = Engine::restore(
            witness,
            clock,
            self.limits,
            timeouts,
            jitter,
            &mut incoming,
            &mut sockets.into_iter(),
        );
        let (mut engine, carried) = restored.expect("it is whole");
        let lost = 0;
        assert_eq!(carried, Carried { connections, lost });
        let (again, _) = write(&mut engine);
        assert!(state == again, "the successor writes the same");
        engine.check_invariants();
        self.spent_micros.set(0);
        self.tally.replaced += 1;
        engine
    }

    // How a process ends.

    /// Whether the process was killed in the middle of something: what it seems to do since isn't.
    pub(super) fn is_killed(&self) -> bool {
        self.disk.as_ref().is_some_and(SimulatedDisk::is_killed)
    }

    /// A turn in which the process may be killed while it writes to the disk, or such a write may fail.
    pub(super) fn dangerous_turn(&mut self, engine: &mut WorldEngine) {
        let Some(disk) = self.disk.clone() else {
            return self.turn(engine);
        };
        let call = disk.calls() + self.dice.below(3) as u64;
        let done_bytes = self.dice.pick(&[0, 10, 100, 2000, usize::MAX]);
        if self.dice.chance(90) {
            disk.kill_at(call, done_bytes);
        } else {
            disk.fail(call..call + self.dice.between(1, 3) as u64, done_bytes);
        }
        self.turn(engine);
        if !disk.is_killed() {
            disk.kill_at(u64::MAX, 0);
            disk.fail(0..0, 0);
            self.has_failed |= self.write_ahead().is_some_and(|log| log.is_failed());
        }
    }

    fn write_ahead(&self) -> Option<WriteAhead> {
        let routes = self.routes.borrow();
        routes.hub().journal().write_ahead().cloned()
    }

    /// The process ends, and another one begins.
    pub(super) fn restart(&mut self, engine: WorldEngine) -> WorldEngine {
        let mut fate = Fate {
            has_failed: self.has_failed,
            ..Fate::default()
        };
        if !self.is_killed() && self.dice.chance(40) {
            fate.is_clean = self.close();
        }
        self.bury(engine);
        if let Some(disk) = &self.disk
            && self.dice.chance(30)
        {
            disk.reboot(self.dice.rng());
            fate.reboots += 1;
        }
        let micros = self.dice.pick(&[1_000, SECOND, 10 * SECOND]);
        self.clock.set(self.clock.get() + micros);
        if self.dice.chance(20) {
            let micros = self.dice.between(0, 7200 * SECOND as usize) as i64;
            let set_by = self
                .dice
                .pick(&[micros, -micros, micros / 1000, -micros / 1000]);
            self.wall_ahead.set(self.wall_ahead.get() + set_by);
        }
        self.has_failed = false;
        self.begin(fate)
    }

    /// An orderly end, unless the process is killed over it.
    fn close(&mut self) -> bool {
        let (Some(disk), Some(write_ahead)) = (self.disk.clone(), self.write_ahead()) else {
            return true;
        };
        if self.dice.chance(30) {
            disk.kill_at(
                disk.calls() + self.dice.below(4) as u64,
                self.dice.below(30),
            );
        }
        write_ahead.close();
        !disk.is_killed()
    }

    /// What is left of a process: what its clients have got by now, and remember.
    fn bury(&mut self, engine: WorldEngine) {
        self.look(&engine);
        self.count(&engine);
        drop(engine);
        for client in self.clients.drain(..) {
            self.leaked = self.leaked.max(client.leaked());
            self.tally.deliveries += client.deliveries_got;
            self.memories.extend(client.memory());
        }
        // Their names are those of others soon.
        self.past.clear();
        self.notes.take();
        self.slow_consumers = 0;
        self.tally.restarts += 1;
    }

    /// Adds what a process has counted.
    pub(super) fn count(&mut self, engine: &WorldEngine) {
        let metrics = engine.metrics();
        self.tally.displaced += metrics.connections_displaced;
        self.tally.throttled += metrics.reads_throttled;
    }
}
