//! Laws that hold for any input: nothing panics, what is written is read, and what is not fresh is not said to be.

use std::time::Duration;

use hitbox_core::Timestamp;
use hitbox_http::{
    CacheStatusField, KeyRules, Policy, Precondition, RequestDirectives, Requested, ResponseDirectives,
    StoredHead, Vary, Verdict, add_validators, groups_of, invalidated_groups, invalidated_uris,
    is_conditional, may_store, remove_connection_fields, requested_range, storable_fields,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use proptest::prelude::*;

use crate::common::{CAME, at, date, with};

/// Fields that the rules read.
const KNOWN: &[&str] = &[
    "age",
    "authorization",
    "cache-control",
    "cache-groups",
    "cache-group-invalidation",
    "cdn-cache-control",
    "connection",
    "content-location",
    "cookie",
    "date",
    "etag",
    "expires",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "last-modified",
    "location",
    "pragma",
    "range",
    "set-cookie",
    "surrogate-control",
    "vary",
    "x-a",
];

/// Values that mean something somewhere.
const TELLING: &[&str] = &[
    "max-age=60",
    "s-maxage=10, max-age=60",
    "no-cache",
    "no-store",
    "must-revalidate, max-age=1",
    "private=\"x-a\"",
    "*",
    "max-stale",
    "min-fresh=10",
    "max-stale=5, max-age=30",
    "stale-while-revalidate=30, max-age=60",
    "stale-if-error=9",
    "bytes=0-4",
    "bytes=-3",
    "bytes=5-",
    "\"a\"",
    "W/\"a\"",
    "\"a\", \"b\"",
    "../x",
    "http://a/x",
    "accept, cookie",
    "0",
    "60",
    "public, max-age=600, immutable",
    "proxy-revalidate",
    "a=1; b=2",
    "must-understand, no-store",
    "x=\"",
    "\\",
    "=",
    ",,",
];

fn a_value() -> impl Strategy<Value = HeaderValue> {
    let any = prop::collection::vec(prop_oneof![Just(b'\t'), 32..=126_u8, 128..=255_u8], 0..24);
    let dated = (-200_i64..200).prop_map(date);
    prop_oneof![
        prop::sample::select(TELLING).prop_map(|text| text.as_bytes().to_vec()),
        dated.prop_map(String::into_bytes),
        any,
    ]
    .prop_map(|bytes| HeaderValue::from_bytes(bytes.trim_ascii()).expect("what a value may have"))
}

fn some_fields() -> impl Strategy<Value = HeaderMap> {
    let name = prop::sample::select(KNOWN).prop_map(HeaderName::from_static);
    prop::collection::vec((name, a_value()), 0..8).prop_map(|lines| {
        lines.into_iter().fold(HeaderMap::new(), |mut fields, (name, value)| {
            fields.append(name, value);
            fields
        })
    })
}

/// Fields of any name.
fn any_fields() -> impl Strategy<Value = HeaderMap> {
    let name = "[!#$%&'*+.^_`|~0-9a-z-]{1,12}";
    prop::collection::vec((name, a_value()), 0..8).prop_map(|lines| {
        lines.into_iter().fold(HeaderMap::new(), |mut fields, (name, value)| {
            fields.append(HeaderName::from_bytes(name.as_bytes()).expect("a token"), value);
            fields
        })
    })
}

fn a_policy() -> impl Strategy<Value = Policy> {
    let base = prop_oneof![
        Just(Policy::shared()),
        Just(Policy::private()),
        Just(Policy::shared().heuristic(0.5)),
        Just(Policy::shared().ttl_when_unspecified(Duration::from_secs(9))),
        Just(Policy::shared().surrogate("hitbox")),
    ];
    (base, any::<bool>()).prop_map(|(policy, heeds)| policy.heed_requests(heeds))
}

fn a_head() -> impl Strategy<Value = StoredHead> {
    (some_fields(), 200_u16..600, -50_i64..=0).prop_map(|(headers, code, asked)| {
        StoredHead::new(StatusCode::from_u16(code).expect("a status"), headers, at(asked), CAME)
    })
}

fn adds(head: StoredHead, directives: &str) -> StoredHead {
    with(head, |head| {
        let value = HeaderValue::from_str(directives).expect("directives");
        head.headers.append("cache-control", value.clone());
        head.headers.remove("surrogate-control");
        if head.headers.contains_key("cdn-cache-control") {
            head.headers.insert("cdn-cache-control", value);
        }
    })
}

fn is_served(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Fresh | Verdict::StaleAllowed | Verdict::StaleWhileRevalidate)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_head_is_read_as_it_was_written(
        headers in any_fields(), code in 100_u16..1000, asked in any::<u64>(), came in any::<u64>(),
    ) {
        let status = StatusCode::from_u16(code).expect("a status");
        let head = StoredHead::new(status, headers, Timestamp::from_millis(asked), Timestamp::from_millis(came));
        prop_assert_eq!(StoredHead::decode(&head.encode()), Ok(head));
    }

    #[test]
    fn any_bytes_are_a_head_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = StoredHead::decode(&bytes);
    }

    #[test]
    fn what_is_read_is_written_the_same_way(head in a_head(), place in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = head.encode().to_vec();
        let place = place.index(bytes.len());
        bytes[place] = byte;
        if let Ok(read) = StoredHead::decode(&bytes) {
            prop_assert_eq!(StoredHead::decode(&read.encode()), Ok(read));
        }
    }

    #[test]
    fn nothing_is_fresh_beyond_its_lifetime(
        head in a_head(), request in some_fields(), later in -100_i64..1000, policy in a_policy(),
    ) {
        let (age, lifetime) = (head.age(at(later), &policy), head.freshness(&policy).lifetime);
        let verdict = head.verdict(&request, at(later), &policy);
        prop_assert!(verdict != Verdict::Fresh || age < lifetime, "{:?} of {:?}", age, lifetime);
        if verdict == Verdict::StaleWhileRevalidate || verdict == Verdict::StaleAllowed {
            prop_assert!(age >= lifetime, "{:?} of {:?}", age, lifetime);
        }
    }

    #[test]
    fn no_cache_is_never_served(
        head in a_head(), request in some_fields(), later in -100_i64..1000, policy in a_policy(),
    ) {
        let verdict = adds(head, "no-cache").verdict(&request, at(later), &policy);
        prop_assert!(!is_served(verdict), "{:?}", verdict);
        let Verdict::Validate { when_disconnected, on_error, .. } = verdict else { return Ok(()) };
        prop_assert!(!when_disconnected && !on_error, "{:?}", verdict);
    }

    #[test]
    fn must_revalidate_is_never_served_stale(
        head in a_head(), request in some_fields(), later in -100_i64..1000, policy in a_policy(),
    ) {
        let head = adds(head, "must-revalidate");
        let is_stale = head.age(at(later), &policy) >= head.freshness(&policy).lifetime;
        let verdict = head.verdict(&request, at(later), &policy);
        prop_assert!(!is_stale || !is_served(verdict), "{:?}", verdict);
        if let Verdict::Validate { when_disconnected, on_error, .. } = verdict {
            prop_assert!(!is_stale || (!when_disconnected && !on_error), "{:?}", verdict);
        }
    }

    #[test]
    fn a_response_does_not_get_younger(head in a_head(), one in 0_i64..1000, more in 0_i64..1000, policy in a_policy()) {
        let asked = HeaderMap::new();
        let sooner = head.verdict(&asked, at(one), &policy);
        let later = head.verdict(&asked, at(one + more), &policy);
        prop_assert!(later != Verdict::Fresh || sooner == Verdict::Fresh, "{:?}, then {:?}", sooner, later);
        prop_assert!(!is_served(later) || is_served(sooner), "{:?}, then {:?}", sooner, later);
    }

    #[test]
    fn what_is_served_is_still_kept(head in a_head(), later in 0_i64..1000, policy in a_policy()) {
        let (fresh, beyond) = head.kept(&policy);
        let verdict = head.verdict(&HeaderMap::new(), at(later), &policy);
        let is_kept = at(later).since(head.came) <= fresh.saturating_add(beyond);
        prop_assert!(is_kept || !is_served(verdict), "{:?} after {:?} and {:?}", verdict, fresh, beyond);
    }

    #[test]
    fn a_range_is_within_the_body(
        from in prop::option::of(0_u64..40), to in prop::option::of(0_u64..40), length in 0_u64..30,
    ) {
        let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
        let range = format!("bytes={}-{}", number(from), number(to));
        let request = HeaderMap::from_iter([(http::header::RANGE, HeaderValue::from_str(&range).expect("a range"))]);
        let head = StoredHead::new(StatusCode::OK, HeaderMap::new(), CAME, CAME);
        if let Requested::Part(part) = requested_range(&request, &head, length) {
            prop_assert!(part.bytes.start < part.bytes.end && part.bytes.end <= length && part.of == length, "{:?}", part);
            prop_assert!(part.content_range().is_some());
            if let (Some(from), to) = (from, to) {
                prop_assert_eq!(part.bytes.start, from);
                prop_assert_eq!(part.bytes.end, to.map_or(length, |to| length.min(to + 1)));
            }
        }
    }

    #[test]
    fn other_resources_have_other_keys(
        one in ("https?", "[a-c]{1,2}", prop::option::of(1_u16..4), "(/[a-b?:@%#/]{0,3})?"),
        other in ("https?", "[a-c]{1,2}", prop::option::of(1_u16..4), "(/[a-b?:@%#/]{0,3})?"),
    ) {
        type Parts = (String, String, Option<u16>, String);
        let parts = |(scheme, host, port, path): &Parts| {
            let authority = port.map_or(host.clone(), |port| format!("{host}:{port}"));
            format!("{scheme}://{authority}{path}").parse::<Uri>().ok()
        };
        let (Some(one), Some(other)) = (parts(&one), parts(&other)) else { return Ok(()) };
        let key = |uri: &Uri| KeyRules::default().key("p", uri, &HeaderMap::new());
        prop_assert_eq!(one == other, key(&one) == key(&other), "{} and {}", one, other);
    }

    #[test]
    fn the_same_resource_has_the_same_key(host in "[a-z]{1,4}", secure in any::<bool>(), path in "/[a-zA-Z?=&]{0,6}") {
        let (scheme, port) = if secure { ("https", 443) } else { ("http", 80) };
        let key = |text: String| KeyRules::default().key("p", &text.parse().expect("a URI"), &HeaderMap::new());
        let plain = key(format!("{scheme}://{host}{path}"));
        prop_assert_eq!(&key(format!("{scheme}://{host}:{port}{path}")), &plain);
        prop_assert_eq!(&key(format!("{}://{}{path}", scheme.to_uppercase(), host.to_uppercase())), &plain);
    }

    #[test]
    fn parameters_that_count_are_told_apart(
        one in prop::collection::vec(("[a-c]", "[x-z=%]{0,2}"), 0..4), other in prop::collection::vec(("[a-c]", "[x-z=%]{0,2}"), 0..4),
    ) {
        let rules = KeyRules::default().query(["a", "b"]);
        let query = |all: &[(String, String)]| {
            let all: Vec<String> = all.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("http://h/?{}", all.join("&"))
        };
        let key = |all: &[(String, String)]| rules.key("p", &query(all).parse().expect("a URI"), &HeaderMap::new());
        let of = |all: &[(String, String)], name: &str| {
            all.iter().filter(|(own, _)| own == name).map(|(_, value)| value.clone()).collect::<Vec<_>>()
        };
        let alike = ["a", "b"].iter().all(|name| of(&one, name) == of(&other, name));
        // Their order does not count unless one is there more than once: then it may.
        if !alike {
            prop_assert_ne!(key(&one), key(&other));
        } else if ["a", "b"].iter().all(|name| of(&one, name).len() <= 1) {
            prop_assert_eq!(key(&one), key(&other));
        }
    }

    #[test]
    fn vary_is_a_set(names in prop::collection::vec("[a-z]{1,3}", 0..5), order in any::<u64>(), upper in any::<bool>()) {
        let vary = |line: String| {
            let value = HeaderValue::from_str(&line).expect("names");
            Vary::of(&HeaderMap::from_iter([(http::header::VARY, value)]))
        };
        let mut others = names.clone();
        let turn = usize::try_from(order % 5).expect("a small number").min(others.len());
        others.rotate_left(turn);
        let others = if upper { others.join(" ,\t").to_uppercase() } else { others.join(",,") };
        let known = vary(names.join(", "));
        prop_assert!(known.is_some());
        prop_assert_eq!(&vary(others), &known);
        let known = known.expect("names");
        prop_assert_eq!(Vary::from_text(&known.to_text()), Some(known));
    }

    #[test]
    fn nothing_panics(
        (request, response) in (some_fields(), some_fields()), head in a_head(), policy in a_policy(),
        code in 100_u16..1000, length in any::<u64>(), now in any::<u64>(), told in any::<String>(),
    ) {
        let status = StatusCode::from_u16(code).expect("a status");
        let uri = Uri::from_static("http://a/b/c?d");
        let now = Timestamp::from_millis(now);
        let _ = RequestDirectives::of(&request);
        let _ = storable_fields(&response, &ResponseDirectives::of(&response, &policy));
        let _ = may_store(&Method::GET, &request, status, &response, &policy);
        let fresh = head.freshened(&response, now, now);
        for head in [&head, &fresh] {
            let _ = (head.verdict(&request, now, &policy), head.age(now, &policy), head.kept(&policy), head.not_modified());
            let _ = (Precondition::of(&request, head), requested_range(&request, head, length), is_conditional(&request));
        }
        let primary = KeyRules::default().cookie("a").query(["a"]).key(&told, &uri, &request);
        let _ = Vary::of(&response).map(|vary| vary.key(&request).of_variant(&primary, length));
        let _ = Vary::from_text(&told);
        let _ = (groups_of(&response, &uri, &request), invalidated_groups(&response, &uri, &request));
        let _ = invalidated_uris(&Method::POST, &uri, &request, StatusCode::OK, &response);
        let mut changed = request.clone();
        add_validators(&mut changed, &head);
        remove_connection_fields(&mut changed);
        let field = with(CacheStatusField::hit(), |field| (field.key, field.detail) = (Some(told.clone().into()), Some(told.clone().into())));
        prop_assert!(field.to_value(&told).is_some());
    }
}
