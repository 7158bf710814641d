//! Frames and messages (RFC 6455 §5 to §8): what is put together, and what is refused how.

use crate::helpers::{
    Client, Received, Server, close_frame, close_payload, close_reason, delivery, error_code,
    frame, publish, subscriber,
};

const PING: &[u8] = br#"{"type":"ping"}"#;
const PONG: &str = r#"{"type":"pong"}"#;
const C: &str = r#"{"channel":"c"}"#;

/// Checks that `bytes` fail a subscriber's connection with `code`, that the server then ends it,
/// and that it is forgotten at once.
fn assert_failed(server: &Server, bytes: &[u8], code: u16) {
    let mut client = subscriber(server, r#"["c"]"#);
    client.send_bytes(bytes);
    close_reason(&client.expect_close(code));
    assert_eq!(publish(server, C), r#"{"delivered":0}"#, "{bytes:02x?}");
    client.expect_end();
}

/// The fragments of a text message, one for each of `parts`.
fn fragments(parts: &[&[u8]]) -> Vec<Vec<u8>> {
    let last = parts.len() - 1;
    let first_byte = |index: usize| {
        let opcode = if index == 0 { 0x01 } else { 0x00 };
        let fin = if index == last { 0x80 } else { 0x00 };
        fin | opcode
    };
    let parts = parts.iter().enumerate();
    parts
        .map(|(index, part)| frame(first_byte(index), part))
        .collect()
}

#[test]
fn frames_may_be_split_at_every_byte() {
    let server = Server::start();
    let mut client = Client::connect(&server);
    let long = format!("{:<200}", r#"{"type":"ping"}"#);
    let bytes = [
        frame(0x81, PING),
        frame(0x89, b"ping"),
        frame(0x81, long.as_bytes()),
    ]
    .concat();
    for middle in 1..bytes.len() {
        client.send_bytes(&bytes[..middle]);
        client.send_bytes(&bytes[middle..]);
        assert_eq!(client.text(), PONG, "split at {middle}");
        assert_eq!(client.receive(), Received::Pong(b"ping".to_vec()));
        assert_eq!(client.text(), PONG);
    }
    for byte in bytes {
        client.send_bytes(&[byte]);
    }
    assert_eq!(client.text(), PONG);
    assert_eq!(client.receive(), Received::Pong(b"ping".to_vec()));
    assert_eq!(client.text(), PONG);
}

#[test]
fn pings_are_answered_between_the_fragments_of_a_message() {
    let server = Server::start();
    let mut client = Client::connect(&server);
    let text = format!("{:<60}", r#"{"type":"ping"}"#);
    let parts: Vec<_> = text.as_bytes().chunks(1).collect();
    assert_eq!(parts.len(), 60);
    for (index, fragment) in fragments(&parts).iter().enumerate() {
        client.send_bytes(&[fragment.clone(), frame(0x89, &[index as u8])].concat());
        if index < 59 {
            assert_eq!(client.receive(), Received::Pong(vec![index as u8]));
        }
    }
    assert_eq!(client.text(), PONG);
    assert_eq!(client.receive(), Received::Pong(vec![59]));
}

#[test]
fn fragments_may_be_empty_and_come_together() {
    let server = Server::start();
    let mut client = Client::connect(&server);
    client.send_bytes(&fragments(&[b"", b"", PING, b"", b""]).concat());
    assert_eq!(client.text(), PONG);
    client.send_bytes(&fragments(&[b"", b""]).concat());
    assert_eq!(error_code(&client.text()), "invalid-json");
    client.send_bytes(&frame(0x81, b""));
    assert_eq!(error_code(&client.text()), "invalid-json");
}

#[test]
fn a_fragmented_notification_arrives_as_one() {
    let server = Server::start();
    let mut client = subscriber(&server, r#"["c"]"#);
    let notification = format!(r#"{{"channel":"c","text":"{}"}}"#, "é😀".repeat(1000));
    let message = crate::helpers::message(&notification);
    for size in [1, 7, 1000, message.len()] {
        let mut publisher = Client::connect(&server);
        let parts: Vec<_> = message.as_bytes().chunks(size).collect();
        publisher.send_bytes(&fragments(&parts).concat());
        assert_eq!(publisher.expect_close(1000), r#"{"delivered":1}"#);
        assert_eq!(client.text(), delivery(&notification));
    }
}

#[test]
fn control_payloads_may_have_125_bytes() {
    let server = Server::start();
    let mut client = Client::connect(&server);
    for length in [0, 1, 124, 125] {
        client.send_bytes(&frame(0x89, &vec![0xff; length]));
        assert_eq!(client.receive(), Received::Pong(vec![0xff; length]));
    }
    assert_failed(&server, &frame(0x89, &[0; 126]), 1002);
    assert_failed(&server, &frame(0x8a, &[0; 126]), 1002);
    assert_failed(
        &server,
        &frame(0x88, &close_payload(1000, &"x".repeat(124))),
        1002,
    );
}

#[test]
fn unasked_pongs_are_ignored() {
    let server = Server::start();
    let mut client = Client::connect(&server);
    client.send_bytes(&[frame(0x8a, b""), frame(0x8a, b"unasked"), frame(0x81, PING)].concat());
    assert_eq!(client.text(), PONG);
}

#[test]
fn frames_that_break_the_protocol_are_closed_with_1002() {
    let server = Server::start();
    let mut unmasked = vec![0x81, PING.len() as u8];
    unmasked.extend(PING);
    assert_failed(&server, &unmasked, 1002);
    for first in [0x91, 0xa1, 0xc1, 0xf1, 0xc9, 0xd8] {
        // A reserved bit.
        assert_failed(&server, &frame(first, PING), 1002);
    }
    for opcode in [0x3, 0x4, 0x5, 0x6, 0x7, 0xb, 0xc, 0xd, 0xe, 0xf] {
        assert_failed(&server, &frame(0x80 | opcode, b""), 1002);
    }
    for control in [0x08, 0x09, 0x0a] {
        // A fragment of a control frame.
        assert_failed(&server, &frame(control, b""), 1002);
    }
}

#[test]
fn lengths_must_be_in_their_shortest_form() {
    let server = Server::start();
    for header in [
        &[0x81, 0xfe, 0x00, 0x7d][..],
        &[0x81, 0xfe, 0x00, 0x00],
        &[0x81, 0xff, 0, 0, 0, 0, 0, 0, 0, 5],
        &[0x81, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
        // The top bit of 64 is 0.
        &[0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0],
    ] {
        assert_failed(&server, header, 1002);
    }
}

#[test]
fn fragments_must_be_in_order() {
    let server = Server::start();
    // A continuation of nothing; a message within a message.
    assert_failed(&server, &frame(0x80, PING), 1002);
    assert_failed(&server, &frame(0x00, PING), 1002);
    assert_failed(
        &server,
        &[frame(0x01, PING), frame(0x81, PING)].concat(),
        1002,
    );
    assert_failed(
        &server,
        &[frame(0x01, PING), frame(0x02, PING)].concat(),
        1002,
    );
}

#[test]
fn bad_closes_are_closed_with_1002() {
    let server = Server::start();
    assert_failed(&server, &frame(0x88, &[3]), 1002);
    for code in [
        0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535,
    ] {
        assert_failed(&server, &frame(0x88, &close_payload(code, "")), 1002);
    }
}

#[test]
fn text_that_is_not_utf8_is_closed_with_1007() {
    let server = Server::start();
    for bytes in [
        &b"\xff"[..],
        b"\xc0\xaf",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"cut \xe2\x82",
    ] {
        assert_failed(&server, &frame(0x81, bytes), 1007);
        assert_failed(&server, &fragments(&[bytes, b""]).concat(), 1007);
        let (first, second) = bytes.split_at(bytes.len() - 1);
        assert_failed(&server, &fragments(&[first, second]).concat(), 1007);
    }
    // A fault shows before the message is whole.
    assert_failed(&server, &frame(0x01, b"\xff"), 1007);
    let reason = [&1000_u16.to_be_bytes()[..], b"\xff"].concat();
    assert_failed(&server, &frame(0x88, &reason), 1007);
}

#[test]
fn characters_may_be_cut_by_fragments() {
    let server = Server::start();
    let mut client = Client::connect(&server);
    let text = r#"{"type":"ping","text":"é€😀"}"#.as_bytes();
    for middle in 0..=text.len() {
        client.send_bytes(&fragments(&[&text[..middle], &text[middle..]]).concat());
        assert_eq!(client.text(), PONG, "cut at {middle}");
    }
}

#[test]
fn a_clients_message_has_a_limit() {
    let server = Server::with(&["--max-message-bytes", "1000", "--max-publish-bytes", "2000"]);
    for (origin, max) in [(&["Origin: http://a"][..], 1000), (&[], 2000)] {
        let ping = format!("{:<max$}", r#"{"type":"ping"}"#);
        let (start, rest) = ping.as_bytes().split_at(400);
        let mut client = Client::connect_with(&server, "/", origin);
        client.send(&ping);
        assert_eq!(client.text(), PONG);
        client.send_bytes(&fragments(&[start, rest]).concat());
        assert_eq!(client.text(), PONG);
        let longer = [rest, b" "].concat();
        for bytes in [
            frame(0x81, &[start, &longer].concat()),
            fragments(&[start, &longer]).concat(),
            // The header alone shows it.
            frame(0x81, &[start, &longer].concat())[..4].to_vec(),
            [frame(0x01, start), frame(0x00, rest), frame(0x00, b" ")].concat(),
        ] {
            let mut client = Client::connect_with(&server, "/", origin);
            client.send_bytes(&bytes);
            let (word, _) = close_reason(&client.expect_close(1009));
            assert_eq!(word, "message-too-big");
            client.expect_end();
        }
    }
}

#[test]
fn sizes_that_nobody_can_send_are_too_big() {
    let server = Server::start();
    let huge = [0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    assert_failed(&server, &huge, 1009);
    let begun = frame(0x01, b"{");
    let continued = [0x80, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    assert_failed(&server, &[&begun[..], &continued].concat(), 1009);
}

#[test]
fn what_comes_before_a_fault_is_followed() {
    let server = Server::start();
    let mut client = Client::connect(&server);
    client.send_bytes(&[frame(0x81, PING), frame(0x83, b""), frame(0x81, PING)].concat());
    assert_eq!(client.text(), PONG);
    client.expect_close(1002);
    client.send_bytes(&close_frame(1002));
    client.expect_end();
}
