//! Logs that never stop the loop: lines gather in a bounded buffer, which a thread writes to
//! standard error. What the buffer doesn't take is dropped and counted.
//!
//! The thread is woken for the first line of a burst only; it rests a moment after each write,
//! so that a busy server pays for a copy a line and not for a system call.

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
    /// Told when the writer, which waits, has something to do.
    has_lines: Condvar,
    /// Told when the writer has written all there was.
    is_written: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<u8>,
    dropped: u64,
    is_writer_waiting: bool,
    is_writing: bool,
    is_ended: bool,
}

impl LogWriter {
    /// Makes lines of `level` and above go, in `format`, to standard error.
    pub(super) fn start(level: LevelFilter, format: LogFormat) -> Result<Self, CliError> {
        let buffer = Arc::new(LogBuffer::default());
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
        let is_busy = |state: &mut State| state.is_writing || !state.lines.is_empty();
        let state = self.0.lock();
        drop(
            self.0
                .is_written
                .wait_timeout_while(state, timeout, is_busy),
        );
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
    /// Nothing that is held while the lock is can panic, and a line is not worth a panic.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.lines.len() + line.len() > BUFFER_BYTES_MAX {
            state.dropped += 1;
            LOG_LINES_DROPPED.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.lines.extend_from_slice(line);
        if mem::replace(&mut state.is_writer_waiting, false) {
            self.has_lines.notify_one();
        }
    }

    /// Writes until the queue is gone. What can't be written is lost; there is nowhere to say
    /// so.
    fn write_lines(&self, to: &mut impl Write, rest: Duration, say_dropped: fn(u64)) {
        let mut lines = Vec::new();
        let mut state = self.lock();
        loop {
            if state.lines.is_empty() {
                self.is_written.notify_all();
                if state.is_ended {
                    return;
                }
                state.is_writer_waiting = true;
                state = self
                    .has_lines
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            mem::swap(&mut lines, &mut state.lines);
            let dropped = mem::take(&mut state.dropped);
            state.is_writing = true;
            drop(state);
            let _ = to.write_all(&lines);
            if dropped > 0 {
                say_dropped(dropped);
            }
            lines.clear();
            lines.shrink_to(BUFFER_BYTES_KEPT);
            thread::sleep(rest);
            state = self.lock();
            state.is_writing = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn lines_are_written_in_order_until_the_queue_is_gone() {
        let buffer = Arc::new(LogBuffer::default());
        let mut queue = LineQueue(Arc::clone(&buffer));
        let writer = thread::spawn(move || {
            let mut written = Vec::new();
            buffer.write_lines(&mut written, Duration::ZERO, |_| {
                unreachable!("there is room")
            });
            written
        });
        let mut expected = String::new();
        for number in 0..1000 {
            let line = format!("{number}\n");
            queue.write_all(line.as_bytes()).expect("never fails");
            expected.push_str(&line);
        }
        drop(queue);
        let written = writer.join().expect("no panic");
        assert_eq!(String::from_utf8_lossy(&written), expected);
    }

    #[test]
    fn a_full_buffer_drops_and_says_so() {
        static SAID: AtomicU64 = AtomicU64::new(0);
        let buffer = Arc::new(LogBuffer::default());
        let mut queue = LineQueue(Arc::clone(&buffer));
        let long = vec![b'x'; BUFFER_BYTES_MAX - 1];
        for line in [&long[..], b"\n", b"c", b"d"] {
            assert_eq!(queue.write(line).expect("never fails"), line.len());
        }
        drop(queue);
        let mut written = Vec::new();
        buffer.write_lines(&mut written, Duration::ZERO, |lines| {
            SAID.fetch_add(lines, Ordering::Relaxed);
        });
        assert_eq!(written.len(), BUFFER_BYTES_MAX);
        assert!(written.ends_with(b"x\n"));
        assert_eq!(SAID.load(Ordering::Relaxed), 2);
    }
}
