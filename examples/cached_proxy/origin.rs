//! The origin as a service: a request goes in as it was received, what the origin answers comes out.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderName, HeaderValue, Request, Response, Uri, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tower_service::Service;

use hitbox_tower::rules::remove_connection_fields;

const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// An address that does not answer for so long counts as one that cannot be reached.
const CONNECTING: Duration = Duration::from_secs(5);

/// Connections are kept for so long, which is shorter than what common servers keep them for: a request on a connection
/// that the origin closes at this moment would fail.
const IDLE: Duration = Duration::from_secs(4);

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Sends requests to the origin, over connections that all clones share. Bodies go through as they come.
pub(crate) struct Origin<B> {
    client: Client<HttpConnector, B>,
    authority: Authority,
    host: HeaderValue,
}

impl<B> Origin<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Failure>,
{
    pub(crate) fn new(address: Address) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECTING));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .set_host(false)
            .build(connector);
        Self { client, authority: address.authority, host: address.host }
    }

    /// The request as the origin gets it.
    fn forwarded(&self, request: Request<B>) -> Result<Request<B>, http::Error> {
        let (mut parts, body) = request.into_parts();
        remove_connection_fields(&mut parts.headers);
        // HTTP/2 has the host in the URI.
        let of_uri = parts.uri.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok());
        match of_uri.or_else(|| parts.headers.get(HOST).cloned()) {
            Some(host) => parts.headers.insert(FORWARDED_HOST, host),
            None => parts.headers.remove(FORWARDED_HOST),
        };
        parts.headers.insert(HOST, self.host.clone());
        let path = parts.uri.path_and_query().cloned();
        parts.uri = Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(self.authority.clone())
            .path_and_query(path.unwrap_or_else(|| PathAndQuery::from_static("/")))
            .build()?;
        parts.version = Version::HTTP_11;
        // What the server knows of the client's connection is nothing for this one.
        parts.extensions.clear();
        Ok(Request::from_parts(parts, body))
    }
}

impl<B> Clone for Origin<B> {
    fn clone(&self) -> Self {
        let Self { client, authority, host } = self;
        Self { client: client.clone(), authority: authority.clone(), host: host.clone() }
    }
}

impl<B> Service<Request<B>> for Origin<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Failure>,
{
    type Response = Response<Incoming>;
    type Error = Unreachable;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Unreachable>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Unreachable>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let answered = self.forwarded(request).map(|request| self.client.request(request));
        Box::pin(async move {
            let answered = answered.map_err(|error| Unreachable(error.into()))?;
            let mut response = answered.await.map_err(|error| Unreachable(error.into()))?;
            remove_connection_fields(response.headers_mut());
            *response.version_mut() = Version::HTTP_11;
            Ok(response)
        })
    }
}

/// Where the origin is.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    authority: Authority,
    host: HeaderValue,
}

impl std::str::FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let uri: Uri = text.parse().map_err(|error| format!("not a URL: {error}"))?;
        let parts = uri.into_parts();
        if parts.scheme != Some(Scheme::HTTP) {
            return Err("the origin is given as http://HOST or http://HOST:PORT".to_owned());
        }
        if parts.path_and_query.is_some_and(|path| path != "/") {
            return Err("the origin is given without a path".to_owned());
        }
        let authority = parts.authority.ok_or("the URL has no host")?;
        let host = authority.as_str();
        if host.contains('@') {
            return Err("the origin is given without a user".to_owned());
        }
        let host = HeaderValue::from_str(host).map_err(|error| format!("not a host: {error}"))?;
        Ok(Self { authority, host })
    }
}

/// The origin cannot be reached, or ended the connection before it answered.
#[derive(Debug)]
pub(crate) struct Unreachable(Failure);

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the origin does not answer")
    }
}

impl std::error::Error for Unreachable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.0)
    }
}
