//! The shell: the only part that knows sockets.

pub mod connection;
pub mod connections;
mod context;
pub mod engine;
mod eviction;
#[doc(hidden)]
pub mod fuzzing;
pub mod listener;
mod places;
pub mod protocol;
mod requests;
mod schedule;
pub mod server;
mod shell;
mod shutdown;
pub mod socket;
mod socket_file;
pub mod throttle;
pub mod timers;
pub mod transport;
mod turn;
