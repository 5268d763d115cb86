//! The readable form of a key, for logs and for Redis: `namespace/prefix:version:name=value:flag`.
//!
//! Bytes that could be read as structure, and those that do not print, are percent-encoded
//! (RFC 3986, section 2.1), so the readable form is as injective as the binary one.

use std::io::Write;

use super::{CacheKey, encode};

/// Appends the readable form, which is ASCII.
pub(super) fn write(key: &CacheKey, out: &mut Vec<u8>) {
    if key.is_reserved() {
        out.push(b'!');
    }
    // The encoding of a key is valid.
    let Ok(head) = encode::RawHead::parse(key.as_encoded()) else { return };
    if !head.namespace.is_empty() {
        escape(head.namespace, out);
        out.push(b'/');
    }
    escape(head.prefix, out);
    out.push(b':');
    match u8::try_from(head.version) {
        Ok(digit @ 0..10) => out.push(b'0' + digit),
        // Writing to a buffer in memory does not fail.
        _ => drop(write!(out, "{}", head.version)),
    }
    let mut rest = head.rest;
    while let Ok(Some(encode::RawPart { name, value })) = encode::RawPart::take(&mut rest) {
        out.push(b':');
        escape(name, out);
        if let Some(value) = value {
            out.push(b'=');
            escape(value, out);
        }
    }
}

/// Bytes that stand for themselves.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let structure = matches!(byte as u8, b'/' | b':' | b'=' | b'%' | b'!' | b'{' | b'}');
        plain[byte] = (byte as u8).is_ascii_graphic() && !structure;
        byte += 1;
    }
    plain
};

fn escape(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    if bytes.iter().all(|byte| PLAIN[usize::from(*byte)]) {
        return out.extend_from_slice(bytes);
    }
    for byte in bytes {
        if PLAIN[usize::from(*byte)] {
            out.push(*byte);
        } else {
            out.extend([b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
    }
}

/// Reads the readable form back.
pub(super) fn read(text: &[u8]) -> Option<CacheKey> {
    let (text, is_reserved) = match text.strip_prefix(b"!") {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let (namespace, rest) = match text.iter().position(|byte| *byte == b'/') {
        Some(at) => (unescape(&text[..at])?, &text[at + 1..]),
        None => (Vec::new(), text),
    };
    let mut fields = rest.split(|byte| *byte == b':');
    let (namespace, prefix) =
        (String::from_utf8(namespace).ok()?, String::from_utf8(unescape(fields.next()?)?).ok()?);
    let version = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let mut key = encode::CacheKeyBuilder::new(&namespace, &prefix).version(version);
    for field in fields {
        let mut halves = field.splitn(2, |byte| *byte == b'=');
        let name = String::from_utf8(unescape(halves.next()?)?).ok()?;
        key = match halves.next() {
            Some(value) => key.part_bytes(&name, &unescape(value)?),
            None => key.flag(&name),
        };
    }
    Some(if is_reserved { key.reserved().build() } else { key.build() })
}

fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => (digit(*rest.next()?)? * 16 + digit(*rest.next()?)?) as u8,
            byte => *byte,
        });
    }
    Some(bytes)
}
