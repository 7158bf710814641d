//! What is read again while the server runs: the files of secrets, and the level of the log where
//! a file says it. A file that can't be used leaves the old values in force.
//!
//! Main type: [`Reload`].

use std::cell::{Ref, RefCell};
use std::fmt;
use std::path::{Path, PathBuf};

use log::{error, info};

use crate::config::Config;
use crate::hub::access::jwt::ClientKeys;
use crate::hub::access::policy::Policy;
use crate::hub::access::secret_lines::{Exchange, SecretsError};
use crate::hub::access::token_file::PublishTokens;

use super::logging::read_level;
use super::trust::{CLIENT_KEY_FILE, PUBLISH_TOKEN_FILE, Secrets, parse_secrets, read_secrets};

/// The files that are read again.
pub(super) struct Reload {
    /// Those that are in force.
    secrets: RefCell<Secrets>,
    log: String,
    publish_token_file: Option<PathBuf>,
    client_key_file: Option<PathBuf>,
}

impl Reload {
    /// Those that `config` names; `secrets` are in force.
    pub(super) fn new(config: &Config, secrets: Secrets) -> Self {
        Self {
            secrets: RefCell::new(secrets),
            log: config.log.clone(),
            publish_token_file: config.trust.publish_token_file.clone(),
            client_key_file: config.trust.client_key_file.clone(),
        }
    }

    /// The secrets that are in force.
    pub(super) fn secrets(&self) -> Ref<'_, Secrets> {
        self.secrets.borrow()
    }

    /// Reads them, replaces what has changed, and says in the log what that is.
    pub(super) fn run(&self, policy: &mut Policy) {
        info!("reading the files again");
        self.set_level();
        let mut secrets = self.secrets.borrow_mut();
        let Secrets {
            publish_tokens,
            client_keys,
        } = &mut *secrets;
        replace(
            PUBLISH_TOKEN_FILE,
            self.publish_token_file.as_deref(),
            publish_tokens,
            &mut policy.publish_tokens,
            PublishTokens::parse,
            PublishTokens::exchange,
        );
        replace(
            CLIENT_KEY_FILE,
            self.client_key_file.as_deref(),
            client_keys,
            &mut policy.client_keys,
            ClientKeys::parse,
            ClientKeys::exchange,
        );
    }

    fn set_level(&self) {
        match read_level(&self.log) {
            Ok(level) => {
                let old = log::max_level();
                // Said at the wider of the two, so that it can be seen in which direction it went.
                log::set_max_level(level.max(old));
                if level != old {
                    info!("--log: {old} until now, {level} from now on");
                }
                log::set_max_level(level);
            }
            Err(error) => keep(&error.message),
        }
    }
}

/// Replaces secrets by those that a file has now.
fn replace<T>(
    flag: &str,
    path: Option<&Path>,
    text: &mut Option<String>,
    secrets: &mut Option<T>,
    parse: fn(&str) -> Result<T, SecretsError>,
    exchange: fn(&T, &T) -> Exchange,
) {
    let (Some(path), Some(secrets)) = (path, secrets) else {
        return;
    };
    let read = read_secrets(flag, path)
        .and_then(|text| parse_secrets(flag, path, &text, parse).map(|new| (text, new)));
    match read {
        Ok((new_text, new)) => {
            info!("{flag}: {}", exchange(&new, secrets));
            *secrets = new;
            *text = Some(new_text);
        }
        Err(error) => keep(&error.message),
    }
}

fn keep(why: &dyn fmt::Display) {
    error!("{why}; the old value stays in force");
}
