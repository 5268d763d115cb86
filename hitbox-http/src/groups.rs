//! Groups of responses that are invalidated together (RFC 9875).

use http::{HeaderMap, Uri};
use sfv::{BareItem, List, ListEntry, Parser};

use crate::origin::origin_of;

/// A response may be in this many groups, and each name may have this many characters: what RFC 9875, 2 and 3 ask of every cache.
const MOST_GROUPS: usize = 32;
const MOST_CHARACTERS: usize = 32;

/// The groups that a response is in (`Cache-Groups`), as tags. They are those of its origin alone.
pub fn groups_of(response: &HeaderMap, uri: &Uri, request: &HeaderMap) -> Vec<String> {
    tags(response, "cache-groups", uri, request)
}

/// The groups that the response to an unsafe request invalidates (`Cache-Group-Invalidation`), as tags.
pub fn invalidated_groups(response: &HeaderMap, uri: &Uri, request: &HeaderMap) -> Vec<String> {
    tags(response, "cache-group-invalidation", uri, request)
}

fn tags(response: &HeaderMap, field: &'static str, uri: &Uri, request: &HeaderMap) -> Vec<String> {
    let lines: Vec<&[u8]> = response.get_all(field).into_iter().map(|line| line.as_bytes()).collect();
    if lines.is_empty() {
        return Vec::new();
    }
    let Ok(list) = Parser::new(&lines.join(&b", "[..])).parse::<List>() else { return Vec::new() };
    let (scheme, Some(authority)) = origin_of(uri, request) else { return Vec::new() };
    let name = |entry: &ListEntry| match entry {
        ListEntry::Item(item) => match &item.bare_item {
            BareItem::String(name) if name.as_str().len() <= MOST_CHARACTERS => {
                Some(name.as_str().to_owned())
            }
            _ => None,
        },
        ListEntry::InnerList(_) => None,
    };
    list.iter()
        .filter_map(name)
        .take(MOST_GROUPS)
        .map(|name| format!("group {scheme}://{authority} {name}"))
        .collect()
}
