//! A file system in memory for tests: it fails where it is told to, loses what wasn't synced, and stops in the
//! middle of a call as if the process were killed.
//!
//! Main type: [`SimulatedDisk`], of which [`SimulatedStorage`] is what a process sees. Each call that changes
//! something is counted, so that a test can try every place of a scenario.

use std::cell::{RefCell, RefMut};
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use fastrand::Rng;

use super::record::BootMark;
use super::storage::{Side, Storage};
use crate::handover::Members;

/// What is there while processes come and go; clones are the same disk.
#[derive(Clone, Default)]
pub struct SimulatedDisk(Rc<RefCell<Disk>>);

/// What one process does with the disk; it ends with the process.
pub struct SimulatedStorage {
    disk: SimulatedDisk,
    /// Its process is killed once the disk has another one.
    process: u64,
}

#[derive(Default)]
struct Disk {
    segments: [File; 2],
    mark: File,
    boots: u64,
    processes: u64,
    /// Calls that changed something, or were to, since the process began.
    calls: u64,
    /// Those that fail.
    failing: Range<u64>,
    /// How much of itself a call does that fails or in which the process is killed.
    done_bytes: usize,
    /// The call in which the process is killed.
    killed_at: Option<u64>,
    is_killed: bool,
}

/// A file as processes see it, and as it is after a crash of the machine. `None` where there is none.
#[derive(Default)]
struct File {
    cached: Option<Vec<u8>>,
    synced: Option<Vec<u8>>,
}

impl File {
    fn bytes(&mut self) -> &mut Vec<u8> {
        self.cached.get_or_insert_default()
    }

    /// What a crash of the machine leaves: the one, the other, or something between.
    fn lose(&mut self, rng: &mut Rng) {
        if self.cached != self.synced {
            match (rng.u8(..4), &mut self.cached) {
                (0, _) => {}
                (1, Some(cached)) => cached.truncate(rng.usize(..=cached.len())),
                (2, Some(cached)) => {
                    // Its length was written, its last bytes weren't.
                    let from = rng.usize(..=cached.len());
                    cached[from..].fill(0);
                }
                _ => self.cached = self.synced.clone(),
            }
        }
        self.synced.clone_from(&self.cached);
    }
}

impl SimulatedDisk {
    /// A new process: its storage and the mark of the boot that it is in. Another one is gone by then.
    #[must_use]
    pub fn start(&self) -> (Box<dyn Storage>, BootMark) {
        let mut disk = self.disk();
        disk.processes += 1;
        disk.calls = 0;
        disk.failing = 0..0;
        disk.killed_at = None;
        disk.is_killed = false;
        let storage = SimulatedStorage {
            disk: self.clone(),
            process: disk.processes,
        };
        let mut boot = BootMark::default();
        boot[..8].copy_from_slice(&disk.boots.to_le_bytes());
        (Box::new(storage), boot)
    }

    /// The same process once more, which has become another program: its calls go on being counted, and fail as they
    /// were told to.
    #[must_use]
    pub fn again(&self) -> Box<dyn Storage> {
        Box::new(SimulatedStorage {
            disk: self.clone(),
            process: self.disk().processes,
        })
    }

    /// The process is killed in its call number `call`, which has done `done_bytes` of its work.
    pub fn kill_at(&self, call: u64, done_bytes: usize) {
        let mut disk = self.disk();
        disk.killed_at = Some(call);
        disk.done_bytes = done_bytes;
    }

    /// The process's calls with these numbers fail, with `done_bytes` of their work done.
    pub fn fail(&self, calls: Range<u64>, done_bytes: usize) {
        let mut disk = self.disk();
        disk.failing = calls;
        disk.done_bytes = done_bytes;
    }

    /// Whether the process was killed by [`Self::kill_at`].
    #[must_use]
    pub fn is_killed(&self) -> bool {
        self.disk().is_killed
    }

    /// How many calls the process has made that change something.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.disk().calls
    }

    /// The machine crashes, or is switched off, and starts again.
    pub fn reboot(&self, rng: &mut Rng) {
        let mut disk = self.disk();
        disk.boots += 1;
        disk.is_killed = true;
        let Disk { segments, mark, .. } = &mut *disk;
        for file in segments.iter_mut().chain([mark]) {
            file.lose(rng);
        }
    }

    /// The bytes of a segment, to be looked at or damaged.
    #[must_use]
    pub fn segment(&self, side: Side) -> RefMut<'_, Vec<u8>> {
        RefMut::map(self.disk(), |disk| disk.segments[side as usize].bytes())
    }

    /// The mark of a clean end, likewise.
    #[must_use]
    pub fn mark(&self) -> RefMut<'_, Option<Vec<u8>>> {
        RefMut::map(self.disk(), |disk| &mut disk.mark.cached)
    }

    fn disk(&self) -> RefMut<'_, Disk> {
        self.0.borrow_mut()
    }
}

impl Disk {
    /// Of `bytes` that a call writes, those that it does write; and whether it returns as it should.
    fn call<'a>(&mut self, bytes: &'a [u8]) -> (&'a [u8], io::Result<()>) {
        if self.is_killed {
            return (&[], Err(io::ErrorKind::BrokenPipe.into()));
        }
        let call = self.calls;
        self.calls += 1;
        self.is_killed = self.killed_at == Some(call);
        if self.is_killed || self.failing.contains(&call) {
            let done = &bytes[..self.done_bytes.min(bytes.len())];
            return (done, Err(io::ErrorKind::StorageFull.into()));
        }
        (bytes, Ok(()))
    }
}

impl SimulatedStorage {
    fn disk(&self) -> io::Result<RefMut<'_, Disk>> {
        let disk = self.disk.disk();
        if disk.processes == self.process && !disk.is_killed {
            Ok(disk)
        } else {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }
}

/// For calls that do their work whole or not at all.
const WHOLE: &[u8] = &[0];

impl Storage for SimulatedStorage {
    fn read(&mut self, side: Side) -> io::Result<Vec<u8>> {
        Ok(self.disk()?.segments[side as usize].bytes().clone())
    }

    fn length(&self, side: Side) -> io::Result<u64> {
        Ok(self.disk()?.segments[side as usize].bytes().len() as u64)
    }

    fn append(&mut self, side: Side, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.disk()?;
        let (done, result) = disk.call(bytes);
        disk.segments[side as usize].bytes().extend_from_slice(done);
        result
    }

    fn truncate(&mut self, side: Side, length: u64) -> io::Result<()> {
        let mut disk = self.disk()?;
        let (done, result) = disk.call(WHOLE);
        if result.is_ok() || (disk.is_killed && !done.is_empty()) {
            disk.segments[side as usize]
                .bytes()
                .truncate(length as usize);
        }
        result
    }

    fn sync(&mut self, side: Side) -> io::Result<()> {
        let mut disk = self.disk()?;
        let (_, result) = disk.call(WHOLE);
        if result.is_ok() {
            let file = &mut disk.segments[side as usize];
            file.synced.clone_from(&file.cached);
        }
        result
    }

    fn read_mark(&mut self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.disk()?.mark.cached.clone())
    }

    fn write_mark(&mut self, mark: &[u8]) -> io::Result<()> {
        let mut disk = self.disk()?;
        let (done, result) = disk.call(mark);
        disk.mark.cached = Some(done.to_vec());
        if result.is_ok() {
            disk.mark.synced = Some(done.to_vec());
        }
        result
    }

    fn remove_mark(&mut self) -> io::Result<()> {
        let mut disk = self.disk()?;
        let (done, result) = disk.call(WHOLE);
        if !done.is_empty() {
            disk.mark.cached = None;
        }
        if result.is_ok() {
            disk.mark.synced = None;
        }
        result
    }

    fn remove(&mut self, side: Side) -> io::Result<()> {
        self.truncate(side, 0)
    }

    fn forget_boot(&mut self) -> io::Result<()> {
        let mut disk = self.disk()?;
        let (_, result) = disk.call(WHOLE);
        // Only that of later starts, which have no proof then.
        disk.boots += u64::from(result.is_ok());
        result
    }

    fn save(&self, _members: &mut Members<'_>) {
        let Self {
            // A test has it.
            disk: _,
            // The process stays what it is.
            process: _,
        } = self;
    }

    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }
}
