//! Any value as text, in the order in which it is stored.

use std::fmt::{self, Write};

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Bytes of a value that is no text are shown up to here.
const MAX_BYTES: usize = 64;

/// A text without anything that a terminal would obey.
pub(super) fn text(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // What has no form of its own, or turns the direction of what follows.
            char if char.is_control() || is_invisible(char) => {
                let mut units = [0; 2];
                for unit in char.encode_utf16(&mut units) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            char => out.push(char),
        }
    }
    out.push('"');
    out
}

/// Marks of direction and joiners: they change how the rest of the line looks.
const fn is_invisible(char: char) -> bool {
    matches!(char, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Bytes, as a text if they are one.
pub(super) fn bytes(bytes: &[u8]) -> String {
    if let Ok(utf8) = std::str::from_utf8(bytes) {
        return text(utf8);
    }
    let head: String = bytes.iter().take(MAX_BYTES).map(|byte| format!("{byte:02x}")).collect();
    match bytes.len() {
        len if len > MAX_BYTES => format!("0x{head}… ({len} bytes)"),
        _ => format!("0x{head}"),
    }
}

/// A value as text.
pub(super) struct Shown(pub(super) String);

impl<'de> Deserialize<'de> for Shown {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Show).map(Self)
    }
}

struct Show;

impl<'de> Visitor<'de> for Show {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<String, E> {
        Ok(format!("{value:?}"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<String, E> {
        Ok(text(value))
    }

    fn visit_bytes<E: Error>(self, value: &[u8]) -> Result<String, E> {
        Ok(bytes(value))
    }

    fn visit_none<E: Error>(self) -> Result<String, E> {
        Ok("null".to_owned())
    }

    fn visit_unit<E: Error>(self) -> Result<String, E> {
        Ok("null".to_owned())
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<String, D::Error> {
        Shown::deserialize(inner).map(|inner| format!("Some({})", inner.0))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<String, D::Error> {
        Shown::deserialize(inner).map(|inner| inner.0)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<String, A::Error> {
        let mut out = String::from("[");
        while let Some(Shown(item)) = items.next_element()? {
            if out.len() > 1 {
                out.push_str(", ");
            }
            out.push_str(&item);
        }
        out.push(']');
        Ok(out)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<String, A::Error> {
        let mut out = String::from("{");
        while let Some((Shown(name), Shown(value))) = pairs.next_entry()? {
            if out.len() > 1 {
                out.push_str(", ");
            }
            let _ = write!(out, "{name}: {value}");
        }
        out.push('}');
        Ok(out)
    }
}
