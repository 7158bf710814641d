//! The program: arguments in, exit status out.

use std::process::ExitCode;

#[cfg(no_unwinding)]
mod no_unwinding;

fn main() -> ExitCode {
    crieur::cli::main(std::env::args_os().skip(1))
}
