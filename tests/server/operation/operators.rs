//! What operators ask: connections by what they do, the newest notifications, refused publishes, and who gets what.

use serde_json::{Value, json};

use crate::helpers::http::{Http, JSON, figures, post, post_with};
use crate::helpers::numbered::publish_kept;
use crate::helpers::secrets::{KEY, SecretFile, sign, unix_now};
use crate::helpers::{
    Client, Received, Server, close_reason, error_code, message, publish, subscriber, upgrade,
};

const TOKEN: &str = "correct-horse-battery-staple";
const NEXT_TOKEN: &str = "another-token-of-some-length";

/// From elsewhere: a local peer may publish and needs no token for that.
const FOREIGN: &str = "Host: api.example.com";

const LISTS: [&str; 3] = ["/connections", "/notifications", "/refusals"];

fn get_with(path: &str, fields: &[&str]) -> String {
    let lines: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    format!("GET {path} HTTP/1.1\r\n{lines}\r\n")
}

fn explain_with(fields: &[&str], body: &str) -> String {
    post_with(fields, body).replacen("/publish", "/explain", 1)
}

fn ask(server: &Server, request: &str) -> (u16, String, String) {
    let mut http = Http::connect(server);
    http.send(request);
    http.receive()
}

fn answer(server: &Server, request: &str) -> Value {
    let (status, head, body) = ask(server, request);
    assert_eq!(status, 200, "{head}\n{body}");
    assert!(
        head.contains("\r\nContent-Type: application/json\r\n"),
        "{head}"
    );
    assert!(head.contains("\r\nCache-Control: no-store"), "{head}");
    let answer: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(answer["scope"], "server");
    let seconds = answer["now"].as_f64().expect("a time") / 1000.0;
    assert!((seconds - unix_now()).abs() < 60.0, "{answer}");
    answer
}

fn get(server: &Server, path: &str) -> Value {
    answer(server, &get_with(path, &["Host: localhost"]))
}

fn explain(server: &Server, question: &Value) -> Value {
    answer(server, &explain_with(&[JSON], &question.to_string()))
}

fn ids(list: &Value) -> Vec<&str> {
    let entries = list.as_array().expect("a list").iter();
    entries
        .map(|entry| entry["connection"].as_str().expect("an id"))
        .collect()
}

/// A client whose token says that it is of `user`.
fn client_of(server: &Server, user: &str, list: &str) -> Client {
    client_with(server, user, &json!(["c", "d"]), list)
}

fn client_with(server: &Server, user: &str, allow: &Value, list: &str) -> Client {
    let claims = json!({"exp": unix_now() + 600.0, "allow": allow, "sub": user});
    let field = format!("Authorization: Bearer {}", sign(KEY, &claims.to_string()));
    let mut client = Client::connect_with(server, "/", &[FOREIGN, &field]);
    client.subscribe(list);
    client
}

#[test]
fn whoever_may_publish_may_ask_and_nobody_else() {
    let file = SecretFile::new(TOKEN);
    let by_token = Server::with(&["--publish-token-file", file.path()]);
    let by_address = Server::start();
    let question = r#"{"notification":{"channel":"c"}}"#;
    let requests = |fields: &[&str]| {
        let with_host = [&["Host: localhost"], fields].concat();
        let lists = LISTS.map(|path| get_with(path, &with_host));
        let with_kind = [&[JSON], fields].concat();
        lists
            .into_iter()
            .chain([explain_with(&with_kind, question)])
            .collect::<Vec<_>>()
    };
    let good = format!("Authorization: Bearer {TOKEN}");
    for (server, field, status) in [
        (&by_address, "X: y", 200),
        (&by_address, "Origin: http://a", 403),
        (&by_address, "Via: 1.1 proxy", 403),
        (&by_token, "X: y", 401),
        (&by_token, "Authorization: Bearer of-somebody-else", 403),
        (&by_token, &good, 200),
    ] {
        for request in requests(&[field]) {
            let (got, head, body) = ask(server, &request);
            assert_eq!(got, status, "{request}\n{head}");
            assert_eq!(
                head.contains("\r\nWWW-Authenticate: Bearer"),
                status == 401,
                "{head}"
            );
            if status != 200 {
                assert_eq!(error_code(&body), "forbidden");
            }
        }
    }
    // The same on the lane, and nowhere else where there is one.
    let lane = Server::with(&["--publish-listen", "127.0.0.1:0"]);
    for request in requests(&[]) {
        assert_eq!(ask(&lane, &request).0, 403);
        let mut http = Http::over(Server::tcp_to(lane.publish_address()));
        http.send(&request);
        assert_eq!(http.receive().0, 200);
    }
}

#[test]
fn questions_have_their_rules() {
    let server = Server::start();
    for path in LISTS {
        let (status, head, _) = ask(
            &server,
            &get_with(path, &["Host: localhost"]).replacen("GET", "DELETE", 1),
        );
        assert_eq!(status, 405);
        assert!(head.contains("\r\nAllow: GET, HEAD"), "{head}");
        let (status, _, body) = ask(
            &server,
            &get_with(&format!("{path}?x=1"), &["Host: localhost"]),
        );
        assert_eq!(
            (status, error_code(&body).as_str()),
            (400, "unknown-message")
        );
    }
    let (status, head, _) = ask(&server, &get_with("/explain", &["Host: localhost"]));
    assert_eq!(status, 405);
    assert!(head.contains("\r\nAllow: POST"), "{head}");
    for (fields, body, status) in [
        (&["Content-Type: text/plain"][..], "{}", 415),
        (&[JSON], "{", 400),
        (&[JSON], "{}", 400),
        (&[JSON], r#"{"notification":{}}"#, 400),
        (
            &[JSON],
            r#"{"notification":{"channel":"c"},"connection":"1"}"#,
            400,
        ),
        (&[JSON], r#"{"id":"0-0"}"#, 404),
    ] {
        assert_eq!(
            ask(&server, &explain_with(fields, body)).0,
            status,
            "{body}"
        );
    }
    for path in [
        "/connections?state=x",
        "/connections?after=1",
        "/notifications?user=1",
    ] {
        assert_eq!(
            ask(&server, &get_with(path, &["Host: localhost"])).0,
            400,
            "{path}"
        );
    }
    let missing = get_with("/notifications?id=0-0", &["Host: localhost"]);
    assert_eq!(ask(&server, &missing).0, 404);
    // None of it is a publish.
    assert_eq!(get(&server, "/refusals")["refusals"], json!([]));
}

#[test]
fn connections_are_told_apart_by_what_they_do() {
    let keys = SecretFile::new(KEY);
    let server = Server::with(&["--client-key-file", keys.path()]);
    let first = client_of(&server, "17", r#"["c","d"]"#);
    let second = client_of(&server, "17", "[]");
    let other = client_of(&server, "Zoë & Co", r#"["c"]"#);
    let silent = Client::connect_with(&server, "/", &[FOREIGN]);
    let local = Client::connect_with(&server, "/publish", &[]);
    let all = get(&server, "/connections");
    assert_eq!(all["truncated"], false);
    let counts = json!({"live": 2, "catching-up": 0, "list-waits": 0, "no-subscriptions": 1, "token-awaited": 1, "publisher": 1});
    assert_eq!(all["counts"], counts);
    let states = all["connections"].as_array().expect("a list").iter();
    let states: Vec<_> = states
        .map(|one| one["state"].as_str().expect("a word"))
        .collect();
    assert_eq!(
        states,
        [
            "live",
            "no-subscriptions",
            "live",
            "token-awaited",
            "publisher"
        ]
    );
    let entry = &all["connections"][0];
    assert_eq!(
        (&entry["subscriptions"], &entry["user"]),
        (&json!(2), &json!("17"))
    );
    let address = first.stream().local_addr().expect("an address").to_string();
    assert_eq!(entry["peer"], address.as_str());
    assert!(all["connections"][3].get("user").is_none());
    for (query, len) in [
        ("user=17", 2),
        ("user=1", 0),
        ("user=Zo%C3%AB+%26%20Co", 1),
        ("user=17&state=live", 1),
        ("address=127.0.0.1", 5),
        ("address=127.0.0.2", 0),
        ("state=publisher", 1),
    ] {
        let found = get(&server, &format!("/connections?{query}"));
        assert_eq!(ids(&found["connections"]).len(), len, "{query}");
    }
    let id = entry["connection"].as_str().expect("an id");
    let one = get(&server, &format!("/connections?connection={id}"));
    assert_eq!(ids(&one["connections"]), [id]);
    let one = &one["connections"][0];
    assert_eq!(one["list"], json!(["c", "d"]));
    assert_eq!(one["token"]["history"], true);
    let expires = one["token"]["expires"].as_f64().expect("a time") / 1000.0;
    assert!((500.0..700.0).contains(&(expires - unix_now())));
    assert!(one["token"].get("allows").is_none());
    drop((first, second, other, silent, local));
}

#[test]
fn what_ended_is_told_with_its_reason() {
    let keys = SecretFile::new(KEY);
    let server = Server::with(&["--client-key-file", keys.path()]);
    let since = get(&server, "/connections")["since"]
        .as_u64()
        .expect("a time");
    client_of(&server, "17", r#"["c"]"#).leave();
    let mut refused = Client::connect_with(&server, "/?token=a.b.c", &[FOREIGN]);
    assert_eq!(close_reason(&refused.expect_close(3000)).0, "token-invalid");
    let mut binary = client_of(&server, "18", r#"["c","d"]"#);
    binary.send_bytes(&crate::helpers::frame(0x82, b"x"));
    binary.expect_close(1003);
    let mut broken = client_of(&server, "19", r#"["c"]"#);
    broken.send_bytes(&crate::helpers::frame(0x83, b"x"));
    broken.expect_close(1002);
    // One that is closed by its receipt isn't there.
    publish(&server, r#"{"channel":"c"}"#);
    let all = get(&server, "/connections");
    let ended = all["ended"].as_array().expect("a list").iter();
    let ended: Vec<_> = ended
        .map(|one| {
            (
                one["reason"].as_str(),
                one["user"].as_str(),
                one["cut_off"].as_bool(),
                one["subscriptions"].as_u64(),
            )
        })
        .collect();
    assert_eq!(
        ended,
        [
            (Some("protocol-error"), Some("19"), Some(true), Some(1)),
            (Some("binary-message"), Some("18"), Some(true), Some(2)),
            (Some("token-invalid"), None, Some(true), Some(0)),
            (Some("left"), Some("17"), Some(false), Some(1)),
        ]
    );
    assert!(all["ended"][0]["at"].as_u64().is_some_and(|at| at >= since));
    let of_one = get(&server, "/connections?user=18");
    assert_eq!(of_one["ended"].as_array().map(Vec::len), Some(1));
    let question = json!({"notification": {"channel": "c"}, "user": "18"});
    let explained = explain(&server, &question);
    assert_eq!(explained["connections"], json!([]));
    assert_eq!(explained["ended"][0]["reason"], "binary-message");
}

#[test]
fn notifications_are_listed_without_what_they_say() {
    let server = Server::start();
    let _client = subscriber(&server, r#"["secret-channel"]"#);
    let kept = r#"{"channel":"secret-channel","n":1}"#;
    let id = publish_kept(&server, kept);
    let unkept = format!(r#"{{"sender":"server","keep":false,"notification":{kept}}}"#);
    let mut publisher = Client::connect(&server);
    publisher.send(&unkept);
    assert_eq!(publisher.expect_whole_close(1000), r#"{"delivered":1}"#);
    let mut http = Http::connect(&server);
    for repeated in ["", r#","repeated":true"#] {
        http.send(post(
            r#"{"key":"k","type":"chat","notification":{"channel":"c"}}"#,
        ));
        http.expect(200, &format!(r#"{{"delivered":0{repeated}}}"#));
    }
    let listed = get(&server, "/notifications");
    assert!(!listed.to_string().contains("secret-channel"));
    let newest = listed["notifications"].as_array().expect("a list");
    assert_eq!(newest.len(), 4);
    assert_eq!(
        (&newest[0]["repeated"], &newest[0]["id"]),
        (&json!(true), &newest[1]["id"])
    );
    assert!(newest[2].get("id").is_none());
    assert_eq!(
        (&newest[3]["id"], &newest[3]["delivered"]),
        (&json!(id), &json!(1))
    );
    assert_eq!(newest[3]["bytes"], kept.len());
    assert!(newest[3]["from"].is_string() && newest[3].get("cut_off").is_none());
    let one = get(&server, &format!("/notifications?id={id}"));
    assert_eq!(
        (&one["type"], &one["notification"]),
        (
            &json!("notification"),
            &json!({"channel": "secret-channel", "n": 1})
        )
    );
    let other = newest[0]["id"].as_str().expect("an id");
    let other = get(&server, &format!("/notifications?id={other}"));
    assert_eq!(
        (&other["type"], &other["key"]),
        (&json!("chat"), &json!("k"))
    );
    // No more than a hundred.
    for _ in 0..120 {
        http.send(post(r#"{"notification":{"channel":"c"}}"#));
        http.expect(200, r#"{"delivered":0}"#);
    }
    let newest = get(&server, "/notifications");
    assert_eq!(newest["notifications"].as_array().map(Vec::len), Some(100));
}

#[test]
fn who_was_cut_off_is_told() {
    let flags = ["--history-bytes", "0", "--send-queue-bytes", "65536"];
    let server = Server::with(&flags);
    let mut slow = Client::over(server.narrow_tcp());
    slow.send_bytes(upgrade().as_bytes());
    slow.expect_upgrade();
    slow.subscribe(r#"["c"]"#);
    let id = get(&server, "/connections")["connections"][0]["connection"].clone();
    let text = format!(r#"{{"channel":"c","text":"{}"}}"#, "x".repeat(16_000));
    let mut receipt = String::new();
    for _ in 0..1000 {
        receipt = publish(&server, &text);
        if receipt.contains("dropped") {
            break;
        }
    }
    assert_eq!(receipt, r#"{"delivered":0,"dropped":1}"#);
    let newest = get(&server, "/notifications")["notifications"][0].clone();
    assert_eq!(
        (&newest["dropped"], &newest["cut_off"][0]["connection"]),
        (&json!(1), &id)
    );
    let all = get(&server, "/connections");
    assert_eq!(all["connections"], json!([]));
    let ended = &all["ended"][0];
    assert_eq!(
        (&ended["connection"], &ended["reason"]),
        (&id, &json!("slow-consumer"))
    );
    let question = json!({"notification": {"channel": "c"}, "connection": id});
    assert_eq!(explain(&server, &question)["ended"][0]["cut_off"], true);
    while !matches!(slow.receive(), Received::Close(1013, _)) {}
}

#[test]
fn refused_publishes_are_told_and_strangers_apart() {
    let file = SecretFile::new(TOKEN);
    let server = Server::with(&["--publish-token-file", file.path()]);
    let bearer = |token: &str| format!("Authorization: Bearer {token}");
    let post_by = |token: &str, more: &str, body: &str| {
        let request = post_with(&[JSON, &bearer(token), more], body);
        ask(&server, &request).0
    };
    let good = r#"{"notification":{"channel":"c"}}"#;
    // Behind a proxy it may be anybody.
    let proxied = "X-Forwarded-For: 203.0.113.7";
    assert_eq!(post_by("of-somebody-else", proxied, good), 403);
    assert_eq!(
        post_by(TOKEN, proxied, r#"{"notification":{"page":"c"}}"#),
        400
    );
    file.write(NEXT_TOKEN);
    server.hang_up();
    server.wait_for_line("1 added, 1 removed, 1 in force");
    assert_eq!(post_by(TOKEN, proxied, good), 403);
    let in_body = format!(r#"{{"token":"{TOKEN}","notification":{{"channel":"c"}}}}"#);
    let request = post_with(&[JSON, proxied], &in_body);
    assert_eq!(ask(&server, &request).0, 403);
    let mut old = Client::connect_with(&server, "/", &[proxied]);
    old.send(&format!(r#"{{"sender":"server",{}"#, &in_body[1..]));
    assert_eq!(error_code(&old.text()), "forbidden");
    let mut stranger = Client::connect_with(&server, "/", &[proxied]);
    stranger.send(&message(r#"{"channel":"c"}"#));
    assert_eq!(error_code(&stranger.text()), "forbidden");
    // Of this host: a program that was never given the token.
    assert_eq!(post_by("of-somebody-else", "X: y", good), 403);
    let ask_by = get_with("/refusals", &["Host: localhost", &bearer(NEXT_TOKEN)]);
    let refusals = answer(&server, &ask_by);
    let codes = |of: &str| {
        let list = refusals[of].as_array().expect("a list").iter();
        list.map(|one| {
            (
                one["code"].as_str().expect("a word"),
                one["detail"].as_str().expect("a text"),
            )
        })
        .map(|(code, detail)| format!("{code}: {detail}"))
        .collect::<Vec<_>>()
    };
    assert_eq!(
        codes("refusals"),
        [
            "forbidden: the token is not a publisher's",
            "forbidden: a publisher's token is needed",
            "forbidden: a publisher's token is needed",
            "forbidden: the token is not a publisher's",
            "invalid-notification: notification.package is missing",
        ]
    );
    assert_eq!(
        codes("strangers"),
        [
            "forbidden: a publisher's token is needed",
            "forbidden: the token is not a publisher's",
        ]
    );
    assert!(
        refusals["refusals"][0]["peer"]
            .as_str()
            .is_some_and(|peer| peer.starts_with("127.0.0.1:"))
    );
    // What rings the alert is no stranger's.
    let text = figures(&server);
    for line in [
        r#"crieur_notifications_total{result="forbidden"} 4"#,
        r#"crieur_notifications_total{result="stranger"} 2"#,
        r#"crieur_notifications_total{result="invalid"} 1"#,
    ] {
        assert!(text.lines().any(|got| got == line), "{line}\n{text}");
    }
    for _ in 0..150 {
        assert_eq!(post_by("of-somebody-else", proxied, good), 403);
    }
    let refusals = answer(&server, &ask_by);
    let len = |of: &str| refusals[of].as_array().map(Vec::len);
    assert_eq!((len("refusals"), len("strangers")), (Some(5), Some(100)));
}

#[test]
fn an_explanation_names_who_gets_it_and_why_others_do_not() {
    let keys = SecretFile::new(KEY);
    let server = Server::with(&["--client-key-file", keys.path()]);
    let orders = |states: &str| {
        format!(
            r#"{{"package":"shop","page":"orders","filters":{{"values":{{"state":{states}}}}}}}"#
        )
    };
    let allow = json!([{"package": "shop", "page": "orders"}]);
    let client = |states| client_with(&server, "17", &allow, &format!("[{}]", orders(states)));
    let _wants = client(r#"["new","paid"]"#);
    let _other = client_of(&server, "18", r#"["c","d"]"#);
    let question = format!(
        r#"{{"type":"order","notification":{}}}"#,
        orders(r#""lost""#)
    );
    let explained = answer(&server, &explain_with(&[JSON], &question));
    assert_eq!(
        (&explained["would_get"], &explained["connections_open"]),
        (&json!(0), &json!(2))
    );
    let [first, second] = &explained["connections"].as_array().expect("a list")[..] else {
        panic!("{explained}");
    };
    let miss = &first["subscriptions"][0];
    assert_eq!(
        (&miss["reason"], &miss["name"]),
        (&json!("value"), &json!("state"))
    );
    assert_eq!(
        miss["detail"],
        r#"it wants "new" or "paid" for "state"; the notification has "lost""#
    );
    assert_eq!(first["detail"], "its subscription doesn't match");
    assert_eq!(
        (&second["gets"], &second["token"]["allows"]),
        (&json!(false), &json!(false))
    );
    assert_eq!(
        second["detail"],
        "none of its 2 subscriptions matches, and its token allows none that would"
    );
    let id = publish_kept(&server, &orders(r#""paid""#));
    let _late = client("true");
    let explained = explain(&server, &json!({"id": id}));
    assert_eq!(explained["published"]["delivered"], 1);
    let found = explained["connections"].as_array().expect("a list").iter();
    let found: Vec<_> = found
        .map(|one| {
            (
                one["gets"].as_bool(),
                one["reason"].as_str().expect("a word"),
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            (Some(true), "matches"),
            (Some(false), "subscribed-later"),
            (Some(false), "no-match")
        ]
    );
}

#[test]
fn what_is_known_of_connections_is_handed_over_and_the_rest_begins_anew() {
    let keys = SecretFile::new(KEY);
    let server = Server::with(&["--client-key-file", keys.path()]);
    let _client = client_of(&server, "17", r#"["c"]"#);
    let before = publish_kept(&server, r#"{"channel":"c"}"#);
    let _late = client_of(&server, "18", r#"["c"]"#);
    let since = get(&server, "/notifications")["since"]
        .as_u64()
        .expect("a time");
    // A question of which only a part is there yet.
    let question = explain_with(&[JSON], &json!({"id": before}).to_string());
    let (part, rest) = question.split_at(question.len() - 5);
    let mut http = Http::connect(&server);
    http.send(part);
    server.hand_over();
    let listed = get(&server, "/notifications");
    assert_eq!(listed["notifications"], json!([]));
    assert!(
        listed["since"].as_u64().is_some_and(|now| now > since),
        "{listed}"
    );
    let of_user = get(&server, "/connections?user=17");
    assert_eq!(ids(&of_user["connections"]).len(), 1);
    http.send(rest);
    let (status, _, body) = http.receive();
    assert_eq!(status, 200, "{body}");
    let explained: Value = serde_json::from_str(&body).expect("JSON");
    let found = explained["connections"].as_array().expect("a list").iter();
    let found: Vec<_> = found
        .map(|one| one["reason"].as_str().expect("a word"))
        .collect();
    assert_eq!(found, ["matches", "subscribed-later"]);
    assert!(explained.get("published").is_none());
}
