//! Requests that only read and whose body says what, as searches do: the body is a part of the key.

use std::any::Any;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hitbox::core::BoxFuture;
use http::{Extensions, HeaderName, HeaderValue, Method, Request, header};
use http_body::{Body, Frame, SizeHint};

use crate::body::BoxError;
use crate::choice::RequestHead;

/// The body of a request, part of which has been read: what is passed on is the whole.
#[derive(Debug)]
pub struct RequestBody<Q> {
    read: VecDeque<Frame<Bytes>>,
    failed: Option<BoxError>,
    /// What comes after that.
    rest: Option<Pin<Box<Q>>>,
}

impl<Q: Body<Data = Bytes, Error: Into<BoxError>>> Body for RequestBody<Q> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(frame) = self.read.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
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
        let is_read = self.read.is_empty() && self.failed.is_none();
        is_read && self.rest.as_ref().is_none_or(|rest| rest.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let read = self.read.iter().filter_map(Frame::data_ref).map(|data| data.len() as u64).sum::<u64>();
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

/// Whether the body of this request is a part of its key.
pub(crate) fn is_by_body(extensions: &Extensions) -> bool {
    extensions.get::<BodyHash>().is_some()
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
    pub(crate) async fn read<Q: Send + 'static>(&self, request: Request<Q>) -> Request<Q> {
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

/// Reads a body that is not longer than this.
async fn read<Q>(body: Q, max_bytes: usize) -> (RequestBody<Q>, Option<blake3::Hash>)
where
    Q: Body<Data = Bytes, Error: Into<BoxError>>,
{
    let mut body = RequestBody { read: VecDeque::new(), failed: None, rest: Some(Box::pin(body)) };
    let (mut bytes, mut hasher) = (0, blake3::Hasher::new());
    while let Some(rest) = &mut body.rest {
        if rest.size_hint().lower() > (max_bytes - bytes) as u64 {
            return (body, None);
        }
        match std::future::poll_fn(|cx| rest.as_mut().poll_frame(cx)).await {
            Some(Ok(frame)) => {
                let data = frame.data_ref();
                hasher.update(data.map_or(&[], |data| data));
                bytes += data.map_or(0, Bytes::len);
                // Trailers say something that is in no key. Nothing limits how many frames are empty.
                let (is_keyed, is_empty) = (data.is_some(), data.is_some_and(Bytes::is_empty));
                if !is_empty {
                    body.read.push_back(frame);
                }
                if !is_keyed || bytes > max_bytes {
                    return (body, None);
                }
            }
            Some(Err(error)) => {
                body.failed = Some(error.into());
                return (body, None);
            }
            None => body.rest = None,
        }
    }
    (body, Some(hasher.finalize()))
}
