//! From a copy of what the controller knows to what is shown. Pure: the page draws it, and decides nothing.
//!
//! Law: equal copies give equal bytes. Verdicts come from the evaluator, differences from the comparison of reachability,
//! phases from the Segments.

mod compare;
mod map;
mod review;
mod segments;
mod violations;
mod what_if;

pub use map::{edge, edges, map, one_party};
pub use review::review;
pub use segments::segments;
pub use violations::{Row, novel, violation, violations};
pub use what_if::{Question, Unclear, what_if};

#[cfg(test)]
pub(super) mod tests {
    use jiff::Timestamp;
    use nanoseg_graph::connection::EdgeKey;
    use nanoseg_graph::endpoint::{Endpoint, Workload};
    use nanoseg_graph::flow::Transport;

    use crate::reconcile::Violation;

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
            other_captures: Vec::new(),
        }
    }
}
