//! Sockets that a service manager listens on and hands over (sd_listen_fds(3)): they stay open
//! between one process and the next, so that a client that comes meanwhile waits instead of being refused.

use std::io;

use listenfd::ListenFd;

use crate::application::Lane;
use crate::config::{ListenAddress, ServerConfig};
use crate::net::listener::Listener;

use super::error::CliError;

/// The name of a socket for publishers; every other is for clients.
const PUBLISH_NAME: &str = "publish";

/// The sockets that this process was given. Must be asked before it has threads, and only once:
/// the environment forgets them, so that nothing which is started takes them for its own.
pub(super) fn take_listeners() -> Result<Vec<Listener>, CliError> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut given = ListenFd::from_env();
    let mut listeners = Vec::new();
    for number in 0..given.len() {
        let name = names.next().unwrap_or_default();
        let lane = match name {
            PUBLISH_NAME => Lane::Publishers,
            _ => Lane::Clients,
        };
        let listener = take(&mut given, number, lane).map_err(|error| {
            CliError::failure(format!("LISTEN_FDS: socket {number} {name:?}: {error}"))
        })?;
        listeners.extend(listener);
    }
    Ok(listeners)
}

fn take(given: &mut ListenFd, number: usize, lane: Lane) -> io::Result<Option<Listener>> {
    // A socket that is no Unix socket has to be TCP.
    match given.take_unix_listener(number) {
        Ok(socket) => socket.map(|socket| Listener::from_std_unix(socket, lane)),
        Err(_) => given
            .take_tcp_listener(number)?
            .map(|socket| Listener::from_std_tcp(socket, lane)),
    }
    .transpose()
}

/// The addresses of `listeners`, with what for.
pub(super) fn addresses(listeners: &[Listener]) -> Result<Vec<(ListenAddress, Lane)>, CliError> {
    let addresses = listeners
        .iter()
        .map(|listener| Ok((listener.local_addr()?, listener.lane())));
    let addresses: io::Result<_> = addresses.collect();
    addresses.map_err(CliError::failure)
}

/// Has sockets that are there already take the place of the addresses of their lanes.
pub(super) fn replace_addresses(config: &mut ServerConfig, given: &[(ListenAddress, Lane)]) {
    let is_given = |lane| given.iter().any(|(_, of)| *of == lane);
    if is_given(Lane::Clients) {
        config.listen.clear();
    }
    if is_given(Lane::Publishers) {
        config.publish_listen.clear();
    }
}
