//! A WebSocket client that says exactly what a test wants it to say, broken frames included.
//!
//! Checks of what it reads what every client must: no mask, no reserved bit, the shortest
//! length, UTF-8, and nothing behind a Close.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

use super::Server;
use super::receipts::without_ids;

/// The fields of a good upgrade. The key is the one of RFC 6455 §1.3.
pub(crate) const UPGRADE_FIELDS: [&str; 5] = [
    "Host: 127.0.0.1",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
];

/// The answer to that key (§1.3).
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// What a Close without a code is known as (§7.1.5).
pub(crate) const NO_STATUS: u16 = 1005;

const MASKING_KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// One client; what it has read and not yet looked at.
pub(crate) struct Client<S = TcpStream> {
    stream: S,
    unread: Vec<u8>,
}

/// The next thing that the server said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Received {
    Text(String),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(u16, String),
    /// TCP was closed.
    End,
}

/// A request for an upgrade to `target`. Each of `fields` takes the place of the good ones of
/// its name.
pub(crate) fn upgrade_to(target: &str, fields: &[&str]) -> String {
    let name_of = |field: &str| field.split(':').next().map(str::to_ascii_lowercase);
    let mut head = format!("GET {target} HTTP/1.1\r\n");
    let good = UPGRADE_FIELDS
        .into_iter()
        .filter(|good| !fields.iter().any(|field| name_of(field) == name_of(good)));
    for field in good.chain(fields.iter().copied()) {
        head.push_str(field);
        head.push_str("\r\n");
    }
    head + "\r\n"
}

/// A good request for an upgrade.
pub(crate) fn upgrade() -> String {
    upgrade_to("/", &[])
}

/// A masked frame with this first byte, whatever it says.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(MASKING_KEY);
    let masked = payload.iter().zip(MASKING_KEY.iter().cycle());
    bytes.extend(masked.map(|(byte, key)| byte ^ key));
    bytes
}

/// The payload of a Close.
pub(crate) fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes(), reason.as_bytes()].concat()
}

/// A masked Close with `code`, or without a payload.
pub(crate) fn close_frame(code: u16) -> Vec<u8> {
    if code == NO_STATUS {
        return frame(0x88, b"");
    }
    frame(0x88, &close_payload(code, ""))
}

/// Reads a whole response that ends its connection: its head and its body, whose announced
/// length is checked, as is that it has a date.
pub(crate) fn response(stream: &mut TcpStream) -> (String, String) {
    let mut bytes = Vec::new();
    stream
        .read_to_end(&mut bytes)
        .expect("a response, then the end");
    let text = String::from_utf8(bytes).expect("a response is text");
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no response: {text:?}"));
    assert!(
        head.contains(&format!("\r\nContent-Length: {}", body.len())),
        "{text}"
    );
    assert_eq!(head.matches("\r\nDate: ").count(), 1, "{text}");
    (head.to_owned(), body.to_owned())
}

impl Client {
    /// A client whose handshake is done.
    pub(crate) fn connect(server: &Server) -> Self {
        Self::connect_with(server, "/", &[])
    }

    /// The same, to another target or with other fields.
    pub(crate) fn connect_with(server: &Server, target: &str, fields: &[&str]) -> Self {
        Self::over(server.tcp()).upgrade(target, fields)
    }

    /// Ends its own sending, not its reading.
    pub(crate) fn shut_write(&self) {
        self.stream
            .shutdown(Shutdown::Write)
            .expect("the connection is there");
    }
}

impl<S: Read + Write> Client<S> {
    /// A client that has said nothing yet.
    pub(crate) const fn over(stream: S) -> Self {
        Self {
            stream,
            unread: Vec::new(),
        }
    }

    /// Does the handshake.
    pub(crate) fn upgrade(mut self, target: &str, fields: &[&str]) -> Self {
        self.send_bytes(upgrade_to(target, fields).as_bytes());
        self.expect_upgrade();
        self
    }

    /// Its connection, and nothing else of it.
    pub(crate) const fn stream(&self) -> &S {
        &self.stream
    }

    pub(crate) fn into_stream(self) -> S {
        self.stream
    }

    // Sending.

    /// Sends a text message.
    pub(crate) fn send(&mut self, text: &str) {
        self.send_bytes(&frame(0x81, text.as_bytes()));
    }

    /// Sends anything.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server reads");
    }

    /// Replaces its subscriptions by the list `subscriptions` and waits for the answer.
    pub(crate) fn subscribe(&mut self, subscriptions: &str) {
        self.send(&format!(
            r#"{{"sender":"client","subscriptions":{subscriptions}}}"#
        ));
        let answer = self.text();
        assert!(answer.starts_with(r#"{"type":"subscribed","#), "{answer}");
    }

    // Receiving.

    /// Reads the answer to the upgrade, which must be the good one.
    pub(crate) fn expect_upgrade(&mut self) {
        let head = loop {
            let end = self.unread.windows(4).position(|at| at == b"\r\n\r\n");
            if let Some(end) = end {
                break self.unread.drain(..end + 4).collect::<Vec<_>>();
            }
            assert!(self.read_more(), "the end instead of a handshake");
        };
        let head = String::from_utf8_lossy(&head);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        for field in [
            "Upgrade: websocket",
            "Connection: Upgrade",
            &format!("Sec-WebSocket-Accept: {ACCEPT}"),
        ] {
            let line = format!("\r\n{field}\r\n");
            assert_eq!(head.matches(&line).count(), 1, "{head}");
        }
    }

    /// The next frame, or the end.
    pub(crate) fn receive(&mut self) -> Received {
        let Some((opcode, payload)) = self.read_frame() else {
            return Received::End;
        };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text is UTF-8");
        match opcode {
            0x1 => Received::Text(text(&payload)),
            0x8 => match payload.split_first_chunk() {
                None => Received::Close(NO_STATUS, text(&payload)),
                Some((code, reason)) => Received::Close(u16::from_be_bytes(*code), text(reason)),
            },
            0x9 => Received::Ping(payload),
            0xa => Received::Pong(payload),
            other => panic!("opcode {other:#x} from the server"),
        }
    }

    /// The next frame, which must be a text message; a receipt without its id.
    pub(crate) fn text(&mut self) -> String {
        without_ids(self.whole_text())
    }

    /// The next frame, which must be a text message.
    pub(crate) fn whole_text(&mut self) -> String {
        match self.receive() {
            Received::Text(text) => text,
            other => panic!("{other:?} instead of a text message"),
        }
    }

    /// Reads `texts`, in this order and nothing else in between.
    pub(crate) fn expect_texts<T: AsRef<str>>(&mut self, texts: &[T]) {
        for text in texts {
            assert_eq!(self.text(), text.as_ref());
        }
    }

    /// Reads a Close with `code` and returns its reason; a receipt without its id.
    pub(crate) fn expect_close(&mut self, code: u16) -> String {
        without_ids(self.expect_whole_close(code))
    }

    /// Reads a Close with `code` and returns its reason.
    pub(crate) fn expect_whole_close(&mut self, code: u16) -> String {
        match self.receive() {
            Received::Close(received, reason) if received == code => reason,
            other => panic!("{other:?} instead of Close {code}"),
        }
    }

    /// Reads the end.
    pub(crate) fn expect_end(&mut self) {
        assert_eq!(self.receive(), Received::End);
    }

    /// Answers the server's Close and reads the end.
    pub(crate) fn answer_close(&mut self, code: u16) {
        self.send_bytes(&close_frame(code));
        self.expect_end();
    }

    /// Says farewell: after this the server knows it no more.
    pub(crate) fn leave(mut self) {
        self.send_bytes(&close_frame(1000));
        self.expect_close(1000);
        self.expect_end();
    }

    /// What comes before the marker.
    pub(crate) fn before_marker(&mut self) -> Vec<String> {
        let marker = super::delivery(super::MARKER);
        let mut texts = Vec::new();
        loop {
            match self.text() {
                text if text == marker => return texts,
                text => texts.push(text),
            }
        }
    }

    fn read_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some((opcode, payload, length)) = decode(&self.unread) {
                let whole = (opcode, payload.to_vec());
                self.unread.drain(..length);
                return Some(whole);
            }
            if !self.read_more() {
                assert!(self.unread.is_empty(), "the end within a frame");
                return None;
            }
        }
    }

    /// Whether there was more than the end.
    fn read_more(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(length) => {
                    self.unread.extend_from_slice(&buffer[..length]);
                    return length > 0;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    panic!("nothing came in time; unread: {:?}", self.unread)
                }
                Err(error) => panic!("reading: {error}"),
            }
        }
    }
}

/// The first frame of `bytes` and its length, once it is whole.
fn decode(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (&[first, second], rest) = bytes.split_first_chunk::<2>()?;
    assert_eq!(first & 0xf0, 0x80, "a fragment, or a reserved bit");
    assert_eq!(second & 0x80, 0, "a masked frame");
    let (start, length) = match second {
        126 => {
            let length = usize::from(u16::from_be_bytes(*rest.first_chunk()?));
            assert!(length >= 126, "{length} is not in its shortest form");
            (4, length)
        }
        127 => {
            let length = u64::from_be_bytes(*rest.first_chunk()?) as usize;
            assert!(length >= 0x1_0000, "{length} is not in its shortest form");
            (10, length)
        }
        length => (2, usize::from(length)),
    };
    let payload = bytes.get(start..start + length)?;
    Some((first & 0x0f, payload, start + length))
}
