//! How much of a core and of memory a learner takes.

use std::fs;
use std::time::Duration;

use aya::programs::loaded_programs;

/// Lets the kernel measure how long programs run, which itself costs some seventy nanoseconds a run. Ends when it is dropped.
pub(crate) struct Measuring {
    before: String,
}

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

impl Measuring {
    pub(crate) fn begin() -> Self {
        let before = fs::read_to_string(SWITCH).unwrap();
        fs::write(SWITCH, "1").unwrap();
        Self { before }
    }
}

impl Drop for Measuring {
    fn drop(&mut self) {
        fs::write(SWITCH, &self.before).ok();
    }
}

/// Seconds that programs ran, since they were loaded.
pub(crate) fn in_kernel(programs: &[u32]) -> f64 {
    let all: Duration = loaded_programs()
        .flatten()
        .filter(|program| programs.contains(&program.id()))
        .map(|program| program.run_time())
        .sum();
    all.as_secs_f64()
}

/// Seconds that a process of one thread, or a thread, had a core.
pub(crate) fn on_core(process: &str) -> f64 {
    let text = fs::read_to_string(format!("/proc/{process}/schedstat")).unwrap();
    let nanoseconds = text.split(' ').next().and_then(|field| field.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0)).as_secs_f64()
}

/// MiB that a process holds.
pub(crate) fn resident(process: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}
