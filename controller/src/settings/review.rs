//! Arguments of the commands by which people decide on Segments.

use clap::Args;
use nanoseg_graph::flow::Transport;

use super::access::{Access, One, Which};
use super::output::{LISTS, OBJECTS, Output};
use crate::segment::{BaselineEdge, EdgeEnd};

pub(super) const STATUS_EXAMPLES: &str = "\
Examples:
  nanoseg status                        every Segment
  nanoseg status shop                   those of namespace shop; so does -n shop
  nanoseg status shop/deployment-web    one of them: conditions, what waits
  nanoseg status -o wide                with the hashes of policies
  nanoseg status shop -o name           segment.nanoseg.io/NAME, for a loop
  nanoseg status -o json | jq 'select(.status.phase == \"Stable\")'
The proposal itself:
  kubectl get segment -n shop deployment-web -o jsonpath='{.status.proposal}'

PROMOTABLE tells what keeps it from being promoted. EDGES are those of the
baseline, NOVEL those outside of it, WAITING those that wait for a person, LOSS
what was not recorded while it was learned.";

pub(super) const VIOLATIONS_EXAMPLES: &str = "\
Examples:
  nanoseg violations                       of every workload
  nanoseg violations shop                  those of namespace shop
  nanoseg violations shop/deployment-web   those of one Segment
  nanoseg violations -o wide               since when, and of which Segment
  nanoseg violations -o name               the Segments that have any
  nanoseg violations -o json | jq 'select(.decision == \"Denied\") | .source'

What policies say of one is what they said when it was found, the proposal taken
in. `nanoseg approve --novel` takes them into the baseline, `nanoseg reject
--novel` leaves them out of it for good.";

pub(super) const APPROVE_EXAMPLES: &str = "\
Examples:
  The proposal as it is now, by its hash:
    nanoseg approve shop/deployment-web
  The edges in status.quarantined belong to the baseline, or one edge does:
    nanoseg approve shop/deployment-web --quarantined
    nanoseg approve shop/deployment-web --edge 'shop/Deployment/web -> shop/StatefulSet/db TCP 5432'
  Every Segment of a namespace:
    nanoseg status shop -o name | cut -d/ -f2 | xargs -I{} nanoseg approve shop/{}

It sets spec.approval or spec.acceptedEdges; editing these does the same. A
proposal that has changed since has another hash, and is not approved by it.";

pub(super) const REJECT_EXAMPLES: &str = "\
Examples:
  The proposal: it is not applied until a person approves one:
    nanoseg reject shop/deployment-web
  The edges in status.novelEdges do not belong to the baseline, or one does not:
    nanoseg reject shop/deployment-web --novel
    nanoseg reject shop/deployment-web --edge 'shop/Deployment/thief -> shop/Deployment/web TCP 80'

It sets spec.promotion to Manual and takes spec.approval away, or sets
spec.rejectedEdges; editing these does the same.";

pub(super) const PROMOTE_EXAMPLES: &str = "\
Examples:
  From Off to Learn, from Learn to Audit, from Audit to Enforce:
    nanoseg promote shop/deployment-web
  The same, and its mode now:
    nanoseg promote shop/deployment-web -o json | jq .spec.mode

It sets spec.mode. What is enforced waits for everything that `nanoseg status`
tells, whatever the mode.";

pub(super) const ROLLBACK_EXAMPLES: &str = "\
Example:
  From Enforce to Audit: the NetworkPolicy is removed, the baseline is kept:
    nanoseg rollback shop/deployment-web

It sets spec.mode.";

/// Arguments of `nanoseg status` and `nanoseg violations`.
#[derive(Debug, Args)]
pub struct StatusArguments {
    #[command(flatten)]
    pub which: Which,
    /// How to print
    #[arg(short, long, value_parser = LISTS, default_value = "table")]
    pub output: Output,
    #[command(flatten)]
    pub access: Access,
}

/// Arguments of `nanoseg promote` and `nanoseg rollback`.
#[derive(Debug, Args)]
pub struct SegmentArguments {
    #[command(flatten)]
    pub segment: One,
    /// Print the Segment as it is now, and say what was done on stderr [default: only say what was done]
    #[arg(short, long, value_parser = OBJECTS)]
    pub output: Option<Output>,
    #[command(flatten)]
    pub access: Access,
}

/// Arguments of `nanoseg approve` and `nanoseg reject`.
#[derive(Debug, Args)]
pub struct DecisionArguments {
    #[command(flatten)]
    pub of: SegmentArguments,
    #[command(flatten)]
    pub edges: EdgeArguments,
}

/// Which edges are meant. None: the proposal is.
#[derive(Debug, Default, Args)]
pub struct EdgeArguments {
    /// An edge instead of the proposal. Can be given several times
    #[arg(long = "edge", value_name = "SOURCE -> DESTINATION PROTOCOL PORT", value_parser = edge)]
    pub named: Vec<BaselineEdge>,
    /// Every edge in status.quarantined instead of the proposal
    #[arg(long)]
    pub quarantined: bool,
    /// Every edge in status.novelEdges instead of the proposal
    #[arg(long)]
    pub novel: bool,
}

fn edge(text: &str) -> Result<BaselineEdge, String> {
    let shape = || "write for example `shop/Deployment/web -> shop/StatefulSet/db TCP 5432`".to_owned();
    let (source, rest) = text.split_once(" -> ").ok_or_else(shape)?;
    let (rest, port) = rest.rsplit_once(' ').ok_or_else(shape)?;
    let (destination, protocol) = rest.rsplit_once(' ').ok_or_else(shape)?;
    let end = |text: &str| text.trim().parse::<EdgeEnd>().map_err(|error| error.to_string());
    let transport: Transport = super::commands::transport(protocol)?;
    Ok(BaselineEdge {
        source: end(source)?,
        destination: end(destination)?,
        port: port.parse().map_err(|_no_number| format!("`{port}` is not a port"))?,
        protocol: transport.into(),
        via: Vec::new(),
        seen_at: Vec::new(),
        names: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_are_written_as_status_prints_them() {
        for (text, good) in [
            ("shop/Deployment/web -> shop/StatefulSet/db TCP 5432", true),
            ("external 203.0.113.9 -> shop/Deployment/web udp 53", true),
            ("shop/Deployment/web -> service shop/db TCP 5432", true),
            ("shop/Deployment/web shop/StatefulSet/db TCP 5432", false),
            ("web -> shop/StatefulSet/db TCP 5432", false),
            ("shop/Deployment/web -> shop/StatefulSet/db ICMP 5432", false),
            ("shop/Deployment/web -> shop/StatefulSet/db TCP http", false),
            ("shop/Deployment/web -> TCP 5432", false),
        ] {
            assert_eq!(edge(text).is_ok(), good, "{text}: {:?}", edge(text));
        }
    }
}
