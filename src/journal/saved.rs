//! The log as a state: one record of its own, then one of each entry, the oldest first.
//!
//! Ids stay what they are, since no generation is drawn; times too, since the clock goes on. What entries are found by
//! is made anew. The log on disk is saved apart, by [`WriteAhead::save`], since it is open ahead of all this.

use std::io::{self, Write};

use super::Journal;
use super::column::Fingerprints;
use super::entry::Entry;
use super::generations::Generations;
use super::history::History;
use super::id::{EntryId, Position};
use super::ids::{Ids, StreamIds};
use super::record::POSITION_MAX;
use super::write_ahead::WriteAhead;
use crate::config::HistoryLimits;
use crate::handover::{Fields, Malformed, Members, Outgoing};
use crate::wire::carried::{FrameNumbers, Frames};

/// The kind of the log's record.
pub const JOURNAL_RECORD: u8 = 8;
/// The kind of an entry's record.
pub const ENTRY_RECORD: u8 = 9;

// Members of the log's record.
const GENERATIONS: u8 = 1;
const HISTORY: u8 = 2;
const UNKEPT: u8 = 3;
/// Where ids are those of a stream, in place of generations.
const STREAM_IDS: u8 = 4;

impl Journal {
    /// Writes what a successor must know, and gives the encodings of all entries their numbers. They must be the first
    /// that get one in this writing.
    ///
    /// # Errors
    /// `out` doesn't take it, or no number is left.
    pub fn save<W: Write>(
        &self,
        out: &mut Outgoing<W>,
        frames: &mut FrameNumbers,
    ) -> io::Result<()> {
        out.record(JOURNAL_RECORD, |members| self.save_head(members))?;
        let mut position = self.history.start();
        for entry in self.history.entries() {
            position = position.next();
            for frame in entry.frames() {
                let is_new = frames.number(frame)?;
                debug_assert!(is_new, "the reader counts it");
            }
            out.record(ENTRY_RECORD, |members| {
                entry.save(self.ids.of_stream(position), members);
            })?;
        }
        Ok(())
    }

    fn save_head(&self, members: &mut Members<'_>) {
        let Self {
            ids,
            history,
            unkept,
            // Saved apart.
            write_ahead: _,
        } = self;
        if let Ids::Own(generations) = ids {
            members.bytes(GENERATIONS, &generations.save());
        }
        members.nested(HISTORY, |members| history.save(members));
        members.number(UNKEPT, unkept.0);
        if let Ids::Stream(ids) = ids {
            members.nested(STREAM_IDS, |members| ids.save(members));
        }
    }

    /// The log that was saved, still without its entries: `fields` are those of its record. It is written by
    /// `write_ahead` from now on, which is the one that was saved with it.
    ///
    /// # Errors
    /// It is none.
    pub fn carried(
        limits: HistoryLimits,
        fields: &Fields<'_>,
        write_ahead: Option<WriteAhead>,
    ) -> Result<Self, Malformed> {
        let history = fields.nested(HISTORY)?;
        let history = history.ok_or(Malformed("a log has no history"))?;
        let mut history = History::restore(limits, &history)?;
        let unkept = Position(fields.number(UNKEPT));
        if unkept > POSITION_MAX {
            return Err(Malformed("a log ends at no such position"));
        }
        // The limits that come with this program may turn on what was off: positions go on.
        if limits.is_on() && unkept > history.start() {
            history = History::new(limits, unkept);
        }
        let start = history.start().max(unkept);
        let ids = match fields.nested(STREAM_IDS)? {
            Some(fields) => Ids::Stream(StreamIds::restore(start, &fields)?),
            None => Ids::Own(Generations::restore(fields.bytes(GENERATIONS))?),
        };
        Ok(Self {
            history: history.with_id_bytes(ids.entry_bytes()),
            ids,
            unkept,
            write_ahead,
        })
    }

    /// This log, written by `write_ahead`, which is the one that was saved with what [`Journal::go_on`] will be shown.
    #[must_use]
    pub fn kept_in(self, write_ahead: WriteAhead) -> Self {
        let write_ahead = Some(write_ahead);
        Self {
            write_ahead,
            ..self
        }
    }

    /// Becomes the log that was saved, as [`Journal::carried`] has it, within the limits of this one and where this one is
    /// kept.
    ///
    /// # Errors
    /// It is none, or its ids are a stream's and those of this one aren't, or the other way round.
    pub fn go_on(&mut self, fields: &Fields<'_>) -> Result<(), Malformed> {
        let write_ahead = self.write_ahead.take();
        let carried = Self::carried(self.history.limits(), fields, write_ahead)?;
        match (carried.ids.are_of_stream(), self.ids.are_of_stream()) {
            (true, false) => return Err(Malformed("the server before it had --redis")),
            (false, true) => return Err(Malformed("the server before it had no --redis")),
            _ => {}
        }
        *self = carried;
        Ok(())
    }

    /// Takes the next entry, of whose record `fields` are, and adds its encodings to `frames`. It is found by
    /// `fingerprints`, which are of its [`Entry::saved_notification`].
    ///
    /// # Errors
    /// It is none. Those behind it have other positions then than they had, and can't be taken.
    pub fn carry(
        &mut self,
        fields: &Fields<'_>,
        fingerprints: &Fingerprints,
        frames: &mut Frames,
    ) -> Result<(), Malformed> {
        if self.head() >= POSITION_MAX {
            return Err(Malformed("a log has too many entries"));
        }
        let position = self.head().next();
        let id = match &self.ids {
            Ids::Own(generations) => generations.id(position),
            Ids::Stream(_) => EntryId::Stream(Entry::saved_stream_id(fields)?),
        };
        let entry = Entry::carried(fields, id)?;
        self.ids.push(id);
        entry.frames().cloned().for_each(|frame| frames.push(frame));
        if self.is_on() {
            self.history.push(entry, fingerprints);
            self.history.shrink_to_bytes();
        } else {
            entry.release();
            self.unkept = position;
        }
        self.trim_ids();
        Ok(())
    }

    /// Looks whether the log goes on where that on disk does, when all entries have been taken, and its ids with it.
    ///
    /// # Errors
    /// It doesn't. The next entry would have another position there than here.
    pub fn check_carried(&self) -> Result<(), Malformed> {
        if let Ids::Stream(ids) = &self.ids {
            ids.check_carried()?;
        }
        let write_ahead = self.write_ahead.as_ref();
        match write_ahead.and_then(WriteAhead::end) {
            Some(end) if end != self.head() => {
                Err(Malformed("the log on disk ends at another position"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
