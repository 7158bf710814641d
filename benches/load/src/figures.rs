//! What the system says about processes and cores, and what follows from it: what a span of time
//! cost the server, and what limited it.

use std::fs;
use std::ops::AddAssign;

use crate::poller::Poller;
use crate::server::Server;
use crate::system::now_ns;

/// What others may have of cores that several processes of the run share, where waiting for each other is no disturbance;
/// ticks are no more exact.
const OTHERS_MAX: f64 = 0.08;

/// A server that is less busy than this is not the limit.
const BUSY_MIN: f64 = 0.9;

/// Shares of the time beyond which others disturbed the measurement: waiting for a core that
/// somebody else has, and time that the hypervisor took.
const WAITING_MAX: f64 = 0.03;
const STOLEN_MAX: f64 = 0.02;

/// USER_HZ, in which `/proc/stat` counts on Linux.
const TICKS_A_SECOND: f64 = 100.0;

/// A moment.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    at_ns: u64,
    /// The server's nodes; mostly it is one.
    nodes: Vec<Process>,
    redis: Process,
    own: Process,
    own_busy_ns: u64,
    /// Of nodes and Redis.
    server_cores: Vec<Core>,
    own_core: Core,
    is_own_core_shared: bool,
    is_shared: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Process {
    cpu_ns: u64,
    /// Ready to run, while others ran.
    waiting_ns: u64,
    involuntary_switches: u64,
}

/// Ticks of a core.
#[derive(Clone, Copy, Debug, Default)]
struct Core {
    busy: u64,
    stolen: u64,
}

/// What is needed to take snapshots.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    pub(crate) node_pids: Vec<u32>,
    pub(crate) redis_pid: Option<u32>,
    /// Of nodes and Redis, each once.
    pub(crate) server_cores: Vec<usize>,
    pub(crate) own_core: usize,
    /// This program runs on all cores.
    pub(crate) is_own_shared: bool,
}

impl Meter {
    /// Takes one.
    pub(crate) fn snapshot(&self, poller: &Poller) -> Result<Snapshot, String> {
        let process_of = |&pid: &u32| {
            let found = process(&pid.to_string());
            found.ok_or_else(|| format!("the server (process {pid}) is gone"))
        };
        let is_own_core_shared = self.is_own_shared || self.server_cores.contains(&self.own_core);
        let processes = self.node_pids.len() + usize::from(self.redis_pid.is_some());
        let cores = self.server_cores.iter();
        Ok(Snapshot {
            at_ns: now_ns(),
            nodes: self
                .node_pids
                .iter()
                .map(process_of)
                .collect::<Result<_, _>>()?,
            redis: self
                .redis_pid
                .as_ref()
                .map_or_else(|| Ok(Process::default()), process_of)?,
            own: process("self").unwrap_or_default(),
            own_busy_ns: poller.busy_ns(),
            server_cores: cores
                .map(|&number| core(number).unwrap_or_default())
                .collect(),
            own_core: core(self.own_core).unwrap_or_default(),
            is_own_core_shared,
            is_shared: self.is_own_shared
                || processes > self.server_cores.len()
                || (is_own_core_shared && processes > 1),
        })
    }
}

/// All threads of a process together.
fn process(pid: &str) -> Option<Process> {
    let mut sum = Process::default();
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let folder = thread.ok()?.path();
        // A thread may end while the others are looked at.
        let Ok(times) = fs::read_to_string(folder.join("schedstat")) else {
            continue;
        };
        let mut times = times.split_whitespace().map_while(|word| word.parse().ok());
        sum.cpu_ns += times.next().unwrap_or(0);
        sum.waiting_ns += times.next().unwrap_or(0);
        let status = fs::read_to_string(folder.join("status")).unwrap_or_default();
        sum.involuntary_switches += field(&status, "nonvoluntary_ctxt_switches:").unwrap_or(0);
    }
    Some(sum)
}

/// The number behind a name in a file of `/proc`.
fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

fn core(number: usize) -> Option<Core> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let rest = stat
        .lines()
        .find_map(|line| line.strip_prefix(&format!("cpu{number} ")))?;
    // user nice system idle iowait irq softirq steal
    let ticks: Vec<u64> = rest
        .split_whitespace()
        .map_while(|word| word.parse().ok())
        .collect();
    let busy = ticks.iter().take(7).sum::<u64>() - ticks.get(3..5)?.iter().sum::<u64>();
    let stolen = *ticks.get(7)?;
    Some(Core { busy, stolen })
}

/// Resident memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    pub(crate) anonymous: u64,
    pub(crate) resident: u64,
}

impl AddAssign for Memory {
    fn add_assign(&mut self, other: Self) {
        self.anonymous += other.anonymous;
        self.resident += other.resident;
    }
}

/// How much memory a process has now.
pub(crate) fn memory(server: &Server) -> Result<Memory, String> {
    memory_of(server.pid)
}

/// The same of several processes together: what they share counts once, memory that they share
/// by intent as anonymous.
pub(crate) fn memory_of_all(pids: &[u32]) -> Result<Memory, String> {
    if let [pid] = pids {
        return memory_of(*pid);
    }
    let mut sum = Memory::default();
    for pid in pids {
        let path = format!("/proc/{pid}/smaps_rollup");
        let rollup = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let kib = |name| field(&rollup, name).map_or(0, |kib| kib * 1024);
        sum += Memory {
            anonymous: kib("Pss_Anon:") + kib("Pss_Shmem:"),
            resident: kib("Pss:"),
        };
    }
    Ok(sum)
}

/// The same of any process.
pub(crate) fn memory_of(pid: u32) -> Result<Memory, String> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let kib = |name| field(&status, name).map_or(0, |kib| kib * 1024);
    Ok(Memory {
        anonymous: kib("RssAnon:"),
        resident: kib("VmRSS:"),
    })
}

/// What lies between two snapshots.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) seconds: f64,
    pub(crate) server_cpu_us: f64,
    pub(crate) server_busy: f64,
    /// The share of the time in which the server could have run, and somebody else did.
    pub(crate) server_waiting: f64,
    pub(crate) server_involuntary_switches: u64,
    pub(crate) generator_busy: f64,
    pub(crate) generator_waiting: f64,
    /// Of the server's cores, what nothing of the run had, as a share; exact to a few hundredths.
    pub(crate) core_others: f64,
    pub(crate) stolen: f64,
    /// Processes of the run share a core, so that they wait for each other.
    pub(crate) is_shared: bool,
}

/// What each part of a server with several nodes, or with a Redis, had of the time.
#[derive(Clone, Debug)]
pub(crate) struct Shares {
    pub(crate) node_cpu_us: Vec<f64>,
    pub(crate) redis_cpu_us: f64,
}

impl Shares {
    /// From `start` to `end`.
    pub(crate) fn between(start: &Snapshot, end: &Snapshot) -> Self {
        let cpu =
            |(from, to): (&Process, &Process)| to.cpu_ns.saturating_sub(from.cpu_ns) as f64 / 1e3;
        Self {
            node_cpu_us: start.nodes.iter().zip(&end.nodes).map(cpu).collect(),
            redis_cpu_us: cpu((&start.redis, &end.redis)),
        }
    }
}

impl Span {
    /// From `start` to `end`.
    pub(crate) fn between(start: &Snapshot, end: &Snapshot) -> Self {
        let wall_ns = (end.at_ns - start.at_ns).max(1) as f64;
        let share = |from: u64, to: u64| to.saturating_sub(from) as f64 / wall_ns;
        let ticks =
            |from: u64, to: u64| to.saturating_sub(from) as f64 / TICKS_A_SECOND / (wall_ns / 1e9);
        // The busiest node is the one that limits.
        let most = |of: fn(&Process) -> u64| {
            let nodes = start.nodes.iter().zip(&end.nodes);
            nodes.fold(0.0, |most: f64, (from, to)| {
                most.max(share(of(from), of(to)))
            })
        };
        let Shares {
            node_cpu_us,
            redis_cpu_us,
        } = Shares::between(start, end);
        let server_cpu_us: f64 = node_cpu_us.iter().sum();
        let own = match end.is_own_core_shared {
            true => share(start.own.cpu_ns, end.own.cpu_ns),
            false => 0.0,
        };
        let ours = (server_cpu_us + redis_cpu_us) * 1e3 / wall_ns + own;
        let cores = || start.server_cores.iter().zip(&end.server_cores);
        let core_busy: f64 = cores().map(|(from, to)| ticks(from.busy, to.busy)).sum();
        let stolen_own = ticks(start.own_core.stolen, end.own_core.stolen);
        let stolen = cores().map(|(from, to)| ticks(from.stolen, to.stolen));
        let switches = |nodes: &[Process]| {
            nodes
                .iter()
                .map(|node| node.involuntary_switches)
                .sum::<u64>()
        };
        Self {
            seconds: wall_ns / 1e9,
            server_cpu_us,
            // Processes that have one core between them keep it busy together.
            server_busy: match start.server_cores.len() {
                1 => server_cpu_us * 1e3 / wall_ns,
                _ => most(|node| node.cpu_ns),
            },
            server_waiting: most(|node| node.waiting_ns),
            server_involuntary_switches: switches(&end.nodes)
                .saturating_sub(switches(&start.nodes)),
            generator_busy: share(start.own_busy_ns, end.own_busy_ns),
            generator_waiting: share(start.own.waiting_ns, end.own.waiting_ns),
            core_others: (core_busy - ours).max(0.0),
            stolen: stolen.fold(stolen_own, f64::max),
            is_shared: end.is_shared,
        }
    }

    /// What kept the numbers from being better, in one word. `idle` is what it is called when
    /// nobody was busy: the window, or the rate.
    pub(crate) fn limited_by(&self, idle: &'static str) -> &'static str {
        let is_disturbed = self.stolen > STOLEN_MAX
            || if self.is_shared {
                self.core_others > OTHERS_MAX
            } else {
                self.server_waiting > WAITING_MAX || self.generator_waiting > WAITING_MAX
            };
        if is_disturbed {
            "noise"
        } else if self.generator_busy > BUSY_MIN {
            "generator"
        } else if self.server_busy >= BUSY_MIN {
            "server"
        } else {
            idle
        }
    }
}

/// Words for a human about [`Span::limited_by`].
pub(crate) fn explain(limited_by: &str) -> &'static str {
    match limited_by {
        "noise" => "NOISE: others ran on these cores; repeat when the machine is quiet",
        "generator" => "THE GENERATOR: what the server could do was not reached; CPU figures hold",
        "server" => "the server",
        "rate" => "the rate that was asked for",
        _ => "the window: neither side was busy all the time; CPU figures hold",
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_system_tells_about_a_busy_process() {
        // Not our own: the threads of other tests come and go, and take their time with them.
        let mut busy = Command::new("sh")
            .args(["-c", "while :; do :; done"])
            .spawn()
            .expect("there is a shell");
        let pid = busy.id().to_string();
        let first = process(&pid).expect("it runs");
        let deadline = now_ns() + 10_000_000_000;
        while process(&pid).expect("it runs").cpu_ns <= first.cpu_ns {
            assert!(now_ns() < deadline, "it is busy, and seems not to be");
        }
        busy.kill().expect("it runs");
        busy.wait().expect("it is our child");
        assert!(core(0).is_some());
        assert!(process("0").is_none());
    }

    #[test]
    fn processes_are_added_up() {
        let pids = ["1", "2"].map(|_| {
            let child = Command::new("cat")
                .stdin(std::process::Stdio::piped())
                .spawn();
            child.expect("there is a cat")
        });
        let of = |pids: &[u32]| memory_of_all(pids).expect("they run");
        let [one, other] = [pids[0].id(), pids[1].id()];
        // The second may have just been forked.
        let deadline = now_ns() + 10_000_000_000;
        while of(&[one, other]).anonymous <= of(&[one]).anonymous {
            assert!(now_ns() < deadline, "two have no more than one");
        }
        for mut child in pids {
            child.kill().expect("it runs");
            child.wait().expect("it is our child");
        }
        assert!(memory_of_all(&[one, other]).is_err());
    }

    #[test]
    fn the_limit_is_named() {
        let quiet = Span {
            seconds: 1.0,
            server_cpu_us: 0.0,
            server_busy: 0.5,
            server_waiting: 0.0,
            server_involuntary_switches: 0,
            generator_busy: 0.5,
            generator_waiting: 0.0,
            core_others: 0.0,
            stolen: 0.0,
            is_shared: false,
        };
        let busy_server = Span {
            server_busy: 0.95,
            ..quiet
        };
        let busy_generator = Span {
            generator_busy: 0.95,
            ..busy_server
        };
        let noisy = Span {
            server_waiting: 0.1,
            ..busy_server
        };
        let stolen = Span {
            stolen: 0.1,
            ..busy_server
        };
        let shared = Span {
            is_shared: true,
            ..noisy
        };
        let crowded = Span {
            core_others: 0.2,
            ..shared
        };
        for (span, word) in [
            (quiet, "window"),
            (busy_server, "server"),
            (busy_generator, "generator"),
            (noisy, "noise"),
            (stolen, "noise"),
            (shared, "server"),
            (crowded, "noise"),
        ] {
            assert_eq!(span.limited_by("window"), word, "{span:?}");
        }
    }
}
