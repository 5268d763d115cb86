//! Heads of stored responses that were read lately.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hitbox::Body;
use hitbox::backend::wrap::Layout;
use hitbox::core::CacheKey;
use hitbox_http::{Policy, StoredHead, Terms};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::lookup::HEAD;
use crate::respond::CACHE_STATUS;

/// Heads that are remembered, at most: a key has one place.
const PLACES: usize = 1024;
/// Bytes of a head that is remembered, at most.
const MOST_BYTES: usize = 4096;

/// The head of a stored response, and what it says of its use.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) head: StoredHead,
    pub(crate) terms: Terms,
    /// Its fields, with those that an answer adds: a clone of them has room for these.
    pub(crate) answered: HeaderMap,
}

impl Head {
    /// Of a response whose body has so many bytes, if anybody knows.
    pub(crate) fn new(head: StoredHead, length: Option<u64>, policy: &Policy) -> Self {
        let mut answered = head.headers.clone();
        for name in [header::AGE, CACHE_STATUS] {
            answered.insert(name, HeaderValue::from_static("0"));
        }
        if let Some(length) = length.filter(|_| head.status != StatusCode::NO_CONTENT) {
            answered.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        Self { terms: head.terms(policy), head, answered }
    }
}

/// The last head that was read in each place, with the bytes that it was read from. What is in memory has the same bytes each time, and is
/// read once.
pub(crate) struct Heads(Box<[Mutex<Place>]>);

type Place = Option<(Bytes, Arc<Head>)>;

impl Heads {
    pub(crate) fn new() -> Self {
        Self((0..PLACES).map(|_| Mutex::new(None)).collect())
    }

    /// The head of the entry of this key, if it has one.
    pub(crate) fn of(
        &self,
        key: &CacheKey,
        body: &Body,
        layout: &Layout,
        policy: &Policy,
    ) -> Option<Arc<Head>> {
        let stored = body.metadata(HEAD)?;
        let mut place =
            self.0[key.process_hash() as usize % PLACES].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, head)) = &*place
            // They are held, so that nothing else can be where they are.
            && (known.as_ptr(), known.len()) == (stored.as_ptr(), stored.len())
        {
            return Some(head.clone());
        }
        let head = StoredHead::decode(stored).ok()?;
        // What is not in memory has other bytes each time.
        let is_kept = stored.len() <= MOST_BYTES && is_in_memory(body, layout);
        let head = Arc::new(Head::new(head, body.len(), policy));
        if is_kept {
            *place = Some((stored.clone(), head.clone()));
        }
        Some(head)
    }
}

fn is_in_memory(body: &Body, layout: &Layout) -> bool {
    let mut leaves = layout.leaves().iter();
    leaves.any(|leaf| leaf.capabilities().keeps_live_values && leaf.path() == body.label())
}
