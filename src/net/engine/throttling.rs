//! Clients that send more than they may: they are not read until they may send again. Nothing
//! is kept for them meanwhile, and nobody is closed.
//!
//! The edge that was seen stays noted; the connection's timer brings its reading back.

use crate::application::Application;
use crate::id::ConnectionId;
use crate::net::connection::Transport;
use crate::net::throttle::Throttle;
use crate::time::{Clock, Timestamp};

use super::Engine;

impl<T: Transport, A: Application, C: Clock> Engine<T, A, C> {
    /// Has the rates apply to a connection from `now` on, if they don't yet.
    pub(super) fn limit(&mut self, id: ConnectionId, now: Timestamp) {
        if let Some(connection) = self.shell.connections.get_mut(id)
            && connection.throttle.is_none()
        {
            connection.throttle = Throttle::new(&self.limits, now);
        }
    }

    /// Charges a connection with what it has sent, if that is limited.
    pub(super) fn charge(&mut self, id: ConnectionId, frames: usize, bytes: usize, now: Timestamp) {
        if let Some(connection) = self.shell.connections.get_mut(id)
            && let Some(throttle) = &mut connection.throttle
            && (connection.session.is_open() || connection.session.is_connecting())
            && throttle.charge(frames, bytes, now)
        {
            self.shell.metrics.reads_throttled += 1;
        }
    }

    /// A connection that isn't to be read doesn't wait if it has hung up: its slot would be one
    /// that nobody has to pay for. If it may be a publisher, what the socket has of it is read at
    /// once; else what it said beyond its rate is of no use to anybody.
    pub(super) fn handle_throttled(&mut self, id: ConnectionId, now: Timestamp) {
        let Some(connection) = self.shell.connections.get_mut(id) else {
            return;
        };
        if !connection.has_hung_up_unread() {
            return;
        }
        match connection.marks.is_heard_out {
            true => connection.throttle = None,
            false => self.end(id, None, now),
        }
    }

    /// Time that a throttled connection was not read is not its fault; when it is over, its
    /// reading goes on.
    pub(super) fn handle_pause(&mut self, id: ConnectionId, now: Timestamp) {
        if let Some(connection) = self.shell.connections.get_mut(id)
            && let Some(throttle) = &mut connection.throttle
            && let Some(pause) = throttle.take_pause(now)
        {
            connection.session.handle_pause(pause, now);
            self.settle(id);
        }
    }
}
