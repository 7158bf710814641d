//! Catching up: how a client that shows an id gets what it has missed (protocol 6.1).
//!
//! A client that shows an id gets a cursor into the history. The cursor advances in slices, as fast as the send
//! queue drains; what may match is found by fingerprints, and looked at. In the very call in which the
//! cursor reaches the newest entry the client enters the index: nothing can come in between.

use std::time::Duration;

use log::{debug, log};

use super::Hub;
use super::command::{self, Resumption};
use super::filter::Subscription;
use super::replays::Cursor;
use crate::application::Outbox;
use crate::count::Count;
use crate::id::ConnectionId;
use crate::journal::NotResumed;
use crate::journal::column::Search;
use crate::journal::id::Position;
use crate::time::Timestamp;
use crate::ws::close::CloseCode;

/// How far a client is caught up at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slice {
    /// Entries that are looked at.
    pub entries: usize,
    /// Bytes that are queued; then the send queue has to drain.
    pub bytes: usize,
}

impl Default for Slice {
    fn default() -> Self {
        Self {
            entries: 16 * 1024,
            bytes: 64 * 1024,
        }
    }
}

/// How often entries that are too old are looked for.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(1);

/// What a client that shows an id is told.
enum Shown {
    /// It gets what it has missed behind this position.
    Resumed(Position),
    /// For this reason something may be missing.
    NotResumed(&'static str),
}

impl Hub {
    /// Subscribes a connection that numbers its deliveries from now on, and catches it up if it shows an id.
    pub(super) fn subscribe_since(
        &mut self,
        id: ConnectionId,
        subscriptions: &[Subscription<'_>],
        since: &str,
        outbox: &mut dyn Outbox,
    ) {
        self.numbered.insert(id);
        if since.is_empty() {
            return self.go_live(id, subscriptions, outbox);
        }
        let shown = self.judge(id, since, outbox.now());
        let was_drained = outbox.is_drained(id);
        let resumption = match shown {
            Shown::Resumed(_) => Resumption::Resumed { since },
            Shown::NotResumed(reason) => Resumption::NotResumed {
                now: self.journal.id(self.journal.head()),
                reason,
            },
        };
        outbox.reply(
            id,
            &command::subscribed_reply(subscriptions.len(), self.ping_interval, Some(resumption)),
        );
        let covers_from = match shown {
            Shown::Resumed(position) => position,
            Shown::NotResumed(_) => self.journal.head(),
        };
        self.connections.note_list(id, covers_from);
        match shown {
            Shown::Resumed(position) => {
                self.index.replace(id, &[]);
                let needles = self.fingerprinter.needles(subscriptions);
                let owned = subscriptions.iter().cloned().map(Subscription::into_owned);
                let cursor = Cursor::new(owned.collect(), needles, position);
                self.replays.insert(id, cursor);
                if was_drained || position == self.journal.head() {
                    self.advance(id, outbox);
                } else {
                    // What an earlier list has queued goes first: lists in a row queue no more than one.
                    self.replays.await_drained(id);
                    outbox.await_drained(id);
                }
            }
            Shown::NotResumed(reason) => {
                let level = self.resume_log.level(outbox.now());
                log!(level, connection:% = id, reason = reason; "{id} is not resumed: {reason}");
                self.index.replace(id, subscriptions);
            }
        }
    }

    /// Gives a connection these subscriptions from now on, and tells it.
    pub(super) fn go_live(
        &mut self,
        id: ConnectionId,
        subscriptions: &[Subscription<'_>],
        outbox: &mut dyn Outbox,
    ) {
        self.index.replace(id, subscriptions);
        self.connections.note_list(id, self.journal.head());
        let position = self.numbered.contains(id).then(|| self.journal.head());
        let resumption = position.map(|position| Resumption::From(self.journal.id(position)));
        let reply = command::subscribed_reply(subscriptions.len(), self.ping_interval, resumption);
        outbox.reply(id, &reply);
    }

    fn judge(&mut self, id: ConnectionId, since: &str, now: Timestamp) -> Shown {
        let resumes = &mut self.metrics.resumes;
        if !self.clearances.allows_history(id) {
            resumes.forbidden += 1;
            return Shown::NotResumed("forbidden");
        }
        match self.journal.locate(since, now) {
            Ok(position) => {
                resumes.resumed += 1;
                Shown::Resumed(position)
            }
            Err(NotResumed::Expired) => {
                resumes.expired += 1;
                Shown::NotResumed("expired")
            }
            // It may still come, but it has been waited for.
            Err(NotResumed::Unknown | NotResumed::Ahead) => {
                resumes.unknown += 1;
                Shown::NotResumed("unknown")
            }
        }
    }

    /// Holds a list that a client has sent while it is being caught up, and whatever comes behind it. Where too much
    /// is held for all, the client with the longest list goes.
    pub(super) fn hold(&mut self, id: ConnectionId, text: &str, outbox: &mut dyn Outbox) {
        self.replays.hold(id, text);
        self.settle_input(id, outbox);
        self.bound_held(outbox);
    }

    /// Catches a client up a little further.
    fn advance(&mut self, id: ConnectionId, outbox: &mut dyn Outbox) {
        let Slice {
            mut entries,
            bytes: mut bytes_left,
        } = self.slice;
        while let Some(cursor) = self.replays.get_mut(id) {
            let start = self.journal.history().start();
            let Some(from) = cursor.position.0.checked_sub(start.0) else {
                return self.lose(id, outbox);
            };
            let mut entries_max = entries;
            if let Some(gap) = cursor.gap {
                if gap.position <= cursor.position {
                    cursor.gap = None;
                    self.tell_gap(id, gap, outbox);
                    continue;
                }
                let up_to_it = (gap.position.0 - cursor.position.0) as usize;
                entries_max = entries.min(up_to_it);
            }
            if cursor.position == self.journal.head() {
                return self.finish(id, outbox);
            }
            if bytes_left == 0 {
                self.replays.await_drained(id);
                return outbox.await_drained(id);
            }
            if entries == 0 {
                return self.replays.list(id);
            }
            let from = from as usize;
            let column = self.journal.column();
            match column.search(&cursor.needles, from, entries_max) {
                Search::LookedTo(index) => {
                    entries = entries.saturating_sub(index - from);
                    cursor.position = Position(start.0 + index as u64);
                }
                Search::Hit(index) => {
                    cursor.position = Position(start.0 + index as u64);
                    let looked_at = cursor.look_cost(self.journal.history());
                    entries = entries.saturating_sub(index - from + looked_at);
                    bytes_left = bytes_left.saturating_sub(self.replay(id, outbox));
                }
            }
        }
    }

    /// Sends the entry behind a client's position to it, if it is for it. Returns how many bytes that takes of
    /// those that may be queued.
    fn replay(&mut self, id: ConnectionId, outbox: &mut dyn Outbox) -> usize {
        let Some(cursor) = self.replays.get_mut(id) else {
            return 0;
        };
        let position = cursor.position.next();
        let entry = self.journal.history().get(position);
        let notification = entry.map(|entry| entry.content().notification);
        let notification = notification.and_then(command::parse_notification);
        let is_wanted = notification.is_some_and(|notification| cursor.wants(&notification));
        let frame = is_wanted.then(|| self.journal.replayed_frame(position));
        let Some(frame) = frame.flatten() else {
            cursor.position = position;
            return 0;
        };
        // What the history has no room for is the queue's to keep, which may have room for little.
        if !frame.shared().is_retained() && !outbox.has_room(id, &frame) {
            return usize::MAX;
        }
        cursor.position = position;
        cursor.missed += 1;
        outbox.deliver(&frame, &[id]);
        self.metrics.entries_replayed += 1;
        frame.as_bytes().len()
    }

    /// What a client was promised has left the history before it could be sent.
    fn lose(&mut self, id: ConnectionId, outbox: &mut dyn Outbox) {
        let level = self.resume_log.level(outbox.now());
        log!(level, connection:% = id; "{id} is closed: the history doesn't reach back to it any more");
        self.metrics.replays_lost += 1;
        // It has its list until it is gone.
        self.replays.await_drained(id);
        self.close(id, CloseCode::TRY_AGAIN_LATER, "slow-consumer", outbox);
    }

    /// A client has all that it missed: from now on it is one of those that get what is published.
    fn finish(&mut self, id: ConnectionId, outbox: &mut dyn Outbox) {
        let Some(cursor) = self.replays.remove(id) else {
            return;
        };
        self.index.replace(id, cursor.subscriptions());
        let (position, missed) = (cursor.position, cursor.missed);
        outbox.reply(
            id,
            &command::caught_up_message(self.journal.id(position), missed),
        );
        let count = Count(missed, "notification");
        debug!(connection:% = id, missed; "{id} is caught up: it had missed {count}");
        if let Some(held) = cursor.held {
            self.settle_input(id, outbox);
            self.handle_now(id, &held, true, outbox);
            self.drain(id, outbox);
        }
    }

    // What no message asks for.

    /// When there is something to do that no message asks for.
    #[must_use]
    pub fn next_work(&self) -> Option<Timestamp> {
        let is_due = self.replays.has_runnable() || self.owed.has_runnable() || self.gap.is_some();
        if is_due {
            return Some(Timestamp::ZERO);
        }
        let Some(redis) = &self.redis else {
            return self.expiry_due;
        };
        let others = [
            self.expiry_due,
            self.ahead.next_deadline(),
            redis.next_deadline(),
        ];
        others.into_iter().flatten().min()
    }

    /// Does a little of it.
    pub fn handle_work(&mut self, outbox: &mut dyn Outbox) {
        let now = outbox.now();
        if self.expiry_due.is_some_and(|due| due <= now) {
            let has_more = self.journal.expire(now, self.replays.oldest());
            self.expiry_due = has_more.then_some(now);
            self.schedule_expiry(now);
        }
        if self.redis.is_some() {
            self.handle_stream(outbox);
        }
        if let Some(id) = self.replays.pop() {
            self.advance(id, outbox);
        }
    }

    /// Has entries that are too old looked for when the oldest will be.
    pub(super) fn schedule_expiry(&mut self, now: Timestamp) {
        if self.expiry_due.is_none() {
            let left = self.journal.time_left(now);
            self.expiry_due = left.map(|left| now + left.max(EXPIRY_INTERVAL));
        }
    }

    /// The send queue of a client has drained.
    pub fn handle_drained(&mut self, id: ConnectionId) {
        self.replays.handle_drained(id);
    }
}
