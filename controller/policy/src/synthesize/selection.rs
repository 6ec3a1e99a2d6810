//! How the pods of a workload are named by rules.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use nanoseg_graph::cluster::Labels;
use nanoseg_graph::endpoint::Workload;

use super::rules::selector;
use crate::identity::{Identities, Identity, Proof};
use crate::objects::NAMESPACE_NAME;

/// Labels of which the text lies in one place. A policy names hundreds of peers, each with labels of its own, and a map of them is
/// spread over memory: to write it out from here takes a fraction of what reading the map would.
#[derive(Debug)]
struct Spelled {
    text: Box<str>,
    /// Lengths of key and value, one label after another.
    lengths: [[u16; 2]; Self::MOST],
    count: u16,
}

impl Spelled {
    /// Labels that are told so at most.
    const MOST: usize = 6;

    /// `None` for those that have no place here.
    fn of(labels: &Labels) -> Option<Self> {
        let mut lengths = [[0; 2]; Self::MOST];
        if labels.len() > Self::MOST {
            return None;
        }
        for ((key, value), lengths) in labels.iter().zip(&mut lengths) {
            *lengths = [u16::try_from(key.len()).ok()?, u16::try_from(value.len()).ok()?];
        }
        let text: String = labels.iter().flat_map(|(key, value)| [key.as_str(), value]).collect();
        Some(Self {
            text: text.into(),
            lengths,
            count: u16::try_from(labels.len()).ok()?,
        })
    }

    fn labels(&self) -> Labels {
        let mut rest = &*self.text;
        let mut next = |length: u16| {
            let (text, behind) = rest.split_at(usize::from(length));
            rest = behind;
            text.to_owned()
        };
        let mut labels = Labels::new();
        for [key, value] in &self.lengths[..usize::from(self.count)] {
            let key = next(*key);
            labels.insert(key, next(*value));
        }
        labels
    }
}

/// Pods that a rule can name.
#[derive(Debug)]
pub(super) struct Selection {
    /// Its place among all selections of the cluster, by namespace and labels: what it is compared by.
    pub(super) rank: u32,
    pub(super) namespace: String,
    /// What selects the namespace.
    pub(super) within: Arc<LabelSelector>,
    pub(super) labels: Arc<Labels>,
    /// How many labels there are, beside them: it is asked for each peer of each rule, and their map is elsewhere in memory.
    pub(super) count: usize,
    spelled: Option<Spelled>,
    /// Whether it selects pods of others, too.
    pub(super) wide: bool,
}

impl Selection {
    /// The labels, for a selector of their own.
    pub(super) fn to_labels(&self) -> Labels {
        match &self.spelled {
            Some(spelled) => spelled.labels(),
            None => (*self.labels).clone(),
        }
    }
}

/// A selection, compared without looking at it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named<'a> {
    pub(super) rank: u32,
    pub(super) selection: &'a Selection,
}

impl PartialEq for Named<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.rank == other.rank
    }
}

impl Eq for Named<'_> {}

impl PartialOrd for Named<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Named<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank.cmp(&other.rank)
    }
}

/// How every workload of a cluster is named, in order.
pub(super) fn selections(identities: &Identities) -> BTreeMap<Workload, Arc<Selection>> {
    let mut named: Vec<(&Workload, &Identity)> = identities.iter().collect();
    let by = |one: &(&Workload, &Identity), next: &(&Workload, &Identity)| {
        let ((one, identity), (next, other)) = (one, next);
        one.namespace
            .cmp(&next.namespace)
            .then_with(|| identity.labels.cmp(&other.labels))
    };
    named.sort_by(by);
    let mut selections = BTreeMap::new();
    // They come by namespace.
    let mut within: Option<(&String, Arc<LabelSelector>)> = None;
    let same = |one: &(&Workload, &Identity), next: &(&Workload, &Identity)| by(one, next).is_eq();
    for (rank, run) in (0..).zip(named.chunk_by(same)) {
        let Some((first, identity)) = run.first() else { continue };
        if within
            .as_ref()
            .is_none_or(|(namespace, _)| **namespace != first.namespace)
        {
            let name = [(NAMESPACE_NAME.to_owned(), first.namespace.clone())];
            within = Some((&first.namespace, Arc::new(selector(name.into()))));
        }
        let Some((_, of_namespace)) = &within else { continue };
        let selection = Arc::new(Selection {
            rank,
            namespace: first.namespace.clone(),
            within: Arc::clone(of_namespace),
            labels: Arc::clone(&identity.labels),
            count: identity.labels.len(),
            spelled: Spelled::of(&identity.labels),
            wide: run.iter().any(|(_, identity)| identity.proof != Proof::Exact),
        });
        selections.extend(
            run.iter()
                .map(|(workload, _)| ((*workload).clone(), Arc::clone(&selection))),
        );
    }
    selections
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn labels_are_spelled_as_they_are(labels in prop::collection::btree_map("\\PC{0,4}", "\\PC{0,4}", 0..9)) {
            let spelled = Spelled::of(&labels);
            prop_assert_eq!(spelled.is_some(), labels.len() <= Spelled::MOST);
            prop_assert!(spelled.is_none_or(|spelled| spelled.labels() == labels));
        }
    }

    #[test]
    fn a_label_of_any_length_has_its_selector() {
        let labels: Labels = [("k".to_owned(), "v".repeat(70_000))].into();
        assert!(Spelled::of(&labels).is_none());
    }
}
