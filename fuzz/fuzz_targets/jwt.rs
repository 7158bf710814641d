//! The tokens of clients, behind a valid signature too.
#![no_main]

#[path = "../../tests/oracles/jwt.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    oracle::check(bytes);
});
