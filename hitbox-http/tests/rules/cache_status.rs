//! What became of a request, as a field (RFC 9211).

use hitbox_http::{CacheStatusField, Forwarded};

use crate::common::{check, s, with};

fn text(field: &CacheStatusField<'_>, cache: &str) -> Option<String> {
    let value = field.to_value(cache)?;
    Some(value.to_str().expect("only what is visible").into())
}

#[test]
fn members() {
    let hit = CacheStatusField::hit;
    let gone = CacheStatusField::forwarded;
    let revalidated = with(gone(Forwarded::Stale), |it| {
        it.forwarded_status = Some(304);
        it.stored = true;
        it.collapsed = true;
    });
    let rows = [
        ("9211 2.1 a hit", hit(), "c;hit"),
        ("9211 2.2 bypass", gone(Forwarded::Bypass), "c;fwd=bypass"),
        ("9211 2.2 method", gone(Forwarded::Method), "c;fwd=method"),
        ("9211 2.2 uri-miss", gone(Forwarded::UriMiss), "c;fwd=uri-miss"),
        ("9211 2.2 vary-miss", gone(Forwarded::VaryMiss), "c;fwd=vary-miss"),
        ("9211 2.2 request", gone(Forwarded::Request), "c;fwd=request"),
        ("9211 2.2 stale", gone(Forwarded::Stale), "c;fwd=stale"),
        ("9211 2.2 partial", gone(Forwarded::Partial), "c;fwd=partial"),
        ("9211 2.4 fresh", hit().with_ttl(s(60), s(20)), "c;hit;ttl=40"),
        ("9211 2.4 stale", hit().with_ttl(s(60), s(80)), "c;hit;ttl=-20"),
        ("9211 2.3, 2.5, 2.6", revalidated, "c;fwd=stale;fwd-status=304;stored;collapsed"),
        (
            "9211 2.7 the key is a string",
            with(hit(), |it| it.key = Some(r#"a "b" \c"#.into())),
            r#"c;hit;key="a \"b\" \\c""#,
        ),
        (
            "docs: what is not visible in ASCII",
            with(hit(), |it| it.key = Some("a\u{e4}\n".into())),
            r#"c;hit;key="a??""#,
        ),
    ];
    check(rows.map(|(name, field, expected)| (name, text(&field, "c"), Some(expected.into()))));
}

#[test]
fn names_of_caches_and_details() {
    let rows = [
        ("9211 2 a token", "ExampleCache", "ExampleCache;hit"),
        ("9211 2 a host", "edge.example.com", "edge.example.com;hit"),
        ("9211 2 a string", "my cache", r#""my cache";hit"#),
        ("9651 3.3.4 a token does not start with a digit", "1a", r#""1a";hit"#),
        ("9211 2 none", "", r#""";hit"#),
    ];
    check(
        rows.map(|(name, cache, expected)| {
            (name, text(&CacheStatusField::hit(), cache), Some(expected.into()))
        }),
    );
    for detail in ["memory", "two words", "\u{e4}", ""] {
        let field = with(CacheStatusField::hit(), |it| it.detail = Some(detail.into()));
        let said = text(&field, "c").expect("a field");
        assert!(said.starts_with("c;hit;detail="), "9211 2.8 {detail:?}: {said}");
    }
}

#[test]
fn lifetimes_beyond_any_number() {
    // Integers of structured fields have at most fifteen digits (RFC 9651, 3.3.1).
    for (lifetime, age) in [(std::time::Duration::MAX, s(0)), (s(0), std::time::Duration::MAX)] {
        let said = text(&CacheStatusField::hit().with_ttl(lifetime, age), "c").expect("a field");
        let digits = said.chars().filter(char::is_ascii_digit).count();
        assert!((1..=15).contains(&digits), "9651 3.3.1: {said}");
    }
}
