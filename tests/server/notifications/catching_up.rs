//! While a client is being caught up: what others publish, what it says itself, and what others feel of it.
//!
//! The clients here don't read at first, so that their replay can't end before they have said what they want to.

use std::time::{Duration, Instant};

use crate::helpers::http::{Http, JSON, post_with};
use crate::helpers::numbered::{
    caught_up, id_of, list_since, narrow_client, numbered, numbered_subscriber, pong, position,
    publish_all, publish_whole, resume, resumed, wait_for_figure, wait_until,
};
use crate::helpers::receipts::{split_id, split_ids};
use crate::helpers::replay::{MISSED, Replay, notification};
use crate::helpers::secrets::{KEY, SecretFile, sign, unix_now};
use crate::helpers::{
    Client, DELIVERY_MAX, Received, Server, close_reason, delivery, frame, message, subscriber,
};

#[test]
fn what_is_published_meanwhile_comes_in_its_place_and_is_not_counted() {
    let mut replay = Replay::begin(&[]);
    let mut there = subscriber(&replay.server, r#"["c"]"#);
    for n in MISSED..MISSED + 20 {
        let receipt = publish_whole(&replay.server, &message(&notification(n)));
        let (receipt, id) = split_id(&receipt);
        assert_eq!(receipt, r#"{"delivered":1}"#);
        assert!(there.whole_text() == delivery(&notification(n)));
        replay.ids.push(id);
        replay.all.push(notification(n));
    }
    wait_for_figure(&replay.server, "crieur_catching_up 1");
    replay.expect_all();
    // From now on it is counted.
    let receipt = publish_whole(&replay.server, &message(r#"{"channel":"c"}"#));
    let (receipt, id) = split_id(&receipt);
    assert_eq!(receipt, r#"{"delivered":2}"#);
    assert_eq!(
        replay.client.whole_text(),
        numbered(&id, r#"{"channel":"c"}"#)
    );
}

#[test]
fn a_key_says_how_many_had_the_first_without_those_who_were_caught_up() {
    let mut replay = Replay::begin(&[]);
    let keyed = r#"{"sender":"server","key":"k","notification":{"channel":"c"}}"#;
    let (receipt, id) = split_id(&publish_whole(&replay.server, keyed));
    assert_eq!(receipt, r#"{"delivered":0}"#);
    replay.ids.push(id.clone());
    replay.all.push(r#"{"channel":"c"}"#.to_owned());
    replay.expect_all();
    let repeated = format!(r#"{{"delivered":0,"id":"{id}","repeated":true}}"#);
    assert_eq!(publish_whole(&replay.server, keyed), repeated);
}

#[test]
fn what_is_not_kept_is_not_for_a_client_that_is_being_caught_up() {
    let mut replay = Replay::begin(&[]);
    let unkept = r#"{"sender":"server","keep":false,"notification":{"channel":"c"}}"#;
    assert_eq!(publish_whole(&replay.server, unkept), r#"{"delivered":0}"#);
    replay.expect_all();
    assert_eq!(publish_whole(&replay.server, unkept), r#"{"delivered":1}"#);
    assert_eq!(replay.client.whole_text(), delivery(r#"{"channel":"c"}"#));
}

#[test]
fn a_pong_says_how_far_the_replay_is() {
    let mut replay = Replay::begin(&[]);
    replay.client.send(r#"{"type":"ping"}"#);
    replay.client.send(r#" {"type" : "ping"}"#);
    assert_eq!(replay.client.whole_text(), resumed(1, &replay.start));
    let (mut count, mut told) = (0, Vec::new());
    while count < MISSED {
        let text = replay.client.whole_text();
        if text.starts_with(r#"{"type":"pong","#) {
            // All up to there is ahead of it.
            assert!(count > 0, "nothing was ahead of it");
            assert_eq!(text, pong(&replay.ids[count - 1]));
            told.push(id_of(&text));
            continue;
        }
        assert!(
            text == numbered(&replay.ids[count], &replay.all[count]),
            "{count}"
        );
        count += 1;
    }
    assert_eq!(told.len(), 2);
    let last = replay.ids.last().expect("there are some");
    assert_eq!(replay.client.whole_text(), caught_up(last, MISSED));
    assert_ne!(told[0], *last);
}

#[test]
fn a_client_publishes_while_it_is_being_caught_up() {
    let mut replay = Replay::begin(&[]);
    let mut there = subscriber(&replay.server, r#"["d"]"#);
    let d = r#"{"channel":"d"}"#;
    replay.client.send(&message(d));
    // The others needn't wait until it has read.
    assert_eq!(there.whole_text(), delivery(d));
    assert_eq!(replay.client.whole_text(), resumed(1, &replay.start));
    let mut count = 0;
    let receipt = loop {
        match replay.client.receive() {
            Received::Text(text) => {
                assert!(
                    text == numbered(&replay.ids[count], &replay.all[count]),
                    "{count}"
                );
            }
            Received::Close(1000, receipt) => break receipt,
            other => panic!("{other:?}"),
        }
        count += 1;
    };
    assert_eq!(split_id(&receipt).0, r#"{"delivered":1}"#);
}

#[test]
fn a_protocol_ping_is_answered_while_a_client_is_being_caught_up() {
    let mut replay = Replay::begin(&[]);
    replay.client.send_bytes(&frame(0x89, b"payload"));
    assert_eq!(replay.client.whole_text(), resumed(1, &replay.start));
    let (mut count, mut pongs) = (0, 0);
    while count < MISSED {
        match replay.client.receive() {
            Received::Text(text) => {
                assert!(
                    text == numbered(&replay.ids[count], &replay.all[count]),
                    "{count}"
                );
                count += 1;
            }
            Received::Pong(payload) => {
                assert_eq!(payload, b"payload");
                pongs += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(pongs, 1);
}

#[test]
fn a_client_that_is_being_caught_up_may_leave() {
    let mut replay = Replay::begin(&[]);
    replay.client.send_bytes(&frame(0x88, &[0x03, 0xe8]));
    wait_for_figure(&replay.server, "crieur_catching_up 0");
    assert_eq!(replay.client.whole_text(), resumed(1, &replay.start));
    let mut count = 0;
    loop {
        match replay.client.receive() {
            Received::Text(text) => {
                assert!(
                    text == numbered(&replay.ids[count], &replay.all[count]),
                    "{count}"
                );
            }
            Received::Close(1000, _) => break,
            other => panic!("{other:?}"),
        }
        count += 1;
    }
    assert!(count < MISSED);
}

#[test]
fn a_client_that_never_reads_its_replay_is_closed_in_time() {
    let flags = ["--write-timeout", "0.5", "--close-timeout", "30"];
    let mut replay = Replay::begin(&flags);
    replay.server.wait_for_line("closed with 1013");
    wait_for_figure(&replay.server, "crieur_catching_up 0");
    assert_eq!(replay.client.whole_text(), resumed(1, &replay.start));
    let mut count = 0;
    let reason = loop {
        match replay.client.receive() {
            Received::Text(text) => {
                assert!(
                    text == numbered(&replay.ids[count], &replay.all[count]),
                    "{count}"
                );
            }
            Received::Close(1013, reason) => break reason,
            other => panic!("{other:?}"),
        }
        count += 1;
    };
    assert_eq!(close_reason(&reason).0, "slow-consumer");
    assert!(count < MISSED);
}

#[test]
fn what_is_being_caught_up_with_counts_towards_the_limits() {
    let replay = Replay::begin(&["--max-total-subscriptions", "2"]);
    let mut other = Client::connect(&replay.server);
    other.send(r#"{"sender":"client","subscriptions":["a","b"]}"#);
    assert!(other.text().contains("too-many-subscriptions"));
    other.subscribe(r#"["a"]"#);
    // When it is gone it has given its share back.
    drop(replay.client);
    wait_for_figure(&replay.server, "crieur_catching_up 0");
    other.subscribe(r#"["a","b"]"#);
}

#[test]
fn others_get_what_comes_while_many_are_being_caught_up() {
    const CLIENTS: usize = 20;
    let mut replay = Replay::begin(&[]);
    let mut stuck: Vec<_> = (1..CLIENTS)
        .map(|_| {
            let mut client = narrow_client(&replay.server);
            client.send(&list_since(r#"["c"]"#, &replay.start));
            client
        })
        .collect();
    wait_for_figure(&replay.server, &format!("crieur_catching_up {CLIENTS}"));
    let mut there = numbered_subscriber(&replay.server, r#"["c"]"#);
    for n in MISSED..MISSED + 20 {
        replay.publish(&[notification(n)]);
        assert!(there.whole_text() == numbered(&replay.ids[n], &notification(n)));
    }
    wait_for_figure(&replay.server, &format!("crieur_catching_up {CLIENTS}"));
    replay.expect_all();
    for client in &mut stuck {
        std::mem::swap(&mut replay.client, client);
        replay.expect_all();
    }
}

#[test]
fn a_long_replay_does_not_delay_others() {
    let server = Server::with(&["--history-bytes", "100000000"]);
    let start = position(&server);
    // Most of them are for nobody, but all have to be looked at.
    let on_page = |n: usize| {
        format!(
            r#"{{"package":"p","page":"q","filters":{{"values":{{"f":"{}"}}}}}}"#,
            n % 100
        )
    };
    let all: Vec<_> = (0..20_000).map(on_page).collect();
    publish_all(&server, &all);
    let mut there = subscriber(&server, r#"["c"]"#);
    let mut publisher = Client::connect_with(&server, "/publish", &[]);
    let list = r#"[{"package":"p","page":"q","filters":{"values":{"f":["7","8"]}}}]"#;
    let all = r#"[{"package":"p","page":"q"}]"#;
    std::thread::scope(|scope| {
        let replays: Vec<_> = [list, all, list, all]
            .map(|list| {
                let (server, start) = (&server, &start);
                scope.spawn(move || {
                    let (mut client, answer) = resume(server, list, start);
                    assert_eq!(answer, resumed(1, start));
                    let mut count = 0;
                    while !client.whole_text().starts_with(r#"{"type":"caught-up","#) {
                        count += 1;
                    }
                    count
                })
            })
            .into_iter()
            .collect();
        let mut slowest = Duration::ZERO;
        while replays.iter().any(|replay| !replay.is_finished()) {
            let since = Instant::now();
            publisher.send(&message(r#"{"channel":"c"}"#));
            assert_eq!(there.whole_text(), delivery(r#"{"channel":"c"}"#));
            slowest = slowest.max(since.elapsed());
            publisher.text();
        }
        let counts: Vec<_> = replays
            .into_iter()
            .map(|replay| replay.join().expect("it is caught up"))
            .collect();
        assert_eq!(counts, [400, 20_000, 400, 20_000]);
        assert!(slowest <= DELIVERY_MAX, "{slowest:?}");
    });
}

#[test]
fn a_client_of_the_publishing_path_gets_its_own_in_its_place() {
    let mut replay = Replay::begin(&[]);
    let mut client = Client::over(replay.server.narrow_tcp()).upgrade("/publish", &[]);
    client.send(&list_since(r#"["c"]"#, &replay.start));
    wait_for_figure(&replay.server, "crieur_catching_up 2");
    let own = r#"{"channel":"c","own":true}"#;
    client.send(&message(own));
    std::mem::swap(&mut replay.client, &mut client);
    let (receipt, count) = replay.read_until_other();
    let Received::Text(receipt) = receipt else {
        panic!("{receipt:?}");
    };
    let (receipt, id) = split_id(&receipt);
    assert_eq!(receipt, r#"{"type":"published","delivered":0}"#);
    for (id, notification) in replay.ids.iter().zip(&replay.all).skip(count) {
        assert!(
            replay.client.whole_text() == numbered(id, notification),
            "{id}"
        );
    }
    replay
        .client
        .expect_texts(&[numbered(&id, own), caught_up(&id, MISSED + 1)]);
}

#[test]
fn a_token_that_expires_ends_a_replay() {
    let file = SecretFile::new(KEY);
    let server = Server::with(&["--client-key-file", file.path(), "--close-timeout", "30"]);
    let start = position(&server);
    let all: Vec<_> = (0..MISSED).map(notification).collect();
    let ids = publish_all(&server, &all);
    let exp = unix_now() + 2.0;
    let token = sign(
        KEY,
        &format!(r#"{{"sub":"bob","exp":{exp},"allow":["c"]}}"#),
    );
    let mut client = narrow_client(&server);
    let list = list_since(r#"["c"]"#, &start);
    client.send(&list.replacen('{', &format!(r#"{{"token":"{token}","#), 1));
    wait_for_figure(&server, "crieur_tokens_refused_total 1");
    wait_for_figure(&server, "crieur_catching_up 0");
    assert_eq!(client.whole_text(), resumed(1, &start));
    let mut count = 0;
    let reason = loop {
        match client.receive() {
            Received::Text(text) => assert!(text == numbered(&ids[count], &all[count])),
            Received::Close(3000, reason) => break reason,
            other => panic!("{other:?}"),
        }
        count += 1;
    };
    assert_eq!(close_reason(&reason).0, "token-expired");
    assert!(count < MISSED);
}

#[test]
fn a_server_that_stops_ends_a_replay() {
    let mut replay = Replay::begin(&["--drain-timeout", "20"]);
    replay.server.terminate();
    let (close, count) = replay.read_until_other();
    let Received::Close(1001, reason) = close else {
        panic!("{close:?} after {count}");
    };
    assert_eq!(close_reason(&reason).0, "shutdown");
    replay.client.answer_close(1001);
    assert_eq!(replay.server.wait().status, Some(0));
}

#[test]
fn a_client_that_is_gone_while_it_is_caught_up_is_forgotten() {
    let replay = Replay::begin(&[]);
    drop(replay.client);
    wait_for_figure(&replay.server, "crieur_catching_up 0");
}

#[test]
fn what_is_being_caught_up_with_counts_towards_the_share_of_its_address() {
    const TOKEN: &str = "correct-horse-battery-staple";
    let file = SecretFile::new(TOKEN);
    let server = Server::with(&[
        "--trusted-proxy",
        "127.0.0.1",
        "--publish-token-file",
        file.path(),
        "--max-publish-bytes",
        "8000000",
        "--max-total-subscriptions",
        "8",
        "--max-share-per-address",
        "25",
    ]);
    let bearer = format!("Authorization: Bearer {TOKEN}");
    let mut publisher = Http::connect(&server);
    let all: Vec<_> = (0..MISSED).map(|n| message(&notification(n))).collect();
    publisher.send(post_with(&[JSON, &bearer], &format!("[{}]", all.join(","))));
    let (_, ids) = split_ids(&publisher.receive().2);
    let from = ["X-Forwarded-For: 192.0.2.1"];
    let mut stuck = Client::over(server.narrow_tcp()).upgrade("/", &from);
    stuck.send(&list_since(r#"["c"]"#, &ids[0]));
    assert_eq!(stuck.whole_text(), resumed(1, &ids[0]));
    let mut other = Client::connect_with(&server, "/", &from);
    let two = r#"{"sender":"client","subscriptions":["a","b"]}"#;
    other.send(two);
    let answer = other.text();
    assert!(
        answer.contains("this address has used up its share"),
        "{answer}"
    );
    other.subscribe(r#"["a"]"#);
    // Its end gives back what it had.
    drop(stuck);
    wait_until("it is gone", || {
        other.send(two);
        other.text().starts_with(r#"{"type":"subscribed","#)
    });
    // So does a list in place of the one that is caught up.
    other.subscribe("[]");
    let mut stuck = Client::over(server.narrow_tcp()).upgrade("/", &from);
    stuck.send(&list_since(r#"["c","d"]"#, &ids[0]));
    assert_eq!(stuck.whole_text(), resumed(2, &ids[0]));
    other.send(r#"{"sender":"client","subscriptions":["a"]}"#);
    assert!(other.text().contains("this address has used up its share"));
    stuck.send(&list_since("[]", &ids[0]));
    wait_until("it has none", || {
        other.send(two);
        other.text().starts_with(r#"{"type":"subscribed","#)
    });
}
