//! Publishing: by every way and at every node it reaches the clients of all nodes, once, with one id.

use crate::helpers::http::{Http, post};
use crate::helpers::numbered::{
    numbered, numbered_subscriber, position, publish_all, publish_kept, publish_whole, resume,
    resumed, wait_until,
};
use crate::helpers::receipts::{split_id, split_ids};
use crate::helpers::redis::{Redis, Reply, STREAM, tag};
use crate::helpers::{
    Client, MARKER, Server, delivery, error_code, message, publish, publish_message, subscriber,
};

use super::{C, D, expect_deliveries, figure, keyed, on_channel, publisher};

/// The receipt of what was published before.
fn repeated(delivered: usize, id: &str) -> String {
    format!(r#"{{"delivered":{delivered},"id":"{id}","repeated":true}}"#)
}

/// Posts `body` and returns the answer to it, which must be good.
fn posted(server: &Server, body: &str) -> String {
    let mut http = Http::connect(server);
    http.send(post(body));
    let (status, _, text) = http.receive();
    assert_eq!(status, 200, "{text}");
    text
}

#[test]
fn every_way_reaches_the_clients_of_all_nodes() {
    let Some(redis) = Redis::start() else { return };
    let nodes = redis.nodes(&[]);
    let mut clients: Vec<_> = nodes
        .iter()
        .map(|node| subscriber(node, r#"["c"]"#))
        .collect();
    let mut numbered_clients: Vec<_> = nodes
        .iter()
        .map(|node| numbered_subscriber(node, r#"["c"]"#))
        .collect();
    let mut expected = Vec::new();
    for node in &nodes {
        let notification = |way: usize| on_channel("c", expected.len() + way);
        let [ephemeral, kept, http] = [0, 1, 2].map(notification);
        let (receipt, first) = split_id(&publish_whole(node, &message(&ephemeral)));
        // Each node has two of the four.
        assert_eq!(receipt, r#"{"delivered":2}"#);
        let mut lane = publisher(node);
        lane.send(&message(&kept));
        let (receipt, second) = split_id(&lane.whole_text());
        assert_eq!(receipt, r#"{"type":"published","delivered":2}"#);
        let (receipt, third) = split_id(&posted(node, &message(&http)));
        assert_eq!(receipt, r#"{"delivered":2}"#);
        expected.extend([(first, ephemeral), (second, kept), (third, http)]);
    }
    let outside = on_channel("c", expected.len());
    let id = redis.xadd(&format!(r#"{{"notification":{outside}}}"#));
    expected.push((redis.wire_id(&id), outside));
    for (id, notification) in &expected {
        for client in &mut clients {
            assert_eq!(client.whole_text(), delivery(notification));
        }
        for client in &mut numbered_clients {
            assert_eq!(client.whole_text(), numbered(id, notification));
        }
    }
}

#[test]
fn a_receipt_counts_the_clients_of_its_node() {
    let Some(redis) = Redis::start() else { return };
    let nodes = redis.nodes(&[]);
    let idle = redis.node(&[]);
    let _three: Vec<_> = (0..3).map(|_| subscriber(&nodes[0], r#"["c"]"#)).collect();
    let _one = subscriber(&nodes[1], r#"["c"]"#);
    assert_eq!(publish(&nodes[0], C), r#"{"delivered":3}"#);
    assert_eq!(publish(&nodes[1], C), r#"{"delivered":1}"#);
    assert_eq!(publish(&idle, C), r#"{"delivered":0}"#);
}

#[test]
fn an_id_is_that_of_the_stream_with_a_tag_of_the_fields() {
    let Some(redis) = Redis::start() else { return };
    let node = redis.node(&[]);
    for publish in [
        &|| publish_kept(&node, C) as String,
        &|| split_id(&publish_whole(&node, &keyed("k", C))).1,
        &|| split_ids(&posted(&node, &format!("[{}]", message(C)))).1[0].clone(),
    ] as [&dyn Fn() -> String; 3]
    {
        let id = publish();
        let newest = redis.notifications().pop().expect("it was published");
        assert_eq!(id, redis.wire_id(&newest.0));
        let fields: Vec<_> = newest.1.iter().map(|(n, v)| (&n[..], &v[..])).collect();
        assert_eq!(id, format!("{}-{}", newest.0, tag(&fields)));
        let json: serde_json::Value = serde_json::from_str(&newest.1[0].1).expect("JSON");
        assert_eq!(newest.1[0].0, "n");
        assert_eq!(json["notification"]["channel"], "c");
        assert!(json.get("key").is_none(), "{json}");
        assert_eq!(position(&node), id);
    }
}

#[test]
fn a_receipt_says_that_redis_has_it() {
    let Some(redis) = Redis::start() else { return };
    let node = redis.node(&[]);
    let mut lane = publisher(&node);
    for n in 0..50 {
        lane.send(&message(&on_channel("c", n)));
        let (_, id) = split_id(&lane.whole_text());
        let newest = redis.notifications().pop().expect("it is there");
        assert!(id.starts_with(&format!("{}-", newest.0)), "{id} {newest:?}");
    }
}

#[test]
fn a_receipt_says_that_its_node_has_handed_it_out() {
    let Some(redis) = Redis::start() else { return };
    let node = redis.node(&[]);
    let mut both = publisher(&node);
    both.subscribe(r#"["c"]"#);
    for n in 0..50 {
        both.send(&message(&on_channel("c", n)));
        assert_eq!(both.text(), delivery(&on_channel("c", n)));
        assert_eq!(both.text(), r#"{"type":"published","delivered":1}"#);
    }
    // On an ephemeral connection, too.
    let mut ephemeral = subscriber(&node, r#"["c"]"#);
    ephemeral.send(&message(C));
    assert_eq!(ephemeral.text(), delivery(C));
    assert_eq!(ephemeral.expect_close(1000), r#"{"delivered":2}"#);
    ephemeral.answer_close(1000);
}

#[test]
fn a_notification_stays_byte_for_byte() {
    let Some(redis) = Redis::start() else { return };
    let nodes = redis.nodes(&[]);
    let mut client = subscriber(&nodes[1], r#"["c"]"#);
    let notification = "{ \"channel\" :\t\"c\", \"a\":1.0,\"b\":\"\\u00e9\\r\\n\", \"c\":18446744073709551617,\"a\":[ ] }";
    publish(&nodes[0], notification);
    assert_eq!(client.text(), delivery(notification));
    publish_message(
        &nodes[0],
        &format!(r#"{{"sender":"server","type":"refr\u0065sh\\","notification":{C}}}"#),
    );
    let texts = client.text();
    let json: serde_json::Value = serde_json::from_str(&texts).expect("JSON");
    assert_eq!(json["type"], "refresh\\", "{texts}");
    assert!(texts.ends_with(&format!(r#","notification":{C}}}"#)));
    // So do strangers'.
    redis.xadd(&format!(
        "\n{{ \"type\" : \"chat\" ,\"notification\":{notification} }}"
    ));
    assert_eq!(
        client.text(),
        delivery(notification).replacen("notification", "chat", 1)
    );
}

#[test]
fn an_array_is_taken_whole_and_in_its_order() {
    let Some(redis) = Redis::start() else { return };
    let nodes = redis.nodes(&[]);
    let mut clients = nodes.each_ref().map(|node| {
        let mut client = Client::connect(node);
        client.subscribe_since(r#"["c","marker"]"#, "");
        client
    });
    let all: Vec<_> = (0..100).map(|n| on_channel("c", n)).collect();
    let array: Vec<_> = all.iter().map(|one| message(one)).collect();
    let (receipts, ids) = split_ids(&posted(&nodes[0], &format!("[{}]", array.join(","))));
    assert_eq!(
        receipts,
        format!("[{}]", vec![r#"{"delivered":1}"#; 100].join(","))
    );
    // Nothing of others lies between.
    let entries = redis.notifications();
    let of_entries: Vec<_> = entries.iter().map(|(id, _)| redis.wire_id(id)).collect();
    assert_eq!(ids, of_entries);
    for client in &mut clients {
        for (id, notification) in ids.iter().zip(&all) {
            assert_eq!(client.whole_text(), numbered(id, notification));
        }
    }
    // One bad one, and none is taken.
    let mut http = Http::connect(&nodes[0]);
    http.send(post(&format!("[{},{}]", message(C), message("{}"))));
    let (status, _, text) = http.receive();
    assert_eq!(
        (status, error_code(&text).as_str()),
        (400, "invalid-notification")
    );
    http.send(post("[]"));
    http.expect(200, "[]");
    assert_eq!(redis.notifications().len(), 100);
}

#[test]
fn a_key_is_known_at_all_nodes() {
    let Some(redis) = Redis::start() else { return };
    let nodes = redis.nodes(&[]);
    let mut clients: Vec<_> = (0..2)
        .map(|_| subscriber(&nodes[1], r#"["c","d","marker"]"#))
        .collect();
    let first = publish_whole(&nodes[1], &keyed("k", C));
    let (receipt, id) = split_id(&first);
    assert_eq!(receipt, r#"{"delivered":2}"#);
    for (node, delivered) in [(&nodes[1], 2), (&nodes[0], 0)] {
        assert_eq!(
            publish_whole(node, &keyed("k", D)),
            repeated(delivered, &id)
        );
        let mut lane = publisher(node);
        lane.send(&keyed("k", C));
        assert_eq!(
            lane.whole_text(),
            repeated(delivered, &id).replacen('{', r#"{"type":"published","#, 1)
        );
        assert_eq!(posted(node, &keyed("k", C)), repeated(delivered, &id));
    }
    // One that has come later hasn't handed it out.
    let late = redis.node(&[]);
    assert_eq!(publish_whole(&late, &keyed("k", C)), repeated(0, &id));
    let (_, other) = split_id(&publish_whole(&nodes[0], &keyed("K", C)));
    assert_ne!(other, id);
    publish(&nodes[0], MARKER);
    for client in &mut clients {
        assert_eq!(client.before_marker(), vec![delivery(C); 2]);
    }
    assert_eq!(redis.notifications().len(), 3);
}

#[test]
fn a_key_counts_within_an_array() {
    let Some(redis) = Redis::start() else { return };
    let node = redis.node(&[]);
    let mut client = subscriber(&node, r#"["c","d"]"#);
    let array = [keyed("a", C), message(D), keyed("a", D), keyed("b", D)].join(",");
    let text = posted(&node, &format!("[{array}]"));
    let (receipts, ids) = split_ids(&text);
    assert_eq!(
        receipts,
        r#"[{"delivered":1},{"delivered":1},{"delivered":1,"repeated":true},{"delivered":1}]"#
    );
    assert_eq!(ids[0], ids[2]);
    assert_ne!(ids[0], ids[3]);
    expect_deliveries(&mut client, &[C, D, D]);
    // All of it again.
    let (receipts, again) = split_ids(&posted(&node, &format!("[{array}]")));
    assert_eq!(
        receipts.matches(r#""repeated":true"#).count(),
        3,
        "{receipts}"
    );
    assert_eq!([&again[0], &again[3]], [&ids[0], &ids[3]]);
    expect_deliveries(&mut client, &[D]);
}

#[test]
fn one_of_two_nodes_is_first_with_a_key() {
    let Some(redis) = Redis::start() else { return };
    let nodes = redis.nodes(&[]);
    let mut client = subscriber(&nodes[0], r#"["c","marker"]"#);
    let mut lanes = nodes.each_ref().map(publisher);
    for n in 0..100 {
        for lane in &mut lanes {
            lane.send(&keyed(&n.to_string(), &on_channel("c", n)));
        }
    }
    let mut repeats = 0;
    for n in 0..100 {
        let answers = lanes.each_mut().map(|lane| lane.whole_text());
        let ids = answers.each_ref().map(|answer| split_id(answer).1);
        assert_eq!(ids[0], ids[1], "{n}");
        let times = answers
            .iter()
            .filter(|text| text.contains(r#""repeated":true"#));
        assert_eq!(times.count(), 1, "{answers:?}");
        repeats += 1;
    }
    assert_eq!(repeats, 100);
    publish(&nodes[1], MARKER);
    let expected: Vec<_> = (0..100).map(|n| delivery(&on_channel("c", n))).collect();
    assert_eq!(client.before_marker(), expected);
}

#[test]
fn what_is_not_kept_reaches_all_who_are_there() {
    let Some(redis) = Redis::start() else { return };
    let nodes = redis.nodes(&[]);
    let mut clients = nodes
        .each_ref()
        .map(|node| numbered_subscriber(node, r#"["c"]"#));
    let before = publish_kept(&nodes[0], C);
    let [ephemeral, kept, http] = [0, 1, 2].map(|n| on_channel("c", n));
    let unkept = |one: &str| format!(r#"{{"sender":"server","keep":false,"notification":{one}}}"#);
    // No id.
    assert_eq!(
        publish_whole(&nodes[0], &unkept(&ephemeral)),
        r#"{"delivered":1}"#
    );
    let mut lane = publisher(&nodes[0]);
    lane.send(&unkept(&kept));
    assert_eq!(lane.whole_text(), r#"{"type":"published","delivered":1}"#);
    let body = format!("[{},{}]", unkept(&http), message(D));
    let text = posted(&nodes[0], &body);
    let (first, second) = text.split_once("},").expect("two");
    assert_eq!(first, r#"[{"delivered":1"#);
    let (_, after) = split_id(second);
    for client in &mut clients {
        assert_eq!(client.whole_text(), numbered(&before, C));
        for one in [&ephemeral, &kept, &http] {
            assert_eq!(client.whole_text(), delivery(one));
        }
    }
    // It isn't replayed, here or where it was never seen.
    let late = redis.node(&[]);
    for node in [&nodes[1], &late] {
        let (mut client, answer) = resume(node, r#"["c"]"#, &before);
        assert_eq!(answer, resumed(1, &before));
        let (texts, id) = client.before_pong();
        assert_eq!(texts.len(), 1, "caught-up alone: {texts:?}");
        assert_eq!(id, after);
    }
    let key = r#"{"sender":"server","keep":false,"key":"k","notification":{"channel":"c"}}"#;
    lane.send(key);
    assert_eq!(error_code(&lane.text()), "invalid-notification");
}

#[test]
fn any_host_may_publish_by_itself() {
    let Some(redis) = Redis::start() else { return };
    let nodes = redis.nodes(&[]);
    let mut plain = nodes.each_ref().map(|node| subscriber(node, r#"["c"]"#));
    let mut numbers = nodes
        .each_ref()
        .map(|node| numbered_subscriber(node, r#"["c"]"#));
    let first = redis.xadd(&message(C));
    let second = redis.xadd(r#"{"type":"chat","notification":{"channel":"c"},"x":1}"#);
    let unkept = redis.xadd(r#"{"notification":{"channel":"c"},"keep":false}"#);
    // Other fields don't matter, but tell it from others.
    let words = ["XADD", STREAM, "*", "x", "1", "n", &message(C), "n", "{}"];
    let fourth = redis.ask_text(&words);
    let chat = r#"{"type":"chat","notification":{"channel":"c"}}"#;
    for client in &mut plain {
        client.expect_texts(&[&delivery(C), chat, &delivery(C), &delivery(C)]);
    }
    assert!(second < unkept && unkept < fourth);
    for client in &mut numbers {
        assert_eq!(client.whole_text(), numbered(&redis.wire_id(&first), C));
        let id = redis.wire_id(&second);
        assert_eq!(
            client.whole_text(),
            chat.replacen(',', &format!(r#","id":"{id}","#), 1)
        );
        assert_eq!(client.whole_text(), delivery(C));
        assert_eq!(client.whole_text(), numbered(&redis.wire_id(&fourth), C));
    }
}

#[test]
fn what_is_not_valid_is_skipped_by_all_and_counted() {
    let Some(redis) = Redis::start() else { return };
    let nodes = redis.nodes(&[]);
    let mut clients = nodes
        .each_ref()
        .map(|node| numbered_subscriber(node, r#"["c"]"#));
    let before = publish_kept(&nodes[0], C);
    let invalid = [
        "",
        "{",
        "7",
        "null",
        "{}",
        r#"{"notification":{}}"#,
        r#"{"notification":[]}"#,
        r#"{"notification":{"package":"p"}}"#,
        r#"{"type":"pong","notification":{"channel":"c"}}"#,
        r#"{"type":"gap","notification":{"channel":"c"}}"#,
        r#"{"type":1,"notification":{"channel":"c"}}"#,
        r#"{"sender":"client","notification":{"channel":"c"}}"#,
        r#"{"sender":"client","subscriptions":["c"]}"#,
        r#"{"notification":{"channel":"c"},"notification":{"channel":"c"}}"#,
        r#"{"notification":{"channel":"c"},"key":"k"}"#,
        r#"{"notification":{"channel":"c"},"keep":"no"}"#,
        r#"[{"notification":{"channel":"c"}}]"#,
        r#"{"notification":{"channel":"c"}} {}"#,
    ];
    for json in invalid {
        redis.xadd(json);
    }
    let not_text = b"{\"notification\":{\"channel\":\"c\",\"x\":\"\xff\"}}";
    redis.ask_bytes(&[b"XADD", b"crieur", b"*", b"n", not_text]);
    redis.ask(&["XADD", STREAM, "*", "m", &message(C)]);
    let count = invalid.len() + 2;
    for (node, client) in nodes.iter().zip(&mut clients) {
        assert_eq!(client.whole_text(), numbered(&before, C));
        wait_until("all are read", || {
            figure(node, "crieur_redis_entries_invalid_total") as usize == count
        });
        // No position is taken.
        assert_eq!(position(node), before);
        assert_eq!(client.before_pong(), (vec![], before.clone()));
        node.wait_for_line("WARN");
    }
}

#[test]
fn what_was_read_behind_an_invalid_one_is_delivered() {
    let Some(redis) = Redis::start() else { return };
    let nodes = redis.nodes(&[]);
    let mut clients = nodes.each_ref().map(|node| subscriber(node, r#"["c"]"#));
    redis.xadd("{");
    redis.xadd(&message(C));
    redis.ask(&["XADD", STREAM, "*", "x", "y"]);
    assert_eq!(publish(&nodes[0], D), r#"{"delivered":0}"#);
    assert_eq!(publish(&nodes[0], C), r#"{"delivered":1}"#);
    for client in &mut clients {
        expect_deliveries(client, &[C, C]);
    }
}

#[test]
fn what_is_valid_is_not_decided_by_a_nodes_settings() {
    let Some(redis) = Redis::start() else { return };
    let flags = ["--max-publish-bytes", "1024", "--no-local-publish"];
    let token = crate::helpers::secrets::SecretFile::new("correct-horse-battery-staple");
    let strict = redis.node(&[&flags[..], &["--publish-token-file", token.path()]].concat());
    let lenient = redis.node(&[]);
    let mut clients = [&strict, &lenient].map(|node| subscriber(node, r#"["c"]"#));
    let text = "x".repeat(100_000);
    let large = format!(r#"{{"channel":"c","text":"{text}"}}"#);
    redis.xadd(&message(&large));
    publish(&lenient, &large);
    for client in &mut clients {
        for _ in 0..2 {
            assert!(client.text() == delivery(&large));
        }
    }
}

#[test]
fn errors_of_publishers_are_what_they_are_without_redis() {
    let Some(redis) = Redis::start() else { return };
    let node = redis.node(&[]);
    let mut lane = publisher(&node);
    for (text, code) in [
        ("{", "invalid-json"),
        (&message("{}"), "invalid-notification"),
        (&keyed("", C), "invalid-notification"),
        (&keyed(&"k".repeat(129), C), "invalid-notification"),
        ("{}", "unknown-message"),
    ] {
        lane.send(text);
        assert_eq!(error_code(&lane.text()), code, "{text}");
    }
    let mut ephemeral = Client::connect(&node);
    ephemeral.send(&message("{}"));
    assert_eq!(error_code(&ephemeral.text()), "invalid-notification");
    ephemeral.expect_close(1008);
    assert!(redis.notifications().is_empty());
    assert_eq!(
        figure(&node, "crieur_redis_entries_invalid_total") as u64,
        0
    );
}

#[test]
fn a_publisher_that_hangs_up_has_published() {
    let Some(redis) = Redis::start() else { return };
    let nodes = redis.nodes(&["--redis-timeout", "30"]);
    let mut client = subscriber(&nodes[1], r#"["c","d","marker"]"#);
    redis.halt(true);
    for n in 0..20 {
        let mut publisher = Client::connect(&nodes[0]);
        publisher.send(&message(&on_channel("c", n)));
        // One a connection: what stands behind it is discarded, however late the first is answered.
        publisher.send(&message(D));
        super::wait_for_pending(&nodes[0], n + 1);
    }
    redis.halt(false);
    let expected: Vec<_> = (0..20).map(|n| on_channel("c", n)).collect();
    expect_deliveries(&mut client, &expected);
    publish(&nodes[0], MARKER);
    assert_eq!(client.before_marker(), Vec::<String>::new());
}

#[test]
fn all_nodes_have_one_position() {
    let Some(redis) = Redis::start() else { return };
    let nodes = redis.nodes(&[]);
    // Before anything was published, too.
    assert_eq!(position(&nodes[0]), position(&nodes[1]));
    let ids = publish_all(&nodes[0], &[C, D, C]);
    wait_until("the other has read it", || position(&nodes[1]) == ids[2]);
    assert_eq!(position(&nodes[0]), ids[2]);
    let id = redis.xadd(&message(C));
    let id = redis.wire_id(&id);
    for node in &nodes {
        wait_until("it was read", || position(node) == id);
    }
}

#[test]
fn streams_of_other_names_and_databases_are_others() {
    let Some(redis) = Redis::start() else { return };
    let url = format!("{}?db=3", redis.url());
    let [here, named] = [redis.node(&[]), redis.node(&["--redis-stream", "other"])];
    let elsewhere = Server::with(&["--redis", &url]);
    let nodes = [&here, &named, &elsewhere];
    let mut clients = nodes.map(|node| subscriber(node, r#"["c","marker"]"#));
    for (n, node) in nodes.iter().enumerate() {
        publish_message(node, &keyed("k", &on_channel("c", n)));
        publish(node, MARKER);
    }
    for (n, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.before_marker(), [delivery(&on_channel("c", n))]);
    }
    assert_eq!(redis.ask(&["XLEN", "other"]), redis.ask(&["XLEN", STREAM]));
    // Everything of a stream begins with its name.
    let Reply::List(keys) = redis.ask(&["KEYS", "*"]) else {
        panic!("KEYS answers with a list");
    };
    for key in keys {
        let Reply::Text(key) = key else {
            panic!("{key:?}")
        };
        assert!(key.starts_with("other") || key.starts_with(STREAM), "{key}");
    }
}

#[test]
fn the_stream_is_kept_to_about_its_length() {
    let Some(redis) = Redis::start() else { return };
    let node = redis.node(&["--redis-maxlen", "1000"]);
    let mut lane = publisher(&node);
    for _ in 0..30 {
        for _ in 0..100 {
            lane.send(&message(C));
        }
        lane.expect_texts(&vec![r#"{"type":"published","delivered":0}"#; 100]);
    }
    let len = redis.entries().len();
    assert!((1000..1300).contains(&len), "{len}");
}
