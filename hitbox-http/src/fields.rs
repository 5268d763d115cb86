//! Fields that belong to a connection, and those that are stored.

use http::{HeaderMap, HeaderName, header};

use crate::directives::ResponseDirectives;
use crate::list;

/// Fields of one connection (RFC 9110, 7.6.1), beside those that `Connection` names.
const OF_A_CONNECTION: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Fields of one proxy and whoever asked it (RFC 9111, 3.1).
const OF_A_PROXY: [HeaderName; 3] = [
    header::PROXY_AUTHENTICATE,
    HeaderName::from_static("proxy-authentication-info"),
    header::PROXY_AUTHORIZATION,
];

/// Takes out the fields that belong to a connection, and those that `Connection` names.
pub fn remove_connection_fields(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> =
        list::names(headers, header::CONNECTION).filter_map(|name| name.parse().ok()).collect();
    for name in named.iter().chain(&OF_A_CONNECTION) {
        headers.remove(name);
    }
}

/// The fields of a response that are stored: not those of a connection or a proxy, nor what `no-cache` and `private` name. Lines that are
/// repeated stay repeated, in their order.
pub fn storable_fields(headers: &HeaderMap, directives: &ResponseDirectives) -> HeaderMap {
    let mut stored = headers.clone();
    remove_connection_fields(&mut stored);
    for name in OF_A_PROXY.iter().chain(&directives.fields) {
        stored.remove(name);
    }
    // It says what became of this request in caches nearer to the origin.
    stored.remove("cache-status");
    stored
}
