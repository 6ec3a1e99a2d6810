//! The shop as a learner really saw it (`tests/recorded/shop`), looked at with a browser, and by keyboard alone.

use std::fs;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::browser::{Browser, there_is_one};
use crate::folder::{Folder, until};
use crate::http::get;
use crate::looking::{CHECK, pictures};

const RECORDING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recorded/shop");

/// Where its learner ran.
const NODE: &str = "node-1";

/// The intruder's address, and the pod of the database that it speaks to.
const INTRUDER: &str = "198.18.0.15";
const DATABASE: &str = "446e2b5d-c427-4349-a0fe-10b618390af3";

const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";
const ESCAPE: &str = "\u{e00c}";

/// Every view, and when it shows what it is about.
const VIEWS: [(&str, &str, &str); 5] = [
    (
        "map",
        "#map",
        "return document.querySelectorAll('#connections tbody tr').length > 20",
    ),
    (
        "segments",
        "#segments",
        "return document.querySelectorAll('main tbody tr').length > 10",
    ),
    (
        "review",
        "#segments/data/statefulset-orders-db",
        "return document.querySelector('#review .rule')",
    ),
    (
        "violations",
        "#violations",
        "return document.querySelector('#violations tbody tr')",
    ),
    (
        "what-if",
        "#what-if/shop%2FDeployment%2Fintruder/data%2FStatefulSet%2Forders-db/TCP/5432",
        "return document.querySelector('#answer .verdict')",
    ),
];

fn objects() -> Vec<Value> {
    let mut files: Vec<_> = fs::read_dir(Path::new(RECORDING).join("cluster"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let texts = files.iter().map(|file| fs::read_to_string(file).unwrap());
    let read = |text: String| {
        let documents = serde_yaml::Deserializer::from_str(&text);
        documents
            .map(|document| Value::deserialize(document).unwrap())
            .collect::<Vec<_>>()
    };
    texts.flat_map(read).collect()
}

fn flows() -> Vec<Value> {
    let text = fs::read_to_string(Path::new(RECORDING).join("flows/node-1.json")).unwrap();
    let mut report: Value = serde_json::from_str(&text).unwrap();
    report["flows"].as_array_mut().unwrap().clone()
}

/// Moves every time in it.
fn later(value: &mut Value, by: SignedDuration) {
    match value {
        Value::String(text) => {
            if let Ok(at) = text.parse::<Timestamp>() {
                *text = (at + by).to_string();
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| later(value, by)),
        Value::Object(fields) => fields.values_mut().for_each(|value| later(value, by)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Objects and flows as if all of it had been just now: the recording grows older with every day.
fn recorded() -> (Vec<Value>, Vec<Value>) {
    let (mut objects, mut flows) = (objects(), flows());
    let seen = flows
        .iter()
        .filter_map(|flow| flow["last_seen"].as_str()?.parse::<Timestamp>().ok());
    let by = Timestamp::now().duration_since(seen.max().unwrap());
    for value in objects.iter_mut().chain(&mut flows) {
        later(value, by);
    }
    (objects, flows)
}

fn intrusion() -> Value {
    let now = Timestamp::now();
    json!({
        "subject": { "container": { "pod_uid": DATABASE, "container_id": "c" } },
        "peer": INTRUDER, "port": 5432, "transport": "TCP", "reporter": "destination", "first_seen": now, "last_seen": now,
        "attempted": 2, "established": 2, "refused": 0,
    })
}

#[test]
fn the_recorded_shop_is_watched_by_everybody() {
    if !there_is_one() {
        return;
    }
    let (objects, mut flows) = recorded();
    let folder = Folder::new(&objects, &["--learn-for", "2s"]);
    folder.report_of(NODE, &flows);
    until("every proposal", || {
        let told = get(folder.page, "/api/segments").json();
        let of = |segment: &&Value| segment["name"] == "statefulset-orders-db";
        let segment = told["segments"].as_array()?.iter().find(of)?;
        assert_ne!(segment["phase"], "Degraded", "{segment}");
        (segment["phase"] == "Proposed").then_some(())
    });
    let browser = Browser::open(folder.page, 1280, 900);
    browser.go("#map");
    browser.until(VIEWS[0].0, VIEWS[0].2);
    browser.until(
        "the server to be followed",
        "return document.querySelector('.link.live')",
    );
    browser.run("window.same = true");
    flows.push(intrusion());
    folder.report_of(NODE, &flows);
    browser.until(
        "the intruder on the map",
        "return [...document.querySelectorAll('#connections tbody tr')]
           .some((row) => row.innerText.includes('intruder') && row.innerText.includes('not in the baseline'))",
    );
    browser.click("nav a[href='#violations']");
    browser.until(
        "the intruder among the violations",
        "return [...document.querySelectorAll('#violations tbody tr')].some((row) => row.innerText.includes('shop/Deployment/intruder'))",
    );
    assert_eq!(browser.run("return window.same"), true, "nothing was loaded anew");
    for (name, hash, ready) in VIEWS {
        browser.leave();
        browser.go(hash);
        browser.until(name, ready);
        by_keyboard(&browser, name);
    }
    a_connection_is_explained_by_keyboard(&browser);
    for (shade, other) in [("light", "dark"), ("dark", "light")] {
        for (width, size) in [(1280, "wide"), (390, "narrow")] {
            browser.size(width, 900);
            for (name, hash, ready) in VIEWS {
                browser.leave();
                browser.go(hash);
                browser.until(name, ready);
                if browser.run("return document.documentElement.dataset.theme") == other {
                    browser.click("#theme");
                }
                assert_eq!(browser.run(CHECK), json!([]), "{name}, {shade}, {size}");
                browser.picture(&pictures().join(format!("shop-{name}-{shade}-{size}.png")));
            }
        }
    }
    browser.assert_calm();
}

/// The keyboard reaches everything that can be used, in the order in which it stands, and what it is at can be seen.
fn by_keyboard(browser: &Browser, view: &str) {
    let all = browser.run(
        "window.all = [...document.querySelectorAll('a[href], button, input, select, [tabindex=\"0\"]')].filter((e) => e.checkVisibility());
         document.body.tabIndex = -1;
         document.body.focus();
         document.body.removeAttribute('tabindex');
         return window.all.length",
    );
    let all = all.as_u64().unwrap();
    assert!(all > 6, "{view}: there is more than what stands above every view");
    for number in 0..all {
        browser.press(TAB);
        let at = browser.run(&format!(
            "const e = document.activeElement;
             const wanted = window.all[{number}];
             const style = getComputedStyle(e);
             const {{ left, right, top, bottom }} = e.getBoundingClientRect();
             const seen = document.elementFromPoint((left + right) / 2, (Math.max(top, 0) + Math.min(bottom, innerHeight)) / 2);
             // A row may have been drawn anew, with its focus.
             const same = e === wanted || (!wanted.isConnected && e.outerHTML === wanted.outerHTML);
             const is = [same, style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2, Boolean(seen) && (e.contains(seen) || seen.contains(e))];
             return [is, e.outerHTML.slice(0, 150), wanted.outerHTML.slice(0, 150)]"
        ));
        assert_eq!(
            at[0],
            json!([true, true, true]),
            "{view}, {number}: {at}: in order, shown, not hidden"
        );
    }
}

fn a_connection_is_explained_by_keyboard(browser: &Browser) {
    browser.leave();
    browser.go("#map");
    browser.until(VIEWS[0].0, VIEWS[0].2);
    let picture =
        "return document.getElementById('canvas').toDataURL().length + document.getElementById('canvas').toDataURL()";
    browser.run("document.getElementById('canvas').focus()");
    let before = browser.run(picture);
    browser.press("\u{e014}");
    browser.press("+");
    browser.wait_for("setTimeout(done, 500)");
    assert_ne!(browser.run(picture), before, "the map has moved");
    browser.press("/");
    for letter in ["o", "r", "d", "e", "r", "s"] {
        browser.press(letter);
    }
    let only = browser.until(
        "what was looked for",
        "const rows = [...document.querySelectorAll('#connections tbody tr')];
         return rows.length > 2 && rows.length < 20 && rows.every((row) => row.innerText.includes('orders'))",
    );
    assert_eq!(only, true);
    browser.run("document.querySelector('#connections tbody button').focus()");
    browser.press(ENTER);
    let told = browser.until(
        "the evidence",
        "return document.activeElement.id === 'detail' && document.querySelector('#detail h3') && document.getElementById('detail').innerText",
    );
    let told = told.as_str().unwrap();
    for word in ["First seen", "told by node-1", "With what is proposed", "rule"] {
        assert!(told.contains(word), "{word}: {told}");
    }
    browser.press(ESCAPE);
    let back = browser.run("return document.activeElement === document.querySelector('#connections tbody button')");
    assert_eq!(back, true, "the focus is back where it came from");
}
