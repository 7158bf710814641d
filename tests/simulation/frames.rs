//! Frames as the simulated clients write and read them: by RFC 6455 alone, nothing is shared with
//! the product.

use crate::dice::Dice;

pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xa;

/// Appends a masked frame (§5.2); `first` is its first byte.
pub(crate) fn push_frame(into: &mut Vec<u8>, first: u8, payload: &[u8], dice: &mut Dice) {
    into.push(first);
    match payload.len() {
        length @ 0..=125 => into.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            into.push(0x80 | 126);
            into.extend((length as u16).to_be_bytes());
        }
        length => {
            into.push(0x80 | 127);
            into.extend((length as u64).to_be_bytes());
        }
    }
    let key = (dice.next_u64() as u32).to_be_bytes();
    into.extend(key);
    for part in payload.chunks(4) {
        into.extend(part.iter().zip(key).map(|(byte, key)| byte ^ key));
    }
}

/// A frame that the server sent.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
}

/// Takes the first whole frame off `bytes`.
///
/// Panics at whatever a server must not send: a mask (§5.1), a reserved bit or opcode, a length
/// that isn't minimal (§5.2), a control frame that is long or a fragment (§5.5). That the server
/// needn't fragment messages is its own promise.
pub(crate) fn take_frame(bytes: &mut Vec<u8>) -> Option<Frame> {
    let [first, second, rest @ ..] = &bytes[..] else {
        return None;
    };
    assert_eq!(first & 0xf0, 0x80, "FIN alone: {first:#x}");
    let opcode = first & 0x0f;
    assert!([TEXT, CLOSE, PING, PONG].contains(&opcode), "{opcode:#x}");
    let (payload_len, header_len) = match second {
        126 => {
            let length = u16::from_be_bytes(*rest.first_chunk()?);
            assert!(length > 125, "{length} is not minimal");
            (usize::from(length), 4)
        }
        127 => {
            let length = u64::from_be_bytes(*rest.first_chunk()?);
            assert!(length > 0xffff, "{length} is not minimal");
            (length as usize, 10)
        }
        length => {
            assert!(*length < 126, "masked");
            (usize::from(*length), 2)
        }
    };
    assert!(opcode == TEXT || payload_len <= 125, "a long control frame");
    let end = header_len + payload_len;
    if bytes.len() < end {
        return None;
    }
    let payload = bytes[header_len..end].to_vec();
    bytes.drain(..end);
    Some(Frame { opcode, payload })
}
