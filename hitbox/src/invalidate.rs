//! Invalidation by name and by what keys look like, versions, and what can be asked of entries without reading them.

use hitbox_backend::operation::Presence;
use hitbox_backend::{Backend, CacheBackend, Cacheable, DeleteStatus, EntryCount, Receipt};
use hitbox_core::{BackendResult, KeyPattern};

use crate::cache::Cache;
use crate::key::ToKey;

impl<V: Cacheable, B: Backend + ?Sized> Cache<V, B> {
    /// Makes every entry that carries one of these tags invalid, in all layers, however many there are. Loads that are
    /// under way and bring one of them are not stored either. Takes no time that grows with the entries, and holds
    /// after a restart in layers that last. Tags belong to the layers: all caches over them share them.
    ///
    /// ```
    /// # use hitbox::{Cache, stacks};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cache: Cache<u32> = Cache::builder(stacks::memory(100)?).build()?;
    /// cache.entry("moby-dick").tag("books").insert(12).await?;
    /// cache.invalidate_tags(&["books"]).await?;
    /// assert_eq!(cache.get("moby-dick").await?, None);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// If a layer did not record it; the error names it. All layers are tried. This process serves none of these
    /// entries from that layer any more, but after a restart it may, unless the layer has recorded it by then.
    ///
    /// # Cancellation
    /// Compositions finish it in their offload; a leaf alone hides the entries, and may not have recorded it.
    pub async fn invalidate_tags(&self, tags: &[&str]) -> BackendResult<Receipt> {
        self.shared.record_later(self.shared.backend.invalidate_tags(tags).await)
    }

    /// The same for entries that depend on one of these ([`Entry::depends_on`](crate::Entry::depends_on),
    /// [`Loaded::depends_on`](crate::Loaded::depends_on)).
    ///
    /// # Errors
    /// As [`invalidate_tags`](Self::invalidate_tags).
    pub async fn invalidate_dependencies(&self, names: &[&str]) -> BackendResult<Receipt> {
        self.shared.record_later(self.shared.backend.invalidate_dependencies(names).await)
    }

    /// The same for all entries of a namespace of the backend and of those within it; nested ones are joined with `/`.
    /// A `/` or `%` in a name is written `%2F` or `%25`.
    ///
    /// # Errors
    /// As [`invalidate_tags`](Self::invalidate_tags).
    pub async fn flush_namespace(&self, name: &str) -> BackendResult<Receipt> {
        self.shared.record_later(self.shared.backend.flush_namespace(name).await)
    }

    /// The same for all entries of the layers, also those of other caches over them; over a
    /// [`namespace`](hitbox_backend::Wrap::namespace) those of the namespace.
    ///
    /// # Errors
    /// As [`invalidate_tags`](Self::invalidate_tags).
    pub async fn clear(&self) -> BackendResult<Receipt> {
        self.shared.record_later(self.shared.backend.clear().await)
    }

    /// Removes the entries of a key and of all keys of this cache that begin with its parts, from all layers; says how
    /// many distinct keys it removed. `("user",)` means `("user", 1)` and not `("users", 1)`. No load or refill that
    /// began before brings one back. Takes time that grows with the keys that are stored.
    ///
    /// # Errors
    /// Those of the layers, of which all are tried: this process serves none of these entries from a layer that failed, which
    /// removes them as soon as it can; after a restart it may serve those that are left.
    /// [`Unsupported`](hitbox_core::ErrorKind::Unsupported) from layers that cannot list their keys, whose entries stay.
    ///
    /// # Cancellation
    /// Compositions finish it in their offload; a leaf alone hides the entries, and may not have removed them.
    pub async fn invalidate_prefix(&self, key: impl ToKey) -> BackendResult<u64> {
        self.shared.record_later(self.shared.backend.invalidate_prefix(&self.key(&key)).await)
    }

    /// The same for keys of this cache that match a glob: see [`KeyPattern::glob`]. The pattern is for what comes behind
    /// the cache's name; the names of other caches do not matter to it.
    ///
    /// ```
    /// # use hitbox::{Cache, stacks};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cache: Cache<u32> = Cache::builder(stacks::memory(100)?).build()?;
    /// for id in [1, 10, 11] {
    ///     cache.insert(("user", id), id).await?;
    /// }
    /// assert_eq!(cache.invalidate_matching("user:1").await?, 1);
    /// assert_eq!(cache.invalidate_matching("user:1*").await?, 2);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`invalidate_prefix`](Self::invalidate_prefix).
    pub async fn invalidate_matching(&self, pattern: &str) -> BackendResult<u64> {
        let pattern = KeyPattern::glob_within(self.name(), pattern);
        self.shared.record_later(self.shared.backend.invalidate_matching(pattern).await)
    }

    /// Stores a value under a version, if the stored one has a lower version or none. One layer decides, the lowest by
    /// default. An insert without a version always succeeds, and leaves none.
    ///
    /// # Errors
    /// [`VersionMismatch`](hitbox_core::ErrorKind::VersionMismatch), with
    /// [both versions](hitbox_core::BackendError::mismatch), if it has not: nothing has changed. Any failure of the layer
    /// that decides.
    ///
    /// # Cancellation
    /// As [`insert`](Self::insert).
    pub async fn insert_if_newer(&self, key: impl ToKey, value: V, version: u64) -> BackendResult<Receipt> {
        self.entry(key).insert_if_newer(value, version).await
    }

    /// Whether a value is there, without any effect on it and without reading it.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn contains(&self, key: impl ToKey) -> BackendResult<Presence> {
        self.shared.backend.contains(&self.key(&key)).await
    }

    /// Takes a value out of the upper layer and leaves it in the lower one; a single layer drops it.
    ///
    /// # Errors
    /// If the upper layer failed.
    pub async fn evict(&self, key: impl ToKey) -> BackendResult<DeleteStatus> {
        self.shared.backend.evict(&self.key(&key)).await
    }

    /// Entries that each layer holds and a normal read may see, also those of other caches over them. Takes time that
    /// grows with the entries.
    ///
    /// # Errors
    /// A layer that cannot count has an error in its line.
    pub async fn entry_counts(&self) -> BackendResult<Vec<EntryCount>> {
        self.shared.backend.entry_counts().await
    }
}
