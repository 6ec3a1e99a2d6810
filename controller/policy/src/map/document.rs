//! The map as a document: what is written down, and read again by whoever draws it or compares it with an earlier one.
//!
//! Texts in it are names that people and programs chose, as they are: whoever prints them has to take care that they stay texts.

mod edge;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use jiff::Timestamp;
use nanoseg_graph::endpoint::UnknownReason;
use nanoseg_graph::flow::Transport;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::direction::ports_in_words;

pub use edge::{Answer, Edge, Judgement, Observed, Report, Rule, Side, State};

/// A segmentation map: who talks to whom, what policies make of it, and what lies open.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Map {
    /// Which form of the document this is.
    pub schema: Schema,
    /// From the first connection that was seen to the last one; absent when none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<Period>,
    /// How many there are of everything.
    pub totals: Totals,
    /// How large a drawing of it is.
    pub size: Size,
    /// Namespaces, and what is in none: the first view of a large map. Ordered by id.
    pub groups: Vec<Group>,
    /// What connects groups, their own connections included. Ordered by the ids of source and destination.
    pub links: Vec<Link>,
    /// Workloads, Services, nodes, addresses outside and what is not known. Ordered by id.
    pub parties: Vec<Party>,
    /// Connections, ordered by id.
    pub edges: Vec<Edge>,
    /// Every policy that edges are judged by, and which of its rules were used. Ordered by id.
    pub policies: Vec<Policy>,
    /// What can be reached from outside of the cluster.
    pub exposures: Vec<Exposure>,
    /// What all of this has to say to controls that people are asked about.
    #[serde(default)]
    pub controls: Vec<Control>,
}

/// Form of the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Schema {
    /// The first one. Fields may be added to it, and none change their meaning.
    #[serde(rename = "nanoseg.io/map/v1")]
    V1,
}

/// A time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Moment(#[schemars(with = "String", extend("format" = "date-time"))] pub Timestamp);

/// From when until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Period {
    /// The first connection.
    pub first_seen: Moment,
    /// The last one.
    pub last_seen: Moment,
}

/// How many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Workloads.
    pub workloads: usize,
    /// Live pods of them.
    pub pods: usize,
    /// Services without a workload behind them that are part of a connection.
    pub services: usize,
    /// Nodes that are part of a connection.
    pub nodes: usize,
    /// Addresses outside of the cluster.
    pub external: usize,
    /// Ends that nobody knows.
    pub unknown: usize,
    /// Connections.
    pub edges: usize,
    /// Connections in each state; one may be in several.
    pub states: BTreeMap<State, usize>,
    /// Workloads of which at least one pod is not isolated in ingress by the policies in force.
    pub open_ingress: usize,
    /// The same in egress.
    pub open_egress: usize,
    /// Rules of all policies.
    pub rules: usize,
    /// Rules that no connection of the map needs.
    pub unused_rules: usize,
}

/// Width and height of a drawing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Size {
    /// Width.
    pub width: u32,
    /// Height.
    pub height: u32,
}

/// Where something is drawn: a box by its upper left corner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Place {
    /// From the left.
    pub x: u32,
    /// From the top.
    pub y: u32,
    /// Width.
    pub width: u32,
    /// Height.
    pub height: u32,
}

impl Place {
    /// Its middle, from the left and from the top.
    pub const fn middle(&self) -> (u32, u32) {
        (self.x + self.width / 2, self.y + self.height / 2)
    }
}

/// Parties that are drawn in one box.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// `namespace/NAME`, `nodes`, `external` or `unknown`.
    pub id: String,
    /// What it holds.
    pub kind: GroupKind,
    /// What to call it.
    pub title: String,
    /// Its box, around those of its parties.
    pub place: Place,
    /// How many parties it holds.
    pub parties: usize,
    /// Its workloads of which at least one pod is not isolated in ingress.
    pub open_ingress: usize,
    /// The same in egress.
    pub open_egress: usize,
}

/// What a group holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum GroupKind {
    /// Workloads and Services of one namespace.
    Namespace,
    /// Nodes.
    Nodes,
    /// Addresses outside of the cluster.
    External,
    /// Ends that nobody knows.
    Unknown,
}

/// All connections from one group to another, or within one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Link {
    /// Id of the group whose parties connect.
    pub source: String,
    /// Id of the group whose parties listen.
    pub destination: String,
    /// How many connections.
    pub edges: usize,
    /// The state that most needs attention among them.
    pub state: State,
    /// How many are in each state.
    pub states: BTreeMap<State, usize>,
}

/// An addressable thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Party {
    /// The same in every map of the same thing. What is not a letter, a digit or one of `._:-` is written as `%XX`.
    pub id: String,
    /// Id of the group that it is drawn in.
    pub group: String,
    /// What to call it within its group.
    pub title: String,
    /// Its box.
    pub place: Place,
    /// What it is.
    pub who: Who,
}

/// What a party is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub enum Who {
    /// Pods of one owner.
    Workload(Box<Workload>),
    /// A Service without a workload behind it.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The name in DNS that it stands for, if it is of type `ExternalName`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        external_name: Option<String>,
    },
    /// A node: its own processes, and the pods on its network.
    Node {
        /// Its name.
        name: String,
        /// Its addresses.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        addresses: Vec<IpAddr>,
    },
    /// An address outside of the cluster.
    External {
        /// The address.
        address: IpAddr,
        /// Names by which workloads asked for it. They say how people call it, and nothing about who has it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        names: Vec<String>,
    },
    /// Nobody knows.
    Unknown {
        /// Why not.
        #[schemars(with = "String")]
        reason: UnknownReason,
        /// The address that was seen.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        address: Option<IpAddr>,
    },
}

/// Pods of one owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// Namespace.
    pub namespace: String,
    /// Kind of the owner, such as `Deployment`.
    pub kind: String,
    /// Name of the owner.
    pub name: String,
    /// Its live pods by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<Pod>,
    /// What their containers run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<Image>,
    /// By the policies in force.
    pub protection: Protection,
    /// As it would be with what is proposed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proposed_protection: Option<Protection>,
    /// What its Segment says, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment: Option<SegmentFacts>,
}

/// A live pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// The node that it runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Its addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// It uses its node's network.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub host_network: bool,
}

/// What a container runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Image {
    /// As the pod names it.
    pub name: String,
    /// By which it was pulled, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// What policies do to the pods of a workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Protection {
    /// To connections that they accept.
    pub ingress: Isolation,
    /// To connections that they open.
    pub egress: Isolation,
}

/// What policies do in one direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Isolation {
    /// Whether they isolate.
    pub status: IsolationStatus,
    /// Ids of the NetworkPolicies that do.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub policies: BTreeSet<String>,
    /// Ids of policies of the cluster with rules for them. Such a policy isolates nobody: what none of its rules decides goes on.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub cluster_policies: BTreeSet<String>,
}

/// Whether NetworkPolicies isolate the pods of a workload in a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum IsolationStatus {
    /// All of them.
    Isolated,
    /// Some of them.
    Partly,
    /// None.
    Open,
    /// They use their nodes' network, and what a policy does to them depends on the network plugin.
    NodeNetwork,
    /// There is no live pod to ask about.
    NoPods,
}

impl IsolationStatus {
    /// Whether a pod is certainly open to all that no policy of the cluster denies.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Open | Self::Partly)
    }
}

/// What a Segment says of its workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SegmentFacts {
    /// Name of the Segment, in the workload's namespace.
    pub name: String,
    /// What may be done with the workload: `Off`, `Learn`, `Audit` or `Enforce`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// How far it has come, as the Segment's status writes it.
    pub phase: String,
    /// Why, as a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Connections of the baseline.
    pub baseline: usize,
    /// Packets and exchanges that were not recorded while it was learned.
    pub loss: u64,
}

/// A policy, and what its rules were used for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// `KIND/NAMESPACE/NAME`, or `KIND/NAME` of one of the cluster.
    pub id: String,
    /// Kind.
    pub kind: String,
    /// Namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
    /// It is only proposed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub proposed: bool,
    /// How many connections of the map each rule of `spec.ingress` means.
    pub ingress: Vec<usize>,
    /// The same for `spec.egress`.
    pub egress: Vec<usize>,
}

impl Policy {
    /// How many of its rules nothing used.
    pub fn unused(&self) -> usize {
        self.ingress
            .iter()
            .chain(&self.egress)
            .filter(|edges| **edges == 0)
            .count()
    }
}

/// A way into the cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Exposure {
    /// How.
    pub how: How,
    /// The Service, as `namespace/name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Addresses of the Service outside of the cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// Ports by which one comes in: of the nodes, of the Service or of the pods, by what `how` says.
    pub ports: Vec<Ports>,
    /// Ids of the workloads that are reached.
    pub workloads: Vec<String>,
}

/// A control of a catalogue, and what was found. It says what is, and never that a control is met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Control {
    /// The catalogue.
    pub catalogue: String,
    /// Number or title of the control there.
    pub id: String,
    /// What it is about.
    pub about: String,
    /// Facts of this map.
    pub found: Vec<String>,
}

/// How something is exposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum How {
    /// By a port of every node.
    NodePort,
    /// By an address outside of the cluster: of a load balancer, or one of `externalIPs`.
    ExternalAddress,
    /// The policies in force allow its pods connections from an address that no policy names.
    FromAnywhere,
}

/// Ports of one protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Ports {
    /// Transport protocol.
    #[schemars(with = "String")]
    pub protocol: Transport,
    /// First.
    pub first: u16,
    /// Last.
    pub last: u16,
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, first, last } = *self;
        write!(f, "{}", ports_in_words(protocol, first, last))
    }
}
