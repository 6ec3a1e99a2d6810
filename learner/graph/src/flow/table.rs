//! All that was reported, joined.
//!
//! Law: a container is held once for each run of a learner that told of it, however many flows it has: a flow takes 96 bytes at most
//! beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use jiff::Timestamp;

use super::{
    CaptureVersion, Flow, FlowKey, FlowRef, Held, Loss, LossReason, Named, Origin, Report, Reporter, Subject, Tally,
    Transport,
};
use crate::name::DnsName;

/// Names of one address, and from when until when each held.
type Holding = BTreeMap<DnsName, (Timestamp, Timestamp)>;

/// What a flow is counted by beside its own end, in the order of its key.
type Contact = (IpAddr, u16, Transport, Reporter);

/// The flows of one own end, in order.
type Contacts = Vec<(Contact, Tally)>;

const fn contact_of(key: &FlowKey) -> Contact {
    (key.peer, key.port, key.transport, key.reporter)
}

fn place_of(contacts: &Contacts, contact: Contact) -> Result<usize, usize> {
    contacts.binary_search_by_key(&contact, |(known, _)| *known)
}

/// What of a report a table does not know yet, its flows aside.
#[derive(Clone, Debug)]
pub struct Lacks<'r> {
    /// More was lost.
    pub losses: bool,
    /// Addresses of its node.
    pub addresses: BTreeSet<IpAddr>,
    /// Names of peers, or for how long they held.
    pub names: Vec<&'r Named>,
    /// There may be more of them than are kept.
    pub names_go: bool,
    /// Containers that no kubelet started, be they known or not.
    pub held: &'r [Held],
    /// What sees on its node, if that is something else.
    pub capture: Option<&'r CaptureVersion>,
}

/// All that was reported, joined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowTable {
    flows: BTreeMap<Origin, BTreeMap<Subject, Contacts>>,
    losses: BTreeMap<(Origin, Option<Subject>, LossReason), u64>,
    /// The nodes that have each address.
    node_addresses: BTreeMap<IpAddr, BTreeSet<String>>,
    names: BTreeMap<(String, Subject, IpAddr), Holding>,
    held: BTreeMap<(String, Subject), Held>,
    /// What sees on a node since the latest run of its learner that said so.
    captures: BTreeMap<String, (u64, CaptureVersion)>,
}

impl FlowTable {
    /// Joins a report in. Returns whether a flow appeared that was not there before.
    pub fn merge(&mut self, report: &Report) -> bool {
        let Report {
            origin,
            flows,
            losses,
            node_addresses,
            names,
            held,
            capture,
        } = report;
        if let Some(capture) = capture {
            let said = (origin.epoch, capture.clone());
            match self.captures.get_mut(&origin.node) {
                // Of two that one run names the later in order: no order of merging makes another of it.
                Some(known) if *known >= said => {}
                Some(known) => *known = said,
                None => drop(self.captures.insert(origin.node.clone(), said)),
            }
        }
        let table = self.flows.entry(origin.clone()).or_default();
        // Put in their places together: there may be tens of thousands of one container.
        let mut more: BTreeMap<&Subject, BTreeMap<Contact, Tally>> = BTreeMap::new();
        for Flow { key, tally } in flows {
            let contact = contact_of(key);
            let known = table.get_mut(&key.subject);
            let place = known.and_then(|known| place_of(known, contact).ok().map(|place| &mut known[place].1));
            if let Some(known) = place {
                known.join(tally);
            } else {
                let first = more.entry(&key.subject).or_default().entry(contact);
                first.and_modify(|known| known.join(tally)).or_insert(*tally);
            }
        }
        let novel = !more.is_empty();
        for (subject, more) in more {
            let contacts = match table.get_mut(subject) {
                Some(known) => known,
                None => table.entry(subject.clone()).or_default(),
            };
            // Most containers have few, and get no more for hours.
            contacts.reserve_exact(more.len());
            contacts.extend(more);
            contacts.sort_by_key(|(contact, _)| *contact);
        }
        for Loss { subject, reason, count } in losses {
            let known = self
                .losses
                .entry((origin.clone(), subject.clone(), *reason))
                .or_default();
            *known = (*known).max(*count);
        }
        for address in node_addresses {
            let nodes = self.node_addresses.entry(*address).or_default();
            if !nodes.contains(&origin.node) {
                nodes.insert(origin.node.clone());
            }
        }
        for Named {
            subject,
            address,
            name,
            first_seen,
            until,
        } in names
        {
            let known = self
                .names
                .entry((origin.node.clone(), subject.clone(), *address))
                .or_default();
            let held = known.entry(name.clone()).or_insert((*first_seen, *until));
            *held = (held.0.min(*first_seen), held.1.max(*until));
            if known.len() > DnsName::KEPT {
                known.pop_last();
            }
        }
        for Held {
            subject,
            name,
            addresses,
            first_seen,
        } in held
        {
            let known = self
                .held
                .entry((origin.node.clone(), subject.clone()))
                .or_insert_with(|| Held {
                    subject: subject.clone(),
                    name: None,
                    addresses: BTreeSet::new(),
                    first_seen: *first_seen,
                });
            // Of two names the later in order: no order of merging makes another of it.
            known.name = known.name.take().max(name.clone());
            known.addresses.extend(addresses);
            known.first_seen = known.first_seen.min(*first_seen);
        }
        novel
    }

    /// The tally of a flow.
    pub fn tally(&self, origin: &Origin, key: &FlowKey) -> Option<&Tally> {
        let contacts = self.flows.get(origin)?.get(&key.subject)?;
        let place = place_of(contacts, contact_of(key)).ok()?;
        Some(&contacts[place].1)
    }

    /// What of a report, its flows aside, is not known yet.
    pub fn lacks<'r>(&self, report: &'r Report) -> Lacks<'r> {
        let Report {
            origin,
            flows: _,
            losses,
            node_addresses,
            names,
            held,
            capture,
        } = report;
        let loss = |loss: &Loss| {
            let Loss { subject, reason, count } = loss;
            let known = self.losses.get(&(origin.clone(), subject.clone(), *reason));
            known.is_none_or(|known| known < count)
        };
        let is_new = |address: &&IpAddr| !self.node_has(&origin.node, **address);
        let mut more_names: BTreeMap<(&Subject, IpAddr), usize> = BTreeMap::new();
        let mut lacked = Vec::new();
        let mut names_go = false;
        for named in names {
            let Named {
                subject,
                address,
                name,
                first_seen,
                until,
            } = named;
            let known = self.names.get(&(origin.node.clone(), subject.clone(), *address));
            match known.and_then(|known| known.get(name)) {
                Some((first, last)) if first <= first_seen && until <= last => continue,
                Some(_) => {}
                None => {
                    let more = more_names.entry((subject, *address)).or_default();
                    *more += 1;
                    names_go |= known.map_or(0, BTreeMap::len) + *more > DnsName::KEPT;
                }
            }
            lacked.push(named);
        }
        Lacks {
            losses: losses.iter().any(loss),
            addresses: node_addresses.iter().filter(is_new).copied().collect(),
            names: lacked,
            names_go,
            held,
            capture: capture
                .as_ref()
                .filter(|capture| self.capture(&origin.node) != Some(*capture)),
        }
    }

    /// What sees on a node; `None` when its learner has not said.
    pub fn capture(&self, node: &str) -> Option<&CaptureVersion> {
        self.captures.get(node).map(|(_, capture)| capture)
    }

    /// Every container that no kubelet started, and its node, in a fixed order.
    pub fn held(&self) -> impl Iterator<Item = (&str, &Held)> {
        self.held.iter().map(|((node, _), held)| (node.as_str(), held))
    }

    /// Every flow, in a fixed order.
    pub fn flows(&self) -> impl Iterator<Item = (&Origin, FlowRef<'_>, &Tally)> {
        let subjects = self.flows.iter().flat_map(|(origin, subjects)| {
            subjects
                .iter()
                .map(move |(subject, contacts)| (origin, subject, contacts))
        });
        subjects.flat_map(|(origin, subject, contacts)| {
            contacts.iter().map(move |((peer, port, transport, reporter), tally)| {
                let key = FlowRef {
                    subject,
                    peer: *peer,
                    port: *port,
                    transport: *transport,
                    reporter: *reporter,
                };
                (origin, key, tally)
            })
        })
    }

    /// Whether this run of a learner has said something, be it that there is nothing.
    pub fn knows(&self, origin: &Origin) -> bool {
        self.flows.contains_key(origin)
    }

    /// The node of each learner that has said something, be it that there is nothing; the same node for each run of its learner.
    pub fn nodes(&self) -> impl Iterator<Item = &str> {
        self.flows.keys().map(|origin| origin.node.as_str())
    }

    /// Every loss, in a fixed order.
    pub fn losses(&self) -> impl Iterator<Item = (&Origin, Option<&Subject>, LossReason, u64)> {
        self.losses
            .iter()
            .map(|((origin, subject, reason), count)| (origin, subject.as_ref(), *reason, *count))
    }

    /// Every name that was asked for: on which node, by whom, the address, the name, from when until when. In a fixed order.
    pub fn names(&self) -> impl Iterator<Item = (&str, &Subject, IpAddr, &DnsName, (Timestamp, Timestamp))> {
        self.names.iter().flat_map(|((node, subject, address), names)| {
            names
                .iter()
                .map(move |(name, held)| (node.as_str(), subject, *address, name, *held))
        })
    }

    /// The nodes whose own interfaces have an address, as their learners saw it.
    pub fn nodes_with(&self, address: IpAddr) -> impl Iterator<Item = &str> {
        let nodes = self.node_addresses.get(&address).into_iter().flatten();
        nodes.map(String::as_str)
    }

    /// Whether a node's own interfaces have an address, as its learner saw it.
    pub fn node_has(&self, node: &str, address: IpAddr) -> bool {
        let nodes = self.node_addresses.get(&address);
        nodes.is_some_and(|nodes| nodes.contains(node))
    }

    /// How many flows there are.
    pub fn len(&self) -> usize {
        self.flows.values().flat_map(BTreeMap::values).map(Vec::len).sum()
    }

    /// Whether nothing was observed.
    pub fn is_empty(&self) -> bool {
        self.flows.values().all(BTreeMap::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_small() {
        let all = size_of::<(Contact, Tally)>();
        assert!(all <= 96, "{all} bytes");
    }
}
