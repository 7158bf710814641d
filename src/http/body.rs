//! The body of a request (RFC 9112 §6 and §7): how it is framed, and its bytes out of the stream.
//!
//! As strict as `head`, and for the same reason: where two readers of one stream could disagree
//! about where a body ends (§11.2), the request is refused. Main types: [`Framing`] and
//! [`BodyReader`]. Invariants: never a byte behind the body is taken; a body is never longer than
//! it may be, nor is what is around its chunks.

mod saved;

use std::fmt;

use super::head::{Head, is_token_byte};
use super::status::Status;

/// Bytes of chunk extensions and trailers of one body; nobody reads them.
const ANNOTATIONS_BYTES_MAX: usize = 4096;

/// More digits than the size of a chunk has.
const SIZE_DIGITS_MAX: u8 = 15;

/// How the end of a body is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// No body is announced.
    None,
    /// By this length.
    Length(usize),
    /// By a chunk of size 0.
    Chunked,
}

/// Why a body can't be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyError {
    /// `Content-Length` beside `Transfer-Encoding`.
    TwoFramings,
    /// Not exactly one `Content-Length` of digits.
    Length,
    /// Anything but one `chunked`, or in HTTP/1.0.
    TransferEncoding,
    /// The framing of the chunks is broken.
    Chunk,
    /// A line behind the last chunk is not `name: value`.
    Trailer,
    /// There is too much around the chunks.
    Annotations,
    /// More bytes than are allowed.
    TooLarge {
        /// The limit.
        bytes_max: usize,
    },
}

impl BodyError {
    /// The answer that tells the client.
    #[must_use]
    pub const fn status(self) -> Status {
        match self {
            Self::TooLarge { .. } => Status::CONTENT_TOO_LARGE,
            _ => Status::BAD_REQUEST,
        }
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TwoFramings => {
                f.write_str("Content-Length and Transfer-Encoding exclude each other")
            }
            Self::Length => f.write_str("Content-Length must be a number, once"),
            Self::TransferEncoding => {
                f.write_str("Transfer-Encoding must be chunked, once, in HTTP/1.1")
            }
            Self::Chunk => f.write_str("the chunks of the body are broken"),
            Self::Trailer => f.write_str("a trailer line is not \"name: value\""),
            Self::Annotations => f.write_str("chunk extensions and trailers are too long"),
            Self::TooLarge { bytes_max } => write!(f, "the body is longer than {bytes_max} bytes"),
        }
    }
}

impl std::error::Error for BodyError {}

impl Framing {
    /// The framing that a head announces (§6.3).
    ///
    /// # Errors
    /// What two readers could understand in two ways.
    pub fn of(head: &Head<'_>) -> Result<Self, BodyError> {
        let has_length = head.fields.has("content-length");
        if head.fields.has("transfer-encoding") {
            let encoding = head.fields.only_value("transfer-encoding");
            let is_chunked = encoding.is_some_and(|value| value.eq_ignore_ascii_case(b"chunked"));
            return match (has_length, is_chunked && head.minor_version >= 1) {
                (true, _) => Err(BodyError::TwoFramings),
                (false, true) => Ok(Self::Chunked),
                (false, false) => Err(BodyError::TransferEncoding),
            };
        }
        if !has_length {
            return Ok(Self::None);
        }
        let digits = head.fields.only_value("content-length");
        let digits = digits.ok_or(BodyError::Length)?;
        // Rust's own parser would take a sign.
        let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        let text = std::str::from_utf8(digits).map_err(|_| BodyError::Length)?;
        let length = text.parse().ok().filter(|_| is_number);
        length.map(Self::Length).ok_or(BodyError::Length)
    }
}

/// Takes a body out of a stream, however that is cut.
#[derive(Debug)]
pub struct BodyReader {
    step: Step,
    body: Vec<u8>,
    bytes_max: usize,
    /// How long extensions and trailers may still be.
    annotations_left: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// Of a body by length: so many bytes are to come.
    Length {
        left: usize,
    },
    /// Before or within the size of a chunk.
    Size {
        size: usize,
        digits: u8,
    },
    /// White space behind the size: an extension must follow (§7.1.1).
    SizeSpace {
        size: usize,
    },
    Extension {
        size: usize,
    },
    SizeLf {
        size: usize,
    },
    Data {
        left: usize,
    },
    DataCr,
    DataLf,
    /// At the start of a line behind the last chunk.
    Trailers,
    TrailerName,
    TrailerValue,
    TrailerLf,
    LastLf,
    Whole,
}

impl BodyReader {
    /// A reader of a body of at most `bytes_max` bytes.
    ///
    /// # Errors
    /// [`BodyError::TooLarge`] if the announced length is over that.
    pub const fn new(framing: Framing, bytes_max: usize) -> Result<Self, BodyError> {
        let step = match framing {
            Framing::None | Framing::Length(0) => Step::Whole,
            Framing::Length(length) if length > bytes_max => {
                return Err(BodyError::TooLarge { bytes_max });
            }
            Framing::Length(left) => Step::Length { left },
            Framing::Chunked => Step::Size { size: 0, digits: 0 },
        };
        Ok(Self {
            step,
            body: Vec::new(),
            bytes_max,
            annotations_left: ANNOTATIONS_BYTES_MAX,
        })
    }

    /// Whether the body is all there.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        matches!(self.step, Step::Whole)
    }

    /// The length of a body that lies in the stream in one piece and of which nothing was read.
    #[must_use]
    pub const fn unread_length(&self) -> Option<usize> {
        match self.step {
            Step::Length { left } if self.body.is_empty() => Some(left),
            _ => None,
        }
    }

    /// Takes the body out, once it is whole.
    pub fn take_body(&mut self) -> Vec<u8> {
        debug_assert!(self.is_whole(), "nobody wants half a body");
        std::mem::take(&mut self.body)
    }

    /// Bytes of memory that this takes beside its own size.
    #[must_use]
    pub const fn pinned_bytes(&self) -> usize {
        self.body.capacity()
    }

    /// Takes what belongs to the body and says how much that was.
    ///
    /// # Errors
    /// [`BodyError`]; nothing more is to be read then.
    pub fn read(&mut self, bytes: &[u8]) -> Result<usize, BodyError> {
        let mut position = 0;
        while position < bytes.len() && !self.is_whole() {
            let rest = &bytes[position..];
            position += match self.step {
                Step::Length { left } => {
                    self.take(rest, left, |left| Step::Length { left }, Step::Whole)
                }
                Step::Data { left } => {
                    self.take(rest, left, |left| Step::Data { left }, Step::DataCr)
                }
                _ => {
                    self.step = self.next_step(rest[0])?;
                    1
                }
            };
        }
        Ok(position)
    }

    /// Takes what has come of the `left` bytes that are to come.
    fn take(&mut self, bytes: &[u8], left: usize, more: fn(usize) -> Step, done: Step) -> usize {
        let taken = left.min(bytes.len());
        self.body.extend_from_slice(&bytes[..taken]);
        self.step = match left - taken {
            0 => done,
            left => more(left),
        };
        taken
    }

    /// What follows a byte of the framing (§7.1).
    fn next_step(&mut self, byte: u8) -> Result<Step, BodyError> {
        Ok(match (self.step, byte) {
            (Step::Size { size, digits }, byte) if byte.is_ascii_hexdigit() => {
                if digits == SIZE_DIGITS_MAX {
                    return Err(BodyError::Chunk);
                }
                let digit = char::from(byte).to_digit(16).unwrap_or_default() as usize;
                Step::Size {
                    size: size * 16 + digit,
                    digits: digits + 1,
                }
            }
            (Step::Size { digits: 0, .. }, _) => return Err(BodyError::Chunk),
            (Step::Size { size, .. } | Step::SizeSpace { size }, b';') => Step::Extension { size },
            (Step::Size { size, .. } | Step::Extension { size }, b'\r') => Step::SizeLf { size },
            (Step::Size { size, .. } | Step::SizeSpace { size }, b' ' | b'\t') => {
                self.annotate()?;
                Step::SizeSpace { size }
            }
            (Step::Extension { .. }, byte) if is_text(byte) => {
                self.annotate()?;
                self.step
            }
            (Step::SizeLf { size: 0 }, b'\n') => Step::Trailers,
            (Step::SizeLf { size }, b'\n') => {
                let bytes_max = self.bytes_max;
                if size > bytes_max - self.body.len() {
                    return Err(BodyError::TooLarge { bytes_max });
                }
                Step::Data { left: size }
            }
            (Step::DataCr, b'\r') => Step::DataLf,
            (Step::DataLf, b'\n') => Step::Size { size: 0, digits: 0 },
            (
                Step::Trailers
                | Step::TrailerName
                | Step::TrailerValue
                | Step::TrailerLf
                | Step::LastLf,
                _,
            ) => return self.next_trailer_step(byte),
            _ => return Err(BodyError::Chunk),
        })
    }

    /// What follows a byte behind the last chunk (§7.1.2). The lines there are fields like those of a head:
    /// nothing is between a name and its colon, none is folded.
    fn next_trailer_step(&mut self, byte: u8) -> Result<Step, BodyError> {
        let next = match (self.step, byte) {
            (Step::Trailers, b'\r') => Step::LastLf,
            (Step::LastLf, b'\n') => Step::Whole,
            (Step::TrailerValue, b'\r') => Step::TrailerLf,
            (Step::TrailerLf, b'\n') => Step::Trailers,
            (Step::Trailers | Step::TrailerName, byte) if is_token_byte(byte) => Step::TrailerName,
            (Step::TrailerName, b':') => Step::TrailerValue,
            (Step::TrailerValue, byte) if is_text(byte) => Step::TrailerValue,
            _ => return Err(BodyError::Trailer),
        };
        if matches!(next, Step::TrailerName | Step::TrailerValue) {
            self.annotate()?;
        }
        Ok(next)
    }

    const fn annotate(&mut self) -> Result<(), BodyError> {
        match self.annotations_left.checked_sub(1) {
            Some(left) => {
                self.annotations_left = left;
                Ok(())
            }
            None => Err(BodyError::Annotations),
        }
    }
}

/// Whether a byte may be in an extension or in the value of a trailer: no control character but a tab.
const fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framing(fields: &str) -> Result<Framing, BodyError> {
        framing_in("HTTP/1.1", fields)
    }

    fn framing_in(version: &str, fields: &str) -> Result<Framing, BodyError> {
        let text = format!("POST / {version}\r\n{fields}\r\n\r\n");
        let (head, _) = Head::parse(text.as_bytes(), 0, 4096)
            .expect("valid")
            .expect("complete");
        Framing::of(&head)
    }

    /// Reads `stream` in two pieces; the body and how much was taken, or `None` if more is to come.
    fn read_split(
        framing: Framing,
        stream: &[u8],
        split: usize,
        bytes_max: usize,
    ) -> Result<Option<(Vec<u8>, usize)>, BodyError> {
        let mut reader = BodyReader::new(framing, bytes_max)?;
        let mut taken = reader.read(&stream[..split])?;
        assert!(taken == split || reader.is_whole());
        assert!(reader.is_possible());
        let mut reader = saved::tests::carried(&reader);
        taken += reader.read(&stream[taken..])?;
        let is_whole = reader.is_whole();
        Ok(is_whole.then(|| (reader.take_body(), taken)))
    }

    /// The same at every split point, which must not matter.
    fn read(
        framing: Framing,
        stream: &str,
        bytes_max: usize,
    ) -> Result<Option<(Vec<u8>, usize)>, BodyError> {
        let stream = stream.as_bytes();
        let whole = read_split(framing, stream, 0, bytes_max);
        for split in 1..=stream.len() {
            assert_eq!(
                read_split(framing, stream, split, bytes_max),
                whole,
                "{split}"
            );
        }
        if let Ok(Some((_, length))) = whole {
            for end in 0..length {
                assert_eq!(read_split(framing, &stream[..end], 0, bytes_max), Ok(None));
            }
        }
        whole
    }

    fn chunked(stream: &str) -> Result<Option<(Vec<u8>, usize)>, BodyError> {
        read(Framing::Chunked, stream, 100)
    }

    #[test]
    fn framings() {
        assert_eq!(framing("Host: a"), Ok(Framing::None));
        assert_eq!(framing("Content-Length: 0"), Ok(Framing::Length(0)));
        assert_eq!(framing("content-length:  0012 "), Ok(Framing::Length(12)));
        for value in ["chunked", "Chunked"] {
            let field = format!("Transfer-Encoding: {value}");
            assert_eq!(framing(&field), Ok(Framing::Chunked));
        }
    }

    #[test]
    fn what_two_readers_could_understand_in_two_ways() {
        for value in [
            "",
            "+5",
            "-5",
            "5, 5",
            "5 5",
            "0x5",
            "5;",
            "5.0",
            "\u{664}",
            "99999999999999999999",
        ] {
            let field = format!("Content-Length: {value}");
            assert_eq!(framing(&field), Err(BodyError::Length), "{field}");
        }
        let twice = "Content-Length: 5\r\nContent-Length: 5";
        assert_eq!(framing(twice), Err(BodyError::Length));
        for value in [
            "",
            "identity",
            "gzip, chunked",
            "chunked, chunked",
            "chunked, identity",
            "xchunked",
            "\"chunked\"",
            "chunked;q=1",
        ] {
            let field = format!("Transfer-Encoding: {value}");
            assert_eq!(framing(&field), Err(BodyError::TransferEncoding), "{field}");
        }
        let twice = "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked";
        assert_eq!(framing(twice), Err(BodyError::TransferEncoding));
        let old = framing_in("HTTP/1.0", "Transfer-Encoding: chunked");
        assert_eq!(old, Err(BodyError::TransferEncoding));
        for encoding in ["chunked", "identity"] {
            let both = format!("Content-Length: 5\r\nTransfer-Encoding: {encoding}");
            assert_eq!(framing(&both), Err(BodyError::TwoFramings));
        }
    }

    #[test]
    fn bodies_by_length_end_where_they_end() {
        assert_eq!(
            read(Framing::Length(5), "helloPOST", 5),
            Ok(Some((b"hello".to_vec(), 5)))
        );
        assert_eq!(read(Framing::Length(0), "POST", 5), Ok(Some((vec![], 0))));
        assert_eq!(read(Framing::Length(5), "hell", 5), Ok(None));
        let too_large = Err(BodyError::TooLarge { bytes_max: 4 });
        assert_eq!(read(Framing::Length(5), "hello", 4), too_large);
    }

    #[test]
    fn chunks_are_put_together() {
        let stream = "5\r\nhello\r\n00d;a=b; c=\"d\"\r\n twelve bytes\r\n1 ;x\r\n!\r\n0\r\nT: x\r\nU:y\r\n\r\n";
        let with_next = format!("{stream}POST");
        assert_eq!(
            chunked(&with_next),
            Ok(Some((b"hello twelve bytes!".to_vec(), stream.len())))
        );
        assert_eq!(chunked("0\r\n\r\n"), Ok(Some((vec![], 5))));
        assert_eq!(
            chunked("A\r\n0123456789\r\n000\r\n\r\n").map(|read| read.is_some()),
            Ok(true)
        );
    }

    #[test]
    fn chunks_that_are_refused() {
        for stream in [
            "\r\n",
            ";a\r\n",
            " 5\r\n",
            "5 \r\n",
            "5\n",
            "g\r\n",
            "0x5\r\n",
            "-1\r\n",
            "5\rh",
            "5\r\nhello6",
            "5\r\nhello\n",
            "5\r\nhello\rx",
            "5;a\nb\r\n",
            "5;a\0\r\n",
            "5;a\rb",
            "1000000000000000\r\n",
        ] {
            assert_eq!(chunked(stream), Err(BodyError::Chunk), "{stream:?}");
        }
    }

    #[test]
    fn trailers_are_fields() {
        for trailers in [
            "a:\r\n",
            "X-Checksum:\tabc \r\n",
            "a:b:c\r\nB: \u{e9}\r\n",
            "!#$%&'*+-.^_`|~: x\r\n",
        ] {
            let stream = format!("1\r\nx\r\n0\r\n{trailers}\r\n");
            let expected = Ok(Some((b"x".to_vec(), stream.len())));
            assert_eq!(chunked(&stream), expected, "{stream:?}");
        }
        for trailers in [
            "\n",
            "\rx",
            "no field\r\n",
            "a\r\n",
            "a b: c\r\n",
            "a : b\r\n",
            ": b\r\n",
            " a: b\r\n",
            "a: b\r\n folded\r\n",
            "a: b\r\n\tfolded\r\n",
            "a: b\n\r\n",
            "a: b\rc",
            "a: \0\r\n",
            "a\u{e9}: b\r\n",
            "GET / HTTP/1.1\r\n",
        ] {
            let stream = format!("0\r\n{trailers}\r\n");
            assert_eq!(chunked(&stream), Err(BodyError::Trailer), "{stream:?}");
        }
    }

    #[test]
    fn limits_at_max_and_one_more() {
        let body = |sizes: &[usize]| {
            let chunks = sizes
                .iter()
                .map(|&size| format!("{size:x}\r\n{}\r\n", "x".repeat(size)));
            chunks.collect::<String>() + "0\r\n\r\n"
        };
        assert!(matches!(chunked(&body(&[50, 50])), Ok(Some((body, _))) if body.len() == 100));
        let too_large = Err(BodyError::TooLarge { bytes_max: 100 });
        assert_eq!(chunked(&body(&[50, 51])), too_large);
        assert_eq!(chunked("fffffffffffffff\r\n"), too_large);

        let with_extension = |length: usize| format!("0;{}\r\n\r\n", "x".repeat(length));
        let at = |stream: &str| read_split(Framing::Chunked, stream.as_bytes(), 1, 100);
        assert!(at(&with_extension(ANNOTATIONS_BYTES_MAX)).is_ok());
        let beyond = at(&with_extension(ANNOTATIONS_BYTES_MAX + 1));
        assert_eq!(beyond, Err(BodyError::Annotations));
        let trailers = format!(
            "0\r\n{}\r\n",
            "a:b\r\n".repeat(ANNOTATIONS_BYTES_MAX / 3 + 1)
        );
        assert_eq!(at(&trailers), Err(BodyError::Annotations));
    }
}
