//! The program under test as a process: what it says, how it is stopped, how it ends.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit, setrlimit};
use rustix::pty::{OpenptFlags, openpt, ptsname, unlockpt};

use super::DEADLINE;

/// How much of a log a failed test shows.
const LINES_SHOWN: usize = 20;

/// A running program; killed when the test is over.
pub(crate) struct Program {
    child: Child,
    pub(crate) stdout: Arc<Lines>,
    pub(crate) stderr: Arc<Lines>,
}

/// How a program ended, and what it had said.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The exit status; `None` if a signal killed it.
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// What a program has written so far, line by line.
#[derive(Default)]
pub(crate) struct Lines {
    state: Mutex<LinesState>,
    changed: Condvar,
}

#[derive(Default)]
struct LinesState {
    lines: Vec<String>,
    has_ended: bool,
}

/// Runs crieur to its end, with `input` on standard input.
pub(crate) fn run<S: AsRef<OsStr>>(arguments: &[S], input: &str) -> Ended {
    let mut command = crieur();
    command.args(arguments).stdin(Stdio::piped());
    let mut program = Program::start(command);
    let mut stdin = program.child.stdin.take().expect("standard input is piped");
    // A program that wants no input may be gone before it is written.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    program.wait()
}

/// Takes all descriptors that this process may have, and says how many.
pub(crate) fn raise_descriptor_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).expect("the soft limit can be raised");
    limit.maximum.map_or(usize::MAX, |maximum| maximum as usize)
}

/// Held by a test that takes so many descriptors that two of its kind don't fit in one process.
pub(crate) fn most_descriptors() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The command crieur, without arguments yet.
pub(crate) fn crieur() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_crieur"));
    forget_settings(&mut command);
    command
}

/// The environment in which the tests run must not change what they see.
pub(crate) fn forget_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CRIEUR_") {
            command.env_remove(name);
        }
    }
}

impl Program {
    /// Starts `command` and follows what it says.
    pub(crate) fn start(command: Command) -> Self {
        let mut program = Self::start_unread(command);
        let stderr = program.child.stderr.take().expect("it is piped");
        program.stderr = Lines::follow(stderr);
        program
    }

    /// The same, but nobody reads its standard error yet.
    pub(crate) fn start_unread(mut command: Command) -> Self {
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let stdout = Lines::follow(child.stdout.take().expect("it is piped"));
        Self {
            child,
            stdout,
            stderr: Arc::default(),
        }
    }

    /// The same as [`Program::start`], with a terminal as its standard error.
    pub(crate) fn start_at_terminal(mut command: Command) -> Self {
        let user = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        unlockpt(&user).expect("it is ours");
        let path = ptsname(&user, Vec::new()).expect("it has a name");
        let terminal = File::options()
            .read(true)
            .write(true)
            .open(OsStr::from_bytes(path.as_bytes()))
            .expect("it is unlocked");
        command.stdout(Stdio::piped()).stderr(terminal);
        let mut child = command.spawn().expect("the program starts");
        Self {
            stdout: Lines::follow(child.stdout.take().expect("it is piped")),
            stderr: Lines::follow(File::from(user)),
            child,
        }
    }

    /// Its standard error, if nobody reads it yet.
    pub(crate) const fn unread_stderr(&mut self) -> Option<&mut impl Read> {
        self.child.stderr.as_mut()
    }

    /// Closes the end of its standard error that nobody reads.
    pub(crate) fn drop_stderr(&mut self) {
        self.child.stderr = None;
        self.stderr = Lines::follow(io::empty());
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Descriptors that it has open.
    pub(crate) fn descriptors(&self) -> usize {
        let open = fs::read_dir(format!("/proc/{}/fd", self.id()));
        open.expect("it runs").count()
    }

    /// Bytes of memory that it has to itself.
    pub(crate) fn memory_bytes(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).expect("it runs");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
        1024 * kib
            .and_then(|kib| kib.parse::<usize>().ok())
            .expect("Linux counts it in kB")
    }

    /// The TCP port of this machine that it listens on, once it does.
    pub(crate) fn listening_port(&self) -> u16 {
        let since = Instant::now();
        loop {
            if let Some(port) = self.find_listening_port() {
                return port;
            }
            assert!(since.elapsed() < DEADLINE, "it does not listen");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn find_listening_port(&self) -> Option<u16> {
        const LISTEN: &str = "0A";
        let open = fs::read_dir(format!("/proc/{}/fd", self.id())).expect("it runs");
        let open: Vec<_> = open
            .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
            .collect();
        let sockets = fs::read_to_string("/proc/net/tcp").expect("Linux lists them");
        sockets.lines().find_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let &[_, address, _, state, _, _, _, _, _, inode, ..] = &fields[..] else {
                return None;
            };
            let name = format!("socket:[{inode}]");
            let is_ours = state == LISTEN && open.iter().any(|link| link.as_os_str() == &name[..]);
            let (_, port) = address.split_once(':').filter(|_| is_ours)?;
            u16::from_str_radix(port, 16).ok()
        })
    }

    /// Writes to its standard input, which must have been piped.
    pub(crate) fn write(&mut self, input: &str) {
        let stdin = self.child.stdin.as_mut().expect("it is piped");
        stdin.write_all(input.as_bytes()).expect("it is read");
    }

    /// Ends its standard input.
    pub(crate) fn end_input(&mut self) {
        self.child.stdin = None;
    }

    /// Asks it to stop.
    pub(crate) fn terminate(&self) {
        kill_process(self.pid(), Signal::TERM).expect("the program runs");
    }

    /// Kills it, as nobody can keep it from doing.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }

    /// Asks it to read its files again.
    pub(crate) fn hang_up(&self) {
        kill_process(self.pid(), Signal::HUP).expect("the program runs");
    }

    /// Asks it to become the program that stands at its path.
    pub(crate) fn ask_to_hand_over(&self) {
        kill_process(self.pid(), Signal::USR2).expect("the program runs");
    }

    /// What it has open as its standard input.
    pub(crate) fn standard_input(&self) -> PathBuf {
        fs::read_link(format!("/proc/{}/fd/0", self.id())).expect("it runs")
    }

    /// Its environment at its start, or when it became another program.
    pub(crate) fn environment(&self) -> Vec<String> {
        let environment = fs::read(format!("/proc/{}/environ", self.id())).expect("it runs");
        let variables = environment.split(|byte| *byte == 0);
        let variables = variables.filter(|variable| !variable.is_empty());
        variables
            .map(|variable| String::from_utf8_lossy(variable).into_owned())
            .collect()
    }

    /// Which signals its main thread has blocked, ignored and caught.
    pub(crate) fn signals(&self) -> Vec<String> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).expect("it runs");
        let lines = status.lines().filter(|line| {
            let names = ["SigBlk:", "SigIgn:", "SigCgt:"];
            names.iter().any(|name| line.starts_with(name))
        });
        lines.map(str::to_owned).collect()
    }

    /// Its children: where Linux tells of each, and its state, which is `Z` where it has ended and nobody has looked.
    pub(crate) fn children(&self) -> Vec<(PathBuf, char)> {
        let processes = fs::read_dir("/proc").expect("Linux has it");
        let parent = self.id().to_string();
        let children = processes.filter_map(|entry| {
            let process = entry.ok()?.path();
            // Others come and go.
            let stat = fs::read_to_string(process.join("stat")).ok()?;
            let mut fields = stat_fields(&stat);
            let state = fields.next()?.chars().next()?;
            (fields.next() == Some(&parent)).then_some((process, state))
        });
        children.collect()
    }

    /// Waits until it is halted by a signal.
    pub(crate) fn wait_for_halt(&self) {
        let since = Instant::now();
        loop {
            let status = fs::read_to_string(format!("/proc/{}/stat", self.id()));
            let status = status.expect("it runs");
            if stat_fields(&status).next() == Some("T") {
                return;
            }
            assert!(since.elapsed() < DEADLINE, "it goes on");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Halts it, or lets it go on.
    pub(crate) fn halt(&self, is_halted: bool) {
        let signal = if is_halted {
            Signal::STOP
        } else {
            Signal::CONT
        };
        kill_process(self.pid(), signal).expect("the program runs");
    }

    /// From now on it may have so many descriptors.
    pub(crate) fn limit_descriptors(&self, limit: u64) {
        let limit = Rlimit {
            current: Some(limit),
            maximum: Some(limit),
        };
        prlimit(Some(self.pid()), Resource::Nofile, limit).expect("limits can be lowered");
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> Ended {
        // Its end closes both pipes; a pipe that nobody reads says nothing.
        self.stdout.wait_for_end();
        if self.child.stderr.is_none() {
            self.stderr.wait_for_end();
        }
        let status: ExitStatus = self.child.wait().expect("it is our child");
        Ended {
            status: status.code(),
            stdout: self.stdout.text(),
            stderr: self.stderr.text(),
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

/// What stands behind the name of a process, which may be anything: its state, its parent, and more.
fn stat_fields(stat: &str) -> std::str::SplitWhitespace<'_> {
    let (_, rest) = stat.rsplit_once(')').unwrap_or_default();
    rest.split_whitespace()
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let said = self.stderr.text();
            let lines: Vec<_> = said.lines().collect();
            let last = &lines[lines.len().saturating_sub(LINES_SHOWN)..];
            eprintln!("what the program said at last: {last:#?}");
        }
    }
}

impl Lines {
    fn follow(from: impl Read + Send + 'static) -> Arc<Self> {
        let lines = Arc::new(Self::default());
        thread::spawn({
            let lines = Arc::clone(&lines);
            move || lines.read(from)
        });
        lines
    }

    fn lock(&self) -> MutexGuard<'_, LinesState> {
        self.state.lock().expect("nobody panics with the lines")
    }

    fn read(&self, from: impl Read) {
        let mut reader = BufReader::new(from);
        let mut line = Vec::new();
        while reader
            .read_until(b'\n', &mut line)
            .is_ok_and(|length| length > 0)
        {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            self.lock().lines.push(text);
            self.changed.notify_all();
            line.clear();
        }
        self.lock().has_ended = true;
        self.changed.notify_all();
    }

    /// All lines so far.
    pub(crate) fn text(&self) -> String {
        let state = self.lock();
        state.lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// Lines so far that contain `what`.
    pub(crate) fn count(&self, what: &str) -> usize {
        let state = self.lock();
        let lines = state.lines.iter();
        lines.filter(|line| line.contains(what)).count()
    }

    /// Waits for a line that contains `what`, and returns the first.
    pub(crate) fn wait_for(&self, what: &str) -> String {
        self.wait_for_next(what, 0)
    }

    /// Waits for a line that contains `what` behind `before` others that do.
    pub(crate) fn wait_for_next(&self, what: &str, before: usize) -> String {
        let find = |state: &LinesState| {
            let mut lines = state.lines.iter().filter(|line| line.contains(what));
            lines.nth(before).cloned()
        };
        let is_awaited = |state: &mut LinesState| find(state).is_none() && !state.has_ended;
        let waited = self
            .changed
            .wait_timeout_while(self.lock(), DEADLINE, is_awaited);
        let (state, _) = waited.expect("nobody panics with the lines");
        let found = find(&state);
        let lines = state
            .lines
            .split_at(state.lines.len().saturating_sub(LINES_SHOWN))
            .1
            .to_vec();
        // A panic with the lines in hand would be one for everybody who wants to see them.
        drop(state);
        found.unwrap_or_else(|| panic!("no line says {what:?}: {lines:#?}"))
    }

    fn wait_for_end(&self) {
        let waited = self
            .changed
            .wait_timeout_while(self.lock(), DEADLINE, |state| !state.has_ended);
        let (state, _) = waited.expect("nobody panics with the lines");
        assert!(state.has_ended, "it does not end: {:#?}", state.lines);
    }
}
