//! The evaluator against engines that share nothing with it: random clusters, policies and connections, the same question to all.
//!
//! Every difference is explained by a row of [`fault::KnownFault`], or is a failure that prints the smallest world that shows it.
//! `NANOSEG_SEED` and `NANOSEG_QUESTIONS` choose the worlds and how many questions are asked.
#![expect(clippy::panic, clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod explain;
mod fault;
mod generate;
mod ours;
mod shrink;
mod world;

use std::collections::BTreeMap;
use std::time::Instant;

use fastrand::Rng;
use nanoseg_tests::oracle::{Engine, Oracle};

use explain::Explained;
use fault::KnownFault;
use ours::Ours;

/// Asked of each engine when nothing else is said, and enough to meet every row of the table.
const FULL_SIZE: usize = 200_000;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|error| panic!("{name} is {text:?}: {error}")),
    )
}

/// The engine, if it can be had here.
fn start(engine: Engine) -> Option<Oracle> {
    match Oracle::start(engine) {
        Err(error) if error.is_no_compiler() && std::env::var_os("NANOSEG_REQUIRE_ROOT").is_none() => {
            println!("skipped: {engine:?} is built by a Go compiler, and there is none");
            None
        }
        started => Some(started.unwrap()),
    }
}

fn agrees(engine: Engine, with_cluster_policies: bool) {
    let Some(mut oracle) = start(engine) else { return };
    let seed = number("NANOSEG_SEED").unwrap_or(1);
    let wanted = number("NANOSEG_QUESTIONS").map_or(FULL_SIZE, |number| usize::try_from(number).unwrap());
    println!("{engine:?}: NANOSEG_SEED={seed} NANOSEG_QUESTIONS={wanted}");
    let begun = Instant::now();
    let mut asked = 0;
    let mut allowed = 0;
    let mut worlds = 0;
    let mut rows: BTreeMap<KnownFault, usize> = BTreeMap::new();
    while asked < wanted {
        // Each world has a seed of its own, by which it can be had again alone.
        let seed = seed.wrapping_add(worlds);
        worlds += 1;
        let world = generate::world(&mut Rng::with_seed(seed), with_cluster_policies);
        oracle.ask(&world.to_json()).unwrap();
        let ours = Ours::read(&world).unwrap().ask(&world, &world.questions);
        let theirs = oracle.answers(world.questions.len()).unwrap();
        asked += theirs.len();
        allowed += theirs.iter().filter(|allowed| **allowed).count();
        let mut explained = Explained::new(engine, &world);
        for (question, (ours, theirs)) in world.questions.iter().zip(ours.iter().zip(&theirs)) {
            if ours.is(*theirs) {
                continue;
            }
            if let Some(by) = explained.by(question, *theirs) {
                for fault in by {
                    *rows.entry(fault).or_default() += 1;
                }
                continue;
            }
            let world = shrink::smallest(engine, &mut oracle, &world, question);
            let says = if *theirs { "allowed" } else { "denied" };
            let said = Ours::read(&world).unwrap().ask(&world, &world.questions).remove(0);
            panic!(
                "{engine:?} says {says}, the evaluator says {said:?}: {question}\n\
                 the world is number {worlds} of this run; again, alone: NANOSEG_SEED={seed} NANOSEG_QUESTIONS=1\n{}",
                world.to_yaml()
            );
        }
    }
    println!(
        "{engine:?}: {asked} questions about {worlds} worlds in {:.1?}, {allowed} allowed",
        begun.elapsed()
    );
    let known = KnownFault::ALL
        .into_iter()
        .filter(|fault| fault.engines().contains(&engine))
        .filter(|fault| !fault.is_of_cluster_policies() || with_cluster_policies);
    for fault in known {
        let count = rows.get(&fault).copied().unwrap_or_default();
        let (fact, settled_by) = fault.settled_by();
        println!("{count:>8} {fault:?}: {engine:?} {fact}. {settled_by}.");
        assert!(
            count > 0 || asked < FULL_SIZE,
            "{fault:?} explained nothing in {asked} questions to {engine:?}: take it out of the table"
        );
    }
}

#[test]
fn kube_network_policies_agrees() {
    agrees(Engine::KubeNetworkPolicies, false);
}

#[test]
fn kube_network_policies_agrees_about_policies_of_the_cluster() {
    agrees(Engine::KubeNetworkPolicies, true);
}

#[test]
fn cyclonus_agrees() {
    agrees(Engine::Cyclonus, false);
}
