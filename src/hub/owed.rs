//! Answers that are owed: to publishers whose notification is on its way through Redis, and so to whatever they have sent
//! behind it, since answers keep their order.
//!
//! Each connection that awaits something has a line. A receipt in it is found by the nonce of its entry; what isn't a
//! publish waits as the text that came, and is handled when all ahead of it is answered. A request over HTTP has no line:
//! its connection holds what comes behind it. Knows nothing of Redis but nonces, and sends nothing. Main type:
//! [`OwedAnswers`].
//!
//! Invariants: a line isn't empty; the nonces of its receipts ascend; a list that waits for its id stands at its front;
//! `text_bytes` is what the texts of all lines amount to.

use std::collections::VecDeque;

use super::command::{CommandError, Receipt};
use crate::id::ConnectionId;
use crate::journal::id::StreamId;
use crate::redis::{Nonce, Nonces, Refusal};

/// What a line may have; then nothing more is read until half of it is left.
const LINE_MAX: usize = 1024;

/// Bytes of the texts of a line, likewise.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Whom the answer to an entry is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owner {
    /// A WebSocket connection.
    Connection(ConnectionId),
    /// A request over HTTP.
    Post(ConnectionId),
}

/// What became of a notification.
pub(super) type Outcome = Result<Receipt, Refusal>;

/// Something in a line.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Owed {
    /// The answer to the notification of this nonce, when it is known.
    Receipt(Nonce, Option<Outcome>),
    /// This error.
    Error(CommandError),
    /// The answer to this message, which nobody has handled yet.
    Message(Box<str>),
    /// The same, to a list that waits for the id that it shows.
    Ahead(Box<str>, StreamId),
    /// The same, when it has waited.
    Due(Box<str>),
}

impl Owed {
    fn text_bytes(&self) -> usize {
        match self {
            Self::Receipt(..) => 0,
            Self::Error(error) => error.detail.len(),
            Self::Message(text) | Self::Ahead(text, _) | Self::Due(text) => text.len(),
        }
    }
}

/// What is owed to a connection, in order.
#[derive(Default, Debug)]
pub(super) struct Line {
    pub(super) owed: VecDeque<Owed>,
    pub(super) text_bytes: usize,
    /// Whether its publisher is closed when it has its receipt: what it sends behind that counts for nothing.
    pub(super) is_last: bool,
    /// Whether it is in `runnable`.
    pub(super) is_listed: bool,
}

impl Line {
    /// What the list at its front waits for.
    pub(super) fn awaits(&self) -> Option<StreamId> {
        match self.owed.front()? {
            Owed::Ahead(_, since) => Some(*since),
            _ => None,
        }
    }

    fn has_message(&self) -> bool {
        matches!(self.owed.front(), Some(Owed::Message(_) | Owed::Due(_)))
    }
}

/// A request that awaits the receipts of what it has published.
#[derive(Debug)]
pub(super) struct Post {
    pub(super) nonces: Nonces,
    /// In the order of the nonces.
    pub(super) receipts: Vec<Option<Receipt>>,
    /// Whether it has published an array.
    pub(super) is_array: bool,
}

/// What an outcome leads to.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Settled {
    /// A line goes on.
    Line(ConnectionId),
    /// A request is answered, by these receipts, of an array or not; or by why there are none.
    Post(ConnectionId, Result<(Vec<Receipt>, bool), Refusal>),
}

/// What is told next.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Known {
    Outcome(Outcome),
    Error(CommandError),
}

/// The lines, by the slots of their connections. Invariant: the last slot isn't vacant.
#[derive(Default)]
struct Lines {
    slots: Vec<Option<Box<(ConnectionId, Line)>>>,
    len: usize,
}

impl Lines {
    fn get(&self, id: ConnectionId) -> Option<&Line> {
        let (tenant, line) = &**self.slots.get(id.slot())?.as_ref()?;
        (*tenant == id).then_some(line)
    }

    fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Line> {
        let (tenant, line) = &mut **self.slots.get_mut(id.slot())?.as_mut()?;
        (*tenant == id).then_some(line)
    }

    /// The line of a connection, which may be new.
    fn get_or_insert(&mut self, id: ConnectionId) -> &mut Line {
        if self.slots.len() <= id.slot() {
            self.slots.resize_with(id.slot() + 1, || None);
        }
        let slot = &mut self.slots[id.slot()];
        debug_assert!(slot.as_ref().is_none_or(|line| line.0 == id));
        self.len += usize::from(slot.is_none());
        &mut slot
            .get_or_insert_with(|| Box::new((id, Line::default())))
            .1
    }

    fn remove(&mut self, id: ConnectionId) -> Option<Line> {
        self.get(id)?;
        let (_, line) = *self.slots[id.slot()].take()?;
        self.len -= 1;
        while let Some(None) = self.slots.last() {
            self.slots.pop();
        }
        if self.slots.len() < self.slots.capacity() / 64 {
            self.slots.shrink_to(2 * self.slots.len());
        }
        Some(line)
    }

    fn iter(&self) -> impl Iterator<Item = &(ConnectionId, Line)> {
        self.slots.iter().flatten().map(|line| &**line)
    }
}

/// All that is owed.
#[derive(Default)]
pub(super) struct OwedAnswers {
    lines: Lines,
    /// In the order of their nonces.
    posts: Vec<(ConnectionId, Post)>,
    /// Of the nonces from `first` on; `None` where the answer is known.
    owners: VecDeque<Option<Owner>>,
    first: u64,
    /// Lines with a message at the front that can be handled.
    runnable: VecDeque<ConnectionId>,
    text_bytes: usize,
}

impl OwedAnswers {
    /// Whether nobody on a connection waits.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.lines.len == 0
    }

    /// The line of a connection.
    pub(super) fn line(&self, id: ConnectionId) -> Option<&Line> {
        self.lines.get(id)
    }

    /// Bytes of the texts that wait.
    pub(super) const fn text_bytes(&self) -> usize {
        self.text_bytes
    }

    /// The connection whose texts are the longest, and how long they are.
    pub(super) fn heaviest(&self) -> Option<(usize, ConnectionId)> {
        let lines = self.lines.iter();
        lines.map(|(id, line)| (line.text_bytes, *id)).max()
    }

    /// Whether so much is owed to a connection that nothing more is to be read of it; `is_paused` says whether nothing is
    /// now.
    pub(super) fn is_full(&self, id: ConnectionId, is_paused: bool) -> bool {
        let Some(line) = self.line(id) else {
            return false;
        };
        let part = if is_paused { 2 } else { 1 };
        let is_long =
            line.owed.len() >= LINE_MAX / part || line.text_bytes >= LINE_BYTES_MAX / part;
        let is_ahead = line.awaits().is_some();
        line.is_last || is_long || is_ahead
    }

    // What is to be answered.

    /// Notes whom the answers to entries with these nonces are for, which are higher than all before.
    fn expect(&mut self, nonces: &Nonces, owner: Owner) {
        if self.owners.is_empty() {
            self.first = nonces.start;
        }
        let end = self.first + self.owners.len() as u64;
        debug_assert!(end <= nonces.start, "nonces ascend");
        let unknown = nonces.start.saturating_sub(end) as usize;
        self.owners.extend(std::iter::repeat_n(None, unknown));
        let count = (nonces.end - nonces.start) as usize;
        self.owners.extend(std::iter::repeat_n(Some(owner), count));
    }

    /// A connection has published; if it `is_last`, that is the last that it does.
    pub(super) fn expect_receipt(&mut self, id: ConnectionId, nonces: &Nonces, is_last: bool) {
        self.expect(nonces, Owner::Connection(id));
        for nonce in nonces.clone() {
            self.push(id, Owed::Receipt(Nonce(nonce), None));
        }
        self.lines.get_or_insert(id).is_last = is_last;
    }

    /// A request has published.
    pub(super) fn expect_receipts(&mut self, id: ConnectionId, nonces: Nonces, is_array: bool) {
        self.expect(&nonces, Owner::Post(id));
        let count = (nonces.end - nonces.start) as usize;
        let post = Post {
            nonces,
            receipts: vec![None; count],
            is_array,
        };
        self.posts.push((id, post));
    }

    /// Adds something to the end of a connection's line.
    pub(super) fn push(&mut self, id: ConnectionId, owed: Owed) {
        let line = self.lines.get_or_insert(id);
        line.text_bytes += owed.text_bytes();
        self.text_bytes += owed.text_bytes();
        line.owed.push_back(owed);
    }

    /// Puts a list that waits for `since` at the front of a connection's line.
    pub(super) fn wait(&mut self, id: ConnectionId, text: &str, since: StreamId) {
        let line = self.lines.get_or_insert(id);
        line.text_bytes += text.len();
        self.text_bytes += text.len();
        line.owed.push_front(Owed::Ahead(text.into(), since));
    }

    // Answers.

    /// The outcome of the entry with this nonce is known; says what goes on by that.
    pub(super) fn settle(&mut self, nonce: Nonce, outcome: Outcome) -> Option<Settled> {
        let at = usize::try_from(nonce.0.checked_sub(self.first)?).ok()?;
        let owner = self.owners.get_mut(at)?.take()?;
        while let Some(None) = self.owners.front() {
            self.owners.pop_front();
            self.first += 1;
        }
        match owner {
            Owner::Connection(id) => {
                let mut owed = self.lines.get_mut(id)?.owed.iter_mut();
                let place = owed.find_map(|owed| match owed {
                    Owed::Receipt(other, place) if *other == nonce => Some(place),
                    _ => None,
                });
                *place? = Some(outcome);
                Some(Settled::Line(id))
            }
            Owner::Post(id) => self.settle_post(id, nonce, outcome),
        }
    }

    fn settle_post(&mut self, id: ConnectionId, nonce: Nonce, outcome: Outcome) -> Option<Settled> {
        // An earlier request of the connection may have been refused before all of it was known.
        let is_before = |(_, post): &(ConnectionId, Post)| post.nonces.end <= nonce.0;
        let at = self.posts.partition_point(is_before);
        let (_, post) = self.posts.get_mut(at)?;
        if !post.nonces.contains(&nonce.0) {
            return None;
        }
        let receipts = match outcome {
            Ok(receipt) => {
                post.receipts[(nonce.0 - post.nonces.start) as usize] = Some(receipt);
                let receipts: Option<Vec<_>> = post.receipts.iter().copied().collect();
                Ok((receipts?, post.is_array))
            }
            Err(refusal) => Err(refusal),
        };
        self.posts.remove(at);
        Some(Settled::Post(id, receipts))
    }

    /// Takes what can be told at the front of a connection's line.
    pub(super) fn pop_known(&mut self, id: ConnectionId) -> Option<Known> {
        let line = self.lines.get_mut(id)?;
        let is_known = matches!(
            line.owed.front(),
            Some(Owed::Receipt(_, Some(_)) | Owed::Error(_))
        );
        if !is_known {
            return None;
        }
        match self.pop_front(id)? {
            Owed::Receipt(_, outcome) => outcome.map(Known::Outcome),
            Owed::Error(error) => Some(Known::Error(error)),
            Owed::Message(_) | Owed::Ahead(..) | Owed::Due(_) => None,
        }
    }

    /// Takes the message at the front of a connection's line, and whether it may wait for its id.
    pub(super) fn pop_message(&mut self, id: ConnectionId) -> Option<(Box<str>, bool)> {
        if !self.lines.get(id)?.has_message() {
            return None;
        }
        match self.pop_front(id)? {
            Owed::Message(text) => Some((text, true)),
            Owed::Due(text) => Some((text, false)),
            _ => None,
        }
    }

    fn pop_front(&mut self, id: ConnectionId) -> Option<Owed> {
        let line = self.lines.get_mut(id)?;
        let owed = line.owed.pop_front()?;
        line.text_bytes -= owed.text_bytes();
        self.text_bytes -= owed.text_bytes();
        if line.owed.is_empty() {
            self.remove(id);
        }
        Some(owed)
    }

    /// The list at the front of a connection's line has waited for long enough.
    pub(super) fn release(&mut self, id: ConnectionId) {
        let line = self.lines.get_mut(id);
        if let Some(front) = line.and_then(|line| line.owed.front_mut())
            && let Owed::Ahead(text, _) = front
        {
            *front = Owed::Due(std::mem::take(text));
        }
    }

    // Messages that can be handled.

    /// Has the message at the front of a connection's line handled at the next opportunity, if there is one.
    pub(super) fn list(&mut self, id: ConnectionId) {
        if let Some(line) = self.lines.get_mut(id)
            && line.has_message()
            && !line.is_listed
        {
            line.is_listed = true;
            self.runnable.push_back(id);
        }
    }

    /// Whether a message can be handled now.
    pub(super) fn has_runnable(&self) -> bool {
        !self.runnable.is_empty()
    }

    /// Takes the connection that has waited for its turn the longest.
    pub(super) fn pop_runnable(&mut self) -> Option<ConnectionId> {
        let id = self.runnable.pop_front()?;
        if let Some(line) = self.lines.get_mut(id) {
            line.is_listed = false;
        }
        Some(id)
    }

    /// Forgets what is owed to a connection, which is gone or closed.
    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<Line> {
        let line = self.lines.remove(id)?;
        self.text_bytes -= line.text_bytes;
        if line.is_listed {
            self.runnable.retain(|&other| other != id);
        }
        Some(line)
    }

    /// Bytes on the heap, about.
    pub(super) fn heap_bytes(&self) -> usize {
        let lines = self.lines.iter().map(|(_, line)| line.owed.capacity());
        let receipts = self.posts.iter().map(|(_, post)| post.receipts.capacity());
        self.text_bytes
            + lines.sum::<usize>() * size_of::<Owed>()
            + receipts.sum::<usize>() * size_of::<Option<Receipt>>()
            + self.lines.len * size_of::<(ConnectionId, Line)>()
            + self.lines.slots.capacity() * size_of::<usize>()
            + self.posts.capacity() * size_of::<(ConnectionId, Post)>()
            + self.owners.capacity() * size_of::<Option<Owner>>()
            + self.runnable.capacity() * size_of::<ConnectionId>()
    }

    /// Asserts what the head of this file promises. `is_connected` knows the connections, `is_held` those that wait for
    /// something else.
    pub(super) fn check_invariants(
        &self,
        is_connected: impl Fn(ConnectionId) -> bool,
        is_held: impl Fn(ConnectionId) -> bool,
    ) {
        let mut text_bytes = 0;
        for (id, line) in self.lines.iter() {
            let id = *id;
            assert!(is_connected(id) && !line.owed.is_empty());
            let bytes: usize = line.owed.iter().map(Owed::text_bytes).sum();
            assert_eq!(line.text_bytes, bytes);
            text_bytes += bytes;
            let nonces = line.owed.iter().filter_map(|owed| match owed {
                Owed::Receipt(nonce, outcome) => Some((*nonce, outcome.is_none())),
                _ => None,
            });
            assert!(nonces.clone().is_sorted_by(|one, next| one.0 < next.0));
            for (nonce, is_open) in nonces {
                let at = nonce.0.checked_sub(self.first);
                let owner = at.and_then(|at| *self.owners.get(at as usize)?);
                assert_eq!(is_open, owner == Some(Owner::Connection(id)), "{nonce:?}");
            }
            let behind = line.owed.iter().skip(1);
            let waits = |owed: &Owed| matches!(owed, Owed::Ahead(..) | Owed::Due(_));
            assert!(!behind.into_iter().any(waits));
            assert_eq!(line.is_listed, self.runnable.contains(&id));
            let is_known = matches!(
                line.owed.front(),
                Some(Owed::Receipt(_, Some(_)) | Owed::Error(_))
            );
            assert!(!is_known || is_held(id), "{id} is not answered");
            let is_to_be_handled = line.is_listed || is_held(id);
            assert!(!line.has_message() || is_to_be_handled, "{id} is forgotten");
        }
        assert_eq!(text_bytes, self.text_bytes);
        assert!(!matches!(self.owners.front(), Some(None)));
        let listed = self.lines.iter().filter(|(_, line)| line.is_listed);
        assert_eq!(listed.count(), self.runnable.len());
        let starts = self.posts.iter().map(|(_, post)| post.nonces.start);
        assert!(starts.is_sorted());
        assert_eq!(self.lines.iter().count(), self.lines.len);
        assert!(!matches!(self.lines.slots.last(), Some(None)));
        for (_, post) in &self.posts {
            let missing = post.receipts.iter().filter(|receipt| receipt.is_none());
            assert!(missing.count() > 0);
        }
    }
}

pub(super) mod saved;
#[cfg(test)]
mod tests {
    use super::*;
    use crate::application::Delivered;

    const fn id(index: u32) -> ConnectionId {
        ConnectionId { index, serial: 0 }
    }

    fn receipt(queued: usize) -> Outcome {
        Ok(Receipt {
            delivered: Delivered { queued, dropped: 0 },
            id: None,
            is_repeated: false,
        })
    }

    fn check(owed: &OwedAnswers) {
        owed.check_invariants(|_| true, |_| true);
    }

    #[test]
    fn a_line_is_told_in_order_whatever_is_known_first() {
        let mut owed = OwedAnswers::default();
        owed.expect_receipt(id(0), &(5..6), false);
        owed.push(id(0), Owed::Message("ping".into()));
        owed.expect_receipt(id(1), &(6..7), false);
        owed.expect_receipt(id(0), &(7..8), false);
        check(&owed);
        assert_eq!(
            owed.settle(Nonce(7), receipt(7)),
            Some(Settled::Line(id(0)))
        );
        assert_eq!(owed.settle(Nonce(7), receipt(9)), None, "it is known");
        assert_eq!(owed.pop_known(id(0)), None);
        assert_eq!(owed.settle(Nonce(4), receipt(4)), None, "nobody's");
        assert_eq!(owed.settle(Nonce(8), receipt(8)), None, "nobody's yet");
        assert_eq!(
            owed.settle(Nonce(6), receipt(6)),
            Some(Settled::Line(id(1)))
        );
        assert_eq!(owed.pop_known(id(1)), Some(Known::Outcome(receipt(6))));
        assert_eq!(
            owed.settle(Nonce(5), receipt(5)),
            Some(Settled::Line(id(0)))
        );
        assert_eq!(owed.pop_known(id(0)), Some(Known::Outcome(receipt(5))));
        assert_eq!(owed.pop_known(id(0)), None);
        check(&owed);
        assert_eq!(owed.pop_message(id(0)), Some(("ping".into(), true)));
        assert_eq!(owed.pop_known(id(0)), Some(Known::Outcome(receipt(7))));
        assert!(owed.is_empty() && owed.text_bytes() == 0 && owed.owners.is_empty());
        check(&owed);
    }

    #[test]
    fn a_line_has_its_bounds() {
        let mut owed = OwedAnswers::default();
        for nonce in 0..1024 {
            assert!(!owed.is_full(id(0), false));
            owed.expect_receipt(id(0), &(nonce..nonce + 1), false);
            assert_eq!(owed.is_full(id(0), true), nonce >= 511);
        }
        assert!(owed.is_full(id(0), false));
        owed.push(id(1), Owed::Message(" ".repeat(65_535).into()));
        assert!(!owed.is_full(id(1), false) && owed.is_full(id(1), true));
        owed.push(id(1), Owed::Message(" ".into()));
        assert!(owed.is_full(id(1), false));
        assert_eq!(owed.heaviest(), Some((65_536, id(1))));
        assert!(!owed.is_full(id(2), true));
        assert!(owed.heap_bytes() > 65_536);
    }

    #[test]
    fn a_request_that_was_refused_is_not_answered_again() {
        let mut owed = OwedAnswers::default();
        owed.expect_receipts(id(0), 0..3, true);
        assert_eq!(owed.settle(Nonce(1), receipt(1)), None);
        let refused = Err(Refusal::Unanswered);
        assert_eq!(
            owed.settle(Nonce(0), refused.clone()),
            Some(Settled::Post(id(0), Err(Refusal::Unanswered)))
        );
        owed.expect_receipts(id(0), 3..4, false);
        assert_eq!(owed.settle(Nonce(2), refused), None);
        let receipts = vec![receipt(3).expect("one")];
        assert_eq!(
            owed.settle(Nonce(3), receipt(3)),
            Some(Settled::Post(id(0), Ok((receipts, false))))
        );
        check(&owed);
    }

    #[test]
    fn what_is_gone_is_owed_nothing() {
        let mut owed = OwedAnswers::default();
        owed.expect_receipt(id(0), &(0..1), true);
        owed.push(id(1), Owed::Message("x".into()));
        owed.list(id(1));
        assert!(owed.has_runnable() && owed.is_full(id(0), false));
        for index in [0, 1] {
            assert!(owed.remove(id(index)).is_some() && owed.remove(id(index)).is_none());
        }
        assert!(!owed.has_runnable() && owed.text_bytes() == 0);
        assert_eq!(owed.settle(Nonce(0), receipt(0)), None);
        check(&owed);
    }
}
