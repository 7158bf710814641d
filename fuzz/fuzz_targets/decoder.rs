//! The session, fed in pieces, against a plain decoder of whole streams.
#![no_main]

#[path = "../../tests/oracles/naive_frames.rs"]
mod naive_frames;
#[path = "../../tests/oracles/decoder.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    oracle::check(bytes);
});
