//! What is half done when a program takes over is done by it: input that is half there, output that is half written, and
//! connections that nobody has accepted.

use std::io::Write;
use std::net::TcpStream;

use super::{C, halt_before_it_takes_over};
use crate::helpers::http::{Http, figures, post};
use crate::helpers::installed::Installed;
use crate::helpers::numbered::{
    caught_up, list_since, narrow_client, numbered, publish_all, resumed, wait_for_figure,
};
use crate::helpers::replay::{self, Replay};
use crate::helpers::{
    Client, Received, Server, delivery, frame, message, publish, raise_descriptor_limit,
    subscriber, upgrade,
};

/// Has all that was sent so far be read by the server.
fn have_it_read(client: &mut Client) {
    client.send(r#"{"type":"ping"}"#);
    assert_eq!(client.text(), r#"{"type":"pong"}"#);
}

/// Hands over when each of `senders` has sent a byte more than the one before, again when it has sent the byte behind
/// that, and sends the rest.
fn send_in_pieces<'a>(
    server: &Server,
    senders: impl Iterator<Item = (&'a mut TcpStream, &'a [u8])>,
) {
    let mut senders: Vec<_> = senders.collect();
    let mut client = Client::connect(server);
    let send = |stream: &mut TcpStream, bytes: &[u8]| {
        stream.write_all(bytes).expect("the server reads");
    };
    for (sent, (stream, bytes)) in senders.iter_mut().enumerate() {
        send(stream, &bytes[..sent]);
    }
    have_it_read(&mut client);
    server.hand_over();
    for (sent, (stream, bytes)) in senders.iter_mut().enumerate() {
        send(stream, &bytes[sent..=sent]);
    }
    have_it_read(&mut client);
    server.hand_over();
    for (sent, (stream, bytes)) in senders.iter_mut().enumerate() {
        send(stream, &bytes[sent + 1..]);
    }
}

fn notification(number: usize) -> String {
    format!(
        r#"{{"channel":"c","n":"{number:05}","text":"é😀{}"}}"#,
        "x".repeat(90)
    )
}

/// Reads what was published by as many, in whatever order.
fn expect_each(client: &mut Client, count: usize) {
    let mut texts: Vec<_> = (0..count).map(|_| client.text()).collect();
    texts.sort_unstable();
    for (number, text) in texts.iter().enumerate() {
        assert_eq!(*text, delivery(&notification(number)));
    }
    have_it_read(client);
}

#[test]
fn a_frame_may_be_cut_anywhere() {
    raise_descriptor_limit();
    let server = Server::start();
    let mut client = subscriber(&server, r#"["c"]"#);
    let frame_of = |number| frame(0x81, message(&notification(number)).as_bytes());
    let frames: Vec<_> = (0..frame_of(0).len()).map(frame_of).collect();
    let mut publishers: Vec<_> = frames
        .iter()
        .map(|_| Client::connect(&server).into_stream())
        .collect();
    let senders = publishers
        .iter_mut()
        .zip(frames.iter().map(|frame| &frame[..]));
    send_in_pieces(&server, senders);
    for publisher in publishers {
        let mut publisher = Client::over(publisher);
        assert_eq!(publisher.expect_close(1000), r#"{"delivered":1}"#);
        publisher.answer_close(1000);
    }
    expect_each(&mut client, frames.len());
}

#[test]
fn the_header_of_a_long_frame_may_be_cut_anywhere() {
    let server = Server::with(&["--max-message-bytes", "100000"]);
    let mut client = subscriber(&server, r#"["c"]"#);
    let long = format!(r#"{{"channel":"c","text":"{}"}}"#, "x".repeat(70_000));
    let bytes = frame(0x81, message(&long).as_bytes());
    // Two bytes, eight of the length, the key, and what it is applied to at each of its four bytes.
    let mut publishers: Vec<_> = (0..20)
        .map(|_| Client::connect_with(&server, "/publish", &[]).into_stream())
        .collect();
    let senders = publishers.iter_mut().map(|stream| (stream, &bytes[..]));
    send_in_pieces(&server, senders);
    for publisher in publishers {
        let receipt = Client::over(publisher).text();
        assert_eq!(receipt, r#"{"type":"published","delivered":1}"#);
    }
    for _ in 0..20 {
        assert!(client.text() == delivery(&long));
    }
}

#[test]
fn a_message_of_fragments_with_a_ping_in_between_may_be_cut_anywhere() {
    raise_descriptor_limit();
    let server = Server::start();
    let mut client = subscriber(&server, r#"["c"]"#);
    let fragments_of = |number| {
        let message = message(&notification(number)).into_bytes();
        // Within a character of four bytes, and one of two.
        let cuts = [0xc3, 0xf0].map(|first| message.iter().position(|byte| *byte == first));
        let [first, second] = cuts.map(|at| at.expect("it is there") + 1);
        [
            frame(0x01, &message[..first]),
            frame(0x89, b"are you there?"),
            frame(0x00, &message[first..second]),
            frame(0x00, b""),
            frame(0x8a, b"unasked"),
            frame(0x80, &message[second..]),
        ]
        .concat()
    };
    let messages: Vec<_> = (0..fragments_of(0).len()).map(fragments_of).collect();
    let mut publishers: Vec<_> = messages
        .iter()
        .map(|_| Client::connect_with(&server, "/publish", &[]).into_stream())
        .collect();
    let senders = publishers
        .iter_mut()
        .zip(messages.iter().map(|message| &message[..]));
    send_in_pieces(&server, senders);
    for publisher in publishers {
        let mut publisher = Client::over(publisher);
        let pong = Received::Pong(b"are you there?".to_vec());
        assert_eq!(publisher.receive(), pong);
        let receipt = r#"{"type":"published","delivered":1}"#;
        assert_eq!(publisher.text(), receipt);
    }
    expect_each(&mut client, messages.len());
}

#[test]
fn a_handshake_may_be_cut_anywhere() {
    let server = Server::start();
    let client = subscriber(&server, r#"["c"]"#);
    // What follows belongs to it.
    let list = frame(0x81, br#"{"sender":"client","subscriptions":["c"]}"#);
    let bytes = [upgrade().as_bytes(), &list].concat();
    let mut streams: Vec<_> = (0..bytes.len()).map(|_| server.tcp()).collect();
    let senders = streams.iter_mut().map(|stream| (stream, &bytes[..]));
    send_in_pieces(&server, senders);
    let clients = streams.into_iter().map(|stream| {
        let mut client = Client::over(stream);
        client.expect_upgrade();
        let answer = client.text();
        assert!(answer.starts_with(r#"{"type":"subscribed","#), "{answer}");
        client
    });
    let mut clients: Vec<_> = clients.collect();
    clients.push(client);
    let receipt = format!(r#"{{"delivered":{}}}"#, clients.len());
    assert_eq!(publish(&server, C), receipt);
    for client in &mut clients {
        assert_eq!(client.text(), delivery(C));
    }
}

#[test]
fn a_request_and_its_body_may_be_cut_anywhere() {
    raise_descriptor_limit();
    let server = Server::start();
    let mut client = subscriber(&server, r#"["c"]"#);
    let chunked = |number| {
        let body = message(&notification(number));
        let (first, second) = body.split_at(40);
        let chunks = [first, second].map(|part| format!("{:x}\r\n{part}\r\n", part.len()));
        let fields = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n";
        let [first, second] = chunks;
        format!("POST /publish HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n{first}{second}0\r\n\r\n")
    };
    let by_length = post(&message(&notification(0))).len();
    let count = by_length + chunked(0).len();
    let requests: Vec<_> = (0..count)
        .map(|number| match number.checked_sub(by_length) {
            None => post(&message(&notification(number))),
            Some(_) => chunked(number),
        })
        .collect();
    let (by_length, chunked) = requests.split_at(by_length);
    for requests in [by_length, chunked] {
        let mut streams: Vec<_> = requests.iter().map(|_| server.tcp()).collect();
        let senders = streams
            .iter_mut()
            .zip(requests.iter().map(|request| request.as_bytes()));
        send_in_pieces(&server, senders);
        for stream in streams {
            let mut http = Http::over(stream);
            http.expect(200, r#"{"delivered":1}"#);
            // It stays, and the next is as good.
            http.send("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n");
            assert_eq!(http.receive().0, 200);
        }
    }
    expect_each(&mut client, count);
}

#[test]
fn one_byte_after_each_handover() {
    let server = Server::start();
    let mut client = subscriber(&server, r#"["c"]"#);
    let mut publisher = Client::connect_with(&server, "/publish", &[]);
    let bytes = frame(0x81, message(C).as_bytes());
    let (last, others) = bytes.split_last().expect("it isn't empty");
    for byte in others {
        publisher.send_bytes(&[*byte]);
        have_it_read(&mut client);
        server.hand_over();
    }
    publisher.send_bytes(&[*last]);
    let receipt = r#"{"type":"published","delivered":1}"#;
    assert_eq!(publisher.text(), receipt);
    assert_eq!(client.text(), delivery(C));
}

/// Clients that don't read, whose connections are cut in the middle of what is written to them, again and again.
fn expect_slow_readers_served(flags: &[&str]) {
    const COUNT: usize = 300;
    let server = Server::with(flags);
    let mut plain = narrow_client(&server);
    plain.subscribe(r#"["c"]"#);
    let mut numbering = narrow_client(&server);
    numbering.send(&list_since(r#"["c"]"#, ""));
    numbering.whole_text();
    let all: Vec<_> = (0..COUNT + 50).map(replay::notification).collect();
    let mut ids = publish_all(&server, &all[..COUNT]);
    for n in 0..all.len() {
        if n % 50 == 0 {
            server.hand_over();
        }
        if n == 200 {
            ids.extend(publish_all(&server, &all[COUNT..]));
        }
        assert!(plain.whole_text() == delivery(&all[n]), "{n}");
        assert!(numbering.whole_text() == numbered(&ids[n], &all[n]), "{n}");
    }
    for client in [&mut plain, &mut numbering] {
        client.send(r#"{"type":"ping"}"#);
        let pong = client.whole_text();
        assert!(pong.starts_with(r#"{"type":"pong""#), "{pong}");
    }
    let text = figures(&server);
    assert!(text.contains("\ncrieur_slow_consumers_total 0\n"), "{text}");
    assert!(text.contains("\ncrieur_deliveries_dropped_total 0\n"));
    assert!(text.contains("\ncrieur_send_queue_bytes 0\n"), "{text}");
}

#[test]
fn what_waits_in_a_queue_is_written_to_its_end() {
    expect_slow_readers_served(&["--send-queue-bytes", "67108864"]);
}

#[test]
fn what_waits_in_a_queue_alone_is_written_to_its_end() {
    // By the time they are read nothing is in the history any more.
    let flags = ["--history-seconds", "0.1", "--send-queue-bytes", "67108864"];
    expect_slow_readers_served(&flags);
}

#[test]
fn who_is_behind_by_more_than_a_queue_gets_the_rest_from_the_history() {
    expect_slow_readers_served(&["--send-queue-bytes", "65536"]);
}

#[test]
fn who_is_being_caught_up_is_caught_up_by_the_next() {
    let mut replay = Replay::begin(&[]);
    replay.server.hand_over();
    wait_for_figure(&replay.server, "crieur_catching_up 1");
    let more: Vec<_> = (0..5).map(replay::notification).collect();
    replay.publish(&more);
    assert_eq!(replay.client.whole_text(), resumed(1, &replay.start));
    for (n, (id, notification)) in replay.ids.iter().zip(&replay.all).enumerate() {
        if n % 60 == 0 {
            replay.server.hand_over();
        }
        let text = replay.client.whole_text();
        assert!(text == numbered(id, notification), "{n}");
    }
    let last = replay.ids.last().expect("there are some");
    let end = replay.client.whole_text();
    assert_eq!(end, caught_up(last, replay.ids.len()));
    wait_for_figure(&replay.server, "crieur_catching_up 0");
}

#[test]
fn who_waits_to_be_accepted_is_accepted_by_the_next() {
    let installed = Installed::new();
    let server = installed.server(&[]);
    let mut client = subscriber(&server, r#"["c"]"#);
    halt_before_it_takes_over(&installed, &server);
    let list = frame(0x81, br#"{"sender":"client","subscriptions":["c"]}"#);
    let streams: Vec<_> = (0..100)
        .map(|_| {
            let mut stream = server.tcp();
            let bytes = [upgrade().as_bytes(), &list].concat();
            stream.write_all(&bytes).expect("the kernel takes it");
            stream
        })
        .collect();
    server.halt(false);
    let clients = streams.into_iter().map(|stream| {
        let mut client = Client::over(stream);
        client.expect_upgrade();
        let answer = client.text();
        assert!(answer.starts_with(r#"{"type":"subscribed","#), "{answer}");
        client
    });
    let clients: Vec<_> = clients.collect();
    let line = server.wait_for_line("took over from crieur");
    assert!(line.contains(", 0 lost, in "), "{line}");
    assert_eq!(publish(&server, C), r#"{"delivered":101}"#);
    for mut client in clients {
        assert_eq!(client.text(), delivery(C));
    }
    assert_eq!(client.text(), delivery(C));
}

#[test]
fn who_has_been_told_to_go_is_seen_off_by_the_next() {
    let server = Server::with(&["--close-timeout", "60"]);
    // Publishers whose Close is out; one that has said all, and is told nothing yet.
    let mut publishers: Vec<_> = (0..20).map(|_| Client::connect(&server)).collect();
    for publisher in &mut publishers {
        publisher.send(&message(C));
        assert_eq!(publisher.expect_close(1000), r#"{"delivered":0}"#);
    }
    server.hand_over();
    for mut publisher in publishers {
        publisher.answer_close(1000);
    }
    wait_for_figure(&server, r#"crieur_connections{role="closing"} 0"#);
    wait_for_figure(&server, r#"crieur_connections{role="publisher"} 0"#);
}
