//! From a copy of what the controller knows to what is shown. Pure: the page draws it, and decides nothing.
//!
//! Law: equal copies give equal bytes. Verdicts come from the evaluator, differences from the comparison of reachability,
//! phases from the Segments.

mod compare;
mod map;
mod review;
mod segments;
mod what_if;

use serde_json::{Value, json};

use super::board::Board;
use crate::reconcile::Violation;

pub use map::{edge, edges, map, one_party};
pub use review::review;
pub use segments::segments;
pub use what_if::{Question, Unclear, what_if};

/// A violation with its number.
pub fn violation(number: u64, violation: &Violation) -> Value {
    // Maps with string keys and plain values: nothing in it is beyond JSON.
    let mut told = serde_json::to_value(violation).unwrap_or_default();
    if let Some(fields) = told.as_object_mut() {
        fields.insert("number".to_owned(), number.into());
    }
    told
}

/// The violations that are kept, newest first.
pub fn violations(board: &Board) -> Value {
    let found = board.violations();
    let total = found.first().map_or(0, |(number, _)| *number);
    let found: Vec<Value> = found.iter().map(|(number, found)| violation(*number, found)).collect();
    json!({ "since": board.started(), "total": total, "violations": found })
}

#[cfg(test)]
pub(super) mod tests {
    use jiff::Timestamp;
    use nanoseg_graph::connection::EdgeKey;
    use nanoseg_graph::endpoint::{Endpoint, Workload};
    use nanoseg_graph::flow::Transport;

    use super::*;

    /// A violation at a port.
    pub(in crate::page) fn violation_of(port: u16) -> Violation {
        let workload = Workload {
            namespace: "shop".to_owned(),
            kind: "Deployment".to_owned(),
            name: "web".to_owned(),
        };
        Violation {
            at: Timestamp::UNIX_EPOCH,
            workload: workload.clone(),
            edge: EdgeKey {
                source: Endpoint::Workload(workload),
                destination: Endpoint::Node("n".to_owned()),
                port,
                transport: Transport::Tcp,
            },
            first_seen: Timestamp::UNIX_EPOCH,
            count: 1,
            verdict: "denied".to_owned(),
            decision: crate::segment::Decision::Denied,
            enforced: false,
        }
    }

    #[test]
    fn violations_are_listed_newest_first_with_their_ends() {
        let board = Board::new(Timestamp::UNIX_EPOCH);
        board.tell(&[violation_of(1), violation_of(2)]);
        let listed = violations(&board);
        assert_eq!(listed["total"], 2);
        let first = &listed["violations"][0];
        assert_eq!(first["number"], 2);
        assert_eq!(first["source"], "shop/Deployment/web");
        assert_eq!(first["destination"], "node n");
        assert_eq!(first["port"], 2);
        assert_eq!(first["protocol"], "TCP");
        assert_eq!(first["verdict"], "denied");
    }
}
