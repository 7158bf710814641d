//! What the service manager is told of the server's life: the protocol of sd_notify(3), which is a
//! datagram of text. Without `NOTIFY_SOCKET` there is nobody to tell.
//!
//! Main type: [`Notifier`].

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use log::warn;
use rustix::time::{ClockId, clock_gettime};

use crate::net::server::Phase;

/// The way to the service manager.
pub(super) struct Notifier(Option<(UnixDatagram, SocketAddr)>);

impl Notifier {
    /// The one that the environment names, if it does.
    pub(super) fn from_environment() -> Self {
        let name = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        Self(name.and_then(|name| {
            let opened = open(&name);
            opened
                .inspect_err(|error| warn!("NOTIFY_SOCKET {name:?}: {error}"))
                .ok()
        }))
    }

    /// Tells it what begins. A service manager that doesn't listen is no reason not to serve.
    pub(super) fn tell(&self, phase: Phase) {
        let Some((socket, address)) = &self.0 else {
            return;
        };
        let text = match phase {
            // Nothing has begun that it knows a word for.
            Phase::Waiting => return,
            Phase::Serving => "READY=1".to_owned(),
            Phase::Reloading => {
                let now = clock_gettime(ClockId::Monotonic);
                let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
                format!("RELOADING=1\nMONOTONIC_USEC={micros}")
            }
            Phase::Stopping => "STOPPING=1".to_owned(),
        };
        if let Err(error) = socket.send_to_addr(text.as_bytes(), address) {
            warn!("the service manager was not told {text:?}: {error}");
        }
    }
}

/// A path, or with `@` in front a name that is in no folder.
fn open(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    // The loop waits for nobody.
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}
