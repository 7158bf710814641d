//! The body of a request that hasn't come whole, written for a successor and restored.
//!
//! Knows no stream. Invariant: what is restored is a reader as some stream could have made it.

use super::{ANNOTATIONS_BYTES_MAX, BodyReader, SIZE_DIGITS_MAX, Step};
use crate::handover::{Fields, Malformed, Members};

// Members of a reader.
const STEP: u8 = 1;
/// What is to come of a body or a chunk, or the size of a chunk as far as it is known.
const SIZE: u8 = 2;
/// How many digits of it have come.
const DIGITS: u8 = 3;
const BODY: u8 = 4;
const BYTES_MAX: u8 = 5;
const ANNOTATIONS_LEFT: u8 = 6;

// Numbers of steps.
const LENGTH: u64 = 1;
const CHUNK_SIZE: u64 = 2;
const SIZE_SPACE: u64 = 3;
const EXTENSION: u64 = 4;
const SIZE_LF: u64 = 5;
const DATA: u64 = 6;
const DATA_CR: u64 = 7;
const DATA_LF: u64 = 8;
const TRAILERS: u64 = 9;
const TRAILER_NAME: u64 = 10;
const TRAILER_VALUE: u64 = 11;
const TRAILER_LF: u64 = 12;
const LAST_LF: u64 = 13;
const WHOLE: u64 = 14;

impl BodyReader {
    /// Writes what has come, and where in its framing the body is.
    pub fn save(&self, members: &mut Members<'_>) {
        let Self {
            step,
            body,
            bytes_max,
            annotations_left,
        } = self;
        step.save(members);
        members.bytes(BODY, body);
        members.size(BYTES_MAX, *bytes_max);
        members.size(ANNOTATIONS_LEFT, *annotations_left);
    }

    /// The reader that was written.
    ///
    /// # Errors
    /// There is no such step, or no stream leads to it: more has come or is to come than may, a size has more
    /// digits than are read, or more is left for extensions and trailers than there is at first.
    pub fn restore(fields: &Fields<'_>) -> Result<Self, Malformed> {
        let reader = Self {
            step: Step::restore(fields)?,
            body: fields.bytes(BODY).to_vec(),
            bytes_max: fields.narrow(BYTES_MAX)?,
            annotations_left: fields.narrow(ANNOTATIONS_LEFT)?,
        };
        if reader.is_possible() {
            Ok(reader)
        } else {
            Err(Malformed("a body is in a state that none can be in"))
        }
    }

    /// Whether the reader is as a stream can have made it.
    pub fn is_possible(&self) -> bool {
        let Some(room) = self.bytes_max.checked_sub(self.body.len()) else {
            return false;
        };
        let is_step_possible = match self.step {
            Step::Length { left } | Step::Data { left } => 0 < left && left <= room,
            Step::Size { size, digits } => digits <= SIZE_DIGITS_MAX && has_digits(size, digits),
            // Whether there is room for it is asked at the end of the line.
            Step::SizeSpace { size } | Step::Extension { size } | Step::SizeLf { size } => {
                has_digits(size, SIZE_DIGITS_MAX)
            }
            Step::DataCr
            | Step::DataLf
            | Step::Trailers
            | Step::TrailerName
            | Step::TrailerValue
            | Step::TrailerLf
            | Step::LastLf
            | Step::Whole => true,
        };
        is_step_possible && self.annotations_left <= ANNOTATIONS_BYTES_MAX
    }
}

/// Whether `size` can be written in so many hexadecimal digits, of which there are at most [`SIZE_DIGITS_MAX`].
const fn has_digits(size: usize, digits: u8) -> bool {
    size as u64 >> (4 * digits as u32) == 0
}

impl Step {
    fn save(self, members: &mut Members<'_>) {
        let (step, size, digits) = match self {
            Self::Length { left } => (LENGTH, left, 0),
            Self::Size { size, digits } => (CHUNK_SIZE, size, digits),
            Self::SizeSpace { size } => (SIZE_SPACE, size, 0),
            Self::Extension { size } => (EXTENSION, size, 0),
            Self::SizeLf { size } => (SIZE_LF, size, 0),
            Self::Data { left } => (DATA, left, 0),
            Self::DataCr => (DATA_CR, 0, 0),
            Self::DataLf => (DATA_LF, 0, 0),
            Self::Trailers => (TRAILERS, 0, 0),
            Self::TrailerName => (TRAILER_NAME, 0, 0),
            Self::TrailerValue => (TRAILER_VALUE, 0, 0),
            Self::TrailerLf => (TRAILER_LF, 0, 0),
            Self::LastLf => (LAST_LF, 0, 0),
            Self::Whole => (WHOLE, 0, 0),
        };
        members.number(STEP, step);
        members.size(SIZE, size);
        members.number(DIGITS, digits.into());
    }

    fn restore(fields: &Fields<'_>) -> Result<Self, Malformed> {
        let size = fields.narrow(SIZE)?;
        Ok(match fields.number(STEP) {
            LENGTH => Self::Length { left: size },
            CHUNK_SIZE => Self::Size {
                size,
                digits: fields.narrow(DIGITS)?,
            },
            SIZE_SPACE => Self::SizeSpace { size },
            EXTENSION => Self::Extension { size },
            SIZE_LF => Self::SizeLf { size },
            DATA => Self::Data { left: size },
            DATA_CR => Self::DataCr,
            DATA_LF => Self::DataLf,
            TRAILERS => Self::Trailers,
            TRAILER_NAME => Self::TrailerName,
            TRAILER_VALUE => Self::TrailerValue,
            TRAILER_LF => Self::TrailerLf,
            LAST_LF => Self::LastLf,
            WHOLE => Self::Whole,
            _ => return Err(Malformed("a body is in no step that is known")),
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;

    use super::super::{BodyError, Framing};
    use super::*;
    use fastrand::Rng;

    fn written(reader: &BodyReader) -> Vec<u8> {
        let mut bytes = Vec::new();
        reader.save(&mut Members::new(&mut bytes));
        bytes
    }

    fn read(bytes: &[u8]) -> Result<BodyReader, Malformed> {
        BodyReader::restore(&Fields::parse(bytes)?)
    }

    /// The reader as a successor has it.
    pub(in super::super) fn carried(reader: &BodyReader) -> BodyReader {
        let bytes = written(reader);
        let carried = read(&bytes).expect("it was written");
        assert_eq!(written(&carried), bytes);
        carried
    }

    /// One in each step, in the order of their numbers.
    fn in_every_step() -> Vec<BodyReader> {
        let streams = [
            "",
            "1f",
            "3 ",
            "3;a",
            "3\r",
            "3\r\na",
            "1\r\na",
            "1\r\na\r",
            "0\r\n",
            "0\r\nT",
            "0\r\nT:",
            "0\r\nT:\r",
            "0\r\n\r",
            "0\r\n\r\n",
        ];
        let readers = streams.into_iter().map(|stream| {
            let is_chunked = !stream.is_empty();
            let framing = if is_chunked {
                Framing::Chunked
            } else {
                Framing::Length(7)
            };
            let mut reader = BodyReader::new(framing, 100).expect("it is short");
            reader.read(stream.as_bytes()).expect("it is valid");
            reader
        });
        readers.collect()
    }

    #[test]
    fn every_step_is_carried() {
        let mut numbers = Vec::new();
        for reader in in_every_step() {
            let restored = carried(&reader);
            assert_eq!(restored.step, reader.step);
            assert_eq!(restored.body, reader.body);
            assert_eq!(restored.bytes_max, reader.bytes_max);
            assert_eq!(restored.annotations_left, reader.annotations_left);
            let bytes = written(&reader);
            numbers.push(Fields::parse(&bytes).expect("members").number(STEP));
        }
        assert_eq!(numbers, (LENGTH..=WHOLE).collect::<Vec<_>>());
    }

    #[test]
    fn a_body_goes_on_where_it_was_at_every_split_point() {
        let stream =
            b"5\r\nhello\r\n00d;a=b\t; c\r\n twelve bytes\r\n1 ;x\r\n!\r\n000\r\nT: x\r\nU:y\r\n\r\nPOST";
        let mut steps = BTreeSet::new();
        for split in 0..=stream.len() {
            let mut reader = BodyReader::new(Framing::Chunked, 19).expect("it is short");
            let taken = reader.read(&stream[..split]).expect("it is valid");
            let mut reader = carried(&reader);
            let text = format!("{:?}", reader.step);
            steps.extend(text.split(' ').next().map(str::to_owned));
            let taken = taken + reader.read(&stream[taken..]).expect("it is valid");
            assert_eq!(&stream[taken..], b"POST", "{split}");
            assert_eq!(reader.take_body(), b"hello twelve bytes!", "{split}");
        }
        assert_eq!(steps.len(), 13, "all but that of a length: {steps:?}");
    }

    /// What is restored of members that are given as numbers, with a body of so many bytes.
    fn restored(numbers: &[(u8, u64)], body_len: usize) -> Result<BodyReader, Malformed> {
        let mut bytes = Vec::new();
        let mut members = Members::new(&mut bytes);
        members.bytes(BODY, &vec![b'x'; body_len]);
        for &(member, number) in numbers {
            members.number(member, number);
        }
        read(&bytes)
    }

    #[test]
    fn limits_at_max_and_one_more() {
        for step in [LENGTH, DATA] {
            let with = |left, len| restored(&[(STEP, step), (SIZE, left), (BYTES_MAX, 100)], len);
            for (left, len, is_possible) in [
                (100, 0, true),
                (101, 0, false),
                (40, 60, true),
                (41, 60, false),
                (1, 99, true),
                (1, 100, false),
                (1, 101, false),
                (u64::MAX, 1, false),
                // It would have come.
                (0, 50, false),
            ] {
                assert_eq!(with(left, len).is_ok(), is_possible, "{left}, {len}");
            }
        }
        for step in [CHUNK_SIZE, DATA_CR, DATA_LF, TRAILERS, LAST_LF, WHOLE] {
            for (len, is_possible) in [(100, true), (101, false)] {
                let reader = restored(&[(STEP, step), (BYTES_MAX, 100)], len);
                assert_eq!(reader.is_ok(), is_possible, "{step}, {len}");
            }
        }
        let digits =
            |size, digits| restored(&[(STEP, CHUNK_SIZE), (SIZE, size), (DIGITS, digits)], 0);
        let size_max = (1 << 60) - 1;
        for (size, count, is_possible) in [
            (0, 0, true),
            (1, 0, false),
            (0xf, 1, true),
            (0x10, 1, false),
            (0, 15, true),
            (size_max, 15, true),
            (size_max + 1, 15, false),
            (0, 16, false),
            (0, 256, false),
        ] {
            assert_eq!(digits(size, count).is_ok(), is_possible, "{size}, {count}");
        }
        for step in [SIZE_SPACE, EXTENSION, SIZE_LF] {
            for (size, is_possible) in [(size_max, true), (size_max + 1, false)] {
                let reader = restored(&[(STEP, step), (SIZE, size)], 0);
                assert_eq!(reader.is_ok(), is_possible, "{step}, {size}");
            }
        }
        for (left, is_possible) in [(0, true), (4096, true), (4097, false), (u64::MAX, false)] {
            let reader = restored(&[(STEP, WHOLE), (ANNOTATIONS_LEFT, left)], 0);
            assert_eq!(reader.is_ok(), is_possible, "{left}");
        }
        for (step, is_known) in [(0, false), (WHOLE, true), (WHOLE + 1, false)] {
            assert_eq!(restored(&[(STEP, step)], 0).is_ok(), is_known, "{step}");
        }
    }

    #[test]
    fn what_may_still_come_is_the_same() {
        for used in [0, 1, ANNOTATIONS_BYTES_MAX] {
            let mut reader = BodyReader::new(Framing::Chunked, 4).expect("it is short");
            let start = format!("4\r\nabcd\r\n0;{}", "x".repeat(used));
            reader.read(start.as_bytes()).expect("it is valid");
            let mut reader = carried(&reader);
            let rest = "x".repeat(ANNOTATIONS_BYTES_MAX - used);
            reader.read(rest.as_bytes()).expect("so much may come");
            assert_eq!(reader.read(b"x"), Err(BodyError::Annotations));
        }
        for (size, is_taken) in [("2", true), ("3", false)] {
            let mut reader = BodyReader::new(Framing::Chunked, 4).expect("it is short");
            reader.read(b"2\r\nab\r\n").expect("it is valid");
            let chunk = format!("{size}\r\n");
            assert_eq!(carried(&reader).read(chunk.as_bytes()).is_ok(), is_taken);
        }
    }

    #[test]
    fn any_bytes_are_a_reader_or_are_refused() {
        let mut random = Rng::with_seed(18);
        let written: Vec<_> = in_every_step().iter().map(written).collect();
        let mut refused = 0;
        for _ in 0..20_000 {
            let mut bytes = written[random.usize(..written.len())].clone();
            for _ in 0..random.usize(1..4) {
                let position = random.usize(..bytes.len());
                bytes[position] = random.u8(..);
            }
            let Ok(mut reader) = read(&bytes) else {
                refused += 1;
                continue;
            };
            assert!(reader.body.capacity() <= bytes.len());
            carried(&reader);
            let more: Vec<_> = (0..50)
                .map(|_| b"0123af;: \t\r\nx"[random.usize(..13)])
                .collect();
            let _ = reader.read(&more);
            assert!(reader.is_possible(), "{reader:?}");
        }
        assert!((1000..19_000).contains(&refused), "{refused}");
    }
}
