//! What takes room, and what goes when there is none left.

use std::os::unix::fs::MetadataExt;

use bytes::Bytes;
use hitbox_backend::CacheBackend;
use hitbox_core::{CacheValue, Details, Scope};
use hitbox_disk::DiskBackend;

use crate::Verdict;
use crate::store::{block_on, files, get, key, set};

/// Small values take a block of the file system each, and that is what is counted.
pub(crate) fn case_f23_small_values_stay_within_the_bound() -> Verdict {
    const MAX_BYTES: u64 = 1 << 20;
    block_on(async {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let open = DiskBackend::builder(folder.path()).max_bytes(MAX_BYTES).open();
        let disk = open.await.map_err(|error| error.to_string())?;
        for number in 0..2_000 {
            set(&disk, number, Bytes::from(vec![7; 100])).await?;
        }
        let objects = files(&folder.path().join("objects"));
        let taken: u64 = objects.iter().map(|file| 512 * file.metadata().expect("an object").blocks()).sum();
        if taken > MAX_BYTES {
            return Err(format!("{} objects take {taken} bytes, over {MAX_BYTES}", objects.len()));
        }
        if taken < MAX_BYTES / 2 {
            return Err(format!("{} objects take only {taken} bytes", objects.len()));
        }
        if get(&disk, 1_999).await?.is_none() {
            return Err("the newest entry was evicted".to_owned());
        }
        Ok(())
    })
}

async fn tagged(disk: &DiskBackend, number: u64, scopes: Vec<Scope>) -> Verdict {
    let mut details = Details::default();
    details.scopes = scopes;
    let value = CacheValue::new(Bytes::from_static(b"tagged")).with_details(details);
    disk.set_one(&key(number), value).await.map(drop).map_err(|error| error.to_string())
}

/// Records of tags are older than the entries that carry them, and nobody reads them. They must not go first.
pub(crate) fn case_f21_tags_of_live_entries_are_not_evicted() -> Verdict {
    const ENTRIES: u64 = 100;
    block_on(async {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let open = || DiskBackend::builder(folder.path()).max_bytes((ENTRIES + 10) * 4_096).open();
        let opened = async || open().await.map_err(|error| error.to_string());
        let disk = opened().await?;
        for number in 0..ENTRIES {
            tagged(&disk, number, vec![Scope::tag("red"), Scope::dependency("colours")]).await?;
        }
        disk.close().await;
        // Opened with a cold memory, under pressure, more than once.
        for round in 1..=3 {
            let disk = opened().await?;
            for number in 0..20 {
                set(&disk, 1_000 * round + number, Bytes::from_static(b"plain")).await?;
            }
            disk.close().await;
        }
        let disk = opened().await?;
        let (mut held, mut readable) = (0, 0);
        let page = disk.list_keys(0, 10_000).await.map_err(|error| error.to_string())?;
        for key in &page.keys {
            held += 1;
            readable +=
                u64::from(disk.get_one::<Bytes>(key).await.map_err(|error| error.to_string())?.is_some());
        }
        if held < ENTRIES || readable < held {
            return Err(format!("{readable} of {held} entries can be read"));
        }
        // Records that are more than half of it go like others.
        for number in 0..200 {
            tagged(&disk, number, vec![Scope::tag(format!("tag {number}"))]).await?;
        }
        if get(&disk, 199).await?.is_none() {
            return Err("the newest entry was evicted for the records of tags".to_owned());
        }
        Ok(())
    })
}
