//! A response of 1 GiB, asked for by eight clients at once over sockets, within 64 MiB of memory. In a process of its own, whose memory is
//! measured: it holds the origin and the clients too.

#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream;
use hitbox::backend::wrap::AdmissionRule;
use hitbox::disk::DiskBackend;
use hitbox::moka::MokaBackend;
use hitbox::{Compose, OffloadPool, Wrap};
use hitbox_tower::CacheLayer;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

const LEN: u64 = 1024 * 1024 * 1024;
const CHUNK: u64 = 64 * 1024;
const CLIENTS: usize = 8;
const MOST: u64 = 64 * 1024 * 1024;

/// The byte that stands at a place.
fn byte(at: u64) -> u8 {
    (at / CHUNK * 7 + at % 251) as u8
}

fn chunk(number: u64) -> Bytes {
    (number * CHUNK..(number + 1) * CHUNK).map(byte).collect::<Vec<u8>>().into()
}

/// The most memory that this process has had, in bytes.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the status of this process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak memory");
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kibibytes * 1024
}

/// Reads a response from there on, and says what its cache did.
async fn read(uri: &str, range: Option<&str>, from: u64) -> String {
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let mut request = http::Request::get(uri);
    if let Some(range) = range {
        request = request.header("range", range);
    }
    let request = request.body(Empty::new()).expect("a request");
    let response = client.request(request).await.expect("an answer");
    let status = response.headers()["cache-status"].to_str().expect("a text").to_owned();
    if range.is_some() && response.status() != http::StatusCode::PARTIAL_CONTENT {
        // It is not stored yet: the origin has answered, which knows no ranges.
        return status;
    }
    let (mut body, mut at) = (response.into_body(), from);
    while let Some(frame) = body.frame().await {
        let Ok(bytes) = frame.expect("a chunk").into_data() else { continue };
        assert!(bytes.iter().zip(at..).all(|(found, at)| *found == byte(at)), "from byte {at} on");
        at += bytes.len() as u64;
    }
    assert_eq!(at, LEN, "it ends too soon");
    status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_of_a_gibibyte_goes_to_eight_clients_within_64_mib() {
    let folder = tempfile::tempdir().expect("a folder");
    let memory = MokaBackend::builder().max_bytes(8 * 1024 * 1024).build().expect("moka");
    let disk = DiskBackend::builder(folder.path()).max_bytes(2 * LEN).open().await.expect("disk");
    let memory = memory.admission(AdmissionRule::UpTo(1024 * 1024));
    let layer = CacheLayer::new(memory.compose(disk, OffloadPool::new().shared()));
    let asked = Arc::new(AtomicU64::new(0));
    let counted = asked.clone();
    let origin = move || {
        counted.fetch_add(1, Ordering::SeqCst);
        async {
            let chunks = stream::iter((0..LEN / CHUNK).map(|number| Ok::<_, std::io::Error>(chunk(number))));
            let fields = [("cache-control", "max-age=600".to_owned()), ("content-length", LEN.to_string())];
            (
                fields.map(|(name, value)| (http::HeaderName::from_static(name), value)),
                Body::from_stream(chunks),
            )
        }
    };
    let app = Router::new().route("/big", axum::routing::get(origin)).layer(layer.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let uri = format!("http://{}/big", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, app).await });

    let clients = join_all((0..CLIENTS).map(|_| read(&uri, None, 0))).await;
    assert_eq!(asked.load(Ordering::SeqCst), 1, "{clients:?}");
    // It is stored once all have it, or a little later.
    let stored = async { while !read(&uri, Some("bytes=1073741800-"), LEN - 24).await.contains("hit") {} };
    tokio::time::timeout(std::time::Duration::from_secs(20), stored).await.expect("it is stored");
    assert!(peak_memory() < MOST, "it took {} bytes", peak_memory());
    assert!(layer.cache().shutdown(std::time::Duration::from_secs(10)).await.is_clean());
}
