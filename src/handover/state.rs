//! A whole state: records between a first one, which says who wrote it, and a last one, which says that it is all.

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};

use super::record::{Fields, Malformed, Members};

/// The version of the format that this program writes.
const VERSION: u64 = 1;
/// The version that a reader has to know at least. Raised only when what it would skip is more than it may.
const NEEDS: u64 = 1;

/// What the first record holds, so that nothing else is taken for a state.
const MAGIC: &[u8] = b"crieur state";

const HEAD: u8 = 1;
const END: u8 = 255;

// Members of HEAD.
const HEAD_MAGIC: u8 = 1;
const HEAD_VERSION: u8 = 2;
const HEAD_NEEDS: u8 = 3;
const HEAD_PROGRAM: u8 = 4;

/// The number of records, in END.
const END_RECORDS: u8 = 1;

/// Writes a state.
#[derive(Debug)]
pub struct Outgoing<W> {
    into: W,
    /// The record that is being written; kept for the next.
    members: Vec<u8>,
    records: u64,
}

impl<W: Write> Outgoing<W> {
    /// Begins a state.
    ///
    /// # Errors
    ///
    /// `into` doesn't take it.
    pub fn begin(into: W) -> io::Result<Self> {
        let members = Vec::new();
        let mut state = Self {
            into,
            members,
            records: 0,
        };
        state.record(HEAD, |members| {
            members.bytes(HEAD_MAGIC, MAGIC);
            members.number(HEAD_VERSION, VERSION);
            members.number(HEAD_NEEDS, NEEDS);
            members.bytes(HEAD_PROGRAM, env!("CARGO_PKG_VERSION").as_bytes());
        })?;
        Ok(state)
    }

    /// Adds a record.
    ///
    /// # Errors
    ///
    /// The state isn't taken, or the record has 4 GiB.
    pub fn record(&mut self, kind: u8, write: impl FnOnce(&mut Members<'_>)) -> io::Result<()> {
        self.members.clear();
        write(&mut Members::new(&mut self.members));
        let length = u32::try_from(self.members.len()).map_err(|_| ErrorKind::FileTooLarge)?;
        self.records += 1;
        self.into.write_all(&[kind])?;
        self.into.write_all(&length.to_le_bytes())?;
        self.into.write_all(&self.members)
    }

    /// Ends the state.
    ///
    /// # Errors
    ///
    /// It isn't taken.
    pub fn finish(mut self) -> io::Result<W> {
        let records = self.records;
        self.record(END, |members| members.number(END_RECORDS, records))?;
        self.into.flush()?;
        Ok(self.into)
    }
}

/// The kind of a record, and what is in it.
pub type Record<'a> = (u8, Result<Fields<'a>, Malformed>);

/// Reads a state, a record at a time.
#[derive(Debug)]
pub struct Incoming<R> {
    from: R,
    members: Vec<u8>,
    records: u64,
    program: String,
}

impl<R: Read> Incoming<R> {
    /// Begins to read a state.
    ///
    /// # Errors
    ///
    /// It is none, or one that this program doesn't know enough for.
    pub fn begin(from: R) -> Result<Self, StateError> {
        let mut state = Self {
            from,
            members: Vec::new(),
            records: 0,
            program: String::new(),
        };
        let kind = state.read_record()?;
        let head = Fields::parse(&state.members)?;
        if kind != HEAD || head.bytes(HEAD_MAGIC) != MAGIC {
            return Err(Malformed("it is no state of a crieur").into());
        }
        if head.number(HEAD_NEEDS) > VERSION {
            let version = head.number(HEAD_VERSION);
            return Err(StateError::TooNew { version });
        }
        state.program = head.text(HEAD_PROGRAM)?.to_owned();
        Ok(state)
    }

    /// The version of the program that wrote it.
    #[must_use]
    pub fn program(&self) -> &str {
        &self.program
    }

    /// The kind of the next record and what is in it, which may be malformed: then the record is lost alone. `None` behind
    /// the last.
    ///
    /// # Errors
    ///
    /// The state is cut off, or lacks records.
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>, StateError> {
        let before = self.records;
        let kind = self.read_record()?;
        let fields = Fields::parse(&self.members);
        if kind != END {
            return Ok(Some((kind, fields)));
        }
        if fields?.number(END_RECORDS) != before {
            return Err(Malformed("records are missing").into());
        }
        Ok(None)
    }

    fn read_record(&mut self) -> Result<u8, StateError> {
        let mut head = [0; 5];
        self.from.read_exact(&mut head)?;
        let [kind, length @ ..] = head;
        let length = u64::from(u32::from_le_bytes(length));
        self.members.clear();
        // Not reserved ahead: the length may be damaged.
        let read = self
            .from
            .by_ref()
            .take(length)
            .read_to_end(&mut self.members)?;
        if (read as u64) < length {
            return Err(io::Error::from(ErrorKind::UnexpectedEof).into());
        }
        self.records += 1;
        Ok(kind)
    }
}

/// Why a state can't be read.
#[derive(Debug)]
pub enum StateError {
    /// The file can't be read, or ends too early.
    Io(io::Error),
    /// It isn't what a server writes.
    Malformed(Malformed),
    /// A newer program wrote it, and says that this one would lose something.
    TooNew {
        /// The version of its format.
        version: u64,
    },
}

impl From<io::Error> for StateError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Malformed> for StateError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl fmt::Display for StateError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(formatter, "the state can't be read: {error}"),
            Self::Malformed(malformed) => write!(formatter, "the state is damaged: {malformed}"),
            Self::TooNew { version } => write!(
                formatter,
                "the state has format {version}, and this program knows {VERSION} at most"
            ),
        }
    }
}

impl Error for StateError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> Vec<u8> {
        let mut out = Outgoing::begin(Vec::new()).expect("taken");
        out.record(7, |members| members.number(1, 17))
            .expect("taken");
        out.record(9, |_| {}).expect("taken");
        out.record(7, |members| members.bytes(2, &[1; 70_000]))
            .expect("taken");
        out.finish().expect("taken")
    }

    fn read(bytes: &[u8]) -> Result<Vec<(u8, u64, usize)>, StateError> {
        let mut state = Incoming::begin(bytes)?;
        let mut found = Vec::new();
        while let Some((kind, fields)) = state.next_record()? {
            let fields = fields.expect("members");
            found.push((kind, fields.number(1), fields.bytes(2).len()));
        }
        Ok(found)
    }

    #[test]
    fn records_come_in_their_order() {
        let found = read(&state()).expect("a state");
        assert_eq!(found, [(7, 17, 0), (9, 0, 0), (7, 0, 70_000)]);
        let bytes = state();
        let state = Incoming::begin(&bytes[..]).expect("a state");
        assert_eq!(state.program(), env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn a_state_that_is_cut_off_is_none() {
        let bytes = state();
        for cut in (0..200).chain(bytes.len() - 200..bytes.len()) {
            assert!(read(&bytes[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn a_state_that_lacks_a_record_is_none() {
        let bytes = state();
        // The empty record of kind 9.
        let at = bytes
            .windows(5)
            .position(|window| window == [9, 0, 0, 0, 0])
            .expect("there");
        let lacking = [&bytes[..at], &bytes[at + 5..]].concat();
        let error = read(&lacking).expect_err("one is missing");
        assert_eq!(
            error.to_string(),
            "the state is damaged: records are missing"
        );
    }

    #[test]
    fn a_record_that_is_damaged_is_lost_alone() {
        let mut out = Outgoing::begin(Vec::new()).expect("taken");
        out.record(7, |members| members.bytes(1, b"abc"))
            .expect("taken");
        out.record(8, |_| {}).expect("taken");
        let mut bytes = out.finish().expect("taken");
        let at = bytes
            .windows(3)
            .position(|window| window == b"abc")
            .expect("there");
        bytes[at - 1] = 9;
        let mut state = Incoming::begin(&bytes[..]).expect("a state");
        let (kind, fields) = state.next_record().expect("a record").expect("there");
        assert_eq!((kind, fields.is_err()), (7, true));
        assert_eq!(state.next_record().expect("a record").expect("there").0, 8);
        assert!(state.next_record().expect("the end").is_none());
    }

    #[test]
    fn a_state_that_needs_a_newer_program_is_refused() {
        for (needs, is_read) in [(VERSION, true), (VERSION + 1, false)] {
            let mut out = Outgoing {
                into: Vec::new(),
                members: Vec::new(),
                records: 0,
            };
            out.record(HEAD, |members| {
                members.bytes(HEAD_MAGIC, MAGIC);
                members.number(HEAD_VERSION, VERSION + 5);
                members.number(HEAD_NEEDS, needs);
            })
            .expect("taken");
            let bytes = out.finish().expect("taken");
            match Incoming::begin(&bytes[..]) {
                Ok(_) => assert!(is_read),
                Err(error) => {
                    assert!(!is_read);
                    let said = "the state has format 6, and this program knows 1 at most";
                    assert_eq!(error.to_string(), said);
                }
            }
        }
    }

    #[test]
    fn anything_else_is_no_state() {
        for bytes in [
            &b""[..],
            &[0; 5],
            &[HEAD, 0, 0, 0, 0],
            b"GET / HTTP/1.1\r\n\r\n",
        ] {
            assert!(Incoming::begin(bytes).is_err());
        }
    }
}
