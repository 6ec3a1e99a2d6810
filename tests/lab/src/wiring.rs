//! Who finds whom where: a described application turned into what each of its processes is to do.
//!
//! Guarantee: both labs run the same peers, because both get their configurations here.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::app::{
    App, Backing, Call, ExternalHost, Families, HostName, Kind, Name, ObjectName, Service, ServicePort, Target,
    TargetPort, Workload,
};
use crate::peer::{PeerCall, PeerConfig, PeerListen, Place};

/// A pod that ends waits so long at least, so that whoever looks at it has seen it run.
const SHORTEST_LIFE: std::time::Duration = std::time::Duration::from_millis(200);

/// An application among the nodes on which it runs.
#[derive(Clone, Debug)]
pub struct Wiring<'a> {
    app: &'a App,
    nodes: Vec<IpAddr>,
    services: Vec<Service>,
}

impl<'a> Wiring<'a> {
    /// `nodes` are the nodes' addresses, where node ports are called.
    pub fn new(app: &'a App, nodes: Vec<IpAddr>) -> Self {
        let mut services = app.services.clone();
        services.extend(directories(app));
        Self { app, nodes, services }
    }

    /// The application.
    pub const fn app(&self) -> &'a App {
        self.app
    }

    /// The described Services, and a headless one for each workload whose pods are called directly and that has none yet:
    /// its pods are found by it, and no traffic passes through it.
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// What the pods of a workload do.
    pub fn peer(&self, workload: &Workload) -> PeerConfig {
        let mut config = self.config(workload.id().to_string(), &workload.listens, &workload.calls);
        if workload.kind.ends() {
            config.ends_after = Some(workload.lasts.unwrap_or(SHORTEST_LIFE));
        }
        config
    }

    /// What a host outside the cluster does.
    pub fn host(&self, host: &ExternalHost) -> PeerConfig {
        self.config(format!("external/{}", host.name), &host.listens, &host.calls)
    }

    fn config(&self, name: String, listens: &[crate::app::Listen], calls: &[Call]) -> PeerConfig {
        PeerConfig {
            name,
            listens: listens
                .iter()
                .map(|listen| PeerListen {
                    port: listen.port.get(),
                    protocol: listen.protocol,
                })
                .collect(),
            calls: calls.iter().filter_map(|call| self.call(call)).collect(),
            ends_after: None,
            resolver: None,
            zone: None,
            ledger: None,
            supervised: false,
        }
    }

    /// `None` only for a target that a checked description cannot have.
    fn call(&self, call: &Call) -> Option<PeerCall> {
        let of_family = |addresses: &[IpAddr]| {
            Place::Addresses(
                addresses
                    .iter()
                    .copied()
                    .filter(|address| call.family.has(*address))
                    .collect(),
            )
        };
        let at = match &call.to {
            Target::Service(id) => Place::OneOf(host_name(id)?),
            Target::Workload(id) => Place::EachOf(host_name(&self.directory(id)?)?),
            Target::NodePort(_) => of_family(&self.nodes),
            Target::External(name) => of_family(&self.app.external_host(name)?.addresses),
            Target::Name(name) => Place::OneOf(name.clone()),
            Target::Address(address) => Place::Addresses(vec![*address]),
            Target::ApiServer => Place::OneOf(HostName::try_from("kubernetes.default".to_owned()).ok()?),
        };
        Some(PeerCall {
            to: call.to.to_string(),
            at,
            port: call.port().get(),
            protocol: call.protocol,
            family: call.family,
            every: call.every,
            after: call.after,
            when: call.when,
        })
    }

    /// The headless Service by which a workload's pods are found.
    fn directory(&self, workload: &ObjectName) -> Option<ObjectName> {
        self.services
            .iter()
            .find(|service| is_directory_of(service, workload))
            .map(Service::id)
    }
}

fn host_name(id: &ObjectName) -> Option<HostName> {
    HostName::try_from(format!("{}.{}", id.name, id.namespace)).ok()
}

fn is_directory_of(service: &Service, workload: &ObjectName) -> bool {
    service.headless
        && service.families == Families::Both
        && service.namespace == workload.namespace
        && service.backing == Backing::Workload(workload.name.clone())
}

fn directories(app: &App) -> Vec<Service> {
    let calls = app
        .workloads
        .iter()
        .flat_map(|workload| &workload.calls)
        .chain(app.external.iter().flat_map(|host| &host.calls));
    let called: BTreeSet<&ObjectName> = calls
        .filter_map(|call| match &call.to {
            Target::Workload(id) => Some(id),
            Target::Service(_)
            | Target::NodePort(_)
            | Target::External(_)
            | Target::Name(_)
            | Target::Address(_)
            | Target::ApiServer => None,
        })
        .collect();
    called
        .into_iter()
        .filter(|id| !app.services.iter().any(|service| is_directory_of(service, id)))
        .filter_map(|id| app.workload(id).and_then(directory_of))
        .collect()
}

fn directory_of(workload: &Workload) -> Option<Service> {
    let named = |index: usize| crate::app::PortName::try_from(format!("port-{index}")).ok();
    Some(Service {
        namespace: workload.namespace.clone(),
        name: Name::try_from(format!("{}-pods", workload.name)).ok()?,
        backing: Backing::Workload(workload.name.clone()),
        headless: true,
        families: Families::Both,
        ports: workload
            .listens
            .iter()
            .enumerate()
            .map(|(index, listen)| ServicePort {
                name: named(index),
                port: listen.port,
                target: Some(TargetPort::Number(listen.port)),
                protocol: listen.protocol,
                node_port: None,
            })
            .collect(),
    })
}

/// The headless Service that gives a `StatefulSet`'s pods their names, if the application has one.
pub fn governing_service<'a>(services: &'a [Service], workload: &Workload) -> Option<&'a Service> {
    if workload.kind != Kind::StatefulSet {
        return None;
    }
    services.iter().find(|service| {
        service.headless
            && service.namespace == workload.namespace
            && service.backing == Backing::Workload(workload.name.clone())
    })
}
