//! Reads that end early though there is more: at urgent data of TCP, and at a descriptor that was sent
//! along on a Unix socket. What is behind must not wait for the next event, which may never come.

use std::fs;
use std::io::{IoSlice, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use socket2::{MsgHdr, SockRef};

use crate::helpers::{Client, DEADLINE, Server, frame, message};

/// Far less than a heartbeat, which would bring the next read.
const SOON: Duration = Duration::from_secs(5);

const PUBLISHED: &str = r#"{"type":"published","delivered":0}"#;

fn notification(name: &str) -> Vec<u8> {
    let text = message(&format!(r#"{{"channel":"{name}"}}"#));
    frame(0x81, text.as_bytes())
}

#[test]
fn what_is_behind_urgent_data_is_read_at_once() {
    let server = Server::start();
    let mut publisher = Client::connect_with(&server, "/publish", &[]);
    // Once the server has seen some, and before.
    for _ in 0..2 {
        // All of it is there when the server looks.
        server.halt(true);
        publisher.send_bytes(&notification("first"));
        let socket = SockRef::from(publisher.stream());
        assert_eq!(socket.send_out_of_band(b"!").expect("TCP has it"), 1);
        publisher.send_bytes(&notification("second"));
        server.halt(false);
        let since = Instant::now();
        publisher.expect_texts(&[PUBLISHED; 2]);
        assert!(since.elapsed() < SOON);
    }
}

/// One message of a control buffer (cmsg(3)): SCM_RIGHTS with a descriptor.
fn rights(descriptor: i32) -> Vec<u8> {
    const SOL_SOCKET: i32 = 1;
    const SCM_RIGHTS: i32 = 1;
    let mut control = 20_usize.to_ne_bytes().to_vec();
    for number in [SOL_SOCKET, SCM_RIGHTS, descriptor, 0] {
        control.extend(number.to_ne_bytes());
    }
    control
}

#[test]
fn what_is_behind_a_descriptor_is_read_at_once() {
    let folder = std::env::temp_dir().join(format!("crieur-{}-short", std::process::id()));
    fs::create_dir(&folder).expect("a new folder");
    let path = folder.join("publish.sock");
    let server = Server::with(&["--publish-listen", &format!("unix:{}", path.display())]);
    let descriptors = server.program().descriptors();
    let stream = UnixStream::connect(&path).expect("the server listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("not zero");
    let mut publisher = Client::over(stream).upgrade("/publish", &[]);
    server.halt(true);
    // In the midst of a message: an answer to the first half would bring the next event.
    let message = notification("c");
    let (first, second) = message.split_at(10);
    let control = rights(publisher.stream().as_raw_fd());
    let buffers = [IoSlice::new(first)];
    let sent = SockRef::from(publisher.stream())
        .sendmsg(
            &MsgHdr::new().with_buffers(&buffers).with_control(&control),
            0,
        )
        .expect("the socket takes it");
    assert_eq!(sent, first.len());
    (&mut publisher.stream())
        .write_all(second)
        .expect("the socket takes it");
    server.halt(false);
    let since = Instant::now();
    publisher.expect_texts(&[PUBLISHED]);
    assert!(since.elapsed() < SOON);
    // Nobody keeps what nobody asked for.
    assert_eq!(server.program().descriptors(), descriptors + 1);
    drop(server);
    fs::remove_dir_all(&folder).expect("it is ours");
}
