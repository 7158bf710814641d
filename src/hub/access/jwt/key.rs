//! A key that signatures of tokens are checked with, and what it says about the way they are made.
//!
//! The algorithm is the key's: a token that names another one isn't checked with it. So a public key, which everybody may
//! know, never counts as the secret of HS256. Main types: `Key` and [`Algorithm`].

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_PAD_INDIFFERENT, URL_SAFE_PAD_INDIFFERENT};
use ed25519_dalek::{Signature as Ed25519Signature, VerifyingKey as Ed25519Public};
use hmac::{Hmac, KeyInit, Mac};
use p256::ecdsa::signature::Verifier;
use p256::ecdsa::{Signature as P256Signature, VerifyingKey as P256Public};
use sha2::Sha256;

use super::pem::{self, Public};
use crate::hub::access::secret_lines::{BEGIN, SecretsError, check_len};

/// RFC 7518 §3.2: a key is at least as long as the hash.
const SECRET_BYTES_MIN: usize = 32;

/// What a secret begins with that is written in Base64.
const BASE64_PREFIX: &str = "base64:";

/// How a token is signed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Algorithm {
    /// A secret that signer and server share: HMAC with SHA-256 (RFC 7518 §3.2).
    Hs256,
    /// A private key of P-256: ECDSA with SHA-256 (RFC 7518 §3.4).
    Es256,
    /// A private key of Ed25519 (RFC 8037 §3.1).
    EdDsa,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Hs256, Self::Es256, Self::EdDsa];

    /// The name that a token's header has for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    /// That of a name in a token's header.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "HS256" => Some(Self::Hs256),
            "ES256" => Some(Self::Es256),
            // RFC 9864 §2.2 has a name of its own for EdDSA with this curve.
            "EdDSA" | "Ed25519" => Some(Self::EdDsa),
            _ => None,
        }
    }
}

/// A secret, or a public key.
#[derive(Clone)]
pub(super) enum Key {
    Hs256(Hmac<Sha256>),
    Es256(P256Public),
    EdDsa(Ed25519Public),
}

impl Key {
    /// Reads the entry of a file that begins on `line`.
    pub(super) fn parse(line: usize, entry: &str) -> Result<Self, SecretsError> {
        if !entry.starts_with(BEGIN) {
            return read_secret(line, entry).map(Self::Hs256);
        }
        let key = pem::read_public(entry);
        let key = key.map_err(|why| SecretsError::BadKey { line, why })?;
        Ok(Self::from(key))
    }

    pub(super) const fn algorithm(&self) -> Algorithm {
        match self {
            Self::Hs256(_) => Algorithm::Hs256,
            Self::Es256(_) => Algorithm::Es256,
            Self::EdDsa(_) => Algorithm::EdDsa,
        }
    }

    /// Whether `signature` is that of `signed`; with a secret, in a time that doesn't depend on how much of it is right.
    pub(super) fn has_signed(&self, signed: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Hs256(key) => {
                let mac = Mac::chain_update(key.clone(), signed);
                mac.verify_slice(signature).is_ok()
            }
            // Two numbers of 32 bytes each (RFC 7518 §3.4), neither of them 0 or too large. The larger of the two that s may
            // be is as good as the smaller one: most signers don't choose.
            Self::Es256(key) => P256Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify(signed, &signature).is_ok()),
            // Strict: nothing of small order, no second way to write the same numbers (RFC 8032 §8.4).
            Self::EdDsa(key) => Ed25519Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(signed, &signature).is_ok()),
        }
    }

    /// Whether it takes the signatures that `other` takes.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            // They are the same if they sign the same, be it nothing.
            (Self::Hs256(one), Self::Hs256(other)) => {
                one.clone().finalize() == other.clone().finalize()
            }
            (Self::Es256(one), Self::Es256(other)) => one == other,
            (Self::EdDsa(one), Self::EdDsa(other)) => one == other,
            _ => false,
        }
    }
}

impl From<Public> for Key {
    fn from(key: Public) -> Self {
        match key {
            Public::P256(key) => Self::Es256(key),
            Public::Ed25519(key) => Self::EdDsa(key),
        }
    }
}

/// The secret on a line, as it is used.
pub(super) fn read_secret(line: usize, text: &str) -> Result<Hmac<Sha256>, SecretsError> {
    let encoded = text.strip_prefix(BASE64_PREFIX);
    let bad = |why| SecretsError::BadKey { line, why };
    // Everybody may know a public key. As a secret, it would let everybody sign.
    if pem::is_bare_public(encoded.unwrap_or(text)) {
        return Err(bad(
            "this is a public key without its first line, -----BEGIN PUBLIC KEY-----, and its last",
        ));
    }
    if text.starts_with('{') && text.contains("\"kty\"") {
        return Err(bad(
            "this is a JSON Web Key: write a public key as PEM, a secret as it is",
        ));
    }
    let key = match encoded {
        Some(text) => decode_secret(text).ok_or(SecretsError::NotBase64 { line })?,
        None => text.as_bytes().to_vec(),
    };
    check_len(line, &key, SECRET_BYTES_MIN)?;
    Ok(Hmac::new_from_slice(&key).expect("HMAC takes keys of any length"))
}

fn decode_secret(text: &str) -> Option<Vec<u8>> {
    if text.contains(['-', '_']) {
        URL_SAFE_PAD_INDIFFERENT.decode(text).ok()
    } else {
        STANDARD_PAD_INDIFFERENT.decode(text).ok()
    }
}

#[cfg(test)]
mod tests;
