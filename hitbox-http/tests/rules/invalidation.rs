//! What the answer to an unsafe request makes invalid (RFC 9111, 4.4).

use hitbox_http::{KeyRules, invalidated_uris, is_unsafe};
use http::Method;

use crate::common::{check, fields, status, uri};

const ASKED: &str = "http://a/b/c/d;p?q";

/// The keys of these URIs, each once.
fn keys<'a>(uris: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let key = |text: &str| KeyRules::default().key("p", &uri(text), &fields("")).to_string();
    let mut keys: Vec<String> = uris.into_iter().map(key).collect();
    keys.sort();
    keys.dedup();
    keys
}

fn invalidated(method: &str, asked: &str, code: u16, response: &str) -> Vec<String> {
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    let uris = invalidated_uris(&method, &uri(asked), &fields("host: a"), status(code), &fields(response));
    let texts: Vec<String> = uris.iter().map(ToString::to_string).collect();
    keys(texts.iter().map(String::as_str))
}

#[test]
fn methods() {
    let safe = ["GET", "HEAD", "OPTIONS", "TRACE"];
    let others = ["POST", "PUT", "DELETE", "PATCH", "BREW", "get"];
    let method = |name: &str| Method::from_bytes(name.as_bytes()).expect("a method");
    for name in safe {
        assert!(!is_unsafe(&method(name)), "9110 9.2.1 {name}");
        assert!(invalidated(name, ASKED, 200, "location: /x").is_empty(), "9111 4.4 {name}");
    }
    for name in others {
        assert!(is_unsafe(&method(name)), "9110 9.2.1 and 9111 4.4: {name}");
        assert_eq!(invalidated(name, ASKED, 200, ""), keys([ASKED]), "9111 4.4 {name}");
    }
}

#[test]
fn statuses() {
    for code in [200, 201, 204, 301, 303] {
        assert_eq!(invalidated("POST", ASKED, code, ""), keys([ASKED]), "9111 4.4: {code} is no error");
    }
    for code in [400, 404, 500, 503] {
        let uris = invalidated("POST", ASKED, code, "location: /x | content-location: /y");
        assert!(uris.is_empty(), "9111 4.4: {code} is an error");
    }
}

#[test]
fn what_is_named() {
    let rows = [
        ("9111 4.4 Location", "location: http://a/x", &["http://a/x"][..]),
        ("9111 4.4 Content-Location", "content-location: http://a/y", &["http://a/y"]),
        ("9111 4.4 both", "location: /x | content-location: /y", &["http://a/x", "http://a/y"]),
        ("9111 4.4 another host", "location: http://other/x", &[]),
        ("9111 4.4 another scheme", "location: https://a/x", &[]),
        ("9111 4.4 another port", "location: http://a:81/x", &[]),
        ("9111 4.4 another host without scheme", "location: //other/x", &[]),
        ("9111 4.4 one of two", "location: http://other/x | content-location: /y", &["http://a/y"]),
        ("9110 4.2.3 the same port", "location: http://a:80/x", &["http://a/x"]),
        ("9110 4.2.3 the case of the host", "location: HTTP://A/x", &["http://a/x"]),
        ("9111 4.4 no reference of HTTP", "location: mailto:x@a", &[]),
        ("9111 4.4 no reference at all", "location: http://[/ x", &[]),
    ];
    check(rows.map(|(name, response, named)| {
        let expected = keys([ASKED].into_iter().chain(named.iter().copied()));
        (name, invalidated("POST", ASKED, 201, response), expected)
    }));
}

#[test]
fn references() {
    // RFC 3986, 5.4, as far as they are of the same origin; a fragment is no part of what is stored.
    let rows = [
        ("g", "http://a/b/c/g"),
        ("./g", "http://a/b/c/g"),
        ("g/", "http://a/b/c/g/"),
        ("/g", "http://a/g"),
        ("//a/g", "http://a/g"),
        ("//a", "http://a/"),
        ("?y", "http://a/b/c/d;p?y"),
        ("g?y", "http://a/b/c/g?y"),
        ("#s", "http://a/b/c/d;p?q"),
        ("g#s", "http://a/b/c/g"),
        ("g?y#s", "http://a/b/c/g?y"),
        ("http://a/g#s", "http://a/g"),
        (";x", "http://a/b/c/;x"),
        ("g;x", "http://a/b/c/g;x"),
        ("g;x?y#s", "http://a/b/c/g;x?y"),
        ("", "http://a/b/c/d;p?q"),
        (".", "http://a/b/c/"),
        ("./", "http://a/b/c/"),
        ("..", "http://a/b/"),
        ("../", "http://a/b/"),
        ("../g", "http://a/b/g"),
        ("../..", "http://a/"),
        ("../../", "http://a/"),
        ("../../g", "http://a/g"),
        ("../../../g", "http://a/g"),
        ("../../../../g", "http://a/g"),
        ("/./g", "http://a/g"),
        ("/../g", "http://a/g"),
        ("g.", "http://a/b/c/g."),
        (".g", "http://a/b/c/.g"),
        ("g..", "http://a/b/c/g.."),
        ("..g", "http://a/b/c/..g"),
        ("./../g", "http://a/b/g"),
        ("./g/.", "http://a/b/c/g/"),
        ("g/./h", "http://a/b/c/g/h"),
        ("g/../h", "http://a/b/c/h"),
        ("g;x=1/./y", "http://a/b/c/g;x=1/y"),
        ("g;x=1/../y", "http://a/b/c/y"),
        ("g?y/./x", "http://a/b/c/g?y/./x"),
        ("g?y/../x", "http://a/b/c/g?y/../x"),
        ("g#s/../x", "http://a/b/c/g"),
        ("http://a/b/../g", "http://a/g"),
        ("g?y=http://other/", "http://a/b/c/g?y=http://other/"),
    ];
    check(rows.map(|(reference, expected)| {
        let came = invalidated("POST", ASKED, 201, &format!("location: {reference}"));
        (reference, came, keys([ASKED, expected]))
    }));
}

#[test]
fn of_requests_without_authority() {
    let uris = |response: &str| {
        let (asked, request) = (uri("/b/c"), fields("host: a"));
        let uris = invalidated_uris(&Method::POST, &asked, &request, status(200), &fields(response));
        let key = |uri: &http::Uri| KeyRules::default().key("p", uri, &request);
        uris.iter().map(key).collect::<Vec<_>>()
    };
    let key = |at: &str| KeyRules::default().key("p", &uri(at), &fields("host: a"));
    assert_eq!(uris(""), [key("/b/c")], "9111 4.4 the one that was asked");
    assert!(uris("location: x").contains(&key("/b/x")), "9111 4.4 a relative one");
    assert!(uris("location: /x?y").contains(&key("/x?y")), "9111 4.4 a path");
    assert!(uris("location: http://a/x").contains(&key("/x")), "9111 4.4 an absolute one");
    assert_eq!(uris("location: http://other/x").len(), 1, "9111 4.4 another host");
}
