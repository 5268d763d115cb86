//! The bound in bytes, under ten times as many.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use bytes::Bytes;
use hitbox_core::{CacheContext, CacheValue, ErrorKind};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::store::{Store, block_on, files, get, key, set};
use crate::{Verdict, rejected};
use hitbox_backend::CacheBackend;

const MAX_BYTES: u64 = 4 << 20;
/// What may lie beside the objects: lock, format, and files that are being replaced.
const OVERHEAD: u64 = 256 << 10;

/// What the files take of the file system, which gives them blocks of 512 bytes.
fn used(folder: &Path) -> u64 {
    files(folder).iter().filter_map(|path| path.metadata().ok()).map(|file| 512 * file.blocks()).sum()
}

async fn check(store: Store) -> Verdict {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let open = store.open(folder.path(), MAX_BYTES).await;
    let mut random = StdRng::seed_from_u64(4);
    let (mut written, mut last) = (0, 0);
    while written < 10 * MAX_BYTES {
        // Overwrites and new keys, of all sizes up to a twentieth of the store.
        last = random.random_range(0..400);
        let len = random.random_range(0..MAX_BYTES / 20);
        let mut body = vec![0; len as usize];
        random.fill(&mut body[..]);
        set(&*open, last, body.into()).await?;
        written += len;
        let used = used(folder.path());
        if used > MAX_BYTES + OVERHEAD {
            return Err(format!("{used} bytes after {written} written, over {MAX_BYTES}"));
        }
    }
    if get(&*open, last).await?.is_none() {
        return Err("the newest entry was evicted".to_owned());
    }
    let held = used(folder.path());
    if held < MAX_BYTES / 2 {
        return Err(format!("only {held} bytes are used"));
    }
    let occupancy = open.layout().statistics().into_iter().next().and_then(|leaf| leaf.occupancy);
    let occupancy = occupancy.ok_or("it does not say what it holds")?;
    if occupancy.bytes > MAX_BYTES || occupancy.evictions == 0 {
        return Err(format!("it says {occupancy:?}"));
    }
    // A value larger than the whole store is refused, and changes nothing.
    let mut body = vec![0; MAX_BYTES as usize + 1];
    random.fill(&mut body[..]);
    let too_large = CacheValue::new(Bytes::from(body));
    match open.set(&key(last), too_large, &mut CacheContext::new()).await {
        Err(error) if error.kind() == ErrorKind::TooLarge => {}
        other => return Err(format!("a value larger than the store: {other:?}")),
    }
    if get(&*open, last).await?.is_none() {
        return Err("a refused write removed the entry".to_owned());
    }
    // What is deleted is room again.
    open.erase().await.map_err(|error| error.to_string())?;
    let left = used(folder.path());
    if left > OVERHEAD { Err(format!("{left} bytes are left after a clear")) } else { Ok(()) }
}

pub(crate) fn disk_04_stays_within_its_bound() -> Verdict {
    block_on(check(Store::Disk))
}

pub(crate) fn disk_04_rejects_files_without_a_bound() -> Verdict {
    rejected(block_on(check(Store::NakedFiles)))
}
