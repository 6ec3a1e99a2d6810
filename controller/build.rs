//! Generates the server side of the learners' protocol from `learner/report.proto`.

use anyhow::Context as _;

fn main() -> anyhow::Result<()> {
    println!("cargo::rerun-if-changed=../learner/report.proto");
    let descriptors = protox::compile(["report.proto"], ["../learner"]).context("cannot read learner/report.proto")?;
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        .codec_path("crate::receive::messages::Small")
        .compile_fds(descriptors)
        .context("cannot generate code from learner/report.proto")
}
