//! What a client got, held against what was due.

use crate::dice::Dice;
use crate::frames::{CLOSE, Frame, PING, PONG, TEXT, push_frame, take_frame};
use crate::wire::End;

use super::due::{Cause, Expected, id_told_by};
use super::speech::Said;
use super::{Circumstances, Client, REQUEST_MICROS, Stage};

impl Client {
    /// Looks at what has come.
    pub(crate) fn take(&mut self, circumstances: Circumstances, dice: &mut Dice) {
        let (bytes, has_unread) = {
            let mut wire = self.wire.borrow_mut();
            self.was_refused |= wire.is_refused;
            let has_unread = !wire.to_server.is_empty();
            (std::mem::take(&mut wire.from_server), has_unread)
        };
        self.got.extend(bytes);
        let is_over = |now| now >= self.connected_at + REQUEST_MICROS;
        if self.stage == Stage::Connecting && circumstances.deadlines_at.is_some_and(is_over) {
            self.is_request_late |= !self.front_is_whole() || has_unread;
            self.is_request_missing |= !self.front_is_whole() && !has_unread;
        }
        if !self.has_head {
            self.take_head(circumstances);
        }
        while self.has_head
            && !self.is_refused_http
            && let Some(frame) = take_frame(&mut self.got)
        {
            assert!(!self.close_got, "{}: {frame:?} behind the Close", self.id);
            self.take_one(frame, circumstances, dice);
        }
        assert!(!self.close_got || self.got.is_empty(), "{}", self.id);
        let is_shut = self.wire.borrow().is_shut;
        if is_shut && self.answers_close && self.hang_up.is_none() {
            self.hang_up = Some(End::Eof);
        }
    }

    fn take_head(&mut self, circumstances: Circumstances) {
        let Some(end) = self.got.windows(4).position(|four| four == b"\r\n\r\n") else {
            return;
        };
        let head: Vec<_> = self.got.drain(..end + 4).collect();
        let head = String::from_utf8(head).expect("ASCII");
        self.has_head = true;
        if head.starts_with("HTTP/1.1 101 ") {
            assert!(
                self.stage != Stage::Connecting && head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
            );
            return;
        }
        self.is_refused_http = true;
        self.is_done = true;
        let status = &head[..12];
        let is_bad = self.marks.is_empty() || self.marks.front().is_some_and(|mark| mark.start > 0);
        match status {
            "HTTP/1.1 403" => assert!(self.is_forbidden, "{head}; {self}"),
            _ if self.is_forbidden => panic!("{head}; {self}"),
            "HTTP/1.1 400" => assert!(is_bad, "{head}"),
            "HTTP/1.1 408" => assert!(self.is_request_late || self.was_refused, "{head}; {self}"),
            "HTTP/1.1 503" => assert!(circumstances.may_refuse, "{head}; {self}"),
            _ => panic!("{head}"),
        }
    }

    fn take_one(&mut self, frame: Frame, circumstances: Circumstances, dice: &mut Dice) {
        match frame.opcode {
            TEXT => {
                let text = String::from_utf8(frame.payload).expect("text");
                self.take_text(&text);
            }
            PING => {
                assert!(frame.payload.is_empty());
                if self.wire.borrow().end == End::None {
                    let mut bytes = Vec::new();
                    push_frame(&mut bytes, 0x80 | PONG, b"", dice);
                    self.write(&bytes, None);
                }
            }
            PONG => self.take_pong(&frame.payload),
            _ => self.take_close(&frame.payload, circumstances, dice),
        }
    }

    fn take_text(&mut self, text: &str) {
        let Some(expected) = self.expected.pop_front() else {
            panic!("{}: got {text} and should get nothing", self.id);
        };
        let is_right = match &expected {
            Expected::Exactly(expected) | Expected::Kept(_, expected) => text == &**expected,
            Expected::Error(code) => {
                let start = format!(r#"{{"type":"error","error":{{"code":"{code}","#);
                text.starts_with(&start)
            }
            Expected::Published(receipt) => receipt.is_told_by(text, r#"{"type":"published","#),
        };
        assert!(is_right, "{}: got {text} for {expected:?}", self.id);
        self.deliveries_got += u64::from(text.contains(r#""notification":"#));
        if let Some(id) = id_told_by(text) {
            self.last_id = Some(id.into());
        }
        self.told = self.told.max(expected.position());
    }

    fn take_pong(&mut self, payload: &[u8]) {
        let position = self.pings.iter().position(|(_, ping)| ping == payload);
        let position = position.expect("a Pong for a Ping that it has sent");
        assert!(
            position == 0 || self.was_refused,
            "{}: a Ping was skipped",
            self.id
        );
        assert!(self.pings[position].0 <= self.arrived);
        self.pings.drain(..=position);
    }

    fn take_close(&mut self, payload: &[u8], circumstances: Circumstances, dice: &mut Dice) {
        self.close_got = true;
        assert_eq!(self.stage, Stage::Gone, "{}: closed and not told", self.id);
        let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
        let reason = std::str::from_utf8(payload.get(2..).unwrap_or_default()).expect("text");
        self.check_close(code, reason, circumstances);
        self.is_done = true;
        if self.answers_close && self.wire.borrow().end == End::None {
            let mut bytes = Vec::new();
            push_frame(
                &mut bytes,
                0x80 | CLOSE,
                &payload[..payload.len().min(2)],
                dice,
            );
            self.write(&bytes, None);
        }
    }

    fn check_close(&mut self, code: Option<u16>, reason: &str, circumstances: Circumstances) {
        let says = |word: &str| reason.starts_with(&format!(r#"{{"reason":"{word}","retry":"#));
        let front = self.marks.front().map(|mark| &mark.said);
        let is_right = match (&self.cause, code, front) {
            (Some(Cause::Published(receipt)), Some(1000), _) => {
                // Its own queue may be among those that did not take it: it is told so.
                if self.was_refused && reason.contains("dropped") && self.expected.len() == 1 {
                    self.expected.clear();
                }
                self.told = self.told.max(receipt.position());
                receipt.is_told_by(reason, "{")
            }
            (Some(Cause::Policy(word)), Some(1008), _) => says(word),
            (Some(Cause::Binary), Some(1003), _) => says("binary-message"),
            (Some(Cause::Shutdown), Some(1001), _) => says("shutdown"),
            (Some(Cause::Broken), Some(1013), _) => says("slow-consumer"),
            (Some(_), ..) => false,
            (None, Some(1013), _) if says("slow-consumer") => {
                self.expected.clear();
                self.was_refused
            }
            (None, Some(1013), _) => {
                self.expected.clear();
                says("overload") && circumstances.may_shed
            }
            (None, Some(1008), _) if says("forbidden") => self.is_unproven,
            (None, Some(1008), _) => says("unfinished-message") && self.is_late,
            (None, code, Some(Said::Close(said))) => code == *said && reason.is_empty(),
            (None, Some(code), Some(Said::Violation(expected))) => {
                let word = match code {
                    1009 => "message-too-big",
                    1007 => "invalid-utf8",
                    _ => "protocol-error",
                };
                code == *expected && says(word)
            }
            (None, ..) => false,
        };
        assert!(
            is_right && self.expected.is_empty(),
            "{}: closed with {code:?} {reason} for {:?}, {front:?}, before {:?}; {self}",
            self.id,
            self.cause,
            self.expected
        );
    }
}
