//! A response that the HTTP layer has in memory, beside the service that makes it.

use std::hint::black_box;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderName, Request};
use axum::routing::get;
use hitbox_tower::CacheLayer;
use http_body_util::BodyExt;
use tower_service::Service;

use super::memory;
use crate::measure::{Env, Measure, Repeat, Subject};
use crate::payload::body;

const BYTES: usize = 1024;

pub(super) fn subject() -> Subject {
    Subject::new("http", "A response of 1 KiB, by a service within the process", Measure::Instructions)
        .operation("the service", |env| calls(env, service()))
        .operation("hit in memory", |env| calls(env, service().layer(CacheLayer::new(memory()))))
        .target("hit in memory", "the service", 2.5)
}

/// An axum router whose handler has the body at hand.
fn service() -> Router {
    let body = body(BYTES);
    let handler = move || {
        let body = body.clone();
        async move {
            let fields = [
                ("content-type", "application/octet-stream"),
                ("cache-control", "max-age=3600"),
                ("etag", "\"33a64df5\""),
                ("x-request-id", "7"),
            ];
            (fields.map(|(name, value)| (HeaderName::from_static(name), value)), body)
        }
    };
    Router::new().route("/items/{id}", get(handler))
}

fn calls(env: &Env, service: Router) -> Repeat {
    env.block_on(call(service.clone()));
    env.repeat(service, async |service, _| call(service.clone()).await)
}

async fn call(mut service: Router) {
    let request = Request::get("http://shop/items/7").body(Body::empty()).expect("a request");
    let response = Service::call(&mut service, request).await.expect("an answer");
    let body = response.into_body().collect().await.expect("all of it").to_bytes();
    assert_eq!(black_box(body).len(), BYTES);
}
