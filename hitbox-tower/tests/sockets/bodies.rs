//! Bodies: in parts, cut off, with trailers, large.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::mpsc;

use crate::common::{answer, client, fields, serve, until};

const FRESH: &[(&str, &str)] = &[("cache-control", "max-age=60"), ("etag", "\"one\"")];

#[tokio::test]
async fn parts_of_what_is_stored() {
    let served = serve(fields(FRESH)).await;
    served.get("/a", &[]).await;
    for (range, status, content_range, text) in [
        ("bytes=0-2", 206, Some("bytes 0-2/8"), "ans"),
        ("bytes=7-", 206, Some("bytes 7-7/8"), "1"),
        ("bytes=-3", 206, Some("bytes 5-7/8"), "r 1"),
        ("bytes=0-999", 206, Some("bytes 0-7/8"), "answer 1"),
        ("bytes=8-", 416, Some("bytes */8"), ""),
        ("bytes=0-1,3-4", 200, None, "answer 1"),
        ("lines=0-1", 200, None, "answer 1"),
    ] {
        let got = served.get("/a", &[("range", range)]).await;
        assert_eq!(
            (got.status.as_u16(), got.field("content-range"), got.text()),
            (status, content_range, text),
            "{range}"
        );
        assert_eq!(got.field("content-length"), Some(&*text.len().to_string()), "{range}");
    }
    let same = served.get("/a", &[("range", "bytes=0-2"), ("if-range", "\"one\"")]).await;
    assert_eq!(same.status, StatusCode::PARTIAL_CONTENT);
    let other = served.get("/a", &[("range", "bytes=0-2"), ("if-range", "\"two\"")]).await;
    assert_eq!((other.status, other.text()), (StatusCode::OK, "answer 1"));
    assert_eq!(served.seen.count(), 1);
}

#[tokio::test]
async fn a_part_of_what_is_not_stored_is_the_origins_to_give() {
    let served = serve(fields(FRESH)).await;
    let got = served.get("/a", &[("range", "bytes=0-2")]).await;
    assert_eq!(got.field("cache-status"), Some("http;fwd=partial"));
    assert_eq!(served.seen.last().get("range"), Some(&HeaderValue::from_static("bytes=0-2")));
    assert_eq!(served.get("/a", &[]).await.text(), "answer 2");
}

/// An origin whose connection dies in the middle: the client is told, and nothing is stored.
#[tokio::test]
async fn a_body_that_is_cut_off_is_not_stored() {
    let served = serve(Arc::new(|_, count| {
        Box::pin(async move {
            if count > 1 {
                return answer(FRESH, "all of it");
            }
            let chunks = [Ok(Bytes::from_static(b"half")), Err(std::io::Error::other("it died"))];
            answer(FRESH, Body::from_stream(stream::iter(chunks)))
        })
    }))
    .await;
    // Its head may not have been sent yet when it dies.
    if let Ok(response) = client().request(served.request(Method::GET, "/a", &[])).await {
        assert!(response.into_body().collect().await.is_err(), "half a body ends well");
    }
    assert_eq!(served.get("/a", &[]).await.text(), "all of it");
}

/// A body that is not as long as it says, of a service that is no connection and may end when it likes.
#[tokio::test]
async fn a_body_of_another_length_is_not_stored() {
    for says in ["10", "3"] {
        of_another_length(says).await;
    }
}

async fn of_another_length(says: &'static str) {
    let layer = hitbox_tower::CacheLayer::new(crate::common::memory());
    let origin = tower::service_fn(move |_: http::Request<String>| async move {
        let mut response = Response::new("short".to_owned());
        response.headers_mut().insert("cache-control", HeaderValue::from_static("max-age=60"));
        response.headers_mut().insert("content-length", HeaderValue::from_static(says));
        Ok::<_, std::convert::Infallible>(response)
    });
    let service = tower::Layer::layer(&layer, origin);
    for _ in 0..2 {
        let request = http::Request::get("http://a/").body(String::new()).expect("a request");
        let response = tower::ServiceExt::oneshot(service.clone(), request).await.expect("an answer");
        assert!(response.headers()["cache-status"].to_str().expect("a text").contains("fwd="));
        assert!(response.into_body().collect().await.is_err());
    }
}

#[tokio::test]
async fn trailers_come_through() {
    for says in ["max-age=60", "no-store"] {
        let served = serve(Arc::new(move |_, _| {
            Box::pin(async move {
                let mut trailers = HeaderMap::new();
                trailers.insert("x-checksum", HeaderValue::from_static("42"));
                let frames = [Frame::data(Bytes::from_static(b"body")), Frame::trailers(trailers)];
                let frames = stream::iter(frames).map(Ok::<_, std::io::Error>);
                answer(
                    &[("cache-control", says), ("trailer", "x-checksum")],
                    Body::new(StreamBody::new(frames)),
                )
            })
        }))
        .await;
        let request = served.request(Method::GET, "/a", &[("te", "trailers")]);
        let response = client().request(request).await.expect("an answer");
        let collected = response.into_body().collect().await.expect("all of it");
        assert_eq!(collected.trailers().expect("trailers")["x-checksum"], "42", "{says}");
        assert_eq!(collected.to_bytes(), "body");
    }
}

#[tokio::test]
async fn statuses_without_a_body_are_stored() {
    let served = serve(Arc::new(|_, count| {
        Box::pin(async move {
            let mut response =
                answer(&[("cache-control", "max-age=60"), ("x-count", &*count.to_string())], "");
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        })
    }))
    .await;
    served.get("/a", &[]).await;
    let again = served.get("/a", &[]).await;
    assert_eq!(
        (again.status, again.field("x-count"), again.is_hit()),
        (StatusCode::NO_CONTENT, Some("1"), true)
    );
}

/// Who serves a body of a declared length drops it with its last byte. That is no client that has left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_a_declared_length_are_stored() {
    let served = serve(Arc::new(|request, count| {
        Box::pin(async move {
            let chunks: usize =
                request.uri().path().rsplit('/').next().and_then(|n| n.parse().ok()).expect("a number");
            let length = (chunks * 10_000).to_string();
            let lines = [
                ("cache-control", "max-age=60"),
                ("content-length", &*length),
                ("x-count", &*count.to_string()),
            ];
            // It comes bit by bit, and says nothing of its length by itself.
            let chunks = stream::iter(0..chunks).then(|_| async {
                tokio::task::yield_now().await;
                Ok::<_, std::io::Error>(Bytes::from(vec![7; 10_000]))
            });
            answer(&lines, Body::from_stream(chunks))
        })
    }))
    .await;
    for number in 0..60 {
        let path = format!("/{number}/{}", 1 + number % 30);
        let first = served.get(&path, &[]).await;
        assert_eq!(first.body.len(), (1 + number % 30) * 10_000);
        // It may still be being stored.
        let again = served.get(&path, &[]).await;
        assert_eq!(
            again.field("x-count"),
            first.field("x-count"),
            "{path}: {:?}",
            again.field("cache-status")
        );
    }
}

/// Nor is it one who has all of a small body that varies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_bodies_that_vary_are_stored() {
    let served = serve(fields(&[("cache-control", "max-age=60"), ("vary", "accept-language")])).await;
    for number in 0..100 {
        let path = format!("/{number}");
        let first = served.get(&path, &[]).await;
        let again = served.get(&path, &[]).await;
        assert_eq!(again.text(), first.text(), "{path}: {:?}", again.field("cache-status"));
    }
}

/// A service that has all of a body says nothing of its length: the server does.
#[tokio::test]
async fn the_length_of_a_body_that_is_known_is_told() {
    let served = serve(fields(&[("cache-control", "max-age=60")])).await;
    for _ in 0..2 {
        assert_eq!(served.get("/a", &[]).await.field("content-length"), Some("8"));
    }
}

/// A client that has what the origin sends anew is told so, and it is stored all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_client_has_already_is_stored() {
    let (feed, chunks) = mpsc::unbounded_channel::<Result<Bytes, Infallible>>();
    let chunks = Arc::new(Mutex::new(Some(chunks)));
    let served = serve(Arc::new(move |_, _| {
        let mut chunks = chunks.lock().expect("a lock").take().expect("one request");
        let chunks = stream::poll_fn(move |cx| chunks.poll_recv(cx));
        Box::pin(async move { answer(FRESH, Body::from_stream(chunks)) })
    }))
    .await;
    let got = served.get("/a", &[("if-none-match", "\"one\"")]).await;
    assert_eq!(got.status, StatusCode::NOT_MODIFIED, "{got:?}");
    feed.send(Ok(Bytes::from_static(b"all of it"))).expect("it is read");
    drop(feed);
    until("it is stored", async || served.get("/a", &[]).await.is_hit()).await;
    assert_eq!(served.seen.count(), 1);
}

/// What is said of all bytes is not said of some of them.
#[tokio::test]
async fn a_part_has_not_the_digest_of_the_whole() {
    let lines = &[
        ("cache-control", "max-age=60"),
        ("content-digest", "sha-256=:YQ==:"),
        ("repr-digest", "sha-256=:YQ==:"),
    ];
    let served = serve(fields(lines)).await;
    served.get("/a", &[]).await;
    assert!(served.get("/a", &[]).await.field("content-digest").is_some());
    let part = served.get("/a", &[("range", "bytes=0-2")]).await;
    assert_eq!((part.field("content-digest"), part.field("repr-digest")), (None, Some("sha-256=:YQ==:")));
}

/// An answer that there is no such range says nothing of the representation.
#[tokio::test]
async fn a_range_that_is_not_there_has_no_freshness() {
    let lines = &[("cache-control", "max-age=60"), ("etag", "\"one\""), ("access-control-allow-origin", "*")];
    let served = serve(fields(lines)).await;
    served.get("/a", &[]).await;
    let got = served.get("/a", &[("range", "bytes=99-")]).await;
    assert_eq!(got.status, StatusCode::RANGE_NOT_SATISFIABLE);
    for name in ["cache-control", "etag", "content-type", "age"] {
        assert_eq!(got.field(name), None, "{got:?}");
    }
    assert_eq!(got.field("access-control-allow-origin"), Some("*"), "what is said of all answers stays");
    assert_eq!(got.field("content-range"), Some("bytes */8"));
    assert!(got.is_hit(), "{got:?}");
}
