//! The start of an object: its head, its key, and its entry without the payload.

use std::fs::File;
use std::io::{self, Read};
use std::time::SystemTime;

use hitbox_backend::core::{CacheKey, CacheValue, ScopeKind};
use hitbox_backend::envelope::wire;

use crate::index::Class;
use crate::object::{HEAD_BYTES, Head, Newer};

/// What an object says without its payload, which is not verified.
#[derive(Debug)]
pub(crate) struct Start {
    /// The encoding of its key.
    pub(crate) key: Vec<u8>,
    pub(crate) entry: CacheValue<()>,
    /// Header and attributes of its record; nothing if they are of no use to this release.
    pub(crate) record: Vec<u8>,
    /// The schema version of its record.
    pub(crate) schema: u32,
    /// The length of the file.
    pub(crate) bytes: u64,
    pub(crate) modified: Option<SystemTime>,
}

/// What a file turned out to be.
#[derive(Debug)]
pub(crate) enum Look {
    Entry(Start),
    Newer,
    Damaged,
}

impl Start {
    /// Reads the start of a file.
    pub(crate) fn read(file: File) -> io::Result<Look> {
        let metadata = file.metadata()?;
        Ok(match Self::parse(file) {
            Look::Entry(start) => {
                let (bytes, modified) = (metadata.len(), metadata.modified().ok());
                Look::Entry(Self { bytes, modified, ..start })
            }
            other => other,
        })
    }

    /// The same for the bytes of one. What cannot be read counts as not there.
    pub(crate) fn parse(mut file: impl Read) -> Look {
        let mut start = vec![0; HEAD_BYTES];
        if file.read_exact(&mut start).is_err() {
            return Look::Damaged;
        }
        let head = match Head::parse(&start) {
            Ok(Some(head)) => head,
            Ok(None) => return Look::Damaged,
            Err(Newer) => return Look::Newer,
        };
        let mut key = Vec::new();
        let read_key = Read::by_ref(&mut file).take(head.key_len as u64).read_to_end(&mut key);
        if read_key.is_ok() && !head.verifies(&start, &key) {
            return Look::Damaged;
        }
        let mut record = Vec::with_capacity(wire::HEADER_BYTES);
        let mut read = read_key.and_then(|_| grow(&mut file, &mut record, wire::HEADER_BYTES));
        if let Some(Err(wanted)) = wire::peek(&record) {
            read = read.and_then(|_| grow(&mut file, &mut record, wanted));
        }
        let schema = wire::schema_of(&record).unwrap_or(0);
        let entry = match (read, wire::peek(&record)) {
            (Ok(_), Some(Ok(entry))) => entry,
            _ if record.len() < wire::HEADER_BYTES => return Look::Damaged,
            // Of no use to this release, and left as it is.
            _ => {
                record.clear();
                CacheValue::new(())
            }
        };
        Look::Entry(Self { key, entry, record, schema, bytes: 0, modified: None })
    }
}

/// Reads on until there are `wanted` bytes, or the file ends.
fn grow(file: &mut impl Read, into: &mut Vec<u8>, wanted: usize) -> io::Result<usize> {
    let more = wanted.saturating_sub(into.len()) as u64;
    file.take(more).read_to_end(into)
}

/// What the entry of this key is to the store. Without the epoch that all entries have, or all of a namespace, they would
/// all be misses.
pub(crate) fn class_of(key: &[u8]) -> Class {
    let Ok(key) = CacheKey::from_encoded(key) else { return Class::User };
    let is_kind = |kind: ScopeKind| {
        let name = (kind as u8).to_string();
        key.parts().next().is_some_and(|part| part.value == Some(name.as_bytes()))
    };
    match key.is_reserved() {
        false => Class::User,
        true if is_kind(ScopeKind::Everything) || is_kind(ScopeKind::Namespace) => Class::Pinned,
        true => Class::Scope,
    }
}
