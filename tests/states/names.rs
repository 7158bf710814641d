//! What the numbers in a state mean, by the names that the sources give them: to show a state to people, and to know
//! whether one has everything.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use crieur::handover::{take_bytes, take_varint};

/// A row for each constant of a kind, a member, or a value of one: its file, its name, and where it stands in a state:
/// `13.12.5` is member 5 of what is in member 12 of a record of kind 13, `13.13=16` the value 16 of a member. Behind `#`
/// a member holds numbers, behind `*` things with members of their own. Behind `!` is why a state may lack it.
const NAMES: &str = "
net/server/handover.rs PROCESS 2
net/server/handover.rs UPTIME 2.1
net/server/handover.rs MONOTONIC 2.2
net/server/handover.rs HOST 2.3
cli/handover.rs LEVEL 2.3.1
cli/handover.rs LINES 2.3.2
cli/handover.rs LINES_DROPPED 2.3.3 ! the log has room
cli/handover.rs PUBLISH_TOKENS 2.3.4
cli/handover.rs CLIENT_KEYS 2.3.5
cli/handover.rs DIRECTORY 2.3.6
cli/handover.rs REDIS_PASSWORD 2.3.7 ! its server has no Redis
cli/handover.rs REDIS_ADDRESSES 2.3.8 ! its server has no Redis
cli/handover.rs CONSOLE_KEY 2.3.9 ! nobody sat at its terminal
journal/write_ahead.rs STATE 2.3.6.1 ! no write has failed
journal/write_ahead.rs WRITE_ERRORS 2.3.6.2 ! no write has failed
journal/write_ahead.rs SEGMENTS 2.3.6.3
journal/segments/saved.rs BOOT 2.3.6.3.1
journal/segments/saved.rs GENERATIONS 2.3.6.3.2
journal/segments/saved.rs ORDINAL 2.3.6.3.3
journal/segments/saved.rs LENGTH 2.3.6.3.4
journal/segments/saved.rs CHAIN 2.3.6.3.5
journal/segments/saved.rs ENTRIES_BYTES 2.3.6.3.6
journal/segments/saved.rs END 2.3.6.3.7
journal/segments/saved.rs IS_MARKED 2.3.6.3.8 ! only an end sets the mark
journal/segments/saved.rs STORAGE 2.3.6.3.9
journal/directory.rs BOOT 2.3.6.3.9.1
journal/boot.rs MARK 2.3.6.3.9.1.1
journal/boot.rs FILE 2.3.6.3.9.1.2
net/server/handover.rs LISTENER 4
net/listener/saved.rs LANE 4.1
net/listener/saved.rs KIND 4.2
net/listener/saved.rs TCP 4.2=0
net/listener/saved.rs UNIX 4.2=1
net/listener/saved.rs ADDRESS 4.3
net/listener/saved.rs FILE 4.4
net/socket_file.rs DEVICE 4.4.1
net/socket_file.rs INODE 4.4.2
net/engine/saved.rs SHELL 6
net/engine/saved.rs NEXT_SERIAL 6.1
net/engine/saved.rs METRICS 6.2#
journal/saved.rs JOURNAL_RECORD 8
journal/saved.rs GENERATIONS 8.1
journal/saved.rs HISTORY 8.2
journal/history.rs START 8.2.1
journal/saved.rs UNKEPT 8.3 ! the history is on
journal/saved.rs STREAM_IDS 8.4 ! ids are the server's own
journal/ids.rs BEFORE 8.4.1 ! ids are the server's own
journal/ids.rs FLOOR 8.4.2 ! ids are the server's own
journal/ids.rs BARRIER 8.4.3 ! ids are the server's own
journal/ids.rs IS_CUT 8.4.4 ! ids are the server's own
journal/saved.rs ENTRY_RECORD 9
journal/entry.rs PUBLISHED 9.1
journal/entry.rs ENCODINGS 9.2
journal/entry.rs KIND 9.3
journal/entry.rs NOTIFICATION 9.4
journal/entry.rs KEY 9.5
journal/entry.rs DELIVERED 9.6
journal/entry.rs STREAM_ID 9.7 ! ids are the server's own
hub/saved.rs HUB 10
hub/saved.rs METRICS 10.1#
hub/saved.rs EXPIRY_DUE 10.2
hub/saved.rs GAP 10.3 ! its server has no Redis
hub/gap.rs MARK 10.3.1 ! its server has no Redis
hub/replays.rs GAP_POSITION 10.3.1.1 ! its server has no Redis
hub/replays.rs DOUBT 10.3.1.2 ! its server has no Redis
hub/gap.rs SLOT 10.3.2 ! its server has no Redis
hub/gap.rs TOLD 10.3.3 ! its server has no Redis
hub/saved.rs ADDRESS 11
hub/access/addresses.rs PREFIX 11.1
hub/access/addresses.rs FULL_AT 11.2
net/engine/saved.rs FRAME 12
net/engine/saved.rs BYTES 12.1
net/engine/saved.rs CONNECTION 13
net/connection/saved.rs INDEX 13.1
net/connection/saved.rs SERIAL 13.2
net/connection/saved.rs OCTETS 13.3
net/connection/saved.rs PORT 13.4
net/connection/saved.rs SCOPE 13.5 ! a proxy names no zone, and this host may have no link-local address
net/connection/saved.rs PEER 13.6
net/connection/saved.rs IP 13.6=0
net/connection/saved.rs UNIX 13.6=1
net/connection/saved.rs UNKNOWN 13.6=2
net/connection/saved.rs LANE 13.7
net/connection/saved.rs CLIENTS 13.7=0
net/connection/saved.rs PUBLISHERS 13.7=1
net/engine/saved.rs TRANSPORT 13.8
net/connection/saved.rs IO 13.9
net/connection/saved.rs GRANTS 13.10
net/connection/saved.rs DEADLINE 13.11
net/connection/saved.rs THROTTLE 13.12
net/throttle/saved.rs FRAMES_LEVEL 13.12.1
net/throttle/saved.rs FRAMES_AT 13.12.2
net/throttle/saved.rs BYTES_LEVEL 13.12.3
net/throttle/saved.rs BYTES_AT 13.12.4
net/throttle/saved.rs PAUSE_COUNTED 13.12.5
net/throttle/saved.rs PAUSE_UNTIL 13.12.6
http/exchange/saved.rs STATE 13.13
http/exchange/saved.rs HEAD_AWAITED 13.13=1
http/exchange/saved.rs BODY_AWAITED 13.13=2
http/exchange/saved.rs ANSWER_AWAITED 13.13=3 ! every answer is there at once
http/exchange/saved.rs LINGERING 13.13=4
http/exchange/saved.rs CLOSED 13.13=5 ! it is dropped before a state is written
http/exchange/saved.rs SINCE 13.14
http/exchange/saved.rs FLAGS 13.19
http/exchange/saved.rs EMPTY_LINES 13.20
http/exchange/saved.rs BODY 13.21
http/body/saved.rs STEP 13.21.1
http/body/saved.rs LENGTH 13.21.1=1
http/body/saved.rs CHUNK_SIZE 13.21.1=2
http/body/saved.rs SIZE_SPACE 13.21.1=3
http/body/saved.rs EXTENSION 13.21.1=4
http/body/saved.rs SIZE_LF 13.21.1=5
http/body/saved.rs DATA 13.21.1=6
http/body/saved.rs DATA_CR 13.21.1=7
http/body/saved.rs DATA_LF 13.21.1=8
http/body/saved.rs TRAILERS 13.21.1=9
http/body/saved.rs TRAILER_NAME 13.21.1=10
http/body/saved.rs TRAILER_VALUE 13.21.1=11
http/body/saved.rs TRAILER_LF 13.21.1=12
http/body/saved.rs LAST_LF 13.21.1=13
http/body/saved.rs WHOLE 13.21.1=14 ! it is answered at once
http/body/saved.rs SIZE 13.21.2
http/body/saved.rs DIGITS 13.21.3
http/body/saved.rs BODY 13.21.4
http/body/saved.rs BYTES_MAX 13.21.5
http/body/saved.rs ANNOTATIONS_LEFT 13.21.6
ws/session/saved.rs STATE 13.13
ws/session/saved.rs OPEN 13.13=16
ws/session/saved.rs CLOSING 13.13=17
ws/session/saved.rs LINGERING 13.13=18
ws/session/saved.rs CLOSED 13.13=19 ! it is dropped before a state is written
ws/session/saved.rs MESSAGE_BYTES_MAX 13.14
ws/session/saved.rs CLOSING_SINCE 13.14
ws/session/saved.rs ANSWER_END 13.15
ws/session/saved.rs SKIP_BYTES 13.15
wire/lingering.rs SINCE 13.14
wire/lingering.rs STEP 13.18
wire/lingering.rs FLUSH 13.18=1
wire/lingering.rs AWAIT_EOF 13.18=2
wire/lingering.rs FLUSH_AFTER_EOF 13.18=3
ws/heartbeat.rs HEARD 13.22
ws/heartbeat.rs PING 13.23
ws/heartbeat.rs NONE 13.23=0
ws/heartbeat.rs QUEUED 13.23=1
ws/heartbeat.rs SENT 13.23=2
ws/heartbeat.rs OUTLIVED 13.23=3
ws/heartbeat.rs PING_VALUE 13.24
ws/message.rs KIND 13.25
ws/message.rs NONE 13.25=0
ws/message.rs TEXT 13.25=1
ws/message.rs BINARY 13.25=2
ws/message.rs FRAGMENTS 13.26
ws/session/saved.rs PONG 13.27
wire/buffers.rs TAIL 13.28
wire/buffers.rs BEGUN 13.29
wire/buffers.rs BLOCKED_SINCE 13.30
wire/send_queue/saved.rs SEGMENTS 13.31
wire/send_queue/saved.rs FRONT_SENT 13.32
wire/send_queue/saved.rs SENT_BYTES_TOTAL 13.33
net/engine/saved.rs APPLICATION 13.40
hub/connections.rs PUBLISH 13.40.1
hub/connections.rs STAYS 13.40.2
hub/connections.rs IS_OWN 13.40.26
hub/clearances.rs KIND 13.40.3
hub/clearances.rs NONE 13.40.3=0
hub/clearances.rs AWAITED 13.40.3=1
hub/clearances.rs GRANTED 13.40.3=2
hub/clearances.rs REFUSED 13.40.3=3 ! its connection is closed in the same turn
hub/clearances.rs REASON 13.40.4 ! only of one that is refused
hub/clearances.rs ALLOWED 13.40.5
hub/clearances.rs UNTIL 13.40.6
hub/clearances.rs SHOWN 13.40.7
hub/clearances.rs USER 13.40.24
hub/saved.rs LIST 13.40.8
hub/holdings.rs TEXT_BYTES 13.40.9
hub/holdings.rs SUBSCRIPTIONS 13.40.10
hub/holdings.rs VALUES 13.40.11
hub/replays.rs POSITION 13.40.12
hub/replays.rs SENT 13.40.13
hub/replays.rs MISSED 13.40.14 ! what is replayed at once is more than a small state has
hub/replays.rs HELD 13.40.15
hub/saved.rs OWED 13.40.16 ! its server has no Redis
hub/owed/saved.rs OWED 13.40.16.1* ! its server has no Redis
hub/owed/saved.rs KIND 13.40.16.1.1 ! its server has no Redis
hub/owed/saved.rs NONCE 13.40.16.1.2 ! its server has no Redis
hub/owed/saved.rs TEXT 13.40.16.1.3 ! its server has no Redis
hub/owed/saved.rs CODE 13.40.16.1.4 ! its server has no Redis
hub/owed/saved.rs OUTCOME 13.40.16.1.5 ! its server has no Redis
hub/owed/saved.rs DELIVERED 13.40.16.1.6 ! its server has no Redis
hub/owed/saved.rs DROPPED 13.40.16.1.7 ! its server has no Redis
hub/owed/saved.rs ID 13.40.16.1.8 ! its server has no Redis
hub/owed/saved.rs IS_REPEATED 13.40.16.1.9 ! its server has no Redis
hub/owed/saved.rs REFUSAL 13.40.16.1.10 ! its server has no Redis
hub/owed/saved.rs WORD 13.40.16.1.11 ! its server has no Redis
hub/owed/saved.rs SINCE 13.40.16.1.12# ! its server has no Redis
hub/owed/saved.rs RECEIPT 13.40.16.1.1=1 ! its server has no Redis
hub/owed/saved.rs ERROR 13.40.16.1.1=2 ! its server has no Redis
hub/owed/saved.rs MESSAGE 13.40.16.1.1=3 ! its server has no Redis
hub/owed/saved.rs AHEAD 13.40.16.1.1=4 ! its server has no Redis
hub/owed/saved.rs DUE 13.40.16.1.1=5 ! its server has no Redis
hub/owed/saved.rs PUBLISHED 13.40.16.1.5=1 ! its server has no Redis
hub/owed/saved.rs REFUSED 13.40.16.1.5=2 ! its server has no Redis
hub/owed/saved.rs IS_LAST 13.40.16.2 ! its server has no Redis
hub/saved.rs IS_NUMBERED 13.40.17
hub/clearances.rs ALLOWS_HISTORY 13.40.18
hub/replays.rs AWAITS_DRAINED 13.40.19
hub/saved.rs ADDRESS_FULL_AT 13.40.20
hub/saved.rs WAITS_UNTIL 13.40.21 ! its server has no Redis
hub/replays.rs GAP 13.40.22 ! its server has no Redis
hub/saved.rs IS_PAUSED 13.40.23 ! its server has no Redis
hub/saved.rs COVERS_FROM 13.40.25
redis/saved.rs REDIS 14 ! its server has no Redis
redis/saved.rs STREAM 14.1 ! its server has no Redis
redis/saved.rs SERVER 14.2 ! its server has no Redis
redis/saved.rs AWAY_SINCE 14.3 ! its server has no Redis
redis/saved.rs HAS_POSITION 14.4 ! its server has no Redis
redis/saved.rs HAS_WANTED_POSITION 14.5 ! its server has no Redis
redis/saved.rs IS_READY 14.6 ! its server has no Redis
redis/saved.rs FIGURES 14.7# ! its server has no Redis
redis/saved.rs WRITER 14.8 ! its server has no Redis
redis/saved.rs READER 14.9 ! its server has no Redis
redis/saved.rs BARRIERS 14.10 ! its server has no Redis
redis/writer/saved.rs NEXT_NONCE 14.8.1 ! its server has no Redis
redis/writer/saved.rs WRITTEN 14.8.2 ! its server has no Redis
redis/writer/saved.rs REPEATS 14.8.3# ! its server has no Redis
redis/writer/saved.rs FIRSTS 14.8.4# ! its server has no Redis
redis/reader/saved.rs IS_LIVE 14.9.1 ! its server has no Redis
redis/reader/saved.rs LAST 14.9.2# ! its server has no Redis
redis/reader/saved.rs TRAIL 14.9.3# ! its server has no Redis
redis/reader/saved.rs COMMON 14.9.4 ! its server has no Redis
redis/reader/saved.rs ENTRY_BYTES 14.9.5 ! its server has no Redis
redis/reader/saved.rs CAREFUL 14.9.6 ! its server has no Redis
redis/reader/saved.rs IS_CAUGHT_UP 14.9.7 ! its server has no Redis
redis/reader/saved.rs PASSED 14.9.8# ! its server has no Redis
redis/barriers/saved.rs IDENTITY 14.10.1 ! its server has no Redis
redis/barriers/saved.rs KNOWN 14.10.2 ! its server has no Redis
redis/barriers/saved.rs NEED 14.10.3 ! its server has no Redis
redis/barriers/saved.rs NONE 14.10.3=0 ! its server has no Redis
redis/barriers/saved.rs ANY 14.10.3=1 ! its server has no Redis
redis/barriers/saved.rs AHEAD 14.10.3=2 ! its server has no Redis
redis/barriers/saved.rs IS_CUT 14.10.4 ! its server has no Redis
redis/barriers/saved.rs FIRST_NONCE 14.10.5 ! its server has no Redis
redis/barriers/saved.rs NONCES 14.10.6 ! its server has no Redis
redis/barriers/saved.rs AWAITED 14.10.7# ! its server has no Redis
redis/barriers/saved.rs SEEN 14.10.8# ! its server has no Redis
redis/barriers/saved.rs IS_SUSPECT 14.10.9 ! its server has no Redis
hub/owed/saved.rs POST_RECORD 15 ! its server has no Redis
hub/owed/saved.rs INDEX 15.1 ! its server has no Redis
hub/owed/saved.rs SERIAL 15.2 ! its server has no Redis
hub/owed/saved.rs FIRST_NONCE 15.3 ! its server has no Redis
hub/owed/saved.rs IS_ARRAY 15.4 ! its server has no Redis
hub/owed/saved.rs RECEIPTS 15.5* ! its server has no Redis
hub/owed/saved.rs OUTCOME 15.5.5 ! its server has no Redis
hub/owed/saved.rs DELIVERED 15.5.6 ! its server has no Redis
hub/owed/saved.rs DROPPED 15.5.7 ! its server has no Redis
hub/owed/saved.rs ID 15.5.8 ! its server has no Redis
hub/owed/saved.rs IS_REPEATED 15.5.9 ! its server has no Redis
redis/saved.rs APPEND 16 ! its server has no Redis
redis/writer/saved.rs NONCE 16.1 ! its server has no Redis
redis/writer/saved.rs COUNT 16.2 ! its server has no Redis
redis/writer/saved.rs UNTIL 16.3 ! its server has no Redis
redis/writer/saved.rs STAGE 16.4 ! its server has no Redis
redis/writer/saved.rs WAITING 16.4=1 ! its server has no Redis
redis/writer/saved.rs LOST 16.4=2 ! its server has no Redis
redis/writer/saved.rs ANSWERED 16.4=3 ! its server has no Redis
redis/writer/saved.rs COMMAND 16.5 ! its server has no Redis
redis/writer/saved.rs BYTES 16.6 ! its server has no Redis
redis/writer/saved.rs SETTLED 16.7# ! its server has no Redis
redis/saved.rs BATCH 17 ! its server has no Redis
redis/reader/saved.rs ENTRIES 17.1 ! its server has no Redis
redis/reader/saved.rs NEXT 17.2 ! its server has no Redis
redis/reader/saved.rs DOUBT 17.3 ! its server has no Redis
redis/reader/saved.rs LOST 17.3=1 ! its server has no Redis
redis/reader/saved.rs TRIMMED 17.3=2 ! its server has no Redis
redis/reader/saved.rs MENDS_AT 17.4 ! its server has no Redis
redis/reader/saved.rs IS_MENDED 17.5 ! its server has no Redis
redis/saved.rs OUTCOME 18 ! its server has no Redis
redis/writer/saved.rs NONCE 18.1 ! its server has no Redis
redis/writer/saved.rs COUNT 18.2 ! its server has no Redis
redis/writer/saved.rs REFUSAL 18.8 ! its server has no Redis
redis/writer/saved.rs OUT_OF_REACH 18.8=1 ! its server has no Redis
redis/writer/saved.rs FULL 18.8=2 ! its server has no Redis
redis/writer/saved.rs NOT_SENT 18.8=3 ! its server has no Redis
redis/writer/saved.rs UNANSWERED 18.8=4 ! its server has no Redis
redis/writer/saved.rs BY_REDIS 18.8=5 ! its server has no Redis
redis/writer/saved.rs WORD 18.9 ! its server has no Redis
redis/writer/saved.rs FIRST 18.10# ! its server has no Redis
handover/state.rs HEAD 1
handover/state.rs HEAD_MAGIC 1.1
handover/state.rs HEAD_VERSION 1.2
handover/state.rs HEAD_NEEDS 1.3
handover/state.rs HEAD_PROGRAM 1.4
handover/state.rs END 255
handover/state.rs END_RECORDS 255.1
";

/// What is no kind, member or value: files of the sources, with constants of the same types.
const OTHERS: [(&str, &str); 4] = [
    ("net/server/handover.rs", "ANSWER_BYTES_MAX"),
    ("handover/state.rs", "VERSION"),
    ("handover/state.rs", "NEEDS"),
    ("http/exchange/saved.rs", "IS_HEAD"),
];

/// One row.
#[derive(Clone, Copy)]
struct Name {
    file: &'static str,
    constant: &'static str,
    at: &'static str,
    holds_numbers: bool,
    is_list: bool,
    may_lack: bool,
}

fn names() -> impl Iterator<Item = Name> {
    let rows = NAMES.lines().filter(|row| !row.is_empty());
    rows.map(|row| {
        let (row, may_lack) = match row.split_once(" ! ") {
            Some((row, _)) => (row, true),
            None => (row, false),
        };
        let words: Vec<_> = row.split(' ').collect();
        let &[file, constant, at] = &words[..] else {
            panic!("a row is a file, a name and a place: {row}");
        };
        Name {
            file,
            constant,
            at: at.trim_end_matches(['#', '*']),
            holds_numbers: at.ends_with('#'),
            is_list: at.ends_with('*'),
            may_lack,
        }
    })
}

/// A member as it stands in a record.
pub(crate) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The members of a record, or of what is in one.
pub(crate) fn members(mut bytes: &[u8]) -> Vec<(u64, Value<'_>)> {
    let mut members = Vec::new();
    while !bytes.is_empty() {
        let tag = take_varint(&mut bytes).expect("a member");
        let number = take_varint(&mut bytes).expect("a member");
        let value = match tag & 1 {
            0 => Value::Number(number),
            _ => Value::Bytes(take_bytes(&mut bytes, number).expect("a member")),
        };
        members.push((tag >> 1, value));
    }
    members
}

/// The records of a state: the kind of each, and its members.
pub(crate) fn records(mut state: &[u8]) -> Vec<(u8, &[u8])> {
    let mut records = Vec::new();
    while let Some((&[kind, ref length @ ..], rest)) = state.split_first_chunk::<5>() {
        let length = u32::from_le_bytes(*length) as usize;
        let (members, rest) = rest.split_at(length);
        records.push((kind, members));
        state = rest;
    }
    assert!(state.is_empty(), "the state is whole");
    records
}

/// The same as a state.
pub(crate) fn state(records: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut state = Vec::new();
    for (kind, members) in records {
        state.push(*kind);
        state.extend((members.len() as u32).to_le_bytes());
        state.extend(members);
    }
    state
}

/// Whether there are names for what is within a member.
pub(crate) fn is_nested(at: &str) -> bool {
    let within = format!("{at}.");
    names().any(|name| name.at.starts_with(&within))
}

/// The members of each of the things that a member holds; of one that holds members, these.
fn parts<'a>(at: &str, mut bytes: &'a [u8]) -> Vec<&'a [u8]> {
    if !names().any(|name| name.at == at && name.is_list) {
        return vec![bytes];
    }
    let mut parts = Vec::new();
    while !bytes.is_empty() {
        let length = take_varint(&mut bytes).expect("a list");
        parts.push(take_bytes(&mut bytes, length).expect("a list"));
    }
    parts
}

/// The names of what is `at` a place, in words.
fn named(at: &str) -> Option<String> {
    let names: BTreeSet<_> = names()
        .filter(|name| name.at == at)
        .map(|name| name.constant.to_lowercase().replace('_', " "))
        .collect();
    let names: Vec<_> = names.into_iter().collect();
    (!names.is_empty()).then(|| names.join(" / "))
}

/// Bytes as text; of a byte that comes many times, how often.
pub(crate) fn shown(bytes: &[u8]) -> String {
    let mut text = String::new();
    for run in bytes.chunk_by(|one, other| one == other) {
        let byte = run[0].escape_ascii();
        // Writing to a string can't fail.
        let _ = match run.len() {
            count @ 9.. => write!(text, "{byte}{{{count}}}"),
            count => write!(text, "{}", byte.to_string().repeat(count)),
        };
    }
    text
}

/// A record for people: a line for each member that has a name.
pub(crate) fn described(kind: u8, members: &[u8]) -> String {
    let at = kind.to_string();
    let mut text = String::new();
    describe(&at, members, 1, &mut text);
    let name = named(&at).unwrap_or_default().to_uppercase();
    format!("{name}\n{text}")
}

fn describe(at: &str, bytes: &[u8], depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    for (member, value) in members(bytes) {
        let at = format!("{at}.{member}");
        // A later program may write more.
        let Some(name) = named(&at) else { continue };
        let _ = match value {
            Value::Number(number) => {
                let value = named(&format!("{at}={number}"));
                let value = value.map_or_else(String::new, |value| format!(" ({value})"));
                writeln!(text, "{indent}{name}: {number}{value}")
            }
            Value::Bytes(bytes) if is_nested(&at) => {
                for part in parts(&at, bytes) {
                    let _ = writeln!(text, "{indent}{name}:");
                    describe(&at, part, depth + 1, text);
                }
                Ok(())
            }
            Value::Bytes(bytes) if holds_numbers(&at) => {
                writeln!(text, "{indent}{name}: {}", numbers(bytes))
            }
            Value::Bytes(bytes) => writeln!(text, "{indent}{name}: \"{}\"", shown(bytes)),
        };
    }
}

fn holds_numbers(at: &str) -> bool {
    names().any(|name| name.at == at && name.holds_numbers)
}

/// Those that aren't 0, with their places.
fn numbers(mut bytes: &[u8]) -> String {
    let mut text = String::new();
    for place in 0.. {
        if bytes.is_empty() {
            break;
        }
        let number = take_varint(&mut bytes).expect("a number");
        if number != 0 {
            let _ = write!(text, " {place}:{number}");
        }
    }
    text.trim_start().to_owned()
}

/// All places of a state at which there is something: kinds, members, and values of members that have names.
fn places(state: &[u8]) -> BTreeSet<String> {
    let mut places = BTreeSet::new();
    for (kind, members) in records(state) {
        let at = kind.to_string();
        find_places(&at, members, &mut places);
        places.insert(at);
    }
    places
}

fn find_places(at: &str, bytes: &[u8], places: &mut BTreeSet<String>) {
    let mut absent: BTreeSet<_> = names()
        .filter_map(|name| name.at.strip_suffix("=0"))
        .filter(|member| member.rsplit_once('.').is_some_and(|(of, _)| of == at))
        .collect();
    for (member, value) in members(bytes) {
        let at = format!("{at}.{member}");
        absent.remove(at.as_str());
        match value {
            Value::Number(number) => drop(places.insert(format!("{at}={number}"))),
            Value::Bytes(bytes) if is_nested(&at) => {
                let parts = parts(&at, bytes);
                parts.iter().for_each(|part| find_places(&at, part, places));
            }
            Value::Bytes(_) => {}
        }
        places.insert(at);
    }
    // What isn't there is 0.
    places.extend(absent.iter().map(|at| format!("{at}=0")));
}

/// What a state lacks that it should have, and what it has without a name.
pub(crate) fn mistakes(state: &[u8]) -> Vec<String> {
    let places = places(state);
    let mut mistakes = Vec::new();
    for name in names() {
        let Name {
            file, constant, at, ..
        } = name;
        if !name.may_lack && !places.contains(at) {
            mistakes.push(format!("it lacks {at}, {constant} of {file}"));
        }
    }
    let members = places.iter().filter(|at| !at.contains('='));
    let unnamed = members.filter(|at| !names().any(|name| name.at == at.as_str()));
    mistakes.extend(unnamed.map(|at| format!("there is no name for {at}")));
    mistakes
}

/// What is said of the sources that isn't so: constants that have no row, or other numbers than theirs.
pub(crate) fn misnamed() -> Vec<String> {
    let mut found = BTreeSet::new();
    let mut mistakes = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let sources = folders[0].clone();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let file = path.strip_prefix(&sources).expect("a source");
            let file = file.to_str().expect("text").to_owned();
            let text = fs::read_to_string(&path).expect("text");
            let shipped = text.split("#[cfg(test)]").next().unwrap_or_default();
            // Whatever has something to do with states; but not tests.
            if !shipped.contains("Members") || file.contains("tests") {
                continue;
            }
            for (constant, number) in shipped.lines().filter_map(constant) {
                if OTHERS.contains(&(file.as_str(), constant)) {
                    continue;
                }
                found.insert((file.clone(), constant.to_owned()));
                let mut rows =
                    names().filter(|name| name.file == file && name.constant == constant);
                let end = |at: &str| at.rsplit(['.', '=']).next().map(str::to_owned);
                if !rows.any(|name| end(name.at).as_deref() == Some(number)) {
                    mistakes.push(format!("{constant} of {file} is {number}"));
                }
            }
        }
    }
    let gone = names().filter(|name| {
        let row = (name.file.to_owned(), name.constant.to_owned());
        !found.contains(&row)
    });
    mistakes.extend(gone.map(|name| format!("there is no {} in {}", name.constant, name.file)));
    mistakes
}

/// The name and the number of a constant that a line of a source defines.
fn constant(line: &str) -> Option<(&str, &str)> {
    let (_, rest) = line.split_once("const ")?;
    let (name, rest) = rest.split_once(": u")?;
    let (kind, number) = rest.strip_suffix(';')?.split_once(" = ")?;
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && ["8", "64"].contains(&kind)).then_some((name, number))
}
