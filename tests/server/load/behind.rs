//! Clients that are behind by more than their queue: while the history holds what they lack they get it, and
//! when it doesn't they are closed.

use crate::helpers::http::figures;
use crate::helpers::numbered::{
    caught_up, list_since, narrow_client, numbered, position, publish_all, publish_whole, resumed,
    wait_for_figure, wait_until,
};
use crate::helpers::{Client, Received, Server, close_reason, delivery, message};

/// So small a queue that four notifications don't fit.
const QUEUE: [&str; 2] = ["--send-queue-bytes", "65536"];

/// A notification of some 16 KB.
fn notification(n: usize) -> String {
    let text = char::from(b'a' + (n % 26) as u8).to_string();
    format!(
        r#"{{"channel":"c","n":{n},"text":"{}"}}"#,
        text.repeat(16_000)
    )
}

fn plain(server: &Server) -> Client {
    let mut client = narrow_client(server);
    client.subscribe(r#"["c"]"#);
    client
}

fn numbering(server: &Server) -> Client {
    let mut client = narrow_client(server);
    client.send(&list_since(r#"["c"]"#, ""));
    client.whole_text();
    client
}

/// Publishes so many; each is queued to `clients`.
fn publish(server: &Server, numbers: std::ops::Range<usize>, clients: usize) -> Vec<String> {
    let mut publisher = Client::connect_with(server, "/publish", &[]);
    let receipt = format!(r#"{{"type":"published","delivered":{clients}}}"#);
    numbers
        .map(|n| {
            publisher.send(&message(&notification(n)));
            let answer = publisher.whole_text();
            let (without, id) = crate::helpers::receipts::split_id(&answer);
            assert_eq!(without, receipt, "{n}");
            id
        })
        .collect()
}

/// Reads what `expected` says of each number, then the Close 1013; says how many there were.
fn read_until_closed(client: &mut Client, expected: impl Fn(usize) -> String) -> usize {
    let mut count = 0;
    loop {
        match client.receive() {
            Received::Text(text) => assert!(text == expected(count), "{count}: {text:.100}"),
            Received::Close(1013, reason) => {
                assert_eq!(close_reason(&reason).0, "slow-consumer");
                client.answer_close(1013);
                return count;
            }
            other => panic!("{other:?}"),
        }
        count += 1;
    }
}

#[test]
fn a_client_that_reads_late_gets_twenty_megabytes_through_a_small_queue() {
    const COUNT: usize = 1250;
    // Both encodings are kept.
    let flags = [&QUEUE[..], &["--history-bytes", "67108864"]].concat();
    let server = Server::with(&flags);
    let (mut first, mut second) = (plain(&server), numbering(&server));
    let ids = publish(&server, 0..COUNT, 2);
    for n in 0..COUNT {
        assert!(first.whole_text() == delivery(&notification(n)), "{n}");
    }
    for (n, id) in ids.iter().enumerate() {
        assert!(second.whole_text() == numbered(id, &notification(n)), "{n}");
    }
    // They are as good as others again.
    let ids = publish(&server, COUNT..COUNT + 10, 2);
    for (n, id) in (COUNT..).zip(&ids) {
        assert!(first.whole_text() == delivery(&notification(n)));
        assert!(second.whole_text() == numbered(id, &notification(n)));
    }
    wait_for_figure(&server, "crieur_slow_consumers_total 0");
}

#[test]
fn one_kind_of_client_alone_gets_twenty_megabytes_within_the_default_history() {
    const COUNT: usize = 1250;
    for is_numbered in [false, true] {
        let server = Server::with(&QUEUE);
        let mut client = match is_numbered {
            true => numbering(&server),
            false => plain(&server),
        };
        let ids = publish(&server, 0..COUNT, 1);
        for (n, id) in ids.iter().enumerate() {
            let expected = match is_numbered {
                true => numbered(id, &notification(n)),
                false => delivery(&notification(n)),
            };
            assert!(client.whole_text() == expected, "{n}");
        }
    }
}

#[test]
fn a_client_is_closed_when_the_bytes_have_dropped_what_it_lacks() {
    let flags = [&QUEUE[..], &["--history-bytes", "2000000"]].concat();
    let server = Server::with(&[&flags[..], &["--close-timeout", "30"]].concat());
    let (mut first, mut second) = (plain(&server), numbering(&server));
    let all: Vec<_> = (0..800).map(notification).collect();
    let ids = publish_all(&server, &all);
    wait_for_figure(&server, "crieur_slow_consumers_total 2");
    let count = read_until_closed(&mut first, |n| delivery(&all[n]));
    assert!(count < 800, "{count}");
    let count = read_until_closed(&mut second, |n| numbered(&ids[n], &all[n]));
    assert!(count < 800, "{count}");
    // Nobody is there any more.
    let receipt = publish_whole(&server, &message(&notification(0)));
    assert!(receipt.starts_with(r#"{"delivered":0,"id":"#), "{receipt}");
}

#[test]
fn a_client_is_closed_when_what_it_lacks_has_grown_too_old() {
    let flags = [&QUEUE[..], &["--history-seconds", "1"]].concat();
    let server = Server::with(&[&flags[..], &["--close-timeout", "30"]].concat());
    let (mut first, mut second) = (plain(&server), numbering(&server));
    let all: Vec<_> = (0..300).map(notification).collect();
    let ids = publish_all(&server, &all);
    // Nobody does anything meanwhile.
    wait_for_figure(&server, "crieur_slow_consumers_total 2");
    let count = read_until_closed(&mut first, |n| delivery(&all[n]));
    assert!(count < 300, "{count}");
    let count = read_until_closed(&mut second, |n| numbered(&ids[n], &all[n]));
    assert!(count < 300, "{count}");
}

#[test]
fn what_fits_into_a_queue_stays_when_the_history_has_dropped_it() {
    let server = Server::with(&["--history-seconds", "0.2", "--send-queue-bytes", "16000000"]);
    let mut client = plain(&server);
    let ids = publish(&server, 0..300, 1);
    assert_eq!(ids.len(), 300);
    wait_for_figure(&server, "crieur_history_entries 0");
    for n in 0..300 {
        assert!(client.whole_text() == delivery(&notification(n)), "{n}");
    }
}

#[test]
fn what_is_not_kept_overflows_a_queue_as_before() {
    let server = Server::with(&[&QUEUE[..], &["--close-timeout", "30"]].concat());
    let (mut first, mut second) = (plain(&server), numbering(&server));
    let mut publisher = Client::connect_with(&server, "/publish", &[]);
    let unkept = |n: usize| {
        format!(
            r#"{{"sender":"server","keep":false,"notification":{}}}"#,
            notification(n)
        )
    };
    let mut dropped = 0;
    let mut number = 0;
    while dropped < 2 {
        assert!(number < 1000, "nothing backs up");
        publisher.send(&unkept(number));
        let answer: serde_json::Value =
            serde_json::from_str(&publisher.whole_text()).expect("JSON");
        assert_eq!(answer.get("id"), None);
        dropped += answer["dropped"].as_u64().unwrap_or_default();
        number += 1;
    }
    assert_eq!(dropped, 2);
    assert!(read_until_closed(&mut first, |n| delivery(&notification(n))) < number);
    assert!(read_until_closed(&mut second, |n| delivery(&notification(n))) < number);
}

#[test]
fn without_a_history_a_queue_overflows_as_before() {
    for flag in ["--history-bytes", "--history-seconds"] {
        let flags = [&QUEUE[..], &[flag, "0", "--close-timeout", "30"]].concat();
        let server = Server::with(&flags);
        let mut client = plain(&server);
        let mut publisher = Client::connect_with(&server, "/publish", &[]);
        let mut number = 0;
        loop {
            assert!(number < 1000, "nothing backs up");
            publisher.send(&message(&notification(number)));
            number += 1;
            match publisher.text().as_str() {
                r#"{"type":"published","delivered":1}"# => {}
                r#"{"type":"published","delivered":0,"dropped":1}"# => break,
                other => panic!("{other}"),
            }
        }
        assert!(read_until_closed(&mut client, |n| delivery(&notification(n))) < number);
    }
}

#[test]
fn what_the_history_holds_does_not_count_towards_the_buffers_of_all() {
    // Twenty of them are behind by 10 MB each.
    let flags = ["--buffer-bytes", "1048576", "--send-queue-bytes", "65536"];
    let server = Server::with(&flags);
    let mut clients: Vec<_> = (0..20).map(|_| plain(&server)).collect();
    publish(&server, 0..600, 20);
    wait_for_figure(&server, "crieur_slow_consumers_total 0");
    for client in &mut clients {
        for n in 0..600 {
            assert!(client.whole_text() == delivery(&notification(n)), "{n}");
        }
    }
}

#[test]
fn a_replay_of_what_others_are_behind_with_is_not_cut_off() {
    const COUNT: usize = 240;
    // There is hardly room for the encoding that the second client needs, and the first one holds the other.
    let flags = [&QUEUE[..], &["--history-bytes", "4000000"]].concat();
    let server = Server::with(&flags);
    let start = position(&server);
    let mut first = plain(&server);
    let ids = publish(&server, 0..COUNT, 1);
    let mut second = narrow_client(&server);
    second.send(&list_since(r#"["c"]"#, &start));
    assert_eq!(second.whole_text(), resumed(1, &start));
    let mut expected = (0..)
        .zip(&ids)
        .map(|(n, id)| numbered(id, &notification(n)));
    for text in expected.by_ref().take(COUNT / 2) {
        assert!(second.whole_text() == text, "{text:.100}");
    }
    // It rests until nothing more is queued to it.
    wait_for_figure(&server, "crieur_catching_up 1");
    for text in expected {
        assert!(second.whole_text() == text, "{text:.100}");
    }
    assert_eq!(second.whole_text(), caught_up(&ids[COUNT - 1], COUNT));
    for n in 0..COUNT {
        assert!(first.whole_text() == delivery(&notification(n)), "{n}");
    }
    wait_for_figure(&server, "crieur_slow_consumers_total 0");
}

/// More than sockets take, and much more than the queue has room for.
fn large() -> String {
    format!(r#"{{"channel":"c","text":"{}"}}"#, "x".repeat(900_000))
}

#[test]
fn an_empty_queue_takes_what_is_larger_than_it() {
    let keep = r#"{"sender":"server","keep":false,"notification":"#;
    for (flags, begin) in [
        (
            &["--history-bytes", "0"][..],
            r#"{"sender":"server","notification":"#,
        ),
        (
            &["--history-bytes", "10000"],
            r#"{"sender":"server","notification":"#,
        ),
        (&[], r#"{"sender":"server","notification":"#),
        (&[], keep),
    ] {
        let server = Server::with(&[&QUEUE[..], flags].concat());
        let mut clients = [plain(&server), numbering(&server)];
        let receipt = publish_whole(&server, &format!("{begin}{}}}", large()));
        assert!(receipt.starts_with(r#"{"delivered":2"#), "{receipt}");
        // The server has the time to look at it again.
        for _ in 0..20 {
            publish_whole(&server, &message(r#"{"channel":"nobody"}"#));
        }
        for client in &mut clients {
            let text = client.whole_text();
            assert!(
                text.ends_with(&format!(r#""notification":{}}}"#, large())),
                "{text:.100}"
            );
        }
        let text = figures(&server);
        let none = "\ncrieur_slow_consumers_total 0\n";
        assert!(text.contains(none), "{flags:?} {begin}");
    }
}

#[test]
fn what_a_small_queue_has_of_a_replay_does_not_grow_too_old() {
    const COUNT: usize = 40;
    let flags = [&QUEUE[..], &["--history-seconds", "2"]].concat();
    let server = Server::with(&flags);
    let start = position(&server);
    let all: Vec<_> = (0..COUNT).map(notification).collect();
    let ids = publish_all(&server, &all);
    let mut client = narrow_client(&server);
    client.send(&list_since(r#"["c"]"#, &start));
    wait_for_figure(&server, "crieur_catching_up 1");
    wait_until("they are old", || {
        let text = figures(&server);
        let age = text
            .lines()
            .find_map(|line| line.strip_prefix("crieur_history_oldest_seconds "));
        age.is_some_and(|age| age.parse::<f64>().is_ok_and(|age| age > 5.0))
    });
    assert_eq!(client.whole_text(), resumed(1, &start));
    for (id, notification) in ids.iter().zip(&all) {
        assert!(client.whole_text() == numbered(id, notification), "{id}");
    }
    assert_eq!(client.whole_text(), caught_up(&ids[COUNT - 1], COUNT));
}
