//! A place for a Unix socket.

use std::fs;
use std::path::PathBuf;

/// A path for a socket that no other test uses, in a folder that goes with the test.
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// A new one, for the test `name`.
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("crieur-{}-{name}", std::process::id()));
        fs::create_dir(&path).expect("a new folder");
        Self(path)
    }

    /// Where the socket is.
    pub(crate) fn socket(&self) -> PathBuf {
        self.0.join("publish.sock")
    }

    /// The same, as a flag and a URL have it.
    pub(crate) fn flag(&self) -> String {
        format!("unix:{}", self.socket().display())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("it is ours");
    }
}
