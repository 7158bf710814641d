//! Makes a state that has as much as one can: a real server, to whose clients everything happens that can, becomes a
//! program that writes down what it is given.
//!
//! `cargo test --test states -- --ignored --exact generator::a_state_is_made` writes `N.state`, N being one more than the
//! newest has, and `N.peers`, which says who its connections are and what each sends next. A Python is needed.

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use rustix::process::{Pid, Signal, kill_process};
use sha2::Sha256;
use socket2::{Domain, Socket, Type};

use super::successor::{CLIENT_KEY, PING_SECONDS, PUBLISH_TOKEN};
use super::{Peer, options};

const DEADLINE: Duration = Duration::from_secs(30);

/// What stands at the server's path when it is told to become another program: it says that it takes everything over,
/// and then writes down what it is given.
const HEIR: &str = r#"#!/usr/bin/env python3
import os
import socket
import sys

state = sys.stdin.buffer.read() if os.environ["CRIEUR_HANDOVER"] == "try" else None
if state is not None:
    connections, at = 0, 0
    while at < len(state):
        connections += state[at] == 13
        at += 5 + int.from_bytes(state[at + 1 : at + 5], "little")
    print(f"crieur 0 takes over {connections} of {connections} connections")
else:
    _, descriptors, _, _ = socket.recv_fds(socket.socket(fileno=0), 1, 253)
    with open(descriptors[0], "rb") as state, open(sys.argv[0] + ".draft", "wb") as copy:
        copy.write(state.read())
    os.rename(sys.argv[0] + ".draft", sys.argv[0] + ".state")
"#;

/// Everything that can go on with what clients may have.
const ALLOWED: &str = r#"["fill","Production","Test",{"package":"p","page":"q"}]"#;

/// A server, and a folder that is gone with it.
struct Server {
    child: Child,
    folder: PathBuf,
    /// Where it listens for clients, by IPv4 and by IPv6, and for publishers.
    clients: SocketAddr,
    clients_v6: SocketAddr,
    publishers: SocketAddr,
    /// Whether nobody reads its log any more.
    is_stuck: Arc<AtomicBool>,
    peers: Vec<Peer>,
    /// What keeps the connections open.
    streams: Vec<Box<dyn Stream>>,
}

trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

impl Server {
    fn start() -> Self {
        let folder = std::env::temp_dir().join("crieur-states");
        fs::create_dir_all(&folder).expect("a folder");
        let runtime = Path::new("/dev/shm/crieur-states");
        fs::create_dir_all(runtime).expect("a folder");
        let path = folder.join("crieur");
        fs::copy(env!("CARGO_BIN_EXE_crieur"), &path).expect("a copy");
        for (name, secret) in [("tokens", PUBLISH_TOKEN), ("keys", CLIENT_KEY)] {
            fs::write(folder.join(name), secret).expect("a new file");
            fs::set_permissions(folder.join(name), Permissions::from_mode(0o600)).expect("ours");
        }
        // Of a small buffer, so that it is soon full.
        let (log, near) = UnixStream::pair().expect("a pair of sockets");
        Socket::from(near.try_clone().expect("a descriptor"))
            .set_send_buffer_size(1)
            .expect("it can be small");
        let mut command = Command::new(&path);
        for (name, _) in std::env::vars() {
            if name.starts_with("CRIEUR_") {
                command.env_remove(name);
            }
        }
        let child = command
            .args(options(&folder))
            .env("RUNTIME_DIRECTORY", runtime)
            .stdin(Stdio::null())
            .stderr(Stdio::from(OwnedFd::from(near)))
            .spawn()
            .expect("a program");
        let is_stuck = Arc::<AtomicBool>::default();
        let [publishers, clients, clients_v6] = follow(log, Arc::clone(&is_stuck));
        Self {
            child,
            folder,
            clients,
            clients_v6,
            publishers,
            is_stuck,
            peers: Vec::new(),
            streams: Vec::new(),
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    // What it is asked.

    /// Publishes, and comes back when it is done. It goes through the lane, and leaves nothing behind.
    fn publish(&self, messages: &[String]) {
        for messages in messages.chunks(500) {
            let body = format!("[{}]", messages.join(","));
            let fields = format!(
                "{}Connection: close\r\nContent-Length: {}\r\n",
                bearer(PUBLISH_TOKEN),
                body.len()
            );
            let answer = ask(self.publishers, &format!("{}{body}", post(&fields)));
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        }
    }

    /// A figure.
    fn figure(&self, name: &str) -> u64 {
        let text = ask(
            self.clients,
            "GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        );
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let line = line.unwrap_or_else(|| panic!("no {name}: {text}"));
        line.trim().parse().expect("a number")
    }

    fn wait(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let since = Instant::now();
        while !is_so(self) {
            assert!(since.elapsed() < DEADLINE, "{what}: not in time");
        }
    }

    /// All that was sent to it has been read: it has looked for it twice since.
    fn settle(&self) {
        self.figure("crieur_connections_opened_total");
        self.figure("crieur_connections_opened_total");
    }

    // Who comes.

    /// Keeps a connection, of one that is to send `rest` in the successor's days.
    fn keep(
        &mut self,
        name: &str,
        address: &str,
        stream: impl Stream + 'static,
        rest: impl AsRef<[u8]>,
    ) {
        self.peers.push(Peer {
            name: name.to_owned(),
            address: address.to_owned(),
            rest: rest.as_ref().to_vec(),
        });
        self.streams.push(Box::new(stream));
    }

    /// The beginning of something on a connection of its own, and what comes behind that.
    fn begin(&mut self, name: &str, to: SocketAddr, begins: &str, rest: &str) {
        let mut stream = connect(to);
        stream.write_all(begins.as_bytes()).expect("it reads");
        let address = stream.local_addr().expect("it has one").to_string();
        self.keep(name, &address, stream, rest);
    }

    /// A client that a proxy forwards for, upgraded.
    fn client(&self, address: &str, fields: &str, stream: TcpStream) -> TcpStream {
        upgraded(
            stream,
            "/",
            &format!("X-Forwarded-For: {address}\r\n{fields}"),
        )
    }

    /// One that has shown a token, and has the list `subscriptions`, if there is one.
    fn subscriber(&self, address: &str, list: &str) -> TcpStream {
        let mut stream = self.client(address, &bearer(&token("")), connect(self.clients));
        subscribe(&mut stream, list);
        stream
    }

    /// One whose socket takes nothing any more: something of what is for it waits.
    fn slow(&self, address: &str, list: &str) -> TcpStream {
        let mut stream = self.client(address, &bearer(&token("")), narrow(self.clients));
        subscribe(
            &mut stream,
            r#"{"sender":"client","subscriptions":["fill"]}"#,
        );
        let before = self.figure("crieur_send_queue_bytes");
        let fill = format!(
            r#"{{"keep":false,"notification":{{"channel":"fill","x":"{}"}}}}"#,
            "x".repeat(1500)
        );
        // What the system makes room for at first, it takes somewhat later.
        let mut full = 0;
        self.wait("a full socket", |server| {
            if server.figure("crieur_send_queue_bytes") > before + 2000 {
                full += 1;
                thread::sleep(Duration::from_millis(20));
            } else {
                full = 0;
                server.publish(std::slice::from_ref(&fill));
            }
            full == 10
        });
        send(&mut stream, 0x1, list.as_bytes());
        self.settle();
        stream
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
        let _ = fs::remove_dir_all("/dev/shm/crieur-states");
    }
}

/// Reads the log until it is stuck, and says where the server listens, for publishers first.
fn follow(log: UnixStream, is_stuck: Arc<AtomicBool>) -> [SocketAddr; 3] {
    let (tell, told) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let mut log = log;
        let (mut buffer, mut text) = ([0; 4096], String::new());
        while !is_stuck.load(Ordering::Relaxed) {
            let Ok(count @ 1..) = log.read(&mut buffer) else {
                return;
            };
            text.push_str(&String::from_utf8_lossy(&buffer[..count]));
            while let Some((line, rest)) = text.split_once('\n') {
                if let Some((_, address)) = line.split_once(" on ") {
                    let _ = tell.send(address.to_owned());
                }
                if std::env::var_os("STATES_LOG").is_some() {
                    eprintln!("{line}");
                }
                text = rest.to_owned();
            }
        }
        // It stays open, and nobody reads it.
        thread::sleep(DEADLINE);
        drop(log);
    });
    std::array::from_fn(|_| {
        loop {
            let address = told.recv_timeout(DEADLINE).expect("it listens");
            if let Ok(address) = address.parse() {
                return address;
            }
        }
    })
}

/// A connection whose reads come to an end.
fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("it accepts");
    stream.set_read_timeout(Some(DEADLINE)).expect("not zero");
    stream.set_nodelay(true).expect("it can be turned off");
    stream
}

/// One with so small a buffer that what isn't read soon backs up.
fn narrow(to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(1).expect("it can be small");
    socket.connect(&to.into()).expect("it accepts");
    socket
        .set_read_timeout(Some(DEADLINE))
        .expect("it is not zero");
    socket.into()
}

/// The answer to a request that is the last of its connection.
fn ask(to: SocketAddr, request: &str) -> String {
    let mut stream = connect(to);
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .expect("text, and an end");
    answer
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// The head of what publishes; `fields` say how long it is.
fn post(fields: &str) -> String {
    format!(
        "POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{fields}\r\n"
    )
}

fn upgrade(path: &str, fields: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{fields}\r\n"
    )
}

/// Upgrades a connection.
fn upgraded<S: Stream>(mut stream: S, path: &str, fields: &str) -> S {
    let request = upgrade(path, fields);
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an answer");
        answer.push(byte[0]);
    }
    let answer = String::from_utf8(answer).expect("text");
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    stream
}

/// A frame with this first byte and a key of zeros, which leaves the payload as it is.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ ..126 => frame.push(0x80 | len as u8),
        len => {
            frame.push(0x80 | 126);
            frame.extend((len as u16).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// Sends a frame that is the last of its message.
fn send(stream: &mut impl Write, opcode: u8, payload: &[u8]) {
    let frame = frame(0x80 | opcode, payload);
    stream.write_all(&frame).expect("it reads");
}

fn text(payload: &str) -> Vec<u8> {
    frame(0x81, payload.as_bytes())
}

/// The payload of the next frame.
fn receive(stream: &mut impl Read) -> Vec<u8> {
    let mut header = [0; 2];
    stream.read_exact(&mut header).expect("a frame");
    let mut length = usize::from(header[1]);
    if length == 126 {
        stream.read_exact(&mut header).expect("a frame");
        length = usize::from(u16::from_be_bytes(header));
    }
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).expect("a frame");
    payload
}

/// Sends a list, if there is one, and reads the answer.
fn subscribe(stream: &mut TcpStream, list: &str) -> String {
    if list.is_empty() {
        return String::new();
    }
    send(stream, 0x1, list.as_bytes());
    let answer = String::from_utf8(receive(stream)).expect("text");
    assert!(answer.starts_with(r#"{"type":"subscribed""#), "{answer}");
    answer
}

/// A token of a client, with more claims. It is good until 2100.
fn token(claims: &str) -> String {
    let claims = format!(r#"{{"exp":4102444800,"allow":{ALLOWED}{claims}}}"#);
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#),
        URL_SAFE_NO_PAD.encode(claims)
    );
    let mut mac = Hmac::<Sha256>::new_from_slice(CLIENT_KEY.as_bytes()).expect("any length");
    mac.update(signed.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
    format!("{signed}.{signature}")
}

const LIVE: &str = r#"{"sender":"client","subscriptions":["Production"]}"#;
const NUMBERED: &str = r#"{"sender":"client","subscriptions":["Production"],"since":""}"#;

/// A list of all that one can have.
const WIDE: &str = r#"{"sender":"client","subscriptions":["Test","Production",{"package":"p","page":"q"},
{"package":"p","page":"q","filters":{"values":{"channel":["2","5"],"é":true}}},
{"package":"p","page":"q","filters":{"values":["3",2.0]}},{"package":"p","page":"q","filters":{"values":{"none":[]}}}]}"#;

/// Publishers, and those who speak HTTP.
fn publishers(server: &mut Server) {
    let path = server.folder.join("publishers");
    let mut stream = UnixStream::connect(path).expect("it accepts");
    stream
        .set_read_timeout(Some(DEADLINE))
        .expect("it is not zero");
    let fields = bearer(PUBLISH_TOKEN);
    stream = upgraded(stream, "/publish", &fields);
    let message =
        r#"{"sender":"server","notification":{"channel":"Production","n":"over the socket"}}"#;
    server.keep("a publisher that stays", "unix", stream, text(message));

    let lane = server.publishers;
    let message = format!(
        r#"{{"sender":"server","token":"{PUBLISH_TOKEN}","notification":{{"channel":"Test"}}}}"#
    );
    let stream = upgraded(connect(lane), "/", "");
    let address = stream.local_addr().expect("it has one").to_string();
    server.keep(
        "one that has yet to show its token",
        &address,
        stream,
        text(&message),
    );

    let body = r#"{"notification":{"channel":"Test","n":1}}"#;
    let length = format!("{fields}Content-Length: {}\r\n", body.len());
    let whole = post(&length) + body;
    let mut stream = connect(lane);
    stream.write_all(whole.as_bytes()).expect("it reads");
    let mut answer = [0; 16];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200 OK\r\n"[..16].as_ref());
    let address = stream.local_addr().expect("it has one").to_string();
    server.keep("one that has published over HTTP", &address, stream, &whole);
    server.begin(
        "a body of which a part is here",
        lane,
        &format!("{}{}", post(&length), &body[..20]),
        &body[20..],
    );
    let fields = format!("{fields}Transfer-Encoding: chunked\r\n");
    let chunked = format!(
        "{}{:X} ;a=b\r\n{body}\r\n0\r\nX-A: b\r\n\r\n",
        post(&fields),
        body.len()
    );
    let head = post(&fields).len();
    let size = head + 2;
    let data = size + 7 + body.len();
    for (name, at) in [
        ("a chunk's size", head + 1),
        ("behind its size", size + 1),
        ("a chunk's extension", size + 3),
        ("the end of the size's line", size + 6),
        ("amid a chunk", data - 20),
        ("behind a chunk", data),
        ("the end of a chunk's line", data + 1),
        ("behind the last chunk", data + 5),
        ("the name of a trailer", data + 7),
        ("the value of a trailer", data + 10),
        ("the end of a trailer's line", data + 12),
        ("the end of the last line", data + 14),
    ] {
        let (begins, rest) = chunked.split_at(at);
        server.begin(name, lane, begins, rest);
    }

    let clients = server.clients;
    let whole = upgrade("/", "X-Forwarded-For: 203.0.113.200\r\n");
    server.begin("one that has said nothing", clients, "", &whole);
    server.begin("half a head", clients, &whole[..50], &whole[50..]);
    let healthz = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
    server.begin("empty lines", clients, "\r\n\r\n", healthz);
    server.begin("one that was answered", clients, healthz, healthz);
    let head = "HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    server.begin("one that asked for a head", clients, head, "");
}

/// Clients whose sockets take everything.
fn clients(server: &mut Server) {
    let stream = server.subscriber("203.0.113.1", "");
    server.keep("one without a list", "203.0.113.1:0", stream, text(LIVE));
    let stream = server.client("203.0.113.2", "", connect(server.clients));
    let list = format!(
        r#"{{"sender":"client","token":"{}","subscriptions":["Production"]}}"#,
        token("")
    );
    server.keep("one without a token", "203.0.113.2:0", stream, text(&list));
    let stream = server.subscriber("203.0.113.3", WIDE);
    let ping = text(r#"{"type":"ping"}"#);
    server.keep("one with a wide list", "203.0.113.3:0", stream, &ping);
    let stream = server.subscriber("203.0.113.4", NUMBERED);
    server.keep("one that numbers", "203.0.113.4:0", stream, &ping);
    let mut stream = server.client(
        "2001:db8::5",
        &bearer(&token(r#","history":false,"sub":"17""#)),
        connect(server.clients_v6),
    );
    subscribe(&mut stream, LIVE);
    let list = text(&NUMBERED.replace(r#""""#, r#""0123456789abcdef-1""#));
    server.keep(
        "one that may not see the past",
        "[2001:db8::5]:0",
        stream,
        list,
    );
    let stream = server.client("unknown", &bearer(&token("")), connect(server.clients));
    server.keep(
        "one of an address that nobody knows",
        "unknown",
        stream,
        &ping,
    );

    let message = text(LIVE);
    for (number, (name, cut)) in [
        ("half a header", 1),
        ("the header of a frame", 6),
        ("half a frame", 30),
    ]
    .into_iter()
    .enumerate()
    {
        let address = format!("203.0.113.1{number}");
        let mut stream = server.subscriber(&address, LIVE);
        stream.write_all(&message[..cut]).expect("it reads");
        server.keep(name, &format!("{address}:0"), stream, &message[cut..]);
    }
    let mut stream = server.subscriber("203.0.113.20", LIVE);
    let whole = r#"{"sender":"client","subscriptions":["é"]}"#.as_bytes();
    let cut = whole.iter().position(|byte| *byte == 0xc3).expect("é") + 1;
    stream
        .write_all(&frame(0x01, &whole[..cut]))
        .expect("it reads");
    let rest = frame(0x80, &whole[cut..]);
    server.keep("a character cut in two", "203.0.113.20:0", stream, rest);
    let mut stream = server.subscriber("203.0.113.21", LIVE);
    let half = frame(0x00, b"more");
    stream
        .write_all(&[&frame(0x02, b"\xff\xfe")[..], &half[..7]].concat())
        .expect("it reads");
    let rest = [&half[7..], &frame(0x80, b"")].concat();
    server.keep("half of a binary message", "203.0.113.21:0", stream, rest);

    // Ends.
    let mut stream = server.subscriber("203.0.113.30", LIVE);
    let forbidden = text(r#"{"sender":"server","notification":{"channel":"Test"}}"#);
    stream.write_all(&forbidden).expect("it reads");
    server.settle();
    let late = frame(0x82, &[b'x'; 300]);
    stream.write_all(&late[..100]).expect("it reads");
    let rest = [&late[100..], &frame(0x88, &1008_u16.to_be_bytes())].concat();
    server.keep("one that was told to go", "203.0.113.30:0", stream, rest);
    let mut stream = server.subscriber("203.0.113.31", LIVE);
    stream.write_all(b"\x81\x00").expect("it reads");
    server.keep("one that broke the protocol", "203.0.113.31:0", stream, "");

    let stream = server.subscriber("203.0.113.40", LIVE);
    server.keep("one that is held up", "203.0.113.40:0", stream, "");
}

/// Clients whose sockets take nothing; `oldest` is an id.
fn slow_clients(server: &mut Server, oldest: &str) {
    let both = r#"{"sender":"client","subscriptions":["Production","Test"]}"#;
    let stream = server.slow("203.0.113.50", both);
    server.keep("one whose queue is half sent", "203.0.113.50:0", stream, "");
    let since = NUMBERED.replace(r#""""#, &format!(r#""{oldest}""#));
    let mut stream = server.slow("203.0.113.51", &since);
    assert_eq!(server.figure("crieur_catching_up"), 1);
    send(&mut stream, 0x1, LIVE.as_bytes());
    send(&mut stream, 0x1, br#"{"type":"ping"}"#);
    server.settle();
    server.keep("one that is being caught up", "203.0.113.51:0", stream, "");
    let stream = server.slow("203.0.113.52", &since);
    assert_eq!(server.figure("crieur_catching_up"), 2);
    server.keep("one that is behind", "203.0.113.52:0", stream, "");
    let mut stream = server.slow("203.0.113.53", LIVE);
    stream.write_all(b"\x81\x00").expect("it reads");
    server.keep(
        "one that broke the protocol, and is slow",
        "203.0.113.53:0",
        stream,
        "",
    );
    let stream = server.slow("203.0.113.54", LIVE);
    stream.shutdown(std::net::Shutdown::Write).expect("open");
    server.keep(
        "one that sends no more, and is slow",
        "203.0.113.54:0",
        stream,
        "",
    );
    server.settle();
}

fn notification(number: usize, more: &str) -> String {
    format!(
        r#"{{"type":"chat"{more},"notification":{{"channel":"Production","number":{number},"text":"{}"}}}}"#,
        "y".repeat(150)
    )
}

#[test]
#[ignore = "it writes files among the sources"]
fn a_state_is_made() {
    let mut server = Server::start();
    // More than the history holds, so that it doesn't begin at the beginning.
    let many: Vec<_> = (0..60).map(|number| notification(number, "")).collect();
    server.publish(&many);
    // Addresses that were here.
    for last in 60..63 {
        let address = format!("203.0.113.{last}");
        drop(server.client(&address, "", connect(server.clients)));
    }
    server.settle();
    publishers(&mut server);
    clients(&mut server);
    server.settle();

    let fields = bearer(PUBLISH_TOKEN);
    let request = format!("GET /position HTTP/1.1\r\nHost: a\r\n{fields}Connection: close\r\n\r\n");
    let answer = ask(server.publishers, &request);
    let oldest = answer.split('"').rev().nth(1).expect("an id").to_owned();
    server.publish(&[
        notification(100, r#","key":"the first""#),
        notification(101, r#","key":"the second""#),
        notification(102, ""),
    ]);
    slow_clients(&mut server, &oldest);
    server.publish(&[
        notification(103, r#","keep":false"#),
        r#"{"notification":{"channel":"Test","package":"p","page":"q","filters":{"values":{"channel":"2","é":1}}}}"#.to_owned(),
    ]);

    // Everybody is pinged that says nothing. One says something else than the answer, and one answers.
    let mut outlives = server.subscriber("203.0.113.70", LIVE);
    let mut answers = server.subscriber("203.0.113.71", LIVE);
    // What a full socket still took counts as life.
    thread::sleep(Duration::from_secs(3 * PING_SECONDS));
    for stream in [&mut outlives, &mut answers] {
        assert_eq!(receive(stream), b"", "a Ping");
    }
    send(&mut outlives, 0x1, br#"{"type":"ping"}"#);
    send(&mut answers, 0xa, b"");
    server.keep(
        "one that says something else than its Pong",
        "203.0.113.70:0",
        outlives,
        "",
    );
    server.keep(
        "one that has answered its Ping",
        "203.0.113.71:0",
        answers,
        "",
    );
    // What is to be so at the last.
    for (name, sends) in [
        ("one whose queue is half sent", frame(0x89, b"this")),
        ("one that is behind", frame(0x89, b"")),
        ("one that is held up", text(r#"{"type":"ping"}"#).repeat(30)),
    ] {
        let mut peers = server.peers.iter();
        let place = peers.position(|peer| peer.name == name);
        let stream = &mut server.streams[place.expect("it is here")];
        stream.write_all(&sends).expect("it reads");
    }

    // The log is stuck, and says more.
    server.is_stuck.store(true, Ordering::Relaxed);
    let many: Vec<_> = (0..100)
        .map(|number| format!(r#"{{"keep":false,"notification":{{"channel":"{number}"}}}}"#))
        .collect();
    for one in many.chunks(1) {
        server.publish(one);
    }
    server.settle();
    become_heir(&server);
    write_down(&server);
}

/// Has the server become the program that writes down what it is given.
fn become_heir(server: &Server) {
    let path = server.folder.join("crieur");
    let heir = server.folder.join("heir");
    fs::write(&heir, HEIR).expect("a new file");
    fs::set_permissions(&heir, Permissions::from_mode(0o755)).expect("ours");
    fs::rename(&heir, &path).expect("in its place");
    server.signal(Signal::USR2);
    let written = server.folder.join("crieur.state");
    let since = Instant::now();
    while !written.exists() {
        assert!(since.elapsed() < DEADLINE, "it writes nothing");
        thread::sleep(Duration::from_millis(10));
    }
}

fn write_down(server: &Server) {
    let folder = Path::new(super::FOLDER);
    let number = super::newest() + 1;
    fs::copy(
        server.folder.join("crieur.state"),
        folder.join(format!("{number}.state")),
    )
    .expect("a new file");
    let mut file = File::create(folder.join(format!("{number}.peers"))).expect("a new file");
    for Peer {
        name,
        address,
        rest,
    } in &server.peers
    {
        writeln!(file, "{address}\t{name}\t{}", rest.escape_ascii()).expect("written");
    }
    assert!(server.clients.ip() == Ipv4Addr::LOCALHOST);
}
