//! Gaps: when something may be gone of the stream, each client that numbers its deliveries is told so (protocol 8), between
//! what it got before and what comes behind.
//!
//! Nothing known can be resumed from, until the barrier of this doubt has been read. A client that is live is told at once;
//! one that is being caught up when it has got to where the log was then.

use log::warn;

use super::Hub;
use super::command;
use super::replays::GapMark;
use crate::application::Outbox;
use crate::count::Count;
use crate::handover::{Fields, Malformed, Members};
use crate::id::ConnectionId;
use crate::journal::id::Position;
use crate::redis::Doubt;

/// How many connections are told at once.
const TOLD_AT_ONCE: usize = 256;

/// A gap that clients are being told of, in the order of their slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Gap {
    pub(super) mark: GapMark,
    /// The next slot.
    pub(super) slot: usize,
    /// How many have been told.
    pub(super) told: u64,
}

// Members of a gap.
const MARK: u8 = 1;
const SLOT: u8 = 2;
const TOLD: u8 = 3;

impl Gap {
    /// Writes what clients are still to be told.
    pub(super) fn save(self, members: &mut Members<'_>) {
        let Self { mark, slot, told } = self;
        members.nested(MARK, |members| mark.save(members));
        members.size(SLOT, slot);
        members.number(TOLD, told);
    }

    /// Reads what was written, in a log that has got to `head`.
    ///
    /// # Errors
    /// There can be no such gap.
    pub(super) fn restore(fields: &Fields<'_>, head: Position) -> Result<Self, Malformed> {
        let mark = fields.nested(MARK)?;
        let mark = mark.ok_or(Malformed("a gap is nowhere"))?;
        Ok(Self {
            mark: GapMark::restore(&mark, head)?,
            slot: fields.narrow::<u32>(SLOT)? as usize,
            told: fields.narrow::<u32>(TOLD)?.into(),
        })
    }
}

impl Hub {
    /// Something may be gone.
    pub(super) fn begin_gap(&mut self, doubt: Doubt) {
        self.journal.cut();
        self.ahead.look_again();
        let position = self.journal.head();
        self.gap = Some(Gap {
            mark: GapMark { position, doubt },
            slot: 0,
            told: 0,
        });
    }

    /// Tells some more clients of it.
    pub(super) fn continue_gap(&mut self, outbox: &mut dyn Outbox) {
        let Some(mut gap) = self.gap.take() else {
            return;
        };
        for _ in 0..TOLD_AT_ONCE {
            let Some(slot) = self.numbered.next_from(gap.slot) else {
                let Gap { mark, told, .. } = gap;
                let (reason, clients) = (mark.reason(), Count(told, "client"));
                let are = if told == 1 { "is" } else { "are" };
                warn!(
                    reason, told;
                    "something of the stream may be gone ({reason}): {clients} {are} told"
                );
                return;
            };
            gap.slot = slot + 1;
            let Some(id) = self.connections.id_at(slot) else {
                debug_assert!(false, "whoever numbers its deliveries is connected");
                continue;
            };
            gap.told += 1;
            match self.replays.get_mut(id) {
                Some(cursor) => cursor.gap = Some(gap.mark),
                None => self.tell_gap(id, gap.mark, outbox),
            }
        }
        self.gap = Some(gap);
    }

    /// Tells a client that has all up to a gap.
    pub(super) fn tell_gap(&mut self, id: ConnectionId, mark: GapMark, outbox: &mut dyn Outbox) {
        self.metrics.gaps += 1;
        let position = self.journal.id(mark.position);
        outbox.reply(id, &command::gap_message(position, mark.reason()));
    }
}
