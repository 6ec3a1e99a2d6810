//! The same work with a learner and without, in turns.
//!
//! Three equal nodes, of which one has a learner. Each turn does the same on each of them, in an order that rotates; a ratio is
//! of two that were measured one after the other. That of the two nodes without a learner says what a ratio is worth.

use std::time::Duration;

use crate::node::learner::Learner;
use crate::node::{Container, Node};
use crate::rows::{Goal, Row};
use crate::worker::{Task, Worker};

/// Many short turns: what else the machine does then meets both of a pair, or few pairs.
const PAIRS: usize = 60;
const TURN: Duration = Duration::from_millis(100);

/// A client and a server on a node of their own.
struct Place {
    client: Worker,
    _server: Worker,
    to: std::net::Ipv4Addr,
    _learner: Option<Learner>,
    _containers: [Container; 2],
    _node: Node,
}

impl Place {
    fn new(has_learner: bool) -> Self {
        let mut node = Node::new();
        let (client, server) = (node.container(), node.container());
        let learner = has_learner.then(|| node.learner_with_two_capabilities(&[]));
        let mut serving = Worker::start(&server);
        serving.ask(Task::Serve);
        Self {
            client: Worker::start(&client),
            _server: serving,
            to: server.v4,
            _learner: learner,
            _containers: [client, server],
            _node: node,
        }
    }
}

type Tasked = Box<dyn Fn(std::net::Ipv4Addr) -> Task>;

pub(crate) fn measure() -> Vec<Row> {
    let mut places = [true, false, false].map(Place::new);
    let send = |streams| {
        move |to| Task::Send {
            to,
            streams,
            within: TURN,
        }
    };
    let tasks: [(&str, Tasked, Goal); 5] = [
        (
            "new connections a second",
            Box::new(|to| Task::Connect {
                to,
                most: u64::MAX,
                within: TURN,
            }),
            Goal::AtLeast(0.99),
        ),
        ("TCP throughput, 1 stream", Box::new(send(1)), Goal::AtLeast(0.995)),
        ("TCP throughput, 8 streams", Box::new(send(8)), Goal::AtLeast(0.995)),
        (
            "UDP datagrams of 64 bytes a second",
            Box::new(|to| Task::SendDatagrams { to, within: TURN }),
            Goal::None,
        ),
        (
            "p99 of a connection at 1,000 a second",
            Box::new(|to| Task::Latency {
                to,
                rate: 1000,
                within: TURN,
            }),
            Goal::AtMost(1.02),
        ),
    ];
    let mut rows = Vec::new();
    for (name, task, goal) in tasks {
        let mut values: [Vec<f64>; 3] = Default::default();
        // The first turn of each is for what is only done once.
        for turn in 0..=PAIRS {
            for step in 0..places.len() {
                let which = (turn + step) % places.len();
                let place = &mut places[which];
                let value = place.client.ask(task(place.to));
                if turn > 0 {
                    values[which].push(value);
                }
            }
        }
        let [on, off, again] = values;
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
            format!("{name}: without, twice (A/A)"),
            "ratio",
            &ratios(&again, &off),
            Goal::Includes(1.0),
        ));
    }
    rows
}
