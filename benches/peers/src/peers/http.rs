//! Caches of HTTP as layers of tower: a response of 1 KiB in memory.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use hitbox_bench::measure::{Env, Repeat};
use hitbox_bench::subjects::http::{calls, service};
use http::{Request, Response};
use http_body_util::Full;
use tower_layer::Layer;
use tower_service::Service;

use super::HOUR;

const ENTRIES: u64 = 1_000;

/// The service within. A hit does not ask it: it answers once or twice, and no more.
#[derive(Clone)]
struct Origin<S>(S, Arc<AtomicU32>);

impl<S, Q> Service<Request<Q>> for Origin<S>
where
    S: Service<Request<Q>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Q>) -> S::Future {
        assert!(self.1.fetch_add(1, Ordering::Relaxed) < 2, "the response is not cached");
        self.0.call(request)
    }
}

fn origin<S>(service: S) -> Origin<S> {
    Origin(service, Arc::default())
}

pub(crate) fn hitbox(env: &Env) -> Repeat {
    use hitbox::Config;
    use hitbox::policy::PolicyConfig;
    use hitbox_http::extractors::Method;
    use hitbox_http::predicates::{NeutralRequestPredicate, NeutralResponsePredicate};

    let config = Config::builder()
        .request_predicate(NeutralRequestPredicate::new())
        .response_predicate(NeutralResponsePredicate::new())
        .extractor(Method::new())
        .policy(PolicyConfig::builder().ttl(HOUR).build())
        .build();
    let memory = hitbox_moka::MokaBackend::builder().max_entries(ENTRIES).build();
    let layer = hitbox_tower::Cache::builder().backend(memory).config(config).build();
    calls(env, layer.layer(origin(service())))
}

pub(crate) fn http_cache_tower(env: &Env) -> Repeat {
    let memory = http_cache::MokaManager::new(http_cache::MokaCache::new(ENTRIES));
    calls(env, http_cache_tower::HttpCacheLayer::new(memory).layer(origin(service())))
}

/// It takes only bodies that are `Sync`, which those of axum are not.
pub(crate) fn tower_http_cache(env: &Env) -> Repeat {
    use tower_http_cache::prelude::{CacheLayer, InMemoryBackend};

    let layer = CacheLayer::builder(InMemoryBackend::new(ENTRIES)).ttl(HOUR).build();
    let body = Bytes::from(vec![7; 1_024]);
    let service = tower::service_fn(move |_: Request<Body>| {
        let mut response = Response::new(Full::new(body.clone()));
        let maximum = http::HeaderValue::from_static("max-age=3600");
        response.headers_mut().insert(http::header::CACHE_CONTROL, maximum);
        std::future::ready(Ok::<_, Infallible>(response))
    });
    calls(env, env.block_on(async { layer.layer(origin(service)) }))
}
