//! nanoseg itself on a running full lab, from the manifests that it ships.

use std::path::Path;

use super::error::Error;
use super::{Cluster, Image, process};

/// The image that the shipped manifests name.
const IMAGE: &str = "nanoseg/nanoseg:0.1.0";

/// The image with both programs, which are in `folder`.
pub fn with_image<T>(folder: &Path, work: impl FnOnce(&Image<'_>) -> T) -> T {
    let (controller, learner) = (folder.join("nanoseg"), folder.join("nanoseg-learner"));
    work(&Image {
        name: IMAGE,
        files: &[(&controller, "/nanoseg"), (&learner, "/nanoseg-learner")],
        entrypoint: &["/nanoseg"],
    })
}

impl Cluster {
    /// Loads the image with the programs in `folder` and applies the manifests, then waits until the controller and a learner
    /// on each node run. `enforce` are values of the controller's `--enforce`.
    ///
    /// The manifests are applied as they are, but for where a lab's node keeps its cgroups: two nodes share this machine's
    /// tree, and each has a folder in it.
    pub fn install(&self, folder: &Path, manifests: &Path, enforce: &[String]) -> Result<(), Error> {
        with_image(folder, |image| self.load_image(image))?;
        self.apply_objects(&self.manifests(manifests, enforce)?)?;
        for workload in ["deployment/nanoseg-controller", "daemonset/nanoseg-learner"] {
            let arguments = ["rollout", "status", "--namespace=nanoseg", "--timeout=180s", workload];
            process::output(self.kubectl().args(arguments))?;
        }
        Ok(())
    }

    fn manifests(&self, manifests: &Path, enforce: &[String]) -> Result<String, Error> {
        let shipped = process::output(self.kubectl().arg("kustomize").arg(manifests))?;
        let mut text = String::from_utf8_lossy(&shipped).into_owned();
        let Some(node) = self.nodes().first() else {
            return Ok(text);
        };
        let mount = node.cgroup.parent().unwrap_or(&node.cgroup).display().to_string();
        let name = node.cgroup.file_name().unwrap_or_default().to_string_lossy();
        let prefix = name.strip_suffix(node.name.as_str()).unwrap_or(&name);
        let flags: Vec<String> = enforce
            .iter()
            .map(|value| format!("        - --enforce={value}\n"))
            .collect();
        let flags = flags.concat();
        let edits = [
            (
                "--cgroup-root=/host/cgroup\n",
                format!("--cgroup-root=/host/cgroup/{prefix}$(NODE_NAME)\n"),
            ),
            ("path: /sys/fs/cgroup\n", format!("path: {mount}\n")),
            ("        - controller\n", format!("        - controller\n{flags}")),
        ];
        for (from, to) in edits {
            if text.matches(from).count() != 1 {
                return Err(Error::Shipped {
                    folder: manifests.to_owned(),
                    expected: from.trim(),
                });
            }
            text = text.replace(from, &to);
        }
        Ok(text)
    }
}
