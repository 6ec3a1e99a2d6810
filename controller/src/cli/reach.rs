//! `nanoseg reach`: how far somebody gets who has taken a workload over.

use std::collections::BTreeSet;

use nanoseg_graph::cluster::{Cluster, PodPhase};
use nanoseg_graph::endpoint::Workload;
use nanoseg_policy::map::{Passage, Ports, Reach, reach};

use super::input::Input;
use super::output::{Screen, counted};
use super::segments::propose;
use super::{CommandError, Found};
use crate::settings::maps::{ReachArguments, Wanted};
use crate::settings::output::Output;

/// Digits of a digest that are enough to mean it, as container runtimes print it.
const DIGITS: usize = 12;

/// What some workloads reach, and what reaches them.
pub fn reach_of(arguments: &ReachArguments, screen: &mut Screen<'_>) -> Result<Found, CommandError> {
    let ReachArguments {
        input: from,
        policies,
        proposals,
        workload,
        image,
        output,
    } = arguments;
    let mut input = Input::read(from, &policies.policies, &proposals.segments.files, screen)?;
    propose(proposals, from, &mut input, screen)?;
    let policies = input.policies(screen);
    input.faults.settle(screen)?;
    let of = meant(&input.cluster, workload.as_ref(), image.as_deref());
    if of.is_empty() {
        let asked = match (workload, image) {
            (Some(Wanted { namespace, kind, name }), _) => {
                let kind = kind.as_deref().unwrap_or("workload");
                format!("there is no {kind} {namespace}/{name} with a live pod {}", input.from)
            }
            (None, image) => format!("nobody runs {} {}", image.as_deref().unwrap_or_default(), input.from),
        };
        screen.remark(asked);
        return Ok(Found::Something);
    }
    screen.busy("following what policies allow");
    let found = reach(&input.cluster, &policies, &of);
    match output {
        Output::Document(language) => screen.document(*language, &found)?,
        Output::Table | Output::Wide | Output::Name => table(*output, &found, &of, screen)?,
    }
    Ok(Found::Nothing)
}

/// The workloads that are asked about, with a live pod each.
fn meant(cluster: &Cluster, wanted: Option<&Wanted>, image: Option<&str>) -> BTreeSet<Workload> {
    let mut found = BTreeSet::new();
    for pod in cluster.pods().filter(|pod| pod.phase != PodPhase::Finished) {
        let workload = cluster.workload_of(pod);
        let named = wanted.is_some_and(|Wanted { namespace, kind, name }| {
            workload.namespace == *namespace
                && workload.name == *name
                && kind
                    .as_ref()
                    .is_none_or(|kind| workload.kind.eq_ignore_ascii_case(kind))
        });
        let runs = image.is_some_and(|asked| {
            pod.images.iter().any(|image| {
                image.name == asked || image.digest.as_deref().is_some_and(|digest| is_digest(digest, asked))
            })
        });
        if named || runs {
            found.insert(workload);
        }
    }
    found
}

fn is_digest(digest: &str, asked: &str) -> bool {
    let digits = |text: &'_ str| text.strip_prefix("sha256:").unwrap_or(text).to_owned();
    let asked = digits(asked);
    let digest = digits(digest);
    digest == asked || (asked.len() >= DIGITS && digest.starts_with(&asked))
}

fn table(output: Output, found: &Reach, of: &BTreeSet<Workload>, screen: &mut Screen<'_>) -> Result<(), CommandError> {
    let Reach {
        of: _,
        reaches,
        reached_by,
        outside,
        from_outside,
        undecided,
    } = found;
    for workload in of {
        screen.line(workload)?;
    }
    for (title, end, passages) in [("reaches", "THROUGH", reaches), ("is reached by", "NEXT", reached_by)] {
        if passages.is_empty() {
            screen.line(format_args!("{title} no other workload"))?;
            continue;
        }
        screen.line(format_args!("{title}:"))?;
        let mut rows = vec![["  HOPS", "WORKLOAD", end, "PORTS"].map(str::to_owned)];
        rows.extend(passages.iter().map(row));
        screen.table(output, &rows)?;
    }
    for (title, ports) in [
        ("connects to addresses outside that no policy names", outside),
        ("accepts connections from such addresses", from_outside),
    ] {
        let ports = if ports.is_empty() {
            "no".to_owned()
        } else {
            words(ports)
        };
        screen.line(format_args!("{title}: {ports}"))?;
    }
    if *undecided > 0 {
        let pairs = counted(*undecided, "pair", "pairs");
        screen.remark(format_args!(
            "note: of {pairs} of workloads nobody can say whether they can connect"
        ));
    }
    Ok(())
}

fn row(
    Passage {
        workload,
        hops,
        through,
        ports,
    }: &Passage,
) -> [String; 4] {
    let name = |id: &str| id.strip_prefix("workload/").unwrap_or(id).to_owned();
    [format!("  {hops}"), name(workload), name(through), words(ports)]
}

fn words(ports: &[Ports]) -> String {
    ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::is_digest;

    #[test]
    fn digests_are_meant_by_all_or_enough_of_their_digits() {
        let digest = "sha256:4f53cda18c2baa0c";
        for (asked, expected) in [
            ("sha256:4f53cda18c2baa0c", true),
            ("4f53cda18c2baa0c", true),
            ("sha256:4f53cda18c2b", true),
            ("4f53cda18c2", false),
            ("", false),
            ("sha256:", false),
            ("5f53cda18c2baa0c", false),
        ] {
            assert_eq!(is_digest(digest, asked), expected, "{asked}");
        }
    }
}
