//! Forms are read back by the programs that they are made for; `dot` itself is asked where commands are tested.

use std::collections::BTreeSet;

use nanoseg_graph::cluster::{Image, Object};
use nanoseg_graph::endpoint::{Endpoint, ServiceName, Workload};
use nanoseg_graph::flow::{Outcome, Reporter, Transport};
use nanoseg_graph::process::Process;
use proptest::prelude::*;
use pulldown_cmark::{Event, Options, Parser, Tag};

use super::super::tests::{segment, shop};
use super::super::{Changes, Input, Segment};
use super::text::{visible, visible_json};
use super::*;
use crate::evaluate::PolicySet;
use crate::fixture::{cluster, edge, evidence, graph, ip, labels, pod, policies};

/// Names that mean something to whoever prints them carelessly.
fn nasty() -> impl Strategy<Value = String> {
    let known = [
        "<script>alert(1)</script>",
        "\"><img src=x onerror=alert(1)>",
        "]]>&lt;&#x3c;",
        "=HYPERLINK(\"http://evil.example\",\"x\")",
        " +1+cmd|' /C calc'!A0",
        "-2+3",
        "@SUM(1)",
        "＝1",
        "a\"]; evil [label=\"",
        "\\\" -> x",
        "\\N\\G",
        "\"]\n  click p0 javascript:alert(1)",
        "a|b",
        "`code`",
        "[x](javascript:alert(1))",
        "![x](http://evil.example/p.png)",
        "https://evil.example www.evil.example",
        "\u{202e}gpj.exe",
        "line\r\nbreak\u{0}\u{7}\u{85}\u{2028}",
        "#quot;#35;",
        "--> p1",
        "%%{init: {}}%%",
        "a/b",
        "",
        " ",
        "ü😀",
    ];
    prop_oneof![
        prop::sample::select(known.to_vec()).prop_map(str::to_owned),
        (prop::sample::select(known.to_vec()), any::<String>()).prop_map(|(known, any)| format!("{any}{known}")),
        any::<String>(),
    ]
}

/// A map in which all that others choose is nasty.
fn map_of(names: &[String; 8]) -> Map {
    let [namespace, kind, name, image, service, node, policy, reason] = names;
    let workload = Workload {
        namespace: namespace.clone(),
        kind: kind.clone(),
        name: name.clone(),
    };
    let mut of_kind = pod(namespace, name, labels([("a", "b")]), &["198.18.1.2"]);
    of_kind.owner = Some(std::sync::Arc::new(nanoseg_graph::cluster::OwnerRef {
        kind: kind.clone(),
        name: name.clone(),
    }));
    of_kind.images = std::sync::Arc::new(
        [Image {
            name: image.clone(),
            digest: Some(image.clone()),
        }]
        .into(),
    );
    let mut own = policies(
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: a, name: b}, spec: {podSelector: {}, ingress: [{}]}}",
    );
    own[0].metadata.namespace = Some(namespace.clone());
    own[0].metadata.name = Some(policy.clone());
    let (live, _) = PolicySet::parse(&own);
    let service = Endpoint::Service(ServiceName {
        namespace: namespace.clone(),
        name: service.clone(),
    });
    let this = Endpoint::Workload(workload.clone());
    let key = edge(this.clone(), service, 80, Transport::Tcp);
    let mut segment = Segment {
        workload,
        quarantined: [(key.clone(), reason.clone())].into(),
        ..segment()
    };
    segment.facts.phase.clone_from(reason);
    let edges = [
        key,
        edge(Endpoint::Node(node.clone()), this.clone(), 443, Transport::Udp),
        edge(this, Endpoint::External(ip("203.0.113.9")), 9, Transport::Sctp),
    ];
    let mut graph = graph(edges.clone());
    let mut elsewhere = evidence(Outcome::Established, &[Reporter::Source], &[]);
    elsewhere.via.insert(ServiceName {
        namespace: namespace.clone(),
        name: name.clone(),
    });
    graph.insert(edges[0].clone(), &elsewhere);
    graph.run_by(edges[1].as_edge(), Reporter::Source, &Process::Unit(name.clone()));
    // What a name server may answer with: of all that is printable, a name keeps these characters.
    for answer in ["-2.evil", "*bold*", "_em_", "\\n\\l", "*", "a\\.b"] {
        let (source, outside) = (&edges[2].source, &edges[2].destination);
        graph.name(source, outside, &answer.to_owned().try_into().unwrap());
    }
    Map::draw(&Input {
        cluster: &cluster([Object::Pod(of_kind)]),
        graph: &graph,
        live: &live,
        proposed: None,
        segments: &[segment],
        stale_before: None,
        places: None,
    })
}

fn names() -> impl Strategy<Value = [String; 8]> {
    [nasty(), nasty(), nasty(), nasty(), nasty(), nasty(), nasty(), nasty()]
}

/// What elements and attributes a document has.
fn shape<'a>(document: &'a roxmltree::Document<'_>) -> (BTreeSet<&'a str>, BTreeSet<&'a str>) {
    let elements = document.descendants().filter(roxmltree::Node::is_element);
    let names = elements.clone().map(|element| element.tag_name().name()).collect();
    let attributes = elements
        .flat_map(|element| element.attributes())
        .map(|attribute| attribute.name());
    (names, attributes.collect())
}

#[test]
fn pictures_of_the_shop_stay_as_they_are() {
    let map = shop();
    for (name, text) in [
        ("shop.dot", dot(&map)),
        ("shop.mmd", mermaid(&map)),
        ("shop.csv", csv(&map, None)),
        ("shop.md", markdown(&map, None)),
        ("shop.graphml", graphml(&map)),
        ("shop.svg", svg(&map)),
        ("shop.html", html(&map, None)),
    ] {
        let file = format!("{}/src/map/formats/tests/{name}", env!("CARGO_MANIFEST_DIR"));
        super::super::tests::expect_file(&file, &text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn xml_reads_every_name_back(names in names()) {
        let map = map_of(&names);
        let text = graphml(&map);
        let document = roxmltree::Document::parse(&text).unwrap();
        let nodes: Vec<_> = document.descendants().filter(|node| node.has_tag_name(("http://graphml.graphdrawing.org/xmlns", "node"))).collect();
        prop_assert_eq!(nodes.len(), map.parties.len());
        for (node, party) in nodes.iter().zip(&map.parties) {
            let told = node.children().find(|data| data.attribute("key") == Some("node-words"));
            prop_assert_eq!(told.and_then(|data| data.text().map(str::to_owned)), Some(visible(&words(party))));
        }
        let edges: Vec<_> = document.descendants().filter(|node| node.tag_name().name() == "edge").collect();
        prop_assert_eq!(edges.len(), map.edges.len());
        for (told, edge) in edges.iter().zip(&map.edges) {
            let ends = ["edge-sourceProcesses", "edge-destinationProcesses"].map(|key| {
                let told = told.children().find(|data| data.attribute("key") == Some(key));
                told.and_then(|data| data.text().map(str::to_owned)).unwrap_or_default()
            });
            prop_assert_eq!(ends, edge.processes().map(|processes| visible(&processes.join(", "))));
        }
        let text = svg(&map);
        let document = roxmltree::Document::parse(&text).unwrap();
        let titles: String = document.descendants().filter(|node| node.has_tag_name(("http://www.w3.org/2000/svg", "title"))).filter_map(|node| node.text()).collect();
        for edge in &map.edges {
            prop_assert!(titles.contains(&visible(&format!("{}: {}", beside(edge), edge.state.words()))), "{:?}", edge);
        }
        let (elements, attributes) = shape(&document);
        let plain = roxmltree::Document::parse(&svg(&shop())).map(|document| {
            let (elements, attributes) = shape(&document);
            (elements.iter().map(ToString::to_string).collect::<BTreeSet<_>>(), attributes.iter().map(ToString::to_string).collect::<BTreeSet<_>>())
        }).unwrap();
        prop_assert!(elements.iter().all(|name| plain.0.contains(*name)), "{:?}", elements);
        prop_assert!(attributes.iter().all(|name| plain.1.contains(*name)), "{:?}", attributes);
    }

    #[test]
    fn a_page_has_no_element_of_a_name(names in names()) {
        let map = map_of(&names);
        let page = html(&map, Some(&Changes::between(&shop(), &map)));
        let options = roxmltree::ParsingOptions { allow_dtd: true, ..roxmltree::ParsingOptions::default() };
        let document = roxmltree::Document::parse_with_options(&page, options).unwrap();
        let (elements, attributes) = shape(&document);
        for element in elements {
            prop_assert!(
                ["html", "head", "meta", "title", "style", "body", "h1", "h2", "nav", "a", "p", "div", "svg", "defs", "marker", "path", "rect",
                 "g", "text", "table", "thead", "tbody", "tr", "th", "td", "footer"].contains(&element),
                "{}", element
            );
        }
        for attribute in attributes {
            prop_assert!(!attribute.starts_with("on") && attribute != "src" && attribute != "style", "{}", attribute);
        }
        for link in document.descendants().filter_map(|node| node.attribute("href")) {
            prop_assert!(link.starts_with('#'), "{}", link);
        }
        let cells: BTreeSet<String> = document
            .descendants()
            .filter(|node| node.tag_name().name() == "td")
            .map(|node| node.text().unwrap_or_default().to_owned())
            .collect();
        for party in &map.parties {
            prop_assert!(cells.contains(&visible(&words(party))), "{:?}", words(party));
        }
    }

    #[test]
    fn a_spreadsheet_finds_texts_and_no_formula(names in names()) {
        let map = map_of(&names);
        for (text, count) in [(csv(&map, None), map.edges.len()), (csv(&map, Some(&Changes::between(&shop(), &map))), usize::MAX)] {
            let mut reader = ::csv::Reader::from_reader(text.as_bytes());
            let rows: Vec<_> = reader.records().map(Result::unwrap).collect();
            prop_assert!(count == usize::MAX || rows.len() == count);
            for cell in rows.iter().flatten() {
                prop_assert!(!cell.trim_start().starts_with(['=', '+', '-', '@', '|', '%', '＝', '＋', '－', '＠']), "{:?}", cell);
                prop_assert!(!cell.contains(['\r', '\n', '\t', '\0']));
            }
            if count != usize::MAX {
                let known = Known::of(&map);
                for (row, edge) in rows.iter().zip(&map.edges) {
                    let name = visible(&known.ends(edge)[0]);
                    prop_assert!(row[1] == *name || row[1] == *format!("'{name}"), "{:?}", row);
                }
            }
        }
    }

    #[test]
    fn markdown_finds_no_markup_in_names(names in names()) {
        let map = map_of(&names);
        let text = markdown(&map, Some(&Changes::between(&shop(), &map)));
        let mut columns = 0;
        let mut head = 0;
        for event in Parser::new_ext(&text, Options::ENABLE_TABLES) {
            match event {
                Event::Html(_) | Event::InlineHtml(_) | Event::Start(Tag::Link { .. } | Tag::Image { .. } | Tag::Emphasis | Tag::Strong | Tag::CodeBlock(_)) => {
                    prop_assert!(false, "{:?}", event);
                }
                Event::Start(Tag::Table(alignments)) => head = alignments.len(),
                Event::Start(Tag::TableRow | Tag::TableHead) => columns = 0,
                Event::Start(Tag::TableCell) => columns += 1,
                Event::End(pulldown_cmark::TagEnd::TableRow) => prop_assert_eq!(columns, head),
                _ => {}
            }
        }
        for party in &map.parties {
            let shown = visible(&words(party)).replace('`', "\\u{60}").replace('|', "\\u{7c}");
            prop_assert!(text.contains(&format!("` {shown} `")), "{}", shown);
        }
    }

    #[test]
    fn mermaid_finds_plain_letters_only(names in names()) {
        let map = map_of(&names);
        let text = mermaid(&map);
        let lines = text.lines().count();
        let expected = 1 + 2 * map.groups.len() + map.parties.len() + map.edges.len() + map.edges.iter().map(|edge| edge.state).collect::<BTreeSet<_>>().len();
        prop_assert_eq!(lines, expected);
        let labels = text.lines().filter_map(|line| {
            let of_party = line.split_once("[\"").map(|(_, rest)| rest.strip_suffix("\"]").unwrap());
            of_party.or_else(|| line.split_once("|\"").map(|(_, rest)| rest.split_once("\"| p").unwrap().0))
        });
        let labels: Vec<&str> = labels.collect();
        prop_assert_eq!(labels.len(), map.groups.len() + map.parties.len() + map.edges.len());
        for label in labels {
            prop_assert!(label.chars().all(|character| character.is_ascii_alphanumeric() || "./: -#;".contains(character)), "{}", label);
        }
    }

    #[test]
    fn json_reads_every_name_back(names in names()) {
        let map = map_of(&names);
        let json = serde_json::to_string_pretty(&map).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Map>(&json).unwrap(), &map);
        let seen = visible_json(&json);
        prop_assert_eq!(serde_json::from_str::<Map>(&seen).unwrap(), map);
        for line in seen.lines() {
            prop_assert_eq!(visible(line), line);
        }
    }

    #[test]
    fn changes_turn_around(names in names()) {
        let (one, other) = (map_of(&names), shop());
        prop_assert!(Changes::between(&one, &one).is_empty());
        let (there, back) = (Changes::between(&one, &other), Changes::between(&other, &one));
        prop_assert_eq!(there.edges_appeared, back.edges_gone);
        prop_assert_eq!(there.parties_gone, back.parties_appeared);
        prop_assert_eq!(there.exposures_appeared, back.exposures_gone);
    }
}
