//! The shell: the only part that knows sockets.

pub mod connection;
pub mod connections;
pub mod engine;
pub mod listener;
mod schedule;
pub mod server;
mod shell;
pub mod socket;
mod socket_file;
pub mod throttle;
pub mod timers;
