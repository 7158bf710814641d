//! What finds notifications in the history against the naive predicate.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    crieur::hub::fuzzing::fuzz_fingerprints(bytes);
});
