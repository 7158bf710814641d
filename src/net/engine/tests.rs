//! The engine over transports that are memory, with an application that hands everything to
//! everybody else.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice, Read, Write};
use std::rc::Rc;
use std::time::Duration;

use super::*;
use crate::application::{Message, Outbox};
use crate::net::shell::UNWRITTEN_MAX;
use crate::ws::frame::{EncodedFrame, Opcode, Role, decode_frame, encode_masked_frame};
use crate::ws::mask::MaskingKey;

/// A peer whose socket takes everything: what it has sent, and what it got.
#[derive(Default)]
struct Wire {
    sent: RefCell<Vec<u8>>,
    has_ended: Cell<bool>,
    got: RefCell<Vec<u8>>,
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
        self.0.got.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        slices.iter().map(|slice| self.write(slice)).sum()
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

#[derive(Default)]
struct ToAllOthers(Vec<ConnectionId>);

impl Application for ToAllOthers {
    fn handle_upgrade(&mut self, id: ConnectionId, _: &Request<'_>) -> Result<Admission, Response> {
        self.0.push(id);
        Ok(Admission {
            message_bytes_max: 1024,
            on_behalf_of: None,
            deadline: None,
        })
    }

    fn handle_request(&mut self, _: &Request<'_>) -> Response {
        unreachable!("everybody asks for an upgrade")
    }

    fn handle_message(&mut self, id: ConnectionId, message: Message<'_>, outbox: &mut dyn Outbox) {
        let Message::Text(text) = message else {
            unreachable!("everybody sends text")
        };
        let others: Vec<_> = self
            .0
            .iter()
            .copied()
            .filter(|&other| other != id)
            .collect();
        outbox.deliver(&EncodedFrame::text(&[text.as_bytes()]), &others);
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
    engine_with(ServerLimits::default())
}

fn engine_with(limits: ServerLimits) -> TestEngine {
    Engine::new(
        ToAllOthers::default(),
        Stopped,
        limits,
        Timeouts::default(),
        1,
    )
}

/// A connection that has said nothing yet.
fn accept(engine: &mut TestEngine, now: Timestamp) -> (ConnectionId, Rc<Wire>) {
    let wire = Rc::new(Wire::default());
    let peer = Peer {
        address: Some(([127, 0, 0, 1], 1).into()),
        lane: Lane::Clients,
    };
    let id = engine.insert(WireEnd(Rc::clone(&wire)), peer, now);
    (id, wire)
}

/// A connection whose handshake is done.
fn connect(engine: &mut TestEngine) -> (ConnectionId, Rc<Wire>) {
    let (id, wire) = accept(engine, Timestamp::ZERO);
    let head = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    wire.sent.borrow_mut().extend_from_slice(head.as_bytes());
    engine.handle_ready(id, READABLE, Timestamp::ZERO);
    engine.flush_replies(Timestamp::ZERO);
    let head = wire.got.take();
    assert!(head.starts_with(b"HTTP/1.1 101 ") && head.ends_with(b"\r\n\r\n"));
    (id, wire)
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
fn a_burst_is_held_back_until_what_it_caused_is_written() {
    const SUBSCRIBERS: usize = 1500;
    const MESSAGES: usize = 1000;
    let mut engine = engine();
    let subscribers: Vec<_> = (0..SUBSCRIBERS).map(|_| connect(&mut engine)).collect();
    let (publisher, wire) = connect(&mut engine);
    let expected: Vec<_> = (0..MESSAGES).map(|number| number.to_string()).collect();
    for text in &expected {
        let key = MaskingKey([1, 2, 3, 4]);
        encode_masked_frame(
            &mut wire.sent.borrow_mut(),
            Opcode::Text,
            text.as_bytes(),
            key,
        );
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
fn many_answers_are_written_at_once() {
    let mut engine = engine();
    let (pinger, wire) = connect(&mut engine);
    // As much as a turn reads.
    let pings = READS_A_TURN_MAX * READ_BUFFER_BYTES / 6;
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
fn the_oldest_handshakes_make_room_for_new_clients() {
    let mut engine = engine_with(ServerLimits {
        connections_max: 2,
        ..ServerLimits::default()
    });
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
