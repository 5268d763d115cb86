//! The service.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use crate::body::{BoxError, CacheBody};
use crate::exchange::{Answer, AtOnce, Exchange};
use crate::layer::Rules;

/// A service whose responses are cached; made by [`CacheLayer`](crate::CacheLayer).
///
/// It is always ready: a hit needs no service. Where one is needed a clone of it is made, waited for until it is ready, and called, within the
/// call. So what limits, buffers or sheds load within this layer does so for requests that go on, and for these alone.
pub struct CacheService<S>(Arc<Shared<S>>);

/// What all clones share: routers clone a service for each request, and most hits need no clone of the one within.
struct Shared<S> {
    /// Services need not be `Sync`.
    inner: Mutex<S>,
    rules: Arc<Rules>,
}

impl<S> CacheService<S> {
    pub(crate) fn new(inner: S, rules: Arc<Rules>) -> Self {
        Self(Arc::new(Shared { inner: Mutex::new(inner), rules }))
    }
}

impl<S> Clone for CacheService<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S> std::fmt::Debug for CacheService<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CacheService").field("cache", &self.0.rules.cache).finish_non_exhaustive()
    }
}

/// A service of HTTP that can be cloned and sent: what a cache needs of the one within. Implemented for all that are.
pub(crate) trait HttpService<Q>: Clone + Send + 'static {
    type Answer: Body<Data: Send, Error: Into<BoxError>> + Send + 'static;
    type Fault: Send + 'static;

    /// Waits until it is ready, and calls it.
    fn ask(
        self,
        request: Request<Q>,
    ) -> impl Future<Output = Result<Response<Self::Answer>, Self::Fault>> + Send;
}

impl<S, Q, A> HttpService<Q> for S
where
    S: Service<Request<Q>, Response = Response<A>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send + 'static,
    Q: Send,
    A: Body + Send + 'static,
    A::Data: Send,
    A::Error: Into<BoxError>,
{
    type Answer = A;
    type Fault = S::Error;

    async fn ask(mut self, request: Request<Q>) -> Result<Response<A>, S::Error> {
        std::future::poll_fn(|cx| self.poll_ready(cx)).await?;
        self.call(request).await
    }
}

impl<S, Q, A> Service<Request<Q>> for CacheService<S>
where
    S: Service<Request<Q>, Response = Response<A>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send + 'static,
    Q: Body + Send + 'static,
    A: Body + Send + 'static,
    A::Data: Send,
    A::Error: Into<BoxError>,
{
    type Response = Response<CacheBody<A>>;
    type Error = S::Error;
    type Future = ResponseFuture<A, S::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        // An answer is large: it is written to its place, not moved there.
        let mut future = ResponseFuture(Answering::AtOnce(None));
        // Users' code panics in the future, as it did if it had to wait: what called may serve others.
        let answer = AssertUnwindSafe(|| self.0.answer(request, &mut future.0));
        if let Err(panic) = catch_unwind(answer) {
            future.0 = Answering::Panicked(Some(panic));
        }
        future
    }
}

impl<S> Shared<S> {
    /// Begins to answer, and leaves there how.
    #[inline]
    fn answer<Q>(&self, request: Request<Q>, answering: &mut Answering<S::Answer, S::Fault>)
    where
        S: HttpService<Q>,
        Q: Body + Send + 'static,
    {
        let at_once = match self.rules.at_once(&request) {
            AtOnce::Hit(response) => {
                *answering = Answering::AtOnce(Some(response));
                return;
            }
            at_once => at_once,
        };
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let exchange = Exchange { rules: self.rules.clone(), inner };
        *answering = Answering::Later(match at_once {
            AtOnce::Found(key, lookup, watch) => Box::pin(exchange.decide(request, key, lookup, watch)),
            AtOnce::Begun(key, begun, watch) => Box::pin(async move {
                let lookup = begun.end(&exchange.rules, &key, request.headers()).await;
                exchange.decide(request, key, lookup, watch).await
            }),
            AtOnce::Passes => Box::pin(exchange.pass(request, false)),
            AtOnce::Hit(_) | AtOnce::Nothing => Box::pin(exchange.run(request)),
        });
    }
}

/// The answer of a [`CacheService`].
pub struct ResponseFuture<A, E>(Answering<A, E>);

enum Answering<A, E> {
    /// It is taken when it is polled.
    AtOnce(Option<Response<CacheBody<A>>>),
    /// A function of the user has panicked.
    Panicked(Option<Box<dyn Any + Send>>),
    Later(Pin<Box<dyn Future<Output = Answer<A, E>> + Send>>),
}

/// Nothing of it is pinned but what is in a box.
impl<A, E> Unpin for ResponseFuture<A, E> {}

impl<A, E> Future for ResponseFuture<A, E> {
    type Output = Answer<A, E>;

    /// # Panics
    /// If it is polled again after it has answered, and with the panic of a user's function.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.get_mut().0 {
            Answering::AtOnce(answer) => Poll::Ready(Ok(answer.take().expect("it has answered"))),
            Answering::Panicked(panic) => {
                resume_unwind(panic.take().unwrap_or_else(|| Box::new("it has panicked")))
            }
            Answering::Later(answer) => answer.as_mut().poll(cx),
        }
    }
}

impl<A, E> std::fmt::Debug for ResponseFuture<A, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
