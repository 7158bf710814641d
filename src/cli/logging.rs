//! Logs that never stop the loop: lines gather in a bounded buffer, which a thread writes to
//! standard error. What the buffer doesn't take is dropped and counted.
//!
//! The thread is woken for the first line of a burst only; it rests a moment after each round of
//! writing, so that a busy server pays for a copy a line and not for a system call.
//!
//! What isn't written can be left to the program that this process becomes. The thread notes
//! after each piece how far it is, so that all lines it hasn't written can be taken from it at any
//! time, in order.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::mem;
use std::os::unix::fs::OpenOptionsExt;
use std::str::FromStr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use log::{LevelFilter, warn};

use crate::config::LogFormat;
use crate::metrics::LOG_LINES_DROPPED;

use super::error::CliError;
use super::json_line;

/// Bytes of lines that may wait to be written.
const BUFFER_BYTES_MAX: usize = 256 * 1024;

/// Bytes of one write: a pipe takes as many as a whole or not at all (`PIPE_BUF`, pipe(7)).
const PIECE_BYTES_MAX: usize = 4096;

/// Lines that were dropped are told of when no more than this waits: that line has to have room.
const DROPS_SAID_BELOW_BYTES: usize = BUFFER_BYTES_MAX / 2;

/// Memory that a burst took beyond this is given back.
const BUFFER_BYTES_KEPT: usize = 16 * 1024;

/// What is read of a file that says the level.
const LEVEL_FILE_BYTES_MAX: u64 = 1024;

/// How long lines gather while they come one after the other.
const REST: Duration = Duration::from_millis(5);

/// The thread that writes to standard error.
pub(super) struct LogWriter(Arc<LogBuffer>);

/// What the logger writes its lines to.
struct LineQueue(Arc<LogBuffer>);

/// The level that `--log` names, or the first line of the file that it names.
pub(super) fn read_level(flag: &str) -> Result<LevelFilter, CliError> {
    let Some(path) = flag.strip_prefix('@') else {
        return parse_level(flag).map_err(|error| CliError::usage(format!("--log {error}")));
    };
    let failure = |error: &dyn fmt::Display| CliError::failure(format!("--log {flag}: {error}"));
    let text = read_start(path).map_err(|error| failure(&error))?;
    let line = text.lines().next().unwrap_or_default();
    parse_level(line.trim()).map_err(|error| failure(&error))
}

fn parse_level(level: &str) -> Result<LevelFilter, String> {
    LevelFilter::from_str(level)
        .map_err(|_| format!("{level:?}: expected error, warn, info, debug, trace or off"))
}

/// As much of a file as any level takes.
fn read_start(path: &str) -> io::Result<String> {
    // Opening a pipe would wait for its writer.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let mut text = String::new();
    file.take(LEVEL_FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

#[derive(Default)]
struct LogBuffer {
    state: Mutex<State>,
    /// Told when the writer, which waits or rests, has something to do.
    has_lines: Condvar,
    /// Told when the writer has written all there was, while `Flushing`.
    is_written: Condvar,
}

#[derive(Default)]
struct State {
    /// What is written already, up to `written`, and the lines that wait. The writer writes a
    /// copy of their first piece without the lock; they wait until it is done.
    lines: Vec<u8>,
    /// Bytes of `lines` that are written. While `Parked`: of what was taken out of it, which goes
    /// on being written if the writer was in the middle of a piece.
    written: usize,
    /// Lines that there was no room for, and that the log doesn't tell of yet.
    dropped: u64,
    mode: Mode,
    is_writer_waiting: bool,
    is_ended: bool,
}

/// What the writer does with the lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mode {
    /// It writes in rounds, between which it rests while lines gather.
    #[default]
    Gathering,
    /// It writes without a rest: somebody waits.
    Flushing,
    /// It writes nothing: the lines were taken. Those that come wait.
    Parked,
}

impl LogWriter {
    /// Makes lines of `level` and above go, in `format`, to standard error, after `lines`: those
    /// that this process's previous program left.
    pub(super) fn start(
        level: LevelFilter,
        format: LogFormat,
        lines: Vec<u8>,
    ) -> Result<Self, CliError> {
        let buffer = Arc::new(LogBuffer::beginning_with(lines));
        let writer = Arc::clone(&buffer);
        let spawned = thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || writer.write_lines(&mut io::stderr(), REST, say_dropped));
        spawned.map_err(|error| CliError::failure(format!("no thread for the log: {error}")))?;
        let mut builder = env_logger::Builder::new();
        if format == LogFormat::Json {
            builder.format(|line, record| {
                let time = line.timestamp_millis();
                json_line::write(line, time, record)
            });
        }
        let logger = builder
            // The level may change; this one can't, and lets through what that does.
            .filter_level(LevelFilter::Trace)
            .format_timestamp_millis()
            .format_target(false)
            // Lines have no line breaks: to look for some costs half as much as to write them.
            .format_indent(None)
            .target(env_logger::Target::Pipe(Box::new(LineQueue(Arc::clone(
                &buffer,
            )))))
            .build();
        log::set_boxed_logger(Box::new(logger)).map_err(CliError::failure)?;
        log::set_max_level(level);
        Ok(Self(buffer))
    }

    /// Waits until what has been logged is written, but no longer than `timeout`: a stuck pipe
    /// must not keep the process.
    pub(super) fn flush(&self, timeout: Duration) {
        self.0.flush(timeout).mode = Mode::Gathering;
    }

    /// Waits like `flush`, takes what isn't written by then, and keeps the writer from going on:
    /// this process becomes another program, which begins with these lines. Lines that are
    /// logged from now on wait for `stay`, which must come before another `leave` or `flush`.
    ///
    /// A piece whose write hasn't returned is taken too. A write that waits for room in a pipe or
    /// a socket has written nothing of it, and execve(2) ends it; should it succeed before, these
    /// lines are there twice.
    pub(super) fn leave(&self, timeout: Duration) -> Vec<u8> {
        self.0.leave(timeout, say_dropped)
    }

    /// Goes on with the lines that `leave` took, since no other program does. None is lost, and
    /// none is written twice.
    pub(super) fn stay(&self, lines: Vec<u8>) {
        self.0.stay(lines);
    }
}

/// A line like any other, which comes after those that there was room for.
fn say_dropped(lines: u64) {
    warn!("{lines} lines of the log were dropped");
}

impl Write for LineQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LineQueue {
    fn drop(&mut self) {
        self.0.lock().is_ended = true;
        self.0.has_lines.notify_one();
    }
}

impl LogBuffer {
    /// All of `lines` is written, however much that is; those that come after have to fit.
    fn beginning_with(lines: Vec<u8>) -> Self {
        let state = State {
            lines,
            ..State::default()
        };
        Self {
            state: Mutex::new(state),
            ..Self::default()
        }
    }

    /// Nothing that is held while the lock is can panic, and a line is not worth a panic.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.waiting().len() + line.len() > BUFFER_BYTES_MAX {
            state.dropped += 1;
            LOG_LINES_DROPPED.fetch_add(1, Ordering::Relaxed);
        } else {
            state.lines.extend_from_slice(line);
        }
        if mem::replace(&mut state.is_writer_waiting, false) {
            self.has_lines.notify_one();
        }
    }

    /// Waits until nothing is to be written, but no longer than `timeout`.
    fn flush(&self, timeout: Duration) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        debug_assert_ne!(state.mode, Mode::Parked, "the writer stays before");
        state.mode = Mode::Flushing;
        if state.is_busy() {
            self.has_lines.notify_one();
        }
        let waited = self
            .is_written
            .wait_timeout_while(state, timeout, |state| state.is_busy());
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn leave(&self, timeout: Duration, say_dropped: fn(u64)) -> Vec<u8> {
        let mut state = self.flush(timeout);
        state.forget_written();
        state.mode = Mode::Parked;
        state.is_writer_waiting = false;
        let mut lines = mem::take(&mut state.lines);
        let dropped = mem::take(&mut state.dropped);
        drop(state);
        if dropped > 0 {
            // There is room for this line now.
            say_dropped(dropped);
            lines.append(&mut self.lock().lines);
        }
        lines
    }

    fn stay(&self, mut lines: Vec<u8>) {
        let mut state = self.lock();
        // What was written of them meanwhile, `written` says.
        lines.append(&mut state.lines);
        state.lines = lines;
        state.mode = Mode::Gathering;
        self.has_lines.notify_one();
    }

    /// Writes until the queue is gone. What can't be written is lost; there is nowhere to say
    /// so.
    fn write_lines(&self, to: &mut impl Write, rest: Duration, say_dropped: fn(u64)) {
        let mut piece = Vec::with_capacity(PIECE_BYTES_MAX);
        let mut state = self.lock();
        loop {
            if !state.is_busy() {
                if state.mode == Mode::Flushing {
                    self.is_written.notify_all();
                }
                if state.is_ended {
                    return;
                }
                state = self.wait_for_lines(state);
                continue;
            }
            state = self.write_round(state, to, &mut piece);
            let dropped = state.dropped;
            if dropped > 0 && state.waiting().len() <= DROPS_SAID_BELOW_BYTES {
                drop(state);
                say_dropped(dropped);
                state = self.lock();
                // Not before: whoever flushes waits for that line too.
                state.dropped = state.dropped.saturating_sub(dropped);
            }
            let is_resting = |state: &mut State| state.mode == Mode::Gathering && !state.is_ended;
            let rested = self.has_lines.wait_timeout_while(state, rest, is_resting);
            state = rested.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn wait_for_lines<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        state.lines.shrink_to(BUFFER_BYTES_KEPT);
        // Only `stay` wakes a writer that is parked.
        state.is_writer_waiting = state.mode != Mode::Parked;
        self.has_lines
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what waits now, but not what comes meanwhile: lines that come one after the other
    /// have to gather.
    fn write_round<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        to: &mut impl Write,
        piece: &mut Vec<u8>,
    ) -> MutexGuard<'a, State> {
        let mut left = state.waiting().len();
        while left > 0 && state.mode != Mode::Parked {
            piece.clear();
            piece.extend_from_slice(first_piece(state.waiting()));
            if piece.is_empty() {
                // Not all that was taken has come back.
                break;
            }
            drop(state);
            let done = write_some(to, piece);
            state = self.lock();
            state.written += done;
            left = left.saturating_sub(done);
        }
        if state.mode != Mode::Parked {
            state.forget_written();
        }
        state
    }
}

impl State {
    /// The lines that aren't written, without those that were taken.
    fn waiting(&self) -> &[u8] {
        let written = match self.mode {
            Mode::Gathering | Mode::Flushing => self.written,
            Mode::Parked => 0,
        };
        self.lines.get(written..).unwrap_or_default()
    }

    /// Whether the writer has something to do.
    fn is_busy(&self) -> bool {
        self.mode != Mode::Parked && (!self.waiting().is_empty() || self.dropped > 0)
    }

    fn forget_written(&mut self) {
        self.lines.drain(..self.written.min(self.lines.len()));
        self.written = 0;
    }
}

/// The whole lines that one write takes, or as much of the first one.
fn first_piece(lines: &[u8]) -> &[u8] {
    let most = &lines[..lines.len().min(PIECE_BYTES_MAX)];
    let whole = memchr::memrchr(b'\n', most).map_or(most.len(), |last| last + 1);
    &most[..whole]
}

/// How many bytes of a piece are done with: written, or lost if no write takes them.
fn write_some(to: &mut impl Write, piece: &[u8]) -> usize {
    match to.write(piece) {
        Ok(0) => piece.len(),
        Ok(written) => written,
        Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
        Err(_) => piece.len(),
    }
}

#[cfg(test)]
mod tests;
