//! The service.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use crate::body::{BoxError, CacheBody};
use crate::exchange::Exchange;
use crate::layer::Rules;

/// A service whose responses are cached; made by [`CacheLayer`](crate::CacheLayer).
///
/// It is always ready: a hit needs no service. Where one is needed a clone of it is made, waited for until it is ready, and called, within the
/// call. So what limits, buffers or sheds load within this layer does so for requests that go on, and for these alone.
#[derive(Clone)]
pub struct CacheService<S> {
    inner: S,
    rules: Arc<Rules>,
}

impl<S> CacheService<S> {
    pub(crate) fn new(inner: S, rules: Arc<Rules>) -> Self {
        Self { inner, rules }
    }

    /// The service within.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S: std::fmt::Debug> std::fmt::Debug for CacheService<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CacheService").field("inner", &self.inner).finish_non_exhaustive()
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
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        let exchange = Exchange { rules: self.rules.clone(), inner: self.inner.clone() };
        Box::pin(exchange.run(request))
    }
}
