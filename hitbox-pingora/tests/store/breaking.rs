//! What breaks in the published stores.
//!
//! `HITBOX_TRIES` sets how often a purge races with a promotion (10,000 times by default).

use std::sync::Arc;

use bytes::Bytes;
use hitbox_backend::{CacheBackend, Compose, OffloadPool, RefillPolicy};
use hitbox_disk::DiskBackend;
use hitbox_testkit::number_from;
use pingora_cache::Storage;
use pingora_cache::eviction::EvictionManager;
use pingora_cache::eviction::simple_lru;
use pingora_cache::storage::{MissFinishType, PurgeTarget, PurgeType};

use crate::common::{bytes, case, cases, etag, key, meta, moka, read, span, storage_over};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_right_after_a_hit_below_is_final() {
    let tries = number_from("HITBOX_TRIES").unwrap_or(10_000);
    let case = case("moka over disk").await;
    let (meta, body) = (meta("a"), bytes(20_000));
    let (mut resurrected, mut promoted) = (0, 0);
    for n in 0..tries {
        let key = key(&format!("/film/{n}"));
        case.store(&key, &meta, &body).await;
        case.demote(&key).await;
        let (found, mut hit) = case.find(&key).await.expect("it is on disk");
        let stored = found.extensions().get::<hitbox_pingora::Stored>().expect("it says where");
        promoted += u64::from(stored.layer.to_string().contains("disk"));
        if n % 2 == 0 {
            hit.read_body().await.expect("a chunk");
        }
        case.purge(&key, PurgeType::Invalidation).await;
        case.pool.wait_all().await;
        resurrected += u64::from(case.find(&key).await.is_some());
    }
    assert_eq!(promoted, tries, "each was found on disk, and was being promoted");
    assert_eq!(resurrected, 0, "of {tries}");
}

#[tokio::test]
async fn each_writer_has_readers_of_its_own() {
    for case in cases().await {
        let key = key("/film");
        let open = async |etag: &str| {
            let miss = case.storage.get_miss_handler(&key, &meta(etag), &span()).await.expect("a writer");
            let tag = miss.streaming_write_tag().expect("a tag").to_vec();
            (miss, tag)
        };
        let tagged = async |tag: &[u8]| {
            case.storage.lookup_streaming_write(&key, Some(tag), &span()).await.expect("a lookup")
        };
        let (mut one, tag_of_one) = open("one").await;
        let (mut other, tag_of_other) = open("other").await;
        let mut readers = Vec::new();
        for _ in 0..2 {
            for (tag, name) in [(&tag_of_one, "one"), (&tag_of_other, "other")] {
                let (found, hit) = tagged(tag).await.expect(case.name);
                assert_eq!(etag(&found), name, "{}", case.name);
                readers.push((name, hit));
            }
        }
        for n in 0..3 {
            one.write_body(Bytes::from(format!("one {n} ")), n == 2).await.expect("a chunk");
            other.write_body(Bytes::from(format!("other {n} ")), n == 2).await.expect("a chunk");
        }
        one.finish().await.expect("an end");
        other.finish().await.expect("an end");
        for (name, mut hit) in readers {
            let all = read(&mut hit).await.expect("a body");
            assert_eq!(all, format!("{name} 0 {name} 1 {name} 2 "), "{}", case.name);
        }
        assert!(tagged(&tag_of_one).await.is_none(), "{}: that writer has ended", case.name);
        assert!(tagged(b"no tag of ours").await.is_none(), "{}", case.name);
        // With one tag only, one of them is what is stored, and whole.
        case.pool.wait_all().await;
        let (found, mut hit) = case.find(&key).await.expect(case.name);
        let name = etag(&found).to_owned();
        assert_eq!(
            read(&mut hit).await.expect("a body"),
            format!("{name} 0 {name} 1 {name} 2 "),
            "{}",
            case.name
        );
    }
}

#[tokio::test]
async fn the_disk_keeps_its_bound_whatever_is_evicted() {
    const BOUND: u64 = 1024 * 1024;
    let (pool, folder) = (OffloadPool::new(), tempfile::tempdir().expect("a folder"));
    let disk = DiskBackend::builder(folder.path()).max_bytes(BOUND).open().await.expect("a disk");
    let layers = moka().compose(disk, pool.shared()).with_refill(RefillPolicy::Always);
    let storage = storage_over(layers.shared(), &pool);
    let manager = simple_lru::Manager::new(100_000);
    for n in 0..400_usize {
        let key = key(&format!("/film/{}", n % 150));
        let meta = meta("a");
        let mut miss = storage.get_miss_handler(&key, &meta, &span()).await.expect("a writer");
        let id = miss.entry_id();
        miss.write_body(bytes(1000 + n % 7 * 9000), true).await.expect("a chunk");
        let MissFinishType::Created(size) = miss.finish().await.expect("an end") else { panic!("it is new") };
        let entry = pingora_cache::eviction::CacheEntryKey::from_entry_id(key.to_compact(), id);
        for evicted in manager.admit(entry, size, meta.fresh_until()) {
            storage.purge(PurgeTarget::Exact(&evicted), PurgeType::Eviction, &span()).await.expect("a purge");
        }
        if n % 50 == 49 {
            pool.wait_all().await;
            let held = size_of(folder.path());
            // Beside what is stored: the file of the folder's owner, and what is about to be put out.
            assert!(held <= BOUND + 64 * 1024, "{held} bytes after {n} responses, of {BOUND}");
        }
    }
    let kept = (0..150).map(|n| key(&format!("/film/{n}")));
    let mut found = 0;
    for key in kept {
        found += usize::from(storage.lookup(&key, &span()).await.expect("a lookup").is_some());
    }
    assert!(found > 20, "{found} are kept: what the manager evicts stays on disk");
}

/// Bytes of all files in a folder.
fn size_of(folder: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(folder).expect("a folder").flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(facts) if facts.is_dir() => size_of(&entry.path()),
        Ok(facts) => facts.len(),
        // It was put out meanwhile.
        Err(_) => 0,
    };
    entries.map(size).sum()
}

#[tokio::test]
async fn metadata_of_what_is_absent_create_nothing() {
    for case in cases().await {
        let key = key("/nothing");
        let updated = case.storage.update_meta(&key, &meta("a"), &span()).await.expect("an answer");
        assert!(!updated, "{}", case.name);
        assert!(case.find(&key).await.is_none(), "{}", case.name);
        // Neither of what was purged.
        case.store(&key, &meta("a"), b"two reels").await;
        case.purge(&key, PurgeType::Invalidation).await;
        assert!(
            !case.storage.update_meta(&key, &meta("b"), &span()).await.expect("an answer"),
            "{}",
            case.name
        );
        assert!(case.find(&key).await.is_none(), "{}", case.name);
    }
}

#[tokio::test]
async fn a_writer_that_is_given_up_is_no_clean_end() {
    for case in cases().await {
        for len in [0, 10, 3_000_000] {
            let key = key(&format!("/film/{len}"));
            let mut miss = case.storage.get_miss_handler(&key, &meta("a"), &span()).await.expect("a writer");
            let tag = miss.streaming_write_tag().expect("a tag").to_vec();
            let tagged =
                case.storage.lookup_streaming_write(&key, Some(&tag), &span()).await.expect("a lookup");
            let (_, mut own) = tagged.expect(case.name);
            let (_, mut other) = case.find(&key).await.expect(case.name);
            for chunk in bytes(len).chunks(50_000) {
                miss.write_body(Bytes::copy_from_slice(chunk), false).await.expect("a chunk");
            }
            drop(miss);
            for hit in [&mut own, &mut other] {
                read(hit).await.expect_err(case.name);
                read(hit).await.expect_err(case.name);
            }
            case.pool.wait_all().await;
            assert!(case.find(&key).await.is_none(), "{}: {len} bytes", case.name);
        }
    }
}

#[tokio::test]
async fn a_writer_that_is_purged_does_not_panic() {
    for case in cases().await {
        for when in 0..3 {
            let key = key(&format!("/film/{when}"));
            case.store(&key, &meta("older"), b"older").await;
            let mut miss = case.storage.get_miss_handler(&key, &meta("a"), &span()).await.expect("a writer");
            let purge = async |at: u32| {
                if at == when {
                    case.purge(&key, PurgeType::Invalidation).await;
                }
            };
            purge(0).await;
            miss.write_body(bytes(100_000), false).await.expect("a chunk");
            purge(1).await;
            miss.write_body(bytes(100_000), true).await.expect("a chunk");
            purge(2).await;
            let MissFinishType::Created(size) = miss.finish().await.expect("an end") else {
                panic!("it is new")
            };
            assert_eq!(size, 0, "{}: a manager is told that nothing is stored", case.name);
            case.pool.wait_all().await;
            assert!(case.find(&key).await.is_none(), "{}: purged at {when}", case.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_write_read_and_purge_at_once() {
    for name in ["moka", "moka over disk", "moka over (quick over disk)"] {
        let case = Arc::new(case(name).await);
        let tasks: Vec<_> = (0..8_u64)
            .map(|task| {
                let case = case.clone();
                tokio::spawn(async move {
                    for n in 0..200_u64 {
                        let key = key(&format!("/film/{}", (n * 7 + task) % 5));
                        match (n + task) % 6 {
                            0 | 1 => {
                                // All of a body is one byte, which its metadata name.
                                let byte = (n % 250) as u8;
                                let len = 10_000 + (n as usize % 40) * 5_000;
                                let meta = meta(&format!("{byte}-{len}"));
                                let mut miss = case
                                    .storage
                                    .get_miss_handler(&key, &meta, &span())
                                    .await
                                    .expect("a writer");
                                for part in vec![byte; len].chunks(30_000) {
                                    miss.write_body(Bytes::copy_from_slice(part), false)
                                        .await
                                        .expect("a chunk");
                                    tokio::task::yield_now().await;
                                }
                                if n % 9 == 0 {
                                    drop(miss);
                                } else {
                                    miss.finish().await.expect("an end");
                                }
                            }
                            2 => drop(case.purge(&key, PurgeType::Invalidation).await),
                            3 => drop(case.demote(&key).await),
                            _ => {
                                let Some((found, mut hit)) = case.find(&key).await else { continue };
                                let stored = !hit
                                    .as_any()
                                    .downcast_ref::<hitbox_pingora::BodyHit>()
                                    .expect("a hit")
                                    .is_on_its_way();
                                let (byte, len) = etag(&found).split_once('-').expect("a name");
                                let (byte, len): (u8, usize) =
                                    (byte.parse().expect("a byte"), len.parse().expect("a length"));
                                match read(&mut hit).await {
                                    Ok(all) => assert!(
                                        all.len() == len && all.iter().all(|b| *b == byte),
                                        "{}",
                                        case.name
                                    ),
                                    Err(error) => assert!(
                                        !stored,
                                        "{}: only a writer that ends is an error: {error}",
                                        case.name
                                    ),
                                }
                            }
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("no panic");
        }
    }
}
