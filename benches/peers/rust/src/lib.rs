//! What the servers of this package share: the part of the protocol that a load test needs, the
//! map of subscriptions, and the runtime. How a connection reads and writes is each server's own.

pub mod hub;
pub mod protocol;
pub mod runtime;
