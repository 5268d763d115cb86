//! Forwarding: boxed and shared backends are backends, and run the same bodies.
//!
//! The methods are written as `async_trait` expands them, so that forwarding hands the inner future on
//! instead of boxing another around it.

/// Implements methods of [`Backend`](crate::Backend) by calling them on another backend: for wrappers,
/// which then write only what they change.
///
/// Groups: `store` (the required methods and their batches), `reads`, `writes` (which is `data`, `names` and
/// `versions`), `facts` (which is `maintenance` and `sweep`), `capabilities`, `adopted`; `all` is all of them. `open_writer` keeps its buffering default. The impl must be without `#[async_trait]`, or the
/// methods that are written out must be those of other groups.
#[macro_export]
macro_rules! forward {
    ($self:ident => $to:expr; all) => {
        $crate::forward!($self => $to; store, reads, writes, facts, capabilities, adopted);
    };
    ($self:ident => $to:expr; $($group:ident),+) => {
        $($crate::forward!(@$group $self, $to);)+
    };
    (@store $self:ident, $to:expr) => {
        fn read<'life0, 'life1, 'async_trait>(
            &'life0 $self, key: &'life1 $crate::core::CacheKey,
        ) -> $crate::core::BoxFuture<'async_trait, $crate::core::BackendResult<Option<$crate::core::CacheValue<$crate::Raw>>>>
        where
            'life0: 'async_trait, 'life1: 'async_trait, Self: 'async_trait,
        {
            $to.read(key)
        }
        fn write<'life0, 'life1, 'async_trait>(
            &'life0 $self, key: &'life1 $crate::core::CacheKey, value: $crate::core::CacheValue<$crate::Raw>,
        ) -> $crate::core::BoxFuture<'async_trait, $crate::core::BackendResult<()>>
        where
            'life0: 'async_trait, 'life1: 'async_trait, Self: 'async_trait,
        {
            $to.write(key, value)
        }
        fn remove<'life0, 'life1, 'async_trait>(
            &'life0 $self, key: &'life1 $crate::core::CacheKey,
        ) -> $crate::core::BoxFuture<'async_trait, $crate::core::BackendResult<$crate::DeleteStatus>>
        where
            'life0: 'async_trait, 'life1: 'async_trait, Self: 'async_trait,
        {
            $to.remove(key)
        }
        fn entry_count<'life0, 'async_trait>(
            &'life0 $self,
        ) -> $crate::core::BoxFuture<'async_trait, $crate::core::BackendResult<u64>>
        where
            'life0: 'async_trait, Self: 'async_trait,
        {
            $to.entry_count()
        }
        fn peek<'life0, 'life1, 'async_trait>(
            &'life0 $self, key: &'life1 $crate::core::CacheKey,
        ) -> $crate::core::BoxFuture<'async_trait, $crate::core::BackendResult<$crate::Peek>>
        where
            'life0: 'async_trait, 'life1: 'async_trait, Self: 'async_trait,
        {
            $to.peek(key)
        }
        fn read_batch<'life0, 'life1, 'async_trait>(
            &'life0 $self, keys: &'life1 [$crate::core::CacheKey],
        ) -> $crate::core::BoxFuture<'async_trait, Vec<$crate::core::BackendResult<Option<$crate::core::CacheValue<$crate::Raw>>>>>
        where
            'life0: 'async_trait, 'life1: 'async_trait, Self: 'async_trait,
        {
            $to.read_batch(keys)
        }
        fn write_batch<'life0, 'async_trait>(
            &'life0 $self, entries: Vec<($crate::core::CacheKey, $crate::core::CacheValue<$crate::Raw>)>,
        ) -> $crate::core::BoxFuture<'async_trait, Vec<$crate::core::BackendResult<()>>>
        where
            'life0: 'async_trait, Self: 'async_trait,
        {
            $to.write_batch(entries)
        }
        fn remove_batch<'life0, 'life1, 'async_trait>(
            &'life0 $self, keys: &'life1 [$crate::core::CacheKey],
        ) -> $crate::core::BoxFuture<'async_trait, Vec<$crate::core::BackendResult<$crate::DeleteStatus>>>
        where
            'life0: 'async_trait, 'life1: 'async_trait, Self: 'async_trait,
        {
            $to.remove_batch(keys)
        }
        fn enumerate<'life0, 'async_trait>(
            &'life0 $self, cursor: u64, limit: usize,
        ) -> $crate::core::BoxFuture<'async_trait, $crate::core::BackendResult<$crate::Page>>
        where
            'life0: 'async_trait, Self: 'async_trait,
        {
            $to.enumerate(cursor, limit)
        }
        fn write_if_newer<'life0, 'life1, 'async_trait>(
            &'life0 $self, key: &'life1 $crate::core::CacheKey, value: $crate::core::CacheValue<$crate::Raw>,
        ) -> $crate::core::BoxFuture<'async_trait, $crate::core::BackendResult<()>>
        where
            'life0: 'async_trait, 'life1: 'async_trait, Self: 'async_trait,
        {
            $to.write_if_newer(key, value)
        }
    };
    (@reads $self:ident, $to:expr) => {
        fn try_read(&$self, key: &$crate::core::CacheKey, options: &$crate::ReadOptions) -> $crate::TryRead {
            $to.try_read(key, options)
        }
        fn read_with<'life0, 'life1, 'life2, 'async_trait>(
            &'life0 $self, key: &'life1 $crate::core::CacheKey, options: &'life2 $crate::ReadOptions,
        ) -> $crate::core::BoxFuture<'async_trait, $crate::Answer>
        where
            'life0: 'async_trait, 'life1: 'async_trait, 'life2: 'async_trait, Self: 'async_trait,
        {
            $to.read_with(key, options)
        }
        fn read_many<'life0, 'life1, 'life2, 'async_trait>(
            &'life0 $self, keys: &'life1 [$crate::core::CacheKey], options: &'life2 $crate::ReadOptions,
        ) -> $crate::core::BoxFuture<'async_trait, Vec<$crate::Answer>>
        where
            'life0: 'async_trait, 'life1: 'async_trait, 'life2: 'async_trait, Self: 'async_trait,
        {
            $to.read_many(keys, options)
        }
        fn contains<'life0, 'life1, 'async_trait>(
            &'life0 $self, key: &'life1 $crate::core::CacheKey,
        ) -> $crate::core::BoxFuture<'async_trait, $crate::core::BackendResult<$crate::Presence>>
        where
            'life0: 'async_trait, 'life1: 'async_trait, Self: 'async_trait,
        {
            $to.contains(key)
        }
        fn open_reader<'life0, 'life1, 'life2, 'async_trait>(
            &'life0 $self, key: &'life1 $crate::core::CacheKey, options: &'life2 $crate::ReadOptions,
        ) -> $crate::core::BoxFuture<'async_trait, $crate::core::BackendResult<Option<Box<dyn $crate::BodyReader>>>>
        where
            'life0: 'async_trait, 'life1: 'async_trait, 'life2: 'async_trait, Self: 'async_trait,
        {
            $to.open_reader(key, options)
        }
    };
    (@writes $self:ident, $to:expr) => {
        $crate::forward!(@data $self, $to);
        $crate::forward!(@names $self, $to);
        $crate::forward!(@versions $self, $to);
    };
    (@names $self:ident, $to:expr) => {
        fn invalidate<'life0, 'life1, 'life2, 'async_trait>(
            &'life0 $self, scopes: &'life1 [$crate::core::Scope], under: &'life2 ::std::sync::Arc<$crate::Invalidation>,
        ) -> $crate::core::BoxFuture<'async_trait, $crate::Receipt>
        where
            'life0: 'async_trait, 'life1: 'async_trait, 'life2: 'async_trait, Self: 'async_trait,
        {
            $to.invalidate(scopes, under)
        }
        fn evict_with<'life0, 'life1, 'async_trait>(
            &'life0 $self, key: &'life1 $crate::core::CacheKey,
        ) -> $crate::core::BoxFuture<'async_trait, $crate::Receipt>
        where
            'life0: 'async_trait, 'life1: 'async_trait, Self: 'async_trait,
        {
            $to.evict_with(key)
        }
    };
    (@versions $self:ident, $to:expr) => {
        fn write_if_newer_with<'life0, 'life1, 'life2, 'async_trait>(
            &'life0 $self, key: &'life1 $crate::core::CacheKey, value: $crate::core::CacheValue<$crate::Raw>, options: &'life2 $crate::WriteOptions,
        ) -> $crate::core::BoxFuture<'async_trait, $crate::Receipt>
        where
            'life0: 'async_trait, 'life1: 'async_trait, 'life2: 'async_trait, Self: 'async_trait,
        {
            $to.write_if_newer_with(key, value, options)
        }
    };
    (@data $self:ident, $to:expr) => {
        fn write_with<'life0, 'life1, 'life2, 'async_trait>(
            &'life0 $self, key: &'life1 $crate::core::CacheKey, value: $crate::core::CacheValue<$crate::Raw>, options: &'life2 $crate::WriteOptions,
        ) -> $crate::core::BoxFuture<'async_trait, $crate::Receipt>
        where
            'life0: 'async_trait, 'life1: 'async_trait, 'life2: 'async_trait, Self: 'async_trait,
        {
            $to.write_with(key, value, options)
        }
        fn remove_with<'life0, 'life1, 'life2, 'async_trait>(
            &'life0 $self, key: &'life1 $crate::core::CacheKey, options: &'life2 $crate::WriteOptions,
        ) -> $crate::core::BoxFuture<'async_trait, $crate::Receipt>
        where
            'life0: 'async_trait, 'life1: 'async_trait, 'life2: 'async_trait, Self: 'async_trait,
        {
            $to.remove_with(key, options)
        }
        fn write_many<'life0, 'async_trait>(
            &'life0 $self, items: Vec<$crate::WriteItem>,
        ) -> $crate::core::BoxFuture<'async_trait, Vec<$crate::Receipt>>
        where
            'life0: 'async_trait, Self: 'async_trait,
        {
            $to.write_many(items)
        }
        fn remove_many<'life0, 'async_trait>(
            &'life0 $self, items: Vec<$crate::RemoveItem>,
        ) -> $crate::core::BoxFuture<'async_trait, Vec<$crate::Receipt>>
        where
            'life0: 'async_trait, Self: 'async_trait,
        {
            $to.remove_many(items)
        }
        fn install_if<'life0, 'life1, 'life2, 'async_trait>(
            &'life0 $self, key: &'life1 $crate::core::CacheKey, value: $crate::core::CacheValue<$crate::Raw>, ticket: &'life2 $crate::Ticket,
        ) -> $crate::core::BoxFuture<'async_trait, $crate::Receipt>
        where
            'life0: 'async_trait, 'life1: 'async_trait, 'life2: 'async_trait, Self: 'async_trait,
        {
            $to.install_if(key, value, ticket)
        }
    };
    (@facts $self:ident, $to:expr) => {
        $crate::forward!(@sweep $self, $to);
        $crate::forward!(@maintenance $self, $to);
    };
    (@sweep $self:ident, $to:expr) => {
        fn sweep<'life0, 'async_trait>(
            &'life0 $self, limit: usize,
        ) -> $crate::core::BoxFuture<'async_trait, $crate::core::BackendResult<$crate::Sweep>>
        where
            'life0: 'async_trait, Self: 'async_trait,
        {
            $to.sweep(limit)
        }
    };
    (@maintenance $self:ident, $to:expr) => {
        fn visit_leaves(
            &$self,
            key: &$crate::core::CacheKey,
            visit: &mut dyn FnMut(&$crate::Leaf, &$crate::core::CacheKey),
        ) {
            $to.visit_leaves(key, visit);
        }
        fn lens<'life0, 'async_trait>(
            &'life0 $self,
        ) -> $crate::core::BoxFuture<'async_trait, Vec<$crate::LeafLen>>
        where
            'life0: 'async_trait, Self: 'async_trait,
        {
            $to.lens()
        }
        fn remove_matching<'life0, 'life1, 'life2, 'async_trait>(
            &'life0 $self, pattern: &'life1 $crate::core::KeyPattern, matched: &'life2 $crate::Matched,
        ) -> $crate::core::BoxFuture<'async_trait, $crate::core::BackendResult<()>>
        where
            'life0: 'async_trait, 'life1: 'async_trait, 'life2: 'async_trait, Self: 'async_trait,
        {
            $to.remove_matching(pattern, matched)
        }
        fn erase<'life0, 'async_trait>(
            &'life0 $self,
        ) -> $crate::core::BoxFuture<'async_trait, $crate::core::BackendResult<()>>
        where
            'life0: 'async_trait, Self: 'async_trait,
        {
            $to.erase()
        }
        fn erase_with<'life0, 'async_trait>(
            &'life0 $self,
        ) -> $crate::core::BoxFuture<'async_trait, $crate::core::BackendResult<()>>
        where
            'life0: 'async_trait, Self: 'async_trait,
        {
            $to.erase_with()
        }
        fn occupancy(&$self) -> Option<$crate::Occupancy> {
            $to.occupancy()
        }
        fn leaf(&$self) -> Option<&$crate::Leaf> {
            $to.leaf()
        }
        fn leaves(&$self) -> Vec<$crate::Leaf> {
            $to.leaves()
        }
        fn statistics(&$self) -> Vec<$crate::LeafStatistics> {
            $to.statistics()
        }
    };
    (@capabilities $self:ident, $to:expr) => {
        fn capabilities(&$self) -> $crate::Capabilities {
            $to.capabilities()
        }
    };
    (@adopted $self:ident, $to:expr) => {
        fn adopted(&$self, adoption: &$crate::Adoption) -> Option<::std::sync::Arc<dyn $crate::Backend>> {
            $to.adopted(adoption)
        }
    };
}
use std::sync::Arc;

use crate::backend::Backend;

impl<B: Backend + ?Sized> Backend for Box<B> {
    forward!(self => (**self); all);
}

impl<B: Backend + ?Sized> Backend for Arc<B> {
    forward!(self => (**self); all);
}
