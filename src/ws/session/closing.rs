//! How a session comes to its end (RFC 6455 §7): the closing handshake from both sides, and
//! what is left to do when all is said.
//!
//! Whoever closes, TCP follows only when the peer had its chance to read the last word: it is
//! shut for writing and then read to its end. Only a peer that has answered our Close, and so
//! has read it, needs no such care.

use crate::time::Timestamp;
use crate::wire::input::Input;
use crate::wire::lingering::Lingering;
use crate::ws::close::{CloseCode, CloseFrame};
use crate::ws::event::Event;
use crate::ws::frame::{Opcode, Role, decode_header, encode_frame};

use super::{Session, State};

impl Session {
    /// Starts the closing handshake (§7.1.2). What is queued goes out before the Close.
    pub fn close(&mut self, frame: &CloseFrame, now: Timestamp) {
        if self.is_open() {
            self.buffers
                .queue_mut()
                .push_own(|into| encode_frame(into, Opcode::Close, &frame.encode()));
            self.set_state(State::Closing {
                since: now,
                skip_bytes: 0,
            });
        }
    }

    /// Fails the connection (§7.1.7): the Close goes out, nothing is read any more.
    pub fn fail(&mut self, frame: &CloseFrame, now: Timestamp) {
        if self.is_open() {
            self.buffers
                .queue_mut()
                .push_own(|into| encode_frame(into, Opcode::Close, &frame.encode()));
            self.linger(now);
        }
    }

    /// Fails a connection for which too much is kept: the frame that is half written is
    /// finished, and so is the answer to its upgrade, without which it could not read a frame; the
    /// rest is discarded, the Close comes next; unfinished input goes too.
    pub fn cut_off(&mut self, frame: &CloseFrame, now: Timestamp) {
        if let State::Open { answer_end, .. } = self.state {
            self.buffers.queue_mut().discard_unsent(answer_end);
            self.fail(frame, now);
        }
    }

    /// The peer sends no more. It may have shut its sending side only, so what is queued still goes
    /// out; then that is the end.
    pub fn handle_eof(&mut self, now: Timestamp) {
        if self.buffers.queue().is_empty() {
            return self.handle_end();
        }
        let since = self.ending_since().unwrap_or(now);
        self.forget_input();
        self.set_state(State::Lingering(Lingering::after_eof(since)));
    }

    pub(super) fn forget_input(&mut self) {
        self.buffers.forget_input();
        self.pending_pong = None;
    }

    fn linger(&mut self, now: Timestamp) {
        self.forget_input();
        self.set_state(State::Lingering(Lingering::new(now)));
    }

    /// Whether the sending side of TCP is to be shut now; says so once.
    pub fn take_shutdown(&mut self) -> bool {
        match &mut self.state {
            State::Lingering(lingering) if self.buffers.queue().is_empty() => {
                lingering.take_shutdown()
            }
            _ => false,
        }
    }

    /// §5.5.1: the answer has the same code; what else is queued goes out before it.
    pub(super) fn answer_close(
        &mut self,
        code: Option<CloseCode>,
        now: Timestamp,
    ) -> Event<'static> {
        let answer = CloseFrame {
            code,
            reason: String::new(),
        };
        self.buffers
            .queue_mut()
            .push_own(|into| encode_frame(into, Opcode::Close, &answer.encode()));
        self.linger(now);
        Event::Closed { code }
    }

    /// Our Close is on its way: only the peer's is of interest (§5.5.1). Nothing of a data
    /// frame is kept, whatever its length.
    pub(super) fn next_discarded<'e>(
        &mut self,
        input: &mut Input<'_>,
        since: Timestamp,
        mut skip_bytes: usize,
        now: Timestamp,
    ) -> Option<Event<'e>> {
        while !input.cursor().is_exhausted() {
            let skipped = skip_bytes.min(input.unused().len());
            input.cursor_mut().advance(skipped);
            skip_bytes -= skipped;
            self.set_state(State::Closing { since, skip_bytes });
            let Ok(header) = decode_header(input.unused(), Role::Server, usize::MAX / 2) else {
                self.linger(now);
                return None;
            };
            let header = header?;
            let is_control = header.opcode.is_control();
            if is_control && input.unused().len() < header.frame_len() {
                return None;
            }
            input.cursor_mut().advance(header.header_len);
            input.cursor_mut().count();
            if !is_control {
                skip_bytes = header.payload_len;
                self.set_state(State::Closing { since, skip_bytes });
                if header.fin {
                    return Some(Event::Discarded);
                }
                continue;
            }
            let payload = input.cursor_mut().advance(header.payload_len);
            header.unmask(input.get_mut(payload.clone()));
            if header.opcode == Opcode::Close {
                let frame = CloseFrame::decode(input.get(payload)).ok();
                self.finish_close(now);
                return Some(Event::Closed {
                    code: frame.and_then(|frame| frame.code),
                });
            }
        }
        None
    }

    /// Both Closes have been seen. If ours was read, the peer has nothing left to read and
    /// TCP can be closed at once; else it gets the time to.
    fn finish_close(&mut self, now: Timestamp) {
        if self.buffers.queue().is_empty() {
            self.set_state(State::Closed);
        } else {
            self.linger(now);
        }
    }
}
