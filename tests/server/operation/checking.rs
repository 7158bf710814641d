//! What an operator asks before a start: whether the settings, the files and the addresses are in order.

use std::fs;

use crate::helpers::folder::Folder;
use crate::helpers::secrets::{KEY, SecretFile};
use crate::helpers::{Ended, Server, crieur, run};

const TOKEN: &str = "tokentokentoken1";

fn check(flags: &[&str]) -> Ended {
    // The default may be in use here.
    run(
        &[&["--listen", "127.0.0.1:0", "--check"], flags].concat(),
        "",
    )
}

/// What a check has printed on standard error, of one kind.
fn said<'a>(ended: &'a Ended, kind: &str) -> Vec<&'a str> {
    let lines = ended.stderr.lines();
    let lines = lines.filter_map(|line| line.strip_prefix("crieur: ")?.strip_prefix(kind));
    lines.collect()
}

#[test]
fn a_check_that_finds_nothing_says_ok() {
    let tokens = SecretFile::new(TOKEN);
    let keys = SecretFile::new(KEY);
    let folder = Folder::new("check-ok");
    for flags in [
        &[][..],
        &["--listen", "127.0.0.1:0,127.0.0.2:0"],
        &["--publish-token-file", tokens.path()],
        &["--client-key-file", keys.path(), "--log", "debug"],
        &["--allow-origin", "https://a.example, https://b.example"],
        &["--trusted-proxy", "127.0.0.1,10.0.0.0/8"],
        &["--publish-listen", &folder.flag()],
    ] {
        let ended = check(flags);
        assert_eq!(ended.status, Some(0), "{flags:?}: {ended:?}");
        assert_eq!(ended.stdout, "ok\n");
        let warnings = said(&ended, "warning: ").len();
        assert_eq!(warnings, ended.stderr.lines().count(), "{ended:?}");
    }
    let ended = run(&["serve", "--listen=127.0.0.1:0", "--check"], "");
    assert_eq!(ended.stdout, "ok\n", "{ended:?}");
    let quiet = check(&[
        "--publish-token-file",
        tokens.path(),
        "--client-key-file",
        keys.path(),
    ]);
    assert_eq!(quiet.stderr, "");
}

#[test]
fn a_check_prints_the_warnings_of_a_start() {
    let keys = SecretFile::new(KEY);
    let folder = Folder::new("check-warnings");
    let directory = folder.socket().display().to_string();
    for (flags, expected) in [
        (&[][..], &["Any program on this host may publish."][..]),
        (&["--no-local-publish"], &["Nobody may publish."]),
        (
            &["--listen", "0.0.0.0:0", "--no-local-publish"],
            &["Nobody may publish.", "Everybody who reaches 0.0.0.0:"],
        ),
        (
            &["--listen", "0.0.0.0:0", "--client-key-file", keys.path()],
            &["Any program on this host may publish."],
        ),
        (
            &[
                "--trusted-proxy",
                "127.0.0.1",
                "--publish-listen",
                "127.0.0.1:0",
            ],
            &["Everybody who reaches the proxy may subscribe to everything."],
        ),
        (
            &["--history-directory", &directory, "--history-bytes", "0"],
            &["Any program", "--history-directory has no effect"],
        ),
    ] {
        let checked = check(flags);
        let warnings = said(&checked, "warning: ");
        assert_eq!(warnings.len(), expected.len(), "{warnings:?}");
        let server = Server::with(flags);
        // The line that follows them all at the start.
        for (warning, expected) in warnings.into_iter().zip(expected) {
            assert!(warning.starts_with(expected), "{warning}");
            let end = warning.split(":0 ").last().expect("there is a last");
            let line = server.wait_for_line(end);
            assert!(line.contains("WARN") && line.contains(expected), "{line}");
        }
        let log = server.log();
        let logged = log.lines().filter(|line| line.contains(" WARN "));
        assert_eq!(logged.count(), expected.len(), "{log}");
    }
}

#[test]
fn an_address_in_use_is_noted_and_left_alone() {
    let folder = Folder::new("check-in-use");
    let server = Server::with(&["--publish-listen", &folder.flag()]);
    let files = || {
        let files = fs::read_dir(folder.socket().parent().expect("a folder"));
        files.expect("it is there").count()
    };
    let before = files();
    let address = server.address().to_string();
    let flags = ["--listen", &address, "--publish-listen", &folder.flag()];
    let ended = check(&flags);
    assert_eq!((ended.status, ended.stdout.as_str()), (Some(0), "ok\n"));
    let notes = said(&ended, "note: ");
    assert_eq!(notes.len(), 2, "{ended:?}");
    assert!(notes[0].starts_with(&format!("{address} is in use.")));
    assert!(notes[1].starts_with(&format!("{} is in use.", folder.flag())));
    assert_eq!(files(), before, "nothing is removed or left");
    let published = ["publish", "--url", &folder.flag(), r#"{"channel":"c"}"#];
    assert_eq!(run(&published, "").status, Some(0));
    let started = run(&flags, "");
    assert_eq!(started.status, Some(1), "{started:?}");
}

#[test]
fn a_check_finds_what_a_start_finds_at_an_address() {
    let folder = Folder::new("check-addresses");
    let missing = format!("{}/missing/a.sock", folder.flag());
    let file = Folder::new("check-file");
    fs::write(file.socket(), "").expect("writable");
    for (flags, status, expected) in [
        (
            // Of TEST-NET-1 (RFC 5737).
            &["--listen", "192.0.2.1:8000"][..],
            1,
            "cannot listen on 192.0.2.1:8000: this machine does not have the address",
        ),
        (
            &["--publish-listen", &missing],
            1,
            "its folder is missing: create it",
        ),
        (
            &["--publish-listen", &file.flag()],
            1,
            "cannot listen on unix:",
        ),
        (
            &["--listen", "127.0.0.1:1,127.0.0.1:1"],
            2,
            "127.0.0.1:1 and 127.0.0.1:1 are the same, so leave one out",
        ),
        (
            &["--publish-listen", "127.0.0.1:1", "--listen", "127.0.0.1:1"],
            2,
            "127.0.0.1:1 and 127.0.0.1:1 are the same",
        ),
        (
            &[
                "--publish-listen",
                &folder.flag(),
                "--publish-listen",
                &folder.flag(),
            ],
            2,
            "publish.sock are the same",
        ),
        (
            &["--listen", "0.0.0.0:1", "--publish-listen", "127.0.0.1:1"],
            2,
            "0.0.0.0:1 and 127.0.0.1:1 are the same",
        ),
    ] {
        let start = run(&[&["--listen", "127.0.0.1:0"], flags].concat(), "");
        for ended in [check(flags), start] {
            assert_eq!(ended.status, Some(status), "{flags:?}: {ended:?}");
            assert!(ended.stderr.contains(expected), "{flags:?}: {ended:?}");
            assert!(ended.stdout.is_empty(), "{flags:?}: {ended:?}");
            assert_eq!(ended.stderr.lines().count(), 1, "{flags:?}: {ended:?}");
        }
    }
}

#[test]
fn a_check_names_what_is_wrong() {
    let short = SecretFile::new("tooshort");
    let exposed = SecretFile::new(KEY);
    exposed.set_mode(0o644);
    for (flags, status, named) in [
        (&["--nonsense"][..], 2, "--nonsense"),
        (&["--max-connections", "0"], 2, "--max-connections"),
        (&["--listen", "8000"], 2, "--listen \"8000\""),
        (&["--log", "loud"], 2, "--log"),
        (&["--allow-origin", "nonsense"], 2, "--allow-origin"),
        (&["--trusted-proxy", "10.0.0.0/99"], 2, "--trusted-proxy"),
        (&["--publish-listen", "0.0.0.0:1"], 2, "--publish-listen"),
        (
            &["--publish-token-file", "/nowhere"],
            1,
            "--publish-token-file",
        ),
        (
            &["--publish-token-file", short.path()],
            1,
            "the secret on line 1 has 8 bytes",
        ),
        (
            &["--client-key-file", exposed.path()],
            1,
            "with mode 644 others get at them",
        ),
    ] {
        let ended = check(flags);
        assert_eq!(ended.status, Some(status), "{flags:?}: {ended:?}");
        assert!(ended.stderr.contains(named), "{flags:?}: {ended:?}");
        assert!(ended.stdout.is_empty(), "{flags:?}: {ended:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{flags:?}: {ended:?}");
    }
    let mut command = crieur();
    command.arg("--check").env("CRIEUR_PING_INTERVAL", "soon");
    let ended = crate::helpers::Program::start(command).wait();
    assert_eq!(ended.status, Some(2), "{ended:?}");
}
