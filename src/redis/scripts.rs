//! The commands that write to the stream, and the scripts that Redis runs for some of them.
//!
//! Main type: [`Scripts`].

use sha1::{Digest, Sha1};

use super::command;
use super::entry::{self, Nonce};
use super::settings::Settings;
use crate::journal::id::tag_of;

/// An entry to be appended.
#[derive(Clone, Copy, Debug)]
pub struct Append<'a> {
    /// Its kind, as JSON.
    pub kind: &'a str,
    /// The notification, as JSON.
    pub notification: &'a str,
    /// Whether it is kept in the history.
    pub is_kept: bool,
    /// What it is known by, if it is to be published once only.
    pub key: Option<&'a str>,
}

/// Appends entries with and without keys, as one. KEYS: the stream; for each entry the key under which its own is
/// remembered, or the stream again. ARGV: how many entries the stream keeps, about; how long a key is remembered, in
/// milliseconds; for each entry its JSON, nonce, key and tag. Returns for each its id, or that of the one that was there.
pub(super) const APPEND: &str = "\
local stream, maxlen, ttl = KEYS[1], ARGV[1], ARGV[2]
local told = {}
for i = 2, #KEYS do
  local key, at = KEYS[i], 4 * i - 5
  local first = key ~= stream and redis.call('GET', key)
  if first then
    told[#told + 1] = first
  elseif key == stream then
    told[#told + 1] = redis.call('XADD', stream, 'MAXLEN', '~', maxlen, '*', 'n', ARGV[at], 't', ARGV[at + 1])
  else
    local id = redis.call('XADD', stream, 'MAXLEN', '~', maxlen, '*', 'n', ARGV[at], 't', ARGV[at + 1], 'k', ARGV[at + 2])
    redis.call('SET', key, id .. '-' .. ARGV[at + 3], 'PX', ttl)
    told[#told + 1] = id
  end
end
return told
";

/// Writes a barrier unless somebody else has. KEYS: the stream and the epoch's key. ARGV: how many entries the stream keeps,
/// about; the identity that it speaks for; the epoch's value as it is known; a nonce. Returns the epoch's value.
pub(super) const BARRIER: &str = "\
local now = redis.call('GET', KEYS[2]) or ''
if now ~= ARGV[3] then return now end
local id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'b', ARGV[2], 't', ARGV[4])
redis.call('SET', KEYS[2], ARGV[2] .. ' ' .. id)
return ARGV[2] .. ' ' .. id
";

/// By what Redis knows the scripts.
pub(super) struct Scripts {
    append: String,
    barrier: String,
}

impl Scripts {
    /// What a link has to know.
    pub(super) const TEXTS: [&str; 2] = [APPEND, BARRIER];

    pub(super) fn new() -> Self {
        Self {
            append: sha(APPEND),
            barrier: sha(BARRIER),
        }
    }

    /// The command that appends entries, of which the first has this nonce.
    pub(super) fn append(
        &self,
        settings: &Settings,
        first: u64,
        entries: &[Append<'_>],
    ) -> Vec<u8> {
        let mut command = Vec::new();
        let stream = settings.stream.as_bytes();
        let maxlen = settings.maxlen.to_string();
        let nonces = (first..).map(entry::digits);
        let json = |entry: &Append<'_>| entry::json(entry.kind, entry.notification, entry.is_kept);
        if let ([entry], false) = (entries, needs_script(entries)) {
            let (json, nonce) = (json(entry), entry::digits(first));
            let arguments: [&[u8]; 10] = [
                b"XADD",
                stream,
                b"MAXLEN",
                b"~",
                maxlen.as_bytes(),
                b"*",
                b"n",
                json.as_bytes(),
                b"t",
                nonce.as_slice(),
            ];
            command::write(&mut command, &arguments);
            return command;
        }
        command::begin(&mut command, 6 + 5 * entries.len());
        let keys = (1 + entries.len()).to_string();
        let begin: [&[u8]; 4] = [b"EVALSHA", self.append.as_bytes(), keys.as_bytes(), stream];
        for argument in begin {
            command::push(&mut command, argument);
        }
        for Append { key, .. } in entries {
            match key {
                Some(key) => {
                    let key = format!("{}:k:{key}", settings.stream);
                    command::push(&mut command, key.as_bytes());
                }
                None => command::push(&mut command, stream),
            }
        }
        command::push(&mut command, maxlen.as_bytes());
        let ttl = settings.history.as_millis().max(1).to_string();
        command::push(&mut command, ttl.as_bytes());
        for (entry, nonce) in entries.iter().zip(nonces) {
            let json = json(entry);
            let key = entry.key.unwrap_or_default();
            let fields: [(&[u8], &[u8]); 3] = [
                (b"n", json.as_bytes()),
                (b"t", &nonce),
                (b"k", key.as_bytes()),
            ];
            let tag = entry::digits(tag_of(fields));
            for argument in [json.as_bytes(), &nonce, key.as_bytes(), &tag] {
                command::push(&mut command, argument);
            }
        }
        command
    }

    /// The command that writes a barrier.
    pub(super) fn write_barrier(
        &self,
        out: &mut Vec<u8>,
        settings: &Settings,
        (identity, known, Nonce(nonce)): (&str, &[u8], Nonce),
    ) {
        let (epoch, maxlen) = (settings.epoch_key(), settings.maxlen.to_string());
        let arguments: [&[u8]; 9] = [
            b"EVALSHA",
            self.barrier.as_bytes(),
            b"2",
            settings.stream.as_bytes(),
            epoch.as_bytes(),
            maxlen.as_bytes(),
            identity.as_bytes(),
            known,
            &entry::digits(nonce),
        ];
        command::write(out, &arguments);
    }
}

/// Whether these need the script.
pub(super) fn needs_script(entries: &[Append<'_>]) -> bool {
    entries.len() > 1 || entries.iter().any(|entry| entry.key.is_some())
}

/// By what Redis knows a script.
pub(super) fn sha(script: &str) -> String {
    let digest: [u8; 20] = Sha1::digest(script.as_bytes()).into();
    let digits = digest.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let digit = |digit: u8| char::from(b"0123456789abcdef"[usize::from(digit)]);
    digits.map(digit).collect()
}
