//! How much is spent: the time that this thread had a core, so that others on the machine are not counted, and the memory that
//! the kernel says the process holds.

use std::hint::black_box;
use std::time::Instant;

use nanoseg_graph::cluster::Cluster;
use nanoseg_graph::connection::ConnectionGraph;
use nanoseg_policy::synthesize::{Settings, Surroundings, Synthesizer};

use crate::large;

/// Nanoseconds that this thread had a core: others on the machine are not counted.
fn on_core() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|field| field.parse().ok()).unwrap_or(0)
}

/// MiB that a line of the process's status tells: `VmRSS` is what it holds, `VmHWM` the most it held.
pub(crate) fn memory(line: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = text.lines().find_map(|known| known.strip_prefix(line));
    let number = field.and_then(|rest| rest.trim_start_matches(':').split_whitespace().next());
    number.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// Begins to count the most that is held anew.
pub(crate) fn forget_peak() {
    std::fs::write("/proc/self/clear_refs", "5").ok();
}

pub(crate) fn timed<T>(run: impl FnOnce() -> T) -> (T, f64) {
    let before = on_core();
    let made = run();
    let spent = u32::try_from((on_core() - before) / 1_000).unwrap_or(u32::MAX);
    (made, f64::from(spent) / 1e6)
}

/// Milliseconds that looking at the cluster takes, and what a new edge of a workload takes until its policy is there, once for
/// each of 100 edges, in order: the cluster has not changed since it was last looked at.
pub(crate) fn new_edges(
    graph: &mut ConnectionGraph,
    cluster: &Cluster,
    settings: &Settings,
    workloads: usize,
) -> (f64, Vec<f64>) {
    let subject = large::workload(7);
    let (surroundings, looking) = timed(|| Surroundings::new(cluster, settings));
    let mut spent: Vec<f64> = (0..100)
        .map(|number| {
            let (key, evidence) = large::edge(workloads, 7, large::EDGES_EACH + number);
            let once = || {
                graph.insert(key, &evidence);
                let synthesizer = Synthesizer::within(&surroundings, cluster, settings);
                black_box(synthesizer.propose(&subject, graph).is_ok())
            };
            // Too short for the kernel's count of time on a core, which moves in ticks of some milliseconds.
            let begun = Instant::now();
            once();
            begun.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    spent.sort_by(f64::total_cmp);
    (looking * 1e3, spent)
}
