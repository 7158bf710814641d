//! The publishers' own lane: what is let in there, what clients can't take away from it.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use socket2::{Domain, SockAddr, Socket, Type};

use crate::helpers::folder::Folder;
use crate::helpers::secrets::{KEY, SecretFile, token};
use crate::helpers::{
    Client, DEADLINE, Server, close_reason, delivery, error_code, message, run, subscriber,
};

const C: &str = r#"{"channel":"c"}"#;

fn on_lane(server: &Server) -> Client {
    Client::over(Server::tcp_to(server.publish_address()))
}

fn over_unix(folder: &Folder) -> Client<UnixStream> {
    let stream = UnixStream::connect(folder.socket()).expect("the server listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("not zero");
    Client::over(stream)
}

#[test]
fn with_a_lane_publishing_elsewhere_is_refused() {
    let server = Server::with(&["--publish-listen", "127.0.0.1:0"]);
    let mut client = subscriber(&server, r#"["c"]"#);
    for target in ["/", "/publish"] {
        let mut elsewhere = Client::connect_with(&server, target, &[]);
        elsewhere.send(&message(C));
        assert_eq!(error_code(&elsewhere.text()), "forbidden");
        let (word, _) = close_reason(&elsewhere.expect_close(1008));
        assert_eq!(word, "forbidden");
    }
    let mut publisher = on_lane(&server).upgrade("/", &[]);
    publisher.send(&message(C));
    assert_eq!(publisher.expect_close(1000), r#"{"delivered":1}"#);
    assert_eq!(client.text(), delivery(C));
    assert!(!server.log().contains("may publish."));
}

#[test]
fn a_lane_without_tokens_takes_nothing_from_browsers_and_proxies() {
    let folder = Folder::new("foreign");
    let server = Server::with(&[
        "--publish-listen",
        "127.0.0.1:0",
        "--publish-listen",
        &folder.flag(),
    ]);
    for field in [
        "Origin: http://127.0.0.1",
        "X-Forwarded-For: 127.0.0.1",
        "Via: 1.1 proxy",
    ] {
        let mut publisher = on_lane(&server).upgrade("/publish", &[field]);
        publisher.send(&message(C));
        assert_eq!(error_code(&publisher.text()), "forbidden", "{field}");
        let mut publisher = over_unix(&folder).upgrade("/publish", &[field]);
        publisher.send(&message(C));
        assert_eq!(error_code(&publisher.text()), "forbidden", "{field}");
    }
    let mut publisher = on_lane(&server).upgrade("/", &["Host: api.example.com"]);
    publisher.send(&message(C));
    assert_eq!(error_code(&publisher.text()), "forbidden");
}

#[test]
fn a_unix_socket_has_the_mode_that_was_asked_for_and_goes_with_the_server() {
    let folder = Folder::new("mode");
    for mode in ["0600", "0666"] {
        let mut server = Server::with(&["--publish-listen", &folder.flag(), "--socket-mode", mode]);
        let permissions = fs::metadata(folder.socket()).expect("there").permissions();
        assert_eq!(format!("{:04o}", permissions.mode() & 0o7777), mode);
        let mut client = subscriber(&server, r#"["c"]"#);
        let mut publisher = over_unix(&folder).upgrade("/", &["Host: whatever"]);
        publisher.send(&message(C));
        assert_eq!(publisher.expect_close(1000), r#"{"delivered":1}"#);
        publisher.answer_close(1000);
        assert_eq!(client.text(), delivery(C));
        client.leave();
        server.terminate();
        server.wait();
        let gone = fs::metadata(folder.socket()).expect_err("removed");
        assert_eq!(gone.kind(), ErrorKind::NotFound);
    }
}

#[test]
fn a_socket_that_nobody_listens_on_is_replaced_and_one_in_use_is_not() {
    let folder = Folder::new("stale");
    drop(std::os::unix::net::UnixListener::bind(folder.socket()).expect("a new socket"));
    let server = Server::with(&["--publish-listen", &folder.flag()]);
    let flags = ["--listen", "127.0.0.1:0", "--publish-listen"];
    let second = run(&[&flags[..], &[&folder.flag()]].concat(), "");
    assert_eq!(second.status, Some(1));
    assert!(second.stderr.contains("it is in use"), "{}", second.stderr);
    let mut publisher = over_unix(&folder).upgrade("/", &[]);
    publisher.send(&message(C));
    assert_eq!(publisher.expect_close(1000), r#"{"delivered":0}"#);
    drop(server);

    // Nor one whose listener has as many as it can keep, and accepts none.
    let full = Folder::new("full");
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
    let address = SockAddr::unix(full.socket()).expect("a short path");
    listener.bind(&address).expect("a new socket");
    listener.listen(0).expect("it is bound");
    let _waiting = UnixStream::connect(full.socket()).expect("there is room for one");
    let second = run(&[&flags[..], &[&full.flag()]].concat(), "");
    assert!(second.stderr.contains("it is in use"), "{}", second.stderr);

    let file = Folder::new("file");
    fs::write(file.socket(), "not a socket").expect("a file");
    let refused = run(&[&flags[..], &[&file.flag()]].concat(), "");
    assert_eq!(refused.status, Some(1));
    assert_eq!(
        fs::read(file.socket()).expect("still there"),
        b"not a socket"
    );
}

#[test]
fn a_lane_that_others_can_reach_needs_a_token() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:8001"] {
        let refused = run(
            &["--listen", "127.0.0.1:0", "--publish-listen", address],
            "",
        );
        assert_eq!(refused.status, Some(2), "{address}");
        assert!(refused.stderr.contains("--publish-token-file"), "{address}");
    }
}

#[test]
fn clients_cannot_take_the_lane_s_connections() {
    let server = Server::with(&["--max-connections", "3", "--publish-listen", "127.0.0.1:0"]);
    let mut clients: Vec<_> = (0..3).map(|_| subscriber(&server, r#"["c"]"#)).collect();
    // Another client is refused, and a silent one takes a place among the handshakes.
    let silent: Vec<_> = (0..200).map(|_| server.tcp()).collect();
    for _ in 0..3 {
        let mut publisher = on_lane(&server).upgrade("/", &[]);
        publisher.send(&message(C));
        assert_eq!(publisher.expect_close(1000), r#"{"delivered":3}"#);
        publisher.answer_close(1000);
        for client in &mut clients {
            assert_eq!(client.text(), delivery(C));
        }
    }
    drop(silent);
}

#[test]
fn clients_cannot_take_the_lane_s_descriptors() {
    // 32 of its own, 64 for handshakes, 2 listeners, and 4 + 64 for the lane: 34 are left.
    let server = Server::after(
        "ulimit -n 200",
        &["--max-publishers", "4", "--publish-listen", "127.0.0.1:0"],
    );
    server.wait_for_line("At most 34 connections are possible");
    let mut clients: Vec<_> = (0..34).map(|_| subscriber(&server, r#"["c"]"#)).collect();
    let silent: Vec<_> = (0..300).map(|_| server.tcp()).collect();
    let mut kept: Vec<_> = (0..4)
        .map(|_| on_lane(&server).upgrade("/publish", &[]))
        .collect();
    for publisher in &mut kept {
        publisher.send(&message(C));
        assert_eq!(publisher.text(), r#"{"type":"published","delivered":34}"#);
        for client in &mut clients {
            assert_eq!(client.text(), delivery(C));
        }
    }
    // The lane is bounded too.
    let mut fifth = Server::tcp_to(server.publish_address());
    std::io::Write::write_all(&mut fifth, crate::helpers::upgrade().as_bytes()).expect("it reads");
    let (head, _) = crate::helpers::response(&mut fifth);
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    kept.pop().expect("four").leave();
    let mut publisher = on_lane(&server).upgrade("/", &[]);
    publisher.send(&message(C));
    assert_eq!(publisher.expect_close(1000), r#"{"delivered":34}"#);
    drop(silent);
}

#[test]
fn mistakes_are_named() {
    for (flags, expected) in [
        (&["--publish-listen", "8001"][..], "or unix:PATH"),
        (&["--socket-mode", "rw"], "permissions in octal, like 0660"),
        (&["--socket-mode", "9"], "permissions in octal, like 0660"),
        (&["--max-publishers", "0"], "a whole number from 1"),
    ] {
        let ended = run(flags, "");
        assert_eq!(ended.status, Some(2));
        assert!(ended.stderr.contains(expected), "{}", ended.stderr);
    }
}

#[test]
fn a_client_without_permission_keeps_no_publisher_out() {
    let tokens = SecretFile::new("correct-horse-battery-staple\n");
    let keys = SecretFile::new(KEY);
    let with_tokens = ["--publish-token-file", tokens.path()];
    let with_both = [&with_tokens[..], &["--client-key-file", keys.path()]].concat();
    for flags in [&[][..], &with_tokens, &with_both] {
        let lane = ["--publish-listen", "127.0.0.1:0", "--max-publishers", "2"];
        let flags = [&lane[..], &["--token-timeout", "0.2"], flags].concat();
        let server = Server::with(&flags);
        // Neither a web page nor a client's token makes a publisher.
        let mut page = on_lane(&server).upgrade("/", &["Origin: http://example.com"]);
        let mut client = on_lane(&server).upgrade("/", &["Origin: http://example.com"]);
        let token = token(r#"["c"]"#, 60.0);
        client.send(&format!(
            r#"{{"sender":"client","token":"{token}","subscriptions":["c"]}}"#
        ));
        if !flags.contains(&"--client-key-file") {
            assert!(client.text().contains("subscribed"));
            let (word, _) = close_reason(&client.expect_close(1008));
            assert_eq!(word, "forbidden");
        } else {
            let (word, _) = close_reason(&client.expect_close(3000));
            assert_eq!(word, "token-missing");
        }
        let (word, _) = close_reason(&page.expect_close(1008));
        assert_eq!(word, "forbidden");
        let bearer = "Authorization: Bearer correct-horse-battery-staple";
        let mut publisher = on_lane(&server).upgrade("/", &[bearer]);
        publisher.send(&message(C));
        assert_eq!(publisher.expect_close(1000), r#"{"delivered":0}"#);
    }
}
