//! The name of a connection: which slot it sits in, and which of the slot's tenants it is.
//!
//! A slot is used again as soon as its connection is gone, so an index alone could name
//! somebody else by the time it is used. The serial tells tenants apart: a user of a
//! [`ConnectionId`] can compare it with the slot's and ignore what came too late.

use std::fmt;

/// Names one connection for as long as the process runs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId {
    /// The slot in the table of connections; dense from 0, so it can index side tables.
    pub index: u32,
    /// The tenant of the slot; never the same for two connections of one index until it
    /// wraps after 2^32 connections on that slot.
    pub serial: u32,
}

impl ConnectionId {
    /// The slot as an index into a side table.
    #[must_use]
    pub const fn slot(self) -> usize {
        self.index as usize
    }

    /// The one that is shown as `text`, if it is one.
    #[must_use]
    pub fn of_text(text: &str) -> Option<Self> {
        let (index, serial) = text.split_once('.')?;
        // Digits only: `parse` would take a sign.
        let number = |digits: &str| {
            let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse().ok().filter(|_| is_number)
        };
        let (index, serial) = (number(index)?, number(serial)?);
        Some(Self { index, serial })
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, self.serial)
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_shown() {
        let id = ConnectionId {
            index: 12,
            serial: 3,
        };
        assert_eq!(ConnectionId::of_text(&id.to_string()), Some(id));
        for text in [
            "",
            "12",
            "12.",
            ".3",
            "+12.3",
            "12.-3",
            "12.3.4",
            "4294967296.1",
        ] {
            assert_eq!(ConnectionId::of_text(text), None, "{text}");
        }
    }
}
