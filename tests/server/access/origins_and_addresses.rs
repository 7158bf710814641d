//! What an upgrade is refused for: where its page comes from, and what its address has taken.

use std::io::Write;

use crate::helpers::http::{Http, JSON, figures, post_with, refusal};
use crate::helpers::secrets::SecretFile;
use crate::helpers::{Client, Server, error_code, message, response, upgrade_to};

const C: &str = r#"{"channel":"c"}"#;
const TOKEN: &str = "correct-horse-battery-staple";

/// The status line, and the head, that answers an upgrade which isn't granted.
fn refused(server: &Server, fields: &[&str]) -> String {
    let mut stream = server.tcp();
    stream
        .write_all(upgrade_to("/", fields).as_bytes())
        .expect("the server reads");
    response(&mut stream).0
}

#[test]
fn by_default_every_origin_is_let_in() {
    let server = Server::start();
    for origin in ["Origin: https://example.com", "Origin: null"] {
        Client::connect_with(&server, "/", &[origin]);
    }
}

#[test]
fn origins_that_are_not_on_the_list_are_refused() {
    let server = Server::with(&[
        "--allow-origin",
        "https://app.example.com,http://localhost:3000",
        "--allow-origin",
        "https://admin.example.com:8443",
    ]);
    for fields in [
        &[][..],
        &["Origin: https://app.example.com"],
        &["Origin: http://localhost:3000"],
        &["Origin: https://admin.example.com:8443"],
        // As React Native sends it: the host that it connects to.
        &[
            "Host: api.example.com:8000",
            "Origin: http://api.example.com:8000",
        ],
        &["Host: api.example.com", "Origin: https://api.example.com"],
        &[
            "Host: api.example.com",
            "Origin: https://API.example.com:443",
        ],
    ] {
        Client::connect_with(&server, "/", fields).subscribe(r#"["c"]"#);
    }
    for fields in [
        &["Origin: https://example.com"][..],
        &["Origin: http://app.example.com"],
        &["Origin: https://app.example.com:444"],
        &["Origin: https://app.example.com.evil.example"],
        &["Origin: null"],
        &["Origin:"],
        &[
            "Host: api.example.com:8000",
            "Origin: http://api.example.com",
        ],
        &[
            "Origin: https://app.example.com",
            "Origin: https://evil.example",
        ],
    ] {
        let head = refused(&server, fields);
        assert!(head.starts_with("HTTP/1.1 403 "), "{fields:?}: {head}");
    }
}

#[test]
fn a_star_lets_all_in() {
    let server = Server::with(&["--allow-origin", "*"]);
    Client::connect_with(&server, "/", &["Origin: https://example.com"]);
}

const BEHIND: &str = "X-Forwarded-For: 192.0.2.1";

#[test]
fn an_address_has_so_many_connections() {
    let server = Server::with(&[
        "--trusted-proxy",
        "127.0.0.0/8",
        "--max-connections-per-address",
        "2",
    ]);
    let first = Client::connect_with(&server, "/", &[BEHIND]);
    let _second = Client::connect_with(&server, "/", &["X-Forwarded-For: 203.0.113.9, 192.0.2.1"]);
    let head = refused(&server, &[BEHIND]);
    assert!(head.starts_with("HTTP/1.1 429 "), "{head}");
    assert!(head.contains("\r\nRetry-After: "), "{head}");
    // Others are others, and the proxy itself is no client.
    let _other = Client::connect_with(&server, "/", &["X-Forwarded-For: 192.0.2.2"]);
    let _proxies: Vec<_> = (0..5).map(|_| Client::connect(&server)).collect();
    first.leave();
    Client::connect_with(&server, "/", &[BEHIND]);
}

/// What a trusted proxy may write that names nobody.
const NOBODY: [&str; 5] = [
    "X-Forwarded-For: unknown",
    "X-Forwarded-For: 192.0.2.1, unknown",
    "X-Forwarded-For: 192.0.2.1, _hidden, 127.0.0.2",
    "X-Forwarded-For:",
    "X-Forwarded-For: 0.0.0.0",
];

#[test]
fn unnamed_clients_of_a_proxy_share_limits_and_are_never_exempt() {
    let server = Server::with(&[
        "--trusted-proxy",
        "127.0.0.0/8",
        "--max-connections-per-address",
        "5",
    ]);
    let mut clients: Vec<_> = NOBODY
        .iter()
        .map(|nobody| Client::connect_with(&server, "/", &[nobody]))
        .collect();
    for nobody in NOBODY {
        let head = refused(&server, &[nobody]);
        assert!(head.starts_with("HTTP/1.1 429 "), "{nobody}: {head}");
    }
    // Neither the proxy itself nor an address that it names has to do with that.
    let _others = [
        Client::connect(&server),
        Client::connect_with(&server, "/", &[BEHIND]),
    ];
    clients.pop().expect("five").leave();
    let mut client = Client::connect_with(&server, "/", &[NOBODY[0]]);
    client.subscribe("[]");
    client.send_bytes(&[0xff, 0xff]);
    server.wait_for_line("an unknown address: ");
}

#[test]
fn unnamed_clients_of_a_proxy_ask_as_often_as_one_and_see_no_figures() {
    let server = Server::with(&[
        "--trusted-proxy",
        "127.0.0.1",
        "--upgrades-per-address",
        "0.01",
        "--metrics-from",
        "0.0.0.0/0,::/0",
    ]);
    // A request costs as much as an upgrade.
    for (field, status) in [
        (BEHIND, 200),
        (NOBODY[0], 403),
        (BEHIND, 429),
        (NOBODY[1], 429),
    ] {
        let close = "Connection: close\r\n\r\n";
        let request = format!("GET /metrics HTTP/1.1\r\nHost: a\r\n{field}\r\n{close}");
        let (head, _) = refusal(&server, &request, status);
        assert_eq!(status == 429, head.contains("\r\nRetry-After: "), "{head}");
    }
    let head = refused(&server, &[NOBODY[1]]);
    assert!(head.starts_with("HTTP/1.1 429 "), "{head}");
}

#[test]
fn an_address_has_so_many_upgrades() {
    let server = Server::with(&[
        "--trusted-proxy",
        "127.0.0.1",
        "--upgrades-per-address",
        "0.01",
    ]);
    Client::connect_with(&server, "/", &[BEHIND]).leave();
    let head = refused(&server, &[BEHIND]);
    assert!(head.starts_with("HTTP/1.1 429 "), "{head}");
    Client::connect_with(&server, "/", &["X-Forwarded-For: 192.0.2.2"]).leave();
}

/// Subscribes to `subscriptions`; the detail of the error if there is no room for them.
fn refused_list(client: &mut Client, subscriptions: &str) -> Option<String> {
    client.send(&format!(
        r#"{{"sender":"client","subscriptions":{subscriptions}}}"#
    ));
    let answer: serde_json::Value = serde_json::from_str(&client.text()).expect("JSON");
    if answer["type"] == "subscribed" {
        return None;
    }
    assert_eq!(
        answer["error"]["code"], "too-many-subscriptions",
        "{answer}"
    );
    answer["error"]["detail"].as_str().map(str::to_owned)
}

#[test]
fn an_address_has_a_share_of_each_total() {
    let page = |values: &str| {
        format!(r#"[{{"package":"p","page":"q","filters":{{"values":{{"n":{values}}}}}}}]"#)
    };
    for (flag, total, fits, too_much) in [
        (
            "--max-total-subscriptions",
            "8",
            r#"["a","b"]"#.to_owned(),
            r#"["a","a","a"]"#.to_owned(),
        ),
        (
            "--max-total-values",
            "8",
            page(r#"["1","2"]"#),
            page(r#"["1","2","3"]"#),
        ),
        (
            "--max-text-bytes",
            "128",
            format!(r#"["{}"]"#, "x".repeat(32)),
            format!(r#"["{}"]"#, "x".repeat(33)),
        ),
    ] {
        let server = Server::with(&[
            "--trusted-proxy",
            "127.0.0.1",
            "--metrics-from",
            "127.0.0.1",
            flag,
            total,
        ]);
        let connect =
            |from: &str| Client::connect_with(&server, "/", &[&format!("X-Forwarded-For: {from}")]);
        let mut client = connect("2001:db8:0:1::1");
        let detail = refused_list(&mut client, &too_much).expect("more than its share");
        assert!(
            detail.starts_with("this address has used up its share"),
            "{flag}: {detail}"
        );
        assert_eq!(refused_list(&mut client, &fits), None, "{flag}");
        // Its neighbour has the same share, others have theirs, and the proxy itself has none.
        let mut neighbour = connect("2001:db8:0:1::2");
        assert!(refused_list(&mut neighbour, r#"["c"]"#).is_some(), "{flag}");
        assert_eq!(
            refused_list(&mut connect("2001:db8:0:2::1"), &fits),
            None,
            "{flag}"
        );
        assert_eq!(
            refused_list(&mut Client::connect(&server), &too_much),
            None,
            "{flag}"
        );
        assert_eq!(refused_list(&mut client, "[]"), None, "{flag}");
        assert_eq!(refused_list(&mut neighbour, &fits), None, "{flag}");
        let refused = r#"crieur_subscriptions_refused_total{reason="share"} 2"#;
        assert!(figures(&server).contains(refused), "{flag}");
    }
}

#[test]
fn with_the_whole_as_its_share_an_address_has_none() {
    let server = Server::with(&[
        "--trusted-proxy",
        "127.0.0.1",
        "--max-total-subscriptions",
        "2",
        "--max-share-per-address",
        "100",
    ]);
    let mut client = Client::connect_with(&server, "/", &[BEHIND]);
    assert_eq!(refused_list(&mut client, r#"["a","b"]"#), None);
    let detail = refused_list(&mut client, r#"["a","b","c"]"#).expect("more than all may have");
    assert!(detail.starts_with("the server has no room"), "{detail}");
}

#[test]
fn a_publisher_without_a_token_posts_as_often_as_it_may_connect() {
    let tokens = SecretFile::new("0123456789abcdef");
    let server = Server::with(&[
        "--trusted-proxy",
        "127.0.0.1",
        "--upgrades-per-address",
        "0.01",
        "--publish-token-file",
        tokens.path(),
    ]);
    let post = |fields: &str| {
        let mut stream = server.tcp();
        let body = r#"{"notification":{"channel":"a"}}"#;
        let request = format!(
            "POST /publish HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n{fields}\r\n\r\n{body}",
            body.len()
        );
        let sent = stream.write_all(request.as_bytes());
        sent.expect("the server reads");
        response(&mut stream).0
    };
    let first = post(BEHIND);
    assert!(first.starts_with("HTTP/1.1 401 "), "{first}");
    let second = post(BEHIND);
    assert!(second.starts_with("HTTP/1.1 429 "), "{second}");
    let other = post("X-Forwarded-For: 192.0.2.2");
    assert!(other.starts_with("HTTP/1.1 401 "), "{other}");
    // A request with the token in its head is not counted.
    for _ in 0..3 {
        let shown = post(&format!(
            "{BEHIND}\r\nAuthorization: Bearer 0123456789abcdef"
        ));
        assert!(shown.starts_with("HTTP/1.1 200 "), "{shown}");
    }
}

#[test]
fn only_a_trusted_proxy_is_believed() {
    let server = Server::with(&[
        "--max-connections-per-address",
        "1",
        "--trusted-proxy",
        "10.0.0.0/8",
    ]);
    // These come from this host, which isn't counted, whatever they say.
    let _clients: Vec<_> = (0..3)
        .map(|_| Client::connect_with(&server, "/", &[BEHIND]))
        .collect();
}

#[test]
fn logs_name_the_client_behind_a_trusted_proxy() {
    let server = Server::with(&["--trusted-proxy", "127.0.0.1", "--log", "debug"]);
    let mut client = Client::connect_with(&server, "/", &[BEHIND]);
    client.send_bytes(&[0xff, 0xff]);
    server.wait_for_line("192.0.2.1: ");
}

#[test]
fn addresses_that_ask_too_often_are_told_when_to_come_back() {
    let tokens = SecretFile::new(TOKEN);
    let server = Server::with(&[
        "--publish-token-file",
        tokens.path(),
        "--trusted-proxy",
        "127.0.0.1",
        "--upgrades-per-address",
        "0.01",
    ]);
    let behind = "X-Forwarded-For: 192.0.2.1";
    let request = post_with(&[JSON, behind], &message(C));
    let (_, body) = refusal(&server, &request, 401);
    assert_eq!(error_code(&body), "forbidden");
    let (head, body) = refusal(&server, &request, 429);
    assert_eq!(error_code(&body), "rate-limited");
    assert!(
        head.contains("\r\nContent-Type: application/json\r\n"),
        "{head}"
    );
    let seconds = head.split_once("\r\nRetry-After: ").expect("a time").1;
    let seconds = seconds.lines().next().expect("a line");
    assert!((90..=101).contains(&seconds.parse::<u64>().expect("whole seconds")));
    // A request with a token is not limited.
    let bearer = format!("Authorization: Bearer {TOKEN}");
    let mut http = Http::connect(&server);
    for _ in 0..3 {
        http.send(post_with(&[JSON, behind, &bearer], &message(C)));
        http.expect(200, r#"{"delivered":0}"#);
    }
    let mut http = Http::connect(&server);
    http.send(post_with(&[JSON, behind], &message(C)));
    assert_eq!(http.receive().0, 429);
}
