//! The generator against several nodes on one Redis: what is right passes, and what a node does wrong on demand is found
//! and named. The nodes are `tests/node.py`, so it takes python3 and redis-server; ignored unless it is asked for
//! (`cargo test -- --ignored`).

use std::process::{Command, Output};

const LOAD: &str = env!("CARGO_BIN_EXE_load");

/// `words` go to the generator, `~` as a blank within one, `fault` to the nodes.
fn load(words: &str, fault: &str) -> Output {
    let node = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/node.py");
    let shared = match words.contains("--reuse-port") {
        true => "--reuse-port",
        false => "",
    };
    let command = format!("python3 {node} {{address}} {{redis}} {shared} {fault}");
    let output = Command::new(LOAD)
        .args(words.split_whitespace().map(|word| word.replace('~', " ")))
        .args("--topic channel --redis --wait sleep".split_whitespace())
        .args(["--server-command", &command])
        .output();
    output.expect("the generator runs")
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
#[ignore = "needs python3 and redis-server"]
fn what_is_right_passes() {
    for words in [
        "fanout --nodes 2 --subscribers 20 --channels 3 --publishers 3 --in-flight 8 --bystanders 3",
        "fanout --nodes 2 --subscribers 20 --channels 3 --publishers 3 --in-flight 8 --numbered all --reuse-port",
        "fanout --nodes 3 --subscribers 20 --publishers 2 --in-flight 8 --numbered 7",
        "fanout --nodes 1 --subscribers 5 --redis-options --appendonly~yes",
        "publish --nodes 2 --subscribers 5 --numbered all",
        "publish --nodes 2 --subscribers 5 --numbered 2 --reuse-port",
        "match --nodes 2 --subscriptions 100",
    ] {
        let output = load(&format!("{words} --notifications 300"), "");
        assert!(output.status.success(), "{words}: {}", errors(&output));
        let json = String::from_utf8_lossy(&output.stdout).into_owned();
        let (_, nodes) = words.split_once("--nodes ").expect("it says how many");
        let expected = match &nodes[..1] {
            "1" => 0,
            count => count.parse().expect("a digit"),
        };
        let told = json.matches("{\"subscribers\":").count();
        assert_eq!(told, expected, "{words}: {json}");
        for name in ["redis_cpu_us_per_notification", "redis_busy"] {
            let (_, value) = json.split_once(&format!("\"{name}\":")).expect(name);
            assert!(!value.starts_with("0.000000"), "{words}: {json}");
        }
    }
}

#[test]
#[ignore = "needs python3 and redis-server"]
fn what_one_of_the_nodes_does_wrong_is_found() {
    for (fault, numbered, expected) in [
        ("lose", "0", "lost or late"),
        ("double", "0", "twice"),
        ("swap", "0", "late"),
        ("lose", "all", "lost or late"),
        // Whichever of the two the others have had.
        ("swap", "all", "late|behind it in the stream"),
        ("own", "all", "which is none of a stream"),
        ("own", "0", "which is none of a stream"),
        ("descend", "all", "behind it in the stream"),
        ("altogether", "0", "the publisher was told"),
    ] {
        for address in ["", "--reuse-port"] {
            let words = format!(
                "fanout --nodes 2 {address} --subscribers 12 --publishers 2 --in-flight 8 \
                 --notifications 300 --numbered {numbered}"
            );
            let output = load(&words, fault);
            let errors = errors(&output);
            assert_eq!(output.status.code(), Some(1), "{fault}: {errors}");
            let is_named = expected.split('|').any(|words| errors.contains(words));
            assert!(is_named, "{fault}: {errors}");
            assert!(output.stdout.is_empty());
        }
    }
    // A connection of which nobody knows the node: more than there are altogether is too much.
    for address in ["", "--reuse-port"] {
        let words = format!("publish --nodes 2 {address} --subscribers 0 --notifications 300");
        let output = load(&words, "altogether");
        let errors = errors(&output);
        assert!(errors.contains("the publisher was told"), "{errors}");
    }
}

#[test]
#[ignore = "needs redis-server"]
fn a_redis_that_does_not_start_is_named() {
    let output = load("fanout --redis-options --nonsense~1", "");
    let errors = errors(&output);
    assert!(
        errors.contains("redis-server --nonsense 1 ended"),
        "{errors}"
    );
}

#[test]
fn a_server_that_is_not_started_here_has_no_nodes() {
    for words in [
        "limit fanout --nodes 2",
        "limit fanout --redis",
        "fanout --redis",
    ] {
        let output = Command::new(LOAD).args(words.split_whitespace()).output();
        let errors = errors(&output.expect("the generator runs"));
        assert!(errors.contains("--server-command"), "{words}: {errors}");
    }
}
