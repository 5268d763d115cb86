//! Origins that die, clients that stall and leave, and many who ask at once.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Semaphore;

use crate::common::{Origin, Proxy, bytes, chunked, response};

const FRESH: &[(&str, &str)] = &[("cache-control", "max-age=600")];

#[tokio::test]
async fn an_origin_that_dies_leaves_nothing() {
    let len = 1_000_000;
    for with_length in [true, false] {
        let origin = Origin::serve(move |_, number| {
            let fails_at = (number <= 3).then_some(len / 2);
            let body = chunked(bytes(4, len as u64), 20_000, fails_at);
            let length = len.to_string();
            let fields = [("cache-control", "max-age=600"), ("content-length", &*length)];
            response(200, if with_length { &fields } else { &fields[..1] }, body)
        })
        .await;
        let mut proxy = Proxy::start(&origin, &[]).await;
        for round in 1..=3 {
            let failed = proxy.ask("/film", &[]).await;
            assert!(failed.is_err(), "round {round}, with length {with_length}: half a body is no answer");
            if round == 2 {
                proxy = proxy.killed_and_restarted().await;
            }
        }
        for _ in 0..2 {
            assert_eq!(proxy.get("/film").await.body, bytes(4, len as u64), "with length {with_length}");
        }
        assert!(proxy.get("/film").await.cache().starts_with("hit"));
        assert_eq!(origin.asked(), 4);
    }
}

#[tokio::test]
async fn many_who_ask_at_once_cost_one_request() {
    let (asked, release) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let all = bytes(5, 500_000);
    let (count, gate, body) = (asked.clone(), release.clone(), all.clone());
    let origin = Origin::serve(move |_, _| {
        count.fetch_add(1, Ordering::SeqCst);
        let (gate, body) = (gate.clone(), body.clone());
        // The first half comes at once; the rest when all have asked.
        let parts = futures_util::stream::unfold(0, move |part| {
            let (gate, body) = (gate.clone(), body.clone());
            async move {
                match part {
                    0 => Some((Ok::<_, std::io::Error>(body.slice(..250_000)), 1)),
                    1 => {
                        gate.acquire().await.expect("it is open").forget();
                        Some((Ok(body.slice(250_000..)), 2))
                    }
                    _ => None,
                }
            }
        });
        response(200, FRESH, axum::body::Body::from_stream(parts))
    })
    .await;
    // Pingora looks for a response, and then for its lock. A header that comes in between, on another thread, lets a request pass.
    let proxy = Proxy::start(&origin, &["--threads", "1"]).await;
    let clients = (0..10).map(|_| proxy.request("GET", "/film").send());
    // All have their fields, and the beginning, before the end has come.
    let answers = join_all(clients).await;
    release.add_permits(10);
    for answer in answers {
        assert_eq!(answer.expect("an answer").bytes().await.expect("a body"), all);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

/// Opens a connection, asks, and reads so many bytes of the answer.
fn ask_and_read(proxy: &Proxy, path: &str, bytes: usize) -> TcpStream {
    let mut stream = TcpStream::connect(proxy.address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n").expect("a request");
    let mut read = vec![0; bytes];
    stream.read_exact(&mut read).expect("the beginning");
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_leave_take_nothing_with_them() {
    let len = 20_000_000;
    let body = bytes(6, len);
    let all = body.clone();
    let origin = Origin::serve(move |_, _| response(200, FRESH, chunked(body.clone(), 50_000, None))).await;
    let proxy = Proxy::start(&origin, &[]).await;
    for round in 0..5 {
        let path = format!("/film/{round}");
        let leaving = ask_and_read(&proxy, &path, 10_000);
        // One that follows the same response, if it is still being written.
        let (follower, ()) = tokio::join!(proxy.ask(&path, &[]), async { drop(leaving) });
        if let Ok(answer) = follower {
            assert_eq!(answer.body, all, "round {round}");
        }
        for _ in 0..2 {
            assert_eq!(proxy.get(&path).await.body, all, "round {round}: whoever asks next gets all of it");
        }
        assert!(proxy.get(&path).await.cache().starts_with("hit"), "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_stall_are_let_go() {
    let len = 40_000_000;
    let body = bytes(7, len);
    let all = body.clone();
    let origin = Origin::serve(move |_, _| response(200, FRESH, chunked(body.clone(), 50_000, None))).await;
    let proxy = Proxy::start(&origin, &["--write-timeout", "1"]).await;
    // It takes nothing more, and keeps its connection.
    let stalled = ask_and_read(&proxy, "/film", 10_000);
    // Pingora reads the origin for the one who asked first, so that others wait for it; then they have an error, or all of it.
    if let Ok(answer) = proxy.ask("/film", &[]).await {
        assert_eq!(answer.body, all);
    }
    assert_eq!(proxy.get("/film").await.body, all, "whoever asks next gets all of it");
    let hit = proxy.get("/film").await;
    assert!(hit.cache().starts_with("hit"), "{}", hit.cache());
    // One that stalls in a hit holds up nobody.
    let stalled_in_a_hit = ask_and_read(&proxy, "/film", 10_000);
    assert_eq!(proxy.get("/film").await.body, all);
    drop((stalled, stalled_in_a_hit));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_in_the_middle_ends_nobodys_answer() {
    let len = 20_000_000;
    let body = bytes(8, len);
    let all = body.clone();
    let origin = Origin::serve(move |_, _| response(200, FRESH, chunked(body.clone(), 50_000, None))).await;
    let proxy = Proxy::start(&origin, &[]).await;
    for round in 0..3 {
        let answer = proxy.request("GET", "/film").send().await.expect("an answer");
        assert_eq!(proxy.purge("/film", "").await, 200, "round {round}");
        assert_eq!(answer.bytes().await.expect("a body"), all, "round {round}");
        assert_eq!(
            proxy.get("/film").await.cache(),
            "miss",
            "round {round}: what was under way is not stored"
        );
        assert_eq!(proxy.purge("/film", "").await, 200, "round {round}");
    }
}
