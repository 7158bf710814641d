//! The table of connections: slots whose tenants have serials, so that an event or an id that
//! comes too late names nobody instead of the next tenant.
//!
//! The slots lie in chunks that are large enough to be mappings of their own: nothing is copied
//! as the table grows, pages that no connection has touched take no memory, and what a crowd
//! leaves behind goes back to the system, whatever else was allocated meanwhile.
//!
//! Invariants: no chunk before `room_from` has room; the last chunk has memory, those before it
//! may have none while they have no tenants.

use crate::id::ConnectionId;
use crate::memory;

use super::connection::Connection;
use super::socket::Socket;

/// Connections in a chunk.
pub(super) const CHUNK: usize = 1024;

/// A slot and what is in it.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "slots are all alike, and a tenant apart would be an allocation for each connection"
)]
enum Slot<T> {
    Tenant(Connection<T>),
    /// The next vacant slot of the chunk, or [`CHUNK`].
    Vacant(usize),
}

const _: () = {
    // That it is vacant is written where a tenant's own enums have values to spare.
    assert!(size_of::<Slot<Socket>>() == size_of::<Connection<Socket>>());
    // What malloc aligns by itself; beyond it, nothing is made shorter where it lies.
    assert!(align_of::<Slot<Socket>>() <= 16);
};

/// Slots with a list of the vacant ones.
#[derive(Debug)]
struct Chunk<T> {
    slots: Vec<Slot<T>>,
    len: usize,
    /// The first vacant slot; [`CHUNK`] or the number of slots if there is none before their
    /// end.
    vacant: usize,
}

impl<T> Default for Chunk<T> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            len: 0,
            vacant: 0,
        }
    }
}

impl<T> Chunk<T> {
    /// Puts the connection that `make` returns for its slot into it. There must be room.
    fn insert(&mut self, make: impl FnOnce(usize) -> Connection<T>) {
        // All at once, or growing would copy after all.
        self.slots.reserve_exact(CHUNK - self.slots.len());
        let slot = self.vacant;
        let tenant = Slot::Tenant(make(slot));
        match self.slots.get_mut(slot) {
            Some(vacant) => {
                if let Slot::Vacant(next) = std::mem::replace(vacant, tenant) {
                    self.vacant = next;
                }
            }
            None => {
                self.slots.push(tenant);
                self.vacant = self.slots.len();
            }
        }
        self.len += 1;
    }

    fn remove(&mut self, slot: usize) -> Option<Connection<T>> {
        let place = self.slots.get_mut(slot)?;
        match std::mem::replace(place, Slot::Vacant(self.vacant)) {
            Slot::Tenant(connection) => {
                self.vacant = slot;
                self.len -= 1;
                Some(connection)
            }
            vacant @ Slot::Vacant(_) => {
                *place = vacant;
                None
            }
        }
    }

    fn get(&self, slot: usize) -> Option<&Connection<T>> {
        match self.slots.get(slot)? {
            Slot::Tenant(connection) => Some(connection),
            Slot::Vacant(_) => None,
        }
    }

    fn get_mut(&mut self, slot: usize) -> Option<&mut Connection<T>> {
        match self.slots.get_mut(slot)? {
            Slot::Tenant(connection) => Some(connection),
            Slot::Vacant(_) => None,
        }
    }
}

/// All connections, by slot.
#[derive(Debug)]
pub struct Connections<T> {
    chunks: Vec<Chunk<T>>,
    /// The first chunk that may have room: low slots are taken first, so that a table stays
    /// as short as it can.
    room_from: usize,
    /// The one chunk without tenants that has memory all the same.
    spare: Option<usize>,
    len: usize,
    /// Given to the next connection; wraps.
    next_serial: u32,
}

impl<T> Default for Connections<T> {
    fn default() -> Self {
        Self {
            chunks: Vec::new(),
            room_from: 0,
            spare: None,
            len: 0,
            next_serial: 0,
        }
    }
}

impl<T> Connections<T> {
    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts the connection that `make` returns for its id into a slot.
    pub fn insert(&mut self, make: impl FnOnce(ConnectionId) -> Connection<T>) -> ConnectionId {
        let serial = self.next_serial;
        self.next_serial = serial.wrapping_add(1);
        while self
            .chunks
            .get(self.room_from)
            .is_some_and(|chunk| chunk.len == CHUNK)
        {
            self.room_from += 1;
        }
        if self.room_from == self.chunks.len() {
            self.chunks.push(Chunk::default());
        }
        if self.spare == Some(self.room_from) {
            self.spare = None;
        }
        let mut id = ConnectionId { index: 0, serial };
        let first = self.room_from * CHUNK;
        self.chunks[self.room_from].insert(|slot| {
            id.index = (first + slot) as u32;
            make(id)
        });
        self.len += 1;
        id
    }

    /// The connection that `id` names, if it is still there.
    #[inline]
    #[must_use]
    pub fn get(&self, id: ConnectionId) -> Option<&Connection<T>> {
        self.at(id.slot())
            .filter(|connection| connection.id.serial == id.serial)
    }

    /// The connection that `id` names, if it is still there.
    #[inline]
    pub fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection<T>> {
        let chunk = self.chunks.get_mut(id.slot() / CHUNK)?;
        chunk
            .get_mut(id.slot() % CHUNK)
            .filter(|connection| connection.id.serial == id.serial)
    }

    /// The id of the connection in slot `index`.
    #[must_use]
    pub fn id_at(&self, index: u32) -> Option<ConnectionId> {
        self.at(index as usize).map(|connection| connection.id)
    }

    fn at(&self, slot: usize) -> Option<&Connection<T>> {
        self.chunks.get(slot / CHUNK)?.get(slot % CHUNK)
    }

    /// Takes the connection out of its slot.
    pub fn remove(&mut self, id: ConnectionId) -> Option<Connection<T>> {
        self.get(id)?;
        let number = id.slot() / CHUNK;
        let chunk = &mut self.chunks[number];
        let connection = chunk.remove(id.slot() % CHUNK);
        self.len -= 1;
        if chunk.len == 0 {
            self.keep_as_spare(number);
        }
        self.room_from = self.room_from.min(number);
        connection
    }

    /// Keeps the memory of one empty chunk, of the lowest: whoever comes next goes there.
    fn keep_as_spare(&mut self, number: usize) {
        let Some(other) = self.spare.replace(number) else {
            return;
        };
        self.spare = Some(number.min(other));
        let chunk = std::mem::take(&mut self.chunks[number.max(other)]);
        memory::free(chunk.slots);
        while self
            .chunks
            .last()
            .is_some_and(|last| last.slots.capacity() == 0)
        {
            self.chunks.pop();
        }
        memory::shrink_sparse(&mut self.chunks, 0);
    }

    /// The ids of all connections.
    pub fn ids(&self) -> impl Iterator<Item = ConnectionId> {
        self.iter().map(|connection| connection.id)
    }

    /// All connections.
    pub fn iter(&self) -> impl Iterator<Item = &Connection<T>> {
        let chunks = self.chunks.iter();
        chunks.flat_map(|chunk| (0..chunk.slots.len()).filter_map(|slot| chunk.get(slot)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::application::{Lane, Peer, PeerAddress};
    use crate::random::Random;
    use crate::time::Timestamp;

    fn insert(connections: &mut Connections<u32>, transport: u32) -> ConnectionId {
        let peer = Peer {
            address: PeerAddress::Unix,
            lane: Lane::Publishers,
        };
        connections.insert(|id| Connection::new(id, peer, transport, Timestamp::ZERO))
    }

    #[test]
    fn ids_name_their_connection_and_no_later_one() {
        for seed in 0..20 {
            let mut random = Random::new(seed);
            let mut connections = Connections::default();
            let mut model: HashMap<ConnectionId, u32> = HashMap::new();
            let mut gone = Vec::new();
            for number in 0..3000 {
                // Crowds come and go.
                let is_leaving =
                    random.between(0, 999) < if number % 1000 < 500 { 200 } else { 900 };
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
            assert_eq!(connections.ids().count(), model.len(), "seed {seed}");
            for id in gone {
                assert!(connections.get_mut(id).is_none() && connections.remove(id).is_none());
            }
        }
    }

    #[test]
    fn low_slots_are_taken_first_and_memory_is_given_back() {
        let slots = |connections: &Connections<u32>| -> usize {
            connections
                .chunks
                .iter()
                .map(|chunk| chunk.slots.capacity())
                .sum()
        };
        for is_reversed in [false, true] {
            let mut connections = Connections::default();
            let mut ids: Vec<_> = (0..5000)
                .map(|number| insert(&mut connections, number))
                .collect();
            assert_eq!(ids[4999].index, 4999);
            if is_reversed {
                ids.reverse();
            }
            for &id in &ids[..4999] {
                connections.remove(id);
            }
            assert!(
                slots(&connections) <= 2 * CHUNK,
                "a survivor keeps only its chunk"
            );
            let late = insert(&mut connections, 0);
            assert!(late.slot() < CHUNK);
            connections.remove(ids[4999]);
            connections.remove(late);
            assert_eq!(slots(&connections), CHUNK);
        }
    }
}
