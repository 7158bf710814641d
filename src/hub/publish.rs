//! Publishing: permission first, then the content, then the log, then a frame for every recipient.

use std::time::Duration;

use log::{info, log};

use super::Hub;
use super::access::policy::PublishRight;
use super::answers::{PUBLISHER_TOKEN_NEEDED, unavailable, word_for};
use super::command::{CommandError, ErrorCode, Publication, Publish, Receipt};
use super::owed::Owed;
use super::post::MAY_NOT_PUBLISH;
use super::recent::{CUT_OFF_MAX, Notified, Tenant};
use super::remote::append_of;
use crate::application::{Admission, CloseCause, Delivered, Deliveries, Outbox};
use crate::count::Count;
use crate::id::ConnectionId;
use crate::journal::entry::{Content, Encoding};
use crate::journal::id::{EntryId, Position, StreamId};
use crate::time::Timestamp;

/// Where a notification is in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// It is for those who are there now.
    Nowhere,
    /// At this position.
    At(Position),
    /// Another with its key is, at this position: it isn't published again.
    Repeated(Position),
}

/// Where a notification that is delivered comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    /// It was published here.
    Connection(ConnectionId),
    /// It was read of the stream, wherever it was published.
    Stream(StreamId),
}

impl Origin {
    const fn connection(self) -> Option<ConnectionId> {
        match self {
            Self::Connection(id) => Some(id),
            Self::Stream(_) => None,
        }
    }
}

/// What becomes of a notification that may be published.
enum Published {
    /// It is.
    Now(Receipt),
    /// It is on its way; its publisher is told when it is.
    Later,
}

impl Hub {
    /// Takes a notification that came over a connection, and answers, or notes that an answer is owed.
    pub(super) fn handle_publish(
        &mut self,
        id: ConnectionId,
        publish: &Publish<'_>,
        outbox: &mut dyn Outbox,
    ) {
        let Some((rights, peer)) = self.connections.find(id) else {
            debug_assert!(false, "messages come from admitted connections");
            return;
        };
        let may_publish = match rights.publish {
            PublishRight::Granted => true,
            PublishRight::WithToken => self.admit_publisher(id, publish, outbox),
            PublishRight::Never => false,
        };
        if !may_publish {
            let detail = match rights.publish {
                PublishRight::WithToken => PUBLISHER_TOKEN_NEEDED,
                _ => MAY_NOT_PUBLISH,
            };
            let error = CommandError::new(ErrorCode::Forbidden, detail);
            let token = publish.token.as_deref().unwrap_or_default();
            let is_own = rights.is_own || self.policy.has_accepted(token.as_bytes());
            let level = self.count_forbidden(is_own, outbox.now());
            log!(
                level, connection:% = id, peer:% = peer, reason = detail;
                "{id} from {peer} may not publish"
            );
            self.note_refusal_as(is_own, id, &error, outbox.now());
            return self.refuse(id, &error, outbox);
        }
        let outcome = match self.publish(id, rights.stays, publish, outbox) {
            Ok(Published::Now(receipt)) => Ok(receipt),
            Ok(Published::Later) if rights.stays => return self.settle_input(id, outbox),
            Ok(Published::Later) => return self.await_last_receipt(id, outbox),
            Err(error) if rights.stays && self.owed.line(id).is_some() => {
                self.note_refusal(id, &error, outbox.now());
                return self.owe(id, Owed::Error(error), outbox);
            }
            Err(error) => Err(error),
        };
        self.answer_publisher(id, rights.stays, outcome, outbox);
    }

    /// A connection that is closed when it has its receipt awaits that: a stop of the server doesn't come ahead of it.
    fn await_last_receipt(&mut self, id: ConnectionId, outbox: &mut dyn Outbox) {
        if let Some((rights, _)) = self.connections.find(id) {
            let admission = self.admission(rights, self.clearances.expiry(id));
            outbox.readmit(
                id,
                &Admission {
                    closes_last: true,
                    ..admission
                },
            );
        }
        self.settle_input(id, outbox);
    }

    /// Lets a connection publish that has put a publisher's token beside its notification.
    fn admit_publisher(
        &mut self,
        id: ConnectionId,
        publish: &Publish<'_>,
        outbox: &mut dyn Outbox,
    ) -> bool {
        let token = publish.token.as_deref();
        if !token.is_some_and(|token| self.policy.accepts_publish_token(token)) {
            return false;
        }
        if let Some((rights, peer)) = self.connections.find(id) {
            self.uncount(id, rights.publish, peer);
        }
        self.connections.grant_publish(id);
        if let Some((rights, _)) = self.connections.find(id) {
            // It need not show a client's token any more; one that it has shown expires as before.
            let deadline = self.clearances.expiry(id);
            outbox.readmit(id, &self.admission(rights, deadline));
        }
        true
    }

    fn publish(
        &mut self,
        id: ConnectionId,
        stays: bool,
        publish: &Publish<'_>,
        outbox: &mut dyn Outbox,
    ) -> Result<Published, CommandError> {
        let publication = publish.read(self.journal.is_on()).inspect_err(|_| {
            self.metrics.notifications_invalid += 1;
        })?;
        let (start, now) = (self.journal.head(), outbox.now());
        if self.redis.is_some() {
            let nonces = self.append(&[append_of(&publication)], now);
            let nonces = nonces.map_err(|refusal| unavailable(&refusal))?;
            self.owed.expect_receipt(id, &nonces, !stays);
            return Ok(Published::Later);
        }
        let place = self.enter(&publication, now);
        self.journal.seal(start, outbox);
        let origin = Origin::Connection(id);
        let receipt = self.deliver(origin, &publication, place, now, outbox);
        Ok(Published::Now(receipt))
    }

    /// Appends a notification to the log, if it is to be kept and wasn't before.
    pub(super) fn enter(&mut self, publication: &Publication<'_>, now: Timestamp) -> Place {
        if !publication.is_kept {
            return Place::Nowhere;
        }
        let key = publication.key.as_deref();
        if let Some(first) = key.and_then(|key| self.journal.find_key(key)) {
            return Place::Repeated(first);
        }
        let encoding = self.prepare(publication);
        let content = publication.content;
        let position = self
            .journal
            .push(content, encoding, key, &self.fingerprints, now);
        self.schedule_expiry(now);
        Place::At(position)
    }

    /// The same with what was read of the stream, where it has this id, and is so old.
    pub(super) fn enter_read(
        &mut self,
        publication: &Publication<'_>,
        id: StreamId,
        now: Timestamp,
        age: Duration,
    ) -> Place {
        if !publication.is_kept {
            return Place::Nowhere;
        }
        let encoding = self.prepare(publication);
        let micros = |micros: u128| i64::try_from(micros).unwrap_or(i64::MAX);
        let published = micros(now.as_micros().into()) - micros(age.as_micros());
        let position = self.journal.push_read(
            id,
            publication.content,
            encoding,
            publication.key.as_deref(),
            &self.fingerprints,
            published,
        );
        self.schedule_expiry(now);
        Place::At(position)
    }

    /// Makes what a notification is found by, and says in which encoding it is kept: most likely the one that is needed
    /// first; the other is made when somebody needs it.
    fn prepare(&mut self, publication: &Publication<'_>) -> Encoding {
        self.fingerprints.clear();
        self.fingerprinter
            .write(&publication.notification, &mut self.fingerprints);
        match self.numbered.is_empty() {
            true => Encoding::Plain,
            false => Encoding::Numbered,
        }
    }

    /// Hands a notification to every connection that subscribed to it, from `start` on.
    pub(super) fn deliver(
        &mut self,
        origin: Origin,
        publication: &Publication<'_>,
        place: Place,
        start: Timestamp,
        deliveries: &mut dyn Deliveries,
    ) -> Receipt {
        let position = match place {
            Place::Repeated(first) => return self.repeat(origin, first, start),
            Place::At(position) => Some(position),
            Place::Nowhere => None,
        };
        self.recipients.clear();
        self.index
            .collect_recipients(&publication.notification, &mut self.recipients);
        let matched = deliveries.now();
        let delivered = self.fan_out(publication.content, position, deliveries);
        let end = match self.recipients.is_empty() {
            true => matched,
            false => deliveries.now(),
        };
        let micros = |time: Duration| time.as_micros() as u64;
        self.metrics.notifications_delivered += 1;
        self.metrics
            .recipients
            .observe(self.recipients.len() as u64);
        self.metrics.match_micros.observe(micros(matched - start));
        self.metrics.fan_out_micros.observe(micros(end - matched));
        if let (Some(position), Some(_)) = (position, &publication.key) {
            self.journal.note_delivered(position, delivered.queued);
        }
        let micros = micros(end - start);
        let Delivered { queued, dropped } = delivered;
        let id = position.map(|position| self.journal.entry_id(position));
        let cut_off = match dropped {
            0 => Box::default(),
            _ => self.note_cut_off(end, deliveries),
        };
        self.recent.published.push(Notified {
            at: end,
            id,
            from: origin.connection(),
            delivered: queued,
            dropped,
            bytes: publication.content.notification.len(),
            micros,
            is_repeated: false,
            cut_off,
        });
        let connections = Count(queued as u64, "connection");
        match origin {
            Origin::Connection(id) => {
                info!(
                    connection:% = id, delivered = queued, dropped, micros;
                    "{id} published to {connections}, {dropped} dropped, in {micros} us"
                );
            }
            Origin::Stream(id) => {
                let id = EntryId::Stream(id);
                info!(
                    entry:% = id, delivered = queued, dropped, micros;
                    "{id} went to {connections}, {dropped} dropped, in {micros} us"
                );
            }
        }
        Receipt {
            delivered,
            id,
            is_repeated: false,
        }
    }

    /// Notes which of the recipients didn't take a notification, and are about to be cut off; names some.
    fn note_cut_off(&mut self, now: Timestamp, deliveries: &mut dyn Deliveries) -> Box<[Tenant]> {
        let mut named = Vec::new();
        let recipients = std::mem::take(&mut self.recipients);
        for &id in &recipients {
            if deliveries.is_cut_off(id) && !self.connections.is_ended(id) {
                if named.len() < CUT_OFF_MAX {
                    named.extend(self.tenant(id));
                }
                self.note_end(id, Some(word_for(CloseCause::SlowConsumer)), now);
            }
        }
        self.recipients = recipients;
        named.into_boxed_slice()
    }

    /// Hands what is at `position` in the log to the recipients that were found, each in the encoding that it
    /// wants. What isn't in the log has no id.
    fn fan_out(
        &mut self,
        content: Content<'_>,
        position: Option<Position>,
        deliveries: &mut dyn Deliveries,
    ) -> Delivered {
        let mut numbered_len = 0;
        if position.is_some() && !self.numbered.is_empty() {
            numbered_len = self.numbered.partition(&mut self.recipients);
        }
        let (numbered, plain) = self.recipients.split_at(numbered_len);
        let mut delivered = Delivered::default();
        for (recipients, encoding) in [(numbered, Encoding::Numbered), (plain, Encoding::Plain)] {
            if recipients.is_empty() {
                continue;
            }
            let frame = position.and_then(|position| self.journal.frame(position, encoding));
            // It isn't in the history, or was too long for it.
            let frame = frame.unwrap_or_else(|| match (encoding, position) {
                (Encoding::Numbered, Some(position)) => {
                    content.numbered(self.journal.entry_id(position))
                }
                _ => content.plain(),
            });
            let Delivered { queued, dropped } = deliveries.deliver(&frame, recipients);
            delivered.queued += queued;
            delivered.dropped += dropped;
        }
        delivered
    }

    /// The answer to a notification whose key was there before.
    fn repeat(&mut self, origin: Origin, first: Position, now: Timestamp) -> Receipt {
        self.metrics.notifications_repeated += 1;
        let queued = self.journal.delivered(first);
        // By the stream nothing comes again.
        if let Origin::Connection(id) = origin {
            info!(
                connection:% = id, delivered = queued;
                "{id} published again what was published before, by its key"
            );
        }
        let id = Some(self.journal.entry_id(first));
        self.recent.published.push(Notified {
            at: now,
            id,
            from: origin.connection(),
            delivered: queued,
            dropped: 0,
            bytes: self.journal.notification_len(first),
            micros: 0,
            is_repeated: true,
            cut_off: Box::default(),
        });
        Receipt {
            delivered: Delivered { queued, dropped: 0 },
            id,
            is_repeated: true,
        }
    }
}
