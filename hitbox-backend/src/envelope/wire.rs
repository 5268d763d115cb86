//! The envelope on the wire: one little-endian header, attributes, payload.
//!
//! ```text
//!   0  magic "HBOX"                      64  version of the entry u64
//!   4  format version u8 (1)             72  touched u64
//!   5  kind u8                           80  digest of the key u128 (XXH3-128 of its encoding)
//!   6  flags u16                         96  payload before compression, bytes u64
//!   8  format id u16                    104  payload, bytes u64
//!  10  compressor id u16                112  attributes, bytes u64
//!  12  schema version u32               120  era u64 (epochs of "everything" and of namespaces)
//!  16  stale, expire, retain u64        128  checksum u64 (XXH3-64 of all other bytes)
//!  40  created u64                      136  attributes: scopes, metadata
//!  48  idle, load time u64 (milliseconds)  …  payload
//! ```
//! Attributes are a count u32 of scopes, each a family u8, a name and an epoch u128, then a count u32 of
//! metadata pairs, each two texts; a name or text is a length u32 and as many bytes of UTF-8. Without scopes
//! and metadata there are none.
//!
//! Parsing is total: any input gives a record or a reason, without a panic. The payload is a slice of the
//! input, and what the attributes allocate is bounded by their own bound.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use hitbox_core::{CacheKey, CacheValue, Details, Lifetime, Priority, RecordKind, Scope, Timestamp};
use twox_hash::{XxHash3_64, XxHash3_128};

use super::attributes::{self, Reader};
use super::{Encoded, Raw};
use crate::codec::{Codec, Format};
use crate::leaf::Leaf;

/// Bytes before the attributes.
pub const HEADER_BYTES: usize = 136;
/// The newest format version that this release reads and writes.
pub const FORMAT_VERSION: u8 = 1;
/// Longer attributes are not read, and so not written.
pub const MAX_ATTRIBUTES_BYTES: u64 = 64 * 1024;
const MAGIC: [u8; 4] = *b"HBOX";
const CHECKSUM_AT: usize = 128;

const HAS_STALE: u16 = 1;
const HAS_EXPIRE: u16 = 1 << 1;
const HAS_RETAIN: u16 = 1 << 2;
const HAS_CREATED: u16 = 1 << 3;
const HAS_IDLE: u16 = 1 << 4;
const HAS_LOAD_TIME: u16 = 1 << 5;
const HAS_VERSION: u16 = 1 << 6;
const HAS_TOUCHED: u16 = 1 << 7;
const LOW_PRIORITY: u16 = 1 << 8;
const HIGH_PRIORITY: u16 = 1 << 9;
const KNOWN_FLAGS: u16 = (1 << 10) - 1;

/// Those that speak of what is kept in [`Details`].
const RARE_FLAGS: u16 = HAS_IDLE | HAS_LOAD_TIME | HAS_VERSION | HAS_TOUCHED | LOW_PRIORITY | HIGH_PRIORITY;

/// What some stored bytes turned out to be.
#[derive(Debug)]
pub enum Record {
    /// An entry.
    Value(CacheValue<Raw>),
    /// Not a record of ours, or one that needs a newer release, another schema or another build: it is
    /// left as it is.
    Other(Other),
    /// A record of ours that has been changed: it may be removed.
    Damaged,
}

/// Why a record that may be in order is of no use here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Other {
    /// No record of ours.
    Foreign,
    /// A newer format version, or flags or kinds that this release does not know.
    Newer,
    /// Another schema version than the leaf's.
    Schema,
    /// A format or compressor that this build does not have.
    Codec,
    /// The record of another key.
    Key,
}

/// The digest of a key that stands in its records.
pub fn key_digest(key: &CacheKey) -> u128 {
    XxHash3_128::oneshot(key.as_encoded())
}

/// The stored form of an entry whose payload is encoded.
pub fn encode(key: &CacheKey, value: &CacheValue<Raw>, encoded: &Encoded) -> Vec<u8> {
    let attributes = value.details().map(attributes::encode).unwrap_or_default();
    let mut out = Vec::with_capacity(HEADER_BYTES + attributes.len() + encoded.bytes.len());
    let lifetime = value.lifetime();
    let details = value.details();
    let millis = |d: Option<Duration>| d.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
    let optional = [
        (HAS_STALE, lifetime.stale().map(Timestamp::as_millis)),
        (HAS_EXPIRE, lifetime.expire().map(Timestamp::as_millis)),
        (HAS_RETAIN, lifetime.retain().map(Timestamp::as_millis)),
        (HAS_CREATED, value.created().map(Timestamp::as_millis)),
        (HAS_IDLE, millis(details.and_then(|d| d.idle))),
        (HAS_LOAD_TIME, millis(details.and_then(|d| d.load_time))),
        (HAS_VERSION, details.and_then(|d| d.version)),
        (HAS_TOUCHED, details.and_then(|d| d.touched).map(Timestamp::as_millis)),
    ];
    let priority = match details.map_or(Priority::Normal, |d| d.priority) {
        Priority::Low => LOW_PRIORITY,
        Priority::Normal => 0,
        Priority::High => HIGH_PRIORITY,
    };
    let flags = optional.iter().filter(|(_, v)| v.is_some()).fold(priority, |all, (flag, _)| all | flag);
    out.extend_from_slice(&MAGIC);
    out.push(FORMAT_VERSION);
    out.push(kind_id(details.map_or(RecordKind::Value, |d| d.kind)));
    out.extend_from_slice(&flags.to_le_bytes());
    out.extend_from_slice(&encoded.format.id().to_le_bytes());
    out.extend_from_slice(&encoded.compressor.to_le_bytes());
    out.extend_from_slice(&encoded.schema.to_le_bytes());
    for (_, field) in optional {
        out.extend_from_slice(&field.unwrap_or(0).to_le_bytes());
    }
    out.extend_from_slice(&key_digest(key).to_le_bytes());
    for field in [encoded.plain_len, encoded.bytes.len() as u64, attributes.len() as u64, value.era(), 0] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    out.extend_from_slice(&attributes);
    out.extend_from_slice(&encoded.bytes);
    seal(&mut out);
    out
}

/// Puts the right checksum into a record. For tests that look behind it.
///
/// # Panics
/// If there is no whole header.
#[doc(hidden)]
pub fn seal(record: &mut [u8]) {
    let checksum = checksum(record);
    record[CHECKSUM_AT..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
}

fn checksum(record: &[u8]) -> u64 {
    let head = XxHash3_64::oneshot(&record[..CHECKSUM_AT]);
    XxHash3_64::oneshot_with_seed(head, &record[HEADER_BYTES..])
}

/// What `bytes`, found under `key`, are to a leaf with this codec.
pub fn decode(key: &CacheKey, bytes: &Bytes, own: &Codec, origin: Option<&Leaf>) -> Record {
    parse(Some(key), bytes, own, origin)
}

/// The same for a record of which the store knows by checksums and keys of its own that it is intact, and whose.
pub fn decode_verified(bytes: &Bytes, own: &Codec, origin: Option<&Leaf>) -> Record {
    parse(None, bytes, own, origin)
}

/// Verifies the record against a key, if there is one.
fn parse(verify: Option<&CacheKey>, bytes: &Bytes, own: &Codec, origin: Option<&Leaf>) -> Record {
    let Some(head) = Head::parse(bytes) else { return Record::Other(Other::Foreign) };
    if head.version == 0 || head.version > FORMAT_VERSION {
        return Record::Other(Other::Newer);
    }
    let body = (bytes.len() - HEADER_BYTES) as u64;
    let is_whole = head.attributes_len.checked_add(head.payload_len) == Some(body);
    if !is_whole || (verify.is_some() && head.checksum != checksum(bytes)) {
        return Record::Damaged;
    }
    if head.flags & !KNOWN_FLAGS != 0 || head.attributes_len > MAX_ATTRIBUTES_BYTES {
        return Record::Other(Other::Newer);
    }
    if verify.is_some_and(|key| head.digest != key_digest(key)) {
        return Record::Other(Other::Key);
    }
    let Some(kind) = kind_of(head.kind) else { return Record::Other(Other::Newer) };
    if head.schema != own.schema {
        return Record::Other(Other::Schema);
    }
    let Some(format) = Format::with_id(head.format, own.format) else {
        return Record::Other(Other::Codec);
    };
    let payload_at = HEADER_BYTES + head.attributes_len as usize;
    let Some((scopes, metadata)) = attributes::decode(&bytes[HEADER_BYTES..payload_at]) else {
        return Record::Damaged;
    };
    let encoded = Encoded {
        format,
        compressor: head.compressor,
        schema: head.schema,
        plain_len: head.plain_len,
        bytes: bytes.slice(payload_at..),
    };
    Record::Value(head.entry(Raw::encoded(encoded, origin.cloned()), kind, scopes, metadata))
}

/// What a record says without its payload: enough of its start to hold header and attributes, or `Err` with the bytes
/// that are needed. `None` if this is no record that this release reads.
///
/// Nothing is verified: this is for look-ups and for stores that rebuild an index.
pub fn peek(start: &[u8]) -> Option<Result<CacheValue<()>, usize>> {
    let head = Head::parse(start).filter(|head| head.version == FORMAT_VERSION)?;
    let kind = kind_of(head.kind)?;
    if head.flags & !KNOWN_FLAGS != 0 || head.attributes_len > MAX_ATTRIBUTES_BYTES {
        return None;
    }
    let payload_at = HEADER_BYTES + head.attributes_len as usize;
    let Some(attributes) = start.get(HEADER_BYTES..payload_at) else { return Some(Err(payload_at)) };
    let (scopes, metadata) = attributes::decode(attributes)?;
    Some(Ok(head.entry((), kind, scopes, metadata)))
}

/// The schema version of the record that starts like this.
pub fn schema_of(start: &[u8]) -> Option<u32> {
    Head::parse(start).map(|head| head.schema)
}

/// The same for a record under a key, of a schema.
pub fn peek_for(key: &CacheKey, start: &[u8], schema: u32) -> Option<Result<CacheValue<()>, usize>> {
    let head = Head::parse(start)?;
    (head.digest == key_digest(key) && head.schema == schema).then(|| peek(start))?
}

/// The same for a header alone: times, without scopes and metadata.
pub fn peek_times(header: &[u8]) -> Option<CacheValue<()>> {
    let head = Head::parse(header).filter(|head| head.version == FORMAT_VERSION)?;
    Some(head.entry((), kind_of(head.kind)?, Vec::new(), BTreeMap::new()))
}

struct Head {
    version: u8,
    kind: u8,
    flags: u16,
    format: u16,
    compressor: u16,
    schema: u32,
    /// The optional fields, in the order of their flags.
    fields: [u64; 8],
    digest: u128,
    plain_len: u64,
    payload_len: u64,
    attributes_len: u64,
    era: u64,
    checksum: u64,
}

impl Head {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut rest = Reader(bytes.strip_prefix(&MAGIC)?);
        if bytes.len() < HEADER_BYTES {
            return None;
        }
        let [version, kind] = rest.array()?;
        let flags = u16::from_le_bytes(rest.array()?);
        let format = u16::from_le_bytes(rest.array()?);
        let compressor = u16::from_le_bytes(rest.array()?);
        let schema = u32::from_le_bytes(rest.array()?);
        let mut fields = [0; 8];
        for field in &mut fields {
            *field = rest.u64()?;
        }
        Some(Self {
            version,
            kind,
            flags,
            format,
            compressor,
            schema,
            fields,
            digest: u128::from_le_bytes(rest.array()?),
            plain_len: rest.u64()?,
            payload_len: rest.u64()?,
            attributes_len: rest.u64()?,
            era: rest.u64()?,
            checksum: rest.u64()?,
        })
    }

    /// The entry around some data.
    fn entry<T>(
        &self,
        data: T,
        kind: RecordKind,
        scopes: Vec<Scope>,
        metadata: BTreeMap<String, String>,
    ) -> CacheValue<T> {
        let instant = |flag| self.optional(flag).map(Timestamp::from_millis);
        let duration = |flag| self.optional(flag).map(Duration::from_millis);
        let lifetime = Lifetime::new(instant(HAS_STALE), instant(HAS_EXPIRE), instant(HAS_RETAIN));
        let value = CacheValue::new(data).with_lifetime(lifetime).with_created(instant(HAS_CREATED));
        let is_plain = kind == RecordKind::Value && self.attributes_len == 0 && self.era == 0;
        if is_plain && self.flags & RARE_FLAGS == 0 {
            return value;
        }
        let mut details = Details::default();
        details.kind = kind;
        details.idle = duration(HAS_IDLE);
        details.load_time = duration(HAS_LOAD_TIME);
        details.version = self.optional(HAS_VERSION);
        details.touched = instant(HAS_TOUCHED);
        details.scopes = scopes;
        details.metadata = metadata;
        details.priority = self.priority();
        details.era = self.era;
        value.with_details(details)
    }

    fn priority(&self) -> Priority {
        match self.flags & (LOW_PRIORITY | HIGH_PRIORITY) {
            LOW_PRIORITY => Priority::Low,
            HIGH_PRIORITY => Priority::High,
            _ => Priority::Normal,
        }
    }

    fn optional(&self, flag: u16) -> Option<u64> {
        (self.flags & flag != 0).then(|| self.fields[flag.trailing_zeros() as usize])
    }
}

const KINDS: [RecordKind; 4] =
    [RecordKind::Value, RecordKind::Absent, RecordKind::Lease, RecordKind::Tombstone];
fn kind_id(kind: RecordKind) -> u8 {
    KINDS.iter().position(|known| *known == kind).unwrap_or(0) as u8
}

fn kind_of(id: u8) -> Option<RecordKind> {
    KINDS.get(usize::from(id)).copied()
}
