//! What the hub knows of each connection beside its subscriptions, in one small record a slot.
//!
//! Knows nothing of messages. Main type: [`Connections`]. Invariants: a record is found only by
//! the id of the tenant that it is about; the last slot is never vacant.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::access::policy::PublishRight;
use crate::application::{Peer, PeerAddress};
use crate::handover::{Fields, Malformed, Members};
use crate::id::ConnectionId;
use crate::journal::id::Position;

/// What a connection may do, and what becomes of it when it publishes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Rights {
    /// Whether it may publish.
    pub(super) publish: PublishRight,
    /// Whether it stays when it has published.
    pub(super) stays: bool,
    /// Whether it is the operator's own, whatever it may do ([`super::access::policy::Decision::is_own`]).
    pub(super) is_own: bool,
}

// Members of a connection's record, among those of hub/saved.rs.
const PUBLISH: u8 = 1;
const STAYS: u8 = 2;
const IS_OWN: u8 = 26;

impl Rights {
    /// Writes them.
    pub(super) fn save(self, members: &mut Members<'_>) {
        let Self {
            publish,
            stays,
            is_own,
        } = self;
        members.number(PUBLISH, number_of(publish));
        members.number(STAYS, u64::from(stays));
        members.number(IS_OWN, u64::from(is_own));
    }

    /// Reads what was written.
    ///
    /// # Errors
    /// There are no such rights.
    pub(super) fn restore(fields: &Fields<'_>) -> Result<Self, Malformed> {
        let number = fields.number(PUBLISH);
        let all = [
            PublishRight::Never,
            PublishRight::WithToken,
            PublishRight::Granted,
        ];
        let publish = all.into_iter().find(|&right| number_of(right) == number);
        Ok(Self {
            publish: publish.ok_or(Malformed("there is no such right to publish"))?,
            stays: fields.number(STAYS) != 0,
            is_own: fields.number(IS_OWN) != 0,
        })
    }

    fn is_kept_publisher(self) -> bool {
        self.stays && self.publish == PublishRight::Granted
    }
}

/// What stands for a right in a state. What isn't there grants nothing.
const fn number_of(right: PublishRight) -> u64 {
    match right {
        PublishRight::Never => 0,
        PublishRight::WithToken => 1,
        PublishRight::Granted => 2,
    }
}

/// A peer's address in 18 bytes instead of 32; the zone of a link-local address is lost. Nobody has the
/// unspecified one: the ports with it stand for the peers without an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct CompactAddress {
    octets: [u8; 16],
    port: u16,
}

const UNIX: CompactAddress = CompactAddress::without_ip(0);
const UNKNOWN: CompactAddress = CompactAddress::without_ip(1);

impl CompactAddress {
    const fn without_ip(port: u16) -> Self {
        let octets = Ipv6Addr::UNSPECIFIED.octets();
        Self { octets, port }
    }
}

impl From<PeerAddress> for CompactAddress {
    fn from(address: PeerAddress) -> Self {
        match address {
            PeerAddress::Ip(address) => Self {
                octets: match address.ip() {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
                    IpAddr::V6(ip) => ip.octets(),
                },
                port: address.port(),
            },
            PeerAddress::Unix => UNIX,
            PeerAddress::Unknown => UNKNOWN,
        }
    }
}

impl From<CompactAddress> for PeerAddress {
    fn from(address: CompactAddress) -> Self {
        match address {
            UNIX => Self::Unix,
            UNKNOWN => Self::Unknown,
            CompactAddress { octets, port } => {
                let ip = Ipv6Addr::from(octets).to_canonical();
                Self::Ip(SocketAddr::new(ip, port))
            }
        }
    }
}

impl fmt::Display for CompactAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&PeerAddress::from(*self), f)
    }
}

/// The table is made smaller when it has this many times more room than records.
const SPARSE_FACTOR: usize = 4;

/// The admitted connections.
#[derive(Default)]
pub(super) struct Connections {
    records: Vec<Option<Record>>,
    /// How many publish and stay.
    publishers: usize,
}

#[derive(Clone, Copy)]
struct Record {
    address: CompactAddress,
    publish: PublishRight,
    /// Of what is told apart by a bit.
    flags: u8,
    serial: u32,
    covers_from: Position,
}

const STAYS_FLAG: u8 = 0b001;
const IS_OWN_FLAG: u8 = 0b010;
/// Its end has been noted already.
const IS_ENDED_FLAG: u8 = 0b100;

impl Record {
    const fn rights(&self) -> Rights {
        Rights {
            publish: self.publish,
            stays: self.flags & STAYS_FLAG != 0,
            is_own: self.flags & IS_OWN_FLAG != 0,
        }
    }
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
        debug_assert!(self.records[id.slot()].is_none(), "the last tenant is gone");
        self.records[id.slot()] = Some(Record {
            address: peer.address.into(),
            publish: rights.publish,
            flags: u8::from(rights.stays) * STAYS_FLAG + u8::from(rights.is_own) * IS_OWN_FLAG,
            serial: id.serial,
            covers_from: Position::default(),
        });
        self.publishers += usize::from(rights.is_kept_publisher());
    }

    /// Lets a connection publish from now on.
    pub(super) fn grant_publish(&mut self, id: ConnectionId) {
        if let Some(Some(record)) = self.records.get_mut(id.slot())
            && record.serial == id.serial
        {
            self.publishers -= usize::from(record.rights().is_kept_publisher());
            record.publish = PublishRight::Granted;
            self.publishers += usize::from(record.rights().is_kept_publisher());
        }
    }

    /// Notes from which position on the list of a connection counts.
    pub(super) fn note_list(&mut self, id: ConnectionId, covers_from: Position) {
        if let Some(record) = self.record_mut(id) {
            record.covers_from = covers_from;
        }
    }

    /// Behind which position a connection gets all that its list asks for.
    pub(super) fn covers_from(&self, id: ConnectionId) -> Position {
        self.record(id)
            .map_or_else(Position::default, |record| record.covers_from)
    }

    /// Notes that it is known how a connection ends. Says whether it wasn't before.
    pub(super) fn note_end(&mut self, id: ConnectionId) -> bool {
        let Some(record) = self.record_mut(id) else {
            return false;
        };
        let is_new = record.flags & IS_ENDED_FLAG == 0;
        record.flags |= IS_ENDED_FLAG;
        is_new
    }

    /// Whether it is known how a connection ends.
    pub(super) fn is_ended(&self, id: ConnectionId) -> bool {
        let record = self.record(id);
        record.is_none_or(|record| record.flags & IS_ENDED_FLAG != 0)
    }

    fn record(&self, id: ConnectionId) -> Option<&Record> {
        let record = self.records.get(id.slot())?.as_ref()?;
        (record.serial == id.serial).then_some(record)
    }

    fn record_mut(&mut self, id: ConnectionId) -> Option<&mut Record> {
        let record = self.records.get_mut(id.slot())?.as_mut()?;
        (record.serial == id.serial).then_some(record)
    }

    /// Forgets a connection; returns what was known of it.
    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<(Rights, CompactAddress)> {
        let known = self.find(id)?;
        self.records[id.slot()] = None;
        self.publishers -= usize::from(known.0.is_kept_publisher());
        while let Some(None) = self.records.last() {
            self.records.pop();
        }
        if self.records.len() * SPARSE_FACTOR <= self.records.capacity() {
            self.records.shrink_to(self.records.len() * 2);
        }
        Some(known)
    }

    /// What a connection may do, and where it comes from.
    pub(super) fn find(&self, id: ConnectionId) -> Option<(Rights, CompactAddress)> {
        let record = self.record(id)?;
        Some((record.rights(), record.address))
    }

    /// As many slots as there are up to the last that is taken.
    pub(super) const fn slots_len(&self) -> usize {
        self.records.len()
    }

    /// Which connection is in a slot.
    pub(super) fn id_at(&self, slot: usize) -> Option<ConnectionId> {
        let serial = self.records.get(slot)?.as_ref()?.serial;
        let index = u32::try_from(slot).ok()?;
        Some(ConnectionId { index, serial })
    }

    /// The connections, in the order of their slots.
    #[cfg(test)]
    pub(super) fn ids(&self) -> impl Iterator<Item = ConnectionId> {
        let slots = (0..).zip(&self.records);
        slots.filter_map(|(index, record)| {
            let serial = record.as_ref()?.serial;
            Some(ConnectionId { index, serial })
        })
    }

    /// How many publish and stay.
    pub(super) const fn publishers_len(&self) -> usize {
        self.publishers
    }

    /// How many there are. Counts them.
    pub(super) fn len(&self) -> usize {
        self.records.iter().flatten().count()
    }

    /// Asserts what must hold between two calls.
    pub(super) fn check_invariants(&self) {
        let known = self.records.iter().flatten();
        let publishers = known.filter(|record| record.rights().is_kept_publisher());
        assert_eq!(self.publishers, publishers.count());
        assert!(self.records.last().is_none_or(Option::is_some));
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.records.capacity() * size_of::<Option<Record>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::application::Lane;

    fn peer(address: &str) -> Peer {
        Peer {
            address: PeerAddress::Ip(address.parse().expect("an address")),
            lane: Lane::Clients,
        }
    }

    const RIGHTS: Rights = Rights {
        publish: PublishRight::Granted,
        stays: false,
        is_own: true,
    };

    #[test]
    fn addresses_are_shown_as_they_came() {
        for address in ["127.0.0.1:80", "[::1]:8000", "[2001:db8::7]:1"] {
            let compact = CompactAddress::from(peer(address).address);
            assert_eq!(compact.to_string(), address);
            assert_eq!(PeerAddress::from(compact), peer(address).address);
        }
        let mapped = CompactAddress::from(peer("[::ffff:10.0.0.1]:9").address);
        assert_eq!(mapped.to_string(), "10.0.0.1:9");
        for address in [PeerAddress::Unix, PeerAddress::Unknown] {
            let compact = CompactAddress::from(address);
            assert_eq!(PeerAddress::from(compact), address);
        }
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
        assert!(connections.remove(old).is_some() && connections.remove(old).is_none());
        connections.insert(new, peer("127.0.0.1:81"), RIGHTS);
        assert!(connections.find(old).is_none() && connections.remove(old).is_none());
        assert_eq!(
            connections.find(new).map(|(rights, _)| rights),
            Some(RIGHTS)
        );
        assert!(connections.remove(new).is_some());
        assert_eq!(connections.heap_bytes(), 0);
    }

    #[test]
    fn a_record_is_small() {
        assert_eq!(size_of::<Option<Record>>(), 32);
    }

    #[test]
    fn rights_are_read_as_they_were_written() {
        for publish in [
            PublishRight::Never,
            PublishRight::WithToken,
            PublishRight::Granted,
        ] {
            for (stays, is_own) in [(false, false), (false, true), (true, false), (true, true)] {
                let rights = Rights {
                    publish,
                    stays,
                    is_own,
                };
                let mut bytes = Vec::new();
                rights.save(&mut Members::new(&mut bytes));
                let fields = Fields::parse(&bytes).expect("members");
                assert_eq!(Rights::restore(&fields), Ok(rights));
                let mut connections = Connections::default();
                let id = ConnectionId {
                    index: 0,
                    serial: 1,
                };
                connections.insert(id, peer("127.0.0.1:80"), rights);
                let kept = connections.find(id).map(|(rights, _)| rights);
                assert_eq!(kept, Some(rights));
            }
        }
        let mut bytes = Vec::new();
        Members::new(&mut bytes).number(PUBLISH, 3);
        assert!(Rights::restore(&Fields::parse(&bytes).expect("members")).is_err());
    }
}
