//! Conditional requests, those that a cache answers and those that it makes (RFC 9110, 13; RFC 9111, 4.3).

use hitbox_http::Precondition::{Met, NotModified};
use hitbox_http::{Precondition, add_validators, remove_preconditions};

use crate::common::{check, fields, lines, stored, stored_as};

#[test]
fn conditions() {
    let tagged = "etag: \"a\" | last-modified: @-100 | date: @-5";
    let weak = "etag: W/\"a\"";
    let dated = "last-modified: @-100 | date: @-5";
    let rows = [
        ("9110 13.1 none", tagged, "", Met),
        ("9110 13.1.2 the same", tagged, "if-none-match: \"a\"", NotModified),
        ("9110 13.1.2 another", tagged, "if-none-match: \"b\"", Met),
        ("9110 13.1.2 case counts", tagged, "if-none-match: \"A\"", Met),
        ("9110 13.1.2 one of a list", tagged, "if-none-match: \"b\", \"a\"", NotModified),
        (
            "9110 13.1.2 one of several lines",
            tagged,
            "if-none-match: \"b\" | if-none-match: \"a\"",
            NotModified,
        ),
        ("9110 13.1.2 any", tagged, "if-none-match: *", NotModified),
        ("9110 13.1.2 any, of what has no tag", dated, "if-none-match: *", NotModified),
        ("9110 13.1.2 weak one asked", tagged, "if-none-match: W/\"a\"", NotModified),
        ("9110 13.1.2 weak one stored", weak, "if-none-match: \"a\"", NotModified),
        ("9110 13.1.2 both weak", weak, "if-none-match: W/\"a\"", NotModified),
        ("9110 8.8.3 W has a case", tagged, "if-none-match: w/\"a\"", Met),
        ("9110 8.8.3 a comma in a tag", "etag: \"a,b\"", "if-none-match: \"x\", \"a,b\"", NotModified),
        ("9110 8.8.3 a part of a tag", "etag: \"b\"", "if-none-match: \"a,b\"", Met),
        ("9110 8.8.3 no escapes in tags", "etag: \"a\\\"", "if-none-match: \"a\\\", \"c\"", NotModified),
        ("9110 8.8.3 a star is a tag in quotes", tagged, "if-none-match: \"*\"", Met),
        ("9110 8.8.3 an empty tag", "etag: \"\"", "if-none-match: \"\"", NotModified),
        ("9110 13.1.2 no tag is stored", dated, "if-none-match: \"a\"", Met),
        (
            "9110 13.1.3 a tag counts before a date",
            tagged,
            "if-none-match: \"b\" | if-modified-since: @-100",
            Met,
        ),
        ("9110 13.1.3 even if none is stored", dated, "if-none-match: \"b\" | if-modified-since: @-100", Met),
        ("9110 13.1.3 the same date", dated, "if-modified-since: @-100", NotModified),
        ("9110 13.1.3 a later date", dated, "if-modified-since: @-50", NotModified),
        ("9110 13.1.3 an earlier date", dated, "if-modified-since: @-101", Met),
        ("9110 13.1.3 no date", dated, "if-modified-since: never", Met),
        ("9110 13.1.3 an empty one", dated, "if-modified-since: ", Met),
        ("9110 13.1.3 more than one", dated, "if-modified-since: @-50 | if-modified-since: @-40", Met),
        ("9110 5.6.7 an old form", dated, "if-modified-since: Tue Nov 14 22:13:00 2023", NotModified),
        ("9111 4.3.2 Date in place of Last-Modified", "date: @-5", "if-modified-since: @-5", NotModified),
        ("9111 4.3.2 Date in place of Last-Modified, earlier", "date: @-5", "if-modified-since: @-6", Met),
        ("9111 4.3.2 when it came, in place of both", "x-a: 1", "if-modified-since: @0", NotModified),
        ("9111 4.3.2 when it came, in place of both, earlier", "x-a: 1", "if-modified-since: @-1", Met),
    ];
    check(rows.map(|(name, text, request, expected)| {
        (name, Precondition::of(&fields(request), &stored(text)), expected)
    }));
    // What is not successful answers as it is, whatever the conditions.
    for code in [301, 404, 410, 500] {
        for condition in ["if-none-match: \"a\"", "if-none-match: *", "if-modified-since: @0"] {
            let came = Precondition::of(&fields(condition), &stored_as(code, tagged));
            assert_eq!(came, Met, "9110 13.2.1 status {code}, {condition}");
        }
    }
}

#[test]
fn not_modified() {
    let all = "etag: \"a\" | date: @0 | cache-control: max-age=60 | content-location: /a | expires: @60 | vary: x-a | vary: x-b \
               | content-type: text/plain | content-length: 3 | content-encoding: gzip | content-range: bytes 0-2/3 | x-a: 1";
    let kept = "etag: \"a\" | date: @0 | cache-control: max-age=60 | content-location: /a | expires: @60 | vary: x-a | vary: x-b";
    let rows = [
        ("9110 15.4.5 what a 200 would have, and nothing of its body", all, kept),
        ("9110 15.4.5 none", "content-type: text/plain", ""),
        ("9110 15.4.5 a date of change, if there is no tag", "last-modified: @-100", "last-modified: @-100"),
    ];
    check(
        rows.map(|(name, text, expected)| {
            (name, lines(&stored(text).not_modified()), lines(&fields(expected)))
        }),
    );
}

#[test]
fn requests_of_the_cache() {
    let own = "if-none-match: \"x\" | if-modified-since: @-9 | if-match: \"x\" | if-unmodified-since: @-9 | if-range: \"x\" \
               | range: bytes=0-1 | accept: */*";
    let mut plain = fields(own);
    remove_preconditions(&mut plain);
    assert_eq!(lines(&plain), ["accept: */*"], "9111 3.3: it has to come as a whole");
    let rows = [
        ("9111 4.3.1 a tag", "etag: \"a\"", "accept: */* | if-none-match: \"a\""),
        ("9111 4.3.1 a weak tag", "etag: W/\"a\"", "accept: */* | if-none-match: W/\"a\""),
        ("9111 4.3.1 a date", "last-modified: @-100", "accept: */* | if-modified-since: @-100"),
        (
            "9111 4.3.1 both",
            "etag: \"a\" | last-modified: @-100",
            "accept: */* | if-none-match: \"a\" | if-modified-since: @-100",
        ),
        ("9111 4.3.1 neither", "date: @0", "accept: */*"),
    ];
    check(rows.map(|(name, text, expected)| {
        let mut request = fields(own);
        add_validators(&mut request, &stored(text));
        (name, lines(&request), lines(&fields(expected)))
    }));
    let has = [("etag: \"a\"", true), ("last-modified: @-100", true), ("date: @0", false)];
    check(has.map(|(text, expected)| (text, stored(text).has_validator(), expected)));
}
