//! Publishers' tokens: where they may be, what they excuse, what they don't.

use crate::helpers::secrets::SecretFile;
use crate::helpers::{
    Client, Server, close_reason, delivery, error_code, message, run, subscriber,
};

const TOKEN: &str = "correct-horse-battery-staple";
const NEXT_TOKEN: &str = "another-token-of-some-length";
const C: &str = r#"{"channel":"c"}"#;

fn tokens() -> SecretFile {
    SecretFile::new(&format!("{TOKEN}\n{NEXT_TOKEN}\n"))
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

fn with_token(token: &str) -> String {
    format!(r#"{{"sender":"server","token":"{token}","notification":{C}}}"#)
}

fn assert_forbidden(publisher: &mut Client) {
    assert_eq!(error_code(&publisher.text()), "forbidden");
    let (word, _) = close_reason(&publisher.expect_close(1008));
    assert_eq!(word, "forbidden");
}

#[test]
fn a_token_is_what_it_takes_and_no_address_does() {
    let file = tokens();
    let server = Server::with(&["--publish-token-file", file.path()]);
    let mut client = subscriber(&server, r#"["c"]"#);
    for token in [TOKEN, NEXT_TOKEN] {
        let mut publisher = Client::connect_with(&server, "/", &[&bearer(token)]);
        publisher.send(&message(C));
        assert_eq!(publisher.expect_close(1000), r#"{"delivered":1}"#);
        assert_eq!(client.text(), delivery(C));
    }
    for field in [
        "X-None: none",
        "Authorization: Bearer",
        "Authorization: Basic Y29ycmVjdA==",
        &bearer("correct-horse-battery-stapl"),
        &bearer("correct-horse-battery-staplee"),
        &bearer("CORRECT-HORSE-BATTERY-STAPLE"),
        &bearer(&format!("{TOKEN}\r\n{}", bearer(TOKEN))),
    ] {
        for target in ["/", "/publish", &format!("/publish?token={TOKEN}")] {
            let mut publisher = Client::connect_with(&server, target, &[field]);
            publisher.send(&message(C));
            assert_forbidden(&mut publisher);
        }
    }
    client.send(r#"{"type":"ping"}"#);
    assert_eq!(client.text(), r#"{"type":"pong"}"#);
    assert!(!server.log().contains("may publish."));
    assert!(!server.log().contains("horse"), "tokens are never logged");
}

#[test]
fn a_token_excuses_an_origin_and_what_proxies_add() {
    let file = tokens();
    let server = Server::with(&[
        "--publish-token-file",
        file.path(),
        "--allow-origin",
        "https://app.example.com",
    ]);
    for field in [
        "Origin: https://admin.example.com",
        "X-Forwarded-For: 192.0.2.1",
        "Via: 1.1 proxy",
        "Host: api.example.com",
    ] {
        let mut publisher = Client::connect_with(&server, "/", &[field, &bearer(TOKEN)]);
        publisher.send(&message(C));
        assert_eq!(
            publisher.expect_close(1000),
            r#"{"delivered":0}"#,
            "{field}"
        );
    }
}

#[test]
fn a_token_in_a_message_is_as_good() {
    let file = tokens();
    let server = Server::with(&["--publish-token-file", file.path()]);
    let mut client = subscriber(&server, r#"["c"]"#);
    let mut publisher = Client::connect_with(&server, "/", &["Origin: https://example.com"]);
    publisher.send(&with_token(TOKEN));
    assert_eq!(publisher.expect_close(1000), r#"{"delivered":1}"#);
    assert_eq!(client.text(), delivery(C), "the token goes nowhere");

    // One that stays has shown it once and for all.
    let mut publisher = Client::connect_with(&server, "/publish", &[]);
    publisher.send(&with_token(NEXT_TOKEN));
    publisher.send(&message(C));
    publisher.send(&with_token("wrong, and not looked at any more"));
    for _ in 0..3 {
        assert_eq!(publisher.text(), r#"{"type":"published","delivered":1}"#);
        assert_eq!(client.text(), delivery(C));
    }
    for token in ["wrong-horse-battery-staple", "", "correct\\u0000"] {
        let mut publisher = Client::connect_with(&server, "/publish", &[]);
        publisher.send(&with_token(token));
        assert_forbidden(&mut publisher);
    }
    for text in [
        format!(r#"{{"sender":"server","token":["{TOKEN}"],"notification":{C}}}"#),
        format!(r#"{{"sender":"server","token":"{TOKEN}","token":"{TOKEN}","notification":{C}}}"#),
    ] {
        let mut publisher = Client::connect_with(&server, "/publish", &[]);
        publisher.send(&text);
        assert_forbidden(&mut publisher);
    }
}

#[test]
fn large_messages_take_a_token_at_the_upgrade_or_a_first_message() {
    let file = tokens();
    let server = Server::with(&[
        "--publish-token-file",
        file.path(),
        "--max-message-bytes",
        "1000",
    ]);
    let large = message(&format!(
        r#"{{"channel":"c","text":"{}"}}"#,
        "x".repeat(2000)
    ));
    let mut publisher = Client::connect_with(&server, "/publish", &[&bearer(TOKEN)]);
    publisher.send(&large);
    assert_eq!(publisher.text(), r#"{"type":"published","delivered":0}"#);
    let mut publisher = Client::connect_with(&server, "/publish", &[]);
    publisher.send(&with_token(TOKEN));
    publisher.send(&large);
    for _ in 0..2 {
        assert_eq!(publisher.text(), r#"{"type":"published","delivered":0}"#);
    }
    let mut stranger = Client::connect_with(&server, "/publish", &[]);
    stranger.send(&large);
    stranger.expect_close(1009);
}

#[test]
fn a_lane_and_a_token_hold_together() {
    let file = tokens();
    let server = Server::with(&[
        "--publish-token-file",
        file.path(),
        "--publish-listen",
        "127.0.0.1:0",
    ]);
    let on_lane = || Client::over(Server::tcp_to(server.publish_address()));
    let mut publisher = on_lane().upgrade("/", &[&bearer(TOKEN)]);
    publisher.send(&message(C));
    assert_eq!(publisher.expect_close(1000), r#"{"delivered":0}"#);
    let mut without = on_lane().upgrade("/", &[]);
    without.send(&message(C));
    assert_forbidden(&mut without);
    let mut elsewhere = Client::connect_with(&server, "/", &[&bearer(TOKEN)]);
    elsewhere.send(&with_token(TOKEN));
    assert_forbidden(&mut elsewhere);
}

#[test]
fn a_lane_with_a_token_may_be_open() {
    let file = tokens();
    let server = Server::with(&[
        "--publish-token-file",
        file.path(),
        "--publish-listen",
        "0.0.0.0:0",
    ]);
    server.wait_for_line("listening for publishers on 0.0.0.0:");
}

#[test]
fn behind_a_trusted_proxy_being_local_proves_nothing() {
    let server = Server::with(&["--trusted-proxy", "10.0.0.0/8,127.0.0.1"]);
    server.wait_for_line("Nobody may publish.");
    let mut publisher = Client::connect(&server);
    publisher.send(&message(C));
    assert_forbidden(&mut publisher);
    let file = tokens();
    let flags = ["--trusted-proxy", "127.0.0.1", "--publish-token-file"];
    let server = Server::with(&[&flags[..], &[file.path()]].concat());
    let mut publisher = Client::connect_with(&server, "/", &[&bearer(TOKEN)]);
    publisher.send(&message(C));
    assert_eq!(publisher.expect_close(1000), r#"{"delivered":0}"#);
}

#[test]
fn a_file_that_is_no_secret_or_holds_none_stops_the_start() {
    let refused = |file: &SecretFile| {
        let flags = [
            "--listen",
            "127.0.0.1:0",
            "--publish-token-file",
            file.path(),
        ];
        let ended = run(&flags, "");
        assert_eq!(ended.status, Some(1));
        assert!(!ended.stderr.contains("horse"), "{}", ended.stderr);
        ended.stderr
    };
    let file = tokens();
    for mode in [0o604, 0o620, 0o602, 0o644] {
        file.set_mode(mode);
        assert!(refused(&file).contains("chmod 600"), "{mode:o}");
    }
    for text in ["", "\n\n", "short-horse", &format!("{TOKEN} horse\n")] {
        refused(&SecretFile::new(text));
    }
    let three = [TOKEN, NEXT_TOKEN, "a-third-horse-is-one-too-many"].join("\n");
    refused(&SecretFile::new(&three));
    let missing = ["--publish-token-file", "/nonexistent/tokens"];
    assert_eq!(run(&missing, "").status, Some(1));
}
