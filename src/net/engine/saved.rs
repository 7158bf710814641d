//! An engine in a state: written between two iterations, when no turn is under way, and built anew by a successor.
//!
//! Transports go over by themselves, in the order of [`Engine::transports`]; each connection's record says which is its
//! own, so that one that is lost takes nobody else's.

use std::collections::HashSet;
use std::io::{self, Read};
use std::iter;

use crate::application::{Application, State};
use crate::config::{ServerLimits, Timeouts};
use crate::handover::{Fields, Incoming, Malformed, Members, StateError};
use crate::id::ConnectionId;
use crate::metrics::Metrics;
use crate::metrics::saved::Counters;
use crate::net::connection::Connection;
use crate::net::connections::Connections;
use crate::net::shell::Shell;
use crate::net::transport::Transport;
use crate::time::Clock;
use crate::wire::carried::Frames;
use crate::wire::shared::SharedBytes;

use super::Engine;

// Kinds of records. What is between the first and the others is the application's.
const SHELL: u8 = 6;
const FRAME: u8 = 12;
const CONNECTION: u8 = 13;

// Members of SHELL.
const NEXT_SERIAL: u8 = 1;
const METRICS: u8 = 2;

// A member of FRAME.
const BYTES: u8 = 1;

// Members of CONNECTION beside its own: which transport is its own, counted from 1, and what the application knows of it.
const TRANSPORT: u8 = 8;
const APPLICATION: u8 = 40;

/// Linux gives a process a million descriptors at most, unless it was told otherwise (`fs.nr_open`).
const SLOTS_MAX: u32 = 1 << 20;

/// What became of the connections of a state.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Carried {
    /// Those that go on.
    pub connections: usize,
    /// Those whose record could not be used: they are dropped.
    pub lost: usize,
}

/// A state that is being read, as far as it has come.
struct Reading<'r, T, R> {
    state: &'r mut Incoming<R>,
    transports: &'r mut dyn Iterator<Item = T>,
    transports_taken: u64,
    frames: Frames,
    slots: HashSet<u32>,
    lost: usize,
}

impl<T: Transport, A: Application, C: Clock> Engine<T, A, C> {
    /// Writes what a successor must know that is given [`Engine::transports`].
    ///
    /// To be called between two iterations, and not by an engine that stops.
    ///
    /// # Errors
    /// As those of `state`.
    pub fn save(&mut self, state: &mut State<'_>) -> io::Result<()> {
        let Self {
            application,
            shell,
            // Empty between two turns.
            read_buffer: _,
            // Of an iteration.
            turn_began: _,
            unwritten_before: _,
            events: _,
            departures: _,
            // Begins to watch anew.
            trimmer: _,
            // None, as its caller knows.
            shutdown: _,
        } = self;
        let Shell {
            connections,
            context,
        } = shell;
        let (metrics, frames) = context.saved_parts();
        frames.begin();
        let metrics = metrics.save();
        state.record(SHELL, |members| {
            members.number(NEXT_SERIAL, connections.next_serial().into());
            members.numbers(METRICS, &metrics);
        })?;
        application.save(state, frames)?;
        for (connection, transport) in connections.iter().zip(1..) {
            for frame in connection.protocol.queue().shared() {
                if frames.number(frame)? {
                    state.record(FRAME, |members| members.bytes(BYTES, frame.as_bytes()))?;
                }
            }
            state.record(CONNECTION, |members| {
                members.number(TRANSPORT, transport);
                connection.save(members, frames);
                if connection.grants.is_admitted {
                    let id = connection.id;
                    let write =
                        |members: &mut Members<'_>| application.save_connection(id, members);
                    members.nested(APPLICATION, write);
                }
            })?;
        }
        Ok(())
    }

    /// Those of all connections, in the order in which a successor wants them.
    pub fn transports(&self) -> impl Iterator<Item = &T> {
        let connections = self.shell.connections.iter();
        connections.map(|connection| &connection.transport)
    }

    /// The same with their connections, to be registered with a poll.
    pub fn transports_mut(&mut self) -> impl Iterator<Item = (ConnectionId, &mut T)> {
        let connections = self.shell.connections.iter_mut();
        connections.map(|connection| (connection.id, &mut connection.transport))
    }

    /// The engine that `state` tells of, up to its end, with an application that is new. `transports` are those that
    /// were carried, in their order. `seed` is the jitter's.
    ///
    /// # Errors
    /// The state is of no use.
    pub fn restore(
        application: A,
        clock: C,
        limits: ServerLimits,
        timeouts: Timeouts,
        seed: u64,
        state: &mut Incoming<impl Read>,
        transports: &mut dyn Iterator<Item = T>,
    ) -> Result<(Self, Carried), StateError> {
        let mut engine = Self::new(application, clock, limits, timeouts, seed);
        let mut reading = Reading {
            state,
            transports,
            transports_taken: 0,
            frames: Frames::default(),
            slots: HashSet::new(),
            lost: 0,
        };
        let mut failed = None;
        let next = || {
            let connection = engine.next_connection(&mut reading);
            connection.unwrap_or_else(|error| {
                failed = Some(error);
                None
            })
        };
        // Straight into their table: there may be many.
        let connections: Connections<T> = iter::from_fn(next).collect();
        if let Some(error) = failed {
            return Err(error);
        }
        let carried = Carried {
            connections: connections.len(),
            lost: reading.lost,
        };
        engine.shell.context.metrics.connections_dropped += carried.lost as u64;
        engine.take_part(connections);
        Ok((engine, carried))
    }

    /// Reads on until there is another connection; `None` at the end.
    fn next_connection(
        &mut self,
        reading: &mut Reading<'_, T, impl Read>,
    ) -> Result<Option<Connection<T>>, StateError> {
        while let Some((kind, fields)) = reading.state.next_record()? {
            match kind {
                SHELL => self.restore_shell(&fields?)?,
                FRAME => {
                    let bytes = fields?.bytes(BYTES);
                    reading.frames.push(SharedBytes::new(bytes.into()));
                }
                CONNECTION => {
                    let connection = fields.and_then(|fields| {
                        // Those between are of records that were lost.
                        let number = fields.number(TRANSPORT);
                        let skipped = number.checked_sub(reading.transports_taken + 1);
                        let skipped = skipped.and_then(|skipped| u32::try_from(skipped).ok());
                        let skipped = skipped.filter(|&skipped| skipped < SLOTS_MAX);
                        let transports = &mut reading.transports;
                        let transport =
                            skipped.and_then(|skipped| transports.nth(skipped as usize));
                        let transport = transport.ok_or(Malformed("a transport is missing"))?;
                        reading.transports_taken = number;
                        let (frames, slots) = (&reading.frames, &mut reading.slots);
                        self.restore_connection(&fields, transport, frames, slots)
                    });
                    match connection {
                        Ok(connection) => return Ok(Some(connection)),
                        Err(_) => reading.lost += 1,
                    }
                }
                kind => {
                    let now = self.now();
                    let frames = &mut reading.frames;
                    self.application.restore(kind, &fields?, frames, now)?;
                }
            }
        }
        Ok(None)
    }

    fn restore_shell(&mut self, fields: &Fields<'_>) -> Result<(), Malformed> {
        self.shell.context.metrics = Metrics::restore(fields.numbers(METRICS));
        let next_serial = fields.narrow(NEXT_SERIAL)?;
        self.shell.connections.set_next_serial(next_serial);
        Ok(())
    }

    fn restore_connection(
        &mut self,
        fields: &Fields<'_>,
        transport: T,
        frames: &Frames,
        slots: &mut HashSet<u32>,
    ) -> Result<Connection<T>, Malformed> {
        let now = self.now();
        let limits = &self.shell.context.limits;
        let connection = Connection::restore(fields, transport, frames, limits, now)?;
        let slot = connection.id.index;
        if slot >= SLOTS_MAX || !slots.insert(slot) {
            return Err(Malformed("a connection has no slot of its own"));
        }
        if connection.grants.is_admitted {
            let of_application = fields.nested(APPLICATION)?;
            let fields = of_application.ok_or(Malformed("nothing is known of a client"))?;
            let (id, peer) = (connection.id, connection.peer);
            self.application
                .restore_connection(id, peer, &fields, now)?;
        }
        Ok(connection)
    }

    /// Puts `connections` among what they share.
    fn take_part(&mut self, mut connections: Connections<T>) {
        let shell = &mut self.shell;
        connections.set_next_serial(shell.connections.next_serial());
        shell.connections = connections;
        for connection in shell.connections.iter_mut() {
            connection.take_part(&mut shell.context);
        }
    }
}
