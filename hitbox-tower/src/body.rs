//! Bodies of answers: those of the service, and stored ones.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt, stream};
use hitbox::Body as StoredBody;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

/// What an error of a body is.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

type Chunks = Pin<Box<dyn Stream<Item = Result<Bytes, BoxError>> + Send>>;

pin_project_lite::pin_project! {
    /// The body of an answer: that of the service, untouched, or a stored one.
    pub struct CacheBody<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project_lite::pin_project! {
    #[project = KindProjection]
    enum Kind<B> {
        Passed { #[pin] body: B },
        Stored { chunks: Chunks, left: Option<u64>, last: Option<Bytes>, trailers: Trailers },
        Whole { bytes: Option<Bytes> },
    }
}

/// The trailers of a body that is being stored, for the one whose request brought it. By default there are none to come.
#[derive(Clone, Default)]
pub(crate) struct Trailers(Option<Arc<Mutex<Option<HeaderMap>>>>);

impl Trailers {
    /// Of a body that comes from the service now.
    pub(crate) fn to_come() -> Self {
        Self(Some(Arc::default()))
    }

    fn set(&self, trailers: HeaderMap) {
        if let Some(place) = &self.0 {
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(trailers);
        }
    }

    fn take(&self) -> Option<HeaderMap> {
        self.0.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<B> CacheBody<B> {
    /// That of the service.
    pub(crate) fn passed(body: B) -> Self {
        Self { kind: Kind::Passed { body } }
    }

    pub(crate) fn empty() -> Self {
        Self { kind: Kind::Whole { bytes: None } }
    }

    /// Whether it is read from the cache, or into it.
    pub(crate) fn is_stored(&self) -> bool {
        !matches!(self.kind, Kind::Passed { .. })
    }

    /// All of it.
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self { kind: Kind::Whole { bytes: Some(bytes) } }
    }

    /// What is left of a stored body, which is so many bytes if anybody knows.
    ///
    /// The last of so many bytes are handed out when the end has come. Who serves a body of a known length drops it with its last byte, and would
    /// otherwise be taken for somebody who has left before the end: then a response that nobody else waits for would not be stored.
    pub(crate) fn stored(mut body: StoredBody, left: Option<u64>, trailers: Trailers) -> Self {
        let first = match body.chunk_at_once() {
            // All that there is: nobody has to wait for it.
            Some(Ok(Some(chunk))) if left == Some(chunk.len() as u64) => {
                return Self { kind: Kind::Whole { bytes: Some(chunk) } };
            }
            first => first.and_then(Result::transpose),
        };
        let chunks = stream::iter(first).chain(body.into_stream()).map(|chunk| chunk.map_err(Into::into));
        Self { kind: Kind::Stored { chunks: Box::pin(chunks), left, last: None, trailers } }
    }
}

impl<B> Body for CacheBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.project().kind.project() {
            KindProjection::Passed { body } => {
                let frame = ready!(body.poll_frame(cx));
                let bytes = |mut data: B::Data| data.copy_to_bytes(data.remaining());
                Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(bytes)).map_err(Into::into)))
            }
            KindProjection::Stored { chunks, left, last, trailers } => loop {
                match ready!(chunks.as_mut().poll_next(cx)) {
                    Some(Ok(chunk)) if last.is_none() => {
                        let read = chunk.len() as u64;
                        let is_last = left.is_some_and(|left| left == read) && read > 0;
                        if is_last {
                            *last = Some(chunk);
                            continue;
                        }
                        *left = left.map(|left| left.saturating_sub(read));
                        return Poll::Ready(Some(Ok(Frame::data(chunk))));
                    }
                    Some(Ok(_)) => {
                        return Poll::Ready(Some(Err("the body is longer than its declared length".into())));
                    }
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    None => match last.take() {
                        Some(chunk) => {
                            *left = Some(0);
                            return Poll::Ready(Some(Ok(Frame::data(chunk))));
                        }
                        None => {
                            return Poll::Ready(
                                trailers.take().map(|trailers| Ok(Frame::trailers(trailers))),
                            );
                        }
                    },
                }
            },
            KindProjection::Whole { bytes } => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Passed { body } => body.is_end_stream(),
            // Trailers may follow the last byte.
            Kind::Stored { .. } => false,
            Kind::Whole { bytes } => bytes.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Passed { body } => body.size_hint(),
            Kind::Stored { left, .. } => left.map_or_else(SizeHint::new, SizeHint::with_exact),
            Kind::Whole { bytes } => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
        }
    }
}

impl<B> std::fmt::Debug for CacheBody<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match &self.kind {
            Kind::Passed { .. } => "passed",
            Kind::Stored { .. } => "stored",
            Kind::Whole { .. } => "whole",
        };
        f.debug_struct("CacheBody").field("kind", &kind).finish_non_exhaustive()
    }
}

pin_project_lite::pin_project! {
    /// The body of the service as a stream of chunks, which fails if it ends before its declared length. Its trailers are left for whoever
    /// asked.
    pub(crate) struct Incoming<B> {
        #[pin]
        body: B,
        left: Option<u64>,
        trailers: Trailers,
    }
}

impl<B> Incoming<B> {
    pub(crate) fn new(body: B, length: Option<u64>, trailers: Trailers) -> Self {
        Self { body, left: length, trailers }
    }
}

impl<B> Stream for Incoming<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Item = Result<Bytes, BoxError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut this = self.project();
        loop {
            let frame = match this.body.as_mut().poll_frame(cx) {
                // All that was declared has come. Whether trailers follow is not waited for.
                Poll::Pending if *this.left == Some(0) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
                Poll::Ready(frame) => frame,
            };
            let frame = match frame {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None if this.left.is_some_and(|left| left > 0) => {
                    *this.left = None;
                    return Poll::Ready(Some(Err("the body ended before its declared length".into())));
                }
                None => return Poll::Ready(None),
            };
            match frame.into_data() {
                Ok(mut data) => {
                    let chunk = data.copy_to_bytes(data.remaining());
                    if this.left.is_some_and(|left| left < chunk.len() as u64) {
                        return Poll::Ready(Some(Err("the body is longer than its declared length".into())));
                    }
                    *this.left = this.left.map(|left| left - chunk.len() as u64);
                    return Poll::Ready(Some(Ok(chunk)));
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        this.trailers.set(trailers);
                    }
                }
            }
        }
    }
}
