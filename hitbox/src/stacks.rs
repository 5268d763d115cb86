//! The usual compositions, with background refill on. Whatever they leave out is in the builders of the backends.

#[cfg(all(feature = "moka", feature = "disk"))]
use std::path::Path;

use hitbox_backend::{Compose, CompositionBackend, IntoBackend, RefillPolicy};
#[cfg(feature = "moka")]
use hitbox_core::BackendResult;

/// `upper` over `lower`: what is found below is put above in the background.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use hitbox::{Cache, moka::MokaBackend, stacks};
/// let small = MokaBackend::builder().label("small").max_entries(100).build()?;
/// let large = MokaBackend::builder().label("large").max_entries(100_000).build()?;
/// let cache: Cache<u32> = Cache::builder(stacks::over(small, large)).build()?;
/// # Ok(()) }
/// ```
pub fn over<Upper, Lower>(
    upper: impl IntoBackend<Upper>,
    lower: impl IntoBackend<Lower>,
) -> CompositionBackend {
    upper.over(lower).with_refill(RefillPolicy::Always)
}

/// Memory with room for so many entries.
///
/// # Errors
/// If that is none.
#[cfg(feature = "moka")]
pub fn memory(max_entries: u64) -> BackendResult<hitbox_moka::MokaBackend> {
    hitbox_moka::MokaBackend::builder().max_entries(max_entries).build()
}

/// Memory over Redis.
///
/// # Errors
/// If there is no room or the address is none. Redis is connected when it is first used.
#[cfg(all(feature = "moka", feature = "redis"))]
pub fn memory_over_redis(max_entries: u64, url: &str) -> BackendResult<CompositionBackend> {
    Stacks::default().memory_over_redis(max_entries, url)
}

/// Memory over a folder on disk with room for so many bytes.
///
/// # Errors
/// If there is no room, or the folder cannot be used.
#[cfg(all(feature = "moka", feature = "disk"))]
pub async fn memory_over_disk(
    max_entries: u64,
    folder: impl AsRef<Path>,
    max_bytes: u64,
) -> BackendResult<CompositionBackend> {
    Stacks::default().memory_over_disk(max_entries, folder, max_bytes).await
}

/// Memory over Redis over a folder on disk.
///
/// # Errors
/// As [`memory_over_redis`] and [`memory_over_disk`].
#[cfg(all(feature = "moka", feature = "redis", feature = "disk"))]
pub async fn memory_over_redis_over_disk(
    max_entries: u64,
    url: &str,
    folder: impl AsRef<Path>,
    max_bytes: u64,
) -> BackendResult<CompositionBackend> {
    Stacks::default().memory_over_redis_over_disk(max_entries, url, folder, max_bytes).await
}

/// The stacks of this module with this schema of what is stored outside the process. What was stored with another schema is a miss.
///
/// Raise it when what the values mean changes and their type does not say so. Releases that run side by side with two schemas
/// replace each other's entries; [`CacheBuilder::schema`](crate::CacheBuilder::schema) keeps them apart, since it gives the keys a
/// version.
///
/// ```
/// # #[cfg(feature = "redis")] fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use hitbox::{Cache, stacks};
/// let stack = stacks::schema(2).memory_over_redis(10_000, "redis://127.0.0.1")?;
/// let prices: Cache<u32> = Cache::builder(stack).build()?;
/// # Ok(()) }
/// # #[cfg(not(feature = "redis"))] fn main() {}
/// ```
#[cfg(all(feature = "moka", any(feature = "redis", feature = "disk")))]
pub fn schema(schema: u32) -> Stacks {
    Stacks { schema }
}

/// What the layers of a stack have in common: made by [`schema`].
#[cfg(all(feature = "moka", any(feature = "redis", feature = "disk")))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Stacks {
    schema: u32,
}

#[cfg(all(feature = "moka", any(feature = "redis", feature = "disk")))]
impl Stacks {
    /// As [`memory_over_redis()`].
    ///
    /// # Errors
    /// If there is no room or the address is none.
    #[cfg(feature = "redis")]
    pub fn memory_over_redis(self, max_entries: u64, url: &str) -> BackendResult<CompositionBackend> {
        Ok(over(memory(max_entries)?, self.redis(url)?))
    }

    /// As [`memory_over_disk()`].
    ///
    /// # Errors
    /// If there is no room, or the folder cannot be used.
    #[cfg(feature = "disk")]
    pub async fn memory_over_disk(
        self,
        max_entries: u64,
        folder: impl AsRef<Path>,
        max_bytes: u64,
    ) -> BackendResult<CompositionBackend> {
        Ok(over(memory(max_entries)?, self.disk(folder.as_ref(), max_bytes).await?))
    }

    /// As [`memory_over_redis_over_disk()`].
    ///
    /// # Errors
    /// As [`memory_over_redis`](Self::memory_over_redis) and [`memory_over_disk`](Self::memory_over_disk).
    #[cfg(all(feature = "redis", feature = "disk"))]
    pub async fn memory_over_redis_over_disk(
        self,
        max_entries: u64,
        url: &str,
        folder: impl AsRef<Path>,
        max_bytes: u64,
    ) -> BackendResult<CompositionBackend> {
        let disk = self.disk(folder.as_ref(), max_bytes).await?;
        Ok(over(memory(max_entries)?, over(self.redis(url)?, disk).with_label("shared")))
    }

    #[cfg(feature = "redis")]
    fn redis(self, url: &str) -> BackendResult<hitbox_redis::RedisBackend> {
        hitbox_redis::RedisBackend::builder(url).schema(self.schema).build()
    }

    #[cfg(feature = "disk")]
    async fn disk(self, folder: &Path, max_bytes: u64) -> BackendResult<hitbox_disk::DiskBackend> {
        hitbox_disk::DiskBackend::builder(folder).schema(self.schema).max_bytes(max_bytes).open().await
    }
}
