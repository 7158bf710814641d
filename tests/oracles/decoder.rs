//! The session, fed in pieces of any size, against the plain decoder.

use std::io::IoSlice;

use crieur::time::Timestamp;
use crieur::wire::buffers::Buffers;
use crieur::ws::close::CloseFrame;
use crieur::ws::event::Event;
use crieur::ws::handshake::AcceptKey;
use crieur::ws::message::Message;
use crieur::ws::session::Session;

use fastrand::Rng;

use crate::naive_frames::{self as naive, Outcome, Said};

const MESSAGE_BYTES_MAX: usize = 2000;

/// Asserts that a session makes of `frames` what the plain decoder does, however they are cut.
pub(crate) fn check(frames: &[u8]) {
    let expected = naive::decode(frames, MESSAGE_BYTES_MAX);
    let seed = frames
        .iter()
        .fold(0, |sum: u64, &byte| sum.wrapping_mul(31) + u64::from(byte));
    let mut random = Rng::with_seed(seed);
    for bits_max in [0, 3, 10, 20] {
        let outcome = drive(frames, &mut || random.u64(1..=1 << bits_max) as usize);
        assert_eq!(outcome, expected, "in pieces of up to {}", 1 << bits_max);
    }
}

/// What a session makes of `stream` in pieces whose length `piece` says.
fn drive(stream: &[u8], piece: &mut dyn FnMut() -> usize) -> Outcome {
    let now = Timestamp::ZERO;
    let accept = AcceptKey::of(b"dGhlIHNhbXBsZSBub25jZQ==");
    let mut session = Session::accept(Buffers::default(), accept, MESSAGE_BYTES_MAX, now);
    let mut said = Vec::new();
    let mut rest = stream;
    while !rest.is_empty() && !session.is_closed() {
        let (received, behind) = rest.split_at(piece().min(rest.len()));
        rest = behind;
        let mut received = received.to_vec();
        let mut input = session.begin_turn(&mut received, usize::MAX);
        while let Some(event) = session.next_event(&mut input, now) {
            match event {
                Event::Message(Message::Text(text)) => said.push(Said::Text(text.to_owned())),
                Event::Message(Message::Binary(bytes)) => said.push(Said::Binary(bytes.to_vec())),
                Event::Closed { code } => {
                    said.push(Said::Close(code.map(|code| code.as_u16())));
                }
                Event::Failed(error) => {
                    said.push(Said::Violation(error.close_code().as_u16()));
                    session.fail(&CloseFrame::new(error.close_code(), ""), now);
                }
                other => panic!("{other:?}"),
            }
        }
        session.end_turn(input, now);
        session.check_invariants();
    }
    let pings = read_answers(&session, said.last());
    Outcome { said, pings }
}

/// The payloads of the Pongs that the session has queued. Behind them there is nothing but the
/// Close that the end of what was said asks for.
fn read_answers(session: &Session, end: Option<&Said>) -> Vec<Vec<u8>> {
    let mut slices = vec![IoSlice::new(&[]); session.buffers().queue().segments_len()];
    let filled = session.buffers().queue().gather(&mut slices);
    let queued: Vec<u8> = slices[..filled]
        .iter()
        .flat_map(|one| one.to_vec())
        .collect();
    let head = queued.windows(4).position(|four| four == b"\r\n\r\n");
    let mut rest = &queued[head.expect("the answer to the upgrade") + 4..];
    let mut pongs = Vec::new();
    let mut close = None;
    while let [first, length, behind @ ..] = rest {
        let (payload, behind) = behind.split_at(usize::from(*length));
        rest = behind;
        assert_eq!(close, None, "nothing follows a Close");
        match first {
            0x8a => pongs.push(payload.to_vec()),
            0x88 => close = Some(payload),
            _ => panic!("a frame that begins with {first:#x}"),
        }
    }
    let code = match end {
        Some(Said::Close(code)) => Some(*code),
        Some(Said::Violation(code)) => Some(Some(*code)),
        _ => None,
    };
    let expected = code.map(|code| code.map_or(Vec::new(), |code| code.to_be_bytes().to_vec()));
    assert_eq!(close.map(<[u8]>::to_vec), expected, "the Close");
    pongs
}

/// Frames that are valid for the most part.
#[allow(dead_code, reason = "the fuzz target brings bytes of its own")]
pub(crate) fn random(random: &mut Rng) -> Vec<u8> {
    let mut stream = Vec::new();
    let mut is_within = false;
    for _ in 0..random.u64(1..=12) {
        let opcode = match random.u64(0..=40) {
            0 => random.u64(0..=15) as u8,
            1 => naive::CLOSE,
            2..=8 => naive::PING,
            9..=11 => naive::PONG,
            _ if is_within => naive::CONTINUATION,
            12..=20 => naive::BINARY,
            _ => naive::TEXT,
        };
        let fin = opcode >= 8 || random.u64(0..=2) > 0;
        if opcode < 8 {
            is_within = !fin;
        }
        let payload = random_payload(opcode, random);
        push_frame(&mut stream, fin, opcode, &payload, random);
    }
    if random.u64(0..=5) == 0 {
        let position = random.u64(0..=stream.len() as u64 - 1) as usize;
        stream[position] ^= 1 << random.u64(0..=7);
    }
    if random.u64(0..=5) == 0 {
        stream.truncate(random.u64(0..=stream.len() as u64) as usize);
    }
    stream
}

fn random_payload(opcode: u8, random: &mut Rng) -> Vec<u8> {
    let length = match random.u64(0..=9) {
        0 => random.u64(100..=130),
        1 if opcode < 8 => random.u64(500..=2100),
        _ => random.u64(0..=20),
    } as usize;
    match opcode {
        naive::TEXT | naive::CONTINUATION => {
            // Cut anywhere, so that fragments end within characters.
            let text = "aé€😀".repeat(length / 4 + 1);
            let skipped = random.u64(0..=3) as usize * usize::from(random.u64(0..=9) == 0);
            text.as_bytes()[skipped..]
                .iter()
                .copied()
                .take(length)
                .collect()
        }
        naive::CLOSE => {
            let code = [1000, 1005, 3000, 999, 4999, 1014][random.u64(0..=5) as usize];
            let mut payload = u16::to_be_bytes(code).to_vec();
            payload.extend(vec![b'x'; length.min(123)]);
            payload.truncate(random.u64(0..=40) as usize);
            payload
        }
        _ => vec![b'p'; length],
    }
}

fn push_frame(into: &mut Vec<u8>, fin: bool, opcode: u8, payload: &[u8], random: &mut Rng) {
    into.push(u8::from(fin) << 7 | opcode);
    match payload.len() {
        length @ 0..=125 => into.push(0x80 | length as u8),
        length => {
            into.push(0x80 | 126);
            into.extend((length as u16).to_be_bytes());
        }
    }
    let key = (random.u64(..) as u32).to_be_bytes();
    into.extend(key);
    into.extend((0..payload.len()).map(|i| payload[i] ^ key[i % 4]));
}
