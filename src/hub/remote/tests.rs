//! Hubs on one simulated Redis, whose bytes really go: what clients and publishers are told, in order.

mod faults_tests;
mod handover_tests;
mod order_tests;
mod resuming_tests;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use fastrand::Rng;

use crate::application::{
    Admission, Answer, BodyUse, Delivered, Deliveries, Endpoint, Lane, Message, Outbox, Peer,
    PeerAddress, Replies, Request, Response,
};
use crate::config::{HistoryLimits, HubConfig};
use crate::http::head::Head;
use crate::hub::access::policy::Policy;
use crate::hub::{Hub, command};
use crate::id::ConnectionId;
use crate::journal::Journal;
use crate::redis::address::{Login, Server};
use crate::redis::simulated::SimulatedRedis;
use crate::redis::simulated_sockets::SimulatedSockets;
use crate::redis::{Redis, Settings};
use crate::time::{Clock, Timestamp};
use crate::ws::close::CloseCode;
use crate::ws::frame::EncodedFrame;

/// The wall clock when that of the server begins; Redis' own agrees.
const EPOCH: Duration = Duration::from_millis(1_795_702_284_393);

const TIMEOUT: Duration = Duration::from_secs(1);

const LOCAL: &str = "127.0.0.1:50000";
const REMOTE: &str = "192.0.2.1:50000";

const PING: &str = r#"{"type":"ping"}"#;

const fn id(index: u32) -> ConnectionId {
    ConnectionId { index, serial: 7 }
}

/// A message that publishes a text to the channel `a`.
fn publish(text: &str) -> String {
    format!(r#"{{"sender":"server","notification":{{"channel":"a","text":"{text}"}}}}"#)
}

/// The same with more members.
fn publish_with(text: &str, members: &str) -> String {
    publish(text).replacen('{', &format!("{{{members},"), 1)
}

/// A list of subscriptions to the channel `a`.
fn list(since: Option<&str>) -> String {
    let since = since.map_or(String::new(), |since| format!(r#","since":"{since}""#));
    format!(r#"{{"sender":"client","subscriptions":["a"]{since}}}"#)
}

/// The text member of a JSON object that was sent.
fn member<'a>(text: &'a str, name: &str) -> &'a str {
    let start = format!(r#""{name}":""#);
    let at = text
        .find(&start)
        .unwrap_or_else(|| panic!("{name} of {text}"));
    let rest = &text[at + start.len()..];
    &rest[..rest.find('"').expect("its end")]
}

/// A shell that notes what each connection is told.
#[derive(Default)]
struct Screen {
    now: Timestamp,
    told: HashMap<ConnectionId, Vec<String>>,
    closed: HashSet<ConnectionId>,
    /// Closed, but the hub hasn't been told.
    gone: Vec<ConnectionId>,
    paused: HashSet<ConnectionId>,
    /// Those that take nothing while their queue isn't empty.
    slow: HashSet<ConnectionId>,
    /// Those whose queue the hub waits for.
    awaited: HashSet<ConnectionId>,
    closes_last: HashSet<ConnectionId>,
}

impl Screen {
    fn tell(&mut self, id: ConnectionId, text: String) {
        if !self.closed.contains(&id) {
            self.told.entry(id).or_default().push(text);
        }
    }
}

impl Clock for Screen {
    fn now(&self) -> Timestamp {
        self.now
    }

    fn unix_now(&self) -> Duration {
        EPOCH + Duration::from_micros(self.now.as_micros())
    }
}

impl Deliveries for Screen {
    fn deliver(&mut self, frame: &EncodedFrame, recipients: &[ConnectionId]) -> Delivered {
        let bytes = frame.as_bytes();
        let start = bytes.iter().position(|&byte| byte == b'{').expect("JSON");
        let text = std::str::from_utf8(&bytes[start..]).expect("text");
        for id in recipients {
            self.tell(*id, text.to_owned());
        }
        let queued = recipients.len();
        Delivered { queued, dropped: 0 }
    }

    fn has_room(&mut self, _: ConnectionId, _: &EncodedFrame) -> bool {
        true
    }

    fn close(&mut self, id: ConnectionId, code: CloseCode, reason: &str) {
        self.tell(id, format!("close {} {reason}", code.as_u16()));
        if self.closed.insert(id) {
            self.gone.push(id);
        }
    }

    fn retry_ms(&mut self) -> u64 {
        4200
    }
}

impl Replies for Screen {
    fn reply(&mut self, to: ConnectionId, payload: &str) {
        self.tell(to, payload.to_owned());
    }

    fn reply_binary(&mut self, _: ConnectionId, _: &[u8]) {
        unreachable!("the hub speaks text");
    }

    fn respond(&mut self, to: ConnectionId, response: &Response) {
        self.tell(to, shown(response));
    }

    fn readmit(&mut self, id: ConnectionId, admission: &Admission) {
        if admission.closes_last {
            self.closes_last.insert(id);
        }
    }

    fn is_drained(&mut self, id: ConnectionId) -> bool {
        !self.slow.contains(&id)
    }

    fn await_drained(&mut self, id: ConnectionId) {
        self.awaited.insert(id);
    }

    fn pause_input(&mut self, id: ConnectionId) {
        assert!(self.paused.insert(id), "{id} is paused twice");
    }

    fn resume_input(&mut self, id: ConnectionId) {
        assert!(self.paused.remove(&id), "{id} is not paused");
    }
}

/// A response as one line.
fn shown(response: &Response) -> String {
    let fields = response.fields.iter();
    let fields: String = fields
        .map(|(name, value)| format!(" {name}: {value}"))
        .collect();
    format!(
        "{}{fields} {}",
        response.status.code,
        response.body.trim_end()
    )
}

/// A hub with its sockets to Redis and its clients.
struct Node {
    hub: Hub,
    sockets: SimulatedSockets,
    screen: Screen,
}

impl Node {
    fn new(seed: u64, history: HistoryLimits) -> Self {
        let settings = Settings {
            stream: "crieur".into(),
            maxlen: 100_000,
            timeout: TIMEOUT,
            history: history.age_max,
            takes_position: command::takes_position,
        };
        let server = Server {
            endpoint: Endpoint::Unix("/a".into()),
            login: Login::default(),
        };
        let policy = Policy {
            local_publish: true,
            ..Policy::default()
        };
        let (config, ping) = (HubConfig::default(), Duration::from_secs(25));
        let hub = Hub::new(config, ping, policy, Journal::of_stream(history));
        let redis = Redis::new(settings, vec![server], seed);
        Self {
            hub: hub.with_redis(redis),
            sockets: SimulatedSockets::default(),
            screen: Screen::default(),
        }
    }

    /// Does something, and what a shell does behind everything.
    fn act<T>(&mut self, act: impl FnOnce(&mut Hub, &mut dyn Outbox) -> T) -> T {
        let done = act(&mut self.hub, &mut self.screen);
        for id in std::mem::take(&mut self.screen.gone) {
            self.hub.handle_gone(id);
        }
        self.hub.check_invariants();
        done
    }

    /// Lets a connection in.
    fn connect(&mut self, index: u32, address: &str, target: &str) {
        let text = format!("GET {target} HTTP/1.1\r\nHost: localhost:8000\r\n\r\n");
        let head = Head::parse(text.as_bytes(), 0, 4096).expect("valid");
        let (head, _) = head.expect("complete");
        let request = Request {
            peer: Peer {
                address: PeerAddress::Ip(address.parse().expect("an address")),
                lane: Lane::Clients,
            },
            head: &head,
            now: self.screen.now,
            unix_now: self.screen.unix_now(),
        };
        let admitted = self.hub.admit(id(index), &request, target == "/publish");
        admitted.expect("everybody is admitted");
    }

    /// One that publishes and stays.
    fn connect_publisher(&mut self, index: u32) {
        self.connect(index, LOCAL, "/publish");
    }

    /// One that subscribes, with or without an id; returns what it is told at once.
    fn subscribe(&mut self, index: u32, since: Option<&str>) -> Vec<String> {
        self.connect(index, REMOTE, "/");
        self.send(index, &list(since));
        self.take(index)
    }

    fn send(&mut self, index: u32, text: &str) {
        self.act(|hub, outbox| hub.handle_message(id(index), Message::Text(text), outbox));
    }

    fn post(&mut self, index: u32, body: &str) -> Option<String> {
        let answer = self.act(|hub, outbox| {
            hub.handle_post(id(index), body.as_bytes(), BodyUse::Publish, outbox)
        });
        match answer {
            Answer::Now(response) => Some(shown(&response)),
            Answer::Later => None,
        }
    }

    fn hang_up(&mut self, index: u32) {
        self.screen.closed.insert(id(index));
        self.screen.paused.remove(&id(index));
        self.act(|hub, _| hub.handle_gone(id(index)));
    }

    /// What a connection has been told since the last look.
    fn take(&mut self, index: u32) -> Vec<String> {
        self.screen.told.remove(&id(index)).unwrap_or_default()
    }

    fn is_paused(&self, index: u32) -> bool {
        self.screen.paused.contains(&id(index))
    }

    /// The id of the position now.
    fn position(&self) -> String {
        self.hub.journal().id(self.hub.journal().head()).to_string()
    }
}

/// Nodes and their Redis.
struct World {
    rng: Rng,
    now: Timestamp,
    server: SimulatedRedis,
    /// Whether anybody can connect to it.
    is_there: bool,
    /// Of which node the sockets neither read nor write.
    lagging: Option<usize>,
    nodes: Vec<Node>,
}

impl World {
    /// Nodes that are ready.
    fn new(nodes: usize) -> Self {
        let mut world = Self::empty();
        for _ in 0..nodes {
            world.start(HistoryLimits::default());
        }
        world
    }

    fn empty() -> Self {
        Self {
            rng: Rng::with_seed(1),
            now: Timestamp::ZERO,
            server: SimulatedRedis::new("crieur"),
            is_there: true,
            lagging: None,
            nodes: Vec::new(),
        }
    }

    /// Another node, which is ready.
    fn start(&mut self, history: HistoryLimits) -> usize {
        let mut node = Node::new(self.rng.u64(..), history);
        node.screen.now = self.now;
        self.nodes.push(node);
        let node = self.nodes.len() - 1;
        self.await_ready(node);
        node
    }

    fn await_ready(&mut self, node: usize) {
        for _ in 0..5000 {
            self.run(1);
            if self.nodes[node].hub.redis().is_some_and(Redis::is_ready) {
                return;
            }
        }
        panic!("node {node} isn't ready");
    }

    fn one() -> Self {
        Self::new(1)
    }

    fn node(&mut self) -> &mut Node {
        &mut self.nodes[0]
    }

    /// Bytes move, and everything that is due is done.
    fn turn(&mut self, time: Duration) {
        self.now = self.now + time;
        self.server.run(self.now, &mut self.rng);
        for at in 0..self.nodes.len() {
            self.turn_node(at);
        }
    }

    fn turn_node(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.screen.now = self.now;
        let redis = node.hub.redis_mut().expect("it has one");
        let server = self.is_there.then_some(&self.server);
        if self.lagging != Some(at) {
            node.sockets.pump(server, redis, &mut self.rng, self.now);
        }
        for _ in 0..100_000 {
            if node.hub.next_work().is_none_or(|due| due > self.now) {
                return;
            }
            node.act(|hub, outbox| hub.handle_work(outbox));
        }
        panic!("there is no end to what is due");
    }

    /// Some time, in which whatever is under way comes to its end.
    fn run_on(&mut self) {
        self.run(60);
    }

    fn run(&mut self, millis: u64) {
        for _ in 0..millis {
            self.turn(Duration::from_millis(1));
        }
    }

    /// Somebody else appends an entry.
    fn add(&mut self, json: &str) {
        self.server.add(&[(b"n", json.as_bytes())]);
    }

    /// Somebody else publishes a text to the channel `a`.
    fn publish(&mut self, text: &str) {
        self.add(&format!(
            r#"{{"notification":{{"channel":"a","text":"{text}"}}}}"#
        ));
    }

    /// The texts of all that Redis ever took.
    fn taken(&self) -> Vec<String> {
        let log = self.server.log();
        let fields = log.iter().flat_map(|taken| &taken.fields);
        let texts = fields.filter(|(name, _)| name == b"n");
        let text = |json: &[u8]| member(&String::from_utf8_lossy(json), "text").to_owned();
        texts.map(|(_, json)| text(json)).collect()
    }
}

/// A notification as it is delivered, without a number.
fn delivery(text: &str) -> String {
    format!(r#"{{"type":"notification","notification":{{"channel":"a","text":"{text}"}}}}"#)
}

/// What is in a list of what was told, by the texts in them.
fn assert_told(told: &[String], expected: &[&str]) {
    let fits = |(told, expected): (&String, &&str)| told.contains(*expected);
    let are_all = told.len() == expected.len() && told.iter().zip(expected).all(fits);
    assert!(are_all, "{told:#?} is not {expected:#?}");
}
