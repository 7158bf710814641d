//! A connection for each notification, as PHP publishes: connect, upgrade, message, Close.
//!
//! The server closes TCP first, as the protocol has it, so that the connections that linger in
//! TIME_WAIT are the server's and the generator's ports are free again at once. A notification
//! counts as answered when the server has closed.

use std::os::fd::OwnedFd;

use crate::connections::Net;
use crate::frame::{self, CLOSE, TEXT};
use crate::message::Recipients;
use crate::poller::Readiness;
use crate::socket::{self, Received};

use super::{Publication, Receipt, put, watch};

/// How far a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// The response to the upgrade is awaited.
    Upgrading,
    /// The server's Close is awaited.
    Published,
    /// The end of the connection is awaited.
    Closing,
}

#[derive(Debug)]
struct Cycle {
    socket: OwnedFd,
    stage: Stage,
    slot: usize,
    recipients: Recipients,
    /// What the Close said.
    receipt: Option<Receipt>,
    /// What waits to be written.
    out: Vec<u8>,
    /// What waits for the 101.
    later: Vec<u8>,
    /// What was read and isn't complete.
    tail: Vec<u8>,
}

/// The connections of all notifications under way, by slot.
pub(crate) struct Ephemeral {
    upgrade: Vec<u8>,
    close: Vec<u8>,
    is_patient: bool,
    cycles: Vec<Option<Cycle>>,
    /// Empty buffers of earlier cycles.
    spare: Vec<[Vec<u8>; 3]>,
}

impl Ephemeral {
    pub(super) fn new(net: &Net, is_patient: bool) -> Self {
        let mut close = Vec::new();
        frame::push_client_frame(CLOSE, &[&1000_u16.to_be_bytes()], &mut close);
        Self {
            upgrade: net.connector.upgrade("/"),
            close,
            is_patient,
            cycles: Vec::new(),
            spare: Vec::new(),
        }
    }

    pub(super) fn publish(
        &mut self,
        net: &mut Net,
        publication: Publication<'_>,
    ) -> Result<(), String> {
        let context = |error| format!("cannot open a connection to publish: {error}");
        let socket = net.connector.connect().map_err(context)?;
        let [mut out, mut later, tail] = self.spare.pop().unwrap_or_default();
        out.extend_from_slice(&self.upgrade);
        let text = publication.payload();
        let first = if self.is_patient {
            &mut later
        } else {
            &mut out
        };
        frame::push_client_frame(TEXT, &text, first);
        let mut cycle = Cycle {
            socket,
            stage: Stage::Upgrading,
            slot: publication.slot,
            recipients: publication.recipients,
            receipt: None,
            out,
            later,
            tail,
        };
        cycle.write().map_err(context)?;
        watch(net, &cycle.socket, publication.slot, !cycle.out.is_empty()).map_err(context)?;
        put(&mut self.cycles, publication.slot, cycle);
        Ok(())
    }

    pub(super) fn handle(
        &mut self,
        net: &mut Net,
        slot: usize,
        event: Readiness,
        answered: &mut Vec<Receipt>,
    ) -> Result<(), String> {
        let Some(cycle) = self.cycles.get_mut(slot).and_then(Option::as_mut) else {
            return Ok(());
        };
        let context = |error: String| format!("a publisher failed: {error}");
        if event.is_writable && !cycle.out.is_empty() {
            cycle.write().map_err(|error| context(error.to_string()))?;
        }
        let has_ended = cycle.read(net, &self.close, event).map_err(context)?;
        if has_ended {
            let Some(receipt) = cycle.receipt else {
                return Err(context("the server hung up before its Close".to_owned()));
            };
            answered.push(receipt);
            if let Some(Cycle {
                mut out,
                mut later,
                mut tail,
                ..
            }) = self.cycles[slot].take()
            {
                [&mut out, &mut later, &mut tail]
                    .into_iter()
                    .for_each(Vec::clear);
                self.spare.push([out, later, tail]);
            }
        }
        Ok(())
    }
}

impl Cycle {
    /// Writes what waits; what isn't taken goes on waiting.
    fn write(&mut self) -> std::io::Result<()> {
        let taken = socket::write(&self.socket, &self.out)?;
        self.out.drain(..taken);
        Ok(())
    }

    /// Reads and answers; says whether the connection has come to its end.
    fn read(&mut self, net: &mut Net, close: &[u8], event: Readiness) -> Result<bool, String> {
        loop {
            match socket::read(&self.socket, &mut net.buffer).map_err(|error| error.to_string())? {
                Received::End => return Ok(true),
                Received::Nothing => return Ok(false),
                Received::Bytes(count) => {
                    self.tail.extend_from_slice(&net.buffer[..count]);
                    self.understand(close)?;
                    if !event.is_ending {
                        return Ok(false);
                    }
                }
            }
        }
    }

    fn understand(&mut self, close: &[u8]) -> Result<(), String> {
        if self.stage == Stage::Upgrading {
            let Some(len) = socket::accepted(&self.tail)? else {
                return Ok(());
            };
            self.tail.drain(..len);
            self.stage = Stage::Published;
            if !self.later.is_empty() {
                self.out.append(&mut self.later);
                self.write().map_err(|error| error.to_string())?;
            }
        }
        let Some(header) = frame::scan(&self.tail)? else {
            return Ok(());
        };
        let Some(payload) = self.tail.get(header.header_len..header.frame_len()) else {
            return Ok(());
        };
        let shown = String::from_utf8_lossy(payload);
        if self.stage == Stage::Closing || self.tail.len() > header.frame_len() {
            return Err(format!("bytes after the Close, with {shown:?}"));
        }
        let Some((b"\x03\xe8", reason)) = payload
            .split_at_checked(2)
            .filter(|_| header.opcode == CLOSE)
        else {
            let opcode = header.opcode;
            return Err(format!(
                "a frame of opcode {opcode:#x}, not a Close 1000: {shown:?}"
            ));
        };
        self.receipt = Some(Receipt::read(reason, self.slot, self.recipients)?);
        self.tail.clear();
        self.stage = Stage::Closing;
        self.out.extend_from_slice(close);
        self.write().map_err(|error| error.to_string())
    }
}
