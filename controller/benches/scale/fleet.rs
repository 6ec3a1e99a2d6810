//! Learners: a stream each, by TLS, with a token that the API server has made for its pod.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, PostParams};
use nanoseg::receive::identity::AUDIENCE;
use nanoseg::receive::{Increment, ReportsClient};
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use crate::world::{World, learner, uid};

/// Learners that connect at once: they share the machine's cores with whom they connect to.
const GREETING: usize = 64;

/// A token for each node's learner, bound to its pod.
pub(crate) async fn tokens(client: &kube::Client, world: World) -> Vec<Arc<str>> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "nanoseg");
    let token = async |number: usize| {
        let name = learner(number);
        let bound = json!({ "kind": "Pod", "apiVersion": "v1", "name": name, "uid": uid("Pod", &name) });
        let request =
            json!({ "spec": { "audiences": [AUDIENCE], "expirationSeconds": 7200, "boundObjectRef": bound } });
        let request = serde_json::from_value(request).unwrap();
        let made = accounts
            .create_token_request("nanoseg-learner", &PostParams::default(), &request)
            .await
            .unwrap();
        Arc::from(made.status.unwrap().token.unwrap())
    };
    futures::stream::iter(0..world.nodes)
        .map(token)
        .buffered(16)
        .collect()
        .await
}

/// All learners of a cluster. They go when it is dropped.
pub(crate) struct Fleet {
    learners: Vec<mpsc::Sender<Increment>>,
    /// How many have been told that their first report is durable.
    settled: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Fleet {
    /// Begins to connect them. Each sends all that it has seen.
    pub(crate) fn connect(world: World, ca: &str, port: u16, tokens: &[Arc<str>]) -> Self {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(ca))
            .domain_name("nanoseg-controller.nanoseg.svc");
        let endpoint = Endpoint::from_shared(format!("https://127.0.0.1:{port}"))
            .unwrap()
            .tls_config(tls)
            .unwrap();
        let turns = Arc::new(Semaphore::new(GREETING));
        let settled = Arc::<AtomicUsize>::default();
        let mut tasks = JoinSet::new();
        let learners = tokens.iter().enumerate().map(|(number, token)| {
            let (sender, increments) = mpsc::channel(4);
            let learner = Learner {
                endpoint: endpoint.clone(),
                token: Arc::clone(token),
                turns: Arc::clone(&turns),
                settled: Arc::clone(&settled),
            };
            tasks.spawn(learner.run(move || world.report(number), increments));
            sender
        });
        Self {
            learners: learners.collect(),
            settled,
            _tasks: tasks,
        }
    }

    pub(crate) fn settled(&self) -> usize {
        self.settled.load(Ordering::Relaxed)
    }

    /// Has the learner of a node say more.
    pub(crate) async fn say(&self, node: usize, report: Vec<u8>) {
        let increment = Increment { sequence: 2, report };
        self.learners[node].send(increment).await.unwrap();
    }
}

struct Learner {
    endpoint: Endpoint,
    token: Arc<str>,
    turns: Arc<Semaphore>,
    settled: Arc<AtomicUsize>,
}

impl Learner {
    async fn run(self, first: impl Fn() -> Vec<u8>, increments: mpsc::Receiver<Increment>) {
        let (mut client, greeted) = loop {
            let turn = self.turns.acquire().await.unwrap();
            match self.endpoint.connect().await {
                Ok(channel) => break (ReportsClient::new(channel), turn),
                Err(_not_yet) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        };
        drop(greeted);
        loop {
            let (send, receive) = mpsc::channel(4);
            let increment = Increment {
                sequence: 1,
                report: first(),
            };
            send.send(increment).await.unwrap();
            let Ok(mut answers) = self.open(&mut client, receive).await else {
                // It does not lead yet.
                tokio::time::sleep(Duration::from_millis(500)).await;
                continue;
            };
            answers.message().await.unwrap();
            self.settled.fetch_add(1, Ordering::Relaxed);
            let forward = async {
                let mut increments = increments;
                while let Some(increment) = increments.recv().await {
                    if send.send(increment).await.is_err() {
                        break;
                    }
                }
            };
            let listen = async { while let Ok(Some(_)) = answers.message().await {} };
            tokio::join!(forward, listen);
            return;
        }
    }

    async fn open(
        &self,
        client: &mut ReportsClient<Channel>,
        increments: mpsc::Receiver<Increment>,
    ) -> Result<tonic::Streaming<nanoseg::receive::Acknowledgement>, tonic::Status> {
        let mut request = Request::new(ReceiverStream::new(increments));
        let header = format!("Bearer {}", self.token).parse().unwrap();
        request.metadata_mut().insert("authorization", header);
        Ok(client.send(request).await?.into_inner())
    }
}
