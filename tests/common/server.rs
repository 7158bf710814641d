//! The program under test as a process: its flags, its log, its signals, its end.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

use super::DEADLINE;

/// A server on a port that the system chose; killed when the test is over.
pub(crate) struct Server {
    child: Child,
    address: SocketAddr,
    log: Arc<Log>,
    /// Standard error, where nobody reads it.
    stuck: Option<ChildStderr>,
}

/// What the server has written to standard error so far.
#[derive(Default)]
struct Log {
    state: Mutex<LogState>,
    changed: Condvar,
}

#[derive(Default)]
struct LogState {
    lines: Vec<String>,
    has_ended: bool,
}

impl Server {
    /// A server with default settings.
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// A server with `flags`.
    pub(crate) fn with(flags: &[&str]) -> Self {
        let mut command = program();
        command.args(["--listen", "127.0.0.1:0"]).args(flags);
        Self::spawn(command)
    }

    /// A server that a shell starts, after `setup`.
    pub(crate) fn after(setup: &str, flags: &[&str]) -> Self {
        let mut command = Command::new("sh");
        let script = format!(r#"{setup} && exec "$@""#);
        command.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_crieur")]);
        command.args(["--listen", "127.0.0.1:0"]).args(flags);
        Self::spawn(without_settings(command))
    }

    /// A server whose standard error is a pipe that nobody reads once it listens.
    pub(crate) fn with_stuck_log(flags: &[&str]) -> Self {
        let mut command = program();
        command.args(["--listen", "127.0.0.1:0"]).args(flags);
        let mut child = start(command);
        let mut stderr = child.stderr.take().expect("standard error is piped");
        let mut text = String::new();
        let address = loop {
            // Byte by byte: what a reader took ahead would be room in the pipe.
            let mut byte = [0];
            stderr.read_exact(&mut byte).expect("the server listens");
            text.push(char::from(byte[0]));
            if let Some(address) = text.strip_suffix('\n').and_then(listening_address) {
                break address;
            }
        };
        Self {
            child,
            address,
            log: Arc::default(),
            stuck: Some(stderr),
        }
    }

    fn spawn(command: Command) -> Self {
        let mut child = start(command);
        let stderr = child.stderr.take().expect("standard error is piped");
        let log = Arc::new(Log::default());
        thread::spawn({
            let log = Arc::clone(&log);
            move || log.follow(stderr)
        });
        let line = log.wait_for("listening on ");
        let address = listening_address(&line).expect("the line ends with the address");
        Self {
            child,
            address,
            log,
            stuck: None,
        }
    }

    /// Where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL that the commands take.
    pub(crate) fn url(&self) -> String {
        format!("ws://{}/", self.address)
    }

    /// A connection without a handshake.
    pub(crate) fn tcp(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("the server accepts");
        stream
            .set_read_timeout(Some(DEADLINE))
            .expect("a deadline can be set");
        stream
            .set_write_timeout(Some(DEADLINE))
            .expect("a deadline can be set");
        stream.set_nodelay(true).expect("delays can be turned off");
        stream
    }

    /// Waits for a line of the log that contains `what`.
    pub(crate) fn wait_for_line(&self, what: &str) -> String {
        self.log.wait_for(what)
    }

    /// The log so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().lines.join("\n")
    }

    /// Asks it to stop.
    pub(crate) fn terminate(&self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).expect("the server runs");
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.log.wait_for_end();
        self.child.wait().expect("the server can be waited for")
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_none()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("the server's log:\n{}", self.log());
        }
    }
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, LogState> {
        self.state.lock().expect("nobody panics with the log")
    }

    fn follow(&self, stderr: ChildStderr) {
        let mut reader = BufReader::new(stderr);
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

    fn wait_for(&self, what: &str) -> String {
        let find = |state: &LogState| {
            let mut lines = state.lines.iter();
            lines.find(|line| line.contains(what)).cloned()
        };
        let (state, _) = self
            .changed
            .wait_timeout_while(self.lock(), DEADLINE, |state| {
                find(state).is_none() && !state.has_ended
            })
            .expect("nobody panics with the log");
        find(&state).unwrap_or_else(|| panic!("no line says {what:?}: {:#?}", state.lines))
    }

    fn wait_for_end(&self) {
        let (state, _) = self
            .changed
            .wait_timeout_while(self.lock(), DEADLINE, |state| !state.has_ended)
            .expect("nobody panics with the log");
        assert!(state.has_ended, "the server does not end");
    }
}

/// Runs the program to its end, with `input` on standard input.
pub(crate) fn run<S: AsRef<OsStr>>(arguments: &[S], input: &str) -> Output {
    let mut command = program();
    command.args(arguments);
    command.stdin(Stdio::piped());
    command.stdout(Stdio::piped());
    let mut child = start(command);
    let mut stdin = child.stdin.take().expect("standard input is piped");
    // Who wants no input may be gone before it is written.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("the program runs")
}

fn program() -> Command {
    without_settings(Command::new(env!("CARGO_BIN_EXE_crieur")))
}

/// The environment of whoever runs the tests must not change what they see.
fn without_settings(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CRIEUR_") {
            command.env_remove(name);
        }
    }
    command
}

fn start(mut command: Command) -> Child {
    command
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts")
}

fn listening_address(line: &str) -> Option<SocketAddr> {
    let (_, address) = line.split_once("listening on ")?;
    address.parse().ok()
}
