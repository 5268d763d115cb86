//! The origin of a request: scheme and authority (RFC 9110, 4.3.1), in one form.

use http::uri::Authority;
use http::{HeaderMap, Uri, header};

/// The scheme and authority of a request, both in lower case, without user and without the port that the scheme has anyway. The authority is
/// nothing if none is said, or what is said is none.
pub(crate) fn origin_of(uri: &Uri, request: &HeaderMap) -> (String, Option<String>) {
    let scheme = uri.scheme_str().unwrap_or("http").to_ascii_lowercase();
    let authority = match uri.authority() {
        Some(authority) => Some(plain(&scheme, authority)),
        None => {
            let host = host_of(request).and_then(|host| Authority::try_from(host).ok());
            // A user has no place there.
            host.filter(|host| !host.as_str().contains('@')).map(|host| plain(&scheme, &host))
        }
    };
    (scheme, authority)
}

/// What a request says of its host, if it says it once.
pub(crate) fn host_of(request: &HeaderMap) -> Option<&[u8]> {
    let mut lines = request.get_all(header::HOST).into_iter();
    let (first, more) = (lines.next()?, lines.next());
    more.is_none().then_some(first.as_bytes())
}

fn plain(scheme: &str, authority: &Authority) -> String {
    let text = authority.as_str();
    let mut text = text.rsplit_once('@').map_or(text, |(_, host)| host).to_ascii_lowercase();
    let usual = if scheme == "https" { ":443" } else { ":80" };
    if text.ends_with(usual) {
        text.truncate(text.len() - usual.len());
    } else if text.ends_with(':') {
        text.pop();
    }
    text
}
