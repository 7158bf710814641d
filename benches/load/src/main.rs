//! The load generator: drives a server that speaks crieur's protocol, checks every delivery, and
//! measures what it cost the server. `load --help` says how.

mod checker;
mod command;
mod connections;
mod dialect;
mod figures;
mod frame;
mod histogram;
mod id;
mod limit;
mod message;
mod nodes;
mod options;
mod poller;
mod publisher;
mod redis;
mod report;
mod resuming;
mod server;
mod socket;
mod system;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::process::ExitCode;

use options::Command;

/// The status after a command line that can't be followed.
const STATUS_USAGE: u8 = 2;

fn help() -> String {
    let mut text = String::from(
        "\
Usage: load COMMAND [OPTIONS]
       load limit COMMAND [OPTIONS]
       load limit server --help

Drives a server that speaks crieur's protocol over the loopback, with one thread on a core of its
own, and checks every delivery: exactly once, in order, intact. A table goes to the standard error,
the result as a JSON object to the standard output. The exit status is 1 if anything was lost,
doubled, reordered or damaged.

The server is one that runs (--target, pinned to another core by whoever started it), or one that
is started for the run (--server-command), or with `limit` the floor: a server that makes only
the system calls that the task can't do without. What a server costs beside the floor is its own.

",
    );
    for command in Command::ALL {
        // Writing to a string can't fail.
        let _ = writeln!(text, "  {:<9} {}", command.name(), command.about());
    }
    text.push_str("\n`load COMMAND --help` lists the options.\n");
    text
}

fn main() -> ExitCode {
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let is_limit = arguments.first().is_some_and(|word| word == "limit");
    if is_limit {
        arguments.remove(0);
    }
    let word = if arguments.is_empty() {
        String::new()
    } else {
        arguments.remove(0).to_string_lossy().into_owned()
    };
    if is_limit && word == "server" {
        return finish(limit::run(arguments));
    }
    let Some(command) = Command::ALL
        .into_iter()
        .find(|command| command.name() == word)
    else {
        if word == "--help" || word == "-h" {
            print!("{}", help());
            return ExitCode::SUCCESS;
        }
        eprint!("{}", help());
        return ExitCode::from(STATUS_USAGE);
    };
    match options::read(command, arguments) {
        Ok(None) => {
            print!("{}", options::help(command));
            ExitCode::SUCCESS
        }
        Ok(Some(options)) => finish(command::run(command, &options, is_limit)),
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::from(STATUS_USAGE)
        }
    }
}

fn finish(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: FAILED: {error}");
            ExitCode::FAILURE
        }
    }
}
