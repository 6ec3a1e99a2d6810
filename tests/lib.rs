//! What the integration tests share: where the programs are, how to wait for something, and whom to ask for a second opinion.

pub mod oracle;

use std::fmt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks at a condition. Each look may be a call of kubectl, which takes a tenth of a second of one core.
const LOOK: Duration = Duration::from_millis(500);

/// A program of this workspace, built by `cargo build --workspace --bins`.
///
/// # Panics
///
/// If it was not built: cargo builds the programs of other packages for no test.
pub fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    // Test programs are in `target/<profile>/deps`.
    let built = own
        .ancestors()
        .nth(2)
        .map(|folder| folder.join(name))
        .filter(|path| path.is_file());
    assert!(
        built.is_some(),
        "{name} is not built: run `cargo build --workspace --bins` first, or `make test`"
    );
    built.unwrap_or_default()
}

/// Whether a test that needs root may run; says why it does not, and insists on it where nothing may be skipped.
///
/// # Panics
///
/// If `NANOSEG_REQUIRE_ROOT` is set and this is not root.
pub fn is_root(test: &str) -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(
        std::env::var_os("NANOSEG_REQUIRE_ROOT").is_none(),
        "{test} needs root: it makes network namespaces and loads eBPF programs"
    );
    println!("skipped: {test} needs root: it makes network namespaces and loads eBPF programs");
    false
}

/// Waits until `look` returns something; what it returns meanwhile says what is missing.
///
/// # Panics
///
/// If that takes longer than `most`, with what was missing in the end.
pub fn until<T, M: fmt::Display>(what: &str, most: Duration, mut look: impl FnMut() -> Result<T, M>) -> T {
    let begun = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(missing) => {
                assert!(
                    begun.elapsed() < most,
                    "after {most:?} still waiting for {what}: {missing}"
                );
            }
        }
        thread::sleep(LOOK);
    }
}
