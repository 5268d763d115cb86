//! The layer as a middleware of reqwest's clients.

use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Extensions, Request, Response};
use http_body::{Frame, SizeHint};
use reqwest::{Body, ResponseBuilderExt, Url};
use reqwest_middleware::{ClientWithMiddleware, Error, Middleware, Next};
use tower_layer::Layer;
use tower_service::Service;

use crate::body::{BoxError, CacheBody};
use crate::choice::OfAnotherUri;
use crate::layer::CacheLayer;
use crate::service::CacheService;

/// The cache of a client of reqwest: a middleware of `reqwest-middleware`. Give the layer a [private policy](crate::Policy::private) if its
/// responses are for one user alone.
///
/// What is not answered from the cache is sent by the client that it is given, with that one's middlewares, also after the call is over: to validate
/// in the background, or for others who wait for the same response. So it stands last: middlewares that are added behind it see nothing.
///
/// ```
/// # fn f() -> Result<(), Box<dyn std::error::Error>> {
/// use hitbox::moka::MokaBackend;
/// use hitbox_tower::{CacheLayer, CacheMiddleware, Policy};
/// use reqwest_middleware::ClientBuilder;
///
/// let memory = MokaBackend::builder().max_bytes(64 * 1024 * 1024).build()?;
/// let layer = CacheLayer::builder(memory).policy(Policy::private()).build()?;
/// let sender = reqwest::Client::new();
/// let client = ClientBuilder::new(sender.clone()).with(CacheMiddleware::new(&layer, sender)).build();
/// # let _ = client;
/// # Ok(()) }
/// ```
///
/// A response that a client has been redirected to is passed on and not stored: that it answers the URI that was asked for is for the redirection to
/// say. Clients without redirects (`reqwest::redirect::Policy::none()`) get redirections from the cache, too.
#[derive(Clone, Debug)]
pub struct CacheMiddleware {
    service: CacheService<Sender>,
}

impl CacheMiddleware {
    /// A middleware that sends by this client what the cache of the layer does not answer.
    pub fn new(layer: &CacheLayer, sender: impl Into<ClientWithMiddleware>) -> Self {
        Self { service: layer.layer(Sender(sender.into())) }
    }
}

#[async_trait::async_trait]
impl Middleware for CacheMiddleware {
    async fn handle(
        &self,
        request: reqwest::Request,
        extensions: &mut Extensions,
        _: Next<'_>,
    ) -> Result<reqwest::Response, Error> {
        let url = request.url().clone();
        let mut request = Request::<Body>::try_from(request)?;
        request.extensions_mut().extend(extensions.clone());
        let response = self.service.clone().call(request).await?;
        Ok(said_by(url, response))
    }
}

/// The URL that has answered, where it is not the one that was asked for.
#[derive(Clone)]
struct AnsweredBy(Url);

/// A response as reqwest has it. What is from the cache is said by the URL that was asked for.
fn said_by(asked: Url, response: Response<CacheBody<Body>>) -> reqwest::Response {
    let (mut parts, body) = response.into_parts();
    let url = parts.extensions.remove().map_or(asked, |AnsweredBy(url)| url);
    // The type that says it is reqwest's own.
    let mut said = Response::builder().url(url);
    parts.extensions.extend(said.extensions_mut().map(std::mem::take).unwrap_or_default());
    Response::from_parts(parts, Body::wrap(Shared(Mutex::new(Box::pin(body))))).into()
}

/// A body that reqwest takes: it wants to share it among threads. Whoever has it alone needs no lock.
struct Shared(Mutex<Pin<Box<CacheBody<Body>>>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pin<Box<CacheBody<Body>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl http_body::Body for Shared {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner).as_mut().poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.lock().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.lock().size_hint()
    }
}

/// A client as a service.
#[derive(Clone, Debug)]
struct Sender(ClientWithMiddleware);

impl Service<Request<Body>> for Sender {
    type Response = Response<Body>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let client = self.0.clone();
        Box::pin(async move {
            let mut extensions = request.extensions().clone();
            let request = reqwest::Request::try_from(request)?;
            let asked = request.url().clone();
            let response = client.execute_with_extensions(request, &mut extensions).await?;
            let answered = response.url().clone();
            let mut response = Response::<Body>::from(response);
            if answered != asked {
                response.extensions_mut().insert(OfAnotherUri);
                response.extensions_mut().insert(AnsweredBy(answered));
            }
            Ok(response)
        })
    }
}
