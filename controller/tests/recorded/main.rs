//! Honest traffic is learned without a person: what a learner saw of the lab's shop in eighty seconds, given to a controller.
//!
//! `shop/` is a recording: manifests of a small lab that nobody had disturbed, and the report of the learner on its node, one flow a line.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nanoseg::segment::{Phase, QuarantinedEdge, Segment};
use serde::Deserialize as _;
use serde_json::{Value, json};

const RECORDING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recorded/shop");

/// Everybody in the shop who talks, DNS of the cluster among them.
const WORKLOADS: usize = 12;

const PATIENCE: Duration = Duration::from_secs(30);

/// Of a hundred edges a person may be asked about one.
const SHARE: (usize, usize) = (99, 100);

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .collect()
}

/// Segments by namespace and name.
fn segments(out: &Path) -> BTreeMap<String, Segment> {
    let read = |path: PathBuf| serde_yaml::from_str::<Segment>(&fs::read_to_string(path).ok()?).ok();
    let segments = files(&out.join("segments")).into_iter().filter_map(read);
    segments
        .map(|segment| {
            let name = segment.segment_name();
            (format!("{}/{}", name.namespace, name.name), segment)
        })
        .collect()
}

fn until<T>(what: &str, mut check: impl FnMut() -> Result<T, String>) -> T {
    let began = Instant::now();
    loop {
        match check() {
            Ok(found) => return found,
            Err(missing) => assert!(began.elapsed() < PATIENCE, "waited in vain for {what}: {missing}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Has the runs of the `CronJob` that have ended begin now: the recording's clock is not the test's.
fn run_again(manifests: &Path) {
    let text = fs::read_to_string(manifests).unwrap();
    let mut again = 0;
    let objects: Vec<String> = serde_yaml::Deserializer::from_str(&text)
        .map(|document| {
            let mut object = Value::deserialize(document).unwrap();
            if object["status"]["phase"] == "Succeeded" {
                object["status"]["startTime"] = json!(Timestamp::now() + jiff::SignedDuration::from_secs(1));
                again += 1;
            }
            serde_yaml::to_string(&object).unwrap()
        })
        .collect();
    assert!(again > 0, "the recording has no run that has ended");
    // Read whole or not at all.
    let beside = manifests.with_extension("new");
    fs::write(&beside, objects.join("---\n")).unwrap();
    fs::rename(beside, manifests).unwrap();
}

#[test]
fn p34_p35_of_the_shops_edges_at_least_99_percent_are_promoted_without_a_person() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    for folder in ["cluster", "flows"] {
        fs::create_dir(at(folder)).unwrap();
        for file in files(&Path::new(RECORDING).join(folder)) {
            fs::copy(&file, at(folder).join(file.file_name().unwrap())).unwrap();
        }
    }
    let enforce = ["shop", "data", "ops", "kube-system"].map(|namespace| format!("--enforce={namespace}=2s"));
    let controller = Command::new(env!("CARGO_BIN_EXE_nanoseg"))
        .current_dir(root.path())
        .args(["controller", "--cluster", "cluster", "--flows", "flows", "--out", "out"])
        .args(enforce)
        .args(["--health-listen", "127.0.0.1:0", "--page-listen", "127.0.0.1:0"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(at("log")).unwrap())
        .spawn()
        .unwrap();
    let _controller = Running(controller);
    until("a Segment of every workload", || {
        let found = segments(&at("out")).len();
        (found == WORKLOADS)
            .then_some(())
            .ok_or(format!("{found} of {WORKLOADS}"))
    });
    run_again(&at("cluster").join("data.yaml"));
    let segments = until("every workload to be enforced", || {
        let segments = segments(&at("out"));
        let held: Vec<String> = segments
            .iter()
            .filter_map(|(name, segment)| {
                let status = segment.status.as_ref()?;
                (status.phase != Phase::Enforcing).then(|| format!("\n  {name}: {}", status.reason))
            })
            .collect();
        if held.is_empty() {
            Ok(segments)
        } else {
            Err(held.concat())
        }
    });

    let (mut promoted, mut waiting) = (0, Vec::new());
    for (name, segment) in &segments {
        let status = segment.status.as_ref().unwrap();
        promoted += status.baseline.len();
        for QuarantinedEdge { edge, suspicion } in &status.quarantined {
            waiting.push(format!("{name}: {edge} ({suspicion:?})"));
        }
    }
    let all = promoted + waiting.len();
    println!("{promoted} of {all} edges of the shop were promoted without a person; waiting: {waiting:#?}");
    assert!(all > 50, "the recording has {all} edges");
    assert!(promoted * SHARE.1 >= all * SHARE.0, "{promoted} of {all}: {waiting:#?}");
}
