//! A backend that forgets a method: the trait has no defaults that would answer for it.

use std::sync::Arc;

use hitbox_backend::operation::{
    Answers, Batch, BodyReader, BodyWriter, Completion, Invalidation, Maintained, Maintenance, Presence,
    ReadOptions, Receipts, Removal, TryRead, Write, WriteOptions,
};
use hitbox_backend::wrap::{Layout, Placement};
use hitbox_backend::{Backend, Receipt};
use hitbox_core::{BackendResult, CacheKey, CacheValue};

struct Forgetful(Arc<dyn Backend>);

impl Backend for Forgetful {
    fn layout(&self) -> &Layout {
        self.0.layout()
    }

    fn try_read(&self, key: &CacheKey, options: &ReadOptions) -> TryRead {
        self.0.try_read(key, options)
    }

    fn read<'a>(&'a self, keys: &'a [CacheKey], options: &'a ReadOptions) -> Completion<'a, Answers> {
        self.0.read(keys, options)
    }

    fn write(&self, writes: Batch<Write>) -> Completion<'_, Receipts> {
        self.0.write(writes)
    }

    fn remove(&self, removals: Batch<Removal>) -> Completion<'_, Receipts> {
        self.0.remove(removals)
    }

    fn contains<'a>(&'a self, key: &'a CacheKey) -> Completion<'a, BackendResult<Presence>> {
        self.0.contains(key)
    }

    fn invalidate<'a>(&'a self, invalidation: &'a Invalidation) -> Completion<'a, Receipt> {
        self.0.invalidate(invalidation)
    }

    fn maintain<'a>(&'a self, work: &'a Maintenance) -> Completion<'a, BackendResult<Maintained>> {
        self.0.maintain(work)
    }

    fn open_reader<'a>(
        &'a self,
        key: &'a CacheKey,
        options: &'a ReadOptions,
    ) -> Completion<'a, BackendResult<Option<Box<dyn BodyReader>>>> {
        self.0.open_reader(key, options)
    }

    fn open_writer<'a>(
        &'a self,
        key: &'a CacheKey,
        entry: CacheValue<()>,
        options: WriteOptions,
    ) -> Completion<'a, BackendResult<Box<dyn BodyWriter>>> {
        self.0.open_writer(key, entry, options)
    }

    fn adopt(&self, placement: &Placement) -> Arc<dyn Backend> {
        Arc::new(Self(self.0.adopt(placement)))
    }
}

fn main() {}
