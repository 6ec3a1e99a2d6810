//! Who is answered, and what.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::folder::{Folder, accepted, node, opened, pod, start, until};
use crate::http::{ask, get, send};
use crate::slow::sockets;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn shop(arguments: &[&str]) -> Folder {
    let objects = [
        node(),
        pod("shop", "StatefulSet", "web", "198.18.1.10"),
        pod("shop", "StatefulSet", "db", "198.18.1.11"),
        pod("shop", "StatefulSet", "thief", "198.18.1.12"),
    ];
    Folder::new(&objects, arguments)
}

#[test]
fn every_answer_has_a_browser_refuse_what_is_not_the_pages_own() {
    let folder = shop(&[]);
    for path in [
        "/",
        "/page.js",
        "/style.css",
        "/api/map",
        "/api/segments",
        "/api/violations",
        "/nothing",
        "/api/segments/a/b",
    ] {
        let answer = get(folder.page, path);
        let policy = answer.header("content-security-policy").unwrap();
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self'"),
            "{path}: {policy}"
        );
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("x-frame-options"), Some("DENY"), "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), None, "{path}");
        let expected = if path == "/nothing" || path.ends_with("/a/b") {
            404
        } else {
            200
        };
        assert_eq!(answer.status, expected, "{path}: {}", answer.body);
    }
    let rebound = ask(folder.page, "GET", "/api/segments", &[("Host", "rebound.example")], "");
    assert_eq!(rebound.status, 421, "{}", rebound.body);
    assert!(!rebound.body.contains("shop"), "{}", rebound.body);
    let elsewhere = ask(
        folder.page,
        "GET",
        "/api/segments",
        &[("Origin", "https://evil.example")],
        "",
    );
    assert_eq!(elsewhere.status, 403);
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        assert_eq!(
            ask(folder.page, method, "/api/segments", &[], "").status,
            405,
            "{method}"
        );
    }
    let large = ask(
        folder.page,
        "POST",
        "/login",
        &[("Content-Type", "application/x-www-form-urlencoded")],
        &"a".repeat(100_000),
    );
    assert_eq!(large.status, 413, "nobody sends as much as they like");
}

#[test]
fn away_from_loopback_it_wants_to_be_asked_for_and_a_token() {
    for (arguments, word) in [
        (&["--page-listen", "0.0.0.0:0"][..], "--page-exposed"),
        (&["--page-listen", "[::]:0", "--page-exposed"], "--page-token-file"),
        (
            &[
                "--page-listen",
                "0.0.0.0:0",
                "--page-exposed",
                "--page-token-file",
                "missing",
            ],
            "missing",
        ),
        (
            &[
                "--page-listen",
                "0.0.0.0:0",
                "--page-exposed",
                "--page-token-file",
                "short",
            ],
            "openssl rand",
        ),
    ] {
        let root = tempfile::tempdir().unwrap();
        for folder in ["cluster", "flows", "out"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        fs::write(root.path().join("cluster/node.json"), node().to_string()).unwrap();
        fs::write(root.path().join("short"), "secret").unwrap();
        let mut controller = start(root.path(), arguments);
        let status = until("it to end", || controller.try_wait().unwrap());
        let log = fs::read_to_string(root.path().join("log")).unwrap();
        assert_eq!(status.code(), Some(2), "{arguments:?}: {log}");
        assert!(log.contains(word), "{arguments:?}: {log}");
    }
}

#[test]
fn with_a_token_nothing_is_told_before_it_was_shown() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    fs::write(secret.path(), format!("{TOKEN}\n")).unwrap();
    let path = secret.path().to_str().unwrap();
    let folder = shop(&["--page-token-file", path]);
    folder.report(&[accepted("shop", "db", "198.18.1.10", 5432, 3)]);
    let authorised = [("Authorization", &*format!("Bearer {TOKEN}"))];
    until("the Segment", || {
        let answer = ask(folder.page, "GET", "/api/segments", &authorised, "");
        answer.body.contains("statefulset-db").then_some(())
    });
    for path in [
        "/api/segments",
        "/api/map",
        "/api/violations",
        "/api/events",
        "/page.js",
        "/api/what-if?from=shop/web-0",
    ] {
        let answer = get(folder.page, path);
        assert_eq!(answer.status, 401, "{path}");
        assert!(!answer.body.contains("shop"), "{path}: {}", answer.body);
    }
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let wrong = ask(
        folder.page,
        "POST",
        "/login",
        &form,
        "token=0123456789abcdef0123456789abcdee",
    );
    assert_eq!((wrong.status, wrong.header("set-cookie")), (401, None));
    let right = ask(folder.page, "POST", "/login", &form, &format!("token={TOKEN}"));
    assert_eq!((right.status, right.header("location")), (303, Some("/")));
    let cookie = right.header("set-cookie").unwrap();
    for word in ["HttpOnly", "SameSite=Strict", "Secure"] {
        assert!(cookie.contains(word), "{cookie}");
    }
    assert!(!cookie.contains(TOKEN), "{cookie}");
    let session = [("Cookie", cookie.split(';').next().unwrap())];
    assert_eq!(ask(folder.page, "GET", "/api/segments", &session, "").status, 200);
}

#[test]
fn who_follows_and_never_reads_costs_others_nothing() {
    let folder = shop(&[]);
    let mut silent: Vec<_> = (0..64)
        .map(|_| send(folder.page, "GET", "/api/events", &[], ""))
        .collect();
    // The places are taken once each was answered.
    for stream in &mut silent {
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        assert!(line.contains(" 200 "), "{line}");
    }
    let further = get(folder.page, "/api/events");
    assert_eq!(further.status, 503, "no more than that are told at once");
    assert_eq!(further.header("retry-after"), Some("10"));
    assert_eq!(
        get(folder.page, "/api/violations").status,
        200,
        "who asks is still answered"
    );
    drop(silent);
    until("a place to become free", || {
        let mut line = String::new();
        BufReader::new(send(folder.page, "GET", "/api/events", &[], ""))
            .read_line(&mut line)
            .ok()?;
        line.contains(" 200 ").then_some(())
    });
}

#[test]
fn who_connects_and_says_nothing_takes_no_more_than_there_is() {
    const AT_ONCE: usize = 128;
    let folder = shop(&[]);
    assert_eq!(get(folder.page, "/api/violations").status, 200);
    let before = sockets(folder.process());
    let idle: Vec<TcpStream> = (0..2 * AT_ONCE)
        .map(|_| TcpStream::connect(folder.page).unwrap())
        .collect();
    until("every place to be taken", || {
        (sockets(folder.process()) >= before + AT_ONCE - 1).then_some(())
    });
    for _ in 0..20 {
        assert!(
            sockets(folder.process()) <= before + AT_ONCE,
            "the kernel holds the others until it is their turn"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(idle);
    assert_eq!(
        get(folder.page, "/api/violations").status,
        200,
        "who comes then is answered"
    );
}

#[test]
fn a_violation_is_told_without_being_asked() {
    let folder = shop(&["--learn-for", "2s"]);
    let learned = accepted("shop", "db", "198.18.1.10", 5432, 3);
    folder.report(std::slice::from_ref(&learned));
    until("a proposal", || {
        get(folder.page, "/api/segments")
            .body
            .contains("\"Proposed\"")
            .then_some(())
    });
    let mut lines = BufReader::new(send(folder.page, "GET", "/api/events", &[], "")).lines();
    folder.report(&[learned, accepted("shop", "db", "198.18.1.12", 5432, 1)]);
    let violation = lines.find(|line| line.as_ref().unwrap().starts_with("event: violation"));
    assert!(violation.is_some());
    let data = lines.next().unwrap().unwrap();
    let told: serde_json::Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(told["source"], "shop/StatefulSet/thief");
    assert_eq!(told["destination"], "shop/StatefulSet/db");
    assert!(
        told["verdict"]
            .as_str()
            .unwrap()
            .starts_with("denied: ingress of Pod shop/db-0"),
        "{told}"
    );
    let listed = get(folder.page, "/api/violations").json();
    assert_eq!(listed["violations"][0], told, "what is asked for is the same");
}

#[test]
fn what_nobody_has_used_for_long_is_told_as_stale() {
    let folder = shop(&["--learn-for", "2s"]);
    let days = |days: i64| Timestamp::now() - SignedDuration::from_hours(24 * days);
    let used = |address: &str, last: Timestamp| {
        let mut flow = opened("shop", "web", address, 443, 3);
        flow["first_seen"] = json!(days(30));
        flow["last_seen"] = json!(last);
        flow
    };
    folder.report(&[used("203.0.113.9", days(7)), used("203.0.113.10", days(9))]);
    until("one of two edges to be stale", || {
        let map = get(folder.page, "/api/map").json();
        let states = map["states"].as_array()?;
        let count = |name: &str| {
            states
                .iter()
                .find(|state| state["name"] == name)
                .map(|state| &state["count"])
        };
        (count("Stale") == Some(&json!(1)) && count("Covered") == Some(&json!(1))).then_some(())
    });
}

#[test]
fn what_if_is_answered_as_the_command_line_does() {
    let folder = shop(&["--learn-for", "1s"]);
    folder.report(&[accepted("shop", "db", "198.18.1.10", 5432, 3)]);
    let proposal = folder.root.path().join("out/proposed/shop/nanoseg-statefulset-db.yaml");
    until("a proposal", || proposal.exists().then_some(()));
    let question = |from: &str, to: &str, port: &str| {
        until("a copy with the proposal", || {
            let answer = get(folder.page, &format!("/api/what-if?from={from}&to={to}&port={port}"));
            let answer = answer.json();
            (answer["proposed"]["ways"][0]["ingress"]["verdict"] != "NotIsolated").then_some(answer)
        })
    };
    for (from, port) in [("web", "5432"), ("thief", "5432"), ("web", "5433")] {
        let told = question(&format!("shop/StatefulSet/{from}"), "shop/db-0", port);
        let output = Command::new(env!("CARGO_BIN_EXE_nanoseg"))
            .current_dir(folder.root.path())
            .args([
                "explain",
                "--cluster",
                "cluster",
                "--policies",
                "out/proposed",
                "-o",
                "json",
                "--to",
                "shop/db-0",
            ])
            .args(["--from", &format!("shop/{from}-0"), "--port", port])
            .output()
            .unwrap();
        let expected: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let way = &told["proposed"]["ways"][0];
        assert_eq!(way["verdict"], expected["verdict"]);
        assert_eq!(way["by"], expected["by"]);
        assert_eq!(way["ingress"]["reason"], expected["ingressReason"]);
        assert_eq!(way["egress"]["reason"], expected["egressReason"]);
        assert_eq!(told["live"]["verdict"], "Allowed", "nothing is applied");
    }
    for (query, word) in [
        ("from=shop/web-0&to=shop/db-0&port=0", "not a port"),
        ("from=shop/web-0&to=shop/db-0&port=80&protocol=ICMP", "not a protocol"),
        ("from=shop/web-0&to=%3Cb%3E&port=80", "is no end"),
        ("from=shop/web-0&to=shop/none-0&port=80", "there is no Pod shop/none-0"),
        ("from=shop/Deployment/none&to=shop/db-0&port=80", "no live pod"),
        ("from=shop/web-0&to=service+shop/db&port=80", "ask about the pods"),
    ] {
        let answer = get(folder.page, &format!("/api/what-if?{query}"));
        assert_eq!(answer.status, 422, "{query}: {}", answer.body);
        assert!(
            answer.json()["error"].as_str().unwrap().contains(word),
            "{query}: {}",
            answer.body
        );
    }
}

#[test]
fn a_review_shows_rules_with_their_evidence_and_what_would_change() {
    let folder = shop(&["--learn-for", "1s"]);
    folder.report(&[accepted("shop", "db", "198.18.1.10", 5432, 3)]);
    let told = until("a proposal", || {
        let answer = get(folder.page, "/api/segments/shop/statefulset-db").json();
        (answer["phase"] == "Proposed").then_some(answer)
    });
    assert_eq!(told["rules"]["isolates"], json!(["Ingress"]));
    let evidence = &told["rules"]["rules"][0]["evidence"][0];
    assert_eq!(
        *evidence,
        json!("StatefulSet shop/web -> TCP 5432, seen at the destination")
    );
    assert_eq!(told["live"], false);
    assert!(
        told["text"]
            .as_array()
            .unwrap()
            .iter()
            .all(|line| line["fate"] == "added")
    );
    let closed = &told["closed"]["groups"][0];
    assert_eq!(
        closed["what"],
        "ingress of StatefulSet shop/db is isolated by NetworkPolicy shop/nanoseg-statefulset-db, and no rule allows it"
    );
    let lines = closed["lines"].as_array().unwrap();
    for end in ["all ports from ", "all ports but TCP 5432 from StatefulSet shop/web"] {
        assert!(
            lines.iter().any(|line| line.as_str().unwrap().starts_with(end)),
            "{end}: {closed}"
        );
    }
    assert!(
        lines[0].as_str().unwrap().contains("StatefulSet shop/thief"),
        "{closed}"
    );
    assert_eq!(told["opened"]["total"], 0);
    let hash = told["proposalHash"].as_str().unwrap();
    let command = told["commands"][0]["command"].as_str().unwrap();
    assert_eq!(
        command,
        format!(
            "kubectl patch segment -n shop statefulset-db --type=merge -p '{{\"spec\":{{\"approval\":\"{hash}\"}}}}'"
        )
    );
}
