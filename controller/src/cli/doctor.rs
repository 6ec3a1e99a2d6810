//! `nanoseg doctor`.

use super::output::Screen;
use super::{CommandError, Found};
use crate::doctor::{self, Verdict};
use crate::read::live::with_cluster;
use crate::settings::doctor::DoctorArguments;
use crate::settings::output::Output;

/// Says what is wrong.
pub fn doctor(arguments: &DoctorArguments, screen: &mut Screen<'_>) -> Result<Found, CommandError> {
    if arguments.probe {
        let seconds = arguments.settle.as_secs() + 30;
        screen.remark(format_args!(
            "probing by pods in a namespace of their own, about {seconds} s ..."
        ));
    }
    let findings = with_cluster(&arguments.access, async |client, _url| {
        Ok::<_, CommandError>(doctor::examine(&client, arguments).await?)
    })?;
    match arguments.output {
        Output::Document(language) => {
            for finding in &findings {
                screen.document(language, finding)?;
            }
        }
        Output::Table | Output::Wide | Output::Name => {
            let mut rows = vec![["CHECK", "VERDICT", "FOUND"].map(str::to_owned)];
            for finding in &findings {
                rows.push([
                    finding.check.clone(),
                    finding.verdict.to_string(),
                    finding.found.clone(),
                ]);
                // Below what it is about.
                if let Some(advice) = &finding.advice {
                    rows.push([String::new(), String::new(), format!("-> {advice}")]);
                }
            }
            screen.table(arguments.output, &rows)?;
        }
    }
    Ok(Found::when(
        findings.iter().any(|finding| finding.verdict == Verdict::Fault),
    ))
}
