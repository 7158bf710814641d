//! The program: arguments in, exit status out.

use std::process::ExitCode;

fn main() -> ExitCode {
    crieur::cli::main(std::env::args_os().skip(1))
}
