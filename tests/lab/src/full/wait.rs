//! Waiting for a state of the cluster.
//!
//! Guarantee: what is waited for is the state itself and never an event, so one that came early is not missed; every wait ends,
//! by the state, by the deadline, by the end of a process that it depends on, or by the user.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::error::Error;
use super::process::Process;

/// Time from one look to the next. A look costs a kubectl, about 0.1 s of one core.
const INTERVAL: Duration = Duration::from_millis(250);

/// What every wait watches besides its own condition.
pub(super) struct Watch<'a> {
    /// Processes that have to be alive.
    pub(super) processes: &'a [Process],
    /// Set when the user wants it to stop.
    pub(super) stop: &'a AtomicBool,
}

impl Watch<'_> {
    /// Asks `check` until it gives a value. It says what it saw instead as `Err`.
    ///
    /// `teller` is the process whose log tells most when it takes longer than `limit`.
    pub(super) fn until<T>(
        &self,
        awaited: &str,
        limit: Duration,
        teller: &str,
        mut check: impl FnMut() -> Result<Result<T, String>, Error>,
    ) -> Result<T, Error> {
        let begun = Instant::now();
        loop {
            let last = match check()? {
                Ok(value) => return Ok(value),
                Err(last) => last,
            };
            if let Some(ended) = self.processes.iter().find(|process| !process.is_alive()) {
                return Err(Error::Ended {
                    process: ended.name.clone(),
                    log: ended.last_lines(),
                });
            }
            if self.stop.load(Ordering::Relaxed) {
                return Err(Error::Interrupted {
                    awaited: awaited.to_owned(),
                });
            }
            let waited = begun.elapsed();
            if waited > limit {
                let log = self
                    .processes
                    .iter()
                    .find(|process| process.name == teller)
                    .map(|process| {
                        format!(
                            "the last lines of {} ({}):\n{}",
                            process.name,
                            process.log.display(),
                            process.last_lines()
                        )
                    });
                return Err(Error::Late {
                    awaited: awaited.to_owned(),
                    waited,
                    last,
                    log: log.unwrap_or_default(),
                });
            }
            std::thread::sleep(INTERVAL);
        }
    }
}
