//! Policies and pods to numbers.

use std::collections::HashMap;
use std::sync::Arc;

use ipnet::IpNet;
use nanoseg_graph::cluster::{Cluster, Labels, NAMESPACE_NAME, Pod};
use nanoseg_graph::flow::Transport;
use rustc_hash::FxBuildHasher;

use super::super::classes::{ClassIndex, Match, Members};
use super::super::labels::{LabelArena, MeansNothing, Span, texts};
use super::super::policy::{self, Action, OnHost, PolicySet, PortNumbers, Source, Tier};
use super::super::space::Space;
use super::{Class, Compiled, Declared, Governing, NONE, Namespaces, Numbered, Numbers, Peer, Peers, Pods, Port, Rule};
use crate::selector::Selector;

/// Classes that a peer may mean to be looked for once and for all: a peer of more is asked about each class anew, so that what a
/// rule needs stays bounded by its text. Generated policies name one workload a peer, whose pods are one class or, in a rollout, two.
const FEW: usize = 16;

/// What became of the peers that were compiled already: by where their selectors are, or the policy's own namespace.
type Known = HashMap<(Result<*const Selector, u32>, *const Selector, OnHost), Result<Members, Pods>, FxBuildHasher>;

/// What tells pods apart.
type Traits<'a> = (u32, &'a Labels, Vec<(u32, u16, Transport)>, bool);

impl<'a> Compiled<'a> {
    /// `pods` are those of the cluster.
    pub(in super::super) fn new(policies: &'a PolicySet, cluster: &'a Cluster, pods: &[&'a Pod]) -> Self {
        let mut compiled = Self {
            space: Space::new(ranges(policies, cluster)),
            classes: Vec::new(),
            class_of: Vec::with_capacity(pods.len()),
            sources: Vec::new(),
            rules: Vec::new(),
            governing: Vec::new(),
            governings: Vec::new(),
            labels: LabelArena::default(),
            namespaces: Numbers::default(),
            namespace_labels: Vec::new(),
            members: Vec::new(),
            keys: Vec::new(),
            keyed: Vec::new(),
            peers: Vec::new(),
            ports: Vec::new(),
            stretches: Vec::new(),
            declared: Vec::new(),
            port_names: Numbers::default(),
        };
        for namespace in cluster.namespaces() {
            compiled.namespace(&namespace.name, Some(&namespace.labels));
        }
        // A folder of manifests may have pods without their namespaces.
        for pod in pods {
            if !compiled.namespaces.contains_key(&*pod.namespace) {
                compiled.namespace(&pod.namespace, None);
            }
        }
        compiled.classify(pods);
        compiled.govern(policies, cluster);
        compiled
    }

    /// Takes a namespace in, with the label of its name that the API server sets on each.
    fn namespace(&mut self, name: &'a str, labels: Option<&'a Labels>) {
        let named = labels.is_some_and(|labels| labels.contains_key(NAMESPACE_NAME));
        let label = (!named).then_some((NAMESPACE_NAME, name));
        let labels = self.labels.labels(labels.into_iter().flat_map(texts).chain(label));
        let number = length(&self.namespace_labels);
        self.namespaces.insert(name, number);
        self.namespace_labels.push(labels);
    }

    fn classify(&mut self, pods: &[&'a Pod]) {
        let mut known: HashMap<Traits<'a>, u32, FxBuildHasher> = HashMap::default();
        for pod in pods {
            let mut declared = Vec::new();
            for port in &*pod.ports {
                if let Some(name) = &port.name {
                    let next = u32::try_from(self.port_names.len()).unwrap_or(NONE);
                    let name = *self.port_names.entry(name.as_str()).or_insert(next);
                    declared.push((name, port.number, port.transport));
                }
            }
            let namespace = self.namespaces.get(&*pod.namespace).copied().unwrap_or(NONE);
            let traits = (namespace, &*pod.labels, declared, pod.host_network);
            if let Some(class) = known.get(&traits) {
                self.class_of.push(*class);
                continue;
            }
            let number = length(&self.classes);
            let ports = traits.2.iter().map(|(name, number, transport)| Declared {
                name: *name,
                number: *number,
                transport: *transport,
            });
            let class = Class {
                namespace,
                labels: self.labels.labels(texts(&pod.labels)),
                host_network: pod.host_network,
                declared: Span::push(&mut self.declared, ports),
            };
            self.classes.push(class);
            self.class_of.push(number);
            known.insert(traits, number);
        }
    }

    /// Compiles policies, and finds out which apply to which class.
    fn govern(&mut self, policies: &'a PolicySet, cluster: &Cluster) {
        let mut of_class: Vec<[Governing; 2]> = vec![Default::default(); self.classes.len()];
        let index = ClassIndex::new(&self.classes, &self.labels);
        let mut known = Known::default();
        for (tier, priority, policy) in policies.cluster() {
            let number = length(&self.sources);
            self.sources.push(Source::Cluster(tier, priority, policy));
            let namespaces = self.labels.selector(&policy.namespaces);
            let pods = self.labels.selector(&policy.pods);
            let lists = [&policy.ingress, &policy.egress]
                .map(|rules| self.rules(rules, (number, priority, NONE), cluster, &index, &mut known));
            for class in index.among(&self.labels, pods, None) {
                let Class {
                    namespace,
                    labels,
                    host_network,
                    declared: _,
                } = &self.classes[*class as usize];
                // Pods on their node's network are nobody's subject here.
                if *host_network || !self.selects(Namespaces::Selected(namespaces), pods, *namespace, *labels) {
                    continue;
                }
                for (governing, rules) in of_class[*class as usize].iter_mut().zip(&lists) {
                    match tier {
                        Tier::Admin => governing.admin.extend(rules.clone()),
                        Tier::Baseline => governing.baseline.extend(rules.clone()),
                    }
                }
            }
        }
        for (namespace, policy) in policies.namespaced() {
            let number = length(&self.sources);
            self.sources.push(Source::Network(policy));
            let own = self.namespaces.get(namespace).copied().unwrap_or(NONE);
            let subject = self.labels.selector(&policy.subject);
            let lists = [&policy.ingress, &policy.egress].map(|rules| {
                let rules = rules.as_ref()?;
                Some(self.rules(rules, (number, 0, own), cluster, &index, &mut known))
            });
            if own == NONE {
                continue;
            }
            for class in index.among(&self.labels, subject, Some(own)) {
                let Class { labels, .. } = &self.classes[*class as usize];
                if !self.labels.matches(subject, *labels) {
                    continue;
                }
                for (governing, rules) in of_class[*class as usize].iter_mut().zip(&lists) {
                    if let Some(rules) = rules {
                        governing.isolating.push(number);
                        governing.network.extend(rules.clone());
                    }
                }
            }
        }
        let mut known: HashMap<Governing, u32, FxBuildHasher> = HashMap::default();
        for of in of_class {
            let numbers = of.map(|governing| {
                *known.entry(governing).or_insert_with_key(|governing| {
                    self.governings.push(governing.clone());
                    u32::try_from(self.governings.len() - 1).unwrap_or(NONE)
                })
            });
            self.governing.push(numbers);
        }
    }

    /// Compiles the rules of a policy. Returns their numbers.
    fn rules(
        &mut self,
        rules: &'a [policy::Rule],
        (policy, priority, own): (u32, u16, u32),
        cluster: &Cluster,
        index: &ClassIndex,
        known: &mut Known,
    ) -> std::ops::Range<u32> {
        let first = length(&self.rules);
        for (place, rule) in (0..).zip(rules) {
            let peers = rule.peers.as_ref().map(|peers| {
                let mut classes = Vec::with_capacity(peers.len());
                let mut others = Vec::new();
                for peer in peers {
                    let policy::Peer::Pods(pods) = peer else {
                        self.peer(peer, rule.action, cluster, &mut others);
                        continue;
                    };
                    // Selectors are held once, so that where one is tells which it is.
                    let namespaces = pods.namespaces.as_ref().map(Arc::as_ptr);
                    let key = (namespaces.ok_or(own), Arc::as_ptr(&pods.selector), pods.on_host);
                    match known.entry(key).or_insert_with(|| self.pods(pods, own, index)) {
                        Ok(members) => classes.extend_from_slice(members.of(&self.members)),
                        Err(pods) => others.push(Peer::Pods(*pods)),
                    }
                }
                self.sort(classes, others)
            });
            let ports = rule.ports.as_ref().map(|ports| {
                let compiled = ports.iter().map(|port| Port {
                    transport: port.transport,
                    numbers: match &port.port {
                        PortNumbers::Any => Numbered::Any,
                        PortNumbers::Range(range) => Numbered::Range(*range.start(), *range.end()),
                        PortNumbers::Named(name) => {
                            Numbered::Named(self.port_names.get(name.as_str()).copied().unwrap_or(NONE))
                        }
                    },
                });
                Span::push(&mut self.ports, compiled)
            });
            self.rules.push(Rule {
                policy,
                index: place,
                action: rule.action,
                priority,
                peers,
                ports,
            });
        }
        first..length(&self.rules)
    }

    /// Puts those peers apart that ask for a label.
    fn sort(&mut self, classes: Vec<u32>, others: Vec<Peer>) -> Peers {
        let mut keyed = Vec::new();
        let mut rest = Vec::new();
        for peer in others {
            match peer {
                Peer::Pods(pods) => match self.labels.required_pair(pods.selector) {
                    Ok(Some(pair)) => keyed.push((pair, peer)),
                    Ok(None) => rest.push(peer),
                    Err(MeansNothing) => {}
                },
                Peer::Block { .. } | Peer::Domains | Peer::Everyone => rest.push(peer),
            }
        }
        keyed.sort_unstable_by_key(|(pair, _)| *pair);
        Span::push(&mut self.keys, keyed.iter().map(|(pair, _)| *pair));
        Peers {
            classes: Members::union(&mut self.members, classes),
            keyed: Span::push(&mut self.keyed, keyed.into_iter().map(|(_, peer)| peer)),
            rest: Span::push(&mut self.peers, rest),
        }
    }

    /// The classes that a peer means, or the peer to ask, if it means more than [`FEW`] or would have to be compared with more
    /// than twice as many.
    fn pods(&mut self, peer: &'a policy::Pods, own: u32, index: &ClassIndex) -> Result<Members, Pods> {
        let policy::Pods {
            namespaces,
            selector,
            on_host,
        } = peer;
        let (namespaces, namespace) = match namespaces {
            None => (Namespaces::One(own), Some(own)),
            Some(namespaces) => (Namespaces::Selected(self.labels.shared(namespaces)), None),
        };
        let pods = Pods {
            namespaces,
            selector: self.labels.shared(selector),
            on_host: *on_host,
        };
        let candidates = index.among(&self.labels, pods.selector, namespace);
        if candidates.len() > 2 * FEW {
            return Err(pods);
        }
        let matched = candidates
            .iter()
            .map(|class| (*class, self.is_pod_meant(pods, &self.classes[*class as usize])))
            .filter(|(_, matched)| *matched != Match::No);
        let matched: Vec<_> = matched.collect();
        if matched.len() > FEW {
            return Err(pods);
        }
        Ok(Members::new(&mut self.members, matched))
    }

    /// A peer that is no pods.
    fn peer(&mut self, peer: &'a policy::Peer, action: Action, cluster: &Cluster, compiled: &mut Vec<Peer>) {
        match peer {
            policy::Peer::Pods(_) => {}
            policy::Peer::Block { cidr, except } => {
                let except = except.iter().map(|range| self.space.stretch(range));
                compiled.push(Peer::Block {
                    within: self.space.stretch(cidr),
                    except: Span::push(&mut self.stretches, except),
                });
            }
            policy::Peer::Nodes(selector) => compiled.extend(node_ranges(cluster, selector).map(|range| Peer::Block {
                within: self.space.stretch(&range),
                except: Span::default(),
            })),
            policy::Peer::Domains => compiled.push(Peer::Domains),
            // A peer that nobody understands: an Accept must mean nobody, anything else everybody.
            policy::Peer::Unsupported => match action {
                Action::Accept => {}
                Action::Deny | Action::Pass => compiled.push(Peer::Everyone),
            },
        }
    }
}

/// Every range that some peer is, so that the address space can be cut by them.
fn ranges<'a>(policies: &'a PolicySet, cluster: &'a Cluster) -> impl Iterator<Item = IpNet> + 'a {
    let network = policies
        .namespaced()
        .flat_map(|(_, policy)| [&policy.ingress, &policy.egress])
        .flatten();
    let of_cluster = policies
        .cluster()
        .flat_map(|(_, _, policy)| [&policy.ingress, &policy.egress]);
    let peers = network
        .chain(of_cluster)
        .flatten()
        .flat_map(|rule| &rule.peers)
        .flatten();
    peers.flat_map(|peer| -> Vec<IpNet> {
        match peer {
            policy::Peer::Block { cidr, except } => except.iter().chain([cidr]).copied().collect(),
            policy::Peer::Nodes(selector) => node_ranges(cluster, selector).collect(),
            policy::Peer::Pods { .. } | policy::Peer::Domains | policy::Peer::Unsupported => Vec::new(),
        }
    })
}

/// The addresses of the nodes that a selector means.
fn node_ranges<'a>(cluster: &'a Cluster, selector: &'a Selector) -> impl Iterator<Item = IpNet> + 'a {
    cluster
        .nodes()
        .filter(|node| selector.matches(&node.labels))
        .flat_map(|node| node.addresses.iter().copied().map(IpNet::from))
}

/// How many entries there are: the number of the next one.
fn length<T>(entries: &[T]) -> u32 {
    u32::try_from(entries.len()).unwrap_or(NONE)
}
