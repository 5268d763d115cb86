//! What a newcomer looks for: calls without a context, lifetimes without a clock.

use std::time::Duration;

use crate::common::seconds;
use hitbox::backend::{CacheBackend, Compose, DeleteStatus};
use hitbox::core::{CacheKey, CacheValue, Timestamp};
use hitbox::moka::MokaBackend;
use hitbox::{Cache, LoadErrorKind, Loaded};

fn moka() -> MokaBackend {
    MokaBackend::builder().build().expect("moka")
}

#[tokio::test]
async fn case_g10_calls_without_context_clock_and_pool() {
    let backend = moka().over(moka());
    let key = CacheKey::builder("n").build();
    let receipt = backend.set_one(&key, CacheValue::new(7_u64).ttl(seconds(60))).await.expect("a write");
    assert_eq!(receipt.leaves().len(), 2);
    let found = backend.get_one::<u64>(&key).await.expect("a read").expect("a value");
    let life =
        found.lifetime().expire().expect("an end").since(Timestamp::from(std::time::SystemTime::now()));
    assert!(life <= seconds(60) && life > seconds(30), "{life:?}");
    assert_eq!(found.into_data(), 7);
    assert_eq!(backend.delete_one(&key).await.expect("a removal"), DeleteStatus::of(2));
    assert!(backend.get_one::<u64>(&key).await.expect("a read").is_none());
}

#[tokio::test]
async fn case_g10_lives_saturate() {
    let key = CacheKey::builder("n").build();
    let backend = moka();
    backend.set_one(&key, CacheValue::new(1_u64).ttl(Duration::MAX)).await.expect("a write");
    assert!(backend.get_one::<u64>(&key).await.expect("a read").is_some());
    backend.set_one(&key, CacheValue::new(1_u64).ttl(Duration::ZERO)).await.expect("a write");
    assert!(backend.get_one::<u64>(&key).await.expect("a read").is_none());
}

#[tokio::test]
async fn case_g11_errors_of_loads_are_sentences() {
    let cache: Cache<u64> = Cache::null();
    let keep = |_| async { Ok::<_, std::io::Error>(Loaded::not_modified()) };
    let error = cache.get_or_load_with("k", keep).await.expect_err("nothing is there to be kept");
    assert_eq!(error.kind(), LoadErrorKind::NothingToKeep);
    let said = error.to_string();
    assert!(
        said.ends_with("says that nothing was modified, and no older value is there to be kept"),
        "{said}"
    );
}
