//! Browsers that are not to see anything: without the token, and at another site's page.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use serde_json::json;

use crate::browser::{Browser, there_is_one};
use crate::folder::{Folder, accepted, node, pod, until};
use crate::http::get;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn objects() -> [serde_json::Value; 3] {
    [
        node(),
        pod("shop", "Deployment", "web", "198.18.1.10"),
        pod("shop", "StatefulSet", "db", "198.18.1.11"),
    ]
}

/// What a page of another site tries that its user's browser has open beside this one.
const TRIES: &str = "
const page = 'http://PAGE';
const refused = () => 'refused';
const once = (thing, good, place) => new Promise((resolve) => {
  thing.onerror = () => { thing.close?.(); resolve('refused'); };
  thing[good] = () => { thing.close?.(); resolve('answered'); };
  place?.append(thing);
});
const script = document.createElement('script');
script.src = `${page}/page.js`;
const picture = new Image();
picture.src = `${page}/icon.svg`;
Promise.all([
  fetch(`${page}/api/map`).then((answer) => answer.text()).catch(refused),
  fetch(`${page}/api/map`, { mode: 'no-cors' }).then(() => 'answered').catch(refused),
  fetch(`${page}/login`, { method: 'POST', mode: 'no-cors', body: new URLSearchParams({ token: 'x' }) }).then(() => 'answered').catch(refused),
  once(new EventSource(`${page}/api/events`), 'onopen'),
  once(script, 'onload', document.head),
  once(picture, 'onload', document.body),
]).then((found) => { window.found = found; });
";

fn answer(mut stream: &TcpStream, document: &str) {
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    lines.take_while(|line| !line.is_empty()).for_each(drop);
    // A browser that goes away reads no more.
    let _answered = write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{document}",
        document.len()
    );
}

/// Serves one document to whoever asks for anything, for as long as the test runs.
fn stranger(document: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, document) = (stream.unwrap(), document.clone());
            // A browser opens connections that it does not use yet.
            std::thread::spawn(move || answer(&stream, &document));
        }
    });
    address
}

#[test]
fn another_sites_page_learns_nothing() {
    if !there_is_one() {
        return;
    }
    let folder = Folder::new(&objects(), &[]);
    folder.report(&[accepted("shop", "db", "198.18.1.10", 5432, 3)]);
    until("a map", || {
        let map = get(folder.page, "/api/map").json();
        (map["totals"]["edges"] == 1).then_some(())
    });
    let script = TRIES.replace("PAGE", &folder.page.to_string());
    let other = stranger(format!(
        "<!doctype html><title>other</title><body><script type=module>{script}</script>"
    ));
    let browser = Browser::open(folder.page, 1280, 900);
    // The page itself is open in the same browser: what it may do, others may not for that.
    browser.go("#map");
    browser.until("connections", "return document.querySelector('#connections tbody tr')");
    browser.visit(&format!("http://{other}/"));
    let found = browser.until("what was tried", "return window.found");
    assert_eq!(found, json!(vec!["refused"; 6]));
    // The same name is another server to a browser if its port is another; this one is another site altogether.
    browser.visit(&format!("http://localhost:{}/", other.port()));
    let found = browser.until("what was tried", "return window.found");
    assert_eq!(found, json!(vec!["refused"; 6]));
}

#[test]
fn who_shows_the_token_is_let_in_and_nobody_else() {
    if !there_is_one() {
        return;
    }
    let secret = tempfile::NamedTempFile::new().unwrap();
    fs::write(secret.path(), TOKEN).unwrap();
    let folder = Folder::new(&objects(), &["--page-token-file", secret.path().to_str().unwrap()]);
    let browser = Browser::open(folder.page, 390, 844);
    browser.go("#segments");
    let asked = |browser: &Browser| {
        browser.until("the question", "return document.getElementById('token')");
        let shown =
            browser.run("return [document.querySelectorAll('script, nav').length, document.activeElement.tagName]");
        assert_eq!(shown[0], 0, "there is nothing but the question");
    };
    asked(&browser);
    browser.picture(&crate::looking::pictures().join("login.png"));
    browser.type_into("#token", "0123456789abcdef0123456789abcdee");
    browser.click("button[type=submit]");
    browser.until(
        "a word about it",
        "return document.body.innerText.includes('That is not the token.')",
    );
    asked(&browser);
    browser.type_into("#token", TOKEN);
    browser.click("button[type=submit]");
    browser.until("the page", "return document.querySelector('.link.live')");
    browser.go("#segments");
    browser.until(
        "a view",
        "return document.querySelector('main h1')?.innerText === 'Segments'",
    );
    assert_eq!(
        browser.run("return document.cookie"),
        "",
        "no script can read what was let in by"
    );
}
