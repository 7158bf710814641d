use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mio::{Events, Poll};
use socket2::{Domain, SockAddr, Type};

use super::*;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// An application that writes what it is given, and notes what it is told.
#[derive(Default)]
struct Noting {
    ends: [Side; 2],
    /// Both are opened anew when this much was received through the reader.
    starts_anew_at: Option<usize>,
    /// Where they are opened then.
    endpoint: Option<Endpoint>,
}

#[derive(Default)]
struct Side {
    wanted: VecDeque<Endpoint>,
    is_open: bool,
    takes_nothing: bool,
    unsent: Vec<u8>,
    was_shown: bool,
    connected: usize,
    received: Vec<u8>,
    /// How often something was.
    reads: usize,
    ended: Vec<Option<ErrorKind>>,
}

impl Noting {
    fn opening(endpoint: Endpoint) -> Self {
        let mut noting = Self::default();
        noting.open(&endpoint);
        noting.endpoint = Some(endpoint);
        noting
    }

    fn open(&mut self, endpoint: &Endpoint) {
        for side in &mut self.ends {
            side.wanted.push_back(endpoint.clone());
            side.is_open = true;
        }
    }

    fn reader(&mut self) -> &mut Side {
        &mut self.ends[0]
    }

    fn writer(&mut self) -> &mut Side {
        &mut self.ends[1]
    }
}

impl Uplinks for Noting {
    fn take_connect(&mut self, uplink: Uplink) -> Option<Endpoint> {
        self.ends[uplink as usize].wanted.pop_front()
    }

    fn is_open(&self, uplink: Uplink) -> bool {
        let side = &self.ends[uplink as usize];
        assert!(side.wanted.is_empty(), "what is wanted is asked first");
        side.is_open
    }

    fn handle_connected(&mut self, uplink: Uplink, _: Timestamp) {
        self.ends[uplink as usize].connected += 1;
    }

    fn takes_input(&self, uplink: Uplink) -> bool {
        !self.ends[uplink as usize].takes_nothing
    }

    fn handle_received(&mut self, uplink: Uplink, bytes: &[u8], _: Timestamp) {
        assert!(!bytes.is_empty());
        let side = &mut self.ends[uplink as usize];
        assert!(side.wanted.is_empty(), "it is of a socket that has gone");
        side.received.extend_from_slice(bytes);
        side.reads += 1;
        let len = side.received.len();
        if uplink == Uplink::Reader && self.starts_anew_at.is_some_and(|at| at <= len) {
            self.starts_anew_at = None;
            let endpoint = self.endpoint.clone().expect("it was opened");
            self.open(&endpoint);
        }
    }

    fn unsent(&mut self, uplink: Uplink) -> &[u8] {
        let side = &mut self.ends[uplink as usize];
        assert!(
            side.wanted.is_empty(),
            "it would go to a socket that has gone"
        );
        side.was_shown = true;
        &side.unsent
    }

    fn handle_sent(&mut self, uplink: Uplink, len: usize, _: Timestamp) {
        self.ends[uplink as usize].unsent.drain(..len);
    }

    fn handle_end(&mut self, uplink: Uplink, error: Option<&io::Error>, _: Timestamp) {
        let side = &mut self.ends[uplink as usize];
        side.is_open = false;
        side.ended.push(error.map(io::Error::kind));
    }
}

struct Bench {
    poll: Poll,
    events: Events,
    sockets: UplinkSockets,
    noting: Noting,
}

impl Bench {
    fn new(noting: Noting) -> Self {
        Self {
            poll: Poll::new().expect("a poll"),
            events: Events::with_capacity(16),
            sockets: UplinkSockets::new(),
            noting,
        }
    }

    fn pump(&mut self) {
        let registry = self.poll.registry();
        let noting = &mut self.noting;
        self.sockets.pump(registry, noting, Timestamp::ZERO);
    }

    /// What the loop does: waits, unless something is left, and pumps.
    fn turn(&mut self) {
        let timeout = if self.sockets.has_more() {
            Duration::ZERO
        } else {
            PATIENCE
        };
        let polled = self.poll.poll(&mut self.events, Some(timeout));
        polled.expect("a poll");
        for event in &self.events {
            self.sockets.handle_ready(event);
        }
        self.pump();
    }

    fn until(&mut self, is_so: impl Fn(&mut Noting) -> bool) {
        let start = Instant::now();
        self.pump();
        while !is_so(&mut self.noting) {
            assert!(start.elapsed() < PATIENCE, "it doesn't come to be");
            self.turn();
        }
    }

    /// Connects both, and says what the other end has of each.
    fn connect(&mut self, server: &TcpListener) -> [TcpStream; 2] {
        self.until(|noting| noting.ends.iter().all(|side| side.connected == 1));
        let ours = [0, 1].map(|at| match &self.sockets.slots[at].socket {
            Some(Socket::Tcp(stream)) => stream.local_addr().expect("an address"),
            _ => panic!("it is TCP"),
        });
        let mut accepted: Vec<_> = (0..2)
            .map(|_| server.accept().expect("a connection"))
            .collect();
        accepted.sort_by_key(|(_, peer)| *peer != ours[0]);
        let mut accepted = accepted.into_iter().map(|(stream, _)| {
            let patience = stream.set_read_timeout(Some(PATIENCE));
            patience.expect("a socket");
            stream
        });
        [(); 2].map(|()| accepted.next().expect("two"))
    }
}

fn listen() -> (TcpListener, Endpoint) {
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = server.local_addr().expect("an address");
    (server, Endpoint::Tcp(address))
}

/// A folder of the test's own.
fn folder(name: &str) -> PathBuf {
    let name = format!("crieur-uplinks-{name}-{}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir(&folder).expect("a folder");
    folder
}

fn is_blocked(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("a socket");
    let peeked = stream.peek(&mut [0]);
    stream.set_nonblocking(false).expect("a socket");
    peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn bytes_come_and_go_until_the_end() {
    let (server, endpoint) = listen();
    let mut bench = Bench::new(Noting::opening(endpoint));
    bench.noting.reader().unsent = b"read".to_vec();
    bench.noting.writer().unsent = b"write".to_vec();
    let [mut reader, mut writer] = bench.connect(&server);
    bench.until(|noting| noting.ends.iter().all(|side| side.unsent.is_empty()));
    let (mut read, mut written) = ([0; 4], [0; 5]);
    reader.read_exact(&mut read).expect("what was written");
    writer.read_exact(&mut written).expect("what was written");
    assert_eq!((&read, &written), (b"read", b"write"));
    reader.write_all(b"entry").expect("it is read");
    bench.until(|noting| noting.reader().received == b"entry");
    // The end comes with what is ahead of it: no event tells of it once more.
    writer.write_all(b"the last").expect("it is read");
    drop(writer);
    bench.until(|noting| noting.writer().ended == [None]);
    assert_eq!(bench.noting.writer().received, b"the last");
    assert!(bench.sockets.slots[1].socket.is_none());
    // The other is closed as soon as it is of no use.
    assert!(is_blocked(&reader));
    bench.noting.reader().is_open = false;
    bench.pump();
    assert_eq!(reader.read(&mut [0]).expect("an end"), 0);
    assert_eq!(bench.noting.reader().ended, []);
    assert!(!bench.sockets.has_more());
}

#[test]
fn nothing_is_asked_for_before_there_is_a_connection() {
    let (server, endpoint) = listen();
    let mut bench = Bench::new(Noting::opening(endpoint));
    bench.noting.writer().unsent = b"now".to_vec();
    // No event was seen yet.
    bench.pump();
    assert!(!bench.noting.writer().was_shown);
    assert_eq!(bench.noting.writer().connected, 0);
    drop(bench.connect(&server));
    bench.pump();
    assert!(bench.noting.writer().was_shown);
}

#[test]
fn who_is_refused_is_told_so_once() {
    let (server, endpoint) = listen();
    drop(server);
    let mut bench = Bench::new(Noting::opening(endpoint));
    bench.until(|noting| noting.ends.iter().all(|side| !side.ended.is_empty()));
    for side in &bench.noting.ends {
        assert_eq!(side.ended, [Some(ErrorKind::ConnectionRefused)]);
        assert_eq!(side.connected, 0);
    }
}

#[test]
fn a_path_that_leads_nowhere_is_an_end_at_once() {
    let folder = folder("nowhere");
    let mut bench = Bench::new(Noting::opening(Endpoint::Unix(folder.join("none"))));
    bench.pump();
    for side in &bench.noting.ends {
        assert_eq!(side.ended, [Some(ErrorKind::NotFound)]);
    }
    // What was told in the last round is looked at before the loop waits.
    let mut again = Noting::default();
    for _ in 0..64 {
        again.open(&Endpoint::Unix(folder.join("none")));
    }
    bench.noting = again;
    bench.pump();
    assert!(bench.sockets.has_more());
    assert!(!bench.noting.reader().wanted.is_empty(), "it has a bound");
    std::fs::remove_dir_all(folder).expect("a folder");
}

#[test]
fn a_unix_socket_is_as_good() {
    let folder = folder("unix");
    let path = folder.join("socket");
    let server = UnixListener::bind(&path).expect("a socket");
    let mut bench = Bench::new(Noting::opening(Endpoint::Unix(path)));
    bench.noting.reader().unsent = b"read".to_vec();
    bench.until(|noting| noting.reader().unsent.is_empty());
    let (mut stream, _) = server.accept().expect("a connection");
    let mut read = [0; 4];
    stream.read_exact(&mut read).expect("what was written");
    stream.write_all(b"answer").expect("it is read");
    bench.until(|noting| noting.reader().received == b"answer");
    drop(stream);
    bench.until(|noting| noting.reader().ended == [None]);
    std::fs::remove_dir_all(folder).expect("a folder");
}

#[test]
fn a_backlog_that_is_full_is_an_end() {
    let folder = folder("backlog");
    let path = folder.join("socket");
    let server = socket2::Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
    let address = SockAddr::unix(&path).expect("an address");
    server.bind(&address).expect("a path");
    server.listen(0).expect("a backlog of one");
    let mut bench = Bench::new(Noting::opening(Endpoint::Unix(path)));
    bench.until(|noting| noting.reader().connected == 1);
    assert_eq!(bench.noting.writer().ended, [Some(ErrorKind::WouldBlock)]);
    std::fs::remove_dir_all(folder).expect("a folder");
}

#[test]
fn a_socket_that_takes_nothing_is_waited_for() {
    let (server, endpoint) = listen();
    let mut bench = Bench::new(Noting::opening(endpoint));
    let [_reader, mut writer] = bench.connect(&server);
    let len = 64 << 20;
    bench.noting.writer().unsent = vec![b'x'; len];
    bench.pump();
    while bench.sockets.has_more() {
        bench.turn();
    }
    let left = bench.noting.writer().unsent.len();
    assert!(left > 0, "the kernel keeps so much");
    // Nobody has read: nothing more is tried.
    bench.noting.writer().was_shown = false;
    bench.pump();
    assert!(!bench.noting.writer().was_shown);
    let draining = std::thread::spawn(move || {
        let mut bytes = vec![0; len];
        writer.read_exact(&mut bytes).map(|()| writer)
    });
    bench.until(|noting| noting.writer().unsent.is_empty());
    let drained = draining.join().expect("a thread");
    drop(drained.expect("all of it"));
}

#[test]
fn a_pump_reads_within_a_bound_and_only_what_is_taken() {
    let (server, endpoint) = listen();
    let mut bench = Bench::new(Noting::opening(endpoint));
    let [mut reader, _writer] = bench.connect(&server);
    bench.noting.reader().takes_nothing = true;
    let len = 8 << 20;
    let filling = std::thread::spawn(move || {
        reader.write_all(&vec![b'x'; len]).expect("it is read");
        reader
    });
    // The edge is seen, and nothing is taken: that is no work.
    bench.turn();
    assert_eq!(bench.noting.reader().reads, 0);
    assert!(!bench.sockets.has_more());
    // Once it is taken it is there, without another edge.
    bench.noting.reader().takes_nothing = false;
    loop {
        let before = bench.noting.reader().reads;
        bench.pump();
        let reads = bench.noting.reader().reads - before;
        assert!(reads <= ROUNDS_MAX, "{reads} reads in one pump");
        assert!(reads > 0 || !bench.sockets.has_more());
        if bench.noting.reader().received.len() == len {
            break;
        }
        if !bench.sockets.has_more() {
            bench.turn();
        }
    }
    assert!(bench.noting.reader().reads >= len / READ_BYTES_MAX);
    drop(filling.join().expect("a thread"));
}

#[test]
fn what_ends_both_takes_neither_into_the_next_attempt() {
    let (server, endpoint) = listen();
    let mut noting = Noting::opening(endpoint);
    noting.starts_anew_at = Some(3);
    let mut bench = Bench::new(noting);
    let [mut reader, mut writer] = bench.connect(&server);
    reader.write_all(b"err").expect("it is read");
    writer.write_all(b"of the old one").expect("it is read");
    // Both edges are seen at once.
    let start = Instant::now();
    while bench.noting.reader().received.is_empty() {
        assert!(start.elapsed() < PATIENCE);
        let polled = bench.poll.poll(&mut bench.events, Some(PATIENCE));
        polled.expect("a poll");
        for event in &bench.events {
            bench.sockets.handle_ready(event);
        }
        let slots = &bench.sockets.slots;
        if slots.iter().all(|slot| slot.is_readable) {
            bench.noting.writer().unsent = b"new".to_vec();
            bench.pump();
        }
    }
    assert_eq!(bench.noting.writer().received, b"");
    bench.until(|noting| noting.writer().unsent.is_empty());
    assert!(bench.noting.ends.iter().all(|side| side.connected == 2));
    assert!(bench.noting.ends.iter().all(|side| side.ended.is_empty()));
    // The old ones were closed, the writer's with what nobody has read.
    assert_eq!(reader.read(&mut [0]).expect("an end"), 0);
    let ended = writer.read(&mut [0]);
    assert!(!ended.is_ok_and(|len| len > 0), "it is of the next attempt");
}
