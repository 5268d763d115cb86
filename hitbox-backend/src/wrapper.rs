//! One backend made from another.

use std::sync::Arc;

use hitbox_core::{BackendError, BackendResult, CacheKey, CacheValue, Operation};

use crate::backend::{Backend, Placement};
use crate::completion::{Batch, Completion};
use crate::envelope::Raw;
use crate::layout::{KeyMapping, Layout};
use crate::operation::{
    Answers, Invalidation, Maintained, Maintenance, Presence, ReadOptions, Removal, TryRead, Write,
    WriteOptions,
};
use crate::receipt::{Receipt, Receipts};
use crate::stream::{BodyReader, BodyWriter};

/// A backend around another: a deadline, a namespace, a rule of admission. Every wrapper is a [`Backend`].
///
/// Two methods are required, [`inner`](Self::inner) and [`around`](Self::around); all others forward. Most wrappers
/// change one thing, and have a hook for it that is asked by every call alike, single or batch, refill or conditional
/// write, value or body:
///
/// - [`keys`](Self::keys): it knows keys by other names,
/// - [`change`](Self::change): it changes what entries say of themselves on their way in,
/// - [`admits`](Self::admits): it keeps entries out,
/// - [`guard`](Self::guard): it decides whether and for how long a call is made.
///
/// What no hook does is done by overriding a call; [`forward`] has what it does otherwise.
pub trait Wrapper: Send + Sync + Sized + 'static {
    /// What is wrapped: as a rule `dyn Backend`.
    type Inner: Backend + ?Sized;

    /// The wrapped backend.
    fn inner(&self) -> &Self::Inner;

    /// The same wrapper around another backend, which shares the stores of this one. What the wrapper has learned or
    /// decides upon goes along.
    fn around(&self, inner: Arc<dyn Backend>) -> Arc<dyn Backend>;

    /// The key map of a wrapper that knows keys by other names.
    fn keys(&self) -> Option<&KeyMapping> {
        None
    }

    /// The layout: that of the inner backend, with mapped keys if there is a key map. A wrapper that changes
    /// capabilities keeps a layout of its own.
    fn layout(&self) -> &Layout {
        self.keys().map_or_else(|| self.inner().layout(), KeyMapping::layout)
    }

    /// Changes the lifetime, the priority or the metadata of an entry before it is passed on: for writes, refills and
    /// streamed writes alike.
    fn change(&self, key: &CacheKey, entry: CacheValue<()>) -> CacheValue<()> {
        let _ = key;
        entry
    }

    /// Whether an entry is stored. If it is not, an older entry under its key is removed.
    fn admits(&self, key: &CacheKey, offer: &Offer<'_>) -> bool {
        let _ = (key, offer);
        true
    }

    /// Makes a call. `failed` turns an error into what the call answers with then, counted in the leaves that would have
    /// been asked.
    fn guard<'a, T: Send + 'a>(
        &'a self,
        operation: Operation,
        call: impl FnOnce() -> Completion<'a, T> + Send + 'a,
        failed: impl FnOnce(BackendError) -> T + Send + 'a,
    ) -> Completion<'a, T> {
        let _ = (operation, failed);
        call()
    }

    /// See [`Backend::try_read`].
    #[inline]
    fn try_read(&self, key: &CacheKey, options: &ReadOptions) -> TryRead {
        forward::try_read(self, key, options)
    }

    /// See [`Backend::read`].
    fn read<'a>(&'a self, keys: &'a [CacheKey], options: &'a ReadOptions) -> Completion<'a, Answers> {
        forward::read(self, keys, options)
    }

    /// See [`Backend::write`].
    fn write(&self, writes: Batch<Write>) -> Completion<'_, Receipts> {
        forward::write(self, writes)
    }

    /// See [`Backend::remove`].
    fn remove(&self, removals: Batch<Removal>) -> Completion<'_, Receipts> {
        forward::remove(self, removals)
    }

    /// See [`Backend::contains`].
    fn contains<'a>(&'a self, key: &'a CacheKey) -> Completion<'a, BackendResult<Presence>> {
        forward::contains(self, key)
    }

    /// See [`Backend::invalidate`].
    fn invalidate<'a>(&'a self, invalidation: &'a Invalidation) -> Completion<'a, Receipt> {
        forward::invalidate(self, invalidation)
    }

    /// See [`Backend::observe`].
    fn observe<'a>(&'a self, change: &'a Invalidation) -> Completion<'a, Receipt> {
        forward::observe(self, change)
    }

    /// See [`Backend::maintain`].
    fn maintain<'a>(&'a self, work: &'a Maintenance) -> Completion<'a, BackendResult<Maintained>> {
        forward::maintain(self, work)
    }

    /// See [`Backend::open_reader`].
    fn open_reader<'a>(
        &'a self,
        key: &'a CacheKey,
        options: &'a ReadOptions,
    ) -> Completion<'a, BackendResult<Option<Box<dyn BodyReader>>>> {
        forward::open_reader(self, key, options)
    }

    /// See [`Backend::open_writer`].
    fn open_writer<'a>(
        &'a self,
        key: &'a CacheKey,
        entry: CacheValue<()>,
        options: WriteOptions,
    ) -> Completion<'a, BackendResult<Box<dyn BodyWriter>>> {
        forward::open_writer(self, key, entry, options)
    }
}

/// An entry that is offered to a rule of admission.
#[derive(Debug)]
pub struct Offer<'o> {
    entry: &'o CacheValue<()>,
    value: Option<&'o Raw>,
    /// Bytes of a body, if they are known.
    len: Option<u64>,
    is_refill: bool,
}

impl<'o> Offer<'o> {
    pub(crate) fn new(entry: &'o CacheValue<()>, value: Option<&'o Raw>, is_refill: bool) -> Self {
        Self { entry, value, len: None, is_refill }
    }

    fn of_body(entry: &'o CacheValue<()>, options: &WriteOptions) -> Self {
        let refill = options.refill();
        Self { entry, value: None, len: refill.and_then(|refill| refill.len), is_refill: refill.is_some() }
    }

    /// The entry without its value.
    pub fn entry(&self) -> &CacheValue<()> {
        self.entry
    }

    /// Bytes of the value: as it is encoded, or else estimated. Nothing for a body that is still to come, unless it is copied
    /// from a lower layer.
    pub fn size(&self) -> Option<u64> {
        let Some(value) = self.value else { return self.len };
        Some(value.as_encoded().map_or_else(|| value.weight(), |encoded| encoded.bytes.len() as u64))
    }

    /// Whether it comes from a lower layer.
    pub fn is_refill(&self) -> bool {
        self.is_refill
    }
}

impl<W: Wrapper> Backend for W {
    fn layout(&self) -> &Layout {
        Wrapper::layout(self)
    }

    #[inline]
    fn try_read(&self, key: &CacheKey, options: &ReadOptions) -> TryRead {
        Wrapper::try_read(self, key, options)
    }

    fn read<'a>(&'a self, keys: &'a [CacheKey], options: &'a ReadOptions) -> Completion<'a, Answers> {
        Wrapper::read(self, keys, options)
    }

    fn write(&self, writes: Batch<Write>) -> Completion<'_, Receipts> {
        Wrapper::write(self, writes)
    }

    fn remove(&self, removals: Batch<Removal>) -> Completion<'_, Receipts> {
        Wrapper::remove(self, removals)
    }

    fn contains<'a>(&'a self, key: &'a CacheKey) -> Completion<'a, BackendResult<Presence>> {
        Wrapper::contains(self, key)
    }

    fn invalidate<'a>(&'a self, invalidation: &'a Invalidation) -> Completion<'a, Receipt> {
        Wrapper::invalidate(self, invalidation)
    }

    fn observe<'a>(&'a self, change: &'a Invalidation) -> Completion<'a, Receipt> {
        Wrapper::observe(self, change)
    }

    fn maintain<'a>(&'a self, work: &'a Maintenance) -> Completion<'a, BackendResult<Maintained>> {
        Wrapper::maintain(self, work)
    }

    fn open_reader<'a>(
        &'a self,
        key: &'a CacheKey,
        options: &'a ReadOptions,
    ) -> Completion<'a, BackendResult<Option<Box<dyn BodyReader>>>> {
        Wrapper::open_reader(self, key, options)
    }

    fn open_writer<'a>(
        &'a self,
        key: &'a CacheKey,
        entry: CacheValue<()>,
        options: WriteOptions,
    ) -> Completion<'a, BackendResult<Box<dyn BodyWriter>>> {
        Wrapper::open_writer(self, key, entry, options)
    }

    fn adopt(&self, placement: &Placement) -> Arc<dyn Backend> {
        self.around(self.inner().adopt(placement))
    }
}

/// What a wrapper does in each call that it does not override: the hooks, and the call of the inner backend.
pub mod forward {
    use super::{
        Answers, Arc, Backend, BackendResult, Batch, BodyReader, BodyWriter, CacheKey, CacheValue,
        Completion, Invalidation, KeyMapping, Maintained, Maintenance, Offer, Operation, Presence,
        ReadOptions, Receipt, Receipts, Removal, TryRead, Wrapper, Write, WriteOptions,
    };
    use crate::leaf::failure;
    use crate::operation::Content;
    use crate::stats::Event;
    use crate::store::Page;

    /// Asks the inner backend.
    #[inline]
    pub fn try_read<W: Wrapper>(wrapper: &W, key: &CacheKey, options: &ReadOptions) -> TryRead {
        match wrapper.keys() {
            None => wrapper.inner().try_read(key, options),
            Some(keys) => wrapper.inner().try_read(&keys.map().inward(key), options),
        }
    }

    /// Asks the inner backend.
    pub fn read<'a, W: Wrapper>(
        wrapper: &'a W,
        keys: &'a [CacheKey],
        options: &'a ReadOptions,
    ) -> Completion<'a, Answers> {
        let call = move || match wrapper.keys() {
            None => wrapper.inner().read(keys, options),
            Some(mapping) => {
                let inward: Vec<CacheKey> = keys.iter().map(|key| mapping.map().inward(key)).collect();
                Completion::later(async move { wrapper.inner().read(&inward, options).await })
            }
        };
        let failed = move |error| {
            let error = failure::count(wrapper.inner().layout(), Event::ReadError, error);
            keys.iter().map(|_| Err(error.clone())).collect()
        };
        wrapper.guard(Operation::Read, call, failed)
    }

    fn enter<W: Wrapper>(wrapper: &W, write: &mut Write) {
        if let Content::Entry(value) =
            std::mem::replace(&mut write.content, Content::NotAdmitted { version: None })
        {
            let (raw, entry) = value.split();
            let entry = wrapper.change(&write.key, entry);
            let offer = Offer::new(&entry, Some(&raw), write.condition.is_refill());
            write.content = if wrapper.admits(&write.key, &offer) {
                Content::Entry(entry.map(|()| raw))
            } else {
                Content::NotAdmitted { version: entry.details().and_then(|details| details.version) }
            };
        }
    }

    /// Writes to the inner backend what the hooks leave of it.
    pub fn write<W: Wrapper>(wrapper: &W, mut writes: Batch<Write>) -> Completion<'_, Receipts> {
        for write in writes.iter_mut() {
            match &mut write.content {
                Content::Entry(_) => enter(wrapper, write),
                Content::Renewal(renewal) => {
                    let change = |entry| wrapper.change(&write.key, entry);
                    *renewal = std::mem::take(renewal).changed(change);
                }
                _ => {}
            }
            if let Some(keys) = wrapper.keys() {
                write.key = keys.map().inward(&write.key);
            }
        }
        let count = writes.len();
        let call = move || wrapper.inner().write(writes);
        wrapper.guard(Operation::Write, call, move |error| {
            failure::receipts(wrapper.inner().layout(), Event::WriteError, error, count)
        })
    }

    /// Removes from the inner backend.
    pub fn remove<W: Wrapper>(wrapper: &W, mut removals: Batch<Removal>) -> Completion<'_, Receipts> {
        if let Some(keys) = wrapper.keys() {
            removals.iter_mut().for_each(|removal| removal.key = keys.map().inward(&removal.key));
        }
        let count = removals.len();
        let call = move || wrapper.inner().remove(removals);
        wrapper.guard(Operation::Remove, call, move |error| {
            failure::receipts(wrapper.inner().layout(), Event::RemoveError, error, count)
        })
    }

    /// Asks the inner backend.
    pub fn contains<'a, W: Wrapper>(
        wrapper: &'a W,
        key: &'a CacheKey,
    ) -> Completion<'a, BackendResult<Presence>> {
        let call = move || match wrapper.keys() {
            None => wrapper.inner().contains(key),
            Some(keys) => {
                let inward = keys.map().inward(key);
                Completion::later(async move { wrapper.inner().contains(&inward).await })
            }
        };
        let failed = move |error| Err(failure::count(wrapper.inner().layout(), Event::ReadError, error));
        wrapper.guard(Operation::Contains, call, failed)
    }

    fn tell<'a, W: Wrapper>(
        wrapper: &'a W,
        what: &'a Invalidation,
        call: for<'b> fn(&'b W::Inner, &'b Invalidation) -> Completion<'b, Receipt>,
    ) -> Completion<'a, Receipt> {
        let call = move || match wrapper.keys() {
            None => call(wrapper.inner(), what),
            Some(keys) => {
                let inward = what.mapped(keys.map());
                Completion::later(async move { call(wrapper.inner(), &inward).await })
            }
        };
        wrapper.guard(Operation::Invalidate, call, move |error| {
            failure::receipt(wrapper.inner().layout(), Event::WriteError, error)
        })
    }

    /// Invalidates in the inner backend.
    pub fn invalidate<'a, W: Wrapper>(
        wrapper: &'a W,
        invalidation: &'a Invalidation,
    ) -> Completion<'a, Receipt> {
        tell(wrapper, invalidation, |inner, what| inner.invalidate(what))
    }

    /// Tells the inner backend of a change that was made elsewhere.
    pub fn observe<'a, W: Wrapper>(wrapper: &'a W, change: &'a Invalidation) -> Completion<'a, Receipt> {
        tell(wrapper, change, |inner, what| inner.observe(what))
    }

    /// Has the inner backend maintained. Keys are listed as callers know them.
    pub fn maintain<'a, W: Wrapper>(
        wrapper: &'a W,
        work: &'a Maintenance,
    ) -> Completion<'a, BackendResult<Maintained>> {
        let call = move || {
            let done = wrapper.inner().maintain(work);
            match wrapper.keys() {
                Some(keys) if matches!(work, Maintenance::List { .. }) => {
                    done.map(move |done| done.map(|done| outward(keys, done)))
                }
                _ => done,
            }
        };
        let failed = move |error| Err(failure::name(wrapper.inner().layout(), error));
        wrapper.guard(Operation::Maintain, call, failed)
    }

    fn outward(keys: &KeyMapping, done: Maintained) -> Maintained {
        match done {
            Maintained::Listed(page) => {
                let known = page.keys.iter().filter_map(|key| keys.map().outward(key));
                Maintained::Listed(Page { keys: known.collect(), next: page.next })
            }
            done => done,
        }
    }

    /// Opens a reader of the inner backend.
    pub fn open_reader<'a, W: Wrapper>(
        wrapper: &'a W,
        key: &'a CacheKey,
        options: &'a ReadOptions,
    ) -> Completion<'a, BackendResult<Option<Box<dyn BodyReader>>>> {
        let call = move || match wrapper.keys() {
            None => wrapper.inner().open_reader(key, options),
            Some(keys) => {
                let inward = keys.map().inward(key);
                Completion::later(async move { wrapper.inner().open_reader(&inward, options).await })
            }
        };
        let failed = move |error| Err(failure::count(wrapper.inner().layout(), Event::ReadError, error));
        wrapper.guard(Operation::ReadBody, call, failed)
    }

    /// Opens a writer of the inner backend, for the entry that the hooks make of it. A body that is not admitted is
    /// taken and dropped; when it is finished what was there is removed.
    pub fn open_writer<'a, W: Wrapper>(
        wrapper: &'a W,
        key: &'a CacheKey,
        entry: CacheValue<()>,
        options: WriteOptions,
    ) -> Completion<'a, BackendResult<Box<dyn BodyWriter>>> {
        let entry = wrapper.change(key, entry);
        let is_admitted = wrapper.admits(key, &Offer::of_body(&entry, &options));
        let call = move || match wrapper.keys() {
            None if is_admitted => wrapper.inner().open_writer(key, entry, options),
            mapping => {
                let inward = mapping.map_or_else(|| key.clone(), |keys| keys.map().inward(key));
                Completion::later(async move {
                    let writer = wrapper.inner().open_writer(&inward, entry, options).await?;
                    Ok(if is_admitted { writer } else { crate::stream::leave_out(writer) })
                })
            }
        };
        let failed = move |error| Err(failure::count(wrapper.inner().layout(), Event::WriteError, error));
        wrapper.guard(Operation::WriteBody, call, failed)
    }

    /// The backend that a wrapper holds, for constructors.
    pub fn shared<Kind>(inner: impl crate::IntoBackend<Kind>) -> Arc<dyn Backend> {
        inner.into_shared()
    }
}
