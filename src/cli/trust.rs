//! The policy of trust, from what was configured: the files are read, and a contradiction is refused
//! before anything listens.

use std::fmt;
use std::num::NonZeroU32;
use std::path::Path;

use crate::config::{Config, ListenAddress};
use crate::hub::access::addresses::AddressLimits;
use crate::hub::access::console_key::ConsoleKey;
use crate::hub::access::jwt::ClientKeys;
use crate::hub::access::origin::AllowedOrigins;
use crate::hub::access::policy::Policy;
use crate::hub::access::proxy::{Cidr, CidrError, TrustedProxies};
use crate::hub::access::token_file::PublishTokens;

use super::error::CliError;
use super::secret_file::read_secret_file;

/// The flags that name files of secrets.
pub(super) const PUBLISH_TOKEN_FILE: &str = "--publish-token-file";
pub(super) const CLIENT_KEY_FILE: &str = "--client-key-file";
pub(super) const REDIS_PASSWORD_FILE: &str = "--redis-password-file";

/// The texts of the files of secrets, as they were read, and the key of the console.
#[derive(Default)]
pub(super) struct Secrets {
    pub(super) publish_tokens: Option<String>,
    pub(super) client_keys: Option<String>,
    pub(super) redis_password: Option<String>,
    /// This one is in no file.
    pub(super) console_key: Option<String>,
}

impl Secrets {
    /// Reads the files that `config` names, but for those whose text is here already.
    pub(super) fn read(mut self, config: &Config) -> Result<Self, CliError> {
        let trust = &config.trust;
        for (text, flag, path) in [
            (
                &mut self.publish_tokens,
                PUBLISH_TOKEN_FILE,
                &trust.publish_token_file,
            ),
            (
                &mut self.client_keys,
                CLIENT_KEY_FILE,
                &trust.client_key_file,
            ),
            (
                &mut self.redis_password,
                REDIS_PASSWORD_FILE,
                &config.redis.password_file,
            ),
        ] {
            if let (None, Some(path)) = (&text, path) {
                *text = Some(read_secrets(flag, path)?);
            }
        }
        Ok(self)
    }
}

/// What `config` says, with the `secrets` of its files; `lanes` are the publishers' own addresses.
pub(super) fn read_policy(
    config: &Config,
    secrets: &Secrets,
    lanes: &[ListenAddress],
) -> Result<Policy, CliError> {
    let trust = &config.trust;
    let publish_tokens = trust.publish_token_file.as_deref();
    let publish_tokens = publish_tokens.zip(secrets.publish_tokens.as_deref());
    let client_keys = trust.client_key_file.as_deref();
    let client_keys = client_keys.zip(secrets.client_keys.as_deref());
    let origins = (!trust.allow_origin.is_empty())
        .then(|| AllowedOrigins::parse(trust.allow_origin.iter().map(String::as_str)))
        .transpose()
        .map_err(|error| CliError::usage(format!("--allow-origin: {error}")))?;
    let proxies = read_networks("--trusted-proxy", &trust.trusted_proxy)?;
    let policy = Policy {
        local_publish: trust.local_publish,
        has_lane: !lanes.is_empty(),
        publish_tokens: publish_tokens
            .map(|(path, text)| parse_secrets(PUBLISH_TOKEN_FILE, path, text, PublishTokens::parse))
            .transpose()?,
        client_keys: client_keys
            .map(|(path, text)| parse_secrets(CLIENT_KEY_FILE, path, text, ClientKeys::parse))
            .transpose()?,
        console_key: secrets.console_key.as_deref().map(ConsoleKey::new),
        metrics_from: read_networks("--metrics-from", &trust.metrics_from)?,
        origins,
        proxies: TrustedProxies(proxies),
        address_limits: AddressLimits {
            connections_max: trust.connections_per_address.map(NonZeroU32::get),
            upgrades_per_second: trust.upgrades_per_address,
        },
    };
    if policy.publish_tokens.is_none() {
        refuse_open_lanes(lanes)?;
    }
    Ok(policy)
}

/// The text of a file of secrets that `flag` names.
pub(super) fn read_secrets(flag: &str, path: &Path) -> Result<String, CliError> {
    read_secret_file(path).map_err(|error| CliError::failure(format!("{flag}: {error}")))
}

/// What `parse` makes of the text of a file of secrets that `flag` names.
pub(super) fn parse_secrets<T, E: fmt::Display>(
    flag: &str,
    path: &Path,
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, CliError> {
    let path = path.display();
    parse(text).map_err(|error| CliError::failure(format!("{flag}: {path}: {error}")))
}

/// A lane that others than this host can reach takes tokens.
fn refuse_open_lanes(lanes: &[ListenAddress]) -> Result<(), CliError> {
    for lane in lanes {
        if let ListenAddress::Tcp(address) = lane
            && !address.ip().to_canonical().is_loopback()
        {
            return Err(CliError::usage(format!(
                "--publish-listen {address}: everybody who reaches this address could publish. \
                 Use a loopback address or a Unix socket, or set --publish-token-file"
            )));
        }
    }
    Ok(())
}

fn read_networks(flag: &str, written: &[String]) -> Result<Vec<Cidr>, CliError> {
    let networks = written.iter().map(|cidr| cidr.parse());
    networks
        .collect::<Result<_, _>>()
        .map_err(|error: CidrError| CliError::usage(format!("{flag}: {error}")))
}
