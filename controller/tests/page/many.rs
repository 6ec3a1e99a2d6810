//! A large cluster: how soon something is seen, and how smoothly it moves. It measures and judges nothing: `make bench` prints it.

use std::time::Instant;

use serde_json::{Value, json};

use crate::browser::{Browser, there_is_one};
use crate::folder::{Folder, accepted, node, pod, until};
use crate::http::get;

const WORKLOADS: usize = 1000;
/// In how many namespaces they are: those of many teams, and one that has grown large.
const SHAPES: [usize; 2] = [40, 1];
const EDGES: usize = 10_000;

fn address(workload: usize) -> String {
    format!("198.18.{}.{}", 1 + workload / 200, 1 + workload % 200)
}

fn names(workload: usize, namespaces: usize) -> (String, String) {
    (
        format!("team-{:02}", workload % namespaces),
        format!("app-{workload:04}"),
    )
}

/// Each listener is called by its neighbours, and by some from far away: as where teams build on each other's services.
fn edges(namespaces: usize) -> Vec<Value> {
    (0..EDGES)
        .map(|edge| {
            let listener = edge % WORKLOADS;
            let round = edge / WORKLOADS;
            let near = namespaces * (1 + round);
            let caller = (listener
                + if round < 6 {
                    near
                } else {
                    7 * round * round + listener % 13 + 1
                })
                % WORKLOADS;
            let (namespace, name) = names(listener, namespaces);
            let port = 8000 + u16::try_from(round % 3).unwrap();
            accepted(&namespace, &name, &address(caller), port, 5)
        })
        .collect()
}

#[test]
#[ignore = "it measures: make bench runs it"]
fn a_thousand_workloads_and_ten_thousand_edges() {
    if !there_is_one() {
        return;
    }
    for namespaces in SHAPES {
        measure(namespaces);
    }
}

fn measure(namespaces: usize) {
    let mut objects = vec![node()];
    for workload in 0..WORKLOADS {
        let (namespace, name) = names(workload, namespaces);
        objects.push(pod(&namespace, "Deployment", &name, &address(workload)));
    }
    let folder = Folder::new(&objects, &["--learn-for", "24h", "--report-interval", "1h"]);
    folder.report(&edges(namespaces));
    until("the edges", || {
        let map = get(folder.page, "/api/map").json();
        (map["totals"]["edges"] == EDGES).then_some(())
    });
    let began = Instant::now();
    let bytes = get(folder.page, "/api/map").body.len() + get(folder.page, "/api/map/edges").body.len();
    let server = began.elapsed();
    let browser = Browser::open(folder.page, 1280, 900);
    browser.go("#map");
    let first = browser.until(
        "something to see",
        "return performance.getEntriesByName('drawn')[0]?.startTime",
    );
    let moving = |level: &str| {
        browser.run(&format!(
            "const s = document.getElementById('level'); s.value = {}; s.dispatchEvent(new Event('change'))",
            json!(level)
        ));
        browser.wait_for("setTimeout(done, 2000)");
        browser.click("[aria-label='Show all']");
        browser.wait_for("setTimeout(done, 1000)");
        browser.picture(&crate::looking::pictures().join(format!("many-{level}-{namespaces}.png")));
        let told = browser.wait_for(
            "const canvas = document.getElementById('canvas');
             const times = [];
             const ink = () => {
               const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
               return data.some((value) => value > 0);
             };
             let drawn = true;
             const step = (now) => {
               times.push(now);
               const gaps = times.slice(1).map((time, at) => time - times[at]);
               if (times.length > 180) {
                 const moving = gaps.slice(0, 119).sort((a, b) => a - b);
                 done([1000 * moving.length / (times[119] - times[0]), moving[Math.floor(moving.length * 0.95)], Math.max(...gaps.slice(119)), drawn]);
                 return;
               }
               if (times.length <= 120) {
                 const turn = times.length / 15;
                 const zoom = { deltaY: 16 * Math.sin(turn), clientX: 640 + 200 * Math.cos(turn), clientY: 500, bubbles: true, cancelable: true };
                 canvas.dispatchEvent(new WheelEvent('wheel', zoom));
               }
               if (times.length === 125) drawn = ink();
               requestAnimationFrame(step);
             };
             requestAnimationFrame(step);",
        );
        assert_eq!(told[3], true, "what moved was nothing");
        [0, 1, 2].map(|number| told[number].as_f64().unwrap())
    };
    println!("{WORKLOADS} workloads in {namespaces} namespaces, {EDGES} edges");
    println!(
        "  the server's answers     {:>8.0} ms, {} KiB",
        server.as_secs_f64() * 1000.0,
        bytes / 1024
    );
    println!("  something to see after   {:>8.0} ms", first.as_f64().unwrap());
    for level in ["groups", "parties"] {
        let [rate, slow, rest] = moving(level);
        println!(
            "  moving, {level:<8}         {rate:>8.0} frames/s, 95 of 100 within {slow:.0} ms; drawn anew in {rest:.0} ms"
        );
    }
}
