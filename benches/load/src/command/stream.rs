//! The stream of notifications: sends them when the window or the clock allows, reads what the
//! subscribers get, and has every byte of it checked.

use std::mem;
use std::os::fd::OwnedFd;

use crate::checker::{Checker, Progress};
use crate::connections::{Net, PATIENCE, write_all};
use crate::figures::{Meter, Snapshot};
use crate::frame::{self, PONG};
use crate::histogram::Histogram;
use crate::message::Recipients;
use crate::nodes::Nodes;
use crate::poller::Readiness;
use crate::publisher::{FIRST_TOKEN, Publication, Publishers, Receipt};
use crate::socket::{self, Received};
use crate::system::now_ns;

use super::plan::{Extent, Keys, Plan};

/// The longest that a turn waits.
const TURN_NS_MAX: u64 = 10_000_000;

/// A connection that has subscribed.
struct Subscriber {
    socket: OwnedFd,
    /// The beginning of a frame that isn't complete.
    tail: Vec<u8>,
}

/// How fast to send.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) in_flight: usize,
    /// Nanoseconds from one notification to the next, if time decides.
    pub(super) interval_ns: Option<f64>,
}

/// Counters at the beginning or the end of the measurement.
#[derive(Clone, Debug)]
struct Mark {
    at_ns: u64,
    finished: u64,
    deliveries: u64,
    snapshot: Snapshot,
}

/// What was measured.
pub(super) struct Outcome {
    pub(super) start: Snapshot,
    pub(super) end: Snapshot,
    pub(super) notifications: u64,
    pub(super) deliveries: u64,
    /// From sending a notification to its publisher's answer.
    pub(super) answers: Histogram,
    /// How much later than it was due each notification was sent.
    pub(super) lateness: Histogram,
    /// All deliveries of the run, warming up included.
    pub(super) deliveries_checked: u64,
}

pub(super) struct Stream<'a> {
    net: &'a mut Net,
    meter: Meter,
    plan: &'a Plan,
    pub(super) checker: Checker,
    publishers: Publishers,
    subscribers: Vec<Subscriber>,
    pace: Pace,
    /// Unless notifications have none.
    keys: Option<Keys>,
    is_kept: bool,
    /// Where all are, if there are several nodes.
    nodes: Option<Nodes>,
    answered: Vec<Receipt>,
    deliveries: u64,
    started_at: u64,
    /// The number of the notification that was due then.
    first: u64,
    /// When each slot's notification was sent.
    sent_at: Vec<u64>,
    answers: Histogram,
    lateness: Histogram,
}

impl<'a> Stream<'a> {
    pub(super) fn new(
        net: &'a mut Net,
        meter: Meter,
        plan: &'a Plan,
        checker: Checker,
        publishers: Publishers,
        sockets: Vec<OwnedFd>,
        pace: Pace,
    ) -> Self {
        let subscriber = |socket| Subscriber {
            socket,
            tail: Vec::new(),
        };
        Self {
            net,
            meter,
            plan,
            first: checker.sent(),
            checker,
            publishers,
            subscribers: sockets.into_iter().map(subscriber).collect(),
            pace,
            keys: None,
            is_kept: true,
            nodes: None,
            answered: Vec::new(),
            deliveries: 0,
            started_at: now_ns(),
            sent_at: Vec::new(),
            answers: Histogram::default(),
            lateness: Histogram::default(),
        }
    }

    /// Gives each notification a key of its own.
    pub(super) fn use_keys(&mut self) {
        self.keys = Some(Keys::new());
    }

    /// Has publishers told of those at their own nodes.
    pub(super) fn use_nodes(&mut self, nodes: Nodes) {
        self.nodes = Some(nodes);
    }

    /// Has what follows published for those who are there only.
    pub(super) const fn keep_no_more(&mut self) {
        self.is_kept = false;
    }

    /// Has the next notification due now.
    pub(super) fn start(&mut self) {
        self.first = self.checker.sent();
        self.started_at = now_ns();
    }

    /// Warms up, measures, and waits until everything has arrived.
    pub(super) fn run(&mut self, extent: Extent) -> Result<Outcome, String> {
        self.start();
        let mut progress = (self.started_at, self.progress());
        let (mut start, mut end): (Option<Mark>, Option<Mark>) = (None, None);
        loop {
            let now = now_ns();
            match (&start, &end) {
                (None, _) if extent.is_warm(now - self.started_at, self.finished()) => {
                    self.checker.latencies().clear();
                    self.answers.clear();
                    self.lateness.clear();
                    start = Some(self.mark()?);
                }
                (Some(first), None)
                    if extent.is_measured(now - first.at_ns, self.finished() - first.finished) =>
                {
                    end = Some(self.mark()?);
                }
                _ => {}
            }
            if end.is_some() && self.checker.in_flight() == 0 {
                break;
            }
            // Often enough to see that a phase is over, or that nothing comes any more.
            self.turn(end.is_none(), now + TURN_NS_MAX)?;
            let counts = self.progress();
            if progress.1 != counts {
                progress = (now, counts);
            } else if now - progress.0 > PATIENCE.as_nanos() as u64 && self.checker.in_flight() > 0
            {
                return Err(self.stuck());
            }
        }
        let (Some(start), Some(end)) = (start, end) else {
            return Err("the measurement never began".to_owned());
        };
        Ok(Outcome {
            start: start.snapshot,
            end: end.snapshot,
            notifications: end.finished - start.finished,
            deliveries: end.deliveries - start.deliveries,
            answers: mem::take(&mut self.answers),
            lateness: mem::take(&mut self.lateness),
            deliveries_checked: self.deliveries,
        })
    }

    /// Sends what is due, if it `sends`, and deals with events; waits for them until the time
    /// `until`, or something is due.
    pub(super) fn turn(&mut self, sends: bool, until: u64) -> Result<(), String> {
        let mut until = until;
        if sends {
            self.send_due(now_ns())?;
            let is_open = self.checker.in_flight() < self.pace.in_flight;
            let due = self.due_at().filter(|_| is_open);
            until = due.map_or(until, |due| until.min(due));
        }
        self.publishers.flush()?;
        self.net_turn(until)
    }

    fn finished(&self) -> u64 {
        self.checker.sent() - self.checker.in_flight() as u64
    }

    fn mark(&self) -> Result<Mark, String> {
        Ok(Mark {
            at_ns: now_ns(),
            finished: self.finished(),
            deliveries: self.deliveries,
            snapshot: self.snapshot()?,
        })
    }

    pub(super) fn snapshot(&self) -> Result<Snapshot, String> {
        self.meter.snapshot(&self.net.poller)
    }

    /// How much later than it was due each notification was sent.
    pub(super) const fn lateness(&mut self) -> &mut Histogram {
        &mut self.lateness
    }

    /// Changes whenever something comes.
    pub(super) fn progress(&self) -> (u64, u64) {
        (self.deliveries, self.finished())
    }

    /// Why nothing comes any more.
    pub(super) fn stuck(&self) -> String {
        let seconds = PATIENCE.as_secs();
        match self.checker.lost() {
            Some(fault) => format!("nothing came for {seconds} s: {fault}"),
            None => format!("nothing came for {seconds} s: a publisher waits for its answer"),
        }
    }

    /// When the next notification is to be sent, if time decides.
    fn due_at(&self) -> Option<u64> {
        let interval = self.pace.interval_ns?;
        Some(self.started_at + ((self.checker.sent() - self.first) as f64 * interval) as u64)
    }

    fn send_due(&mut self, now: u64) -> Result<(), String> {
        while self.checker.in_flight() < self.pace.in_flight {
            let due = self.due_at();
            if due.is_some_and(|due| due > now) {
                return Ok(());
            }
            let (group, value) = self.plan.next(self.checker.sent());
            self.send(group, value, due.unwrap_or(now), now)?;
        }
        Ok(())
    }

    /// Sends a notification to a group; it goes out with the next turn.
    pub(super) fn send(
        &mut self,
        group: usize,
        value: u32,
        due: u64,
        now: u64,
    ) -> Result<(), String> {
        let number = self.checker.sent();
        let ordered = self.publishers.ordered();
        let publisher = (ordered > 0).then(|| (number % ordered as u64) as usize);
        let slot = self.checker.send(group, value, publisher, due);
        if self.sent_at.len() <= slot {
            self.sent_at.resize(slot + 1, 0);
        }
        self.sent_at[slot] = due;
        self.lateness.record(now.saturating_sub(due));
        let recipients = match &self.nodes {
            Some(nodes) => nodes.recipients(group, publisher, self.net.connector.next_target()),
            None => Recipients::Exactly(self.checker.recipients(slot)),
        };
        let publication = Publication {
            slot,
            publisher: publisher.unwrap_or(0),
            value,
            notification: self.checker.notification(slot),
            key: self.keys.as_mut().map_or(&[], |keys| keys.next(number)),
            is_kept: self.is_kept,
            recipients,
        };
        self.publishers.publish(self.net, publication)
    }

    /// Waits for events and deals with them.
    fn net_turn(&mut self, until: u64) -> Result<(), String> {
        let wait = self.net.poller.wait(until);
        let count = wait.map_err(|error| format!("epoll: {error}"))?;
        // With a rate latency is what is measured, and deserves a clock of its own each time.
        let is_exact = self.pace.interval_ns.is_some();
        let mut now = now_ns();
        for number in 0..count {
            let event = self.net.poller.event(number);
            if is_exact {
                now = now_ns();
            }
            if event.token < FIRST_TOKEN {
                self.read(event, now)?;
                continue;
            }
            let mut answered = mem::take(&mut self.answered);
            self.publishers.handle(self.net, event, &mut answered)?;
            for Receipt { slot, id } in answered.drain(..) {
                let elapsed = now.saturating_sub(self.sent_at[slot]);
                self.answers.record(elapsed);
                let checked = self.checker.answered(slot, id);
                checked.map_err(|fault| fault.to_string())?;
            }
            self.answered = answered;
        }
        Ok(())
    }

    /// Has checked what a member got on a connection that isn't this stream's.
    pub(super) fn receive(
        &mut self,
        member: usize,
        bytes: &[u8],
        now: u64,
    ) -> Result<Progress, String> {
        let received = self.checker.receive(member, bytes, now);
        received.map_err(|fault| fault.to_string())
    }

    fn read(&mut self, event: Readiness, now: u64) -> Result<(), String> {
        let member = event.token as usize;
        let Some(subscriber) = self.subscribers.get_mut(member) else {
            return Ok(());
        };
        loop {
            let start = subscriber.tail.len();
            let buffer = &mut self.net.buffer;
            if buffer.len() < start * 2 {
                buffer.resize(start * 2, 0);
            }
            let room = buffer.len() - start;
            let received = socket::read(&subscriber.socket, &mut buffer[start..]);
            let count = match received.map_err(|error| format!("subscriber {member}: {error}"))? {
                Received::Nothing => return Ok(()),
                Received::End => return Err(format!("subscriber {member} was hung up on")),
                Received::Bytes(count) => count,
            };
            buffer[..start].copy_from_slice(&subscriber.tail);
            let bytes = &buffer[..start + count];
            let received = self.checker.receive(member, bytes, now);
            let progress = received.map_err(|fault| fault.to_string())?;
            self.deliveries += progress.deliveries;
            subscriber.tail.clear();
            subscriber
                .tail
                .extend_from_slice(&bytes[progress.consumed..]);
            for _ in 0..progress.pings {
                let mut pong = Vec::new();
                frame::push_client_frame(PONG, &[], &mut pong);
                write_all(&subscriber.socket, &pong)?;
            }
            // A short read has drained the socket; the edge comes again with more.
            if count < room && !event.is_ending {
                return Ok(());
            }
        }
    }

    /// Gives the subscribers back, once no byte of them is left unchecked.
    pub(super) fn into_subscribers(self) -> Result<Vec<OwnedFd>, String> {
        let left = self.subscribers.iter().position(|one| !one.tail.is_empty());
        match left {
            Some(member) => Err(format!(
                "subscriber {member} got the beginning of something else"
            )),
            None => Ok(self.subscribers.into_iter().map(|one| one.socket).collect()),
        }
    }
}
