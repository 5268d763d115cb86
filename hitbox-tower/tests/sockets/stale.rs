//! What is stale: served while it is validated, or since the origin fails, or not at all.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http::{Method, StatusCode};
use tokio::sync::mpsc;

use crate::common::{Answering, answer, fields, serve, until};

#[tokio::test]
async fn a_stale_answer_is_served_while_it_is_validated() {
    let served = serve(fields(&[("cache-control", "max-age=10, stale-while-revalidate=30")])).await;
    assert_eq!(served.get("/a", &[]).await.text(), "answer 1");
    served.advance(20);
    let stale = served.get("/a", &[]).await;
    assert_eq!((stale.text(), stale.field("age"), stale.is_hit()), ("answer 1", Some("20"), true));
    assert_eq!(stale.field("cache-status"), Some("http;hit;ttl=-10;detail=\"moka\""));
    served.until_asked(2).await;
    until("the new one is stored", async || served.get("/a", &[]).await.text() == "answer 2").await;
    assert_eq!(served.seen.count(), 2);
    served.advance(41);
    assert_eq!(served.get("/a", &[]).await.text(), "answer 3");
}

type Lines = &'static [(&'static str, &'static str)];

/// An origin that answers with an error once it is told to.
fn failing(lines: Lines, fails: Arc<AtomicBool>) -> Answering {
    failing_with(lines, &[], fails)
}

/// The same with an error that has these fields.
fn failing_with(lines: Lines, error: Lines, fails: Arc<AtomicBool>) -> Answering {
    Arc::new(move |_, count| {
        let fails = fails.load(Ordering::SeqCst);
        Box::pin(async move {
            if fails {
                let mut response = answer(error, format!("error {count}"));
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                return response;
            }
            answer(lines, format!("answer {count}"))
        })
    })
}

#[tokio::test]
async fn an_error_is_answered_with_what_is_stale_if_the_response_says_so() {
    let fails = Arc::new(AtomicBool::new(false));
    let served = serve(failing(&[("cache-control", "max-age=10, stale-if-error=60")], fails.clone())).await;
    served.get("/a", &[]).await;
    fails.store(true, Ordering::SeqCst);
    served.advance(20);
    let stale = served.get("/a", &[]).await;
    assert_eq!((stale.status, stale.text()), (StatusCode::OK, "answer 1"));
    let status = "http;fwd=stale;fwd-status=503;ttl=-10;detail=\"served since the origin failed\"";
    assert_eq!(stale.field("cache-status"), Some(status));
    let head = served.send(Method::HEAD, "/a", &[]).await;
    assert_eq!((head.status, head.field("cache-status")), (StatusCode::OK, Some(status)), "{head:?}");
    served.advance(60);
    assert_eq!(served.send(Method::HEAD, "/a", &[]).await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(served.get("/a", &[]).await.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn an_error_is_passed_on_if_it_does_not() {
    for lines in [
        &[("cache-control", "max-age=10")][..],
        &[("cache-control", "max-age=10, must-revalidate, stale-if-error=60")],
        &[("cache-control", "max-age=10, s-maxage=10, stale-if-error=60")],
    ] {
        let fails = Arc::new(AtomicBool::new(false));
        let served = serve(failing(lines, fails.clone())).await;
        served.get("/a", &[]).await;
        fails.store(true, Ordering::SeqCst);
        served.advance(20);
        let error = served.get("/a", &[]).await;
        assert_eq!((error.status, error.text()), (StatusCode::SERVICE_UNAVAILABLE, "error 2"), "{lines:?}");
        // What is stored is still there once the origin is back.
        fails.store(false, Ordering::SeqCst);
        assert_eq!(served.get("/a", &[]).await.text(), "answer 3");
    }
}

/// A response that is for one user alone ends what was stored before.
#[tokio::test]
async fn what_is_private_now_is_not_served_from_before() {
    let served = serve(Arc::new(|_, count| {
        Box::pin(async move {
            let says = if count == 1 { "max-age=10" } else { "private" };
            answer(&[("cache-control", says), ("etag", "\"x\"")], format!("answer {count}"))
        })
    }))
    .await;
    served.get("/a", &[]).await;
    served.advance(20);
    assert_eq!(served.get("/a", &[]).await.text(), "answer 2");
    let third = served.get("/a", &[]).await;
    assert_eq!(third.text(), "answer 3");
    assert!(!served.seen.last().contains_key("if-none-match"), "nothing is stored");
}

/// A response that is never fresh, and may be served stale.
#[tokio::test]
async fn what_is_never_fresh_may_be_served_stale() {
    let served = serve(fields(&[("cache-control", "max-age=0, stale-while-revalidate=60")])).await;
    assert_eq!(served.get("/a", &[]).await.text(), "answer 1");
    let stale = served.get("/a", &[]).await;
    assert_eq!((stale.text(), stale.is_hit()), ("answer 1", true));
    served.until_asked(2).await;
}

/// A service that says nothing of it may be given time by the policy.
#[tokio::test]
async fn an_error_is_answered_with_what_is_stale_if_the_policy_says_so() {
    let clock = crate::common::clock();
    let policy = hitbox_tower::Policy::shared().stale_on_error(Duration::from_secs(60));
    let layer = hitbox_tower::CacheLayer::builder(crate::common::memory_at(&clock)).policy(policy);
    let fails = Arc::new(AtomicBool::new(false));
    let origin = failing(&[("cache-control", "max-age=10")], fails.clone());
    let served = crate::common::serve_behind(layer.build().expect("a layer"), clock, origin).await;
    served.get("/a", &[]).await;
    fails.store(true, Ordering::SeqCst);
    served.advance(20);
    assert_eq!(served.get("/a", &[]).await.text(), "answer 1");
    served.advance(60);
    assert_eq!(served.get("/a", &[]).await.status, StatusCode::SERVICE_UNAVAILABLE);
}

/// Its answer is for itself alone, so that it is no load that others wait for.
const ALICE: &[(&str, &str)] = &[("authorization", "alice")];
const LONG_STALE: &[(&str, &str)] = &[("cache-control", "public, max-age=60, stale-while-revalidate=6000")];

/// A validation that hangs does not keep later ones from the response.
#[tokio::test]
async fn a_validation_that_hangs_is_given_up() {
    let served = serve(Arc::new(|_, count| {
        Box::pin(async move {
            if count == 2 {
                std::future::pending::<()>().await;
            }
            answer(LONG_STALE, format!("answer {count}"))
        })
    }))
    .await;
    served.get("/a", &[]).await;
    served.advance(61);
    assert_eq!(served.get("/a", ALICE).await.text(), "answer 1");
    served.until_asked(2).await;
    served.advance(61);
    until("it is validated", async || served.get("/a", ALICE).await.text() == "answer 3").await;
}

/// Nobody reads an answer in the background that is not stored.
#[tokio::test]
async fn an_answer_without_an_end_keeps_nobody() {
    let served = serve(Arc::new(|_, count| {
        Box::pin(async move {
            match count {
                1 => answer(LONG_STALE, "answer 1"),
                _ => {
                    let endless = stream::pending::<Result<Bytes, Infallible>>();
                    answer(&[("cache-control", "no-store")], Body::from_stream(endless))
                }
            }
        })
    }))
    .await;
    served.get("/a", &[]).await;
    served.advance(61);
    assert_eq!(served.get("/a", ALICE).await.text(), "answer 1");
    served.until_asked(2).await;
    let limit = Duration::from_secs(20);
    let end = tokio::time::timeout(limit, served.layer.cache().shutdown(limit)).await.expect("it ends");
    assert!(end.is_clean(), "{end:?}");
}

/// An error that says how long it is fresh is an error all the same.
#[tokio::test]
async fn an_error_that_could_be_stored_replaces_nothing_that_may_be_served() {
    let fails = Arc::new(AtomicBool::new(false));
    let lines = &[("cache-control", "max-age=10, stale-if-error=60")];
    let served = serve(failing_with(lines, &[("cache-control", "max-age=5")], fails.clone())).await;
    served.get("/a", &[]).await;
    fails.store(true, Ordering::SeqCst);
    served.advance(20);
    for _ in 0..2 {
        let stale = served.get("/a", &[]).await;
        assert_eq!((stale.status, stale.text()), (StatusCode::OK, "answer 1"), "{stale:?}");
    }
    assert!(
        served.get("/b", &[]).await.field("cache-status").is_some_and(|status| status.contains("stored"))
    );
    served.advance(60);
    assert_eq!(served.get("/a", &[]).await.status, StatusCode::SERVICE_UNAVAILABLE);
}

/// A client that is over its limit takes nothing from the others, whatever its error says.
#[tokio::test]
async fn an_error_of_one_client_leaves_what_is_stored() {
    for error in [
        &[][..],
        &[("cache-control", "no-store")],
        &[("cache-control", "max-age=9")],
        &[("set-cookie", "seen=1")],
    ] {
        let served = serve(Arc::new(move |request, count| {
            Box::pin(async move {
                if request.headers().contains_key("x-over") {
                    let mut response = answer(error, format!("too many {count}"));
                    *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
                    return response;
                }
                answer(&[("cache-control", "max-age=60")], format!("answer {count}"))
            })
        }))
        .await;
        served.get("/a", &[]).await;
        let over = served.get("/a", &[("cache-control", "no-cache"), ("x-over", "1")]).await;
        assert_eq!(over.status, StatusCode::TOO_MANY_REQUESTS, "{over:?}");
        // A removal would be in the background.
        assert!(served.layer.cache().shutdown(Duration::from_secs(20)).await.is_clean());
        let hit = served.get("/a", &[]).await;
        assert!(hit.is_hit(), "{error:?}: {hit:?}");
        assert_eq!(served.seen.count(), 2);
    }
}

/// A client that has what is stale does not keep it from being validated.
#[tokio::test]
async fn what_a_client_has_is_validated_all_the_same() {
    let (feed, chunks) = mpsc::unbounded_channel::<Result<Bytes, Infallible>>();
    let chunks = Arc::new(Mutex::new(Some(chunks)));
    let served = serve(Arc::new(move |_, count| {
        let lines = &[("cache-control", "max-age=10, stale-while-revalidate=30"), ("etag", "\"a\"")];
        let body = match count {
            1 => Body::from("answer 1"),
            _ => {
                let mut chunks = chunks.lock().expect("a lock").take().expect("one more request");
                Body::from_stream(stream::poll_fn(move |cx| chunks.poll_recv(cx)))
            }
        };
        Box::pin(async move { answer(lines, body) })
    }))
    .await;
    served.get("/a", &[]).await;
    served.advance(20);
    let stale = served.get("/a", &[("if-none-match", "\"a\"")]).await;
    assert_eq!(stale.status, StatusCode::NOT_MODIFIED, "{stale:?}");
    served.until_asked(2).await;
    feed.send(Ok(Bytes::from_static(b"answer 2"))).expect("it is read");
    drop(feed);
    until("the new one is stored", async || served.get("/a", &[]).await.text() == "answer 2").await;
    assert_eq!(served.seen.count(), 2);
}

#[tokio::test]
async fn an_error_that_a_validation_brings_replaces_nothing_that_may_be_served() {
    let fails = Arc::new(AtomicBool::new(false));
    let lines = &[("cache-control", "max-age=10, stale-while-revalidate=30, stale-if-error=600")];
    let served = serve(failing_with(lines, &[("cache-control", "max-age=5")], fails.clone())).await;
    served.get("/a", &[]).await;
    fails.store(true, Ordering::SeqCst);
    for (age, asked) in [(20, 2), (25, 3)] {
        served.advance(age);
        let stale = served.get("/a", &[]).await;
        assert_eq!((stale.status, stale.text()), (StatusCode::OK, "answer 1"), "{stale:?}");
        served.until_asked(asked).await;
    }
}

/// An error for one variant does not lead away from another.
#[tokio::test]
async fn an_error_for_a_variant_leaves_the_others_found() {
    for error in [&[("cache-control", "max-age=5")][..], &[("cache-control", "max-age=5"), ("vary", "x-a")]] {
        let served = serve(Arc::new(move |request, count| {
            Box::pin(async move {
                if request.headers()["accept-language"] == "de" {
                    let mut response = answer(error, format!("error {count}"));
                    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                    return response;
                }
                let lines = [("cache-control", "max-age=60"), ("vary", "accept-language")];
                answer(&lines, format!("answer {count}"))
            })
        }))
        .await;
        served.get("/a", &[("accept-language", "en")]).await;
        let failed = served.get("/a", &[("accept-language", "de")]).await;
        assert_eq!(failed.status, StatusCode::SERVICE_UNAVAILABLE, "{failed:?}");
        let hit = served.get("/a", &[("accept-language", "en")]).await;
        assert_eq!((hit.text(), hit.is_hit()), ("answer 1", true), "{hit:?}");
    }
}

/// What is for one client alone reaches him with a validation, too.
#[tokio::test]
async fn a_validation_brings_a_client_his_cookie() {
    let served = serve(Arc::new(|request, count| {
        Box::pin(async move {
            let cookie = format!("seen={count}");
            let control = "max-age=10, no-cache=\"set-cookie\"";
            let lines = [("cache-control", control), ("etag", "\"a\""), ("set-cookie", &*cookie)];
            let mut response = answer(&lines, "one page");
            if request.headers().contains_key("if-none-match") {
                *response.body_mut() = Body::empty();
                *response.status_mut() = StatusCode::NOT_MODIFIED;
            }
            response
        })
    }))
    .await;
    for (wait, cookie) in [(0, Some("seen=1")), (5, None), (20, Some("seen=2")), (5, None)] {
        served.advance(wait);
        let got = served.get("/a", &[]).await;
        assert_eq!((got.text(), got.field("set-cookie")), ("one page", cookie), "{got:?}");
    }
}
