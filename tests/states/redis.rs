//! A state of a server whose order is kept in Redis, which had just stopped to answer: to publishers, to those who have sent
//! something behind that, and to a request, something is owed.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crieur::redis::simulated::SimulatedRedis;
use crieur::redis::simulated_sockets::SimulatedSockets;
use crieur::time::Timestamp;
use fastrand::Rng;

use super::names::{described, mistakes, records};
use super::successor::{Successor, check};

/// What all show that come.
const AUTHORIZATION: &str = "Authorization: Bearer a-token-that-was-made-up\r\n";

/// A server with its Redis.
struct Node {
    server: Successor,
    redis: SimulatedRedis,
    sockets: SimulatedSockets,
    rng: Rng,
    now: Timestamp,
}

impl Node {
    fn new() -> Self {
        let now = Timestamp::from_micros(900_000_000);
        let mut node = Self {
            server: Successor::on_redis(now),
            redis: SimulatedRedis::new("crieur"),
            sockets: SimulatedSockets::default(),
            rng: Rng::with_seed(1),
            now,
        };
        for _ in 0..200 {
            node.turn();
        }
        assert!(node.server.redis().is_ready());
        node
    }

    fn turn(&mut self) {
        let step = Duration::from_millis(1);
        self.now = self.now + step;
        self.redis.run(self.now, &mut self.rng);
        let uplinks = self.server.uplinks();
        let redis = Some(&self.redis);
        self.sockets.pump(redis, uplinks, &mut self.rng, self.now);
        self.server.pass(step);
    }

    /// Somebody comes and says this.
    fn say(&mut self, target: &str, messages: &[&str]) {
        self.server.connect();
        let place = self.server.peers.len() - 1;
        let upgrade = format!(
            "GET {target} HTTP/1.1\r\nHost: localhost\r\n{AUTHORIZATION}Connection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        let mut bytes = upgrade.into_bytes();
        for message in messages {
            let len = u8::try_from(message.len()).ok().filter(|len| *len < 126);
            bytes.extend([0x81, 0x80 | len.expect("it is short"), 0, 0, 0, 0]);
            bytes.extend(message.bytes());
        }
        self.server.send(place, &bytes);
        self.server.pass(Duration::ZERO);
    }

    fn post(&mut self, body: &str) {
        self.server.connect();
        let place = self.server.peers.len() - 1;
        let len = body.len();
        let head = format!("POST /publish HTTP/1.1\r\nHost: localhost\r\n{AUTHORIZATION}");
        let request =
            format!("{head}Content-Type: application/json\r\nContent-Length: {len}\r\n\r\n{body}");
        self.server.send(place, request.as_bytes());
        self.server.pass(Duration::ZERO);
    }

    /// What it leaves when much is owed.
    fn leave(&mut self) -> Vec<u8> {
        const PUBLISH: &str = r#"{"notification":{"channel":"c"}}"#;
        const KEYED: &str = r#"{"key":"k","notification":{"channel":"c"}}"#;
        self.post(KEYED);
        for _ in 0..20 {
            self.turn();
        }
        self.redis.stop(true);
        let publish = r#"{"sender":"server","notification":{"channel":"c"}}"#;
        let list = r#"{"sender":"client","subscriptions":["c"],"since":"1895702284393-0-0123456789abcdef"}"#;
        self.say("/publish", &[publish, r#"{"type":"ping"}"#, publish, "{"]);
        self.say("/", &[publish]);
        self.say("/", &[list]);
        self.post(&format!("[{PUBLISH},{KEYED}]"));
        self.turn();
        self.post(PUBLISH);
        self.server.state()
    }
}

#[test]
fn what_is_owed_goes_over() {
    let mut node = Node::new();
    let state = node.leave();
    let unnamed: Vec<_> = mistakes(&state)
        .into_iter()
        .filter(|mistake| mistake.contains("no name"))
        .collect();
    assert!(unnamed.is_empty(), "{unnamed:?}");
    let kinds: Vec<_> = records(&state).iter().map(|(kind, _)| *kind).collect();
    for kind in [14, 15, 16] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
    let text: String = records(&state)
        .iter()
        .map(|(kind, members)| described(*kind, members))
        .collect();
    assert!(text.contains("(message)"), "{text}");
    let carried = check(&state).expect("it is one");
    assert_eq!((carried.connections, carried.lost), (6, 0));

    // Redis goes on, and everybody is answered.
    node.server = Successor::take_over(&state, node.now).expect("a state");
    node.sockets.leave();
    node.server.register();
    node.redis.stop(false);
    for _ in 0..1200 {
        node.turn();
    }
    let got = node.server.peers.iter().map(|(_, wire)| {
        let bytes = wire.take();
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let got: Vec<_> = got.collect();
    let parts: Vec<_> = got[1]
        .split(r#"{"type":"published","delivered":0"#)
        .collect();
    assert_eq!(parts.len(), 3, "{}", got[1]);
    assert!(parts[1].contains("pong") && parts[2].contains("invalid-json"));
    assert!(got[2].contains(r#"{"delivered":0"#), "{}", got[2]);
    // The id that it waited for has not come; it has shown no client's token.
    assert!(got[3].contains("token-missing"), "{}", got[3]);
    assert!(got[4].contains(r#"[{"delivered":0"#) && got[4].contains(r#""repeated":true"#));
    assert!(got[5].contains(r#"{"delivered":0"#), "{}", got[5]);
}

#[test]
fn a_byte_that_is_another_is_refused_or_gone_on_from() {
    let state = Node::new().leave();
    let mut rng = Rng::with_seed(7);
    let (mut refused, mut taken) = (0, 0);
    for _ in 0..super::number("DAMAGES", 700) {
        let mut damaged = state.clone();
        for _ in 0..rng.usize(1..3) {
            let at = rng.usize(..damaged.len());
            damaged[at] = rng.u8(..);
        }
        match check(&damaged) {
            None => refused += 1,
            Some(_) => taken += 1,
        }
    }
    assert!(refused > 100 && taken > 100, "{refused} {taken}");
}

#[test]
#[ignore = "it writes files among the sources"]
fn the_corpus_is_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/state");
    fs::write(folder.join("owed-by-redis"), Node::new().leave()).expect("a folder");
}
