//! The command line: which command, its help, and its exit status.

use std::ffi::OsString;
use std::fmt::Write;
use std::process::ExitCode;

mod activation;
mod arguments;
mod check;
mod console_key;
mod descriptors;
mod environment;
mod error;
mod explain;
mod handover;
mod health;
mod history;
mod json_line;
mod keygen;
mod logging;
mod notify;
mod output;
mod position;
mod publish;
mod redis;
mod reload;
mod remote;
pub mod secret_file;
mod serve;
mod settings;
mod subscribe;
mod suggest;
mod token;
mod trust;
mod warnings;

use self::error::{CliError, did_you_mean};
use self::output::{print, write_line};
use self::suggest::nearest;

/// Something that the program does.
struct Command {
    name: &'static str,
    /// What for, in a line of the overview.
    summary: &'static str,
    /// Everything that it takes; its errors find options that are misspelt in here.
    help: fn() -> String,
    run: fn(Vec<OsString>) -> Result<ExitCode, CliError>,
}

const COMMANDS: [Command; 7] = [
    Command {
        name: "serve",
        summary: "Run the server, on 127.0.0.1:8000 by default; the same as no command",
        help: serve::help,
        run: serve::run,
    },
    Command {
        name: "subscribe",
        summary: "Print the notifications that arrive for subscriptions",
        help: || subscribe::HELP.to_owned(),
        run: subscribe::run,
    },
    Command {
        name: "publish",
        summary: "Send a notification",
        help: || publish::HELP.to_owned(),
        run: publish::run,
    },
    Command {
        name: "explain",
        summary: "Say who would get a notification, and why others would not",
        help: || explain::HELP.to_owned(),
        run: explain::run,
    },
    Command {
        name: "health",
        summary: "Say whether a server is healthy",
        help: || health::HELP.to_owned(),
        run: health::run,
    },
    Command {
        name: "token",
        summary: "Make a client's token, or explain one",
        help: || token::HELP.to_owned(),
        run: token::run,
    },
    Command {
        name: "keygen",
        summary: "Make a file with a key or a token",
        help: || keygen::HELP.to_owned(),
        run: keygen::run,
    },
];

/// The command that runs without a name.
const SERVE: &Command = &COMMANDS[0];

/// Runs the program with `arguments`, the program's name left out.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    match run(arguments.collect()) {
        Ok(status) => status,
        Err(CliError {
            status, message, ..
        }) => {
            // Standard error may be closed; the status still says it.
            let _ = write_line(&mut std::io::stderr(), &format!("crieur: {message}"));
            ExitCode::from(status)
        }
    }
}

fn run(mut arguments: Vec<OsString>) -> Result<ExitCode, CliError> {
    let command = arguments
        .first()
        .and_then(|first| first.to_str())
        .map(str::to_owned);
    match command.as_deref() {
        Some("help") => help(arguments.get(1)),
        Some("--help" | "-h") => print(&format!("{}\n{}", overview(), serve::help())),
        Some("--version" | "-V") => print(&format!("crieur {}\n", env!("CARGO_PKG_VERSION"))),
        Some(word) if !word.starts_with('-') => {
            let command = find(word)?;
            run_command(command, arguments.split_off(1))
        }
        _ => run_command(SERVE, arguments),
    }
}

fn run_command(command: &Command, arguments: Vec<OsString>) -> Result<ExitCode, CliError> {
    (command.run)(arguments).map_err(|error| error.of_command(command.name, &(command.help)()))
}

fn find(name: &str) -> Result<&'static Command, CliError> {
    let found = COMMANDS.iter().find(|command| command.name == name);
    found.ok_or_else(|| {
        let names = COMMANDS.iter().map(|command| command.name);
        let meant = nearest(name, names.chain(["help"]));
        let hint = did_you_mean(meant, "crieur help lists the commands");
        CliError::usage(format!("there is no command {name:?}{hint}"))
    })
}

/// Prints the help of a command, or the overview.
fn help(command: Option<&OsString>) -> Result<ExitCode, CliError> {
    match command {
        Some(name) if name != "help" => print(&(find(&name.to_string_lossy())?.help)()),
        _ => print(&overview()),
    }
}

/// The commands.
fn overview() -> String {
    let mut text = "\
crieur delivers notifications from an API to the apps that subscribed to them.

Usage: crieur [COMMAND] [OPTIONS]

Commands:
"
    .to_owned();
    let help = ("help", "Print the help of a command: crieur help publish");
    let commands = COMMANDS
        .iter()
        .map(|command| (command.name, command.summary));
    for (name, summary) in commands.chain([help]) {
        // Writing to a string can't fail.
        let _ = writeln!(text, "  {name:<11}{summary}");
    }
    text + "\ncrieur COMMAND --help says what a command takes, crieur --version which version this is.\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The widest line of a help.
    const COLUMNS_MAX: usize = 100;

    #[test]
    fn no_help_is_wider_than_a_terminal() {
        let helps = COMMANDS.iter().map(|command| (command.help)());
        for text in helps.chain([overview()]) {
            for line in text.lines() {
                assert!(line.chars().count() <= COLUMNS_MAX, "{line}");
                assert_eq!(line, line.trim_end());
            }
        }
    }

    #[test]
    fn every_command_is_in_the_overview_and_says_how_it_is_used() {
        let overview = overview();
        for command in &COMMANDS {
            let line = format!("\n  {:<11}{}\n", command.name, command.summary);
            assert!(overview.contains(&line), "{line}");
            let help = (command.help)();
            assert!(help.starts_with("Usage: crieur "), "{}", command.name);
            assert!(help.contains(command.name));
        }
    }

    #[test]
    fn a_misspelt_command_is_told_which_was_meant() {
        let error = |words: &[&str]| {
            let error = run(words.iter().map(Into::into).collect()).expect_err("a mistake");
            (error.status, error.message)
        };
        let meant = r#"there is no command "pubish": did you mean publish?"#;
        assert_eq!(error(&["pubish", "{}"]), (2, meant.to_owned()));
        assert_eq!(error(&["help", "pubish"]), (2, meant.to_owned()));
        let none = r#"there is no command "nonsense": crieur help lists the commands"#;
        assert_eq!(error(&["nonsense"]), (2, none.to_owned()));
    }

    #[test]
    fn a_misspelt_option_is_told_which_was_meant() {
        let error = |words: &[&str]| {
            let error = run(words.iter().map(Into::into).collect()).expect_err("a mistake");
            assert_eq!(error.status, 2);
            error.message
        };
        for (words, expected) in [
            (
                &["publish", "--ulr", "x", "{}"][..],
                "there is no option --ulr: did you mean --url?",
            ),
            (
                &["subscribe", "--sinse=", "c"],
                "there is no option --sinse: did you mean --since?",
            ),
            (
                &["--max-conections", "1"],
                "there is no option --max-conections: did you mean --max-connections?",
            ),
            (
                &["serve", "--chekc"],
                "there is no option --chekc: did you mean --check?",
            ),
            (
                &["publish", "--nonsense"],
                "there is no option --nonsense: crieur publish --help lists the options",
            ),
            (
                &["-x"],
                "there is no option -x: crieur serve --help lists the options",
            ),
        ] {
            assert_eq!(error(words), expected);
        }
    }
}
