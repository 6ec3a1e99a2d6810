//! The examples in the help of each command run as they are written, if they need no cluster.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use clap::CommandFactory as _;
use nanoseg::settings::Arguments;

use super::{Folder, POLICY, pod, question};

/// Everything that examples name.
fn folder() -> Folder {
    let folder = Folder::new();
    for path in ["manifests", "reports", "policies/proposed", "branch", "home"] {
        fs::create_dir_all(folder.at(path)).unwrap();
    }
    fs::rename(folder.at("c.yaml"), folder.at("manifests/c.yaml")).unwrap();
    let flows = [
        question(&pod("web-0"), &pod("db-0"), 5432, "TCP"),
        question(&pod("web-0"), &pod("db-0"), 22, "TCP"),
    ]
    .join("\n");
    folder.write("flows.jsonl", &flows);
    folder.write("reports/flows.jsonl", &flows);
    folder.write("questions.jsonl", &flows);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, flows.as_bytes()).unwrap();
    folder.write("flows.jsonl.gz", gzip.finish().unwrap());
    folder.write("policies/db.yaml", POLICY);
    folder.write("policies/proposed/db.yaml", POLICY);
    folder.write("branch/db.yaml", POLICY.replace("5432", "5433"));
    folder
}

/// The commands of a help, up to a remark, and to what follows them in a shell that is not here.
fn examples(help: &str) -> Vec<String> {
    let lines = help.lines().filter(|line| line.starts_with("  ")).map(str::trim_start);
    let calls = lines.filter_map(|line| {
        line.strip_prefix("source <(")
            .map(|rest| rest.trim_end_matches(')'))
            .or(Some(line))
    });
    let calls = calls.filter(|line| line.starts_with("nanoseg "));
    let alone = |call: &str| {
        let call = call.split("   ").next().unwrap().split(" > ").next().unwrap();
        call.split(" && ").next().unwrap().trim_end().to_owned()
    };
    calls.map(alone).collect()
}

/// Whether a command looks at files alone, and ends.
fn is_on_files(example: &str) -> bool {
    let command = example.split(' ').nth(1).unwrap_or_default();
    let of_itself = ["crd", "completions", "reference", "man"].contains(&command) || example.contains("--schema");
    of_itself || (example.contains("--cluster") && command != "controller")
}

#[test]
fn examples_in_help_run_as_they_are_written() {
    let folder = folder();
    let programs = folder.at("programs");
    fs::create_dir(&programs).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_nanoseg"), programs.join("nanoseg")).unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let mut run = BTreeSet::new();
    let mut all = Arguments::command();
    let helps = std::iter::once(all.clone()).chain(all.get_subcommands().cloned());
    for example in
        helps.flat_map(|command| examples(&command.get_after_help().map(ToString::to_string).unwrap_or_default()))
    {
        // What is written is at least what is taken.
        let (call, pipe) = example.split_once(" | ").unwrap_or((&example, ""));
        let typed = Arguments::command().try_get_matches_from(shell_words(call));
        assert!(typed.is_ok(), "{example}: {}", typed.unwrap_err());
        if !is_on_files(call) {
            continue;
        }
        let script = match pipe.split(' ').next() {
            Some("jq") => format!("{example}; exit ${{PIPESTATUS[0]}}"),
            _ => call.to_owned(),
        };
        let output = Command::new("bash")
            .args(["-c", &script])
            .current_dir(folder.at(""))
            .env("PATH", &path)
            .env("HOME", folder.at("home"))
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(matches!(output.status.code(), Some(0 | 1)), "{example}: {said}");
        for wrong in ["warning:", "error", "nanoseg:"] {
            assert!(!said.contains(wrong), "{example}: {said}");
        }
        assert!(!output.stdout.is_empty() || call.contains("--out"), "{example}: {said}");
        run.insert(example);
    }
    all.build();
    let of = |command: &clap::Command| {
        run.iter()
            .any(|example| example.split(' ').nth(1) == Some(command.get_name()))
    };
    for name in [
        "audit",
        "synthesize",
        "graph",
        "explain",
        "diff",
        "export",
        "reach",
        "crd",
        "completions",
        "reference",
        "man",
    ] {
        assert!(of(all.find_subcommand(name).unwrap()), "{name}: no example on files");
    }
}

/// The words of a command, by the shell itself.
fn shell_words(call: &str) -> Vec<String> {
    let script = format!("printf '%s\\n' {call}");
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}
