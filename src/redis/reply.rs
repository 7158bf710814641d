//! Whole replies out of bytes (RESP2), however they come in pieces.
//!
//! The decoder of the crate starts anew with each call, and recurses as deep as a reply says. So a [`Walk`] goes ahead of
//! it: it goes on where it was, knows how deep and how long a reply may be, and the decoder sees whole replies only. Knows
//! no command. Main types: [`Inbox`], which replies come out of, and [`Reply`], which lends from it.
//!
//! Invariant of an [`Inbox`]: `read <= bytes.len()`, and what lies ahead of `read` are whole replies.

use memchr::memmem;
use redis_protocol::resp2::decode::decode_range;
use redis_protocol::resp2::types::RangeFrame;

/// The longest reply, in bytes.
pub(super) const REPLY_BYTES_MAX: usize = 256 << 20;

/// The longest line: all but the bytes of a bulk string.
const LINE_BYTES_MAX: usize = 64 << 10;

/// How deep lists lie in each other. The reply to XREAD has five levels, its texts among them.
const DEPTH_MAX: usize = 8;

/// What an empty inbox keeps, in bytes.
const KEPT_BYTES: usize = 64 << 10;

/// Bytes that are no reply, or a reply that makes no sense where it came; with what is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Broken(pub(super) &'static str);

/// How far the reply at the start of some bytes has been looked through.
#[derive(Default)]
struct Walk {
    /// Up to here it was understood.
    at: usize,
    /// Up to here no end of the line that begins at `at` was found.
    searched: usize,
    /// The length of the bulk string that begins at `at`, if one does.
    bulk: Option<usize>,
    /// How many elements the open lists lack, the outermost first.
    lacking: [u32; DEPTH_MAX],
    depth: usize,
}

impl Walk {
    /// The length of the reply, when it is whole.
    fn end(&mut self, bytes: &[u8], bytes_max: usize) -> Result<Option<usize>, Broken> {
        loop {
            let is_whole = match self.bulk {
                Some(len) => {
                    let end = self.at + len + 2;
                    if end > bytes_max {
                        return Err(Broken("a reply is too long"));
                    }
                    let Some(bulk) = bytes.get(self.at..end) else {
                        return Ok(None);
                    };
                    if !bulk.ends_with(b"\r\n") {
                        return Err(Broken("a bulk string is longer than it says"));
                    }
                    (self.at, self.bulk) = (end, None);
                    true
                }
                None => match self.line(bytes)? {
                    None => return Ok(None),
                    Some(line) => self.take_line(line, bytes_max)?,
                },
            };
            if is_whole && self.close_lists() {
                return Ok(Some(self.at));
            }
        }
    }

    /// The line at `at` without its end, behind which `at` is then.
    fn line<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<&'a [u8]>, Broken> {
        let rest = &bytes[self.at..];
        let limit = rest.len().min(LINE_BYTES_MAX);
        let from = self.searched.max(self.at) - self.at;
        match memmem::find(&rest[from..limit], b"\r\n") {
            Some(found) => {
                let line = &rest[..from + found];
                self.at += line.len() + 2;
                Ok(Some(line))
            }
            None if rest.len() >= LINE_BYTES_MAX => Err(Broken("a line has no end")),
            None => {
                // The last byte may be the first half of an end.
                self.searched = self.at + limit.saturating_sub(1);
                Ok(None)
            }
        }
    }

    /// Whether `line` is a whole element.
    fn take_line(&mut self, line: &[u8], bytes_max: usize) -> Result<bool, Broken> {
        let (kind, rest) = line.split_first().ok_or(Broken("a line is empty"))?;
        match kind {
            b'+' | b'-' | b':' => Ok(true),
            b'$' => {
                self.bulk = length(rest, bytes_max)?;
                Ok(self.bulk.is_none())
            }
            b'*' => {
                let Some(count) = length(rest, bytes_max)?.filter(|count| *count > 0) else {
                    return Ok(true);
                };
                let lacking = self.lacking.get_mut(self.depth);
                *lacking.ok_or(Broken("lists lie too deep in each other"))? =
                    u32::try_from(count).map_err(|_| Broken("a list is too long"))?;
                self.depth += 1;
                Ok(false)
            }
            _ => Err(Broken("a reply is of no kind that there is")),
        }
    }

    /// An element is whole: closes the lists whose last it is. Whether the reply is whole by that.
    fn close_lists(&mut self) -> bool {
        while let Some(last) = self.depth.checked_sub(1) {
            self.lacking[last] -= 1;
            if self.lacking[last] > 0 {
                return false;
            }
            self.depth = last;
        }
        true
    }
}

/// A length, of which −1 is none.
fn length(text: &[u8], bytes_max: usize) -> Result<Option<usize>, Broken> {
    let text = std::str::from_utf8(text).map_err(|_| Broken("a length is no number"))?;
    match text.parse::<isize>() {
        Ok(-1) => Ok(None),
        Ok(length) => match usize::try_from(length) {
            Ok(length) if length <= bytes_max => Ok(Some(length)),
            Ok(_) => Err(Broken("a reply is too long")),
            Err(_) => Err(Broken("a length is below nothing")),
        },
        Err(_) => Err(Broken("a length is no number")),
    }
}

/// What came of a connection and makes no whole reply yet, or hasn't been looked at.
pub(super) struct Inbox {
    bytes: Vec<u8>,
    read: usize,
    walk: Walk,
    bytes_max: usize,
}

/// A whole reply of an [`Inbox`]: where it lies in its bytes.
#[derive(Debug)]
pub(super) struct Whole {
    frame: RangeFrame,
    start: usize,
    len: usize,
}

impl Inbox {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            bytes: Vec::new(),
            read: 0,
            walk: Walk::default(),
            bytes_max,
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole reply.
    pub(super) fn next(&mut self) -> Result<Option<Whole>, Broken> {
        let start = self.read;
        let rest = &self.bytes[start..];
        let Some(len) = self.walk.end(rest, self.bytes_max)? else {
            return Ok(None);
        };
        self.walk = Walk::default();
        self.read += len;
        match decode_range(&rest[..len]) {
            Ok(Some((frame, decoded))) if decoded == len => Ok(Some(Whole { frame, start, len })),
            _ => Err(Broken("a reply can't be decoded")),
        }
    }

    /// All bytes, in which the replies lie.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether there is nothing behind the last whole reply.
    pub(super) fn is_read(&self) -> bool {
        self.read == self.bytes.len()
    }

    /// Forgets the replies that were whole; none of them may be looked at from now on.
    pub(super) fn forget_read(&mut self) {
        self.bytes.drain(..self.read);
        self.read = 0;
        if self.bytes.is_empty() {
            self.bytes.shrink_to(KEPT_BYTES);
        }
    }

    /// The bytes, for whoever keeps their replies; the inbox is empty then.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.read = 0;
        self.walk = Walk::default();
        std::mem::take(&mut self.bytes)
    }
}

impl Whole {
    /// The reply, in the bytes that it was found in.
    pub(super) fn reply<'a>(&'a self, bytes: &'a [u8]) -> Reply<'a> {
        let bytes = bytes.get(self.start..).unwrap_or_default();
        let frame = &self.frame;
        Reply { frame, bytes }
    }

    /// How many bytes it has.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Its own of the bytes that it was found in.
    pub(super) fn own<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let end = self.start + self.len;
        bytes.get(self.start..end).unwrap_or_default()
    }
}

/// A reply, or an element of one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reply<'a> {
    frame: &'a RangeFrame,
    bytes: &'a [u8],
}

impl<'a> Reply<'a> {
    /// A text, simple or bulk.
    pub(super) fn text(self) -> Option<&'a [u8]> {
        match self.frame {
            RangeFrame::SimpleString(range) | RangeFrame::BulkString(range) => self.at(*range),
            _ => None,
        }
    }

    /// What was refused.
    pub(super) fn error(self) -> Option<&'a [u8]> {
        match self.frame {
            RangeFrame::Error(range) => self.at(*range),
            _ => None,
        }
    }

    /// A list; nothing is an empty one.
    pub(super) const fn list(self) -> Option<List<'a>> {
        let frames = match self.frame {
            RangeFrame::Array(frames) => frames.as_slice(),
            RangeFrame::Null => &[],
            _ => return None,
        };
        Some(List {
            frames,
            bytes: self.bytes,
        })
    }

    fn at(self, (start, end): (usize, usize)) -> Option<&'a [u8]> {
        self.bytes.get(start..end)
    }
}

/// The elements of a list.
#[derive(Clone, Copy, Debug)]
pub(super) struct List<'a> {
    frames: &'a [RangeFrame],
    bytes: &'a [u8],
}

impl<'a> List<'a> {
    pub(super) const fn len(self) -> usize {
        self.frames.len()
    }

    pub(super) fn at(self, index: usize) -> Option<Reply<'a>> {
        self.frames.get(index).map(|frame| Reply {
            frame,
            bytes: self.bytes,
        })
    }

    pub(super) fn iter(self) -> impl DoubleEndedIterator<Item = Reply<'a>> {
        self.frames.iter().map(move |frame| Reply {
            frame,
            bytes: self.bytes,
        })
    }
}

/// The first word of an error, which says of what kind it is: capitals only, at most 32 of them.
pub(super) fn word(error: &[u8]) -> &str {
    let is_capital = |byte: &&u8| byte.is_ascii_uppercase();
    let len = error.iter().take(32).take_while(is_capital).count();
    match std::str::from_utf8(&error[..len]) {
        Ok(word) if !word.is_empty() => word,
        _ => "ERR",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reply as text, to be compared.
    fn shown(reply: Reply<'_>) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if let Some(error) = reply.error() {
            return format!("!{}", text(error));
        }
        if let RangeFrame::Integer(integer) = reply.frame {
            return integer.to_string();
        }
        if *reply.frame == RangeFrame::Null {
            return "nothing".to_owned();
        }
        match (reply.text(), reply.list()) {
            (Some(bytes), _) => format!("{:?}", text(bytes)),
            (None, list) => {
                let elements: Vec<_> = list.expect("a list").iter().map(shown).collect();
                format!("[{}]", elements.join(" "))
            }
        }
    }

    /// All replies of `bytes`, which come in `pieces`.
    fn replies<'a>(
        pieces: impl IntoIterator<Item = &'a [u8]>,
        bytes_max: usize,
    ) -> Result<Vec<String>, Broken> {
        let mut inbox = Inbox::new(bytes_max);
        let mut shown_replies = Vec::new();
        for piece in pieces {
            inbox.push(piece);
            while let Some(whole) = inbox.next()? {
                shown_replies.push(shown(whole.reply(inbox.bytes())));
            }
            inbox.forget_read();
        }
        assert!(inbox.is_read() || shown_replies.is_empty() || inbox.read == 0);
        Ok(shown_replies)
    }

    const ODD: &[u8] = b"+OK\r\n-ERR no \r way\r\n:-12\r\n$0\r\n\r\n$4\r\na\r\nb\r\n$-1\r\n*-1\r\n*0\r\n\
        *1\r\n*2\r\n$1\r\ns\r\n*2\r\n*2\r\n$3\r\n1-1\r\n*2\r\n$1\r\nn\r\n$2\r\n{}\r\n*2\r\n$3\r\n1-2\r\n*-1\r\n*2\r\n*0\r\n+\r\n";

    #[test]
    fn replies_come_out_of_bytes_in_any_pieces() {
        let whole = replies([ODD], REPLY_BYTES_MAX).expect("replies");
        let expected = [
            "\"OK\"",
            "!ERR no \r way",
            "-12",
            "\"\"",
            "\"a\\r\\nb\"",
            "nothing",
            "nothing",
            "[]",
            "[[\"s\" [[\"1-1\" [\"n\" \"{}\"]] [\"1-2\" nothing]]]]",
            "[[] \"\"]",
        ];
        assert_eq!(whole, expected);
        for split in 0..=ODD.len() {
            let (first, second) = ODD.split_at(split);
            assert_eq!(
                replies([first, second], REPLY_BYTES_MAX).as_ref(),
                Ok(&whole)
            );
        }
        assert_eq!(replies(ODD.chunks(1), REPLY_BYTES_MAX), Ok(whole));
    }

    fn nested(depth: usize) -> Vec<u8> {
        [b"*1\r\n".repeat(depth).as_slice(), b":1\r\n"].concat()
    }

    #[test]
    fn depth_and_length_are_bounded() {
        assert!(replies([nested(DEPTH_MAX).as_slice()], REPLY_BYTES_MAX).is_ok());
        let deep = replies([nested(DEPTH_MAX + 1).as_slice()], REPLY_BYTES_MAX);
        assert_eq!(deep, Err(Broken("lists lie too deep in each other")));
        assert!(replies([nested(100_000).as_slice()], REPLY_BYTES_MAX).is_err());

        let bulk = b"*2\r\n:1\r\n$10\r\n0123456789\r\n";
        assert!(replies([bulk.as_slice()], bulk.len()).is_ok());
        // It is known before the bytes are there.
        let short = &bulk[..bulk.len() - 12];
        let too_long = Err(Broken("a reply is too long"));
        assert_eq!(replies([short], bulk.len() - 1), too_long);
        assert_eq!(
            replies([b"$268435457\r\n".as_slice()], REPLY_BYTES_MAX),
            too_long
        );
        assert_eq!(
            replies([b"*268435457\r\n".as_slice()], REPLY_BYTES_MAX),
            too_long
        );
        assert_eq!(
            replies([b"$9223372036854775807\r\n".as_slice()], REPLY_BYTES_MAX),
            too_long
        );
    }

    #[test]
    fn a_line_is_bounded() {
        let line = |len: usize| [b"+".as_slice(), &vec![b'x'; len - 3], b"\r\n"].concat();
        assert!(replies([line(LINE_BYTES_MAX).as_slice()], REPLY_BYTES_MAX).is_ok());
        let endless = Err(Broken("a line has no end"));
        assert_eq!(
            replies([line(LINE_BYTES_MAX + 1).as_slice()], REPLY_BYTES_MAX),
            endless
        );
        assert_eq!(
            replies(line(LINE_BYTES_MAX + 1).chunks(7), REPLY_BYTES_MAX),
            endless
        );
    }

    #[test]
    fn what_is_no_reply_is_broken() {
        for bytes in [
            b"\r\n".as_slice(),
            b"HTTP/1.1 400 Bad Request\r\n",
            b"$x\r\n",
            b"$-2\r\n",
            b"*-2\r\n",
            b"*1x\r\n",
            b"$\xff\r\n",
            b"$1\r\nabc",
            b":x\r\n",
            b":\r\n",
            b"%1\r\n",
            b"*99999999999999999999\r\n",
        ] {
            assert!(replies([bytes], REPLY_BYTES_MAX).is_err(), "{bytes:?}");
            assert!(
                replies(bytes.chunks(1), REPLY_BYTES_MAX).is_err(),
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn an_error_has_a_word() {
        for (error, expected) in [
            (b"OOM command not allowed".as_slice(), "OOM"),
            (b"READONLY", "READONLY"),
            (b"no", "ERR"),
            (b"", "ERR"),
            (b"\xff", "ERR"),
        ] {
            assert_eq!(word(error), expected);
        }
    }

    #[test]
    fn an_empty_inbox_gives_its_memory_back() {
        let mut inbox = Inbox::new(REPLY_BYTES_MAX);
        inbox.push(format!("$1000000\r\n{}\r\n", "x".repeat(1_000_000)).as_bytes());
        assert_eq!(
            inbox.next().expect("a reply").map(|whole| whole.len()),
            Some(1_000_012)
        );
        inbox.forget_read();
        assert!(inbox.bytes.capacity() <= KEPT_BYTES);
    }
}
