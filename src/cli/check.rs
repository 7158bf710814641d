//! `crieur --check`: finds what a start would find, and leaves the system as it is.
//!
//! A server with the same settings may be running meanwhile, as when systemd reloads it. So an address in use is only
//! noted, and nothing is taken, made or removed. What only a start can know is not looked at: the history's directory,
//! which is locked, and Redis, which may come later.

use std::process::ExitCode;

use crate::config::{Config, ListenAddress, ServerConfig};
use crate::net::probe::{self, Probed};
use crate::net::server::StartError;

use super::error::CliError;
use super::logging::read_level;
use super::output::{print, write_line};
use super::trust::{self, Secrets};
use super::{descriptors, redis, warnings};

pub(super) fn run(mut config: Config) -> Result<ExitCode, CliError> {
    read_level(&config.log)?;
    let secrets = Secrets::default().read(&config)?;
    let policy = trust::read_policy(&config, &secrets, &config.server.publish_listen)?;
    redis::read(&config, &secrets)?;
    refuse_double(&config.server)?;
    let in_use = probe_all(&config.server)?;
    let lanes = config.server.publish_listen.len();
    let fewer = descriptors::fit(&mut config, lanes)?;
    let settings = warnings::of_settings(&config, &policy).into_iter();
    let addresses = config.server.listen.iter().copied();
    let open = warnings::of_addresses(&config.trust, addresses);
    for warning in settings.chain(open).chain(fewer) {
        say(&format!("warning: {warning}"));
    }
    for address in in_use {
        say(&format!(
            "note: {address} is in use. That is right if this server is running, or systemd listens there for it; \
             otherwise the server can't start."
        ));
    }
    print("ok\n")
}

fn say(line: &str) {
    // The status is what counts.
    let _ = write_line(&mut std::io::stderr(), &format!("crieur: {line}"));
}

/// The addresses that are in use.
fn probe_all(config: &ServerConfig) -> Result<Vec<ListenAddress>, CliError> {
    let mut in_use = Vec::new();
    for address in all(config) {
        match probe::probe(&address, config.reuse_port) {
            Ok(Probed::Free) => {}
            Ok(Probed::InUse) => in_use.push(address),
            Err(error) => return Err(CliError::failure(StartError::Listen(address, error))),
        }
    }
    Ok(in_use)
}

fn all(config: &ServerConfig) -> impl Iterator<Item = ListenAddress> {
    let clients = config.listen.iter().copied().map(ListenAddress::Tcp);
    clients.chain(config.publish_listen.iter().cloned())
}

/// Refuses an address that is given twice: the second would be found in use, and with `--reuse-port` shared.
pub(super) fn refuse_double(config: &ServerConfig) -> Result<(), CliError> {
    let all: Vec<_> = all(config).collect();
    for (number, address) in all.iter().enumerate() {
        for earlier in &all[..number] {
            let is_same = address == earlier && !is_any_port(address);
            let overlap = includes(earlier, address) || includes(address, earlier);
            if is_same || (overlap && !config.reuse_port) {
                return Err(CliError::usage(format_args!(
                    "--listen, --publish-listen: {earlier} and {address} are the same, so leave one out"
                )));
            }
        }
    }
    Ok(())
}

/// Whether the system chooses the port, another one each time.
fn is_any_port(address: &ListenAddress) -> bool {
    matches!(address, ListenAddress::Tcp(address) if address.port() == 0)
}

/// Whether `address` is one of those of this machine that `all` means.
fn includes(all: &ListenAddress, address: &ListenAddress) -> bool {
    let (ListenAddress::Tcp(all), ListenAddress::Tcp(address)) = (all, address) else {
        return false;
    };
    all.ip().is_unspecified()
        && all.is_ipv4() == address.is_ipv4()
        && all.port() == address.port()
        && all.port() != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_given_twice_is_refused() {
        let config = |listen: &[&str], publish: &[&str], reuse_port| ServerConfig {
            listen: listen
                .iter()
                .map(|text| text.parse().expect("valid"))
                .collect(),
            publish_listen: publish
                .iter()
                .map(|text| match text.strip_prefix("unix:") {
                    Some(path) => ListenAddress::Unix(path.into()),
                    None => ListenAddress::Tcp(text.parse().expect("valid")),
                })
                .collect(),
            reuse_port,
            ..ServerConfig::default()
        };
        let is_refused = |listen: &[&str], publish: &[&str], reuse_port| {
            refuse_double(&config(listen, publish, reuse_port)).is_err()
        };
        for (listen, publish) in [
            (&["127.0.0.1:1", "127.0.0.1:1"][..], &[][..]),
            (&["127.0.0.1:1"], &["127.0.0.1:1"]),
            (&["[::1]:1"], &["[::1]:1"]),
            (&[], &["unix:/a", "unix:/b", "unix:/a"]),
        ] {
            assert!(is_refused(listen, publish, false), "{listen:?} {publish:?}");
            assert!(is_refused(listen, publish, true), "{listen:?} {publish:?}");
        }
        for (listen, publish) in [
            (&["0.0.0.0:1"][..], &["127.0.0.1:1"][..]),
            (&["127.0.0.1:1", "0.0.0.0:1"], &[]),
            (&["[::]:1", "[::1]:1"], &[]),
        ] {
            assert!(is_refused(listen, publish, false), "{listen:?} {publish:?}");
            // The narrower one wins then.
            assert!(!is_refused(listen, publish, true), "{listen:?} {publish:?}");
        }
        for (listen, publish) in [
            (&["127.0.0.1:1", "127.0.0.1:2"][..], &["127.0.0.2:1"][..]),
            (&["0.0.0.0:1", "[::]:1", "[::1]:2"], &[]),
            (
                &["127.0.0.1:0", "127.0.0.1:0", "0.0.0.0:0"],
                &["unix:/a", "unix:/b"],
            ),
        ] {
            assert!(
                !is_refused(listen, publish, false),
                "{listen:?} {publish:?}"
            );
        }
    }
}
