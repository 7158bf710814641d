//! The tokens by which a client proves what it may subscribe to: JWT (RFC 7519) in the compact
//! form of JWS (RFC 7515), signed with HS256, ES256 or EdDSA, as the key has it ([`Algorithm`]).
//!
//! Two claims are this server's business: `exp`, which has to be there, and `nbf`; and `allow`,
//! a list of subscriptions as a client would send it, with `history`, which may withhold what was published
//! before. All others are ignored. Main type:
//! [`ClientKeys`]. Invariant: nothing of a token's claims is looked at before its signature.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use self::key::{Algorithm, Key};
use super::secret_lines::{Exchange, SecretsError, read_entries};
use crate::config::HubLimits;
use crate::hub::command::{ErrorCode, label, parse_subscriptions};
use crate::hub::filter::Subscription;

pub mod key;
mod pem;
pub mod signer;

/// The longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// How far the clocks of the signer and of this server may be apart.
const LEEWAY: Duration = Duration::from_secs(30);

/// What the signatures of clients' tokens are checked with.
#[derive(Clone)]
pub struct ClientKeys(Vec<Key>);

/// What a token grants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    /// What its bearer may subscribe to: what one of these covers.
    pub allow: Vec<Subscription<'static>>,
    /// Whether its bearer may be caught up with what was published before.
    pub history: bool,
    /// When it ends, counted from the Unix epoch. A token is taken for the leeway longer.
    pub expires: Duration,
    /// Its `sub`: a label for people, which grants nothing; `None` if it is there twice, neither a string nor digits, empty, or longer than
    /// [`USER_BYTES_MAX`].
    pub user: Option<Box<str>>,
}

/// The longest `sub` that is kept, in bytes.
pub const USER_BYTES_MAX: usize = 128;

/// Why a token grants nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenError {
    /// More than 8 KiB.
    TooLong,
    /// Not three parts in base64url, of which two are JSON objects; or a member that counts
    /// is a duplicate.
    Malformed,
    /// Signed in a way that no key is for, or not at all.
    Algorithm,
    /// Has extensions that must be understood (RFC 7515 §4.1.11); none is.
    Critical,
    /// Signed with none of the keys, or changed since.
    Signature,
    /// Doesn't say when it ends.
    NoExpiry,
    /// A time that is no number of seconds since 1970.
    BadTime,
    /// Has ended.
    Expired,
    /// Has not begun.
    NotYetValid,
    /// `allow` is no list of subscriptions, or over the limits.
    BadAllow(ErrorCode),
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "the token is longer than 8 KiB",
            Self::Malformed => "the token is not a JWT in the compact form",
            Self::Algorithm => "the token's alg is not that of a key here",
            Self::Critical => "the token has critical extensions, and none is known here",
            Self::Signature => "the token is signed with no key that is known here",
            Self::NoExpiry => "the token has no exp",
            Self::BadTime => "exp and nbf of a token must be seconds since 1970",
            Self::Expired => "the token has expired",
            Self::NotYetValid => "the token is not valid yet",
            Self::BadAllow(ErrorCode::TooManySubscriptions) => {
                "the token's allow has more subscriptions, or values, than a connection may have"
            }
            Self::BadAllow(_) => "the token's allow is not a list of subscriptions",
        })
    }
}

impl std::error::Error for TokenError {}

impl Grant {
    /// How long it is good from `unix_now` on: until it ends, or, where it is one that the leeway
    /// has let through, until that does.
    #[must_use]
    pub fn time_left(&self, unix_now: Duration) -> Duration {
        match self.expires.checked_sub(unix_now) {
            Some(left) if !left.is_zero() => left,
            _ => self.expires.saturating_add(LEEWAY).saturating_sub(unix_now),
        }
    }
}

impl ClientKeys {
    /// Reads one key or two. A secret of HS256 is a line, whose characters, visible ASCII, are the bytes of the secret; one
    /// of other bytes is written `base64:` and then in Base64, of either alphabet, with padding or without. It has 32
    /// bytes or more. A public key, of P-256 for ES256 or of Ed25519 for EdDSA, is a PEM block. Blank lines don't count.
    ///
    /// # Errors
    /// The first line that is no key.
    pub fn parse(text: &str) -> Result<Self, SecretsError> {
        read_entries(text, true, Key::parse).map(Self)
    }

    /// What it takes from the keys of `old` to these.
    #[must_use]
    pub fn exchange(&self, old: &Self) -> Exchange {
        Exchange::between(&old.0, &self.0, Key::is_same)
    }

    /// The algorithms of the keys, in their order.
    pub fn algorithms(&self) -> impl Iterator<Item = Algorithm> {
        self.0.iter().map(Key::algorithm)
    }

    /// What `token` grants at `unix_now`, the time since the Unix epoch.
    ///
    /// # Errors
    /// The first rule that the token breaks.
    pub fn verify(
        &self,
        token: &str,
        unix_now: Duration,
        limits: &HubLimits,
    ) -> Result<Grant, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        if claims.contains('.') {
            return Err(TokenError::Malformed);
        }
        let algorithm = Header::check(&decode(header)?)?;
        // The keys say what is taken; a token only says which of them it means.
        let algorithm = algorithm.filter(|named| self.algorithms().any(|known| known == *named));
        let algorithm = algorithm.ok_or(TokenError::Algorithm)?;
        if !self.have_signed(algorithm, signed.as_bytes(), &decode(signature)?) {
            return Err(TokenError::Signature);
        }
        let claims = decode(claims)?;
        let user = read_user(&claims);
        let claims: Claims<'_> = parse_object(&claims)?;
        let grant = claims.grant(unix_now, limits)?;
        Ok(Grant { user, ..grant })
    }

    /// Whether `signature` is that of `signed` under one of the keys for `algorithm`; of secrets, in a time that doesn't
    /// depend on how much of it is right.
    fn have_signed(&self, algorithm: Algorithm, signed: &[u8], signature: &[u8]) -> bool {
        let mut keys = self.0.iter().filter(|key| key.algorithm() == algorithm);
        match algorithm {
            // No early exit: each is tried.
            Algorithm::Hs256 => keys.fold(false, |is_any, key| {
                is_any | key.has_signed(signed, signature)
            }),
            // Nothing of a public key is secret, and a second look takes long.
            Algorithm::Es256 | Algorithm::EdDsa => {
                keys.any(|key| key.has_signed(signed, signature))
            }
        }
    }
}

/// Says how many there are, and nothing else.
impl fmt::Debug for ClientKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientKeys({})", self.0.len())
    }
}

/// A part of a token, which is base64url without padding (RFC 7515 §2).
fn decode(part: &str) -> Result<Vec<u8>, TokenError> {
    let decoded = URL_SAFE_NO_PAD.decode(part);
    decoded.map_err(|_| TokenError::Malformed)
}

/// Reads a JSON object. What isn't named is skipped without recursion; a member that is named
/// may not be a duplicate.
fn parse_object<'de, T: Deserialize<'de>>(json: &'de [u8]) -> Result<T, TokenError> {
    let text = std::str::from_utf8(json).map_err(|_| TokenError::Malformed)?;
    // A struct would be read from an array too.
    if !text.trim_ascii_start().starts_with('{') {
        return Err(TokenError::Malformed);
    }
    serde_json::from_str(text).map_err(|_| TokenError::Malformed)
}

/// Has `null` count as there.
fn present<'de, D: Deserializer<'de>>(json: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(json).map(Some)
}

/// What counts in a header (RFC 7515 §4.1).
#[derive(Deserialize)]
struct Header<'a> {
    alg: Option<String>,
    #[serde(borrow, default, deserialize_with = "present")]
    crit: Option<&'a RawValue>,
}

impl Header<'_> {
    /// The algorithm that it names, if that is one of ours.
    fn check(json: &[u8]) -> Result<Option<Algorithm>, TokenError> {
        let header: Header<'_> = parse_object(json)?;
        let algorithm = header.alg.as_deref().and_then(Algorithm::from_name);
        match header.crit {
            // What isn't taken anyway is told first.
            Some(_) if algorithm.is_some() => Err(TokenError::Critical),
            _ => Ok(algorithm),
        }
    }
}

/// The claims that count (RFC 7519 §4.1), as they were written.
#[derive(Deserialize)]
struct Claims<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    exp: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    nbf: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    allow: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    history: Option<&'a RawValue>,
}

impl Claims<'_> {
    fn grant(&self, unix_now: Duration, limits: &HubLimits) -> Result<Grant, TokenError> {
        let exp = parse_time(self.exp.ok_or(TokenError::NoExpiry)?)?;
        // §4.1.4: on the time or after it.
        if unix_now >= exp.saturating_add(LEEWAY) {
            return Err(TokenError::Expired);
        }
        if let Some(nbf) = self.nbf {
            // §4.1.5: before the time.
            if unix_now.saturating_add(LEEWAY) < parse_time(nbf)? {
                return Err(TokenError::NotYetValid);
            }
        }
        let allow = match self.allow {
            Some(list) => parse_subscriptions(list.get(), limits)
                .map_err(|error| TokenError::BadAllow(error.code))?,
            None => Vec::new(),
        };
        // Whatever else it may mean, it doesn't say yes.
        let history = matches!(self.history.map(RawValue::get), None | Some("true"));
        Ok(Grant {
            allow,
            history,
            expires: exp,
            user: None,
        })
    }
}

/// The label that a `sub` is. RFC 7519 wants a string; many write a number. Nothing about it is a reason to refuse a token.
fn read_user(claims: &[u8]) -> Option<Box<str>> {
    let user = label(std::str::from_utf8(claims).ok()?, &["sub"])?;
    (1..=USER_BYTES_MAX)
        .contains(&user.len())
        .then(|| user.into())
}

/// A NumericDate (RFC 7519 §2). One that is too far away for us to count is as far as we can.
fn parse_time(json: &RawValue) -> Result<Duration, TokenError> {
    let seconds: f64 = serde_json::from_str(json.get()).map_err(|_| TokenError::BadTime)?;
    if !seconds.is_finite() || seconds < 0.0 {
        return Err(TokenError::BadTime);
    }
    Ok(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

#[cfg(test)]
mod tests;
