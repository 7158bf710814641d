//! Who has subscribed to what, and the queue of each connection.
//!
//! Owns the only sender of a connection's queue: when the hub forgets a connection, its queue ends,
//! and so its task. All tasks run on one thread, so nobody ever waits for the lock of [`SharedHub`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use slab::Slab;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::protocol::Topic;

/// Messages that may wait for one connection; one that is further behind is cut off.
const QUEUED_MESSAGES_MAX: usize = 1024;

/// A connection that the hub knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConnectionId(u32);

/// The connections and their subscriptions. `M` is what a queue carries: cloning one is cheap.
struct Hub<M> {
    connections: Slab<Connection<M>>,
    topics: HashMap<Topic, Vec<ConnectionId>>,
}

struct Connection<M> {
    queue: Sender<M>,
    topics: Vec<Topic>,
}

impl<M: Clone> Hub<M> {
    fn connection(&mut self, id: ConnectionId) -> Option<&mut Connection<M>> {
        self.connections.get_mut(id.0 as usize)
    }

    fn set_topics(&mut self, id: ConnectionId, topics: Vec<Topic>) {
        let Some(connection) = self.connection(id) else {
            return;
        };
        for topic in std::mem::replace(&mut connection.topics, topics.clone()) {
            if let Some(subscribers) = self.topics.get_mut(&topic) {
                if let Some(position) = subscribers.iter().position(|&other| other == id) {
                    subscribers.swap_remove(position);
                }
                if subscribers.is_empty() {
                    self.topics.remove(&topic);
                }
            }
        }
        for topic in topics {
            self.topics.entry(topic).or_default().push(id);
        }
    }

    fn remove(&mut self, id: ConnectionId) {
        self.set_topics(id, Vec::new());
        self.connections.try_remove(id.0 as usize);
    }

    fn publish(&mut self, topic: &Topic, message: &M) -> (usize, usize) {
        let Some(subscribers) = self.topics.get(topic) else {
            return (0, 0);
        };
        let mut cut_off = Vec::new();
        for &id in subscribers {
            let queue = &self.connections[id.0 as usize].queue;
            if queue.try_send(message.clone()).is_err() {
                cut_off.push(id);
            }
        }
        let delivered = subscribers.len() - cut_off.len();
        for &id in &cut_off {
            self.remove(id);
        }
        (delivered, cut_off.len())
    }
}

/// The hub, as the tasks of all connections hold it.
pub struct SharedHub<M>(Arc<Mutex<Hub<M>>>);

impl<M> Clone for SharedHub<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<M: Clone> Default for SharedHub<M> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Hub {
            connections: Slab::new(),
            topics: HashMap::new(),
        })))
    }
}

impl<M: Clone> SharedHub<M> {
    fn lock(&self) -> MutexGuard<'_, Hub<M>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new connection, without subscriptions, until the [`Membership`] is dropped.
    #[must_use]
    pub fn join(&self) -> (Membership<M>, Receiver<M>) {
        let (queue, receiver) = channel(QUEUED_MESSAGES_MAX);
        let connection = Connection {
            queue,
            topics: Vec::new(),
        };
        let key = self.lock().connections.insert(connection);
        let id = ConnectionId(u32::try_from(key).expect("fewer than 2^32 sockets"));
        let hub = self.clone();
        (Membership { hub, id }, receiver)
    }
}

/// What a connection's task may do with the hub.
pub struct Membership<M: Clone> {
    hub: SharedHub<M>,
    id: ConnectionId,
}

impl<M: Clone> Membership<M> {
    /// Replaces the subscriptions.
    pub fn subscribe(&self, topics: Vec<Topic>) {
        self.hub.lock().set_topics(self.id, topics);
    }

    /// Queues `message` for every subscriber; how many took it, and how many were cut off because
    /// their queue was full.
    #[must_use]
    pub fn publish(&self, topic: &Topic, message: &M) -> (usize, usize) {
        self.hub.lock().publish(topic, message)
    }

    /// Queues an answer for the connection itself; one that doesn't read its answers is cut off.
    pub fn answer(&self, message: M) {
        let mut hub = self.hub.lock();
        if hub
            .connection(self.id)
            .is_some_and(|connection| connection.queue.try_send(message).is_err())
        {
            hub.remove(self.id);
        }
    }
}

impl<M: Clone> Drop for Membership<M> {
    fn drop(&mut self) {
        self.hub.lock().remove(self.id);
    }
}
