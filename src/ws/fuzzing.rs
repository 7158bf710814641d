//! Bodies of the fuzz targets: each takes any bytes, and panics if a promise is broken.
//!
//! Run on a small corpus as tests too, so that what a fuzzer once found stays found.

use crate::http::head::Head;
use crate::http::host;

use super::close::{CLOSE_REASON_BYTES_MAX, CloseFrame};
use super::frame::{Role, decode_frame, decode_header, encode_masked_frame};
use super::handshake::check_upgrade;

const MESSAGE_BYTES_MAX: usize = 2000;

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
        if head.asks_for_websocket() && check_upgrade(head).is_ok() {
            assert_eq!(head.method, "GET");
        }
    }
}

/// A head that was taken reads the same to a parser that ends lines at a line feed, or at a carriage return.
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
}
