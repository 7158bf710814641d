//! Appends that go to Redis together, between MULTI and EXEC: a read that waits gets all of them, and not the first alone,
//! so that a burst costs each client one write.
//!
//! Knows which are queued there, and whether one was refused, for then none of them is executed. Main type:
//! [`Transaction`]. Where Redis refuses MULTI, each append is executed and answered when it comes.

use super::entry::Nonce;
use super::reply::{Reply, word};

/// The one whose answers are awaited.
#[derive(Default)]
pub(super) struct Transaction {
    /// What it has so far, by the first nonce of each.
    queued: Vec<Nonce>,
    refusal: Option<Box<str>>,
    is_refused: bool,
}

impl Transaction {
    /// Whether appends may go together.
    pub(super) const fn is_possible(&self) -> bool {
        !self.is_refused
    }

    /// Takes the answer to MULTI.
    pub(super) fn begin(&mut self, reply: Reply<'_>) {
        self.is_refused = reply.error().is_some();
    }

    /// Takes the answer to an append in it; whether the append is queued, and answered by EXEC.
    pub(super) fn queue(&mut self, first: Nonce, reply: Reply<'_>) -> bool {
        if reply.text() == Some(b"QUEUED") {
            self.queued.push(first);
            return true;
        }
        if let Some(error) = reply.error() {
            self.refusal = Some(word(error).into());
        }
        false
    }

    /// Takes it to its end: what is queued, and why that wasn't executed, if it wasn't.
    pub(super) fn finish(&mut self) -> (Vec<Nonce>, Option<Box<str>>) {
        (std::mem::take(&mut self.queued), self.refusal.take())
    }
}

/// The error for which EXEC itself was refused, where Redis quotes one; else the error as it is.
pub(super) fn cause(error: &[u8]) -> &[u8] {
    const QUOTES: &[u8] = b" because of: ";
    let at = error
        .windows(QUOTES.len())
        .position(|window| window == QUOTES);
    at.map_or(error, |at| &error[at + QUOTES.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_exec_is_refused_for_is_told() {
        for (error, expected) in [
            (
                "EXECABORT Transaction discarded because of: READONLY You can't write against a read only replica.",
                "READONLY",
            ),
            (
                "EXECABORT Transaction discarded because of previous errors.",
                "EXECABORT",
            ),
            ("ERR EXEC without MULTI", "ERR"),
        ] {
            assert_eq!(word(cause(error.as_bytes())), expected);
        }
    }
}
