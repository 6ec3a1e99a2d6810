//! How long synthesis takes, at a size of which criterion can make many rounds. The three sizes of the promise, with memory, are
//! in the table of `make bench`.

mod large;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use nanoseg_policy::audit::audit;
use nanoseg_policy::evaluate::PolicySet;
use nanoseg_policy::synthesize::{Settings, Synthesizer};

fn synthesis(criterion: &mut Criterion) {
    let workloads = large::SIZES[0];
    let (cluster, graph) = (large::cluster(workloads), large::graph(workloads));
    let settings = Settings::default();
    let mut group = criterion.benchmark_group("synthesis");
    group.sample_size(10);
    group.throughput(Throughput::Elements(graph.len() as u64));
    group.bench_function(BenchmarkId::new("all", workloads), |bencher| {
        bencher.iter(|| large::stream(&graph, &cluster, &settings));
    });
    let policies: Vec<_> = Synthesizer::new(&cluster, &settings)
        .proposals(&graph)
        .filter_map(|(_, proposal)| Some(proposal.ok()?.policy))
        .collect();
    let (policies, _) = PolicySet::parse(policies.iter().map(AsRef::as_ref));
    group.bench_function(BenchmarkId::new("audit", workloads), |bencher| {
        bencher.iter(|| audit(&graph, &policies, &cluster).permitted);
    });
    group.finish();
}

criterion_group!(benches, synthesis);
criterion_main!(benches);
