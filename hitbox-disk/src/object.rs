//! The file of one entry. Integers are little-endian.
//!
//! ```text
//!  0  magic "HOBJ"
//!  4  version u32 (1)
//!  8  key, bytes u32
//! 12  chunk size u32 (65,536)
//! 16  record, bytes u64
//! 24  head checksum u64 (XXH3-64 of bytes 0–23, the key and the chunk checksums)
//! 32  key
//!  …  one checksum u64 (XXH3-64) per chunk of the record
//!  …  record: the envelope as it goes on the wire
//! ```
//! The whole key is there and is compared, so no digest can stand for another key.

use bytes::Bytes;
use twox_hash::XxHash3_64;

const MAGIC: [u8; 4] = *b"HOBJ";
const VERSION: u32 = 1;
pub(crate) const HEAD_BYTES: usize = 32;
const CHUNK: usize = 64 * 1024;

/// The file for a record.
pub fn encode(key: &[u8], record: &[u8]) -> Vec<u8> {
    let chunks = record.len().div_ceil(CHUNK);
    let mut file = Vec::with_capacity(HEAD_BYTES + key.len() + chunks * 8 + record.len());
    file.extend_from_slice(&MAGIC);
    file.extend_from_slice(&VERSION.to_le_bytes());
    file.extend_from_slice(&(key.len() as u32).to_le_bytes());
    file.extend_from_slice(&(CHUNK as u32).to_le_bytes());
    file.extend_from_slice(&(record.len() as u64).to_le_bytes());
    file.extend_from_slice(&[0; 8]);
    file.extend_from_slice(key);
    for chunk in record.chunks(CHUNK) {
        file.extend_from_slice(&XxHash3_64::oneshot(chunk).to_le_bytes());
    }
    let checksum = head_checksum(&file);
    file[24..HEAD_BYTES].copy_from_slice(&checksum.to_le_bytes());
    file.extend_from_slice(record);
    file
}

/// The length of the file for a record.
pub(crate) fn file_len(key: &[u8], record: &[u8]) -> u64 {
    (HEAD_BYTES + key.len() + record.len().div_ceil(CHUNK) * 8 + record.len()) as u64
}

fn head_checksum(head: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(XxHash3_64::oneshot(&head[..24]), &head[HEAD_BYTES..])
}

/// What a file turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Object {
    /// The record of the key that was asked for.
    Record(Bytes),
    /// The record of another key with the same digest.
    OtherKey,
    /// Written by a newer release.
    Newer,
    /// Not what was written.
    Damaged,
}

/// The head of a file, as far as it can be known without its body.
pub(crate) struct Head {
    pub(crate) key_len: usize,
    pub(crate) record_len: u64,
    pub(crate) record_at: u64,
    checksum: u64,
}

impl Head {
    /// The head of a file of `file_len` bytes that starts with `start`; `None` if it is damaged, `Err` if
    /// it is newer.
    pub(crate) fn parse(start: &[u8], file_len: u64) -> Result<Option<Self>, Newer> {
        let Some(head) = start.first_chunk::<HEAD_BYTES>() else { return Ok(None) };
        let u32_at = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | (u64::from(u32_at(at + 4)) << 32);
        if head[..4] != MAGIC {
            return Ok(None);
        }
        if u32_at(4) > VERSION {
            return Err(Newer);
        }
        let (key_len, record_len) = (u32_at(8) as usize, u64_at(16));
        let chunks = record_len.div_ceil(CHUNK as u64);
        let record_at =
            chunks.checked_mul(8).and_then(|sums| sums.checked_add((HEAD_BYTES + key_len) as u64));
        let whole = record_at.and_then(|at| at.checked_add(record_len));
        match record_at {
            Some(record_at)
                if whole == Some(file_len) && u32_at(4) == VERSION && u32_at(12) == CHUNK as u32 =>
            {
                Ok(Some(Self { key_len, record_len, record_at, checksum: u64_at(24) }))
            }
            _ => Ok(None),
        }
    }
}

/// A file of a newer release.
#[derive(Debug)]
pub(crate) struct Newer;

/// Reads a whole file as that of `key`.
pub fn decode(key: &[u8], file: Vec<u8>) -> Object {
    let head = match Head::parse(&file, file.len() as u64) {
        Ok(Some(head)) => head,
        Ok(None) => return Object::Damaged,
        Err(Newer) => return Object::Newer,
    };
    let record_at = head.record_at as usize;
    if head_checksum(&file[..record_at]) != head.checksum {
        return Object::Damaged;
    }
    let (stored_key, sums) = file[HEAD_BYTES..record_at].split_at(head.key_len);
    let record = &file[record_at..];
    debug_assert_eq!(record.len() as u64, head.record_len);
    let whole = record
        .chunks(CHUNK)
        .zip(sums.chunks_exact(8))
        .all(|(chunk, sum)| XxHash3_64::oneshot(chunk).to_le_bytes() == sum);
    if !whole {
        Object::Damaged
    } else if stored_key != key {
        Object::OtherKey
    } else {
        Object::Record(Bytes::from(file).slice(record_at..))
    }
}

#[cfg(test)]
mod tests {
    use super::{Object, decode, encode};

    #[test]
    fn every_flip_and_every_cut_is_detected() {
        // Two chunks, the second short.
        let record: Vec<u8> = (0..super::CHUNK + 40).map(|at| (at * 31) as u8).collect();
        let file = encode(b"key", &record);
        assert_eq!(decode(b"key", file.clone()), Object::Record(record.into()));
        assert_eq!(decode(b"other", file.clone()), Object::OtherKey);
        let around = (0..file.len()).filter(|at| *at < 200 || *at % 997 == 0 || *at + 60 > file.len());
        for at in around {
            for bit in 0..8 {
                let mut flipped = file.clone();
                flipped[at] ^= 1 << bit;
                let what = decode(b"key", flipped);
                assert!(matches!(what, Object::Damaged | Object::Newer), "bit {bit} of byte {at}: {what:?}");
            }
            assert_eq!(decode(b"key", file[..at].to_vec()), Object::Damaged, "cut at {at}");
        }
    }
}
