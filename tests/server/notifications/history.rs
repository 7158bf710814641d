//! How far back the history reaches, and what a client is told that comes from further back.

use crate::helpers::http::figures;
use crate::helpers::numbered::{
    caught_up, list_since, narrow_client, not_resumed, numbered, numbered_subscriber, position,
    publish_all, publish_kept, resume, resumed, wait_for_figure, wait_until,
};
use crate::helpers::{Client, Received, Server, close_reason, delivery, publish, subscriber};

const C: &str = r#"{"channel":"c"}"#;
const D: &str = r#"{"channel":"d"}"#;

/// A notification of some 16 KB.
fn large(channel: &str, n: usize) -> String {
    let text = "x".repeat(16_000);
    format!(r#"{{"channel":"{channel}","n":{n},"text":"{text}"}}"#)
}

/// Waits until what was published up to now is too old.
fn wait_until_expired(server: &Server, since: &str) {
    let mut client = Client::connect(server);
    wait_until("the id expires", || {
        let answer = client.subscribe_since(r#"["nobody"]"#, since);
        if !answer.contains(r#""resumed":true"#) {
            return true;
        }
        assert!(client.whole_text().starts_with(r#"{"type":"caught-up","#));
        false
    });
}

fn figure(server: &Server, name: &str) -> f64 {
    let text = figures(server);
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok())
        .unwrap_or_else(|| panic!("no {name}: {text}"))
}

#[test]
fn an_id_that_is_too_old_is_expired() {
    let server = Server::with(&["--history-seconds", "0.3"]);
    let start = position(&server);
    let ids = publish_all(&server, &[C, C]);
    wait_until_expired(&server, &start);
    wait_until_expired(&server, &ids[0]);
    for since in [&start, &ids[0]] {
        let (mut client, answer) = resume(&server, r#"["c"]"#, since);
        assert_eq!(answer, not_resumed(1, &ids[1], "expired"));
        assert_eq!(client.before_pong(), (vec![], ids[1].clone()));
        client.leave();
    }
    // It gets what comes, and may come back to that.
    let (mut client, _) = resume(&server, r#"["c"]"#, &start);
    let id = publish_kept(&server, C);
    assert_eq!(client.whole_text(), numbered(&id, C));
    assert_eq!(resume(&server, r#"["c"]"#, &id).1, resumed(1, &id));
}

#[test]
fn the_newest_id_does_not_expire() {
    let server = Server::with(&["--history-seconds", "0.3"]);
    let start = position(&server);
    let id = publish_kept(&server, C);
    wait_until_expired(&server, &start);
    // Nor when the history has let go of what it is the id of.
    wait_for_figure(&server, "crieur_history_entries 0");
    let (mut client, answer) = resume(&server, r#"["c"]"#, &id);
    assert_eq!(answer, resumed(1, &id));
    assert_eq!(client.whole_text(), caught_up(&id, 0));
    let next = publish_kept(&server, C);
    assert_eq!(client.whole_text(), numbered(&next, C));
    // Behind it there is nothing too old now.
    let (mut client, answer) = resume(&server, r#"["c"]"#, &id);
    assert_eq!(answer, resumed(1, &id));
    client.expect_texts(&[numbered(&next, C), caught_up(&next, 1)]);
}

#[test]
fn the_first_position_does_not_expire_while_nothing_is_behind_it() {
    let server = Server::with(&["--history-seconds", "0.2"]);
    let start = position(&server);
    let other = Server::with(&["--history-seconds", "0.2"]);
    let elsewhere = position(&other);
    publish(&other, C);
    // By then what was published at the same time has expired.
    wait_until_expired(&other, &elsewhere);
    assert_eq!(resume(&server, r#"["c"]"#, &start).1, resumed(1, &start));
}

#[test]
fn a_pong_keeps_a_quiet_client_within_the_history() {
    let server = Server::with(&["--history-seconds", "0.3"]);
    let mut client = numbered_subscriber(&server, r#"["c"]"#);
    let start = position(&server);
    let id = publish_kept(&server, D);
    wait_until_expired(&server, &start);
    let (_, told) = client.before_pong();
    assert_eq!(told, id);
    assert_eq!(resume(&server, r#"["c"]"#, &told).1, resumed(1, &told));
}

#[test]
fn an_id_is_expired_when_the_bytes_have_dropped_what_is_behind_it() {
    let server = Server::with(&["--history-bytes", "200000"]);
    let start = position(&server);
    // With a numbered client there, entries are what replays need: nothing is added to them later.
    let mut there = numbered_subscriber(&server, "[]");
    let all: Vec<_> = (0..40).map(|n| large("c", n)).collect();
    let ids = publish_all(&server, &all);
    assert_eq!(there.before_pong(), (vec![], ids[39].clone()));
    assert!(figure(&server, "crieur_history_bytes") <= 200_000.0);
    let kept = figure(&server, "crieur_history_entries") as usize;
    assert!((5..=12).contains(&kept), "{kept}");
    let oldest = 40 - kept;
    for (at, since) in [&start].into_iter().chain(&ids).enumerate() {
        let (mut client, answer) = resume(&server, r#"["c"]"#, since);
        if at < oldest {
            assert_eq!(answer, not_resumed(1, &ids[39], "expired"), "{at}");
            continue;
        }
        assert_eq!(answer, resumed(1, since), "{at}");
        for n in at..40 {
            assert!(client.whole_text() == numbered(&ids[n], &all[n]), "{n}");
        }
        assert_eq!(client.whole_text(), caught_up(&ids[39], 40 - at));
    }
    let text = figures(&server);
    for line in [
        format!("crieur_resumes_total{{result=\"expired\"}} {oldest}"),
        format!("crieur_resumes_total{{result=\"resumed\"}} {}", kept + 1),
        format!("crieur_replayed_total {}", kept * (kept + 1) / 2),
        "crieur_replays_lost_total 0".to_owned(),
        "crieur_catching_up 0".to_owned(),
    ] {
        assert!(text.contains(&format!("\n{line}\n")), "{line}: {text}");
    }
}

#[test]
fn the_bytes_hold_for_both_encodings_together() {
    let server = Server::with(&["--history-bytes", "300000"]);
    let mut plain = subscriber(&server, r#"["c"]"#);
    let mut other = numbered_subscriber(&server, r#"["c"]"#);
    for n in 0..60 {
        let id = publish_kept(&server, &large("c", n));
        assert!(plain.whole_text() == delivery(&large("c", n)));
        assert!(other.whole_text() == numbered(&id, &large("c", n)));
        assert!(figure(&server, "crieur_history_bytes") <= 300_000.0);
    }
}

#[test]
fn what_is_larger_than_the_history_is_delivered_and_not_kept() {
    let server = Server::with(&["--history-bytes", "10000"]);
    let start = position(&server);
    let mut plain = subscriber(&server, r#"["c"]"#);
    let mut client = numbered_subscriber(&server, r#"["c"]"#);
    let id = publish_kept(&server, &large("c", 0));
    assert!(client.whole_text() == numbered(&id, &large("c", 0)));
    assert!(plain.whole_text() == delivery(&large("c", 0)));
    let answer = resume(&server, r#"["c"]"#, &start).1;
    assert_eq!(answer, not_resumed(1, &id, "expired"));
    assert_eq!(resume(&server, r#"["c"]"#, &id).1, resumed(1, &id));
    assert_eq!(position(&server), id);
}

#[test]
fn without_a_history_every_resume_is_expired_and_all_else_is_as_before() {
    for flags in [["--history-bytes", "0"], ["--history-seconds", "0"]] {
        let server = Server::with(&flags);
        let start = position(&server);
        let mut plain = subscriber(&server, r#"["c"]"#);
        let mut client = numbered_subscriber(&server, r#"["c"]"#);
        let id = publish_kept(&server, C);
        assert_ne!(id, start);
        assert_eq!(plain.whole_text(), delivery(C));
        assert_eq!(client.whole_text(), numbered(&id, C));
        assert_eq!(client.before_pong(), (vec![], id.clone()));
        assert_eq!(position(&server), id);
        for since in [&start, &id, "nonsense"] {
            let (mut client, answer) = resume(&server, r#"["c"]"#, since);
            assert_eq!(answer, not_resumed(1, &position(&server), "expired"));
            let next = publish_kept(&server, C);
            assert_eq!(client.whole_text(), numbered(&next, C));
        }
        assert_eq!(figure(&server, "crieur_history_entries"), 0.0);
        assert_eq!(figure(&server, "crieur_history_bytes"), 0.0);
    }
}

/// More than sockets take, published so soon that none is too old before a client has asked for them.
fn three_large() -> Vec<String> {
    let text = "x".repeat(900_000);
    let notification = |n| format!(r#"{{"channel":"c","n":{n},"text":"{text}"}}"#);
    (0..3).map(notification).collect()
}

/// A client that is being caught up with `list` and doesn't read yet.
fn stuck(server: &Server, list: &str, since: &str) -> Client {
    let mut client = narrow_client(server);
    client.send(&list_since(list, since));
    wait_for_figure(server, "crieur_catching_up 1");
    client
}

#[test]
fn what_a_client_was_promised_does_not_grow_too_old_for_it() {
    let server = Server::with(&["--history-seconds", "2"]);
    let start = position(&server);
    let all = three_large();
    let ids = publish_all(&server, &all);
    let mut client = stuck(&server, r#"["c"]"#, &start);
    wait_until_expired(&server, &start);
    // The history had the time to let go of them.
    wait_until("they are old", || {
        figure(&server, "crieur_history_oldest_seconds") > 5.0
    });
    assert_eq!(client.whole_text(), resumed(1, &start));
    for (id, notification) in ids.iter().zip(&all) {
        assert!(client.whole_text() == numbered(id, notification), "{id}");
    }
    assert_eq!(client.whole_text(), caught_up(&ids[2], 3));
    // Nobody lacks them now.
    wait_for_figure(&server, "crieur_history_entries 0");
}

#[test]
fn a_client_is_closed_when_the_bytes_have_dropped_what_it_was_promised() {
    let server = Server::with(&["--history-bytes", "4000000", "--close-timeout", "30"]);
    let start = position(&server);
    let all: Vec<_> = (0..600).map(|n| large("c", n)).collect();
    let ids = publish_all(&server, &all[..200]);
    let mut client = stuck(&server, r#"["c"]"#, &start);
    publish_all(&server, &all[200..]);
    // What it gets has no gap, and it isn't told that it was caught up.
    assert_eq!(client.whole_text(), resumed(1, &start));
    let mut count = 0;
    let reason = loop {
        match client.receive() {
            Received::Text(text) => assert!(text == numbered(&ids[count], &all[count]), "{count}"),
            Received::Close(1013, reason) => break reason,
            other => panic!("{other:?}"),
        }
        count += 1;
    };
    assert_eq!(close_reason(&reason).0, "slow-consumer");
    client.answer_close(1013);
    wait_for_figure(&server, "crieur_replays_lost_total 1");
    wait_for_figure(&server, "crieur_catching_up 0");
    server.wait_for_line("the history doesn't reach back to it any more");
}

#[test]
fn a_client_that_is_gone_needs_nothing_of_the_history() {
    let server = Server::with(&["--history-seconds", "2"]);
    let start = position(&server);
    publish_all(&server, &three_large());
    let client = stuck(&server, r#"["c"]"#, &start);
    drop(client);
    wait_for_figure(&server, "crieur_catching_up 0");
    wait_for_figure(&server, "crieur_history_entries 0");
}
