//! A Redis of a test's own, and a client of it that shares nothing with the server's.
//!
//! Where there is no `redis-server`, a test says on standard error that it was skipped; with `TEST_REDIS=required` it
//! fails.

use std::env;
use std::fs;
use std::hash::Hasher;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use siphasher::sip::SipHasher13;

use super::{DEADLINE, Program, Server};

/// What the nodes of the tests call their stream, since they aren't told otherwise.
pub(crate) const STREAM: &str = "crieur";

/// A running Redis, on a Unix socket in a folder of its own; killed when the test is over.
pub(crate) struct Redis {
    program: Program,
    folder: PathBuf,
    flags: Vec<String>,
}

/// What Redis answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Reply {
    Text(String),
    Error(String),
    Integer(i64),
    List(Vec<Self>),
    Nothing,
}

/// An entry of a stream: its id, and its fields in their order.
pub(crate) type Entry = (String, Vec<(String, String)>);

/// Whether tests can have a Redis; says so if they can't.
pub(crate) fn is_installed() -> bool {
    let asked = Command::new("redis-server")
        .arg("--version")
        .stdin(Stdio::null())
        .output();
    if asked.is_ok_and(|output| output.status.success()) {
        return true;
    }
    let is_required = env::var_os("TEST_REDIS").is_some_and(|value| value == "required");
    assert!(!is_required, "there is no redis-server here");
    let test = thread::current().name().unwrap_or("a test").to_owned();
    // The macros would keep it from being seen.
    let line = format!("SKIPPED: {test}: there is no redis-server\n");
    let _ = io::stderr().write_all(line.as_bytes());
    false
}

/// The folder of one that isn't there yet, and its URL.
pub(crate) fn place() -> (PathBuf, String) {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let folder = env::temp_dir().join(format!("crieur-redis-{}-{number}", std::process::id()));
    let url = format!("redis+unix://{}/socket", folder.display());
    (folder, url)
}

/// What tells an entry from another with the same id: the end of its id on the wire.
pub(crate) fn tag(fields: &[(&str, &str)]) -> String {
    let mut hasher = SipHasher13::new_with_keys(0x6372_6965_7572_0001, 0);
    for text in fields.iter().flat_map(|(name, value)| [name, value]) {
        hasher.write(&(text.len() as u32).to_le_bytes());
        hasher.write(text.as_bytes());
    }
    format!("{:016x}", hasher.finish())
}

impl Redis {
    /// One that is empty and keeps nothing on disk, where there is a `redis-server`.
    pub(crate) fn start() -> Option<Self> {
        Self::with(&["--appendonly", "no"])
    }

    /// One whose data outlive its death.
    pub(crate) fn durable() -> Option<Self> {
        Self::with(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    /// One with these settings.
    pub(crate) fn with(flags: &[&str]) -> Option<Self> {
        is_installed().then(|| Self::at(place().0, flags))
    }

    /// One in this folder.
    pub(crate) fn at(folder: PathBuf, flags: &[&str]) -> Self {
        fs::create_dir(&folder).expect("a new folder");
        let flags: Vec<_> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let program = run(&folder, &flags);
        Self {
            program,
            folder,
            flags,
        }
    }

    /// What nodes are told.
    pub(crate) fn url(&self) -> String {
        format!("redis+unix://{}/socket", self.folder.display())
    }

    /// A file in its folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A node with `flags` that uses it and serves already.
    pub(crate) fn node(&self, flags: &[&str]) -> Server {
        Server::with(&[&["--redis", &self.url()], flags].concat())
    }

    /// Two of them.
    pub(crate) fn nodes(&self, flags: &[&str]) -> [Server; 2] {
        [self.node(flags), self.node(flags)]
    }

    /// Halts it, or lets it go on.
    pub(crate) fn halt(&self, is_halted: bool) {
        self.program.halt(is_halted);
        if is_halted {
            self.program.wait_for_halt();
        }
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) {
        self.program.kill();
    }

    /// Starts it again, with what it has on disk.
    pub(crate) fn start_again(&mut self) {
        self.program = run(&self.folder, &self.flags);
    }

    /// A connection to it.
    pub(crate) fn connect(&self) -> BufReader<UnixStream> {
        let stream = UnixStream::connect(self.file("socket")).expect("it listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("not zero");
        BufReader::new(stream)
    }

    /// Its answer to a command, which may be an error.
    pub(crate) fn try_ask(&self, words: &[&str]) -> Reply {
        self.ask_bytes(&words.iter().map(|word| word.as_bytes()).collect::<Vec<_>>())
    }

    /// The same of words that needn't be text.
    pub(crate) fn ask_bytes(&self, words: &[&[u8]]) -> Reply {
        let mut connection = self.connect();
        let mut command = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            command.extend(format!("${}\r\n", word.len()).bytes());
            command.extend_from_slice(word);
            command.extend(b"\r\n");
        }
        connection.get_mut().write_all(&command).expect("it reads");
        read_reply(&mut connection)
    }

    /// Its answer to a command, which must not be an error.
    pub(crate) fn ask(&self, words: &[&str]) -> Reply {
        let reply = self.try_ask(words);
        assert!(!matches!(reply, Reply::Error(_)), "{words:?}: {reply:?}");
        reply
    }

    /// What it answers with a text.
    pub(crate) fn ask_text(&self, words: &[&str]) -> String {
        match self.ask(words) {
            Reply::Text(text) => text,
            other => panic!("{words:?}: {other:?}"),
        }
    }

    /// Publishes as a host may that has no crieur, and returns the id in the stream.
    pub(crate) fn xadd(&self, json: &str) -> String {
        self.ask_text(&["XADD", STREAM, "MAXLEN", "~", "100000", "*", "n", json])
    }

    /// All entries of the stream.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        let Reply::List(entries) = self.ask(&["XRANGE", STREAM, "-", "+"]) else {
            panic!("XRANGE answers with a list");
        };
        entries.into_iter().map(entry).collect()
    }

    /// Those that publish something.
    pub(crate) fn notifications(&self) -> Vec<Entry> {
        let is_one = |(_, fields): &Entry| fields.iter().any(|(name, _)| name == "n");
        self.entries().into_iter().filter(is_one).collect()
    }

    /// What an entry with this id and this `n` alone is called on the wire.
    pub(crate) fn wire_id_of(&self, id: &str, json: &str) -> String {
        format!("{id}-{}", tag(&[("n", json)]))
    }

    /// What the entry with this id in the stream is called on the wire.
    pub(crate) fn wire_id(&self, id: &str) -> String {
        let mut entries = self.entries().into_iter();
        let entry = entries.find(|(other, _)| other == id);
        let (_, fields) = entry.unwrap_or_else(|| panic!("no entry {id}"));
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| (&name[..], &value[..]))
            .collect();
        format!("{id}-{}", tag(&fields))
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // The process is killed behind this; a folder that is gone keeps it from nothing.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Starts one, which listens when this returns.
fn run(folder: &Path, flags: &[String]) -> Program {
    let mut command = Command::new("redis-server");
    // What is on its standard input would be its settings.
    command.stdin(Stdio::null()).current_dir(folder);
    command.args(["--port", "0", "--unixsocket", "socket", "--save", ""]);
    command.args(["--daemonize", "no", "--repl-diskless-sync-delay", "0"]);
    command.args(flags);
    let program = Program::start(command);
    program.stdout.wait_for("eady to accept connections");
    program
}

fn entry(reply: Reply) -> Entry {
    let Reply::List(parts) = &reply else {
        panic!("no entry: {reply:?}");
    };
    let [Reply::Text(id), Reply::List(fields)] = &parts[..] else {
        panic!("no entry: {reply:?}");
    };
    let texts = fields.iter().map(|field| match field {
        Reply::Text(text) => text.clone(),
        other => panic!("no text: {other:?}"),
    });
    let texts: Vec<_> = texts.collect();
    let fields = texts
        .chunks(2)
        .map(|pair| (pair[0].clone(), pair[1].clone()));
    (id.clone(), fields.collect())
}

fn read_line(from: &mut impl BufRead) -> String {
    let mut line = String::new();
    from.read_line(&mut line).expect("an answer in time");
    line.strip_suffix("\r\n")
        .unwrap_or_else(|| panic!("the end instead of an answer: {line:?}"))
        .to_owned()
}

/// Reads one answer.
pub(crate) fn read_reply(from: &mut impl BufRead) -> Reply {
    let line = read_line(from);
    let (kind, rest) = line.split_at(1);
    let number = || rest.parse::<i64>().expect("a number");
    match kind {
        "+" => Reply::Text(rest.to_owned()),
        "-" => Reply::Error(rest.to_owned()),
        ":" => Reply::Integer(number()),
        "$" | "*" if number() < 0 => Reply::Nothing,
        "*" => Reply::List((0..number()).map(|_| read_reply(from)).collect()),
        "$" => {
            let mut bytes = vec![0; number() as usize + 2];
            from.read_exact(&mut bytes).expect("an answer in time");
            bytes.truncate(bytes.len() - 2);
            Reply::Text(String::from_utf8_lossy(&bytes).into_owned())
        }
        _ => panic!("no answer of Redis: {line:?}"),
    }
}
