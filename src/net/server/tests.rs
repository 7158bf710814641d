use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;

use super::*;
use crate::application::{
    Action, Admission, CloseCause, Decision, Endpoint, Figures, Framing, Message, Outbox, Refused,
    Request, Response, Status, Uplink, Uplinks,
};
use crate::config::ServerLimits;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn tokens_name_connections() {
    for id in [(0, 0), (1, 7), (0xffff, u32::MAX), (123_456, 1 << 31)] {
        let id = ConnectionId {
            index: id.0,
            serial: id.1,
        };
        assert_eq!(connection_of(token_of(id)), id);
        let taken = [SIGNALS, uplinks::READER, uplinks::WRITER];
        assert!(!taken.contains(&token_of(id)) && token_of(id).0 != FIRST_LISTENER);
    }
}

/// Is ready, and has come to rest, when its server says so.
struct Waiting {
    wanted: Vec<Endpoint>,
    is_ready: bool,
    is_settled: bool,
    /// When it has something to do, and to write.
    due: Option<Timestamp>,
    unsent: Vec<u8>,
    /// What makes it settled has come.
    settles: bool,
    notes: Notes,
}

type Notes = Rc<RefCell<Vec<String>>>;

impl Application for Waiting {
    fn handle_upgrade(&mut self, _: ConnectionId, _: &Request<'_>) -> Result<Admission, Refused> {
        unreachable!("nobody asks")
    }

    fn handle_request(
        &mut self,
        _: ConnectionId,
        _: &Request<'_>,
        _: Framing,
        _: &dyn Figures,
    ) -> Decision {
        Decision {
            action: Action::Respond(Response::new(Status::OK, "here")),
            is_limited: false,
        }
    }

    fn handle_message(&mut self, _: ConnectionId, _: Message<'_>, _: &mut dyn Outbox) {}

    fn next_work(&self) -> Option<Timestamp> {
        // The loop doesn't wait for ever where it has missed something.
        let patience = Timestamp::ZERO + PATIENCE;
        self.due.or(Some(patience))
    }

    fn handle_work(&mut self, _: &mut dyn Outbox) {
        self.due = None;
        self.is_settled |= self.settles;
        self.unsent = b"it is time".to_vec();
    }

    fn handle_reload(&mut self) {
        self.notes.borrow_mut().push("reload".to_owned());
    }

    fn uplinks(&mut self) -> Option<&mut dyn Uplinks> {
        Some(self)
    }

    fn is_ready(&self) -> bool {
        self.is_ready
    }

    fn settle(&mut self, is_held: bool) -> bool {
        let note = format!("settle({is_held})");
        if self.notes.borrow().last() != Some(&note) {
            self.notes.borrow_mut().push(note);
        }
        self.is_settled
    }

    fn handle_gone(&mut self, _: ConnectionId) {}

    fn close_reason(&self, _: CloseCause, _: u64) -> String {
        String::new()
    }
}

impl Uplinks for Waiting {
    fn take_connect(&mut self, uplink: Uplink) -> Option<Endpoint> {
        match uplink {
            Uplink::Reader => self.wanted.pop(),
            Uplink::Writer => None,
        }
    }

    fn is_open(&self, uplink: Uplink) -> bool {
        uplink == Uplink::Reader
    }

    fn handle_connected(&mut self, _: Uplink, _: Timestamp) {}

    fn takes_input(&self, _: Uplink) -> bool {
        true
    }

    fn handle_received(&mut self, _: Uplink, bytes: &[u8], _: Timestamp) {
        self.is_ready |= bytes.contains(&b'r');
        if bytes.contains(&b's') {
            self.settles = true;
            self.due = Some(Timestamp::ZERO);
        }
    }

    fn unsent(&mut self, _: Uplink) -> &[u8] {
        &self.unsent
    }

    fn handle_sent(&mut self, _: Uplink, len: usize, _: Timestamp) {
        self.unsent.drain(..len);
    }

    fn handle_end(&mut self, _: Uplink, _: Option<&io::Error>, _: Timestamp) {}
}

/// A process that notes what it is told.
struct Noting(Notes);

impl Host for Noting {
    fn enter(&mut self, phase: Phase) {
        self.0.borrow_mut().push(format!("{phase:?}"));
    }

    fn listening(&mut self, addresses: &[(ListenAddress, Lane)]) {
        let lanes: Vec<_> = addresses.iter().map(|(_, lane)| lane).collect();
        self.0.borrow_mut().push(format!("listening {lanes:?}"));
    }
}

/// A server that takes no signal, and the end of its uplink.
struct Bench {
    server: Server<Waiting>,
    uplink: TcpStream,
    notes: Notes,
}

impl Bench {
    fn new(listeners: Vec<Listener>, config: &ServerConfig) -> Self {
        let redis = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let endpoint = Endpoint::Tcp(redis.local_addr().expect("an address"));
        let notes = Notes::default();
        let application = Waiting {
            wanted: vec![endpoint],
            is_ready: false,
            is_settled: false,
            due: None,
            unsent: Vec::new(),
            settles: false,
            notes: Rc::clone(&notes),
        };
        let mut sources = Sources::new(listeners, config, &[]).expect("a poll");
        sources.listen_if(application.is_ready()).expect("not yet");
        let clock = MonotonicClock(Instant::now());
        let (limits, timeouts) = (ServerLimits::default(), config.timeouts);
        let engine = Engine::new(application, clock, limits, timeouts, 1);
        let mut server = Server::of(sources, engine);
        // It opens it in its first turn.
        server.sources.is_reload_asked = true;
        let stopped = server.turn(&mut Noting(Notes::default()));
        assert_eq!(stopped.expect("a turn"), None);
        notes.borrow_mut().clear();
        let (uplink, _) = redis.accept().expect("a connection");
        Self {
            server,
            uplink,
            notes,
        }
    }

    fn turn(&mut self) -> Result<Option<Stopped>, RunError> {
        self.server.turn(&mut Noting(Rc::clone(&self.notes)))
    }

    /// Has turns run until something is so, without an end.
    fn until(&mut self, is_so: impl Fn(&Server<Waiting>) -> bool) {
        let start = Instant::now();
        while !is_so(&self.server) {
            assert!(start.elapsed() < PATIENCE, "it doesn't come to be");
            assert_eq!(self.turn().expect("a turn"), None);
        }
    }

    fn say(&mut self, bytes: &[u8]) {
        self.uplink.write_all(bytes).expect("it is read");
    }

    fn noted(&self) -> Vec<String> {
        self.notes.take()
    }

    /// Has turns run until a request to `address` is answered.
    fn answer(&mut self, client: &mut TcpStream) {
        let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        client.write_all(request).expect("a request");
        client.set_nonblocking(true).expect("a socket");
        let mut answer = [0; 12];
        let start = Instant::now();
        while let Err(error) = client.read_exact(&mut answer) {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            assert!(start.elapsed() < PATIENCE, "nobody answers");
            assert_eq!(self.turn().expect("a turn"), None);
        }
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
}

/// Listens for clients and for publishers.
fn config() -> ServerConfig {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    ServerConfig {
        listen: vec![any],
        publish_listen: vec![ListenAddress::Tcp(any)],
        ..ServerConfig::default()
    }
}

#[test]
fn nobody_is_listened_for_before_the_application_is_ready() {
    let mut bench = Bench::new(Vec::new(), &config());
    assert_eq!(bench.server.local_addrs().expect("addresses"), []);
    // What the operator wants meanwhile.
    bench.server.sources.is_reload_asked = true;
    bench.until(|server| !server.sources.is_reload_asked);
    bench.server.sources.is_handover_asked = true;
    bench.until(|server| !server.sources.is_handover_asked);
    assert!(bench.server.handover.is_idle());
    assert_eq!(bench.noted(), ["reload"]);
    assert_eq!(bench.server.engine.metrics().handovers_refused, 1);
    bench.say(b"r");
    bench.until(|server| server.sources.is_listening());
    let noted = bench.noted();
    assert_eq!(noted, ["listening [Publishers, Clients]", "Serving"]);
    let addresses = bench.server.local_addrs().expect("addresses");
    for (address, _) in addresses {
        let ListenAddress::Tcp(address) = address else {
            panic!("it is TCP");
        };
        let mut client = TcpStream::connect(address).expect("somebody listens");
        bench.answer(&mut client);
    }
    // From now on it is as ever.
    bench.server.sources.is_reload_asked = true;
    bench.until(|server| !server.sources.is_reload_asked);
    assert_eq!(bench.noted(), ["Reloading", "reload", "Serving"]);
}

#[test]
fn who_comes_to_a_given_socket_waits_until_then() {
    let given = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = given.local_addr().expect("an address");
    let listener = Listener::from_std_tcp(given, Lane::Clients).expect("it listens");
    let mut bench = Bench::new(
        vec![listener],
        &ServerConfig {
            listen: Vec::new(),
            ..ServerConfig::default()
        },
    );
    let mut client = TcpStream::connect(address).expect("somebody listens");
    bench.server.sources.is_reload_asked = true;
    bench.until(|server| !server.sources.is_reload_asked);
    assert_eq!(bench.server.engine.connections_len(), 0);
    bench.say(b"r");
    bench.answer(&mut client);
    let noted = bench.noted();
    assert_eq!(noted, ["reload", "listening [Clients]", "Serving"]);
}

#[test]
fn an_address_that_is_taken_meanwhile_is_the_end() {
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = other.local_addr().expect("an address");
    let mut bench = Bench::new(
        Vec::new(),
        &ServerConfig {
            listen: vec![address],
            ..ServerConfig::default()
        },
    );
    bench.say(b"r");
    let start = Instant::now();
    let error = loop {
        assert!(start.elapsed() < PATIENCE, "it goes on");
        if let Err(error) = bench.turn() {
            break error;
        }
    };
    let said = format!(
        "cannot listen on {address}: the port is in use: stop what listens there, or choose another one"
    );
    assert_eq!(error.to_string(), said);
    assert_eq!(bench.noted(), [""; 0]);
}

#[test]
fn one_that_waits_is_stopped_at_once() {
    let mut bench = Bench::new(Vec::new(), &config());
    // Nothing is under way.
    bench.say(b"s");
    bench.until(|server| server.engine.application().is_settled);
    bench.server.sources.is_stop_asked = true;
    assert_eq!(bench.turn().expect("an end"), Some(Stopped::Drained));
    assert_eq!(bench.noted(), ["Stopping", "settle(false)"]);
    assert!(bench.server.sources.is_listening(), "it never will");
}

#[test]
fn nobody_is_told_of_a_stop_before_all_have_their_answers() {
    let mut bench = Bench::new(Vec::new(), &config());
    bench.say(b"r");
    bench.until(|server| server.sources.is_listening());
    bench.noted();
    bench.server.sources.is_stop_asked = true;
    bench.until(|server| server.sources.is_stopping);
    assert_eq!(bench.server.local_addrs().expect("addresses"), []);
    assert!(!bench.server.engine.is_drained());
    bench.say(b"s");
    let start = Instant::now();
    while bench.turn().expect("a turn").is_none() {
        assert!(start.elapsed() < PATIENCE, "it goes on");
    }
    assert_eq!(bench.noted(), ["Stopping", "settle(false)"]);
    assert!(
        start.elapsed() < ServerConfig::default().drain / 4,
        "at once"
    );
}

#[test]
fn a_stop_waits_for_answers_for_half_of_its_time() {
    let drain = Duration::from_secs(2);
    let config = ServerConfig { drain, ..config() };
    let mut bench = Bench::new(Vec::new(), &config);
    bench.say(b"r");
    bench.until(|server| server.sources.is_listening());
    let addresses = bench.server.local_addrs().expect("addresses");
    let (ListenAddress::Tcp(address), _) = addresses[0] else {
        panic!("it is TCP");
    };
    // It takes no notice.
    let _client = TcpStream::connect(address).expect("somebody listens");
    bench.until(|server| server.engine.connections_len() == 1);
    let start = Instant::now();
    bench.server.sources.is_stop_asked = true;
    bench.until(|server| server.sources.is_stopping);
    bench.until(|server| server.sources.settling_until.is_none());
    assert!(start.elapsed() >= drain / 2);
    while bench.turn().expect("a turn").is_none() {
        assert!(start.elapsed() < PATIENCE, "it goes on");
    }
    assert!(start.elapsed() < drain + drain / 2, "all of it");
}

#[test]
fn what_is_to_be_written_at_a_time_is_written_then() {
    let mut bench = Bench::new(Vec::new(), &config());
    let due = bench.server.engine.now() + Duration::from_millis(20);
    bench.say(b" ");
    // No event will tell of it.
    let Server { engine, .. } = &mut bench.server;
    engine.act(due, |application, _| application.due = Some(due));
    bench.until(|server| server.engine.application().due.is_none());
    let mut said = [0; 10];
    bench.uplink.read_exact(&mut said).expect("what is written");
    assert_eq!(&said, b"it is time");
}
