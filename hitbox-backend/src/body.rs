//! Bodies for users: to be read as a stream, or by those who read bytes, and stored from such.

use std::error::Error;
use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::io::AsyncBufRead;
use futures_util::stream::{self, Stream, StreamExt, TryStreamExt};
use hitbox_core::{BackendError, BackendResult, CacheKey, CacheValue, ErrorKind, Operation};
use tokio_util::io::{ReaderStream, StreamReader};

use crate::coherence::LoadPermit;
use crate::feed;
use crate::in_flight::{Follower, InFlightBody};
use crate::layout::Layout;
use crate::receipt::Receipt;
use crate::stream::{BodyReader, BodyWriter};

/// Bytes that are read of a source at a time.
const PART: usize = 64 * 1024;

/// A body to read: by chunks, as a stream, or as a source of bytes. What it is stands in its [entry](BodyReader::entry).
///
/// It stays what it is when its key is written or removed meanwhile.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> hitbox_core::BackendResult<()> {
/// # use hitbox_backend::{CacheBackend, IntoBackend, doc::Map};
/// # use hitbox_core::{CacheKey, CacheValue};
/// # use bytes::Bytes;
/// use futures_util::TryStreamExt;
///
/// # let cache = Map::default().into_backend();
/// # let key = CacheKey::new("film");
/// # let film = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"two reels"))]);
/// # cache.write_body(&key, CacheValue::new(())).await?.store(film).await?;
/// let mut body = cache.open_body(&key).await?.expect("it was stored");
/// body.seek(4..u64::MAX)?;
/// let rest: Vec<Bytes> = body.into_stream().try_collect().await?;
/// assert_eq!(rest.concat(), b"reels");
/// # Ok(()) }
/// ```
pub struct Body(Box<dyn BodyReader>);

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("label", &self.label()).field("len", &self.len()).finish_non_exhaustive()
    }
}

impl From<Box<dyn BodyReader>> for Body {
    fn from(reader: Box<dyn BodyReader>) -> Self {
        Self(reader)
    }
}

impl From<Follower> for Body {
    fn from(follower: Follower) -> Self {
        Self(Box::new(follower))
    }
}

impl Deref for Body {
    type Target = dyn BodyReader;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl DerefMut for Body {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut *self.0
    }
}

impl Body {
    /// The metadata with this name, as it was when the body was opened.
    pub fn metadata(&self, name: &str) -> Option<&Bytes> {
        self.entry().details()?.metadata.get(name)
    }

    /// What is left of it as a stream. An error is its last item.
    pub fn into_stream(self) -> impl Stream<Item = BackendResult<Bytes>> + Send + Unpin + 'static {
        let next = |mut reader: Box<dyn BodyReader>| async move {
            let chunk = reader.chunk().await?;
            Ok(chunk.map(|chunk| (chunk, reader)))
        };
        stream::try_unfold(self.0, next).boxed()
    }

    /// What is left of it, for those who read with the traits of `futures`.
    pub fn into_async_read(self) -> impl AsyncBufRead + Send + Unpin + 'static {
        self.into_stream().map_err(io::Error::from).into_async_read()
    }

    /// What is left of it, for those who read with the traits of `tokio`.
    pub fn into_tokio_read(self) -> impl tokio::io::AsyncBufRead + Send + Unpin + 'static {
        StreamReader::new(self.into_stream())
    }
}

/// A body to store. Nothing of it is stored before it is finished; dropped, it leaves nothing. It can be
/// [followed](Self::follow) meanwhile.
///
/// What was written to its key, or invalidated, since it was opened wins over it.
pub struct BodySink {
    writer: Box<dyn BodyWriter>,
    in_flight: InFlightBody,
    /// A chunk has failed, or its future was dropped.
    is_lost: bool,
}

impl fmt::Debug for BodySink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodySink").finish_non_exhaustive()
    }
}

impl BodySink {
    /// A body that is loaded under a permit, and what writes it.
    #[doc(hidden)]
    pub fn new(
        layout: &Layout,
        key: &CacheKey,
        entry: CacheValue<()>,
        permit: Arc<LoadPermit>,
        writer: Box<dyn BodyWriter>,
    ) -> Self {
        let in_flight = InFlightBody::begin(layout, key, entry, permit, writer.written());
        Self { writer, in_flight: in_flight.listed(), is_lost: false }
    }

    /// A reader of this very body, whatever else is written under its key: it waits for what has not come yet, and fails if the
    /// body is given up. It keeps nobody waiting. Up to 2 MiB are held for it; what is older it reads from a layer.
    pub fn follow(&self) -> Body {
        Body(Box::new(self.in_flight.follow()))
    }

    /// Takes the next chunk.
    ///
    /// # Errors
    /// If it cannot be stored; the body is lost then.
    ///
    /// # Cancellation
    /// A dropped future loses the body.
    pub async fn chunk(&mut self, chunk: impl Into<Bytes> + Send) -> BackendResult<()> {
        if self.is_lost {
            return Err(feed::given_up().during(Operation::WriteBody));
        }
        let chunk = chunk.into();
        self.in_flight.push(chunk.clone());
        self.is_lost = true;
        let taken = self.writer.chunk(chunk).await;
        match &taken {
            Ok(()) => self.in_flight.has_been_written(),
            Err(error) => self.in_flight.abort(error.clone()),
        }
        self.is_lost = taken.is_err();
        taken
    }

    /// Ends the body and makes it visible.
    ///
    /// # Errors
    /// As a write; of the kind [`Closed`](ErrorKind::Closed) if a chunk was lost. Nothing is an error that was written or invalidated meanwhile: then all layers say "superseded".
    ///
    /// # Cancellation
    /// A dropped future leaves what a dropped write leaves.
    pub async fn finish(self) -> BackendResult<Receipt> {
        if self.is_lost {
            self.abort().await;
            return Err(feed::given_up().during(Operation::WriteBody));
        }
        self.in_flight.complete();
        self.writer.finish().await.into_result()
    }

    /// Gives the body up, and waits until nothing of it is left.
    pub async fn abort(self) {
        let Self { writer, in_flight, .. } = self;
        drop(in_flight);
        writer.abort().await;
    }

    /// Stores all that a stream brings.
    ///
    /// # Errors
    /// Those of layers; of the kind [`Io`](ErrorKind::Io), with its own as the source, if the stream fails. Nothing of the body
    /// is left then.
    ///
    /// # Cancellation
    /// A dropped future leaves nothing, unless the stream had ended: then it leaves what a dropped write leaves.
    pub async fn store<S, E>(mut self, source: S) -> BackendResult<Receipt>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let mut source = std::pin::pin!(source);
        loop {
            let taken = match source.next().await {
                None => return self.finish().await,
                Some(Ok(chunk)) => self.chunk(chunk).await,
                Some(Err(error)) => Err(source_failed(error.into())),
            };
            if let Err(error) = taken {
                self.in_flight.abort(error.clone());
                self.abort().await;
                return Err(error);
            }
        }
    }

    /// Stores all that is read from a source of `tokio`.
    ///
    /// # Errors
    /// As [`store`](Self::store).
    ///
    /// # Cancellation
    /// As [`store`](Self::store).
    pub async fn store_from(self, source: impl tokio::io::AsyncRead + Send) -> BackendResult<Receipt> {
        self.store(ReaderStream::with_capacity(source, PART)).await
    }
}

/// A source of a body has failed.
pub fn source_failed(error: Box<dyn Error + Send + Sync>) -> BackendError {
    let failed = BackendError::new(ErrorKind::Io, "the source of a body failed");
    failed.with_source(error).during(Operation::WriteBody)
}
