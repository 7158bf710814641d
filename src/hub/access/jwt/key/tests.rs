//! Tokens of public keys: the examples of the RFCs, signatures that are none, and algorithms that are taken for others.

use std::time::Duration;

use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::super::pem::tests::{
    ED25519_PRIVATE_PEM, ED25519_PUBLIC_PEM, P256_PRIVATE_PEM, P256_PUBLIC_PEM,
};
use super::super::signer::Signer;
use super::super::{ClientKeys, TokenError};
use super::*;
use crate::config::HubLimits;

/// RFC 7515, appendix A.3.
const RFC_ES256: &str = "eyJhbGciOiJFUzI1NiJ9\
    .eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ\
    .DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
const RFC_EXP: Duration = Duration::from_secs(1_300_819_380);

/// RFC 8037, appendix A.4.
const RFC_EDDSA: &str = "eyJhbGciOiJFZERTQSJ9\
    .RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc\
    .hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const CLAIMS: &str = r#"{"exp":1300819380}"#;

/// The order of P-256, and that of Ed25519, the latter with its lowest byte first.
const P256_ORDER: [u8; 32] = *b"\xff\xff\xff\xff\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\
    \xbc\xe6\xfa\xad\xa7\x17\x9e\x84\xf3\xb9\xca\xc2\xfc\x63\x25\x51";
const ED25519_ORDER: [u8; 32] =
    *b"\xed\xd3\xf5\x5c\x1a\x63\x12\x58\xd6\x9c\xf7\xa2\xde\xf9\xde\x14\
    \x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x10";

fn keys(text: &str) -> ClientKeys {
    ClientKeys::parse(text).expect("keys")
}

fn signer(text: &str) -> Signer {
    Signer::parse(text).expect("a key")
}

fn verify(text: &str, token: &str) -> Result<(), TokenError> {
    let verified = keys(text).verify(token, RFC_EXP, &HubLimits::default());
    verified.map(|_| ())
}

/// The token, with another signature.
fn with_signature(token: &str, signature: &[u8]) -> String {
    let (signed, _) = token.rsplit_once('.').expect("a signature");
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn signature(token: &str) -> Vec<u8> {
    let (_, signature) = token.rsplit_once('.').expect("a signature");
    URL_SAFE_NO_PAD.decode(signature).expect("base64url")
}

/// A token that says what it likes, signed with a secret.
fn hs256(secret: &[u8], header: &str) -> String {
    let signed = [header, CLAIMS].map(|part| URL_SAFE_NO_PAD.encode(part));
    let signed = signed.join(".");
    let mac = Hmac::<Sha256>::new_from_slice(secret).expect("any length");
    let tag = mac.chain_update(&signed).finalize().into_bytes();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
}

/// The token, with another header.
fn with_header(token: &str, header: &str) -> String {
    let (_, rest) = token.split_once('.').expect("three parts");
    format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header))
}

#[test]
fn the_examples_of_the_rfcs_verify() {
    assert_eq!(verify(P256_PUBLIC_PEM, RFC_ES256), Ok(()));
    // Its signature is right, which is looked at first; and it has a sentence where claims should be.
    assert_eq!(
        verify(ED25519_PUBLIC_PEM, RFC_EDDSA),
        Err(TokenError::Malformed)
    );
    // Some bits only: without optimisation, each takes milliseconds.
    for position in (0..RFC_ES256.len()).step_by(5) {
        let mut bytes = RFC_ES256.as_bytes().to_vec();
        bytes[position] ^= 1 << (position % 6);
        let other = String::from_utf8(bytes).expect("ASCII");
        assert!(verify(P256_PUBLIC_PEM, &other).is_err(), "{other}");
    }
    let key = Key::parse(1, ED25519_PUBLIC_PEM.trim_end()).expect("a key");
    let (signed, _) = RFC_EDDSA.rsplit_once('.').expect("a signature");
    assert!(key.has_signed(signed.as_bytes(), &signature(RFC_EDDSA)));
    for bit in (0..signed.len() * 8).step_by(7) {
        let mut other = signed.as_bytes().to_vec();
        other[bit / 8] ^= 1 << (bit % 8);
        assert!(!key.has_signed(&other, &signature(RFC_EDDSA)), "{bit}");
    }
}

#[test]
fn the_signer_makes_the_signature_of_the_rfc() {
    let signer = signer(ED25519_PRIVATE_PEM);
    assert_eq!(signer.algorithm(), Algorithm::EdDsa);
    // Its own header says more than that of the RFC.
    let token = signer.sign("Example of Ed25519 signing");
    assert_eq!(
        verify(ED25519_PUBLIC_PEM, &token),
        Err(TokenError::Malformed)
    );
    let key = ed25519_dalek::SigningKey::from_bytes(
        b"\x9d\x61\xb1\x9d\xef\xfd\x5a\x60\xba\x84\x4a\xf4\x92\xec\x2c\xc4\
          \x44\x49\xc5\x69\x7b\x32\x69\x19\x70\x3b\xac\x03\x1c\xae\x7f\x60",
    );
    let (signed, _) = RFC_EDDSA.rsplit_once('.').expect("a signature");
    let signed = p256::ecdsa::signature::Signer::sign(&key, signed.as_bytes());
    assert_eq!(signed.to_bytes().to_vec(), signature(RFC_EDDSA));
}

#[test]
fn what_a_signer_signs_its_public_key_verifies_and_no_other_does() {
    let files = [
        (SECRET, SECRET),
        (P256_PRIVATE_PEM, P256_PUBLIC_PEM),
        (ED25519_PRIVATE_PEM, ED25519_PUBLIC_PEM),
    ];
    for (private, public) in files {
        let signer = signer(private);
        let token = signer.sign(CLAIMS);
        assert_eq!(verify(public, &token), Ok(()));
        let own = signer.client_keys();
        assert!(own.verify(&token, RFC_EXP, &HubLimits::default()).is_ok());
        for (_, other) in files.iter().filter(|(_, other)| *other != public) {
            assert_eq!(verify(other, &token), Err(TokenError::Algorithm));
            // While keys are exchanged, those of two algorithms count.
            assert_eq!(verify(&format!("{other}\n{public}"), &token), Ok(()));
            assert_eq!(verify(&format!("{public}\n{other}"), &token), Ok(()));
        }
        let exchange = |old: &str, new: &str| keys(new).exchange(&keys(old)).to_string();
        assert_eq!(exchange(public, public), "unchanged, 1 in force");
        for (_, other) in files.iter().filter(|(_, other)| *other != public) {
            assert_eq!(exchange(public, other), "1 added, 1 removed, 1 in force");
        }
    }
    // RFC 9864 calls it by the curve.
    let (_, rest) = RFC_EDDSA.split_once('.').expect("three parts");
    let renamed = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(r#"{"alg":"Ed25519"}"#));
    assert_eq!(
        verify(ED25519_PUBLIC_PEM, &renamed),
        Err(TokenError::Signature)
    );
    let both = format!("{ED25519_PUBLIC_PEM}{P256_PUBLIC_PEM}");
    assert_eq!(format!("{:?}", keys(&both)), "ClientKeys(2)");
}

#[test]
fn two_keys_of_one_algorithm_count_in_either_order() {
    let other = super::super::signer::new_key(Algorithm::Es256, [7; 32]).expect("a key");
    let other_public = other.public.expect("public");
    for private in [P256_PRIVATE_PEM, &other.signing] {
        let token = signer(private).sign(CLAIMS);
        for file in [
            format!("{P256_PUBLIC_PEM}{other_public}"),
            format!("{other_public}\r\n{P256_PUBLIC_PEM}"),
        ] {
            assert_eq!(verify(&file, &token), Ok(()));
        }
    }
    let token = signer(&other.signing).sign(CLAIMS);
    assert_eq!(verify(P256_PUBLIC_PEM, &token), Err(TokenError::Signature));
}

#[test]
fn the_algorithm_is_the_keys() {
    let es256 = signer(P256_PRIVATE_PEM).sign(CLAIMS);
    let eddsa = signer(ED25519_PRIVATE_PEM).sign(CLAIMS);
    let all = format!("{P256_PUBLIC_PEM}{ED25519_PUBLIC_PEM}");
    // A public key as if it were a secret, in each way that it can be written.
    let bytes = |pem: &str| {
        let lines = pem.lines().filter(|line| !line.starts_with('-'));
        STANDARD_PAD_INDIFFERENT
            .decode(lines.collect::<String>())
            .expect("Base64")
    };
    for pem in [P256_PUBLIC_PEM, ED25519_PUBLIC_PEM] {
        let der = bytes(pem);
        let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        for secret in [
            pem.as_bytes(),
            pem.trim_end().as_bytes(),
            base64.as_bytes(),
            &der,
            &der[der.len() - 32..],
            &der[der.len().saturating_sub(64)..],
            &der[der.len().saturating_sub(65)..],
            b"",
        ] {
            for alg in ["HS256", "ES256", "EdDSA"] {
                let forged = hs256(secret, &format!(r#"{{"alg":"{alg}"}}"#));
                let expected = match alg {
                    "HS256" => TokenError::Algorithm,
                    _ => TokenError::Signature,
                };
                assert_eq!(verify(&all, &forged), Err(expected), "{alg}");
                let with_secret = format!("{SECRET}\n{pem}");
                assert!(verify(&with_secret, &forged).is_err(), "{alg}");
            }
        }
    }
    // Signed well, under the name of another algorithm; the signature is made for the header that it has.
    for (private, wrong) in [(P256_PRIVATE_PEM, "EdDSA"), (ED25519_PRIVATE_PEM, "ES256")] {
        let (key, header) = (signer(private), format!(r#"{{"alg":"{wrong}"}}"#));
        let token = key.sign_with_header(&header, CLAIMS);
        assert_eq!(verify(&all, &token), Err(TokenError::Signature), "{wrong}");
        for alg in [
            "none", "HS256", "ES384", "ES256K", "es256", "EDDSA", "RS256", "Ed448", "",
        ] {
            let token = key.sign_with_header(&format!(r#"{{"alg":"{alg}"}}"#), CLAIMS);
            assert_eq!(verify(&all, &token), Err(TokenError::Algorithm), "{alg}");
        }
    }
    // Nor does a token bring its key.
    let jwk = r#""jwk":{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
    let other = super::super::signer::new_key(Algorithm::Es256, [7; 32]).expect("a key");
    let token =
        signer(P256_PRIVATE_PEM).sign_with_header(&format!(r#"{{"alg":"ES256",{jwk}}}"#), CLAIMS);
    assert_eq!(
        verify(&other.public.expect("public"), &token),
        Err(TokenError::Signature)
    );
    assert_eq!(verify(P256_PUBLIC_PEM, &token), Ok(()));
    // Without a signature, with that of another token, with the header of another.
    for token in [&es256, &eddsa] {
        assert_eq!(
            verify(&all, &with_signature(token, b"")),
            Err(TokenError::Signature)
        );
        let unsigned = with_header(&with_signature(token, b""), r#"{"alg":"none"}"#);
        assert_eq!(verify(&all, &unsigned), Err(TokenError::Algorithm));
    }
    assert_eq!(
        verify(&all, &with_signature(&es256, &signature(&eddsa))),
        Err(TokenError::Signature)
    );
    assert_eq!(
        verify(&all, &with_signature(&eddsa, &signature(&es256))),
        Err(TokenError::Signature)
    );
    let crit = signer(P256_PRIVATE_PEM)
        .sign_with_header(r#"{"alg":"ES256","crit":["b64"],"b64":false}"#, CLAIMS);
    assert_eq!(verify(&all, &crit), Err(TokenError::Critical));
}

#[test]
fn signatures_of_another_form_or_out_of_range_are_refused() {
    for (private, public, order) in [
        (P256_PRIVATE_PEM, P256_PUBLIC_PEM, P256_ORDER),
        (ED25519_PRIVATE_PEM, ED25519_PUBLIC_PEM, ED25519_ORDER),
    ] {
        let token = signer(private).sign(CLAIMS);
        let good = signature(&token);
        assert_eq!(good.len(), 64);
        let refused = |signature: &[u8]| {
            let verified = verify(public, &with_signature(&token, signature));
            assert_eq!(verified, Err(TokenError::Signature), "{signature:x?}");
        };
        for bit in (0..good.len() * 8).step_by(7) {
            let mut other = good.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            refused(&other);
        }
        for end in 0..good.len() {
            refused(&good[..end]);
        }
        refused(&[&good[..], b"\0"].concat());
        refused(&[b"\0", &good[..]].concat());
        refused(&[&good[..], &good[..]].concat());
        // Nothing, the order and more, for either number.
        let (first, second) = good.split_at(32);
        for number in [[0; 32], order, [0xff; 32]] {
            refused(&[&number, second].concat());
            refused(&[first, &number].concat());
            refused(&[number, number].concat());
        }
        refused(&[second, first].concat());
    }
}

/// As ASN.1, which is how OpenSSL gives a signature of ECDSA, and how many programs send it by mistake.
#[test]
fn a_signature_as_der_is_refused() {
    let token = signer(P256_PRIVATE_PEM).sign(CLAIMS);
    let number = |bytes: &[u8]| {
        let sign: &[u8] = if bytes[0] >= 0x80 { b"\0" } else { b"" };
        [&[2, (bytes.len() + sign.len()) as u8], sign, bytes].concat()
    };
    let raw = signature(&token);
    let both = [number(&raw[..32]), number(&raw[32..])].concat();
    let der = [&[0x30, both.len() as u8], &both[..]].concat();
    let token = with_signature(&token, &der);
    assert_eq!(verify(P256_PUBLIC_PEM, &token), Err(TokenError::Signature));
}

#[test]
fn the_second_signature_of_ecdsa_is_as_good_and_eddsa_has_none() {
    // -s for s: anybody can make it from the first, and gets a token that says the same. RFC 7518 forbids neither.
    let token = signer(P256_PRIVATE_PEM).sign(CLAIMS);
    let good = signature(&token);
    let mut other = good.clone();
    let mut borrow = 0;
    for position in (0..32).rev() {
        let difference = i16::from(P256_ORDER[position]) - i16::from(good[32 + position]) - borrow;
        borrow = i16::from(difference < 0);
        other[32 + position] = difference.rem_euclid(256) as u8;
    }
    assert_ne!(good, other);
    assert_eq!(
        verify(P256_PUBLIC_PEM, &with_signature(&token, &other)),
        Ok(())
    );

    // s and the order for s: RFC 8032 §5.1.7 wants it below the order.
    let token = signer(ED25519_PRIVATE_PEM).sign(CLAIMS);
    let mut other = signature(&token);
    let mut carry = 0;
    for position in 0..32 {
        let sum = u16::from(other[32 + position]) + u16::from(ED25519_ORDER[position]) + carry;
        carry = sum >> 8;
        other[32 + position] = sum as u8;
    }
    assert_eq!(carry, 0);
    assert_eq!(
        verify(ED25519_PUBLIC_PEM, &with_signature(&token, &other)),
        Err(TokenError::Signature)
    );
}

/// Made with the key of RFC 8037, with a nonce of nothing: R is the neutral point. OpenSSL takes it.
#[test]
fn a_signature_of_small_order_is_refused() {
    let token = "eyJhbGciOiJFZERTQSJ9.eyJleHAiOjEzMDA4MTkzODB9\
        .AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAADkKylIQAcPbE4Pu2bI8QmgPIhdeifK8wqvX-tRmeZBCA";
    let verified = verify(ED25519_PUBLIC_PEM, token);
    assert_eq!(verified, Err(TokenError::Signature));
}

#[test]
fn a_file_has_blocks_and_lines() {
    let is_good = |text: &str| ClientKeys::parse(text).map(|_| ());
    let block = P256_PUBLIC_PEM;
    for good in [
        String::from(block),
        String::from(block.trim_end()),
        block.replace('\n', "\r\n"),
        block.replace('\n', " \n\t"),
        format!("\n\n{block}\n\n"),
        format!("{block}{SECRET}\n"),
        format!("{SECRET}\n\n{block}"),
        format!("{block}{ED25519_PUBLIC_PEM}"),
    ] {
        assert_eq!(is_good(&good), Ok(()), "{good}");
    }
    let too_many = format!("{block}{SECRET}\n{ED25519_PUBLIC_PEM}");
    assert_eq!(is_good(&too_many), Err(SecretsError::TooMany { line: 6 }));
    let long = format!("{SECRET}\n{}{}", &block[..30], "a\n".repeat(600));
    assert_eq!(is_good(&long), Err(SecretsError::TooLong { line: 2 }));
    let private = P256_PRIVATE_PEM;
    let bare: String = block
        .lines()
        .filter(|line| !line.starts_with('-'))
        .collect();
    let jwk = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"}"#;
    for (bad, line) in [
        (format!("{SECRET}\n{private}"), 2),
        (block.replace("-----END PUBLIC KEY-----", ""), 1),
        (format!("\n{}", block.replace('\n', "\\n")), 2),
        (block.replace("-----BEGIN", "----BEGIN"), 1),
        (format!(" {block}"), 1),
        (format!("\u{feff}{block}"), 1),
        (block.replace("PUBLIC KEY", "CERTIFICATE"), 1),
        // As a secret, everybody would know it.
        (bare.clone(), 1),
        (format!("{SECRET}\nbase64:{bare}"), 2),
        (jwk.to_owned(), 1),
    ] {
        let error = is_good(&bad).expect_err("no key").to_string();
        assert!(error.contains(&format!("line {line}")), "{bad}: {error}");
        assert!(
            !error.contains("MFkw") && !error.contains("MIGH"),
            "{error}"
        );
    }
}

#[test]
fn what_signs_is_a_secret_or_private_and_the_first() {
    let parameters =
        "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
    for (file, algorithm) in [
        (SECRET.to_owned(), Algorithm::Hs256),
        (format!("{parameters}{P256_PRIVATE_PEM}"), Algorithm::Es256),
        (
            format!("{ED25519_PRIVATE_PEM}{P256_PRIVATE_PEM}"),
            Algorithm::EdDsa,
        ),
    ] {
        assert_eq!(signer(&file).algorithm(), algorithm, "{file}");
    }
    for bad in [P256_PUBLIC_PEM, parameters, "", "too short"] {
        assert!(Signer::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn new_keys_sign_what_they_verify() {
    use super::super::signer::new_key;
    for algorithm in Algorithm::ALL {
        let texts = new_key(algorithm, [1; 32]).expect("a number that may be one");
        let signer = signer(&texts.signing);
        assert_eq!(signer.algorithm(), algorithm);
        assert_eq!(texts.public.is_none(), algorithm == Algorithm::Hs256);
        let public = texts.public.as_ref().unwrap_or(&texts.signing);
        assert_eq!(verify(public, &signer.sign(CLAIMS)), Ok(()));
        assert_ne!(
            new_key(algorithm, [2; 32]).expect("one").signing,
            texts.signing
        );
        assert_eq!(Algorithm::from_name(algorithm.name()), Some(algorithm));
    }
    assert!(new_key(Algorithm::Es256, [0; 32]).is_none());
    assert!(new_key(Algorithm::Es256, [0xff; 32]).is_none());
}
