use std::error::Error as _;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use nanoseg_graph::flow::{Outcome, Reporter};
use nanoseg_graph::recorded::RecordedKey;
use proptest::prelude::*;

use super::*;

#[derive(Default)]
struct All {
    entries: Vec<Result<Entry, String>>,
    lines: Vec<u64>,
    warnings: Vec<String>,
}

impl Visitor for All {
    type Error = std::convert::Infallible;

    fn visit(&mut self, at: At<'_>, entry: Result<Entry, Fault>) -> Result<(), Self::Error> {
        self.lines.push(at.line);
        self.entries.push(entry.map_err(|fault| match fault.source() {
            Some(source) => format!("{fault}: {source}"),
            None => fault.to_string(),
        }));
        Ok(())
    }

    fn warn(&mut self, fault: Fault) {
        self.warnings.push(fault.to_string());
    }
}

fn all(bytes: impl AsRef<[u8]>) -> All {
    let mut all = All::default();
    let Ok(()) = read_from(Path::new("f"), bytes.as_ref(), &mut all);
    all
}

fn one(line: &str) -> Result<Entry, String> {
    let mut all = all(line);
    assert_eq!(all.entries.len(), 1, "{line}");
    all.entries.remove(0)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A connection in words.
fn words(entry: &Entry) -> String {
    let (connection, node) = match entry {
        Entry::Connection(connection) => (connection, String::new()),
        Entry::OnNode {
            connection,
            node,
            address,
        } => (connection, format!(", {address} of {node}")),
        Entry::Skipped(skip) => return format!("{skip:?}"),
        Entry::Report(report) => return format!("report of {}", report.origin.node),
    };
    let Recorded {
        key,
        outcome,
        count,
        seen,
        workloads,
    } = &**connection;
    let RecordedKey {
        source,
        destination,
        port,
        transport,
        reporter,
    } = key;
    let at = match reporter {
        Reporter::Source => "source",
        Reporter::Destination => "destination",
    };
    let outcome = match outcome {
        Outcome::Attempted => "attempted",
        Outcome::Unanswered => "unanswered",
        Outcome::Refused => "refused",
        Outcome::Established => "established",
    };
    let seen = seen
        .map(|(first, last)| format!(" {first}..{last}"))
        .unwrap_or_default();
    let [from, to] = workloads.each_ref().map(|workload| match workload {
        Some(workload) => format!(" of {workload}"),
        None => String::new(),
    });
    format!("{source}{from} -> {destination}{to} {transport} {port} {outcome} x{count} at {at}{seen}{node}")
}

const PLAIN: &str =
    r#"{"source":{"namespace":"shop","pod":"web-0"},"destination":{"ip":"203.0.113.9"},"port":443,"protocol":"TCP"}"#;

#[test]
fn plain_lines() {
    let rows = [
        (PLAIN, "Pod shop/web-0 -> 203.0.113.9 TCP 443 established x1 at source"),
        (
            r#" {"port":53,"protocol":"udp","destination":{"pod":"dns","namespace":"kube-system"},"source":{"pod":"a"}} "#,
            "Pod default/a -> Pod kube-system/dns UDP 53 established x1 at source",
        ),
        (
            r#"{"source":{"ip":"::ffff:10.0.0.1"},"destination":{"ip":"fd00::1"},"port":9,"protocol":"SCTP","count":7,"outcome":"refused","reporter":"destination"}"#,
            "10.0.0.1 -> fd00::1 SCTP 9 refused x7 at destination",
        ),
        (
            r#"{"source":{"pod":"a","ip":"10.0.0.1"},"destination":{"ip":"10.0.0.2"},"port":9,"first_seen":"2026-01-02T03:04:05Z","last_seen":"2026-01-02T05:04:05+01:00","outcome":"attempted","count":null}"#,
            "Pod default/a -> 10.0.0.2 TCP 9 attempted x1 at source 2026-01-02T03:04:05Z..2026-01-02T04:04:05Z",
        ),
        (
            r#"{"source":{"ip":"10.0.0.1"},"destination":{"ip":"10.0.0.2"},"port":9,"last_seen":"2026-01-02T03:04:05Z"}"#,
            "10.0.0.1 -> 10.0.0.2 TCP 9 established x1 at source 2026-01-02T03:04:05Z..2026-01-02T03:04:05Z",
        ),
    ];
    for (line, expected) in rows {
        assert_eq!(one(line).map(|entry| words(&entry)).as_deref(), Ok(expected), "{line}");
    }
}

#[test]
fn every_fault_names_line_and_field() {
    let rows = [
        ("nonsense", "f: line 1: left out: it is not JSON: "),
        (
            "{\"source\":",
            "f: line 1: left out: it is not JSON: EOF while parsing a value at column 10",
        ),
        (
            "[1]",
            "f: line 1: left out: invalid type: sequence, expected an object with source",
        ),
        (
            "{}",
            "f: line 1: left out, because of the field `source`: it is missing",
        ),
        (
            &PLAIN.replace(",\"port\":443", ""),
            "f: line 1: left out, because of the field `port`: it is missing: a number from 1 to 65535",
        ),
        (
            &PLAIN.replace("443", "null"),
            "f: line 1: left out, because of the field `port`: it is missing: a number from 1 to 65535",
        ),
        (
            &PLAIN.replace("443", "0"),
            "f: line 1: left out, because of the field `port`: invalid value: integer `0`, expected a number from 1 to 65535",
        ),
        (
            &PLAIN.replace("443", "65536"),
            "f: line 1: left out, because of the field `port`: invalid value: integer `65536`, expected a number from 1 to 65535",
        ),
        (
            &PLAIN.replace("443", "-1"),
            "f: line 1: left out, because of the field `port`: invalid type: integer `-1`, expected a number from 1 to 65535",
        ),
        (
            &PLAIN.replace("443", "\"https\""),
            "f: line 1: left out, because of the field `port`: invalid type: string \"https\", expected a number from 1 to 65535",
        ),
        (
            r#"{"IP":{"source":"10.0.0.1","destination":"10.0.0.2"},"l4":{"TCP":{"destination_port":65536}},"verdict":"FORWARDED"}"#,
            "f: line 1: left out, because of the field `l4.TCP.destination_port`: invalid value: integer `65536`, expected a number up to 65535",
        ),
        (
            &PLAIN.replace("TCP", "ICMP"),
            "f: line 1: left out, because of the field `protocol`: \"ICMP\" is not TCP, UDP or SCTP",
        ),
        (
            &PLAIN.replace("203.0.113.9", "203.0.113"),
            "f: line 1: left out, because of the field `destination.ip`: invalid IP address syntax",
        ),
        (
            &PLAIN.replace("\"pod\":\"web-0\"", "\"pod\":\"\""),
            "f: line 1: left out, because of the field `source.pod`: it is empty",
        ),
        (
            &PLAIN.replace("\"pod\":\"web-0\"", "\"pod\":7"),
            "f: line 1: left out, because of the field `source.pod`: invalid type",
        ),
        (
            &PLAIN.replace(",\"pod\":\"web-0\"", ""),
            "f: line 1: left out, because of the field `source`: it names nobody",
        ),
        (
            &PLAIN.replace("\"port\"", "\"count\":-1,\"port\""),
            "f: line 1: left out, because of the field `count`: invalid type: integer `-1`, expected a whole number",
        ),
        (
            &PLAIN.replace("\"port\"", "\"outcome\":\"maybe\",\"port\""),
            "f: line 1: left out, because of the field `outcome`: unknown variant `maybe`",
        ),
        (
            &PLAIN.replace("\"port\"", "\"first_seen\":\"yesterday\",\"port\""),
            "f: line 1: left out, because of the field `first_seen`: ",
        ),
        (
            &PLAIN.replace(
                "\"port\"",
                "\"first_seen\":\"2026-01-02T00:00:00Z\",\"last_seen\":\"2026-01-01T00:00:00Z\",\"port\"",
            ),
            "f: line 1: left out, because of the field `last_seen`: it is before first_seen",
        ),
    ];
    for (line, expected) in rows {
        let fault = one(line).unwrap_err();
        assert!(fault.starts_with(expected), "{line}: {fault}");
    }
}

#[test]
fn bad_lines_leave_the_others_where_they_are() {
    let text = format!("\u{feff}{PLAIN}\r\n\n  \nbad\n{PLAIN}\n\"x\"\n{PLAIN}");
    let all = all(&text);
    assert_eq!(all.lines, [1, 4, 5, 6, 7]);
    let good: Vec<bool> = all.entries.iter().map(Result::is_ok).collect();
    assert_eq!(good, [true, false, true, false, true]);
}

#[test]
fn keys_that_mean_nothing_are_told_once() {
    let line = PLAIN
        .replace("\"protocol\"", "\"protocl\"")
        .replace("\"pod\"", "\"x\":[{}],\"pod\"");
    let all = all(format!("{line}\n{line}\n"));
    assert_eq!(all.warnings.len(), 2, "{:?}", all.warnings);
    assert!(all.warnings[0].starts_with("f: line 1: `protocl` is not a field of a flow"));
    assert!(all.entries.iter().all(Result::is_ok));
}

#[test]
fn gzip_is_told_by_its_bytes() {
    let text = format!("{PLAIN}\n{PLAIN}\n");
    let mut two_members = gzip(text.as_bytes());
    two_members.extend(gzip(text.as_bytes()));
    assert_eq!(all(gzip(text.as_bytes())).entries.len(), 2);
    assert_eq!(all(two_members).entries.len(), 4);
    let whole = gzip(text.repeat(100).as_bytes());
    let broken = all(&whole[..whole.len() - 10]);
    assert!(broken.entries.len() > 1, "what was read before the end is used");
    assert!(
        broken
            .entries
            .last()
            .unwrap()
            .as_ref()
            .unwrap_err()
            .starts_with("f: left out")
    );
}

#[test]
fn a_line_is_never_longer_than_memory_allows() {
    let long = "x".repeat(LONGEST_LINE + 1);
    let fits = PLAIN.replace("web-0", &"y".repeat(LONGEST_LINE - PLAIN.len()));
    let all = all(format!("{long}\n{fits}\n{PLAIN}\n{long}"));
    assert_eq!(all.lines, [1, 2, 3, 4]);
    assert!(
        all.entries[0]
            .as_ref()
            .unwrap_err()
            .ends_with("it is longer than 1048576 bytes")
    );
    assert!(all.entries[1].is_ok() && all.entries[2].is_ok() && all.entries[3].is_err());
}

#[test]
fn a_bomb_is_read_a_piece_at_a_time() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    for _ in 0..64 {
        encoder.write_all(&vec![b'x'; 1 << 20]).unwrap();
    }
    let all = all(encoder.finish().unwrap());
    assert_eq!(all.entries.len(), 1);
    assert!(all.entries[0].is_err());
}

#[test]
fn reports_are_told_by_their_first_key() {
    let report = r#"{ "origin": {"node": "n1", "epoch": 1}, "flows": [] }"#;
    for text in [report.to_owned(), report.replace(' ', "\n"), format!("\n\n {report}\n")] {
        assert_eq!(
            one(&text).map(|entry| words(&entry)).as_deref(),
            Ok("report of n1"),
            "{text}"
        );
    }
    let fault = one(r#"{"origin":{"node":"n1","epoch":-1},"flows":[]}"#).unwrap_err();
    assert!(fault.contains("because of the field `origin.epoch`"), "{fault}");
    let fault = one(r#"{"origin":{"node":"n1","epoch":1},"flows":["#).unwrap_err();
    assert!(fault.contains("it is not JSON"), "{fault}");
}

/// A flow of Hubble's with some keys replaced.
fn hubble(edits: &[(&str, &str)]) -> String {
    let mut flow = r#"{"time":"2026-01-02T03:04:05.123456789Z","uuid":"u","verdict":"FORWARDED","ethernet":{"source":"0a:00:00:00:00:01","destination":"0a:00:00:00:00:02"},"IP":{"source":"10.0.1.2","destination":"10.0.2.3","ipVersion":"IPv4"},"l4":{"TCP":{"source_port":40000,"destination_port":5432,"flags":{"SYN":true}}},"source":{"ID":1,"identity":4242,"cluster_name":"c","namespace":"shop","labels":["k8s:app=web"],"pod_name":"web-0","workloads":[{"name":"web","kind":"StatefulSet"}]},"destination":{"ID":2,"identity":4343,"namespace":"shop","labels":["k8s:app=db"],"pod_name":"db-0"},"Type":"L3_L4","node_name":"c/n1","event_type":{"type":4,"sub_type":3},"traffic_direction":"EGRESS","trace_observation_point":"TO_STACK","is_reply":false,"Summary":"TCP Flags: SYN"}"#.to_owned();
    for (from, to) in edits {
        assert!(flow.contains(from), "{from}");
        flow = flow.replace(from, to);
    }
    flow
}

const SEEN: &str = "2026-01-02T03:04:05.123456789Z..2026-01-02T03:04:05.123456789Z";

/// What it is, what is replaced in the flow, and what comes of it.
type Row<'a> = (&'a str, Vec<(&'a str, &'a str)>, String);

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn hubble_flows() {
    const SYN: &str = r#"{"SYN":true}"#;
    const ACK: &str = r#"{"ACK":true}"#;
    const KNOWN: &str = r#""is_reply":false,"#;
    const TCP: &str = r#"{"TCP":{"source_port":40000,"destination_port":5432,"flags":{"SYN":true}}}"#;
    let udp = r#"{"UDP":{"source_port":40000,"destination_port":53}}"#;
    let web = "Pod shop/web-0 of StatefulSet shop/web";
    let forwarded = format!("{web} -> Pod shop/db-0 TCP 5432 established x1 at source {SEEN}");
    let again = forwarded.replace("x1", "x0");
    let dropped = forwarded.replace("established", "attempted");
    let rows: Vec<Row<'_>> = vec![
        ("a SYN", vec![], forwarded.clone()),
        (
            "the other observation point",
            vec![("\"EGRESS\"", "\"INGRESS\"")],
            forwarded.replace("at source", "at destination"),
        ),
        ("another packet of it", vec![(SYN, ACK)], again.clone()),
        (
            "a reply",
            vec![("\"is_reply\":false", "\"is_reply\":true")],
            "Reply".to_owned(),
        ),
        (
            "a reply, by the older key",
            vec![(KNOWN, "\"reply\":true,"), (SYN, ACK)],
            "Reply".to_owned(),
        ),
        (
            "a reply, by its flags",
            vec![(KNOWN, ""), (SYN, r#"{"SYN":true,"ACK":true}"#)],
            "Reply".to_owned(),
        ),
        (
            "unknown, and only the initiator sends it",
            vec![(KNOWN, "")],
            forwarded.clone(),
        ),
        (
            "unknown, null",
            vec![("\"is_reply\":false", "\"is_reply\":null"), (SYN, ACK)],
            "UnknownDirection".to_owned(),
        ),
        (
            "unknown, ACK only",
            vec![(KNOWN, ""), (SYN, ACK)],
            "UnknownDirection".to_owned(),
        ),
        (
            "unknown, UDP from a low port",
            vec![(KNOWN, ""), (TCP, udp)],
            "UnknownDirection".to_owned(),
        ),
        ("UDP", vec![(TCP, udp)], forwarded.replace("TCP 5432", "UDP 53")),
        (
            "SCTP",
            vec![("\"TCP\":{", "\"SCTP\":{")],
            forwarded.replace("TCP", "SCTP"),
        ),
        ("ICMP", vec![(TCP, r#"{"ICMPv4":{"type":8}}"#)], "NoPorts".to_owned()),
        ("no transport", vec![("\"l4\"", "\"l5\"")], "NoPorts".to_owned()),
        ("dropped", vec![("FORWARDED", "DROPPED"), (KNOWN, "")], dropped.clone()),
        (
            "dropped by a policy, which replies never are",
            vec![
                ("FORWARDED", "DROPPED"),
                (KNOWN, "\"drop_reason_desc\":\"POLICY_DENIED\","),
                (TCP, udp),
            ],
            dropped.replace("TCP 5432", "UDP 53"),
        ),
        (
            "dropped for another reason",
            vec![("FORWARDED", "DROPPED"), (KNOWN, "\"drop_reason\":140,"), (TCP, udp)],
            "UnknownDirection".to_owned(),
        ),
        ("to a proxy", vec![("FORWARDED", "REDIRECTED")], forwarded.clone()),
        ("only audited", vec![("FORWARDED", "AUDIT")], forwarded.clone()),
        (
            "no verdict",
            vec![("FORWARDED", "VERDICT_UNKNOWN")],
            "NoVerdict".to_owned(),
        ),
        (
            "translation",
            vec![("FORWARDED", "TRANSLATED")],
            "Translation".to_owned(),
        ),
        ("socket", vec![("L3_L4", "SOCK")], "Translation".to_owned()),
        (
            "numbers for names",
            vec![("\"FORWARDED\"", "1"), ("\"EGRESS\"", "1")],
            forwarded.replace("at source", "at destination"),
        ),
        (
            "no pod",
            vec![("\"pod_name\":\"db-0\"", "\"pod_name\":\"\"")],
            forwarded.replace("Pod shop/db-0", "10.0.2.3"),
        ),
        (
            "the node itself",
            vec![("\"identity\":4242", "\"identity\":1"), (",\"pod_name\":\"web-0\"", "")],
            format!("{}, 10.0.1.2 of n1", forwarded.replace(web, "10.0.1.2")),
        ),
        (
            "no workload",
            vec![(r#"[{"name":"web","kind":"StatefulSet"}]"#, "null")],
            forwarded.replace(web, "Pod shop/web-0"),
        ),
        (
            "two workloads, of which nobody knows which it is",
            vec![(r"[{", r#"[{"name":"x","kind":"Job"},{"#)],
            forwarded.replace(web, "Pod shop/web-0"),
        ),
        (
            "a workload without a kind",
            vec![(r#","kind":"StatefulSet""#, "")],
            forwarded.replace(web, "Pod shop/web-0"),
        ),
    ];
    for (what, edits, expected) in rows {
        let flow = hubble(&edits);
        let envelope = format!(r#"{{"flow":{flow},"node_name":"c/n1","time":"2026-01-02T03:04:05Z"}}"#);
        for line in [flow, envelope] {
            assert_eq!(
                one(&line).map(|entry| words(&entry)).as_deref(),
                Ok(expected.as_str()),
                "{what}: {line}"
            );
        }
    }
}

#[test]
fn hubble_in_the_other_case_of_names() {
    let line = hubble(&[
        ("destination_port", "destinationPort"),
        ("source_port", "sourcePort"),
        ("pod_name", "podName"),
        ("traffic_direction", "trafficDirection"),
        ("is_reply", "isReply"),
        ("node_name", "nodeName"),
    ]);
    assert_eq!(
        one(&line).map(|entry| words(&entry)),
        one(&hubble(&[])).map(|entry| words(&entry))
    );
}

#[test]
fn hubbles_other_events_are_no_flows() {
    for line in [
        r#"{"lost_events":{"source":"PERF_EVENT_RING_BUFFER","num_events_lost":"12"},"node_name":"n1","time":"2026-01-02T03:04:05Z"}"#,
        r#"{"node_status":{"state_change":"NODE_CONNECTED","node_names":["n1"]}}"#,
        r#"{"agent_event":{"type":"AGENT_STARTED"}}"#,
    ] {
        assert_eq!(one(line), Ok(Entry::Skipped(Skip::NoFlow)), "{line}");
    }
}

#[test]
fn faults_of_hubbles_flows() {
    let rows = [
        (
            hubble(&[("10.0.2.3", "10.0.2")]),
            "because of the field `IP.destination`: invalid IP address syntax",
        ),
        (
            hubble(&[("5432", "70000")]),
            "because of the field `l4.TCP.destination_port`",
        ),
        (
            hubble(&[("\"is_reply\":false", "\"is_reply\":\"no\"")]),
            "because of the field `is_reply`",
        ),
        (
            hubble(&[("\"IP\"", "\"iq\""), (",\"pod_name\":\"db-0\"", "")]),
            "because of the field `destination`: neither",
        ),
        (
            format!(r#"{{"flow":{}}}"#, hubble(&[("03:04", "34:04")])),
            "because of the field `flow.time`",
        ),
    ];
    for (line, expected) in rows {
        let fault = one(&line).unwrap_err();
        assert!(fault.contains(expected), "{line}: {fault}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), compressed in any::<bool>()) {
        if compressed {
            bytes.splice(0..0, [0x1f, 0x8b, 8]);
        }
        all(bytes);
    }

    #[test]
    fn no_mutation_makes_it_panic(
        which in 0..3_usize,
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), "[ -~\n\u{0}é]{0,4}"), 1..8)
    ) {
        let seeds = [PLAIN.to_owned(), hubble(&[]), r#"{"origin":{"node":"n","epoch":1},"flows":[],"node_addresses":["10.0.0.1"]}"#.to_owned()];
        let mut text: Vec<char> = seeds[which].chars().collect();
        for (at, length, new) in edits {
            let at = at.index(text.len() + 1);
            let end = (at + length.index(6)).min(text.len());
            text.splice(at..end, new.chars());
        }
        all(text.into_iter().collect::<String>());
    }

    #[test]
    fn every_line_is_an_entry(lines in proptest::collection::vec(any::<bool>(), 0..20)) {
        let text: Vec<&str> = lines.iter().map(|good| if *good { PLAIN } else { "bad" }).collect();
        let found: Vec<bool> = all(text.join("\n")).entries.iter().map(Result::is_ok).collect();
        prop_assert_eq!(found, lines);
    }
}
