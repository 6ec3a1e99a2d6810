//! A real API server on loopback: etcd and kube-apiserver, nothing else. No nodes: pods are objects whose status is written.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tempfile::TempDir;

/// The multi-call program with `kube-apiserver` in it: what the lab builds, or what the variable names.
///
/// Where nothing may be skipped, it has to be there.
pub(crate) fn kubernetes() -> Option<PathBuf> {
    let found = built();
    assert!(
        found.is_some() || std::env::var_os("NANOSEG_REQUIRE_ROOT").is_none(),
        "kube-apiserver is not built: run `lab build --full`"
    );
    found
}

fn built() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("NANOSEG_KUBERNETES") {
        return Some(path.into());
    }
    let home = PathBuf::from(std::env::var_os("HOME")?);
    let mut found: Vec<PathBuf> = fs::read_dir(home.join(".cache/nanoseg-lab"))
        .ok()?
        .flatten()
        .map(|entry| entry.path().join("kubernetes"))
        .filter(|path| path.is_file())
        .collect();
    found.sort();
    found.pop()
}

/// A process that ends with the test, and with the thread that started it whatever becomes of that.
pub(crate) struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    pub(crate) fn start(command: &Command, log: PathBuf) -> Self {
        let file = File::options().create(true).append(true).open(&log).unwrap();
        let mut dying = Command::new("setpriv");
        dying.args(["--pdeathsig", "KILL", "--"]);
        dying.arg(command.get_program()).args(command.get_args());
        dying.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        dying
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file);
        Self {
            child: dying.spawn().unwrap(),
            log,
        }
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Asks it to end, and returns its exit code.
    pub(crate) fn terminate(&mut self) -> Option<i32> {
        self.signal(rustix::process::Signal::TERM);
        self.child.wait().unwrap().code()
    }

    /// Keeps it from running, as a host does that swaps or sleeps.
    pub(crate) fn freeze(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    pub(crate) fn thaw(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    pub(crate) fn logged(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.log.ends_with("etcd.log") {
            let log = self.logged();
            let last = log.lines().count().saturating_sub(60);
            let lines: Vec<&str> = log.lines().skip(last).collect();
            println!("--- {}\n{}", self.log.display(), lines.join("\n"));
        }
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// What a program that answers probes says there, status and all. Its log says where it answers.
pub(crate) fn probe(program: &Running, path: &str) -> String {
    let log = program.logged();
    let told = log.lines().find(|line| line.contains("answering /healthz")).unwrap();
    let address = told.split("address=").nth(1).unwrap().split(' ').next().unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub(crate) struct Server {
    pub(crate) folder: TempDir,
    program: PathBuf,
    pub(crate) etcd_port: u16,
    port: u16,
    api: Option<Running>,
    etcd_command: Command,
    etcd: Running,
}

impl Server {
    /// A controller of this cluster with these arguments beside; its log is named after it.
    pub(crate) fn controller(&self, name: &str, arguments: &[&str]) -> Running {
        self.controller_by(&self.kubeconfig(), name, arguments)
    }

    /// The same, which reaches the API server as a kubeconfig says.
    fn controller_by(&self, kubeconfig: &Path, name: &str, arguments: &[&str]) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nanoseg"));
        command
            .arg("controller")
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(arguments);
        Running::start(&command, self.folder.path().join(format!("{name}.log")))
    }

    /// The same, taking reports of whoever connects to this port.
    pub(crate) fn open_controller(&self, name: &str, port: u16, arguments: &[&str]) -> Running {
        self.open_controller_by(&self.kubeconfig(), name, port, arguments)
    }

    /// Both.
    pub(crate) fn open_controller_by(&self, kubeconfig: &Path, name: &str, port: u16, arguments: &[&str]) -> Running {
        let listen = format!("127.0.0.1:{port}");
        let arguments = [&["--listen", &listen, "--insecure-learners"], arguments].concat();
        self.controller_by(kubeconfig, name, &arguments)
    }

    pub(crate) async fn start(kubernetes: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        // The program looks at the name by which it is called.
        let program = at("kube-apiserver");
        std::os::unix::fs::symlink(kubernetes, &program).unwrap();
        let key = Command::new("openssl")
            .args(["genrsa", "-out"])
            .arg(at("key"))
            .arg("2048")
            .output()
            .unwrap();
        assert!(key.status.success(), "openssl genrsa failed");
        fs::write(
            at("tokens.csv"),
            "secret,admin,admin,system:masters\nseen,viewer,viewer\n",
        )
        .unwrap();
        let (etcd_port, peer_port, port) = (free_port(), free_port(), free_port());
        let peers = format!("http://127.0.0.1:{peer_port}");
        let clients = format!("http://127.0.0.1:{etcd_port}");
        let mut etcd_command = Command::new("etcd");
        etcd_command.arg("--data-dir").arg(at("etcd")).args([
            "--listen-client-urls",
            &clients,
            "--advertise-client-urls",
            &clients,
            "--listen-peer-urls",
            &peers,
            "--initial-advertise-peer-urls",
            &peers,
            "--initial-cluster",
            &format!("default={peers}"),
        ]);
        let etcd = Running::start(&etcd_command, at("etcd.log"));
        fs::write(
            at("kubeconfig"),
            format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters:\n- name: c\n  cluster: {{server: \
                 'https://127.0.0.1:{port}', insecure-skip-tls-verify: true}}\nusers:\n- name: u\n  user: {{token: \
                 secret}}\ncontexts:\n- name: c\n  context: {{cluster: c, user: u}}\n"
            ),
        )
        .unwrap();
        let mut server = Self {
            folder,
            program,
            etcd_port,
            port,
            api: None,
            etcd_command,
            etcd,
        };
        server.resume().await;
        server
    }

    /// Starts controllers of the cluster, each of which acts by a `ServiceAccount` of its own.
    pub(crate) fn start_controllers(&self, names: &[&str]) -> Running {
        let at = |name: &str| self.folder.path().join(name);
        let program = at("kube-controller-manager");
        if !program.exists() {
            std::os::unix::fs::symlink(&self.program, &program).unwrap();
        }
        let mut command = Command::new(program);
        command.args([
            format!("--kubeconfig={}", self.kubeconfig().display()),
            format!("--service-account-private-key-file={}", at("key").display()),
            format!("--cert-dir={}", at("certificates").display()),
            format!("--controllers={}", names.join(",")),
            "--use-service-account-credentials".to_owned(),
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
        ]);
        Running::start(&command, at("controller-manager.log"))
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// Kills etcd and starts it again on what it has kept.
    pub(crate) fn restart_etcd(&mut self) {
        self.etcd.kill();
        self.etcd = Running::start(&self.etcd_command, self.folder.path().join("etcd.log"));
    }

    /// Stops the API server; what it keeps stays.
    pub(crate) fn pause(&mut self) {
        self.api = None;
    }

    /// Starts the API server and waits until it is ready.
    pub(crate) async fn resume(&mut self) {
        let at = |name: &str| self.folder.path().join(name).display().to_string();
        let mut command = Command::new(&self.program);
        command.args([
            format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", at("key")),
            format!("--service-account-signing-key-file={}", at("key")),
            format!("--token-auth-file={}", at("tokens.csv")),
            "--authorization-mode=RBAC".to_owned(),
            "--service-cluster-ip-range=198.19.0.0/20".to_owned(),
            format!("--cert-dir={}", at("certificates")),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            format!("--secure-port={}", self.port),
            // Nobody makes ServiceAccounts here, and no API server's address is to be an endpoint.
            "--disable-admission-plugins=ServiceAccount".to_owned(),
            "--endpoint-reconciler-type=none".to_owned(),
        ]);
        let api = Running::start(&command, self.folder.path().join("api-server.log"));
        let client = self.client().await;
        let began = Instant::now();
        loop {
            let ready = http_ready(&client).await;
            if ready {
                break;
            }
            assert!(
                began.elapsed() < Duration::from_mins(1),
                "the API server is not ready:\n{}",
                api.logged()
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        self.api = Some(api);
    }

    pub(crate) async fn client(&self) -> Client {
        client_of(&self.kubeconfig()).await
    }
}

/// A client for the API server of a kubeconfig.
pub(crate) async fn client_of(kubeconfig: &Path) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    Client::try_from(config).unwrap()
}

async fn http_ready(client: &Client) -> bool {
    use k8s_openapi::api::core::v1::Namespace;
    let namespaces: kube::Api<Namespace> = kube::Api::all(client.clone());
    // Ready for writes too: the built-in namespaces are made by then.
    namespaces
        .get_opt("kube-system")
        .await
        .is_ok_and(|found| found.is_some())
}
