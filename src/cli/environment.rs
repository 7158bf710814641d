//! The environment variables that stand for flags.

use super::error::CliError;

/// What the names of our environment variables begin with.
pub(super) const PREFIX: &str = "CRIEUR_";

/// The environment variable that stands for the flag `--name`.
pub(super) fn variable(name: &str) -> String {
    format!("{PREFIX}{}", name.replace('-', "_").to_uppercase())
}

/// The value of the environment variable that stands for the flag `--name`, if it is set.
pub(super) fn from_environment(name: &str) -> Result<Option<String>, CliError> {
    match std::env::var(variable(name)) {
        Ok(value) => Ok(Some(value)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => {
            Err(CliError::usage(format!("{} is not UTF-8", variable(name))))
        }
    }
}
