//! What a connection is told: errors, and the reasons of Close frames.
//!
//! Owns how an answer reaches its connection. The texts are [`command`]'s.

use log::debug;

use super::command::{self, CommandError, ErrorCode, Receipt};
use crate::application::{CloseCause, Deliveries, Outbox};
use crate::id::ConnectionId;
use crate::redis::Refusal;
use crate::ws::close::CloseCode;

/// The detail of a refusal where a publisher's token would have helped.
pub(super) const PUBLISHER_TOKEN_NEEDED: &str = "a publisher's token is needed";

/// Answers a message that can't be followed.
pub(super) fn reply_error(id: ConnectionId, error: &CommandError, outbox: &mut dyn Outbox) {
    debug!(connection:% = id; "{id} gets error {}", error.code.as_str());
    outbox.reply(id, &error.reply());
}

/// Answers a message that can't be followed, and is the last of its connection.
pub(super) fn refuse(id: ConnectionId, error: &CommandError, outbox: &mut dyn Outbox) {
    reply_error(id, error, outbox);
    let code = match error.code {
        ErrorCode::Unavailable => CloseCode::TRY_AGAIN_LATER,
        _ => CloseCode::POLICY_VIOLATION,
    };
    close(id, code, error.code.as_str(), outbox);
}

/// Tells a publisher what became of its notification; one that doesn't stay is closed by that.
pub(super) fn answer_publisher(
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
        Err(error) if stays => reply_error(id, &error, outbox),
        Err(error) => refuse(id, &error, outbox),
    }
}

/// What a publisher is told whose notification Redis hasn't taken, or may not have.
pub(super) fn unavailable(refusal: &Refusal) -> CommandError {
    CommandError::new(ErrorCode::Unavailable, refusal.to_string())
}

/// Closes with the reason that every Close has but the one after a notification.
pub(super) fn close(
    id: ConnectionId,
    code: CloseCode,
    reason: &'static str,
    deliveries: &mut dyn Deliveries,
) {
    let retry_ms = deliveries.retry_ms();
    deliveries.close(id, code, &command::close_reason(reason, retry_ms));
}

/// The word for a Close that the shell starts.
pub(super) const fn word_for(cause: CloseCause) -> &'static str {
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
