use std::error::Error as _;

use jiff::Timestamp;
use nanoseg_graph::cluster::Cluster;
use proptest::prelude::*;

use super::*;

/// Names of the objects and policies that were read, and the faults without the file's name.
fn read(bytes: impl AsRef<[u8]>) -> (Vec<String>, Vec<String>) {
    let file = Path::new("x.yaml");
    let mut manifests = Manifests::default();
    manifests.add_bytes(file, bytes.as_ref());
    let mut names: Vec<String> = manifests.objects.iter().map(name).collect();
    names.extend(manifests.policies.iter().map(|policy| PolicyName::of(policy).name));
    let faults = manifests
        .faults
        .iter()
        .map(|fault| match fault.source() {
            Some(source) => format!("{fault}: {source}").replace("x.yaml: ", ""),
            None => fault.to_string().replace("x.yaml: ", ""),
        })
        .collect();
    (names, faults)
}

fn name(object: &Object) -> String {
    match object {
        Object::Pod(pod) => pod.name.to_string(),
        Object::Namespace(namespace) => namespace.name.clone(),
        Object::Node(node) => node.name.clone(),
        Object::Service(service) => service.name.name.clone(),
        Object::Controller(controller) => controller.name.clone(),
        Object::EndpointSlice(slice) => slice.name.clone(),
    }
}

const POD: &str = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"NAME"}}"#;

fn pod(name: &str) -> String {
    POD.replace("NAME", name)
}

#[test]
fn every_way_to_write_several_objects() {
    let [a, b] = ["a", "b"].map(pod);
    let flow = "{kind: Pod, apiVersion: v1, metadata: {name: a}}";
    let block = "kind: Pod\napiVersion: v1\nmetadata:\n  name: b\n";
    let rows = [
        ("two YAML documents", format!("{flow}\n---\n{block}")),
        ("separators at both ends", format!("---\n{flow}\n---\n{block}\n---\n")),
        ("a document on the separator's line", format!("--- {flow}\n--- # b\n{block}...\n")),
        ("directive", format!("%YAML 1.2\n---\n{flow}\n---\n{block}")),
        ("comments", format!("# one\n---\n# two\n---\n{flow}\n---\n{block}")),
        ("CR LF", format!("{flow}\n---\n{block}").replace('\n', "\r\n")),
        ("byte order mark", format!("\u{feff}{flow}\n---\n{block}")),
        ("keys that are no text", format!("{a}\n---\n{block}---\nkind: ConfigMap\napiVersion: v1\ndata: {{80: a, true: b, 1.5: c}}\n")),
        ("JSON in a YAML stream", format!("{a}\n---\n{block}")),
        ("JSON lines", format!("{a}\n{b}\n")),
        ("JSON on one line", format!("{a}{b}")),
        ("List", format!(r#"{{"kind":"List","apiVersion":"v1","items":[{a},{b}]}}"#)),
        (
            "PodList whose items say nothing of their kind",
            r#"{"kind":"PodList","apiVersion":"v1","items":[{"metadata":{"name":"a"}},{"metadata":{"name":"b"}}]}"#.to_owned(),
        ),
        ("List in YAML", format!("kind: List\napiVersion: v1\nitems:\n- {flow}\n- {b}\n")),
        ("List of Lists", format!(r#"{{"kind":"List","apiVersion":"v1","items":[{a},{{"kind":"List","apiVersion":"v1","items":[{b}]}}]}}"#)),
        ("merge keys", "kind: List\napiVersion: v1\nitems:\n- &p {kind: Pod, apiVersion: v1, metadata: {name: a}}\n- {<<: *p, metadata: {name: b}}\n".to_owned()),
        ("other kinds", format!("{a}\n---\n{b}\n---\nkind: ConfigMap\napiVersion: v1\nmetadata: {{name: c}}\n")),
    ];
    for (what, text) in rows {
        assert_eq!(
            read(&text),
            (vec!["a".to_owned(), "b".to_owned()], vec![]),
            "{what}:\n{text}"
        );
    }
}

#[test]
fn text_of_windows_is_text() {
    let text = format!("\u{feff}{}\r\n---\r\n{}", pod("a"), pod("b"));
    for order in [u16::to_le_bytes, u16::to_be_bytes] {
        let bytes: Vec<u8> = text.encode_utf16().flat_map(order).collect();
        assert_eq!(read(bytes), (vec!["a".to_owned(), "b".to_owned()], vec![]));
    }
}

#[test]
fn policy_lists() {
    let text = "kind: NetworkPolicyList\napiVersion: networking.k8s.io/v1\nitems:\n- metadata: {name: p}\n  spec: {podSelector: {}}\n";
    assert_eq!(read(text), (vec!["p".to_owned()], vec![]));
}

#[test]
fn p18_a_bad_document_does_not_take_the_others_with_it() {
    let [a, b] = ["a", "b"].map(pod);
    let block = |name: &str| format!("kind: Pod\napiVersion: v1\nmetadata:\n  name: {name}\n");
    let rows = [
        (
            "YAML",
            format!("{}---\nkind: [\n---\n{}", block("a"), block("b")),
            "document 2 (line 6): left out, because it is not YAML: ",
        ),
        (
            "no kind",
            format!("{}---\nname: x\n---\n{}", block("a"), block("b")),
            "document 2 (line 6): left out: the document has no kind",
        ),
        (
            "not an object",
            format!("{}---\n- 1\n---\n{}", block("a"), block("b")),
            "document 2 (line 6): left out: the document has no kind",
        ),
        (
            "JSON line",
            format!("{a}\n{{\"kind\": \n{b}\n"),
            "document 2 (line 2): left out, because it is not JSON: ",
        ),
        (
            "JSON of several lines",
            format!("{a}\n{{\n \"kind\": \"Pod\",\n \"apiVersion\": ]\n}}\n{b}\n"),
            "document 2 (line 2): left out, because it is not JSON: expected value at line 4, column 16",
        ),
        (
            "item of a List",
            format!(r#"{{"kind":"List","apiVersion":"v1","items":[{a},{{"x":1}},{b}]}}"#),
            "document 1 (line 1): left out: the document has no items[1].kind",
        ),
        (
            "field",
            format!(
                "{}---\nkind: Service\napiVersion: v1\nmetadata: {{name: s, namespace: n}}\nspec:\n  ports:\n  - port: http\n---\n{}",
                block("a"),
                block("b")
            ),
            "document 2 (line 6): left out: Service n/s: spec.ports[0].port cannot be read",
        ),
        (
            "field that the kind does not have",
            format!(
                "{a}\n---\n{{kind: NetworkPolicy, apiVersion: networking.k8s.io/v1, metadata: {{name: b}}, spec: {{podSelector: {{}}, policyType: [Egress]}}}}\n"
            ),
            "document 2 (line 3): NetworkPolicy b: spec.policyType is not a field of this kind, and is ignored",
        ),
        (
            "template",
            format!("{}---\nkind: {{{{ .Values.kind }}}}\n---\n{}", block("a"), block("b")),
            "document 2 (line 6): left out, because it is not YAML: ",
        ),
        (
            "kind in an API that does not have it",
            format!("{a}\n---\n{{kind: Pod, apiVersion: apps/v1, metadata: {{name: c}}}}\n---\n{b}\n"),
            "document 2 (line 3): Pod c is left out: it is of apps/v1, and API servers have this kind in v1",
        ),
        (
            "tag",
            format!("{}---\n!x {{kind: Pod}}\n---\n{}", block("a"), block("b")),
            "document 2 (line 6): left out",
        ),
    ];
    for (what, text, expected) in rows {
        let (names, faults) = read(&text);
        assert_eq!(names, ["a", "b"], "{what}: {faults:?}");
        assert_eq!(faults.len(), 1, "{what}: {faults:?}");
        assert!(faults[0].starts_with(expected), "{what}: {}", faults[0]);
    }
}

#[test]
fn faults_of_a_file_are_told_in_the_order_of_its_lines() {
    let bad_fields = "kind: Service\napiVersion: v1\nmetadata: {name: s}\nspec: {ports: 1}\n";
    let text = format!("{bad_fields}---\nkind: [\n---\n{bad_fields}---\n{{kind: }}\n{{\n{bad_fields}");
    let (_, faults) = read(text);
    let told: Vec<&str> = faults.iter().filter_map(|fault| fault.split(": ").next()).collect();
    assert_eq!(
        told,
        [
            "document 1 (line 1)",
            "document 2 (line 6)",
            "document 3 (line 8)",
            "document 4 (line 13)",
            "document 5 (line 14)"
        ]
    );
}

#[test]
fn a_template_is_told_from_other_errors() {
    for (text, is_template) in [
        ("kind: {{ .Values.kind }}\n", true),
        ("{{- if .Values.on }}\n", true),
        ("kind: Pod\nmetadata:\n  {{- include \"x\" . | nindent 2 }}\n", true),
        ("kind: [\n", false),
    ] {
        let (names, faults) = read(text);
        assert_eq!((names.len(), faults.len()), (0, 1), "{text}: {faults:?}");
        assert_eq!(faults[0].contains("helm template"), is_template, "{text}: {faults:?}");
    }
}

#[test]
fn an_object_that_is_another_one_the_second_time_is_told() {
    let policy = |name: &str, spec: &str| {
        format!(
            "{{kind: NetworkPolicy, apiVersion: networking.k8s.io/v1, metadata: {{namespace: n, name: {name}}}, spec: {{{spec}}}}}"
        )
    };
    let cluster_policy = |priority: u16| {
        format!(
            "{{kind: ClusterNetworkPolicy, apiVersion: policy.networking.k8s.io/v1alpha2, metadata: {{name: c}}, spec: {{tier: Admin, priority: {priority}, subject: {{namespaces: {{}}}}}}}}"
        )
    };
    let text = [
        policy("p", "podSelector: {}"),
        "{kind: Pod, apiVersion: v1, metadata: {namespace: n, name: p, labels: {a: b}}}".to_owned(),
        "{kind: Pod, apiVersion: v1, metadata: {namespace: n, name: p, labels: {a: b}, resourceVersion: '7'}}"
            .to_owned(),
        policy("p", "podSelector: {}"),
        policy("p", "podSelector: {matchLabels: {a: b}}"),
        "{kind: Pod, apiVersion: v1, metadata: {namespace: n, name: p, labels: {a: c}}}".to_owned(),
        cluster_policy(1),
        cluster_policy(2),
        policy("q", "podSelector: {}"),
    ];
    let (names, faults) = read(text.join("\n---\n"));
    assert_eq!(names.len(), 7, "of the cluster's policies none is told: {names:?}");
    assert_eq!(
        faults,
        [
            "document 5 (line 9): NetworkPolicy n/p is another one than at document 4 (line 7), and the later counts",
            "document 6 (line 11): Pod n/p is another one than at document 3 (line 5), and the later counts",
            "document 8 (line 15): ClusterNetworkPolicy c is another one than at document 7 (line 13), and the later counts",
        ]
    );
}

#[test]
fn pods_that_share_a_uid_are_both_there_and_it_is_told() {
    let pod = |name| format!("{{kind: Pod, apiVersion: v1, metadata: {{namespace: n, name: {name}, uid: u}}}}");
    let mut manifests = Manifests::default();
    let text = [pod("one"), pod("other"), pod("one")].join("\n---\n");
    manifests.add_bytes(Path::new("pods.yaml"), text.as_bytes());
    let mut cluster = Cluster::default();
    for object in manifests.objects {
        cluster.observe(object, Timestamp::UNIX_EPOCH);
    }
    let names: Vec<&str> = cluster.pods().map(|pod| &*pod.name).collect();
    assert_eq!(names, ["one", "other"]);
    let faults: Vec<String> = manifests.faults.iter().map(ToString::to_string).collect();
    let told = "pods.yaml: document 2 (line 3): Pod n/other has the UID of Pod n/one at pods.yaml: document 1 (line 1); they \
                are told apart by their names";
    assert_eq!(faults, [told]);
}

#[test]
fn a_yaml_error_is_told_with_its_line_in_the_file() {
    let (_, faults) = read("kind: Pod\n---\nkind: Pod\nmetadata:\n  name: a\n name: b\n");
    assert!(faults.iter().any(|fault| fault.contains("at line 6")), "{faults:?}");
}

#[test]
fn what_is_not_text_is_told_with_its_line() {
    let (names, faults) = read(b"kind: Pod\n# \xff\n");
    assert_eq!(names.len(), 0);
    assert_eq!(
        faults,
        ["x.yaml: left out: line 2 is not UTF-8 text".replace("x.yaml: ", "")]
    );
}

#[test]
fn nothing_is_nothing() {
    for text in ["", "\n", "---\n---\n", "# only a comment\n", "null\n", "{}"] {
        let (names, faults) = read(text);
        assert_eq!(names.len(), 0, "{text:?}");
        assert_eq!(faults.len(), usize::from(text == "{}"), "{text:?}: {faults:?}");
    }
}

#[test]
fn nesting_and_repetition_are_bounded() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let item = format!("*a{}, ", level - 1).repeat(9);
        let line = format!("a{level}: &a{level} [{item}]\n");
        bomb.push_str(&line);
    }
    for text in [
        "[".repeat(100_000),
        "{\"a\":".repeat(100_000),
        "- ".repeat(10_000),
        bomb,
    ] {
        let (names, faults) = read(&text);
        assert_eq!((names.len(), faults.len()), (0, 1));
    }
}

const SEED: &str = "%YAML 1.2\n---\nkind: List\napiVersion: v1\nitems:\n- &p {kind: Pod, apiVersion: v1, metadata: {name: a, labels: {a: 'b'}}, status: {podIP: 10.0.0.1}}\n- {<<: *p, metadata: {name: b}}\n---\n{\"kind\":\"NetworkPolicy\",\"apiVersion\":\"networking.k8s.io/v1\",\"metadata\":{\"name\":\"p\"},\"spec\":{\"podSelector\":{},\"ingress\":[{\"ports\":[{\"port\":80,\"endPort\":90}]}]}}\n{\"kind\":\"Namespace\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"n\"}}\n...\n";

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        read(bytes);
    }

    #[test]
    fn no_mutation_makes_it_panic(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), "[ -~\n\t\r\u{0}é\u{feff}]{0,4}"), 1..8)
    ) {
        let mut text: Vec<char> = SEED.chars().collect();
        for (at, length, new) in edits {
            let at = at.index(text.len() + 1);
            let end = (at + length.index(6)).min(text.len());
            text.splice(at..end, new.chars());
        }
        read(text.into_iter().collect::<String>());
    }

    #[test]
    fn every_document_is_read_or_a_fault(documents in proptest::collection::vec(any::<bool>(), 0..8)) {
        let text: Vec<String> = documents
            .iter()
            .map(|good| if *good { pod("a") } else { "kind: [".to_owned() })
            .collect();
        let text = text.join("\n---\n");
        let (names, faults) = read(text);
        prop_assert_eq!(names.len(), documents.iter().filter(|good| **good).count());
        prop_assert_eq!(faults.len(), documents.iter().filter(|good| !**good).count());
    }
}
