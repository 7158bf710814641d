//! Bodies of requests, against a plain reading.
#![no_main]

#[path = "../../tests/oracles/body.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    oracle::check(bytes);
});
