//! What a Segment is, and that one of an earlier controller still is one.

use super::*;

pub(super) fn workload(kind: &str, name: &str) -> Workload {
    Workload {
        namespace: "shop".to_owned(),
        kind: kind.to_owned(),
        name: name.to_owned(),
    }
}

#[test]
fn a_segment_knows_its_workload() {
    let segment = Segment::of(&workload("Deployment", "web"));
    assert_eq!(segment.subject(), Ok(workload("Deployment", "web")));
    let mut misnamed = segment;
    misnamed.metadata.name = Some("web".to_owned());
    assert!(matches!(misnamed.subject(), Err(SegmentError::Misnamed { .. })));
}

/// With what the first controllers wrote and nothing that came later: a field that they did not know may not be required.
#[test]
fn a_segment_of_an_earlier_controller_is_read() {
    let stored = r"
apiVersion: nanoseg.io/v1alpha1
kind: Segment
metadata: {name: deployment-web, namespace: shop, uid: 8c7f, resourceVersion: '12'}
spec:
  workload: {kind: Deployment, name: web}
  mode: Enforce
  approval: sha256:1
  acceptedEdges:
    - {source: shop/Deployment/web, destination: shop/Deployment/db, port: 5432, protocol: TCP}
status:
  phase: Enforcing
  learningSince: 2026-01-01T00:00:00Z
  frozenAt: 2026-01-02T00:00:00Z
  edges: 1
  baseline:
    - {source: shop/Deployment/web, destination: shop/Deployment/db, port: 5432, protocol: TCP}
  baselineHash: sha256:2
  coverage: {pods: 3, watched: 2}
  quarantined:
    - {source: shop/Deployment/web, destination: shop/Deployment/db, port: 22, protocol: TCP, suspicion: Once}
  novelEdges:
    - {source: shop/Deployment/web, destination: shop/Deployment/db, port: 80, protocol: TCP}
  conditions:
    - {type: Promotable, status: 'True', reason: Promotable, message: '', lastTransitionTime: 2026-01-02T00:00:00Z}
  history:
    - {hash: sha256:1, at: 2026-01-02T00:00:00Z}
  rolledBack:
    at: 2026-01-02T00:00:00Z
    hash: sha256:1
    edge: {source: shop/Deployment/web, destination: shop/Deployment/db, port: 5432, protocol: TCP}
";
    let segment: Segment = serde_yaml::from_str(stored).unwrap();
    assert_eq!(segment.subject(), Ok(workload("Deployment", "web")));
    let status = segment.status.unwrap();
    assert_eq!(status.phase, Phase::Enforcing);
    let baseline = from_learned(&status.baseline).unwrap();
    assert_eq!(baseline.len(), 1);
    assert_eq!(
        (status.novel_edges.len(), status.quarantined.len(), status.history.len()),
        (1, 1, 1)
    );
    assert!(status.rolled_back.is_some());
}
