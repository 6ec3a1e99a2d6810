//! Who writes: of all controllers the one that holds the Lease.
//!
//! Laws:
//! * what changes the cluster is neither begun nor gone on with later than seven tenths of the Lease's time after its last renewal was asked
//!   for, and nobody else takes the Lease before all of its time has passed;
//! * time is what passes on the machine, sleep included: a process that is frozen and thawed knows at once that its time is over;
//! * nobody compares two machines' clocks: another's Lease is over when it was seen unchanged for its whole time;
//! * a holder that cannot reach the API server keeps what it knows; only another holder ends its term.
//!
//! What is left open: a request that was handed to the operating system before a freeze is on its way and cannot be called back.

mod pen;
#[cfg(test)]
mod tests;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Client;
use kube::api::{Api, PostParams};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::trouble::{Trouble, chain};

pub use self::pen::{Boot, NotHolding, Pen};

/// Name of the Lease, in the controllers' own namespace.
pub const LEASE: &str = "nanoseg-controller";

/// How long a controller that ends tries to give the Lease back. Without it the next one waits for its end.
const GIVING_BACK: Duration = Duration::from_secs(2);

/// Whether this controller is the one that decides and writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Another one does, or none is known yet.
    Follows {
        /// Who holds the Lease, as far as is known.
        holder: Option<String>,
    },
    /// It does.
    Leads {
        /// Its term. In a term with another number, what is known is to be read anew from the cluster: another may have led in
        /// between.
        term: i32,
    },
}

/// How long what lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How long a Lease is good that nobody renews.
    pub lease: Duration,
}

impl Terms {
    /// How often it is looked at and renewed: one lost answer does not end a term.
    fn renew(self) -> Duration {
        self.lease / 5
    }

    /// How long after a renewal its holder writes. The rest is for what the API server is still working on.
    fn write(self) -> Duration {
        self.lease * 7 / 10
    }

    fn seconds(self) -> i32 {
        let whole = self.lease.as_secs() + u64::from(self.lease.subsec_nanos() > 0);
        i32::try_from(whole.max(1)).unwrap_or(i32::MAX)
    }
}

/// A Lease that was seen, and since when it is as it is.
#[derive(Clone, Debug)]
struct Observed {
    version: Option<String>,
    since: Boot,
}

/// What there is to do with the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It is this controller's own: renew it.
    Renew,
    /// It is nobody's, or its holder is silent: begin a term.
    Take,
    /// Another holds it.
    Wait,
}

/// Why the Lease could not be looked at or written.
#[derive(Debug, thiserror::Error)]
enum LeaseError {
    #[error("cannot {verb} Lease {namespace}/{LEASE}")]
    Api {
        verb: &'static str,
        namespace: String,
        source: Trouble,
    },
    #[error("no answer about Lease {namespace}/{LEASE} in time")]
    Silence { namespace: String },
}

/// A controller's part in the Lease.
#[derive(Debug)]
pub struct Leadership {
    standing: watch::Receiver<Standing>,
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Leadership {
    /// Begins to ask for the Lease, under this name. What `pen` lets through follows from it.
    pub fn seek(client: &Client, namespace: &str, name: String, terms: Terms, pen: Pen) -> Self {
        let (tell, standing) = watch::channel(Standing::Follows { holder: None });
        let (end, ended) = oneshot::channel();
        let candidate = Candidate {
            leases: Api::namespaced(client.clone(), namespace),
            namespace: namespace.to_owned(),
            name,
            terms,
            pen,
            observed: None,
            term: None,
            tell,
        };
        // A task of its own: however long a round thinks, the Lease is renewed.
        let task = tokio::spawn(candidate.campaign(ended));
        Self { standing, end, task }
    }

    /// Whether this controller leads, now and later.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// Gives the Lease back, so that the next one need not wait for its end.
    pub async fn give_back(self) {
        let Self { standing, end, task } = self;
        drop(standing);
        if end.send(()).is_ok() && tokio::time::timeout(GIVING_BACK, task).await.is_err() {
            tracing::warn!("the Lease could not be given back; another controller takes over when it has ended");
        }
    }
}

struct Candidate {
    leases: Api<Lease>,
    namespace: String,
    name: String,
    terms: Terms,
    pen: Pen,
    observed: Option<Observed>,
    /// The number of the term that is this controller's own.
    term: Option<i32>,
    tell: watch::Sender<Standing>,
}

impl Candidate {
    async fn campaign(mut self, mut ended: oneshot::Receiver<()>) {
        let mut complained = false;
        loop {
            let asked = tokio::time::timeout(self.terms.renew() * 2, self.look());
            let outcome = tokio::select! {
                _ = &mut ended => break,
                outcome = asked => outcome.unwrap_or_else(|_elapsed| Err(LeaseError::Silence { namespace: self.namespace.clone() })),
            };
            match outcome {
                Ok(()) => complained = false,
                Err(error) => {
                    if !std::mem::replace(&mut complained, true) {
                        tracing::warn!("{}; nothing is written without it, trying again", chain(&error));
                    }
                }
            }
            tokio::select! {
                _ = &mut ended => break,
                () = tokio::time::sleep(self.terms.renew()) => {}
            }
        }
        self.pen.take_away();
        if self.term.is_some()
            && let Err(error) = self.release().await
        {
            tracing::warn!("{}", chain(&error));
        }
    }

    /// Looks at the Lease once, and does what there is to do.
    async fn look(&mut self) -> Result<(), LeaseError> {
        let found = self.leases.get_opt(LEASE).await.map_err(self.trouble("read"))?;
        let now = Boot::now();
        let step = step(found.as_ref(), &self.name, self.term, self.observed.as_ref(), now);
        self.observe(found.as_ref(), now);
        match step {
            Step::Wait => {
                let holder = found.and_then(|lease| lease.spec?.holder_identity);
                self.pen.take_away();
                self.term = None;
                self.stand(Standing::Follows { holder });
                Ok(())
            }
            Step::Renew | Step::Take => {
                let lease = self.held(found, step);
                // Before it is asked for: others count from when they see it, which is later.
                let asked = Boot::now();
                let term = lease
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.lease_transitions)
                    .unwrap_or_default();
                let written = match lease.metadata.resource_version {
                    None => self.leases.create(&PostParams::default(), &lease).await,
                    // The version that was read makes this fail if anybody else wrote in between.
                    Some(_) => self.leases.replace(LEASE, &PostParams::default(), &lease).await,
                };
                match written {
                    Ok(lease) => {
                        self.term = Some(term);
                        self.observe(Some(&lease), asked);
                        self.pen.hand_over(term, asked.after(self.terms.write()));
                        self.stand(Standing::Leads { term });
                        Ok(())
                    }
                    // Somebody was faster. Whose it is now is seen the next time.
                    Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
                    Err(error) => Err(self.trouble("write")(error)),
                }
            }
        }
    }

    fn held(&self, found: Option<Lease>, step: Step) -> Lease {
        let now = MicroTime(Timestamp::now());
        let mut lease = found.unwrap_or_else(|| Lease {
            metadata: ObjectMeta {
                name: Some(LEASE.to_owned()),
                namespace: Some(self.namespace.clone()),
                ..ObjectMeta::default()
            },
            spec: None,
        });
        let before = lease.spec.take().unwrap_or_default();
        let (acquired, number) = match step {
            Step::Renew => (before.acquire_time, before.lease_transitions),
            Step::Take | Step::Wait => (
                Some(now.clone()),
                Some(before.lease_transitions.map_or(0, |number| number.saturating_add(1))),
            ),
        };
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.name.clone()),
            lease_duration_seconds: Some(self.terms.seconds()),
            acquire_time: acquired,
            renew_time: Some(now),
            lease_transitions: number,
            ..LeaseSpec::default()
        });
        lease
    }

    fn observe(&mut self, lease: Option<&Lease>, now: Boot) {
        let version = lease.and_then(|lease| lease.metadata.resource_version.clone());
        if self
            .observed
            .as_ref()
            .is_none_or(|observed| observed.version != version)
        {
            self.observed = Some(Observed { version, since: now });
        }
    }

    fn stand(&self, standing: Standing) {
        self.tell.send_if_modified(|known| {
            if *known == standing {
                return false;
            }
            match (&*known, &standing) {
                (_, Standing::Leads { term }) => tracing::info!(name = self.name, term, "this controller leads"),
                (_, Standing::Follows { holder: Some(holder) }) => {
                    tracing::info!(
                        name = self.name,
                        holder,
                        "another controller leads, this one watches and writes nothing"
                    );
                }
                (Standing::Leads { .. }, Standing::Follows { holder: None }) => {
                    tracing::info!(name = self.name, "this controller leads no more");
                }
                (Standing::Follows { .. }, Standing::Follows { holder: None }) => {}
            }
            *known = standing;
            true
        });
    }

    async fn release(&self) -> Result<(), LeaseError> {
        let found = self.leases.get_opt(LEASE).await.map_err(self.trouble("read"))?;
        let Some(mut lease) = found else { return Ok(()) };
        if step(Some(&lease), &self.name, self.term, None, Boot::now()) != Step::Renew {
            return Ok(());
        }
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = None;
            spec.acquire_time = None;
        }
        match self.leases.replace(LEASE, &PostParams::default(), &lease).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(self.trouble("give back")(error)),
        }
    }

    fn trouble(&self, verb: &'static str) -> impl FnOnce(kube::Error) -> LeaseError {
        let namespace = self.namespace.clone();
        move |source| LeaseError::Api {
            verb,
            namespace,
            source: source.into(),
        }
    }
}

/// What a controller of this name does that finds the Lease so. `term`: the number of its own term, while it believes in one.
fn step(lease: Option<&Lease>, name: &str, term: Option<i32>, observed: Option<&Observed>, now: Boot) -> Step {
    let Some(lease) = lease else { return Step::Take };
    let spec = lease.spec.as_ref();
    let holder = spec
        .and_then(|spec| spec.holder_identity.as_deref())
        .unwrap_or_default();
    let number = spec.and_then(|spec| spec.lease_transitions);
    if holder.is_empty() {
        return Step::Take;
    }
    if holder == name {
        // Of another term, it was held by a process before this one that had the same name, and there is one of a name at a time.
        return if term.is_some() && term == number {
            Step::Renew
        } else {
            Step::Take
        };
    }
    let seconds = spec.and_then(|spec| spec.lease_duration_seconds).unwrap_or_default();
    let good_for = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    let unchanged = observed.is_some_and(|observed| {
        observed.version == lease.metadata.resource_version && observed.since.after(good_for) <= now
    });
    if unchanged { Step::Take } else { Step::Wait }
}
