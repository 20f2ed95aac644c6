//! Data to standard output, everything else to standard error. A reader that has gone away is no error: whoever pipes
//! into `head` has what they wanted.

use std::io::{self, Write};

use crate::exit::Exit;

/// Writes data and says how the command ends.
pub(crate) fn data(text: &str) -> Exit {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Exit::Ok,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
        Err(error) => {
            complain(format_args!("standard output cannot be written: {error}"));
            Exit::Unavailable
        }
    }
}

/// Writes a value as indented JSON and a line break.
pub(crate) fn json(value: &impl serde::Serialize) -> Exit {
    match serde_json::to_string_pretty(value) {
        Ok(text) => data(&(text + "\n")),
        Err(error) => {
            complain(format_args!("the result cannot be written as JSON: {error}"));
            Exit::Internal
        }
    }
}

/// Tells the person at the terminal something that is not data. Nothing can be done where nobody listens.
pub(crate) fn complain(message: impl std::fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "nzc: {message}");
}
