//! Reading a file that holds secrets.
//!
//! Owns what such a file has to be; what is in it is read elsewhere. Main entry:
//! [`read_secret_file`]. Invariant: what was checked is what is read, whatever happens to the
//! name meanwhile.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// What may not be allowed: a group may read, as the one of a service's user does; nobody but the
/// owner may do anything else.
const MODE_EXPOSED: u32 = 0o037;

/// Why a file of secrets can't be used.
#[derive(Debug)]
pub struct SecretFileError {
    path: PathBuf,
    fault: Fault,
}

#[derive(Debug)]
enum Fault {
    Io(io::Error),
    NotRegular,
    /// Others may do something with it; the permissions that it has.
    Exposed(u32),
    TooLarge,
    NotUtf8,
}

impl fmt::Display for SecretFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.fault {
            Fault::Io(error) => write!(f, "cannot read {path}: {error}"),
            Fault::NotRegular => write!(f, "{path} is not a regular file"),
            Fault::Exposed(mode) => write!(
                f,
                "{path} has secrets, but with mode {mode:03o} others get at them: run chmod 600 {path}"
            ),
            Fault::TooLarge => write!(f, "{path} is larger than {FILE_BYTES_MAX} bytes"),
            Fault::NotUtf8 => write!(f, "{path} is not UTF-8"),
        }
    }
}

impl std::error::Error for SecretFileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.fault {
            Fault::Io(error) => Some(error),
            _ => None,
        }
    }
}

/// The text of a file that nobody but its owner may write, and beside it only its group read.
///
/// # Errors
/// [`SecretFileError`], which names the file and shows nothing of it.
pub fn read_secret_file(path: &Path) -> Result<String, SecretFileError> {
    read(path).map_err(|fault| SecretFileError {
        path: path.to_owned(),
        fault,
    })
}

fn read(path: &Path) -> Result<String, Fault> {
    // Opening a pipe would wait for its writer.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(Fault::Io)?;
    check(&file)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(Fault::Io)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Fault::TooLarge);
    }
    String::from_utf8(bytes).map_err(|_| Fault::NotUtf8)
}

fn check(file: &File) -> Result<(), Fault> {
    let metadata = file.metadata().map_err(Fault::Io)?;
    if !metadata.is_file() {
        return Err(Fault::NotRegular);
    }
    let mode = metadata.permissions().mode() & 0o777;
    match mode & MODE_EXPOSED {
        0 => Ok(()),
        _ => Err(Fault::Exposed(mode)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::process::Command;

    use super::*;

    /// A folder of its own for a test, gone with it.
    struct Folder(PathBuf);

    impl Folder {
        fn new(test: &str) -> Self {
            let name = format!("crieur-{}-{test}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir(&path).expect("a folder");
            Self(path)
        }

        fn file(&self, content: &[u8], mode: u32) -> PathBuf {
            let path = self.0.join("secret");
            fs::write(&path, content).expect("writable");
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("ours");
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn fault(path: &Path) -> String {
        let error = read_secret_file(path).expect_err("a fault");
        let name = path.display().to_string();
        error.to_string().replace(&name, "FILE")
    }

    #[test]
    fn a_file_of_the_owner_and_its_group_is_read() {
        let folder = Folder::new("own");
        for mode in [0o600, 0o400, 0o700, 0o640, 0o440] {
            let path = folder.file("token\n\u{e9}".as_bytes(), mode);
            let text = read_secret_file(&path).expect("readable");
            assert_eq!(text, "token\n\u{e9}");
            fs::remove_file(path).expect("ours");
        }
    }

    #[test]
    fn a_file_that_others_get_at_is_refused() {
        let folder = Folder::new("exposed");
        for bits in [0o1, 0o2, 0o4, 0o10, 0o20] {
            let mode = 0o600 | bits;
            let path = folder.file(b"token", mode);
            assert_eq!(
                fault(&path),
                format!(
                    "FILE has secrets, but with mode {mode:o} others get at them: run chmod 600 FILE"
                )
            );
        }
    }

    #[test]
    fn a_file_at_the_largest_and_one_more() {
        let folder = Folder::new("large");
        let largest = vec![b'a'; FILE_BYTES_MAX as usize];
        let path = folder.file(&largest, 0o600);
        assert_eq!(
            read_secret_file(&path).map(|text| text.len()).ok(),
            Some(largest.len())
        );
        let path = folder.file(&[&largest[..], b"a"].concat(), 0o600);
        assert_eq!(fault(&path), "FILE is larger than 65536 bytes");
    }

    #[test]
    fn what_is_no_text_is_refused() {
        let folder = Folder::new("binary");
        let path = folder.file(b"token\xff", 0o600);
        assert_eq!(fault(&path), "FILE is not UTF-8");
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let folder = Folder::new("special");
        assert_eq!(fault(&folder.0), "FILE is not a regular file");
        assert_eq!(fault(Path::new("/dev/null")), "FILE is not a regular file");
        let pipe = folder.0.join("pipe");
        let mut mkfifo = Command::new("mkfifo");
        let made = mkfifo.args(["-m", "600"]).arg(&pipe);
        assert!(made.status().expect("mkfifo runs").success());
        // Nobody writes to it.
        assert_eq!(fault(&pipe), "FILE is not a regular file");
        let missing = folder.0.join("missing");
        assert!(fault(&missing).starts_with("cannot read FILE: No such file"));
    }

    #[test]
    fn a_link_is_judged_by_what_it_leads_to() {
        let folder = Folder::new("link");
        let path = folder.file(b"token", 0o600);
        let link = folder.0.join("link");
        std::os::unix::fs::symlink(&path, &link).expect("a link");
        assert!(read_secret_file(&link).is_ok());
        folder.file(b"token", 0o644);
        assert!(fault(&link).contains("mode 644"));
    }
}
