//! Bodies by chunks.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use hitbox_core::{
    BackendError, BackendLabel, BackendResult, CacheKey, CacheValue, Clock, ErrorKind, Freshness, Operation,
};

use crate::backend::Backend;
use crate::coherence::{LoadPermit, WriteTicket};
use crate::envelope::{Chunks, Raw};
use crate::layout::{Layout, Notes};
use crate::operation::{BodyOrigin, Found, LeafSet, ReadOptions, TimeChange, TryRead, WriteOptions};
use crate::receipt::Receipt;
use crate::store::WrittenPart;
use crate::typed;

/// The largest body that is collected in memory before it is stored, in bytes.
pub const MAX_BUFFERED_BODY: u64 = 64 * 1024 * 1024;

/// The most that a reader hands out at a time.
const CHUNK: u64 = 64 * 1024;

/// Takes a body by chunks. Nothing is visible before it is finished. Dropping it unfinished leaves nothing, as
/// [`abort`](Self::abort) does.
///
/// # Cancellation
/// A dropped future of `chunk` leaves the writer of no use: drop it. A dropped future of `finish` or `abort` leaves what
/// a dropped write leaves.
#[async_trait]
pub trait BodyWriter: Send {
    /// Takes the next chunk.
    ///
    /// # Errors
    /// If it cannot be stored; the writer is of no use then.
    async fn chunk(&mut self, chunk: Bytes) -> BackendResult<()>;

    /// What has been written so far, for those who read it while more comes; nothing if no layer can read it. Asked before the
    /// first chunk.
    fn written(&self) -> Option<Arc<dyn WrittenPart>>;

    /// The body is not going to be stored: frees what is kept of it, but for what readers of [`written`](Self::written) still need. No
    /// chunk comes after it, and the writer ends with [`leave_out`](Self::leave_out) or [`abort`](Self::abort). A wrapper calls it on
    /// the writer that it wraps, and frees what it holds itself.
    fn let_go(&mut self);

    /// Ends the body and makes the entry visible, unless its key was written or something that it carries was
    /// invalidated since the writer was opened. The receipt has a line per leaf.
    async fn finish(self: Box<Self>) -> Receipt;

    /// Gives the body up, and waits until nothing of it is left.
    async fn abort(self: Box<Self>);

    /// Ends a body that is not admitted: nothing is stored, and what was there is removed.
    async fn leave_out(self: Box<Self>) -> Receipt;
}

/// Hands out a body by chunks.
#[async_trait]
pub trait BodyReader: Send {
    /// The entry without its body.
    fn entry(&self) -> &CacheValue<()>;

    /// The dotted path of the leaf that has it.
    fn label(&self) -> BackendLabel;

    /// What the entry was when the reader was opened.
    fn freshness(&self) -> Freshness;

    /// Tells this body from others that were stored under the same key before or after it.
    fn generation(&self) -> u64;

    /// Bytes in the whole body; nothing while it is still arriving.
    fn len(&self) -> Option<u64>;

    /// Bytes in the whole body, and of its metadata, names and values; nothing while the body is still arriving. Receipts of writes and
    /// evictions say the same.
    fn size(&self) -> Option<u64> {
        Some(size_of(self.len()?, self.entry()))
    }

    /// Whether the body is known to have no bytes.
    fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// Goes on at `range.start` and ends before `range.end`, which is clamped to the length. An end of `u64::MAX` means
    /// "to the end".
    ///
    /// # Errors
    /// [`ErrorKind::Range`] if the range starts behind its own end, or not within the body; a body without bytes can be
    /// read from 0. The reader goes on where it was. Of a body that is still arriving it may be [`chunk`](Self::chunk) that fails so.
    fn seek(&mut self, range: Range<u64>) -> BackendResult<()>;

    /// The next chunk, as [`chunk`](Self::chunk) has it, if it is at hand; nothing if it has to be waited for.
    fn chunk_at_once(&mut self) -> Option<BackendResult<Option<Bytes>>> {
        None
    }

    /// The next chunk; nothing at the end.
    ///
    /// # Errors
    /// If the body cannot be read on. After a [temporary](hitbox_core::ErrorStatus) one the reader may be asked again, and goes on where it was.
    async fn chunk(&mut self) -> BackendResult<Option<Bytes>>;
}

/// A reader around another, which forwards what it does not do otherwise.
#[async_trait]
pub trait ReaderWrapper: Send {
    /// The reader that is wrapped.
    fn reader(&self) -> &dyn BodyReader;

    /// The same, to read on.
    fn reader_mut(&mut self) -> &mut dyn BodyReader;

    /// See [`BodyReader::generation`].
    fn generation(&self) -> u64 {
        self.reader().generation()
    }

    /// See [`BodyReader::size`].
    fn size(&self) -> Option<u64> {
        self.reader().size()
    }

    /// See [`BodyReader::seek`].
    ///
    /// # Errors
    /// Those of the wrapped reader.
    fn seek(&mut self, range: Range<u64>) -> BackendResult<()> {
        self.reader_mut().seek(range)
    }

    /// See [`BodyReader::chunk`].
    ///
    /// # Errors
    /// Those of the wrapped reader.
    async fn chunk(&mut self) -> BackendResult<Option<Bytes>> {
        self.reader_mut().chunk().await
    }
}

#[async_trait]
impl<R: ReaderWrapper> BodyReader for R {
    fn entry(&self) -> &CacheValue<()> {
        self.reader().entry()
    }

    fn label(&self) -> BackendLabel {
        self.reader().label()
    }

    fn freshness(&self) -> Freshness {
        self.reader().freshness()
    }

    fn generation(&self) -> u64 {
        ReaderWrapper::generation(self)
    }

    fn len(&self) -> Option<u64> {
        self.reader().len()
    }

    fn size(&self) -> Option<u64> {
        ReaderWrapper::size(self)
    }

    fn seek(&mut self, range: Range<u64>) -> BackendResult<()> {
        ReaderWrapper::seek(self, range)
    }

    async fn chunk(&mut self) -> BackendResult<Option<Bytes>> {
        ReaderWrapper::chunk(self).await
    }
}

/// The size of a body of so many bytes, with this entry.
pub(crate) fn size_of(len: u64, entry: &CacheValue<()>) -> u64 {
    let metadata = entry.details().into_iter().flat_map(|details| &details.metadata);
    len + metadata.map(|(name, value)| (name.len() + value.len()) as u64).sum::<u64>()
}

/// The size of the body that a backend has under a key, if it has one.
pub(crate) async fn size_in<B: Backend + ?Sized>(backend: &B, key: &CacheKey) -> Option<u64> {
    let options = ReadOptions::NORMAL.without_reconcile().in_background();
    backend.open_reader(key, &options).await.ok().flatten()?.size()
}

/// Where a body comes from. It is as old as its load permit, which is taken now if the caller has none.
pub(crate) fn claim(layout: &Layout, key: &CacheKey, options: &mut WriteOptions) -> BodyOrigin {
    options.origin.take().unwrap_or_else(|| BodyOrigin::Load(Arc::new(layout.load_permit(key))))
}

/// Takes a body that is not admitted.
pub(crate) fn leave_out(writer: Box<dyn BodyWriter>) -> Box<dyn BodyWriter> {
    Box::new(LeftOut(writer))
}

struct LeftOut(Box<dyn BodyWriter>);

#[async_trait]
impl BodyWriter for LeftOut {
    async fn chunk(&mut self, _: Bytes) -> BackendResult<()> {
        Ok(())
    }

    fn written(&self) -> Option<Arc<dyn WrittenPart>> {
        None
    }

    fn let_go(&mut self) {
        self.0.let_go();
    }

    async fn finish(self: Box<Self>) -> Receipt {
        self.0.leave_out().await
    }

    async fn abort(self: Box<Self>) {
        self.0.abort().await;
    }

    async fn leave_out(self: Box<Self>) -> Receipt {
        self.0.leave_out().await
    }
}

/// The part of a body of `len` bytes that a reader goes on with.
///
/// # Errors
/// As [`BodyReader::seek`].
pub(crate) fn part_of(range: Range<u64>, len: u64, label: BackendLabel) -> BackendResult<Range<u64>> {
    let end = range.end.min(len);
    if range.start > range.end || (range.start >= len && range.start > 0) {
        let message = format!("{}..{} is no range of {len} bytes", range.start, range.end);
        return Err(BackendError::new(ErrorKind::Range, message).at(label).during(Operation::ReadBody));
    }
    Ok(range.start..end)
}

/// What can be said of a body without waiting.
pub enum TryOpen {
    /// It is there, or nowhere.
    Answered(Option<Box<dyn BodyReader>>),
    /// It is there, and its entry has an idle time: that it was read is to be noted.
    ToBeNoted(Box<dyn BodyReader>, Notes),
    /// Somebody has to be waited for. The leaves named here have answered "no" and need not be asked again.
    WouldWait(LeafSet),
}

impl std::fmt::Debug for TryOpen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Answered(Some(_)) | Self::ToBeNoted(..) => "a body",
            Self::Answered(None) => "no body",
            Self::WouldWait(_) => "somebody has to be waited for",
        })
    }
}

/// Opens a body if that needs no waiting: it is in memory, and no other layer has to be asked.
pub fn try_open_reader<B: Backend + ?Sized>(backend: &B, key: &CacheKey, options: &ReadOptions) -> TryOpen {
    match backend.try_read(key, options) {
        TryRead::Hit(found) => match typed::body(found) {
            Ok((found, body)) => {
                let notes = notes_of_read(backend, key, &found.value, options);
                let reader = BufferedReader::of(found, body);
                match notes {
                    None => TryOpen::Answered(Some(reader)),
                    Some(notes) => TryOpen::ToBeNoted(reader, notes),
                }
            }
            Err(wrong) => TryOpen::WouldWait(typed::count(backend, &wrong, options)),
        },
        TryRead::Miss => {
            backend.layout().count_unanswered(options);
            TryOpen::Answered(None)
        }
        TryRead::WouldWait(asked) => TryOpen::WouldWait(asked),
    }
}

/// Opens a body: without waiting, if it is in memory and no other layer has to be asked.
///
/// # Errors
/// As [`Backend::open_reader`].
///
/// # Cancellation
/// As [`Backend::open_reader`].
pub async fn open_reader<B: Backend + ?Sized>(
    backend: &B,
    key: &CacheKey,
    options: &ReadOptions,
) -> BackendResult<Option<Box<dyn BodyReader>>> {
    open_tried(backend, key, options, try_open_reader(backend, key, options)).await
}

/// The same where it has been tried without waiting.
///
/// # Errors
/// As [`Backend::open_reader`].
///
/// # Cancellation
/// As [`Backend::open_reader`].
pub async fn open_tried<B: Backend + ?Sized>(
    backend: &B,
    key: &CacheKey,
    options: &ReadOptions,
    tried: TryOpen,
) -> BackendResult<Option<Box<dyn BodyReader>>> {
    match tried {
        TryOpen::Answered(reader) => Ok(reader),
        TryOpen::ToBeNoted(reader, notes) => {
            Box::pin(notes.make()).await;
            Ok(Some(reader))
        }
        TryOpen::WouldWait(asked) => {
            let options = options.clone();
            let skip = options.skip.union(asked);
            backend.open_reader(key, &options.skipping(skip)).await
        }
    }
}

/// What is to be noted of the read of an entry with an idle time, if this call has to do it.
fn notes_of_read<B: Backend + ?Sized, T>(
    backend: &B,
    key: &CacheKey,
    entry: &CacheValue<T>,
    options: &ReadOptions,
) -> Option<Notes> {
    let layout = backend.layout();
    let change = (!options.background).then(|| TimeChange::of_read(entry, || layout.clock().now()))??;
    layout.note_read_later(key, change)
}

/// Notes that an entry with an idle time has been read by somebody who asked for its body.
pub(crate) async fn note_read<B: Backend + ?Sized, T>(
    backend: &B,
    key: &CacheKey,
    entry: &CacheValue<T>,
    options: &ReadOptions,
) {
    if let Some(notes) = notes_of_read(backend, key, entry, options) {
        Box::pin(notes.make()).await;
    }
}

/// The entry as it is when its body has ended: its idle time begins then, unless it is a copy.
pub(crate) fn ended<T>(entry: CacheValue<T>, origin: &BodyOrigin, clock: &dyn Clock) -> CacheValue<T> {
    if matches!(origin, BodyOrigin::Refill(_)) {
        return entry;
    }
    TimeChange::read_at(clock.now(), entry.created()).apply(entry).unwrap_or_else(|same| same)
}

/// The ticket under which a body is stored; nothing if its key was written, or something that it carries was invalidated, since
/// its writer was opened.
pub(crate) fn ticket_of(
    layout: &Layout,
    key: &CacheKey,
    entry: &CacheValue<()>,
    options: &WriteOptions,
    load: &LoadPermit,
) -> Option<Arc<WriteTicket>> {
    let scopes = entry.details().map_or(&[][..], |details| &details.scopes);
    match &options.ticket {
        Some(ticket) => Some(ticket.clone()),
        None => (!layout.is_superseded(key, scopes, load)).then(|| load.begin()).flatten(),
    }
}

/// Hands out a value that is in memory already.
pub(crate) struct BufferedReader {
    entry: CacheValue<()>,
    label: BackendLabel,
    freshness: Freshness,
    /// Held, since a live value is told from others by where it is.
    value: Raw,
    body: Chunks,
    at: Range<u64>,
}

impl BufferedReader {
    /// Reads the entry and hands it out by chunks. A copy that is no bytes is a miss of its layer.
    pub(crate) async fn open<B: Backend>(
        backend: &B,
        key: &CacheKey,
        options: &ReadOptions,
    ) -> BackendResult<Option<Box<dyn BodyReader>>> {
        let Some((found, body)) = typed::read_by(backend, key, options.clone(), typed::body).await? else {
            return Ok(None);
        };
        note_read(backend, key, &found.value, options).await;
        Ok(Some(Self::of(found, body)))
    }

    fn of(found: Found, body: Chunks) -> Box<dyn BodyReader> {
        let (label, freshness) = (found.label, found.freshness);
        let (value, entry) = found.value.split();
        let at = 0..body.len();
        Box::new(Self { entry, label, freshness, value, body, at })
    }
}

#[async_trait]
impl BodyReader for BufferedReader {
    fn entry(&self) -> &CacheValue<()> {
        &self.entry
    }

    fn label(&self) -> BackendLabel {
        self.label
    }

    fn freshness(&self) -> Freshness {
        self.freshness
    }

    fn generation(&self) -> u64 {
        self.value.identity()
    }

    fn len(&self) -> Option<u64> {
        Some(self.body.len())
    }

    fn seek(&mut self, range: Range<u64>) -> BackendResult<()> {
        self.at = part_of(range, self.body.len(), self.label)?;
        Ok(())
    }

    fn chunk_at_once(&mut self) -> Option<BackendResult<Option<Bytes>>> {
        let chunk = self.body.read(self.at.clone(), CHUNK);
        self.at.start += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        Some(Ok(chunk))
    }

    async fn chunk(&mut self) -> BackendResult<Option<Bytes>> {
        self.chunk_at_once().unwrap_or(Ok(None))
    }
}
