//! A hit in memory allocates nothing, at any depth, static or `dyn`, also of a copy that came by refill.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use hitbox_backend::wrap::AdmissionRule;
use hitbox_backend::{Backend, CacheBackend, Cacheable, Compose, RefillPolicy, Wrap};
use hitbox_core::{CacheContext, CacheKey, CacheValue, ResponseSource};
use hitbox_testkit::broken::{Defect, Defective};
use hitbox_testkit::{MemoryBackend, World};
use serde::{Deserialize, Serialize};

/// Fewer than the in-memory cache itself collects before it does its bookkeeping.
const HITS: usize = 20;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct User {
    name: String,
    roles: Vec<u32>,
}

fn key() -> CacheKey {
    CacheKey::builder("user").part("id", 7).build()
}

/// A hit, which must be answered by the first poll.
fn hit<T: Cacheable>(cache: &dyn Backend, key: &CacheKey, leaf: &str) -> T {
    let mut context = CacheContext::new();
    let answer = {
        let read = pin!(cache.get::<T>(key, &mut context));
        read.poll(&mut Context::from_waker(Waker::noop()))
    };
    let Poll::Ready(Ok(Some(value))) = answer else { panic!("no hit at once") };
    let ResponseSource::Backend(label) = context.source() else { panic!("no source") };
    assert!(label.as_str().ends_with(leaf), "{label} answered");
    value.into_data()
}

fn allocations<T: Cacheable>(cache: &dyn Backend, leaf: &str) -> u64 {
    let key = key();
    // The first hit of a refilled copy decodes it.
    drop(hit::<T>(cache, &key, leaf));
    let counted = allocation_counter::measure(|| {
        for _ in 0..HITS {
            std::hint::black_box(hit::<T>(cache, &key, leaf));
        }
    });
    counted.count_total
}

async fn set<T: Cacheable>(cache: &dyn Backend, value: &T) {
    let value = CacheValue::new(value.clone());
    cache.set(&key(), value, &mut CacheContext::new()).await.expect("a write");
}

/// Every expression with memory on top.
async fn expressions() -> Vec<(&'static str, Arc<dyn Backend>)> {
    let world = World::new();
    let (moka, redis, disk) = (
        || async { crate::common::moka(world.clone()).await },
        || async { crate::common::redis(world.clone()).await },
        || async { crate::common::disk(world.clone()).await },
    );
    let pool = || world.pool.shared();
    let three = moka().await.compose(redis().await, pool()).with_label("inner").compose(disk().await, pool());
    let right = redis().await.compose(disk().await, pool());
    let behind_dyn = moka().await.shared().compose(redis().await.shared(), pool()).shared();
    let behind_dyn = behind_dyn.compose(disk().await.shared(), pool()).shared();
    vec![
        ("one leaf", Arc::new(moka().await)),
        ("quick", Arc::new(crate::common::quick(world.clone()).await)),
        ("quick in two levels", {
            let quick = crate::common::quick(world.clone()).await;
            let inner = quick.compose(redis().await, pool()).with_label("inner");
            Arc::new(inner.compose(disk().await, pool()))
        }),
        ("a single composition", Arc::new(moka().await.compose(redis().await, pool()))),
        ("three nested levels, left", Arc::new(three)),
        ("three nested levels, right", Arc::new(moka().await.compose(right, pool()))),
        ("three levels behind dyn", behind_dyn),
        (
            "with refill and wrappers",
            Arc::new(
                moka()
                    .await
                    .ttl_cap(std::time::Duration::from_secs(1_000))
                    .admission(AdmissionRule::Always)
                    .coalesced()
                    .deadline(std::time::Duration::from_secs(1))
                    .compose(disk().await, pool())
                    .with_refill(RefillPolicy::Always),
            ),
        ),
    ]
}

async fn allocates_nothing<T: Cacheable>(value: T) {
    for (name, cache) in expressions().await {
        set(&*cache, &value).await;
        let leaf = if name.starts_with("quick") { "quick" } else { "moka" };
        assert_eq!(allocations::<T>(&*cache, leaf), 0, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hits_in_memory_allocate_nothing() {
    allocates_nothing(Arc::new(User { name: "Ada".to_owned(), roles: vec![1, 2, 3] })).await;
    allocates_nothing(Bytes::from(vec![7; 100_000])).await;
}

/// The value is written to the lower layer alone; a read fills the upper one.
async fn refilled<T: Cacheable + PartialEq + std::fmt::Debug>(
    value: T,
    lower: Arc<dyn Backend>,
    world: &World,
) {
    set(&*lower, &value).await;
    let memory = crate::common::moka(world.clone()).await;
    let inner = memory.compose(lower, world.pool.shared()).with_refill(RefillPolicy::Awaited);
    let cache = inner.compose(MemoryBackend::new(world.shared_clock()), world.pool.shared());
    let found = cache.get::<T>(&key(), &mut CacheContext::new()).await.expect("a read");
    assert_eq!(found.map(CacheValue::into_data).as_ref(), Some(&value));
    assert_eq!(allocations::<T>(&cache, "moka"), 0, "a refilled copy");
    assert_eq!(hit::<T>(&cache, &key(), "moka"), value);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hits_of_refilled_copies_allocate_nothing() {
    let world = World::new();
    let user = Arc::new(User { name: "Ada".to_owned(), roles: vec![1, 2, 3] });
    let body = Bytes::from(vec![7; 100_000]);
    refilled(user.clone(), Arc::new(crate::common::redis(world.clone()).await), &world).await;
    refilled(user, Arc::new(crate::common::disk(world.clone()).await), &world).await;
    refilled(body.clone(), Arc::new(crate::common::redis(world.clone()).await), &world).await;
    refilled(body, Arc::new(crate::common::disk(world.clone()).await), &world).await;
}

#[tokio::test]
async fn a_leaf_that_copies_payloads_is_found_out() {
    let world = World::new();
    let copies = Defective::new(Defect::CopiesPayload, world.shared_clock());
    let cache = copies.compose(MemoryBackend::new(world.shared_clock()), world.pool.shared());
    set(&cache, &Bytes::from(vec![7; 1_000])).await;
    assert!(allocations::<Bytes>(&cache, "memory") >= HITS as u64);
}
