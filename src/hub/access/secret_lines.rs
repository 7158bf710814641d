//! The text of a file of secrets: one a line, and a second one while the first is replaced.
//!
//! Owns the rules that tokens and keys share, and the wording of what breaks them, which names a
//! line and never shows what is on it. Main types: [`SecretsError`], and [`Exchange`] for what has
//! become of the secrets of an earlier text.

use std::fmt;

/// The present secret, and the next or the last one while they are exchanged.
const SECRETS_MAX: usize = 2;

/// More characters than any secret needs; what is longer is not meant to be one.
const SECRET_CHARS_MAX: usize = 1024;

/// What the first line of a PEM block begins with, and the last one.
pub(super) const BEGIN: &str = "-----BEGIN ";
pub(super) const END: &str = "-----END ";

/// Why a text holds no secrets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SecretsError {
    /// Nothing but blank lines.
    None,
    /// More secrets than can be in use at once.
    TooMany {
        /// The first line that is too much, counted from 1.
        line: usize,
    },
    /// A secret that could be guessed.
    TooShort {
        /// Its line.
        line: usize,
        /// The bytes that it has.
        bytes: usize,
        /// The bytes that it needs.
        bytes_min: usize,
    },
    /// A line that is longer than any secret.
    TooLong {
        /// The line.
        line: usize,
    },
    /// A space, a control character, or what isn't ASCII: easily lost or changed on the way.
    NotVisible {
        /// The line.
        line: usize,
    },
    /// What follows `base64:` isn't Base64.
    NotBase64 {
        /// The line.
        line: usize,
    },
    /// A key that can't be used.
    BadKey {
        /// Its first line.
        line: usize,
        /// What it is instead, in words.
        why: &'static str,
    },
}

impl fmt::Display for SecretsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::None => f.write_str("there is no secret in it: write one on a line of its own"),
            Self::TooMany { line } => {
                write!(
                    f,
                    "line {line} is too much: at most {SECRETS_MAX} secrets count at once"
                )
            }
            Self::TooShort {
                line,
                bytes,
                bytes_min,
            } => write!(
                f,
                "the secret on line {line} has {bytes} bytes: it needs {bytes_min} or more"
            ),
            Self::TooLong { line } => {
                write!(
                    f,
                    "line {line} is longer than {SECRET_CHARS_MAX} characters"
                )
            }
            Self::NotVisible { line } => {
                write!(
                    f,
                    "line {line} must be visible ASCII characters without spaces"
                )
            }
            Self::NotBase64 { line } => {
                write!(f, "line {line} must be Base64 behind base64:")
            }
            Self::BadKey { line, why } => write!(f, "line {line}: {why}"),
        }
    }
}

impl std::error::Error for SecretsError {}

/// How the secrets that count differ from those that did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exchange {
    /// Secrets that count now.
    pub now: usize,
    /// Those among them that did not before.
    pub added: usize,
    /// Secrets that count no more.
    pub removed: usize,
}

impl Exchange {
    /// What it takes from the secrets of `old` to those of `new`.
    pub(super) fn between<T>(old: &[T], new: &[T], is_same: impl Fn(&T, &T) -> bool) -> Self {
        let missing = |these: &[T], from: &[T]| {
            let is_missing = |secret: &&T| !from.iter().any(|other| is_same(secret, other));
            these.iter().filter(is_missing).count()
        };
        Self {
            now: new.len(),
            added: missing(new, old),
            removed: missing(old, new),
        }
    }
}

impl fmt::Display for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            now,
            added,
            removed,
        } = self;
        match (added, removed) {
            (0, 0) => write!(f, "unchanged, {now} in force"),
            _ => write!(f, "{added} added, {removed} removed, {now} in force"),
        }
    }
}

/// What `read` makes of each line of `text` that isn't blank: one or two, of visible ASCII.
pub(super) fn read_lines<T>(
    text: &str,
    read: impl Fn(usize, &str) -> Result<T, SecretsError>,
) -> Result<Vec<T>, SecretsError> {
    read_entries(text, false, read)
}

/// The same, where a PEM block is an entry too if `takes_pem`: `read` gets all of it, from its first line to its last.
pub(super) fn read_entries<T>(
    text: &str,
    takes_pem: bool,
    read: impl Fn(usize, &str) -> Result<T, SecretsError>,
) -> Result<Vec<T>, SecretsError> {
    let mut secrets = Vec::new();
    let mut lines = (1..).zip(text.lines());
    while let Some((line, secret)) = lines.next() {
        if secret.trim_ascii().is_empty() {
            continue;
        }
        if secrets.len() == SECRETS_MAX {
            return Err(SecretsError::TooMany { line });
        }
        if secret.len() > SECRET_CHARS_MAX {
            return Err(SecretsError::TooLong { line });
        }
        if takes_pem && secret.starts_with(BEGIN) {
            secrets.push(read(line, &read_block(line, secret, &mut lines)?)?);
            continue;
        }
        if !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(SecretsError::NotVisible { line });
        }
        secrets.push(read(line, secret)?);
    }
    if secrets.is_empty() {
        Err(SecretsError::None)
    } else {
        Ok(secrets)
    }
}

/// The PEM block whose first line is `first`.
fn read_block<'a>(
    line: usize,
    first: &str,
    lines: &mut impl Iterator<Item = (usize, &'a str)>,
) -> Result<String, SecretsError> {
    let mut block = first.trim_ascii_end().to_owned();
    for (_, next) in lines {
        let next = next.trim_ascii();
        block.push('\n');
        block.push_str(next);
        if block.len() > SECRET_CHARS_MAX {
            return Err(SecretsError::TooLong { line });
        }
        if next.starts_with(END) {
            return Ok(block);
        }
    }
    let why = "this PEM block has no last line, which begins with -----END";
    Err(SecretsError::BadKey { line, why })
}

/// Whether the `secret` on a line is long enough not to be guessed.
pub(super) const fn check_len(
    line: usize,
    secret: &[u8],
    bytes_min: usize,
) -> Result<(), SecretsError> {
    let bytes = secret.len();
    if bytes < bytes_min {
        return Err(SecretsError::TooShort {
            line,
            bytes,
            bytes_min,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(usize, String)>, SecretsError> {
        read_lines(text, |line, secret| Ok((line, secret.to_owned())))
    }

    #[test]
    fn lines_that_are_not_blank_are_secrets() {
        let one = |line| Ok(vec![(line, "a".to_owned())]);
        assert_eq!(read("a"), one(1));
        assert_eq!(read("a\n"), one(1));
        assert_eq!(read("\r\n \t\r\na\r\n\n"), one(3));
        let two = Ok(vec![(1, "a".to_owned()), (3, "!~".to_owned())]);
        assert_eq!(read("a\n\n!~"), two);
        for text in ["", "\n", " \r\n\t"] {
            assert_eq!(read(text), Err(SecretsError::None));
        }
        assert_eq!(read("a\nb\n\nc"), Err(SecretsError::TooMany { line: 4 }));
    }

    #[test]
    fn lengths_at_max_and_one_more() {
        let longest = "a".repeat(SECRET_CHARS_MAX);
        assert_eq!(read(&longest).map(|secrets| secrets.len()), Ok(1));
        let longer = format!("a\n{longest}a");
        let too_long = SecretsError::TooLong { line: 2 };
        let said = too_long.to_string();
        assert!(said.starts_with("line 2 is longer than "), "{said}");
        assert_eq!(read(&longer), Err(too_long));
        assert_eq!(
            SecretsError::NotBase64 { line: 1 }.to_string(),
            "line 1 must be Base64 behind base64:"
        );
        assert_eq!(check_len(1, b"12", 2), Ok(()));
        assert_eq!(
            check_len(1, b"12", 3).map_err(|error| error.to_string()),
            Err("the secret on line 1 has 2 bytes: it needs 3 or more".to_owned())
        );
    }

    #[test]
    fn an_exchange_is_counted() {
        for (old, new, shown) in [
            (&[1][..], &[1][..], "unchanged, 1 in force"),
            (&[1, 2], &[2, 1], "unchanged, 2 in force"),
            (&[1], &[1, 2], "1 added, 0 removed, 2 in force"),
            (&[1, 2], &[2], "0 added, 1 removed, 1 in force"),
            (&[1, 2], &[3], "1 added, 2 removed, 1 in force"),
        ] {
            let exchange = Exchange::between(old, new, |one, other| one == other);
            assert_eq!(exchange.to_string(), shown);
        }
    }

    #[test]
    fn what_could_get_lost_is_refused() {
        for text in [
            "secret word",
            " secret",
            "secret ",
            "secret\t",
            "secret\0",
            "secret\x7f",
            "secret\r",
            "secr\u{e9}t",
            "\u{feff}secret",
            "secret\u{a0}",
        ] {
            let error = read(&format!("\n{text}")).expect_err("not visible");
            assert_eq!(error, SecretsError::NotVisible { line: 2 }, "{text:?}");
            assert!(!error.to_string().contains("secret"));
        }
    }
}
