//! What is answered from the cache, and from which layer.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use crate::common::{Origin, Proxy, bytes, chunked, response};

const FRESH: &[(&str, &str)] = &[("cache-control", "max-age=600")];

#[tokio::test]
async fn hits_come_from_memory_and_after_a_restart_from_disk() {
    let origin = Origin::serve(|_, _| response(200, FRESH, bytes(1, 100_000))).await;
    let mut proxy = Proxy::start(&origin, &[]).await;
    assert_eq!(proxy.get("/film").await.cache(), "miss");
    let hit = proxy.get("/film").await;
    assert!(hit.cache().starts_with("hit"), "{}", hit.cache());
    assert_eq!(hit.body, bytes(1, 100_000));
    assert_ne!(hit.field("age"), "");
    let hit = proxy.get_until("/film", "layer=tiers.moka").await;
    assert_eq!(hit.body, bytes(1, 100_000));
    assert!(proxy.metrics().await.contains("tiers.moka"), "metrics have the layers");
    for kind in ["stopped", "killed"] {
        proxy = match kind {
            "stopped" => proxy.stopped_and_restarted().await,
            _ => proxy.killed_and_restarted().await,
        };
        let hit = proxy.get("/film").await;
        assert_eq!(hit.cache(), "hit; layer=tiers.disk", "{kind}");
        assert_eq!(hit.body, bytes(1, 100_000), "{kind}");
        proxy.get_until("/film", "layer=tiers.moka").await;
    }
    assert_eq!(origin.asked(), 1);
}

#[tokio::test]
async fn parts_of_what_is_stored_and_of_what_comes() {
    let all = bytes(2, 200_000);
    let body = all.clone();
    let origin = Origin::serve(move |_, _| response(200, FRESH, body.clone())).await;
    let mut proxy = Proxy::start(&origin, &[]).await;
    for round in ["cold", "memory", "disk"] {
        if round == "disk" {
            proxy.get_until("/film", "layer=tiers.moka").await;
            proxy = proxy.stopped_and_restarted().await;
        }
        let part = proxy.ask("/film", &[("range", "bytes=100-199")]).await.expect("a part");
        assert_eq!((part.status, &part.body[..]), (206, &all[100..200]), "{round}: {}", part.cache());
        assert_eq!(part.field("content-range"), "bytes 100-199/200000", "{round}");
        let rest = proxy.ask("/film", &[("range", "bytes=199990-")]).await.expect("a part");
        assert_eq!((rest.status, &rest.body[..]), (206, &all[199_990..]), "{round}");
        let last = proxy.ask("/film", &[("range", "bytes=-5")]).await.expect("a part");
        assert_eq!((last.status, &last.body[..]), (206, &all[199_995..]), "{round}");
        let none = proxy.ask("/film", &[("range", "bytes=200000-")]).await.expect("an answer");
        assert_eq!(none.status, 416, "{round}");
        let several = proxy.ask("/film", &[("range", "bytes=0-9,70-79,150000-150009")]).await.expect("parts");
        assert_eq!(several.status, 206, "{round}");
        assert_eq!(parts_of(&several), [&all[0..10], &all[70..80], &all[150_000..150_010]], "{round}");
    }
    assert_eq!(origin.asked(), 1);
    // Several parts of what is not stored yet.
    let several = proxy.ask("/other", &[("range", "bytes=5-9,60000-60009")]).await.expect("parts");
    assert_eq!(parts_of(&several), [&all[5..10], &all[60_000..60_010]]);
    assert_eq!(proxy.get("/other").await.body, all);
    assert_eq!(origin.asked(), 2);
}

/// The parts of an answer of several.
fn parts_of(answer: &crate::common::Answer) -> Vec<Vec<u8>> {
    let boundary = answer.field("content-type").split_once("boundary=").expect("several parts").1.to_owned();
    let mut parts = Vec::new();
    let mut left: &[u8] = &answer.body;
    let find = |text: &[u8], what: &[u8]| text.windows(what.len()).position(|window| window == what);
    let line = format!("--{boundary}").into_bytes();
    while let Some(at) = find(left, &line) {
        left = &left[at + line.len()..];
        let Some(head) = find(left, b"\r\n\r\n") else { break };
        let end = find(&left[head + 4..], b"\r\n--").expect("a next boundary");
        parts.push(left[head + 4..head + 4 + end].to_vec());
        left = &left[head + 4 + end..];
    }
    parts
}

#[tokio::test]
async fn variants_are_told_apart() {
    let origin = Origin::serve(|request, _| {
        let language =
            request.headers().get("accept-language").map_or("none", |value| value.to_str().expect("text"));
        let body = format!("in {language}");
        response(200, &[("cache-control", "max-age=600"), ("vary", "Accept-Language")], body)
    })
    .await;
    let mut proxy = Proxy::start(&origin, &[]).await;
    for round in 0..3 {
        if round == 2 {
            for language in ["en", "fr", "de"] {
                proxy.ask_until("/page", &[("accept-language", language)], "layer=tiers.moka").await;
            }
            proxy = proxy.stopped_and_restarted().await;
        }
        for language in ["en", "fr", "de"] {
            let answer = proxy.ask("/page", &[("accept-language", language)]).await.expect("an answer");
            assert_eq!(answer.body, format!("in {language}"), "round {round}");
            assert_eq!(
                answer.cache().starts_with("hit"),
                round > 0,
                "{language}, round {round}: {}",
                answer.cache()
            );
        }
    }
    assert_eq!(origin.asked(), 3);
}

#[tokio::test]
async fn what_is_stale_is_validated_and_its_body_kept() {
    let origin = Origin::serve(|request, _| {
        let fields = [("cache-control", "max-age=0, must-revalidate"), ("etag", "\"v1\"")];
        if request.headers().get("if-none-match").is_some_and(|etag| etag == "\"v1\"") {
            return response(304, &fields, "");
        }
        response(200, &fields, chunked(bytes(3, 300_000), 10_000, None))
    })
    .await;
    let mut proxy = Proxy::start(&origin, &[]).await;
    assert_eq!(proxy.get("/film").await.cache(), "miss");
    for round in 2..6 {
        if round == 4 {
            proxy = proxy.stopped_and_restarted().await;
        }
        let answer = proxy.get("/film").await;
        assert!(answer.cache().starts_with("revalidated"), "round {round}: {}", answer.cache());
        assert_eq!(answer.body, bytes(3, 300_000), "round {round}");
    }
    assert_eq!(origin.asked(), 5);
}

#[tokio::test]
async fn what_is_stale_is_served_while_it_is_fetched_and_when_nobody_answers() {
    let is_down = Arc::new(AtomicBool::new(false));
    let down = is_down.clone();
    let origin = Origin::serve(move |request, number| {
        if down.load(Ordering::SeqCst) {
            return response(503, &[], "out of order");
        }
        let control = if request.uri().path() == "/while" {
            "max-age=0, stale-while-revalidate=600"
        } else {
            "max-age=0, stale-if-error=600"
        };
        response(200, &[("cache-control", control)], format!("answer {number}"))
    })
    .await;
    let proxy = Proxy::start(&origin, &[]).await;
    assert_eq!(proxy.get("/while").await.body, "answer 1");
    let stale = proxy.get("/while").await;
    assert_eq!((stale.cache().split(';').next(), &stale.body[..]), (Some("stale"), &b"answer 1"[..]));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while proxy.get("/while").await.body == "answer 1" {
        assert!(std::time::Instant::now() < deadline, "it is fetched in the background");
    }
    let before = proxy.get("/error").await.body;
    is_down.store(true, Ordering::SeqCst);
    let stale = proxy.get("/error").await;
    assert_eq!((stale.status, &stale.body), (200, &before), "{}", stale.cache());
    origin.stop().await;
    let stale = proxy.get("/error").await;
    assert_eq!((stale.status, &stale.body), (200, &before), "{}", stale.cache());
}

#[tokio::test]
async fn purges_reach_every_layer_and_restarts_bring_nothing_back() {
    let origin = Origin::serve(|_, number| {
        response(200, &[("cache-control", "max-age=600"), ("etag", "\"e\"")], format!("answer {number}"))
    })
    .await;
    let mut proxy = Proxy::start(&origin, &[]).await;
    assert_eq!(proxy.purge("/page", "").await, 404, "nothing is stored");
    assert_eq!(proxy.get("/page").await.body, "answer 1");
    proxy.get_until("/page", "layer=tiers.moka").await;
    assert_eq!(proxy.purge("/page", "").await, 200);
    assert_eq!(proxy.get_until("/page", "layer=tiers.moka").await.body, "answer 2");
    proxy = proxy.stopped_and_restarted().await;
    assert_eq!(proxy.get("/page").await.cache(), "hit; layer=tiers.disk");
    // Right after a hit on disk, while it is being promoted.
    assert_eq!(proxy.purge("/page", "").await, 200);
    assert_eq!(proxy.get_until("/page", "layer=tiers.moka").await.body, "answer 3");
    proxy = proxy.stopped_and_restarted().await;
    assert_eq!(proxy.purge("/page", "").await, 200);
    proxy = proxy.killed_and_restarted().await;
    assert_eq!(proxy.get("/page").await.body, "answer 4", "a purge outlives a kill");
    // As stale it is validated: this origin answers anew.
    assert_eq!(proxy.purge("/page", "expire").await, 200);
    let answer = proxy.get("/page").await;
    assert_eq!(answer.body, "answer 5", "{}", answer.cache());
    proxy.get_until("/page", "layer=tiers.moka").await;
    proxy = proxy.stopped_and_restarted().await;
    assert_eq!(proxy.purge("/page", "expire").await, 200);
    proxy = proxy.killed_and_restarted().await;
    assert_eq!(proxy.get("/page").await.body, "answer 6", "an expiry outlives a kill");
}

#[tokio::test]
async fn heads_and_what_may_not_be_stored() {
    let origin = Origin::serve(|request, number| {
        let fields: &[(&str, &str)] = match request.uri().path() {
            "/private" => &[("cache-control", "private, max-age=600")],
            "/silent" => &[],
            "/cookie" => &[("cache-control", "max-age=600"), ("set-cookie", "a=b")],
            _ => FRESH,
        };
        response(200, fields, Bytes::from(format!("answer {number} to {}", request.method())))
    })
    .await;
    let proxy = Proxy::start(&origin, &[]).await;
    for path in ["/private", "/silent", "/cookie"] {
        let (one, other) = (proxy.get(path).await, proxy.get(path).await);
        assert_ne!(one.body, other.body, "{path} is asked for each time");
    }
    let before = origin.asked();
    let head = proxy.request("HEAD", "/page").send().await.expect("an answer");
    assert_eq!(head.status().as_u16(), 200);
    let page = proxy.get("/page").await;
    assert!(page.body.ends_with(b"to GET"), "{:?}: a HEAD leaves no empty page", page.body);
    let head = proxy.request("HEAD", "/page").send().await.expect("an answer");
    assert!(head.headers()["x-cache"].to_str().expect("text").starts_with("hit"));
    assert!(origin.asked() <= before + 2);
    let authorized = proxy.ask("/other", &[("authorization", "alice")]).await.expect("an answer");
    let others = proxy.ask("/other", &[("authorization", "bob")]).await.expect("an answer");
    assert_ne!(authorized.body, others.body, "what is for alice is not for bob");
}

#[tokio::test]
async fn what_varies_by_anything_is_for_nobody_else() {
    let origin = Origin::serve(|request, number| {
        let vary: &[u8] = match request.uri().path() {
            "/star" => b"Accept-Encoding, *",
            "/odd" => b"Cookie, \xe9",
            _ => b"*",
        };
        let mut answer = response(200, FRESH, format!("answer {number}"));
        answer.headers_mut().insert("vary", http::HeaderValue::from_bytes(vary).expect("a value"));
        answer
    })
    .await;
    let proxy = Proxy::start(&origin, &[]).await;
    for path in ["/star", "/odd", "/all"] {
        let (one, other) = (proxy.get(path).await, proxy.get(path).await);
        assert_ne!(one.body, other.body, "{path} is asked for each time");
    }
}

#[tokio::test]
async fn purges_reach_all_variants() {
    let origin = Origin::serve(|_, number| {
        response(
            200,
            &[("cache-control", "max-age=600"), ("vary", "accept-language")],
            format!("answer {number}"),
        )
    })
    .await;
    let proxy = Proxy::start(&origin, &[]).await;
    for how in ["", "expire"] {
        let before = origin.asked();
        for _ in 0..2 {
            for language in ["en", "fr"] {
                proxy.ask("/page", &[("accept-language", language)]).await.expect("an answer");
            }
        }
        assert_eq!(origin.asked(), before + 2, "each variant once");
        assert_eq!(proxy.purge("/page", how).await, 200, "\"{how}\"");
        // As stale it is the variant that the key names: the first one.
        let languages: &[&str] = if how.is_empty() { &["en", "fr"] } else { &["en"] };
        for language in languages {
            let answer = proxy.ask("/page", &[("accept-language", language)]).await.expect("an answer");
            assert!(!answer.cache().starts_with("hit"), "{language} after \"{how}\": {}", answer.cache());
        }
        assert_eq!(proxy.purge("/page", "").await, 200);
    }
    assert_eq!(proxy.purge("/page", "").await, 404, "nothing is there");
}

/// Asks for a target as it stands.
async fn ask_for(proxy: &Proxy, target: &[u8]) -> String {
    let (address, target) = (proxy.address, target.to_vec());
    let asking = tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(address).expect("a connection");
        let request =
            [b"GET ", &target[..], b" HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n"].concat();
        stream.write_all(&request).expect("a request");
        let mut answer = Vec::new();
        // One that is refused may be closed in the middle.
        drop(stream.read_to_end(&mut answer));
        String::from_utf8_lossy(&answer).into_owned()
    });
    asking.await.expect("an answer")
}

#[tokio::test]
async fn targets_that_are_not_the_same_are_not_the_same_page() {
    let origin = Origin::serve(|_, number| response(200, FRESH, format!("answer {number}"))).await;
    let proxy = Proxy::start(&origin, &[]).await;
    for odd in [&b"foo"[..], b"foo:bar", b"*"] {
        ask_for(&proxy, odd).await;
    }
    let page = proxy.get("/").await;
    assert_eq!(page.cache(), "miss", "nobody has asked for the front page");
    let one = ask_for(&proxy, b"/caf\xe9").await;
    let other = ask_for(&proxy, b"/caf\xe8").await;
    let body = |answer: &str| answer.rsplit("\r\n\r\n").next().expect("a body").to_owned();
    assert!(body(&one) != body(&other) || body(&one).is_empty(), "{one} and {other}");
}
