//! What is asked of the operating system: cores, descriptors, clocks.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of the monotonic clock.
pub(crate) fn now_ns() -> u64 {
    clock_ns(ClockId::Monotonic)
}

/// Nanoseconds for which this thread has run.
pub(crate) fn thread_cpu_ns() -> u64 {
    clock_ns(ClockId::ThreadCPUTime)
}

fn clock_ns(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Keeps this thread, and what it starts from now on, on one core.
pub(crate) fn pin_to(core: usize) -> io::Result<()> {
    run_on(&[core])
}

/// Keeps this thread, and what it starts from now on, on some cores.
pub(crate) fn run_on(cores: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    cores.iter().for_each(|&core| set.set(core));
    sched_setaffinity(None, &set)
        .map_err(|error| io::Error::other(format!("cannot run on cores {cores:?}: {error}")))
}

/// The cores on which a process may run, this one without a `pid`.
pub(crate) fn allowed_cores(pid: Option<u32>) -> Vec<usize> {
    let pid = pid.and_then(|pid| Pid::from_raw(pid.cast_signed()));
    let Ok(set) = sched_getaffinity(pid) else {
        return Vec::new();
    };
    (0..CpuSet::MAX_CPU)
        .filter(|&core| set.is_set(core))
        .collect()
}

/// Raises the soft limit of descriptors to the hard one, and says what it is then.
pub(crate) fn raise_descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile);
    // What is not granted shows in the limit that is read next.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    );
    let granted = getrlimit(Resource::Nofile).current;
    granted.map_or(usize::MAX, |granted| {
        usize::try_from(granted).unwrap_or(usize::MAX)
    })
}
