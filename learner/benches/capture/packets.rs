//! What a packet costs, by `BPF_PROG_TEST_RUN`: nanoseconds for each run of a program, less those of an empty one.

use std::process::{Command, Stdio};

use aya::maps::Array;
use aya::programs::{CgroupSkb, TestRun as _, TestRunOptions};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use nanoseg_ebpf::name;

use crate::rows::{Goal, Row};

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/nanoseg-capture"));
pub(crate) static EMPTY: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/nanoseg-empty"));

/// With this the bench measures packets alone and prints rows.
pub(crate) const ALONE: &str = "packets-alone";

const REPEAT: u32 = 200_000;
const ROUNDS: usize = 15;
/// Different keys: with their places in the map more than a processor's cache holds.
const COLD: u16 = 15_000;

/// In a process of its own that has what the learner has: without `CAP_PERFMON` the kernel guards programs in ways that cost.
pub(crate) fn with_two_capabilities() -> Vec<Row> {
    let output = Command::new("setpriv")
        .args(["--bounding-set", "-all,+bpf,+net_admin", "--"])
        .arg(std::env::current_exe().expect("the bench knows itself"))
        .arg(ALONE)
        .stderr(Stdio::inherit())
        .output()
        .expect("the bench starts itself");
    serde_json::from_slice(&output.stdout).expect("rows are JSON")
}

pub(crate) fn measure() -> Vec<Row> {
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
        ("TCP data, IPv4", tcp_v4(0x18, 8080), 5.0),
        ("TCP data, IPv6", tcp_v6(0x18), 5.0),
        ("SYN, IPv4", tcp_v4(0x02, 8080), 40.0),
        ("SYN, IPv6", tcp_v6(0x02), 40.0),
        ("UDP, IPv4", udp_v4(8080), 40.0),
    ];
    let ways = [(name::INGRESS, "received"), (name::EGRESS, "sent")];
    let mut rows = Vec::new();
    for (name, way) in ways {
        let program = load(&mut programs, name);
        for (what, packet, most) in &packets {
            let (mut nets, mut empties) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                let none = run(empty, packet, REPEAT);
                nets.push(run(program, packet, REPEAT) - none);
                empties.push(none);
            }
            empties.sort_by(f64::total_cmp);
            let row = Row::new(format!("{what}, {way}, known key"), "ns", &nets, Goal::AtMost(*most));
            rows.push(row.beside("the empty program, ns", empties[ROUNDS / 2]));
        }
    }
    // Last, because all of them together are what one cgroup may have.
    for (name, way) in ways {
        let program = load(&mut programs, name);
        for (what, packet) in [
            ("SYN, IPv4", tcp_v4 as fn(u8, u16) -> Vec<u8>),
            ("UDP, IPv4", |_, port| udp_v4(port)),
        ] {
            let cold = cold(program, |port| packet(0x02, port)) - cold(empty, |port| packet(0x02, port));
            rows.push(Row::new(
                format!("{what}, {way}, one of {COLD} keys, once"),
                "ns",
                &[cold],
                Goal::None,
            ));
        }
    }
    let twice: Vec<f64> = (0..ROUNDS)
        .map(|_| run(empty, &packets[0].1, REPEAT) - run(empty, &packets[0].1, REPEAT))
        .collect();
    rows.push(Row::new(
        "the empty program against itself (A/A)",
        "ns",
        &twice,
        Goal::None,
    ));
    rows
}

/// The median of single runs with keys in an order that no processor foresees. The clock's own cost is in it.
fn cold(program: &CgroupSkb, packet: impl Fn(u16) -> Vec<u8>) -> f64 {
    let mut times = Vec::new();
    for round in 0..2_u32 {
        for number in 0..u32::from(COLD) {
            // A prime step meets each once.
            let port = 1000 + u16::try_from(number * 7919 % u32::from(COLD)).unwrap_or_default();
            let time = run(program, &packet(port), 1);
            // The first round makes the keys.
            if round > 0 && number % 10 == 0 {
                times.push(time);
            }
        }
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn load<'a>(programs: &'a mut Ebpf, name: &str) -> &'a CgroupSkb {
    let program: &mut CgroupSkb = programs
        .program_mut(name)
        .expect("it is there")
        .try_into()
        .expect("it is of this kind");
    // Loaded before, when it is asked for again.
    if program.fd().is_err() {
        program.load().expect("the verifier accepts it");
    }
    program
}

/// Nanoseconds for one run, as the kernel measures them.
fn run(program: &CgroupSkb, packet: &[u8], repeat: u32) -> f64 {
    let options = TestRunOptions {
        data_in: Some(packet),
        repeat,
        ..TestRunOptions::new()
    };
    let result = program.test_run(options).expect("the kernel runs it");
    result.duration.as_nanos() as f64
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

fn ports(to: u16) -> Vec<u8> {
    [49_152_u16.to_be_bytes(), to.to_be_bytes()].concat()
}

fn tcp(flags: u8, to: u16) -> Vec<u8> {
    let mut header = ports(to);
    header.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags]);
    header.resize(20, 0);
    header
}

fn tcp_v4(flags: u8, to: u16) -> Vec<u8> {
    v4(6, &tcp(flags, to))
}

fn tcp_v6(flags: u8) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 20, 6, 64];
    packet.extend([0xfd, 0, 0, 0x18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    packet.extend([0xfd, 0, 0, 0x18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    packet.extend(tcp(flags, 8080));
    frame(0x86dd, &packet)
}

fn udp_v4(to: u16) -> Vec<u8> {
    v4(17, &[ports(to), vec![0, 12, 0, 0, 1, 2, 3, 4]].concat())
}
