//! Whether a stored response may answer a request (RFC 9111, 4; RFC 5861).

use hitbox_http::Verdict::{Fresh, StaleAllowed, StaleWhileRevalidate, Validate};
use hitbox_http::{Policy, Verdict, is_conditional};

use crate::common::{at, check, fields, s, stored};

/// A name, a response, how old it is, a request, and what comes of it.
type Row = (&'static str, &'static str, i64, &'static str, Verdict);

fn check_with(policy: &Policy, rows: impl IntoIterator<Item = Row>) {
    check(rows.into_iter().map(|(name, response, later, request, expected)| {
        let response = stored(&format!("cache-control: {response}"));
        (name, response.verdict(&fields(request), at(later), policy), expected)
    }));
}

const fn validate(when_disconnected: bool, on_error: bool, by_request: bool) -> Verdict {
    Validate { when_disconnected, on_error, by_request }
}

/// It is stale, and served if the origin cannot be reached.
const STALE: Verdict = validate(true, false, false);
/// It is never served without the origin.
const NEVER: Verdict = validate(false, false, false);
const DAY: i64 = 24 * 60 * 60;

#[test]
fn what_responses_say() {
    check_with(
        &Policy::shared(),
        [
            ("9111 4.2 fresh", "max-age=60", 0, "", Fresh),
            ("9111 4.2 fresh to the last second", "max-age=60", 59, "", Fresh),
            ("9111 4.2 as old as it may be fresh", "max-age=60", 60, "", STALE),
            ("docs: stale for a day", "max-age=60", 60 + DAY - 1, "", STALE),
            ("docs: stale for longer", "max-age=60", 60 + DAY + 1, "", NEVER),
            ("9111 4.2.3 came old", "max-age=60 | age: 50", 9, "", Fresh),
            ("9111 4.2.3 came old, and is stale now", "max-age=60 | age: 50", 10, "", STALE),
            ("9111 5.2.2.4 no-cache", "max-age=60, no-cache", 0, "", NEVER),
            ("9111 4.2.4 no-cache, stale-if-error", "max-age=60, no-cache, stale-if-error=99", 0, "", NEVER),
            (
                "9111 4.2.4 no-cache, stale-while-revalidate",
                "max-age=60, no-cache, stale-while-revalidate=99",
                70,
                "",
                NEVER,
            ),
            ("9111 5.2.2.4 no-cache of a field", r#"max-age=60, no-cache="x-a""#, 0, "", Fresh),
            ("9111 5.2.2.2 must-revalidate, fresh", "max-age=60, must-revalidate", 59, "", Fresh),
            ("9111 5.2.2.2 must-revalidate", "max-age=60, must-revalidate", 61, "", NEVER),
            (
                "9111 4.2.4 must-revalidate, stale-if-error",
                "max-age=60, must-revalidate, stale-if-error=99",
                61,
                "",
                NEVER,
            ),
            (
                "9111 4.2.4 must-revalidate, stale-while-revalidate",
                "max-age=60, must-revalidate, stale-while-revalidate=99",
                61,
                "",
                NEVER,
            ),
            ("9111 5.2.2.8 proxy-revalidate", "max-age=60, proxy-revalidate", 61, "", NEVER),
            ("9111 5.2.2.10 s-maxage", "s-maxage=60", 61, "", NEVER),
            (
                "9111 4.2.4 s-maxage, stale-while-revalidate",
                "s-maxage=60, stale-while-revalidate=99",
                61,
                "",
                NEVER,
            ),
            ("5861 3 fresh", "max-age=60, stale-while-revalidate=30", 59, "", Fresh),
            ("5861 3 stale", "max-age=60, stale-while-revalidate=30", 60, "", StaleWhileRevalidate),
            ("5861 3 still", "max-age=60, stale-while-revalidate=30", 89, "", StaleWhileRevalidate),
            ("5861 3 no more", "max-age=60, stale-while-revalidate=30", 91, "", STALE),
            ("5861 3 at once", "max-age=0, stale-while-revalidate=30", 0, "", StaleWhileRevalidate),
            ("5861 3 no number", "max-age=60, stale-while-revalidate=x", 61, "", STALE),
            ("5861 4 stale", "max-age=60, stale-if-error=30", 61, "", validate(true, true, false)),
            ("5861 4 still", "max-age=60, stale-if-error=30", 89, "", validate(true, true, false)),
            ("5861 4 no more", "max-age=60, stale-if-error=30", 91, "", STALE),
            (
                "5861 4 of a request",
                "max-age=60",
                61,
                "cache-control: stale-if-error=30",
                validate(true, true, false),
            ),
            ("5861 4 of a request, no more", "max-age=60", 91, "cache-control: stale-if-error=30", STALE),
        ],
    );
    check_with(
        &Policy::private(),
        [
            ("9111 5.2.2.8 proxy-revalidate, one user", "max-age=60, proxy-revalidate", 61, "", STALE),
            ("9111 5.2.2.10 s-maxage, one user", "max-age=60, s-maxage=99", 61, "", STALE),
            ("9111 5.2.2.2 must-revalidate, one user", "max-age=60, must-revalidate", 61, "", NEVER),
        ],
    );
    check_with(
        &Policy::shared().stale_when_disconnected(s(0)),
        [
            ("docs: none is served stale", "max-age=60", 61, "", NEVER),
            // That the origin cannot be reached is an error: a gateway would answer with 502 or 504.
            (
                "5861 4 unless it says so",
                "max-age=60, stale-if-error=30",
                61,
                "",
                validate(true, true, false),
            ),
        ],
    );
}

#[test]
fn what_requests_say() {
    let by_request = validate(true, false, true);
    let swr = "max-age=60, stale-while-revalidate=30";
    let rows = [
        ("9111 5.2.1.4 no-cache", "max-age=60", 0, "cache-control: no-cache", true),
        ("9111 5.4 Pragma", "max-age=60", 0, "pragma: no-cache", true),
        ("9111 5.2.1.1 max-age, younger", "max-age=60", 29, "cache-control: max-age=30", false),
        ("9111 5.2.1.1 max-age, as old", "max-age=60", 30, "cache-control: max-age=30", false),
        ("9111 5.2.1.1 max-age, older", "max-age=60", 31, "cache-control: max-age=30", true),
        ("9111 5.2.1.1 max-age=0", "max-age=60", 1, "cache-control: max-age=0", true),
        (
            "9111 5.2.1.1 max-age, the age it came with",
            "max-age=60 | age: 20",
            11,
            "cache-control: max-age=30",
            true,
        ),
        ("9111 5.2.1.3 min-fresh, long enough", "max-age=60", 50, "cache-control: min-fresh=10", false),
        ("9111 5.2.1.3 min-fresh, too short", "max-age=60", 51, "cache-control: min-fresh=10", true),
    ];
    for (name, response, later, request, asks) in rows {
        let response = stored(&format!("cache-control: {response}"));
        let verdict = response.verdict(&fields(request), at(later), &Policy::shared());
        let asked = matches!(verdict, Validate { by_request: true, .. });
        assert!(asked == asks && (asks || verdict == Fresh), "{name}: {verdict:?}");
        let heedless = response.verdict(&fields(request), at(later), &Policy::shared().heed_requests(false));
        assert_eq!(heedless, Fresh, "docs: requests do not count, {name}");
        assert!(
            !asks || verdict == by_request || verdict == validate(false, false, true),
            "{name}: {verdict:?}"
        );
    }
    check_with(
        &Policy::shared(),
        [
            (
                "9111 5.2.1.2 max-stale of any length",
                "max-age=60",
                60 + 9 * DAY,
                "cache-control: max-stale",
                StaleAllowed,
            ),
            ("9111 5.2.1.2 max-stale", "max-age=60", 61, "cache-control: max-stale=30", StaleAllowed),
            (
                "9111 5.2.1.2 max-stale, as long",
                "max-age=60",
                90,
                "cache-control: max-stale=30",
                StaleAllowed,
            ),
            ("9111 5.2.1.2 max-stale, longer", "max-age=60", 91, "cache-control: max-stale=30", STALE),
            ("9111 5.2.1.2 max-stale, fresh", "max-age=60", 59, "cache-control: max-stale=30", Fresh),
            ("9111 5.2.1.2 max-stale, no number", "max-age=60", 61, "cache-control: max-stale=x", STALE),
            (
                "9111 5.2.2.2 must-revalidate",
                "max-age=60, must-revalidate",
                61,
                "cache-control: max-stale",
                NEVER,
            ),
            (
                "9111 5.2.2.8 proxy-revalidate",
                "max-age=60, proxy-revalidate",
                61,
                "cache-control: max-stale",
                NEVER,
            ),
            ("9111 5.2.2.10 s-maxage", "s-maxage=60", 61, "cache-control: max-stale", NEVER),
            ("9111 5.2.2.4 no-cache", "max-age=60, no-cache", 0, "cache-control: max-stale", NEVER),
        ],
    );
    // These want more than a stale response that is validated meanwhile.
    for request in ["no-cache", "max-age=30", "min-fresh=1"] {
        let response = stored(&format!("cache-control: {swr}"));
        let verdict =
            response.verdict(&fields(&format!("cache-control: {request}")), at(70), &Policy::shared());
        assert!(
            matches!(verdict, Validate { by_request: false, .. }),
            "9111 5.2.1, stale, {request}: {verdict:?}"
        );
    }
    let stale = stored("cache-control: max-age=60").verdict(
        &fields("cache-control: no-cache"),
        at(61),
        &Policy::shared(),
    );
    assert!(matches!(stale, Validate { by_request: false, .. }), "docs: it would not be fresh: {stale:?}");
}

#[test]
fn fixed_times() {
    check_with(
        &Policy::fixed(s(60)),
        [
            ("docs: whatever the response says", "no-cache, max-age=5", 59, "", Fresh),
            ("docs: whatever requests say", "max-age=5", 59, "cache-control: no-cache", Fresh),
            ("docs: whatever requests say, max-age", "max-age=5", 59, "cache-control: max-age=0", Fresh),
            ("docs: for so long", "max-age=99", 60, "", STALE),
        ],
    );
}

#[test]
fn conditions_that_a_cache_cannot_answer() {
    let rows = [
        ("9111 4.3.2 none", "accept: */*", false),
        ("9110 13.1.1 If-Match", "if-match: \"a\"", true),
        ("9110 13.1.4 If-Unmodified-Since", "if-unmodified-since: @0", true),
        ("9110 13.1.2 If-None-Match", "if-none-match: \"a\"", false),
        ("9110 13.1.3 If-Modified-Since", "if-modified-since: @0", false),
        ("9110 13.1.5 If-Range", "if-range: \"a\" | range: bytes=0-1", false),
    ];
    check(rows.map(|(name, text, expected)| (name, is_conditional(&fields(text)), expected)));
}
