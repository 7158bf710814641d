//! Fields of proxies, against a plain reading.
#![no_main]

#[path = "../../tests/oracles/proxy.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    oracle::check(bytes);
});
