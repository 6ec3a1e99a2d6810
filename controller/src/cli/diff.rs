//! `nanoseg diff`.

use nanoseg_policy::diff::{Change, Diff, diff};
use serde_json::json;

use super::input::Input;
use super::output::{Screen, by, combined_word};
use super::{CommandError, Found};
use crate::settings::commands::DiffArguments;
use crate::settings::output::Output;

/// What two sets of policies allow differently.
pub fn diff_policies(arguments: &DiffArguments, screen: &mut Screen<'_>) -> Result<Found, CommandError> {
    let DiffArguments {
        input,
        old,
        new,
        output,
    } = arguments;
    let others = [old.clone(), new.clone()];
    let mut input = Input::read(input, &[], &others, screen)?;
    let old = input.policies_of(old, screen)?;
    let new = input.policies_of(new, screen)?;
    input.faults.settle(screen)?;
    screen.busy("comparing what both allow");
    let found = diff(&old, &new, &input.cluster);
    let Diff {
        opened,
        closed,
        unclear,
    } = &found;
    for (kind, changes) in [("opened", opened), ("closed", closed), ("unclear", unclear)] {
        for change in changes {
            match output {
                Output::Table | Output::Wide | Output::Name => {
                    screen.line(format_args!("{kind}: {change}"))?;
                    screen.line(format_args!("  before: {}", change.before))?;
                    screen.line(format_args!("  after:  {}", change.after))?;
                }
                Output::Document(language) => screen.document(*language, &told(kind, change))?,
            }
        }
    }
    if *output == Output::Table {
        screen.line(format_args!(
            "{} opened, {} closed, {} unclear",
            opened.len(),
            closed.len(),
            unclear.len()
        ))?;
    }
    Ok(Found::when(!found.is_empty()))
}

fn told(kind: &str, change: &Change) -> serde_json::Value {
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
        "change": kind,
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
