//! What the server says to a service manager, and what it takes from one: sockets.

use std::ffi::OsStr;
use std::fs;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};

use rustix::net::sockopt::set_socket_passcred;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::helpers::installed::Installed;
use crate::helpers::{Client, DEADLINE, Server, delivery, publish, subscriber};

const C: &str = r#"{"channel":"c"}"#;

fn received(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 256];
    let length = socket.recv(&mut bytes).expect("it is told");
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

/// Waits to be told that files are read again, or that another program is to take over; says when that was.
fn expect_reloading(socket: &UnixDatagram) -> u64 {
    let reloading = received(socket);
    let micros = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
    let micros = micros.and_then(|micros| micros.parse().ok());
    let micros = micros.unwrap_or_else(|| panic!("{reloading}"));
    assert!(micros > 0, "{reloading}");
    micros
}

/// Has a server be started, reloaded and stopped, and checks what it says of it to `socket`, which
/// is called `name`.
fn watch(socket: &UnixDatagram, name: &OsStr) {
    socket.set_read_timeout(Some(DEADLINE)).expect("not zero");
    let mut server = Server::with_environment(&[("NOTIFY_SOCKET", name)], &[]);
    assert_eq!(received(socket), "READY=1");
    // From then on, clients can connect.
    let mut client = subscriber(&server, r#"["c"]"#);
    server.hang_up();
    expect_reloading(socket);
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
    let _ = fs::remove_file(path);
}

#[test]
fn it_is_told_at_an_abstract_name() {
    let name = format!("crieur-notify-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let socket = UnixDatagram::bind_addr(&address).expect("a new name");
    watch(&socket, OsStr::new(&format!("@{name}")));
}

/// Who has sent what comes next, and what that is.
fn received_from(socket: &UnixDatagram) -> (u32, String) {
    let mut bytes = [0; 256];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut control,
        RecvFlags::empty(),
    );
    let length = message.expect("it is told").bytes;
    let sender = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmCredentials(sender) => Some(sender.pid.as_raw_nonzero().get()),
        _ => None,
    });
    let sender = sender.expect("it asked for that") as u32;
    (
        sender,
        String::from_utf8_lossy(&bytes[..length]).into_owned(),
    )
}

#[test]
fn it_is_told_when_another_program_has_taken_over_or_will_not() {
    let installed = Installed::new();
    let path = installed.file("notify");
    let socket = UnixDatagram::bind(&path).expect("a new name");
    socket.set_read_timeout(Some(DEADLINE)).expect("not zero");
    set_socket_passcred(&socket, true).expect("a Unix socket");
    let mut server = installed.server_with_environment(&[("NOTIFY_SOCKET", path.as_os_str())]);
    let id = server.program().id();
    let expect = |what: &str| assert_eq!(received_from(&socket), (id, what.to_owned()));
    expect("READY=1");
    let mut client = subscriber(&server, r#"["c"]"#);
    let mut before = 0;
    for round in 0..4 {
        if round == 3 {
            // A program that is tried three times.
            installed
                .install_script("touch \"$0\"; echo 'crieur 9.9.9 takes over 1 of 1 connections'");
            let reason = server.fail_to_hand_over();
            assert_eq!(reason, "it changes all the time");
        } else if round == 1 {
            installed.install_script("echo 'not today'; exit 1");
            server.fail_to_hand_over();
        } else {
            installed.install();
            server.hand_over();
        }
        let micros = expect_reloading(&socket);
        assert!(micros > before, "the clock goes on");
        before = micros;
        expect("READY=1");
    }
    // Nothing was told twice, or the end would not be next.
    server.terminate();
    expect("STOPPING=1");
    client.expect_close(1001);
    client.answer_close(1001);
    assert_eq!(server.wait().status, Some(0));
}

#[test]
fn one_that_does_not_listen_keeps_nobody_from_being_served() {
    let nowhere = OsStr::new("/nowhere/at/all");
    let server = Server::with_environment(&[("NOTIFY_SOCKET", nowhere)], &[]);
    server.wait_for_line("the service manager was not told");
    Client::connect(&server).leave();
}

fn tcp() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("a free port")
}

fn handed_over(socket: &TcpListener) -> Server {
    let socket = socket.try_clone().expect("a descriptor");
    Server::activated(socket, "clients", &[])
}

#[test]
fn a_socket_that_is_handed_over_takes_the_place_of_listen() {
    let socket = tcp();
    let server = handed_over(&socket);
    assert_eq!(Some(server.address()), socket.local_addr().ok());
    let mut client = subscriber(&server, r#"["c"]"#);
    assert_eq!(publish(&server, C), r#"{"delivered":1}"#);
    assert_eq!(client.text(), delivery(C));
    assert_eq!(server.log().matches("listening ").count(), 1);
}

#[test]
fn a_client_that_comes_between_two_processes_is_served_by_the_next() {
    let socket = tcp();
    let mut first = handed_over(&socket);
    let mut client = subscriber(&first, r#"["c"]"#);
    first.terminate();
    client.expect_close(1001);
    // While it drains, and when it is gone.
    let draining = TcpStream::connect(first.address()).expect("nobody is refused");
    client.answer_close(1001);
    assert_eq!(first.wait().status, Some(0));
    let between = TcpStream::connect(first.address()).expect("nobody is refused");
    let second = handed_over(&socket);
    Client::over(between).upgrade("/", &[]).leave();
    let mut draining = Client::over(draining).upgrade("/", &[]);
    draining.subscribe(r#"["c"]"#);
    assert_eq!(publish(&second, C), r#"{"delivered":1}"#);
}

#[test]
fn a_socket_called_publish_is_the_publishers_own() {
    let path = std::env::temp_dir().join(format!("crieur-publish-{}", std::process::id()));
    let socket = UnixListener::bind(&path).expect("a new name");
    let mut server = Server::activated(socket.try_clone().expect("a descriptor"), "publish", &[]);
    server.wait_for_line(&format!(
        "listening for publishers on unix:{}",
        path.display()
    ));
    let mut client = subscriber(&server, r#"["c"]"#);
    // Nobody publishes elsewhere then.
    assert!(!publish_fails(&server).is_empty());
    let stream = UnixStream::connect(&path).expect("it is listened on");
    let mut publisher = Client::over(stream).upgrade("/", &[]);
    publisher.send(&crate::helpers::message(C));
    assert_eq!(publisher.expect_close(1000), r#"{"delivered":1}"#);
    assert_eq!(client.text(), delivery(C));
    drop((client, publisher));
    server.terminate();
    assert_eq!(server.wait().status, Some(0));
    assert!(path.exists(), "it is the service manager's");
    let _ = fs::remove_file(path);
}

fn publish_fails(server: &Server) -> String {
    let mut publisher = Client::connect(server);
    publisher.send(&crate::helpers::message(C));
    publisher.text()
}

#[test]
fn what_does_not_listen_is_refused() {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let ended = crate::helpers::activate(socket.expect("a socket"), "clients");
    assert_eq!(ended.status, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("does not listen"), "{ended:?}");
    let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let ended = crate::helpers::activate(datagrams, "clients");
    assert_eq!(ended.status, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("LISTEN_FDS: socket 0"), "{ended:?}");
}
