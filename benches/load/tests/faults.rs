//! The generator against the floor, over real sockets: what is right passes, and what the floor
//! does wrong on demand is found, named, and makes the exit status 1.

use std::process::{Command, Output};

const LOAD: &str = env!("CARGO_BIN_EXE_load");

fn load(arguments: &str) -> Output {
    let output = Command::new(LOAD)
        .args(arguments.split_whitespace())
        .output();
    output.expect("the generator runs")
}

fn load_against(server: &str, arguments: &str) -> Output {
    let output = Command::new(LOAD)
        .args(arguments.split_whitespace())
        .arg("--server-command")
        .arg(format!("{LOAD} limit server --listen {{address}} {server}"))
        .output();
    output.expect("the generator runs")
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn what_is_right_passes() {
    for arguments in [
        "fanout --subscribers 20 --notifications 300 --in-flight 8 --bystanders 3",
        "fanout --subscribers 20 --channels 3 --notifications 300 --publishers 3 --in-flight 8",
        "fanout --subscribers 5 --notifications 300 --publisher http --in-flight 8 --bytes 70000",
        "fanout --subscribers 5 --notifications 200 --publisher ephemeral --in-flight 8",
        "fanout --subscribers 5 --notifications 200 --rate 1000 --wait sleep",
        "publish --notifications 200 --patient --topic channel",
        "connect --connections 100",
        "connect --connections 100 --subscribe distinct --hang-up --rounds 1",
        "pings --seconds 0.2 --warmup 0",
        "pings --seconds 0.2 --warmup 0 --websocket --connections 3",
    ] {
        let output = load(&format!("limit {arguments}"));
        assert!(output.status.success(), "{arguments}: {}", errors(&output));
        let json = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            json.starts_with("{\"command\":\"") && json.ends_with("}\n"),
            "{json}"
        );
        assert!(
            json.contains("\"limited_by\":\"") && json.lines().count() == 1,
            "{json}"
        );
    }
}

#[test]
fn what_is_wrong_is_found() {
    for (fault, publisher, expected) in [
        ("lose@100", "kept", "lost or late"),
        ("lose@100", "ephemeral", "lost or late"),
        ("double@100", "kept", "twice"),
        ("double@100", "ephemeral", "twice"),
        ("swap@100", "kept", "late"),
        ("damage@100", "kept", "damaged"),
        ("damage@100", "http", "damaged"),
    ] {
        let arguments = format!(
            "fanout --subscribers 4 --notifications 1000 --in-flight 8 --publisher {publisher}"
        );
        let output = load_against(&format!("--fault {fault}"), &arguments);
        let errors = errors(&output);
        assert_eq!(output.status.code(), Some(1), "{fault}: {errors}");
        assert!(errors.contains("load: FAILED: "), "{fault}: {errors}");
        assert!(errors.contains(expected), "{fault}: {errors}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let output = load("fanout --target 127.0.0.1:1");
    assert_eq!(output.status.code(), Some(1));
    assert!(errors(&output).contains("no process that listens on 127.0.0.1:1"));
    let output = load("fanout --server-command false");
    assert!(
        errors(&output).contains("ended: exit status: 1"),
        "{}",
        errors(&output)
    );
    assert_eq!(load("nonsense").status.code(), Some(2));
}
