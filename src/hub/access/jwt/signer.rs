//! The other side of a token: the key that signs it. No server does; `crieur token` and `crieur keygen` do.
//!
//! Main type: [`Signer`].

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::SigningKey as Ed25519Private;
use hmac::{Hmac, Mac};
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature as P256Signature, SigningKey as P256Private};
use sha2::Sha256;

use super::ClientKeys;
use super::key::{Algorithm, Key, read_secret};
use super::pem::{self, Private};
use crate::hub::access::secret_lines::{BEGIN, SecretsError, read_entries};

/// A secret, or a private key.
pub struct Signer(Signing);

enum Signing {
    Secret(Hmac<Sha256>),
    Private(Private),
}

/// What a new key is written as.
pub struct KeyTexts {
    /// What signs: the secret, or the private key.
    pub signing: String,
    /// What the server gets instead of that; `None` where it is the same, as with HS256.
    pub public: Option<String>,
}

impl Signer {
    /// The first key of a file, which has secrets as [`ClientKeys::parse`] takes them, or private keys as PEM.
    ///
    /// # Errors
    /// The first entry that can't sign.
    pub fn parse(text: &str) -> Result<Self, SecretsError> {
        let entries = read_entries(text, true, |line, entry| {
            if !entry.starts_with(BEGIN) {
                return Ok(Some(Signing::Secret(read_secret(line, entry)?)));
            }
            let private = pem::read_private(entry);
            let private = private.map_err(|why| SecretsError::BadKey { line, why })?;
            Ok(private.map(Signing::Private))
        })?;
        let first = entries.into_iter().flatten().next();
        first.map(Self).ok_or(SecretsError::None)
    }

    /// How it signs.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        match &self.0 {
            Signing::Secret(_) => Algorithm::Hs256,
            Signing::Private(Private::P256(_)) => Algorithm::Es256,
            Signing::Private(Private::Ed25519(_)) => Algorithm::EdDsa,
        }
    }

    /// The keys of a server that takes what this signs.
    #[must_use]
    pub fn client_keys(&self) -> ClientKeys {
        ClientKeys(vec![match &self.0 {
            Signing::Secret(key) => Key::Hs256(key.clone()),
            Signing::Private(key) => key.public().into(),
        }])
    }

    /// A token with these claims, a JSON object.
    #[must_use]
    pub fn sign(&self, claims: &str) -> String {
        let header = format!(r#"{{"alg":"{}","typ":"JWT"}}"#, self.algorithm().name());
        self.sign_with_header(&header, claims)
    }

    pub(super) fn sign_with_header(&self, header: &str, claims: &str) -> String {
        let mut token = URL_SAFE_NO_PAD.encode(header);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let signature = match &self.0 {
            Signing::Secret(key) => {
                let mac = Mac::chain_update(key.clone(), &token);
                mac.finalize().into_bytes().to_vec()
            }
            Signing::Private(Private::P256(key)) => {
                let signature: P256Signature = key.sign(token.as_bytes());
                signature.to_bytes().to_vec()
            }
            Signing::Private(Private::Ed25519(key)) => {
                key.sign(token.as_bytes()).to_bytes().to_vec()
            }
        };
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        token
    }
}

/// A new key out of `random` bytes; `None` if they are no number that can be one, which takes a luck that nobody has.
#[must_use]
pub fn new_key(algorithm: Algorithm, random: [u8; 32]) -> Option<KeyTexts> {
    let private = match algorithm {
        Algorithm::Hs256 => {
            // As text, it is the secret itself, in any program that signs.
            let signing = URL_SAFE_NO_PAD.encode(random) + "\n";
            return Some(KeyTexts {
                signing,
                public: None,
            });
        }
        Algorithm::Es256 => Private::P256(P256Private::from_slice(&random).ok()?),
        Algorithm::EdDsa => Private::Ed25519(Ed25519Private::from_bytes(&random)),
    };
    Some(KeyTexts {
        signing: private.write(),
        public: Some(private.public().write()),
    })
}
