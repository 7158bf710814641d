//! The body of the loop: what readiness, time and the application's answers do to connections.
//!
//! Generic over the application and over the transport; knows no mio. [`Engine::run_iteration`] is the
//! order of an iteration, for the server and for the simulation alike; a [`Driver`] brings readiness in.
//!
//! Invariants: a connection leaves its slot in `reap` only; a session that has left Open is
//! known to the application as gone before the call that made it leave returns; each list
//! holds a connection once. An iteration has a bound in time, whatever peers send: a connection's
//! turn ends after so many frames or bytes of answers, the taking in of input after
//! [`INPUT_TIME_MAX`]; what is left waits in its list, by priority.

mod saved;
#[cfg(test)]
mod tests;

use std::io;
use std::mem;
use std::time::Duration;

use crate::application::{Application, Lane, Outbox, Peer, Uplinks};
use crate::config::{ServerLimits, Timeouts};
use crate::id::ConnectionId;
use crate::memory::{CROWD_MIN, Departures, Trimmer};
use crate::metrics::{HandoverEnd, Metrics};
use crate::time::{Clock, Timestamp};

use super::connection::Connection;
pub use super::connection::Readiness;
use super::eviction;
pub use super::places::SPARE_CONNECTIONS;
use super::schedule::{List, Priority};
use super::shell::{Shell, ShellOutbox};
use super::shutdown::{self, Shutdown};
use super::transport::{READ_BYTES_MAX, Transport};
use super::turn::Turn;

pub use saved::Carried;

/// How long an iteration takes input in before deliveries are written and readiness is looked
/// at again.
pub const INPUT_TIME_MAX: Duration = Duration::from_millis(1);

/// What connections of each priority get of it at least, so that nobody waits for ever. A
/// connection's turn may end later than this by its own length.
const INPUT_TIME_MIN: Duration = Duration::from_micros(250);

/// What a frame that is queued to a subscriber adds to that time, more than it takes: notifications
/// that come together are written together, and their number has a bound of its own.
const INPUT_TIME_A_DELIVERY: Duration = Duration::from_nanos(60);

/// How often the time is looked at when events of publishers and of new connections come.
const EVENTS_A_LOOK: u32 = 8;

/// How often an iteration looks for more input before it writes deliveries, and for how long.
const GATHER_ROUNDS_MAX: usize = 16;
const GATHER_TIME_MAX: Duration = Duration::from_micros(300);

/// Connections written between two looks at the clock, and the time until input is taken in.
const FLUSHES_A_CHUNK: usize = 8;
const FLUSH_TIME_MAX: Duration = Duration::from_millis(1);

/// How long an iteration tells the application of queues that have drained.
const DRAINED_TIME_MAX: Duration = Duration::from_millis(1);

/// How long an iteration does what the application has to do that no event asks for.
const WORK_TIME_MAX: Duration = Duration::from_millis(1);

/// How many connections whose queue is over its limit are looked at in an iteration.
const BEHIND_A_TURN: usize = 64;

/// How long an iteration handles what is due. One connection may take longer by the reads that it
/// gets before it is taken for late.
const TIMERS_TIME_MAX: Duration = Duration::from_millis(1);

/// Reads of a connection that is late before it is taken for late.
const READS_BEFORE_EXPIRY_MAX: usize = 4;

/// A connection that is late by less than this isn't taken for late while there is input of it that
/// there was no time for; it is looked at again after so long.
const LATE_MAX: Duration = Duration::from_secs(5);
const LATE_INTERVAL: Duration = Duration::from_millis(100);

/// A step of an iteration, as [`Driver::observe`] is told of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Readiness was told, input taken in, and answers written.
    Input,
    /// What the operator has asked for was done.
    Commands,
    /// The application did what no event asks for, for a while.
    Work,
    /// Deliveries were written, for a while.
    Deliveries,
    /// Publishers were told that the server stops, if it was time.
    Stopping,
    /// Memory was freed, if there was too little.
    Memory,
    /// What was due was done.
    Timers,
    /// Places were freed, and connections dropped.
    Ends,
}

/// What brings readiness into an engine: a poll in the product, a world of its own in a simulation.
pub trait Driver<T, A, C> {
    /// Tells the engine what is ready at `now`, by [`Engine::insert`] and [`Engine::handle_ready`], without
    /// waiting; says whether there was anything.
    ///
    /// # Errors
    /// As the poll's.
    fn take_events(&mut self, engine: &mut Engine<T, A, C>, now: Timestamp) -> io::Result<bool>;

    /// Does what the operator has asked for meanwhile.
    ///
    /// # Errors
    /// As the poll's.
    fn handle_commands(&mut self, _engine: &mut Engine<T, A, C>) -> io::Result<()> {
        Ok(())
    }

    /// Whether connections of a lane wait to be accepted at `now`.
    fn has_waiting(&self, lane: Lane, now: Timestamp) -> bool;

    /// The time of a step that begins at `now`. A simulation holds it still, while time passes for the bounds
    /// of an iteration.
    fn step_time(&self, now: Timestamp) -> Timestamp {
        now
    }

    /// Looks at the engine behind a step.
    fn observe(&mut self, _engine: &mut Engine<T, A, C>, _step: Step) {}
}

/// Connections, timers and lists, driven by the owner of the sockets.
pub struct Engine<T, A, C> {
    application: A,
    shell: Shell<T, C>,
    read_buffer: Vec<u8>,
    /// When this iteration began.
    turn_began: Timestamp,
    /// How many frames were queued and not written then.
    unwritten_before: usize,
    /// How many events have come, of all that ever did; wraps.
    events: u32,
    /// Of connections.
    departures: Departures,
    trimmer: Trimmer,
    shutdown: Option<Shutdown>,
}

impl<T: Transport, A: Application, C: Clock> Engine<T, A, C> {
    /// An engine without connections; `seed` is the jitter's.
    #[must_use]
    pub fn new(
        application: A,
        clock: C,
        limits: ServerLimits,
        timeouts: Timeouts,
        seed: u64,
    ) -> Self {
        let barrier = application.write_barrier();
        Self {
            application,
            shell: Shell::new(clock, limits, timeouts, barrier, seed),
            read_buffer: vec![0; READ_BYTES_MAX],
            turn_began: Timestamp::ZERO,
            unwritten_before: 0,
            events: 0,
            departures: Departures::default(),
            trimmer: Trimmer::default(),
            shutdown: None,
        }
    }

    /// The current time.
    pub fn now(&self) -> Timestamp {
        self.shell.context.now()
    }

    /// The application.
    pub const fn application(&self) -> &A {
        &self.application
    }

    /// What has been counted so far.
    pub const fn metrics(&self) -> &Metrics {
        &self.shell.context.metrics
    }

    /// Bytes that are kept for peers.
    pub fn pinned_bytes(&self) -> usize {
        self.shell.context.pinned.bytes()
    }

    /// How many connections there are, in whatever state.
    pub fn connections_len(&self) -> usize {
        self.shell.connections.len()
    }

    /// Whether another connection of a lane may be accepted.
    pub const fn has_room(&self, lane: Lane) -> bool {
        self.shell.context.places.has_room(lane)
    }

    /// Counts that accepting had to pause.
    pub const fn count_accept_pause(&mut self) {
        self.shell.context.metrics.accept_pauses += 1;
    }

    /// Counts a handover.
    pub const fn count_handover(&mut self, end: HandoverEnd) {
        self.shell.context.metrics.count_handover(end);
    }

    /// Takes a new connection in.
    pub fn insert(&mut self, transport: T, peer: Peer, now: Timestamp) -> ConnectionId {
        self.shell.insert(transport, peer, now)
    }

    /// The transport of a connection, to be registered with a poll.
    pub fn transport_mut(&mut self, id: ConnectionId) -> Option<&mut T> {
        let (connection, _) = self.shell.entry(id)?;
        Some(&mut connection.transport)
    }

    /// The next connection that is to be watched for room to write from now on, as a write to it was refused, in whole
    /// or in part. To be asked before each wait, until there is none.
    pub fn next_blocked(&mut self) -> Option<ConnectionId> {
        self.shell.context.writer.next_blocked()
    }

    /// Drops a connection that never came to life.
    pub fn discard(&mut self, id: ConnectionId) {
        self.shell.remove(id);
    }

    /// Has the application read again what it can.
    pub fn reload(&mut self) {
        self.application.handle_reload();
    }

    /// The connections that the application has to a server of its own.
    pub fn uplinks(&mut self) -> Option<&mut dyn Uplinks> {
        self.application.uplinks()
    }

    /// Has the application come to rest elsewhere, as [`Application::settle`] says.
    pub fn settle(&mut self, is_held: bool) -> bool {
        self.application.settle(is_held)
    }

    /// Has the application do what no connection has asked for, but a timer of its own, a wake-up or another
    /// server has.
    pub fn act(&mut self, now: Timestamp, act: impl FnOnce(&mut A, &mut dyn Outbox)) {
        let mut outbox = ShellOutbox::new(&mut self.shell, now);
        act(&mut self.application, &mut outbox);
        self.shell.conclude(&mut self.application, now);
    }

    /// Has the application do what no event asks for, for a slice of time; and connections cut off whose queue is
    /// over its limit.
    fn continue_work(&mut self, now: Timestamp) {
        if self.has_application_work(now) {
            let began = self.now();
            while self.has_application_work(now) && self.now() - began < WORK_TIME_MAX {
                self.act(now, |application, outbox| application.handle_work(outbox));
            }
        }
        if !self.shell.context.schedule.is_empty(List::Behind) {
            self.shell.check_behind(BEHIND_A_TURN, now);
            self.shell.conclude(&mut self.application, now);
        }
    }

    fn has_application_work(&self, now: Timestamp) -> bool {
        self.application.next_work().is_some_and(|due| due <= now)
    }

    /// Tells the application of connections whose queue has drained, as far as it has asked to be told, for a
    /// slice of time; what is left comes in the next iteration.
    fn handle_drained(&mut self, now: Timestamp) {
        if self.shell.context.schedule.is_empty(List::Drained) {
            return;
        }
        let began = self.now();
        // One that asks again, and queues nothing, is told in the next iteration.
        for _ in 0..self.shell.context.schedule.len(List::Drained) {
            let Some((connection, _)) = self.shell.pop(List::Drained) else {
                break;
            };
            let (id, is_open) = (connection.id, connection.protocol.is_open());
            if is_open {
                let mut outbox = ShellOutbox::new(&mut self.shell, now);
                self.application.handle_drained(id, &mut outbox);
                self.shell.conclude(&mut self.application, now);
            }
            if self.now() - began >= DRAINED_TIME_MAX {
                break;
            }
        }
    }

    // The order of an iteration.

    /// Runs one iteration, from readiness that `driver` tells to the connections that have ended. All input
    /// that is ready is taken in, and looked for again, before deliveries are written, so that a burst of
    /// notifications, from however many publishers, costs each subscriber one write.
    ///
    /// # Errors
    /// As the driver's.
    pub fn run_iteration(&mut self, driver: &mut impl Driver<T, A, C>) -> io::Result<()> {
        let began = driver.step_time(self.now());
        self.begin_turn(began);
        self.gather(driver, began)?;
        driver.handle_commands(self)?;
        driver.observe(self, Step::Commands);
        // What has come due since is found due by the next iteration: to read the clock costs more than most steps.
        self.continue_work(driver.step_time(began));
        driver.observe(self, Step::Work);
        let now = driver.step_time(self.flush_slice(driver).unwrap_or(began));
        self.handle_drained(now);
        // What the application has said since the input was taken.
        self.flush_replies(now);
        driver.observe(self, Step::Deliveries);
        self.continue_shutdown(now);
        driver.observe(self, Step::Stopping);
        self.shed(now);
        driver.observe(self, Step::Memory);
        self.handle_timers(now);
        driver.observe(self, Step::Timers);
        for lane in [Lane::Publishers, Lane::Clients] {
            if driver.has_waiting(lane, now) {
                self.make_room(lane, now);
            }
        }
        self.reap(now);
        driver.observe(self, Step::Ends);
        self.end_turn();
        Ok(())
    }

    /// Takes in what is ready: connections and input. Answers are written, deliveries only queued. While there
    /// are some, looks for more, within bounds.
    fn gather(&mut self, driver: &mut impl Driver<T, A, C>, began: Timestamp) -> io::Result<()> {
        self.take_input(driver, began)?;
        if !self.has_deliveries() {
            return Ok(());
        }
        let start = self.now();
        let mut now = start;
        for _ in 0..GATHER_ROUNDS_MAX {
            let came = self.take_input(driver, driver.step_time(now))?;
            if !came || now - start >= GATHER_TIME_MAX || self.is_input_over(now) {
                break;
            }
            now = self.now();
        }
        Ok(())
    }

    /// Takes in what is ready; says whether anything was.
    ///
    /// # Errors
    /// As the driver's.
    pub fn take_input(
        &mut self,
        driver: &mut impl Driver<T, A, C>,
        now: Timestamp,
    ) -> io::Result<bool> {
        let is_reading_on = self.has_ready();
        let came = driver.take_events(self, now)?;
        self.read_again(now);
        self.flush_replies(now);
        driver.observe(self, Step::Input);
        Ok(came || is_reading_on)
    }

    /// Writes deliveries for a slice of time; what is left comes in the next iteration. Returns the time then, if there
    /// were some.
    fn flush_slice(&mut self, driver: &impl Driver<T, A, C>) -> Option<Timestamp> {
        if !self.has_deliveries() {
            return None;
        }
        let start = self.now();
        let mut now = start;
        while self.has_deliveries() && now - start < FLUSH_TIME_MAX {
            self.flush_deliveries(FLUSHES_A_CHUNK, driver.step_time(now));
            now = self.now();
        }
        Some(now)
    }

    // Input.

    /// Begins an iteration at `now`: it takes input in for a while.
    pub const fn begin_turn(&mut self, now: Timestamp) {
        self.turn_began = now;
        self.unwritten_before = self.shell.context.schedule.unwritten();
    }

    /// Ends an iteration.
    fn end_turn(&mut self) {
        let micros = (self.now() - self.turn_began).as_micros() as u64;
        self.shell.context.metrics.turn_micros.observe(micros);
    }

    /// Whether this iteration has taken input in for as long as it may, at `now`.
    pub fn is_input_over(&self, now: Timestamp) -> bool {
        now >= self.input_until()
    }

    fn input_until(&self) -> Timestamp {
        let unwritten = self.shell.context.schedule.unwritten();
        let queued = unwritten.saturating_sub(self.unwritten_before);
        let queued = u32::try_from(queued).unwrap_or(u32::MAX);
        self.turn_began + INPUT_TIME_MAX + INPUT_TIME_A_DELIVERY * queued
    }

    /// Does what an event asks for, or notes it where others wait or the time is over. An event
    /// for a connection that is gone is ignored.
    pub fn handle_ready(&mut self, id: ConnectionId, readiness: Readiness, now: Timestamp) {
        let Some((connection, context)) = self.shell.entry(id) else {
            self.shell.context.metrics.events_stale += 1;
            return;
        };
        connection.note(readiness);
        let priority = connection.priority();
        if readiness.is_writable && connection.io.unblock() {
            connection.mark_delivery(context);
        }
        // Served connections may cause much; the others mostly say one thing, which is soon done.
        self.events = self.events.wrapping_add(1);
        let is_looked_at =
            priority == Priority::Served || self.events.is_multiple_of(EVENTS_A_LOOK);
        let is_over = is_looked_at && self.is_input_over(self.now());
        if self.shell.context.schedule.is_empty(List::Ready(priority)) && !is_over {
            self.read(id, now);
        } else if let Some((connection, context)) = self.shell.entry(id) {
            connection.schedule(context);
        }
    }

    /// Whether there is something to do now: to be read, to be written, to be told to the application, or by it.
    pub fn has_work(&self) -> bool {
        let schedule = &self.shell.context.schedule;
        let lists = [List::Replies, List::Deliveries, List::Drained];
        schedule.has_ready()
            || lists.into_iter().any(|list| !schedule.is_empty(list))
            || self.has_application_work(self.now())
    }

    /// Whether connections wait to be read again.
    pub fn has_ready(&self) -> bool {
        self.shell.context.schedule.has_ready()
    }

    /// Reads on where an earlier turn left something; one turn for each, as far as the time allows.
    pub fn read_again(&mut self, now: Timestamp) {
        for priority in Priority::ALL {
            let list = List::Ready(priority);
            let count = self.shell.context.schedule.len(list);
            if count == 0 {
                continue;
            }
            let until_at_least = self.now() + INPUT_TIME_MIN;
            for _ in 0..count {
                let Some((connection, _)) = self.shell.pop(list) else {
                    break;
                };
                let id = connection.id;
                self.read(id, now);
                if self.now() >= self.input_until().max(until_at_least) {
                    break;
                }
            }
        }
    }

    /// A turn of reading: what was held back, or else what one read brings. There may be more;
    /// the others have their turn first.
    fn read(&mut self, id: ConnectionId, now: Timestamp) {
        let is_congested = self.shell.context.schedule.is_congested();
        if let Some((connection, _)) = self.shell.entry(id)
            && connection.is_to_be_read()
        {
            if !connection.io.has_input {
                self.read_once(id, now);
            } else if !is_congested {
                connection.io.has_input = false;
                self.turn(id, now).handle_input(&mut []);
            }
        }
        if let Some((connection, context)) = self.shell.entry(id) {
            connection.handle_hang_up_unread(context, now);
            if connection.transport.wants_write() {
                connection.mark_reply(context);
            }
            connection.settle(context);
        }
        self.shell.conclude(&mut self.application, now);
    }

    fn read_once(&mut self, id: ConnectionId, now: Timestamp) {
        let Some((connection, context)) = self.shell.entry(id) else {
            return;
        };
        let mut buffer = mem::take(&mut self.read_buffer);
        match connection.read(&mut buffer) {
            Ok(0) => connection.end(None, context, now),
            Ok(received) => {
                connection.protocol.handle_read(now);
                context.metrics.bytes_read += received as u64;
                self.turn(id, now).handle_input(&mut buffer[..received]);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if connection.io.is_write_failed {
                    connection.end(Some(&error), context, now);
                }
            }
            Err(error) => connection.end(Some(&error), context, now),
        }
        self.read_buffer = buffer;
    }

    const fn turn(&mut self, id: ConnectionId, now: Timestamp) -> Turn<'_, T, A, C> {
        Turn {
            application: &mut self.application,
            shell: &mut self.shell,
            id,
            now,
        }
    }

    // Output.

    /// Writes what answers the peers themselves: they wait for it, and what they send next
    /// may be the notification that the coming deliveries can be written with.
    pub fn flush_replies(&mut self, now: Timestamp) {
        while let Some((connection, context)) = self.shell.pop(List::Replies) {
            connection.flush(context, now);
        }
        self.shell.conclude(&mut self.application, now);
    }

    /// Whether deliveries wait to be written.
    pub fn has_deliveries(&self) -> bool {
        !self.shell.context.schedule.is_empty(List::Deliveries)
    }

    /// Writes the deliveries of `connections_max` connections at most.
    pub fn flush_deliveries(&mut self, connections_max: usize, now: Timestamp) {
        for _ in 0..connections_max {
            let Some((connection, context)) = self.shell.pop(List::Deliveries) else {
                break;
            };
            connection.flush(context, now);
        }
        let schedule = &mut self.shell.context.schedule;
        if schedule.is_empty(List::Deliveries) {
            schedule.note_written();
        }
        self.shell.conclude(&mut self.application, now);
    }

    // Time.

    /// The next time at which an iteration has something to do, if nothing comes before.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let timers = self.shell.context.timers.first();
        let timers = timers.map(|(deadline, _)| deadline).into_iter();
        let stop = self.shutdown.map(|shutdown| shutdown.next_deadline());
        let work = self.application.next_work();
        timers
            .chain(self.trimmer.due())
            .chain(stop)
            .chain(work)
            .min()
    }

    /// The next time at which a connection has something to do.
    pub fn next_timer(&self) -> Option<Timestamp> {
        let first = self.shell.context.timers.first();
        first.map(|(deadline, _)| deadline)
    }

    /// Does what is due.
    pub fn handle_timers(&mut self, now: Timestamp) {
        let Some(lag) = self.timer_lag(now) else {
            return;
        };
        let micros = lag.as_micros() as u64;
        self.shell.context.metrics.loop_lag_micros.observe(micros);
        let began = self.now();
        while let Some((deadline, slot)) = self.shell.context.timers.first()
            && deadline <= now
            && self.now() - began < TIMERS_TIME_MAX
        {
            let Some(id) = self.shell.connections.id_at(slot) else {
                self.shell.context.timers.clear(slot);
                continue;
            };
            self.handle_deadline(id, began, now);
        }
        self.flush_replies(now);
    }

    fn handle_deadline(&mut self, id: ConnectionId, began: Timestamp, now: Timestamp) {
        if let Some((connection, context)) = self.shell.entry(id)
            && connection.handle_pause(now)
        {
            connection.settle(context);
        }
        if !self.is_heard(id, began, now) {
            let timers = &mut self.shell.context.timers;
            return timers.set(id.index, now + LATE_INTERVAL);
        }
        self.turn(id, now).handle_expiry();
        if let Some((connection, context)) = self.shell.entry(id) {
            match connection.next_deadline(&context.timeouts) {
                Some(next) => context.timers.set(id.index, next),
                None => context.timers.clear(id.index),
            }
        }
    }

    /// How late it is for the deadline that has waited the longest, if one is due.
    fn timer_lag(&self, now: Timestamp) -> Option<Duration> {
        let deadline = self.next_timer()?;
        (deadline <= now).then(|| now - deadline)
    }

    /// If something is due: reads what waits in the socket and writes what it takes. A process
    /// that was stopped for a while sees the time before it sees the events. Says whether what is
    /// still due then is to be taken for late; `began` is when this iteration's timers began.
    fn is_heard(&mut self, id: ConnectionId, began: Timestamp, now: Timestamp) -> bool {
        let Some((connection, context)) = self.shell.entry(id) else {
            return true;
        };
        if connection.due(&context.timeouts, now).is_none() {
            return true;
        }
        // That there is room may have been seen, and the flush be yet to come.
        connection.io.unblock();
        connection.flush(context, now);
        connection.io.is_readable = true;
        self.shell.conclude(&mut self.application, now);
        let mut reads = 0;
        while let Some((connection, _)) = self.shell.entry(id)
            && connection.is_to_be_read()
            && reads < READS_BEFORE_EXPIRY_MAX
        {
            reads += usize::from(!connection.io.has_input);
            self.read(id, now);
            // What was read is handled once what it has caused is written.
            let is_congested = self.shell.context.schedule.is_congested();
            if is_congested || self.now() - began >= TIMERS_TIME_MAX {
                break;
            }
        }
        let Some((connection, context)) = self.shell.entry(id) else {
            return true;
        };
        let due = connection.due(&context.timeouts, now);
        !connection.is_to_be_read() || due.is_none_or(|due| now - due >= LATE_MAX)
    }

    // Ends.

    /// If the process keeps more for its peers than it may: lets go of those for whom it keeps
    /// the most, until an eighth of the budget is free.
    pub fn shed(&mut self, now: Timestamp) {
        if !self.shell.context.pinned.is_over() {
            return;
        }
        let connections = &self.shell.connections;
        let bytes_max = self.shell.context.limits.buffer_bytes_max;
        let heaviest = eviction::heaviest(connections.iter(), connections.len(), bytes_max);
        // Frames that are half written are finished if nothing more comes; else they go next.
        let mut finishing_bytes = 0;
        for id in heaviest {
            let bytes = self.pinned_bytes().saturating_sub(finishing_bytes);
            if bytes <= bytes_max / 8 * 7 {
                break;
            }
            self.shell.let_go(id, &mut self.application, now);
            let connection = self.shell.connections.get(id);
            finishing_bytes += connection.map_or(0, |left| left.protocol.pinned_bytes());
        }
        self.shell.conclude(&mut self.application, now);
    }

    /// If all room of a lane is taken: lets go of connections that have been about to begin or to end for
    /// the longest.
    pub fn make_room(&mut self, lane: Lane, now: Timestamp) {
        if self.has_room(lane) {
            return;
        }
        for id in eviction::oldest_unopened(self.shell.connections.iter(), lane) {
            self.shell.drop_at_once(id, now);
        }
        self.shell.conclude(&mut self.application, now);
    }

    /// Starts to stop, which takes `drain` at most: nobody is let in any more, and all are told but
    /// publishers that may have more to say.
    pub fn shut_down(&mut self, drain: Duration, now: Timestamp) {
        self.shutdown = Some(Shutdown::new(now, drain));
        self.shell.context.places.stop();
        shutdown::dismiss(
            &mut self.shell,
            &mut self.application,
            |connection| !connection.closes_last(),
            now,
        );
    }

    /// Whether it was told to stop, and has: everybody is gone, or the time is over.
    pub fn is_drained(&self) -> bool {
        let shutdown = self.shutdown.as_ref();
        shutdown.is_some_and(|stop| self.connections_len() == 0 || stop.is_over(self.now()))
    }

    /// Tells publishers that the server stops when the clients have been told and publishers have their answers.
    fn continue_shutdown(&mut self, now: Timestamp) {
        let Some(shutdown) = &mut self.shutdown else {
            return;
        };
        let (shell, application) = (&mut self.shell, &mut self.application);
        let has_told_clients = || {
            !shell.connections.iter().any(shutdown::is_client_untold) && application.settle(false)
        };
        if shutdown.takes_publishers(now, has_told_clients) {
            shutdown::dismiss(shell, application, Connection::closes_last, now);
        }
    }

    /// Drops the connections that are closed. Slots are freed here and nowhere else, so that
    /// an id stays good for a whole iteration.
    pub fn reap(&mut self, now: Timestamp) {
        let mut left = 0;
        while let Some((connection, context)) = self.shell.pop(List::Closed) {
            // The peer may have shut only its sending side: what it is owed is tried once.
            connection.write_queue(&mut context.writer, now);
            connection.protocol.release(&context.pinned);
            let id = connection.id;
            self.shell.remove(id);
            left += 1;
        }
        let remain = self.connections_len();
        if self.departures.update(left, remain, CROWD_MIN) {
            self.shell.shrink();
        }
        let pinned_bytes = self.pinned_bytes();
        self.trimmer.update(left, remain, pinned_bytes, now);
    }

    /// Asserts what is true between any two calls.
    pub fn check_invariants(&self) {
        self.shell.check_invariants(LATE_MAX + LATE_INTERVAL);
    }
}
