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
            drains_after_hang_up: matches!(publish, PublishRight::WithToken),
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
mod tests {
    use super::*;
    use crate::config::HubLimits;
    use crate::http::head::Head;
    use crate::hub::access::jwt::ClientKeys;
    use crate::hub::access::token_file::PublishTokens;
    use crate::ws::error::ProtocolError;
    use crate::ws::frame::EncodedFrame;

    /// What went out, in order.
    #[derive(Debug, PartialEq, Eq)]
    enum Sent {
        Reply(String),
        Delivery(String, Vec<ConnectionId>),
        Close(u16, String),
    }

    /// An outbox that notes what goes out, and cuts off whom it is told to.
    #[derive(Default)]
    struct Record {
        sent: Vec<Sent>,
        slow: Vec<ConnectionId>,
    }

    impl Outbox for Record {
        fn reply(&mut self, payload: &str) {
            self.sent.push(Sent::Reply(payload.to_owned()));
        }

        fn reply_binary(&mut self, _: &[u8]) {
            unreachable!("the hub speaks text");
        }

        fn deliver(&mut self, frame: &EncodedFrame, recipients: &[ConnectionId]) -> Delivered {
            let bytes = frame.as_bytes();
            let start = bytes.iter().position(|&byte| byte == b'{').expect("JSON");
            let text = String::from_utf8(bytes[start..].to_vec()).expect("text");
            self.sent.push(Sent::Delivery(text, recipients.to_vec()));
            let dropped = recipients
                .iter()
                .filter(|id| self.slow.contains(id))
                .count();
            Delivered {
                queued: recipients.len() - dropped,
                dropped,
            }
        }

        fn close(&mut self, code: CloseCode, reason: &str) {
            self.sent
                .push(Sent::Close(code.as_u16(), reason.to_owned()));
        }

        fn retry_ms(&mut self) -> u64 {
            4200
        }

        fn now(&self) -> Timestamp {
            Timestamp::ZERO
        }

        fn unix_now(&self) -> Duration {
            Duration::ZERO
        }

        fn readmit(&mut self, _: Admission) {}
    }

    const fn id(index: u32) -> ConnectionId {
        ConnectionId { index, serial: 7 }
    }

    fn hub() -> Hub {
        hub_with(Policy {
            local_publish: true,
            ..Policy::default()
        })
    }

    fn hub_with(policy: Policy) -> Hub {
        Hub::new(HubConfig::default(), policy)
    }

    fn request<'a>(address: &str, head: &'a Head<'a>) -> Request<'a> {
        Request {
            peer: Peer {
                address: PeerAddress::Ip(address.parse().expect("an address")),
                lane: Lane::Clients,
            },
            head,
            now: Timestamp::ZERO,
            unix_now: Duration::ZERO,
        }
    }

    fn connect(hub: &mut Hub, id: ConnectionId, address: &str, target: &str) -> Admission {
        let text = format!("GET {target} HTTP/1.1\r\nHost: localhost:8000\r\n\r\n");
        let (head, _) = Head::parse(text.as_bytes(), 0, 4096)
            .expect("valid")
            .expect("complete");
        hub.handle_upgrade(id, &request(address, &head))
            .expect("everybody is admitted")
    }

    const LOCAL: &str = "127.0.0.1:50000";
    const REMOTE: &str = "192.0.2.1:50000";

    fn send(hub: &mut Hub, id: ConnectionId, text: &str) -> Vec<Sent> {
        let mut outbox = Record::default();
        hub.handle_message(id, Message::Text(text), &mut outbox);
        hub.index.check_invariants();
        outbox.sent
    }

    fn subscribe(hub: &mut Hub, id: ConnectionId) {
        connect(hub, id, REMOTE, "/");
        let sent = send(hub, id, "{\"sender\":\"client\",\"subscriptions\":[\"a\"]}");
        let reply = "{\"type\":\"subscribed\",\"subscriptions\":1,\"heartbeat\":25}";
        assert_eq!(sent, [Sent::Reply(reply.to_owned())]);
    }

    const PUBLISH: &str = "{\"sender\":\"server\",\"notification\":{\"channel\":\"a\"}}";
    const BAD_PUBLISH: &str = "{\"sender\":\"server\",\"notification\":{}}";

    fn delivery(recipients: &[ConnectionId]) -> Sent {
        let text = "{\"type\":\"notification\",\"notification\":{\"channel\":\"a\"}}";
        Sent::Delivery(text.to_owned(), recipients.to_vec())
    }

    fn is_error(sent: &Sent, code: &str) -> bool {
        let start = format!("{{\"type\":\"error\",\"error\":{{\"code\":\"{code}\",");
        matches!(sent, Sent::Reply(text) if text.starts_with(&start))
    }

    fn close(code: u16, reason: &str) -> Sent {
        Sent::Close(code, reason.to_owned())
    }

    #[test]
    fn a_notification_reaches_its_subscribers_and_closes_its_publisher() {
        let mut hub = hub();
        subscribe(&mut hub, id(3));
        subscribe(&mut hub, id(0));
        connect(&mut hub, id(1), LOCAL, "/");
        let sent = send(&mut hub, id(1), PUBLISH);
        assert_eq!(
            sent,
            [delivery(&[id(3), id(0)]), close(1000, "{\"delivered\":2}")]
        );
        let mut outbox = Record {
            slow: vec![id(0)],
            ..Record::default()
        };
        hub.handle_message(id(1), Message::Text(PUBLISH), &mut outbox);
        assert_eq!(
            outbox.sent.last(),
            Some(&close(1000, "{\"delivered\":1,\"dropped\":1}"))
        );
        hub.handle_gone(id(3));
        hub.handle_gone(id(0));
        let sent = send(&mut hub, id(1), PUBLISH);
        assert_eq!(sent, [close(1000, "{\"delivered\":0}")]);
    }

    #[test]
    fn a_publisher_that_subscribed_gets_its_own() {
        let mut hub = hub();
        connect(&mut hub, id(1), LOCAL, "/");
        send(
            &mut hub,
            id(1),
            "{\"sender\":\"client\",\"subscriptions\":[\"a\",\"a\"]}",
        );
        let sent = send(&mut hub, id(1), PUBLISH);
        assert_eq!(sent, [delivery(&[id(1)]), close(1000, "{\"delivered\":1}")]);
    }

    #[test]
    fn publish_without_permission_is_refused_before_its_content_is_read() {
        for (address, local_publish) in [(REMOTE, true), (LOCAL, false)] {
            for target in ["/", "/publish"] {
                let mut hub = hub_with(Policy {
                    local_publish,
                    ..Policy::default()
                });
                connect(&mut hub, id(1), address, target);
                for text in [
                    PUBLISH,
                    BAD_PUBLISH,
                    "{\"sender\":\"server\",\"type\":\"pong\"}",
                ] {
                    let sent = send(&mut hub, id(1), text);
                    assert!(is_error(&sent[0], "forbidden"), "{sent:?}");
                    let reason = "{\"reason\":\"forbidden\",\"retry\":4200}";
                    assert_eq!(sent[1..], [close(1008, reason)]);
                }
                assert_eq!(hub.metrics().notifications_forbidden, 3);
                let sent = send(&mut hub, id(1), "{\"sender\":\"server\",");
                assert!(is_error(&sent[0], "invalid-json") && sent.len() == 1);
            }
        }
    }

    #[test]
    fn a_bad_notification_closes_its_publisher_unless_it_stays() {
        let mut hub = hub();
        connect(&mut hub, id(1), LOCAL, "/publish/");
        let sent = send(&mut hub, id(1), BAD_PUBLISH);
        assert!(is_error(&sent[0], "invalid-notification"), "{sent:?}");
        let reason = "{\"reason\":\"invalid-notification\",\"retry\":4200}";
        assert_eq!(sent[1..], [close(1008, reason)]);

        for target in ["/publish", "/publish?token=x"] {
            connect(&mut hub, id(2), LOCAL, target);
            let sent = send(&mut hub, id(2), BAD_PUBLISH);
            assert!(is_error(&sent[0], "invalid-notification") && sent.len() == 1);
            let sent = send(&mut hub, id(2), PUBLISH);
            let reply = "{\"type\":\"published\",\"delivered\":0}";
            assert_eq!(sent, [Sent::Reply(reply.to_owned())]);
        }
    }

    #[test]
    fn an_error_leaves_the_earlier_subscriptions_in_force() {
        let mut hub = hub();
        subscribe(&mut hub, id(0));
        for text in [
            "{\"sender\":\"client\",\"subscriptions\":[\"b\",7]}",
            "{\"sender\":\"client\",\"cmd\":[{}]}",
            "[",
            "{\"type\":\"pong\"}",
        ] {
            let sent = send(&mut hub, id(0), text);
            assert!(matches!(&sent[..], [Sent::Reply(_)]), "{sent:?}");
            assert_eq!(hub.index().subscriptions_of(id(0)), 1);
        }
        let sent = send(&mut hub, id(0), "{\"type\":\"ping\"}");
        assert_eq!(sent, [Sent::Reply("{\"type\":\"pong\"}".to_owned())]);
        send(
            &mut hub,
            id(0),
            "{\"sender\":\"client\",\"subscriptions\":[]}",
        );
        assert_eq!(hub.index().subscriptions_of(id(0)), 0);
    }

    fn hub_of_totals(subscriptions: usize, share_percent: usize, policy: Policy) -> Hub {
        let limits = HubLimits {
            subscriptions_total_max: subscriptions,
            share_percent,
            ..HubLimits::default()
        };
        let config = HubConfig {
            limits,
            ..HubConfig::default()
        };
        Hub::new(config, policy)
    }

    #[test]
    fn an_address_has_a_share_that_is_given_back() {
        let tokens = PublishTokens::parse("0123456789abcdef").expect("a token");
        let policy = Policy {
            publish_tokens: Some(tokens),
            ..Policy::default()
        };
        let mut hub = hub_of_totals(8, 25, policy);
        let one = "{\"sender\":\"client\",\"subscriptions\":[\"a\"]}";
        let two = "{\"sender\":\"client\",\"subscriptions\":[\"b\",\"c\"]}";
        let is_refused = |hub: &mut Hub, id, text| {
            let sent = send(hub, id, text);
            assert_eq!(sent.len(), 1);
            is_error(&sent[0], "too-many-subscriptions")
        };
        for (index, address) in [REMOTE, "192.0.2.1:7", "192.0.2.2:7", LOCAL]
            .iter()
            .enumerate()
        {
            connect(&mut hub, id(index as u32), address, "/publish");
        }
        assert!(!is_refused(&mut hub, id(0), one));
        assert!(is_refused(&mut hub, id(1), two));
        assert_eq!(hub.index().subscriptions_of(id(1)), 0);
        assert!(!is_refused(&mut hub, id(1), one) && !is_refused(&mut hub, id(0), one));
        assert!(is_refused(&mut hub, id(0), two));
        assert!(!is_refused(&mut hub, id(2), two));
        // This host has no share.
        let three = "{\"sender\":\"client\",\"subscriptions\":[\"b\",\"c\",\"d\"]}";
        assert!(!is_refused(&mut hub, id(3), three));
        assert_eq!(hub.metrics().subscriptions_refused_share, 2);
        assert_eq!(hub.metrics().subscriptions_refused_full, 0);
        // Neither has a publisher: what it holds counts no more against its address.
        send(
            &mut hub,
            id(1),
            &PUBLISH.replacen('{', "{\"token\":\"0123456789abcdef\",", 1),
        );
        assert!(!is_refused(&mut hub, id(0), two));
        assert!(!is_refused(&mut hub, id(1), one));
        hub.handle_gone(id(1));
        hub.handle_gone(id(0));
        connect(&mut hub, id(0), REMOTE, "/");
        assert!(!is_refused(&mut hub, id(0), two));
    }

    #[test]
    fn a_list_that_the_server_has_no_room_for_is_refused_and_counted() {
        let mut hub = hub_of_totals(2, 100, Policy::default());
        subscribe(&mut hub, id(0));
        subscribe(&mut hub, id(1));
        let two = "{\"sender\":\"client\",\"subscriptions\":[\"b\",\"c\"]}";
        let sent = send(&mut hub, id(1), two);
        assert!(is_error(&sent[0], "too-many-subscriptions") && sent.len() == 1);
        assert_eq!(hub.index().subscriptions_of(id(1)), 1);
        assert_eq!(hub.metrics().subscriptions_refused_full, 1);
        hub.handle_gone(id(0));
        assert!(!is_error(
            &send(&mut hub, id(1), two)[0],
            "too-many-subscriptions"
        ));
        assert_eq!(hub.metrics().subscriptions_refused_full, 1);
    }

    #[test]
    fn binary_messages_are_closed_with_1003() {
        let mut hub = hub();
        subscribe(&mut hub, id(0));
        let mut outbox = Record::default();
        hub.handle_message(id(0), Message::Binary(b"{}"), &mut outbox);
        let reason = "{\"reason\":\"binary-message\",\"retry\":4200}";
        assert_eq!(outbox.sent, [close(1003, reason)]);
    }

    #[test]
    fn who_may_publish_may_send_more() {
        let mut hub = hub();
        let limits = HubConfig::default().limits;
        let local = connect(&mut hub, id(0), LOCAL, "/");
        assert_eq!(local.message_bytes_max, limits.publish_bytes_max);
        let remote = connect(&mut hub, id(1), REMOTE, "/publish");
        assert_eq!(remote.message_bytes_max, limits.message_bytes_max);
        assert!(remote.is_limited && !local.is_limited);
    }

    #[test]
    fn a_proxy_that_names_nobody_does_not_speak_for_itself() {
        let mut policy = Policy::default();
        let proxy = "127.0.0.1".parse().expect("an address");
        policy.proxies.0.push(proxy);
        let mut hub = hub_with(policy);
        let mut ask = |number, field: &str| {
            let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n");
            let (head, _) = Head::parse(text.as_bytes(), 0, 4096)
                .expect("valid")
                .expect("complete");
            let admission = hub.handle_upgrade(id(number), &request(LOCAL, &head));
            let admission = admission.expect("everybody is let in");
            (admission.is_limited, admission.on_behalf_of)
        };
        assert_eq!(ask(0, ""), (false, None));
        let unknown = Some(PeerAddress::Unknown);
        assert_eq!(ask(1, "X-Forwarded-For: unknown\r\n"), (true, unknown));
        assert_eq!(ask(2, "X-Forwarded-For:\r\n"), (true, unknown));
    }

    #[test]
    fn close_reasons_are_json_and_short() {
        let hub = hub();
        let too_big = ProtocolError::TooBig {
            bytes: u64::MAX,
            bytes_max: 0,
        };
        for (cause, word) in [
            (CloseCause::SlowConsumer, "slow-consumer"),
            (CloseCause::Overload, "overload"),
            (CloseCause::Shutdown, "shutdown"),
            (CloseCause::UnfinishedMessage, "unfinished-message"),
            (CloseCause::Protocol(too_big), "message-too-big"),
            (
                CloseCause::Protocol(ProtocolError::InvalidUtf8),
                "invalid-utf8",
            ),
            (
                CloseCause::Protocol(ProtocolError::Unmasked),
                "protocol-error",
            ),
        ] {
            let reason = hub.close_reason(cause, u64::MAX);
            assert_eq!(
                reason,
                format!("{{\"reason\":\"{word}\",\"retry\":{}}}", u64::MAX)
            );
            assert!(reason.len() <= crate::ws::close::CLOSE_REASON_BYTES_MAX);
        }
    }

    #[test]
    fn a_request_without_an_upgrade_is_told_that_one_is_required() {
        let text = "GET / HTTP/1.1\r\n\r\n";
        let (head, _) = Head::parse(text.as_bytes(), 0, 4096)
            .expect("valid")
            .expect("complete");
        let response = hub().handle_request(&request(LOCAL, &head));
        assert_eq!(response.status, Status::UPGRADE_REQUIRED);
        assert!(
            response
                .fields
                .contains(&("Upgrade", "websocket".to_owned()))
        );
    }

    #[test]
    fn what_clients_have_shown_leaves_nothing() {
        let keys = ClientKeys::parse("0123456789abcdef0123456789abcdef").expect("a key");
        let mut hub = hub_with(Policy {
            client_keys: Some(keys),
            ..Policy::default()
        });
        for index in 0..1000 {
            connect(&mut hub, id(index), REMOTE, "/");
        }
        assert_eq!(hub.clearances.len(), 1000);
        for index in 0..1000 {
            hub.handle_gone(id(index));
        }
        assert_eq!(hub.clearances.capacity(), 0);
    }

    #[test]
    fn ten_thousand_connections_on_one_channel_are_cheap_and_leave_nothing() {
        const COUNT: u32 = 10_000;
        let mut hub = hub();
        for index in 0..COUNT {
            connect(&mut hub, id(index), REMOTE, "/");
            let text = "{\"sender\":\"client\",\"subscriptions\":[{\"package\":\"p\",\"page\":\"q\",\"filters\":{\"values\":{\"channel\":[\"2\"]}}}]}";
            hub.handle_message(id(index), Message::Text(text), &mut Record::default());
        }
        let each = hub.heap_bytes() / COUNT as usize;
        assert!(each < 100, "{each} bytes a connection");
        for index in 1..COUNT {
            hub.handle_gone(id(index));
        }
        // The tables are looked at now and then.
        for _ in 0..100 {
            let text = r#"{"sender":"client","subscriptions":["c"]}"#;
            hub.handle_message(id(0), Message::Text(text), &mut Record::default());
            let text = r#"{"sender":"client","subscriptions":[]}"#;
            hub.handle_message(id(0), Message::Text(text), &mut Record::default());
        }
        assert!(hub.heap_bytes() < 1024, "{} bytes", hub.heap_bytes());
        hub.handle_gone(id(0));
        assert_eq!(hub.heap_bytes(), 0);
    }
}
