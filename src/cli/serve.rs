//! `crieur serve`: the server with its hub, its logs and its limits.

use std::ffi::OsString;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::{fmt, mem};

use log::{LevelFilter, info, warn};

use crate::application::Lane;
use crate::config::{Config, Console, ListenAddress};
use crate::handover::program::{self, Program};
use crate::handover::{StateError, signals};
use crate::hub::Hub;
use crate::hub::access::policy::Policy;
use crate::journal::Journal;
use crate::journal::id::Generation;
use crate::memory;
use crate::metrics::LOG_LINES_DROPPED;
use crate::net::engine::Carried;
use crate::net::listener::Listener;
use crate::net::server::{Inherited, Server, Stopped, answer};
use crate::redis::Redis;
use crate::routes::Routes;

use super::error::CliError;
use super::handover::{self, Announce, Left, Process};
use super::logging::{LogWriter, read_level};
use super::notify::Notifier;
use super::output::print;
use super::reload::Reload;
use super::settings::{self, Wanted};
use super::trust::{self, Secrets};
use super::{activation, check, console_key, descriptors, history, redis, warnings};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How long the last lines of the log may take at the end.
const LOG_FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

pub(super) fn help() -> String {
    format!(
        "\
Usage: crieur [serve] [OPTIONS]

Runs the server until SIGTERM or SIGINT. On SIGHUP it reads its files again. On SIGUSR2 it does so
too, and then becomes the program that is at its path now, without closing a connection.

Every option is an environment variable too: CRIEUR_MAX_CONNECTIONS is --max-connections. The
command line wins. An unknown CRIEUR_ variable is an error. Defaults are in brackets, times in
seconds.

  --check                          Check the options, files and addresses that a start would use,
                                   and run no server; on the command line only
{}",
        settings::help()
    )
}

pub(super) fn run(arguments: Vec<OsString>) -> Result<ExitCode, CliError> {
    let config = match settings::read(arguments)? {
        Wanted::Help => return print(&help()),
        Wanted::Check(config) => return check::run(config),
        Wanted::Server(config) => config,
    };
    memory::fix_mmap_threshold();
    let predecessor = program::predecessor().map_err(StateError::Io);
    let inherited = predecessor.and_then(|found| found.map(Inherited::read).transpose());
    match inherited.map_err(cannot_take_over)? {
        Some(inherited) if inherited.is_trial() => rehearse(config, inherited),
        inherited => start(config, inherited),
    }
}

fn cannot_take_over(error: impl fmt::Display) -> CliError {
    CliError::failure(format!("cannot take over: {error}"))
}

/// Goes on from the state of another process in all but its sockets, and says whether this program could take over.
fn rehearse(mut config: Config, inherited: Inherited) -> Result<ExitCode, CliError> {
    let given = inherited.addresses();
    activation::replace_addresses(&mut config.server, given);
    let lanes = publish_lanes(&config, given);
    // The server that asks has said already that they are few.
    let _ = descriptors::fit(&mut config, lanes.len())?;
    let left = inherited.host().map_err(cannot_take_over)?;
    if let Some(directory) = handover::directory(&left).map_err(cannot_take_over)? {
        history::check_carried(&directory).map_err(cannot_take_over)?;
    }
    let left = Left::restore(&left).map_err(cannot_take_over)?;
    let secrets = left.secrets.read(&config)?;
    let policy = trust::read_policy(&config, &secrets, &lanes)?;
    let (redis, _) = open_redis(&config, &secrets, &left.redis_addresses)?;
    let journal = empty_journal(&config, redis.is_some(), Generation(draw()?));
    let hub = new_hub(&config, policy, journal, redis);
    let application = Routes::new(hub, config.console);
    let carried = inherited.rehearse(&config.server, application);
    let Carried { connections, lost } = carried.map_err(cannot_take_over)?;
    print(&answer(VERSION, connections, connections + lost))
}

fn start(mut config: Config, inherited: Option<Inherited>) -> Result<ExitCode, CliError> {
    let mut start = match inherited {
        Some(inherited) => Start::inherited(inherited)?,
        None => Start::afresh(&config)?,
    };
    activation::replace_addresses(&mut config.server, &start.given);
    // The log's thread never takes a signal. A successor lets them through when it has handlers, as its predecessor
    // can't any more.
    signals::block().map_err(CliError::failure)?;
    let lines = mem::take(&mut start.lines);
    let logs = Rc::new(LogWriter::start(start.level, config.log_format, lines)?);
    if start.inherited.is_none() {
        signals::unblock().map_err(CliError::failure)?;
    }
    let result = serve(&mut config, start, &logs);
    logs.flush(LOG_FLUSH_TIMEOUT);
    match result? {
        Stopped::Drained => Ok(ExitCode::SUCCESS),
        Stopped::Forced(signal) => Ok(ExitCode::from(128 + signal as u8)),
    }
}

/// What a server begins with.
struct Start {
    level: LevelFilter,
    /// Lines of the log that another program has left.
    lines: Vec<u8>,
    secrets: Secrets,
    /// Where the names of Redis have led.
    redis_addresses: String,
    /// Sockets that are there already, and where they listen.
    listeners: Vec<Listener>,
    given: Vec<(ListenAddress, Lane)>,
    inherited: Option<Inherited>,
}

impl Start {
    fn afresh(config: &Config) -> Result<Self, CliError> {
        let listeners = activation::take_listeners()?;
        Ok(Self {
            level: read_level(&config.log)?,
            lines: Vec::new(),
            secrets: Secrets::default(),
            redis_addresses: String::new(),
            given: activation::addresses(&listeners)?,
            listeners,
            inherited: None,
        })
    }

    fn inherited(inherited: Inherited) -> Result<Self, CliError> {
        let left = inherited.host().and_then(|left| Left::restore(&left));
        let Left {
            level,
            lines,
            lines_dropped,
            secrets,
            redis_addresses,
        } = left.map_err(cannot_take_over)?;
        LOG_LINES_DROPPED.store(lines_dropped, Ordering::Relaxed);
        Ok(Self {
            level,
            lines,
            secrets,
            redis_addresses,
            // They are with the rest of what is inherited.
            listeners: Vec::new(),
            given: inherited.addresses().to_vec(),
            inherited: Some(inherited),
        })
    }
}

fn serve(config: &mut Config, start: Start, logs: &Rc<LogWriter>) -> Result<Stopped, CliError> {
    check::refuse_double(&config.server)?;
    let lanes = publish_lanes(config, &start.given);
    let fewer = descriptors::fit(config, lanes.len())?;
    let mut secrets = start.secrets.read(config)?;
    let mut fresh_key = None;
    if secrets.console_key.is_none() {
        fresh_key = console_key::draw(config)?;
        secrets.console_key.clone_from(&fresh_key);
    }
    let policy = trust::read_policy(config, &secrets, &lanes)?;
    let mut warnings = warnings::of_settings(config, &policy);
    warnings.extend(fewer);
    let (redis, redis_addresses) = open_redis(config, &secrets, &start.redis_addresses)?;
    let reload = Rc::new(Reload::new(config, secrets));
    let generation = Generation(draw()?);
    let mut inherited = start.inherited;
    let mut journal = empty_journal(config, redis.is_some(), generation);
    if let Some(inherited) = &mut inherited {
        journal = go_on(config, inherited, journal)?;
    }
    let mut hub = new_hub(config, policy, journal, redis);
    if inherited.is_none() {
        hub = history::open(config, hub, generation)?;
    }
    let again = Rc::clone(&reload);
    let hub = hub.with_reload(move |policy, redis| again.run(policy, redis));
    let write_ahead = hub.journal().write_ahead().cloned();
    let process = Process {
        notifier: Notifier::from_environment(),
        logs: Rc::clone(logs),
        reload,
        write_ahead: write_ahead.clone(),
        redis_addresses,
        left_lines: Vec::new(),
        fresh_key,
        announce: announce(config, warnings),
    };
    let application = Routes::new(hub, config.console);
    let seed = draw()?;
    let server = match inherited {
        Some(inherited) => Server::inherit(inherited, &config.server, application, seed),
        None => Server::bind_beside(start.listeners, &config.server, application, seed),
    };
    let server = server.map_err(CliError::failure)?;
    let result = run_server(server, process);
    if let Some(write_ahead) = write_ahead {
        write_ahead.close();
    }
    result
}

/// The Redis that is shared with other servers, if one is, and where its names have led, of which `known` is known.
fn open_redis(
    config: &Config,
    secrets: &Secrets,
    known: &str,
) -> Result<(Option<Redis>, String), CliError> {
    let Some(wanted) = redis::read(config, secrets)? else {
        return Ok((None, String::new()));
    };
    let (redis, found) = wanted.resolve(known, draw()?)?;
    Ok((Some(redis), found))
}

fn new_hub(config: &Config, policy: Policy, journal: Journal, redis: Option<Redis>) -> Hub {
    let ping_interval = config.server.timeouts.ping_interval;
    let hub = Hub::new(config.hub, ping_interval, policy, journal);
    match redis {
        Some(redis) => hub.with_redis(redis),
        None => hub,
    }
}

fn empty_journal(config: &Config, is_shared: bool, generation: Generation) -> Journal {
    if is_shared {
        Journal::of_stream(config.history)
    } else {
        Journal::new(config.history, generation)
    }
}

/// The history with its directory, if the program before had one.
fn go_on(
    config: &Config,
    inherited: &mut Inherited,
    journal: Journal,
) -> Result<Journal, CliError> {
    let left = inherited.host().map_err(cannot_take_over)?;
    if handover::directory(&left)
        .map_err(cannot_take_over)?
        .is_none()
    {
        return Ok(journal);
    }
    let descriptors = inherited.take_descriptors().map_err(cannot_take_over)?;
    let left = inherited.host().map_err(cannot_take_over)?;
    let directory = handover::directory(&left).map_err(cannot_take_over)?;
    let write_ahead = directory.map(|directory| history::go_on(config, &directory, descriptors));
    Ok(match write_ahead.transpose()? {
        Some(write_ahead) => journal.kept_in(write_ahead),
        None => journal,
    })
}

fn run_server(mut server: Server<Routes>, mut process: Process) -> Result<Stopped, CliError> {
    // Ahead of the line that says it listens, since a signal may come from then on. Without a path this one serves as well,
    // but can't be replaced.
    match Program::of_this_process() {
        Ok(program) => server = server.with_program(program).map_err(CliError::failure)?,
        Err(error) => warn!(
            "SIGUSR2 would end this program instead of upgrading it, because its path is unknown: {error}"
        ),
    }
    server.run(&mut process).map_err(CliError::failure)
}

/// What is said once it listens.
fn announce(config: &Config, warnings: Vec<String>) -> Announce {
    let limits = config.server.limits;
    let trust = config.trust.clone();
    let has_console = config.console != Console::Off;
    Box::new(move |addresses| {
        for (address, lane) in addresses {
            match lane {
                Lane::Clients => info!("listening on {address}"),
                Lane::Publishers => info!("listening for publishers on {address}"),
            }
            if let (Lane::Clients, ListenAddress::Tcp(address)) = (lane, address)
                && has_console
            {
                info!("the console is at {}", console_key::url(*address));
            }
        }
        info!(
            "crieur {}: at most {} connections, {} bytes a send queue, {} bytes in all buffers",
            VERSION, limits.connections_max, limits.send_queue_bytes_max, limits.buffer_bytes_max
        );
        let clients = addresses.iter().filter_map(|address| match address {
            (ListenAddress::Tcp(address), Lane::Clients) => Some(*address),
            _ => None,
        });
        let open = warnings::of_addresses(&trust, clients);
        for warning in warnings.iter().chain(&open) {
            warn!("{warning}");
        }
    })
}

/// A random number.
fn draw() -> Result<u64, CliError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)
        .map_err(|error| CliError::failure(format!("the system has no random numbers: {error}")))?;
    Ok(u64::from_ne_bytes(bytes))
}

/// The addresses of publishers alone: of the sockets that were given, and of those that are yet to be made.
fn publish_lanes(config: &Config, given: &[(ListenAddress, Lane)]) -> Vec<ListenAddress> {
    let given = given.iter().filter(|(_, lane)| *lane == Lane::Publishers);
    let given = given.map(|(address, _)| address);
    given
        .chain(&config.server.publish_listen)
        .cloned()
        .collect()
}
