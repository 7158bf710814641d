//! One HTTP connection, written for a successor and restored.
//!
//! It shares a record with all that its connection is, so its members are apart from those of its buffers. Invariant:
//! what is restored is an exchange as its methods could have left it. One that is closed isn't restored: nobody would
//! drop it.

use super::{Body, EMPTY_LINES_MAX, Exchange, State};
use crate::handover::{Fields, Malformed, Members};
use crate::http::body::BodyReader;
use crate::wire::buffers::Buffers;
use crate::wire::carried::{FrameNumbers, Frames};
use crate::wire::lingering::Lingering;

// Members of a connection's record. A session has some of them, too: a connection is one or the other.
const STATE: u8 = 13;
const SINCE: u8 = 14;
const FLAGS: u8 = 19;
const EMPTY_LINES: u8 = 20;
const BODY: u8 = 21;

// Numbers of states.
const HEAD_AWAITED: u64 = 1;
const BODY_AWAITED: u64 = 2;
const ANSWER_AWAITED: u64 = 3;
const LINGERING: u64 = 4;
const CLOSED: u64 = 5;

// Bits of FLAGS.
const IS_HEAD: u64 = 1;
const STAYS: u64 = 1 << 1;
const HAS_ENDED: u64 = 1 << 2;
const IS_FIRST: u64 = 1 << 3;

impl Exchange {
    /// Writes the state, what has come of a request, and what waits to be sent.
    pub fn save(&self, members: &mut Members<'_>, frames: &FrameNumbers) {
        let Self {
            buffers,
            state,
            // A successor searches for the end of the head from its beginning, once.
            head_scanned: _,
            empty_lines,
            is_head,
        } = self;
        let mut flags = flag(*is_head, IS_HEAD);
        let number = match state {
            State::Head { since, is_first } => {
                members.time(SINCE, Some(*since));
                flags |= flag(*is_first, IS_FIRST);
                HEAD_AWAITED
            }
            State::Body { since, body } => {
                let Body { reader, stays } = &**body;
                members.time(SINCE, Some(*since));
                members.nested(BODY, |members| reader.save(members));
                flags |= flag(*stays, STAYS);
                BODY_AWAITED
            }
            State::Answer {
                since,
                stays,
                has_ended,
            } => {
                members.time(SINCE, Some(*since));
                flags |= flag(*stays, STAYS) | flag(*has_ended, HAS_ENDED);
                ANSWER_AWAITED
            }
            State::Lingering(lingering) => {
                lingering.save(members);
                LINGERING
            }
            State::Closed => CLOSED,
        };
        members.number(STATE, number);
        members.number(FLAGS, flags);
        members.number(EMPTY_LINES, (*empty_lines).into());
        buffers.save(members, frames);
    }

    /// The exchange that was written.
    ///
    /// # Errors
    /// It is closed or in no state that is known, or what it has can't be had in that state.
    pub fn restore(fields: &Fields<'_>, frames: &Frames) -> Result<Self, Malformed> {
        let flags = fields.number(FLAGS);
        let is_set = |flag| flags & flag != 0;
        let since = || {
            let since = fields.time(SINCE);
            since.ok_or(Malformed("nothing says since when a request is awaited"))
        };
        let state = match fields.number(STATE) {
            HEAD_AWAITED => State::Head {
                since: since()?,
                is_first: is_set(IS_FIRST),
            },
            BODY_AWAITED => {
                let body = fields.nested(BODY)?;
                let body = body.ok_or(Malformed("a body is missing"))?;
                let reader = BodyReader::restore(&body)?;
                let stays = is_set(STAYS);
                State::Body {
                    since: since()?,
                    body: Box::new(Body { reader, stays }),
                }
            }
            ANSWER_AWAITED => State::Answer {
                since: since()?,
                stays: is_set(STAYS),
                has_ended: is_set(HAS_ENDED),
            },
            LINGERING => State::Lingering(Lingering::restore(fields)?),
            _ => return Err(Malformed("an exchange is in no state to go on from")),
        };
        let exchange = Self {
            buffers: Buffers::restore(fields, frames)?,
            state,
            head_scanned: 0,
            empty_lines: fields.narrow(EMPTY_LINES)?,
            is_head: is_set(IS_HEAD),
        };
        if exchange.is_possible() {
            Ok(exchange)
        } else {
            Err(Malformed("an exchange has what it can't have in its state"))
        }
    }

    /// Whether the exchange is as its methods can have left it, beside what its buffers know of themselves.
    pub(super) fn is_possible(&self) -> bool {
        let is_state_possible = match &self.state {
            State::Body { body, .. } => body.reader.is_possible(),
            // A client that sends no more means to send no request.
            State::Answer {
                stays, has_ended, ..
            } => !(*stays && *has_ended),
            State::Head { .. } | State::Lingering(_) | State::Closed => true,
        };
        is_state_possible
            && self.empty_lines <= EMPTY_LINES_MAX
            && (self.is_serving() || !self.buffers.has_tail())
    }
}

const fn flag(is_set: bool, flag: u64) -> u64 {
    if is_set { flag } else { 0 }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::tests::Bench;
    use super::*;
    use crate::time::Timestamp;
    use fastrand::Rng;

    const NOW: Timestamp = Timestamp::from_micros(1_000_000);

    const POST: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n";

    fn written(exchange: &Exchange) -> Vec<u8> {
        let mut bytes = Vec::new();
        exchange.save(&mut Members::new(&mut bytes), &FrameNumbers::default());
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Exchange, Malformed> {
        Exchange::restore(&Fields::parse(bytes)?, &Frames::default())
    }

    /// The exchange as a successor has it.
    pub(in super::super) fn carried(exchange: &Exchange) -> Exchange {
        let bytes = written(exchange);
        let carried = read(&bytes).expect("it was written");
        assert_eq!(written(&carried), bytes);
        carried.check_invariants();
        carried
    }

    /// One in each state, in several ways.
    fn in_every_state() -> Vec<Exchange> {
        let chunked =
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0";
        let requests: [&[u8]; 9] = [
            b"",
            b"\r\n\r",
            b"HEAD / HT",
            &[POST, b"abc"].concat(),
            &[POST, b"abc\r\n\r\nP"].concat(),
            &[POST, b"a"].concat(),
            chunked,
            &[POST, b"abcPOST"].concat(),
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET",
        ];
        let mut exchanges = Vec::new();
        for request in requests {
            for (answers_later, has_ended) in [(false, false), (true, false), (true, true)] {
                let mut bench = Bench::new();
                (bench.now, bench.answers_later) = (NOW, answers_later);
                bench.receive(request);
                if has_ended {
                    bench.exchange.handle_eof(NOW);
                }
                if !bench.exchange.is_closed() {
                    exchanges.push(bench.exchange);
                }
            }
        }
        exchanges
    }

    fn number_of(exchange: &Exchange) -> u64 {
        let bytes = written(exchange);
        Fields::parse(&bytes).expect("members").number(STATE)
    }

    #[test]
    fn every_state_is_carried() {
        for number in HEAD_AWAITED..CLOSED {
            let exchanges = in_every_state().into_iter();
            let found = exchanges.filter(|exchange| number_of(exchange) == number);
            let carried: Vec<_> = found.map(|exchange| carried(&exchange)).collect();
            assert!(carried.len() >= 2, "{number}: {carried:?}");
        }
    }

    #[test]
    fn one_that_is_closed_is_not_restored() {
        let mut exchange = Exchange::new(NOW);
        exchange.handle_end();
        assert_eq!(number_of(&exchange), CLOSED);
        assert!(read(&written(&exchange)).is_err());
    }

    #[test]
    fn what_a_state_cannot_have_is_refused() {
        let restored = |write: &dyn Fn(&mut Members<'_>)| {
            let mut bytes = Vec::new();
            write(&mut Members::new(&mut bytes));
            read(&bytes).is_ok()
        };
        for (state, is_known) in [
            (0, false),
            (HEAD_AWAITED, true),
            (CLOSED, false),
            (6, false),
        ] {
            let is_restored = restored(&|members| {
                members.number(STATE, state);
                members.time(SINCE, Some(NOW));
            });
            assert_eq!(is_restored, is_known, "{state}");
        }
        for state in HEAD_AWAITED..=LINGERING {
            let without_time = |members: &mut Members<'_>| members.number(STATE, state);
            assert!(!restored(&without_time), "{state}");
        }
        for (lines, is_possible) in [(0, true), (4, true), (5, false), (256, false)] {
            let is_restored = restored(&|members| {
                members.number(STATE, HEAD_AWAITED);
                members.time(SINCE, Some(NOW));
                members.number(EMPTY_LINES, lines);
            });
            assert_eq!(is_restored, is_possible, "{lines}");
        }
        for (flags, is_possible) in [(STAYS, true), (HAS_ENDED, true), (STAYS | HAS_ENDED, false)] {
            let is_restored = restored(&|members| {
                members.number(STATE, ANSWER_AWAITED);
                members.time(SINCE, Some(NOW));
                members.number(FLAGS, flags);
            });
            assert_eq!(is_restored, is_possible, "{flags}");
        }
        // Without a body, and with what isn't one.
        for body in [None, Some(&b""[..]), Some(&b"\x02"[..])] {
            let is_restored = restored(&|members| {
                members.number(STATE, BODY_AWAITED);
                members.time(SINCE, Some(NOW));
                if let Some(body) = body {
                    members.present_bytes(BODY, body);
                }
            });
            assert!(!is_restored, "{body:?}");
        }
        // The beginning of a request, of which one that lingers has none.
        let mut exchanges = in_every_state().into_iter();
        let begun = exchanges.find(|exchange| exchange.buffers.has_tail());
        let mut bytes = written(&begun.expect("there is one"));
        assert!(read(&bytes).is_ok());
        Members::new(&mut bytes).number(STATE, LINGERING);
        assert!(read(&bytes).is_err());
    }

    #[test]
    fn limits_at_max_and_one_more() {
        const HEAD_BYTES_MAX: usize = 200;
        let head = |len: usize| {
            let (start, end) = ("GET / HTTP/1.1\r\nHost: a\r\nX: ", "\r\n\r\n");
            let filler = "x".repeat(len - start.len() - end.len());
            format!("{start}{filler}{end}").into_bytes()
        };
        for (len, is_taken) in [(HEAD_BYTES_MAX, true), (HEAD_BYTES_MAX + 1, false)] {
            let head = head(len);
            for split in 0..=len.min(HEAD_BYTES_MAX - 1) {
                let mut bench = Bench::new();
                bench.head_bytes_max = HEAD_BYTES_MAX;
                bench.receive(&head[..split]);
                bench.exchange = carried(&bench.exchange);
                bench.receive(&head[split..]);
                let [line] = &bench.record[..] else {
                    panic!("{:?}", bench.record);
                };
                assert_eq!(line == "request /", is_taken, "{len}, {split}: {line}");
            }
        }
    }

    #[test]
    fn any_bytes_are_an_exchange_or_are_refused() {
        let mut random = Rng::with_seed(18);
        let written: Vec<_> = in_every_state().iter().map(written).collect();
        let mut refused = 0;
        for _ in 0..20_000 {
            let mut bytes = written[random.usize(..written.len())].clone();
            for _ in 0..random.usize(1..4) {
                let position = random.usize(..bytes.len());
                bytes[position] = random.u8(..);
            }
            bytes.truncate(random.usize(..8 * bytes.len()));
            let Ok(exchange) = read(&bytes) else {
                refused += 1;
                continue;
            };
            let mut bench = Bench::new();
            bench.exchange = carried(&exchange);
            for piece in [&b""[..], b"0\r\n", POST, b"abc"] {
                bench.now = bench.now + std::time::Duration::from_secs(random.u64(..20));
                bench.receive(piece);
                bench.handle_timeout();
                bench.sent();
            }
            bench.exchange.handle_eof(bench.now);
            bench.exchange.check_invariants();
        }
        assert!((1000..19_000).contains(&refused), "{refused}");
    }
}
