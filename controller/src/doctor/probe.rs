//! The probe: pods that call each other, without policies and with them, in a namespace of its own.
//!
//! Guarantee: the namespace is deleted whatever happens, an interruption included; one that a killed probe left behind is deleted
//! by the next, and its pods end by themselves.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::{Finding, Verdict, of_enforcement};
use crate::enforcement::{CONFIG_MAP, Caller, Calls, Enforcement, Family, KEY, Observations, Target, judge};
use crate::settings::doctor::DoctorArguments;
use crate::trouble::Trouble;

/// Label of the namespace.
const LABEL: &str = "nanoseg.io/probe";
/// Label of its pods.
const ROLE: &str = "nanoseg.io/probe-role";
const LET_IN: &str = "nanoseg.io/probe-let-in";

const ALLOWED: u16 = 7001;
const RANGE: (u16, u16) = (7010, 7020);
const IN_RANGE: u16 = 7015;
const BEYOND_RANGE: u16 = 7021;
const SERVICE: u16 = 8001;

/// How long a pod may take to start: its image may have to be pulled.
const START: Duration = Duration::from_mins(2);

/// How long calls are made while there is no policy: a Service takes seconds to be known to a node.
const WITHOUT_POLICIES: Duration = Duration::from_secs(6);

/// Pods end by themselves after this, and what is older is nobody's any more.
const DEADLINE: SignedDuration = SignedDuration::from_mins(10);

/// Between two looks at a pod.
const LOOK: Duration = Duration::from_millis(500);

/// Why a probe found nothing out.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The API server refused it or cannot be reached.
    #[error("cannot {verb} {what} for the probe")]
    Request {
        /// What was tried.
        verb: &'static str,
        /// On what.
        what: String,
        /// What the API server or the way to it said.
        source: Trouble,
    },
    /// There is no image to make pods of.
    #[error(
        "there is no controller in namespace {0} whose image the probe could use: give --image, or --own-namespace"
    )]
    NoImage(String),
    /// A pod did not come to its end.
    #[error("pod {pod} of the probe did not do its part: {said}")]
    Pod {
        /// Which.
        pod: String,
        /// What is known of it.
        said: String,
    },
    /// Somebody asked to end it.
    #[error("interrupted; the probe's namespace is being deleted")]
    Interrupted,
    /// Signals cannot be listened to.
    #[error("cannot listen to signals")]
    Signal(#[source] std::io::Error),
}

fn failed(verb: &'static str, what: impl Into<String>) -> impl FnOnce(kube::Error) -> ProbeError {
    move |error| ProbeError::Request {
        verb,
        what: what.into(),
        source: error.into(),
    }
}

/// What an earlier probe found.
pub(super) async fn earlier(client: &Client, namespace: &str) -> Vec<Finding> {
    let check = "enforcement";
    let advice = "nanoseg doctor --probe";
    let kept = Api::<ConfigMap>::namespaced(client.clone(), namespace)
        .get_opt(CONFIG_MAP)
        .await;
    match kept {
        Err(error) => vec![Finding::hidden(check, &error.into())],
        Ok(None) => vec![Finding::of(
            check,
            Verdict::Unknown,
            "it was never tried whether this cluster enforces",
            Some(advice),
        )],
        Ok(Some(kept)) => match Enforcement::kept(&kept) {
            Some(enforcement) => of_enforcement(&enforcement),
            None => vec![Finding::of(
                check,
                Verdict::Unknown,
                "what an earlier probe found cannot be read",
                Some(advice),
            )],
        },
    }
}

/// Finds out, and keeps what was found.
pub(super) async fn run(client: &Client, arguments: &DoctorArguments) -> Result<Enforcement, ProbeError> {
    let mut term = signal(SignalKind::terminate()).map_err(ProbeError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ProbeError::Signal)?;
    let image = image(client, arguments).await?;
    sweep(client).await?;
    let namespaces = Api::<Namespace>::all(client.clone());
    let labels = json!({
        LABEL: "true",
        // Nothing is to be learned of the probe's pods.
        crate::segment::MODE_LABEL: "Off",
        "pod-security.kubernetes.io/enforce": "restricted",
    });
    let namespace = made(json!({ "metadata": { "generateName": "nanoseg-probe-", "labels": labels } }));
    let namespace = namespaces.create(&PostParams::default(), &namespace).await;
    let namespace = namespace.map_err(failed("create", "a namespace"))?.name_any();
    let probe = Probe {
        client: client.clone(),
        namespace: namespace.clone(),
        image,
        settle: arguments.settle,
    };
    let found = tokio::select! {
        found = probe.observe() => found,
        _ = term.recv() => Err(ProbeError::Interrupted),
        _ = interrupt.recv() => Err(ProbeError::Interrupted),
    };
    let removed = namespaces.delete(&namespace, &DeleteParams::default()).await;
    let enforcement = judge(&found?, Timestamp::now());
    removed.map_err(failed("delete", format!("namespace {namespace}")))?;
    keep(client, &arguments.own_namespace, &enforcement).await?;
    Ok(enforcement)
}

/// Deletes what killed probes left behind.
async fn sweep(client: &Client) -> Result<(), ProbeError> {
    let namespaces = Api::<Namespace>::all(client.clone());
    let left = namespaces
        .list(&ListParams::default().labels(LABEL))
        .await
        .map_err(failed("list", "namespaces"))?;
    for namespace in left {
        let made = namespace.creation_timestamp().map(|time| time.0);
        if made.is_some_and(|made| Timestamp::now().duration_since(made) > DEADLINE) {
            let name = namespace.name_any();
            namespaces
                .delete(&name, &DeleteParams::default())
                .await
                .map_err(failed("delete", format!("namespace {name}")))?;
        }
    }
    Ok(())
}

async fn keep(client: &Client, namespace: &str, enforcement: &Enforcement) -> Result<(), ProbeError> {
    let text = serde_json::to_string(enforcement).unwrap_or_default();
    let kept = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": CONFIG_MAP },
        "data": { KEY: text },
    });
    Api::<ConfigMap>::namespaced(client.clone(), namespace)
        .patch(
            CONFIG_MAP,
            &PatchParams::apply("kubectl-nanoseg").force(),
            &Patch::Apply(&kept),
        )
        .await
        .map(drop)
        .map_err(failed(
            "keep",
            format!("what was found in ConfigMap {namespace}/{CONFIG_MAP}"),
        ))
}

/// An image and when it is pulled.
#[derive(Clone, Debug)]
struct Image {
    name: String,
    pull: Option<String>,
}

async fn image(client: &Client, arguments: &DoctorArguments) -> Result<Image, ProbeError> {
    let namespace = &arguments.own_namespace;
    if let Some(name) = &arguments.image {
        return Ok(Image {
            name: name.clone(),
            pull: None,
        });
    }
    let deployments = Api::<Deployment>::namespaced(client.clone(), namespace);
    let deployment = deployments
        .get_opt("nanoseg-controller")
        .await
        .map_err(failed("get", "the controller's Deployment"))?;
    let container = deployment
        .and_then(|deployment| deployment.spec?.template.spec?.containers.into_iter().next())
        .and_then(|container| Some((container.image?, container.image_pull_policy)));
    let (name, pull) = container.ok_or_else(|| ProbeError::NoImage(namespace.clone()))?;
    Ok(Image { name, pull })
}

/// An object from what is written in this module.
#[expect(
    clippy::panic,
    reason = "what is written here is checked by the tests of this module"
)]
fn made<K: serde::de::DeserializeOwned>(object: Value) -> K {
    serde_json::from_value(object).unwrap_or_else(|error| panic!("the probe's own object: {error}"))
}

struct Probe {
    client: Client,
    namespace: String,
    image: Image,
    settle: Duration,
}

/// Where the pod that answers can be called.
#[derive(Clone, Debug, Default)]
struct Addresses {
    pod: BTreeMap<Family, IpAddr>,
    service: BTreeMap<Family, IpAddr>,
}

fn by_family<'a>(addresses: impl IntoIterator<Item = &'a str>) -> BTreeMap<Family, IpAddr> {
    let addresses = addresses
        .into_iter()
        .filter_map(|address| address.parse::<IpAddr>().ok());
    addresses
        .map(|address| (if address.is_ipv4() { Family::V4 } else { Family::V6 }, address))
        .collect()
}

impl Addresses {
    fn of(&self, target: Target, family: Family) -> Option<SocketAddr> {
        let (addresses, port) = match target {
            Target::Allowed => (&self.pod, ALLOWED),
            Target::InRange => (&self.pod, IN_RANGE),
            Target::BeyondRange => (&self.pod, BEYOND_RANGE),
            Target::Service => (&self.service, SERVICE),
        };
        addresses.get(&family).map(|address| SocketAddr::new(*address, port))
    }
}

/// Whom a caller calls.
const fn targets(caller: Caller) -> &'static [Target] {
    match caller {
        Caller::Control => &[Target::Allowed, Target::Service],
        Caller::Stranger | Caller::Silent => &[Target::Allowed],
        Caller::Friend => &[Target::Allowed, Target::InRange, Target::BeyondRange],
        Caller::ByTargetPort | Caller::ByServicePort => &[Target::Service],
    }
}

impl Probe {
    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn observe(&self) -> Result<Observations, ProbeError> {
        let answer = [ALLOWED, IN_RANGE, BEYOND_RANGE].map(|port| format!("--answer={port}"));
        self.start(pod("server", &self.image, &answer, &json!({ ROLE: "server" })))
            .await?;
        let params = PostParams::default();
        let service = self.api::<Service>().create(&params, &made(service())).await;
        let service = service.map_err(failed("create", "a Service"))?;
        let server = self.wait("server", |pod| phase(pod) == "Running").await?;
        let addresses = Addresses {
            pod: by_family(
                (server.status.iter())
                    .flat_map(|status| status.pod_ips.iter().flatten())
                    .map(|address| address.ip.as_str()),
            ),
            service: by_family(
                (service.spec.iter())
                    .flat_map(|spec| spec.cluster_ips.iter().flatten())
                    .map(String::as_str),
            ),
        };
        let mut observed = Observations::new();
        self.call(Caller::Control, &addresses, WITHOUT_POLICIES).await?;
        self.hear(Caller::Control, &mut observed).await?;
        for policy in policies() {
            let created = self.api::<NetworkPolicy>().create(&params, &made(policy)).await;
            created.map_err(failed("create", "a NetworkPolicy"))?;
        }
        for caller in Caller::UNDER_POLICIES {
            self.call(caller, &addresses, self.settle).await?;
        }
        for caller in Caller::UNDER_POLICIES {
            self.hear(caller, &mut observed).await?;
        }
        Ok(observed)
    }

    async fn call(&self, caller: Caller, addresses: &Addresses, patience: Duration) -> Result<(), ProbeError> {
        let mut arguments = vec![format!("--patience={}s", patience.as_secs().max(1))];
        for target in targets(caller) {
            for family in Family::ALL {
                let address = addresses.of(*target, family);
                arguments.extend(address.map(|address| format!("--call={}={address}", told_by(*target, family))));
            }
        }
        let let_in = if matches!(caller, Caller::Stranger) {
            "false"
        } else {
            "true"
        };
        let labels = json!({ ROLE: caller.as_str(), LET_IN: let_in });
        self.start(pod(caller.as_str(), &self.image, &arguments, &labels)).await
    }

    /// What a caller says when it has ended.
    async fn hear(&self, caller: Caller, observed: &mut Observations) -> Result<(), ProbeError> {
        let name = caller.as_str();
        let ended = self
            .wait(name, |pod| matches!(phase(pod), "Succeeded" | "Failed"))
            .await?;
        let last_words = last_words(&ended).unwrap_or_default();
        let told: BTreeMap<String, Calls> = serde_json::from_str(&last_words).map_err(|_not_ours| ProbeError::Pod {
            pod: name.to_owned(),
            said: format!("it ended as {} and said `{last_words}`", phase(&ended)),
        })?;
        for target in targets(caller) {
            for family in Family::ALL {
                if let Some(calls) = told.get(&told_by(*target, family)) {
                    observed.insert((caller, *target, family), *calls);
                }
            }
        }
        Ok(())
    }

    async fn start(&self, pod: Value) -> Result<(), ProbeError> {
        let pod: Pod = made(pod);
        let began = Instant::now();
        loop {
            match self.api::<Pod>().create(&PostParams::default(), &pod).await {
                Ok(_) => return Ok(()),
                // The account of a new namespace is made a moment after it.
                Err(kube::Error::Api(status)) if status.code == 403 && began.elapsed() < START / 4 => {
                    tokio::time::sleep(LOOK).await;
                }
                Err(error) => return Err(failed("create", format!("pod {}", pod.name_any()))(error)),
            }
        }
    }

    async fn wait(&self, name: &str, is_done: impl Fn(&Pod) -> bool) -> Result<Pod, ProbeError> {
        let began = Instant::now();
        loop {
            let pod = self
                .api::<Pod>()
                .get(name)
                .await
                .map_err(failed("get", format!("pod {name}")))?;
            if is_done(&pod) {
                return Ok(pod);
            }
            if began.elapsed() > START + self.settle {
                return Err(ProbeError::Pod {
                    pod: name.to_owned(),
                    said: hindrance(&pod),
                });
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// The name that what became of calls is told by.
fn told_by(target: Target, family: Family) -> String {
    format!("{}-{family}", target.as_str())
}

fn phase(pod: &Pod) -> &str {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    phase.unwrap_or("Pending")
}

fn last_words(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
    status.state.as_ref()?.terminated.as_ref()?.message.clone()
}

/// Why a pod has not come further.
fn hindrance(pod: &Pod) -> String {
    let status = pod.status.as_ref();
    let container = status.and_then(|status| {
        status
            .container_statuses
            .as_ref()?
            .first()?
            .state
            .as_ref()?
            .waiting
            .clone()
    });
    let condition = status.and_then(|status| {
        status
            .conditions
            .as_ref()?
            .iter()
            .find(|condition| condition.status == "False")?
            .message
            .clone()
    });
    let words = container.map(|waits| {
        format!(
            "{} {}",
            waits.reason.unwrap_or_default(),
            waits.message.unwrap_or_default()
        )
    });
    let words = words.or(condition).unwrap_or_default();
    format!("it is {}: {}", phase(pod), words.trim())
}

fn pod(name: &str, image: &Image, arguments: &[String], labels: &Value) -> Value {
    let mut command = vec!["/nanoseg".to_owned(), "probe-pod".to_owned()];
    command.extend_from_slice(arguments);
    // On another node than the one that answers where there is one: the longer way is the more usual.
    let elsewhere = json!({ "podAntiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [{
        "weight": 100,
        "podAffinityTerm": { "topologyKey": "kubernetes.io/hostname", "labelSelector": { "matchLabels": { ROLE: "server" } } },
    }] } });
    json!({
        "metadata": { "name": name, "labels": labels },
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": false,
            "activeDeadlineSeconds": DEADLINE.as_secs(),
            "terminationGracePeriodSeconds": 1,
            "affinity": elsewhere,
            "securityContext": { "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": { "type": "RuntimeDefault" } },
            "containers": [{
                "name": "probe",
                "image": image.name,
                "imagePullPolicy": image.pull,
                "command": command,
                "resources": { "requests": { "cpu": "10m", "memory": "16Mi" }, "limits": { "memory": "64Mi" } },
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "capabilities": { "drop": ["ALL"] },
                    "readOnlyRootFilesystem": true,
                },
            }],
        },
    })
}

fn service() -> Value {
    json!({
        "metadata": { "name": "server" },
        "spec": {
            "ipFamilyPolicy": "PreferDualStack",
            "selector": { ROLE: "server" },
            "ports": [{ "port": SERVICE, "targetPort": ALLOWED }],
        },
    })
}

fn policies() -> Vec<Value> {
    let egress = |caller: Caller, rules: Value| {
        json!({
            "metadata": { "name": caller.as_str() },
            "spec": {
                "podSelector": { "matchLabels": { ROLE: caller.as_str() } }, "policyTypes": ["Egress"], "egress": rules,
            },
        })
    };
    let port = |port: u16| json!([{ "ports": [{ "protocol": "TCP", "port": port }] }]);
    let ingress = json!({
        "metadata": { "name": "server" },
        "spec": {
            "podSelector": { "matchLabels": { ROLE: "server" } },
            "policyTypes": ["Ingress"],
            "ingress": [{
                "from": [{ "podSelector": { "matchLabels": { LET_IN: "true" } } }],
                "ports": [
                    { "protocol": "TCP", "port": ALLOWED },
                    { "protocol": "TCP", "port": RANGE.0, "endPort": RANGE.1 },
                ],
            }],
        },
    });
    vec![
        ingress,
        egress(Caller::Silent, json!([])),
        egress(Caller::ByTargetPort, port(ALLOWED)),
        egress(Caller::ByServicePort, port(SERVICE)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_is_what_the_api_knows() {
        let image = Image {
            name: "nanoseg/nanoseg:1".to_owned(),
            pull: None,
        };
        let pod: Pod = made(pod(
            "server",
            &image,
            &["--answer=1".to_owned()],
            &json!({ ROLE: "server" }),
        ));
        assert_eq!(pod.spec.unwrap().containers[0].command.as_ref().unwrap().len(), 3);
        let _service: Service = made(service());
        let policies: Vec<NetworkPolicy> = policies().into_iter().map(made).collect();
        assert_eq!(policies.len(), 4);
    }

    #[test]
    fn the_range_and_the_ports_are_what_their_names_say() {
        assert!((RANGE.0..=RANGE.1).contains(&IN_RANGE) && IN_RANGE != RANGE.0);
        assert!(![ALLOWED, SERVICE].iter().any(|port| (RANGE.0..=RANGE.1).contains(port)));
        assert_eq!(BEYOND_RANGE, RANGE.1 + 1);
    }

    #[test]
    fn a_pod_is_called_by_the_families_that_it_has() {
        let addresses = Addresses {
            pod: by_family(["198.18.1.4", "fd00::4"]),
            service: by_family(["198.19.0.9", "None"]),
        };
        let call = |target, family| addresses.of(target, family).map(|address| address.to_string());
        assert_eq!(call(Target::Allowed, Family::V4).unwrap(), "198.18.1.4:7001");
        assert_eq!(call(Target::BeyondRange, Family::V6).unwrap(), "[fd00::4]:7021");
        assert_eq!(call(Target::Service, Family::V4).unwrap(), "198.19.0.9:8001");
        assert_eq!(call(Target::Service, Family::V6), None);
    }
}
