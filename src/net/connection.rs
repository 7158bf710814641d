//! One connection: its transport, its protocol, what it was granted, and where it stands in the loop.
//!
//! What concerns one connection alone is a method here; what connections share comes in as a
//! `Context`. `Connection::settle` ends whatever changed something.
//!
//! Invariants: it is known to the application from its admission to `List::Gone`; it has a place among
//! those that are let in while it is known to the application, or publishes over HTTP.

use std::io;
use std::mem;
use std::time::Duration;

use log::{debug, log};

use crate::application::{Admission, BodyUse, Lane, Peer};
use crate::config::Timeouts;
use crate::id::ConnectionId;
use crate::time::{Clock, Timestamp};
use crate::wire::shared::SharedBytes;

use super::context::Context;
use super::places::Kind;
use super::protocol::Protocol;
use super::schedule::{List, Membership, Priority};
use super::throttle::Throttle;
use super::transport::{READ_BYTES_MAX, Transport};
use super::writer::Writer;

pub(super) mod saved;

/// Bytes that are read at once of a connection of which little is expected.
pub(super) const BRIEF_READ_BYTES: usize = 4096;

/// What §7.4.1 of RFC 6455 calls an end without a Close.
pub(super) const NO_CLOSE: u16 = 1006;

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

/// What is known of a connection's socket, and of the input that was taken from it.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct IoState {
    pub(super) room: Room,
    /// An edge was seen whose bytes have not all been read.
    pub(super) is_readable: bool,
    /// Some of what was read is held back for a later turn.
    pub(super) has_input: bool,
    /// The end of the input is near: read on even after a short read.
    pub(super) read_to_end: bool,
    /// There was urgent data (RFC 9293 §3.8.5): a read may end at it, whatever lies behind it.
    pub(super) may_read_short: bool,
    /// A write failed: only reading is left to do.
    pub(super) is_write_failed: bool,
    /// A turn took something of its input, beside an upgrade: others come first.
    pub(super) is_served: bool,
}

/// What is known of the room for what is written.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) enum Room {
    /// All was taken so far, and no edge would tell of room.
    #[default]
    Unwatched,
    /// There may be some, and edges tell.
    Watched,
    /// The last write would have blocked, and no writable edge was seen since.
    Full,
}

impl IoState {
    /// Takes it that there may be room; says whether there was known to be none.
    pub(super) fn unblock(&mut self) -> bool {
        let was_full = self.room == Room::Full;
        if was_full {
            self.room = Room::Watched;
        }
        was_full
    }
}

/// What the application has granted to a connection.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Grants {
    /// The application was told of it and has not been told that it is gone.
    pub(super) is_admitted: bool,
    /// It has published over HTTP: it has a place among those that are let in.
    pub(super) is_publisher: bool,
    /// What the body of the request is for that is read.
    pub(super) body_use: BodyUse,
    /// What it has sent counts though it has hung up.
    pub(super) drains_after_hang_up: bool,
    /// It is told last that the server stops.
    pub(super) closes_last: bool,
    /// It has its place because of the body whose answer is awaited, and keeps it if that is a good one.
    pub(super) has_place_on_trial: bool,
    /// The application is to be told when its queue has drained.
    pub(super) awaits_drained: bool,
    /// The application takes none of its messages for now.
    pub(super) is_paused: bool,
}

/// A connection in its slot.
///
/// In a fan-out each delivery finds its slot gone from the cache. What it needs, from the name to
/// the session, is in three cache lines: a large table begins 16 bytes behind the start of a page,
/// where malloc notes its length. An alignment to cache lines would have the same effect, and
/// be paid for with copies: no allocator can make such a list shorter where it lies.
#[derive(Debug)]
#[repr(C, align(16))]
pub struct Connection<T> {
    /// Where it comes from.
    pub(super) peer: Peer,
    /// What it is counted as.
    counted: Kind,
    /// When the application wants to be asked about it, if it is open then.
    pub(super) deadline: Option<Timestamp>,
    /// Its name.
    pub(super) id: ConnectionId,
    /// What carries its bytes.
    pub(super) transport: T,
    pub(super) io: IoState,
    pub(super) membership: Membership,
    pub(super) grants: Grants,
    /// The protocol's side.
    pub(super) protocol: Protocol,
    /// How much it may send, if that is limited.
    pub(super) throttle: Option<Box<Throttle>>,
}

/// Four cache lines; those of a delivery begin 48 bytes, and end 240, behind the slot's start. A debug build's
/// sockets are larger.
#[cfg(not(debug_assertions))]
const _: () = {
    use super::socket::Socket;
    assert!(size_of::<Connection<Socket>>() == 256);
    assert!(std::mem::offset_of!(Connection<Socket>, id) == 48);
    assert!(std::mem::offset_of!(Connection<Socket>, throttle) == 240);
};

impl<T> Connection<T> {
    /// A connection that was accepted at `now`.
    pub(super) fn new(id: ConnectionId, peer: Peer, transport: T, now: Timestamp) -> Self {
        Self {
            peer,
            counted: Kind::default(),
            deadline: None,
            id,
            transport,
            io: IoState::default(),
            membership: Membership::default(),
            grants: Grants::default(),
            protocol: Protocol::new(now),
            throttle: None,
        }
    }

    /// What it is counted as.
    pub(super) const fn counted(&self) -> Kind {
        self.counted
    }

    /// What it is.
    pub(super) const fn kind(&self) -> Kind {
        match (self.protocol.is_open(), self.protocol.is_serving_http()) {
            (true, _) => Kind::Open,
            (_, true) if self.grants.is_publisher => Kind::Http,
            (_, true) => Kind::Handshake,
            _ => Kind::Closing,
        }
    }

    /// Whether it is told last that the server stops.
    pub(super) fn closes_last(&self) -> bool {
        self.grants.closes_last || self.peer.lane == Lane::Publishers
    }

    // What it is granted.

    /// Takes over what the application grants; the session is open, or about to be.
    pub(super) fn admit(&mut self, admission: &Admission) {
        if let Some(session) = self.protocol.open_session_mut() {
            session.limit_messages(admission.message_bytes_max);
        }
        if let Some(address) = admission.on_behalf_of {
            self.peer.address = address;
        }
        if !admission.is_limited {
            self.throttle = None;
        }
        self.grants.drains_after_hang_up = admission.drains_after_hang_up;
        self.grants.closes_last = admission.closes_last;
        self.deadline = admission.deadline;
    }

    /// Counts it among those that are let in: it was upgraded, and the application knows it.
    pub(super) fn enter<C>(&mut self, context: &mut Context<C>) {
        self.grants.is_admitted = true;
        context.places.admit(self.peer.lane);
        self.recount(context);
    }

    /// Gives it a place among those that are let in, because it publishes over HTTP.
    pub(super) fn take_place<C>(&mut self, context: &mut Context<C>) {
        if !mem::replace(&mut self.grants.is_publisher, true) {
            context.places.admit(self.peer.lane);
        }
        self.recount(context);
    }

    /// Gives such a place up.
    pub(super) fn give_up_place<C>(&mut self, context: &mut Context<C>) {
        self.grants.has_place_on_trial = false;
        if mem::take(&mut self.grants.is_publisher) {
            context.places.give_up(self.peer.lane);
        }
    }

    /// Decides about a place that was given before it was known what was published.
    pub(super) fn decide_place<C>(&mut self, is_good: bool, context: &mut Context<C>) {
        if mem::take(&mut self.grants.has_place_on_trial) && !is_good {
            self.give_up_place(context);
            self.recount(context);
        }
    }

    fn recount<C>(&mut self, context: &mut Context<C>) {
        let kind = self.kind();
        if kind != self.counted {
            context.places.recount(self.counted, kind);
            self.counted = kind;
        }
    }

    /// Has the rates of clients apply from `now` on, if they don't yet.
    pub(super) fn limit<C>(&mut self, context: &Context<C>, now: Timestamp) {
        if self.throttle.is_none() {
            self.throttle = Throttle::new(&context.limits, now);
        }
    }

    /// Charges it with what it has sent, if that is limited.
    pub(super) fn charge<C>(
        &mut self,
        frames: usize,
        bytes: usize,
        context: &mut Context<C>,
        now: Timestamp,
    ) {
        let is_heard = self.is_heard();
        if let Some(throttle) = &mut self.throttle
            && is_heard
            && throttle.charge(frames, bytes, now)
        {
            context.metrics.reads_throttled += 1;
        }
    }

    /// Whether its input counts: a connection that ends isn't held up, as its input is discarded.
    const fn is_heard(&self) -> bool {
        self.protocol.is_open() || self.protocol.is_serving_http()
    }

    /// Until when it isn't read.
    pub(super) fn throttled_until(&self) -> Option<Timestamp> {
        let throttle = self.throttle.as_ref()?;
        throttle.until().filter(|_| self.is_heard())
    }

    /// Time in which it was not read, being throttled or paused, is not its fault. Says whether there was any.
    pub(super) fn handle_pause(&mut self, now: Timestamp) -> bool {
        let throttle = self.throttle.as_mut();
        let mut pause = throttle.and_then(|throttle| throttle.take_pause(now));
        if self.is_paused() {
            pause = Some(
                self.protocol
                    .unfinished_since()
                    .map_or(Duration::ZERO, |begun| now - begun),
            );
        }
        if let Some(pause) = pause {
            self.protocol.handle_pause(pause, now);
        }
        pause.is_some()
    }

    // Input.

    /// Notes what an event says.
    pub(super) const fn note(&mut self, readiness: Readiness) {
        self.io.is_readable |= readiness.is_readable || readiness.is_ending;
        self.io.read_to_end |= readiness.is_ending;
        self.io.is_write_failed |= readiness.is_failed;
        self.io.may_read_short |= readiness.is_urgent;
    }

    /// Whether the application owes it an answer to a request: no more is taken from it until then.
    pub(super) fn is_answer_due(&self) -> bool {
        let exchange = self.protocol.exchange();
        exchange.is_some_and(|exchange| exchange.is_answer_due())
    }

    /// Whether it has input that may be taken. What was read is handled even while nothing more
    /// is read.
    pub(super) fn is_to_be_read(&self) -> bool {
        let is_readable = self.io.is_readable && self.throttled_until().is_none();
        (is_readable || self.io.has_input)
            && !self.protocol.is_closed()
            && !self.is_answer_due()
            && !self.is_paused()
    }

    /// Whether the application takes none of its messages for now. What a peer has sent that has hung up is read
    /// all the same: nothing comes behind it, and the end has to be seen.
    pub(super) const fn is_paused(&self) -> bool {
        let has_hung_up = self.io.read_to_end || self.io.is_write_failed;
        self.grants.is_paused && !has_hung_up && self.protocol.is_open()
    }

    /// Whether it has hung up while it isn't read, and nothing of it is left to be handled.
    pub(super) fn has_hung_up_unread(&self) -> bool {
        self.io.read_to_end && !self.io.has_input && self.throttled_until().is_some()
    }

    /// Whether a turn has something to do for it.
    pub(super) fn has_work(&self) -> bool {
        self.is_to_be_read() || (self.has_hung_up_unread() && !self.protocol.is_closed())
    }

    /// When it is read, among others.
    pub(super) fn priority(&self) -> Priority {
        let grants = &self.grants;
        if self.peer.lane == Lane::Publishers || grants.closes_last || grants.is_publisher {
            Priority::Publisher
        } else if !self.io.is_served || self.protocol.is_receiving() {
            Priority::New
        } else {
            Priority::Served
        }
    }

    /// How much of its input is read at once. What isn't handled in the same turn is kept, so
    /// little is read of a connection that rarely has much to say, unless it is amid it.
    pub(super) fn read_bytes_max(&self) -> usize {
        let protocol = &self.protocol;
        let is_brief = protocol.is_serving_http() || self.priority() == Priority::Served;
        // What fills half of a brief read and is not finished is long.
        let is_long = protocol.is_receiving() || protocol.unfinished_bytes() > BRIEF_READ_BYTES / 2;
        if is_brief && !is_long {
            BRIEF_READ_BYTES
        } else {
            READ_BYTES_MAX
        }
    }

    // Time.

    /// When the application is to be asked about it.
    pub(super) fn own_deadline(&self) -> Option<Timestamp> {
        self.deadline.filter(|_| self.protocol.is_open())
    }

    /// When time has something to do here; `None` once it is closed.
    pub(super) fn next_deadline(&self, timeouts: &Timeouts) -> Option<Timestamp> {
        let protocol = self.protocol.poll_timeout(timeouts).into_iter();
        let own = self.own_deadline();
        protocol.chain(own).chain(self.throttled_until()).min()
    }

    /// What is due by `now`, of the protocol's deadline and the application's.
    pub(super) fn due(&self, timeouts: &Timeouts, now: Timestamp) -> Option<Timestamp> {
        let protocol = self.protocol.poll_timeout(timeouts);
        let deadlines = protocol.into_iter().chain(self.own_deadline());
        deadlines.min().filter(|due| *due <= now)
    }

    // Output.

    /// Puts it on the list of those with an answer to be written.
    #[inline]
    pub(super) fn mark_reply<C>(&mut self, context: &mut Context<C>) {
        let schedule = &mut context.schedule;
        schedule.add(List::Replies, self.id, &mut self.membership);
    }

    /// Puts it on the list of those with deliveries to be written.
    #[inline]
    pub(super) fn mark_delivery<C>(&mut self, context: &mut Context<C>) {
        let schedule = &mut context.schedule;
        schedule.add(List::Deliveries, self.id, &mut self.membership);
    }

    /// Whether it is on a list of those with something to be written.
    pub(super) const fn is_to_be_written(&self) -> bool {
        self.membership.contains(List::Replies) || self.membership.contains(List::Deliveries)
    }

    /// Whether its queue did not take a delivery: it gets nothing more and is about to be cut off.
    #[inline]
    pub(super) const fn is_overflowed(&self) -> bool {
        self.membership.contains(List::Overflowed)
    }

    /// Has it cut off.
    pub(super) fn overflow<C>(&mut self, context: &mut Context<C>) {
        let schedule = &mut context.schedule;
        schedule.add(List::Overflowed, self.id, &mut self.membership);
    }

    /// Whether the send queue takes a frame, or one more that the history holds. An empty one takes any.
    #[inline]
    pub(super) fn has_room(&mut self, frame: &SharedBytes, send_queue_bytes_max: usize) -> bool {
        let (len, unsent_bytes) = (frame.as_bytes().len(), self.protocol.queue().unsent_bytes());
        unsent_bytes == 0
            || unsent_bytes + len <= send_queue_bytes_max
            || self.has_room_beside_history(frame, send_queue_bytes_max)
    }

    #[cold]
    fn has_room_beside_history(&mut self, frame: &SharedBytes, bytes_max: usize) -> bool {
        let queue = self.protocol.update_queue();
        let len = match frame.is_retained() {
            true => 0,
            false => frame.as_bytes().len(),
        };
        let (pinned_bytes, behind_bytes) = (queue.pinned_bytes(), queue.pinned_bytes_behind());
        // A first frame that is longer than the queue may be isn't held against those behind it.
        let is_first_too_long = pinned_bytes - behind_bytes > bytes_max;
        let counted_bytes = match is_first_too_long || frame.is_retained() {
            true => behind_bytes,
            false => pinned_bytes,
        };
        counted_bytes + len <= bytes_max
    }

    /// Whether more waits to be written than may, beside what the history holds.
    pub(super) fn is_over(&mut self, send_queue_bytes_max: usize) -> bool {
        self.is_behind(send_queue_bytes_max)
            && self.protocol.update_queue().pinned_bytes() > send_queue_bytes_max
    }

    /// Whether the history has let go of more than may wait, behind what is on its way.
    pub(super) fn is_left_behind(&mut self, send_queue_bytes_max: usize) -> bool {
        self.is_behind(send_queue_bytes_max)
            && self.protocol.update_queue().pinned_bytes_behind() > send_queue_bytes_max
    }

    /// Whether more waits to be written than its queue has room for on its own account.
    #[inline]
    pub(super) const fn is_behind(&self, send_queue_bytes_max: usize) -> bool {
        self.protocol.queue().unsent_bytes() > send_queue_bytes_max
    }

    /// Has it looked at again as long as it is behind.
    pub(super) fn note_behind<C>(&mut self, context: &mut Context<C>) {
        if self.is_behind(context.limits.send_queue_bytes_max) {
            let schedule = &mut context.schedule;
            schedule.add(List::Behind, self.id, &mut self.membership);
        }
    }

    // What follows from a change.

    /// Brings up to date what follows from its protocol's state: the place that it has, what it is
    /// counted as, and that the application is to be told when it has left Open.
    #[inline]
    pub(super) fn settle_standing<C>(&mut self, context: &mut Context<C>) {
        if self.protocol.is_open() && !self.grants.is_publisher {
            return;
        }
        if !self.protocol.is_serving_http() {
            self.give_up_place(context);
        }
        if self.grants.is_admitted && !self.protocol.is_open() {
            self.grants.is_admitted = false;
            context.places.give_up(self.peer.lane);
            let schedule = &mut context.schedule;
            schedule.add(List::Gone, self.id, &mut self.membership);
        }
        self.recount(context);
    }

    /// Brings everything that follows from its state up to date. To be called at the end of whatever
    /// changed it.
    pub(super) fn settle<C>(&mut self, context: &mut Context<C>) {
        self.settle_standing(context);
        self.protocol.settle(&context.pinned);
        if self.protocol.is_closed() {
            let schedule = &mut context.schedule;
            return schedule.add(List::Closed, self.id, &mut self.membership);
        }
        self.schedule(context);
        // A later deadline waits until the earlier one comes and is found too early.
        let (timers, timeouts) = (&mut context.timers, &context.timeouts);
        if let Some(deadline) = self.next_deadline(timeouts)
            && timers
                .deadline(self.id.index)
                .is_none_or(|armed| deadline < armed)
        {
            timers.set(self.id.index, deadline);
        }
    }

    /// Puts it on the list of its priority if a turn has something to do for it.
    pub(super) fn schedule<C>(&mut self, context: &mut Context<C>) {
        if self.has_work() {
            let list = List::Ready(self.priority());
            context.schedule.add(list, self.id, &mut self.membership);
        }
    }

    /// Asserts what is true between any two calls of the engine.
    pub(super) fn check_invariants(&self, timeouts: &Timeouts) {
        self.protocol.check_invariants();
        assert_eq!(self.counted, self.kind(), "{} is counted wrong", self.id);
        assert!(!self.grants.is_admitted || self.protocol.is_open());
        assert!(!self.grants.is_publisher || self.protocol.is_serving_http());
        let is_on_trial = self.grants.has_place_on_trial;
        assert!(!is_on_trial || (self.grants.is_publisher && self.is_answer_due()));
        let is_closed = self.protocol.is_closed();
        assert_eq!(is_closed, self.membership.contains(List::Closed));
        let is_to_be_written = self.is_to_be_written();
        let is_to_be_read = self.membership.contains(List::Ready(Priority::New));
        assert!(is_to_be_read || !self.has_work());
        // A Ping that is queued has no deadline until it is written, or blocked, or the write has failed.
        let has_deadline = self.next_deadline(timeouts).is_some();
        let is_watched = has_deadline || is_to_be_written || is_to_be_read;
        assert!(is_closed || is_watched, "{} is forgotten", self.id);
        let queue = self.protocol.queue();
        assert!(is_to_be_written || queue.noted_bytes() == queue.unsent_bytes());
    }
}

impl<T: Transport> Connection<T> {
    /// Reads once; at most `buffer`, and no more than is due to it. Notes whether the transport is drained.
    ///
    /// # Errors
    /// As the transport's.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes_max = self.read_bytes_max();
        loop {
            match self.transport.read(&mut buffer[..bytes_max]) {
                Ok(received) => {
                    let reads_on = self.io.read_to_end || self.io.may_read_short;
                    self.io.is_readable = !received.is_drained || reads_on;
                    return Ok(received.len);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.io.is_readable = false;
                    return Err(error);
                }
            }
        }
    }

    /// The input has come to its end, or to an error.
    pub(super) fn end<C: Clock>(
        &mut self,
        error: Option<&io::Error>,
        context: &mut Context<C>,
        now: Timestamp,
    ) {
        let (id, peer) = (self.id, self.peer);
        if self.protocol.is_open() {
            match error {
                None => {
                    debug!(connection:% = id, peer:% = peer; "{id} {peer}: hung up without a close");
                }
                Some(error) => {
                    debug!(connection:% = id, peer:% = peer, reason:% = error; "{id} {peer}: {error}");
                }
            }
            context.metrics.closed_without_close += 1;
            context.metrics.closed.count(NO_CLOSE);
        }
        self.io.is_readable = false;
        self.io.is_write_failed |= error.is_some();
        if self.io.is_write_failed {
            return self.protocol.handle_end();
        }
        self.protocol.handle_eof(now);
        self.mark_reply(context);
    }

    /// Ends a connection that has hung up while it isn't read, being throttled: its slot would be one that
    /// nobody has to pay for. If it may be a publisher, what the socket has of it is read at once; else what
    /// it said beyond its rate is of no use to anybody.
    pub(super) fn handle_hang_up_unread<C: Clock>(
        &mut self,
        context: &mut Context<C>,
        now: Timestamp,
    ) {
        if !self.has_hung_up_unread() {
            return;
        }
        // There is nothing more to wait for.
        self.throttle = None;
        if !self.grants.drains_after_hang_up {
            self.end(None, context, now);
        }
    }

    /// Ends it if it doesn't read the answers to its requests.
    pub(super) fn check_answers<C>(&mut self, context: &mut Context<C>, now: Timestamp) {
        let bytes_max = context.limits.send_queue_bytes_max;
        if !self.is_over(bytes_max) {
            return;
        }
        self.write_queue_at_last(&mut context.writer, now);
        if self.is_over(bytes_max) {
            let level = context.fault_log.level(now);
            log!(
                level,
                "{} {}: it does not read its answers",
                self.id,
                self.peer
            );
            context.metrics.slow_consumers += 1;
            self.protocol.handle_end();
        }
    }

    /// Writes what the transport takes, shuts it for writing when all is said, and settles.
    #[inline]
    pub(super) fn flush<C>(&mut self, context: &mut Context<C>, now: Timestamp) {
        self.write_queue(&mut context.writer, now);
        if !self.transport.wants_write() && self.protocol.take_shutdown() {
            // A peer that is gone already has no use for it.
            let _ = self.transport.shutdown_write();
        }
        if self.grants.awaits_drained && self.protocol.queue().is_empty() {
            self.grants.awaits_drained = false;
            let schedule = &mut context.schedule;
            schedule.add(List::Drained, self.id, &mut self.membership);
        }
        self.settle(context);
    }

    /// Writes as much of the send queue as the transport takes, unless it is known to take
    /// nothing.
    pub(super) fn write_queue(&mut self, writer: &mut Writer, now: Timestamp) {
        if self.io.is_write_failed || self.io.room == Room::Full {
            return;
        }
        if self.write(writer, now).is_err() {
            // What the peer has sent before it went is read first; then this is believed.
            self.io.is_write_failed = true;
            self.io.is_readable = true;
            self.io.read_to_end = true;
        }
    }

    /// The same for a connection that is about to be cut off: that there is room again may be among what
    /// has come and is yet to be looked at.
    pub(super) fn write_queue_at_last(&mut self, writer: &mut Writer, now: Timestamp) {
        self.io.unblock();
        self.write_queue(writer, now);
    }

    /// A write that was taken in part means that the next would block: it isn't tried.
    fn write(&mut self, writer: &mut Writer, now: Timestamp) -> io::Result<()> {
        while !self.protocol.queue().is_empty() || self.transport.wants_write() {
            let written = if self.protocol.queue().is_empty() {
                // That is progress, as if bytes of the queue had been taken.
                self.transport.flush().map(|()| (0, 0))
            } else {
                writer.write_once(self.protocol.queue(), &mut self.transport)
            };
            match written {
                Ok((0, 0)) => self.protocol.handle_sent(0, now),
                Ok((_, 0)) => return Err(io::ErrorKind::WriteZero.into()),
                Ok((offered, sent)) => {
                    self.protocol.handle_sent(sent, now);
                    if sent < offered {
                        self.handle_blocked(writer, now);
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.handle_blocked(writer, now);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn handle_blocked(&mut self, writer: &mut Writer, now: Timestamp) {
        if mem::replace(&mut self.io.room, Room::Full) == Room::Unwatched {
            writer.note_blocked(self.id);
        }
        self.protocol.handle_blocked(now);
    }
}
