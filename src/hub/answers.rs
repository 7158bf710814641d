//! What a connection is told: errors, and the reasons of Close frames.
//!
//! Owns how an answer reaches its connection. The texts are [`command`]'s.

use log::debug;

use super::Hub;
use super::access::policy::PublishRight;
use super::command::{self, CommandError, ErrorCode, Receipt};
use super::recent::Refused;
use crate::application::{CloseCause, Deliveries, Outbox};
use crate::id::ConnectionId;
use crate::redis::Refusal;
use crate::time::Timestamp;
use crate::ws::close::CloseCode;

/// The detail of a refusal where a publisher's token would have helped.
pub(super) const PUBLISHER_TOKEN_NEEDED: &str = "a publisher's token is needed";

/// Answers a message that can't be followed.
pub(super) fn reply_error(id: ConnectionId, error: &CommandError, outbox: &mut dyn Outbox) {
    let code = error.code.as_str();
    debug!(connection:% = id, reason = code; "{id} gets error {code}");
    outbox.reply(id, &error.reply());
}

impl Hub {
    /// Answers a message that can't be followed, and is the last of its connection.
    pub(super) fn refuse(
        &mut self,
        id: ConnectionId,
        error: &CommandError,
        outbox: &mut dyn Outbox,
    ) {
        reply_error(id, error, outbox);
        let code = match error.code {
            ErrorCode::Unavailable => CloseCode::TRY_AGAIN_LATER,
            _ => CloseCode::POLICY_VIOLATION,
        };
        self.close(id, code, error.code.as_str(), outbox);
    }

    /// Tells a publisher what became of its notification; one that doesn't stay is closed by that.
    pub(super) fn answer_publisher(
        &mut self,
        id: ConnectionId,
        stays: bool,
        outcome: Result<Receipt, CommandError>,
        outbox: &mut dyn Outbox,
    ) {
        match outcome {
            Ok(receipt) if stays => outbox.reply(id, &command::published_reply(&receipt)),
            Ok(receipt) => {
                outbox.close(id, CloseCode::NORMAL, &command::published_reason(&receipt));
            }
            Err(error) => {
                self.note_refusal(id, &error, outbox.now());
                match stays {
                    true => reply_error(id, &error, outbox),
                    false => self.refuse(id, &error, outbox),
                }
            }
        }
    }

    /// Closes with the reason that every Close has but the one after a notification.
    pub(super) fn close(
        &mut self,
        id: ConnectionId,
        code: CloseCode,
        reason: &'static str,
        deliveries: &mut dyn Deliveries,
    ) {
        self.note_end(id, Some(reason), deliveries.now());
        let retry_ms = deliveries.retry_ms();
        deliveries.close(id, code, &command::close_reason(reason, retry_ms));
    }

    /// Notes a publish of an admitted connection that is refused.
    pub(super) fn note_refusal(&mut self, id: ConnectionId, error: &CommandError, now: Timestamp) {
        let known = self.connections.find(id);
        let is_own = known
            .is_some_and(|(rights, _)| rights.is_own || rights.publish == PublishRight::Granted);
        self.note_refusal_as(is_own, id, error, now);
    }

    /// The same of one that is the operator's own, or isn't.
    pub(super) fn note_refusal_as(
        &mut self,
        is_own: bool,
        id: ConnectionId,
        error: &CommandError,
        now: Timestamp,
    ) {
        let known = self.connections.find(id);
        let refused = Refused {
            at: now,
            code: error.code.as_str(),
            detail: error.detail.clone().into(),
            address: known.map(|(_, address)| address),
            id: Some(id),
        };
        self.recent.note_refusal(is_own, refused);
    }

    /// Notes a message that can't be read, if a publisher has sent it.
    pub(super) fn note_bad_message(
        &mut self,
        id: ConnectionId,
        error: &CommandError,
        now: Timestamp,
    ) {
        let rights = self.connections.find(id).map(|(rights, _)| rights);
        let is_publisher = rights.is_some_and(|rights| rights.publish == PublishRight::Granted);
        let is_of_publish = matches!(
            error.code,
            ErrorCode::InvalidJson | ErrorCode::UnknownMessage
        );
        if is_publisher && is_of_publish {
            self.note_refusal(id, error, now);
        }
    }
}

/// What a publisher is told whose notification Redis hasn't taken, or may not have.
pub(super) fn unavailable(refusal: &Refusal) -> CommandError {
    CommandError::new(ErrorCode::Unavailable, refusal.to_string())
}

/// The word for a Close that the shell starts.
#[must_use]
pub const fn word_for(cause: CloseCause) -> &'static str {
    match cause {
        CloseCause::Protocol(error) => match error.close_code() {
            CloseCode::MESSAGE_TOO_BIG => "message-too-big",
            CloseCode::INVALID_PAYLOAD => "invalid-utf8",
            _ => "protocol-error",
        },
        CloseCause::UnfinishedMessage => "unfinished-message",
        CloseCause::SlowConsumer => "slow-consumer",
        CloseCause::Overload => "overload",
        CloseCause::Shutdown => "shutdown",
    }
}
