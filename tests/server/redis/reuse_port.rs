//! Several processes at one address.

use std::net::SocketAddr;

use crate::helpers::numbered::{position, wait_until};
use crate::helpers::redis::Redis;
use crate::helpers::{Client, Program, Server, crieur, delivery, message};

use super::{C, figure};

/// A process that listens on `address`, and for publishers where nobody else does.
struct Shared {
    program: Program,
    publishers: SocketAddr,
}

/// The address behind `what` in a line of the log.
fn address(program: &Program, what: &str) -> SocketAddr {
    let line = program.stderr.wait_for(what);
    let (_, address) = line.rsplit_once(' ').expect("it ends with the address");
    address.parse().expect("an address")
}

impl Shared {
    fn start(redis: &Redis, address_of_clients: &str) -> Self {
        let mut command = crieur();
        command.args(["--redis", &redis.url(), "--reuse-port"]);
        command.args([
            "--listen",
            address_of_clients,
            "--publish-listen",
            "127.0.0.1:0",
        ]);
        let program = Program::start(command);
        let publishers = address(&program, "listening for publishers on");
        Self {
            program,
            publishers,
        }
    }

    fn clients(&self) -> SocketAddr {
        address(&self.program, "listening on ")
    }

    fn connections(&self) -> usize {
        let mut http = crate::helpers::http::Http::over(Server::tcp_to(self.publishers));
        http.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let (_, _, text) = http.receive();
        let name = "crieur_connections{role=\"client\"} ";
        let value = text.lines().find_map(|line| line.strip_prefix(name));
        value
            .and_then(|value| value.parse().ok())
            .unwrap_or_else(|| panic!("no figure: {text}"))
    }

    fn publish(&self, notification: &str) -> String {
        let stream = Server::tcp_to(self.publishers);
        let mut publisher = Client::over(stream).upgrade("/", &[]);
        publisher.send(&message(notification));
        publisher.expect_close(1000)
    }
}

#[test]
fn two_processes_share_a_port_and_what_is_published() {
    let Some(redis) = Redis::start() else { return };
    let first = Shared::start(&redis, "127.0.0.1:0");
    let at = first.clients();
    let mut second = Shared::start(&redis, &at.to_string());
    assert_eq!(second.clients(), at);
    let mut clients: Vec<_> = (0..100)
        .map(|_| {
            let mut client = Client::over(Server::tcp_to(at)).upgrade("/", &[]);
            client.subscribe(r#"["c"]"#);
            client
        })
        .collect();
    let counts = [&first, &second].map(Shared::connections);
    assert_eq!(counts.iter().sum::<usize>(), 100);
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    for (process, count) in [&first, &second].into_iter().zip(counts) {
        assert_eq!(process.publish(C), format!(r#"{{"delivered":{count}}}"#));
        for client in &mut clients {
            assert_eq!(client.text(), delivery(C));
        }
    }
    // One goes, the other serves all who come.
    second.program.terminate();
    second.program.stderr.wait_for("stopping");
    let mut left = 0;
    for mut client in clients {
        client.send(r#"{"type":"ping"}"#);
        match client.receive() {
            crate::helpers::Received::Text(_) => left += 1,
            crate::helpers::Received::Close(1001, _) => client.answer_close(1001),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(left, counts[0]);
    assert_eq!(second.program.wait().status, Some(0));
    for _ in 0..20 {
        Client::over(Server::tcp_to(at)).upgrade("/", &[]).leave();
    }
}

#[test]
fn one_that_does_not_share_keeps_its_port() {
    let Some(redis) = Redis::start() else { return };
    let alone = redis.node(&[]);
    let address = alone.address().to_string();
    let url = redis.url();
    for flags in [&[][..], &["--reuse-port"]] {
        let arguments = [&["--redis", &url, "--listen", &address][..], flags].concat();
        let ended = crate::helpers::run(&arguments, "");
        assert_eq!(ended.status, Some(1), "{ended:?}");
        assert!(ended.stderr.contains("the port is in use"), "{ended:?}");
    }
    wait_until("it is there", || !position(&alone).is_empty());
    assert_eq!(figure(&alone, "crieur_redis_up") as u64, 1);
}
