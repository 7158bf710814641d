//! Clients' tokens: what a client may subscribe to, and for how long it is one.

use std::time::{Duration, Instant};

use crate::helpers::secrets::{
    KEY, OTHER_KEY, SecretFile, sign, sign_with_header, token, unix_now,
};
use crate::helpers::{Client, Server, close_reason, delivery, error_code, publish, run};

const C: &str = r#"{"channel":"c"}"#;
const D: &str = r#"{"channel":"d"}"#;

fn server(flags: &[&str]) -> (Server, SecretFile) {
    let file = SecretFile::new(&format!("{OTHER_KEY}\n{KEY}\n"));
    let all = [&["--client-key-file", file.path()], flags].concat();
    (Server::with(&all), file)
}

/// From elsewhere: a local peer may publish and needs no token for that.
const FOREIGN: &str = "Host: api.example.com";

fn connect(server: &Server) -> Client {
    Client::connect_with(server, "/", &[FOREIGN])
}

fn subscribe(client: &mut Client, token: &str, subscriptions: &str) {
    client.send(&format!(
        r#"{{"sender":"client","token":"{token}","subscriptions":{subscriptions}}}"#
    ));
}

fn expect_subscribed(client: &mut Client) {
    let answer = client.text();
    assert!(answer.starts_with(r#"{"type":"subscribed","#), "{answer}");
}

fn expect_3000(client: &mut Client, reason: &str) {
    let (word, _) = close_reason(&client.expect_close(3000));
    assert_eq!(word, reason);
    client.answer_close(3000);
}

#[test]
fn a_token_may_stand_in_three_places() {
    let (server, _file) = server(&[]);
    let token = token(r#"["c"]"#, 60.0);
    let mut by_message = connect(&server);
    subscribe(&mut by_message, &token, r#"["c"]"#);
    expect_subscribed(&mut by_message);
    let field = format!("Authorization: Bearer {token}");
    let mut by_field = Client::connect_with(&server, "/", &[FOREIGN, &field]);
    by_field.subscribe(r#"["c"]"#);
    let target = format!("/ws?v=1&token={token}");
    let mut by_target = Client::connect_with(&server, &target, &[FOREIGN]);
    by_target.subscribe(r#"["c"]"#);
    assert_eq!(publish(&server, C), r#"{"delivered":3}"#);
    for client in [&mut by_message, &mut by_field, &mut by_target] {
        assert_eq!(client.text(), delivery(C));
    }
    // What was shown once holds for later messages.
    by_message.subscribe("[]");
    by_message.subscribe(r#"["c"]"#);
    let signature = token.rsplit('.').next().expect("three parts");
    assert!(!server.log().contains(signature), "tokens are never logged");
}

#[test]
fn only_what_the_token_covers_may_be_subscribed_to() {
    let (server, _file) = server(&[]);
    let allow = r#"["c",{"package":"p","page":"q","filters":{"values":{"channel":["2","5"]}}}]"#;
    let mut client = connect(&server);
    subscribe(&mut client, &token(allow, 60.0), r#"["c"]"#);
    expect_subscribed(&mut client);
    let on_page =
        |values: &str| format!(r#"{{"package":"p","page":"q","filters":{{"values":{values}}}}}"#);
    for allowed in [
        on_page(r#"{"channel":"2"}"#),
        on_page(r#"{"channel":["5",2]}"#),
        on_page(r#"{"channel":["2"],"severity":true}"#),
    ] {
        client.subscribe(&format!("[{allowed}]"));
    }
    client.subscribe(r#"["c"]"#);
    for (position, list) in [
        (0, r#"["d"]"#.to_owned()),
        (1, r#"["c","d"]"#.to_owned()),
        (0, format!("[{}]", on_page("true"))),
        (0, format!("[{}]", on_page(r#"{"channel":["2","3"]}"#))),
        (0, format!("[{}]", on_page(r#"{"channel":true}"#))),
        (0, format!("[{}]", on_page(r#"["2"]"#))),
        (1, format!(r#"["c",{}]"#, on_page(r#"{"severity":"2"}"#))),
    ] {
        client.send(&format!(r#"{{"sender":"client","subscriptions":{list}}}"#));
        let error = client.text();
        assert_eq!(error_code(&error), "forbidden", "{list}");
        assert!(
            error.contains(&format!("subscriptions[{position}]")),
            "{error}"
        );
    }
    assert_eq!(publish(&server, D), r#"{"delivered":0}"#);
    assert_eq!(
        publish(&server, C),
        r#"{"delivered":1}"#,
        "the earlier set stays"
    );
    assert_eq!(client.text(), delivery(C));
}

#[test]
fn without_allow_there_is_nothing() {
    let (server, _file) = server(&[]);
    let nothing = sign(KEY, &format!(r#"{{"exp":{}}}"#, unix_now() + 60.0));
    let mut client = connect(&server);
    subscribe(&mut client, &nothing, r#"["c"]"#);
    assert_eq!(error_code(&client.text()), "forbidden");
    subscribe(&mut client, &nothing, "[]");
    expect_subscribed(&mut client);
}

#[test]
fn a_new_token_counts_with_its_subscriptions_or_not_at_all() {
    let (server, _file) = server(&[]);
    let mut client = connect(&server);
    subscribe(&mut client, &token(r#"["c"]"#, 60.0), r#"["c"]"#);
    expect_subscribed(&mut client);
    let narrow = token(r#"["d"]"#, 600.0);
    subscribe(&mut client, &narrow, r#"["c"]"#);
    assert_eq!(error_code(&client.text()), "forbidden");
    client.send(r#"{"sender":"client","subscriptions":["d"]}"#);
    assert_eq!(
        error_code(&client.text()),
        "forbidden",
        "the refused token is forgotten"
    );
    client.subscribe(r#"["c"]"#);
    subscribe(&mut client, &narrow, r#"["d"]"#);
    expect_subscribed(&mut client);
    assert_eq!(publish(&server, C), r#"{"delivered":0}"#);
    assert_eq!(publish(&server, D), r#"{"delivered":1}"#);
}

#[test]
fn a_bad_token_is_told_by_a_close_behind_the_101() {
    let (server, _file) = server(&[]);
    let good = token(r#"["c"]"#, 60.0);
    let claims = format!(r#"{{"exp":{},"allow":["c"]}}"#, unix_now() + 60.0);
    let expired = token(r#"["c"]"#, -31.0);
    for (bad, reason) in [
        ("nonsense", "token-invalid"),
        (&format!("{good}x"), "token-invalid"),
        (&format!("{good}="), "token-invalid"),
        (
            &sign("another key that has 32 bytes too", &claims),
            "token-invalid",
        ),
        (
            &sign_with_header(KEY, r#"{"alg":"none"}"#, &claims),
            "token-invalid",
        ),
        (
            &sign_with_header(KEY, r#"{"alg":"HS512"}"#, &claims),
            "token-invalid",
        ),
        (
            &sign_with_header(
                KEY,
                r#"{"alg":"HS256","crit":["b64"],"b64":false}"#,
                &claims,
            ),
            "token-invalid",
        ),
        (&sign(KEY, r#"{"allow":["c"]}"#), "token-invalid"),
        (
            &sign(KEY, r#"{"exp":99999999999,"nbf":99999999998}"#),
            "token-invalid",
        ),
        (&expired, "token-expired"),
    ] {
        let field = format!("Authorization: Bearer {bad}");
        let mut client = Client::connect_with(&server, "/", &[FOREIGN, &field]);
        expect_3000(&mut client, reason);
        let target = format!("/?token={bad}");
        let mut client = Client::connect_with(&server, &target, &[FOREIGN]);
        // What it says meanwhile is not followed.
        client.send(r#"{"sender":"client","subscriptions":["c"]}"#);
        expect_3000(&mut client, reason);
        let mut client = connect(&server);
        subscribe(&mut client, bad, r#"["c"]"#);
        expect_3000(&mut client, reason);
    }
    assert_eq!(publish(&server, C), r#"{"delivered":0}"#);
}

#[test]
fn the_leeway_is_thirty_seconds() {
    let (server, _file) = server(&[]);
    let mut client = connect(&server);
    subscribe(&mut client, &token(r#"["c"]"#, -15.0), r#"["c"]"#);
    expect_subscribed(&mut client);
    let soon = unix_now() + 15.0;
    let later = unix_now() + 60.0;
    let not_yet = sign(
        KEY,
        &format!(r#"{{"exp":{later},"nbf":{soon},"allow":["c"]}}"#),
    );
    subscribe(&mut client, &not_yet, r#"["c"]"#);
    expect_subscribed(&mut client);
}

#[test]
fn subscribing_without_a_token_closes() {
    let (server, _file) = server(&[]);
    let mut client = connect(&server);
    client.send(r#"{"type":"ping"}"#);
    assert_eq!(client.text(), r#"{"type":"pong"}"#);
    client.send(r#"{"sender":"client","subscriptions":["c"]}"#);
    expect_3000(&mut client, "token-missing");
}

#[test]
fn a_client_that_shows_no_token_in_time_is_closed() {
    let (server, _file) = server(&["--token-timeout", "0.3"]);
    let start = Instant::now();
    let mut silent = connect(&server);
    let mut local = Client::connect(&server);
    let mut shown = connect(&server);
    subscribe(&mut shown, &token(r#"["c"]"#, 60.0), r#"["c"]"#);
    expect_subscribed(&mut shown);
    expect_3000(&mut silent, "token-missing");
    assert!(start.elapsed() >= Duration::from_millis(300));
    // A publisher has no need of one.
    local.send(&crate::helpers::message(C));
    assert_eq!(local.expect_close(1000), r#"{"delivered":1}"#);
    assert_eq!(shown.text(), delivery(C));
}

#[test]
fn a_token_ends_when_it_says_and_a_newer_one_goes_on() {
    let (server, _file) = server(&[]);
    let start = Instant::now();
    let short = token(r#"["c"]"#, 1.0);
    let mut ends = connect(&server);
    subscribe(&mut ends, &short, r#"["c"]"#);
    expect_subscribed(&mut ends);
    let target = format!("/?token={short}");
    let mut ends_too = Client::connect_with(&server, &target, &[FOREIGN]);
    ends_too.subscribe(r#"["c"]"#);
    let mut goes_on = connect(&server);
    subscribe(&mut goes_on, &short, r#"["c"]"#);
    expect_subscribed(&mut goes_on);
    subscribe(&mut goes_on, &token(r#"["c"]"#, 60.0), r#"["c"]"#);
    expect_subscribed(&mut goes_on);
    expect_3000(&mut ends, "token-expired");
    expect_3000(&mut ends_too, "token-expired");
    assert!(start.elapsed() >= Duration::from_millis(800));
    assert_eq!(publish(&server, C), r#"{"delivered":1}"#);
    assert_eq!(goes_on.text(), delivery(C));
}

#[test]
fn without_keys_tokens_are_nobodys_business() {
    let server = Server::start();
    let mut client = Client::connect_with(&server, "/?token=x", &["Authorization: Bearer y"]);
    subscribe(&mut client, "z", r#"["c"]"#);
    expect_subscribed(&mut client);
}

#[test]
fn keys_are_long_and_secret() {
    for text in ["too short", "", &[KEY, OTHER_KEY, KEY].join("\n")] {
        let file = SecretFile::new(text);
        let ended = run(&["--client-key-file", file.path()], "");
        assert_eq!(ended.status, Some(1), "{text:?}");
    }
    let file = SecretFile::new(KEY);
    file.set_mode(0o644);
    let ended = run(&["--client-key-file", file.path()], "");
    assert!(ended.stderr.contains("chmod 600"), "{}", ended.stderr);
}

#[test]
fn a_publisher_may_be_a_client_too() {
    let tokens = SecretFile::new("correct-horse-battery-staple");
    let (server, _file) = server(&["--publish-token-file", tokens.path()]);
    // Its own token is no client's, and none is awaited.
    let field = "Authorization: Bearer correct-horse-battery-staple";
    let mut publisher = Client::connect_with(&server, "/publish", &[FOREIGN, field]);
    publisher.send(&crate::helpers::message(C));
    assert_eq!(publisher.text(), r#"{"type":"published","delivered":0}"#);
    let mut both = connect(&server);
    subscribe(&mut both, &token(r#"["c"]"#, 1.5), r#"["c"]"#);
    expect_subscribed(&mut both);
    both.send(&format!(
        r#"{{"sender":"server","token":"correct-horse-battery-staple","notification":{D}}}"#
    ));
    assert_eq!(both.expect_close(1000), r#"{"delivered":0}"#);

    let target = format!("/publish?token={}", token(r#"["c"]"#, 1.5));
    let mut both = Client::connect_with(&server, &target, &[FOREIGN]);
    both.subscribe(r#"["c"]"#);
    both.send(&format!(
        r#"{{"sender":"server","token":"correct-horse-battery-staple","notification":{C}}}"#
    ));
    let texts = [both.text(), both.text()];
    assert!(texts.contains(&delivery(C)), "{texts:?}");
    both.subscribe(r#"["c"]"#);
    expect_3000(&mut both, "token-expired");
}

#[test]
fn a_local_peer_that_shows_a_token_is_a_client() {
    let (server, _file) = server(&[]);
    let target = format!("/?token={}", token(r#"["c"]"#, 60.0));
    let mut client = Client::connect_with(&server, &target, &[]);
    client.subscribe(r#"["c"]"#);
    let mut bad = Client::connect_with(&server, "/?token=nonsense", &[]);
    expect_3000(&mut bad, "token-invalid");
}
