//! The states of a session, by what goes in and what comes out. Time moves by hand.

use std::io::IoSlice;

use super::*;
use crate::http::body::BodyPermit;
use crate::http::head::HeadError;
use crate::http::response::Response;
use crate::http::status::Status;
use crate::ws::close::CloseCode;
use crate::ws::frame::encode_masked_frame;
use crate::ws::handshake::ClientHandshake;
use crate::ws::mask::MaskingKey;
use crate::ws::message::Message;

const MESSAGE_BYTES_MAX: usize = 1000;
const KEY: MaskingKey = MaskingKey([1, 2, 3, 4]);

/// A session whose owner accepts every upgrade and fails the connection at every error, with
/// a record of what happened.
struct Bench {
    session: Session,
    now: Timestamp,
    timeouts: Timeouts,
    record: Vec<String>,
}

impl Bench {
    fn connecting() -> Self {
        Self {
            session: Session::new(Timestamp::ZERO),
            now: Timestamp::ZERO,
            timeouts: Timeouts::default(),
            record: Vec::new(),
        }
    }

    fn open() -> Self {
        let mut bench = Self::connecting();
        bench.receive(&upgrade());
        assert!(bench.session.is_open());
        assert!(bench.sent().starts_with(b"HTTP/1.1 101 "));
        bench
    }

    fn receive(&mut self, bytes: &[u8]) {
        let mut received = bytes.to_vec();
        self.session.handle_read(self.now);
        let mut incoming = self.session.take_incoming();
        let mut input = incoming.input(&mut received, usize::MAX);
        while let Some(event) = self.session.next_event(&mut input, self.now, 4096) {
            let line = match event {
                Event::Upgrade { accept, .. } => {
                    self.session.accept(accept, MESSAGE_BYTES_MAX);
                    "upgrade".to_owned()
                }
                Event::Request { head, framing } if head.method == "POST" => {
                    let permit = BodyPermit {
                        bytes_max: MESSAGE_BYTES_MAX,
                        is_authorized: true,
                    };
                    let received = self.session.receive(&head, framing, permit, self.now);
                    received.expect("tests post little");
                    continue;
                }
                Event::Body { body, stays, .. } => {
                    let line = format!("body {}", String::from_utf8_lossy(&body));
                    let response = Response::new(Status::OK, "posted");
                    match stays {
                        true => self.session.answer(&response, Duration::ZERO, self.now),
                        false => self.session.respond(&response, Duration::ZERO, self.now),
                    }
                    line
                }
                Event::Request { head, .. } => {
                    let line = format!("request {}", head.target);
                    self.session.respond(
                        &Response::new(Status::NOT_FOUND, "nothing"),
                        Duration::ZERO,
                        self.now,
                    );
                    line
                }
                Event::Message(Message::Text(text)) => text.to_owned(),
                Event::Message(Message::Binary(bytes)) => format!("{} bytes", bytes.len()),
                Event::Failed(error) => {
                    self.session
                        .fail(&CloseFrame::new(error.close_code(), ""), self.now);
                    format!("failed {}", error.close_code())
                }
                Event::Closed { code } => format!("closed {code:?}"),
                Event::Rejected(rejection) => {
                    self.session
                        .respond(&rejection.response(), Duration::ZERO, self.now);
                    format!("rejected: {rejection}")
                }
                Event::Discarded => "discarded".to_owned(),
                Event::Pong { round_trip } => format!("pong after {round_trip:?}"),
            };
            self.record.push(line);
        }
        let leftover = input.finish();
        self.session
            .keep_incoming(incoming, &received, &leftover, self.now);
    }

    /// What waits to be written; the socket takes all of it.
    fn sent(&mut self) -> Vec<u8> {
        let unsent = self.unsent();
        self.session.handle_sent(unsent.len(), self.now);
        unsent
    }

    fn unsent(&self) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 64];
        let filled = self.session.queue().gather(&mut slices);
        slices[..filled]
            .iter()
            .flat_map(|slice| slice.to_vec())
            .collect()
    }

    fn record(&mut self) -> Vec<String> {
        std::mem::take(&mut self.record)
    }

    fn wait_ms(&mut self, millis: u64) -> Option<Expiry> {
        self.now = self.now + Duration::from_millis(millis);
        self.handle_timeout()
    }

    fn handle_timeout(&mut self) -> Option<Expiry> {
        let expiry = self.session.handle_timeout(self.now, &self.timeouts);
        if expiry == Some(Expiry::Handshake) {
            let late = Response::new(Status::REQUEST_TIMEOUT, "late");
            self.session.respond(&late, Duration::ZERO, self.now);
        }
        expiry
    }

    /// Milliseconds until the next deadline.
    fn deadline_ms(&self) -> Option<u128> {
        let deadline = self.session.poll_timeout(&self.timeouts)?;
        Some((deadline - self.now).as_millis())
    }
}

fn upgrade() -> Vec<u8> {
    ClientHandshake::new([1; 16]).request("localhost:8000", "/", None)
}

fn frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_masked_frame(&mut bytes, opcode, payload, KEY);
    bytes
}

/// The same frame without FIN.
fn fragment(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame(opcode, payload);
    bytes[0] &= 0x7f;
    bytes
}

fn close_frame(code: u16) -> Vec<u8> {
    frame(Opcode::Close, &code.to_be_bytes())
}

#[test]
fn a_message_behind_the_upgrade_in_one_packet() {
    let mut bench = Bench::connecting();
    bench.receive(
        &[
            upgrade(),
            frame(Opcode::Text, b"hello"),
            frame(Opcode::Binary, b"123"),
        ]
        .concat(),
    );
    assert_eq!(bench.record(), ["upgrade", "hello", "3 bytes"]);
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
        close_frame(1000),
    ]
    .concat();
    let long = "x".repeat(300);
    let expected = ["upgrade", "one", "tw\u{f6}!", &long, "closed Some(1000)"];
    for split in 0..=stream.len() {
        let mut bench = Bench::connecting();
        bench.receive(&stream[..split]);
        bench.receive(&stream[split..]);
        assert_eq!(bench.record(), expected, "split at {split}");
        let sent = bench.sent();
        assert!(
            sent.ends_with(b"\x8a\x01p\x88\x02\x03\xe8"),
            "split at {split}"
        );
        assert!(bench.session.incoming.is_none(), "nothing is kept");
    }
    let mut bench = Bench::connecting();
    for byte in &stream {
        bench.receive(&[*byte]);
    }
    assert_eq!(bench.record(), expected);
}

#[test]
fn a_request_that_is_no_upgrade() {
    let mut bench = Bench::connecting();
    bench.receive(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\nGET /y HTTP/1.1\r\n\r\n");
    assert_eq!(
        bench.record(),
        ["request /x"],
        "the answer is the last of its connection"
    );
    assert!(bench.sent().starts_with(b"HTTP/1.1 404 "));
    assert!(bench.session.take_shutdown() && !bench.session.take_shutdown());
}

#[test]
fn a_bad_request_is_answered() {
    let mut bench = Bench::connecting();
    bench.receive(b"GET / HTTP/1.1\r\nHost : a\r\n\r\n");
    assert_eq!(bench.record(), [format!("rejected: {}", HeadError::Field)]);
    assert!(bench.sent().starts_with(b"HTTP/1.1 400 "));
    let mut bench = Bench::connecting();
    bench.receive(
        &String::from_utf8(upgrade())
            .expect("ASCII")
            .replace("13\r\n", "8\r\n")
            .into_bytes(),
    );
    assert_eq!(
        bench.record(),
        ["rejected: Sec-WebSocket-Version must be 13"]
    );
    assert!(bench.sent().starts_with(b"HTTP/1.1 426 "));
}

#[test]
fn the_peer_closes() {
    for (payload, answer) in [
        (&b""[..], &b"\x88\x00"[..]),
        (b"\x03\xe8", b"\x88\x02\x03\xe8"),
        (b"\x0f\xa0because", b"\x88\x02\x0f\xa0"),
    ] {
        let mut bench = Bench::open();
        bench.receive(&[frame(Opcode::Close, payload), frame(Opcode::Text, b"late")].concat());
        assert!(!bench.session.is_open());
        assert_eq!(
            bench.record().len(),
            2,
            "upgrade and close, nothing after it"
        );
        assert!(
            !bench.session.take_shutdown(),
            "not before the answer is written"
        );
        assert_eq!(bench.sent(), answer);
        assert!(bench.session.take_shutdown());
        bench.receive(&frame(Opcode::Text, b"later"));
        assert!(bench.record().is_empty());
        bench.session.handle_end();
        assert!(bench.session.is_closed());
    }
}

#[test]
fn we_close() {
    let mut bench = Bench::open();
    bench.session.send(Opcode::Text, b"bye");
    bench
        .session
        .close(&CloseFrame::new(CloseCode::NORMAL, "done"), bench.now);
    bench.session.send(Opcode::Text, b"nothing after it");
    bench
        .session
        .close(&CloseFrame::new(CloseCode::NORMAL, "nor again"), bench.now);
    assert_eq!(bench.sent(), b"\x81\x03bye\x88\x06\x03\xe8done");
    bench.receive(
        &[
            frame(Opcode::Text, b"late"),
            frame(Opcode::Ping, b""),
            fragment(Opcode::Text, b""),
            frame(Opcode::Continuation, b""),
        ]
        .concat(),
    );
    assert_eq!(bench.record(), ["upgrade", "discarded", "discarded"]);
    assert!(
        bench.unsent().is_empty(),
        "a Ping after our Close is not answered"
    );
    bench.receive(&close_frame(1000));
    assert_eq!(bench.record(), ["closed Some(1000)"]);
    assert!(
        bench.session.is_closed(),
        "the peer has read our Close: nothing to wait for"
    );
}

#[test]
fn closes_that_cross() {
    let mut bench = Bench::open();
    bench
        .session
        .close(&CloseFrame::new(CloseCode::NORMAL, ""), bench.now);
    bench.receive(&close_frame(1001));
    assert!(!bench.session.is_closed(), "ours is not written yet");
    assert_eq!(bench.sent(), b"\x88\x02\x03\xe8", "one Close, not two");
    assert!(bench.session.take_shutdown());
}

#[test]
fn a_long_message_behind_our_close_is_not_kept() {
    let mut bench = Bench::open();
    bench
        .session
        .close(&CloseFrame::new(CloseCode::NORMAL, ""), bench.now);
    bench.sent();
    let mut long = vec![0x82, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0, 1, 2, 3, 4];
    long.extend_from_slice(&[0; 5000]);
    bench.receive(&long);
    assert_eq!(bench.record(), ["upgrade", "discarded"]);
    assert!(bench.session.incoming.is_none());

    let mut bench = Bench::open();
    bench
        .session
        .close(&CloseFrame::new(CloseCode::NORMAL, ""), bench.now);
    bench.sent();
    let stream = [frame(Opcode::Text, &[b'x'; 200]), close_frame(1000)].concat();
    for byte in stream {
        bench.receive(&[byte]);
    }
    assert!(bench.session.is_closed());
}

#[test]
fn violations_close_and_end_the_parsing() {
    let cases: [(Vec<u8>, &str); 7] = [
        (vec![0x81, 0x01, b'x'], "failed 1002"),
        (vec![0xc1, 0x80], "failed 1002"),
        (frame(Opcode::Continuation, b"x"), "failed 1002"),
        (frame(Opcode::Close, b"\x03"), "failed 1002"),
        (frame(Opcode::Close, b"\x03\xed"), "failed 1002"),
        (frame(Opcode::Text, b"\xff"), "failed 1007"),
        (
            frame(Opcode::Text, &[b'x'; MESSAGE_BYTES_MAX + 1])[..8].to_vec(),
            "failed 1009",
        ),
    ];
    for (bytes, expected) in cases {
        let mut bench = Bench::open();
        bench.receive(&[bytes, frame(Opcode::Text, b"late")].concat());
        assert_eq!(bench.record(), ["upgrade", expected]);
        bench.receive(&frame(Opcode::Text, b"later"));
        assert!(bench.record().is_empty());
        assert_eq!(bench.sent()[0], 0x88);
        assert!(bench.session.take_shutdown());
    }
}

#[test]
fn the_limit_of_a_message_counts_its_fragments_together() {
    let at_max = [
        fragment(Opcode::Text, &[b'x'; MESSAGE_BYTES_MAX - 1]),
        frame(Opcode::Continuation, b"x"),
    ];
    let mut bench = Bench::open();
    bench.receive(&at_max.concat());
    assert_eq!(
        bench.record(),
        ["upgrade".to_owned(), "x".repeat(MESSAGE_BYTES_MAX)]
    );
    let over = [
        fragment(Opcode::Text, &[b'x'; MESSAGE_BYTES_MAX - 1]),
        fragment(Opcode::Continuation, b"x"),
        fragment(Opcode::Continuation, b""),
        frame(Opcode::Continuation, b"x"),
    ];
    bench.receive(&over.concat());
    assert_eq!(bench.record(), ["failed 1009"]);
}

#[test]
fn every_ping_is_answered_in_order() {
    let mut bench = Bench::open();
    bench.receive(
        &[
            frame(Opcode::Ping, b"a"),
            frame(Opcode::Ping, b""),
            frame(Opcode::Ping, b"c"),
        ]
        .concat(),
    );
    assert_eq!(bench.sent(), b"\x8a\x01a\x8a\x00\x8a\x01c");
    bench.receive(&frame(Opcode::Pong, b"unasked"));
    assert!(bench.unsent().is_empty());
}

#[test]
fn while_writes_block_only_the_newest_ping_is_answered() {
    let mut bench = Bench::open();
    bench.receive(&frame(Opcode::Ping, b"0"));
    bench.session.handle_sent(1, bench.now);
    bench.session.handle_blocked(bench.now);
    bench.receive(
        &[
            frame(Opcode::Ping, b"1"),
            frame(Opcode::Ping, b"2"),
            frame(Opcode::Ping, b"3"),
        ]
        .concat(),
    );
    assert_eq!(bench.unsent(), b"\x010", "the half-sent one stays");
    assert_eq!(bench.sent(), b"\x010");
    assert_eq!(bench.sent(), b"\x8a\x013");
    bench.receive(&frame(Opcode::Ping, b"4"));
    assert_eq!(bench.sent(), b"\x8a\x014");
}

#[test]
fn a_handshake_must_be_finished_in_time() {
    let mut bench = Bench::connecting();
    bench.receive(b"GET / HTTP/1.1\r\n");
    assert_eq!(bench.deadline_ms(), Some(10_000));
    assert_eq!(bench.wait_ms(9_999), None);
    assert_eq!(bench.wait_ms(1), Some(Expiry::Handshake));
    assert!(bench.sent().starts_with(b"HTTP/1.1 408 "));
    assert_eq!(bench.wait_ms(5_000), Some(Expiry::Close));
    assert!(bench.session.is_closed());
}

#[test]
fn silence_is_pinged_and_then_given_up() {
    let mut bench = Bench::open();
    assert_eq!(bench.wait_ms(24_999), None);
    assert_eq!(bench.wait_ms(1), Some(Expiry::PingDue));
    assert_eq!(
        bench.wait_ms(60_000),
        None,
        "the wait begins when the Ping has left"
    );
    assert_eq!(bench.sent(), b"\x89\x00");
    assert_eq!(bench.deadline_ms(), Some(10_000));
    assert_eq!(bench.wait_ms(9_999), None);
    assert_eq!(bench.wait_ms(1), Some(Expiry::PongOverdue));
    assert!(
        bench.session.is_closed() && bench.unsent().is_empty(),
        "no Close is sent"
    );
}

#[test]
fn the_answer_to_a_ping_tells_the_round_trip_once() {
    let pong = frame(Opcode::Pong, b"");
    let mut bench = Bench::open();
    bench.record();
    bench.receive(&pong);
    assert_eq!(bench.record(), [""; 0], "nobody asked for it");
    assert_eq!(bench.wait_ms(25_000), Some(Expiry::PingDue));
    bench.receive(&pong);
    assert_eq!(bench.record(), [""; 0], "the Ping has not left");
    bench.sent();
    assert_eq!(bench.wait_ms(30), None);
    // The peer lives; its Pong is still to come.
    bench.receive(&frame(Opcode::Text, b"a"));
    assert_eq!(bench.wait_ms(12), None);
    bench.receive(&frame(Opcode::Pong, b"its own"));
    bench.receive(&[&pong[..], &pong].concat());
    assert_eq!(bench.record(), ["a", "pong after 42ms"]);
    // From the last life on.
    assert_eq!(bench.deadline_ms(), Some(25_000));
}

#[test]
fn a_ping_that_was_never_answered_is_followed_by_the_next() {
    let mut bench = Bench::open();
    for _ in 0..2 {
        assert_eq!(bench.wait_ms(25_000), Some(Expiry::PingDue));
        assert_eq!(bench.sent(), b"\x89\x00");
        bench.receive(&frame(Opcode::Text, b"a"));
    }
    bench.now = bench.now + Duration::from_millis(7);
    bench.receive(&frame(Opcode::Pong, b""));
    assert_eq!(
        bench.record().last().map(String::as_str),
        Some("pong after 7ms")
    );
}

#[test]
fn any_byte_is_a_sign_of_life() {
    let mut bench = Bench::open();
    assert_eq!(bench.wait_ms(25_000), Some(Expiry::PingDue));
    bench.sent();
    bench.wait_ms(9_000);
    bench.receive(&[0x81]);
    assert_eq!(bench.wait_ms(9_000), None);
    assert!(bench.session.is_open());
    assert_eq!(bench.wait_ms(16_000), Some(Expiry::PingDue));
}

#[test]
fn progress_of_a_blocked_queue_is_a_sign_of_life() {
    let mut bench = Bench::open();
    bench.session.send(Opcode::Text, &[b'x'; 500]);
    bench.session.handle_blocked(bench.now);
    for _ in 0..10 {
        assert_eq!(bench.wait_ms(20_000), None);
        bench.session.handle_sent(10, bench.now);
        bench.session.handle_blocked(bench.now);
    }
    assert!(bench.session.is_open());
    assert_eq!(bench.wait_ms(25_000), Some(Expiry::PingDue));
    assert_eq!(bench.wait_ms(34_999), None, "the Ping has not left");
    assert_eq!(bench.wait_ms(1), Some(Expiry::Write));
}

#[test]
fn a_message_must_be_finished_in_time() {
    for begin in [
        frame(Opcode::Text, b"hello")[..3].to_vec(),
        fragment(Opcode::Text, b"x"),
    ] {
        let mut bench = Bench::open();
        bench.receive(&begin);
        for _ in 0..5 {
            assert_eq!(bench.wait_ms(11_999), None);
            // Pings between fragments finish nothing; a byte of the frame neither.
            bench.receive(&if begin.len() == 3 {
                vec![0]
            } else {
                frame(Opcode::Ping, b"")
            });
        }
        assert_eq!(bench.wait_ms(4), None);
        assert_eq!(bench.wait_ms(1), Some(Expiry::Message));
    }
}

#[test]
fn a_finished_message_frees_the_next_from_its_time() {
    let mut bench = Bench::open();
    let message = frame(Opcode::Text, b"hello");
    bench.receive(&message[..3]);
    for _ in 0..10 {
        assert_eq!(bench.wait_ms(20_000), None);
        bench.receive(&[&message[3..], &message[..3]].concat());
    }
    assert_eq!(bench.record().len(), 11);
}

#[test]
fn a_close_must_be_answered_in_time() {
    let mut bench = Bench::open();
    bench
        .session
        .close(&CloseFrame::new(CloseCode::NORMAL, ""), bench.now);
    bench.sent();
    bench.receive(&frame(Opcode::Text, b"chatter"));
    assert_eq!(bench.deadline_ms(), Some(5_000));
    assert_eq!(bench.wait_ms(5_000), Some(Expiry::Close));
    assert!(bench.session.is_closed());
}

#[test]
fn cutting_off_finishes_the_half_sent_frame() {
    let mut bench = Bench::open();
    let shared = EncodedFrame::text(&[b"0123456789"]);
    bench.session.send_shared(shared.clone());
    bench.session.send_shared(shared.clone());
    bench.session.handle_sent(4, bench.now);
    bench.session.handle_blocked(bench.now);
    bench
        .session
        .cut_off(&CloseFrame::new(CloseCode::TRY_AGAIN_LATER, ""), bench.now);
    assert_eq!(
        bench.sent(),
        [&shared.as_bytes()[4..], b"\x88\x02\x03\xf5"].concat()
    );
    assert!(bench.session.take_shutdown());
    bench.receive(&close_frame(1013));
    assert!(!bench.session.is_closed(), "the end of file is awaited");
}

#[test]
fn a_message_of_fragments_may_be_the_last_event_of_a_turn() {
    let mut bench = Bench::open();
    let fragments = [
        fragment(Opcode::Text, b"a"),
        frame(Opcode::Continuation, b"b"),
        frame(Opcode::Text, b"next"),
    ];
    let mut received = fragments.concat();
    let mut incoming = bench.session.take_incoming();
    let mut input = incoming.input(&mut received, usize::MAX);
    let event = bench.session.next_event(&mut input, bench.now, 4096);
    assert!(matches!(event, Some(Event::Message(Message::Text("ab")))));
    // Whoever holds input back ends its turn here.
    let leftover = input.finish();
    bench
        .session
        .keep_incoming(incoming, &received, &leftover, bench.now);
    bench.record();
    bench.receive(b"");
    assert_eq!(bench.record(), ["next"]);
}

#[test]
fn cutting_off_keeps_the_answer_to_the_upgrade() {
    let shared = EncodedFrame::text(&[b"0123456789"]);
    for is_pipelined in [false, true] {
        let mut bench = Bench::connecting();
        if is_pipelined {
            bench.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n1");
        }
        bench.receive(&upgrade());
        bench.session.send_shared(shared.clone());
        bench.session.handle_blocked(bench.now);
        let frame = CloseFrame::new(CloseCode::TRY_AGAIN_LATER, "");
        bench.session.cut_off(&frame, bench.now);
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

#[test]
fn what_is_kept_is_charged_and_given_back() {
    let pinned = PinnedBytes::new(usize::MAX);
    let mut bench = Bench::open();
    bench.session.settle(&pinned);
    assert_eq!(pinned.bytes(), 0, "an idle connection keeps nothing");
    bench.receive(&fragment(Opcode::Text, &[b'x'; 900]));
    bench.session.settle(&pinned);
    assert!(pinned.bytes() >= 900);
    bench.receive(&frame(Opcode::Continuation, b""));
    bench.session.settle(&pinned);
    assert_eq!(pinned.bytes(), 0);
    bench.receive(&frame(Opcode::Text, &[b'x'; 900])[..700]);
    bench.session.send(Opcode::Text, b"answer");
    bench.session.settle(&pinned);
    assert!(pinned.bytes() >= 700);
    bench.session.release(&pinned);
    assert_eq!(pinned.bytes(), 0);
}

#[test]
fn requests_are_answered_one_after_the_other_up_to_an_upgrade() {
    let posts = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
        POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nd\r\n2\r\nef\r\n0\r\n\r\n\
        POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    let stream = [&posts[..], &upgrade()].concat();
    for split in 0..stream.len() {
        let mut bench = Bench::connecting();
        bench.receive(&stream[..split]);
        bench.receive(&stream[split..]);
        assert_eq!(
            bench.record,
            ["body abc", "body def", "body ", "upgrade"],
            "{split}"
        );
        assert!(bench.session.is_open());
        let sent = String::from_utf8(bench.sent()).expect("text");
        assert_eq!(sent.matches("HTTP/1.1 200 OK\r\n").count(), 3);
        assert!(sent.contains("posted\nHTTP/1.1 101 "));
    }
}

#[test]
fn empty_lines_in_front_of_a_request_are_passed_over() {
    let post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n";
    let request = |empty_lines: usize| [&b"\r\n".repeat(empty_lines)[..], post, b"x"].concat();
    let most = usize::from(request::EMPTY_LINES_MAX);
    let run = |stream: &[u8], split: usize| {
        let mut bench = Bench::connecting();
        bench.receive(&stream[..split]);
        bench.receive(&stream[split..]);
        bench
    };
    let stream = [request(most), request(1), request(most), request(0)].concat();
    for split in 0..stream.len() {
        let bench = run(&stream, split);
        assert_eq!(bench.record, ["body x"; 4], "{split}");
        assert!(bench.session.is_between_requests());
    }
    for bad in ["\n", "\r\r\n", "\rGET ", " \r\n"].map(str::as_bytes) {
        for stream in [bad.to_vec(), [b"\r\n", bad].concat()] {
            for split in 0..stream.len() {
                let bench = run(&stream, split);
                let expected = format!("rejected: {}", HeadError::RequestLine);
                assert_eq!(bench.record, [expected], "{stream:?} {split}");
            }
        }
    }
    let stream = request(most + 1);
    for split in 0..=2 * most + 1 {
        assert_eq!(run(&stream, split).record.len(), 1, "{split}");
        assert!(run(&stream, split).record[0].starts_with("rejected"));
    }
}

#[test]
fn an_empty_line_behind_a_body_is_no_request() {
    let mut bench = Bench::connecting();
    bench.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
    let silent_until = bench.session.poll_timeout(&bench.timeouts);
    bench.wait_ms(1000);
    for piece in [&b"\r"[..], b"\n", b"\r\n"] {
        bench.receive(piece);
        assert_eq!(bench.session.is_between_requests(), piece != b"\r");
    }
    assert_eq!(bench.session.poll_timeout(&bench.timeouts), silent_until);
    // What begins behind them has the time of a head from its own first byte.
    bench.wait_ms(1000);
    bench.receive(b"\r\nP");
    let due = bench.now + bench.timeouts.handshake;
    assert_eq!(bench.session.poll_timeout(&bench.timeouts), Some(due));
}

#[test]
fn the_last_request_ends_the_connection() {
    let mut bench = Bench::connecting();
    let last = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc";
    bench.receive(&last.repeat(2));
    assert_eq!(bench.record, ["body abc"]);
    let sent = String::from_utf8(bench.sent()).expect("text");
    assert!(sent.starts_with("HTTP/1.1 200 OK\r\n") && sent.contains("\r\nConnection: close\r\n"));
    assert!(bench.session.take_shutdown());
}

#[test]
fn heads_bodies_and_silence_have_their_times() {
    let times = Timeouts::default();
    let due = |bench: &Bench| bench.session.poll_timeout(&bench.timeouts);
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n";
    let at = |seconds| Timestamp::ZERO + Duration::from_secs(seconds);

    let mut bench = Bench::connecting();
    bench.now = at(5);
    bench.receive(b"POST");
    assert_eq!(due(&bench), Some(Timestamp::ZERO + times.handshake));
    bench.receive(&head[4..]);
    assert_eq!(due(&bench), Some(at(5) + times.message));
    bench.now = at(20);
    bench.receive(b"ab");
    assert_eq!(
        due(&bench),
        Some(at(5) + times.message),
        "a body is not kept alive"
    );
    bench.receive(b"c");
    assert_eq!(due(&bench), Some(at(20) + times.message));
    assert!(bench.session.is_between_requests());
    bench.sent();
    bench.now = at(30);
    bench.receive(b"P");
    assert!(!bench.session.is_between_requests());
    assert_eq!(due(&bench), Some(at(30) + times.handshake));
    bench.now = at(30) + times.handshake;
    assert_eq!(bench.handle_timeout(), Some(Expiry::Handshake));
    assert!(bench.sent().starts_with(b"HTTP/1.1 408 "));

    // Who has been answered and says nothing is let go without a word.
    let mut bench = Bench::connecting();
    bench.receive(&[&head[..], b"abc"].concat());
    bench.sent();
    let expiry = bench.session.handle_timeout(at(0) + times.message, &times);
    assert_eq!(expiry, Some(Expiry::Idle));
    assert!(bench.sent().is_empty() && bench.session.take_shutdown());
}

#[test]
fn a_body_that_is_not_whole_is_charged() {
    let pinned = PinnedBytes::new(1 << 20);
    let mut bench = Bench::connecting();
    bench.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\n");
    bench.receive(&[b'x'; 800]);
    bench.session.settle(&pinned);
    assert!(pinned.bytes() >= 800);
    bench.receive(&[b'x'; 100]);
    bench.sent();
    bench.session.settle(&pinned);
    assert_eq!(pinned.bytes(), 0);
}
