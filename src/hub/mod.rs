//! The application: what connections subscribed to, and which of them get a notification.
//!
//! Owns the meaning of messages: a command becomes a change of the index, a reply, deliveries,
//! or a Close. Knows no sockets and no frames but the one that it hands to every recipient.
//! Main type: [`Hub`].
//!
//! Invariants: an error changes nothing; permission is asked before a notification is looked
//! into; a connection that is gone is in no table.

pub mod access;
mod admission;
mod ahead;
mod answers;
mod clearances;
pub mod command;
mod connections;
mod explain;
mod figures;
pub mod filter;
pub mod fingerprints;
#[doc(hidden)]
pub mod fuzzing;
mod gap;
pub mod holdings;
pub mod index;
mod mismatch;
mod operators;
mod owed;
mod post;
mod publish;
mod recent;
mod remote;
#[doc(hidden)]
pub mod replay;
mod replays;
mod saved;
mod slot_set;
mod standing;
mod subscribe;

use std::time::Duration;

use log::{debug, log};

use self::access::addresses::Addresses;
use self::access::policy::{Decision, Policy};
use self::ahead::Ahead;
use self::answers::reply_error;
pub use self::answers::word_for;
use self::clearances::Clearances;
use self::command::{Command, ErrorCode};
use self::connections::Connections;
use self::fingerprints::Fingerprinter;
use self::gap::Gap;
use self::holdings::Holdings;
use self::index::SubscriptionIndex;
use self::owed::{Line, OwedAnswers};
use self::recent::Recent;
use self::replay::Slice;
use self::replays::Replays;
use self::slot_set::SlotSet;
use crate::application::{CloseCause, Message, Outbox, Request, WriteBarrier};
use crate::config::{HistoryLimits, HubConfig};
use crate::id::ConnectionId;
use crate::journal::Journal;
use crate::journal::column::Fingerprints;
use crate::journal::segments::Restored;
use crate::journal::write_ahead::WriteAhead;
use crate::log_limit::{ListLog, LogLimit};
use crate::metrics::HubMetrics;
use crate::redis::Redis;
use crate::time::Timestamp;
use crate::ws::close::CloseCode;

impl WriteBarrier for WriteAhead {
    fn is_pending(&self) -> bool {
        self.is_pending()
    }

    fn commit(&self) {
        self.commit();
    }
}

/// What reads secrets again, where they are in force.
type Reload = dyn FnMut(&mut Policy, Option<&mut Redis>);

/// The application behind the shell.
pub struct Hub {
    config: HubConfig,
    ping_interval: Duration,
    policy: Policy,
    reload: Box<Reload>,
    addresses: Addresses,
    connections: Connections,
    /// Where clients need tokens: what they have shown.
    clearances: Clearances,
    index: SubscriptionIndex,
    journal: Journal,
    fingerprinter: Fingerprinter,
    /// Of the notification that is being published; kept so that this doesn't allocate.
    fingerprints: Fingerprints,
    /// The connections whose deliveries are numbered.
    numbered: SlotSet,
    /// Those that are being caught up.
    replays: Replays,
    slice: Slice,
    /// When entries that are too old are looked for.
    expiry_due: Option<Timestamp>,
    /// Kept between notifications so that a fan-out doesn't allocate; empty in between.
    recipients: Vec<ConnectionId>,
    /// Where the order of notifications is kept, if it isn't here.
    redis: Option<Box<Redis>>,
    /// What publishers await, and what waits behind it.
    owed: OwedAnswers,
    /// Lists that show what hasn't been read yet, and how long they wait for it.
    ahead: Ahead,
    ahead_wait: Duration,
    /// What clients are being told of.
    gap: Option<Gap>,
    /// The connections that aren't read, since they wait for something.
    paused: SlotSet,
    metrics: HubMetrics,
    /// For operators who ask.
    recent: Recent,
    list_log: ListLog,
    /// Lines about peers that may not publish.
    forbidden_log: LogLimit,
    /// The same of strangers, who take nothing from the others.
    stranger_log: LogLimit,
    /// Lines about clients that don't get what they have missed.
    resume_log: LogLimit,
    /// Lines about entries of the stream that are no notifications.
    entry_log: LogLimit,
}

impl Hub {
    /// A hub without connections, whose notifications go into `journal`. It tells clients that the shell pings
    /// after a silence of `ping_interval`.
    #[must_use]
    pub fn new(
        config: HubConfig,
        ping_interval: Duration,
        policy: Policy,
        journal: Journal,
    ) -> Self {
        Self {
            addresses: Addresses::new(policy.address_limits, Holdings::share(&config.limits)),
            config,
            ping_interval,
            policy,
            reload: Box::new(|_, _| ()),
            connections: Connections::default(),
            clearances: Clearances::default(),
            index: SubscriptionIndex::default(),
            journal,
            fingerprinter: Fingerprinter::default(),
            fingerprints: Fingerprints::default(),
            numbered: SlotSet::default(),
            replays: Replays::default(),
            slice: Slice::default(),
            expiry_due: None,
            recipients: Vec::new(),
            redis: None,
            owed: OwedAnswers::default(),
            ahead: Ahead::default(),
            ahead_wait: Duration::ZERO,
            gap: None,
            paused: SlotSet::default(),
            metrics: HubMetrics::default(),
            list_log: ListLog::default(),
            forbidden_log: LogLimit::default(),
            stranger_log: LogLimit::default(),
            recent: Recent::default(),
            resume_log: LogLimit::default(),
            entry_log: LogLimit::default(),
        }
    }

    /// Has `reload` read the secrets of the policy and of Redis again whenever that is asked for. What has been
    /// granted by a secret stays when it goes.
    #[must_use]
    pub fn with_reload(
        mut self,
        reload: impl FnMut(&mut Policy, Option<&mut Redis>) + 'static,
    ) -> Self {
        self.reload = Box::new(reload);
        self
    }

    /// Has clients caught up in slices of another size, so that a test needs no long history.
    #[doc(hidden)]
    #[must_use]
    pub const fn with_slices(mut self, slice: Slice) -> Self {
        self.slice = slice;
        self
    }

    /// Goes on with the history that an earlier process has left, which `write_ahead` adds to; `unix_now` is the
    /// time of the wall clock.
    #[must_use]
    pub fn with_history(
        mut self,
        limits: HistoryLimits,
        restored: &Restored,
        write_ahead: WriteAhead,
        unix_now: Duration,
    ) -> Self {
        let fingerprint = |notification: &str, fingerprints: &mut Fingerprints| {
            if let Some(notification) = command::parse_notification(notification) {
                self.fingerprinter.write(&notification, fingerprints);
            }
        };
        self.journal = Journal::restore(limits, restored, write_ahead, unix_now, fingerprint);
        self.schedule_expiry(Timestamp::ZERO);
        self
    }

    /// Has the order of notifications, and their ids, kept in `redis`; the journal is [`Journal::of_stream`].
    #[must_use]
    pub fn with_redis(mut self, redis: Redis) -> Self {
        self.ahead_wait = redis.timeout();
        self.redis = Some(Box::new(redis));
        self
    }

    /// Where the order of notifications is kept, if it isn't here.
    #[must_use]
    pub fn redis(&self) -> Option<&Redis> {
        self.redis.as_deref()
    }

    /// The same, to be changed.
    pub fn redis_mut(&mut self) -> Option<&mut Redis> {
        self.redis.as_deref_mut()
    }

    /// Notes that the history isn't kept beside memory, though it should be.
    #[must_use]
    pub const fn without_directory(mut self) -> Self {
        self.metrics.history_write_errors += 1;
        self
    }

    /// What has to be written before anything is sent.
    #[must_use]
    pub fn write_barrier(&self) -> Option<Box<dyn WriteBarrier>> {
        let write_ahead = self.journal.write_ahead()?.clone();
        Some(Box::new(write_ahead))
    }

    /// What was published lately.
    #[must_use]
    pub const fn journal(&self) -> &Journal {
        &self.journal
    }

    /// What connections subscribed to.
    #[must_use]
    pub const fn index(&self) -> &SubscriptionIndex {
        &self.index
    }

    /// What has been counted so far.
    #[must_use]
    pub const fn metrics(&self) -> &HubMetrics {
        &self.metrics
    }

    /// Bytes that the hub has asked of the heap.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.connections.heap_bytes()
            + self.clearances.heap_bytes()
            + self.index.heap_bytes()
            + self.list_log.heap_bytes()
            + self.numbered.heap_bytes()
            + self.owed.heap_bytes()
            + self.ahead.heap_bytes()
            + self.paused.heap_bytes()
            + self.recent.heap_bytes()
            + self.recipients.capacity() * size_of::<ConnectionId>()
    }

    /// Asserts what must hold between two calls.
    pub fn check_invariants(&self) {
        self.index.check_invariants();
        self.addresses.check_invariants();
        self.connections.check_invariants();
        let is_connected = |id| self.connections.find(id).is_some();
        self.clearances.check_invariants(is_connected);
        let connected = self.connections.len();
        assert!(self.index.connection_count() + self.replays.len() <= connected);
        self.numbered.check_invariants(connected);
        self.journal.check_invariants();
        self.replays.check_invariants(|id| {
            is_connected(id) && self.numbered.contains(id) && self.index.subscriptions_of(id) == 0
        });
        let holds_list = |id| self.replays.holds_list(id);
        self.owed.check_invariants(is_connected, holds_list);
        self.ahead
            .check_invariants(|id| self.owed.line(id).and_then(Line::awaits));
        self.paused.check_invariants(connected);
        if let Some(redis) = &self.redis {
            redis.check_invariants();
        }
    }

    fn handle_text(&mut self, id: ConnectionId, text: &str, outbox: &mut dyn Outbox) {
        if !self.owed.is_empty() && self.owed.line(id).is_some() {
            return self.handle_behind(id, text, outbox);
        }
        self.handle_now(id, text, true, outbox);
    }

    /// Handles a message to whose connection nothing is owed that comes ahead of it. A list `may_wait` for the id that it
    /// shows.
    fn handle_now(
        &mut self,
        id: ConnectionId,
        text: &str,
        may_wait: bool,
        outbox: &mut dyn Outbox,
    ) {
        // Apps send it so often, and always like this, that it is worth a look.
        if text == command::PING {
            return self.answer_ping(id, outbox);
        }
        match command::parse(text, &self.config.limits) {
            Ok(Command::Subscribe { since: None, .. }) if self.replays.contains(id) => {
                self.hold(id, text, outbox);
            }
            Ok(Command::Subscribe {
                since: Some(since), ..
            }) if may_wait && self.awaits(id, text, &since, outbox) => {}
            Ok(Command::Subscribe {
                subscriptions,
                token,
                since,
            }) => self.subscribe(
                id,
                &subscriptions,
                token.as_deref(),
                since.as_deref(),
                outbox,
            ),
            Ok(Command::Ping) => self.answer_ping(id, outbox),
            Ok(Command::Publish(publish)) => self.handle_publish(id, &publish, outbox),
            Err(error) => {
                self.note_bad_message(id, &error, outbox.now());
                reply_error(id, &error, outbox);
            }
        }
    }

    fn answer_ping(&self, id: ConnectionId, outbox: &mut dyn Outbox) {
        if self.numbered.is_empty() || !self.numbered.contains(id) {
            return outbox.reply(id, command::PONG_REPLY);
        }
        let cursor = self.replays.get(id);
        let position = cursor.map_or_else(|| self.journal.head(), |cursor| cursor.position);
        outbox.reply(id, &command::numbered_pong_reply(self.journal.id(position)));
    }

    /// What the list of a connection amounts to.
    fn holdings_of(&self, id: ConnectionId) -> Holdings {
        let being_caught_up = self.replays.holdings_of(id);
        being_caught_up.unwrap_or_else(|| self.index.holdings_of(id))
    }

    /// Takes a message of an admitted connection.
    pub fn handle_message(
        &mut self,
        id: ConnectionId,
        message: Message<'_>,
        outbox: &mut dyn Outbox,
    ) {
        match message {
            Message::Text(text) => self.handle_text(id, text, outbox),
            Message::Binary(_) => {
                self.close(id, CloseCode::UNSUPPORTED_DATA, "binary-message", outbox);
            }
        }
    }

    /// The deadline of an admission has come.
    pub fn handle_deadline(&mut self, id: ConnectionId, outbox: &mut dyn Outbox) {
        let Some(reason) = self.clearances.reason_to_close(id, outbox.now()) else {
            let level = self.forbidden_log.level(outbox.now());
            let forbidden = ErrorCode::Forbidden.as_str();
            log!(
                level, connection:% = id, reason = forbidden;
                "{id} is closed: it has not shown that it may publish"
            );
            return self.close(id, CloseCode::POLICY_VIOLATION, forbidden, outbox);
        };
        self.metrics.tokens_refused += 1;
        self.close(id, CloseCode::UNAUTHORIZED, reason, outbox);
    }

    /// What the policy says about a request.
    #[must_use]
    pub fn evaluate(&self, request: &Request<'_>) -> Decision {
        self.policy.evaluate(request)
    }

    /// Reads again what can be read again.
    pub fn reload(&mut self) {
        let old = self.policy.publish_tokens.clone();
        (self.reload)(&mut self.policy, self.redis.as_deref_mut());
        if let (Some(tokens), Some(old)) = (&mut self.policy.publish_tokens, &old) {
            tokens.succeed(old);
        }
    }

    /// An admitted connection is no longer open.
    pub fn handle_gone(&mut self, id: ConnectionId) {
        if let Some((rights, peer)) = self.connections.remove(id) {
            self.uncount(id, rights.publish, peer);
            self.index.remove(id);
            self.replays.remove(id);
            self.numbered.remove(id);
            self.forget_owed(id);
            self.paused.remove(id);
            self.list_log.forget(id);
            self.clearances.remove(id);
            if self.recipients.capacity() > 4 * self.index.connection_count() {
                self.recipients.shrink_to_fit();
            }
            debug!(connection:% = id; "{id} is gone");
        }
    }

    /// The reason of a Close frame that the shell starts.
    #[must_use]
    pub fn close_reason(&self, cause: CloseCause, retry_ms: u64) -> String {
        command::close_reason(word_for(cause), retry_ms)
    }
}

#[cfg(test)]
mod tests;
