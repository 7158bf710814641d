//! The hub's side of Redis: what is published goes there, and what is read of the stream is delivered, whoever has appended
//! it. Answers to publishers, and to whatever they have sent behind, wait in [`super::owed`] until then.
//!
//! A notification goes by permission, content, [`Hub::append`], and comes back as an entry: journal, match, deliver, answer.
//! Nothing that waits in a line is a publish, so nothing is appended while an event of Redis is handled.

use std::borrow::Cow;
use std::time::Duration;

use log::{debug, log};

use super::Hub;
use super::ahead::Waiting;
use super::answers::{reply_error, unavailable};
use super::command::{self, Command, Publication, Receipt};
use super::owed::{Known, Outcome, Owed, Settled};
use super::publish::{Origin, Place};
use super::recent::Notified;
use crate::application::{Delivered, Outbox, Replies, Response, Status};
use crate::id::ConnectionId;
use crate::journal::NotResumed;
use crate::journal::id::{EntryId, StreamId, UnknownId};
use crate::redis::{Append, Event, Nonce, Nonces, Refusal, WholeId};
use crate::time::Timestamp;
use crate::ws::close::CloseCode;

/// Bytes of messages that may be held, all together: of lists behind those of clients that are being caught up, and of
/// whatever stands behind a receipt.
const HELD_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What an event of Redis is, without what it lends.
enum Told {
    Nothing,
    Answered(Nonces, Refusal),
    Repeated(Nonce, WholeId),
}

impl Hub {
    // What is published.

    /// Sends what is to be published to Redis, all of it or nothing. Each nonce is answered when its entry has been read
    /// back.
    ///
    /// # Errors
    /// Why it isn't sent.
    pub(super) fn append(
        &mut self,
        entries: &[Append<'_>],
        now: Timestamp,
    ) -> Result<Nonces, Refusal> {
        let Some(redis) = &mut self.redis else {
            debug_assert!(false, "nothing is published while an event is handled");
            return Err(Refusal::OutOfReach);
        };
        redis.append(entries, now)
    }

    /// Takes a message of a connection to which something is owed: what it publishes is sent on at once, anything else
    /// waits for its turn.
    pub(super) fn handle_behind(&mut self, id: ConnectionId, text: &str, outbox: &mut dyn Outbox) {
        // It has hung up, and is read to its end.
        if self.owed.line(id).is_some_and(|line| line.is_last) {
            return;
        }
        let owed = match command::parse(text, &self.config.limits) {
            Ok(Command::Publish(publish)) => return self.handle_publish(id, &publish, outbox),
            Ok(_) => Owed::Message(text.into()),
            Err(error) => {
                self.note_bad_message(id, &error, outbox.now());
                Owed::Error(error)
            }
        };
        self.owe(id, owed, outbox);
    }

    /// Adds something to what is owed to a connection.
    pub(super) fn owe(&mut self, id: ConnectionId, owed: Owed, outbox: &mut dyn Outbox) {
        self.owed.push(id, owed);
        self.settle_input(id, outbox);
        self.bound_held(outbox);
    }

    // What is owed.

    /// Reads of a connection, or doesn't, by all that it may wait for.
    pub(super) fn settle_input(&mut self, id: ConnectionId, replies: &mut (impl Replies + ?Sized)) {
        let is_paused = self.paused.contains(id);
        let is_to_be = self.replays.holds_list(id) || self.owed.is_full(id, is_paused);
        if is_to_be == is_paused {
            return;
        }
        if is_to_be {
            self.paused.insert(id);
            replies.pause_input(id);
        } else {
            self.paused.remove(id);
            replies.resume_input(id);
        }
    }

    /// Where too much is held for all, the client with the longest texts goes.
    pub(super) fn bound_held(&mut self, outbox: &mut dyn Outbox) {
        if self.replays.held_bytes() + self.owed.text_bytes() <= HELD_BYTES_MAX {
            return;
        }
        let heaviest = [self.replays.heaviest(), self.owed.heaviest()];
        if let Some((_, id)) = heaviest.into_iter().flatten().max() {
            self.replays.drop_held(id);
            self.forget_owed(id);
            self.close(id, CloseCode::TRY_AGAIN_LATER, "overload", outbox);
        }
    }

    /// Forgets what is owed to a connection, which is gone or closed. What it has published stays on its way.
    pub(super) fn forget_owed(&mut self, id: ConnectionId) {
        if let Some(line) = self.owed.remove(id)
            && let Some(since) = line.awaits()
        {
            self.ahead.remove(id, since);
        }
    }

    /// The outcome of the entry with this nonce is known: tells its publisher, when all ahead of it is told.
    fn settle(&mut self, nonce: Nonce, outcome: Outcome, outbox: &mut dyn Outbox) {
        match self.owed.settle(nonce, outcome) {
            None => {}
            Some(Settled::Line(id)) => self.drain(id, outbox),
            Some(Settled::Post(id, receipts)) => {
                let response = match receipts {
                    Ok((receipts, is_array)) => {
                        Response::json(Status::OK, command::batch_reply(&receipts, is_array))
                    }
                    Err(refusal) => {
                        self.note_post_refusal(id, &unavailable(&refusal), true, outbox);
                        unavailable_response(&refusal, outbox.retry_ms())
                    }
                };
                outbox.respond(id, &response);
            }
        }
    }

    /// Tells a connection what is known of what it is owed, in order, up to a message, which is handled later.
    pub(super) fn drain(&mut self, id: ConnectionId, outbox: &mut dyn Outbox) {
        while !self.replays.holds_list(id)
            && let Some(known) = self.owed.pop_known(id)
        {
            match known {
                Known::Outcome(outcome) => {
                    let known = self.connections.find(id);
                    let stays = known.is_some_and(|(rights, _)| rights.stays);
                    let outcome = outcome.map_err(|refusal| unavailable(&refusal));
                    self.answer_publisher(id, stays, outcome, outbox);
                }
                Known::Error(error) => reply_error(id, &error, outbox),
            }
        }
        self.owed.list(id);
        self.settle_input(id, outbox);
    }

    /// Does one thing that follows from Redis: some clients are told of a gap, all of them ahead of anything else; a list
    /// has waited for long enough; a message has its turn; or something has happened there.
    pub(super) fn handle_stream(&mut self, outbox: &mut dyn Outbox) {
        if self.gap.is_some() {
            return self.continue_gap(outbox);
        }
        let journal = &self.journal;
        let now = outbox.now();
        let is_awaited =
            |since| is_ahead(journal.locate(EntryId::Stream(since).text().as_str(), now));
        let late = self.ahead.pop(now, is_awaited);
        if let Some(id) = late {
            self.owed.release(id);
        }
        // A list ahead of a publish counts for what that one publishes.
        match late.or_else(|| self.owed.pop_runnable()) {
            Some(id) => self.handle_owed(id, outbox),
            None => self.handle_redis(outbox),
        }
    }

    /// Handles the message at the front of what is owed to a connection. One at a time: it may close the connection, and a
    /// list costs something.
    fn handle_owed(&mut self, id: ConnectionId, outbox: &mut dyn Outbox) {
        if !self.replays.holds_list(id)
            && let Some((text, may_wait)) = self.owed.pop_message(id)
        {
            self.handle_now(id, &text, may_wait, outbox);
            self.drain(id, outbox);
        }
    }

    /// Whether a list that shows `since` waits for it; then nothing is changed yet.
    pub(super) fn awaits(
        &mut self,
        id: ConnectionId,
        text: &str,
        since: &str,
        outbox: &mut dyn Outbox,
    ) -> bool {
        let now = outbox.now();
        if self.redis.is_none() || !is_ahead(self.journal.locate(since, now)) {
            return false;
        }
        let Ok(EntryId::Stream(since)) = since.parse() else {
            return false;
        };
        let until = now + self.ahead_wait;
        debug!(connection:% = id; "{id} is ahead: its list waits");
        self.ahead.insert(Waiting { id, since, until });
        self.owed.wait(id, text, since);
        self.settle_input(id, outbox);
        self.bound_held(outbox);
        true
    }

    // What has happened in Redis.

    /// Handles one event of Redis.
    fn handle_redis(&mut self, outbox: &mut dyn Outbox) {
        let Some(mut redis) = self.redis.take() else {
            return;
        };
        // An event borrows from it.
        let is_ready = redis.is_ready();
        let told = match redis.next_event(outbox.now()) {
            None => Told::Nothing,
            Some(Event::Entry { id, own, key, json }) => {
                let receipt = self.handle_entry(id, key, json, is_ready, outbox);
                if let Some(nonce) = own {
                    // What was read before it was sent is valid, unless a stranger has made up its nonce.
                    let outcome = receipt.ok_or(Refusal::Unanswered);
                    self.settle(nonce, outcome, outbox);
                }
                Told::Nothing
            }
            Some(Event::Barrier(id)) => {
                if let Some(id) = self.tellable(id) {
                    self.journal.mark(id);
                    self.ahead.note(id);
                }
                Told::Nothing
            }
            Some(Event::Mended) => {
                self.journal.mend();
                Told::Nothing
            }
            Some(Event::Doubt(doubt)) => {
                self.begin_gap(doubt);
                Told::Nothing
            }
            Some(Event::Refused(nonces, refusal)) => Told::Answered(nonces, refusal),
            Some(Event::Repeated(nonce, id)) => Told::Repeated(nonce, id),
        };
        self.redis = Some(redis);
        match told {
            Told::Nothing => {}
            Told::Answered(nonces, refusal) => {
                for nonce in nonces {
                    self.settle(Nonce(nonce), Err(refusal.clone()), outbox);
                }
            }
            Told::Repeated(nonce, id) => self.repeat_entry(nonce, id, outbox),
        }
    }

    /// Takes an entry of the stream: what it says goes into the log, and to whoever has subscribed to it. Before the server
    /// is ready nobody can have.
    fn handle_entry(
        &mut self,
        id: WholeId,
        key: Option<&str>,
        json: Option<&str>,
        is_ready: bool,
        outbox: &mut dyn Outbox,
    ) -> Option<Receipt> {
        let publication = match json.map(command::parse_entry) {
            Some(Ok(publication)) => Ok(publication),
            Some(Err(error)) => Err(error.to_string()),
            None => Err("it has no text, or too long an id".to_owned()),
        };
        let WholeId {
            millis, sequence, ..
        } = id;
        let publication = publication.inspect_err(|why| {
            self.metrics.entries_invalid += 1;
            let level = self.entry_log.level(outbox.now());
            log!(
                level, reason:% = why;
                "entry {millis}-{sequence} of the stream is passed over: {why}"
            );
        });
        let publication = Publication {
            key: key.map(Cow::Borrowed),
            ..publication.ok()?
        };
        let id = self.tellable(id)?;
        let now = outbox.now();
        let age = match is_ready {
            true => Duration::ZERO,
            false => outbox
                .unix_now()
                .saturating_sub(Duration::from_millis(id.place().0)),
        };
        let head = self.journal.head();
        let place = self.enter_read(&publication, id, now, age);
        self.journal.seal(head, outbox);
        if place != Place::Nowhere {
            self.ahead.note(id);
        }
        is_ready.then(|| self.deliver(Origin::Stream(id), &publication, place, now, outbox))
    }

    /// The id of an entry as clients may be told it.
    fn tellable(&mut self, id: WholeId) -> Option<StreamId> {
        let WholeId {
            millis,
            sequence,
            tag,
        } = id;
        let id: Result<_, UnknownId> = StreamId::new(millis, sequence, tag);
        if id.is_err() {
            self.metrics.entries_invalid += 1;
        }
        id.ok()
    }

    /// Answers a notification whose key was there before.
    fn repeat_entry(&mut self, nonce: Nonce, id: WholeId, outbox: &mut dyn Outbox) {
        let Some(id) = self.tellable(id).map(EntryId::Stream) else {
            return self.settle(nonce, Err(Refusal::Unanswered), outbox);
        };
        self.metrics.notifications_repeated += 1;
        let position = self.journal.locate(id.text().as_str(), outbox.now()).ok();
        let queued = position.map_or(0, |position| self.journal.delivered(position));
        debug!(entry:% = id, delivered = queued; "{id} was to be published again, by its key");
        self.recent.published.push(Notified {
            at: outbox.now(),
            id: Some(id),
            from: None,
            delivered: queued,
            dropped: 0,
            bytes: position.map_or(0, |position| self.journal.notification_len(position)),
            micros: 0,
            is_repeated: true,
            cut_off: Box::default(),
        });
        let receipt = Receipt {
            delivered: Delivered { queued, dropped: 0 },
            id: Some(id),
            is_repeated: true,
        };
        self.settle(nonce, Ok(receipt), outbox);
    }
}

/// What is sent to Redis of a notification.
pub(super) fn append_of<'a>(publication: &'a Publication<'_>) -> Append<'a> {
    Append {
        kind: publication.content.kind,
        notification: publication.content.notification,
        is_kept: publication.is_kept,
        key: publication.key.as_deref(),
    }
}

/// The answer to a request whose notifications Redis hasn't taken, or may not have.
pub(super) fn unavailable_response(refusal: &Refusal, retry_ms: u64) -> Response {
    let body = unavailable(refusal).reply();
    Response::json(Status::SERVICE_UNAVAILABLE, body)
        .with_field("Retry-After", retry_ms.div_ceil(1000).to_string())
}

fn is_ahead<T>(located: Result<T, NotResumed>) -> bool {
    matches!(located, Err(NotResumed::Ahead))
}

#[cfg(test)]
mod tests;
