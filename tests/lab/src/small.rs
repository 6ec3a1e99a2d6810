//! The small lab: containers as network namespaces, veth pairs and cgroups, without Kubernetes; up in about a second.
//!
//! Guarantees:
//! * A container's process is in its cgroup and its network before its program begins.
//! * No peer calls before every peer listens and every rule, name and manifest is in place.
//! * However the owner of a lab ends, its processes end with it, and whoever starts the next lab removes what else is left.

mod cgroup;
mod cluster;
pub mod enter;
mod error;
mod ledgers;
mod network;
mod objects;
mod place;
mod process;
mod proxy;
mod state;
mod tool;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::app::{App, Kind};
use crate::peer::Call;

pub use cgroup::Driver;
pub use cluster::Addressing;
pub use error::Error;
use place::Claim;
pub use place::{Place, ids, owner};
use state::State;

/// How a lab is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// Distinguishes the labs of one machine.
    pub id: String,
    /// The program of every container; `lab-peer` beside this program if not given.
    pub peer: Option<PathBuf>,
    /// How cgroups are named.
    pub driver: Driver,
    /// Time between the runs of a `CronJob`: nobody waits here for the minute.
    pub cron_every: Duration,
}

impl Options {
    /// Usual options.
    pub fn new(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            peer: None,
            driver: Driver::default(),
            cron_every: Duration::from_secs(10),
        }
    }
}

/// A lab that runs as long as this value lives.
#[derive(Debug)]
pub struct Lab {
    shared: Arc<Shared>,
    cron: Option<JoinHandle<()>>,
    // Last, so that whatever else fails, this still removes everything.
    claim: Claim,
}

/// What the lab's threads share.
#[derive(Debug)]
struct Shared {
    /// `None` once the lab ends.
    state: Mutex<Option<State>>,
    ended: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<State>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lab {
    /// Starts an application.
    pub fn up(app: &App, options: &Options) -> Result<Self, Error> {
        let peer = match &options.peer {
            Some(peer) => peer.clone(),
            None => beside("lab-peer")?,
        };
        if !peer.is_file() {
            return Err(Error::NoPeer(peer));
        }
        let claim = Claim::take(&Place::of(&options.id)?)?;
        let mut state = State::new(app.clone(), claim.place().clone(), peer, options.driver)?;
        let finished = state.start_all()?;
        let shared = Arc::new(Shared {
            state: Mutex::new(Some(state)),
            ended: Condvar::new(),
        });
        for watched in finished {
            watch(&shared, watched);
        }
        let cron = app
            .workloads
            .iter()
            .any(|workload| workload.kind == Kind::CronJob)
            .then(|| {
                let (shared, every) = (Arc::clone(&shared), options.cron_every);
                thread::spawn(move || run_cron(&shared, every))
            });
        Ok(Self { shared, cron, claim })
    }

    /// Where everything is.
    pub fn place(&self) -> &Place {
        self.claim.place()
    }

    /// The cgroup folder that is the node's root.
    pub fn cgroup_root(&self) -> &Path {
        &self.place().cgroup_root
    }

    /// The folder with the cluster's manifests.
    pub fn cluster_dir(&self) -> &Path {
        &self.place().cluster
    }

    /// The file of the node's network namespace.
    pub fn node_netns(&self) -> &Path {
        &self.place().node_netns
    }

    /// The file of a pod's network namespace; `None` for a pod that is not there or is in the node's network.
    pub fn pod_netns(&self, namespace: &str, pod: &str) -> Option<PathBuf> {
        let path = network::path(&self.place().pod_namespace(namespace, pod));
        path.exists().then_some(path)
    }

    /// How many containers run now, the cluster's own among them.
    pub fn containers(&self) -> usize {
        self.shared.lock().as_ref().map_or(0, State::containers)
    }

    /// Has a workload's pods, or a host outside, speak one round of what they say only when told.
    pub fn say(&self, who: &str) -> Result<(), Error> {
        self.with(|state| state.say(who))
    }

    /// Every call that a workload's pods, or a host outside, have made so far: those of earlier pods as well.
    pub fn ledger(&self, who: &str) -> Result<Vec<Call>, Error> {
        self.with(|state| state.check_known(who))?;
        ledgers::of(self.place(), who)
    }

    /// Replaces a workload's pods by new ones, as a rolling restart does. A `CronJob` runs once more.
    pub fn roll(&self, who: &str) -> Result<(), Error> {
        self.roll_with(who, Addressing::Fresh)
    }

    /// Replaces a workload's pods by new ones. Where addresses are reused, the old pods go first.
    pub fn roll_with(&self, who: &str, addressing: Addressing) -> Result<(), Error> {
        let watched = self.with(|state| state.roll(who, addressing))?;
        for watched in watched {
            watch(&self.shared, watched);
        }
        Ok(())
    }

    /// Removes a workload and its pods.
    pub fn delete(&self, who: &str) -> Result<(), Error> {
        self.with(|state| state.delete(who))
    }

    /// Ends the lab and removes everything of it.
    pub fn down(mut self) -> Result<(), Error> {
        self.end()
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> Result<T, Error>) -> Result<T, Error> {
        let mut state = self.shared.lock();
        work(state.as_mut().ok_or_else(|| Error::NotUp(self.place().id.clone()))?)
    }

    fn end(&mut self) -> Result<(), Error> {
        let state = self.shared.lock().take();
        self.shared.ended.notify_all();
        let released = self.claim.release();
        if let Some(state) = state {
            state.reap();
        }
        if let Some(cron) = self.cron.take() {
            // It only waits for the end; what it did has been reported by itself.
            drop(cron.join());
        }
        released
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!(
                "lab {}: something is left: {:#}",
                self.place().id,
                anyhow::Error::from(error)
            );
        }
    }
}

/// A pod that ends by itself, and its process.
#[derive(Debug)]
struct Watched {
    uid: String,
    child: std::process::Child,
}

/// Notes the end of a pod that ends by itself.
fn watch(shared: &Arc<Shared>, mut watched: Watched) {
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        let succeeded = watched.child.wait().is_ok_and(|status| status.success());
        if let Some(state) = shared.lock().as_mut()
            && let Err(error) = state.finish(&watched.uid, succeeded)
        {
            eprintln!(
                "lab: a finished pod cannot be put away: {:#}",
                anyhow::Error::from(error)
            );
        }
    });
}

fn run_cron(shared: &Arc<Shared>, every: Duration) {
    let mut state = shared.lock();
    loop {
        let (woken, _timeout) = shared
            .ended
            .wait_timeout_while(state, every, |state| state.is_some())
            .unwrap_or_else(PoisonError::into_inner);
        state = woken;
        let Some(running) = state.as_mut() else { return };
        match running.run_cron_jobs() {
            Ok(finished) => {
                for watched in finished {
                    watch(shared, watched);
                }
            }
            Err(error) => eprintln!("lab: a CronJob cannot run: {:#}", anyhow::Error::from(error)),
        }
    }
}

/// A program of this project, in the folder that this one was built into.
pub fn beside(name: &str) -> Result<PathBuf, Error> {
    let own = std::env::current_exe().map_err(Error::file("found", "this program's own file"))?;
    let folder = own.parent().unwrap_or(Path::new("."));
    // Tests are built one folder deeper.
    let folder = if folder.ends_with("deps") {
        folder.parent().unwrap_or(folder)
    } else {
        folder
    };
    Ok(folder.join(name))
}

/// Removes what is left of a lab that is nobody's any more. `false`: there was none.
pub fn clear(id: &str) -> Result<bool, Error> {
    match Claim::abandoned(id)? {
        None => Ok(false),
        Some(mut claim) => claim.release().map(|()| true),
    }
}

/// Every call in a lab's ledgers, whether this process runs the lab or another one does.
pub fn ledgers(place: &Place) -> Result<Vec<Call>, Error> {
    ledgers::all(place)
}
