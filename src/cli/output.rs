//! What a command writes: whole texts, whole lines.

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

/// Writes `line` and its end at once.
pub(super) fn write_line(to: &mut impl Write, line: &str) -> std::io::Result<()> {
    to.write_all(format!("{line}\n").as_bytes())?;
    to.flush()
}
