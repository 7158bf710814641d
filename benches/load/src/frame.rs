//! Just enough of RFC 6455 for both ends of a measurement: a scanner of frames, and an encoder.
//!
//! The scanner is strict about what a server may send (§5.1, §5.2), because a generator that
//! overlooks a fault would count it as a delivery.

/// The opcodes of §5.2 that occur here.
pub(crate) const TEXT: u8 = 0x1;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xa;

/// Any key will do: nothing between the two ends needs protection from the payload (§10.3).
const MASKING_KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The beginning of a frame, taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub(crate) opcode: u8,
    pub(crate) masking_key: Option<[u8; 4]>,
    pub(crate) header_len: usize,
    pub(crate) payload_len: usize,
}

impl Header {
    /// Bytes of the whole frame.
    pub(crate) const fn frame_len(&self) -> usize {
        self.header_len + self.payload_len
    }
}

/// Reads the header of an unfragmented frame; `None` if there is too little of it.
///
/// # Errors
/// What no server or client of ours sends.
pub(crate) fn scan(bytes: &[u8]) -> Result<Option<Header>, String> {
    let &[first, second, ..] = bytes else {
        return Ok(None);
    };
    if first & 0xf0 != 0x80 {
        return Err(format!("a frame begins with the byte {first:#04x}"));
    }
    let (length_len, is_masked) = match second & 0x7f {
        126 => (2, second & 0x80 != 0),
        127 => (8, second & 0x80 != 0),
        _ => (0, second & 0x80 != 0),
    };
    let header_len = 2 + length_len + if is_masked { 4 } else { 0 };
    if bytes.len() < header_len {
        return Ok(None);
    }
    let payload_len = match length_len {
        0 => u64::from(second & 0x7f),
        _ => bytes[2..2 + length_len]
            .iter()
            .fold(0, |sum, &byte| sum << 8 | u64::from(byte)),
    };
    if (length_len == 2 && payload_len < 126) || (length_len == 8 && payload_len < 1 << 16) {
        return Err(format!(
            "a length of {payload_len} is written in {length_len} bytes"
        ));
    }
    let masking_key = is_masked.then(|| {
        let mut key = [0; 4];
        key.copy_from_slice(&bytes[header_len - 4..header_len]);
        key
    });
    Ok(Some(Header {
        opcode: first & 0x0f,
        masking_key,
        header_len,
        payload_len: usize::try_from(payload_len)
            .map_err(|_| format!("a frame of {payload_len} bytes"))?,
    }))
}

/// Appends the header of an unfragmented frame.
fn push_header(opcode: u8, payload_len: usize, mask_bit: u8, out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    match payload_len {
        0..126 => out.push(mask_bit | payload_len as u8),
        126..0x1_0000 => {
            out.push(mask_bit | 126);
            out.extend_from_slice(&(payload_len as u16).to_be_bytes());
        }
        _ => {
            out.push(mask_bit | 127);
            out.extend_from_slice(&(payload_len as u64).to_be_bytes());
        }
    }
}

/// Appends a frame as a server sends it; the payload is given in pieces.
pub(crate) fn push_server_frame(opcode: u8, pieces: &[&[u8]], out: &mut Vec<u8>) {
    let payload_len = pieces.iter().map(|piece| piece.len()).sum();
    push_header(opcode, payload_len, 0, out);
    for piece in pieces {
        out.extend_from_slice(piece);
    }
}

/// Appends a frame as a client sends it, masked.
pub(crate) fn push_client_frame(opcode: u8, pieces: &[&[u8]], out: &mut Vec<u8>) {
    let payload_len = pieces.iter().map(|piece| piece.len()).sum();
    push_header(opcode, payload_len, 0x80, out);
    out.extend_from_slice(&MASKING_KEY);
    let start = out.len();
    for piece in pieces {
        out.extend_from_slice(piece);
    }
    apply_mask(MASKING_KEY, &mut out[start..]);
}

/// §5.3, eight bytes at a time.
pub(crate) fn apply_mask(key: [u8; 4], bytes: &mut [u8]) {
    let word = u64::from(u32::from_ne_bytes(key)) * 0x1_0000_0001;
    let (chunks, rest) = bytes.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key.into_iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_rfc_6455_section_5_7() {
        let unmasked = [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f];
        let header = scan(&unmasked).expect("valid").expect("complete");
        assert_eq!((header.opcode, header.masking_key), (TEXT, None));
        assert_eq!((header.header_len, header.payload_len), (2, 5));
        let mut out = Vec::new();
        push_server_frame(TEXT, &[b"Hel", b"lo"], &mut out);
        assert_eq!(out, unmasked);
        out.clear();
        push_client_frame(TEXT, &[b"Hello"], &mut out);
        let masked = [
            0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
        ];
        assert_eq!(out, masked);
        let header = scan(&masked).expect("valid").expect("complete");
        assert_eq!(header.masking_key, Some([0x37, 0xfa, 0x21, 0x3d]));
        assert_eq!(header.frame_len(), masked.len());
    }

    #[test]
    fn every_length_is_read_as_it_was_written_and_at_every_split_point() {
        for len in [0, 1, 125, 126, 127, 65_535, 65_536, 70_001] {
            for is_masked in [false, true] {
                let payload = vec![b'x'; len];
                let mut out = Vec::new();
                if is_masked {
                    push_client_frame(TEXT, &[&payload], &mut out);
                } else {
                    push_server_frame(TEXT, &[&payload], &mut out);
                }
                let header = scan(&out).expect("valid").expect("complete");
                assert_eq!((header.payload_len, header.frame_len()), (len, out.len()));
                for split in 0..header.header_len {
                    assert_eq!(scan(&out[..split]), Ok(None));
                }
                if let Some(key) = header.masking_key {
                    apply_mask(key, &mut out[header.header_len..]);
                }
                assert_eq!(&out[header.header_len..], payload);
            }
        }
    }

    #[test]
    fn what_a_server_must_not_send_is_refused() {
        for bytes in [
            &[0x01, 0x00][..],
            &[0xc1, 0x00],
            &[0x80 | 0x41, 0x00],
            &[0x81, 126, 0, 125],
            &[0x81, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
        ] {
            assert!(scan(bytes).is_err(), "{bytes:?}");
        }
    }
}
