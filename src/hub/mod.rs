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
mod answers;
mod clearances;
pub mod command;
mod connections;
mod figures;
pub mod filter;
#[doc(hidden)]
pub mod fuzzing;
pub mod holdings;
pub mod index;
mod post;
mod publish;
mod subscribe;

use std::time::Duration;

use log::{debug, log};

use self::access::addresses::Addresses;
use self::access::policy::{Decision, Policy};
use self::answers::{close, reply_error, word_for};
use self::clearances::Clearances;
use self::command::{Command, ErrorCode};
use self::connections::Connections;
use self::holdings::Holdings;
use self::index::SubscriptionIndex;
use crate::application::{CloseCause, Message, Outbox, Request};
use crate::config::HubConfig;
use crate::id::ConnectionId;
use crate::log_limit::{ListLog, LogLimit};
use crate::metrics::HubMetrics;
use crate::ws::close::CloseCode;

/// The application behind the shell.
pub struct Hub {
    config: HubConfig,
    ping_interval: Duration,
    policy: Policy,
    reload: Box<dyn FnMut(&mut Policy)>,
    addresses: Addresses,
    connections: Connections,
    /// Where clients need tokens: what they have shown.
    clearances: Clearances,
    index: SubscriptionIndex,
    /// Kept between notifications so that a fan-out doesn't allocate; empty in between.
    recipients: Vec<ConnectionId>,
    metrics: HubMetrics,
    list_log: ListLog,
    /// Lines about peers that may not publish.
    forbidden_log: LogLimit,
}

impl Hub {
    /// A hub without connections. It tells clients that the shell pings after a silence of
    /// `ping_interval`.
    #[must_use]
    pub fn new(config: HubConfig, ping_interval: Duration, policy: Policy) -> Self {
        Self {
            addresses: Addresses::new(policy.address_limits, Holdings::share(&config.limits)),
            config,
            ping_interval,
            policy,
            reload: Box::new(|_| ()),
            connections: Connections::default(),
            clearances: Clearances::default(),
            index: SubscriptionIndex::default(),
            recipients: Vec::new(),
            metrics: HubMetrics::default(),
            list_log: ListLog::default(),
            forbidden_log: LogLimit::default(),
        }
    }

    /// Has `reload` read the secrets of the policy again whenever that is asked for. What has been
    /// granted by a secret stays when it goes.
    #[must_use]
    pub fn with_reload(mut self, reload: impl FnMut(&mut Policy) + 'static) -> Self {
        self.reload = Box::new(reload);
        self
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
            + self.recipients.capacity() * size_of::<ConnectionId>()
    }

    /// Asserts what must hold between two calls.
    pub fn check_invariants(&self) {
        self.index.check_invariants();
        self.addresses.check_invariants();
        self.connections.check_invariants();
        let is_connected = |id| self.connections.find(id).is_some();
        self.clearances.check_invariants(is_connected);
        assert!(self.index.connection_count() <= self.connections.len());
    }

    fn handle_text(&mut self, id: ConnectionId, text: &str, outbox: &mut dyn Outbox) {
        // Apps send it so often, and always like this, that it is worth a look.
        if text == command::PING {
            return outbox.reply(id, command::PONG_REPLY);
        }
        match command::parse(text, &self.config.limits) {
            Ok(Command::Subscribe {
                subscriptions,
                token,
            }) => self.subscribe(id, &subscriptions, token.as_deref(), outbox),
            Ok(Command::Ping) => outbox.reply(id, command::PONG_REPLY),
            Ok(Command::Publish(publish)) => self.handle_publish(id, &publish, outbox),
            Err(error) => reply_error(id, &error, outbox),
        }
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
            Message::Binary(_) => close(id, CloseCode::UNSUPPORTED_DATA, "binary-message", outbox),
        }
    }

    /// The deadline of an admission has come.
    pub fn handle_deadline(&mut self, id: ConnectionId, outbox: &mut dyn Outbox) {
        let Some(reason) = self.clearances.reason_to_close(id, outbox.now()) else {
            let level = self.forbidden_log.level(outbox.now());
            log!(level, connection:% = id; "{id} is closed: it has not shown that it may publish");
            let forbidden = ErrorCode::Forbidden.as_str();
            return close(id, CloseCode::POLICY_VIOLATION, forbidden, outbox);
        };
        self.metrics.tokens_refused += 1;
        close(id, CloseCode::UNAUTHORIZED, reason, outbox);
    }

    /// What the policy says about a request.
    #[must_use]
    pub fn evaluate(&self, request: &Request<'_>) -> Decision {
        self.policy.evaluate(request)
    }

    /// Reads again what can be read again.
    pub fn reload(&mut self) {
        (self.reload)(&mut self.policy);
    }

    /// An admitted connection is no longer open.
    pub fn handle_gone(&mut self, id: ConnectionId) {
        if let Some((rights, peer)) = self.connections.remove(id) {
            self.uncount(id, rights.publish, peer);
            self.index.remove(id);
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
