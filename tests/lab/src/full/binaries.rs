//! The cluster's programs, built from Go modules when they are missing.

use std::path::PathBuf;

use crate::go::{Error, Module, ensure};

const KUBERNETES: Module = Module {
    name: "kubernetes",
    about: "about 8 minutes",
    package: ".",
    // The API server tells this version to its clients, and refuses to start without one that parses.
    ldflags: "-s -w -X k8s.io/component-base/version.gitVersion=v1.36.3 \
              -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36",
    files: &[
        ("go.mod", include_str!("../../kubernetes/go.mod")),
        ("go.sum", include_str!("../../kubernetes/go.sum")),
        ("main.go", include_str!("../../kubernetes/main.go")),
    ],
    links: &[
        "kube-apiserver",
        "kube-controller-manager",
        "kube-proxy",
        "kube-scheduler",
        "kubectl",
        "kubelet",
    ],
};

const KUBE_ROUTER: Module = Module {
    name: "kube-router",
    about: "about 2 minutes",
    package: "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router",
    ldflags: "-s -w",
    files: &[
        ("go.mod", include_str!("../../kube-router/go.mod")),
        ("go.sum", include_str!("../../kube-router/go.sum")),
    ],
    links: &[],
};

const COREDNS: Module = Module {
    name: "coredns",
    about: "about 2 minutes",
    package: ".",
    ldflags: "-s -w",
    files: &[
        ("go.mod", include_str!("../../coredns/go.mod")),
        ("go.sum", include_str!("../../coredns/go.sum")),
        ("main.go", include_str!("../../coredns/main.go")),
    ],
    links: &[],
};

const PAUSE: Module = Module {
    name: "pause",
    about: "a few seconds",
    package: ".",
    ldflags: "-s -w",
    files: &[
        ("go.mod", include_str!("../../pause/go.mod")),
        ("main.go", include_str!("../../pause/main.go")),
    ],
    links: &[],
};

/// Where the built programs are.
#[derive(Clone, Debug)]
pub struct Binaries {
    kubernetes: PathBuf,
    /// The NetworkPolicy engine.
    pub kube_router: PathBuf,
    /// Cluster DNS, static.
    pub coredns: PathBuf,
    /// What holds a pod's namespaces open, static.
    pub pause: PathBuf,
}

impl Binaries {
    /// Builds what is missing. Says through `say` what it builds and about how long that takes.
    pub fn ensure(say: &dyn Fn(&str)) -> Result<Self, Error> {
        Ok(Self {
            pause: ensure(&PAUSE, say)?.join(PAUSE.name),
            coredns: ensure(&COREDNS, say)?.join(COREDNS.name),
            kube_router: ensure(&KUBE_ROUTER, say)?.join(KUBE_ROUTER.name),
            kubernetes: ensure(&KUBERNETES, say)?,
        })
    }

    /// The Kubernetes program of this name (`kubelet`, `kubectl`, ...).
    pub fn kubernetes(&self, program: &str) -> PathBuf {
        self.kubernetes.join(program)
    }
}
