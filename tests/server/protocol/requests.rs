//! What a request must be, whatever it asks for, and what every response to one has (RFC 9110, RFC 9112).

use std::io::{Read, Write};
use std::time::UNIX_EPOCH;

use crate::helpers::http::{Http, JSON, post, refusal};
use crate::helpers::{Server, UPGRADE_FIELDS, message};

const C: &str = r#"{"channel":"c"}"#;

/// Requests for what there is and what there isn't, in `version`, with `fields` in place of `Host`.
fn requests(version: &str, fields: &str) -> Vec<String> {
    let body = message(C);
    let upgrade: String = UPGRADE_FIELDS[1..]
        .iter()
        .map(|field| format!("{field}\r\n"))
        .collect();
    let post = format!("{JSON}\r\nContent-Length: {}\r\n", body.len());
    [
        ("GET /crieur.js", "", ""),
        ("GET /", "", ""),
        ("GET /healthz", "", ""),
        ("GET /metrics", "", ""),
        ("GET /nothing", "", ""),
        ("OPTIONS *", "", ""),
        ("POST /publish", &post, &body),
        ("GET /", &upgrade, ""),
        ("GET /publish", &upgrade, ""),
    ]
    .iter()
    .map(|(line, own, body)| format!("{line} {version}\r\n{fields}{own}\r\n{body}"))
    .collect()
}

#[test]
fn every_request_has_exactly_one_host() {
    let server = Server::start();
    for (fields, why) in [
        ("", "Host is missing"),
        (
            "Host: localhost\r\nhost: localhost\r\n",
            "Host must be given once",
        ),
        ("Host: a b/?@\r\n", "Host must be a host"),
        ("Host: user@localhost\r\n", "Host must be a host"),
        ("Host: localhost:http\r\n", "Host must be a host"),
        ("Host: [::1\r\n", "Host must be a host"),
    ] {
        for request in requests("HTTP/1.1", fields) {
            let (_, body) = refusal(&server, &request, 400);
            assert!(body.starts_with(why), "{request:?}: {body}");
        }
    }
    for request in requests("HTTP/1.0", "Host: a b\r\n") {
        refusal(&server, &request, 400);
    }
    let named_twice = "GET http://user@localhost/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    refusal(&server, named_twice, 400);
    refusal(&server, "GET /healthz HTTP/1.0\r\n\r\n", 200);
    let close = "Connection: close\r\n\r\n";
    for host in ["", "localhost:", "[::1]:8000", "any_name.example"] {
        let request = format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\n{close}");
        refusal(&server, &request, 200);
    }
}

#[test]
fn every_response_has_the_date() {
    let server = Server::with(&["--handshake-timeout", "0.2"]);
    let now = || {
        let since = UNIX_EPOCH.elapsed().expect("a clock that is right");
        i64::try_from(since.as_secs()).expect("a clock that is right")
    };
    let began = now();
    for (request, status) in [
        ("GET /healthz HTTP/1.0\r\n\r\n", 200),
        ("GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        ("no request\r\n\r\n", 400),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
            400,
        ),
        ("GET / HT", 408),
    ] {
        let (head, _) = refusal(&server, request, status);
        let date = head.lines().find_map(|line| line.strip_prefix("Date: "));
        let date = date.expect("a date");
        assert!(date.len() == 29 && date.ends_with(" GMT"), "{date}");
        let written = httpdate::parse_http_date(date).expect(date);
        let since_epoch = written.duration_since(UNIX_EPOCH).expect("after 1970");
        assert!(
            (began..=now()).contains(&(since_epoch.as_secs() as i64)),
            "{date}"
        );
    }
}

#[test]
fn head_gets_no_body_whatever_the_answer() {
    let server = Server::with(&["--handshake-timeout", "0.2", "--max-head-bytes", "1000"]);
    let upgrade = crate::helpers::upgrade().replace("GET", "HEAD");
    let long = format!("HEAD / HTTP/1.1\r\nX: {}", "x".repeat(1000));
    for (request, status) in [
        (
            "HEAD /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            200,
        ),
        ("HEAD /crieur.js HTTP/1.0\r\n\r\n", 200),
        ("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", 426),
        ("HEAD /nothing HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        ("HEAD /publish HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        ("HEAD /metrics HTTP/1.1\r\nHost: a\r\n\r\n", 403),
        ("HEAD /healthz HTTP/1.1\r\n\r\n", 400),
        ("HEAD /healthz HTTP/1.1\r\nno field\r\n\r\n", 400),
        (
            "HEAD /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
            400,
        ),
        ("HEAD /healthz HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        ("HEAD /healthz HT", 408),
        (&upgrade, 405),
        (&long, 431),
    ] {
        let mut stream = server.tcp();
        let sent = stream.write_all(request.as_bytes());
        sent.expect("the server reads");
        let mut head = String::new();
        let read = stream.read_to_string(&mut head);
        read.expect("text, then the end");
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request:?}: {head}"
        );
        assert!(
            head.ends_with("\r\n\r\n") && head.matches("\r\n\r\n").count() == 1,
            "{head}"
        );
        assert!(
            head.contains("\r\nContent-Length: ") && !head.contains("Length: 0"),
            "{head}"
        );
    }
    let mut http = Http::connect(&server);
    http.send("HEAD /healthz HTTP/1.1\r\nHost: a\r\n\r\nGET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
    http.receive_head();
    http.expect(200, "ok\n");
}

#[test]
fn an_upgrade_in_http_1_0_is_ignored() {
    let server = Server::start();
    let fields = "Upgrade: websocket\r\nConnection: upgrade\r\n";
    for (path, status) in [("/healthz", 200), ("/crieur.js", 200), ("/nothing", 404)] {
        refusal(
            &server,
            &format!("GET {path} HTTP/1.0\r\n{fields}\r\n"),
            status,
        );
    }
}

#[test]
fn empty_lines_between_requests_are_passed_over() {
    let server = Server::start();
    let mut http = Http::connect(&server);
    let request = format!("{}\r\n", post(&message(C)));
    http.send(format!("\r\n{}", request.repeat(3)));
    for _ in 0..3 {
        http.expect(200, r#"{"delivered":0}"#);
    }
    http.send("\r\n".repeat(100));
    assert_eq!(http.receive().0, 400, "not for ever");
    http.expect_end();
}
