//! The states of an exchange, by what goes in and what comes out. Time moves by hand.

use std::cell::Cell;
use std::io::IoSlice;

use super::*;

thread_local! {
    /// Whether each step of a test is followed by a handover to a successor.
    static IS_CARRIED: Cell<bool> = const { Cell::new(false) };
}

const BODY_BYTES_MAX: usize = 1000;

const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n";

/// An exchange whose owner takes what is posted, answers it, and has nothing else; with a record of what
/// happened.
pub(super) struct Bench {
    pub(super) exchange: Exchange,
    pub(super) now: Timestamp,
    timeouts: Timeouts,
    pub(super) head_bytes_max: usize,
    pub(super) record: Vec<String>,
    /// Whether what is posted is answered later, by the test.
    pub(super) answers_later: bool,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self {
            exchange: Exchange::new(Timestamp::ZERO),
            now: Timestamp::ZERO,
            timeouts: Timeouts::default(),
            head_bytes_max: 4096,
            record: Vec::new(),
            answers_later: false,
        }
    }

    pub(super) fn receive(&mut self, bytes: &[u8]) {
        let mut received = bytes.to_vec();
        let now = self.now;
        let mut input = self.exchange.begin_turn(&mut received, usize::MAX);
        while let Some(event) = self.exchange.next_event(&mut input, self.head_bytes_max) {
            let exchange = &mut self.exchange;
            let line = match event {
                Event::Request { head, framing } if head.method == "POST" => {
                    let received = exchange.receive(&head, framing, BODY_BYTES_MAX, now);
                    received.expect("tests post little");
                    continue;
                }
                Event::Body { body, stays } => {
                    let line = format!("body {}", String::from_utf8_lossy(&body));
                    let response = Response::new(Status::OK, "posted");
                    if self.answers_later {
                        exchange.await_answer(stays, now);
                    } else if stays {
                        exchange.answer(&response, Duration::ZERO, now);
                    } else {
                        exchange.respond(&response, Duration::ZERO, now);
                    }
                    line
                }
                Event::Request { head, .. } => {
                    let line = format!("request {}", head.target);
                    let response = Response::new(Status::NOT_FOUND, "nothing");
                    exchange.respond(&response, Duration::ZERO, now);
                    line
                }
                Event::Rejected(rejection) => {
                    exchange.respond(&rejection.response(), Duration::ZERO, now);
                    format!("rejected: {rejection}")
                }
                Event::Upgrade { .. } => {
                    self.record.push("upgrade".to_owned());
                    break;
                }
            };
            self.record.push(line);
        }
        self.exchange.end_turn(input, now);
        self.exchange.check_invariants();
        self.carry();
    }

    /// Hands the exchange over to a successor, in a test that is run so. One that is closed would be dropped.
    fn carry(&mut self) {
        if IS_CARRIED.get() && !self.exchange.is_closed() {
            self.exchange = saved::tests::carried(&self.exchange);
        }
    }

    /// What waits to be written; the socket takes all of it.
    pub(super) fn sent(&mut self) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 64];
        let filled = self.exchange.buffers().queue().gather(&mut slices);
        let slices = slices[..filled].iter();
        let unsent: Vec<_> = slices.flat_map(|slice| slice.to_vec()).collect();
        self.exchange.handle_sent(unsent.len());
        self.carry();
        unsent
    }

    fn record(&mut self) -> Vec<String> {
        std::mem::take(&mut self.record)
    }

    fn wait_ms(&mut self, millis: u64) -> Option<Expiry> {
        self.now = self.now + Duration::from_millis(millis);
        self.handle_timeout()
    }

    pub(super) fn handle_timeout(&mut self) -> Option<Expiry> {
        let expiry = self.exchange.handle_timeout(self.now, &self.timeouts);
        if expiry == Some(Expiry::Request) {
            let late = Response::new(Status::REQUEST_TIMEOUT, "late");
            self.exchange.respond(&late, Duration::ZERO, self.now);
        }
        self.carry();
        expiry
    }

    /// Milliseconds until the next deadline.
    fn deadline_ms(&self) -> Option<u128> {
        let deadline = self.exchange.poll_timeout(&self.timeouts)?;
        Some((deadline - self.now).as_millis())
    }
}

#[test]
fn all_that_follows_is_so_with_a_handover_after_each_step() {
    IS_CARRIED.set(true);
    a_request_that_is_no_upgrade();
    a_bad_request_is_answered();
    a_handshake_must_be_finished_in_time();
    requests_are_answered_one_after_the_other_up_to_an_upgrade();
    empty_lines_in_front_of_a_request_are_passed_over();
    an_empty_line_behind_a_body_is_no_request();
    the_last_request_ends_the_connection();
    heads_bodies_and_silence_have_their_times();
    an_answer_may_come_later_and_what_is_behind_its_request_waits();
    an_answer_is_owed_to_a_client_that_has_shut_its_side();
}

#[test]
fn a_request_that_is_no_upgrade() {
    let mut bench = Bench::new();
    bench.receive(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\nGET /y HTTP/1.1\r\n\r\n");
    assert_eq!(
        bench.record(),
        ["request /x"],
        "the answer is the last of its connection"
    );
    assert!(bench.sent().starts_with(b"HTTP/1.1 404 "));
    assert!(bench.exchange.take_shutdown() && !bench.exchange.take_shutdown());
}

#[test]
fn a_bad_request_is_answered() {
    let mut bench = Bench::new();
    bench.receive(b"GET / HTTP/1.1\r\nHost : a\r\n\r\n");
    assert_eq!(bench.record(), [format!("rejected: {}", HeadError::Field)]);
    assert!(bench.sent().starts_with(b"HTTP/1.1 400 "));
}

#[test]
fn a_handshake_must_be_finished_in_time() {
    let mut bench = Bench::new();
    bench.receive(b"GET / HTTP/1.1\r\n");
    assert_eq!(bench.deadline_ms(), Some(10_000));
    assert_eq!(bench.wait_ms(9_999), None);
    assert_eq!(bench.wait_ms(1), Some(Expiry::Request));
    assert!(bench.sent().starts_with(b"HTTP/1.1 408 "));
    assert_eq!(bench.wait_ms(5_000), Some(Expiry::Close));
    assert!(bench.exchange.is_closed());
}

#[test]
fn requests_are_answered_one_after_the_other_up_to_an_upgrade() {
    let posts = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
        POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nd\r\n2\r\nef\r\n0\r\n\r\n\
        POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    let stream = [&posts[..], UPGRADE].concat();
    for split in 0..stream.len() {
        let mut bench = Bench::new();
        bench.receive(&stream[..split]);
        bench.receive(&stream[split..]);
        assert_eq!(
            bench.record,
            ["body abc", "body def", "body ", "upgrade"],
            "{split}"
        );
        let sent = String::from_utf8(bench.sent()).expect("text");
        assert_eq!(sent.matches("HTTP/1.1 200 OK\r\n").count(), 3);
    }
}

#[test]
fn empty_lines_in_front_of_a_request_are_passed_over() {
    let post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n";
    let request = |empty_lines: usize| [&b"\r\n".repeat(empty_lines)[..], post, b"x"].concat();
    let most = usize::from(EMPTY_LINES_MAX);
    let run = |stream: &[u8], split: usize| {
        let mut bench = Bench::new();
        bench.receive(&stream[..split]);
        bench.receive(&stream[split..]);
        bench
    };
    let stream = [request(most), request(1), request(most), request(0)].concat();
    for split in 0..stream.len() {
        let bench = run(&stream, split);
        assert_eq!(bench.record, ["body x"; 4], "{split}");
        assert!(bench.exchange.is_between_requests());
    }
    for bad in ["\n", "\r\r\n", "\rGET ", " \r\n"].map(str::as_bytes) {
        for stream in [bad.to_vec(), [b"\r\n", bad].concat()] {
            for split in 0..stream.len() {
                let bench = run(&stream, split);
                let expected = format!("rejected: {}", HeadError::RequestLine);
                assert_eq!(bench.record, [expected], "{stream:?} {split}");
            }
        }
    }
    let stream = request(most + 1);
    for split in 0..=2 * most + 1 {
        assert_eq!(run(&stream, split).record.len(), 1, "{split}");
        assert!(run(&stream, split).record[0].starts_with("rejected"));
    }
}

#[test]
fn an_empty_line_behind_a_body_is_no_request() {
    let mut bench = Bench::new();
    bench.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
    let silent_until = bench.exchange.poll_timeout(&bench.timeouts);
    bench.wait_ms(1000);
    for piece in [&b"\r"[..], b"\n", b"\r\n"] {
        bench.receive(piece);
        assert_eq!(bench.exchange.is_between_requests(), piece != b"\r");
    }
    assert_eq!(bench.exchange.poll_timeout(&bench.timeouts), silent_until);
    // What begins behind them has the time of a head from its own first byte.
    bench.wait_ms(1000);
    bench.receive(b"\r\nP");
    let due = bench.now + bench.timeouts.handshake;
    assert_eq!(bench.exchange.poll_timeout(&bench.timeouts), Some(due));
}

#[test]
fn the_last_request_ends_the_connection() {
    let mut bench = Bench::new();
    let last = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc";
    bench.receive(&last.repeat(2));
    assert_eq!(bench.record, ["body abc"]);
    let sent = String::from_utf8(bench.sent()).expect("text");
    assert!(sent.starts_with("HTTP/1.1 200 OK\r\n") && sent.contains("\r\nConnection: close\r\n"));
    assert!(bench.exchange.take_shutdown());
}

#[test]
fn heads_bodies_and_silence_have_their_times() {
    let times = Timeouts::default();
    let due = |bench: &Bench| bench.exchange.poll_timeout(&bench.timeouts);
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n";
    let at = |seconds| Timestamp::ZERO + Duration::from_secs(seconds);

    let mut bench = Bench::new();
    bench.now = at(5);
    bench.receive(b"POST");
    assert_eq!(due(&bench), Some(Timestamp::ZERO + times.handshake));
    bench.receive(&head[4..]);
    assert_eq!(due(&bench), Some(at(5) + times.message));
    bench.now = at(20);
    bench.receive(b"ab");
    assert_eq!(
        due(&bench),
        Some(at(5) + times.message),
        "a body is not kept alive"
    );
    bench.receive(b"c");
    assert_eq!(due(&bench), Some(at(20) + times.message));
    assert!(bench.exchange.is_between_requests());
    bench.sent();
    bench.now = at(30);
    bench.receive(b"P");
    assert!(!bench.exchange.is_between_requests());
    assert_eq!(due(&bench), Some(at(30) + times.handshake));
    bench.now = at(30) + times.handshake;
    assert_eq!(bench.handle_timeout(), Some(Expiry::Request));
    assert!(bench.sent().starts_with(b"HTTP/1.1 408 "));

    // A client that has been answered and says nothing is let go without a word.
    let mut bench = Bench::new();
    bench.receive(&[&head[..], b"abc"].concat());
    bench.sent();
    let expiry = bench.exchange.handle_timeout(at(0) + times.message, &times);
    assert_eq!(expiry, Some(Expiry::Idle));
    assert!(bench.sent().is_empty() && bench.exchange.take_shutdown());
}

#[test]
fn a_body_that_is_not_whole_is_charged() {
    let pinned = PinnedBytes::new(1 << 20);
    let mut bench = Bench::new();
    bench.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\n");
    bench.receive(&[b'x'; 800]);
    bench.exchange.settle(&pinned);
    assert!(pinned.bytes() >= 800);
    bench.receive(&[b'x'; 100]);
    bench.sent();
    bench.exchange.settle(&pinned);
    assert_eq!(pinned.bytes(), 0);
}

#[test]
fn an_answer_may_come_later_and_what_is_behind_its_request_waits() {
    let post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n";
    let stream = [&post[..], b"1", post, b"2"].concat();
    let mut bench = Bench::new();
    bench.answers_later = true;
    bench.receive(&stream);
    assert_eq!(bench.record(), ["body 1"]);
    assert!(bench.exchange.is_answer_due() && bench.exchange.buffers().has_tail());
    bench.receive(b"");
    assert_eq!(bench.record(), [""; 0]);
    let answer = Response::new(Status::OK, "later");
    bench
        .exchange
        .give_answer(&answer, true, Duration::ZERO, bench.now);
    assert!(bench.sent().starts_with(b"HTTP/1.1 200 OK\r\n"));
    bench.receive(b"");
    assert_eq!(bench.record(), ["body 2"]);
    // One that isn't there in time is the owner's fault, and one that comes too late is nobody's.
    let due = bench.timeouts.message.as_millis() as u64;
    assert_eq!(bench.wait_ms(due), Some(Expiry::Answer));
    let late = Response::new(Status::SERVICE_UNAVAILABLE, "late");
    bench
        .exchange
        .give_answer(&late, false, Duration::ZERO, bench.now);
    assert!(bench.sent().starts_with(b"HTTP/1.1 503 "));
    bench
        .exchange
        .give_answer(&answer, true, Duration::ZERO, bench.now);
    assert!(bench.sent().is_empty() && bench.exchange.take_shutdown());
}

#[test]
fn an_answer_is_owed_to_a_client_that_has_shut_its_side() {
    let mut bench = Bench::new();
    bench.answers_later = true;
    bench.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n1");
    bench.exchange.handle_eof(bench.now);
    bench.carry();
    assert!(bench.exchange.is_answer_due());
    let answer = Response::new(Status::OK, "later");
    bench
        .exchange
        .give_answer(&answer, true, Duration::ZERO, bench.now);
    assert!(!bench.exchange.is_closed());
    assert!(bench.sent().starts_with(b"HTTP/1.1 200 OK\r\n"));
    assert!(
        bench.exchange.is_closed(),
        "there is no end of file to wait for"
    );
}

#[test]
fn an_empty_body_is_whole_whatever_the_turn_may_still_take() {
    let mut exchange = Exchange::new(Timestamp::ZERO);
    let mut received = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".to_vec();
    let mut input = exchange.begin_turn(&mut received, 1);
    let Some(Event::Request { head, framing }) = exchange.next_event(&mut input, 4096) else {
        panic!("a request");
    };
    let received = exchange.receive(&head, framing, BODY_BYTES_MAX, Timestamp::ZERO);
    received.expect("it is short");
    let event = exchange.next_event(&mut input, 4096);
    assert!(matches!(event, Some(Event::Body { stays: true, .. })));
}
