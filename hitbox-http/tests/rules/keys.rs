//! Keys: what of a request tells one resource from another (RFC 9111, 2; RFC 9110, 4.2.3).

use hitbox_http::KeyRules;
use http::{HeaderName, Uri};

use crate::common::{fields, uri};

const NONE: &str = "";

/// Of each row, two requests: the URI and the fields of each.
type Row<'a> = (&'a str, (&'a str, &'a str), (&'a str, &'a str), bool);

fn check_with<'a>(rules: &KeyRules, rows: impl IntoIterator<Item = Row<'a>>) {
    let mut wrong = Vec::new();
    for (name, one, other, are_one) in rows {
        let key = |(at, request): (&str, &str)| rules.key("p", &uri(at), &fields(request));
        if (key(one) == key(other)) != are_one {
            wrong.push(format!("{name}: {} and {}", key(one), key(other)));
        }
    }
    assert!(wrong.is_empty(), "wrong:\n  {}", wrong.join("\n  "));
}

/// The same without fields.
fn check_uris<'a>(rules: &KeyRules, rows: impl IntoIterator<Item = (&'a str, &'a str, &'a str, bool)>) {
    check_with(
        rules,
        rows.into_iter().map(|(name, one, other, are_one)| (name, (one, NONE), (other, NONE), are_one)),
    );
}

#[test]
fn of_uris() {
    check_uris(
        &KeyRules::default(),
        [
            ("9110 4.2.3 case of the host", "http://Example.COM/a", "http://example.com/a", true),
            ("9110 4.2.3 case of the scheme", "HTTP://example.com/a", "http://example.com/a", true),
            ("9110 4.2.3 the port of http", "http://a:80/x", "http://a/x", true),
            ("9110 4.2.3 the port of https", "https://a:443/x", "https://a/x", true),
            ("9110 4.2.3 the port of another scheme", "http://a:443/x", "http://a/x", false),
            ("9110 4.2.3 the port of another scheme, secure", "https://a:80/x", "https://a/x", false),
            ("3986 6.2.3 an empty port", "http://a:/x", "http://a/x", true),
            ("9110 4.2.3 the empty path", "http://a", "http://a/", true),
            ("9110 4.2.3 an address", "http://[::1]:80/x", "http://[::1]/x", true),
            ("9110 4.2.3 another address", "http://[::1]/x", "http://[::2]/x", false),
            ("9110 4.2.4 a user is no part of it", "http://u:p@a/x", "http://a/x", true),
            ("9110 4.2.3 the scheme", "http://a/x", "https://a/x", false),
            ("9110 4.2.3 the host", "http://a/x", "http://b/x", false),
            ("9110 4.2.3 the port", "http://a:81/x", "http://a:82/x", false),
            ("9110 4.2.3 the path", "http://a/x", "http://a/y", false),
            ("9110 4.2.3 the case of the path", "http://a/x", "http://a/X", false),
            ("9110 4.2.3 the slash at the end", "http://a/x", "http://a/x/", false),
            ("docs: as it is written", "http://a/%78", "http://a/x", false),
            ("9110 4.2.3 the query", "http://a/x?a=1", "http://a/x?a=2", false),
            ("9110 4.2.3 a query or none", "http://a/x?a=1", "http://a/x", false),
            ("3986 6.2.3 an empty query", "http://a/x?", "http://a/x", false),
            ("docs: the order of the query", "http://a/x?a=1&b=2", "http://a/x?b=2&a=1", false),
            ("9110 4.2.3 what is host and what is path", "http://a/b/x", "http://a.b/x", false),
        ],
    );
}

#[test]
fn of_requests_without_authority() {
    check_with(
        &KeyRules::default(),
        [
            ("9110 7.2 Host", ("/x", "host: a"), ("/x", "host: b"), false),
            ("9110 7.2 the same Host", ("/x", "host: A"), ("/x", "host: a"), true),
            ("9112 3.3 what is host and what is path", ("/x", "host: a/b"), ("/b/x", "host: a"), false),
            ("9112 3.3 what is host and what is query", ("/x", "host: a/?b="), ("/?b=/x", "host: a"), false),
            ("9110 7.2 the port that it has anyway", ("/x", "host: a:80"), ("http://a/x", ""), true),
            ("9112 3.3 Host and path", ("/x", "host: a"), ("/y", "host: a"), false),
            (
                "9112 3.2.2 the authority counts before Host",
                ("http://a/x", "host: b"),
                ("http://a/x", "host: a"),
                true,
            ),
        ],
    );
}

#[test]
fn of_parts_of_queries() {
    check_uris(
        &KeyRules::default().query(["a", "b"]),
        [
            ("docs: others do not count", "http://h/?a=1&x=1", "http://h/?a=1&x=2", true),
            ("docs: others or none", "http://h/?x=1", "http://h/", true),
            ("docs: these do", "http://h/?a=1", "http://h/?a=2", false),
            ("docs: there or not", "http://h/?a=1", "http://h/", false),
            ("docs: with a value or without", "http://h/?a", "http://h/", false),
            ("docs: which of them", "http://h/?a=1", "http://h/?b=1", false),
            ("docs: any order", "http://h/?a=1&b=2", "http://h/?b=2&x=3&a=1", true),
            ("docs: the order of one that is there twice", "http://h/?a=1&a=2", "http://h/?a=2&a=1", false),
            ("docs: once or twice", "http://h/?a=1&a=1", "http://h/?a=1", false),
            ("docs: names have a case", "http://h/?A=1", "http://h/?A=2", true),
            ("docs: what a value is made of", "http://h/?a=1%26b=2", "http://h/?a=1&b=2", false),
            ("docs: names as they are decoded", "http://h/?%61=1", "http://h/", false),
            (
                "docs: the order of one written in two ways",
                "http://h/?a=2&%61=1",
                "http://h/?%61=1&a=2",
                false,
            ),
            ("docs: others as they are decoded", "http://h/?%61b=1", "http://h/", true),
            ("docs: an equals sign in a value", "http://h/?a=b=1", "http://h/?a&b=1", false),
        ],
    );
    let ignores = KeyRules::default().ignore_query(["utm"]);
    check_uris(
        &ignores,
        [
            ("docs: it does not count", "http://h/?a=1&utm=x", "http://h/?a=1", true),
            ("docs: alone", "http://h/?utm=x", "http://h/", true),
            ("docs: others do", "http://h/?a=1&utm=x", "http://h/?a=2&utm=x", false),
            ("docs: in any order", "http://h/?a=1&b=2", "http://h/?b=2&a=1", true),
            ("docs: as it is decoded", "http://h/?%75tm=x", "http://h/", true),
            ("docs: a longer name is another", "http://h/?utms=1", "http://h/", false),
        ],
    );
    check_uris(
        &KeyRules::default().query(Vec::<String>::new()),
        [("docs: no parameter counts", "http://h/?a=1", "http://h/?b=2", true)],
    );
}

#[test]
fn of_fields_and_cookies() {
    let rules = KeyRules::default().header(HeaderName::from_static("x-a")).cookie("c");
    let at = "http://h/";
    check_with(
        &rules,
        [
            ("docs: the field", (at, "x-a: 1"), (at, "x-a: 2"), false),
            ("docs: there or not", (at, "x-a: "), (at, ""), false),
            ("docs: others", (at, "x-a: 1 | x-b: 1"), (at, "x-a: 1 | x-b: 2"), true),
            ("docs: the cookie", (at, "cookie: c=1"), (at, "cookie: c=2"), false),
            ("6265 5.4 other cookies", (at, "cookie: a=1; c=1; d=2"), (at, "cookie: c=1"), true),
            (
                "9113 8.2.3 cookies on several lines",
                (at, "cookie: a=1 | cookie: c=1"),
                (at, "cookie: c=1"),
                true,
            ),
            ("docs: the cookie or none", (at, "cookie: a=1"), (at, "cookie: a=1; c=1"), false),
            ("6265 5.2 spaces around names and values", (at, "cookie: c =1"), (at, "cookie: c= 1"), true),
            ("docs: all of several", (at, "cookie: c=1; c=2"), (at, "cookie: c=1"), false),
            ("6265 4.1.1 a cookie without a value is none", (at, "cookie: c"), (at, ""), true),
            ("docs: which is the last", (at, "cookie: c=1; c=2"), (at, "cookie: c=2; c=1"), false),
            ("docs: the cookie is empty or not there", (at, "cookie: c="), (at, "cookie: a=1"), false),
            ("6265 4.1.1 names have a case", (at, "cookie: C=1"), (at, "cookie: C=2"), true),
            ("docs: the end of another name", (at, "cookie: xc=1"), (at, "cookie: xc=2"), true),
            ("docs: an equals sign in a value", (at, "cookie: c=1=2"), (at, "cookie: c=1=3"), false),
            ("docs: field and cookie", (at, "x-a: 1"), (at, "cookie: c=1"), false),
        ],
    );
    let (one, other) =
        (KeyRules::default().cookie("x-a"), KeyRules::default().header(HeaderName::from_static("x-a")));
    let asked = |rules: &KeyRules, request| rules.key("p", &Uri::from_static("http://h/"), &fields(request));
    assert_ne!(asked(&one, "cookie: x-a=1"), asked(&other, "x-a: 1"), "a cookie is no field");
    let parameter = KeyRules::default().query(["x-a"]);
    let at = uri("http://h/?x-a=1");
    assert_ne!(parameter.key("p", &at, &fields("")), asked(&other, "x-a: 1"), "a parameter is no field");
}

#[test]
fn of_prefixes_and_rules() {
    let key = |prefix| KeyRules::default().key(prefix, &uri("http://h/"), &fields(""));
    for (one, other) in [("a", "b"), ("a", ""), ("a", "a/"), ("a:", "a")] {
        assert_ne!(key(one), key(other), "docs: prefixes {one:?} and {other:?}");
    }
    let name = HeaderName::from_static("x-a");
    let rows = [
        ("default", KeyRules::default(), true),
        ("query", KeyRules::default().query(["a"]), false),
        ("ignore_query", KeyRules::default().ignore_query(["a"]), false),
        ("header", KeyRules::default().header(name), false),
        ("cookie", KeyRules::default().cookie("a"), false),
    ];
    for (setting, rules, expected) in rows {
        assert_eq!(rules.is_of_uri_alone(), expected, "docs: {setting}");
    }
}
