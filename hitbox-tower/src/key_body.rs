//! Requests that only read and whose body says what, as searches do: the body is a part of the key.

use std::any::Any;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use hitbox::core::BoxFuture;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use http_body::{Body, Frame, SizeHint};

use crate::body::BoxError;
use crate::choice::RequestHead;

/// The body of a request, part of which has been read: what is passed on is the whole.
#[derive(Debug)]
pub struct RequestBody<Q> {
    read: Bytes,
    trailers: Option<Box<HeaderMap>>,
    failed: Option<BoxError>,
    /// What comes after that.
    rest: Option<Pin<Box<Q>>>,
}

impl<Q> RequestBody<Q> {
    /// The bytes, if all of it has been read and it has no trailers: for clients, whose redirects and retries send a body once more.
    ///
    /// # Errors
    /// If not: gives itself back.
    pub fn try_into_bytes(self) -> Result<Bytes, Self> {
        let is_read = self.rest.is_none() && self.failed.is_none() && self.trailers.is_none();
        if is_read { Ok(self.read) } else { Err(self) }
    }
}

impl<Q: Body<Data = Bytes, Error: Into<BoxError>>> Body for RequestBody<Q> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if !self.read.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.read)))));
        }
        if let Some(trailers) = self.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(*trailers))));
        }
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        match &mut self.rest {
            Some(rest) => rest.as_mut().poll_frame(cx).map_err(Into::into),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        let is_read = self.read.is_empty() && self.trailers.is_none() && self.failed.is_none();
        is_read && self.rest.as_ref().is_none_or(|rest| rest.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let read = self.read.len() as u64;
        let rest = match (&self.failed, &self.rest) {
            (Some(_), _) => SizeHint::new(),
            (None, Some(rest)) => rest.size_hint(),
            (None, None) => SizeHint::with_exact(0),
        };
        let mut hint = SizeHint::new();
        hint.set_lower(read.saturating_add(rest.lower()));
        if let Some(upper) = rest.upper() {
            hint.set_upper(read.saturating_add(upper));
        }
        hint
    }
}

/// The hash of the body of a request that is a read, in its extensions.
#[derive(Clone, Copy)]
struct BodyHash(blake3::Hash);

/// Whether the body of this request has been read for a layer: this one, if it has keys with bodies.
pub(crate) fn is_read(extensions: &Extensions) -> bool {
    extensions.get::<BodyHash>().is_some()
}

/// Another layer around this one may have read it, and what stands between has changed it since.
pub(crate) fn forget(extensions: &mut Extensions) {
    extensions.remove::<BodyHash>();
}

/// The parts of a key that a request with such a body has: also what says how to read it.
pub(crate) fn parts_of(head: &RequestHead<'_>) -> Option<[(&'static str, Option<String>); 4]> {
    let BodyHash(hash) = head.extensions.get()?;
    let field = |name: HeaderName| {
        let lines: Vec<&[u8]> = head.headers.get_all(name).into_iter().map(HeaderValue::as_bytes).collect();
        (!lines.is_empty()).then(|| lines.join(&b", "[..]).escape_ascii().to_string())
    };
    Some([
        ("method", Some(head.method.to_string())),
        ("content-type", field(header::CONTENT_TYPE)),
        ("content-encoding", field(header::CONTENT_ENCODING)),
        ("body", Some(hash.to_hex().to_string())),
    ])
}

type Reading<Q> = BoxFuture<'static, (Q, Option<blake3::Hash>)>;
/// Reads a body of this type, and gives it back with its hash, if it was all read.
type Reads<Q> = Arc<dyn Fn(Q) -> Reading<Q> + Send + Sync>;

/// Which requests have keys of which their body is a part, and how it is read.
#[derive(Clone)]
pub(crate) struct KeyBody {
    methods: Vec<Method>,
    /// [`Reads`] of the type of bodies that the user has named.
    reads: Arc<dyn Any + Send + Sync>,
}

impl KeyBody {
    pub(crate) fn new<Q>(
        methods: impl IntoIterator<Item = Method>,
        max_bytes: usize,
        whole: impl Fn(RequestBody<Q>) -> Q + Send + Sync + 'static,
    ) -> Self
    where
        Q: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let whole = Arc::new(whole);
        let reads: Reads<Q> = Arc::new(move |body| {
            let whole = whole.clone();
            Box::pin(async move {
                if body.size_hint().lower() > max_bytes as u64 {
                    // Untouched.
                    return (body, None);
                }
                let (body, hash) = read(body, max_bytes).await;
                (whole(body), hash)
            })
        });
        Self { methods: methods.into_iter().collect(), reads: Arc::new(reads) }
    }

    /// Whether requests by this method are reads.
    pub(crate) fn takes(&self, method: &Method) -> bool {
        self.methods.contains(method)
    }

    /// The request, whose body has been read, if it was not too long.
    pub(crate) async fn read<Q: Body + Send + 'static>(&self, request: Request<Q>) -> Request<Q> {
        let has_none = request.body().size_hint().upper() == Some(0) || request.body().is_end_stream();
        if has_none && matches!(*request.method(), Method::GET | Method::HEAD) {
            // One as any other.
            return request;
        }
        // Only the service knows what it would say to these.
        let asks_for_more = [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::RANGE, header::EXPECT];
        if asks_for_more.iter().any(|field| request.headers().contains_key(field)) {
            return request;
        }
        let Some(reads) = self.reads.downcast_ref::<Reads<Q>>() else {
            tracing::warn!(
                bodies = std::any::type_name::<Q>(),
                "requests have another type of body than `key_body` was told, and are not cached"
            );
            return request;
        };
        let (mut parts, body) = request.into_parts();
        let (body, hash) = reads(body).await;
        if let Some(hash) = hash {
            parts.extensions.insert(BodyHash(hash));
        }
        Request::from_parts(parts, body)
    }
}

/// A body with more empty pieces passes.
const MOST_EMPTY: usize = 1_024;

/// Reads a body that is not longer than this.
async fn read<Q>(body: Q, max_bytes: usize) -> (RequestBody<Q>, Option<blake3::Hash>)
where
    Q: Body<Data = Bytes, Error: Into<BoxError>>,
{
    let mut body =
        RequestBody { read: Bytes::new(), trailers: None, failed: None, rest: Some(Box::pin(body)) };
    // Small pieces are put together: each would take more than it has.
    let (mut joined, mut hasher) = (BytesMut::new(), blake3::Hasher::new());
    let (mut is_whole, mut empty) = (false, 0);
    while let Some(rest) = &mut body.rest {
        let bytes = body.read.len() + joined.len();
        if rest.size_hint().lower().saturating_add(bytes as u64) > max_bytes as u64 {
            break;
        }
        match std::future::poll_fn(|cx| rest.as_mut().poll_frame(cx))
            .await
            .map(|frame| frame.map(Frame::into_data))
        {
            Some(Ok(Ok(data))) => {
                // Nothing else limits how many of these there are.
                empty += usize::from(data.is_empty());
                if empty > MOST_EMPTY {
                    break;
                }
                hasher.update(&data);
                if bytes == 0 {
                    body.read = data;
                    continue;
                }
                if joined.is_empty() {
                    joined.extend_from_slice(&std::mem::take(&mut body.read));
                }
                joined.extend_from_slice(&data);
            }
            // They say something that is in no key.
            Some(Ok(Err(other))) => {
                body.trailers = other.into_trailers().ok().map(Box::new);
                break;
            }
            Some(Err(error)) => {
                body.failed = Some(error.into());
                break;
            }
            None => {
                body.rest = None;
                is_whole = true;
            }
        }
    }
    if !joined.is_empty() {
        body.read = joined.freeze();
    }
    let is_keyed = is_whole && body.read.len() <= max_bytes;
    (body, is_keyed.then(|| hasher.finalize()))
}
