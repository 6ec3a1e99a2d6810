//! `make bench`: one table of what the policy kernel costs, beside other engines on the same questions in the same run, each on
//! one core. Values of one run are ratios that machines agree on; the rest depends on the machine.
#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    reason = "a bench that cannot run says why and ends"
)]
#![expect(
    clippy::cast_precision_loss,
    reason = "three digits are read, and every count is below 2^52"
)]

#[path = "../../controller/policy/benches/large/mod.rs"]
mod large;
mod measure;
#[expect(dead_code, reason = "another bench uses the rest of it")]
mod rows;
mod world;

use std::hint::black_box;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nanoseg_policy::audit::audit;
use nanoseg_policy::evaluate::{Evaluator, PolicySet};
use nanoseg_policy::synthesize::{Settings, Synthesizer};
use nanoseg_tests::oracle::{self, Engine};

use rows::{Goal, Row};
use world::{ASKED, Known, World, ask};

/// Rounds of each comparison. All engines take their turn in each, so that what else the machine does meets all of them.
const ROUNDS: usize = 5;
/// How long an engine answers in a round.
const TURN: Duration = Duration::from_secs(1);

/// With this and a number of workloads, the program measures one graph and prints its rows: memory that another measurement gave
/// back is not always the kernel's again, so each has a process of its own.
const GRAPHS: &str = "graphs";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [what, workloads, ..] = &arguments[..]
        && what == GRAPHS
    {
        let rows = graphs(workloads.parse().expect("a number of workloads"));
        println!("{}", serde_json::to_string(&rows).expect("rows are JSON"));
        return;
    }
    let mut rows = Vec::new();
    for (name, world, goal) in [
        ("10 pods, 1 policy", World::new(1, 10, 1), 1.0),
        ("600 pods, 1,000 policies", World::new(6, 600, 1000), 20.0),
        ("10,000 pods, 10,000 policies", World::new(50, 10_000, 10_000), 1.0),
    ] {
        println!("{name} ...");
        rows.extend(verdicts(name, &world, goal));
    }
    for workloads in large::SIZES {
        println!("{workloads} workloads ...");
        rows.extend(in_own_process(workloads));
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench.json");
    let table = rows::write(&rows, &file).expect("target/bench.json can be written");
    println!("\n{table}\nalso in target/bench.json");
}

/// Answers a second, ours first.
fn verdicts(name: &str, world: &World, goal: f64) -> Vec<Row> {
    let json = world.to_json();
    let known = world.read();
    let evaluator = Evaluator::new(&known.policies, &known.cluster);
    let questions = world.places(&evaluator);
    let allowed = ask(&evaluator, &questions);
    let ours = || {
        let (begun, mut answered) = (Instant::now(), 0);
        while begun.elapsed() < TURN {
            black_box(ask(&evaluator, &questions));
            answered += ASKED;
        }
        per_second(answered, begun.elapsed())
    };
    let theirs = |engine| {
        let rate = oracle::rate(engine, &json, TURN).expect("the engine answers");
        let rounds = rate.answers / ASKED as u64;
        assert_eq!(
            rate.allowed,
            rounds * allowed as u64,
            "{engine:?} answers as we do, or its speed means nothing"
        );
        per_second(usize::try_from(rate.answers).unwrap_or(usize::MAX), rate.took)
    };
    let engines = [
        (Engine::KubeNetworkPolicies, "kube-network-policies"),
        (Engine::Cyclonus, "cyclonus"),
    ];
    let mut own = Vec::new();
    let mut again = Vec::new();
    let mut ratios: [Vec<f64>; 2] = [Vec::new(), Vec::new()];
    let mut rates: [Vec<f64>; 2] = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        let rate = ours();
        for ((engine, _), (ratios, rates)) in engines.iter().zip(ratios.iter_mut().zip(&mut rates)) {
            let other = theirs(*engine);
            ratios.push(rate / other);
            rates.push(other);
        }
        again.push(ours() / rate);
        own.push(rate);
    }
    let repeated = Goal::AtLeast(5e6);
    let mut rows = vec![
        Row::new(format!("{name}: verdicts again"), "1/s", &own, repeated),
        Row::new(format!("{name}: the same twice (A/A)"), "ratio", &again, Goal::None),
    ];
    for ((_, other), (ratios, rates)) in engines.iter().zip(ratios.iter().zip(&rates)) {
        let row = Row::new(
            format!("{name}: faster than {other}"),
            "times",
            ratios,
            Goal::AtLeast(goal),
        );
        rows.push(row.beside(&format!("{other}, 1/s"), median(rates)));
    }
    rows.push(Row::new(
        format!("{name}: a verdict about a new pair"),
        "us",
        &cold(world, &known),
        Goal::AtMost(5.0),
    ));
    rows
}

fn in_own_process(workloads: usize) -> Vec<Row> {
    let own = std::env::current_exe().expect("the bench knows itself");
    let output = Command::new(own)
        .args([GRAPHS, &workloads.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .expect("the bench starts itself");
    serde_json::from_slice(&output.stdout).expect("rows are JSON")
}

/// Synthesis and audit of a whole cluster. Goals are for the largest one; the smaller ones show that cost grows with edges.
fn graphs(workloads: usize) -> Vec<Row> {
    let is_largest = large::SIZES.iter().max() == Some(&workloads);
    let goal = |most: f64| if is_largest { Goal::AtMost(most) } else { Goal::None };
    let cluster = large::cluster(workloads);
    let mut graph = large::graph(workloads);
    let edges = graph.len();
    let name = format!("{workloads} workloads, {edges} edges");
    let settings = Settings::default();

    measure::forget_peak();
    let input = measure::memory("VmRSS");
    let (_, first) = measure::timed(|| large::stream(&graph, &cluster, &settings));
    let peak = measure::memory("VmHWM");
    let mut seconds: Vec<f64> = (1..ROUNDS)
        .map(|_| measure::timed(|| large::stream(&graph, &cluster, &settings)).1)
        .collect();
    seconds.push(first);
    let each: Vec<f64> = seconds.iter().map(|seconds| seconds * 1e9 / edges as f64).collect();

    let proposals = Synthesizer::new(&cluster, &settings);
    let policies: Vec<_> = proposals
        .proposals(&graph)
        .filter_map(|(_, proposal)| Some(Arc::unwrap_or_clone(proposal.ok()?.policy)))
        .collect();
    let (policies, _) = PolicySet::parse(&policies);
    let audits: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let (found, seconds) = measure::timed(|| audit(&graph, &policies, &cluster));
            assert!(found.denied.is_empty(), "what is synthesized allows what was seen");
            seconds
        })
        .collect();
    drop(policies);
    let (looking, new_edges) = measure::new_edges(&mut graph, &cluster, &settings, workloads);
    vec![
        Row::new(format!("{name}: synthesis"), "s", &seconds, goal(2.0)),
        Row::new(format!("{name}: synthesis, each edge"), "ns", &each, Goal::None),
        Row::new(
            format!("{name}: memory, input and all"),
            "MiB",
            &[peak as f64],
            goal(300.0),
        )
        .beside("beyond the input, MiB", peak.saturating_sub(input) as f64),
        Row::new(
            format!("{name}: one new edge to its policy"),
            "ms",
            &new_edges,
            goal(10.0),
        )
        .beside("looking at a changed cluster, ms", looking),
        Row::new(format!("{name}: audit"), "s", &audits, goal(1.0)),
    ]
}

/// Microseconds for a verdict of an evaluator that remembers nothing. Making it is not counted.
fn cold(world: &World, known: &Known) -> Vec<f64> {
    (0..ROUNDS * 2)
        .map(|_| {
            let evaluator = Evaluator::new(&known.policies, &known.cluster);
            let questions = world.places(&evaluator);
            let begun = Instant::now();
            black_box(ask(&evaluator, &questions));
            begun.elapsed().as_secs_f64() * 1e6 / ASKED as f64
        })
        .collect()
}

fn per_second(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
