//! Keys of responses: what of a request tells one resource from another.

use hitbox_core::{CacheKey, CacheKeyBuilder};
use http::{HeaderMap, HeaderName, Uri, header};
use percent_encoding::percent_decode_str;

use crate::origin::origin_of;
use crate::vary::{Vary, VaryKey};

/// What of a request the key consists of: by default scheme, authority, path and query, all as they are. Methods are no part of it.
///
/// ```
/// # use hitbox_http::KeyRules;
/// # use http::{HeaderMap, Uri};
/// let rules = KeyRules::default().query(["page"]).cookie("currency");
/// let key = |uri: &'static str| rules.key("shop", &Uri::from_static(uri), &HeaderMap::new());
/// assert_eq!(key("http://a/items?page=2&utm_source=mail"), key("http://a/items?page=2"));
/// assert_ne!(key("http://a/items?page=2"), key("http://a/items?page=3"));
/// ```
#[derive(Clone, Debug, Default)]
pub struct KeyRules {
    query: Query,
    headers: Vec<HeaderName>,
    cookies: Vec<String>,
}

/// The name of a parameter as those who read it have it.
fn decoded(written: &str) -> String {
    let spaced = written.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
}

/// Which parameters of a query count.
#[derive(Clone, Debug, Default)]
enum Query {
    #[default]
    All,
    Only(Vec<String>),
    AllBut(Vec<String>),
}

impl Query {
    /// Whether a parameter counts, by its name as it is written.
    fn takes(&self, written: &str) -> bool {
        let name = decoded(written);
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(&name),
            Self::AllBut(names) => !names.contains(&name),
        }
    }
}

impl KeyRules {
    /// Of the query these parameters alone, chosen by their names as they are decoded; the key has names and values as they are written. Their order counts no more, unless one is there more than once. Default: all of it.
    #[must_use]
    pub fn query<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.query = Query::Only(names.into_iter().map(Into::into).collect());
        self
    }

    /// Of the query all but these parameters. The order of the others counts no more, unless one is there more than once. Default: all of it.
    #[must_use]
    pub fn ignore_query<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.query = Query::AllBut(names.into_iter().map(Into::into).collect());
        self
    }

    /// Also this field of the request.
    #[must_use]
    pub fn header(mut self, name: HeaderName) -> Self {
        self.headers.push(name);
        self
    }

    /// Also this cookie.
    #[must_use]
    pub fn cookie(mut self, name: impl Into<String>) -> Self {
        self.cookies.push(name.into());
        self
    }

    /// Whether nothing but the URI counts, and all of it.
    pub fn is_of_uri_alone(&self) -> bool {
        matches!(self.query, Query::All) && self.headers.is_empty() && self.cookies.is_empty()
    }

    /// The same rules for the URI, and nothing else.
    #[must_use]
    pub fn of_uri(&self) -> Self {
        Self { query: self.query.clone(), ..Self::default() }
    }

    /// The key of a request for this URI with these fields. Keys of different prefixes are never the same.
    pub fn key(&self, prefix: &str, uri: &Uri, request: &HeaderMap) -> CacheKey {
        self.key_with(prefix, uri, request, &[])
    }

    /// The same with further parts, each with a name: a part that has no value is another than one that is empty.
    pub fn key_with(
        &self,
        prefix: &str,
        uri: &Uri,
        request: &HeaderMap,
        parts: &[(&str, Option<String>)],
    ) -> CacheKey {
        let mut key = CacheKey::builder(prefix);
        push_uri(&mut key, uri, request, &self.query);
        if !self.headers.is_empty() {
            push_fields(&mut key, "header:", &Vary::new(self.headers.iter().cloned()).key(request));
        }
        for cookie in &self.cookies {
            let (name, mut values) = (format!("cookie:{cookie}"), cookies_of(request, cookie).peekable());
            if values.peek().is_none() {
                key.push(&name, None);
            }
            // Of several some services take the first, and others the last.
            values.for_each(|value| key.push(&name, Some(value)));
        }
        for (name, value) in parts {
            key.push(&format!("part:{name}"), value.as_deref().map(str::as_bytes));
        }
        key.build()
    }
}

impl VaryKey {
    /// The key of the variant that this request would have, of a resource with this key. `edition` tells apart what was known under the key
    /// at different times.
    pub fn of_variant(&self, primary: &CacheKey, edition: u64) -> CacheKey {
        let mut key = CacheKey::builder(primary.prefix()).version(primary.version());
        for part in primary.parts() {
            key.push(part.name, part.value);
        }
        key.push("edition", Some(format!("{edition:016x}").as_bytes()));
        push_fields(&mut key, "vary:", self);
        key.build()
    }
}

fn push_fields(key: &mut CacheKeyBuilder, kind: &str, fields: &VaryKey) {
    for (name, value) in fields.fields() {
        key.push(&format!("{kind}{name}"), value);
    }
}

/// The part that is the URL, put together of these. Keys are matched by parts between colons, and a URL has colons of its own: each is written
/// as a space, which no URL has.
fn push_url(key: &mut CacheKeyBuilder, pieces: &[&str]) {
    key.push_in_pieces("url", pieces, (b':', b' '));
}

/// The pattern of keys whose URL is like this one: `*` is any text, and all else itself.
pub fn url_pattern(url: &str) -> String {
    let mut pattern = String::with_capacity(url.len() + 3);
    for found in url.chars() {
        match found {
            ':' => pattern.push(' '),
            '?' | '\\' => pattern.extend(['\\', found]),
            found => pattern.push(found),
        }
    }
    // Behind the URL stand other parts of the key, if it has any.
    pattern.push_str(":**");
    pattern
}

/// Scheme and authority in one form, path, and query.
fn push_uri(key: &mut CacheKeyBuilder, uri: &Uri, request: &HeaderMap, rules: &Query) {
    let (scheme, authority) = origin_of(uri, request);
    if authority.is_none() {
        // Whatever is said of the host, it is no part of a text in which it could be taken for a path.
        for line in request.get_all(header::HOST) {
            key.push("host", Some(line.as_bytes()));
        }
    }
    let authority = authority.unwrap_or_default();
    let path = if uri.path().is_empty() { "/" } else { uri.path() };
    match (rules, uri.query()) {
        (Query::All, Some(query)) => push_url(key, &[&scheme, "://", &authority, path, "?", query]),
        (Query::All, None) => push_url(key, &[&scheme, "://", &authority, path]),
        (rules, query) => {
            push_url(key, &[&scheme, "://", &authority, path]);
            let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
            let pairs = pairs.map(|pair| pair.split_once('=').map_or((pair, None), |(n, v)| (n, Some(v))));
            let mut pairs: Vec<(&str, Option<&str>)> = pairs.filter(|(name, _)| rules.takes(name)).collect();
            // A stable order: what is there more than once stays in its own.
            pairs.sort_by_cached_key(|(name, _)| decoded(name));
            for (name, value) in pairs {
                key.push(&format!("query:{name}"), value.map(str::as_bytes));
            }
        }
    }
}

/// The values of a cookie, in their order.
fn cookies_of<'h>(request: &'h HeaderMap, name: &str) -> impl Iterator<Item = &'h [u8]> {
    let lines = request.get_all(header::COOKIE).into_iter();
    let pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs.filter_map(move |pair| {
        let (found, value) = pair.split_at(pair.iter().position(|byte| *byte == b'=')?);
        (found.trim_ascii() == name.as_bytes()).then(|| value[1..].trim_ascii())
    })
}
