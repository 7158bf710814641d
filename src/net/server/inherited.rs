//! What a program gets from the one before in its process, and how it goes on from there.

use std::fs::File;
use std::io::{self, BufReader};
use std::iter;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use log::{info, warn};

use super::handover::{HOST, LISTENER, MONOTONIC, PROCESS, UPTIME};
use super::{
    BOTH_INTERESTS, MonotonicClock, SIGNALS_TAKEN, Server, Sources, StartError, monotonic, token_of,
};
use crate::application::{Application, Lane};
use crate::config::{ListenAddress, ServerConfig};
use crate::count::Count;
use crate::handover::descriptors::Descriptors;
use crate::handover::program::Predecessor;
use crate::handover::{Fields, Incoming, Malformed, StateError};
use crate::metrics::HandoverEnd;
use crate::net::engine::{Carried, Engine};
use crate::net::listener::{Listener, saved_address};
use crate::net::socket::Socket;
use crate::time::Timestamp;

/// A state that was read as far as the connections.
#[derive(Debug)]
pub struct Inherited {
    state: Incoming<BufReader<File>>,
    /// Those that are still to be taken; `None` in a trial.
    descriptors: Option<Descriptors>,
    /// None in a trial.
    listeners: Vec<Listener>,
    addresses: Vec<(ListenAddress, Lane)>,
    clock: Times,
    host: Vec<u8>,
}

/// What two clocks have shown at the moment at which the state was written.
#[derive(Clone, Copy, Debug)]
struct Times {
    uptime: Timestamp,
    monotonic: Duration,
}

/// What has come over, to be said when this program serves.
pub(super) struct Arrival {
    program: String,
    carried: Carried,
    left_at: Duration,
}

impl Inherited {
    /// Reads what a predecessor has left, as far as the process around the server has to know.
    ///
    /// # Errors
    /// It is of no use, or a listening socket isn't there.
    pub fn read(predecessor: Predecessor) -> Result<Self, StateError> {
        let Predecessor {
            state,
            mut descriptors,
        } = predecessor;
        let mut state = Incoming::begin(BufReader::with_capacity(READ_BYTES, state))?;
        let (mut listeners, mut addresses) = (Vec::new(), Vec::new());
        while let Some((kind, fields)) = state.next_record()? {
            match kind {
                LISTENER => {
                    let fields = fields?;
                    if let Some(descriptors) = &mut descriptors {
                        let listener = Listener::inherited(&fields, || descriptors.take())?;
                        listeners.push(listener);
                    }
                    addresses.push(saved_address(&fields)?);
                }
                PROCESS => {
                    let fields = fields?;
                    let uptime = fields.time(UPTIME);
                    let clock = Times {
                        uptime: uptime.ok_or(Malformed("the time of the server is missing"))?,
                        monotonic: Duration::from_micros(fields.number(MONOTONIC)),
                    };
                    let host = fields.bytes(HOST).to_vec();
                    return Ok(Self {
                        state,
                        descriptors,
                        listeners,
                        addresses,
                        clock,
                        host,
                    });
                }
                _ => {}
            }
        }
        Err(Malformed("nothing is known of the process").into())
    }

    /// Whether this is only to see whether it could be gone on from.
    #[must_use]
    pub const fn is_trial(&self) -> bool {
        self.descriptors.is_none()
    }

    /// The addresses that are listened on, with what for.
    #[must_use]
    pub fn addresses(&self) -> &[(ListenAddress, Lane)] {
        &self.addresses
    }

    /// What the process around the server has written.
    ///
    /// # Errors
    /// It is malformed.
    pub fn host(&self) -> Result<Fields<'_>, Malformed> {
        Fields::parse(&self.host)
    }

    /// The descriptors that the process around the server has written of. To be taken where it has, and all of them.
    ///
    /// # Errors
    /// They aren't there, as none are in a trial.
    pub fn take_descriptors<const COUNT: usize>(&mut self) -> io::Result<[OwnedFd; COUNT]> {
        let missing = io::ErrorKind::NotFound;
        let descriptors = self.descriptors.as_mut().ok_or(missing)?;
        let taken: io::Result<Vec<_>> = (0..COUNT).map(|_| descriptors.take()).collect();
        taken?.try_into().map_err(|_| missing.into())
    }

    /// Goes on from all that is left, without a socket, and says what would become of the connections.
    ///
    /// # Errors
    /// It can't be gone on from.
    pub fn rehearse<A: Application>(
        mut self,
        config: &ServerConfig,
        application: A,
    ) -> Result<Carried, StateError> {
        let clock = self.clock.go_on();
        let (limits, timeouts) = (config.limits, config.timeouts);
        let sockets = &mut iter::repeat_with(|| Socket::Absent);
        let state = &mut self.state;
        let (_, carried) =
            Engine::restore(application, clock, limits, timeouts, 0, state, sockets)?;
        Ok(carried)
    }
}

/// Bytes of a state that are read at once.
const READ_BYTES: usize = 64 * 1024;

impl Times {
    /// The clock that goes on as if nothing had happened: that of the system does.
    fn go_on(self) -> MonotonicClock {
        // Read first, so that the time never goes back.
        let now = Instant::now();
        let since = monotonic().saturating_sub(self.monotonic);
        let uptime = Duration::from_micros(self.uptime.as_micros()) + since;
        MonotonicClock(now.checked_sub(uptime).unwrap_or(now))
    }
}

impl<A: Application> Server<A> {
    /// Goes on where the program before has ended. Listens also on what `config` has beside that. `seed` is the jitter's.
    ///
    /// # Errors
    /// The state is of no use, or the system doesn't grant something.
    pub fn inherit(
        mut inherited: Inherited,
        config: &ServerConfig,
        application: A,
        seed: u64,
    ) -> Result<Self, StartError> {
        let mut sources = Sources::new(inherited.listeners, config, &SIGNALS_TAKEN)?;
        sources.listen_if(application.is_ready())?;
        let clock = inherited.clock.go_on();
        let mut descriptors = inherited.descriptors;
        let mut sockets = iter::from_fn(|| {
            let descriptor = descriptors.as_mut()?.take().ok()?;
            Some(Socket::inherited(descriptor))
        });
        let state = &mut inherited.state;
        let (limits, timeouts) = (config.limits, config.timeouts);
        let (mut engine, carried) = Engine::restore(
            application,
            clock,
            limits,
            timeouts,
            seed,
            state,
            &mut sockets,
        )
        .map_err(StartError::State)?;
        // If it goes on where it was ready.
        sources.listen_if(engine.application().is_ready())?;
        for (id, socket) in engine.transports_mut() {
            let registry = sources.poll.registry();
            if let Err(error) = registry.register(socket, token_of(id), BOTH_INTERESTS) {
                // Its peer is taken for dead after a while.
                warn!("{id} is not registered: {error}");
            }
        }
        let mut server = Self::of(sources, engine);
        server.handover.arrival = Some(Arrival {
            program: inherited.state.program().to_owned(),
            carried,
            left_at: inherited.clock.monotonic,
        });
        Ok(server)
    }

    /// Says what came from the program before, if there was one.
    pub(super) fn arrive(&mut self) {
        let Some(arrival) = self.handover.arrival.take() else {
            return;
        };
        let Arrival {
            program,
            carried: Carried { connections, lost },
            left_at,
        } = arrival;
        let pause = monotonic().saturating_sub(left_at);
        self.engine.count_handover(HandoverEnd::Completed(pause));
        let millis = pause.as_millis();
        info!(
            connections, lost, millis;
            "took over from crieur {program}: {}, {lost} lost, in {millis} ms",
            Count(connections as u64, "connection")
        );
    }
}
