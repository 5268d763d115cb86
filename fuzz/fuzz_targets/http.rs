//! The rules of HTTP: any fields give an answer, and any bytes a stored head or none.

#![no_main]

use std::time::Duration;

use hitbox_core::Timestamp;
use hitbox_http::{
    KeyRules, Policy, Precondition, RequestDirectives, Requested, ResponseDirectives, StoredHead, Vary,
    Verdict, add_validators, groups_of, invalidated_groups, invalidated_uris, is_conditional, may_store,
    remove_connection_fields, requested_range, storable_fields,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use libfuzzer_sys::fuzz_target;

/// Lines of `name: value`, up to an empty one, and what is behind it.
fn fields(input: &[u8]) -> (HeaderMap, &[u8]) {
    let mut fields = HeaderMap::new();
    let mut rest = input;
    while !rest.is_empty() && fields.len() < 64 {
        let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        let line = &rest[..end];
        rest = rest.get(end + 1..).unwrap_or_default();
        if line.is_empty() {
            break;
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default().trim_ascii();
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(value))
        {
            fields.append(name, value);
        }
    }
    (fields, rest)
}

fuzz_target!(|input: &[u8]| {
    if let Ok(head) = StoredHead::decode(input) {
        assert_eq!(StoredHead::decode(&head.encode()), Ok(head), "what was read is written and read again");
    }
    // The first bytes choose a status, a time and a length; a line has the URI; then the fields of both sides.
    let Some((chosen, rest)) = input.split_first_chunk::<8>() else { return };
    let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    let uri = Uri::try_from(&rest[..end]).unwrap_or_else(|_| Uri::from_static("http://a/b/c?d=1"));
    let (request, rest) = fields(rest.get(end + 1..).unwrap_or_default());
    let (response, _) = fields(rest);
    let status = StatusCode::from_u16(u16::from_le_bytes([chosen[0], chosen[1]])).unwrap_or(StatusCode::OK);
    let later = Duration::from_secs(u64::from(u32::from_le_bytes([chosen[2], chosen[3], chosen[4], 0])));
    let length = u64::from(chosen[5]) << (chosen[6] % 64);
    let came = Timestamp::from_millis(1_700_000_000_000);
    let now = came + later;
    let head = StoredHead::new(status, response.clone(), came, came);

    let _ = (RequestDirectives::of(&request), is_conditional(&request));
    for (policy, is_fixed) in [
        (Policy::shared().heuristic(0.1), false),
        (Policy::private(), false),
        (Policy::shared().surrogate("hitbox").ttl_when_unspecified(Duration::from_secs(9)), false),
        (Policy::fixed(Duration::from_secs(60)), true),
    ] {
        let directives = ResponseDirectives::of(&response, &policy);
        let _ = storable_fields(&response, &directives);
        let _ = may_store(&Method::GET, &request, status, &response, &policy);
        let _ = head.kept(&policy);
        let verdict = head.verdict(&request, now, &policy);
        let is_fresh = head.age(now, &policy) < head.freshness(&policy).lifetime;
        assert!(verdict != Verdict::Fresh || is_fresh, "what is stale is not fresh");
        let is_served = !matches!(verdict, Verdict::Validate { .. });
        // Fixed times count whatever the response says.
        assert!(is_fixed || !is_served || !directives.no_cache, "no-cache is not served");
        assert!(!is_served || is_fresh || !directives.must_revalidate, "must-revalidate is not served stale");
    }

    assert_eq!(StoredHead::decode(&head.encode()).as_ref(), Ok(&head));
    let fresh = head.freshened(&request, now, now);
    let _ = (Precondition::of(&request, &head), Precondition::of(&request, &fresh), head.not_modified());
    if let Requested::Part(part) = requested_range(&request, &head, length) {
        assert!(part.bytes.start < part.bytes.end && part.bytes.end <= length, "a range is within the body");
    }

    let rules = KeyRules::default().query(["d", "e"]).header(http::header::ACCEPT).cookie("c");
    let primary = KeyRules::default().key("p", &uri, &request);
    let _ =
        (rules.key("p", &uri, &request), KeyRules::default().ignore_query(["d"]).key("p", &uri, &request));
    if let Some(vary) = Vary::of(&response) {
        assert_eq!(Vary::from_text(&vary.to_text()).as_ref(), Some(&vary));
        assert_ne!(vary.key(&request).of_variant(&primary, length), primary);
    }
    let _ = (groups_of(&response, &uri, &request), invalidated_groups(&response, &uri, &request));
    let _ = invalidated_uris(&Method::POST, &uri, &request, StatusCode::OK, &response);
    let mut changed = request;
    add_validators(&mut changed, &head);
    remove_connection_fields(&mut changed);
});
