//! Commands as bytes: arrays of bulk strings, which is all that a client has to say in RESP2.
//!
//! Knows no command.

use std::io::Write;

/// Appends a command to `out`.
pub(super) fn write(out: &mut Vec<u8>, arguments: &[&[u8]]) {
    begin(out, arguments.len());
    for argument in arguments {
        push(out, argument);
    }
}

/// Begins a command whose arguments are pushed one by one.
pub(super) fn begin(out: &mut Vec<u8>, arguments: usize) {
    header(out, b'*', arguments);
}

/// Appends one argument.
pub(super) fn push(out: &mut Vec<u8>, argument: &[u8]) {
    header(out, b'$', argument.len());
    out.extend_from_slice(argument);
    out.extend_from_slice(b"\r\n");
}

fn header(out: &mut Vec<u8>, kind: u8, number: usize) {
    out.push(kind);
    // A Vec takes all that is written to it.
    let _ = write!(out, "{number}\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_an_array_of_bulk_strings() {
        let mut out = Vec::new();
        write(&mut out, &[b"GET", b"", b"a\r\nb"]);
        assert_eq!(out, b"*3\r\n$3\r\nGET\r\n$0\r\n\r\n$4\r\na\r\nb\r\n");
    }
}
