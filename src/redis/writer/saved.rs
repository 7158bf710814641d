//! Appends that are under way, in a state; and what became of appends and was told nobody yet.

use super::{Nonces, Outcome, PENDING_MAX, Pending, Refusal, Stage, Writer};
use crate::handover::{Fields, Malformed, Members};
use crate::redis::connection::Connection;
use crate::redis::entry::{Nonce, WholeId};
use crate::redis::reply::word;
use crate::time::Timestamp;

// Members of what is known of all appends.
const NEXT_NONCE: u8 = 1;
const WRITTEN: u8 = 2;
/// Nonces of what is repeated, and the ids of what was there already.
const REPEATS: u8 = 3;
const FIRSTS: u8 = 4;

// Members of an append's record, and of an outcome's.
const NONCE: u8 = 1;
const COUNT: u8 = 2;
const UNTIL: u8 = 3;
const STAGE: u8 = 4;
const COMMAND: u8 = 5;
const BYTES: u8 = 6;
/// Which of several are settled.
const SETTLED: u8 = 7;
const REFUSAL: u8 = 8;
const WORD: u8 = 9;
/// The id of what was there already.
const FIRST: u8 = 10;

// Values of STAGE.
const WAITING: u64 = 1;
const LOST: u64 = 2;
const ANSWERED: u64 = 3;

// Values of REFUSAL; it isn't there where something is repeated.
const OUT_OF_REACH: u64 = 1;
const FULL: u64 = 2;
const NOT_SENT: u64 = 3;
const UNANSWERED: u64 = 4;
const BY_REDIS: u64 = 5;

/// Nodes count from below half of that.
const NONCE_MAX: u64 = u64::MAX - (1 << 62);

/// How many entries are appended, at most, while the answer to one of them is awaited.
const SPAN_MAX: u64 = 1 << 24;

/// No node has written so many entries.
const WRITTEN_MAX: u64 = 1 << 56;

impl Writer {
    /// Writes what is of no append in particular.
    pub(crate) fn save(&self, members: &mut Members<'_>) {
        let Self {
            // Have records of their own, from which the next three follow.
            pending: _,
            first_waiting: _,
            entries: _,
            bytes: _,
            next_nonce,
            repeats,
            // For the time of the handover.
            is_held: _,
            // Always, when a process has ended.
            may_be_late: _,
            // Of a link.
            transaction: _,
            written,
            // Of constants.
            scripts: _,
        } = self;
        members.number(NEXT_NONCE, *next_nonce);
        members.number(WRITTEN, *written);
        let (nonces, ids): (Vec<_>, Vec<_>) = repeats.iter().copied().unzip();
        let nonces: Vec<_> = nonces.iter().map(|Nonce(nonce)| *nonce).collect();
        let ids: Vec<_> = ids.into_iter().flat_map(WholeId::numbers).collect();
        members.numbers(REPEATS, &nonces);
        members.numbers(FIRSTS, &ids);
    }

    /// A writer that goes on where another one was, still without its appends.
    ///
    /// # Errors
    /// There can't have been such a one.
    pub(crate) fn restore(fields: &Fields<'_>) -> Result<Self, Malformed> {
        let nonces: Vec<_> = fields.numbers(REPEATS).map(Nonce).collect();
        let ids = WholeId::restore_all(fields, FIRSTS)?;
        let next_nonce = fields.number(NEXT_NONCE);
        if nonces.len() != ids.len() || next_nonce > NONCE_MAX {
            return Err(Malformed("appends to a stream are numbered oddly"));
        }
        Ok(Self {
            repeats: nonces.into_iter().zip(ids).collect(),
            may_be_late: true,
            written: fields.number(WRITTEN).min(WRITTEN_MAX),
            ..Self::new(next_nonce)
        })
    }

    /// Whether entries with these nonces can be among those that something is still heard of.
    pub(crate) fn is_recent(&self, nonces: &Nonces) -> bool {
        nonces.end <= self.next_nonce && self.next_nonce - nonces.start <= SPAN_MAX
    }

    /// The appends that have records.
    pub(crate) fn appends(&self) -> impl Iterator<Item = &Pending> {
        self.pending.iter().filter(|pending| pending.left > 0)
    }

    /// Whether what becomes of this entry is not known yet.
    pub(crate) fn awaits(&self, nonce: Nonce) -> bool {
        self.find(nonce).is_some_and(|at| {
            let pending = &self.pending[at];
            let place = (nonce.0 - pending.nonces.start) as usize;
            let is_settled = pending
                .settled
                .get(place)
                .is_some_and(|is_settled| *is_settled);
            pending.left > 0 && !is_settled
        })
    }

    /// Takes the next append, of whose record `fields` are. None waits for longer than one that is made now, which waits
    /// until `latest`.
    ///
    /// # Errors
    /// There can't have been such a one.
    pub(crate) fn carry(
        &mut self,
        fields: &Fields<'_>,
        latest: Timestamp,
    ) -> Result<(), Malformed> {
        let mut pending = Pending::restore(fields)?;
        pending.until = pending.until.min(latest);
        let (mut end, mut until) = (0, Timestamp::ZERO);
        if let Some(last) = self.pending.back() {
            (end, until) = (last.nonces.end, last.until);
            let is_waiting = |pending: &Pending| matches!(pending.stage, Stage::Waiting(_));
            if is_waiting(last) && !is_waiting(&pending) {
                return Err(Malformed("an append to a stream has overtaken another"));
            }
        }
        let is_in_order = end <= pending.nonces.start && until <= pending.until;
        if !is_in_order || !self.is_recent(&pending.nonces) {
            return Err(Malformed("appends to a stream are in no order"));
        }
        self.entries += pending.left;
        self.bytes += pending.bytes;
        self.pending.push_back(pending);
        self.find_waiting();
        Ok(())
    }
}

impl Pending {
    /// Writes it as it is when the link through which it was sent has ended.
    pub(crate) fn save(&self, connection: &Connection, members: &mut Members<'_>) {
        let Self {
            nonces,
            until,
            stage,
            bytes,
            settled,
            // Those that aren't settled.
            left: _,
        } = self;
        members.number(NONCE, nonces.start);
        members.number(COUNT, nonces.end - nonces.start);
        members.time(UNTIL, Some(*until));
        members.size(BYTES, *bytes);
        let command = self.command(connection);
        members.bytes(COMMAND, command.unwrap_or_default());
        let stage = match (command, stage) {
            (Some(_), _) => WAITING,
            (None, Stage::Answered) => ANSWERED,
            (None, _) => LOST,
        };
        members.number(STAGE, stage);
        let settled = settled
            .iter()
            .zip(0..)
            .filter(|(is_settled, _)| **is_settled);
        let settled: Vec<_> = settled.map(|(_, at)| at).collect();
        members.numbers(SETTLED, &settled);
    }

    fn restore(fields: &Fields<'_>) -> Result<Self, Malformed> {
        const MALFORMED: Malformed = Malformed("an append to a stream makes no sense");
        let (start, count) = (fields.number(NONCE), fields.narrow::<usize>(COUNT)?);
        if count == 0 || count > PENDING_MAX {
            return Err(MALFORMED);
        }
        let mut settled = Vec::new();
        let mut left = count;
        for at in fields.numbers(SETTLED) {
            settled.resize(count, false);
            let at = usize::try_from(at).ok().and_then(|at| settled.get_mut(at));
            let is_new = at.is_some_and(|is_settled| !std::mem::replace(is_settled, true));
            left -= usize::from(is_new);
            if !is_new || left == 0 {
                return Err(MALFORMED);
            }
        }
        let command = fields.bytes(COMMAND);
        let bytes = fields.narrow::<u32>(BYTES)? as usize;
        let stage = match fields.number(STAGE) {
            WAITING if bytes == command.len() && bytes > 0 && left == count => {
                Stage::Waiting(command.into())
            }
            LOST => Stage::Lost,
            ANSWERED if bytes == 0 => Stage::Answered,
            _ => return Err(MALFORMED),
        };
        Ok(Self {
            nonces: start..start.checked_add(count as u64).ok_or(MALFORMED)?,
            until: fields.time(UNTIL).ok_or(MALFORMED)?,
            stage,
            bytes,
            settled,
            left,
        })
    }
}

impl Outcome {
    /// Writes it.
    pub(crate) fn save(&self, members: &mut Members<'_>) {
        match self {
            Self::Refused(nonces, refusal) => {
                members.number(NONCE, nonces.start);
                members.number(COUNT, nonces.end - nonces.start);
                let (refusal, word) = refusal.parts();
                members.number(REFUSAL, refusal);
                members.bytes(WORD, word.as_bytes());
            }
            Self::Repeated(Nonce(nonce), id) => {
                members.number(NONCE, *nonce);
                members.numbers(FIRST, &id.numbers());
            }
        }
    }

    /// Of which entries it is.
    pub(crate) fn nonces(&self) -> Nonces {
        match self {
            Self::Refused(nonces, _) => nonces.clone(),
            Self::Repeated(Nonce(nonce), _) => *nonce..nonce.saturating_add(1),
        }
    }

    /// Reads what was written.
    ///
    /// # Errors
    /// Nothing like that can have happened.
    pub(crate) fn restore(fields: &Fields<'_>) -> Result<Self, Malformed> {
        let nonce = fields.number(NONCE);
        if let [id] = WholeId::restore_all(fields, FIRST)?[..] {
            return Ok(Self::Repeated(Nonce(nonce), id));
        }
        let refusal = Refusal::of_parts(fields.number(REFUSAL), fields.bytes(WORD));
        let count = fields.number(COUNT);
        let end = nonce.checked_add(count);
        match (refusal, end) {
            (Some(refusal), Some(end)) if (1..=PENDING_MAX as u64).contains(&count) => {
                Ok(Self::Refused(nonce..end, refusal))
            }
            _ => Err(Malformed("what became of an append makes no sense")),
        }
    }
}

impl Refusal {
    /// As a state holds it: a number, never 0, and a word.
    #[must_use]
    pub fn parts(&self) -> (u64, &str) {
        let number = match self {
            Self::OutOfReach => OUT_OF_REACH,
            Self::Full => FULL,
            Self::NotSent => NOT_SENT,
            Self::Unanswered => UNANSWERED,
            Self::ByRedis(word) => return (BY_REDIS, word),
        };
        (number, "")
    }

    /// That of which these are the parts.
    #[must_use]
    pub fn of_parts(number: u64, error: &[u8]) -> Option<Self> {
        Some(match number {
            OUT_OF_REACH => Self::OutOfReach,
            FULL => Self::Full,
            NOT_SENT => Self::NotSent,
            UNANSWERED => Self::Unanswered,
            BY_REDIS => Self::ByRedis(word(error).into()),
            _ => return None,
        })
    }
}
