//! SIGUSR2: the server becomes the program that stands at its path, in the same process and with all connections.

use std::fs;
use std::thread;
use std::time::Duration;

use crate::helpers::http::figures;
use crate::helpers::installed::Installed;
use crate::helpers::numbered::wait_until;
use crate::helpers::{Client, Server, delivery, message, publish, subscriber};

mod half_done;
mod kept;
mod redis;
mod refused;
mod signals;
mod under_load;

const C: &str = r#"{"channel":"c"}"#;
const MIB: usize = 1024 * 1024;

/// The value of a figure, which has to be there.
fn figure(text: &str, name: &str) -> f64 {
    let rest = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
    let value = text.lines().find_map(rest);
    value.unwrap_or_else(|| panic!("no {name}: {text}"))
}

/// Has the server be halted when the program that is tried out has said what it has to, and ended. What comes then isn't
/// looked at before the next takes over.
fn halt_before_it_takes_over(installed: &Installed, server: &Server) {
    installed.install_behind(r#""$real" "$@"; kill -STOP $PPID; exit"#);
    server.ask_to_hand_over();
    let program = server.program();
    program.wait_for_halt();
    wait_until("it has ended", || {
        program.children().iter().any(|(_, state)| *state == 'Z')
    });
    // It is time to look at it then, which happens every 10 ms.
    thread::sleep(Duration::from_millis(50));
}

#[test]
fn the_process_stays_and_has_no_more_of_anything() {
    let installed = Installed::new();
    let server = installed.server(&["--log", "debug"]);
    let program = server.program();
    let mut clients: Vec<_> = (0..50).map(|_| subscriber(&server, r#"["c"]"#)).collect();
    let mut publisher = Client::connect_with(&server, "/publish", &[]);
    let state = || {
        let environment = program.environment();
        let environment = environment
            .into_iter()
            .filter(|variable| !variable.starts_with("CRIEUR_HANDOVER="));
        let arguments = fs::read(format!("/proc/{}/cmdline", program.id()));
        (
            program.id(),
            program.standard_input(),
            program.signals(),
            environment.collect::<Vec<_>>(),
            arguments.expect("it runs"),
        )
    };
    let (before, descriptors) = (state(), program.descriptors());
    let memory_bytes = program.memory_bytes();
    for round in 1..=10 {
        if round == 5 {
            // Another file, as with an upgrade.
            installed.install_copy();
        }
        server.hand_over();
        publisher.send(&message(C));
        assert_eq!(publisher.text(), r#"{"type":"published","delivered":50}"#);
        for client in &mut clients {
            assert_eq!(client.text(), delivery(C), "{round}");
        }
        assert_eq!(program.descriptors(), descriptors, "{round}");
    }
    assert!(state() == before, "{:?} instead of {before:?}", state());
    let variables = program.environment();
    let mut variables = variables
        .iter()
        .filter(|variable| variable.starts_with("CRIEUR_HANDOVER"));
    assert_eq!(
        variables.next().map(String::as_str),
        Some("CRIEUR_HANDOVER=take")
    );
    assert_eq!(variables.next(), None);
    assert!(program.children().is_empty(), "{:?}", program.children());
    let now = program.memory_bytes();
    assert!(
        now <= memory_bytes + MIB,
        "{now} bytes, {memory_bytes} before"
    );
}

#[test]
fn every_handover_is_told_in_the_log_in_one_piece() {
    let server = Server::start();
    let mut client = subscriber(&server, r#"["c"]"#);
    for round in 0..10 {
        // Lines of the log on their way.
        for _ in 0..20 {
            publish(&server, C);
            assert_eq!(client.text(), delivery(C), "{round}");
        }
        server.hand_over();
    }
    let log = server.log();
    for line in log.lines() {
        assert!(line.starts_with('[') && line.contains("] "), "{line}");
    }
    for (line, times) in [
        ("trying out ", 10),
        ("becoming ", 10),
        ("took over from crieur ", 10),
        ("listening on ", 11),
        (" published to 1 connection,", 200),
    ] {
        assert_eq!(log.matches(line).count(), times, "{line}: {log}");
    }
}

#[test]
fn figures_go_on() {
    let server = Server::start();
    let mut client = subscriber(&server, r#"["c"]"#);
    let mut totals = [0.0; 4];
    let mut start = None;
    for round in 0..4 {
        if round > 0 {
            server.hand_over();
        }
        for _ in 0..5 {
            publish(&server, C);
            assert_eq!(client.text(), delivery(C));
        }
        wait_until("publishers have left", || {
            figure(&figures(&server), r#"crieur_connections{role="publisher"}"#) == 0.0
        });
        let text = figures(&server);
        let published = 5.0 * (f64::from(round) + 1.0);
        for (name, value) in [
            (
                r#"crieur_notifications_total{result="delivered"}"#,
                published,
            ),
            ("crieur_deliveries_total", published),
            ("crieur_notification_recipients_sum", published),
            ("crieur_match_seconds_count", published),
            (r#"crieur_sessions_closed_total{code="1000"}"#, published),
            (r#"crieur_connections{role="client"}"#, 1.0),
            ("crieur_subscriptions", 1.0),
            (
                r#"crieur_handovers_total{result="completed"}"#,
                f64::from(round),
            ),
            (r#"crieur_handovers_total{result="refused"}"#, 0.0),
            (r#"crieur_handovers_total{result="failed"}"#, 0.0),
        ] {
            assert_eq!(figure(&text, name), value, "{round}: {name}");
        }
        let seconds = figure(&text, "crieur_handover_seconds");
        assert!(
            (round > 0) == (seconds > 0.0) && seconds < 10.0,
            "{seconds}"
        );
        let started = figure(&text, "process_start_time_seconds");
        // It is told from two clocks, of which one counts in hundredths.
        assert!((*start.get_or_insert(started) - started).abs() < 0.02);
        // What only grows has grown.
        for (name, total) in [
            "crieur_received_bytes_total",
            "crieur_connections_opened_total",
            "crieur_connections_dropped_total",
            "crieur_loop_turn_seconds_count",
        ]
        .into_iter()
        .zip(&mut totals)
        {
            let value = figure(&text, name);
            assert!(value > *total, "{round}: {name} {value}");
            *total = value;
        }
    }
}
