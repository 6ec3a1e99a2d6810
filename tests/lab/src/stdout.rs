//! Standard output, whose reader may be gone: that is no failure, and nothing that was begun stays half done because of it.

use std::fmt::Display;
use std::io::{ErrorKind, Write as _};

use anyhow::{Context as _, Result};

/// A line for whoever watches.
pub(crate) fn remark(line: impl Display) {
    drop(writeln!(std::io::stdout(), "{line}"));
}

/// What was asked for.
pub(crate) fn answer(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("standard output cannot be written"),
        Ok(()) | Err(_) => Ok(()),
    }
}
