//! The envelope on the wire: a little-endian header, attributes, payload, checksums of the payload.
//!
//! ```text
//!   0  magic "HBOX"                      64  version of the entry u64
//!   4  format version u8 (1)             72  touched u64
//!   5  kind u8                           80  digest of the key u128 (XXH3-128 of its encoding)
//!   6  flags u16                         96  payload before compression, bytes u64; 0 if not compressed
//!   8  format id u16                    104  identity of the record u64
//!  10  compressor id u16                112  attributes, bytes u64
//!  12  schema version u32               120  namespace epoch u64
//!  16  stale, expire, retain u64        128  type of the value u64; 0 if it is not said
//!  40  created u64                      136  checksum u64 (XXH3-64 of bytes 0–135 and the attributes)
//!  48  idle, load time u64 (ms)         144  attributes: scopes, metadata
//!                                         …  payload
//!                                         …  a checksum u64 (XXH3-64, seeded with the identity) for each 65,536 bytes
//!                                            of the payload, and for the rest
//!                                         …  payload, bytes u64
//! ```
//! The type is the XXH3-64 of its name in Rust without pointers around it, seeded in positional formats with a number for its
//! shape, else with 0.
//!
//! What depends on the payload stands behind it, so that a body can be appended before its length is known; and the
//! header has a checksum of its own, so that metadata can be looked at without the body.
//!
//! Attributes are a count u32 of scopes, each a family u8, a name and an epoch u128, then a count u32 of metadata pairs,
//! each a name and bytes; a name or value is a length u32 and as many bytes, names in UTF-8. Zeros may follow: room that a
//! store leaves for other metadata. Without scopes, metadata and room there are no attributes.
//!
//! Parsing is total: any input gives a record or a reason, without a panic. The payload is a slice of the input, and
//! what the attributes allocate is bounded by their own bound.

mod framing;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use hitbox_core::{CacheKey, CacheValue, Details, Lifetime, Priority, RecordKind, Scope, Timestamp};
use twox_hash::{XxHash3_64, XxHash3_128};

pub(crate) use framing::{BodyHead, body_frame, body_head};
pub use framing::{
    Framing, WholeRecord, encode_body_start, encode_body_start_within, is_start_damaged, payload_len,
    room_of_body_start, trailer_len, verifies_chunk,
};

use super::attributes::{self, Reader};
use super::{Encoded, Raw};
use crate::codec::{COMPRESSOR_NONE, Codec, Format, TypeTag};
use crate::leaf::LeafHandle;

/// Bytes before the attributes.
pub const HEADER_BYTES: usize = 144;
/// The newest format version that this release reads and writes.
pub const FORMAT_VERSION: u8 = 1;
/// Longer attributes are not read, and so not written.
pub const MAX_ATTRIBUTES_BYTES: u64 = 64 * 1024;
const MAGIC: [u8; 4] = *b"HBOX";
const FLAGS_AT: usize = 6;
/// Optional fields, in the order of their flags, 8 bytes each.
const FIELDS_AT: usize = 16;
const CHECKSUM_AT: usize = 136;
const IDENTITY_AT: usize = 104;
/// Bytes of the payload that share a checksum.
pub const CHUNK_BYTES: usize = 64 * 1024;

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
const ABSOLUTE_END: u16 = 1 << 10;
const KNOWN_FLAGS: u16 = (1 << 11) - 1;

/// Those that speak of what is kept in [`Details`].
const RARE_FLAGS: u16 =
    HAS_IDLE | HAS_LOAD_TIME | HAS_VERSION | HAS_TOUCHED | LOW_PRIORITY | HIGH_PRIORITY | ABSOLUTE_END;

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
    /// A body that is larger than a value may be.
    TooLarge,
}

/// The digest of a key that stands in its records.
pub fn key_digest(key: &CacheKey) -> u128 {
    XxHash3_128::oneshot(key.as_encoded())
}

/// The stored form of an entry whose payload is encoded.
pub fn encode(key: &CacheKey, value: &CacheValue<Raw>, encoded: &Encoded) -> Vec<u8> {
    let behind = encoded.bytes.len() + framing::trailer_len(encoded.bytes.len() as u64) as usize;
    let mut out = encode_start(key, value, encoded, 0, behind);
    out.extend_from_slice(&encoded.bytes);
    append_trailer(&mut out, encoded.identity, &encoded.bytes);
    out
}

/// Header and attributes of the stored form, of so many bytes at least, in a buffer that takes as much `behind` them.
fn encode_start(
    key: &CacheKey,
    value: &CacheValue<Raw>,
    encoded: &Encoded,
    least: usize,
    behind: usize,
) -> Vec<u8> {
    let mut attributes = value.details().map(attributes::encode).unwrap_or_default();
    // More could not be read.
    let room = least.saturating_sub(HEADER_BYTES).min(MAX_ATTRIBUTES_BYTES as usize);
    attributes.resize(attributes.len().max(room), 0);
    let mut out = Vec::with_capacity(HEADER_BYTES + attributes.len() + behind);
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
    let absolute_end = if details.is_some_and(|d| d.absolute_end) { ABSOLUTE_END } else { 0 };
    let rest = priority | absolute_end;
    let flags = optional.iter().filter(|(_, v)| v.is_some()).fold(rest, |all, (flag, _)| all | flag);
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
    let plain_len = if encoded.compressor == COMPRESSOR_NONE { 0 } else { encoded.plain_len };
    let type_tag = encoded.type_tag.to_wire();
    for field in [plain_len, encoded.identity, attributes.len() as u64, value.namespace_epoch(), type_tag, 0]
    {
        out.extend_from_slice(&field.to_le_bytes());
    }
    out.extend_from_slice(&attributes);
    let checksum = header_checksum(&out, &attributes);
    out[CHECKSUM_AT..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
    out
}

fn append_trailer(out: &mut Vec<u8>, identity: u64, payload: &[u8]) {
    framing::append_checksums(out, identity, payload);
    out.extend_from_slice(&(payload.len() as u64).to_le_bytes());
}

fn header_checksum(record: &[u8], attributes: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(XxHash3_64::oneshot(&record[..CHECKSUM_AT]), attributes)
}

/// Puts the right checksums into a record whose parts have the lengths that it says. For tests that look behind it.
#[doc(hidden)]
pub fn seal(record: &mut [u8]) {
    let Some(head) = Head::parse(record) else { return };
    let Some((attributes, payload)) = head.parts(record) else { return };
    let checksum = header_checksum(record, &record[attributes]);
    let mut trailer = Vec::new();
    append_trailer(&mut trailer, head.identity, &record[payload.clone()]);
    record[payload.end..].copy_from_slice(&trailer);
    record[CHECKSUM_AT..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
}

/// What `bytes`, found under `key`, are to a leaf with this codec.
pub fn decode(key: &CacheKey, bytes: &Bytes, own: &Codec, origin: Option<&LeafHandle>) -> Record {
    let Some(head) = Head::parse(bytes) else { return Record::Other(Other::Foreign) };
    if head.version == 0 || head.version > FORMAT_VERSION {
        return Record::Other(Other::Newer);
    }
    let Some((attributes, payload)) = head.parts(bytes) else { return Record::Damaged };
    if !head.is_header_intact(bytes) || !head.verifies(bytes, &payload) {
        return Record::Damaged;
    }
    let said = match head.said_to(key, own, &bytes[attributes]) {
        Ok(said) => said,
        Err(refused) => return refused,
    };
    let payload = bytes.slice(payload);
    let mut encoded = Encoded::new(said.format, payload).with_schema(head.schema);
    (encoded.identity, encoded.type_tag) = (head.identity, TypeTag::from_wire(head.type_tag));
    if head.compressor != COMPRESSOR_NONE {
        (encoded.compressor, encoded.plain_len) = (head.compressor, head.plain_len);
    }
    let Said { kind, scopes, metadata, .. } = said;
    Record::Value(head.entry(Raw::encoded(encoded, origin.cloned()), kind, scopes, metadata))
}

/// What a record says to a leaf whose header and attributes are what was written.
struct Said {
    format: Format,
    kind: RecordKind,
    scopes: Vec<Scope>,
    metadata: BTreeMap<String, Bytes>,
}

/// What a record says without its payload: enough of its start to hold header and attributes, or `Err` with the bytes
/// that are needed. `None` if this is no record that this release reads.
///
/// The payload is not verified: this is for look-ups and for stores that rebuild an index.
pub fn peek(start: &[u8]) -> Option<Result<CacheValue<()>, usize>> {
    let head = Head::parse(start).filter(|head| head.version == FORMAT_VERSION)?;
    let kind = kind_of(head.kind)?;
    if head.flags & !KNOWN_FLAGS != 0 || head.attributes_len > MAX_ATTRIBUTES_BYTES {
        return None;
    }
    let payload_at = HEADER_BYTES + head.attributes_len as usize;
    let Some(attributes) = start.get(HEADER_BYTES..payload_at) else { return Some(Err(payload_at)) };
    if !head.is_header_intact(start) {
        return None;
    }
    let (scopes, metadata) = attributes::decode(attributes)?;
    Some(Ok(head.entry((), kind, scopes, metadata)))
}

/// The header of the record that starts like this, for the same entry with other times: the end of fresh, served and kept,
/// and when it was read. `start` holds header and attributes, and is one that [`peek`] understands.
pub fn with_times(start: &[u8], entry: &CacheValue<()>) -> Option<[u8; HEADER_BYTES]> {
    let head = Head::parse(start)?;
    let mut header = *start.first_chunk::<HEADER_BYTES>()?;
    let (lifetime, mut flags) = (entry.lifetime(), head.flags);
    let times = [
        (HAS_STALE, lifetime.stale()),
        (HAS_EXPIRE, lifetime.expire()),
        (HAS_RETAIN, lifetime.retain()),
        (HAS_TOUCHED, entry.details().and_then(|details| details.touched)),
    ];
    for (flag, instant) in times {
        flags = if instant.is_some() { flags | flag } else { flags & !flag };
        let at = FIELDS_AT + 8 * flag.trailing_zeros() as usize;
        header[at..at + 8].copy_from_slice(&instant.map_or(0, Timestamp::as_millis).to_le_bytes());
    }
    header[FLAGS_AT..FLAGS_AT + 2].copy_from_slice(&flags.to_le_bytes());
    let attributes = start.get(HEADER_BYTES..HEADER_BYTES + usize::try_from(head.attributes_len).ok()?)?;
    let checksum = header_checksum(&header, attributes);
    header[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
    Some(header)
}

/// The schema version of the record that starts like this.
pub fn schema_of(start: &[u8]) -> Option<u32> {
    Head::parse(start).map(|head| head.schema)
}

/// The schema of records under a key, in a leaf with this schema: it is one of values, and what the framework keeps for itself
/// has none. Releases with two schemas share a store's epochs.
pub fn schema_under(key: &CacheKey, schema: u32) -> u32 {
    if key.is_reserved() { 0 } else { schema }
}

/// The same for a record under a key, in a leaf with a schema.
pub fn peek_for(key: &CacheKey, start: &[u8], schema: u32) -> Option<Result<CacheValue<()>, usize>> {
    let head = Head::parse(start)?;
    (head.digest == key_digest(key) && head.schema == schema_under(key, schema)).then(|| peek(start))?
}

/// The identity of the record that starts like this.
pub fn identity_of(start: &[u8]) -> Option<u64> {
    Head::parse(start).map(|head| head.identity)
}

/// Whether the record that starts like this is one of this key.
pub fn is_of_key(start: &[u8], key: &CacheKey) -> bool {
    Head::parse(start).is_some_and(|head| head.digest == key_digest(key))
}

/// Where the identity of a record stands in it.
pub const IDENTITY: std::ops::Range<usize> = IDENTITY_AT..IDENTITY_AT + 8;

/// The same for a header alone, which is not verified: times, without scopes and metadata.
pub fn peek_times(header: &[u8]) -> Option<CacheValue<()>> {
    let head = Head::parse(header).filter(|head| head.version == FORMAT_VERSION)?;
    Some(head.entry((), kind_of(head.kind)?, Vec::new(), BTreeMap::new()))
}

pub(super) struct Head {
    pub(super) version: u8,
    pub(super) kind: u8,
    pub(super) flags: u16,
    pub(super) format: u16,
    pub(super) compressor: u16,
    pub(super) schema: u32,
    /// The optional fields, in the order of their flags.
    pub(super) fields: [u64; 8],
    pub(super) digest: u128,
    pub(super) plain_len: u64,
    pub(super) identity: u64,
    pub(super) attributes_len: u64,
    pub(super) namespace_epoch: u64,
    pub(super) type_tag: u64,
    pub(super) checksum: u64,
}

impl Head {
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
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
            identity: rest.u64()?,
            attributes_len: rest.u64()?,
            namespace_epoch: rest.u64()?,
            type_tag: rest.u64()?,
            checksum: rest.u64()?,
        })
    }

    /// What the record says to a leaf with this codec. It is intact.
    fn said_to(&self, key: &CacheKey, own: &Codec, attributes: &[u8]) -> Result<Said, Record> {
        if self.flags & !KNOWN_FLAGS != 0 || self.attributes_len > MAX_ATTRIBUTES_BYTES {
            return Err(Record::Other(Other::Newer));
        }
        if self.digest != key_digest(key) {
            return Err(Record::Other(Other::Key));
        }
        let Some(kind) = kind_of(self.kind) else { return Err(Record::Other(Other::Newer)) };
        if self.schema != schema_under(key, own.schema) {
            return Err(Record::Other(Other::Schema));
        }
        let format = Format::with_id(self.format, own.format).ok_or(Record::Other(Other::Codec))?;
        let (scopes, metadata) = attributes::decode(attributes).ok_or(Record::Damaged)?;
        Ok(Said { format, kind, scopes, metadata })
    }

    /// Where attributes and payload are in a whole record.
    pub(super) fn parts(&self, record: &[u8]) -> Option<(Range<usize>, Range<usize>)> {
        let payload_at = usize::try_from(self.attributes_len).ok()?.checked_add(HEADER_BYTES)?;
        let body = record.get(payload_at..)?;
        let len = usize::try_from(u64::from_le_bytes(*body.last_chunk::<8>()?)).ok()?;
        let trailer = usize::try_from(framing::trailer_len(len as u64)).ok()?;
        let is_whole = len.checked_add(trailer) == Some(body.len());
        is_whole.then(|| (HEADER_BYTES..payload_at, payload_at..payload_at + len))
    }

    /// Whether header and attributes are what was written; not if some of them is missing.
    pub(super) fn is_header_intact(&self, record: &[u8]) -> bool {
        let end = usize::try_from(self.attributes_len).ok().and_then(|len| len.checked_add(HEADER_BYTES));
        let attributes = end.and_then(|end| record.get(HEADER_BYTES..end));
        attributes.is_some_and(|attributes| self.checksum == header_checksum(record, attributes))
    }

    /// Whether the payload is what was written.
    pub(super) fn verifies(&self, record: &[u8], payload: &Range<usize>) -> bool {
        let sums = record[payload.end..].chunks_exact(8);
        let mut chunks = record[payload.clone()].chunks(CHUNK_BYTES).zip(sums);
        chunks.all(|(chunk, sum)| verifies_chunk(self.identity, chunk, sum))
    }

    /// The entry around some data.
    fn entry<T>(
        &self,
        data: T,
        kind: RecordKind,
        scopes: Vec<Scope>,
        metadata: BTreeMap<String, Bytes>,
    ) -> CacheValue<T> {
        let instant = |flag| self.optional(flag).map(Timestamp::from_millis);
        let duration = |flag| self.optional(flag).map(Duration::from_millis);
        let lifetime = Lifetime::new(instant(HAS_STALE), instant(HAS_EXPIRE), instant(HAS_RETAIN));
        let value = CacheValue::new(data).with_lifetime(lifetime).with_created(instant(HAS_CREATED));
        let is_plain = kind == RecordKind::Value && scopes.is_empty() && metadata.is_empty();
        if is_plain && self.flags & RARE_FLAGS == 0 {
            return value.with_namespace_epoch(self.namespace_epoch);
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
        details.absolute_end = self.flags & ABSOLUTE_END != 0;
        details.namespace_epoch = self.namespace_epoch;
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
