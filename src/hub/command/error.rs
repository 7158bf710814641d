//! Why a message can't be followed, as its sender is told.
//!
//! Main type: [`CommandError`].

use std::fmt;

/// What an error is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorCode {
    /// The text is not JSON.
    InvalidJson,
    /// The text is JSON, but nothing that the hub knows.
    UnknownMessage,
    /// The list of subscriptions breaks a rule.
    InvalidSubscription,
    /// The list of subscriptions is over a limit.
    TooManySubscriptions,
    /// The notification breaks a rule.
    InvalidNotification,
    /// The connection may not do this.
    Forbidden,
    /// The address has asked too often; over HTTP only.
    RateLimited,
    /// Where notifications get their order can't be asked.
    Unavailable,
}

impl ErrorCode {
    const ALL: [Self; 8] = [
        Self::InvalidJson,
        Self::UnknownMessage,
        Self::InvalidSubscription,
        Self::TooManySubscriptions,
        Self::InvalidNotification,
        Self::Forbidden,
        Self::RateLimited,
        Self::Unavailable,
    ];

    /// The code that clients know by this word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == word)
    }

    /// The word that clients know it by.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidJson => "invalid-json",
            Self::UnknownMessage => "unknown-message",
            Self::InvalidSubscription => "invalid-subscription",
            Self::TooManySubscriptions => "too-many-subscriptions",
            Self::InvalidNotification => "invalid-notification",
            Self::Forbidden => "forbidden",
            Self::RateLimited => "rate-limited",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Why a message can't be followed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommandError {
    /// What it is about.
    pub code: ErrorCode,
    /// Which member, and what was expected. Never a value from a peer.
    pub detail: String,
}

impl CommandError {
    /// An error that says `detail`.
    #[must_use]
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { code, detail }
    }

    /// The same of an entry of an array.
    #[must_use]
    pub fn at(mut self, position: usize) -> Self {
        self.detail.insert_str(0, &format!("[{position}]: "));
        self
    }

    /// The message that tells the peer.
    #[must_use]
    pub fn reply(&self) -> String {
        let detail = serde_json::Value::from(self.detail.as_str());
        format!(
            r#"{{"type":"error","error":{{"code":"{}","detail":{detail}}}}}"#,
            self.code.as_str()
        )
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.detail)
    }
}

impl std::error::Error for CommandError {}
