use std::sync::Arc;

use nanoseg_graph::cluster::Cluster;
use serde_json::json;

use super::*;
use crate::fixture::{cluster_of, ip, labels, manifests};

fn object(yaml: &str) -> Object {
    match manifests(yaml).remove(0) {
        Manifest::Object(object) => object,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_pod_with_all_that_matters() {
    let object = object(
        "
apiVersion: v1
kind: Pod
metadata:
  namespace: shop
  name: web-5d8-x
  uid: 11-22
  labels: {app: web, pod-template-hash: 5d8}
  creationTimestamp: 2026-01-01T00:00:00Z
  annotations: {kubernetes.io/config.mirror: abc}
  ownerReferences:
  - {apiVersion: v1, kind: Gadget, name: not-the-controller, uid: a}
  - {apiVersion: apps/v1, kind: ReplicaSet, name: web-5d8, uid: b, controller: true}
spec:
  nodeName: n1
  initContainers:
  - {name: once, image: i, ports: [{containerPort: 1}]}
  - {name: mesh, image: i, restartPolicy: Always, ports: [{name: admin, containerPort: 15000}]}
  containers:
  - {name: web, image: i, ports: [{name: http, containerPort: 8080}, {name: dns, containerPort: 53, protocol: UDP}]}
  - {name: second, image: i, ports: [{name: http, containerPort: 8081}]}
  - {name: pinned, image: 'r.example/p@sha256:dd'}
  - {name: loaded, image: local}
status:
  phase: Running
  initContainerStatuses: [{name: once, image: i, imageID: 'r.example/i@sha256:aa', ready: false, restartCount: 0}]
  containerStatuses:
  - {name: web, image: i, imageID: 'docker-pullable://r.example/i@sha256:bb', ready: true, restartCount: 0}
  - {name: loaded, image: local, imageID: 'sha256:cc', ready: true, restartCount: 0}
  startTime: 2026-01-01T00:00:05Z
  podIP: 198.18.1.2
  podIPs: [{ip: 198.18.1.2}, {ip: 'fd00:18::2'}]
",
    );
    let Object::Pod(pod) = object else { panic!("not a pod") };
    let port = |name: Option<&str>, number, transport| ContainerPort {
        name: name.map(str::to_owned),
        number,
        transport,
    };
    let expected = Pod {
        uid: "11-22".into(),
        mirror_uid: Some("abc".into()),
        images: Arc::new(
            [
                ("i", None),
                ("i", Some("sha256:aa")),
                ("i", Some("sha256:bb")),
                ("local", Some("sha256:cc")),
                ("r.example/p@sha256:dd", Some("sha256:dd")),
            ]
            .map(|(name, digest)| nanoseg_graph::cluster::Image {
                name: name.to_owned(),
                digest: digest.map(str::to_owned),
            })
            .into(),
        ),
        namespace: "shop".into(),
        name: "web-5d8-x".into(),
        labels: labels([("app", "web"), ("pod-template-hash", "5d8")]).into(),
        owner: Some(Arc::new(OwnerRef {
            kind: "ReplicaSet".to_owned(),
            name: "web-5d8".to_owned(),
        })),
        addresses: [ip("198.18.1.2"), ip("fd00:18::2")].into(),
        host_network: false,
        node: Some("n1".into()),
        ports: Arc::new(
            [
                port(Some("http"), 8080, Transport::Tcp),
                port(Some("dns"), 53, Transport::Udp),
                // The first port of a name is the one that the name means.
                port(None, 8081, Transport::Tcp),
                port(Some("admin"), 15000, Transport::Tcp),
            ]
            .into(),
        ),
        phase: PodPhase::Running,
        ready: true,
        started: Some("2026-01-01T00:00:05Z".parse().unwrap()),
    };
    assert_eq!(pod, expected);
}

#[test]
fn a_pod_is_ready_unless_it_is_said_not_to_be() {
    let ready = |status: &str| format!("{{phase: Running, conditions: [{{type: Ready, status: {status}}}]}}");
    for (status, expected) in [
        ("{}".to_owned(), true),
        ("{phase: Running}".to_owned(), true),
        ("{phase: Pending}".to_owned(), false),
        (ready("'True'"), true),
        (ready("'False'"), false),
        // Its node does not report: nobody knows.
        (ready("Unknown"), true),
    ] {
        let Object::Pod(pod) = object(&format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: p, namespace: n}}, spec: {{containers: []}}, status: {status}}}"
        )) else {
            panic!("not a pod")
        };
        assert_eq!(pod.ready, expected, "{status}");
    }
}

#[test]
fn phases() {
    for (phase, expected) in [
        ("{phase: Pending}", PodPhase::Pending),
        ("{phase: Running}", PodPhase::Running),
        ("{phase: Unknown}", PodPhase::Running),
        ("{phase: Succeeded}", PodPhase::Finished),
        ("{phase: Failed}", PodPhase::Finished),
        ("{}", PodPhase::Declared),
        ("{podIP: 198.18.0.1}", PodPhase::Pending),
    ] {
        let yaml =
            format!("{{apiVersion: v1, kind: Pod, metadata: {{name: p}}, spec: {{containers: []}}, status: {phase}}}");
        let Object::Pod(pod) = object(&yaml) else {
            panic!("not a pod")
        };
        assert_eq!(pod.phase, expected, "{phase}");
        assert_eq!((&*pod.namespace, &*pod.uid), ("default", "default/p"));
    }
}

#[test]
fn owners_have_their_selectors_and_templates() {
    let owners = manifests(
        "
{apiVersion: apps/v1, kind: Deployment, metadata: {namespace: s, name: d}, spec: {selector: {matchLabels: {a: d}}, template: {metadata: {labels: {a: d, b: c}}}}}
---
{apiVersion: apps/v1, kind: ReplicaSet, metadata: {namespace: s, name: d-1, ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: d, uid: u, controller: true}]}, spec: {selector: {matchLabels: {a: d}}, template: {metadata: {labels: {a: d}}}}}
---
{apiVersion: apps/v1, kind: StatefulSet, metadata: {namespace: s, name: db}, spec: {selector: {matchLabels: {a: db}}, serviceName: db, template: {metadata: {labels: {a: db}}}}}
---
{apiVersion: apps/v1, kind: DaemonSet, metadata: {namespace: s, name: log}, spec: {selector: {matchLabels: {a: log}}, template: {metadata: {labels: {a: log}}}}}
---
{apiVersion: batch/v1, kind: Job, metadata: {namespace: s, name: j}, spec: {template: {metadata: {labels: {a: j}}, spec: {containers: []}}}}
---
{apiVersion: batch/v1, kind: CronJob, metadata: {namespace: s, name: c}, spec: {schedule: '* * * * *', jobTemplate: {metadata: {labels: {not: this}}, spec: {template: {metadata: {labels: {a: c}}, spec: {containers: []}}}}}}
---
{apiVersion: v1, kind: ReplicationController, metadata: {namespace: s, name: r}, spec: {selector: {a: r}, template: {metadata: {labels: {a: r}}}}}
",
    );
    let seen: Vec<_> = owners
        .into_iter()
        .map(|manifest| match manifest {
            Manifest::Object(Object::Controller(owner)) => (
                owner.kind,
                owner.selector.get("a").cloned(),
                owner.template_labels.len(),
                owner.owner.is_some(),
            ),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [
        ("Deployment", Some("d"), 2, false),
        ("ReplicaSet", Some("d"), 1, true),
        ("StatefulSet", Some("db"), 1, false),
        ("DaemonSet", Some("log"), 1, false),
        ("Job", None, 1, false),
        ("CronJob", None, 1, false),
        ("ReplicationController", Some("r"), 1, false),
    ];
    assert_eq!(seen.len(), expected.len());
    for ((kind, selector, template, owner), expected) in seen.iter().zip(expected) {
        assert_eq!((kind.as_str(), selector.as_deref(), *template, *owner), expected);
    }
}

#[test]
fn p10_p12_services_of_every_shape() {
    let yaml = "
{apiVersion: v1, kind: Service, metadata: {namespace: s, name: plain}, spec: {clusterIP: 198.18.9.1, clusterIPs: [198.18.9.1, 'fd00:18::9'], selector: {a: b}, ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {namespace: s, name: named}, spec: {clusterIP: None, selector: {a: b}, ports: [{port: 80, targetPort: http, nodePort: 30080}]}}
---
{apiVersion: v1, kind: Service, metadata: {namespace: s, name: bare}, spec: {clusterIP: 198.18.9.2, selector: {}, externalIPs: [192.0.2.1], ports: [{port: 53, targetPort: 5353, protocol: UDP}]}, status: {loadBalancer: {ingress: [{ip: 192.0.2.2}, {hostname: h}]}}}
---
{apiVersion: v1, kind: Service, metadata: {namespace: s, name: away}, spec: {type: ExternalName, externalName: db.example.com}}
";
    let cluster = cluster_of(yaml);
    let get = |name: &str| {
        cluster
            .service(&ServiceName {
                namespace: "s".to_owned(),
                name: name.to_owned(),
            })
            .unwrap()
            .clone()
    };
    let plain = get("plain");
    assert_eq!(plain.cluster_ips, [ip("198.18.9.1"), ip("fd00:18::9")].into());
    assert_eq!(
        plain.ports.first().unwrap().target,
        TargetPort::Number(80),
        "an absent target is the Service's port"
    );
    let named = get("named");
    assert!(named.cluster_ips.is_empty());
    let port = named.ports.first().unwrap();
    assert_eq!(
        (&port.target, port.node_port),
        (&TargetPort::Name("http".to_owned()), Some(30080))
    );
    let bare = get("bare");
    assert_eq!(bare.selector, None, "an empty selector is none");
    assert_eq!(bare.external_ips, [ip("192.0.2.1"), ip("192.0.2.2")].into());
    assert_eq!(bare.ports.first().unwrap().transport, Transport::Udp);
    let away = get("away");
    assert_eq!(
        (away.external_name.as_deref(), away.selector),
        (Some("db.example.com"), None)
    );
}

#[test]
fn slices_nodes_and_namespaces() {
    let yaml = "
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, metadata: {namespace: default, name: kubernetes, labels: {kubernetes.io/service-name: kubernetes}}, endpoints: [{addresses: [192.0.2.9], conditions: {ready: false}}], ports: [{name: https, port: 6443, protocol: TCP}, {name: any}]}
---
{apiVersion: v1, kind: Node, metadata: {name: n1}, spec: {podCIDR: 198.18.1.0/24, podCIDRs: [198.18.1.0/24, 'fd00:18:1::/64']}, status: {addresses: [{type: InternalIP, address: 192.0.2.3}, {type: Hostname, address: n1}]}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: a}}}
";
    let cluster = cluster_of(yaml);
    let name = ServiceName {
        namespace: "default".to_owned(),
        name: "kubernetes".to_owned(),
    };
    let slice = cluster.slices_of(&name).next().unwrap();
    assert_eq!(slice.addresses, [ip("192.0.2.9")].into());
    assert_eq!(slice.ports, [(Some("https".to_owned()), 6443, Transport::Tcp)].into());
    let node = cluster.node("n1").unwrap();
    assert_eq!((node.addresses.len(), node.pod_cidrs.len()), (1, 2));
    assert_eq!(
        cluster.namespace_labels("shop"),
        labels([("team", "a"), (NAMESPACE_NAME, "shop")])
    );
}

#[test]
fn p18_one_bad_item_of_a_list_does_not_stop_the_rest() {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "a", "name": "bad"}, "spec": {"containers": "none"}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "a", "name": "odd"}, "status": {"podIP": "no"}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "a"}},
        {"kind": "Pod"},
        7,
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}},
        {"apiVersion": "v1", "kind": "PodList", "items": [{"metadata": {"name": "inner"}}]},
        {"apiVersion": "v1", "kind": "List", "items": null},
    ]});
    let parsed = parse(list);
    let kinds: Vec<_> = parsed
        .manifests
        .iter()
        .map(|manifest| match manifest {
            Manifest::Object(Object::Namespace(_)) => "Namespace",
            Manifest::Object(Object::Pod(_)) => "Pod",
            Manifest::Other { kind, .. } => kind,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(kinds, ["Namespace", "ConfigMap", "Pod"]);
    let messages: Vec<_> = parsed.unreadable.iter().map(ToString::to_string).collect();
    assert_eq!(
        messages,
        [
            "Pod a/bad: spec.containers cannot be read",
            "Pod a/odd: status.podIP is \"no\", expected an IPv4 or IPv6 address",
            "Pod a/without a name: metadata.name is missing",
            "the document has no items[4].apiVersion: every Kubernetes object has apiVersion and kind",
            "the document has no items[5].kind: every Kubernetes object has apiVersion and kind",
        ]
    );
}

#[test]
fn fields_that_the_api_does_not_have_are_named() {
    let parsed = parse(json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"namespace": "a", "name": "p", "labels": null},
        "spec": {"podSelector": {}, "ingres": [], "egress": [{"to": [{"podSelector": {}, "cidr": "x"}]}]},
    }));
    let fields: Vec<_> = parsed
        .unknown_fields
        .iter()
        .map(|unknown| unknown.field.as_str())
        .collect();
    assert_eq!(fields, ["spec.egress[0].to[0].cidr", "spec.ingres"]);
    assert_eq!(parsed.manifests.len(), 1);
    assert!(parse(serde_json::Value::Null).manifests.is_empty());
}

#[test]
fn a_template_stands_for_a_workload_without_pods_under_a_name_of_its_own() {
    let template = "template: {metadata: {labels: {app: web}}, spec: {containers: []}}";
    let text = format!(
        "{{apiVersion: v1, kind: List, items: [
          {{apiVersion: apps/v1, kind: Deployment, metadata: {{namespace: a, name: web}}, spec: {{selector: {{}}, {template}}}}},
          {{apiVersion: batch/v1, kind: CronJob, metadata: {{namespace: a, name: web}}, spec: {{schedule: x, jobTemplate: {{spec: {{{template}}}}}}}}},
          {{apiVersion: apps/v1, kind: ReplicaSet, metadata: {{namespace: a, name: web-1, ownerReferences: [{{apiVersion: apps/v1, kind: Deployment, name: web, uid: u, controller: true}}]}}, spec: {{selector: {{}}, {template}}}}},
          {{apiVersion: batch/v1, kind: Job, metadata: {{namespace: a, name: begun}}, spec: {{{template}}}, status: {{startTime: 2026-01-01T00:00:00Z}}}},
          {{apiVersion: apps/v1, kind: Deployment, metadata: {{namespace: a, name: odd}}, spec: {{selector: {{}}, template: {{spec: {{containers: [{{name: c, ports: [{{name: http}}]}}]}}}}}}}},
        ]}}"
    );
    let parsed = parse(serde_yaml::from_str(&text).unwrap());
    assert_eq!(
        parsed.manifests.len(),
        5,
        "a bad template does not take its workload along"
    );
    assert_eq!(
        parsed.unreadable[0].to_string(),
        "Deployment a/odd: spec.containers[c].ports[0].containerPort is missing"
    );
    let names = |pods: Vec<Pod>| pods.into_iter().map(|pod| pod.name.to_string()).collect::<Vec<_>>();
    let mut cluster = Cluster::new([]);
    for manifest in parsed.manifests {
        let Manifest::Object(object) = manifest else { continue };
        cluster.observe(object, Timestamp::UNIX_EPOCH);
    }
    assert_eq!(
        names(stand_ins(&cluster, parsed.declared.clone())),
        ["web", "cronjob-web"]
    );
    let mut live = parsed.declared[0].clone();
    live.name = "web-1-x".into();
    cluster.observe(Object::Pod(live), Timestamp::UNIX_EPOCH);
    assert_eq!(
        names(stand_ins(&cluster, parsed.declared)),
        ["web"],
        "the Deployment has a pod"
    );
}

#[test]
fn a_kind_of_kubernetes_in_another_of_its_apis_is_told() {
    let found = |api_version: &str, kind: &str| {
        let object =
            json!({"apiVersion": api_version, "kind": kind, "metadata": {"namespace": "a", "name": "x"}, "spec": {}});
        match parse(object).manifests.pop() {
            Some(Manifest::OtherVersion {
                object,
                found,
                expected,
            }) => Some(format!("{object} {found} {expected}")),
            Some(Manifest::Other { .. }) => None,
            other => panic!("{other:?}"),
        }
    };
    for (api_version, kind, expected) in [
        ("extensions/v1beta1", "NetworkPolicy", "networking.k8s.io/v1"),
        ("v1", "NetworkPolicy", "networking.k8s.io/v1"),
        ("extensions/v1beta1", "Deployment", "apps/v1"),
        ("apps/v1beta2", "StatefulSet", "apps/v1"),
        ("v1", "DaemonSet", "apps/v1"),
        ("apps/v1", "Pod", "v1"),
        ("v1beta3", "ReplicationController", "v1"),
        ("batch/v1beta1", "CronJob", "batch/v1"),
        ("discovery.k8s.io/v1beta1", "EndpointSlice", "discovery.k8s.io/v1"),
    ] {
        let expected = format!("{kind} a/x {api_version} {expected}");
        assert_eq!(found(api_version, kind), Some(expected), "{api_version} {kind}");
    }
    for (api_version, kind) in [
        ("serving.knative.dev/v1", "Service"),
        ("batch.volcano.sh/v1alpha1", "Job"),
        ("extensions/v1beta1", "Ingress"),
        ("v1", "ConfigMap"),
    ] {
        assert_eq!(found(api_version, kind), None, "{api_version} {kind}");
    }
}

#[test]
fn policies_of_other_makers_are_told() {
    for (api_version, kind) in [
        ("cilium.io/v2", "CiliumNetworkPolicy"),
        ("projectcalico.org/v3", "GlobalNetworkPolicy"),
        ("policy.networking.k8s.io/v1alpha1", "ClusterNetworkPolicy"),
        ("k8s.ovn.org/v1", "UserDefinedNetwork"),
        ("k8s.ovn.org/v1", "EgressFirewall"),
        ("networking.k8s.aws/v1alpha1", "ClusterNetworkPolicy"),
    ] {
        let mut parsed = parse(json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "x"}}));
        let manifest = parsed.manifests.pop();
        assert!(
            matches!(manifest, Some(Manifest::OtherPolicy(_))),
            "{api_version} {kind}: {manifest:?}"
        );
    }
}

#[test]
fn workloads_of_other_makers_have_templates_too() {
    let template = "template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, ports: [{containerPort: 80, name: http}], imagePolicy: x}]}}";
    let text = format!(
        "{{apiVersion: v1, kind: List, items: [
          {{apiVersion: apps.openshift.io/v1, kind: DeploymentConfig, metadata: {{namespace: a, name: web}}, spec: {{replicas: 2, selector: {{app: web}}, triggers: [], {template}}}}},
          {{apiVersion: argoproj.io/v1alpha1, kind: Rollout, metadata: {{namespace: a, name: api}}, spec: {{selector: {{matchLabels: {{app: web}}}}, strategy: {{canary: {{}}}}, {template}}}}},
          {{apiVersion: argoproj.io/v1alpha1, kind: Rollout, metadata: {{namespace: a, name: off}}, spec: {{replicas: 0, {template}}}}},
          {{apiVersion: argoproj.io/v1alpha1, kind: Rollout, metadata: {{namespace: a, name: elsewhere}}, spec: {{workloadRef: {{kind: Deployment, name: x}}}}}},
          {{apiVersion: argoproj.io/v1alpha1, kind: Rollout, metadata: {{namespace: a, name: bad}}, spec: {{template: {{spec: {{containers: none}}}}}}}},
        ]}}"
    );
    let parsed = parse(serde_yaml::from_str(&text).unwrap());
    let unknown: BTreeSet<_> = parsed
        .unknown_fields
        .iter()
        .map(|unknown| unknown.field.as_str())
        .collect();
    assert_eq!(unknown, ["spec.template.spec.containers[0].imagePolicy"].into());
    let unreadable: Vec<_> = parsed.unreadable.iter().map(ToString::to_string).collect();
    assert_eq!(
        unreadable,
        ["Rollout a/bad: spec.template.spec.containers cannot be read"]
    );
    let app = labels([("app", "web")]);
    let controllers: Vec<_> = parsed
        .manifests
        .iter()
        .map(|manifest| match manifest {
            Manifest::Object(Object::Controller(controller)) => {
                let Controller {
                    kind,
                    name,
                    selector,
                    template_labels,
                    ..
                } = controller;
                (
                    kind.as_str(),
                    name.as_str(),
                    **selector == app,
                    **template_labels == app,
                )
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        controllers,
        [
            ("DeploymentConfig", "web", true, true),
            ("Rollout", "api", true, true),
            ("Rollout", "off", false, true),
            ("Rollout", "elsewhere", false, false),
        ]
    );
    let declared: Vec<_> = parsed
        .declared
        .iter()
        .map(|pod| (&*pod.name, pod.labels.clone(), pod.ports.len()))
        .collect();
    assert_eq!(declared, [("web", app.clone().into(), 1), ("api", app.into(), 1)]);
}

#[test]
fn what_the_older_yaml_has_as_numbers_and_booleans_is_read_as_them() {
    let parsed = parse(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"namespace": "a", "name": "web", "labels": {"on": "yes", "mode": "0400"}},
        "spec": {"selector": {}, "template": {"spec": {
            "hostNetwork": "yes", "automountServiceAccountToken": "Off",
            "containers": [{"name": "c", "ports": [{"containerPort": "0120"}]}],
            "volumes": [{"name": "v", "secret": {"secretName": "s", "defaultMode": "0400"}}],
        }}},
    }));
    assert!(parsed.unreadable.is_empty(), "{:?}", parsed.unreadable);
    assert!(parsed.unknown_fields.is_empty(), "{:?}", parsed.unknown_fields);
    let pod = &parsed.declared[0];
    assert!(pod.host_network);
    assert_eq!(pod.ports.iter().next().unwrap().number, 0o120);
    for port in ["80", "08", "0x50", "0-7", "yes"] {
        let parsed = parse(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
            "spec": {"containers": [{"name": "c", "ports": [{"containerPort": port}]}]},
        }));
        assert_eq!(
            parsed.unreadable[0].to_string(),
            "Pod web: spec.containers[0].ports[0].containerPort cannot be read",
            "{port}"
        );
    }
}

#[test]
fn a_slice_of_nobody_is_no_fault() {
    let parsed = parse(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "x"}, "addressType": "IPv4",
        "endpoints": [{"addresses": ["192.0.2.1"]}],
    }));
    assert!(parsed.unreadable.is_empty(), "{:?}", parsed.unreadable);
    assert_eq!(parsed.manifests.len(), 1);
}

#[test]
fn a_template_in_quotes_is_told() {
    for (api_version, kind) in [
        ("v1", "Pod"),
        ("networking.k8s.io/v1", "NetworkPolicy"),
        ("apps/v1", "Deployment"),
    ] {
        let parsed = parse(json!({
            "apiVersion": api_version, "kind": kind, "metadata": {"namespace": "a", "name": "{{ .Release.Name }}-web"},
            "spec": {"containers": [], "selector": {}, "podSelector": {}, "template": {}},
        }));
        assert!(parsed.manifests.is_empty(), "{:?}", parsed.manifests);
        assert_eq!(
            parsed.unreadable[0].to_string(),
            format!(
                "{kind} a/{{{{ .Release.Name }}}}-web: metadata.name is \"{{{{ .Release.Name }}}}-web\", expected a name: a template has to be rendered first"
            )
        );
    }
}

#[test]
fn what_has_labels_that_no_api_server_takes_is_left_out() {
    let text = "{apiVersion: v1, kind: List, items: [
          {apiVersion: apps/v1, kind: StatefulSet, metadata: {namespace: a, name: db}, spec: {selector: {}, template: {metadata: {labels: {app/: db}}, spec: {containers: []}}}},
          {apiVersion: v1, kind: Pod, metadata: {namespace: a, name: bare, labels: {app: 'a b'}}, spec: {containers: []}},
          {apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {'': x}}},
          {apiVersion: v1, kind: Pod, metadata: {namespace: a, name: good, labels: {example.com/app: '', tier: x_y.z}}, spec: {containers: []}},
        ]}";
    let parsed = parse(serde_yaml::from_str(text).unwrap());
    let expected =
        "expected key and value of letters, digits and -_. within, 63 at most, the key perhaps behind a domain and /";
    let told: Vec<String> = parsed.unreadable.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            format!("StatefulSet a/db: metadata.labels of the pod template is \"app/: db\", {expected}"),
            format!("Pod a/bare: metadata.labels is \"app: a b\", {expected}"),
            format!("Namespace a: metadata.labels is \": x\", {expected}"),
        ]
    );
    assert_eq!(parsed.manifests.len(), 1, "the good one alone");
    assert!(parsed.declared.is_empty());
}

#[test]
fn what_is_in_a_namespace_that_no_selector_can_name_is_left_out() {
    for (name, taken) in [("shop-1", true), ("shop-", false), ("sh op", false)] {
        let pod =
            serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": name, "name": "web"}});
        let parsed = parse(pod);
        assert_eq!(
            (parsed.manifests.len(), parsed.unreadable.is_empty()),
            (usize::from(taken), taken),
            "{name}"
        );
    }
}
