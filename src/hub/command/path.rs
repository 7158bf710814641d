//! The path of the member that is being read, so that an error can name it.
//!
//! Owns the wording of errors about content, and counts what is limited. Repeats names from
//! peers cut short, and their values never. Main type: [`JsonPath`].

use std::fmt;

use serde::de;

use super::error::{CommandError, ErrorCode};

/// The longest name from a peer that an error repeats, in characters.
const ECHO_CHARS_MAX: usize = 40;

/// What the second pass reads.
#[derive(Clone, Copy)]
pub(super) enum Root {
    Subscriptions,
    Subscription(usize),
    Notification,
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Subscriptions => f.write_str("subscriptions"),
            Self::Subscription(index) => write!(f, "subscriptions[{index}]"),
            Self::Notification => f.write_str("notification"),
        }
    }
}

/// Where the second pass is, and what it expects there.
pub(super) struct JsonPath {
    pub(super) root: Root,
    /// The member below the root, with its dot.
    member: &'static str,
    /// The name below the member, as far as it is repeated.
    name: Option<String>,
    expected: &'static str,
    /// The error that stopped the pass, if it is another than that.
    fault: Option<CommandError>,
    values_max: usize,
    values_left: usize,
    /// Bytes of the texts of values.
    bytes_max: usize,
    bytes_left: usize,
}

/// Bytes that the values of a message may have written out, however short its JSON is.
const VALUE_BYTES_MIN: usize = 4096;

impl JsonPath {
    /// Before a member of `json_bytes`. The texts of its values may have as many, and
    /// [`VALUE_BYTES_MIN`]: strings always do, but a number may be fifty times as long written
    /// out, which would be kept beyond what is allowed to a message.
    pub(super) fn new(root: Root, values_max: usize, json_bytes: usize) -> Self {
        let bytes_max = json_bytes.max(VALUE_BYTES_MIN);
        Self {
            root,
            member: "",
            name: None,
            expected: "",
            fault: None,
            values_max,
            values_left: values_max,
            bytes_max,
            bytes_left: bytes_max,
        }
    }

    /// The error of a pass that was stopped: the one that stopped it, or where it was and what was
    /// expected there.
    pub(super) fn into_error(self) -> CommandError {
        if let Some(fault) = self.fault {
            return fault;
        }
        let name = self.name.as_ref().map(|name| format!(".{name}"));
        let name = name.unwrap_or_default();
        let (root, member, expected) = (self.root, self.member, self.expected);
        self.error(format!("{root}{member}{name} must be {expected}"))
    }

    /// What is read next, and what it has to be.
    pub(super) fn enter(&mut self, member: &'static str, expected: &'static str) {
        self.member = member;
        self.expected = expected;
    }

    /// What is at fault has a name of the peer's choice.
    pub(super) fn name(&mut self, name: &str) {
        self.name = Some(bounded(name));
    }

    pub(super) fn error(&self, detail: String) -> CommandError {
        let code = match self.root {
            Root::Subscriptions | Root::Subscription(_) => ErrorCode::InvalidSubscription,
            Root::Notification => ErrorCode::InvalidNotification,
        };
        CommandError::new(code, detail)
    }

    /// Stops the pass with an error of its own.
    pub(super) fn fail<E: de::Error>(&mut self, error: CommandError) -> E {
        self.fault = Some(error);
        E::custom("")
    }

    pub(super) fn fail_duplicate<E: de::Error>(&mut self, member: &str) -> E {
        let detail = format!("duplicate member {}{member}", self.root);
        self.fail(self.error(detail))
    }

    pub(super) fn fail_too_many<E: de::Error>(&mut self, what: &str, max: usize) -> E {
        let (code, whose) = match self.root {
            Root::Notification => (ErrorCode::InvalidNotification, "notification"),
            Root::Subscriptions | Root::Subscription(_) => {
                (ErrorCode::TooManySubscriptions, "subscriptions")
            }
        };
        let detail = format!("{whose} must have at most {max} {what}");
        self.fail(CommandError::new(code, detail))
    }

    /// Counts one value more, by the text that it is compared by.
    pub(super) fn count_value<E: de::Error>(&mut self, text: &str) -> Result<(), E> {
        match self.values_left.checked_sub(1) {
            Some(left) => self.values_left = left,
            None => return Err(self.fail_too_many("values in total", self.values_max)),
        }
        match self.bytes_left.checked_sub(text.len()) {
            Some(left) => self.bytes_left = left,
            None => {
                let what = "bytes of values, with numbers written out";
                return Err(self.fail_too_many(what, self.bytes_max));
            }
        }
        Ok(())
    }
}

/// As much of a name from a peer as an error repeats.
pub(super) fn bounded(name: &str) -> String {
    let mut echo: String = name.chars().take(ECHO_CHARS_MAX).collect();
    if echo.len() < name.len() {
        echo.push('…');
    }
    echo
}
