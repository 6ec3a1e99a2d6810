//! `nanoseg ui` on a cluster: the page of the controller that leads, at a port of this machine.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::time::Duration;

use nanoseg_tests::{program, until};

use super::shop::Shop;

/// Ends with the test, however that ends.
struct Forwarding(Child);

impl Drop for Forwarding {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

/// What the page answers to a browser at an address of the control plane's own loopback.
fn get(shop: &Shop, at: &str, path: &str) -> String {
    let port = at.rsplit_once(':').unwrap().1;
    let ask = format!(
        "exec 3<>/dev/tcp/127.0.0.1/{port} && printf 'GET {path} HTTP/1.1\\r\\nHost: {at}\\r\\nConnection: close\\r\\n\\r\\n' >&3 && cat <&3"
    );
    let output = shop
        .cluster
        .command("timeout")
        .args(["20", "bash", "-c", &ask])
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn comes_to_this_machine(shop: &Shop) {
    let mut command = shop.cluster.command(program("nanoseg"));
    command
        .args(["ui", "--port", "0", "--no-open", "--kubeconfig"])
        .arg(shop.cluster.kubeconfig())
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut forwarding = Forwarding(command.spawn().unwrap());
    let mut line = String::new();
    BufReader::new(forwarding.0.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    println!("{line}");
    let (at, _) = line.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let document = get(shop, at, "/");
    assert!(
        document.starts_with("HTTP/1.1 200") && document.contains("<title>"),
        "{document}"
    );
    // The first question has a copy made, which takes a moment.
    until("the page to list the shop's Segments", Duration::from_secs(30), || {
        let segments = get(shop, at, "/api/segments");
        if segments.contains("orders-db") {
            Ok(())
        } else {
            Err(segments)
        }
    });
}
