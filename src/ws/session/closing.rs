//! How a session comes to its end (RFC 6455 §7): the closing handshake from both sides, and
//! what is left to do when all is said.
//!
//! Whoever closes, TCP follows only when the peer had its chance to read the last word: it is
//! shut for writing and then read to its end. Only a peer that has answered our Close, and so
//! has read it, needs no such care.

use crate::time::Timestamp;
use crate::ws::close::{CloseCode, CloseFrame};
use crate::ws::event::Event;
use crate::ws::frame::{Opcode, Role, decode_header, encode_frame};
use crate::ws::incoming::Input;

use super::{ClosingStep, Session, State};

impl Session {
    /// Starts the closing handshake (§7.1.2). What is queued goes out before the Close.
    pub fn close(&mut self, frame: &CloseFrame, now: Timestamp) {
        if self.is_open() {
            self.queue
                .push_own(|into| encode_frame(into, Opcode::Close, &frame.encode()));
            self.set_state(State::Closing {
                since: now,
                step: ClosingStep::AwaitClose { skip_bytes: 0 },
            });
        }
    }

    /// Fails the connection (§7.1.7): the Close goes out, nothing is read any more.
    pub fn fail(&mut self, frame: &CloseFrame, now: Timestamp) {
        if self.is_open() {
            self.queue
                .push_own(|into| encode_frame(into, Opcode::Close, &frame.encode()));
            self.linger(now);
        }
    }

    /// Fails a connection for which too much is kept: the frame that is half written is
    /// finished, and so is the answer to its upgrade, without which it could not read a frame; the
    /// rest is discarded, the Close comes next; unfinished input goes too.
    pub fn cut_off(&mut self, frame: &CloseFrame, now: Timestamp) {
        if let State::Open { answer_end, .. } = self.state {
            self.queue.discard_unsent(answer_end);
            self.fail(frame, now);
        }
    }

    /// The peer sends no more. It may have shut its sending side only, so what is queued still goes
    /// out; then that is the end.
    pub fn handle_eof(&mut self, now: Timestamp) {
        if self.queue.is_empty() {
            return self.handle_end();
        }
        let since = match self.state {
            State::Closing { since, .. } => since,
            _ => now,
        };
        self.forget_input();
        self.set_state(State::Closing {
            since,
            step: ClosingStep::Flush,
        });
    }

    fn forget_input(&mut self) {
        self.incoming = None;
        self.receiving = None;
        self.pending_pong = None;
    }

    pub(super) fn linger(&mut self, now: Timestamp) {
        self.forget_input();
        self.set_state(State::Closing {
            since: now,
            step: ClosingStep::Linger {
                is_write_shut: false,
            },
        });
    }

    /// Whether the write side of TCP is to be shut now; says so once.
    pub fn take_shutdown(&mut self) -> bool {
        match &mut self.state {
            State::Closing {
                step: ClosingStep::Linger { is_write_shut },
                ..
            } if self.queue.is_empty() && !*is_write_shut => {
                *is_write_shut = true;
                true
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
        self.queue
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
        while !input.is_exhausted() {
            let skipped = skip_bytes.min(input.bytes.len() - input.position);
            input.position += skipped;
            skip_bytes -= skipped;
            self.set_state(State::Closing {
                since,
                step: ClosingStep::AwaitClose { skip_bytes },
            });
            let unused = &mut input.bytes[input.position..];
            let Ok(header) = decode_header(unused, Role::Server, usize::MAX / 2) else {
                self.linger(now);
                return None;
            };
            let header = header?;
            input.frames += 1;
            if !header.opcode.is_control() {
                input.position += header.header_len;
                skip_bytes = header.payload_len;
                self.set_state(State::Closing {
                    since,
                    step: ClosingStep::AwaitClose { skip_bytes },
                });
                if header.fin {
                    return Some(Event::Discarded);
                }
                continue;
            }
            let payload = unused.get_mut(header.header_len..header.frame_len())?;
            header.unmask(payload);
            input.position += header.frame_len();
            if header.opcode == Opcode::Close {
                let code = CloseFrame::decode(payload)
                    .ok()
                    .and_then(|frame| frame.code);
                self.finish_close(now);
                return Some(Event::Closed { code });
            }
        }
        None
    }

    /// Both Closes have been seen. If ours was read, the peer has nothing left to read and
    /// TCP can be closed at once; else it gets the time to.
    fn finish_close(&mut self, now: Timestamp) {
        if self.queue.is_empty() {
            self.set_state(State::Closed);
        } else {
            self.linger(now);
        }
    }
}
