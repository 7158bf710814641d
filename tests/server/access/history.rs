//! What the token of a client says of what was published before.

use crate::helpers::numbered::{
    caught_up, list_since, not_resumed, numbered, position, publish_kept, resumed, subscribed,
};
use crate::helpers::secrets::{KEY, SecretFile, sign, unix_now};
use crate::helpers::{Client, Server, error_code};

const C: &str = r#"{"channel":"c"}"#;
const D: &str = r#"{"channel":"d"}"#;

/// From elsewhere: a local peer may publish and needs no token for that.
const FOREIGN: &str = "Host: api.example.com";

/// A token for the channels c and d with one more claim, or none.
fn token(claim: &str) -> String {
    let exp = unix_now() + 60.0;
    let claims = format!(r#"{{"sub":"bob","exp":{exp},"allow":["c","d"]{claim}}}"#);
    sign(KEY, &claims)
}

fn server() -> (Server, SecretFile) {
    let file = SecretFile::new(KEY);
    (Server::with(&["--client-key-file", file.path()]), file)
}

fn list(token: &str, subscriptions: &str, since: &str) -> String {
    list_since(subscriptions, since).replacen('{', &format!(r#"{{"token":"{token}","#), 1)
}

/// The answer to a client that shows `token` and `since` with a list of one.
fn show(server: &Server, token: &str, since: &str) -> (Client, String) {
    let mut client = Client::connect_with(server, "/", &[FOREIGN]);
    client.send(&list(token, r#"["c"]"#, since));
    let answer = client.whole_text();
    (client, answer)
}

#[test]
fn a_token_without_history_resumes_nothing() {
    let (server, _file) = server();
    let start = position(&server);
    let id = publish_kept(&server, C);
    let withheld = token(r#","history":false"#);
    for since in [&start, &id, "nonsense"] {
        let (mut client, answer) = show(&server, &withheld, since);
        assert_eq!(answer, not_resumed(1, &position(&server), "forbidden"));
        // It is live all the same, and numbered.
        let next = publish_kept(&server, C);
        assert_eq!(client.whole_text(), numbered(&next, C));
    }
    let (_, answer) = show(&server, &withheld, "");
    assert_eq!(answer, subscribed(1, &position(&server)));
}

#[test]
fn a_token_with_history_resumes() {
    let (server, _file) = server();
    let start = position(&server);
    let id = publish_kept(&server, C);
    for claim in ["", r#","history":true"#] {
        let (mut client, answer) = show(&server, &token(claim), &start);
        assert_eq!(answer, resumed(1, &start), "{claim}");
        client.expect_texts(&[numbered(&id, C), caught_up(&id, 1)]);
    }
}

#[test]
fn a_claim_that_is_neither_grants_nothing() {
    let (server, _file) = server();
    let start = position(&server);
    for claim in [
        r#","history":null"#,
        r#","history":0"#,
        r#","history":1"#,
        r#","history":"true""#,
        r#","history":[]"#,
    ] {
        let (_, answer) = show(&server, &token(claim), &start);
        assert!(!answer.contains(r#""resumed":true"#), "{claim}: {answer}");
    }
}

#[test]
fn the_token_that_comes_with_the_list_decides() {
    let (server, _file) = server();
    let start = position(&server);
    let id = publish_kept(&server, C);
    let (granted, withheld) = (token(""), token(r#","history":false"#));
    let mut client = Client::connect_with(&server, "/", &[FOREIGN]);
    for _ in 0..2 {
        client.send(&list(&withheld, r#"["c"]"#, &start));
        assert_eq!(client.whole_text(), not_resumed(1, &id, "forbidden"));
        // One without a token comes by the one before.
        client.send(&list_since(r#"["c"]"#, &start));
        assert_eq!(client.whole_text(), not_resumed(1, &id, "forbidden"));
        client.send(&list(&granted, r#"["c"]"#, &start));
        assert_eq!(client.whole_text(), resumed(1, &start));
        client.expect_texts(&[numbered(&id, C), caught_up(&id, 1)]);
        client.send(&list_since(r#"["c"]"#, &start));
        assert_eq!(client.whole_text(), resumed(1, &start));
        client.expect_texts(&[numbered(&id, C), caught_up(&id, 1)]);
    }
}

#[test]
fn what_the_token_does_not_allow_is_not_caught_up_with() {
    let (server, _file) = server();
    let start = position(&server);
    publish_kept(&server, r#"{"channel":"secret"}"#);
    let id = publish_kept(&server, D);
    let mut client = Client::connect_with(&server, "/", &[FOREIGN]);
    let token = token("");
    client.send(&list(&token, r#"["c","secret"]"#, &start));
    assert_eq!(error_code(&client.whole_text()), "forbidden");
    client.send(&list(&token, r#"["c","d"]"#, &start));
    assert_eq!(client.whole_text(), resumed(2, &start));
    client.expect_texts(&[numbered(&id, D), caught_up(&id, 1)]);
}

#[test]
fn a_client_that_could_publish_is_judged_by_its_token_too() {
    let (server, _file) = server();
    let start = position(&server);
    let id = publish_kept(&server, C);
    let mut local = Client::connect(&server);
    local.send(&list(&token(r#","history":false"#), r#"["c"]"#, &start));
    assert_eq!(local.whole_text(), not_resumed(1, &id, "forbidden"));
    local.send(&list(&token(""), r#"["c"]"#, &start));
    assert_eq!(local.whole_text(), resumed(1, &start));
    local.expect_texts(&[numbered(&id, C), caught_up(&id, 1)]);
}

#[test]
fn a_token_of_the_upgrade_decides_as_well() {
    let (server, _file) = server();
    let start = position(&server);
    let id = publish_kept(&server, C);
    for (claim, expected) in [
        ("", resumed(1, &start)),
        (r#","history":false"#, not_resumed(1, &id, "forbidden")),
    ] {
        let token = token(claim);
        let field = format!("Authorization: Bearer {token}");
        let by_field = Client::connect_with(&server, "/", &[FOREIGN, &field]);
        let target = format!("/?token={token}");
        let by_target = Client::connect_with(&server, &target, &[FOREIGN]);
        for mut client in [by_field, by_target] {
            let answer = client.subscribe_since(r#"["c"]"#, &start);
            assert_eq!(answer, expected);
        }
    }
}
