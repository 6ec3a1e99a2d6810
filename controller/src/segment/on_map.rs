//! What a Segment has to say to the segmentation map.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use nanoseg_graph::connection::EdgeKey;
use nanoseg_policy::map;

use super::{BaselineEdge, Segment, SegmentError, from_edges, from_learned, into_keys};

impl Segment {
    /// Its part of the map.
    pub fn on_map(&self) -> Result<map::Segment, SegmentError> {
        let workload = self.subject()?;
        let keys = |edges: &[BaselineEdge]| -> Result<BTreeSet<EdgeKey>, SegmentError> {
            Ok(into_keys(from_edges(edges)?).collect())
        };
        let mut facts = map::SegmentFacts {
            name: self.segment_name().name,
            mode: self.spec.mode.map(|mode| mode.as_str().to_owned()),
            phase: "new".to_owned(),
            reason: String::new(),
            baseline: 0,
            loss: 0,
        };
        let Some(status) = &self.status else {
            return Ok(map::Segment {
                workload,
                facts,
                baseline: BTreeSet::new(),
                is_frozen: false,
                last_seen: BTreeMap::new(),
                novel: BTreeSet::new(),
                quarantined: BTreeMap::new(),
            });
        };
        if let Some(mode) = status.mode {
            facts.mode = Some(mode.as_str().to_owned());
        }
        status.phase.as_str().clone_into(&mut facts.phase);
        facts.reason.clone_from(&status.reason);
        facts.loss = status.loss;
        let baseline: BTreeSet<EdgeKey> = into_keys(from_learned(&status.baseline)?).collect();
        facts.baseline = baseline.len();
        let mut quarantined = BTreeMap::new();
        for edge in &status.quarantined {
            let suspicion = format!("{:?}", edge.suspicion);
            let keys = keys(std::slice::from_ref(&edge.edge))?;
            quarantined.extend(keys.into_iter().map(|key| (key, suspicion.clone())));
        }
        let novel: Vec<_> = status.novel_edges.iter().map(|novel| novel.edge.clone()).collect();
        Ok(map::Segment {
            workload,
            facts,
            baseline,
            is_frozen: status.frozen_at.is_some(),
            last_seen: BTreeMap::new(),
            novel: keys(&novel)?,
            quarantined,
        })
    }

    /// When each edge of its baseline was last seen, as far as it knows.
    pub fn last_seen(&self) -> Result<BTreeMap<EdgeKey, Timestamp>, SegmentError> {
        let learned = self.status.as_ref().map_or(&[][..], |status| &status.baseline);
        let seen = from_learned(learned)?.into_iter();
        Ok(seen
            .filter_map(|(key, known)| Some((Arc::unwrap_or_clone(key), known.sightings.last_seen?)))
            .collect())
    }

    /// The NetworkPolicy that it proposes, if there is one.
    pub fn proposed_policy(&self) -> Result<Option<NetworkPolicy>, SegmentError> {
        let Some(proposal) = self.status.as_ref().and_then(|status| status.proposal.as_deref()) else {
            return Ok(None);
        };
        serde_yaml::from_str(proposal)
            .map(Some)
            .map_err(|error| SegmentError::Proposal(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use nanoseg_graph::endpoint::Workload;

    use super::*;
    use crate::segment::{QuarantinedEdge, SegmentStatus, Suspicion};

    const STATUS: &str = "
phase: Stable
mode: Enforce
learningSince: 2026-01-01T00:00:00Z
frozenAt: 2026-01-02T00:00:00Z
baseline: [{source: shop/Deployment/web, destination: shop/StatefulSet/db, port: 5432, protocol: TCP, lastSeen: 2026-01-03T00:00:00Z}]
novelEdges: [{source: shop/Deployment/web, destination: external 203.0.113.9, port: 443, protocol: TCP}]
proposal: '{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: shop, name: p}}'
";

    #[test]
    fn a_segment_tells_the_map_all_that_it_knows() {
        let mut segment = Segment::of(&Workload {
            namespace: "shop".to_owned(),
            kind: "Deployment".to_owned(),
            name: "web".to_owned(),
        });
        assert_eq!(segment.on_map().unwrap().facts.phase, "new");
        let mut status: SegmentStatus = serde_yaml::from_str(STATUS).unwrap();
        status.quarantined.push(QuarantinedEdge {
            edge: status.novel_edges[0].edge.clone(),
            suspicion: Suspicion::Once,
        });
        segment.status = Some(status);
        let told = segment.on_map().unwrap();
        assert_eq!(
            (told.facts.phase.as_str(), told.facts.mode.as_deref()),
            ("Stable", Some("Enforce"))
        );
        assert_eq!((told.baseline.len(), told.novel.len(), told.facts.baseline), (1, 1, 1));
        assert!(told.is_frozen);
        let seen: Vec<_> = segment.last_seen().unwrap().into_values().collect();
        assert_eq!(seen, ["2026-01-03T00:00:00Z".parse().unwrap()]);
        assert_eq!(told.quarantined.values().collect::<Vec<_>>(), ["Once"]);
        assert_eq!(
            segment.proposed_policy().unwrap().unwrap().metadata.name.as_deref(),
            Some("p")
        );
    }
}
