//! `limit server`: the floor. It speaks just enough of the protocol to be measured like any other
//! server, and makes only the system calls that the task can't do without.

mod fault;
mod floor;
mod history;

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddrV4};

use crate::options::Options;
use crate::publisher::Kind;
use crate::system;

use fault::{Fault, HandoverFault};

/// Says that it is the successor of the process that it was; nobody else gives it.
const SUCCESSOR: &str = "--successor";

/// What a connection with one channel, and an entry of 200 bytes, take of crieur's state.
const CONNECTION_BYTES: usize = 140;
const ENTRY_BYTES: usize = 255;

/// How long the floor waits for more notifications of ephemeral publishers.
const GATHER_MS: &str = "1";

/// The arguments that start it; the address follows.
pub(crate) fn arguments(options: &Options) -> Vec<String> {
    let mut arguments = vec!["limit", "server"];
    // Notifications on connections of their own come one by one; the least that they can cost is
    // what they cost when all that are under way are written at once.
    if options.publisher == Kind::Ephemeral && options.in_flight > 1 {
        arguments.extend(["--gather-ms", GATHER_MS]);
    }
    if options.clients > 0 || options.numbered > 0 {
        arguments.push("--history");
    }
    arguments.push("--listen");
    arguments.into_iter().map(str::to_owned).collect()
}

const HELP: &str = "\
Usage: load limit server --listen ADDRESS [OPTIONS]

The floor: a server that makes only the system calls that the task can't do without. It knows one
channel a connection, keeps no limits, checks nothing and frees nothing that could be used again.
`load limit COMMAND` starts one for the run; by hand it can be told more:

  --listen ADDRESS       Where to listen, like 127.0.0.1:8000
  --batch HOW            Several notifications to a subscriber at once: writev, a segment for each,
                         as a server needs that shares frames; send, one copy of all [writev]
  --no-gather            Write after each look at the sockets, without looking for more first
  --gather-ms N          Write only when nothing has come for so long; costs latency, saves writes [0]
  --compute-accept       Compute the accept key instead of answering with the one of the sample
  --history              Keep everything that is published, give ids, and catch up clients that show one
  --fault KIND@N         Do wrong at the Nth notification, to its first recipient: lose, double,
                         swap or damage it; shows that the generator finds it
  --replay-fault KIND@N  The same at the Nth notification that clients are caught up with

On SIGUSR2 it becomes the program that it is, again, and keeps its connections:

  --keep HOW             Descriptors across exec: rights, in messages of a Unix socket (SCM_RIGHTS);
                         inheritance, by clearing FD_CLOEXEC and setting it again; epoll, the same
                         with the epoll too, so that no socket is registered again [rights]
  --connection-bytes N   What a connection takes of the state at least [140]
  --entry-bytes N        What a notification takes of it that was to be kept [255]
  --tell                 Say where the time of a handover goes, on the standard error
  --handover-fault KIND  Do wrong at each handover: refuse it; close a connection, forget what it
                         has subscribed to, swap it with another, or say something to it
";

/// How descriptors stay open across exec.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Keeping {
    /// They are sent to the successor.
    Rights,
    /// They aren't closed, and their numbers are in the state.
    Inheritance,
    /// The same, and the epoll that watches them isn't closed either.
    Epoll,
}

/// What the floor does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) listen: SocketAddrV4,
    pub(crate) is_one_copy: bool,
    pub(crate) gathers: bool,
    /// How long to wait for more input before deliveries are written.
    pub(crate) gather_ms: u64,
    pub(crate) computes_accept: bool,
    pub(crate) has_history: bool,
    pub(crate) fault: Option<Fault>,
    pub(crate) replay_fault: Option<Fault>,
    pub(crate) keeping: Keeping,
    /// How long records of the state are at least.
    pub(crate) connection_bytes: usize,
    pub(crate) entry_bytes: usize,
    pub(crate) is_telling: bool,
    pub(crate) handover_fault: Option<HandoverFault>,
    /// What it was before is in its standard input.
    pub(crate) is_successor: bool,
}

/// Serves until it is killed.
pub(crate) fn run(arguments: Vec<OsString>) -> Result<(), String> {
    let Some(settings) = read(arguments)? else {
        print!("{HELP}");
        return Ok(());
    };
    system::raise_descriptors();
    floor::serve(settings).map_err(|error| format!("{}: {error}", settings.listen))
}

fn read(arguments: Vec<OsString>) -> Result<Option<Settings>, String> {
    use lexopt::Arg::{Long, Short};
    use lexopt::ValueExt;
    let text = |error: lexopt::Error| error.to_string();
    let mut listen = None;
    let mut settings = Settings {
        listen: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0),
        is_one_copy: false,
        gathers: true,
        gather_ms: 0,
        computes_accept: false,
        has_history: false,
        fault: None,
        replay_fault: None,
        keeping: Keeping::Rights,
        connection_bytes: CONNECTION_BYTES,
        entry_bytes: ENTRY_BYTES,
        is_telling: false,
        handover_fault: None,
        is_successor: false,
    };
    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser.next().map_err(text)? {
        match argument {
            Long("help") | Short('h') => return Ok(None),
            Long("listen") => {
                let value = parser.value().and_then(ValueExt::string).map_err(text)?;
                let address = value.parse().ok();
                listen = Some(address.ok_or_else(|| {
                    format!("--listen {value:?}: expected an address like 127.0.0.1:8000")
                })?);
            }
            Long("batch") => match &parser.value().map_err(text)?.to_string_lossy()[..] {
                "writev" => settings.is_one_copy = false,
                "send" => settings.is_one_copy = true,
                other => return Err(format!("--batch {other:?}: expected writev or send")),
            },
            Long("no-gather") => settings.gathers = false,
            Long("gather-ms") => {
                let value = parser.value().map_err(text)?;
                settings.gather_ms = value.parse().map_err(text)?;
            }
            Long("compute-accept") => settings.computes_accept = true,
            Long("history") => settings.has_history = true,
            Long("fault") => {
                let value = parser.value().and_then(ValueExt::string).map_err(text)?;
                settings.fault = Some(Fault::parse(&value)?);
            }
            Long("replay-fault") => {
                let value = parser.value().and_then(ValueExt::string).map_err(text)?;
                settings.replay_fault = Some(Fault::parse(&value)?);
            }
            Long("keep") => match &parser.value().map_err(text)?.to_string_lossy()[..] {
                "rights" => settings.keeping = Keeping::Rights,
                "inheritance" => settings.keeping = Keeping::Inheritance,
                "epoll" => settings.keeping = Keeping::Epoll,
                other => {
                    return Err(format!(
                        "--keep {other:?}: expected rights, inheritance or epoll"
                    ));
                }
            },
            Long("connection-bytes") => {
                let value = parser.value().map_err(text)?;
                settings.connection_bytes = value.parse().map_err(text)?;
            }
            Long("entry-bytes") => {
                let value = parser.value().map_err(text)?;
                settings.entry_bytes = value.parse().map_err(text)?;
            }
            Long("tell") => settings.is_telling = true,
            Long("handover-fault") => {
                let value = parser.value().and_then(ValueExt::string).map_err(text)?;
                settings.handover_fault = Some(HandoverFault::parse(&value)?);
            }
            Long(name) if name == &SUCCESSOR[2..] => settings.is_successor = true,
            other => return Err(other.unexpected().to_string()),
        }
    }
    settings.listen = listen.ok_or("--listen is missing: see load limit server --help")?;
    Ok(Some(settings))
}
