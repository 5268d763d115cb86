//! The status page: what its JSON says, and what a browser shows of it.

#![forbid(unsafe_code)]

mod browser;
mod json;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use bytes::Bytes;
use hitbox::moka::MokaBackend;
use hitbox_tower::{CacheLayer, StatusPage};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

fn memory() -> MokaBackend {
    MokaBackend::builder().max_bytes(64 << 20).build().expect("moka")
}

/// A service with items that are cached, and its page.
#[derive(Clone)]
struct Shop {
    address: SocketAddr,
    /// How often the service was asked for the first item.
    first_item: Arc<AtomicU64>,
    client: Client<HttpConnector, Empty<Bytes>>,
}

impl Shop {
    async fn serve(cache: &CacheLayer, page: StatusPage) -> Self {
        let first_item = Arc::new(AtomicU64::new(0));
        let asked = first_item.clone();
        let item = async move |Path(id): Path<u64>| {
            if id == 1 {
                asked.fetch_add(1, Ordering::SeqCst);
            }
            ([("cache-control", "max-age=600"), ("surrogate-key", "items")], format!("item {id}"))
        };
        let app =
            Router::new().route("/items/{id}", get(item)).layer(cache.clone()).nest_service("/cache", page);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, first_item, client: Client::builder(TokioExecutor::new()).build_http() }
    }

    async fn send(&self, method: Method, path: &str, lines: &[(&str, &str)]) -> (StatusCode, String) {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::new()).expect("a request");
        let response = self.client.request(request).await.expect("an answer");
        let status = response.status();
        let body = response.into_body().collect().await.expect("all of it").to_bytes();
        (status, String::from_utf8(body.to_vec()).expect("a text"))
    }

    async fn item(&self, id: u64) {
        assert_eq!(self.send(Method::GET, &format!("/items/{id}"), &[]).await.0, StatusCode::OK);
    }

    async fn status(&self) -> serde_json::Value {
        let (status, text) = self.send(Method::GET, "/cache/status.json", &[]).await;
        assert_eq!(status, StatusCode::OK);
        serde_json::from_str(&text).expect("JSON")
    }
}

async fn until<T>(what: &str, find: impl AsyncFn() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(found) = find().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap_or_else(|_| panic!("{what}"))
}
