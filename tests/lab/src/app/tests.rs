use super::*;

fn parse(text: &str) -> Result<App, AppError> {
    App::parse(text, Path::new("app.yaml"))
}

fn message(text: &str) -> String {
    let error = parse(text).unwrap_err();
    std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// The example in the README is complete and correct.
#[test]
fn readme_example() {
    let readme = include_str!("../../README.md");
    let example = readme.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let app = parse(example).unwrap();
    assert_eq!(app.workloads.len(), 4);
    assert_eq!(app.external[0].addresses.len(), 2, "addresses are assigned");
    assert_eq!(app.workloads[1].labels["app"], "posts", "labels are assigned");
}

/// What the product is to be shown with is in the shop.
#[test]
fn shop_has_every_shape() {
    let app = parse(include_str!("../../shop.yaml")).unwrap();
    let calls = || app.workloads.iter().flat_map(|workload| &workload.calls);
    assert_eq!(app.namespaces.len(), 3);
    for kind in [Kind::Deployment, Kind::StatefulSet, Kind::DaemonSet, Kind::CronJob] {
        assert!(app.workloads.iter().any(|workload| workload.kind == kind), "{kind:?}");
    }
    assert!(calls().any(|call| call.protocol == Protocol::Udp));
    assert!(calls().any(|call| call.family.v6()) && calls().any(|call| call.family.v4()));
    assert!(calls().any(|call| call.to == Target::ApiServer));
    assert!(calls().any(|call| matches!(call.to, Target::Workload(_))));
    assert!(calls().any(|call| matches!(call.to, Target::External(_))));
    assert!(app.services.iter().any(|service| service.headless));
    assert!(
        app.services
            .iter()
            .any(|service| matches!(service.backing, Backing::External(_)))
    );
    let ports = || app.services.iter().flat_map(|service| &service.ports);
    assert!(ports().any(|port| matches!(port.target(), TargetPort::Name(_))));
    assert!(ports().any(|port| matches!(port.target(), TargetPort::Number(number) if number != port.port)));
    let redis: Vec<&Workload> = app
        .workloads
        .iter()
        .filter(|workload| {
            workload
                .labels
                .get("app.kubernetes.io/name")
                .is_some_and(|name| name == "redis")
        })
        .collect();
    assert_eq!(redis.len(), 2, "two releases of one chart");
    let intruder = app.workload(&"shop/intruder".parse().unwrap()).unwrap();
    assert!(
        intruder.calls.iter().all(|call| call.when == When::Told),
        "it is quiet until told"
    );
    assert!(intruder.calls.len() >= 12);
}

#[test]
fn faults_of_form_name_line_and_field() {
    let rows = [
        ("workloads: [{namespace: a, name: b, colour: red}]", "colour"),
        ("workloads: [{namespace: a, name: B}]", "name `B` is not a DNS label"),
        ("workloads: [{namespace: a, name: b, kind: ReplicaSet}]", "ReplicaSet"),
        ("workloads: [{namespace: a, name: b, listens: [{port: 0}]}]", "nonzero"),
        (
            "workloads: [{namespace: a, name: b, listens: [{port: 1, protocol: SCTP}]}]",
            "the lab's kernel has no SCTP",
        ),
        (
            "workloads: [{namespace: a, name: b, calls: [{to: service/x, port: 1}]}]",
            "write NAME.NAMESPACE",
        ),
        (
            "workloads: [{namespace: a, name: b, calls: [{to: somebody, port: 1}]}]",
            "is none of service/NAME.NAMESPACE",
        ),
        (
            "workloads: [{namespace: a, name: b, calls: [{to: apiserver, every: soon}]}]",
            "is not a duration",
        ),
        (
            "workloads: [{namespace: a, name: b, calls: [{to: apiserver, family: 5}]}]",
            "family 5 is not 4, 6 or both",
        ),
        (
            "services: [{namespace: a, name: b, ports: [{port: 1}]}]",
            "service a/b: has one of `selects`",
        ),
        (
            "services: [{namespace: a, name: b, selects: {}, ports: [{port: 1}]}]",
            "`workload: NAME` or `labels: {..}`",
        ),
        (
            "services: [{namespace: a, name: b, selects: {workload: c}}]",
            "service a/b: ports: is empty",
        ),
        (
            "services: [{namespace: a, name: b, selects: {workload: c}, ports: [{port: 1}, {port: 2}]}]",
            "needs a name",
        ),
        (
            "services: [{namespace: a, name: b, selects: {workload: c}, ports: [{port: 1, target: -}]}]",
            "a target is",
        ),
        ("workloads: [", "line 2"),
    ];
    for (text, expected) in rows {
        let message = message(text);
        assert!(message.contains(expected), "{text}: {message}");
        assert!(message.starts_with("app.yaml "), "{message}");
        assert!(message.contains("line "), "{text}: {message}");
    }
}

#[test]
fn a_file_of_something_else() {
    for text in ["- a list", "text"] {
        assert!(message(text).contains("expected the lists"), "{}", message(text));
    }
    for text in ["", "namespaces: []"] {
        assert!(
            message(text).contains("workloads: length: is empty"),
            "{}",
            message(text)
        );
    }
}

#[test]
fn faults_of_meaning_are_reported_together() {
    let message = message(
        "
namespaces: [{name: a}, {name: a}]
workloads:
- {namespace: a, name: one, kind: DaemonSet, replicas: 2, listens: [{port: 1}, {port: 1}]}
- {namespace: a, name: two, labels: {x: y}, selector: {x: z}, calls: [{to: service/none.a, port: 1}, {to: external/none, port: 1}]}
- {namespace: b, name: three, calls: [{to: service/svc.a, port: 81}, {to: apiserver, family: 6}, {to: 198.18.0.1}]}
- {namespace: a, name: four, hostNetwork: true, replicas: 2, listens: [{port: 9}]}
- {namespace: kube-system, name: coredns}
- {namespace: a, name: five, kind: CronJob, schedule: hourly, labels: {'-': y}}
services:
- {namespace: a, name: svc, selects: {workload: one}, ports: [{port: 80, target: http, nodePort: 80}]}
- {namespace: a, name: lost, selects: {workload: nobody}, ports: [{port: 80}]}
external:
- {name: near, addresses: [10.0.0.1, 198.18.0.1]}
- {name: far, calls: [{to: service/svc.a, port: 80}]}
",
    );
    for expected in [
        "namespace a: name: there is another one",
        "workload a/one: replicas: a DaemonSet has none",
        "workload a/one: listens[1].port: there is another one",
        "workload a/two: selector: does not select the workload's own pods: `x: z`",
        "workload a/two: calls[0].to: service a/none is not in this file",
        "workload a/two: calls[1].to: external none is not in this file",
        "workload b/three: namespace: namespace b is not in this file",
        "workload b/three: calls[0].port: Service a/svc has no port 81/TCP",
        "workload b/three: calls[1].family: has no address of this family",
        "workload b/three: calls[2].port: is empty",
        "workload a/four: replicas: with hostNetwork and a port",
        "workload kube-system/coredns: name: the lab makes this one itself",
        "workload a/five: schedule: `hourly` is not a schedule",
        "workload a/five: labels: label `-: y`",
        "service a/svc: ports[0].target: no workload behind the Service has a port named `http`",
        "service a/svc: ports[0].nodePort: 80 is not from 30000 to 32767",
        "service a/lost: selects.workload: workload a/nobody is not in this file",
        "external near: addresses[0]: 10.0.0.1 is not an address for a host outside",
        "external near: addresses[1]: 198.18.0.1 is not an address for a host outside",
        "external far: calls[0].to: a host outside the cluster does not know the cluster's names",
    ] {
        assert!(message.contains(expected), "{expected} is not in:\n{message}");
    }
}

/// Whoever probes asks for what is not there, and that is no mistake.
#[test]
fn an_intruder_may_ask_for_ports_that_no_service_has() {
    let text = "
workloads:
- {namespace: default, name: web, listens: [{port: 80}]}
- {namespace: default, name: intruder, calls: [{to: service/web.default, port: 22, when: told}]}
services: [{namespace: default, name: web, selects: {workload: web}, ports: [{port: 80}]}]
";
    parse(text).unwrap();
}
