//! Close frames: the payload that carries a code and a reason (RFC 6455 §5.5.1).
//!
//! Knows how it is read and written, not why the application closes: reasons are its own text.
//! Main type: [`CloseFrame`].

pub use super::close_code::CloseCode;
use super::error::ClosePayloadError;
use super::frame::CONTROL_PAYLOAD_BYTES_MAX;

/// The longest reason that fits into a Close frame behind the two bytes of its code (§5.5).
pub const CLOSE_REASON_BYTES_MAX: usize = CONTROL_PAYLOAD_BYTES_MAX - 2;

/// What a Close frame says: nothing at all, or a code and a reason.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CloseFrame {
    /// The status; absent where the frame has no payload (the API's 1005).
    pub code: Option<CloseCode>,
    /// Text for the other side; empty without a code, at most 123 bytes.
    pub reason: String,
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
