//! `crieur keygen` and `crieur token`, and a server that takes what they make.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::helpers::secrets::{KEY, SecretFile, sign, unix_now};
use crate::helpers::{Client, Ended, Server, close_reason, delivery, error_code, publish, run};

const C: &str = r#"{"channel":"c"}"#;

/// A folder of its own, gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let name = format!("crieur-keys-{}-{test}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a new folder");
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        let path = self.0.join(name);
        path.to_str().expect("ours is UTF-8").to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn mode(path: &str) -> u32 {
    let metadata = fs::metadata(path).expect("it is there");
    metadata.permissions().mode() & 0o777
}

/// Runs it, and expects that it does what it is told.
fn done(arguments: &[&str], input: &str) -> String {
    let ended = run(arguments, input);
    assert_eq!(ended.status, Some(0), "{arguments:?}: {ended:?}");
    assert_eq!(ended.stderr, "", "{arguments:?}");
    ended.stdout
}

fn keygen(arguments: &[&str]) -> Ended {
    run(&[&["keygen"], arguments].concat(), "")
}

/// What a server and `crieur token --check` say to a token; both know the keys.
fn verdict(token: &str, keys: &str) -> (bool, String) {
    let checked = run(&["token", "--check", token, "--client-key-file", keys], "");
    assert_eq!(checked.stderr, "", "{checked:?}");
    (checked.status == Some(0), checked.stdout)
}

#[test]
fn tokens_of_every_algorithm_let_their_bearer_subscribe() {
    let folder = Folder::new("algorithms");
    for (flags, has_public) in [
        (&[][..], false),
        (&["--alg", "HS256"], false),
        (&["--alg", "ES256"], true),
        (&["--alg", "EdDSA"], true),
    ] {
        let key = folder.path(&format!("key-{}", flags.concat()));
        let said = done(&[&["keygen", "client"], flags, &[&key]].concat(), "");
        let public = format!("{key}.pub");
        assert_eq!(mode(&key), 0o600);
        assert!(said.contains(&format!("{key}: ")), "{said}");
        assert_eq!(Path::new(&public).exists(), has_public);
        assert_eq!(said.lines().count(), if has_public { 2 } else { 1 });
        let public = if has_public { &public } else { &key };
        assert_eq!(mode(public), 0o600);
        let token = done(&["token", "--key-file", &key, "--allow", "c"], "");
        let token = token.trim_end();

        let server = Server::with(&["--client-key-file", public]);
        let field = format!("Authorization: Bearer {token}");
        let mut client = Client::connect_with(&server, "/", &["Host: api.example.com", &field]);
        client.subscribe(r#"["c"]"#);
        assert_eq!(publish(&server, C), r#"{"delivered":1}"#);
        assert_eq!(client.text(), delivery(C));
        client.send(r#"{"sender":"client","subscriptions":["d"]}"#);
        assert_eq!(error_code(&client.text()), "forbidden");

        let (is_taken, said) = verdict(token, public);
        assert!(is_taken, "{said}");
        assert!(
            said.contains("taken: the server takes it for 59 min more"),
            "{said}"
        );
        if has_public {
            // What signs is nothing for a server.
            let ended = run(&["--client-key-file", &key], "");
            assert_eq!(ended.status, Some(1));
            assert!(
                ended.stderr.contains("line 1: this is a private key"),
                "{ended:?}"
            );
            let ended = run(&["token", "--key-file", public, "--allow", "c"], "");
            assert_eq!(ended.status, Some(1));
            assert!(
                ended.stderr.contains("line 1: this is a public key"),
                "{ended:?}"
            );
            // Nor is what everybody may know a secret.
            let text = fs::read_to_string(public).expect("readable");
            for secret in [text.as_str(), text.trim_end()] {
                let claims = format!(r#"{{"exp":{},"allow":["c"]}}"#, unix_now() + 60.0);
                let forged = format!("Authorization: Bearer {}", sign(secret, &claims));
                let mut client =
                    Client::connect_with(&server, "/", &["Host: api.example.com", &forged]);
                let (word, _) = close_reason(&client.expect_close(3000));
                assert_eq!(word, "token-invalid");
                client.answer_close(3000);
            }
        }
    }
}

#[test]
fn a_secret_gives_way_to_a_public_key_while_clients_stay() {
    let folder = Folder::new("exchange");
    let key = folder.path("client.key");
    done(&["keygen", "client", "--alg", "EdDSA", &key], "");
    let public = fs::read_to_string(format!("{key}.pub")).expect("readable");
    let token = done(&["token", "--key-file", &key, "--allow", "c"], "");
    let old = crate::helpers::secrets::token(r#"["c"]"#, 60.0);
    let keys = SecretFile::new(KEY);
    let server = Server::with(&["--client-key-file", keys.path()]);
    let connect = |token: &str| {
        let field = format!("Authorization: Bearer {}", token.trim_end());
        Client::connect_with(&server, "/", &["Host: api.example.com", &field])
    };
    let expect_refused = |token: &str| {
        let mut client = connect(token);
        let (word, _) = close_reason(&client.expect_close(3000));
        assert_eq!(word, "token-invalid");
        client.answer_close(3000);
    };
    let mut before = connect(&old);
    before.subscribe(r#"["c"]"#);
    expect_refused(&token);

    keys.write(&format!("{KEY}\n{public}"));
    server.hang_up();
    server.wait_for_line("--client-key-file: 1 added, 0 removed, 2 in force");
    let mut between = connect(&token);
    between.subscribe(r#"["c"]"#);
    connect(&old).subscribe(r#"["c"]"#);

    // What can't be used changes nothing.
    keys.write(&fs::read_to_string(&key).expect("readable"));
    server.hang_up();
    let line = server.wait_for_line("this is a private key");
    assert!(line.contains("ERROR"), "{line}");
    assert!(line.contains("stays in force"), "{line}");

    keys.write(&public);
    server.hand_over();
    server.wait_for_line("--client-key-file: 0 added, 1 removed, 1 in force");
    expect_refused(&old);
    connect(&token).subscribe(r#"["c"]"#);
    assert!(publish(&server, C).starts_with(r#"{"delivered":"#));
    for client in [&mut before, &mut between] {
        assert_eq!(client.text(), delivery(C));
    }
    assert!(
        !server.log().contains("MC4CAQ"),
        "a private key is never logged"
    );
}

#[test]
fn a_token_of_a_publisher_publishes() {
    let folder = Folder::new("publisher");
    let file = folder.path("publish.token");
    done(&["keygen", "publish", &file], "");
    assert_eq!(mode(&file), 0o600);
    let server = Server::with(&["--no-local-publish", "--publish-token-file", &file]);
    let url = format!("ws://{}/", server.address());
    let refused = run(&["publish", "--url", &url, C], "");
    assert_eq!(refused.status, Some(1), "{refused:?}");
    let said = done(&["publish", "--url", &url, "--token-file", &file, C], "");
    assert!(said.starts_with(r#"{"delivered":0"#), "{said}");
}

#[test]
fn no_file_is_overwritten() {
    let folder = Folder::new("overwrite");
    let key = folder.path("client.key");
    let public = format!("{key}.pub");
    let exists = |ended: &Ended, path: &str| {
        assert_eq!(ended.status, Some(1), "{ended:?}");
        assert_eq!(ended.stdout, "");
        let expected = format!("crieur: {path} exists, and is left as it is");
        assert!(ended.stderr.starts_with(&expected), "{ended:?}");
    };
    fs::write(&key, "mine").expect("writable");
    exists(&keygen(&["client", &key]), &key);
    exists(&keygen(&["publish", &key]), &key);
    exists(&keygen(&["client", "--alg", "EdDSA", &key]), &key);
    assert_eq!(fs::read_to_string(&key).expect("still there"), "mine");
    assert!(!Path::new(&public).exists());

    // Both files or none.
    fs::remove_file(&key).expect("ours");
    fs::write(&public, "mine").expect("writable");
    exists(&keygen(&["client", "--alg", "ES256", &key]), &public);
    assert_eq!(fs::read_to_string(&public).expect("still there"), "mine");
    assert!(!Path::new(&key).exists());

    // Nor is what a link leads to, even if there is nothing yet.
    let link = folder.path("link");
    symlink(folder.path("elsewhere"), &link).expect("a link");
    exists(&keygen(&["publish", &link]), &link);
    assert!(!Path::new(&folder.path("elsewhere")).exists());

    let nowhere = folder.path("missing/client.key");
    let ended = keygen(&["client", &nowhere]);
    assert_eq!(ended.status, Some(1));
    assert!(ended.stderr.contains("cannot write"), "{ended:?}");
}

#[test]
fn keys_and_tokens_are_new_each_time() {
    let folder = Folder::new("new");
    let mut seen = std::collections::BTreeSet::new();
    for (number, arguments) in (0..3).flat_map(|number| {
        [
            (number, &["publish"][..]),
            (number, &["client"]),
            (number, &["client", "--alg", "ES256"]),
            (number, &["client", "--alg", "EdDSA"]),
        ]
    }) {
        let path = folder.path(&format!("{}-{number}", arguments.concat()));
        assert_eq!(keygen(&[arguments, &[&path]].concat()).status, Some(0));
        let text = fs::read_to_string(&path).expect("readable");
        assert!(text.trim_end().len() >= 43, "{text}");
        assert!(seen.insert(text), "twice");
    }
    assert_eq!(seen.len(), 12);
}

#[test]
fn a_token_says_what_it_was_told_to() {
    let key = SecretFile::new(KEY);
    let make = |arguments: &[&str]| {
        let made = done(
            &[&["token", "--key-file", key.path()], arguments].concat(),
            "",
        );
        let part = made.trim_end().split('.').nth(1).expect("three parts");
        let claims = URL_SAFE_NO_PAD.decode(part).expect("base64url");
        serde_json::from_slice::<serde_json::Value>(&claims).expect("JSON")
    };
    let claims = make(&["--allow", "c"]);
    let time = |name: &str| claims[name].as_f64().expect("a number");
    assert!((time("iat") - unix_now()).abs() < 30.0);
    assert!((time("exp") - time("iat") - 3600.0).abs() < 1e-9);
    assert_eq!(claims["allow"], serde_json::json!(["c"]));
    assert!(claims.get("sub").is_none() && claims.get("history").is_none());

    let on_page = r#"{"package":"p","page":"q"}"#;
    let claims = make(&[
        "--allow",
        "\"c\"",
        "--allow",
        on_page,
        "--allow",
        r#"["d",{"package":"p","page":"r"}]"#,
        "--ttl",
        "2d",
        "--sub",
        "b\"ob",
        "--no-history",
    ]);
    let expected = serde_json::json!([
        "c", {"package":"p","page":"q"}, "d", {"package":"p","page":"r"},
    ]);
    assert_eq!(claims["allow"], expected);
    assert_eq!(claims["sub"], "b\"ob");
    assert_eq!(claims["history"], false);
    let seconds = claims["exp"].as_f64().zip(claims["iat"].as_f64());
    assert_eq!(seconds.map(|(exp, iat)| exp - iat), Some(172_800.0));
    assert_eq!(make(&["--allow", "[]"])["allow"], serde_json::json!([]));
}

#[test]
fn what_no_server_takes_is_not_made() {
    let key = SecretFile::new(KEY);
    let many = format!("[{}]", vec!["\"c\""; 257].join(","));
    let long = format!(
        "[{}]",
        vec![format!("\"{}\"", "c".repeat(60)); 200].join(",")
    );
    for (allow, why) in [
        (r#"{"package":"p"}"#, "subscriptions[0]"),
        ("[1]", "subscriptions[0]"),
        (&many, "more subscriptions"),
        (&long, "longer than 8 KiB"),
    ] {
        let ended = run(&["token", "--key-file", key.path(), "--allow", allow], "");
        assert_eq!(ended.status, Some(1), "{ended:?}");
        assert_eq!(ended.stdout, "");
        assert!(ended.stderr.contains(why), "{ended:?}");
        assert_eq!(ended.stderr.lines().count(), 1);
    }
}

#[test]
fn a_check_says_what_the_server_would_and_why() {
    let keys = SecretFile::new(KEY);
    let now = unix_now().round();
    let in_an_hour = now + 3600.0;
    let good = sign(
        KEY,
        &format!(r#"{{"sub":"bob","exp":{in_an_hour},"allow":["c"],"history":false}}"#),
    );
    let (is_taken, said) = verdict(&good, keys.path());
    assert!(is_taken, "{said}");
    for line in [
        "alg      \"HS256\"",
        "sub      \"bob\"",
        "allow    [\"c\"]",
        "history  false",
    ] {
        assert!(said.lines().any(|said| said == line), "{said}");
    }
    assert!(
        said.contains(&format!("exp      {in_an_hour}, ")) && said.contains(" GMT, in "),
        "{said}"
    );
    let es256 = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    let (signed, _) = good.rsplit_once('.').expect("a signature");
    for (token, why, word) in [
        (
            sign(KEY, r#"{"exp":1,"allow":["c"]}"#),
            "the token has expired",
            "token-expired",
        ),
        (
            sign(KEY, r#"{"allow":["c"]}"#),
            "the token has no exp",
            "token-invalid",
        ),
        (
            sign(KEY, r#"{"exp":1e11,"nbf":99999999999}"#),
            "not valid yet",
            "token-invalid",
        ),
        (
            sign(KEY, r#"{"exp":1e11,"allow":["c",{}]}"#),
            "subscriptions[1]",
            "token-invalid",
        ),
        (
            es256.to_owned(),
            "it says \"ES256\", and the file has HS256",
            "token-invalid",
        ),
        (
            sign("another key of 32 bytes or more!", r#"{"exp":1}"#),
            "signed with no key",
            "token-invalid",
        ),
        (
            format!("{signed}.AAAA"),
            "signed with no key",
            "token-invalid",
        ),
        ("nonsense".to_owned(), "not a JWT", "token-invalid"),
        (
            "\u{e9}.\u{e9}.\u{e9}".to_owned(),
            "not a JWT",
            "token-invalid",
        ),
        ("e30.e30.".to_owned(), "it says none", "token-invalid"),
    ] {
        let (is_taken, said) = verdict(&token, keys.path());
        assert!(!is_taken, "{said}");
        assert!(
            said.contains("refused: ") && said.contains(why),
            "{token}: {said}"
        );
        assert!(
            said.ends_with(&format!("closed with 3000, {word}\n")),
            "{said}"
        );
        // The server says the same.
        let server = Server::with(&["--client-key-file", keys.path()]);
        if token.is_ascii() {
            let target = format!("/?token={token}");
            let mut client = Client::connect_with(&server, &target, &["Host: api.example.com"]);
            let (told, _) = close_reason(&client.expect_close(3000));
            assert_eq!(told, word);
            client.answer_close(3000);
        }
    }
}

#[test]
fn a_check_says_what_a_token_allows() {
    let keys = SecretFile::new(KEY);
    let claims = r#"{"exp":1e11,"allow":["c",{"package":"p","page":"q","filters":{"values":{"v":["1","2"]}}}]}"#;
    let token = sign(KEY, claims);
    let check = |subscriptions: &[&str], input: &str| {
        let token = if input.is_empty() { &token } else { "-" };
        let first = ["token", "--check", token, "--client-key-file", keys.path()];
        run(&[&first[..], subscriptions].concat(), input)
    };
    let narrower = r#"{"package":"p","page":"q","filters":{"values":{"v":"1"}}}"#;
    let good = check(&["c", narrower], "");
    assert_eq!(good.status, Some(0), "{good:?}");
    assert!(
        good.stdout
            .ends_with(&format!("allowed: \"c\"\nallowed: {narrower}\n")),
        "{good:?}"
    );
    let wider = r#"{"package":"p","page":"q"}"#;
    let bad = check(&["c", wider], &format!(" {token}\n"));
    assert_eq!(bad.status, Some(1), "{bad:?}");
    assert!(bad.stdout.contains("allowed: \"c\"\n"), "{bad:?}");
    let expected = format!("forbidden: {wider}: nothing in allow covers it\n");
    assert!(bad.stdout.ends_with(&expected), "{bad:?}");
}

#[test]
fn wrong_command_lines_of_both_are_status_2_and_one_line() {
    let key = SecretFile::new(KEY);
    let key = key.path();
    for arguments in [
        &["keygen"][..],
        &["keygen", "client"],
        &["keygen", "server", "x"],
        &["keygen", "client", "x", "y"],
        &["keygen", "client", "--alg", "RS256", "x"],
        &["keygen", "publish", "--alg", "HS256", "x"],
        &["keygen", "--nonsense"],
        &["token"],
        &["token", "--key-file", key],
        &["token", "--allow", "c"],
        &["token", "--key-file", key, "--allow", "c", "--ttl", "0"],
        &["token", "--key-file", key, "--allow", "{"],
        &["token", "--key-file", key, "--allow", "[1"],
        &["token", "--key-file", key, "--allow", "c", "--check", "x"],
        &["token", "--key-file", key, "--allow", "c", "d"],
        &["token", "--check", "x"],
        &["token", "--client-key-file", key],
        &[
            "token",
            "--check",
            "x",
            "--client-key-file",
            key,
            "{\"package\":1}",
        ],
        &["token", "--nonsense"],
    ] {
        let ended = run(arguments, "");
        assert_eq!(ended.status, Some(2), "{arguments:?}: {ended:?}");
        assert_eq!(ended.stdout, "", "{arguments:?}");
        assert!(ended.stderr.starts_with("crieur: "), "{ended:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    }
    // A key that others can read signs nothing.
    let exposed = SecretFile::new(KEY);
    exposed.set_mode(0o644);
    let ended = run(&["token", "--key-file", exposed.path(), "--allow", "c"], "");
    assert_eq!(ended.status, Some(1));
    assert!(ended.stderr.contains("chmod 600"), "{ended:?}");
}
