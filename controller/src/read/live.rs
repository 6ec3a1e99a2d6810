//! The same objects from an API server: every kind that the controller watches, listed once, a page at a time.

use std::error::Error as _;
use std::fmt::Debug;

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, ListParams};
use kube::config::{InClusterError, InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use serde::de::DeserializeOwned;

use super::fault::Fault;
use super::manifests::Manifests;
use crate::settings::access::Access;
use crate::trouble::Trouble;
use crate::watch::{CLUSTER_POLICIES, cluster_policies, cluster_policy, each_kind};

/// Objects of one page: what kubectl asks for, and a few MiB of pods.
const PAGE: u32 = 500;

/// Why there is no way to an API server.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No kubeconfig, and not in a pod either.
    #[error("there is no cluster to work on: {tried}. Name a kubeconfig by --kubeconfig, or manifests by --cluster")]
    NoCluster {
        /// What was tried, and what came of it.
        tried: String,
    },
    /// The kubeconfig file cannot be used.
    #[error("cannot use the kubeconfig{file}: {why}")]
    Kubeconfig {
        /// The file after a space, if one was named.
        file: String,
        /// Why.
        why: String,
    },
    /// The client cannot be made from the configuration.
    #[error("cannot make a client for the API server at {url}")]
    Client {
        /// The API server.
        url: String,
        /// Why.
        source: Trouble,
    },
    /// There is nothing to make requests with.
    #[error("cannot start the runtime")]
    Runtime(#[source] std::io::Error),
    /// A kind without which no answer is right cannot be listed.
    #[error(
        "cannot list {plural} at {url}, and without them no answer would be right; is the API server up, and may you list \
         {plural} in all namespaces? Without a cluster, name its manifests by --cluster"
    )]
    Listing {
        /// The kind.
        plural: &'static str,
        /// The API server.
        url: String,
        /// What it said.
        source: Trouble,
    },
}

/// How to reach the API server: by the file or the context, else by what kubectl would take, else by the pod's service account.
pub async fn configuration(access: &Access) -> Result<Config, ConnectError> {
    let Access { kubeconfig, context } = access;
    if kubeconfig.is_none() && context.is_none() {
        return Config::infer()
            .await
            .map_err(|error| ConnectError::NoCluster { tried: tried(&error) });
    }
    let unusable = |error| ConnectError::Kubeconfig {
        file: kubeconfig
            .as_ref()
            .map(|file| format!(" {}", file.display()))
            .unwrap_or_default(),
        why: why(&error),
    };
    let read = kubeconfig.as_ref().map_or_else(Kubeconfig::read, Kubeconfig::read_from);
    let options = KubeConfigOptions {
        context: context.clone(),
        ..KubeConfigOptions::default()
    };
    Config::from_custom_kubeconfig(read.map_err(unusable)?, &options)
        .await
        .map_err(unusable)
}

/// What a kubeconfig lacks. The client's own words hold what caused them, and go on for lines where YAML is wrong.
fn why(error: &KubeconfigError) -> String {
    match error {
        KubeconfigError::ReadConfig(source, _) => source.to_string(),
        KubeconfigError::CurrentContextNotSet => {
            "it names no current context; `kubectl config use-context NAME` sets it".to_owned()
        }
        KubeconfigError::LoadContext(context) => {
            format!("it has no context {context}; `kubectl config get-contexts` lists those that it has")
        }
        other => other.to_string().lines().next().unwrap_or_default().to_owned(),
    }
}

/// What was looked at without a kubeconfig that was named.
fn tried(error: &InferConfigError) -> String {
    let kubeconfig = match error
        .source()
        .and_then(|source| source.downcast_ref::<KubeconfigError>())
    {
        Some(error @ KubeconfigError::ReadConfig(_, path)) => format!("kubeconfig {}: {}", path.display(), why(error)),
        Some(error) => format!("kubeconfig: {}", why(error)),
        None => error.to_string(),
    };
    match Config::incluster() {
        // Nothing of a pod is here, and nobody expected it.
        Ok(_) | Err(InClusterError::ReadEnvironmentVariable(_)) => kubeconfig,
        Err(error) => format!("{kubeconfig}; the pod's ServiceAccount: {error}"),
    }
}

/// A client for it.
pub fn client(config: Config) -> Result<Client, ConnectError> {
    let url = config.cluster_url.to_string();
    Client::try_from(config).map_err(|error| ConnectError::Client {
        url,
        source: error.into(),
    })
}

/// Does some work with a client and the API server's address, in a runtime of its own.
pub fn with_cluster<T, E: From<ConnectError>>(
    access: &Access,
    work: impl AsyncFnOnce(Client, &str) -> Result<T, E>,
) -> Result<T, E> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ConnectError::Runtime)?;
    runtime.block_on(async {
        let config = configuration(access).await?;
        let url = config.cluster_url.to_string();
        work(client(config)?, &url).await
    })
}

/// Everything that matters of a cluster, as manifests. A kind that cannot be listed is a fault, unless it is one without which
/// answers would be wrong.
pub fn manifests(access: &Access) -> Result<Manifests, ConnectError> {
    with_cluster(access, async |client, url| {
        let mut manifests = Manifests::default();
        let mut faults = Vec::new();
        macro_rules! list {
            ($($plural:literal: $kind:ty, $convert:path;)*) => {$(
                match pages(Api::<$kind>::all(client.clone())).await {
                    Ok(listed) => {
                        for object in &listed {
                            match $convert(object) {
                                Ok(object) => manifests.objects.push(object),
                                Err(reason) => faults.push(Fault::Live { url: url.to_owned(), source: Box::new(reason) }),
                            }
                        }
                    }
                    Err(source) => faults.push(not_listed($plural, url, source)?),
                }
            )*};
        }
        each_kind!(list);
        match pages(Api::<NetworkPolicy>::all(client.clone())).await {
            Ok(policies) => manifests.policies = policies,
            Err(source) => faults.push(not_listed("networkpolicies", url, source)?),
        }
        for (kind, plural) in CLUSTER_POLICIES {
            match pages(cluster_policies(&client, kind)).await {
                Ok(policies) => {
                    for policy in policies {
                        match cluster_policy(policy) {
                            Ok(policy) => manifests.cluster_policies.push(*policy),
                            Err(source) => faults.push(Fault::Live {
                                url: url.to_owned(),
                                source,
                            }),
                        }
                    }
                }
                // Where the kind is not known there are none of it.
                Err(error) if error.code() == Some(404) => {}
                Err(source) => faults.push(not_listed(plural, url, source)?),
            }
        }
        manifests.faults = faults;
        Ok(manifests)
    })
}

fn not_listed(plural: &'static str, url: &str, source: Trouble) -> Result<Fault, ConnectError> {
    let url = url.to_owned();
    let decides = ["pods", "namespaces", "networkpolicies"].contains(&plural)
        || CLUSTER_POLICIES.iter().any(|(_, known)| *known == plural);
    if decides {
        Err(ConnectError::Listing { plural, url, source })
    } else {
        Ok(Fault::Listing { plural, url, source })
    }
}

async fn pages<K>(api: Api<K>) -> Result<Vec<K>, Trouble>
where
    K: Clone + Debug + DeserializeOwned,
{
    let mut objects = Vec::new();
    let mut parameters = ListParams::default().limit(PAGE);
    loop {
        let page = match api.list(&parameters).await {
            Ok(page) => page,
            // The server does not remember where the last page ended: everything at once instead.
            Err(kube::Error::Api(status)) if status.code == 410 && parameters.continue_token.is_some() => {
                objects.clear();
                parameters = ListParams::default();
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        objects.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters = parameters.continue_token(&token),
            None => return Ok(objects),
        }
    }
}
