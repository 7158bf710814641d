//! Other servers' protocols, over real sockets, against a small server of each: what is right
//! passes, and what it does wrong on demand is found. `benches/compare-services --check` does the
//! first half of this with the real ones.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

const LOAD: &str = env!("CARGO_BIN_EXE_load");

const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// The notification with which something goes wrong.
const FAULTY: usize = 50;

/// What a server does wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    None,
    Lose,
    Double,
    Damage,
    /// It says that nobody got it.
    Deny,
    /// It refuses it.
    Refuse,
}

#[derive(Default)]
struct State {
    subscribers: HashMap<String, Vec<TcpStream>>,
    published: usize,
}

/// Starts a server in threads of this process, and says where it listens.
fn serve(dialect: &'static str, fault: Fault) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let state = Arc::new(Mutex::new(State::default()));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, state) = (stream.expect("a connection"), Arc::clone(&state));
            // What ends a connection ends its thread: the generator says what it thinks of it.
            thread::spawn(move || connection(stream, dialect, fault, &state));
        }
    });
    address
}

fn connection(
    mut stream: TcpStream,
    dialect: &str,
    fault: Fault,
    state: &Mutex<State>,
) -> Option<()> {
    let mut bytes = Vec::new();
    loop {
        let head_len = loop {
            if let Some(at) = bytes.windows(4).position(|part| part == b"\r\n\r\n") {
                break at + 4;
            }
            read(&mut stream, &mut bytes)?;
        };
        let head = String::from_utf8(bytes.drain(..head_len).collect()).ok()?;
        let path = head.split(' ').nth(1)?.to_owned();
        if head.starts_with("GET ") {
            return subscriber(stream, dialect, &path, bytes, state);
        }
        let length = head
            .split_once("Content-Length: ")?
            .1
            .split("\r\n")
            .next()?;
        let length: usize = length.parse().ok()?;
        while bytes.len() < length {
            read(&mut stream, &mut bytes)?;
        }
        let body = String::from_utf8(bytes.drain(..length).collect()).ok()?;
        let mut state = state.lock().ok()?;
        let (status, answer) = publish(dialect, fault, &path, &body, &mut state);
        drop(state);
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{answer}",
            answer.len()
        );
        stream.write_all(answer.as_bytes()).ok()?;
        if head.contains("Connection: close") {
            return None;
        }
    }
}

fn subscriber(
    mut stream: TcpStream,
    dialect: &str,
    path: &str,
    mut bytes: Vec<u8>,
    state: &Mutex<State>,
) -> Option<()> {
    let add = |stream: &TcpStream, channel: &str| {
        let mut state = state.lock().ok()?;
        let subscribers = state.subscribers.entry(channel.to_owned()).or_default();
        subscribers.push(stream.try_clone().ok()?);
        Some(())
    };
    if dialect != "pusher" {
        add(&stream, path.strip_prefix("/sub/")?)?;
    }
    stream.write_all(SWITCHING.as_bytes()).ok()?;
    if dialect == "pusher" {
        let greeting = r#"{"event":"pusher:connection_established","data":"{}"}"#;
        stream.write_all(&frame(0x1, greeting.as_bytes())).ok()?;
    }
    loop {
        // Frames of clients are masked, and short here.
        while bytes.len() < 6 || bytes.len() < 6 + usize::from(bytes[1] & 0x7f) {
            read(&mut stream, &mut bytes)?;
        }
        let frame_len = 6 + usize::from(bytes[1] & 0x7f);
        let found: Vec<u8> = bytes.drain(..frame_len).collect();
        let masked = found[6..].iter().enumerate();
        let payload: Vec<u8> = masked.map(|(at, byte)| byte ^ found[2 + at % 4]).collect();
        match found[0] & 0x0f {
            0x9 => stream.write_all(&frame(0xa, &payload)).ok()?,
            0x1 => {
                let text = String::from_utf8(payload).ok()?;
                let channel = text.split_once("\"channel\":\"")?.1.split('"').next()?;
                add(&stream, channel)?;
                let answer = format!(
                    r#"{{"event":"pusher_internal:subscription_succeeded","data":"{{}}","channel":"{channel}"}}"#
                );
                stream.write_all(&frame(0x1, answer.as_bytes())).ok()?;
            }
            _ => return None,
        }
    }
}

/// Delivers what was posted, and says what the publisher is answered.
fn publish(
    dialect: &str,
    fault: Fault,
    path: &str,
    body: &str,
    state: &mut State,
) -> (&'static str, String) {
    let of_json = |name: &str| {
        let (_, rest) = body
            .split_once(&format!("\"{name}\":\""))
            .unwrap_or_default();
        rest.split("\"").next().unwrap_or_default().to_owned()
    };
    let (channel, payload) = match dialect {
        "nchan" => (path.replace("/pub/", ""), body.to_owned()),
        "pushpin" => {
            assert_eq!(path, "/publish/");
            let (_, rest) = body.split_once("\"content\":\"").expect("a content");
            let content = rest.strip_suffix("\"}}}]}").expect("the end of an item");
            (of_json("channel"), content.replace('\\', ""))
        }
        _ => {
            assert!(path.starts_with("/apps/app-id/events?auth_key=app-key&"));
            // It passes on what it got, under the names of a delivery.
            (
                of_json("channel"),
                body.replacen("\"name\"", "\"event\"", 1),
            )
        }
    };
    state.published += 1;
    let is_faulty = state.published == FAULTY;
    if is_faulty && fault == Fault::Refuse {
        return ("503 Service Unavailable", String::new());
    }
    let subscribers = state.subscribers.get_mut(&channel);
    let mut count = 0;
    for (index, stream) in subscribers.into_iter().flatten().enumerate() {
        count += 1;
        let mut wrong = payload.clone().into_bytes();
        let copies: &[&[u8]] = match fault {
            _ if !is_faulty || index > 0 => &[payload.as_bytes()],
            Fault::Lose => &[],
            Fault::Double => &[payload.as_bytes(), payload.as_bytes()],
            Fault::Damage => {
                let at = wrong.len() - 10;
                wrong[at] ^= 1;
                &[&wrong]
            }
            _ => &[payload.as_bytes()],
        };
        for copy in copies {
            // A subscriber that has gone is the generator's matter.
            let _ = stream.write_all(&frame(0x1, copy));
        }
    }
    if is_faulty && fault == Fault::Deny {
        count = 0;
    }
    match dialect {
        "nchan" => (
            "201 Created",
            format!("queued messages: 1\r\nactive subscribers: {count}\r\nlast message id: 1:0"),
        ),
        "pushpin" => ("200 OK", "Published\n".to_owned()),
        _ => ("200 OK", "{}".to_owned()),
    }
}

fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        len @ 0..126 => frame.push(len as u8),
        len => {
            frame.push(126);
            frame.extend_from_slice(&(len as u16).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

fn read(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<()> {
    let mut buffer = [0; 4096];
    let count = stream.read(&mut buffer).ok().filter(|&count| count > 0)?;
    bytes.extend_from_slice(&buffer[..count]);
    Some(())
}

fn load(address: &str, dialect: &str, arguments: &str) -> Output {
    // Two processes to look at; what this one costs says nothing.
    let mut idle = ["1", "2"].map(|_| {
        let child = Command::new("cat").stdin(Stdio::piped()).spawn();
        child.expect("there is a cat")
    });
    let pids = format!("{},{}", idle[0].id(), idle[1].id());
    let output = Command::new(LOAD)
        .args(arguments.split_whitespace())
        .args(["--dialect", dialect, "--target", address])
        .args(["--pid", &pids, "--wait", "sleep"])
        .output();
    for child in &mut idle {
        child.kill().expect("it runs");
        child.wait().expect("it is our child");
    }
    output.expect("the generator runs")
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const DIALECTS: [&str; 3] = ["nchan", "pushpin", "pusher"];

#[test]
fn what_is_right_passes() {
    for dialect in DIALECTS {
        for arguments in [
            "fanout --subscribers 5 --publisher post --notifications 200 --in-flight 8",
            "fanout --subscribers 6 --channels 2 --publisher post --notifications 200 --topic channel",
            "fanout --subscribers 3 --publisher http --publishers 4 --in-flight 4 --notifications 200",
            "fanout --subscribers 3 --bystanders 2 --publisher post --notifications 200 --rate 2000",
            "hold --connections 50 --parallel 7",
        ] {
            let address = serve(dialect, Fault::None);
            let output = load(&address, dialect, arguments);
            let errors = errors(&output);
            assert!(output.status.success(), "{dialect}, {arguments}: {errors}");
            assert!(output.stdout.starts_with(b"{\"command\":\""), "{dialect}");
        }
    }
}

#[test]
fn what_is_wrong_is_found() {
    for dialect in DIALECTS {
        for (fault, expected) in [
            (Fault::Lose, "lost or late"),
            (Fault::Double, "twice"),
            (Fault::Damage, "damaged"),
            (Fault::Refuse, "a POST was answered \"http/1.1 503"),
        ] {
            let address = serve(dialect, fault);
            let arguments = "fanout --subscribers 4 --publisher post --notifications 400 --in-flight 8 --topic channel";
            let output = load(&address, dialect, arguments);
            let errors = errors(&output);
            assert_eq!(
                output.status.code(),
                Some(1),
                "{dialect} {fault:?}: {errors}"
            );
            assert!(errors.contains(expected), "{dialect} {fault:?}: {errors}");
        }
    }
}

#[test]
fn a_wrong_number_of_subscribers_is_found_where_it_is_told() {
    let address = serve("nchan", Fault::Deny);
    let arguments = "fanout --subscribers 4 --publisher post --notifications 400";
    let output = load(&address, "nchan", arguments);
    let errors = errors(&output);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("active subscribers: 0"), "{errors}");
}

#[test]
fn what_only_crieur_has_is_refused() {
    for arguments in [
        "fanout --publisher kept",
        "fanout --publisher post --numbered all",
        "fanout --publisher post --key",
    ] {
        let address = serve("nchan", Fault::None);
        let output = load(&address, "nchan", arguments);
        assert!(errors(&output).contains("--dialect is for"), "{arguments}");
    }
}

#[test]
fn the_floor_takes_posts_on_connections_of_their_own() {
    let arguments = "fanout --subscribers 5 --notifications 200 --publisher post --in-flight 8";
    let output = Command::new(LOAD)
        .arg("limit")
        .args(arguments.split_whitespace())
        .output()
        .expect("the generator runs");
    assert!(output.status.success(), "{}", errors(&output));
}
