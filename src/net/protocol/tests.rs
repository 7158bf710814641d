//! A connection over its upgrade: the bytes of both protocols in one stream.

use std::io::IoSlice;

use super::*;
use crate::application::{Message, Response, Status};
use crate::ws::close::{CloseCode, CloseFrame};
use crate::ws::frame::{EncodedFrame, Opcode, encode_masked_frame};
use crate::ws::handshake::{ClientHandshake, check_upgrade};
use crate::ws::mask::MaskingKey;

const MESSAGE_BYTES_MAX: usize = 1000;
const NOW: Timestamp = Timestamp::ZERO;

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
    }

    /// What waits to be written; the socket takes all of it.
    fn sent(&mut self) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 64];
        let filled = self.protocol.queue().gather(&mut slices);
        let slices = slices[..filled].iter();
        let unsent: Vec<_> = slices.flat_map(|slice| slice.to_vec()).collect();
        self.protocol.handle_sent(unsent.len(), NOW);
        unsent
    }
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
        let frame = CloseFrame::new(CloseCode::TRY_AGAIN_LATER, "");
        session.cut_off(&frame, NOW);
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
