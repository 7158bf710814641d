//! What the system knows of the process. Asked when somebody wants to know, and only then.

use std::fs;

/// Bytes of memory that are resident, if the system says so.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// Descriptors that are open, if the system says so. Linux tells their number since 6.2; before, each
/// is looked at.
#[must_use]
pub fn open_descriptors() -> Option<u64> {
    let told = fs::metadata("/proc/self/fd").map_or(0, |folder| folder.len());
    if told > 0 {
        return Some(told);
    }
    let folder = fs::read_dir("/proc/self/fd").ok()?;
    // The one of the folder itself is none of ours.
    Some((folder.count() as u64).saturating_sub(1))
}
