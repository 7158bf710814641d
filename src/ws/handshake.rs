//! The opening handshake (RFC 6455 §4): the server's checks and answers, and a client's request.
//!
//! Reads heads that `http::head` has parsed; decides nothing about what may come in, which is
//! the application's.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha1::{Digest, Sha1};

use crate::http::head::{Head, ResponseHead};
use crate::http::host::is_named;
use crate::http::response::Response;
use crate::http::status::Status;

/// What the key is put together with before it is hashed (§1.3).
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The only version of the protocol that is spoken here (§4.1).
const VERSION: &str = "13";

/// What a server answers to a key, in Base64 (§4.2.2, item 5.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AcceptKey([u8; 28]);

impl AcceptKey {
    /// The answer to `key`, which is the field's value as it was sent.
    #[must_use]
    pub fn of(key: &[u8]) -> Self {
        let digest = Sha1::new()
            .chain_update(key)
            .chain_update(ACCEPT_GUID)
            .finalize();
        let mut text = [0; 28];
        let written = BASE64.encode_slice(digest, &mut text);
        debug_assert_eq!(written.ok(), Some(text.len()), "20 bytes are 28 in Base64");
        Self(text)
    }

    /// The answer as text.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A rule of §4.2.1 that a request for an upgrade breaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HandshakeError {
    /// Not a GET.
    Method,
    /// An empty `Host`.
    Host,
    /// `Connection` doesn't list `upgrade`.
    Connection,
    /// Not exactly one `Sec-WebSocket-Key` of 16 bytes in Base64.
    Key,
    /// Not exactly one `Sec-WebSocket-Version`, or not 13.
    Version,
    /// A body is announced, which an upgrade has not.
    Body,
}

impl HandshakeError {
    /// The answer that tells the client (§4.2.2; §4.4 for the version).
    #[must_use]
    pub fn response(self) -> Response {
        let response = |status| Response::new(status, self.to_string());
        match self {
            Self::Method => response(Status::METHOD_NOT_ALLOWED).with_field("Allow", "GET"),
            Self::Version => response(Status::UPGRADE_REQUIRED)
                .with_field("Upgrade", "websocket")
                .with_field("Sec-WebSocket-Version", VERSION),
            Self::Host | Self::Connection | Self::Key | Self::Body => response(Status::BAD_REQUEST),
        }
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Method => "an upgrade is asked for with GET",
            Self::Host => "Host must name a host",
            Self::Connection => "Connection must list Upgrade",
            Self::Key => "Sec-WebSocket-Key must be 16 bytes in Base64, once",
            Self::Version => "Sec-WebSocket-Version must be 13",
            Self::Body => "an upgrade has no body",
        })
    }
}

impl std::error::Error for HandshakeError {}

/// Checks a request that asks for an upgrade (§4.2.1) and computes the answer to its key. Its `Host` has
/// been checked as every request's is.
///
/// # Errors
/// The first rule that it breaks.
pub fn check_upgrade(head: &Head<'_>) -> Result<AcceptKey, HandshakeError> {
    if head.method != "GET" {
        return Err(HandshakeError::Method);
    }
    if !head.fields.only_value("host").is_some_and(is_named) {
        return Err(HandshakeError::Host);
    }
    if !head.fields.has_token("connection", "upgrade") {
        return Err(HandshakeError::Connection);
    }
    if has_body(head) {
        return Err(HandshakeError::Body);
    }
    if head.fields.only_value("sec-websocket-version") != Some(VERSION.as_bytes()) {
        return Err(HandshakeError::Version);
    }
    let key = head
        .fields
        .only_value("sec-websocket-key")
        .ok_or(HandshakeError::Key)?;
    if !is_key(key) {
        return Err(HandshakeError::Key);
    }
    Ok(AcceptKey::of(key))
}

/// A body would be read as frames by us and as a body by a proxy in front: refused.
fn has_body(head: &Head<'_>) -> bool {
    head.fields.has("transfer-encoding")
        || head
            .fields
            .values("content-length")
            .any(|value| value != b"0")
}

/// Whether `key` is 16 bytes in Base64, which are always 24 characters.
fn is_key(key: &[u8]) -> bool {
    let mut nonce = [0; 18];
    key.len() == 24 && BASE64.decode_slice(key, &mut nonce) == Ok(16)
}

/// Appends the answer that completes the handshake (§4.2.2, item 5). No extension and no
/// subprotocol is ever chosen.
pub fn encode_accept(into: &mut Vec<u8>, accept: AcceptKey) {
    const BEGIN: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ";
    const END: &[u8] = b"\r\n\r\n";
    into.reserve(BEGIN.len() + accept.as_bytes().len() + END.len());
    into.extend_from_slice(BEGIN);
    into.extend_from_slice(accept.as_bytes());
    into.extend_from_slice(END);
}

/// A client's side of the handshake (§4.1).
#[derive(Clone, Debug)]
pub struct ClientHandshake {
    key: String,
}

/// Why a client doesn't take the server's answer (§4.1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientHandshakeError {
    /// Another status than 101.
    Status(u16),
    /// 101, but not the answer to our key, or not an upgrade to WebSocket, or with an extension
    /// that we did not offer.
    NotAnAnswer,
}

impl fmt::Display for ClientHandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(code) => write!(f, "the server answered {code} to the upgrade"),
            Self::NotAnAnswer => {
                f.write_str("the server's answer to the upgrade is not WebSocket's")
            }
        }
    }
}

impl std::error::Error for ClientHandshakeError {}

impl ClientHandshake {
    /// A handshake whose key is made of `nonce`, 16 random bytes.
    #[must_use]
    pub fn new(nonce: [u8; 16]) -> Self {
        Self {
            key: BASE64.encode(nonce),
        }
    }

    /// The request that asks `host` (with its port where it isn't the default) for `target`, and
    /// shows it `token` (RFC 6750 §2.1).
    #[must_use]
    pub fn request(&self, host: &str, target: &str, token: Option<&str>) -> Vec<u8> {
        let authorization = token.map_or_else(String::new, |token| {
            format!("Authorization: Bearer {token}\r\n")
        });
        format!(
            "GET {target} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {}\r\nSec-WebSocket-Version: {VERSION}\r\n{authorization}\r\n",
            self.key
        )
        .into_bytes()
    }

    /// Checks the server's answer.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_response(&self, head: &ResponseHead<'_>) -> Result<(), ClientHandshakeError> {
        if head.status_code != 101 {
            return Err(ClientHandshakeError::Status(head.status_code));
        }
        let fields = &head.fields;
        let accept = AcceptKey::of(self.key.as_bytes());
        let is_answer = fields.has_token("upgrade", "websocket")
            && fields.has_token("connection", "upgrade")
            && fields.only_value("sec-websocket-accept") == Some(accept.as_bytes())
            && !fields.has("sec-websocket-extensions")
            && !fields.has("sec-websocket-protocol");
        if is_answer {
            Ok(())
        } else {
            Err(ClientHandshakeError::NotAnAnswer)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::http::response::Occasion;

    const GET: Occasion = Occasion {
        unix_now: Duration::ZERO,
        is_head: false,
    };

    const MAX: usize = 4096;

    /// The request of §1.3 with `line` in place of, or beside, the field of that name.
    fn check(replace: &str, line: &str) -> Result<AcceptKey, HandshakeError> {
        let fields = [
            "Host: server.example.com",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version: 13",
        ];
        let mut text = String::from("GET /chat HTTP/1.1\r\n");
        for field in fields
            .into_iter()
            .filter(|field| replace.is_empty() || !field.starts_with(replace))
            .chain([line])
        {
            if !field.is_empty() {
                text.push_str(field);
                text.push_str("\r\n");
            }
        }
        text.push_str("\r\n");
        check_text(&text)
    }

    fn check_text(text: &str) -> Result<AcceptKey, HandshakeError> {
        let (head, _) = Head::parse(text.as_bytes(), 0, MAX)
            .expect("valid")
            .expect("complete");
        check_upgrade(&head)
    }

    #[test]
    fn example_of_the_rfc() {
        // §1.3.
        let accept = check("", "").expect("valid");
        assert_eq!(accept.as_bytes(), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let mut response = Vec::new();
        encode_accept(&mut response, accept);
        assert_eq!(
            String::from_utf8(response).expect("ASCII"),
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        );
    }

    #[test]
    fn fields_that_may_look_otherwise() {
        for line in [
            "UPGRADE: h2c, WebSocket",
            "Connection: keep-alive, UPGRADE",
            "Content-Length: 0",
        ] {
            let name = line.split(':').next().expect("a name");
            let name = if name == "UPGRADE" { "Upgrade" } else { name };
            assert!(check(name, line).is_ok(), "{line}");
        }
    }

    #[test]
    fn every_rule_of_the_request() {
        use HandshakeError as E;
        for (replace, line, error) in [
            ("Host", "", E::Host),
            ("Host", "Host:", E::Host),
            ("Host", "Host: :8000", E::Host),
            ("", "Host: another", E::Host),
            ("Connection", "", E::Connection),
            ("Connection", "Connection: keep-alive", E::Connection),
            ("Sec-WebSocket-Key", "", E::Key),
            ("", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", E::Key),
            (
                "Sec-WebSocket-Key",
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZ",
                E::Key,
            ),
            (
                "Sec-WebSocket-Key",
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZTEyMw==",
                E::Key,
            ),
            (
                "Sec-WebSocket-Key",
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZTEy",
                E::Key,
            ),
            (
                "Sec-WebSocket-Key",
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j*Q==",
                E::Key,
            ),
            ("Sec-WebSocket-Version", "", E::Version),
            (
                "Sec-WebSocket-Version",
                "Sec-WebSocket-Version: 8",
                E::Version,
            ),
            (
                "Sec-WebSocket-Version",
                "Sec-WebSocket-Version: 13, 8",
                E::Version,
            ),
            ("", "Sec-WebSocket-Version: 13", E::Version),
            ("", "Content-Length: 5", E::Body),
            ("", "Transfer-Encoding: chunked", E::Body),
        ] {
            assert_eq!(check(replace, line), Err(error), "{replace}: {line}");
        }
        let rest = "Host: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
        assert_eq!(
            check_text(&format!("POST / HTTP/1.1\r\n{rest}")),
            Err(E::Method)
        );
    }

    #[test]
    fn http_1_0_knows_no_upgrade() {
        for (version, asks) in [("HTTP/1.1", true), ("HTTP/1.0", false)] {
            let text = format!("GET / {version}\r\nHost: a\r\nUpgrade: websocket\r\n\r\n");
            let (head, _) = Head::parse(text.as_bytes(), 0, MAX)
                .expect("valid")
                .expect("complete");
            assert_eq!(head.asks_for_websocket(), asks, "{version}");
        }
    }

    #[test]
    fn answers_to_errors() {
        let text =
            |error: HandshakeError| String::from_utf8(error.response().encode(GET)).expect("ASCII");
        let version = text(HandshakeError::Version);
        assert!(
            version.starts_with("HTTP/1.1 426 ")
                && version.contains("\r\nSec-WebSocket-Version: 13\r\n")
        );
        let method = text(HandshakeError::Method);
        assert!(method.starts_with("HTTP/1.1 405 ") && method.contains("\r\nAllow: GET\r\n"));
    }

    #[test]
    fn client_and_server_agree() {
        let handshake = ClientHandshake::new([7; 16]);
        let request = handshake.request("localhost:8000", "/publish", Some("x.y"));
        let (head, _) = Head::parse(&request, 0, MAX)
            .expect("valid")
            .expect("complete");
        assert!(head.asks_for_websocket());
        let mut response = Vec::new();
        encode_accept(&mut response, check_upgrade(&head).expect("valid"));
        let (answer, _) = ResponseHead::parse(&response, MAX)
            .expect("valid")
            .expect("complete");
        assert_eq!(handshake.check_response(&answer), Ok(()));

        let other = ClientHandshake::new([8; 16]);
        assert_eq!(
            other.check_response(&answer),
            Err(ClientHandshakeError::NotAnAnswer)
        );
        let refusal = Response::new(Status::SERVICE_UNAVAILABLE, "full").encode(GET);
        let (answer, _) = ResponseHead::parse(&refusal, MAX)
            .expect("valid")
            .expect("complete");
        assert_eq!(
            handshake.check_response(&answer),
            Err(ClientHandshakeError::Status(503))
        );
    }
}
