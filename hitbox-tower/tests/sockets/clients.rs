//! The layer on the side of the client.

use std::sync::Arc;

use bytes::Bytes;
use hitbox_tower::{CacheLayer, Policy};
use http::Request;
use http_body_util::{BodyExt, Full};
use tower::{Layer, ServiceExt};

use crate::common::{Answering, Seen, answer, client, clock, memory_at};

/// An origin on a socket, with no layer.
async fn origin(answering: Answering) -> (String, Seen) {
    let seen = Seen::default();
    let noted = seen.clone();
    let app = axum::Router::new().fallback(move |request: Request<axum::body::Body>| {
        let count = noted.note(&request);
        answering(request, count)
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    (format!("http://{address}"), seen)
}

#[tokio::test]
async fn a_client_of_hyper_has_a_cache_of_its_own() {
    let (origin, seen) = origin(Arc::new(|request, count| {
        Box::pin(async move {
            if request.headers().contains_key("if-none-match") {
                return axum::response::IntoResponse::into_response(http::StatusCode::NOT_MODIFIED);
            }
            let lines = [("cache-control", "private, max-age=60"), ("etag", "\"1\"")];
            answer(&lines, format!("answer {count}"))
        })
    }))
    .await;
    let clock = clock();
    let layer = CacheLayer::builder(memory_at(&clock)).policy(Policy::private()).build().expect("a layer");
    let cached = layer.layer(client());
    let get = async || {
        let request = Request::get(format!("{origin}/a")).header("authorization", "alice");
        let request = request.body(Full::<Bytes>::default()).expect("a request");
        let response = cached.clone().oneshot(request).await.expect("an answer");
        let status = response.headers()["cache-status"].to_str().expect("a text").to_owned();
        let body = response.into_body().collect().await.expect("all of it").to_bytes();
        (String::from_utf8(body.to_vec()).expect("a text"), status)
    };
    assert_eq!(get().await.0, "answer 1");
    let (text, status) = get().await;
    assert_eq!(text, "answer 1");
    assert!(status.contains("hit"), "{status}");
    // It asks whether what it has is still right.
    clock.advance(std::time::Duration::from_secs(61));
    assert_eq!(get().await.0, "answer 1");
    assert_eq!(seen.count(), 2);
    assert_eq!(seen.last()["if-none-match"], "\"1\"");
    assert_eq!(get().await.0, "answer 1");
    assert_eq!(seen.count(), 2);
}
