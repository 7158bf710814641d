//! What an operator asks of the server: to check its settings, to read its files again.

use crate::helpers::secrets::{KEY, SecretFile};
use crate::helpers::{Ended, crieur, run};

const TOKEN: &str = "tokentokentoken1";

fn check(flags: &[&str]) -> Ended {
    run(&[&["--check"], flags].concat(), "")
}

#[test]
fn a_check_that_finds_nothing_says_ok() {
    let tokens = SecretFile::new(TOKEN);
    let keys = SecretFile::new(KEY);
    for flags in [
        &[][..],
        // The address may be in use by the server that is to be replaced.
        &["--listen", "127.0.0.1:1", "--listen=[::1]:1"],
        &["--publish-token-file", tokens.path()],
        &["--client-key-file", keys.path(), "--log", "debug"],
        &["--allow-origin", "https://a.example, https://b.example"],
        &["--trusted-proxy", "127.0.0.1,10.0.0.0/8"],
        &["--publish-listen", "unix:/nowhere/at/all"],
    ] {
        let ended = check(flags);
        assert_eq!(ended.status, Some(0), "{flags:?}: {ended:?}");
        assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("ok\n", ""));
    }
    let ended = run(&["serve", "--check"], "");
    assert_eq!(ended.stdout, "ok\n", "{ended:?}");
}

#[test]
fn a_check_names_what_is_wrong() {
    let short = SecretFile::new("tooshort");
    let exposed = SecretFile::new(KEY);
    exposed.set_mode(0o644);
    for (flags, status, named) in [
        (&["--nonsense"][..], 2, "--nonsense"),
        (&["--max-connections", "0"], 2, "--max-connections"),
        (&["--listen", "8000"], 2, "--listen"),
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
            "its mode 644 lets others at them",
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
