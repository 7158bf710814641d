//! The texts that answer messages.
//!
//! Written by hand: each has a fixed form, and the values in them need no escapes.

use std::fmt::{self, Write};
use std::time::Duration;

use crate::application::Delivered;
use crate::journal::id::EntryId;

/// What a client that numbers its deliveries is told with its subscriptions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resumption<'a> {
    /// It has shown no id: the position from which its subscriptions count.
    From(EntryId),
    /// It gets all that it missed behind the id that it has shown, which is one of ours.
    Resumed {
        /// As it was shown.
        since: &'a str,
    },
    /// It may have missed something.
    NotResumed {
        /// The position from which its subscriptions count.
        now: EntryId,
        /// One fixed word.
        reason: &'static str,
    },
}

/// What became of a notification, as its publisher is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Receipt {
    /// How many connections have it.
    pub delivered: Delivered,
    /// Its id, if it is kept.
    pub id: Option<EntryId>,
    /// Whether it was published before, by its key.
    pub is_repeated: bool,
}

/// The answer to a subscription: how many there are, and the seconds of silence after which
/// the server pings.
#[must_use]
pub fn subscribed_reply(
    subscriptions: usize,
    heartbeat: Duration,
    resumption: Option<Resumption<'_>>,
) -> String {
    let seconds = heartbeat.as_secs_f64();
    let told = resumption.map(Told);
    let told = told.as_ref().map_or(&"" as &dyn fmt::Display, |told| told);
    format!(
        r#"{{"type":"subscribed","subscriptions":{subscriptions},"heartbeat":{seconds}{told}}}"#
    )
}

struct Told<'a>(Resumption<'a>);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Resumption::From(id) => write!(f, r#","id":"{id}""#),
            Resumption::Resumed { since } => write!(f, r#","id":"{since}","resumed":true"#),
            Resumption::NotResumed { now, reason } => {
                write!(f, r#","id":"{now}","resumed":false,"reason":"{reason}""#)
            }
        }
    }
}

/// What ends the replay of what a client has missed.
#[must_use]
pub fn caught_up_message(id: EntryId, missed: u64) -> String {
    format!(r#"{{"type":"caught-up","id":"{id}","missed":{missed}}}"#)
}

/// What a client that numbers its deliveries is told when something behind `id` may be missing. `reason` is one fixed word.
#[must_use]
pub fn gap_message(id: EntryId, reason: &'static str) -> String {
    format!(r#"{{"type":"gap","id":"{id}","reason":"{reason}"}}"#)
}

/// The answer to an application ping.
pub const PONG_REPLY: &str = r#"{"type":"pong"}"#;

/// The same on a connection whose deliveries are numbered: all up to `id` is queued ahead of it.
#[must_use]
pub fn numbered_pong_reply(id: EntryId) -> String {
    format!(r#"{{"type":"pong","id":"{id}"}}"#)
}

/// The answer to a request for the position now.
#[must_use]
pub fn position_reply(id: EntryId) -> String {
    format!(r#"{{"id":"{id}"}}"#)
}

/// The answer to a notification on a connection that stays.
#[must_use]
pub fn published_reply(receipt: &Receipt) -> String {
    receipt.text(r#"{"type":"published","#)
}

/// The reason of the Close that answers a notification on a connection that doesn't stay.
#[must_use]
pub fn published_reason(receipt: &Receipt) -> String {
    receipt.text("{")
}

/// The answer to a request that has published.
#[must_use]
pub fn batch_reply(receipts: &[Receipt], is_array: bool) -> String {
    let entries: Vec<_> = receipts.iter().map(published_reason).collect();
    if is_array {
        format!("[{}]", entries.join(","))
    } else {
        entries.concat()
    }
}

/// The reason of any other Close that the server starts. `reason` is one fixed word.
#[must_use]
pub fn close_reason(reason: &'static str, retry_ms: u64) -> String {
    format!(r#"{{"reason":"{reason}","retry":{retry_ms}}}"#)
}

/// What a receipt hardly ever needs more than.
const RECEIPT_BYTES: usize = 96;

impl Receipt {
    /// The object that has these members behind what it `begins` with.
    fn text(&self, begins: &str) -> String {
        let Delivered { queued, dropped } = self.delivered;
        let mut text = String::with_capacity(RECEIPT_BYTES);
        text.push_str(begins);
        // Writing to a string can't fail.
        let _ = write!(text, r#""delivered":{queued}"#);
        if dropped > 0 {
            let _ = write!(text, r#","dropped":{dropped}"#);
        }
        if let Some(id) = self.id {
            text.push_str(r#","id":""#);
            text.push_str(id.text().as_str());
            text.push('"');
        }
        if self.is_repeated {
            text.push_str(r#","repeated":true"#);
        }
        text.push('}');
        text
    }
}
