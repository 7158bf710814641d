//! `GET /position`: how far the log is, for whoever may publish.

use crate::helpers::http::{Http, post, refusal};
use crate::helpers::numbered::{
    caught_up, id_of, numbered, numbered_subscriber, position, publish_kept, resume, resumed,
};
use crate::helpers::secrets::SecretFile;
use crate::helpers::{Client, Server, error_code, message, publish_message};

const C: &str = r#"{"channel":"c"}"#;
const TOKEN: &str = "correct-horse-battery-staple";

fn ask_with(method: &str, fields: &[&str]) -> String {
    let lines: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    format!("{method} /position HTTP/1.1\r\n{lines}\r\n")
}

#[test]
fn there_is_a_position_ahead_of_the_first_notification() {
    let server = Server::start();
    let start = position(&server);
    assert_eq!(position(&server), start);
    let (mut client, answer) = resume(&server, r#"["c"]"#, &start);
    assert_eq!(answer, resumed(1, &start));
    assert_eq!(client.whole_text(), caught_up(&start, 0));
    let id = publish_kept(&server, C);
    assert_eq!(client.whole_text(), numbered(&id, C));
    assert_eq!(position(&server), id);
    let (mut late, _) = resume(&server, r#"["c"]"#, &start);
    late.expect_texts(&[numbered(&id, C), caught_up(&id, 1)]);
}

#[test]
fn the_position_is_the_id_of_the_last_notification() {
    let server = Server::start();
    for _ in 0..5 {
        let id = publish_kept(&server, C);
        assert_eq!(position(&server), id);
    }
    let before = position(&server);
    let unkept = format!(r#"{{"sender":"server","keep":false,"notification":{C}}}"#);
    let mut publisher = Client::connect(&server);
    publisher.send(&unkept);
    assert_eq!(publisher.expect_whole_close(1000), r#"{"delivered":0}"#);
    assert_eq!(position(&server), before);
}

#[test]
fn a_page_that_subscribes_since_the_position_misses_nothing_behind_it() {
    let server = Server::start();
    publish_kept(&server, C);
    let read_first = position(&server);
    let between = publish_kept(&server, C);
    let (mut page, answer) = resume(&server, r#"["c"]"#, &read_first);
    assert_eq!(answer, resumed(1, &read_first));
    page.expect_texts(&[numbered(&between, C), caught_up(&between, 1)]);
}

#[test]
fn the_position_is_read_and_not_kept_by_caches() {
    let server = Server::start();
    let mut http = Http::connect(&server);
    let mut lengths = Vec::new();
    for method in ["GET", "HEAD"] {
        http.send(ask_with(method, &["Host: localhost"]));
        let head = http.receive_head();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(
            head.contains("\r\nContent-Type: application/json"),
            "{head}"
        );
        assert!(head.contains("\r\nCache-Control: no-store"), "{head}");
        let length = head
            .lines()
            .find(|line| line.starts_with("Content-Length: "));
        lengths.push(length.expect("a length").to_owned());
        if method == "GET" {
            let length: usize = lengths[0][16..].parse().expect("a number");
            while http.unread.len() < length {
                http.read_more();
            }
            http.unread.drain(..length);
        }
    }
    assert_eq!(lengths[0], lengths[1]);
    // Its query is ignored.
    http.send("GET /position?x=1 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let (status, _, body) = http.receive();
    assert_eq!((status, id_of(&body)), (200, position(&server)));
}

#[test]
fn the_position_can_only_be_read() {
    let server = Server::start();
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let request = ask_with(method, &["Host: localhost", "Content-Length: 0"]);
        let mut http = Http::connect(&server);
        http.send(request);
        let (status, head, _) = http.receive();
        assert_eq!(status, 405, "{method}");
        assert!(head.contains("\r\nAllow: GET, HEAD"), "{head}");
    }
}

#[test]
fn the_position_is_for_those_who_may_publish() {
    let server = Server::start();
    for fields in [
        &["Host: api.example.com"][..],
        &["Host: localhost", "X-Forwarded-For: 192.0.2.1"],
        &["Host: localhost", "Origin: https://example.com"],
    ] {
        let mut http = Http::connect(&server);
        http.send(ask_with("GET", fields));
        let (status, _, body) = http.receive();
        assert_eq!(status, 403, "{fields:?}");
        assert_eq!(error_code(&body), "forbidden");
    }
}

#[test]
fn where_publishers_have_tokens_the_position_wants_one() {
    let file = SecretFile::new(TOKEN);
    let server = Server::with(&["--publish-token-file", file.path()]);
    let good = format!("Authorization: Bearer {TOKEN}");
    let mut http = Http::connect(&server);
    http.send(ask_with("GET", &["Host: localhost"]));
    let (status, head, body) = http.receive();
    assert_eq!((status, &error_code(&body)[..]), (401, "forbidden"));
    assert!(head.contains("\r\nWWW-Authenticate: Bearer"), "{head}");
    let mut http = Http::connect(&server);
    http.send(ask_with(
        "GET",
        &["Host: localhost", "Authorization: Bearer no"],
    ));
    let (status, _, body) = http.receive();
    assert_eq!((status, &error_code(&body)[..]), (403, "forbidden"));
    let mut http = Http::connect(&server);
    http.send(ask_with("GET", &["Host: api.example.com", &good]));
    let (status, _, body) = http.receive();
    assert_eq!(status, 200, "{body}");
    id_of(&body);
}

#[test]
fn the_position_is_told_on_the_publishers_lane_alone_where_there_is_one() {
    let server = Server::with(&["--publish-listen", "127.0.0.1:0"]);
    let mut http = Http::connect(&server);
    http.send(ask_with("GET", &["Host: localhost"]));
    assert_eq!(http.receive().0, 403);
    let mut http = Http::over(Server::tcp_to(server.publish_address()));
    http.send(ask_with("GET", &["Host: localhost"]));
    let (status, _, body) = http.receive();
    assert_eq!(status, 200, "{body}");
    let start = id_of(&body);
    http.send(post(&message(C)));
    http.expect(200, r#"{"delivered":0}"#);
    http.send(ask_with("GET", &["Host: localhost"]));
    assert_ne!(id_of(&http.receive().2), start);
}

#[test]
fn a_connection_is_kept_between_positions_and_notifications() {
    let server = Server::start();
    let mut client = numbered_subscriber(&server, r#"["c"]"#);
    let mut http = Http::connect(&server);
    for _ in 0..3 {
        http.send(post(&message(C)) + &ask_with("GET", &["Host: localhost"]));
        http.expect(200, r#"{"delivered":1}"#);
        let id = id_of(&http.receive().2);
        assert_eq!(client.whole_text(), numbered(&id, C));
    }
    publish_message(&server, &message(C));
    let ending = ask_with("GET", &["Host: localhost", "Connection: close"]);
    id_of(&refusal(&server, &ending, 200).1);
}
