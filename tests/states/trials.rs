//! The program itself is tried out with the states, and with damaged ones: it says what it would take over, or in one
//! line why it can't; it never dies of them.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use fastrand::Rng;

use super::damage::{each_changed, pieces, with_records};
use super::names::records;
use super::{newest, number, numbers, options, read};

const PROCESS: u8 = 2;
const LISTENER: u8 = 4;
const CONNECTION: u8 = 13;

/// How many states are damaged at random, unless `STATES_TRIALS` says another number.
const TRIALS: u64 = 150;

/// An empty folder, gone with this.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("crieur-trials-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a new folder");
        Self(path)
    }

    /// Tries the program out with `state`.
    fn try_out(&self, state: &[u8]) -> Output {
        let path = self.0.join("state");
        fs::write(&path, state).expect("writable");
        let input = File::open(&path).expect("readable");
        let mut command = Command::new(env!("CARGO_BIN_EXE_crieur"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CRIEUR_")) {
            command.env_remove(name);
        }
        let command = command.args(options(&self.0)).env("CRIEUR_HANDOVER", "try");
        let output = command.stdin(Stdio::from(input)).output();
        fs::remove_file(&path).expect("it is ours");
        // It listens on nothing, locks nothing, and makes no history.
        let left: Vec<_> = fs::read_dir(&self.0).expect("a folder").collect();
        assert!(left.is_empty(), "{left:?}");
        output.expect("a program")
    }

    /// Whether it takes over from `state`; if it doesn't, it says why.
    fn takes_over(&self, state: &[u8]) -> bool {
        let output = self.try_out(state);
        let [said, errors] = [&output.stdout, &output.stderr].map(|text| {
            let text = std::str::from_utf8(text);
            text.expect("it says text")
        });
        match output.status.code() {
            Some(0) => {
                let is_whole = said.starts_with(concat!("crieur ", env!("CARGO_PKG_VERSION")))
                    && said.ends_with(" connections\n")
                    && errors.is_empty();
                assert!(is_whole, "{output:?}");
                true
            }
            Some(1 | 2) => {
                let is_line = errors.starts_with("crieur: ") && errors.lines().count() == 1;
                assert!(is_line && said.is_empty(), "{output:?}");
                false
            }
            _ => panic!("it died: {output:?}"),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn every_state_is_taken_over() {
    let folder = Folder::new();
    for number in numbers() {
        let state = read(number);
        let connections = records(&state).into_iter();
        let connections = connections.filter(|(kind, _)| *kind == CONNECTION).count();
        let output = folder.try_out(&state);
        let version = env!("CARGO_PKG_VERSION");
        let expected =
            format!("crieur {version} takes over {connections} of {connections} connections\n");
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn what_is_no_state_is_refused() {
    let folder = Folder::new();
    let state = read(1);
    for bytes in [&b""[..], b"\n", &state[1..], &state[..state.len() - 1]] {
        assert!(!folder.takes_over(bytes));
    }
}

#[test]
fn it_says_why_it_cannot_go_on_from_what_stands_ahead_of_the_connections() {
    let folder = Folder::new();
    let mut answers = [0; 2];
    for kind in [LISTENER, PROCESS] {
        each_changed(&small(), kind, &mut |state| {
            answers[usize::from(folder.takes_over(state))] += 1;
        });
    }
    assert!(answers.iter().all(|count| *count > 30), "{answers:?}");
}

/// A small state, with all that the process around a server has written.
fn small() -> Vec<u8> {
    let whole = read(newest());
    let ahead: Vec<_> = records(&whole)
        .into_iter()
        .filter(|(kind, _)| matches!(*kind, PROCESS | LISTENER))
        .collect();
    with_records(&pieces()[1], &ahead)
}

#[test]
fn it_never_dies_of_damage() {
    let folder = Folder::new();
    let whole = read(newest());
    let first = number("STATES_SEED", 0);
    let mut answers = [0; 2];
    for seed in first..first + number("STATES_TRIALS", TRIALS) {
        let mut random = Rng::with_seed(seed);
        let mut damaged = whole.clone();
        for _ in 0..random.usize(1..8) {
            let place = random.usize(..damaged.len());
            match random.u8(..8) {
                0 => damaged.truncate(place + 1),
                1 if place > 0 => drop(damaged.remove(place)),
                2 => damaged.insert(place, random.u8(..)),
                3 => damaged[place] = [0, 0x7f, 0x80, 0xff][random.usize(..4)],
                _ => damaged[place] = random.u8(..),
            }
        }
        let answer = std::panic::catch_unwind(|| folder.takes_over(&damaged));
        let answer = answer.unwrap_or_else(|_| panic!("STATES_SEED={seed} STATES_TRIALS=1"));
        answers[usize::from(answer)] += 1;
    }
    eprintln!("{answers:?} were refused and taken over");
}
