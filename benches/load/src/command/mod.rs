//! The commands: what is common to them, and one file for each way of measuring.

mod connect;
mod fanout;
mod handover;
mod pings;
mod plan;
mod resume;
mod stream;

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::connections::Net;
use crate::figures::{Meter, Snapshot};
use crate::limit;
use crate::options::{Command, Options};
use crate::report::Report;
use crate::server::{Server, Start};
use crate::socket::Connector;
use crate::system;

/// Where a server listens unless somebody says otherwise.
const DEFAULT_TARGET: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8000);

/// Descriptors that aren't connections.
const DESCRIPTORS_RESERVED: usize = 64;

/// A server, a way to it, and a way to measure it.
struct Bench {
    server: Server,
    net: Net,
    meter: Meter,
    /// What the server is called in the result.
    server_name: String,
}

impl Bench {
    fn new(options: &Options, is_limit: bool) -> Result<Self, String> {
        let cores = system::allowed_cores(None);
        let (Some(&first), Some(&last)) = (cores.first(), cores.last()) else {
            return Err("no core to run on".to_owned());
        };
        let own_core = options.core.unwrap_or(last);
        let server_core = options.server_core.unwrap_or(first);
        let start = |start: &Start<'_>| Server::start(start, options.target, server_core, own_core);
        let (server, server_name) = match &options.server_command {
            _ if is_limit => {
                let server = start(&Start::Own(&limit::arguments(options)))?;
                (server, "limit".to_owned())
            }
            Some(command) => {
                let server = start(&Start::Shell(command))?;
                let name = server.command.clone();
                (server, name)
            }
            None => {
                let target = options.target.unwrap_or(DEFAULT_TARGET);
                let server = Server::find(target, options.pid)?;
                let name = format!("process {}", server.pid);
                (server, name)
            }
        };
        system::pin_to(own_core).map_err(|error| error.to_string())?;
        let server_cores = system::allowed_cores(Some(server.pid));
        if server_cores.contains(&own_core) {
            eprintln!(
                "load: warning: the server may run on core {own_core}, which is this program's (taskset -c {first} ...)"
            );
        }
        let meter = Meter {
            server_pid: server.pid,
            server_core: *server_cores.first().unwrap_or(&server_core),
            own_core,
        };
        let net = Net::new(Connector::new(server.address), options.waiting)?;
        Ok(Self {
            server,
            net,
            meter,
            server_name,
        })
    }

    fn snapshot(&self) -> Result<Snapshot, String> {
        self.meter.snapshot(&self.net.poller)
    }

    /// A report that begins with what was measured.
    fn report(&self, command: Command, options: &Options) -> Report {
        let mut report = Report::new(command.name());
        report.text("label", &options.label);
        report.text("server", &self.server_name);
        report
    }

    /// Adds the server's end to an error, if that is what it was.
    fn explain(&mut self, error: String) -> String {
        match self.server.exit_status() {
            Some(status) => format!("{error} (the server has ended: {status})"),
            None => error,
        }
    }
}

/// Runs a command against the server that the options say, or against the floor.
pub(crate) fn run(command: Command, options: &Options, is_limit: bool) -> Result<(), String> {
    let descriptors = system::raise_descriptors();
    let needed = options.subscribers
        + options.bystanders
        + options.connections
        + options.clients
        + options.live
        + options.in_flight
        + options.publishers;
    let needed = match options.rate {
        Some(_) => needed - options.in_flight,
        None => needed,
    };
    if needed + DESCRIPTORS_RESERVED > descriptors {
        return Err(format!(
            "{needed} connections need more than the {descriptors} descriptors that are allowed (ulimit -n)"
        ));
    }
    let mut bench = Bench::new(options, is_limit)?;
    let result = match command {
        Command::Fanout | Command::Publish | Command::Match => {
            fanout::run(&mut bench, command, options)
        }
        Command::Connect => connect::run(&mut bench, options),
        Command::Pings => pings::run(&mut bench, options),
        Command::Resume => resume::run(&mut bench, options),
        Command::Handover => handover::run(&mut bench, options),
    };
    result.map_err(|error| bench.explain(error))
}
