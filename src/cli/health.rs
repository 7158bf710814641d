//! `crieur health`: whether a server is healthy, for monitors that can run a program and nothing else, as in an image
//! where there is no other.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use crate::client::Request;

use super::arguments::{self, unexpected};
use super::error::CliError;
use super::output::print;
use super::remote::{beside, default_url, failed, server};

pub(super) const HELP: &str = "\
Usage: crieur health [OPTIONS]

Asks a server whether it is healthy (GET /healthz). If it is, prints ok, and the status is 0. If it
can't reach its Redis, or doesn't answer within 5 seconds, the status is 1.

  --live             Ask only whether its event loop runs (GET /livez)

  --url URL          The server [ws://127.0.0.1:8000/, or CRIEUR_URL]: ws://HOST:PORT/,
                     http://HOST:PORT/ or unix:PATH; the last part of a path becomes healthz or
                     livez

Example:
  crieur health --url unix:/run/crieur/publish.sock
";

/// How long the server may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) fn run(arguments: Vec<OsString>) -> Result<ExitCode, CliError> {
    let Some(given) = arguments::read(arguments, &["url"], &["live"])? else {
        return print(HELP);
    };
    let mut url = default_url()?;
    let mut name = "healthz";
    for (option, value) in given {
        match option {
            "url" => url = value,
            "live" => name = "livez",
            _ => return Err(unexpected(&value)),
        }
    }
    let url = beside(&server(&url, None)?, name);
    let answer = Request::connect(&url, ANSWER_TIMEOUT).and_then(Request::get);
    match answer.map_err(|error| failed(&url, error))? {
        answer if answer.status == 200 => print("ok\n"),
        answer => Err(failed(&url, answer)),
    }
}
