//! Errors as people meet them: each says what failed, on what, and what to do; and the page about them knows it.

use std::fs;
use std::process::Command;

use super::Folder;

/// What a command says where no cluster is configured but what a test says.
fn said(folder: &Folder, variables: &[(&str, &str)], arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_nanoseg"))
        .args(arguments)
        .current_dir(folder.at(""))
        .env_remove("KUBECONFIG")
        .env_remove("KUBERNETES_SERVICE_HOST")
        .env("HOME", folder.at("home"))
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_kubeconfig_that_is_not_there_is_told_once_and_shortly() {
    let folder = Folder::new();
    folder.write("broken.yaml", "{\n");
    folder.write("empty.yaml", "apiVersion: v1\nkind: Config\n");
    folder.write(
        "nobody.kubeconfig",
        "{apiVersion: v1, kind: Config, current-context: other, contexts: [{name: a, context: {cluster: a, user: a}}], \
         clusters: [{name: a, cluster: {server: 'http://127.0.0.1:1'}}], users: [{name: a, user: {}}]}",
    );
    for (variables, arguments, words) in [
        (
            &[("KUBECONFIG", "nobody.kubeconfig")][..],
            &["status", "--context", "b"][..],
            "cannot use the kubeconfig: it has no context b; `kubectl config get-contexts`",
        ),
        (
            &[],
            &["status", "--kubeconfig", "nobody.kubeconfig", "--context", "b"],
            "cannot use the kubeconfig nobody.kubeconfig: it has no context b",
        ),
        // The context's own cluster is asked, whatever the current one is.
        (
            &[("KUBECONFIG", "nobody.kubeconfig")],
            &["status", "--context", "a"],
            "the API server at http://127.0.0.1:1",
        ),
        (
            &[],
            &["status", "--kubeconfig", "none"],
            "cannot use the kubeconfig none: No such file",
        ),
        (
            &[("KUBECONFIG", "none")],
            &["status"],
            "no cluster to work on: kubeconfig none: No such file",
        ),
        (&[], &["doctor"], "/home/.kube/config: No such file"),
        (
            &[],
            &["status", "--kubeconfig", "broken.yaml"],
            "cannot use the kubeconfig broken.yaml: failed to parse",
        ),
        (
            &[],
            &["status", "--kubeconfig", "empty.yaml"],
            "kubectl config use-context",
        ),
    ] {
        let said = said(&folder, variables, arguments);
        assert!(said.contains(words), "{arguments:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.matches("os error").count() <= 1, "{said}");
        assert!(said.chars().count() < 240, "{said}");
    }
}

#[test]
fn a_command_that_does_not_exist_is_answered_by_those_that_do() {
    let folder = Folder::new();
    let said = said(&folder, &[], &["frobnicate"]);
    assert!(said.contains("the commands are controller, audit"), "{said}");
}

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/troubleshooting.md");

/// The messages that the page explains.
fn headings() -> Vec<String> {
    let page = fs::read_to_string(PAGE).unwrap();
    let headings = page
        .lines()
        .filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`'));
    headings.map(str::to_owned).collect()
}

/// Whether something said is what a heading stands for: its parts, one after the other.
fn is_about(heading: &str, said: &str) -> bool {
    let mut rest = said;
    heading.split("...").map(str::trim).all(|part| match rest.find(part) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    })
}

#[test]
fn errors_are_found_on_the_page_by_what_is_said() {
    let folder = Folder::new();
    fs::create_dir(folder.at("nothing")).unwrap();
    folder.write("not.yaml", "{\n");
    folder.write("none.jsonl", "");
    folder.write(
        "f.jsonl",
        super::question(&super::pod("web-0"), &super::pod("db-0"), 5432, "TCP"),
    );
    folder.write(
        "report.json",
        "{\"origin\": {\"node\": \"n1\", \"epoch\": 1}, \"flows\": [], \"losses\": [], \"node_addresses\": []}",
    );
    // Where nobody listens, and where somebody does already.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    folder.write(
        "nobody.kubeconfig",
        "{apiVersion: v1, kind: Config, current-context: a, contexts: [{name: a, context: {cluster: a, user: a}}], \
         clusters: [{name: a, cluster: {server: 'http://127.0.0.1:1'}}], users: [{name: a, user: {}}]}",
    );
    let headings = headings();
    for (heading, command) in [
        ("there is no cluster to work on", "status"),
        ("cannot use the kubeconfig ...", "status --kubeconfig none"),
        (
            "cannot list ... at ...",
            "synthesize --kubeconfig nobody.kubeconfig --flows f.jsonl",
        ),
        ("cannot list ... at ...", "status --kubeconfig nobody.kubeconfig"),
        (
            "cannot get ... on the API server at ...",
            "promote shop/web --kubeconfig nobody.kubeconfig",
        ),
        (
            "no Kubernetes object could be read there",
            "graph --cluster nothing --flows f.jsonl",
        ),
        (
            "no flow could be read there",
            "graph --cluster c.yaml --flows none.jsonl",
        ),
        (
            "there is no pod ...",
            "explain --cluster c.yaml --from shop/web --to shop/nobody --port 1",
        ),
        (
            "left out, because it is not ...",
            "graph --cluster c.yaml --cluster not.yaml --strict --flows f.jsonl",
        ),
        (
            "... in the input, and --strict was given",
            "graph --cluster c.yaml --cluster not.yaml --cluster c.yaml --strict --flows f.jsonl",
        ),
        (
            "this is a learner's report, of which each line is no question",
            "explain --cluster c.yaml --flows report.json",
        ),
        (
            "this is not a map",
            "export --cluster c.yaml --format json --since c.yaml",
        ),
        (
            "what changed has no form ...",
            "export --cluster c.yaml --format svg --since c.yaml",
        ),
        (
            "learners cannot be recognised outside a pod without the namespace that they run in",
            "controller --kubeconfig nobody.kubeconfig",
        ),
        (
            "cannot listen for learners at ...",
            &format!("controller --kubeconfig nobody.kubeconfig --insecure-learners --listen {taken}"),
        ),
    ] {
        let said = said(&folder, &[], &command.split(' ').collect::<Vec<_>>());
        assert!(is_about(heading, &said), "{command}: {said}");
        assert!(
            headings.iter().any(|known| known == heading),
            "{heading}: not on the page"
        );
    }
}
