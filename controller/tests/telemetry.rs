//! A real collector of OpenTelemetry is told of rounds and violations, and one that is away keeps nobody waiting.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::Span;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

const PATIENCE: Duration = Duration::from_secs(20);

/// The port that the intruder asks for.
const DB: &str = "198.18.1.11";

fn pod(name: &str, address: &str) -> serde_json::Value {
    let owner =
        json!({ "apiVersion": "apps/v1", "kind": "StatefulSet", "name": name, "uid": name, "controller": true });
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "namespace": "shop", "name": format!("{name}-0"), "uid": format!("uid-{name}"), "labels": { "app": name },
            "ownerReferences": [owner],
        },
        "spec": { "nodeName": "node1", "containers": [{ "name": "c", "image": "none" }] },
        "status": { "phase": "Running", "podIP": address, "startTime": "2026-01-01T00:00:00Z" },
    })
}

/// What a collector was told.
#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
    records: Arc<Mutex<Vec<LogRecord>>>,
    resource: Arc<Mutex<BTreeMap<String, String>>>,
    headers: Arc<Mutex<Vec<String>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let header = request
            .metadata()
            .get("x-team")
            .map(|value| value.to_str().unwrap().to_owned());
        self.headers.lock().unwrap().extend(header);
        for of_resource in request.into_inner().resource_spans {
            let resource = of_resource.resource.unwrap();
            self.resource.lock().unwrap().extend(texts(&resource.attributes));
            let spans = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            self.spans.lock().unwrap().extend(spans);
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Collector {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let scopes = request
            .into_inner()
            .resource_logs
            .into_iter()
            .flat_map(|it| it.scope_logs);
        let records = scopes.flat_map(|scope| scope.log_records);
        self.records.lock().unwrap().extend(records);
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}

fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(is)) => is.to_string(),
        other => format!("{other:?}"),
    }
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |attribute: &KeyValue| (attribute.key.clone(), text(attribute.value.as_ref()));
    attributes.iter().map(text).collect()
}

impl Collector {
    async fn listen(&self) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(self.clone()))
            .add_service(LogsServiceServer::new(self.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        address
    }

    fn named(&self, name: &str) -> Vec<Span> {
        let spans = self.spans.lock().unwrap();
        spans.iter().filter(|span| span.name == name).cloned().collect()
    }
}

struct Controller {
    root: TempDir,
    process: Child,
    health: SocketAddr,
}

impl Controller {
    fn start(collector: SocketAddr) -> Self {
        let root = tempfile::tempdir().unwrap();
        for folder in ["cluster", "flows"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let items = json!([
            { "apiVersion": "v1", "kind": "Node", "metadata": { "name": "node1" }, "spec": { "podCIDRs": ["198.18.1.0/24"] } },
            pod("web", "198.18.1.10"),
            pod("db", DB),
        ]);
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
        fs::write(root.path().join("cluster/shop.json"), list.to_string()).unwrap();
        let log = fs::File::create(root.path().join("log")).unwrap();
        let health = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_nanoseg"))
            .current_dir(root.path())
            .args(["controller", "--cluster", "cluster", "--flows", "flows", "--out", "out"])
            .args(["--enforce", "shop=1s", "--health-listen", &health.to_string()])
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{collector}"))
            .env("OTEL_EXPORTER_OTLP_HEADERS", "x-team=security")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { root, process, health }
    }

    fn report(&self, peers: &[&str]) {
        let now = Timestamp::now();
        let flow = |peer: &&str| {
            json!({
                "subject": { "container": { "pod_uid": "uid-db", "container_id": "c" } }, "peer": peer, "port": 5432,
                "transport": "TCP", "reporter": "destination", "first_seen": now, "last_seen": now,
                "attempted": 2, "established": 2, "refused": 0,
            })
        };
        let flows: Vec<_> = peers.iter().map(flow).collect();
        let report = json!({ "origin": { "node": "node1", "epoch": 1 }, "flows": flows }).to_string();
        let flows = self.root.path().join("flows");
        fs::write(flows.join(".new"), report).unwrap();
        fs::rename(flows.join(".new"), flows.join("node1.json")).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root.path().join(path)).unwrap_or_default()
    }

    /// The value of a series.
    fn metric(&self, series: &str) -> Option<u64> {
        let mut stream = TcpStream::connect(self.health).ok()?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let line = answer.lines().find_map(|line| line.strip_prefix(series))?;
        line.trim().parse().ok()
    }

    async fn enforces(&self) {
        self.report(&["198.18.1.10"]);
        let segment = "out/segments/shop/statefulset-db.yaml";
        until("the policy", || self.read(segment).contains("phase: Enforcing")).await;
        self.report(&["198.18.1.10", "203.0.113.9"]);
        until("the violation", || !self.read("out/violations.jsonl").is_empty()).await;
    }

    fn end(&mut self) -> Option<i32> {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
        self.process.wait().unwrap().code()
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _gone = self.process.wait();
        if std::thread::panicking() {
            println!("{}", self.read("log"));
        }
    }
}

async fn until(what: &str, check: impl Fn() -> bool) {
    let began = Instant::now();
    while !check() {
        assert!(began.elapsed() < PATIENCE, "waited in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_is_told_of_rounds_and_violations() {
    let collector = Collector::default();
    let mut controller = Controller::start(collector.listen().await);
    controller.enforces().await;
    until("the violation's record", || {
        !collector.records.lock().unwrap().is_empty()
    })
    .await;
    let records = collector.records.lock().unwrap().clone();
    let [record] = &records[..] else {
        unreachable!("{records:?}")
    };
    assert!(
        text(record.body.as_ref()).starts_with("violation, denied: "),
        "{record:?}"
    );
    assert_eq!(
        (record.severity_text.as_str(), record.event_name.as_str()),
        ("WARN", "nanoseg.violation")
    );
    let attributes = texts(&record.attributes);
    for (key, value) in [
        ("workload", "StatefulSet shop/db"),
        ("source", "external 203.0.113.9"),
        ("destination", "StatefulSet shop/db"),
        ("port", "5432"),
        ("protocol", "TCP"),
        ("decision", "Denied"),
        ("enforced", "true"),
    ] {
        assert_eq!(attributes[key], value, "{attributes:?}");
    }
    // The same round is a trace: what was decided, and what was written.
    assert!(record.trace_id.is_empty() || record.trace_id.len() == 16);
    let told = |span: &Span, key: &str| texts(&span.attributes).get(key).cloned();
    until("the round that wrote the policy", || {
        let rounds = collector.named("round");
        rounds
            .iter()
            .any(|round| told(round, "policies").as_deref() == Some("2"))
    })
    .await;
    let rounds = collector.named("round");
    let round = rounds
        .iter()
        .find(|round| told(round, "policies").as_deref() == Some("2"))
        .unwrap();
    for part in ["decide", "apply"] {
        let parts = collector.named(part);
        let part = parts.iter().find(|it| it.parent_span_id == round.span_id).unwrap();
        assert_eq!(part.trace_id, round.trace_id);
        assert!(
            round.start_time_unix_nano <= part.start_time_unix_nano
                && part.end_time_unix_nano <= round.end_time_unix_nano
        );
    }
    assert_eq!(told(round, "failed").as_deref(), Some("0"));
    assert_eq!(collector.resource.lock().unwrap()["service.name"], "nanoseg-controller");
    assert!(
        collector
            .headers
            .lock()
            .unwrap()
            .iter()
            .all(|header| header == "security")
    );
    assert!(!collector.headers.lock().unwrap().is_empty());
    // Spans are no part of the log's lines.
    assert!(!controller.read("log").contains("round{"), "{}", controller.read("log"));
    for (signal, reason) in [("spans", "queue_full"), ("logs", "not_taken")] {
        let series = format!("nanoseg_telemetry_lost_total{{signal=\"{signal}\",reason=\"{reason}\"}}");
        assert_eq!(controller.metric(&series), Some(0));
    }
    assert_eq!(controller.end(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_keeps_nobody_waiting_and_is_told_of_once() {
    // Nobody listens there any more.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut controller = Controller::start(nobody);
    controller.enforces().await;
    let series = "nanoseg_telemetry_lost_total{signal=\"logs\",reason=\"not_taken\"}";
    until("the record to be counted", || controller.metric(series) == Some(1)).await;
    let log = controller.read("log");
    assert_eq!(
        log.matches("did not take this").count(),
        2,
        "once for each signal: {log}"
    );
    let began = Instant::now();
    assert_eq!(controller.end(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn what_is_no_collectors_url_is_one_sentence() {
    let output = Command::new(env!("CARGO_BIN_EXE_nanoseg"))
        .args([
            "controller",
            "--own-namespace",
            "nanoseg",
            "--otlp-endpoint",
            "http://no collector",
        ])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.starts_with("nanoseg: --otlp-endpoint \"http://no collector\" is not"),
        "{said}"
    );
}
