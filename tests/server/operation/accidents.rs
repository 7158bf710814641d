//! Accidents of the machine: streams that are closed or full, clocks that jump, a process that
//! is stopped for a while. The server serves on.
//!
//! A log that is stuck is in `logs.rs`, descriptors that run out are in `descriptors.rs`, readers
//! that are stuck in `load/slow_readers.rs`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::helpers::{
    Client, Crowd, Received, Server, frame, publish, raise_descriptor_limit, subscriber,
};

/// A crowd is served, clients come and go, and the server stops when it is told to.
fn expect_service(server: &mut Server) {
    let mut crowd = Crowd::gather(server);
    for _ in 0..100 {
        crowd.publish();
        Client::connect(server).leave();
    }
    drop(crowd);
    let mut client = Client::connect(server);
    server.terminate();
    client.expect_close(1001);
    client.answer_close(1001);
    assert_eq!(server.wait().status, Some(0));
}

// Standard streams.

#[test]
fn standard_error_is_closed() {
    expect_service(&mut Server::unheard_after("exec 2>&-", &["--log", "trace"]));
}

#[test]
fn standard_error_is_full() {
    let setup = "exec 2>/dev/full";
    expect_service(&mut Server::unheard_after(setup, &["--log", "trace"]));
}

#[test]
fn the_reader_of_standard_error_has_gone() {
    let mut server = Server::with_stuck_log(&["--log", "trace"]);
    server.drop_stderr();
    expect_service(&mut server);
}

#[test]
fn standard_input_is_closed() {
    expect_service(&mut Server::after("exec <&-", &[]));
}

#[test]
fn all_standard_streams_are_closed() {
    let setup = "exec <&- >&- 2>&-";
    expect_service(&mut Server::unheard_after(setup, &["--log", "trace"]));
}

// Time.

/// Compiles the wall clock that jumps.
fn jumping_clock() -> PathBuf {
    let library = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("jumping_clock.so");
    let source = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/server/operation/jumping_clock.c"
    );
    let status = Command::new("gcc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
        .arg(&library)
        .arg(source)
        .status();
    assert!(status.expect("gcc is there").success());
    library
}

#[test]
fn the_wall_clock_jumps() {
    let library = jumping_clock();
    let flags = ["--ping-interval", "0.4", "--pong-timeout", "0.4"];
    let server = Server::with_environment(
        &[("LD_PRELOAD", library.as_os_str())],
        &[&flags[..], &["--log", "debug"]].concat(),
    );
    let mut crowd = Crowd::gather(&server);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let crowd = scope.spawn(|| crowd.publish_until(&is_over));
        // The time of a silent client is neither longer nor shorter for it.
        for _ in 0..2 {
            let since = Instant::now();
            let mut client = Client::connect(&server);
            assert!(matches!(client.receive(), Received::Ping(_)));
            client.expect_end();
            let lived = since.elapsed();
            assert!(lived >= Duration::from_millis(800), "{lived:?}");
            assert!(lived < Duration::from_secs(10), "{lived:?}");
        }
        is_over.store(true, Ordering::Relaxed);
        crowd.join().expect("the crowd was served");
    });
    let log = server.log();
    let years: BTreeSet<_> = log.lines().filter_map(|line| line.get(1..5)).collect();
    assert!(years.len() > 1, "the clock has not jumped: {log}");
}

#[test]
fn a_stopped_server_reads_before_it_takes_anybody_for_dead() {
    // More than one poll brings.
    const CLIENTS: usize = 1100;
    raise_descriptor_limit();
    let server = Server::with(&["--ping-interval", "0.5", "--pong-timeout", "3"]);
    let mut silent = subscriber(&server, r#"["c"]"#);
    let mut clients: Vec<_> = (0..CLIENTS)
        .map(|_| subscriber(&server, r#"["c"]"#))
        .collect();
    for client in clients.iter_mut().chain([&mut silent]) {
        assert!(matches!(client.receive(), Received::Ping(_)));
    }
    server.halt(true);
    for client in &mut clients {
        client.send_bytes(&frame(0x8a, b""));
    }
    // To be stopped for longer than anybody's time is what this is about.
    thread::sleep(Duration::from_millis(3100));
    server.halt(false);
    let reason = format!(r#"{{"delivered":{CLIENTS}}}"#);
    assert_eq!(publish(&server, r#"{"channel":"c"}"#), reason);
    silent.expect_end();
}
