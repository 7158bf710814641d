//! The commands across connections that are lost: what `subscribe` shows to the server when it comes
//! back, what it prints of a replay, and when `publish` sends a second time. The server is one of the
//! test's own, which says what the test wants it to say.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

use crate::helpers::{DEADLINE, Ended, Program, close_payload, crieur, delivery, run};

const C: &str = r#"{"channel":"c"}"#;

/// Behind a Close with this, a client comes back at once.
const COME_BACK: &str = r#"{"reason":"shutdown","retry":0}"#;

/// What the key of an upgrade is hashed with (RFC 6455 §1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A server that says what a test wants.
struct Scripted {
    url: String,
    connections: Receiver<TcpStream>,
}

/// One of its connections, from the answer to the upgrade on.
struct Connection(TcpStream);

impl Scripted {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("ws://{}/", listener.local_addr().expect("it is bound"));
        let (sender, connections) = channel();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if sender.send(stream).is_err() {
                    return;
                }
            }
        });
        Self { url, connections }
    }

    /// `crieur` with `arguments`, which speaks to this server.
    fn program(&self, arguments: &[&str]) -> Program {
        let mut command = crieur();
        command.args(arguments).env("CRIEUR_URL", &self.url);
        Program::start(command)
    }

    /// The next connection, its upgrade answered.
    fn accept(&self) -> Connection {
        let stream = self.connections.recv_timeout(DEADLINE);
        Connection::upgrade(stream.expect("the command connects"))
    }

    /// The next connection of a subscriber, whose list has to show `since`.
    fn subscriber(&self, since: &str) -> Connection {
        let mut connection = self.accept();
        let list = format!(r#"{{"sender":"client","since":"{since}","subscriptions":["c"]}}"#);
        assert_eq!(connection.text(), list);
        connection
    }

    /// Nobody else has connected.
    fn expect_no_more(&self) {
        let waited = self.connections.recv_timeout(Duration::ZERO);
        assert_eq!(waited.map(drop), Err(RecvTimeoutError::Timeout));
    }
}

impl Connection {
    fn upgrade(mut stream: TcpStream) -> Self {
        stream
            .set_read_timeout(Some(DEADLINE))
            .expect("it is a socket");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("an upgrade");
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).expect("a head is text");
        let key = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("sec-websocket-key")
                .then_some(value.trim())
        });
        let key = key.expect("an upgrade has a key");
        let accept = STANDARD.encode(Sha1::digest(format!("{key}{GUID}")));
        let fields = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept:";
        let response = format!("HTTP/1.1 101 Switching Protocols\r\n{fields} {accept}\r\n\r\n");
        stream
            .write_all(response.as_bytes())
            .expect("it is awaited");
        Self(stream)
    }

    /// The next frame, which must be a text message.
    fn text(&mut self) -> String {
        let [first, second] = self.bytes();
        assert_eq!((first, second & 0x80), (0x81, 0x80), "no masked text");
        let length = match second & 0x7f {
            126 => u16::from_be_bytes(self.bytes()).into(),
            length => usize::from(length),
        };
        let key: [u8; 4] = self.bytes();
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).expect("a whole frame");
        for (byte, key) in payload.iter_mut().zip(key.iter().cycle()) {
            *byte ^= key;
        }
        String::from_utf8(payload).expect("text is UTF-8")
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes).expect("a whole frame");
        bytes
    }

    fn send(&mut self, text: &str) {
        self.send_frame(0x81, text.as_bytes());
    }

    fn send_frame(&mut self, first: u8, payload: &[u8]) {
        let length = u8::try_from(payload.len()).expect("short texts");
        assert!(length < 126, "short texts");
        let frame = [&[first, length], payload].concat();
        self.0.write_all(&frame).expect("it is read");
    }

    fn close(mut self, code: u16, reason: &str) {
        self.send_frame(0x88, &close_payload(code, reason));
        // The command's Close, or its end.
        let _ = self.0.read(&mut [0; 64]);
    }

    /// Answers the list; `rest` are the members behind the heartbeat.
    fn subscribed(&mut self, rest: &str) {
        self.send(&format!(
            r#"{{"type":"subscribed","subscriptions":1,"heartbeat":25{rest}}}"#
        ));
    }

    /// Sends the client away, to come back at once.
    fn away(self) {
        self.close(1001, COME_BACK);
    }
}

/// A delivery with an id.
fn numbered(id: &str, notification: &str) -> String {
    format!(r#"{{"type":"notification","id":"{id}","notification":{notification}}}"#)
}

/// A notification that can be told from others.
fn note(number: u32) -> String {
    format!(r#"{{"channel":"c","n":{number}}}"#)
}

/// What a program has printed when it has printed `last`, which is printed once.
fn printed_up_to(program: &Program, last: &str) -> Vec<String> {
    program.stdout.wait_for(last);
    program.stdout.text().lines().map(str::to_owned).collect()
}

#[test]
fn subscribe_resumes_behind_what_it_printed() {
    let server = Scripted::start();
    let program = server.program(&["subscribe", "c"]);
    let mut first = server.subscriber("");
    first.subscribed(r#","id":"a-0""#);
    first.send(&numbered("a-3", &note(3)));
    first.send(&numbered("a-5", &note(5)));
    first.away();

    let mut second = server.subscriber("a-5");
    second.subscribed(r#","id":"a-5","resumed":true"#);
    second.send(&numbered("a-6", &note(6)));
    // The connection is lost in the middle of the replay, without a word.
    program.stdout.wait_for(&note(6));
    drop(second);

    let mut third = server.subscriber("a-6");
    third.subscribed(r#","id":"a-6","resumed":true"#);
    // A delivery that comes again is no second notification.
    third.send(&numbered("a-6", &note(6)));
    third.send(&numbered("a-8", &note(8)));
    third.send(r#"{"type":"caught-up","id":"a-9","missed":1}"#);
    third.send(&numbered("a-10", &note(10)));
    let printed = printed_up_to(&program, &note(10));
    // As it was before there were ids.
    assert_eq!(printed, [3, 5, 6, 8, 10].map(|n| delivery(&note(n))));
    program.stderr.wait_for("crieur: caught up: 1 missed");
    assert!(!program.stderr.text().contains("could not say"));
}

#[test]
fn subscribe_since_begins_behind_an_id_and_prints_ids() {
    for (since, rest) in [
        ("a-7", r#","id":"a-7","resumed":true"#),
        ("", r#","id":"a-7""#),
    ] {
        let server = Scripted::start();
        let program = server.program(&["subscribe", "--since", since, "c"]);
        let mut connection = server.subscriber(since);
        connection.subscribed(rest);
        let sent = numbered("a-9", r#"{ "channel":"c" , "n":1.0 }"#);
        connection.send(&sent);
        assert_eq!(program.stdout.wait_for("a-9"), sent);
    }
}

#[test]
fn the_position_of_subscribe_moves_with_all_that_tells_one() {
    let server = Scripted::start();
    let program = server.program(&["subscribe", "c"]);
    let mut connection = server.subscriber("");
    connection.subscribed(r#","id":"a-1""#);
    connection.away();

    let mut connection = server.subscriber("a-1");
    connection.subscribed(r#","id":"a-1","resumed":true"#);
    connection.send(r#"{"type":"caught-up","id":"a-4","missed":0}"#);
    connection.away();

    let mut connection = server.subscriber("a-4");
    connection.subscribed(r#","id":"a-4","resumed":true"#);
    connection.send(r#"{"type":"gap","id":"a-6","reason":"expired"}"#);
    connection.away();

    // A resume that was promised, and of which nothing came.
    let mut connection = server.subscriber("a-6");
    connection.subscribed(r#","id":"a-6","resumed":true"#);
    connection.away();

    let mut connection = server.subscriber("a-6");
    connection.subscribed(r#","id":"b-9","resumed":false,"reason":"unknown""#);
    connection.away();

    let mut connection = server.subscriber("b-9");
    connection.send(
        r#"{"type":"subscribed","subscriptions":1,"heartbeat":0.05,"id":"b-9","resumed":true}"#,
    );
    assert_eq!(connection.text(), r#"{"type":"ping"}"#);
    connection.send(r#"{"type":"pong","id":"b-12"}"#);
    connection.away();
    server.subscriber("b-12");
    assert_eq!(program.stdout.text(), "");
}

#[test]
fn subscribe_asks_for_its_position_though_it_gets_what_is_not_kept() {
    let server = Scripted::start();
    let _program = server.program(&["subscribe", "c"]);
    let mut connection = server.subscriber("");
    connection.send(r#"{"type":"subscribed","subscriptions":1,"heartbeat":0.05,"id":"a-1"}"#);
    // What is not kept has no id, and comes without a pause.
    let mut other = Connection(connection.0.try_clone().expect("it is a socket"));
    let flood = thread::spawn(move || {
        let frame = [&[0x81, delivery(C).len() as u8], delivery(C).as_bytes()].concat();
        while other.0.write_all(&frame).is_ok() {}
    });
    assert_eq!(connection.text(), r#"{"type":"ping"}"#);
    let ended = connection.0.shutdown(Shutdown::Both);
    ended.expect("it is connected");
    flood.join().expect("it ends with its connection");
}

#[test]
fn subscribe_says_what_could_not_be_resumed() {
    let server = Scripted::start();
    let program = server.program(&["subscribe", "--since", "a-1", "c"]);
    let mut connection = server.subscriber("a-1");
    connection.subscribed(r#","id":"b-2","resumed":false,"reason":"expired""#);
    connection.send(r#"{"type":"gap","id":"b-3","reason":"of-a-newer-server"}"#);
    connection.away();

    // An answer that says nothing about it is no promise.
    let mut connection = server.subscriber("b-3");
    connection.subscribed(r#","id":"c-4""#);
    connection.away();
    let mut connection = server.subscriber("c-4");
    connection.subscribed("");
    connection.send(&delivery(C));
    program.stdout.wait_for(C);
    const LINE: &str = "crieur: the server could not say what was missed since ";
    let said = program.stderr.text();
    let said: Vec<_> = said
        .lines()
        .filter_map(|line| line.strip_prefix(LINE))
        .collect();
    assert_eq!(
        said,
        [
            "a-1: expired",
            "b-2: of-a-newer-server",
            "b-3: it does not say why",
            "c-4: it does not say why"
        ]
    );
}

#[test]
fn a_server_without_ids_is_followed_as_ever() {
    let server = Scripted::start();
    let program = server.program(&["subscribe", "c"]);
    for _ in 0..2 {
        let mut connection = server.subscriber("");
        connection.subscribed("");
        connection.send(&delivery(C));
        // The same again is another notification.
        connection.send(&delivery(C));
        // A type that was not reserved yet.
        connection.send(&format!(r#"{{"type":"gap","notification":{C}}}"#));
        connection.away();
    }
    let mut connection = server.subscriber("");
    connection.send(&delivery(&note(1)));
    let printed = printed_up_to(&program, &note(1));
    let gap = format!(r#"{{"type":"gap","notification":{C}}}"#);
    let each = [delivery(C), delivery(C), gap];
    assert_eq!(printed[..6], [&each[..], &each[..]].concat());
    assert!(!program.stderr.text().contains("could not say"));
}

#[test]
fn only_errors_that_mean_the_list_end_subscribe() {
    let error = |code| format!(r#"{{"type":"error","error":{{"code":"{code}","detail":"so"}}}}"#);
    for code in [
        "invalid-subscription",
        "forbidden",
        "too-many-subscriptions",
    ] {
        let server = Scripted::start();
        let mut program = server.program(&["subscribe", "c"]);
        let mut connection = server.subscriber("");
        connection.send(&error(code));
        let Ended { status, stderr, .. } = program.wait();
        let expected = format!("crieur: {code}: so\n");
        assert_eq!((status, stderr), (Some(1), expected));
    }

    let server = Scripted::start();
    let program = server.program(&["subscribe", "c"]);
    let mut connection = server.subscriber("");
    connection.subscribed(r#","id":"a-1""#);
    connection.send(&error("unknown-message"));
    connection.send(&numbered("a-2", C));
    program.stdout.wait_for(C);
    program.stderr.wait_for("crieur: unknown-message: so");
    connection.away();
    // Without a list in force nothing would come: it tries again.
    let mut connection = server.subscriber("a-2");
    connection.send(&error("of-a-newer-server"));
    program
        .stderr
        .wait_for("crieur: not subscribed: of-a-newer-server: so");
    server.subscriber("a-2");
}

#[test]
fn publish_sends_its_key_or_that_nothing_is_kept() {
    for (options, members) in [
        (&["--key", "order 7"][..], r#""key":"order 7","#),
        (&["--no-keep"], r#""keep":false,"#),
        (&["--type", "t", "--key", "k"], r#""type":"t","key":"k","#),
    ] {
        let server = Scripted::start();
        let mut program = server.program(&[&["publish"], options, &[C]].concat());
        let mut connection = server.accept();
        let message = format!(r#"{{"sender":"server",{members}"notification":{C}}}"#);
        assert_eq!(connection.text(), message);
        let receipt = r#"{"delivered":3,"id":"a-1","repeated":true}"#;
        connection.close(1000, receipt);
        let ended = program.wait();
        assert_eq!(ended.stdout, format!("{receipt}\n"));
        assert_eq!((ended.status, ended.stderr.as_str()), (Some(0), ""));
    }
}

#[test]
fn publish_of_lines_prints_whole_receipts() {
    let server = Scripted::start();
    let mut command = crieur();
    command
        .args(["publish", "--no-keep", "-"])
        .env("CRIEUR_URL", &server.url)
        .stdin(Stdio::piped());
    let mut program = Program::start(command);
    let mut connection = server.accept();
    for receipt in [
        r#"{"delivered":3,"id":"a-1"}"#,
        r#"{"delivered":3,"dropped":1}"#,
    ] {
        program.write(&format!("{C}\n"));
        let message = format!(r#"{{"sender":"server","keep":false,"notification":{C}}}"#);
        assert_eq!(connection.text(), message);
        connection.send(&format!(r#"{{"type":"published",{}"#, &receipt[1..]));
        program.stdout.wait_for(&receipt[1..]);
    }
    program.end_input();
    let ended = program.wait();
    assert_eq!(
        ended.stdout,
        "{\"delivered\":3,\"id\":\"a-1\"}\n{\"delivered\":3,\"dropped\":1}\n"
    );
}

#[test]
fn publish_with_a_key_is_sent_once_more_if_no_answer_came() {
    let server = Scripted::start();
    let mut program = server.program(&["publish", "--key", "k", C]);
    let mut lost = server.accept();
    let message = lost.text();
    drop(lost);
    let mut second = server.accept();
    assert_eq!(second.text(), message);
    second.close(1000, r#"{"delivered":0,"id":"a-1","repeated":true}"#);
    let ended = program.wait();
    assert_eq!(ended.status, Some(0), "{ended:?}");
    assert!(ended.stdout.contains(r#""repeated":true"#), "{ended:?}");
    assert!(ended.stderr.contains("sending it once more"), "{ended:?}");

    let mut program = server.program(&["publish", "--key", "k", C]);
    for _ in 0..2 {
        server.accept().text();
    }
    let ended = program.wait();
    assert_eq!(ended.status, Some(1), "{ended:?}");
    assert_eq!(ended.stderr.lines().count(), 2, "{ended:?}");
    server.expect_no_more();
}

#[test]
fn publish_is_not_sent_again_without_a_key_or_after_an_answer() {
    const REFUSAL: &str =
        r#"{"type":"error","error":{"code":"invalid-notification","detail":"so"}}"#;
    let server = Scripted::start();
    let mut program = server.program(&["publish", C]);
    server.accept().text();
    assert_eq!(program.wait().status, Some(1));

    let mut program = server.program(&["publish", "--key", "k", C]);
    let mut connection = server.accept();
    connection.text();
    connection.send(REFUSAL);
    drop(connection);
    let refused = program.wait();
    assert_eq!(refused.status, Some(1));
    assert_eq!(refused.stderr, "crieur: invalid-notification: so\n");

    let mut program = server.program(&["publish", "--key", "k", C]);
    let mut connection = server.accept();
    connection.text();
    connection.close(1001, COME_BACK);
    assert_eq!(program.wait().status, Some(1));
    server.expect_no_more();

    // Where nobody listens, nothing was sent.
    let unreachable = ["publish", "--key", "k", "--url", "ws://127.0.0.1:9/", C];
    let unreachable = run(&unreachable, "");
    assert_eq!(unreachable.status, Some(1));
    assert_eq!(unreachable.stderr.lines().count(), 1, "{unreachable:?}");
}
