//! How long a response is fresh, and how old it is (RFC 9111, 4.2).

use std::time::Duration;

use hitbox_http::{Policy, StoredHead, Verdict};
use http::HeaderMap;

use crate::common::{at, check, fields, s, status, stored, stored_as};

#[test]
fn lifetimes() {
    let (shared, private) = (&Policy::shared(), &Policy::private());
    let rows = [
        ("9111 4.2.1 s-maxage before max-age", shared, "cache-control: max-age=60, s-maxage=10", s(10)),
        (
            "9111 4.2.1 s-maxage before max-age, in any order",
            shared,
            "cache-control: s-maxage=90, max-age=60",
            s(90),
        ),
        (
            "9111 5.2.2.10 s-maxage is not for private ones",
            private,
            "cache-control: max-age=60, s-maxage=10",
            s(60),
        ),
        (
            "9111 4.2.1 max-age before Expires",
            shared,
            "cache-control: max-age=60 | date: @0 | expires: @90",
            s(60),
        ),
        (
            "9111 5.3 max-age before Expires that is none",
            shared,
            "cache-control: max-age=60 | expires: 0",
            s(60),
        ),
        ("9111 4.2.1 Expires after Date", shared, "date: @-10 | expires: @50", s(60)),
        ("9110 6.6.1 Expires without Date", shared, "expires: @50", s(50)),
        ("9111 4.2.1 Expires before Date", shared, "date: @0 | expires: @-50", s(0)),
        ("9111 5.3 Expires is 0", shared, "date: @0 | expires: 0", s(0)),
        ("9111 5.3 Expires is no date", shared, "date: @0 | expires: soon", s(0)),
        ("9110 5.6.7 of RFC 850", shared, "date: @0 | expires: Tuesday, 14-Nov-23 22:14:20 GMT", s(60)),
        ("9110 5.6.7 of asctime", shared, "date: @0 | expires: Tue Nov 14 22:14:20 2023", s(60)),
        ("9111 4.2 another zone is none", shared, "date: @0 | expires: Tue, 14 Nov 2023 22:14:20 CET", s(0)),
        ("9111 4.2.1 two of Expires", shared, "date: @0 | expires: @50 | expires: @90", s(0)),
        (
            "9213 2.2 in place of both",
            shared,
            "cdn-cache-control: max-age=5 | cache-control: max-age=60 | expires: @90",
            s(5),
        ),
        (
            "9213 2.2 Expires does not count",
            shared,
            "cdn-cache-control: public | date: @0 | expires: @90",
            s(0),
        ),
        ("9213 2.2 for others", private, "cdn-cache-control: max-age=5 | cache-control: max-age=60", s(60)),
        (
            "9111 1.2.2 more than any number",
            shared,
            "cache-control: max-age=99999999999999999999999",
            s(1 << 31),
        ),
        ("docs: nothing says so", shared, "last-modified: @-1000", s(0)),
        ("docs: the setting for that", &Policy::shared().ttl_when_unspecified(s(30)), "etag: \"a\"", s(30)),
        (
            "docs: the setting does not count else",
            &Policy::shared().ttl_when_unspecified(s(30)),
            "cache-control: max-age=60",
            s(60),
        ),
        (
            "9111 5.3 nor for Expires that is none",
            &Policy::shared().ttl_when_unspecified(s(30)),
            "expires: 0",
            s(0),
        ),
        ("docs: fixed", &Policy::fixed(s(30)), "cache-control: max-age=60, no-cache | expires: @90", s(30)),
    ];
    check(
        rows.map(|(name, policy, text, expected)| (name, stored(text).freshness(policy).lifetime, expected)),
    );
}

#[test]
fn heuristics() {
    let rows = [
        ("9111 4.2.2 a tenth", 200, "date: @0 | last-modified: @-1000", s(100)),
        ("9111 4.2.2 from Date on", 200, "date: @-500 | last-modified: @-1500", s(100)),
        ("9111 4.2.2 from when it came on, without Date", 200, "last-modified: @-1000", s(100)),
        (
            "9111 4.2.2 explicit ones come before",
            200,
            "date: @0 | last-modified: @-1000 | cache-control: max-age=5",
            s(5),
        ),
        ("9111 5.3 as does Expires that is none", 200, "date: @0 | last-modified: @-1000 | expires: 0", s(0)),
        ("docs: up to a day", 200, "date: @0 | last-modified: @-99999999", s(24 * 60 * 60)),
        ("9111 4.2.2 changed later than sent", 200, "date: @0 | last-modified: @1000", s(0)),
        ("9111 4.2.2 no date", 200, "date: @0 | last-modified: yesterday", s(0)),
        ("9110 15.1 404", 404, "date: @0 | last-modified: @-1000", s(100)),
        ("9110 15.1 204", 204, "date: @0 | last-modified: @-1000", s(100)),
        ("9110 15.1 301", 301, "date: @0 | last-modified: @-1000", s(100)),
        ("9110 15.1 308", 308, "date: @0 | last-modified: @-1000", s(100)),
        ("9110 15.1 410", 410, "date: @0 | last-modified: @-1000", s(100)),
        ("9110 15.1 501", 501, "date: @0 | last-modified: @-1000", s(100)),
        ("9110 15.1 302 is none of them", 302, "date: @0 | last-modified: @-1000", s(0)),
        ("9110 15.1 500 is none of them", 500, "date: @0 | last-modified: @-1000", s(0)),
        (
            "9111 4.2.2 but with public",
            302,
            "date: @0 | last-modified: @-1000 | cache-control: public",
            s(100),
        ),
    ];
    let policy = Policy::shared().heuristic(0.1);
    check(rows.map(|(name, code, text, expected)| {
        (name, stored_as(code, text).freshness(&policy).lifetime, expected)
    }));
    let explicit = |text| stored(text).freshness(&policy).is_explicit;
    assert!(!explicit("date: @0 | last-modified: @-1000"), "9111 4.2.2");
    assert!(explicit("cache-control: max-age=5"), "9111 4.2.1");
    assert!(explicit("date: @0 | expires: 0"), "9111 5.3");
    for fraction in [-1.0, f64::NAN, f64::INFINITY, f64::MAX] {
        let lifetime =
            stored("last-modified: @-1000").freshness(&Policy::shared().heuristic(fraction)).lifetime;
        assert!(
            lifetime <= s(24 * 60 * 60),
            "no fraction {fraction} makes more than a day of it: {lifetime:?}"
        );
    }
}

#[test]
fn ages() {
    // When it was asked for, before it came; and how long ago that was.
    let rows = [
        ("9111 4.2.3 nothing says so", 0, 0, "", s(0)),
        ("9111 4.2.3 Age", 0, 0, "age: 30", s(30)),
        ("9111 4.2.3 Date", 0, 0, "date: @-20", s(20)),
        ("9111 4.2.3 the greater, Age", 0, 0, "age: 30 | date: @-20", s(30)),
        ("9111 4.2.3 the greater, Date", 0, 0, "age: 30 | date: @-40", s(40)),
        ("9111 4.2.3 Date after it came", 0, 0, "date: @40", s(0)),
        ("9111 4.2.3 Date is none", 0, 0, "date: now", s(0)),
        ("9111 4.2.3 the time it took", 5, 0, "", s(5)),
        ("9111 4.2.3 the time it took, added to Age", 5, 0, "age: 30", s(35)),
        ("9111 4.2.3 the time it took is no part of Date", 5, 0, "date: @-40 | age: 30", s(40)),
        ("9111 4.2.3 since then", 5, 7, "age: 30", s(42)),
        ("9111 4.2.3 since then, with Date", 0, 7, "date: @-40", s(47)),
        ("9111 5.1 Age with zeros", 0, 0, "age: 007", s(7)),
        ("docs: a clock that was set back", 0, -7, "age: 30", s(30)),
    ];
    check(rows.map(|(name, took, later, text, expected)| {
        let stored = StoredHead::new(status(200), fields(text), at(-took), at(0));
        (name, stored.age(at(later), &Policy::shared()), expected)
    }));
    // Nobody knows how old these are.
    for age in ["x", "-1", "+1", "1.5", "5, 6", "5, 5", "", "\"5\"", "99999999999999999999"] {
        let stored = stored(&format!("cache-control: max-age=2147483648 | age: {age}"));
        let verdict = stored.verdict(&HeaderMap::new(), at(0), &Policy::shared());
        assert_ne!(verdict, Verdict::Fresh, "docs: an Age that is {age:?}");
        let _ = (stored.age(at(i64::MAX / 2000), &Policy::shared()), stored.kept(&Policy::shared()));
    }
    let twice = stored("cache-control: max-age=60 | age: 1 | age: 1");
    assert_ne!(twice.verdict(&HeaderMap::new(), at(0), &Policy::shared()), Verdict::Fresh, "docs: Age twice");
}

#[test]
fn what_remains_and_is_kept() {
    let day = s(24 * 60 * 60);
    let plain = Policy::shared();
    let none_stale = Policy::shared().stale_when_disconnected(s(0));
    let rows = [
        ("docs: validated later", &plain, "cache-control: max-age=60 | etag: \"a\"", (s(60), day)),
        ("docs: the age counts", &plain, "cache-control: max-age=60 | age: 20 | etag: \"a\"", (s(40), day)),
        (
            "docs: older than it is fresh",
            &plain,
            "cache-control: max-age=60 | age: 90 | last-modified: @-9",
            (s(0), day),
        ),
        ("docs: may be served stale", &plain, "cache-control: max-age=60", (s(60), day)),
        ("docs: neither", &plain, "cache-control: max-age=60, must-revalidate", (s(60), s(0))),
        (
            "9111 4.2.4 neither, in a shared cache",
            &plain,
            "cache-control: max-age=60, proxy-revalidate",
            (s(60), s(0)),
        ),
        (
            "docs: validated though never stale",
            &plain,
            "cache-control: max-age=60, must-revalidate | etag: \"a\"",
            (s(60), day),
        ),
        (
            "docs: the setting, of what is never served stale",
            &Policy::shared().keep_stale(s(9)),
            "cache-control: max-age=60, must-revalidate | etag: \"a\"",
            (s(60), s(9)),
        ),
        (
            "docs: a setting that serves none stale",
            &none_stale,
            "cache-control: max-age=60 | etag: \"a\"",
            (s(60), day),
        ),
    ];
    check(rows.map(|(name, policy, text, expected)| (name, stored(text).kept(policy), expected)));
    let remaining = |text| stored(text).freshness(&plain).remaining();
    assert_eq!(remaining("cache-control: max-age=60 | age: 20"), s(40));
    assert_eq!(remaining("cache-control: max-age=60 | age: 90"), Duration::ZERO);
}
