//! Requests that come at the same time: the origin is asked once, and nobody gets what is not for them.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream;
use http::Method;
use http_body_util::BodyExt;
use tokio::sync::{Semaphore, mpsc};

use crate::common::{Answering, Served, answer, client, serve, until};

/// An origin that answers once it may: one answer for each permit.
fn held(lines: &'static [(&'static str, &'static str)], gate: Arc<Semaphore>) -> Answering {
    Arc::new(move |request, count| {
        let gate = gate.clone();
        Box::pin(async move {
            gate.acquire().await.expect("a gate").forget();
            let language = request.headers().get("accept-language").and_then(|value| value.to_str().ok());
            let language = language.unwrap_or("none").to_owned();
            answer(lines, format!("answer {count} {language}"))
        })
    })
}

async fn at_once(served: &Served, count: usize, lines: &[(&str, &str)]) -> Vec<String> {
    let got = join_all((0..count).map(|_| served.get("/a", lines))).await;
    got.iter().map(|got| got.text().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_cold_requests_are_one() {
    let gate = Arc::new(Semaphore::new(0));
    let served = serve(held(&[("cache-control", "max-age=60")], gate.clone())).await;
    let (texts, ()) = tokio::join!(at_once(&served, 10, &[]), async {
        served.until_asked(1).await;
        until("nine wait", async || served.layer.cache().statistics().coalesced >= 9).await;
        gate.add_permits(100);
    });
    assert_eq!(texts, vec!["answer 1 none"; 10]);
    assert_eq!(served.seen.count(), 1);
    assert!(served.get("/a", &[]).await.is_hit());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn variants_that_nobody_knew_of_are_one_request_each() {
    let gate = Arc::new(Semaphore::new(0));
    let served =
        serve(held(&[("cache-control", "max-age=60"), ("vary", "accept-language")], gate.clone())).await;
    let (english, french, ()) = tokio::join!(
        at_once(&served, 5, &[("accept-language", "en")]),
        at_once(&served, 5, &[("accept-language", "fr")]),
        async {
            served.until_asked(1).await;
            until("nine wait", async || served.layer.cache().statistics().coalesced >= 9).await;
            gate.add_permits(100);
        }
    );
    assert!(english.iter().all(|text| text.ends_with(" en") && *text == english[0]), "{english:?}");
    assert!(french.iter().all(|text| text.ends_with(" fr") && *text == french[0]), "{french:?}");
    assert_eq!(served.seen.count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_private_is_asked_for_by_each() {
    let gate = Arc::new(Semaphore::new(0));
    let served = serve(held(&[("cache-control", "private")], gate.clone())).await;
    let (texts, ()) = tokio::join!(at_once(&served, 10, &[]), async {
        served.until_asked(1).await;
        until("nine wait", async || served.layer.cache().statistics().coalesced >= 9).await;
        gate.add_permits(100);
    });
    let mut distinct = texts.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), 10, "{texts:?}");
    // From now on nobody waits for what is not for them.
    let closed = Arc::new(gate);
    drop(closed.acquire_many(closed.available_permits() as u32).await.map(|permits| permits.forget()));
    let (_, ()) = tokio::join!(at_once(&served, 10, &[]), async {
        served.until_asked(20).await;
        closed.add_permits(10);
    });
}

/// A client that leaves takes nothing from others who wait for the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_in_the_middle_harms_nobody() {
    let (feed, chunks) = mpsc::unbounded_channel::<Result<Bytes, std::io::Error>>();
    let chunks = Arc::new(tokio::sync::Mutex::new(Some(chunks)));
    let served = serve(Arc::new(move |_, _| {
        let chunks = chunks.clone();
        Box::pin(async move {
            let chunks = chunks.lock().await.take().expect("one request");
            let chunks =
                stream::unfold(chunks, |mut chunks| async { chunks.recv().await.map(|c| (c, chunks)) });
            answer(&[("cache-control", "max-age=60")], Body::from_stream(chunks))
        })
    }))
    .await;
    feed.send(Ok(Bytes::from_static(b"one "))).expect("it is read");
    let leaver = client().request(served.request(Method::GET, "/a", &[])).await.expect("an answer");
    let mut leaver = leaver.into_body();
    let first = leaver.frame().await.expect("a frame").expect("a chunk");
    assert_eq!(first.into_data().expect("bytes"), "one ");
    let stayer = async { served.get("/a", &[]).await };
    let leaving = async {
        until("it waits too", async || served.layer.cache().statistics().coalesced >= 1).await;
        drop(leaver);
        feed.send(Ok(Bytes::from_static(b"two"))).expect("it is read");
        drop(feed);
    };
    let (stayed, ()) = tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(stayer, leaving) })
        .await
        .expect("in time");
    assert_eq!(stayed.text(), "one two");
    assert_eq!(stayed.field("cache-status"), Some("http;fwd=uri-miss;ttl=60;collapsed"));
    assert!(served.get("/a", &[]).await.is_hit());
    // What was read while it came is as long as is known now.
    let head = served.send(Method::HEAD, "/a", &[]).await;
    assert_eq!(head.field("content-length"), Some("7"), "{head:?}");
    assert_eq!(served.seen.count(), 1);
}

/// Who has an answer of its own waits for nobody's origin.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_there_waits_for_nobody() {
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let served = serve(Arc::new(move |request, count| {
        let held = held.clone();
        Box::pin(async move {
            if !request.headers().contains_key("authorization") {
                held.acquire().await.expect("a gate").forget();
            }
            answer(&[("cache-control", "public, max-age=60")], format!("answer {count}"))
        })
    }))
    .await;
    let (first, second) = tokio::join!(served.get("/a", &[]), async {
        served.until_asked(1).await;
        let own = served.get("/a", &[("authorization", "b")]).await;
        gate.add_permits(10);
        own
    });
    assert_eq!((first.text(), second.text()), ("answer 1", "answer 2"));
}

/// What one request says of itself changes nothing for others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_requests_wish_is_not_that_of_others() {
    let gate = Arc::new(Semaphore::new(10));
    let served = serve(held(&[("cache-control", "max-age=60")], gate.clone())).await;
    for lines in [[("cache-control", "no-store")], [("authorization", "x")]] {
        served.get("/a", &lines).await;
    }
    gate.acquire_many(gate.available_permits() as u32).await.expect("a gate").forget();
    let (texts, ()) = tokio::join!(at_once(&served, 10, &[]), async {
        served.until_asked(3).await;
        until("nine wait", async || served.layer.cache().statistics().coalesced >= 9).await;
        gate.add_permits(10);
    });
    assert_eq!(texts, vec!["answer 3 none"; 10]);
    // What is stored stays, whatever one request wants.
    served.get("/a", &[("cache-control", "no-store, no-cache")]).await;
    served.get("/a", &[("authorization", "x"), ("cache-control", "no-cache")]).await;
    assert_eq!(served.get("/a", &[]).await.text(), "answer 3 none");
}

/// The same where the origin says "not modified".
#[tokio::test]
async fn one_requests_validation_is_not_that_of_others() {
    let served = serve(Arc::new(|request, count| {
        Box::pin(async move {
            let lines = [("cache-control", "max-age=60"), ("etag", "\"one\"")];
            if !request.headers().contains_key("if-none-match") {
                return answer(&lines, format!("answer {count}"));
            }
            let mut response = answer(&lines, "");
            *response.status_mut() = http::StatusCode::NOT_MODIFIED;
            response
        })
    }))
    .await;
    served.get("/a", &[]).await;
    for lines in [
        [("authorization", "x"), ("cache-control", "no-cache")],
        [("x-nothing", "x"), ("cache-control", "no-store, no-cache")],
    ] {
        let validated = served.get("/a", &lines).await;
        assert_eq!((validated.status.as_u16(), validated.text()), (200, "answer 1"));
        let hit = served.get("/a", &[]).await;
        assert_eq!((hit.text(), hit.is_hit()), ("answer 1", true), "{lines:?}");
    }
    assert_eq!(served.seen.count(), 3);
}

/// What is stored to be validated is not for those who wait for it: who asks later would not get it either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_to_be_validated_is_asked_for_by_each() {
    for lines in [
        &[("etag", "\"a\"")][..],
        &[("etag", "\"a\""), ("cache-control", "no-cache")],
        &[("etag", "\"a\""), ("cache-control", "max-age=0, must-revalidate")],
    ] {
        let gate = Arc::new(Semaphore::new(0));
        let held = gate.clone();
        let served = serve(Arc::new(move |request, _| {
            let held = held.clone();
            Box::pin(async move {
                held.acquire().await.expect("a gate").forget();
                let who = request.headers()["cookie"].to_str().expect("a text").to_owned();
                answer(lines, format!("page of {who}"))
            })
        }))
        .await;
        for round in 0..2 {
            let users = ["alice", "bob", "carol"];
            let before = served.seen.count();
            let (got, ()) = tokio::join!(
                join_all(users.map(|user| {
                    let served = &served;
                    async move { served.get("/me", &[("cookie", user)]).await }
                })),
                async {
                    served.until_asked(before + 1).await;
                    if round == 0 {
                        let waiting = async || served.layer.cache().statistics().coalesced >= 2;
                        until("two wait", waiting).await;
                    }
                    gate.add_permits(10);
                }
            );
            for (user, got) in users.iter().zip(got) {
                assert_eq!(got.text(), format!("page of {user}"), "{lines:?}, round {round}: {got:?}");
            }
            let left = gate.available_permits();
            gate.acquire_many(left as u32).await.expect("permits").forget();
        }
    }
}

/// What takes longer to come than it is fresh is one load all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stale_when_it_comes_is_for_all_who_wait() {
    for lines in [
        &[("cache-control", "max-age=1"), ("etag", "\"a\"")][..],
        &[("cache-control", "max-age=1")],
        &[("cache-control", "max-age=1, must-revalidate")],
    ] {
        let gate = Arc::new(Semaphore::new(0));
        let served = serve(held(lines, gate.clone())).await;
        for round in 1..=2 {
            let waiting = round * 9;
            let (texts, ()) = tokio::join!(at_once(&served, 10, &[]), async {
                served.until_asked(round).await;
                until("nine wait", async || served.layer.cache().statistics().coalesced >= waiting as u64)
                    .await;
                served.advance(5);
                gate.add_permits(1);
            });
            assert_eq!(texts, vec![format!("answer {round} none"); 10], "{lines:?}");
        }
        assert_eq!(served.seen.count(), 2, "{lines:?}");
    }
}

/// An answer that the origin gave before a request was made is none for a request that wants it to be asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_wants_the_origin_asked_waits_for_no_older_answer() {
    for wish in ["no-cache", "max-age=0", "no-store"] {
        let gate = Arc::new(Semaphore::new(0));
        let served = serve(held(&[("cache-control", "max-age=60")], gate.clone())).await;
        let (older, newer, ()) = tokio::join!(
            served.get("/a", &[]),
            async {
                served.until_asked(1).await;
                served.get("/a", &[("cache-control", wish)]).await
            },
            async {
                served.until_asked(2).await;
                gate.add_permits(10);
            }
        );
        assert_eq!((older.text(), newer.text()), ("answer 1 none", "answer 2 none"), "{wish}");
    }
}

/// What is so of one variant says nothing of the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_variant_leaves_the_others_shared() {
    let gate = Arc::new(Semaphore::new(2));
    let held = gate.clone();
    let served = serve(Arc::new(move |request, count| {
        let held = held.clone();
        Box::pin(async move {
            held.acquire().await.expect("a gate").forget();
            let is_private = request.headers().contains_key("cookie");
            let control = if is_private { "private" } else { "max-age=10" };
            answer(&[("cache-control", control), ("vary", "cookie")], format!("answer {count}"))
        })
    }))
    .await;
    served.get("/a", &[]).await;
    served.get("/a", &[("cookie", "s=alice")]).await;
    served.advance(11);
    let (texts, ()) = tokio::join!(at_once(&served, 10, &[]), async {
        served.until_asked(3).await;
        until("nine wait", async || served.layer.cache().statistics().coalesced >= 9).await;
        gate.add_permits(100);
    });
    assert_eq!(texts, vec!["answer 3"; 10]);
}

/// Who comes later than a response is not served what has become stale since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_later_is_not_served_what_is_stale_by_then() {
    let (feed, chunks) = mpsc::unbounded_channel::<Result<Bytes, std::io::Error>>();
    let chunks = Arc::new(std::sync::Mutex::new(Some(chunks)));
    let served = serve(Arc::new(move |_, count| {
        let body = match chunks.lock().expect("a lock").take() {
            Some(mut chunks) => Body::from_stream(stream::poll_fn(move |cx| chunks.poll_recv(cx))),
            None => Body::from(format!("answer {count}")),
        };
        Box::pin(async move { answer(&[("cache-control", "max-age=1, must-revalidate")], body) })
    }))
    .await;
    feed.send(Ok(Bytes::from_static(b"long"))).expect("it is read");
    let reading = client().request(served.request(Method::GET, "/a", &[])).await.expect("an answer");
    served.advance(60);
    let late = tokio::time::timeout(Duration::from_secs(20), served.get("/a", &[])).await.expect("in time");
    assert_eq!(late.text(), "answer 2", "{late:?}");
    drop(feed);
    assert_eq!(reading.into_body().collect().await.expect("all of it").to_bytes(), "long");
}
