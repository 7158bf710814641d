//! The commands: what is common to them, and one file for each way of measuring.

mod connect;
mod fanout;
mod handover;
mod hold;
mod pings;
mod plan;
mod resume;
mod stream;

use std::iter;
use std::net::{Ipv4Addr, SocketAddrV4};

use crate::connections::Net;
use crate::figures::{Meter, Snapshot};
use crate::limit;
use crate::options::{Command, Options};
use crate::redis::Redis;
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
    /// The server; its first node, if it has several.
    server: Server,
    /// The other nodes.
    others: Vec<Server>,
    /// Ends behind them.
    redis: Option<Redis>,
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
        let node_cores = match &options.server_cores[..] {
            [] => &[first],
            cores => cores,
        };
        let core_of = |node: usize| node_cores[node % node_cores.len()];
        let redis_core = options.redis_core.unwrap_or(node_cores[0]);
        let redis = options.redis_options.as_deref();
        let redis = redis.map(|more| Redis::start(more, redis_core, own_core));
        let redis = redis.transpose()?;
        let mut others = Vec::new();
        let (server, server_name) = match &options.server_command {
            _ if is_limit => {
                let start = Start::Own(&limit::arguments(options));
                let server = Server::start(&start, options.target, 0, core_of(0), own_core)?;
                (server, "limit".to_owned())
            }
            Some(command) => {
                let redis = redis.as_ref().map(|redis| &redis.url[..]);
                let start = Start::Shell { command, redis };
                let server = Server::start(&start, options.target, 0, core_of(0), own_core)?;
                let shared = options.has_shared_address.then_some(server.address);
                for node in 1..options.nodes {
                    let earlier = if shared.is_some() { node } else { 0 };
                    let server = Server::start(&start, shared, earlier, core_of(node), own_core)?;
                    others.push(server);
                }
                let name = server.command.clone();
                (server, name)
            }
            None => {
                let target = options.target.unwrap_or(DEFAULT_TARGET);
                let server = Server::find(target, options.pids.first().copied())?;
                let name = format!("process {}", server.pid);
                (server, name)
            }
        };
        let own_cores = match options.is_on_all_cores {
            true => &cores[..],
            false => &[own_core],
        };
        system::run_on(own_cores).map_err(|error| error.to_string())?;
        let server_cores = system::allowed_cores(Some(server.pid));
        if options.server_cores.is_empty() && server_cores.contains(&own_core) {
            eprintln!(
                "load: warning: the server may run on core {own_core}, which is this program's (taskset -c {first} ...)"
            );
        }
        let servers = || iter::once(&server).chain(&others);
        let mut used: Vec<_> = (0..=others.len()).map(core_of).collect();
        // One that ran before has been pinned by somebody else.
        used[0] = *server_cores.first().unwrap_or(&used[0]);
        used.extend(redis.as_ref().map(|_| redis_core));
        used.sort_unstable();
        used.dedup();
        let meter = Meter {
            node_pids: servers()
                .map(|server| server.pid)
                .chain(options.pids.iter().skip(1).copied())
                .collect(),
            redis_pid: redis.as_ref().map(|redis| redis.pid),
            server_cores: used,
            own_core,
            is_own_shared: options.is_on_all_cores,
        };
        let mut addresses: Vec<_> = servers().map(|server| server.address).collect();
        addresses.dedup();
        let net = Net::new(Connector::to_nodes(addresses), options.waiting)?;
        Ok(Self {
            server,
            others,
            redis,
            net,
            meter,
            server_name,
        })
    }

    /// All nodes.
    fn servers(&self) -> Vec<&Server> {
        iter::once(&self.server).chain(&self.others).collect()
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
        let mut servers = iter::once(&mut self.server).chain(&mut self.others);
        match servers.find_map(Server::exit_status) {
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
    if (is_limit || options.server_command.is_none())
        && (options.nodes > 1 || options.redis_options.is_some())
    {
        return Err("--nodes and --redis are for servers of --server-command".to_owned());
    }
    let mut bench = Bench::new(options, is_limit)?;
    let result = match command {
        Command::Fanout | Command::Publish | Command::Match => {
            fanout::run(&mut bench, command, options)
        }
        Command::Connect => connect::run(&mut bench, options),
        Command::Hold => hold::run(&mut bench, options),
        Command::Pings => pings::run(&mut bench, options),
        Command::Resume => resume::run(&mut bench, options),
        Command::Handover => handover::run(&mut bench, options),
    };
    result.map_err(|error| bench.explain(error))
}
