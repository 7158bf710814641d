//! What a server makes of each state is what it has always made of it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use crieur::handover::Fields;
use crieur::handover::program::Predecessor;
use crieur::net::server::Inherited;

use super::names::{described, misnamed, mistakes, records, shown};
use super::successor::Successor;
use super::{FOLDER, Peer, newest, numbers, read};

// Kinds of records, and members.
const PROCESS: u8 = 2;
const UPTIME: u8 = 1;
const CONNECTION: u8 = 13;
const OCTETS: u8 = 3;
const PORT: u8 = 4;
const PEER: u8 = 6;

/// Has the texts written anew.
const WRITE: &str = "STATES_WRITE";

#[test]
fn every_constant_of_the_sources_has_a_name() {
    let mistakes = misnamed();
    assert!(mistakes.is_empty(), "{mistakes:#?}");
}

#[test]
fn the_newest_state_has_everything() {
    let mistakes = mistakes(&read(newest()));
    assert!(
        mistakes.is_empty(),
        "a new one is to be made (tests/states/generator.rs): {mistakes:#?}"
    );
}

#[test]
fn every_state_is_what_it_has_always_been() {
    let numbers = numbers();
    assert!(!numbers.is_empty());
    for number in numbers {
        let path = Path::new(FOLDER).join(format!("{number}.txt"));
        let text = text_of(number);
        if std::env::var_os(WRITE).is_some() {
            fs::write(&path, &text).expect("writable");
        }
        let expected = fs::read_to_string(&path).expect("a text");
        let differing = expected
            .lines()
            .zip(text.lines())
            .zip(1..)
            .find(|((one, other), _)| one != other);
        assert!(
            text == expected,
            "{}, line {differing:#?}: {WRITE}=1 writes what is made of the state now",
            path.display()
        );
    }
}

/// What a server makes of a state.
fn text_of(number: u32) -> String {
    let state = read(number);
    let mut peers = peers_of(number);
    let mut text = about_process(number, &state);
    let uptime = uptime(&state);
    let mut successor = Successor::take_over(&state, uptime).expect("it is kept readable");
    let carried = successor.carried;
    let _ = writeln!(
        text,
        "{} connections, {} lost\n",
        carried.connections, carried.lost
    );
    let mut names = Vec::new();
    for (kind, members) in records(&successor.state()) {
        // Those of the state itself are of the program that writes it.
        if !(2..=CONNECTION).contains(&kind) {
            continue;
        }
        if kind == CONNECTION {
            let address = address(&Fields::parse(members).expect("members"));
            let peer = peers.remove(&address);
            let peer = peer.unwrap_or_else(|| panic!("nobody is at {address}"));
            let _ = writeln!(text, "{}", peer.name);
            names.push(peer);
        }
        let _ = writeln!(text, "{}", described(kind, members));
    }
    assert!(peers.is_empty(), "they have not come over: {peers:#?}");
    live(&mut successor, &names, &mut text);
    text
}

/// What stands ahead of the engine's records.
fn about_process(number: u32, state: &[u8]) -> String {
    let path = Path::new(FOLDER).join(format!("{number}.state"));
    let inherited = Inherited::read(Predecessor {
        state: File::open(path).expect("a state"),
        descriptors: None,
    });
    let inherited = inherited.expect("it is kept readable");
    assert!(inherited.is_trial() && inherited.host().is_ok());
    let mut text = String::new();
    for (address, lane) in inherited.addresses() {
        let _ = writeln!(text, "listens on {address}, {lane:?}");
    }
    for (kind, members) in records(state) {
        if kind == PROCESS {
            let _ = write!(text, "\n{}\n", described(kind, members));
        }
    }
    text
}

fn uptime(state: &[u8]) -> crieur::time::Timestamp {
    let records = records(state);
    let process = records.iter().find(|(kind, _)| *kind == PROCESS);
    let (_, members) = process.expect("there is one");
    let fields = Fields::parse(members).expect("members");
    fields.time(UPTIME).expect("it is there")
}

/// What becomes of the peers: what they get at once, when each has sent what it had yet to send, and as time passes.
fn live(successor: &mut Successor, peers: &[Peer], text: &mut String) {
    let mut ends = vec!["open"; peers.len()];
    let mut look = |successor: &Successor, when: &str| {
        look(successor, peers, &mut ends, when, text);
    };
    successor.register();
    successor.pass(Duration::ZERO);
    look(successor, "at once");
    for (place, peer) in peers.iter().enumerate() {
        successor.send(place, &peer.rest);
        successor.pass(Duration::ZERO);
    }
    look(successor, "when each has sent more");
    for seconds in [1, 4, 30, 100] {
        successor.pass(Duration::from_secs(seconds));
        look(successor, &format!("{seconds} s later"));
    }
}

/// What each has got since this was asked last, and how its connection stands if that has changed.
fn look(
    successor: &Successor,
    peers: &[Peer],
    ends: &mut [&'static str],
    when: &str,
    text: &mut String,
) {
    let _ = writeln!(text, "{when}");
    for (((_, wire), peer), end) in successor.peers.iter().zip(peers).zip(ends) {
        let got = wire.take();
        if !got.is_empty() || wire.end() != *end {
            *end = wire.end();
            let (name, got) = (&peer.name, shown(&got));
            let _ = writeln!(text, "  {name}, {end}: \"{got}\"");
        }
    }
    let _ = writeln!(text);
}

/// Who is at the other ends, by address.
fn peers_of(number: u32) -> BTreeMap<String, Peer> {
    let path = Path::new(FOLDER).join(format!("{number}.peers"));
    let text = fs::read_to_string(path).expect("a text");
    let peers = text.lines().map(|line| {
        let columns: Vec<_> = line.split('\t').collect();
        let &[address, name, rest] = &columns[..] else {
            panic!("an address, a name and what is sent next: {line}");
        };
        let peer = Peer {
            name: name.to_owned(),
            address: address.to_owned(),
            rest: unescaped(rest),
        };
        (peer.address.clone(), peer)
    });
    peers.collect()
}

/// What was escaped as in a string of bytes.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next().expect("something is escaped") {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'x' => {
                let digits: String = rest.by_ref().take(2).map(char::from).collect();
                u8::from_str_radix(&digits, 16).expect("two digits")
            }
            other => other,
        });
    }
    bytes
}

/// The address that is written of a connection.
fn address(fields: &Fields<'_>) -> String {
    let port = fields.narrow(PORT).expect("a port");
    let octets = fields.bytes(OCTETS);
    let ip: IpAddr = match (fields.number(PEER), octets.len()) {
        (0, 4) => Ipv4Addr::from(<[u8; 4]>::try_from(octets).expect("four")).into(),
        (0, _) => Ipv6Addr::from(<[u8; 16]>::try_from(octets).expect("sixteen")).into(),
        (1, _) => return "unix".to_owned(),
        _ => return "unknown".to_owned(),
    };
    SocketAddr::new(ip, port).to_string()
}
