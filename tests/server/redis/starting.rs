//! A node serves when it has read the end of the stream, and not before.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::helpers::numbered::{caught_up, position, publish_kept, resume, resumed};
use crate::helpers::redis::{Redis, STREAM, is_installed, place};
use crate::helpers::secrets::SecretFile;
use crate::helpers::{Client, DEADLINE, Program, Server, crieur, message, publish, run};

use super::{C, NOT_PUBLISHED};

/// A node that isn't waited for.
fn start(url: &str, flags: &[&str]) -> Program {
    Program::start(command(url, flags))
}

fn command(url: &str, flags: &[&str]) -> Command {
    let mut command = crieur();
    command
        .args(["--listen", "127.0.0.1:0", "--redis", url])
        .args(flags);
    command
}

/// It says that it can't get to Redis, and doesn't listen.
fn expect_waiting(node: &Program) {
    node.stderr.wait_for("is out of reach");
    assert_eq!(node.stderr.count("listening on"), 0);
}

#[test]
fn it_waits_for_redis_and_listens_then() {
    if !is_installed() {
        return;
    }
    let (folder, url) = place();
    let notified = std::env::temp_dir().join(format!("crieur-redis-notify-{}", std::process::id()));
    let socket = UnixDatagram::bind(&notified).expect("a new name");
    let mut command = command(&url, &[]);
    command.env("NOTIFY_SOCKET", &notified);
    let mut node = Program::start(command);
    expect_waiting(&node);
    socket.set_nonblocking(true).expect("a socket");
    let mut bytes = [0; 256];
    let told = socket.recv(&mut bytes);
    assert!(told.is_err_and(|error| error.kind() == ErrorKind::WouldBlock));
    socket.set_nonblocking(false).expect("a socket");
    let redis = Redis::at(folder, &[]);
    node.stderr.wait_for("listening on 127.0.0.1:");
    socket.set_read_timeout(Some(DEADLINE)).expect("not zero");
    let length = socket.recv(&mut bytes).expect("it is told");
    assert_eq!(&bytes[..length], b"READY=1");
    drop(redis);
    node.terminate();
    assert_eq!(node.wait().status, Some(0));
    std::fs::remove_file(notified).expect("it is ours");
}

#[test]
fn it_does_not_serve_what_it_has_not_read() {
    let Some(redis) = Redis::start() else { return };
    // Somebody has been here before; else the start of this one would be the newest.
    drop(redis.node(&[]));
    for _ in 0..100 {
        redis.xadd(&message(C));
    }
    let last = redis.xadd(&message(C));
    let since = Instant::now();
    let node = redis.node(&["--redis-timeout", "60"]);
    assert_eq!(position(&node), redis.wire_id(&last));
    // It doesn't wait for more to come.
    assert!(since.elapsed() < Duration::from_secs(20));
    // Nor where there is nothing.
    drop(redis.node(&["--redis-timeout", "60", "--redis-stream", "other"]));
    assert!(since.elapsed() < Duration::from_secs(20));
}

#[test]
fn it_reads_a_long_stream_ahead_of_serving() {
    let Some(redis) = Redis::start() else { return };
    let first = redis.node(&[]);
    let start = position(&first);
    let mut lane = super::publisher(&first);
    for _ in 0..20 {
        for n in 0..1000 {
            lane.send(&message(&super::on_channel(
                if n % 100 == 0 { "c" } else { "d" },
                n,
            )));
        }
        for _ in 0..1000 {
            lane.whole_text();
        }
    }
    let newest = position(&first);
    let second = redis.node(&[]);
    assert_eq!(position(&second), newest);
    let (mut client, answer) = resume(&second, r#"["c"]"#, &start);
    assert_eq!(answer, resumed(1, &start));
    for _ in 0..200 {
        assert!(
            client
                .whole_text()
                .starts_with(r#"{"type":"notification","id":"#)
        );
    }
    assert_eq!(client.whole_text(), caught_up(&newest, 200));
}

#[test]
fn a_signal_ends_it_while_it_waits() {
    let (_, url) = place();
    let mut node = start(&url, &[]);
    expect_waiting(&node);
    node.terminate();
    let ended = node.wait();
    assert_eq!(ended.status, Some(0), "{ended:?}");
}

#[test]
fn an_address_that_is_in_use_ends_it_when_it_would_listen() {
    let Some(redis) = Redis::start() else { return };
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let ended = run(&["--listen", &address, "--redis", &redis.url()], "");
    assert_eq!(ended.status, Some(1), "{ended:?}");
    let text = format!("cannot listen on {address}: the port is in use");
    assert!(ended.stderr.contains(&text), "{ended:?}");
    assert!(!ended.stderr.contains("listening on"), "{ended:?}");
}

#[test]
fn a_replica_is_not_taken() {
    let Some(redis) = Redis::with(&["--replicaof", "127.0.0.1 1"]) else {
        return;
    };
    let node = start(&redis.url(), &[]);
    expect_waiting(&node);
    redis.ask(&["REPLICAOF", "NO", "ONE"]);
    node.stderr.wait_for("listening on");
}

#[test]
fn a_password_that_is_wrong_is_read_again() {
    let Some(redis) = Redis::with(&["--requirepass", "sesame-open"]) else {
        return;
    };
    let file = SecretFile::new("open-sesame");
    let node = start(&redis.url(), &["--redis-password-file", file.path()]);
    expect_waiting(&node);
    assert!(
        !node.stderr.text().contains("sesame"),
        "{}",
        node.stderr.text()
    );
    file.replace("sesame-open");
    node.hang_up();
    node.stderr.wait_for("listening on");
    assert!(
        !node.stderr.text().contains("sesame"),
        "{}",
        node.stderr.text()
    );
    // In its URL, too; it may be a user's.
    let at = redis.url().replacen("//", "//:sesame-open@", 1);
    drop(Server::with(&["--redis", &at]));
    let mut connection = redis.connect();
    let setup = "AUTH sesame-open\r\nACL SETUSER me on >mine ~crieur* +xadd +multi +exec +xread +xrange \
        +xrevrange +evalsha +script|load +get +set +role +info +ping +select +client|setname\r\n";
    std::io::Write::write_all(connection.get_mut(), setup.as_bytes()).expect("it reads");
    for _ in 0..2 {
        let reply = crate::helpers::redis::read_reply(&mut connection);
        assert_eq!(reply, crate::helpers::redis::Reply::Text("OK".into()));
    }
    let at = redis.url().replacen("//", "//me:mine@", 1);
    let node = Server::with(&["--redis", &at]);
    let id = publish_kept(&node, C);
    assert_eq!(position(&node), id);
    let receipt = crate::helpers::publish_message(&node, &super::keyed("k", C));
    assert_eq!(receipt, r#"{"delivered":0}"#);
    assert!(!node.log().contains("mine"), "{}", node.log());
}

#[test]
fn what_is_no_stream_is_not_served_from() {
    let Some(redis) = Redis::start() else { return };
    redis.ask(&["SET", STREAM, "no stream"]);
    let mut node = start(&redis.url(), &[]);
    let line = node.stderr.wait_for("WRONGTYPE");
    assert!(line.contains("WARN") || line.contains("ERROR"), "{line}");
    assert_eq!(node.stderr.count("listening on"), 0);
    redis.ask(&["DEL", STREAM]);
    node.stderr.wait_for("listening on");
    node.terminate();
    assert_eq!(node.wait().status, Some(0));
}

#[test]
fn a_check_connects_nowhere() {
    let (_, url) = place();
    let password = SecretFile::new("open-sesame");
    for flags in [
        &["--redis", &url][..],
        &["--redis", "redis://localhost:1/3", "--redis", &url],
        &["--redis", &url, "--reuse-port"],
        &["--redis", &url, "--redis-password-file", password.path()],
        &[
            "--redis",
            &url,
            "--redis-stream",
            "other",
            "--redis-maxlen",
            "1000",
        ],
        &[
            "--redis",
            &url,
            "--redis-maxlen",
            "100000000",
            "--redis-timeout",
            "0.5",
        ],
    ] {
        let closed = ["--check", "--listen", "127.0.0.1:0", "--no-local-publish"];
        let ended = run(&[&closed, flags].concat(), "");
        assert_eq!(ended.status, Some(0), "{flags:?}: {ended:?}");
        assert_eq!(ended.stdout, "ok\n", "{flags:?}");
        let warnings = ended.stderr.lines();
        let redis = warnings.filter(|line| !line.contains("Nobody may publish."));
        assert_eq!(redis.count(), 0, "{ended:?}");
    }
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let (_, url) = place();
    for (flags, named) in [
        (&["--reuse-port"][..], "--reuse-port needs --redis"),
        (
            &["--redis", &url, "--history-directory", "/tmp"],
            "--history-directory",
        ),
        (&["--redis", "localhost"], "redis://"),
        (&["--redis", "http://localhost"], "redis://"),
        (&["--redis", "rediss://localhost"], "TLS"),
        (&["--redis", "redis://localhost:0"], "port"),
        (&["--redis", "redis://localhost/x"], "database"),
        (&["--redis", "redis+unix://socket"], "path"),
        (&["--redis", "redis://me@localhost"], "password"),
        (&["--redis", ""], "--redis"),
        (
            &["--redis", &url, "--redis-maxlen", "999"],
            "--redis-maxlen",
        ),
        (
            &["--redis", &url, "--redis-maxlen", "100000001"],
            "--redis-maxlen",
        ),
        (
            &["--redis", &url, "--redis-timeout", "0"],
            "--redis-timeout",
        ),
        (
            &["--redis", &url, "--redis-password-file", "/nowhere"],
            "--redis-password-file",
        ),
    ] {
        for way in [&["--check"][..], &[]] {
            let ended = run(&[way, flags].concat(), "");
            assert!(matches!(ended.status, Some(1 | 2)), "{flags:?}: {ended:?}");
            assert!(ended.stderr.contains(named), "{flags:?}: {ended:?}");
            assert_eq!(ended.stderr.lines().count(), 1, "{flags:?}: {ended:?}");
        }
    }
}

#[test]
fn a_name_is_looked_up() {
    let Some(redis) = Redis::start() else { return };
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let port = port.expect("a free port").port();
    redis.ask(&["CONFIG", "SET", "port", &port.to_string()]);
    let url = format!("redis://localhost:{port}");
    let node = Server::with(&["--redis", &url]);
    publish(&node, C);
    assert_eq!(redis.notifications().len(), 1);
    let address = format!("redis://127.0.0.1:{port}/0");
    let other = Server::with(&["--redis", &address]);
    assert_eq!(position(&other), position(&node));
    let ended = run(&["--redis", "redis://no.such.name.invalid"], "");
    assert_eq!(ended.status, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("no.such.name.invalid"), "{ended:?}");
}

#[test]
fn settings_may_be_in_the_environment() {
    let Some(redis) = Redis::start() else { return };
    let url = redis.url();
    let variables = [("CRIEUR_REDIS", OsStr::new(&url))];
    let node = Server::with_environment(&variables, &[]);
    publish(&node, C);
    assert_eq!(redis.notifications().len(), 1);
    // Of two that are given the first that is a master is taken.
    let (_, nowhere) = place();
    let both = format!("{nowhere},{url}");
    let variables = [("CRIEUR_REDIS", OsStr::new(&both))];
    let node = Server::with_environment(&variables, &[]);
    publish(&node, C);
    assert_eq!(redis.notifications().len(), 2);
    drop(redis);
    let mut lane = super::publisher(&node);
    lane.send(&message(C));
    assert_eq!(lane.text(), super::unavailable(NOT_PUBLISHED));
    drop(Client::connect(&node));
}
