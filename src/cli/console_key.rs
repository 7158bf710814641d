//! The key of the console, by which a browser on this host may publish: it is drawn at the start, and shown in a link to
//! the person at the terminal. It is never in the log, which others may read.

use std::io::{self, IsTerminal, Write};
use std::net::{IpAddr, SocketAddr};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::application::Lane;
use crate::config::{Config, Console, ListenAddress};

use super::error::CliError;

const KEY_BYTES: usize = 32;

/// A key where there is a console, somebody to show it to, and publishing from this host isn't turned off.
pub(super) fn draw(config: &Config) -> Result<Option<String>, CliError> {
    let has_console = config.console != Console::Off && config.trust.local_publish;
    if !has_console || !io::stderr().is_terminal() {
        return Ok(None);
    }
    let mut bytes = [0; KEY_BYTES];
    getrandom::fill(&mut bytes)
        .map_err(|error| CliError::failure(format!("no randomness: {error}")))?;
    Ok(Some(URL_SAFE_NO_PAD.encode(bytes)))
}

/// Prints the link, if the console can be reached from this host. What the terminal doesn't take is lost.
pub(super) fn show(key: &str, addresses: &[(ListenAddress, Lane)]) {
    let local = addresses.iter().find_map(|(address, lane)| match address {
        ListenAddress::Tcp(address) if *lane == Lane::Clients => {
            let ip = address.ip().to_canonical();
            (ip.is_loopback() || ip.is_unspecified()).then_some(*address)
        }
        _ => None,
    });
    if let Some(address) = local {
        let url = url(address);
        let _ = writeln!(
            io::stderr(),
            "\nTo publish from the console, open it with this link:\n\n    {url}#publish={key}\n"
        );
    }
}

/// Where a browser on this host finds the console: every address is this host's own as well. No name: `localhost` may
/// be another address of this host, where another user listens.
pub(super) fn url(address: SocketAddr) -> String {
    let port = address.port();
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => format!("http://127.0.0.1:{port}/"),
        IpAddr::V6(ip) if ip.is_unspecified() => format!("http://[::1]:{port}/"),
        _ => format!("http://{address}/"),
    }
}
