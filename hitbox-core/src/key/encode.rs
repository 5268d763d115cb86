//! The binary form of a key:
//!
//! ```text
//! space u8 · namespace (u32 length, bytes) · prefix (u32 length, bytes) · version u32 ·
//! parts: 1 name | 2 name value     (name, value: u32 length, bytes)
//! ```
//! Integers are little-endian. Every field carries its length, so no two keys share an encoding.

use std::borrow::Cow;
use std::fmt::{self, Display, Write};

use super::CacheKey;
use super::buffer::Buffer;

const USER: u8 = 0;
pub(super) const RESERVED: u8 = 1;
const NAME_ONLY: u8 = 1;
const NAME_AND_VALUE: u8 = 2;

/// Builds a [`CacheKey`]: one allocation for a key of up to 192 bytes.
#[derive(Debug)]
pub struct CacheKeyBuilder {
    encoded: Buffer,
    version_at: usize,
}

impl CacheKeyBuilder {
    #[inline]
    pub(super) fn new(namespace: &str, prefix: &str) -> Self {
        // Built in place, not moved.
        let mut key = Self { encoded: Buffer::new(), version_at: 0 };
        key.encoded.append(&[USER]);
        field(&mut key.encoded, namespace.as_bytes());
        field(&mut key.encoded, prefix.as_bytes());
        key.version_at = key.encoded.len();
        key.encoded.append(&[0; 4]);
        key
    }

    /// The version of the key's shape: raise it when parts change their meaning.
    pub fn version(mut self, version: u32) -> Self {
        self.encoded[self.version_at..self.version_at + 4].copy_from_slice(&version.to_le_bytes());
        self
    }

    /// A named part with a value, rendered as text.
    pub fn part(mut self, name: &str, value: impl Display) -> Self {
        self.encoded.append(&[NAME_AND_VALUE]);
        field(&mut self.encoded, name.as_bytes());
        let length_at = self.encoded.len();
        self.encoded.append(&[0; 4]);
        // Writing to a buffer in memory does not fail; a `Display` that reports an error has written
        // what it could, and its length is what counts.
        let _ = write!(Text(&mut self.encoded), "{value}");
        let length = (self.encoded.len() - length_at - 4) as u32;
        self.encoded[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
        self
    }

    /// A named part with a value of any bytes.
    #[inline]
    pub fn part_bytes(mut self, name: &str, value: &[u8]) -> Self {
        self.push(name, Some(value));
        self
    }

    /// A named part with these bytes for its value, if it has one. In place: a builder is large, and whoever moves it for each part pays for it.
    #[inline]
    #[doc(hidden)]
    pub fn push(&mut self, name: &str, value: Option<&[u8]>) {
        self.encoded.append(&[if value.is_some() { NAME_AND_VALUE } else { NAME_ONLY }]);
        field(&mut self.encoded, name.as_bytes());
        if let Some(value) = value {
            field(&mut self.encoded, value);
        }
    }

    /// The same with a value that is these pieces, one after the other, with one byte in the place of another.
    #[doc(hidden)]
    pub fn push_in_pieces(&mut self, name: &str, pieces: &[&str], (replaced, by): (u8, u8)) {
        self.encoded.append(&[NAME_AND_VALUE]);
        field(&mut self.encoded, name.as_bytes());
        let length: usize = pieces.iter().map(|piece| piece.len()).sum();
        self.encoded.append(&(length as u32).to_le_bytes());
        let start = self.encoded.len();
        pieces.iter().for_each(|piece| self.encoded.append(piece.as_bytes()));
        self.encoded[start..].iter_mut().filter(|byte| **byte == replaced).for_each(|byte| *byte = by);
    }

    /// A named part without a value, which differs from one with an empty value.
    pub fn flag(mut self, name: &str) -> Self {
        self.push(name, None);
        self
    }

    /// A named part with a value if there is one.
    pub fn part_option(self, name: &str, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.part(name, value),
            None => self.flag(name),
        }
    }

    /// Makes this one of the framework's own keys, which no user's key equals.
    #[doc(hidden)]
    pub fn reserved(mut self) -> Self {
        self.encoded[0] = RESERVED;
        self
    }

    /// The key.
    #[inline]
    pub fn build(self) -> CacheKey {
        CacheKey::from_valid(&self.encoded)
    }
}

struct Text<'a>(&'a mut Buffer);

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.append(text.as_bytes());
        Ok(())
    }
}

#[inline]
fn field(into: &mut Buffer, bytes: &[u8]) {
    into.append(&(bytes.len() as u32).to_le_bytes());
    into.append(bytes);
}

pub(super) fn in_namespace(key: &CacheKey, namespace: &str) -> CacheKey {
    if namespace.is_empty() {
        return key.clone();
    }
    let (outer, inner) = (escaped(namespace), head(&key.encoded).namespace);
    let separator: &[u8] = if inner.is_empty() { b"" } else { b"/" };
    let mut encoded = Buffer::new();
    encoded.append(&key.encoded[..1]);
    let length = outer.len() + separator.len() + inner.len();
    encoded.append(&(length as u32).to_le_bytes());
    for part in [outer.as_bytes(), separator, inner.as_bytes()] {
        encoded.append(part);
    }
    // What stands behind the namespace stays.
    encoded.append(&key.encoded[1 + 4 + inner.len()..]);
    CacheKey::from_valid(&encoded)
}

fn escaped(name: &str) -> Cow<'_, str> {
    if name.contains(['%', '/']) {
        Cow::Owned(name.replace('%', "%25").replace('/', "%2F"))
    } else {
        Cow::Borrowed(name)
    }
}

/// The path of a namespace within another. Segments are escaped and joined with a slash: `a` around `b` differs from
/// `a/b`.
pub(super) fn join_namespace(outer: &str, path: &str) -> String {
    if outer.is_empty() {
        return path.to_owned();
    }
    let mut joined = escaped(outer).into_owned();
    if !path.is_empty() {
        joined.push('/');
        joined.push_str(path);
    }
    joined
}

/// The key with this path for its namespace.
pub(super) fn with_namespace(key: &CacheKey, path: &str) -> CacheKey {
    let inner = head(&key.encoded);
    let mut builder = CacheKeyBuilder::new(path, inner.prefix).version(inner.version);
    builder.encoded[0] = key.encoded[0];
    builder.encoded.append(inner.rest);
    builder.build()
}

/// One part of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyPart<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its value, if it has one.
    pub value: Option<&'a [u8]>,
}

/// The bytes are not the encoding of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyError;

impl Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an encoded cache key")
    }
}

impl std::error::Error for KeyError {}

/// Whether the field behind the first byte, the namespace, has any bytes.
#[inline]
pub(super) fn has_namespace(encoded: &[u8]) -> bool {
    encoded.get(1..5) != Some(&[0; 4])
}

pub(super) struct Head<'a> {
    pub(super) namespace: &'a str,
    pub(super) prefix: &'a str,
    pub(super) version: u32,
    pub(super) rest: &'a [u8],
}

pub(super) fn with_version(key: &CacheKey, version: u32) -> CacheKey {
    let mut encoded = Buffer::new();
    encoded.append(key.as_encoded());
    let version_at = encoded.len() - head(&encoded).rest.len() - 4;
    encoded[version_at..version_at + 4].copy_from_slice(&version.to_le_bytes());
    CacheKey::from_valid(&encoded)
}

/// The fixed fields of an encoding that is known to be valid.
pub(super) fn head(encoded: &[u8]) -> Head<'_> {
    parse_head(encoded).unwrap_or(Head { namespace: "", prefix: "", version: 0, rest: &[] })
}

pub(super) fn parts(mut rest: &[u8]) -> impl Iterator<Item = KeyPart<'_>> {
    std::iter::from_fn(move || parse_part(&mut rest).ok().flatten())
}

pub(super) fn validate(encoded: &[u8]) -> Result<(), KeyError> {
    let mut rest = parse_head(encoded)?.rest;
    while parse_part(&mut rest)?.is_some() {}
    Ok(())
}

fn parse_head(encoded: &[u8]) -> Result<Head<'_>, KeyError> {
    let RawHead { namespace, prefix, version, rest } = RawHead::parse(encoded)?;
    Ok(Head { namespace: text(namespace)?, prefix: text(prefix)?, version, rest })
}

fn parse_part<'a>(rest: &mut &'a [u8]) -> Result<Option<KeyPart<'a>>, KeyError> {
    let Some(RawPart { name, value }) = RawPart::take(rest)? else { return Ok(None) };
    Ok(Some(KeyPart { name: text(name)?, value }))
}

/// The fixed fields of an encoding, whose texts nobody looks at.
pub(super) struct RawHead<'a> {
    pub(super) namespace: &'a [u8],
    pub(super) prefix: &'a [u8],
    pub(super) version: u32,
    pub(super) rest: &'a [u8],
}

impl<'a> RawHead<'a> {
    pub(super) fn parse(encoded: &'a [u8]) -> Result<Self, KeyError> {
        let (&space, mut rest) = encoded.split_first().ok_or(KeyError)?;
        if space != USER && space != RESERVED {
            return Err(KeyError);
        }
        let (namespace, prefix) = (take_field(&mut rest)?, take_field(&mut rest)?);
        let version = take_u32(&mut rest)?;
        Ok(Self { namespace, prefix, version, rest })
    }
}

/// A part whose name nobody looks at.
pub(super) struct RawPart<'a> {
    pub(super) name: &'a [u8],
    pub(super) value: Option<&'a [u8]>,
}

impl<'a> RawPart<'a> {
    /// The next part.
    pub(super) fn take(rest: &mut &'a [u8]) -> Result<Option<Self>, KeyError> {
        let Some((&tag, after)) = rest.split_first() else { return Ok(None) };
        *rest = after;
        let name = take_field(rest)?;
        let value = match tag {
            NAME_ONLY => None,
            NAME_AND_VALUE => Some(take_field(rest)?),
            _ => return Err(KeyError),
        };
        Ok(Some(Self { name, value }))
    }
}

fn text(bytes: &[u8]) -> Result<&str, KeyError> {
    std::str::from_utf8(bytes).map_err(|_| KeyError)
}

fn take_u32(rest: &mut &[u8]) -> Result<u32, KeyError> {
    let (bytes, after) = rest.split_first_chunk::<4>().ok_or(KeyError)?;
    *rest = after;
    Ok(u32::from_le_bytes(*bytes))
}

fn take_field<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], KeyError> {
    let length = take_u32(rest)? as usize;
    let (bytes, after) = rest.split_at_checked(length).ok_or(KeyError)?;
    *rest = after;
    Ok(bytes)
}
