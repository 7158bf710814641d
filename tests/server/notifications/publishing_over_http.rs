//! Publishing by HTTP, beside WebSocket on the same port: requests, keep-alive, refusals.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Instant;

use crate::helpers::http::{Http, JSON, figures, post, post_with, refusal};
use crate::helpers::receipts::without_ids;
use crate::helpers::secrets::SecretFile;
use crate::helpers::{
    Client, DEADLINE, Server, delivery, error_code, frame, message, response, subscriber, upgrade,
};

const C: &str = r#"{"channel":"c"}"#;
const TOKEN: &str = "correct-horse-battery-staple";

#[test]
fn notifications_are_posted_one_by_one_and_in_arrays() {
    let server = Server::start();
    let mut client = subscriber(&server, r#"["c"]"#);
    let mut http = Http::connect(&server);
    for body in [
        &message(C),
        &format!(r#"{{"notification":{C}}}"#),
        &format!(
            r#"
            {{ "type" : "notification", "notification" : {C} }} "#
        ),
    ] {
        http.send(post(body));
        http.expect(200, r#"{"delivered":1}"#);
        assert_eq!(client.text(), delivery(C));
    }
    let other = r#"{"channel":"other"}"#;
    let array = format!(
        r#"[{{"type":"x","notification":{C}}}, {}, {}]"#,
        message(other),
        message(C)
    );
    http.send(post(&array));
    http.expect(200, r#"[{"delivered":1},{"delivered":0},{"delivered":1}]"#);
    assert_eq!(
        client.text(),
        format!(r#"{{"type":"x","notification":{C}}}"#)
    );
    assert_eq!(client.text(), delivery(C));
    http.send(post("[]"));
    http.expect(200, "[]");
}

#[test]
fn what_is_refused_leaves_the_connection_and_delivers_nothing() {
    let server = Server::start();
    let mut client = subscriber(&server, r#"["c"]"#);
    let mut http = Http::connect(&server);
    for (body, code) in [
        ("{", "invalid-json"),
        ("", "invalid-json"),
        ("[1", "invalid-json"),
        ("{}", "invalid-notification"),
        ("7", "invalid-notification"),
        (r#"{"notification":{}}"#, "invalid-notification"),
        (
            r#"{"type":"pong","notification":{"channel":"c"}}"#,
            "invalid-notification",
        ),
        (
            r#"{"sender":"client","notification":{"channel":"c"}}"#,
            "unknown-message",
        ),
        (
            r#"[{"notification":{"channel":"c"}},{"notification":{}}]"#,
            "invalid-notification",
        ),
        (
            r#"[{"notification":{"channel":"c"}},7]"#,
            "invalid-notification",
        ),
        (
            r#"[[{"notification":{"channel":"c"}}]]"#,
            "invalid-notification",
        ),
    ] {
        http.send(post(body));
        let (status, head, text) = http.receive();
        assert_eq!(status, 400, "{body}");
        assert!(
            head.contains("\r\nContent-Type: application/json"),
            "{head}"
        );
        assert_eq!(error_code(&text), code, "{body}");
        assert_eq!(
            text.contains(r#""[1]: "#),
            code != "invalid-json" && body.contains(r#",{"n"#) || body.contains(",7"),
            "{text}"
        );
    }
    http.send(post(&message(r#"{"channel":"c","last":1}"#)));
    http.expect(200, r#"{"delivered":1}"#);
    assert_eq!(client.text(), delivery(r#"{"channel":"c","last":1}"#));
    let many = format!("[{}]", vec!["{}"; 1001].join(","));
    http.send(post(&many));
    let (status, _, text) = http.receive();
    assert!(status == 400 && text.contains("1000"), "{text}");
    let mut stream = server.tcp();
    let not_text = [
        post_with(&[JSON, "Connection: close"], "x")
            .trim_end_matches('x')
            .as_bytes(),
        b"\xff",
    ]
    .concat();
    stream.write_all(&not_text).expect("the server reads");
    let (head, body) = response(&mut stream);
    assert!(head.starts_with("HTTP/1.1 400 ") && error_code(&body) == "invalid-json");
}

#[test]
fn requests_in_a_row_are_answered_and_delivered_in_order() {
    const COUNT: usize = 2000;
    let server = Server::start();
    let mut client = subscriber(&server, r#"["c"]"#);
    let notification = |number: usize| format!(r#"{{"channel":"c","number":{number}}}"#);
    let requests: String = (0..COUNT)
        .map(|number| match number % 7 {
            0 => post("{"),
            _ => post(&message(&notification(number))),
        })
        .collect();
    let mut http = Http::connect(&server);
    http.send(requests);
    for number in 0..COUNT {
        let (status, _, body) = http.receive();
        if number % 7 == 0 {
            assert_eq!((status, error_code(&body).as_str()), (400, "invalid-json"));
        } else {
            let body = without_ids(body);
            assert_eq!((status, body.as_str()), (200, r#"{"delivered":1}"#));
            assert_eq!(client.text(), delivery(&notification(number)));
        }
    }
}

#[test]
fn bodies_come_in_chunks_and_in_single_bytes() {
    let server = Server::start();
    let text = message(C);
    let (first, second) = text.split_at(7);
    let chunked = format!(
        "POST /publish HTTP/1.1\r\nHost: localhost\r\n{JSON}; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n\
         {:x}\r\n{first}\r\n{:X};a=b\r\n{second}\r\n0\r\nTrailer: x\r\n\r\n",
        first.len(),
        second.len()
    );
    let mut http = Http::connect(&server);
    http.send(chunked.repeat(2) + &post(&text));
    for _ in 0..3 {
        http.expect(200, r#"{"delivered":0}"#);
    }
    for request in [&chunked, &post(&text)] {
        for byte in request.as_bytes() {
            http.send([*byte]);
        }
        http.expect(200, r#"{"delivered":0}"#);
    }
}

#[test]
fn a_publisher_that_expects_100_continue_gets_it() {
    let server = Server::start();
    let text = message(C);
    let request = post_with(&[JSON, "Expect: 100-continue"], &text);
    let (head, body) = request.split_at(request.len() - text.len());
    let mut http = Http::connect(&server);
    for _ in 0..2 {
        http.send(head);
        let (status, head, _) = http.receive();
        assert_eq!((status, head.as_str()), (100, "HTTP/1.1 100 Continue"));
        http.send(body);
        http.expect(200, r#"{"delivered":0}"#);
    }
    // A request that is refused gets no 100.
    http.send(head.replace("application/json", "text/plain"));
    assert_eq!(http.receive().0, 415);
    http.expect_end();
}

#[test]
fn connections_end_when_their_client_wants_it() {
    let server = Server::start();
    let ending = post_with(&[JSON, "Connection: close"], &message(C));
    let (_, body) = refusal(&server, &ending, 200);
    assert_eq!(without_ids(body), r#"{"delivered":0}"#);
    let (_, body) = refusal(
        &server,
        &post(&message(C)).replace("HTTP/1.1", "HTTP/1.0"),
        200,
    );
    assert_eq!(without_ids(body), r#"{"delivered":0}"#);
    // What is sent behind the last request is not looked at.
    refusal(&server, &(ending + &post(&message(C))), 200);

    let mut http = Http::connect(&server);
    http.send(post(&message(C)));
    http.stream.shutdown(Shutdown::Write).expect("it is there");
    http.expect(200, r#"{"delivered":0}"#);
    http.expect_end();
}

#[test]
fn what_was_sent_whole_is_delivered_despite_a_hang_up() {
    let server = Server::start();
    let mut client = subscriber(&server, r#"["c"]"#);
    let mut stream = server.tcp();
    let cut_off = post(&message(C));
    let requests = post(&message(r#"{"channel":"c","n":1}"#)) + &cut_off[..cut_off.len() - 1];
    stream
        .write_all(requests.as_bytes())
        .expect("the server reads");
    drop(stream);
    assert_eq!(client.text(), delivery(r#"{"channel":"c","n":1}"#));
    Http::connect(&server).send(post(&message(r#"{"channel":"c","n":2}"#)));
    assert_eq!(client.text(), delivery(r#"{"channel":"c","n":2}"#));
}

#[test]
fn requests_that_two_readers_could_understand_in_two_ways() {
    let server = Server::start();
    let mut client = subscriber(&server, r#"["c"]"#);
    let smuggled = post(&message(C));
    let with = |fields: &str, body: &str| {
        format!(
            "POST /publish HTTP/1.1\r\nHost: localhost\r\n{JSON}\r\n{fields}\r\n\r\n{body}{smuggled}"
        )
    };
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 0",
        "Content-Length: 5, 5",
        "Content-Length: +5",
        "Content-Length: 0x5",
        "Content-Length: ",
        "Content-Length : 5",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    ] {
        refusal(&server, &with(fields, "0\r\n\r\n"), 400);
        let elsewhere = with(fields, "0\r\n\r\n").replace("POST /publish", "GET /");
        refusal(&server, &elsewhere, 400);
    }
    for chunks in [
        "0\n\n",
        "0\r\nno field\r\n\r\n",
        "0\r\nT: x\r\n folded\r\n\r\n",
        "0 \r\n\r\n",
        "1\r\nxx\r\n0\r\n\r\n",
        "-1\r\n",
        "\r\n0\r\n\r\n",
        "0x0\r\n\r\n",
    ] {
        refusal(&server, &with("Transfer-Encoding: chunked", chunks), 400);
    }
    refusal(&server, &smuggled.replace("Host: localhost\r\n", ""), 400);
    let last = r#"{"channel":"c","last":1}"#;
    Http::connect(&server).send(post(&message(last)));
    assert_eq!(client.text(), delivery(last), "nothing was smuggled in");
}

#[test]
fn what_a_request_must_be() {
    let server = Server::with(&["--max-publish-bytes", "2000"]);
    let chunks = "Transfer-Encoding: chunked\r\n\r\n7d1\r\n";
    let good = post(&message(C));
    let (head, _) = refusal(&server, &good.replace("POST", "PUT"), 405);
    assert!(head.contains("\r\nAllow: POST"), "{head}");
    refusal(
        &server,
        "GET /publish HTTP/1.1\r\nHost: localhost\r\n\r\n",
        405,
    );
    for kind in [
        "text/plain",
        "application/jsonx",
        "",
        "application/json\r\nContent-Type: application/json",
    ] {
        refusal(&server, &good.replace("application/json", kind), 415);
    }
    refusal(&server, &good.replace(&format!("{JSON}\r\n"), ""), 415);
    let length = format!("Content-Length: {}\r\n", message(C).len());
    refusal(&server, &good.replace(&length, ""), 411);
    refusal(&server, &post(&"x".repeat(2001)), 413);
    refusal(
        &server,
        &good.replace(&format!("{length}\r\n"), chunks),
        413,
    );
    let mut http = Http::connect(&server);
    http.send(post(&format!("{:1$}", message(C), 2000)));
    http.expect(200, r#"{"delivered":0}"#);
    for kind in [
        "APPLICATION/JSON",
        "application/json;charset=UTF-8",
        "application/json ; x",
    ] {
        http.send(good.replace("application/json", kind));
        http.expect(200, r#"{"delivered":0}"#);
    }
}

#[test]
fn permission_is_decided_as_for_an_upgrade() {
    let server = Server::start();
    for field in [
        "Origin: http://localhost",
        "X-Forwarded-For: 192.0.2.1",
        "Cookie: a=b",
    ] {
        let (_, body) = refusal(
            &server,
            &post_with(&["Content-Type: text/plain", field], "{"),
            403,
        );
        assert_eq!(error_code(&body), "forbidden");
    }
    refusal(
        &server,
        &post(&message(C)).replace("Host: localhost", "Host: example.org"),
        403,
    );
    let server = Server::with(&["--no-local-publish"]);
    refusal(&server, &post(&message(C)), 403);
}

#[test]
fn tokens_stand_in_the_head_or_beside_the_notification() {
    let file = SecretFile::new(&format!("{TOKEN}\n"));
    let server = Server::with(&[
        "--publish-token-file",
        file.path(),
        "--max-message-bytes",
        "1000",
    ]);
    let bearer = format!("Authorization: Bearer {TOKEN}");
    let with_token = |token: &str| format!(r#"{{"token":"{token}","notification":{C}}}"#);
    let mut http = Http::connect(&server);
    http.send(post_with(&[JSON, &bearer], &message(C)));
    http.expect(200, r#"{"delivered":0}"#);
    http.send(post(&with_token(TOKEN)));
    http.expect(200, r#"{"delivered":0}"#);
    http.send(post(&format!("[{0},{0}]", with_token(TOKEN))));
    http.expect(200, r#"[{"delivered":0},{"delivered":0}]"#);
    http.send(post_with(
        &[JSON, &bearer],
        &format!("{:1$}", message(C), 1001),
    ));
    http.expect(200, r#"{"delivered":0}"#);
    // What one request has shown does not count for the next.
    http.send(post(&message(C)));
    assert_eq!(http.receive().0, 401);
    http.expect_end();

    for body in [
        &message(C),
        &message("{}"),
        &format!("[{},{}]", with_token(TOKEN), message(C)),
        "[]",
    ] {
        let (head, body) = refusal(&server, &post(body), 401);
        assert!(head.contains("\r\nWWW-Authenticate: Bearer"), "{head}");
        assert_eq!(error_code(&body), "forbidden");
    }
    let wrong = "wrong-horse-battery-staple";
    refusal(&server, &post(&with_token(wrong)), 403);
    let array = format!("[{},{}]", with_token(TOKEN), with_token(wrong));
    refusal(&server, &post(&array), 403);
    let field = format!("Authorization: Bearer {wrong}");
    refusal(
        &server,
        &post_with(&[JSON, &field], &with_token(TOKEN)),
        403,
    );
    // Of a request without a token in its head, only a short body is read.
    refusal(
        &server,
        &post(&format!("{:1$}", with_token(TOKEN), 1001)),
        413,
    );
    assert!(!server.log().contains("horse"), "tokens are never logged");
}

#[test]
fn a_lane_is_where_publishers_post() {
    let server = Server::with(&["--publish-listen", "127.0.0.1:0"]);
    refusal(&server, &post(&message(C)), 403);
    let mut http = Http::over(Server::tcp_to(server.publish_address()));
    http.send(post(&message(C)));
    http.expect(200, r#"{"delivered":0}"#);
}

#[test]
fn a_publisher_keeps_its_place_and_silent_connections_make_room() {
    let server = Server::with(&["--max-connections", "1"]);
    let mut http = Http::connect(&server);
    http.send(post(&message(C)));
    http.expect(200, r#"{"delivered":0}"#);
    let mut full = server.tcp();
    full.write_all(upgrade().as_bytes())
        .expect("the server reads");
    assert!(response(&mut full).0.starts_with("HTTP/1.1 503 "));
    let (head, _) = refusal(&server, &post(&message(C)), 503);
    assert!(head.contains("\r\nRetry-After: "), "{head}");

    // More silent ones than there is spare room: they are let go, the publisher stays.
    let silent: Vec<_> = (0..80).map(|_| server.tcp()).collect();
    let (_, body) = refusal(&server, &post(&message(C)), 503);
    assert_eq!(body, "full\n");
    http.send(post(&message(C)));
    http.expect(200, r#"{"delivered":0}"#);
    drop(silent);

    // Its place is free again when it goes, and when it becomes something else.
    http.send(upgrade() + "");
    let (status, ..) = http.receive();
    assert_eq!(status, 101);
    http.send(frame(0x88, b""));
    http.stream.read_to_end(&mut Vec::new()).expect("the end");
    Client::connect(&server).leave();
}

#[test]
fn slow_bodies_and_silence_are_bounded() {
    let server = Server::with(&["--message-timeout", "0.3"]);
    let request = post(&message(C));
    let (_, body) = refusal(&server, &request[..request.len() - 1], 408);
    assert!(!body.is_empty());
    let mut http = Http::connect(&server);
    http.send(&request);
    http.expect(200, r#"{"delivered":0}"#);
    // Without a word, that would be taken for the answer to the next request.
    http.expect_end();

    let server = Server::with(&["--handshake-timeout", "0.3"]);
    let mut http = Http::connect(&server);
    http.send(&request);
    http.expect(200, r#"{"delivered":0}"#);
    http.send("POST /publish HT");
    assert_eq!(http.receive().0, 408);
    http.expect_end();
}

#[test]
fn bodies_count_against_the_budget_of_all_buffers() {
    let server = Server::with(&[
        "--buffer-bytes",
        "1048576",
        "--max-publish-bytes",
        "4000000",
    ]);
    let mut http = Http::connect(&server);
    http.send(post(&message(C)));
    http.expect(200, r#"{"delivered":0}"#);
    let large = post(&"x".repeat(3_000_000));
    let mut slow = server.tcp();
    slow.write_all(&large.as_bytes()[..2_000_000])
        .expect("the server reads");
    assert!(response(&mut slow).0.starts_with("HTTP/1.1 503 "));
    http.send(post(&message(C)));
    http.expect(200, r#"{"delivered":0}"#);
}

#[test]
fn at_a_stop_requests_under_way_are_told_and_idle_connections_end() {
    let mut server = Server::start();
    let mut idle = Http::connect(&server);
    idle.send(post(&message(C)));
    idle.expect(200, r#"{"delivered":0}"#);
    let mut slow = Http::connect(&server);
    let request = post_with(&[JSON, "Expect: 100-continue"], &message(C));
    slow.send(&request[..request.len() - 1]);
    assert_eq!(slow.receive().0, 100);
    server.terminate();
    let (status, head, _) = slow.receive();
    assert!(
        status == 503 && head.contains("\r\nRetry-After: "),
        "{head}"
    );
    slow.expect_end();
    idle.expect_end();
    drop((slow, idle));
    assert_eq!(server.wait().status, Some(0));
}

#[test]
fn probes_are_answered_and_keep_their_connection() {
    let server = Server::start();
    let mut http = Http::connect(&server);
    for path in ["/healthz", "/livez", "/livez?x"] {
        http.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        http.expect(200, "ok\n");
        http.send(format!("HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let head = http.receive_head();
        assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\nContent-Length: 3"));
    }
    refusal(&server, "POST /livez HTTP/1.1\r\nHost: a\r\n\r\n", 405);
    refusal(
        &server,
        "GET /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        200,
    );
    for path in ["/nothing", "/publish/", "/healthz/"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        let (_, body) = refusal(&server, &request, 404);
        assert!(!body.is_empty() && body.len() < 100, "{body}");
    }
    let mut stream = server.tcp();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .expect("the server reads");
    assert!(response(&mut stream).0.starts_with("HTTP/1.1 426 "));
}

#[test]
fn an_early_refusal_ends_a_row_and_what_came_before_counts() {
    let server = Server::start();
    let mut client = subscriber(&server, r#"["c"]"#);
    // Larger than what is read at once: most of it is still to come when it is refused.
    let large = format!(r#"{{"channel":"c","x":"{}"}}"#, "x".repeat(500_000));
    for refused in [
        post_with(&["Content-Type: text/plain"], &message(&large)),
        post_with(&[JSON, "Origin: http://a.example"], &message(&large)),
        post(&"x".repeat(1_100_000)),
    ] {
        let mut http = Http::connect(&server);
        http.send([post(&message(C)), refused, post(&message(C))].concat());
        http.expect(200, r#"{"delivered":1}"#);
        let (status, head, _) = http.receive();
        assert!((400..500).contains(&status), "{head}");
        assert!(head.contains("\r\nConnection: close\r\n"), "{head}");
        // The answer is not lost to a reset, though its request was never read to the end.
        http.expect_end();
        assert_eq!(client.text(), delivery(C));
    }
    client.send(r#"{"type":"ping"}"#);
    assert_eq!(client.text(), r#"{"type":"pong"}"#, "nothing came behind");
}

#[test]
fn a_client_that_sends_no_more_is_answered_to_the_end() {
    let server = Server::start();
    let mut stream = server.narrow_tcp();
    let request = "GET /crieur.js HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream
        .write_all(request.repeat(30).as_bytes())
        .expect("the server reads");
    stream.shutdown(Shutdown::Write).expect("a socket");
    // The socket doesn't take all of it at once.
    let since = Instant::now();
    while !figures(&server).contains("\ncrieur_connections{role=\"closing\"} 1\n") {
        assert!(since.elapsed() < DEADLINE, "its end is not seen");
    }
    let mut http = Http::over(stream);
    for _ in 0..30 {
        let (status, _, body) = http.receive();
        assert_eq!(status, 200);
        assert!(body.contains("export class Crieur "));
    }
    http.expect_end();
}
