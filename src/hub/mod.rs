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
pub mod index;

use std::time::Duration;

use log::{debug, info};

use self::command::{Command, CommandError, ErrorCode, Publish};
use self::connections::{Connections, Rights};
use self::filter::Subscription;
use self::index::SubscriptionIndex;
use crate::application::{
    Admission, Application, CloseCause, Delivered, Message, Outbox, Request, Response, Status,
};
use crate::config::HubConfig;
use crate::id::ConnectionId;
use crate::ws::close::CloseCode;

/// The path whose connections stay when they have published.
const PUBLISH_PATH: &str = "/publish";

/// The application behind the shell.
pub struct Hub {
    config: HubConfig,
    connections: Connections,
    index: SubscriptionIndex,
    /// Kept between notifications so that a fan-out doesn't allocate; empty in between.
    recipients: Vec<ConnectionId>,
}

impl Hub {
    /// A hub without connections.
    #[must_use]
    pub fn new(config: HubConfig) -> Self {
        Self {
            config,
            connections: Connections::default(),
            index: SubscriptionIndex::default(),
            recipients: Vec::new(),
        }
    }

    /// Who subscribed to what.
    #[must_use]
    pub const fn index(&self) -> &SubscriptionIndex {
        &self.index
    }

    /// Bytes that the hub has asked of the heap.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.connections.heap_bytes()
            + self.index.heap_bytes()
            + self.recipients.capacity() * size_of::<ConnectionId>()
    }

    fn handle_text(&mut self, id: ConnectionId, text: &str, outbox: &mut dyn Outbox) {
        match command::parse(text, &self.config.limits) {
            Ok(Command::Subscribe(subscriptions)) => self.subscribe(id, &subscriptions, outbox),
            Ok(Command::Ping) => outbox.reply(command::PONG_REPLY),
            Ok(Command::Publish(publish)) => self.handle_publish(id, &publish, outbox),
            Err(error) => reply_error(id, &error, outbox),
        }
    }

    fn subscribe(
        &mut self,
        id: ConnectionId,
        subscriptions: &[Subscription<'_>],
        outbox: &mut dyn Outbox,
    ) {
        self.index.replace(id, subscriptions);
        info!("{id} has {} subscriptions", subscriptions.len());
        let heartbeat = self.config.ping_interval;
        outbox.reply(&command::subscribed_reply(subscriptions.len(), heartbeat));
    }

    fn handle_publish(&mut self, id: ConnectionId, publish: &Publish<'_>, outbox: &mut dyn Outbox) {
        let Some((rights, address)) = self.connections.find(id) else {
            debug_assert!(false, "messages come from admitted connections");
            return;
        };
        if !rights.may_publish {
            info!("{id} from {address} may not publish");
            let error = CommandError::new(
                ErrorCode::Forbidden,
                "this connection may not publish: it is not a local one",
            );
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

    fn publish(
        &mut self,
        id: ConnectionId,
        publish: &Publish<'_>,
        outbox: &mut dyn Outbox,
    ) -> Result<Delivered, CommandError> {
        let start = outbox.now();
        let publication = publish.read()?;
        self.recipients.clear();
        self.index
            .collect_recipients(&publication.notification, &mut self.recipients);
        let delivered = if self.recipients.is_empty() {
            Delivered::default()
        } else {
            outbox.deliver(&publication.frame(), &self.recipients)
        };
        let elapsed: Duration = outbox.now() - start;
        let micros = elapsed.as_micros();
        let Delivered { queued, dropped } = delivered;
        info!("{id} published to {queued} connections, {dropped} dropped, in {micros} us");
        Ok(delivered)
    }
}

/// Answers a message that can't be followed.
fn reply_error(id: ConnectionId, error: &CommandError, outbox: &mut dyn Outbox) {
    debug!("{id} gets error {}", error.code.as_str());
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
        let rights = Rights {
            may_publish: self.config.local_publish && access::is_local(request),
            stays: request.head.path() == PUBLISH_PATH,
        };
        self.connections.insert(id, request.peer, rights);
        debug!("{id} is {}, {rights:?}", request.peer);
        let limits = &self.config.limits;
        Ok(Admission {
            message_bytes_max: match rights.may_publish {
                true => limits.publish_bytes_max,
                false => limits.message_bytes_max,
            },
        })
    }

    fn handle_request(&mut self, _request: &Request<'_>) -> Response {
        Response::new(Status::UPGRADE_REQUIRED, "this is a WebSocket server")
            .with_field("Upgrade", "websocket")
            .with_field("Sec-WebSocket-Version", "13")
    }

    fn handle_message(&mut self, id: ConnectionId, message: Message<'_>, outbox: &mut dyn Outbox) {
        match message {
            Message::Text(text) => self.handle_text(id, text, outbox),
            Message::Binary(_) => close(CloseCode::UNSUPPORTED_DATA, "binary-message", outbox),
        }
    }

    fn handle_gone(&mut self, id: ConnectionId) {
        if self.connections.remove(id) {
            self.index.remove(id);
            debug!("{id} is gone");
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
