//! Signals that come while a program takes over: each does what it does at any other time, once there is somebody to do it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::{C, halt_before_it_takes_over};
use crate::helpers::installed::Installed;
use crate::helpers::numbered::wait_until;
use crate::helpers::secrets::SecretFile;
use crate::helpers::{
    Client, Ending, Received, Server, close_reason, delivery, publish, subscriber,
};

/// Whether `token` is one that publishers may show.
fn is_in_force(server: &Server, token: &str) -> bool {
    let field = format!("Authorization: Bearer {token}");
    let mut publisher = Client::connect_with(server, "/publish", &[&field]);
    publisher.send(&crate::helpers::message(r#"{"channel":"nobody's"}"#));
    publisher.text().starts_with(r#"{"type":"published","#)
}

/// Waits for the orderly end of a server that was told to stop.
fn expect_stop(mut server: Server, clients: Vec<Client>, context: &str) {
    for mut client in clients {
        match client.receive() {
            Received::Close(1001, reason) => assert_eq!(close_reason(&reason).0, "shutdown"),
            other => panic!("{context}: {other:?}"),
        }
        client.answer_close(1001);
    }
    let ended = server.wait();
    assert_eq!(ended.status, Some(0), "{context}: {ended:?}");
}

#[test]
fn a_stop_that_is_asked_for_at_any_moment_is_an_orderly_one() {
    const TIMES: usize = 96;
    let next = AtomicUsize::new(0);
    let handed_over = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= TIMES {
                        return;
                    }
                    let server = Server::with(&["--drain-timeout", "60"]);
                    let clients: Vec<_> = (0..3).map(|_| subscriber(&server, r#"["c"]"#)).collect();
                    let since = std::time::Instant::now();
                    server.hand_over();
                    let whole = since.elapsed();
                    // From the request on to some time behind it.
                    let delay = whole.mul_f64(1.3 * number as f64 / TIMES as f64);
                    server.ask_to_hand_over();
                    thread::sleep(delay);
                    server.terminate();
                    let context = format!("{delay:?} of {whole:?}");
                    expect_stop(server, clients, &context);
                    handed_over.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(handed_over.into_inner(), TIMES);
}

#[test]
fn a_stop_that_comes_at_the_last_moment_waits_for_nothing() {
    let installed = Installed::new();
    let server = installed.server(&[]);
    halt_before_it_takes_over(&installed, &server);
    server.terminate();
    server.halt(false);
    expect_stop(server, Vec::new(), "nobody is connected");
}

#[test]
fn a_stop_that_comes_at_the_last_moment_can_be_forced() {
    let installed = Installed::new();
    let flags = ["--drain-timeout", "600", "--close-timeout", "600"];
    let mut server = installed.server(&flags);
    let mut client = subscriber(&server, r#"["c"]"#);
    halt_before_it_takes_over(&installed, &server);
    server.terminate();
    server.halt(false);
    client.expect_close(1001);
    server.terminate();
    let ended = server.wait();
    assert_eq!(ended.status, Some(128 + 15), "{ended:?}");
}

#[test]
fn a_stop_that_comes_between_two_programs_is_done_by_the_next() {
    let installed = Installed::new();
    let server = installed.server(&["--drain-timeout", "60"]);
    let clients: Vec<_> = (0..3).map(|_| subscriber(&server, r#"["c"]"#)).collect();
    installed.install_script(
        r#"if [ "$CRIEUR_HANDOVER" = take ]; then kill -TERM $$; fi
        exec "$real" "$@""#,
    );
    server.hand_over();
    expect_stop(server, clients, "it was sent before the successor began");
}

#[test]
fn a_stop_ends_a_trial() {
    let installed = Installed::new();
    let server = installed.server(&["--drain-timeout", "60"]);
    let clients: Vec<_> = (0..3).map(|_| subscriber(&server, r#"["c"]"#)).collect();
    installed.install_script("exec sleep 600");
    server.ask_to_hand_over();
    let mut trial = None;
    wait_until("a program is tried out", || {
        trial = server.program().children().pop();
        trial.is_some()
    });
    let (trial, _) = trial.expect("just found");
    let log = server.program().stderr.clone();
    server.terminate();
    // It asks for nothing any more.
    server.ask_to_hand_over();
    server.hang_up();
    expect_stop(server, clients, "a program was being tried out");
    wait_until("the trial has ended", || !trial.exists());
    let log = log.text();
    assert!(!log.contains("ERROR") && !log.contains("becoming"), "{log}");
    assert_eq!(log.matches("trying out ").count(), 1, "{log}");
}

#[test]
fn files_are_read_again_though_it_is_asked_for_between_two_programs() {
    let installed = Installed::new();
    let tokens = SecretFile::new("the-first-of-many-tokens");
    let server = installed.server(&["--publish-token-file", tokens.path()]);
    let mut client = subscriber(&server, r#"["c"]"#);
    installed.install_script(&format!(
        r#"if [ "$CRIEUR_HANDOVER" = take ]; then
            echo 'a-token-from-in-between' >'{}'
            kill -HUP $$
        fi
        exec "$real" "$@""#,
        tokens.path()
    ));
    server.next_line("--publish-token-file: 1 added, 1 removed", || {
        server.hand_over();
    });
    assert!(is_in_force(&server, "a-token-from-in-between"));
    assert!(!is_in_force(&server, "the-first-of-many-tokens"));
    client.send(r#"{"type":"ping"}"#);
    assert_eq!(client.text(), r#"{"type":"pong"}"#);
}

#[test]
fn files_are_read_again_though_it_is_asked_for_at_the_last_moment() {
    let installed = Installed::new();
    let tokens = SecretFile::new("the-first-of-many-tokens");
    let server = installed.server(&["--publish-token-file", tokens.path()]);
    halt_before_it_takes_over(&installed, &server);
    tokens.replace("a-token-of-the-last-moment");
    server.hang_up();
    server.next_line("took over from crieur", || server.halt(false));
    assert!(is_in_force(&server, "a-token-of-the-last-moment"));
}

#[test]
fn a_handover_that_is_asked_for_between_two_programs_is_the_next() {
    let installed = Installed::new();
    let server = installed.server(&[]);
    let mut client = subscriber(&server, r#"["c"]"#);
    // The next knows itself by the name that the script gives it, so this happens once.
    installed.install_script(
        r#"if [ "$CRIEUR_HANDOVER" = take ]; then kill -USR2 $$; fi
        exec "$real" "$@""#,
    );
    server.ask_to_hand_over();
    server
        .program()
        .stderr
        .wait_for_next("took over from crieur", 1);
    assert_eq!(publish(&server, C), r#"{"delivered":1}"#);
    assert_eq!(client.text(), delivery(C));
}

#[test]
fn a_handover_that_is_asked_for_during_a_trial_is_tried_next() {
    let installed = Installed::new();
    let server = installed.server(&[]);
    let next = Installed::new();
    installed.install_script(&format!(
        r#"kill -USR2 $PPID
        mv '{}' "$0"
        exit 1"#,
        next.path().display()
    ));
    // Nobody is connected: there is nothing else that the loop would wake up for.
    server.fail_to_hand_over();
    server.wait_for_line("took over from crieur");
    next.install();
}

#[test]
fn a_server_that_says_that_it_listens_can_be_asked() {
    for _ in 0..20 {
        Server::start().hand_over();
    }
}

#[test]
fn no_signal_is_lost_or_kills_while_one_program_follows_the_other() {
    let tokens = SecretFile::new("the-first-of-many-tokens");
    let mut server = Server::with(&["--publish-token-file", tokens.path()]);
    let mut client = subscriber(&server, r#"["c"]"#);
    let before = server.program().id();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let ending = Ending(&is_over);
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                server.hang_up();
                server.ask_to_hand_over();
                thread::sleep(Duration::from_micros(300));
            }
        });
        for round in 0..10 {
            let token = format!("token-number-{round}-of-this-test");
            tokens.replace(&token);
            // The last one before it is looked whether it is in force.
            server.hang_up();
            wait_until("the token is in force", || is_in_force(&server, &token));
            client.send(r#"{"type":"ping"}"#);
            assert_eq!(client.text(), r#"{"type":"pong"}"#);
            let taken = server.program().stderr.count("took over from crieur");
            server
                .program()
                .stderr
                .wait_for_next("took over from crieur", taken);
        }
        drop(ending);
    });
    // A single one, at moments that lie anywhere.
    for round in 0..30 {
        let token = format!("last-token-number-{round}-of-this-test");
        server.ask_to_hand_over();
        thread::sleep(Duration::from_millis(5 * round));
        tokens.replace(&token);
        server.hang_up();
        wait_until("the token is in force", || is_in_force(&server, &token));
    }
    let log = server.log();
    let errors: Vec<_> = log.lines().filter(|line| line.contains("ERROR")).collect();
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(server.program().id(), before);
    server.terminate();
    client.expect_close(1001);
    client.answer_close(1001);
    assert_eq!(server.wait().status, Some(0));
}
