//! The usual compositions, with background refill on. Whatever they leave out is in the builders of the backends.

use hitbox_backend::{Compose, CompositionBackend, IntoBackend, RefillPolicy};

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
pub fn memory(max_entries: u64) -> hitbox_core::BackendResult<hitbox_moka::MokaBackend> {
    hitbox_moka::MokaBackend::builder().max_entries(max_entries).build()
}

/// Memory over Redis.
///
/// # Errors
/// If there is no room or the address is none. Redis is connected when it is first used.
#[cfg(all(feature = "moka", feature = "redis"))]
pub fn memory_over_redis(max_entries: u64, url: &str) -> hitbox_core::BackendResult<CompositionBackend> {
    Ok(over(memory(max_entries)?, hitbox_redis::RedisBackend::builder(url).build()?))
}

/// Memory over a folder on disk with room for so many bytes.
///
/// # Errors
/// If there is no room, or the folder cannot be used.
#[cfg(all(feature = "moka", feature = "disk"))]
pub async fn memory_over_disk(
    max_entries: u64,
    folder: impl AsRef<std::path::Path>,
    max_bytes: u64,
) -> hitbox_core::BackendResult<CompositionBackend> {
    let disk = hitbox_disk::DiskBackend::builder(folder).max_bytes(max_bytes).open().await?;
    Ok(over(memory(max_entries)?, disk))
}

/// Memory over Redis over a folder on disk.
///
/// # Errors
/// As [`memory_over_redis`] and [`memory_over_disk`].
#[cfg(all(feature = "moka", feature = "redis", feature = "disk"))]
pub async fn memory_over_redis_over_disk(
    max_entries: u64,
    url: &str,
    folder: impl AsRef<std::path::Path>,
    max_bytes: u64,
) -> hitbox_core::BackendResult<CompositionBackend> {
    let disk = hitbox_disk::DiskBackend::builder(folder).max_bytes(max_bytes).open().await?;
    let redis = hitbox_redis::RedisBackend::builder(url).build()?;
    Ok(over(memory(max_entries)?, over(redis, disk).with_label("shared")))
}
