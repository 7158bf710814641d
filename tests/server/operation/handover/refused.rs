//! A program that can't take over: the one that runs goes on, says why, and is as good as before.

use std::time::Instant;

use crate::helpers::http::figures;
use crate::helpers::installed::{Installed, write};
use crate::helpers::numbered::wait_until;
use crate::helpers::secrets::SecretFile;
use crate::helpers::{Client, Server, delivery, message, publish, subscriber};

const C: &str = r#"{"channel":"c"}"#;

/// What a program says that would take over the one connection that there is.
const RIGHT: &str = "echo 'crieur 9.9.9 takes over 1 of 1 connections'";

/// A server that is to become something else, and a client that must not notice.
struct Scene {
    server: Server,
    client: Client,
    tokens: SecretFile,
    /// How often another token was put in force.
    reloads: usize,
    refused: usize,
    id: u32,
    descriptors: usize,
    installed: Installed,
}

impl Scene {
    fn new() -> Self {
        let installed = Installed::new();
        let tokens = SecretFile::new("the-first-of-many-tokens");
        let server = installed.server(&["--publish-token-file", tokens.path()]);
        let client = subscriber(&server, r#"["c"]"#);
        Self {
            client,
            descriptors: server.program().descriptors(),
            id: server.program().id(),
            server,
            tokens,
            reloads: 0,
            refused: 0,
            installed,
        }
    }

    /// Writes a token that isn't in force before it is asked for a handover.
    fn change_token(&mut self) {
        self.reloads += 1;
        self.tokens.write(&self.token());
    }

    fn token(&self) -> String {
        format!("token-number-{}-of-this-test", self.reloads)
    }

    /// Asks for a handover, which must be refused for a reason that contains `reason`.
    fn expect_refused(&mut self, reason: &str) {
        self.change_token();
        let said = self.server.fail_to_hand_over();
        assert!(said.contains(reason), "{said:?} instead of {reason:?}");
        let line = format!("the handover is refused, this program goes on: {said}");
        assert!(self.server.log().contains(&line), "{line}");
        self.refused += 1;
        self.expect_unharmed();
    }

    /// The process is the same, who is connected is, and files were read again.
    fn expect_unharmed(&mut self) {
        let field = format!("Authorization: Bearer {}", self.token());
        let mut publisher = Client::connect_with(&self.server, "/publish", &[&field]);
        publisher.send(&message(C));
        assert_eq!(publisher.text(), r#"{"type":"published","delivered":1}"#);
        publisher.leave();
        assert_eq!(self.client.text(), delivery(C));
        let line = format!(
            r#"crieur_handovers_total{{result="refused"}} {}"#,
            self.refused
        );
        let text = figures(&self.server);
        assert!(text.lines().any(|got| got == line), "{line}\n{text}");
        let program = self.server.program();
        wait_until("a child is looked at", || program.children().is_empty());
        // Others are on their way out still, and what scripts say is true for one connection alone.
        self.server.wait_for_descriptors(self.descriptors);
    }

    /// The same while a program is being tried out.
    fn expect_unharmed_meanwhile(&mut self) {
        for _ in 0..2 {
            self.change_token();
            self.server
                .next_line("--publish-token-file: 1 added", || self.server.hang_up());
            let field = format!("Authorization: Bearer {}", self.token());
            let mut publisher = Client::connect_with(&self.server, "/publish", &[&field]);
            publisher.send(&message(C));
            assert_eq!(publisher.text(), r#"{"type":"published","delivered":1}"#);
            publisher.leave();
            assert_eq!(self.client.text(), delivery(C));
        }
    }

    /// A program as it should be can take over all the same.
    fn expect_handed_over(&mut self) {
        self.installed.install();
        self.change_token();
        self.server.hand_over();
        self.expect_unharmed();
        assert_eq!(self.server.program().id(), self.id);
        let text = figures(&self.server);
        let completed = r#"crieur_handovers_total{result="completed"} 1"#;
        assert!(text.lines().any(|got| got == completed), "{text}");
    }

    /// Stops it in the orderly way.
    fn stop(mut self) {
        self.server.terminate();
        self.client.expect_close(1001);
        self.client.answer_close(1001);
        assert_eq!(self.server.wait().status, Some(0));
    }
}

#[test]
fn a_program_that_says_something_else_or_nothing_does_not_take_over() {
    let mut scene = Scene::new();
    for (script, reason) in [
        (
            "echo 'not today' >&2; exit 1",
            "it ended with status 1: not today",
        ),
        ("exit 3", "it ended with status 3"),
        (
            "exec \"$real\" serve --no-such-flag",
            "it ended with status 2: ",
        ),
        (
            "echo hello; echo there",
            r#"it does not say that it can take over, but "hello""#,
        ),
        ("exit 0", "it says nothing"),
        ("kill -SEGV $$", "it was ended by signal 11"),
        ("echo done; kill -KILL $$", "it was ended by signal 9: done"),
        // Its own child has the socket still.
        (
            "sleep 2 & echo 'and so on'",
            r#"it does not say that it can take over, but "and so on""#,
        ),
        (
            "exec \"$real\" --version",
            r#"it does not say that it can take over, but "crieur "#,
        ),
        // There are as many connections, but it doesn't say that it takes them over.
        (
            "printf 'crieur 9.9.9 takes over 1 of 1 connections'",
            "it does not say that it can take over, but",
        ),
        (
            "echo 'crieur 9.9.9 takes over 1 of 2 connections'",
            "it does not say that it can take over, but",
        ),
    ] {
        scene.installed.install_script(script);
        scene.expect_refused(reason);
    }
    scene.expect_handed_over();
    scene.stop();
}

#[test]
fn what_is_no_program_does_not_take_over() {
    let mut scene = Scene::new();
    scene.installed.install_text("this is no program\n");
    scene.expect_refused("Exec format error");
    scene.installed.install_text("#!/nowhere/at/all\n");
    scene.expect_refused("No such file or directory");
    scene.installed.install_script(RIGHT);
    scene.installed.set_mode(0o644);
    scene.expect_refused("ermission denied");
    scene.installed.remove();
    scene.expect_refused("No such file or directory");
    scene.expect_handed_over();
    scene.stop();
}

#[test]
fn a_program_that_would_lose_connections_does_not_take_over() {
    let installed = Installed::new();
    let server = installed.server(&[]);
    let mut clients = [(); 3].map(|()| subscriber(&server, r#"["c"]"#));
    installed.install_script("echo 'crieur 9.9.9 takes over 1 of 3 connections'");
    assert_eq!(
        server.fail_to_hand_over(),
        "it would lose 2 of 3 connections"
    );
    assert_eq!(publish(&server, C), r#"{"delivered":3}"#);
    for client in &mut clients {
        assert_eq!(client.text(), delivery(C));
    }
}

#[test]
fn a_program_that_says_nothing_is_ended_after_ten_seconds() {
    let mut scene = Scene::new();
    scene.installed.install_script("exec sleep 600");
    scene.change_token();
    let since = Instant::now();
    let said = scene
        .server
        .next_line("trying out", || scene.server.ask_to_hand_over());
    assert!(said.contains("INFO"), "{said}");
    wait_until("a program is started", || {
        scene.server.program().children().len() == 1
    });
    // Meanwhile all goes on, files are read, and another request waits.
    scene.expect_unharmed_meanwhile();
    scene.server.wait_for_line("it has said nothing for 10 s");
    let waited = since.elapsed().as_secs_f64();
    assert!((10.0..20.0).contains(&waited), "{waited}");
    scene.refused = 1;
    scene.expect_unharmed();
    scene.expect_handed_over();
    scene.stop();
}

#[test]
fn a_program_that_was_replaced_since_it_was_tried_is_tried_again() {
    let scene = Scene::new();
    let next = Installed::new();
    let script = format!("mv '{}' \"$0\"; {RIGHT}", next.path().display());
    scene.installed.install_script(&script);
    scene.server.hand_over();
    assert_eq!(scene.server.log().matches("trying out ").count(), 2);
    assert_eq!(scene.server.program().id(), scene.id);
    // Nothing is left of the script that could be installed with the folder.
    next.install();
    scene.stop();
}

#[test]
fn a_program_that_changes_all_the_time_does_not_take_over() {
    let mut scene = Scene::new();
    let script = format!("cp \"$0\" \"$0.next\" && mv \"$0.next\" \"$0\"; {RIGHT}");
    scene.installed.install_script(&script);
    scene.expect_refused("it changes all the time");
    assert_eq!(scene.server.log().matches("trying out ").count(), 3);
    scene
        .installed
        .install_script(&format!("rm \"$0\"; {RIGHT}"));
    scene.expect_refused("No such file or directory");
    scene.expect_handed_over();
    scene.stop();
}

#[test]
fn a_program_that_can_not_be_begun_any_more_leaves_everything_as_it_was() {
    let mut scene = Scene::new();
    let other = subscriber(&scene.server, "[]");
    scene.descriptors += 1;
    let program = scene.server.program();
    let (input, descriptors) = (program.standard_input(), program.descriptors());
    let masks = program.signals();
    // What interprets it is gone when it has been tried out; the file is the same.
    let shell = scene.installed.file("shell");
    let interpreter = || {
        write(&shell, "");
        let copied = std::process::Command::new("cp")
            .arg("/bin/sh")
            .arg(&shell)
            .status();
        assert!(copied.expect("a command").success());
    };
    interpreter();
    let path = shell.display();
    scene.installed.install_text(&format!(
        "#!{path}\nrm '{path}'\necho 'crieur 9.9.9 takes over 2 of 2 connections'\n"
    ));
    for failed in 1..=3 {
        scene.change_token();
        let said = scene.server.fail_to_hand_over();
        assert!(said.starts_with("No such file or directory"), "{said}");
        let line = format!(
            "the handover to {} has failed, this program goes on: {said}",
            scene.installed.path().display()
        );
        assert!(scene.server.log().contains(&line), "{line}");
        scene.expect_unharmed();
        let text = figures(&scene.server);
        let line = format!(r#"crieur_handovers_total{{result="failed"}} {failed}"#);
        assert!(text.lines().any(|got| got == line), "{text}");
        assert_eq!(scene.server.program().standard_input(), input);
        // None is blocked, and that a peer is gone is an error still, not a signal.
        assert_eq!(scene.server.program().signals(), masks);
        scene.server.wait_for_descriptors(descriptors);
        interpreter();
    }
    // It is closed when we close it: nothing is left of what was to be handed over.
    other.leave();
    scene.descriptors -= 1;
    // Signals come as they did.
    scene.expect_unharmed_meanwhile();
    scene.expect_handed_over();
    assert_eq!(scene.server.program().standard_input(), input);
    scene.stop();
}
