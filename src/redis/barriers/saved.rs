//! Which Redis it was, and which barrier is needed, in a state.

use super::{Barriers, Need, SEEN_MAX};
use crate::handover::{Fields, Malformed, Members};
use crate::redis::entry::Place;
use crate::redis::identity::Identity;

// Members.
/// As INFO says it.
const IDENTITY: u8 = 1;
const KNOWN: u8 = 2;
const NEED: u8 = 3;
const IS_CUT: u8 = 4;
const FIRST_NONCE: u8 = 5;
const NONCES: u8 = 6;
const AWAITED: u8 = 7;
const SEEN: u8 = 8;
const IS_SUSPECT: u8 = 9;

// Values of NEED.
const NONE: u64 = 0;
const ANY: u64 = 1;
const AHEAD: u64 = 2;

impl Barriers {
    /// Writes what is known when the link has ended.
    pub(crate) fn save(&self, members: &mut Members<'_>) {
        let Self {
            identity,
            known,
            need,
            is_cut,
            // Of a link: it is looked at anew when another one comes up.
            is_due: _,
            is_asked: _,
            retry_at: _,
            answers: _,
            nonces,
            awaited,
            seen,
            is_suspect,
        } = self;
        members.bytes(IDENTITY, identity.section().as_bytes());
        members.bytes(KNOWN, known);
        let need = match need {
            Need::None => NONE,
            Need::Any => ANY,
            Need::Ahead => AHEAD,
        };
        members.number(NEED, need);
        members.number(IS_CUT, (*is_cut).into());
        members.number(FIRST_NONCE, nonces.start);
        members.number(NONCES, nonces.end.wrapping_sub(nonces.start));
        let places = |places: &mut dyn Iterator<Item = &Place>| -> Vec<_> {
            places.flat_map(|place| place.numbers()).collect()
        };
        members.numbers(AWAITED, &places(&mut awaited.iter()));
        members.numbers(SEEN, &places(&mut seen.iter()));
        members.number(IS_SUSPECT, (*is_suspect).into());
    }

    /// Goes on from what was written.
    ///
    /// # Errors
    /// None can have been there.
    pub(crate) fn restore(fields: &Fields<'_>) -> Result<Self, Malformed> {
        const MALFORMED: Malformed = Malformed("no such barrier can be needed");
        let mut identity = Identity::default();
        identity.read(fields.bytes(IDENTITY));
        let need = match fields.number(NEED) {
            NONE => Need::None,
            ANY => Need::Any,
            AHEAD => Need::Ahead,
            _ => return Err(MALFORMED),
        };
        let is_cut = fields.number(IS_CUT) != 0;
        let awaited = Place::restore_all(fields, AWAITED)?;
        let seen = Place::restore_all(fields, SEEN)?;
        if is_cut && need != Need::Ahead || awaited.len() > 1 || seen.len() > SEEN_MAX {
            return Err(MALFORMED);
        }
        let first = fields.number(FIRST_NONCE);
        Ok(Self {
            identity,
            known: fields.bytes(KNOWN).to_vec(),
            need,
            is_cut,
            nonces: first..first.wrapping_add(fields.number(NONCES)),
            awaited: awaited.first().copied(),
            seen: seen.into(),
            is_suspect: fields.number(IS_SUSPECT) != 0,
            ..Self::new(0)
        })
    }
}
