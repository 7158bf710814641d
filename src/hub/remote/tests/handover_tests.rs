//! A hub that becomes another one now and then, beside one that only loses its links to Redis then: nobody is told anything
//! else.

use super::*;
use crate::handover::{Fields, Incoming, Malformed};
use crate::hub::replay::Slice;
use crate::hub::saved::tests::Saved;
use crate::wire::carried::Frames;

/// Two worlds in which the same happens; the hub of the second is carried.
struct Twins {
    rng: Rng,
    worlds: [World; 2],
    next: u32,
    open: Vec<Open>,
    texts: u32,
    seen: Seen,
}

/// An open connection.
#[derive(Clone, Copy)]
struct Open {
    index: u32,
    publishes: bool,
}

/// In how many states something was carried.
#[derive(Default, Debug)]
struct Seen {
    owed: usize,
    posts: usize,
    appends: usize,
    batches: usize,
    outcomes: usize,
    gaps: usize,
    ahead: usize,
    cursors: usize,
    behind_gaps: usize,
    paused: usize,
}

fn slices(node: &mut Node) {
    let slice = Slice {
        entries: 70,
        bytes: 100,
    };
    let hub = std::mem::replace(&mut node.hub, bare());
    node.hub = hub.with_slices(slice);
}

/// A hub that stands in for another one for a moment.
fn bare() -> Hub {
    let journal = Journal::of_stream(HistoryLimits::default());
    let (config, ping) = (HubConfig::default(), Duration::from_secs(25));
    Hub::new(config, ping, Policy::default(), journal)
}

impl Twins {
    fn new(seed: u64) -> Self {
        let worlds = [World::one(), World::one()].map(|mut world| {
            slices(world.node());
            world.rng = Rng::with_seed(seed);
            world
        });
        Self {
            rng: Rng::with_seed(seed),
            worlds,
            next: 1,
            open: Vec::new(),
            texts: 0,
            seen: Seen::default(),
        }
    }

    fn both<T: PartialEq + std::fmt::Debug>(&mut self, act: impl Fn(&mut World) -> T) -> T {
        let [one, other] = self.worlds.each_mut().map(|world| {
            world.nodes[0].screen.now = world.now;
            act(world)
        });
        assert_eq!(one, other);
        one
    }

    fn connect(&mut self) {
        let index = self.next;
        self.next += 1;
        let publishes = self.rng.bool();
        let (address, target) = match self.rng.u8(..3) {
            _ if !publishes => (REMOTE, "/"),
            0 => (LOCAL, "/"),
            _ => (LOCAL, "/publish"),
        };
        self.both(|world| world.node().connect(index, address, target));
        self.open.push(Open { index, publishes });
    }

    fn some_open(&mut self) -> Option<Open> {
        self.open.retain({
            let screen = &self.worlds[0].nodes[0].screen;
            |open| !screen.closed.contains(&id(open.index))
        });
        self.rng.choice(&self.open).copied()
    }

    fn publication(&mut self) -> String {
        self.texts += 1;
        let text = self.texts.to_string();
        match self.rng.u8(..8) {
            0 => publish_with(&text, r#""keep":false"#),
            1 => publish_with(&text, &format!(r#""key":"k{}""#, self.rng.u8(..6))),
            2 => r#"{"sender":"server","notification":7}"#.to_owned(),
            _ => publish(&text),
        }
    }

    /// An id that was told, or one that nobody has been told yet.
    fn since(&mut self) -> String {
        let world = &mut self.worlds[0];
        let mut ids: Vec<_> = vec![world.nodes[0].position()];
        let told = world.nodes[0].screen.told.values().flatten();
        let told = told.filter(|text| text.contains(r#""id":""#));
        ids.extend(told.map(|text| member(text, "id").to_owned()));
        ids.sort();
        let clock = EPOCH.as_millis() as u64 + world.now.as_micros() / 1000;
        ids.push(format!("{}-0-0123456789abcdef", clock + 300));
        if self.rng.u8(..4) == 0 {
            return ids.pop().expect("one");
        }
        self.rng.choice(&ids).expect("one").clone()
    }

    fn say(&mut self, open: Open) {
        let text = match self.rng.u8(..12) {
            0 => PING.to_owned(),
            1 => "[".to_owned(),
            2 => list(None),
            3 => list(Some(&self.since())),
            _ if open.publishes => self.publication(),
            4..9 => list(Some(&self.since())),
            _ => PING.to_owned(),
        };
        let times = match self.rng.u16(..300) {
            0 if open.publishes => 600,
            _ => 1,
        };
        for _ in 0..times {
            let screen = &self.worlds[0].nodes[0].screen;
            let id = id(open.index);
            if screen.paused.contains(&id) || screen.closed.contains(&id) {
                return;
            }
            self.both(|world| world.node().send(open.index, &text));
        }
    }

    fn post(&mut self) {
        let index = self.next;
        self.next += 1;
        let entries: Vec<_> = (0..self.rng.usize(1..4))
            .map(|_| self.publication())
            .collect();
        let body = match &entries[..] {
            [one] => one.clone(),
            _ => format!("[{}]", entries.join(",")),
        };
        self.both(|world| world.node().post(index, &body));
    }

    fn trouble(&mut self) {
        let clock = [-3_600_000, 0, 3_600_000][self.rng.usize(..3)];
        let (which, count) = (self.rng.u8(..14), self.rng.usize(..4));
        self.both(|world| match which {
            0 => world.server.restart(0),
            1 => world.server.fail_over(count, clock),
            2 => world.server.flush(),
            3 => world.server.trim(count),
            4 => world.server.fill(true),
            5 | 6 => world.server.stop(true),
            7 | 8 => world.server.kill_clients(),
            9 => world.is_there = false,
            _ => {
                world.server.fill(false);
                world.server.stop(false);
                world.is_there = true;
            }
        });
    }

    fn turn(&mut self) {
        let millis = match self.rng.u8(..20) {
            0 => self.rng.u64(..1500),
            1..5 => self.rng.u64(..100),
            _ => self.rng.u64(..3),
        };
        let calls = match self.rng.u8(..3) {
            0 => self.rng.usize(..4),
            _ => 60,
        };
        self.both(|world| turn(world, millis, calls));
    }

    fn step(&mut self) {
        match self.rng.u8(..40) {
            0..4 => self.connect(),
            4 => {
                if let Some(open) = self.some_open() {
                    self.both(|world| world.node().hang_up(open.index));
                }
            }
            5..20 => {
                if let Some(open) = self.some_open() {
                    self.say(open);
                }
            }
            20..24 => self.post(),
            24..28 => {
                let json = format!(
                    r#"{{"notification":{{"channel":"a","text":"other {}"}}}}"#,
                    self.rng.u16(..)
                );
                self.both(|world| world.add(&json));
            }
            28 => self.trouble(),
            _ => self.turn(),
        }
    }

    fn carry(&mut self) {
        let seed = self.rng.u64(..);
        let [one, other] = &mut self.worlds;
        let now = one.now;
        let node = one.node();
        let redis = node.hub.redis_mut().expect("it has one");
        redis.lose_links(seed, now);
        node.hub.owed.sort();
        node.hub.replays.sort();
        node.sockets.leave();

        let node = other.node();
        let saved = Saved::of(&node.hub);
        let mut successor = Node::new(seed, HistoryLimits::default());
        slices(&mut successor);
        saved.restore(&mut successor.hub, now);
        successor.hub.check_invariants();
        node.hub = successor.hub;
        node.sockets.leave();

        let saved = Saved::of(&node.hub);
        assert!(saved == Saved::of(&self.worlds[0].nodes[0].hub));
        self.note(&saved);
    }

    fn note(&mut self, saved: &Saved) {
        let seen = &mut self.seen;
        let mut state = Incoming::begin(&saved.state[..]).expect("a state");
        while let Some((kind, fields)) = state.next_record().expect("whole") {
            let fields = fields.expect("members");
            match kind {
                10 => seen.gaps += usize::from(fields.present_bytes(3).is_some()),
                15 => seen.posts += 1,
                16 => seen.appends += 1,
                17 => seen.batches += 1,
                18 => seen.outcomes += 1,
                _ => {}
            }
        }
        for connection in &saved.connections {
            let fields = Fields::parse(&connection.members).expect("members");
            let has = |member| usize::from(fields.present_bytes(member).is_some());
            seen.owed += has(16);
            seen.ahead += usize::from(fields.time(21).is_some());
            seen.behind_gaps += has(22);
            seen.cursors += usize::from(fields.number(12) > 0);
            seen.paused += usize::from(fields.number(23) > 0);
        }
    }

    /// All is well, and everybody is told what is owed to him.
    fn end(&mut self) {
        self.both(|world| {
            world.server.fill(false);
            world.server.stop(false);
            world.is_there = true;
            for _ in 0..400 {
                let is_due = world.nodes[0]
                    .hub
                    .next_work()
                    .is_some_and(|due| due <= world.now);
                turn(world, 20, if is_due { 100 } else { 1 });
            }
            assert!(world.nodes[0].hub.owed.is_empty());
            let screen = &world.nodes[0].screen;
            assert!(screen.paused.is_subset(&screen.closed));
        });
        let [one, other] = &self.worlds;
        assert_eq!(one.nodes[0].screen.told, other.nodes[0].screen.told);
        assert_eq!(one.server.log(), other.server.log());
    }
}

/// Bytes move, and a part of what is due is done.
fn turn(world: &mut World, millis: u64, calls: usize) {
    world.now = world.now + Duration::from_millis(millis);
    world.server.run(world.now, &mut world.rng);
    let node = &mut world.nodes[0];
    node.screen.now = world.now;
    let redis = node.hub.redis_mut().expect("it has one");
    let server = world.is_there.then_some(&world.server);
    node.sockets.pump(server, redis, &mut world.rng, world.now);
    if millis > 0 {
        let mut awaited: Vec<_> = node.screen.awaited.drain().collect();
        awaited.retain(|id| !node.screen.closed.contains(id));
        awaited.sort_unstable();
        for id in awaited {
            node.act(|hub, _| hub.handle_drained(id));
        }
    }
    for _ in 0..calls {
        node.act(|hub, outbox| hub.handle_work(outbox));
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

/// As many as `CRIEUR_REDIS_SEEDS` says, or so many.
fn seeds(count: u64) -> std::ops::Range<u64> {
    let given = std::env::var("CRIEUR_REDIS_SEEDS").ok();
    let range = given.as_deref().and_then(|text| text.split_once(".."));
    let range = range.and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    range.unwrap_or(0..count)
}

#[test]
fn nobody_notices_that_the_hub_is_another_one() {
    let mut all = Seen::default();
    for seed in seeds(16) {
        let seed = Seed(seed);
        let mut twins = Twins::new(seed.0);
        for _ in 0..400 {
            twins.step();
            if twins.rng.u8(..6) == 0 {
                twins.carry();
            }
        }
        twins.end();
        let Seen {
            owed,
            posts,
            appends,
            batches,
            outcomes,
            gaps,
            ahead,
            cursors,
            behind_gaps,
            paused,
        } = twins.seen;
        all.owed += owed;
        all.posts += posts;
        all.appends += appends;
        all.batches += batches;
        all.outcomes += outcomes;
        all.gaps += gaps;
        all.ahead += ahead;
        all.cursors += cursors;
        all.behind_gaps += behind_gaps;
        all.paused += paused;
    }
    let Seen {
        owed,
        posts,
        appends,
        batches,
        outcomes,
        gaps,
        ahead,
        cursors,
        behind_gaps,
        paused,
    } = all;
    let counts = [
        owed,
        posts,
        appends,
        batches,
        outcomes,
        gaps,
        ahead,
        cursors,
        behind_gaps,
        paused,
    ];
    assert!(counts.iter().all(|count| *count > 0), "{all:?}");
}

/// What a hub writes to which everything has happened.
fn eventful(seed: u64) -> (Twins, Saved) {
    let mut twins = Twins::new(seed);
    for _ in 0..10_000 {
        twins.step();
        let saved = Saved::of(&twins.worlds[0].nodes[0].hub);
        twins.seen = Seen::default();
        twins.note(&saved);
        let Seen {
            owed, posts, ahead, ..
        } = twins.seen;
        let is_eventful = owed > 1 && posts > 0 && ahead > 0;
        if is_eventful {
            return (twins, saved);
        }
    }
    panic!("nothing happens");
}

/// One that knows all but the connections of what was written.
fn without_connections(saved: &Saved, now: Timestamp) -> Node {
    let mut node = Node::new(3, HistoryLimits::default());
    slices(&mut node);
    node.screen.now = now;
    let state = saved.state.clone();
    let connections = Vec::new();
    Saved { state, connections }.restore(&mut node.hub, now);
    node
}

#[test]
fn what_is_damaged_is_refused_or_owed() {
    let (mut refused, mut taken) = (0, 0);
    for seed in 0..6 {
        let _seed = Seed(seed);
        let (mut twins, saved) = eventful(seed);
        let [mut world, _] = twins.worlds;
        let now = world.now;
        for connection in &saved.connections {
            let fields = Fields::parse(&connection.members).expect("members");
            if fields.present_bytes(16).is_none() {
                continue;
            }
            for _ in 0..60 {
                let mut members = connection.members.clone();
                let at = twins.rng.usize(..members.len());
                members[at] ^= twins.rng.u8(1..);
                let Ok(fields) = Fields::parse(&members) else {
                    continue;
                };
                let mut node = without_connections(&saved, now);
                let (id, peer) = (connection.id, connection.peer);
                if node.hub.restore_connection(id, peer, &fields, now).is_err() {
                    refused += 1;
                    node.hub.check_invariants();
                    continue;
                }
                taken += 1;
                node.hub.check_invariants();
                if node.hub.paused.contains(id) {
                    node.screen.paused.insert(id);
                }
                world.nodes[0] = node;
                (0..20).for_each(|_| turn(&mut world, 100, 20));
                world.nodes[0].hang_up(id.index);
            }
        }
    }
    assert!(refused > 50 && taken > 50, "{refused} {taken}");
}

/// The records of a state are given to a hub one by one; what it says to the first that it can't take.
fn refusal(saved: &Saved, hub: &mut Hub, damage: &mut dyn FnMut(u8, &mut Vec<u8>)) -> String {
    let mut at = 0;
    let mut frames = Frames::default();
    while at < saved.state.len() {
        let length = saved.state[at + 1..at + 5].try_into().expect("four");
        let (kind, end) = (
            saved.state[at],
            at + 5 + u32::from_le_bytes(length) as usize,
        );
        let mut members = saved.state[at + 5..end].to_vec();
        damage(kind, &mut members);
        let fields = Fields::parse(&members);
        let restored =
            fields.and_then(|fields| hub.restore(kind, &fields, &mut frames, Timestamp::ZERO));
        if let Err(Malformed(why)) = restored {
            return why.to_owned();
        }
        at = end;
    }
    String::new()
}

#[test]
fn a_state_is_of_a_server_with_redis_or_of_one_without() {
    let (_, saved) = eventful(1);
    let mut hub = Node::new(5, HistoryLimits::default()).hub;
    assert_eq!(refusal(&saved, &mut hub, &mut |_, _| ()), "");
    let journal = || Journal::new(HistoryLimits::default(), crate::journal::id::Generation(1));
    let alone = || {
        let (config, ping) = (HubConfig::default(), Duration::from_secs(25));
        Hub::new(config, ping, Policy::default(), journal())
    };
    let said = refusal(&saved, &mut alone(), &mut |_, _| ());
    assert_eq!(said, "the server before it had --redis");
    let saved = Saved::of(&alone());
    let mut hub = Node::new(5, HistoryLimits::default()).hub;
    let said = refusal(&saved, &mut hub, &mut |_, _| ());
    assert_eq!(said, "the server before it had no --redis");
}

#[test]
fn records_that_are_damaged_are_refused_or_make_sense() {
    let mut refused = 0;
    for seed in 0..4 {
        let _seed = Seed(seed);
        let (mut twins, saved) = eventful(seed);
        for _ in 0..300 {
            let mut hub = Node::new(5, HistoryLimits::default()).hub;
            let rng = &mut twins.rng;
            let kind = *rng.choice(&[10, 15]).expect("one");
            let said = refusal(&saved, &mut hub, &mut |of, members| {
                if of == kind {
                    let at = rng.usize(..members.len());
                    members[at] ^= rng.u8(1..);
                }
            });
            refused += usize::from(!said.is_empty());
            hub.check_invariants();
        }
    }
    assert!(refused > 50, "{refused}");
}
