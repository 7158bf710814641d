//! How a server becomes the program that stands at its path now (SIGUSR2): the program is tried out while the loop goes on,
//! then the state is written between two iterations, and `exec` follows.
//!
//! Main types: [`Host`], which is the process around a server, and [`Handover`], which is how far it is.

use std::io::{self, BufWriter, Read, Write};
use std::mem;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use log::{error, info};

use super::inherited::Arrival;
use super::{Phase, Server, Sources, monotonic};
use crate::application::{Application, Lane};
use crate::config::ListenAddress;
use crate::handover::program::{Program, Trial};
use crate::handover::{Members, Outgoing, file, signals};
use crate::metrics::HandoverEnd;
use crate::net::listener::Listener;
use crate::net::socket::Socket;
use crate::time::Timestamp;

// Kinds of records ahead of those of the engine.
pub(super) const PROCESS: u8 = 2;
pub(super) const LISTENER: u8 = 4;

// Members of PROCESS: the server's time and that of the system at one moment, and what the host has written.
pub(super) const UPTIME: u8 = 1;
pub(super) const MONOTONIC: u8 = 2;
pub(super) const HOST: u8 = 3;

/// How long a program may take to say that it can take over.
const TRIAL_TIME: Duration = Duration::from_secs(10);

/// How often it is looked whether it has.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// How often it is tried again because another file has come to stand there meanwhile.
const TRIALS_MAX: u32 = 3;

/// What is read of what it says.
const ANSWER_BYTES_MAX: u64 = 4096;

/// Bytes of a state that are written at once.
const WRITE_BYTES: usize = 64 * 1024;

/// The process around a server: what it is told, and what it has to say to a successor.
pub trait Host {
    /// A phase of the server's life begins.
    fn enter(&mut self, _phase: Phase) {}

    /// It listens, on these addresses, with what for; ahead of [`Phase::Serving`].
    fn listening(&mut self, _addresses: &[(ListenAddress, Lane)]) {}

    /// Writes what a successor must know beside the server, that is given [`Host::with_descriptors`].
    fn save(&self, _members: &mut Members<'_>) {}

    /// Adds what must not be there twice, and makes no more of it until [`Host::stay`]: `exec` is next.
    fn leave(&mut self, _members: &mut Members<'_>) {}

    /// Nothing has come of it: goes on as before [`Host::leave`].
    fn stay(&mut self) {}

    /// Shows the descriptors that the host has for a successor, in the order that it wants them in.
    fn with_descriptors(&self, show: &mut dyn FnMut(&[BorrowedFd<'_>])) {
        show(&[]);
    }
}

/// How far a server is with becoming another program.
#[derive(Default)]
pub(super) struct Handover {
    /// What it can become.
    pub(super) program: Option<Program>,
    stage: Stage,
    /// What came from the program before, until it is said.
    pub(super) arrival: Option<Arrival>,
}

#[derive(Default)]
enum Stage {
    #[default]
    Idle,
    Trying(Attempt),
    /// It can take over, and will when nobody awaits an answer from elsewhere, or so many have waited for so long.
    Settling(Attempt),
    /// It was killed, and isn't gone yet.
    Ending(Trial),
}

/// A program that is being tried out.
struct Attempt {
    trial: Trial,
    /// How many there were, this one included.
    number: u32,
    /// Those in the state that it was shown.
    connections: usize,
    look_at: Timestamp,
    /// When this stage is over.
    until: Timestamp,
}

impl Handover {
    /// Whether nothing is under way.
    pub(super) const fn is_idle(&self) -> bool {
        matches!(self.stage, Stage::Idle)
    }

    /// When it is to be looked at.
    pub(super) fn next_look(&self, now: Timestamp) -> Option<Timestamp> {
        match &self.stage {
            Stage::Idle => None,
            Stage::Trying(attempt) => Some(attempt.look_at),
            Stage::Settling(attempt) => Some(attempt.until),
            Stage::Ending(_) => Some(now + LOOK_INTERVAL),
        }
    }
}

impl Attempt {
    /// What has come of it, if something has at `now`.
    fn verdict(&mut self, now: Timestamp) -> Option<Result<(), String>> {
        if now < self.look_at {
            return None;
        }
        self.look_at = now + LOOK_INTERVAL;
        match self.trial.end() {
            Ok(None) if now < self.until => None,
            Ok(None) => {
                let seconds = TRIAL_TIME.as_secs();
                Some(Err(format!("it has said nothing for {seconds} s")))
            }
            Ok(Some(Ok(()))) => {
                let said = self.said();
                Some(check_answer(&said, self.connections))
            }
            Ok(Some(Err(how))) => {
                let said = self.said();
                let last = said.lines().map(str::trim).rfind(|line| !line.is_empty());
                Some(Err(match last {
                    Some(line) => format!("{how}: {line}"),
                    None => how,
                }))
            }
            Err(error) => Some(Err(error.to_string())),
        }
    }

    /// What it has said, at most so much of it.
    fn said(&self) -> String {
        let mut said = Vec::new();
        // Where a child of it still has the socket, there is no end to be read: what is there is there.
        let _ = (&self.trial.answer)
            .take(ANSWER_BYTES_MAX)
            .read_to_end(&mut said);
        String::from_utf8_lossy(&said).into_owned()
    }
}

/// What a program says that could take over.
#[must_use]
pub fn answer(version: &str, restored: usize, connections: usize) -> String {
    format!("crieur {version} takes over {restored} of {connections} connections\n")
}

/// Whether `said` is the answer of a program that would lose none of `connections`, or as few as a single fault may
/// cost: one, or one of a hundred.
fn check_answer(said: &str, connections: usize) -> Result<(), String> {
    let mut words = said.split(' ');
    let numbers = (words.nth(1), words.nth(2), words.nth(1));
    let restored = match numbers {
        (Some(version), Some(restored), Some(_)) => restored
            .parse()
            .ok()
            .filter(|&restored| said == answer(version, restored, connections)),
        _ => None,
    };
    let Some(restored) = restored else {
        return Err(match said.lines().next() {
            None => "it says nothing".to_owned(),
            Some(line) => format!("it does not say that it can take over, but {line:?}"),
        });
    };
    let lost = connections.saturating_sub(restored);
    if lost > (connections / 100).max(1) {
        return Err(format!("it would lose {lost} of {connections} connections"));
    }
    Ok(())
}

impl<A: Application> Server<A> {
    /// Takes the next step towards another program, if there is one. Comes back where it isn't the last.
    pub(super) fn advance_handover(&mut self, host: &mut dyn Host) {
        let is_stopping = self.sources.is_stop_asked;
        let now = self.engine.now();
        match mem::take(&mut self.handover.stage) {
            Stage::Idle => {
                if mem::take(&mut self.sources.is_handover_asked) && !is_stopping {
                    if self.sources.is_listening() {
                        self.try_out(1, host);
                    } else {
                        self.refuse("it does not serve yet", host);
                    }
                }
            }
            // With it the child ends. To stop waits for what was held back.
            Stage::Trying(_) | Stage::Settling(_) if is_stopping => {}
            Stage::Trying(mut attempt) => match attempt.verdict(now) {
                None => self.handover.stage = Stage::Trying(attempt),
                Some(Ok(())) => {
                    attempt.until = now + self.sources.drain;
                    self.settle(attempt, host);
                }
                Some(Err(reason)) => {
                    self.refuse(&reason, host);
                    attempt.trial.kill();
                    self.handover.stage = Stage::Ending(attempt.trial);
                }
            },
            Stage::Settling(attempt) => self.settle(attempt, host),
            Stage::Ending(mut trial) => {
                if trial.is_running() {
                    self.handover.stage = Stage::Ending(trial);
                }
            }
        }
    }

    /// Starts the program as a child that is shown all there is.
    fn try_out(&mut self, number: u32, host: &mut dyn Host) {
        let Some(program) = self.handover.program.clone() else {
            return;
        };
        info!("trying out {}", program.path().display());
        let connections = self.engine.connections_len();
        let tried = self
            .write_state(&mut |members| host.save(members))
            .and_then(|state| program.try_out(&state));
        match tried {
            Ok(trial) => {
                let now = self.engine.now();
                self.handover.stage = Stage::Trying(Attempt {
                    trial,
                    number,
                    connections,
                    look_at: now + LOOK_INTERVAL,
                    until: now + TRIAL_TIME,
                });
            }
            Err(error) => self.refuse(&error.to_string(), host),
        }
    }

    /// The program can take over: what publishers await an answer to is answered first, and what they send meanwhile goes
    /// over.
    fn settle(&mut self, attempt: Attempt, host: &mut dyn Host) {
        if !self.engine.settle(true) && self.engine.now() < attempt.until {
            self.handover.stage = Stage::Settling(attempt);
            return;
        }
        self.conclude(&attempt, host);
        // Not yet, or not at all: what was held back is sent.
        self.engine.settle(false);
        self.sources.pump(&mut self.engine);
    }

    /// The program can take over: it does, if it is still the same.
    fn conclude(&mut self, attempt: &Attempt, host: &mut dyn Host) {
        let Some(program) = self.handover.program.clone() else {
            return;
        };
        match program.identity() {
            Ok(identity) if identity == attempt.trial.identity => self.hand_over(&program, host),
            Ok(_) if attempt.number < TRIALS_MAX => self.try_out(attempt.number + 1, host),
            Ok(_) => self.refuse("it changes all the time", host),
            Err(error) => self.refuse(&error.to_string(), host),
        }
    }

    fn refuse(&mut self, reason: &str, host: &mut dyn Host) {
        error!("the handover is refused, this program goes on: {reason}");
        self.engine.count_handover(HandoverEnd::Refused);
        if self.sources.is_listening() {
            host.enter(Phase::Serving);
        }
    }

    /// Becomes `program`. Comes back if that fails, or if it is told to stop.
    fn hand_over(&mut self, program: &Program, host: &mut dyn Host) {
        let path = program.path().display();
        let error = match signals::block() {
            Ok(()) => {
                // What has come before waits here; what comes from now on waits in the kernel.
                self.sources.handle_signals();
                if self.sources.is_stop_asked {
                    self.unblock_signals();
                    return;
                }
                if mem::take(&mut self.sources.is_reload_asked) {
                    self.engine.reload();
                }
                self.sources.is_handover_asked = false;
                info!("becoming {path}");
                let error = self.try_hand_over(program, host);
                host.stay();
                self.unblock_signals();
                error
            }
            Err(error) => error,
        };
        error!("the handover to {path} has failed, this program goes on: {error}");
        self.engine.count_handover(HandoverEnd::Failed);
        host.enter(Phase::Serving);
    }

    fn unblock_signals(&self) {
        if let Err(error) = signals::unblock() {
            error!("signals are blocked from now on: {error}");
        }
    }

    /// Comes back only where it has failed.
    fn try_hand_over(&mut self, program: &Program, host: &mut dyn Host) -> io::Error {
        let state = self.write_state(&mut |members| {
            host.save(members);
            host.leave(members);
        });
        let state = match state {
            Ok(state) => state,
            Err(error) => return error,
        };
        let mut failed = io::Error::from(io::ErrorKind::Other);
        host.with_descriptors(&mut |of_host| {
            let listeners = self.sources.listeners.iter();
            let listeners = listeners.flat_map(Listener::descriptors);
            let connections = self.engine.transports().filter_map(Socket::descriptor);
            let descriptors: Vec<_> = listeners
                .chain(of_host.iter().copied())
                .chain(connections)
                .collect();
            failed = program.take_over(&state, &descriptors);
        });
        failed
    }

    /// All that a successor must know, in memory. To be called between two iterations.
    fn write_state(
        &mut self,
        save_host: &mut dyn FnMut(&mut Members<'_>),
    ) -> io::Result<std::fs::File> {
        let Self {
            sources,
            engine,
            // Nothing else is under way.
            handover: _,
        } = self;
        let Sources {
            // Everything is registered anew, which tells what is ready.
            poll: _,
            events: _,
            has_polled: _,
            polls: _,
            signals: _,
            listeners,
            // None: it isn't handed over before it listens.
            unbound: _,
            // The successor connects anew.
            uplinks: _,
            // From arguments.
            drain: _,
            // None that hasn't been done: a server that stops becomes nothing else.
            is_stop_asked: _,
            is_stopping: _,
            settling_until: _,
            is_reload_asked: _,
            is_handover_asked: _,
            forced_by: _,
        } = sources;
        let (uptime, monotonic) = (engine.now(), monotonic());
        let mut file = file::create()?;
        let mut buffer = BufWriter::with_capacity(WRITE_BYTES, &mut file);
        let mut state = Outgoing::begin(&mut buffer as &mut dyn Write)?;
        for listener in listeners {
            let address = listener.local_addr()?;
            state.record(LISTENER, |members| listener.save(&address, members))?;
        }
        state.record(PROCESS, |members| {
            members.time(UPTIME, Some(uptime));
            members.number(MONOTONIC, monotonic.as_micros() as u64);
            members.nested(HOST, save_host);
        })?;
        engine.save(&mut state)?;
        state.finish()?;
        drop(buffer);
        file::seal(&mut file)?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_only_as_it_is_written() {
        let whole = answer("1.2.3", 200, 200);
        assert_eq!(whole, "crieur 1.2.3 takes over 200 of 200 connections\n");
        assert_eq!(check_answer(&whole, 200), Ok(()));
        assert!(check_answer(&whole, 201).is_err(), "it is of another state");
        for said in [
            "",
            "\n",
            whole.trim_end(),
            &format!("{whole}{whole}"),
            &format!(" {whole}"),
            "crieur 1.2.3 takes over",
            "crieur  takes over 200 of 200 connections",
            "crieur 1.2.3 takes over -1 of 200 connections\n",
            "crieur 1.2.3 takes over 0200 of 200 connections\n",
            "listening on 127.0.0.1:8000\n",
        ] {
            assert!(check_answer(said, 200).is_err(), "{said:?}");
        }
    }

    #[test]
    fn as_few_connections_are_lost_as_one_fault_may_cost() {
        for (restored, connections, is_taken) in [
            (0, 0, true),
            (0, 1, true),
            (1, 2, true),
            (0, 2, false),
            (198, 200, true),
            (197, 200, false),
            (299, 300, true),
            (297, 300, true),
            (296, 300, false),
        ] {
            let said = answer("1", restored, connections);
            let checked = check_answer(&said, connections);
            assert_eq!(checked.is_ok(), is_taken, "{said}");
        }
    }
}
