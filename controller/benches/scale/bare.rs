//! What a client without a mind of its own does: the same writes, and the same objects in its caches.

use std::sync::Mutex;
use std::time::Instant;

use futures::StreamExt as _;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::{NamespaceResourceScope, api};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use kube::{Client, Resource, ResourceExt as _};
use nanoseg::segment::Segment;
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

use crate::look::{Arrivals, resident};
use crate::server::Server;

/// Where its policies go.
const NAMESPACE: &str = "bare";
/// Its connections.
const CONNECTIONS: usize = 8;

/// The policies that Segments propose.
pub(crate) async fn proposed(client: &Client) -> Vec<NetworkPolicy> {
    let segments = Api::<Segment>::all(client.clone());
    let listed = segments.list(&ListParams::default()).await.unwrap();
    let policies = listed.into_iter();
    policies
        .filter_map(|segment| segment.proposed_policy().unwrap())
        .collect()
}

/// Policies a second that are applied by so many connections, each with a client of its own. They are taken away afterwards.
pub(crate) async fn apply(server: &Server, policies: &[NetworkPolicy]) -> f64 {
    let named = policies.iter().enumerate().map(|(number, policy)| {
        let mut policy = policy.clone();
        policy.metadata.namespace = Some(NAMESPACE.to_owned());
        policy.metadata.name = Some(format!("p{number}"));
        policy
    });
    let queue = Mutex::new(named.collect::<Vec<_>>());
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let client = server.client().await;
        client.apiserver_version().await.unwrap();
        clients.push(client);
    }
    // What the controller's are seen by.
    let (_arrivals, watch) = Arrivals::watch(server.client().await);
    let began = Instant::now();
    let work = clients.into_iter().map(async |client| {
        let api = Api::<NetworkPolicy>::namespaced(client, NAMESPACE);
        let next = || queue.lock().unwrap().pop();
        while let Some(policy) = next() {
            let params = PatchParams::apply("bare").force();
            api.patch(&policy.name_any(), &params, &Patch::Apply(&policy))
                .await
                .unwrap();
        }
    });
    futures::future::join_all(work).await;
    let rate = policies.len() as f64 / began.elapsed().as_secs_f64();
    watch.abort();
    let api = Api::<NetworkPolicy>::namespaced(server.client().await, NAMESPACE);
    // Fewer at once than an API server takes its longest time for a request for.
    let some = ListParams::default().limit(1000);
    while !api.list_metadata(&some).await.unwrap().items.is_empty() {
        api.delete_collection(&DeleteParams::default(), &some).await.unwrap();
    }
    rate
}

/// Fills a client's own caches of what the controller watches, without the notes of who set which field. Returns MiB that this
/// process holds then.
pub(crate) async fn caches(client: Client) -> f64 {
    let mut tasks = JoinSet::new();
    macro_rules! keep {
        ($($kind:ty),*) => {[$(keep::<$kind>(&client, &mut tasks).await),*]};
    }
    let known: [usize; 9] = keep![
        api::core::v1::Pod,
        api::apps::v1::ReplicaSet,
        api::apps::v1::Deployment,
        api::core::v1::Service,
        api::discovery::v1::EndpointSlice,
        NetworkPolicy,
        Segment,
        api::apps::v1::DaemonSet,
        api::apps::v1::StatefulSet
    ];
    assert!(known[0] > 0, "there are pods");
    resident(rustix::process::getpid())
}

async fn keep<K>(client: &Client, tasks: &mut JoinSet<()>) -> usize
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
    K: Send + Sync + 'static,
{
    let (reader, writer) = reflector::store::<K>();
    let objects = watcher(Api::<K>::all(client.clone()), watcher::Config::default());
    let objects = objects.modify(|object| object.managed_fields_mut().clear());
    // Without waiting in between it would ask again and again for what cannot be answered, for ever and without a word.
    let objects = objects.default_backoff();
    tasks.spawn(reflector(writer, objects).for_each(|event| {
        if let Err(error) = event {
            eprintln!("a bare client's caches: {}: {error}", K::kind(&()));
        }
        std::future::ready(())
    }));
    reader.wait_until_ready().await.unwrap();
    reader.len()
}
