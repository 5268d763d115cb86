//! What loaders are given and what they return.

use std::sync::Arc;
use std::time::Duration;

use hitbox_core::{BoxFuture, CacheKey, Priority, Scope, Timestamp};

use crate::entry_options::EntryOptions;
use crate::settings::LifetimeOverride;

/// What a loader brings, with what it has to say about how long that is good.
///
/// ```
/// # use std::time::Duration;
/// use hitbox::Loaded;
/// # struct User { is_guest: bool }
/// # fn f(user: User) -> Loaded<User> {
/// let ttl = Duration::from_secs(if user.is_guest { 10 } else { 600 });
/// Loaded::new(user).ttl(ttl)
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Loaded<V> {
    pub(crate) payload: Payload<V>,
    pub(crate) lifetime: LifetimeOverride,
    pub(crate) store: bool,
    pub(crate) options: EntryOptions,
}

#[derive(Clone, Debug)]
pub(crate) enum Payload<V> {
    Value(V),
    Absent,
    /// That of this generation, if one is meant.
    NotModified(Option<u64>),
    Declined,
}

impl<V> Loaded<V> {
    const fn of(payload: Payload<V>) -> Self {
        Self { payload, lifetime: LifetimeOverride::NONE, store: true, options: EntryOptions::NONE }
    }

    /// A value, to be kept as the cache's settings say.
    pub const fn new(value: V) -> Self {
        Self::of(Payload::Value(value))
    }

    /// The source has nothing under this key. It is remembered if the cache has a time for that
    /// ([`absent_ttl`](crate::CacheBuilder::absent_ttl)).
    pub const fn absent() -> Self {
        Self::of(Payload::Absent)
    }

    /// The value or body that the cache has is still right: its life starts anew. It is the one that the loader has been shown, if
    /// it has [looked](Load::previous). Of a body all metadata is replaced if any is said here.
    pub const fn not_modified() -> Self {
        Self::of(Payload::NotModified(None))
    }

    /// The same for the body of this [generation](hitbox_backend::operation::BodyReader::generation): if another has been stored meanwhile, by
    /// whichever process, that stays as it is, and is the answer.
    pub const fn body_not_modified(generation: u64) -> Self {
        Self::of(Payload::NotModified(Some(generation)))
    }

    /// There is nothing for others who wait: nothing is stored, what is stored stays, and all who wait get an error of the kind
    /// [`Declined`](crate::LoadErrorKind::Declined), so that each can ask the source by itself. Such as for an answer that is one user's alone.
    pub const fn declined() -> Self {
        Self::of(Payload::Declined)
    }

    /// The same with what `change` makes of the value, if there is one.
    pub(crate) fn map<U>(self, change: impl FnOnce(V) -> U) -> Loaded<U> {
        let Self { payload, lifetime, store, options } = self;
        let payload = match payload {
            Payload::Value(value) => Payload::Value(change(value)),
            Payload::Absent => Payload::Absent,
            Payload::NotModified(generation) => Payload::NotModified(generation),
            Payload::Declined => Payload::Declined,
        };
        Loaded { payload, lifetime, store, options }
    }

    /// Fresh for so long.
    #[must_use]
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.lifetime.ttl = Some(ttl);
        self
    }

    /// Served stale for so long beyond.
    #[must_use]
    pub const fn stale(mut self, stale: Duration) -> Self {
        self.lifetime.stale = Some(stale);
        self
    }

    /// Not served from then on, whatever TTL and stale time say.
    #[must_use]
    pub const fn expires_at(mut self, until: Timestamp) -> Self {
        self.lifetime.until = Some(until);
        self
    }

    /// Goes to those who wait for it, and is not stored.
    #[must_use]
    pub const fn do_not_store(mut self) -> Self {
        self.store = false;
        self
    }

    /// Carries this tag: [`invalidate_tags`](crate::Cache::invalidate_tags) makes it invalid.
    #[must_use]
    pub fn tag(mut self, tag: &str) -> Self {
        self.options.add_scope(Scope::tag(tag));
        self
    }

    /// Depends on this: [`invalidate_dependencies`](crate::Cache::invalidate_dependencies) makes it invalid.
    #[must_use]
    pub fn depends_on(mut self, name: &str) -> Self {
        self.options.add_scope(Scope::dependency(name));
        self
    }

    /// Goes before or after others when a layer that knows priorities needs room.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Self {
        self.options.priority = Some(priority);
        self
    }

    /// Metadata that is kept with the entry.
    #[must_use]
    pub fn metadata(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.options.add_metadata(name, value.as_ref());
        self
    }
}

impl<V> From<Option<V>> for Loaded<V> {
    fn from(value: Option<V>) -> Self {
        value.map_or_else(Self::absent, Self::new)
    }
}

pub(crate) type ReadPrevious<V> = Arc<dyn Fn() -> BoxFuture<'static, Option<V>> + Send + Sync>;

/// What a loader may know of the load that it is part of.
pub struct Load<V> {
    pub(crate) key: CacheKey,
    pub(crate) previous: ReadPrevious<V>,
}

impl<V> Load<V> {
    /// The key.
    pub fn key(&self) -> &CacheKey {
        &self.key
    }

    /// The value that the cache still has, stale or expired: to ask the source whether it has changed, and to answer
    /// [`Loaded::not_modified`] if it has not. Reads the layers when it is called. A layer that does not answer is waited
    /// for as long as the cache's timeouts let calls wait for one; then there is nothing older.
    pub async fn previous(&self) -> Option<V> {
        (self.previous)().await
    }
}

impl<V> std::fmt::Debug for Load<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Load").field("key", &self.key).finish_non_exhaustive()
    }
}
