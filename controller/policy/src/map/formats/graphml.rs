//! `GraphML`, for yEd, Gephi, Neo4j and the like.

use super::super::document::{Answer, Map, Who};
use super::tables::time;
use super::text::markup;
use super::{put, words};

/// Attributes of nodes: key and type.
const OF_NODES: [(&str, &str); 7] = [
    ("label", "string"),
    ("words", "string"),
    ("type", "string"),
    ("namespace", "string"),
    ("images", "string"),
    ("ingress", "string"),
    ("egress", "string"),
];
/// Attributes of edges.
const OF_EDGES: [(&str, &str); 11] = [
    ("port", "int"),
    ("protocol", "string"),
    ("state", "string"),
    ("live", "string"),
    ("proposed", "string"),
    ("connections", "long"),
    ("firstSeen", "string"),
    ("lastSeen", "string"),
    ("via", "string"),
    ("sourceProcesses", "string"),
    ("destinationProcesses", "string"),
];

/// The map as `GraphML`: groups are told by the attribute `namespace`.
pub fn graphml(map: &Map) -> String {
    let mut text = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<graphml xmlns=\"http://graphml.graphdrawing.org/xmlns\">\n",
    );
    for (of, keys) in [("node", &OF_NODES[..]), ("edge", &OF_EDGES[..])] {
        for (key, kind) in keys {
            put(
                &mut text,
                format_args!("<key id=\"{of}-{key}\" for=\"{of}\" attr.name=\"{key}\" attr.type=\"{kind}\"/>\n"),
            );
        }
    }
    text.push_str("<graph id=\"map\" edgedefault=\"directed\">\n");
    for party in &map.parties {
        put(&mut text, format_args!("<node id=\"{}\">", markup(&party.id)));
        data(&mut text, "node-label", &party.title);
        data(&mut text, "node-words", &words(party));
        let (kind, namespace) = match &party.who {
            Who::Workload(workload) => ("Workload", Some(&workload.namespace)),
            Who::Service { namespace, .. } => ("Service", Some(namespace)),
            Who::Node { .. } => ("Node", None),
            Who::External { .. } => ("External", None),
            Who::Unknown { .. } => ("Unknown", None),
        };
        data(&mut text, "node-type", kind);
        if let Some(namespace) = namespace {
            data(&mut text, "node-namespace", namespace);
        }
        if let Who::Workload(workload) = &party.who {
            let images = workload.images.iter().map(|image| match &image.digest {
                Some(digest) => format!("{} {digest}", image.name),
                None => image.name.clone(),
            });
            data(&mut text, "node-images", &images.collect::<Vec<_>>().join(", "));
            data(
                &mut text,
                "node-ingress",
                &format!("{:?}", workload.protection.ingress.status),
            );
            data(
                &mut text,
                "node-egress",
                &format!("{:?}", workload.protection.egress.status),
            );
        }
        text.push_str("</node>\n");
    }
    let answer = |answer: Answer| format!("{answer:?}");
    for edge in &map.edges {
        put(
            &mut text,
            format_args!(
                "<edge id=\"{}\" source=\"{}\" target=\"{}\">",
                markup(&edge.id),
                markup(&edge.source),
                markup(&edge.destination)
            ),
        );
        data(&mut text, "edge-port", &edge.port.to_string());
        data(&mut text, "edge-protocol", edge.protocol.as_str());
        data(&mut text, "edge-state", edge.state.as_str());
        data(&mut text, "edge-live", &answer(edge.live.answer));
        if let Some(proposed) = &edge.proposed {
            data(&mut text, "edge-proposed", &answer(proposed.answer));
        }
        if let Some(observed) = &edge.observed {
            data(&mut text, "edge-connections", &observed.connections().to_string());
            data(&mut text, "edge-firstSeen", &time(observed.first_seen));
            data(&mut text, "edge-lastSeen", &time(observed.last_seen));
            data(&mut text, "edge-via", &observed.via.join(", "));
        }
        let [opened, listened] = edge.processes();
        data(&mut text, "edge-sourceProcesses", &opened.join(", "));
        data(&mut text, "edge-destinationProcesses", &listened.join(", "));
        text.push_str("</edge>\n");
    }
    text.push_str("</graph>\n</graphml>\n");
    text
}

fn data(text: &mut String, key: &str, value: &str) {
    if !value.is_empty() {
        put(text, format_args!("<data key=\"{key}\">{}</data>", markup(value)));
    }
}
