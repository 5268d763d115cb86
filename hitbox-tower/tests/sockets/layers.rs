//! Other expressions, other services, other protocols.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use hitbox::disk::DiskBackend;
use hitbox::{Compose, OffloadPool, RefillPolicy, Wrap};
use hitbox_testkit::{Trouble, Troubled};
use hitbox_tower::CacheLayer;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use tower::buffer::BufferLayer;
use tower::limit::ConcurrencyLimitLayer;
use tower::{Layer, Service, ServiceBuilder, ServiceExt};

use crate::common::{Got, clock, fields, memory, memory_at, serve_behind};

fn fresh(text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    response.headers_mut().insert("cache-control", HeaderValue::from_static("max-age=60"));
    response
}

fn get(uri: &str) -> Request<Full<Bytes>> {
    Request::get(uri).body(Full::default()).expect("a request")
}

async fn text<B: http_body::Body<Data = Bytes>>(response: Response<B>) -> String
where
    B::Error: std::fmt::Debug,
{
    let bytes = response.into_body().collect().await.expect("all of it").to_bytes();
    String::from_utf8(bytes.to_vec()).expect("a text")
}

/// What became of a request, but for the time that is left: a second may end at any moment.
fn without_ttl(got: &Got) -> String {
    let status = got.field("cache-status").expect("a status");
    let members: Vec<&str> = status.split(';').filter(|member| !member.starts_with("ttl=")).collect();
    members.join(";")
}

/// What is in memory is evicted, and what is on disk outlives the process.
#[tokio::test]
async fn memory_over_disk_says_which_layer_answered() {
    let folder = tempfile::tempdir().expect("a folder");
    for round in 0..2 {
        let disk = DiskBackend::builder(folder.path()).open().await.expect("disk");
        let layers = memory().compose(disk, OffloadPool::new().shared()).with_refill(RefillPolicy::Always);
        let clock = clock();
        let layer = CacheLayer::builder(layers.with_label("tiers")).build().expect("a layer");
        let served = serve_behind(layer, clock, fields(&[("cache-control", "max-age=60")])).await;
        // Another process listens elsewhere: its origin has another name, and is told by the host.
        let host = [("host", "shop")];
        let first = served.get("/a", &host).await;
        assert_eq!(first.text(), "answer 1");
        match round {
            0 => assert_eq!(without_ttl(&first), "http;fwd=uri-miss;stored"),
            _ => assert_eq!(without_ttl(&first), "http;hit;detail=\"tiers.disk\""),
        }
        crate::common::until("memory has it", async || {
            without_ttl(&served.get("/a", &host).await) == "http;hit;detail=\"tiers.moka\""
        })
        .await;
        let end = served.layer.cache().shutdown(std::time::Duration::from_secs(10)).await;
        assert!(end.is_clean(), "{end:?}");
    }
}

/// A cache that fails costs a request to the origin, and no answer.
#[tokio::test]
async fn a_backend_that_fails_is_no_cache() {
    for trouble in [Trouble::IsAway, Trouble::HangsAtOnce, Trouble::FailsAfter(0)] {
        let hangs = matches!(trouble, Trouble::HangsAtOnce);
        let backend = Troubled::new(Arc::new(memory()), trouble);
        let clock = clock();
        let layer = CacheLayer::builder(backend.deadline(std::time::Duration::from_millis(50)));
        let layer = layer.build().expect("a layer");
        let served = serve_behind(layer, clock, fields(&[("cache-control", "max-age=60")])).await;
        if hangs {
            // Until the layer is given up the first answer is under way, and is for all who ask.
            assert_eq!(served.get("/a", &[]).await.text(), "answer 1");
            let another = async { while served.get("/a", &[]).await.text() == "answer 1" {} };
            tokio::time::timeout(std::time::Duration::from_secs(30), another).await.expect("it is given up");
            continue;
        }
        for count in 1..4 {
            assert_eq!(served.get("/a", &[]).await.text(), format!("answer {count}"));
        }
    }
}

/// A service that is ready for one call alone, and panics if it is called unready.
#[derive(Default)]
struct Strict {
    calls: Arc<AtomicUsize>,
    is_ready: bool,
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self { calls: self.calls.clone(), is_ready: false }
    }
}

impl Service<Request<Full<Bytes>>> for Strict {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.is_ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
        assert!(std::mem::take(&mut self.is_ready), "it was not ready");
        let count = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        std::future::ready(Ok(fresh(format!("answer {count}"))))
    }
}

#[tokio::test]
async fn what_is_called_was_ready() {
    let service = CacheLayer::new(memory()).layer(Strict::default());
    assert_eq!(text(service.clone().oneshot(get("http://a/")).await.expect("an answer")).await, "answer 1");
    assert_eq!(text(service.clone().oneshot(get("http://a/")).await.expect("an answer")).await, "answer 1");
    let post = Request::post("http://a/").body(Full::default()).expect("a request");
    assert_eq!(text(service.oneshot(post).await.expect("an answer")).await, "answer 2");
}

#[derive(Clone)]
struct NeverReady;

impl Service<Request<Full<Bytes>>> for NeverReady {
    type Response = Response<Full<Bytes>>;
    type Error = String;
    type Future = std::future::Ready<Result<Self::Response, String>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), String>> {
        Poll::Pending
    }

    fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
        std::future::ready(Err("it was not ready".to_owned()))
    }
}

#[tokio::test]
async fn a_hit_needs_no_service() {
    let layer = CacheLayer::new(memory());
    text(layer.layer(Strict::default()).oneshot(get("http://a/")).await.expect("an answer")).await;
    let hit = layer.layer(NeverReady).oneshot(get("http://a/")).await.expect("an answer");
    assert_eq!(text(hit).await, "answer 1");
}

#[derive(Debug, PartialEq)]
struct Mine(u32);

#[tokio::test]
async fn the_services_error_comes_through() {
    let failing =
        tower::service_fn(|_: Request<Full<Bytes>>| async { Err::<Response<Full<Bytes>>, _>(Mine(7)) });
    let service = CacheLayer::new(memory()).layer(failing);
    for _ in 0..2 {
        assert_eq!(service.clone().oneshot(get("http://a/")).await.expect_err("it fails"), Mine(7));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_and_buffers_within_the_layer() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let origin = tower::service_fn(move |_: Request<Full<Bytes>>| {
        let count = counted.fetch_add(1, Ordering::SeqCst) + 1;
        async move { Ok::<_, Infallible>(fresh(format!("answer {count}"))) }
    });
    let service = ServiceBuilder::new()
        .layer(CacheLayer::new(memory()))
        .layer(BufferLayer::new(4))
        .layer(ConcurrencyLimitLayer::new(1))
        .service(origin);
    let calls = (0..20).map(|number| {
        let service = service.clone();
        async move {
            text(service.oneshot(get(&format!("http://a/{}", number % 5))).await.expect("an answer")).await
        }
    });
    let texts =
        tokio::time::timeout(std::time::Duration::from_secs(20), futures_util::future::join_all(calls)).await;
    assert_eq!(texts.expect("in time").len(), 20);
    assert_eq!(count.load(Ordering::SeqCst), 5);
}

/// HTTP/2 with prior knowledge, over a socket.
#[tokio::test]
async fn http_2() {
    let clock = clock();
    let layer = CacheLayer::builder(memory_at(&clock)).build().expect("a layer");
    let served = serve_behind(layer, clock, fields(&[("cache-control", "max-age=60")])).await;
    let mut builder = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new());
    let client: crate::common::Client = builder.http2_only(true).build_http();
    for _ in 0..2 {
        let response = client.request(served.request(http::Method::GET, "/a", &[])).await.expect("an answer");
        assert_eq!(response.version(), http::Version::HTTP_2);
        assert_eq!(text(response).await, "answer 1");
    }
    // The same resource for those who speak HTTP/1.1.
    assert_eq!(served.get("/a", &[]).await.text(), "answer 1");
}

/// Routers that are nested under different paths see the same path.
#[tokio::test]
async fn nested_routers_share_nothing() {
    let find = |found: &http::Extensions| Some(found.get::<axum::extract::OriginalUri>()?.0.clone());
    let layer = CacheLayer::builder(memory()).original_uri(find).build().expect("a layer");
    let nested = |text: &'static str| {
        let handler = move || async move { ([("cache-control", "max-age=60")], text) };
        axum::Router::new().route("/items", axum::routing::get(handler)).layer(layer.clone())
    };
    let app = axum::Router::new().nest("/a", nested("of a")).nest("/b", nested("of b"));
    for _ in 0..2 {
        for (path, expected) in [("/a/items", "of a"), ("/b/items", "of b")] {
            let request = Request::get(path).header("host", "shop").body(axum::body::Body::empty());
            let response = app.clone().oneshot(request.expect("a request")).await.expect("an answer");
            assert_eq!(text(response).await, expected);
        }
    }
}

/// A request that says two hosts is answered for nobody else: its service may go by either.
#[tokio::test]
async fn a_request_with_two_hosts_is_for_itself() {
    let service = tower::service_fn(|request: Request<Full<Bytes>>| async move {
        let host = request.headers().get("host").map(|host| host.to_str().expect("a text").to_owned());
        Ok::<_, Infallible>(fresh(format!("links to {}", host.unwrap_or_default())))
    });
    let cached = CacheLayer::new(memory()).layer(service);
    let ask = async |host: &str| {
        let request = Request::get("http://shop/a").header("host", host).body(Full::default());
        let response = cached.clone().oneshot(request.expect("a request")).await.expect("an answer");
        let is_hit = response.headers()["cache-status"].to_str().expect("a text").contains("hit");
        (text(response).await, is_hit)
    };
    for _ in 0..2 {
        assert_eq!(ask("evil").await, ("links to evil".to_owned(), false));
    }
    assert_eq!(ask("SHOP:80").await, ("links to SHOP:80".to_owned(), false));
    assert_eq!(ask("shop").await, ("links to SHOP:80".to_owned(), true));
    assert_eq!(ask("evil").await, ("links to evil".to_owned(), false));
    // What it changes may be of either.
    let other = Request::get("http://evil/a").body(Full::default()).expect("a request");
    cached.clone().oneshot(other).await.expect("an answer").into_body().collect().await.expect("all of it");
    let change = Request::post("http://shop/a").header("host", "evil").body(Full::default());
    let changed = cached.clone().oneshot(change.expect("a request")).await.expect("an answer");
    assert_eq!(changed.headers()["cache-status"], "http;fwd=method;detail=\"the request says two hosts\"");
    for uri in ["http://shop/a", "http://evil/a"] {
        let request = Request::get(uri).body(Full::default()).expect("a request");
        let response = cached.clone().oneshot(request).await.expect("an answer");
        assert!(!response.headers()["cache-status"].to_str().expect("a text").contains("hit"), "{uri}");
    }
}
