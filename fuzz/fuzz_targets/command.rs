//! Messages of clients and publishers.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    crieur::hub::fuzzing::fuzz_command(bytes);
});
