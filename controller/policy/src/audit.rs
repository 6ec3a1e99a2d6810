//! Which observed edges a set of policies would deny, and why.
//!
//! Law: every edge of the graph is counted exactly once: as denied when any pair of live ends behind it is, else as undecided
//! when any pair has no answer, else as permitted.

use nanoseg_graph::cluster::Cluster;
use nanoseg_graph::connection::{ConnectionGraph, EdgeKey};

use crate::ends::Ends;
pub use crate::ends::NoEnds;
use crate::evaluate::{Connection, Denial, Evaluator, PolicySet, Undecidable, Verdict};

/// An edge that would be denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The edge.
    pub edge: EdgeKey,
    /// The first pair of ends that would be denied.
    pub connection: Connection,
    /// Why that pair would be.
    pub why: Vec<Denial>,
    /// How many pairs would be denied.
    pub denied: usize,
    /// How many pairs there are.
    pub pairs: usize,
}

/// Why an edge could not be decided.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// There is nobody to ask about.
    NoEnds(NoEnds),
    /// The evaluator has no answer for at least one pair.
    Unknown(Undecidable),
}

/// What policies would do to a graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Edges that would be denied, in the order of the graph.
    pub denied: Vec<Finding>,
    /// Edges of which it cannot be said, in the order of the graph.
    pub undecided: Vec<(EdgeKey, Why)>,
    /// How many edges would pass.
    pub permitted: usize,
}

/// Asks about every edge, whatever became of it when it was observed.
pub fn audit(graph: &ConnectionGraph, policies: &PolicySet, cluster: &Cluster) -> Audit {
    let evaluator = Evaluator::new(policies, cluster);
    let ends = Ends::new(cluster);
    let mut audit = Audit::default();
    for (edge, _) in graph.edges() {
        let connections = match ends.connections(edge) {
            Ok(connections) => connections,
            Err(why) => {
                audit.undecided.push((edge.clone(), Why::NoEnds(why)));
                continue;
            }
        };
        let mut first: Option<(Connection, Vec<Denial>)> = None;
        let mut denied = 0;
        let mut unknown = None;
        let mut possible = 0;
        for connection in &connections {
            match evaluator.evaluate(connection).combined() {
                Verdict::Denied(why) => {
                    denied += 1;
                    first.get_or_insert_with(|| (connection.clone(), why));
                }
                // An IPv4 and an IPv6 pod of two dual-stack workloads never were the ends of this edge.
                Verdict::Unknown(Undecidable::NoCommonFamily) => continue,
                Verdict::Unknown(why) => unknown = unknown.or(Some(why)),
                Verdict::Allowed(_) | Verdict::NotIsolated => {}
            }
            possible += 1;
        }
        match (first, unknown) {
            (Some((connection, why)), _) => {
                audit.denied.push(Finding {
                    edge: edge.clone(),
                    connection,
                    why,
                    denied,
                    pairs: possible,
                });
            }
            (None, Some(why)) => audit.undecided.push((edge.clone(), Why::Unknown(why))),
            (None, None) if possible == 0 => {
                audit
                    .undecided
                    .push((edge.clone(), Why::Unknown(Undecidable::NoCommonFamily)));
            }
            (None, None) => audit.permitted += 1,
        }
    }
    audit
}
