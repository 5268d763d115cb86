//! The readable form of a key, for logs and for Redis: `namespace/prefix:version:name=value:flag`.
//!
//! Bytes that could be read as structure, and those that do not print, are percent-encoded
//! (RFC 3986, section 2.1), so the readable form is as injective as the binary one.

use std::fmt::{self, Write};

use super::CacheKey;

pub(super) fn write(key: &CacheKey, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if key.is_reserved() {
        f.write_char('!')?;
    }
    if !key.namespace().is_empty() {
        escape(key.namespace().as_bytes(), f)?;
        f.write_char('/')?;
    }
    escape(key.prefix().as_bytes(), f)?;
    write!(f, ":{}", key.version())?;
    for part in key.parts() {
        f.write_char(':')?;
        escape(part.name.as_bytes(), f)?;
        if let Some(value) = part.value {
            f.write_char('=')?;
            escape(value, f)?;
        }
    }
    Ok(())
}

fn escape(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let plain = |b: &u8| b.is_ascii_graphic() && !b"/:=%!{}".contains(b);
    let mut rest = bytes;
    while !rest.is_empty() {
        let run = rest.iter().take_while(|b| plain(b)).count();
        let (head, tail) = rest.split_at(run);
        // Graphic ASCII is valid UTF-8.
        f.write_str(std::str::from_utf8(head).map_err(|_| fmt::Error)?)?;
        rest = tail;
        if let Some((byte, tail)) = rest.split_first() {
            write!(f, "%{byte:02X}")?;
            rest = tail;
        }
    }
    Ok(())
}
