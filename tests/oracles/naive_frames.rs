//! RFC 6455 from a server's side, as plainly as it can be said: a whole stream of frames at once, and
//! what comes of it. Slow, and copies everything.

pub(crate) const CONTINUATION: u8 = 0x0;
pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xa;

/// What the peer said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Said {
    Text(String),
    Binary(Vec<u8>),
    /// Its Close, with this code.
    Close(Option<u16>),
    /// What the connection has to be failed for, with this code. Nothing is heard behind it.
    Violation(u16),
}

/// What comes of a stream: what was said, and the payloads of the Pings, which are to be answered.
#[derive(Default, PartialEq, Eq, Debug)]
pub(crate) struct Outcome {
    pub(crate) said: Vec<Said>,
    pub(crate) pings: Vec<Vec<u8>>,
}

/// A frame as it is in the stream.
struct Frame {
    fin: bool,
    opcode: u8,
    payload: Vec<u8>,
}

/// Decodes `stream`, of whose messages none may have more than `message_bytes_max` bytes.
pub(crate) fn decode(stream: &[u8], message_bytes_max: usize) -> Outcome {
    let mut outcome = Outcome::default();
    let mut rest = stream;
    let mut message: Option<(u8, Vec<u8>)> = None;
    loop {
        let frame = match take_frame(&mut rest, &message, message_bytes_max) {
            Ok(Some(frame)) => frame,
            Ok(None) => return outcome,
            Err(code) => {
                outcome.said.push(Said::Violation(code));
                return outcome;
            }
        };
        match frame.opcode {
            PONG => {}
            PING => outcome.pings.push(frame.payload),
            CLOSE => {
                outcome.said.push(close(&frame.payload));
                return outcome;
            }
            _ => match add(&mut message, frame) {
                None => {}
                Some(Said::Violation(code)) => {
                    outcome.said.push(Said::Violation(code));
                    return outcome;
                }
                Some(said) => outcome.said.push(said),
            },
        }
    }
}

/// Takes a frame off the stream (§5.2), `None` if it isn't all there; or the code to fail with.
///
/// A violation counts as soon as the bytes are there that show it: the first byte, the second, the
/// length, then, once the header is complete, the place of the frame among others (§5.4).
fn take_frame(
    rest: &mut &[u8],
    message: &Option<(u8, Vec<u8>)>,
    message_bytes_max: usize,
) -> Result<Option<Frame>, u16> {
    let stream = *rest;
    let Some(&first) = stream.first() else {
        return Ok(None);
    };
    let (fin, reserved, opcode) = (first & 0x80 != 0, first & 0x70, first & 0x0f);
    let is_control = opcode >= 8;
    let is_known = [CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG].contains(&opcode);
    if reserved != 0 || !is_known || (is_control && !fin) {
        return Err(1002);
    }
    let Some(&second) = stream.get(1) else {
        return Ok(None);
    };
    let (is_masked, short) = (second & 0x80 != 0, second & 0x7f);
    if !is_masked || (is_control && short > 125) {
        return Err(1002);
    }
    let length_bytes = match short {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let Some(digits) = stream.get(2..2 + length_bytes) else {
        return Ok(None);
    };
    let long = digits
        .iter()
        .fold(0, |sum: u128, &byte| sum * 256 + u128::from(byte));
    let length = match short {
        126 if long < 126 => return Err(1002),
        127 if long < 65_536 || long > i64::MAX as u128 => return Err(1002),
        126 | 127 => long,
        _ => u128::from(short),
    };
    let before = message.as_ref().map_or(0, |(_, payload)| payload.len());
    if !is_control && before as u128 + length > message_bytes_max as u128 {
        return Err(1009);
    }
    let key_at = 2 + length_bytes;
    let Some(key) = stream.get(key_at..key_at + 4) else {
        return Ok(None);
    };
    if !is_control && (opcode == CONTINUATION) != message.is_some() {
        return Err(1002);
    }
    let payload_at = key_at + 4;
    let end = payload_at + length as usize;
    let Some(masked) = stream.get(payload_at..end) else {
        return Ok(None);
    };
    let payload = (0..masked.len()).map(|i| masked[i] ^ key[i % 4]).collect();
    *rest = &stream[end..];
    Ok(Some(Frame {
        fin,
        opcode,
        payload,
    }))
}

/// Adds a data frame to the message that it belongs to; says what that made.
fn add(message: &mut Option<(u8, Vec<u8>)>, frame: Frame) -> Option<Said> {
    let (opcode, mut payload) = message.take().unwrap_or((frame.opcode, Vec::new()));
    payload.extend(frame.payload);
    if opcode == BINARY {
        if frame.fin {
            return Some(Said::Binary(payload));
        }
    } else {
        match std::str::from_utf8(&payload) {
            Ok(text) if frame.fin => return Some(Said::Text(text.to_owned())),
            Ok(_) => {}
            // A character that the fragment cuts in two may become one.
            Err(error) if error.error_len().is_none() && !frame.fin => {}
            Err(_) => return Some(Said::Violation(1007)),
        }
    }
    *message = Some((opcode, payload));
    None
}

/// What a Close says (§5.5.1, §7.4).
fn close(payload: &[u8]) -> Said {
    match payload {
        [] => Said::Close(None),
        [_] => Said::Violation(1002),
        [high, low, reason @ ..] => {
            let code = u16::from(*high) * 256 + u16::from(*low);
            match code {
                1000..=1003 | 1007..=1014 | 3000..=4999 => {}
                _ => return Said::Violation(1002),
            }
            match std::str::from_utf8(reason) {
                Ok(_) => Said::Close(Some(code)),
                Err(_) => Said::Violation(1007),
            }
        }
    }
}
