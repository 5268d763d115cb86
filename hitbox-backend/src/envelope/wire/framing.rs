//! Records whose payload comes, and is read, by chunks.

use std::ops::Range;

use bytes::Bytes;
use hitbox_core::{CacheKey, CacheValue};
use twox_hash::XxHash3_64;

use super::{CHUNK_BYTES, FORMAT_VERSION, HEADER_BYTES, Head, MAX_ATTRIBUTES_BYTES, Raw, Said, schema_under};
use crate::codec::{COMPRESSOR_NONE, Codec, Format};
use crate::envelope::Encoded;

/// The checksum of a chunk of a record with this identity.
fn checksum(identity: u64, chunk: &[u8]) -> [u8; 8] {
    XxHash3_64::oneshot_with_seed(identity, chunk).to_le_bytes()
}

/// The checksums of the chunks of a payload.
pub(super) fn append_checksums(out: &mut Vec<u8>, identity: u64, payload: &[u8]) {
    for chunk in payload.chunks(CHUNK_BYTES) {
        out.extend_from_slice(&checksum(identity, chunk));
    }
}

/// Bytes behind a payload of so many: the checksums of its chunks, and its length.
pub const fn trailer_len(payload: u64) -> u64 {
    payload.div_ceil(CHUNK_BYTES as u64).saturating_mul(8).saturating_add(8)
}

/// The length of the payload of a record that has so many bytes behind its attributes.
pub const fn payload_len(behind: u64) -> Option<u64> {
    let Some(behind) = behind.checked_sub(8) else { return None };
    let whole = CHUNK_BYTES as u64 + 8;
    let (chunks, rest) = (behind / whole, behind % whole);
    match rest {
        0 => Some(chunks * CHUNK_BYTES as u64),
        // The last chunk has one byte at least.
        9.. => Some(behind - 8 * (chunks + 1)),
        _ => None,
    }
}

/// What stands behind a payload that comes by chunks.
#[derive(Debug)]
pub struct Framing {
    identity: u64,
    sums: Vec<u8>,
    len: u64,
}

impl Framing {
    /// That of a record with this identity.
    pub const fn new(identity: u64) -> Self {
        Self { identity, sums: Vec::new(), len: 0 }
    }

    /// The payload goes on with these bytes: whole chunks of [`CHUNK_BYTES`], unless they are its end.
    pub fn add(&mut self, bytes: &[u8]) {
        append_checksums(&mut self.sums, self.identity, bytes);
        self.len += bytes.len() as u64;
    }

    /// Bytes of the payload so far.
    pub const fn payload_len(&self) -> u64 {
        self.len
    }

    /// The bytes behind the payload, if it ends here.
    pub fn trailer(&self) -> Vec<u8> {
        let mut trailer = self.sums.clone();
        trailer.extend_from_slice(&self.len.to_le_bytes());
        trailer
    }
}

/// A whole record whose payload is read by parts, which are verified when they are.
#[derive(Debug)]
pub struct WholeRecord {
    record: Bytes,
    payload: Range<usize>,
    identity: u64,
}

impl WholeRecord {
    /// Nothing if it does not have the lengths that it says.
    pub fn of(record: Bytes) -> Option<Self> {
        let head = Head::parse(&record)?;
        let (_, payload) = head.parts(&record)?;
        Some(Self { payload, identity: head.identity, record })
    }

    /// Header and attributes.
    pub fn start(&self) -> &[u8] {
        &self.record[..self.payload.start]
    }

    /// All of it.
    pub fn bytes(&self) -> &Bytes {
        &self.record
    }

    /// Bytes of the payload.
    pub const fn payload_len(&self) -> u64 {
        (self.payload.end - self.payload.start) as u64
    }

    /// At most `limit` bytes of the payload from `at` on; nothing if they are not what was written.
    pub fn read(&self, at: u64, limit: u64) -> Option<Bytes> {
        let payload = &self.record[self.payload.clone()];
        let end =
            usize::try_from(at.saturating_add(limit)).map_or(payload.len(), |end| end.min(payload.len()));
        let at = usize::try_from(at).ok().filter(|at| *at <= end)?;
        let sums = self.record[self.payload.end..].chunks_exact(8);
        let chunks = payload.chunks(CHUNK_BYTES).zip(sums).take(end.div_ceil(CHUNK_BYTES));
        let mut touched = chunks.skip(at / CHUNK_BYTES);
        touched
            .all(|(chunk, sum)| verifies_chunk(self.identity, chunk, sum))
            .then(|| self.record.slice(self.payload.start + at..self.payload.start + end))
    }
}

/// A body under this key in a leaf with this codec, of which there are no bytes yet: it is kept as it comes.
pub(crate) fn body_frame(key: &CacheKey, own: &Codec) -> Encoded {
    Encoded::new(Format::Opaque, Bytes::new()).with_schema(schema_under(key, own.schema))
}

/// Header and attributes of the record of an entry whose payload comes by chunks. Their length depends on the names of tags,
/// on metadata, and on nothing else.
pub fn encode_body_start(key: &CacheKey, value: &CacheValue<Raw>, body: &Encoded) -> Vec<u8> {
    super::encode_start(key, value, body, 0, 0)
}

/// The same with as much room as was left for it: so many bytes, or more if that is too little.
pub fn encode_body_start_within(
    room: usize,
    key: &CacheKey,
    value: &CacheValue<Raw>,
    body: &Encoded,
) -> Vec<u8> {
    super::encode_start(key, value, body, room, 0)
}

/// Bytes to leave for header and attributes that have so many, so that most others fit in their place: a validation brings
/// another date and perhaps another tag.
pub fn room_of_body_start(len: usize) -> usize {
    let most = HEADER_BYTES + MAX_ATTRIBUTES_BYTES as usize;
    len.min(most).saturating_add(128).next_multiple_of(256).min(most).max(len)
}

/// Whether a chunk of the payload of a record with this identity is what was written.
pub fn verifies_chunk(identity: u64, chunk: &[u8], sum: &[u8]) -> bool {
    checksum(identity, chunk) == sum
}

/// Whether the start of a record, which has its header and attributes at least, is not what a release with this format or an
/// earlier one wrote.
pub fn is_start_damaged(start: &[u8]) -> bool {
    let is_of_this = |head: &Head| (1..=FORMAT_VERSION).contains(&head.version);
    Head::parse(start).filter(is_of_this).is_some_and(|head| !head.is_header_intact(start))
}

/// What the start of a record says of a body.
#[derive(Debug)]
pub(crate) enum BodyHead {
    /// The entry of a body that is stored as it came, and the identity of its record.
    Body(CacheValue<()>, u64),
    /// To be looked into as a whole: a value that is encoded or compressed, or nothing of use.
    Whole,
}

/// What the header and attributes of a record, found under `key`, are to a leaf with this codec that wants a body.
pub(crate) fn body_head(key: &CacheKey, start: &[u8], own: &Codec) -> BodyHead {
    let read = || {
        let head = Head::parse(start).filter(|head| head.version == FORMAT_VERSION)?;
        let end = usize::try_from(head.attributes_len).ok()?.checked_add(HEADER_BYTES)?;
        let attributes = start.get(HEADER_BYTES..end).filter(|_| head.is_header_intact(start))?;
        let Said { format, kind, scopes, metadata } = head.said_to(key, own, attributes).ok()?;
        let is_as_it_came = format == Format::Opaque && head.compressor == COMPRESSOR_NONE;
        is_as_it_came.then(|| BodyHead::Body(head.entry((), kind, scopes, metadata), head.identity))
    };
    read().unwrap_or(BodyHead::Whole)
}

#[cfg(test)]
mod tests {
    use super::{CHUNK_BYTES, payload_len, trailer_len};

    #[test]
    fn the_length_of_a_payload_follows_from_that_of_its_record() {
        let chunk = CHUNK_BYTES as u64;
        for len in [0, 1, 8, 9, chunk - 1, chunk, chunk + 1, 2 * chunk - 1, 2 * chunk, 1 << 40, (1 << 40) + 1]
        {
            assert_eq!(payload_len(len + trailer_len(len)), Some(len), "{len}");
        }
        // No payload is between one of whole chunks and one of a byte more.
        for none in [0, 7, 9, 16, chunk + 8 + 8 + 8] {
            assert_eq!(payload_len(none), None, "{none}");
        }
    }
}
