//! The map grows while somebody looks at it.

use serde_json::Value;

use crate::browser::{Browser, there_is_one};
use crate::folder::{Folder, accepted, pod, until};
use crate::http::get;
use crate::looking::{learned, objects, pictures};

/// Where the database's box lies, by what is told under the pointer: the corner of the area that tells it.
const CORNER: &str = "
const canvas = document.getElementById('canvas');
const tip = document.querySelector('.tip');
const box = canvas.getBoundingClientRect();
const frame = () => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
const told = async (x, y) => {
  canvas.dispatchEvent(new PointerEvent('pointermove', { clientX: box.x + x, clientY: box.y + y, pointerType: 'mouse' }));
  await frame();
  return !tip.hidden && tip.textContent.startsWith('data/StatefulSet/db');
};
(async () => {
  for (let y = 8; y < box.height; y += 24) for (let x = 8; x < box.width; x += 60) {
    if (!(await told(x, y))) continue;
    let [left, top] = [x, y];
    while (await told(left - 1, y)) left -= 1;
    while (await told(x, top - 1)) top -= 1;
    return done([left, top]);
  }
  done(null);
})();";

fn corners(browser: &Browser) -> Value {
    browser.wait_for(CORNER)
}

#[test]
fn what_one_looks_at_stays_where_it_is_while_the_map_grows() {
    if !there_is_one() {
        return;
    }
    let mut all = objects();
    for number in 0..3 {
        let address = format!("198.18.2.{}", number + 1);
        all.push(pod("shop", "Deployment", &format!("late-{number}"), &address));
        all.push(pod(
            &format!("new-{number}"),
            "Deployment",
            "late",
            &format!("198.18.3.{}", number + 1),
        ));
    }
    let folder = Folder::new(&objects(), &[]);
    let mut flows = learned();
    folder.report(&flows);
    let browser = Browser::open(folder.page, 1280, 900);
    browser.go("#map");
    browser.until(
        "connections",
        "return document.querySelectorAll('#connections tbody tr').length === 4",
    );
    browser.click("[aria-label='Zoom in']");
    let found = corners(&browser);
    assert!(found.is_array(), "the database is shown");
    let canvas =
        browser.run("const { x, y } = document.getElementById('canvas').getBoundingClientRect(); return [x, y]");
    let at = |axis: usize| found[axis].as_f64().unwrap() + canvas[axis].as_f64().unwrap() + 10.0;
    browser.click_at(at(0), at(1));
    browser.until(
        "what is known of it",
        "return document.querySelector('#detail:not([hidden]) h2')?.textContent === 'db'",
    );
    let before = corners(&browser);
    folder.observe(&all);
    for number in 0..3 {
        flows.push(accepted("shop", "cart", &format!("198.18.2.{}", number + 1), 7000, 3));
    }
    for number in 0..2 {
        flows.push(accepted("shop", "web", &format!("198.18.3.{}", number + 1), 8080, 3));
    }
    folder.report(&flows);
    browser.until(
        "the rest",
        "return document.querySelectorAll('#connections tbody tr').length === 9",
    );
    browser.wait_for("setTimeout(done, 300)");
    browser.picture(&pictures().join("map-grown.png"));
    assert_eq!(
        corners(&browser),
        before,
        "five more have come, and the database is where it was"
    );
    what_is_told_follows(&folder, &browser, flows.clone());
    nothing_jumps_where_most_is_new(&folder, &browser, all, flows);
    browser.assert_calm();
}

/// Where each party is drawn within its group.
fn within(map: &Value) -> Vec<(String, f64, f64)> {
    let groups = map["groups"].as_array().unwrap();
    let parties = map["parties"].as_array().unwrap().iter();
    let place = |party: &Value| {
        let group = groups.iter().find(|group| group["id"] == party["group"]).unwrap();
        let from = |axis: &str| party["place"][axis].as_f64().unwrap() - group["place"][axis].as_f64().unwrap();
        (party["id"].as_str().unwrap().to_owned(), from("x"), from("y"))
    };
    parties.map(place).collect()
}

fn nothing_jumps_where_most_is_new(folder: &Folder, browser: &Browser, mut all: Vec<Value>, mut flows: Vec<Value>) {
    let before = within(&get(folder.page, "/api/map").json());
    for number in 0..30 {
        let (name, address) = (format!("flood-{number}"), format!("198.18.4.{}", number + 1));
        all.push(pod("data", "Deployment", &name, &address));
        flows.push(accepted("data", "db", &address, 5432, 3));
    }
    folder.observe(&all);
    folder.report(&flows);
    browser.until(
        "the flood",
        "return document.querySelectorAll('#connections tbody tr').length === 39",
    );
    let now = until("everybody's place", || {
        let map = get(folder.page, "/api/map").json();
        let data = map["groups"]
            .as_array()?
            .iter()
            .find(|group| group["title"] == "data")?;
        (data["parties"] == 31).then(|| within(&map))
    });
    for place in &before {
        assert!(now.contains(place), "{place:?} is not where it was: {now:?}");
    }
    browser.click("[aria-label='Show all']");
    browser.wait_for("setTimeout(done, 300)");
    browser.picture(&pictures().join("map-flooded.png"));
}

fn what_is_told_follows(folder: &Folder, browser: &Browser, mut flows: Vec<Value>) {
    browser.press("\u{e00c}");
    browser.until(
        "what was told to be closed",
        "return document.getElementById('detail').hidden",
    );

    // What is told of something that was chosen follows, and takes the focus from nobody.
    browser.click("#connections button[aria-label*='cart to db']");
    browser.until(
        "the evidence",
        "return document.querySelector('#detail:not([hidden]) h3')",
    );
    flows[2] = accepted("data", "db", "198.18.1.11", 5432, 400);
    folder.report(&flows);
    browser.until(
        "later evidence",
        "return document.getElementById('detail').innerText.includes('400 attempted')",
    );
    assert_eq!(browser.run("return document.activeElement.id"), "detail");
    browser.press("\u{e00c}");
    browser.until(
        "it to be closed by Escape",
        "return document.getElementById('detail').hidden",
    );
    let focus = browser.run("return document.activeElement.ariaLabel");
    assert!(
        focus.as_str().unwrap().contains("cart to db"),
        "{focus}: the focus is back where it came from"
    );
    browser.press("/");
    assert_eq!(browser.run("return document.activeElement.id"), "find");
}
