//! `pings`: many pings a write, each answered in its order.

use std::os::fd::OwnedFd;

use crate::connections::{self, Net, PATIENCE};
use crate::figures::Span;
use crate::frame::{self, PING, PONG, TEXT};
use crate::message;
use crate::options::{Command, Options};
use crate::poller::Interest;
use crate::report::grouped;
use crate::socket::{self, Received};
use crate::system::now_ns;

use super::Bench;

/// A connection with a batch of pings under way.
struct Pinger {
    socket: OwnedFd,
    /// How much of the batch is written, and how much of the answer has come.
    written: usize,
    received: usize,
}

/// One batch: what is sent, and what must come back, byte for byte.
struct Batch {
    sent: Vec<u8>,
    expected: Vec<u8>,
}

impl Batch {
    /// WebSocket Pings are numbered, so that an answer out of order is found; the
    /// application's pings are all alike.
    fn new(count: usize, is_websocket_ping: bool) -> Self {
        let (mut sent, mut expected) = (Vec::new(), Vec::new());
        for number in 0..count {
            let payload = format!("{number:08}");
            if is_websocket_ping {
                frame::push_client_frame(PING, &[payload.as_bytes()], &mut sent);
                frame::push_server_frame(PONG, &[payload.as_bytes()], &mut expected);
            } else {
                frame::push_client_frame(TEXT, &[message::PING], &mut sent);
                frame::push_server_frame(TEXT, &[message::PONG], &mut expected);
            }
        }
        Self { sent, expected }
    }
}

pub(super) fn run(bench: &mut Bench, options: &Options) -> Result<(), String> {
    let sockets = connections::open(&mut bench.net, "/", options.connections, 64)?;
    for (index, socket) in sockets.iter().enumerate() {
        let changed = bench
            .net
            .poller
            .change(socket, index as u64, Interest::Both);
        changed.map_err(|error| format!("cannot watch a connection: {error}"))?;
    }
    let pinger = |socket| Pinger {
        socket,
        written: 0,
        received: 0,
    };
    let mut pingers: Vec<_> = sockets.into_iter().map(pinger).collect();
    let batch = Batch::new(options.batch, options.is_websocket_ping);
    for pinger in &mut pingers {
        pinger.write(&batch)?;
    }

    turn(&mut bench.net, &mut pingers, &batch, options.warmup)?;
    let start = bench.snapshot()?;
    let batches = turn(&mut bench.net, &mut pingers, &batch, options.seconds)?;
    let end = bench.snapshot()?;

    let span = Span::between(&start, &end);
    let pings = (batches * options.batch as u64) as f64;
    let mut report = bench.report(Command::Pings, options);
    report.count("connections", options.connections as u64);
    report.count("batch", options.batch as u64);
    report.flag("websocket", options.is_websocket_ping);
    report.count("pings", pings as u64);
    report.number("pings_per_second", pings / span.seconds);
    report.number("server_cpu_us_per_ping", span.server_cpu_us / pings);
    let kind = if options.is_websocket_ping {
        "WebSocket"
    } else {
        "application"
    };
    let text = format!(
        "{kind} pings, {} a write, {} connections",
        options.batch, options.connections
    );
    report.line("what", &text);
    report.line("pings a second", &grouped(pings / span.seconds));
    report.line(
        "server's CPU a ping",
        &format!("{:.3} us", span.server_cpu_us / pings),
    );
    report.span(&span, "window");
    let title = format!("pings: {}", bench.server_name);
    report.publish(&title, options.json.as_deref())
}

/// Keeps every connection busy for some seconds; says how many batches were answered.
fn turn(net: &mut Net, pingers: &mut [Pinger], batch: &Batch, seconds: f64) -> Result<u64, String> {
    let end = now_ns() + (seconds * 1e9) as u64;
    let mut batches = 0;
    let mut progress_at = now_ns();
    loop {
        let now = now_ns();
        if now >= end {
            return Ok(batches);
        }
        let wait = net.poller.wait(end.min(now + 100_000_000));
        let count = wait.map_err(|error| format!("epoll: {error}"))?;
        if count > 0 {
            progress_at = now;
        } else if now - progress_at > PATIENCE.as_nanos() as u64 {
            return Err(format!("pings: nothing came for {} s", PATIENCE.as_secs()));
        }
        for number in 0..count {
            let event = net.poller.event(number);
            let pinger = &mut pingers[event.token as usize];
            if event.is_writable && pinger.written < batch.sent.len() {
                pinger.write(batch)?;
            }
            batches += u64::from(pinger.read(batch, &mut net.buffer)?);
        }
    }
}

impl Pinger {
    fn write(&mut self, batch: &Batch) -> Result<(), String> {
        let taken = socket::write(&self.socket, &batch.sent[self.written..]);
        self.written += taken.map_err(|error| format!("cannot write pings: {error}"))?;
        Ok(())
    }

    /// Reads and compares; a batch that is answered is followed by the next.
    fn read(&mut self, batch: &Batch, buffer: &mut [u8]) -> Result<bool, String> {
        let received =
            socket::read(&self.socket, buffer).map_err(|error| format!("pings: {error}"))?;
        let count = match received {
            Received::Nothing => return Ok(false),
            Received::End => return Err("the server hung up".to_owned()),
            Received::Bytes(count) => count,
        };
        let expected = batch.expected.get(self.received..self.received + count);
        if expected != Some(&buffer[..count]) {
            let shown = String::from_utf8_lossy(&buffer[..count.min(200)]).into_owned();
            return Err(format!(
                "pings were not answered with their pongs: {shown:?}"
            ));
        }
        self.received += count;
        if self.received < batch.expected.len() {
            return Ok(false);
        }
        (self.written, self.received) = (0, 0);
        self.write(batch)?;
        Ok(true)
    }
}
