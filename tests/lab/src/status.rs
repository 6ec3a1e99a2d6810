//! Who called whom, how often, and what became of it. Pure.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;

use serde::Serialize;

use crate::app::Protocol;
use crate::peer::{Call, Failure};

/// What a line of the table is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Pair {
    /// The caller.
    pub from: String,
    /// The target, as the description writes it.
    pub to: String,
    /// Port.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// 4 or 6; none where the name did not resolve.
    pub family: Option<u8>,
}

/// What became of its calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// Calls that were answered.
    pub ok: u64,
    /// Calls that were not.
    pub failed: u64,
    /// Why the last one was not, if the last one was not.
    pub failing: Option<Failure>,
}

/// Sums calls up; they are to come oldest first.
pub fn sum<'a>(calls: impl IntoIterator<Item = &'a Call>) -> BTreeMap<Pair, Count> {
    let mut sums: BTreeMap<Pair, Count> = BTreeMap::new();
    for Call {
        at: _,
        from,
        pod: _,
        to,
        address,
        port,
        protocol,
        ok,
        error,
    } in calls
    {
        let family = address.map(|address| if IpAddr::is_ipv4(&address) { 4 } else { 6 });
        let pair = Pair {
            from: from.clone(),
            to: to.clone(),
            port: *port,
            protocol: *protocol,
            family,
        };
        let count = sums.entry(pair).or_default();
        if *ok {
            count.ok += 1;
        } else {
            count.failed += 1;
        }
        count.failing.clone_from(error);
    }
    sums
}

/// A table for people.
pub fn table(sums: &BTreeMap<Pair, Count>) -> String {
    let heads = ["FROM", "TO", "PORT", "FAMILY", "OK", "FAILED", "NOW"].map(str::to_owned);
    let rows = sums.iter().map(
        |(
            Pair {
                from,
                to,
                port,
                protocol,
                family,
            },
            Count { ok, failed, failing },
        )| {
            [
                from.clone(),
                to.clone(),
                format!("{port}/{}", protocol.as_str()),
                family.map_or_else(|| "-".to_owned(), |family| format!("IPv{family}")),
                ok.to_string(),
                failed.to_string(),
                failing.as_ref().map_or_else(|| "ok".to_owned(), Failure::to_string),
            ]
        },
    );
    let rows: Vec<[String; 7]> = std::iter::once(heads).chain(rows).collect();
    let widths: [usize; 7] = std::array::from_fn(|column| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or_default()
    });
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            // Writing into a string cannot fail.
            let _infallible = write!(line, "{cell:<width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// As `-o json` prints it.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    /// Who and whom.
    #[serde(flatten)]
    pub pair: &'a Pair,
    /// What became of it.
    #[serde(flatten)]
    pub count: &'a Count,
}
