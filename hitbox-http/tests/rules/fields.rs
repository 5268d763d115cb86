//! Fields that belong to a connection, and those that are stored (RFC 9110, 7.6.1; RFC 9111, 3.1).

use hitbox_http::{Policy, ResponseDirectives, remove_connection_fields, storable_fields};

use crate::common::{check, fields, lines};

#[test]
fn of_a_connection() {
    let rows = [
        ("9110 7.6.1 none", "x-a: 1", "x-a: 1"),
        ("9110 7.6.1 Connection itself", "connection: close | x-a: 1", "x-a: 1"),
        (
            "9110 7.6.1 what Connection names",
            "connection: X-Hop, x-two | x-hop: 1 | x-two: 2 | x-a: 1",
            "x-a: 1",
        ),
        (
            "9110 7.6.1 what several lines name",
            "connection: x-hop | connection: x-two | x-hop: 1 | x-two: 2 | x-a: 1",
            "x-a: 1",
        ),
        (
            "9110 7.6.1 those that are known",
            "keep-alive: 5 | proxy-connection: x | te: trailers | transfer-encoding: chunked | upgrade: h2c | x-a: 1",
            "x-a: 1",
        ),
        ("9110 7.6.1 all lines of one", "connection: x-hop | x-hop: 1 | x-hop: 2 | x-a: 1", "x-a: 1"),
        ("9110 7.6.1 what is no name", "connection: a b, x-hop | x-hop: 1 | x-a: 1", "x-a: 1"),
        ("9110 7.6.1 fields of a proxy pass", "proxy-authenticate: basic", "proxy-authenticate: basic"),
    ];
    check(rows.map(|(name, text, expected)| {
        let mut left = fields(text);
        remove_connection_fields(&mut left);
        (name, lines(&left), lines(&fields(expected)))
    }));
}

#[test]
fn stored() {
    let rows = [
        ("9111 3.1 of the response", "etag: \"a\" | x-a: 1", "etag: \"a\" | x-a: 1"),
        ("9110 5.3 lines in their order", "x-a: 2 | x-b: 1 | x-a: 1", "x-a: 2 | x-a: 1 | x-b: 1"),
        ("9111 3.1 of a connection", "connection: x-hop | x-hop: 1 | upgrade: x | x-a: 1", "x-a: 1"),
        (
            "9111 3.1 of a proxy",
            "proxy-authenticate: x | proxy-authentication-info: x | proxy-authorization: x | x-a: 1",
            "x-a: 1",
        ),
        (
            "9111 5.2.2.4 what no-cache names",
            r#"cache-control: no-cache="x-hop" | x-hop: 1 | x-a: 1"#,
            r#"cache-control: no-cache="x-hop" | x-a: 1"#,
        ),
        (
            "9111 5.2.2.7 what private names",
            r#"cache-control: private="X-Hop, x-two" | x-hop: 1 | x-hop: 2 | x-two: 1 | x-a: 1"#,
            r#"cache-control: private="X-Hop, x-two" | x-a: 1"#,
        ),
    ];
    check(rows.map(|(name, text, expected)| {
        let all = fields(text);
        let kept = storable_fields(&all, &ResponseDirectives::of(&all, &Policy::shared()));
        (name, lines(&kept), lines(&fields(expected)))
    }));
}

#[test]
fn stored_by_caches_of_one_user() {
    // What `private` names is for this user, whose cache this is; without it the response would not be whole.
    let all = fields(r#"cache-control: private="x-own" | x-own: 1 | x-a: 1"#);
    let kept = storable_fields(&all, &ResponseDirectives::of(&all, &Policy::private()));
    assert_eq!(lines(&kept), lines(&all), "9111 5.2.2.7");
}
