//! A hub that becomes another one now and then, beside one that doesn't: nobody is told anything else.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fastrand::Rng;

use super::*;
use crate::application::{
    Admission, Delivered, Deliveries, Lane, Message, PeerAddress, Refused, Replies, Request,
    Response,
};
use crate::config::{HistoryLimits, HubConfig, HubLimits};
use crate::handover::{Incoming, Outgoing};
use crate::http::head::Head;
use crate::hub::access::addresses::AddressLimits;
use crate::hub::access::jwt::ClientKeys;
use crate::hub::access::policy::Policy;
use crate::hub::access::token_file::PublishTokens;
use crate::hub::replay::Slice;
use crate::journal::Journal;
use crate::journal::id::Generation;
use crate::time::Clock;
use crate::ws::close::CloseCode;
use crate::ws::frame::EncodedFrame;

/// A connection as it is written.
#[derive(PartialEq, Eq, Debug)]
pub(in crate::hub) struct SavedConnection {
    pub(in crate::hub) id: ConnectionId,
    pub(in crate::hub) peer: Peer,
    pub(in crate::hub) members: Vec<u8>,
}

/// All that a hub writes.
#[derive(PartialEq, Eq, Debug)]
pub(in crate::hub) struct Saved {
    pub(in crate::hub) state: Vec<u8>,
    pub(in crate::hub) connections: Vec<SavedConnection>,
}

impl Saved {
    pub(in crate::hub) fn of(hub: &Hub) -> Self {
        let members = |write: &dyn Fn(&mut Members<'_>)| {
            let mut bytes = Vec::new();
            write(&mut Members::new(&mut bytes));
            bytes
        };
        let connections = hub.connections.ids().map(|id| {
            let (_, address) = hub.connections.find(id).expect("it is there");
            let (address, lane) = (address.into(), Lane::Clients);
            SavedConnection {
                id,
                peer: Peer { address, lane },
                members: members(&|members| hub.save_connection(id, members)),
            }
        });
        let mut bytes = Vec::new();
        let mut state = Outgoing::begin(&mut bytes as &mut dyn io::Write).expect("memory");
        // Frames have to be numbered anew each time.
        FRAMES.with_borrow_mut(|frames| {
            frames.begin();
            hub.save(&mut state, frames).expect("memory");
        });
        state.finish().expect("memory");
        Self {
            state: bytes,
            connections: connections.collect(),
        }
    }

    pub(in crate::hub) fn restore(&self, hub: &mut Hub, now: Timestamp) {
        let mut state = Incoming::begin(&self.state[..]).expect("a state");
        let mut frames = Frames::default();
        while let Some((kind, fields)) = state.next_record().expect("whole") {
            let fields = fields.expect("members");
            let restored = hub.restore(kind, &fields, &mut frames, now);
            restored.expect("a record of a hub");
        }
        for SavedConnection { id, peer, members } in &self.connections {
            let fields = Fields::parse(members).expect("members");
            let restored = hub.restore_connection(*id, *peer, &fields, now);
            restored.expect("a connection");
        }
    }
}

thread_local! {
    static FRAMES: RefCell<FrameNumbers> = RefCell::default();
}

/// A hub that was begun as another one was.
fn successor(predecessor: Hub) -> Hub {
    let Hub {
        config,
        ping_interval,
        policy,
        reload,
        journal,
        slice,
        ..
    } = predecessor;
    // Not of this generation: that of the predecessor goes on.
    let journal = Journal::new(journal.history().limits(), Generation(99));
    Hub {
        reload,
        slice,
        ..Hub::new(config, ping_interval, policy, journal)
    }
}

fn empty() -> Hub {
    let history = HistoryLimits::default();
    hub_of(HubConfig::default(), Policy::default(), history)
}

fn hub_of(config: HubConfig, policy: Policy, history: HistoryLimits) -> Hub {
    let journal = Journal::new(history, Generation(1));
    Hub::new(config, Duration::from_secs(25), policy, journal)
}

/// Has another hub take the place of this one, with what is written of it; that hub writes the same.
pub(in crate::hub) fn carry(hub: &mut Hub, now: Timestamp) {
    // Whoever has its whole rate isn't written; so it has to know the time.
    let mut settled = Vec::new();
    Members::new(&mut settled).time(2, Some(Timestamp::ZERO));
    let settled = Fields::parse(&settled).expect("members");
    hub.restore_address(&settled, now).expect("an address");
    let saved = Saved::of(hub);
    let mut carried = successor(std::mem::replace(hub, empty()));
    saved.restore(&mut carried, now);
    carried.check_invariants();
    assert_eq!(Saved::of(&carried), saved);
    *hub = carried;
}

/// A shell that notes what each connection is told.
#[derive(Default, PartialEq, Eq, Debug)]
struct Shell {
    now: Timestamp,
    told: BTreeMap<ConnectionId, Vec<String>>,
    /// Those whose peers read nothing at the moment.
    slow: BTreeSet<ConnectionId>,
    /// Those that something waits for.
    undrained: BTreeSet<ConnectionId>,
    awaited: BTreeSet<ConnectionId>,
    paused: BTreeSet<ConnectionId>,
    closed: BTreeSet<ConnectionId>,
}

impl Shell {
    fn tell(&mut self, id: ConnectionId, text: String) {
        if !self.closed.contains(&id) {
            self.told.entry(id).or_default().push(text);
            if self.slow.contains(&id) {
                self.undrained.insert(id);
            }
        }
    }
}

impl Clock for Shell {
    fn now(&self) -> Timestamp {
        self.now
    }

    fn unix_now(&self) -> Duration {
        Duration::from_micros(self.now.as_micros())
    }
}

impl Deliveries for Shell {
    fn deliver(&mut self, frame: &EncodedFrame, recipients: &[ConnectionId]) -> Delivered {
        let text = String::from_utf8_lossy(frame.as_bytes());
        let open = recipients.iter().filter(|id| !self.closed.contains(id));
        let open: Vec<_> = open.copied().collect();
        for &id in &open {
            self.tell(id, text.clone().into_owned());
        }
        let (queued, dropped) = (open.len(), 0);
        Delivered { queued, dropped }
    }

    fn has_room(&mut self, id: ConnectionId, _: &EncodedFrame) -> bool {
        !self.undrained.contains(&id)
    }

    fn close(&mut self, id: ConnectionId, code: CloseCode, reason: &str) {
        self.tell(id, format!("{} {reason}", code.as_u16()));
        self.closed.insert(id);
    }

    fn retry_ms(&mut self) -> u64 {
        4200
    }
}

impl Replies for Shell {
    fn reply(&mut self, id: ConnectionId, payload: &str) {
        self.tell(id, payload.to_owned());
    }

    fn reply_binary(&mut self, _: ConnectionId, _: &[u8]) {
        unreachable!("the hub speaks text");
    }

    fn respond(&mut self, _: ConnectionId, _: &Response) {
        unreachable!("the hub answers at once");
    }

    fn readmit(&mut self, id: ConnectionId, admission: &Admission) {
        self.tell(id, format!("{admission:?}"));
    }

    fn is_drained(&mut self, id: ConnectionId) -> bool {
        !self.undrained.contains(&id)
    }

    fn await_drained(&mut self, id: ConnectionId) {
        self.awaited.insert(id);
    }

    fn pause_input(&mut self, id: ConnectionId) {
        self.paused.insert(id);
    }

    fn resume_input(&mut self, id: ConnectionId) {
        self.paused.remove(&id);
    }
}

const KEY: &str = "0123456789abcdef0123456789abcdef";
const PUBLISH_TOKEN: &str = "0123456789abcdef";
/// `{"exp":1000,"allow":["a"]}`
const A: &str = "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjEwMDAsImFsbG93IjpbImEiXX0.vj7Patr6mhiQOlkjs6LcrV2g24S2TatFbesO7pV47V8";
/// `{"exp":2000,"allow":["b"]}`
const B: &str = "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjIwMDAsImFsbG93IjpbImIiXX0.5MOgdFsdlmOdwDCJUJX4oQy-EIuSDiV17vKtyPxBc1E";

/// Slots that the driver uses; few, so that they are used again.
const SLOTS: u32 = 10;

/// One that is always there.
const PUBLISHER: ConnectionId = ConnectionId {
    index: SLOTS,
    serial: 0,
};

/// Two hubs to which the same happens.
struct Twins {
    random: Rng,
    has_tokens: bool,
    /// Whether it counts which of two clients goes on first.
    has_shares: bool,
    hubs: [Hub; 2],
    shells: [Shell; 2],
    serials: [u32; SLOTS as usize + 1],
    connected: BTreeSet<ConnectionId>,
    published: u64,
    seen: Seen,
}

/// In how many states clients were carried.
#[derive(Default, Debug)]
struct Seen {
    live: usize,
    numbered: usize,
    replaying: usize,
    awaiting: usize,
    holding: usize,
    cleared: usize,
    throttled: usize,
    idle: usize,
    refused: usize,
    over_share: u64,
    lost: u64,
    expired: u64,
}

impl Twins {
    fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let has_tokens = random.bool();
        let has_limits = random.bool();
        let has_shares = random.bool();
        let policy = || Policy {
            local_publish: true,
            publish_tokens: has_tokens
                .then(|| PublishTokens::parse(PUBLISH_TOKEN).expect("a token")),
            client_keys: has_tokens.then(|| ClientKeys::parse(KEY).expect("a key")),
            address_limits: AddressLimits {
                connections_max: has_limits.then_some(4),
                upgrades_per_second: has_limits.then_some(0.5),
            },
            ..Policy::default()
        };
        let limits = HubLimits {
            subscriptions_total_max: 40,
            share_percent: if has_shares { 10 } else { 100 },
            ..HubLimits::default()
        };
        let config = || HubConfig {
            limits,
            ..HubConfig::default()
        };
        // A look costs 64 at least.
        let slice = Slice {
            entries: match has_shares {
                true => usize::MAX,
                false => [1, 70, 200][random.usize(..3)],
            },
            bytes: [1, 100][random.usize(..2)],
        };
        let history = HistoryLimits {
            age_max: Duration::from_secs(10),
            bytes_max: [4_000, 1_000_000][random.usize(..2)],
        };
        let hub = || hub_of(config(), policy(), history).with_slices(slice);
        let mut twins = Self {
            random,
            has_tokens,
            has_shares,
            hubs: [hub(), hub()],
            shells: [Shell::default(), Shell::default()],
            serials: [0; SLOTS as usize + 1],
            connected: BTreeSet::new(),
            published: 0,
            seen: Seen::default(),
        };
        let local = PeerAddress::Ip("127.0.0.1:9".parse().expect("an address"));
        twins.connect_as(PUBLISHER, local, "/publish", Some(PUBLISH_TOKEN));
        twins
    }

    /// Does the same to both.
    fn both<R: PartialEq + std::fmt::Debug>(
        &mut self,
        act: impl Fn(&mut Hub, &mut Shell) -> R,
    ) -> R {
        let [one, other] = &mut self.hubs;
        let [shell, other_shell] = &mut self.shells;
        let result = act(one, shell);
        assert_eq!(act(other, other_shell), result);
        for (id, told) in &shell.told {
            assert_eq!(other_shell.told.get(id), Some(told), "{id} is told");
        }
        assert_eq!(shell, other_shell);
        one.check_invariants();
        other.check_invariants();
        let figures = |hub: &Hub| {
            let counts = (hub.index.connection_count(), hub.index.value_count());
            let history = (hub.journal.history().start(), hub.journal.head());
            let work = (hub.next_work(), hub.replays.runnable_len());
            let publishers = hub.connections.publishers_len();
            (
                counts,
                history,
                work,
                publishers,
                format!("{:?}", hub.metrics),
            )
        };
        assert_eq!(figures(one), figures(other));
        result
    }

    fn is_one_in(&mut self, of: u32) -> bool {
        self.random.u32(..of) == 0
    }

    fn some_connected(&mut self) -> Option<ConnectionId> {
        let at = self.random.usize(..self.connected.len().max(1));
        self.connected.iter().nth(at).copied()
    }

    fn connect(&mut self) {
        let slot = self.random.u32(..SLOTS);
        let id = ConnectionId {
            index: slot,
            serial: self.serials[slot as usize],
        };
        if self.connected.contains(&id) {
            return;
        }
        let last = self.random.u8(1..4);
        let address = match self.random.u8(..8) {
            0 => PeerAddress::Unix,
            1 => PeerAddress::Unknown,
            2 => PeerAddress::Ip(format!("127.0.0.1:{last}").parse().expect("an address")),
            3 => PeerAddress::Ip(format!("[2001:db8::{last}]:7").parse().expect("an address")),
            _ => PeerAddress::Ip(format!("192.0.2.{last}:7").parse().expect("an address")),
        };
        let target = ["/", "/publish"][self.random.usize(..2)];
        let tokens = [
            None,
            None,
            Some(PUBLISH_TOKEN),
            Some(A),
            Some(B),
            Some("no"),
        ];
        let token = tokens[self.random.usize(..tokens.len())];
        self.connect_as(id, address, target, token);
    }

    fn connect_as(
        &mut self,
        id: ConnectionId,
        address: PeerAddress,
        target: &str,
        token: Option<&str>,
    ) {
        let token = token.map(|token| match token {
            PUBLISH_TOKEN => ("", format!("Authorization: Bearer {token}\r\n")),
            _ => (token, String::new()),
        });
        let (query, field) = token.unwrap_or_default();
        let text = format!("GET {target}?token={query} HTTP/1.1\r\nHost: localhost\r\n{field}\r\n");
        let text = text.replace("?token= ", " ");
        let admitted = self.both(|hub, shell| -> Result<Admission, Refused> {
            let head = Head::parse(text.as_bytes(), 0, 4096);
            let (head, _) = head.expect("valid").expect("complete");
            let request = Request {
                peer: Peer {
                    address,
                    lane: Lane::Clients,
                },
                head: &head,
                now: shell.now(),
                unix_now: shell.unix_now(),
            };
            hub.admit(id, &request, head.path() == "/publish")
        });
        if admitted.is_ok() {
            self.connected.insert(id);
        } else {
            self.seen.refused += 1;
        }
    }

    fn leave(&mut self, id: ConnectionId) {
        self.both(|hub, shell| {
            hub.handle_gone(id);
            for set in [
                &mut shell.slow,
                &mut shell.undrained,
                &mut shell.awaited,
                &mut shell.paused,
                &mut shell.closed,
            ] {
                set.remove(&id);
            }
            shell.told.remove(&id);
        });
        self.connected.remove(&id);
        self.serials[id.slot()] += 1;
    }

    fn list(&mut self) -> String {
        let all = [
            r#""a""#,
            r#""b""#,
            r#"{"package":"p","page":"q"}"#,
            r#"{"package":"p","page":"q","filters":{"values":{"x":["1"]}}}"#,
            r#"{"package":"p","page":"q","filters":{"values":{"x":["2"]}}}"#,
            r#"{"package":"p","page":"q","filters":{"values":{"x":["1","2"],"y":true}}}"#,
            r#"{"package":"p","page":"q","filters":{"values":{"x":[],"y":true}}}"#,
            r#"{"package":"p","page":"q","filters":{"values":["3"]}}"#,
        ];
        let bound = if self.has_tokens { 1 } else { all.len() };
        let list = (0..self.random.usize(..5)).map(|_| {
            let at = self.random.usize(..bound);
            // With tokens hardly anything but one channel is allowed.
            if bound == 1 && self.random.u8(..6) == 0 {
                all[1]
            } else {
                all[at]
            }
        });
        list.collect::<Vec<_>>().join(",")
    }

    fn message(&mut self) -> String {
        match self.random.u8(..12) {
            0 => r#"{"type":"ping"}"#.to_owned(),
            1 => "[".to_owned(),
            2..=10 => {
                let token = match self.random.u8(..8) {
                    0 => format!(r#","token":"{A}""#),
                    1 => format!(r#","token":"{B}""#),
                    _ => String::new(),
                };
                let since = match self.random.u8(..5) {
                    0 => r#","since":"""#.to_owned(),
                    1..=3 => {
                        let position = self.random.u64(..=self.published / 2 + 1);
                        format!(r#","since":"0000000000000001-{position}""#)
                    }
                    _ => String::new(),
                };
                let list = self.list();
                format!(r#"{{"sender":"client","subscriptions":[{list}]{token}{since}}}"#)
            }
            _ => self.publication(),
        }
    }

    fn publication(&mut self) -> String {
        let what = [
            r#"{"channel":"a"}"#,
            r#"{"channel":"b"}"#,
            r#"{"channel":"a","package":"p","page":"q"}"#,
            r#"{"package":"p","page":"q","filters":{"values":{"x":"1","y":"2"}}}"#,
            r#"{"package":"p","page":"q","filters":{"values":["2","3"]}}"#,
            r#"{"channel":7}"#,
        ];
        let what = what[self.random.usize(..what.len())];
        let more = ["", r#""keep":false,"#, r#""key":"k1","#, r#""key":"k2","#];
        let more = more[self.random.usize(..more.len())];
        let token = match self.is_one_in(2) {
            true => format!(r#""token":"{PUBLISH_TOKEN}","#),
            false => String::new(),
        };
        format!(r#"{{"sender":"server",{token}{more}"notification":{what}}}"#)
    }

    fn say(&mut self, id: ConnectionId) {
        let shell = &self.shells[0];
        let hub = &self.hubs[0];
        if shell.closed.contains(&id) || shell.paused.contains(&id) {
            return;
        }
        let held = hub
            .replays
            .get(id)
            .is_some_and(|cursor| cursor.held.is_some());
        assert!(!held, "its input is paused");
        let text = match id {
            PUBLISHER => self.publication(),
            _ => self.message(),
        };
        self.both(|hub, shell| hub.handle_message(id, Message::Text(&text), shell));
        self.published = self.hubs[0].journal.head().0;
    }

    fn drain(&mut self, id: ConnectionId) {
        self.both(|hub, shell| {
            shell.undrained.remove(&id);
            if shell.awaited.remove(&id) {
                hub.handle_drained(id);
            }
        });
        if self.has_shares {
            self.work();
        }
    }

    /// Each that can go on does so, once: in another order it is the same. What is too old is dropped.
    fn work(&mut self) {
        self.both(|hub, shell| {
            let is_due = hub.expiry_due.is_some_and(|due| due <= shell.now);
            for _ in 0..hub.replays.runnable_len().max(is_due.into()) {
                hub.handle_work(shell);
            }
        });
    }

    fn carry(&mut self) {
        let now = self.shells[1].now;
        let hub = &mut self.hubs[1];
        for &id in &self.connected {
            let is_numbered = hub.numbered.contains(id);
            let is_behind = hub.replays.contains(id);
            let awaits = self.shells[1].awaited.contains(&id);
            let cursor = hub.replays.get(id);
            let is_holding = cursor.is_some_and(|cursor| cursor.held.is_some());
            let (rights, peer) = hub.connections.find(id).expect("it is connected");
            let counted = hub.policy.counted_address(rights.publish, peer.into());
            let full_at = counted.and_then(|address| hub.addresses.full_at(address));
            let seen = &mut self.seen;
            seen.live += usize::from(hub.index.subscriptions_of(id) > 0);
            seen.numbered += usize::from(is_numbered && !is_behind);
            seen.replaying += usize::from(is_behind && !awaits);
            seen.awaiting += usize::from(is_behind && awaits);
            seen.holding += usize::from(is_holding);
            seen.cleared += usize::from(hub.clearances.expiry(id).is_some());
            seen.throttled += usize::from(full_at.is_some());
        }
        self.seen.idle += hub.addresses.save().count();
        carry(hub, now);
    }

    fn step(&mut self) {
        match self.random.u8(..20) {
            16..=19 => self.say(PUBLISHER),
            0..=2 => self.connect(),
            3 => {
                let id = self.some_connected();
                if let Some(id) = id.filter(|&id| id != PUBLISHER) {
                    self.leave(id);
                }
            }
            4..=9 => {
                if let Some(id) = self.some_connected() {
                    self.say(id);
                }
            }
            10 | 11 => {
                if let Some(id) = self.some_connected() {
                    self.drain(id);
                }
            }
            12 => {
                if let Some(id) = self.some_connected() {
                    self.both(|_, shell| match shell.slow.contains(&id) {
                        true => shell.slow.remove(&id),
                        false => shell.slow.insert(id),
                    });
                }
            }
            13 => self.work(),
            14 => {
                let step = Duration::from_millis(self.random.u64(..1500));
                self.both(|_, shell| shell.now = shell.now + step);
            }
            _ => {
                let id = self.some_connected();
                let id = id.filter(|&id| self.hubs[0].clearances.has(id));
                if let Some(id) = id.filter(|_| self.random.u8(..4) == 0) {
                    self.both(|hub, shell| hub.handle_deadline(id, shell));
                }
            }
        }
        // The shell drops what was closed.
        let closed = self.shells[0].closed.clone();
        for id in closed {
            if self.is_one_in(2) || self.hubs[0].replays.contains(id) {
                self.leave(id);
            }
        }
    }

    fn end(&mut self) {
        for id in self.connected.clone() {
            self.leave(id);
        }
        for hub in &self.hubs {
            assert_eq!(hub.index.heap_bytes() + hub.clearances.heap_bytes(), 0);
            assert_eq!(hub.replays.len() + hub.connections.len(), 0);
        }
    }
}

/// Says which seed it was when a test fails on the way.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}", self.0);
        }
    }
}

#[test]
fn nobody_notices_that_the_hub_is_another_one() {
    let mut seen: Vec<Seen> = Vec::new();
    for seed in 0..80 {
        let seed = Seed(seed);
        let mut twins = Twins::new(seed.0);
        for _ in 0..400 {
            twins.step();
            if twins.is_one_in(5) {
                twins.carry();
            }
        }
        twins.end();
        let metrics = &twins.hubs[1].metrics;
        twins.seen.over_share = metrics.subscriptions_refused_share;
        twins.seen.lost = metrics.replays_lost;
        twins.seen.expired = twins.hubs[1].journal.history().start().0;
        seen.push(twins.seen);
    }
    let all = |count: fn(&Seen) -> usize| seen.iter().map(count).sum::<usize>();
    let counts = [
        all(|seen| seen.live),
        all(|seen| seen.numbered),
        all(|seen| seen.replaying),
        all(|seen| seen.awaiting),
        all(|seen| seen.holding),
        all(|seen| seen.cleared),
        all(|seen| seen.throttled),
        all(|seen| seen.idle),
        all(|seen| seen.refused),
        all(|seen| seen.over_share as usize),
        all(|seen| seen.lost as usize),
        all(|seen| seen.expired as usize),
    ];
    assert!(counts.iter().all(|&count| count > 20), "{counts:?}");
}

#[test]
fn what_is_damaged_is_refused_or_a_connection() {
    let mut refused = 0;
    for seed in 0..12 {
        let seed = Seed(seed);
        let mut twins = Twins::new(seed.0);
        for _ in 0..300 {
            twins.step();
        }
        let saved = Saved::of(&twins.hubs[0]);
        let mut hub = successor(std::mem::replace(&mut twins.hubs[0], empty()));
        for SavedConnection { id, peer, members } in &saved.connections {
            for position in 0..members.len() {
                for change in [0x01, 0x80, 0xff] {
                    let mut damaged = members.clone();
                    damaged[position] ^= change;
                    let Ok(fields) = Fields::parse(&damaged) else {
                        continue;
                    };
                    let shell = &mut Shell::default();
                    match hub.restore_connection(*id, *peer, &fields, shell.now) {
                        Ok(()) => {
                            hub.check_invariants();
                            hub.handle_work(shell);
                            hub.check_invariants();
                            hub.handle_gone(*id);
                        }
                        Err(_) => refused += 1,
                    }
                    assert_eq!(hub.connections.len() + hub.replays.len(), 0);
                    assert_eq!(hub.index.heap_bytes() + hub.clearances.heap_bytes(), 0);
                }
            }
        }
        hub.check_invariants();
    }
    assert!(refused > 1000, "{refused}");
}

#[test]
fn a_record_is_what_it_was() {
    let mut hub = empty();
    let peer = Peer {
        address: PeerAddress::Unix,
        lane: Lane::Clients,
    };
    let id = ConnectionId {
        index: 1,
        serial: 2,
    };
    // Rights to publish with a token, and to stay; whence its list counts; the list, and what it amounts to; numbered.
    let bytes = b"\x02\x01\x04\x01\x32\x01\x22\x01\x11\x05[\"a\"]\x12\x01\x14\x01\x16\x01";
    let fields = Fields::parse(bytes).expect("members");
    let restored = hub.restore_connection(id, peer, &fields, Timestamp::ZERO);
    assert_eq!(restored, Ok(()));
    assert_eq!(Saved::of(&hub).connections[0].members, bytes);
    // A list of two amounts to no subscriptions; nor does nothing amount to values.
    for bytes in [&b"\x11\x05[\"a\"]"[..], b"\x16\x01"] {
        let fields = Fields::parse(bytes).expect("members");
        let mut hub = empty();
        let restored = hub.restore_connection(id, peer, &fields, Timestamp::ZERO);
        assert!(restored.is_err() && hub.connections.len() == 0);
    }
}

#[test]
fn a_client_is_where_it_can_be() {
    let mut hub = empty();
    let shell = &mut Shell::default();
    for number in 0..3 {
        let publication = format!(r#"{{"notification":{{"channel":{number}}}}}"#);
        let batch = command::parse_batch(&publication).expect("a publication");
        let publication = batch.publishes[0].read(true).expect("good");
        hub.enter(&publication, shell.now);
    }
    assert_eq!(hub.journal.head().0, 3);
    let peer = Peer {
        address: PeerAddress::Unix,
        lane: Lane::Clients,
    };
    let id = ConnectionId {
        index: 0,
        serial: 0,
    };
    // Position, sent, missed.
    for (numbers, is_possible) in [
        ([3, 3, 3], true),
        ([0, 0, 0], true),
        ([4, 3, 3], false),
        ([2, 3, 2], false),
        ([2, 2, 3], false),
        ([u64::MAX - 1, 0, 0], false),
    ] {
        for is_numbered in [false, true] {
            let mut bytes = Vec::new();
            let mut members = Members::new(&mut bytes);
            members.number(IS_NUMBERED, is_numbered.into());
            members.number(12, numbers[0] + 1);
            members.number(13, numbers[1]);
            members.number(14, numbers[2]);
            let fields = Fields::parse(&bytes).expect("members");
            let restored = hub.restore_connection(id, peer, &fields, shell.now);
            assert_eq!(restored.is_ok(), is_possible && is_numbered, "{numbers:?}");
            hub.check_invariants();
            hub.handle_work(shell);
            hub.handle_gone(id);
        }
    }
}
