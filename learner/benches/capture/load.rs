//! What a learner takes of its node: of a core at ten thousand connections a second, of memory with many edges, and idle.

use std::time::{Duration, Instant};

use crate::node::learner::Learner;
use crate::node::{Container, Node};
use crate::rows::{Goal, Row};
use crate::spent::{Measuring, in_kernel, on_core, resident};
use crate::worker::{Task, Worker};

const CLIENTS: u16 = 4;
const RATE: u32 = 10_000;
/// Edges of a node on which little happens.
const KNOWN: u32 = 200;
const ROUNDS: usize = 5;
/// Longer than what is done now and then is apart.
const ROUND: Duration = Duration::from_secs(10);

pub(crate) fn measure() -> Vec<Row> {
    let mut rows = Vec::new();
    for (edges, most) in [(10_000_u32, 16.0), (100_000, 32.0)] {
        let mut node = Node::new();
        let server = node.container();
        let clients: Vec<Container> = (0..CLIENTS).map(|_| node.container()).collect();
        let mut command = std::process::Command::new("setpriv");
        command
            .args(["--bounding-set", "-all,+bpf,+net_admin", "--"])
            .arg(env!("CARGO_BIN_EXE_nanoseg-learner"));
        // As it is deployed: tests look more often.
        command.args(["--cgroup-root".as_ref(), node.cgroup.as_os_str()]);
        let folder = tempfile::tempdir().unwrap();
        let learner = Learner::start_with(command, folder.path(), "1s");
        // Nobody listens, and the server's processes need not run for its addresses to refuse.
        let mut workers: Vec<Worker> = clients.iter().map(Worker::start).collect();
        let knock = |edges: u32, rate: u32, within| Task::Knock {
            to: server.v4,
            ports: u16::try_from(edges / u32::from(CLIENTS)).unwrap_or(u16::MAX),
            rate: rate / u32::from(CLIENTS),
            within,
        };
        if edges == 10_000 {
            rows.push(Row::new("idle", "millicores", &idle(&learner), Goal::AtMost(1.0)));
            all(&mut workers, &knock(KNOWN, KNOWN * 2, Duration::from_secs(1)));
            let name = format!("idle, {KNOWN} edges known");
            rows.push(Row::new(name, "millicores", &idle(&learner), Goal::AtMost(1.0)));
        }
        // Every edge once.
        all(
            &mut workers,
            &knock(edges, RATE * 2, Duration::from_secs(1) * edges / RATE),
        );
        let (mut cores, mut reached, mut kernel) = (Vec::new(), Vec::new(), Vec::new());
        let programs = learner.program_ids();
        for _ in 0..ROUNDS {
            let process = learner.child.id().to_string();
            let measuring = Measuring::begin();
            let (begun, before, before_in_kernel) = (Instant::now(), on_core(&process), in_kernel(&programs));
            let done = all(&mut workers, &knock(edges, RATE, ROUND));
            let took = begun.elapsed().as_secs_f64();
            let in_kernel = (in_kernel(&programs) - before_in_kernel) / took;
            drop(measuring);
            cores.push(((on_core(&process) - before) / took + in_kernel) * 100.0);
            kernel.push(in_kernel * 100.0);
            reached.push(done / took);
        }
        let median = |values: &[f64]| {
            let mut sorted = values.to_vec();
            sorted.sort_by(f64::total_cmp);
            sorted[sorted.len() / 2]
        };
        rows.push(
            Row::new(
                format!("{edges} edges, {RATE} connections a second: of a core"),
                "%",
                &cores,
                Goal::AtMost(5.0),
            )
            .beside("in the kernel, %", median(&kernel))
            .beside("connections a second", median(&reached)),
        );
        rows.push(Row::new(
            format!("{edges} edges: memory"),
            "MiB",
            &[resident(learner.child.id())],
            Goal::AtMost(most),
        ));
    }
    rows
}

fn idle(learner: &Learner) -> Vec<f64> {
    let process = learner.child.id().to_string();
    (0..ROUNDS)
        .map(|_| {
            let (begun, before) = (Instant::now(), on_core(&process));
            std::thread::sleep(ROUND / 5);
            (on_core(&process) - before) / begun.elapsed().as_secs_f64() * 1000.0
        })
        .collect()
}

fn all(workers: &mut [Worker], task: &Task) -> f64 {
    for worker in &mut *workers {
        worker.begin(task);
    }
    workers.iter_mut().map(Worker::answer).sum()
}
