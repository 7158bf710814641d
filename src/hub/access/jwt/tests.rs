//! Tokens that are right, and every way to be wrong.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::*;
use crate::hub::filter::{Filter, Page};

/// RFC 7515, appendix A.1.
const RFC_KEY: &str =
    "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
const RFC_TOKEN: &str = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9\
    .eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ\
    .dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const RFC_EXP: u64 = 1_300_819_380;

const KEY: &str = "0123456789abcdef0123456789abcdef";
const OTHER_KEY: &str = "fedcba9876543210fedcba9876543210";
const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
const NOW: Duration = Duration::from_secs(1_000_000);

fn keys(text: &str) -> ClientKeys {
    ClientKeys::parse(text).expect("valid")
}

/// A token with a signature that is right, whatever it says.
fn sign(key: &str, header: &str, claims: &str) -> String {
    sign_encoded(
        key,
        &URL_SAFE_NO_PAD.encode(header),
        &URL_SAFE_NO_PAD.encode(claims),
    )
}

fn sign_encoded(key: &str, header: &str, claims: &str) -> String {
    let signed = format!("{header}.{claims}");
    let mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("any length");
    let tag = mac.chain_update(&signed).finalize().into_bytes();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
}

fn verify(token: &str) -> Result<Grant, TokenError> {
    verify_at(token, NOW)
}

fn verify_at(token: &str, unix_now: Duration) -> Result<Grant, TokenError> {
    keys(KEY).verify(token, unix_now, &HubLimits::default())
}

fn with_header(header: &str) -> Result<Grant, TokenError> {
    verify(&sign(KEY, header, r#"{"exp":1000000}"#))
}

fn with_claims(claims: &str) -> Result<Grant, TokenError> {
    verify(&sign(KEY, HEADER, claims))
}

fn nothing_until(expires: Duration) -> Result<Grant, TokenError> {
    Ok(Grant {
        allow: Vec::new(),
        history: true,
        expires,
        user: None,
    })
}

#[test]
fn a_sub_is_a_label_and_never_a_reason_to_refuse() {
    let long = |len: usize| format!(r#""{}""#, "u".repeat(len));
    for (sub, user) in [
        (r#""17""#, Some("17")),
        (r#""\u00e9\n""#, Some("é\n")),
        ("17", Some("17")),
        (&long(128), Some(&*"u".repeat(128))),
        (&long(129), None),
        (r#""""#, None),
        ("null", None),
        ("-1.5", None),
        ("{}", None),
        (r#""\ud800""#, None),
    ] {
        let grant = with_claims(&format!(r#"{{"exp":1000000,"sub":{sub}}}"#));
        let grant = grant.expect("it is good");
        assert_eq!(grant.user.as_deref(), user, "{sub}");
    }
}

#[test]
fn the_example_of_the_rfc_verifies() {
    let keys = keys(&format!("base64:{RFC_KEY}"));
    let exp = Duration::from_secs(RFC_EXP);
    let verify = |token: &str| keys.verify(token, exp, &HubLimits::default());
    assert_eq!(verify(RFC_TOKEN), nothing_until(exp));
    // Any bit of any part may be another.
    for position in 0..RFC_TOKEN.len() {
        for bit in 0..7 {
            let mut bytes = RFC_TOKEN.as_bytes().to_vec();
            bytes[position] ^= 1 << bit;
            let token = String::from_utf8(bytes).expect("ASCII");
            assert!(verify(&token).is_err(), "{token}");
        }
    }
    for end in 0..RFC_TOKEN.len() {
        assert!(verify(&RFC_TOKEN[..end]).is_err(), "{end}");
    }
}

#[test]
fn keys_are_text_or_base64() {
    let token = sign(KEY, HEADER, r#"{"exp":1000000}"#);
    let is_key = |text: &str| {
        let keys = ClientKeys::parse(text)?;
        Ok(keys.verify(&token, NOW, &HubLimits::default()).is_ok())
    };
    let base64 = "base64:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY";
    for text in [
        KEY,
        base64,
        &format!("{base64}=\r\n"),
        // While keys are exchanged, either one counts.
        &format!("{OTHER_KEY}\n{KEY}\n"),
        &format!("{KEY}\n{OTHER_KEY}\n"),
    ] {
        assert_eq!(is_key(text), Ok(true), "{text}");
    }
    assert_eq!(is_key(OTHER_KEY), Ok(false));
    assert_eq!(is_key(&format!("{KEY}0")), Ok(false));
    for (text, expected) in [
        (
            &KEY[1..],
            SecretsError::TooShort {
                line: 1,
                bytes: 31,
                bytes_min: 32,
            },
        ),
        (
            // Long enough as text, but not as what it stands for.
            "\nbase64:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZQ",
            SecretsError::TooShort {
                line: 2,
                bytes: 31,
                bytes_min: 32,
            },
        ),
        (
            "base64:",
            SecretsError::TooShort {
                line: 1,
                bytes: 0,
                bytes_min: 32,
            },
        ),
        ("base64:+_", SecretsError::NotBase64 { line: 1 }),
        ("base64:!", SecretsError::NotBase64 { line: 1 }),
        ("", SecretsError::None),
    ] {
        assert_eq!(is_key(text), Err(expected), "{text}");
    }
    assert_eq!(format!("{:?}", keys(KEY)), "ClientKeys(1)");
}

#[test]
fn other_algorithms_and_extensions_are_refused() {
    assert!(with_header(HEADER).is_ok());
    assert!(with_header(r#" {"x":[1],"\u0061lg":"HS\u003256"} "#).is_ok());
    for alg in [
        "none", "None", "HS512", "HS384", "RS256", "hs256", "HS256 ", "",
    ] {
        let header = format!(r#"{{"alg":"{alg}"}}"#);
        assert_eq!(with_header(&header), Err(TokenError::Algorithm), "{alg}");
    }
    for header in [r#"{}"#, r#"{"typ":"JWT"}"#, r#"{"alg":null}"#] {
        assert_eq!(with_header(header), Err(TokenError::Algorithm), "{header}");
    }
    for crit in [r#"["exp"]"#, "[]", "null"] {
        let header = format!(r#"{{"alg":"HS256","crit":{crit}}}"#);
        assert_eq!(with_header(&header), Err(TokenError::Critical), "{crit}");
    }
    // Without a signature there is nothing to be read.
    let claims = URL_SAFE_NO_PAD.encode(r#"{"exp":1000000}"#);
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
    assert_eq!(
        verify(&format!("{header}.{claims}.")),
        Err(TokenError::Algorithm)
    );
    let header = URL_SAFE_NO_PAD.encode(HEADER);
    assert_eq!(
        verify(&format!("{header}.{claims}.")),
        Err(TokenError::Signature)
    );
}

#[test]
fn what_is_no_object_or_has_a_member_twice_is_malformed() {
    let deep = "[".repeat(1000) + &"]".repeat(1000);
    let twice = r#"{"alg":"HS256","\u0061lg":"HS256"}"#;
    for header in [
        "",
        "null",
        r#""HS256""#,
        r#"["HS256"]"#,
        r#"["HS256",null]"#,
        r#"{"alg":1}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"alg":"HS256"} x"#,
        r#"{"alg":"HS256",}"#,
        r#"{"alg":"HS256","crit":[],"crit":[]}"#,
        "\u{feff}{\"alg\":\"HS256\"}",
        twice,
        &deep,
    ] {
        assert_eq!(with_header(header), Err(TokenError::Malformed), "{header}");
    }
    for claims in [
        "",
        "1000000",
        "[1000000]",
        "[1000000,0,[]]",
        r#"{"exp":1000000"#,
        r#"{"exp":1000000,"exp":1000000}"#,
        r#"{"exp":1000000,"\u0065xp":1000000}"#,
        r#"{"exp":1000000,"nbf":1,"nbf":1}"#,
        r#"{"exp":1000000,"allow":[],"allow":[]}"#,
        r#"{"exp":01000000}"#,
        &deep,
    ] {
        assert_eq!(with_claims(claims), Err(TokenError::Malformed), "{claims}");
    }
    let not_utf8 = [b"{\"exp\":1000000,\"a\":\"\xff\"}".as_slice()].concat();
    let not_utf8 = URL_SAFE_NO_PAD.encode(not_utf8);
    let token = sign_encoded(KEY, &URL_SAFE_NO_PAD.encode(HEADER), &not_utf8);
    assert_eq!(verify(&token), Err(TokenError::Malformed));
    // What isn't read may be anything.
    let claims = format!(r#"{{"sub":1,"sub":2,"a":{deep},"n":1e400,"exp":1000000}}"#);
    assert!(with_claims(&claims).is_ok());
    let header = format!(r#"{{"typ":1,"typ":2,"a":{deep},"alg":"HS256"}}"#);
    assert!(with_header(&header).is_ok());
}

#[test]
fn the_compact_form_is_exact() {
    let token = sign(KEY, HEADER, r#"{"exp":1000000}"#);
    assert!(verify(&token).is_ok());
    let parts: Vec<_> = token.split('.').collect();
    let [header, claims, signature] = parts[..] else {
        panic!("{token}")
    };
    for bad in [
        "",
        ".",
        "..",
        "...",
        header,
        &format!("{header}.{claims}"),
        &format!("{token}."),
        &format!(".{token}"),
        &format!("{token}.{signature}"),
        &format!("{header}..{claims}.{signature}"),
        &format!("{header}.{claims}..{signature}"),
        &format!("{header}=.{claims}.{signature}"),
        &format!("{token}="),
        &format!(" {token}"),
        &format!("{token} "),
        &format!("{token}\n"),
        &format!("{header}.{claims}.\u{e9}"),
        &format!("Bearer {token}"),
    ] {
        assert_eq!(verify(bad), Err(TokenError::Malformed), "{bad:?}");
    }
    // The signature covers the parts as they are written, so these would be signed well.
    for (header, claims) in [
        (format!("{header}="), claims.to_owned()),
        (header.to_owned(), format!("{claims}=")),
        (header.to_owned(), format!("{claims}.{claims}")),
        (header.to_owned(), format!("{claims}\n")),
        (header.to_owned(), format!("+/{claims}")),
    ] {
        let token = sign_encoded(KEY, &header, &claims);
        assert_eq!(verify(&token), Err(TokenError::Malformed), "{token}");
    }
}

#[test]
fn a_token_at_the_longest_and_one_more() {
    let token_of = |padding: usize| {
        let claims = format!(r#"{{"exp":1000000,"x":"{}"}}"#, "x".repeat(padding));
        sign(KEY, HEADER, &claims)
    };
    // Base64url has no length of 4n + 1, so some lengths are left out.
    let longest = (5900..6200).map(token_of);
    let mut lengths = longest.map(|token| (token.len(), verify(&token).map(|_| ())));
    assert!(lengths.clone().any(|(len, _)| len == TOKEN_BYTES_MAX));
    assert!(lengths.clone().any(|(len, _)| len == TOKEN_BYTES_MAX + 1));
    assert!(lengths.all(|(len, result)| result
        == if len <= TOKEN_BYTES_MAX {
            Ok(())
        } else {
            Err(TokenError::TooLong)
        }));
    let junk = "\u{e9}".repeat(TOKEN_BYTES_MAX);
    assert_eq!(verify(&junk), Err(TokenError::TooLong));
}

#[test]
fn times_have_half_a_minute_of_leeway() {
    let micro = Duration::from_micros(1);
    let token = sign(KEY, HEADER, r#"{"exp":1000000}"#);
    let expires = NOW + LEEWAY;
    assert_eq!(verify_at(&token, NOW - NOW), nothing_until(NOW));
    assert_eq!(verify_at(&token, expires - micro), nothing_until(NOW));
    assert_eq!(verify_at(&token, expires), Err(TokenError::Expired));
    assert_eq!(verify_at(&token, Duration::MAX), Err(TokenError::Expired));

    let token = sign(KEY, HEADER, r#"{"exp":1e9,"nbf":1000000.5}"#);
    let begins = NOW + Duration::from_millis(500) - LEEWAY;
    assert!(verify_at(&token, begins).is_ok());
    assert_eq!(
        verify_at(&token, begins - micro),
        Err(TokenError::NotYetValid)
    );
    assert_eq!(verify_at(&token, NOW - NOW), Err(TokenError::NotYetValid));
}

#[test]
fn times_are_numbers_that_can_be_counted() {
    assert_eq!(
        with_claims(r#"{"exp":1000000.25}"#),
        nothing_until(NOW + Duration::from_millis(250))
    );
    assert_eq!(with_claims(r#"{"exp":-0}"#), Err(TokenError::Expired));
    for far in [
        "1e300",
        "18446744073709551615",
        "18446744073709551616",
        "1e20",
    ] {
        let claims = format!(r#"{{"exp":{far}}}"#);
        let expires = with_claims(&claims).expect("far away").expires;
        assert!(expires >= Duration::from_secs(u64::MAX), "{far}");
        let claims = format!(r#"{{"exp":{far},"nbf":{far}}}"#);
        assert_eq!(with_claims(&claims), Err(TokenError::NotYetValid), "{far}");
    }
    for bad in [
        "null",
        "true",
        r#""1000000""#,
        "[1000000]",
        "{}",
        "-1",
        "-1e-9",
        "1e400",
        "-1e400",
    ] {
        let claims = format!(r#"{{"exp":{bad}}}"#);
        assert_eq!(with_claims(&claims), Err(TokenError::BadTime), "{bad}");
        let claims = format!(r#"{{"exp":1000000,"nbf":{bad}}}"#);
        assert_eq!(with_claims(&claims), Err(TokenError::BadTime), "{bad}");
    }
    for none in ["{}", r#"{"nbf":1}"#, r#"{"Exp":1000000}"#] {
        assert_eq!(with_claims(none), Err(TokenError::NoExpiry), "{none}");
    }
    let huge = format!(r#"{{"exp":1{}}}"#, "0".repeat(5000));
    assert_eq!(with_claims(&huge), Err(TokenError::BadTime));
}

#[test]
fn what_a_token_allows_is_read_as_subscriptions() {
    let allow = |list: &str| with_claims(&format!(r#"{{"exp":1000000,"allow":{list}}}"#));
    let page = Page {
        package: "p".into(),
        page: "q".into(),
    };
    assert_eq!(
        allow(r#"["Production",{"package":"p","page":"q"}]"#).map(|grant| grant.allow),
        Ok(vec![
            Subscription::Channel("Production".into()),
            Subscription::Page(page, Filter::Everything),
        ])
    );
    assert_eq!(allow("[]").map(|grant| grant.allow), Ok(Vec::new()));
    let deep = "[".repeat(1000) + &"]".repeat(1000);
    for bad in [
        "null",
        "{}",
        r#""Production""#,
        "[1]",
        r#"[{"package":"p"}]"#,
        r#"[{"package":"p","page":"q","page":"q"}]"#,
        &deep,
    ] {
        let expected = TokenError::BadAllow(ErrorCode::InvalidSubscription);
        assert_eq!(allow(bad), Err(expected), "{bad}");
    }
}

#[test]
fn what_a_token_allows_is_held_to_the_limits() {
    let limits = HubLimits {
        subscriptions_max: 2,
        values_max: 3,
        ..HubLimits::default()
    };
    let allow = |list: &str| {
        let claims = format!(r#"{{"exp":1000000,"allow":{list}}}"#);
        let token = sign(KEY, HEADER, &claims);
        let grant = keys(KEY).verify(&token, NOW, &limits);
        grant.map(|grant| grant.allow.len())
    };
    let with_values = |values: &str| {
        let filters = format!(r#"{{"values":{values}}}"#);
        allow(&format!(
            r#"[{{"package":"p","page":"q","filters":{filters}}}]"#
        ))
    };
    let too_many = Err(TokenError::BadAllow(ErrorCode::TooManySubscriptions));
    assert_eq!(allow(r#"["a","b"]"#), Ok(2));
    assert_eq!(allow(r#"["a","b","c"]"#), too_many);
    assert_eq!(with_values("[1,2,3]"), Ok(1));
    assert_eq!(with_values("[1,2,3,4]"), too_many);
}

#[test]
fn the_signature_is_checked_before_the_claims() {
    for claims in ["not JSON", r#"{"exp":0}"#, "{}", r#"{"exp":1e9,"allow":7}"#] {
        let token = sign(OTHER_KEY, HEADER, claims);
        assert_eq!(verify(&token), Err(TokenError::Signature), "{claims}");
    }
}

#[test]
fn history_is_allowed_unless_the_token_says_otherwise() {
    for (claim, expected) in [
        ("", true),
        (r#","history":true"#, true),
        (r#","history":false"#, false),
        (r#","history":null"#, false),
        (r#","history":"yes""#, false),
    ] {
        let grant = with_claims(&format!(r#"{{"exp":1000000{claim}}}"#));
        assert_eq!(grant.map(|grant| grant.history), Ok(expected), "{claim}");
    }
}
