//! What a peer can do wrong on the WebSocket side, and the close code that answers it.
//!
//! These are the peer's faults only. A close is an event, not an error; an I/O failure is the
//! shell's; a limit that the application sets is the application's.

use std::fmt;

use super::close_code::CloseCode;

/// A rule of RFC 6455 that the peer broke, or the size limit that it ignored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProtocolError {
    /// RSV1, RSV2 or RSV3 is set, though no extension was negotiated (§5.2).
    ReservedBits,
    /// An opcode that means nothing (§5.2).
    ReservedOpcode(u8),
    /// A client's frame without a mask (§5.1).
    Unmasked,
    /// A server's frame with a mask (§5.1).
    Masked,
    /// A control frame that isn't whole (§5.5).
    FragmentedControl,
    /// A control frame with more than 125 bytes (§5.5).
    ControlTooLong,
    /// A length that a shorter form could have said (§5.2).
    NonMinimalLength(u64),
    /// A 64-bit length with its top bit set (§5.2).
    LengthTopBit,
    /// A continuation where no message had begun (§5.4).
    UnexpectedContinuation,
    /// A new message before the last one was finished (§5.4).
    ExpectedContinuation,
    /// Text that is not UTF-8 (§8.1).
    InvalidUtf8,
    /// A Close frame whose payload breaks §5.5.1 or §7.4.
    ClosePayload(ClosePayloadError),
    /// A message beyond the size limit (§10.4); `bytes` is what is known of its size.
    TooBig {
        /// What the message would have taken at least.
        bytes: u64,
        /// What it may take.
        bytes_max: usize,
    },
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

impl ProtocolError {
    /// The status code that tells the peer (§7.4.1).
    #[must_use]
    pub const fn close_code(self) -> CloseCode {
        match self {
            Self::ReservedBits
            | Self::ReservedOpcode(_)
            | Self::Unmasked
            | Self::Masked
            | Self::FragmentedControl
            | Self::ControlTooLong
            | Self::NonMinimalLength(_)
            | Self::LengthTopBit
            | Self::UnexpectedContinuation
            | Self::ExpectedContinuation
            | Self::ClosePayload(ClosePayloadError::Truncated | ClosePayloadError::Code(_)) => {
                CloseCode::PROTOCOL_ERROR
            }
            Self::InvalidUtf8 | Self::ClosePayload(ClosePayloadError::Utf8) => {
                CloseCode::INVALID_PAYLOAD
            }
            Self::TooBig { .. } => CloseCode::MESSAGE_TOO_BIG,
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ReservedBits => {
                f.write_str("a reserved bit is set, but no extension was negotiated")
            }
            Self::ReservedOpcode(opcode) => write!(f, "opcode {opcode:#x} is reserved"),
            Self::Unmasked => f.write_str("a client's frame is not masked"),
            Self::Masked => f.write_str("a server's frame is masked"),
            Self::FragmentedControl => f.write_str("a control frame is fragmented"),
            Self::ControlTooLong => f.write_str("a control frame is longer than 125 bytes"),
            Self::NonMinimalLength(length) => {
                write!(f, "length {length} is not in its shortest form")
            }
            Self::LengthTopBit => f.write_str("the top bit of a 64-bit length is set"),
            Self::UnexpectedContinuation => f.write_str("a continuation, but no message has begun"),
            Self::ExpectedContinuation => {
                f.write_str("a new message before the last one was finished")
            }
            Self::InvalidUtf8 => f.write_str("text is not UTF-8"),
            Self::ClosePayload(ClosePayloadError::Truncated) => {
                f.write_str("a close frame with one byte of payload")
            }
            Self::ClosePayload(ClosePayloadError::Code(code)) => {
                write!(f, "close code {code} must not be sent")
            }
            Self::ClosePayload(ClosePayloadError::Utf8) => {
                f.write_str("a close reason is not UTF-8")
            }
            Self::TooBig { bytes, bytes_max } => write!(
                f,
                "a message of {bytes} bytes or more, {bytes_max} are allowed"
            ),
        }
    }
}

impl std::error::Error for ProtocolError {}
