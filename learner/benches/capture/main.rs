//! What capturing costs: a packet, a connection, a node. Everything is measured beside something else in the same run, because
//! what a machine does meanwhile is not for a bench to choose.
//!
//! Needs root. `cargo bench -p nanoseg-learner --bench capture`; one part of it by its name: `packets`, `pairs`, `node`, `designs`.
#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a bench that cannot run says why and ends"
)]
#![expect(
    clippy::cast_precision_loss,
    reason = "three digits are read, and every count is below 2^52"
)]

mod designs;
mod load;
#[path = "../../tests/node/mod.rs"]
#[expect(dead_code, reason = "tests use the rest of it")]
mod node;
mod packets;
mod pairs;
#[path = "../../../tests/benches/rows.rs"]
mod rows;
mod spent;
mod worker;

use std::path::Path;

use rows::Row;

type Part = fn() -> Vec<Row>;

fn main() {
    if let Some(cgroup) = std::env::var_os(worker::CGROUP) {
        worker::run(Path::new(&cgroup));
        return;
    }
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    if arguments.first().is_some_and(|what| what == packets::ALONE) {
        println!("{}", serde_json::to_string(&packets::measure()).expect("rows are JSON"));
        return;
    }
    if !node::is_possible() {
        return;
    }
    let parts: [(&str, Part); 4] = [
        ("packets", packets::with_two_capabilities),
        ("pairs", pairs::measure),
        ("node", load::measure),
        ("designs", designs::measure),
    ];
    let mut rows = Vec::new();
    for (name, measure) in parts {
        if arguments.is_empty() || arguments.iter().any(|wanted| wanted == name) {
            println!("{name} ...");
            rows.extend(measure());
        }
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench-capture.json");
    let table = rows::write(&rows, &file).expect("target/bench-capture.json can be written");
    println!("\n{table}\nalso in target/bench-capture.json");
}
