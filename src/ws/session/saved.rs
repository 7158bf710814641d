//! A session in a state, which may be anything between two turns but `Closed`.
//!
//! Restored without the setter of its state, whose edges are those of a session that lives.

use crate::handover::{Fields, Malformed, Members};
use crate::wire::buffers::Buffers;
use crate::wire::carried::{FrameNumbers, Frames};
use crate::wire::lingering::Lingering;
use crate::ws::frame::CONTROL_PAYLOAD_BYTES_MAX;
use crate::ws::heartbeat::Heartbeat;
use crate::ws::message::MessageAssembler;

use super::{PongPayload, Session, State};

// Members of a connection. `wire` and the parts of a session have others.
const STATE: u8 = 13;
const MESSAGE_BYTES_MAX: u8 = 14;
const ANSWER_END: u8 = 15;
const CLOSING_SINCE: u8 = 14;
const SKIP_BYTES: u8 = 15;
const PONG: u8 = 27;

// States. Those below are HTTP's.
const OPEN: u64 = 16;
const CLOSING: u64 = 17;
const LINGERING: u64 = 18;
const CLOSED: u64 = 19;

/// More than any limit, and so few that no length of a frame overflows.
const LENGTH_MAX: usize = usize::MAX / 2;

impl Session {
    /// Whether a connection was saved as a session; else HTTP was spoken.
    #[must_use]
    pub fn is_in(fields: &Fields<'_>) -> bool {
        fields.number(STATE) >= OPEN
    }

    /// Writes what a successor must know, between two turns. Each of the queue's shared frames has its number in `frames`.
    pub fn save(&self, members: &mut Members<'_>, frames: &FrameNumbers) {
        let Self {
            state,
            buffers,
            heartbeat,
            fragments,
            pending_pong,
        } = self;
        state.save(members);
        buffers.save(members, frames);
        heartbeat.save(members);
        if let Some(fragments) = fragments {
            fragments.save(members);
        }
        if let Some(pong) = pending_pong {
            let PongPayload(payload) = &**pong;
            members.present_bytes(PONG, payload);
        }
    }

    /// The session that was saved. Nothing of it is charged yet, and none of its frames.
    ///
    /// # Errors
    /// It was closed, is beyond a limit of its own, or no session is in such a state.
    pub fn restore(fields: &Fields<'_>, frames: &Frames) -> Result<Self, Malformed> {
        let fragments = MessageAssembler::restore(fields)?;
        let session = Self {
            state: State::restore(fields)?,
            buffers: Buffers::restore(fields, frames)?,
            heartbeat: Heartbeat::restore(fields)?,
            fragments: fragments.is_unfinished().then(|| Box::new(fragments)),
            pending_pong: restore_pong(fields)?,
        };
        session.check_restored()?;
        Ok(session)
    }

    /// What must be true of a session's parts together.
    fn check_restored(&self) -> Result<(), Malformed> {
        if !self.is_parsing() && (self.buffers.has_tail() || self.pending_pong.is_some()) {
            return Err(Malformed("a session has input that it doesn't parse"));
        }
        if let Some(fragments) = &self.fragments {
            let State::Open {
                message_bytes_max, ..
            } = self.state
            else {
                return Err(Malformed("fragments are of a session that is not open"));
            };
            if fragments.buffered_len() > message_bytes_max {
                return Err(Malformed("fragments are over the limit of a message"));
            }
            if self.buffers.begun().is_none() {
                return Err(Malformed("fragments have no time"));
            }
        }
        // One that never leaves would never be given up, and its peer not pinged again.
        let queue = self.buffers.queue();
        let is_queued = |end| queue.sent_position() < end && end <= queue.end_position();
        if self.is_open() && !self.heartbeat.queued_end().is_none_or(is_queued) {
            return Err(Malformed("a Ping is not in the queue"));
        }
        Ok(())
    }
}

impl State {
    fn save(&self, members: &mut Members<'_>) {
        match self {
            Self::Open {
                message_bytes_max,
                answer_end,
            } => {
                members.number(STATE, OPEN);
                members.size(MESSAGE_BYTES_MAX, *message_bytes_max);
                members.number(ANSWER_END, *answer_end);
            }
            Self::Closing { since, skip_bytes } => {
                members.number(STATE, CLOSING);
                members.time(CLOSING_SINCE, Some(*since));
                members.size(SKIP_BYTES, *skip_bytes);
            }
            Self::Lingering(lingering) => {
                members.number(STATE, LINGERING);
                lingering.save(members);
            }
            // Dropped before anything is saved, and so nothing that could be restored.
            Self::Closed => members.number(STATE, CLOSED),
        }
    }

    fn restore(fields: &Fields<'_>) -> Result<Self, Malformed> {
        match fields.number(STATE) {
            OPEN => Ok(Self::Open {
                message_bytes_max: length(fields, MESSAGE_BYTES_MAX)?,
                answer_end: fields.number(ANSWER_END),
            }),
            CLOSING => Ok(Self::Closing {
                since: fields
                    .time(CLOSING_SINCE)
                    .ok_or(Malformed("a closing session has no time"))?,
                skip_bytes: length(fields, SKIP_BYTES)?,
            }),
            LINGERING => Lingering::restore(fields).map(Self::Lingering),
            CLOSED => Err(Malformed("a session is closed")),
            _ => Err(Malformed("the state of a session isn't known")),
        }
    }
}

fn length(fields: &Fields<'_>, member: u8) -> Result<usize, Malformed> {
    let length = fields.narrow(member)?;
    if length > LENGTH_MAX {
        return Err(Malformed("a length is out of range"));
    }
    Ok(length)
}

/// The Pong that is owed, if one is; it may be empty.
fn restore_pong(fields: &Fields<'_>) -> Result<Option<Box<PongPayload>>, Malformed> {
    let Some(payload) = fields.present_bytes(PONG) else {
        return Ok(None);
    };
    if payload.len() > CONTROL_PAYLOAD_BYTES_MAX {
        return Err(Malformed("the payload of a Pong is too long"));
    }
    Ok(Some(Box::new(PongPayload(payload.into()))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;
    use crate::wire::shared::SharedBytes;
    use crate::ws::close::{CloseCode, CloseFrame};
    use crate::ws::event::Event;
    use crate::ws::frame::{EncodedFrame, Opcode};
    use crate::ws::message::Message;
    use crate::ws::session::tests::{Bench, fragment, frame};
    use fastrand::Rng;

    // Members that are written in other files.
    const LINGERING_STEP: u8 = 18;
    const HEARD: u8 = 22;
    const PING: u8 = 23;
    const PING_VALUE: u8 = 24;
    const KIND: u8 = 25;
    const FRAGMENTS: u8 = 26;
    const TAIL: u8 = 28;
    const BEGUN: u8 = 29;
    const SEGMENTS: u8 = 31;
    const FRONT_SENT: u8 = 32;
    const SENT_BYTES_TOTAL: u8 = 33;

    fn try_again_later() -> CloseFrame {
        CloseFrame::new(CloseCode::TRY_AGAIN_LATER, "")
    }

    #[test]
    fn the_answer_to_the_upgrade_is_still_kept_when_a_carried_session_is_cut_off() {
        let len = Bench::unanswered().unsent().len();
        for sent in 0..len {
            let mut bench = Bench::unanswered();
            let answer = bench.unsent();
            let shared = EncodedFrame::text(&[b"0123456789"]);
            bench.session.send_shared(&shared);
            bench.session.handle_sent(sent, bench.now);
            bench.session = bench.carried(&bench.session);
            bench.session.cut_off(&try_again_later(), bench.now);
            let close = &b"\x88\x02\x03\xf5"[..];
            assert_eq!(bench.sent(), [&answer[sent..], close].concat());
        }
    }

    #[test]
    fn a_frame_that_is_half_sent_is_finished_when_a_carried_session_is_cut_off() {
        for sent in 1..12 {
            let mut bench = Bench::unanswered();
            let shared = EncodedFrame::text(&[b"0123456789"]);
            bench.sent();
            bench.session.send_shared(&shared);
            bench.session.send_shared(&shared);
            bench.session.handle_sent(sent, bench.now);
            bench.session = bench.carried(&bench.session);
            bench.session.cut_off(&try_again_later(), bench.now);
            let expected = [&shared.as_bytes()[sent..], b"\x88\x02\x03\xf5"];
            assert_eq!(bench.sent(), expected.concat());
        }
    }

    #[test]
    fn an_end_has_no_more_time_when_it_is_carried() {
        type End = fn(&mut Session, Timestamp);
        let ends: [End; 3] = [
            |session, now| session.close(&try_again_later(), now),
            |session, now| session.fail(&try_again_later(), now),
            |session, now| session.handle_eof(now),
        ];
        for end in ends {
            let mut bench = Bench::unanswered();
            bench.now = Timestamp::from_micros(7);
            end(&mut bench.session, bench.now);
            let carried = bench.carried(&bench.session);
            assert_eq!(carried.ending_since(), Some(bench.now));
        }
    }

    #[test]
    fn every_step_of_an_end_is_carried() {
        let mut bench = Bench::unanswered();
        bench.session.fail(&try_again_later(), bench.now);
        assert!(!bench.carried(&bench.session).take_shutdown());
        bench.sent();
        assert!(bench.carried(&bench.session).take_shutdown());
        assert!(bench.session.take_shutdown());
        assert!(!bench.carried(&bench.session).take_shutdown());

        let mut bench = Bench::unanswered();
        bench.session.handle_eof(bench.now);
        let mut carried = bench.carried(&bench.session);
        carried.handle_sent(carried.buffers().queue().unsent_bytes(), bench.now);
        assert!(carried.is_closed());
        bench.sent();
        assert!(bench.session.is_closed());
    }

    #[test]
    fn an_empty_pong_is_owed_still() {
        let mut bench = Bench::unanswered();
        bench.session.handle_blocked(bench.now);
        bench.receive(&frame(Opcode::Ping, b""));
        bench.sent();
        assert_eq!(bench.sent(), b"\x8a\x00");
    }

    /// An open session with all that one can have, but for a Ping.
    fn full() -> Vec<u8> {
        let mut bench = Bench::unanswered();
        bench.session.handle_blocked(bench.now);
        bench.receive(&frame(Opcode::Ping, b"owed"));
        // The start of a character is the last.
        bench.receive(&fragment(Opcode::Text, b"a\xc3\xa9\xc3"));
        bench.receive(&fragment(Opcode::Continuation, b"b")[..5]);
        bench.saved(&bench.session)
    }

    /// The same, changed by `change`, which may add members that take the place of others.
    fn changed(change: impl FnOnce(&mut Members<'_>)) -> Result<Session, Malformed> {
        let mut bytes = full();
        change(&mut Members::new(&mut bytes));
        Session::restore(&Fields::parse(&bytes).expect("members"), &Frames::default())
    }

    #[test]
    fn each_limit_holds_and_one_more_does_not() {
        // The fragments have four bytes; the queue has been sent nothing.
        let answer = Bench::unanswered().unsent().len() as u64;
        let ping = |kind: u64, value: u64| {
            move |members: &mut Members<'_>| {
                members.number(PING, kind);
                members.number(PING_VALUE, value);
            }
        };
        let number =
            |member, value: u64| move |members: &mut Members<'_>| members.number(member, value);
        let pong = |len| move |members: &mut Members<'_>| members.bytes(PONG, &vec![b'x'; len]);
        type Change = Box<dyn FnOnce(&mut Members<'_>)>;
        let cases: [(Change, bool); 18] = [
            (Box::new(|_| {}), true),
            (Box::new(number(MESSAGE_BYTES_MAX, 4)), true),
            (Box::new(number(MESSAGE_BYTES_MAX, 3)), false),
            (Box::new(number(MESSAGE_BYTES_MAX, LENGTH_MAX as u64)), true),
            (
                Box::new(number(MESSAGE_BYTES_MAX, LENGTH_MAX as u64 + 1)),
                false,
            ),
            (Box::new(pong(CONTROL_PAYLOAD_BYTES_MAX)), true),
            (Box::new(pong(CONTROL_PAYLOAD_BYTES_MAX + 1)), false),
            (Box::new(ping(1, 0)), false),
            (Box::new(ping(1, 1)), true),
            (Box::new(ping(1, answer)), true),
            (Box::new(ping(1, answer + 1)), false),
            (Box::new(ping(3, 1)), true),
            (Box::new(ping(4, 1)), false),
            // The front segment is the answer.
            (
                Box::new(move |members| {
                    members.number(FRONT_SENT, answer - 1);
                    members.number(SENT_BYTES_TOTAL, answer - 1);
                }),
                true,
            ),
            (
                Box::new(move |members| {
                    members.number(FRONT_SENT, answer);
                    members.number(SENT_BYTES_TOTAL, answer);
                }),
                false,
            ),
            (Box::new(number(KIND, 3)), false),
            (
                Box::new(|members| members.bytes(FRAGMENTS, b"\xc3\xc3")),
                false,
            ),
            (Box::new(number(STATE, CLOSED + 1)), false),
        ];
        for (place, (change, is_session)) in cases.into_iter().enumerate() {
            let session = changed(change);
            assert_eq!(session.is_ok(), is_session, "case {place}: {session:?}");
            if let Ok(session) = session {
                session.check_invariants();
            }
        }
    }

    #[test]
    fn parts_that_contradict_each_other_are_malformed() {
        for state in [CLOSING, LINGERING, CLOSED, OPEN - 1] {
            let session = changed(|members| {
                members.number(STATE, state);
                members.time(CLOSING_SINCE, Some(Timestamp::ZERO));
                members.number(LINGERING_STEP, 1);
            });
            assert!(session.is_err(), "{state}");
        }
        // In place of a time, what is of the other kind; it reads as none.
        for time in [HEARD, BEGUN] {
            assert!(changed(|members| members.bytes(time, b"x")).is_err());
        }
    }

    /// Any members, most of which a session has.
    fn random_members(random: &mut Rng, bytes: &mut Vec<u8>) {
        let mut into = Members::new(bytes);
        for member in STATE..=SENT_BYTES_TOTAL {
            let bits = random.u32(1..=64);
            let number = random.u64(..) >> (64 - bits.min(if random.u8(..4) > 0 { 4 } else { 64 }));
            match member {
                STATE => into.number(member, OPEN + number % 4),
                LINGERING_STEP => into.number(member, number % 5),
                PING | KIND => into.number(member, number % 3),
                FRONT_SENT => into.number(member, number % 2),
                FRAGMENTS..=TAIL | SEGMENTS if random.bool() => {
                    let some = (0..random.usize(..6)).map(|_| random.u8(..8));
                    into.present_bytes(member, &some.collect::<Vec<_>>());
                }
                FRAGMENTS..=TAIL | SEGMENTS => {}
                _ => into.number(member, number),
            }
        }
    }

    /// Does with a session what can be done.
    fn live(session: &mut Session, random: &mut Rng) {
        let timeouts = crate::config::Timeouts::default();
        let mut now = Timestamp::ZERO;
        for _ in 0..8 {
            let unsent = session.buffers().queue().unsent_bytes();
            match random.u8(..10) {
                0 => session.send(Opcode::Text, b"text"),
                1 => session.handle_sent(random.usize(..=unsent), now),
                2 => session.handle_blocked(now),
                3 => session.close(&try_again_later(), now),
                4 => session.cut_off(&try_again_later(), now),
                5 => session.handle_eof(now),
                6 => _ = session.take_shutdown(),
                7 => {
                    now = now + std::time::Duration::from_secs(random.u64(..60));
                    session.handle_timeout(now, &timeouts);
                }
                _ => {
                    let opcodes = [Opcode::Text, Opcode::Continuation, Opcode::Ping];
                    let mut received = frame(opcodes[random.usize(..3)], b"received");
                    received.truncate(random.usize(..=received.len()));
                    let mut input = session.begin_turn(&mut received, 10);
                    let mut is_failed = false;
                    while let Some(event) = session.next_event(&mut input, now) {
                        is_failed = matches!(event, Event::Failed(_));
                        if let Event::Message(Message::Text(text)) = event {
                            assert!(text.is_char_boundary(text.len()));
                        }
                        if is_failed {
                            break;
                        }
                    }
                    if is_failed {
                        session.fail(&try_again_later(), now);
                    }
                    session.end_turn(input, now);
                }
            }
            session.check_invariants();
            if session.is_closed() {
                break;
            }
        }
    }

    #[test]
    fn whatever_is_read_is_a_session_or_malformed() {
        let mut random = Rng::with_seed(18);
        let bench = Bench::unanswered();
        let full = full();
        let mut sessions = [0; 2];
        for _ in 0..60_000 {
            let mut bytes = full.clone();
            let is_damaged = random.bool();
            if is_damaged {
                let place = random.usize(..bytes.len());
                bytes[place] = random.u8(..);
            } else {
                bytes.clear();
                random_members(&mut random, &mut bytes);
            }
            let Ok(fields) = Fields::parse(&bytes) else {
                continue;
            };
            let mut frames = Frames::default();
            frames.push(SharedBytes::new(b"\x81\x01x".to_vec()));
            let Ok(mut session) = Session::restore(&fields, &frames) else {
                continue;
            };
            sessions[usize::from(is_damaged)] += 1;
            session.check_invariants();
            session = bench.carried(&session);
            live(&mut session, &mut random);
            bench.carried(&session);
        }
        assert!(sessions.iter().all(|count| *count > 300), "{sessions:?}");
    }
}
