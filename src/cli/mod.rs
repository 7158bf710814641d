//! The command line: which command, its help, and its exit status.

use std::ffi::OsString;
use std::process::ExitCode;

mod activation;
mod environment;
mod error;
mod handover;
mod history;
mod json_line;
mod logging;
mod notify;
mod output;
mod position;
mod publish;
mod redis;
mod reload;
mod remote;
pub mod secret_file;
mod serve;
mod settings;
mod subscribe;
mod trust;

use self::error::CliError;
use self::output::{print, write_line};

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
