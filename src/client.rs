//! A small blocking WebSocket client on `ws`, for the command line.
//!
//! Speaks RFC 6455 from the client's side: masks what it sends, answers Pings and the Close.
//! Knows nothing of what the messages mean.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::http::head::ResponseHead;
use crate::ws::close::{CloseCode, CloseFrame};
use crate::ws::error::ProtocolError;
use crate::ws::frame::{Opcode, Role, decode_header, encode_masked_frame};
use crate::ws::handshake::{ClientHandshake, ClientHandshakeError};
use crate::ws::mask::MaskingKey;
use crate::ws::message::{Message, MessageAssembler, Progress};

/// The largest message that is taken from a server.
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The largest head that is taken as the answer to the handshake.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// How long connecting and the handshake may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where to connect to: `ws://host[:port][/path][?query]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Url {
    /// Name or address, an IPv6 address in brackets.
    host: String,
    port: u16,
    /// The request target, with the query.
    target: String,
    /// What is shown to the server; never part of what is printed.
    token: Option<String>,
}

impl Url {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong with it, in words for the user.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rest = match text.split_once("://") {
            Some(("ws", rest)) => rest,
            Some(("wss", _)) => {
                return Err("wss:// needs TLS, which is not spoken here: use ws://".to_owned());
            }
            _ => return Err(format!("{:?} is not a ws:// URL", without_secrets(text))),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        if authority.contains('@') {
            return Err("names and passwords in a URL are not sent: use --token-file".to_owned());
        }
        let target = target.split('#').next().unwrap_or("");
        let target = if target.starts_with('/') {
            target.to_owned()
        } else {
            format!("/{target}")
        };
        let port_at = authority
            .rfind(':')
            .filter(|&colon| !authority[colon..].contains(']'));
        let (host, port) = match port_at {
            Some(colon) => {
                let port = authority[colon + 1..]
                    .parse()
                    .map_err(|_| format!("{:?} has no valid port", without_secrets(text)))?;
                (&authority[..colon], port)
            }
            None => (authority, 80),
        };
        if host.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("{:?} is not a ws:// URL", without_secrets(text)));
        }
        Ok(Self {
            host: host.to_owned(),
            port,
            target,
            token: None,
        })
    }

    /// The same server, shown `token`, which is visible ASCII.
    #[must_use]
    pub fn with_token(self, token: String) -> Self {
        Self {
            token: Some(token),
            ..self
        }
    }

    /// The same server with another request target.
    #[must_use]
    pub fn with_target(&self, target: &str) -> Self {
        Self {
            target: target.to_owned(),
            ..self.clone()
        }
    }

    /// The request target.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = without_token(&self.target);
        write!(f, "ws://{}:{}{target}", self.host, self.port)
    }
}

/// A URL, or a part of one, as it may be printed: the values of `token` in its query are left out.
fn without_token(url: &str) -> String {
    let mut shown = String::new();
    let mut rest = url;
    while let Some(at) = rest.find("token=") {
        let is_name = rest[..at].ends_with(['?', '&']);
        let (before, value) = rest.split_at(at + "token=".len());
        shown.push_str(before);
        rest = value;
        if is_name {
            let end = rest.find(['&', '#', ' ']).unwrap_or(rest.len());
            shown.push('…');
            rest = &rest[end..];
        }
    }
    shown + rest
}

/// What was taken for a URL, as it may be printed: without what may be a name and a password too.
fn without_secrets(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((_, rest)) => format!("…@{}", without_token(rest)),
        None => without_token(text),
    }
}

/// Why the client can't go on.
#[derive(Debug)]
pub enum ClientError {
    /// The system, or the peer by way of it.
    Io(io::Error),
    /// Nothing came within the time that was given.
    TimedOut,
    /// The peer hung up without a Close.
    HungUp,
    /// The server does not take us.
    Handshake(ClientHandshakeError),
    /// The server's answer is no HTTP.
    NotHttp,
    /// The server broke the protocol.
    Protocol(ProtocolError),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                f.write_str("connection refused (is the server running?)")
            }
            Self::Io(error) => fmt::Display::fmt(error, f),
            Self::TimedOut => f.write_str("no answer in time"),
            Self::HungUp => f.write_str("the server hung up"),
            Self::Handshake(error) => fmt::Display::fmt(error, f),
            Self::NotHttp => f.write_str("the server does not speak HTTP"),
            Self::Protocol(error) => write!(f, "the server broke the protocol: {error}"),
        }
    }
}

impl std::error::Error for ClientError {}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::TimedOut,
            _ => Self::Io(error),
        }
    }
}

impl From<ProtocolError> for ClientError {
    fn from(error: ProtocolError) -> Self {
        Self::Protocol(error)
    }
}

/// What the server sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Received {
    /// A text message.
    Text(String),
    /// Its Close, which has been answered; there is nothing after it.
    Close(CloseFrame),
}

/// An open connection to a server.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    /// Bytes that were read and not used yet.
    unused: Vec<u8>,
    assembler: MessageAssembler,
}

impl Client {
    /// Connects and shakes hands.
    ///
    /// # Errors
    /// Why there is no connection.
    pub fn connect(url: &Url) -> Result<Self, ClientError> {
        let stream = connect_any(url)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(CONNECT_TIMEOUT))?;
        stream.set_write_timeout(Some(CONNECT_TIMEOUT))?;
        let mut client = Self {
            stream,
            unused: Vec::new(),
            assembler: MessageAssembler::default(),
        };
        client.shake_hands(url)?;
        Ok(client)
    }

    fn shake_hands(&mut self, url: &Url) -> Result<(), ClientError> {
        let mut nonce = [0; 16];
        fill_random(&mut nonce)?;
        let handshake = ClientHandshake::new(nonce);
        let host = format!("{}:{}", url.host, url.port);
        self.stream
            .write_all(&handshake.request(&host, &url.target, url.token.as_deref()))?;
        loop {
            if let Some((head, length)) = ResponseHead::parse(&self.unused, HEAD_BYTES_MAX)
                .map_err(|_| ClientError::NotHttp)?
            {
                handshake
                    .check_response(&head)
                    .map_err(ClientError::Handshake)?;
                self.unused.drain(..length);
                return Ok(());
            }
            self.read_more()?;
        }
    }

    /// How long [`Client::receive`] waits for a byte; `None` is for ever.
    ///
    /// # Errors
    /// As the operating system's.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> Result<(), ClientError> {
        Ok(self.stream.set_read_timeout(timeout)?)
    }

    /// Sends a text message.
    ///
    /// # Errors
    /// As the operating system's.
    pub fn send_text(&mut self, text: &str) -> Result<(), ClientError> {
        self.send(Opcode::Text, text.as_bytes())
    }

    /// Starts the closing handshake.
    ///
    /// # Errors
    /// As the operating system's.
    pub fn close(&mut self) -> Result<(), ClientError> {
        self.send(
            Opcode::Close,
            &CloseFrame::new(CloseCode::NORMAL, "").encode(),
        )
    }

    fn send(&mut self, opcode: Opcode, payload: &[u8]) -> Result<(), ClientError> {
        // §5.3: a fresh key for each frame, from a strong source.
        let mut key = [0; 4];
        fill_random(&mut key)?;
        let mut frame = Vec::new();
        encode_masked_frame(&mut frame, opcode, payload, MaskingKey(key));
        Ok(self.stream.write_all(&frame)?)
    }

    /// Waits for the next text message, or for the Close. Binary messages are skipped.
    ///
    /// # Errors
    /// Why there is none; [`ClientError::TimedOut`] leaves the connection as it was.
    pub fn receive(&mut self) -> Result<Received, ClientError> {
        loop {
            let remaining = MESSAGE_BYTES_MAX - self.assembler.buffered_len();
            let header = decode_header(&self.unused, Role::Client, remaining)?;
            let Some(header) = header.filter(|header| self.unused.len() >= header.frame_len())
            else {
                self.read_more()?;
                continue;
            };
            let payload = self.unused[header.header_len..header.frame_len()].to_vec();
            self.unused.drain(..header.frame_len());
            match header.opcode {
                Opcode::Ping => self.send(Opcode::Pong, &payload)?,
                Opcode::Pong => {}
                Opcode::Close => {
                    let frame =
                        CloseFrame::decode(&payload).map_err(ProtocolError::ClosePayload)?;
                    // The server may be gone already, and what it said still counts.
                    let answer = CloseFrame {
                        code: frame.code,
                        reason: String::new(),
                    };
                    let _ = self.send(Opcode::Close, &answer.encode());
                    return Ok(Received::Close(frame));
                }
                Opcode::Text | Opcode::Binary | Opcode::Continuation => {
                    self.assembler.check_order(header.opcode)?;
                    let message = match self.assembler.accept(&header, &payload)? {
                        Progress::Unfinished => continue,
                        Progress::Whole => MessageAssembler::whole(&header, &payload)?,
                        Progress::Assembled => self.assembler.assembled()?,
                    };
                    let text = match message {
                        Message::Text(text) => Some(text.to_owned()),
                        Message::Binary(_) => None,
                    };
                    self.assembler.reset();
                    if let Some(text) = text {
                        return Ok(Received::Text(text));
                    }
                }
            }
        }
    }

    fn read_more(&mut self) -> Result<(), ClientError> {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer)? {
            0 => Err(ClientError::HungUp),
            received => {
                self.unused.extend_from_slice(&buffer[..received]);
                Ok(())
            }
        }
    }
}

/// Tries every address of the host; the last error counts.
fn connect_any(url: &Url) -> io::Result<TcpStream> {
    let host = url.host.trim_start_matches('[').trim_end_matches(']');
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in (host, url.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn fill_random(bytes: &mut [u8]) -> io::Result<()> {
    getrandom::fill(bytes).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (text, shown) in [
            ("ws://localhost:8000", "ws://localhost:8000/"),
            ("ws://localhost", "ws://localhost:80/"),
            ("ws://[::1]:8000/a?b=c#d", "ws://[::1]:8000/a?b=c"),
            ("ws://[::1]/", "ws://[::1]:80/"),
            ("ws://host?x", "ws://host:80/?x"),
            ("ws://host/a?token=secret", "ws://host:80/a?token=…"),
            (
                "ws://host?a=b&token=secret&c",
                "ws://host:80/?a=b&token=…&c",
            ),
            ("ws://host?token=a&token=b", "ws://host:80/?token=…&token=…"),
            (
                "ws://host/token=a?mytoken=b",
                "ws://host:80/token=a?mytoken=b",
            ),
        ] {
            assert_eq!(Url::parse(text).expect("valid").to_string(), shown);
        }
        for text in [
            "",
            "localhost:8000",
            "http://localhost",
            "ws://",
            "ws://:80",
            "ws://host:port",
            "ws://a b/",
        ] {
            assert!(Url::parse(text).is_err(), "{text}");
        }
        assert!(Url::parse("wss://host").expect_err("TLS").contains("TLS"));
        for text in [
            "http://host/?token=secret",
            "ws://:80/?token=secret",
            "ws://host:port/?token=secret",
            "ws://host/?token=secret\u{e9}",
            "ws://somebody:secret@host/",
            "ws://somebody:sec/secret@host/",
            "http://somebody:secret@host/",
            "somebody:secret@host",
            "http://host/?token=secret@a",
        ] {
            let error = Url::parse(text).expect_err("a mistake");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
