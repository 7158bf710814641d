//! Why a command failed: the words and the exit status. Main type: [`CliError`].

use std::fmt;

/// Why a command failed, for the user, and the exit status that says so.
#[derive(Debug)]
pub(super) struct CliError {
    pub(super) status: u8,
    pub(super) message: String,
}

impl CliError {
    /// The command line itself is wrong: status 2.
    pub(super) fn usage(message: impl fmt::Display) -> Self {
        Self {
            status: 2,
            message: message.to_string(),
        }
    }

    /// What was asked for can't be done: status 1.
    pub(super) fn failure(message: impl fmt::Display) -> Self {
        Self {
            status: 1,
            message: message.to_string(),
        }
    }
}

impl From<lexopt::Error> for CliError {
    fn from(error: lexopt::Error) -> Self {
        Self::usage(error)
    }
}
