//! The file of one entry. Integers are little-endian.
//!
//! ```text
//!  0  magic "HOBJ"
//!  4  version u32 (1)
//!  8  key, bytes u32
//! 12  reserved u32 (0)
//! 16  checksum u64 (XXH3-64 of bytes 0–15 and the key)
//! 24  key
//!  …  record: the envelope as it goes on the wire, which has checksums of its own
//! ```
//! The whole key is there and is compared, so no digest can stand for another key. What depends on the length of the
//! record stands at its end, so that a body can be appended before its length is known.

use bytes::Bytes;
use twox_hash::XxHash3_64;

const MAGIC: [u8; 4] = *b"HOBJ";
const VERSION: u32 = 1;
pub(crate) const HEAD_BYTES: usize = 24;
const CHECKSUM_AT: usize = 16;

/// The file for a record.
pub fn encode(key: &[u8], record: &[u8]) -> Vec<u8> {
    let mut file = Vec::with_capacity(HEAD_BYTES + key.len() + record.len());
    file.extend_from_slice(&MAGIC);
    file.extend_from_slice(&VERSION.to_le_bytes());
    file.extend_from_slice(&(key.len() as u32).to_le_bytes());
    file.extend_from_slice(&[0; 4]);
    let checksum = checksum(&file, key);
    file.extend_from_slice(&checksum.to_le_bytes());
    file.extend_from_slice(key);
    file.extend_from_slice(record);
    file
}

/// The length of the file for a record.
pub(crate) fn file_len(key: &[u8], record: &[u8]) -> u64 {
    (HEAD_BYTES + key.len() + record.len()) as u64
}

fn checksum(head: &[u8], key: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(XxHash3_64::oneshot(&head[..CHECKSUM_AT]), key)
}

/// What a file turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Object {
    /// The record of the key that was asked for, as it was found.
    Record(Bytes),
    /// The record of another key with the same digest.
    OtherKey,
    /// Written by a newer release.
    Newer,
    /// Not what was written.
    Damaged,
    /// A body that is not read as a whole.
    TooLong,
}

/// The head of a file.
pub(crate) struct Head {
    pub(crate) key_len: usize,
    checksum: u64,
}

impl Head {
    /// The head of a file that starts with `start`; `None` if it is damaged, `Err` if it is newer.
    pub(crate) fn parse(start: &[u8]) -> Result<Option<Self>, Newer> {
        let Some(head) = start.first_chunk::<HEAD_BYTES>() else { return Ok(None) };
        let u32_at = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        if head[..4] != MAGIC || u32_at(4) == 0 {
            return Ok(None);
        }
        if u32_at(4) > VERSION {
            return Err(Newer);
        }
        let checksum = u64::from(u32_at(CHECKSUM_AT)) | (u64::from(u32_at(CHECKSUM_AT + 4)) << 32);
        Ok(Some(Self { key_len: u32_at(8) as usize, checksum }))
    }

    /// Whether head and key are what was written.
    pub(crate) fn verifies(&self, start: &[u8], key: &[u8]) -> bool {
        key.len() == self.key_len && self.checksum == checksum(start, key)
    }
}

/// A file of a newer release.
#[derive(Debug)]
pub(crate) struct Newer;

/// Reads a whole file as that of `key`. The record is not looked into.
pub fn decode(key: &[u8], file: Vec<u8>) -> Object {
    let head = match Head::parse(&file) {
        Ok(Some(head)) => head,
        Ok(None) => return Object::Damaged,
        Err(Newer) => return Object::Newer,
    };
    let Some(stored_key) = file[HEAD_BYTES..].get(..head.key_len) else { return Object::Damaged };
    if !head.verifies(&file, stored_key) {
        Object::Damaged
    } else if stored_key != key {
        Object::OtherKey
    } else {
        Object::Record(Bytes::from(file).slice(HEAD_BYTES + key.len()..))
    }
}

#[cfg(test)]
mod tests {
    use super::{HEAD_BYTES, Object, decode, encode};

    #[test]
    fn every_flip_and_every_cut_of_the_head_is_detected() {
        let record = [7; 100];
        let file = encode(b"key", &record);
        assert_eq!(decode(b"key", file.clone()), Object::Record(record.to_vec().into()));
        assert_eq!(decode(b"other", file.clone()), Object::OtherKey);
        for at in 0..HEAD_BYTES + 3 {
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
