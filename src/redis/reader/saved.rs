//! How far a reader is, in a state; and what it has read and not passed on yet.

use super::{Batch, Doubt, Phase, Reader, ids_of};
use crate::handover::{Fields, Malformed, Members};
use crate::redis::entry::{Place, WholeId};
use crate::redis::reply::{Broken, Inbox};
use crate::redis::trail::{TRAIL_MAX, Trail};

// Members of a reader.
/// Whether it has found where to begin.
const IS_LIVE: u8 = 1;
const LAST: u8 = 2;
const TRAIL: u8 = 3;
/// One more than how many.
const COMMON: u8 = 4;
const ENTRY_BYTES: u8 = 5;
const CAREFUL: u8 = 6;
const IS_CAUGHT_UP: u8 = 7;
const PASSED: u8 = 8;

// Members of a batch's record.
const ENTRIES: u8 = 1;
const NEXT: u8 = 2;
const DOUBT: u8 = 3;
/// One more than where.
const MENDS_AT: u8 = 4;
const IS_MENDED: u8 = 5;

// Values of DOUBT, if there is one.
const LOST: u64 = 1;
const TRIMMED: u64 = 2;

impl Doubt {
    /// What stands for it in a state; never 0.
    #[must_use]
    pub const fn number(self) -> u64 {
        match self {
            Self::Lost => LOST,
            Self::Trimmed => TRIMMED,
        }
    }

    /// That for which a number stands; none for 0.
    ///
    /// # Errors
    /// There is no such doubt.
    pub const fn of_number(number: u64) -> Result<Option<Self>, Malformed> {
        match number {
            0 => Ok(None),
            LOST => Ok(Some(Self::Lost)),
            TRIMMED => Ok(Some(Self::Trimmed)),
            _ => Err(Malformed("a stream was doubted in no way that there is")),
        }
    }
}

impl Reader {
    /// Writes how far it is when its link has ended.
    pub(crate) fn save(&self, members: &mut Members<'_>) {
        let Self {
            phase,
            last,
            trail,
            common,
            // Have records of their own.
            batches: _,
            // Of a link.
            oldest: _,
            answers: _,
            asked: _,
            was_empty: _,
            is_new_link: _,
            entry_bytes,
            careful,
            is_caught_up,
            passed,
        } = self;
        let is_live = matches!(phase, Phase::Live | Phase::Check);
        members.number(IS_LIVE, is_live.into());
        members.numbers(LAST, &last.numbers());
        let trail: Vec<_> = trail.ids().flat_map(WholeId::numbers).collect();
        members.numbers(TRAIL, &trail);
        members.size(COMMON, common.map_or(0, |common| common + 1));
        members.size(ENTRY_BYTES, *entry_bytes);
        members.number(CAREFUL, (*careful).into());
        members.number(IS_CAUGHT_UP, (*is_caught_up).into());
        members.numbers(PASSED, &passed.numbers());
    }

    /// A reader that goes on where another one was, still without its batches.
    ///
    /// # Errors
    /// None can have been there.
    pub(crate) fn restore(fields: &Fields<'_>) -> Result<Self, Malformed> {
        const MALFORMED: Malformed = Malformed("a stream was read in no order");
        let place = |member| match Place::restore_all(fields, member)?[..] {
            [place] => Ok(place),
            _ => Err(MALFORMED),
        };
        let [passed] = WholeId::restore_all(fields, PASSED)?[..] else {
            return Err(MALFORMED);
        };
        let ids = WholeId::restore_all(fields, TRAIL)?;
        let places = ids.iter().map(|id| Place::from(*id));
        if ids.len() > TRAIL_MAX || !places.is_sorted_by(|one, next| one < next) {
            return Err(MALFORMED);
        }
        let common = fields.narrow::<usize>(COMMON)?.checked_sub(1);
        if common.is_some_and(|common| common > ids.len()) {
            return Err(MALFORMED);
        }
        let mut trail = Trail::default();
        ids.into_iter().for_each(|id| trail.push(id));
        let mut reader = Self {
            last: place(LAST)?,
            trail,
            common,
            entry_bytes: fields.narrow::<u32>(ENTRY_BYTES)? as usize,
            careful: fields.narrow(CAREFUL)?,
            is_caught_up: fields.number(IS_CAUGHT_UP) != 0,
            passed,
            ..Self::new()
        };
        if fields.number(IS_LIVE) != 0 {
            reader.phase = Phase::Live;
        }
        reader.handle_end();
        Ok(reader)
    }

    /// The batches that have records.
    pub(crate) fn batches(&self) -> impl Iterator<Item = &Batch> {
        self.batches.iter().filter(|batch| !batch.is_done())
    }

    /// Takes the next batch, of whose record `fields` are.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn carry(&mut self, fields: &Fields<'_>) -> Result<(), Malformed> {
        self.batches.push_back(Batch::restore(fields)?);
        Ok(())
    }
}

impl Batch {
    /// Writes what is still to be passed on.
    pub(crate) fn save(&self, members: &mut Members<'_>) {
        let Self {
            bytes,
            entries,
            // They are those of the entries.
            ids: _,
            next,
            doubt,
            mends_at,
            is_mended,
        } = self;
        let entries = entries.as_ref().map(|whole| whole.own(bytes));
        members.bytes(ENTRIES, entries.unwrap_or_default());
        members.size(NEXT, *next);
        members.number(DOUBT, doubt.map_or(0, Doubt::number));
        members.size(MENDS_AT, mends_at.map_or(0, |at| at + 1));
        members.number(IS_MENDED, (*is_mended).into());
    }

    fn restore(fields: &Fields<'_>) -> Result<Self, Malformed> {
        const MALFORMED: Malformed = Malformed("what was read of a stream makes no sense");
        let bytes = fields.bytes(ENTRIES).to_vec();
        let broken = |Broken(what)| Malformed(what);
        let (mut entries, mut ids) = (None, Vec::new());
        if !bytes.is_empty() {
            let mut inbox = Inbox::new(bytes.len());
            inbox.push(&bytes);
            let whole = inbox.next().map_err(broken)?.ok_or(MALFORMED)?;
            if !inbox.is_read() {
                return Err(MALFORMED);
            }
            ids = ids_of(whole.reply(&bytes), Place::START).map_err(broken)?;
            entries = Some(whole);
        }
        let next = fields.narrow(NEXT)?;
        let mends_at = fields.narrow::<usize>(MENDS_AT)?.checked_sub(1);
        if next > ids.len() || mends_at.is_some_and(|at| at >= ids.len()) {
            return Err(MALFORMED);
        }
        Ok(Self {
            next,
            doubt: Doubt::of_number(fields.number(DOUBT))?,
            mends_at,
            is_mended: fields.number(IS_MENDED) != 0,
            ..Self::new(bytes, entries, ids)
        })
    }
}
