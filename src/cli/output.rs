//! What a command writes: whole texts, whole lines.

use std::fmt::{self, Write as _};
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use super::error::CliError;

/// Prints `text` on standard output.
pub(super) fn print(text: &str) -> Result<ExitCode, CliError> {
    let mut stdout = std::io::stdout();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Ok(()) => Ok(ExitCode::SUCCESS),
        // A reader that has seen enough, like `head`, is no failure.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(error) => Err(CliError::failure(format!("standard output: {error}"))),
    }
}

/// A text of others, without what a terminal would obey: control characters, and those that turn the direction of text,
/// are written as escapes.
pub(super) struct Plain<'a>(pub(super) &'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match is_plain(c) {
            true => f.write_char(c),
            false => write!(f, "{}", c.escape_unicode()),
        })
    }
}

/// Whether a terminal shows `c` and does nothing else.
pub(super) fn is_plain(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Writes `line` and its end at once.
pub(super) fn write_line(to: &mut impl Write, line: &str) -> std::io::Result<()> {
    to.write_all(format!("{line}\n").as_bytes())?;
    to.flush()
}
