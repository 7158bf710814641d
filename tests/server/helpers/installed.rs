//! A program that is installed in a folder of its own, where another can take its place.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Server;

/// The program under test.
const CRIEUR: &str = env!("CARGO_BIN_EXE_crieur");

/// A folder with a program `crieur`; removed when the test is over.
pub(crate) struct Installed(PathBuf);

impl Installed {
    /// One with the program under test.
    pub(crate) fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("crieur-installed-{}-{number}", std::process::id());
        let installed = Self(std::env::temp_dir().join(name));
        fs::create_dir(&installed.0).expect("a new folder");
        installed.install();
        installed
    }

    /// Where the program is.
    pub(crate) fn path(&self) -> PathBuf {
        self.0.join("crieur")
    }

    /// Another file in the folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A server that is this program.
    pub(crate) fn server(&self, flags: &[&str]) -> Server {
        Server::at(&self.path(), &[], flags)
    }

    /// The same with these variables in its environment.
    pub(crate) fn server_with_environment(&self, variables: &[(&str, &OsStr)]) -> Server {
        Server::at(&self.path(), variables, &[])
    }

    /// Puts the program under test there, as a link to it: it has tens of megabytes.
    pub(crate) fn install(&self) {
        let new = self.file("new");
        symlink(CRIEUR, &new).expect("a new name");
        self.replace(&new);
    }

    /// The same as a file of its own.
    pub(crate) fn install_copy(&self) {
        let new = self.file("new");
        let copied = Command::new("cp").arg(CRIEUR).arg(&new).status();
        assert!(copied.expect("a command").success());
        self.replace(&new);
    }

    /// Puts a script of the shell there, in which `$real` is the program under test.
    pub(crate) fn install_script(&self, script: &str) {
        self.install_text(&format!("#!/bin/sh\nreal='{CRIEUR}'\n{script}\n"));
    }

    /// Puts the program under test there behind a script, which runs before the program is started to be tried out.
    pub(crate) fn install_behind(&self, script: &str) {
        self.install_script(&format!(
            "if [ \"$CRIEUR_HANDOVER\" = try ]; then\n{script}\nfi\nexec \"$real\" \"$@\""
        ));
    }

    /// Puts a file there that anybody may run.
    pub(crate) fn install_text(&self, text: &str) {
        let new = self.file("new");
        write(&new, text);
        self.replace(&new);
    }

    /// Says who may do what with the program.
    pub(crate) fn set_mode(&self, mode: u32) {
        fs::set_permissions(self.path(), Permissions::from_mode(mode)).expect("it is ours");
    }

    /// Leaves nothing there.
    pub(crate) fn remove(&self) {
        fs::remove_file(self.path()).expect("it is ours");
    }

    fn replace(&self, new: &Path) {
        fs::rename(new, self.path()).expect("both are in one folder");
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("it is ours");
    }
}

/// Writes a program that is a text. Another process does: what is open here for writing may be so in a child that another
/// test is about to start, and can't be run until that has begun.
pub(crate) fn write(path: &Path, text: &str) {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", r#"cat >"$0" && chmod 755 "$0""#])
        .arg(path);
    let mut shell = shell.stdin(Stdio::piped()).spawn().expect("a shell");
    let mut input = shell.stdin.take().expect("piped");
    input.write_all(text.as_bytes()).expect("it is read");
    drop(input);
    assert!(shell.wait().expect("it ends").success());
}
