//! Requests whose body is a part of the key.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use hitbox::moka::MokaBackend;
use hitbox_tower::{CacheLayer, CacheLayerBuilder, Policy};
use http::{HeaderMap, Method, Request};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tower_layer::Layer;
use tower_service::Service;

use crate::common::{Answering, Got, Served, answer, clock, memory_at, serve_behind};

const LONGEST: usize = 1_000;

/// Answers with what it was sent, and the number of the request. What is changed says nothing of how long it is fresh.
fn echo() -> Answering {
    Arc::new(|request, count| {
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let sent = body.collect().await.map(|body| body.to_bytes());
            let sent = sent.map_or_else(|_| "broken".to_owned(), |sent| sent.len().to_string());
            let conditional = parts.headers.contains_key("if-none-match");
            let text = format!("{count}: {} of {sent} bytes, conditional {conditional}", parts.method);
            answer(&[("cache-control", "max-age=60, stale-while-revalidate=60"), ("etag", "\"1\"")], text)
        })
    })
}

async fn searched(max: usize) -> Served {
    let clock = clock();
    let layer = CacheLayer::builder(memory_at(&clock))
        .key_body([Method::POST], max, Body::new)
        .cache_if(|request| request.uri.path() != "/orders")
        .build();
    serve_behind(layer.expect("a layer"), clock, echo()).await
}

async fn post(served: &Served, path: &str, body: impl Into<Bytes>, lines: &[(&str, &str)]) -> Got {
    let mut request = served.request(Method::POST, path, lines);
    *request.body_mut() = Full::new(body.into());
    let response = crate::common::client().request(request).await.expect("an answer");
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("all of it").to_bytes();
    Got { status: parts.status, headers: parts.headers, body }
}

#[tokio::test]
async fn the_user_is_asked_once_though_the_body_is_read() {
    let (clock, asked) = (clock(), Arc::new(AtomicUsize::new(0)));
    let count = asked.clone();
    // He says something else each time.
    let layer = CacheLayer::builder(memory_at(&clock))
        .key_body([Method::POST], LONGEST, Body::new)
        .cache_if(move |_| count.fetch_add(1, Ordering::SeqCst) % 2 == 0)
        .build();
    let served = serve_behind(layer.expect("a layer"), clock, echo()).await;
    let mut asks = 0;
    for (body, is_passed) in [("red", false), ("tea", true), ("red", false), ("tea", true)] {
        let got = post(&served, "/search", body, &[]).await;
        asks += 1;
        assert_eq!(asked.load(Ordering::SeqCst), asks, "{body}");
        assert_eq!(got.field("cache-status").is_some_and(|status| status.contains("fwd=method")), is_passed);
    }
}

#[tokio::test]
async fn searches_are_told_apart_by_their_bodies() {
    let served = searched(LONGEST).await;
    let json = [("content-type", "application/json")];
    for _ in 0..2 {
        assert_eq!(
            post(&served, "/search", "red", &json).await.text(),
            "1: POST of 3 bytes, conditional false"
        );
    }
    assert!(post(&served, "/search", "red", &json).await.is_hit());
    // Another body, another type of it, another path and another method are other requests.
    assert!(post(&served, "/search", "tea", &json).await.text().starts_with("2: "));
    assert!(
        post(&served, "/search", "red", &[("content-type", "text/plain")]).await.text().starts_with("3: ")
    );
    assert!(post(&served, "/search", "red", &[]).await.text().starts_with("4: "));
    assert!(post(&served, "/find", "red", &json).await.text().starts_with("5: "));
    assert!(served.get("/search", &[]).await.text().starts_with("6: "));
    assert!(post(&served, "/search", "", &json).await.text().starts_with("7: "));
    for (body, first) in [("red", "1: "), ("tea", "2: "), ("", "7: ")] {
        assert!(post(&served, "/search", body, &json).await.text().starts_with(first), "{body}");
    }
}

#[tokio::test]
async fn a_stale_search_is_asked_anew_with_its_body() {
    let served = searched(LONGEST).await;
    post(&served, "/search", "red", &[]).await;
    served.advance(61);
    // Stale while another is fetched; without conditions, which mean something else here.
    assert!(post(&served, "/search", "red", &[]).await.text().starts_with("1: "));
    served.until_asked(2).await;
    let refreshed =
        async || post(&served, "/search", "red", &[]).await.text() == "2: POST of 3 bytes, conditional false";
    crate::common::until("it is fresh", refreshed).await;
    served.advance(200);
    assert_eq!(post(&served, "/search", "red", &[]).await.text(), "3: POST of 3 bytes, conditional false");
}

#[tokio::test]
async fn what_changes_something_removes_searches_of_its_uri() {
    let served = searched(LONGEST).await;
    let text = async |path| post(&served, path, "red", &[]).await.text().to_owned();
    let first = text("/search").await;
    assert_eq!(text("/search").await, first);
    served.send(Method::PUT, "/search", &[]).await;
    assert_ne!(text("/search").await, first, "it was changed");
    // Left out by `cache_if`: a change.
    served.get("/orders", &[]).await;
    assert_ne!(text("/orders").await, text("/orders").await);
    // Purged by its URI.
    let kept = text("/search").await;
    assert_eq!(text("/search").await, kept);
    let uri = format!("http://{}/search", served.address).parse().expect("a URI");
    served.layer.purge().uri(&uri).await.expect("it is purged");
    assert_ne!(text("/search").await, kept);
}

/// Two layers: what the outer one has read is another body within.
#[tokio::test]
async fn a_layer_within_goes_by_what_comes_to_it() {
    let echo =
        || tower::service_fn(async |request: Request<Body>| Ok::<_, Infallible>(echo()(request, 1).await));
    let outer = CacheLayer::builder(memory_at(&clock())).key_body([Method::POST], LONGEST, Body::new);
    let outer = outer.cache_if(|request| request.headers.get("x-user").is_some_and(|user| user != "skip"));
    let outer = outer.key_part("user", |request| Some(request.headers["x-user"].to_str().ok()?.to_owned()));
    let outer = outer.build().expect("a layer");
    for inner in [
        CacheLayer::new(memory_at(&clock())),
        CacheLayer::builder(memory_at(&clock()))
            .key_body([Method::POST], LONGEST, Body::new)
            .build()
            .expect("a layer"),
        CacheLayer::builder(memory_at(&clock()))
            .key_body([Method::POST], 5, Body::new)
            .build()
            .expect("a layer"),
    ] {
        // A middleware between them adds who asks.
        let between = tower::util::MapRequest::new(inner.layer(echo()), |request: Request<Body>| {
            let user = request.headers()["x-user"].to_str().expect("a text").to_owned();
            request.map(|body| {
                let before = stream::iter([Ok::<_, axum::Error>(Bytes::from(user))]);
                Body::from_stream(before.chain(body.into_data_stream()))
            })
        });
        let mut service = outer
            .layer(tower::util::MapResponse::new(between, |response: http::Response<_>| {
                response.map(Body::new)
            }));
        let mut send = async |user: &'static str, body: &'static str| {
            let request = Request::post("http://shop/search").header("x-user", user).body(Body::from(body));
            let response = service.call(request.expect("a request")).await.expect("an answer");
            response.into_body().collect().await.expect("all of it").to_bytes()
        };
        outer.purge().all().await.expect("it is purged");
        assert!(send("al", "red").await.starts_with(b"1: POST of 5 bytes"));
        assert!(send("alice", "red").await.starts_with(b"1: POST of 8 bytes"), "the answer to another body");
    }
}

/// What was stored before keys had more has no tag, and is purged all the same.
#[tokio::test]
async fn what_was_stored_under_simpler_keys_is_purged() {
    let settings: [fn(CacheLayerBuilder<MokaBackend>) -> CacheLayerBuilder<MokaBackend>; 2] = [
        |layer| layer.key_body([Method::POST], LONGEST, Body::new),
        |layer| layer.key(|key| key.ignore_query(["utm_source"])),
    ];
    for richer in settings {
        let clock = clock();
        let backend = memory_at(&clock);
        let serve = async |layer: CacheLayerBuilder<MokaBackend>| {
            serve_behind(layer.build().expect("a layer"), clock.clone(), echo()).await
        };
        let host = [("host", "shop")];
        assert!(!serve(CacheLayer::builder(backend.clone())).await.get("/search", &host).await.is_hit());
        let served = serve(richer(CacheLayer::builder(backend.clone()))).await;
        assert!(served.get("/search", &host).await.is_hit(), "it outlived the layer");
        served.layer.purge().uri(&"http://shop/search".parse().expect("a URI")).await.expect("it is purged");
        assert!(!served.get("/search", &host).await.is_hit());
    }
}

/// One validation at a time is enough, however many requests met it stale.
#[tokio::test]
async fn stale_searches_do_not_pile_up() {
    let served = searched(LONGEST).await;
    post(&served, "/search", "red", &[]).await;
    served.advance(61);
    for _ in 0..20 {
        assert!(post(&served, "/search", "red", &[]).await.text().starts_with(['1', '2']));
    }
    served.until_asked(2).await;
    assert_eq!(served.seen.count(), 2);
}

/// A GET may have a body; one that has none is as any other.
#[tokio::test]
async fn a_get_without_a_body_is_one_as_any_other() {
    let clock = clock();
    let layer =
        CacheLayer::builder(memory_at(&clock)).key_body([Method::GET, Method::POST], LONGEST, Body::new);
    let served = serve_behind(layer.build().expect("a layer"), clock, echo()).await;
    served.get("/search", &[]).await;
    let validated = served.get("/search", &[("if-none-match", "\"1\"")]).await;
    assert_eq!((validated.status.as_u16(), served.seen.count()), (304, 1));
    assert!(served.send(Method::HEAD, "/search", &[]).await.is_hit());
}

#[tokio::test]
async fn bodies_that_are_too_long_pass_whole() {
    let served = searched(LONGEST).await;
    let kept = post(&served, "/search", "red", &[]).await;
    for bytes in [LONGEST + 1, 300_000] {
        let passed = post(&served, "/search", vec![b'x'; bytes], &[]).await;
        assert!(passed.text().contains(&format!("POST of {bytes} bytes")), "{}", passed.text());
        assert!(passed.field("cache-status").is_some_and(|status| status.contains("fwd=bypass")));
        assert!(!post(&served, "/search", vec![b'x'; bytes], &[]).await.is_hit());
    }
    post(&served, "/search", vec![b'x'; LONGEST], &[]).await;
    assert!(post(&served, "/search", vec![b'x'; LONGEST], &[]).await.is_hit());
    assert_eq!(
        post(&served, "/search", "red", &[]).await.text(),
        kept.text(),
        "they are reads, and remove nothing"
    );
}

/// Of a body by chunks it is known only late how long it is, and trailers come last.
#[tokio::test]
async fn bodies_by_chunks_pass_whole_too() {
    let served = searched(LONGEST).await;
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let send = async |chunks: usize, trailers: bool| {
        let mut frames: Vec<_> = (0..chunks)
            .map(|_| Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(&[b'x'; 100]))))
            .collect();
        if trailers {
            let mut fields = HeaderMap::new();
            fields.insert("x-sum", http::HeaderValue::from_static("1"));
            frames.push(Ok(Frame::trailers(fields)));
        }
        let body = StreamBody::new(stream::iter(frames));
        let request =
            Request::post(format!("http://{}/search", served.address)).body(body).expect("a request");
        let response = client.request(request).await.expect("an answer");
        let is_hit = response.headers()["cache-status"].to_str().expect("a text").contains("hit");
        let body = response.into_body().collect().await.expect("all of it").to_bytes();
        (is_hit, String::from_utf8(body.to_vec()).expect("a text"))
    };
    assert!(!send(5, false).await.0);
    assert!(send(5, false).await.0, "the same as before");
    for (chunks, trailers) in [(5, true), (11, false), (40, true)] {
        for _ in 0..2 {
            let (is_hit, text) = send(chunks, trailers).await;
            assert!(
                !is_hit && text.contains(&format!("of {} bytes", chunks * 100)),
                "{chunks} {trailers}: {text}"
            );
        }
    }
}

/// What was read of it is passed on, and that it broke.
#[tokio::test]
async fn a_body_that_breaks_is_not_taken_for_a_whole_one() {
    let layer = CacheLayer::builder(memory_at(&clock())).key_body([Method::POST], LONGEST, Body::new);
    let mut service =
        layer.build().expect("a layer").layer(tower::service_fn(async |request: Request<Body>| {
            Ok::<_, Infallible>(echo()(request, 1).await)
        }));
    let mut send = async |body: Body| {
        let request = Request::post("http://shop/search").body(body).expect("a request");
        let response = service.call(request).await.expect("an answer");
        response.into_body().collect().await.expect("all of it").to_bytes()
    };
    let halves = [Ok(Bytes::from_static(b"half")), Err(std::io::Error::other("it broke"))];
    let broken = send(Body::from_stream(stream::iter(halves))).await;
    assert!(broken.ends_with(b"of broken bytes, conditional false"), "{broken:?}");
    assert!(send(Body::from("half")).await.ends_with(b"of 4 bytes, conditional false"));
}

#[tokio::test]
async fn conditions_and_ranges_pass() {
    let served = searched(LONGEST).await;
    post(&served, "/search", "red", &[]).await;
    for field in [("if-none-match", "\"1\""), ("range", "bytes=0-1"), ("if-match", "\"1\"")] {
        let passed = post(&served, "/search", "red", &[field]).await;
        assert!(passed.status.as_u16() == 200 && !passed.is_hit(), "{field:?}: {passed:?}");
    }
    assert!(post(&served, "/search", "red", &[]).await.is_hit());
}

/// A user's own responses stay his own, whatever the method.
#[tokio::test]
async fn the_rules_are_those_for_a_get() {
    let served = searched(LONGEST).await;
    let alice = [("authorization", "alice")];
    let (one, other) = (post(&served, "/me", "who", &alice).await, post(&served, "/me", "who", &alice).await);
    assert_ne!(one.text(), other.text());
    let clock = clock();
    let layer = CacheLayer::builder(memory_at(&clock)).policy(Policy::private());
    let layer = layer.key_body([Method::POST], LONGEST, Body::new).build().expect("a layer");
    let served = serve_behind(layer, clock, echo()).await;
    let one = post(&served, "/me", "who", &alice).await;
    assert_eq!(post(&served, "/me", "who", &alice).await.text(), one.text());
}
