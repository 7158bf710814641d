//! More connections than descriptors: the server lives on and serves when some have left.

use crate::helpers::{Client, Server, delivery, message, publish, subscriber};

const C: &str = r#"{"channel":"c"}"#;

#[test]
fn few_descriptors_lower_the_number_of_connections() {
    let server = Server::after("ulimit -n 120", &[]);
    let line = server.wait_for_line("may open 120 files");
    assert!(
        line.contains("WARN") && line.contains("ulimit -n"),
        "{line}"
    );
    let mut client = subscriber(&server, r#"["c"]"#);
    let mut publisher = Client::connect_with(&server, "/publish", &[]);
    let crowd: Vec<_> = (0..200).map(|_| server.tcp()).collect();
    publisher.send(&message(C));
    assert_eq!(publisher.text(), r#"{"type":"published","delivered":1}"#);
    assert_eq!(client.text(), delivery(C));
    drop(crowd);
    assert_eq!(publish(&server, C), r#"{"delivered":1}"#);
    assert_eq!(client.text(), delivery(C));
}

#[test]
fn too_few_descriptors_are_an_error_at_the_start() {
    let mut command = std::process::Command::new("sh");
    let script = r#"ulimit -n 60 && exec "$0" --listen 127.0.0.1:0"#;
    command.args(["-c", script, env!("CARGO_BIN_EXE_crieur")]);
    let ended = crate::helpers::Program::start(command).wait();
    assert_eq!(ended.status, Some(1));
    assert!(
        ended
            .stderr
            .contains("this process may open 60 files, but needs"),
        "{ended:?}"
    );
}

#[test]
fn accepting_pauses_while_there_are_no_descriptors() {
    let server = Server::start();
    let mut client = subscriber(&server, r#"["c"]"#);
    let mut publisher = Client::connect_with(&server, "/publish", &[]);
    // Below what it counts on: accept fails.
    server.limit_descriptors(20);
    let crowd: Vec<_> = (0..40).map(|_| server.tcp()).collect();
    server.wait_for_line("accepting pauses");
    publisher.send(&message(C));
    assert_eq!(publisher.text(), r#"{"type":"published","delivered":1}"#);
    assert_eq!(client.text(), delivery(C));
    drop(crowd);
    assert_eq!(publish(&server, C), r#"{"delivered":1}"#);
    assert_eq!(client.text(), delivery(C));
}
