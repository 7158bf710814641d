//! Appends that go to Redis together.

use super::*;

/// A node that reads and one that has appended so many, which haven't left yet; and what the latter is told of them.
fn burst(count: usize) -> (World, Range<u64>) {
    let mut world = World::new(11, 2);
    world.rest();
    let now = world.now;
    let mut nonces = world.nodes[0].append(&[APPEND], now).expect("taken");
    for number in 1..count {
        let key = number.to_string();
        let entry = Append {
            key: (number % 3 == 0).then_some(&*key),
            ..APPEND
        };
        nonces.end = world.nodes[0].append(&[entry], now).expect("taken").end;
    }
    (world, nonces)
}

fn answers(world: &World, nonces: Range<u64>) -> Vec<Answer> {
    let answers = &world.nodes[0].answers;
    nonces.map(|nonce| answers[&nonce].clone()).collect()
}

fn sent(world: &mut World) -> String {
    let node = &mut world.nodes[0];
    String::from_utf8_lossy(node.redis.unsent(Uplink::Writer)).into_owned()
}

#[test]
fn a_burst_is_one_transaction_and_one_append_is_none() {
    let (mut world, nonces) = burst(20);
    let text = sent(&mut world);
    assert!(text.starts_with("*1\r\n$5\r\nMULTI\r\n"), "{text}");
    assert!(text.ends_with("*1\r\n$4\r\nEXEC\r\n"), "{text}");
    assert_eq!(text.matches("MULTI").count(), 1);
    world.rest();
    let own = |answer: &Answer| matches!(answer, Answer::Own(_));
    assert!(answers(&world, nonces).iter().all(own));
    world.check_answers();

    let (mut world, nonces) = burst(1);
    let text = sent(&mut world);
    assert!(text.contains("XADD") && !text.contains("MULTI"), "{text}");
    world.rest();
    assert!(answers(&world, nonces).iter().all(own));
}

#[test]
fn what_spoils_a_transaction_refuses_all_of_it() {
    let (mut world, nonces) = burst(5);
    let before = world.server.log().len();
    world.server.fill(true);
    for _ in 0..10 {
        world.turn(1);
    }
    let refused = Answer::Refused(Refusal::ByRedis("OOM".into()));
    assert_eq!(answers(&world, nonces), vec![refused; 5]);
    assert_eq!(world.server.log().len(), before);
    // The link has stayed, and takes the next.
    world.server.fill(false);
    assert_eq!(world.nodes[0].redis.figures().connects, 1);
    let now = world.now;
    let next = world.nodes[0].append(&[APPEND], now).expect("taken");
    world.rest();
    assert!(matches!(answers(&world, next)[0], Answer::Own(_)));
    world.check_answers();
}

#[test]
fn each_of_a_transaction_has_its_own_error() {
    let (mut world, nonces) = burst(7);
    world.server.flush_scripts();
    world.rest();
    for (number, answer) in answers(&world, nonces).iter().enumerate() {
        let has_key = number % 3 == 0 && number > 0;
        let refused = Answer::Refused(Refusal::ByRedis("NOSCRIPT".into()));
        assert_eq!(*answer == refused, has_key, "{number}: {answer:?}");
        assert!(has_key || matches!(answer, Answer::Own(_)));
    }
    world.check_answers();
}

#[test]
fn where_transactions_are_refused_each_append_is_its_own() {
    let (mut world, nonces) = burst(5);
    world.server.deny_transactions(true);
    world.rest();
    let own = |answer: &Answer| matches!(answer, Answer::Own(_));
    assert!(answers(&world, nonces).iter().all(own));
    assert_eq!(world.nodes[0].redis.figures().connects, 1);
    // It isn't tried again through this link.
    let now = world.now;
    for _ in 0..2 {
        world.nodes[0].append(&[APPEND], now).expect("taken");
    }
    assert!(!sent(&mut world).contains("MULTI"));
    world.rest();
    world.check_answers();
}

#[test]
fn a_transaction_that_is_cut_off_is_not_executed() {
    let (mut world, nonces) = burst(3);
    let before = world.server.log().len();
    let text = sent(&mut world);
    let len = text.find("EXEC").expect("it ends");
    let World {
        nodes,
        server,
        rng,
        now,
        ..
    } = &mut world;
    let node = &mut nodes[0];
    node.redis.handle_sent(Uplink::Writer, len, *now);
    server.kill_clients();
    node.redis.handle_end(Uplink::Writer, None, *now);
    node.sockets.end(rng);
    for _ in 0..300 {
        world.turn(5);
    }
    let unanswered = vec![Answer::Refused(Refusal::Unanswered); 3];
    assert_eq!(answers(&world, nonces), unanswered);
    assert_eq!(world.server.log().len(), before);
}

#[test]
fn a_demoted_server_ends_the_link() {
    let (mut world, _) = burst(3);
    world.server.demote(true);
    for _ in 0..5 {
        world.turn(1);
    }
    assert!(!matches!(world.nodes[0].redis.link, Link::Up { .. }));
    world.server.demote(false);
    world.rest();
    world.check_answers();
}

/// Whether what is appended waits for what was given to a link that this connection has ended.
fn waits_for_what_was_sent(ended: Uplink) -> bool {
    let (mut world, lost) = burst(1);
    let len = sent(&mut world).len();
    let World {
        nodes, rng, now, ..
    } = &mut world;
    let node = &mut nodes[0];
    node.redis.handle_sent(Uplink::Writer, len, *now);
    node.sockets.cut(ended, &mut node.redis, rng, *now);
    *now = *now + Duration::from_millis(100);
    let next = node.append(&[APPEND], *now).expect("it waits");
    let began = world.now;
    while !matches!(answers(&world, next.clone())[0], Answer::Own(_)) {
        world.turn(1);
        assert!(world.now < began + 2 * TIMEOUT, "it is sent");
    }
    let unanswered = Answer::Refused(Refusal::Unanswered);
    let is_settled = answers(&world, lost)[0] == unanswered;
    world.rest();
    is_settled
}

#[test]
fn what_redis_may_still_come_to_read_is_not_overtaken() {
    // It was closed here, when the other one had ended; and by Redis, which reads nothing more of it.
    assert!(waits_for_what_was_sent(Uplink::Reader));
    assert!(!waits_for_what_was_sent(Uplink::Writer));
}
