//! The small lab keeps its promises: real traffic as described, manifests that follow, nothing left.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nanoseg_lab::app::App;
use nanoseg_lab::peer::{Call, Failure};
use nanoseg_lab::small::{self, Driver, Lab, Options, Place};
use nanoseg_lab::status;
use serde_json::Value;

const SHOP: &str = include_str!("../shop.yaml");
const SHAPES: &str = include_str!("shapes.yaml");

fn may_run() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(
        std::env::var_os("NANOSEG_REQUIRE_ROOT").is_none(),
        "the small lab needs root"
    );
    println!("skipped: the small lab needs root");
    false
}

fn options(name: &str) -> Options {
    let mut options = Options::new(format!("{name}-{}", std::process::id()));
    options.peer = Some(env!("CARGO_BIN_EXE_lab-peer").into());
    options
}

fn app(text: &str) -> App {
    App::parse(text, Path::new("app.yaml")).unwrap()
}

/// Waits until `look` finds something; it says what is missing meanwhile.
fn until<T>(mut look: impl FnMut() -> Result<T, String>) -> T {
    let begun = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(missing) => assert!(begun.elapsed() < Duration::from_secs(30), "{missing}"),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// All objects of the lab's manifests, by kind and name.
fn objects(place: &Place) -> BTreeMap<(String, String), Value> {
    use serde::Deserialize;
    let mut objects = BTreeMap::new();
    for entry in fs::read_dir(&place.cluster).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        for document in serde_yaml::Deserializer::from_str(&fs::read_to_string(path).unwrap()) {
            let object = Value::deserialize(document).unwrap();
            let metadata = &object["metadata"];
            let namespace = metadata["namespace"]
                .as_str()
                .map(|namespace| format!("{namespace}/"))
                .unwrap_or_default();
            let key = (
                object["kind"].as_str().unwrap().to_owned(),
                format!("{namespace}{}", metadata["name"].as_str().unwrap()),
            );
            assert!(objects.insert(key.clone(), object).is_none(), "{key:?} is there twice");
        }
    }
    objects
}

/// The pods of a workload: name to UID and addresses.
fn pods(place: &Place, namespace: &str, app: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let texts = |list: &Value| {
        list.as_array()
            .into_iter()
            .flatten()
            .map(|ip| ip["ip"].as_str().unwrap().to_owned())
            .collect()
    };
    objects(place)
        .into_iter()
        .filter(|((kind, _), object)| kind == "Pod" && object["metadata"]["namespace"] == namespace)
        .filter(|(_, object)| object["spec"]["containers"][0]["name"] == app)
        .map(|((_, name), object)| {
            (
                name,
                (
                    object["metadata"]["uid"].as_str().unwrap().to_owned(),
                    texts(&object["status"]["podIPs"]),
                ),
            )
        })
        .collect()
}

/// Everything on the machine that has the lab's id in its name.
fn left(place: &Place) -> Vec<PathBuf> {
    let parents = [
        Path::new("/run/netns"),
        place.cgroup_root.parent().unwrap(),
        place.state.parent().unwrap(),
    ];
    parents
        .iter()
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flat_map(|entries| entries.map(|entry| entry.unwrap().path()))
        .filter(|path| path.file_name().unwrap().to_string_lossy().contains(&place.id))
        .collect()
}

fn failures(calls: &[Call]) -> Vec<&Call> {
    calls.iter().filter(|call| !call.ok).collect()
}

#[test]
fn shop_talks_as_described_and_leaves_nothing() {
    if !may_run() {
        return;
    }
    let app = app(SHOP);
    let begun = Instant::now();
    let lab = Lab::up(&app, &options("shop")).unwrap();
    println!("up in {:?}", begun.elapsed());
    let place = lab.place().clone();

    // Every call of the description is made, over every family, and answered from the first one on.
    let always = |who: &str| app.workload(&who.parse().unwrap()).unwrap().calls.clone();
    for workload in app
        .workloads
        .iter()
        .filter(|workload| workload.name.as_str() != "intruder")
    {
        let who = workload.id().to_string();
        for call in always(&who) {
            for v4 in [true, false]
                .into_iter()
                .filter(|v4| if *v4 { call.family.v4() } else { call.family.v6() })
            {
                until(|| {
                    let made = lab.ledger(&who).unwrap();
                    made.iter()
                        .find(|made| {
                            made.to == call.to.to_string() && made.address.is_some_and(|to| to.is_ipv4() == v4)
                        })
                        .map(drop)
                        .ok_or_else(|| format!("{who} has not called {} (IPv4: {v4})", call.to))
                });
            }
        }
    }
    let calls = small::ledgers(&place).unwrap();
    assert!(failures(&calls).is_empty(), "{:#?}", failures(&calls));
    assert!(
        !calls.iter().any(|call| call.from == "shop/intruder"),
        "the intruder spoke without being told"
    );

    lab.say("shop/intruder").unwrap();
    let targets = always("shop/intruder").len();
    let told = until(|| {
        let told = status::sum(&lab.ledger("shop/intruder").unwrap());
        if told.len() >= targets {
            Ok(told)
        } else {
            Err(format!("{} of {targets} targets", told.len()))
        }
    });
    assert!(
        told.values().all(|count| count.ok > 0 && count.failed == 0),
        "{}",
        status::table(&told)
    );

    // Each container's process is in the cgroup that its UID and container id say, and nowhere else.
    for ((kind, name), object) in objects(&place).iter().filter(|((kind, _), _)| kind == "Pod") {
        let status = &object["status"];
        let id = status["containerStatuses"][0]["containerID"]
            .as_str()
            .unwrap()
            .strip_prefix("containerd://")
            .unwrap();
        let uid = object["metadata"]["uid"].as_str().unwrap();
        let cgroup = place.cgroup_root.join(format!("kubepods/burstable/pod{uid}/{id}"));
        if status["phase"] == "Running" {
            let processes = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap();
            assert_eq!(processes.lines().count(), 1, "{kind} {name}");
        }
    }
    lab.down().unwrap();
    assert_eq!(left(&place), Vec::<PathBuf>::new());
}

#[test]
fn rolled_and_deleted_workloads_are_followed_by_the_manifests() {
    if !may_run() {
        return;
    }
    let lab = Lab::up(&app(SHOP), &options("roll")).unwrap();
    let place = lab.place().clone();
    let addresses = |pods: &BTreeMap<String, (String, BTreeSet<String>)>| -> BTreeSet<String> {
        pods.values().flat_map(|(_, addresses)| addresses.clone()).collect()
    };

    let before = pods(&place, "shop", "web");
    lab.roll("shop/web").unwrap();
    let after = pods(&place, "shop", "web");
    assert_eq!((before.len(), after.len()), (2, 2));
    assert!(
        before.keys().all(|name| !after.contains_key(name)),
        "new pods have new names"
    );
    assert!(addresses(&before).is_disjoint(&addresses(&after)), "and new addresses");
    let hashes: BTreeSet<String> = objects(&place)
        .iter()
        .filter(|((kind, name), _)| kind == "ReplicaSet" && name.starts_with("shop/web-"))
        .map(|(_, object)| {
            object["metadata"]["labels"]["pod-template-hash"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(hashes.len(), 2, "the earlier ReplicaSet stays");
    let served = objects(&place)
        .into_iter()
        .filter(|((kind, _), object)| {
            kind == "EndpointSlice" && object["metadata"]["labels"]["kubernetes.io/service-name"] == "web"
        })
        .flat_map(|(_, object)| object["endpoints"].as_array().unwrap().clone())
        .map(|endpoint| endpoint["addresses"][0].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(addresses(&after), served, "the Service leads to the new pods");

    let before = pods(&place, "data", "orders-db");
    lab.roll_with("data/orders-db", small::Addressing::Reused).unwrap();
    let after = pods(&place, "data", "orders-db");
    assert_eq!(
        before.keys().collect::<Vec<_>>(),
        after.keys().collect::<Vec<_>>(),
        "a StatefulSet's pods keep their names"
    );
    assert!(
        before.iter().all(|(name, (uid, _))| after[name].0 != *uid),
        "and are others"
    );

    // What was rolled is reached again, and what the surge replaced was never missed.
    let since = lab.ledger("ops/agent").unwrap().len();
    until(|| {
        let calls = lab.ledger("ops/agent").unwrap();
        if calls.len() > since + 4 {
            Ok(())
        } else {
            Err("the agent does not call".to_owned())
        }
    });
    let agent = lab.ledger("ops/agent").unwrap();
    assert!(failures(&agent).is_empty(), "{:#?}", failures(&agent));

    lab.delete("shop/cart").unwrap();
    assert!(pods(&place, "shop", "cart").is_empty());
    let objects = objects(&place);
    assert!(!objects.contains_key(&("Deployment".to_owned(), "shop/cart".to_owned())));
    assert!(
        objects.contains_key(&("Service".to_owned(), "shop/cart".to_owned())),
        "its Service was applied by itself"
    );
    until(|| {
        let calls = lab.ledger("shop/web").unwrap();
        let refused = calls
            .iter()
            .any(|call| call.to == "service/cart.shop" && call.error == Some(Failure::Refused));
        if refused {
            Ok(())
        } else {
            Err("a Service without pods does not refuse".to_owned())
        }
    });
    assert!(lab.roll("shop/cart").is_err());
    assert!(
        lab.say("shop/nobody")
            .unwrap_err()
            .to_string()
            .contains("shop/intruder"),
        "the error lists who is there"
    );
}

#[test]
fn every_shape_of_service_and_workload_works() {
    if !may_run() {
        return;
    }
    let mut options = options("shapes");
    options.driver = Driver::Systemd;
    options.cron_every = Duration::from_secs(1);
    let lab = Lab::up(&app(SHAPES), &options).unwrap();
    let place = lab.place().clone();
    let expected = [
        ("edge/a", "service/named.edge", 2),
        ("edge/a", "workload/edge/host-agent", 4),
        ("edge/host-agent", "service/named.edge", 2),
        ("edge/host-agent", "apiserver", 1),
        ("edge/lone", "service/other.edge", 1),
        ("edge/lone", "name/pay.example.test", 2),
        ("edge/lone", "nodeport/named.edge", 2),
        ("edge/lone", "name/db-0.db.edge.svc.cluster.local", 1),
        ("edge/db", "service/self.edge", 2),
        ("edge/once", "service/named.edge", 1),
        ("edge/often", "service/named.edge", 1),
        ("external/pay", "nodeport/named.edge", 2),
        ("kube-system/coredns", "198.19.0.1", 1),
    ];
    for (from, to, ways) in expected {
        until(|| {
            let calls = lab.ledger(from).unwrap();
            let sums = status::sum(calls.iter().filter(|call| call.to == to));
            if sums.len() == ways && sums.values().all(|count| count.ok > 0 && count.failed == 0) {
                Ok(())
            } else {
                Err(format!("{from} to {to}, of {ways} ways:\n{}", status::table(&sums)))
            }
        });
    }
    let failing = [
        ("service/empty.edge", Failure::Refused),
        ("198.19.200.200", Failure::Timeout),
    ];
    for (to, failure) in failing {
        until(|| {
            let calls = lab.ledger("edge/lone").unwrap();
            let found = calls
                .iter()
                .any(|call| call.to == to && call.error.as_ref() == Some(&failure));
            if found {
                Ok(())
            } else {
                Err(format!("{to} does not fail by {failure}"))
            }
        });
    }

    // A name that means another number on each pod is in slices of its own for each.
    let ports: BTreeSet<u64> = objects(&place)
        .iter()
        .filter(|((kind, name), _)| kind == "EndpointSlice" && name.starts_with("edge/named-v4-"))
        .map(|(_, object)| object["ports"][0]["port"].as_u64().unwrap())
        .collect();
    assert_eq!(ports, BTreeSet::from([8001, 8002]));

    // Finished Jobs stay for a while, and no longer.
    until(|| {
        let finished = pods(&place, "edge", "often").len();
        if finished >= 3 {
            Ok(())
        } else {
            Err(format!("{finished} runs of the CronJob"))
        }
    });
    std::thread::sleep(Duration::from_secs(3));
    assert!(pods(&place, "edge", "often").len() <= 5);

    let slices: Vec<String> = fs::read_dir(place.cgroup_root.join("kubepods.slice/kubepods-burstable.slice"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("kubepods-burstable-pod"))
        .collect();
    assert!(
        slices.len() >= 6
            && slices
                .iter()
                .all(|name| name.strip_suffix(".slice").is_some() && !name[22..].contains('-')),
        "{slices:?}"
    );
}

#[test]
fn what_a_killed_lab_leaves_is_removed_by_the_next() {
    if !may_run() {
        return;
    }
    let id = format!("killed-{}", std::process::id());
    let mut owner = Command::new(env!("CARGO_BIN_EXE_lab"))
        .args(["up", "--foreground", "--id", &id])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(owner.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, format!("lab {id} is up\n"));
    let place = Place::of(&id).unwrap();
    assert_eq!(small::owner(&id).unwrap(), Some(owner.id()));

    let refused = Command::new(env!("CARGO_BIN_EXE_lab"))
        .args(["up", "--id", &id])
        .output()
        .unwrap();
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is up already"));

    owner.kill().unwrap();
    owner.wait().unwrap();
    // The kernel ends the containers with their owner, before anybody cleans up.
    until(|| {
        let events = fs::read_to_string(place.cgroup_root.join("cgroup.events")).unwrap();
        if events.contains("populated 0") {
            Ok(())
        } else {
            Err("containers outlive their lab".to_owned())
        }
    });
    assert!(!left(&place).is_empty());
    let other = Lab::up(&app(SHAPES), &options("next")).unwrap();
    assert_eq!(left(&place), Vec::<PathBuf>::new());
    drop(other);
}

#[test]
fn a_lab_in_the_background_takes_orders() {
    if !may_run() {
        return;
    }
    let id = format!("orders-{}", std::process::id());
    let lab = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_lab"))
            .args(arguments)
            .args(["--id", &id])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "lab {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    let place = Place::of(&id).unwrap();
    assert!(lab(&["up"]).contains(place.cluster.to_str().unwrap()));
    lab(&["say", "shop/intruder"]);
    until(|| {
        let status: Value = serde_json::from_str(&lab(&["status", "-o", "json"])).unwrap();
        let told = status
            .as_array()
            .unwrap()
            .iter()
            .filter(|line| line["from"] == "shop/intruder" && line["ok"] == 1)
            .count();
        if told >= 12 {
            Ok(())
        } else {
            Err(format!("the intruder reached {told} targets"))
        }
    });
    assert!(lab(&["status"]).starts_with("FROM "));
    lab(&["roll", "shop/web", "--reuse-addresses"]);
    lab(&["delete", "shop/web"]);
    assert!(pods(&place, "shop", "web").is_empty());
    lab(&["down"]);
    assert_eq!(left(&place), Vec::<PathBuf>::new());
}
