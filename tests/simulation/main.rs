//! Nothing lost, nothing doubled, nothing misrouted, nothing left behind: random clients and
//! publishers against the real engine, sessions and hub, over connections that are memory and
//! under a clock that is moved by hand, held against a model that says what each must get.
//!
//! Every run follows from its seed. Seeds are tried for ten seconds, or `SIMULATION_SECONDS`, from 0
//! on, or `SIMULATION_FROM`; one that fails is printed, and run alone by
//!
//! ```text
//! SIMULATION_SEED=… cargo test --test simulation -- --nocapture
//! ```
//!
//! So it is with several servers and one Redis, whose variables begin with `CLUSTER`.
//!
//! The order in which the server handles messages is its own business, within what each client
//! said in which order: `witness` notes it, and what must follow from it is the model's. So is when a client that
//! is being caught up gets how much. What was published is in a log of the model's own, which also says what a
//! further process of the server has to know of it.

mod client;
mod clock;
mod cluster;
mod dice;
mod frames;
mod log;
mod state;
mod tape;
mod texts;
mod trust;
mod wire;
mod witness;
mod world;

use std::env;
use std::fmt::Debug;
use std::time::{Duration, Instant};

use world::Tally;

/// Seeds that have found something once, in the product or in the model. What they do changes with
/// the simulation, so what was wrong has a test of its own beside the code.
const FOUND: &[u64] = &[
    14, 19, 51, 110, 414, 739, 1565, 1574, 1816, 2658, 5047, 10749, 11709, 14823,
];

/// How long seeds are tried.
const SECONDS: u64 = 10;

/// The same of a cluster.
const FOUND_IN_CLUSTERS: &[u64] = &[];

/// Says which seed it was when a run fails.
struct Seed(&'static str, u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self(name, seed) = self;
            eprintln!("{name}_SEED={seed} cargo test --test simulation -- --nocapture");
        }
    }
}

fn number(name: &str, what: &str) -> Option<u64> {
    let text = env::var(format!("{name}_{what}")).ok()?;
    Some(text.parse().expect("a number"))
}

/// Tries seeds for as long as the variables say that begin with `name`. `None` if it was one alone.
fn try_seeds<T: Debug>(
    name: &'static str,
    found: &[u64],
    run: fn(u64) -> T,
    mut add: impl FnMut(&T),
) -> Option<String> {
    let run = |seed| {
        let seed = Seed(name, seed);
        run(seed.1)
    };
    if let Some(seed) = number(name, "SEED") {
        println!("{:?}", run(seed));
        return None;
    }
    for &seed in found {
        run(seed);
    }
    let seconds = number(name, "SECONDS").unwrap_or(SECONDS);
    let from = number(name, "FROM").unwrap_or(0);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut runs = 0;
    while runs < 20 || Instant::now() < end {
        add(&run(from + runs));
        runs += 1;
    }
    Some(format!("{runs} runs from seed {from} on in {seconds} s"))
}

#[test]
fn everybody_gets_what_is_due_and_nothing_else() {
    let mut sum = Tally::default();
    let runs = try_seeds("SIMULATION", FOUND, world::run, |tally| {
        sum.clients += tally.clients;
        sum.published += tally.published;
        sum.deliveries += tally.deliveries;
        sum.cut_off += tally.cut_off;
        sum.forbidden += tally.forbidden;
        sum.displaced += tally.displaced;
        sum.throttled += tally.throttled;
        sum.resumed += tally.resumed;
        sum.not_resumed += tally.not_resumed;
        sum.replayed += tally.replayed;
        sum.repeated += tally.repeated;
        sum.held += tally.held;
        sum.broken += tally.broken;
        sum.restarts += tally.restarts;
        sum.survived += tally.survived;
        sum.forgotten += tally.forgotten;
        sum.replaced += tally.replaced;
    });
    let Some(runs) = runs else { return };
    println!("simulation: {runs}: {sum:?}");
    assert!(
        sum.published > 0
            && sum.deliveries > 0
            && sum.cut_off > 0
            && sum.replayed > 0
            && sum.replaced > 0,
        "{sum:?}"
    );
}

#[test]
fn every_node_of_a_cluster_tells_the_same() {
    let mut sum = cluster::Tally::default();
    let runs = try_seeds("CLUSTER", FOUND_IN_CLUSTERS, cluster::run, |tally| {
        sum.add(tally);
    });
    let Some(runs) = runs else { return };
    println!("cluster: {runs}: {sum:?}");
    assert!(sum.is_complete(), "{sum:?}");
}
