//! The command line: which command, its flags, its help, its errors; wires the rest together.

use std::ffi::OsString;
use std::fmt;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

mod activation;
mod json_line;
mod logging;
mod notify;
mod publish;
mod reload;
mod remote;
pub mod secret_file;
mod serve;
mod settings;
mod subscribe;
mod trust;

const HELP: &str = "\
crieur hands notifications from an API to the clients that subscribed to them.

Usage:
  crieur [serve] [OPTIONS]                        run the server
  crieur subscribe [--url URL] SUBSCRIPTION...    print what arrives for subscriptions
  crieur publish [--url URL] NOTIFICATION         send a notification

  crieur COMMAND --help                           what a command takes
  crieur --version

Without a command, the server runs on 127.0.0.1:8000.
";

/// Why a command failed, for the user, and the exit status that says so.
#[derive(Debug)]
struct CliError {
    status: u8,
    message: String,
}

impl CliError {
    /// The command line itself is wrong: status 2.
    fn usage(message: impl fmt::Display) -> Self {
        Self {
            status: 2,
            message: message.to_string(),
        }
    }

    /// What was asked for can't be done: status 1.
    fn failure(message: impl fmt::Display) -> Self {
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

/// Runs the program with `arguments`, the program's name left out.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    match run(arguments.collect()) {
        Ok(status) => status,
        Err(CliError { status, message }) => {
            // Standard error may be closed; the status still says it.
            let _ = write_line(&mut std::io::stderr(), &format!("crieur: {message}"));
            ExitCode::from(status)
        }
    }
}

fn run(mut arguments: Vec<OsString>) -> Result<ExitCode, CliError> {
    let command = arguments
        .first()
        .and_then(|first| first.to_str())
        .map(str::to_owned);
    match command.as_deref() {
        Some("serve") => serve::run(arguments.split_off(1)),
        Some("subscribe") => subscribe::run(arguments.split_off(1)),
        Some("publish") => publish::run(arguments.split_off(1)),
        Some("help") => print(HELP),
        Some("--help" | "-h") => print(&format!("{HELP}\n{}", serve::help())),
        Some("--version" | "-V") => print(&format!("crieur {}\n", env!("CARGO_PKG_VERSION"))),
        Some(word) if !word.starts_with('-') => Err(CliError::usage(format!(
            "there is no command {word:?}: try serve, subscribe, publish or --help"
        ))),
        _ => serve::run(arguments),
    }
}

/// Prints `text` on standard output.
fn print(text: &str) -> Result<ExitCode, CliError> {
    let mut stdout = std::io::stdout();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Ok(()) => Ok(ExitCode::SUCCESS),
        // A reader that has seen enough, like `head`, is no failure.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(error) => Err(CliError::failure(format!("standard output: {error}"))),
    }
}

/// Writes `line` and its end at once.
fn write_line(to: &mut impl Write, line: &str) -> std::io::Result<()> {
    to.write_all(format!("{line}\n").as_bytes())?;
    to.flush()
}

/// What the names of our environment variables begin with.
const PREFIX: &str = "CRIEUR_";

/// The environment variable that stands for the flag `--name`.
fn variable(name: &str) -> String {
    format!("{PREFIX}{}", name.replace('-', "_").to_uppercase())
}

/// The value of the environment variable that stands for the flag `--name`, if it is set.
fn from_environment(name: &str) -> Result<Option<String>, CliError> {
    match std::env::var(variable(name)) {
        Ok(value) => Ok(Some(value)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => {
            Err(CliError::usage(format!("{} is not UTF-8", variable(name))))
        }
    }
}
