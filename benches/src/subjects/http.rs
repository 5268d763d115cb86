//! A response that the HTTP layer has in memory, beside the service that makes it.

use std::fmt::Debug;
use std::hint::black_box;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::http::{HeaderName, Request, Response};
use axum::routing::get;
use hitbox_tower::CacheLayer;
use http_body_util::BodyExt;
use tower_layer::Layer;
use tower_service::Service;

use super::memory;
use crate::measure::{Env, Measure, Repeat, Subject};
use crate::payload::body;

pub(super) const BYTES: usize = 1024;

pub(super) fn subject() -> Subject {
    Subject::new("http", "A response of 1 KiB, by a service within the process", Measure::Instructions)
        .operation("the service", |env| calls(env, as_served(service())))
        .operation("hit in memory", |env| calls(env, as_served(service().layer(CacheLayer::new(memory())))))
        // As the peers are measured: a hit does not come through the router.
        .operation("hit in memory, around the router", |env| {
            calls(env, CacheLayer::new(memory()).layer(as_served(service())))
        })
        .target("hit in memory", "the service", 2.5)
}

/// An axum router whose handler has the body at hand.
pub fn service() -> Router {
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

/// As `axum::serve` has a router: with its routes made, and not anew for each request.
pub(super) fn as_served(router: Router) -> Router {
    router.with_state(())
}

/// Calls of a service that answers with that body, one after the other.
pub fn calls<S, B>(env: &Env, service: S) -> Repeat
where
    S: Service<Request<Body>, Response = Response<B>, Error: Debug> + Clone + 'static,
    B: HttpBody<Error: Debug>,
{
    env.block_on(call(service.clone()));
    env.repeat(service, async |service, _| call(service.clone()).await)
}

async fn call<S, B>(mut service: S)
where
    S: Service<Request<Body>, Response = Response<B>, Error: Debug>,
    B: HttpBody<Error: Debug>,
{
    std::future::poll_fn(|cx| service.poll_ready(cx)).await.expect("it is ready");
    let request = Request::get("http://shop/items/7").body(Body::empty()).expect("a request");
    let response = service.call(request).await.expect("an answer");
    let body = response.into_body().collect().await.expect("all of it").to_bytes();
    assert_eq!(black_box(body).len(), BYTES);
}
