//! A server of its own for each test.

use std::ffi::OsStr;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::DEADLINE;
use super::program::{Ended, Program, crieur, forget_settings};

/// A server on a port that the system chose; killed when the test is over.
pub(crate) struct Server {
    program: Program,
    address: SocketAddr,
}

impl Server {
    /// A server with default settings.
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// A server with `flags`.
    pub(crate) fn with(flags: &[&str]) -> Self {
        Self::listening(crieur(), flags)
    }

    /// A server that a shell starts after `setup`.
    pub(crate) fn after(setup: &str, flags: &[&str]) -> Self {
        Self::listening(after(setup), flags)
    }

    /// A server that is started from `path`, with these variables in its environment.
    pub(crate) fn at(path: &Path, variables: &[(&str, &OsStr)], flags: &[&str]) -> Self {
        let mut command = Command::new(path);
        forget_settings(&mut command);
        command
            .stdin(Stdio::piped())
            .envs(variables.iter().copied());
        Self::listening(command, flags)
    }

    /// A server that is handed `socket`, called `name`, which stays open when it ends.
    pub(crate) fn activated(socket: impl Into<OwnedFd>, name: &str, flags: &[&str]) -> Self {
        Self::listening(activated(socket.into(), name), flags)
    }

    /// A server with `flags` whose standard error is a terminal.
    pub(crate) fn at_terminal(flags: &[&str]) -> Self {
        Self::listening_in(Program::start_at_terminal, crieur(), flags)
    }

    fn listening(command: Command, flags: &[&str]) -> Self {
        Self::listening_in(Program::start, command, flags)
    }

    fn listening_in(start: fn(Command) -> Program, mut command: Command, flags: &[&str]) -> Self {
        command.args(["--listen", "127.0.0.1:0"]).args(flags);
        let program = start(command);
        let line = program.stderr.wait_for("listening on ");
        let address = listening_address(&line).expect("the line ends with the address");
        Self { program, address }
    }

    /// The same, of a server whose log can't say where it listens.
    pub(crate) fn unheard_after(setup: &str, flags: &[&str]) -> Self {
        let mut command = after(setup);
        command.args(["--listen", "127.0.0.1:0"]).args(flags);
        let program = Program::start_unread(command);
        let address = SocketAddr::from(([127, 0, 0, 1], program.listening_port()));
        Self { program, address }
    }

    /// A server with these variables in its environment.
    pub(crate) fn with_environment(variables: &[(&str, &OsStr)], flags: &[&str]) -> Self {
        let mut command = crieur();
        command.envs(variables.iter().copied());
        Self::listening(command, flags)
    }

    /// A server whose standard error is a pipe that nobody reads once it listens.
    pub(crate) fn with_stuck_log(flags: &[&str]) -> Self {
        let mut command = crieur();
        command.args(["--listen", "127.0.0.1:0"]).args(flags);
        let mut program = Program::start_unread(command);
        let stderr = program.unread_stderr().expect("nobody reads it yet");
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
        Self { program, address }
    }

    /// Where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens for publishers, at a TCP address.
    pub(crate) fn publish_address(&self) -> SocketAddr {
        let line = self.wait_for_line("listening for publishers on 1");
        let (_, address) = line.split_once("publishers on ").expect("just found");
        address.parse().expect("the line ends with the address")
    }

    /// The URL that the commands take.
    pub(crate) fn url(&self) -> String {
        format!("ws://{}/", self.address)
    }

    /// A connection without a handshake.
    pub(crate) fn tcp(&self) -> TcpStream {
        Self::tcp_to(self.address)
    }

    /// One to another address.
    pub(crate) fn tcp_to(address: SocketAddr) -> TcpStream {
        with_deadline(TcpStream::connect(address).expect("the server accepts"))
    }

    /// The same, with so small a receive buffer that what isn't read soon backs up.
    pub(crate) fn narrow_tcp(&self) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket
            .set_recv_buffer_size(4096)
            .expect("buffers can be small");
        socket
            .connect_timeout(&self.address.into(), DEADLINE)
            .expect("the server accepts");
        with_deadline(socket.into())
    }

    /// Waits for a line of the log that contains `what`.
    pub(crate) fn wait_for_line(&self, what: &str) -> String {
        self.program.stderr.wait_for(what)
    }

    /// The log so far.
    pub(crate) fn log(&self) -> String {
        self.program.stderr.text()
    }

    /// The process.
    pub(crate) const fn program(&self) -> &Program {
        &self.program
    }

    /// From now on nobody can read what it writes to standard error.
    pub(crate) fn drop_stderr(&mut self) {
        self.program.drop_stderr();
    }

    /// Waits until it has `descriptors` open at most: connections that are gone are forgotten.
    pub(crate) fn wait_for_descriptors(&self, descriptors: usize) {
        self.wait_for_fewer(descriptors, "descriptors", Program::descriptors);
    }

    /// Waits until it has `bytes` of memory at most.
    pub(crate) fn wait_for_memory(&self, bytes: usize) {
        self.wait_for_fewer(bytes, "bytes", Program::memory_bytes);
    }

    /// There is no event for it: the system has to be asked.
    fn wait_for_fewer(&self, wanted: usize, what: &str, count: fn(&Program) -> usize) {
        let since = Instant::now();
        loop {
            let counted = count(&self.program);
            if counted <= wanted {
                return;
            }
            assert!(
                since.elapsed() < DEADLINE,
                "{counted} {what} instead of {wanted}"
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asks it to stop.
    pub(crate) fn terminate(&self) {
        self.program.terminate();
    }

    /// Kills it: it is gone afterwards.
    pub(crate) fn kill(&mut self) {
        self.program.kill();
    }

    /// Asks it to read its files again.
    pub(crate) fn hang_up(&self) {
        self.program.hang_up();
    }

    /// Asks it to become the program that stands at its path.
    pub(crate) fn ask_to_hand_over(&self) {
        self.program.ask_to_hand_over();
    }

    /// Has it become the program that stands at its path, without losing a connection, and returns what that says.
    pub(crate) fn hand_over(&self) -> String {
        let line = self.next_line("took over from crieur", || self.ask_to_hand_over());
        assert!(line.contains(", 0 lost, in "), "{line}");
        line
    }

    /// The same where the program that stands there isn't to take over; returns why not.
    pub(crate) fn fail_to_hand_over(&self) -> String {
        const SAID: &str = "this program goes on: ";
        let line = self.next_line(SAID, || self.ask_to_hand_over());
        assert!(line.contains("ERROR"), "{line}");
        let (_, reason) = line.split_once(SAID).expect("just found");
        reason.to_owned()
    }

    /// The next line of the log that contains `what`, of those that come when `act` is called.
    pub(crate) fn next_line(&self, what: &str, act: impl FnOnce()) -> String {
        let before = self.program.stderr.count(what);
        act();
        self.program.stderr.wait_for_next(what, before)
    }

    /// Halts it, or lets it go on.
    pub(crate) fn halt(&self, is_halted: bool) {
        self.program.halt(is_halted);
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> Ended {
        self.program.wait()
    }

    /// From now on it may have so many descriptors.
    pub(crate) fn limit_descriptors(&self, limit: u64) {
        self.program.limit_descriptors(limit);
    }
}

/// The command crieur in a shell that runs `setup` first.
fn after(setup: &str) -> Command {
    let mut command = Command::new("sh");
    forget_settings(&mut command);
    let script = format!(r#"{setup} && exec "$@""#);
    command.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_crieur")]);
    command
}

/// Runs a program to its end that is handed `socket`, called `name`.
pub(crate) fn activate(socket: impl Into<OwnedFd>, name: &str) -> Ended {
    Program::start(activated(socket.into(), name)).wait()
}

fn activated(socket: OwnedFd, name: &str) -> Command {
    let variables = format!("LISTEN_FDS=1 LISTEN_PID=$$ LISTEN_FDNAMES={name}");
    // What is run by exec keeps the number of the process.
    let mut command = after(&format!("exec 3<&0 </dev/null && export {variables}"));
    command.stdin(Stdio::from(socket));
    command
}

fn with_deadline(stream: TcpStream) -> TcpStream {
    let deadline: Option<Duration> = Some(DEADLINE);
    stream.set_read_timeout(deadline).expect("not zero");
    stream.set_write_timeout(deadline).expect("not zero");
    stream.set_nodelay(true).expect("delays can be turned off");
    stream
}

fn listening_address(line: &str) -> Option<SocketAddr> {
    let (_, address) = line.split_once("listening on ")?;
    // In JSON a quote follows.
    address.split('"').next()?.parse().ok()
}
