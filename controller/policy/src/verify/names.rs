//! Where names are asked for, so that no policy lets a question through and keeps back what follows it: an answer that does not fit
//! into a datagram is asked for again by TCP.

use std::collections::{BTreeMap, BTreeSet};

use nanoseg_graph::cluster::{Cluster, Service, TargetPort};
use nanoseg_graph::connection::Edge;
use nanoseg_graph::endpoint::{Endpoint, Workload};
use nanoseg_graph::flow::Transport;

use crate::synthesize::Settings;

/// Where questions for names go, by its registered number.
const DOMAIN: u16 = 53;

type Listening = BTreeSet<(u16, Transport)>;

/// Who answers questions for names, and where.
pub(super) struct NameServers {
    workloads: BTreeMap<Workload, Listening>,
}

impl NameServers {
    /// The pods behind the Services that are cluster DNS.
    pub(super) fn of(cluster: &Cluster, settings: &Settings) -> Self {
        let mut workloads: BTreeMap<Workload, Listening> = BTreeMap::new();
        for service in settings.dns_services.iter().filter_map(|name| cluster.service(name)) {
            let Some(selector) = &service.selector else { continue };
            for pod in cluster.pods_in(&service.name.namespace) {
                if selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value)) {
                    let named = |name: &str, transport: Transport| {
                        let declared = pod.ports.iter();
                        let mut declared = declared.filter(|port| port.transport == transport);
                        declared
                            .find(|port| port.name.as_deref() == Some(name))
                            .map(|port| port.number)
                    };
                    let listening = listening(service, named);
                    workloads.entry(cluster.workload_of(pod)).or_default().extend(listening);
                }
            }
        }
        Self { workloads }
    }

    /// Where the same questions are asked as by this edge, beside the edge's own port; nowhere if it asks none.
    pub(super) fn beside(&self, edge: Edge<'_>) -> Listening {
        let own = (edge.port, edge.transport);
        let mut places = match edge.destination {
            Endpoint::Workload(workload) => self.workloads.get(workload).cloned().unwrap_or_default(),
            Endpoint::External(_) | Endpoint::Node(_) | Endpoint::Service(_) if own == (DOMAIN, Transport::Udp) => {
                [own, (DOMAIN, Transport::Tcp)].into()
            }
            Endpoint::External(_) | Endpoint::Node(_) | Endpoint::Service(_) | Endpoint::Unknown { .. } => {
                return Listening::new();
            }
        };
        if places.remove(&own) { places } else { Listening::new() }
    }
}

/// The ports behind a Service's port for questions. Servers listen in both transports, whatever a Service says of them.
fn listening(service: &Service, named: impl Fn(&str, Transport) -> Option<u16>) -> Listening {
    let asked = service.ports.iter().filter(|port| port.port == DOMAIN);
    let target = |port: &nanoseg_graph::cluster::ServicePort| {
        let number = match &port.target {
            TargetPort::Number(number) => Some(*number),
            TargetPort::Name(name) => named(name, port.transport),
        };
        number.map(|number| (number, port.transport))
    };
    let told: Listening = asked.filter_map(target).collect();
    let transports: BTreeSet<Transport> = told.iter().map(|(_, transport)| *transport).collect();
    if transports.len() > 1 {
        return told;
    }
    let both = |(number, _): (u16, Transport)| [Transport::Tcp, Transport::Udp].map(|transport| (number, transport));
    told.into_iter().flat_map(both).collect()
}
