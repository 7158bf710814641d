//! The program that this process can become: the file that stands at the path it was started from.
//!
//! `exec` keeps the process: its id, its working directory, its limits, and the mask of its signals. Everything else goes
//! over as a state and as descriptors, through the standard input of the successor. Beforehand the program is tried out: a
//! child gets a state, but no descriptors, and has to say that it could go on from there.

use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use super::descriptors::{self, Descriptors};
use super::signals;

/// The environment variable that says to a program what it is to be; nothing else sets it.
pub const VARIABLE: &str = "CRIEUR_HANDOVER";
const TAKE: &str = "take";
const TRY: &str = "try";

/// What this process can become.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

/// Which file stands at a path, so that another one is noticed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    device: u64,
    inode: u64,
    bytes: u64,
    /// When it was changed, in whatever way: seconds and nanoseconds.
    changed: (i64, i64),
}

impl Program {
    /// What this process was started as. To be asked at the start, since the path may be relative.
    ///
    /// # Errors
    ///
    /// There is no such path, or none that can be told.
    pub fn of_this_process() -> io::Result<Self> {
        let arguments: Vec<_> = env::args_os().collect();
        let name = arguments.first().map(PathBuf::from).unwrap_or_default();
        let path = match found(&name, env::var_os("PATH").as_deref())? {
            Some(path) => path,
            // Whoever started it has called it something else.
            None => env::current_exe()?,
        };
        Ok(Self { path, arguments })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which file is there now.
    ///
    /// # Errors
    ///
    /// There is none, or it can't be looked at.
    pub fn identity(&self) -> io::Result<Identity> {
        let file = fs::metadata(&self.path)?;
        Ok(Identity {
            device: file.dev(),
            inode: file.ino(),
            bytes: file.len(),
            changed: (file.ctime(), file.ctime_nsec()),
        })
    }

    /// Becomes the program, and gives it `state` and `descriptors`. Comes back only where that failed: then everything is as
    /// it was. Signals should be blocked, since the handlers are gone from there on.
    pub fn take_over(&self, state: &File, descriptors: &[BorrowedFd<'_>]) -> io::Error {
        match self.try_take_over(state, descriptors) {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    fn try_take_over(
        &self,
        state: &File,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<std::convert::Infallible> {
        let path = c_string(self.path.clone().into_os_string())?;
        let (arguments, environment) = (self.arguments()?, environment(TAKE)?);
        let input = io::stdin();
        // It goes along, so that the successor has it back.
        let input = input.as_fd().try_clone_to_owned()?;
        let (near, far) = descriptors::pair_for(descriptors.len() + 2)?;
        descriptors::send(&near, &[state.as_fd(), input.as_fd()])?;
        descriptors::send(&near, descriptors)?;
        drop(near);
        rustix::stdio::dup2_stdin(&far)?;
        // Not that of the standard library, which has SIGPIPE kill this process from then on, if it fails.
        let error = nix::unistd::execve(&path, &arguments, &environment)
            .err()
            .map_or_else(io::Error::last_os_error, io::Error::from);
        rustix::stdio::dup2_stdin(&input)?;
        Err(error)
    }

    /// Starts the program as a child that is shown `state` and what it says of it.
    ///
    /// # Errors
    ///
    /// There is no such program, or it can't be run.
    pub fn try_out(&self, state: &File) -> io::Result<Trial> {
        let identity = self.identity()?;
        let (answer, far) = UnixStream::pair()?;
        answer.set_nonblocking(true)?;
        let path = c_string(self.path.clone().into_os_string())?;
        let mut streams = PosixSpawnFileActions::init()?;
        streams.add_dup2(state.as_raw_fd(), 0)?;
        streams.add_dup2(far.as_raw_fd(), 1)?;
        streams.add_dup2(far.as_raw_fd(), 2)?;
        let (arguments, environment) = (self.arguments()?, environment(TRY)?);
        let mut attributes = PosixSpawnAttr::init()?;
        attributes.set_flags(PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK)?;
        attributes.set_sigmask(&signals::of_parent())?;
        let pid = posix_spawn(&*path, &streams, &attributes, &arguments, &environment)?;
        let pid = Pid::from_raw(pid.as_raw()).ok_or(io::ErrorKind::NotFound)?;
        let trial = Trial {
            pid,
            is_over: false,
            answer,
            identity,
        };
        Ok(trial)
    }

    fn arguments(&self) -> io::Result<Vec<CString>> {
        self.arguments.iter().cloned().map(c_string).collect()
    }
}

/// A child that says whether its program can take over. It is killed with this.
#[derive(Debug)]
pub struct Trial {
    pid: Pid,
    is_over: bool,
    /// What it writes to its standard output and error; never blocks.
    pub answer: UnixStream,
    /// Which file was started.
    pub identity: Identity,
}

impl Trial {
    /// How the child has ended, as a person says it; `None` while it hasn't. Waits for nothing.
    ///
    /// # Errors
    ///
    /// As the operating system's.
    pub fn end(&mut self) -> io::Result<Option<Result<(), String>>> {
        let status = match waitpid(Some(self.pid), WaitOptions::NOHANG) {
            Ok(Some((_, status))) => status,
            Ok(None) => return Ok(None),
            // Where SIGCHLD is ignored, as a parent may have left it, nobody learns how a child ends: what it has said counts.
            Err(Errno::CHILD) => {
                self.is_over = true;
                return Ok(Some(Ok(())));
            }
            Err(error) => return Err(error.into()),
        };
        self.is_over = true;
        Ok(Some(
            match (status.exit_status(), status.terminating_signal()) {
                (Some(0), _) => Ok(()),
                (Some(status), _) => Err(format!("it ended with status {status}")),
                (None, Some(signal)) => Err(format!("it was ended by signal {signal}")),
                (None, None) => Err("it ended".to_owned()),
            },
        ))
    }

    /// Whether it has yet to end; where nobody can say, it counts as gone.
    pub fn is_running(&mut self) -> bool {
        !self.is_over && matches!(self.end(), Ok(None))
    }

    /// Ends the child at once; [`Trial::end`] tells when it has.
    pub fn kill(&self) {
        if !self.is_over {
            // It may have ended by itself.
            let _ = kill_process(self.pid, Signal::KILL);
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a process that wants this program, or has become it, has left.
#[derive(Debug)]
pub struct Predecessor {
    /// Its state, to be read from where it stands.
    pub state: File,
    /// Its descriptors, in the order of the records that tell of them. `None` where this process is only to say whether it
    /// could go on from the state.
    pub descriptors: Option<Descriptors>,
}

/// What there is to take over; `None` if this process was started as any other. To be asked once, before anything reads
/// the standard input.
///
/// # Errors
///
/// The standard input isn't what a predecessor leaves.
pub fn predecessor() -> io::Result<Option<Predecessor>> {
    let Some(part) = env::var_os(VARIABLE) else {
        return Ok(None);
    };
    let from = io::stdin().as_fd().try_clone_to_owned()?;
    if part == TRY {
        let state = File::from(from);
        let descriptors = None;
        return Ok(Some(Predecessor { state, descriptors }));
    }
    let mut descriptors = Descriptors::new(from);
    let state = File::from(descriptors.take()?);
    let input: OwnedFd = descriptors.take()?;
    rustix::stdio::dup2_stdin(&input)?;
    let descriptors = Some(descriptors);
    Ok(Some(Predecessor { state, descriptors }))
}

/// The environment of a successor, which plays the part `part`.
fn environment(part: &str) -> io::Result<Vec<CString>> {
    let part = (OsString::from(VARIABLE), OsString::from(part));
    env::vars_os()
        .filter(|(name, _)| name != VARIABLE)
        .chain([part])
        .map(|(mut variable, value)| {
            variable.push("=");
            variable.push(value);
            c_string(variable)
        })
        .collect()
}

fn c_string(text: OsString) -> io::Result<CString> {
    CString::new(text.into_vec()).map_err(io::Error::from)
}

/// Where a shell finds `name`; `None` if it doesn't.
fn found(name: &Path, folders: Option<&OsStr>) -> io::Result<Option<PathBuf>> {
    if name.components().count() > 1 || name.has_root() {
        return std::path::absolute(name).map(Some);
    }
    let is_program = |path: &PathBuf| {
        let file = fs::metadata(path);
        file.is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    let folders = folders.into_iter().flat_map(env::split_paths);
    let path = folders.map(|folder| folder.join(name)).find(is_program);
    path.filter(|_| !name.as_os_str().is_empty())
        .map(std::path::absolute)
        .transpose()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};
    use std::process::{Command, Stdio};

    use nix::sys::signal::{Signal, raise};

    use super::super::file;
    use super::*;

    /// What a child of this test is to do, in its environment.
    const PART: &str = "CRIEUR_TEST_PART";
    const SAID: &str = "said by the successor: ";

    fn state(text: &str) -> File {
        let mut state = file::create().expect("memory");
        state.write_all(text.as_bytes()).expect("memory");
        file::seal(&mut state).expect("unsealed");
        state
    }

    /// The test binary again, in which only the test of this name runs.
    fn program(path: PathBuf, test: &str) -> Program {
        let test = format!(
            "{}::{test}",
            module_path!().split_once("::").expect("a crate").1
        );
        let arguments = ["crieur", "--exact", &test, "--nocapture"];
        let arguments = arguments.map(OsString::from).into();
        Program { path, arguments }
    }

    #[test]
    fn the_successor_has_the_process_the_state_and_the_descriptors() {
        const NAME: &str = "the_successor_has_the_process_the_state_and_the_descriptors";
        let itself = program(env::current_exe().expect("a path"), NAME);
        if let Some(predecessor) = predecessor().expect("whole") {
            let mut state = predecessor.state;
            let mut descriptors = predecessor.descriptors.expect("it is no trial");
            let mut text = String::new();
            state.read_to_string(&mut text).expect("readable");
            let mut file = File::from(descriptors.take().expect("it was sent"));
            file.rewind().expect("a file");
            file.read_to_string(&mut text).expect("readable");
            assert!(descriptors.take().is_err());
            io::stdin().read_to_string(&mut text).expect("readable");
            println!("{SAID}{} {text}", std::process::id());
        } else if env::var_os(PART).is_some() {
            let sent = state("a descriptor, ");
            let error = itself.take_over(&state("a state, "), &[sent.as_fd()]);
            panic!("it goes on: {error}");
        } else {
            let mut child = Command::new(itself.path());
            child.args(&itself.arguments[1..]).env(PART, "");
            child.stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = child.spawn().expect("a program");
            let mut input = child.stdin.take().expect("piped");
            input.write_all(b"an input").expect("a reader");
            drop(input);
            let id = child.id();
            let output = child.wait_with_output().expect("an end");
            let output = String::from_utf8_lossy(&output.stdout);
            let expected = format!("{SAID}{id} a state, a descriptor, an input");
            assert!(output.contains(&expected), "{output}");
        }
    }

    #[test]
    fn a_trial_survives_the_signals_that_are_meant_for_its_parent() {
        const NAME: &str = "a_trial_survives_the_signals_that_are_meant_for_its_parent";
        let itself = program(env::current_exe().expect("a path"), NAME);
        if env::var_os(VARIABLE).is_some() {
            for signal in [Signal::SIGUSR2, Signal::SIGHUP] {
                raise(signal).expect("sent");
            }
            return;
        }
        let mut trial = itself.try_out(&state("")).expect("a program");
        trial.answer.set_nonblocking(false).expect("open");
        let mut said = String::new();
        trial.answer.read_to_string(&mut said).expect("readable");
        let end = loop {
            match trial.end().expect("a child") {
                Some(end) => break end,
                None => std::thread::yield_now(),
            }
        };
        assert_eq!(end, Ok(()), "{said}");
    }

    #[test]
    fn where_there_is_no_program_everything_is_as_it_was() {
        let nothing = program("/nonexistent/crieur".into(), "");
        assert!(nothing.identity().is_err());
        let sent = state("");
        let before = rustix::fs::fstat(io::stdin()).expect("open");
        let error = nothing.take_over(&state(""), &[sent.as_fd(); 300]);
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let after = rustix::fs::fstat(io::stdin()).expect("open");
        assert_eq!((before.st_dev, before.st_ino), (after.st_dev, after.st_ino));
    }

    #[test]
    fn a_file_that_was_replaced_is_another() {
        let folder = env::temp_dir().join(format!("crieur-program-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("crieur");
        fs::write(&path, "old").expect("written");
        let program = program(path.clone(), "");
        let old = program.identity().expect("it is there");
        assert_eq!(program.identity().expect("it is there"), old);
        let new = folder.join("new");
        fs::write(&new, "new").expect("written");
        fs::rename(&new, &path).expect("replaced");
        assert_ne!(program.identity().expect("it is there"), old);
        fs::remove_dir_all(&folder).expect("removed");
    }

    #[test]
    fn a_name_is_found_as_a_shell_finds_it() {
        let folders = OsStr::new("/nonexistent:/usr/bin:/bin");
        let find = |name: &str| found(Path::new(name), Some(folders)).expect("a working directory");
        assert_eq!(find("/opt/crieur"), Some("/opt/crieur".into()));
        let here = env::current_dir().expect("there is one");
        assert_eq!(find("./crieur"), Some(here.join("crieur")));
        assert_eq!(find("target/crieur"), Some(here.join("target/crieur")));
        assert!(find("sh").is_some_and(|path| path.ends_with("bin/sh")));
        assert_eq!(find("no-such-program"), None);
        assert_eq!(find(""), None);
        assert_eq!(
            found(Path::new("sh"), None).expect("a working directory"),
            None
        );
    }
}
