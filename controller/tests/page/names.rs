//! Names stay text in what a controller writes beside the page, too: its log, and what it found.

use std::fs;

use nanoseg_policy::map::visible;
use serde_json::Value;

use crate::folder::{Folder, accepted, node, pod, until};
use crate::http::get;

/// What clears a terminal, renames its window, begins a line of its own and turns what follows around.
const NAME: &str = "x\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m\nWARN forged\r\u{202e}\u{2066}\u{200b}";

fn assert_plain(what: &str, text: &str) {
    for line in text.split('\n') {
        assert_eq!(visible(line), line, "{what}");
        assert!(!line.starts_with("WARN forged"), "{what}: {line}");
    }
}

#[test]
fn names_do_nothing_to_whoever_reads_logs_and_files() {
    for format in ["text", "json"] {
        let objects = [
            node(),
            pod("shop", "Deployment", NAME, "198.18.1.10"),
            pod("shop", "StatefulSet", "db", "198.18.1.11"),
            pod("shop", "Deployment", &format!("thief{NAME}"), "198.18.1.12"),
        ];
        let folder = Folder::new(&objects, &["--learn-for", "2s", "--log-format", format]);
        let learned = accepted("shop", "db", "198.18.1.10", 5432, 3);
        folder.report(std::slice::from_ref(&learned));
        until("a proposal", || {
            let segments = get(folder.page, "/api/segments").body;
            segments.contains("\"Proposed\"").then_some(())
        });
        folder.report(&[learned, accepted("shop", "db", "198.18.1.12", 5432, 1)]);
        let file = folder.root.path().join("out/violations.jsonl");
        let found = until("a violation", || {
            fs::read_to_string(&file).ok().filter(|text| text.ends_with('\n'))
        });
        assert_plain("violations.jsonl", &found);
        let violation: Value = serde_json::from_str(found.lines().next().unwrap()).unwrap();
        let name = serde_json::to_string(&format!("thief{NAME}")).unwrap();
        let told = violation.to_string();
        assert!(
            told.contains(name.trim_matches('"')),
            "{told}: it reads back as what it was"
        );
        let log = fs::read_to_string(folder.root.path().join("log")).unwrap();
        assert_plain(format, &log);
        assert!(log.contains("thief") && log.contains("violation, "), "{log}");
        if format == "json" {
            for line in log.lines().filter(|line| line.starts_with('{')) {
                let event: Value = serde_json::from_str(line).unwrap();
                assert!(event["message"].is_string(), "{line}");
            }
        }
    }
}
