//! What runs on the network of a node itself: units of systemd, and pods that have no network of their own.
//!
//! A node is one endpoint, because that is all that a policy can name: its addresses. Who of it spoke is told beside the edge.
//!
//! Law: a name is what the node says, whatever characters it has: whoever prints it has to take care.

use std::collections::BTreeSet;
use std::fmt;

use crate::endpoint::Workload;
use crate::hosted::{Hosted, hosted};

/// Who of a node it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Process {
    /// A systemd unit, by its name.
    Unit(String),
    /// A container that no kubelet started, by the beginning of its id.
    Container(String),
    /// Pods on the node's network.
    Workload(Workload),
}

impl Process {
    /// As long as a folder's name can be.
    pub const LONGEST: usize = 255;

    /// So many are kept for one end of an edge: enough to tell a person, and no list that grows.
    pub const KEPT: usize = 4;

    /// What a cgroup path of the host says, if it says it.
    pub fn of_path(path: &str) -> Option<Self> {
        let who = hosted(path);
        let name = who.to_string();
        if name.len() > Self::LONGEST {
            return None;
        }
        match who {
            Hosted::Unit(_) => Some(Self::Unit(name)),
            Hosted::Container(_) => Some(Self::Container(name)),
            Hosted::Other => None,
        }
    }

    /// Puts one among those of an edge. Of more than are kept the first in order stay, in whatever order they came.
    pub fn keep(kept: &mut BTreeSet<Self>, process: &Self) {
        if !kept.contains(process) {
            kept.insert(process.clone());
            if kept.len() > Self::KEPT {
                kept.pop_last();
            }
        }
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unit(name) => f.write_str(name),
            Self::Container(id) => write!(f, "container {id}"),
            Self::Workload(workload) => workload.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_of_a_node() {
        for (path, expected) in [
            ("/system.slice/kubelet.service", Some("kubelet.service")),
            ("/system.slice/kubelet.service/helper", Some("kubelet.service")),
            ("/user.slice/user-0.slice/session-1.scope", Some("session-1.scope")),
            ("/", None),
        ] {
            let process = Process::of_path(path).map(|process| process.to_string());
            assert_eq!(process.as_deref(), expected, "{path}");
        }
        assert_eq!(
            Process::of_path(&format!("/{}.service", "x".repeat(Process::LONGEST))),
            None
        );
    }

    proptest! {
        #[test]
        fn which_stay_does_not_depend_on_their_order(names in prop::collection::vec("[a-h]", 0..12)) {
            let kept = |names: &[String]| {
                let mut kept = BTreeSet::new();
                for name in names {
                    Process::keep(&mut kept, &Process::Unit(name.clone()));
                }
                kept
            };
            let mut sorted = names.clone();
            sorted.sort();
            prop_assert!(kept(&names).len() <= Process::KEPT);
            prop_assert_eq!(kept(&names), kept(&sorted));
        }
    }
}
