//! What two programs in a process, and its child, have at most: looked at again and again, since exec forgets the
//! kernel's own high-water mark.
//!
//! A state is in a file in memory that no process has mapped; it is found by what all such memory of the machine grows by.

use std::fs;

/// Between two looks.
const INTERVAL_NS: u64 = 500_000;

const PAGE_BYTES: u64 = 4096;

/// What there was at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Usage {
    /// Anonymous memory of the process, and of its children.
    pub(super) own: u64,
    pub(super) children: u64,
    /// What the machine has in files in memory, beyond what it had before.
    pub(super) files: u64,
    /// Descriptors of the process; 0 where the kernel doesn't say (before Linux 6.2).
    pub(super) descriptors: u64,
}

impl Usage {
    pub(super) const fn bytes(&self) -> u64 {
        self.own + self.children + self.files
    }
}

/// Looks at one process.
pub(super) struct Sampler {
    pid: u32,
    files_before: u64,
    due_at: u64,
    first: Usage,
    peak: Usage,
}

impl Sampler {
    pub(super) fn new(pid: u32) -> Self {
        let mut sampler = Self {
            pid,
            files_before: files().unwrap_or(0),
            due_at: 0,
            first: Usage::default(),
            peak: Usage::default(),
        };
        sampler.first = sampler.look();
        sampler.peak = sampler.first;
        sampler
    }

    /// Takes a look, if that is due.
    pub(super) fn turn(&mut self, now: u64) {
        if now < self.due_at {
            return;
        }
        let usage = self.look();
        let descriptors = self.peak.descriptors.max(usage.descriptors);
        if usage.bytes() > self.peak.bytes() {
            self.peak = usage;
        }
        self.peak.descriptors = descriptors;
        self.due_at = now + INTERVAL_NS;
    }

    /// What there was at the beginning.
    pub(super) const fn first(&self) -> Usage {
        self.first
    }

    /// The moment with the most memory; the descriptors are the most at any moment.
    pub(super) const fn peak(&self) -> Usage {
        self.peak
    }

    fn look(&self) -> Usage {
        let pid = self.pid;
        let mut usage = Usage {
            own: anonymous(pid).unwrap_or(0),
            children: 0,
            files: files().unwrap_or(0).saturating_sub(self.files_before),
            descriptors: descriptors(pid),
        };
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.unwrap_or_default();
        let children = children.split_whitespace();
        for child in children.filter_map(|child| child.parse().ok()) {
            let statm = |pid| fs::read_to_string(format!("/proc/{pid}/statm")).ok();
            // Until it becomes a program a child has its parent's memory, who waits meanwhile.
            if statm(child) != statm(pid) {
                usage.children += anonymous(child).unwrap_or(0);
            }
        }
        usage
    }
}

/// Anonymous memory of a process.
fn anonymous(pid: u32) -> Option<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let mut pages = statm.split_whitespace().map_while(|word| word.parse().ok());
    let (_, resident, shared): (u64, u64, u64) = (pages.next()?, pages.next()?, pages.next()?);
    Some(resident.saturating_sub(shared) * PAGE_BYTES)
}

/// Memory of the machine that is in files that have no disk.
fn files() -> Option<u64> {
    let all = fs::read_to_string("/proc/meminfo").ok()?;
    let line = all.lines().find_map(|line| line.strip_prefix("Shmem:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

fn descriptors(pid: u32) -> u64 {
    fs::metadata(format!("/proc/{pid}/fd")).map_or(0, |folder| folder.len())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};

    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;

    #[test]
    fn memory_and_files_in_memory_are_seen() {
        const BYTES: u64 = 64 << 20;
        let mut sampler = Sampler::new(std::process::id());
        let held = vec![1_u8; BYTES as usize];
        let file = memfd_create("load-test", MemfdFlags::CLOEXEC).expect("memory");
        let mut file = fs::File::from(file);
        file.write_all(&held).expect("memory");
        sampler.turn(u64::MAX - INTERVAL_NS);
        let (first, peak) = (sampler.first(), sampler.peak());
        // The machine's other programs have their share in it.
        let is_grown = |before: u64, now: u64| now >= before + BYTES / 2;
        assert!(is_grown(first.own, peak.own), "{first:?}, {peak:?}");
        assert!(is_grown(0, peak.files), "{peak:?}");
        drop((file, held));
        sampler.turn(u64::MAX - INTERVAL_NS);
        assert_eq!(sampler.peak().own, peak.own);
    }

    #[test]
    fn a_child_is_seen() {
        // A shell that waits for another, which holds eight million letters.
        const SCRIPT: &str =
            "sh -c 'x=$(head -c 8000000 /dev/zero | tr \\\\0 x); echo ${#x}; read y'; true";
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("there is a shell");
        let mut line = String::new();
        let output = shell.stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut line).expect("text");
        assert_eq!(line, "8000000\n");
        let usage = Sampler::new(shell.id()).first();
        assert!(usage.children >= 8_000_000, "{usage:?}");
        assert!(usage.own < 8_000_000, "{usage:?}");
        drop(shell.stdin.take());
        shell.wait().expect("it is our child");
    }
}
