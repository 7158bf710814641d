//! Logs that never stop the loop: lines go through a bounded queue to a thread that writes
//! them. What the queue doesn't take is dropped and counted.

use std::io::{self, Write};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use super::CliError;

/// Lines that may wait to be written.
const LINES_MAX: usize = 4096;

enum Entry {
    Line(Vec<u8>),
    /// Answer when all before it is written.
    Flush(SyncSender<()>),
}

/// The thread that writes to standard error.
pub(super) struct LogWriter {
    sender: SyncSender<Entry>,
}

/// What the logger writes its lines to.
struct LineQueue {
    sender: SyncSender<Entry>,
    dropped: Arc<AtomicU64>,
}

impl LogWriter {
    /// Makes lines of `level` and above go to standard error.
    pub(super) fn start(level: &str) -> Result<Self, CliError> {
        let level = log::LevelFilter::from_str(level).map_err(|_| {
            CliError::usage(format!(
                "--log {level:?}: expected error, warn, info, debug, trace or off"
            ))
        })?;
        let (sender, receiver) = sync_channel(LINES_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let queue = LineQueue {
            sender: sender.clone(),
            dropped: Arc::clone(&dropped),
        };
        let spawned = thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_lines(&receiver, &dropped, &mut io::stderr()));
        spawned.map_err(|error| CliError::failure(format!("no thread for the log: {error}")))?;
        env_logger::Builder::new()
            .filter_level(level)
            .format_timestamp_millis()
            .format_target(false)
            .target(env_logger::Target::Pipe(Box::new(queue)))
            .init();
        Ok(Self { sender })
    }

    /// Waits until what has been logged is written, but no longer than `timeout`.
    pub(super) fn flush(&self, timeout: Duration) {
        let (sender, receiver) = sync_channel(1);
        if self.sender.try_send(Entry::Flush(sender)).is_ok() {
            // A stuck pipe must not keep the process.
            let _ = receiver.recv_timeout(timeout);
        }
    }
}

impl Write for LineQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.sender.try_send(Entry::Line(line.to_vec())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes until every sender is gone. What can't be written is lost; there is nowhere to say so.
fn write_lines(receiver: &Receiver<Entry>, dropped: &AtomicU64, to: &mut impl Write) {
    for entry in receiver {
        match entry {
            Entry::Line(line) => {
                let _ = to.write_all(&line);
                let count = dropped.swap(0, Ordering::Relaxed);
                if count > 0 {
                    let _ = writeln!(to, "[{count} lines of the log were dropped]");
                }
            }
            Entry::Flush(sender) => {
                let _ = to.flush();
                let _ = sender.try_send(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_and_says_so() {
        let (sender, receiver) = sync_channel(2);
        let dropped = Arc::new(AtomicU64::new(0));
        let mut queue = LineQueue {
            sender,
            dropped: Arc::clone(&dropped),
        };
        for line in ["a\n", "b\n", "c\n", "d\n"] {
            assert_eq!(queue.write(line.as_bytes()).expect("never fails"), 2);
        }
        drop(queue);
        let mut written = Vec::new();
        write_lines(&receiver, &dropped, &mut written);
        assert_eq!(
            String::from_utf8_lossy(&written),
            "a\n[2 lines of the log were dropped]\nb\n"
        );
    }
}
