//! `crieur keygen`: new files of keys and tokens, which only their owner can read.
//!
//! Owns how such a file is made; what is in it is the business of who reads it. Invariant: no file that exists is changed.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::hub::access::jwt::key::Algorithm;
use crate::hub::access::jwt::signer::new_key;

use super::arguments::{self, unexpected};
use super::error::CliError;
use super::output::print;

pub(super) const HELP: &str = "\
Usage: crieur keygen client [--alg ALG] FILE
       crieur keygen publish FILE

Makes a new file with a key or a token. Only its owner can read it (mode 0600), and no file is
overwritten.

  client             A key for clients' tokens. With HS256, FILE has one secret, for the server's
                     --client-key-file and for what signs the tokens. With ES256 and EdDSA, FILE
                     has the private key, for what signs the tokens, and FILE.pub the public one,
                     for --client-key-file
  publish            A publisher's token, for --publish-token-file and for the publisher

  --alg ALG          HS256, ES256 or EdDSA [HS256]

Examples:
  crieur keygen publish publish.token
  crieur keygen client --alg EdDSA client.key
";

/// For the owner alone.
const MODE: u32 = 0o600;

/// What a public key's file has behind the name of the private one's.
const PUBLIC_SUFFIX: &str = ".pub";

/// A file to be made.
struct NewFile {
    path: PathBuf,
    text: String,
    /// What it is for, for the user.
    purpose: &'static str,
}

pub(super) fn run(arguments: Vec<OsString>) -> Result<ExitCode, CliError> {
    let Some(given) = arguments::read(arguments, &["alg"], &[])? else {
        return print(HELP);
    };
    let mut algorithm = None;
    let mut values = Vec::new();
    for (name, value) in given {
        match name {
            "alg" => algorithm = Some(read_algorithm(&value)?),
            _ if values.len() < 2 => values.push(value),
            _ => return Err(unexpected(&value)),
        }
    }
    let [what, path] = &values[..] else {
        return Err(CliError::usage(
            "client or publish is missing, or the FILE: see crieur keygen --help",
        ));
    };
    let path = PathBuf::from(path);
    let files = match (what.as_str(), algorithm) {
        ("client", algorithm) => client_files(algorithm.unwrap_or(Algorithm::Hs256), path)?,
        ("publish", None) => vec![NewFile {
            path,
            text: URL_SAFE_NO_PAD.encode(random()?) + "\n",
            purpose: "a publisher's token, for --publish-token-file and for the publisher",
        }],
        ("publish", Some(_)) => {
            return Err(CliError::usage(
                "--alg is for the keys of clients: a publisher's token has none",
            ));
        }
        _ => {
            return Err(CliError::usage(format!(
                "{what:?} can't be made: it is client or publish"
            )));
        }
    };
    create(&files)?;
    print(&files.iter().map(NewFile::to_string).collect::<String>())
}

impl fmt::Display for NewFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.path.display(), self.purpose)
    }
}

fn read_algorithm(name: &str) -> Result<Algorithm, CliError> {
    Algorithm::from_name(name).ok_or_else(|| {
        let [a, b, c] = Algorithm::ALL.map(Algorithm::name);
        CliError::usage(format!("--alg {name:?}: it is {a}, {b} or {c}"))
    })
}

fn client_files(algorithm: Algorithm, path: PathBuf) -> Result<Vec<NewFile>, CliError> {
    let texts = loop {
        if let Some(texts) = new_key(algorithm, random()?) {
            break texts;
        }
    };
    let Some(public) = texts.public else {
        return Ok(vec![NewFile {
            path,
            text: texts.signing,
            purpose: "the secret of clients' tokens, for --client-key-file and for what signs them",
        }]);
    };
    let mut public_path = path.clone().into_os_string();
    public_path.push(PUBLIC_SUFFIX);
    Ok(vec![
        NewFile {
            path,
            text: texts.signing,
            purpose: "the private key, for what signs clients' tokens",
        },
        NewFile {
            path: public_path.into(),
            text: public,
            purpose: "the public key, for --client-key-file",
        },
    ])
}

fn random() -> Result<[u8; 32], CliError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| CliError::failure(format!("no randomness: {error}")))?;
    Ok(bytes)
}

/// Makes all of them, or none.
fn create(files: &[NewFile]) -> Result<(), CliError> {
    for (count, file) in files.iter().enumerate() {
        if let Err(error) = write_new(&file.path, &file.text) {
            for made in &files[..count] {
                // It is reported that there is no key.
                let _ = fs::remove_file(&made.path);
            }
            let path = file.path.display();
            return Err(CliError::failure(match error.kind() {
                io::ErrorKind::AlreadyExists => {
                    format!("{path} exists, and is left as it is: give another name, or remove it")
                }
                _ => format!("cannot write {path}: {error}"),
            }));
        }
    }
    Ok(())
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    // A link that somebody has put there isn't followed.
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(MODE).open(path)?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(path);
    }
    written
}
