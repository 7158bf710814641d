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
use crate::redis::Redis;

use super::logging::read_level;
use super::redis;
use super::trust::{
    CLIENT_KEY_FILE, PUBLISH_TOKEN_FILE, REDIS_PASSWORD_FILE, Secrets, parse_secrets, read_secrets,
};

/// The files that are read again.
pub(super) struct Reload {
    /// Those that are in force.
    secrets: RefCell<Secrets>,
    log: String,
    publish_token_file: Option<PathBuf>,
    client_key_file: Option<PathBuf>,
    redis_password_file: Option<PathBuf>,
}

impl Reload {
    /// Those that `config` names; `secrets` are in force.
    pub(super) fn new(config: &Config, secrets: Secrets) -> Self {
        Self {
            secrets: RefCell::new(secrets),
            log: config.log.clone(),
            publish_token_file: config.trust.publish_token_file.clone(),
            client_key_file: config.trust.client_key_file.clone(),
            redis_password_file: config.redis.password_file.clone(),
        }
    }

    /// The secrets that are in force.
    pub(super) fn secrets(&self) -> Ref<'_, Secrets> {
        self.secrets.borrow()
    }

    /// Reads them, replaces what has changed, and says in the log what that is.
    pub(super) fn run(&self, policy: &mut Policy, redis: Option<&mut Redis>) {
        info!("reading the files again");
        self.set_level();
        let mut secrets = self.secrets.borrow_mut();
        let Secrets {
            publish_tokens,
            client_keys,
            redis_password,
            // It is in no file.
            console_key: _,
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
        if let (Some(path), Some(redis)) = (&self.redis_password_file, redis) {
            replace_password(path, redis_password, redis);
        }
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

/// The same for the password of Redis. Connections that are up stay: Redis asks none of them for it again.
fn replace_password(path: &Path, text: &mut Option<String>, redis: &mut Redis) {
    let flag = REDIS_PASSWORD_FILE;
    let read = read_secrets(flag, path).and_then(|text| {
        let password = parse_secrets(flag, path, &text, redis::read_password)?;
        Ok((text, password))
    });
    match read {
        Ok((new_text, password)) => {
            let is_same = text.as_ref() == Some(&new_text);
            let what = match is_same {
                true => "unchanged",
                false => "replaced, for the next connection",
            };
            info!("{flag}: {what}");
            redis.set_password(Some(password));
            *text = Some(new_text);
        }
        Err(error) => keep(&error.message),
    }
}

fn keep(why: &dyn fmt::Display) {
    error!("{why}; the old value stays in force");
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;
    use crate::application::{Endpoint, Uplink, Uplinks};
    use crate::redis::Settings;
    use crate::redis::address::{Login, Server};
    use crate::time::Timestamp;

    fn redis() -> Redis {
        let settings = Settings {
            stream: "crieur".into(),
            maxlen: 1_000,
            timeout: Duration::from_secs(1),
            history: Duration::from_secs(300),
            takes_position: |_| true,
        };
        let server = Server {
            endpoint: Endpoint::Unix("/r".into()),
            login: Login::default(),
        };
        Redis::new(settings, vec![server], 1)
    }

    /// What it says at the start of its next connection.
    fn greeting(redis: &mut Redis) -> String {
        let now = Timestamp::from_micros(1);
        redis.handle_timeout(now);
        assert!(redis.take_connect(Uplink::Writer).is_some());
        redis.handle_connected(Uplink::Writer, now);
        String::from_utf8_lossy(redis.unsent(Uplink::Writer)).into_owned()
    }

    #[test]
    fn the_password_of_redis_is_read_again() {
        let path = format!("crieur-{}-redis-password", std::process::id());
        let path = std::env::temp_dir().join(path);
        let write = |text: &str| {
            fs::write(&path, text).expect("writable");
            fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("ours");
        };
        let mut config = Config::default();
        config.redis.password_file = Some(path.clone());
        let reload = Reload::new(&config, Secrets::default());
        let mut policy = Policy::default();
        let mut run = |text: &str| {
            write(text);
            let mut redis = redis();
            redis.set_password(Some("before".into()));
            reload.run(&mut policy, Some(&mut redis));
            greeting(&mut redis)
        };
        assert!(run("behind\n").contains("$4\r\nAUTH\r\n$6\r\nbehind\r\n"));
        assert_eq!(reload.secrets().redis_password.as_deref(), Some("behind\n"));
        // What can't be used changes nothing.
        assert!(run("one\ntwo\n").contains("before"));
        assert_eq!(reload.secrets().redis_password.as_deref(), Some("behind\n"));
        fs::remove_file(&path).expect("ours");
    }
}
