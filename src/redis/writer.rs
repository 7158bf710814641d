//! What is written to the stream: appends that wait, are on their way, or were answered; their deadlines and bounds.
//!
//! An append is never sent twice. What waits goes out with the next link; of what was given to a link that has ended, that
//! of which the socket had taken nothing waits again, and the rest is answered by what is read back, or by its deadline.
//! Main type: [`Writer`]. Invariants: appends lie in the order of their nonces, and so of their deadlines; those that wait
//! lie behind `first_waiting`; each nonce is settled once.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;

use super::command;
use super::connection::{Asked, Connection};
use super::entry::{self, Nonce, Place, WholeId};
use super::failure::is_of_server;
use super::reply::{Broken, Reply, word};
use super::scripts::{Append, Scripts};
use super::settings::Settings;
use super::transaction::{self, Transaction};
use crate::time::Timestamp;

/// Entries that may wait or be on their way.
pub(super) const PENDING_MAX: usize = 16_384;

/// Bytes of commands that may wait or be unanswered.
pub(super) const PENDING_BYTES_MAX: usize = 32 << 20;

/// How much is given to a connection at once, in bytes, an append more or less.
const BURST_BYTES: usize = 256 << 10;

/// Nonces of entries that were appended together.
pub type Nonces = Range<u64>;

/// Why something wasn't published, or may not have been.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Redis has been away for too long.
    OutOfReach,
    /// Too much waits for Redis.
    Full,
    /// It waited for Redis until its time was over.
    NotSent,
    /// It was sent, and nothing was heard of it.
    Unanswered,
    /// Redis refuses it; the first word of its error, capitals only.
    ByRedis(Box<str>),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfReach | Self::NotSent => {
                f.write_str("Redis is out of reach: it was not published")
            }
            Self::Full => f.write_str("too much waits for Redis: it was not published"),
            Self::Unanswered => f.write_str(
                "Redis has not answered in time: it may have been published; with a key it is safe to try again",
            ),
            Self::ByRedis(word) => write!(f, "Redis refuses ({word}): it was not published"),
        }
    }
}

/// What becomes of appends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    Refused(Nonces, Refusal),
    Repeated(Nonce, WholeId),
}

pub(super) type Outcomes = VecDeque<Outcome>;

pub(super) struct Pending {
    nonces: Nonces,
    until: Timestamp,
    stage: Stage,
    /// Of its command; none once nobody answers for it any more.
    bytes: usize,
    /// Which of several are settled; empty if none is.
    settled: Vec<bool>,
    /// How many aren't.
    left: usize,
}

enum Stage {
    /// For a link, with its command.
    Waiting(Box<[u8]>),
    /// Where its bytes lie in all that the link was given.
    Sent(Range<u64>),
    /// The link has ended.
    Lost,
    /// Redis has it; it hasn't been read back.
    Answered,
    /// Nothing is left of it.
    Settled,
}

pub(super) struct Writer {
    pending: VecDeque<Pending>,
    first_waiting: usize,
    next_nonce: u64,
    entries: usize,
    bytes: usize,
    /// What was there already, and hasn't been passed on here.
    repeats: Vec<(Nonce, WholeId)>,
    is_held: bool,
    /// Whether an earlier link was closed from here, by this process or the one before: Redis may still come to read what
    /// was given to it.
    may_be_late: bool,
    /// Of this link.
    transaction: Transaction,
    written: u64,
    scripts: Scripts,
}

mod saved;

impl Pending {
    /// Its command, if it waits for another link once this one has ended.
    fn command<'a>(&'a self, connection: &'a Connection) -> Option<&'a [u8]> {
        match &self.stage {
            Stage::Waiting(command) => Some(command),
            Stage::Sent(range) => connection.untaken(range),
            Stage::Lost | Stage::Answered | Stage::Settled => None,
        }
    }
}

impl Writer {
    pub(super) fn new(first_nonce: u64) -> Self {
        Self {
            pending: VecDeque::new(),
            first_waiting: 0,
            next_nonce: first_nonce,
            entries: 0,
            bytes: 0,
            repeats: Vec::new(),
            is_held: false,
            may_be_late: false,
            transaction: Transaction::default(),
            written: 0,
            scripts: Scripts::new(),
        }
    }

    pub(super) fn append(
        &mut self,
        settings: &Settings,
        entries: &[Append<'_>],
        now: Timestamp,
    ) -> Result<Nonces, Refusal> {
        let nonces = self.next_nonce..self.next_nonce.saturating_add(entries.len() as u64);
        if entries.is_empty() {
            return Ok(nonces);
        }
        // Texts of one append are bounded by whoever has read them; alone it is always taken.
        let is_full = self.entries.saturating_add(entries.len()) > PENDING_MAX;
        if self.entries > 0 && (is_full || self.bytes >= PENDING_BYTES_MAX) {
            return Err(Refusal::Full);
        }
        let command = self.scripts.append(settings, nonces.start, entries);
        if self.entries > 0 && self.bytes + command.len() > PENDING_BYTES_MAX {
            return Err(Refusal::Full);
        }
        self.next_nonce = nonces.end;
        self.entries += entries.len();
        self.bytes += command.len();
        self.pending.push_back(Pending {
            nonces: nonces.clone(),
            until: now + settings.timeout,
            bytes: command.len(),
            stage: Stage::Waiting(command.into()),
            settled: Vec::new(),
            left: entries.len(),
        });
        Ok(nonces)
    }

    /// The commands that are written.
    pub(super) const fn scripts(&self) -> &Scripts {
        &self.scripts
    }

    /// Whether what waits is kept from being sent.
    pub(super) const fn hold(&mut self, is_held: bool) {
        self.is_held = is_held;
    }

    /// Gives the connection what waits, up to a bound.
    pub(super) fn send(&mut self, connection: &mut Connection, now: Timestamp) {
        let is_over = |connection: &Connection| connection.unsent().len() >= BURST_BYTES;
        if self.is_held || self.is_overtaking() || is_over(connection) {
            return;
        }
        let waiting = self.pending.len() - self.first_waiting;
        let go_together = waiting > 1 && self.transaction.is_possible();
        if go_together {
            connection.queue(Asked::Multi, now, |out| command::write(out, &[b"MULTI"]));
        }
        while let Some(pending) = self.pending.get_mut(self.first_waiting)
            && !is_over(connection)
        {
            if let Stage::Waiting(command) = &pending.stage {
                let first = Nonce(pending.nonces.start);
                let asked = match go_together {
                    true => Asked::Queued(first),
                    false => Asked::Append(first),
                };
                let range = connection.queue(asked, now, |out| out.extend_from_slice(command));
                pending.stage = Stage::Sent(range);
            }
            self.first_waiting += 1;
        }
        if go_together {
            connection.queue(Asked::Exec, now, |out| command::write(out, &[b"EXEC"]));
        }
    }

    /// Whether what waits might come ahead of what was sent before: it waits until that is settled.
    fn is_overtaking(&mut self) -> bool {
        let is_lost = |pending: &Pending| matches!(pending.stage, Stage::Lost);
        self.may_be_late &= self.pending.iter().take(self.first_waiting).any(is_lost);
        self.may_be_late
    }

    /// The link ends: what the socket has taken nothing of waits for the next one. If it is `closed_here`, and not by Redis,
    /// the rest may still be on its way.
    pub(super) fn handle_end(&mut self, connection: &Connection, closed_here: bool) {
        self.may_be_late |= closed_here;
        for pending in &mut self.pending {
            if let Stage::Sent(_) = &pending.stage {
                pending.stage = match pending.command(connection) {
                    Some(command) => Stage::Waiting(command.into()),
                    None => Stage::Lost,
                };
            }
        }
        self.transaction = Transaction::default();
        self.find_waiting();
    }

    fn find_waiting(&mut self) {
        let is_waiting = |pending: &Pending| matches!(pending.stage, Stage::Waiting(_));
        let first = self.pending.iter().position(is_waiting);
        self.first_waiting = first.unwrap_or(self.pending.len());
    }

    /// Takes the answer to MULTI.
    pub(super) fn take_multi(&mut self, reply: Reply<'_>) {
        self.transaction.begin(reply);
    }

    /// Takes what is answered to an append behind MULTI; says which error Redis gave.
    pub(super) fn take_queued<'a>(
        &mut self,
        first: Nonce,
        reply: Reply<'a>,
        outcomes: &mut Outcomes,
    ) -> Result<Option<&'a str>, Broken> {
        match self.transaction.queue(first, reply) {
            true => Ok(None),
            false => self.take_answer(first, reply, outcomes),
        }
    }

    /// Takes the answer to EXEC; says which error Redis gave, of several one for which the link ends.
    pub(super) fn take_exec<'a>(
        &mut self,
        reply: Reply<'a>,
        outcomes: &mut Outcomes,
    ) -> Result<Option<&'a str>, Broken> {
        let (queued, refusal) = self.transaction.finish();
        if let Some(error) = reply.error() {
            let error = transaction::cause(error);
            let refusal = Refusal::ByRedis(refusal.unwrap_or_else(|| word(error).into()));
            for first in queued {
                if let Some(at) = self.find(first) {
                    self.refuse(at, &refusal, outcomes);
                }
            }
            self.pop_settled();
            return Ok(Some(word(error)));
        }
        let answers = reply.list().filter(|answers| answers.len() == queued.len());
        let answers = answers.ok_or(Broken("a transaction is answered oddly"))?;
        let mut refused = None;
        for (first, answer) in queued.into_iter().zip(answers.iter()) {
            if let Some(word) = self.take_answer(first, answer, outcomes)?
                && !refused.is_some_and(is_of_server)
            {
                refused = Some(word);
            }
        }
        Ok(refused)
    }

    /// Takes the answer to the append that begins with `first`; says which error Redis gave.
    pub(super) fn take_answer<'a>(
        &mut self,
        first: Nonce,
        reply: Reply<'a>,
        outcomes: &mut Outcomes,
    ) -> Result<Option<&'a str>, Broken> {
        let refused = reply.error().map(word);
        let Some(at) = self.find(first) else {
            // Its time was over, or it was read back ahead of its answer.
            if refused.is_none() {
                let is_new = |id: Reply<'_>| id.text().and_then(entry::read_whole_id).is_none();
                self.written += reply
                    .list()
                    .map_or(1, |ids| ids.iter().filter(|id| is_new(*id)).count() as u64);
            }
            return Ok(refused);
        };
        if let Some(word) = refused {
            self.refuse(at, &Refusal::ByRedis(word.into()), outcomes);
            self.pop_settled();
            return Ok(refused);
        }
        const UNFIT: Broken = Broken("the answer to an append is not what it should be");
        let pending = &mut self.pending[at];
        if let Some(text) = reply.text() {
            let is_one = pending.nonces.end - pending.nonces.start == 1;
            Place::read(text).filter(|_| is_one).ok_or(UNFIT)?;
            self.written += 1;
        } else {
            let ids = reply.list().ok_or(UNFIT)?;
            if ids.len() as u64 != pending.nonces.end - pending.nonces.start {
                return Err(UNFIT);
            }
            for (nonce, id) in pending.nonces.clone().zip(ids.iter()) {
                let text = id.text().ok_or(UNFIT)?;
                if let Some(id) = entry::read_whole_id(text) {
                    self.repeats.push((Nonce(nonce), id));
                } else {
                    // Something else lies at the key; then nothing of it is read back.
                    Place::read(text).ok_or(UNFIT)?;
                    self.written += 1;
                }
            }
        }
        if matches!(pending.stage, Stage::Sent(_)) {
            pending.stage = Stage::Answered;
            self.bytes -= std::mem::take(&mut pending.bytes);
        }
        Ok(None)
    }

    /// An entry with this nonce has been read: whether it settles one that awaits that.
    pub(super) fn read_back(&mut self, nonce: Nonce) -> bool {
        let Some(at) = self.find(nonce) else {
            return false;
        };
        // A stranger may have made it up.
        let was_sent = !matches!(self.pending[at].stage, Stage::Waiting(_));
        let is_settled = was_sent && self.settle(at, nonce);
        self.pop_settled();
        is_settled
    }

    /// Tells what is repeated of entries that were passed on, as `is_passed` says.
    pub(super) fn pass(&mut self, is_passed: impl Fn(WholeId) -> bool, outcomes: &mut Outcomes) {
        let mut at = 0;
        while let Some((nonce, id)) = self.repeats.get(at).copied() {
            if !is_passed(id) {
                at += 1;
                continue;
            }
            self.repeats.remove(at);
            if self.find(nonce).is_some_and(|at| self.settle(at, nonce)) {
                outcomes.push_back(Outcome::Repeated(nonce, id));
            }
        }
        self.pop_settled();
    }

    /// Refuses what has waited for too long.
    pub(super) fn handle_timeout(&mut self, now: Timestamp, outcomes: &mut Outcomes) {
        while self
            .pending
            .front()
            .is_some_and(|pending| pending.until <= now)
        {
            let refusal = match self.pending[0].stage {
                Stage::Waiting(_) => Refusal::NotSent,
                _ => Refusal::Unanswered,
            };
            self.refuse(0, &refusal, outcomes);
            self.pop_settled();
            let first = self.pending.front().map(|pending| pending.nonces.start);
            self.repeats.retain(|(nonce, _)| Some(nonce.0) >= first);
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.pending.front().map(|pending| pending.until)
    }

    /// Whether nothing was sent that its publisher awaits.
    pub(super) fn is_settled(&self) -> bool {
        let is_under_way = |pending: &Pending| {
            matches!(
                pending.stage,
                Stage::Sent(_) | Stage::Lost | Stage::Answered
            )
        };
        !self
            .pending
            .iter()
            .take(self.first_waiting)
            .any(is_under_way)
    }

    /// How many entries wait or are on their way.
    pub(super) const fn entries(&self) -> usize {
        self.entries
    }

    /// How many entries Redis has said to have appended.
    pub(super) const fn written(&self) -> u64 {
        self.written
    }

    fn find(&self, nonce: Nonce) -> Option<usize> {
        let at = self
            .pending
            .partition_point(|pending| pending.nonces.end <= nonce.0);
        let is_there = self.pending.get(at)?.nonces.contains(&nonce.0);
        is_there.then_some(at)
    }

    /// Settles one nonce, unless it is.
    fn settle(&mut self, at: usize, nonce: Nonce) -> bool {
        let pending = &mut self.pending[at];
        let count = (pending.nonces.end - pending.nonces.start) as usize;
        if pending.left == 0 {
            return false;
        }
        if count > 1 {
            pending.settled.resize(count, false);
            let index = (nonce.0 - pending.nonces.start) as usize;
            if std::mem::replace(&mut pending.settled[index], true) {
                return false;
            }
        }
        pending.left -= 1;
        self.entries -= 1;
        if pending.left == 0 {
            pending.stage = Stage::Settled;
            self.bytes -= std::mem::take(&mut pending.bytes);
        }
        true
    }

    /// Refuses all of one append that isn't settled.
    fn refuse(&mut self, at: usize, refusal: &Refusal, outcomes: &mut Outcomes) {
        let nonces = self.pending[at].nonces.clone();
        let mut run = nonces.start..nonces.start;
        for nonce in nonces {
            if self.settle(at, Nonce(nonce)) {
                run.end = nonce + 1;
                continue;
            }
            push_refused(run, refusal, outcomes);
            run = nonce + 1..nonce + 1;
        }
        push_refused(run, refusal, outcomes);
    }

    fn pop_settled(&mut self) {
        while self
            .pending
            .front()
            .is_some_and(|pending| pending.left == 0)
        {
            self.pending.pop_front();
            self.first_waiting = self.first_waiting.saturating_sub(1);
        }
        if self.pending.is_empty() {
            self.repeats.clear();
        }
    }

    pub(super) fn check_invariants(&self) {
        let mut before = (0, Timestamp::ZERO);
        for (at, pending) in self.pending.iter().enumerate() {
            let Pending { nonces, until, .. } = pending;
            assert!(nonces.start < nonces.end && (nonces.start, *until) >= before);
            before = (nonces.end, *until);
            let is_waiting = matches!(pending.stage, Stage::Waiting(_));
            assert!(!is_waiting || at >= self.first_waiting);
            assert_eq!(matches!(pending.stage, Stage::Settled), pending.left == 0);
        }
        assert!(self.first_waiting <= self.pending.len());
        let left: usize = self.pending.iter().map(|pending| pending.left).sum();
        let bytes: usize = self.pending.iter().map(|pending| pending.bytes).sum();
        assert_eq!((self.entries, self.bytes), (left, bytes));
        assert!(before.0 <= self.next_nonce);
    }
}

fn push_refused(nonces: Nonces, refusal: &Refusal, outcomes: &mut Outcomes) {
    if !nonces.is_empty() {
        outcomes.push_back(Outcome::Refused(nonces, refusal.clone()));
    }
}
