//! Who an end of a connection is.

use std::collections::BTreeSet;
use std::net::IpAddr;

use jiff::Timestamp;
use nanoseg_graph::cluster::{AddressOwner, Cluster, Pod, PodPhase};

use super::verdict::{End, Undecidable};

/// An end, found in the cluster.
#[derive(Debug)]
pub(super) enum Party<'a> {
    Pod {
        pod: &'a Pod,
        v4: Option<IpAddr>,
        v6: Option<IpAddr>,
    },
    Node {
        name: String,
        address: IpAddr,
    },
    Outside(IpAddr),
}

impl<'a> Party<'a> {
    pub(super) fn find(end: &End, cluster: &'a Cluster) -> Result<Self, Undecidable> {
        let by_address = |address: IpAddr| {
            let address = address.to_canonical();
            let owners = cluster.owners_of(address, Timestamp::MAX, Timestamp::MAX);
            Self::of_address(address, owners, cluster)
        };
        let pod = match end {
            End::Address(address) => return by_address(*address),
            End::Pod { namespace, name } => cluster.pod(namespace, name),
            // A pod that is gone is remembered by its UID, but nothing can connect to it.
            End::Uid(uid) => cluster.pod_by_uid(uid).filter(|pod| {
                cluster
                    .pod(&pod.namespace, &pod.name)
                    .is_some_and(|live| live.uid == pod.uid)
            }),
        };
        let pod = pod.ok_or_else(|| Undecidable::NoSuchPod(end.clone()))?;
        if pod.phase == PodPhase::Finished {
            return Err(Undecidable::Finished(end.clone()));
        }
        if pod.addresses.is_empty() {
            return Err(Undecidable::NoAddress(end.clone()));
        }
        Ok(Self::Pod {
            pod,
            v4: pod.addresses.iter().copied().find(IpAddr::is_ipv4),
            v6: pod.addresses.iter().copied().find(IpAddr::is_ipv6),
        })
    }

    fn of_address(address: IpAddr, owners: BTreeSet<AddressOwner>, cluster: &'a Cluster) -> Result<Self, Undecidable> {
        let mut found = Self::Outside(address);
        for owner in owners {
            match owner {
                AddressOwner::Pod(uid) => {
                    if let Some(pod) = cluster.pod_by_uid(&uid) {
                        let of_family = |is: bool| is.then_some(address);
                        return Ok(Self::Pod {
                            pod,
                            v4: of_family(address.is_ipv4()),
                            v6: of_family(address.is_ipv6()),
                        });
                    }
                }
                AddressOwner::Node(name) => found = Self::Node { name, address },
                AddressOwner::Service(name) => return Err(Undecidable::ServiceAddress(name)),
            }
        }
        Ok(found)
    }

    /// The pod, if it is one.
    pub(super) const fn pod(&self) -> Option<&'a Pod> {
        match self {
            Self::Pod { pod, .. } => Some(pod),
            Self::Node { .. } | Self::Outside(_) => None,
        }
    }

    /// Its addresses: IPv4, IPv6.
    pub(super) fn addresses(&self) -> [Option<IpAddr>; 2] {
        match self {
            Self::Pod { v4, v6, .. } => [*v4, *v6],
            Self::Node { address, .. } | Self::Outside(address) => {
                if address.is_ipv4() {
                    [Some(*address), None]
                } else {
                    [None, Some(*address)]
                }
            }
        }
    }

    /// The node whose network it uses.
    pub(super) fn on_network_of(&self) -> Option<&str> {
        match self {
            Self::Pod { pod, .. } if pod.host_network => pod.node.as_deref(),
            Self::Node { name, .. } => Some(name),
            Self::Pod { .. } | Self::Outside(_) => None,
        }
    }

    /// The end that names it in an answer.
    pub(super) fn end(&self) -> End {
        match self {
            Self::Pod { pod, .. } => End::Pod {
                namespace: pod.namespace.clone(),
                name: pod.name.clone(),
            },
            Self::Node { address, .. } | Self::Outside(address) => End::Address(*address),
        }
    }
}
