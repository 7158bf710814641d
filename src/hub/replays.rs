//! Clients that are being caught up: each has a cursor into the history.
//!
//! Knows where they are and what they wait for, and sends nothing. A connection is either here or in the
//! index. Main type: [`Replays`].
//!
//! Invariants: `holdings` is what the lists of all cursors amount to; a cursor that waits for nothing is in
//! `runnable`.

use std::collections::{HashMap, VecDeque};

use super::filter::{Notification, Subscription, matches};
use super::holdings::Holdings;
use crate::handover::{Fields, Malformed, Members};
use crate::id::ConnectionId;
use crate::journal::history::History;
use crate::journal::id::Position;
use crate::journal::needles::Needles;
use crate::redis::Doubt;

/// Where a gap is, and what clients are told of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct GapMark {
    /// It is behind this position.
    pub(super) position: Position,
    pub(super) doubt: Doubt,
}

// Members of a mark.
const GAP_POSITION: u8 = 1;
const DOUBT: u8 = 2;

impl GapMark {
    /// Writes it.
    pub(super) fn save(self, members: &mut Members<'_>) {
        let Self {
            position: Position(position),
            doubt,
        } = self;
        members.number(GAP_POSITION, position);
        members.number(DOUBT, doubt.number());
    }

    /// Reads what was written, in a log that has got to `head`.
    ///
    /// # Errors
    /// There can be no such gap.
    pub(super) fn restore(fields: &Fields<'_>, head: Position) -> Result<Self, Malformed> {
        let position = Position(fields.number(GAP_POSITION));
        match Doubt::of_number(fields.number(DOUBT))? {
            Some(doubt) if position <= head => Ok(Self { position, doubt }),
            _ => Err(Malformed("a gap is behind all that was read")),
        }
    }

    /// The word for it.
    pub(super) const fn reason(self) -> &'static str {
        match self.doubt {
            Doubt::Lost => "lost",
            Doubt::Trimmed => "trimmed",
        }
    }
}

/// What a client that is being caught up has asked for, and how far it is.
pub(super) struct Cursor {
    subscriptions: Vec<Subscription<'static>>,
    /// What they amount to.
    holdings: Holdings,
    /// What its subscriptions are found by.
    pub(super) needles: Needles,
    /// All that is for it up to here is queued.
    pub(super) position: Position,
    /// All that is for it up to here has been sent, or may be dropped from the history: what is queued behind is
    /// still there.
    sent: Position,
    /// How many notifications it had missed, up to here.
    pub(super) missed: u64,
    /// A list that it has sent meanwhile, which is handled when it is caught up.
    pub(super) held: Option<Box<str>>,
    /// What it is told on its way.
    pub(super) gap: Option<GapMark>,
    /// Whether it goes on when its send queue has drained.
    awaits_drained: bool,
    /// Whether it is in `runnable`.
    is_listed: bool,
}

impl Cursor {
    pub(super) fn new(
        subscriptions: Vec<Subscription<'static>>,
        needles: Needles,
        position: Position,
    ) -> Self {
        Self {
            holdings: Holdings::of(&subscriptions),
            subscriptions,
            needles,
            position,
            sent: position,
            missed: 0,
            held: None,
            gap: None,
            awaits_drained: false,
            is_listed: false,
        }
    }

    /// Begins a slice: nothing of those before waits in its send queue.
    pub(super) const fn begin_slice(&mut self) {
        self.sent = self.position;
    }

    /// What it has subscribed to.
    pub(super) fn subscriptions(&self) -> &[Subscription<'static>] {
        &self.subscriptions
    }

    /// What it costs to look into the entry behind its position, in entries that are passed over.
    pub(super) fn look_cost(&self, history: &History) -> usize {
        let entry = history.get(self.position.next());
        let len = entry.map_or(0, |entry| entry.content().notification.len());
        64 + (len / 16) * (1 + self.holdings.values as usize / 64)
    }

    /// Whether a notification is for it.
    pub(super) fn wants(&self, notification: &Notification<'_>) -> bool {
        let mut subscriptions = self.subscriptions.iter();
        subscriptions.any(|subscription| matches(subscription, notification))
    }
}

// Members of a connection's record, among those of hub/saved.rs.
/// One more than the position: it says that there is a cursor.
const POSITION: u8 = 12;
const SENT: u8 = 13;
const MISSED: u8 = 14;
const HELD: u8 = 15;
const AWAITS_DRAINED: u8 = 19;
const GAP: u8 = 22;

impl Cursor {
    /// Writes where a client is.
    pub(super) fn save(&self, members: &mut Members<'_>) {
        let Self {
            // They are written as every list is, and what they amount to and are found by follows from them.
            subscriptions: _,
            holdings: _,
            needles: _,
            position: Position(position),
            sent: Position(sent),
            missed,
            held,
            gap,
            awaits_drained,
            // A cursor that waits for nothing is in the list.
            is_listed: _,
        } = self;
        members.number(POSITION, position.saturating_add(1));
        members.number(SENT, *sent);
        members.number(MISSED, *missed);
        members.bytes(HELD, held.as_deref().unwrap_or_default().as_bytes());
        members.number(AWAITS_DRAINED, u64::from(*awaits_drained));
        if let Some(gap) = gap {
            members.nested(GAP, |members| gap.save(members));
        }
    }

    /// Whether a client that was written was being caught up.
    pub(super) fn is_saved(fields: &Fields<'_>) -> bool {
        fields.number(POSITION) > 0
    }

    /// Reads where a client was that has subscribed to these, which `needles` find; the log has got to `head`.
    ///
    /// # Errors
    /// It can't have been there.
    pub(super) fn restore(
        fields: &Fields<'_>,
        subscriptions: Vec<Subscription<'static>>,
        needles: Needles,
        head: Position,
    ) -> Result<Self, Malformed> {
        let position = fields.number(POSITION).checked_sub(1);
        let position = position.ok_or(Malformed("a client is nowhere"))?;
        let (sent, missed) = (fields.number(SENT), fields.number(MISSED));
        if position > head.0 || sent > position || missed > position {
            return Err(Malformed("a client is ahead of what was published"));
        }
        let held = fields.text(HELD)?;
        let gap = fields.nested(GAP)?;
        let gap = gap.map(|fields| GapMark::restore(&fields, head));
        Ok(Self {
            sent: Position(sent),
            missed,
            held: (!held.is_empty()).then(|| held.into()),
            gap: gap.transpose()?,
            awaits_drained: fields.number(AWAITS_DRAINED) != 0,
            ..Self::new(subscriptions, needles, Position(position))
        })
    }
}

/// The cursors.
#[derive(Default)]
pub(super) struct Replays {
    cursors: HashMap<ConnectionId, Cursor>,
    /// Those that have something to do now.
    runnable: VecDeque<ConnectionId>,
    holdings: Holdings,
    /// Bytes of the lists that are held.
    held_bytes: usize,
}

impl Replays {
    /// How many clients are being caught up.
    pub(super) fn len(&self) -> usize {
        self.cursors.len()
    }

    /// Whether a client is being caught up.
    pub(super) fn contains(&self, id: ConnectionId) -> bool {
        self.cursors.contains_key(&id)
    }

    /// The cursor of a client.
    pub(super) fn get(&self, id: ConnectionId) -> Option<&Cursor> {
        self.cursors.get(&id)
    }

    /// The cursor of a client.
    pub(super) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Cursor> {
        self.cursors.get_mut(&id)
    }

    /// What the list of a client amounts to.
    pub(super) fn holdings_of(&self, id: ConnectionId) -> Option<Holdings> {
        Some(self.cursors.get(&id)?.holdings)
    }

    /// What all lists amount to, but for that of `id`.
    pub(super) fn holdings_beside(&self, id: ConnectionId) -> Holdings {
        let own = self.holdings_of(id).unwrap_or_default();
        self.holdings.exchange(own, Holdings::default())
    }

    /// Bytes of the lists that are held.
    pub(super) const fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Behind which position the history is needed.
    pub(super) fn oldest(&self) -> Option<Position> {
        self.cursors.values().map(|cursor| cursor.sent).min()
    }

    /// Whether a list of a client is held.
    pub(super) fn holds_list(&self, id: ConnectionId) -> bool {
        self.held_bytes > 0 && self.get(id).is_some_and(|cursor| cursor.held.is_some())
    }

    /// The client whose list that is held is the longest, and how long it is.
    pub(super) fn heaviest(&self) -> Option<(usize, ConnectionId)> {
        let held = self.cursors.iter();
        let held = held.filter_map(|(&id, cursor)| Some((cursor.held.as_ref()?.len(), id)));
        held.max()
    }

    /// Forgets the list that is held for a client, which is closed.
    pub(super) fn drop_held(&mut self, id: ConnectionId) {
        let held = self.cursors.get_mut(&id);
        let held = held.and_then(|cursor| cursor.held.take());
        self.held_bytes -= held.map_or(0, |held| held.len());
    }

    /// Begins to catch a client up, which isn't here.
    pub(super) fn insert(&mut self, id: ConnectionId, cursor: Cursor) {
        let added = cursor.holdings;
        self.holdings = self.holdings.exchange(Holdings::default(), added);
        let before = self.cursors.insert(id, cursor);
        debug_assert!(before.is_none(), "{id} has two cursors");
    }

    /// Goes on catching a client up, which isn't here, where another process was.
    pub(super) fn carry(&mut self, id: ConnectionId, cursor: Cursor) {
        let awaits_drained = cursor.awaits_drained;
        self.held_bytes += cursor.held.as_ref().map_or(0, |held| held.len());
        self.insert(id, cursor);
        if !awaits_drained {
            self.list(id);
        }
    }

    /// Forgets a client, which is caught up or gone, or has asked for something else.
    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<Cursor> {
        if self.cursors.is_empty() {
            return None;
        }
        let cursor = self.cursors.remove(&id)?;
        self.holdings = self.holdings.exchange(cursor.holdings, Holdings::default());
        self.held_bytes -= cursor.held.as_ref().map_or(0, |held| held.len());
        if cursor.is_listed {
            self.runnable.retain(|&other| other != id);
        }
        if self.cursors.is_empty() {
            *self = Self::default();
        }
        Some(cursor)
    }

    /// Notes a list to be handled when a client is caught up, unless there is one.
    pub(super) fn hold(&mut self, id: ConnectionId, text: &str) {
        if let Some(cursor) = self.cursors.get_mut(&id)
            && cursor.held.is_none()
        {
            self.held_bytes += text.len();
            cursor.held = Some(text.into());
        }
    }

    /// Has a client go on at the next opportunity.
    pub(super) fn list(&mut self, id: ConnectionId) {
        if let Some(cursor) = self.cursors.get_mut(&id)
            && !cursor.is_listed
        {
            cursor.is_listed = true;
            self.runnable.push_back(id);
        }
    }

    /// Has a client go on when its send queue has drained.
    pub(super) fn await_drained(&mut self, id: ConnectionId) {
        if let Some(cursor) = self.cursors.get_mut(&id) {
            cursor.awaits_drained = true;
        }
    }

    /// The send queue of a client has drained.
    pub(super) fn handle_drained(&mut self, id: ConnectionId) {
        if let Some(cursor) = self.cursors.get_mut(&id)
            && std::mem::take(&mut cursor.awaits_drained)
        {
            cursor.begin_slice();
            self.list(id);
        }
    }

    /// Whether a client has something to do now.
    pub(super) fn has_runnable(&self) -> bool {
        !self.runnable.is_empty()
    }

    /// Takes the client that has waited for its turn the longest.
    pub(super) fn pop(&mut self) -> Option<ConnectionId> {
        let id = self.runnable.pop_front()?;
        if let Some(cursor) = self.cursors.get_mut(&id) {
            cursor.is_listed = false;
        }
        Some(id)
    }

    /// Has clients go on in the order of their connections, as in a successor.
    #[cfg(test)]
    pub(super) fn sort(&mut self) {
        self.runnable.make_contiguous().sort_unstable();
    }

    /// How many clients have something to do now.
    #[cfg(test)]
    pub(super) fn runnable_len(&self) -> usize {
        self.runnable.len()
    }

    /// Asserts what the head of this file promises; `is_connected` knows the connections.
    pub(super) fn check_invariants(&self, is_connected: impl Fn(ConnectionId) -> bool) {
        let mut sum = Holdings::default();
        let mut held_bytes = 0;
        for (id, cursor) in &self.cursors {
            assert!(is_connected(*id));
            sum = sum.exchange(Holdings::default(), Holdings::of(&cursor.subscriptions));
            held_bytes += cursor.held.as_ref().map_or(0, |held| held.len());
            assert!(
                cursor.is_listed != cursor.awaits_drained,
                "{id} is forgotten"
            );
            assert_eq!(cursor.is_listed, self.runnable.contains(id));
        }
        assert_eq!((sum, held_bytes), (self.holdings, self.held_bytes));
        let listed = self.cursors.values().filter(|cursor| cursor.is_listed);
        assert_eq!(listed.count(), self.runnable.len());
    }
}
