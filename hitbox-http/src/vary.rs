//! Which fields of a request a response depends on (RFC 9111, 4.1).

use http::{HeaderMap, HeaderName, header};

/// Fields whose values mean the same in any case.
const ANY_CASE: [HeaderName; 3] = [header::ACCEPT_LANGUAGE, header::ACCEPT_ENCODING, header::ACCEPT_CHARSET];
/// Fields that are lists, in which members without text mean nothing (RFC 9110, 5.6.1).
const LISTS: [HeaderName; 5] =
    [header::ACCEPT, header::ACCEPT_LANGUAGE, header::ACCEPT_ENCODING, header::ACCEPT_CHARSET, header::TE];

/// The fields of requests that a response depends on, in one order whatever `Vary` has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Vary(Vec<HeaderName>);

/// What a request has in the fields that a response depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VaryKey(Vec<(HeaderName, Option<Vec<u8>>)>);

/// "*" is a name as any other for those who make names, and none here.
fn name_of(member: &[u8]) -> Option<HeaderName> {
    HeaderName::from_bytes(member).ok().filter(|name| name != "*")
}

impl Vary {
    /// What the `Vary` of a response says; nothing if it has `*`, or a name that is none: then no other request is like the one that it
    /// answers.
    pub fn of(response: &HeaderMap) -> Option<Self> {
        let lines = response.get_all(header::VARY).into_iter();
        let members =
            lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
        let names: Option<Vec<_>> = members.filter(|member| !member.is_empty()).map(name_of).collect();
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
        let names = text.split(',').filter(|name| !name.is_empty());
        names.map(|name| name_of(name.as_bytes())).collect::<Option<Vec<_>>>().map(Self::new)
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
    let (mut joined, mut is_first) = (Vec::new(), true);
    let is_list = LISTS.contains(name);
    // Cookies may come in one line or several (RFC 9113, 8.2.3), and commas are nothing in them.
    let is_cookie = name == header::COOKIE;
    for line in lines {
        let members: Box<dyn Iterator<Item = &[u8]>> = if is_cookie {
            Box::new(line.as_bytes().split(|byte| *byte == b';').map(<[u8]>::trim_ascii))
        } else {
            // Of any other field nobody knows here what a comma means in it.
            Box::new(split(line.as_bytes()).filter(|member| !is_list || !member.is_empty()))
        };
        for member in members {
            if !std::mem::take(&mut is_first) {
                joined.push(if is_cookie { b';' } else { b',' });
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
    members.map(<[u8]>::trim_ascii)
}
