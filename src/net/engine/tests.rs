//! The engine over transports that are memory, with an application that hands everything to
//! everybody else.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice, Read, Write};
use std::num::NonZeroU32;
use std::rc::Rc;
use std::time::Duration;

use super::*;
use crate::application::{Message, Outbox, PeerAddress};
use crate::net::shell::UNWRITTEN_MAX;
use crate::ws::close::CloseCode;
use crate::ws::frame::{EncodedFrame, Opcode, Role, decode_frame, encode_masked_frame};
use crate::ws::mask::MaskingKey;

/// A peer: what it has sent, what it got, and how much more its socket takes, which is
/// everything unless a test says otherwise.
struct Wire {
    sent: RefCell<Vec<u8>>,
    has_ended: Cell<bool>,
    got: RefCell<Vec<u8>>,
    room: Cell<usize>,
    writes: Cell<usize>,
}

impl Default for Wire {
    fn default() -> Self {
        Self {
            sent: RefCell::default(),
            has_ended: Cell::default(),
            got: RefCell::default(),
            room: Cell::new(usize::MAX),
            writes: Cell::new(0),
        }
    }
}

struct WireEnd(Rc<Wire>);

impl Read for WireEnd {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut sent = self.0.sent.borrow_mut();
        if sent.is_empty() && !self.0.has_ended.get() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let length = sent.len().min(buffer.len());
        buffer[..length].copy_from_slice(&sent[..length]);
        sent.drain(..length);
        Ok(length)
    }
}

impl Write for WireEnd {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.writes.set(self.0.writes.get() + 1);
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

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Transport for WireEnd {
    fn shutdown_write(&mut self) -> io::Result<()> {
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

/// What everybody is granted.
const ADMISSION: Admission = Admission {
    message_bytes_max: 1024,
    on_behalf_of: None,
    deadline: None,
    is_limited: true,
    is_heard_out: false,
    closes_last: false,
};

/// Hands over as many notifications as the number behind it says.
const MANY: &str = "many ";

/// What lifts a connection's deadline.
const RENEW: &[u8] = b"renew";

#[derive(Default)]
struct ToAllOthers(Vec<ConnectionId>);

impl Application for ToAllOthers {
    fn handle_upgrade(&mut self, id: ConnectionId, _: &Request<'_>) -> Result<Admission, Response> {
        self.0.push(id);
        Ok(ADMISSION)
    }

    fn handle_request(&mut self, _: &Request<'_>) -> Response {
        unreachable!("everybody asks for an upgrade")
    }

    fn handle_message(&mut self, id: ConnectionId, message: Message<'_>, outbox: &mut dyn Outbox) {
        let Message::Text(text) = message else {
            unreachable!("everybody sends text")
        };
        if text.as_bytes() == RENEW {
            return outbox.readmit(ADMISSION);
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

    fn handle_deadline(&mut self, _: ConnectionId, outbox: &mut dyn Outbox) {
        outbox.close(CloseCode::UNAUTHORIZED, "");
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
};

fn engine() -> TestEngine {
    engine_with(ServerLimits::default(), Timeouts::default())
}

fn engine_with(limits: ServerLimits, timeouts: Timeouts) -> TestEngine {
    Engine::new(ToAllOthers::default(), Stopped, limits, timeouts, 1)
}

/// A connection that has said nothing yet.
fn accept(engine: &mut TestEngine, now: Timestamp) -> (ConnectionId, Rc<Wire>) {
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
    assert!(engine.shell.unwritten < UNWRITTEN_MAX + SUBSCRIBERS);
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
fn who_has_room_again_is_not_cut_off_before_that_is_seen() {
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
    assert!(wire.sent.borrow().len() < READ_BUFFER_BYTES, "one read");
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
        assert!(engine.shell.unwritten < UNWRITTEN_MAX + SUBSCRIBERS + 1);
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
    let pings = 2 * READ_BUFFER_BYTES / PING.len();
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

#[test]
fn many_answers_are_written_at_once() {
    let mut engine = engine();
    let (pinger, wire) = connect(&mut engine);
    // As much as a turn reads.
    let pings = READ_BUFFER_BYTES / 6;
    let sent = control_frame(0x9).repeat(pings);
    wire.sent.borrow_mut().extend(sent);
    engine.handle_ready(pinger, READABLE, Timestamp::ZERO);
    let unsent = engine.shell.connections.get(pinger);
    let unsent_bytes = unsent.map(|connection| connection.session.queue().unsent_bytes());
    assert!(unsent_bytes <= Some(ANSWER_BYTES_MAX), "{unsent_bytes:?}");
    engine.flush_replies(Timestamp::ZERO);
    assert!(wire.got.take() == [0x8a, 0].repeat(pings));
}

#[test]
fn who_sends_more_than_a_buffer_waits_for_the_others() {
    let mut engine = engine();
    let connections: Vec<_> = (0..2).map(|_| connect(&mut engine)).collect();
    let pings = 3 * READ_BUFFER_BYTES / 6;
    for (_, wire) in &connections {
        wire.sent
            .borrow_mut()
            .extend(control_frame(0x9).repeat(pings));
    }
    for &(id, _) in &connections {
        engine.handle_ready(id, READABLE, Timestamp::ZERO);
    }
    for turn in 1..=4 {
        engine.flush_replies(Timestamp::ZERO);
        for (_, wire) in &connections {
            let answered = wire.got.borrow().len() / 2;
            assert_eq!(answered, (turn * READ_BUFFER_BYTES / 6).min(pings));
        }
        assert_eq!(engine.has_ready(), turn < 4);
        engine.read_again(Timestamp::ZERO);
    }
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

fn send(engine: &mut TestEngine, id: ConnectionId, wire: &Wire, bytes: &[u8], now: Timestamp) {
    wire.sent.borrow_mut().extend_from_slice(bytes);
    engine.handle_ready(id, READABLE, now);
    engine.flush_replies(now);
}

/// Does all that is due before or at `until`.
fn pass_time(engine: &mut TestEngine, until: Timestamp) {
    while let Some(now) = engine.next_deadline().filter(|deadline| *deadline <= until) {
        engine.handle_timers(now);
        engine.read_again(now);
        engine.flush_replies(now);
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
    let pings = 4 * READ_BUFFER_BYTES / PING.len();
    send(&mut engine, id, &wire, &PING.repeat(pings), Timestamp::ZERO);
    let buffer = READ_BUFFER_BYTES / PING.len();
    for turn in 1..=4 {
        assert_eq!(engine.metrics().reads_throttled, turn as u64);
        let answered = wire.got.borrow().len() / 2;
        assert!(
            (turn * buffer..=turn * (buffer + 1)).contains(&answered),
            "{answered}"
        );
        assert!(!engine.has_ready(), "nothing to be done now");
        // The edge may come again; it doesn't help.
        engine.handle_ready(id, READABLE, seconds(1));
        assert_eq!(wire.got.borrow().len() / 2, answered);
        // Two were free: the next turn comes when the others are paid for.
        let due = seconds(answered as u64 - 2);
        pass_time(&mut engine, Timestamp::from_micros(due.as_micros() - 1));
        assert_eq!(wire.got.borrow().len() / 2, answered);
        pass_time(&mut engine, due);
    }
    assert_eq!(wire.got.borrow().len() / 2, pings);
    assert_eq!(engine.metrics().reads_throttled, 4);
    assert!(engine.transport_mut(id).is_some());
}

#[test]
fn silence_that_is_our_own_is_not_held_against_a_peer() {
    let limits = ServerLimits {
        messages_per_second: NonZeroU32::new(1),
        ..ServerLimits::default()
    };
    let mut engine = engine_with(limits, Timeouts::default());
    let (id, wire) = connect(&mut engine);
    send(&mut engine, id, &wire, &PING.repeat(1002), Timestamp::ZERO);
    send(&mut engine, id, &wire, &PING, seconds(1));
    assert_eq!(wire.got.take().len(), 2 * 1002);
    pass_time(&mut engine, seconds(999));
    assert_eq!(wire.got.borrow().len(), 0, "not even a Ping");
    pass_time(&mut engine, seconds(1000));
    assert_eq!(*wire.got.borrow(), [0x8a, 0]);
    // Its own silence is: a Ping after 25 s, the end after 10 more.
    pass_time(&mut engine, seconds(1030));
    assert_eq!(*wire.got.borrow(), [0x8a, 0, 0x89, 0]);
    pass_time(&mut engine, seconds(1040));
    assert!(engine.transport_mut(id).is_none());
}

#[test]
fn a_pause_does_not_use_up_the_time_of_a_message_and_does_not_renew_it() {
    let mut engine = slow_engine();
    let (id, wire) = connect(&mut engine);
    // 50 s go by in which the message could go on, then 100 in which it could not.
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
    pass_time(&mut engine, seconds(159));
    assert!(wire.got.borrow().is_empty());
    pass_time(&mut engine, seconds(160));
    assert!(
        wire.got.borrow().ends_with(&[0x03, 0xf0]),
        "closed with 1008"
    );
}

#[test]
fn who_is_closed_while_it_is_not_read_is_read_to_its_close() {
    let mut engine = slow_engine();
    let (id, wire) = connect(&mut engine);
    send(&mut engine, id, &wire, &PING.repeat(100), Timestamp::ZERO);
    let rest = [&PING.repeat(100)[..], &[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9]].concat();
    send(&mut engine, id, &wire, &rest, Timestamp::ZERO);
    assert!(!engine.has_ready());
    engine.shut_down(Timestamp::ZERO);
    engine.flush_deliveries(1, Timestamp::ZERO);
    assert!(engine.has_ready());
    engine.read_again(Timestamp::ZERO);
    engine.reap(Timestamp::ZERO);
    assert!(engine.transport_mut(id).is_none(), "both Closes were seen");
}

#[test]
fn who_hangs_up_while_it_is_not_read_is_let_go() {
    for has_ended_before in [false, true] {
        let mut engine = slow_engine();
        let (id, wire) = connect(&mut engine);
        let ending = Readiness {
            is_ending: true,
            ..READABLE
        };
        let pings = 2 * READ_BUFFER_BYTES / PING.len();
        wire.sent
            .borrow_mut()
            .extend_from_slice(&PING.repeat(pings));
        if !has_ended_before {
            engine.handle_ready(id, READABLE, Timestamp::ZERO);
        }
        wire.has_ended.set(true);
        engine.handle_ready(id, ending, Timestamp::ZERO);
        engine.reap(Timestamp::ZERO);
        assert!(engine.transport_mut(id).is_none());
        let answered = wire.got.borrow().len() / 2;
        assert!(
            (10_000..11_000).contains(&answered),
            "{answered}: what was read is answered"
        );
    }
}

#[test]
fn who_is_not_read_gets_what_others_send_at_once() {
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
        let connection = engine.shell.connections.get_mut(id).expect("connected");
        connection.deadline = Some(due);
        engine.settle(id);
        grown.push((id, wire));
    }
    // It comes before any event.
    let key = MaskingKey([1, 2, 3, 4]);
    encode_masked_frame(&mut grown[0].1.sent.borrow_mut(), Opcode::Text, RENEW, key);
    engine.handle_timers(due);
    let is_open = |(id, _): &(ConnectionId, Rc<Wire>)| {
        let connection = engine.shell.connections.get(*id);
        connection.is_some_and(|connection| connection.session.is_open())
    };
    assert_eq!([is_open(&grown[0]), is_open(&grown[1])], [true, false]);
}

/// Hands every message back as a delivery, and answers it.
struct ToItself;

impl Application for ToItself {
    fn handle_upgrade(&mut self, _: ConnectionId, _: &Request<'_>) -> Result<Admission, Response> {
        Ok(Admission {
            is_limited: false,
            ..ADMISSION
        })
    }

    fn handle_request(&mut self, _: &Request<'_>) -> Response {
        unreachable!("everybody asks for an upgrade")
    }

    fn handle_message(&mut self, id: ConnectionId, _: Message<'_>, outbox: &mut dyn Outbox) {
        outbox.reply("before");
        let delivered = outbox.deliver(&EncodedFrame::text(&[&[b'a'; 100]]), &[id]);
        assert_eq!(delivered.dropped, 1);
        outbox.reply("behind");
    }

    fn handle_gone(&mut self, _: ConnectionId) {}

    fn close_reason(&self, _: CloseCause, _: u64) -> String {
        String::new()
    }
}

#[test]
fn who_is_about_to_be_cut_off_gets_no_answer_behind_the_gap() {
    let limits = ServerLimits {
        send_queue_bytes_max: 50,
        ..ServerLimits::default()
    };
    let mut engine = Engine::new(ToItself, Stopped, limits, Timeouts::default(), 1);
    let wire = Rc::new(Wire::default());
    let peer = Peer {
        address: PeerAddress::Unix,
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
