//! The body of the fuzz target of whole connections: it takes any bytes, and panics if a promise is broken.
//!
//! Runs on a small corpus as a test too, so that what a fuzzer once found stays found.

use std::io::IoSlice;
use std::time::Duration;

use crate::handover::{Fields, Members};
use crate::http::exchange::{self, Exchange};
use crate::http::response::Response;
use crate::http::status::Status;
use crate::time::Timestamp;
use crate::wire::carried::{FrameNumbers, Frames};
use crate::wire::pinned::PinnedBytes;
use crate::ws::close::{CloseCode, CloseFrame};
use crate::ws::event as session;
use crate::ws::frame::{FrameHeader, Opcode, Role, decode_header};
use crate::ws::handshake::{ClientHandshake, check_upgrade};
use crate::ws::message::Message;
use crate::ws::session::Session;

use super::protocol::{Event, Protocol};
use fastrand::Rng;

const MESSAGE_BYTES_MAX: usize = 2000;
const BODY_BYTES_MAX: usize = 100;

/// A whole connection: the same events and the same answers, however the bytes are cut, and although an open session is
/// carried to another process at each cut. The handshake stands before bytes that don't begin with one: a fuzzer
/// would hardly find it.
pub fn fuzz_session(bytes: &[u8]) {
    let mut stream = Vec::new();
    if !bytes.starts_with(b"GET ") && !bytes.starts_with(b"POST ") {
        stream = ClientHandshake::new([3; 16]).request("localhost", "/", None);
    }
    stream.extend_from_slice(bytes);
    let seed = bytes
        .iter()
        .fold(0, |sum: u64, &byte| sum.wrapping_mul(31) + u64::from(byte));
    let mut random = Rng::with_seed(seed);
    let mut chunks = Vec::new();
    let mut left = stream.len();
    while left > 0 {
        let bits = random.u64(0..=9);
        let chunk = (random.u64(1..=1 << bits) as usize).min(left);
        chunks.push(chunk);
        left -= chunk;
    }
    assert_eq!(drive(&stream, &[stream.len()]), drive(&stream, &chunks));
}

/// What a connection made of `stream` in pieces of `chunks` bytes: its events and its answers.
fn drive(stream: &[u8], chunks: &[usize]) -> (Vec<String>, Vec<u8>) {
    let now = Timestamp::ZERO;
    let mut protocol = Protocol::new(now);
    let pinned = PinnedBytes::new(usize::MAX);
    let mut record = Vec::new();
    let mut rest = stream;
    for &chunk in chunks {
        let (received, behind) = rest.split_at(chunk);
        rest = behind;
        let mut received = received.to_vec();
        let mut input = protocol.begin_turn(&mut received, usize::MAX);
        while let Some(event) = protocol.next_event(&mut input, now, 1024) {
            record.push(format!("{event:?}"));
            match event {
                Event::Http(event) => handle_http(&mut protocol, event, now),
                Event::WebSocket(event) => handle_session(&mut protocol, event, now),
            }
        }
        protocol.end_turn(input, now);
        protocol.settle(&pinned);
        protocol.check_invariants();
        if let Some(session) = protocol.open_session_mut() {
            let carried = carried(session);
            session.release(&pinned);
            *session = carried;
            protocol.settle(&pinned);
        }
        if protocol.is_closed() {
            break;
        }
    }
    let mut slices = vec![IoSlice::new(&[]); protocol.queue().segments_len()];
    let filled = protocol.queue().gather(&mut slices);
    let answers: Vec<u8> = slices[..filled]
        .iter()
        .flat_map(|slice| slice.to_vec())
        .collect();
    assert_eq!(answers.len(), protocol.queue().unsent_bytes());
    check_answers(&answers);
    (record, answers)
}

/// The same session in another process.
fn carried(session: &Session) -> Session {
    let saved = |session: &Session| {
        let mut bytes = Vec::new();
        // None of its frames is shared.
        session.save(&mut Members::new(&mut bytes), &FrameNumbers::default());
        bytes
    };
    let bytes = saved(session);
    let fields = Fields::parse(&bytes);
    let restored = fields.and_then(|fields| Session::restore(&fields, &Frames::default()));
    let Ok(restored) = restored else {
        unreachable!("it was saved: {restored:?}");
    };
    restored.check_invariants();
    assert_eq!(saved(&restored), bytes, "saved again");
    restored
}

fn handle_http(protocol: &mut Protocol, event: exchange::Event<'_>, now: Timestamp) {
    if let exchange::Event::Upgrade { head } = &event
        && let Ok(accept) = check_upgrade(head)
    {
        return protocol.upgrade(accept, MESSAGE_BYTES_MAX, now);
    }
    let Some(exchange) = protocol.exchange_mut() else {
        unreachable!("an event of HTTP");
    };
    let respond = |exchange: &mut Exchange, status| {
        exchange.respond(&Response::new(status, ""), Duration::ZERO, now);
    };
    match event {
        exchange::Event::Request { head, framing } if head.method == "POST" => {
            let received = exchange.receive(&head, framing, BODY_BYTES_MAX, now);
            if received.is_err() {
                respond(exchange, Status::CONTENT_TOO_LARGE);
            }
        }
        exchange::Event::Body { body, stays: true } => {
            assert!(body.len() <= BODY_BYTES_MAX);
            exchange.answer(&Response::new(Status::OK, ""), Duration::ZERO, now);
        }
        exchange::Event::Upgrade { .. }
        | exchange::Event::Request { .. }
        | exchange::Event::Body { .. } => respond(exchange, Status::NOT_FOUND),
        exchange::Event::Rejected(rejection) => {
            exchange.respond(&rejection.response(), Duration::ZERO, now);
        }
    }
}

fn handle_session(protocol: &mut Protocol, event: session::Event<'_>, now: Timestamp) {
    let Some(session) = protocol.open_session_mut() else {
        return;
    };
    match event {
        session::Event::Failed(error) => {
            session.fail(&CloseFrame::new(error.close_code(), ""), now);
        }
        // Closing in the middle of the input is a path of its own.
        session::Event::Message(Message::Text("close")) => {
            session.close(&CloseFrame::new(CloseCode::NORMAL, ""), now);
        }
        session::Event::Message(Message::Text(text)) => session.send(Opcode::Text, text.as_bytes()),
        session::Event::Message(Message::Binary(bytes)) => session.send(Opcode::Binary, bytes),
        session::Event::Pong { .. } | session::Event::Discarded | session::Event::Closed { .. } => {
        }
    }
}

/// What a server sends must be frames that a client takes, and nothing after a Close.
fn check_answers(answers: &[u8]) {
    let mut frames = match answers.windows(4).position(|window| window == b"\r\n\r\n") {
        Some(end) if answers.starts_with(b"HTTP/1.1 101 ") => &answers[end + 4..],
        _ => return,
    };
    while !frames.is_empty() {
        let header: FrameHeader = decode_header(frames, Role::Client, MESSAGE_BYTES_MAX)
            .ok()
            .flatten()
            .unwrap_or_else(|| unreachable!("our frames are valid and whole"));
        frames = &frames[header.frame_len()..];
        assert!(
            header.opcode != Opcode::Close || frames.is_empty(),
            "nothing after a Close"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run_corpus;

    #[test]
    fn corpus_of_sessions() {
        run_corpus("session", fuzz_session);
    }
}
