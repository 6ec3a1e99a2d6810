//! The forms of answers: each command prints the same in all of those that it has.

use serde::Deserialize as _;
use serde_json::Value;

use super::{Folder, lines};

fn documents(yaml: &str) -> Vec<Value> {
    serde_yaml::Deserializer::from_str(yaml)
        .map(|document| Value::deserialize(document).unwrap())
        .collect()
}

fn folder() -> Folder {
    let folder = Folder::asked();
    folder.write("none.yaml", "");
    folder
}

#[test]
fn yaml_holds_what_json_does() {
    let folder = folder();
    for command in [
        "audit --cluster c.yaml --flows f.jsonl",
        "graph --cluster c.yaml --flows f.jsonl",
        "explain --cluster c.yaml --flows f.jsonl",
        "explain --cluster c.yaml --from shop/web-0 --to shop/db-0 --port 22",
        "diff --cluster c.yaml --old none.yaml --new c.yaml",
        "reach --cluster c.yaml --workload shop/web",
    ] {
        let command: Vec<&str> = command.split(' ').collect();
        let [json, yaml] = ["json", "yaml"].map(|form| folder.run(&[&command[..], &["-o", form]].concat()));
        assert_eq!(json.code, yaml.code, "{command:?}: {}", yaml.err);
        let json = lines(&json.out);
        assert!(!json.is_empty(), "{command:?}");
        assert_eq!(json, documents(&yaml.out), "{command:?}");
    }
}

#[test]
fn policies_are_printed_as_what_kubectl_takes() {
    let folder = folder();
    let with = ["synthesize", "--cluster", "c.yaml", "--flows", "f.jsonl", "-o"];
    let [yaml, json, name] = ["yaml", "json", "name"].map(|form| folder.run(&[&with[..], &[form]].concat()));
    let policies = documents(&yaml.out);
    assert_eq!(lines(&json.out)[0]["policies"], Value::Array(policies.clone()));
    let names: Vec<String> = policies
        .iter()
        .map(|policy| {
            format!(
                "networkpolicy.networking.k8s.io/{}",
                policy["metadata"]["name"].as_str().unwrap()
            )
        })
        .collect();
    assert!(!names.is_empty(), "{}", yaml.err);
    assert_eq!(name.out.lines().collect::<Vec<_>>(), names);
    assert!(!folder.at("out").exists());
    let written = folder.run(&[&with[..], &["name", "--out", "out"]].concat());
    assert_eq!(written.out, name.out);
    assert!(folder.at("out").exists());
}

#[test]
fn wide_tables_say_more() {
    let folder = folder();
    let with = ["graph", "--cluster", "c.yaml", "--flows", "f.jsonl"];
    let narrow = folder.run(&with).out;
    let wide = folder.run(&[&with[..], &["-o", "wide"]].concat()).out;
    let head = |table: &str| table.lines().next().unwrap().to_owned();
    assert!(
        head(&wide).starts_with(&head(&narrow)) && head(&wide).ends_with("LAST SEEN"),
        "{wide}"
    );
}

#[test]
fn a_form_that_a_command_does_not_have_is_answered_by_those_that_it_has() {
    let folder = folder();
    let with = ["audit", "--cluster", "c.yaml", "--flows", "f.jsonl", "-o"];
    for (form, word) in [
        ("name", "no objects of Kubernetes"),
        ("jsonpath={.reasons}", "a pipe to jq"),
    ] {
        let ran = folder.run(&[&with[..], &[form]].concat());
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{form}");
        assert!(
            ran.err.contains(word) && ran.err.contains("[possible values: table, json, yaml]"),
            "{}",
            ran.err
        );
    }
}
