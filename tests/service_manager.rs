//! What the server says to a service manager, and what it takes from one: sockets.

mod common;

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use common::{Client, DEADLINE, Server, subscriber};

fn received(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 256];
    let length = socket.recv(&mut bytes).expect("it is told");
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

/// Has a server be started, reloaded and stopped, and checks what it says of it to `socket`, which
/// is called `name`.
fn watch(socket: &UnixDatagram, name: &OsStr) {
    socket.set_read_timeout(Some(DEADLINE)).expect("not zero");
    let mut server = Server::with_environment(&[("NOTIFY_SOCKET", name)], &[]);
    assert_eq!(received(socket), "READY=1");
    // Whoever waits for that can connect.
    let mut client = subscriber(&server, r#"["c"]"#);
    server.hang_up();
    let reloading = received(socket);
    let micros = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
    let micros = micros.and_then(|micros| micros.parse::<u64>().ok());
    assert!(micros > Some(0), "{reloading}");
    assert_eq!(received(socket), "READY=1");
    server.terminate();
    assert_eq!(received(socket), "STOPPING=1");
    client.expect_close(1001);
    client.answer_close(1001);
    assert_eq!(server.wait().status, Some(0));
}

#[test]
fn it_is_told_at_a_path() {
    let path = std::env::temp_dir().join(format!("crieur-notify-{}", std::process::id()));
    let socket = UnixDatagram::bind(&path).expect("a new name");
    watch(&socket, path.as_os_str());
    let _ = std::fs::remove_file(path);
}

#[test]
fn it_is_told_at_an_abstract_name() {
    let name = format!("crieur-notify-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let socket = UnixDatagram::bind_addr(&address).expect("a new name");
    watch(&socket, OsStr::new(&format!("@{name}")));
}

#[test]
fn one_that_does_not_listen_keeps_nobody_from_being_served() {
    let nowhere = OsStr::new("/nowhere/at/all");
    let server = Server::with_environment(&[("NOTIFY_SOCKET", nowhere)], &[]);
    server.wait_for_line("the service manager was not told");
    Client::connect(&server).leave();
}
