//! The server under test: starting it on its core, finding it, stopping it.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::nodes;
use crate::system;

/// How long a server may take to listen, and to stop.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// A server that runs.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) pid: u32,
    pub(crate) address: SocketAddrV4,
    /// What it was started with; empty for one that ran before.
    pub(crate) command: String,
    child: Option<Child>,
}

/// What is to be started.
#[derive(Debug)]
pub(crate) enum Start<'a> {
    /// A shell's command; `{address}` in it becomes the address, `{redis}` the URL of a Redis.
    Shell {
        command: &'a str,
        redis: Option<&'a str>,
    },
    /// This program, with these arguments and the address behind them.
    Own(&'a [String]),
}

impl Server {
    /// Finds the process that listens on the address.
    pub(crate) fn find(address: SocketAddrV4, pid: Option<u32>) -> Result<Self, String> {
        let pid = pid.or_else(|| listener(address)).ok_or_else(|| {
            format!("no process that listens on {address} can be seen: start one, or give --server-command or --pid")
        })?;
        Ok(Self {
            pid,
            address,
            command: String::new(),
            child: None,
        })
    }

    /// Starts a server on a core. `after` is where this thread goes back to; `earlier` have its address already.
    pub(crate) fn start(
        start: &Start<'_>,
        address: Option<SocketAddrV4>,
        earlier: usize,
        core: usize,
        after: usize,
    ) -> Result<Self, String> {
        let address = match address {
            Some(address) => address,
            None => free_address().map_err(|error| format!("no port is free: {error}"))?,
        };
        let (mut command, shown) = match start {
            Start::Shell { command, redis } => {
                let mut text = command.replace("{address}", &address.to_string());
                if let Some(redis) = redis {
                    text = text.replace("{redis}", redis);
                }
                let mut command = Command::new("sh");
                command.arg("-c").arg(format!("exec {text}"));
                (command, text)
            }
            Start::Own(arguments) => {
                let program = std::env::current_exe()
                    .map_err(|error| format!("where this program is, is unknown: {error}"))?;
                let mut command = Command::new(program);
                command.args(*arguments).arg(address.to_string());
                (command, format!("{} {address}", arguments.join(" ")))
            }
        };
        // Affinity is inherited. Nothing but results goes to this program's standard output. The
        // server stays in this process group: what interrupts the one from a terminal ends both.
        command.stdin(Stdio::null()).stdout(Stdio::null());
        system::pin_to(core).map_err(|error| error.to_string())?;
        let child = command.spawn();
        system::pin_to(after).map_err(|error| error.to_string())?;
        let child = child.map_err(|error| format!("cannot start {shown:?}: {error}"))?;
        let mut server = Self {
            pid: child.id(),
            address,
            command: shown,
            child: Some(child),
        };
        server.wait_until_listening(earlier)?;
        Ok(server)
    }

    /// Waits until it listens, beside so many others that have its address.
    fn wait_until_listening(&mut self, earlier: usize) -> Result<(), String> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(status) = self.exit_status() {
                return Err(format!("{:?} ended: {status}", self.command));
            }
            let error = match TcpStream::connect(self.address) {
                Ok(_) if earlier == 0 || listening(self.address).len() > earlier => return Ok(()),
                Ok(_) => "others have its address alone".to_owned(),
                Err(error) => error.to_string(),
            };
            if Instant::now() > deadline {
                return Err(format!("{:?} does not listen: {error}", self.command));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// How it ended, if it did.
    pub(crate) fn exit_status(&mut self) -> Option<String> {
        let status = self.child.as_mut()?.try_wait();
        status.ok().flatten().map(|status| status.to_string())
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> Result<usize, String> {
        let path = format!("/proc/{}/fd", self.pid);
        let entries = fs::read_dir(&path).map_err(|error| format!("{path}: {error}"))?;
        Ok(entries.count())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(child) = &mut self.child else {
            return;
        };
        if let Some(pid) = Pid::from_raw(self.pid.cast_signed()) {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + Duration::from_secs(2);
        while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn free_address() -> io::Result<SocketAddrV4> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    Ok(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
}

/// The listening sockets of an address, or of its port on all addresses, by their inodes.
fn listening(address: SocketAddrV4) -> Vec<String> {
    let everywhere = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, address.port());
    let wanted = [address, everywhere].map(nodes::shown);
    // Without the table nobody listens.
    let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let inode = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let is_listener = fields.get(3) == Some(&"0A") && wanted.iter().any(|own| own == fields[1]);
        is_listener.then(|| fields.get(9).map(|&inode| inode.to_owned()))?
    };
    table.lines().filter_map(inode).collect()
}

/// The process that holds the listening socket of an address, or of its port on all addresses.
fn listener(address: SocketAddrV4) -> Option<u32> {
    let link = format!("socket:[{}]", listening(address).first()?);
    let holds = |pid: &u32| {
        let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
            return false;
        };
        entries
            .flatten()
            .any(|entry| fs::read_link(entry.path()).is_ok_and(|to| to.as_os_str() == &link[..]))
    };
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .find(holds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_found() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        let server = Server::find(address, None).expect("this process");
        assert_eq!(server.pid, std::process::id());
        drop(listener);
        assert!(Server::find(address, None).is_err());
    }
}
