//! A connection that is memory: what a peer has sent, what it got, and how much its socket takes.
//!
//! Behaves as Linux does: a read returns what is there, then the end or the reset; a write takes
//! what there is room for, and after a refusal an edge says when there is room again.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::rc::Rc;

use crieur::application::Application;
use crieur::journal::simulated::SimulatedDisk;
use crieur::net::engine::{Engine, Readiness};
use crieur::net::transport::{Received, Transport};
use crieur::time::Clock;

/// How a peer has ended its side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// It has not.
    None,
    /// It sends no more, but reads.
    Eof,
    /// It is gone altogether.
    Reset,
}

/// Both directions of a connection.
#[derive(Debug)]
pub(crate) struct Wire {
    /// What has arrived and was not read by the server.
    pub(crate) to_server: VecDeque<u8>,
    pub(crate) end: End,
    /// What the server has written and the client has not looked at.
    pub(crate) from_server: Vec<u8>,
    /// Bytes that the server may still write; `usize::MAX` is any number.
    pub(crate) room: usize,
    /// A write was refused, in whole or in part, and no edge has told of room since.
    pub(crate) is_refused: bool,
    /// The server is told of edges of room.
    pub(crate) is_write_watched: bool,
    /// Something arrived that no edge has told of.
    pub(crate) has_arrived: bool,
    /// What one read returns at most; the rest counts as arriving just afterwards.
    pub(crate) read_max: usize,
    /// How many of the next calls a signal interrupts.
    pub(crate) interrupts: u64,
    /// The server sends no more.
    pub(crate) is_shut: bool,
    /// The server has closed it.
    pub(crate) is_dropped: bool,
}

impl Wire {
    fn interrupt(&mut self) -> io::Result<()> {
        if self.interrupts > 0 {
            self.interrupts -= 1;
            return Err(ErrorKind::Interrupted.into());
        }
        Ok(())
    }

    /// What an edge tells now; one that comes for no reason tells of reading and writing. What has arrived is told of.
    pub(crate) fn take_readiness(&mut self, is_spurious: bool) -> Readiness {
        Readiness {
            is_readable: std::mem::take(&mut self.has_arrived) || is_spurious,
            is_writable: self.is_write_watched && (self.has_writable_edge() || is_spurious),
            is_ending: self.end != End::None,
            is_failed: self.end == End::Reset,
            is_urgent: false,
        }
    }

    /// Whether the server waits for an edge that it would get now.
    pub(crate) fn has_writable_edge(&self) -> bool {
        self.is_write_watched && self.is_refused && self.has_room()
    }

    /// Whether a write would not block.
    pub(crate) fn has_room(&self) -> bool {
        self.room > 0 || self.end == End::Reset
    }
}

/// The server's end.
pub(crate) struct Socket {
    wire: Rc<RefCell<Wire>>,
    /// The disk of the server's process, which knows whether that was killed.
    disk: Option<SimulatedDisk>,
}

impl Socket {
    /// A new connection, both ends.
    pub(crate) fn pair(disk: Option<SimulatedDisk>) -> (Self, Rc<RefCell<Wire>>) {
        let wire = Rc::new(RefCell::new(Wire {
            to_server: VecDeque::new(),
            end: End::None,
            from_server: Vec::new(),
            room: usize::MAX,
            is_refused: false,
            is_write_watched: false,
            has_arrived: false,
            read_max: usize::MAX,
            interrupts: 0,
            is_shut: false,
            is_dropped: false,
        }));
        let socket = Self {
            wire: Rc::clone(&wire),
            disk,
        };
        (socket, wire)
    }
}

impl Socket {
    /// What it is the end of.
    pub(crate) fn wire(&self) -> Rc<RefCell<Wire>> {
        Rc::clone(&self.wire)
    }

    /// The server's end in the hands of a successor, whose predecessor's is dropped already. Registering it says what is
    /// ready.
    pub(crate) fn inherited(wire: Rc<RefCell<Wire>>, disk: Option<SimulatedDisk>) -> Self {
        {
            let wire = &mut *wire.borrow_mut();
            wire.is_dropped = false;
            wire.is_write_watched = true;
            wire.has_arrived |= !wire.to_server.is_empty() || wire.end != End::None;
        }
        Self { wire, disk }
    }
}

/// What a server does before it waits: it has those watched for room that took no more.
pub(crate) fn watch_writes<A: Application, C: Clock>(engine: &mut Engine<Socket, A, C>) {
    while let Some(id) = engine.next_blocked() {
        if let Some(socket) = engine.transport_mut(id) {
            socket.wire.borrow_mut().is_write_watched = true;
        }
    }
}

impl Transport for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        let wire = &mut *self.wire.borrow_mut();
        wire.interrupt()?;
        if wire.to_server.is_empty() {
            return match wire.end {
                End::None => Err(ErrorKind::WouldBlock.into()),
                End::Eof => Ok(Received {
                    len: 0,
                    is_drained: true,
                }),
                End::Reset => Err(ErrorKind::ConnectionReset.into()),
            };
        }
        let length = wire.to_server.len().min(buffer.len()).min(wire.read_max);
        buffer[..length].copy_from_slice(&wire.to_server.make_contiguous()[..length]);
        wire.to_server.drain(..length);
        // A read that fills its buffer promises nothing: a reader that stops there is told of no edge.
        let is_drained = length < buffer.len();
        wire.has_arrived |= is_drained && !wire.to_server.is_empty();
        Ok(Received {
            len: length,
            is_drained,
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let wire = &mut *self.wire.borrow_mut();
        wire.interrupt()?;
        assert!(!wire.is_shut, "the server writes behind its own end");
        if wire.end == End::Reset {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        if self.disk.as_ref().is_some_and(SimulatedDisk::is_killed) {
            // Nobody writes this.
            return Ok(offered);
        }
        let taken = offered.min(wire.room);
        if wire.room != usize::MAX {
            wire.room -= taken;
        }
        wire.is_refused |= taken < offered;
        if taken == 0 && offered > 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut left = taken;
        for slice in slices {
            let part = slice.len().min(left);
            wire.from_server.extend_from_slice(&slice[..part]);
            left -= part;
        }
        Ok(taken)
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        self.wire.borrow_mut().is_shut = true;
        Ok(())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.wire.borrow_mut().is_dropped = true;
    }
}
