//! Stored heads: freshened by a "not modified", written down and read (RFC 9111, 3.2 and 4.3.4).

use hitbox_core::Timestamp;
use hitbox_http::{HeadError, Policy, StoredHead, Verdict};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::common::{at, check, fields, lines, s, status, stored};

#[test]
fn freshened() {
    let rows = [
        ("9111 4.3.4 what is new replaces", "x-a: 1 | x-b: 1", "x-a: 2", "x-a: 2 | x-b: 1"),
        ("9111 4.3.4 what is more", "x-a: 1", "x-b: 1", "x-a: 1 | x-b: 1"),
        ("9111 4.3.4 all lines of a field", "x-a: 1 | x-a: 2", "x-a: 3", "x-a: 3"),
        ("9111 4.3.4 by several lines", "x-a: 1", "x-a: 2 | x-a: 3", "x-a: 2 | x-a: 3"),
        (
            "9111 4.3.4 how long it is fresh",
            "cache-control: max-age=1",
            "cache-control: max-age=60",
            "cache-control: max-age=60",
        ),
        ("9111 3.2 the length", "content-length: 5", "content-length: 0", "content-length: 5"),
        ("9111 3.2 the coding", "content-encoding: gzip", "content-encoding: br", "content-encoding: gzip"),
        ("9111 3.2 the range", "x-a: 1", "content-range: bytes 0-1/2", "x-a: 1"),
        ("docs: the tag", "etag: \"a\"", "etag: W/\"a\"", "etag: \"a\""),
        (
            "9111 3.1 fields of the connection",
            "x-a: 1",
            "connection: x-hop | x-hop: 1 | transfer-encoding: chunked | upgrade: x",
            "x-a: 1",
        ),
        ("9111 3.1 fields of a proxy", "x-a: 1", "proxy-authenticate: x", "x-a: 1"),
    ];
    check(rows.map(|(name, old, new, expected)| {
        let dated = |text: &str| fields(&format!("{text} | date: @11"));
        let fresh = stored(old).freshened(&dated(new), at(10), at(11));
        (name, lines(&fresh.headers), lines(&dated(expected)))
    }));
    let fresh = stored("x-a: 1").freshened(&fields(""), at(10), at(11));
    assert_eq!((fresh.status, fresh.asked, fresh.came), (status(200), at(10), at(11)));
}

#[test]
fn freshened_is_as_old_as_its_validation() {
    let rows = [
        ("9111 4.2.3 Age of before is over", "age: 50 | date: @-50", "date: @100", s(0)),
        ("9110 6.6.1 an answer without Date is of when it came", "date: @-50", "x-a: 1", s(0)),
        ("9111 4.2.3 Age of the answer", "date: @-50", "date: @100 | age: 7", s(7)),
    ];
    check(rows.map(|(name, old, new, expected)| {
        let old = stored(&format!("cache-control: max-age=60 | {old}"));
        let fresh = old.freshened(&fields(new), at(100), at(100));
        (name, fresh.age(at(100), &Policy::shared()), expected)
    }));
    let fresh =
        stored("cache-control: max-age=60 | date: @0").freshened(&fields("date: @100"), at(100), at(100));
    assert_eq!(fresh.verdict(&HeaderMap::new(), at(159), &Policy::shared()), Verdict::Fresh, "9111 4.3.4");
}

#[test]
fn written_down_and_read() {
    let texts = [
        "",
        "x-a: 1",
        "x-a: 2 | x-b: 1 | x-a: 1",
        "x-empty: ",
        "x-colon: a: b",
        "!#$%&'*+-.^_`~9: all that a name may have",
        "x-utf: \u{e4}\u{20ac}",
        "x-tab: a\tb",
    ];
    for text in texts {
        let head = stored(text);
        assert_eq!(StoredHead::decode(&head.encode()).as_ref(), Ok(&head), "{text:?}");
    }
    for code in [100, 200, 204, 404, 599, 600, 999] {
        let head = StoredHead::new(status(code), fields("x-a: 1"), at(0), at(1));
        assert_eq!(StoredHead::decode(&head.encode()).as_ref(), Ok(&head), "9110 15: status {code}");
    }
    for time in [Timestamp::from_millis(0), Timestamp::MAX] {
        let head = StoredHead::new(StatusCode::OK, fields("x-a: 1"), time, time);
        assert_eq!(StoredHead::decode(&head.encode()).as_ref(), Ok(&head), "times {time:?}");
    }
    let mut many = HeaderMap::new();
    for number in 0..1024 {
        many.append(HeaderName::from_static("x-a"), HeaderValue::from(number));
    }
    let head = StoredHead::new(StatusCode::OK, many, at(0), at(0));
    assert_eq!(StoredHead::decode(&head.encode()).as_ref(), Ok(&head), "docs: as many fields as are read");
}

#[test]
fn spaces_around_values_are_no_part_of_them() {
    // RFC 9110, 5.5: they may be lost, and nothing else.
    let mut headers = HeaderMap::new();
    headers.insert("x-a", HeaderValue::from_static("  a  "));
    headers.insert("x-b", HeaderValue::from_static("  "));
    let read =
        StoredHead::decode(&StoredHead::new(StatusCode::OK, headers, at(0), at(0)).encode()).expect("a head");
    let trimmed: Vec<&str> =
        ["x-a", "x-b"].map(|name| read.headers[name].to_str().expect("text").trim()).to_vec();
    assert_eq!(trimmed, ["a", ""]);
}

#[test]
fn anything_else_is_refused() {
    let bytes = stored("x-a: 1 | x-b: 2").encode();
    for length in 0..bytes.len() {
        assert_eq!(
            StoredHead::decode(&bytes[..length]),
            Err(HeadError),
            "cut to {length} of {}",
            bytes.len()
        );
    }
    assert_eq!(StoredHead::decode(&[&bytes[..], b"x"].concat()), Err(HeadError), "more than a head");
    for other in [
        &b"HTTP/1.1 200 OK\r\n\r\n"[..],
        b"1 2\r\n",
        b"\xff\xfe",
        b"\r\n\r\n",
        b"1 2\r\nHTTP/1.1 20 OK\r\n\r\n",
    ] {
        assert_eq!(StoredHead::decode(other), Err(HeadError), "{other:?}");
    }
}

#[test]
fn what_is_of_use() {
    let rows = [
        ("9111 4.2 fresh", "cache-control: max-age=60", true),
        ("9111 4.3 it can be validated", "cache-control: max-age=0 | etag: \"a\"", true),
        ("9111 4.3 also by its date", "last-modified: @-50", true),
        ("5861 3 stale while it is validated", "cache-control: max-age=0, stale-while-revalidate=60", true),
        ("5861 4 stale on errors", "cache-control: max-age=0, stale-if-error=60", true),
        ("5861 nor for no time", "cache-control: max-age=0, stale-if-error=0", false),
        ("9111 5.2.2.2 never stale", "cache-control: max-age=0, must-revalidate, stale-if-error=60", false),
        ("9111 5.2.2.4 never without the origin", "cache-control: no-cache, max-age=60", false),
        ("9111 4.2 over", "cache-control: max-age=60 | age: 60", false),
        ("9111 4.2.2 nothing is said", "x-a: 1", false),
    ];
    check(rows.map(|(name, text, expected)| (name, stored(text).is_of_use(&Policy::shared()), expected)));
    assert!(stored("x-a: 1").is_of_use(&Policy::shared().ttl_when_unspecified(s(1))), "docs: the setting");
    let fixed = Policy::fixed(s(5));
    assert_eq!(stored("cache-control: no-cache").kept(&fixed).0, s(5), "docs: whatever it says");
}
