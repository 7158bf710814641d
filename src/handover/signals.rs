//! The signals that a server handles, blocked while there is no handler: `exec` forgets handlers and keeps the mask, and what
//! comes meanwhile waits in the kernel.

use std::io;

use nix::sys::signal::{SigSet, Signal};

fn handled() -> SigSet {
    [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGUSR2,
    ]
    .into_iter()
    .collect()
}

/// Those that a child must not die of, since they are meant for this process: `systemctl kill` sends them to both.
#[must_use]
pub fn of_parent() -> SigSet {
    [Signal::SIGHUP, Signal::SIGUSR2].into_iter().collect()
}

/// Blocks them for this thread, and for those that it starts from now on.
///
/// # Errors
///
/// As the operating system's.
pub fn block() -> io::Result<()> {
    handled().thread_block().map_err(io::Error::from)
}

/// Lets them through to this thread, those first that have come meanwhile.
///
/// # Errors
///
/// As the operating system's.
pub fn unblock() -> io::Result<()> {
    handled().thread_unblock().map_err(io::Error::from)
}
