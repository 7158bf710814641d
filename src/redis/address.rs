//! The URL of a Redis: where it listens, who we are there, and which of its databases is used.
//!
//! Resolves no name: a [`Location`] is what was written, and whoever wires the program looks it up. Main types:
//! [`Address`], which a URL is read into, and [`Server`], which is one that can be connected to.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::application::Endpoint;

/// The port of Redis.
const PORT: u16 = 6379;

/// What a URL says: `redis://[[user][:password]@]HOST[:PORT][/DB]` or `redis+unix://[[user][:password]@]/PATH[?db=N]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address {
    /// Where it is.
    pub location: Location,
    /// Who we are there.
    pub login: Login,
}

/// Where a URL leads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Location {
    /// A name or an address, and a port.
    Tcp {
        /// Without the brackets of an IPv6 address.
        host: String,
        /// 6379 unless it is given.
        port: u16,
    },
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// Who we are, and which database is used.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Login {
    /// The user; without one Redis takes the password for that of `default`.
    pub user: Option<String>,
    /// The password; without one it is that of [`Redis::set_password`](super::Redis::set_password).
    pub password: Option<String>,
    /// The number of the database.
    pub database: u32,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("user", &self.user)
            .field("has_password", &self.password.is_some())
            .field("database", &self.database)
            .finish()
    }
}

/// A Redis that can be connected to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Server {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Who we are there.
    pub login: Login,
}

/// Why a text isn't the URL of a Redis.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddressError {
    /// It begins with neither `redis://` nor `redis+unix://`.
    Scheme,
    /// It begins with `rediss://`.
    Tls,
    /// It has no host.
    NoHost,
    /// Its port is no number from 1 to 65535.
    Port,
    /// Its database is no number.
    Database,
    /// Its path is not absolute.
    Path,
    /// A `%` isn't followed by two hexadecimal digits, or what they say isn't UTF-8.
    Encoding,
    /// Its password is empty, or neither a user nor a password is ahead of the `@`.
    NoPassword,
    /// It has a query that isn't understood, or a fragment.
    Query,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheme => "the URL of a Redis begins with redis:// or redis+unix://",
            Self::Tls => {
                "TLS is not built in: use a tunnel (stunnel, spiped), or a Unix socket (redis+unix://)"
            }
            Self::NoHost => "there is no host in it",
            Self::Port => "its port is no number from 1 to 65535",
            Self::Database => "its database is no number from 0 to 4294967295",
            Self::Path => "the path of a Unix socket begins with / (redis+unix:///run/redis.sock)",
            Self::Encoding => "a % in it is not followed by two hexadecimal digits that make UTF-8",
            Self::NoPassword => "there is no password in it (user:password@)",
            Self::Query => "only ?db=N may follow the path of a Unix socket, and nothing a database",
        })
    }
}

impl std::error::Error for AddressError {}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => fmt::Display::fmt(&path.display(), f),
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(url: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = url.split_once("://").ok_or(AddressError::Scheme)?;
        if scheme.eq_ignore_ascii_case("rediss") {
            return Err(AddressError::Tls);
        }
        if rest.contains('#') {
            return Err(AddressError::Query);
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (login, host) = match authority.rsplit_once('@') {
            Some((login, host)) => (read_login(login)?, host),
            None => (Login::default(), authority),
        };
        if scheme.eq_ignore_ascii_case("redis") {
            read_tcp(host, path, login)
        } else if scheme.eq_ignore_ascii_case("redis+unix") {
            read_unix(host, path, login)
        } else {
            Err(AddressError::Scheme)
        }
    }
}

fn read_login(text: &str) -> Result<Login, AddressError> {
    let (user, password) = match text.split_once(':') {
        Some((user, password)) => (user, Some(decode(password)?)),
        None => (text, None),
    };
    let user = decode(user)?;
    if password
        .as_ref()
        .map_or(&user, |password| password)
        .is_empty()
    {
        return Err(AddressError::NoPassword);
    }
    Ok(Login {
        user: (!user.is_empty()).then_some(user),
        password,
        database: 0,
    })
}

fn read_tcp(host: &str, path: &str, mut login: Login) -> Result<Address, AddressError> {
    if host.contains('?') || path.contains('?') {
        return Err(AddressError::Query);
    }
    let (host, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, rest)) => (
            host,
            Some(rest.strip_prefix(':').ok_or(AddressError::Port)?),
        ),
        None => match host.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (host, None),
        },
    };
    if host.is_empty() || host.contains(['[', ']']) {
        return Err(AddressError::NoHost);
    }
    login.database = match path.trim_start_matches('/') {
        "" => 0,
        database => number(database).ok_or(AddressError::Database)?,
    };
    let port = match port {
        None => PORT,
        Some(port) => number(port)
            .filter(|port| *port != 0)
            .ok_or(AddressError::Port)?,
    };
    let host = decode(host)?;
    Ok(Address {
        location: Location::Tcp { host, port },
        login,
    })
}

fn read_unix(host: &str, path: &str, mut login: Login) -> Result<Address, AddressError> {
    let (path, query) = match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, None),
    };
    if !host.is_empty() || path.len() < 2 {
        return Err(AddressError::Path);
    }
    if let Some(query) = query {
        let database = query.strip_prefix("db=").ok_or(AddressError::Query)?;
        login.database = number(database).ok_or(AddressError::Database)?;
    }
    let location = Location::Unix(decode(path)?.into());
    Ok(Address { location, login })
}

/// A number of decimal digits only.
fn number<N: FromStr>(text: &str) -> Option<N> {
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit());
    is_decimal.then(|| text.parse().ok()).flatten()
}

/// Percent-decoding (RFC 3986 §2.1).
fn decode(text: &str) -> Result<String, AddressError> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let digits = digit().zip(digit());
        let (high, low) = digits.ok_or(AddressError::Encoding)?;
        decoded.push((high * 16 + low) as u8);
    }
    String::from_utf8(decoded).map_err(|_| AddressError::Encoding)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Location {
        let host = host.to_owned();
        Location::Tcp { host, port }
    }

    fn login(user: Option<&str>, password: &str, database: u32) -> Login {
        let password = (!password.is_empty()).then(|| password.to_owned());
        let user = user.map(str::to_owned);
        Login {
            user,
            password,
            database,
        }
    }

    #[test]
    fn urls_are_read() {
        let unix = |path: &str| Location::Unix(path.into());
        for (url, location, expected) in [
            (
                "redis://localhost",
                tcp("localhost", 6379),
                login(None, "", 0),
            ),
            (
                "redis://localhost/",
                tcp("localhost", 6379),
                login(None, "", 0),
            ),
            (
                "REDIS://10.0.0.1:7000/3",
                tcp("10.0.0.1", 7000),
                login(None, "", 3),
            ),
            ("redis://[::1]:7000", tcp("::1", 7000), login(None, "", 0)),
            ("redis://[::1]", tcp("::1", 6379), login(None, "", 0)),
            (
                "redis://:secret@h",
                tcp("h", 6379),
                login(None, "secret", 0),
            ),
            ("redis://me@h/2", tcp("h", 6379), login(Some("me"), "", 2)),
            (
                "redis://me:s%40%3A%2f@h:1/1",
                tcp("h", 1),
                login(Some("me"), "s@:/", 1),
            ),
            (
                "redis+unix:///run/r.sock",
                unix("/run/r.sock"),
                login(None, "", 0),
            ),
            (
                "redis+unix://me:pw@/a%20b?db=12",
                unix("/a b"),
                login(Some("me"), "pw", 12),
            ),
        ] {
            let login = expected;
            assert_eq!(url.parse(), Ok(Address { location, login }), "{url}");
        }
    }

    #[test]
    fn what_is_refused_says_why() {
        for (url, error) in [
            ("localhost:6379", AddressError::Scheme),
            ("http://localhost", AddressError::Scheme),
            ("rediss://localhost", AddressError::Tls),
            ("redis://", AddressError::NoHost),
            ("redis://:6379", AddressError::NoHost),
            ("redis://[::1", AddressError::NoHost),
            ("redis://h:0", AddressError::Port),
            ("redis://h:", AddressError::Port),
            ("redis://h:65536", AddressError::Port),
            ("redis://h:+1", AddressError::Port),
            ("redis://[::1]7", AddressError::Port),
            ("redis://h/x", AddressError::Database),
            ("redis://h/0/1", AddressError::Database),
            ("redis://h/4294967296", AddressError::Database),
            ("redis://h?db=1", AddressError::Query),
            ("redis://h/1#x", AddressError::Query),
            ("redis+unix://run/r.sock", AddressError::Path),
            ("redis+unix:///", AddressError::Path),
            ("redis+unix:///r?timeout=1", AddressError::Query),
            ("redis+unix:///r?db=", AddressError::Database),
            ("redis://@h", AddressError::NoPassword),
            ("redis://me:@h", AddressError::NoPassword),
            ("redis://:%f@h", AddressError::Encoding),
            ("redis://:%+1@h", AddressError::Encoding),
            ("redis://:%ff@h", AddressError::Encoding),
        ] {
            assert_eq!(url.parse::<Address>(), Err(error), "{url}");
            assert!(!error.to_string().ends_with('.'));
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let address: Address = "redis://me:secret@h".parse().expect("a URL");
        assert!(!format!("{address:?}").contains("secret"));
        assert_eq!(address.location.to_string(), "h:6379");
        assert_eq!(tcp("::1", 1).to_string(), "[::1]:1");
    }
}
