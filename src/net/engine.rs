//! The body of the loop: what readiness, time and the application's answers do to connections.
//!
//! Generic over the application and over the transport; knows no mio. The server (or a
//! simulation) brings readiness in and calls, in every iteration: [`Engine::begin_turn`],
//! [`Engine::handle_ready`], [`Engine::read_again`], [`Engine::flush_replies`], then
//! [`Engine::flush_deliveries`] in slices, [`Engine::handle_timers`], [`Engine::make_room`] if
//! somebody waits to be accepted, and [`Engine::reap`].
//!
//! Invariants: a connection leaves its slot in `reap` only; a session that has left Open is
//! known to the application as gone before the call that made it leave returns; each list
//! holds a connection once. An iteration has a bound in time, whatever peers send: a connection's
//! turn ends after so many frames or bytes of answers, the taking in of input after
//! [`INPUT_TIME_MAX`]; what is left waits in its list, by priority.

mod closing;
mod requests;
#[cfg(test)]
mod tests;
mod throttling;

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::time::Duration;

use log::debug;

use crate::application::{
    Admission, Application, CloseCause, Lane, Peer, PeerAddress, Request, Response, Status,
};
use crate::config::{ServerLimits, Timeouts};
use crate::id::ConnectionId;
use crate::log_limit::LogLimit;
use crate::memory::{Departures, Trimmer};
use crate::metrics::Metrics;
use crate::time::{Clock, Timestamp};
use crate::ws::close::CloseCode;
use crate::ws::event::{Event, Expiry};
use crate::ws::pinned::PinnedBytes;
use crate::ws::session::Session;
use fastrand::Rng;

pub use super::connection::READ_BUFFER_BYTES;
use super::connection::{Connection, Kind, Marks, Transport};
use super::connections::Connections;
use super::schedule::{Priority, ReadyLists};
use super::shell::{Shell, ShellOutbox};
use super::timers::Timers;

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

/// Frames or requests of a connection that are handled in one turn; so many more of a publisher's.
const FRAMES_A_TURN_MAX: usize = 256;
const PUBLISHER_FRAMES_FACTOR: usize = 4;

/// How long an iteration handles what is due. One connection may take longer by the reads that it
/// gets before it is taken for late.
const TIMERS_TIME_MAX: Duration = Duration::from_millis(1);

/// Reads of a connection that is late before it is taken for late.
const READS_BEFORE_EXPIRY_MAX: usize = 4;

/// A connection that is late by less than this isn't taken for late while there is input of it that
/// there was no time for; it is looked at again after so long.
const LATE_MAX: Duration = Duration::from_secs(5);
const LATE_INTERVAL: Duration = Duration::from_millis(100);

/// Bytes of answers after which a connection's turn ends, and beyond which they are written at
/// once. A thousand connections that send nothing but Pings must not make us keep a thousand
/// times what a turn reads.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// Connections beyond the limit that are let in to be told so, and handshakes under way.
pub const SPARE_CONNECTIONS: usize = 64;

/// What §7.4.1 of RFC 6455 calls a Close without a code, and an end without a Close.
const NO_STATUS: u16 = 1005;
const NO_CLOSE: u16 = 1006;

/// How much of a lane is taken.
#[derive(Clone, Copy, Default, Debug)]
struct LaneCount {
    /// Connections in whatever state.
    connections: usize,
    /// Those that the application was told of.
    admitted: usize,
}

/// What an event said about a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Readiness {
    /// There may be something to read.
    pub is_readable: bool,
    /// There may be room to write.
    pub is_writable: bool,
    /// The peer sends no more, or the connection failed.
    pub is_ending: bool,
    /// The connection failed: nothing can be written any more.
    pub is_failed: bool,
    /// There is urgent data (`EPOLLPRI`), which ends reads early.
    pub is_urgent: bool,
}

/// Sessions, timers and lists, driven by whoever owns the sockets.
pub struct Engine<T, A, C> {
    application: A,
    shell: Shell<T, C>,
    timers: Timers,
    read_buffer: Vec<u8>,
    /// Connections with more to read, or with input that was held back.
    ready: ReadyLists,
    /// When this iteration began.
    turn_began: Timestamp,
    /// How many frames were queued and not written then.
    unwritten_before: usize,
    /// How many events have come, of all that ever did; wraps.
    events: u32,
    /// Connections to be dropped.
    closed: Vec<ConnectionId>,
    /// By [`Lane`].
    lanes: [LaneCount; 2],
    /// Of connections.
    departures: Departures,
    trimmer: Trimmer,
    /// The lines about connections that are closed for what they did.
    fault_log: LogLimit,
    is_stopping: bool,
    limits: ServerLimits,
    timeouts: Timeouts,
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
        Self {
            application,
            shell: Shell {
                clock,
                connections: Connections::default(),
                replies: Vec::new(),
                deliveries: VecDeque::new(),
                overflowed: Vec::new(),
                unwritten: 0,
                scratch: Vec::new(),
                pinned: PinnedBytes::new(limits.buffer_bytes_max),
                random: Rng::with_seed(seed),
                metrics: Metrics::default(),
                send_queue_bytes_max: limits.send_queue_bytes_max,
                kinds: [0; 4],
            },
            timers: Timers::default(),
            read_buffer: vec![0; READ_BUFFER_BYTES],
            ready: ReadyLists::default(),
            turn_began: Timestamp::ZERO,
            unwritten_before: 0,
            events: 0,
            closed: Vec::new(),
            lanes: Default::default(),
            departures: Departures::default(),
            trimmer: Trimmer::default(),
            fault_log: LogLimit::default(),
            is_stopping: false,
            limits,
            timeouts,
        }
    }

    /// The current time.
    pub fn now(&self) -> Timestamp {
        self.shell.clock.now()
    }

    /// What has been counted so far.
    pub const fn metrics(&self) -> &Metrics {
        &self.shell.metrics
    }

    /// Bytes that are kept for peers.
    pub fn pinned_bytes(&self) -> usize {
        self.shell.pinned.bytes()
    }

    /// How many connections there are, in whatever state.
    pub fn connections_len(&self) -> usize {
        self.shell.connections.len()
    }

    /// Whether another connection of a lane may be accepted.
    pub fn has_room(&self, lane: Lane) -> bool {
        self.lanes[lane as usize].connections < self.admissions_max(lane) + SPARE_CONNECTIONS
    }

    const fn admissions_max(&self, lane: Lane) -> usize {
        match lane {
            Lane::Clients => self.limits.connections_max,
            Lane::Publishers => self.limits.publishers_max,
        }
    }

    /// Counts that accepting had to pause.
    pub const fn count_accept_pause(&mut self) {
        self.shell.metrics.accept_pauses += 1;
    }

    /// Takes a new connection in.
    pub fn insert(&mut self, transport: T, peer: Peer, now: Timestamp) -> ConnectionId {
        let marks = Marks {
            may_read_short: peer.address == PeerAddress::Unix,
            ..Marks::default()
        };
        let id = self.shell.connections.insert(|id| Connection {
            id,
            peer,
            counted: Kind::default(),
            transport,
            session: Session::new(now),
            deadline: None,
            marks,
            throttle: None,
        });
        self.lanes[peer.lane as usize].connections += 1;
        self.shell.kinds[Kind::Handshake as usize] += 1;
        self.shell.metrics.connections_accepted += 1;
        self.timers.set(id.index, now + self.timeouts.handshake);
        id
    }

    /// The transport of a connection, for whoever registers it with a poll.
    pub fn transport_mut(&mut self, id: ConnectionId) -> Option<&mut T> {
        self.shell
            .connections
            .get_mut(id)
            .map(|connection| &mut connection.transport)
    }

    /// Drops a connection that never came to life.
    pub fn discard(&mut self, id: ConnectionId) {
        self.timers.clear(id.index);
        if let Some(connection) = self.shell.connections.remove(id) {
            self.shell.metrics.connections_dropped += 1;
            self.lanes[connection.peer.lane as usize].connections -= 1;
            self.shell.kinds[connection.counted as usize] -= 1;
        }
    }

    /// Has the application read again what it can.
    pub fn reload(&mut self) {
        self.application.handle_reload();
    }

    // Input.

    /// Begins an iteration at `now`: it takes input in for a while.
    pub const fn begin_turn(&mut self, now: Timestamp) {
        self.turn_began = now;
        self.unwritten_before = self.shell.unwritten;
    }

    /// Ends an iteration.
    pub fn end_turn(&mut self) {
        let micros = (self.now() - self.turn_began).as_micros() as u64;
        self.shell.metrics.turn_micros.observe(micros);
    }

    /// Whether this iteration has taken input in for as long as it may, at `now`.
    pub fn is_input_over(&self, now: Timestamp) -> bool {
        now >= self.input_until()
    }

    fn input_until(&self) -> Timestamp {
        let queued = self.shell.unwritten.saturating_sub(self.unwritten_before);
        let queued = u32::try_from(queued).unwrap_or(u32::MAX);
        self.turn_began + INPUT_TIME_MAX + INPUT_TIME_A_DELIVERY * queued
    }

    /// Does what an event asks for, or notes it where others wait or the time is over. An event
    /// for a connection that is gone is ignored.
    pub fn handle_ready(&mut self, id: ConnectionId, readiness: Readiness, now: Timestamp) {
        let Some(connection) = self.shell.connections.get_mut(id) else {
            self.shell.metrics.events_stale += 1;
            return;
        };
        connection.note(readiness);
        let priority = connection.priority();
        if readiness.is_writable && mem::replace(&mut connection.marks.is_blocked, false) {
            self.shell.mark_delivery(id);
        }
        // Served connections may cause much; the others mostly say one thing, which is soon done.
        self.events = self.events.wrapping_add(1);
        let is_looked_at =
            priority == Priority::Served || self.events.is_multiple_of(EVENTS_A_LOOK);
        let is_over = is_looked_at && self.is_input_over(self.now());
        if self.ready.len(priority) == 0 && !is_over {
            self.read(id, now);
        } else {
            self.schedule(id);
        }
    }

    /// Whether connections wait to be read again.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Reads on where an earlier turn left something; one turn for each, as far as the time allows.
    pub fn read_again(&mut self, now: Timestamp) {
        for priority in Priority::ALL {
            let count = self.ready.len(priority);
            if count == 0 {
                continue;
            }
            let until_at_least = self.now() + INPUT_TIME_MIN;
            for _ in 0..count {
                let Some(id) = self.ready.pop(priority) else {
                    break;
                };
                if let Some(connection) = self.shell.connections.get_mut(id) {
                    connection.marks.is_ready = false;
                    self.read(id, now);
                    if self.now() >= self.input_until().max(until_at_least) {
                        break;
                    }
                }
            }
        }
    }

    /// Puts a connection that is to be read on the list of its priority.
    fn schedule(&mut self, id: ConnectionId) {
        if let Some(connection) = self.shell.connections.get_mut(id)
            && connection.has_work()
            && !mem::replace(&mut connection.marks.is_ready, true)
        {
            self.ready.push(id, connection.priority());
        }
    }

    /// A turn of reading: what was held back, or else what one read brings. There may be more;
    /// the others have their turn first.
    fn read(&mut self, id: ConnectionId, now: Timestamp) {
        let is_congested = self.shell.is_congested();
        if let Some(connection) = self.shell.connections.get_mut(id)
            && connection.is_to_be_read()
        {
            if !connection.marks.has_input {
                self.read_once(id, now);
            } else if !is_congested {
                connection.marks.has_input = false;
                self.handle_input(id, &mut [], now);
            }
        }
        self.handle_throttled(id, now);
        self.settle(id);
        self.cut_off_overflowed(now);
    }

    fn read_once(&mut self, id: ConnectionId, now: Timestamp) {
        let Some(connection) = self.shell.connections.get_mut(id) else {
            return;
        };
        let mut buffer = mem::take(&mut self.read_buffer);
        let bytes_max = connection.read_bytes_max();
        let read = loop {
            match connection.transport.read(&mut buffer[..bytes_max]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        match read {
            Ok(0) => self.end(id, None, now),
            Ok(received) => {
                // A short read drained the socket; the edge comes again with more.
                let marks = &mut connection.marks;
                marks.is_readable =
                    received == bytes_max || marks.read_to_end || marks.may_read_short;
                connection.session.handle_read(now);
                self.shell.metrics.bytes_read += received as u64;
                self.handle_input(id, &mut buffer[..received], now);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                connection.marks.is_readable = false;
                if connection.marks.is_write_failed {
                    self.end(id, Some(&error), now);
                }
            }
            Err(error) => self.end(id, Some(&error), now),
        }
        self.read_buffer = buffer;
    }

    /// The input has come to its end, or to an error.
    fn end(&mut self, id: ConnectionId, error: Option<&io::Error>, now: Timestamp) {
        let Some(connection) = self.shell.connections.get_mut(id) else {
            return;
        };
        if connection.session.is_open() {
            match error {
                None => {
                    debug!(connection:% = id, peer:% = connection.peer; "{id} {}: hung up without a close", connection.peer)
                }
                Some(error) => {
                    debug!(connection:% = id, peer:% = connection.peer, reason:% = error; "{id} {}: {error}", connection.peer)
                }
            }
            self.shell.metrics.closed_without_close += 1;
            self.shell.metrics.closed.count(NO_CLOSE);
        }
        connection.marks.is_readable = false;
        connection.marks.is_write_failed |= error.is_some();
        if connection.marks.is_write_failed {
            return connection.session.handle_end();
        }
        connection.session.handle_eof(now);
        self.shell.mark_reply(id);
    }

    /// Hands the input to the session and its events to the application.
    fn handle_input(&mut self, id: ConnectionId, received: &mut [u8], now: Timestamp) {
        let Some(connection) = self.shell.connections.get_mut(id) else {
            return;
        };
        let mut incoming = connection.session.take_incoming();
        let frames_max = match connection.priority() {
            Priority::Publisher => FRAMES_A_TURN_MAX * PUBLISHER_FRAMES_FACTOR,
            Priority::New | Priority::Served => FRAMES_A_TURN_MAX,
        };
        let mut input = incoming.input(received, frames_max);
        let unsent_bytes_max = connection.session.queue().unsent_bytes() + ANSWER_BYTES_MAX;
        let mut is_held = false;
        while let Some(connection) = self.shell.connections.get_mut(id) {
            if connection.session.queue().unsent_bytes() > unsent_bytes_max {
                is_held = !input.is_used_up();
                break;
            }
            let Some(event) =
                connection
                    .session
                    .next_event(&mut input, now, self.limits.head_bytes_max)
            else {
                break;
            };
            if let Event::Request { head, .. } = &event
                && !connection.marks.is_served
                && self.defers(id, head, now)
            {
                input.put_back_request();
                is_held = true;
                break;
            }
            let (was_congested, unwritten) = (self.shell.is_congested(), self.shell.unwritten);
            self.handle_event(id, event, now);
            // A publisher that sends much at once waits until subscribers have had their turn.
            let is_congested = was_congested || self.shell.is_congested();
            if is_congested && self.shell.unwritten != unwritten {
                is_held = !input.is_used_up();
                break;
            }
        }
        let leftover = input.finish();
        self.charge(id, leftover.frames, received.len(), now);
        if let Some(connection) = self.shell.connections.get_mut(id) {
            connection
                .session
                .keep_incoming(incoming, received, &leftover, now);
            connection.marks.has_input = is_held || leftover.is_cut_short;
            connection.marks.is_served |= leftover.frames > 0;
            let unsent_bytes = connection.session.queue().unsent_bytes();
            if unsent_bytes > 0 {
                self.shell.mark_reply(id);
            }
            if unsent_bytes > ANSWER_BYTES_MAX {
                self.flush(id, now);
            }
        }
    }

    fn handle_event(&mut self, id: ConnectionId, event: Event<'_>, now: Timestamp) {
        match event {
            Event::Message(message) => {
                let mut outbox = ShellOutbox::new(&mut self.shell, id, now);
                self.application.handle_message(id, message, &mut outbox);
            }
            event => self.handle_other_event(id, event, now),
        }
        // Whoever has left must not be reached by the next event's message.
        self.settle_gone(id);
        self.cut_off_overflowed(now);
    }

    /// Whatever isn't a message. Apart, so that messages don't pay for what this needs.
    fn handle_other_event(&mut self, id: ConnectionId, event: Event<'_>, now: Timestamp) {
        let Some(connection) = self.shell.connections.get_mut(id) else {
            return;
        };
        let peer = connection.peer;
        match event {
            Event::Message(_) => {}
            Event::Upgrade { head, accept } => {
                let request = self.request(peer, &head, now);
                self.give_up_place(id);
                match self.admit(id, &request) {
                    Ok(admission) => {
                        if let Some(connection) = self.shell.connections.get_mut(id) {
                            connection
                                .session
                                .accept(accept, admission.message_bytes_max);
                            connection.admit(&admission);
                            connection.marks.is_admitted = true;
                        }
                        if admission.is_limited {
                            self.limit(id, now);
                        }
                        self.lanes[peer.lane as usize].admitted += 1;
                        self.shell.recount(id);
                        self.shell.metrics.upgrades += 1;
                    }
                    Err(response) => {
                        self.shell.metrics.count_refusal(response.status.code);
                        self.respond(id, &response, now);
                    }
                }
            }
            Event::Request { head, framing } => self.handle_request(id, &head, framing, now),
            Event::Body {
                body,
                permit,
                stays,
            } => self.handle_body(id, &body, permit, stays, now),
            Event::Rejected(rejection) => self.reject(id, rejection, now),
            Event::Pong { round_trip } => {
                let micros = round_trip.as_micros() as u64;
                self.shell.metrics.ping_round_trip_micros.observe(micros);
            }
            Event::Discarded => self.shell.metrics.messages_discarded += 1,
            Event::Failed(error) => self.close(id, CloseCause::Protocol(error), now),
            Event::Closed { code } => {
                // If it answers ours, that one has been counted.
                if connection.marks.is_admitted {
                    let code = code.map_or(NO_STATUS, CloseCode::as_u16);
                    self.shell.metrics.closed.count(code);
                }
                match code {
                    Some(code) => {
                        debug!(connection:% = id, peer:% = peer, code = code.as_u16(); "{id} {peer}: closed with {code}")
                    }
                    None => debug!(connection:% = id, peer:% = peer; "{id} {peer}: closed"),
                }
            }
        }
    }

    fn admit(&mut self, id: ConnectionId, request: &Request<'_>) -> Result<Admission, Response> {
        let lane = request.peer.lane;
        self.check_places(lane)?;
        self.application.handle_upgrade(id, request)
    }

    // Output.

    /// Writes what answers the peers themselves: they wait for it, and what they send next
    /// may be the notification that the coming deliveries can be written with.
    pub fn flush_replies(&mut self, now: Timestamp) {
        while let Some(id) = self.shell.replies.pop() {
            if let Some(connection) = self.shell.connections.get_mut(id) {
                connection.marks.has_reply = false;
                self.flush(id, now);
            }
        }
    }

    /// Whether deliveries wait to be written.
    pub fn has_deliveries(&self) -> bool {
        !self.shell.deliveries.is_empty()
    }

    /// Writes the deliveries of `connections_max` connections at most.
    pub fn flush_deliveries(&mut self, connections_max: usize, now: Timestamp) {
        for _ in 0..connections_max {
            let Some(id) = self.shell.deliveries.pop_front() else {
                break;
            };
            if let Some(connection) = self.shell.connections.get_mut(id) {
                connection.marks.has_delivery = false;
                self.flush(id, now);
            }
        }
        if self.shell.deliveries.is_empty() {
            self.shell.unwritten = 0;
        }
    }

    /// Writes what the socket takes; what it doesn't stays until the writable edge.
    fn flush(&mut self, id: ConnectionId, now: Timestamp) {
        let Some(connection) = self.shell.connections.get_mut(id) else {
            return;
        };
        connection.flush(&mut self.shell.scratch, now);
        if connection.session.take_shutdown() {
            // A peer that is gone already has no use for it.
            let _ = connection.transport.shutdown_write();
        }
        self.settle(id);
    }

    // Time.

    /// The next time at which [`Engine::handle_timers`] has something to do.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.timers.first().map(|(deadline, _)| deadline)
    }

    /// The next time at which [`Engine::reap`] has memory to give back.
    pub const fn next_trim(&self) -> Option<Timestamp> {
        self.trimmer.due()
    }

    /// Does what is due.
    pub fn handle_timers(&mut self, now: Timestamp) {
        let Some(lag) = self.timer_lag(now) else {
            return;
        };
        let micros = lag.as_micros() as u64;
        self.shell.metrics.loop_lag_micros.observe(micros);
        let began = self.now();
        while let Some((deadline, slot)) = self.timers.first()
            && deadline <= now
            && self.now() - began < TIMERS_TIME_MAX
        {
            let Some(id) = self.shell.connections.id_at(slot) else {
                self.timers.clear(slot);
                continue;
            };
            self.handle_pause(id, now);
            if !self.is_heard(id, began, now) {
                self.timers.set(slot, now + LATE_INTERVAL);
                continue;
            }
            self.handle_expiry(id, now);
            let next = self
                .shell
                .connections
                .get(id)
                .and_then(|connection| connection.next_deadline(&self.timeouts));
            match next {
                Some(next) => self.timers.set(slot, next),
                None => self.timers.clear(slot),
            }
        }
        self.flush_replies(now);
    }

    /// How late it is for the deadline that has waited the longest, if one is due.
    fn timer_lag(&self, now: Timestamp) -> Option<Duration> {
        let (deadline, _) = self.timers.first()?;
        (deadline <= now).then(|| now - deadline)
    }

    /// If something is due: reads what waits in the socket and writes what it takes. A process
    /// that was stopped for a while sees the time before it sees the events. Says whether what is
    /// still due then is to be taken for late; `began` is when this iteration's timers began.
    fn is_heard(&mut self, id: ConnectionId, began: Timestamp, now: Timestamp) -> bool {
        if self.due(id, now).is_none() {
            return true;
        }
        if let Some(connection) = self.shell.connections.get_mut(id) {
            connection.marks.is_blocked = false;
        }
        // That there is room may have been seen, and the flush be yet to come.
        self.flush(id, now);
        if let Some(connection) = self.shell.connections.get_mut(id) {
            connection.marks.is_readable = true;
        }
        let mut reads = 0;
        while let Some(connection) = self.shell.connections.get(id)
            && connection.is_to_be_read()
            && reads < READS_BEFORE_EXPIRY_MAX
        {
            reads += usize::from(!connection.marks.has_input);
            self.read(id, now);
            // What was read is handled once what it has caused is written.
            if self.shell.is_congested() || self.now() - began >= TIMERS_TIME_MAX {
                break;
            }
        }
        let connection = self.shell.connections.get(id);
        let is_unheard = connection.is_some_and(Connection::is_to_be_read);
        !is_unheard || self.due(id, now).is_none_or(|due| now - due >= LATE_MAX)
    }

    /// What is due by `now` for a connection, of its session's deadline and the application's.
    fn due(&self, id: ConnectionId, now: Timestamp) -> Option<Timestamp> {
        let connection = self.shell.connections.get(id)?;
        let session = connection.session.poll_timeout(&self.timeouts);
        let deadlines = session.into_iter().chain(connection.own_deadline());
        deadlines.min().filter(|due| *due <= now)
    }

    fn handle_expiry(&mut self, id: ConnectionId, now: Timestamp) {
        let Some(connection) = self.shell.connections.get_mut(id) else {
            return;
        };
        if connection.own_deadline().is_some_and(|due| due <= now) {
            connection.deadline = None;
            let mut outbox = ShellOutbox::new(&mut self.shell, id, now);
            self.application.handle_deadline(id, &mut outbox);
            self.shell.mark_delivery(id);
            return self.settle(id);
        }
        let Some(expiry) = connection.session.handle_timeout(now, &self.timeouts) else {
            return;
        };
        let peer = connection.peer;
        let cause = match expiry {
            Expiry::Handshake => {
                debug!(connection:% = id, peer:% = peer; "{id} {peer}: no handshake in time");
                self.shell.metrics.handshakes_expired += 1;
                let late = Response::new(Status::REQUEST_TIMEOUT, "no request in time");
                self.respond(id, &late, now);
                None
            }
            Expiry::PingDue | Expiry::Idle | Expiry::Close => None,
            Expiry::PongOverdue => {
                debug!(connection:% = id, peer:% = peer; "{id} {peer}: no sign of life");
                self.shell.metrics.peers_dead += 1;
                self.shell.metrics.closed.count(NO_CLOSE);
                None
            }
            Expiry::Message => Some(CloseCause::UnfinishedMessage),
            Expiry::Write => Some(CloseCause::SlowConsumer),
        };
        if let Some(cause) = cause {
            self.close(id, cause, now);
        }
        // A thousand Pings that are due at once are written in slices, like deliveries.
        self.shell.mark_delivery(id);
        self.settle(id);
    }
}
