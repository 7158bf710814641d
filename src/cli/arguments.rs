//! The arguments of a command, in the order in which they were given. Main entry: [`read`].

use std::ffi::OsString;

use lexopt::ValueExt;

use super::error::CliError;

/// The name under which an argument is told that belongs to no option.
pub(super) const VALUE: &str = "";

/// Each option with its value, and each other argument as a [`VALUE`]; the options in `valued` take a value, those in
/// `switches` none. `None` if help is asked for.
pub(super) fn read(
    arguments: Vec<OsString>,
    valued: &[&'static str],
    switches: &[&'static str],
) -> Result<Option<Vec<(&'static str, String)>>, CliError> {
    use lexopt::Arg::{Long, Short, Value};
    let mut given = Vec::new();
    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser.next()? {
        let name = match argument {
            Value(value) => {
                given.push((VALUE, value.string()?));
                continue;
            }
            Long("help") | Short('h') => return Ok(None),
            Long(name) => name,
            Short(letter) => return Err(CliError::unknown_option(format!("-{letter}"))),
        };
        let of = |options: &[&'static str]| options.iter().copied().find(|option| *option == name);
        if let Some(name) = of(switches) {
            given.push((name, String::new()));
        } else if let Some(name) = of(valued) {
            given.push((name, parser.value()?.string()?));
        } else {
            return Err(CliError::unknown_option(format!("--{name}")));
        }
    }
    Ok(Some(given))
}

/// The error for an argument that a command doesn't take.
pub(super) fn unexpected(value: &str) -> CliError {
    CliError::usage(format_args!("unexpected argument {value:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(arguments: &[&str]) -> Result<Option<Vec<(&'static str, String)>>, String> {
        let arguments = arguments.iter().map(Into::into).collect();
        read(arguments, &["url", "key"], &["no-keep"]).map_err(|error| error.message)
    }

    #[test]
    fn options_and_values_come_in_their_order() {
        let pairs = |arguments: &[&str]| {
            let given = given(arguments).expect("valid").expect("no help");
            let pairs = given.iter().map(|(name, value)| format!("{name}={value}"));
            pairs.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(pairs(&[]), "");
        let all = ["--url=a", "x", "--no-keep", "--key", "-h", "--url", "b"];
        assert_eq!(pairs(&all), "url=a =x no-keep= key=-h url=b");
        assert_eq!(pairs(&["-", "--", "--url", "-h"]), "=- =--url =-h");
        for arguments in [&["--help"][..], &["x", "-h"], &["--url", "a", "--help"]] {
            assert_eq!(given(arguments), Ok(None));
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (arguments, expected) in [
            (&["--ulr", "a"][..], "there is no option --ulr"),
            (&["--ulr=a"], "there is no option --ulr"),
            (&["-x"], "there is no option -x"),
            (&["--url"], "--url needs a value"),
            (&["--no-keep=1"], "--no-keep takes no value"),
        ] {
            assert_eq!(given(arguments), Err(expected.to_owned()), "{arguments:?}");
        }
    }
}
