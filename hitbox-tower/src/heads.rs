//! Heads of stored responses that were read lately.

use std::sync::{Arc, Mutex, PoisonError};

use hitbox::Body;
use hitbox::backend::internal::DecodedMetadata;
use hitbox::backend::wrap::Layout;
use hitbox::core::CacheKey;
use hitbox_http::{CacheStatusField, Policy, StoredHead, Terms};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::lookup::HEAD;
use crate::respond::CACHE_STATUS;

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

/// Heads that were decoded lately.
#[derive(Debug, Default)]
pub(crate) struct Heads(DecodedMetadata<Head, 1>);

impl Heads {
    /// The head of the entry of this key, if it has one.
    pub(crate) fn of(
        &self,
        key: &CacheKey,
        body: &Body,
        layout: &Layout,
        policy: &Policy,
    ) -> Option<Arc<Head>> {
        let stored = body.metadata(HEAD)?;
        if let Some(known) = self.0.of(key, [stored]) {
            return Some(known);
        }
        // Of a body that still comes it is known later: asked for twice, it may differ.
        let length = body.len();
        let head = Arc::new(Head::new(StoredHead::decode(stored).ok()?, length, policy));
        // Its fields are there three times: as they are stored, with the length, and as they were last answered.
        let fields = 3 * head.head.headers.len();
        if length.is_some() && self.0.takes(body, layout, stored.len(), fields) {
            self.0.remember(key, [stored], head.clone());
        }
        Some(head)
    }
}
