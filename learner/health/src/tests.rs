use std::sync::atomic::AtomicBool;

use prometheus_client::metrics::gauge::Gauge;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::bounded::Bounded;
use crate::process::Process;

#[derive(Default)]
struct Patient {
    ready: AtomicBool,
    pulse: Pulse,
}

impl Vital for Patient {
    fn alive(&self) -> Result<(), String> {
        self.pulse.check(Duration::from_mins(1))
    }

    fn ready(&self) -> Result<(), String> {
        if self.ready.load(Ordering::Relaxed) {
            Ok(())
        } else {
            Err("waits for pods".to_owned())
        }
    }
}

async fn start() -> (SocketAddr, Arc<Patient>) {
    let mut registry = Registry::default();
    registry.register("answers", "Answers that were given", Gauge::<i64>::default());
    registry.register_collector(Box::new(Process::default()));
    let listener = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let patient = Arc::new(Patient::default());
    let vital: Arc<dyn Vital> = patient.clone();
    tokio::spawn(patiently(
        listener,
        Arc::new(registry),
        vital,
        Duration::from_millis(300),
    ));
    (address, patient)
}

async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn get(address: SocketAddr, path: &str) -> String {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await
}

#[tokio::test]
async fn each_path_has_its_answer_and_nothing_else_is_answered() {
    let (address, patient) = start().await;
    assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200 "));
    let waits = get(address, "/readyz").await;
    assert!(
        waits.starts_with("HTTP/1.1 503 ") && waits.contains("waits for pods"),
        "{waits}"
    );
    patient.ready.store(true, Ordering::Relaxed);
    assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200 "));
    let metrics = get(address, "/metrics").await;
    assert!(metrics.contains("application/openmetrics-text"), "{metrics}");
    assert!(
        metrics.contains("answers 0\n") && metrics.ends_with("# EOF\n"),
        "{metrics}"
    );
    assert!(get(address, "/").await.starts_with("HTTP/1.1 404 "));
    let posted = ask(
        address,
        "POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    assert!(posted.starts_with("HTTP/1.1 405 "), "{posted}");
    assert!(
        !get(address, "/nothing?of=this").await.contains("of=this"),
        "nothing comes back that was sent"
    );
}

#[tokio::test]
async fn the_process_is_measured() {
    let (address, _) = start().await;
    let metrics = get(address, "/metrics").await;
    let value = |name: &str| -> f64 {
        let line = metrics
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")))
            .unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(value("process_resident_memory_bytes") > 500_000.0);
    assert!(value("process_open_fds") >= 3.0);
    assert!(value("process_cpu_seconds_total") > 0.0);
    assert!(value("process_start_time_seconds") > 1_700_000_000.0);
}

#[tokio::test]
async fn who_asks_slowly_is_not_waited_for_and_more_than_the_bound_wait_their_turn() {
    let (address, _) = start().await;
    let mut silent = Vec::new();
    for _ in 0..AT_ONCE + 4 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /hea").await.unwrap();
        silent.push(stream);
    }
    // The silent ones are let go, and then it is this one's turn.
    assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200 "));
    let mut rest = Vec::new();
    silent[0].read_to_end(&mut rest).await.unwrap();
    assert!(
        !String::from_utf8_lossy(&rest).contains("200"),
        "closed without an answer"
    );
}

#[tokio::test]
async fn a_request_without_an_end_is_refused() {
    let (address, _) = start().await;
    let answer = ask(
        address,
        &format!("GET /healthz HTTP/1.1\r\nHost: {}\r\n\r\n", "a".repeat(15_000)),
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let mut stream = TcpStream::connect(address).await.unwrap();
    let endless = "a".repeat(100_000);
    // The other end may close before everything was written.
    let _closed = stream
        .write_all(format!("GET /healthz HTTP/1.1\r\nHost: {endless}").as_bytes())
        .await;
    let mut answer = Vec::new();
    let _closed = stream.read_to_end(&mut answer).await;
    assert!(!String::from_utf8_lossy(&answer).contains(" 200 "));
}

#[test]
fn p32_a_label_has_no_more_values_than_its_bound() {
    let bounded = Bounded::new(2);
    let offered = ["a", "b", "a", "c", "b", "d", "a"];
    let admitted: Vec<bool> = offered.iter().map(|value| bounded.admits(value)).collect();
    assert_eq!(admitted, [true, true, true, false, true, false, true]);
}

#[test]
fn a_loop_that_does_not_come_round_is_not_alive() {
    let pulse = Pulse::default();
    pulse.beat();
    assert_eq!(pulse.check(Duration::from_secs(1)), Ok(()));
    let long_ago = Pulse {
        started: Instant::now().checked_sub(Duration::from_secs(90)).unwrap(),
        last: AtomicU64::new(10_000),
    };
    let why = long_ago.check(Duration::from_mins(1)).unwrap_err();
    assert!(why.contains("for 80 s"), "{why}");
    long_ago.beat();
    assert_eq!(long_ago.check(Duration::from_secs(1)), Ok(()));
}
