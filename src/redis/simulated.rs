//! A Redis in memory for tests: it takes the commands that are sent to it as bytes, and answers as Redis does, its oddities
//! included. It can lose its links, be silent, be full, and come back as another one.
//!
//! Main type: [`SimulatedRedis`], of which clones are the same one. The scripts are Rust here, known by the hash of their
//! text.

use std::cell::{RefCell, RefMut};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::rc::{Rc, Weak};
use std::time::Duration;

use fastrand::Rng;

use crate::journal::id::tag_of;

use super::entry::{Place, WholeId};
use super::reply::Inbox;
use super::scripts::{self, APPEND, BARRIER};
use crate::time::Timestamp;

/// What is there while nodes come and go; clones are the same.
#[derive(Clone)]
pub struct SimulatedRedis(Rc<RefCell<Server>>);

/// One connection.
#[derive(Clone)]
pub struct SimulatedLink {
    server: SimulatedRedis,
    wire: Rc<RefCell<Wire>>,
}

/// An entry, as it was taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Taken {
    /// Its id.
    pub id: WholeId,
    /// Its fields.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// The one ahead of it in its stream, as a place in the log; whether or not that was trimmed.
    pub ahead: Option<usize>,
}

struct Server {
    run: u64,
    lineage: u64,
    lineage2: Option<u64>,
    is_master: bool,
    is_stopped: bool,
    is_full: bool,
    denies_transactions: bool,
    /// Added to the time, in milliseconds.
    clock: i64,
    now: Timestamp,
    key: Vec<u8>,
    /// What there is, as places in the log.
    stream: Vec<usize>,
    /// Where in the log the newest is that this branch has had.
    tip: Option<usize>,
    /// The id of the newest entry that there ever was.
    top: Place,
    texts: BTreeMap<Vec<u8>, (Vec<u8>, Option<Timestamp>)>,
    scripts: HashSet<String>,
    wires: Vec<Weak<RefCell<Wire>>>,
    /// Connections that were closed while it was stopped: what had come through them is executed all the same.
    closed: Vec<Rc<RefCell<Wire>>>,
    /// Connections of processes that have ended: what had come through them is executed now or later.
    left: Vec<Rc<RefCell<Wire>>>,
    log: Vec<Taken>,
}

#[derive(Default)]
struct Wire {
    to: VecDeque<u8>,
    from: VecDeque<u8>,
    requests: Option<Inbox>,
    transaction: Option<Transaction>,
    blocked: Option<Blocked>,
    is_ended: bool,
}

/// Commands behind MULTI.
#[derive(Default)]
struct Transaction {
    commands: Vec<Vec<Vec<u8>>>,
    is_spoilt: bool,
}

/// An XREAD that waits.
struct Blocked {
    last: Place,
    count: usize,
    until: Timestamp,
}

/// The milliseconds since the Unix epoch at the start of the clock.
pub const EPOCH_MILLIS: u64 = 1_795_702_284_393;

/// How many entries the stream may have beyond its bound: it is trimmed by nodes of the tree that they lie in.
const TRIM_SLACK: usize = 100;

impl SimulatedRedis {
    /// A master that was just started, whose stream has this key.
    #[must_use]
    pub fn new(stream: &str) -> Self {
        Self(Rc::new(RefCell::new(Server {
            run: 1,
            lineage: 1,
            lineage2: None,
            is_master: true,
            is_stopped: false,
            is_full: false,
            denies_transactions: false,
            clock: 0,
            now: Timestamp::ZERO,
            key: stream.as_bytes().to_vec(),
            stream: Vec::new(),
            tip: None,
            top: Place::START,
            texts: BTreeMap::new(),
            scripts: HashSet::new(),
            wires: Vec::new(),
            closed: Vec::new(),
            left: Vec::new(),
            log: Vec::new(),
        })))
    }

    fn server(&self) -> RefMut<'_, Server> {
        self.0.borrow_mut()
    }

    /// A new connection.
    #[must_use]
    pub fn connect(&self) -> SimulatedLink {
        let wire = Rc::new(RefCell::new(Wire::default()));
        self.server().wires.push(Rc::downgrade(&wire));
        let server = self.clone();
        SimulatedLink { server, wire }
    }

    /// Executes what has arrived, in any order of the connections, and answers reads whose time is over.
    pub fn run(&self, now: Timestamp, rng: &mut Rng) {
        let mut server = self.server();
        server.now = server.now.max(now);
        if server.is_stopped {
            return;
        }
        server.wires.retain(|wire| wire.strong_count() > 0);
        let mut wires: Vec<_> = server.wires.iter().filter_map(Weak::upgrade).collect();
        rng.shuffle(&mut wires);
        for wire in &wires {
            server.serve(wire);
        }
        for wire in &wires {
            server.unblock(&mut wire.borrow_mut(), true);
        }
        server.closed.clear();
        for wire in std::mem::take(&mut server.left) {
            if rng.bool() {
                server.serve(&wire);
            } else {
                server.left.push(wire);
            }
        }
    }

    /// An entry that somebody else appends, with these fields.
    pub fn add(&self, fields: &[(&[u8], &[u8])]) -> WholeId {
        let mut server = self.server();
        let owned = |(name, value): &(&[u8], &[u8])| (name.to_vec(), value.to_vec());
        server.add(usize::MAX, fields.iter().map(owned).collect());
        server.wake();
        server.log.last().expect("it was added").id
    }

    /// Every entry that was ever taken, in the order in which they were.
    #[must_use]
    pub fn log(&self) -> Vec<Taken> {
        self.log_behind(0)
    }

    /// The same without the first `count`.
    #[must_use]
    pub fn log_behind(&self, count: usize) -> Vec<Taken> {
        self.server().log[count..].to_vec()
    }

    /// Where in the log the newest entry is that its branch has had.
    #[must_use]
    pub fn tip(&self) -> Option<usize> {
        self.server().tip
    }

    /// Whether the stream has the entry at this place of the log now.
    #[must_use]
    pub fn has(&self, place: usize) -> bool {
        self.server().stream.contains(&place)
    }

    /// What the stream has now.
    #[must_use]
    pub fn entries(&self) -> Vec<Taken> {
        self.server().entries(Place::START).cloned().collect()
    }

    /// Ends all connections, as CLIENT KILL does.
    pub fn kill_clients(&self) {
        let mut server = self.server();
        server.left.clear();
        for wire in server.wires.drain(..).filter_map(|wire| wire.upgrade()) {
            let mut wire = wire.borrow_mut();
            wire.is_ended = true;
            wire.blocked = None;
        }
    }

    /// Executes nothing for some time, as if it were stopped by a signal.
    pub fn stop(&self, is_stopped: bool) {
        self.server().is_stopped = is_stopped;
    }

    /// Refuses what takes memory.
    pub fn fill(&self, is_full: bool) {
        self.server().is_full = is_full;
    }

    /// Its user may not begin transactions, or may.
    pub fn deny_transactions(&self, is_denied: bool) {
        self.server().denies_transactions = is_denied;
    }

    /// Is killed and started again, with its data but for the newest `lacking` entries, which its disk hasn't got.
    pub fn restart(&self, lacking: usize) {
        self.kill_clients();
        let mut server = self.server();
        server.run += 1;
        server.lineage += 1;
        server.lineage2 = None;
        server.scripts.clear();
        server.lose(lacking);
    }

    /// Its place is taken by a replica that lacks the newest `lacking` entries, and whose clock is off by so many
    /// milliseconds.
    pub fn fail_over(&self, lacking: usize, clock: i64) {
        self.restart(lacking);
        let mut server = self.server();
        server.lineage2 = Some(server.lineage - 1);
        server.clock = clock;
    }

    /// Its clock is off by so many milliseconds from now on.
    pub fn set_clock(&self, clock: i64) {
        self.server().clock = clock;
    }

    /// Forgets all that it has.
    pub fn flush(&self) {
        let mut server = self.server();
        server.stream.clear();
        server.tip = None;
        server.top = Place::START;
        server.texts.clear();
    }

    /// Drops all but the newest entries.
    pub fn trim(&self, length: usize) {
        let mut server = self.server();
        let excess = server.stream.len().saturating_sub(length);
        server.stream.drain(..excess);
    }

    /// Becomes a replica, or a master again.
    pub fn demote(&self, is_replica: bool) {
        let mut server = self.server();
        if server.is_master != is_replica {
            return;
        }
        server.is_master = !is_replica;
        if is_replica {
            for wire in server.wires.clone().iter().filter_map(Weak::upgrade) {
                let mut wire = wire.borrow_mut();
                if wire.blocked.take().is_some() {
                    wire.say("-UNBLOCKED force unblock from blocking operation\r\n");
                    wire.is_ended = true;
                }
            }
        } else {
            server.lineage2 = Some(server.lineage);
            server.lineage += 1;
        }
    }

    /// Its first replica attaches, by which its history of writes gets another name.
    pub fn attach_replica(&self) {
        let mut server = self.server();
        server.lineage += 1;
        server.lineage2 = None;
    }

    /// Forgets its scripts.
    pub fn flush_scripts(&self) {
        self.server().scripts.clear();
    }
}

impl SimulatedLink {
    /// Gives it bytes.
    pub fn write(&self, bytes: &[u8]) {
        self.wire.borrow_mut().to.extend(bytes);
    }

    /// Takes up to `len` bytes of what it says.
    #[must_use]
    pub fn read(&self, len: usize) -> Vec<u8> {
        let mut wire = self.wire.borrow_mut();
        let len = len.min(wire.from.len());
        wire.from.drain(..len).collect()
    }

    /// Whether it has ended, and all that it had said was read.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        let wire = self.wire.borrow();
        wire.is_ended && wire.from.is_empty()
    }

    /// Is closed by the end of the process. What was written to it may be executed for as long as it isn't reset, in any order
    /// with what comes through others.
    pub fn leave(self) {
        let mut server = self.server.server();
        let is_other = |wire: &Weak<_>| !std::ptr::eq(wire.as_ptr(), Rc::as_ptr(&self.wire));
        server.wires.retain(is_other);
        server.left.push(self.wire.clone());
    }

    /// Is closed from this side. What was written to it may be executed all the same, unless it is reset.
    pub fn close(self, is_reset: bool) {
        if is_reset {
            self.wire.borrow_mut().to.clear();
        }
        let mut server = self.server.server();
        if server.is_stopped {
            server.closed.push(self.wire.clone());
        } else {
            server.serve(&self.wire);
            self.wire.borrow_mut().is_ended = true;
        }
    }
}

impl Wire {
    fn say(&mut self, text: &str) {
        self.from.extend(text.bytes());
    }
}

fn bulk(bytes: &[u8]) -> Vec<u8> {
    let mut text = format!("${}\r\n", bytes.len()).into_bytes();
    text.extend_from_slice(bytes);
    text.extend_from_slice(b"\r\n");
    text
}

fn list(elements: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let elements: Vec<_> = elements.into_iter().collect();
    let mut text = format!("*{}\r\n", elements.len()).into_bytes();
    text.extend(elements.concat());
    text
}

impl Taken {
    fn place(&self) -> Place {
        self.id.into()
    }

    fn reply(&self) -> Vec<u8> {
        let fields = self.fields.iter();
        let fields = fields.flat_map(|(name, value)| [bulk(name), bulk(value)]);
        list([bulk(self.place().to_string().as_bytes()), list(fields)])
    }
}

fn number(text: &[u8]) -> u64 {
    let text = std::str::from_utf8(text).expect("a number");
    text.parse().expect("a number")
}

fn place(text: &[u8]) -> Place {
    match text {
        b"-" => Place::START,
        b"+" => Place {
            millis: u64::MAX,
            sequence: u64::MAX,
        },
        text => Place::read(text).expect("an id"),
    }
}

impl Server {
    /// Executes the commands that have come whole through one connection.
    fn serve(&mut self, wire: &Rc<RefCell<Wire>>) {
        loop {
            let command = {
                let mut wire = wire.borrow_mut();
                if wire.blocked.is_some() || wire.is_ended {
                    return;
                }
                let bytes: Vec<u8> = wire.to.drain(..).collect();
                let requests = wire.requests.get_or_insert_with(|| Inbox::new(1 << 30));
                requests.push(&bytes);
                let Some(whole) = requests.next().expect("commands are well-formed") else {
                    requests.forget_read();
                    return;
                };
                let command = whole.reply(requests.bytes()).list().expect("a list");
                let command = command.iter();
                let text = |reply: super::reply::Reply<'_>| reply.text().expect("a text").to_vec();
                command.map(text).collect::<Vec<_>>()
            };
            let arguments: Vec<_> = command.iter().map(Vec::as_slice).collect();
            if let Some(reply) = self.take(&arguments, wire) {
                wire.borrow_mut().from.extend(reply);
            }
            self.wake();
        }
    }

    /// Reads that wait get what is there now.
    fn wake(&mut self) {
        let wires: Vec<_> = self.wires.iter().filter_map(Weak::upgrade).collect();
        for wire in wires {
            if let Ok(mut wire) = wire.try_borrow_mut() {
                self.unblock(&mut wire, false);
            }
        }
    }

    fn unblock(&self, wire: &mut Wire, times_out: bool) {
        let Some(Blocked { last, count, until }) = wire.blocked else {
            return;
        };
        let reply = self.read_behind(last, count);
        if let Some(reply) = reply {
            wire.blocked = None;
            wire.from.extend(reply);
        } else if times_out && until <= self.now {
            wire.blocked = None;
            wire.say("*-1\r\n");
        }
    }

    /// What the stream has from a place on.
    fn entries(&self, from: Place) -> impl DoubleEndedIterator<Item = &Taken> {
        let is_ahead = |at: &usize| self.log[*at].place() < from;
        let first = self.stream.partition_point(is_ahead);
        self.stream[first..].iter().map(|at| &self.log[*at])
    }

    fn read_behind(&self, last: Place, count: usize) -> Option<Vec<u8>> {
        let entries = self.entries(last).filter(|entry| entry.place() > last);
        let entries: Vec<_> = entries.take(count).map(Taken::reply).collect();
        let stream = || list([bulk(&self.key), list(entries.iter().cloned())]);
        (!entries.is_empty()).then(|| list([stream()]))
    }

    /// Executes a command, or keeps it for the end of its transaction.
    fn take(&mut self, command: &[&[u8]], wire: &Rc<RefCell<Wire>>) -> Option<Vec<u8>> {
        if self.denies_transactions && matches!(command[0], b"MULTI" | b"EXEC") {
            return Some(b"-NOPERM this user has no permissions to run it\r\n".to_vec());
        }
        if *command == [b"MULTI"] {
            wire.borrow_mut().transaction = Some(Transaction::default());
            return Some(b"+OK\r\n".to_vec());
        }
        let Some(mut transaction) = wire.borrow_mut().transaction.take() else {
            return self.execute(command, wire);
        };
        if *command == [b"EXEC"] {
            if transaction.is_spoilt {
                let text = "-EXECABORT Transaction discarded because of previous errors.\r\n";
                return Some(text.as_bytes().to_vec());
            }
            let replies = transaction.commands.iter().map(|command| {
                let arguments: Vec<_> = command.iter().map(Vec::as_slice).collect();
                self.execute(&arguments, wire).expect("it doesn't wait")
            });
            return Some(list(replies));
        }
        // Scripts are refused at their first write.
        let refusal = self.refusal().filter(|_| command[0] == b"XADD");
        let reply = refusal.unwrap_or_else(|| b"+QUEUED\r\n".to_vec());
        transaction.is_spoilt |= reply.starts_with(b"-");
        let owned = command.iter().map(|argument| argument.to_vec());
        transaction.commands.push(owned.collect());
        wire.borrow_mut().transaction = Some(transaction);
        Some(reply)
    }

    /// The reply; none yet if it waits.
    fn execute(&mut self, command: &[&[u8]], wire: &Rc<RefCell<Wire>>) -> Option<Vec<u8>> {
        let text = |text: &str| Some(text.as_bytes().to_vec());
        match command {
            [b"AUTH", ..] | [b"SELECT", _] | [b"CLIENT", b"SETNAME", _] => text("+OK\r\n"),
            [b"PING"] => text("+PONG\r\n"),
            [b"ROLE"] => Some(list([bulk(if self.is_master {
                b"master"
            } else {
                b"slave"
            })])),
            [b"INFO", b"server"] => Some(bulk(format!("run_id:{}\r\n", self.run).as_bytes())),
            [b"INFO", b"replication"] => {
                let lineage2 = self.lineage2.unwrap_or(0);
                let lines = format!(
                    "master_replid:{}\r\nmaster_replid2:{lineage2}\r\n",
                    self.lineage
                );
                Some(bulk(lines.as_bytes()))
            }
            [b"GET", key] => Some(
                self.get(key)
                    .map_or_else(|| b"$-1\r\n".to_vec(), |v| bulk(&v)),
            ),
            [b"SCRIPT", b"LOAD", script] => {
                let sha = scripts::sha(std::str::from_utf8(script).expect("a script"));
                self.scripts.insert(sha.clone());
                Some(bulk(sha.as_bytes()))
            }
            [b"XADD", ..] if self.refusal().is_some() => self.refusal(),
            [b"XADD", key, b"MAXLEN", b"~", maxlen, b"*", fields @ ..] => {
                assert_eq!(*key, self.key);
                let fields = fields
                    .chunks(2)
                    .map(|pair| (pair[0].to_vec(), pair[1].to_vec()));
                let place = self.add(number(maxlen) as usize, fields.collect());
                Some(bulk(place.to_string().as_bytes()))
            }
            [b"EVALSHA", sha, keys, rest @ ..] => {
                let sha = std::str::from_utf8(sha).expect("a hash");
                let (keys, arguments) = rest.split_at(number(keys) as usize);
                if !self.scripts.contains(sha) {
                    return text("-NOSCRIPT No matching script.\r\n");
                }
                Some(if sha == scripts::sha(APPEND) {
                    self.append(keys, arguments)
                } else {
                    assert_eq!(sha, scripts::sha(BARRIER));
                    self.write_barrier(keys, arguments)
                })
            }
            [b"XRANGE", _, from, to, rest @ ..] => {
                let (entries, to) = (self.entries(place(from)), place(to));
                Some(ranged(
                    entries.take_while(|entry| entry.place() <= to),
                    rest,
                ))
            }
            [b"XREVRANGE", _, to, from, rest @ ..] => {
                let (entries, to) = (self.entries(place(from)), place(to));
                let entries = entries.rev().filter(|entry| entry.place() <= to);
                Some(ranged(entries, rest))
            }
            [
                b"XREAD",
                b"COUNT",
                count,
                b"BLOCK",
                block,
                b"STREAMS",
                _,
                last,
            ] => {
                let (last, count) = (place(last), number(count) as usize);
                let reply = self.read_behind(last, count);
                if reply.is_none() {
                    let until = self.now + Duration::from_millis(number(block));
                    wire.borrow_mut().blocked = Some(Blocked { last, count, until });
                }
                reply
            }
            _ => panic!("what is {command:?}?"),
        }
    }

    /// What it says to whoever wants to write; a script gets that at its first write.
    fn refusal(&self) -> Option<Vec<u8>> {
        if !self.is_master {
            return Some(b"-READONLY You can't write against a read only replica.\r\n".to_vec());
        }
        let refusal = b"-OOM command not allowed when used memory > 'maxmemory'.\r\n";
        self.is_full.then(|| refusal.to_vec())
    }

    fn get(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        let now = self.now;
        self.texts
            .retain(|_, (_, until)| until.is_none_or(|until| until > now));
        self.texts.get(key).map(|(value, _)| value.clone())
    }

    fn append(&mut self, keys: &[&[u8]], arguments: &[&[u8]]) -> Vec<u8> {
        let maxlen = number(arguments[0]) as usize;
        let ttl = Duration::from_millis(number(arguments[1]));
        let mut told = Vec::new();
        for (key, entry) in keys[1..].iter().zip(arguments[2..].chunks(4)) {
            let is_keyed = *key != keys[0];
            if let Some(first) = self.get(key).filter(|_| is_keyed) {
                told.push(bulk(&first));
                continue;
            }
            if let Some(refusal) = self.refusal() {
                return refusal;
            }
            let mut fields = vec![
                (b"n".to_vec(), entry[0].to_vec()),
                (b"t".to_vec(), entry[1].to_vec()),
            ];
            if is_keyed {
                fields.push((b"k".to_vec(), entry[2].to_vec()));
            }
            let place = self.add(maxlen, fields).to_string();
            if is_keyed {
                let tag = std::str::from_utf8(entry[3]).expect("digits");
                let value = format!("{place}-{tag}").into_bytes();
                self.texts
                    .insert(key.to_vec(), (value, Some(self.now + ttl)));
            }
            told.push(bulk(place.as_bytes()));
        }
        list(told)
    }

    fn write_barrier(&mut self, keys: &[&[u8]], arguments: &[&[u8]]) -> Vec<u8> {
        let known = self.get(keys[1]).unwrap_or_default();
        if known != arguments[2] {
            return bulk(&known);
        }
        if let Some(refusal) = self.refusal() {
            return refusal;
        }
        let fields = [(b"b", arguments[1]), (b"t", arguments[3])];
        let fields = fields.map(|(name, value)| (name.to_vec(), value.to_vec()));
        let place = self.add(number(arguments[0]) as usize, fields.to_vec());
        let value = [arguments[1], b" ", place.to_string().as_bytes()].concat();
        self.texts.insert(keys[1].to_vec(), (value.clone(), None));
        bulk(&value)
    }

    fn add(&mut self, maxlen: usize, fields: Vec<(Vec<u8>, Vec<u8>)>) -> Place {
        let millis = (EPOCH_MILLIS + self.now.as_micros() / 1000).saturating_add_signed(self.clock);
        let mut place = Place {
            millis,
            sequence: 0,
        };
        if place <= self.top {
            place = Place {
                sequence: self.top.sequence + 1,
                ..self.top
            };
        }
        self.top = place;
        let pairs = fields
            .iter()
            .map(|(name, value)| (name.as_slice(), value.as_slice()));
        let Place { millis, sequence } = place;
        let tag = tag_of(pairs);
        let id = WholeId {
            millis,
            sequence,
            tag,
        };
        let ahead = self.tip.replace(self.log.len());
        self.stream.push(self.log.len());
        self.log.push(Taken { id, fields, ahead });
        if self.stream.len() > maxlen.saturating_add(TRIM_SLACK) {
            let excess = self.stream.len() - maxlen;
            self.stream.drain(..excess);
        }
        place
    }

    /// Loses the newest entries, and what was written with them.
    fn lose(&mut self, lacking: usize) {
        for _ in 0..lacking {
            let Some(lost) = self.stream.pop() else {
                break;
            };
            self.tip = self.log[lost].ahead;
            let place = self.log[lost].place().to_string();
            let is_of_it = |value: &[u8]| {
                let value = String::from_utf8_lossy(value);
                value.starts_with(&format!("{place}-")) || value.ends_with(&format!(" {place}"))
            };
            self.texts.retain(|_, (value, _)| !is_of_it(value));
        }
        let top = self.tip.map(|tip| self.log[tip].place());
        self.top = top.unwrap_or(Place::START);
    }
}

fn ranged<'a>(entries: impl Iterator<Item = &'a Taken>, rest: &[&[u8]]) -> Vec<u8> {
    let count = match rest {
        [] => usize::MAX,
        [b"COUNT", count] => number(count) as usize,
        _ => panic!("what is {rest:?}?"),
    };
    list(entries.take(count).map(Taken::reply))
}
