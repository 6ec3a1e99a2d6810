//! The pages say what is: their links lead somewhere, their commands are commands, and the messages that they explain are said.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use nanoseg::settings::Arguments;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

const PAGES: [&str; 11] = [
    "README.md",
    "controller/asking.md",
    "controller/comparison.md",
    "controller/policy/map.md",
    "controller/reviewing.md",
    "manifests/limits.md",
    "manifests/monitoring/README.md",
    "manifests/operating.md",
    "manifests/security.md",
    "manifests/troubleshooting.md",
    "tests/lab/README.md",
];

fn page(name: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(name)).unwrap()
}

#[test]
fn links_lead_somewhere() {
    for name in PAGES {
        let text = page(name);
        let folder = Path::new(ROOT).join(name);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (path, _) = target.split_once('#').unwrap_or((target, ""));
            if path.is_empty() || path.starts_with("https://") {
                continue;
            }
            assert!(folder.parent().unwrap().join(path).exists(), "{name}: {target}");
        }
    }
}

/// The words of a command, as a shell would split them.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for character in line.chars() {
        match (character, quote) {
            ('\'' | '"', None) => quote = Some(character),
            (character, Some(open)) if character == open => quote = None,
            (' ', None) => words.push(String::new()),
            (character, _) => words.last_mut().unwrap().push(character),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The calls of nanoseg in the code of a page.
fn commands(text: &str) -> Vec<String> {
    let code = text.lines().filter_map(|line| line.strip_prefix("    "));
    let parts = code.flat_map(|line| line.split(" | ")).map(str::trim_start);
    let calls = parts.filter(|part| part.starts_with("nanoseg "));
    // What follows is a remark, or where the output goes.
    let alone = calls.map(|call| call.split("   ").next().unwrap().split(" # ").next().unwrap());
    let alone = alone.map(|call| {
        if call.contains("->") {
            call
        } else {
            call.split(" > ").next().unwrap()
        }
    });
    alone.map(str::to_owned).collect()
}

#[test]
fn commands_are_commands() {
    let mut found = BTreeSet::new();
    for name in PAGES {
        for command in commands(&page(name)) {
            let typed = Arguments::command().try_get_matches_from(words(&command));
            assert!(typed.is_ok(), "{name}: `{command}`: {}", typed.unwrap_err());
            found.insert(command);
        }
    }
    assert!(found.len() > 20, "{found:?}");
}

/// Every Rust source below a folder, as one text; a string over several lines is one line.
fn sources(folder: &Path, text: &mut String) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path).unwrap();
            let mut lines = source.split("\\\n");
            text.push_str(lines.next().unwrap());
            for line in lines {
                text.push_str(line.trim_start());
            }
        }
    }
}

#[test]
fn messages_that_are_explained_are_said() {
    let mut said = String::new();
    for folder in ["controller/src", "learner/src"] {
        sources(&Path::new(ROOT).join(folder), &mut said);
    }
    let text = page("manifests/troubleshooting.md");
    let messages = text
        .lines()
        .filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`'));
    let mut count = 0;
    for message in messages {
        count += 1;
        for part in message.split("...").map(str::trim).filter(|part| part.len() > 3) {
            assert!(said.contains(part), "{part}");
        }
    }
    assert!(count > 15);
}
