//! The API server's side of the world as events.
//!
//! Guarantees: a watch never ends, it begins again with a growing delay whatever went wrong; after it has begun again, what is
//! not there any more is told as gone, and nothing is told as gone before everything was listed; an object that cannot be
//! read is one warning and does not disturb the others.

mod read;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::{StreamExt as _, pin_mut};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, watcher};
use kube::{Client, CustomResourceExt as _, Resource, ResourceExt as _};
use nanoseg_graph::cluster::ObjectKey;
use nanoseg_policy::cluster_policy::{ClusterNetworkPolicy, ClusterPolicyName, Kind};
use nanoseg_policy::objects::{self, Manifest, Unreadable};
use nanoseg_policy::ownership::{PolicyName, is_owned};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::read::Read;
use crate::reconcile::{Event, Source};
use crate::segment::{Segment, SegmentName};
use crate::trouble::{Trouble, chain};

/// Calls a macro with every kind that tells who is who: its plural, its type, and what reads it.
macro_rules! each_kind {
    ($callback:ident) => {
        $callback! {
            "pods": k8s_openapi::api::core::v1::Pod, nanoseg_policy::objects::pod;
            "replicasets": k8s_openapi::api::apps::v1::ReplicaSet, nanoseg_policy::objects::replica_set;
            "replicationcontrollers": k8s_openapi::api::core::v1::ReplicationController, nanoseg_policy::objects::replication_controller;
            "deployments": k8s_openapi::api::apps::v1::Deployment, nanoseg_policy::objects::deployment;
            "statefulsets": k8s_openapi::api::apps::v1::StatefulSet, nanoseg_policy::objects::stateful_set;
            "daemonsets": k8s_openapi::api::apps::v1::DaemonSet, nanoseg_policy::objects::daemon_set;
            "jobs": k8s_openapi::api::batch::v1::Job, nanoseg_policy::objects::job;
            "cronjobs": k8s_openapi::api::batch::v1::CronJob, nanoseg_policy::objects::cron_job;
            "services": k8s_openapi::api::core::v1::Service, nanoseg_policy::objects::service;
            "endpointslices": k8s_openapi::api::discovery::v1::EndpointSlice, nanoseg_policy::objects::endpoint_slice;
            "nodes": k8s_openapi::api::core::v1::Node, nanoseg_policy::objects::node;
            "namespaces": k8s_openapi::api::core::v1::Namespace, nanoseg_policy::objects::namespace;
        }
    };
}
pub(crate) use each_kind;

/// Everything that is watched.
pub const SOURCES: [Source; 17] = [
    Source::Watch("pods"),
    Source::Watch("replicasets"),
    Source::Watch("replicationcontrollers"),
    Source::Watch("deployments"),
    Source::Watch("statefulsets"),
    Source::Watch("daemonsets"),
    Source::Watch("jobs"),
    Source::Watch("cronjobs"),
    Source::Watch("services"),
    Source::Watch("endpointslices"),
    Source::Watch("nodes"),
    Source::Watch("namespaces"),
    Source::Watch("networkpolicies"),
    Source::Watch(CLUSTER_POLICIES[0].1),
    Source::Watch(CLUSTER_POLICIES[1].1),
    Source::Watch(CLUSTER_POLICIES[2].1),
    Source::Watch("segments"),
];

/// Policies of the cluster: kinds that few clusters have, with their plurals. Where one is not known there are none of it.
pub(crate) const CLUSTER_POLICIES: [(Kind, &str); 3] = [
    (Kind::ClusterNetworkPolicy, "clusternetworkpolicies"),
    (Kind::AdminNetworkPolicy, "adminnetworkpolicies"),
    (Kind::BaselineAdminNetworkPolicy, "baselineadminnetworkpolicies"),
];

/// Watches everything, and tells it to `events`, until the set is dropped.
pub fn watch_all(client: &Client, url: &str, events: &mpsc::Sender<Event>) -> JoinSet<()> {
    let outage = Outage::new(url);
    let mut tasks = JoinSet::new();
    let start = |source: Source| Watch {
        source,
        events: events.clone(),
        outage: outage.clone(),
    };
    macro_rules! objects {
        ($($plural:literal: $kind:ty, $convert:path;)*) => {$(
            tasks.spawn(start(Source::Watch($plural)).follow(Api::<Read<$kind>>::all(client.clone()), object));
        )*};
    }
    each_kind!(objects);
    let policies = Api::<NetworkPolicy>::all(client.clone());
    tasks.spawn(start(Source::Watch("networkpolicies")).follow(policies, |object| Ok(policy(object))));
    for (kind, plural) in CLUSTER_POLICIES {
        let policies = cluster_policies(client, kind);
        tasks.spawn(start(Source::Watch(plural)).follow(policies, of_cluster));
    }
    // Untyped, because one Segment that cannot be read would keep every other from being listed.
    let resource: ApiResource = Segment::api_resource();
    let segments = Api::<DynamicObject>::all_with(client.clone(), &resource);
    tasks.spawn(start(Source::Watch("segments")).follow(segments, |object| Ok(segment(object))));
    tasks
}

/// What identifies an object among those of its watch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Object(ObjectKey),
    Policy(PolicyName),
    ClusterPolicy(ClusterPolicyName),
    Segment(SegmentName),
}

impl Key {
    fn gone(self) -> Event {
        match self {
            Self::Object(key) => Event::ObjectGone(key),
            Self::Policy(name) => Event::PolicyGone(name),
            Self::ClusterPolicy(name) => Event::ClusterPolicyGone(name),
            Self::Segment(name) => Event::SegmentGone(name),
        }
    }
}

type Told = Result<(Key, Event), Arc<Unreadable>>;

fn object<K>(read: Read<K>) -> Told {
    let object = read.object()?;
    Ok((Key::Object(object.key()), Event::Object(object)))
}

/// A policy without what takes the most room and nobody asks for. Of one of ours it is kept who changed it, and when.
pub(crate) fn bare(mut policy: NetworkPolicy) -> NetworkPolicy {
    if !is_owned(&policy) {
        policy.metadata.managed_fields = None;
    }
    for entry in policy.metadata.managed_fields.iter_mut().flatten() {
        entry.fields_v1 = None;
    }
    policy
}

fn policy(policy: NetworkPolicy) -> (Key, Event) {
    let policy = bare(policy);
    (Key::Policy(PolicyName::of(&policy)), Event::Policy(Box::new(policy)))
}

/// The policies of the cluster of one kind: untyped, because none is one of the API server's own.
pub(crate) fn cluster_policies(client: &Client, kind: Kind) -> Api<DynamicObject> {
    let (group, version) = kind.api_version().split_once('/').unwrap_or_default();
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind.as_str()));
    Api::all_with(client.clone(), &resource)
}

/// Reads a policy of the cluster.
pub(crate) fn cluster_policy(mut object: DynamicObject) -> Result<Box<ClusterNetworkPolicy>, Box<Unreadable>> {
    object.metadata.managed_fields = None;
    let mut parsed = serde_json::to_value(object).map(objects::parse).unwrap_or_default();
    match (parsed.manifests.pop(), parsed.unreadable.pop()) {
        (Some(Manifest::ClusterNetworkPolicy(policy)), _) => Ok(policy),
        (_, Some(unreadable)) => Err(Box::new(unreadable)),
        (_, None) => Err(Box::new(Unreadable::NotAnObject {
            field: "kind".to_owned(),
        })),
    }
}

fn of_cluster(object: DynamicObject) -> Told {
    let policy = cluster_policy(object).map_err(Arc::from)?;
    Ok((Key::ClusterPolicy(policy.name()), Event::ClusterPolicy(policy)))
}

fn segment(mut object: DynamicObject) -> (Key, Event) {
    object.metadata.managed_fields = None;
    let name = SegmentName {
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
    };
    let event = match object.try_parse::<Segment>() {
        Ok(segment) => Event::Segment(Box::new(segment)),
        Err(error) => Event::SegmentUnreadable {
            name: name.clone(),
            reason: chain(&error),
        },
    };
    (Key::Segment(name), event)
}

/// How long a watch that failed waits at most: an API server that is back is used within seconds, however long it was away. The twenty
/// watches of a controller are few beside what nodes ask.
const LONGEST_WAIT: Duration = Duration::from_secs(4);

/// How long the API server is not asked again for a kind that it does not have. Somebody may install it.
const ABSENT: Duration = Duration::from_secs(30);

/// The client's own growing delay, up to [`LONGEST_WAIT`].
#[derive(Default)]
struct Delay(watcher::DefaultBackoff);

impl Iterator for Delay {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.0.next()?.min(LONGEST_WAIT))
    }
}

impl Backoff for Delay {
    fn reset(&mut self) {
        self.0.reset();
    }
}

/// Objects of one page: a page of pods is a megabyte on the wire, and as much in memory until it is read.
const PAGE: u32 = 200;

struct Watch {
    source: Source,
    events: mpsc::Sender<Event>,
    outage: Outage,
}

impl Watch {
    async fn follow<K>(self, api: Api<K>, convert: impl Fn(K) -> Told)
    where
        K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let Self { source, events, outage } = self;
        let stream = watcher(api, watcher::Config::default().page_size(PAGE)).backoff(Delay::default());
        pin_mut!(stream);
        // Whether each object was there when the last list began; a list that is under way marks them again.
        let mut there: BTreeMap<Key, bool> = BTreeMap::new();
        let mut complained: BTreeMap<String, String> = BTreeMap::new();
        while let Some(event) = stream.next().await {
            let told = match event {
                Err(error) if is_optional(source) && is_unknown_kind(&error) => {
                    // A kind that was taken away has taken its objects along.
                    let gone = std::mem::take(&mut there).into_keys().map(Key::gone);
                    for event in gone.chain([Event::Synced(source)]) {
                        if events.send(event).await.is_err() {
                            return;
                        }
                    }
                    tokio::time::sleep(ABSENT).await;
                    continue;
                }
                Err(error) => {
                    outage.note(source, error);
                    continue;
                }
                // Said before anything was asked, so it does not mean that there are answers.
                Ok(watcher::Event::Init) => {
                    for listed in there.values_mut() {
                        *listed = false;
                    }
                    continue;
                }
                Ok(watcher::Event::InitDone) => {
                    outage.over();
                    let gone: Vec<Key> = there.extract_if(.., |_, listed| !*listed).map(|(key, _)| key).collect();
                    for key in gone {
                        if events.send(key.gone()).await.is_err() {
                            return;
                        }
                    }
                    if events.send(Event::Synced(source)).await.is_err() {
                        return;
                    }
                    continue;
                }
                Ok(watcher::Event::InitApply(object) | watcher::Event::Apply(object)) => {
                    convert(object).map(|(key, event)| {
                        there.insert(key, true);
                        event
                    })
                }
                Ok(watcher::Event::Delete(object)) => convert(object).map(|(key, _)| {
                    there.remove(&key);
                    key.gone()
                }),
            };
            match told {
                Ok(event) => {
                    if events.send(event).await.is_err() {
                        return;
                    }
                }
                Err(unreadable) => {
                    // An object is seen again with every change of it, and its fault is told once.
                    let (text, object) = (chain(&unreadable), subject_of(&unreadable));
                    if complained.insert(object, text.clone()).as_ref() != Some(&text) {
                        tracing::warn!("left out: {text}");
                    }
                }
            }
        }
    }
}

/// Whether clusters do well without the kind.
fn is_optional(source: Source) -> bool {
    CLUSTER_POLICIES
        .iter()
        .any(|(_, plural)| source == Source::Watch(plural))
}

/// Whether the API server has no such kind.
fn is_unknown_kind(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => matches!(error, kube::Error::Api(status) if status.code == 404),
        watcher::Error::WatchError(status) => status.code == 404,
        watcher::Error::NoResourceVersion => false,
    }
}

fn subject_of(unreadable: &Unreadable) -> String {
    match unreadable {
        Unreadable::NotAnObject { field } => field.clone(),
        Unreadable::Missing { object, .. } | Unreadable::Invalid { object, .. } | Unreadable::Shape { object, .. } => {
            object.to_string()
        }
    }
}

/// Says once that the API server cannot be used, reminds of it now and then, and says when it can again. Every watch fails at
/// the same time, and a person needs one sentence.
#[derive(Clone)]
struct Outage {
    url: Arc<str>,
    since: Arc<Mutex<Option<Noted>>>,
}

#[derive(Clone, Copy)]
struct Noted {
    first: Instant,
    last: Instant,
}

/// How often a person is reminded of an outage.
const REMINDER: Duration = Duration::from_secs(30);

impl Outage {
    fn new(url: &str) -> Self {
        Self {
            url: url.into(),
            since: Arc::default(),
        }
    }

    fn note(&self, source: Source, error: watcher::Error) {
        let trouble = match error {
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => Trouble::from(error),
            // The server closed the watch, as it does when its history does not reach back far enough: it is begun again.
            watcher::Error::WatchError(status) => {
                return tracing::debug!(%source, "watch begins again: {}", status.message);
            }
            watcher::Error::NoResourceVersion => {
                return tracing::warn!(%source, "the API server cannot watch this kind");
            }
        };
        let url = &self.url;
        if trouble.code() == Some(404) && source == Source::Watch("segments") {
            return tracing::warn!(
                "{url} does not know Segments; run `nanoseg crd | kubectl apply -f -`, then this goes on"
            );
        }
        if trouble.code() == Some(403) {
            return tracing::warn!(%source, "{trouble}; apply the ClusterRole of manifests/, then this goes on");
        }
        let now = Instant::now();
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = since.get_or_insert(Noted { first: now, last: now });
        if noted.first == now || now.duration_since(noted.last) >= REMINDER {
            noted.last = now;
            tracing::warn!(%source, "cannot use the API server at {url}: {trouble}; is it up, and is this its address? Policies stay as they are, trying again");
        }
    }

    fn over(&self) {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(noted) = since.take() {
            let seconds = noted.first.elapsed().as_secs();
            tracing::info!(seconds, "the API server at {} answers again", self.url);
        }
    }
}
