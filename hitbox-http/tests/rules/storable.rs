//! What may be stored (RFC 9111, 3).

use hitbox_http::NotStorable::{
    Authorization, Method as OtherMethod, NoStore, Private, RequestNoStore, SetCookie, Status, Unspecified,
    VaryStar,
};
use hitbox_http::{NotStorable, Policy, may_store};
use http::Method;

use crate::common::{check, fields, s, status};

const LIVE: &str = "cache-control: max-age=60";

/// A name, a request, a status, a response, and what comes of it.
type Row = (&'static str, &'static str, u16, &'static str, Result<(), NotStorable>);

fn check_with(policy: &Policy, rows: impl IntoIterator<Item = Row>) {
    check(rows.into_iter().map(|(name, request, code, response, expected)| {
        let came = may_store(&Method::GET, &fields(request), status(code), &fields(response), policy);
        (name, came, expected)
    }));
}

#[test]
fn methods() {
    let rows = [
        ("9111 3 GET", "GET", Ok(())),
        ("docs: HEAD", "HEAD", Err(OtherMethod)),
        ("docs: POST", "POST", Err(OtherMethod)),
        ("9110 9.3.4 PUT", "PUT", Err(OtherMethod)),
        ("9110 9.3.5 DELETE", "DELETE", Err(OtherMethod)),
        ("9110 9.3.7 OPTIONS", "OPTIONS", Err(OtherMethod)),
        ("9110 9.3.8 TRACE", "TRACE", Err(OtherMethod)),
        ("9110 9.1 methods have a case", "get", Err(OtherMethod)),
        ("9111 3 one that is not understood", "BREW", Err(OtherMethod)),
    ];
    check(rows.map(|(name, method, expected)| {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        (name, may_store(&method, &fields(""), status(200), &fields(LIVE), &Policy::shared()), expected)
    }));
}

#[test]
fn statuses() {
    let bare = "etag: \"a\"";
    let understood = "cache-control: must-understand, no-store, max-age=60";
    check_with(
        &Policy::shared(),
        [
            ("9111 3 200", "", 200, LIVE, Ok(())),
            ("9111 3 404", "", 404, LIVE, Ok(())),
            ("9111 3 302 that says how long", "", 302, LIVE, Ok(())),
            ("9111 3 500 that says how long", "", 500, LIVE, Ok(())),
            ("9111 3 599 that says how long", "", 599, LIVE, Ok(())),
            ("9111 3 100 is not final", "", 100, LIVE, Err(Status)),
            ("9111 3 103 is not final", "", 103, LIVE, Err(Status)),
            ("docs: 206", "", 206, LIVE, Err(Status)),
            ("9111 3 304 says nothing by itself", "", 304, LIVE, Err(Status)),
            ("6585 3 428 never", "", 428, LIVE, Err(Status)),
            ("6585 4 429 never", "", 429, LIVE, Err(Status)),
            ("6585 5 431 never", "", 431, LIVE, Err(Status)),
            ("6585 6 511 never", "", 511, LIVE, Err(Status)),
            ("9111 3 302 is not by itself", "", 302, bare, Err(Unspecified)),
            ("9111 3 500 is not by itself", "", 500, bare, Err(Unspecified)),
            ("9111 3 201 is not by itself", "", 201, bare, Err(Unspecified)),
            ("9111 3 302 that is public", "", 302, "cache-control: public", Ok(())),
            ("9111 3 302 with Expires", "", 302, "expires: @60", Ok(())),
            ("9111 3 302 with s-maxage", "", 302, "cache-control: s-maxage=60", Ok(())),
            ("9111 5.2.2.3 understood", "", 200, understood, Ok(())),
            ("9111 5.2.2.3 understood, 404", "", 404, understood, Ok(())),
            ("9111 5.2.2.3 not understood, no-store", "", 299, understood, Err(Status)),
            ("9111 3 not understood", "", 299, "cache-control: must-understand, max-age=60", Err(Status)),
            ("9111 5.2.2.3 without no-store", "", 200, "cache-control: must-understand, max-age=60", Ok(())),
        ],
    );
    check_with(
        &Policy::private(),
        [
            (
                "9111 3 302 with s-maxage, for one user",
                "",
                302,
                "cache-control: s-maxage=60",
                Err(Unspecified),
            ),
            ("9111 3 302 that is private, for one user", "", 302, "cache-control: private", Ok(())),
        ],
    );
    check_with(
        &Policy::shared().ttl_when_unspecified(s(30)),
        [
            ("docs: the setting for what does not say", "", 200, bare, Ok(())),
            ("9111 3 does not make 500 storable", "", 500, bare, Err(Unspecified)),
        ],
    );
}

#[test]
fn shared_caches() {
    let user = "authorization: Basic eA==";
    check_with(
        &Policy::shared(),
        [
            (
                "9111 5.2.1.5 no-store of the request",
                "cache-control: no-store",
                200,
                LIVE,
                Err(RequestNoStore),
            ),
            ("9111 5.2.2.5 no-store", "", 200, "cache-control: max-age=60, No-Store", Err(NoStore)),
            ("9111 5.2.2.5 no-store beside public", "", 200, "cache-control: public, no-store", Err(NoStore)),
            (
                "9111 5.2.2.5 no-store on another line",
                "",
                200,
                "cache-control: max-age=60 | cache-control: no-store",
                Err(NoStore),
            ),
            ("9111 5.2.2.7 private", "", 200, "cache-control: private, max-age=60", Err(Private)),
            (
                "9111 5.2.2.7 private of a field",
                "",
                200,
                r#"cache-control: private="x-a", max-age=60"#,
                Ok(()),
            ),
            (
                "9111 5.2.2.7 private of what is no field",
                "",
                200,
                r#"cache-control: private="a b", max-age=60"#,
                Err(Private),
            ),
            ("9111 5.2.2.4 no-cache", "", 200, "cache-control: no-cache, max-age=60 | etag: \"a\"", Ok(())),
            (
                "9111 5.4 Pragma of a response means nothing",
                "",
                200,
                "pragma: no-cache | cache-control: max-age=60",
                Ok(()),
            ),
            ("9111 3.5 Authorization", user, 200, LIVE, Err(Authorization)),
            ("9111 3.5 Authorization, public", user, 200, "cache-control: public, max-age=60", Ok(())),
            ("9111 3.5 Authorization, s-maxage", user, 200, "cache-control: s-maxage=60", Ok(())),
            (
                "9111 3.5 Authorization, must-revalidate",
                user,
                200,
                "cache-control: must-revalidate, max-age=60",
                Ok(()),
            ),
            (
                "9111 3.5 Authorization, proxy-revalidate",
                user,
                200,
                "cache-control: proxy-revalidate, max-age=60",
                Err(Authorization),
            ),
            (
                "9111 3.5 Authorization, immutable",
                user,
                200,
                "cache-control: immutable, max-age=60",
                Err(Authorization),
            ),
            (
                "9213 2.2 Authorization, public for others",
                user,
                200,
                "cdn-cache-control: max-age=60 | cache-control: public",
                Err(Authorization),
            ),
            (
                "9213 2.2 Authorization, public for this kind",
                user,
                200,
                "cdn-cache-control: public, max-age=60",
                Ok(()),
            ),
            ("docs: a cookie", "", 200, "cache-control: max-age=60 | set-cookie: a=b", Err(SetCookie)),
            ("9111 4.1 Vary: *", "", 200, "cache-control: max-age=60 | vary: *", Err(VaryStar)),
            (
                "9111 4.1 Vary: * among others",
                "",
                200,
                "cache-control: max-age=60 | vary: accept, *",
                Err(VaryStar),
            ),
            (
                "9111 4.1 Vary: * on another line",
                "",
                200,
                "cache-control: max-age=60 | vary: accept | vary: *",
                Err(VaryStar),
            ),
            ("9111 4.1 Vary", "", 200, "cache-control: max-age=60 | vary: accept", Ok(())),
            (
                "9213 2.2 Cache-Control is for others",
                "",
                200,
                "cdn-cache-control: max-age=60 | cache-control: no-store, private",
                Ok(()),
            ),
            (
                "9213 2.2 no-store for this kind",
                "",
                200,
                "cdn-cache-control: no-store | cache-control: max-age=60",
                Err(NoStore),
            ),
            (
                "9213 2.1 what cannot be parsed does not count",
                "",
                200,
                "cdn-cache-control: max-age=60,, | cache-control: no-store",
                Err(NoStore),
            ),
        ],
    );
    check_with(
        &Policy::shared().store_set_cookie(true),
        [("docs: with the cookie", "", 200, "cache-control: max-age=60 | set-cookie: a=b", Ok(()))],
    );
    check_with(
        &Policy::shared().heed_requests(false),
        [
            ("docs: requests do not count", "cache-control: no-store", 200, LIVE, Ok(())),
            (
                "docs: but responses do",
                "cache-control: no-store",
                200,
                "cache-control: no-store",
                Err(NoStore),
            ),
        ],
    );
}

#[test]
fn caches_of_one_user() {
    check_with(
        &Policy::private(),
        [
            ("9111 5.2.2.7 private", "", 200, "cache-control: private, max-age=60", Ok(())),
            ("9111 5.2.2.7 private with no-store", "", 200, "cache-control: private, no-store", Err(NoStore)),
            ("9111 3.5 Authorization", "authorization: x", 200, LIVE, Ok(())),
            ("docs: a cookie", "", 200, "cache-control: max-age=60 | set-cookie: a=b", Ok(())),
            (
                "9213 2.2 fields for others",
                "",
                200,
                "cdn-cache-control: max-age=60 | cache-control: no-store",
                Err(NoStore),
            ),
        ],
    );
    check_with(
        &Policy::private().store_set_cookie(false),
        [(
            "docs: not with the cookie",
            "",
            200,
            "cache-control: max-age=60 | set-cookie: a=b",
            Err(SetCookie),
        )],
    );
}

#[test]
fn fixed_times() {
    check_with(
        &Policy::fixed(s(60)),
        [
            ("docs: it says nothing", "", 200, "", Ok(())),
            ("docs: no-store", "", 200, "cache-control: no-store", Ok(())),
            ("docs: no-cache", "", 200, "cache-control: no-cache", Ok(())),
            ("docs: no-store of the request", "cache-control: no-store", 200, "", Ok(())),
            ("docs: private", "", 200, "cache-control: private", Err(Private)),
            ("docs: a cookie", "", 200, "set-cookie: a=b", Err(SetCookie)),
            ("docs: Authorization", "authorization: x", 200, "", Err(Authorization)),
            ("docs: Vary", "", 200, "vary: *", Err(VaryStar)),
            ("docs: not successful", "", 500, "", Err(Unspecified)),
            ("docs: a redirection is not successful (9110 15.3)", "", 302, "", Err(Unspecified)),
            ("docs: a part", "", 206, "", Err(Status)),
        ],
    );
}
