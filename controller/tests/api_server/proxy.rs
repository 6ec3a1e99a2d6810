//! A way to the API server that remembers what it was asked for, and kills who uses it, just before or just after a request that
//! changes something.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use kube::Client;
use kube::client::Body;
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpListener;

use super::server::{Running, Server};

/// When the next kill is due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trap {
    pub(crate) victim: Pid,
    /// Requests that change something until then, this one included.
    pub(crate) countdown: u32,
    /// The API server has done what was asked, and nobody is told.
    pub(crate) after: bool,
}

/// The proxy.
pub(crate) struct Proxy {
    kubeconfig: PathBuf,
    trap: Arc<Mutex<Option<Trap>>>,
    asked: Arc<Mutex<Vec<(String, String)>>>,
}

/// What becomes of a request.
#[derive(Clone, Copy)]
enum Fate {
    Passes,
    Dies(Trap),
}

impl Proxy {
    pub(crate) async fn start(client: Client, folder: &Path) -> Self {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let kubeconfig = folder.join("kubeconfig-proxy");
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters:\n- name: c\n  cluster: {{server: \
             'http://127.0.0.1:{port}'}}\nusers:\n- name: u\n  user: {{}}\ncontexts:\n- name: c\n  context: {{cluster: c, \
             user: u}}\n"
        );
        std::fs::write(&kubeconfig, text).unwrap();
        let trap = Arc::<Mutex<Option<Trap>>>::default();
        let asked = Arc::<Mutex<Vec<(String, String)>>>::default();
        let (set, kept) = (Arc::clone(&trap), Arc::clone(&asked));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (client, trap, asked) = (client.clone(), Arc::clone(&set), Arc::clone(&kept));
                let service = service_fn(move |request: Request<Incoming>| {
                    let what = (request.method().to_string(), request.uri().to_string());
                    asked.lock().unwrap().push(what);
                    forward(client.clone(), Arc::clone(&trap), request)
                });
                let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                // It ends with whoever it serves.
                tokio::spawn(async move { served.await.ok() });
            }
        });
        Self {
            kubeconfig,
            trap,
            asked,
        }
    }

    /// A controller that knows no other way.
    pub(crate) fn controller(&self, server: &Server, port: u16, arguments: &[&str]) -> Running {
        server.open_controller_by(&self.kubeconfig, "controller", port, arguments)
    }

    /// Methods and addresses of all requests so far.
    pub(crate) fn asked(&self) -> Vec<(String, String)> {
        self.asked.lock().unwrap().clone()
    }

    pub(crate) fn set(&self, trap: Trap) {
        *self.trap.lock().unwrap() = Some(trap);
    }

    /// Takes the trap away. Returns whether it has snapped.
    pub(crate) fn take(&self) -> bool {
        self.trap.lock().unwrap().take().is_none()
    }
}

fn fate(trap: &Mutex<Option<Trap>>, method: &Method) -> Fate {
    let mut trap = trap.lock().unwrap();
    let Some(set) = trap.as_mut().filter(|_| method != Method::GET) else {
        return Fate::Passes;
    };
    set.countdown -= 1;
    if set.countdown > 0 {
        return Fate::Passes;
    }
    trap.take().map_or(Fate::Passes, Fate::Dies)
}

async fn forward(
    client: Client,
    trap: Arc<Mutex<Option<Trap>>>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Box<dyn std::error::Error + Send + Sync>> {
    let (mut parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let fate = fate(&trap, &parts.method);
    if let Fate::Dies(Trap {
        victim, after: false, ..
    }) = fate
    {
        kill_process(victim, Signal::KILL)?;
        return Err("killed before".into());
    }
    // Set anew on the way to the API server.
    parts.headers.remove(http::header::HOST);
    let response = client
        .send(Request::from_parts(parts, Body::from(body.to_vec())))
        .await?;
    if let Fate::Dies(Trap { victim, .. }) = fate {
        kill_process(victim, Signal::KILL)?;
        return Err("killed after".into());
    }
    Ok(response)
}
