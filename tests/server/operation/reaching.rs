//! How the commands reach a server: by WebSocket, on a Unix socket, by POST; and what they say of what is none.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use crate::helpers::folder::Folder;
use crate::helpers::secrets::SecretFile;
use crate::helpers::{DEADLINE, Ended, Program, Server, crieur, delivery, run, subscriber};

const C: &str = r#"{"channel":"c"}"#;

/// Runs `crieur publish` with `flags`.
fn publish_at(url: &str, flags: &[&str], input: &str) -> Ended {
    run(&[&["publish", "--url", url], flags].concat(), input)
}

fn http(server: &Server) -> String {
    format!("http://{}/", server.address())
}

#[track_caller]
fn assert_delivered(ended: &Ended, counts: &[u64]) {
    let receipts = ended.stdout.lines();
    let receipts = receipts.map(|line| serde_json::from_str(line).expect("JSON"));
    let delivered = receipts.map(|receipt: serde_json::Value| receipt["delivered"].as_u64());
    let delivered: Vec<_> = delivered.map(Option::unwrap_or_default).collect();
    assert_eq!(delivered, counts, "{ended:?}");
    assert_eq!((ended.status, ended.stderr.as_str()), (Some(0), ""));
}

#[test]
fn publish_reaches_a_unix_socket() {
    let folder = Folder::new("reach-unix");
    let server = Server::with(&["--publish-listen", &folder.flag()]);
    let mut client = subscriber(&server, r#"["c"]"#);
    assert_delivered(&publish_at(&folder.flag(), &[C], ""), &[1]);
    let lines = format!("{C}\n{C}\n");
    assert_delivered(&publish_at(&folder.flag(), &["-"], &lines), &[1, 1]);
    client.expect_texts(&vec![delivery(C); 3]);
    drop(server);
    let gone = publish_at(&folder.flag(), &[C], "");
    assert_eq!(gone.status, Some(1), "{gone:?}");
    let url = folder.flag();
    let refused = format!("crieur: {url}: connection refused (is the server running?)\n");
    assert_eq!(gone.stderr, refused);
    let missing = publish_at(&format!("{url}x"), &[C], "");
    let text = format!("crieur: {url}x: there is no such socket (is the server running?)\n");
    assert_eq!(missing.stderr, text);
}

#[test]
fn publish_posts_where_the_url_is_of_http() {
    let server = Server::start();
    let mut client = subscriber(&server, r#"["c"]"#);
    let url = http(&server);
    assert_delivered(&publish_at(&url, &[C], ""), &[1]);
    assert_delivered(&publish_at(&format!("{url}publish"), &[C], ""), &[1]);
    let lines = format!("{C}\n\n{C}\n");
    assert_delivered(&publish_at(&url, &["-"], &lines), &[1, 1]);
    client.expect_texts(&vec![delivery(C); 4]);
    let typed = publish_at(&url, &["--type", "t", "--key", "k", C], "");
    assert_delivered(&typed, &[1]);
    assert_eq!(
        client.text(),
        format!(r#"{{"type":"t","notification":{C}}}"#)
    );
    let again = publish_at(&url, &["--key", "k", C], "");
    assert!(again.stdout.contains(r#""repeated":true"#), "{again:?}");
}

#[test]
fn what_is_refused_by_http_is_said_as_by_websocket() {
    let tokens = SecretFile::new("correct-horse-battery-staple");
    let wrong = SecretFile::new("another-horse-battery-staple");
    let closed = Server::with(&["--publish-token-file", tokens.path()]);
    let open = Server::start();
    for (server, flags, word) in [
        (&open, &["{}"][..], "invalid-notification: "),
        (&closed, &[C], "forbidden: "),
        (&closed, &["--token-file", wrong.path(), C], "forbidden: "),
    ] {
        for url in [server.url(), http(server)] {
            let refused = publish_at(&url, flags, "");
            assert_eq!(refused.status, Some(1), "{refused:?}");
            assert!(
                refused.stderr.starts_with(&format!("crieur: {word}")),
                "{refused:?}"
            );
            assert_eq!(refused.stderr.lines().count(), 1, "{refused:?}");
        }
    }
    let flags = ["--token-file", tokens.path(), C];
    assert_delivered(&publish_at(&http(&closed), &flags, ""), &[0]);
    // One bad line is no reason to lose those after it.
    let lines = format!("{C}\n{{}}\n{C}\n");
    let published = publish_at(&http(&open), &["-"], &lines);
    assert_eq!(published.status, Some(1), "{published:?}");
    assert_eq!(published.stdout.lines().count(), 2, "{published:?}");
    let elsewhere = publish_at(&format!("{}nowhere", http(&open)), &[C], "");
    assert!(
        elsewhere.stderr.contains("the server answered 404"),
        "{elsewhere:?}"
    );
}

/// A port that reads a request of each connection, answers with the next of `answers`, and hangs up. Gives what was
/// asked, too.
fn port(answers: &[&[u8]]) -> (SocketAddr, thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let answers: Vec<_> = answers.iter().map(|answer| answer.to_vec()).collect();
    let serve = move || {
        let asked = answers.into_iter().map(|answer| {
            let (mut stream, _) = listener.accept().expect("somebody comes");
            let request = request(&mut stream);
            stream.write_all(&answer).expect("it is taken");
            request
        });
        asked.collect()
    };
    (address, thread::spawn(serve))
}

/// All of a request, its content included.
fn request(stream: &mut TcpStream) -> String {
    stream.set_read_timeout(Some(DEADLINE)).expect("not zero");
    let mut text = String::new();
    loop {
        let head = text.split_once("\r\n\r\n");
        let length = text.split_once("Content-Length: ");
        let length = length.and_then(|(_, rest)| rest.lines().next()?.parse::<usize>().ok());
        if head.is_some_and(|(_, body)| body.len() == length.unwrap_or_default()) {
            return text;
        }
        let mut buffer = [0; 1024];
        let read = stream.read(&mut buffer).expect("a whole request");
        text.push_str(std::str::from_utf8(&buffer[..read]).expect("text"));
    }
}

#[test]
fn a_post_goes_to_the_path_of_its_url() {
    let tokens = SecretFile::new("correct-horse-battery-staple");
    let receipt = b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"delivered\":7}";
    for (path, target) in [
        ("", "/publish"),
        ("/", "/publish"),
        ("/api/", "/api/publish"),
        ("/api/notify?a=b", "/api/notify?a=b"),
    ] {
        let (address, asked) = port(&[receipt]);
        let url = format!("http://{address}{path}");
        let flags = ["--token-file", tokens.path(), C];
        assert_delivered(&publish_at(&url, &flags, ""), &[7]);
        let asked = asked.join().expect("it has answered");
        assert!(
            asked[0].starts_with(&format!("POST {target} HTTP/1.0\r\n")),
            "{asked:?}"
        );
        let token = "\r\nAuthorization: Bearer correct-horse-battery-staple\r\n";
        assert!(asked[0].contains(token), "{asked:?}");
    }
}

#[test]
fn a_post_without_an_answer_is_sent_once_more_with_its_key() {
    let receipt = b"HTTP/1.1 200 OK\r\n\r\n{\"delivered\":7}\n";
    let (address, asked) = port(&[b"", receipt]);
    let url = format!("http://{address}/");
    let published = publish_at(&url, &["--key", "k", C], "");
    assert_eq!(published.stdout, "{\"delivered\":7}\n", "{published:?}");
    assert!(
        published.stderr.contains("sending it once more"),
        "{published:?}"
    );
    let asked = asked.join().expect("it has answered");
    assert_eq!(asked[0], asked[1]);
    let (address, asked) = port(&[b""]);
    let lost = publish_at(&format!("http://{address}/"), &[C], "");
    assert_eq!((lost.status, lost.stdout.as_str()), (Some(1), ""));
    asked.join().expect("it was asked once");
}

#[test]
fn a_port_of_something_else_is_told() {
    for (answer, expected) in [
        (&[21, 3, 1, 0, 2, 2, 70][..], "this port speaks TLS"),
        (
            b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\nContent-Length: 53\r\n\r\n\
              The plain HTTP request was sent to HTTPS port, twice.",
            "this port speaks TLS",
        ),
        (
            b"HTTP/1.1 301 Moved\r\nLocation: https://a.example/x\r\nContent-Length: 0\r\n\r\n",
            "the server answered 301 and refers to https://a.example/x",
        ),
        (
            b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n",
            "the server answered 502\n",
        ),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "the server does not speak HTTP"),
        (b"", "the server hung up without an answer"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{",
            "the server hung up\n",
        ),
    ] {
        for scheme in ["ws", "http"] {
            let (address, asked) = port(&[answer]);
            let url = format!("{scheme}://{address}/");
            let ended = publish_at(&url, &[C], "");
            assert_eq!(ended.status, Some(1), "{ended:?}");
            assert!(ended.stderr.contains(expected), "{ended:?}");
            assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
            asked.join().expect("it was asked");
        }
    }
}

#[test]
fn a_port_that_says_nothing_is_not_waited_for_for_ever() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("ws://{}/", silent.local_addr().expect("it is bound"));
    let ended = publish_at(&url, &[C], "");
    assert_eq!(ended.status, Some(1), "{ended:?}");
    assert_eq!(ended.stderr, format!("crieur: {url}: no answer in time\n"));
}

#[test]
fn a_url_that_needs_tls_or_is_for_something_else_says_what_to_use() {
    for url in ["wss://a.example/", "https://a.example/"] {
        for command in ["publish", "subscribe"] {
            let ended = run(&[command, "--url", url, C], "");
            assert_eq!(ended.status, Some(2), "{ended:?}");
            assert!(ended.stderr.contains("needs TLS"), "{ended:?}");
            assert!(ended.stderr.contains("ws://127.0.0.1:8000/"), "{ended:?}");
        }
    }
    let ended = run(&["subscribe", "--url", "http://127.0.0.1:8000/", "c"], "");
    let text = "http://127.0.0.1:8000/ is for publishing: subscribe at ws://127.0.0.1:8000/";
    assert!(ended.stderr.contains(text), "{ended:?}");
}

#[test]
fn explain_asks_the_server_and_tells_its_answer() {
    let tokens = SecretFile::new("correct-horse-battery-staple");
    let json = r#"{"now":1,"scope":"server","would_get":1,"connections_open":2,"connections":[{"connection":"1.1","user":"17","gets":true,"reason":"matches"}],"truncated":false,"ended":[]}"#;
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{json}",
        json.len()
    );
    let told =
        "1 of 2 open connections would get it.\n\nConnection 1.1 (user 17) gets it: matches\n";
    for (flags, printed) in [
        (&[][..], told.to_owned()),
        (&["--json"], format!("{json}\n")),
    ] {
        let (address, asked) = port(&[answer.as_bytes()]);
        let url = format!("ws://{address}/");
        let arguments = [
            "explain",
            "--url",
            &url,
            "--user",
            "17",
            "--token-file",
            tokens.path(),
        ];
        let ended = run(&[&arguments, flags, &["-"]].concat(), C);
        assert_eq!((ended.status, ended.stdout), (Some(0), printed));
        let asked = asked.join().expect("it has answered");
        assert!(
            asked[0].starts_with("POST /explain HTTP/1.0\r\n"),
            "{asked:?}"
        );
        assert!(
            asked[0].contains("\r\nAuthorization: Bearer correct-"),
            "{asked:?}"
        );
        let body = format!("\r\n\r\n{{\"notification\":{C},\"user\":\"17\"}}");
        assert!(asked[0].ends_with(&body), "{asked:?}");
    }
    let error = r#"{"type":"error","error":{"code":"forbidden","detail":"no"}}"#;
    let refusal =
        format!("HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\n\r\n{error}");
    let (address, asked) = port(&[refusal.as_bytes()]);
    let ended = run(&["explain", "--url", &format!("http://{address}/"), C], "");
    assert_eq!(
        (ended.status, ended.stderr.as_str()),
        (
            Some(1),
            "crieur: forbidden: no (--url with the address of --publish-listen or --token-file may help)\n"
        )
    );
    asked.join().expect("it was asked");
    for flags in [
        &[][..],
        &["--id", "a-1", C],
        &["--user", "a", "--connection", "1.1", C],
    ] {
        let ended = run(&[&["explain"], flags].concat(), "");
        assert_eq!(ended.status, Some(2), "{ended:?}");
    }
}

#[test]
fn health_says_whether_a_server_answers() {
    let folder = Folder::new("reach-health");
    let server = Server::with(&["--publish-listen", &folder.flag()]);
    let is_well = |ended: &Ended| {
        let said = (ended.stdout.as_str(), ended.stderr.as_str());
        ended.status == Some(0) && said == ("ok\n", "")
    };
    let port = format!("ws://{}/", server.address());
    for url in [&port, &http(&server), &folder.flag()] {
        for flags in [&[][..], &["--live"]] {
            let ended = run(&[&["health", "--url", url], flags].concat(), "");
            assert!(is_well(&ended), "{url} {flags:?}: {ended:?}");
        }
    }
    let mut from_environment = crieur();
    from_environment.arg("health").env("CRIEUR_URL", &port);
    let ended = Program::start(from_environment).wait();
    assert!(is_well(&ended), "{ended:?}");
    drop(server);
    let gone = run(&["health", "--url", &port], "");
    let text = format!("crieur: {port}healthz: connection refused (is the server running?)\n");
    assert_eq!((gone.status, gone.stderr), (Some(1), text));
    let wrong = run(&["health", "ok"], "");
    assert_eq!(wrong.status, Some(2), "{wrong:?}");
}

#[test]
fn health_waits_for_no_answer_that_does_not_come() {
    // It accepts in the kernel, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("ws://{}/", silent.local_addr().expect("bound"));
    let ended = run(&["health", "--url", &url], "");
    let text = format!("crieur: {url}healthz: no answer in time\n");
    assert_eq!((ended.status, ended.stderr), (Some(1), text));
}

#[test]
fn health_waits_for_no_answer_that_comes_by_the_byte() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("ws://{}/", listener.local_addr().expect("bound"));
    let (end, is_ended) = channel::<()>();
    let drip = thread::spawn(move || drip(&listener, &is_ended));
    let ended = run(&["health", "--url", &url], "");
    drop(end);
    let text = format!("crieur: {url}healthz: no answer in time\n");
    assert_eq!((ended.status, ended.stderr), (Some(1), text));
    drip.join().expect("it was asked");
}

/// Answers a request with a head that doesn't end: a byte at a time, until the other end of the channel is gone.
fn drip(listener: &TcpListener, is_ended: &Receiver<()>) {
    let (mut stream, _) = listener.accept().expect("somebody comes");
    request(&mut stream);
    let head = b"HTTP/1.1 200 OK\r\nX: ".iter();
    for byte in head.chain(std::iter::repeat(&b'x')) {
        let between = is_ended.recv_timeout(Duration::from_millis(500));
        // The client may hang up, too.
        if between != Err(RecvTimeoutError::Timeout) || stream.write_all(&[*byte]).is_err() {
            return;
        }
    }
}
