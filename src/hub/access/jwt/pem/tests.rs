//! Keys as other programs write them, and what is none. All of them were written by OpenSSL 3.0 or by Python's
//! cryptography 48; those that count are of RFC 7515, appendix A.3, and of RFC 8037, appendix A.

use super::*;

pub(in crate::hub::access::jwt) const P256_PUBLIC_PEM: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEf83OJ3D2xF1Bg8vub9tLe1gHMzV7
6e8Tus9uPHvRVEXH8UTNG72bfocs3+257rn0s2ldbqkLJK2KRiMohYjlrQ==
-----END PUBLIC KEY-----
";
pub(in crate::hub::access::jwt) const P256_PRIVATE_PEM: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgjpsQnnGQmL+YBIff
H1136cspYG6+0iY7X1fCE9+E9LKhRANCAAR/zc4ncPbEXUGDy+5v20t7WAczNXvp
7xO6z248e9FURcfxRM0bvZt+hyzf7bnuufSzaV1uqQskrYpGIyiFiOWt
-----END PRIVATE KEY-----
";
const P256_WITHOUT_PUBLIC: &str = "-----BEGIN PRIVATE KEY-----
MEECAQAwEwYHKoZIzj0CAQYIKoZIzj0DAQcEJzAlAgEBBCCOmxCecZCYv5gEh98f
XXfpyylgbr7SJjtfV8IT34T0sg==
-----END PRIVATE KEY-----";
const P256_SEC1: &str = "-----BEGIN EC PRIVATE KEY-----
MHcCAQEEII6bEJ5xkJi/mASH3x9dd+nLKWBuvtImO19XwhPfhPSyoAoGCCqGSM49
AwEHoUQDQgAEf83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEXH8UTNG72b
focs3+257rn0s2ldbqkLJK2KRiMohYjlrQ==
-----END EC PRIVATE KEY-----";
const P256_COMPRESSED: &str = "-----BEGIN PUBLIC KEY-----
MDkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDIgADf83OJ3D2xF1Bg8vub9tLe1gHMzV7
6e8Tus9uPHvRVEU=
-----END PUBLIC KEY-----";
const P256_PARAMETERS: &str = "-----BEGIN EC PARAMETERS-----
BggqhkjOPQMBBw==
-----END EC PARAMETERS-----";
pub(in crate::hub::access::jwt) const ED25519_PUBLIC_PEM: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=
-----END PUBLIC KEY-----
";
pub(in crate::hub::access::jwt) const ED25519_PRIVATE_PEM: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g
-----END PRIVATE KEY-----
";
const OTHER_CURVES: [&str; 3] = [
    // P-384.
    "-----BEGIN PUBLIC KEY-----
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEuYLxyagdTdIxQlKMlGiXT/SWLN5zmRm1
kAynHr2QO+UQdSp/X6QlRSlZpUP6LLgq1m2nCQmKvXeX89LTxhpju79/euU116lU
RVAwYBlb5PD/MIDoRbS7NTdWVnEsf4aI
-----END PUBLIC KEY-----",
    // secp256k1, whose numbers are as long as those of P-256.
    "-----BEGIN PUBLIC KEY-----
MFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAEX5MxuCsQEm8MSeRbpmZydBdpz71JttV6
XqbWLTrKk6PJdKtfeGsHdQ1XGWip8iBHQMCThjrtfY1Kea7mhiHuNw==
-----END PUBLIC KEY-----",
    // X25519, which signs nothing.
    "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VuAyEA7lp6lI2YJDo7faaPbRBOfdLehXn4BrrzYd7vqmnF61I=
-----END PUBLIC KEY-----",
];
const OTHER_PRIVATE_KEYS: [&str; 2] = [
    // secp256k1, in both forms.
    "-----BEGIN EC PRIVATE KEY-----
MHQCAQEEIAVFCq86pwAGtZIPSoOY/9EbaMk9jVxXPtrff+t3+RP4oAcGBSuBBAAK
oUQDQgAEX5MxuCsQEm8MSeRbpmZydBdpz71JttV6XqbWLTrKk6PJdKtfeGsHdQ1X
GWip8iBHQMCThjrtfY1Kea7mhiHuNw==
-----END EC PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----
MIGEAgEAMBAGByqGSM49AgEGBSuBBAAKBG0wawIBAQQgBUUKrzqnAAa1kg9Kg5j/
0RtoyT2NXFc+2t9/63f5E/ihRANCAARfkzG4KxASbwxJ5FumZnJ0F2nPvUm21Xpe
ptYtOsqTo8l0q194awd1DVcZaKnyIEdAwJOGOu19jUp5ruaGIe43
-----END PRIVATE KEY-----",
];

/// What is read, written again; or why it isn't.
fn public(block: &str) -> Result<String, &'static str> {
    read_public(block).map(|key| key.write())
}

fn private(block: &str) -> Result<Option<String>, &'static str> {
    read_private(block).map(|key| key.map(|key| key.write()))
}

/// A block of these bytes.
fn block(label: &str, der: &[u8]) -> String {
    encode(label, &[der]).trim_end().to_owned()
}

#[test]
fn keys_that_others_wrote_are_read_and_written_the_same() {
    for pem in [P256_PUBLIC_PEM, ED25519_PUBLIC_PEM] {
        assert_eq!(public(pem.trim_end()).as_deref(), Ok(pem));
    }
    for (form, pem, public) in [
        (P256_PRIVATE_PEM, P256_PRIVATE_PEM, P256_PUBLIC_PEM),
        (P256_WITHOUT_PUBLIC, P256_PRIVATE_PEM, P256_PUBLIC_PEM),
        (P256_SEC1, P256_PRIVATE_PEM, P256_PUBLIC_PEM),
        (ED25519_PRIVATE_PEM, ED25519_PRIVATE_PEM, ED25519_PUBLIC_PEM),
    ] {
        let key = read_private(form.trim_end()).expect("a key").expect("one");
        assert_eq!(key.write(), pem);
        assert_eq!(key.public().write(), public);
    }
    assert_eq!(private(P256_PARAMETERS), Ok(None));
    // With its public key, as PKCS #8 of 2010 allows (RFC 5958).
    let (_, der) = decode(ED25519_PRIVATE_PEM.trim_end()).expect("a block");
    let (before, behind) = ED25519_PRIVATE[1];
    let (_, public) = decode(ED25519_PUBLIC_PEM.trim_end()).expect("a block");
    let public = &public[ED25519_PUBLIC.len()..];
    let whole = [before, &der[16..], behind, public].concat();
    let read = private(&block(PRIVATE_LABEL, &whole));
    assert_eq!(read, Ok(Some(ED25519_PRIVATE_PEM.to_owned())));
}

#[test]
fn other_kinds_of_keys_are_refused() {
    for pem in OTHER_CURVES {
        assert_eq!(public(pem), Err(UNKNOWN_CURVE), "{pem}");
    }
    assert_eq!(public(P256_COMPRESSED), Err(UNKNOWN_CURVE));
    for pem in OTHER_PRIVATE_KEYS {
        assert_eq!(private(pem), Err(UNKNOWN_CURVE), "{pem}");
    }
    for pem in [P256_PRIVATE_PEM, P256_SEC1, ED25519_PRIVATE_PEM] {
        let said = public(pem.trim_end()).expect_err("private");
        assert!(said.contains("private key"), "{said}");
    }
    let said = private(P256_PUBLIC_PEM.trim_end()).expect_err("public");
    assert!(said.contains("public key"), "{said}");
    let encrypted = P256_PRIVATE_PEM.replace("PRIVATE", "ENCRYPTED PRIVATE");
    let said = private(encrypted.trim_end()).expect_err("encrypted");
    assert!(said.contains("encrypted"), "{said}");
    for label in ["CERTIFICATE", "RSA PUBLIC KEY", "public key", ""] {
        let pem = P256_PUBLIC_PEM.replace("PUBLIC KEY", label);
        assert!(public(pem.trim_end()).is_err(), "{label}");
    }
}

#[test]
fn a_block_is_whole() {
    let pem = ED25519_PUBLIC_PEM.trim_end();
    let text = "MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    for good in [
        pem.replace(text, &text[..20])
            .replace(&text[..20], &format!("{}\n\n{}", &text[..20], &text[20..])),
        pem.replace('=', ""),
    ] {
        assert_eq!(public(&good).as_deref(), Ok(ED25519_PUBLIC_PEM), "{good}");
    }
    for bad in [
        pem.replace("-----END PUBLIC KEY-----", "-----END PRIVATE KEY-----"),
        pem.replace("-----END PUBLIC KEY-----", ""),
        pem.replace("-----END PUBLIC KEY-----", "-----END PUBLIC KEY----"),
        pem.replace("-----BEGIN PUBLIC KEY-----", "-----BEGIN PUBLIC KEY----"),
        pem.replace("-----BEGIN", "----BEGIN"),
        format!("{pem} and more"),
        pem.replace('\n', "\\n"),
        pem.replace('=', "!"),
        pem.replace(text, &format!("Proc-Type: 4,ENCRYPTED\n\n{text}")),
        pem.replace(text, ""),
        pem.replace("MCow", "MCowMCow"),
        String::new(),
    ] {
        assert!(public(&bad).is_err(), "{bad}");
    }
}

#[test]
fn any_other_byte_or_length_is_no_key_or_another_one() {
    for (pem, prefix) in [
        (P256_PUBLIC_PEM, P256_PUBLIC.len()),
        (ED25519_PUBLIC_PEM, ED25519_PUBLIC.len()),
    ] {
        let (_, der) = decode(pem.trim_end()).expect("a block");
        for end in 0..der.len() {
            assert!(read_public_der(&der[..end]).is_none());
        }
        assert!(read_public_der(&[&der[..], b"\0"].concat()).is_none());
        for position in 0..der.len() {
            let mut other = der.clone();
            other[position] ^= 1;
            let key = read_public_der(&other);
            // An odd coordinate of P-256 leaves the curve.
            let may_be_key = position >= prefix && prefix == ED25519_PUBLIC.len();
            assert!(key.is_none() || may_be_key, "{position}");
            assert!(key.is_none_or(|key| key.write() != pem));
        }
    }
    for (pem, number) in [
        (P256_PRIVATE_PEM, 36..68),
        (P256_SEC1, 7..39),
        (ED25519_PRIVATE_PEM, 16..48),
    ] {
        let (_, der) = decode(pem.trim_end()).expect("a block");
        for end in 0..der.len() {
            assert!(read_private_der(&der[..end]).is_none());
        }
        assert!(read_private_der(&[&der[..], b"\0"].concat()).is_none());
        for position in (0..der.len()).step_by(3) {
            let mut other = der.clone();
            other[position] ^= 1;
            // A public key that isn't its own gives another number away, but for the form that has none.
            let may_be_key = number.contains(&position) && number.start == 16;
            assert!(
                read_private_der(&other).is_none() || may_be_key,
                "{position}"
            );
        }
    }
}

#[test]
fn numbers_that_are_no_private_key_are_refused() {
    let order = b"\xff\xff\xff\xff\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\
        \xbc\xe6\xfa\xad\xa7\x17\x9e\x84\xf3\xb9\xca\xc2\xfc\x63\x25\x51";
    let (before, _) = P256_PRIVATE[1];
    for number in [&[0; 32], order, &[0xff; 32]] {
        assert!(read_private_der(&[before, number].concat()).is_none());
    }
    let mut largest = *order;
    largest[31] -= 1;
    assert!(read_private_der(&[before, &largest].concat()).is_some());
}

/// All points whose order divides 8, in each way to write them.
#[test]
fn a_key_of_small_order_is_refused() {
    let mut one = [0; 32];
    one[0] = 1;
    let zero = [0; 32];
    // p is 2^255 - 19: what is written as p and p + 1 is 0 and 1.
    let mut minus_one = [0xff; 32];
    minus_one[0] = 0xec;
    minus_one[31] = 0x7f;
    let mut p = minus_one;
    p[0] = 0xed;
    let mut p_and_one = minus_one;
    p_and_one[0] = 0xee;
    let eighth = *b"\x26\xe8\x95\x8f\xc2\xb2\x27\xb0\x45\xc3\xf4\x89\xf2\xef\x98\xf0\
        \xd5\xdf\xac\x05\xd3\xc6\x33\x39\xb1\x38\x02\x88\x6d\x53\xfc\x05";
    let other_eighth = *b"\xc7\x17\x6a\x70\x3d\x4d\xd8\x4f\xba\x3c\x0b\x76\x0d\x10\x67\x0f\
        \x2a\x20\x53\xfa\x2c\x39\xcc\xc6\x4e\xc7\xfd\x77\x92\xac\x03\x7a";
    for point in [one, zero, minus_one, p, p_and_one, eighth, other_eighth] {
        for sign in [0, 0x80] {
            let mut point = point;
            point[31] |= sign;
            let der = [ED25519_PUBLIC, &point].concat();
            assert_eq!(
                public(&block(PUBLIC_LABEL, &der)),
                Err(UNKNOWN_CURVE),
                "{point:x?}"
            );
        }
    }
    // No point at infinity either, nor one beside the curve.
    for point in [[0; 64], [4; 64], [0xff; 64]] {
        assert!(read_public_der(&[P256_PUBLIC, &point].concat()).is_none());
    }
}

#[test]
fn what_is_between_the_lines_of_a_public_key_is_known() {
    for pem in [P256_PUBLIC_PEM, ED25519_PUBLIC_PEM] {
        let text: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        assert!(is_bare_public(&text), "{text}");
        assert!(is_bare_public(text.trim_end_matches('=')));
    }
    assert!(!is_bare_public("0123456789abcdef0123456789abcdef"));
    assert!(!is_bare_public(""));
}
