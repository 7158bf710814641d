//! Where a server is: a URL of WebSocket or HTTP, or the path of a Unix socket.
//!
//! Main type: [`Url`]. Invariant: what is printed of it has no token in it.

use std::fmt;
use std::path::PathBuf;

/// What a URL has to look like.
const EXPECTED: &str = "expected ws://HOST:PORT/, http://HOST:PORT/ or unix:PATH";

/// Where to connect to: `ws://host[:port][/path][?query]`, the same with `http`, or `unix:path`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Url {
    place: Place,
    /// Whether it is for requests, not for WebSocket.
    is_http: bool,
    /// The request target, with the query.
    target: String,
    /// What is shown to the server; never part of what is printed.
    token: Option<String>,
}

/// What to connect to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Place {
    Tcp {
        /// Name or address, an IPv6 address in brackets.
        host: String,
        port: u16,
    },
    Unix(PathBuf),
}

impl Url {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong with it, in words for the user.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self {
                place: Place::Unix(path.into()),
                is_http: false,
                target: "/".to_owned(),
                token: None,
            });
        }
        let invalid = || format!("{:?} is not a URL: {EXPECTED}", without_secrets(text));
        let (scheme, rest) = text.split_once("://").ok_or_else(invalid)?;
        let is_http = match scheme {
            "ws" => false,
            "http" => true,
            "wss" | "https" => {
                return Err(format!(
                    "{scheme}:// needs TLS, which crieur does not speak: connect to the server itself, not to the \
                     proxy in front of it, like ws://127.0.0.1:8000/ or unix:/run/crieur/publish.sock"
                ));
            }
            _ => return Err(invalid()),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        if authority.contains('@') {
            return Err("names and passwords in a URL are not sent: use --token-file".to_owned());
        }
        let target = target.split('#').next().unwrap_or("");
        let target = if target.starts_with('/') {
            target.to_owned()
        } else {
            format!("/{target}")
        };
        let port_at = authority
            .rfind(':')
            .filter(|&colon| !authority[colon..].contains(']'));
        let (host, port) = match port_at {
            Some(colon) => {
                let port = authority[colon + 1..]
                    .parse()
                    .map_err(|_| format!("{:?} has no valid port", without_secrets(text)))?;
                (&authority[..colon], port)
            }
            None => (authority, 80),
        };
        if host.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(invalid());
        }
        let host = host.to_owned();
        Ok(Self {
            place: Place::Tcp { host, port },
            is_http,
            target,
            token: None,
        })
    }

    /// The same server, shown `token`, which is visible ASCII.
    #[must_use]
    pub fn with_token(self, token: String) -> Self {
        Self {
            token: Some(token),
            ..self
        }
    }

    /// The same server with another request target.
    #[must_use]
    pub fn with_target(&self, target: &str) -> Self {
        Self {
            target: target.to_owned(),
            ..self.clone()
        }
    }

    /// The same server by WebSocket.
    #[must_use]
    pub fn with_websocket(self) -> Self {
        Self {
            is_http: false,
            ..self
        }
    }

    /// Whether it is for requests, not for WebSocket.
    #[must_use]
    pub const fn is_http(&self) -> bool {
        self.is_http
    }

    /// The request target.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    pub(super) const fn place(&self) -> &Place {
        &self.place
    }

    /// What is shown to the server.
    pub(super) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// What to send as `Host`.
    pub(super) fn host_field(&self) -> String {
        match &self.place {
            Place::Tcp { host, port } => format!("{host}:{port}"),
            Place::Unix(_) => "localhost".to_owned(),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Tcp { host, port } => {
                let scheme = if self.is_http { "http" } else { "ws" };
                let target = without_token(&self.target);
                write!(f, "{scheme}://{host}:{port}{target}")
            }
            Place::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A URL, or a part of one, as it may be printed: the values of `token` in its query are left out.
pub(super) fn without_token(url: &str) -> String {
    let mut shown = String::new();
    let mut rest = url;
    while let Some(at) = rest.find("token=") {
        let is_name = rest[..at].ends_with(['?', '&']);
        let (before, value) = rest.split_at(at + "token=".len());
        shown.push_str(before);
        rest = value;
        if is_name {
            let end = rest.find(['&', '#', ' ']).unwrap_or(rest.len());
            shown.push('…');
            rest = &rest[end..];
        }
    }
    shown + rest
}

/// What was taken for a URL, as it may be printed: without what may be a name and a password too.
fn without_secrets(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((_, rest)) => format!("…@{}", without_token(rest)),
        None => without_token(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (text, shown) in [
            ("ws://localhost:8000", "ws://localhost:8000/"),
            ("ws://localhost", "ws://localhost:80/"),
            (
                "http://localhost:8000/publish",
                "http://localhost:8000/publish",
            ),
            ("unix:/run/a.sock", "unix:/run/a.sock"),
            ("unix:a.sock", "unix:a.sock"),
            ("ws://[::1]:8000/a?b=c#d", "ws://[::1]:8000/a?b=c"),
            ("ws://[::1]/", "ws://[::1]:80/"),
            ("ws://host?x", "ws://host:80/?x"),
            ("ws://host/a?token=secret", "ws://host:80/a?token=…"),
            (
                "ws://host?a=b&token=secret&c",
                "ws://host:80/?a=b&token=…&c",
            ),
            ("ws://host?token=a&token=b", "ws://host:80/?token=…&token=…"),
            (
                "ws://host/token=a?mytoken=b",
                "ws://host:80/token=a?mytoken=b",
            ),
        ] {
            assert_eq!(Url::parse(text).expect("valid").to_string(), shown);
        }
        for text in [
            "",
            "localhost:8000",
            "ftp://localhost",
            "ws://",
            "http://",
            "unix:",
            "ws://:80",
            "ws://host:port",
            "ws://a b/",
        ] {
            assert!(Url::parse(text).is_err(), "{text}");
        }
        for text in ["wss://host", "https://host/?token=secret"] {
            let error = Url::parse(text).expect_err("TLS");
            assert!(
                error.contains("needs TLS") && error.contains("unix:"),
                "{error}"
            );
            assert!(!error.contains("secret"), "{error}");
        }
        for text in [
            "ftp://host/?token=secret",
            "ws://:80/?token=secret",
            "ws://host:port/?token=secret",
            "ws://host/?token=secret\u{e9}",
            "ws://somebody:secret@host/",
            "ws://somebody:sec/secret@host/",
            "http://somebody:secret@host/",
            "somebody:secret@host",
            "ftp://host/?token=secret@a",
        ] {
            let error = Url::parse(text).expect_err("a mistake");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
