//! The states of a session, by what goes in and what comes out. Time moves by hand.
//!
//! Whatever goes in goes into twins too, each of which is cut and carried to another process at another place.

use std::cell::RefCell;
use std::io::IoSlice;

use super::*;
use crate::handover::{Fields, Members};
use crate::wire::carried::{FrameNumbers, Frames};
use crate::wire::shared::SharedBytes;
use crate::ws::close::CloseCode;
use crate::ws::frame::encode_masked_frame;
use crate::ws::mask::MaskingKey;
use crate::ws::message::Message;

const MESSAGE_BYTES_MAX: usize = 1000;
const KEY: MaskingKey = MaskingKey([1, 2, 3, 4]);

/// A session whose owner fails the connection at every error, with a record of what happened.
pub(super) struct Bench {
    pub(super) session: Session,
    pub(super) now: Timestamp,
    timeouts: Timeouts,
    record: Vec<String>,
    /// A frame has one number, so all the states of a test are written with these.
    numbers: RefCell<FrameNumbers>,
}

impl Bench {
    fn open() -> Self {
        let mut bench = Self::unanswered();
        assert!(bench.sent().starts_with(b"HTTP/1.1 101 "));
        bench
    }

    /// One whose answer to the upgrade isn't sent.
    pub(super) fn unanswered() -> Self {
        let accept = AcceptKey::of(b"dGhlIHNhbXBsZSBub25jZQ==");
        let now = Timestamp::ZERO;
        Self {
            session: Session::accept(Buffers::default(), accept, MESSAGE_BYTES_MAX, now),
            now,
            timeouts: Timeouts::default(),
            record: Vec::new(),
            numbers: RefCell::default(),
        }
    }

    pub(super) fn receive(&mut self, bytes: &[u8]) {
        let before = self.record.len();
        let twins: Vec<_> = places(bytes.len())
            .map(|place| {
                let mut twin = self.carried(&self.session);
                let record = receive(&mut twin, &bytes[..place], self.now);
                let mut twin = self.carried(&twin);
                let rest = receive(&mut twin, &bytes[place..], self.now);
                (place, [record, rest].concat(), self.saved(&twin))
            })
            .collect();
        self.record
            .extend(receive(&mut self.session, bytes, self.now));
        let saved = self.saved(&self.session);
        for (place, record, twin) in twins {
            assert_eq!(
                record,
                self.record[before..],
                "carried behind {place} bytes"
            );
            assert_eq!(twin, saved, "carried behind {place} bytes");
        }
    }

    /// What waits to be written; the socket takes all of it.
    pub(super) fn sent(&mut self) -> Vec<u8> {
        let bytes = self.unsent();
        let twins: Vec<_> = places(bytes.len())
            .map(|place| {
                let mut twin = self.carried(&self.session);
                twin.handle_sent(place, self.now);
                let mut twin = self.carried(&twin);
                assert!(unsent(&twin).starts_with(&bytes[place..]));
                twin.handle_sent(bytes.len() - place, self.now);
                self.carried(&twin)
            })
            .collect();
        self.session.handle_sent(bytes.len(), self.now);
        for twin in twins {
            // Their segments may be others.
            assert_eq!(unsent(&twin), self.unsent());
            assert_eq!(twin.is_closed(), self.session.is_closed());
            let deadlines = [&twin, &self.session].map(|one| one.poll_timeout(&self.timeouts));
            assert_eq!(deadlines[0], deadlines[1]);
        }
        bytes
    }

    pub(super) fn unsent(&self) -> Vec<u8> {
        unsent(&self.session)
    }

    /// `session` in a state; nothing of one that is closed.
    pub(super) fn saved(&self, session: &Session) -> Vec<u8> {
        if session.is_closed() {
            return Vec::new();
        }
        self.state(session).0
    }

    /// The same, and the frames that are ahead of it there.
    fn state(&self, session: &Session) -> (Vec<u8>, Frames) {
        let mut frames = Frames::default();
        let mut numbers = self.numbers.borrow_mut();
        numbers.begin();
        for frame in session.buffers().queue().shared() {
            if numbers.number(frame).expect("one is left") {
                frames.push(SharedBytes::new(frame.as_bytes().to_vec()));
            }
        }
        let mut bytes = Vec::new();
        session.save(&mut Members::new(&mut bytes), &numbers);
        (bytes, frames)
    }

    /// `session` in another process. One that is closed isn't carried, and stands for itself.
    pub(super) fn carried(&self, session: &Session) -> Session {
        let (bytes, frames) = self.state(session);
        let fields = Fields::parse(&bytes).expect("members");
        assert!(Session::is_in(&fields));
        let restored = Session::restore(&fields, &frames);
        if session.is_closed() {
            assert!(restored.is_err());
            return closed(self.now);
        }
        let restored = restored.expect("it was saved");
        restored.check_invariants();
        assert_eq!(self.saved(&restored), bytes, "saved again");
        restored
    }

    fn record(&mut self) -> Vec<String> {
        std::mem::take(&mut self.record)
    }

    fn wait_ms(&mut self, millis: u64) -> Option<Expiry> {
        self.now = self.now + Duration::from_millis(millis);
        let mut twin = self.carried(&self.session);
        let due = twin.handle_timeout(self.now, &self.timeouts);
        assert_eq!(
            self.session.handle_timeout(self.now, &self.timeouts),
            due,
            "carried before"
        );
        assert_eq!(self.saved(&twin), self.saved(&self.session));
        due
    }

    /// Milliseconds until the next deadline.
    fn deadline_ms(&self) -> Option<u128> {
        let deadline = self.session.poll_timeout(&self.timeouts)?;
        Some((deadline - self.now).as_millis())
    }
}

/// All the places where `len` bytes can be cut; of many, some.
fn places(len: usize) -> impl Iterator<Item = usize> {
    (0..=len).filter(move |place| *place < 150 || len - place < 50 || place % 97 == 0)
}

/// Receives `bytes` at once, and says what happened.
fn receive(session: &mut Session, bytes: &[u8], now: Timestamp) -> Vec<String> {
    let mut record = Vec::new();
    let mut received = bytes.to_vec();
    session.handle_read(now);
    let mut input = session.begin_turn(&mut received, usize::MAX);
    while let Some(event) = session.next_event(&mut input, now) {
        let line = match event {
            Event::Message(Message::Text(text)) => text.to_owned(),
            Event::Message(Message::Binary(bytes)) => format!("{} bytes", bytes.len()),
            Event::Failed(error) => {
                let frame = CloseFrame::new(error.close_code(), "");
                session.fail(&frame, now);
                format!("failed {}", error.close_code())
            }
            Event::Closed { code } => format!("closed {code:?}"),
            Event::Discarded => "discarded".to_owned(),
            Event::Pong { round_trip } => format!("pong after {round_trip:?}"),
        };
        record.push(line);
    }
    session.end_turn(input, now);
    session.check_invariants();
    record
}

fn unsent(session: &Session) -> Vec<u8> {
    let mut slices = [IoSlice::new(&[]); 64];
    let filled = session.buffers().queue().gather(&mut slices);
    let slices = slices[..filled].iter();
    slices.flat_map(|slice| slice.to_vec()).collect()
}

fn closed(now: Timestamp) -> Session {
    let accept = AcceptKey::of(b"");
    let mut session = Session::accept(Buffers::default(), accept, MESSAGE_BYTES_MAX, now);
    session.release(&PinnedBytes::new(usize::MAX));
    session
}

pub(super) fn frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_masked_frame(&mut bytes, opcode, payload, KEY);
    bytes
}

/// The same frame without FIN.
pub(super) fn fragment(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame(opcode, payload);
    bytes[0] &= 0x7f;
    bytes
}

fn close_frame(code: u16) -> Vec<u8> {
    frame(Opcode::Close, &code.to_be_bytes())
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
        assert_eq!(bench.record().len(), 1, "the close, nothing after it");
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
    assert_eq!(bench.record(), ["discarded", "discarded"]);
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
    assert_eq!(bench.record(), ["discarded"]);
    assert!(!bench.session.buffers().has_tail());

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
        assert_eq!(bench.record(), [expected]);
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
    assert_eq!(bench.record(), ["x".repeat(MESSAGE_BYTES_MAX)]);
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
    assert_eq!(bench.record().len(), 10);
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
    bench.session.send_shared(&shared);
    bench.session.send_shared(&shared);
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
    let mut input = bench.session.begin_turn(&mut received, usize::MAX);
    let event = bench.session.next_event(&mut input, bench.now);
    assert!(matches!(event, Some(Event::Message(Message::Text("ab")))));
    // An owner that holds input back ends its turn here.
    bench.session.end_turn(input, bench.now);
    bench.receive(b"");
    assert_eq!(bench.record(), ["next"]);
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
