//! What the user of a layer decides: which requests and responses, which keys, and how long a body may be.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use bytes::Bytes;
use futures_util::{FutureExt, stream};
use hitbox::moka::MokaBackend;
use hitbox_tower::{CacheLayer, CacheLayerBuilder};
use http::{Method, Request, StatusCode};
use http_body_util::{Empty, Full};
use tower_layer::Layer;
use tower_service::Service;

use crate::common::{Answering, Served, answer, clock, fields, memory_at, serve_behind};

const FRESH: &[(&str, &str)] = &[("cache-control", "max-age=60")];

/// A service behind a layer with these settings.
async fn serve_with(
    settings: impl FnOnce(
        CacheLayerBuilder<hitbox::moka::MokaBackend>,
    ) -> CacheLayerBuilder<hitbox::moka::MokaBackend>,
    origin: Answering,
) -> Served {
    let clock = clock();
    let layer = settings(CacheLayer::builder(memory_at(&clock))).build().expect("a layer");
    serve_behind(layer, clock, origin).await
}

#[tokio::test]
async fn requests_that_are_left_out_pass() {
    let served =
        serve_with(|layer| layer.cache_if(|request| !request.uri.path().starts_with("/live")), fields(FRESH))
            .await;
    for text in ["answer 1", "answer 2"] {
        let live = served.get("/live/scores", &[]).await;
        assert_eq!(live.text(), text);
        assert!(live.field("cache-status").is_some_and(|status| status.contains("fwd=bypass")));
    }
    for _ in 0..2 {
        assert_eq!(served.get("/shop", &[]).await.text(), "answer 3");
    }
    // What they change is removed all the same.
    let served =
        serve_with(|layer| layer.cache_if(|request| *request.method == Method::GET), fields(FRESH)).await;
    served.get("/shop", &[]).await;
    served.send(Method::POST, "/shop", &[]).await;
    assert_eq!(served.get("/shop", &[]).await.text(), "answer 3");
}

#[tokio::test]
async fn what_the_user_decides_is_asked_once_for_a_request() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let takes = move |uri: &http::Uri| {
        count.fetch_add(1, Ordering::SeqCst);
        uri.path() != "/live"
    };
    let served = serve_with(|layer| layer.cache_if(move |request| takes(request.uri)), fields(FRESH)).await;
    // Answered by the service and stored, answered at once, and passed on.
    for (times, path) in ["/shop", "/shop", "/live"].into_iter().enumerate() {
        served.get(path, &[]).await;
        assert_eq!(asked.load(Ordering::SeqCst), times + 1, "{path}");
    }
}

#[tokio::test]
async fn a_function_that_panics_panics_in_the_answer_and_not_in_the_call() {
    let layer = CacheLayer::builder(MokaBackend::builder().build().expect("moka"))
        .cache_if(|request| request.uri.path() != "/panics" || panic!("what is this"))
        .build()
        .expect("a layer");
    let inner = tower::service_fn(|_: Request<Empty<Bytes>>| async {
        Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from_static(b"an answer"))))
    });
    let mut service = layer.layer(inner);
    let request = |path| Request::builder().uri(path).body(Empty::<Bytes>::new()).expect("a request");
    // Who calls may serve others too, as a buffer does.
    let answer = service.call(request("/panics"));
    let panic = AssertUnwindSafe(answer).catch_unwind().await.expect_err("it has panicked");
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"what is this"));
    assert!(service.call(request("/sound")).await.is_ok());
}

#[tokio::test]
async fn responses_that_are_left_out_are_not_stored() {
    let origin: Answering = Arc::new(|request, count| {
        Box::pin(async move {
            let mut response = answer(FRESH, format!("answer {count}"));
            if request.uri().path() == "/missing" {
                *response.status_mut() = StatusCode::NOT_FOUND;
            }
            response
        })
    });
    let served = serve_with(|layer| layer.store_if(|response| response.status.is_success()), origin).await;
    for text in ["answer 1", "answer 2"] {
        let missing = served.get("/missing", &[]).await;
        assert_eq!((missing.status, missing.text()), (StatusCode::NOT_FOUND, text));
        assert!(!missing.field("cache-status").is_some_and(|status| status.contains("stored")));
    }
    for _ in 0..2 {
        assert_eq!(served.get("/there", &[]).await.text(), "answer 3");
    }
}

/// What is validated is looked at anew.
#[tokio::test]
async fn a_response_that_is_left_out_now_is_not_kept() {
    let origin: Answering = Arc::new(|request, count| {
        Box::pin(async move {
            let mut response =
                answer(&[("cache-control", "max-age=60"), ("etag", "\"1\"")], format!("answer {count}"));
            if request.headers().contains_key("if-none-match") {
                *response.status_mut() = StatusCode::NOT_MODIFIED;
                *response.body_mut() = Body::empty();
                response.headers_mut().insert("x-private", "1".parse().expect("a value"));
            }
            response
        })
    });
    let served =
        serve_with(|layer| layer.store_if(|response| !response.headers.contains_key("x-private")), origin)
            .await;
    served.get("/a", &[]).await;
    served.advance(61);
    assert_eq!(served.get("/a", &[]).await.text(), "answer 1", "it is still right");
    crate::common::until("it is removed", async || served.get("/a", &[]).await.text() != "answer 1").await;
}

/// A handler that passes on the fields of another server.
#[tokio::test]
async fn a_body_of_known_length_that_says_it_comes_in_chunks_arrives() {
    let origin: Answering = Arc::new(|_, count| {
        Box::pin(async move {
            let lines = [("cache-control", "max-age=60"), ("transfer-encoding", "chunked")];
            answer(&lines, format!("answer {count}"))
        })
    });
    let served = serve_with(|layer| layer, origin).await;
    for _ in 0..2 {
        assert_eq!(served.get("/a", &[]).await.text(), "answer 1");
    }
}

/// A part of the key that stands in the path.
#[tokio::test]
async fn parts_of_keys_tell_requests_apart() {
    let tenant = |request: &hitbox_tower::RequestHead<'_>| {
        Some(request.headers.get("x-tenant")?.to_str().ok()?.to_owned())
    };
    let served = serve_with(|layer| layer.key_part("tenant", tenant), fields(FRESH)).await;
    for _ in 0..2 {
        assert_eq!(served.get("/a", &[("x-tenant", "one")]).await.text(), "answer 1");
        assert_eq!(served.get("/a", &[("x-tenant", "two")]).await.text(), "answer 2");
        assert_eq!(served.get("/a", &[]).await.text(), "answer 3");
        assert_eq!(served.get("/a", &[("x-tenant", "")]).await.text(), "answer 4");
    }
    // Nobody has to know the parts to purge what is stored for a URI.
    let uri = format!("http://{}/a", served.address).parse().expect("a URI");
    served.layer.purge().uri(&uri).await.expect("it is purged");
    assert_eq!(served.get("/a", &[("x-tenant", "one")]).await.text(), "answer 5");
    served.send(Method::POST, "/a", &[("x-tenant", "two")]).await;
    assert_eq!(served.get("/a", &[("x-tenant", "one")]).await.text(), "answer 7");
}

/// Chunks of a KiB, whose number the path says, with a declared length or without.
fn chunks() -> Answering {
    Arc::new(|request, count| {
        Box::pin(async move {
            let path = request.uri().path();
            let number: usize = path.trim_matches(|c: char| !c.is_ascii_digit()).parse().expect("a number");
            let chunk = Bytes::from(vec![count as u8; 1024]);
            let chunks = stream::iter((0..number).map(move |_| Ok::<_, std::io::Error>(chunk.clone())));
            let mut response = answer(FRESH, Body::from_stream(chunks));
            if path.starts_with("/declared") {
                response.headers_mut().insert("content-length", (number * 1024).into());
            }
            response
        })
    })
}

#[tokio::test]
async fn longer_bodies_go_through_and_are_not_stored() {
    let served = serve_with(|layer| layer.max_body(64 * 1024), chunks()).await;
    for kind in ["declared", "open"] {
        for (number, is_stored) in [(1, true), (64, true), (65, false), (1_000, false)] {
            let path = format!("/{kind}/{number}");
            let before = served.seen.count();
            for _ in 0..2 {
                assert_eq!(served.get(&path, &[]).await.body.len(), number * 1024, "{path}");
            }
            let asked = served.seen.count() - before;
            assert_eq!(asked, if is_stored { 1 } else { 2 }, "{path}");
        }
    }
}

/// Who comes while a body turns out too long asks by himself, or reads it to its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_share_a_body_that_turns_out_too_long_get_all_of_it() {
    let served = serve_with(|layer| layer.max_body(64 * 1024), chunks()).await;
    let asked = (0..8).map(|_| served.get("/open/2000", &[]));
    for got in futures_util::future::join_all(asked).await {
        assert_eq!(got.body.len(), 2_000 * 1024);
        assert!(got.body.iter().all(|byte| *byte == got.body[0]), "one answer, not two");
    }
}
