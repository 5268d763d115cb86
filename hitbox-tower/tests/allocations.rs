//! What a hit in memory allocates.

#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use hitbox::core::ManualClock;
use hitbox::moka::MokaBackend;
use hitbox_tower::CacheLayer;
use http::{HeaderValue, Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tower::{Layer, Service};

/// Fewer than the in-memory cache itself collects before it does its bookkeeping.
const HITS: u64 = 20;

/// Of a call, among them the key, the reader, the fields and their index.
const MOST: u64 = 5;

fn get() -> Request<Full<Bytes>> {
    Request::get("http://shop/items/7").body(Full::default()).expect("a request")
}

/// A call that is answered by the first poll, body and all.
fn hit<S, B>(service: &mut S, request: Request<Full<Bytes>>)
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error = Infallible>,
    B: Body<Data = Bytes>,
{
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Ok(response)) = pin!(service.call(request)).poll(&mut cx) else {
        panic!("no answer at once")
    };
    let mut body = pin!(response.into_body());
    let mut bytes = 0;
    while let Poll::Ready(Some(Ok(frame))) = body.as_mut().poll_frame(&mut cx) {
        bytes += frame.data_ref().map_or(0, Bytes::len);
    }
    assert_eq!(bytes, 1024);
}

#[tokio::test]
async fn a_hit_allocates_little() {
    let origin = tower::service_fn(|_: Request<Full<Bytes>>| async {
        let mut response = Response::new(Full::new(Bytes::from(vec![7; 1024])));
        let fields = [("cache-control", "max-age=60"), ("etag", "\"one\""), ("content-type", "text/plain")];
        for (name, value) in fields {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        Ok::<_, Infallible>(response)
    });
    // What is said of a hit changes from second to second.
    let clock = Arc::new(ManualClock::new());
    let memory = MokaBackend::builder().clock(clock).build().expect("moka");
    let mut service = CacheLayer::new(memory).layer(origin);
    service.call(get()).await.expect("an answer").into_body().collect().await.expect("all of it");
    while !service.call(get()).await.expect("an answer").headers()["cache-status"]
        .to_str()
        .expect("a text")
        .contains("hit")
    {}
    hit(&mut service, get());
    let requests: Vec<_> = (0..HITS).map(|_| get()).collect();
    let counted =
        allocation_counter::measure(|| requests.into_iter().for_each(|request| hit(&mut service, request)));
    assert!(counted.count_total <= MOST * HITS, "{counted:?}");
}
