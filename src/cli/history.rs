//! The directory that the history is kept in, opened for a server.

use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{env, fmt};

use log::{error, info};

use crate::config::Config;
use crate::count::Count;
use crate::handover::{Fields, Malformed};
use crate::hub::Hub;
use crate::journal::boot::Boot;
use crate::journal::directory::Directory;
use crate::journal::id::Generation;
use crate::journal::segments::{Segments, discard};
use crate::journal::storage::Storage;
use crate::journal::write_ahead::WriteAhead;

use super::error::CliError;

/// What systemd calls the directory of the unit in /run (systemd.exec(5)).
const RUNTIME_DIRECTORY: &str = "RUNTIME_DIRECTORY";

/// Has `hub` go on with what the directory has, if there is one, and write to it. Where it can be made empty, but not
/// written, the history is kept in memory: a full disk keeps no server from starting.
pub(super) fn open(config: &Config, hub: Hub, generation: Generation) -> Result<Hub, CliError> {
    let Some(path) = &config.history_directory else {
        return Ok(hub);
    };
    let failure = |error| {
        let path = path.display();
        format!("cannot keep the history in {path}: {error}")
    };
    if !config.history.is_on() {
        // What is published now is missing there: a later start must not go on from it.
        if path.exists() {
            let directory = Directory::open(path, Boot::default());
            let mut directory = directory.map_err(CliError::failure)?;
            discard(&mut directory).map_err(|error| CliError::failure(failure(error)))?;
        }
        return Ok(hub);
    }
    let boot = Boot::find(env::var(RUNTIME_DIRECTORY).ok().as_deref());
    let directory = Directory::open(path, boot.clone()).map_err(CliError::failure)?;
    let bytes_max = config.history.bytes_max as u64;
    let opened = Segments::open(Box::new(directory), bytes_max, boot.mark, generation);
    let (segments, restored) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let mut directory = Directory::open(path, boot).map_err(CliError::failure)?;
            discard(&mut directory).map_err(|error| CliError::failure(failure(error)))?;
            error!("{}; it is kept in memory only", failure(error));
            return Ok(hub.without_directory());
        }
    };
    let write_ahead = WriteAhead::new(segments);
    let hub = hub.with_history(config.history, &restored, write_ahead, unix_now());
    let (path, entries) = (path.display(), hub.journal().history().len());
    let count = Count(entries as u64, "notification");
    info!(entries; "the history in {path} is taken over, with {count}");
    Ok(hub)
}

/// The log that the program before has kept in `directory`, of which `descriptors` are left.
pub(super) fn go_on(
    config: &Config,
    directory: &Fields<'_>,
    descriptors: [OwnedFd; 4],
) -> Result<WriteAhead, CliError> {
    let failure = |error: &dyn fmt::Display| {
        CliError::failure(format!("cannot take the history over: {error}"))
    };
    let path = config.history_directory.as_deref();
    let path = path.ok_or_else(|| failure(&"--history-directory is not given any more"))?;
    let bytes_max = config.history.bytes_max as u64;
    let open = |fields: &Fields<'_>| {
        let directory = Directory::carried(path, descriptors, fields)?;
        Ok(Box::new(directory) as Box<dyn Storage>)
    };
    WriteAhead::carried(directory, bytes_max, open).map_err(|error| failure(&error))
}

/// Looks whether [`go_on`] could, given descriptors.
pub(super) fn check_carried(directory: &Fields<'_>) -> Result<(), Malformed> {
    let mut is_whole = false;
    // The storage is opened when all else was looked at.
    let carried = WriteAhead::carried(directory, 0, |fields| {
        Directory::check_carried(fields)?;
        is_whole = true;
        Err(Malformed("there are no descriptors"))
    });
    match carried {
        Err(error) if !is_whole => Err(error),
        _ => Ok(()),
    }
}

fn unix_now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}
