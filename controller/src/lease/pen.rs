//! The right to write, and the one place where requests are held against it.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Method, Request};
use kube::client::ClientBuilder;
use kube::{Client, Config};
use rustix::time::{ClockId, clock_gettime};
use tower::{BoxError, Service};

/// A moment as the machine counts them, sleep included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Boot(u64);

impl Boot {
    /// This moment.
    pub fn now() -> Self {
        let time = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        let nanos = u64::try_from(time.tv_nsec).unwrap_or_default();
        Self(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
    }

    /// So much later.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)),
        )
    }

    fn until(self, later: Self) -> Duration {
        Duration::from_nanos(later.0.saturating_sub(self.0))
    }
}

/// A request that was not sent, or given up, because another controller may lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this controller does not hold the Lease (any more), and writes nothing without it")]
pub struct NotHolding;

/// The right to write, until a moment. Clones share it.
#[derive(Clone, Debug)]
pub struct Pen(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    until: AtomicU64,
    /// The term that it is for, and the one that whoever decides what to write knows of.
    term: AtomicI64,
    adopted: AtomicI64,
}

impl Pen {
    /// Of a controller that nobody has given it to.
    pub fn none() -> Self {
        Self::of(0, -1)
    }

    /// Of a controller that is known to be the only one.
    pub fn always() -> Self {
        Self::of(u64::MAX, 0)
    }

    fn of(until: u64, adopted: i64) -> Self {
        Self(Arc::new(Shared {
            until: AtomicU64::new(until),
            term: AtomicI64::new(0),
            adopted: AtomicI64::new(adopted),
        }))
    }

    /// Whether something may be written now.
    pub fn may_write(&self) -> bool {
        let Shared {
            until: _,
            term,
            adopted,
        } = &*self.0;
        adopted.load(Ordering::SeqCst) == term.load(Ordering::SeqCst) && Boot::now() < self.end()
    }

    /// Says that what is written from now on was decided from the durable state as this term found it. Without this, nothing is.
    pub fn adopt(&self, term: i32) {
        self.0.adopted.store(term.into(), Ordering::SeqCst);
    }

    pub(super) fn hand_over(&self, term: i32, until: Boot) {
        self.0.term.store(term.into(), Ordering::SeqCst);
        self.0.until.store(until.0, Ordering::SeqCst);
    }

    pub(super) fn take_away(&self) {
        self.0.until.store(0, Ordering::SeqCst);
    }

    fn end(&self) -> Boot {
        Boot(self.0.until.load(Ordering::SeqCst))
    }

    /// A client whose every request that changes something is held against this.
    pub fn client(&self, config: Config) -> kube::Result<Client> {
        let pen = self.clone();
        let held = tower::layer::layer_fn(move |service| Held {
            service,
            pen: pen.clone(),
        });
        Ok(ClientBuilder::try_from(config)?.with_layer(&held).build())
    }

    /// Goes on with `work` only while something may be written. A renewal gives it more time.
    async fn bound<T, E: Into<BoxError>>(self, work: impl Future<Output = Result<T, E>>) -> Result<T, BoxError> {
        let mut work = pin!(work);
        loop {
            let left = Boot::now().until(self.end());
            // Asked before each step of the work: a step may come after the process was frozen.
            let step = poll_fn(|context| {
                if self.may_write() {
                    work.as_mut().poll(context).map_err(Into::into)
                } else {
                    Poll::Ready(Err(NotHolding.into()))
                }
            });
            if let Ok(done) = tokio::time::timeout(left, step).await {
                return done;
            }
        }
    }
}

#[derive(Clone, Debug)]
struct Held<S> {
    service: S,
    pen: Pen,
}

impl<S, B> Service<Request<B>> for Held<S>
where
    S: Service<Request<B>>,
    S::Error: Into<BoxError> + 'static,
    S::Future: Send + 'static,
    S::Response: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.service.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let reads = request.method() == Method::GET;
        if !reads && !self.pen.may_write() {
            return Box::pin(std::future::ready(Err(NotHolding.into())));
        }
        let work = self.service.call(request);
        if reads {
            Box::pin(async move { work.await.map_err(Into::into) })
        } else {
            Box::pin(self.pen.clone().bound(work))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[tokio::test]
    async fn what_changes_something_is_not_even_asked_for_without_the_right() {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let service = tower::service_fn(move |_: Request<()>| {
            count.fetch_add(1, Ordering::SeqCst);
            std::future::ready(Ok::<(), BoxError>(()))
        });
        let pen = Pen::none();
        let mut held = Held {
            service,
            pen: pen.clone(),
        };
        let request = |method: Method| Request::builder().method(method).body(()).unwrap();
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let refused = held.call(request(method)).await.unwrap_err();
            assert!(refused.is::<NotHolding>());
        }
        assert_eq!(asked.load(Ordering::SeqCst), 0);
        held.call(request(Method::GET)).await.unwrap();
        pen.hand_over(7, Boot::now().after(Duration::from_mins(1)));
        held.call(request(Method::PATCH)).await.unwrap_err();
        pen.adopt(7);
        held.call(request(Method::PATCH)).await.unwrap();
        pen.take_away();
        held.call(request(Method::PATCH)).await.unwrap_err();
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn what_hangs_is_given_up_when_the_right_ends_and_goes_on_when_it_is_renewed() {
        let pen = Pen::none();
        pen.adopt(1);
        pen.hand_over(1, Boot::now().after(Duration::from_millis(50)));
        let hangs = std::future::pending::<Result<(), BoxError>>();
        assert!(pen.clone().bound(hangs).await.unwrap_err().is::<NotHolding>());

        pen.hand_over(1, Boot::now().after(Duration::from_millis(50)));
        let (answer, answered) = tokio::sync::oneshot::channel::<()>();
        let renewed = pen.clone();
        let work = pen.bound(answered);
        tokio::spawn(async move {
            renewed.hand_over(1, Boot::now().after(Duration::from_mins(1)));
            tokio::time::sleep(Duration::from_millis(100)).await;
            answer.send(()).unwrap();
        });
        work.await.unwrap();
    }
}
