//! The pause as it is seen from outside: clients that ping all the time, and note how long nothing came.

use std::os::fd::OwnedFd;

use crate::connections::{self, Net, next_text, read_to, write_all};
use crate::frame::{self, TEXT};
use crate::message::{PING, PONG};
use crate::poller::Waiting;
use crate::socket::Connector;
use crate::system::now_ns;

/// From an answer to the next ping.
const INTERVAL_NS: u64 = 1_000_000;

/// The longest times from one answer of a client to its next, in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Silences {
    pub(super) longest: u64,
    pub(super) second: u64,
}

impl Silences {
    fn record(&mut self, nanos: u64) {
        if nanos > self.longest {
            self.second = self.longest;
            self.longest = nanos;
        } else {
            self.second = self.second.max(nanos);
        }
    }

    /// The longer ones of both.
    pub(super) fn max(self, other: Self) -> Self {
        Self {
            longest: self.longest.max(other.longest),
            second: self.second.max(other.second),
        }
    }
}

/// A client that has one ping under way at most.
pub(super) struct Probe {
    socket: OwnedFd,
    ping: Vec<u8>,
    tail: Vec<u8>,
    is_asked: bool,
    answered_at: u64,
    silences: Silences,
}

impl Probe {
    /// Opens its connection.
    pub(super) fn connect(connector: Connector, waiting: Waiting) -> Result<Self, String> {
        let mut net = Net::new(connector, waiting)?;
        let socket = connections::open(&mut net, "/", 1, 1)?.swap_remove(0);
        Ok(Self::on(socket))
    }

    /// One on a connection that is upgraded.
    fn on(socket: OwnedFd) -> Self {
        let mut ping = Vec::new();
        frame::push_client_frame(TEXT, &[PING], &mut ping);
        Self {
            socket,
            ping,
            tail: Vec::new(),
            is_asked: false,
            answered_at: now_ns(),
            silences: Silences::default(),
        }
    }

    /// Sends what is due and takes in what has come.
    pub(super) fn turn(&mut self, buffer: &mut [u8], now: u64) -> Result<(), String> {
        let context = |error| format!("a client that pings: {error}");
        if !self.is_asked {
            if now >= self.answered_at + INTERVAL_NS {
                write_all(&self.socket, &self.ping).map_err(context)?;
                self.is_asked = true;
            }
            return Ok(());
        }
        let has_ended = read_to(&self.socket, buffer, &mut self.tail).map_err(context)?;
        while let Some(text) = next_text(&self.socket, &mut self.tail).map_err(context)? {
            if text != PONG || !std::mem::take(&mut self.is_asked) {
                let text = String::from_utf8_lossy(&text);
                return Err(format!("a client that pings got {text}"));
            }
            let now = now_ns();
            self.silences.record(now - self.answered_at);
            self.answered_at = now;
        }
        if has_ended {
            return Err("a client that pings was hung up on".to_owned());
        }
        Ok(())
    }

    /// Whether it was answered since.
    pub(super) const fn is_answered_since(&self, at: u64) -> bool {
        self.answered_at > at
    }

    /// What it saw since it began.
    pub(super) const fn silences(&self) -> Silences {
        self.silences
    }

    /// Begins to look anew.
    pub(super) fn start(&mut self) {
        self.answered_at = now_ns();
        self.silences = Silences::default();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_silence_lasts_from_one_answer_to_the_next() {
        const SILENCE_NS: u64 = 20_000_000;
        let (socket, mut server) = UnixStream::pair().expect("descriptors");
        socket.set_nonblocking(true).expect("a socket");
        let mut probe = Probe::on(socket.into());
        let mut buffer = [0; 256];
        let mut pong = Vec::new();
        frame::push_server_frame(TEXT, &[PONG], &mut pong);
        probe.start();
        let began = now_ns();
        for is_long in [false, true, false] {
            while !probe.is_asked {
                probe.turn(&mut buffer, now_ns()).expect("a peer");
            }
            let mut ping = vec![0; probe.ping.len()];
            server.read_exact(&mut ping).expect("it was sent");
            assert_eq!(ping, probe.ping);
            // Without an answer there is nothing to record, and no further ping.
            let asked_at = now_ns();
            let silence = if is_long { SILENCE_NS } else { 0 };
            while now_ns() < asked_at + silence {
                probe.turn(&mut buffer, now_ns()).expect("a peer");
            }
            let answered_at = now_ns();
            assert!(!probe.is_answered_since(asked_at));
            server.write_all(&pong).expect("a peer");
            probe.turn(&mut buffer, now_ns()).expect("the answer");
            assert!(probe.is_answered_since(answered_at));
        }
        let Silences { longest, second } = probe.silences();
        assert!(longest >= SILENCE_NS, "{longest}");
        assert!(longest + second <= now_ns() - began, "{longest}, {second}");
        assert!(second >= INTERVAL_NS, "{second}");
        // It is answered once for each ping.
        server.write_all(&pong).expect("a peer");
        probe.is_asked = true;
        server.write_all(&pong).expect("a peer");
        assert!(probe.turn(&mut buffer, now_ns()).is_err());
    }

    #[test]
    fn the_two_longest_are_kept() {
        let mut silences = Silences::default();
        for nanos in [3, 9, 1, 7, 9] {
            silences.record(nanos);
        }
        let expected = |longest, second| Silences { longest, second };
        assert_eq!(silences, expected(9, 9));
        assert_eq!(silences.max(expected(12, 2)), expected(12, 9));
    }
}
