//! The Redis that several servers share, from what was configured: its URLs are read, a contradiction is refused before
//! anything listens, and names are resolved once, when a server starts.
//!
//! Main type: [`Wanted`]. Invariant: nothing that is said shows a password, so no URL is shown.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use crate::application::Endpoint;
use crate::config::{Config, RedisConfig};
use crate::hub::command;
use crate::redis::address::{Address, Location, Server};
use crate::redis::{Redis, Settings};

use super::error::CliError;
use super::trust::{REDIS_PASSWORD_FILE, Secrets, parse_secrets};

/// A read waits for half of it, and Redis counts that in milliseconds.
const TIMEOUT_MIN: Duration = Duration::from_millis(2);

/// What was configured, without a contradiction in it.
pub(super) struct Wanted {
    addresses: Vec<Address>,
    password: Option<Box<str>>,
    settings: Settings,
}

/// What `config` says, with the `secrets` of its files; `None` for a server that is alone.
pub(super) fn read(config: &Config, secrets: &Secrets) -> Result<Option<Wanted>, CliError> {
    let RedisConfig {
        urls,
        password_file,
        stream,
        maxlen,
        timeout,
    } = &config.redis;
    if urls.is_empty() {
        return refuse_alone(config).map(|()| None);
    }
    if config.history_directory.is_some() {
        return Err(CliError::usage(
            "give --history-directory or --redis, not both: with --redis, the stream in Redis is the history",
        ));
    }
    if stream.is_empty() {
        return Err(CliError::usage("--redis-stream: the key must not be empty"));
    }
    if *timeout < TIMEOUT_MIN {
        return Err(CliError::usage(
            "--redis-timeout must be at least 0.002 seconds",
        ));
    }
    let has_file = password_file.is_some();
    let addresses = urls.iter().enumerate().map(|(number, url)| {
        read_url(url, has_file).map_err(|error| {
            let number = number + 1;
            CliError::usage(format!("--redis, URL {number}: {error}"))
        })
    });
    let addresses = addresses.collect::<Result<_, _>>()?;
    let password = password_file
        .as_deref()
        .zip(secrets.redis_password.as_deref());
    let password = password
        .map(|(path, text)| parse_secrets(REDIS_PASSWORD_FILE, path, text, read_password))
        .transpose()?;
    let history = if config.history.is_on() {
        config.history.age_max
    } else {
        Duration::ZERO
    };
    let settings = Settings {
        stream: stream.as_str().into(),
        maxlen: *maxlen,
        timeout: *timeout,
        history,
        takes_position: command::takes_position,
    };
    Ok(Some(Wanted {
        addresses,
        password,
        settings,
    }))
}

/// What has no meaning in a server that is alone is refused: who has forgotten the URL would have a node that the others
/// don't know.
fn refuse_alone(config: &Config) -> Result<(), CliError> {
    if config.server.reuse_port {
        return Err(CliError::usage(
            "--reuse-port needs --redis: without it, each process would have only a part of the clients",
        ));
    }
    let defaults = RedisConfig::default();
    let RedisConfig {
        urls: _,
        password_file,
        stream,
        maxlen,
        timeout,
    } = &config.redis;
    for (flag, is_set) in [
        (REDIS_PASSWORD_FILE, password_file.is_some()),
        ("--redis-stream", *stream != defaults.stream),
        ("--redis-maxlen", *maxlen != defaults.maxlen),
        ("--redis-timeout", *timeout != defaults.timeout),
    ] {
        if is_set {
            return Err(CliError::usage(format!("{flag} needs --redis")));
        }
    }
    Ok(())
}

fn read_url(url: &str, has_file: bool) -> Result<Address, String> {
    let address: Address = url.parse().map_err(|error| format!("{error}"))?;
    if address.login.user.is_some() && address.login.password.is_none() && !has_file {
        return Err(format!(
            "there is a user but no password (user:password@, or {REDIS_PASSWORD_FILE})"
        ));
    }
    Ok(address)
}

/// The password in the text of its file, which may end with a line end.
pub(super) fn read_password(text: &str) -> Result<Box<str>, &'static str> {
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err("there is no password in it"),
        password if password.contains('\n') => Err("there is more than one line in it"),
        password => Ok(password.into()),
    }
}

/// Whether all users of this machine can see a password of Redis, in the list of processes.
pub(super) fn shows_password(config: &Config) -> bool {
    let arguments: Vec<_> = std::env::args_os().collect();
    let is_argument = |url: &String| {
        let mut arguments = arguments.iter();
        arguments.any(|argument| argument.to_string_lossy().contains(url))
    };
    let mut urls = config.redis.urls.iter();
    urls.any(|url| {
        let address = url.parse::<Address>();
        address.is_ok_and(|address| address.login.password.is_some()) && is_argument(url)
    })
}

impl Wanted {
    /// The Redis, of which nothing is asked yet, and where names have led. That is taken from `known` as far as it is there:
    /// resolving may take its time. `seed` is random.
    pub(super) fn resolve(self, known: &str, seed: u64) -> Result<(Redis, String), CliError> {
        let (servers, found) = self.servers(known)?;
        let mut redis = Redis::new(self.settings, servers, seed);
        redis.set_password(self.password);
        Ok((redis, found))
    }

    /// All servers, and a line for each URL with its addresses, but for those of Unix sockets.
    fn servers(&self, known: &str) -> Result<(Vec<Server>, String), CliError> {
        let mut known = known.lines();
        let (mut servers, mut found) = (Vec::new(), String::new());
        for Address { location, login } in &self.addresses {
            let known = known.next().unwrap_or_default();
            let endpoints = match location {
                Location::Unix(path) => vec![Endpoint::Unix(path.clone())],
                Location::Tcp { host, port } => {
                    let addresses = match read_addresses(known) {
                        Some(addresses) => addresses,
                        None => resolve(host, *port)?,
                    };
                    let texts: Vec<_> = addresses.iter().map(SocketAddr::to_string).collect();
                    found.push_str(&texts.join(" "));
                    addresses.into_iter().map(Endpoint::Tcp).collect()
                }
            };
            found.push('\n');
            servers.extend(endpoints.into_iter().map(|endpoint| Server {
                endpoint,
                login: login.clone(),
            }));
        }
        Ok((servers, found))
    }
}

/// The addresses in a line; `None` unless there is one.
fn read_addresses(line: &str) -> Option<Vec<SocketAddr>> {
    line.split(' ')
        .map(|address| address.parse().ok())
        .collect()
}

/// Every address of a name; at least one.
fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, CliError> {
    let failure = |why: &dyn fmt::Display| {
        CliError::failure(format!("--redis: cannot resolve {host}: {why}"))
    };
    let found = (host, port).to_socket_addrs();
    let found: Vec<_> = found.map_err(|error| failure(&error))?.collect();
    if found.is_empty() {
        return Err(failure(&"it has no address"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    type Set = fn(&mut Config);

    fn config(urls: &[&str]) -> Config {
        let mut config = Config::default();
        config.redis.urls = urls.iter().map(|&url| url.to_owned()).collect();
        config
    }

    fn refusal(config: &Config) -> String {
        let read = read(config, &Secrets::default());
        let error = read.err().expect("a refusal");
        assert_eq!(error.status, 2, "{}", error.message);
        error.message
    }

    #[test]
    fn without_a_url_the_server_is_alone() {
        let read = read(&Config::default(), &Secrets::default());
        assert!(read.is_ok_and(|wanted| wanted.is_none()));
    }

    #[test]
    fn what_needs_redis_is_refused_without_it() {
        let set: [(&str, Set); 5] = [
            ("--reuse-port", |c| c.server.reuse_port = true),
            ("--redis-password-file", |c| {
                c.redis.password_file = Some("/run/password".into());
            }),
            ("--redis-stream", |c| c.redis.stream = "news".to_owned()),
            ("--redis-maxlen", |c| c.redis.maxlen = 5_000),
            ("--redis-timeout", |c| c.redis.timeout *= 2),
        ];
        for (flag, set) in set {
            let mut config = Config::default();
            set(&mut config);
            let expected = format!("{flag} needs --redis");
            assert!(refusal(&config).starts_with(&expected), "{flag}");
            config.redis.urls.push("redis://localhost".to_owned());
            assert!(read(&config, &Secrets::default()).is_ok(), "{flag}");
        }
    }

    #[test]
    fn what_contradicts_redis_is_refused_with_it() {
        let set: [(&str, Set); 3] = [
            ("give --history-directory or --redis, not both", |c| {
                c.history_directory = Some("/var/lib/crieur".into());
            }),
            ("--redis-stream: ", |c| c.redis.stream.clear()),
            ("--redis-timeout must be at least 0.002 ", |c| {
                c.redis.timeout = Duration::from_micros(1_999);
            }),
        ];
        for (expected, set) in set {
            let mut config = config(&["redis://localhost"]);
            set(&mut config);
            assert!(refusal(&config).starts_with(expected), "{expected}");
        }
    }

    #[test]
    fn a_refused_url_is_named_by_its_number_and_not_shown() {
        for (url, why) in [
            ("rediss://me:secret@h", "TLS is not built in"),
            ("redis://me:secret@h/x", "its database is no number"),
            ("redis://:secret", "there is no host in it"),
            ("redis://me:sec/ret@h", ""),
            ("secret", "the URL of a Redis begins with"),
            ("redis://me@h", "there is a user but no password"),
        ] {
            let config = config(&["redis://localhost", url]);
            let message = refusal(&config);
            let expected = format!("--redis, URL 2: {why}");
            assert!(message.starts_with(&expected), "{url}: {message}");
            assert!(!message.contains("sec"), "{message}");
        }
        assert!(!format!("{:?}", config(&["redis://:secret@h"])).contains("secret"));
    }

    #[test]
    fn a_password_of_a_file_is_that_of_a_user_in_the_url() {
        let mut config = config(&["redis://me@h"]);
        config.redis.password_file = Some(Path::new("/run/password").into());
        let mut secrets = Secrets {
            redis_password: Some("a password\r\n".to_owned()),
            ..Secrets::default()
        };
        let wanted = read(&config, &secrets).ok().flatten().expect("valid");
        assert_eq!(wanted.password.as_deref(), Some("a password"));
        assert_eq!(wanted.addresses[0].login.user.as_deref(), Some("me"));
        for text in ["", "\n", "one\ntwo\n", "\none"] {
            secrets.redis_password = Some(text.to_owned());
            let message = read(&config, &secrets).err().expect("a mistake").message;
            assert!(message.starts_with("--redis-password-file: /run/password: there is "));
            assert!(!message.contains("two"));
        }
    }

    #[test]
    fn all_addresses_of_all_urls_are_tried() {
        let urls = [
            "redis://127.0.0.1:1",
            "redis+unix:///r?db=3",
            "redis://[::1]:2",
        ];
        let wanted = read(&config(&urls), &Secrets::default()).ok().flatten();
        let wanted = wanted.expect("valid");
        let (servers, found) = wanted.servers("").expect("addresses");
        let endpoints = servers.iter().map(|server| server.endpoint.to_string());
        assert_eq!(
            endpoints.collect::<Vec<_>>(),
            ["127.0.0.1:1", "/r", "[::1]:2"]
        );
        assert_eq!(servers[1].login.database, 3);
        assert_eq!(found, "127.0.0.1:1\n\n[::1]:2\n");
    }

    #[test]
    fn what_a_name_has_led_to_is_not_asked_again() {
        let urls = [
            "redis+unix:///r",
            "redis://no.such.name.invalid",
            "redis://127.0.0.1:3",
        ];
        let wanted = read(&config(&urls), &Secrets::default()).ok().flatten();
        let wanted = wanted.expect("valid");
        let (servers, found) = wanted.servers("\n127.0.0.1:1 [::1]:1\n").expect("known");
        let endpoints = servers.iter().map(|server| server.endpoint.to_string());
        assert_eq!(
            endpoints.collect::<Vec<_>>(),
            ["/r", "127.0.0.1:1", "[::1]:1", "127.0.0.1:3"]
        );
        assert_eq!(found, "\n127.0.0.1:1 [::1]:1\n127.0.0.1:3\n");
        for known in ["", "\n\n", "\nnowhere\n"] {
            let error = wanted.servers(known).expect_err("no such name");
            assert_eq!(error.status, 1);
            let expected = "--redis: cannot resolve no.such.name.invalid: ";
            assert!(error.message.starts_with(expected), "{}", error.message);
        }
    }

    #[test]
    fn with_the_history_off_keys_are_forgotten_at_once() {
        let history = |bytes_max| {
            let mut config = config(&["redis://h"]);
            config.history.bytes_max = bytes_max;
            let wanted = read(&config, &Secrets::default()).ok().flatten();
            wanted.expect("valid").settings.history.as_secs()
        };
        assert_eq!([history(1), history(0)], [300, 0]);
    }
}
