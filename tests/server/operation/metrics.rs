//! What is counted, and which requests are shown it.

use std::thread;
use std::time::Duration;

use crate::helpers::http::{Http, JSON, figures, post, post_with, refusal};
use crate::helpers::{Client, Received, Server, delivery, frame, message, subscriber, upgrade};

const C: &str = r#"{"channel":"c"}"#;

#[test]
fn figures_count_what_happened() {
    let server = Server::start();
    let mut client = subscriber(&server, r#"["c"]"#);
    let mut kept = Client::connect_with(&server, "/publish", &[]);
    let mut http = Http::connect(&server);
    for body in [message(C), message("{}")] {
        http.send(post(&body));
        http.receive();
    }
    assert_eq!(client.text(), delivery(C));
    kept.send(&message(C));
    kept.text();
    subscriber(&server, "[]").leave();
    refusal(&server, &upgrade().replace("Host: 127.0.0.1\r\n", ""), 400);
    refusal(
        &server,
        &post_with(&[JSON, "Origin: http://a"], &message(C)),
        403,
    );
    let text = figures(&server);
    for line in [
        r#"crieur_connections{role="client"} 1"#,
        r#"crieur_connections{role="publisher"} 1"#,
        r#"crieur_connections{role="http"} 1"#,
        r#"crieur_connections{role="handshake"} 1"#,
        r#"crieur_upgrades_rejected_total{reason="invalid"} 1"#,
        r#"crieur_notifications_total{result="delivered"} 2"#,
        r#"crieur_notifications_total{result="invalid"} 1"#,
        r#"crieur_notifications_total{result="forbidden"} 0"#,
        r#"crieur_notifications_total{result="stranger"} 1"#,
        r#"crieur_notification_recipients_bucket{le="0"} 0"#,
        r#"crieur_notification_recipients_bucket{le="1"} 2"#,
        "crieur_notification_recipients_sum 2",
        "crieur_match_seconds_count 2",
        "crieur_fan_out_seconds_count 2",
        "crieur_deliveries_total 2",
        "crieur_subscriptions 1",
        r#"crieur_sessions_closed_total{code="1000"} 1"#,
        "# TYPE crieur_loop_turn_seconds histogram",
    ] {
        assert!(text.lines().any(|got| got == line), "{line}\n{text}");
    }
    for name in [
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_start_time_seconds",
    ] {
        assert!(text.contains(&format!("\n{name} ")), "{text}");
    }
    assert!(!text.contains(r#""c""#), "no label names a channel");
}

#[test]
fn figures_are_shown_to_this_host_and_to_networks_that_were_named() {
    let request = "GET /metrics HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n";
    let server = Server::start();
    refusal(&server, request, 403);
    let server = Server::with(&["--metrics-from", "192.0.2.0/24,127.0.0.0/8"]);
    refusal(&server, request, 200);
    let server = Server::with(&[
        "--trusted-proxy",
        "127.0.0.1",
        "--metrics-from",
        "192.0.2.0/24",
    ]);
    refusal(&server, request, 403);
    let behind = request.replace("\r\n\r\n", "\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n");
    refusal(&server, &behind, 200);
}

/// The value of a sample.
fn value(text: &str, sample: &str) -> f64 {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    let value = line.unwrap_or_else(|| panic!("no {sample}: {text}"));
    value.parse().expect("a number")
}

#[test]
fn a_ping_that_is_answered_is_a_round_trip() {
    let server = Server::with(&["--ping-interval", "0.2"]);
    let mut client = Client::connect(&server);
    let before = figures(&server);
    // Nobody asked for this one.
    client.send_bytes(&frame(0x8a, b""));
    assert!(matches!(client.receive(), Received::Ping(_)));
    client.send_bytes(&[frame(0x8a, b""), frame(0x89, b"x")].concat());
    while !matches!(client.receive(), Received::Pong(_)) {}
    let after = figures(&server);
    let count = "crieur_ping_round_trip_seconds_count";
    assert_eq!((value(&before, count), value(&after, count)), (0.0, 1.0));
    assert!(value(&after, "crieur_ping_round_trip_seconds_sum") > 0.0);
}

#[test]
fn a_halt_is_seen_as_lag_of_the_loop() {
    let server = Server::with(&["--ping-interval", "0.1"]);
    let mut client = Client::connect(&server);
    // On a busy machine the timer may come before the halt; then the next one won't.
    for _ in 0..20 {
        assert!(matches!(client.receive(), Received::Ping(_)));
        // Once this is answered, the server waits for nothing but its timer.
        client.send_bytes(&[frame(0x8a, b""), frame(0x89, b"x")].concat());
        while !matches!(client.receive(), Received::Pong(_)) {}
        server.halt(true);
        // Only time can pass.
        thread::sleep(Duration::from_millis(500));
        server.halt(false);
        if value(&figures(&server), "crieur_loop_lag_seconds_sum") >= 0.3 {
            return;
        }
    }
    panic!("no lag was seen");
}
