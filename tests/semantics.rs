//! The literate cases of `tests/semantics`: given these objects, this connection is allowed, denied or unknown, because.
//!
//! A file has a cluster and cases. A case has policies (by namespace and name), questions, and the sentence of the specification
//! that answers them. A question is `from -> to port/protocol`; its answers are those of egress, of ingress, and of both.
#![expect(clippy::panic, clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use jiff::Timestamp;
use nanoseg_graph::cluster::{Cluster, Object};
use nanoseg_graph::flow::Transport;
use nanoseg_policy::evaluate::{Connection, End, Evaluator, PolicySet, Verdict};
use nanoseg_policy::objects::{self, Manifest, Parsed};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    cluster: Vec<Value>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    title: String,
    #[serde(default)]
    policies: BTreeMap<String, Value>,
    questions: BTreeMap<String, [Expected; 3]>,
    because: String,
    source: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Expected {
    Allowed,
    Denied,
    NotIsolated,
    Unknown,
}

impl Expected {
    fn of(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Allowed(_) => Self::Allowed,
            Verdict::Denied(_) => Self::Denied,
            Verdict::NotIsolated => Self::NotIsolated,
            Verdict::Unknown(_) => Self::Unknown,
        }
    }
}

fn connection(question: &str) -> Option<Connection> {
    let (source, rest) = question.split_once(" -> ")?;
    let (destination, port) = rest.split_once(' ')?;
    let (port, protocol) = port.split_once('/')?;
    let end = |text: &str| match text.split_once('/') {
        Some((namespace, name)) => Some(End::Pod {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }),
        None => text.parse().ok().map(End::Address),
    };
    let all = [Transport::Tcp, Transport::Udp, Transport::Sctp];
    Some(Connection {
        source: end(source)?,
        destination: end(destination)?,
        port: port.parse().ok()?,
        transport: all.into_iter().find(|transport| transport.as_str() == protocol)?,
    })
}

fn read(value: Value) -> Parsed {
    let parsed = objects::parse(value);
    assert!(parsed.unreadable.is_empty(), "{:?}", parsed.unreadable);
    assert!(parsed.unknown_fields.is_empty(), "{:?}", parsed.unknown_fields);
    parsed
}

fn cluster(objects: Vec<Value>) -> Cluster {
    let mut cluster = Cluster::new([]);
    let mut declared = Vec::new();
    for parsed in objects.into_iter().map(read) {
        declared.extend(parsed.declared);
        for manifest in parsed.manifests {
            let Manifest::Object(object) = manifest else {
                panic!("{manifest:?} is not part of a cluster")
            };
            cluster.observe(object, Timestamp::UNIX_EPOCH);
        }
    }
    for pod in objects::stand_ins(&cluster, declared) {
        cluster.observe(Object::Pod(pod), Timestamp::UNIX_EPOCH);
    }
    cluster
}

/// What is wrong with a case.
fn check(case: &Case, cluster: &Cluster) -> Vec<String> {
    let policies = case.policies.iter().map(|(name, spec)| {
        let (namespace, name) = name.split_once('/').unwrap();
        let mut policy = json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"namespace": namespace, "name": name},
        });
        if !spec.is_null() {
            policy["spec"] = spec.clone();
        }
        policy
    });
    let mut parsed = Vec::new();
    for manifest in policies.flat_map(|policy| read(policy).manifests) {
        let Manifest::NetworkPolicy(policy) = manifest else {
            panic!("{manifest:?} is not a NetworkPolicy")
        };
        parsed.push(*policy);
    }
    let (set, rejected) = PolicySet::parse(&parsed);
    assert!(rejected.is_empty(), "{}: {rejected:?}", case.title);
    let evaluator = Evaluator::new(&set, cluster);
    let mut wrong = Vec::new();
    for (question, expected) in &case.questions {
        let Some(connection) = connection(question) else {
            wrong.push(format!("{question}: expected `from -> to port/protocol`"));
            continue;
        };
        let answer = evaluator.evaluate(&connection);
        let combined = answer.combined();
        let found = [&answer.egress, &answer.ingress, &combined].map(Expected::of);
        if found != *expected {
            let Case { because, source, .. } = case;
            wrong.push(format!(
                "{question}: expected {expected:?} (egress, ingress, both) because {because} [{source}]\n      found {found:?}: {combined}"
            ));
        }
    }
    wrong
}

#[test]
fn every_case_is_answered_as_the_specification_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("semantics");
    let files: BTreeSet<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let mut titles = BTreeSet::new();
    let mut failures = Vec::new();
    for path in &files {
        let name = path.file_name().unwrap().to_string_lossy();
        let File {
            cluster: objects,
            cases,
        } = serde_yaml::from_str(&fs::read_to_string(path).unwrap()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let cluster = cluster(objects);
        for case in cases {
            for wrong in check(&case, &cluster) {
                failures.push(format!("{name}: {}:\n    {wrong}", case.title));
            }
            assert!(!case.questions.is_empty(), "{name}: {}: no question", case.title);
            assert!(
                titles.insert(case.title.clone()),
                "{name}: two cases are called {:?}",
                case.title
            );
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {} cases:\n{}",
        failures.len(),
        titles.len(),
        failures.join("\n")
    );
    assert!(titles.len() >= 60, "only {} cases", titles.len());
    println!("{} cases in {} files", titles.len(), files.len());
}
