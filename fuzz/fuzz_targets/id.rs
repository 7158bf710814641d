//! An id, as a client shows it.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    crieur::journal::fuzzing::fuzz_id(bytes);
});
