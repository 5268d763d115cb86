//! What `Cache-Control`, and what stands in its place, says (RFC 9111, 5.2 to 5.4; RFC 9213).

use std::time::Duration;

use hitbox_http::{Policy, RequestDirectives, ResponseDirectives};
use http::{HeaderName, HeaderValue};

use crate::common::{check, fields, s, with};

fn request() -> RequestDirectives {
    RequestDirectives::default()
}

fn response() -> ResponseDirectives {
    ResponseDirectives::default()
}

#[test]
fn requests() {
    let max_age = |age| with(request(), |it| it.max_age = Some(age));
    let max_stale = |stale| with(request(), |it| it.max_stale = Some(stale));
    let no_cache = with(request(), |it| it.no_cache = true);
    let rows = [
        ("none", "accept: */*", request()),
        ("9111 5.2.1.1 max-age", "cache-control: max-age=5", max_age(s(5))),
        ("9111 5.2 both forms of an argument", r#"cache-control: max-age="5""#, max_age(s(5))),
        ("9111 5.2 names in any case", "cache-control: Max-AGE=5", max_age(s(5))),
        ("9111 1.2.2 zeros in front", "cache-control: max-age=0005", max_age(s(5))),
        ("9111 5.2.1.2 max-stale", "cache-control: max-stale=7", max_stale(s(7))),
        ("9111 5.2.1.2 max-stale of any length", "cache-control: max-stale", max_stale(Duration::MAX)),
        (
            "9111 5.2.1.3 min-fresh",
            "cache-control: min-fresh=7",
            with(request(), |it| it.min_fresh = Some(s(7))),
        ),
        ("9111 5.2.1.4 no-cache", "cache-control: no-cache", no_cache.clone()),
        ("9111 5.2.1.5 no-store", "cache-control: no-store", with(request(), |it| it.no_store = true)),
        (
            "9111 5.2.1.7 only-if-cached",
            "cache-control: only-if-cached",
            with(request(), |it| it.only_if_cached = true),
        ),
        (
            "5861 4 stale-if-error",
            "cache-control: stale-if-error=9",
            with(request(), |it| it.stale_if_error = Some(s(9))),
        ),
        ("9111 5.4 Pragma alone", "pragma: no-cache", no_cache.clone()),
        ("9111 5.4 Pragma in any case, among others", "pragma: x, No-Cache", no_cache),
        (
            "9111 5.4 Pragma beside Cache-Control",
            "pragma: no-cache | cache-control: max-age=5",
            max_age(s(5)),
        ),
        (
            "9111 5.2.3 what is not known",
            r#"cache-control: x="no-store, no-cache", max-age=5"#,
            max_age(s(5)),
        ),
        (
            "9111 5.2.3 an unknown argument with an escaped quote",
            r#"cache-control: x="\", no-store", max-age=5"#,
            max_age(s(5)),
        ),
    ];
    check(rows.map(|(name, text, expected)| (name, RequestDirectives::of(&fields(text)), expected)));
}

#[test]
fn responses() {
    let max_age = |age| with(response(), |it| it.max_age = Some(age));
    let named = |names: &[&'static str]| {
        with(response(), |it| it.fields = names.iter().map(|name| HeaderName::from_static(name)).collect())
    };
    let private = with(response(), |it| it.private = true);
    let no_cache = with(response(), |it| it.no_cache = true);
    let rows = [
        ("none", "", response()),
        ("9111 5.2.2.1 max-age", "cache-control: max-age=60", max_age(s(60))),
        (
            "9111 5.2.2.10 s-maxage",
            "cache-control: s-maxage=60",
            with(response(), |it| it.s_maxage = Some(s(60))),
        ),
        (
            "9111 5.2.2.2 must-revalidate",
            "cache-control: must-revalidate",
            with(response(), |it| it.must_revalidate = true),
        ),
        (
            "9111 5.2.2.8 proxy-revalidate",
            "cache-control: proxy-revalidate",
            with(response(), |it| it.proxy_revalidate = true),
        ),
        (
            "9111 5.2.2.3 must-understand",
            "cache-control: must-understand, no-store",
            with(response(), |it| {
                it.must_understand = true;
                it.no_store = true;
            }),
        ),
        ("9111 5.2.2.4 no-cache", "cache-control: no-cache", no_cache.clone()),
        ("9111 5.2.2.4 no-cache of fields", r#"cache-control: no-cache="X-A, x-b""#, named(&["x-a", "x-b"])),
        ("9111 5.2.2.4 no-cache of a field, as a token", "cache-control: no-cache=x-a", named(&["x-a"])),
        ("9111 5.2.2.4 no-cache of what is no field", r#"cache-control: no-cache="a b""#, no_cache),
        ("9111 5.2.2.7 private", "cache-control: private", private.clone()),
        ("9111 5.2.2.7 private of fields", r#"cache-control: private="x-a""#, named(&["x-a"])),
        ("9111 5.2.2.7 private of what is no field", r#"cache-control: private="a b""#, private),
        ("9111 5.2.2.9 public", "cache-control: PUBLIC", with(response(), |it| it.public = true)),
        (
            "8246 2 immutable",
            "cache-control: immutable, max-age=60",
            with(max_age(s(60)), |it| it.immutable = true),
        ),
        (
            "8246 2 an argument of immutable is ignored",
            "cache-control: immutable=5, max-age=60",
            with(max_age(s(60)), |it| it.immutable = true),
        ),
        (
            "5861 3 and 4",
            "cache-control: stale-while-revalidate=5, stale-if-error=6",
            with(response(), |it| {
                it.stale_while_revalidate = Some(s(5));
                it.stale_if_error = Some(s(6));
            }),
        ),
        (
            "9110 5.3 several lines",
            "cache-control: max-age=60 | cache-control: public",
            with(max_age(s(60)), |it| it.public = true),
        ),
        ("9110 5.6.1.2 empty members", "cache-control: , ,max-age=60 ,,", max_age(s(60))),
        ("9111 5.2 an argument as a string", r#"cache-control: max-age="60""#, max_age(s(60))),
        (
            "9111 1.2.2 more than any number",
            "cache-control: max-age=99999999999999999999999",
            max_age(s(1 << 31)),
        ),
        ("docs: max-age is no number", "cache-control: max-age=x", max_age(s(0))),
        ("docs: max-age is negative", "cache-control: max-age=-1", max_age(s(0))),
        ("docs: max-age has a sign", "cache-control: max-age=+1", max_age(s(0))),
        ("docs: max-age is no whole number", "cache-control: max-age=1.5", max_age(s(0))),
        ("docs: max-age without a number", "cache-control: max-age", max_age(s(0))),
        ("docs: max-age is empty", "cache-control: max-age=", max_age(s(0))),
        ("docs: single quotes are none", "cache-control: max-age='60'", max_age(s(0))),
        ("docs: differing ones", "cache-control: max-age=60, max-age=30", max_age(s(30))),
        (
            "docs: differing ones, one of them no number",
            "cache-control: max-age=x, max-age=30",
            max_age(s(0)),
        ),
        ("9111 5.2.3 what is not known", r#"cache-control: x="no-store", y=private"#, response()),
        ("9111 5.4 Pragma means nothing here", "pragma: no-cache", response()),
        (
            "9111 5.2 a string that does not end hides nothing before it",
            r#"cache-control: no-store, x="y"#,
            with(response(), |it| it.no_store = true),
        ),
    ];
    let of = |text| ResponseDirectives::of(&fields(text), &Policy::shared());
    check(rows.map(|(name, text, expected)| (name, of(text), expected)));
}

#[test]
fn fields_for_this_kind_of_cache() {
    let max_age = |age| with(response(), |it| it.max_age = Some(age));
    let targeted = |age| with(max_age(age), |it| it.are_targeted = true);
    let shared = Policy::shared();
    let list = |names: &[&'static str]| {
        Policy::shared().targeted(names.iter().map(|name| HeaderName::from_static(name)))
    };
    let rows = [
        (
            "9213 2.2 in place of Cache-Control",
            &shared,
            "cdn-cache-control: max-age=9 | cache-control: no-store",
            targeted(s(9)),
        ),
        (
            "9213 2.2 not for this kind",
            &Policy::private(),
            "cdn-cache-control: max-age=9 | cache-control: max-age=60",
            max_age(s(60)),
        ),
        ("9213 2.1 empty", &shared, "cdn-cache-control: | cache-control: max-age=60", max_age(s(60))),
        (
            "9213 2.1 cannot be parsed",
            &shared,
            "cdn-cache-control: max-age=9,, | cache-control: max-age=60",
            max_age(s(60)),
        ),
        (
            "9213 2.1 a key in upper case is none",
            &shared,
            "cdn-cache-control: Max-Age=9 | cache-control: max-age=60",
            max_age(s(60)),
        ),
        ("9213 2.1 parameters are ignored", &shared, "cdn-cache-control: max-age=9;x;y=1", targeted(s(9))),
        (
            "9651 4.2 lines are joined",
            &shared,
            "cdn-cache-control: max-age=9 | cdn-cache-control: public",
            with(targeted(s(9)), |it| it.public = true),
        ),
        (
            "9213 2.2 the first of the list",
            &list(&["x-one", "x-two"]),
            "x-two: max-age=2 | x-one: max-age=1",
            targeted(s(1)),
        ),
        (
            "9213 2.2 the second, if the first is empty",
            &list(&["x-one", "x-two"]),
            "x-two: max-age=2 | x-one: ",
            targeted(s(2)),
        ),
        (
            "9213 2.2 the second, if the first cannot be parsed",
            &list(&["x-one", "x-two"]),
            "x-two: max-age=2 | x-one: =",
            targeted(s(2)),
        ),
        (
            "9213 2.2 none of the list",
            &list(&[]),
            "cdn-cache-control: max-age=9 | cache-control: max-age=60",
            max_age(s(60)),
        ),
        (
            "9213 2.2 what is not known counts as a field that is there",
            &shared,
            "cdn-cache-control: x=1 | cache-control: max-age=60",
            with(response(), |it| it.are_targeted = true),
        ),
    ];
    check(rows.map(|(name, policy, text, expected)| {
        (name, ResponseDirectives::of(&fields(text), policy), expected)
    }));
}

#[test]
fn surrogate_control() {
    let policy = Policy::shared().surrogate("hitbox");
    let expected = |max_age, no_store| (Some(s(max_age)).filter(|_| max_age > 0), no_store, true);
    let rows = [
        ("Edge Architecture 2.3: max-age", "max-age=60", expected(60, false)),
        ("Edge Architecture 2.3: no-store", "no-store", expected(0, true)),
        ("Edge Architecture 2.3: how long it may be stale", "max-age=60+30", expected(60, false)),
        ("Edge Architecture 2.3: for this one", "max-age=60;hitbox", expected(60, false)),
        ("Edge Architecture 2.3: for another", "max-age=60, no-store;other", expected(60, false)),
    ];
    check(rows.map(|(name, text, expected)| {
        let text =
            format!("surrogate-control: {text} | cdn-cache-control: max-age=3 | cache-control: max-age=2");
        let said = ResponseDirectives::of(&fields(&text), &policy);
        (name, (said.max_age, said.no_store, said.are_targeted), expected)
    }));
}

#[test]
fn surrogate_control_that_is_for_others() {
    let policy = Policy::shared().surrogate("hitbox");
    for nothing in ["", "max-age=60;other", "no-store;other, max-age=60;another"] {
        let text = format!("surrogate-control: {nothing} | cache-control: no-store, private");
        let said = ResponseDirectives::of(&fields(&text), &policy);
        let counts = said.no_store && said.private;
        assert!(
            counts,
            "9213 2.1, as of such fields: Cache-Control counts if nothing is for this one, {nothing:?}"
        );
    }
    let others = ResponseDirectives::of(&fields("surrogate-control: max-age=60"), &Policy::shared());
    assert_eq!(others, response(), "nobody asked for Surrogate-Control");
    let told = policy.surrogate_capability();
    assert_eq!(told, Some(HeaderValue::from_static(r#"hitbox="Surrogate/1.0""#)), "Edge Architecture 2.2");
    assert_eq!(Policy::shared().surrogate_capability(), None);
}
