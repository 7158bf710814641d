//! The application: who subscribed to what, and who gets a notification.
//!
//! Owns the meaning of messages: a command becomes a change of the index, a reply, deliveries,
//! or a Close. Knows no sockets and no frames but the one that it hands to every recipient.
//! Main type: [`Hub`].
//!
//! Invariants: an error changes nothing; permission is asked before a notification is looked
//! into; whoever is gone is in no table.

pub mod access;
pub mod command;
mod connections;
pub mod filter;
#[doc(hidden)]
pub mod fuzzing;
pub mod holdings;
pub mod index;
mod post;
mod probes;
mod subscribe;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::Duration;

use log::{debug, info, log};

use self::access::addresses::{Addresses, Refused};
use self::access::jwt::TokenError;
use self::access::policy::{Policy, PublishRight, shown_token};
use self::command::{Command, CommandError, ErrorCode, Publication, Publish};
use self::connections::{CompactAddress, Connections, Rights};
use self::filter::Subscription;
use self::holdings::Holdings;
use self::index::SubscriptionIndex;
use crate::application::{
    Admission, Application, BodyPermit, CloseCause, Delivered, Figures, Framing, Lane, Message,
    Outbox, Peer, PeerAddress, Request, Response, Status,
};
use crate::config::HubConfig;
use crate::id::ConnectionId;
use crate::log_limit::{ListLog, LogLimit};
use crate::metrics::HubMetrics;
use crate::time::Timestamp;
use crate::ws::close::CloseCode;

/// The path whose connections stay when they have published.
const PUBLISH_PATH: &str = "/publish";

/// The table of clearances is made smaller when it has this many times more room than entries.
const SPARSE_FACTOR: usize = 4;

/// The application behind the shell.
pub struct Hub {
    config: HubConfig,
    policy: Policy,
    reload: Box<dyn FnMut(&mut Policy)>,
    addresses: Addresses,
    connections: Connections,
    /// Where clients need tokens: what they have shown.
    clearances: HashMap<ConnectionId, Clearance>,
    /// Keyed, so that nobody makes a token with the hash of another.
    token_hasher: RandomState,
    index: SubscriptionIndex,
    /// Kept between notifications so that a fan-out doesn't allocate; empty in between.
    recipients: Vec<ConnectionId>,
    metrics: HubMetrics,
    list_log: ListLog,
    /// Lines about peers that may not publish.
    forbidden_log: LogLimit,
    /// Lines about clients without a good token.
    token_log: LogLimit,
}

/// What a client has shown that needs a token.
enum Clearance {
    /// Nothing yet.
    Awaited,
    /// What it takes.
    Granted {
        /// What may be subscribed to.
        allowed: Vec<Subscription<'static>>,
        /// When the token expires.
        until: Timestamp,
        /// The token's hash, by which it is known again.
        shown: u64,
    },
    /// A bad token with its upgrade.
    Refused(TokenError),
}

impl Hub {
    /// A hub without connections.
    #[must_use]
    pub fn new(config: HubConfig, policy: Policy) -> Self {
        Self {
            addresses: Addresses::new(policy.address_limits, Holdings::share(&config.limits)),
            config,
            policy,
            reload: Box::new(|_| ()),
            connections: Connections::default(),
            clearances: HashMap::new(),
            token_hasher: RandomState::new(),
            index: SubscriptionIndex::default(),
            recipients: Vec::new(),
            metrics: HubMetrics::default(),
            list_log: ListLog::default(),
            forbidden_log: LogLimit::default(),
            token_log: LogLimit::default(),
        }
    }

    /// Has `reload` read the secrets of the policy again whenever that is asked for. What has been
    /// granted by a secret stays when it goes.
    #[must_use]
    pub fn with_reload(mut self, reload: impl FnMut(&mut Policy) + 'static) -> Self {
        self.reload = Box::new(reload);
        self
    }

    /// Who subscribed to what.
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
            + self.index.heap_bytes()
            + self.list_log.heap_bytes()
            + self.recipients.capacity() * size_of::<ConnectionId>()
    }

    /// Whether a request, which speaks for `peer`, is neither this host's own nor a trusted proxy's own.
    fn is_stranger(&self, request: &Request<'_>, peer: Peer) -> bool {
        let is_proxy = |ip| self.policy.proxies.trusts(ip);
        let speaks_for_itself = peer == request.peer && peer.address.ip().is_some_and(is_proxy);
        !speaks_for_itself && !access::is_local(request)
    }

    /// What a connection may have that may publish, or not.
    const fn admission(&self, rights: Rights, deadline: Option<Timestamp>) -> Admission {
        let Rights { publish, stays } = rights;
        Admission {
            message_bytes_max: self.message_bytes_max(publish),
            on_behalf_of: None,
            is_limited: !matches!(publish, PublishRight::Granted),
            // It may be a notification with its token.
            is_heard_out: matches!(publish, PublishRight::WithToken),
            closes_last: stays && matches!(publish, PublishRight::Granted),
            deadline,
        }
    }

    /// Bytes of a message from a connection that may publish, or not.
    const fn message_bytes_max(&self, publish: PublishRight) -> usize {
        let limits = &self.config.limits;
        match publish {
            PublishRight::Granted => limits.publish_bytes_max,
            PublishRight::WithToken | PublishRight::Never => limits.message_bytes_max,
        }
    }

    /// The address whose share a connection counts against. Publishers count against none.
    fn counted_address(&self, publish: PublishRight, address: PeerAddress) -> Option<IpAddr> {
        let counted = self.policy.counted_as(address);
        counted.filter(|_| publish != PublishRight::Granted)
    }

    /// A connection counts against no share any more.
    fn uncount(&mut self, id: ConnectionId, publish: PublishRight, peer: CompactAddress) {
        if let Some(address) = self.counted_address(publish, peer.into()) {
            let held = self.index.holdings_of(id);
            self.addresses.exchange(address, held, Holdings::default());
            self.addresses.leave(address);
        }
    }

    fn count_address(
        &mut self,
        counted: IpAddr,
        address: PeerAddress,
        now: Timestamp,
    ) -> Result<(), Refused> {
        self.addresses.admit(counted, now).inspect_err(|refused| {
            debug!(peer:% = address, reason:% = refused; "{address} is refused: {refused}");
        })
    }

    /// What becomes of a client's connection that has to show a token: when it has to have
    /// shown one, or when the one that it has shown expires. A bad one is told by a Close, which
    /// browsers show to the page, and the status of an upgrade they don't.
    fn await_token(
        &mut self,
        id: ConnectionId,
        request: &Request<'_>,
        publish: PublishRight,
    ) -> Option<Timestamp> {
        let keys = self.policy.client_keys.as_ref()?;
        let shown = shown_token(request.head).map(String::from_utf8_lossy);
        // Where publishers have tokens, the one in the same place is theirs.
        let shown = shown.filter(|token| !self.policy.accepts_publish_token(token));
        let (clearance, deadline) = match shown {
            // A publisher needs none.
            None if publish == PublishRight::Granted => return None,
            None => (Clearance::Awaited, request.now + self.config.token_timeout),
            Some(token) => match keys.verify(&token, request.unix_now, &self.config.limits) {
                Ok(grant) => {
                    let until = request.now + grant.time_left(request.unix_now);
                    let granted = Clearance::Granted {
                        allowed: grant.allow,
                        until,
                        shown: self.token_hasher.hash_one(&*token),
                    };
                    (granted, until)
                }
                Err(error) => {
                    let level = self.token_log.level(request.now);
                    log!(level, connection:% = id, reason:% = error; "{id}: {error}");
                    (Clearance::Refused(error), request.now)
                }
            },
        };
        self.clearances.insert(id, clearance);
        Some(deadline)
    }

    fn handle_text(&mut self, id: ConnectionId, text: &str, outbox: &mut dyn Outbox) {
        // Apps send it so often, and always like this, that it is worth a look.
        if text == command::PING {
            return outbox.reply(command::PONG_REPLY);
        }
        match command::parse(text, &self.config.limits) {
            Ok(Command::Subscribe {
                subscriptions,
                token,
            }) => self.subscribe(id, &subscriptions, token.as_deref(), outbox),
            Ok(Command::Ping) => outbox.reply(command::PONG_REPLY),
            Ok(Command::Publish(publish)) => self.handle_publish(id, &publish, outbox),
            Err(error) => reply_error(id, &error, outbox),
        }
    }

    fn handle_publish(&mut self, id: ConnectionId, publish: &Publish<'_>, outbox: &mut dyn Outbox) {
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
            self.metrics.notifications_forbidden += 1;
            let level = self.forbidden_log.level(outbox.now());
            log!(level, connection:% = id, peer:% = peer; "{id} from {peer} may not publish");
            let detail = match rights.publish {
                PublishRight::WithToken => "this takes a publisher's token",
                _ => "this connection may not publish",
            };
            let error = CommandError::new(ErrorCode::Forbidden, detail);
            return refuse(id, &error, outbox);
        }
        match self.publish(id, publish, outbox) {
            Ok(delivered) if rights.stays => outbox.reply(&command::published_reply(delivered)),
            Ok(delivered) => {
                outbox.close(CloseCode::NORMAL, &command::published_reason(delivered));
            }
            Err(error) if rights.stays => reply_error(id, &error, outbox),
            Err(error) => refuse(id, &error, outbox),
        }
    }

    /// Makes a publisher of whoever has put a publisher's token beside its notification.
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
        // It need not show a client's token any more; one that it has shown expires as before.
        let deadline = match self.clearances.get(&id) {
            Some(Clearance::Granted { until, .. }) => Some(*until),
            _ => None,
        };
        if let Some((rights, _)) = self.connections.find(id) {
            outbox.readmit(self.admission(rights, deadline));
        }
        true
    }

    fn publish(
        &mut self,
        id: ConnectionId,
        publish: &Publish<'_>,
        outbox: &mut dyn Outbox,
    ) -> Result<Delivered, CommandError> {
        let publication = publish.read().inspect_err(|_| {
            self.metrics.notifications_invalid += 1;
        })?;
        Ok(self.deliver(id, &publication, outbox))
    }

    fn deliver(
        &mut self,
        id: ConnectionId,
        publication: &Publication<'_>,
        outbox: &mut dyn Outbox,
    ) -> Delivered {
        let start = outbox.now();
        self.recipients.clear();
        self.index
            .collect_recipients(&publication.notification, &mut self.recipients);
        let matched = outbox.now();
        let delivered = if self.recipients.is_empty() {
            Delivered::default()
        } else {
            outbox.deliver(&publication.frame(), &self.recipients)
        };
        let end = outbox.now();
        let micros = |time: Duration| time.as_micros() as u64;
        self.metrics.notifications_delivered += 1;
        self.metrics
            .recipients
            .observe(self.recipients.len() as u64);
        self.metrics.match_micros.observe(micros(matched - start));
        self.metrics.fan_out_micros.observe(micros(end - matched));
        let micros = micros(end - start);
        let Delivered { queued, dropped } = delivered;
        info!(connection:% = id; "{id} published to {queued} connections, {dropped} dropped, in {micros} us");
        delivered
    }
}

/// Why a connection is closed that has not shown a token.
const TOKEN_MISSING: &str = "token-missing";

/// Why one is closed that has shown a bad one.
const fn reason_of(error: TokenError) -> &'static str {
    match error {
        TokenError::Expired => TOKEN_EXPIRED,
        _ => "token-invalid",
    }
}

const TOKEN_EXPIRED: &str = "token-expired";

/// Answers a message that can't be followed.
fn reply_error(id: ConnectionId, error: &CommandError, outbox: &mut dyn Outbox) {
    debug!(connection:% = id; "{id} gets error {}", error.code.as_str());
    outbox.reply(&error.reply());
}

/// Answers a message that can't be followed, and is the last of its connection.
fn refuse(id: ConnectionId, error: &CommandError, outbox: &mut dyn Outbox) {
    reply_error(id, error, outbox);
    close(CloseCode::POLICY_VIOLATION, error.code.as_str(), outbox);
}

/// Closes with the reason that every Close has but the one after a notification.
fn close(code: CloseCode, reason: &'static str, outbox: &mut dyn Outbox) {
    let retry_ms = outbox.retry_ms();
    outbox.close(code, &command::close_reason(reason, retry_ms));
}

impl Application for Hub {
    fn handle_upgrade(
        &mut self,
        id: ConnectionId,
        request: &Request<'_>,
    ) -> Result<Admission, Response> {
        let publish = self.policy.publish_right(request);
        if !self.policy.lets_in(request, publish) {
            return Err(Response::new(
                Status::FORBIDDEN,
                "this origin is not let in",
            ));
        }
        let peer = self.policy.speaks_for(request);
        if let Some(counted) = self.counted_address(publish, peer.address) {
            self.count_address(counted, peer.address, request.now)
                .map_err(post::too_many)?;
        }
        let rights = Rights {
            publish,
            stays: request.head.path() == PUBLISH_PATH,
        };
        self.connections.insert(id, peer, rights);
        debug!(connection:% = id, peer:% = peer; "{id} is {peer}, {rights:?}");
        let deadline = match (peer.lane, publish) {
            (Lane::Clients, _) | (_, PublishRight::Granted) => {
                self.await_token(id, request, publish)
            }
            // Whoever shows nothing must not keep publishers out of their own lane.
            (Lane::Publishers, _) => Some(request.now + self.config.token_timeout),
        };
        let admission = self.admission(rights, deadline);
        Ok(Admission {
            on_behalf_of: (peer != request.peer).then_some(peer.address),
            is_limited: publish != PublishRight::Granted && self.is_stranger(request, peer),
            ..admission
        })
    }

    fn is_limited(&self, request: &Request<'_>) -> bool {
        let peer = self.policy.speaks_for(request);
        self.is_stranger(request, peer)
            && self.policy.publish_right(request) != PublishRight::Granted
    }

    fn is_urgent(&self, request: &Request<'_>) -> bool {
        post::is_for(request.head)
    }

    fn permit_body(
        &mut self,
        request: &Request<'_>,
        framing: Framing,
    ) -> Result<Option<BodyPermit>, Response> {
        match post::is_for(request.head) {
            true => self.permit_post(request, framing).map(Some),
            false => self.charge_request(request).map(|()| None),
        }
    }

    fn handle_body(
        &mut self,
        id: ConnectionId,
        body: &[u8],
        permit: BodyPermit,
        outbox: &mut dyn Outbox,
    ) -> Response {
        self.handle_post(id, body, permit, outbox)
    }

    fn handle_probe(&mut self, request: &Request<'_>, figures: &dyn Figures) -> Option<Response> {
        self.answer_probe(request, figures)
    }

    fn handle_request(&mut self, request: &Request<'_>) -> Response {
        let head = request.head;
        // The remains of an upgrade whose `Upgrade` a proxy has eaten have their key.
        if head.path() == "/" || head.fields.has("Sec-WebSocket-Key") {
            Response::new(
                Status::UPGRADE_REQUIRED,
                "this is a WebSocket server: upgrade, in HTTP/1.1",
            )
            .with_field("Upgrade", "websocket")
            .with_field("Sec-WebSocket-Version", "13")
        } else {
            Response::new(Status::NOT_FOUND, "there is nothing here")
        }
    }

    fn handle_message(&mut self, id: ConnectionId, message: Message<'_>, outbox: &mut dyn Outbox) {
        match message {
            Message::Text(text) => self.handle_text(id, text, outbox),
            Message::Binary(_) => close(CloseCode::UNSUPPORTED_DATA, "binary-message", outbox),
        }
    }

    fn handle_deadline(&mut self, id: ConnectionId, outbox: &mut dyn Outbox) {
        let reason = match self.clearances.get(&id) {
            None => {
                let level = self.forbidden_log.level(outbox.now());
                log!(level, connection:% = id; "{id} is closed: it has not shown that it may publish");
                let forbidden = ErrorCode::Forbidden.as_str();
                return close(CloseCode::POLICY_VIOLATION, forbidden, outbox);
            }
            Some(Clearance::Awaited) => TOKEN_MISSING,
            Some(Clearance::Granted { .. }) => TOKEN_EXPIRED,
            Some(Clearance::Refused(error)) => reason_of(*error),
        };
        let level = self.token_log.level(outbox.now());
        log!(
            level,
            connection:% = id, code = CloseCode::UNAUTHORIZED.as_u16(), reason = reason;
            "{id} is closed: {reason}"
        );
        self.metrics.tokens_refused += 1;
        close(CloseCode::UNAUTHORIZED, reason, outbox);
    }

    fn handle_reload(&mut self) {
        (self.reload)(&mut self.policy);
    }

    fn handle_gone(&mut self, id: ConnectionId) {
        if let Some((rights, peer)) = self.connections.remove(id) {
            self.uncount(id, rights.publish, peer);
            self.index.remove(id);
            self.list_log.forget(id);
            self.clearances.remove(&id);
            if self.clearances.capacity() > SPARSE_FACTOR * self.clearances.len() {
                self.clearances.shrink_to(2 * self.clearances.len());
            }
            if self.recipients.capacity() > 4 * self.index.connection_count() {
                self.recipients.shrink_to_fit();
            }
            debug!(connection:% = id; "{id} is gone");
        }
    }

    fn close_reason(&self, cause: CloseCause, retry_ms: u64) -> String {
        let reason = match cause {
            CloseCause::Protocol(error) => match error.close_code() {
                CloseCode::MESSAGE_TOO_BIG => "message-too-big",
                CloseCode::INVALID_PAYLOAD => "invalid-utf8",
                _ => "protocol-error",
            },
            CloseCause::UnfinishedMessage => "unfinished-message",
            CloseCause::SlowConsumer => "slow-consumer",
            CloseCause::Overload => "overload",
            CloseCause::Shutdown => "shutdown",
        };
        command::close_reason(reason, retry_ms)
    }
}

#[cfg(test)]
mod tests;
