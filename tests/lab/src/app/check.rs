//! Whether the parts of a description fit together.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use super::{
    App, Backing, Call, ExternalHost, Families, File, HostName, Kind, Labels, Listen, Name, Namespace, ObjectName,
    Protocol, Service, Target, TargetPort, When, Workload, selects,
};
use crate::addresses;

/// Namespaces that every cluster has.
const BUILT_IN_NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];
/// Most calls of one pod: each is a thread of its own.
const MOST_CALLS: usize = 200;
/// Most pods: the small lab gives each a network namespace and a process.
const MOST_PODS: u32 = 1000;
/// Most hosts outside the cluster: assigned addresses end in one byte.
const MOST_EXTERNAL_HOSTS: usize = 200;
/// Shortest time from one call to the next: below it the lab measures itself.
const SHORTEST_PERIOD: Duration = Duration::from_millis(20);
/// The range from which the API server takes node ports.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30000..=32767;

/// Something that is wrong with a description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The object, such as `workload shop/web`.
    pub object: String,
    /// The field, such as `calls[2].to`.
    pub field: String,
    /// What is wrong with it.
    pub fault: Fault,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.object, self.field, self.fault)
    }
}

/// A line for each problem.
pub(super) fn listed(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(|problem| format!("\n  {problem}")).collect();
    lines.concat()
}

/// What can be wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A second object of one name.
    #[error("there is another one of this name")]
    Twice,
    /// The lab makes an object of this name itself.
    #[error("the lab makes this one itself; choose another name")]
    Reserved,
    /// A reference that leads nowhere.
    #[error("{0} is not in this file")]
    Missing(String),
    /// A label that the API server would refuse.
    #[error(
        "label `{0}` is not a Kubernetes label: key of at most 63 letters, digits, dashes, dots and underscores with an optional host name and `/` before it, value likewise or empty"
    )]
    BadLabel(String),
    /// The selector of a workload does not select its own pods.
    #[error("does not select the workload's own pods: `{0}` is not among its labels")]
    SelectsOthers(String),
    /// A selector without labels selects everything.
    #[error("is empty")]
    Empty,
    /// The field has no meaning for this kind.
    #[error("a {0} has none")]
    NotForKind(&'static str),
    /// A number out of its range.
    #[error("{0}")]
    OutOfRange(String),
    /// A Service that does not have the port that is called.
    #[error("Service {service} has no port {port}/{protocol}")]
    NoSuchPort {
        /// The Service.
        service: ObjectName,
        /// The port that is called.
        port: u16,
        /// Its protocol.
        protocol: &'static str,
    },
    /// No pod behind the Service has the named port.
    #[error("no workload behind the Service has a port named `{0}` for this protocol")]
    NoSuchPortName(String),
    /// The target has no address of the family.
    #[error("has no address of this family")]
    NoAddressOfFamily,
    /// Not an address that may be used here.
    #[error(
        "{0} is not an address for a host outside the cluster: use 198.18.64.0 to 198.18.255.255, 198.19.16.0 to 198.19.255.255 or fd00::/8 without fd00:18::/32 and fd00:19::/112"
    )]
    BadAddress(IpAddr),
    /// Something else listens on the same port of the node.
    #[error("{0} listens on it as well, and both use the node's network")]
    NodePortTaken(String),
    /// A host outside asks for a name of the cluster.
    #[error("a host outside the cluster does not know the cluster's names: call external/, nodeport/ or an address")]
    NameFromOutside,
    /// Not a cron schedule.
    #[error("`{0}` is not a schedule: five fields as cron has them, such as */1 * * * *")]
    BadSchedule(String),
}

#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, object: &str, field: impl Into<String>, fault: Fault) {
        self.0.push(Problem {
            object: object.to_owned(),
            field: field.into(),
            fault,
        });
    }
}

/// Who wrote a description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Author {
    /// A person.
    User,
    /// The lab, for its own parts.
    Lab,
}

pub(super) fn fit(file: File, author: Author) -> Result<App, Vec<Problem>> {
    let File {
        namespaces,
        mut workloads,
        services,
        mut external,
    } = file;
    for workload in &mut workloads {
        if workload.labels.is_empty() {
            workload.labels.insert("app".to_owned(), workload.name.to_string());
        }
    }
    for (host, index) in external.iter_mut().zip(1..=u8::MAX) {
        if host.addresses.is_empty() {
            host.addresses = addresses::assigned_external(index).to_vec();
        }
    }
    let app = App {
        namespaces,
        workloads,
        services,
        external,
    };
    let mut problems = Problems::default();
    check_namespaces(&app, &mut problems);
    for workload in &app.workloads {
        check_workload(&app, workload, &mut problems);
    }
    check_node_network(&app, &mut problems);
    let pods: u32 = app
        .workloads
        .iter()
        .map(|workload| u32::from(workload.pods_on(1)))
        .sum();
    if pods > MOST_PODS {
        let text = format!("{pods} pods in all are more than the {MOST_PODS} that fit on one machine");
        problems.add("workloads", "replicas", Fault::OutOfRange(text));
    }
    let mut node_ports = BTreeSet::new();
    for service in &app.services {
        check_service(&app, service, &mut node_ports, &mut problems);
    }
    if app.external.len() > MOST_EXTERNAL_HOSTS {
        let text = format!("more than {MOST_EXTERNAL_HOSTS} hosts");
        problems.add("external", "length", Fault::OutOfRange(text));
    }
    let mut taken = BTreeSet::new();
    for host in &app.external {
        check_external(&app, host, &mut taken, &mut problems);
    }
    duplicates(&app, &mut problems);
    if app.workloads.is_empty() {
        problems.add("workloads", "length", Fault::Empty);
    }
    if author == Author::User {
        reserved(&app, &mut problems);
    }
    if problems.0.is_empty() {
        Ok(app)
    } else {
        Err(problems.0)
    }
}

/// Names of what the labs add themselves.
fn reserved(app: &App, problems: &mut Problems) {
    let objects = app
        .workloads
        .iter()
        .map(|workload| format!("workload {}", workload.id()))
        .chain(app.services.iter().map(|service| format!("service {}", service.id())))
        .chain(app.external.iter().map(|host| format!("external {}", host.name)));
    for object in objects {
        if matches!(
            object.as_str(),
            "workload kube-system/coredns"
                | "service kube-system/kube-dns"
                | "service default/kubernetes"
                | "external kube-apiserver"
        ) {
            problems.add(&object, "name", Fault::Reserved);
        }
    }
}

fn duplicates(app: &App, problems: &mut Problems) {
    let mut seen = BTreeSet::new();
    let objects = app
        .namespaces
        .iter()
        .map(|namespace| format!("namespace {}", namespace.name))
        .chain(
            app.workloads
                .iter()
                .map(|workload| format!("workload {}", workload.id())),
        )
        .chain(app.services.iter().map(|service| format!("service {}", service.id())))
        .chain(app.external.iter().map(|host| format!("external {}", host.name)));
    for object in objects {
        if !seen.insert(object.clone()) {
            problems.add(&object, "name", Fault::Twice);
        }
    }
}

fn check_namespaces(app: &App, problems: &mut Problems) {
    for Namespace { name, labels } in &app.namespaces {
        let object = format!("namespace {name}");
        check_labels(&object, labels, problems);
    }
}

fn check_in_namespace(app: &App, object: &str, namespace: &Name, problems: &mut Problems) {
    let known = BUILT_IN_NAMESPACES.contains(&namespace.as_str())
        || app.namespaces.iter().any(|declared| declared.name == *namespace);
    if !known {
        problems.add(object, "namespace", Fault::Missing(format!("namespace {namespace}")));
    }
}

fn check_labels(object: &str, labels: &Labels, problems: &mut Problems) {
    for (key, value) in labels {
        if !is_label(key, value) {
            problems.add(object, "labels", Fault::BadLabel(format!("{key}: {value}")));
        }
    }
}

fn is_label(key: &str, value: &str) -> bool {
    let edge = |byte: u8| byte.is_ascii_alphanumeric();
    let word = |text: &str| {
        text.len() <= 63
            && text
                .bytes()
                .all(|byte| edge(byte) || matches!(byte, b'-' | b'_' | b'.'))
            && text.bytes().next().is_some_and(edge)
            && text.bytes().last().is_some_and(edge)
    };
    let key_fits = match key.split_once('/') {
        Some((prefix, name)) => HostName::try_from(prefix.to_owned()).is_ok() && word(name),
        None => word(key),
    };
    key_fits && (value.is_empty() || word(value))
}

fn check_workload(app: &App, workload: &Workload, problems: &mut Problems) {
    let id = workload.id();
    let object = format!("workload {id}");
    check_in_namespace(app, &object, &workload.namespace, problems);
    check_labels(&object, &workload.labels, problems);
    if let Some(selector) = &workload.selector {
        if selector.is_empty() {
            problems.add(&object, "selector", Fault::Empty);
        }
        for (key, value) in selector {
            if workload.labels.get(key) != Some(value) {
                problems.add(&object, "selector", Fault::SelectsOthers(format!("{key}: {value}")));
            }
        }
        if workload.kind.ends() || workload.kind == Kind::Pod {
            problems.add(&object, "selector", Fault::NotForKind(workload.kind.as_str()));
        }
    }
    if workload.replicas.is_some() && !matches!(workload.kind, Kind::Deployment | Kind::StatefulSet) {
        problems.add(&object, "replicas", Fault::NotForKind(workload.kind.as_str()));
    }
    match (&workload.schedule, workload.kind) {
        (Some(schedule), Kind::CronJob) if schedule.split_whitespace().count() != 5 => {
            problems.add(&object, "schedule", Fault::BadSchedule(schedule.clone()));
        }
        (Some(_), kind) if kind != Kind::CronJob => {
            problems.add(&object, "schedule", Fault::NotForKind(kind.as_str()));
        }
        _ => {}
    }
    if workload.lasts.is_some() && !workload.kind.ends() {
        problems.add(&object, "lasts", Fault::NotForKind(workload.kind.as_str()));
    }
    check_listens(&object, &workload.listens, problems);
    check_calls(app, &object, &workload.calls, problems);
}

fn check_listens(object: &str, listens: &[Listen], problems: &mut Problems) {
    let mut ports = BTreeSet::new();
    let mut names = BTreeSet::new();
    for (index, Listen { port, name, protocol }) in listens.iter().enumerate() {
        if !ports.insert((*protocol, *port)) {
            problems.add(object, format!("listens[{index}].port"), Fault::Twice);
        }
        if name.as_ref().is_some_and(|name| !names.insert(name)) {
            problems.add(object, format!("listens[{index}].name"), Fault::Twice);
        }
    }
}

fn check_node_network(app: &App, problems: &mut Problems) {
    let mut taken: BTreeMap<_, String> = BTreeMap::new();
    for workload in app.workloads.iter().filter(|workload| workload.host_network) {
        let object = format!("workload {}", workload.id());
        if workload.pods_on(1) > 1 && !workload.listens.is_empty() {
            let text = "with hostNetwork and a port, only one pod fits on a node: use kind DaemonSet".to_owned();
            problems.add(&object, "replicas", Fault::OutOfRange(text));
        }
        for (index, listen) in workload.listens.iter().enumerate() {
            if let Some(other) = taken.insert((listen.protocol, listen.port), object.clone()) {
                problems.add(&object, format!("listens[{index}].port"), Fault::NodePortTaken(other));
            }
        }
    }
}

fn check_calls(app: &App, object: &str, calls: &[Call], problems: &mut Problems) {
    if calls.len() > MOST_CALLS {
        problems.add(object, "calls", Fault::OutOfRange(format!("more than {MOST_CALLS}")));
    }
    for (index, call) in calls.iter().enumerate() {
        let field = |name: &str| format!("calls[{index}].{name}");
        if call.port.is_none() && call.to != Target::ApiServer {
            problems.add(object, field("port"), Fault::Empty);
        }
        if call.every < SHORTEST_PERIOD {
            problems.add(
                object,
                field("every"),
                Fault::OutOfRange("shorter than 20ms".to_owned()),
            );
        }
        let missing = |what: String| Fault::Missing(what);
        match &call.to {
            Target::Service(id) => match app.service(id) {
                None => problems.add(object, field("to"), missing(format!("service {id}"))),
                Some(service) => check_call_of_service(object, index, call, service, problems),
            },
            Target::NodePort(id) => match app.service(id) {
                None => problems.add(object, field("to"), missing(format!("service {id}"))),
                Some(service) => {
                    let open = service
                        .ports
                        .iter()
                        .any(|port| port.node_port == Some(call.port()) && port.protocol == call.protocol);
                    if !open {
                        let (port, protocol) = (call.port().get(), call.protocol.as_str());
                        let fault = Fault::NoSuchPort {
                            service: id.clone(),
                            port,
                            protocol,
                        };
                        problems.add(object, field("port"), fault);
                    }
                }
            },
            Target::Workload(id) => {
                if app.workload(id).is_none() {
                    problems.add(object, field("to"), missing(format!("workload {id}")));
                }
            }
            Target::External(name) => match app.external_host(name) {
                None => problems.add(object, field("to"), missing(format!("external {name}"))),
                Some(host) => {
                    if !host.addresses.iter().any(|address| call.family.has(*address)) {
                        problems.add(object, field("family"), Fault::NoAddressOfFamily);
                    }
                }
            },
            Target::Address(address) => {
                // An address says its family itself, so only a contradiction that was written is a fault.
                if call.family == Families::V6 && address.is_ipv4() {
                    problems.add(object, field("family"), Fault::NoAddressOfFamily);
                }
            }
            Target::ApiServer => {
                if call.family == Families::V6 {
                    problems.add(object, field("family"), Fault::NoAddressOfFamily);
                }
            }
            Target::Name(_) => {}
        }
    }
}

fn check_call_of_service(object: &str, index: usize, call: &Call, service: &Service, problems: &mut Problems) {
    if matches!(service.backing, Backing::ExternalName(_)) {
        return;
    }
    let family_fits = match call.family {
        Families::V4 => service.families.v4(),
        Families::V6 => service.families.v6(),
        Families::Both => service.families == Families::Both,
    };
    if !family_fits {
        problems.add(object, format!("calls[{index}].family"), Fault::NoAddressOfFamily);
    }
    // Whoever probes may well ask for what is not there.
    let open = service
        .ports
        .iter()
        .any(|port| port.port == call.port() && port.protocol == call.protocol);
    if !open && !service.headless && call.when == When::Always {
        let (port, protocol) = (call.port().get(), call.protocol.as_str());
        let fault = Fault::NoSuchPort {
            service: service.id(),
            port,
            protocol,
        };
        problems.add(object, format!("calls[{index}].port"), fault);
    }
}

fn check_service(app: &App, service: &Service, node_ports: &mut BTreeSet<(Protocol, u16)>, problems: &mut Problems) {
    let id = service.id();
    let object = format!("service {id}");
    check_in_namespace(app, &object, &service.namespace, problems);
    match &service.backing {
        Backing::Workload(name) => {
            if app.selector_of(service).is_none() {
                let missing = format!("workload {}/{name}", service.namespace);
                problems.add(&object, "selects.workload", Fault::Missing(missing));
                return;
            }
        }
        Backing::Labels(labels) => {
            if labels.is_empty() {
                problems.add(&object, "selects.labels", Fault::Empty);
            }
            check_labels(&object, labels, problems);
        }
        Backing::External(name) => {
            if app.external_host(name).is_none() {
                problems.add(&object, "external", Fault::Missing(format!("external {name}")));
            }
        }
        Backing::ExternalName(_) => {}
    }
    let mut ports = BTreeSet::new();
    let mut names = BTreeSet::new();
    for (index, port) in service.ports.iter().enumerate() {
        if !ports.insert((port.protocol, port.port)) {
            problems.add(&object, format!("ports[{index}].port"), Fault::Twice);
        }
        if port.name.as_ref().is_some_and(|name| !names.insert(name)) {
            problems.add(&object, format!("ports[{index}].name"), Fault::Twice);
        }
        if let Some(number) = port.node_port {
            if !NODE_PORTS.contains(&number.get()) {
                let text = format!("{number} is not from {} to {}", NODE_PORTS.start(), NODE_PORTS.end());
                problems.add(&object, format!("ports[{index}].nodePort"), Fault::OutOfRange(text));
            }
            if !node_ports.insert((port.protocol, number.get())) {
                problems.add(&object, format!("ports[{index}].nodePort"), Fault::Twice);
            }
        }
        if let TargetPort::Name(name) = port.target() {
            let has = |listen: &Listen| listen.name.as_ref() == Some(&name) && listen.protocol == port.protocol;
            let found = match &service.backing {
                Backing::External(host) => app.external_host(host).is_some_and(|host| host.listens.iter().any(has)),
                _ => app.workloads.iter().any(|workload| {
                    workload.namespace == service.namespace
                        && app
                            .selector_of(service)
                            .is_some_and(|selector| selects(selector, &workload.labels))
                        && workload.listens.iter().any(has)
                }),
            };
            if !found {
                let fault = Fault::NoSuchPortName(name.to_string());
                problems.add(&object, format!("ports[{index}].target"), fault);
            }
        }
    }
}

fn check_external(app: &App, host: &ExternalHost, taken: &mut BTreeSet<IpAddr>, problems: &mut Problems) {
    let object = format!("external {}", host.name);
    for (index, address) in host.addresses.iter().enumerate() {
        if !addresses::is_external(*address) {
            problems.add(&object, format!("addresses[{index}]"), Fault::BadAddress(*address));
        } else if !taken.insert(*address) {
            problems.add(&object, format!("addresses[{index}]"), Fault::Twice);
        }
    }
    check_listens(&object, &host.listens, problems);
    check_calls(app, &object, &host.calls, problems);
    for (index, call) in host.calls.iter().enumerate() {
        if matches!(
            call.to,
            Target::Service(_) | Target::Workload(_) | Target::Name(_) | Target::ApiServer
        ) {
            problems.add(&object, format!("calls[{index}].to"), Fault::NameFromOutside);
        }
    }
}
