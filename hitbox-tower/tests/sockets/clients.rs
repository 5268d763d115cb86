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

/// A client of reqwest with a cache, and how often it has sent anything.
#[cfg(feature = "reqwest")]
mod reqwest_clients {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::body::Body;
    use hitbox_tower::{CacheLayer, CacheMiddleware, Policy};
    use http::StatusCode;
    use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next};

    use super::origin;
    use crate::common::{Answering, answer, clock, memory_at};

    /// Stands before the network.
    #[derive(Clone, Default)]
    struct Sent(Arc<AtomicUsize>);

    #[async_trait::async_trait]
    impl Middleware for Sent {
        async fn handle(
            &self,
            request: reqwest::Request,
            extensions: &mut http::Extensions,
            next: Next<'_>,
        ) -> Result<reqwest::Response, reqwest_middleware::Error> {
            self.0.fetch_add(1, Ordering::SeqCst);
            next.run(request, extensions).await
        }
    }

    fn cached(layer: &CacheLayer, sent: &Sent) -> ClientWithMiddleware {
        let bare = reqwest::Client::builder().no_proxy().build().expect("a client");
        let sender = ClientBuilder::new(bare.clone()).with(sent.clone()).build();
        ClientBuilder::new(bare).with(CacheMiddleware::new(layer, sender)).build()
    }

    fn paths() -> Answering {
        Arc::new(|request, count| {
            Box::pin(async move {
                match request.uri().path() {
                    "/moved" => {
                        let mut response =
                            answer(&[("location", "/there"), ("cache-control", "max-age=60")], "");
                        *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
                        response
                    }
                    "/long" => answer(&[("cache-control", "max-age=60")], Body::from(vec![7; 3 << 20])),
                    _ => answer(&[("cache-control", "private, max-age=60")], format!("answer {count}")),
                }
            })
        })
    }

    /// GraphQL, for instance.
    #[tokio::test]
    async fn searches_of_a_client_are_told_apart_by_their_bodies() {
        let (origin, seen) = origin(Arc::new(|request, count| {
            Box::pin(async move {
                if request.uri().path() == "/moved" {
                    let mut moved = answer(&[("location", "/search")], "");
                    *moved.status_mut() = StatusCode::TEMPORARY_REDIRECT;
                    return moved;
                }
                let sent = axum::body::to_bytes(request.into_body(), 1_000).await.expect("a body");
                answer(&[("cache-control", "private, max-age=60")], format!("{count}: {} bytes", sent.len()))
            })
        }))
        .await;
        let whole = |body: hitbox_tower::RequestBody<_>| {
            body.try_into_bytes().map_or_else(reqwest::Body::wrap, reqwest::Body::from)
        };
        let layer = CacheLayer::builder(memory_at(&clock())).policy(Policy::private());
        let layer = layer.key_body([http::Method::POST], 100, whole).build().expect("a layer");
        let client = cached(&layer, &Sent::default());
        let search = async |body: String| {
            let response =
                client.post(format!("{origin}/search")).body(body).send().await.expect("an answer");
            response.text().await.expect("a text")
        };
        for (body, text) in [("red", "1: 3 bytes"), ("green", "2: 5 bytes"), ("red", "1: 3 bytes")] {
            assert_eq!(search(body.to_owned()).await, text);
        }
        assert_eq!(search("x".repeat(500)).await, "3: 500 bytes");
        assert_eq!(search("x".repeat(500)).await, "4: 500 bytes");
        assert_eq!((search("red".to_owned()).await.as_str(), seen.count()), ("1: 3 bytes", 4));
        // A redirect sends the body once more.
        for body in ["red".to_owned(), "x".repeat(500)] {
            let bytes = body.len();
            let moved = client.post(format!("{origin}/moved")).body(body).send().await.expect("an answer");
            assert!(moved.text().await.expect("a text").ends_with(&format!("{bytes} bytes")));
        }
    }

    #[tokio::test]
    async fn it_sends_what_the_cache_does_not_have() {
        let (origin, seen) = origin(paths()).await;
        let clock = clock();
        let layer =
            CacheLayer::builder(memory_at(&clock)).policy(Policy::private()).build().expect("a layer");
        let sent = Sent::default();
        let client = cached(&layer, &sent);
        let text = async |path: &str| {
            let response = client.get(format!("{origin}{path}")).send().await.expect("an answer");
            assert_eq!(
                response.url().as_str(),
                format!("{origin}{path}"),
                "what is from the cache has its URL"
            );
            response.text().await.expect("a text")
        };
        for _ in 0..3 {
            assert_eq!(text("/a?b=c").await, "answer 1");
        }
        assert_eq!((seen.count(), sent.0.load(Ordering::SeqCst)), (1, 1));
        // A change removes it.
        let changed = client.post(format!("{origin}/a?b=c")).body("new").send().await.expect("an answer");
        assert_eq!(changed.status(), StatusCode::OK);
        assert_eq!(text("/a?b=c").await, "answer 3");
        for _ in 0..2 {
            let long = client.get(format!("{origin}/long")).send().await.expect("an answer");
            assert_eq!(long.content_length(), Some(3 << 20));
            assert_eq!(long.bytes().await.expect("all of it").len(), 3 << 20);
        }
        assert_eq!(seen.count(), 4);
    }

    #[tokio::test]
    async fn what_it_was_redirected_to_is_not_stored_for_another_url() {
        let (origin, seen) = origin(paths()).await;
        let layer =
            CacheLayer::builder(memory_at(&clock())).policy(Policy::private()).build().expect("a layer");
        let client = cached(&layer, &Sent::default());
        for count in [2, 4] {
            let response = client.get(format!("{origin}/moved")).send().await.expect("an answer");
            assert_eq!(response.url().path(), "/there");
            assert_eq!(response.text().await.expect("a text"), format!("answer {count}"));
        }
        assert_eq!(seen.count(), 4);
    }

    /// What another resource says of itself does not make what is stored right.
    #[tokio::test]
    async fn a_redirect_to_what_has_not_changed_is_followed() {
        let (origin, _) = origin(Arc::new(|request, count| {
            Box::pin(async move {
                let is_conditional = request.headers().contains_key("if-none-match");
                let mut response = answer(&[("cache-control", "max-age=60"), ("etag", "\"1\"")], "");
                match (request.uri().path(), count) {
                    ("/a", 1) => *response.body_mut() = Body::from("of a"),
                    ("/a", _) => {
                        *response.status_mut() = StatusCode::FOUND;
                        response.headers_mut().insert("location", "/b".parse().expect("a value"));
                    }
                    _ if is_conditional => *response.status_mut() = StatusCode::NOT_MODIFIED,
                    _ => *response.body_mut() = Body::from("of b"),
                }
                response
            })
        }))
        .await;
        let clock = clock();
        let layer =
            CacheLayer::builder(memory_at(&clock)).policy(Policy::private()).build().expect("a layer");
        let client = cached(&layer, &Sent::default());
        let get = async || client.get(format!("{origin}/a")).send().await.expect("an answer");
        assert_eq!(get().await.text().await.expect("a text"), "of a");
        clock.advance(std::time::Duration::from_secs(61));
        let moved = get().await;
        assert_eq!((moved.status(), moved.url().path()), (StatusCode::OK, "/b"));
        assert_eq!(moved.text().await.expect("a text"), "of b");
    }

    /// A proxy: what its client was redirected to answers its own URI.
    #[tokio::test]
    async fn what_a_client_was_redirected_to_is_stored_by_a_server_before_it() {
        let (origin, seen) = origin(Arc::new(|request, count| {
            Box::pin(async move {
                if request.uri().path() == "/moved" {
                    let mut moved = answer(&[("location", "/there")], "");
                    *moved.status_mut() = StatusCode::FOUND;
                    return moved;
                }
                answer(&[("cache-control", "max-age=60")], format!("answer {count}"))
            })
        }))
        .await;
        let within =
            CacheLayer::builder(memory_at(&clock())).policy(Policy::private()).build().expect("a layer");
        let client = cached(&within, &Sent::default());
        let proxy = tower::service_fn(move |_: http::Request<reqwest::Body>| {
            let asked = client.get(format!("{origin}/moved")).send();
            async move { asked.await.map(http::Response::<reqwest::Body>::from) }
        });
        let mut service = tower::Layer::layer(&CacheLayer::new(memory_at(&clock())), proxy);
        for _ in 0..2 {
            let request =
                http::Request::get("http://shop/a").body(reqwest::Body::default()).expect("a request");
            let response = tower::Service::call(&mut service, request).await.expect("an answer");
            let body =
                http_body_util::BodyExt::collect(response.into_body()).await.expect("all of it").to_bytes();
            assert_eq!(body, "answer 2");
        }
        assert_eq!(seen.count(), 2, "it is stored");
    }

    /// The sender says who asks, and the cache does not see it.
    #[tokio::test]
    async fn what_varies_by_what_the_sender_adds_is_not_stored() {
        let (origin, seen) = origin(Arc::new(|_, count| {
            Box::pin(async move {
                answer(
                    &[("cache-control", "max-age=60"), ("vary", "Accept, Cookie")],
                    format!("answer {count}"),
                )
            })
        }))
        .await;
        let layer =
            CacheLayer::builder(memory_at(&clock())).policy(Policy::private()).build().expect("a layer");
        let client = cached(&layer, &Sent::default());
        for _ in 0..2 {
            client.get(format!("{origin}/a")).send().await.expect("an answer");
        }
        assert_eq!(seen.count(), 2);
        for _ in 0..2 {
            client.get(format!("{origin}/a")).header("cookie", "a=b").send().await.expect("an answer");
        }
        assert_eq!(seen.count(), 3);
    }

    /// A resource that begins to vary by what the sender adds. Nobody gets a 304 who has not asked for it.
    #[tokio::test]
    async fn what_begins_to_vary_by_what_the_sender_adds_is_kept_no_longer() {
        let (origin, seen) = origin(Arc::new(|request, _| {
            Box::pin(async move {
                let mut response = answer(&[("cache-control", "max-age=60"), ("etag", "\"1\"")], "text");
                if request.headers().contains_key("if-none-match") {
                    *response.status_mut() = StatusCode::NOT_MODIFIED;
                    *response.body_mut() = Body::empty();
                    response.headers_mut().insert("vary", "cookie".parse().expect("a value"));
                }
                response
            })
        }))
        .await;
        let clock = clock();
        let layer =
            CacheLayer::builder(memory_at(&clock)).policy(Policy::private()).build().expect("a layer");
        let client = cached(&layer, &Sent::default());
        let get = async || {
            let response = client.get(format!("{origin}/a")).send().await.expect("an answer");
            (response.status(), response.text().await.expect("a text"))
        };
        assert_eq!(get().await, (StatusCode::OK, "text".to_owned()));
        clock.advance(std::time::Duration::from_secs(61));
        assert_eq!(get().await, (StatusCode::OK, "text".to_owned()));
        // What was stored is removed, and asked for anew.
        crate::common::until("it is asked for without a condition", async || {
            get().await;
            !seen.last().contains_key("if-none-match")
        })
        .await;
    }

    #[tokio::test]
    async fn errors_of_the_network_come_through() {
        let layer = CacheLayer::new(memory_at(&clock()));
        let client = cached(&layer, &Sent::default());
        // Nobody listens on a port that was just given back.
        let port =
            std::net::TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr()).expect("a port");
        let error = client.get(format!("http://{port}/")).send().await.expect_err("nobody answers");
        assert!(error.is_connect(), "{error:?}");
    }
}
