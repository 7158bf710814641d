//! States that are damaged, member by member and byte by byte, in small ones that were cut out of the newest. Each is
//! refused, or loses a connection, or is gone on from; what a connection's record has costs that connection alone.

use std::fs;
use std::path::Path;

use crieur::handover::push_varint;
use crieur::time::Timestamp;
use fastrand::Rng;

use super::names::{Value, is_nested, members, records, state};
use super::successor::{Successor, check};
use super::{newest, number, read};

const JOURNAL: u8 = 8;
const ENTRY: u8 = 9;
const FRAME: u8 = 12;
const CONNECTION: u8 = 13;
const END: u8 = 255;
/// The number of records, in END.
const END_RECORDS: u64 = 1;

/// Room for a few entries of the history, which is as much as pieces have.
const PIECE_HISTORY_BYTES: usize = 2600;

/// How many random damages a test tries.
const RANDOM_MAX: u64 = 5000;

/// Members, which can be changed one by one.
#[derive(Clone)]
enum Node {
    Number(u64),
    Bytes(Vec<u8>),
    Nested(Vec<(u64, Self)>),
}

type Nodes = Vec<(u64, Node)>;

fn parsed(at: &str, bytes: &[u8]) -> Nodes {
    let members = members(bytes).into_iter();
    let nodes = members.map(|(member, value)| {
        let at = format!("{at}.{member}");
        let node = match value {
            Value::Number(number) => Node::Number(number),
            Value::Bytes(bytes) if is_nested(&at) => Node::Nested(parsed(&at, bytes)),
            Value::Bytes(bytes) => Node::Bytes(bytes.to_vec()),
        };
        (member, node)
    });
    nodes.collect()
}

fn written(nodes: &Nodes) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (member, node) in nodes {
        let within = match node {
            Node::Number(number) => {
                push_varint(&mut bytes, member << 1);
                push_varint(&mut bytes, *number);
                continue;
            }
            Node::Bytes(bytes) => bytes.clone(),
            Node::Nested(nodes) => written(nodes),
        };
        push_varint(&mut bytes, member << 1 | 1);
        push_varint(&mut bytes, within.len() as u64);
        bytes.extend(within);
    }
    bytes
}

/// Shows `visit` these members in all ways in which one of them is changed.
fn each_change(nodes: &Nodes, visit: &mut dyn FnMut(&Nodes)) {
    let mut changed = nodes.clone();
    for (place, (member, node)) in nodes.iter().enumerate() {
        let mut gone = changed.clone();
        gone.remove(place);
        visit(&gone);
        let mut put = |node: Node| {
            changed[place].1 = node;
            visit(&changed);
        };
        match node {
            Node::Number(number) => {
                let near = [number.wrapping_sub(1), number + 1, number * 2];
                let edges = [0, 1, 2, 255, 1 << 16, 1 << 20, 1 << 31];
                let far = [
                    1 << 32,
                    1 << 60,
                    u64::MAX >> 1,
                    1 << 63,
                    u64::MAX - 1,
                    u64::MAX,
                ];
                for number in near.into_iter().chain(edges).chain(far) {
                    put(Node::Number(number));
                }
                put(Node::Bytes(b"x".to_vec()));
            }
            Node::Bytes(bytes) => {
                let half = bytes.len() / 2;
                put(Node::Bytes(Vec::new()));
                put(Node::Bytes(bytes[..half].to_vec()));
                put(Node::Bytes(bytes[half..].to_vec()));
                put(Node::Bytes(bytes.repeat(2)));
                put(Node::Bytes(vec![0xff; bytes.len()]));
                put(Node::Bytes(vec![0; bytes.len() + 1]));
                put(Node::Number(7));
            }
            Node::Nested(within) => {
                put(Node::Nested(Vec::new()));
                each_change(within, &mut |within| put(Node::Nested(within.clone())));
                put(Node::Number(7));
            }
        }
        // A member that is there twice, and one that nobody knows.
        changed[place].1 = node.clone();
        changed.push((*member, Node::Number(3)));
        visit(&changed);
        changed.pop();
    }
}

type Records = Vec<(u8, Vec<u8>)>;

fn owned(state: &[u8]) -> Records {
    let records = records(state).into_iter();
    records
        .map(|(kind, members)| (kind, members.to_vec()))
        .collect()
}

/// The records as a whole state: the last says how many there are.
fn sealed(mut records: Records) -> Vec<u8> {
    records.retain(|(kind, _)| *kind != END);
    let count = records.len() as u64;
    records.push((END, written(&vec![(END_RECORDS, Node::Number(count))])));
    state(&records)
}

/// Small states of one connection each, and one of none. What they share is with the first alone.
pub(crate) fn pieces() -> Vec<Vec<u8>> {
    let whole = owned(&read(newest()));
    let is_connection = |(kind, _): &(u8, Vec<u8>)| *kind == CONNECTION;
    let connections = whole.iter().filter(|record| is_connection(record)).count();
    let piece = |kept: usize| {
        let mut number = 0;
        let mut records = whole.clone();
        records.retain(|record| {
            number += usize::from(is_connection(record));
            !is_connection(record) || number == kept
        });
        let now = Timestamp::from_micros(10_000_000);
        let small = Successor::with_history(PIECE_HISTORY_BYTES, &sealed(records), now);
        small.expect("it is a part").state()
    };
    (0..=connections).map(piece).collect()
}

/// Shows `visit` a state in all ways in which one member of a record of a kind is changed.
pub(crate) fn each_changed(state: &[u8], kind: u8, visit: &mut dyn FnMut(&[u8])) {
    let records = owned(state);
    let mut damaged = records.clone();
    for (place, (_, members)) in records
        .iter()
        .enumerate()
        .filter(|(_, record)| record.0 == kind)
    {
        each_change(&parsed(&kind.to_string(), members), &mut |nodes| {
            damaged[place].1 = written(nodes);
            visit(&sealed(damaged.clone()));
        });
        damaged[place].1.clone_from(members);
    }
}

/// A state that has these records behind its first.
pub(crate) fn with_records(state: &[u8], more: &[(u8, &[u8])]) -> Vec<u8> {
    let mut records = owned(state);
    let more = more.iter().map(|(kind, members)| (*kind, members.to_vec()));
    records.splice(1..1, more);
    sealed(records)
}

#[test]
fn pieces_are_whole_states() {
    let pieces = pieces();
    assert!(pieces.len() > 40);
    for (number, piece) in pieces.iter().enumerate() {
        assert!(piece.len() < 10_000, "{} bytes", piece.len());
        let carried = check(piece).expect("it is whole");
        let connections = usize::from(number > 0);
        assert_eq!((carried.connections, carried.lost), (connections, 0));
    }
}

#[test]
fn a_member_that_is_another_is_refused_or_gone_on_from() {
    let mut kinds = [0; 256];
    let mut lost = 0;
    for (number, piece) in pieces().iter().enumerate() {
        for kind in 0..END {
            let is_own = matches!(kind, CONNECTION | FRAME);
            // What all pieces have alike, once.
            if number > 0 && !is_own {
                continue;
            }
            each_changed(piece, kind, &mut |state| {
                kinds[usize::from(kind)] += 1;
                match check(state) {
                    Some(carried) => lost += carried.lost,
                    None => assert!(kind != CONNECTION, "a connection costs all others"),
                }
            });
        }
    }
    // Of a history without entries nothing but its own record says where it is.
    let mut records = owned(&pieces()[0]);
    records.retain(|(kind, _)| *kind != ENTRY);
    each_changed(&sealed(records), JOURNAL, &mut |state| {
        check(state);
    });
    assert!(kinds[usize::from(CONNECTION)] > 1000 && kinds[usize::from(ENTRY)] > 100);
    assert!(lost > 100);
}

#[test]
fn a_record_that_is_missing_or_twice_is_refused_or_gone_on_from() {
    for piece in pieces() {
        let records = owned(&piece);
        for place in 0..records.len() {
            let mut fewer = records.clone();
            fewer.remove(place);
            check(&sealed(fewer));
            let mut more = records.clone();
            more.push(records[place].clone());
            check(&sealed(more));
            let mut first = records.clone();
            first[..=place].rotate_right(1);
            check(&sealed(first));
        }
    }
}

#[test]
fn a_byte_that_is_another_is_refused_or_gone_on_from() {
    let mut seen = 0;
    for (number, piece) in pieces().iter().enumerate() {
        // What all pieces have alike, once; of what each has alone, some.
        let own = records(piece)
            .iter()
            .position(|(kind, _)| matches!(*kind, CONNECTION | FRAME));
        let shared = &owned(piece)[..own.unwrap_or(0)];
        let first = state(shared).len();
        for place in (first..piece.len()).filter(|place| number == 0 || place % 3 == number % 3) {
            let mut damaged = piece.clone();
            damaged[place] ^= 1 << (place / 3 % 8);
            seen += usize::from(check(&damaged).is_some());
            if place % 16 == 0 {
                check(&piece[..place]);
            }
        }
    }
    assert!(seen > 1000, "{seen} were gone on from");
}

#[test]
fn the_slots_of_connections_have_a_bound() {
    const INDEX: u64 = 1;
    let now = Timestamp::from_micros(10_000_000);
    for (index, is_taken) in [
        ((1 << 20) - 1, true),
        (1 << 20, false),
        (u64::from(u32::MAX), false),
    ] {
        let mut records = owned(&pieces()[1]);
        let connection = records.iter_mut().find(|(kind, _)| *kind == CONNECTION);
        let (_, members) = connection.expect("there is one");
        members.extend(written(&vec![(INDEX, Node::Number(index))]));
        let successor = Successor::take_over(&sealed(records), now).expect("it is a state");
        assert_eq!(successor.carried.connections == 1, is_taken, "{index}");
    }
}

/// Damage at random, of several bytes at once, of the whole state and of pieces.
#[test]
fn random_damage_is_refused_or_gone_on_from() {
    let pieces = pieces();
    let first = number("STATES_SEED", 0);
    for seed in first..first + RANDOM_MAX {
        let mut random = Rng::with_seed(seed);
        let mut damaged = pieces[random.usize(..pieces.len())].clone();
        for _ in 0..random.usize(1..6) {
            let place = random.usize(..damaged.len());
            damaged[place] = random.u8(..);
        }
        let damaged = std::panic::catch_unwind(|| check(&damaged));
        assert!(damaged.is_ok(), "STATES_SEED={seed}");
    }
}

/// Writes the pieces where the fuzzer finds them.
#[test]
#[ignore = "it writes files among the sources"]
fn the_corpus_is_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/state");
    fs::create_dir_all(&folder).expect("a folder");
    for (number, piece) in pieces().iter().enumerate() {
        let name = format!("piece-{}-{number:02}", newest());
        fs::write(folder.join(name), piece).expect("a new file");
    }
}

/// What the fuzzer has found, and what it starts from.
#[test]
fn the_corpus_is_refused_or_gone_on_from() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/state");
    let mut seen = 0;
    for file in fs::read_dir(folder).expect("a corpus") {
        let bytes = fs::read(file.expect("a file").path()).expect("readable");
        seen += usize::from(check(&bytes).is_some());
    }
    assert!(seen > 40, "{seen} were gone on from");
}
