//! Resuming: what a client that shows an id is told, and that it gets what it has missed: all of it, in order,
//! each once.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::helpers::http::{Http, post};
use crate::helpers::numbered::{
    caught_up, id_of, list_since, not_resumed, numbered, numbered_subscriber, position,
    publish_all, publish_kept, resume, resumed,
};
use crate::helpers::receipts::split_ids;
use crate::helpers::{Client, Server, delivery, error_code, message, publish, subscriber};

const C: &str = r#"{"channel":"c"}"#;
const D: &str = r#"{"channel":"d"}"#;

fn on_channel(channel: &str, n: usize) -> String {
    format!(r#"{{"channel":"{channel}","n":{n}}}"#)
}

/// What a client reads up to the end of its replay, that included.
fn replay(client: &mut Client) -> Vec<String> {
    let mut texts = Vec::new();
    loop {
        texts.push(client.whole_text());
        let last = texts.last().expect("just read");
        if last.starts_with(r#"{"type":"caught-up","#) {
            return texts;
        }
    }
}

#[test]
fn a_client_gets_what_it_has_missed_and_then_what_comes() {
    let server = Server::start();
    let mut client = numbered_subscriber(&server, r#"["c"]"#);
    let seen = publish_kept(&server, &on_channel("c", 0));
    assert_eq!(client.whole_text(), numbered(&seen, &on_channel("c", 0)));
    client.leave();
    let missed = publish_all(&server, &[1, 2, 3].map(|n| on_channel("c", n)));
    let (mut client, answer) = resume(&server, r#"["c"]"#, &seen);
    assert_eq!(answer, resumed(1, &seen));
    for (n, id) in (1..).zip(&missed) {
        assert_eq!(client.whole_text(), numbered(id, &on_channel("c", n)));
    }
    assert_eq!(client.whole_text(), caught_up(&missed[2], 3));
    let next = publish_kept(&server, &on_channel("c", 4));
    assert_eq!(client.whole_text(), numbered(&next, &on_channel("c", 4)));
}

#[test]
fn what_is_caught_up_with_is_what_the_list_matches() {
    let server = Server::start();
    let start = position(&server);
    let (c, d) = (publish_kept(&server, C), publish_kept(&server, D));
    let e = publish_kept(&server, r#"{"channel":"e"}"#);
    for (list, count, expected) in [
        ("[]", 0, vec![]),
        (r#"["c"]"#, 1, vec![numbered(&c, C)]),
        (r#"["d"]"#, 1, vec![numbered(&d, D)]),
        // Once, however many match.
        (
            r#"["d","c","d"]"#,
            3,
            vec![numbered(&c, C), numbered(&d, D)],
        ),
        (r#"["nobody"]"#, 1, vec![]),
    ] {
        let (mut client, answer) = resume(&server, list, &start);
        assert_eq!(answer, resumed(count, &start));
        let missed = expected.len();
        assert_eq!(
            replay(&mut client),
            [&expected[..], &[caught_up(&e, missed)]].concat()
        );
    }
}

#[test]
fn the_types_and_bytes_of_what_was_missed_are_the_publishers() {
    let server = Server::start();
    let start = position(&server);
    let notification =
        "{ \"channel\" :\t\"c\" ,\n\r \"n\":[1.0,-0,1E+2,9007199254740993],\"n\":null}";
    let mut expected = Vec::new();
    for kind in [r#""notification""#, r#""a\u0062\"c""#, r#""""#, r#""ping""#] {
        let message =
            format!(r#"{{"sender":"server","type":{kind},"notification":{notification}}}"#);
        let mut http = Http::connect(&server);
        http.send(post(&message));
        let (_, ids) = split_ids(&http.receive().2);
        expected.push(format!(
            r#"{{"type":{kind},"id":"{}","notification":{notification}}}"#,
            ids[0]
        ));
    }
    expected.push(caught_up(&position(&server), 4));
    // Whether or not somebody was there who wanted them, numbered or not.
    assert_eq!(replay(&mut resume(&server, r#"["c"]"#, &start).0), expected);
    assert_eq!(replay(&mut resume(&server, r#"["c"]"#, &start).0), expected);
}

/// A subscription and a notification of the contract, as they are written.
#[derive(Deserialize)]
struct Case<'a> {
    case: String,
    #[serde(borrow)]
    subscription: &'a RawValue,
    #[serde(borrow)]
    notification: &'a RawValue,
}

#[test]
fn a_replay_has_what_was_delivered_to_those_who_were_there() {
    let cases: Vec<Case<'_>> = serde_json::from_str(include_str!("../../data/matching-cases.json"))
        .expect("the data is valid");
    let server = Server::start();
    let start = position(&server);
    let list = |case: &Case<'_>| format!("[{}]", case.subscription);
    let mut there: Vec<_> = cases
        .iter()
        .map(|case| numbered_subscriber(&server, &list(case)))
        .collect();
    let all: Vec<_> = cases.iter().map(|case| case.notification.get()).collect();
    let ids = publish_all(&server, &all);
    let head = ids.last().expect("there are some");
    let mut matched = 0;
    for (case, there) in cases.iter().zip(&mut there) {
        let (mut expected, id) = there.before_pong();
        assert_eq!(id, *head);
        matched += expected.len();
        expected.push(caught_up(head, expected.len()));
        let (mut client, _) = resume(&server, &list(case), &start);
        assert_eq!(replay(&mut client), expected, "{}", case.case);
    }
    assert!(matched > cases.len() / 2);
    // All of them in one list, which has to be short enough.
    let lists: Vec<_> = cases.iter().map(|case| case.subscription.get()).collect();
    for lists in lists.chunks(100) {
        let list = format!("[{}]", lists.join(","));
        let mut there = numbered_subscriber(&server, &list);
        let start = position(&server);
        publish_all(&server, &all);
        let (mut expected, id) = there.before_pong();
        expected.push(caught_up(&id, expected.len()));
        assert_eq!(replay(&mut resume(&server, &list, &start).0), expected);
    }
}

#[test]
fn every_id_leads_to_what_is_behind_it() {
    let server = Server::start();
    let start = position(&server);
    let all: Vec<_> = (0..20).map(|n| on_channel(["c", "d"][n % 2], n)).collect();
    let mut ids = vec![start];
    ids.extend(publish_all(&server, &all));
    for (at, since) in ids.iter().enumerate() {
        let (mut client, answer) = resume(&server, r#"["c"]"#, since);
        assert_eq!(answer, resumed(1, since));
        let behind = (at..20).filter(|n| n % 2 == 0);
        let mut expected: Vec<_> = behind.map(|n| numbered(&ids[n + 1], &all[n])).collect();
        expected.push(caught_up(&ids[20], expected.len()));
        assert_eq!(replay(&mut client), expected, "{at}");
    }
}

#[test]
fn an_id_of_an_answer_is_as_good_as_one_of_a_notification() {
    let server = Server::start();
    publish(&server, D);
    let mut client = Client::connect(&server);
    let subscribed = id_of(&client.subscribe_since("[]", ""));
    publish(&server, D);
    let (_, pong) = client.before_pong();
    publish(&server, D);
    let told = id_of(&client.subscribe_since("[]", &pong));
    assert_eq!(told, pong);
    let caught_up_at = id_of(&client.whole_text());
    let refused = id_of(&client.subscribe_since("[]", "nonsense"));
    assert_eq!(refused, caught_up_at);
    let asked = position(&server);
    assert_eq!(asked, caught_up_at);
    let id = publish_kept(&server, C);
    for (since, missed_before) in [(subscribed, 2), (pong, 1), (caught_up_at, 0)] {
        let (mut client, answer) = resume(&server, r#"["c","d"]"#, &since);
        assert_eq!(answer, resumed(2, &since));
        let texts = replay(&mut client);
        assert_eq!(texts.len(), missed_before + 2);
        assert_eq!(texts[missed_before], numbered(&id, C));
        assert_eq!(texts[missed_before + 1], caught_up(&id, missed_before + 1));
    }
}

#[test]
fn an_id_that_is_shown_again_is_shown_for_what_is_behind_it() {
    let server = Server::start();
    let start = position(&server);
    let ids = publish_all(&server, &[C, C]);
    let mut client = Client::connect(&server);
    for _ in 0..3 {
        let answer = client.subscribe_since(r#"["c"]"#, &start);
        assert_eq!(answer, resumed(1, &start));
        client.expect_texts(&[numbered(&ids[0], C), numbered(&ids[1], C)]);
        assert_eq!(client.whole_text(), caught_up(&ids[1], 2));
        // At once again, by the id that it was told.
        let answer = client.subscribe_since(r#"["c"]"#, &ids[1]);
        assert_eq!(answer, resumed(1, &ids[1]));
        assert_eq!(client.whole_text(), caught_up(&ids[1], 0));
    }
    let id = publish_kept(&server, C);
    assert_eq!(client.whole_text(), numbered(&id, C));
}

#[test]
fn a_list_with_an_id_is_caught_up_whole() {
    let server = Server::start();
    let mut client = numbered_subscriber(&server, r#"["c"]"#);
    let start = position(&server);
    let (c, d) = (publish_kept(&server, C), publish_kept(&server, D));
    assert_eq!(client.whole_text(), numbered(&c, C));
    // It had the first already; the id tells.
    let answer = client.subscribe_since(r#"["d","c"]"#, &start);
    assert_eq!(answer, resumed(2, &start));
    client.expect_texts(&[numbered(&c, C), numbered(&d, D)]);
    assert_eq!(client.whole_text(), caught_up(&d, 2));
}

#[test]
fn an_id_of_another_history_is_unknown() {
    let server = Server::start();
    let ids = publish_all(&server, &[C; 3]);
    let now = &ids[2];
    let foreign = Server::start();
    let (start, other) = (position(&foreign), publish_kept(&foreign, C));
    let (generation, number) = now.split_once('-').expect("two parts");
    let number: u64 = number.parse().expect("a number");
    for unknown in [
        start,
        other,
        format!("{generation}-{}", number + 1),
        format!("{generation}-{}", u64::MAX),
        format!("{generation}-{}0", u64::MAX),
        format!("{generation}-0{number}"),
        format!("{generation}-+{number}"),
        format!("{generation}-{number} "),
        format!(" {now}"),
        format!("{generation}--1"),
        format!("{generation}-"),
        generation.to_owned(),
        generation.to_uppercase() + "-x",
        "-".to_owned(),
        "0".to_owned(),
        number.to_string(),
        "null".to_owned(),
        "é".to_owned(),
        r"\u0000".to_owned(),
        r#"\",\"resumed\":true"#.to_owned(),
        "x".repeat(60_000),
    ] {
        let (mut client, answer) = resume(&server, r#"["c"]"#, &unknown);
        assert!(
            answer == not_resumed(1, now, "unknown"),
            "{unknown}: {answer}"
        );
        // Neither caught up nor told that it was, and live from now on.
        let (texts, id) = client.before_pong();
        assert_eq!((texts, &id), (vec![], now));
    }
    let mut client = resume(&server, r#"["c"]"#, "nonsense").0;
    let id = publish_kept(&server, C);
    assert_eq!(client.whole_text(), numbered(&id, C));
}

#[test]
fn a_refused_list_with_an_id_changes_nothing() {
    let server = Server::with(&["--max-subscriptions", "2"]);
    let start = position(&server);
    publish(&server, C);
    let mut client = subscriber(&server, r#"["c"]"#);
    client.send(&list_since(r#"["a","b","c"]"#, &start));
    assert_eq!(error_code(&client.whole_text()), "too-many-subscriptions");
    publish(&server, C);
    assert_eq!(client.whole_text(), delivery(C));
    client.send(r#"{"type":"ping"}"#);
    assert_eq!(client.whole_text(), r#"{"type":"pong"}"#);
}

#[test]
fn an_array_is_published_and_caught_up_with_whole() {
    let server = Server::start();
    let start = position(&server);
    let mut http = Http::connect(&server);
    let parts: Vec<_> = (0..50).map(|n| message(&on_channel("c", n))).collect();
    http.send(post(&format!("[{}]", parts.join(","))));
    let (_, ids) = split_ids(&http.receive().2);
    // One that is bad takes all with it, and moves nothing.
    http.send(post(&format!("[{},{}]", message(C), message("{}"))));
    assert_eq!(http.receive().0, 400);
    assert_eq!(position(&server), ids[49]);
    let (mut client, _) = resume(&server, r#"["c"]"#, &start);
    let mut expected: Vec<_> = (0..50)
        .map(|n| numbered(&ids[n], &on_channel("c", n)))
        .collect();
    expected.push(caught_up(&ids[49], 50));
    assert_eq!(replay(&mut client), expected);
}

#[test]
fn a_client_that_comes_back_again_and_again_misses_nothing() {
    const COUNT: usize = 3000;
    let server = Server::start();
    let start = position(&server);
    let all: Vec<_> = (0..COUNT)
        .map(|n| on_channel(["c", "d", "e"][n % 3], n))
        .collect();
    let list = r#"["c","d"]"#;
    let (ids, seen) = std::thread::scope(|scope| {
        let published = scope.spawn(|| publish_all(&server, &all));
        let (mut last, mut seen) = (start, Vec::new());
        let is_last = |text: &str| text.contains(&format!(r#""n":{}}}"#, COUNT - 2));
        for visit in 0.. {
            let (mut client, answer) = resume(&server, list, &last);
            assert_eq!(answer, resumed(2, &last));
            // It is cut off somewhere in the replay, or behind it.
            for _ in 0..=visit % 40 {
                let text = client.whole_text();
                last = id_of(&text);
                if !text.starts_with(r#"{"type":"caught-up","#) {
                    seen.push(text);
                }
                if seen.last().is_some_and(|text| is_last(text)) {
                    return (published.join().expect("they are published"), seen);
                }
            }
        }
        unreachable!("it comes back for ever");
    });
    let for_it = (0..COUNT - 1).filter(|n| n % 3 != 2);
    let expected: Vec<_> = for_it.map(|n| numbered(&ids[n], &all[n])).collect();
    assert_eq!(seen, expected);
}

#[test]
fn all_who_come_back_at_once_get_what_they_have_missed() {
    let server = Server::start();
    let start = position(&server);
    let all: Vec<_> = (0..1000)
        .map(|n| on_channel(&(n % 10).to_string(), n))
        .collect();
    let ids = publish_all(&server, &all);
    let mut clients: Vec<_> = (0..200).map(|_| Client::connect(&server)).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(&list_since(&format!(r#"["{}"]"#, number % 10), &start));
    }
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.whole_text(), resumed(1, &start));
        for n in (number % 10..1000).step_by(10) {
            assert_eq!(client.whole_text(), numbered(&ids[n], &all[n]));
        }
        assert_eq!(client.whole_text(), caught_up(&ids[999], 100));
    }
    assert_eq!(
        publish(&server, r#"{"channel":"3"}"#),
        r#"{"delivered":20}"#
    );
}

#[test]
fn a_notification_of_many_values_is_found_by_each() {
    let server = Server::start();
    let start = position(&server);
    let names: Vec<_> = (0..30)
        .map(|name| format!(r#""n{name}":["{name}-a","{name}-b"]"#))
        .collect();
    let values = names.join(",");
    let many = format!(
        r#"{{"channel":"c","package":"p","page":"q","filters":{{"values":{{{values}}}}}}}"#
    );
    let id = publish_kept(&server, &many);
    let found = [numbered(&id, &many), caught_up(&id, 1)];
    let nothing = [caught_up(&id, 0)];
    for name in 0..30 {
        for (values, expected) in [
            (format!(r#"{{"n{name}":true}}"#), &found[..]),
            (format!(r#"{{"n{name}":"{name}-b"}}"#), &found),
            (
                format!(
                    r#"{{"n{name}":["{name}-a","x"],"n{}":true}}"#,
                    (name + 1) % 30
                ),
                &found,
            ),
            (format!(r#"["{name}-a"]"#), &found),
            (format!(r#"{{"n{name}":"{name}"}}"#), &nothing),
            (format!(r#"{{"n{name}":true,"other":true}}"#), &nothing),
            (format!(r#"{{"m{name}":"{name}-a"}}"#), &nothing),
        ] {
            let list = format!(r#"[{{"package":"p","page":"q","filters":{{"values":{values}}}}}]"#);
            let (mut client, _) = resume(&server, &list, &start);
            assert_eq!(replay(&mut client), expected, "{values}");
        }
    }
    assert_eq!(replay(&mut resume(&server, r#"["c"]"#, &start).0), found);
}

#[test]
fn a_connection_in_the_place_of_a_numbered_one_is_plain() {
    let server = Server::start();
    for _ in 0..20 {
        numbered_subscriber(&server, r#"["c"]"#).leave();
        let mut plain = subscriber(&server, r#"["c"]"#);
        publish(&server, C);
        assert_eq!(plain.whole_text(), delivery(C));
        plain.leave();
    }
}
