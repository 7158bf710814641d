//! Why a command failed: the words and the exit status. Main type: [`CliError`].

use std::fmt;

use super::suggest::nearest;

/// Why a command failed, for the user, and the exit status that says so.
#[derive(Debug)]
pub(super) struct CliError {
    pub(super) status: u8,
    pub(super) message: String,
    /// The option that there is not, with its hyphens: only the command's help knows what was meant.
    unknown_option: Option<String>,
}

impl CliError {
    /// The command line itself is wrong: status 2.
    pub(super) fn usage(message: impl fmt::Display) -> Self {
        Self::new(2, message.to_string())
    }

    /// What was asked for can't be done: status 1.
    pub(super) fn failure(message: impl fmt::Display) -> Self {
        Self::new(1, message.to_string())
    }

    /// There is no `option`, which is as it was typed.
    pub(super) fn unknown_option(option: String) -> Self {
        Self {
            unknown_option: Some(option.clone()),
            ..Self::usage(format_args!("there is no option {option}"))
        }
    }

    const fn new(status: u8, message: String) -> Self {
        Self {
            status,
            message,
            unknown_option: None,
        }
    }

    /// The same for the user of `command`, whose options are those in its `help`.
    pub(super) fn of_command(mut self, command: &str, help: &str) -> Self {
        if let Some(option) = self.unknown_option.take() {
            let words = help.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
            let options = words.filter(|word| word.starts_with("--"));
            let lists = format!("crieur {command} --help lists the options");
            self.message += &did_you_mean(nearest(&option, options), &lists);
        }
        self
    }
}

/// What follows the name of something that there is not.
pub(super) fn did_you_mean(meant: Option<&str>, otherwise: &str) -> String {
    match meant {
        Some(meant) => format!(": did you mean {meant}?"),
        None => format!(": {otherwise}"),
    }
}

impl From<lexopt::Error> for CliError {
    fn from(error: lexopt::Error) -> Self {
        match error {
            lexopt::Error::UnexpectedOption(option) => Self::unknown_option(option),
            lexopt::Error::MissingValue {
                option: Some(option),
            } => Self::usage(format_args!("{option} needs a value")),
            lexopt::Error::UnexpectedValue { option, .. } => {
                Self::usage(format_args!("{option} takes no value"))
            }
            error => Self::usage(error),
        }
    }
}
