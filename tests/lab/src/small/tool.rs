//! Runs the system's own programs.

use std::io::Write;
use std::process::{Command, Stdio};

use super::Error;

/// Runs `program` with `input` on its standard input.
pub(super) fn run(program: &'static str, package: &'static str, arguments: &[&str], input: &str) -> Result<(), Error> {
    let missing = |source| Error::NoTool {
        program,
        package,
        source,
    };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(missing)?;
    let mut pipe = child.stdin.take();
    let written = pipe.as_mut().map_or(Ok(()), |pipe| pipe.write_all(input.as_bytes()));
    drop(pipe);
    let output = child.wait_with_output().map_err(missing)?;
    if output.status.success() && written.is_ok() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(Error::Tool {
        command: format!("{program} {}", arguments.join(" ")),
        stderr,
    })
}
