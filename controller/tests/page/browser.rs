//! A browser, driven by `ChromeDriver` as the `WebDriver` standard says.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use crate::PATIENCE;
use crate::http::ask;

/// The key under which `WebDriver` names an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

pub(crate) struct Browser {
    driver: Child,
    /// Held open: a driver whose output nobody takes any more ends.
    _output: BufReader<ChildStdout>,
    address: SocketAddr,
    session: String,
    /// Where the page under test is.
    home: String,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The browser is no child of this process, and would outlive its driver. A driver that does not answer ends no other drop.
        let (address, session) = (self.address, format!("/session/{}", self.session));
        let _closed = std::panic::catch_unwind(|| drop(ask(address, "DELETE", &session, &[], "")));
        let _gone = self.driver.kill();
        let _gone = self.driver.wait();
    }
}

/// Whether a test can have a browser. `make test` installs it and insists on it.
pub(crate) fn there_is_one() -> bool {
    let found = Command::new("chromedriver")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    assert!(
        found || std::env::var_os("NANOSEG_REQUIRE_ROOT").is_none(),
        "chromedriver is missing: .ci/setup test installs it"
    );
    if !found {
        println!("skipped: no chromedriver here; .ci/setup test installs it");
    }
    found
}

impl Browser {
    /// One window of this size.
    pub(crate) fn open(page: SocketAddr, width: u32, height: u32) -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(driver.stdout.take().unwrap());
        let port: u16 = output
            .by_ref()
            .lines()
            .map_while(Result::ok)
            .find_map(|line| {
                line.split_once("successfully on port ")?
                    .1
                    .trim_end_matches('.')
                    .parse()
                    .ok()
            })
            .unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
            "goog:chromeOptions": { "args": [
                "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
                "--disable-background-networking", "--disable-component-update", "--disable-default-apps", "--disable-sync",
                "--lang=en", "--force-prefers-reduced-motion",
            ] },
        } } });
        let answer = ask(address, "POST", "/session", &[], &wanted.to_string()).json();
        let session = answer["value"]["sessionId"]
            .as_str()
            .unwrap_or_else(|| panic!("{answer}"))
            .to_owned();
        let browser = Self {
            driver,
            _output: output,
            address,
            session,
            home: format!("http://{page}/"),
        };
        browser.size(width, height);
        browser
    }

    /// Sets the size of what is shown, also below what a window can have.
    pub(crate) fn size(&self, width: u32, height: u32) {
        self.command(
            "/goog/cdp/execute",
            &json!({ "cmd": "Emulation.setDeviceMetricsOverride", "params": { "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false } }),
        );
    }

    fn command(&self, path: &str, body: &Value) -> Value {
        let path = format!("/session/{}{path}", self.session);
        let answer = ask(self.address, "POST", &path, &[], &body.to_string());
        let value = answer.json()["value"].take();
        assert_eq!(answer.status, 200, "{path} {body}: {value}");
        value
    }

    /// Goes to a view.
    pub(crate) fn go(&self, hash: &str) {
        self.visit(&format!("{}{hash}", self.home));
    }

    /// Goes to somebody else's page.
    pub(crate) fn visit(&self, url: &str) {
        self.command("/url", &json!({ "url": url }));
    }

    /// Leaves the page: the next view is loaded anew.
    pub(crate) fn leave(&self) {
        self.visit("about:blank");
    }

    /// Runs a script in the page, as `WebDriver` does: not by the page's own right, and so not kept from it by its policy.
    pub(crate) fn run(&self, script: &str) -> Value {
        self.command("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Runs a script that calls `done` with its result.
    pub(crate) fn wait_for(&self, script: &str) -> Value {
        let script = format!("const done = arguments[arguments.length - 1]; {script}");
        self.command("/execute/async", &json!({ "script": script, "args": [] }))
    }

    /// Waits until a script returns something true, and returns it.
    pub(crate) fn until(&self, what: &str, script: &str) -> Value {
        let began = Instant::now();
        loop {
            let value = self.run(script);
            if !matches!(value, Value::Null | Value::Bool(false)) && value != json!("") && value != json!(0) {
                return value;
            }
            if began.elapsed() > PATIENCE {
                let shown = self.run("return document.body.innerText");
                self.picture(Path::new(env!("CARGO_TARGET_TMPDIR")).join("page-failed.png").as_path());
                panic!(
                    "waited in vain for {what}; shown was: {}\nlog: {:?}",
                    shown.as_str().unwrap(),
                    self.log("browser")
                );
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    /// All text that is shown.
    pub(crate) fn text(&self) -> String {
        self.run("return document.body.innerText").as_str().unwrap().to_owned()
    }

    fn element(&self, selector: &str) -> String {
        let found = self.command("/element", &json!({ "using": "css selector", "value": selector }));
        found[ELEMENT].as_str().unwrap().to_owned()
    }

    /// Clicks as a person does: what lies beneath something else is an error. What is made anew just then is clicked then.
    pub(crate) fn click(&self, selector: &str) {
        let began = Instant::now();
        loop {
            let element = self.element(selector);
            let path = format!("/session/{}/element/{element}/click", self.session);
            let answer = ask(self.address, "POST", &path, &[], "{}");
            if answer.status == 200 {
                return;
            }
            let stale = answer.body.contains("stale element reference");
            assert!(stale && began.elapsed() < PATIENCE, "{selector}: {}", answer.body);
        }
    }

    /// Types into a field, after what is there was removed.
    pub(crate) fn type_into(&self, selector: &str, text: &str) {
        let element = self.element(selector);
        self.command(&format!("/element/{element}/clear"), &json!({}));
        self.command(&format!("/element/{element}/value"), &json!({ "text": text }));
    }

    /// Presses a key at whatever has the focus.
    pub(crate) fn press(&self, key: &str) {
        let actions = json!({ "actions": [{ "type": "key", "id": "keys", "actions": [
            { "type": "keyDown", "value": key }, { "type": "keyUp", "value": key },
        ] }] });
        self.command("/actions", &actions);
    }

    /// Clicks a point of what is shown.
    pub(crate) fn click_at(&self, x: f64, y: f64) {
        let actions = json!({ "actions": [{ "type": "pointer", "id": "mouse", "parameters": { "pointerType": "mouse" }, "actions": [
            { "type": "pointerMove", "duration": 0, "x": x.round(), "y": y.round() },
            { "type": "pointerDown", "button": 0 }, { "type": "pointerUp", "button": 0 },
        ] }] });
        self.command("/actions", &actions);
    }

    /// What the browser complained of, or did.
    pub(crate) fn log(&self, kind: &str) -> Vec<Value> {
        let entries = self.command("/se/log", &json!({ "type": kind }));
        entries.as_array().unwrap().clone()
    }

    /// Every address that was asked for something, and every complaint.
    pub(crate) fn requests(&self) -> Vec<String> {
        let messages = self.log("performance");
        let messages = messages.iter().filter_map(|entry| entry["message"].as_str());
        messages
            .filter_map(|text| {
                let mut message: Value = serde_json::from_str(text).unwrap();
                let message = message["message"].take();
                let sent =
                    message["method"] == "Network.requestWillBeSent" || message["method"] == "Network.webSocketCreated";
                let url = message["params"]["request"]["url"]
                    .as_str()
                    .or(message["params"]["url"].as_str());
                url.filter(|_| sent).map(str::to_owned)
            })
            .collect()
    }

    /// Fails where the browser complained, or asked anybody but the page's own server.
    pub(crate) fn assert_calm(&self) {
        let complaints = self.log("browser");
        let complaints: Vec<_> = complaints.iter().filter(|entry| entry["level"] != "INFO").collect();
        assert!(complaints.is_empty(), "{complaints:?}");
        let outside: Vec<String> = self
            .requests()
            .into_iter()
            .filter(|url| !url.starts_with(&self.home) && !url.starts_with("data:,"))
            .collect();
        assert!(outside.is_empty(), "{outside:?}");
    }

    /// Keeps what is shown as a picture.
    pub(crate) fn picture(&self, path: &Path) {
        let path_of_session = format!("/session/{}/screenshot", self.session);
        let answer = ask(self.address, "GET", &path_of_session, &[], "").json();
        let bytes = decoded(answer["value"].as_str().unwrap());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

/// Base64.
fn decoded(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let values = text
        .bytes()
        .filter_map(|byte| DIGITS.iter().position(|digit| *digit == byte));
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_usize, 0);
    for value in values {
        held = held << 6 | value;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(held >> bits & 0xff).unwrap());
            held &= (1 << bits) - 1;
        }
    }
    bytes
}
