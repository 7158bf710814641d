//! The table of connections: slots whose tenants have serials, so that an event or an id that
//! comes too late names nobody instead of the next tenant.
//!
//! Main type: [`Connections`]. Invariant: a connection's id names the slot that it is in.

use slab::Slab;

use crate::id::ConnectionId;

use super::connection::Connection;

/// All connections, by slot.
#[derive(Debug)]
pub struct Connections<T> {
    slots: Slab<Connection<T>>,
    /// Given to the next connection; wraps.
    next_serial: u32,
}

impl<T> Default for Connections<T> {
    fn default() -> Self {
        Self {
            slots: Slab::new(),
            next_serial: 0,
        }
    }
}

/// Puts connections into the slots that their ids name, each into its own.
impl<T> FromIterator<Connection<T>> for Connections<T> {
    fn from_iter<I: IntoIterator<Item = Connection<T>>>(connections: I) -> Self {
        let connections = connections.into_iter();
        Self {
            slots: connections
                .map(|connection| (connection.id.slot(), connection))
                .collect(),
            next_serial: 0,
        }
    }
}

impl<T> Connections<T> {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Puts the connection that `make` returns for its id into a slot: the one that was vacated
    /// last, since it is likely to be in the cache.
    pub fn insert(&mut self, make: impl FnOnce(ConnectionId) -> Connection<T>) -> ConnectionId {
        let serial = self.next_serial;
        self.next_serial = serial.wrapping_add(1);
        let slot = self.slots.vacant_entry();
        let id = ConnectionId {
            index: slot.key() as u32,
            serial,
        };
        slot.insert(make(id));
        id
    }

    /// The connection that `id` names, if it is still there.
    #[inline]
    #[must_use]
    pub fn get(&self, id: ConnectionId) -> Option<&Connection<T>> {
        self.slots
            .get(id.slot())
            .filter(|connection| connection.id.serial == id.serial)
    }

    /// The connection that `id` names, if it is still there.
    #[inline]
    pub fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection<T>> {
        self.slots
            .get_mut(id.slot())
            .filter(|connection| connection.id.serial == id.serial)
    }

    /// The id of the connection in slot `index`.
    #[must_use]
    pub fn id_at(&self, index: u32) -> Option<ConnectionId> {
        self.slots
            .get(index as usize)
            .map(|connection| connection.id)
    }

    /// Takes the connection out of its slot.
    pub fn remove(&mut self, id: ConnectionId) -> Option<Connection<T>> {
        self.get(id)?;
        self.slots.try_remove(id.slot())
    }

    /// Gives the vacant slots at the end back. Takes as long as there are slots.
    pub fn shrink(&mut self) {
        self.slots.shrink_to_fit();
    }

    /// The serial that the next connection gets.
    #[must_use]
    pub const fn next_serial(&self) -> u32 {
        self.next_serial
    }

    /// Goes on with the serials of a predecessor.
    pub const fn set_next_serial(&mut self, serial: u32) {
        self.next_serial = serial;
    }

    /// All connections.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Connection<T>> {
        self.slots.iter_mut().map(|(_, connection)| connection)
    }

    /// All connections.
    pub fn iter(&self) -> impl Iterator<Item = &Connection<T>> {
        self.slots.iter().map(|(_, connection)| connection)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::application::{Lane, Peer, PeerAddress};
    use crate::net::socket::Socket;
    use crate::time::Timestamp;
    use fastrand::Rng;

    fn insert<T>(connections: &mut Connections<T>, transport: T) -> ConnectionId {
        let peer = Peer {
            address: PeerAddress::Unix,
            lane: Lane::Publishers,
        };
        connections.insert(|id| Connection::new(id, peer, transport, Timestamp::ZERO))
    }

    #[test]
    fn ids_name_their_connection_and_no_later_one() {
        for seed in 0..20 {
            let mut random = Rng::with_seed(seed);
            let mut connections = Connections::default();
            let mut model: HashMap<ConnectionId, u32> = HashMap::new();
            let mut gone = Vec::new();
            for number in 0..3000 {
                // Crowds come and go.
                let is_leaving = random.u64(0..=999) < if number % 1000 < 500 { 200 } else { 900 };
                if is_leaving && let Some(&id) = model.keys().min_by_key(|id| id.serial ^ 0x155) {
                    let removed = connections.remove(id).expect("it is there");
                    assert_eq!(Some(removed.transport), model.remove(&id), "seed {seed}");
                    gone.push(id);
                } else {
                    model.insert(insert(&mut connections, number), number);
                }
                assert_eq!(connections.len(), model.len(), "seed {seed}");
            }
            for (&id, &transport) in &model {
                assert_eq!(connections.get(id).map(|c| c.transport), Some(transport));
                assert_eq!(connections.id_at(id.index), Some(id), "seed {seed}");
            }
            assert_eq!(connections.iter().count(), model.len(), "seed {seed}");
            for id in gone {
                assert!(connections.get_mut(id).is_none() && connections.remove(id).is_none());
            }
        }
    }

    #[test]
    fn vacant_slots_at_the_end_are_given_back() {
        let mut connections = Connections::default();
        let ids: Vec<_> = (0..5000)
            .map(|number| insert(&mut connections, number))
            .collect();
        for &id in ids.iter().filter(|id| id.index != 700) {
            connections.remove(id);
        }
        connections.shrink();
        assert_eq!(connections.slots.capacity(), 701);
        assert_eq!(connections.get(ids[700]).map(|c| c.transport), Some(700));
        assert!(insert(&mut connections, 0).index < 700);
        let ids: Vec<_> = connections.iter().map(|connection| connection.id).collect();
        for id in ids {
            connections.remove(id);
        }
        connections.shrink();
        assert_eq!(connections.slots.capacity(), 0);
    }

    #[test]
    fn a_slot_takes_no_more_than_its_connection() {
        let mut connections = Connections::default();
        let [a, b] = Socket::pair().map(|socket| insert(&mut connections, socket));
        let at = |id| std::ptr::from_ref(connections.get(id).expect("it is there")).addr();
        assert_eq!(at(b) - at(a), size_of::<Connection<Socket>>());
    }
}
