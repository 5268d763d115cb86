//! What caches are known to get wrong: each is one user's answer given to another, or one that is not right any more.

use std::sync::Arc;

use http::{Method, StatusCode};

use crate::common::{answer, fields, serve};

const FRESH: &[(&str, &str)] = &[("cache-control", "max-age=60")];

#[tokio::test]
async fn what_says_that_it_is_fresh_is_served_again() {
    let served = serve(fields(FRESH)).await;
    let first = served.get("/a", &[]).await;
    assert_eq!((first.text(), first.is_hit()), ("answer 1", false));
    assert_eq!(first.field("cache-status"), Some("http;fwd=uri-miss;ttl=60;stored"));
    served.advance(59);
    let second = served.get("/a", &[]).await;
    assert_eq!((second.text(), second.field("age")), ("answer 1", Some("59")));
    assert_eq!(second.field("cache-status"), Some("http;hit;ttl=1;detail=\"moka\""));
    served.advance(1);
    assert_eq!(served.get("/a", &[]).await.text(), "answer 2");
    assert_eq!(served.get("/b", &[]).await.text(), "answer 3");
}

#[tokio::test]
async fn what_says_nothing_is_not_stored() {
    let served = serve(fields(&[])).await;
    assert_eq!(served.get("/a", &[]).await.text(), "answer 1");
    let second = served.get("/a", &[]).await;
    assert_eq!((second.text(), second.is_hit()), ("answer 2", false));
}

#[tokio::test]
async fn a_get_after_a_head_has_a_body() {
    let served = serve(fields(FRESH)).await;
    assert_eq!(served.send(Method::HEAD, "/a", &[]).await.text(), "");
    assert_eq!(served.get("/a", &[]).await.text(), "answer 2");
    // And a HEAD is answered from what a GET has stored.
    let head = served.send(Method::HEAD, "/a", &[]).await;
    assert_eq!((head.text(), head.is_hit(), head.field("content-length")), ("", true, Some("8")));
}

#[tokio::test]
async fn a_language_is_not_served_for_another() {
    let served = serve(fields(&[("cache-control", "max-age=60"), ("vary", "Accept-Language")])).await;
    let (en, fr) = ([("accept-language", "en")], [("accept-language", "fr")]);
    assert_eq!(served.get("/a", &en).await.text(), "answer 1");
    let french = served.get("/a", &fr).await;
    assert_eq!(
        (french.text(), french.field("cache-status")),
        ("answer 2", Some("http;fwd=vary-miss;ttl=60;stored"))
    );
    assert_eq!(served.get("/a", &en).await.text(), "answer 1");
    assert_eq!(served.get("/a", &fr).await.text(), "answer 2");
    assert_eq!(served.get("/a", &[]).await.text(), "answer 3");
}

/// A resource that varies by other fields than it did: what is stored for one set is not served for the other.
#[tokio::test]
async fn sets_of_fields_may_differ() {
    let served = serve(Arc::new(|request, count| {
        Box::pin(async move {
            let vary = if request.headers().contains_key("b") { "a, b" } else { "a" };
            answer(&[("cache-control", "max-age=60"), ("vary", vary)], format!("answer {count}"))
        })
    }))
    .await;
    assert_eq!(served.get("/", &[("a", "1")]).await.text(), "answer 1");
    assert_eq!(served.get("/", &[("a", "2"), ("b", "1")]).await.text(), "answer 2");
    assert_eq!(served.get("/", &[("a", "2"), ("b", "2")]).await.text(), "answer 3");
    assert_eq!(served.get("/", &[("a", "2"), ("b", "1")]).await.text(), "answer 2");
    // It is loaded once more at most: the record of both sets began anew.
    let again = served.get("/", &[("a", "1")]).await;
    assert_eq!(served.get("/", &[("a", "1")]).await.text(), again.text());
}

#[tokio::test]
async fn an_expiry_and_variants() {
    let served = serve(fields(&[
        ("date", "Tue, 14 Nov 2023 22:13:20 GMT"),
        ("expires", "Tue, 14 Nov 2023 22:14:20 GMT"),
        ("vary", "accept"),
    ]))
    .await;
    assert_eq!(served.get("/a", &[("accept", "text/html")]).await.text(), "answer 1");
    assert_eq!(served.get("/a", &[("accept", "text/html")]).await.text(), "answer 1");
    assert_eq!(served.get("/a", &[("accept", "text/plain")]).await.text(), "answer 2");
    served.advance(61);
    assert_eq!(served.get("/a", &[("accept", "text/html")]).await.text(), "answer 3");
}

#[tokio::test]
async fn one_users_answer_is_not_anothers() {
    let served = serve(fields(FRESH)).await;
    assert_eq!(served.get("/me", &[("authorization", "Bearer alice")]).await.text(), "answer 1");
    assert_eq!(served.get("/me", &[("authorization", "Bearer bob")]).await.text(), "answer 2");
    assert_eq!(served.get("/me", &[]).await.text(), "answer 3");
    let public = serve(fields(&[("cache-control", "public, max-age=60")])).await;
    assert_eq!(public.get("/", &[("authorization", "Bearer alice")]).await.text(), "answer 1");
    assert_eq!(public.get("/", &[("authorization", "Bearer bob")]).await.text(), "answer 1");
}

#[tokio::test]
async fn nobody_gets_the_cookie_of_another() {
    let served = serve(fields(&[("cache-control", "max-age=60"), ("set-cookie", "session=1")])).await;
    let first = served.get("/a", &[]).await;
    assert_eq!((first.text(), first.field("set-cookie")), ("answer 1", Some("session=1")));
    let detail = "http;fwd=uri-miss;detail=\"the response sets cookies\"";
    assert_eq!(first.field("cache-status"), Some(detail));
    assert_eq!(served.get("/a", &[]).await.text(), "answer 2");
}

#[tokio::test]
async fn what_is_private_is_not_shared() {
    let served = serve(fields(&[("cache-control", "private, max-age=60")])).await;
    assert_eq!(served.get("/a", &[]).await.text(), "answer 1");
    assert_eq!(served.get("/a", &[]).await.text(), "answer 2");
}

#[tokio::test]
async fn parameters_that_are_repeated_count() {
    let served = serve(fields(FRESH)).await;
    assert_eq!(served.get("/a?x=1&x=2", &[]).await.text(), "answer 1");
    assert_eq!(served.get("/a?x=2&x=1", &[]).await.text(), "answer 2");
    assert_eq!(served.get("/a?x=1", &[]).await.text(), "answer 3");
    assert_eq!(served.get("/a?x=1&x=2", &[]).await.text(), "answer 1");
}

#[tokio::test]
async fn fields_that_are_no_text_stay_as_they_are() {
    let served = serve(Arc::new(|_, count| {
        Box::pin(async move {
            let mut response = answer(FRESH, format!("answer {count}"));
            let latin = http::HeaderValue::from_bytes(b"caf\xe9").expect("a value");
            response.headers_mut().append("x-name", latin);
            response.headers_mut().append("x-name", http::HeaderValue::from_static("second"));
            response
        })
    }))
    .await;
    served.get("/a", &[]).await;
    let again = served.get("/a", &[]).await;
    assert!(again.is_hit());
    let names: Vec<&[u8]> = again.headers.get_all("x-name").iter().map(|value| value.as_bytes()).collect();
    assert_eq!(names, [&b"caf\xe9"[..], b"second"]);
}

#[tokio::test]
async fn only_if_cached_does_not_ask_the_origin() {
    let served = serve(fields(FRESH)).await;
    let only = [("cache-control", "only-if-cached")];
    let nothing = served.get("/a", &only).await;
    assert_eq!((nothing.status, served.seen.count()), (StatusCode::GATEWAY_TIMEOUT, 0));
    served.get("/a", &[]).await;
    assert_eq!(served.get("/a", &only).await.text(), "answer 1");
}

#[tokio::test]
async fn what_was_validated_is_fresh_again() {
    let served = serve(Arc::new(|request, count| {
        Box::pin(async move {
            let known = request.headers().get("if-none-match").is_some_and(|tag| tag == "\"one\"");
            let lines =
                [("cache-control", "max-age=60"), ("etag", "\"one\""), ("x-count", &*count.to_string())];
            let mut response = answer(&lines, if known { String::new() } else { format!("answer {count}") });
            if known {
                *response.status_mut() = StatusCode::NOT_MODIFIED;
            }
            response
        })
    }))
    .await;
    assert_eq!(served.get("/a", &[]).await.text(), "answer 1");
    served.advance(61);
    let validated = served.get("/a", &[]).await;
    assert_eq!((validated.status, validated.text()), (StatusCode::OK, "answer 1"));
    assert_eq!((validated.field("x-count"), validated.field("age")), (Some("2"), Some("0")));
    assert_eq!(validated.field("cache-status"), Some("http;fwd=stale;fwd-status=304;ttl=60;stored"));
    served.advance(59);
    let hit = served.get("/a", &[]).await;
    assert_eq!((hit.is_hit(), hit.field("x-count"), hit.text()), (true, Some("2"), "answer 1"));
    // A client that has it is told so, without the origin.
    let told = served.get("/a", &[("if-none-match", "W/\"one\", \"two\"")]).await;
    assert_eq!(
        (told.status, told.text(), told.field("etag")),
        (StatusCode::NOT_MODIFIED, "", Some("\"one\""))
    );
    assert_eq!(served.seen.count(), 2);
}
