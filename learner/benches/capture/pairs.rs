//! The same work with a learner and without, in turns.
//!
//! Four equal nodes: one has a learner, one has programs that do nothing, two have nothing. Each turn does the same on each of
//! them, in an order that rotates; a ratio is of two that were measured one after the other. That of the two nodes without
//! anything says what a ratio is worth.
//!
//! Client and server share one processor, and what counts is what they do in the time that they have it: on two they wait for
//! each other, and for whatever else this machine does, longer than any program takes.

use std::fs::File;
use std::time::Duration;

use aya::programs::{CgroupAttachMode, CgroupSkb, CgroupSkbAttachType};
use aya::{Ebpf, EbpfLoader};

use crate::node::learner::Learner;
use crate::node::{Container, Node};
use crate::packets::EMPTY;
use crate::rows::{Goal, Row};
use crate::worker::{Task, Worker};

/// Many short turns: what else the machine does then meets both of a pair, or few pairs.
const PAIRS: usize = 80;
const TURN: Duration = Duration::from_millis(100);
/// Of so many milliseconds of single connections the slowest hundredth is five.
const LATENCY_TURN: Duration = Duration::from_millis(500);
const LATENCY_PAIRS: usize = 40;
/// The first has interrupts to serve.
const PROCESSOR: usize = 1;

/// What a node has.
#[derive(Clone, Copy)]
enum With {
    Learner,
    EmptyPrograms,
    Nothing,
}

/// A client and a server on a node of their own.
struct Place {
    client: Worker,
    server: Worker,
    to: std::net::Ipv4Addr,
    _learner: Option<Learner>,
    _programs: Option<Ebpf>,
    _containers: [Container; 2],
    _node: Node,
}

impl Place {
    fn new(with: With) -> Self {
        let mut node = Node::new();
        let (client, server) = (node.container(), node.container());
        let (learner, programs) = match with {
            With::Learner => (Some(node.learner_with_two_capabilities(&[])), None),
            With::EmptyPrograms => (None, Some(attach_empty(&node))),
            With::Nothing => (None, None),
        };
        let [mut calling, mut serving] = [&client, &server].map(Worker::start);
        for worker in [&mut calling, &mut serving] {
            worker.ask(Task::Stay { on: PROCESSOR });
        }
        serving.ask(Task::Serve);
        Self {
            client: calling,
            server: serving,
            to: server.v4,
            _learner: learner,
            _programs: programs,
            _containers: [client, server],
            _node: node,
        }
    }

    /// Nanoseconds that both had a core.
    fn spent(&mut self) -> f64 {
        self.client.ask(Task::Spent) + self.server.ask(Task::Spent)
    }
}

fn attach_empty(node: &Node) -> Ebpf {
    let mut programs = EbpfLoader::new().load(EMPTY).unwrap();
    let program: &mut CgroupSkb = programs.program_mut("empty").unwrap().try_into().unwrap();
    program.load().unwrap();
    let folder = File::open(&node.cgroup).unwrap();
    for way in [CgroupSkbAttachType::Ingress, CgroupSkbAttachType::Egress] {
        program.attach(&folder, way, CgroupAttachMode::Single).unwrap();
    }
    programs
}

/// What is compared.
#[derive(Clone, Copy)]
enum Measured {
    /// What the task says, for each second that both ends had a core.
    ForItsTime,
    /// What the task says.
    Itself,
}

type Tasked = Box<dyn Fn(std::net::Ipv4Addr) -> Task>;

pub(crate) fn measure() -> Vec<Row> {
    let mut places = [With::Learner, With::EmptyPrograms, With::Nothing, With::Nothing].map(Place::new);
    let send = |streams| {
        move |to| Task::Send {
            to,
            streams,
            within: TURN,
        }
    };
    let tasks: [(&str, Tasked, Measured, usize, Goal); 5] = [
        (
            "new connections a second of a core",
            Box::new(|to| Task::Connect {
                to,
                most: u64::MAX,
                within: TURN,
            }),
            Measured::ForItsTime,
            PAIRS,
            Goal::AtLeast(0.99),
        ),
        (
            "TCP throughput of a core, 1 stream",
            Box::new(send(1)),
            Measured::ForItsTime,
            PAIRS,
            Goal::AtLeast(0.995),
        ),
        (
            "TCP throughput of a core, 8 streams",
            Box::new(send(8)),
            Measured::ForItsTime,
            PAIRS,
            Goal::AtLeast(0.995),
        ),
        (
            "UDP datagrams of 64 bytes a second of a core",
            Box::new(|to| Task::SendDatagrams { to, within: TURN }),
            Measured::ForItsTime,
            PAIRS,
            Goal::None,
        ),
        (
            "p99 of a connection at 1,000 a second",
            Box::new(|to| Task::Latency {
                to,
                rate: 1000,
                within: LATENCY_TURN,
            }),
            Measured::Itself,
            LATENCY_PAIRS,
            Goal::AtMost(1.02),
        ),
    ];
    let mut rows = Vec::new();
    for (name, task, measured, pairs, goal) in tasks {
        let mut values: [Vec<f64>; 4] = Default::default();
        // The first turn of each is for what is only done once.
        for turn in 0..=pairs {
            for step in 0..places.len() {
                let which = (turn + step) % places.len();
                let place = &mut places[which];
                let before = place.spent();
                let said = place.client.ask(task(place.to));
                let value = match measured {
                    Measured::ForItsTime => said / (place.spent() - before),
                    Measured::Itself => said,
                };
                if turn > 0 {
                    values[which].push(value);
                }
            }
        }
        let [on, empty, off, again] = values;
        let ratios = |left: &[f64], right: &[f64]| {
            left.iter()
                .zip(right)
                .map(|(left, right)| left / right)
                .collect::<Vec<f64>>()
        };
        rows.push(Row::interval(
            format!("{name}: with a learner"),
            "ratio",
            &ratios(&on, &off),
            goal,
        ));
        rows.push(Row::interval(
            format!("{name}: with programs that do nothing"),
            "ratio",
            &ratios(&empty, &off),
            Goal::None,
        ));
        rows.push(Row::interval(
            format!("{name}: without, twice (A/A)"),
            "ratio",
            &ratios(&again, &off),
            Goal::Includes(1.0),
        ));
    }
    rows
}
