//! Frames (RFC 6455 §5): the decoder for what a peer sends, the encoder for what we send.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-------+-+-------------+-------------------------------+
//! |F|R|R|R| opcode|M| Payload len |    Extended payload length    |
//! |I|S|S|S|  (4)  |A|     (7)     |            (16/64)            |
//! |N|V|V|V|       |S|             |  (if payload len == 126/127)  |
//! | |1|2|3|       |K|             |                               |
//! +-+-+-+-+-------+-+-------------+ - - - - - - - - - - - - - - - +
//! |  masking key (4, if M)  |            payload                  |
//! +-------------------------+-------------------------------------+
//! ```
//!
//! A frame is decoded whole and in place: the payload is lent from the caller's buffer, never
//! copied. What the header alone proves wrong is refused before the payload is waited for.
//! Nothing here knows what came before: the order of fragments is `message`'s.

use std::fmt;

use super::error::ProtocolError;
use super::mask::{MaskingKey, apply_mask};
use crate::wire::shared::SharedBytes;

/// The largest payload of a control frame (§5.5).
pub const CONTROL_PAYLOAD_BYTES_MAX: usize = 125;

/// The longest header: two bytes, a length of eight, a masking key of four.
pub const HEADER_BYTES_MAX: usize = 14;

/// What a frame is (§5.2, §11.8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Opcode {
    /// The next fragment of a message that has begun.
    Continuation = 0x0,
    /// A text message, or its first fragment.
    Text = 0x1,
    /// A binary message, or its first fragment.
    Binary = 0x2,
    /// The sender is about to close.
    Close = 0x8,
    /// Asks for a Pong.
    Ping = 0x9,
    /// Answers a Ping, or comes unasked.
    Pong = 0xa,
}

impl Opcode {
    const fn from_bits(bits: u8) -> Result<Self, ProtocolError> {
        match bits {
            0x0 => Ok(Self::Continuation),
            0x1 => Ok(Self::Text),
            0x2 => Ok(Self::Binary),
            0x8 => Ok(Self::Close),
            0x9 => Ok(Self::Ping),
            0xa => Ok(Self::Pong),
            _ => Err(ProtocolError::ReservedOpcode(bits)),
        }
    }

    const fn bits(self) -> u8 {
        self as u8
    }

    /// Whether frames of this opcode may come between the fragments of a message (§5.5).
    #[must_use]
    pub const fn is_control(self) -> bool {
        self.bits() & 0x8 != 0
    }
}

/// Which end of the connection we are: it decides which side masks (§5.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// We expect masked frames and send unmasked ones.
    Server,
    /// We expect unmasked frames and send masked ones.
    Client,
}

/// What comes before a payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameHeader {
    /// Whether this is the last fragment of its message (§5.4).
    pub fin: bool,
    /// What the frame is.
    pub opcode: Opcode,
    /// Bytes of payload; at most what the caller of the decoder allowed.
    pub payload_len: usize,
    /// The key of a masked frame.
    pub masking_key: Option<MaskingKey>,
    /// Bytes of the header itself, 2 to [`HEADER_BYTES_MAX`].
    pub header_len: usize,
}

impl FrameHeader {
    /// Bytes from the first of the header to the last of the payload.
    #[must_use]
    pub const fn frame_len(&self) -> usize {
        self.header_len + self.payload_len
    }

    /// Unmasks `payload`, which is all of the frame's payload, in place; nothing if the frame
    /// isn't masked.
    #[inline]
    pub fn unmask(&self, payload: &mut [u8]) {
        debug_assert_eq!(payload.len(), self.payload_len);
        if let Some(key) = self.masking_key {
            apply_mask(payload, key);
        }
    }
}

/// A whole frame whose unmasked payload lies in the caller's buffer.
#[derive(PartialEq, Eq, Debug)]
pub struct Frame<'a> {
    /// What stood before the payload.
    pub header: FrameHeader,
    /// The payload, unmasked.
    pub payload: &'a mut [u8],
}

/// Reads the header at the start of `bytes`; `None` if it isn't all there yet.
///
/// # Errors
/// The rule of §5.2, §5.5 or of the limit that the header breaks. `payload_bytes_max` limits
/// data frames; control frames have their own limit.
#[inline]
pub fn decode_header(
    bytes: &[u8],
    role: Role,
    payload_bytes_max: usize,
) -> Result<Option<FrameHeader>, ProtocolError> {
    let Some((&[first, second], rest)) = bytes.split_first_chunk::<2>() else {
        // One byte is enough to refuse what it already shows.
        return bytes
            .first()
            .map_or(Ok(None), |&first| check_first_byte(first).map(|_| None));
    };
    let opcode = check_first_byte(first)?;
    let fin = first & 0x80 != 0;
    let masked = second & 0x80 != 0;
    match (role, masked) {
        (Role::Server, false) => return Err(ProtocolError::Unmasked),
        (Role::Client, true) => return Err(ProtocolError::Masked),
        _ => {}
    }
    let short = second & 0x7f;
    if opcode.is_control() && usize::from(short) > CONTROL_PAYLOAD_BYTES_MAX {
        return Err(ProtocolError::ControlTooLong);
    }
    let Some((payload_len, length_bytes)) = decode_length(short, rest)? else {
        return Ok(None);
    };
    let payload_len = match usize::try_from(payload_len) {
        Ok(len) if len <= payload_bytes_max || opcode.is_control() => len,
        _ => {
            return Err(ProtocolError::TooBig {
                bytes: payload_len,
                bytes_max: payload_bytes_max,
            });
        }
    };
    let mut header_len = 2 + length_bytes;
    let masking_key = if masked {
        let Some(key) = bytes[header_len..].first_chunk::<4>() else {
            return Ok(None);
        };
        header_len += 4;
        Some(MaskingKey(*key))
    } else {
        None
    };
    Ok(Some(FrameHeader {
        fin,
        opcode,
        payload_len,
        masking_key,
        header_len,
    }))
}

/// Reserved bits, opcode and fragmentation of control frames: all in the first byte.
#[inline]
const fn check_first_byte(first: u8) -> Result<Opcode, ProtocolError> {
    // §5.2: no extension was negotiated, so RSV1-3 must be 0.
    if first & 0x70 != 0 {
        return Err(ProtocolError::ReservedBits);
    }
    match Opcode::from_bits(first & 0x0f) {
        // §5.5: control frames are never fragmented.
        Ok(opcode) if opcode.is_control() && first & 0x80 == 0 => {
            Err(ProtocolError::FragmentedControl)
        }
        other => other,
    }
}

/// The payload length and how many bytes beyond the second it took; `None` if they aren't
/// all there. §5.2: the shortest form must be used, and the top bit of 64 is 0.
#[inline]
fn decode_length(short: u8, rest: &[u8]) -> Result<Option<(u64, usize)>, ProtocolError> {
    match short {
        126 => match rest.first_chunk::<2>() {
            None => Ok(None),
            Some(bytes) => match u64::from(u16::from_be_bytes(*bytes)) {
                length @ 126.. => Ok(Some((length, 2))),
                length => Err(ProtocolError::NonMinimalLength(length)),
            },
        },
        127 => match rest.first_chunk::<8>() {
            None => Ok(None),
            Some(bytes) => match u64::from_be_bytes(*bytes) {
                length if length >> 63 != 0 => Err(ProtocolError::LengthTopBit),
                length @ 0x1_0000.. => Ok(Some((length, 8))),
                length => Err(ProtocolError::NonMinimalLength(length)),
            },
        },
        length => Ok(Some((u64::from(length), 0))),
    }
}

/// Decodes the frame at the start of `bytes` and unmasks its payload in place; `None` if it
/// isn't all there yet, in which case nothing was changed.
///
/// # Errors
/// As [`decode_header`].
#[inline]
pub fn decode_frame(
    bytes: &mut [u8],
    role: Role,
    payload_bytes_max: usize,
) -> Result<Option<Frame<'_>>, ProtocolError> {
    let Some(header) = decode_header(bytes, role, payload_bytes_max)? else {
        return Ok(None);
    };
    // The addition can't overflow: the length is within a limit, or under 126.
    let Some(payload) = bytes.get_mut(header.header_len..header.frame_len()) else {
        return Ok(None);
    };
    header.unmask(payload);
    Ok(Some(Frame { header, payload }))
}

/// Appends the header of an unfragmented frame; lengths in their shortest form (§5.2).
fn encode_header(into: &mut Vec<u8>, opcode: Opcode, payload_len: usize, masked: bool) {
    let first = 0x80 | opcode.bits();
    let mask_bit = if masked { 0x80 } else { 0 };
    match (u8::try_from(payload_len), u16::try_from(payload_len)) {
        (Ok(length @ ..=125), _) => into.extend_from_slice(&[first, mask_bit | length]),
        (_, Ok(length)) => {
            into.extend_from_slice(&[first, mask_bit | 126]);
            into.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            into.extend_from_slice(&[first, mask_bit | 127]);
            into.extend_from_slice(&(payload_len as u64).to_be_bytes());
        }
    }
}

/// Bytes of such a header that isn't masked.
const fn header_len(payload_len: usize) -> usize {
    match payload_len {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    }
}

/// Appends a whole unmasked frame, as a server sends it.
pub fn encode_frame(into: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    into.reserve(HEADER_BYTES_MAX + payload.len());
    encode_header(into, opcode, payload.len(), false);
    into.extend_from_slice(payload);
}

/// Appends a whole masked frame, as a client sends it (§5.3).
pub fn encode_masked_frame(into: &mut Vec<u8>, opcode: Opcode, payload: &[u8], key: MaskingKey) {
    encode_header(into, opcode, payload.len(), true);
    into.extend_from_slice(&key.0);
    let start = into.len();
    into.extend_from_slice(payload);
    apply_mask(&mut into[start..], key);
}

/// A frame that was encoded once and is shared by every send queue that carries it.
///
/// Cloning costs a reference count.
#[derive(Clone)]
pub struct EncodedFrame(SharedBytes);

impl EncodedFrame {
    /// An unfragmented, unmasked text message whose payload is `parts`, one behind the other.
    /// They must be UTF-8 when put together.
    #[must_use]
    pub fn text(parts: &[&[u8]]) -> Self {
        let payload_len = parts.iter().map(|part| part.len()).sum();
        // Exactly, or the bytes would be moved when they are shared.
        let mut bytes = Vec::with_capacity(header_len(payload_len) + payload_len);
        encode_header(&mut bytes, Opcode::Text, payload_len, false);
        for part in parts {
            bytes.extend_from_slice(part);
        }
        Self(SharedBytes::new(bytes))
    }

    /// The frame as it travels, header first.
    #[inline]
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The frame again, of which another handle was kept.
    #[must_use]
    pub const fn of(shared: SharedBytes) -> Self {
        Self(shared)
    }

    /// The message that it carries.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        let bytes = self.as_bytes();
        let header_len = match bytes[1] {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        &bytes[header_len..]
    }

    /// The same as bytes that send queues share.
    #[inline]
    #[must_use]
    pub const fn shared(&self) -> &SharedBytes {
        &self.0
    }
}

impl fmt::Debug for EncodedFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the payload: frames end up in logs.
        write!(f, "EncodedFrame({} bytes)", self.as_bytes().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1 << 20;

    fn decode(bytes: &[u8], role: Role) -> Result<Option<(FrameHeader, Vec<u8>)>, ProtocolError> {
        let mut bytes = bytes.to_vec();
        decode_frame(&mut bytes, role, MAX)
            .map(|frame| frame.map(|f| (f.header, f.payload.to_vec())))
    }

    fn decode_whole(bytes: &[u8], role: Role) -> (FrameHeader, Vec<u8>) {
        decode(bytes, role).expect("valid").expect("complete")
    }

    #[test]
    fn a_log_never_shows_a_payload() {
        let frame = EncodedFrame::text(&[b"secret"]);
        assert_eq!(format!("{frame:?}"), "EncodedFrame(8 bytes)");
    }

    /// The examples of §5.7, byte for byte.
    #[test]
    fn examples_of_the_rfc() {
        let (header, payload) =
            decode_whole(&[0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f], Role::Client);
        assert_eq!(
            (header.fin, header.opcode, payload.as_slice()),
            (true, Opcode::Text, &b"Hello"[..])
        );

        let masked = [
            0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
        ];
        let (header, payload) = decode_whole(&masked, Role::Server);
        assert_eq!(
            (header.fin, header.opcode, payload.as_slice()),
            (true, Opcode::Text, &b"Hello"[..])
        );

        let (header, payload) = decode_whole(&[0x01, 0x03, 0x48, 0x65, 0x6c], Role::Client);
        assert_eq!(
            (header.fin, header.opcode, payload.as_slice()),
            (false, Opcode::Text, &b"Hel"[..])
        );
        let (header, payload) = decode_whole(&[0x80, 0x02, 0x6c, 0x6f], Role::Client);
        assert_eq!(
            (header.fin, header.opcode, payload.as_slice()),
            (true, Opcode::Continuation, &b"lo"[..])
        );

        let (header, payload) =
            decode_whole(&[0x89, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f], Role::Client);
        assert_eq!(
            (header.opcode, payload.as_slice()),
            (Opcode::Ping, &b"Hello"[..])
        );
        let masked_pong = [
            0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
        ];
        let (header, payload) = decode_whole(&masked_pong, Role::Server);
        assert_eq!(
            (header.opcode, payload.as_slice()),
            (Opcode::Pong, &b"Hello"[..])
        );

        let mut binary = vec![0x82, 0x7e, 0x01, 0x00];
        binary.resize(4 + 256, 7);
        let (header, payload) = decode_whole(&binary, Role::Client);
        assert_eq!(
            (header.opcode, payload.len(), header.header_len),
            (Opcode::Binary, 256, 4)
        );
        let mut binary = vec![0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0];
        binary.resize(10 + 65536, 7);
        let (header, payload) = decode_whole(&binary, Role::Client);
        assert_eq!(
            (header.opcode, payload.len(), header.header_len),
            (Opcode::Binary, 65536, 10)
        );
    }

    #[test]
    fn every_prefix_is_incomplete_and_changes_nothing() {
        for payload_len in [0usize, 1, 125, 126, 127, 65535, 65536] {
            let mut bytes = Vec::new();
            encode_masked_frame(
                &mut bytes,
                Opcode::Text,
                &vec![b'x'; payload_len],
                MaskingKey([1, 2, 3, 4]),
            );
            let step = 1 + bytes.len() / 200;
            for end in (0..bytes.len()).step_by(step).chain([bytes.len() - 1]) {
                let mut prefix = bytes[..end].to_vec();
                assert_eq!(
                    decode_frame(&mut prefix, Role::Server, MAX),
                    Ok(None),
                    "{payload_len}: {end}"
                );
                assert_eq!(prefix, bytes[..end]);
            }
            let (header, payload) = decode_whole(&bytes, Role::Server);
            assert_eq!(
                (header.frame_len(), payload.len()),
                (bytes.len(), payload_len)
            );
            assert!(payload.iter().all(|&byte| byte == b'x'));
        }
    }

    #[test]
    fn what_follows_a_frame_is_left_alone() {
        let mut bytes = Vec::new();
        encode_masked_frame(&mut bytes, Opcode::Text, b"one", MaskingKey([9, 8, 7, 6]));
        let first_len = bytes.len();
        encode_masked_frame(&mut bytes, Opcode::Text, b"two", MaskingKey([1, 2, 3, 4]));
        let second = bytes[first_len..].to_vec();
        let frame = decode_frame(&mut bytes, Role::Server, MAX)
            .expect("valid")
            .expect("complete");
        assert_eq!(
            (&*frame.payload, frame.header.frame_len()),
            (&b"one"[..], first_len)
        );
        assert_eq!(bytes[first_len..], second);
    }

    #[test]
    fn headers_that_break_a_rule() {
        use ProtocolError as E;
        let cases: [(&[u8], E); 14] = [
            (&[0xc1], E::ReservedBits),
            (&[0xa1, 0x80], E::ReservedBits),
            (&[0x91, 0x80], E::ReservedBits),
            (&[0x83], E::ReservedOpcode(3)),
            (&[0x87, 0x80], E::ReservedOpcode(7)),
            (&[0x8b, 0x80], E::ReservedOpcode(0xb)),
            (&[0x8f, 0x80], E::ReservedOpcode(0xf)),
            (&[0x81, 0x00], E::Unmasked),
            (&[0x08], E::FragmentedControl),
            (&[0x09, 0x80], E::FragmentedControl),
            (&[0x89, 0xfe], E::ControlTooLong),
            (&[0x88, 0xff], E::ControlTooLong),
            (&[0x81, 0xfe, 0x00, 0x7d], E::NonMinimalLength(125)),
            (
                &[0x81, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
                E::NonMinimalLength(65535),
            ),
        ];
        for (bytes, error) in cases {
            assert_eq!(decode(bytes, Role::Server), Err(error), "{bytes:x?}");
        }
        assert_eq!(
            decode(&[0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], Role::Server),
            Err(E::LengthTopBit)
        );
        assert_eq!(decode(&[0x81, 0x80], Role::Client), Err(E::Masked));
    }

    #[test]
    fn the_limit_is_checked_before_the_payload_is_there() {
        let at_limit = [0x82, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 0];
        assert_eq!(decode(&at_limit, Role::Server), Ok(None));
        let over = [0x82, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 1];
        let error = ProtocolError::TooBig {
            bytes: MAX as u64 + 1,
            bytes_max: MAX,
        };
        assert_eq!(decode(&over, Role::Server), Err(error));
        let huge = [0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert!(matches!(
            decode(&huge, Role::Server),
            Err(ProtocolError::TooBig { .. })
        ));
    }

    #[test]
    fn control_frames_are_not_under_the_limit_of_messages() {
        let mut ping = Vec::new();
        encode_masked_frame(
            &mut ping,
            Opcode::Ping,
            &[b'p'; 125],
            MaskingKey([1, 2, 3, 4]),
        );
        let frame = decode_frame(&mut ping, Role::Server, 10)
            .expect("valid")
            .expect("complete");
        assert_eq!(frame.payload.len(), 125);
    }

    #[test]
    fn encoder_uses_the_shortest_length() {
        for (payload_len, header_len) in [(0, 2), (125, 2), (126, 4), (65535, 4), (65536, 10)] {
            let mut bytes = Vec::new();
            encode_frame(&mut bytes, Opcode::Text, &vec![b'x'; payload_len]);
            assert_eq!(bytes.len(), header_len + payload_len);
            assert!(bytes.capacity() <= HEADER_BYTES_MAX + payload_len);
            let (header, payload) = decode_whole(&bytes, Role::Client);
            assert_eq!(
                (header.header_len, payload.len()),
                (header_len, payload_len)
            );
        }
    }

    #[test]
    fn a_shared_frame_is_its_parts() {
        let frame = EncodedFrame::text(&[br#"{"a":"#, b"1", b"}"]);
        assert_eq!(frame.as_bytes(), b"\x81\x07{\"a\":1}");
    }
}
