//! What the answer to an unsafe request makes invalid (RFC 9111, 4.4).

use http::uri::{self, Authority};
use http::{HeaderMap, Method, StatusCode, Uri, header};

use crate::origin::{origin_of, says_two_hosts};

/// Whether a method may change something. One that is not known may.
pub fn is_unsafe(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
}

/// The URIs of the same origin whose responses a successful answer makes invalid: the one that was asked, and those that `Location` and
/// `Content-Location` name. None if the method is safe, or the answer is an error.
pub fn invalidated_uris(
    method: &Method,
    asked: &Uri,
    request: &HeaderMap,
    status: StatusCode,
    response: &HeaderMap,
) -> Vec<Uri> {
    let is_success = status.is_success() || status.is_redirection();
    if !is_unsafe(method) || !is_success {
        return Vec::new();
    }
    let mut uris = vec![asked.clone()];
    for name in [header::LOCATION, header::CONTENT_LOCATION] {
        let reference = response.get(name).and_then(|value| value.to_str().ok());
        uris.extend(reference.and_then(|reference| resolve(asked, request, reference.trim())));
    }
    // A request that says two hosts may have changed what either has.
    if says_two_hosts(asked, request) {
        let hosts =
            request.get_all(header::HOST).into_iter().filter_map(|host| host.as_bytes().try_into().ok());
        let of_hosts: Vec<Uri> =
            hosts.flat_map(|host| uris.iter().filter_map(move |uri| with_authority(uri, &host))).collect();
        uris.extend(of_hosts);
    }
    uris.dedup();
    uris
}

fn with_authority(of: &Uri, authority: &Authority) -> Option<Uri> {
    let mut parts = uri::Parts::from(of.clone());
    parts.authority = Some(authority.clone());
    Uri::from_parts(parts).ok()
}

/// What a reference in a response means (RFC 3986, 5.2), if that is of the same origin.
fn resolve(base: &Uri, request: &HeaderMap, reference: &str) -> Option<Uri> {
    let reference = reference.split('#').next().unwrap_or_default();
    let (scheme, rest) = match reference.split_once(':') {
        Some((scheme, rest)) if is_scheme(scheme) => (Some(scheme), rest),
        _ => (None, reference),
    };
    if let Some(after) = rest.strip_prefix("//") {
        let own = origin_of(base, request);
        let scheme = scheme.unwrap_or(&own.0);
        let absolute: Uri = format!("{scheme}://{after}").parse().ok()?;
        let is_same = own.1.is_some() && origin_of(&absolute, &HeaderMap::new()) == own;
        return is_same
            .then(|| with_path(&absolute, &without_dots(absolute.path()), absolute.query()))
            .flatten();
    }
    // Another scheme, or one without an authority, is another origin.
    if scheme.is_some() || rest.is_empty() {
        return None;
    }
    let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
    let path = match path {
        "" => base.path().to_owned(),
        path if path.starts_with('/') => without_dots(path),
        path => {
            let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
            without_dots(&format!("{folder}/{path}"))
        }
    };
    with_path(base, &path, query)
}

/// RFC 3986, 3.1.
fn is_scheme(text: &str) -> bool {
    let rest = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    text.starts_with(|first: char| first.is_ascii_alphabetic()) && text.bytes().all(rest)
}

fn with_path(of: &Uri, path: &str, query: Option<&str>) -> Option<Uri> {
    let path_and_query = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let mut parts = uri::Parts::from(of.clone());
    parts.path_and_query = Some(path_and_query.parse().ok()?);
    Uri::from_parts(parts).ok()
}

/// A path without its segments `.` and `..`.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    for (place, segment) in segments.iter().enumerate() {
        let is_last = place + 1 == segments.len();
        match *segment {
            "." | ".." => {
                if *segment == ".." {
                    kept.pop();
                }
                if is_last {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}
