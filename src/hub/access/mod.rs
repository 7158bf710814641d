//! Access: what a connection may do, decided by where it comes from and by what it proves, never
//! by what it says about itself.
//!
//! Each file owns one question and answers it from what it is given: heads of requests, texts of
//! secrets, the time. None of them knows connections, reads a file or writes a log.

pub mod addresses;
pub mod console_key;
pub mod jwt;
mod local;
pub mod origin;
pub mod policy;
pub mod proxy;
pub mod secret_lines;
pub mod token_file;

pub use self::local::{is_foreign, is_local, is_on_this_host};

#[cfg(test)]
mod testing {
    use crate::http::head::Head;

    /// The head of a request that is known to be whole.
    pub(super) fn head_of(text: &str) -> Head<'_> {
        let (head, _) = Head::parse(text.as_bytes(), 0, 64 * 1024)
            .expect("valid")
            .expect("complete");
        head
    }
}
