//! `crieur serve`: the server with its hub, its logs and its limits.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use log::{info, warn};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::application::Lane;
use crate::config::{Config, Console, ListenAddress};
use crate::hub::Hub;
use crate::journal::Journal;
use crate::journal::id::Generation;
use crate::memory;
use crate::net::engine::SPARE_CONNECTIONS;
use crate::net::listener::Listener;
use crate::net::server::{Server, Stopped};
use crate::routes::Routes;

use super::error::CliError;
use super::logging::{LogWriter, read_level};
use super::notify::Notifier;
use super::output::print;
use super::reload::Reload;
use super::settings::{self, Wanted};
use super::{activation, history, trust};

/// Descriptors that aren't connections: standard streams, poll, signals, listeners.
const DESCRIPTORS_RESERVED: usize = 32;

/// How long the last lines of the log may take at the end.
const LOG_FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

pub(super) fn help() -> String {
    format!(
        "\
Usage: crieur [serve] [OPTIONS]

Runs the server until SIGTERM or SIGINT; SIGHUP has it read its files again. Each option can be
given as an environment variable too: --max-connections as CRIEUR_MAX_CONNECTIONS; one that is
none of them is an error. Defaults are in brackets.

  --check                          Say whether the options and the files that they name are in
                                   order, and run no server (not from the environment)
{}",
        settings::help()
    )
}

pub(super) fn run(arguments: Vec<OsString>) -> Result<ExitCode, CliError> {
    let mut config = match settings::read(arguments)? {
        Wanted::Help => return print(&help()),
        Wanted::Check(config) => return check(&config),
        Wanted::Server(config) => config,
    };
    memory::fix_mmap_threshold();
    let listeners = activation::take_listeners()?;
    activation::replace_addresses(&mut config.server, &listeners);
    let logs = LogWriter::start(read_level(&config.log)?, config.log_format)?;
    let result = serve(&mut config, listeners);
    logs.flush(LOG_FLUSH_TIMEOUT);
    match result? {
        Stopped::Drained => Ok(ExitCode::SUCCESS),
        Stopped::Forced(signal) => Ok(ExitCode::from(128 + signal as u8)),
    }
}

/// Reads all that a server would read, and leaves the system as it is: whether an address can be
/// listened on shows only when it is.
fn check(config: &Config) -> Result<ExitCode, CliError> {
    read_level(&config.log)?;
    trust::read_policy(config, &config.server.publish_listen)?;
    print("ok\n")
}

fn serve(config: &mut Config, listeners: Vec<Listener>) -> Result<Stopped, CliError> {
    let lanes = publish_lanes(config, &listeners)?;
    fit_descriptors(config, lanes.len())?;
    let policy = trust::read_policy(config, &lanes)?;
    let publish_warning = trust::publish_warning(&policy);
    let reload = Reload::new(config);
    let ping_interval = config.server.timeouts.ping_interval;
    let generation = Generation(draw()?);
    let journal = Journal::new(config.history, generation);
    let hub = Hub::new(config.hub, ping_interval, policy, journal)
        .with_reload(move |policy| reload.run(policy));
    let hub = history::open(config, hub, generation)?;
    let write_ahead = hub.journal().write_ahead().cloned();
    let result = run_server(config, listeners, hub, publish_warning);
    if let Some(write_ahead) = write_ahead {
        write_ahead.close();
    }
    result
}

fn run_server(
    config: &Config,
    listeners: Vec<Listener>,
    hub: Hub,
    publish_warning: Option<&str>,
) -> Result<Stopped, CliError> {
    let application = Routes::new(hub, config.console);
    let seed = draw()?;
    let mut server = Server::bind_beside(listeners, &config.server, application, seed)
        .map_err(CliError::failure)?;
    let addresses = server.local_addrs().map_err(CliError::failure)?;
    let limits = &config.server.limits;
    for (address, lane) in addresses {
        match lane {
            Lane::Clients => info!("listening on {address}"),
            Lane::Publishers => info!("listening for publishers on {address}"),
        }
        if let (Lane::Clients, ListenAddress::Tcp(address)) = (lane, address)
            && config.console != Console::Off
        {
            info!("the console is at {}", console_url(address));
        }
    }
    info!(
        "crieur {}: at most {} connections, {} bytes a send queue, {} bytes in all buffers",
        env!("CARGO_PKG_VERSION"),
        limits.connections_max,
        limits.send_queue_bytes_max,
        limits.buffer_bytes_max
    );
    if let Some(warning) = publish_warning {
        warn!("{warning}");
    }
    let notifier = Notifier::from_environment();
    server
        .run(|phase| notifier.tell(phase))
        .map_err(|error| CliError::failure(format!("the event loop failed: {error}")))
}

/// A random number.
fn draw() -> Result<u64, CliError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)
        .map_err(|error| CliError::failure(format!("no randomness: {error}")))?;
    Ok(u64::from_ne_bytes(bytes))
}

/// Where a browser on this host finds the console: every address is this host's own as well.
fn console_url(address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        format!("http://localhost:{}/", address.port())
    } else {
        format!("http://{address}/")
    }
}

/// The addresses of publishers alone: the sockets that were given, and those that are yet to be made.
fn publish_lanes(config: &Config, listeners: &[Listener]) -> Result<Vec<ListenAddress>, CliError> {
    let given = listeners
        .iter()
        .filter(|listener| listener.lane() == Lane::Publishers);
    let given: io::Result<Vec<_>> = given.map(Listener::local_addr).collect();
    let mut lanes = given.map_err(CliError::failure)?;
    lanes.extend_from_slice(&config.server.publish_listen);
    Ok(lanes)
}

/// Raises the soft limit of descriptors to the hard one, and lowers the number of connections
/// to what that allows, with so many `lanes` of publishers.
fn fit_descriptors(config: &mut Config, lanes: usize) -> Result<(), CliError> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // What is not granted shows in the limit that is read next.
        let _ = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: limit.maximum,
                ..limit
            },
        );
    }
    let Some(descriptors) = getrlimit(Resource::Nofile).current else {
        return Ok(());
    };
    let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
    let publishers = match lanes {
        0 => 0,
        _ => config.server.limits.publishers_max + SPARE_CONNECTIONS,
    };
    let listeners = config.server.listen.len() + lanes;
    let reserved = DESCRIPTORS_RESERVED + SPARE_CONNECTIONS + listeners + publishers;
    let connections_max = descriptors.saturating_sub(reserved);
    if connections_max == 0 {
        return Err(CliError::failure(format!(
            "{descriptors} descriptors are too few: {} are needed (ulimit -n)",
            reserved + 1
        )));
    }
    let wanted = &mut config.server.limits.connections_max;
    if *wanted > connections_max {
        warn!(
            "{descriptors} descriptors allow {connections_max} connections, not {wanted} (ulimit -n)"
        );
        *wanted = connections_max;
    }
    Ok(())
}
