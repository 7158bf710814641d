//! The segments in the hands of a successor, which goes on behind the last record. Nothing is written for that: if it
//! dies, a start finds what it would find had this program been killed.

use std::io;
use std::os::fd::BorrowedFd;

use super::super::boot::{restore_mark, save_mark};
use super::super::generations::{from_bytes, to_bytes};
use super::super::id::Position;
use super::super::record::{Chain, POSITION_MAX};
use super::super::storage::Storage;
use super::{Segments, Tail};
use crate::handover::{Fields, Malformed, Members};

// Members of segments.
const BOOT: u8 = 1;
const GENERATIONS: u8 = 2;
const ORDINAL: u8 = 3;
const LENGTH: u8 = 4;
const CHAIN: u8 = 5;
const ENTRIES_BYTES: u8 = 6;
const END: u8 = 7;
const IS_MARKED: u8 = 8;
/// What the storage says of itself.
const STORAGE: u8 = 9;

impl Segments {
    /// Writes what a successor must know that is given [`Self::descriptors`].
    pub fn save(&self, members: &mut Members<'_>) {
        let Self {
            storage,
            // It is configured.
            bytes_max: _,
            boot,
            generations,
            tail,
            entries_bytes,
            end,
            is_marked,
        } = self;
        let Tail {
            ordinal,
            length,
            chain,
        } = tail;
        save_mark(BOOT, *boot, members);
        members.bytes(GENERATIONS, &to_bytes(generations));
        members.number(ORDINAL, *ordinal);
        members.number(LENGTH, *length);
        members.number(CHAIN, chain.0.into());
        members.number(ENTRIES_BYTES, *entries_bytes);
        members.number(END, end.0);
        members.number(IS_MARKED, u64::from(*is_marked));
        members.nested(STORAGE, |members| storage.save(members));
    }

    /// The descriptors that a successor goes on with.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.storage.descriptors()
    }

    /// The segments that were saved. `open` makes their storage of what it has said of itself, when all else is in order.
    ///
    /// # Errors
    /// They are none that could be gone on from, or `open` says so.
    pub fn carried(
        fields: &Fields<'_>,
        bytes_max: u64,
        open: impl FnOnce(&Fields<'_>) -> Result<Box<dyn Storage>, Malformed>,
    ) -> Result<Self, Malformed> {
        let storage = fields.nested(STORAGE)?;
        let storage = storage.ok_or(Malformed("segments have no storage"))?;
        let tail = Tail {
            ordinal: fields.number(ORDINAL),
            length: fields.number(LENGTH),
            chain: Chain(fields.narrow(CHAIN)?),
        };
        let boot = restore_mark(BOOT, fields)?;
        let generations = from_bytes(fields.bytes(GENERATIONS))?;
        let entries_bytes = fields.number(ENTRIES_BYTES);
        let end = Position(fields.number(END));
        // Counting on from there must not overflow; and a start refuses a header with a generation that begins behind it.
        let is_known = |(_, start): &(_, Position)| *start <= end;
        let can_go_on = end <= POSITION_MAX
            && tail.ordinal <= POSITION_MAX.0
            && entries_bytes <= tail.length
            && generations.last().is_some_and(is_known);
        if !can_go_on {
            return Err(Malformed("segments end at no such place"));
        }
        Ok(Self {
            storage: open(&storage)?,
            bytes_max,
            boot,
            generations,
            tail,
            entries_bytes,
            end,
            is_marked: fields.number(IS_MARKED) != 0,
        })
    }

    /// Looks whether the newer segment ends where it should, as a write does that fails.
    ///
    /// # Errors
    /// It doesn't, or that can't be told. The files are to be made nothing then.
    pub fn check_length(&self) -> io::Result<()> {
        let length = self.storage.length(self.tail.side())?;
        if length == self.tail.length {
            return Ok(());
        }
        let expected = self.tail.length;
        let error = format!("a segment has {length} bytes instead of {expected}");
        Err(io::Error::new(io::ErrorKind::InvalidData, error))
    }
}
