//! Connections that stay: a WebSocket at `/publish`, or HTTP with keep-alive and pipelining.
//!
//! What is published between two looks at the sockets is written at once.

use std::collections::VecDeque;
use std::mem;
use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;

use crate::connections::Net;
use crate::dialect::Dialect;
use crate::frame::{self, CLOSE, PING, PONG, TEXT};
use crate::message::Recipients;
use crate::poller::{Interest, Readiness};
use crate::socket::{self, Received};

use super::posts::push_post;
use super::{FIRST_TOKEN, Publication, Receipt};

#[derive(Debug)]
struct Connection {
    socket: OwnedFd,
    out: Vec<u8>,
    written: usize,
    /// The slots that are to be answered, in this order, and their numbers of recipients.
    awaited: VecDeque<(usize, Recipients)>,
    tail: Vec<u8>,
    is_blocked: bool,
}

/// All connections.
pub(crate) struct Kept {
    connections: Vec<Connection>,
    /// What POSTs look like, for HTTP.
    posts: Option<Dialect>,
    host: SocketAddrV4,
}

impl Kept {
    pub(super) fn new(
        net: &Net,
        posts: Option<Dialect>,
        sockets: Vec<OwnedFd>,
    ) -> Result<Self, String> {
        for (index, socket) in sockets.iter().enumerate() {
            let token = FIRST_TOKEN + index as u64;
            let done = net.poller.change(socket, token, Interest::Both);
            done.map_err(|error| format!("cannot watch a publisher: {error}"))?;
        }
        let connection = |socket| Connection {
            socket,
            out: Vec::new(),
            written: 0,
            awaited: VecDeque::new(),
            tail: Vec::new(),
            is_blocked: false,
        };
        Ok(Self {
            connections: sockets.into_iter().map(connection).collect(),
            posts,
            host: net.connector.target(),
        })
    }

    pub(super) const fn len(&self) -> usize {
        self.connections.len()
    }

    pub(super) fn publish(&mut self, publication: Publication<'_>) {
        let connection = &mut self.connections[publication.publisher];
        let out = &mut connection.out;
        match self.posts {
            None => frame::push_client_frame(TEXT, &publication.payload(), out),
            Some(dialect) => push_post(dialect, self.host, false, &publication, out),
        }
        connection
            .awaited
            .push_back((publication.slot, publication.recipients));
    }

    pub(super) fn flush(&mut self) -> Result<(), String> {
        for connection in &mut self.connections {
            if !connection.is_blocked && !connection.out.is_empty() {
                connection.write()?;
            }
        }
        Ok(())
    }

    pub(super) fn handle(
        &mut self,
        net: &mut Net,
        index: usize,
        event: Readiness,
        answered: &mut Vec<Receipt>,
    ) -> Result<(), String> {
        let connection = &mut self.connections[index];
        if event.is_writable && mem::replace(&mut connection.is_blocked, false) {
            connection.write()?;
        }
        loop {
            let received = socket::read(&connection.socket, &mut net.buffer)
                .map_err(|error| format!("a publisher failed: {error}"))?;
            let count = match received {
                Received::Nothing => return Ok(()),
                Received::End => return Err("the server hung up on a publisher".to_owned()),
                Received::Bytes(count) => count,
            };
            let mut bytes = mem::take(&mut connection.tail);
            bytes.extend_from_slice(&net.buffer[..count]);
            let mut consumed = 0;
            while let Some((len, answer)) = match self.posts {
                None => next_text(&bytes[consumed..]),
                Some(_) => socket::response(&bytes[consumed..])
                    .map(|found| found.map(|(len, body)| (len, Some(body))))
                    .map_err(|line| format!("a POST was answered {line:?}")),
            }? {
                consumed += len;
                let Some(answer) = answer else {
                    continue;
                };
                let Some((slot, recipients)) = connection.awaited.pop_front() else {
                    return Err("a publisher was answered once too often".to_owned());
                };
                let dialect = self.posts.unwrap_or(Dialect::Crieur);
                answered.push(Receipt::of(dialect, answer, slot, recipients)?);
            }
            bytes.drain(..consumed);
            connection.tail = bytes;
            if count < net.buffer.len() && !event.is_ending {
                return Ok(());
            }
        }
    }
}

impl Connection {
    fn write(&mut self) -> Result<(), String> {
        let taken = socket::write(&self.socket, &self.out[self.written..])
            .map_err(|error| format!("cannot write to a publisher's connection: {error}"))?;
        self.written += taken;
        self.is_blocked = self.written < self.out.len();
        if !self.is_blocked {
            self.out.clear();
            self.written = 0;
        }
        Ok(())
    }
}

/// An answer and the bytes that it took; bytes without an answer are skipped.
type Next<'a> = Option<(usize, Option<&'a [u8]>)>;

/// The next answer of a WebSocket.
fn next_text(bytes: &[u8]) -> Result<Next<'_>, String> {
    let Some(header) = frame::scan(bytes)? else {
        return Ok(None);
    };
    let Some(payload) = bytes.get(header.header_len..header.frame_len()) else {
        return Ok(None);
    };
    match header.opcode {
        // A busy publisher is never silent for so long that its Pong would matter.
        PING | PONG => Ok(Some((header.frame_len(), None))),
        TEXT if payload.starts_with(b"{\"type\":\"published\",") => {
            Ok(Some((header.frame_len(), Some(payload))))
        }
        CLOSE => Err(format!(
            "the server closed a publisher: {:?}",
            String::from_utf8_lossy(payload.get(2..).unwrap_or_default())
        )),
        opcode => Err(format!(
            "a publisher got a frame of opcode {opcode:#x}: {:?}",
            String::from_utf8_lossy(payload)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_from_errors() {
        let mut bytes = vec![0x89, 0];
        let text = &b"{\"type\":\"published\",\"delivered\":3}"[..];
        frame::push_server_frame(TEXT, &[text], &mut bytes);
        assert_eq!(next_text(&bytes), Ok(Some((2, None))));
        assert_eq!(
            next_text(&bytes[2..]),
            Ok(Some((bytes.len() - 2, Some(text))))
        );
        bytes.clear();
        frame::push_server_frame(TEXT, &[b"{\"type\":\"error\"}"], &mut bytes);
        assert!(next_text(&bytes).is_err());
    }
}
