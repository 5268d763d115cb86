//! Which fields of a request a response depends on (RFC 9111, 4.1).

use hitbox_core::CacheKey;
use hitbox_http::Vary;

use crate::common::{check, fields};

fn vary(text: &str) -> Option<Vary> {
    Vary::of(&fields(text))
}

#[test]
fn what_vary_says() {
    let names = |text: &str| Some(text.to_owned()).filter(|text| text != "*");
    let two = vary("vary: accept, cookie").expect("two fields").to_text();
    let rows = [
        ("9110 12.5.5 none", "", names("")),
        ("9110 12.5.5 empty", "vary: ", names("")),
        ("9110 12.5.5 any case", "vary: Accept, COOKIE", names(&two)),
        ("9110 12.5.5 any order", "vary: cookie, accept", names(&two)),
        ("9110 5.6.1 spaces and empty members", "vary:   cookie ,, accept,", names(&two)),
        ("9110 5.3 several lines", "vary: cookie | vary: accept", names(&two)),
        ("9110 12.5.5 more than once", "vary: accept, cookie, Accept", names(&two)),
        ("9111 4.1 a star", "vary: *", names("*")),
        ("9111 4.1 a star among others", "vary: accept, *", names("*")),
        ("9111 4.1 a star on another line", "vary: accept | vary: *", names("*")),
        ("docs: no name", "vary: accept, a b", names("*")),
        ("docs: a string is no name", r#"vary: "accept""#, names("*")),
        ("docs: a string is no name, beside one", r#"vary: accept, "cookie""#, names("*")),
        ("docs: a name with an argument is none", "vary: accept=1", names("*")),
    ];
    check(rows.map(|(name, text, expected)| (name, vary(text).map(|vary| vary.to_text()), expected)));
    assert!(vary("").expect("no field").is_empty());
    assert!(!vary("vary: accept").expect("a field").is_empty());
    for text in ["", &*two] {
        let read = Vary::from_text(text).expect("what was written");
        assert_eq!(read.to_text(), text);
    }
    for other in ["*", "a b", "accept, *", "\u{e4}"] {
        assert_eq!(Vary::from_text(other), None, "docs: {other:?} is another text");
    }
}

#[test]
fn which_requests_are_alike() {
    // A name, what the response varies by, two requests, and whether they are alike.
    let rows = [
        ("9111 4.1 the same", "x-a", "x-a: 1", "x-a: 1", true),
        ("9111 4.1 another value", "x-a", "x-a: 1", "x-a: 2", false),
        ("9111 4.1 absent in both", "x-a", "", "x-b: 1", true),
        ("9111 4.1 absent in one", "x-a", "", "x-a: 1", false),
        ("9111 4.1 absent and empty", "x-a", "", "x-a: ", false),
        ("9111 4.1 other fields", "x-a", "x-a: 1 | x-b: 1", "x-a: 1 | x-b: 2", true),
        ("9111 4.1 all that are named", "x-a, x-b", "x-a: 1 | x-b: 1", "x-a: 1 | x-b: 2", false),
        ("9111 4.1 lines joined", "x-a", "x-a: 1 | x-a: 2", "x-a: 1, 2", true),
        ("9111 4.1 spaces at commas", "x-a", "x-a: 1 ,2", "x-a: 1,   2", true),
        ("9111 4.1 a comma at the end", "origin", "origin: https://a,", "origin: https://a", false),
        ("9111 4.1 a comma at the beginning", "x-a", "x-a: ,a", "x-a: a", false),
        ("9110 5.6.1 empty members of a list", "accept", "accept: a/b,,", "accept: ,a/b", true),
        (
            "9111 4.1 order counts",
            "accept-language",
            "accept-language: de, en",
            "accept-language: en, de",
            false,
        ),
        ("9111 4.1 case counts", "x-a", "x-a: A", "x-a: a", false),
        (
            "9110 12.5.4 case of languages",
            "accept-language",
            "accept-language: EN-us",
            "accept-language: en-US",
            true,
        ),
        (
            "9110 12.5.3 case of codings",
            "accept-encoding",
            "accept-encoding: GZip",
            "accept-encoding: gzip",
            true,
        ),
        ("9110 5.6.4 commas within quotes", "x-a", r#"x-a: "1 , 2""#, r#"x-a: "1,2""#, false),
        ("9110 5.6.4 an escaped quote", "x-a", r#"x-a: "\" , 2""#, r#"x-a: "\",2""#, false),
        (
            "9113 8.2.3 cookies on several lines",
            "cookie",
            "cookie: a=1 | cookie: b=2",
            "cookie: a=1; b=2",
            true,
        ),
        (
            "9113 8.2.3 cookies are not joined by commas",
            "cookie",
            "cookie: a=1 | cookie: b=2",
            "cookie: a=1,b=2",
            false,
        ),
        ("9111 4.1 values stay with their fields", "x-a, x-b", "x-a: 1", "x-b: 1", false),
    ];
    check(rows.map(|(name, by, one, other, alike)| {
        let vary = vary(&format!("vary: {by}")).expect("fields");
        let (one, other) = (vary.key(&fields(one)), vary.key(&fields(other)));
        let primary = CacheKey::new("k");
        let are_keys_alike = one.of_variant(&primary, 1) == other.of_variant(&primary, 1);
        (name, (one == other, are_keys_alike), (alike, alike))
    }));
}

#[test]
fn keys_of_variants() {
    let vary = vary("vary: x-a").expect("a field");
    let variant = vary.key(&fields("x-a: 1"));
    let (one, two) = (CacheKey::new("k"), CacheKey::new("l"));
    let keys = [
        one.clone(),
        variant.of_variant(&one, 1),
        variant.of_variant(&one, 2),
        variant.of_variant(&two, 1),
        vary.key(&fields("")).of_variant(&one, 1),
        vary.key(&fields("x-a: ")).of_variant(&one, 1),
        Vary::default().key(&fields("x-a: 1")).of_variant(&one, 1),
    ];
    for (place, key) in keys.iter().enumerate() {
        assert!(!keys[..place].contains(key), "docs: {key} is told apart");
    }
    let named: Vec<_> = variant.fields().map(|(name, value)| (name.as_str(), value)).collect();
    assert_eq!(named, [("x-a", Some(&b"1"[..]))]);
}
