//! Connections of the map, what was seen of them, and what policies make of them.

use std::collections::BTreeSet;

use nanoseg_graph::flow::{Outcome, Reporter, Transport};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Moment;

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

impl Edge {
    /// Who of a node opened it, and who of a node listened: nothing where an end is no node, or nobody told.
    pub fn processes(&self) -> [&[String]; 2] {
        self.observed.as_ref().map_or([&[], &[]], |observed| {
            [&observed.source_processes, &observed.destination_processes]
        })
    }
}

/// What is to be said of a connection, most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum State {
    /// It is not in the baseline of its workload.
    Novel,
    /// It was seen while its workload was learned, and waits for a person.
    Quarantined,
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
    /// It was seen, and no policy in force is about it.
    Observed,
}

impl State {
    /// Every state, most urgent first.
    pub const ALL: [Self; 9] = [
        Self::Novel,
        Self::Quarantined,
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
            Self::Observed => "no policy in force is about it",
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
    /// First packet; not there where flows were given without times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_seen: Option<Moment>,
    /// Last packet that was counted, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Moment>,
    /// What each end saw.
    pub reports: Vec<Report>,
    /// Services through which it was made, as `namespace/name`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub via: Vec<String>,
    /// Names by which the source asked for the destination.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Who of the node opened it, where the source is one: systemd units and workloads on the node's network, as its learner
    /// told. Policies know nodes alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_processes: Vec<String>,
    /// Who of the node listened, likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub destination_processes: Vec<String>,
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
    /// The nodes whose learners told it; none where flows were given without them.
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

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
const fn is_zero(number: &usize) -> bool {
    *number == 0
}
