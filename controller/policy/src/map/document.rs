//! The map as a document: what is written down, and read again by whoever draws it or compares it with an earlier one.
//!
//! Texts in it are names that people and programs chose, as they are: whoever prints them has to take care that they stay texts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use jiff::Timestamp;
use nanoseg_graph::endpoint::UnknownReason;
use nanoseg_graph::flow::{Outcome, Reporter, Transport};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

/// A connection: who opens it, who listens, at which port of the listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Edge {
    /// The same in every map of the same connection: `SOURCE>DESTINATION:PROTOCOL:PORT`, of the ids of the parties.
    pub id: String,
    /// Id of the party that opens it.
    pub source: String,
    /// Id of the party that listens.
    pub destination: String,
    /// The listener's own port, never a Service's.
    pub port: u16,
    /// Transport protocol.
    #[schemars(with = "String")]
    pub protocol: Transport,
    /// The state that most needs attention.
    pub state: State,
    /// All of its states.
    pub states: BTreeSet<State>,
    /// What was seen of it; absent when only a baseline knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<Observed>,
    /// What the policies in force make of it.
    pub live: Judgement,
    /// What they would make of it together with what is proposed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proposed: Option<Judgement>,
    /// Why a person should look at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspicion: Option<String>,
}

/// What is to be said of a connection, most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum State {
    /// It was seen while its workload was learned, and waits for a person.
    Quarantined,
    /// It is not in the baseline of its workload.
    Novel,
    /// The policies in force deny it.
    Denied,
    /// What is proposed would deny it.
    WouldBeDenied,
    /// Nobody can say what policies make of it.
    Undecided,
    /// It is in a baseline, and is no longer seen.
    Stale,
    /// A policy in force isolates an end of it, and a rule allows it.
    Enforced,
    /// No policy in force isolates its ends, and what is proposed allows it by a rule.
    Covered,
    /// It was seen, and no policy is about it.
    Observed,
}

impl State {
    /// Every state, most urgent first.
    pub const ALL: [Self; 9] = [
        Self::Quarantined,
        Self::Novel,
        Self::Denied,
        Self::WouldBeDenied,
        Self::Undecided,
        Self::Stale,
        Self::Enforced,
        Self::Covered,
        Self::Observed,
    ];

    /// As the document writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Quarantined => "Quarantined",
            Self::Novel => "Novel",
            Self::Denied => "Denied",
            Self::WouldBeDenied => "WouldBeDenied",
            Self::Undecided => "Undecided",
            Self::Stale => "Stale",
            Self::Enforced => "Enforced",
            Self::Covered => "Covered",
            Self::Observed => "Observed",
        }
    }

    /// For people.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Quarantined => "waits for a person",
            Self::Novel => "not in the baseline",
            Self::Denied => "denied by the policies in force",
            Self::WouldBeDenied => "would be denied by what is proposed",
            Self::Undecided => "cannot be decided",
            Self::Stale => "in a baseline, no longer seen",
            Self::Enforced => "allowed by a policy in force",
            Self::Covered => "allowed by what is proposed",
            Self::Observed => "no policy is about it",
        }
    }
}

/// What was seen of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Observed {
    /// The best that became of it.
    #[schemars(with = "String")]
    pub outcome: Outcome,
    /// First packet.
    pub first_seen: Moment,
    /// Last packet that was counted.
    pub last_seen: Moment,
    /// What each end saw.
    pub reports: Vec<Report>,
    /// Services through which it was made, as `namespace/name`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub via: Vec<String>,
    /// Names by which the source asked for the destination.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
}

impl Observed {
    /// Connections that were asked for or open already, as the end counted them that counted most.
    pub fn connections(&self) -> u64 {
        let counts = self
            .reports
            .iter()
            .map(|report| report.attempted.max(report.established));
        counts.max().unwrap_or_default()
    }
}

/// What one end of a connection saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Which end.
    #[schemars(with = "String")]
    pub reporter: Reporter,
    /// Connections asked for.
    pub attempted: u64,
    /// Connections accepted.
    pub established: u64,
    /// Connections refused.
    pub refused: u64,
    /// The nodes whose learners told it.
    pub nodes: BTreeSet<String>,
}

/// What policies make of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Judgement {
    /// Of both directions together: one denial denies, and after that what one end leaves open stays open.
    pub answer: Answer,
    /// Pairs of live ends that it stands for.
    pub pairs: usize,
    /// Pairs of them that are denied.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub denied_pairs: usize,
    /// At the source.
    pub egress: Side,
    /// At the destination.
    pub ingress: Side,
}

/// What policies make of one direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Side {
    /// The answer.
    pub answer: Answer,
    /// The rules that decide.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// Ids of the policies that isolate and do not allow it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<String>,
    /// The reason of a denial, of an allowance without a rule, or of there being no answer, as a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Answer {
    /// A rule allows it.
    Allowed,
    /// No policy isolates: allowed.
    NotIsolated,
    /// Denied.
    Denied,
    /// Nobody can say.
    Unknown,
}

/// A rule of a policy, in the list of its direction.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Rule {
    /// Id of the policy.
    pub policy: String,
    /// Position in `spec.ingress` or `spec.egress`, from 0.
    pub index: usize,
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
        let Self { protocol, first, last } = self;
        match (first, last) {
            (1, &u16::MAX) => write!(f, "{protocol} all ports"),
            (first, last) if first == last => write!(f, "{protocol} {first}"),
            (first, last) => write!(f, "{protocol} {first}-{last}"),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
const fn is_zero(number: &usize) -> bool {
    *number == 0
}
