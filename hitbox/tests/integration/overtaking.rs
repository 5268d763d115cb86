//! Writes that fail or take long while later ones succeed: the later ones stay.

use std::sync::Arc;

use crate::common::gated::{Gate, Gated};
use crate::common::{answer, until};
use hitbox::backend::operation::Batch;
use hitbox::backend::operation::{Removal, Write, WriteOptions};
use hitbox::backend::{
    Backend, CacheBackend, Compose, CompositionBackend, IntoBackend, LeafOutcome, OffloadPool, Raw,
    SequentialWritePolicy,
};
use hitbox::core::{CacheKey, CacheValue};
use hitbox::{Cache, ToKey};
use hitbox_testkit::MemoryBackend;

fn key(key: u64) -> CacheKey {
    key.to_key("cache").into_owned()
}

fn build(backend: impl Backend) -> Cache<u64> {
    Cache::builder(backend).build().expect("a cache")
}

fn over_one(store: Gated) -> Cache<u64> {
    // A bare store.
    Cache::builder(store).build().expect("a cache")
}

fn over_two(store: Gated) -> Cache<u64> {
    let clock = Arc::new(hitbox::core::ManualClock::new());
    build(MemoryBackend::labelled("upper", clock).compose(store, OffloadPool::new().shared()))
}

/// Batches fail while a later write of one of their keys waits behind them.
async fn batch_fails(cache: Cache<u64>, store: Gated, removes: bool, layers: usize) {
    cache.insert(1_u64, 1).await.expect("a write");
    let gates = [store.gate(&key(1), true), store.gate(&key(2), true)];
    let batch = tokio::spawn({
        let cache = cache.clone();
        async move {
            if removes {
                cache.remove_many(&[1_u64, 2]).await.into_iter().filter(Result::is_err).count()
            } else {
                cache.insert_many([(1_u64, 10), (2, 20)]).await.into_iter().filter(Result::is_err).count()
            }
        }
    });
    until("the batch waits for the store", || store.waiting() == 2).await.expect("it waits");
    let later = tokio::spawn({
        let cache = cache.clone();
        async move { cache.insert(1_u64, 11).await }
    });
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    gates.iter().for_each(Gate::open);
    // A layer that succeeds is enough for a write, and not for a removal.
    let failures = if layers == 1 || removes { 2 } else { 0 };
    assert_eq!(answer(batch).await, Ok(failures));
    answer(later).await.expect("no hang").expect("a write");
    assert_eq!((cache.get(1_u64).await.expect("a read"), store.number(&key(1))), (Some(11), Some(11)));
    let dirty = |number| cache.backend().layout().leaves().iter().any(|leaf| leaf.is_dirty(&key(number)));
    assert!(!dirty(1), "the later write is taken for failed");
    assert!(dirty(2), "what has failed is not served");
}

#[tokio::test]
async fn case_a10_a_write_after_a_batch_that_fails_is_not_taken_for_failed() {
    for removes in [false, true] {
        let store = Gated::default();
        batch_fails(over_one(store.clone()), store, removes, 1).await;
        let store = Gated::default();
        batch_fails(over_two(store.clone()), store, removes, 2).await;
    }
}

/// One layer fails at once, the other takes its time: meanwhile the first gets a later write.
#[tokio::test]
async fn case_a10_a_layer_that_has_a_later_write_is_up_to_date() {
    let (upper, lower) = (Gated::default(), Gated::default());
    let pool = OffloadPool::new();
    let composition: CompositionBackend = upper.clone().compose(lower.clone(), pool.shared());
    let cache = build(composition);
    for batch in [false, true] {
        let (fails, slow) = (upper.gate(&key(1), true), lower.gate(&key(1), false));
        let insert = |value: u64| {
            let cache = cache.clone();
            tokio::spawn(async move {
                if batch {
                    cache.insert_many([(1_u64, value), (9, 0)]).await.remove(0)
                } else {
                    cache.insert(1_u64, value).await
                }
            })
        };
        let before = (upper.waiting(), lower.waiting());
        let first = insert(1);
        let waits = || (upper.waiting(), lower.waiting()) == (before.0 + 1, before.1 + 1);
        until("both layers are asked", waits).await.expect("they are");
        let second = insert(2);
        fails.open();
        until("the later write reaches the upper layer", || upper.number(&key(1)) == Some(2))
            .await
            .expect("it does");
        slow.open();
        let first = answer(first).await.expect("no hang").expect("one layer is enough");
        assert!(matches!(first.leaves()[0].outcome, LeafOutcome::Unknown(_)), "{first:?}");
        answer(second).await.expect("no hang").expect("a write");
        assert_eq!((upper.number(&key(1)), lower.number(&key(1))), (Some(2), Some(2)));
        assert_eq!(cache.statistics().recovering, 0, "nothing is out of date");
        cache.remove_many(&[1_u64, 9]).await;
    }
}

/// The upper layer answers at once, the lower one does not: while it is waited for, the upper one is not written again.
#[tokio::test]
async fn a_layer_that_has_answered_is_not_written_again() {
    let clock = Arc::new(hitbox::core::ManualClock::new());
    let upper = MemoryBackend::labelled("upper", clock.clone());
    let faults = hitbox_testkit::Faults::default();
    let lower = MemoryBackend::labelled("lower", clock.clone());
    let slow = hitbox_testkit::Faulty::new(lower.clone(), &faults, clock.clone());
    let pool = OffloadPool::new();
    let backend = upper.clone().compose(slow, pool.shared());
    let value = |number: u64| CacheValue::new(Raw::live(number));
    let change = |number: Option<u64>| {
        let options = WriteOptions::of(&backend.layout().begin_write(&key(1)));
        match number {
            Some(number) => {
                backend.write(Batch::one(Write::new(key(1), value(number)).with_options(options)))
            }
            None => backend.remove(Batch::one(Removal::new(key(1)).with_options(options))),
        }
    };
    let stored = |layer: &MemoryBackend| {
        let found = hitbox::backend::wrap::Wrapper::inner(layer).store().get(&key(1));
        found.map(|value| value.data().decode::<u64>().expect("a number"))
    };
    for operation in [hitbox_testkit::Operation::Write, hitbox_testkit::Operation::Remove] {
        faults.always(operation, hitbox_testkit::Fault::Delay(crate::common::millis(1)));
    }
    let changes = [(Some(1), Some(2)), (Some(3), None), (None, Some(4)), (Some(5), Some(6))];
    for (first, second) in changes {
        // Both begin before anybody is polled.
        let (earlier, later) = (change(first), change(second));
        let ticking = async {
            loop {
                clock.advance(crate::common::millis(1));
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            _ = futures_util::future::join(later, earlier) => {}
            () = ticking => {}
        }
        pool.wait_all().await;
        assert_eq!((stored(&upper), stored(&lower)), (second, second), "{first:?}, then {second:?}");
    }
    // What the first answer said is what the receipt says.
    let removed = change(None);
    let ticking = async {
        loop {
            clock.advance(crate::common::millis(1));
            tokio::task::yield_now().await;
        }
    };
    let receipt = tokio::select! {
        biased;
        receipts = removed => receipts.into_one().expect("a receipt"),
        () = ticking => unreachable!("it never ends"),
    };
    assert_eq!(receipt.removed(), 2, "{receipt:?}");
}

/// How a key is changed.
#[derive(Clone, Copy, Debug)]
enum Change {
    Set,
    SetMany,
    Delete,
    DeleteMany,
}

impl Change {
    /// Whether the change counts as done.
    async fn make(self, backend: Arc<dyn Backend>) -> bool {
        let (one, other) = (key(1), key(2));
        let entry = || CacheValue::new(2_u64);
        match self {
            Self::Set => backend.set_one(&one, entry()).await.is_ok(),
            Self::SetMany => {
                let done = backend.set_many(vec![(one, entry()), (other, entry())]).await;
                done.first().is_some_and(Result::is_ok)
            }
            Self::Delete => backend.delete_one(&one).await.is_ok(),
            Self::DeleteMany => backend.delete_many(&[one, other]).await.iter().all(Result::is_ok),
        }
    }
}

/// A store stands in two places. The first fails, another change of the key comes meanwhile that brings no value, and then
/// it is the turn of the second place.
#[tokio::test]
async fn a_store_in_two_places_has_what_was_acknowledged() {
    for change in [Change::Set, Change::SetMany, Change::Delete, Change::DeleteMany] {
        let (twice, between) = (Gated::default(), Gated::default());
        let leaf: Arc<dyn Backend> = twice.clone().into_shared();
        let pool = OffloadPool::new();
        let lower =
            between.clone().compose(leaf.clone(), pool.shared()).with_write(SequentialWritePolicy::new());
        let backend: Arc<dyn Backend> = Arc::new(leaf.compose(lower, pool.shared()));
        backend.set_one(&key(1), CacheValue::new(1_u64)).await.expect("a write");
        backend.set_one(&key(2), CacheValue::new(1_u64)).await.expect("a write");
        let (fails, slow) = (twice.gate(&key(1), true), between.gate(&key(1), false));
        let (asked, asked_between) = (twice.waiting(), between.waiting());
        let first = tokio::spawn(change.make(backend.clone()));
        let waits = || (twice.waiting(), between.waiting()) == (asked + 1, asked_between + 1);
        until("the first place and the other store are asked", waits).await.expect("they are");
        let meanwhile = tokio::spawn({
            let backend = backend.clone();
            async move { backend.set_metadata(&key(1), [("m".to_owned(), "n".into())].into()).await }
        });
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        fails.open();
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        slow.open();
        let is_done = answer(first).await.expect("no hang");
        let changed = answer(meanwhile).await.expect("no hang");
        pool.wait_all().await;
        let found = backend.get_one::<u64>(&key(1)).await.expect("a read").map(|value| value.into_data());
        let expected = match change {
            Change::Set | Change::SetMany => {
                assert!(is_done, "{change:?}: one place is enough");
                Some(2)
            }
            Change::Delete | Change::DeleteMany => None,
        };
        assert_eq!(found, expected, "{change:?}, {changed:?}");
    }
}
