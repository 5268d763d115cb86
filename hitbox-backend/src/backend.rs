//! What stands in an expression: a leaf, a wrapper or a composition.

use std::sync::Arc;

use hitbox_core::{BackendLabel, BackendResult, CacheKey, CacheValue};

use crate::completion::{Batch, Completion};
use crate::layout::Layout;
use crate::operation::{
    Answers, Invalidation, LeafPosition, Maintained, Maintenance, Presence, ReadOptions, Removal, TryRead,
    Write, WriteOptions,
};
use crate::receipt::{Receipt, Receipts};
use crate::stream::{BodyReader, BodyWriter};

/// An expression of backends: a [`Leaf`](crate::Leaf) around a [`Store`](crate::store::Store), a
/// [`Wrapper`](crate::wrap::Wrapper) around a backend, or a composition of two. Use it through
/// [`CacheBackend`](crate::CacheBackend).
///
/// No method has a default: a backend that forgets one does not compile. As a rule nobody implements this trait: who
/// stores implements [`Store`](crate::store::Store), who wraps implements [`Wrapper`](crate::wrap::Wrapper), and has it.
///
/// # Cancellation
/// A dropped read leaves nothing but, where a policy says so, work in the offload. A leaf whose write or delete is
/// dropped may or may not have acted; compositions finish writes, deletes and invalidations in their offload.
pub trait Backend: Send + Sync + 'static {
    /// Its leaves, their paths, and what it can do.
    fn layout(&self) -> &Layout;

    /// What can be said about a read without waiting. Counts what it answers; starts nothing.
    fn try_read(&self, key: &CacheKey, options: &ReadOptions) -> TryRead;

    /// Usable copies for some keys, in their order.
    fn read<'a>(&'a self, keys: &'a [CacheKey], options: &'a ReadOptions) -> Completion<'a, Answers>;

    /// Carries out some writes, in their order: if two have the same key, the later one stays. A receipt for each.
    fn write(&self, writes: Batch<Write>) -> Completion<'_, Receipts>;

    /// Carries out some removals. A receipt for each.
    fn remove(&self, removals: Batch<Removal>) -> Completion<'_, Receipts>;

    /// Whether an entry is there, without any effect on it and without reading its value. Agrees with a read, but that a
    /// damaged record is noticed only when it is read.
    fn contains<'a>(&'a self, key: &'a CacheKey) -> Completion<'a, BackendResult<Presence>>;

    /// Carries out an invalidation in every leaf. Nothing that it concerns is served any more, also nothing whose load
    /// or write is under way. All leaves are tried, and each has a line in the receipt. A leaf that did not record it
    /// serves nothing that is older as long as this process lives, and is asked again to record it.
    ///
    /// Keep the value until this has answered: what began before the invalidation ends when its last clone is dropped.
    fn invalidate<'a>(&'a self, invalidation: &'a Invalidation) -> Completion<'a, Receipt>;

    /// Takes note of an invalidation that was made elsewhere. Leaves that are not shared with other processes carry it
    /// out; in all leaves it ends loads and refills of what it names. It is never sent on.
    ///
    /// It is over when the value is dropped: drop it when this has answered.
    fn observe<'a>(&'a self, change: &'a Invalidation) -> Completion<'a, Receipt>;

    /// Works on the whole of every store. All leaves are tried; the answer is the first error, or what they did
    /// together.
    fn maintain<'a>(&'a self, work: &'a Maintenance) -> Completion<'a, BackendResult<Maintained>>;

    /// Opens the body of an entry for reading by chunks; nothing if no layer has a usable entry.
    fn open_reader<'a>(
        &'a self,
        key: &'a CacheKey,
        options: &'a ReadOptions,
    ) -> Completion<'a, BackendResult<Option<Box<dyn BodyReader>>>>;

    /// Opens an entry for writing by chunks. `entry` has everything but the body. Nothing is visible before the writer
    /// is finished. What is written or invalidated after it was opened is newer than the body.
    fn open_writer<'a>(
        &'a self,
        key: &'a CacheKey,
        entry: CacheValue<()>,
        options: WriteOptions,
    ) -> Completion<'a, BackendResult<Box<dyn BodyWriter>>>;

    /// The same expression as a part of another: it shares the stores, has paths that say where it stands, and is
    /// counted by itself.
    fn adopt(&self, placement: &Placement) -> Arc<dyn Backend>;
}

/// Where an expression stands in the one that adopts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Placement {
    /// The path of the composition above.
    pub prefix: BackendLabel,
    /// The position of its first leaf.
    pub first: LeafPosition,
    /// Put behind its own label, where two siblings would have one path.
    pub suffix: Option<BackendLabel>,
}

impl Placement {
    /// Below `prefix`, with its first leaf at this position.
    pub fn new(prefix: BackendLabel, first: LeafPosition) -> Self {
        Self { prefix, first, suffix: None }
    }

    /// The same with another suffix.
    #[must_use]
    pub fn with_suffix(self, suffix: BackendLabel) -> Self {
        Self { suffix: Some(suffix), ..self }
    }

    /// The path of what has this label of its own.
    pub fn path(&self, own: BackendLabel) -> BackendLabel {
        let own = own.as_part();
        match self.suffix {
            Some(suffix) => self.prefix.join(BackendLabel::new(&format!("{own}{suffix}"))),
            None => self.prefix.join(own),
        }
    }
}

impl<B: Backend + ?Sized> Backend for Arc<B> {
    fn layout(&self) -> &Layout {
        (**self).layout()
    }

    #[inline]
    fn try_read(&self, key: &CacheKey, options: &ReadOptions) -> TryRead {
        (**self).try_read(key, options)
    }

    fn read<'a>(&'a self, keys: &'a [CacheKey], options: &'a ReadOptions) -> Completion<'a, Answers> {
        (**self).read(keys, options)
    }

    fn write(&self, writes: Batch<Write>) -> Completion<'_, Receipts> {
        (**self).write(writes)
    }

    fn remove(&self, removals: Batch<Removal>) -> Completion<'_, Receipts> {
        (**self).remove(removals)
    }

    fn contains<'a>(&'a self, key: &'a CacheKey) -> Completion<'a, BackendResult<Presence>> {
        (**self).contains(key)
    }

    fn invalidate<'a>(&'a self, invalidation: &'a Invalidation) -> Completion<'a, Receipt> {
        (**self).invalidate(invalidation)
    }

    fn observe<'a>(&'a self, change: &'a Invalidation) -> Completion<'a, Receipt> {
        (**self).observe(change)
    }

    fn maintain<'a>(&'a self, work: &'a Maintenance) -> Completion<'a, BackendResult<Maintained>> {
        (**self).maintain(work)
    }

    fn open_reader<'a>(
        &'a self,
        key: &'a CacheKey,
        options: &'a ReadOptions,
    ) -> Completion<'a, BackendResult<Option<Box<dyn BodyReader>>>> {
        (**self).open_reader(key, options)
    }

    fn open_writer<'a>(
        &'a self,
        key: &'a CacheKey,
        entry: CacheValue<()>,
        options: WriteOptions,
    ) -> Completion<'a, BackendResult<Box<dyn BodyWriter>>> {
        (**self).open_writer(key, entry, options)
    }

    fn adopt(&self, placement: &Placement) -> Arc<dyn Backend> {
        (**self).adopt(placement)
    }
}
