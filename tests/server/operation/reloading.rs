//! SIGHUP: what is read again, what becomes of it, and that nobody loses a connection by it.

use crate::helpers::secrets::{KEY, OTHER_KEY, SecretFile, sign, unix_now};
use crate::helpers::{
    Client, Server, close_reason, delivery, error_code, message, publish, subscriber,
};

const TOKEN: &str = "correct-horse-battery-staple";
const NEXT_TOKEN: &str = "another-token-of-some-length";
const C: &str = r#"{"channel":"c"}"#;
const PUBLISHED: &str = r#"{"type":"published","delivered":1}"#;

/// From elsewhere: a local peer may publish and needs no token for that.
const FOREIGN: &str = "Host: api.example.com";

fn publisher(server: &Server, token: &str) -> Client {
    let field = format!("Authorization: Bearer {token}");
    Client::connect_with(server, "/publish", &[&field])
}

fn expect_published(publisher: &mut Client) {
    publisher.send(&message(C));
    assert_eq!(publisher.text(), PUBLISHED);
}

fn expect_refused(server: &Server, token: &str) {
    let mut publisher = publisher(server, token);
    publisher.send(&message(C));
    assert_eq!(error_code(&publisher.text()), "forbidden");
}

fn token(key: &str) -> String {
    let claims = format!(r#"{{"exp":{},"allow":["c"]}}"#, unix_now() + 600.0);
    sign(key, &claims)
}

/// A client that shows `token` with its upgrade, let in or refused.
fn client(server: &Server, token: &str) -> Client {
    let field = format!("Authorization: Bearer {token}");
    Client::connect_with(server, "/", &[FOREIGN, &field])
}

fn subscribe_with(client: &mut Client, token: &str) {
    client.send(&format!(
        r#"{{"sender":"client","token":"{token}","subscriptions":["c"]}}"#
    ));
}

#[test]
fn tokens_are_exchanged_and_connections_stay() {
    let file = SecretFile::new(TOKEN);
    let server = Server::with(&["--publish-token-file", file.path()]);
    let mut subscribed = subscriber(&server, r#"["c"]"#);
    let mut before = publisher(&server, TOKEN);
    expect_published(&mut before);
    expect_refused(&server, NEXT_TOKEN);

    file.write(&format!("{TOKEN}\n{NEXT_TOKEN}\n"));
    server.hang_up();
    server.wait_for_line("--publish-token-file: 1 added, 0 removed, 2 in force");
    expect_published(&mut publisher(&server, TOKEN));
    expect_published(&mut publisher(&server, NEXT_TOKEN));

    file.write(NEXT_TOKEN);
    server.hang_up();
    server.wait_for_line("--publish-token-file: 0 added, 1 removed, 1 in force");
    expect_refused(&server, TOKEN);
    expect_published(&mut publisher(&server, NEXT_TOKEN));
    // What the token gave stays when it goes.
    expect_published(&mut before);
    subscribed.expect_texts(&vec![delivery(C); 5]);
    let log = server.log();
    assert!(!log.contains("horse") && !log.contains("another"), "{log}");
}

#[test]
fn keys_are_exchanged_and_connections_stay() {
    let file = SecretFile::new(KEY);
    let server = Server::with(&["--client-key-file", file.path()]);
    let old = token(KEY);
    let mut before = client(&server, &old);
    before.subscribe(r#"["c"]"#);

    file.write(OTHER_KEY);
    server.hang_up();
    server.wait_for_line("--client-key-file: 1 added, 1 removed, 1 in force");
    let mut refused = client(&server, &old);
    let (word, _) = close_reason(&refused.expect_close(3000));
    assert_eq!(word, "token-invalid");
    let mut after = client(&server, &token(OTHER_KEY));
    after.subscribe(r#"["c"]"#);
    // What the old key allowed holds until the token that it signed expires.
    before.subscribe("[]");
    // A page shows it with every list; another one is looked at.
    subscribe_with(&mut before, &old);
    assert!(before.text().contains(r#""subscriptions":1"#));
    let mut changed = client(&server, &token(OTHER_KEY));
    subscribe_with(&mut changed, &old);
    let (word, _) = close_reason(&changed.expect_close(3000));
    assert_eq!(word, "token-invalid");
    assert_eq!(publish(&server, C), r#"{"delivered":2}"#);
    for client in [&mut before, &mut after] {
        assert_eq!(client.text(), delivery(C));
    }
    assert!(!server.log().contains(OTHER_KEY));
}

#[test]
fn a_bad_file_leaves_the_old_one_in_force() {
    let tokens = SecretFile::new(TOKEN);
    let keys = SecretFile::new(KEY);
    let level = SecretFile::new("info");
    let log = format!("@{}", level.path());
    let server = Server::with(&[
        "--publish-token-file",
        tokens.path(),
        "--client-key-file",
        keys.path(),
        "--log",
        &log,
    ]);
    tokens.write("tooshort");
    keys.set_mode(0o644);
    level.write("loud");
    server.hang_up();
    for (flag, why) in [
        ("--publish-token-file: ", "the secret on line 1 has 8 bytes"),
        ("--client-key-file: ", "others get at them"),
        ("--log @", "expected error, warn, info, debug"),
    ] {
        let line = server.wait_for_line(flag);
        assert!(line.contains(why) && line.contains("ERROR"), "{line}");
        assert!(line.contains("the old value stays in force"), "{line}");
        assert!(!line.contains("tooshort"), "{line}");
    }
    let mut client = client(&server, &token(KEY));
    client.subscribe(r#"["c"]"#);
    expect_published(&mut publisher(&server, TOKEN));
    // In the message: in the upgrade it would be taken for a client's.
    let mut refused = Client::connect(&server);
    refused.send(&format!(
        r#"{{"sender":"server","token":"tooshort","notification":{C}}}"#
    ));
    assert_eq!(error_code(&refused.text()), "forbidden");
    // One that is bad doesn't keep the others from being read.
    keys.set_mode(0o600);
    keys.write(OTHER_KEY);
    server.hang_up();
    server.wait_for_line("--client-key-file: 1 added, 1 removed, 1 in force");
}

#[test]
fn the_level_of_the_log_is_read_again() {
    let level = SecretFile::new("info\n# one of error, warn, info, debug, trace\n");
    let mut server = Server::with(&["--log", &format!("@{}", level.path())]);
    Client::connect(&server).leave();
    level.write("debug\n");
    server.hang_up();
    server.wait_for_line("--log: INFO until now, DEBUG from now on");
    assert!(!server.log().contains("DEBUG]"), "{}", server.log());
    Client::connect(&server).leave();
    let line = server.wait_for_line(" is gone");
    assert!(line.contains("DEBUG"), "{line}");
    level.write("warn");
    server.hang_up();
    server.wait_for_line("--log: DEBUG until now, WARN from now on");
    publish(&server, C);
    server.terminate();
    let log = server.wait().stderr;
    assert!(!log.contains("published"), "{log}");
}

#[test]
fn a_storm_of_hang_ups_disturbs_nobody() {
    let file = SecretFile::new(TOKEN);
    let mut server = Server::with(&["--publish-token-file", file.path()]);
    let mut subscribed = subscriber(&server, r#"["c"]"#);
    let mut publisher = publisher(&server, TOKEN);
    for _ in 0..200 {
        for _ in 0..20 {
            server.hang_up();
        }
        expect_published(&mut publisher);
    }
    subscribed.expect_texts(&vec![delivery(C); 200]);
    // It is no request to stop, however often it comes, nor does it hurry a stop.
    server.terminate();
    server.hang_up();
    subscribed.expect_close(1001);
    subscribed.answer_close(1001);
    publisher.expect_close(1001);
    publisher.answer_close(1001);
    assert_eq!(server.wait().status, Some(0));
}
