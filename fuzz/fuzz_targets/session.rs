//! What a client sends, from the upgrade to the Close.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    crieur::net::fuzzing::fuzz_session(bytes);
});
