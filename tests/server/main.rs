//! The program as its users have it: every test starts a server of its own and talks to it over
//! real sockets. A folder for each subject, a file for each rule.
//!
//! One program, so that it is linked once. The tests run in the order of their names, so those in
//! [`load`] run beside each other and not beside tests that wait for a moment.
//!
//! `cargo test --test server protocol::closing` runs one file.

mod access;
mod documents;
mod helpers;
mod load;
mod notifications;
mod operation;
mod protocol;
mod redis;
