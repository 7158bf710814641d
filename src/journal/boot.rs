//! Whether the machine was started since: the mark of a boot.
//!
//! What a process wrote outlives it, but only as long as the machine runs. Owns the proof that it has run all the
//! time: a file with random bytes in the runtime directory, which a service manager keeps over restarts and which is
//! gone with the memory that it is in; or the kernel's own `boot_id`, which a hardened unit can't read.
//! Main type: [`Boot`].

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::record::BootMark;
use crate::handover::{Fields, Malformed, Members};

/// In the runtime directory.
const MARK_FILE: &str = "boot-mark";

/// A UUID as text.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// File systems that are gone with a boot (statfs(2)): tmpfs and ramfs.
const VOLATILE: [u32; 2] = [0x0102_1994, 0x8584_58f6];

// Members of a boot that is saved.
const MARK: u8 = 1;
const FILE: u8 = 2;

/// The boot that this process is in, as far as it can be told from others.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Boot {
    /// The same in each process of this boot; `None` where there is no proof.
    pub mark: Option<BootMark>,
    /// Where it is kept, if that is up to us.
    file: Option<PathBuf>,
}

impl Boot {
    /// Finds the mark, or makes one in `runtime_directory` (of the variable `RUNTIME_DIRECTORY`, whose first
    /// path counts). A runtime directory that isn't in memory proves nothing, and isn't used.
    #[must_use]
    pub fn find(runtime_directory: Option<&str>) -> Self {
        let directory = runtime_directory.and_then(|paths| paths.split(':').next());
        let directory = directory.map(Path::new).filter(|path| is_volatile(path));
        if let Some(directory) = directory {
            let file = directory.join(MARK_FILE);
            match read_or_make(&file) {
                Ok(mark) => {
                    let (mark, file) = (Some(mark), Some(file));
                    return Self { mark, file };
                }
                Err(error) => log::warn!("cannot use {}: {error}", file.display()),
            }
        }
        let boot_id = fs::read_to_string(BOOT_ID).ok();
        Self {
            mark: boot_id.and_then(|id| from_uuid(&id)),
            file: None,
        }
    }

    /// What a successor must know.
    pub(super) fn save(&self, members: &mut Members<'_>) {
        let Self { mark, file } = self;
        save_mark(MARK, *mark, members);
        let file = file.as_ref().map(|file| file.as_os_str().as_bytes());
        members.bytes(FILE, file.unwrap_or_default());
    }

    /// The boot that was saved.
    pub(super) fn restore(fields: &Fields<'_>) -> Result<Self, Malformed> {
        let file = fields.present_bytes(FILE);
        Ok(Self {
            mark: restore_mark(MARK, fields)?,
            file: file.map(|file| OsStr::from_bytes(file).into()),
        })
    }

    /// Removes the mark, so that a later process can't take this boot for its own.
    pub(super) fn forget(&self) -> io::Result<()> {
        match &self.file {
            Some(file) => fs::remove_file(file),
            None => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

pub(super) fn save_mark(member: u8, mark: Option<BootMark>, members: &mut Members<'_>) {
    members.bytes(member, mark.as_ref().map_or(&[], |mark| mark));
}

pub(super) fn restore_mark(member: u8, fields: &Fields<'_>) -> Result<Option<BootMark>, Malformed> {
    let mark = fields.present_bytes(member).map(BootMark::try_from);
    let malformed = |_| Malformed("a boot has no such mark");
    mark.transpose().map_err(malformed)
}

fn is_volatile(directory: &Path) -> bool {
    // The type of the number differs between systems, its lower half doesn't.
    let volatile = |status: rustix::fs::StatFs| VOLATILE.contains(&(status.f_type as u32));
    rustix::fs::statfs(directory).is_ok_and(volatile)
}

fn read_or_make(file: &Path) -> io::Result<BootMark> {
    if let Some(mark) = read(file) {
        return Ok(mark);
    }
    // Two processes that find none agree on one: it gets its name when it is whole, and only where there is none.
    let draft = file.with_extension(std::process::id().to_string());
    let mut mark = BootMark::default();
    getrandom::fill(&mut mark).map_err(io::Error::other)?;
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(true).mode(0o600);
    options.open(&draft)?.write_all(&mark)?;
    let linked = fs::hard_link(&draft, file);
    fs::remove_file(&draft)?;
    match (linked, read(file)) {
        (_, Some(mark)) => Ok(mark),
        (Err(error), None) => Err(error),
        (Ok(()), None) => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// `None` where there is none. A file that is none is none of ours: it isn't replaced.
fn read(file: &Path) -> Option<BootMark> {
    fs::read(file).ok()?.try_into().ok()
}

fn from_uuid(text: &str) -> Option<BootMark> {
    let digits: String = text.trim_end().chars().filter(|c| *c != '-').collect();
    let is_hex = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = u128::from_str_radix(&digits, 16).ok().filter(|_| is_hex)?;
    (number != 0).then(|| number.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_boots_apart() {
        let boot = Boot::find(None);
        assert_eq!(boot, Boot::find(None));
        assert_eq!(boot.file, None);
        assert!(boot.forget().is_err());
        let mark = from_uuid("01234567-89ab-cdef-0123-456789abcdef\n").expect("a UUID");
        assert_eq!(mark[..4], [0x01, 0x23, 0x45, 0x67]);
        for text in [
            "",
            "+1234567-89ab-cdef-0123-456789abcdef",
            "0",
            "é",
            "00000000-0000-0000-0000-000000000000",
        ] {
            assert_eq!(from_uuid(text), None, "{text}");
        }
    }

    #[test]
    fn a_mark_in_memory_is_made_once_and_can_be_given_up() {
        let directory = Path::new("/dev/shm").join(format!("crieur-{}-boot", std::process::id()));
        if !is_volatile(Path::new("/dev/shm")) || fs::create_dir(&directory).is_err() {
            return;
        }
        let paths = format!("{}:/elsewhere", directory.display());
        let boot = Boot::find(Some(&paths));
        assert_eq!(boot.file, Some(directory.join(MARK_FILE)));
        assert_eq!(Boot::find(Some(&paths)), boot);
        boot.forget().expect("it is ours");
        assert_ne!(Boot::find(Some(&paths)).mark, boot.mark);
        fs::write(directory.join(MARK_FILE), "not ours").expect("it is ours");
        assert_eq!(Boot::find(Some(&paths)), Boot::find(None));
        let files = fs::read_dir(&directory).expect("it is ours").count();
        assert_eq!(files, 1, "no draft is left");
        fs::remove_dir_all(directory).expect("it is ours");
    }

    #[test]
    fn what_is_saved_is_restored() {
        let saved = |boot: &Boot| {
            let mut bytes = Vec::new();
            boot.save(&mut Members::new(&mut bytes));
            bytes
        };
        let file = Some(PathBuf::from(OsStr::from_bytes(b"/run/\xff/boot-mark")));
        for mark in [None, Some(BootMark::default()), Some([7; 16])] {
            for file in [None, file.clone()] {
                let boot = Boot { mark, file };
                let bytes = saved(&boot);
                let fields = Fields::parse(&bytes).expect("members");
                assert_eq!(Boot::restore(&fields), Ok(boot));
            }
        }
        for length in [0, 15, 17] {
            let mut bytes = Vec::new();
            Members::new(&mut bytes).present_bytes(MARK, &vec![1; length]);
            let fields = Fields::parse(&bytes).expect("members");
            assert!(Boot::restore(&fields).is_err(), "{length}");
        }
    }

    #[test]
    fn a_runtime_directory_on_a_disk_proves_nothing() {
        assert_eq!(Boot::find(Some("/proc")).file, None);
        assert_eq!(Boot::find(Some("/nowhere/at/all")).file, None);
    }
}
