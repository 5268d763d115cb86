//! What is removed: by whoever holds the layer, and by requests that change something.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use hitbox_tower::CacheLayer;
use http::uri::Scheme;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tower::{Layer, ServiceExt};

use crate::common::{answer, clock, fields, memory_at, serve, serve_behind};

const FRESH: &[(&str, &str)] = &[("cache-control", "max-age=60"), ("vary", "accept-language")];

#[tokio::test]
async fn a_uri_is_purged_with_all_its_variants() {
    let served = serve(fields(FRESH)).await;
    for language in ["en", "fr"] {
        served.get("/a", &[("accept-language", language)]).await;
    }
    served.get("/b", &[]).await;
    let uri = format!("http://{}/a", served.address).parse().expect("a URI");
    served.layer.purge().uri(&uri).await.expect("it is purged");
    for (language, text) in [("en", "answer 4"), ("fr", "answer 5")] {
        assert_eq!(served.get("/a", &[("accept-language", language)]).await.text(), text);
    }
    assert_eq!(served.get("/b", &[]).await.text(), "answer 3");
}

#[tokio::test]
async fn tags_patterns_and_all() {
    let clock = clock();
    let layer = CacheLayer::builder(memory_at(&clock));
    let layer = layer.tags_from([HeaderName::from_static("surrogate-key")]).build().expect("a layer");
    let origin = fields(&[
        ("cache-control", "max-age=60"),
        ("surrogate-key", "shop item-7"),
        ("cache-groups", "\"g\""),
    ]);
    let served = serve_behind(layer, clock, origin).await;
    let purge = served.layer.purge();
    assert_eq!(served.get("/items/7", &[]).await.text(), "answer 1");
    purge.tag("item-7").await.expect("it is purged");
    assert_eq!(served.get("/items/7", &[]).await.text(), "answer 2");
    purge.tag("item-8").await.expect("it is purged");
    assert_eq!(served.get("/items/7", &[]).await.text(), "answer 2");
    let pattern = format!("http://{}/items/*", served.address);
    assert_eq!(purge.matching(&pattern).await.expect("it is purged"), 1);
    assert_eq!(served.get("/items/7", &[]).await.text(), "answer 3");
    purge.all().await.expect("it is purged");
    assert_eq!(served.get("/items/7", &[]).await.text(), "answer 4");
}

/// A response that is being loaded when its URI is purged is as old as what was purged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_loaded_meanwhile_is_not_stored() {
    for lines in [&FRESH[..1], FRESH] {
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let waits = gate.clone();
        let served = serve(Arc::new(move |_, count| {
            let waits = waits.clone();
            Box::pin(async move {
                waits.acquire().await.expect("a gate").forget();
                answer(lines, format!("answer {count}"))
            })
        }))
        .await;
        let uri = format!("http://{}/a", served.address).parse().expect("a URI");
        let (got, ()) = tokio::join!(served.get("/a", &[]), async {
            served.until_asked(1).await;
            served.layer.purge().uri(&uri).await.expect("it is purged");
            gate.add_permits(10);
        });
        assert_eq!(got.text(), "answer 1");
        assert_eq!(served.get("/a", &[]).await.text(), "answer 2", "{lines:?}");
    }
}

#[tokio::test]
async fn a_change_invalidates_what_it_changes() {
    let served = serve(Arc::new(|request, count| {
        Box::pin(async move {
            let mut response = answer(&[("cache-control", "max-age=60")], format!("answer {count}"));
            if *request.method() == Method::POST {
                response.headers_mut().insert("location", "/items/7".parse().expect("a value"));
                if request.uri().path() == "/refused" {
                    *response.status_mut() = StatusCode::BAD_REQUEST;
                }
            }
            response
        })
    }))
    .await;
    for path in ["/items", "/items/7", "/refused"] {
        served.get(path, &[]).await;
    }
    served.send(Method::POST, "/refused", &[]).await;
    assert_eq!(served.get("/refused", &[]).await.text(), "answer 3", "a change that was refused is none");
    served.send(Method::POST, "/items", &[]).await;
    assert_eq!(served.get("/items", &[]).await.text(), "answer 6");
    assert_eq!(served.get("/items/7", &[]).await.text(), "answer 7", "Location names it");
    assert_eq!(served.get("/refused", &[]).await.text(), "answer 3");
}

#[tokio::test]
async fn a_change_invalidates_groups() {
    let served = serve(Arc::new(|request, count| {
        Box::pin(async move {
            let says =
                if *request.method() == Method::POST { "cache-group-invalidation" } else { "cache-groups" };
            answer(&[("cache-control", "max-age=60"), (says, "\"prices\"")], format!("answer {count}"))
        })
    }))
    .await;
    served.get("/a", &[]).await;
    assert!(served.get("/a", &[]).await.is_hit());
    served.send(Method::POST, "/prices", &[]).await;
    assert_eq!(served.get("/a", &[]).await.text(), "answer 3");
}

/// Where more than the URI is part of the key, a purge of the URI is one of all of these.
#[tokio::test]
async fn a_purge_where_keys_have_more() {
    let clock = clock();
    let layer = CacheLayer::builder(memory_at(&clock));
    let layer = layer.key(|key| key.query(["page"]).cookie("currency")).build().expect("a layer");
    let served = serve_behind(layer, clock, fields(&[("cache-control", "max-age=60")])).await;
    let (euro, dollar) = ([("cookie", "a=b; currency=EUR")], [("cookie", "currency=USD")]);
    assert_eq!(served.get("/a?page=1&utm=x", &euro).await.text(), "answer 1");
    assert_eq!(served.get("/a?page=1&utm=y", &euro).await.text(), "answer 1");
    assert_eq!(served.get("/a?page=1", &dollar).await.text(), "answer 2");
    served
        .layer
        .purge()
        .uri(&format!("http://{}/a?page=1", served.address).parse().expect("a URI"))
        .await
        .expect("purged");
    assert_eq!(served.get("/a?page=1&utm=x", &euro).await.text(), "answer 3");
    assert_eq!(served.get("/a?page=1", &dollar).await.text(), "answer 4");
}

/// A response that is asked for alone, and whose record of variants is written as it comes, is no more to be found after a purge in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_wins_over_records_of_variants() {
    let served = serve(fields(&[("cache-control", "public, max-age=60"), ("vary", "accept-language")])).await;
    for number in 0..300 {
        let path = format!("/{number}");
        let uri = format!("http://{}{path}", served.address).parse().expect("a URI");
        let before = served.seen.count();
        let (own, asked) = tokio::join!(served.get(&path, &[("authorization", "x")]), async {
            for _ in 0..fastrand::usize(..200) {
                tokio::task::yield_now().await;
            }
            let asked = served.seen.count();
            served.layer.purge().uri(&uri).await.expect("it is purged");
            asked
        });
        let after = served.get(&path, &[]).await;
        let was_asked_before = asked > before;
        assert!(
            !(was_asked_before && after.is_hit() && after.text() == own.text()),
            "{number}: what was purged is back"
        );
    }
}

#[tokio::test]
async fn patterns_are_of_urls() {
    let served = serve(fields(&[("cache-control", "max-age=60")])).await;
    let host = served.address.to_string();
    let paths = ["/items/7", "/items/8?page=2", "/item", "/items/9?page=3"];
    for (pattern, expected) in [
        ("*/items/*".to_owned(), 3),
        ("*items*".to_owned(), 3),
        ("*://*/items/*".to_owned(), 3),
        (format!("http://{host}/items/*"), 3),
        (format!("*://{host}/items/?"), 0),
        ("*?page=*".to_owned(), 2),
        (format!("http://{host}/items/8?page=2"), 1),
        ("https://*".to_owned(), 0),
        ("*".to_owned(), 4),
    ] {
        for path in paths {
            served.get(path, &[]).await;
        }
        let removed = served.layer.purge().matching(&pattern).await.expect("it is purged");
        assert_eq!(removed, expected, "{pattern}");
    }
}

/// A server behind TLS: HTTP/2 says `https`, HTTP/1 says nothing.
#[tokio::test]
async fn a_resource_has_one_entry_whatever_the_protocol() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let service = tower::service_fn(move |request: Request<Full<Bytes>>| {
        let count = counted.fetch_add(1, Ordering::SeqCst) + 1;
        let mut response = Response::new(Full::new(Bytes::from(format!("answer {count}"))));
        let headers = response.headers_mut();
        headers.insert("cache-control", HeaderValue::from_static("max-age=60"));
        if *request.method() == Method::POST {
            headers.insert("location", HeaderValue::from_static("https://shop/items/7"));
        }
        std::future::ready(Ok::<_, std::convert::Infallible>(response))
    });
    let layer = CacheLayer::builder(memory_at(&clock())).scheme(Scheme::HTTPS).build().expect("a layer");
    let cached = layer.layer(service);
    let ask = async |method: Method, uri: &str| {
        let request = Request::builder().method(method).uri(uri).header("host", "shop");
        let request = request.body(Full::default()).expect("a request");
        let response = cached.clone().oneshot(request).await.expect("an answer");
        response.into_body().collect().await.expect("all of it").to_bytes()
    };
    assert_eq!(ask(Method::GET, "/items/7").await, "answer 1");
    assert_eq!(ask(Method::GET, "https://shop/items/7").await, "answer 1");
    // A change by one protocol is one for both.
    ask(Method::POST, "https://shop/items/7").await;
    assert_eq!(ask(Method::GET, "/items/7").await, "answer 3");
    ask(Method::POST, "/items").await;
    assert_eq!(ask(Method::GET, "https://shop/items/7").await, "answer 5");
    for (scheme, text) in [("http", "answer 6"), ("https", "answer 7")] {
        let uri = format!("{scheme}://shop/items/7").parse().expect("a URI");
        layer.purge().uri(&uri).await.expect("it is purged");
        assert_eq!(ask(Method::GET, "/items/7").await, text);
    }
}

/// Layers over one backend whose keys have more than the URI: each removes its own responses.
#[tokio::test]
async fn a_layer_purges_a_uri_of_its_own() {
    let memory = memory_at(&clock());
    let layers = ["shop", "search"].map(|name| {
        let layer = CacheLayer::builder(memory.clone()).name(name);
        layer.key(|key| key.header(HeaderName::from_static("x-site"))).build().expect("a layer")
    });
    let calls = Arc::new(AtomicUsize::new(0));
    let ask = async |layer: &CacheLayer| {
        let counted = calls.clone();
        let service = tower::service_fn(move |_: Request<Full<Bytes>>| {
            let count = counted.fetch_add(1, Ordering::SeqCst) + 1;
            let mut response = Response::new(Full::new(Bytes::from(format!("answer {count}"))));
            response.headers_mut().insert("cache-control", HeaderValue::from_static("max-age=60"));
            std::future::ready(Ok::<_, std::convert::Infallible>(response))
        });
        let request = Request::get("http://shop/a").header("x-site", "de").body(Full::default());
        let response = layer.layer(service).oneshot(request.expect("a request")).await.expect("an answer");
        response.into_body().collect().await.expect("all of it").to_bytes()
    };
    let [shop, search] = &layers;
    assert_eq!((ask(shop).await, ask(search).await), ("answer 1".into(), "answer 2".into()));
    shop.purge().uri(&"http://shop/a".parse().expect("a URI")).await.expect("it is purged");
    assert_eq!((ask(shop).await, ask(search).await), ("answer 3".into(), "answer 2".into()));
}
