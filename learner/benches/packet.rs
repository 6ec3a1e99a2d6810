//! What a packet costs, by `BPF_PROG_TEST_RUN`: nanoseconds for each run of a program, less those of an
//! empty one.
//!
//! Needs the capabilities of the learner; run it without `CAP_PERFMON` to see what the learner's deployment sees.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench that cannot run says why and ends"
)]

use aya::maps::Array;
use aya::programs::{CgroupSkb, TestRun as _, TestRunOptions};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use nanoseg_ebpf::name;

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/nanoseg-capture"));
static EMPTY: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/nanoseg-empty"));

const REPEAT: u32 = 300_000;
const ROUNDS: usize = 15;

fn main() {
    let mut empty = EbpfLoader::new()
        .load(EMPTY)
        .expect("the kernel takes the empty program");
    let empty = load(&mut empty, "empty");
    let mut programs = EbpfLoader::new().load(OBJECT).expect("the kernel takes the programs");
    // As it is from ten seconds after the start on.
    Array::<_, u64>::try_from(programs.map_mut(name::GRACE_END).expect("it is there"))
        .and_then(|mut map| map.set(0, 1, 0))
        .expect("the kernel takes the time");
    let packets = [
        ("TCP data, IPv4", tcp_v4(0x18)),
        ("TCP data, IPv6", tcp_v6(0x18)),
        ("SYN, IPv4", tcp_v4(0x02)),
        ("SYN, IPv6", tcp_v6(0x02)),
        ("UDP, IPv4", udp_v4()),
    ];
    println!(
        "{:<16} {:<16} {:>7} {:>7} {:>7}   ns, median of {ROUNDS} interleaved rounds",
        "program", "packet", "run", "empty", "net"
    );
    for name in [name::INGRESS, name::EGRESS] {
        let program = load(&mut programs, name);
        for (what, packet) in &packets {
            let (mut runs, mut empties) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                runs.push(run(program, packet));
                empties.push(run(empty, packet));
            }
            let [run, empty] = [runs, empties].map(|mut rounds| {
                rounds.sort_unstable();
                rounds[ROUNDS / 2]
            });
            println!(
                "{name:<16} {what:<16} {run:>7} {empty:>7} {:>7}",
                run.saturating_sub(empty)
            );
        }
    }
}

fn load<'a>(programs: &'a mut Ebpf, name: &str) -> &'a CgroupSkb {
    let program: &mut CgroupSkb = programs
        .program_mut(name)
        .expect("it is there")
        .try_into()
        .expect("it is of this kind");
    program.load().expect("the verifier accepts it");
    program
}

/// Nanoseconds for one run, as the kernel measures them.
fn run(program: &CgroupSkb, packet: &[u8]) -> u128 {
    let options = TestRunOptions {
        data_in: Some(packet),
        repeat: REPEAT,
        ..TestRunOptions::new()
    };
    program
        .test_run(options)
        .expect("the kernel runs it")
        .duration
        .as_nanos()
}

/// The kernel wants an Ethernet header and takes it away before the program sees the packet.
fn frame(ether_type: u16, packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend(ether_type.to_be_bytes());
    frame.extend(packet);
    frame
}

fn v4(protocol: u8, transport: &[u8]) -> Vec<u8> {
    let mut packet = vec![
        0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 198, 18, 0, 1, 198, 18, 0, 2,
    ];
    packet.extend(transport);
    frame(0x0800, &packet)
}

fn tcp(flags: u8) -> Vec<u8> {
    let mut header = vec![0xc0, 0x00, 0x1f, 0x90, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags];
    header.resize(20, 0);
    header
}

fn tcp_v4(flags: u8) -> Vec<u8> {
    v4(6, &tcp(flags))
}

fn tcp_v6(flags: u8) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 20, 6, 64];
    packet.extend([0xfd, 0, 0, 0x18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    packet.extend([0xfd, 0, 0, 0x18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    packet.extend(tcp(flags));
    frame(0x86dd, &packet)
}

fn udp_v4() -> Vec<u8> {
    v4(17, &[0xc0, 0x00, 0x1f, 0x90, 0, 12, 0, 0, 1, 2, 3, 4])
}
