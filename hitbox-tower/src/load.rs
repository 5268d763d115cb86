//! A request that goes on to the service. Requests for one response that come at the same time go on once: the first leads, and the
//! others are answered with what it brings, if that is for them.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::{Stream, stream};
use hitbox::backend::Backend;
use hitbox::backend::operation::{Batch, TimeChange, Write};
use hitbox::core::CacheKey;
use hitbox::{Body as StoredBody, Loaded};
use hitbox_http::{StoredHead, groups_of};
use http::{HeaderMap, Request, Response, Uri, header};
use http_body::Body;

use crate::ask::{Arrived, Load, Place, Storable, Unstored};
use crate::body::{BoxError, Incoming};
use crate::layer::Rules;
use crate::lookup::{HEAD, VARIANTS, Variants};
use crate::respond::length_of;
use crate::service::HttpService;

type Source = Pin<Box<dyn Stream<Item = Result<Bytes, BoxError>> + Send>>;

/// What the call that leads a load is to know of it.
pub(crate) enum Outcome<A, E> {
    Unstored(Unstored<A, E>),
    /// It is being stored, and the load brings it.
    Stored(Arrived),
    /// It is being stored under another key, and this reads it.
    Elsewhere(Arrived, StoredBody),
}

/// What a load and the call that leads it hand to each other.
pub(crate) struct Slot<Q, A, E>(Arc<Mutex<Handed<Q, A, E>>>);

struct Handed<Q, A, E> {
    /// Until the load takes it.
    request: Option<Request<Q>>,
    /// Once the load knows.
    outcome: Option<Outcome<A, E>>,
}

impl<Q, A, E> Clone for Slot<Q, A, E> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<Q, A, E> Slot<Q, A, E> {
    pub(crate) fn new(request: Request<Q>) -> Self {
        Self(Arc::new(Mutex::new(Handed { request: Some(request), outcome: None })))
    }

    fn handed(&self) -> MutexGuard<'_, Handed<Q, A, E>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn take_request(&self) -> Option<Request<Q>> {
        self.handed().request.take()
    }

    fn put(&self, outcome: Outcome<A, E>) {
        self.handed().outcome = Some(outcome);
    }

    pub(crate) fn take_outcome(&self) -> Option<Outcome<A, E>> {
        self.handed().outcome.take()
    }
}

impl Load {
    /// Leads the load of this key, or waits for it. Answers with the body, if there is one for this call.
    pub(crate) async fn share<S, Q>(
        self: Arc<Self>,
        inner: S,
        slot: &Slot<Q, S::Answer, S::Fault>,
    ) -> Option<StoredBody>
    where
        S: HttpService<Q>,
        Q: Send + 'static,
    {
        let (cache, key, slot) = (self.rules.cache.clone(), self.key.clone(), slot.clone());
        let (looked, validates) = (self.looked, self.validates);
        let loader = move || async move {
            let Some(request) = slot.take_request() else { return Ok(Loaded::declined()) };
            let loaded = match self.ask(inner, request).await {
                Ok(storable) => self.store(storable, &slot).await,
                Err(unstored) => {
                    let loaded = self.unstored(&unstored);
                    slot.put(Outcome::Unstored(unstored));
                    loaded
                }
            };
            Ok::<_, BoxError>(loaded)
        };
        let entry = cache.entry(key);
        let entry = if validates { entry.reload() } else { entry.looked(looked) };
        let answer = entry.get_or_load_stream_with(loader).await;
        answer
            .inspect_err(|error| tracing::trace!(%error, "a response is not shared"))
            .ok()
            .map(|found| found.value)
    }

    /// Asks first, and stores what may be stored then, so that nobody waits for it in vain.
    pub(crate) async fn alone<S, Q>(
        self: Arc<Self>,
        inner: S,
        slot: &Slot<Q, S::Answer, S::Fault>,
    ) -> Option<StoredBody>
    where
        S: HttpService<Q>,
        Q: Send + 'static,
    {
        let request = slot.take_request()?;
        let rules = self.rules.clone();
        match self.ask(inner, request).await {
            Ok(storable) => {
                rules.learn_sharing(&self.key, &storable.head);
                slot.put(match self.place(&storable.vary) {
                    Place::Here => self.store_apart(self.key.clone(), storable).await,
                    Place::Elsewhere(key) => self.store_apart(key, storable).await,
                    Place::NewVariant(variants, key) => self.store_new(&variants, key, storable).await,
                });
                None
            }
            Err(unstored) => {
                let loaded = self.unstored(&unstored);
                let is_validated = match &unstored {
                    Unstored::Validated(head, _) => {
                        rules.learn_sharing(&self.key, head);
                        true
                    }
                    _ => false,
                };
                slot.put(Outcome::Unstored(unstored));
                if !is_validated {
                    return None;
                }
                let entry = rules.cache.entry(self.key.clone()).lead();
                let kept = entry.get_or_load_stream_with(|| async { Ok::<_, BoxError>(loaded) }).await;
                kept.ok().map(|kept| kept.value)
            }
        }
    }

    /// What others are told of a response that is not stored.
    fn unstored<A, E>(&self, unstored: &Unstored<A, E>) -> Loaded<Source> {
        match (unstored, &self.stored) {
            (Unstored::Validated(head, _), Some((_, generation))) => {
                let (fresh, beyond) = head.kept(&self.rules.settings.policy);
                let loaded = Loaded::body_not_modified(*generation);
                loaded.ttl(fresh).stale(beyond).metadata(HEAD, head.encode())
            }
            _ => Loaded::declined(),
        }
    }

    /// Has a response stored where it belongs. Those who wait get it, or what leads to it.
    async fn store<Q, A, E>(self: &Arc<Self>, storable: Storable<A>, slot: &Slot<Q, A, E>) -> Loaded<Source>
    where
        A: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
        Q: Send,
        E: Send,
    {
        let rules = &self.rules;
        match self.place(&storable.vary) {
            Place::Here => {
                self.keep_record(&storable.head);
                let (arrived, loaded) = rules.loaded(storable);
                slot.put(Outcome::Stored(arrived));
                loaded
            }
            Place::Elsewhere(key) => {
                self.keep_record(&storable.head);
                slot.put(self.store_apart(key, storable).await);
                Loaded::declined()
            }
            Place::NewVariant(variants, key) if self.key == self.primary => {
                let record: Source = Box::pin(stream::empty());
                let record = rules.described(Loaded::new(record), &storable.head, &storable.tags);
                // Its load is under way before the record is, so that whoever is led to it joins it.
                slot.put(self.store_apart(key, storable).await);
                record.metadata(VARIANTS, variants.encode())
            }
            Place::NewVariant(variants, key) => {
                slot.put(self.store_new(&variants, key, storable).await);
                Loaded::declined()
            }
        }
    }

    /// Has a response stored that only another record of variants leads to, and then this record: it is a write of the resource, which ends
    /// the right to store what was asked for before.
    async fn store_new<A, E>(
        self: &Arc<Self>,
        variants: &Variants,
        key: CacheKey,
        storable: Storable<A>,
    ) -> Outcome<A, E>
    where
        A: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
        E: Send,
    {
        let (head, tags) = (storable.head.clone(), storable.tags.clone());
        let outcome = self.store_apart(key, storable).await;
        if matches!(outcome, Outcome::Elsewhere(..)) {
            self.record(variants, &head, &tags).await;
        }
        outcome
    }

    /// Has a response stored by a load of its own.
    async fn store_apart<A, E>(self: &Arc<Self>, key: CacheKey, storable: Storable<A>) -> Outcome<A, E>
    where
        A: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        let rules = &self.rules;
        let own = |response| Outcome::Unstored(Unstored::Own(response, None));
        let waiting = Arc::new(Mutex::new(Some(storable)));
        let take = |waiting: &Mutex<Option<Storable<A>>>| {
            waiting.lock().unwrap_or_else(PoisonError::into_inner).take()
        };
        let brought = Arc::new(Mutex::new(None));
        let loader = {
            let (load, waiting, brought) = (self.clone(), waiting.clone(), brought.clone());
            move || async move {
                // What is removed from now on ends this load; what was removed before has ended the right to store it.
                let is_current = waiting
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .as_ref()
                    .is_some_and(|storable: &Storable<A>| load.is_current(&storable.tags));
                if !is_current {
                    return Ok(Loaded::declined());
                }
                let Some(storable) = take(&waiting) else { return Ok(Loaded::declined()) };
                let rules = &load.rules;
                let (arrived, loaded) = rules.loaded(storable);
                *brought.lock().unwrap_or_else(PoisonError::into_inner) = Some(arrived);
                Ok::<_, BoxError>(loaded)
            }
        };
        let stored = rules.cache.entry(key).lead().get_or_load_stream_with(loader).await;
        let arrived = brought.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (stored, arrived, take(&waiting)) {
            (Ok(stored), Some(arrived), _) => Outcome::Elsewhere(arrived, stored.value),
            // Somebody else was loading it already, or the cache is shutting down.
            (_, _, Some(storable)) => own(storable.into_response()),
            (stored, ..) => {
                let error = stored.err().map(|error| error.to_string()).unwrap_or_default();
                tracing::debug!(cache = %rules.settings.name, error, "a response that came was lost");
                Outcome::Unstored(Unstored::Lost)
            }
        }
    }

    /// Stores a record of variants, unless something was removed since the service was asked.
    async fn record(&self, variants: &Variants, head: &StoredHead, tags: &[String]) {
        let rules = &self.rules;
        // What is removed from now on wins over it, too.
        let Some(permit) = self.permit.clone().filter(|_| self.is_current(tags)) else { return };
        let (fresh, beyond) = head.kept(&rules.settings.policy);
        let mut entry = rules.cache.entry(self.primary.clone()).ttl(fresh).stale(beyond);
        for tag in tags {
            entry = entry.tag(tag);
        }
        let entry = entry.metadata(VARIANTS, variants.encode());
        let stored = async { entry.write_body_under(permit).await?.finish().await };
        if let Err(error) = stored.await {
            tracing::debug!(cache = %rules.settings.name, %error, "a record of variants was not stored");
        }
    }

    /// The record of variants lives as long as what it leads to.
    fn keep_record(&self, head: &StoredHead) {
        let rules = &self.rules;
        let (fresh, beyond) = head.kept(&rules.settings.policy);
        let end = head.came + fresh.saturating_add(beyond);
        let Some((_, Some(kept))) = self.variants else { return };
        if kept >= end {
            return;
        }
        let (name, backend, primary) =
            (rules.settings.name.clone(), rules.cache.backend().clone(), self.primary.clone());
        rules.in_background(async move {
            let longer = Write::times(primary, TimeChange::kept_until(Some(end)));
            let receipt = backend.write(Batch::one(longer)).await.into_one().unwrap_or_default();
            if let Some(error) = receipt.error() {
                tracing::debug!(cache = %name, %error, "a record of variants may end before what it leads to");
            }
        });
    }
}

impl<A> Storable<A> {
    fn into_response(self) -> Response<A> {
        self.arrived.into_response(self.body)
    }
}

impl Rules {
    /// A response as a load brings it, and as the one is told who asked for it.
    fn loaded<A>(&self, storable: Storable<A>) -> (Arrived, Loaded<Source>)
    where
        A: Body + Send + 'static,
        A::Data: Send,
        A::Error: Into<BoxError>,
    {
        let Storable { arrived, head, tags, body, .. } = storable;
        let length = head.headers.get(header::CONTENT_LENGTH).and_then(length_of);
        let source: Source = Box::pin(Incoming::new(body, length, arrived.trailers.clone()));
        let loaded = self.described(Loaded::new(source), &head, &tags);
        (arrived, loaded.metadata(HEAD, head.encode()))
    }

    /// With times and tags.
    fn described(&self, loaded: Loaded<Source>, head: &StoredHead, tags: &[String]) -> Loaded<Source> {
        let (fresh, beyond) = head.kept(&self.settings.policy);
        tags.iter().fold(loaded.ttl(fresh).stale(beyond), |loaded, tag| loaded.tag(tag))
    }

    /// The tags of a response: its groups, those that the fields of tags name, and its URI if the key has more than that.
    pub(crate) fn tags_of(&self, response: &HeaderMap, uri: &Uri, request: &HeaderMap) -> Vec<String> {
        let mut tags = groups_of(response, uri, request);
        let lines = self.settings.tag_fields.iter().flat_map(|field| response.get_all(field));
        for line in lines.filter_map(|line| line.to_str().ok()) {
            tags.extend(line.split([' ', ',', '\t']).filter(|tag| !tag.is_empty()).map(str::to_owned));
        }
        if !self.settings.is_keyed_by_uri_alone() {
            tags.push(self.uri_tag(uri, request));
        }
        tags
    }
}
