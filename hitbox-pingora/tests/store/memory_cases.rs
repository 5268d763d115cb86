//! What Pingora's own store in memory is tested for.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::FutureExt;
use pingora_cache::Storage;
use pingora_cache::eviction::{CacheEntryId, CacheEntryKey};
use pingora_cache::storage::{PurgeOutcome, PurgeTarget, PurgeType};

use crate::common::{bytes, cases, etag, key, meta, read, span};

#[tokio::test]
async fn two_read_while_one_writes() {
    for case in cases().await {
        let key = key("/film");
        let mut miss = case.storage.get_miss_handler(&key, &meta("a"), &span()).await.expect("a writer");
        let (found, mut first) = case.find(&key).await.expect(case.name);
        assert_eq!(etag(&found), "a", "{}", case.name);
        assert!(first.read_body().now_or_never().is_none(), "{}: nothing has come", case.name);
        miss.write_body(Bytes::from_static(b"test1"), false).await.expect("a chunk");
        assert_eq!(
            first.read_body().await.expect("a chunk").as_deref(),
            Some(&b"test1"[..]),
            "{}",
            case.name
        );
        assert!(first.read_body().now_or_never().is_none(), "{}", case.name);
        miss.write_body(Bytes::from_static(b"test2"), false).await.expect("a chunk");
        assert_eq!(
            first.read_body().await.expect("a chunk").as_deref(),
            Some(&b"test2"[..]),
            "{}",
            case.name
        );
        let (_, mut second) = case.find(&key).await.expect(case.name);
        assert!(!second.should_count_access(), "{}: it is not stored yet", case.name);
        assert_eq!(second.get_eviction_weight(), 0, "{}", case.name);
        let both = second.read_body().await.expect("a chunk");
        assert_eq!(both.as_deref(), Some(&b"test1test2"[..]), "{}: all that has come", case.name);
        assert!(first.read_body().now_or_never().is_none(), "{}", case.name);
        assert!(second.read_body().now_or_never().is_none(), "{}", case.name);
        miss.finish().await.expect("an end");
        assert_eq!(first.read_body().await.expect("the end"), None, "{}", case.name);
        assert_eq!(second.read_body().await.expect("the end"), None, "{}", case.name);
        case.pool.wait_all().await;
        assert_eq!(case.body(&key).await.as_deref(), Some(&b"test1test2"[..]), "{}", case.name);
    }
}

#[tokio::test]
async fn a_read_that_is_dropped_loses_nothing() {
    for case in cases().await {
        let (key, all) = (key("/film"), bytes(1_000_000));
        let mut miss = case.storage.get_miss_handler(&key, &meta("a"), &span()).await.expect("a writer");
        let tag = miss.streaming_write_tag().expect("a tag").to_vec();
        let found = case.storage.lookup_streaming_write(&key, Some(&tag), &span()).await.expect("a lookup");
        let (_, mut hit) = found.expect(case.name);
        let mut seen = Vec::new();
        for chunk in all.chunks(50_000) {
            assert!(hit.read_body().now_or_never().is_none(), "{}: it is dropped while it waits", case.name);
            miss.write_body(Bytes::copy_from_slice(chunk), false).await.expect("a chunk");
            seen.extend_from_slice(&hit.read_body().await.expect("a chunk").expect("it has come"));
        }
        miss.finish().await.expect("an end");
        assert_eq!(seen, all, "{}", case.name);
        case.pool.wait_all().await;
        // One that is stored: each read is begun and dropped once before it is made.
        let (_, mut hit) = case.find(&key).await.expect(case.name);
        seen.clear();
        loop {
            let chunk = match hit.read_body().now_or_never() {
                Some(chunk) => chunk.expect("a chunk"),
                None => hit.read_body().await.expect("a chunk"),
            };
            let Some(chunk) = chunk else { break };
            seen.extend_from_slice(&chunk);
        }
        assert_eq!(seen, all, "{}", case.name);
    }
}

/// It was asked for before: stored later it would be what was purged, or fresh.
#[tokio::test]
async fn what_is_being_written_is_purged_and_expired() {
    for case in cases().await {
        // It is purged, expired, and expired by its id.
        for way in 0..3 {
            let (key, what) = (key("/film"), format!("{}, way {way}", case.name));
            let mut miss = case.storage.get_miss_handler(&key, &meta("a"), &span()).await.expect("a writer");
            let (_, mut reader) = case.find(&key).await.expect(&what);
            miss.write_body(Bytes::from_static(b"two "), false).await.expect("a chunk");
            if way > 0 {
                let compact = key.to_compact();
                let id = reader.entry_id().expect("an id");
                let exact = CacheEntryKey::identified(compact.clone(), id);
                let target =
                    if way == 1 { PurgeTarget::Active(&compact) } else { PurgeTarget::Exact(&exact) };
                let outcome = case.storage.expire(target, &span()).await;
                assert_eq!(outcome.expect("an answer"), PurgeOutcome::Expired, "{what}");
            } else {
                let outcome = case.purge(&key, PurgeType::Invalidation).await;
                assert!(matches!(outcome, PurgeOutcome::Purged(_)), "{what}: {outcome:?}");
            }
            assert!(case.find(&key).await.is_none(), "{what}: nobody new sees it");
            miss.write_body(Bytes::from_static(b"reels"), true).await.expect("its writer goes on");
            miss.finish().await.expect("an end");
            assert_eq!(read(&mut reader).await.expect("who read it goes on"), "two reels", "{what}");
            case.pool.wait_all().await;
            assert!(case.find(&key).await.is_none(), "{what}: it is not stored");
        }
    }
}

#[tokio::test]
async fn what_is_complete_is_purged() {
    for case in cases().await {
        let key = key("/film");
        case.store(&key, &meta("a"), b"two reels").await;
        let (_, hit) = case.find(&key).await.expect(case.name);
        let outcome = case.purge(&key, PurgeType::Invalidation).await;
        assert_eq!(outcome, PurgeOutcome::Purged(hit.entry_id()), "{}: it says which", case.name);
        assert!(case.find(&key).await.is_none(), "{}", case.name);
        assert_eq!(case.purge(&key, PurgeType::Invalidation).await, PurgeOutcome::NotFound, "{}", case.name);
    }
}

#[tokio::test]
async fn what_is_expired_keeps_its_body_and_its_windows() {
    for case in cases().await {
        let key = key("/film");
        let compact = key.to_compact();
        case.store(&key, &meta("a"), b"two reels").await;
        let before = SystemTime::now();
        let outcome = case.storage.expire(PurgeTarget::Active(&compact), &span()).await.expect("it expires");
        assert_eq!(outcome, PurgeOutcome::Expired, "{}", case.name);
        for round in 0..2 {
            let (found, mut hit) = case.find(&key).await.expect("it is stored");
            let (what, now) = (format!("{}, round {round}", case.name), SystemTime::now());
            assert!(!found.is_fresh(now + Duration::from_secs(1)), "{what}");
            assert!(found.fresh_until() + Duration::from_secs(2) > before, "{what}: the windows begin now");
            assert!(found.serve_stale_while_revalidate(now), "{what}");
            assert!(found.serve_stale_if_error(now + Duration::from_secs(590)), "{what}");
            assert!(!found.serve_stale_if_error(now + Duration::from_secs(601)), "{what}");
            assert_eq!(read(&mut hit).await.expect("a body"), "two reels", "{what}");
            if case.has_lower && round == 0 {
                case.demote(&key).await;
            }
        }
        // It is validated, and fresh again.
        let (mut found, _) = case.find(&key).await.expect("it is stored");
        let mut renewed = meta("a");
        std::mem::swap(renewed.extensions_mut(), found.extensions_mut());
        assert!(case.storage.update_meta(&key, &renewed, &span()).await.expect("an update"), "{}", case.name);
        let (found, _) = case.find(&key).await.expect("it is stored");
        assert!(found.is_fresh(SystemTime::now() + Duration::from_secs(3000)), "{}", case.name);
    }
}

#[tokio::test]
async fn nothing_is_expired_that_is_not_there() {
    for case in cases().await {
        let compact = key("/nothing").to_compact();
        let outcome = case.storage.expire(PurgeTarget::Active(&compact), &span()).await.expect("an answer");
        assert_eq!(outcome, PurgeOutcome::NotFound, "{}", case.name);
        assert!(case.find(&key("/nothing")).await.is_none(), "{}", case.name);
    }
}

#[tokio::test]
async fn exact_purges_mean_that_very_entry() {
    for case in cases().await {
        let key = key("/film");
        let compact = key.to_compact();
        let id = async || case.find(&key).await.expect(case.name).1.entry_id().expect("an id");
        let exact = |id: CacheEntryId| CacheEntryKey::identified(compact.clone(), id);
        case.store(&key, &meta("a"), b"the first").await;
        let first = id().await;
        case.store(&key, &meta("b"), b"the second").await;
        let second = id().await;
        assert_ne!(first, second, "{}", case.name);
        let key_only = CacheEntryKey::key_only(compact.clone());
        for why in [PurgeType::Eviction, PurgeType::Invalidation] {
            for entry in [exact(first), key_only.clone(), exact(CacheEntryId::new(1))] {
                let target = PurgeTarget::Exact(&entry);
                let outcome = case.storage.purge(target, why, &span()).await.expect("an answer");
                assert_eq!(outcome, PurgeOutcome::NotFound, "{}: {entry} for {why:?}", case.name);
                let outcome = case.storage.expire(target, &span()).await.expect("an answer");
                assert_eq!(outcome, PurgeOutcome::NotFound, "{}: {entry}", case.name);
            }
        }
        assert_eq!(id().await, second, "{}", case.name);
        let (found, _) = case.find(&key).await.expect(case.name);
        assert!(found.is_fresh(SystemTime::now()), "{}: nothing was expired", case.name);
        let (entry, target_id) = (exact(second), Some(second));
        let target = PurgeTarget::Exact(&entry);
        let outcome = case.storage.expire(target, &span()).await.expect("an answer");
        assert_eq!(outcome, PurgeOutcome::Expired, "{}", case.name);
        let (found, _) = case.find(&key).await.expect(case.name);
        assert!(!found.is_fresh(SystemTime::now() + Duration::from_secs(1)), "{}", case.name);
        if case.has_lower {
            let outcome = case.storage.purge(target, PurgeType::Eviction, &span()).await.expect("an answer");
            assert_eq!(outcome, PurgeOutcome::Purged(target_id), "{}", case.name);
            assert_eq!(id().await, second, "{}: it is below", case.name);
            case.pool.wait_all().await;
        }
        let outcome = case.storage.purge(target, PurgeType::Invalidation, &span()).await.expect("an answer");
        assert_eq!(outcome, PurgeOutcome::Purged(target_id), "{}", case.name);
        assert!(case.find(&key).await.is_none(), "{}", case.name);
    }
}
