//! The layer as a middleware of reqwest's clients.

use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use hitbox_http::NotStorable;
use http::{Extensions, HeaderMap, Request, Response, StatusCode, header};
use http_body::{Frame, SizeHint};
use reqwest::{Body, ResponseBuilderExt, Url};
use reqwest_middleware::{ClientWithMiddleware, Error, Middleware, Next};
use tower_layer::Layer;
use tower_service::Service;

use crate::body::{BoxError, CacheBody};
use crate::choice::NotToStore;
use crate::layer::CacheLayer;
use crate::service::CacheService;

/// The cache of a client of reqwest: a middleware of `reqwest-middleware`. The layer may have a [private policy](crate::Policy::private) if the
/// client belongs to one user; one that acts for several needs a shared policy, or would give one's responses to another.
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
/// If the sender follows a redirect, the final response is passed on and not stored. With a sender that follows none
/// (`reqwest::redirect::Policy::none()`) redirects themselves are cached.
///
/// **The cache sees the request as it comes here.** What the sender adds by itself, such as cookies of its store or an `Authorization` among its default
/// fields, it does not see: set credentials on the request, or give senders with different ones layers with different names. The timeout of a
/// request is one of the sender: who waits for the response that another request brings waits as long as that.
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

/// Whether a response varies by who asks, and the sender has said that, and not the request that is known here: its cookie store, or what it
/// adds to every request.
fn varies_unseen(request: &HeaderMap, response: &HeaderMap) -> bool {
    let lines = response.get_all(header::VARY).into_iter().filter_map(|line| line.to_str().ok());
    let mut names = lines.flat_map(|line| line.split(',')).map(str::trim);
    names.any(|name| {
        [header::COOKIE, header::AUTHORIZATION]
            .iter()
            .any(|field| name.eq_ignore_ascii_case(field.as_str()) && !request.contains_key(field))
    })
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
            let fields = request.headers().clone();
            let again = request.try_clone();
            let mut response = client.execute_with_extensions(request, &mut extensions).await?;
            // It says of another resource that what is stored here is still right.
            if *response.url() != asked
                && response.status() == StatusCode::NOT_MODIFIED
                && let Some(mut again) = again
            {
                again.headers_mut().remove(header::IF_NONE_MATCH);
                again.headers_mut().remove(header::IF_MODIFIED_SINCE);
                response = client.execute_with_extensions(again, &mut extensions).await?;
            }
            let answered = response.url().clone();
            let varies_unseen = varies_unseen(&fields, response.headers());
            let mut response = Response::<Body>::from(response);
            if varies_unseen {
                response.extensions_mut().insert(NotToStore(NotStorable::VariesUnseen));
            }
            if answered != asked {
                response.extensions_mut().insert(NotToStore(NotStorable::Redirected));
                response.extensions_mut().insert(AnsweredBy(answered));
            }
            Ok(response)
        })
    }
}
