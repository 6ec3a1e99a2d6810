//! What a person's decision changes in a Segment. Pure.
//!
//! Laws: a decision changes the spec alone; what is approved was a proposal when it was looked at; an edge is accepted or
//! rejected, never both.

use super::super::output::counted;
use crate::segment::{BaselineEdge, Mode, Promotion, Segment};
use crate::settings::review::EdgeArguments;

/// What a person decides.
#[derive(Debug)]
pub(super) enum Decision<'a> {
    /// The proposal, or edges, are good.
    Approve(&'a EdgeArguments),
    /// They are not.
    Reject(&'a EdgeArguments),
    /// One mode further.
    Promote,
    /// From enforcing back to auditing.
    Rollback,
}

/// Why a decision cannot be made.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Undecided {
    /// There is nothing to approve.
    #[error("there is no proposal to approve yet: {reason}")]
    NoProposal {
        /// What the controller says.
        reason: String,
    },
    /// None of the edges meant is there.
    #[error("no such edge waits for a decision; `nanoseg status NAMESPACE/SEGMENT` lists them")]
    NoEdges,
    /// There is no mode further.
    #[error("its mode is Enforce already; what keeps it from being enforced, `nanoseg status` tells")]
    Enforced,
    /// Nothing is enforced.
    #[error("nothing of it is enforced: its mode is {mode}")]
    NotEnforced {
        /// What holds.
        mode: &'static str,
    },
}

/// Makes a decision, and tells it as a sentence.
pub(super) fn decide(segment: &mut Segment, decision: &Decision<'_>) -> Result<String, Undecided> {
    let Segment { spec, status, .. } = segment;
    let status = status.as_ref();
    let mode = spec.mode.or_else(|| status?.mode).unwrap_or(Mode::Learn);
    match decision {
        Decision::Approve(edges) if is_none(edges) => {
            let hash = status.and_then(|status| status.proposal_hash.clone());
            let hash = hash.ok_or_else(|| Undecided::NoProposal {
                reason: status.map_or_else(
                    || "the controller has not seen it".to_owned(),
                    |status| status.reason.clone(),
                ),
            })?;
            let later = match spec.promotion.unwrap_or_default() {
                Promotion::Manual => "a proposal that changes needs another approval",
                Promotion::Auto => "its promotion is Auto: a proposal that changes is applied without approval",
            };
            let done = format!("approved {hash}; {later}");
            spec.approval = Some(hash);
            Ok(done)
        }
        Decision::Approve(edges) => {
            let edges = meant(segment, edges)?;
            let spec = &mut segment.spec;
            shift(&edges, &mut spec.rejected_edges, &mut spec.accepted_edges);
            let edges = counted(edges.len(), "edge belongs", "edges belong");
            Ok(format!("{edges} to the baseline"))
        }
        Decision::Reject(edges) if is_none(edges) => {
            spec.promotion = Some(Promotion::Manual);
            spec.approval = None;
            Ok(
                "no proposal is applied until one is approved; what is live stays, `nanoseg rollback` removes it"
                    .to_owned(),
            )
        }
        Decision::Reject(edges) => {
            let edges = meant(segment, edges)?;
            let spec = &mut segment.spec;
            shift(&edges, &mut spec.accepted_edges, &mut spec.rejected_edges);
            let edges = counted(edges.len(), "edge does", "edges do");
            Ok(format!("{edges} not belong to the baseline"))
        }
        Decision::Promote => {
            let next = match mode {
                Mode::Off => Mode::Learn,
                Mode::Learn => Mode::Audit,
                Mode::Audit => Mode::Enforce,
                Mode::Enforce => return Err(Undecided::Enforced),
            };
            spec.mode = Some(next);
            Ok(format!("its mode was {} and is {}", mode.as_str(), next.as_str()))
        }
        Decision::Rollback => {
            let applied = status.is_some_and(|status| status.applied_hash.is_some());
            if mode != Mode::Enforce && !applied {
                return Err(Undecided::NotEnforced { mode: mode.as_str() });
            }
            spec.mode = Some(Mode::Audit);
            Ok("its mode is Audit: the NetworkPolicy is removed, the baseline is kept".to_owned())
        }
    }
}

const fn is_none(
    EdgeArguments {
        named,
        quarantined,
        novel,
    }: &EdgeArguments,
) -> bool {
    named.is_empty() && !*quarantined && !*novel
}

fn meant(segment: &Segment, arguments: &EdgeArguments) -> Result<Vec<BaselineEdge>, Undecided> {
    let EdgeArguments {
        named,
        quarantined,
        novel,
    } = arguments;
    let mut edges = named.clone();
    if let Some(status) = &segment.status {
        if *quarantined {
            edges.extend(status.quarantined.iter().map(|quarantined| quarantined.edge.clone()));
        }
        if *novel {
            edges.extend(status.novel_edges.iter().map(|novel| novel.edge.clone()));
        }
    }
    if edges.is_empty() {
        Err(Undecided::NoEdges)
    } else {
        Ok(edges)
    }
}

/// Takes edges out of one list and puts them into another, once.
fn shift(edges: &[BaselineEdge], from: &mut Vec<BaselineEdge>, to: &mut Vec<BaselineEdge>) {
    for edge in edges {
        let same = |other: &BaselineEdge| {
            (&other.source, &other.destination, other.port, other.protocol)
                == (&edge.source, &edge.destination, edge.port, edge.protocol)
        };
        from.retain(|other| !same(other));
        if !to.iter().any(same) {
            to.push(edge.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use nanoseg_graph::endpoint::{Endpoint, Workload};
    use serde_json::json;

    use super::*;
    use crate::segment::{EdgeEnd, Protocol, QuarantinedEdge, Suspicion};

    fn edge(port: u16) -> BaselineEdge {
        BaselineEdge {
            source: EdgeEnd(Endpoint::External("203.0.113.9".parse().unwrap())),
            destination: EdgeEnd(Endpoint::Node("node1".to_owned())),
            port,
            protocol: Protocol::Tcp,
            via: Vec::new(),
            seen_at: Vec::new(),
            names: Vec::new(),
        }
    }

    fn segment(mode: Mode, hash: Option<&str>) -> Segment {
        let mut segment = Segment::of(&Workload {
            namespace: "shop".to_owned(),
            kind: "Deployment".to_owned(),
            name: "web".to_owned(),
        });
        let status = json!({
            "phase": "Proposed", "reason": "because", "mode": mode, "learningSince": Timestamp::UNIX_EPOCH, "proposalHash": hash,
        });
        segment.status = serde_json::from_value(status).unwrap();
        let quarantined = QuarantinedEdge {
            edge: edge(1),
            suspicion: Suspicion::Ports,
        };
        segment.status.as_mut().unwrap().quarantined = vec![quarantined];
        segment
    }

    #[test]
    fn modes_go_up_one_by_one_and_back_to_audit() {
        for (mode, up) in [
            (Mode::Off, Ok(Mode::Learn)),
            (Mode::Learn, Ok(Mode::Audit)),
            (Mode::Audit, Ok(Mode::Enforce)),
            (Mode::Enforce, Err(Undecided::Enforced)),
        ] {
            let mut promoted = segment(mode, None);
            let done = decide(&mut promoted, &Decision::Promote);
            assert_eq!(done.map(|_| promoted.spec.mode), up.map(Some));
            let mut back = segment(mode, None);
            let done = decide(&mut back, &Decision::Rollback);
            let expected = if mode == Mode::Enforce {
                Ok(Some(Mode::Audit))
            } else {
                Err(Undecided::NotEnforced { mode: mode.as_str() })
            };
            assert_eq!(done.map(|_| back.spec.mode), expected);
        }
    }

    #[test]
    fn what_is_approved_is_named() {
        let none = EdgeArguments::default();
        let mut proposed = segment(Mode::Enforce, Some("sha256:abc"));
        let done = decide(&mut proposed, &Decision::Approve(&none)).unwrap();
        assert!(done.starts_with("approved sha256:abc; "), "{done}");
        assert_eq!(proposed.spec.approval.as_deref(), Some("sha256:abc"));
        decide(&mut proposed, &Decision::Reject(&none)).unwrap();
        assert_eq!(
            (proposed.spec.approval, proposed.spec.promotion),
            (None, Some(Promotion::Manual))
        );
        let reason = "because".to_owned();
        let done = decide(&mut segment(Mode::Enforce, None), &Decision::Approve(&none));
        assert_eq!(done, Err(Undecided::NoProposal { reason }));
    }

    #[test]
    fn an_edge_is_accepted_or_rejected_and_never_both() {
        let meant = EdgeArguments {
            named: vec![edge(2), edge(2)],
            quarantined: true,
            novel: true,
        };
        let mut segment = segment(Mode::Enforce, None);
        let ports = |edges: &[BaselineEdge]| edges.iter().map(|edge| edge.port).collect::<Vec<_>>();
        for _twice in 0..2 {
            decide(&mut segment, &Decision::Approve(&meant)).unwrap();
            assert_eq!(
                (ports(&segment.spec.accepted_edges), ports(&segment.spec.rejected_edges)),
                (vec![2, 1], vec![])
            );
            decide(&mut segment, &Decision::Reject(&meant)).unwrap();
            assert_eq!(
                (ports(&segment.spec.accepted_edges), ports(&segment.spec.rejected_edges)),
                (vec![], vec![2, 1])
            );
        }
        let novel = EdgeArguments {
            novel: true,
            ..EdgeArguments::default()
        };
        assert_eq!(decide(&mut segment, &Decision::Reject(&novel)), Err(Undecided::NoEdges));
    }
}
