//! One connection: its transport, its session, and where it stands in the loop's lists.

use std::io::{self, IoSlice, Read, Write};

use crate::application::{Admission, Lane, Peer};
use crate::config::Timeouts;
use crate::id::ConnectionId;
use crate::time::Timestamp;
use crate::ws::send_queue::SLICES_MAX;
use crate::ws::session::Session;

use super::engine::Readiness;
use super::schedule::Priority;
use super::throttle::Throttle;

/// Frames that are smaller than this on average are copied together: one piece costs the
/// kernel less than many, and the copy less than that.
const COPIED_BYTES_MAX: usize = 512;

/// Bytes that are read at once, at most.
pub const READ_BUFFER_BYTES: usize = 64 * 1024;

/// Bytes that are read at once of a connection of which little is expected.
pub(super) const BRIEF_READ_BYTES: usize = 4096;

/// Bytes that are copied together at most.
const SCRATCH_BYTES: usize = 64 * 1024;

/// What carries the bytes: TCP in the product, memory in a simulation. Never blocks.
pub trait Transport: Read + Write {
    /// Tells the peer that nothing more will be sent.
    ///
    /// # Errors
    /// As the transport's.
    fn shutdown_write(&mut self) -> io::Result<()>;
}

/// What a connection is, for whoever counts them.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Kind {
    /// It has not been let in yet.
    #[default]
    Handshake,
    /// It has published over HTTP.
    Http,
    /// Its session is open.
    Open,
    /// It is about to end.
    Closing,
}

/// Where a connection stands in the loop; each list holds a connection once.
#[derive(Clone, Copy, Default, Debug)]
pub struct Marks {
    /// The last write would have blocked, and no writable edge was seen since.
    pub is_blocked: bool,
    /// An edge was seen whose bytes have not all been read.
    pub is_readable: bool,
    /// Some of what was read is held back until deliveries are written.
    pub has_input: bool,
    /// The end of the input is near: read on even after a short read.
    pub read_to_end: bool,
    /// A short read doesn't mean that the socket is drained: it ended at urgent data (RFC 9293
    /// §3.8.5) or, on a Unix socket, at a descriptor that was sent along (unix(7)).
    pub may_read_short: bool,
    /// A turn took something of its input, beside an upgrade: others come first.
    pub is_served: bool,
    /// A write failed: only reading is left to do.
    pub is_write_failed: bool,
    /// What it has sent counts though it has hung up.
    pub is_heard_out: bool,
    /// On the list of connections to be read again.
    pub is_ready: bool,
    /// On the list of connections with an answer to be written.
    pub has_reply: bool,
    /// On the list of connections with deliveries to be written.
    pub has_delivery: bool,
    /// Its queue did not take a delivery: it gets nothing more and is about to be cut off.
    pub is_overflowed: bool,
    /// On the list of connections to be dropped.
    pub is_reaped: bool,
    /// The application was told of it and has not been told that it is gone.
    pub is_admitted: bool,
    /// The application wants it to be told last that the server stops.
    pub closes_last: bool,
    /// It has published over HTTP: it has a place among those who are let in.
    pub is_publisher: bool,
}

/// A connection in its slot.
///
/// In a fan-out each delivery finds its slot gone from the cache. What it needs, from the name to
/// the session, is in three cache lines: a chunk begins 16 bytes behind the start of a page,
/// where malloc notes its length. An alignment to cache lines would have the same effect, and
/// be paid for with copies: no allocator can make such a list shorter where it lies.
#[derive(Debug)]
#[repr(C, align(16))]
pub struct Connection<T> {
    /// Where it comes from.
    pub peer: Peer,
    /// What it is counted as.
    pub counted: Kind,
    /// When the application wants to be asked about it, if it is open then.
    pub deadline: Option<Timestamp>,
    /// Its name.
    pub id: ConnectionId,
    /// What carries its bytes.
    pub transport: T,
    /// Where it stands in the loop.
    pub marks: Marks,
    /// The protocol's side.
    pub session: Session,
    /// How much it may send, if that is limited.
    pub throttle: Option<Box<Throttle>>,
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

impl<T: Transport> Connection<T> {
    /// Takes over what the application grants; the session is open, or about to be.
    pub fn admit(&mut self, admission: &Admission) {
        self.session.limit_messages(admission.message_bytes_max);
        if let Some(address) = admission.on_behalf_of {
            self.peer.address = address;
        }
        if !admission.is_limited {
            self.throttle = None;
        }
        self.marks.is_heard_out = admission.is_heard_out;
        self.deadline = admission.deadline;
        self.marks.closes_last = admission.closes_last;
    }

    /// Whether it is told last that the server stops.
    pub fn closes_last(&self) -> bool {
        self.marks.closes_last || self.peer.lane == Lane::Publishers
    }

    /// Until when it isn't read. A connection that ends isn't held up: its input is discarded.
    pub fn throttled_until(&self) -> Option<Timestamp> {
        let throttle = self.throttle.as_ref()?;
        let is_heard = self.session.is_open() || self.session.is_connecting();
        throttle.until().filter(|_| is_heard)
    }

    /// Whether it has input that may be taken. What was read is handled even while nothing more
    /// is read.
    pub fn is_to_be_read(&self) -> bool {
        let is_readable = self.marks.is_readable && self.throttled_until().is_none();
        (is_readable || self.marks.has_input) && !self.session.is_closed()
    }

    /// What it is.
    pub(super) fn kind(&self) -> Kind {
        match (self.session.is_open(), self.session.is_connecting()) {
            (true, _) => Kind::Open,
            (_, true) if self.marks.is_publisher => Kind::Http,
            (_, true) => Kind::Handshake,
            _ => Kind::Closing,
        }
    }

    /// Notes what an event says.
    pub(super) const fn note(&mut self, readiness: Readiness) {
        self.marks.is_readable |= readiness.is_readable || readiness.is_ending;
        self.marks.read_to_end |= readiness.is_ending;
        self.marks.is_write_failed |= readiness.is_failed;
        self.marks.may_read_short |= readiness.is_urgent;
    }

    /// Whether it has hung up while it isn't read, and nothing of it is left to be handled.
    pub(super) fn has_hung_up_unread(&self) -> bool {
        self.marks.read_to_end && !self.marks.has_input && self.throttled_until().is_some()
    }

    /// Whether a turn has something to do for it.
    pub(super) fn has_work(&self) -> bool {
        self.is_to_be_read() || (self.has_hung_up_unread() && !self.session.is_closed())
    }

    /// When it is read, among others.
    pub(super) fn priority(&self) -> Priority {
        let marks = &self.marks;
        if self.peer.lane == Lane::Publishers || marks.closes_last || marks.is_publisher {
            Priority::Publisher
        } else if !marks.is_served || self.session.is_receiving() {
            Priority::New
        } else {
            Priority::Served
        }
    }

    /// How much of its input is read at once. What isn't handled in the same turn is kept, so
    /// little is read of a connection that rarely has much to say, unless it is amid it.
    pub(super) fn read_bytes_max(&self) -> usize {
        let session = &self.session;
        let is_brief = session.is_connecting() || self.priority() == Priority::Served;
        // What fills half of a brief read and is not finished is long.
        let is_long = session.is_receiving() || session.unfinished_bytes() > BRIEF_READ_BYTES / 2;
        match is_brief && !is_long {
            true => BRIEF_READ_BYTES,
            false => READ_BUFFER_BYTES,
        }
    }

    /// When the application is to be asked about it.
    pub fn own_deadline(&self) -> Option<Timestamp> {
        self.deadline.filter(|_| self.session.is_open())
    }

    /// When time has something to do here; `None` once it is closed.
    pub fn next_deadline(&self, timeouts: &Timeouts) -> Option<Timestamp> {
        let session = self.session.poll_timeout(timeouts).into_iter();
        let own = self.own_deadline();
        session.chain(own).chain(self.throttled_until()).min()
    }

    /// Whether the send queue takes a frame of `frame_len` bytes. An empty one takes any.
    #[inline]
    pub fn has_room(&self, frame_len: usize, send_queue_bytes_max: usize) -> bool {
        let unsent_bytes = self.session.queue().unsent_bytes();
        unsent_bytes == 0 || unsent_bytes + frame_len <= send_queue_bytes_max
    }

    /// Whether more waits to be written than may.
    pub const fn is_over(&self, send_queue_bytes_max: usize) -> bool {
        self.session.queue().unsent_bytes() > send_queue_bytes_max
    }

    /// Writes as much of the send queue as the transport takes, unless it is known to take
    /// nothing.
    pub fn flush(&mut self, scratch: &mut Vec<u8>, now: Timestamp) {
        if self.marks.is_write_failed || self.marks.is_blocked {
            return;
        }
        if self.write(scratch, now).is_err() {
            // What the peer has sent before it went is read first; then this is believed.
            self.marks.is_write_failed = true;
            self.marks.is_readable = true;
            self.marks.read_to_end = true;
        }
    }

    /// The same for who is about to be cut off: that there is room again may be among what has
    /// come and is yet to be looked at.
    pub fn flush_at_last(&mut self, scratch: &mut Vec<u8>, now: Timestamp) {
        self.marks.is_blocked = false;
        self.flush(scratch, now);
    }

    /// A write that was taken in part means that the next would block: it isn't tried.
    fn write(&mut self, scratch: &mut Vec<u8>, now: Timestamp) -> io::Result<()> {
        while !self.session.queue().is_empty() {
            match self.write_once(scratch) {
                Ok((_, 0)) => return Err(io::ErrorKind::WriteZero.into()),
                Ok((offered, sent)) => {
                    self.session.handle_sent(sent, now);
                    if sent < offered {
                        self.handle_blocked(now);
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.handle_blocked(now);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn handle_blocked(&mut self, now: Timestamp) {
        self.marks.is_blocked = true;
        self.session.handle_blocked(now);
    }

    fn write_once(&mut self, scratch: &mut Vec<u8>) -> io::Result<(usize, usize)> {
        let queue = self.session.queue();
        if let Some(bytes) = queue.single() {
            return Ok((bytes.len(), self.transport.write(bytes)?));
        }
        let segments = queue.segments_len();
        if queue.unsent_bytes() <= segments * COPIED_BYTES_MAX {
            scratch.clear();
            queue.copy_into(scratch, SCRATCH_BYTES);
            if !scratch.is_empty() {
                return Ok((scratch.len(), self.transport.write(scratch)?));
            }
        }
        // Clearing a thousand slices costs as much as writing a few.
        if queue.segments_len() <= 64 {
            let mut slices = [IoSlice::new(&[]); 64];
            let filled = queue.gather(&mut slices);
            let offered = slices[..filled].iter().map(|slice| slice.len()).sum();
            Ok((offered, self.transport.write_vectored(&slices[..filled])?))
        } else {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let filled = queue.gather(&mut slices);
            let offered = slices[..filled].iter().map(|slice| slice.len()).sum();
            Ok((offered, self.transport.write_vectored(&slices[..filled])?))
        }
    }
}
