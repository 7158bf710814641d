//! The sockets of the connections that the application has to a server of its own: opened, read, written and closed as
//! [`Uplinks`] wants. Knows no protocol and no deadline, and tries nothing twice.
//!
//! Main type: [`UplinkSockets`]. Invariant: ahead of every step the application is asked whether another socket is to take
//! the place of this one, and whether this one is still of use, since any call of it may have ended both.

#[cfg(test)]
mod tests;

use std::io;

use mio::event::Event;
use mio::{Interest, Registry, Token};

use crate::application::{Endpoint, Uplink, Uplinks};
use crate::net::socket::Socket;
use crate::net::transport::{READ_BYTES_MAX, Received, Transport};
use crate::time::Timestamp;

/// Their tokens, which no connection can have: its slot would be out of reach.
pub(super) const READER: Token = Token(u32::MAX as usize - 1);
pub(super) const WRITER: Token = Token(u32::MAX as usize - 2);

const UPLINKS: [Uplink; 2] = [Uplink::Reader, Uplink::Writer];

/// Reads and writes of each that come one after the other. What is left waits until clients have had their turn.
const ROUNDS_MAX: usize = 4;

/// Both sockets.
pub(super) struct UplinkSockets {
    /// In the order of [`UPLINKS`].
    slots: [Slot; 2],
    buffer: Vec<u8>,
    has_more: bool,
}

#[derive(Default)]
struct Slot {
    socket: Option<Socket>,
    is_connecting: bool,
    is_readable: bool,
    is_writable: bool,
    /// The end of the file lies behind what is to be read: a short read doesn't mean that nothing more will come.
    is_ending: bool,
}

impl UplinkSockets {
    pub(super) fn new() -> Self {
        Self {
            slots: Default::default(),
            buffer: vec![0; READ_BYTES_MAX],
            has_more: false,
        }
    }

    /// Notes what an event says of the socket that has `token`.
    pub(super) fn handle_ready(&mut self, event: &Event) {
        let uplink = match event.token() {
            READER => Uplink::Reader,
            _ => Uplink::Writer,
        };
        let slot = &mut self.slots[uplink as usize];
        let is_ending = event.is_read_closed() || event.is_error();
        slot.is_ending |= is_ending;
        slot.is_readable |= event.is_readable() || is_ending;
        slot.is_writable |= event.is_writable() || is_ending;
    }

    /// Whether the last [`UplinkSockets::pump`] has left something.
    pub(super) const fn has_more(&self) -> bool {
        self.has_more
    }

    /// Opens, reads, writes and closes as `uplinks` wants, as far as the sockets and a bound allow.
    pub(super) fn pump(&mut self, registry: &Registry, uplinks: &mut dyn Uplinks, now: Timestamp) {
        for _ in 0..ROUNDS_MAX {
            let mut has_done = false;
            // What is read may have something written at once.
            for uplink in UPLINKS {
                has_done |=
                    self.attend(uplink, registry, uplinks, now) || self.read(uplink, uplinks, now);
            }
            for uplink in UPLINKS {
                has_done |=
                    self.attend(uplink, registry, uplinks, now) || self.write(uplink, uplinks, now);
            }
            self.has_more = has_done;
            if !has_done {
                return;
            }
        }
    }

    /// Opens the socket that is wanted, closes the one that is of no use, and sees whether one is connected. Says whether
    /// the application was told something.
    fn attend(
        &mut self,
        uplink: Uplink,
        registry: &Registry,
        uplinks: &mut dyn Uplinks,
        now: Timestamp,
    ) -> bool {
        let slot = &mut self.slots[uplink as usize];
        let mut error = None;
        if let Some(endpoint) = uplinks.take_connect(uplink) {
            // The one before is closed first.
            *slot = Slot::default();
            match open(uplink, &endpoint, registry) {
                Ok(socket) => {
                    slot.socket = Some(socket);
                    slot.is_connecting = true;
                }
                Err(failure) => error = Some(failure),
            }
        } else if !uplinks.is_open(uplink) {
            *slot = Slot::default();
        } else if let Some(socket) = &slot.socket
            && slot.is_connecting
            && slot.is_writable
        {
            match socket.is_connected() {
                Ok(true) => {
                    slot.is_connecting = false;
                    uplinks.handle_connected(uplink, now);
                    return true;
                }
                Ok(false) => slot.is_writable = false,
                Err(failure) => error = Some(failure),
            }
        }
        if error.is_some() {
            *slot = Slot::default();
            uplinks.handle_end(uplink, error.as_ref(), now);
            return true;
        }
        false
    }

    /// Reads once. Says whether that has changed anything.
    fn read(&mut self, uplink: Uplink, uplinks: &mut dyn Uplinks, now: Timestamp) -> bool {
        let slot = &mut self.slots[uplink as usize];
        let Some(socket) = &mut slot.socket else {
            return false;
        };
        if slot.is_connecting || !slot.is_readable || !uplinks.takes_input(uplink) {
            return false;
        }
        match socket.read(&mut self.buffer) {
            Ok(Received { len: 0, .. }) => slot.end(None, uplink, uplinks, now),
            Ok(Received { len, is_drained }) => {
                slot.is_readable = !is_drained || slot.is_ending;
                uplinks.handle_received(uplink, &self.buffer[..len], now);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                slot.is_readable = false;
                return false;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => slot.end(Some(&error), uplink, uplinks, now),
        }
        true
    }

    /// Writes once. Says whether that has changed anything.
    fn write(&mut self, uplink: Uplink, uplinks: &mut dyn Uplinks, now: Timestamp) -> bool {
        let slot = &mut self.slots[uplink as usize];
        let Some(socket) = &mut slot.socket else {
            return false;
        };
        // What is shown counts as sent: it isn't asked for before the socket takes something.
        if slot.is_connecting || !slot.is_writable {
            return false;
        }
        let unsent = uplinks.unsent(uplink);
        if unsent.is_empty() {
            return false;
        }
        match socket.write(unsent) {
            Ok(len) => uplinks.handle_sent(uplink, len, now),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                slot.is_writable = false;
                return false;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => slot.end(Some(&error), uplink, uplinks, now),
        }
        true
    }
}

impl Slot {
    fn end(
        &mut self,
        error: Option<&io::Error>,
        uplink: Uplink,
        uplinks: &mut dyn Uplinks,
        now: Timestamp,
    ) {
        *self = Self::default();
        uplinks.handle_end(uplink, error, now);
    }
}

/// Begins to connect; the first writable edge tells what came of it.
fn open(uplink: Uplink, endpoint: &Endpoint, registry: &Registry) -> io::Result<Socket> {
    let token = match uplink {
        Uplink::Reader => READER,
        Uplink::Writer => WRITER,
    };
    let mut socket = Socket::connect(endpoint)?;
    let interest = Interest::READABLE | Interest::WRITABLE;
    registry.register(&mut socket, token, interest)?;
    Ok(socket)
}
