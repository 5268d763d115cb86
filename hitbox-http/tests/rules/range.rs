//! Ranges of complete stored responses (RFC 9110, 13.1.5 and 14).

use hitbox_http::{Requested, StoredHead};
use http::{HeaderMap, HeaderValue};

use crate::common::{check, fields, stored, stored_as};

/// What is wanted, in a form that tables can write.
#[derive(Debug, PartialEq)]
enum Wanted {
    Whole,
    Part(u64, u64, u64),
    Unsatisfiable,
    Other,
}

use Wanted::{Unsatisfiable, Whole};

const fn part(from: u64, to: u64, of: u64) -> Wanted {
    Wanted::Part(from, to, of)
}

fn requested_range(request: &HeaderMap, stored: &StoredHead, length: u64) -> Wanted {
    match hitbox_http::requested_range(request, stored, length) {
        Requested::Whole => Whole,
        Requested::Part(part) => Wanted::Part(part.bytes.start, part.bytes.end, part.of),
        Requested::Unsatisfiable => Unsatisfiable,
        #[allow(unreachable_patterns)]
        _ => Wanted::Other,
    }
}

#[test]
fn of_ten_bytes() {
    let rows = [
        ("9110 14.1.2 the first five", "bytes=0-4", part(0, 5, 10)),
        ("9110 14.1.2 one", "bytes=9-9", part(9, 10, 10)),
        ("9110 14.1.2 from the fifth on", "bytes=5-", part(5, 10, 10)),
        ("9110 14.1.2 all", "bytes=0-", part(0, 10, 10)),
        ("9110 14.1.2 the last three", "bytes=-3", part(7, 10, 10)),
        ("9110 14.1.2 more than there are at the end", "bytes=-20", part(0, 10, 10)),
        ("9110 14.1.2 more than there are", "bytes=5-100", part(5, 10, 10)),
        ("9110 14.1.2 more than any number", "bytes=5-99999999999999999999999", part(5, 10, 10)),
        ("9110 14.1.2 more than any number at the end", "bytes=-99999999999999999999999", part(0, 10, 10)),
        ("9110 14.1.2 zeros in front", "bytes=0005-0006", part(5, 7, 10)),
        ("9110 14.1 units in any case", "Bytes=0-4", part(0, 5, 10)),
        ("9110 14.1.2 behind the end", "bytes=10-", Unsatisfiable),
        ("9110 14.1.2 far behind the end", "bytes=99999999999999999999999-", Unsatisfiable),
        ("9110 14.1.2 none at the end", "bytes=-0", Unsatisfiable),
        ("9110 14.2 backwards", "bytes=5-4", Whole),
        ("9110 14.2 no numbers", "bytes=a-b", Whole),
        ("9110 14.2 neither number", "bytes=-", Whole),
        ("9110 14.2 signs", "bytes=+0-+4", Whole),
        ("9110 14.2 a sign at the end", "bytes=--4", Whole),
        ("9110 14.2 no range", "bytes=4", Whole),
        ("9110 14.2 nothing", "bytes=", Whole),
        ("9110 14.2 no unit", "0-4", Whole),
        ("9110 14.2 another unit", "items=0-4", Whole),
        ("9110 14.2 more numbers", "bytes=0-4-5", Whole),
        ("docs: more than one", "bytes=0-1,4-5", Whole),
        ("docs: two lines", "bytes=0-1 | range: bytes=0-1", Whole),
    ];
    let stored = stored("etag: \"a\"");
    check(rows.map(|(name, text, expected)| {
        (name, requested_range(&fields(&format!("range: {text}")), &stored, 10), expected)
    }));
    assert_eq!(requested_range(&fields(""), &stored, 10), Whole, "9110 14.2 none");
    assert_eq!(
        requested_range(&fields("range: bytes=0-"), &stored, 0),
        Unsatisfiable,
        "9110 14.1.2 of nothing"
    );
    let big = requested_range(&fields("range: bytes=-1"), &stored, u64::MAX);
    assert_eq!(big, part(u64::MAX - 1, u64::MAX, u64::MAX), "9110 14.1.2 of as many as there can be");
}

#[test]
fn of_other_statuses() {
    for code in [203, 301, 404, 410, 500] {
        for range in ["bytes=0-4", "bytes=99-"] {
            let came = requested_range(&fields(&format!("range: {range}")), &stored_as(code, ""), 10);
            assert_eq!(came, Whole, "9110 14.2 only of a 200, status {code}, {range}");
        }
    }
}

#[test]
fn of_a_version() {
    let rows = [
        ("9110 13.1.5 the tag", "etag: \"a\"", "if-range: \"a\"", true),
        ("9110 13.1.5 another tag", "etag: \"a\"", "if-range: \"b\"", false),
        ("9110 13.1.5 a weak tag", "etag: W/\"a\"", "if-range: W/\"a\"", false),
        ("9110 13.1.5 weak there", "etag: \"a\"", "if-range: W/\"a\"", false),
        ("9110 13.1.5 weak here", "etag: W/\"a\"", "if-range: \"a\"", false),
        ("9110 13.1.5 no tag here", "date: @0", "if-range: \"a\"", false),
        ("9110 13.1.5 no tag, and no date", "etag: \"a\"", "if-range: a", false),
        ("9110 13.1.5 not any", "etag: \"a\"", "if-range: *", false),
        ("9110 13.1.5 the date", "date: @0 | last-modified: @-100", "if-range: @-100", true),
        ("9110 13.1.5 a later date is another", "date: @0 | last-modified: @-100", "if-range: @-50", false),
        ("9110 13.1.5 an earlier date", "date: @0 | last-modified: @-100", "if-range: @-101", false),
        ("9110 8.8.2.2 changed when it was sent", "date: @0 | last-modified: @0", "if-range: @0", false),
        (
            "docs: changed less than a minute before",
            "date: @0 | last-modified: @-59",
            "if-range: @-59",
            false,
        ),
        ("9110 8.8.2.2 nobody knows when it was changed", "date: @-100", "if-range: @-100", false),
        ("9110 13.1.5 nor when it was sent", "x-a: 1", "if-range: @0", false),
    ];
    check(rows.map(|(name, text, request, is_this)| {
        let request = fields(&format!("range: bytes=0-4 | {request}"));
        (name, requested_range(&request, &stored(text), 10), if is_this { part(0, 5, 10) } else { Whole })
    }));
    let request = fields("range: bytes=99- | if-range: \"b\"");
    assert_eq!(requested_range(&request, &stored("etag: \"a\""), 10), Whole, "9110 13.1.5 it is ignored");
}

#[test]
fn as_content_range() {
    let part = hitbox_http::requested_range(&fields("range: bytes=0-4"), &stored(""), 10);
    let Requested::Part(part) = part else { panic!("9110 14.4: {part:?}") };
    assert_eq!(part.content_range(), Some(HeaderValue::from_static("bytes 0-4/10")), "9110 14.4");
}
