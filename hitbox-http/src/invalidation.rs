//! What the answer to an unsafe request makes invalid (RFC 9111, 4.4).

use http::{HeaderMap, Method, StatusCode, Uri, header, uri};

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
    uris.dedup();
    uris
}

/// What a reference in a response means (RFC 3986, 5.2), if that is of the same origin.
fn resolve(base: &Uri, request: &HeaderMap, reference: &str) -> Option<Uri> {
    let reference = reference.split('#').next().unwrap_or_default();
    if reference.contains("://") {
        let absolute: Uri = reference.parse().ok()?;
        let host = request.get(header::HOST).and_then(|host| host.to_str().ok());
        let authority = base.authority().map(|authority| authority.as_str()).or(host)?;
        let scheme = base.scheme_str().unwrap_or("http");
        let same_origin =
            absolute.authority().is_some_and(|own| own.as_str().eq_ignore_ascii_case(authority))
                && absolute.scheme_str().is_some_and(|own| own.eq_ignore_ascii_case(scheme));
        return same_origin.then_some(absolute);
    }
    if reference.starts_with("//") || reference.is_empty() {
        return None;
    }
    let (path, query) =
        reference.split_once('?').map_or((reference, None), |(path, query)| (path, Some(query)));
    let path = match path {
        "" => base.path().to_owned(),
        path if path.starts_with('/') => without_dots(path),
        path => {
            let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
            without_dots(&format!("{folder}/{path}"))
        }
    };
    let path_and_query = query.map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
    let mut parts = uri::Parts::from(base.clone());
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
