//! The floor's loop: epoll with the edges of input, and with both of a socket that once took no more; one read
//! a readable connection, the first of them right behind the accept; one write a recipient, one write an answer.

mod handover;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, IoSlice};
use std::mem;
use std::net::{SocketAddrV4, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with, sockopt};
use sha1::{Digest, Sha1};

use crate::frame::{self, CLOSE, PING, PONG, TEXT};
use crate::message::{self, Published, VALUE_DIGITS};
use crate::poller::{Interest, Poller, Readiness, Waiting};
use crate::socket::{self, ACCEPT, Received};

use super::Settings;
use super::fault::Fault;
use super::history::History;
use handover::Handovers;

const EVENTS_MAX: usize = 1024;
/// The token of the signal that asks for a handover; no descriptor's number.
const SIGNAL_TOKEN: u64 = u64::MAX;
const BACKLOG: i32 = 4096;
/// Connections accepted at one event, at most.
const BURST_MAX: usize = 256;
const BUFFER_BYTES: usize = 256 * 1024;

/// Looks for more input before deliveries are written, with and without waiting.
const GATHER_ROUNDS_MAX: usize = 16;
const PATIENT_ROUNDS_MAX: usize = 1024;

/// Segments of one writev (IOV_MAX).
const SEGMENTS_MAX: usize = 1024;

struct Connection {
    socket: OwnedFd,
    is_open: bool,
    /// A publisher that keeps its connection.
    stays: bool,
    /// A Close was sent to it.
    has_closed: bool,
    group: Option<u32>,
    is_numbered: bool,
    tail: Vec<u8>,
    /// What the socket didn't take.
    unsent: Vec<u8>,
    /// Whether the epoll tells of room to write.
    is_write_watched: bool,
}

/// Connections that all get the same, with ids and without.
#[derive(Default)]
struct Group {
    plain: Batch,
    numbered: Batch,
}

#[derive(Default)]
struct Batch {
    /// Descriptors.
    members: Vec<usize>,
    /// Frames that all members are to get, one behind the other, and where each ends.
    frames: Vec<u8>,
    ends: Vec<usize>,
}

struct Floor {
    settings: Settings,
    poller: Poller,
    listener: TcpListener,
    /// Connections that are accepted before it is left to the next wait whether there are more: twice as many as
    /// before if that told of some, too.
    burst: usize,
    /// Whether the last wait told of the listener.
    was_told: bool,
    /// By descriptor.
    connections: Vec<Option<Connection>>,
    groups: HashMap<u32, Group>,
    dirty: Vec<u32>,
    out: Vec<u8>,
    fault: Option<Fault>,
    /// Notifications that were flushed; only counted while a fault is to come.
    flushed: u64,
    history: Option<History>,
    replay_fault: Option<Fault>,
    /// Notifications that clients were caught up with, counted likewise.
    replayed: u64,
    /// Notifications that were to be kept, whether there is a history or not.
    kept: u64,
    handovers: Handovers,
}

/// Serves for ever.
pub(super) fn serve(settings: Settings) -> io::Result<()> {
    if settings.is_successor {
        Floor::take_over(settings)?.run()
    } else {
        let handovers = Handovers::watch(settings.handover_fault)?;
        Floor::new(settings, listen(settings.listen)?, handovers)?.run()
    }
}

fn listen(address: SocketAddrV4) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    // Accepted sockets inherit it.
    sockopt::set_tcp_nodelay(&listener, true)?;
    // Again, with a backlog that a storm of connections fits into.
    rustix::net::listen(&listener, BACKLOG)?;
    Ok(listener)
}

impl Floor {
    fn new(settings: Settings, listener: TcpListener, handovers: Handovers) -> io::Result<Self> {
        let poller = Poller::with_events(Waiting::Sleep, EVENTS_MAX)?;
        poller.add_listener(&listener, listener.as_raw_fd() as u64)?;
        Self::with_poller(settings, poller, listener, handovers)
    }

    /// One with an epoll that watches the listener.
    fn with_poller(
        settings: Settings,
        poller: Poller,
        listener: TcpListener,
        handovers: Handovers,
    ) -> io::Result<Self> {
        poller.add(handovers.signal(), SIGNAL_TOKEN, Interest::Read)?;
        Ok(Self {
            settings,
            poller,
            listener,
            burst: 1,
            was_told: false,
            connections: Vec::new(),
            groups: HashMap::new(),
            dirty: Vec::new(),
            out: Vec::new(),
            fault: settings.fault,
            flushed: 0,
            history: settings.has_history.then(History::default),
            replay_fault: settings.replay_fault,
            replayed: 0,
            kept: 0,
            handovers,
        })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER_BYTES];
        let rounds_max = match self.settings.gather_ms {
            0 => GATHER_ROUNDS_MAX,
            _ => PATIENT_ROUNDS_MAX,
        };
        loop {
            let mut count = self.poller.wait_for_ever()?;
            self.take_input(count, &mut buffer)?;
            let mut rounds = 0;
            while self.settings.gathers && !self.dirty.is_empty() && rounds < rounds_max {
                count = self.poller.look(self.settings.gather_ms * 1_000_000)?;
                if count == 0 {
                    break;
                }
                self.take_input(count, &mut buffer)?;
                rounds += 1;
            }
            self.flush();
            if self.handovers.is_due()? {
                self.hand_over()?;
            }
        }
    }

    fn take_input(&mut self, count: usize, buffer: &mut [u8]) -> io::Result<()> {
        let mut is_told = false;
        for number in 0..count {
            let event = self.poller.event(number);
            if event.token == self.listener.as_raw_fd() as u64 {
                is_told = true;
                continue;
            }
            if event.token == SIGNAL_TOKEN {
                self.handovers.ask();
                continue;
            }
            self.handle_event(event, buffer);
        }
        if is_told {
            self.burst = match self.was_told {
                true => BURST_MAX.min(self.burst * 2),
                false => 1,
            };
            self.accept(buffer)?;
        }
        self.was_told = is_told;
        Ok(())
    }

    fn handle_event(&mut self, event: Readiness, buffer: &mut [u8]) {
        let index = event.token as usize;
        let Some(mut connection) = self.connections.get_mut(index).and_then(Option::take) else {
            return;
        };
        match self.handle(&mut connection, event, buffer) {
            Ok(true) => self.connections[index] = Some(connection),
            // Whoever leaves, however it leaves, leaves.
            Ok(false) | Err(_) => self.leave(&connection),
        }
    }

    fn accept(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        for _ in 0..self.burst {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let socket = match accept_with(&self.listener, flags) {
                Ok(socket) => socket,
                Err(Errno::AGAIN) => {
                    self.burst = 1;
                    return Ok(());
                }
                Err(Errno::CONNABORTED | Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let token = socket.as_raw_fd() as u64;
            self.poller.add(&socket, token, Interest::Read)?;
            self.put(Connection {
                socket,
                is_open: false,
                stays: false,
                has_closed: false,
                group: None,
                is_numbered: false,
                tail: Vec::new(),
                unsent: Vec::new(),
                is_write_watched: false,
            });
            let first = Readiness {
                token,
                is_readable: true,
                is_writable: false,
                is_ending: false,
            };
            self.handle_event(first, buffer);
        }
        Ok(())
    }

    fn put(&mut self, connection: Connection) {
        let index = connection.socket.as_raw_fd() as usize;
        if self.connections.len() <= index {
            self.connections.resize_with(index + 1, || None);
        }
        self.connections[index] = Some(connection);
    }

    fn leave(&mut self, connection: &Connection) {
        let index = connection.socket.as_raw_fd() as usize;
        if let Some(group) = connection
            .group
            .and_then(|group| self.groups.get_mut(&group))
        {
            group.plain.members.retain(|&member| member != index);
            group.numbered.members.retain(|&member| member != index);
        }
    }

    /// Says whether the connection stays.
    fn handle(
        &mut self,
        connection: &mut Connection,
        event: Readiness,
        buffer: &mut [u8],
    ) -> io::Result<bool> {
        if event.is_writable && !connection.unsent.is_empty() {
            let taken = socket::write(&connection.socket, &connection.unsent)?;
            connection.unsent.drain(..taken);
        }
        // A socket that was registered is writable, and most are nothing else.
        if !event.is_readable && !event.is_ending {
            return Ok(true);
        }
        loop {
            let received = match socket::read(&connection.socket, buffer)? {
                Received::Nothing => return Ok(true),
                Received::End => return Ok(false),
                Received::Bytes(received) => received,
            };
            self.out.clear();
            let stays = if connection.tail.is_empty() {
                let consumed = self.understand(connection, &mut buffer[..received])?;
                consumed.inspect(|&consumed| {
                    connection
                        .tail
                        .extend_from_slice(&buffer[consumed..received]);
                })
            } else {
                let mut bytes = mem::take(&mut connection.tail);
                bytes.extend_from_slice(&buffer[..received]);
                let consumed = self.understand(connection, &mut bytes)?;
                consumed.inspect(|&consumed| {
                    bytes.drain(..consumed);
                    connection.tail = bytes;
                })
            };
            if !self.out.is_empty() {
                let out = mem::take(&mut self.out);
                connection.write(&out)?;
                connection.watch_writes(&self.poller)?;
                self.out = out;
            }
            if stays.is_none() {
                return Ok(false);
            }
            if received < buffer.len() && !event.is_ending {
                return Ok(true);
            }
        }
    }

    /// Takes in heads and frames; `None` if the connection is to be closed.
    fn understand(
        &mut self,
        connection: &mut Connection,
        bytes: &mut [u8],
    ) -> io::Result<Option<usize>> {
        let mut consumed = 0;
        while !connection.is_open {
            let rest = &bytes[consumed..];
            let Some(head_len) = socket::head_len(rest) else {
                return Ok(Some(consumed));
            };
            if rest.starts_with(b"GET /metrics ") {
                consumed += head_len;
                self.respond(&self.handovers.metrics());
                continue;
            }
            if !rest.starts_with(b"POST ") {
                self.upgrade(connection, &rest[..head_len]);
                consumed += head_len;
                break;
            }
            let Some(body) = body_of(rest, head_len) else {
                return Ok(Some(consumed));
            };
            consumed += head_len + body.len();
            if let Some(published) = message::published(body) {
                let answer = format!("{{{}}}", self.deliver(published));
                self.respond(&answer);
            }
        }
        loop {
            let rest = &mut bytes[consumed..];
            let Some(header) = frame::scan(rest).map_err(io::Error::other)? else {
                return Ok(Some(consumed));
            };
            let Some(payload) = rest.get_mut(header.header_len..header.frame_len()) else {
                return Ok(Some(consumed));
            };
            if let Some(key) = header.masking_key {
                frame::apply_mask(key, payload);
            }
            consumed += header.frame_len();
            match header.opcode {
                TEXT => self.follow(connection, payload),
                PING => frame::push_server_frame(PONG, &[payload], &mut self.out),
                CLOSE => {
                    // A publisher's is the answer to ours; everybody else's is answered.
                    if !connection.has_closed {
                        frame::push_server_frame(CLOSE, &[payload], &mut self.out);
                    }
                    return Ok(None);
                }
                _ => {}
            }
        }
    }

    fn respond(&mut self, body: &str) {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        self.out.extend_from_slice(head.as_bytes());
        self.out.extend_from_slice(body.as_bytes());
    }

    fn upgrade(&mut self, connection: &mut Connection, head: &[u8]) {
        connection.is_open = true;
        connection.stays = head.starts_with(b"GET /publish");
        let accept = if self.settings.computes_accept {
            accept_key(head)
        } else {
            ACCEPT.to_owned()
        };
        for part in [
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
            &accept,
            "\r\n\r\n",
        ] {
            self.out.extend_from_slice(part.as_bytes());
        }
    }

    fn follow(&mut self, connection: &mut Connection, text: &[u8]) {
        if let Some(published) = message::published(text) {
            let receipt = self.deliver(published);
            if connection.stays {
                let answer = format!("{{\"type\":\"published\",{receipt}}}");
                frame::push_server_frame(TEXT, &[answer.as_bytes()], &mut self.out);
            } else {
                let reason = format!("{{{receipt}}}");
                let payload: [&[u8]; 2] = [&1000_u16.to_be_bytes(), reason.as_bytes()];
                frame::push_server_frame(CLOSE, &payload, &mut self.out);
                connection.has_closed = true;
            }
        } else if text == message::PING {
            match &self.history {
                Some(history) if connection.is_numbered => {
                    let id = history.id();
                    let pong = [message::NUMBERED_PONG_START, id.as_bytes(), b"\"}"];
                    frame::push_server_frame(TEXT, &pong, &mut self.out);
                }
                _ => frame::push_server_frame(TEXT, &[message::PONG], &mut self.out),
            }
        } else if let Some(value) = value_of(text) {
            self.subscribe(connection, value, message::text_of(text, "since"));
        }
    }

    fn subscribe(&mut self, connection: &mut Connection, value: u32, since: Option<&str>) {
        // What waits for its group is in the history as well.
        self.flush();
        self.leave(connection);
        connection.group = Some(value);
        connection.is_numbered = since.is_some() && self.history.is_some();
        self.join(connection);
        self.answer_list(value, since);
    }

    /// Makes a connection a member of its group.
    fn join(&mut self, connection: &Connection) {
        let Some(value) = connection.group else {
            return;
        };
        let group = self.groups.entry(value).or_default();
        let batch = if connection.is_numbered {
            &mut group.numbered
        } else {
            &mut group.plain
        };
        batch.members.push(connection.socket.as_raw_fd() as usize);
    }

    fn answer_list(&mut self, value: u32, since: Option<&str>) {
        let mut answer = "{\"type\":\"subscribed\",\"subscriptions\":1,\"heartbeat\":25".to_owned();
        let (Some(history), Some(since)) = (&self.history, since) else {
            answer.push('}');
            return frame::push_server_frame(TEXT, &[answer.as_bytes()], &mut self.out);
        };
        let newest = history.id();
        let missed = history.since(value, since);
        // Writing to a string can't fail.
        let _ = match (&missed, since) {
            (_, "") => write!(answer, ",\"id\":\"{newest}\"}}"),
            (Some(_), _) => write!(answer, ",\"id\":\"{since}\",\"resumed\":true}}"),
            (None, _) => write!(
                answer,
                ",\"id\":\"{newest}\",\"resumed\":false,\"reason\":\"unknown\"}}"
            ),
        };
        frame::push_server_frame(TEXT, &[answer.as_bytes()], &mut self.out);
        let Some(missed) = missed else {
            return;
        };
        match faulty(&mut self.replay_fault, &mut self.replayed, &missed) {
            Some(bytes) => self.out.extend_from_slice(&bytes),
            None => missed
                .iter()
                .for_each(|frame| self.out.extend_from_slice(frame)),
        }
        let missed = missed.len();
        let caught_up =
            format!("{{\"type\":\"caught-up\",\"id\":\"{newest}\",\"missed\":{missed}}}");
        frame::push_server_frame(TEXT, &[caught_up.as_bytes()], &mut self.out);
    }

    /// Keeps a notification for its group; says how many members that has, as a receipt does.
    fn deliver(&mut self, published: Published<'_>) -> String {
        let Published {
            notification,
            is_kept,
        } = published;
        let Some(value) = value_of(notification) else {
            return "\"delivered\":0".to_owned();
        };
        let mut count = 0;
        self.kept += u64::from(is_kept);
        let history = self.history.as_mut().filter(|_| is_kept);
        let has_id = history.is_some();
        let numbered = history.map(|one| one.keep(value, notification));
        if let Some(group) = self.groups.get_mut(&value) {
            count = group.plain.members.len() + group.numbered.members.len();
            let was_clean = group.plain.ends.is_empty() && group.numbered.ends.is_empty();
            if was_clean && count > 0 {
                self.dirty.push(value);
            }
            if !group.plain.members.is_empty() {
                message::push_delivery_frame(notification, &mut group.plain.frames);
                group.plain.ends.push(group.plain.frames.len());
            }
            if !group.numbered.members.is_empty() {
                match numbered {
                    Some(frame) => group.numbered.frames.extend_from_slice(frame),
                    None => message::push_delivery_frame(notification, &mut group.numbered.frames),
                }
                group.numbered.ends.push(group.numbered.frames.len());
            }
        }
        match &self.history {
            Some(history) if has_id => {
                format!("\"delivered\":{count},\"id\":\"{}\"", history.id())
            }
            _ => format!("\"delivered\":{count}"),
        }
    }

    fn flush(&mut self) {
        for value in mem::take(&mut self.dirty) {
            let Some(mut group) = self.groups.remove(&value) else {
                continue;
            };
            self.flush_batch(&mut group.plain);
            self.flush_batch(&mut group.numbered);
            self.groups.insert(value, group);
        }
    }

    fn flush_batch(&mut self, batch: &mut Batch) {
        if batch.ends.is_empty() {
            return;
        }
        let mut start = 0;
        let slices: Vec<&[u8]> = batch
            .ends
            .iter()
            .map(|&end| &batch.frames[mem::replace(&mut start, end)..end])
            .collect();
        let mut members = &batch.members[..];
        if let Some((&first, others)) = members.split_first()
            && let Some(bytes) = faulty(&mut self.fault, &mut self.flushed, &slices)
        {
            let victim = self.connections[first].as_mut();
            // A victim that has left needs no fault.
            let _ = victim.map(|victim| {
                victim.write(&bytes)?;
                victim.watch_writes(&self.poller)
            });
            members = others;
        }
        let segments: Vec<IoSlice<'_>> = if self.settings.is_one_copy {
            vec![IoSlice::new(&batch.frames)]
        } else {
            slices.iter().map(|slice| IoSlice::new(slice)).collect()
        };
        for &member in members {
            if let Some(connection) = &mut self.connections[member] {
                // What failed shows in the next event.
                let written = connection.write_segments(&segments, &batch.frames);
                let _ = written.and_then(|()| connection.watch_writes(&self.poller));
            }
        }
        batch.frames.clear();
        batch.ends.clear();
    }
}

impl Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let taken = if self.unsent.is_empty() {
            socket::write(&self.socket, bytes)?
        } else {
            0
        };
        self.unsent.extend_from_slice(&bytes[taken..]);
        Ok(())
    }

    /// Has `poller` tell of room from now on, if there was none.
    fn watch_writes(&mut self, poller: &Poller) -> io::Result<()> {
        if !self.unsent.is_empty() && !mem::replace(&mut self.is_write_watched, true) {
            let token = self.socket.as_raw_fd() as u64;
            poller.change(&self.socket, token, Interest::Both)?;
        }
        Ok(())
    }

    fn write_segments(&mut self, segments: &[IoSlice<'_>], whole: &[u8]) -> io::Result<()> {
        if segments.len() == 1 || !self.unsent.is_empty() {
            return self.write(whole);
        }
        let segments = &segments[..segments.len().min(SEGMENTS_MAX)];
        let taken = match rustix::io::writev(&self.socket, segments) {
            Ok(taken) => taken,
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(error) => return Err(error.into()),
        };
        if taken < whole.len() {
            self.unsent.extend_from_slice(&whole[taken..]);
            let more = socket::write(&self.socket, &self.unsent)?;
            self.unsent.drain(..more);
        }
        Ok(())
    }
}

/// What the first recipient gets, if a fault is due in these frames.
fn faulty(fault: &mut Option<Fault>, flushed: &mut u64, frames: &[&[u8]]) -> Option<Vec<u8>> {
    let due = fault.as_mut()?;
    let first = *flushed;
    *flushed += frames.len() as u64;
    if due.at >= *flushed {
        return None;
    }
    let index = due.at.saturating_sub(first) as usize;
    let bytes = due.apply(frames, index)?;
    *fault = None;
    Some(bytes)
}

/// The first run of digits that is as long as a value.
fn value_of(text: &[u8]) -> Option<u32> {
    let digits = text
        .windows(VALUE_DIGITS + 2)
        .find(|part| part[0] == b'"' && part[1..=VALUE_DIGITS].iter().all(u8::is_ascii_digit))?;
    let digits = &digits[1..=VALUE_DIGITS];
    Some(
        digits
            .iter()
            .fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0')),
    )
}

/// The body of a request whose head is complete.
fn body_of(bytes: &[u8], head_len: usize) -> Option<&[u8]> {
    let head = std::str::from_utf8(&bytes[..head_len]).ok()?;
    let (_, rest) = head.split_once("Content-Length: ")?;
    let len: usize = rest.split("\r\n").next()?.parse().ok()?;
    bytes.get(head_len..head_len + len)
}

/// RFC 6455 §4.2.2.
fn accept_key(head: &[u8]) -> String {
    let head = String::from_utf8_lossy(head);
    let key = head.split_once("Sec-WebSocket-Key: ");
    let key = key.and_then(|(_, rest)| rest.split("\r\n").next());
    let mut hash = Sha1::new();
    hash.update(key.unwrap_or_default());
    hash.update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found() {
        let layout = message::Layout::new(message::Topic::Filter, 200).expect("long enough");
        let mut notification = Vec::new();
        layout.push_notification(123_456, 17, &mut notification);
        assert_eq!(value_of(&notification), Some(17));
        assert_eq!(value_of(&layout.subscribe([5].into_iter(), None)), Some(5));
        assert_eq!(
            value_of(b"{\"sender\":\"client\",\"subscriptions\":[]}"),
            None
        );
    }

    #[test]
    fn the_accept_key_of_rfc_6455_section_1_3() {
        let head = b"GET / HTTP/1.1\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        assert_eq!(accept_key(head), ACCEPT);
    }
}
