//! The same load under other designs: what each takes of a core for a connection while whoever reads is there, and what it loses
//! where it is away at the beginning.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aya::maps::{HashMap as Table, MapData, PerCpuArray, RingBuf};
use aya::programs::tc::{SchedClassifier, TcAttachType, qdisc_add_clsact};
use aya::programs::{CgroupAttachMode, CgroupSkb, CgroupSkbAttachType};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::node::{Container, Node};
use crate::rows::{Goal, Row};
use crate::spent::{Measuring, in_kernel, on_core};
use crate::worker::{Task, Worker};

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/nanoseg-designs"));

const CONNECTIONS: u64 = 20_000;
const ROUNDS: usize = 3;
/// How long whoever reads is away.
const AWAY: Duration = Duration::from_secs(1);

#[derive(Clone, Copy)]
enum Design {
    PacketEvents,
    ConnectionEvents,
    TupleHash,
}

/// What a run of the load came to.
struct Outcome {
    /// Microseconds of a core for a connection, in the kernel's programs and in who reads.
    spent: f64,
    /// Percent of what was to be recorded.
    lost: f64,
}

pub(crate) fn measure() -> Vec<Row> {
    let _measuring = Measuring::begin();
    let own: Vec<f64> = (0..ROUNDS).map(|_| ours(Duration::ZERO).spent).collect();
    let mut rows = vec![
        Row::new("ours: a connection", "us", &own, Goal::None),
        Row::new(
            "ours: lost, who reads is away",
            "%",
            &[ours(AWAY).lost],
            Goal::AtMost(0.0),
        ),
    ];
    for (design, name) in [
        (Design::PacketEvents, "an event a packet"),
        (Design::ConnectionEvents, "an event a connection"),
        (Design::TupleHash, "a table of 5-tuples at the interface"),
    ] {
        let others: Vec<Outcome> = (0..ROUNDS).map(|_| theirs(design, Duration::ZERO)).collect();
        let ratios: Vec<f64> = others.iter().zip(&own).map(|(other, own)| other.spent / own).collect();
        let lost: Vec<f64> = others.iter().map(|other| other.lost).collect();
        let beside = format!("{name}: a connection, beside ours");
        rows.push(Row::new(beside, "times", &ratios, Goal::AtLeast(1.0)).beside("us", others[0].spent));
        rows.push(Row::new(format!("{name}: lost"), "%", &lost, Goal::None));
        let away = [theirs(design, AWAY).lost];
        rows.push(Row::new(
            format!("{name}: lost, who reads is away"),
            "%",
            &away,
            Goal::None,
        ));
    }
    rows
}

fn load(node: &mut Node) -> (Worker, Worker, Container, Container) {
    let (client, server) = (node.container(), node.container());
    let mut serving = Worker::start(&server);
    serving.ask(&Task::Serve);
    (Worker::start(&client), serving, client, server)
}

const fn work(to: &Container) -> Task {
    Task::Connect {
        to: to.v4,
        most: CONNECTIONS,
        within: Duration::from_mins(1),
    }
}

fn spent(seconds: f64) -> f64 {
    seconds * 1e6 / CONNECTIONS as f64
}

fn ours(away: Duration) -> Outcome {
    let mut node = Node::new();
    let (mut calling, _serving, client, server) = load(&mut node);
    let learner = node.learner_with_two_capabilities(&[]);
    let (process, programs) = (learner.child.id().to_string(), learner.program_ids());
    let before = on_core(&process);
    if !away.is_zero() {
        learner.signal(Signal::STOP);
    }
    calling.begin(&work(&server));
    std::thread::sleep(away);
    learner.signal(Signal::CONT);
    calling.answer();
    // One more look of the learner's at what is there.
    std::thread::sleep(Duration::from_millis(300));
    let total = on_core(&process) - before + in_kernel(&programs);
    let report = learner.end();
    let subject = client.subject();
    let of_client = report.flows.iter().filter(|flow| flow.key.subject == subject);
    let recorded: u64 = of_client.map(|flow| flow.tally.established).sum();
    Outcome {
        spent: spent(total),
        lost: (1.0 - recorded as f64 / CONNECTIONS as f64) * 100.0,
    }
}

fn theirs(design: Design, away: Duration) -> Outcome {
    let mut node = Node::new();
    let (mut calling, _serving, client, server) = load(&mut node);
    let mut programs = EbpfLoader::new()
        .load(OBJECT)
        .expect("the kernel takes the other designs");
    let ids = attach(&mut programs, design, &node, &client);
    let events: RingBuf<MapData> = programs
        .take_map("EVENTS")
        .expect("it is there")
        .try_into()
        .expect("it is a ring");
    let tuples: Table<MapData, [u8; 16], u64> = programs
        .take_map("TUPLES")
        .expect("it is there")
        .try_into()
        .expect("it is a table");
    let missed: PerCpuArray<MapData, u64> = programs
        .take_map("MISSED")
        .expect("it is there")
        .try_into()
        .expect("it counts");
    let is_over = AtomicBool::new(false);
    let (read, by_reader) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            std::thread::sleep(away);
            let before = on_core("thread-self");
            let read = match design {
                Design::PacketEvents | Design::ConnectionEvents => read_events(events, &is_over),
                Design::TupleHash => read_tuples(tuples, &is_over),
            };
            (read, on_core("thread-self") - before)
        });
        calling.ask(&work(&server));
        is_over.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });
    let missed: u64 = missed.get(&0, 0).expect("it is there").iter().sum();
    Outcome {
        spent: spent(by_reader + in_kernel(&ids)),
        lost: missed as f64 / (read + missed) as f64 * 100.0,
    }
}

fn attach(programs: &mut Ebpf, design: Design, node: &Node, client: &Container) -> Vec<u32> {
    let name = match design {
        Design::PacketEvents => "packet_event",
        Design::ConnectionEvents => "connection_event",
        Design::TupleHash => {
            let network = File::open(client.network()).unwrap();
            let program: &mut SchedClassifier = programs.program_mut("tuple_hash").unwrap().try_into().unwrap();
            program.load().unwrap();
            std::thread::scope(|scope| {
                let attached = scope.spawn(|| {
                    move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                    qdisc_add_clsact("eth0").unwrap();
                    program.attach("eth0", TcAttachType::Ingress).unwrap();
                    program.attach("eth0", TcAttachType::Egress).unwrap();
                });
                attached.join().unwrap();
            });
            return vec![program.info().unwrap().id()];
        }
    };
    let folder = File::open(&node.cgroup).unwrap();
    let program: &mut CgroupSkb = programs.program_mut(name).unwrap().try_into().unwrap();
    program.load().unwrap();
    for way in [CgroupSkbAttachType::Ingress, CgroupSkbAttachType::Egress] {
        program.attach(&folder, way, CgroupAttachMode::Single).unwrap();
    }
    vec![program.info().unwrap().id()]
}

/// Counts events by who and whom, as who reads them must.
fn read_events(mut events: RingBuf<MapData>, is_over: &AtomicBool) -> u64 {
    let mut counts: HashMap<Vec<u8>, u64> = HashMap::new();
    let mut read = 0;
    loop {
        let was_over = is_over.load(Ordering::Relaxed);
        while let Some(event) = events.next() {
            // The cgroup and both addresses.
            let key = [&event[..8], &event[16..24]].concat();
            *counts.entry(key).or_default() += 1;
            read += 1;
        }
        if was_over {
            return read;
        }
        let mut waiting = [rustix::event::PollFd::new(&events, rustix::event::PollFlags::IN)];
        let most = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 50_000_000,
        };
        rustix::event::poll(&mut waiting, Some(&most)).ok();
    }
}

/// Takes all out of the table each second, and counts it.
fn read_tuples(mut tuples: Table<MapData, [u8; 16], u64>, is_over: &AtomicBool) -> u64 {
    let mut counts: HashMap<Vec<u8>, u64> = HashMap::new();
    let mut read = 0;
    loop {
        let was_over = is_over.load(Ordering::Relaxed);
        let keys: Vec<[u8; 16]> = tuples.keys().flatten().collect();
        for key in keys {
            let Ok(count) = tuples.get(&key, 0) else { continue };
            *counts.entry(key[..8].to_vec()).or_default() += count;
            tuples.remove(&key).ok();
            read += 1;
        }
        if was_over {
            return read;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}
