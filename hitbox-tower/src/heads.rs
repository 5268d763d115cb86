//! Heads of stored responses that were read lately.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hitbox::Body;
use hitbox::backend::wrap::Layout;
use hitbox::core::CacheKey;
use hitbox_http::{CacheStatusField, Policy, StoredHead, Terms};
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
    /// Its fields, with the length of its body.
    fields: HeaderMap,
    /// What it was last answered with: hits of one second are all answered so.
    last: Mutex<Option<Arc<Answered>>>,
}

/// The fields of an answer, and what they tell.
#[derive(Debug)]
pub(crate) struct Answered {
    age: u64,
    status: CacheStatusField<'static>,
    pub(crate) fields: HeaderMap,
}

impl Head {
    /// Of a response whose body has so many bytes, if anybody knows.
    pub(crate) fn new(head: StoredHead, length: Option<u64>, policy: &Policy) -> Self {
        let mut fields = head.headers.clone();
        if let Some(length) = length.filter(|_| head.status != StatusCode::NO_CONTENT) {
            fields.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        Self { terms: head.terms(policy), head, fields, last: Mutex::default() }
    }

    /// The fields of an answer of this age, of which the cache of this name tells this.
    pub(crate) fn answered(&self, cache: &str, age: u64, status: CacheStatusField<'_>) -> Arc<Answered> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*last
            && known.age == age
            && known.status == status
        {
            return known.clone();
        }
        let mut fields = self.fields.clone();
        tell(&mut fields, cache, age, &status);
        let answered = Arc::new(Answered { age, status: status.into_owned(), fields });
        *last = Some(answered.clone());
        answered
    }
}

/// Tells the age of a stored response, and what became of the request, in place of what was told of it when it was stored.
pub(crate) fn tell(fields: &mut HeaderMap, cache: &str, age: u64, status: &CacheStatusField<'_>) {
    fields.insert(header::AGE, HeaderValue::from(age));
    if let Some(status) = status.to_value(cache) {
        fields.insert(CACHE_STATUS, status);
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
