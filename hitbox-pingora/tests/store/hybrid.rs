//! What the published stores of memory over disk do.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hitbox_pingora::{BodyHit, Stored, Tags};
use pingora_cache::storage::{PurgeOutcome, PurgeTarget, PurgeType};
use pingora_cache::{CacheMeta, Storage};

use crate::common::{bytes, case, cases, etag, key, meta, read, span, variant};

#[tokio::test]
async fn a_miss_then_a_hit() {
    for case in cases().await {
        let key = key("/film");
        assert!(case.find(&key).await.is_none(), "{}", case.name);
        let size = case.store(&key, &meta("a"), b"two reels").await;
        let (meta, mut hit) = case.find(&key).await.expect(case.name);
        assert_eq!(etag(&meta), "a", "{}", case.name);
        let lines: Vec<_> = meta.headers().get_all("set").iter().collect();
        assert_eq!(lines, ["one", "two"], "{}: repeated lines are kept", case.name);
        assert_eq!(read(&mut hit).await.expect("a body"), "two reels", "{}", case.name);
        assert_eq!(hit.get_eviction_weight(), size, "{}: the weight is what was stored", case.name);
        assert!(size > "two reels".len(), "{}: metadata count", case.name);
        assert!(hit.should_count_access(), "{}", case.name);
        let stored = meta.extensions().get::<Stored>().expect("it says where it is");
        assert_eq!(hit.entry_id().map(|id| id.get()), Some(stored.generation), "{}", case.name);
        let hit = hit.as_any().downcast_ref::<BodyHit>().expect("a hit of this storage");
        assert_eq!(hit.layer(), stored.layer, "{}", case.name);
    }
}

#[tokio::test]
async fn a_body_in_chunks_of_any_size() {
    for case in cases().await {
        for len in [0, 1, 65_535, 65_536, 65_537, 3_000_000] {
            let key = key(&format!("/film/{len}"));
            case.store(&key, &meta("a"), &bytes(len)).await;
            assert_eq!(case.body(&key).await, Some(bytes(len)), "{}: {len} bytes", case.name);
            if case.has_lower {
                case.demote(&key).await;
                assert_eq!(case.body(&key).await, Some(bytes(len)), "{}: {len} bytes below", case.name);
                case.pool.wait_all().await;
                assert_eq!(case.body(&key).await, Some(bytes(len)), "{}: {len} bytes again", case.name);
            }
        }
    }
}

#[tokio::test]
async fn what_is_evicted_stays_below_and_comes_back() {
    for case in cases().await.into_iter().filter(|case| case.has_lower) {
        let key = key("/film");
        case.store(&key, &meta("a"), &bytes(200_000)).await;
        let upper = case.layer(&key).await.expect(case.name);
        for round in 0..3 {
            let outcome = case.demote(&key).await;
            assert!(matches!(outcome, PurgeOutcome::Purged(Some(_))), "{}: {outcome:?}", case.name);
            let lower = case.layer(&key).await.expect(case.name);
            assert_ne!(lower, upper, "{}: round {round}", case.name);
            case.pool.wait_all().await;
            assert_eq!(case.layer(&key).await.as_ref(), Some(&upper), "{}: it is promoted", case.name);
        }
        let outcome = case.purge(&key, PurgeType::Invalidation).await;
        assert!(matches!(outcome, PurgeOutcome::Purged(Some(_))), "{}: {outcome:?}", case.name);
        assert!(case.find(&key).await.is_none(), "{}: it is in no layer", case.name);
        assert_eq!(case.purge(&key, PurgeType::Invalidation).await, PurgeOutcome::NotFound, "{}", case.name);
    }
}

#[tokio::test]
async fn a_single_layer_drops_what_is_evicted() {
    for case in cases().await.into_iter().filter(|case| !case.has_lower) {
        let key = key("/film");
        case.store(&key, &meta("a"), b"two reels").await;
        let outcome = case.demote(&key).await;
        assert!(matches!(outcome, PurgeOutcome::Purged(Some(_))), "{}: {outcome:?}", case.name);
        assert!(case.find(&key).await.is_none(), "{}", case.name);
        assert_eq!(case.demote(&key).await, PurgeOutcome::NotFound, "{}", case.name);
    }
}

#[tokio::test]
async fn metadata_are_updated_where_they_are() {
    for case in cases().await {
        for below in [false, true] {
            if below && !case.has_lower {
                continue;
            }
            let key = key(&format!("/film/{below}"));
            case.store(&key, &meta("a"), &bytes(100_000)).await;
            if below {
                case.demote(&key).await;
            }
            let renewed = crate::common::meta_for("b", Duration::from_secs(7200));
            let updated = case.storage.update_meta(&key, &renewed, &span()).await;
            assert!(updated.expect("an update"), "{}: below {below}", case.name);
            let (found, mut hit) = case.find(&key).await.expect(case.name);
            assert_eq!(etag(&found), "b", "{}", case.name);
            assert!(found.is_fresh(SystemTime::now() + Duration::from_secs(7000)), "{}", case.name);
            assert_eq!(read(&mut hit).await.expect("a body"), bytes(100_000), "{}", case.name);
            case.pool.wait_all().await;
            let (found, _) = case.find(&key).await.expect(case.name);
            assert_eq!(etag(&found), "b", "{}: after it was promoted", case.name);
        }
    }
}

#[tokio::test]
async fn what_is_found_again_and_again_has_the_metadata_of_now() {
    for case in cases().await {
        let key = key("/film");
        // What is decoded once is remembered.
        let found_as = async |expected: &CacheMeta, what: &str| {
            for _ in 0..3 {
                let (found, _) = case.find(&key).await.expect(case.name);
                let expected = expected.serialize().expect("it is written");
                assert_eq!(found.serialize().expect("it is written"), expected, "{}: {what}", case.name);
                case.pool.wait_all().await;
            }
        };
        let mut first = meta("a");
        case.store(&key, &first, b"two reels").await;
        found_as(&first, "stored").await;
        let mut renewed = meta("b");
        renewed.set_variance([7; 16]);
        renewed.set_epoch_override(SystemTime::now() - Duration::from_secs(9));
        renewed.update_freshness(SystemTime::now() + Duration::from_secs(7200), 7, 8);
        assert!(case.storage.update_meta(&key, &renewed, &span()).await.expect("an update"), "{}", case.name);
        found_as(&renewed, "renewed").await;
        case.store(&key, &first, b"three").await;
        found_as(&first, "stored anew").await;
        let target = key.to_compact();
        case.storage.expire(PurgeTarget::Active(&target), &span()).await.expect("it expires");
        for _ in 0..3 {
            let (found, _) = case.find(&key).await.expect(case.name);
            assert!(!found.is_fresh(SystemTime::now() + Duration::from_millis(5)), "{}", case.name);
            first.expire_at(found.fresh_until());
            found_as(&first, "expired").await;
        }
    }
}

#[tokio::test]
async fn metadata_of_what_was_replaced_change_nothing() {
    for case in cases().await {
        let key = key("/film");
        case.store(&key, &meta("a"), b"two reels").await;
        let (mut found, _) = case.find(&key).await.expect(case.name);
        case.store(&key, &meta("b"), b"three").await;
        // As Pingora does after a 304: the extensions of what was found go with it.
        let mut renewed = meta("a2");
        std::mem::swap(renewed.extensions_mut(), found.extensions_mut());
        let updated = case.storage.update_meta(&key, &renewed, &span()).await.expect("an update");
        assert!(!updated, "{}: it is another body", case.name);
        let (found, _) = case.find(&key).await.expect(case.name);
        assert_eq!(etag(&found), "b", "{}", case.name);
    }
}

#[tokio::test]
async fn a_validation_of_what_is_on_its_way_keeps_it_from_nothing() {
    for case in cases().await {
        let key = key("/film");
        let mut miss = case.storage.get_miss_handler(&key, &meta("a"), &span()).await.expect("a writer");
        miss.write_body(bytes(100_000), false).await.expect("a chunk");
        // Another request finds it, has it validated, and says so.
        let (mut found, _) = case.find(&key).await.expect(case.name);
        let mut renewed = meta("a2");
        std::mem::swap(renewed.extensions_mut(), found.extensions_mut());
        case.storage.update_meta(&key, &renewed, &span()).await.expect("an answer");
        miss.write_body(bytes(100_000), true).await.expect("a chunk");
        miss.finish().await.expect("an end");
        case.pool.wait_all().await;
        let body = case.body(&key).await.expect(case.name);
        assert_eq!(body.len(), 200_000, "{}: it is stored", case.name);
    }
}

#[tokio::test]
async fn a_validation_does_not_make_fresh_what_was_expired_meanwhile() {
    for fresh in [3600, 0] {
        for case in cases().await {
            let key = case.storage.asked(key("/film"));
            let compact = key.to_compact();
            // What is stale already has no freshness to lose.
            case.store(&key, &crate::common::meta_for("a", Duration::from_secs(fresh)), b"two reels").await;
            let (mut found, _) = case.find(&key).await.expect(case.name);
            // The origin has answered that nothing has changed; then it has, and somebody says so.
            let target = PurgeTarget::Active(&compact);
            let outcome = case.storage.expire(target, &span()).await.expect("it expires");
            assert_eq!(outcome, PurgeOutcome::Expired, "{}", case.name);
            let mut renewed = meta("a2");
            std::mem::swap(renewed.extensions_mut(), found.extensions_mut());
            case.storage.update_meta(&key, &renewed, &span()).await.expect("an answer");
            let (found, _) = case.find(&key).await.expect(case.name);
            assert!(!found.is_fresh(SystemTime::now() + Duration::from_secs(1)), "{}", case.name);
        }
    }
}

#[tokio::test]
async fn what_was_asked_for_before_a_purge_is_not_stored() {
    for case in cases().await {
        let key = case.storage.asked(key("/film"));
        // The origin reads what there is; then that changes, and is purged; then the answer comes.
        assert_eq!(case.purge(&key, PurgeType::Invalidation).await, PurgeOutcome::NotFound, "{}", case.name);
        let mut miss = case.storage.get_miss_handler(&key, &meta("a"), &span()).await.expect("a writer");
        let tag = miss.streaming_write_tag().expect("a tag").to_vec();
        let tagged = case.storage.lookup_streaming_write(&key, Some(&tag), &span()).await.expect("a lookup");
        let (_, mut own) = tagged.expect("who asked for it gets it");
        miss.write_body(Bytes::from_static(b"the older one"), false).await.expect("a chunk");
        assert!(case.find(&key).await.is_none(), "{}: who asks later does not", case.name);
        miss.finish().await.expect("an end");
        assert_eq!(read(&mut own).await.expect("a body"), "the older one", "{}", case.name);
        case.pool.wait_all().await;
        assert!(case.find(&key).await.is_none(), "{}", case.name);
        let key = case.storage.asked(key);
        case.store(&key, &meta("b"), b"the newer one").await;
        assert_eq!(case.body(&key).await.as_deref(), Some(&b"the newer one"[..]), "{}", case.name);
    }
}

#[tokio::test]
async fn a_response_with_more_fields_than_can_be_read_is_not_begun() {
    let case = case("moka").await;
    let mut meta = meta("a");
    for n in 0..300 {
        meta.response_header_mut().append_header(format!("x-{n}"), "1").expect("a field");
    }
    let begun = case.storage.get_miss_handler(&key("/film"), &meta, &span()).await;
    assert!(begun.is_err(), "its reader would find nothing, which Pingora does not bear");
}

#[tokio::test]
async fn everything_goes_at_once() {
    for case in cases().await {
        case.store(&key("/film"), &meta("a"), b"two reels").await;
        case.storage.clear().await.expect("an invalidation");
        assert!(case.find(&key("/film")).await.is_none(), "{}", case.name);
    }
}

#[tokio::test]
async fn a_writer_that_is_dropped_leaves_nothing() {
    for case in cases().await {
        let key = key("/film");
        case.store(&key, &meta("a"), b"the older one").await;
        let mut miss = case.storage.get_miss_handler(&key, &meta("b"), &span()).await.expect("a writer");
        miss.write_body(bytes(300_000), false).await.expect("a chunk");
        drop(miss);
        case.pool.wait_all().await;
        let (found, mut hit) = case.find(&key).await.expect(case.name);
        assert_eq!(etag(&found), "a", "{}: what was there stays", case.name);
        assert_eq!(read(&mut hit).await.expect("a body"), "the older one", "{}", case.name);
        let other = crate::common::key("/other");
        let mut miss = case.storage.get_miss_handler(&other, &meta("b"), &span()).await.expect("a writer");
        miss.write_body(bytes(300_000), true).await.expect("a chunk");
        drop(miss);
        case.pool.wait_all().await;
        assert!(case.find(&other).await.is_none(), "{}: not finished is not stored", case.name);
    }
}

#[tokio::test]
async fn bodies_are_read_from_anywhere() {
    let all = bytes(200_000);
    for case in cases().await {
        let key = key("/film");
        case.store(&key, &meta("a"), &all).await;
        for below in [false, true] {
            if below && !case.has_lower {
                continue;
            }
            if below {
                case.demote(&key).await;
            }
            let (_, mut hit) = case.find(&key).await.expect(case.name);
            assert!(hit.can_seek() && hit.can_seek_multipart(), "{}", case.name);
            let what = format!("{}, below {below}", case.name);
            for (start, end) in
                [(5, Some(10)), (100, None), (0, Some(1)), (70_000, Some(140_000)), (199_999, None)]
            {
                hit.seek(start, end).expect(&what);
                let end = end.unwrap_or(all.len());
                assert_eq!(read(&mut hit).await.expect(&what), all[start..end], "{what}: {start}..{end}");
            }
            // The end may be behind that of the body; the start may not.
            hit.seek(150_000, Some(1_000_000)).expect(&what);
            assert_eq!(read(&mut hit).await.expect(&what), all[150_000..], "{what}");
            hit.seek(200_000, None).expect_err(&what);
            hit.seek(1_000_000, Some(1_000_001)).expect_err(&what);
            // In the middle of a part, and then several parts.
            hit.seek(0, None).expect(&what);
            hit.read_body().await.expect(&what).expect(&what);
            for (start, end) in [(10, 20), (0, 5), (199_990, 200_000)] {
                hit.seek_multipart(start, Some(end)).expect(&what);
                assert_eq!(
                    read(&mut hit).await.expect(&what),
                    all[start..end],
                    "{what}: part {start}..{end}"
                );
            }
        }
        let empty = crate::common::key("/empty");
        case.store(&empty, &meta("a"), b"").await;
        let (_, mut hit) = case.find(&empty).await.expect(case.name);
        hit.seek(0, None).expect("an empty body has a beginning");
        assert_eq!(hit.read_body().await.expect("a read"), None, "{}", case.name);
    }
}

#[tokio::test]
async fn variants_are_told_apart() {
    for case in cases().await {
        let (primary, one, other) = (key("/film"), variant("/film", 1), variant("/film", 2));
        case.store(&primary, &meta("primary"), b"the first").await;
        for (key, name) in [(&one, "one"), (&other, "other")] {
            assert!(case.find(key).await.is_none(), "{}", case.name);
            let mut meta = meta(name);
            meta.set_variance_key(*key.get_variance_key().expect("a variant"));
            case.store(key, &meta, name.as_bytes()).await;
        }
        for (key, name) in [(&one, "one"), (&other, "other")] {
            let (found, mut hit) = case.find(key).await.expect(case.name);
            assert_eq!(found.variance().as_ref(), key.get_variance_key(), "{}", case.name);
            assert_eq!(read(&mut hit).await.expect("a body"), name, "{}", case.name);
        }
        case.purge(&one, PurgeType::Invalidation).await;
        assert!(case.find(&one).await.is_none(), "{}", case.name);
        assert_eq!(case.body(&other).await.as_deref(), Some(&b"other"[..]), "{}: another variant", case.name);
        assert_eq!(case.body(&primary).await.as_deref(), Some(&b"the first"[..]), "{}", case.name);
    }
}

#[tokio::test]
async fn tags_find_what_carries_them() {
    for case in cases().await {
        let (film, book) = (key("/film"), key("/book"));
        let mut tagged = meta("a");
        tagged.extensions_mut().insert(Tags(vec!["films".to_owned(), "menu".to_owned()]));
        case.store(&film, &tagged, b"two reels").await;
        case.store(&book, &meta("b"), b"a page").await;
        // One that is on its way when its tag is invalidated.
        let mut miss =
            case.storage.get_miss_handler(&key("/late"), &tagged, &span()).await.expect("a writer");
        miss.write_body(Bytes::from_static(b"late"), false).await.expect("a chunk");
        case.storage.invalidate_tags(&["films"]).await.expect("an invalidation");
        miss.finish().await.expect("an end");
        case.pool.wait_all().await;
        assert!(case.find(&film).await.is_none(), "{}", case.name);
        assert!(case.find(&key("/late")).await.is_none(), "{}: it began before", case.name);
        assert_eq!(case.body(&book).await.as_deref(), Some(&b"a page"[..]), "{}", case.name);
    }
}

#[tokio::test]
async fn a_storage_that_is_closed_is_opened_again_with_what_it_had() {
    let first = case("moka over disk").await;
    let key = key("/film");
    first.store(&key, &meta("a"), &bytes(100_000)).await;
    first.storage.close().await.expect("a clean end");
    let pool = hitbox_backend::OffloadPool::new();
    use hitbox_backend::{CacheBackend, Compose};
    let layers = crate::common::moka().compose(crate::common::disk(&first.folder).await, pool.shared());
    let again = hitbox_pingora::BackendStorage::builder(layers.shared())
        .name(first.storage.name())
        .offload(pool.shared())
        .build()
        .leak();
    let (found, mut hit) = again.lookup(&key, &span()).await.expect("a lookup").expect("it was stored");
    assert_eq!(etag(&found), "a");
    assert_eq!(read(&mut hit).await.expect("a body"), bytes(100_000));
}
