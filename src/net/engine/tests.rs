//! The engine over transports that are memory, with an application that hands everything to
//! everybody else.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::num::NonZeroU32;
use std::rc::Rc;
use std::time::Duration;

use super::*;
use crate::application::{
    Action, Admission, Answer, BodyPermit, BodyUse, CloseCause, Decision, Figures, Framing,
    Message, Outbox, PeerAddress, Refused, Request, Response, Status,
};
use crate::handover::{Fields, Malformed};
use crate::net::connection::BRIEF_READ_BYTES;
use crate::net::places::Kind;
use crate::net::schedule::UNWRITTEN_MAX;
use crate::net::transport::Received;
use crate::net::turn::{ANSWER_BYTES_MAX, FRAMES_A_TURN_MAX};
use crate::ws::close::CloseCode;
use crate::ws::frame::{EncodedFrame, Opcode, Role, decode_frame, encode_masked_frame};
use crate::ws::mask::MaskingKey;

mod handover_tests;
mod stopping_tests;

/// A peer: what it has sent, what it got, and how much more its socket takes, which is
/// everything unless a test says otherwise.
struct Wire {
    sent: RefCell<Vec<u8>>,
    has_ended: Cell<bool>,
    got: RefCell<Vec<u8>>,
    room: Cell<usize>,
    writes: Cell<usize>,
    /// Whether its end takes every byte and holds it until it is flushed, as encryption does.
    is_held: Cell<bool>,
    held: RefCell<Vec<u8>>,
    is_shut: Cell<bool>,
}

impl Default for Wire {
    fn default() -> Self {
        Self {
            sent: RefCell::default(),
            has_ended: Cell::default(),
            got: RefCell::default(),
            room: Cell::new(usize::MAX),
            writes: Cell::new(0),
            is_held: Cell::default(),
            held: RefCell::default(),
            is_shut: Cell::default(),
        }
    }
}

struct WireEnd(Rc<Wire>);

impl Transport for WireEnd {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut sent = self.0.sent.borrow_mut();
        if sent.is_empty() && !self.0.has_ended.get() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let len = sent.len().min(buffer.len());
        buffer[..len].copy_from_slice(&sent[..len]);
        sent.drain(..len);
        let is_drained = len < buffer.len();
        Ok(Received { len, is_drained })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.writes.set(self.0.writes.get() + 1);
        if self.0.is_held.get() {
            self.0.held.borrow_mut().extend_from_slice(bytes);
            return Ok(bytes.len());
        }
        let taken = bytes.len().min(self.0.room.get());
        if taken == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.0.room.set(self.0.room.get() - taken);
        self.0.got.borrow_mut().extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let bytes: Vec<_> = slices
            .iter()
            .flat_map(|slice| slice.iter().copied())
            .collect();
        self.write(&bytes)
    }

    fn wants_write(&self) -> bool {
        !self.0.held.borrow().is_empty()
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.0.room.get() == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.0
            .got
            .borrow_mut()
            .append(&mut self.0.held.borrow_mut());
        Ok(())
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        self.0.is_shut.set(true);
        Ok(())
    }
}

struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        Timestamp::ZERO
    }

    fn unix_now(&self) -> Duration {
        Duration::ZERO
    }
}

/// A microsecond passes between two looks at it.
struct Ticking(Rc<Cell<u64>>);

impl Clock for Ticking {
    fn now(&self) -> Timestamp {
        self.0.set(self.0.get() + 1);
        Timestamp::from_micros(self.0.get())
    }

    fn unix_now(&self) -> Duration {
        Duration::ZERO
    }
}

/// What everybody is granted.
const ADMISSION: Admission = Admission {
    message_bytes_max: 1024,
    on_behalf_of: None,
    deadline: None,
    is_limited: true,
    drains_after_hang_up: false,
    closes_last: false,
};

/// Hands over as many notifications as the number behind it says.
const MANY: &str = "many ";

/// What lifts a connection's deadline.
const RENEW: &[u8] = b"renew";

#[derive(Default)]
struct ToAllOthers(Vec<ConnectionId>);

impl Application for ToAllOthers {
    fn handle_upgrade(&mut self, id: ConnectionId, _: &Request<'_>) -> Result<Admission, Refused> {
        self.0.push(id);
        Ok(ADMISSION)
    }

    fn handle_request(
        &mut self,
        _: ConnectionId,
        _: &Request<'_>,
        _: Framing,
        _: &dyn Figures,
    ) -> Decision {
        unreachable!("everybody asks for an upgrade")
    }

    fn handle_message(&mut self, id: ConnectionId, message: Message<'_>, outbox: &mut dyn Outbox) {
        let Message::Text(text) = message else {
            unreachable!("everybody sends text")
        };
        if text.as_bytes() == RENEW {
            return outbox.readmit(id, &ADMISSION);
        }
        let others: Vec<_> = self
            .0
            .iter()
            .copied()
            .filter(|&other| other != id)
            .collect();
        let count = text
            .strip_prefix(MANY)
            .map_or(1, |count| count.parse().expect("a number"));
        for number in 0..count {
            let text = if count == 1 {
                text.to_owned()
            } else {
                number.to_string()
            };
            outbox.deliver(&EncodedFrame::text(&[text.as_bytes()]), &others);
        }
    }

    fn handle_deadline(&mut self, id: ConnectionId, outbox: &mut dyn Outbox) {
        outbox.close(id, CloseCode::UNAUTHORIZED, "");
    }

    fn restore_connection(
        &mut self,
        id: ConnectionId,
        _: Peer,
        _: &Fields<'_>,
        _: Timestamp,
    ) -> Result<(), Malformed> {
        self.0.push(id);
        Ok(())
    }

    fn handle_gone(&mut self, id: ConnectionId) {
        self.0.retain(|&other| other != id);
    }

    fn close_reason(&self, _: CloseCause, _: u64) -> String {
        String::new()
    }
}

type TestEngine = Engine<WireEnd, ToAllOthers, Stopped>;

const READABLE: Readiness = Readiness {
    is_readable: true,
    is_writable: false,
    is_ending: false,
    is_failed: false,
    is_urgent: false,
};

fn engine() -> TestEngine {
    engine_with(ServerLimits::default(), Timeouts::default())
}

fn engine_with(limits: ServerLimits, timeouts: Timeouts) -> TestEngine {
    Engine::new(ToAllOthers::default(), Stopped, limits, timeouts, 1)
}

/// A connection that has said nothing yet.
fn accept<A: Application, C: Clock>(
    engine: &mut Engine<WireEnd, A, C>,
    now: Timestamp,
) -> (ConnectionId, Rc<Wire>) {
    let wire = Rc::new(Wire::default());
    let peer = Peer {
        address: PeerAddress::Ip(([127, 0, 0, 1], 1).into()),
        lane: Lane::Clients,
    };
    let id = engine.insert(WireEnd(Rc::clone(&wire)), peer, now);
    (id, wire)
}

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// A connection whose handshake is done.
fn connect(engine: &mut TestEngine) -> (ConnectionId, Rc<Wire>) {
    let (id, wire) = accept(engine, Timestamp::ZERO);
    wire.sent.borrow_mut().extend_from_slice(UPGRADE.as_bytes());
    engine.handle_ready(id, READABLE, Timestamp::ZERO);
    engine.flush_replies(Timestamp::ZERO);
    let head = wire.got.take();
    assert!(head.starts_with(b"HTTP/1.1 101 ") && head.ends_with(b"\r\n\r\n"));
    (id, wire)
}

/// The peer sends a text.
fn say(wire: &Wire, text: &str) {
    let key = MaskingKey([1, 2, 3, 4]);
    encode_masked_frame(
        &mut wire.sent.borrow_mut(),
        Opcode::Text,
        text.as_bytes(),
        key,
    );
}

/// A masked control frame without a payload.
const fn control_frame(opcode: u8) -> [u8; 6] {
    [0x80 | opcode, 0x80, 0, 0, 0, 0]
}

/// The texts that a peer got.
fn texts(wire: &Wire) -> Vec<String> {
    let mut bytes = wire.got.take();
    let mut rest = &mut bytes[..];
    let mut texts = Vec::new();
    while !rest.is_empty() {
        let frame = decode_frame(rest, Role::Client, 1024);
        let frame = frame.expect("valid").expect("whole");
        texts.push(String::from_utf8(frame.payload.to_vec()).expect("text"));
        let length = frame.header.frame_len();
        rest = &mut rest[length..];
    }
    texts
}

#[test]
fn many_notifications_of_one_event_are_written_together() {
    const SUBSCRIBERS: usize = 1500;
    const COUNT: usize = 3000;
    let mut engine = engine();
    let subscribers: Vec<_> = (0..SUBSCRIBERS).map(|_| connect(&mut engine)).collect();
    let (publisher, wire) = connect(&mut engine);
    let text = format!("{MANY}{COUNT}");
    say(&wire, &text);
    subscribers.iter().for_each(|(_, wire)| wire.writes.set(0));
    engine.handle_ready(publisher, READABLE, Timestamp::ZERO);
    assert!(engine.shell.context.schedule.unwritten() < UNWRITTEN_MAX + SUBSCRIBERS);
    while engine.has_deliveries() {
        engine.flush_deliveries(100, Timestamp::ZERO);
    }
    let expected: Vec<_> = (0..COUNT).map(|number| number.to_string()).collect();
    for (_, wire) in &subscribers {
        assert_eq!(texts(wire), expected);
        assert!(wire.writes.get() <= SUBSCRIBERS * COUNT / UNWRITTEN_MAX + 1);
    }
}

#[test]
fn a_connection_that_has_room_again_is_not_cut_off_before_that_is_seen() {
    let limits = ServerLimits {
        send_queue_bytes_max: 1000,
        ..ServerLimits::default()
    };
    let mut engine = engine_with(limits, Timeouts::default());
    let (_, subscriber) = connect(&mut engine);
    let (publisher, wire) = connect(&mut engine);
    let mut publish = |text: &str| {
        say(&wire, text);
        engine.handle_ready(publisher, READABLE, Timestamp::ZERO);
        engine.flush_deliveries(1, Timestamp::ZERO);
        engine.metrics().slow_consumers
    };
    subscriber.room.set(0);
    let (first, second, third) = ("a".repeat(900), "b".repeat(900), "c".repeat(900));
    assert_eq!(publish(&first), 0);
    // What says that there is room is yet to be looked at.
    subscriber.room.set(2000);
    assert_eq!(publish(&second), 0);
    subscriber.room.set(0);
    assert_eq!(publish(&third), 0);
    assert_eq!(texts(&subscriber), [first, second]);
    assert_eq!(publish("d".repeat(900).as_str()), 1);
}

#[test]
fn a_connection_that_has_room_again_is_not_late_before_its_flush() {
    let mut engine = engine();
    let (subscriber, subscriber_wire) = connect(&mut engine);
    let (publisher, wire) = connect(&mut engine);
    subscriber_wire.room.set(0);
    say(&wire, "text");
    engine.handle_ready(publisher, READABLE, Timestamp::ZERO);
    engine.flush_deliveries(1, Timestamp::ZERO);
    // The time for a write is over when it is known that there is room, before anything was written.
    subscriber_wire.room.set(usize::MAX);
    let now = Timestamp::ZERO + Timeouts::default().write;
    let writable = Readiness {
        is_writable: true,
        ..Readiness::default()
    };
    engine.handle_ready(subscriber, writable, now);
    engine.handle_timers(now);
    assert_eq!(engine.metrics().slow_consumers, 0);
    assert_eq!(texts(&subscriber_wire)[0], "text");
}

#[test]
fn a_burst_is_held_back_until_what_it_caused_is_written() {
    const SUBSCRIBERS: usize = 1500;
    const MESSAGES: usize = 1000;
    let mut engine = engine();
    let subscribers: Vec<_> = (0..SUBSCRIBERS).map(|_| connect(&mut engine)).collect();
    let (publisher, wire) = connect(&mut engine);
    let expected: Vec<_> = (0..MESSAGES).map(|number| number.to_string()).collect();
    for text in &expected {
        say(&wire, text);
    }
    assert!(wire.sent.borrow().len() < READ_BYTES_MAX, "one read");
    // It hangs up at once, which must not be believed before all is handled.
    wire.has_ended.set(true);
    let readiness = Readiness {
        is_ending: true,
        ..READABLE
    };
    engine.handle_ready(publisher, readiness, Timestamp::ZERO);
    assert!(engine.has_ready(), "some of it is held back");
    let (other, other_wire) = connect(&mut engine);
    let mut rounds = 0;
    while engine.has_ready() || engine.has_deliveries() {
        rounds += 1;
        assert!(rounds < 1000, "it comes to an end");
        assert!(engine.shell.context.schedule.unwritten() < UNWRITTEN_MAX + SUBSCRIBERS + 1);
        engine.read_again(Timestamp::ZERO);
        // Meanwhile everybody else is heard.
        other_wire
            .sent
            .borrow_mut()
            .extend_from_slice(&control_frame(0x9));
        engine.handle_ready(other, READABLE, Timestamp::ZERO);
        engine.flush_replies(Timestamp::ZERO);
        assert!(other_wire.got.borrow().ends_with(&[0x8a, 0]));
        engine.flush_deliveries(100, Timestamp::ZERO);
        engine.reap(Timestamp::ZERO);
    }
    for (_, wire) in &subscribers {
        assert_eq!(texts(wire), expected);
    }
    assert!(engine.transport_mut(publisher).is_none(), "it is gone");
}

#[test]
fn time_is_held_against_nobody_whose_bytes_wait() {
    let mut engine = engine();
    let timeouts = Timeouts::default();
    let (_, alive) = connect(&mut engine);
    let (dead, _) = connect(&mut engine);
    let ping_due = Timestamp::ZERO + timeouts.ping_interval;
    engine.handle_timers(ping_due);
    engine.flush_deliveries(2, ping_due);
    assert_eq!(alive.got.take(), [0x89, 0]);
    // Both come before any event: the Pong, a Ping of its own, and the end of its time.
    let sent = [control_frame(0xa), control_frame(0x9)].concat();
    alive.sent.borrow_mut().extend(sent);
    let pong_due = ping_due + timeouts.pong;
    engine.handle_timers(pong_due);
    engine.reap(pong_due);
    assert_eq!(alive.got.take(), [0x8a, 0]);
    assert_eq!(engine.connections_len(), 1);
    assert!(engine.transport_mut(dead).is_none());
}

#[test]
fn the_rest_of_a_message_may_wait_behind_more_than_one_read() {
    let mut engine = engine();
    let (id, wire) = connect(&mut engine);
    let first = [0x01, 0x81, 0, 0, 0, 0, b'a'];
    send(&mut engine, id, &wire, &first, Timestamp::ZERO);
    let pings = 2 * BRIEF_READ_BYTES / PING.len();
    let rest = [&PING.repeat(pings)[..], &[0x80, 0x81, 0, 0, 0, 0, b'b']].concat();
    wire.sent.borrow_mut().extend(rest);
    engine.handle_timers(Timestamp::ZERO + Timeouts::default().message);
    assert_eq!(engine.metrics().protocol_errors, 0);
    assert!(wire.sent.borrow().is_empty());
}

#[test]
fn the_lag_of_the_loop_is_by_how_much_timers_are_late() {
    let mut engine = engine();
    let (id, wire) = connect(&mut engine);
    let timeouts = Timeouts::default();
    let due = Timestamp::ZERO + timeouts.ping_interval;
    engine.handle_timers(Timestamp::ZERO);
    let lag = |engine: &TestEngine| engine.metrics().loop_lag_micros;
    let count = |engine: &TestEngine| lag(engine).buckets().map(|(_, of)| of).sum::<u64>();
    assert_eq!(count(&engine), 0, "nothing was due");
    // On time, though the handshake that it was set for is done.
    engine.handle_timers(Timestamp::ZERO + timeouts.handshake);
    engine.handle_timers(due + Duration::from_micros(700));
    assert_eq!((count(&engine), lag(&engine).sum()), (2, 700));
    // And the way to the peer and back.
    let pinged = due + Duration::from_micros(900);
    engine.flush_deliveries(1, pinged);
    wire.sent.borrow_mut().extend(control_frame(0xa));
    engine.handle_ready(id, READABLE, pinged + Duration::from_micros(300));
    assert_eq!(engine.metrics().ping_round_trip_micros.sum(), 300);
}

#[test]
fn a_connection_that_never_came_to_life_is_counted_as_dropped() {
    let mut engine = engine();
    let (id, _) = accept(&mut engine, Timestamp::ZERO);
    for _ in 0..2 {
        engine.discard(id);
        let metrics = engine.metrics();
        let counts = (metrics.connections_accepted, metrics.connections_dropped);
        assert_eq!((counts, engine.connections_len()), ((1, 1), 0));
    }
}

/// Answers every message, and every request, with so many bytes.
struct Talkative(usize);

impl Application for Talkative {
    fn handle_upgrade(&mut self, _: ConnectionId, _: &Request<'_>) -> Result<Admission, Refused> {
        Ok(ADMISSION)
    }

    fn handle_request(
        &mut self,
        _: ConnectionId,
        _: &Request<'_>,
        _: Framing,
        _: &dyn Figures,
    ) -> Decision {
        Decision {
            action: Action::Respond(Response::new(Status::OK, "a".repeat(self.0 - 1))),
            is_limited: true,
        }
    }

    fn handle_message(&mut self, id: ConnectionId, _: Message<'_>, outbox: &mut dyn Outbox) {
        outbox.reply(id, &"a".repeat(self.0));
    }

    fn handle_gone(&mut self, _: ConnectionId) {}

    fn close_reason(&self, _: CloseCause, _: u64) -> String {
        String::new()
    }
}

#[test]
fn a_turn_ends_when_its_answers_are_long() {
    const ANSWER_BYTES: usize = 3000;
    let mut engine = Engine::new(
        Talkative(ANSWER_BYTES),
        Stopped,
        ServerLimits::default(),
        Timeouts::default(),
        1,
    );
    let upgrade = [UPGRADE.as_bytes(), &EMPTY_TEXT.repeat(20)].concat();
    for stream in [upgrade, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(20)] {
        let (id, wire) = accept(&mut engine, Timestamp::ZERO);
        wire.sent.borrow_mut().extend(stream);
        engine.handle_ready(id, READABLE, Timestamp::ZERO);
        let mut turns = 0;
        loop {
            engine.flush_replies(Timestamp::ZERO);
            assert!(wire.got.take().len() < ANSWER_BYTES_MAX + 2 * ANSWER_BYTES);
            if !engine.has_ready() {
                break;
            }
            turns += 1;
            engine.read_again(Timestamp::ZERO);
        }
        assert!((3..6).contains(&turns), "{turns}");
    }
}

#[test]
fn a_turn_ends_after_so_many_frames_whatever_they_are() {
    let fragments = [0x01, 0x81, 0, 0, 0, 0, b'a'];
    let fragment = [0x00, 0x80, 0, 0, 0, 0];
    for (first, frame) in [
        (&[][..], &PING[..]),
        (&fragments[..], &fragment[..]),
        (&[][..], &EMPTY_TEXT[..]),
    ] {
        let mut engine = engine();
        let connections: Vec<_> = (0..2).map(|_| connect(&mut engine)).collect();
        let frames = 3 * FRAMES_A_TURN_MAX;
        for (_, wire) in &connections {
            wire.sent.borrow_mut().extend_from_slice(first);
            wire.sent.borrow_mut().extend(frame.repeat(frames));
            wire.sent.borrow_mut().extend(PING);
        }
        for &(id, _) in &connections {
            engine.handle_ready(id, READABLE, Timestamp::ZERO);
        }
        for turn in 1..=4 {
            engine.flush_replies(Timestamp::ZERO);
            for (_, wire) in &connections {
                let has_ended = wire.got.borrow().ends_with(&[0x8a, 0]);
                let answered = wire.got.borrow().len() / 2;
                if frame == PING {
                    assert_eq!(answered, (turn * FRAMES_A_TURN_MAX).min(frames + 1));
                } else {
                    assert_eq!(has_ended, turn == 4, "{frame:?}");
                }
            }
            assert_eq!(engine.has_ready(), turn < 4);
            engine.read_again(Timestamp::ZERO);
        }
    }
}

#[test]
fn a_request_is_answered_when_new_publishers_have_had_their_turn() {
    let mut engine = Engine::new(
        Talkative(100),
        Stopped,
        ServerLimits::default(),
        Timeouts::default(),
        1,
    );
    let (asker, asker_wire) = accept(&mut engine, Timestamp::ZERO);
    let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    asker_wire.sent.borrow_mut().extend(request);
    engine.handle_ready(asker, READABLE, Timestamp::ZERO);
    engine.flush_replies(Timestamp::ZERO);
    assert!(asker_wire.got.borrow().is_empty());
    let (publisher, publisher_wire) = accept(&mut engine, Timestamp::ZERO);
    publisher_wire
        .sent
        .borrow_mut()
        .extend_from_slice(UPGRADE.as_bytes());
    engine.handle_ready(publisher, READABLE, Timestamp::ZERO);
    engine.flush_replies(Timestamp::ZERO);
    assert!(publisher_wire.got.borrow().starts_with(b"HTTP/1.1 101 "));
    assert!(asker_wire.got.borrow().is_empty());
    engine.read_again(Timestamp::ZERO);
    engine.flush_replies(Timestamp::ZERO);
    assert!(asker_wire.got.borrow().starts_with(b"HTTP/1.1 200 "));
    assert!(!engine.has_ready());
}

#[test]
fn input_is_taken_in_for_a_while_and_publishers_come_first() {
    let clock = Rc::new(Cell::new(0));
    let mut engine = Engine::new(
        ToAllOthers::default(),
        Ticking(Rc::clone(&clock)),
        ServerLimits::default(),
        Timeouts::default(),
        1,
    );
    let connect = |engine: &mut Engine<_, _, _>, lane| {
        let wire = Rc::new(Wire::default());
        let address = PeerAddress::Ip(([127, 0, 0, 1], 1).into());
        let peer = Peer { address, lane };
        let id = engine.insert(WireEnd(Rc::clone(&wire)), peer, Timestamp::ZERO);
        wire.sent.borrow_mut().extend_from_slice(UPGRADE.as_bytes());
        engine.begin_turn(engine.now());
        engine.handle_ready(id, READABLE, Timestamp::ZERO);
        wire.sent.borrow_mut().extend(PING);
        engine.handle_ready(id, READABLE, Timestamp::ZERO);
        engine.flush_replies(Timestamp::ZERO);
        assert!(wire.got.take().ends_with(&[0x8a, 0]));
        (id, wire)
    };
    let crowd: Vec<_> = (0..10_000)
        .map(|_| connect(&mut engine, Lane::Clients))
        .collect();
    let (publisher, publisher_wire) = connect(&mut engine, Lane::Publishers);
    let newcomer = accept(&mut engine, Timestamp::ZERO);
    let answered = |crowd: &[(ConnectionId, Rc<Wire>)]| {
        crowd
            .iter()
            .filter(|(_, wire)| !wire.got.borrow().is_empty())
            .count()
    };
    for (_, wire) in &crowd {
        wire.sent.borrow_mut().extend(PING);
    }
    publisher_wire.sent.borrow_mut().extend(PING);
    engine.begin_turn(engine.now());
    let began = clock.get();
    for (id, _) in &crowd {
        engine.handle_ready(*id, READABLE, Timestamp::ZERO);
    }
    engine.handle_ready(publisher, READABLE, Timestamp::ZERO);
    newcomer
        .1
        .sent
        .borrow_mut()
        .extend_from_slice(UPGRADE.as_bytes());
    engine.handle_ready(newcomer.0, READABLE, Timestamp::ZERO);
    engine.flush_replies(Timestamp::ZERO);
    let first = answered(&crowd);
    assert!(first > 0 && first < crowd.len(), "{first}");
    // It took no longer than noting events takes.
    let noted = crowd.len() as u64 + 100;
    assert!(clock.get() - began < INPUT_TIME_MAX.as_micros() as u64 + noted);
    engine.begin_turn(engine.now());
    engine.read_again(Timestamp::ZERO);
    engine.flush_replies(Timestamp::ZERO);
    assert_eq!(*publisher_wire.got.borrow(), [0x8a, 0]);
    assert!(newcomer.1.got.borrow().starts_with(b"HTTP/1.1 101 "));
    let second = answered(&crowd);
    assert!(
        second > first && second < crowd.len(),
        "they have a share too"
    );
    // And all of them have their turn in the end, each once.
    while engine.has_ready() {
        engine.begin_turn(engine.now());
        engine.read_again(Timestamp::ZERO);
        engine.flush_replies(Timestamp::ZERO);
    }
    assert!(
        crowd
            .iter()
            .all(|(_, wire)| *wire.got.borrow() == [0x8a, 0])
    );
}

#[test]
fn what_is_due_is_handled_for_a_while() {
    const CONNECTIONS: usize = 2000;
    let mut engine = Engine::new(
        ToAllOthers::default(),
        Ticking(Rc::default()),
        ServerLimits::default(),
        Timeouts::default(),
        1,
    );
    for _ in 0..CONNECTIONS {
        accept(&mut engine, Timestamp::ZERO);
    }
    let late = Timestamp::from_micros(20_000_000);
    let mut turns = 0;
    while engine.next_deadline().is_some_and(|due| due <= late) {
        turns += 1;
        engine.handle_timers(late);
        let expired = engine.metrics().handshakes_expired;
        assert!(expired <= 1000 * turns, "{expired} in {turns} turns");
    }
    assert_eq!(engine.metrics().handshakes_expired, CONNECTIONS as u64);
}

#[test]
fn what_a_half_closed_peer_is_owed_goes_out() {
    let mut engine = Engine::new(
        Talkative(20_000),
        Stopped,
        ServerLimits::default(),
        Timeouts::default(),
        1,
    );
    let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let upgraded = [UPGRADE.as_bytes(), &EMPTY_TEXT].concat();
    for (stream, answer_bytes) in [(request.repeat(5), 5 * 20_000), (upgraded, 20_000)] {
        let (id, wire) = accept(&mut engine, Timestamp::ZERO);
        wire.room.set(1000);
        wire.sent.borrow_mut().extend(stream);
        wire.has_ended.set(true);
        let ending = Readiness {
            is_ending: true,
            ..READABLE
        };
        engine.handle_ready(id, ending, Timestamp::ZERO);
        for _ in 0..20 {
            engine.flush_replies(Timestamp::ZERO);
            engine.read_again(Timestamp::ZERO);
            engine.reap(Timestamp::ZERO);
        }
        assert!(!engine.has_ready());
        assert_eq!(wire.got.borrow().len(), 1000);
        assert!(engine.transport_mut(id).is_some());
        wire.room.set(usize::MAX);
        let writable = Readiness {
            is_writable: true,
            ..Readiness::default()
        };
        engine.handle_ready(id, writable, Timestamp::ZERO);
        engine.flush_deliveries(1, Timestamp::ZERO);
        engine.reap(Timestamp::ZERO);
        assert!(wire.got.borrow().len() > answer_bytes);
        assert!(engine.transport_mut(id).is_none());
    }
    // One that takes nothing isn't waited for longer than for a Close.
    let (id, wire) = accept(&mut engine, Timestamp::ZERO);
    wire.room.set(1000);
    wire.sent.borrow_mut().extend(request);
    wire.has_ended.set(true);
    let ending = Readiness {
        is_ending: true,
        ..READABLE
    };
    engine.handle_ready(id, ending, Timestamp::ZERO);
    (0..3).for_each(|_| engine.read_again(Timestamp::ZERO));
    engine.flush_replies(Timestamp::ZERO);
    engine.reap(Timestamp::ZERO);
    assert!(engine.transport_mut(id).is_some());
    engine.handle_timers(Timestamp::ZERO + Timeouts::default().close);
    engine.reap(Timestamp::ZERO);
    assert!(engine.transport_mut(id).is_none());
}

#[test]
fn the_oldest_handshakes_make_room_for_new_clients() {
    let limits = ServerLimits {
        connections_max: 2,
        ..ServerLimits::default()
    };
    let mut engine = engine_with(limits, Timeouts::default());
    let open = [connect(&mut engine), connect(&mut engine)];
    let mut waiting = Vec::new();
    while engine.has_room(Lane::Clients) {
        let now = Timestamp::from_micros(waiting.len() as u64 / 10);
        engine.make_room(Lane::Clients, now);
        waiting.push(accept(&mut engine, now));
    }
    assert_eq!(
        waiting.len(),
        SPARE_CONNECTIONS,
        "nobody goes while there is room"
    );
    let now = Timestamp::from_micros(10);
    engine.make_room(Lane::Clients, now);
    engine.reap(now);
    assert_eq!(engine.connections_len(), 2 + SPARE_CONNECTIONS / 2);
    assert!(
        open.iter()
            .all(|&(id, _)| engine.transport_mut(id).is_some())
    );
    for (number, (id, wire)) in waiting.iter().enumerate() {
        let is_displaced = number < SPARE_CONNECTIONS / 2;
        assert_eq!(
            engine.transport_mut(*id).is_none(),
            is_displaced,
            "{number}"
        );
        assert_eq!(wire.got.take().starts_with(b"HTTP/1.1 503 "), is_displaced);
    }
}
const PING: [u8; 6] = [0x89, 0x80, 0, 0, 0, 0];
const EMPTY_TEXT: [u8; 6] = [0x81, 0x80, 0, 0, 0, 0];

const fn seconds(seconds: u64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

/// An engine whose clients may send one frame a second; nobody is pinged for a day.
fn slow_engine() -> TestEngine {
    let limits = ServerLimits {
        messages_per_second: NonZeroU32::new(1),
        ..ServerLimits::default()
    };
    let timeouts = Timeouts {
        ping_interval: Duration::from_secs(86_400),
        ..Timeouts::default()
    };
    engine_with(limits, timeouts)
}

/// Turns until nothing is left to be read or handled.
fn read_all(engine: &mut TestEngine, now: Timestamp) {
    while engine.has_ready() {
        engine.read_again(now);
    }
    engine.flush_replies(now);
}

fn send(engine: &mut TestEngine, id: ConnectionId, wire: &Wire, bytes: &[u8], now: Timestamp) {
    wire.sent.borrow_mut().extend_from_slice(bytes);
    engine.handle_ready(id, READABLE, now);
    read_all(engine, now);
}

/// Does all that is due before or at `until`.
fn pass_time(engine: &mut TestEngine, until: Timestamp) {
    while let Some(now) = engine.next_deadline().filter(|deadline| *deadline <= until) {
        engine.handle_timers(now);
        read_all(engine, now);
        engine.flush_deliveries(usize::MAX, now);
        engine.reap(now);
        assert!(
            engine.next_deadline().is_none_or(|next| next > now),
            "it turns on the spot"
        );
    }
}

#[test]
fn a_flood_is_read_buffer_by_buffer_at_the_rate_and_answered_whole() {
    let mut engine = slow_engine();
    let (id, wire) = connect(&mut engine);
    let pings = 4 * BRIEF_READ_BYTES / PING.len();
    wire.sent
        .borrow_mut()
        .extend_from_slice(&PING.repeat(pings));
    // The first read is that of a connection that may be a publisher's.
    let mut engine_turns = 0;
    engine.handle_ready(id, READABLE, Timestamp::ZERO);
    read_all(&mut engine, Timestamp::ZERO);
    while wire.got.borrow().len() / 2 < pings {
        engine_turns += 1;
        let answered = wire.got.borrow().len() / 2;
        assert!(!engine.has_ready(), "nothing to be done now");
        // The edge may come again; it doesn't help.
        let (before, due) = (
            Timestamp::from_micros(5_000_000 * engine_turns - 1),
            seconds(5 * engine_turns),
        );
        engine.handle_ready(id, READABLE, before);
        assert_eq!(wire.got.borrow().len() / 2, answered);
        // No debt is larger than five seconds, or its Close would not be seen for hours.
        pass_time(&mut engine, before);
        assert_eq!(wire.got.borrow().len() / 2, answered);
        pass_time(&mut engine, due);
        assert!(wire.got.borrow().len() / 2 > answered);
    }
    assert_eq!(wire.got.borrow().len() / 2, pings);
    assert!(engine.transport_mut(id).is_some());
}

#[test]
fn silence_that_is_our_own_is_not_held_against_a_peer() {
    let limits = ServerLimits {
        messages_per_second: NonZeroU32::new(1),
        ..ServerLimits::default()
    };
    let timeouts = Timeouts {
        ping_interval: Duration::from_secs(3),
        pong: Duration::from_secs(2),
        ..Timeouts::default()
    };
    let mut engine = engine_with(limits, timeouts);
    let (id, wire) = connect(&mut engine);
    send(&mut engine, id, &wire, &PING.repeat(1002), Timestamp::ZERO);
    send(&mut engine, id, &wire, &PING, seconds(1));
    assert_eq!(wire.got.take().len(), 2 * 1002);
    pass_time(&mut engine, Timestamp::from_micros(4_999_999));
    assert_eq!(wire.got.borrow().len(), 0, "not even a Ping");
    pass_time(&mut engine, seconds(5));
    assert_eq!(*wire.got.borrow(), [0x8a, 0]);
    // Its own silence is: a Ping after 3 s behind a pause of one, the end after 2 more.
    pass_time(&mut engine, seconds(9));
    assert_eq!(*wire.got.borrow(), [0x8a, 0, 0x89, 0]);
    pass_time(&mut engine, seconds(11));
    assert!(engine.transport_mut(id).is_none());
}

#[test]
fn a_pause_does_not_use_up_the_time_of_a_message_and_does_not_renew_it() {
    let mut engine = slow_engine();
    let (id, wire) = connect(&mut engine);
    // 50 s go by in which the message could go on, then 5 in which it could not.
    send(
        &mut engine,
        id,
        &wire,
        &[0x01, 0x80, 0, 0, 0, 0],
        seconds(0),
    );
    pass_time(&mut engine, seconds(50));
    send(&mut engine, id, &wire, &PING.repeat(102), seconds(50));
    assert_eq!(wire.got.take().len(), 2 * 102);
    pass_time(&mut engine, seconds(64));
    assert!(wire.got.borrow().is_empty());
    pass_time(&mut engine, seconds(65));
    assert!(
        wire.got.borrow().ends_with(&[0x03, 0xf0]),
        "closed with 1008"
    );
}

#[test]
fn a_connection_that_is_closed_while_it_is_not_read_is_read_to_its_close() {
    let mut engine = slow_engine();
    let (id, wire) = connect(&mut engine);
    send(&mut engine, id, &wire, &PING.repeat(100), Timestamp::ZERO);
    let rest = [&PING.repeat(100)[..], &[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9]].concat();
    send(&mut engine, id, &wire, &rest, Timestamp::ZERO);
    assert!(!engine.has_ready());
    engine.shut_down(Duration::from_secs(5), Timestamp::ZERO);
    engine.flush_deliveries(1, Timestamp::ZERO);
    assert!(engine.has_ready());
    read_all(&mut engine, Timestamp::ZERO);
    engine.reap(Timestamp::ZERO);
    assert!(engine.transport_mut(id).is_none(), "both Closes were seen");
}

#[test]
fn a_client_that_hangs_up_while_it_is_not_read_is_let_go() {
    for has_ended_before in [false, true] {
        let mut engine = slow_engine();
        let (id, wire) = connect(&mut engine);
        let ending = Readiness {
            is_ending: true,
            ..READABLE
        };
        let pings = 2 * READ_BYTES_MAX / PING.len();
        wire.sent
            .borrow_mut()
            .extend_from_slice(&PING.repeat(pings));
        if !has_ended_before {
            engine.handle_ready(id, READABLE, Timestamp::ZERO);
        }
        wire.has_ended.set(true);
        engine.handle_ready(id, ending, Timestamp::ZERO);
        read_all(&mut engine, Timestamp::ZERO);
        engine.reap(Timestamp::ZERO);
        assert!(engine.transport_mut(id).is_none());
        let answered = wire.got.borrow().len() / 2;
        assert!(
            (BRIEF_READ_BYTES / 6..2 * READ_BYTES_MAX / 6).contains(&answered),
            "{answered}: what was read is answered"
        );
    }
}

#[test]
fn a_client_that_is_not_read_gets_what_others_send_at_once() {
    let mut engine = slow_engine();
    let (id, wire) = connect(&mut engine);
    let (other, other_wire) = connect(&mut engine);
    send(&mut engine, id, &wire, &PING.repeat(100), Timestamp::ZERO);
    wire.got.take();
    send(
        &mut engine,
        other,
        &other_wire,
        &[0x81, 0x81, 0, 0, 0, 0, b'x'],
        Timestamp::ZERO,
    );
    engine.flush_deliveries(1, Timestamp::ZERO);
    assert_eq!(texts(&wire), ["x"]);
}

#[test]
fn the_applications_deadline_is_held_against_nobody_whose_bytes_wait() {
    let mut engine = engine();
    let due = seconds(1);
    let mut grown = Vec::new();
    for _ in 0..2 {
        let (id, wire) = connect(&mut engine);
        let (connection, context) = engine.shell.entry(id).expect("connected");
        connection.deadline = Some(due);
        connection.settle(context);
        grown.push((id, wire));
    }
    // It comes before any event.
    let key = MaskingKey([1, 2, 3, 4]);
    encode_masked_frame(&mut grown[0].1.sent.borrow_mut(), Opcode::Text, RENEW, key);
    engine.handle_timers(due);
    let is_open = |(id, _): &(ConnectionId, Rc<Wire>)| {
        let connection = engine.shell.connections.get(*id);
        connection.is_some_and(|connection| connection.protocol.is_open())
    };
    assert_eq!([is_open(&grown[0]), is_open(&grown[1])], [true, false]);
}

/// Hands every message back as a delivery, and answers it.
struct ToItself;

impl Application for ToItself {
    fn handle_upgrade(&mut self, _: ConnectionId, _: &Request<'_>) -> Result<Admission, Refused> {
        Ok(Admission {
            is_limited: false,
            ..ADMISSION
        })
    }

    fn handle_request(
        &mut self,
        _: ConnectionId,
        _: &Request<'_>,
        _: Framing,
        _: &dyn Figures,
    ) -> Decision {
        unreachable!("everybody asks for an upgrade")
    }

    fn handle_message(&mut self, id: ConnectionId, _: Message<'_>, outbox: &mut dyn Outbox) {
        outbox.reply(id, "before");
        let delivered = outbox.deliver(&EncodedFrame::text(&[&[b'a'; 100]]), &[id]);
        assert_eq!(delivered.dropped, 1);
        outbox.reply(id, "behind");
    }

    fn handle_gone(&mut self, _: ConnectionId) {}

    fn close_reason(&self, _: CloseCause, _: u64) -> String {
        String::new()
    }
}

#[test]
fn a_client_that_is_about_to_be_cut_off_gets_no_answer_behind_the_gap() {
    let limits = ServerLimits {
        send_queue_bytes_max: 50,
        ..ServerLimits::default()
    };
    let mut engine = Engine::new(ToItself, Stopped, limits, Timeouts::default(), 1);
    let wire = Rc::new(Wire::default());
    let peer = Peer {
        address: PeerAddress::Ip(([127, 0, 0, 1], 1).into()),
        lane: Lane::Clients,
    };
    let id = engine.insert(WireEnd(Rc::clone(&wire)), peer, Timestamp::ZERO);
    wire.sent.borrow_mut().extend_from_slice(UPGRADE.as_bytes());
    engine.handle_ready(id, READABLE, Timestamp::ZERO);
    engine.flush_replies(Timestamp::ZERO);
    wire.got.take();
    // Of the answer before the gap, three bytes go out: what shares its piece of memory stays.
    wire.room.set(3);
    let message = [0x81, 0x81, 0, 0, 0, 0, b'x'];
    wire.sent.borrow_mut().extend_from_slice(&message);
    engine.handle_ready(id, READABLE, Timestamp::ZERO);
    wire.room.set(usize::MAX);
    let writable = Readiness {
        is_writable: true,
        ..Readiness::default()
    };
    engine.handle_ready(id, writable, Timestamp::ZERO);
    engine.flush_deliveries(1, Timestamp::ZERO);
    let got = wire.got.take();
    assert_eq!(got, b"\x81\x06before\x88\x02\x03\xf5", "{got:?}");
}

/// Answers what is posted, and what is sent to it, when the test says so.
#[derive(Default)]
struct Later {
    awaiting: Vec<ConnectionId>,
    drained: Vec<ConnectionId>,
}

impl Application for Later {
    fn handle_upgrade(&mut self, _: ConnectionId, _: &Request<'_>) -> Result<Admission, Refused> {
        Ok(ADMISSION)
    }

    fn is_urgent(&self, _: &Request<'_>) -> bool {
        true
    }

    fn handle_request(
        &mut self,
        id: ConnectionId,
        request: &Request<'_>,
        _: Framing,
        _: &dyn Figures,
    ) -> Decision {
        let action = if request.head.method == "POST" {
            Action::ReadBody(BodyPermit {
                bytes_max: 100,
                body_use: BodyUse::default(),
            })
        } else {
            self.awaiting.push(id);
            Action::Later
        };
        Decision {
            action,
            is_limited: true,
        }
    }

    fn handle_body(
        &mut self,
        id: ConnectionId,
        _: &[u8],
        _: BodyUse,
        _: &mut dyn Outbox,
    ) -> Answer {
        self.awaiting.push(id);
        Answer::Later
    }

    fn handle_message(&mut self, id: ConnectionId, _: Message<'_>, outbox: &mut dyn Outbox) {
        self.awaiting.push(id);
        outbox.await_drained(id);
    }

    fn handle_drained(&mut self, id: ConnectionId, outbox: &mut dyn Outbox) {
        self.drained.push(id);
        outbox.reply(id, "drained");
    }

    fn handle_gone(&mut self, _: ConnectionId) {}

    fn close_reason(&self, _: CloseCause, _: u64) -> String {
        String::new()
    }
}

/// Brings nothing.
struct Idle;

impl<T, A, C> Driver<T, A, C> for Idle {
    fn take_events(&mut self, _: &mut Engine<T, A, C>, _: Timestamp) -> io::Result<bool> {
        Ok(false)
    }

    fn has_waiting(&self, _: Lane, _: Timestamp) -> bool {
        false
    }
}

fn later_engine() -> Engine<WireEnd, Later, Stopped> {
    later_engine_with(ServerLimits::default())
}

fn later_engine_with(limits: ServerLimits) -> Engine<WireEnd, Later, Stopped> {
    Engine::new(Later::default(), Stopped, limits, Timeouts::default(), 1)
}

#[test]
fn a_publisher_may_be_answered_in_a_later_iteration() {
    let now = Timestamp::ZERO;
    let post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n1";
    let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for request in [&post[..], get] {
        let mut engine = later_engine();
        let (id, wire) = accept(&mut engine, now);
        wire.sent.borrow_mut().extend(request.repeat(2));
        engine.handle_ready(id, READABLE, now);
        for answered in 0..2 {
            engine.flush_replies(now);
            engine.read_again(now);
            assert!(wire.got.borrow().is_empty() && !engine.has_ready());
            engine.check_invariants();
            let awaiting = mem::take(&mut engine.application.awaiting);
            assert_eq!(awaiting, [id], "the next waits for the answer to the last");
            engine.act(now, |_, outbox| {
                // Only once, and nobody else.
                for to in [ConnectionId { serial: 99, ..id }, id, id] {
                    outbox.respond(to, &Response::new(Status::OK, "later"));
                }
            });
            engine.flush_replies(now);
            engine.read_again(now);
            let got = wire.got.take();
            assert!(got.starts_with(b"HTTP/1.1 200 OK\r\n") && got.ends_with(b"later\n"));
            let places = &engine.shell.context.places;
            let expected = u64::from(request == post);
            assert_eq!(places.count(Kind::Http), expected, "{answered}");
        }
        engine.check_invariants();
    }
}

#[test]
fn deliveries_and_closes_need_no_message() {
    let mut engine = engine();
    let now = Timestamp::ZERO;
    let (first, first_wire) = connect(&mut engine);
    let (second, second_wire) = connect(&mut engine);
    engine.act(now, |_, outbox| {
        let frame = EncodedFrame::text(&[b"tick"]);
        assert_eq!(outbox.deliver(&frame, &[first, second]).queued, 2);
        outbox.close(second, CloseCode::NORMAL, "");
        // It takes nothing behind its Close.
        assert_eq!(outbox.deliver(&frame, &[second]).queued, 0);
    });
    assert_eq!(engine.application.0, [first], "the application was told");
    engine.flush_replies(now);
    while engine.has_deliveries() {
        engine.flush_deliveries(8, now);
    }
    engine.check_invariants();
    assert_eq!(texts(&first_wire), ["tick"]);
    assert_eq!(*second_wire.got.borrow(), b"\x81\x04tick\x88\x02\x03\xe8");
}

#[test]
fn the_application_is_told_once_that_a_queue_has_drained() {
    let mut engine = later_engine();
    let now = Timestamp::ZERO;
    let (id, wire) = accept(&mut engine, now);
    wire.sent.borrow_mut().extend(UPGRADE.as_bytes());
    engine.handle_ready(id, READABLE, now);
    engine.flush_replies(now);
    wire.got.take();
    wire.room.set(3);
    engine.act(now, |_, outbox| outbox.reply(id, "a long answer"));
    say(&wire, "tell me");
    engine.handle_ready(id, READABLE, now);
    let turn = |engine: &mut Engine<_, Later, _>| {
        engine.run_iteration(&mut Idle).expect("nothing fails");
        assert!(!engine.has_work(), "the poll may wait");
        engine.check_invariants();
        engine.application.drained.len()
    };
    assert_eq!(turn(&mut engine), 0, "it waits for room");
    wire.room.set(usize::MAX);
    let writable = Readiness {
        is_writable: true,
        ..Readiness::default()
    };
    engine.handle_ready(id, writable, now);
    assert_eq!(turn(&mut engine), 1);
    assert_eq!(turn(&mut engine), 1);
    assert_eq!(texts(&wire), ["a long answer", "drained"]);
}

#[test]
fn a_client_that_is_throttled_and_has_hung_up_waits_for_its_answer_in_peace() {
    let mut engine = later_engine_with(ServerLimits {
        messages_per_second: NonZeroU32::new(1),
        ..ServerLimits::default()
    });
    let now = Timestamp::ZERO;
    let (id, wire) = accept(&mut engine, now);
    let ok = Response::new(Status::OK, "later");
    for _ in 0..3 {
        let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        wire.sent.borrow_mut().extend(get);
        engine.handle_ready(id, READABLE, now);
        if mem::take(&mut engine.application.awaiting).len() == 1 && !wire.has_ended.get() {
            let (connection, _) = engine.shell.entry(id).expect("it is there");
            if connection.throttled_until().is_none() {
                engine.act(now, |_, outbox| outbox.respond(id, &ok));
                engine.flush_replies(now);
                wire.got.take();
            }
        }
    }
    let (connection, _) = engine.shell.entry(id).expect("it is there");
    assert!(connection.throttled_until().is_some() && connection.is_answer_due());
    wire.has_ended.set(true);
    let ending = Readiness {
        is_ending: true,
        ..READABLE
    };
    engine.handle_ready(id, ending, now);
    for _ in 0..3 {
        engine.run_iteration(&mut Idle).expect("nothing fails");
    }
    assert!(!engine.has_work());
    engine.check_invariants();
    engine.act(now, |_, outbox| outbox.respond(id, &ok));
    engine.run_iteration(&mut Idle).expect("nothing fails");
    assert!(wire.got.borrow().ends_with(b"later\n"));
    assert!(engine.transport_mut(id).is_none(), "its end had come");
}

#[test]
fn publishers_that_wait_for_their_answers_have_places() {
    let mut engine = later_engine_with(ServerLimits {
        connections_max: 1,
        ..ServerLimits::default()
    });
    let now = Timestamp::ZERO;
    let post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n1";
    let post_on = |engine: &mut Engine<_, Later, _>| {
        let (id, wire) = accept(engine, now);
        wire.sent.borrow_mut().extend(post);
        engine.handle_ready(id, READABLE, now);
        engine.flush_replies(now);
        (id, wire)
    };
    let (first, _) = post_on(&mut engine);
    let (_, wire) = post_on(&mut engine);
    assert!(
        wire.got.borrow().starts_with(b"HTTP/1.1 503 "),
        "it is full"
    );
    // A bad one doesn't keep its place.
    let bad = Response::new(Status::BAD_REQUEST, "bad");
    engine.act(now, |_, outbox| outbox.respond(first, &bad));
    engine.flush_replies(now);
    engine.check_invariants();
    let (third, _) = post_on(&mut engine);
    assert!(engine.application.awaiting.contains(&third));
}

#[test]
fn what_a_transport_holds_is_sent_before_its_side_is_shut() {
    let mut engine = engine();
    let now = Timestamp::ZERO;
    let (id, wire) = accept(&mut engine, now);
    wire.is_held.set(true);
    wire.room.set(0);
    // The peer closes in the same breath: all is said, and none of it sent.
    let close = control_frame(0x8);
    let sent = [UPGRADE.as_bytes(), &PING, &close].concat();
    wire.sent.borrow_mut().extend(sent);
    engine.handle_ready(id, READABLE, now);
    engine.run_iteration(&mut Idle).expect("nothing fails");
    assert!(wire.got.borrow().is_empty() && !wire.is_shut.get());
    wire.room.set(usize::MAX);
    let writable = Readiness {
        is_writable: true,
        ..Readiness::default()
    };
    engine.handle_ready(id, writable, now);
    engine.run_iteration(&mut Idle).expect("nothing fails");
    assert!(wire.got.borrow().ends_with(&[0x8a, 0, 0x88, 0]) && wire.is_shut.get());
    engine.check_invariants();
    // Bytes of its own, which a read has caused.
    let (id, wire) = connect(&mut engine);
    wire.is_held.set(true);
    wire.held.borrow_mut().extend(b"own");
    wire.sent.borrow_mut().extend(control_frame(0xa));
    engine.handle_ready(id, READABLE, now);
    engine.run_iteration(&mut Idle).expect("nothing fails");
    assert_eq!(*wire.got.borrow(), b"own");
}

#[test]
fn the_application_is_told_of_drained_queues_for_a_while() {
    const CONNECTIONS: usize = 3000;
    let (limits, timeouts) = (ServerLimits::default(), Timeouts::default());
    let clock = Ticking(Rc::default());
    let mut engine = Engine::new(Later::default(), clock, limits, timeouts, 1);
    let now = Timestamp::ZERO;
    for _ in 0..CONNECTIONS {
        let (id, wire) = accept(&mut engine, now);
        wire.sent.borrow_mut().extend(UPGRADE.as_bytes());
        engine.begin_turn(engine.now());
        engine.handle_ready(id, READABLE, now);
        engine.flush_replies(now);
        engine.act(now, |_, outbox| outbox.await_drained(id));
    }
    while engine.has_deliveries() {
        engine.flush_deliveries(100, now);
    }
    let mut turns = 0;
    while engine.application.drained.len() < CONNECTIONS {
        turns += 1;
        assert!(engine.has_work(), "the rest isn't forgotten");
        engine.handle_drained(now);
        let told = engine.application.drained.len();
        assert!(told <= 1000 * turns, "{told} in {turns} turns");
    }
    engine.check_invariants();
}

#[test]
fn input_that_is_taken_again_is_read_without_an_event() {
    let mut engine = engine();
    let (talker, wire) = connect(&mut engine);
    let (_, other) = connect(&mut engine);
    let now = Timestamp::ZERO;
    engine.act(now, |_, outbox| outbox.pause_input(talker));
    say(&wire, "it waits");
    engine.handle_ready(talker, READABLE, now);
    engine.read_again(now);
    engine.check_invariants();
    assert!(!engine.has_ready() && !engine.has_deliveries());
    engine.act(now, |_, outbox| outbox.resume_input(talker));
    engine.check_invariants();
    assert!(engine.has_ready());
    engine.read_again(now);
    engine.flush_deliveries(2, now);
    assert_eq!(texts(&other), ["it waits"]);
}

#[test]
fn what_a_paused_client_has_sent_is_discarded_when_it_is_closed() {
    let mut engine = engine();
    let (talker, wire) = connect(&mut engine);
    let now = Timestamp::ZERO;
    say(&wire, "1");
    say(&wire, "2");
    engine.act(now, |_, outbox| outbox.pause_input(talker));
    engine.handle_ready(talker, READABLE, now);
    assert!(!engine.has_ready());
    engine.act(now, |_, outbox| {
        outbox.close(talker, CloseCode::TRY_AGAIN_LATER, "")
    });
    engine.check_invariants();
    engine.read_again(now);
    engine.flush_replies(now);
    assert_eq!(engine.metrics().messages_discarded, 2);
}

#[test]
fn a_client_that_asks_while_a_long_frame_is_on_its_way_is_not_cut_off_for_that_frame() {
    let mut engine = engine_with(
        ServerLimits {
            send_queue_bytes_max: 100,
            ..ServerLimits::default()
        },
        Timeouts::default(),
    );
    let (client, wire) = connect(&mut engine);
    let now = Timestamp::ZERO;
    let frame = EncodedFrame::text(&[&[b'x'; 1000]]);
    wire.room.set(10);
    engine.act(now, |_, outbox| {
        outbox.deliver(&frame, &[client]);
    });
    engine.flush_deliveries(1, now);
    let reply = |engine: &mut TestEngine| {
        engine.act(now, |_, outbox| outbox.reply(client, &"a".repeat(40)));
        engine.metrics().slow_consumers
    };
    assert_eq!([0; 3].map(|_| reply(&mut engine)), [0, 0, 1]);
}
