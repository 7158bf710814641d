//! A listening socket in a state. Its backlog goes over with its descriptor.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use mio::net::{TcpListener, UnixListener};

use super::super::connection::saved::{restore_lane, save_lane};
use super::super::socket_file::SocketFile;
use super::{Listener, ListenerSocket, check_listening};
use crate::application::Lane;
use crate::config::ListenAddress;
use crate::handover::{Fields, Malformed, Members};

// Members of a listening socket.
const LANE: u8 = 1;
const KIND: u8 = 2;
/// As text, or a path.
const ADDRESS: u8 = 3;
/// Its file, if that is ours to remove.
const FILE: u8 = 4;

const TCP: u64 = 0;
const UNIX: u64 = 1;

impl Listener {
    /// Writes what a successor must know that is given [`Listener::descriptors`]; `address` is where it listens.
    pub fn save(&self, address: &ListenAddress, members: &mut Members<'_>) {
        let Self {
            socket,
            lane,
            // To be registered tells it again.
            is_ready: _,
            token: _,
            is_watched: _,
            // Begin anew.
            burst: _,
            told_in: _,
            // A pause is short.
            paused_until: _,
            // Begins anew.
            pause_logged: _,
        } = self;
        save_lane(LANE, *lane, members);
        match address {
            ListenAddress::Tcp(address) => {
                members.number(KIND, TCP);
                members.bytes(ADDRESS, address.to_string().as_bytes());
            }
            ListenAddress::Unix(path) => {
                members.number(KIND, UNIX);
                members.bytes(ADDRESS, path.as_os_str().as_bytes());
            }
        }
        match socket {
            ListenerSocket::Tcp(_) | ListenerSocket::Unix(_, None) => {}
            ListenerSocket::Unix(_, Some(file)) => {
                members.nested(FILE, |members| file.save(members));
            }
        }
    }

    /// The socket, and what locks its file.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let (socket, file) = match &self.socket {
            ListenerSocket::Tcp(socket) => (socket.as_fd(), None),
            ListenerSocket::Unix(socket, file) => (socket.as_fd(), file.as_ref()),
        };
        [socket].into_iter().chain(file.map(SocketFile::descriptor))
    }

    /// The listening socket that another program of this process has saved into `fields`; `take` has its descriptors.
    ///
    /// # Errors
    /// It isn't what is saved, or doesn't listen.
    pub fn inherited(
        fields: &Fields<'_>,
        mut take: impl FnMut() -> io::Result<OwnedFd>,
    ) -> io::Result<Self> {
        let (address, lane) = saved_address(fields)?;
        let descriptor = take()?;
        check_listening(&descriptor)?;
        let socket = match address {
            ListenAddress::Tcp(_) => ListenerSocket::Tcp(TcpListener::from_std(descriptor.into())),
            ListenAddress::Unix(path) => {
                let file = fields.nested(FILE)?;
                let file = file.map(|fields| {
                    let lock = take()?;
                    io::Result::Ok(SocketFile::inherited(&path, &fields, lock))
                });
                let socket = UnixListener::from_std(descriptor.into());
                ListenerSocket::Unix(socket, file.transpose()?)
            }
        };
        Ok(Self::new(socket, lane))
    }
}

/// Where a listening socket listens that was saved into `fields`, and what for.
///
/// # Errors
/// It isn't what is saved.
pub fn saved_address(fields: &Fields<'_>) -> Result<(ListenAddress, Lane), Malformed> {
    let address = match fields.number(KIND) {
        TCP => {
            let address = fields.text(ADDRESS)?.parse();
            ListenAddress::Tcp(address.map_err(|_| Malformed("there is no such address"))?)
        }
        UNIX => ListenAddress::Unix(Path::new(OsStr::from_bytes(fields.bytes(ADDRESS))).into()),
        _ => return Err(Malformed("a listening socket is of no kind")),
    };
    Ok((address, restore_lane(LANE, fields)?))
}
