//! Non-blocking TCP over the loopback.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
    sockopt,
};

/// The sample key of RFC 6455 §1.3, and the answer to it: nothing here proves anything.
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// Addresses that connections come from, in turn, so that ports never run out.
const SOURCES: u8 = 250;

/// Opens connections to one server, or to nodes of one in turn.
#[derive(Debug)]
pub(crate) struct Connector {
    targets: Vec<SocketAddrV4>,
    next_target: usize,
    next_source: u8,
}

impl Connector {
    pub(crate) fn new(target: SocketAddrV4) -> Self {
        Self::to_nodes(vec![target])
    }

    /// To each of the addresses in turn; there is one at least.
    pub(crate) const fn to_nodes(targets: Vec<SocketAddrV4>) -> Self {
        Self {
            targets,
            next_target: 0,
            next_source: 0,
        }
    }

    /// Starts a connection. Over the loopback it is there when this returns, unless the
    /// server's backlog is full.
    pub(crate) fn connect(&mut self) -> io::Result<OwnedFd> {
        let socket = socket_with(
            AddressFamily::INET,
            SocketType::STREAM,
            SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
            None,
        )?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        let source = Ipv4Addr::new(127, 0, 0, 2 + self.next_source);
        self.next_source = (self.next_source + 1) % SOURCES;
        bind(&socket, &SocketAddrV4::new(source, 0))?;
        let target = self.targets[self.next_target];
        self.next_target = (self.next_target + 1) % self.targets.len();
        match rustix::net::connect(&socket, &target) {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
            Err(error) => Err(error.into()),
        }
    }

    /// The request that opens a WebSocket at a path.
    pub(crate) fn upgrade(&self, path: &str) -> Vec<u8> {
        format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n",
            self.target()
        )
        .into_bytes()
    }

    /// Where the connections go; the first of several.
    pub(crate) fn target(&self) -> SocketAddrV4 {
        self.targets[0]
    }

    /// Which of the addresses is next.
    pub(crate) const fn next_target(&self) -> usize {
        self.next_target
    }
}

/// What a read brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Received {
    Bytes(usize),
    /// Nothing now.
    Nothing,
    /// The peer sends no more.
    End,
}

/// Reads once.
pub(crate) fn read(fd: impl AsFd, buffer: &mut [u8]) -> io::Result<Received> {
    match recv(fd, buffer, RecvFlags::empty()) {
        Ok((_, 0)) => Ok(Received::End),
        Ok((_, count)) => Ok(Received::Bytes(count)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(Received::Nothing),
        Err(error) => Err(error.into()),
    }
}

/// Writes once; says how much was taken. A connection that isn't there yet takes nothing.
pub(crate) fn write(fd: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    match send(fd, bytes, SendFlags::NOSIGNAL) {
        Ok(count) => Ok(count),
        Err(Errno::AGAIN | Errno::INTR | Errno::NOTCONN) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// The length of the response head that accepts an upgrade; `None` if it is incomplete.
///
/// # Errors
/// Any other response.
pub(crate) fn accepted(bytes: &[u8]) -> Result<Option<usize>, String> {
    let Some(len) = head_len(bytes) else {
        return Ok(None);
    };
    let head = &bytes[..len];
    let has = |wanted: &[u8]| head.windows(wanted.len()).any(|part| part == wanted);
    if !head.starts_with(b"HTTP/1.1 101 ") || !has(ACCEPT.as_bytes()) {
        let line = head.split(|&byte| byte == b'\r').next().unwrap_or(head);
        let line = String::from_utf8_lossy(line);
        return Err(format!("the upgrade was answered {line:?}"));
    }
    Ok(Some(len))
}

/// The length of a head of HTTP with its empty line; `None` if it is incomplete.
pub(crate) fn head_len(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(4).position(|part| part == b"\r\n\r\n")?;
    Some(end + 4)
}

/// The length of the next response and its body; `None` if it is incomplete.
///
/// # Errors
/// The first line of any that isn't a 200, 201 or 202 with a length.
pub(crate) fn response(bytes: &[u8]) -> Result<Option<(usize, &[u8])>, String> {
    let Some(head_len) = head_len(bytes) else {
        return Ok(None);
    };
    let head = String::from_utf8_lossy(&bytes[..head_len]).to_ascii_lowercase();
    let body_len = head
        .split("\r\n")
        .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    let body_len: usize = match body_len {
        Some(body_len) if ["200", "201", "202"].contains(&head.get(9..12).unwrap_or_default()) => {
            body_len
        }
        _ => return Err(head.split("\r\n").next().unwrap_or_default().to_owned()),
    };
    let body = bytes.get(head_len..head_len + body_len);
    Ok(body.map(|body| (head_len + body_len, body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_read_at_every_split_point() {
        let response_bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{\"delivered\":3}";
        for split in 0..response_bytes.len() {
            assert_eq!(response(&response_bytes[..split]), Ok(None), "{split}");
        }
        let body = &b"{\"delivered\":3}"[..];
        let pipelined = response_bytes.repeat(2);
        assert_eq!(response(&pipelined), Ok(Some((response_bytes.len(), body))));
        assert!(response(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n").is_ok());
        for refused in [
            &b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n"[..],
            b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n",
        ] {
            assert!(response(refused).is_err());
        }
    }

    #[test]
    fn only_a_101_with_the_right_key_accepts() {
        let good =
            format!("HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n");
        assert_eq!(accepted(good.as_bytes()), Ok(Some(good.len())));
        for split in 0..good.len() {
            assert_eq!(accepted(&good.as_bytes()[..split]), Ok(None));
        }
        let bad_key = good.replace("s3p", "s3q");
        assert!(accepted(bad_key.as_bytes()).is_err());
        assert_eq!(
            accepted(b"HTTP/1.1 503 Service Unavailable\r\n\r\n"),
            Err("the upgrade was answered \"HTTP/1.1 503 Service Unavailable\"".to_owned())
        );
    }
}
