//! `nanoseg diff`.

use nanoseg_policy::diff::{Change, Kind, diff, summary};
use serde_json::json;

use super::input::Input;
use super::output::{Screen, by, combined_word};
use super::segments::{of_cluster, of_files, proposals};
use super::{CommandError, Found};
use crate::segment::Segment;
use crate::settings::commands::{DiffArguments, SegmentFiles};
use crate::settings::output::Output;

/// What two sets of policies allow differently.
pub fn diff_policies(arguments: &DiffArguments, screen: &mut Screen<'_>) -> Result<Found, CommandError> {
    let DiffArguments {
        which,
        input: from,
        old,
        new,
        segments: SegmentFiles { files },
        output,
    } = arguments;
    let others: Vec<_> = old.iter().chain(new).chain(files).cloned().collect();
    let mut input = Input::read(from, &[], &others, screen)?;
    // The command line demands both or none.
    let (old, new) = if let (Some(old), Some(new)) = (old, new) {
        (input.policies_of(old, screen)?, input.policies_of(new, screen)?)
    } else {
        let segments = match &from.cluster[..] {
            [] => of_cluster(which, &from.access, screen)?,
            [..] if files.is_empty() => return Err(CommandError::NothingToCompare),
            [..] => of_files(files, &mut input, screen)?,
        };
        let meant: Vec<Segment> = segments
            .into_iter()
            .filter(|segment| which.means(&segment.segment_name()))
            .collect();
        let proposals = proposals(&meant, &mut input, screen);
        if proposals.is_empty() {
            screen.remark("note: nothing is proposed");
        }
        let old = input.policies(screen);
        input.policies.extend(proposals);
        (old, input.policies(screen))
    };
    input.faults.settle(screen)?;
    screen.busy("comparing what both allow");
    let found = diff(&old, &new, &input.cluster);
    for party in &found.undecided {
        screen.remark(format_args!(
            "note: other rules than before apply to {party}; its pods use their nodes' network, and what policies do to them \
             depends on the network plugin"
        ));
    }
    match output {
        // In full, as one needs it to look for something in it.
        Output::Wide | Output::Document(_) => {
            for (kind, change) in found.all() {
                if let Output::Document(language) = output {
                    screen.document(*language, &told(kind, change))?;
                    continue;
                }
                screen.line(format_args!("{}: {change}", kind.as_str()))?;
                screen.line(format_args!("  before: {}", change.before))?;
                screen.line(format_args!("  after:  {}", change.after))?;
            }
        }
        Output::Table | Output::Name => {
            for group in summary(&found) {
                screen.line(format_args!("{}: {group}", group.kind.as_str()))?;
                for line in &group.lines {
                    screen.line(format_args!("  {}", line.told(&group)))?;
                }
            }
        }
    }
    if matches!(output, Output::Table | Output::Wide) {
        let counted = Kind::ALL.map(|kind| format!("{} {}", found.of(kind).len(), kind.as_str()));
        screen.line(counted.join(", "))?;
    }
    Ok(Found::when(!found.is_empty()))
}

fn told(kind: Kind, change: &Change) -> serde_json::Value {
    let Change {
        source,
        destination,
        transport,
        ports: (first, last),
        pairs,
        of,
        before,
        after,
    } = change;
    let verdict =
        |verdict| json!({ "verdict": combined_word(verdict), "by": by(verdict), "reason": verdict.to_string() });
    json!({
        "change": kind.as_str(),
        "source": source.to_string(),
        "destination": destination.to_string(),
        "protocol": transport.as_str(),
        "port": first,
        "endPort": last,
        "pairs": pairs,
        "of": of,
        "before": verdict(before),
        "after": verdict(after),
    })
}
