//! Close frames: status codes (RFC 6455 §7.4) and the payload that carries them (§5.5.1).
//!
//! Knows which codes may travel, not why the application closes: reasons are its own text.

use std::fmt;

use super::frame::CONTROL_PAYLOAD_BYTES_MAX;

/// The longest reason that fits into a Close frame behind the two bytes of its code (§5.5).
pub const CLOSE_REASON_BYTES_MAX: usize = CONTROL_PAYLOAD_BYTES_MAX - 2;

/// A status code that may stand in a Close frame.
///
/// Only [`CloseCode::from_wire`] and the constants make one, so a reserved code (1005, 1006,
/// 1015: §7.4.1) or one out of range can't be sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CloseCode(u16);

impl CloseCode {
    /// The purpose of the connection is fulfilled.
    pub const NORMAL: Self = Self(1000);
    /// The server is stopping.
    pub const GOING_AWAY: Self = Self(1001);
    /// The peer broke the protocol.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// A kind of data that is not accepted here.
    pub const UNSUPPORTED_DATA: Self = Self(1003);
    /// Data that is not what its type says: text that isn't UTF-8.
    pub const INVALID_PAYLOAD: Self = Self(1007);
    /// A rule of the application was broken.
    pub const POLICY_VIOLATION: Self = Self(1008);
    /// A message over the size limit.
    pub const MESSAGE_TOO_BIG: Self = Self(1009);
    /// The server met a condition that it did not expect.
    pub const INTERNAL_ERROR: Self = Self(1011);
    /// Overload: come back later (IANA registry).
    pub const TRY_AGAIN_LATER: Self = Self(1013);
    /// What the peer has to show is missing, malformed or expired (IANA registry).
    pub const UNAUTHORIZED: Self = Self(3000);

    /// The code of a received Close frame, or `None` where §7.4 forbids it on the wire.
    #[must_use]
    pub const fn from_wire(code: u16) -> Option<Self> {
        match code {
            1000..=1003 | 1007..=1014 | 3000..=4999 => Some(Self(code)),
            _ => None,
        }
    }

    /// The number itself.
    #[must_use]
    pub const fn as_u16(self) -> u16 {
        self.0
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What a Close frame says: nothing at all, or a code and a reason.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CloseFrame {
    /// The status; absent where the frame has no payload (the API's 1005).
    pub code: Option<CloseCode>,
    /// Text for the other side; empty without a code, at most 123 bytes.
    pub reason: String,
}

/// Why the payload of a Close frame can't be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClosePayloadError {
    /// One byte, where a code takes two (§5.5.1).
    Truncated,
    /// A code that must not be sent (§7.4).
    Code(u16),
    /// The reason is not UTF-8 (§5.5.1).
    Utf8,
}

impl CloseFrame {
    /// A Close frame with `code` and `reason`; a reason that doesn't fit is cut at the last
    /// character that does.
    #[must_use]
    pub fn new(code: CloseCode, reason: impl Into<String>) -> Self {
        let mut reason = reason.into();
        if reason.len() > CLOSE_REASON_BYTES_MAX {
            let mut end = CLOSE_REASON_BYTES_MAX;
            while !reason.is_char_boundary(end) {
                end -= 1;
            }
            reason.truncate(end);
        }
        Self {
            code: Some(code),
            reason,
        }
    }

    /// A Close frame without a payload.
    #[must_use]
    pub const fn empty() -> Self {
        Self {
            code: None,
            reason: String::new(),
        }
    }

    /// Reads the payload of a Close frame (§5.5.1): two bytes of code in network order, then
    /// the reason; or nothing.
    ///
    /// # Errors
    /// [`ClosePayloadError`] says which rule the payload breaks.
    pub fn decode(payload: &[u8]) -> Result<Self, ClosePayloadError> {
        let Some((&[high, low], reason)) = payload.split_first_chunk::<2>() else {
            return if payload.is_empty() {
                Ok(Self::empty())
            } else {
                Err(ClosePayloadError::Truncated)
            };
        };
        let number = u16::from_be_bytes([high, low]);
        let code = CloseCode::from_wire(number).ok_or(ClosePayloadError::Code(number))?;
        let reason = std::str::from_utf8(reason).map_err(|_| ClosePayloadError::Utf8)?;
        Ok(Self {
            code: Some(code),
            reason: reason.to_owned(),
        })
    }

    /// The payload that says this; at most 125 bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut payload = Vec::with_capacity(2 + self.reason.len());
        if let Some(code) = self.code {
            payload.extend_from_slice(&code.as_u16().to_be_bytes());
            payload.extend_from_slice(self.reason.as_bytes());
        }
        payload
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_may_travel() {
        // §7.4.1 and §7.4.2; 1012-1014 are from the IANA registry.
        for code in [
            1000, 1001, 1002, 1003, 1007, 1011, 1012, 1014, 3000, 3999, 4000, 4999,
        ] {
            assert_eq!(
                CloseCode::from_wire(code).map(CloseCode::as_u16),
                Some(code)
            );
        }
        for code in [
            0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535,
        ] {
            assert_eq!(CloseCode::from_wire(code), None, "{code}");
        }
    }

    #[test]
    fn payload_is_read_and_written() {
        let frame = CloseFrame::new(CloseCode::NORMAL, "bye");
        assert_eq!(frame.encode(), b"\x03\xe8bye");
        assert_eq!(CloseFrame::decode(b"\x03\xe8bye"), Ok(frame));
        assert_eq!(CloseFrame::decode(b""), Ok(CloseFrame::empty()));
        assert_eq!(CloseFrame::empty().encode(), b"");
    }

    #[test]
    fn payload_that_breaks_a_rule() {
        assert_eq!(
            CloseFrame::decode(b"\x03"),
            Err(ClosePayloadError::Truncated)
        );
        assert_eq!(
            CloseFrame::decode(b"\x03\xed"),
            Err(ClosePayloadError::Code(1005))
        );
        assert_eq!(
            CloseFrame::decode(b"\x03\xe8\xff"),
            Err(ClosePayloadError::Utf8)
        );
    }

    #[test]
    fn long_reason_is_cut_at_a_character() {
        let fits = "a".repeat(CLOSE_REASON_BYTES_MAX);
        assert_eq!(
            CloseFrame::new(CloseCode::NORMAL, fits.clone()).reason,
            fits
        );
        let cut = CloseFrame::new(
            CloseCode::NORMAL,
            format!("{}é", "a".repeat(CLOSE_REASON_BYTES_MAX - 1)),
        );
        assert_eq!(cut.reason, "a".repeat(CLOSE_REASON_BYTES_MAX - 1));
    }
}
