//! What the hub knows of each connection beside its subscriptions, in one small record a slot.
//!
//! Knows nothing of messages. Main type: [`Connections`]. Invariants: a record is found only by
//! the id of the tenant that it is about; the last slot is never vacant.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::application::Peer;
use crate::id::ConnectionId;
use crate::memory::shrink_sparse;

/// What a connection may do, and what becomes of it when it publishes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Rights {
    /// Whether it may publish.
    pub(super) may_publish: bool,
    /// Whether it stays when it has published.
    pub(super) stays: bool,
}

/// A peer's address in 18 bytes instead of 32; the zone of a link-local address is lost, and it
/// is only for logs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct CompactAddress {
    octets: [u8; 16],
    port: u16,
}

impl From<Peer> for CompactAddress {
    fn from(peer: Peer) -> Self {
        let octets = match peer.address.ip() {
            IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            IpAddr::V6(address) => address.octets(),
        };
        Self {
            octets,
            port: peer.address.port(),
        }
    }
}

impl fmt::Display for CompactAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = Ipv6Addr::from(self.octets).to_canonical();
        fmt::Display::fmt(&SocketAddr::new(address, self.port), f)
    }
}

/// The admitted connections.
#[derive(Default)]
pub(super) struct Connections {
    records: Vec<Option<Record>>,
}

#[derive(Clone, Copy)]
struct Record {
    address: CompactAddress,
    serial: u32,
    rights: Rights,
}

impl Connections {
    /// Notes a connection.
    pub(super) fn insert(&mut self, id: ConnectionId, peer: Peer, rights: Rights) {
        if self.records.len() <= id.slot() {
            let missing = id.slot() + 1 - self.records.len();
            if self.records.capacity() <= id.slot() {
                // A quarter at a time: doubling would cost most of what a connection costs.
                self.records.reserve_exact(missing + id.slot() / 4);
            }
            self.records.resize(id.slot() + 1, None);
        }
        self.records[id.slot()] = Some(Record {
            address: peer.into(),
            serial: id.serial,
            rights,
        });
    }

    /// Forgets a connection; says whether it was there.
    pub(super) fn remove(&mut self, id: ConnectionId) -> bool {
        if self.find(id).is_none() {
            return false;
        }
        self.records[id.slot()] = None;
        while let Some(None) = self.records.last() {
            self.records.pop();
        }
        shrink_sparse(&mut self.records, 0);
        true
    }

    /// What a connection may do, and where it comes from.
    pub(super) fn find(&self, id: ConnectionId) -> Option<(Rights, CompactAddress)> {
        let record = self.records.get(id.slot())?.as_ref()?;
        (record.serial == id.serial).then_some((record.rights, record.address))
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.records.capacity() * size_of::<Option<Record>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str) -> Peer {
        Peer {
            address: address.parse().expect("an address"),
        }
    }

    const RIGHTS: Rights = Rights {
        may_publish: true,
        stays: false,
    };

    #[test]
    fn addresses_are_shown_as_they_came() {
        for address in ["127.0.0.1:80", "[::1]:8000", "[2001:db8::7]:1"] {
            assert_eq!(CompactAddress::from(peer(address)).to_string(), address);
        }
        let mapped = CompactAddress::from(peer("[::ffff:10.0.0.1]:9"));
        assert_eq!(mapped.to_string(), "10.0.0.1:9");
    }

    #[test]
    fn a_record_is_its_tenants_and_goes_with_it() {
        let mut connections = Connections::default();
        let old = ConnectionId {
            index: 7,
            serial: 1,
        };
        let new = ConnectionId {
            index: 7,
            serial: 2,
        };
        connections.insert(old, peer("127.0.0.1:80"), RIGHTS);
        assert!(connections.remove(old) && !connections.remove(old));
        connections.insert(new, peer("127.0.0.1:81"), RIGHTS);
        assert!(connections.find(old).is_none() && !connections.remove(old));
        assert_eq!(
            connections.find(new).map(|(rights, _)| rights),
            Some(RIGHTS)
        );
        assert!(connections.remove(new));
        assert_eq!(connections.heap_bytes(), 0);
    }

    #[test]
    fn a_record_is_small() {
        assert_eq!(size_of::<Option<Record>>(), 24);
    }
}
