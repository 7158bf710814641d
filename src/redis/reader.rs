//! What is read of the stream: its tail at the start, then entry after entry for as long as the process lives.
//!
//! ```text
//! Head ──▶ Back ──▶ Live ◀──▶ Check
//! ```
//!
//! A start looks at the newest entry (Head), then backwards from as far behind it as the history reaches, for an entry that
//! gives a position (Back). From there everything is read forwards (Live). With each new link it is first seen whether what
//! was read last is still there (Check). If it isn't, reading begins anew at the front of the trail, and what the trail
//! knows is passed over.
//!
//! One request is under way at a time, of one command or several; its answers make a [`Batch`], which the hub is given
//! entry by entry while the next request is on its way. Main type: [`Reader`]. Invariant: `last` is the place behind which
//! the next request reads.

use std::collections::VecDeque;

use super::barriers::Barriers;
use super::command;
use super::connection::{Asked, Connection};
use super::entry::{self, Content, Place, WholeId};
use super::reply::{Broken, List, Reply, Whole};
use super::settings::Settings;
use super::trail::Trail;
use crate::time::Timestamp;

/// How many bytes of entries a request is to bring, about.
const BATCH_BYTES: usize = 1 << 20;

/// How many entries it asks for, at least and at most.
const COUNT_MIN: usize = 16;
const COUNT_MAX: usize = 1024;

/// How many entries a start looks at in one request, and altogether, to find one that gives a position.
const BACK_COUNT: usize = 64;
const BACK_MAX: usize = 4096;

/// How many requests for one entry follow a reply that was too long.
const CAREFUL_READS: u32 = 1024;

/// Why something may be gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Doubt {
    /// The stream lacks what was read, or its Redis may lack something.
    Lost,
    /// The stream was trimmed ahead of the reader.
    Trimmed,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Head,
    /// Backwards from this place; so many were looked at.
    Back(Place, usize),
    Check,
    Live,
}

/// Entries on their way to the hub, and what it is told ahead of them.
pub(super) struct Batch {
    bytes: Vec<u8>,
    entries: Option<Whole>,
    ids: Vec<WholeId>,
    /// The next one that is passed on.
    next: usize,
    doubt: Option<Doubt>,
    /// The barrier that ends a doubt.
    mends_at: Option<usize>,
    is_mended: bool,
}

/// What is passed on.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step<'a> {
    Doubt(Doubt),
    Mended,
    Barrier(WholeId),
    Entry(WholeId, Content<'a>),
}

pub(super) struct Reader {
    phase: Phase,
    last: Place,
    trail: Trail,
    /// How many at the front of the trail the stream still has, while it is read once more.
    common: Option<usize>,
    /// Where the stream began when it was last seen. It begins later and later, unless it is another one.
    oldest: Option<WholeId>,
    batches: VecDeque<Batch>,
    answers: Vec<Whole>,
    /// How many entries the last request was for.
    asked: usize,
    entry_bytes: usize,
    was_empty: bool,
    /// Whether the barriers know the epoch of this moment.
    is_new_link: bool,
    careful: u32,
    /// Whether a request has brought fewer entries than it was for.
    is_caught_up: bool,
    passed: WholeId,
}

mod saved;

impl Reader {
    pub(super) fn new() -> Self {
        Self {
            phase: Phase::Head,
            last: Place::START,
            trail: Trail::default(),
            common: None,
            oldest: None,
            batches: VecDeque::new(),
            answers: Vec::new(),
            asked: 0,
            entry_bytes: 1024,
            was_empty: false,
            is_new_link: false,
            careful: 0,
            is_caught_up: false,
            passed: WholeId::NONE,
        }
    }

    /// Whether anything was read.
    pub(super) fn has_read(&self) -> bool {
        self.trail.back().is_some()
    }

    /// Whether everything that was there at some moment has been passed on.
    pub(super) fn is_caught_up(&self) -> bool {
        self.is_caught_up && self.waiting() == 0
    }

    /// How far it was passed on.
    pub(super) const fn passed(&self) -> WholeId {
        self.passed
    }

    /// Whether this entry of the stream, as it is now, was passed on; or was trimmed ahead of that.
    pub(super) fn has_passed(&self, id: WholeId) -> bool {
        let waits = |batch: &Batch| batch.ids[batch.next..].contains(&id);
        if self.batches.iter().any(waits) {
            return false;
        }
        if self.is_checking() || self.common.is_some() {
            return self.trail.find(id).is_some();
        }
        Place::from(id) <= self.passed.into()
    }

    /// Whether an entry at this place is still going to be read.
    pub(super) fn lies_ahead(&self, place: Place) -> bool {
        place > self.last && !self.trail.has_place(place)
    }

    /// The next replies may be longer, and bring one entry each.
    pub(super) const fn be_careful(&mut self) {
        self.careful = CAREFUL_READS;
    }

    pub(super) const fn is_careful(&self) -> bool {
        self.careful > 0
    }

    /// A link has ended, and what it was to bring with it.
    pub(super) fn handle_end(&mut self) {
        self.answers.clear();
        self.was_empty = false;
        self.is_new_link = true;
        self.phase = match self.phase {
            Phase::Live | Phase::Check if !self.has_lost_start() => Phase::Check,
            _ => Phase::Head,
        };
    }

    /// Whether it is seen first whether what was read is still there; the barriers are settled behind that.
    pub(super) fn is_checking(&self) -> bool {
        self.phase == Phase::Check
    }

    /// Whether so little waits that more is read.
    pub(super) fn takes_input(&self) -> bool {
        self.open_batches() < 2
    }

    /// Batches of which something is still to be passed on; what was passed on last is kept while it is lent.
    fn open_batches(&self) -> usize {
        self.batches.iter().filter(|batch| !batch.is_done()).count()
    }

    /// How many entries wait to be passed on.
    pub(super) fn waiting(&self) -> usize {
        self.batches
            .iter()
            .map(|batch| batch.ids.len() - batch.next)
            .sum()
    }

    fn count(&self) -> usize {
        if self.is_careful() {
            return 1;
        }
        (BATCH_BYTES / self.entry_bytes.max(1)).clamp(COUNT_MIN, COUNT_MAX)
    }

    /// Asks for more, if nothing is under way and there is room.
    pub(super) fn ask(&mut self, connection: &mut Connection, settings: &Settings, now: Timestamp) {
        let has_room = self.open_batches() < 2 && self.waiting() < self.count();
        if connection.is_awaiting() || !has_room {
            return;
        }
        let stream = settings.stream.as_bytes();
        let mut say = |arguments: &[&[u8]]| {
            connection.queue(Asked::Read, now, |out| command::write(out, arguments));
        };
        let newest: [&[u8]; 6] = [b"XREVRANGE", stream, b"+", b"-", b"COUNT", b"1"];
        match self.phase {
            Phase::Head => say(&newest),
            Phase::Back(from, _) => {
                let (from, count) = (from.to_string(), BACK_COUNT.to_string());
                let (from, count) = (from.as_bytes(), count.as_bytes());
                say(&[b"XREVRANGE", stream, from, b"-", b"COUNT", count]);
            }
            Phase::Check => {
                say(&range_of(stream, &self.newest_read()));
                say(&newest);
            }
            Phase::Live => {
                self.asked = self.count();
                // Nobody is listened for before the end of the stream has been seen: it isn't waited at.
                let block_millis = if self.is_caught_up {
                    settings.block_millis()
                } else {
                    1
                };
                let (count, block) = (self.asked.to_string(), block_millis.to_string());
                let (count, block) = (count.as_bytes(), block.as_bytes());
                let last = self.last.to_string();
                let last = last.as_bytes();
                say(&[
                    b"XREAD", b"COUNT", count, b"BLOCK", block, b"STREAMS", stream, last,
                ]);
                say(&[b"XRANGE", stream, b"-", b"+", b"COUNT", b"1"]);
                if self.checks_last() {
                    say(&range_of(stream, &self.newest_read()));
                }
            }
        }
    }

    /// Whether an idle request looks at the entry that was read last.
    fn checks_last(&self) -> bool {
        self.was_empty && self.common.is_none() && self.has_read()
    }

    /// The place of what was read last, as text.
    fn newest_read(&self) -> String {
        self.trail.back().map_or(self.last, Place::from).to_string()
    }

    /// Takes an answer to what was asked.
    pub(super) fn take_answer(&mut self, whole: Whole) {
        self.answers.push(whole);
    }

    /// Whether a request is answered in part.
    pub(super) fn is_collecting(&self) -> bool {
        !self.answers.is_empty()
    }

    /// All answers to a request are there, in `bytes`.
    pub(super) fn take_answers(
        &mut self,
        bytes: Vec<u8>,
        settings: &Settings,
        barriers: &mut Barriers,
    ) -> Result<(), Broken> {
        let mut answers = std::mem::take(&mut self.answers).into_iter();
        let first = answers.next().ok_or(UNFIT)?;
        let rest: Vec<_> = answers.collect();
        match self.phase {
            Phase::Head => self.take_head(first.reply(&bytes), settings, barriers),
            Phase::Back(_, looked) => self.take_back(first.reply(&bytes), looked, settings),
            Phase::Check => {
                let newest = rest.first().ok_or(UNFIT)?;
                self.take_check(first.reply(&bytes), newest.reply(&bytes), barriers)
            }
            Phase::Live => {
                let oldest = rest.first().ok_or(UNFIT)?.reply(&bytes);
                let oldest = first_of(oldest)?.map(|(id, _)| id);
                let last = match rest.get(1) {
                    Some(last) => Some(first_of(last.reply(&bytes))?.map(|(id, _)| id)),
                    None => None,
                };
                self.take_entries(bytes, first, oldest, last, barriers)
            }
        }
    }

    fn take_head(
        &mut self,
        reply: Reply<'_>,
        settings: &Settings,
        barriers: &mut Barriers,
    ) -> Result<(), Broken> {
        let Some((head, _)) = first_of(reply)? else {
            self.phase = Phase::Live;
            return Ok(());
        };
        // What others have read of another Redis than this one may not be here.
        if barriers.is_foreign() {
            self.doubt(Doubt::Lost, true, barriers);
        }
        let history = u64::try_from(settings.history.as_millis()).unwrap_or(u64::MAX);
        let from = Place {
            millis: head.millis.saturating_sub(history),
            sequence: u64::MAX,
        };
        self.phase = Phase::Back(from, 0);
        Ok(())
    }

    fn take_back(
        &mut self,
        reply: Reply<'_>,
        looked: usize,
        settings: &Settings,
    ) -> Result<(), Broken> {
        let Phase::Back(from, _) = self.phase else {
            return Err(UNFIT);
        };
        let entries = reply.list().ok_or(UNFIT)?;
        let mut oldest = None;
        for entry in entries.iter() {
            let (place, fields) = entry::read(entry)?;
            if place > from || oldest.is_some_and(|oldest| place >= oldest) {
                return Err(UNFIT);
            }
            let content = entry::content(fields);
            let json = content.json.and_then(|json| std::str::from_utf8(json).ok());
            let takes_position = json.is_some_and(settings.takes_position) && place.is_tellable();
            if content.is_barrier() || takes_position {
                self.read_from(place.before());
                return Ok(());
            }
            oldest = Some(place);
        }
        let looked = looked + entries.len();
        match oldest {
            Some(oldest) if entries.len() >= BACK_COUNT && looked < BACK_MAX => {
                self.phase = Phase::Back(oldest.before(), looked);
            }
            // Nothing is left out: the stream begins here.
            _ if entries.len() < BACK_COUNT => self.read_from(Place::START),
            // What lies ahead is too much to be looked at.
            _ => self.read_from(oldest.unwrap_or(from)),
        }
        Ok(())
    }

    const fn read_from(&mut self, place: Place) {
        self.last = place;
        self.phase = Phase::Live;
    }

    /// `there`: the entry at the place of what was read last; `newest`: the newest of all.
    fn take_check(
        &mut self,
        there: Reply<'_>,
        newest: Reply<'_>,
        barriers: &mut Barriers,
    ) -> Result<(), Broken> {
        let there = first_of(there)?.map(|(id, _)| id);
        let newest = first_of(newest)?.map(|(id, _)| Place::from(id));
        self.phase = Phase::Live;
        self.oldest = None;
        // A look through the trail that was cut short begins anew.
        let is_there = self.trail.back().is_none_or(|last| there == Some(last));
        if !is_there {
            self.go_back(newest);
        } else if let Some(last) = self.trail.back() {
            (self.last, self.common) = (last.into(), None);
        }
        let trusts_epoch = std::mem::take(&mut self.is_new_link);
        if barriers.take_suspicion() || !is_there {
            self.doubt(Doubt::Lost, trusts_epoch, barriers);
        } else {
            self.settle(barriers);
        }
        Ok(())
    }

    /// Reads from the front of the trail on, or all of a stream that lies ahead of that.
    fn go_back(&mut self, newest: Option<Place>) {
        let front = self.trail.front().map_or(self.last, Place::from);
        self.last = match newest {
            Some(newest) if newest >= front => front.before(),
            _ => Place::START,
        };
        self.common = Some(0);
    }

    /// `trusts_epoch`: whether the barrier that is known to have been written may be the one that ends this.
    fn doubt(&mut self, doubt: Doubt, trusts_epoch: bool, barriers: &mut Barriers) {
        self.batches.push_back(Batch {
            doubt: Some(doubt),
            ..Batch::new(Vec::new(), None, Vec::new())
        });
        barriers.doubt();
        // Nothing was read since, so nothing ends.
        let _ = barriers.settle(|place| trusts_epoch && self.lies_ahead(place));
    }

    /// The epoch's key is known anew: has it looked at whether a barrier is to be written, or has come.
    pub(super) fn settle(&mut self, barriers: &mut Barriers) {
        if barriers.settle(|place| self.lies_ahead(place)) {
            self.batches.push_back(Batch {
                is_mended: true,
                ..Batch::new(Vec::new(), None, Vec::new())
            });
        }
    }

    /// `oldest`: where the stream begins; `last`: the entry at the place of what was read last, if that was asked for.
    fn take_entries(
        &mut self,
        bytes: Vec<u8>,
        whole: Whole,
        oldest: Option<WholeId>,
        last: Option<Option<WholeId>>,
        barriers: &mut Barriers,
    ) -> Result<(), Broken> {
        let ids = ids_of(whole.reply(&bytes), self.last)?;
        self.careful = self.careful.saturating_sub(1);
        self.was_empty = ids.is_empty();
        let is_end = ids.len() < self.asked;
        if oldest.is_some_and(|oldest| self.is_foreign(oldest)) {
            // It is looked at once more, and together with the newest.
            self.phase = Phase::Check;
            return Ok(());
        }
        self.oldest = oldest.or(self.oldest);
        if ids.is_empty() && self.has_lost_start() {
            self.phase = Phase::Head;
            return Ok(());
        }
        if ids.is_empty() && self.common == Some(0) && self.last != Place::START {
            // What the look at the newest had promised is gone.
            self.phase = Phase::Check;
            return Ok(());
        }
        if ids.is_empty() {
            self.end_of_trail();
            barriers.miss(None);
            let is_gone = oldest.is_none() || last.is_some_and(|last| last != self.trail.back());
            if self.has_read() && is_gone {
                self.phase = Phase::Check;
            } else {
                self.is_caught_up = true;
            }
            return Ok(());
        }
        let mean = whole.len() / ids.len();
        self.entry_bytes = (self.entry_bytes * 3 + mean) / 4;
        let is_behind = self.has_read() && self.common.is_none();
        if is_behind && oldest.is_some_and(|oldest| Place::from(oldest) > self.last) {
            self.doubt(Doubt::Trimmed, false, barriers);
        }
        self.last = ids.last().map_or(self.last, |id| Place::from(*id));
        self.is_caught_up |= is_end;
        self.take_batch(Batch::new(bytes, Some(whole), ids), barriers);
        Ok(())
    }

    /// Whether nothing was read though reading was to begin at an entry: another stream may lie ahead of that.
    fn has_lost_start(&self) -> bool {
        !self.has_read() && self.last != Place::START
    }

    /// Whether this can't be where the stream begins that was read so far: it is a new one, which was filled before anybody
    /// saw that the one before was lost. It begins earlier, or with an entry that isn't known though others were read
    /// before and behind it.
    fn is_foreign(&self, oldest: WholeId) -> bool {
        if self.common.is_some() || !self.has_read() {
            return false;
        }
        let place = Place::from(oldest);
        let begins_earlier = |before: WholeId| place <= before.into() && oldest != before;
        let ids = self.trail.front().zip(self.trail.back());
        let is_within =
            ids.is_some_and(|(front, back)| (front.into()..=back.into()).contains(&place));
        self.oldest.is_some_and(begins_earlier) || is_within && self.trail.find(oldest).is_none()
    }

    /// The stream ends while it was compared with the trail: what it lacks of it is forgotten.
    fn end_of_trail(&mut self) {
        if let Some(common) = self.common.take() {
            self.trail.truncate(common);
        }
    }

    /// Passes over what the trail knows; the rest is new.
    fn take_batch(&mut self, mut batch: Batch, barriers: &mut Barriers) {
        while let (Some(common), Some(id)) = (&mut self.common, batch.ids.get(batch.next)) {
            match self.trail.find(*id) {
                Some(at) => {
                    *common = at + 1;
                    batch.next += 1;
                }
                None => self.end_of_trail(),
            }
        }
        for at in batch.next..batch.ids.len() {
            let id = batch.ids[at];
            self.trail.push(id);
            let content = batch.content(at);
            if content.is_barrier() && barriers.take_barrier(id.into(), content.nonce) {
                batch.mends_at = Some(at);
            }
        }
        barriers.miss(Some(self.last));
        if batch.next < batch.ids.len() {
            self.batches.push_back(batch);
        }
    }

    /// The next step; what the one before has lent is gone.
    pub(super) fn next(&mut self) -> Option<Step<'_>> {
        while self.batches.front().is_some_and(Batch::is_done) {
            self.batches.pop_front();
        }
        let batch = self.batches.front_mut()?;
        if let Some(doubt) = batch.doubt.take() {
            return Some(Step::Doubt(doubt));
        }
        if std::mem::take(&mut batch.is_mended) {
            return Some(Step::Mended);
        }
        let at = batch.next;
        let id = *batch.ids.get(at)?;
        batch.next += 1;
        // Behind one that can't be told, nothing says what is from before it.
        batch.is_mended = batch.mends_at == Some(at) && Place::from(id).is_tellable();
        self.passed = id;
        let content = batch.content(at);
        Some(if content.is_barrier() {
            Step::Barrier(id)
        } else {
            Step::Entry(id, content)
        })
    }

    /// Whether there is a next step.
    pub(super) fn has_next(&self) -> bool {
        self.open_batches() > 0
    }

    pub(super) fn check_invariants(&self) {
        self.trail.check_invariants();
        assert!(
            self.batches
                .iter()
                .all(|batch| batch.next <= batch.ids.len())
        );
        if let (None, Some(back)) = (self.common, self.trail.back()) {
            assert!(self.phase != Phase::Live || Place::from(back) == self.last);
        }
    }
}

impl Batch {
    const fn new(bytes: Vec<u8>, entries: Option<Whole>, ids: Vec<WholeId>) -> Self {
        Self {
            bytes,
            entries,
            ids,
            next: 0,
            doubt: None,
            mends_at: None,
            is_mended: false,
        }
    }

    const fn is_done(&self) -> bool {
        self.next == self.ids.len() && self.doubt.is_none() && !self.is_mended
    }

    /// What an entry says; all of them have been read once.
    fn content(&self, at: usize) -> Content<'_> {
        let reply = self.entries.as_ref().map(|whole| whole.reply(&self.bytes));
        let entry = reply.and_then(|reply| entries(reply).ok()?.at(at));
        let fields = entry.and_then(|entry| entry::read(entry).ok());
        fields.map_or_else(Content::default, |(_, fields)| entry::content(fields))
    }
}

const UNFIT: Broken = Broken("the answer to a read is not what it should be");

/// What brings the one entry at `place`.
fn range_of<'a>(stream: &'a [u8], place: &'a str) -> [&'a [u8]; 4] {
    let place = place.as_bytes();
    [b"XRANGE", stream, place, place]
}

/// The first entry of a range.
fn first_of(reply: Reply<'_>) -> Result<Option<(WholeId, List<'_>)>, Broken> {
    let Some(entry) = reply.list().ok_or(UNFIT)?.at(0) else {
        return Ok(None);
    };
    let (place, fields) = entry::read(entry)?;
    Ok(Some((entry::whole_id(place, fields), fields)))
}

/// The ids of the entries that XREAD brings, which lie behind a place.
fn ids_of(reply: Reply<'_>, mut place: Place) -> Result<Vec<WholeId>, Broken> {
    let entries = entries(reply)?;
    let mut ids = Vec::with_capacity(entries.len());
    for entry in entries.iter() {
        let (next, fields) = entry::read(entry)?;
        if next <= place {
            return Err(Broken("entries do not ascend"));
        }
        place = next;
        ids.push(entry::whole_id(next, fields));
    }
    Ok(ids)
}

/// The entries that XREAD brings of one stream: in a list of streams, or flat as a map of them.
fn entries(reply: Reply<'_>) -> Result<List<'_>, Broken> {
    let streams = reply.list().ok_or(UNFIT)?;
    let Some(first) = streams.at(0) else {
        return Ok(streams);
    };
    let entries = match first.list() {
        Some(stream) => stream.at(1),
        None => streams.at(1),
    };
    entries.and_then(Reply::list).ok_or(UNFIT)
}
