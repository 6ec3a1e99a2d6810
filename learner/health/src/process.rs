//! What the operating system says of this process, under the names that every dashboard knows.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use rustix::time::{ClockId, clock_gettime};

/// Resident memory of this process in bytes; `None` where the kernel does not tell.
pub fn resident_memory() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages.saturating_mul(u64::try_from(rustix::param::page_size()).unwrap_or(u64::MAX)))
}

/// Memory, time, descriptors and start of this process, read when they are asked for.
#[derive(Debug)]
pub struct Process {
    /// Seconds since the Unix epoch.
    started: f64,
}

impl Default for Process {
    fn default() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            started: now.as_secs_f64(),
        }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut gauge = |name, about, value: f64| {
            let metric = ConstGauge::new(value);
            metric.encode(encoder.encode_descriptor(name, about, None, MetricType::Gauge)?)
        };
        #[expect(clippy::cast_precision_loss, reason = "what is lost is below a byte in a petabyte")]
        let memory = resident_memory().unwrap_or_default() as f64;
        gauge("process_resident_memory_bytes", "Resident memory", memory)?;
        let open = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        let open = u32::try_from(open).unwrap_or(u32::MAX);
        gauge("process_open_fds", "Open file descriptors", open.into())?;
        gauge(
            "process_start_time_seconds",
            "Start, in seconds since the Unix epoch",
            self.started,
        )?;
        let spent = clock_gettime(ClockId::ProcessCPUTime);
        let spent = Duration::try_from(spent).unwrap_or_default();
        let metric = ConstCounter::new(spent.as_secs_f64());
        metric.encode(encoder.encode_descriptor(
            "process_cpu_seconds",
            "Time of processors, in the program and in the kernel on its behalf",
            None,
            MetricType::Counter,
        )?)
    }
}
