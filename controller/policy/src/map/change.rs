//! What is different between two maps.
//!
//! Laws: a map compared with itself has no changes; exchanging the two exchanges what appeared and what went.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::document::{Answer, Edge, Exposure, Image, IsolationStatus, Map, Party, Period, Policy, State, Who};

/// What is different.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Changes {
    /// Which form of the document this is.
    pub schema: ChangesSchema,
    /// What the earlier map had observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Period>,
    /// What the later one has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Period>,
    /// Ids of parties that appeared.
    pub parties_appeared: Vec<String>,
    /// Ids of parties that went.
    pub parties_gone: Vec<String>,
    /// Workloads of which something else than their connections is different.
    pub workloads: Vec<WorkloadChange>,
    /// Ids of connections that appeared.
    pub edges_appeared: Vec<String>,
    /// Ids of connections that went.
    pub edges_gone: Vec<String>,
    /// Connections that are judged otherwise.
    pub edges: Vec<EdgeChange>,
    /// Ids of policies that appeared.
    pub policies_appeared: Vec<String>,
    /// Ids of policies that went.
    pub policies_gone: Vec<String>,
    /// Ways in that appeared.
    pub exposures_appeared: Vec<Exposure>,
    /// Ways in that went.
    pub exposures_gone: Vec<Exposure>,
}

/// Form of the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ChangesSchema {
    /// The first one.
    #[serde(rename = "nanoseg.io/map-changes/v1")]
    V1,
}

/// What is different of a workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadChange {
    /// Its id.
    pub id: String,
    /// Whether it is isolated in ingress: before and after, where that is different.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<[IsolationStatus; 2]>,
    /// The same for egress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<[IsolationStatus; 2]>,
    /// Images that it has now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images_appeared: Vec<Image>,
    /// Images that it had.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images_gone: Vec<Image>,
}

/// How a connection is judged otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EdgeChange {
    /// Its id.
    pub id: String,
    /// Its state, before and after.
    pub state: [State; 2],
    /// What the policies in force say, before and after.
    pub live: [Answer; 2],
}

impl Changes {
    /// From one map to a later one.
    pub fn between(before: &Map, after: &Map) -> Self {
        let parties = Sides::of(&before.parties, &after.parties, |party: &Party| &party.id);
        let edges = Sides::of(&before.edges, &after.edges, |edge: &Edge| &edge.id);
        let policies = Sides::of(&before.policies, &after.policies, |policy: &Policy| &policy.id);
        let lacks = |exposures: &[Exposure], exposure: &Exposure| exposures.binary_search(exposure).is_err();
        let only = |these: &[Exposure], others: &[Exposure]| {
            let only = these.iter().filter(|exposure| lacks(others, exposure));
            only.cloned().collect()
        };
        Self {
            schema: ChangesSchema::V1,
            before: before.observed,
            after: after.observed,
            parties_appeared: parties.appeared,
            parties_gone: parties.gone,
            workloads: parties.both.into_iter().filter_map(workload).collect(),
            edges_appeared: edges.appeared,
            edges_gone: edges.gone,
            edges: edges.both.into_iter().filter_map(edge).collect(),
            policies_appeared: policies.appeared,
            policies_gone: policies.gone,
            exposures_appeared: only(&after.exposures, &before.exposures),
            exposures_gone: only(&before.exposures, &after.exposures),
        }
    }

    /// Whether nothing is different.
    pub fn is_empty(&self) -> bool {
        let Self {
            schema: _,
            before: _,
            after: _,
            parties_appeared,
            parties_gone,
            workloads,
            edges_appeared,
            edges_gone,
            edges,
            policies_appeared,
            policies_gone,
            exposures_appeared,
            exposures_gone,
        } = self;
        [
            parties_appeared,
            parties_gone,
            edges_appeared,
            edges_gone,
            policies_appeared,
            policies_gone,
        ]
        .into_iter()
        .all(Vec::is_empty)
            && workloads.is_empty()
            && edges.is_empty()
            && exposures_appeared.is_empty()
            && exposures_gone.is_empty()
    }

    /// The JSON schema of the document, as text.
    pub fn schema() -> String {
        let schema = schemars::schema_for!(Self);
        serde_json::to_string_pretty(&schema).unwrap_or_default() + "\n"
    }
}

/// Two lists by id.
struct Sides<'a, T> {
    appeared: Vec<String>,
    gone: Vec<String>,
    both: Vec<(&'a T, &'a T)>,
}

impl<'a, T> Sides<'a, T> {
    fn of(before: &'a [T], after: &'a [T], id: fn(&T) -> &str) -> Self {
        let known = |list: &'a [T]| list.iter().map(|item| (id(item), item)).collect::<BTreeMap<_, _>>();
        let (before, after) = (known(before), known(after));
        let only = |these: &BTreeMap<&str, &T>, others: &BTreeMap<&str, &T>| {
            let only = these.keys().filter(|id| !others.contains_key(*id));
            only.map(|id| (*id).to_owned()).collect()
        };
        Self {
            appeared: only(&after, &before),
            gone: only(&before, &after),
            both: before
                .iter()
                .filter_map(|(id, item)| Some((*item, *after.get(id)?)))
                .collect(),
        }
    }
}

fn edge((before, after): (&Edge, &Edge)) -> Option<EdgeChange> {
    let state = [before.state, after.state];
    let live = [before.live.answer, after.live.answer];
    let same = state[0] == state[1] && live[0] == live[1];
    (!same).then(|| EdgeChange {
        id: after.id.clone(),
        state,
        live,
    })
}

fn workload((before, after): (&Party, &Party)) -> Option<WorkloadChange> {
    let (Who::Workload(old), Who::Workload(new)) = (&before.who, &after.who) else {
        return None;
    };
    let differs = |one: IsolationStatus, other: IsolationStatus| (one != other).then_some([one, other]);
    let only = |these: &[Image], others: &[Image]| -> Vec<Image> {
        these.iter().filter(|image| !others.contains(image)).cloned().collect()
    };
    let change = WorkloadChange {
        id: after.id.clone(),
        ingress: differs(old.protection.ingress.status, new.protection.ingress.status),
        egress: differs(old.protection.egress.status, new.protection.egress.status),
        images_appeared: only(&new.images, &old.images),
        images_gone: only(&old.images, &new.images),
    };
    let same = change.ingress.is_none()
        && change.egress.is_none()
        && change.images_appeared.is_empty()
        && change.images_gone.is_empty();
    (!same).then_some(change)
}
