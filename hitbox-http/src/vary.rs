//! Which fields of a request a response depends on (RFC 9111, 4.1).

use http::{HeaderMap, HeaderName, header};

use crate::list;

/// Fields whose values mean the same in any case.
const ANY_CASE: [HeaderName; 3] = [header::ACCEPT_LANGUAGE, header::ACCEPT_ENCODING, header::ACCEPT_CHARSET];

/// The fields of requests that a response depends on, in one order whatever `Vary` has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Vary(Vec<HeaderName>);

/// What a request has in the fields that a response depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VaryKey(Vec<(HeaderName, Option<Vec<u8>>)>);

impl Vary {
    /// What the `Vary` of a response says; nothing if it has `*`, or a name that is none: then no other request is like the one that it
    /// answers.
    pub fn of(response: &HeaderMap) -> Option<Self> {
        let names: Option<Vec<HeaderName>> = list::names(response, header::VARY)
            .map(|name| if name == "*" { None } else { name.parse().ok() })
            .collect();
        names.map(Self::new)
    }

    /// These fields.
    pub fn new(names: impl IntoIterator<Item = HeaderName>) -> Self {
        let mut names: Vec<HeaderName> = names.into_iter().collect();
        names.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
        names.dedup();
        Self(names)
    }

    /// Whether a response does not depend on any field.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Their names, separated by commas.
    pub fn to_text(&self) -> String {
        self.0.iter().map(HeaderName::as_str).collect::<Vec<_>>().join(",")
    }

    /// The fields that [`to_text`](Self::to_text) has named; nothing if it is another text.
    pub fn from_text(text: &str) -> Option<Self> {
        let names = text.split(',').filter(|name| !name.is_empty()).map(|name| name.parse().ok());
        names.collect::<Option<Vec<_>>>().map(Self::new)
    }

    /// What a request has in these fields.
    pub fn key(&self, request: &HeaderMap) -> VaryKey {
        VaryKey(self.0.iter().map(|name| (name.clone(), normalized(request, name))).collect())
    }
}

impl VaryKey {
    /// Each field with its value, or nothing if the request does not have it.
    pub fn fields(&self) -> impl Iterator<Item = (&HeaderName, Option<&[u8]>)> {
        self.0.iter().map(|(name, value)| (name, value.as_deref()))
    }
}

/// The value of a field in one form: lines joined, and no spaces around commas. The order of members stays: some origins take the first
/// language for the one that is liked best.
fn normalized(request: &HeaderMap, name: &HeaderName) -> Option<Vec<u8>> {
    let mut lines = request.get_all(name).into_iter().peekable();
    lines.peek()?;
    let mut joined: Vec<u8> = Vec::new();
    for line in lines {
        for member in split(line.as_bytes()) {
            if !joined.is_empty() {
                joined.push(b',');
            }
            joined.extend_from_slice(member);
        }
    }
    if ANY_CASE.contains(name) {
        joined.make_ascii_lowercase();
    }
    Some(joined)
}

/// What stands between commas that are not quoted, without the spaces around it.
fn split(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let members = line.split(move |byte| {
        let was_escaped = std::mem::take(&mut is_escaped);
        match byte {
            b'\\' if is_quoted && !was_escaped => is_escaped = true,
            b'"' if !was_escaped => is_quoted = !is_quoted,
            b',' => return !is_quoted,
            _ => {}
        }
        false
    });
    members.map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}
