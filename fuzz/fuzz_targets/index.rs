//! The index of subscriptions against the naive predicate.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    crieur::hub::fuzzing::fuzz_index(bytes);
});
