//! A connection for each notification, which carries one POST: how a program that ends with its
//! request publishes over HTTP. Some servers close behind each answer in any case.
//!
//! A notification counts as answered when the whole answer is there; the connection is then closed.

use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;

use crate::connections::Net;
use crate::dialect::{Dialect, Post};
use crate::message::Recipients;
use crate::poller::Readiness;
use crate::socket::{self, Connector, Received};

use super::{Publication, Receipt, put, watch};

#[derive(Debug)]
struct Request {
    socket: OwnedFd,
    slot: usize,
    recipients: Recipients,
    /// What waits to be written.
    out: Vec<u8>,
    /// What was read and isn't complete.
    tail: Vec<u8>,
}

/// The connections of all notifications under way, by slot.
pub(crate) struct Posts {
    dialect: Dialect,
    connector: Connector,
    requests: Vec<Option<Request>>,
}

impl Posts {
    pub(super) const fn new(dialect: Dialect, connector: Connector) -> Self {
        Self {
            dialect,
            connector,
            requests: Vec::new(),
        }
    }

    pub(super) fn publish(
        &mut self,
        net: &mut Net,
        publication: Publication<'_>,
    ) -> Result<(), String> {
        let context = |error| format!("cannot open a connection to publish: {error}");
        let socket = self.connector.connect().map_err(context)?;
        let mut request = Request {
            socket,
            slot: publication.slot,
            recipients: publication.recipients,
            out: Vec::new(),
            tail: Vec::new(),
        };
        let host = self.connector.target();
        push_post(self.dialect, host, true, &publication, &mut request.out);
        request.write().map_err(context)?;
        watch(
            net,
            &request.socket,
            publication.slot,
            !request.out.is_empty(),
        )
        .map_err(context)?;
        put(&mut self.requests, publication.slot, request);
        Ok(())
    }

    pub(super) fn handle(
        &mut self,
        net: &mut Net,
        slot: usize,
        event: Readiness,
        answered: &mut Vec<Receipt>,
    ) -> Result<(), String> {
        let Some(request) = self.requests.get_mut(slot).and_then(Option::as_mut) else {
            return Ok(());
        };
        let context = |error: String| format!("a publisher failed: {error}");
        if event.is_writable && !request.out.is_empty() {
            request
                .write()
                .map_err(|error| context(error.to_string()))?;
        }
        if let Some(receipt) = request.read(net, self.dialect).map_err(context)? {
            answered.push(receipt);
            self.requests[slot] = None;
        }
        Ok(())
    }
}

impl Request {
    /// Writes what waits; what isn't taken goes on waiting.
    fn write(&mut self) -> std::io::Result<()> {
        let taken = socket::write(&self.socket, &self.out)?;
        self.out.drain(..taken);
        Ok(())
    }

    /// Reads until nothing is left, or the answer is complete.
    fn read(&mut self, net: &mut Net, dialect: Dialect) -> Result<Option<Receipt>, String> {
        loop {
            match socket::read(&self.socket, &mut net.buffer).map_err(|error| error.to_string())? {
                Received::End => return Err("the server hung up before its answer".to_owned()),
                Received::Nothing => return Ok(None),
                Received::Bytes(count) => self.tail.extend_from_slice(&net.buffer[..count]),
            }
            let answer = socket::response(&self.tail);
            let answer = answer.map_err(|line| format!("a POST was answered {line:?}"))?;
            if let Some((len, body)) = answer {
                if len < self.tail.len() {
                    return Err("more than one answer".to_owned());
                }
                return Receipt::of(dialect, body, self.slot, self.recipients).map(Some);
            }
        }
    }
}

/// Appends the request that publishes.
pub(super) fn push_post(
    dialect: Dialect,
    host: SocketAddrV4,
    is_last: bool,
    publication: &Publication<'_>,
    out: &mut Vec<u8>,
) {
    let post = Post {
        host,
        is_last,
        value: publication.value,
        notification: publication.notification,
        payload: &publication.payload(),
    };
    dialect.push_post(&post, out);
}
