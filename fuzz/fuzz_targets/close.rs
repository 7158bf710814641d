//! Payloads of Close frames.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    crieur::ws::fuzzing::fuzz_close(bytes);
});
