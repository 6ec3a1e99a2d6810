//! `nanoseg violations`: what happened outside of frozen baselines.

use std::collections::BTreeSet;

use jiff::Timestamp;
use nanoseg_graph::flow::Transport;

use super::RESOURCE;
use crate::cli::output::Screen;
use crate::cli::segments::of_cluster;
use crate::cli::{CommandError, Found};
use crate::page::views::{Row, novel};
use crate::settings::output::Output;
use crate::settings::review::StatusArguments;

const HEAD: [&str; 6] = ["POLICIES SAY", "SOURCE", "DESTINATION", "PORT", "TRIES", "AGE"];

/// Lists them.
pub fn violations(arguments: &StatusArguments, screen: &mut Screen<'_>) -> Result<Found, CommandError> {
    let StatusArguments { which, output, access } = arguments;
    let segments = of_cluster(which, access, screen)?;
    let told: Vec<Row> = segments.iter().flat_map(novel).collect();
    let now = Timestamp::now();
    match output {
        Output::Document(language) => {
            for row in &told {
                screen.document(*language, row)?;
            }
        }
        Output::Name => {
            let names: BTreeSet<&[String; 2]> = told.iter().map(|row| &row.segment).collect();
            for [_, name] in names {
                screen.name(RESOURCE, name)?;
            }
        }
        Output::Table | Output::Wide if told.is_empty() => {
            screen.remark("no connection is outside of a frozen baseline");
        }
        Output::Table => {
            let rows = told.iter().map(|row| six(row, now));
            let rows: Vec<[String; 6]> = [HEAD.map(str::to_owned)].into_iter().chain(rows).collect();
            screen.table(*output, &rows)?;
        }
        Output::Wide => {
            let rows = told.iter().map(|row| eight(row, now));
            let [said, source, destination, port, tries, age] = HEAD;
            let head = [said, source, destination, port, tries, age, "FIRST SEEN", "SEGMENT"].map(str::to_owned);
            let rows: Vec<[String; 8]> = [head].into_iter().chain(rows).collect();
            screen.table(*output, &rows)?;
        }
    }
    Ok(Found::Nothing)
}

fn six(row: &Row, now: Timestamp) -> [String; 6] {
    let edge = &row.edge;
    [
        row.decided.unwrap_or_default().to_owned(),
        edge.source.to_string(),
        edge.destination.to_string(),
        format!("{} {}", Transport::from(edge.protocol), edge.port),
        row.count.to_string(),
        row.first_seen.map(|at| age(at, now)).unwrap_or_default(),
    ]
}

fn eight(row: &Row, now: Timestamp) -> [String; 8] {
    let [said, source, destination, port, tries, age] = six(row, now);
    let first_seen = row.first_seen.map(|at| at.to_string()).unwrap_or_default();
    [
        said,
        source,
        destination,
        port,
        tries,
        age,
        first_seen,
        row.segment.join("/"),
    ]
}

/// How long ago, in the largest unit of which there are two.
fn age(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_told_as_kubectl_does() {
        let then = Timestamp::UNIX_EPOCH;
        for (seconds, expected) in [
            (-5, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (7_199, "119m"),
            (7_200, "2h"),
            (172_799, "47h"),
            (172_800, "2d"),
        ] {
            assert_eq!(
                age(then, Timestamp::from_second(seconds).unwrap()),
                expected,
                "{seconds}"
            );
        }
    }
}
