//! Parsers of what strangers send, held against decoders that are as plain as they can be: whole
//! inputs at once, written from the standards, nothing shared with the product.
//!
//! Each module is the body of a fuzz target too (`fuzz/fuzz_targets/`). Here they run on the corpus,
//! whole, cut off and damaged, and on random inputs that are mostly valid; a seed that fails is
//! printed.

mod body;
mod decoder;
mod jwt;
mod naive_frames;
mod proxy;

use std::fs;
use std::path::Path;

use fastrand::Rng;

/// What a target is made of, and how random inputs for it are made.
type Target = fn(&[u8]);
type Source = fn(&mut Rng) -> Vec<u8>;

/// Says which seed it was when a run fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}", self.0);
        }
    }
}

fn run(name: &str, target: Target, source: Source, seeds: u64) {
    for seed in 0..seeds {
        let seed = Seed(seed);
        target(&source(&mut Rng::with_seed(seed.0)));
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut files = 0;
    for file in fs::read_dir(folder.join(name)).expect("a corpus") {
        let bytes = fs::read(file.expect("a file").path()).expect("readable");
        files += 1;
        target(&bytes);
        for position in 0..bytes.len().min(200) {
            target(&bytes[..position]);
            let mut damaged = bytes.clone();
            damaged[position] ^= 0x81;
            target(&damaged);
        }
    }
    assert!(files > 0, "the corpus of {name} is empty");
}

#[test]
fn frames_are_decoded_as_rfc_6455_says() {
    run("decoder", decoder::check, decoder::random, 3000);
}

#[test]
fn bodies_are_cut_out_as_rfc_9112_says() {
    run("body", body::check, body::random, 3000);
}

#[test]
fn a_token_is_taken_if_it_says_all_that_it_must() {
    run("jwt", jwt::check, jwt::random, 1500);
}

#[test]
fn the_client_behind_proxies_is_the_last_that_nobody_trusts() {
    run("proxy", proxy::check, proxy::random, 3000);
}
