//! Nodes that become other processes, at any moment of their lives.

use std::collections::BTreeSet;
use std::io;

use super::*;
use crate::handover::{Fields, Incoming, Malformed, Outgoing};

/// What a node writes for its successor.
fn save(redis: &Redis) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut state = Outgoing::begin(&mut bytes as &mut dyn io::Write).expect("memory");
    redis.save(&mut state).expect("memory");
    state.finish().expect("memory");
    bytes
}

/// Whoever comes up with what was written.
fn restore(saved: &[u8], seed: u64, now: Timestamp) -> Result<Redis, Malformed> {
    let mut redis = Redis::new(settings(), servers(), seed);
    let mut state = Incoming::begin(saved).expect("a state");
    while let Some((kind, fields)) = state.next_record().expect("whole") {
        assert!(Redis::is_record(kind));
        redis.restore(kind, &fields?, now)?;
    }
    Ok(redis)
}

impl Node {
    pub(super) fn hand_over(&mut self, seed: u64, now: Timestamp) {
        let saved = save(&self.redis);
        self.redis = restore(&saved, seed, now).expect("it is whole");
        self.redis.check_invariants();
        self.sockets.leave();
        self.handovers += 1;
    }

    /// Whether it doubts, and nothing has ended that.
    fn is_cut(&self) -> bool {
        let told = self.told.iter().rev();
        let mut told = told.filter(|told| matches!(told, Told::Doubt(_) | Told::Mended));
        matches!(told.next(), Some(Told::Doubt(_)))
    }

    /// What a handover changes, without one.
    fn lose_links(&mut self, seed: u64, now: Timestamp) {
        self.redis.lose_links(seed, now);
        self.sockets.leave();
    }
}

#[test]
fn twins_cannot_be_told_apart() {
    let mut seen = [0; 6];
    for seed in seeds(50) {
        let _seed = Seed(seed);
        let mut twins = [World::new(seed, 2), World::new(seed, 2)];
        twins.iter_mut().for_each(World::rest);
        let handover_turn = twins.each_mut().map(|world| world.rng.usize(1..25))[0];
        let clock = seed as i64 % 3 * 3_600_000 - 3_600_000;
        for turn in 0..100 {
            for (at, world) in twins.iter_mut().enumerate() {
                if turn % handover_turn == 0 {
                    let (seed, now) = (world.rng.u64(..), world.now);
                    match at {
                        0 => world.nodes[0].lose_links(seed, now),
                        _ => world.nodes[0].hand_over(seed, now),
                    }
                }
            }
            let [one, other] = &twins;
            let redis = &other.nodes[0].redis;
            assert!(save(&one.nodes[0].redis) == save(redis));
            for (seen, is_seen) in seen.iter_mut().zip([
                redis.writer.appends().count() > 1,
                redis.reader.batches().count() > 1,
                !redis.outcomes.is_empty(),
                other.nodes[0].is_cut(),
                redis.is_settled(),
                !redis.is_settled(),
            ]) {
                *seen += usize::from(is_seen && turn % handover_turn == 0);
            }
            for world in &mut twins {
                match world.rng.u8(..80) {
                    0 => world.server.restart(0),
                    1 => {
                        let lacking = world.rng.usize(..8);
                        world.server.fail_over(lacking, clock);
                    }
                    2 if world.rng.bool() => world.server.flush(),
                    3 => world.server.trim(world.rng.usize(..5)),
                    4 => world.server.demote(true),
                    5..8 => world.server.demote(false),
                    _ => world.stir(),
                }
                let millis = world.some_time();
                world.turn(millis);
            }
        }
        twins.iter_mut().for_each(World::rest);
        let [one, other] = twins;
        assert_eq!(one.server.log(), other.server.log());
        for (one, other) in one.nodes.iter().zip(&other.nodes) {
            assert_eq!(one.told, other.told);
            assert_eq!(one.answers, other.answers);
        }
    }
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
}

#[test]
fn a_node_that_is_handed_over_passes_on_the_same() {
    pass_on(100, |rng| Some(*rng.choice(&[3, 8, 30]).expect("one")));
}

#[test]
fn a_node_that_is_handed_over_notices_what_is_lost() {
    pass_on_forks(100, |rng| Some(*rng.choice(&[3, 8, 30]).expect("one")));
}

/// A node that has something of everything to hand over.
fn rich() -> (World, Vec<u8>) {
    let mut world = World::new(7, 2);
    world.rest();
    let has_all = |saved: &[u8]| {
        let mut state = Incoming::begin(saved).expect("a state");
        let mut seen = BTreeSet::new();
        while let Some((kind, _)) = state.next_record().expect("whole") {
            seen.insert(kind);
        }
        seen.len() == 4
    };
    for _ in 0..100_000 {
        match world.rng.u8(..60) {
            0 => world.server.restart(0),
            1 => world.server.trim(1),
            _ => world.stir(),
        }
        let millis = world.some_time();
        world.turn(millis);
        let saved = save(&world.nodes[0].redis);
        if has_all(&saved) {
            return (world, saved);
        }
    }
    panic!("it never has all");
}

/// Lets a node do whatever it does.
fn go_on(world: &mut World, redis: Redis) {
    let node = &mut world.nodes[0];
    node.redis = redis;
    node.sockets.leave();
    for _ in 0..20 {
        world.now = world.now + Duration::from_millis(90);
        world.server.run(world.now, &mut world.rng);
        let node = &mut world.nodes[0];
        node.redis.handle_timeout(world.now);
        let (redis, rng) = (&mut node.redis, &mut world.rng);
        node.sockets
            .pump(Some(&world.server), redis, rng, world.now);
        while redis.next_event(world.now).is_some() {}
        let _ = redis.append(&[APPEND], world.now);
        redis.check_invariants();
    }
}

/// The records of a state, each with where its members are.
fn records(state: &[u8]) -> Vec<(u8, Range<usize>)> {
    let mut records = Vec::new();
    let mut at = 0;
    while at < state.len() {
        let length = state[at + 1..at + 5].try_into().expect("four");
        let end = at + 5 + u32::from_le_bytes(length) as usize;
        records.push((state[at], at + 5..end));
        at = end;
    }
    records
}

#[test]
fn what_is_cut_off_or_damaged_is_refused_or_gone_on_from() {
    let (mut world, saved) = rich();
    let (mut refused, mut taken) = (0, 0);
    let records = records(&saved);
    let redis = restore(&saved, 1, world.now).expect("it is whole");
    for (kind, range) in &records {
        if !Redis::is_record(*kind) {
            continue;
        }
        let members = &saved[range.clone()];
        let cuts = 0..members.len();
        let cuts = cuts.map(|cut| members[..cut].to_vec());
        let mut rng = Rng::with_seed(3);
        let damages = (0..2000).map(|_| {
            let mut members = members.to_vec();
            for _ in 0..rng.usize(1..4) {
                let at = rng.usize(..members.len());
                members[at] = rng.u8(..);
            }
            members
        });
        for members in cuts.chain(damages) {
            let fields = Fields::parse(&members);
            let mut redis = restore(&saved, 1, world.now).expect("it is whole");
            let restored = fields.and_then(|fields| redis.restore(*kind, &fields, world.now));
            if restored.is_err() {
                refused += 1;
                continue;
            }
            taken += 1;
            redis.check_invariants();
            if taken % 10 == 0 {
                go_on(&mut world, redis);
            }
        }
    }
    redis.check_invariants();
    go_on(&mut world, redis);
    assert!(refused > 100 && taken > 100, "{refused} {taken}");
}

#[test]
fn no_login_is_written() {
    let (world, saved) = rich();
    let has = |text: &[u8]| saved.windows(text.len()).any(|window| window == text);
    assert!(has(b"crieur") && has(b"/a") | has(b"/b"));
    let password = world.nodes[0].redis.servers[0].login.password.as_deref();
    assert!(!has(password.expect("there is one").as_bytes()));
    assert!(!has(b"AUTH"));
}

#[test]
fn another_stream_is_refused() {
    let (world, saved) = rich();
    let mut settings = settings();
    settings.stream = "other".into();
    let mut redis = Redis::new(settings, servers(), 1);
    let mut state = Incoming::begin(&saved[..]).expect("a state");
    let (kind, fields) = state.next_record().expect("whole").expect("there");
    let refused = redis.restore(kind, &fields.expect("members"), world.now);
    let said = refused.expect_err("it is another").to_string();
    assert_eq!(said, "it is of another stream (--redis-stream)");
}

#[test]
fn the_server_in_use_stays_if_it_is_still_there() {
    let (mut world, _) = rich();
    for (at, endpoint) in servers().into_iter().enumerate() {
        world.nodes[0].redis.at = at;
        let saved = save(&world.nodes[0].redis);
        let swapped: Vec<_> = servers().into_iter().rev().collect();
        let mut redis = Redis::new(settings(), swapped, 1);
        let mut state = Incoming::begin(&saved[..]).expect("a state");
        let (kind, fields) = state.next_record().expect("whole").expect("there");
        let fields = fields.expect("members");
        redis.restore(kind, &fields, world.now).expect("it is its");
        redis.handle_timeout(world.now);
        let asked = redis.take_connect(Uplink::Writer);
        assert_eq!(asked, Some(endpoint.endpoint));
        let mut redis = Redis::new(settings(), servers()[1 - at..2 - at].to_vec(), 1);
        redis.restore(kind, &fields, world.now).expect("it is its");
        redis.handle_timeout(world.now);
        assert!(redis.take_connect(Uplink::Writer).is_some());
    }
}

#[test]
fn what_waits_is_not_sent_ahead_of_what_was_sent_before() {
    let mut world = quiet();
    world.server.stop(true);
    let now = world.now;
    let first = world.nodes[0].append(&[APPEND], now).expect("it waits");
    world.nodes[0].redis.handle_timeout(now);
    for _ in 0..5 {
        world.turn(0);
    }
    assert!(!world.nodes[0].redis.is_settled());
    let second = world.nodes[0].append(&[APPEND], now).expect("it waits");
    world.nodes[0].hand_over(9, now);
    world.server.stop(false);
    for _ in 0..200 {
        world.turn(1);
    }
    let own = [first, second].map(|nonces| match world.nodes[0].answers[&nonces.start] {
        Answer::Own(id) => Place::from(id),
        ref other => panic!("{other:?}"),
    });
    assert!(own[0] < own[1]);
    world.rest();
}

#[test]
fn an_append_waits_as_long_as_before_and_is_refused_as_before() {
    let mut world = quiet();
    world.is_there = false;
    world.server.kill_clients();
    world.turn(1);
    let now = world.now;
    let nonce = world.nodes[0].append(&[APPEND], now).expect("it waits");
    let nonce = nonce.start;
    // Each takes the links away once more.
    for turn in 0..9 {
        world.turn(100);
        let now = world.now;
        world.nodes[0].hand_over(turn, now);
        assert_eq!(world.nodes[0].answers[&nonce], Answer::None);
    }
    assert!(world.nodes[0].redis.is_reachable());
    world.turn(150);
    let refused = Answer::Refused(Refusal::NotSent);
    world.turn(1);
    assert_eq!(world.nodes[0].answers[&nonce], refused);
    assert!(!world.nodes[0].redis.is_reachable());
    let now = world.now;
    world.nodes[0].hand_over(10, now);
    assert!(!world.nodes[0].redis.is_reachable());
    world.rest();
}
