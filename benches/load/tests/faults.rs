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
        "fanout --subscribers 20 --channels 3 --notifications 300 --in-flight 8 --numbered all",
        "fanout --subscribers 9 --notifications 300 --publisher ephemeral --in-flight 8 --numbered 4 --key",
        "publish --notifications 200 --patient --topic channel",
        "publish --notifications 200 --subscribers 3 --numbered 2 --key",
        "resume --clients 150 --entries 200 --warmup 0.1",
        "resume --clients 7 --entries 20 --hits 2 --warmup 0.1 --parallel 3 --key --bytes 2000",
        "resume --clients 150 --entries 200 --warmup 0.1 --without-since",
        "resume --clients 1 --entries 200 --rounds 20",
        "resume --clients 3 --entries 200 --rounds 20 --topic channel",
        "connect --connections 100",
        "connect --connections 100 --subscribe distinct --hang-up --rounds 1",
        "pings --seconds 0.2 --warmup 0",
        "pings --seconds 0.2 --warmup 0 --websocket --connections 3",
        "handover --connections 300 --history 200 --warmup 0.1",
        "handover --connections 30 --history 200 --warmup 0.1 --subscribe same --topic channel --rounds 2",
        "handover --connections 30 --history 0 --warmup 0 --rate 500 --rounds 2 --bytes 3000",
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
fn what_is_wrong_with_numbered_deliveries_is_found() {
    for (fault, expected) in [
        ("lose@100", "lost or late"),
        ("double@100", "twice"),
        ("swap@100", "late"),
        ("damage@100", "damaged"),
    ] {
        let arguments = "fanout --subscribers 4 --notifications 1000 --in-flight 8 --numbered all";
        let output = load_against(&format!("--history --fault {fault}"), arguments);
        let errors = errors(&output);
        assert_eq!(output.status.code(), Some(1), "{fault}: {errors}");
        assert!(errors.contains(expected), "{fault}: {errors}");
    }
}

#[test]
fn what_is_wrong_with_a_resume_is_found() {
    // Each client gets ten: the 205th of all is the sixth of some client, the 209th its last.
    for (fault, expected) in [
        ("lose@205", "lost or late"),
        ("lose@209", "1 are lost"),
        ("double@205", "twice"),
        ("double@209", "twice"),
        ("swap@205", "late"),
        ("damage@205", "damaged"),
    ] {
        for arguments in [
            "resume --clients 110 --entries 100 --warmup 0",
            "resume --clients 101 --entries 100 --rounds 3",
        ] {
            let output = load_against(&format!("--history --replay-fault {fault}"), arguments);
            let errors = errors(&output);
            assert_eq!(
                output.status.code(),
                Some(1),
                "{arguments}, {fault}: {errors}"
            );
            assert!(errors.contains(expected), "{arguments}, {fault}: {errors}");
            assert!(output.stdout.is_empty());
        }
    }
}

#[test]
fn what_is_wrong_behind_caught_up_is_found() {
    // What goes on to those that stayed, and the one more for each channel at the end.
    let arguments = "resume --clients 120 --entries 100 --hits 50 --warmup 0.2 --live 2 --rate 100";
    let output = load_against("--history --fault double@5", arguments);
    assert!(errors(&output).contains("twice"), "{}", errors(&output));
    let arguments = "resume --clients 120 --entries 100 --hits 50 --warmup 0 --live 1 --rate 0.01";
    let output = load_against("--history --fault damage@2", arguments);
    assert!(errors(&output).contains("damaged"), "{}", errors(&output));
}

#[test]
fn descriptors_are_kept_in_every_way() {
    for how in ["rights", "inheritance", "epoll"] {
        let arguments = "handover --connections 300 --history 10 --warmup 0 --rounds 3 --rate 500";
        let output = load_against(&format!("--keep {how}"), arguments);
        assert!(output.status.success(), "{how}: {}", errors(&output));
        let json = String::from_utf8_lossy(&output.stdout);
        let largest = |name: &str| {
            let member = format!("\"{name}\":");
            let values = json.split(&member).skip(1);
            let values = values.filter_map(|rest| rest.split([',', '}']).next()?.parse().ok());
            values.fold(0.0, f64::max)
        };
        // The signal comes before what the server counts from, and the answer behind that.
        assert!(largest("pause_ms") > 0.0, "{how}: {json}");
        assert!(
            largest("completed_ms") > largest("pause_ms"),
            "{how}: {json}"
        );
        assert!(largest("seen_last_ms") > 0.0, "{how}: {json}");
    }
}

#[test]
fn what_is_wrong_with_a_handover_is_found() {
    for (fault, expected) in [
        ("refuse", "handover 1: the server refused"),
        ("close", "was hung up on"),
        ("forget", "the publisher was told"),
        ("swap", "which is not for it"),
        ("say", "subscriber 0 got a frame of opcode 0x1: {}"),
    ] {
        let arguments = "handover --connections 30 --history 50 --warmup 0";
        let output = load_against(&format!("--handover-fault {fault}"), arguments);
        let errors = errors(&output);
        assert_eq!(output.status.code(), Some(1), "{fault}: {errors}");
        assert!(errors.contains(expected), "{fault}: {errors}");
        assert!(output.stdout.is_empty());
    }
    // Two for all behind each handover.
    for (fault, expected) in [
        ("lose@2", "lost or late"),
        ("double@5", "twice"),
        ("swap@3", "late"),
        ("damage@4", "damaged"),
    ] {
        let arguments =
            "handover --connections 30 --history 50 --warmup 0 --rounds 3 --subscribe same";
        let output = load_against(&format!("--fault {fault}"), arguments);
        let errors = errors(&output);
        assert_eq!(output.status.code(), Some(1), "{fault}: {errors}");
        assert!(errors.contains(expected), "{fault}: {errors}");
    }
}

#[test]
fn a_handover_that_can_not_be_checked_is_refused() {
    let output = load_against(
        "",
        "handover --connections 3 --history 0 --subscribe nothing",
    );
    assert!(errors(&output).contains("--subscribe nothing"));
}

#[test]
fn a_server_without_a_history_is_named() {
    for arguments in [
        "resume --clients 5 --entries 100",
        "fanout --subscribers 5 --numbered 3",
    ] {
        let output = load_against("", arguments);
        let errors = errors(&output);
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(errors.contains("without an id was answered"), "{errors}");
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
