//! What the server says of its handovers at `/metrics`, asked for again and again on a connection that is handed over
//! too.

use std::os::fd::OwnedFd;
use std::str::FromStr;

use crate::connections::{read_to, write_all};
use crate::socket::{self, Connector};

/// How long after an answer it is asked again.
const INTERVAL_NS: u64 = 5_000_000;

/// What it says.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Reading {
    pub(super) completed: u64,
    /// Handovers that didn't take place, for whatever reason.
    pub(super) refused: u64,
    /// How long the last one took.
    pub(super) seconds: f64,
}

impl Reading {
    /// Finds it in the text.
    fn of(text: &str) -> Result<Self, String> {
        let total = |result: &str| {
            let name = format!("crieur_handovers_total{{result=\"{result}\"}}");
            value::<u64>(text, &name)
        };
        Ok(Self {
            completed: total("completed")?,
            refused: total("refused")? + total("failed")?,
            seconds: value(text, "crieur_handover_seconds")?,
        })
    }
}

fn value<T: FromStr>(text: &str, name: &str) -> Result<T, String> {
    let value = text.lines().find_map(|line| {
        let rest = line.strip_prefix(name)?.strip_prefix(' ')?;
        rest.trim().parse().ok()
    });
    value.ok_or_else(|| format!("/metrics says nothing of {name}: can the server hand over?"))
}

/// A connection to `/metrics`.
pub(super) struct Metrics {
    socket: OwnedFd,
    request: Vec<u8>,
    tail: Vec<u8>,
    is_asked: bool,
    due_at: u64,
}

impl Metrics {
    pub(super) fn connect(connector: &mut Connector) -> Result<Self, String> {
        let socket = connector.connect();
        let request = format!(
            "GET /metrics HTTP/1.1\r\nHost: {}\r\n\r\n",
            connector.target()
        );
        Ok(Self {
            socket: socket.map_err(|error| format!("cannot connect for /metrics: {error}"))?,
            request: request.into_bytes(),
            tail: Vec::new(),
            is_asked: false,
            due_at: 0,
        })
    }

    /// Asks when that is due; returns an answer that has come.
    pub(super) fn turn(&mut self, buffer: &mut [u8], now: u64) -> Result<Option<Reading>, String> {
        if !self.is_asked && now >= self.due_at {
            write_all(&self.socket, &self.request)?;
            self.is_asked = true;
        }
        if !self.is_asked {
            return Ok(None);
        }
        let has_ended = read_to(&self.socket, buffer, &mut self.tail)?;
        let response = socket::response(&self.tail)
            .map_err(|line| format!("GET /metrics was answered {line:?}"))?;
        let Some((len, body)) = response else {
            return if has_ended {
                Err("the connection to /metrics was hung up on".to_owned())
            } else {
                Ok(None)
            };
        };
        if len < self.tail.len() {
            return Err("there is more than one answer from /metrics".to_owned());
        }
        let reading = Reading::of(&String::from_utf8_lossy(body))?;
        self.tail.clear();
        self.is_asked = false;
        self.due_at = now + INTERVAL_NS;
        Ok(Some(reading))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_found() {
        let text = "# TYPE crieur_handovers_total counter\n\
            crieur_handovers_total{result=\"completed\"} 3\n\
            crieur_handovers_total{result=\"refused\"} 1\n\
            crieur_handovers_total{result=\"failed\"} 2\n\
            # HELP crieur_handover_seconds How long\n\
            crieur_handover_seconds 0.125\n";
        let expected = Reading {
            completed: 3,
            refused: 3,
            seconds: 0.125,
        };
        assert_eq!(Reading::of(text), Ok(expected));
        let error = Reading::of(&text.replace("failed", "other")).expect_err("it is missing");
        assert!(error.contains("crieur_handovers_total{result=\"failed\"}"));
    }
}
