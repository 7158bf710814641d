//! The table of connections: a slab whose slots have serials, so that an event or an id that
//! comes too late names nobody instead of the next tenant.

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

    /// Puts the connection that `make` returns for its id into a slot.
    pub fn insert(&mut self, make: impl FnOnce(ConnectionId) -> Connection<T>) -> ConnectionId {
        let serial = self.next_serial;
        self.next_serial = serial.wrapping_add(1);
        let entry = self.slots.vacant_entry();
        let id = ConnectionId {
            index: entry.key() as u32,
            serial,
        };
        entry.insert(make(id));
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

    /// Gives back the memory of those that have gone; says whether that was worth a try.
    pub fn shrink(&mut self) -> bool {
        let is_sparse = self.slots.len() < self.slots.capacity() / 4;
        if is_sparse {
            self.slots.shrink_to_fit();
        }
        is_sparse
    }

    /// The ids of all connections.
    pub fn ids(&self) -> impl Iterator<Item = ConnectionId> {
        self.slots.iter().map(|(_, connection)| connection.id)
    }

    /// All connections.
    pub fn iter(&self) -> impl Iterator<Item = &Connection<T>> {
        self.slots.iter().map(|(_, connection)| connection)
    }
}
