//! Lists that a client sends while it is being caught up: one without `since` is held, one with it begins anew.

use std::thread;
use std::time::Duration;

use crate::helpers::numbered::{
    caught_up, id_of, list_since, narrow_client, numbered, numbered_subscriber, pong,
    publish_whole, resumed, subscribed, wait_for_figure,
};
use crate::helpers::receipts::split_id;
use crate::helpers::replay::{MISSED, Replay, notification};
use crate::helpers::{Received, close_reason, frame, message, publish};

#[test]
fn a_list_without_since_and_what_is_behind_it_are_held() {
    let mut replay = Replay::begin(&[]);
    let list = r#"{"sender":"client","subscriptions":["d","e"]}"#;
    let own = message(r#"{"channel":"d","own":true}"#);
    let mut held = frame(0x81, list.as_bytes());
    held.extend(frame(0x81, br#"{"type":"ping"}"#));
    held.extend(frame(0x81, br#"{"sender":"client","subscriptions":["d"]}"#));
    held.extend(frame(0x81, own.as_bytes()));
    replay.client.send_bytes(&held);
    // None of it has been handled yet: this is not for the client, and its own isn't published.
    let mut there = numbered_subscriber(&replay.server, r#"["d"]"#);
    let before = r#"{"channel":"d","before":true}"#;
    let receipt = publish_whole(&replay.server, &message(before));
    let (receipt, id) = split_id(&receipt);
    assert_eq!(receipt, r#"{"delivered":1}"#);
    assert_eq!(there.whole_text(), numbered(&id, before));
    // It is for another list than the one that is caught up.
    assert_eq!(replay.client.whole_text(), resumed(1, &replay.start));
    for (id, notification) in replay.ids.iter().zip(&replay.all) {
        assert!(
            replay.client.whole_text() == numbered(id, notification),
            "{id}"
        );
    }
    let client = &mut replay.client;
    assert_eq!(client.whole_text(), caught_up(&id, MISSED));
    assert_eq!(client.whole_text(), subscribed(2, &id));
    assert_eq!(client.whole_text(), pong(&id));
    assert_eq!(client.whole_text(), subscribed(1, &id));
    let text = client.whole_text();
    let own_id = id_of(&text);
    assert_eq!(text, numbered(&own_id, r#"{"channel":"d","own":true}"#));
    let (receipt, told) = split_id(&client.expect_whole_close(1000));
    assert_eq!((receipt.as_str(), told), (r#"{"delivered":2}"#, own_id));
}

#[test]
fn a_held_list_that_is_invalid_gets_its_error_in_its_place() {
    let mut replay = Replay::begin(&[]);
    let client = &mut replay.client;
    client.send(r#"{"sender":"client","subscriptions":["d"]}"#);
    client.send(r#"{"sender":"client","subscriptions":7}"#);
    client.send("nonsense");
    client.send(r#"{"type":"ping"}"#);
    replay.expect_all();
    let last = replay.ids.last().expect("there are some");
    let client = &mut replay.client;
    assert_eq!(client.whole_text(), subscribed(1, last));
    assert!(client.whole_text().contains("invalid-subscription"));
    assert!(client.whole_text().contains("invalid-json"));
    assert_eq!(client.whole_text(), pong(last));
}

#[test]
fn a_list_with_since_ends_a_replay_and_begins_its_own() {
    let mut replay = Replay::begin(&[]);
    let d = r#"{"channel":"d"}"#;
    let (_, id) = split_id(&publish_whole(&replay.server, &message(d)));
    let since = replay.ids[MISSED - 1].clone();
    replay.client.send(&list_since(r#"["d"]"#, &since));
    assert_eq!(replay.client.whole_text(), resumed(1, &replay.start));
    let mut count = 0;
    let answer = loop {
        let text = replay.client.whole_text();
        if text.starts_with(r#"{"type":"subscribed","#) {
            break text;
        }
        assert!(
            text == numbered(&replay.ids[count], &replay.all[count]),
            "{count}"
        );
        count += 1;
    };
    assert!(count < MISSED, "the replay had ended");
    assert_eq!(answer, resumed(1, &since));
    replay
        .client
        .expect_texts(&[numbered(&id, d), caught_up(&id, 1)]);
}

#[test]
fn a_list_with_no_id_or_a_bad_one_ends_a_replay_too() {
    for since in ["", "nonsense"] {
        let mut replay = Replay::begin(&[]);
        replay.client.send(&list_since(r#"["d"]"#, since));
        let last = replay.ids.last().expect("there are some").clone();
        let mut count = 0;
        assert_eq!(replay.client.whole_text(), resumed(1, &replay.start));
        let answer = loop {
            let text = replay.client.whole_text();
            if text.starts_with(r#"{"type":"subscribed","#) {
                break text;
            }
            assert!(
                text == numbered(&replay.ids[count], &replay.all[count]),
                "{count}"
            );
            count += 1;
        };
        assert!(count < MISSED, "the replay had ended");
        assert_eq!(id_of(&answer), last);
        assert_eq!(
            answer.contains(r#""resumed":false,"reason":"unknown""#),
            !since.is_empty()
        );
        wait_for_figure(&replay.server, "crieur_catching_up 0");
        let d = r#"{"channel":"d"}"#;
        publish(&replay.server, r#"{"channel":"c"}"#);
        let (receipt, id) = split_id(&publish_whole(&replay.server, &message(d)));
        assert_eq!(receipt, r#"{"delivered":1}"#);
        assert_eq!(replay.client.whole_text(), numbered(&id, d));
    }
}

#[test]
fn a_list_with_since_that_is_refused_leaves_the_replay_as_it_is() {
    let mut replay = Replay::begin(&["--max-subscriptions", "2"]);
    let start = replay.start.clone();
    replay.client.send(&list_since(r#"["a","b","c"]"#, &start));
    assert_eq!(replay.client.whole_text(), resumed(1, &replay.start));
    let (mut count, mut errors) = (0, 0);
    while count < MISSED {
        let text = replay.client.whole_text();
        if text.contains("too-many-subscriptions") {
            errors += 1;
            continue;
        }
        assert!(
            text == numbered(&replay.ids[count], &replay.all[count]),
            "{count}"
        );
        count += 1;
    }
    let last = replay.ids.last().expect("there are some");
    assert_eq!(replay.client.whole_text(), caught_up(last, MISSED));
    assert_eq!(errors, 1);
}

#[test]
fn a_client_whose_list_is_held_is_neither_silent_nor_unfinished() {
    let flags = [
        "--ping-interval",
        "0.2",
        "--pong-timeout",
        "0.3",
        "--message-timeout",
        "0.3",
    ];
    let mut replay = Replay::begin(&flags);
    let list = frame(0x81, br#"{"sender":"client","subscriptions":["d"]}"#);
    let ping = frame(0x81, br#"{"type":"ping"}"#);
    // The last message is whole only later.
    let (begun, rest) = ping.split_at(9);
    replay
        .client
        .send_bytes(&[&list[..], &ping, begun].concat());
    let answer = replay.client.whole_text();
    assert!(answer.starts_with(r#"{"type":"subscribed","#), "{answer}");
    let mut count = 0;
    while count < MISSED {
        match replay.client.receive() {
            Received::Ping(payload) => replay.client.send_bytes(&frame(0x8a, &payload)),
            Received::Text(text) => {
                assert!(
                    text == numbered(&replay.ids[count], &replay.all[count]),
                    "{count}"
                );
                count += 1;
                // To be slow is what this is about: it takes a second.
                thread::sleep(Duration::from_millis(4));
            }
            other => panic!("{other:?} after {count}"),
        }
    }
    let last = replay.ids[MISSED - 1].clone();
    // A Ping may have come in between, whose Pong isn't a message of its own here.
    replay.client.send_bytes(rest);
    let mut texts = Vec::new();
    while texts.len() < 4 {
        match replay.client.receive() {
            Received::Ping(_) => {}
            Received::Text(text) => texts.push(text),
            other => panic!("{other:?} after {texts:?}"),
        }
    }
    assert_eq!(texts[0], caught_up(&last, MISSED));
    assert!(
        texts[1].starts_with(r#"{"type":"subscribed","#),
        "{texts:?}"
    );
    assert_eq!(texts[2..], [pong(&last), pong(&last)]);
}

#[test]
fn a_client_whose_list_is_held_may_be_gone() {
    let mut replay = Replay::begin(&[]);
    let list = r#"{"sender":"client","subscriptions":["d"]}"#;
    replay.client.send(list);
    replay.client.send(r#"{"type":"ping"}"#);
    drop(replay.client);
    wait_for_figure(&replay.server, "crieur_catching_up 0");
    publish(&replay.server, r#"{"channel":"d"}"#);
}

#[test]
fn lists_that_are_held_have_a_limit_for_all() {
    let flags = ["--max-message-bytes", "1048576", "--close-timeout", "30"];
    let replay = Replay::begin(&flags);
    let channel = "x".repeat(10_000);
    let channels = vec![format!(r#""{channel}""#); 100].join(",");
    let list = format!(r#"{{"sender":"client","subscriptions":[{channels}]}}"#);
    let mut clients: Vec<_> = (0..17).map(|_| narrow_client(&replay.server)).collect();
    for client in &mut clients {
        client.send(&list_since(r#"["c"]"#, &replay.start));
    }
    wait_for_figure(&replay.server, "crieur_catching_up 18");
    for client in &mut clients {
        client.send(&list);
    }
    // Sixteen of them are 16 MB.
    wait_for_figure(&replay.server, "crieur_catching_up 17");
    let mut closed = 0;
    for client in &mut clients {
        assert_eq!(client.whole_text(), resumed(1, &replay.start));
        let mut count = 0;
        loop {
            match client.receive() {
                Received::Text(text) if text.starts_with(r#"{"type":"caught-up","#) => break,
                Received::Text(text) => {
                    assert!(text == numbered(&replay.ids[count], &replay.all[count]));
                }
                Received::Close(1013, reason) => {
                    assert_eq!(close_reason(&reason).0, "overload");
                    closed += 1;
                    break;
                }
                other => panic!("{other:?}"),
            }
            count += 1;
        }
    }
    assert_eq!(closed, 1);
}

#[test]
fn a_list_with_since_behind_a_held_one_waits_for_it() {
    let mut replay = Replay::begin(&[]);
    let since = replay.ids[MISSED - 2].clone();
    replay
        .client
        .send(r#"{"sender":"client","subscriptions":["d","e"]}"#);
    replay.client.send(&list_since(r#"["c"]"#, &since));
    replay.expect_all();
    let last = replay.ids[MISSED - 1].clone();
    let client = &mut replay.client;
    assert_eq!(client.whole_text(), subscribed(2, &last));
    assert_eq!(client.whole_text(), resumed(1, &since));
    assert!(client.whole_text() == numbered(&last, &replay.all[MISSED - 1]));
    assert_eq!(client.whole_text(), caught_up(&last, 1));
}

/// Reads up to the Close with `code` of a client whose list is held, and answers it: that is read, though what it
/// sent before isn't.
fn expect_end_of_held(mut replay: Replay, code: u16, word: &str) -> Replay {
    let (close, count) = replay.read_until_other();
    let Received::Close(got, reason) = close else {
        panic!("{close:?} after {count}");
    };
    assert_eq!((got, &close_reason(&reason).0[..]), (code, word));
    replay.client.answer_close(code);
    replay
}

fn hold(replay: &mut Replay) {
    replay
        .client
        .send(r#"{"sender":"client","subscriptions":["d"]}"#);
    replay.client.send(r#"{"type":"ping"}"#);
}

#[test]
fn a_client_whose_list_is_held_is_told_that_the_server_stops() {
    let mut replay = Replay::begin(&["--drain-timeout", "60", "--close-timeout", "60"]);
    hold(&mut replay);
    replay.server.terminate();
    let mut replay = expect_end_of_held(replay, 1001, "shutdown");
    assert_eq!(replay.server.wait().status, Some(0));
}

#[test]
fn a_client_whose_list_is_held_is_closed_when_the_history_is_gone() {
    let flags = ["--history-bytes", "6000000", "--close-timeout", "60"];
    let mut replay = Replay::begin(&flags);
    hold(&mut replay);
    let more: Vec<_> = (MISSED..3 * MISSED).map(notification).collect();
    replay.publish(&more);
    expect_end_of_held(replay, 1013, "slow-consumer");
}

#[test]
fn a_client_whose_list_is_held_is_closed_when_it_reads_nothing() {
    let mut replay = Replay::begin(&["--write-timeout", "0.5", "--close-timeout", "60"]);
    hold(&mut replay);
    replay.server.wait_for_line("closed with 1013");
    expect_end_of_held(replay, 1013, "slow-consumer");
}

#[test]
fn a_client_whose_list_is_held_may_close() {
    let mut replay = Replay::begin(&[]);
    hold(&mut replay);
    replay.client.send_bytes(&frame(0x88, &[0x03, 0xe8]));
    replay.expect_all();
    let last = replay.ids[MISSED - 1].clone();
    let client = &mut replay.client;
    client.expect_texts(&[subscribed(1, &last), pong(&last)]);
    client.expect_close(1000);
    client.expect_end();
}

#[test]
fn what_a_client_published_behind_a_held_list_is_heard_when_it_hangs_up() {
    let mut replay = Replay::begin(&[]);
    let own = r#"{"channel":"d","own":true}"#;
    replay
        .client
        .send(r#"{"sender":"client","subscriptions":[]}"#);
    replay.client.send(&message(own));
    let mut there = numbered_subscriber(&replay.server, r#"["d"]"#);
    drop(replay.client);
    assert!(
        there
            .whole_text()
            .ends_with(&format!(r#""notification":{own}}}"#))
    );
    wait_for_figure(&replay.server, "crieur_catching_up 0");
}
