//! States that servers have written for their successors, kept readable for ever: one of each version of the program
//! that has written them differently.
//!
//! Of each there are `N.state`, as it was written; `N.peers`, which says who its connections are and what each of them
//! sends next; and `N.txt`, which says what a server makes of it: what it knows when it has read it, and what its peers
//! get from then on. A change that makes another text of an old state loses something of what runs out there.
//! `STATES_WRITE=1 cargo test --test states` writes the texts anew; [`generator`] says how a state is made.

mod damage;
mod generator;
mod names;
mod reading;
mod redis;
mod successor;
mod trials;

use std::fs;
use std::path::Path;

use successor::{BYTES_PER_SECOND, HISTORY_BYTES, HISTORY_SECONDS, MESSAGES_PER_SECOND};
use successor::{PING_SECONDS, UPGRADES_PER_SECOND};

/// Where they are.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/states");

/// Who is at the other end of a connection.
#[derive(Debug)]
struct Peer {
    name: String,
    /// As the server knows it; `unix` and `unknown` for those that have none.
    address: String,
    /// What it sends next.
    rest: Vec<u8>,
}

/// The options of the servers whose states these are, with their files in `folder`.
fn options(folder: &Path) -> Vec<String> {
    let file = |name: &str| folder.join(name).display().to_string();
    let options = [
        ("listen", "127.0.0.1:0,[::1]:0".to_owned()),
        (
            "publish-listen",
            format!("127.0.0.1:0,unix:{}", file("publishers")),
        ),
        ("publish-token-file", file("tokens")),
        ("client-key-file", file("keys")),
        ("history-directory", file("history")),
        ("history-seconds", HISTORY_SECONDS.to_string()),
        ("history-bytes", HISTORY_BYTES.to_string()),
        ("trusted-proxy", "127.0.0.0/8,::1".to_owned()),
        ("metrics-from", "127.0.0.0/8".to_owned()),
        ("max-connections-per-address", "100".to_owned()),
        ("upgrades-per-address", UPGRADES_PER_SECOND.to_string()),
        ("messages-per-second", MESSAGES_PER_SECOND.to_string()),
        ("bytes-per-second", BYTES_PER_SECOND.to_string()),
        ("ping-interval", PING_SECONDS.to_string()),
        // Nobody comes to an end while one is made.
        ("pong-timeout", "100".to_owned()),
        ("handshake-timeout", "100".to_owned()),
        ("message-timeout", "100".to_owned()),
        ("token-timeout", "100".to_owned()),
        ("close-timeout", "100".to_owned()),
        ("write-timeout", "100".to_owned()),
    ];
    let options = options.into_iter();
    options
        .map(|(name, value)| format!("--{name}={value}"))
        .collect()
}

/// The numbers of all states, in order.
fn numbers() -> Vec<u32> {
    let entries = fs::read_dir(FOLDER).expect("a folder");
    let mut numbers: Vec<u32> = entries
        .filter_map(|entry| {
            let name = entry.expect("an entry").file_name().into_string().ok()?;
            name.strip_suffix(".state")?.parse().ok()
        })
        .collect();
    numbers.sort_unstable();
    numbers
}

/// The number of the newest; 0 if there is none.
fn newest() -> u32 {
    numbers().last().copied().unwrap_or(0)
}

fn read(number: u32) -> Vec<u8> {
    fs::read(Path::new(FOLDER).join(format!("{number}.state"))).expect("a state")
}

/// The number in a variable of the environment, or another one.
fn number(variable: &str, or: u64) -> u64 {
    let text = std::env::var(variable);
    text.map_or(or, |text| text.parse().expect("a number"))
}
