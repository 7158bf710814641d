//! Status codes of Close frames (RFC 6455 §7.4): which ones may travel.
//!
//! Knows neither frames nor errors, so that both can name it. Main type: [`CloseCode`].

use std::fmt;

/// A status code that may be in a Close frame.
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
}
