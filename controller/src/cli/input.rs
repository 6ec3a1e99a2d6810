//! What commands look at: a cluster, its policies, and flows.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use nanoseg_graph::cluster::{Cluster, Object, Pod};
use nanoseg_graph::connection::ConnectionGraph;
use nanoseg_graph::endpoint::Endpoint;
use nanoseg_graph::flow::{FlowTable, Origin, Report};
use nanoseg_graph::recorded::{RecordedEnd, RecordedKey, Recording};
use nanoseg_graph::resolve::{resolve, resolve_recorded};
use nanoseg_policy::cluster_policy::ClusterNetworkPolicy;
use nanoseg_policy::evaluate::{PolicyRef, PolicySet, Rejected};
use nanoseg_policy::objects::stand_ins;

use super::CommandError;
use super::output::{Extent, Screen, counted};
use crate::read::flows::{self, At, Ended, Entry, Skip, Visitor};
use crate::read::place::{STANDARD_INPUT, file_name};
use crate::read::{Fault, Manifests, Place, ReadError, live};
use crate::settings::commands::InputArguments;
use crate::trouble::chain;

/// Faults that are told one by one: whoever has more has one reason for all of them.
const TOLD: u64 = 20;

/// Pods that are named as examples.
const EXAMPLES: usize = 5;

/// Tells faults, and counts them.
pub(super) struct Faults {
    strict: bool,
    count: u64,
    /// Kinds that the API server did not list.
    unlisted: BTreeSet<&'static str>,
}

impl Faults {
    pub(super) const fn new(strict: bool) -> Self {
        Self {
            strict,
            count: 0,
            unlisted: BTreeSet::new(),
        }
    }

    /// Ends a command whose answer is to be used by others, and would be another one for somebody who may see more.
    pub(super) fn refuse_a_part(&self) -> Result<(), CommandError> {
        if self.unlisted.is_empty() {
            return Ok(());
        }
        let kinds: Vec<&str> = self.unlisted.iter().copied().collect();
        Err(CommandError::Part {
            kinds: kinds.join(", "),
        })
    }

    pub(super) fn about(&mut self, fault: &Fault, screen: &mut Screen<'_>) {
        self.count += 1;
        if let Fault::Listing { plural, .. } = fault {
            self.unlisted.insert(plural);
        }
        if self.count <= TOLD {
            screen.remark(format_args!("warning: {}", chain(fault)));
        } else if self.count == TOLD + 1 {
            screen.remark("warning: there are more faults, which are only counted");
        }
    }

    /// Ends the command if there were faults and none may be.
    pub(super) fn settle(&self, screen: &mut Screen<'_>) -> Result<(), CommandError> {
        if self.strict && self.count > 0 {
            return Err(CommandError::Strict { count: self.count });
        }
        if self.count > TOLD {
            let faults = counted(self.count, "fault", "faults");
            screen.remark(format_args!("warning: {faults} in the input, the rest is used"));
        }
        Ok(())
    }
}

/// A cluster and its policies.
pub(super) struct Input {
    pub(super) cluster: Cluster,
    pub(super) policies: Vec<NetworkPolicy>,
    pub(super) cluster_policies: Vec<ClusterNetworkPolicy>,
    /// A pod for each workload that was read, as its template describes it.
    declared: Vec<Pod>,
    places: BTreeMap<PolicyRef, Place>,
    /// Policies that cannot be used, as they were told of.
    rejected: BTreeSet<String>,
    pub(super) faults: Faults,
    /// Where the cluster was read, for a person.
    pub(super) from: String,
}

impl Input {
    /// Reads the cluster, and policies from other paths. `others` are further paths that the command reads.
    pub(super) fn read(
        arguments: &InputArguments,
        policies: &[PathBuf],
        others: &[PathBuf],
        screen: &mut Screen<'_>,
    ) -> Result<Self, CommandError> {
        let InputArguments {
            cluster: paths,
            access,
            cluster_cidr,
            strict,
        } = arguments;
        let all = paths.iter().chain(policies).chain(others);
        if all.filter(|path| path.as_os_str() == STANDARD_INPUT).count() > 1 {
            return Err(CommandError::TwiceStandardInput);
        }
        let mut input = Self {
            cluster: Cluster::new(cluster_cidr.iter().copied()),
            policies: Vec::new(),
            cluster_policies: Vec::new(),
            declared: Vec::new(),
            places: BTreeMap::new(),
            rejected: BTreeSet::new(),
            faults: Faults::new(*strict),
            from: String::new(),
        };
        if paths.is_empty() {
            "in the cluster".clone_into(&mut input.from);
            screen.busy("reading the cluster");
            input.take(live::manifests(access)?, screen);
        }
        for path in paths {
            let manifests = manifests(path, screen)?;
            let nothing = manifests.objects.is_empty()
                && manifests.policies.is_empty()
                && manifests.cluster_policies.is_empty()
                && manifests.other == 0;
            input.take(manifests, screen);
            // Who says it so means it: a host without Kubernetes has none.
            if nothing && path.as_os_str() != "/dev/null" {
                input.faults.settle(screen)?;
                return Err(CommandError::NoObjects { path: path.clone() });
            }
        }
        input.stand_in(screen);
        if !paths.is_empty() {
            let names: Vec<String> = paths.iter().map(|path| file_name(path).to_string()).collect();
            input.from = format!("among the manifests of {}", names.join(", "));
        }
        input.add_policies(policies, screen)?;
        Ok(input)
    }

    /// Takes in policies of other paths.
    pub(super) fn add_policies(&mut self, paths: &[PathBuf], screen: &mut Screen<'_>) -> Result<(), CommandError> {
        for path in paths {
            let manifests = self.beside(path, screen)?;
            self.policies.extend(manifests.policies);
            self.cluster_policies.extend(manifests.cluster_policies);
            self.places.extend(manifests.places);
        }
        Ok(())
    }

    /// Manifests of which only the policies count.
    fn beside(&mut self, path: &Path, screen: &mut Screen<'_>) -> Result<Manifests, CommandError> {
        let manifests = manifests(path, screen)?;
        for fault in &manifests.faults {
            self.faults.about(fault, screen);
        }
        if manifests.policies.is_empty() && manifests.cluster_policies.is_empty() {
            screen.remark(format_args!("note: {}: there are no policies there", file_name(path)));
        }
        Ok(manifests)
    }

    fn take(&mut self, manifests: Manifests, screen: &mut Screen<'_>) {
        let Manifests {
            objects,
            declared,
            policies,
            cluster_policies,
            places,
            faults,
            ..
        } = manifests;
        for fault in &faults {
            self.faults.about(fault, screen);
        }
        // When the objects were made is in the objects; that they are there now is all that reading them tells.
        let now = Timestamp::now();
        for object in objects {
            self.cluster.observe(object, now);
        }
        self.declared.extend(declared);
        self.policies.extend(policies);
        self.cluster_policies.extend(cluster_policies);
        self.places.extend(places);
    }

    /// Lets workloads without a pod be asked about: manifests that nobody has applied yet have none.
    fn stand_in(&mut self, screen: &mut Screen<'_>) {
        let pods = stand_ins(&self.cluster, std::mem::take(&mut self.declared));
        let names: Vec<String> = pods
            .iter()
            .map(|pod| format!("{}/{}", pod.namespace, pod.name))
            .collect();
        for pod in pods {
            self.cluster.observe(Object::Pod(pod), Timestamp::now());
        }
        if !names.is_empty() {
            let pods = counted(names.len(), "workload has no pod", "workloads have no pods");
            let more = if names.len() > EXAMPLES { ", .." } else { "" };
            let some = &names[..names.len().min(EXAMPLES)];
            screen.remark(format_args!(
                "note: {pods} among the manifests; a pod of its template stands for each: {}{more}",
                some.join(", ")
            ));
        }
    }

    /// The policies, checked.
    pub(super) fn policies(&mut self, screen: &mut Screen<'_>) -> PolicySet {
        let (policies, mut rejected) = PolicySet::parse_all(&self.policies, &self.cluster_policies);
        // Asked again with more policies, those that were told of are still among them.
        rejected.retain(|rejected| self.rejected.insert(rejected.to_string()));
        rejected_are_faults(rejected, &self.places, &mut self.faults, screen);
        policies
    }

    /// The policies of a path and of nothing else, checked.
    pub(super) fn policies_of(&mut self, path: &Path, screen: &mut Screen<'_>) -> Result<PolicySet, CommandError> {
        let manifests = self.beside(path, screen)?;
        let (policies, rejected) = PolicySet::parse_all(&manifests.policies, &manifests.cluster_policies);
        rejected_are_faults(rejected, &manifests.places, &mut self.faults, screen);
        Ok(policies)
    }

    /// The connection graph of all flows.
    pub(super) fn graph(
        &mut self,
        paths: &[PathBuf],
        screen: &mut Screen<'_>,
    ) -> Result<ConnectionGraph, CommandError> {
        let mut observed = Observed {
            table: FlowTable::default(),
            recording: Recording::default(),
            nodes: BTreeMap::new(),
            skipped: BTreeMap::new(),
            entries: 0,
            faults: &mut self.faults,
            screen,
        };
        for path in paths {
            let before = observed.entries;
            observed.read(path)?;
            if observed.entries == before {
                return Err(CommandError::NoFlows { path: path.clone() });
            }
        }
        let Observed {
            mut table,
            recording,
            nodes,
            skipped,
            entries: _,
            faults: _,
            screen,
        } = observed;
        for (node, node_addresses) in nodes {
            table.merge(&Report {
                origin: Origin { node, epoch: 0 },
                flows: Vec::new(),
                losses: Vec::new(),
                node_addresses,
                names: Vec::new(),
                held: Vec::new(),
                capture: None,
            });
        }
        tell_skipped(&skipped, screen);
        screen.busy("finding out whose the addresses are");
        let mut graph = resolve(&table, &self.cluster);
        if !recording.is_empty() {
            graph.merge(&resolve_recorded(&recording, &table, &self.cluster));
        }
        tell_unknown(&graph, &recording, &self.cluster, screen);
        Ok(graph)
    }
}

/// The manifests of a path.
fn manifests(path: &Path, screen: &mut Screen<'_>) -> Result<Manifests, ReadError> {
    screen.busy("reading manifests");
    let mut begun = 0;
    Manifests::read(path, |files| {
        begun += 1;
        match begun {
            // One file says nothing of how far it is.
            1 if files == 1 => {}
            1 => screen.busy_with("reading manifests", Extent::Things(files)),
            _ => screen.step(),
        }
    })
}

fn rejected_are_faults(
    rejected: Vec<Rejected>,
    places: &BTreeMap<PolicyRef, Place>,
    faults: &mut Faults,
    screen: &mut Screen<'_>,
) {
    for rejected in rejected {
        let fault = Fault::Policy {
            place: places.get(&rejected.policy).cloned(),
            source: Box::new(rejected),
        };
        faults.about(&fault, screen);
    }
}

/// Takes flows in.
struct Observed<'a, 's> {
    table: FlowTable,
    recording: Recording,
    nodes: BTreeMap<String, BTreeSet<IpAddr>>,
    skipped: BTreeMap<Skip, u64>,
    entries: u64,
    faults: &'a mut Faults,
    screen: &'a mut Screen<'s>,
}

impl Observed<'_, '_> {
    fn read(&mut self, path: &Path) -> Result<(), CommandError> {
        match flows::read(path, self) {
            Ok(()) => Ok(()),
            Err(Ended::Read(error)) => Err(error.into()),
            Err(Ended::Visitor(never)) => match never {},
        }
    }
}

impl Visitor for Observed<'_, '_> {
    type Error = std::convert::Infallible;

    fn visit(&mut self, _: At<'_>, entry: Result<Entry, Fault>) -> Result<(), Self::Error> {
        let entry = match entry {
            Ok(entry) => entry,
            Err(fault) => {
                self.faults.about(&fault, self.screen);
                return Ok(());
            }
        };
        self.entries += 1;
        match entry {
            Entry::Report(report) => {
                self.table.merge(&report);
            }
            Entry::Connection(connection) => self.recording.add(*connection),
            Entry::OnNode {
                connection,
                node,
                address,
            } => {
                self.nodes.entry(node).or_default().insert(address);
                self.recording.add(*connection);
            }
            Entry::Skipped(skip) => *self.skipped.entry(skip).or_default() += 1,
        }
        Ok(())
    }

    fn warn(&mut self, fault: Fault) {
        self.faults.about(&fault, self.screen);
    }

    fn begin(&mut self, files: &[PathBuf]) {
        // Of a pipe nobody knows how much is still to come.
        let size = |file: &PathBuf| {
            let metadata = std::fs::metadata(file).ok()?;
            metadata.is_file().then_some(metadata.len())
        };
        let total = files.iter().map(size).sum();
        self.screen.busy_with("reading flows", Extent::Bytes(total));
    }

    fn watch(&mut self, bytes: Box<dyn Read>) -> Box<dyn Read> {
        self.screen.watch(bytes)
    }
}

fn tell_skipped(skipped: &BTreeMap<Skip, u64>, screen: &mut Screen<'_>) {
    let total: u64 = skipped.values().sum();
    if total > 0 {
        let parts: Vec<String> = skipped
            .iter()
            .map(|(skip, count)| format!("{count} {}", skip.explain()))
            .collect();
        screen.remark(format_args!("note: lines passed over: {total} ({})", parts.join(", ")));
    }
}

/// Says which ends nobody knows: their directions will not be ready.
fn tell_unknown(graph: &ConnectionGraph, recording: &Recording, cluster: &Cluster, screen: &mut Screen<'_>) {
    let mut unknown: BTreeMap<&str, usize> = BTreeMap::new();
    for (edge, _) in graph.edges() {
        for end in [&edge.source, &edge.destination] {
            if let Endpoint::Unknown { reason, address: _ } = end {
                *unknown.entry(reason.explain()).or_default() += 1;
            }
        }
    }
    for (why, count) in unknown {
        let ends = counted(count, "edge has an end that is", "edges have an end that is");
        screen.remark(format_args!("note: {ends} not known: {why}"));
    }
    let absent: BTreeSet<&RecordedEnd> = recording
        .connections()
        .flat_map(
            |(
                RecordedKey {
                    source, destination, ..
                },
                _,
            )| [source, destination],
        )
        .filter(|end| match end {
            RecordedEnd::Pod { namespace, name } => cluster.pod(namespace, name).is_none(),
            RecordedEnd::Address(_) => false,
        })
        .collect();
    if !absent.is_empty() {
        let some: Vec<String> = absent.iter().take(EXAMPLES).map(ToString::to_string).collect();
        let more = if absent.len() > EXAMPLES { ", .." } else { "" };
        let pods = counted(absent.len(), "pod", "pods");
        screen.remark(format_args!(
            "note: the flows name {pods} that the cluster does not have: {}{more}",
            some.join(", ")
        ));
    }
}
