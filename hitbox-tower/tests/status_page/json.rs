//! What programs read.

use hitbox::redis::RedisBackend;
use hitbox::{Compose, OffloadPool, RefillPolicy};
use hitbox_testkit::RedisServer;
use hitbox_tower::CacheLayer;
use http::{HeaderName, Method, StatusCode};
use serde_json::{Value, json};

use crate::{Shop, memory, until};

const PURGE: &[(&str, &str)] = &[("x-purge", "1")];

fn last(status: &Value) -> &Value {
    status["history"].as_array().and_then(|history| history.last()).expect("it ends now")
}

#[tokio::test]
async fn it_counts_answers_and_says_how_fast_and_for_what() {
    let cache = CacheLayer::builder(memory()).name("shop").build().expect("a layer");
    let shop = Shop::serve(&cache, cache.status_page()).await;
    for _ in 0..400 {
        shop.item(1).await;
    }
    for id in 2..=50 {
        shop.item(id).await;
    }
    shop.send(Method::DELETE, "/items/3", &[]).await;
    let status = shop.status().await;
    assert_eq!(status["name"], "shop");
    let now = last(&status);
    assert_eq!((&now["hits"], &now["forwarded"], &now["passed"]), (&json!(399), &json!(50), &json!(1)));
    let layer = &status["cache"]["layers"]["leaves"][0];
    assert_eq!((&layer["label"], &layer["failing"]), (&json!("moka"), &json!(false)));
    assert_eq!(layer["occupancy"]["max_bytes"], 64 << 20);
    // One of eight was looked at: of 449 that none was is not to be expected in the life of this test.
    assert!(
        status["hot_keys"][0]["resource"].as_str().is_some_and(|of| of.ends_with("/items/1")),
        "{status}"
    );
    let times =
        status["latency"].as_array().expect("times").iter().find(|times| times["answered_by"] == "moka");
    let times = times.expect("memory has answered");
    let at = |quantile: &str| times[quantile].as_f64().expect("microseconds");
    assert!(at("p50") > 0.0 && at("p50") <= at("p90") && at("p90") <= at("p99") && at("p99") <= at("max"));
}

#[tokio::test]
async fn nobody_purges_unless_the_guard_lets_him() {
    let cache = CacheLayer::new(memory());
    let shop = Shop::serve(&cache, cache.status_page()).await;
    assert_eq!(shop.status().await["may_purge"], false);
    let purge = "/cache/purge?pattern=*";
    assert_eq!(shop.send(Method::POST, purge, PURGE).await.0, StatusCode::FORBIDDEN);

    let secret = HeaderName::from_static("x-secret");
    let guarded = cache
        .status_page()
        .purge_if(move |request| request.headers.get(&secret).is_some_and(|said| said == "42"));
    let shop = Shop::serve(&cache, guarded).await;
    assert_eq!(shop.status().await["may_purge"], false);
    for lines in [&[("x-purge", "1")][..], &[("x-purge", "1"), ("x-secret", "43")], &[("x-secret", "42")]] {
        assert_eq!(shop.send(Method::POST, purge, lines).await.0, StatusCode::FORBIDDEN, "{lines:?}");
    }
    assert_eq!(
        shop.send(Method::GET, purge, &[("x-purge", "1"), ("x-secret", "42")]).await.0,
        StatusCode::METHOD_NOT_ALLOWED
    );
    // What a browser sends for another site.
    let host = shop.address.to_string();
    let foreign = [("sec-fetch-site", "cross-site"), ("origin", "http://evil.example"), ("origin", "null")];
    for field in foreign {
        let lines = [("x-purge", "1"), ("x-secret", "42"), field];
        assert_eq!(shop.send(Method::POST, purge, &lines).await.0, StatusCode::FORBIDDEN, "{field:?}");
        assert_eq!(shop.send(Method::GET, "/cache/status.json", &[field]).await.0, StatusCode::FORBIDDEN);
    }
    for field in [("sec-fetch-site", "same-origin"), ("origin", &format!("http://{host}"))] {
        assert_eq!(
            shop.send(Method::GET, "/cache/status.json", &[field]).await.0,
            StatusCode::OK,
            "{field:?}"
        );
    }
    let allowed = [("x-purge", "1"), ("x-secret", "42")];
    assert_eq!(
        shop.send(Method::POST, purge, &allowed).await,
        (StatusCode::OK, r#"{"entries":0}"#.to_owned())
    );
}

#[tokio::test]
async fn it_purges_by_uri_key_tag_and_pattern() {
    let fields = [HeaderName::from_static("surrogate-key")];
    let cache = CacheLayer::builder(memory()).tags_from(fields).build().expect("a layer");
    let shop = Shop::serve(&cache, cache.status_page().purge_if(|_| true)).await;
    let key = async || {
        for _ in 0..200 {
            shop.item(1).await;
        }
        let status = shop.status().await;
        status["hot_keys"][0]["key"].as_str().expect("a key").to_owned()
    };
    let key = key().await;
    let asked = || shop.first_item.load(std::sync::atomic::Ordering::SeqCst);
    let uri = format!("http://{}/items/1", shop.address);
    let named = [("uri", uri.as_str()), ("key", &key), ("tag", "items"), ("pattern", "*/items/1")];
    for (by, value) in named {
        shop.item(1).await;
        let before = asked();
        shop.item(1).await;
        assert_eq!(asked(), before, "it is cached");
        let query = form_urlencoded(by, value);
        let (status, said) = shop.send(Method::POST, &format!("/cache/purge?{query}"), PURGE).await;
        assert_eq!(status, StatusCode::OK, "{by}: {said}");
        shop.item(1).await;
        assert_eq!(asked(), before + 1, "{by}");
    }
    for query in ["", "uri=", "what=1", "uri=%20", "key=no%20key", "tag=a&tag=b"] {
        let (status, said) = shop.send(Method::POST, &format!("/cache/purge?{query}"), PURGE).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}: {said}");
    }
}

fn form_urlencoded(name: &str, value: &str) -> String {
    let value = value.bytes().map(|byte| format!("%{byte:02x}"));
    format!("{name}={}", value.collect::<String>())
}

/// Redis dies, and is back.
#[tokio::test]
async fn it_says_which_layer_fails() {
    let server = RedisServer::start();
    let redis = RedisBackend::builder(&server.url()).build().expect("Redis");
    let layers = memory().compose(redis, OffloadPool::new().shared()).with_refill(RefillPolicy::Always);
    let cache = CacheLayer::new(layers.with_label("tiers"));
    let shop = Shop::serve(&cache, cache.status_page()).await;
    shop.item(1).await;
    let failing = async || {
        let status = shop.status().await;
        let leaves = status["cache"]["layers"]["leaves"].as_array().expect("layers").clone();
        leaves
            .into_iter()
            .filter(|leaf| leaf["failing"] == true)
            .map(|leaf| leaf["label"].clone())
            .collect::<Vec<_>>()
    };
    assert!(failing().await.is_empty());
    server.kill();
    shop.item(2).await;
    until("it fails", async || (failing().await == [json!("tiers.redis")]).then_some(())).await;
    server.restart();
    until("it is back", async || {
        shop.item(fastrand()).await;
        failing().await.is_empty().then_some(())
    })
    .await;
}

/// Another item each time.
fn fastrand() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1_000);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

/// It stands anywhere, is never stored, and says how a browser has to treat it.
#[tokio::test]
async fn the_page_is_whole_in_itself() {
    let cache = CacheLayer::new(memory());
    let shop = Shop::serve(&cache, cache.status_page()).await;
    for path in ["/cache", "/cache/"] {
        let (status, page) = shop.send(Method::GET, path, &[]).await;
        assert_eq!(status, StatusCode::OK);
        assert!(page.starts_with("<!doctype html>"));
        // The name of SVG, and an example.
        let page = page.replace("http://www.w3.org/2000/svg", "").replace("http://shop/items/7", "");
        assert!(!page.contains("http://"), "it asks nobody else");
        assert!(!page.contains("https://"), "it asks nobody else");
    }
    assert_eq!(shop.send(Method::POST, "/cache/", &[]).await.0, StatusCode::METHOD_NOT_ALLOWED);
}
