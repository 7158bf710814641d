//! The key of the console: who is shown it, and from which requests it is taken.

use crate::helpers::http::{Http, JSON, figures};
use crate::helpers::secrets::SecretFile;
use crate::helpers::{Client, Server, delivery, subscriber};

const C: &str = r#"{"channel":"c"}"#;
const PRINTED: &str = "/#publish=";
const SITE: &str = "Sec-Fetch-Site: same-origin";

/// The key in the link that is printed at the terminal of `server`.
fn key_of(server: &Server) -> String {
    let line = server.wait_for_line(PRINTED);
    let (url, key) = line.trim().split_once(PRINTED).expect("just found");
    assert_eq!(url, format!("http://{}", server.address()));
    assert_eq!(key.len(), 43, "32 bytes in Base64: {key}");
    key.to_owned()
}

/// What a POST to publish is answered that has these fields.
fn status(server: &Server, fields: &[&str]) -> u16 {
    let mut http = Http::connect(server);
    let body = format!(r#"{{"notification":{C}}}"#);
    let lines: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    http.send(format!(
        "POST /publish HTTP/1.1\r\n{lines}{JSON}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    http.receive().0
}

struct Console {
    host: String,
    origin: String,
    key: String,
}

impl Console {
    fn of(server: &Server, key: &str) -> Self {
        Self {
            host: format!("Host: {}", server.address()),
            origin: format!("Origin: http://{}", server.address()),
            key: format!("Authorization: Bearer {key}"),
        }
    }

    fn status(&self, server: &Server) -> u16 {
        status(server, &[&self.host, &self.origin, SITE, &self.key])
    }
}

#[test]
fn the_link_at_the_terminal_lets_the_console_publish_and_nobody_else() {
    let server = Server::at_terminal(&[]);
    let mut client = subscriber(&server, r#"["c"]"#);
    let key = key_of(&server);
    let console = Console::of(&server, &key);
    let Console { host, origin, key } = &console;
    for fields in [
        &[&**host, origin, SITE, key][..],
        &[host, origin, key],
        &[host, origin, SITE, key, "Cookie: of=another-server"],
    ] {
        assert_eq!(status(&server, fields), 200, "{fields:?}");
        assert_eq!(client.text(), delivery(C));
    }
    let here = server.address();
    let port = here.port();
    for fields in [
        // No key, or another one.
        &[&**host, origin, SITE][..],
        &[host, origin, SITE, &format!("{key}A")],
        &[host, origin, SITE, key, key],
        // A page of another site, which knows the key.
        &[host, "Origin: https://evil.example", key],
        &[
            host,
            "Origin: https://evil.example",
            "Sec-Fetch-Site: cross-site",
            key,
        ],
        &[host, "Origin: null", key],
        &[host, &format!("Origin: http://localhost:{port}"), key],
        &[host, &format!("Origin: http://127.0.0.1:{}", port ^ 1), key],
        &[host, &format!("Origin: https://{here}"), key],
        &[host, origin, "Sec-Fetch-Site: cross-site", key],
        &[host, origin, "Sec-Fetch-Site: same-site", key],
        // A name that was made to point here.
        &[
            &format!("Host: evil.example:{port}"),
            &format!("Origin: http://evil.example:{port}"),
            SITE,
            key,
        ],
        // A proxy.
        &[host, origin, SITE, key, "X-Forwarded-For: 192.0.2.1"],
        &[host, origin, SITE, key, "Via: 1.1 proxy"],
    ] {
        assert_eq!(status(&server, fields), 403, "{fields:?}");
    }
    // What came of none of them is here, and the key isn't in anything that others are shown.
    client.send(r#"{"type":"ping"}"#);
    assert_eq!(client.text(), r#"{"type":"pong"}"#);
    let (_, key) = key.rsplit_once(' ').expect("a token");
    assert_eq!(server.log().matches(key).count(), 1);
    assert!(!figures(&server).contains(key));
}

#[test]
fn who_has_it_needs_no_token_and_no_lane_of_publishers() {
    let file = SecretFile::new("correct-horse-battery-staple");
    let tokens = ["--publish-token-file", file.path()];
    for flags in [&tokens[..], &["--publish-listen", "127.0.0.1:0"]] {
        let server = Server::at_terminal(flags);
        let console = Console::of(&server, &key_of(&server));
        assert_eq!(console.status(&server), 200, "{flags:?}");
        let Console { host, key, .. } = &console;
        let foreign = "Origin: https://evil.example";
        assert_eq!(status(&server, &[host, foreign, key]), 403, "{flags:?}");
        // The page asks for what it reads with GET, which has no Origin.
        let mut http = Http::connect(&server);
        for (site, expected) in [(SITE, 200), ("Sec-Fetch-Site: none", 403)] {
            let fields = [host, site, key].join("\r\n");
            http.send(format!("GET /position HTTP/1.1\r\n{fields}\r\n\r\n"));
            assert_eq!(http.receive().0, expected, "{flags:?} {site}");
        }
    }
}

#[test]
fn it_is_for_this_host_by_whatever_name() {
    let server = Server::at_terminal(&["--listen", "0.0.0.0:0"]);
    let key = key_of(&server);
    let key = format!("Authorization: Bearer {key}");
    let port = server.address().port();
    let fields = |name: &str| {
        [
            format!("Host: {name}:{port}"),
            format!("Origin: http://{name}:{port}"),
        ]
    };
    for name in ["localhost", "127.0.0.1", "[::1]"] {
        let [host, origin] = fields(name);
        assert_eq!(status(&server, &[&host, &origin, &key]), 200, "{name}");
    }
}

#[test]
fn nobody_is_shown_it_where_nobody_would_read_it() {
    for server in [
        Server::start(),
        Server::with(&["--log-format", "json"]),
        Server::at_terminal(&["--console", "off"]),
        Server::at_terminal(&["--no-local-publish"]),
    ] {
        // What is printed is printed before the first answer.
        Client::connect(&server);
        assert!(!server.log().contains("publish="), "{}", server.log());
    }
}

#[test]
fn each_start_has_another() {
    let [one, other] = [(); 2].map(|()| Server::at_terminal(&[]));
    let (key, other_key) = (key_of(&one), key_of(&other));
    assert_ne!(key, other_key);
    assert_eq!(Console::of(&one, &key).status(&one), 200);
    assert_eq!(Console::of(&other, &key).status(&other), 403);
}

#[test]
fn it_stays_when_files_are_read_again_and_when_another_program_takes_over() {
    let server = Server::at_terminal(&[]);
    let key = key_of(&server);
    let console = Console::of(&server, &key);
    server.next_line("reading the files again", || server.hang_up());
    assert_eq!(console.status(&server), 200);
    server.hand_over();
    assert_eq!(console.status(&server), 200);
    assert_eq!(status(&server, &[&console.host, &console.origin]), 403);
    assert_eq!(server.log().matches(PRINTED).count(), 1, "{}", server.log());
}
