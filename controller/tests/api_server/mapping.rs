//! What people take away from a cluster: the map, how far somebody would get, and what happened outside of baselines.

use std::process::Command;

use nanoseg::segment::Phase;
use serde_json::{Value, json};

use crate::server::{self, Server, free_port};
use crate::{Cluster, controller, flow, report, send, until};

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    /// One JSON object a line.
    fn lines(&self) -> Vec<Value> {
        self.out
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

fn run(server: &Server, arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nanoseg"));
    command.args(arguments).arg("--kubeconfig").arg(server.kubeconfig());
    let output = command.output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    Ran {
        code: output.status.code(),
        out,
        err,
    }
}

/// What the map says of a connection.
fn edge<'a>(map: &'a Value, from: &str, to: &str) -> &'a Value {
    let id = format!("workload/shop/Deployment/{from}>workload/shop/Deployment/{to}:TCP:5432");
    let edges = map["edges"].as_array().unwrap();
    let found = edges.iter().find(|edge| edge["id"] == id);
    assert!(found.is_some(), "{id} is not among {edges:#?}");
    found.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_mapped_with_what_its_segments_know() {
    let Some(kubernetes) = server::kubernetes() else { return };
    let server = Server::start(&kubernetes).await;
    let cluster = Cluster::audited(&server).await;
    let web = cluster.workload("web", "198.18.1.10").await;
    let db = cluster.workload("db", "198.18.1.11").await;
    cluster.workload("thief", "198.18.1.12").await;

    let none = run(&server, &["violations"]);
    assert_eq!((none.code, none.out.as_str()), (Some(0), ""), "{}", none.err);
    assert!(none.err.contains("no connection is outside"), "{}", none.err);

    let port = free_port();
    let mut nanoseg = controller(&server, port, 1);
    let mut flows = vec![
        flow(&web, "198.18.1.11", 5432, "source", 3),
        flow(&db, "198.18.1.10", 5432, "destination", 3),
    ];
    send(port, report(&flows)).await.unwrap();
    cluster.wait_for_phase("deployment-db", Phase::Auditing).await;
    flows.push(flow(&db, "198.18.1.12", 5432, "destination", 5));
    send(port, report(&flows)).await.unwrap();
    until("the edge outside of the baseline", || async {
        let status = cluster.status("deployment-db").await?;
        (status.novel_edges.len() == 1).then_some(())
    })
    .await;
    assert_eq!(nanoseg.terminate(), Some(0), "{}", nanoseg.logged());

    // The map knows from the Segments alone.
    let map = run(&server, &["export", "--format", "json"]);
    assert_eq!(map.code, Some(0), "{}", map.err);
    let again = run(&server, &["export", "--format", "json"]);
    assert_eq!(map.out, again.out, "equal input, equal bytes");
    let map: Value = serde_json::from_str(&map.out).unwrap();
    assert_eq!(edge(&map, "web", "db")["state"], "Covered");
    let novel = edge(&map, "thief", "db");
    assert_eq!(novel["state"], "Novel");
    assert_eq!(novel["live"]["answer"], "NotIsolated", "nothing is enforced");
    assert_eq!(novel["proposed"]["answer"], "Denied");
    for format in ["html", "svg", "dot", "graphml", "mermaid", "csv", "markdown"] {
        let ran = run(&server, &["export", "--format", format]);
        assert_eq!(ran.code, Some(0), "{format}: {}", ran.err);
        assert!(ran.out.contains("thief"), "{format}");
    }

    // Under what is in force everybody reaches everybody, as nothing is.
    let reach = run(&server, &["reach", "--workload", "shop/thief", "-o", "json"]);
    assert_eq!(reach.code, Some(0), "{}", reach.err);
    let reaches = &reach.lines()[0]["reaches"];
    assert_eq!(reaches.as_array().unwrap().len(), 2, "{reaches}");

    // What happened, in every form that kubectl has.
    let listed = run(&server, &["violations", "-o", "json"]).lines();
    assert_eq!(listed.len(), 1);
    for (field, expected) in [
        ("source", json!("shop/Deployment/thief")),
        ("destination", json!("shop/Deployment/db")),
        ("port", json!(5432)),
        ("count", json!(5)),
        ("decision", json!("Denied")),
        ("decided", json!("would be denied")),
        ("segment", json!(["shop", "deployment-db"])),
    ] {
        assert_eq!(listed[0][field], expected, "{field}");
    }
    assert!(listed[0]["firstSeen"].is_string());
    let yaml = run(&server, &["violations", "shop", "-o", "yaml"]);
    assert_eq!(serde_yaml::from_str::<Value>(&yaml.out).unwrap(), listed[0]);
    let name = run(&server, &["violations", "-o", "name"]);
    assert_eq!(name.out, "segment.nanoseg.io/deployment-db\n");
    let table = run(&server, &["violations", "shop/deployment-db", "-o", "wide"]);
    let head: Vec<&str> = table
        .out
        .lines()
        .next()
        .unwrap()
        .split("  ")
        .filter(|word| !word.is_empty())
        .collect();
    assert_eq!(head.last().unwrap().trim(), "SEGMENT");
    assert!(
        table.out.contains("would be denied") && table.out.contains("shop/deployment-db"),
        "{}",
        table.out
    );
    let elsewhere = run(&server, &["violations", "default", "-o", "json"]);
    assert_eq!(elsewhere.out, "");
}
