//! Logs whose reader takes its time, left and taken over at every moment.

use std::ops::Range;
use std::sync::atomic::AtomicU64;
use std::sync::{OnceLock, mpsc};
use std::thread::JoinHandle;
use std::time::Instant;

use super::*;

/// How long a test waits for what happens at once.
const DEADLINE: Duration = Duration::from_secs(20);

/// A rest that no test waits for.
const LONG_REST: Duration = Duration::from_secs(3600);

/// Lines with these numbers.
fn lines(numbers: Range<usize>) -> Vec<u8> {
    let lines = numbers.map(|number| format!("line {number}\n").into_bytes());
    lines.collect::<Vec<_>>().concat()
}

/// Asserts that `written` is the lines with these numbers, each once and in order.
fn assert_lines(written: &[u8], numbers: Range<usize>) {
    assert_eq!(
        String::from_utf8_lossy(written),
        String::from_utf8_lossy(&lines(numbers))
    );
}

fn wait_until(buffer: &LogBuffer, is_so: fn(&State) -> bool) {
    let began = Instant::now();
    while !is_so(&buffer.lock()) {
        assert!(began.elapsed() < DEADLINE);
        thread::yield_now();
    }
}

fn nothing_is_dropped(_: u64) {
    unreachable!("there is room");
}

/// Where lines go to: each write says that it has begun, and then waits until it is let.
struct Gate {
    begun: mpsc::Sender<()>,
    permits: mpsc::Receiver<()>,
    written: Vec<u8>,
}

impl Write for Gate {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        assert!(piece.len() <= PIECE_BYTES_MAX);
        // The test may be over.
        let _ = self.begun.send(());
        let _ = self.permits.recv();
        self.written.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A log whose writes the test lets through, one by one or, with `open`, all.
struct Log {
    buffer: Arc<LogBuffer>,
    queue: LineQueue,
    writer: JoinHandle<Vec<u8>>,
    begun: mpsc::Receiver<()>,
    permits: mpsc::Sender<()>,
}

impl Log {
    fn start(left: Vec<u8>, rest: Duration) -> Self {
        let buffer = Arc::new(LogBuffer::beginning_with(left));
        let (begin, begun) = mpsc::channel();
        let (permits, permitted) = mpsc::channel();
        let mut gate = Gate {
            begun: begin,
            permits: permitted,
            written: Vec::new(),
        };
        let writing = Arc::clone(&buffer);
        let writer = thread::spawn(move || {
            writing.write_lines(&mut gate, rest, nothing_is_dropped);
            gate.written
        });
        Self {
            queue: LineQueue(Arc::clone(&buffer)),
            buffer,
            writer,
            begun,
            permits,
        }
    }

    fn log(&mut self, lines: &[u8]) {
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            self.queue.write_all(line).expect("never fails");
        }
    }

    /// Waits until the writer is in the middle of a write.
    fn wait_until_stuck(&self) {
        let begun = self.begun.recv_timeout(DEADLINE);
        begun.expect("there is something to write");
    }

    fn let_write(&self) {
        self.permits.send(()).expect("the writer is there");
    }

    fn leave(&self, timeout: Duration) -> Vec<u8> {
        self.buffer.leave(timeout, nothing_is_dropped)
    }

    /// Lets all writes through from now on; what was written when the writer has come to its end.
    fn end(self) -> Vec<u8> {
        drop((self.queue, self.permits));
        self.writer.join().expect("no panic")
    }
}

#[test]
fn lines_are_written_in_order_until_the_queue_is_gone() {
    let mut log = Log::start(Vec::new(), Duration::ZERO);
    log.log(&lines(0..1000));
    assert_lines(&log.end(), 0..1000);
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

#[test]
fn a_line_that_never_has_room_is_told_of_at_once() {
    let (said, is_said) = mpsc::channel();
    static SAID: OnceLock<mpsc::Sender<u64>> = OnceLock::new();
    SAID.set(said).expect("only here");
    let buffer = Arc::new(LogBuffer::default());
    let mut queue = LineQueue(Arc::clone(&buffer));
    let writing = Arc::clone(&buffer);
    let writer = thread::spawn(move || {
        writing.write_lines(&mut io::sink(), Duration::ZERO, |lines| {
            let said = SAID.get().expect("it is set");
            said.send(lines).expect("somebody listens");
        });
    });
    wait_until(&buffer, |state| state.is_writer_waiting);
    queue
        .write_all(&vec![b'x'; BUFFER_BYTES_MAX + 1])
        .expect("never fails");
    assert_eq!(is_said.recv_timeout(DEADLINE), Ok(1));
    drop(queue);
    writer.join().expect("no panic");
}

#[test]
fn a_piece_has_whole_lines_as_far_as_one_write_takes_them() {
    let text = lines(0..1000);
    let mut rest = &text[..];
    while !rest.is_empty() {
        let piece = first_piece(rest);
        assert!(piece.ends_with(b"\n") && piece.len() <= PIECE_BYTES_MAX);
        let more = rest.get(piece.len()..).unwrap_or_default();
        let next = more.split_inclusive(|byte| *byte == b'\n').next();
        assert!(next.is_none_or(|next| piece.len() + next.len() > PIECE_BYTES_MAX));
        rest = more;
    }
    for (line_bytes, piece_bytes) in [
        (PIECE_BYTES_MAX - 1, PIECE_BYTES_MAX - 1),
        (PIECE_BYTES_MAX, PIECE_BYTES_MAX),
        (PIECE_BYTES_MAX + 1, PIECE_BYTES_MAX),
    ] {
        let mut long = vec![b'x'; line_bytes - 1];
        long.extend_from_slice(b"\nnext");
        assert_eq!(first_piece(&long).len(), piece_bytes, "{line_bytes}");
    }
}

/// Takes some bytes, then none for a moment, and then says that it can't at all.
#[derive(Default)]
struct Fickle {
    calls: usize,
    written: Vec<u8>,
}

impl Write for Fickle {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.calls += 1;
        match self.calls {
            1 => {
                self.written.extend_from_slice(&piece[..3]);
                Ok(3)
            }
            2 => Err(io::ErrorKind::Interrupted.into()),
            3 => {
                self.written.extend_from_slice(piece);
                Ok(piece.len())
            }
            4 => Err(io::ErrorKind::BrokenPipe.into()),
            _ => Ok(0),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_rest_of_a_piece_is_written_and_what_no_write_takes_is_lost() {
    let buffer = LogBuffer::beginning_with(lines(0..3000));
    let mut to = Fickle::default();
    buffer.lock().is_ended = true;
    buffer.write_lines(&mut to, Duration::ZERO, nothing_is_dropped);
    let all = lines(0..3000);
    let expected = 3 + first_piece(&all[3..]).len();
    assert_eq!(to.written, all[..expected]);
    // Later lines are tried all the same, once.
    let mut rest = &all[expected..];
    let mut calls = 3;
    while !rest.is_empty() {
        rest = &rest[first_piece(rest).len()..];
        calls += 1;
    }
    assert!(calls > 5 && to.calls == calls, "{} calls", to.calls);
}

#[test]
fn a_healthy_log_is_left_with_nothing_and_without_its_rest() {
    let mut log = Log::start(Vec::new(), LONG_REST);
    log.log(&lines(0..1));
    log.wait_until_stuck();
    // The writer rests after this one, or is about to.
    log.let_write();
    log.log(&lines(1..2));
    log.let_write();
    let began = Instant::now();
    assert_lines(&log.leave(DEADLINE), 0..0);
    assert!(began.elapsed() < DEADLINE);
    assert_lines(&log.end(), 0..2);
}

#[test]
fn an_idle_log_is_left_at_once_and_goes_on() {
    let mut log = Log::start(Vec::new(), Duration::ZERO);
    for number in 0..100 {
        assert_lines(&log.leave(DEADLINE), 0..0);
        log.log(&lines(number..number + 1));
        log.buffer.stay(Vec::new());
        log.wait_until_stuck();
        log.let_write();
    }
    assert_lines(&log.end(), 0..100);
}

#[test]
fn flushing_waits_for_all_lines_and_ends_the_rest() {
    let mut log = Log::start(Vec::new(), LONG_REST);
    for number in 0..10 {
        log.log(&lines(number..number + 1));
        log.let_write();
        LogWriter(Arc::clone(&log.buffer)).flush(DEADLINE);
        assert!(!log.buffer.lock().is_busy());
    }
    assert_lines(&log.end(), 0..10);
}

#[test]
fn lines_gather_while_the_writer_rests() {
    let mut log = Log::start(Vec::new(), LONG_REST);
    log.log(&lines(0..1));
    log.wait_until_stuck();
    log.log(&lines(1..100));
    log.let_write();
    // What came during a round isn't of that round: with it there would be another write.
    assert!(log.begun.recv_timeout(Duration::from_millis(50)).is_err());
    assert_lines(log.buffer.lock().waiting(), 1..100);
    assert_lines(&log.end(), 0..100);
}

/// A log that is stuck with lines that are written, in the middle of a piece, and behind it.
/// Returns the number of the first line of that piece too.
fn stuck_log() -> (Log, usize) {
    let mut log = Log::start(lines(0..1000), Duration::ZERO);
    log.wait_until_stuck();
    log.let_write();
    log.wait_until_stuck();
    log.log(&lines(1000..2000));
    let all = lines(0..1000);
    let written = first_piece(&all);
    let stuck_at = written.iter().filter(|byte| **byte == b'\n').count();
    (log, stuck_at)
}

#[test]
fn a_stuck_log_is_left_with_all_that_is_not_written_in_time() {
    for timeout in [Duration::ZERO, Duration::from_millis(20)] {
        let (mut log, stuck_at) = stuck_log();
        let began = Instant::now();
        let left = LogWriter(Arc::clone(&log.buffer)).leave(timeout);
        let took = began.elapsed();
        assert!(timeout <= took && took < DEADLINE, "{took:?}");
        assert_lines(&left, stuck_at..2000);
        log.log(b"after\n");
        assert_eq!(log.buffer.lock().waiting(), b"after\n");

        // The next program is stuck too, and then another isn't.
        let mut next = Log::start(left, Duration::ZERO);
        next.log(&lines(2000..2010));
        next.wait_until_stuck();
        let left = next.leave(Duration::ZERO);
        assert_lines(&left, stuck_at..2010);
        let mut last = Log::start(left, Duration::ZERO);
        last.log(&lines(2010..2020));
        assert_lines(&last.end(), stuck_at..2020);

        // No program ends the write of the first one here.
        let written = log.end();
        assert!(written.starts_with(&lines(0..stuck_at)));
        let piece = first_piece(&lines(stuck_at..2000)).len();
        assert_eq!(written.len(), lines(0..stuck_at).len() + piece);
        next.end();
    }
}

#[test]
fn a_log_that_stays_loses_nothing_and_repeats_nothing() {
    // Its write ends while the lines are away, and after they came back.
    for ends_away in [true, false] {
        let (mut log, stuck_at) = stuck_log();
        for number in 2000..2003 {
            let left = log.leave(Duration::ZERO);
            assert_lines(&left, stuck_at..number);
            log.log(&lines(number..number + 1));
            LogWriter(Arc::clone(&log.buffer)).stay(left);
        }
        let left = log.leave(Duration::ZERO);
        log.log(&lines(2003..2004));
        if ends_away {
            log.let_write();
            wait_until(&log.buffer, |state| state.written > 0);
            assert_lines(log.buffer.lock().waiting(), 2003..2004);
        }
        log.buffer.stay(left);
        log.log(&lines(2004..2005));
        assert_lines(&log.end(), 0..2005);
    }
}

#[test]
fn leaving_and_staying_at_any_moment_keeps_every_line() {
    let mut log = Log::start(Vec::new(), Duration::from_micros(50));
    for _ in 0..20_000 {
        log.let_write();
    }
    for number in 0..20_000 {
        log.log(&lines(number..number + 1));
        if number % 7 == 0 {
            let timeout = Duration::from_micros(number as u64 % 50);
            let left = log.leave(timeout);
            log.buffer.stay(left);
        }
    }
    assert_lines(&log.end(), 0..20_000);
}

#[test]
fn what_was_left_is_never_dropped_and_takes_the_room_of_what_comes() {
    static SAID: AtomicU64 = AtomicU64::new(0);
    let numbers = 0..2 * BUFFER_BYTES_MAX / lines(0..1).len();
    let left = lines(numbers.clone());
    assert!(left.len() > BUFFER_BYTES_MAX);
    let buffer = LogBuffer::beginning_with(left);
    buffer.push(b"no room\n");
    let left = buffer.leave(Duration::ZERO, |lines| {
        SAID.fetch_add(lines, Ordering::Relaxed);
    });
    assert_eq!(SAID.load(Ordering::Relaxed), 1);
    assert_lines(&left, numbers);
}

#[test]
fn lines_that_were_dropped_are_told_of_in_what_is_left() {
    static BUFFER: OnceLock<Arc<LogBuffer>> = OnceLock::new();
    let buffer = Arc::new(LogBuffer::beginning_with(vec![b'x'; BUFFER_BYTES_MAX]));
    assert!(BUFFER.set(Arc::clone(&buffer)).is_ok());
    buffer.push(b"no room\n");
    let left = buffer.leave(Duration::ZERO, |lines| {
        let buffer = BUFFER.get().expect("it is set");
        buffer.push(format!("{lines} dropped\n").as_bytes());
    });
    assert!(left.ends_with(b"x1 dropped\n"));
    assert_eq!(left.len(), BUFFER_BYTES_MAX + b"1 dropped\n".len());
    assert_eq!(buffer.lock().dropped, 0);
}
