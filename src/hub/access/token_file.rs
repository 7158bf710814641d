//! The tokens by which a publisher from anywhere proves that it may publish.
//!
//! Knows how a token is compared, not how it is sent. Main type: [`PublishTokens`], which doesn't
//! keep the tokens themselves.

use std::fmt;

use hmac::digest::CtOutput;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::secret_lines::{Exchange, SecretsError, check_len, read_lines};

/// A token of fewer bytes could be guessed.
const TOKEN_BYTES_MIN: usize = 16;

/// As many tokens that were good before are known.
const FORMER_MAX: usize = 4;

/// The tokens that are good at present, and some that were.
#[derive(Clone)]
pub struct PublishTokens {
    good: Vec<TokenCheck>,
    /// The newest first. They are good for nothing, but whoever shows one isn't a stranger.
    former: Vec<TokenCheck>,
}

/// A token as the key of a MAC, and the MAC of the token under itself. A guess is hashed under
/// the same key, so that how far the two agree says nothing about how far guess and token do.
#[derive(Clone)]
pub(super) struct TokenCheck {
    keyed: Hmac<Sha256>,
    tag: CtOutput<Hmac<Sha256>>,
}

impl PublishTokens {
    /// Reads one token or two, one a line: visible ASCII without spaces, 16 bytes to 1024. Blank
    /// lines don't count.
    ///
    /// # Errors
    /// The first line that is no token.
    pub fn parse(text: &str) -> Result<Self, SecretsError> {
        let tokens = read_lines(text, |line, token| {
            check_len(line, token.as_bytes(), TOKEN_BYTES_MIN)?;
            Ok(TokenCheck::new(token.as_bytes()))
        });
        tokens.map(|good| Self {
            good,
            former: Vec::new(),
        })
    }

    /// Notes that those of `old` were good before these.
    pub fn succeed(&mut self, old: &Self) {
        let former = old.good.iter().chain(&old.former);
        let is_good = |former: &TokenCheck| self.good.iter().any(|good| good.tag == former.tag);
        let former = former.filter(|former| !is_good(former));
        self.former = former.take(FORMER_MAX).cloned().collect();
    }

    /// What it takes from the tokens of `old` to these.
    #[must_use]
    pub fn exchange(&self, old: &Self) -> Exchange {
        Exchange::between(&old.good, &self.good, |one, other| one.tag == other.tag)
    }

    /// Whether `token` is one of these, in a time that depends on nothing but its length.
    #[must_use]
    pub fn accepts(&self, token: &[u8]) -> bool {
        is_any_met(&self.good, token)
    }

    /// Whether `token` was good before these, likewise.
    #[must_use]
    pub fn has_accepted(&self, token: &[u8]) -> bool {
        is_any_met(&self.former, token)
    }
}

/// Says how many there are, and nothing else.
impl fmt::Debug for PublishTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublishTokens({})", self.good.len())
    }
}

fn is_any_met(checks: &[TokenCheck], token: &[u8]) -> bool {
    // No early exit: each is compared.
    checks
        .iter()
        .fold(false, |is_any, check| is_any | check.is_met_by(token))
}

impl TokenCheck {
    pub(super) fn new(token: &[u8]) -> Self {
        let keyed = Hmac::new_from_slice(token).expect("HMAC takes keys of any length");
        let tag = Mac::chain_update(Hmac::clone(&keyed), token).finalize();
        Self { keyed, tag }
    }

    /// Whether `guess` is the token, in a time that depends on nothing but its length.
    pub(super) fn is_met_by(&self, guess: &[u8]) -> bool {
        // The comparison of two outputs takes the same time whatever they are.
        Mac::chain_update(self.keyed.clone(), guess).finalize() == self.tag
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    #[test]
    fn a_token_is_accepted_whole_and_exact() {
        let tokens = PublishTokens::parse(&format!("{TOKEN}\r\n")).expect("valid");
        assert!(tokens.accepts(TOKEN.as_bytes()));
        for wrong in [
            "",
            "0123456789abcde",
            "0123456789abcdef0",
            "0123456789abcdef\0",
            "0123456789ABCDEF",
            "0123456789abcdef ",
            "1123456789abcdef",
        ] {
            assert!(!tokens.accepts(wrong.as_bytes()), "{wrong:?}");
        }
        for bit in 0..TOKEN.len() * 8 {
            let mut wrong = TOKEN.as_bytes().to_vec();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(!tokens.accepts(&wrong), "bit {bit}");
        }
    }

    #[test]
    fn a_token_longer_than_a_block_is_not_its_hash() {
        use sha2::Digest;
        let token = "x".repeat(1024);
        let tokens = PublishTokens::parse(&token).expect("valid");
        assert!(tokens.accepts(token.as_bytes()));
        assert!(!tokens.accepts(&token.as_bytes()[1..]));
        assert!(!tokens.accepts(&Sha256::digest(token.as_bytes())));
    }

    #[test]
    fn two_tokens_count_at_once() {
        let tokens = PublishTokens::parse("first-0123456789\n\nsecond-0123456789\n");
        let tokens = tokens.expect("valid");
        assert!(tokens.accepts(b"first-0123456789") && tokens.accepts(b"second-0123456789"));
        assert!(!tokens.accepts(b"third-0123456789"));
        assert!(!tokens.accepts(b"first-0123456789\n\nsecond-0123456789"));
    }

    #[test]
    fn mistakes_name_the_line_and_show_nothing() {
        let short = format!("{TOKEN}\n{}", &TOKEN[1..]);
        for (text, line) in [
            (short.as_str(), "line 2"),
            (&format!("{TOKEN} {TOKEN}"), "line 1"),
            (&format!("{TOKEN}\n{TOKEN}\n{TOKEN}"), "line 3"),
        ] {
            let error = PublishTokens::parse(text).expect_err("a mistake");
            assert!(error.to_string().contains(line), "{error}");
            assert!(!format!("{error} {error:?}").contains(&TOKEN[1..]));
        }
        let tokens = PublishTokens::parse(TOKEN).expect("valid");
        assert_eq!(format!("{tokens:?}"), "PublishTokens(1)");
    }
}
