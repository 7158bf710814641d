//! All clients come back at once, while notifications go on to those that stayed.
//!
//! Those that stayed have an epoll of their own, which is looked at between any two handfuls of
//! the others' events: how late a delivery is, is the server's doing and not the generator's.
//! Members of the checker are those that stayed, then the clients, channel after channel.

use std::mem;
use std::os::fd::OwnedFd;

use crate::checker::Checker;
use crate::connections::{self, Net, PATIENCE, write_all};
use crate::figures::{self, Memory, Snapshot, Span};
use crate::frame::{self, PONG};
use crate::histogram::Histogram;
use crate::message::Layout;
use crate::options::Options;
use crate::poller::{Interest, Poller, Readiness};
use crate::publisher::Publishers;
use crate::report::Report;
use crate::resuming::{Backlog, Resume};
use crate::socket::{self, Connector, Received};
use crate::system::now_ns;

use super::{Away, Bench, IN_FLIGHT, PARALLEL, describe, list, reset};
use crate::command::fanout::{check_subscribed, fence};
use crate::command::plan::Plan;
use crate::command::stream::{Pace, Stream};

/// Connections that are opened, and events of clients that are dealt with, between two looks at
/// those that stayed.
const CONNECTS_A_TURN: usize = 4;
const EVENTS_A_TURN: usize = 16;

/// How long to wait for those that stayed when there is nothing to do.
const IDLE_NS: u64 = 20_000;

/// How far a client is.
enum Stage {
    Away,
    /// So much of the upgrade is written.
    Upgrading(usize),
    /// The answer to a list without an id is awaited.
    Asking,
    Resuming(Resume),
    /// What it gets is the checker's.
    Live,
}

struct Client {
    socket: Option<OwnedFd>,
    stage: Stage,
    /// What was read and isn't complete.
    tail: Vec<u8>,
    connected_at: u64,
}

/// The clients that come back.
struct Storm<'a> {
    away: &'a Away,
    net: Net,
    upgrade: Vec<u8>,
    clients: Vec<Client>,
    /// The first clients have opened their connections.
    opened: usize,
    upgrading: usize,
    upgrading_max: usize,
    /// How many are live.
    live: usize,
    first_member: usize,
    is_without_since: bool,
    /// From opening a connection to being live.
    times: Histogram,
    deliveries: u64,
}

/// What was found.
struct Outcome {
    start: Snapshot,
    end: Snapshot,
    quiet: Histogram,
    stormy: Histogram,
    lateness: Histogram,
    notifications: u64,
    /// From a client's opening its connection to its being live.
    times: Histogram,
}

pub(super) fn run(
    bench: &mut Bench,
    options: &Options,
    away: &Away,
    publishers: Publishers,
) -> Result<(), String> {
    let plan = Plan::storm(options.live, options.clients, away.backlog.channels());
    let layout = Layout::new(options.topic, options.bytes)?;
    let stayed = stay(bench, options, &layout)?;
    let mut checker = Checker::new(layout, &plan.sizes, 1);
    checker.begin_at(away.backlog.entries() as u64);
    if !options.is_without_since {
        (options.live..plan.members()).for_each(|member| checker.number(member));
    }
    let pace = Pace {
        in_flight: options.in_flight,
        interval_ns: options.rate.map(|rate| 1e9 / rate),
    };
    let mut storm = Storm::new(bench, options, away)?;
    let meter = bench.meter.clone();
    let net = &mut bench.net;
    let mut stream = Stream::new(net, meter, &plan, checker, publishers, stayed, pace);
    if options.has_keys {
        stream.use_keys();
    }

    let outcome = storm.run(&mut stream, options)?;
    storm.end_with_one_for_each(&mut stream)?;
    let memory = figures::memory(&bench.server)?;
    let stayed = stream.into_subscribers()?;
    fence(&mut bench.net, &stayed, |_| false)?;
    let deliveries = storm.deliveries;
    storm.leave()?;
    report(bench, options, away, &outcome, &memory, deliveries)
}

/// Opens the connections of those that stay.
fn stay(bench: &mut Bench, options: &Options, layout: &Layout) -> Result<Vec<OwnedFd>, String> {
    let sockets = connections::open(&mut bench.net, "/", options.live, PARALLEL)?;
    let request = |_| layout.subscribe(std::iter::once(0), None).into();
    let check = |_: usize, answer: &[u8]| check_subscribed(answer, 1, false).map(drop);
    connections::ask(&mut bench.net, &sockets, PARALLEL, request, check)?;
    Ok(sockets)
}

impl<'a> Storm<'a> {
    fn new(bench: &Bench, options: &Options, away: &'a Away) -> Result<Self, String> {
        let connector = Connector::new(bench.server.address);
        let upgrade = connector.upgrade("/");
        let mut net = Net::new(connector, options.waiting)?;
        net.poller = Poller::with_events(options.waiting, EVENTS_A_TURN)
            .map_err(|error| format!("cannot use epoll: {error}"))?;
        let client = |_| Client {
            socket: None,
            stage: Stage::Away,
            tail: Vec::new(),
            connected_at: 0,
        };
        Ok(Self {
            away,
            net,
            upgrade,
            clients: (0..options.clients).map(client).collect(),
            opened: 0,
            upgrading: 0,
            upgrading_max: options.parallel,
            live: 0,
            first_member: options.live,
            is_without_since: options.is_without_since,
            times: Histogram::default(),
            deliveries: 0,
        })
    }

    /// A quiet time, the storm, and the last of the notifications that were sent in it.
    fn run(&mut self, stream: &mut Stream<'_>, options: &Options) -> Result<Outcome, String> {
        let first = stream.checker.sent();
        stream.start();
        let quiet_end = now_ns() + (options.warmup * 1e9) as u64;
        while now_ns() < quiet_end {
            stream.turn(true, quiet_end)?;
        }
        let quiet = mem::take(stream.checker.latencies());
        mem::take(stream.lateness());
        let start = stream.snapshot()?;
        self.until(stream, true, |storm, _| storm.live == storm.clients.len())?;
        let end = stream.snapshot()?;
        self.until(stream, false, |_, stream| stream.checker.in_flight() == 0)?;
        Ok(Outcome {
            start,
            end,
            quiet,
            stormy: mem::take(stream.checker.latencies()),
            lateness: mem::take(stream.lateness()),
            notifications: stream.checker.sent() - first,
            times: mem::take(&mut self.times),
        })
    }

    /// Publishes one more for each channel, and waits until all clients have theirs.
    fn end_with_one_for_each(&mut self, stream: &mut Stream<'_>) -> Result<(), String> {
        let channels = self.away.backlog.channels();
        let mut sent = 0;
        while sent < channels || stream.checker.in_flight() > 0 {
            while sent < channels && stream.checker.in_flight() < IN_FLIGHT {
                let now = now_ns();
                stream.send(sent + 1, Backlog::value_of(sent), now, now)?;
                sent += 1;
            }
            let in_flight = stream.checker.in_flight();
            self.until(stream, false, |_, stream| {
                stream.checker.in_flight() < in_flight
            })?;
        }
        if let Some(client) = self.clients.iter().position(|one| !one.tail.is_empty()) {
            return Err(format!(
                "client {client} got the beginning of something else"
            ));
        }
        Ok(())
    }

    /// Resets the connections, once each has answered a ping with nothing between.
    fn leave(mut self) -> Result<(), String> {
        let sockets = self.clients.into_iter().filter_map(|one| one.socket);
        let sockets: Vec<_> = sockets.collect();
        fence(&mut self.net, &sockets, |_| !self.is_without_since)?;
        reset(sockets)
    }

    /// Deals with everything until `is_done` says so; `sends` says whether notifications go on.
    fn until(
        &mut self,
        stream: &mut Stream<'_>,
        sends: bool,
        is_done: impl Fn(&Self, &Stream<'_>) -> bool,
    ) -> Result<(), String> {
        let mut progress_at = now_ns();
        let mut in_flight = stream.checker.in_flight();
        while !is_done(self, stream) {
            stream.turn(sends, 0)?;
            let now = now_ns();
            let is_busy = self.turn(stream, now)?;
            if is_busy || stream.checker.in_flight() < in_flight {
                progress_at = now;
            }
            in_flight = stream.checker.in_flight();
            if is_busy {
                continue;
            }
            if now - progress_at > PATIENCE.as_nanos() as u64 {
                return Err(self.stuck(stream));
            }
            stream.turn(sends, now + IDLE_NS)?;
        }
        Ok(())
    }

    /// Why nothing comes any more.
    fn stuck(&self, stream: &Stream<'_>) -> String {
        if self.live < self.clients.len() {
            let is_live = |client: &Client| matches!(client.stage, Stage::Live);
            let client = self.clients.iter().position(|client| !is_live(client));
            return format!(
                "nothing came for {} s: {} of {} clients are live, client {} isn't",
                PATIENCE.as_secs(),
                self.live,
                self.clients.len(),
                client.unwrap_or(0)
            );
        }
        stream.stuck()
    }

    /// Opens a few connections and deals with a few events; says whether there were any.
    fn turn(&mut self, stream: &mut Stream<'_>, now: u64) -> Result<bool, String> {
        let room = self.upgrading_max.saturating_sub(self.upgrading);
        let left = self.clients.len() - self.opened;
        let connects = room.min(left).min(CONNECTS_A_TURN);
        for _ in 0..connects {
            self.connect(now)?;
        }
        let looked = self.net.poller.look(0);
        let count = looked.map_err(|error| format!("epoll: {error}"))?;
        for number in 0..count {
            let event = self.net.poller.event(number);
            self.handle(stream, event, now)?;
        }
        Ok(connects + count > 0)
    }

    fn connect(&mut self, now: u64) -> Result<(), String> {
        let context = |error| format!("cannot open a connection: {error}");
        let socket = self.net.connector.connect().map_err(context)?;
        let written = socket::write(&socket, &self.upgrade).map_err(context)?;
        let interest = if written == self.upgrade.len() {
            Interest::Read
        } else {
            Interest::Both
        };
        let token = self.opened as u64;
        self.net
            .poller
            .add(&socket, token, interest)
            .map_err(context)?;
        let client = &mut self.clients[self.opened];
        client.socket = Some(socket);
        client.stage = Stage::Upgrading(written);
        client.connected_at = now;
        self.opened += 1;
        self.upgrading += 1;
        Ok(())
    }

    fn handle(
        &mut self,
        stream: &mut Stream<'_>,
        event: Readiness,
        now: u64,
    ) -> Result<(), String> {
        let index = event.token as usize;
        let Client { socket, stage, .. } = &mut self.clients[index];
        let Some(socket) = socket.take() else {
            return Ok(());
        };
        let context = |error| format!("client {index}: {error}");
        if let Stage::Upgrading(written) = stage
            && *written < self.upgrade.len()
        {
            *written += socket::write(&socket, &self.upgrade[*written..]).map_err(context)?;
        }
        loop {
            match socket::read(&socket, &mut self.net.buffer).map_err(context)? {
                Received::Nothing => break,
                Received::End => return Err(format!("client {index} was hung up on")),
                Received::Bytes(count) => {
                    let mut bytes = mem::take(&mut self.clients[index].tail);
                    bytes.extend_from_slice(&self.net.buffer[..count]);
                    let consumed = self.understand(stream, &socket, index, &bytes, now)?;
                    bytes.drain(..consumed);
                    if !bytes.is_empty() {
                        self.clients[index].tail = bytes;
                    }
                    // A short read has drained the socket; the edge comes again with more.
                    if count < self.net.buffer.len() && !event.is_ending {
                        break;
                    }
                }
            }
        }
        self.clients[index].socket = Some(socket);
        Ok(())
    }

    /// Takes in what a client got; says how much of it is dealt with.
    fn understand(
        &mut self,
        stream: &mut Stream<'_>,
        socket: &OwnedFd,
        index: usize,
        bytes: &[u8],
        now: u64,
    ) -> Result<usize, String> {
        let mut consumed = 0;
        loop {
            let rest = &bytes[consumed..];
            let member = self.member(index);
            let client = &mut self.clients[index];
            match &mut client.stage {
                Stage::Away => return Err(format!("client {index} got something unasked")),
                Stage::Upgrading(_) => {
                    let Some(len) = socket::accepted(rest)? else {
                        return Ok(consumed);
                    };
                    consumed += len;
                    self.ask(socket, index)?;
                }
                Stage::Asking => {
                    let Some((len, answer)) = first_text(rest)? else {
                        return Ok(consumed);
                    };
                    check_subscribed(answer, 1, false)?;
                    consumed += len;
                    self.has_come_back(index, now);
                }
                Stage::Resuming(resume) => {
                    let progress = resume
                        .receive(&self.away.backlog, member, rest)
                        .map_err(|fault| fault.to_string())?;
                    consumed += progress.consumed;
                    self.deliveries += progress.deliveries;
                    let is_caught_up = resume.is_caught_up();
                    answer_pings(socket, progress.pings)?;
                    if !is_caught_up {
                        return Ok(consumed);
                    }
                    self.has_come_back(index, now);
                }
                Stage::Live => {
                    let progress = stream.receive(member, rest, now)?;
                    self.deliveries += progress.deliveries;
                    answer_pings(socket, progress.pings)?;
                    return Ok(consumed + progress.consumed);
                }
            }
        }
    }

    /// The number of a client among the checker's members, who stand channel after channel.
    fn member(&self, client: usize) -> usize {
        let channels = self.away.backlog.channels();
        let clients = self.clients.len();
        let channel = client % channels;
        // The first channels have one more, if they aren't all alike.
        let before = channel * (clients / channels) + channel.min(clients % channels);
        self.first_member + before + client / channels
    }

    /// Sends a client's list, now that it is upgraded.
    fn ask(&mut self, socket: &OwnedFd, index: usize) -> Result<(), String> {
        self.upgrading -= 1;
        let away = self.away;
        let since = away.sinces[index];
        let (stage, list) = if self.is_without_since {
            (Stage::Asking, list(away, index, None))
        } else {
            let resume = Resume::new(away.channel_of(index), since);
            let list = list(away, index, Some(since.as_bytes()));
            (Stage::Resuming(resume), list)
        };
        self.clients[index].stage = stage;
        write_all(socket, &list)
    }

    fn has_come_back(&mut self, index: usize, now: u64) {
        let client = &mut self.clients[index];
        client.stage = Stage::Live;
        self.live += 1;
        self.times.record(now.saturating_sub(client.connected_at));
    }
}

/// The first frame, which must be a text, and its length.
fn first_text(bytes: &[u8]) -> Result<Option<(usize, &[u8])>, String> {
    let Some(header) = frame::scan(bytes)? else {
        return Ok(None);
    };
    if header.opcode != frame::TEXT {
        return Err(format!("a frame of opcode {:#x}", header.opcode));
    }
    let payload = bytes.get(header.header_len..header.frame_len());
    Ok(payload.map(|payload| (header.frame_len(), payload)))
}

fn answer_pings(socket: &OwnedFd, pings: u32) -> Result<(), String> {
    for _ in 0..pings {
        let mut pong = Vec::new();
        frame::push_client_frame(PONG, &[], &mut pong);
        write_all(socket, &pong)?;
    }
    Ok(())
}

fn report(
    bench: &Bench,
    options: &Options,
    away: &Away,
    outcome: &Outcome,
    memory: &Memory,
    deliveries: u64,
) -> Result<(), String> {
    let span = Span::between(&outcome.start, &outcome.end);
    let clients = options.clients as f64;
    let mut report: Report = describe(bench, options, away);
    report.count("parallel", options.parallel as u64);
    report.count("live", options.live as u64);
    report.number("rate", options.rate.unwrap_or(f64::NAN));
    let text = format!(
        "{} subscribers, {} notifications a second",
        options.live,
        options.rate.unwrap_or(f64::NAN)
    );
    report.line("meanwhile", &text);
    let each = span.server_cpu_us / clients;
    report.number("server_cpu_us_per_client", each);
    let text = format!("{:.3} s ({each:.1} us a client)", span.server_cpu_us / 1e6);
    report.line("server's CPU of the storm", &text);
    report.line("until the last is live", &format!("{:.3} s", span.seconds));
    report.latencies("return", "from connecting to live", &outcome.times);
    report.latencies("latency", "deliveries in the storm", &outcome.stormy);
    report.latencies("quiet_latency", "deliveries before it", &outcome.quiet);
    report.latencies("lateness", "sent later than due by", &outcome.lateness);
    report.memory(memory);
    report.count("notifications_checked", outcome.notifications);
    report.count("client_deliveries_checked", deliveries);
    let text = format!(
        "{} clients: {deliveries} deliveries, each once, in order, intact; {} notifications meanwhile",
        options.clients, outcome.notifications
    );
    report.line("checked", &text);
    report.span(&span, "window");
    let title = format!("resume: {}", bench.server_name);
    report.publish(&title, options.json.as_deref())
}
