use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use nanoseg_graph::flow::Report;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};

use super::protocol::reports_server::{Reports, ReportsServer};
use super::*;

fn report(epoch: u64) -> Report {
    let origin = Origin {
        node: "here".to_owned(),
        epoch,
    };
    Report {
        origin,
        flows: vec![],
        losses: vec![],
        node_addresses: [].into(),
        names: vec![],
        held: Vec::new(),
        capture: None,
    }
}

#[test]
fn a_file_is_replaced_as_a_whole_and_nothing_is_left_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let Report { origin, .. } = report(7);
    let file = ReportFile::open(&folder.path().join("new"), &origin).unwrap();
    for node_addresses in [BTreeSet::new(), ["fd00::1".parse().unwrap()].into()] {
        file.write(&origin, std::iter::empty(), &[], &node_addresses, &[], &[])
            .unwrap();
        let read: Report = serde_json::from_slice(&fs::read(file.path()).unwrap()).unwrap();
        assert_eq!(
            read,
            Report {
                node_addresses,
                capture: capture_version(),
                ..report(7)
            }
        );
    }
    let names: Vec<_> = fs::read_dir(folder.path().join("new"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["here.7.json"]);
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let Report { origin, .. } = report(7);
    let error = ReportFile::open(Path::new("/proc/nowhere"), &origin).unwrap_err();
    assert!(error.to_string().contains("/proc/nowhere"));
}

/// A controller that notes what it gets and acknowledges it.
#[derive(Clone, Default)]
struct Controller {
    received: Arc<Mutex<Vec<(u64, Report)>>>,
}

#[tonic::async_trait]
impl Reports for Controller {
    type SendStream = ReceiverStream<Result<Acknowledgement, Status>>;

    async fn send(&self, request: Request<Streaming<Increment>>) -> Result<Response<Self::SendStream>, Status> {
        let mut increments = request.into_inner();
        let (sender, receiver) = mpsc::channel(1);
        let noted = self.received.clone();
        tokio::spawn(async move {
            while let Ok(Some(Increment { sequence, report })) = increments.message().await {
                let report = serde_json::from_slice(&report).unwrap();
                noted.lock().unwrap().push((sequence, report));
                if sender.send(Ok(Acknowledgement { sequence })).await.is_err() {
                    break;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

async fn serve(controller: Controller, address: SocketAddr) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let server = tonic::transport::Server::builder().add_service(ReportsServer::new(controller));
        server
            .serve_with_incoming(TcpListenerStream::new(listener))
            .await
            .unwrap();
    });
    (address, serving)
}

async fn next(events: &mut mpsc::Receiver<StreamEvent>) -> StreamEvent {
    tokio::time::timeout(Duration::from_secs(20), events.recv())
        .await
        .expect("something happens")
        .expect("it goes on")
}

#[tokio::test]
async fn increments_are_acknowledged_and_a_broken_stream_is_opened_again() {
    let controller = Controller::default();
    let (address, serving) = serve(controller.clone(), SocketAddr::from(([127, 0, 0, 1], 0))).await;
    let (sender, mut events) = mpsc::channel(16);
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let way = Way {
        endpoint,
        credentials: None,
    };
    let streaming = tokio::spawn(stream(way, sender));

    let StreamEvent::Open(open) = next(&mut events).await else {
        panic!("not open")
    };
    for epoch in [1, 2] {
        open.send(encode(&report(epoch))).await.unwrap();
        assert!(matches!(next(&mut events).await, StreamEvent::Acknowledged(sequence) if sequence == epoch));
    }
    serving.abort();
    drop(serving.await);
    // The listener is gone, its connection is not: it ends when there is nothing more to send.
    drop(open);
    assert!(matches!(next(&mut events).await, StreamEvent::Closed));

    let (_, serving) = serve(controller.clone(), address).await;
    let open = loop {
        match next(&mut events).await {
            StreamEvent::Open(open) => break open,
            StreamEvent::Closed => {}
            StreamEvent::Acknowledged(_) => panic!("nothing was sent"),
        }
    };
    open.send(encode(&report(3))).await.unwrap();
    assert!(matches!(next(&mut events).await, StreamEvent::Acknowledged(1)));
    assert_eq!(
        *controller.received.lock().unwrap(),
        [(1, report(1)), (2, report(2)), (1, report(3))]
    );
    streaming.abort();
    serving.abort();
}
