//! The pictures of the documentation, made of the page as it is: `make pictures` puts them beside the pages that show them.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::browser::{Browser, there_is_one};
use crate::folder::{Folder, accepted, node, opened, pod, until};
use crate::http::get;
use crate::looking::pictures;

/// Whoever reads a page waits for its pictures.
const LARGEST: u64 = 150_000;

const WORKLOADS: [(&str, &str, &str, &str); 10] = [
    ("shop", "Deployment", "web", "198.18.1.10"),
    ("shop", "Deployment", "cart", "198.18.1.11"),
    ("shop", "Deployment", "catalog", "198.18.1.12"),
    ("shop", "Deployment", "checkout", "198.18.1.13"),
    ("shop", "StatefulSet", "redis-cart", "198.18.1.14"),
    ("shop", "Deployment", "intruder", "198.18.1.15"),
    ("data", "StatefulSet", "orders-db", "198.18.1.16"),
    ("data", "Deployment", "report", "198.18.1.17"),
    ("ops", "Deployment", "metrics", "198.18.1.18"),
    ("ops", "DaemonSet", "agent", "198.18.1.19"),
];

/// Who is called at which port, and by whom.
const CALLS: [(&str, u16, &[&str]); 7] = [
    ("web", 8080, &["agent"]),
    ("cart", 7000, &["web"]),
    ("catalog", 9090, &["web"]),
    ("redis-cart", 6379, &["cart"]),
    ("checkout", 8443, &["cart"]),
    ("orders-db", 5432, &["checkout", "catalog", "report"]),
    ("metrics", 9102, &["agent", "web"]),
];

fn address(name: &str) -> &'static str {
    let found = WORKLOADS.iter().find(|(_, _, other, _)| *other == name);
    found.map(|(.., address)| *address).unwrap()
}

fn both_ends(source: &str, destination: &str, port: u16, times: u64) -> [Value; 2] {
    let namespace = |name: &str| WORKLOADS.iter().find(|(_, _, other, _)| *other == name).unwrap().0;
    [
        accepted(namespace(destination), destination, address(source), port, times),
        opened(namespace(source), source, address(destination), port, times),
    ]
}

fn learned() -> Vec<Value> {
    let calls = CALLS.iter().flat_map(|(destination, port, sources)| {
        sources
            .iter()
            .flat_map(move |source| both_ends(source, destination, *port, 12))
    });
    let outside = [
        opened("shop", "checkout", "203.0.113.9", 443, 12),
        accepted("shop", "web", "203.0.113.80", 8080, 12),
    ];
    calls.chain(outside).collect()
}

#[test]
fn pictures_show_the_page_as_it_is() {
    if !there_is_one() {
        return;
    }
    let pods = WORKLOADS.map(|(namespace, kind, name, address)| pod(namespace, kind, name, address));
    let objects: Vec<Value> = [node()].into_iter().chain(pods).collect();
    let folder = Folder::new(&objects, &["--learn-for", "2s"]);
    let mut flows = learned();
    folder.report(&flows);
    until("every proposal", || {
        let segments = get(folder.page, "/api/segments").json();
        let segments = segments["segments"].as_array()?.clone();
        let done = segments.len() == 9 && segments.iter().all(|segment| segment["phase"] == "Proposed");
        done.then_some(())
    });
    for (destination, port) in [("orders-db", 5432), ("redis-cart", 6379), ("checkout", 8443)] {
        flows.extend(both_ends("intruder", destination, port, 2));
    }
    folder.report(&flows);
    until("the violations", || {
        let listed = get(folder.page, "/api/violations").json();
        (listed["violations"].as_array()?.len() == 3).then_some(())
    });
    let browser = Browser::open(folder.page, 1280, 900);
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("pictures");
    for (name, view, height, ready) in [
        (
            "map",
            "#map",
            860,
            "return document.querySelectorAll('#connections tbody tr').length === 15",
        ),
        (
            "review",
            "#segments/shop/deployment-checkout",
            1000,
            "return document.querySelector('#review .rule')",
        ),
        (
            "violations",
            "#violations",
            470,
            "return document.querySelectorAll('#violations tbody tr').length === 3",
        ),
        (
            "what-if",
            "#what-if/shop%2FDeployment%2Fintruder/data%2FStatefulSet%2Forders-db/TCP/5432",
            700,
            "return document.querySelector('#answer .verdict')",
        ),
    ] {
        browser.size(1280, height);
        browser.leave();
        browser.go(view);
        browser.until(name, ready);
        browser.until(
            "the server to be followed",
            "return document.querySelector('.link.live')",
        );
        browser.wait_for("setTimeout(done, 500)");
        let file = pictures().join(format!("docs-{name}.png"));
        browser.picture(&file);
        let kept = kept.join(format!("{name}.png"));
        if std::env::var_os("UPDATE").is_some() {
            fs::create_dir_all(kept.parent().unwrap()).unwrap();
            fs::copy(&file, &kept).unwrap();
        }
        let size = fs::metadata(&kept).map_or(0, |kept| kept.len());
        assert!(
            (1..LARGEST).contains(&size),
            "{}: {size} bytes; make pictures makes it, and it should be smaller than {LARGEST}",
            kept.display()
        );
    }
    browser.assert_calm();
}
