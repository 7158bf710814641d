//! The commands: what they print, where, and the exit status.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Stdio;
use std::thread;

use crate::helpers::{
    Client, Program, Received, Server, crieur, delivery, publish, run, subscriber,
};
use socket2::{Domain, Socket, Type};

const C: &str = r#"{"channel":"c"}"#;

/// The counts in the receipts that `publish` has printed, one a line. Of other members it says nothing.
fn counts(stdout: &str) -> Vec<u64> {
    let count = |line: &str| {
        let receipt: serde_json::Value = serde_json::from_str(line).expect("a receipt is JSON");
        receipt["delivered"].as_u64().expect("a receipt counts")
    };
    stdout.lines().map(count).collect()
}

/// A URL where nobody listens, for as long as the socket is kept.
fn nobody() -> (Socket, String) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).expect("a free port");
    let address = socket.local_addr().expect("bound").as_socket();
    (socket, format!("ws://{}/", address.expect("IPv4")))
}

#[test]
fn version_and_help_go_to_standard_output() {
    let version = run(&["--version"], "");
    assert_eq!(version.status, Some(0));
    assert_eq!(
        version.stdout,
        concat!("crieur ", env!("CARGO_PKG_VERSION"), "\n")
    );
    for arguments in [
        &["--help"][..],
        &["help"],
        &["serve", "--help"],
        &["publish", "--help"],
        &["subscribe", "-h"],
        &["token", "--help"],
        &["help", "keygen"],
    ] {
        let help = run(arguments, "");
        assert_eq!(help.status, Some(0), "{help:?}");
        assert!(
            help.stdout.contains("Usage:") && help.stderr.is_empty(),
            "{help:?}"
        );
    }
    let help = run(&["--help"], "").stdout;
    for flag in [
        "--listen",
        "--max-connections",
        "--ping-interval",
        "--no-local-publish",
        "--console",
        "--log",
    ] {
        assert!(help.contains(flag), "{flag}");
    }
}

#[test]
fn a_wrong_command_line_is_status_2_and_one_line() {
    for arguments in [
        &["--nonsense"][..],
        &["nonsense"],
        &["serve", "--max-connections", "0"],
        &["--ping-interval", "soon"],
        &["--listen", "8000"],
        &["--log", "loud"],
        &["--console", "everybody"],
        &["--max-connections"],
        &["publish"],
        &["publish", "--nonsense", C],
        &["publish", "--url", "https://127.0.0.1/", C],
        &["publish", "--url", "wss://127.0.0.1/", C],
        &["subscribe", "--url", "http://127.0.0.1/", "c"],
        &["publish", C, C],
        &["publish", "--key", "", C],
        &["publish", "--key", "k", "--no-keep", C],
        &["publish", "--key", "k", "-"],
        &["subscribe", "c", "--since"],
        &["subscribe"],
        &["subscribe", "{"],
        &["subscribe", "--url", "nonsense", "c"],
    ] {
        let ended = run(arguments, "");
        assert_eq!(ended.status, Some(2), "{arguments:?}: {ended:?}");
        assert!(ended.stdout.is_empty(), "{arguments:?}: {ended:?}");
        assert!(
            ended.stderr.starts_with("crieur: "),
            "{arguments:?}: {ended:?}"
        );
        assert_eq!(ended.stderr.lines().count(), 1, "{arguments:?}: {ended:?}");
    }
}

#[test]
fn a_port_in_use_is_status_1_and_one_line() {
    let server = Server::start();
    let address = server.address().to_string();
    let ended = run(&["--listen", &address, "--max-connections", "10"], "");
    assert_eq!(ended.status, Some(1));
    assert_eq!(
        ended.stderr,
        format!(
            "crieur: cannot listen on {address}: the port is in use: stop what listens there, or choose another one\n"
        )
    );
}

#[test]
fn several_addresses_are_one_server() {
    let mut command = crieur();
    command.args(["--listen", "127.0.0.1:0", "--listen", "127.0.0.2:0"]);
    let server = Program::start(command);
    let url = |address: &str| {
        let line = server.stderr.wait_for(&format!("listening on {address}:"));
        let (_, address) = line.split_once("listening on ").expect("as awaited");
        format!("ws://{address}/")
    };
    let mut command = crieur();
    command.args(["subscribe", "--url", &url("127.0.0.1"), "c"]);
    let subscriber = Program::start(command);
    subscriber.stderr.wait_for("subscribed");
    let published = run(&["publish", "--url", &url("127.0.0.2"), C], "");
    assert_eq!(counts(&published.stdout), [1]);
}

#[test]
fn settings_come_from_the_environment_and_flags_win() {
    let mut command = crieur();
    command
        .args(["--ping-interval", "7"])
        .env("CRIEUR_LISTEN", "127.0.0.1:0")
        .env("CRIEUR_PING_INTERVAL", "9")
        .env("CRIEUR_MAX_CONNECTIONS", "5");
    let server = Program::start(command);
    let line = server.stderr.wait_for("listening on 127.0.0.1:");
    assert!(!line.ends_with(":8000"), "{line}");
    server.stderr.wait_for("at most 5 connections");
    let mut wrong = crieur();
    wrong.env("CRIEUR_MAX_CONNECTIONS", "many");
    let ended = Program::start(wrong).wait();
    assert_eq!(ended.status, Some(2));
    assert!(ended.stderr.contains("CRIEUR_MAX_CONNECTIONS"), "{ended:?}");

    // An unset variable of a script must not leave the server open.
    for name in ["NO_LOCAL_PUBLISH", "CLIENT_KEY_FILE", "TRUSTED_PROXY"] {
        let variable = format!("CRIEUR_{name}");
        let mut empty = crieur();
        empty.env(&variable, "").args(["--listen", "127.0.0.1:0"]);
        let ended = Program::start(empty).wait();
        assert_eq!(ended.status, Some(2));
        assert!(ended.stderr.contains(&variable), "{ended:?}");
    }
}

#[test]
fn a_misspelt_variable_opens_no_door() {
    let with = |variable: &str, value: &str, arguments: &[&str]| {
        let mut command = crieur();
        command.env(variable, value).args(arguments);
        Program::start(command).wait()
    };
    let misspelt = "CRIEUR_PUBLISH_TOKEN_FIEL";
    for arguments in [&["--listen", "127.0.0.1:0"][..], &["--check"]] {
        let ended = with(misspelt, "/run/token", arguments);
        assert_eq!(ended.status, Some(2), "{ended:?}");
        assert!(ended.stderr.contains(misspelt), "{ended:?}");
    }
    assert_eq!(with(misspelt, "", &["serve", "--help"]).status, Some(0));
    // Kubernetes sets this one beside a service that is called crieur.
    let link = with("CRIEUR_PORT", "tcp://10.0.0.11:8000", &["--check"]);
    assert_eq!(link.stdout, "ok\n", "{link:?}");
}

#[test]
fn tokens_in_urls_are_not_printed() {
    let server = Server::start();
    let mut command = crieur();
    let url = format!("{}?token=verysecret", server.url());
    command.args(["subscribe", "--url", &url, "c"]);
    let mut subscriber = Program::start(command);
    subscriber.stderr.wait_for("subscribed");
    subscriber.terminate();
    let ended = subscriber.wait();
    let refused = run(&["publish", "--url", &url, "{}"], "");
    assert_eq!(refused.status, Some(1), "{refused:?}");
    // Nobody listens at the discard port.
    let nobody = "ws://127.0.0.1:9/?token=verysecret";
    let unreachable = run(&["publish", "--url", nobody, C], "");
    assert!(
        unreachable.stderr.contains("ws://127.0.0.1:9/?token=…"),
        "{unreachable:?}"
    );
    for ended in [ended, refused, unreachable] {
        let printed = ended.stdout + &ended.stderr;
        assert!(!printed.contains("verysecret"), "{printed}");
    }
    assert!(!server.log().contains("verysecret"));
}

#[test]
fn publish_prints_the_count() {
    let server = Server::start();
    let mut client = subscriber(&server, r#"["c"]"#);
    let published = run(&["publish", "--url", &server.url(), C], "");
    assert_eq!(counts(&published.stdout), [1]);
    assert_eq!((published.status, published.stderr.as_str()), (Some(0), ""));
    assert_eq!(client.text(), delivery(C));
    let typed = [
        "publish",
        "--url",
        &server.url(),
        "--type",
        "refreshcontent",
        C,
    ];
    assert_eq!(run(&typed, "").status, Some(0));
    let expected = format!(r#"{{"type":"refreshcontent","notification":{C}}}"#);
    assert_eq!(client.text(), expected);
}

#[test]
fn publish_passes_a_notification_on_byte_for_byte() {
    let server = Server::start();
    let mut client = subscriber(&server, r#"["c"]"#);
    let notification = r#"{ "z":1.0, "channel":"c" , "a":"\u00e9" }"#;
    run(&["publish", "--url", &server.url(), notification], "");
    assert_eq!(client.text(), delivery(notification));
}

#[test]
fn publish_that_is_refused_is_status_1() {
    let closed = Server::with(&["--no-local-publish"]);
    let open = Server::start();
    for (server, notification, word) in [
        (&closed, C, "forbidden"),
        (&open, "{}", "invalid-notification"),
        (&open, "nonsense", "not JSON"),
    ] {
        let refused = run(&["publish", "--url", &server.url(), notification], "");
        assert_eq!(refused.status, Some(1), "{refused:?}");
        assert!(refused.stdout.is_empty(), "{refused:?}");
        assert!(refused.stderr.contains(word), "{refused:?}");
        assert_eq!(refused.stderr.lines().count(), 1, "{refused:?}");
    }
}

#[test]
fn no_server_is_status_1() {
    let (_socket, url) = nobody();
    for arguments in [
        ["publish", "--url", &url, C],
        ["publish", "--url", &url, "-"],
        ["subscribe", "--url", &url, "c"],
    ] {
        let ended = run(&arguments, "");
        assert_eq!(ended.status, Some(1), "{ended:?}");
        assert!(
            ended.stderr.starts_with("crieur: ws://127.0.0.1:"),
            "{ended:?}"
        );
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    }
}

#[test]
fn publish_reads_one_notification_a_line() {
    let server = Server::start();
    let mut client = subscriber(&server, r#"["c"]"#);
    let url = server.url();
    let nobody = r#"{"channel":"nobody"}"#;
    let input = format!("{C}\n\n{nobody}\n  {C}\n{C}");
    let published = run(&["publish", "--url", &url, "-"], &input);
    assert_eq!(counts(&published.stdout), [1, 0, 1, 1]);
    assert_eq!(published.status, Some(0), "{published:?}");
    client.expect_texts(&vec![delivery(C); 3]);
}

#[test]
fn publish_goes_on_after_a_bad_line() {
    let server = Server::start();
    let mut client = subscriber(&server, r#"["c"]"#);
    for bad in [r#"{"channel":[]}"#, "nonsense"] {
        let input = format!("{C}\n{bad}\n{C}\n");
        let published = run(&["publish", "--url", &server.url(), "-"], &input);
        assert_eq!(counts(&published.stdout), [1, 1]);
        assert_eq!(published.stderr.lines().count(), 1, "{published:?}");
        assert_eq!(published.status, Some(1), "{published:?}");
        client.expect_texts(&[delivery(C), delivery(C)]);
    }
}

#[test]
fn publish_stays_connected_while_its_input_is_quiet() {
    let server = Server::with(&["--ping-interval", "0.2", "--pong-timeout", "0.3"]);
    let mut command = crieur();
    let url = server.url();
    command.args(["publish", "--url", &url, "-"]);
    command.stdin(Stdio::piped());
    let mut program = Program::start(command);
    program.write(&format!("{C}\n"));
    program.stdout.wait_for("delivered");
    // A client that is silent from now on is dropped after the publisher would have been.
    let mut silent = Client::connect(&server);
    while matches!(silent.receive(), Received::Ping(_)) {}
    program.write(&format!("{C}\n"));
    program.end_input();
    let ended = program.wait();
    assert_eq!(ended.stdout.lines().count(), 2, "{ended:?}");
    assert_eq!(ended.status, Some(0), "{ended:?}");
}

#[test]
fn subscribe_prints_one_notification_a_line() {
    let server = Server::start();
    let page = r#"{"package":"p","page":"q"}"#;
    let mut command = crieur();
    command
        .args(["subscribe", "c", page])
        .env("CRIEUR_URL", server.url());
    let program = Program::start(command);
    program.stderr.wait_for("subscribed");
    assert_eq!(publish(&server, C), r#"{"delivered":1}"#);
    let printed = program.stdout.wait_for(r#""channel":"c""#);
    assert_eq!(printed, delivery(C));
    // A line is a line, whatever the publisher's white space.
    let spread = [r#"{"package":"p","#, r#""page":"q"}"#].join("\n");
    assert_eq!(publish(&server, &spread), r#"{"delivered":1}"#);
    let printed = program.stdout.wait_for(r#""package""#);
    let json: serde_json::Value = serde_json::from_str(&printed).expect("a whole line");
    assert_eq!(json["notification"]["page"], "q");
}

#[test]
fn subscribe_that_is_refused_is_status_1() {
    let server = Server::start();
    let ended = run(
        &["subscribe", "--url", &server.url(), r#"{"package":"p"}"#],
        "",
    );
    assert_eq!(ended.status, Some(1));
    assert!(ended.stderr.contains("invalid-subscription"), "{ended:?}");
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
}

#[test]
fn subscribe_comes_back_when_the_server_does() {
    let mut first = Server::start();
    let address = first.address().to_string();
    let mut command = crieur();
    command.args(["subscribe", "--url", &first.url(), "c"]);
    let program = Program::start(command);
    program.stderr.wait_for("subscribed");
    first.terminate();
    program.stderr.wait_for("the server closed");
    assert_eq!(first.wait().status, Some(0));
    let mut again = crieur();
    again.args(["serve", "--listen", &address]);
    let second = Program::start(again);
    second.stderr.wait_for("has 1 subscription");
}

/// A way to `server` on which the first connection loses all but the beginning of what it sends
/// behind its upgrade; gives its URL.
fn way_that_loses_once(server: &Server) -> String {
    const KEPT: usize = 3;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("ws://{}/", listener.local_addr().expect("it is bound"));
    let target = server.address();
    thread::spawn(move || {
        for (number, near) in listener.incoming().enumerate() {
            let (mut near, mut far) = (near?, TcpStream::connect(target)?);
            let (mut back_near, mut back_far) = (near.try_clone()?, far.try_clone()?);
            thread::spawn(move || {
                let result = io::copy(&mut back_far, &mut back_near);
                back_near.shutdown(Shutdown::Both).and(result)
            });
            thread::spawn(move || {
                if number == 0 {
                    let mut sent = Vec::new();
                    while !sent.ends_with(b"\r\n\r\n") {
                        let mut byte = [0];
                        near.read_exact(&mut byte)?;
                        sent.push(byte[0]);
                    }
                    far.write_all(&sent)?;
                    io::copy(&mut (&mut near).take(KEPT as u64), &mut far)?;
                    return io::copy(&mut near, &mut io::sink());
                }
                io::copy(&mut near, &mut far)
            });
        }
        io::Result::Ok(())
    });
    url
}

#[test]
fn subscribe_comes_back_when_the_network_swallowed_its_list() {
    let server = Server::with(&["--message-timeout", "0.2"]);
    let mut command = crieur();
    command.args(["subscribe", "--url", &way_that_loses_once(&server), "c"]);
    let program = Program::start(command);
    let closed = program.stderr.wait_for("the server closed");
    assert!(closed.contains("unfinished-message"), "{closed}");
    program.stderr.wait_for("subscribed");
    assert_eq!(publish(&server, C), r#"{"delivered":1}"#);
    program.stdout.wait_for(r#""channel":"c""#);
}

#[test]
fn a_token_file_is_shown_to_the_server() {
    use crate::helpers::secrets::{KEY, SecretFile, token};
    const TOKEN: &str = "correct-horse-battery-staple";
    let tokens = SecretFile::new(TOKEN);
    let keys = SecretFile::new(KEY);
    let server = Server::with(&[
        "--publish-token-file",
        tokens.path(),
        "--client-key-file",
        keys.path(),
    ]);
    let url = server.url();
    let refused = run(&["publish", "--url", &url, r#"{"channel":"c"}"#], "");
    assert_eq!(refused.status, Some(1));
    assert!(refused.stderr.contains("forbidden"), "{}", refused.stderr);
    let flags = ["publish", "--url", &url, "--token-file", tokens.path()];
    let taken = run(&[&flags[..], &[r#"{"channel":"c"}"#]].concat(), "");
    assert_eq!((taken.status, counts(&taken.stdout)), (Some(0), vec![0]));

    let missing = run(&["subscribe", "--url", &url, "c"], "");
    assert_eq!(missing.status, Some(1));
    assert!(missing.stderr.contains("3000"), "{}", missing.stderr);
    let client = SecretFile::new(&token(r#"["c"]"#, 60.0));
    let flags = ["subscribe", "--url", &url, "--token-file", client.path()];
    let forbidden = run(&[&flags[..], &["d"]].concat(), "");
    assert!(
        forbidden.stderr.contains("forbidden"),
        "{}",
        forbidden.stderr
    );
    client.set_mode(0o644);
    let exposed = run(&[&flags[..], &["c"]].concat(), "");
    assert!(exposed.stderr.contains("chmod 600"), "{}", exposed.stderr);
}
