//! Lists of names that are separated by commas, with or without arguments. Read tolerantly, as RFC 9110, 5.6.1 asks: empty members,
//! spaces and any case are no errors.

use http::HeaderMap;
use http::header::AsHeaderName;

/// What a member of a list says after its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Argument {
    None,
    Text(String),
    /// It is there, and cannot be read.
    Invalid,
}

/// A member: its name in lower case, and its argument.
pub(crate) type Member = (String, Argument);

/// The members of all lines of a field.
pub(crate) fn members(headers: &HeaderMap, name: impl AsHeaderName) -> impl Iterator<Item = Member> {
    headers.get_all(name).into_iter().flat_map(|line| Members { rest: line.as_bytes() })
}

/// Names alone, in lower case.
pub(crate) fn names(headers: &HeaderMap, name: impl AsHeaderName) -> impl Iterator<Item = String> {
    members(headers, name).map(|(name, _)| name)
}

/// Reads a line.
pub(crate) struct Members<'a> {
    pub(crate) rest: &'a [u8],
}

fn is_space(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl<'a> Members<'a> {
    /// What stands before a byte that ends it, which stays.
    fn until(&mut self, ends: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.rest.iter().position(|byte| ends(*byte)).unwrap_or(self.rest.len());
        let (found, rest) = self.rest.split_at(end);
        self.rest = rest;
        found
    }

    fn argument(&mut self) -> Argument {
        if self.rest.first() != Some(&b'"') {
            let token = self.until(|byte| byte == b',').trim_ascii_end();
            // A space after "=" is no part of any grammar: nobody can tell what was meant.
            let is_odd = token.is_empty() || token.iter().any(|byte| is_space(*byte) || *byte == b'"');
            return if is_odd { Argument::Invalid } else { Argument::Text(text(token)) };
        }
        let mut quoted = Vec::new();
        let mut bytes = self.rest[1..].iter();
        loop {
            match bytes.next() {
                Some(b'"') => break,
                Some(b'\\') => quoted.extend(bytes.next()),
                Some(byte) => quoted.push(*byte),
                None => {
                    self.rest = &[];
                    return Argument::Invalid;
                }
            }
        }
        self.rest = bytes.as_slice();
        let after = self.until(|byte| byte == b',').trim_ascii();
        if after.is_empty() { Argument::Text(text(&quoted)) } else { Argument::Invalid }
    }
}

impl Iterator for Members<'_> {
    type Item = Member;

    fn next(&mut self) -> Option<Member> {
        loop {
            self.until(|byte| !is_space(byte) && byte != b',');
            if self.rest.is_empty() {
                return None;
            }
            if self.rest[0] == b'"' {
                // A string where a name should be: it is passed over, and with it what it contains.
                self.argument();
                continue;
            }
            let written = self.until(|byte| byte == b',' || byte == b'=');
            let name = text(written.trim_ascii_end()).to_ascii_lowercase();
            let mut argument = Argument::None;
            if self.rest.first() == Some(&b'=') {
                self.rest = &self.rest[1..];
                argument = self.argument();
                if written.last().is_some_and(|byte| is_space(*byte)) {
                    argument = Argument::Invalid;
                }
            }
            return Some((name, argument));
        }
    }
}
