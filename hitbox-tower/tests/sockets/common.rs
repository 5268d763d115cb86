//! An origin that does as a test says, behind the layer, and a client.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use hitbox::core::{ManualClock, Timestamp};
use hitbox::moka::MokaBackend;
use hitbox_tower::CacheLayer;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

pub(crate) type Answering =
    Arc<dyn Fn(Request<Body>, usize) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> + Send + Sync>;

/// What the origin was asked.
#[derive(Clone, Default)]
pub(crate) struct Seen {
    count: Arc<AtomicUsize>,
    requests: Arc<Mutex<VecDeque<(Method, String, HeaderMap)>>>,
}

impl Seen {
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// The fields of the last request.
    pub(crate) fn last(&self) -> HeaderMap {
        self.requests.lock().expect("a lock").back().expect("a request").2.clone()
    }

    pub(crate) fn note(&self, request: &Request<Body>) -> usize {
        let (method, path) = (request.method().clone(), request.uri().to_string());
        self.requests.lock().expect("a lock").push_back((method, path, request.headers().clone()));
        self.count.fetch_add(1, Ordering::SeqCst) + 1
    }
}

/// A service behind the layer, on a socket.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Seen,
    pub(crate) layer: CacheLayer,
    pub(crate) clock: ManualClock,
}

pub(crate) fn memory() -> MokaBackend {
    MokaBackend::builder().max_bytes(64 << 20).build().expect("moka")
}

/// The same with this clock, which the layer takes over.
pub(crate) fn memory_at(clock: &ManualClock) -> MokaBackend {
    MokaBackend::builder().max_bytes(64 << 20).clock(Arc::new(clock.clone())).build().expect("moka")
}

pub(crate) fn clock() -> ManualClock {
    ManualClock::at(Timestamp::from_millis(1_700_000_000_000))
}

/// An origin that answers with these lines of fields, and a body that counts.
pub(crate) fn fields(lines: &'static [(&'static str, &'static str)]) -> Answering {
    Arc::new(move |_, count| Box::pin(async move { answer(lines, format!("answer {count}")) }))
}

pub(crate) fn answer(lines: &[(&str, &str)], body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    for (name, value) in lines {
        let name: http::HeaderName = name.parse().expect("a name");
        response.headers_mut().append(name, value.parse().expect("a value"));
    }
    response
}

/// Serves an origin behind a layer in memory, with a clock of its own.
pub(crate) async fn serve(origin: Answering) -> Served {
    let clock = clock();
    let layer = CacheLayer::builder(memory_at(&clock)).build().expect("a layer");
    serve_behind(layer, clock, origin).await
}

pub(crate) async fn serve_behind(layer: CacheLayer, clock: ManualClock, origin: Answering) -> Served {
    let seen = Seen::default();
    let noted = seen.clone();
    let handler = move |request: Request<Body>| {
        let count = noted.note(&request);
        origin(request, count)
    };
    let app = Router::new().fallback(handler).layer(layer.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    Served { address, seen, layer, clock }
}

/// What came, all of it.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Got {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a text")
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("a text"))
    }

    /// Whether the answer came without the origin.
    pub(crate) fn is_hit(&self) -> bool {
        self.field("cache-status").is_some_and(|status| status.contains("; hit") || status.contains(";hit"))
    }
}

pub(crate) type Client = HyperClient<HttpConnector, Full<Bytes>>;

pub(crate) fn client() -> Client {
    HyperClient::builder(TokioExecutor::new()).build_http()
}

impl Served {
    pub(crate) fn request(&self, method: Method, path: &str, lines: &[(&str, &str)]) -> Request<Full<Bytes>> {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        request.body(Full::default()).expect("a request")
    }

    pub(crate) async fn send(&self, method: Method, path: &str, lines: &[(&str, &str)]) -> Got {
        let asked = client().request(self.request(method, path, lines));
        let response = tokio::time::timeout(Duration::from_secs(20), asked).await.expect("in time");
        let (parts, body) = response.expect("an answer").into_parts();
        let body = body.collect().await.expect("all of it").to_bytes();
        Got { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) async fn get(&self, path: &str, lines: &[(&str, &str)]) -> Got {
        self.send(Method::GET, path, lines).await
    }

    pub(crate) fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// Waits until the origin has been asked so often.
    pub(crate) async fn until_asked(&self, count: usize) {
        until("the origin is asked", async || self.seen.count() >= count).await;
    }
}

pub(crate) async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let wait = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap_or_else(|_| panic!("{what}"));
}
