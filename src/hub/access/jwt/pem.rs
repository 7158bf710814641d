//! Keys as files have them: PEM (RFC 7468) around DER, of the two curves that sign tokens.
//!
//! DER has one way to write a key of a known curve, so all but the key itself is compared byte for byte, and nothing is
//! parsed. Main entries: [`read_public`], [`read_private`] and their reverse. Knows no tokens, no lines of a file.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_PAD_INDIFFERENT};
use ed25519_dalek::{SigningKey as Ed25519Private, VerifyingKey as Ed25519Public};
use p256::AffinePoint;
use p256::ecdsa::{SigningKey as P256Private, VerifyingKey as P256Public};
use p256::elliptic_curve::point::AffineCoordinates;

use crate::hub::access::secret_lines::{BEGIN, END};

const DASHES: &str = "-----";

const PUBLIC_LABEL: &str = "PUBLIC KEY";
const PRIVATE_LABEL: &str = "PRIVATE KEY";

/// The characters of a line of Base64 (RFC 7468 §2).
const LINE_CHARS: usize = 64;

/// What is in front of both coordinates of a point of P-256 in a SubjectPublicKeyInfo (RFC 5480 §2.1.1, §2.2). Its last
/// byte says that the point isn't compressed; nobody writes keys otherwise unless told to.
const P256_PUBLIC: &[u8] = b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\
    \x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00\x04";
const P256_POINT_BYTES: usize = 64;

/// The same of Ed25519 (RFC 8410 §4).
const ED25519_PUBLIC: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

/// What is in front of the number of a private key of P-256, and what is behind, up to the coordinates of its public key: in
/// PKCS #8 (RFC 5208, RFC 5915), in the same without a public key, and in what OpenSSL wrote before.
const P256_PRIVATE: [(&[u8], &[u8]); 3] = [
    (
        b"\x30\x81\x87\x02\x01\x00\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\
          \x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x04\x6d\x30\x6b\x02\x01\x01\x04\x20",
        b"\xa1\x44\x03\x42\x00\x04",
    ),
    (
        b"\x30\x41\x02\x01\x00\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\
          \x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x04\x27\x30\x25\x02\x01\x01\x04\x20",
        b"",
    ),
    (
        b"\x30\x77\x02\x01\x01\x04\x20",
        b"\xa0\x0a\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\xa1\x44\x03\x42\x00\x04",
    ),
];

/// The same of Ed25519 (RFC 8410 §7, §10.3); the first has no public key.
const ED25519_PRIVATE: [(&[u8], &[u8]); 2] = [
    (
        b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20",
        b"",
    ),
    (
        b"\x30\x51\x02\x01\x01\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20",
        b"\x81\x21\x00",
    ),
];

/// The bytes of a private key of either curve.
const PRIVATE_BYTES: usize = 32;

/// A public key.
pub(super) enum Public {
    P256(P256Public),
    Ed25519(Ed25519Public),
}

/// A private key.
pub(super) enum Private {
    P256(P256Private),
    Ed25519(Ed25519Private),
}

const NOT_WHOLE: &str = "this is not a whole PEM block";
const UNKNOWN_CURVE: &str =
    "this is no key of P-256, for ES256, or of Ed25519, for EdDSA, that can be used";

/// The public key of a block.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn read_public(block: &str) -> Result<Public, &'static str> {
    let (label, der) = decode(block)?;
    if label.ends_with(PRIVATE_LABEL) {
        return Err(
            "this is a private key, which only the signer of tokens should have: \
             put the public one here, as openssl pkey -pubout writes it",
        );
    }
    if label != PUBLIC_LABEL {
        return Err("this is not a PUBLIC KEY");
    }
    read_public_der(&der).ok_or(UNKNOWN_CURVE)
}

/// Whether `text` is what is between the first and the last line of a public key's block: nobody means that as a secret.
pub(super) fn is_bare_public(text: &str) -> bool {
    let der = STANDARD_PAD_INDIFFERENT.decode(text).unwrap_or_default();
    der.starts_with(P256_PUBLIC) || der.starts_with(ED25519_PUBLIC)
}

fn read_public_der(der: &[u8]) -> Option<Public> {
    if let Some(point) = der.strip_prefix(P256_PUBLIC) {
        let point: &[u8; P256_POINT_BYTES] = point.try_into().ok()?;
        let (x, y) = point.split_at(P256_POINT_BYTES / 2);
        // Of a point beside the curve there is none.
        let point = AffinePoint::from_coordinates(x.try_into().ok()?, y.try_into().ok()?);
        let key = P256Public::from_affine(point.into_option()?);
        return key.ok().map(Public::P256);
    }
    let point = der.strip_prefix(ED25519_PUBLIC)?.try_into().ok()?;
    let key = Ed25519Public::from_bytes(point).ok()?;
    // Under a point of small order, one signature is good for many texts.
    (!key.is_weak()).then_some(Public::Ed25519(key))
}

/// The private key of a block; `None` if it has only parameters, as OpenSSL writes them in front of one.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn read_private(block: &str) -> Result<Option<Private>, &'static str> {
    let (label, der) = decode(block)?;
    match label {
        "EC PARAMETERS" => Ok(None),
        PUBLIC_LABEL => {
            Err("this is a public key, which checks tokens: signing one takes the private key")
        }
        "ENCRYPTED PRIVATE KEY" => Err("this key is encrypted: openssl pkey decrypts it"),
        _ => read_private_der(&der).map(Some).ok_or(UNKNOWN_CURVE),
    }
}

fn read_private_der(der: &[u8]) -> Option<Private> {
    let read = |forms: &[(&[u8], &[u8])]| {
        forms.iter().find_map(|(before, behind)| {
            let rest = der.strip_prefix(*before)?;
            let (key, rest) = rest.split_first_chunk::<PRIVATE_BYTES>()?;
            // With a public key, that is checked; without, nothing follows.
            Some((*key, rest.strip_prefix(*behind)?, !behind.is_empty()))
        })
    };
    if let Some((key, public, has_public)) = read(&P256_PRIVATE) {
        let key = P256Private::from_slice(&key).ok()?;
        let own = point(&key);
        let is_right = public == if has_public { &own[..] } else { b"" };
        return is_right.then_some(Private::P256(key));
    }
    let (key, public, has_public) = read(&ED25519_PRIVATE)?;
    let key = Ed25519Private::from_bytes(&key);
    let own = key.verifying_key().to_bytes();
    let is_right = public == if has_public { &own[..] } else { b"" };
    is_right.then_some(Private::Ed25519(key))
}

/// Both coordinates of the public key that goes with a private one.
fn point(key: &P256Private) -> Vec<u8> {
    let point = key.verifying_key().as_affine();
    [point.x(), point.y()].concat()
}

/// The label of a block, and what is in it.
fn decode(block: &str) -> Result<(&str, Vec<u8>), &'static str> {
    let whole = || {
        let (first, rest) = block.strip_prefix(BEGIN)?.split_once('\n')?;
        let (text, last) = rest.rsplit_once(END)?;
        let label = first.strip_suffix(DASHES)?;
        (last.strip_suffix(DASHES)? == label).then_some((label, text))
    };
    let (label, text) = whole().ok_or(NOT_WHOLE)?;
    let text: String = text.split_ascii_whitespace().collect();
    let der = STANDARD_PAD_INDIFFERENT.decode(text);
    Ok((label, der.map_err(|_| NOT_WHOLE)?))
}

fn encode(label: &str, parts: &[&[u8]]) -> String {
    let text = STANDARD.encode(parts.concat());
    let mut block = format!("{BEGIN}{label}{DASHES}\n");
    for (position, character) in text.chars().enumerate() {
        if position > 0 && position % LINE_CHARS == 0 {
            block.push('\n');
        }
        block.push(character);
    }
    block + &format!("\n{END}{label}{DASHES}\n")
}

impl Private {
    /// Its block, as `openssl genpkey` would write it.
    pub(super) fn write(&self) -> String {
        match self {
            Self::P256(key) => {
                let (before, behind) = P256_PRIVATE[0];
                encode(
                    PRIVATE_LABEL,
                    &[before, &key.to_bytes(), behind, &point(key)],
                )
            }
            Self::Ed25519(key) => encode(PRIVATE_LABEL, &[ED25519_PRIVATE[0].0, key.as_bytes()]),
        }
    }

    /// The public key that goes with it.
    pub(super) fn public(&self) -> Public {
        match self {
            Self::P256(key) => Public::P256(*key.verifying_key()),
            Self::Ed25519(key) => Public::Ed25519(key.verifying_key()),
        }
    }
}

impl Public {
    /// Its block.
    pub(super) fn write(&self) -> String {
        match self {
            Self::P256(key) => {
                let point = key.as_affine();
                encode(PUBLIC_LABEL, &[P256_PUBLIC, &point.x(), &point.y()])
            }
            Self::Ed25519(key) => encode(PUBLIC_LABEL, &[ED25519_PUBLIC, key.as_bytes()]),
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
