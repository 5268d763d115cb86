//! The origin of a request: scheme and authority (RFC 9110, 4.3.1), in one form.

use std::borrow::Cow;

use http::uri::{Authority, Parts, Scheme};
use http::{HeaderMap, Uri, header};

/// The scheme and authority of a request, both in lower case, without user and without the port that the scheme has anyway. The authority is
/// nothing if none is said, or what is said is none.
pub(crate) fn origin_of<'r>(uri: &'r Uri, request: &'r HeaderMap) -> (Cow<'r, str>, Option<Cow<'r, str>>) {
    let scheme = lower(uri.scheme_str().unwrap_or("http"));
    let of_uri = uri.authority().map(|said| without_user(said.as_str()));
    let authority = of_uri.or_else(|| authority_of(request)).map(|said| plain(&scheme, said));
    (scheme, authority)
}

/// The same URI with this scheme, absolute if it is not yet and the request says its host; nothing if that cannot be. A server behind TLS
/// is asked for `https` by HTTP/2, and for no scheme by HTTP/1.
pub fn with_scheme(uri: &Uri, request: &HeaderMap, scheme: &Scheme) -> Option<Uri> {
    let mut parts = Parts::from(uri.clone());
    if parts.authority.is_none() {
        parts.authority = Some(authority_of(request)?.parse().ok()?);
    }
    parts.scheme = Some(scheme.clone());
    Uri::from_parts(parts).ok()
}

/// The authority that a request says beside its URI.
fn authority_of(request: &HeaderMap) -> Option<&str> {
    let host = host_of(request)?;
    // A user has no place there.
    let is_authority = !host.contains(&b'@') && Authority::try_from(host).is_ok();
    std::str::from_utf8(host).ok().filter(|_| is_authority)
}

/// Whether a request says in its field `Host` another host than in its URI. Nobody knows then which of them its service goes by, so that its answer
/// is none for others (RFC 9112, 3.2.2, has proxies replace the field; RFC 9113, 8.3.1, takes such a request for malformed).
pub fn says_two_hosts(uri: &Uri, request: &HeaderMap) -> bool {
    let Some(authority) = uri.authority() else { return false };
    let scheme = lower(uri.scheme_str().unwrap_or("http"));
    let said = plain(&scheme, without_user(authority.as_str()));
    let mut lines = request.get_all(header::HOST).into_iter();
    lines.any(|line| line.to_str().map_or(true, |line| plain(&scheme, line) != said))
}

/// What a request says of its host, if it says it once.
pub(crate) fn host_of(request: &HeaderMap) -> Option<&[u8]> {
    let mut lines = request.get_all(header::HOST).into_iter();
    let (first, more) = (lines.next()?, lines.next());
    more.is_none().then_some(first.as_bytes())
}

fn without_user(authority: &str) -> &str {
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

fn plain<'r>(scheme: &str, host: &'r str) -> Cow<'r, str> {
    let usual = if scheme == "https" { ":443" } else { ":80" };
    lower(host.strip_suffix(usual).or_else(|| host.strip_suffix(':')).unwrap_or(host))
}

fn lower(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        Cow::Borrowed(text)
    }
}
