//! What the checks are written with.

use std::sync::Arc;
use std::time::Duration;

use hitbox_backend::operation::Batch;
use hitbox_backend::operation::{Removal, Write};
use hitbox_backend::{Backend, CacheBackend, Cacheable, LeafStatistics, Raw, Receipt};
use hitbox_core::{BackendError, CacheContext, CacheKey, CacheValue, ErrorKind, Lifetime, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{Faults, World};

/// What a check found: nothing, or what is wrong.
pub type Verdict = Result<(), String>;

/// A value of some shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// A number.
    pub id: u64,
    /// A text.
    pub name: String,
    /// A list.
    pub tags: Vec<String>,
}

impl Item {
    /// The item with this number.
    pub fn new(id: u64) -> Self {
        Self { id, name: format!("item {id}"), tags: vec!["a".to_owned(), "ü".to_owned()] }
    }
}

macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(format!($($message)+));
        }
    };
}

macro_rules! ensure_eq {
    ($left:expr, $right:expr, $($message:tt)+) => {
        match (&$left, &$right) {
            (left, right) => {
                if left != right {
                    return Err(format!("{}: {:?} instead of {:?}", format!($($message)+), left, right));
                }
            }
        }
    };
}

pub(super) use {ensure, ensure_eq};

pub(super) fn key(name: &str) -> CacheKey {
    CacheKey::builder("suite").part("name", name).build()
}

pub(super) fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The kinds of an error, or of its causes.
pub(super) fn error_kinds(error: &BackendError) -> Vec<ErrorKind> {
    let mut kinds: Vec<ErrorKind> = match error.causes() {
        [] => vec![error.kind()],
        causes => causes.iter().flat_map(error_kinds).collect(),
    };
    kinds.dedup();
    kinds
}

/// Stores a value with these instants.
pub(super) async fn put<T: Cacheable>(
    backend: &dyn Backend,
    key: &CacheKey,
    value: T,
    lifetime: Lifetime,
) -> Verdict {
    let value = CacheValue::new(value).with_lifetime(lifetime);
    backend.set(key, value, &mut CacheContext::new()).await.map(drop).map_err(text)
}

/// Stores a value that never ends.
pub(super) async fn put_forever<T: Cacheable>(backend: &dyn Backend, key: &CacheKey, value: T) -> Verdict {
    put(backend, key, value, Lifetime::FOREVER).await
}

/// Stores an entry, and says what came of it in each leaf.
pub(super) async fn write_raw(backend: &dyn Backend, write: Write) -> Receipt {
    backend.write(Batch::one(write)).await.into_one().unwrap_or_default()
}

/// The same for a value as it is.
pub(super) async fn put_raw(backend: &dyn Backend, key: &CacheKey, raw: Raw) -> Receipt {
    write_raw(backend, Write::new(key.clone(), CacheValue::new(raw))).await
}

/// Removes a key, and says what came of it in each leaf.
pub(super) async fn remove_raw(backend: &dyn Backend, key: &CacheKey) -> Receipt {
    backend.remove(Batch::one(Removal::new(key.clone()))).await.into_one().unwrap_or_default()
}

/// The whole entry.
pub(super) async fn entry<T: Cacheable>(
    backend: &dyn Backend,
    key: &CacheKey,
) -> Result<Option<CacheValue<T>>, String> {
    backend.get(key, &mut CacheContext::new()).await.map_err(text)
}

/// The value.
pub(super) async fn value<T: Cacheable>(backend: &dyn Backend, key: &CacheKey) -> Result<Option<T>, String> {
    Ok(entry(backend, key).await?.map(CacheValue::into_data))
}

/// The number of the item under a key.
pub(super) async fn id(backend: &dyn Backend, key: &CacheKey) -> Result<Option<u64>, String> {
    Ok(value::<Item>(backend, key).await?.map(|item| item.id))
}

pub(super) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(super) fn after(world: &World, millis: u64) -> Timestamp {
    use hitbox_core::Clock;
    world.clock.now() + ms(millis)
}

/// Stale, expired and dropped after so many milliseconds.
pub(super) fn lifetime(world: &World, stale: u64, expire: u64, retain: u64) -> Lifetime {
    Lifetime::new(Some(after(world, stale)), Some(after(world, expire)), Some(after(world, retain)))
}

/// Whether all leaves keep values as they are.
pub(super) fn is_live(backend: &Arc<dyn Backend>) -> bool {
    backend.layout().capabilities().keeps_live_values
}

/// The sum of one statistic over all leaves.
pub(super) fn total(backend: &dyn Backend, of: impl Fn(&LeafStatistics) -> u64) -> u64 {
    backend.layout().statistics().iter().map(of).sum()
}

/// Whether a future has ended after one poll.
pub(super) async fn ends_at_once<F: Future + Unpin>(future: &mut F) -> bool {
    let mut future = std::pin::Pin::new(future);
    std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx).is_ready())).await
}

/// Waits until these faults hold so many calls up.
pub(super) async fn held_up(faults: &Faults, calls: usize) -> Verdict {
    let wait = async {
        while faults.held_up() < calls {
            tokio::task::yield_now().await;
        }
    };
    let limit = Duration::from_secs(5);
    tokio::time::timeout(limit, wait)
        .await
        .map_err(|_| "the call that was to be held up did not come".to_owned())
}

/// Waits for a call that is held up, and moves the clock.
pub(super) async fn advance_when_held_up(world: &World, faults: &Faults, millis: u64) -> Verdict {
    held_up(faults, 1).await?;
    world.advance_millis(millis);
    Ok(())
}

/// Lets the background work come to its end, moving the clock whenever these faults hold something up.
pub(super) async fn background_ends(world: &World, faults: &[&Faults]) {
    while world.pool.statistics().depth > 0 {
        if faults.iter().any(|faults| faults.held_up() > 0) {
            world.advance_millis(2_000);
        }
        tokio::task::yield_now().await;
    }
}
