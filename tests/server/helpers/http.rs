//! A client of HTTP that keeps its connection, and what is posted with it.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::receipts::without_ids;
use super::{Server, response};

pub(crate) const JSON: &str = "Content-Type: application/json";

/// A client that reads one response after the other.
pub(crate) struct Http {
    pub(crate) stream: TcpStream,
    pub(crate) unread: Vec<u8>,
}

impl Http {
    pub(crate) fn connect(server: &Server) -> Self {
        Self::over(server.tcp())
    }

    pub(crate) const fn over(stream: TcpStream) -> Self {
        Self {
            stream,
            unread: Vec::new(),
        }
    }

    pub(crate) fn send(&mut self, text: impl AsRef<[u8]>) {
        self.stream
            .write_all(text.as_ref())
            .expect("the server reads");
    }

    /// The head of the next response, one to HEAD.
    pub(crate) fn receive_head(&mut self) -> String {
        loop {
            let text = String::from_utf8_lossy(&self.unread).into_owned();
            if let Some((head, _)) = text.split_once("\r\n\r\n") {
                self.unread.drain(..head.len() + 4);
                return head.to_owned();
            }
            self.read_more();
        }
    }

    /// The next response: its status, head and body.
    pub(crate) fn receive(&mut self) -> (u16, String, String) {
        loop {
            if let Some(response) = self.next() {
                return response;
            }
            self.read_more();
        }
    }

    pub(crate) fn read_more(&mut self) {
        let mut buffer = [0; 4096];
        let length = self.stream.read(&mut buffer).expect("a response in time");
        assert!(length > 0, "the end within a response: {:?}", self.unread);
        self.unread.extend_from_slice(&buffer[..length]);
    }

    fn next(&mut self) -> Option<(u16, String, String)> {
        let text = String::from_utf8(self.unread.clone()).expect("text");
        let (head, rest) = text.split_once("\r\n\r\n")?;
        let status: u16 = head[9..12].parse().expect("a status");
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "));
        let length = length.map_or(0, |length| length.parse().expect("a length"));
        let body = rest.get(..length)?;
        let dates = head.matches("\r\nDate: ").count();
        assert_eq!(dates, usize::from(status >= 200), "{head}");
        self.unread.drain(..head.len() + 4 + length);
        Some((status, head.to_owned(), body.to_owned()))
    }

    /// Reads the next response; receipts in it are compared without their ids.
    pub(crate) fn expect(&mut self, status: u16, body: &str) {
        let (got, head, text) = self.receive();
        let text = without_ids(text);
        assert_eq!((got, text.as_str()), (status, body), "{head}");
    }

    pub(crate) fn expect_end(&mut self) {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).expect("the end");
        assert!(self.unread.is_empty() && rest.is_empty(), "{rest:?}");
    }
}

/// A request to publish `body` by its length. `fields` come instead of the kind of the body.
pub(crate) fn post_with(fields: &[&str], body: &str) -> String {
    let lines: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    format!(
        "POST /publish HTTP/1.1\r\nHost: localhost\r\n{lines}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

pub(crate) fn post(body: &str) -> String {
    post_with(&[JSON], body)
}

/// Sends `request` and reads the answer that ends its connection.
pub(crate) fn refusal(server: &Server, request: &str, status: u16) -> (String, String) {
    let mut stream = server.tcp();
    stream
        .write_all(request.as_bytes())
        .expect("the server reads");
    let (head, body) = response(&mut stream);
    assert!(
        head.starts_with(&format!("HTTP/1.1 {status} ")),
        "{request:?}: {head}"
    );
    assert!(head.contains("\r\nConnection: close\r\n"), "{head}");
    (head, body)
}

/// Asks for the figures.
pub(crate) fn figures(server: &Server) -> String {
    let mut http = Http::connect(server);
    http.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let (status, head, body) = http.receive();
    assert_eq!(status, 200, "{head}");
    assert!(
        head.contains("\r\nContent-Type: text/plain; version=0.0.4"),
        "{head}"
    );
    body
}
