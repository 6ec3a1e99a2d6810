//! Folders as events: manifests and reports that go in, policies and Segments that are kept.
//!
//! Folders are looked through again and again, because that works on every file system, volume and mount, and notices a file
//! however it was changed.
//!
//! Guarantees: a file that is still being written is not believed; what a file held is believed to be gone only when the file
//! reads whole without it, or is gone itself; an edit of a file in the output is told at once.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use nanoseg_graph::cluster::{Cluster, Object, ObjectKey, Pod};
use nanoseg_policy::cluster_policy::{ClusterNetworkPolicy, ClusterPolicyName};
use nanoseg_policy::objects::stand_ins;
use nanoseg_policy::ownership::{PolicyName, is_owned};

use crate::apply::{APPLIED, SEGMENTS, file};
use crate::read::{self, Manifests, ReadError};
use crate::reconcile::{Event, Source};
use crate::segment::{Segment, SegmentName};
use crate::trouble::chain;

/// Everything that is read.
pub const SOURCES: [Source; 3] = [Source::Manifests, Source::Reports, Source::Out];

/// The folders that are looked through.
#[derive(Debug)]
pub struct Directory {
    manifests: ManifestFiles,
    reports: Files,
    applied: Files,
    segments: Files,
    /// What each file of the output held.
    policies: BTreeMap<PathBuf, BTreeSet<PolicyName>>,
    kept: BTreeMap<PathBuf, SegmentName>,
    complaints: Complaints,
    synced: BTreeSet<Source>,
}

impl Directory {
    /// The folders of manifests, of reports and of the output.
    pub fn new(manifests: PathBuf, reports: PathBuf, out: &Path) -> Self {
        Self {
            manifests: ManifestFiles {
                files: Files::new(manifests, &read::MANIFEST_EXTENSIONS),
                ..Default::default()
            },
            reports: Files::new(reports, &read::REPORT_EXTENSIONS),
            applied: Files::new(out.join(APPLIED), &read::MANIFEST_EXTENSIONS),
            segments: Files::new(out.join(SEGMENTS), &read::MANIFEST_EXTENSIONS),
            policies: BTreeMap::new(),
            kept: BTreeMap::new(),
            complaints: Complaints::default(),
            synced: BTreeSet::new(),
        }
    }

    /// What changed since the last look. The manifests' path must be there at the first look; whatever cannot be read later is
    /// a warning, and what was read before stays.
    pub fn look(&mut self) -> Result<Vec<Event>, ReadError> {
        let mut events = Vec::new();
        match self.manifests.look(&mut self.complaints, &mut events) {
            Ok(settled) => self.sync(settled, Source::Manifests, &mut events),
            Err(error) if self.synced.contains(&Source::Manifests) => self.complaints.about(&error),
            Err(error) => return Err(error),
        }
        match self.reports.look() {
            Ok(changes) => {
                for path in changes.changed {
                    match read::report(&path) {
                        Ok(report) => events.push(Event::Report(report)),
                        Err(fault) => self.complaints.about(&fault),
                    }
                }
                self.sync(true, Source::Reports, &mut events);
            }
            // The learner may not have made it yet.
            Err(error) => {
                self.complaints.about(&error);
                self.sync(true, Source::Reports, &mut events);
            }
        }
        match self.look_at_out(&mut events) {
            Ok(()) => self.sync(true, Source::Out, &mut events),
            Err(error) => self.complaints.about(&error),
        }
        Ok(events)
    }

    fn sync(&mut self, settled: bool, source: Source, events: &mut Vec<Event>) {
        if settled && self.synced.insert(source) {
            events.push(Event::Synced(source));
        }
    }

    /// Takes note of what was written to the output, so that the next look compares with it: a file that somebody changes or
    /// deletes right after it was written has changed, although no look ever saw it.
    pub fn wrote(&mut self, event: &Event) {
        match event {
            Event::Policy(policy) => {
                let name = PolicyName::of(policy);
                let path = file(&self.applied.path, &name.namespace, &name.name);
                self.policies.entry(path.clone()).or_default().insert(name);
                self.applied.expect(path);
            }
            Event::Segment(segment) => {
                let name = segment.segment_name();
                let path = file(&self.segments.path, &name.namespace, &name.name);
                self.kept.insert(path.clone(), name);
                self.segments.expect(path);
            }
            _ => {}
        }
    }

    fn look_at_out(&mut self, events: &mut Vec<Event>) -> Result<(), ReadError> {
        let Changes { changed, gone } = self.segments.look()?;
        for path in changed {
            events.push(match segment(&path) {
                Ok(segment) => {
                    self.kept.insert(path, segment.segment_name());
                    Event::Segment(Box::new(segment))
                }
                Err(reason) => Event::SegmentUnreadable {
                    name: name_by_path(&path),
                    reason,
                },
            });
        }
        for path in gone {
            events.extend(self.kept.remove(&path).map(Event::SegmentGone));
        }

        let Changes { changed, gone } = self.applied.look()?;
        for path in changed {
            let mut manifests = Manifests::default();
            manifests.add(&path);
            for fault in &manifests.faults {
                self.complaints.about(fault);
            }
            // A copy of a policy of ours under another name of file is neither ours nor in force.
            let in_place = |policy: &NetworkPolicy| {
                let PolicyName { namespace, name } = PolicyName::of(policy);
                !is_owned(policy) || file(&self.applied.path, &namespace, &name) == path
            };
            let policies: Vec<NetworkPolicy> = manifests.policies.into_iter().filter(in_place).collect();
            let names = policies.iter().map(PolicyName::of).collect();
            let earlier = self.policies.insert(path, names);
            events.extend(earlier.into_iter().flatten().map(Event::PolicyGone));
            events.extend(policies.into_iter().map(|policy| Event::Policy(Box::new(policy))));
        }
        for path in gone {
            events.extend(self.policies.remove(&path).into_iter().flatten().map(Event::PolicyGone));
        }
        Ok(())
    }
}

/// The Segment in a file, or why there is none.
fn segment(path: &Path) -> Result<Segment, String> {
    let documents = read::documents(path);
    let fault = documents.iter().find_map(|document| document.as_ref().err());
    match (&documents[..], fault) {
        ([Ok(document)], _) => document.typed().map_err(|fault| chain(&fault)),
        (_, Some(fault)) => Err(chain(fault)),
        _ => Err(format!("{}: it does not hold exactly one Segment", path.display())),
    }
}

/// The Segment that belongs into a file.
fn name_by_path(path: &Path) -> SegmentName {
    let text = |part: Option<&OsStr>| part.map(|part| part.to_string_lossy().into_owned()).unwrap_or_default();
    SegmentName {
        namespace: text(path.parent().and_then(Path::file_name)),
        name: text(path.file_stem()),
    }
}

/// Says each fault once, until another one takes its place.
#[derive(Debug, Default)]
struct Complaints {
    said: BTreeSet<String>,
}

impl Complaints {
    fn about(&mut self, error: &dyn std::error::Error) {
        let text = chain(error);
        if self.said.insert(text.clone()) {
            tracing::warn!(faults = self.said.len(), "{text}");
        }
    }
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    // The change time too, because programs can set the modification time back.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// The files of a folder, and how they were last seen.
#[derive(Debug, Default)]
struct Files {
    path: PathBuf,
    extensions: &'static [&'static str],
    /// `None`: to be looked at whatever it looks like.
    stamps: BTreeMap<PathBuf, Option<Stamp>>,
}

#[derive(Debug, Default)]
struct Changes {
    changed: Vec<PathBuf>,
    gone: Vec<PathBuf>,
}

impl Files {
    const fn new(path: PathBuf, extensions: &'static [&'static str]) -> Self {
        Self {
            path,
            extensions,
            stamps: BTreeMap::new(),
        }
    }

    fn expect(&mut self, path: PathBuf) {
        self.stamps.insert(path, None);
    }

    fn look(&mut self) -> Result<Changes, ReadError> {
        let found = read::files(&self.path, self.extensions)?;
        let stamps: BTreeMap<PathBuf, Option<Stamp>> = found
            .into_iter()
            .filter_map(|path| Stamp::of(&path).map(|stamp| (path, Some(stamp))))
            .collect();
        let changed = stamps
            .iter()
            .filter(|(path, stamp)| self.stamps.get(*path) != Some(stamp))
            .map(|(path, _)| path.clone())
            .collect();
        let gone = self
            .stamps
            .keys()
            .filter(|path| !stamps.contains_key(*path))
            .cloned()
            .collect();
        self.stamps = stamps;
        Ok(Changes { changed, gone })
    }
}

/// Manifests. Other programs write them, and not always at once: a file is read when two looks in a row saw the same of it.
#[derive(Debug, Default)]
struct ManifestFiles {
    files: Files,
    /// Seen changed or gone at the last look, and not read since.
    unsettled: BTreeSet<PathBuf>,
    held: BTreeMap<PathBuf, Held>,
    /// What was told, which is what all files hold together.
    told: Held,
}

/// What a file holds.
#[derive(Clone, Debug, Default)]
struct Held {
    objects: BTreeMap<ObjectKey, Object>,
    /// Pods that templates describe.
    declared: BTreeMap<Arc<str>, Pod>,
    policies: BTreeMap<PolicyName, NetworkPolicy>,
    cluster_policies: BTreeMap<ClusterPolicyName, ClusterNetworkPolicy>,
}

impl Held {
    /// Lets a pod of its template stand for each workload that has none, as the commands do.
    fn stand_in(&mut self) {
        if self.declared.is_empty() {
            return;
        }
        let mut cluster = Cluster::default();
        for object in self.objects.values() {
            cluster.observe(object.clone(), Timestamp::UNIX_EPOCH);
        }
        let pods = stand_ins(&cluster, std::mem::take(&mut self.declared).into_values().collect());
        let pods = pods.into_iter().map(Object::Pod);
        self.objects.extend(pods.map(|pod| (pod.key(), pod)));
    }
}

impl ManifestFiles {
    /// Tells what changed. Returns whether every file was read.
    fn look(&mut self, complaints: &mut Complaints, events: &mut Vec<Event>) -> Result<bool, ReadError> {
        let Changes { changed, gone } = self.files.look()?;
        let moving: BTreeSet<PathBuf> = changed.into_iter().chain(gone).collect();
        let settled: Vec<PathBuf> = self.unsettled.difference(&moving).cloned().collect();
        self.unsettled = moving;
        if settled.is_empty() {
            return Ok(self.unsettled.is_empty());
        }
        for path in settled {
            if !self.files.stamps.contains_key(&path) {
                self.held.remove(&path);
                continue;
            }
            let mut manifests = Manifests::default();
            manifests.add(&path);
            for fault in &manifests.faults {
                complaints.about(fault);
            }
            let is_whole = manifests.faults.iter().all(|fault| !fault.leaves_out());
            let is_empty = manifests.objects.is_empty()
                && manifests.policies.is_empty()
                && manifests.cluster_policies.is_empty()
                && manifests.other == 0;
            let objects = manifests.objects.into_iter().map(|object| (object.key(), object));
            let declared = manifests.declared.into_iter().map(|pod| (Arc::clone(&pod.uid), pod));
            // A dump of a cluster holds our own policies as well: here they live in the output folder alone.
            let policies = manifests.policies.into_iter().filter(|policy| !is_owned(policy));
            let policies = policies.map(|policy| (PolicyName::of(&policy), policy));
            let of_cluster = manifests.cluster_policies.into_iter();
            let of_cluster = of_cluster.map(|policy| (policy.name(), policy));
            let held = self.held.entry(path).or_default();
            if is_whole && !is_empty {
                held.objects.clear();
                held.declared.clear();
                held.policies.clear();
                held.cluster_policies.clear();
            }
            held.objects.extend(objects);
            held.declared.extend(declared);
            held.policies.extend(policies);
            held.cluster_policies.extend(of_cluster);
        }
        self.tell(events);
        Ok(self.unsettled.is_empty())
    }

    fn tell(&mut self, events: &mut Vec<Event>) {
        let mut now = Held::default();
        for Held {
            objects,
            declared,
            policies,
            cluster_policies,
        } in self.held.values()
        {
            let pairs = objects.iter().map(|(key, object)| (key.clone(), object.clone()));
            now.objects.extend(pairs);
            let pairs = declared.iter().map(|(uid, pod)| (Arc::clone(uid), pod.clone()));
            now.declared.extend(pairs);
            let pairs = policies.iter().map(|(name, policy)| (name.clone(), policy.clone()));
            now.policies.extend(pairs);
            let pairs = cluster_policies
                .iter()
                .map(|(name, policy)| (name.clone(), policy.clone()));
            now.cluster_policies.extend(pairs);
        }
        now.stand_in();
        events.extend(gone(&self.told.objects, &now.objects).map(Event::ObjectGone));
        events.extend(gone(&self.told.policies, &now.policies).map(Event::PolicyGone));
        events.extend(gone(&self.told.cluster_policies, &now.cluster_policies).map(Event::ClusterPolicyGone));
        events.extend(changed(&self.told.objects, &now.objects).map(Event::Object));
        let policies = changed(&self.told.policies, &now.policies);
        events.extend(policies.map(|policy| Event::Policy(Box::new(policy))));
        let policies = changed(&self.told.cluster_policies, &now.cluster_policies);
        events.extend(policies.map(|policy| Event::ClusterPolicy(Box::new(policy))));
        self.told = now;
    }
}

/// Keys that are not there any more.
fn gone<K: Ord + Clone, V>(before: &BTreeMap<K, V>, now: &BTreeMap<K, V>) -> impl Iterator<Item = K> {
    before.keys().filter(|key| !now.contains_key(*key)).cloned()
}

/// Values that are new or other than before.
fn changed<K: Ord, V: PartialEq + Clone>(before: &BTreeMap<K, V>, now: &BTreeMap<K, V>) -> impl Iterator<Item = V> {
    now.iter()
        .filter(|(key, value)| before.get(*key) != Some(value))
        .map(|(_, value)| value.clone())
}
