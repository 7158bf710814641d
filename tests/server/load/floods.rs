//! Floods of what is cheap to send and dear to answer. However much of it waits, an iteration of the
//! loop has an end: publishers and deliveries have their turn, and a healthy crowd hardly notices.
//!
//! `RUST_TEST_THREADS=1 cargo test --release --test server load::floods -- --nocapture` prints the
//! figures. Each test was seen to fail when a read was answered whole, whatever its answers cost.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::helpers::{
    Client, Scene, Served, frame, largest_list, most_descriptors, raise_descriptor_limit,
    subscriber, withstand,
};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// How long a flood lasts that goes on and on.
const FLOOD_TIME: Duration = Duration::from_secs(2);

/// What half of the deliveries may take, and the slowest, of a build that is optimised and alone on two
/// processors.
const MEDIAN_MAX: Duration = Duration::from_millis(10);
const SLOWEST_MAX: Duration = Duration::from_millis(50);
const SLOWEST_OF_BURST_MAX: Duration = Duration::from_millis(150);

/// How much longer others take: they share the processors with other tests, and are not optimised.
const SLOWER: u32 = if cfg!(debug_assertions) { 20 } else { 4 };

fn check(served: Served, slowest_max: Duration) {
    let Served {
        median, slowest, ..
    } = served;
    assert!(median <= MEDIAN_MAX * SLOWER, "half of them: {median:?}");
    assert!(slowest <= slowest_max * SLOWER, "the slowest: {slowest:?}");
}

/// Sends `bytes` again and again on all streams, as fast as they are taken, and reads what comes.
/// Says how many bytes were sent.
fn converse(streams: &mut [TcpStream], bytes: &[u8], time: Duration) -> usize {
    let since = Instant::now();
    let mut sent = vec![0; streams.len()];
    let mut scratch = vec![0; 256 * KIB];
    for stream in &*streams {
        stream.set_nonblocking(true).expect("a socket");
    }
    while since.elapsed() < time {
        for (stream, sent) in streams.iter_mut().zip(&mut sent) {
            *sent += stream.write(&bytes[*sent % bytes.len()..]).unwrap_or(0);
            while stream.read(&mut scratch).is_ok_and(|count| count > 0) {}
        }
    }
    sent.iter().sum()
}

/// Sends `bytes` once on all streams, as far as they are taken, then reads until nothing has come for a
/// while, or for so long that more would show nothing new.
fn burst(streams: &mut [TcpStream], bytes: &[u8]) {
    let mut scratch = vec![0; 256 * KIB];
    for stream in &mut *streams {
        stream.set_nonblocking(true).expect("a socket");
        let _ = stream.write(bytes);
    }
    let since = Instant::now();
    let mut last = since;
    while last.elapsed() < Duration::from_millis(500) && since.elapsed() < 2 * FLOOD_TIME {
        for stream in &mut *streams {
            if stream.read(&mut scratch).is_ok_and(|count| count > 0) {
                last = Instant::now();
            }
        }
        thread::yield_now();
    }
}

fn bare(scene: &Scene, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| scene.server.tcp()).collect()
}

fn upgraded(scene: &Scene, count: usize) -> Vec<TcpStream> {
    let clients = (0..count).map(|_| Client::connect(&scene.server));
    clients.map(Client::into_stream).collect()
}

const GET: &[u8] = b"GET /crieur.js HTTP/1.1\r\nHost: localhost\r\n\r\n";
const SCRAPE: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// As much of `piece` as makes `bytes`.
fn filled(piece: &[u8], bytes: usize) -> Vec<u8> {
    piece.repeat(bytes / piece.len())
}

#[test]
fn pipelined_requests() {
    for count in [1, 10, 30] {
        let served = withstand("pipelined GETs", &[], 32 * MIB, |scene| {
            let mut streams = bare(scene, count);
            let sent = converse(&mut streams, &filled(GET, 64 * KIB), FLOOD_TIME);
            format!("{count} connections, {} requests", sent / GET.len())
        });
        check(served, SLOWEST_MAX);
    }
}

#[test]
fn empty_messages() {
    let served = withstand("empty text messages", &[], 32 * MIB, |scene| {
        let mut streams = upgraded(scene, 10);
        let message = frame(0x81, b"");
        let sent = converse(&mut streams, &filled(&message, 64 * KIB), FLOOD_TIME);
        format!("10 connections, {} messages", sent / message.len())
    });
    check(served, SLOWEST_MAX);
}

#[test]
fn empty_messages_at_once() {
    let served = withstand("64 KiB of empty text messages", &[], 320 * MIB, |scene| {
        let mut streams = upgraded(scene, 500);
        burst(&mut streams, &filled(&frame(0x81, b""), 64 * KIB));
        "500 connections, once".to_owned()
    });
    check(served, SLOWEST_OF_BURST_MAX);
}

#[test]
fn requests_at_once() {
    let served = withstand("64 KiB of pipelined GETs", &[], 800 * MIB, |scene| {
        let mut streams = bare(scene, 500);
        burst(&mut streams, &filled(GET, 64 * KIB));
        "500 connections, once".to_owned()
    });
    check(served, SLOWEST_OF_BURST_MAX);
}

#[test]
fn scrapes_at_once() {
    let _turn = most_descriptors();
    let flags = ["--max-connections", "20000"];
    let served = withstand("13 KB of pipelined scrapes", &flags, 512 * MIB, |scene| {
        // Other tests take descriptors too, but not many. Without optimisation a scrape takes 1 ms.
        let many = if cfg!(debug_assertions) {
            4_000
        } else {
            18_800
        };
        let count = (raise_descriptor_limit() - 500).min(many);
        let mut streams = bare(scene, count);
        burst(&mut streams, &filled(SCRAPE, 13_000));
        format!("{count} connections, once")
    });
    check(served, SLOWEST_OF_BURST_MAX);
}

#[test]
fn largest_lists_in_turn() {
    let lists = [1, 2].map(largest_list);
    let message = |list: &String| {
        let text = format!(r#"{{"sender":"client","subscriptions":{list}}}"#);
        frame(0x81, text.as_bytes())
    };
    let served = withstand("the largest lists in turn", &[], 64 * MIB, |scene| {
        let mut streams = upgraded(scene, 10);
        let both = [message(&lists[0]), message(&lists[1])].concat();
        let sent = converse(&mut streams, &both, FLOOD_TIME);
        format!("10 connections, {} lists", 2 * sent / both.len())
    });
    check(served, SLOWEST_MAX);
}

#[test]
fn the_largest_lists_that_leave_at_once() {
    // Without optimisation a list takes the server 20 ms.
    const CONNECTIONS: usize = if cfg!(debug_assertions) { 100 } else { 1000 };
    let budget_bytes = CONNECTIONS * 384 * KIB;
    let served = withstand("largest lists leave", &[], budget_bytes, |scene| {
        let crowd: Vec<_> = (0..CONNECTIONS)
            .map(|number| subscriber(&scene.server, &largest_list(number)))
            .collect();
        drop(crowd);
        format!("{CONNECTIONS} connections")
    });
    check(served, SLOWEST_OF_BURST_MAX);
}
