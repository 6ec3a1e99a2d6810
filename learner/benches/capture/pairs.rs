//! The same work with a learner and without, in turns.
//!
//! Equal nodes: one has a learner, one has programs that do nothing where a learner has its own, two have one of these each, two
//! have nothing. One client and one server go from node to node, by the cgroup of their sockets alone: the same processes, in the
//! same networks. Each turn does the same on each node, in an order that rotates; a ratio is of two that were measured one after
//! the other. That of the two nodes without anything says what a ratio is worth.
//!
//! Client and server share one processor, and what counts is what they do in the time that they have it: on two they wait for
//! each other, and for whatever else this machine does, longer than any program takes.
//!
//! The kernel calls the programs for each packet at both ends, some twenty times for a short connection, and most of what that
//! takes it takes with programs that do nothing as well. So both are said: what a learner takes beside nothing, which is what a
//! node has less, and beside programs that do nothing, which is all that a learner could take less at these hooks. Others see
//! less: those of sockets (connect, sendmsg, `sock_ops`) are not called for a request that nobody answers at its listener, for
//! datagrams of a connected socket and their answers, for echo, SCTP and what name servers say.

use std::fs::File;
use std::ops::{Div as _, Sub as _};
use std::time::Duration;

use aya::programs::{CgroupAttachMode, CgroupSkb, CgroupSkbAttachType};
use aya::{Ebpf, EbpfLoader};

use crate::node::learner::Learner;
use crate::node::{Container, Node};
use crate::packets::EMPTY;
use crate::rows::{Goal, Row};
use crate::worker::{Task, Worker};

/// Many short turns: what else the machine does then meets both of a pair, or few pairs.
const PAIRS: usize = 200;
const TURN: Duration = Duration::from_millis(50);
/// Of so many milliseconds of single connections the slowest hundredth is two.
const LATENCY_TURN: Duration = Duration::from_millis(200);
const LATENCY_PAIRS: usize = 120;
/// The first has interrupts to serve.
const PROCESSOR: usize = 1;

/// What a node has.
#[derive(Clone, Copy)]
enum With {
    Learner,
    /// At these hooks.
    EmptyPrograms(&'static [CgroupSkbAttachType]),
    Nothing,
}

const BOTH: &[CgroupSkbAttachType] = &[CgroupSkbAttachType::Ingress, CgroupSkbAttachType::Egress];
const INGRESS: &[CgroupSkbAttachType] = &[CgroupSkbAttachType::Ingress];
const EGRESS: &[CgroupSkbAttachType] = &[CgroupSkbAttachType::Egress];

/// Cgroups of a client and a server on a node of their own.
struct Place {
    client: Container,
    server: Container,
    _learner: Option<Learner>,
    _programs: Option<Ebpf>,
    _node: Node,
}

impl Place {
    fn new(with: With) -> Self {
        let mut node = Node::new();
        let (client, server) = (node.container(), node.container());
        let (learner, programs) = match with {
            With::Learner => (Some(node.learner_with_two_capabilities(&[])), None),
            With::EmptyPrograms(hooks) => (None, Some(attach_empty(&node, hooks))),
            With::Nothing => (None, None),
        };
        Self {
            client,
            server,
            _learner: learner,
            _programs: programs,
            _node: node,
        }
    }
}

/// A client and a server that go from place to place.
struct Walk<const N: usize> {
    client: Worker,
    server: Worker,
    to: std::net::Ipv4Addr,
    places: [Place; N],
}

impl<const N: usize> Walk<N> {
    fn new(with: [With; N]) -> Self {
        let places = with.map(Place::new);
        let Place { client, server, .. } = &places[0];
        let (mut calling, mut serving) = (Worker::start(client), Worker::start(server));
        for worker in [&mut calling, &mut serving] {
            worker.ask(&Task::Stay { on: PROCESSOR });
        }
        for (place, number) in places.iter().zip(0..) {
            serving.ask(&Task::Enter {
                cgroup: place.server.cgroup().to_owned(),
                place: number,
            });
            serving.ask(&Task::Serve);
        }
        Self {
            client: calling,
            server: serving,
            to: server.v4,
            places,
        }
    }

    /// Nanoseconds that both had a core.
    fn spent(&mut self) -> f64 {
        self.client.ask(&Task::Spent) + self.server.ask(&Task::Spent)
    }

    /// Does it at a place, and says what it comes to: nanoseconds are of both ends.
    fn done(&mut self, place: usize, task: &Task, measured: Measured) -> f64 {
        self.client.ask(&Task::Enter {
            cgroup: self.places[place].client.cgroup().to_owned(),
            place: u16::try_from(place).unwrap(),
        });
        let before = self.spent();
        let said = self.client.ask(task);
        match measured {
            Measured::ForItsTime => said / (self.spent() - before) * 1e9,
            Measured::Itself => said,
        }
    }
}

fn attach_empty(node: &Node, hooks: &[CgroupSkbAttachType]) -> Ebpf {
    let mut programs = EbpfLoader::new().load(EMPTY).unwrap();
    let program: &mut CgroupSkb = programs.program_mut("empty").unwrap().try_into().unwrap();
    program.load().unwrap();
    let folder = File::open(&node.cgroup).unwrap();
    for way in hooks {
        program.attach(&folder, *way, CgroupAttachMode::Single).unwrap();
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
    let mut walk = Walk::new([
        With::Learner,
        With::EmptyPrograms(BOTH),
        With::Nothing,
        With::Nothing,
        With::EmptyPrograms(INGRESS),
        With::EmptyPrograms(EGRESS),
    ]);
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
    let mut rows = hooks(&mut walk);
    for (name, task, measured, pairs, goal) in tasks {
        // Of a tail most is other work of this machine. Only then: who uses all of a processor must not go before others.
        if matches!(measured, Measured::Itself) {
            walk.client.ask(&Task::GoFirst);
            walk.server.ask(&Task::GoFirst);
        }
        let values = in_turns(pairs, |place| {
            let task = task(walk.to);
            walk.done(place, &task, measured)
        });
        let [on, empty, off, again] = &values;
        let compared = [
            ("with a learner", on, off, goal),
            ("with programs that do nothing", empty, off, Goal::None),
            ("with a learner, beside those", on, empty, goal),
            ("without, twice (A/A)", again, off, Goal::Includes(1.0)),
        ];
        rows.extend(intervals(name, "ratio", f64::div, compared));
    }
    rows
}

/// What a connection takes in all, and what of it programs that do nothing take at each hook, and a learner at both.
fn hooks(walk: &mut Walk<6>) -> Vec<Row> {
    let values = in_turns(PAIRS, |place| {
        let task = Task::Connect {
            to: walk.to,
            most: u64::MAX,
            within: TURN,
        };
        1e9 / walk.done(place, &task, Measured::ForItsTime)
    });
    let [learner, both, off, again, ingress, egress] = &values;
    let mut rows = vec![Row::interval("a connection: without", "ns", off, Goal::None)];
    let compared = [
        ("a program that does nothing at ingress adds", ingress, off, Goal::None),
        ("a program that does nothing at egress adds", egress, off, Goal::None),
        ("programs that do nothing at both add", both, off, Goal::None),
        ("a learner adds", learner, off, Goal::None),
        ("without, twice (A/A)", again, off, Goal::Includes(0.0)),
    ];
    rows.extend(intervals("a connection", "ns", f64::sub, compared));
    rows
}

/// What each of the first places comes to in each turn, in an order that rotates. The first turn of each is for what is only done
/// once.
fn in_turns<const N: usize>(turns: usize, mut each: impl FnMut(usize) -> f64) -> [Vec<f64>; N] {
    let mut values = [const { Vec::new() }; N];
    for turn in 0..=turns {
        for step in 0..N {
            // Each is as often behind each other one, of which something stays in caches (E. J. Williams, 1949).
            let further = if step % 2 == 1 { step.div_ceil(2) } else { N - step / 2 };
            let which = (turn + further) % N;
            let value = each(which);
            if turn > 0 {
                values[which].push(value);
            }
        }
    }
    values
}

/// A row for each pair of what was measured in the same turns.
fn intervals<const N: usize>(
    name: &str,
    unit: &str,
    how: fn(f64, f64) -> f64,
    compared: [(&str, &Vec<f64>, &Vec<f64>, Goal); N],
) -> [Row; N] {
    compared.map(|(what, left, right, goal)| {
        let values: Vec<f64> = left.iter().zip(right).map(|(left, right)| how(*left, *right)).collect();
        Row::interval(format!("{name}: {what}"), unit, &values, goal)
    })
}
