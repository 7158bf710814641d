//! Keys: a notification that is published again by its key is not delivered again.

use crate::helpers::http::{Http, figures, post};
use crate::helpers::numbered::{
    caught_up, numbered, numbered_subscriber, position, publish_kept, publish_whole, resume,
    wait_until,
};
use crate::helpers::receipts::{check_id, split_id, split_ids};
use crate::helpers::{Client, MARKER, Server, delivery, error_code, message, publish, subscriber};

const C: &str = r#"{"channel":"c"}"#;
const D: &str = r#"{"channel":"d"}"#;

fn keyed(key: &str, notification: &str) -> String {
    format!(r#"{{"sender":"server","key":"{key}","notification":{notification}}}"#)
}

/// The receipt of what was published before.
fn repeated(delivered: usize, id: &str) -> String {
    format!(r#"{{"delivered":{delivered},"id":"{id}","repeated":true}}"#)
}

/// Publishes so much that the history lets go of what was before.
fn filler(server: &Server, bytes: usize) {
    let text = "x".repeat(10_000);
    for _ in 0..=bytes / 10_000 {
        publish(
            server,
            &format!(r#"{{"channel":"filler","text":"{text}"}}"#),
        );
    }
}

#[test]
fn a_key_that_is_there_already_gets_the_receipt_of_the_first() {
    let server = Server::start();
    let mut clients: Vec<_> = (0..2)
        .map(|_| subscriber(&server, r#"["c","d","marker"]"#))
        .collect();
    let first = publish_whole(&server, &keyed("k", C));
    let (receipt, id) = split_id(&first);
    assert_eq!(receipt, r#"{"delivered":2}"#);
    // As many are there now, but they aren't asked.
    let mut gone = clients.pop().expect("two of them");
    assert_eq!(gone.text(), delivery(C));
    gone.leave();
    assert_eq!(publish_whole(&server, &keyed("k", C)), repeated(2, &id));
    // Whatever it says; the key decides.
    assert_eq!(publish_whole(&server, &keyed("k", D)), repeated(2, &id));
    let mut kept = Client::connect_with(&server, "/publish", &[]);
    kept.send(&keyed("k", C));
    let expected = repeated(2, &id).replacen('{', r#"{"type":"published","#, 1);
    assert_eq!(kept.whole_text(), expected);
    let mut http = Http::connect(&server);
    http.send(post(&keyed("k", C)));
    assert_eq!(http.receive().2, repeated(2, &id));
    assert_eq!(position(&server), id);
    let (_, other) = split_id(&publish_whole(&server, &keyed("K", C)));
    assert_ne!(other, id);
    publish(&server, MARKER);
    assert_eq!(clients[0].before_marker(), vec![delivery(C); 2]);
    let text = figures(&server);
    let repeated = r#"crieur_notifications_total{result="repeated"} 4"#;
    assert!(text.contains(repeated), "{text}");
}

#[test]
fn without_a_key_everything_is_delivered_again() {
    let server = Server::start();
    let mut client = numbered_subscriber(&server, r#"["c"]"#);
    let ids = [publish_kept(&server, C), publish_kept(&server, C)];
    client.expect_texts(&[numbered(&ids[0], C), numbered(&ids[1], C)]);
}

#[test]
fn a_key_may_be_written_with_escapes() {
    let server = Server::start();
    let (_, id) = split_id(&publish_whole(&server, &keyed("kéy/\u{1f600}", C)));
    for same in [r"\u006b\u00e9y/\ud83d\ude00", r"ké\u0079\/😀"] {
        assert_eq!(publish_whole(&server, &keyed(same, C)), repeated(0, &id));
    }
    for other in [
        "kéy/",
        "key/\u{1f600}",
        " kéy/\u{1f600}",
        "ke\u{301}y/\u{1f600}",
    ] {
        split_id(&publish_whole(&server, &keyed(other, C)));
    }
}

#[test]
fn a_key_has_1_to_128_bytes() {
    let server = Server::start();
    let mut publisher = Client::connect_with(&server, "/publish", &[]);
    for key in [
        "k".to_owned(),
        "k".repeat(128),
        "é".repeat(64),
        r"\u0000".to_owned(),
    ] {
        publisher.send(&keyed(&key, C));
        assert_eq!(publisher.text(), r#"{"type":"published","delivered":0}"#);
        publisher.send(&keyed(&key, C));
        let answer = publisher.whole_text();
        assert!(answer.ends_with(r#","repeated":true}"#), "{answer}");
    }
    let start = position(&server);
    let too_long = ["k".repeat(129), "é".repeat(64) + "k", "k".repeat(60_000)];
    for key in [&too_long[..], &[String::new()]].concat() {
        publisher.send(&keyed(&key, C));
        let error = publisher.text();
        assert_eq!(error_code(&error), "invalid-notification");
        assert!(error.contains("key"), "{error}");
    }
    for key in [
        r#""key":null"#,
        r#""key":7"#,
        r#""key":true"#,
        r#""key":["k"]"#,
        r#""key":{}"#,
        r#""key":"a","key":"a""#,
        r#""key":"a","k\u0065y":"b""#,
    ] {
        publisher.send(&format!(
            r#"{{"sender":"server",{key},"notification":{C}}}"#
        ));
        assert_eq!(
            error_code(&publisher.text()),
            "invalid-notification",
            "{key}"
        );
    }
    assert_eq!(position(&server), start);
}

#[test]
fn a_key_that_is_not_kept_is_invalid() {
    for flags in [
        &[][..],
        &["--history-bytes", "0"],
        &["--history-seconds", "0"],
    ] {
        let server = Server::with(flags);
        let mut client = subscriber(&server, r#"["c","marker"]"#);
        let unkept = format!(r#"{{"sender":"server","key":"k","keep":false,"notification":{C}}}"#);
        let mut bad = vec![unkept];
        if !flags.is_empty() {
            bad.push(keyed("k", C));
        }
        for bad in bad {
            let mut publisher = Client::connect(&server);
            publisher.send(&bad);
            let error = publisher.text();
            assert_eq!(error_code(&error), "invalid-notification");
            assert!(error.contains("key"), "{error}");
            publisher.expect_close(1008);
            let mut http = Http::connect(&server);
            http.send(post(&format!("[{},{bad}]", message(C))));
            let (status, _, body) = http.receive();
            assert_eq!(
                (status, &error_code(&body)[..]),
                (400, "invalid-notification")
            );
        }
        publish(&server, MARKER);
        assert!(client.before_marker().is_empty());
    }
}

#[test]
fn arrays_have_keys_and_repeat_within_themselves() {
    let server = Server::start();
    let mut client = subscriber(&server, r#"["c","d","marker"]"#);
    let mut http = Http::connect(&server);
    let (one, two) = (keyed("1", C), keyed("2", D));
    http.send(post(&format!("[{one},{},{one},{two}]", message(C))));
    let (_, _, body) = http.receive();
    let (receipts, ids) = split_ids(&body);
    assert_eq!(
        receipts,
        r#"[{"delivered":1},{"delivered":1},{"delivered":1,"repeated":true},{"delivered":1}]"#
    );
    assert_eq!(ids[2], ids[0]);
    assert_eq!(ids[3], position(&server));
    // A publisher that got no answer tries again, and something else with it.
    http.send(post(&format!("[{one},{two},{}]", keyed("3", C))));
    let (_, _, body) = http.receive();
    let (receipts, again) = split_ids(&body);
    assert_eq!(
        receipts,
        r#"[{"delivered":1,"repeated":true},{"delivered":1,"repeated":true},{"delivered":1}]"#
    );
    assert_eq!(again[..2], [ids[0].clone(), ids[3].clone()]);
    publish(&server, MARKER);
    let expected = [delivery(C), delivery(C), delivery(D), delivery(C)];
    assert_eq!(client.before_marker(), expected);
}

#[test]
fn an_array_that_is_refused_leaves_no_key() {
    let server = Server::start();
    let mut http = Http::connect(&server);
    http.send(post(&format!("[{},{}]", keyed("k", C), message("{}"))));
    assert_eq!(http.receive().0, 400);
    http.send(post(&keyed("k", C)));
    http.expect(200, r#"{"delivered":0}"#);
}

#[test]
fn what_was_repeated_is_caught_up_with_once() {
    let server = Server::start();
    let start = position(&server);
    let (_, id) = split_id(&publish_whole(&server, &keyed("k", C)));
    publish_whole(&server, &keyed("k", C));
    let (mut client, _) = resume(&server, r#"["c"]"#, &start);
    client.expect_texts(&[numbered(&id, C), caught_up(&id, 1)]);
}

#[test]
fn a_key_is_forgotten_when_the_bytes_drop_its_notification() {
    let server = Server::with(&["--history-bytes", "100000"]);
    let (_, id) = split_id(&publish_whole(&server, &keyed("k", C)));
    let (_, late) = {
        filler(&server, 50_000);
        split_id(&publish_whole(&server, &keyed("late", C)))
    };
    assert_eq!(publish_whole(&server, &keyed("k", C)), repeated(0, &id));
    filler(&server, 60_000);
    let receipt = publish_whole(&server, &keyed("k", C));
    assert!(!receipt.contains("repeated"), "{receipt}");
    assert_ne!(split_id(&receipt).1, id);
    assert_eq!(
        publish_whole(&server, &keyed("late", C)),
        repeated(0, &late)
    );
}

#[test]
fn a_key_is_forgotten_when_its_notification_is_too_old() {
    let server = Server::with(&["--history-seconds", "0.2"]);
    let (_, id) = split_id(&publish_whole(&server, &keyed("k", C)));
    wait_until("the key is forgotten", || {
        let receipt = publish_whole(&server, &keyed("k", C));
        let is_forgotten = !receipt.contains("repeated");
        if is_forgotten {
            assert_ne!(split_id(&receipt).1, id);
        } else {
            assert_eq!(receipt, repeated(0, &id));
        }
        is_forgotten
    });
}

#[test]
fn many_keys_are_told_apart() {
    let server = Server::start();
    let mut publisher = Client::connect_with(&server, "/publish", &[]);
    let mut ids = Vec::new();
    for n in 0..2000 {
        publisher.send(&keyed(&format!("key {n}"), C));
        let (receipt, id) = split_id(&publisher.whole_text());
        assert_eq!(receipt, r#"{"type":"published","delivered":0}"#);
        check_id(&id);
        ids.push(id);
    }
    for (n, id) in ids.iter().enumerate() {
        publisher.send(&keyed(&format!("key {n}"), C));
        let expected = repeated(0, id).replacen('{', r#"{"type":"published","#, 1);
        assert_eq!(publisher.whole_text(), expected);
    }
}

#[test]
fn keys_are_in_no_log() {
    let server = Server::with(&["--log", "trace"]);
    publish_whole(&server, &keyed("confidential", C));
    let receipt = publish_whole(&server, &keyed("confidential", C));
    assert!(receipt.contains("repeated"), "{receipt}");
    server.wait_for_line("by its key");
    assert!(!server.log().contains("confidential"), "{}", server.log());
}
