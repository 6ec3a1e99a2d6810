//! `nanoseg doctor` on an API server without nodes: what is missing is said, and an interrupted probe leaves nothing behind.

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding;
use k8s_openapi::api::core::v1::Namespace;
use rustix::process::{Pid, Signal, kill_process};

use super::*;

fn command(server: &Server, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nanoseg"));
    command
        .args(["doctor", "-o", "json", "--kubeconfig"])
        .arg(server.kubeconfig())
        .args(arguments);
    command
}

/// Verdicts by what was looked at.
fn verdicts(server: &Server) -> BTreeMap<String, String> {
    let output = command(server, &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "something is wrong");
    let text = String::from_utf8(output.stdout).unwrap();
    let findings = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    findings
        .map(|finding| (word(&finding["check"]), word(&finding["verdict"])))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_said_and_an_interrupted_probe_leaves_nothing_behind() {
    let Some(kubernetes) = server::kubernetes() else { return };
    let server = Server::start(&kubernetes).await;
    let client = server.client().await;

    let before = verdicts(&server);
    for (check, verdict) in [
        ("Kubernetes", "well"),
        ("Segments", "fault"),
        ("controller", "fault"),
        ("learners", "fault"),
        ("rights", "fault"),
        ("admission", "notice"),
        ("admission of Segments", "notice"),
        ("admission of pods", "notice"),
        ("this clock", "well"),
        ("enforcement", "unknown"),
    ] {
        assert_eq!(before[check], verdict, "{check}");
    }
    shipping::install(&kubernetes, &server, &client).await;
    let after = verdicts(&server);
    for (check, verdict) in [
        ("Segments", "well"),
        ("controller", "fault"),
        ("rights", "well"),
        ("admission", "well"),
        ("admission of Segments", "well"),
        ("admission of pods", "well"),
    ] {
        assert_eq!(after[check], verdict, "{check}");
    }
    let bindings = Api::<ValidatingAdmissionPolicyBinding>::all(client.clone());
    bindings
        .delete("nanoseg-identity", &kube::api::DeleteParams::default())
        .await
        .unwrap();
    let unbound = verdicts(&server);
    assert_eq!(unbound["admission"], "well");
    assert_eq!(unbound["admission of pods"], "notice");

    let namespaces = Api::<Namespace>::all(client.clone());
    let probes = async || {
        namespaces
            .list(&ListParams::default().labels("nanoseg.io/probe"))
            .await
            .unwrap()
            .items
    };
    let log = server.folder.path().join("doctor.log");
    for signal in [Signal::INT, Signal::TERM] {
        let mut arguments = command(&server, &["--probe", "--image", "none", "--settle", "1s"]);
        arguments
            .stdout(std::process::Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap());
        let mut doctor = arguments.spawn().unwrap();
        // Nobody starts its pods here.
        until("the pod that answers to be asked for", || async {
            let going = |namespace: &Namespace| namespace.metadata.deletion_timestamp.is_none();
            let namespace = probes().await.into_iter().find(going)?.name_any();
            let pods = Api::<Pod>::namespaced(client.clone(), &namespace);
            pods.get_opt("server").await.unwrap()
        })
        .await;
        kill_process(Pid::from_child(&doctor), signal).unwrap();
        assert_eq!(doctor.wait().unwrap().code(), Some(2));
        let said = std::fs::read_to_string(&log).unwrap();
        assert!(said.contains("interrupted"), "{said}");
        // The cluster's own controllers, which are not here, do the rest.
        let left: Vec<String> = (probes().await.iter())
            .filter(|namespace| namespace.metadata.deletion_timestamp.is_none())
            .map(kube::ResourceExt::name_any)
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}
