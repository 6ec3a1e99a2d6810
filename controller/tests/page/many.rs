//! A large cluster: how soon something is seen, and how smoothly it moves. What is judged is what is drawn, which is the same on
//! every machine; times are printed and kept beside the pictures, and only what nobody could use fails.

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::browser::{Browser, there_is_one};
use crate::folder::{Folder, accepted, node, pod, within};
use crate::http::get;
use crate::looking::pictures;

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

/// How long learning all of it may take without optimisation, with other tests beside: nobody looks yet.
const LEARNING: Duration = Duration::from_mins(5);

/// How long the first picture may take, on a machine that does a lot beside and without optimisation: not what people are promised,
/// which is two seconds.
const UNUSABLE: f64 = 30_000.0;

/// Pictures a second at which nobody would say that it moves; people are promised thirty.
const STANDSTILL: f64 = 2.0;

/// How long the page waits for the next movement before it draws anew, less what timers are off.
const REST: f64 = 130.0;

/// Counts what is drawn.
const COUNT: &str = "
window.drawn = {};
for (const [method, what] of [['quadraticCurveTo', 'curves'], ['roundRect', 'boxes'], ['drawImage', 'pictures']]) {
  const draw = CanvasRenderingContext2D.prototype[method];
  CanvasRenderingContext2D.prototype[method] = function (...all) {
    window.drawn[what] += 1;
    return draw.apply(this, all);
  };
}
window.anew = () => { window.drawn = { curves: 0, boxes: 0, pictures: 0 }; };
window.anew();";

/// What it takes to draw all of it, or what is seen after something was pressed.
const STILL: &str = "
window.anew();
document.querySelector(PRESSED).click();
const frame = () => (window.drawn.pictures ? done(window.drawn) : requestAnimationFrame(frame));
setTimeout(() => requestAnimationFrame(frame), 300);";

/// Moves for 120 pictures: how long each took and what was drawn in it, how long the picture after them took, whether there was
/// anything to see, and how much of the document was made anew.
const MOVE: &str = "
const canvas = document.getElementById('canvas');
const times = [];
const drawn = [];
let changed = 0;
const watch = new MutationObserver((changes) => { changed += changes.length; });
watch.observe(document.querySelector('main'), { childList: true, subtree: true });
const ink = () => {
  const copy = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  copy.drawImage(canvas, 0, 0, 300, 150);
  const { data } = copy.getImageData(0, 0, 300, 150);
  return data.some((value) => value > 0);
};
let seen = true;
window.anew();
const step = () => {
  // A picture's own time is when it was to begin.
  times.push(performance.now());
  drawn.push({ ...window.drawn });
  window.anew();
  const gaps = times.slice(1).map((time, at) => time - times[at]);
  if (times.length > 180) {
    watch.disconnect();
    done({ gaps: gaps.slice(0, 119), drawn: drawn.slice(1, 120), rest: Math.max(...gaps.slice(119)), seen, changed });
    return;
  }
  if (times.length <= 120) {
    const turn = times.length / 15;
    const zoom = { deltaY: 16 * Math.sin(turn), clientX: 640 + 200 * Math.cos(turn), clientY: 500, bubbles: true, cancelable: true };
    canvas.dispatchEvent(new WheelEvent('wheel', zoom));
  }
  if (times.length === 125) seen = ink();
  requestAnimationFrame(step);
};
requestAnimationFrame(step);";

#[test]
fn a_thousand_workloads_and_ten_thousand_edges() {
    if !there_is_one() {
        return;
    }
    let told: Vec<String> = SHAPES.into_iter().map(measure).collect();
    fs::write(pictures().join("many.txt"), told.concat()).unwrap();
}

/// A controller that knows all of it.
fn large(namespaces: usize) -> Folder {
    let mut objects = vec![node()];
    for workload in 0..WORKLOADS {
        let (namespace, name) = names(workload, namespaces);
        objects.push(pod(&namespace, "Deployment", &name, &address(workload)));
    }
    let folder = Folder::new(&objects, &["--learn-for", "24h", "--report-interval", "1h"]);
    folder.report(&edges(namespaces));
    within(LEARNING, "the edges", || {
        let map = get(folder.page, "/api/map").json();
        (map["totals"]["edges"] == EDGES).then_some(())
    });
    folder
}

/// Looks at it, and says how long everything took.
fn measure(namespaces: usize) -> String {
    let folder = large(namespaces);
    let began = Instant::now();
    let map = get(folder.page, "/api/map");
    let bytes = map.body.len() + get(folder.page, "/api/map/edges").body.len();
    let server = began.elapsed();
    let map = map.json();
    let browser = Browser::open(folder.page, 1280, 900);
    browser.go("#map");
    let first = browser.until(
        "something to see",
        "return performance.getEntriesByName('drawn')[0]?.startTime",
    );
    let first = first.as_f64().unwrap();
    // Of many namespaces those are shown first; of one there is nothing to see but its workloads.
    let level = browser.run("return document.getElementById('level').value");
    assert_eq!(level, if namespaces > 2 { "groups" } else { "parties" });
    let rows = browser.run("return document.querySelectorAll('#connections tbody tr').length");
    assert_eq!(rows, 50, "nobody waits for ten thousand rows");
    browser.run(COUNT);

    let mut told = format!("{WORKLOADS} workloads in {namespaces} namespaces, {EDGES} edges\n");
    let mut tell = |line: std::fmt::Arguments<'_>| writeln!(told, "  {line}").unwrap();
    let milliseconds = server.as_secs_f64() * 1000.0;
    tell(format_args!(
        "the server's answers     {milliseconds:>8.0} ms, {} KiB",
        bytes / 1024
    ));
    tell(format_args!("something to see after   {first:>8.0} ms"));
    for level in ["groups", "parties"] {
        browser.run(&format!(
            "const s = document.getElementById('level'); s.value = {}; s.dispatchEvent(new Event('change'))",
            json!(level)
        ));
        let (boxes, curves) = still(&browser, "[aria-label='Show all']");
        let count = |key: &str| map[key].as_array().unwrap().len();
        if level == "groups" {
            assert!(boxes <= count("groups"), "{boxes} boxes of {} groups", count("groups"));
            assert!(curves <= count("links"), "{curves} lines for {} links", count("links"));
        } else {
            // Workloads have a coloured edge for their phase.
            assert!(
                boxes >= WORKLOADS && boxes <= count("groups") + 2 * count("parties"),
                "{boxes}"
            );
            assert!(curves <= EDGES, "{curves}");
            let half = "[aria-label='Zoom in']";
            let mut near = (boxes, curves);
            for _ in 0..8 {
                near = still(&browser, half);
            }
            assert!(
                near.0 < boxes && near.1 < curves,
                "{near:?}: what is not seen is not drawn"
            );
            still(&browser, "[aria-label='Show all']");
        }
        browser.picture(&pictures().join(format!("many-{level}-{namespaces}.png")));
        let moved = browser.wait_for(MOVE);
        let [rate, slow, rest] = judged(&moved);
        tell(format_args!(
            "moving, {level:<8}         {rate:>8.0} frames/s, 95 of 100 within {slow:.0} ms; {curves} lines drawn anew in {rest:.0} ms"
        ));
        assert!(rate > STANDSTILL, "{rate} frames/s");
    }
    println!("{told}");
    assert!(first < UNUSABLE, "{first} ms until something was seen");
    browser.assert_calm();
    told
}

/// Boxes and lines of a whole picture, after something was pressed.
fn still(browser: &Browser, pressed: &str) -> (usize, usize) {
    let drawn = browser.wait_for(&STILL.replace("PRESSED", &json!(pressed).to_string()));
    let number = |key: &str| usize::try_from(drawn[key].as_u64().unwrap()).unwrap();
    (number("boxes"), number("curves"))
}

/// What moves is a picture: lines are drawn anew only where nothing moved for a while. Returns frames a second, within how long nearly
/// all of them came, and how long drawing anew took.
fn judged(moved: &Value) -> [f64; 3] {
    assert_eq!(moved["seen"], true, "what moved was nothing");
    assert_eq!(moved["changed"], 0, "moving makes nothing of the document anew");
    let gaps = moved["gaps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|gap| gap.as_f64().unwrap());
    let mut gaps: Vec<f64> = gaps.collect();
    let drawn = moved["drawn"].as_array().unwrap();
    let mut before: f64 = 0.0;
    for (gap, drawn) in gaps.iter().zip(drawn) {
        assert!(
            drawn["pictures"].as_u64().unwrap() <= 1,
            "{drawn}: no picture is drawn twice"
        );
        // Whether it is drawn before or after the clock is looked at is the browser's to choose.
        let rested = gap.max(before);
        assert!(
            drawn["curves"] == 0 || rested >= REST,
            "{drawn}: drawn anew {rested} ms after it had moved"
        );
        before = *gap;
    }
    let all: f64 = gaps.iter().sum();
    let rate = 1000.0 * 119.0 / all;
    gaps.sort_by(f64::total_cmp);
    [rate, gaps[112], moved["rest"].as_f64().unwrap()]
}
