//! How many instructions the verifier walks through to accept each program, as the learner's capabilities have it.
//!
//! The numbers are golden: one that grows is a program that does more for each packet, or that an older kernel refuses.

use std::process::Command;

use aya::programs::CgroupSkb;
use aya::{EbpfLoader, include_bytes_aligned};
use nanoseg_ebpf::name;

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/nanoseg-capture"));

/// Set for the process that loads.
const LOADS: &str = "NANOSEG_TEST_LOADS";

/// By Linux 6.18. Kernels and compilers differ by less than [`TOLERATED`] of it.
const GOLDEN: [(&str, u32); 2] = [(name::INGRESS, 104_891), (name::EGRESS, 113_091)];

/// Percent.
const TOLERATED: u32 = 15;

/// Not a test: what this program does when the test has started it with two capabilities.
#[test]
fn loads() {
    if std::env::var_os(LOADS).is_none() {
        return;
    }
    let mut programs = EbpfLoader::new().load(OBJECT).unwrap();
    for (name, _) in GOLDEN {
        let program: &mut CgroupSkb = programs.program_mut(name).unwrap().try_into().unwrap();
        program.load().unwrap();
        // Kernels before 5.16 do not tell.
        let count = program.info().unwrap().verified_instruction_count().unwrap_or(0);
        println!("\n{name} {count}");
    }
}

#[test]
fn the_verifier_has_as_much_to_do_as_before() {
    if !rustix::process::geteuid().is_root() {
        assert!(
            std::env::var_os("NANOSEG_REQUIRE_ROOT").is_none(),
            "this test loads programs"
        );
        eprintln!("skipped: needs root, to load programs");
        return;
    }
    let output = Command::new("setpriv")
        .args(["--bounding-set", "-all,+bpf,+net_admin", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "loads", "--nocapture", "--test-threads=1"])
        .env(LOADS, "1")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    for (name, golden) in GOLDEN {
        let count: u32 = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
            .unwrap();
        if count == 0 {
            continue;
        }
        let least = golden - golden * TOLERATED / 100;
        let most = golden + golden * TOLERATED / 100;
        assert!(
            (least..=most).contains(&count),
            "{name}: {count} instructions, and {golden} before: if that is meant, write it there"
        );
    }
}
