//! What a Redis says, whatever it is.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    crieur::redis::fuzzing::fuzz_redis(bytes);
});
