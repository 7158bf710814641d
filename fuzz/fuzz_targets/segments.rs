//! The history on disk, read back.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    crieur::journal::fuzzing::fuzz_segments(bytes);
});
