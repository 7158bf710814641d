//! crieur hands notifications from an API to the clients that subscribed to them, over
//! WebSocket, on one thread.
//!
//! Three parts that know nothing of each other's inside:
//! - the protocol, [`ws`] and [`http`] on what both use ([`wire`]), knows bytes: RFC 6455 and as much of
//!   HTTP as it needs;
//! - the application, [`hub`], knows subscriptions: which connections want which notification;
//! - the shell, [`net`], knows sockets: the loop, the connections, the deadlines.
//!
//! The protocol and the hub do no I/O and have no clock: bytes and the time go in, events and
//! bytes come out. The shell drives both; it knows the hub only as an
//! [`application::Application`]. [`routes`] is in front of the hub for requests that are no
//! upgrades, and serves the files of [`web`]. [`cli`] wires them together, and its client commands
//! use [`client`].
//!
//! [`redis`] is how several servers share one order; nothing uses it yet.
//!
//! Start with [`ws::frame`] for the frame parser, [`hub::filter`] for the match and
//! [`net::server`] for the loop.

pub mod application;
pub mod cli;
pub mod client;
pub mod config;
mod count;
pub mod handover;
pub mod http;
pub mod hub;
pub mod id;
pub mod journal;
mod log_limit;
pub mod memory;
pub mod metrics;
pub mod net;
pub mod redis;
pub mod routes;
pub mod time;
pub mod web;
pub mod wire;
pub mod ws;

/// Runs a fuzz target on every file of its corpus: whole, cut off, and damaged, which is no
/// less interesting.
#[cfg(test)]
fn run_corpus(name: &str, target: fn(&[u8])) {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(name);
    let mut files = 0;
    for file in std::fs::read_dir(folder).expect("a corpus") {
        let bytes = std::fs::read(file.expect("a file").path()).expect("readable");
        files += 1;
        target(&bytes);
        for position in 0..bytes.len().min(200) {
            target(&bytes[..position]);
            let mut damaged = bytes.clone();
            damaged[position] ^= 0x81;
            target(&damaged);
        }
    }
    assert!(files > 0, "the corpus of {name} is empty");
}
