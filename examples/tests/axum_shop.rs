//! The shop, over real sockets: alone, and two of them over one Redis.

#![forbid(unsafe_code)]

#[path = "../axum_shop/database.rs"]
mod database;
#[path = "../axum_shop/pages.rs"]
mod pages;
#[path = "../axum_shop/shop.rs"]
mod shop;

use std::sync::LazyLock;

use hitbox_backend::metrics::PrometheusExport;
use hitbox_testkit::RedisServer;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use database::Database;
use shop::Shop;

/// One process has one recorder of metrics.
static METRICS: LazyLock<PrometheusExport> =
    LazyLock::new(|| hitbox_backend::metrics::prometheus().expect("a recorder"));

/// A shop on a socket.
struct Served {
    url: String,
    shop: Shop,
    client: reqwest::Client,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<()>,
}

async fn serve(database: Database, redis: Option<&str>) -> Served {
    let shop = Shop::new(database, redis).expect("a shop");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let router = pages::router(&shop, METRICS.clone());
    let (stop, stopped) = oneshot::channel::<()>();
    let ended = tokio::spawn(async move {
        let stopped = async { drop(stopped.await) };
        axum::serve(listener, router).with_graceful_shutdown(stopped).await.expect("it serves");
    });
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    Served { url, shop, client, stop, ended }
}

impl Served {
    /// A page, and what its cache says.
    async fn get(&self, path: &str) -> (String, String) {
        let response = self.client.get(format!("{}{path}", self.url)).send().await.expect("an answer");
        let status = response.headers().get("cache-status");
        let status = status.map(|status| status.to_str().expect("a text").to_owned()).unwrap_or_default();
        (response.text().await.expect("a text"), status)
    }

    async fn set_price(&self, id: u32, cents: &str) -> u16 {
        let url = format!("{}/items/{id}/price", self.url);
        let response = self.client.put(url).body(cents.to_owned()).send().await.expect("an answer");
        response.status().as_u16()
    }

    /// Says whether all that was to be stored is.
    async fn stop(self) -> bool {
        self.stop.send(()).expect("it runs");
        self.ended.await.expect("it ends");
        self.shop.shutdown().await
    }
}

#[tokio::test]
async fn pages_are_made_once_until_something_changes() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("shop.db");
    let served = serve(Database::open(Some(file.clone())).await.expect("a database"), None).await;
    for round in 0..3 {
        let (page, status) = served.get("/items/3").await;
        assert!(page.contains("map &amp; compass no. 3") && page.contains("5.30 €"), "{page}");
        assert_eq!(status.contains("hit"), round > 0, "{status}");
        assert!(served.get("/").await.0.contains("5.30 €"));
    }
    assert_eq!(served.shop.database.queries(), 2);
    // Another query is another page, and what is not there is asked for once.
    assert!(served.get("/?page=1").await.0.contains("no. 21"));
    assert_eq!(served.get("/items/999").await.0, "there is no such item\n");
    assert_eq!(served.get("/items/999").await.0, "there is no such item\n");
    assert_eq!(served.shop.database.queries(), 4);

    assert_eq!(served.set_price(3, "499").await, 204);
    assert!(served.get("/items/3").await.0.contains("4.99 €"));
    assert!(served.get("/").await.0.contains("4.99 €"));
    assert_eq!(served.shop.database.queries(), 7);
    assert_eq!(served.set_price(999, "1").await, 404);
    assert_eq!(served.set_price(3, "cheap").await, 400);

    let (metrics, status) = served.get("/metrics").await;
    assert!(metrics.contains("hitbox_cache_hit_total"), "{metrics}");
    assert_eq!(status, "", "nobody caches the metrics");
    let (shown, _) = served.get("/cache/status.json").await;
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    assert!(shown["cache"]["hits"].as_u64() > Some(0) && shown["may_purge"] == false, "{shown}");
    assert!(served.get("/cache").await.0.starts_with("<!doctype html>"));
    assert!(served.stop().await);

    // What was changed is in the file.
    let served = serve(Database::open(Some(file)).await.expect("a database"), None).await;
    assert!(served.get("/items/3").await.0.contains("4.99 €"));
    assert!(served.stop().await);
}

#[tokio::test]
async fn shops_over_one_redis_share_what_they_cache() {
    let redis = RedisServer::start();
    let database = Database::open(None).await.expect("a database");
    let one = serve(database.clone(), Some(&redis.url())).await;
    let other = serve(database.clone(), Some(&redis.url())).await;
    assert!(one.get("/items/3").await.0.contains("5.30 €"));
    let queries = database.queries();
    // The page is stored in the background of the answer.
    let found = async || other.get("/items/3").await.0.contains("5.30 €");
    assert!(found().await);
    assert!(database.queries() <= queries + 1);
    // A change in one is seen in both, in the other within the bound of staleness.
    assert_eq!(one.set_price(3, "499").await, 204);
    assert!(one.get("/items/3").await.0.contains("4.99 €"));
    let seen = async {
        while !other.get("/items/3").await.0.contains("4.99 €") {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), seen).await.expect("the other sees it");
    // Without Redis they go on.
    drop(redis);
    assert!(one.get("/items/4").await.0.contains("5.40 €"));
    assert!(!one.stop().await, "what Redis has missed is not stored");
    other.stop().await;
}
