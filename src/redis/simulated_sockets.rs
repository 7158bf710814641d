//! The sockets of a node to a Redis in memory: they carry bytes in any pieces, and break anywhere.
//!
//! Main type: [`SimulatedSockets`].

use std::io;

use fastrand::Rng;

use super::simulated::{SimulatedLink, SimulatedRedis};
use crate::application::{Uplink, Uplinks};
use crate::time::Timestamp;

/// The two sockets of a node: they carry its bytes to a server and back, in any pieces.
#[derive(Default)]
pub struct SimulatedSockets {
    links: [Option<SimulatedLink>; 2],
    is_connecting: [bool; 2],
}

impl SimulatedSockets {
    /// Opens, reads, writes and closes as `uplinks` wants. Where nothing is to be connected to, `server` is `None`.
    pub fn pump(
        &mut self,
        server: Option<&SimulatedRedis>,
        uplinks: &mut dyn Uplinks,
        rng: &mut Rng,
        now: Timestamp,
    ) {
        for uplink in [Uplink::Reader, Uplink::Writer] {
            let at = uplink as usize;
            if uplinks.take_connect(uplink).is_some() {
                self.close(uplink, rng);
                let Some(server) = server else {
                    let error = io::Error::from(io::ErrorKind::ConnectionRefused);
                    uplinks.handle_end(uplink, Some(&error), now);
                    continue;
                };
                self.links[at] = Some(server.connect());
                self.is_connecting[at] = true;
            }
            if !uplinks.is_open(uplink) {
                self.close(uplink, rng);
                continue;
            }
            let Some(link) = self.links[at].clone() else {
                continue;
            };
            if std::mem::take(&mut self.is_connecting[at]) {
                uplinks.handle_connected(uplink, now);
            }
            self.carry(uplink, &link, uplinks, rng, now);
        }
    }

    fn carry(
        &mut self,
        uplink: Uplink,
        link: &SimulatedLink,
        uplinks: &mut dyn Uplinks,
        rng: &mut Rng,
        now: Timestamp,
    ) {
        if uplinks.takes_input(uplink) {
            let bytes = link.read(piece(rng));
            if !bytes.is_empty() {
                uplinks.handle_received(uplink, &bytes, now);
            }
        }
        if link.is_ended() {
            self.links[uplink as usize] = None;
            uplinks.handle_end(uplink, None, now);
            return;
        }
        let unsent = uplinks.unsent(uplink);
        let len = unsent.len().min(piece(rng));
        link.write(&unsent[..len]);
        if len > 0 {
            uplinks.handle_sent(uplink, len, now);
        }
    }

    /// One of the connections breaks, noticed at once.
    pub fn cut(
        &mut self,
        uplink: Uplink,
        uplinks: &mut dyn Uplinks,
        rng: &mut Rng,
        now: Timestamp,
    ) {
        if self.links[uplink as usize].is_some() {
            self.close(uplink, rng);
            let error = io::Error::from(io::ErrorKind::ConnectionReset);
            uplinks.handle_end(uplink, Some(&error), now);
        }
    }

    /// Both end, as when the process of the node is killed.
    pub fn end(&mut self, rng: &mut Rng) {
        self.close(Uplink::Reader, rng);
        self.close(Uplink::Writer, rng);
    }

    /// The process becomes another one, whose sockets they aren't.
    pub fn leave(&mut self) {
        for link in &mut self.links {
            link.take().into_iter().for_each(SimulatedLink::leave);
        }
    }

    fn close(&mut self, uplink: Uplink, rng: &mut Rng) {
        if let Some(link) = self.links[uplink as usize].take() {
            link.close(rng.bool());
        }
    }
}

/// How many bytes go at once: few, some, or all.
fn piece(rng: &mut Rng) -> usize {
    match rng.u8(..4) {
        0 => rng.usize(..20),
        1 => rng.usize(..2000),
        _ => usize::MAX,
    }
}
