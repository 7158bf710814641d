//! What an operator should know when a server starts, or is about to: each warning says what to do.
//!
//! Owns the words; who says them is elsewhere. Warnings are whole sentences.

use std::net::SocketAddr;

use crate::config::{Config, TrustConfig};
use crate::hub::access::policy::Policy;

use super::redis;

/// What follows from the settings alone.
pub(super) fn of_settings(config: &Config, policy: &Policy) -> Vec<String> {
    let is_closed = !policy.has_lane && policy.publish_tokens.is_none();
    let publishing = if policy.trusts_local() {
        "Any program on this host may publish. Behind a proxy, set --publish-listen or --publish-token-file."
    } else if is_closed {
        "Nobody may publish. Set --publish-listen or --publish-token-file."
    } else {
        ""
    };
    let password = "All users of this host can see the password in --redis. \
                    Put it into a file and set --redis-password-file.";
    let directory = "--history-directory has no effect, because the history is off. \
                     Remove it, or set --history-seconds and --history-bytes.";
    let has_idle_directory = config.history_directory.is_some() && !config.history.is_on();
    [
        (publishing, !publishing.is_empty()),
        (password, redis::shows_password(config)),
        (directory, has_idle_directory),
    ]
    .into_iter()
    .filter(|(_, is_due)| *is_due)
    .map(|(warning, _)| warning.to_owned())
    .collect()
}

/// Whether everybody may subscribe to everything though others than this host reach a server that listens for clients on
/// `addresses`.
pub(super) fn of_addresses(
    trust: &TrustConfig,
    addresses: impl Iterator<Item = SocketAddr>,
) -> Option<String> {
    if trust.client_key_file.is_some() {
        return None;
    }
    let open = addresses.filter(|address| !address.ip().to_canonical().is_loopback());
    let mut open: Vec<_> = open.map(|address| address.to_string()).collect();
    if !trust.trusted_proxy.is_empty() {
        open.push("the proxy".to_owned());
    }
    (!open.is_empty()).then(|| {
        let open = open.join(" or ");
        format!(
            "Everybody who reaches {open} may subscribe to everything. \
             To decide who may subscribe to what, set --client-key-file."
        )
    })
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn config(set: impl FnOnce(&mut Config)) -> Config {
        let mut config = Config::default();
        set(&mut config);
        config
    }

    /// What is said of `config`, with a policy that has the same trust and no file.
    fn settings(config: &Config, has_lane: bool) -> String {
        let policy = Policy {
            local_publish: config.trust.local_publish,
            has_lane,
            ..Policy::default()
        };
        of_settings(config, &policy).join("\n")
    }

    #[test]
    fn who_may_publish_is_said_where_it_may_be_a_mistake() {
        let open = Config::default();
        assert!(settings(&open, false).starts_with("Any program on this host may publish."));
        assert_eq!(settings(&open, true), "");
        let closed = config(|config| config.trust.local_publish = false);
        assert!(settings(&closed, false).starts_with("Nobody may publish."));
    }

    #[test]
    fn a_directory_without_a_history_is_of_no_use() {
        let is_said = |bytes_max| {
            let config = config(|config| {
                config.history_directory = Some("/d".into());
                config.history.bytes_max = bytes_max;
            });
            settings(&config, true).contains("--history-directory")
        };
        assert_eq!([is_said(0), is_said(1)], [true, false]);
    }

    #[test]
    fn everybody_may_subscribe_is_said_where_others_reach_the_server() {
        let said = |set: fn(&mut Config), addresses: &[&str]| {
            let config = config(set);
            let addresses = addresses.iter().map(|text| text.parse().expect("valid"));
            of_addresses(&config.trust, addresses)
        };
        fn nothing(config: &mut Config) {
            config.trust.connections_per_address = NonZeroU32::new(1);
        }
        fn key(config: &mut Config) {
            config.trust.client_key_file = Some("/k".into());
        }
        fn proxy(config: &mut Config) {
            config.trust.trusted_proxy = vec!["127.0.0.1".to_owned()];
        }
        let loopback = ["127.0.0.1:8000", "[::1]:8000", "[::ffff:127.0.0.1]:8000"];
        let open = ["127.0.0.1:1", "0.0.0.0:8000", "[2001:db8::1]:8000"];
        assert_eq!(said(nothing, &loopback), None);
        assert_eq!(said(key, &open), None);
        let line = said(nothing, &open).expect("a warning");
        let start = "Everybody who reaches 0.0.0.0:8000 or [2001:db8::1]:8000 may subscribe";
        assert!(line.starts_with(start), "{line}");
        let line = said(proxy, &loopback).expect("a warning");
        assert!(
            line.starts_with("Everybody who reaches the proxy may"),
            "{line}"
        );
    }
}
