//! The tokens of clients against a reading of them as any JSON: what is taken must say all that it
//! has to. Tokens are signed here, with the key that the product knows, so that what is behind the
//! signature is reached.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use crieur::config::HubLimits;
use crieur::hub::access::jwt::{ClientKeys, TokenError};
use fastrand::Rng;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::Sha256;

const KEY: &str = "0123456789abcdef0123456789abcdef";
const NOW: u64 = 1_700_000_000;
const LEEWAY: f64 = 30.0;

/// The first line is the header, the rest the claims; all together is a token too.
pub(crate) fn check(bytes: &[u8]) {
    let keys = ClientKeys::parse(KEY).expect("a key");
    let verify = |token: &str| {
        let now = Duration::from_secs(NOW);
        keys.verify(token, now, &HubLimits::default())
    };
    if let Ok(text) = std::str::from_utf8(bytes) {
        assert!(verify(text).is_err(), "nobody signs by chance");
    }
    let line = bytes.iter().position(|&byte| byte == b'\n');
    let (header, claims) = bytes.split_at(line.unwrap_or(0));
    let claims = claims.strip_prefix(b"\n").unwrap_or(claims);
    let (header, claims) = (
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(claims),
    );
    let signed = format!("{header}.{claims}");
    let mac: Hmac<Sha256> = Hmac::new_from_slice(KEY.as_bytes()).expect("any length");
    let mut signature = mac.chain_update(&signed).finalize().into_bytes().to_vec();
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(&signature));
    let granted = verify(&token);
    assert_ne!(granted, Err(TokenError::Signature));
    if token.len() > 8192 {
        assert_eq!(granted, Err(TokenError::TooLong));
    } else if granted.is_ok() {
        check_granted(bytes);
        signature[7] ^= 1;
        let forged = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(&signature));
        assert_eq!(verify(&forged), Err(TokenError::Signature));
        assert_eq!(verify(&format!("{token}=")), Err(TokenError::Malformed));
        assert_eq!(verify(&format!("{token}.")), Err(TokenError::Malformed));
    }
}

/// Asserts that a token that was taken says what it must.
fn check_granted(bytes: &[u8]) {
    let text = std::str::from_utf8(bytes).expect("a token is text");
    let (header, claims) = text.split_once('\n').expect("two parts");
    // What nobody looks at is any JSON, a number that is none for a machine among it.
    let header: Members<'_> = serde_json::from_str(header).expect("JSON");
    assert_eq!(member(&header, "alg"), Some("HS256".into()));
    assert_eq!(member(&header, "crit"), None);
    let claims: Members<'_> = serde_json::from_str(claims).expect("JSON");
    let time = |name: &str| member(&claims, name).map(|time| time.as_f64().expect("a number"));
    let now = NOW as f64;
    assert!(time("exp").expect("it ends") + LEEWAY > now);
    assert!(time("nbf").is_none_or(|begins| begins <= now + LEEWAY));
    assert!(member(&claims, "allow").is_none_or(|allow| allow.is_array()));
}

type Members<'a> = HashMap<String, &'a RawValue>;

fn member(members: &Members<'_>, name: &str) -> Option<Value> {
    let value = members.get(name)?;
    Some(serde_json::from_str(value.get()).expect("a value"))
}

/// Headers and claims that are right for the most part.
#[allow(dead_code, reason = "the fuzz target brings bytes of its own")]
pub(crate) fn random(random: &mut Rng) -> Vec<u8> {
    let mut pick = |from: &[&'static str]| from[random.u64(0..=from.len() as u64 - 1) as usize];
    let alg = pick(&[
        r#""HS256""#,
        r#""HS256""#,
        r#""HS256""#,
        r#""none""#,
        r#""hs256""#,
        "null",
        "1",
    ]);
    let crit = pick(&[
        "",
        "",
        "",
        r#","crit":[]"#,
        r#","crit":null"#,
        r#","alg":"HS256""#,
    ]);
    let exp = pick(&[
        "1700000100",
        "1699999975.5",
        "1699999970",
        "1e300",
        "-1",
        r#""1700000100""#,
    ]);
    let nbf = pick(&[
        "",
        "",
        r#","nbf":1"#,
        r#","nbf":1700000030"#,
        r#","nbf":1700000031"#,
        r#","nbf":{}"#,
    ]);
    let allow = pick(&[
        "",
        r#","allow":["a"]"#,
        r#","allow":[]"#,
        r#","allow":"a""#,
        r#","allow":[{}]"#,
    ]);
    let end = pick(&["", "", "", " ", "}", r#","exp":1"#, "\0"]);
    let header = format!(r#"{{"alg":{alg}{crit}}}"#);
    let claims = format!(r#"{{"exp":{exp}{nbf}{allow}}}"#);
    format!("{header}\n{claims}{end}").into_bytes()
}
