//! The floor's handover: on SIGUSR2 it becomes the program that it is, again, and keeps its connections.
//!
//! Does what a server can't do without and no more: it writes as many bytes as a server's state has into a file in
//! memory, keeps its descriptors across exec, becomes the program, reads the state and registers each socket. No dry
//! run, no second look at the program, and nothing that could be undone.
//!
//! The state: how it was, the number of records, then a record for each connection, the descriptor's number first, and
//! one for each entry of the history. A record is a length and as many bytes, filled up to the size that was asked for.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use std::vec;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg, sockopt,
};

use crate::limit::fault::HandoverFault;
use crate::limit::history::History;
use crate::limit::{Keeping, SUCCESSOR, Settings};
use crate::poller::{Interest, Poller, Waiting};
use crate::system::now_ns;

use super::{Connection, EVENTS_MAX, Floor};

/// What is written and read at once.
const BUFFER_BYTES: usize = 64 * 1024;

/// As many descriptors as the kernel takes in one message (`SCM_MAX_FD`), and the space of so many.
const PER_MESSAGE: usize = 253;
const SPACE: usize = rustix::cmsg_space!(ScmRights(PER_MESSAGE));
/// What a message takes of a socket's buffer, roughly.
const BYTES_PER_MESSAGE: usize = 2048;

/// A group's value where there is none.
const NO_GROUP: u32 = u32::MAX;

/// The signal, and the account of what came of it.
pub(super) struct Handovers {
    signal: SignalFd,
    is_asked: bool,
    completed: u64,
    refused: u64,
    /// How long the last one took.
    last: Duration,
    fault: Option<HandoverFault>,
}

impl Handovers {
    /// Has the signal arrive at a descriptor, from now on and in all successors.
    pub(super) fn watch(fault: Option<HandoverFault>) -> io::Result<Self> {
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGUSR2);
        signals.thread_block()?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        Ok(Self {
            signal: SignalFd::with_flags(&signals, flags)?,
            is_asked: false,
            completed: 0,
            refused: 0,
            last: Duration::ZERO,
            fault,
        })
    }

    /// What to wait for.
    pub(super) fn signal(&self) -> BorrowedFd<'_> {
        self.signal.as_fd()
    }

    /// Notes that the signal may have come.
    pub(super) const fn ask(&mut self) {
        self.is_asked = true;
    }

    /// Whether a handover is due now.
    pub(super) fn is_due(&mut self) -> io::Result<bool> {
        if !std::mem::take(&mut self.is_asked) || self.signal.read_signal()?.is_none() {
            return Ok(false);
        }
        let is_refused = self.fault == Some(HandoverFault::Refuse);
        self.refused += u64::from(is_refused);
        Ok(!is_refused)
    }

    /// As crieur tells it.
    pub(super) fn metrics(&self) -> String {
        format!(
            "crieur_handovers_total{{result=\"completed\"}} {}\n\
             crieur_handovers_total{{result=\"refused\"}} {}\n\
             crieur_handovers_total{{result=\"failed\"}} 0\n\
             crieur_handover_seconds {}\n",
            self.completed,
            self.refused,
            self.last.as_secs_f64()
        )
    }
}

impl Floor {
    /// Becomes the successor. Nothing can be undone: where that fails, the floor ends.
    pub(super) fn hand_over(&mut self) -> io::Result<Infallible> {
        let began = now_ns();
        self.apply_fault();
        let file = File::from(memfd_create("load-state", MemfdFlags::CLOEXEC)?);
        let mut out = BufWriter::with_capacity(BUFFER_BYTES, file);
        self.write_state(&mut out, began)?;
        let mut file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.rewind()?;
        self.tell("state written", began);
        let listener = self.listener.as_fd();
        let sockets = self.connections.iter().flatten();
        let sockets = sockets.map(|connection| connection.socket.as_fd());
        match self.settings.keeping {
            Keeping::Rights => {
                let all: Vec<_> = [file.as_fd(), listener]
                    .into_iter()
                    .chain(sockets)
                    .collect();
                let (near, far) = UnixStream::pair()?;
                send(&near, &all)?;
                rustix::stdio::dup2_stdin(&far)?;
            }
            Keeping::Inheritance | Keeping::Epoll => {
                let epoll = self.poller.epoll();
                let epoll = (self.settings.keeping == Keeping::Epoll).then_some(epoll);
                for descriptor in [listener].into_iter().chain(epoll).chain(sockets) {
                    fcntl_setfd(descriptor, FdFlags::empty())?;
                }
                rustix::stdio::dup2_stdin(&file)?;
            }
        }
        self.tell("descriptors kept", began);
        let arguments = std::env::args_os().filter(|argument| argument != SUCCESSOR);
        let arguments = arguments.chain([SUCCESSOR.into()]);
        let arguments: Result<Vec<_>, _> = arguments
            .map(|argument| CString::new(argument.into_vec()))
            .collect();
        Ok(nix::unistd::execv(c"/proc/self/exe", &arguments?)?)
    }

    /// Begins as the successor of what this process was.
    pub(super) fn take_over(settings: Settings) -> io::Result<Self> {
        let input = io::stdin().as_fd().try_clone_to_owned()?;
        let (file, mut descriptors) = match settings.keeping {
            Keeping::Rights => {
                let mut descriptors = Descriptors::Sent(input, Vec::new().into_iter());
                // It had some number, which doesn't matter.
                (descriptors.take(0)?, descriptors)
            }
            Keeping::Inheritance | Keeping::Epoll => (input, Descriptors::Inherited),
        };
        let mut state = State {
            file: BufReader::with_capacity(BUFFER_BYTES, file.into()),
            record: Vec::new(),
        };
        let rest = &mut state.next()?;
        let began = take_u64(rest)?;
        let completed = take_u64(rest)? + 1;
        let kept = take_u64(rest)?;
        let newest = take_u64(rest)?;
        let connections = take_u64(rest)?;
        let entries = take_u64(rest)?;
        let (flushed, replayed) = (take_u64(rest)?, take_u64(rest)?);
        let listener = descriptors.take(take_u32(rest)?.cast_signed())?;
        let handovers = Handovers {
            completed,
            ..Handovers::watch(settings.handover_fault)?
        };
        let listener = TcpListener::from(listener);
        let keeps_epoll = settings.keeping == Keeping::Epoll;
        let mut floor = if keeps_epoll {
            let epoll = descriptors.take(take_u32(rest)?.cast_signed())?;
            let poller = Poller::restore(epoll, Waiting::Sleep, EVENTS_MAX);
            Self::with_poller(settings, poller, listener, handovers)?
        } else {
            Self::new(settings, listener, handovers)?
        };
        floor.tell("begun again", began);
        floor.kept = kept;
        (floor.flushed, floor.replayed) = (flushed, replayed);
        // What has been done wrong once isn't done again.
        floor.fault = settings.fault.filter(|fault| fault.at >= flushed);
        floor.replay_fault = settings.replay_fault.filter(|fault| fault.at >= replayed);
        floor.history = settings.has_history.then(|| History::begin_at(newest));
        for _ in 0..connections {
            let mut connection = read_connection(state.next()?, &mut descriptors)?;
            connection.is_write_watched = !keeps_epoll;
            floor.join(&connection);
            if !keeps_epoll {
                let token = connection.socket.as_raw_fd() as u64;
                floor
                    .poller
                    .add(&connection.socket, token, Interest::Both)?;
            }
            floor.put(connection);
        }
        floor.tell("connections read and registered", began);
        for _ in 0..entries {
            floor.read_entry(state.next()?)?;
        }
        floor.tell("entries read", began);
        floor.handovers.last = Duration::from_nanos(now_ns() - began);
        Ok(floor)
    }

    fn write_state(&self, out: &mut impl Write, began: u64) -> io::Result<()> {
        let connections = self.connections.iter().flatten();
        let (newest, entries) = self.history.as_ref().map(History::all).unzip();
        let mut record = Vec::new();
        for number in [
            began,
            self.handovers.completed,
            self.kept,
            newest.unwrap_or(0),
            connections.clone().count() as u64,
            newest.unwrap_or(self.kept),
            self.flushed,
            self.replayed,
        ] {
            record.extend_from_slice(&number.to_le_bytes());
        }
        for descriptor in [self.listener.as_fd(), self.poller.epoll()] {
            push_u32(descriptor.as_raw_fd().cast_unsigned(), &mut record);
        }
        write_record(out, &mut record, 0)?;
        for connection in connections {
            push_connection(connection, &mut record);
            write_record(out, &mut record, self.settings.connection_bytes)?;
        }
        let Some(entries) = entries else {
            // Without a history there is nothing to know of an entry, but as many bytes to carry.
            let mut write = |_| write_record(out, &mut record, self.settings.entry_bytes);
            return (0..self.kept).try_for_each(&mut write);
        };
        for (value, position, frame) in entries {
            push_u32(value, &mut record);
            record.extend_from_slice(&position.to_le_bytes());
            push_bytes(frame, &mut record);
            write_record(out, &mut record, self.settings.entry_bytes)?;
        }
        Ok(())
    }

    fn read_entry(&mut self, record: &[u8]) -> io::Result<()> {
        if let Some(history) = &mut self.history {
            let rest = &mut &record[..];
            let (value, position) = (take_u32(rest)?, take_u64(rest)?);
            history.restore(value, position, take_bytes(rest)?);
        }
        Ok(())
    }

    /// Does wrong what it is told to, to the first that has subscribed.
    fn apply_fault(&mut self) {
        let has_subscribed = |one: &&mut Option<Connection>| {
            one.as_ref()
                .is_some_and(|connection| connection.group.is_some())
        };
        let mut subscribed = self.connections.iter_mut().filter(has_subscribed);
        let (first, second) = (subscribed.next(), subscribed.next());
        match (self.handovers.fault, first, second) {
            (Some(HandoverFault::Close), Some(first), _) => *first = None,
            (Some(HandoverFault::Forget), Some(Some(first)), _) => first.group = None,
            (Some(HandoverFault::Swap), Some(Some(first)), Some(Some(second))) => {
                std::mem::swap(&mut first.socket, &mut second.socket);
            }
            (Some(HandoverFault::Say), Some(Some(first)), _) => {
                // A peer that is gone needs no fault.
                let _ = first.write(b"\x81\x02{}");
            }
            _ => {}
        }
    }

    /// Says how far it is, if it is to say where the time goes.
    fn tell(&self, what: &str, began: u64) {
        if self.settings.is_telling {
            let elapsed = Duration::from_nanos(now_ns() - began);
            eprintln!("handover: {:7.3} ms: {what}", elapsed.as_secs_f64() * 1e3);
        }
    }
}

fn push_connection(connection: &Connection, record: &mut Vec<u8>) {
    let Connection {
        socket,
        is_open,
        stays,
        has_closed,
        group,
        is_numbered,
        tail,
        unsent,
        // A successor watches for room whenever there is none.
        is_write_watched: _,
    } = connection;
    push_u32(socket.as_raw_fd().cast_unsigned(), record);
    record.extend([*is_open, *stays, *has_closed, *is_numbered].map(u8::from));
    push_u32(group.unwrap_or(NO_GROUP), record);
    push_bytes(tail, record);
    push_bytes(unsent, record);
}

fn read_connection(record: &[u8], descriptors: &mut Descriptors) -> io::Result<Connection> {
    let rest = &mut &record[..];
    let number = take_u32(rest)?.cast_signed();
    let [is_open, stays, has_closed, is_numbered] = take::<4>(rest)?.map(|byte| byte != 0);
    Ok(Connection {
        socket: descriptors.take(number)?,
        is_open,
        stays,
        has_closed,
        group: Some(take_u32(rest)?).filter(|&group| group != NO_GROUP),
        is_numbered,
        tail: take_bytes(rest)?,
        unsent: take_bytes(rest)?,
        is_write_watched: false,
    })
}

/// A state that is read.
struct State {
    file: BufReader<File>,
    record: Vec<u8>,
}

impl State {
    /// The next record.
    fn next(&mut self) -> io::Result<&[u8]> {
        let mut len = [0; 4];
        self.file.read_exact(&mut len)?;
        self.record.resize(u32::from_le_bytes(len) as usize, 0);
        self.file.read_exact(&mut self.record)?;
        Ok(&self.record)
    }
}

/// Writes a record, filled up to `bytes_min`, and empties it for the next.
fn write_record(out: &mut impl Write, record: &mut Vec<u8>, bytes_min: usize) -> io::Result<()> {
    record.resize(record.len().max(bytes_min), 0);
    out.write_all(&(record.len() as u32).to_le_bytes())?;
    out.write_all(record)?;
    record.clear();
    Ok(())
}

fn push_u32(number: u32, record: &mut Vec<u8>) {
    record.extend_from_slice(&number.to_le_bytes());
}

fn push_bytes(bytes: &[u8], record: &mut Vec<u8>) {
    push_u32(bytes.len() as u32, record);
    record.extend_from_slice(bytes);
}

fn take<const LEN: usize>(rest: &mut &[u8]) -> io::Result<[u8; LEN]> {
    let mut bytes = [0; LEN];
    rest.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn take_u32(rest: &mut &[u8]) -> io::Result<u32> {
    take(rest).map(u32::from_le_bytes)
}

fn take_u64(rest: &mut &[u8]) -> io::Result<u64> {
    take(rest).map(u64::from_le_bytes)
}

fn take_bytes(rest: &mut &[u8]) -> io::Result<Vec<u8>> {
    let len = take_u32(rest)? as usize;
    let bytes = rest.split_off(..len).ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(bytes.to_vec())
}

/// Puts descriptors on their way (unix(7)); the socket's buffer holds all of them.
fn send(to: &UnixStream, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let messages = descriptors.len().div_ceil(PER_MESSAGE);
    sockopt::set_socket_send_buffer_size(to, messages * BYTES_PER_MESSAGE)?;
    for some in descriptors.chunks(PER_MESSAGE) {
        let mut space = [MaybeUninit::uninit(); SPACE];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fits = control.push(SendAncillaryMessage::ScmRights(some));
        debug_assert!(fits, "there is space for as many");
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        sendmsg(to, &[IoSlice::new(&[0])], &mut control, flags)?;
    }
    Ok(())
}

/// The descriptors of one message.
fn receive(socket: &OwnedFd) -> io::Result<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut bytes = [IoSliceMut::new(&mut byte)];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    recvmsg(socket, &mut bytes, &mut control, flags)?;
    let mut arrived = Vec::with_capacity(PER_MESSAGE);
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            arrived.extend(descriptors);
        }
    }
    if arrived.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(arrived)
}

/// Where the predecessor's descriptors are.
enum Descriptors {
    /// In this socket, and those that have been read from it.
    Sent(OwnedFd, vec::IntoIter<OwnedFd>),
    /// Where they were, open.
    Inherited,
}

impl Descriptors {
    /// The next one, which had this number.
    fn take(&mut self, number: RawFd) -> io::Result<OwnedFd> {
        match self {
            Self::Sent(socket, arrived) => loop {
                if let Some(descriptor) = arrived.next() {
                    return Ok(descriptor);
                }
                *arrived = receive(socket)?.into_iter();
            },
            Self::Inherited => {
                #[expect(unsafe_code, reason = "no safe function takes one by its number")]
                // SAFETY: the predecessor has left it open, and its state names it once.
                let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
                fcntl_setfd(&descriptor, FdFlags::CLOEXEC)?;
                Ok(descriptor)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_arrive_as_they_were() {
        // More than two messages take.
        let count = 2 * PER_MESSAGE + 1;
        let connection = |number: usize| {
            let (socket, peer) = UnixStream::pair().expect("descriptors");
            let connection = Connection {
                socket: socket.into(),
                is_open: number.is_multiple_of(2),
                stays: number.is_multiple_of(3),
                has_closed: number.is_multiple_of(5),
                group: (!number.is_multiple_of(7)).then_some(number as u32),
                is_numbered: number.is_multiple_of(11),
                tail: vec![1; number % 13],
                unsent: vec![2; number % 17],
                is_write_watched: false,
            };
            (connection, peer)
        };
        let all: Vec<_> = (0..count).map(connection).collect();
        let (near, far) = UnixStream::pair().expect("descriptors");
        let sockets: Vec<_> = all.iter().map(|(one, _)| one.socket.as_fd()).collect();
        send(&near, &sockets).expect("there is room");
        drop(near);
        let mut descriptors = Descriptors::Sent(far.into(), Vec::new().into_iter());
        for (number, (sent, mut peer)) in all.into_iter().enumerate() {
            let mut record = Vec::new();
            push_connection(&sent, &mut record);
            let mut arrived = read_connection(&record, &mut descriptors).expect("it is whole");
            let facts = |one: &Connection| {
                let flags = [one.is_open, one.stays, one.has_closed, one.is_numbered];
                (flags, one.group, one.tail.clone(), one.unsent.clone())
            };
            assert_eq!(facts(&arrived), facts(&sent), "{number}");
            arrived.unsent.clear();
            arrived.write(&number.to_le_bytes()).expect("there is room");
            let mut read = [0; size_of::<usize>()];
            peer.read_exact(&mut read).expect("it was written");
            assert_eq!(usize::from_le_bytes(read), number);
        }
        assert!(descriptors.take(0).is_err());
    }

    #[test]
    fn records_are_filled_up() {
        let mut out = Vec::new();
        for bytes_min in [0, 2, 5] {
            write_record(&mut out, &mut b"abc".to_vec(), bytes_min).expect("memory");
        }
        assert_eq!(out, b"\x03\0\0\0abc\x03\0\0\0abc\x05\0\0\0abc\0\0");
    }
}
