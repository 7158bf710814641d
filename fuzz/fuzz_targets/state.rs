//! What one program leaves to the next, as a server in memory goes on from it.
#![no_main]

#[allow(dead_code, reason = "what a peer gets is looked at by other tests")]
#[path = "../../tests/states/successor.rs"]
mod successor;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    successor::check(bytes);
});
