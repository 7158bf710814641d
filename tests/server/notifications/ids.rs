//! Ids: who is told them, where they are in frames and answers, and who sees nothing of them.

use std::collections::HashSet;

use crate::helpers::http::{Http, post};
use crate::helpers::numbered::{
    id_of, list_since, numbered, numbered_subscriber, pong, position, publish_all, publish_kept,
    publish_whole, subscribed,
};
use crate::helpers::receipts::{split_id, split_ids};
use crate::helpers::{
    Client, MARKER, Server, delivery, error_code, message, publish, publish_message, subscriber,
};

const C: &str = r#"{"channel":"c"}"#;
const D: &str = r#"{"channel":"d"}"#;

#[test]
fn every_receipt_has_an_id_and_none_is_given_twice() {
    let server = Server::start();
    let mut ids = vec![position(&server)];
    let (receipt, id) = split_id(&publish_whole(&server, &message(C)));
    assert_eq!(receipt, r#"{"delivered":0}"#);
    ids.push(id);
    ids.extend(publish_all(&server, &[C; 3]));
    let mut http = Http::connect(&server);
    http.send(post(&message(C)));
    let (_, _, body) = http.receive();
    let (receipt, id) = split_id(&body);
    assert_eq!(receipt, r#"{"delivered":0}"#);
    ids.push(id);
    http.send(post(&format!("[{},{}]", message(C), message(D))));
    let (_, _, body) = http.receive();
    let (receipts, both) = split_ids(&body);
    assert_eq!(receipts, r#"[{"delivered":0},{"delivered":0}]"#);
    ids.extend(both);
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 1 + 1 + 3 + 1 + 2);
    assert_eq!(position(&server), *ids.last().expect("there are some"));
}

#[test]
fn a_server_that_is_started_again_gives_no_id_again() {
    let mut ids = HashSet::new();
    for _ in 0..3 {
        let server = Server::start();
        assert!(ids.insert(position(&server)));
        for id in publish_all(&server, &[C; 5]) {
            assert!(ids.insert(id));
        }
    }
}

#[test]
fn a_client_that_wants_ids_is_told_the_position() {
    let server = Server::start();
    let mut client = Client::connect(&server);
    let start = position(&server);
    assert_eq!(client.subscribe_since("[]", ""), subscribed(0, &start));
    let id = publish_kept(&server, C);
    assert_ne!(id, start);
    let answer = client.subscribe_since(r#"["c","d"]"#, "");
    assert_eq!(answer, subscribed(2, &id));
}

#[test]
fn a_numbered_delivery_has_its_id_behind_the_type() {
    let server = Server::start();
    let mut client = numbered_subscriber(&server, r#"["c"]"#);
    for (member, kind) in [
        ("", r#""notification""#),
        (r#""type":"refreshcontent","#, r#""refreshcontent""#),
        (r#""type" : "a\u0062\"c" ,"#, r#""a\u0062\"c""#),
        (r#""keep":true,"#, r#""notification""#),
        (r#""key":"k","#, r#""notification""#),
    ] {
        for notification in [
            r#"{"channel":"c"}"#,
            "{ \"channel\" :\t\"c\" ,\n\r \"b\":1.0,\"a\" : [ ],\"id\":7 }",
            r#"{"channel":"\u0063","same":1,"same":2,"n":123456789012345678901234567890}"#,
        ] {
            let key = format!(r#""key":"{}","#, notification.len());
            let member = member.replace(r#""key":"k","#, &key);
            let message = format!(r#"{{"sender":"server",{member}"notification":{notification}}}"#);
            let (receipt, id) = split_id(&publish_whole(&server, &message));
            assert_eq!(receipt, r#"{"delivered":1}"#);
            let text = format!(r#"{{"type":{kind},"id":"{id}","notification":{notification}}}"#);
            assert_eq!(client.whole_text(), text);
        }
    }
}

#[test]
fn every_length_of_frame_arrives_numbered() {
    let server = Server::start();
    let mut client = numbered_subscriber(&server, r#"["c"]"#);
    for length in [
        0, 20, 30, 40, 50, 60, 65_340, 65_380, 65_400, 65_535, 70_000, 900_000,
    ] {
        let notification = format!(r#"{{"channel":"c","t":"{}"}}"#, "x".repeat(length));
        let id = publish_kept(&server, &notification);
        assert!(client.whole_text() == numbered(&id, &notification));
    }
}

#[test]
fn nothing_changes_for_clients_that_do_not_ask_for_ids() {
    let server = Server::start();
    let mut plain = Client::connect(&server);
    let mut beside = numbered_subscriber(&server, r#"["c"]"#);
    plain.send(r#"{"sender":"client","subscriptions":["c"]}"#);
    let answer = r#"{"type":"subscribed","subscriptions":1,"heartbeat":25}"#;
    assert_eq!(plain.whole_text(), answer);
    let id = publish_kept(&server, C);
    assert_eq!(plain.whole_text(), delivery(C));
    assert_eq!(beside.whole_text(), numbered(&id, C));
    plain.send(r#"{"type":"ping"}"#);
    assert_eq!(plain.whole_text(), r#"{"type":"pong"}"#);
    // They may have asked for something else by this name, and weren't told.
    plain.send(r#"{"type":"ping","since":""}"#);
    assert_eq!(plain.whole_text(), r#"{"type":"pong"}"#);
    plain.send(r#"{"type":"no message","since":7}"#);
    assert_eq!(error_code(&plain.whole_text()), "unknown-message");
}

#[test]
fn plain_and_numbered_clients_get_the_same_in_the_same_order() {
    let server = Server::start();
    let mut plain: Vec<_> = (0..3).map(|_| subscriber(&server, r#"["c"]"#)).collect();
    let mut others: Vec<_> = (0..3)
        .map(|_| numbered_subscriber(&server, r#"["c"]"#))
        .collect();
    let notification = |n: usize| format!(r#"{{"channel":"c","n":{n}}}"#);
    let all: Vec<_> = (0..500).map(notification).collect();
    let ids = publish_all(&server, &all);
    for client in &mut plain {
        for notification in &all {
            assert_eq!(client.whole_text(), delivery(notification));
        }
    }
    for client in &mut others {
        for (id, notification) in ids.iter().zip(&all) {
            assert_eq!(client.whole_text(), numbered(id, notification));
        }
    }
}

#[test]
fn since_is_a_string_that_comes_once() {
    let server = Server::start();
    let mut client = subscriber(&server, r#"["c"]"#);
    for since in [
        r#""since":null"#,
        r#""since":0"#,
        r#""since":true"#,
        r#""since":[]"#,
        r#""since":[""]"#,
        r#""since":{}"#,
        r#""since":"","since":"""#,
        r#""since":"","sin\u0063e":"""#,
    ] {
        client.send(&format!(
            r#"{{"sender":"client","subscriptions":["d"],{since}}}"#
        ));
        let error = client.whole_text();
        assert_eq!(error_code(&error), "invalid-subscription", "{since}");
        assert!(error.contains("since"), "{error}");
    }
    // The earlier set stays, and is not numbered.
    assert_eq!(publish(&server, D), r#"{"delivered":0}"#);
    assert_eq!(publish(&server, C), r#"{"delivered":1}"#);
    assert_eq!(client.whole_text(), delivery(C));
}

#[test]
fn since_may_be_written_with_escapes() {
    let server = Server::start();
    let mut client = Client::connect(&server);
    let id = position(&server);
    let escaped: String = id
        .bytes()
        .map(|byte| format!(r"\u{:04x}", u32::from(byte)))
        .collect();
    client.send(&format!(
        r#"{{"sin\u0063e" : "{escaped}","subscriptions":["c"],"sender":"client"}}"#
    ));
    let answer = client.whole_text();
    assert!(
        answer.contains(&format!(r#","id":"{id}","resumed":true}}"#)),
        "{answer}"
    );
}

#[test]
fn a_list_that_is_refused_numbers_nothing() {
    let server = Server::with(&["--max-subscriptions", "2"]);
    let mut client = subscriber(&server, r#"["c"]"#);
    client.send(&list_since(r#"["a","b","d"]"#, ""));
    assert_eq!(error_code(&client.whole_text()), "too-many-subscriptions");
    client.send(&list_since(r#"[{"package":"p"}]"#, ""));
    assert_eq!(error_code(&client.whole_text()), "invalid-subscription");
    assert_eq!(publish(&server, C), r#"{"delivered":1}"#);
    assert_eq!(client.whole_text(), delivery(C));
    client.send(r#"{"type":"ping"}"#);
    assert_eq!(client.whole_text(), r#"{"type":"pong"}"#);
}

#[test]
fn a_list_without_since_leaves_a_numbered_connection_numbered() {
    let server = Server::start();
    let mut client = numbered_subscriber(&server, r#"["c"]"#);
    let before = publish_kept(&server, D);
    client.send(r#"{"sender":"client","subscriptions":["d","c"]}"#);
    assert_eq!(client.whole_text(), subscribed(2, &before));
    // What is new counts from now: the one before doesn't come.
    let id = publish_kept(&server, D);
    assert_eq!(client.whole_text(), numbered(&id, D));
    client.send(r#"{"sender":"client","subscriptions":[]}"#);
    assert_eq!(client.whole_text(), subscribed(0, &id));
    client.send(r#"{"type":"ping"}"#);
    assert_eq!(client.whole_text(), pong(&id));
}

#[test]
fn a_plain_connection_may_become_a_numbered_one() {
    let server = Server::start();
    let mut client = subscriber(&server, r#"["c"]"#);
    publish(&server, C);
    assert_eq!(client.whole_text(), delivery(C));
    client.subscribe_since(r#"["c"]"#, "");
    let id = publish_kept(&server, C);
    assert_eq!(client.whole_text(), numbered(&id, C));
}

#[test]
fn a_pong_moves_a_quiet_client_on() {
    let server = Server::start();
    let mut client = numbered_subscriber(&server, r#"["c"]"#);
    assert_eq!(client.before_pong(), (vec![], position(&server)));
    let ids = publish_all(&server, &[D; 10]);
    assert_eq!(client.before_pong(), (vec![], ids[9].clone()));
    let id = publish_kept(&server, C);
    assert_eq!(client.before_pong(), (vec![numbered(&id, C)], id));
}

#[test]
fn every_spelling_of_a_ping_is_answered_with_the_position() {
    let server = Server::start();
    let mut client = numbered_subscriber(&server, r#"["c"]"#);
    let id = publish_kept(&server, D);
    for ping in [
        r#"{"type":"ping"}"#,
        r#" { "type" : "ping" } "#,
        r#"{"t\u0079pe":"p\u0069ng"}"#,
        r#"{"id":1,"type":"ping","notification":{"channel":"c"}}"#,
    ] {
        client.send(ping);
        assert_eq!(client.whole_text(), pong(&id), "{ping}");
    }
}

#[test]
fn all_that_is_for_a_client_is_ahead_of_the_pong() {
    let server = Server::start();
    let mut client = numbered_subscriber(&server, r#"["c"]"#);
    let notification = |n: usize| format!(r#"{{"channel":"{}","n":{n}}}"#, ["c", "d"][n % 2]);
    let all: Vec<_> = (0..2000).map(notification).collect();
    let (mut seen, mut told) = (Vec::new(), Vec::new());
    let ids = std::thread::scope(|scope| {
        let published = scope.spawn(|| publish_all(&server, &all));
        while !published.is_finished() {
            let (texts, id) = client.before_pong();
            seen.extend(texts.iter().map(|text| id_of(text)));
            told.push((seen.len(), id));
        }
        published.join().expect("they are published")
    });
    let (texts, _) = client.before_pong();
    seen.extend(texts.iter().map(|text| id_of(text)));
    let for_it: Vec<_> = ids.iter().step_by(2).cloned().collect();
    assert_eq!(seen, for_it);
    // At each Pong it had seen just what is for it up to there.
    for (count, id) in told {
        if let Some(at) = ids.iter().position(|other| *other == id) {
            assert_eq!(count, at / 2 + 1, "{id}");
        }
    }
}

#[test]
fn what_is_not_to_be_kept_has_no_id_and_is_for_those_who_are_there() {
    let server = Server::start();
    let start = position(&server);
    let mut plain = subscriber(&server, r#"["c"]"#);
    let mut client = numbered_subscriber(&server, r#"["c"]"#);
    let unkept = format!(r#"{{"sender":"server","keep":false,"notification":{C}}}"#);
    assert_eq!(publish_whole(&server, &unkept), r#"{"delivered":2}"#);
    let mut kept = Client::connect_with(&server, "/publish", &[]);
    kept.send(&unkept);
    assert_eq!(kept.whole_text(), r#"{"type":"published","delivered":2}"#);
    let mut http = Http::connect(&server);
    http.send(post(&format!("[{unkept},{unkept}]")));
    let (status, _, body) = http.receive();
    assert_eq!(status, 200);
    assert_eq!(body, r#"[{"delivered":2},{"delivered":2}]"#);
    assert_eq!(position(&server), start);
    let (texts, id) = client.before_pong();
    assert_eq!((texts, id), (vec![delivery(C); 4], start.clone()));
    for _ in 0..4 {
        assert_eq!(plain.whole_text(), delivery(C));
    }
    // Nobody gets it later.
    let marker = publish_kept(&server, MARKER);
    let mut late = Client::connect(&server);
    late.subscribe_since(r#"["c","marker"]"#, &start);
    assert_eq!(late.whole_text(), numbered(&marker, MARKER));
}

#[test]
fn keep_is_true_or_false_and_comes_once() {
    let server = Server::start();
    let mut client = subscriber(&server, r#"["c","marker"]"#);
    for keep in [
        r#""keep":null"#,
        r#""keep":0"#,
        r#""keep":"false""#,
        r#""keep":[]"#,
        r#""keep":false,"keep":false"#,
    ] {
        let message = format!(r#"{{"sender":"server",{keep},"notification":{C}}}"#);
        let mut publisher = Client::connect(&server);
        publisher.send(&message);
        let error = publisher.text();
        assert_eq!(error_code(&error), "invalid-notification", "{keep}");
        assert!(error.contains("keep"), "{error}");
        publisher.expect_close(1008);
    }
    let start = position(&server);
    let unkept = format!(r#"{{"sender":"server","k\u0065ep": false ,"notification":{MARKER}}}"#);
    assert_eq!(publish_whole(&server, &unkept), r#"{"delivered":1}"#);
    assert!(client.before_marker().is_empty());
    assert_eq!(position(&server), start);
    let kept = format!(r#"{{"sender":"server","keep":true,"notification":{C}}}"#);
    assert_eq!(publish_message(&server, &kept), r#"{"delivered":1}"#);
    assert_ne!(position(&server), start);
}

#[test]
fn within_a_notification_these_names_are_the_applications() {
    let server = Server::start();
    let mut client = numbered_subscriber(&server, r#"["c"]"#);
    let notification = r#"{"channel":"c","keep":7,"key":[],"since":null,"id":"x"}"#;
    let id = publish_kept(&server, notification);
    assert_eq!(client.whole_text(), numbered(&id, notification));
    let id = publish_kept(&server, notification);
    assert_eq!(client.whole_text(), numbered(&id, notification));
}

#[test]
fn an_array_may_have_both_what_is_kept_and_what_is_not() {
    let server = Server::start();
    let start = position(&server);
    let mut plain = subscriber(&server, r#"["c","d"]"#);
    let mut client = numbered_subscriber(&server, r#"["c","d"]"#);
    let unkept = format!(r#"{{"keep":false,"notification":{D}}}"#);
    let mut http = Http::connect(&server);
    http.send(post(&format!("[{},{unkept},{}]", message(C), message(C))));
    let (_, _, body) = http.receive();
    let receipts: Vec<serde_json::Value> = serde_json::from_str(&body).expect("an array");
    let ids: Vec<_> = receipts
        .iter()
        .map(|receipt| receipt["id"].as_str())
        .collect();
    let [Some(first), None, Some(second)] = ids[..] else {
        panic!("{body}");
    };
    assert_eq!(
        body,
        format!(
            r#"[{{"delivered":2,"id":"{first}"}},{{"delivered":2}},{{"delivered":2,"id":"{second}"}}]"#
        )
    );
    client.expect_texts(&[numbered(first, C), delivery(D), numbered(second, C)]);
    plain.expect_texts(&[delivery(C), delivery(D), delivery(C)]);
    let mut late = Client::connect(&server);
    late.subscribe_since(r#"["c","d"]"#, &start);
    late.expect_texts(&[numbered(first, C), numbered(second, C)]);
}
