//! Groups of responses that are invalidated together (RFC 9875).

use hitbox_http::{groups_of, invalidated_groups};

use crate::common::{check, fields, uri};

fn of(at: &str, text: &str) -> Vec<String> {
    let mut tags = groups_of(&fields(text), &uri(at), &fields("host: a"));
    tags.sort();
    tags
}

#[test]
fn how_many() {
    let rows = [
        ("9875 2 none", "", 0),
        ("9875 2 one", r#"cache-groups: "a""#, 1),
        ("9875 2 two", r#"cache-groups: "a", "b""#, 2),
        ("9875 2 two lines", r#"cache-groups: "a" | cache-groups: "b""#, 2),
        ("9875 2 case counts", r#"cache-groups: "a", "A""#, 2),
        ("9651 3.1 parameters do not count", r#"cache-groups: "a";x=1"#, 1),
        ("9651 4.2 what cannot be parsed", r#"cache-groups: "a", "b"#, 0),
        ("9651 4.2 a member that is empty", r#"cache-groups: "a",, "b""#, 0),
        ("9875 2 the other field", r#"cache-group-invalidation: "a""#, 0),
    ];
    check(rows.map(|(name, text, expected)| (name, of("http://a/", text).len(), expected)));
    let list: Vec<String> = (0..32).map(|number| format!("{:?}", format!("{number:032}"))).collect();
    let all = of("http://a/", &format!("cache-groups: {}", list.join(", ")));
    assert_eq!(all.len(), 32, "9875 2: at least 32 groups with names of 32 characters");
}

#[test]
fn whose() {
    let one = r#"cache-groups: "a""#;
    let rows = [
        ("9875 2.1 another resource", "http://a/x", "http://a/y?z", true),
        ("9110 4.3.1 the port that it has anyway", "http://a/", "http://a:80/", true),
        ("9110 4.3.1 the case of the host", "http://a/", "http://A/", true),
        ("9875 2.1 another scheme", "http://a/", "https://a/", false),
        ("9875 2.1 another host", "http://a/", "http://b/", false),
        ("9875 2.1 another port", "http://a/", "http://a:81/", false),
    ];
    check(rows.map(|(name, here, there, expected)| (name, of(here, one) == of(there, one), expected)));
    assert_ne!(of("http://a/", one), of("http://a/", r#"cache-groups: "b""#), "9875 2: another name");
    let host = |host: &str| groups_of(&fields(one), &uri("/x"), &fields(host));
    assert_ne!(host("host: a"), host("host: b"), "9110 7.2: Host");
    let named = |name: &str, host: &str| {
        groups_of(&fields(&format!("cache-groups: {name:?}")), &uri("/x"), &fields(host))
    };
    assert_ne!(named("c", "host: a b"), named("b c", "host: a"), "9875 2.1: what is origin and what is name");
}

#[test]
fn what_is_invalidated() {
    let said = fields(r#"cache-group-invalidation: "a", "b""#);
    let mut tags = invalidated_groups(&said, &uri("http://a/other"), &fields(""));
    tags.sort();
    assert_eq!(tags, of("http://a/", r#"cache-groups: "b", "a""#), "9875 3: those of the same names");
    let other = fields(r#"cache-groups: "a""#);
    assert!(
        invalidated_groups(&other, &uri("http://a/"), &fields("")).is_empty(),
        "9875 3: the field says so"
    );
}
