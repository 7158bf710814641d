//! Bodies of the fuzz targets: each takes any bytes, and panics if a promise is broken.
//!
//! Run on a small corpus as tests too, so that what a fuzzer once found stays found.

use std::io::IoSlice;
use std::time::Duration;

use crate::http::body::BodyPermit;
use crate::http::head::Head;
use crate::http::host;
use crate::http::response::Response;
use crate::http::status::Status;
use crate::time::Timestamp;
use fastrand::Rng;

use super::close::{CLOSE_REASON_BYTES_MAX, CloseFrame};
use super::event::Event;
use super::frame::{FrameHeader, Opcode, Role, decode_frame, decode_header, encode_masked_frame};
use super::handshake::{ClientHandshake, asks_for_upgrade, check_upgrade};
use super::message::Message;
use super::session::Session;

const MESSAGE_BYTES_MAX: usize = 2000;
const BODY_BYTES_MAX: usize = 100;

/// The frame decoder: a prefix never decides otherwise than the whole, nothing is changed
/// before a frame is complete, and what was decoded encodes to the same bytes.
pub fn fuzz_frame(bytes: &[u8]) {
    for role in [Role::Server, Role::Client] {
        let whole = decode_header(bytes, role, MESSAGE_BYTES_MAX);
        for end in 0..bytes.len().min(20) {
            match decode_header(&bytes[..end], role, MESSAGE_BYTES_MAX) {
                Ok(None) => {}
                early => assert_eq!(early, whole, "the header was decided by {end} bytes"),
            }
        }
        let mut buffer = bytes.to_vec();
        match decode_frame(&mut buffer, role, MESSAGE_BYTES_MAX) {
            Ok(Some(frame)) => {
                let (header, payload) = (frame.header, frame.payload.to_vec());
                assert!(payload.len() <= MESSAGE_BYTES_MAX.max(125));
                if let (true, Some(key)) = (header.fin, header.masking_key) {
                    let mut again = Vec::new();
                    encode_masked_frame(&mut again, header.opcode, &payload, key);
                    assert_eq!(
                        again,
                        bytes[..header.frame_len()],
                        "one encoding for each frame"
                    );
                }
                assert_eq!(buffer[header.frame_len()..], bytes[header.frame_len()..]);
            }
            Ok(None) | Err(_) => assert_eq!(buffer, bytes, "nothing is unmasked early"),
        }
    }
}

/// The request head: a longer input never changes what a head was read as.
pub fn fuzz_head(bytes: &[u8]) {
    let whole = Head::parse(bytes, 0, 1024);
    if let Ok(Some((head, length))) = &whole {
        assert!(bytes[..*length].ends_with(b"\r\n\r\n"));
        check_lines(&bytes[..*length]);
        assert_eq!(
            whole,
            Head::parse(&bytes[..*length], 0, 1024),
            "what follows doesn't matter"
        );
        for seen in 0..*length {
            assert_eq!(
                Head::parse(&bytes[..seen], 0, 1024),
                Ok(None),
                "not before its end"
            );
            assert_eq!(
                whole,
                Head::parse(bytes, seen, 1024),
                "however often it was looked at"
            );
        }
        assert!(head.path().len() <= head.target.len().max(1));
        if host::check(head).is_ok() {
            let hosts: Vec<_> = head.fields.values("Host").collect();
            assert!(hosts.len() <= 1 && hosts.len() >= head.minor_version.min(1).into());
            let is_odd = |byte: &u8| !byte.is_ascii_graphic() || b"/?#@\\\"<>{}|^`".contains(byte);
            assert!(!hosts.concat().iter().any(is_odd), "{hosts:?}");
        }
        if asks_for_upgrade(head) && check_upgrade(head).is_ok() {
            assert_eq!(head.method, "GET");
        }
    }
}

/// A head that was taken reads the same to whoever ends lines at a line feed, or at a carriage return.
fn check_lines(head: &[u8]) {
    for (position, &byte) in head.iter().enumerate() {
        let is_right = match byte {
            b'\r' => head.get(position + 1) == Some(&b'\n'),
            b'\n' => position > 0 && head[position - 1] == b'\r',
            _ => byte == b'\t' || !byte.is_ascii_control(),
        };
        assert!(is_right, "{byte:#x} at {position}");
    }
}

/// The payload of a Close: what can be read is written the same again, and fits.
pub fn fuzz_close(bytes: &[u8]) {
    if let Ok(frame) = CloseFrame::decode(bytes) {
        assert_eq!(frame.encode(), bytes);
        if let Some(code) = frame.code {
            assert!(CloseFrame::new(code, frame.reason).reason.len() <= CLOSE_REASON_BYTES_MAX);
        }
    }
}

/// A whole session: the same events and the same answers, however the bytes are cut. The
/// handshake stands before bytes that don't begin with one: a fuzzer would hardly find it.
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

/// What a session made of `stream` in pieces of `chunks` bytes: its events and its answers.
fn drive(stream: &[u8], chunks: &[usize]) -> (Vec<String>, Vec<u8>) {
    let now = Timestamp::ZERO;
    let mut session = Session::new(now);
    let mut record = Vec::new();
    let mut rest = stream;
    for &chunk in chunks {
        let (received, behind) = rest.split_at(chunk);
        rest = behind;
        let mut received = received.to_vec();
        let mut incoming = session.take_incoming();
        let mut input = incoming.input(&mut received, usize::MAX);
        while let Some(event) = session.next_event(&mut input, now, 1024) {
            let line = format!("{event:?}");
            match event {
                Event::Upgrade { accept, .. } => session.accept(accept, MESSAGE_BYTES_MAX),
                Event::Request { head, framing } if head.method == "POST" => {
                    let permit = BodyPermit {
                        bytes_max: BODY_BYTES_MAX,
                        is_authorized: true,
                    };
                    if session.receive(&head, framing, permit, now).is_err() {
                        session.respond(
                            &Response::new(Status::CONTENT_TOO_LARGE, ""),
                            Duration::ZERO,
                            now,
                        );
                    }
                }
                Event::Body {
                    body, stays: true, ..
                } => {
                    assert!(body.len() <= BODY_BYTES_MAX);
                    session.answer(&Response::new(Status::OK, ""), Duration::ZERO, now);
                }
                Event::Request { .. } | Event::Body { .. } => {
                    session.respond(&Response::new(Status::NOT_FOUND, ""), Duration::ZERO, now)
                }
                Event::Failed(error) => session.fail(&CloseFrame::new(error.close_code(), ""), now),
                // Closing in the middle of the input is a path of its own.
                Event::Message(Message::Text("close")) => {
                    session.close(&CloseFrame::new(super::close::CloseCode::NORMAL, ""), now);
                }
                Event::Message(Message::Text(text)) => session.send(Opcode::Text, text.as_bytes()),
                Event::Message(Message::Binary(bytes)) => session.send(Opcode::Binary, bytes),
                Event::Rejected(rejection) => {
                    session.respond(&rejection.response(), Duration::ZERO, now)
                }
                Event::Pong { .. } | Event::Discarded | Event::Closed { .. } => {}
            }
            record.push(line);
        }
        let leftover = input.finish();
        session.keep_incoming(incoming, &received, &leftover, now);
        if session.is_closed() {
            break;
        }
    }
    let mut slices = vec![IoSlice::new(&[]); session.queue().segments_len()];
    let filled = session.queue().gather(&mut slices);
    let answers: Vec<u8> = slices[..filled]
        .iter()
        .flat_map(|slice| slice.to_vec())
        .collect();
    assert_eq!(answers.len(), session.queue().unsent_bytes());
    check_answers(&answers);
    (record, answers)
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
    fn corpus_of_frames() {
        run_corpus("frame", fuzz_frame);
    }

    #[test]
    fn corpus_of_heads() {
        run_corpus("head", fuzz_head);
    }

    #[test]
    fn corpus_of_closes() {
        run_corpus("close", fuzz_close);
    }

    #[test]
    fn corpus_of_sessions() {
        run_corpus("session", fuzz_session);
    }
}
