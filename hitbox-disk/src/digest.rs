//! The names of files, and tables by them.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};

use hitbox_backend::core::{CacheKey, KeyHasher};
use quick_cache::UnitWeighter;
use quick_cache::sync::{Cache, DefaultLifecycle};

/// The digest of a key: the name of its file.
pub(crate) type Digest = u128;

/// A table by digests.
pub(crate) type DigestMap<T> = HashMap<Digest, T, DigestHash>;

/// As many digests are kept as files are, at most, kept open.
const RECENT: u64 = 1_024;
/// Longer keys are not kept: all of them take less than a megabyte. In bytes.
const LONGEST: usize = 768;

/// The digest of a key's encoding: half of its BLAKE3 hash. Nobody can find two keys with one digest, of which each would
/// replace the other.
pub(crate) fn digest_of(key: &[u8]) -> Digest {
    let hash = blake3::hash(key);
    let half = hash.as_bytes().first_chunk().copied();
    Digest::from_be_bytes(half.unwrap_or_default())
}

/// The digests of keys that were read without waiting: such a read takes a thousand nanoseconds, of which the digest would
/// be a hundred. Keys bring the hash for tables with them.
#[derive(Debug)]
pub(crate) struct RecentDigests(Cache<CacheKey, Digest, UnitWeighter, BuildHasherDefault<KeyHasher>>);

impl Default for RecentDigests {
    fn default() -> Self {
        let (hash, lifecycle) = (BuildHasherDefault::default(), DefaultLifecycle::default());
        Self(Cache::with(RECENT as usize, RECENT, UnitWeighter, hash, lifecycle))
    }
}

impl RecentDigests {
    pub(crate) fn get(&self, key: &CacheKey) -> Option<Digest> {
        self.0.get(key)
    }

    pub(crate) fn keep(&self, key: &CacheKey, digest: Digest) {
        if key.as_encoded().len() <= LONGEST {
            self.0.insert(key.clone(), digest);
        }
    }
}

/// Hashes digests for tables. They are as good as random, but whoever knows a key knows its digest: with secrets of this
/// process nobody can choose keys that share a place. Both halves are multiplied, as wyhash does it.
#[derive(Clone, Debug)]
pub(crate) struct DigestHash([u64; 2]);

impl Default for DigestHash {
    fn default() -> Self {
        let secrets = RandomState::new();
        Self([secrets.hash_one(0), secrets.hash_one(1)])
    }
}

impl BuildHasher for DigestHash {
    type Hasher = DigestHasher;

    #[inline]
    fn build_hasher(&self) -> DigestHasher {
        DigestHasher { secrets: self.0, hash: 0 }
    }
}

/// The hash of one digest.
pub(crate) struct DigestHasher {
    secrets: [u64; 2],
    hash: u64,
}

impl Hasher for DigestHasher {
    #[inline]
    fn finish(&self) -> u64 {
        self.hash
    }

    #[inline]
    fn write_u128(&mut self, digest: u128) {
        let [low, high] = self.secrets;
        let product = u128::from(digest as u64 ^ low) * u128::from((digest >> 64) as u64 ^ high);
        self.hash ^= product as u64 ^ (product >> 64) as u64;
    }

    fn write(&mut self, bytes: &[u8]) {
        // Digests hash themselves as one number; anything else is folded in.
        for chunk in bytes.chunks(16) {
            let mut number = [0; 16];
            number[..chunk.len()].copy_from_slice(chunk);
            self.write_u128(u128::from_le_bytes(number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of keys that follow each other, whatever the secrets are.
    #[test]
    fn digests_are_spread() {
        let hash = DigestHash::default();
        let mut places = [0_u32; 256];
        for n in 0..4_096_u32 {
            places[(hash.hash_one(digest_of(&n.to_le_bytes())) & 255) as usize] += 1;
        }
        let most = places.iter().max().copied().unwrap_or_default();
        // Sixteen on average: not once in a million million runs.
        assert!(most < 80, "{most} of 4,096 in one of 256 places");
    }

    #[test]
    fn two_tables_place_digests_otherwise() {
        let (one, other) = (DigestHash::default(), DigestHash::default());
        let same = (0..64_u128).filter(|n| one.hash_one(n) == other.hash_one(n)).count();
        assert!(same < 8, "{same} of 64");
    }
}
