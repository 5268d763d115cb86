//! Keys that were made to have one digest.

use bytes::Bytes;
use hitbox_backend::CacheBackend;
use hitbox_backend::envelope::wire::key_digest;
use hitbox_core::{CacheContext, CacheKey, CacheValue};

use super::opened;
use crate::Verdict;
use crate::store::block_on;

/// Two of the eight-byte lanes that XXH3 adds to one of its sums: where they are in a long input, and the lower half of the
/// bytes that it combines each with. A lane with that lower half is multiplied by zero, and counts for nothing but its
/// sum with others.
const LANES: [(usize, [u8; 4]); 2] =
    [(64 * 2 + 8, [0x72, 0x40, 0xa4, 0xa4]), (64 * 3 + 8, [0xcb, 0x79, 0xe6, 0x4e])];

fn key_with(halves: [u32; 2]) -> CacheKey {
    let key = |bytes: &[u8]| CacheKey::builder("k").part_bytes("name", bytes).build();
    // The input ends with these bytes.
    let start = key(&[0; 1_000]).as_encoded().len() - 1_000;
    let mut bytes = [0; 1_000];
    for ((at, lower), upper) in LANES.into_iter().zip(halves) {
        bytes[at - start..at - start + 4].copy_from_slice(&lower);
        bytes[at - start + 4..at - start + 8].copy_from_slice(&upper.to_le_bytes());
    }
    key(&bytes)
}

/// Digests in records may be equal. The names of files must not be: each key would put out the other.
pub(crate) fn case_f07_keys_with_one_digest_have_files_of_their_own() -> Verdict {
    block_on(async {
        let keys = [key_with([1, 2]), key_with([2, 1])];
        if keys[0] == keys[1] || key_digest(&keys[0]) != key_digest(&keys[1]) {
            return Err("they do not have one digest".to_owned());
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        for round in ["written", "opened again"] {
            let disk = opened(folder.path()).await?;
            for (number, key) in keys.iter().enumerate() {
                if round == "written" {
                    let value = CacheValue::new(Bytes::from(vec![number as u8; 100]));
                    disk.set(key, value, &mut CacheContext::new())
                        .await
                        .map_err(|error| error.to_string())?;
                }
            }
            for (number, key) in keys.iter().enumerate() {
                let found = disk.get_one::<Bytes>(key).await.map_err(|error| error.to_string())?;
                if found.map(CacheValue::into_data).as_deref() != Some(&[number as u8; 100][..]) {
                    return Err(format!("{round}: the entry of key {number} is gone"));
                }
            }
            disk.close().await;
        }
        Ok(())
    })
}
