//! What people see and do, in a browser.

use std::path::{Path, PathBuf};

use nanoseg_policy::map::visible;
use serde_json::{Value, json};

use crate::browser::{Browser, there_is_one};
use crate::folder::{Folder, accepted, node, opened, pod, until};
use crate::http::get;

/// What an attacker would call a workload: markup, and what turns around what stands behind it.
const MARKUP: &str = "<img src=x onerror=document.title='owned'><b>x\u{202e}\u{1b}[2J";

pub(crate) fn objects() -> Vec<Value> {
    vec![
        node(),
        pod("shop", "Deployment", "web", "198.18.1.10"),
        pod("shop", "Deployment", "cart", "198.18.1.11"),
        pod("data", "StatefulSet", "db", "198.18.1.12"),
        pod("shop", "Pod", "intruder", "198.18.1.13"),
        pod("shop", "Deployment", MARKUP, "198.18.1.14"),
    ]
}

pub(crate) fn learned() -> Vec<Value> {
    vec![
        accepted("shop", "cart", "198.18.1.10", 7000, 9),
        opened("shop", "web", "198.18.1.11", 7000, 9),
        accepted("data", "db", "198.18.1.11", 5432, 4),
        opened("shop", "cart", "198.18.1.12", 5432, 4),
        opened("shop", "web", "203.0.113.9", 443, 4),
        accepted("shop", "cart", "198.18.1.14", 7000, 4),
    ]
}

pub(crate) fn pictures() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("../page")
}

/// A controller that has learned and proposed.
fn proposed() -> Folder {
    let folder = Folder::new(&objects(), &["--learn-for", "2s"]);
    folder.report(&learned());
    until("every proposal", || {
        let segments = get(folder.page, "/api/segments").json();
        let segments = segments["segments"].as_array()?.clone();
        let done = segments.len() == 4 && segments.iter().all(|segment| segment["phase"] == "Proposed");
        done.then_some(())
    });
    folder
}

#[test]
fn an_operator_follows_reviews_and_asks() {
    if !there_is_one() {
        return;
    }
    let folder = proposed();
    let browser = Browser::open(folder.page, 1280, 900);
    the_map_can_be_filtered(&browser);
    a_click_shows_evidence_and_the_rule(&browser);
    an_intruder_appears_without_a_reload(&folder, &browser);
    a_proposal_can_be_reviewed(&browser);
    questions_are_answered(&browser);
    browser.assert_calm();
}

fn the_map_can_be_filtered(browser: &Browser) {
    browser.go("#map");
    browser.until(
        "connections",
        "return document.querySelectorAll('#connections tbody tr').length",
    );
    browser.until(
        "the server to be followed",
        "return document.querySelector('.link.live')",
    );
    let rows = || {
        browser
            .run("return document.querySelectorAll('#connections tbody tr').length")
            .as_u64()
            .unwrap()
    };
    assert_eq!(rows(), 4);
    let caption = || browser.run("return document.querySelector('#connections caption').textContent");
    assert_eq!(caption(), "4 of 4 connections");
    browser.picture(&pictures().join("map.png"));

    // Filters: by namespace, by name, by port, by state.
    browser.run("const s = document.getElementById('namespace'); s.value = 'namespace/data'; s.dispatchEvent(new Event('change'))");
    assert_eq!(caption(), "1 of 4 connections");
    browser.run("const s = document.getElementById('namespace'); s.value = ''; s.dispatchEvent(new Event('change'))");
    browser.type_into("#find", "web");
    assert_eq!(caption(), "2 of 4 connections");
    browser.type_into("#port", "443");
    assert_eq!(caption(), "1 of 4 connections");
    browser.run("for (const id of ['find', 'port']) { const i = document.getElementById(id); i.value = ''; i.dispatchEvent(new Event('input')) }");
    browser.click("input[value=Covered]");
    assert!(rows() < 4, "what is allowed by proposals is hidden");
    browser.click("input[value=Covered]");
    assert_eq!(rows(), 4);
}

/// Clicks where the box of a party is when all of the map is shown.
fn click_the_box_of(browser: &Browser, title: &str) {
    let spot = browser.wait_for(&format!(
        "fetch('/api/map').then((a) => a.json()).then(({{ size, parties }}) => {{
            const c = document.getElementById('canvas').getBoundingClientRect();
            const scale = Math.min(c.width / size.width, c.height / size.height, 1.4);
            const {{ place }} = parties.find((party) => party.title === '{title}');
            done([c.x + (c.width - size.width * scale) / 2 + (place.x + place.width / 2) * scale,
                  c.y + (c.height - size.height * scale) / 2 + (place.y + place.height / 2) * scale]);
        }})",
    ));
    browser.click_at(spot[0].as_f64().unwrap(), spot[1].as_f64().unwrap());
}

fn a_click_shows_evidence_and_the_rule(browser: &Browser) {
    browser.click("#connections button[aria-label*='cart to db']");
    let told = browser.until(
        "the evidence",
        "return document.querySelector('#detail h3') && document.getElementById('detail').innerText",
    );
    let told = told.as_str().unwrap();
    for word in [
        "cart → db",
        "4 attempted, 4 established",
        "told by node1",
        "NetworkPolicy/data/nanoseg-statefulset-db",
        "rule 1",
    ] {
        assert!(told.contains(word), "{word}: {told}");
    }
    assert_eq!(
        browser.run("return document.activeElement.id"),
        "detail",
        "a reader is taken to what was opened"
    );
    browser.click("#detail .close");
    browser.until(
        "the drawing to be at rest",
        "return document.getElementById('detail').hidden",
    );
    // So does a click on the drawing itself.
    click_the_box_of(browser, "db");
    browser.until(
        "what is known of the database",
        "return document.querySelector('#detail:not([hidden]) h2')?.textContent === 'db'",
    );
    assert!(browser.text().contains("registry.example/app"), "its image is told");
}

fn an_intruder_appears_without_a_reload(folder: &Folder, browser: &Browser) {
    browser.run("window.same = true");
    // Every state under which its edge is ever shown.
    browser.run(
        "window.states = [];
         const list = document.getElementById('connections');
         new MutationObserver(() => {
           for (const row of list.querySelectorAll('tbody tr')) {
             if (row.innerText.includes('intruder')) window.states.push(row.cells[3].innerText.trim());
           }
         }).observe(list, { childList: true, subtree: true });",
    );
    let mut flows = learned();
    flows.push(accepted("data", "db", "198.18.1.13", 5432, 1));
    folder.report(&flows);
    browser.until(
        "the count of violations",
        "return document.getElementById('count').textContent === '1'",
    );
    let heard = browser.run("return document.getElementById('heard').textContent");
    let heard = heard.as_str().unwrap();
    assert!(
        heard.starts_with(
            "Violation: shop/Pod/intruder to data/StatefulSet/db, TCP 5432. denied: ingress of Pod data/db-0"
        ),
        "{heard}"
    );
    browser.until(
        "the edge on the map",
        "return document.getElementById('connections').innerText.includes('intruder')",
    );
    let states = browser.run("return [...new Set(window.states)]");
    assert_eq!(states, json!(["not in the baseline"]), "it is novel from the first on");
    browser.picture(&pictures().join("map-intruder.png"));
    browser.click("nav a[href='#violations']");
    browser.until("the list", "return document.querySelector('#violations tbody') && document.getElementById('violations').innerText.includes('intruder')");
    flows.push(accepted("shop", "cart", "198.18.1.13", 7000, 1));
    folder.report(&flows);
    browser.until(
        "a second row",
        "return document.querySelectorAll('#violations tbody tr').length === 2",
    );
    // Since when, how often, and what policies say of it.
    let row = browser.run("return document.querySelector('#violations tbody').innerText");
    let row = row.as_str().unwrap();
    assert!(row.contains("would be denied") && row.contains("What if"), "{row}");
    let heads = browser.run("return [...document.querySelectorAll('#violations th')].map((head) => head.innerText)");
    for head in ["Policies say", "Tries", "First seen"] {
        assert!(heads.as_array().unwrap().contains(&json!(head)), "{heads}");
    }
    browser.picture(&pictures().join("violations.png"));
    assert_eq!(browser.run("return window.same"), true, "nothing was loaded anew");
}

fn a_proposal_can_be_reviewed(browser: &Browser) {
    browser.click("nav a[href='#segments']");
    browser.until(
        "segments",
        "return document.querySelectorAll('main tbody tr').length === 5",
    );
    assert!(
        browser.text().contains("nobody asked to enforce db"),
        "what blocks promotion is told"
    );
    browser.picture(&pictures().join("segments.png"));
    browser.click("main a[href='#segments/data/statefulset-db']");
    let told = browser.until(
        "the review",
        "return document.querySelector('#review .rule') && document.getElementById('review').innerText",
    );
    let told = told.as_str().unwrap();
    for word in [
        "kubectl patch segment -n data statefulset-db",
        "Deployment shop/cart -> TCP 5432",
        "podSelector",
        "Connections that close",
        "+ kind: NetworkPolicy",
        "shop/Pod/intruder",
    ] {
        assert!(told.contains(word), "{word}: {told}");
    }
    browser.picture(&pictures().join("review.png"));
}

fn questions_are_answered(browser: &Browser) {
    browser.click("nav a[href='#what-if']");
    browser.until(
        "the form",
        "return document.querySelectorAll('#known option').length >= 5",
    );
    for (from, verdicts) in [
        ("shop/Deployment/cart", ["Allowed", "Allowed"]),
        ("shop/Pod/intruder", ["Allowed", "Denied"]),
    ] {
        browser.type_into("input[name=from]", from);
        browser.type_into("input[name=to]", "data/StatefulSet/db");
        browser.type_into("input[name=port]", "5432");
        browser.click("main button[type=submit]");
        browser.until(
            "the answer",
            &format!(
                "return document.getElementById('answer').innerText.includes({})",
                json!(from)
            ),
        );
        let told = browser.run("return [...document.querySelectorAll('#answer .verdict')].map((v) => v.textContent)");
        assert_eq!(told, json!(verdicts), "{from}");
    }
    assert!(
        browser
            .text()
            .contains("missing: a rule in NetworkPolicy data/nanoseg-statefulset-db")
    );
    browser.picture(&pictures().join("what-if.png"));
}

#[test]
fn where_there_is_nothing_yet_it_is_told_why() {
    if !there_is_one() {
        return;
    }
    let folder = Folder::new(&[node()], &[]);
    let browser = Browser::open(folder.page, 390, 844);
    for (view, words) in [
        ("#map", "No connection yet"),
        ("#segments", "No Segment yet"),
        ("#violations", "No violation"),
        ("#what-if", "May one end connect to the other?"),
    ] {
        browser.go("");
        browser.go(view);
        browser.until(
            view,
            &format!(
                "return document.querySelector('main').innerText.includes({})",
                json!(words)
            ),
        );
        assert_eq!(browser.run(CHECK), json!([]), "{view}");
        browser.picture(&pictures().join(format!("empty-{}.png", &view[1..])));
    }
    browser.assert_calm();
}

/// A node is one party. Who of it speaks is told where one looks: a unit, one with a name like an attacker's, and a pod.
#[test]
fn who_of_a_node_speaks_is_told_of_the_connection_and_of_the_node() {
    if !there_is_one() {
        return;
    }
    let mut probe = pod("kube-system", "DaemonSet", "probe", "198.19.0.1");
    probe["spec"]["hostNetwork"] = json!(true);
    let folder = Folder::new(&[&objects()[..], &[probe]].concat(), &[]);
    let unit = |path: &str, flow: Value| {
        let mut flow = flow;
        flow["subject"] = json!({ "host": path });
        flow
    };
    let nasty = format!("/system.slice/{MARKUP}.service");
    folder.report(&[
        unit("/system.slice/kubelet.service", opened("", "", "198.18.1.10", 8080, 3)),
        unit(&nasty, opened("", "", "198.18.1.10", 8080, 3)),
        opened("kube-system", "probe", "198.18.1.11", 7000, 2),
        unit("/system.slice/chrony.service", accepted("", "", "198.18.1.12", 123, 2)),
    ]);
    let browser = Browser::open(folder.page, 1280, 900);
    browser.go("#map");
    browser.until(
        "three connections",
        "return document.querySelectorAll('#connections tbody tr').length === 3",
    );
    let shown = visible(&format!("{MARKUP}.service"));
    for (button, expected) in [
        ("node1 to web", format!("Opened by\n{shown}, kubelet.service\n")),
        ("node1 to cart", "Opened by\nDaemonSet kube-system/probe\n".to_owned()),
        ("db to node1", "Listened to by\nchrony.service\n".to_owned()),
    ] {
        browser.click(&format!("#connections button[aria-label*='{button}']"));
        let heading = button.replace(" to ", " → ");
        let told = browser.until(
            &heading,
            &format!("const t = document.getElementById('detail').innerText; return t.includes('{heading}') && t"),
        );
        assert!(told.as_str().unwrap().contains(&expected), "{expected:?}: {told}");
    }
    browser.click("#detail .close");
    browser.until(
        "the drawing to be at rest",
        "return document.getElementById('detail').hidden",
    );
    click_the_box_of(&browser, "node1");
    let told = browser.until(
        "the node",
        "const t = document.getElementById('detail').innerText; return t.includes('Seen to speak') && t",
    );
    let expected = format!("Seen to speak\n{shown}, DaemonSet kube-system/probe, chrony.service, kubelet.service\n");
    assert!(told.as_str().unwrap().contains(&expected), "{expected:?}: {told}");
    browser.assert_calm();
}

#[test]
fn names_with_markup_stay_text() {
    if !there_is_one() {
        return;
    }
    let folder = proposed();
    let mut flows = learned();
    flows.push(accepted("data", "db", "198.18.1.14", 5432, 1));
    folder.report(&flows);
    let browser = Browser::open(folder.page, 1280, 900);
    browser.go("#violations");
    browser.until(
        "the violation, its name as text",
        &format!(
            "return document.getElementById('violations').innerText.includes({})",
            json!(visible(MARKUP))
        ),
    );
    let segment = get(folder.page, "/api/segments").json();
    let segment = segment["segments"]
        .as_array()
        .unwrap()
        .iter()
        .find(|segment| segment["workload"] == MARKUP)
        .unwrap();
    let name = segment["name"].as_str().unwrap();
    let views = [
        "#map".to_owned(),
        "#segments".to_owned(),
        "#violations".to_owned(),
        format!("#segments/shop/{name}"),
        format!("#what-if/{MARKUP}/{MARKUP}/TCP/{MARKUP}"),
        format!("#segments/{MARKUP}/%"),
        "#%E0%A4%A".to_owned(),
    ];
    for view in views {
        browser.go("");
        browser.go(&view);
        browser.until(
            "the view",
            "return document.querySelector('main h1, #notice:not([hidden])')",
        );
        // Whatever is asked for has come by then.
        browser.wait_for("setTimeout(done, 300)");
        let found =
            browser.run("return [document.querySelectorAll('main img, main b, main script').length, document.title]");
        assert_eq!(found[0], 0, "{view}");
        assert!(!browser.text().contains(['\u{202e}', '\u{1b}']), "{view}");
        assert!(found[1].as_str().unwrap().starts_with("nanoseg: "), "{view}: {found}");
    }
    browser.go("#map");
    browser.until(
        "the name as text",
        &format!(
            "return document.getElementById('connections').innerText.includes({})",
            json!(visible(MARKUP))
        ),
    );
    // Here and in every other form the same characters are written out; in a text of several lines these two are as they are.
    let texts: Vec<String> = ('\0'..='\u{fffff}')
        .filter(|one| !matches!(one, '\n' | '\t'))
        .filter(|one| visible(&one.to_string()) != one.to_string())
        .map(String::from)
        .collect();
    let shown = browser.wait_for(
        "import('/elements.js').then(({ visible }) => {
           const found = [];
           for (let code = 0; code <= 0xfffff; code += 1) {
             if (code >= 0xd800 && code <= 0xdfff) continue;
             const text = String.fromCodePoint(code);
             if (visible(text) !== text) found.push(text, visible(text));
           }
           done(found);
         })",
    );
    let expected: Vec<String> = texts
        .into_iter()
        .flat_map(|text| [text.clone(), visible(&text)])
        .collect();
    assert_eq!(shown, json!(expected));
    let outside = browser
        .requests()
        .into_iter()
        .filter(|url| !url.contains(&folder.page.to_string()) && !url.starts_with("data:,"));
    assert_eq!(outside.collect::<Vec<_>>(), Vec::<String>::new());
}

/// What every page for everybody needs: names, roles, one heading of the first rank, and text that differs from its ground.
pub(crate) const CHECK: &str = r"
const found = [];
const shown = (e) => e.checkVisibility({ visibilityProperty: true }) && !e.closest('.unseen, .skip');
const name = (e) => (e.ariaLabel || e.labels?.[0]?.innerText || e.innerText || e.alt || e.title || '').trim();
for (const e of document.querySelectorAll('button, a[href], input, select, canvas, [role=img]')) {
  if (shown(e) && !name(e)) found.push('no name: ' + e.outerHTML.slice(0, 120));
}
for (const e of document.querySelectorAll('th')) if (!e.scope) found.push('no scope: ' + e.outerHTML);
for (const e of document.querySelectorAll('table')) if (!e.caption) found.push('no caption');
for (const e of document.querySelectorAll('[tabindex]')) if (e.tabIndex > 0) found.push('order of its own: ' + e.outerHTML.slice(0, 120));
const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);
for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) found.push('twice: ' + id);
if (document.querySelectorAll('h1').length !== 1) found.push('not one h1');
if (!document.documentElement.lang) found.push('no language');
for (const role of ['main', 'nav', 'header']) if (document.querySelectorAll(role).length !== 1) found.push('not one ' + role);
let last = 1;
for (const h of document.querySelectorAll('h1, h2, h3, h4')) {
  const rank = Number(h.tagName[1]);
  if (rank > last + 1) found.push('a heading is left out before: ' + h.innerText);
  last = rank;
}
const parse = (c) => (c.match(/[\d.]+/g) ?? [0, 0, 0]).map(Number);
const light = (c) => {
  const [r, g, b] = c.slice(0, 3).map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (e) => {
  for (let at = e; at; at = at.parentElement) {
    const c = parse(getComputedStyle(at).backgroundColor);
    if (c.length < 4 || c[3] > 0.99) return c;
  }
  return [255, 255, 255];
};
let texts = 0;
for (const e of document.querySelectorAll('body *')) {
  const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  if (!own || !shown(e)) continue;
  texts += 1;
  const [a, b] = [light(parse(getComputedStyle(e).color)), light(ground(e))];
  const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (contrast < 4.5) found.push(`contrast ${contrast.toFixed(2)}: ${e.outerHTML.slice(0, 120)}`);
}
if (texts < 10) found.push('hardly any text was looked at');
if (document.documentElement.scrollWidth > innerWidth) {
  const wide = [...document.querySelectorAll('body *')].filter((e) => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('.scroll, pre')).slice(0, 4);
  found.push(`wider than the window by ${document.documentElement.scrollWidth - innerWidth}: ${wide.map((e) => e.outerHTML.slice(0, 100)).join(' ')}`);
}
return found;
";

#[test]
fn everybody_can_use_it_light_and_dark_wide_and_narrow() {
    if !there_is_one() {
        return;
    }
    let folder = proposed();
    let mut flows = learned();
    flows.push(accepted("data", "db", "198.18.1.13", 5432, 1));
    folder.report(&flows);
    until("the violation", || {
        get(folder.page, "/api/violations")
            .body
            .contains("intruder")
            .then_some(())
    });
    let browser = Browser::open(folder.page, 1280, 900);
    let views = [
        ("map", "#map", "return document.querySelector('#connections tbody tr')"),
        (
            "segments",
            "#segments",
            "return document.querySelector('main tbody tr')",
        ),
        (
            "review",
            "#segments/data/statefulset-db",
            "return document.querySelector('#review .rule')",
        ),
        (
            "violations",
            "#violations",
            "return document.querySelector('#violations tbody tr')",
        ),
        (
            "what-if",
            "#what-if/shop%2FPod%2Fintruder/data%2FStatefulSet%2Fdb/TCP/5432",
            "return document.querySelector('#answer .verdict')",
        ),
    ];
    for dark in [false, true] {
        for (width, size) in [(1280, "wide"), (390, "narrow")] {
            browser.size(width, 844);
            for (name, hash, ready) in views {
                browser.go("");
                browser.go(hash);
                browser.until(name, ready);
                if browser.run("return document.documentElement.dataset.theme === 'dark'") != json!(dark) {
                    browser.click("#theme");
                }
                let found = browser.run(CHECK);
                let shade = if dark { "dark" } else { "light" };
                assert_eq!(found, json!([]), "{name}, {shade}, {size}");
                browser.picture(&pictures().join(format!("{name}-{shade}-{size}.png")));
            }
        }
    }

    // By keyboard alone: everything that can be clicked is reached, and what has the focus shows it.
    browser.size(1280, 900);
    browser.leave();
    browser.go("#map");
    browser.until("connections", "return document.querySelector('#connections tbody tr')");
    let mut reached = Vec::new();
    for _ in 0..60 {
        browser.press("\u{e004}");
        let at = browser.run("const e = document.activeElement; const s = getComputedStyle(e); return [e.tagName + '#' + e.id + ' ' + (e.ariaLabel ?? e.textContent).slice(0, 30), s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2]");
        let word = at[0].as_str().unwrap().to_owned();
        if word.starts_with("BODY") {
            break;
        }
        assert_eq!(at[1], true, "{word} does not show that it has the focus");
        reached.push(word);
    }
    for wanted in [
        "Skip to content",
        "Segments",
        "#theme",
        "#namespace",
        "#find",
        "#canvas",
        "Zoom in",
        "Evidence and rule",
    ] {
        assert!(
            reached.iter().any(|word| word.contains(wanted)),
            "{wanted} is not among {reached:?}"
        );
    }
    browser.assert_calm();
}
