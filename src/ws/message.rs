//! Messages (RFC 6455 §5.4, §5.6): fragments put together, text checked for UTF-8.
//!
//! A message in one frame is lent straight from the caller's buffer; only fragments are
//! copied, into a buffer that is bounded by the size limit. Text is checked as each frame
//! completes, so that a peer is told of bad text without sending the rest of it.

use crate::handover::{Fields, Malformed, Members};

use super::error::ProtocolError;
use super::frame::{FrameHeader, Opcode};

// Members of a connection.
const KIND: u8 = 25;
const FRAGMENTS: u8 = 26;

// Kinds in a state.
const NONE: u64 = 0;
const TEXT: u64 = 1;
const BINARY: u64 = 2;

/// A whole message, lent for the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message<'a> {
    /// Text; that it is UTF-8 has been checked (§8.1).
    Text(&'a str),
    /// Anything else.
    Binary(&'a [u8]),
}

impl<'a> Message<'a> {
    /// A message whose payload is `payload`.
    ///
    /// # Errors
    /// Text that is not UTF-8.
    pub fn new(kind: MessageKind, payload: &'a [u8]) -> Result<Self, ProtocolError> {
        match kind {
            MessageKind::Binary => Ok(Self::Binary(payload)),
            MessageKind::Text => std::str::from_utf8(payload)
                .map(Self::Text)
                .map_err(|_| ProtocolError::InvalidUtf8),
        }
    }
}

/// What a message is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MessageKind {
    /// Text.
    Text,
    /// Anything else.
    Binary,
}

/// Puts the fragments of one connection's messages together.
///
/// Invariants: the buffer is empty unless a message has begun; of a text message the first
/// `valid_len` bytes of the buffer are UTF-8, and what follows them is the start of one
/// character at most.
#[derive(Default, Debug)]
pub struct MessageAssembler {
    buffer: Vec<u8>,
    valid_len: usize,
    begun: Option<MessageKind>,
}

/// What a data frame made of the message that it belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// The frame was the whole message: it is the payload.
    Whole,
    /// The frame was the last fragment: the message is in the assembler.
    Assembled,
    /// More fragments must come.
    Unfinished,
}

impl MessageAssembler {
    /// Whether a message has begun that isn't finished.
    #[must_use]
    pub const fn is_unfinished(&self) -> bool {
        self.begun.is_some()
    }

    /// Bytes of fragments that are kept.
    #[must_use]
    pub const fn buffered_len(&self) -> usize {
        self.buffer.len()
    }

    /// Bytes of memory that the fragments take.
    #[must_use]
    pub const fn pinned_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// Checks that a data frame may come now (§5.4), before its payload is waited for.
    ///
    /// # Errors
    /// A continuation of nothing, or a new message inside of another.
    pub const fn check_order(&self, opcode: Opcode) -> Result<(), ProtocolError> {
        match (opcode, self.begun) {
            (Opcode::Continuation, None) => Err(ProtocolError::UnexpectedContinuation),
            (Opcode::Text | Opcode::Binary, Some(_)) => Err(ProtocolError::ExpectedContinuation),
            _ => Ok(()),
        }
    }

    /// Takes a data frame whose order was checked.
    ///
    /// # Errors
    /// Text that is not, and can't become, UTF-8.
    #[inline]
    pub fn accept(
        &mut self,
        header: &FrameHeader,
        payload: &[u8],
    ) -> Result<Progress, ProtocolError> {
        debug_assert!(
            !header.opcode.is_control(),
            "control frames are no part of a message"
        );
        if self.begun.is_none() && header.fin {
            return Ok(Progress::Whole);
        }
        self.accept_fragment(header, payload)
    }

    fn accept_fragment(
        &mut self,
        header: &FrameHeader,
        payload: &[u8],
    ) -> Result<Progress, ProtocolError> {
        let kind = match (self.begun, header.opcode) {
            (Some(kind), _) => kind,
            (None, Opcode::Text) => MessageKind::Text,
            (None, _) => MessageKind::Binary,
        };
        self.begun = Some(kind);
        self.buffer.extend_from_slice(payload);
        if kind == MessageKind::Text {
            self.check_utf8(header.fin)?;
        }
        Ok(if header.fin {
            Progress::Assembled
        } else {
            Progress::Unfinished
        })
    }

    /// The message that the frame `header` with `payload` was, after [`Progress::Whole`].
    ///
    /// # Errors
    /// Text that is not UTF-8.
    #[inline]
    pub fn whole<'a>(
        header: &FrameHeader,
        payload: &'a [u8],
    ) -> Result<Message<'a>, ProtocolError> {
        let kind = if header.opcode == Opcode::Text {
            MessageKind::Text
        } else {
            MessageKind::Binary
        };
        Message::new(kind, payload)
    }

    /// The message that the fragments made, after [`Progress::Assembled`].
    ///
    /// # Errors
    /// Text that is not UTF-8.
    pub fn assembled(&mut self) -> Result<Message<'_>, ProtocolError> {
        let kind = self.begun.unwrap_or(MessageKind::Binary);
        Message::new(kind, &self.buffer)
    }

    /// The message that the fragments made, after [`Progress::Assembled`], as its owner's.
    #[must_use]
    pub fn into_message(self) -> (MessageKind, Vec<u8>) {
        (self.begun.unwrap_or(MessageKind::Binary), self.buffer)
    }

    /// Forgets the message that [`MessageAssembler::assembled`] lent, memory included.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Writes what a successor must know.
    pub fn save(&self, members: &mut Members<'_>) {
        let Self {
            buffer,
            // As far as the buffer is UTF-8.
            valid_len: _,
            begun,
        } = self;
        let kind = match begun {
            None => NONE,
            Some(MessageKind::Text) => TEXT,
            Some(MessageKind::Binary) => BINARY,
        };
        members.number(KIND, kind);
        members.bytes(FRAGMENTS, buffer);
    }

    /// What was saved.
    ///
    /// # Errors
    /// Fragments of no message, of one whose kind isn't known, or of a text that can't become UTF-8.
    pub fn restore(fields: &Fields<'_>) -> Result<Self, Malformed> {
        let buffer = fields.bytes(FRAGMENTS);
        let (begun, valid_len) = match fields.number(KIND) {
            NONE if buffer.is_empty() => (None, 0),
            TEXT => (Some(MessageKind::Text), valid_len(buffer)?),
            BINARY => (Some(MessageKind::Binary), 0),
            _ => return Err(Malformed("fragments are of no kind")),
        };
        Ok(Self {
            buffer: buffer.to_vec(),
            valid_len,
            begun,
        })
    }

    /// Asserts what the type promises, between any two calls.
    pub fn check_invariants(&self) {
        assert!(self.begun.is_some() || self.buffer.is_empty());
        let is_text = self.begun == Some(MessageKind::Text);
        let valid_len = valid_len(if is_text { &self.buffer } else { &[] });
        assert_eq!(valid_len, Ok(self.valid_len));
    }

    /// Checks what came since the last check; a character that the frame cut in two is left
    /// for the next, unless this was the last.
    fn check_utf8(&mut self, fin: bool) -> Result<(), ProtocolError> {
        match std::str::from_utf8(&self.buffer[self.valid_len..]) {
            Ok(_) => self.valid_len = self.buffer.len(),
            Err(error) if error.error_len().is_none() && !fin => {
                self.valid_len += error.valid_up_to()
            }
            Err(_) => return Err(ProtocolError::InvalidUtf8),
        }
        Ok(())
    }
}

/// How many of the first bytes of a text that isn't finished are UTF-8: all, but for the start of one character.
fn valid_len(bytes: &[u8]) -> Result<usize, Malformed> {
    match std::str::from_utf8(bytes) {
        Ok(_) => Ok(bytes.len()),
        Err(error) if error.error_len().is_none() => Ok(error.valid_up_to()),
        Err(_) => Err(Malformed("a text is not UTF-8")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(opcode: Opcode, fin: bool, payload_len: usize) -> FrameHeader {
        FrameHeader {
            fin,
            opcode,
            payload_len,
            masking_key: None,
            header_len: 2,
        }
    }

    /// The same in another process.
    fn carried(assembler: &MessageAssembler) -> MessageAssembler {
        let saved = |assembler: &MessageAssembler| {
            let mut bytes = Vec::new();
            assembler.save(&mut Members::new(&mut bytes));
            bytes
        };
        let bytes = saved(assembler);
        let fields = Fields::parse(&bytes).expect("members");
        let restored = MessageAssembler::restore(&fields).expect("it was saved");
        restored.check_invariants();
        assert_eq!(restored.begun, assembler.begun);
        assert_eq!(restored.valid_len, assembler.valid_len);
        assert_eq!(saved(&restored), bytes);
        restored
    }

    /// Feeds `parts` as the fragments of one text message, and carries them in between.
    fn assemble(parts: &[&[u8]]) -> Result<String, ProtocolError> {
        let mut assembler = MessageAssembler::default();
        for (i, part) in parts.iter().enumerate() {
            let opcode = if i == 0 {
                Opcode::Text
            } else {
                Opcode::Continuation
            };
            let header = header(opcode, i + 1 == parts.len(), part.len());
            assembler = carried(&assembler);
            assembler.check_order(opcode)?;
            match assembler.accept(&header, part)? {
                Progress::Whole => return MessageAssembler::whole(&header, part).map(text),
                Progress::Assembled => return assembler.assembled().map(text),
                Progress::Unfinished => assert!(assembler.is_unfinished()),
            }
        }
        unreachable!("the last part has FIN")
    }

    fn text(message: Message<'_>) -> String {
        match message {
            Message::Text(text) => text.to_owned(),
            Message::Binary(_) => panic!("text was sent"),
        }
    }

    #[test]
    fn fragments_are_put_together() {
        assert_eq!(assemble(&[b"Hel", b"lo"]).as_deref(), Ok("Hello"));
        assert_eq!(assemble(&[b"", b"", b"x", b""]).as_deref(), Ok("x"));
        assert_eq!(assemble(&[b"Hello"]).as_deref(), Ok("Hello"));
    }

    #[test]
    fn text_may_be_cut_at_every_byte() {
        let text = "κόσμε 𝄞 é";
        for first in 0..text.len() {
            for second in first..text.len() {
                let bytes = text.as_bytes();
                let parts = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                assert_eq!(assemble(&parts).as_deref(), Ok(text), "{first} {second}");
            }
        }
    }

    #[test]
    fn text_that_is_not_utf8() {
        let error = Err(ProtocolError::InvalidUtf8);
        assert_eq!(assemble(&[b"\xff"]), error);
        assert_eq!(assemble(&[b"ok", b"\xce"]), error, "cut off at the end");
        assert_eq!(assemble(&[b"\xed\xa0\x80"]), error, "a surrogate");
        assert_eq!(
            assemble(&[b"\xf4\x90", b"\x80\x80"]),
            error,
            "beyond U+10FFFF"
        );

        let mut assembler = MessageAssembler::default();
        let result = assembler.accept(&header(Opcode::Text, false, 2), b"\xce\xff");
        assert_eq!(
            result,
            Err(ProtocolError::InvalidUtf8),
            "told before the message ends"
        );
    }

    #[test]
    fn binary_is_not_checked_as_text() {
        let mut assembler = MessageAssembler::default();
        let first = assembler.accept(&header(Opcode::Binary, false, 1), b"\xff");
        assert_eq!(first, Ok(Progress::Unfinished));
        let mut assembler = carried(&assembler);
        let last = assembler.accept(&header(Opcode::Continuation, true, 1), b"\xfe");
        assert_eq!(last, Ok(Progress::Assembled));
        assert_eq!(assembler.assembled(), Ok(Message::Binary(b"\xff\xfe")));
        assembler.reset();
        assert_eq!(
            (assembler.is_unfinished(), assembler.pinned_bytes()),
            (false, 0)
        );
    }

    #[test]
    fn fragments_that_cannot_be_are_malformed() {
        for (kind, bytes, are_fragments) in [
            (NONE, &b""[..], true),
            (NONE, b"x", false),
            (TEXT, b"", true),
            (TEXT, b"ok\xf0\x9d\x84", true),
            (TEXT, b"\xf0\x9d\x84\xf0", false),
            (TEXT, b"\xed\xa0", false),
            (BINARY, b"\xff", true),
            (BINARY + 1, b"", false),
        ] {
            let mut written = Vec::new();
            let mut members = Members::new(&mut written);
            members.number(KIND, kind);
            members.bytes(FRAGMENTS, bytes);
            let fields = Fields::parse(&written).expect("members");
            let assembler = MessageAssembler::restore(&fields);
            assert_eq!(assembler.is_ok(), are_fragments, "{kind}, {bytes:?}");
            if let Ok(assembler) = assembler {
                assembler.check_invariants();
            }
        }
    }

    #[test]
    fn order_of_fragments() {
        let mut assembler = MessageAssembler::default();
        assert_eq!(
            assembler.check_order(Opcode::Continuation),
            Err(ProtocolError::UnexpectedContinuation)
        );
        assert_eq!(assembler.check_order(Opcode::Text), Ok(()));
        assembler
            .accept(&header(Opcode::Text, false, 1), b"a")
            .expect("valid");
        assert_eq!(
            assembler.check_order(Opcode::Text),
            Err(ProtocolError::ExpectedContinuation)
        );
        assert_eq!(
            assembler.check_order(Opcode::Binary),
            Err(ProtocolError::ExpectedContinuation)
        );
        assert_eq!(assembler.check_order(Opcode::Continuation), Ok(()));
    }
}
