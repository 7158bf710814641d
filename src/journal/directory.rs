//! The directory of the history: its files, for one process at a time.
//!
//! Owns which files there are and who may have them: `segment-0` and `segment-1`, `clean` (the mark of a clean end),
//! and `lock`. What is in them is decided by [`Segments`](super::segments::Segments). Main types: [`Directory`],
//! [`DirectoryError`]. Files are synced where [`Storage`] says so, and nowhere else.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::boot::Boot;
use super::storage::{Side, Storage};
use crate::handover::{Fields, Malformed, Members};

/// The one member of a directory that is saved: its boot.
const BOOT: u8 = 1;

/// Its owner's alone: what is in it is what clients may be told.
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

const LOCK: &str = "lock";
const MARK: &str = "clean";
const SEGMENTS: [&str; 2] = ["segment-0", "segment-1"];

/// An open directory, locked for this process.
pub struct Directory {
    path: PathBuf,
    /// What is in it changes; synced for that.
    directory: File,
    /// Both opened to append.
    segments: [File; 2],
    boot: Boot,
    /// Released when it is dropped, and when the process dies.
    lock: File,
}

/// Why a directory can't have the history.
#[derive(Debug)]
pub struct DirectoryError {
    path: PathBuf,
    fault: Fault,
}

#[derive(Debug)]
enum Fault {
    Io(io::Error),
    Locked,
}

impl fmt::Display for DirectoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.fault {
            Fault::Locked => write!(
                f,
                "another crieur uses {path}: give each a --history-directory of its own"
            ),
            Fault::Io(error) => match error.kind() {
                io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
                    write!(f, "cannot keep the history in {path}: not a directory")
                }
                io::ErrorKind::PermissionDenied => write!(
                    f,
                    "cannot keep the history in {path}: permission denied (it is written by the user that crieur runs as)"
                ),
                _ => write!(f, "cannot keep the history in {path}: {error}"),
            },
        }
    }
}

impl std::error::Error for DirectoryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.fault {
            Fault::Io(error) => Some(error),
            Fault::Locked => None,
        }
    }
}

impl Directory {
    /// Opens a directory, which is made if it is missing, for this process alone. `boot` is given up by it when its
    /// files can't be made invalid otherwise.
    ///
    /// # Errors
    /// [`DirectoryError`], which names the file.
    pub fn open(path: &Path, boot: Boot) -> Result<Self, DirectoryError> {
        let fault = |path: &Path, fault| DirectoryError {
            path: path.to_owned(),
            fault,
        };
        let io = |path: &Path, error| fault(path, Fault::Io(error));
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(DIRECTORY_MODE);
        builder.create(path).map_err(|error| io(path, error))?;
        let directory = File::open(path).map_err(|error| io(path, error))?;
        let open = |name: &str| {
            let file = path.join(name);
            open_to_append(&file).map_err(|error| io(&file, error))
        };
        let lock = open(LOCK)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            rustix::io::Errno::WOULDBLOCK => fault(path, Fault::Locked),
            error => io(&path.join(LOCK), error.into()),
        })?;
        Ok(Self {
            segments: [open(SEGMENTS[0])?, open(SEGMENTS[1])?],
            path: path.to_owned(),
            directory,
            boot,
            lock,
        })
    }

    /// Looks whether [`Directory::carried`] takes `fields`.
    ///
    /// # Errors
    /// It doesn't.
    pub fn check_carried(fields: &Fields<'_>) -> Result<(), Malformed> {
        restore_boot(fields).map(drop)
    }

    /// The directory at `path` that another program of this process has saved into `fields`, with its
    /// [`descriptors`](Storage::descriptors) in their order. The lock is held all the time; nothing is opened or written.
    ///
    /// # Errors
    /// It isn't what is saved of a directory.
    pub fn carried(
        path: &Path,
        descriptors: [OwnedFd; 4],
        fields: &Fields<'_>,
    ) -> Result<Self, Malformed> {
        let [directory, even, odd, lock] = descriptors.map(File::from);
        Ok(Self {
            path: path.to_owned(),
            directory,
            segments: [even, odd],
            boot: restore_boot(fields)?,
            lock,
        })
    }

    fn mark_path(&self) -> PathBuf {
        self.path.join(MARK)
    }
}

fn restore_boot(fields: &Fields<'_>) -> Result<Boot, Malformed> {
    let boot = fields.nested(BOOT)?;
    Boot::restore(&boot.ok_or(Malformed("a directory has no boot"))?)
}

/// Opens a file, with what is in it. A pipe of that name isn't waited for.
fn open_to_append(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let options = options.read(true).append(true).create(true);
    options
        .mode(FILE_MODE)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
}

impl Storage for Directory {
    fn read(&mut self, side: Side) -> io::Result<Vec<u8>> {
        let file = &mut self.segments[side as usize];
        let mut bytes = Vec::new();
        file.rewind()?;
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn length(&self, side: Side) -> io::Result<u64> {
        Ok(self.segments[side as usize].metadata()?.len())
    }

    fn append(&mut self, side: Side, bytes: &[u8]) -> io::Result<()> {
        self.segments[side as usize].write_all(bytes)
    }

    fn truncate(&mut self, side: Side, length: u64) -> io::Result<()> {
        self.segments[side as usize].set_len(length)
    }

    fn sync(&mut self, side: Side) -> io::Result<()> {
        self.segments[side as usize].sync_all()
    }

    fn read_mark(&mut self) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.mark_path()) {
            Ok(mark) => Ok(Some(mark)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write_mark(&mut self, mark: &[u8]) -> io::Result<()> {
        let mut file = open_to_append(&self.mark_path())?;
        file.set_len(0)?;
        file.write_all(mark)?;
        file.sync_all()?;
        // The names of the segments too, which may be as new.
        self.directory.sync_all()
    }

    fn remove_mark(&mut self) -> io::Result<()> {
        match fs::remove_file(self.mark_path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            // Where it is gone, a process may have been killed before that would last.
            _ => self.directory.sync_all(),
        }
    }

    fn remove(&mut self, side: Side) -> io::Result<()> {
        fs::remove_file(self.path.join(SEGMENTS[side as usize]))
    }

    fn forget_boot(&mut self) -> io::Result<()> {
        self.boot.forget()
    }

    fn save(&self, members: &mut Members<'_>) {
        let Self {
            // It is configured.
            path: _,
            // These three are descriptors.
            directory: _,
            segments: _,
            lock: _,
            boot,
        } = self;
        members.nested(BOOT, |members| boot.save(members));
    }

    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let [even, odd] = &self.segments;
        [&self.directory, even, odd, &self.lock]
            .map(File::as_fd)
            .to_vec()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::journal::id::{Generation, Position};
    use crate::journal::record::StoredEntry;
    use crate::journal::segments::{Restored, Segments};
    use crate::journal::write_ahead::WriteAhead;

    /// A folder of its own for a test, gone with it.
    struct Folder(PathBuf);

    impl Folder {
        fn new(test: &str) -> Self {
            let name = format!("crieur-{}-history-{test}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir(&path).expect("a folder");
            Self(path)
        }

        fn open(&self) -> Directory {
            Directory::open(&self.0, Boot::default()).expect("it is free")
        }

        fn start(&self, boot: u8) -> (WriteAhead, Restored) {
            let storage = Box::new(self.open());
            let opened = Segments::open(storage, 500, Some([boot; 16]), Generation(1));
            let (segments, restored) = opened.expect("it is writable");
            (WriteAhead::new(segments), restored)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn publish(log: &WriteAhead, positions: std::ops::Range<u64>) {
        for position in positions {
            let entry = StoredEntry {
                unix_micros: position,
                key: Some("key"),
                kind: "\"notification\"",
                notification: "{}",
            };
            log.append(Position(position), std::iter::once(entry));
            log.commit();
        }
    }

    fn last(restored: &Restored) -> Option<u64> {
        restored
            .entries
            .iter()
            .last()
            .map(|entry| entry.unix_micros)
    }

    fn message(path: &Path) -> String {
        let error = Directory::open(path, Boot::default()).err();
        error.expect("it can't be used").to_string()
    }

    #[test]
    fn the_history_outlives_a_process_and_after_a_clean_end_the_boot() {
        let folder = Folder::new("restarts");
        let (log, restored) = folder.start(1);
        assert_eq!(last(&restored), None);
        publish(&log, 1..50);
        drop(log);
        let (log, restored) = folder.start(1);
        assert_eq!(last(&restored), Some(49));
        publish(&log, 50..60);
        log.close();
        drop(log);
        let (log, restored) = folder.start(2);
        assert_eq!(last(&restored), Some(59));
        publish(&log, 60..61);
        drop(log);
        let (_, restored) = folder.start(3);
        assert_eq!(last(&restored), None);
    }

    /// What is in the files, and which there are.
    fn files(folder: &Folder) -> Vec<(PathBuf, Vec<u8>)> {
        let files = fs::read_dir(&folder.0).expect("it is readable");
        let paths = files.map(|file| file.expect("it is readable").path());
        let files = paths.map(|path| (path.clone(), fs::read(path).expect("it is readable")));
        let mut files: Vec<_> = files.collect();
        files.sort();
        files
    }

    /// Another program in the same process, which gets the same open files.
    fn carry(folder: &Folder, log: WriteAhead) -> WriteAhead {
        let mut bytes = Vec::new();
        log.save(&mut Members::new(&mut bytes));
        let own =
            |descriptor: &BorrowedFd<'_>| descriptor.try_clone_to_owned().expect("it is open");
        let descriptors = log.with_descriptors(|all| all.iter().map(own).collect::<Vec<_>>());
        drop(log);
        let descriptors = descriptors.try_into().expect("four of them");
        let fields = Fields::parse(&bytes).expect("members");
        let open = |fields: &Fields<'_>| {
            let directory = Directory::carried(&folder.0, descriptors, fields)?;
            Ok(Box::new(directory) as Box<dyn Storage>)
        };
        let carried = WriteAhead::carried(&fields, 500, open).expect("a log");
        let mut again = Vec::new();
        carried.save(&mut Members::new(&mut again));
        assert_eq!(again, bytes);
        carried
    }

    #[test]
    fn a_directory_that_is_carried_stays_locked_and_as_it_is() {
        let folder = Folder::new("carried");
        let (mut log, _) = folder.start(1);
        for position in 1..60 {
            publish(&log, position..position + 1);
            let before = files(&folder);
            log = carry(&folder, log);
            assert!(files(&folder) == before);
            assert!(message(&folder.0).contains("another crieur"));
        }
        drop(log);
        let (log, restored) = folder.start(1);
        assert_eq!(last(&restored), Some(59));
        let log = carry(&folder, log);
        publish(&log, 60..61);
        // The directory's descriptor is the one that is synced, and the mark is made by its path.
        log.close();
        drop(log);
        let (_, restored) = folder.start(2);
        assert_eq!(last(&restored), Some(60));
    }

    #[test]
    fn a_file_that_was_cut_while_a_directory_was_carried_is_not_written_to() {
        let folder = Folder::new("cut");
        let (log, _) = folder.start(1);
        publish(&log, 1..3);
        let mut bytes = Vec::new();
        log.save(&mut Members::new(&mut bytes));
        let file = OpenOptions::new()
            .write(true)
            .open(folder.0.join(SEGMENTS[0]));
        file.and_then(|file| file.set_len(100))
            .expect("it is writable");
        let fields = Fields::parse(&bytes).expect("members");
        let storage = log.with_descriptors(|all| {
            let own = |file: &BorrowedFd<'_>| file.try_clone_to_owned().expect("it is open");
            all.iter().map(own).collect::<Vec<_>>()
        });
        let storage = storage.try_into().expect("four of them");
        let open = |fields: &Fields<'_>| {
            let directory = Directory::carried(&folder.0, storage, fields)?;
            Ok(Box::new(directory) as Box<dyn Storage>)
        };
        let carried = WriteAhead::carried(&fields, 500, open).expect("a log");
        assert!(carried.is_failed());
        publish(&carried, 3..4);
        let segments = SEGMENTS.map(|name| fs::read(folder.0.join(name)).expect("it is readable"));
        assert_eq!(segments, [b"", b""]);
        let fields = Fields::parse(&[]).expect("members");
        let files = ["/", "/", "/", "/"].map(|path| File::open(path).expect("it is there").into());
        assert!(Directory::carried(&folder.0, files, &fields).is_err());
    }

    #[test]
    fn a_directory_is_for_one_process_and_its_files_for_one_user() {
        let folder = Folder::new("lock");
        let inner = Folder(folder.0.join("a/b"));
        let open = inner.open();
        let path = inner.0.display();
        assert_eq!(
            message(&inner.0),
            format!("another crieur uses {path}: give each a --history-directory of its own")
        );
        let mode = |path: &Path| {
            fs::metadata(path)
                .expect("it is there")
                .permissions()
                .mode()
        };
        assert_eq!(mode(&inner.0) & 0o777, 0o700);
        for name in [LOCK, SEGMENTS[0], SEGMENTS[1]] {
            assert_eq!(mode(&inner.0.join(name)) & 0o777, 0o600);
        }
        drop(open);
        inner.open();
    }

    #[test]
    fn errors_say_what_to_do() {
        let folder = Folder::new("errors");
        let file = folder.0.join("file");
        fs::write(&file, "").expect("it is writable");
        for path in [file.clone(), file.join("below")] {
            assert_eq!(
                message(&path),
                format!(
                    "cannot keep the history in {}: not a directory",
                    path.display()
                )
            );
        }
        fs::create_dir(folder.0.join(SEGMENTS[1])).expect("it is writable");
        let segment = folder.0.join(SEGMENTS[1]).display().to_string();
        assert!(message(&folder.0).contains(&segment));
        let denied = DirectoryError {
            path: "/history".into(),
            fault: Fault::Io(io::ErrorKind::PermissionDenied.into()),
        };
        assert!(denied.to_string().contains("the user that crieur runs as"));
    }

    #[test]
    fn each_call_does_what_the_log_relies_on() {
        let folder = Folder::new("calls");
        let mut directory = folder.open();
        directory.append(Side::Odd, b"abc").expect("writable");
        directory.truncate(Side::Odd, 1).expect("writable");
        directory.append(Side::Odd, b"d").expect("writable");
        assert_eq!(directory.read(Side::Odd).expect("readable"), b"ad");
        assert_eq!(directory.read(Side::Even).expect("readable"), b"");
        directory.sync(Side::Odd).expect("writable");
        for mark in [&b"a longer mark"[..], b"mark"] {
            directory.write_mark(mark).expect("writable");
            assert_eq!(
                directory.read_mark().expect("readable").as_deref(),
                Some(mark)
            );
        }
        for _ in 0..2 {
            directory.remove_mark().expect("writable");
            assert_eq!(directory.read_mark().expect("readable"), None);
        }
        directory.remove(Side::Odd).expect("writable");
        assert!(directory.forget_boot().is_err());
        drop(directory);
        assert_eq!(folder.open().read(Side::Odd).expect("readable"), b"");
    }
}
