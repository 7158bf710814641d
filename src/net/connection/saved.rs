//! A connection in a state: written between two turns, and restored around the transport that came over.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use crate::application::{BodyUse, Lane, Peer, PeerAddress};
use crate::config::ServerLimits;
use crate::handover::{Fields, Malformed, Members};
use crate::id::ConnectionId;
use crate::net::context::Context;
use crate::net::places::Kind;
use crate::net::protocol::Protocol;
use crate::net::schedule::Membership;
use crate::net::throttle::Throttle;
use crate::time::Timestamp;
use crate::wire::carried::{FrameNumbers, Frames};

use super::{Connection, Grants, IoState, Room};

// Members of a connection, beside those of its protocol, which begin at 13.
const INDEX: u8 = 1;
const SERIAL: u8 = 2;
const OCTETS: u8 = 3;
const PORT: u8 = 4;
const SCOPE: u8 = 5;
const PEER: u8 = 6;
const LANE: u8 = 7;
const IO: u8 = 9;
const GRANTS: u8 = 10;
const DEADLINE: u8 = 11;
const THROTTLE: u8 = 12;

// What PEER may be.
const IP: u64 = 0;
const UNIX: u64 = 1;
const UNKNOWN: u64 = 2;

// What LANE may be.
const CLIENTS: u64 = 0;
const PUBLISHERS: u64 = 1;

impl<T> Connection<T> {
    /// Writes what a successor must know, between two turns, when each shared frame of its queue has its number in
    /// `frames`.
    pub(in crate::net) fn save(&self, members: &mut Members<'_>, frames: &FrameNumbers) {
        let Self {
            peer,
            // From what it is.
            counted: _,
            deadline,
            id,
            // Goes over by itself.
            transport: _,
            io,
            // By `take_part`.
            membership: _,
            grants,
            protocol,
            throttle,
        } = self;
        let ConnectionId { index, serial } = *id;
        members.number(INDEX, index.into());
        members.number(SERIAL, serial.into());
        save_peer(*peer, members);
        members.number(IO, io.to_bits());
        members.number(GRANTS, grants.to_bits());
        members.time(DEADLINE, *deadline);
        if let Some(throttle) = throttle {
            members.nested(THROTTLE, |members| throttle.save(members));
        }
        protocol.save(members, frames);
    }

    /// What was saved, around `transport`. It isn't counted, charged or listed yet: `take_part` does that.
    ///
    /// # Errors
    /// It isn't what a connection can be between two turns.
    pub(in crate::net) fn restore(
        fields: &Fields<'_>,
        transport: T,
        frames: &Frames,
        limits: &ServerLimits,
        now: Timestamp,
    ) -> Result<Self, Malformed> {
        let throttle = fields.nested(THROTTLE)?;
        let throttle = throttle.map(|fields| Throttle::restore(&fields, limits, now));
        let connection = Self {
            peer: restore_peer(fields)?,
            counted: Kind::default(),
            deadline: fields.time(DEADLINE),
            id: ConnectionId {
                index: fields.narrow(INDEX)?,
                serial: fields.narrow(SERIAL)?,
            },
            transport,
            io: IoState::from_bits(fields.number(IO)),
            membership: Membership::default(),
            grants: Grants::from_bits(fields.number(GRANTS)),
            protocol: Protocol::restore(fields, frames)?,
            throttle: throttle.transpose()?.flatten(),
        };
        if connection.is_possible() {
            Ok(connection)
        } else {
            Err(Malformed("a connection has what it can't have"))
        }
    }

    /// Whether its grants fit what it is.
    fn is_possible(&self) -> bool {
        let Self {
            grants, protocol, ..
        } = self;
        let is_on_trial_rightly = grants.is_publisher && self.is_answer_due();
        (!grants.is_admitted || protocol.is_open())
            && (!grants.is_publisher || protocol.is_serving_http())
            && (!grants.has_place_on_trial || is_on_trial_rightly)
    }

    /// Puts it among the others: counted, charged, listed, with its timer.
    pub(in crate::net) fn take_part<C>(&mut self, context: &mut Context<C>) {
        let places = &mut context.places;
        places.enter(self.peer.lane);
        if self.grants.is_admitted || self.grants.is_publisher {
            places.admit(self.peer.lane);
        }
        let queue = self.protocol.queue();
        queue.shared().for_each(|frame| frame.pin(&context.pinned));
        // Something may be left to be written, to be told, or, of one that ends, to be shut.
        if !queue.is_empty() || self.grants.awaits_drained || !self.is_heard() {
            self.mark_delivery(context);
        }
        self.note_behind(context);
        self.recount(context);
        self.settle(context);
    }
}

fn save_peer(peer: Peer, members: &mut Members<'_>) {
    let Peer { address, lane } = peer;
    match address {
        PeerAddress::Ip(address) => {
            members.number(PEER, IP);
            members.number(PORT, address.port().into());
            match address {
                SocketAddr::V4(address) => members.bytes(OCTETS, &address.ip().octets()),
                // Its flow is of no meaning to anybody here.
                SocketAddr::V6(address) => {
                    members.bytes(OCTETS, &address.ip().octets());
                    members.number(SCOPE, address.scope_id().into());
                }
            }
        }
        PeerAddress::Unix => members.number(PEER, UNIX),
        PeerAddress::Unknown => members.number(PEER, UNKNOWN),
    }
    save_lane(LANE, lane, members);
}

/// Writes a lane as a member.
pub(in crate::net) fn save_lane(member: u8, lane: Lane, members: &mut Members<'_>) {
    let lane = match lane {
        Lane::Clients => CLIENTS,
        Lane::Publishers => PUBLISHERS,
    };
    members.number(member, lane);
}

/// Reads a lane.
pub(in crate::net) fn restore_lane(member: u8, fields: &Fields<'_>) -> Result<Lane, Malformed> {
    match fields.number(member) {
        CLIENTS => Ok(Lane::Clients),
        PUBLISHERS => Ok(Lane::Publishers),
        _ => Err(Malformed("there is no such lane")),
    }
}

fn restore_peer(fields: &Fields<'_>) -> Result<Peer, Malformed> {
    let address = match fields.number(PEER) {
        IP => PeerAddress::Ip(restore_address(fields)?),
        UNIX => PeerAddress::Unix,
        UNKNOWN => PeerAddress::Unknown,
        _ => return Err(Malformed("a peer is of no kind")),
    };
    let lane = restore_lane(LANE, fields)?;
    Ok(Peer { address, lane })
}

fn restore_address(fields: &Fields<'_>) -> Result<SocketAddr, Malformed> {
    let port = fields.narrow(PORT)?;
    let octets = fields.bytes(OCTETS);
    if let Ok(octets) = <[u8; 4]>::try_from(octets) {
        let ip = IpAddr::V4(Ipv4Addr::from(octets));
        return Ok(SocketAddr::new(ip, port));
    }
    let octets =
        <[u8; 16]>::try_from(octets).map_err(|_| Malformed("an address has another length"))?;
    let address = SocketAddrV6::new(Ipv6Addr::from(octets), port, 0, fields.narrow(SCOPE)?);
    Ok(address.into())
}

/// Bit 0 is the first of `flags`.
fn to_bits<const N: usize>(flags: [bool; N]) -> u64 {
    let bits = flags.into_iter().zip(0..);
    bits.map(|(is_set, bit)| u64::from(is_set) << bit).sum()
}

impl IoState {
    /// Each has its bit for ever.
    fn to_bits(self) -> u64 {
        let Self {
            room,
            is_readable,
            has_input,
            read_to_end,
            may_read_short,
            is_write_failed,
            is_served,
        } = self;
        to_bits([
            room == Room::Full,
            is_readable,
            has_input,
            read_to_end,
            may_read_short,
            is_write_failed,
            is_served,
        ])
    }

    const fn from_bits(bits: u64) -> Self {
        Self {
            // A successor watches all that it is given.
            room: match bits & 1 {
                0 => Room::Watched,
                _ => Room::Full,
            },
            is_readable: bits & 1 << 1 != 0,
            has_input: bits & 1 << 2 != 0,
            read_to_end: bits & 1 << 3 != 0,
            may_read_short: bits & 1 << 4 != 0,
            is_write_failed: bits & 1 << 5 != 0,
            is_served: bits & 1 << 6 != 0,
        }
    }
}

impl Grants {
    /// Each has its bit for ever.
    fn to_bits(self) -> u64 {
        let Self {
            is_admitted,
            is_publisher,
            body_use,
            drains_after_hang_up,
            closes_last,
            has_place_on_trial,
            awaits_drained,
            is_paused,
        } = self;
        let is_own = body_use == BodyUse::PublishByToken { is_own: true };
        to_bits([
            is_admitted,
            is_publisher,
            // Not of an explanation, too: an earlier build would publish its body.
            body_use == BodyUse::Publish,
            drains_after_hang_up,
            closes_last,
            has_place_on_trial,
            awaits_drained,
            is_paused,
            is_own,
            body_use == BodyUse::Explain,
        ])
    }

    const fn from_bits(bits: u64) -> Self {
        Self {
            is_admitted: bits & 1 != 0,
            is_publisher: bits & 1 << 1 != 0,
            body_use: match (bits & 1 << 2 != 0, bits & 1 << 9 != 0) {
                (_, true) => BodyUse::Explain,
                (true, false) => BodyUse::Publish,
                (false, false) => BodyUse::PublishByToken {
                    is_own: bits & 1 << 8 != 0,
                },
            },
            drains_after_hang_up: bits & 1 << 3 != 0,
            closes_last: bits & 1 << 4 != 0,
            has_place_on_trial: bits & 1 << 5 != 0,
            awaits_drained: bits & 1 << 6 != 0,
            is_paused: bits & 1 << 7 != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Members<'_>)) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut Members::new(&mut bytes));
        bytes
    }

    #[test]
    fn every_flag_has_a_bit_of_its_own() {
        for bits in 0..1 << 8 {
            let uses: &[u64] = if bits & 1 << 2 == 0 {
                &[0, 1 << 8, 1 << 9]
            } else {
                &[0]
            };
            for use_bits in uses {
                let bits = bits | use_bits;
                assert_eq!(Grants::from_bits(bits).to_bits(), bits);
            }
            assert_eq!(IoState::from_bits(bits).to_bits(), bits & 0x7f);
        }
    }

    #[test]
    fn peers_are_the_same_again() {
        let addresses = [
            "192.0.2.1:80",
            "0.0.0.0:0",
            "[2001:db8::1]:65535",
            "[fe80::1%7]:8000",
        ];
        let ips = addresses.map(|address| PeerAddress::Ip(address.parse().expect("an address")));
        let addresses = ips
            .into_iter()
            .chain([PeerAddress::Unix, PeerAddress::Unknown]);
        for address in addresses {
            for lane in [Lane::Clients, Lane::Publishers] {
                let peer = Peer { address, lane };
                let bytes = written(|members| save_peer(peer, members));
                let fields = Fields::parse(&bytes).expect("members");
                assert_eq!(restore_peer(&fields), Ok(peer));
            }
        }
    }

    #[test]
    fn a_peer_that_is_none_is_malformed() {
        for (member, value) in [(PEER, 3), (LANE, 2), (PORT, 1 << 16), (SCOPE, 1 << 32)] {
            let bytes = written(|members| {
                members.bytes(OCTETS, &[1; 16]);
                members.number(member, value);
            });
            let fields = Fields::parse(&bytes).expect("members");
            assert!(restore_peer(&fields).is_err(), "{member}");
        }
        for octets in [0, 3, 5, 17] {
            let bytes = written(|members| members.bytes(OCTETS, &vec![1; octets]));
            let fields = Fields::parse(&bytes).expect("members");
            assert!(restore_peer(&fields).is_err(), "{octets}");
        }
    }
}
