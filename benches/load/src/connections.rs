//! Opening many connections, and asking each of them something: what comes before and after a
//! measurement, and what `connect` measures.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::dialect::Dialect;
use crate::frame::{self, CLOSE, PING, PONG, TEXT};
use crate::poller::{Interest, Poller, Waiting};
use crate::socket::{self, Connector, Received};
use crate::system::now_ns;

/// Without any progress for so long, something has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// Bytes that are read at once.
const BUFFER_BYTES: usize = 256 * 1024;

/// What every part of a run needs to reach the server.
pub(crate) struct Net {
    pub(crate) poller: Poller,
    pub(crate) connector: Connector,
    pub(crate) buffer: Vec<u8>,
}

impl Net {
    pub(crate) fn new(connector: Connector, waiting: Waiting) -> Result<Self, String> {
        Ok(Self {
            poller: Poller::new(waiting).map_err(|error| format!("cannot use epoll: {error}"))?,
            connector,
            buffer: vec![0; BUFFER_BYTES],
        })
    }

    /// Waits for events; without any in [`PATIENCE`] there is an error.
    pub(crate) fn wait(&mut self, what: &str) -> Result<usize, String> {
        let until = now_ns() + PATIENCE.as_nanos() as u64;
        match self.poller.wait(until) {
            Ok(0) => Err(format!("{what}: nothing came for {} s", PATIENCE.as_secs())),
            Ok(count) => Ok(count),
            Err(error) => Err(format!("{what}: {error}")),
        }
    }
}

/// Opens connections without a word, for HTTP. Their tokens are their indices.
pub(crate) fn open_plain(net: &mut Net, count: usize) -> Result<Vec<OwnedFd>, String> {
    let context = |error| format!("cannot open a connection: {error}");
    let mut sockets = Vec::with_capacity(count);
    for index in 0..count {
        let socket = net.connector.connect().map_err(context)?;
        let token = index as u64;
        net.poller
            .add(&socket, token, Interest::Read)
            .map_err(context)?;
        sockets.push(socket);
    }
    Ok(sockets)
}

/// Opens connections and upgrades them, `parallel` at a time. Their tokens are their indices.
pub(crate) fn open(
    net: &mut Net,
    path: &str,
    count: usize,
    parallel: usize,
) -> Result<Vec<OwnedFd>, String> {
    let path = |_| path.to_owned();
    open_at(net, Dialect::Crieur, path, count, parallel)
}

/// The same, each at the path of its index, and greeted where the server does that.
pub(crate) fn open_at(
    net: &mut Net,
    dialect: Dialect,
    path: impl Fn(usize) -> String,
    count: usize,
    parallel: usize,
) -> Result<Vec<OwnedFd>, String> {
    let context = |error| format!("cannot open a connection: {error}");
    let mut upgrades: Vec<Vec<u8>> = Vec::with_capacity(count);
    let mut sockets: Vec<OwnedFd> = Vec::with_capacity(count);
    // What is still to be written, and what has been read, of those that aren't upgraded.
    let mut pending: Vec<(usize, Vec<u8>)> = vec![(0, Vec::new()); count];
    let mut done = 0;
    while done < count {
        while sockets.len() < count && sockets.len() - done < parallel {
            let socket = net.connector.connect().map_err(context)?;
            let upgrade = net.connector.upgrade(&path(sockets.len()));
            let written = socket::write(&socket, &upgrade).map_err(context)?;
            let interest = if written == upgrade.len() {
                Interest::Read
            } else {
                Interest::Both
            };
            let token = sockets.len() as u64;
            net.poller.add(&socket, token, interest).map_err(context)?;
            pending[sockets.len()].0 = written;
            sockets.push(socket);
            upgrades.push(upgrade);
        }
        for number in 0..net.wait("upgrades")? {
            let event = net.poller.event(number);
            let index = event.token as usize;
            // Publishers that are there already have tokens far above.
            let Some((written, head)) = pending.get_mut(index) else {
                continue;
            };
            let upgrade = &upgrades[index];
            if *written < upgrade.len() {
                *written +=
                    socket::write(&sockets[index], &upgrade[*written..]).map_err(context)?;
            }
            match socket::read(&sockets[index], &mut net.buffer).map_err(context)? {
                Received::Nothing => continue,
                Received::End => return Err(format!("connection {index} was hung up on")),
                Received::Bytes(received) => head.extend_from_slice(&net.buffer[..received]),
            }
            let opened = is_open(dialect, head);
            if opened.map_err(|error| format!("connection {index}: {error}"))? {
                *head = Vec::new();
                done += 1;
            }
        }
    }
    Ok(sockets)
}

/// Whether the upgrade is answered, and the greeting is there if the server has one.
fn is_open(dialect: Dialect, bytes: &[u8]) -> Result<bool, String> {
    let Some(len) = socket::accepted(bytes)? else {
        return Ok(false);
    };
    let rest = &bytes[len..];
    if rest.is_empty() {
        return Ok(!dialect.has_greeting());
    }
    let Some(header) = frame::scan(rest)? else {
        return Ok(false);
    };
    match rest.get(header.header_len..header.frame_len()) {
        Some(text) if rest.len() == header.frame_len() && dialect.is_greeting(text) => Ok(true),
        None if dialect.has_greeting() => Ok(false),
        _ => Err("more than the upgrade came".to_owned()),
    }
}

/// Pings each connection as RFC 6455 has it, `parallel` at a time: nothing may come but the Pong.
pub(crate) fn ping(net: &mut Net, sockets: &[impl AsFd], parallel: usize) -> Result<(), String> {
    const PAYLOAD: &[u8] = b"fence";
    let mut ping = Vec::new();
    frame::push_client_frame(PING, &[PAYLOAD], &mut ping);
    let mut pong = Vec::new();
    frame::push_server_frame(PONG, &[PAYLOAD], &mut pong);
    let mut tails = vec![Vec::new(); sockets.len()];
    let mut is_done = vec![false; sockets.len()];
    for start in (0..sockets.len()).step_by(parallel) {
        let end = sockets.len().min(start + parallel);
        for socket in &sockets[start..end] {
            write_all(socket, &ping)?;
        }
        let mut awaited = end - start;
        while awaited > 0 {
            for number in 0..net.wait("Pongs")? {
                let index = net.poller.event(number).token as usize;
                let Some(socket) = sockets.get(index) else {
                    continue;
                };
                let tail = &mut tails[index];
                if read_to(socket, &mut net.buffer, tail)? {
                    return Err(format!("the server hung up on subscriber {index}"));
                }
                let is_awaited = (start..end).contains(&index) && !is_done[index];
                let is_right = is_awaited && pong.starts_with(tail);
                if !tail.is_empty() && !is_right {
                    let shown = String::from_utf8_lossy(tail);
                    return Err(format!(
                        "subscriber {index} got, where only a Pong may come: {shown}"
                    ));
                }
                if tail.len() == pong.len() {
                    awaited -= 1;
                    is_done[index] = true;
                    tail.clear();
                }
            }
        }
    }
    Ok(())
}

/// Waits for a while, in which no connection may get anything.
pub(crate) fn expect_nothing(
    net: &mut Net,
    sockets: &[impl AsFd],
    time: Duration,
) -> Result<(), String> {
    let until = now_ns() + time.as_nanos() as u64;
    while now_ns() < until {
        let count = net.poller.wait(until).map_err(|error| error.to_string())?;
        for number in 0..count {
            let index = net.poller.event(number).token as usize;
            let Some(socket) = sockets.get(index) else {
                continue;
            };
            let mut got = Vec::new();
            let has_ended = read_to(socket, &mut net.buffer, &mut got)?;
            if has_ended || !got.is_empty() {
                let shown = String::from_utf8_lossy(&got);
                return Err(format!(
                    "subscriber {index} got, where nothing may come: {shown:?}"
                ));
            }
        }
    }
    Ok(())
}

/// Sends each connection a text and waits for one in return, `parallel` at a time. `check` is
/// given the index and the answer.
pub(crate) fn ask<'a>(
    net: &mut Net,
    sockets: &[impl AsFd],
    parallel: usize,
    request: impl Fn(usize) -> std::borrow::Cow<'a, [u8]>,
    mut check: impl FnMut(usize, &[u8]) -> Result<(), String>,
) -> Result<(), String> {
    let mut tails = vec![Vec::new(); sockets.len()];
    let mut is_asked = vec![false; sockets.len()];
    let mut out = Vec::new();
    for start in (0..sockets.len()).step_by(parallel) {
        let end = sockets.len().min(start + parallel);
        for (index, socket) in sockets.iter().enumerate().take(end).skip(start) {
            out.clear();
            frame::push_client_frame(TEXT, &[&request(index)], &mut out);
            write_all(socket, &out)?;
            is_asked[index] = true;
        }
        let mut awaited = end - start;
        while awaited > 0 {
            for number in 0..net.wait("answers")? {
                let index = net.poller.event(number).token as usize;
                let Some(socket) = sockets.get(index) else {
                    continue;
                };
                let tail = &mut tails[index];
                let has_ended = read_to(socket, &mut net.buffer, tail)?;
                while let Some(text) = next_text(socket, tail)? {
                    if !std::mem::take(&mut is_asked[index]) {
                        let text = String::from_utf8_lossy(&text).into_owned();
                        return Err(format!("subscriber {index} got, unasked: {text}"));
                    }
                    check(index, &text)?;
                    awaited -= 1;
                }
                if has_ended {
                    return Err(format!("the server hung up on subscriber {index}"));
                }
            }
        }
    }
    Ok(())
}

/// Reads all there is; says whether the connection has come to its end.
pub(crate) fn read_to(
    socket: &impl AsFd,
    buffer: &mut [u8],
    tail: &mut Vec<u8>,
) -> Result<bool, String> {
    loop {
        match socket::read(socket, buffer).map_err(|error| error.to_string())? {
            Received::Nothing => return Ok(false),
            Received::End => return Ok(true),
            Received::Bytes(count) => tail.extend_from_slice(&buffer[..count]),
        }
    }
}

/// Takes the next text out of what was read. Pings are answered.
pub(crate) fn next_text(socket: &impl AsFd, tail: &mut Vec<u8>) -> Result<Option<Vec<u8>>, String> {
    while let Some(header) = frame::scan(tail)? {
        let Some(payload) = tail.get(header.header_len..header.frame_len()) else {
            return Ok(None);
        };
        let payload = payload.to_vec();
        tail.drain(..header.frame_len());
        match header.opcode {
            TEXT => return Ok(Some(payload)),
            PING => {
                let mut pong = Vec::new();
                frame::push_client_frame(PONG, &[&payload], &mut pong);
                write_all(socket, &pong)?;
            }
            PONG => {}
            CLOSE => {
                let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default());
                return Err(format!("the server closed a connection: {reason:?}"));
            }
            opcode => return Err(format!("a frame of opcode {opcode:#x}")),
        }
    }
    Ok(None)
}

/// Writes everything, waiting where the socket is full; for what isn't measured.
pub(crate) fn write_all(socket: &impl AsFd, bytes: &[u8]) -> Result<(), String> {
    let mut written = 0;
    while written < bytes.len() {
        let taken = socket::write(socket, &bytes[written..])
            .map_err(|error| format!("cannot write: {error}"))?;
        written += taken;
        if taken == 0 {
            let timeout = Timespec {
                tv_sec: PATIENCE.as_secs() as i64,
                tv_nsec: 0,
            };
            let ready = poll(&mut [PollFd::new(socket, PollFlags::OUT)], Some(&timeout));
            if ready.map_err(|error| error.to_string())? == 0 {
                return Err("the server takes nothing".to_owned());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{Ipv4Addr, SocketAddr, TcpListener};

    use super::*;

    #[test]
    fn what_may_not_come_is_found() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let Ok(SocketAddr::V4(address)) = listener.local_addr() else {
            panic!("an address of IPv4");
        };
        let mut net = Net::new(Connector::new(address), Waiting::Sleep).expect("an epoll");
        let sockets = open_plain(&mut net, 2).expect("two connections");
        let mut peers = [1, 2].map(|_| listener.accept().expect("a connection").0);
        let short = Duration::from_millis(20);
        assert_eq!(expect_nothing(&mut net, &sockets, short), Ok(()));
        peers[1].write_all(b"more").expect("it is open");
        let long = PATIENCE;
        let found = expect_nothing(&mut net, &sockets, long).expect_err("it is there");
        assert!(found.contains("\"more\""), "{found}");
        peers[0].write_all(b"x").expect("it is open");
        assert!(ping(&mut net, &sockets, 2).is_err());
        drop(peers);
        assert!(expect_nothing(&mut net, &sockets, long).is_err());
    }
}
