//! What a map says, as tables for people: the same in every form that has tables.

use nanoseg_graph::flow::Reporter;

use super::super::change::{Changes, EdgeChange, WorkloadChange};
use super::super::document::{
    Answer, Edge, Exposure, How, Image, Isolation, IsolationStatus, Judgement, Map, Moment, Ports, Side, State, Who,
};
use super::Known;

/// A table with its title.
pub(super) struct Table {
    pub(super) title: &'static str,
    /// What to say where there is no row.
    pub(super) empty: &'static str,
    pub(super) head: &'static [&'static str],
    pub(super) rows: Vec<Vec<Cell>>,
}

/// A cell.
pub(super) enum Cell {
    /// Words of ours.
    Words(String),
    /// What somebody chose, or words that hold such names.
    Name(String),
}

impl Cell {
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Words(text) | Self::Name(text) => text,
        }
    }
}

fn words(text: impl Into<String>) -> Cell {
    Cell::Words(text.into())
}

fn name(text: impl Into<String>) -> Cell {
    Cell::Name(text.into())
}

/// Every table, in the order in which they are read.
pub(super) fn all(map: &Map, changes: Option<&Changes>) -> Vec<Table> {
    let known = Known::of(map);
    let mut tables = vec![summary(map)];
    tables.extend(changes.map(|changes| changed(changes, &known)));
    tables.extend([
        open(map),
        exposures(map, &known),
        unused(map),
        controls(map),
        workloads(map),
        connections(map, &known),
    ]);
    tables
}

fn summary(map: &Map) -> Table {
    let totals = &map.totals;
    let mut rows = Vec::new();
    let mut row = |what: &str, count: String| rows.push(vec![words(what), words(count)]);
    if let Some(observed) = map.observed {
        row(
            "observed",
            format!("{} to {}", observed.first_seen.0, observed.last_seen.0),
        );
    }
    row(
        "workloads",
        format!("{} with {} live pods", totals.workloads, totals.pods),
    );
    row("not isolated in ingress", totals.open_ingress.to_string());
    row("not isolated in egress", totals.open_egress.to_string());
    row("nodes", totals.nodes.to_string());
    row("addresses outside", totals.external.to_string());
    row("ends that nobody knows", totals.unknown.to_string());
    row("connections", totals.edges.to_string());
    for state in State::ALL {
        if let Some(count) = totals.states.get(&state) {
            row(state.words(), count.to_string());
        }
    }
    row("rules", totals.rules.to_string());
    row("rules that nothing used", totals.unused_rules.to_string());
    Table {
        title: "Summary",
        empty: "",
        head: &["what", "how many"],
        rows,
    }
}

fn open(map: &Map) -> Table {
    let status = |isolation: &Isolation| match isolation.status {
        IsolationStatus::Isolated => "isolated",
        IsolationStatus::Partly => "some pods are not isolated",
        IsolationStatus::Open => "not isolated",
        IsolationStatus::NodeNetwork => "on its node's network",
        IsolationStatus::NoPods => "no live pod",
    };
    let rows = map.parties.iter().filter_map(|party| {
        let Who::Workload(workload) = &party.who else {
            return None;
        };
        let protection = &workload.protection;
        let lies_open = protection.ingress.status.is_open() || protection.egress.status.is_open();
        lies_open.then(|| {
            vec![
                name(super::words(party)),
                words(status(&protection.ingress)),
                words(status(&protection.egress)),
                words(workload.pods.len().to_string()),
                name(
                    workload
                        .segment
                        .as_ref()
                        .map(|segment| segment.phase.clone())
                        .unwrap_or_default(),
                ),
            ]
        })
    });
    Table {
        title: "Unprotected workloads",
        empty: "Every workload is isolated in both directions.",
        head: &["workload", "ingress", "egress", "pods", "phase"],
        rows: rows.collect(),
    }
}

fn ports(ports: &[Ports]) -> String {
    ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

const fn how(how: How) -> &'static str {
    match how {
        How::NodePort => "port of every node",
        How::ExternalAddress => "address outside of the cluster",
        How::FromAnywhere => "policies allow it from addresses that they do not name",
    }
}

fn exposures(map: &Map, known: &Known<'_>) -> Table {
    let rows = map.exposures.iter().map(|exposure| {
        let addresses: Vec<String> = exposure.addresses.iter().map(ToString::to_string).collect();
        vec![
            words(how(exposure.how)),
            name(exposure.service.clone().unwrap_or_default()),
            words(addresses.join(", ")),
            words(ports(&exposure.ports)),
            name(reached(exposure, known)),
        ]
    });
    Table {
        title: "External exposure",
        empty: "Nothing can be reached from outside of the cluster.",
        head: &["how", "Service", "addresses", "ports", "workloads"],
        rows: rows.collect(),
    }
}

fn reached(exposure: &Exposure, known: &Known<'_>) -> String {
    let workloads = exposure.workloads.iter().map(|id| known.words(id));
    workloads.collect::<Vec<_>>().join(", ")
}

fn unused(map: &Map) -> Table {
    let mut rows = Vec::new();
    for policy in &map.policies {
        let called = match &policy.namespace {
            Some(namespace) => format!("{} {namespace}/{}", policy.kind, policy.name),
            None => format!("{} {}", policy.kind, policy.name),
        };
        for (direction, rules) in [("ingress", &policy.ingress), ("egress", &policy.egress)] {
            for (index, _) in rules.iter().enumerate().filter(|(_, edges)| **edges == 0) {
                rows.push(vec![
                    name(called.clone()),
                    words(format!("spec.{direction}[{index}]")),
                    words(if policy.proposed { "proposed" } else { "in force" }),
                ]);
            }
        }
    }
    Table {
        title: "Rules that nothing used",
        empty: "Every rule is needed by a connection of this map.",
        head: &["policy", "rule", "state"],
        rows,
    }
}

fn controls(map: &Map) -> Table {
    let rows = map.controls.iter().map(|control| {
        vec![
            words(control.catalogue.clone()),
            words(control.id.clone()),
            words(control.about.clone()),
            words(control.found.join("; ")),
        ]
    });
    Table {
        title: "What was found, by control",
        empty: "",
        head: &["catalogue", "control", "about", "found"],
        rows: rows.collect(),
    }
}

fn image(image: &Image) -> String {
    match &image.digest {
        Some(digest) => format!("{} {digest}", image.name),
        None => image.name.clone(),
    }
}

fn images(images: &[Image]) -> String {
    images.iter().map(image).collect::<Vec<_>>().join(", ")
}

fn workloads(map: &Map) -> Table {
    let rows = map.parties.iter().filter_map(|party| {
        let Who::Workload(workload) = &party.who else {
            return None;
        };
        let segment = workload.segment.as_ref();
        let mode = segment.and_then(|segment| segment.mode.clone()).unwrap_or_default();
        let phase = segment.map(|segment| segment.phase.clone()).unwrap_or_default();
        let policies = workload
            .protection
            .ingress
            .policies
            .union(&workload.protection.egress.policies);
        Some(vec![
            name(super::words(party)),
            words(workload.pods.len().to_string()),
            name(images(&workload.images)),
            name(policies.cloned().collect::<Vec<_>>().join(", ")),
            name(mode),
            name(phase),
        ])
    });
    Table {
        title: "Workloads",
        empty: "There are no workloads.",
        head: &["workload", "pods", "images", "isolated by", "mode", "phase"],
        rows: rows.collect(),
    }
}

pub(super) const fn answer(answer: Answer) -> &'static str {
    match answer {
        Answer::Allowed => "allowed",
        Answer::NotIsolated => "not isolated",
        Answer::Denied => "denied",
        Answer::Unknown => "unknown",
    }
}

/// What decides at one end.
pub(super) fn decided(direction: &str, side: &Side) -> String {
    let rules = side
        .rules
        .iter()
        .map(|rule| format!("{} spec.{direction}[{}]", rule.policy, rule.index));
    let rules = rules.chain(side.reason.clone()).collect::<Vec<_>>().join("; ");
    if rules.is_empty() {
        format!("{direction} {}", answer(side.answer))
    } else {
        format!("{direction} {}: {rules}", answer(side.answer))
    }
}

/// What decides at both.
pub(super) fn decides(judgement: &Judgement) -> String {
    format!(
        "{}; {}",
        decided("egress", &judgement.egress),
        decided("ingress", &judgement.ingress)
    )
}

/// A time, if there is one.
pub(super) fn time(moment: Option<Moment>) -> String {
    moment.map(|moment| moment.0.to_string()).unwrap_or_default()
}

/// Who saw it.
pub(super) fn evidence(edge: &Edge) -> String {
    let Some(observed) = &edge.observed else {
        return "in a baseline, not seen".to_owned();
    };
    let reports = observed.reports.iter().map(|report| {
        let end = match report.reporter {
            Reporter::Source => "source",
            Reporter::Destination => "destination",
        };
        let nodes: Vec<&str> = report.nodes.iter().map(String::as_str).collect();
        if nodes.is_empty() {
            end.to_owned()
        } else {
            format!("{end} on {}", nodes.join(", "))
        }
    });
    reports.collect::<Vec<_>>().join("; ")
}

fn connections(map: &Map, known: &Known<'_>) -> Table {
    let rows = map.edges.iter().map(|edge| {
        let (count, first, last) = edge.observed.as_ref().map_or_else(Default::default, |observed| {
            let [first, last] = [observed.first_seen, observed.last_seen].map(time);
            (observed.connections().to_string(), first, last)
        });
        let [source, destination] = known.ends(edge);
        vec![
            name(source),
            name(destination),
            words(format!("{} {}", edge.protocol, edge.port)),
            words(edge.state.words()),
            words(count),
            words(first),
            words(last),
            name(evidence(edge)),
            name(decides(edge.proposed.as_ref().unwrap_or(&edge.live))),
        ]
    });
    Table {
        title: "Connections",
        empty: "No connection was observed.",
        head: &[
            "source",
            "destination",
            "port",
            "state",
            "seen",
            "first",
            "last",
            "evidence",
            "decided by",
        ],
        rows: rows.collect(),
    }
}

/// Every change in one table.
pub(super) fn changed(changes: &Changes, known: &Known<'_>) -> Table {
    let mut rows = Vec::new();
    let mut row = |what: &str, about: String, detail: String| rows.push(vec![words(what), name(about), name(detail)]);
    let ids = |list: &[String]| list.iter().map(|id| known.words(id)).collect::<Vec<_>>();
    for about in ids(&changes.parties_appeared) {
        row("appeared", about, String::new());
    }
    for about in ids(&changes.parties_gone) {
        row("is gone", about, String::new());
    }
    for WorkloadChange {
        id,
        ingress,
        egress,
        images_appeared,
        images_gone,
    } in &changes.workloads
    {
        let about = known.words(id);
        for (direction, change) in [("ingress", ingress), ("egress", egress)] {
            if let Some([before, after]) = change {
                row(
                    "protection changed",
                    about.clone(),
                    format!("{direction}: {before:?}, now {after:?}"),
                );
            }
        }
        if !images_appeared.is_empty() || !images_gone.is_empty() {
            let detail = format!("had {}, now {}", images(images_gone), images(images_appeared));
            row("images changed", about, detail);
        }
    }
    for id in &changes.edges_appeared {
        row("connection appeared", id.clone(), String::new());
    }
    for id in &changes.edges_gone {
        row("connection is gone", id.clone(), String::new());
    }
    for EdgeChange {
        id,
        state: [before, after],
        live: [was, is],
    } in &changes.edges
    {
        let detail = format!(
            "{}, now {}; in force: {}, now {}",
            before.words(),
            after.words(),
            answer(*was),
            answer(*is)
        );
        row("connection judged otherwise", id.clone(), detail);
    }
    for id in &changes.policies_appeared {
        row("policy appeared", id.clone(), String::new());
    }
    for id in &changes.policies_gone {
        row("policy is gone", id.clone(), String::new());
    }
    for (what, exposures) in [
        ("exposure appeared", &changes.exposures_appeared),
        ("exposure is gone", &changes.exposures_gone),
    ] {
        for exposure in exposures {
            let about = exposure.service.clone().unwrap_or_else(|| reached(exposure, known));
            row(
                what,
                about,
                format!("{}, {}", how(exposure.how), ports(&exposure.ports)),
            );
        }
    }
    Table {
        title: "What changed since the earlier map",
        empty: "Nothing.",
        head: &["what", "of", "how"],
        rows,
    }
}
