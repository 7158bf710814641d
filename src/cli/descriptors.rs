//! How many connections the process's descriptors allow.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;
use crate::net::engine::SPARE_CONNECTIONS;

use super::error::CliError;

/// Descriptors that aren't connections: standard streams, poll, signals, listeners.
const RESERVED: usize = 32;

/// Raises the soft limit of descriptors to the hard one, and lowers the number of connections
/// to what that allows, with so many `lanes` of publishers. Returns what an operator should know then.
pub(super) fn fit(config: &mut Config, lanes: usize) -> Result<Option<String>, CliError> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // What is not granted shows in the limit that is read next.
        let _ = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: limit.maximum,
                ..limit
            },
        );
    }
    let Some(descriptors) = getrlimit(Resource::Nofile).current else {
        return Ok(None);
    };
    let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
    let publishers = match lanes {
        0 => 0,
        _ => config.server.limits.publishers_max + SPARE_CONNECTIONS,
    };
    let listeners = config.server.listen.len() + lanes;
    let reserved = RESERVED + SPARE_CONNECTIONS + listeners + publishers;
    let connections_max = descriptors.saturating_sub(reserved);
    if connections_max == 0 {
        return Err(CliError::failure(format!(
            "this process may open {descriptors} files, but needs {}: raise the limit \
             (ulimit -n, or LimitNOFILE= in a systemd unit)",
            reserved + 1
        )));
    }
    let wanted = &mut config.server.limits.connections_max;
    if *wanted <= connections_max {
        return Ok(None);
    }
    let warning = format!(
        "At most {connections_max} connections are possible, not {wanted}, because this process may open \
         {descriptors} files. Raise that limit (ulimit -n, or LimitNOFILE= in a systemd unit), \
         or lower --max-connections."
    );
    *wanted = connections_max;
    Ok(Some(warning))
}
