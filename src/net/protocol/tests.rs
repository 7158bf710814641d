//! A connection over its upgrade: the bytes of both protocols in one stream.

use std::cell::{Cell, RefCell};
use std::io::IoSlice;

use super::*;
use crate::application::{Message, Response, Status};
use crate::ws::close::{CloseCode, CloseFrame};
use crate::ws::frame::{EncodedFrame, Opcode, encode_masked_frame};
use crate::ws::handshake::{ClientHandshake, check_upgrade};
use crate::ws::mask::MaskingKey;
use fastrand::Rng;

const MESSAGE_BYTES_MAX: usize = 1000;
const NOW: Timestamp = Timestamp::ZERO;

thread_local! {
    /// Whether each step of a test is followed by a handover to a successor.
    static IS_CARRIED: Cell<bool> = const { Cell::new(false) };
    /// One for all frames, which keep their numbers.
    static NUMBERS: RefCell<FrameNumbers> = RefCell::default();
}

/// A connection whose owner accepts every upgrade and answers every request.
struct Bench {
    protocol: Protocol,
    record: Vec<String>,
}

impl Bench {
    fn new() -> Self {
        Self {
            protocol: Protocol::new(NOW),
            record: Vec::new(),
        }
    }

    fn receive(&mut self, bytes: &[u8]) {
        let mut received = bytes.to_vec();
        let mut input = self.protocol.begin_turn(&mut received, usize::MAX);
        while let Some(event) = self.protocol.next_event(&mut input, NOW, 4096) {
            let line = match event {
                Event::Http(exchange::Event::Upgrade { head }) => {
                    let accept = check_upgrade(&head).expect("valid");
                    self.protocol.upgrade(accept, MESSAGE_BYTES_MAX, NOW);
                    "upgrade".to_owned()
                }
                Event::Http(exchange::Event::Request { head, .. }) => {
                    let exchange = self.protocol.exchange_mut().expect("it is HTTP");
                    exchange.answer(&Response::new(Status::OK, ""), Duration::ZERO, NOW);
                    format!("request {}", head.target)
                }
                Event::WebSocket(session::Event::Message(Message::Text(text))) => text.to_owned(),
                Event::WebSocket(session::Event::Message(Message::Binary(bytes))) => {
                    format!("{} bytes", bytes.len())
                }
                Event::WebSocket(session::Event::Closed { code }) => format!("closed {code:?}"),
                other => unreachable!("{other:?}"),
            };
            self.record.push(line);
        }
        self.protocol.end_turn(input, NOW);
        self.protocol.check_invariants();
        self.carry();
    }

    /// Hands the protocol over to a successor, in a test that is run so. What is closed would be dropped.
    fn carry(&mut self) {
        if IS_CARRIED.get() && !self.protocol.is_closed() {
            self.protocol = carried(&self.protocol);
        }
    }

    /// What waits to be written; the socket takes all of it.
    fn sent(&mut self) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 64];
        let filled = self.protocol.queue().gather(&mut slices);
        let slices = slices[..filled].iter();
        let unsent: Vec<_> = slices.flat_map(|slice| slice.to_vec()).collect();
        self.protocol.handle_sent(unsent.len(), NOW);
        self.carry();
        unsent
    }
}

/// What is written of a protocol, and the frames that are named in it.
fn written(protocol: &Protocol) -> (Vec<u8>, Frames) {
    NUMBERS.with_borrow_mut(|numbers| written_with(numbers, protocol))
}

fn written_with(numbers: &mut FrameNumbers, protocol: &Protocol) -> (Vec<u8>, Frames) {
    let mut frames = Frames::default();
    numbers.begin();
    for frame in protocol.queue().shared() {
        if numbers.number(frame).expect("there are few") {
            frames.push(frame.clone());
        }
    }
    let mut bytes = Vec::new();
    protocol.save(&mut Members::new(&mut bytes), numbers);
    (bytes, frames)
}

fn read(bytes: &[u8], frames: &Frames) -> Result<Protocol, Malformed> {
    Protocol::restore(&Fields::parse(bytes)?, frames)
}

/// The protocol as a successor has it.
fn carried(protocol: &Protocol) -> Protocol {
    let (bytes, frames) = written(protocol);
    let carried = read(&bytes, &frames).expect("it was written");
    assert_eq!(written(&carried).0, bytes);
    carried.check_invariants();
    carried
}

fn upgrade() -> Vec<u8> {
    ClientHandshake::new([1; 16]).request("localhost:8000", "/", None)
}

fn frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_masked_frame(&mut bytes, opcode, payload, MaskingKey([1, 2, 3, 4]));
    bytes
}

/// The same frame without FIN.
fn fragment(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame(opcode, payload);
    bytes[0] &= 0x7f;
    bytes
}

#[test]
fn all_that_follows_is_so_with_a_handover_after_each_step() {
    IS_CARRIED.set(true);
    a_message_behind_the_upgrade_in_one_packet();
    every_split_point_gives_the_same_events();
    cutting_off_keeps_the_answer_to_the_upgrade();
}

#[test]
fn which_of_the_two_it_is_is_carried() {
    let mut bench = Bench::new();
    assert!(carried(&bench.protocol).exchange().is_some());
    bench.receive(&upgrade());
    assert!(carried(&bench.protocol).is_open());
    for protocol in [&mut bench.protocol, &mut Protocol::new(NOW)] {
        protocol.handle_end();
        let (bytes, frames) = written(protocol);
        assert!(read(&bytes, &frames).is_err(), "nobody would drop it");
    }
}

#[test]
fn any_bytes_are_a_protocol_or_are_refused() {
    let shared = EncodedFrame::text(&[b"0123456789"]);
    let stream = [
        upgrade(),
        fragment(Opcode::Text, b"one"),
        frame(Opcode::Ping, b"p"),
    ]
    .concat();
    let mut random = Rng::with_seed(18);
    let (mut restored, mut refused) = (0, 0);
    for _ in 0..20_000 {
        let mut bench = Bench::new();
        bench.receive(&stream[..random.usize(..=stream.len())]);
        if let Some(session) = bench.protocol.open_session_mut() {
            session.send_shared(&shared);
            let sent = random.usize(..bench.protocol.queue().unsent_bytes());
            bench.protocol.handle_sent(sent, NOW);
        }
        let (mut bytes, frames) = written(&bench.protocol);
        for _ in 0..random.usize(1..4) {
            let position = random.usize(..bytes.len());
            bytes[position] = random.u8(..);
        }
        let Ok(protocol) = read(&bytes, &frames) else {
            refused += 1;
            continue;
        };
        restored += 1;
        protocol.check_invariants();
        bench.protocol = carried(&protocol);
        let mut received = stream.clone();
        let mut input = bench.protocol.begin_turn(&mut received, usize::MAX);
        while let Some(event) = bench.protocol.next_event(&mut input, NOW, 4096) {
            // Whatever the answer would be, there is an end.
            if !matches!(event, Event::WebSocket(session::Event::Message(_))) {
                break;
            }
        }
        bench.protocol.end_turn(input, NOW);
        bench.sent();
        bench.protocol.handle_eof(NOW);
        bench.protocol.check_invariants();
    }
    assert!(restored > 1000 && refused > 1000, "{restored}, {refused}");
}

#[test]
fn a_message_behind_the_upgrade_in_one_packet() {
    let mut bench = Bench::new();
    bench.receive(
        &[
            upgrade(),
            frame(Opcode::Text, b"hello"),
            frame(Opcode::Binary, b"123"),
        ]
        .concat(),
    );
    assert_eq!(bench.record, ["upgrade", "hello", "3 bytes"]);
}

#[test]
fn every_split_point_gives_the_same_events() {
    let stream = [
        upgrade(),
        frame(Opcode::Text, b"one"),
        fragment(Opcode::Text, "tw\u{f6}".as_bytes()),
        frame(Opcode::Ping, b"p"),
        frame(Opcode::Continuation, b"!"),
        frame(Opcode::Text, &[b'x'; 300]),
        frame(Opcode::Close, &[0x03, 0xe8]),
    ]
    .concat();
    let long = "x".repeat(300);
    let expected = ["upgrade", "one", "tw\u{f6}!", &long, "closed Some(1000)"];
    for split in 0..=stream.len() {
        let mut bench = Bench::new();
        bench.receive(&stream[..split]);
        bench.receive(&stream[split..]);
        assert_eq!(bench.record, expected, "split at {split}");
        let sent = bench.sent();
        assert!(
            sent.ends_with(b"\x8a\x01p\x88\x02\x03\xe8"),
            "split at {split}"
        );
        assert_eq!(bench.protocol.unfinished_bytes(), 0, "nothing is kept");
    }
    let mut bench = Bench::new();
    for byte in &stream {
        bench.receive(&[*byte]);
    }
    assert_eq!(bench.record, expected);
}

#[test]
fn cutting_off_keeps_the_answer_to_the_upgrade() {
    let shared = EncodedFrame::text(&[b"0123456789"]);
    for is_pipelined in [false, true] {
        let mut bench = Bench::new();
        if is_pipelined {
            bench.receive(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        }
        bench.receive(&upgrade());
        bench.protocol.handle_blocked(NOW);
        let session = bench.protocol.open_session_mut().expect("it is open");
        session.send_shared(&shared);
        bench.carry();
        let session = bench.protocol.open_session_mut().expect("it is open");
        let frame = CloseFrame::new(CloseCode::TRY_AGAIN_LATER, "");
        session.cut_off(&frame, NOW);
        bench.carry();
        let sent = bench.sent();
        let answers = sent.split(|&byte| byte == b'\n');
        let statuses: Vec<_> = answers
            .filter(|line| line.starts_with(b"HTTP/1.1 "))
            .collect();
        assert_eq!(
            statuses.len(),
            1 + usize::from(is_pipelined),
            "{statuses:?}"
        );
        assert!(sent.ends_with(b"\r\n\r\n\x88\x02\x03\xf5"), "and no more");
    }
}
