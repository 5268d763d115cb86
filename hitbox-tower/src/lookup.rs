//! What is stored for a request: a response, or a record of the variants that a resource has.

use std::sync::Arc;

use hitbox::backend::internal::TryOpen;
use hitbox::core::{BackendResult, CacheKey, Timestamp};
use hitbox::{Body, Cache};
use hitbox_http::Vary;
use http::HeaderMap;

use crate::heads::Head;
use crate::layer::Rules;

/// The metadata that has the head of a response.
pub(crate) const HEAD: &str = "http";
/// The metadata that says that an entry is a record of variants.
pub(crate) const VARIANTS: &str = "http-variants";
/// So many sets of fields by which one resource has varied are looked for.
const MOST_SETS: usize = 4;

/// By which fields a resource varies: the latest set first. A response without `Vary` replaces the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Variants {
    /// Part of the keys of variants: those of an older record are found no more.
    pub(crate) edition: u64,
    pub(crate) sets: Vec<Vary>,
}

impl Variants {
    pub(crate) fn new(vary: Vary) -> Self {
        Self { edition: fastrand::u64(..), sets: vec![vary] }
    }

    pub(crate) fn encode(&self) -> String {
        let sets: Vec<String> = self.sets.iter().map(Vary::to_text).collect();
        format!("{:016x};{}", self.edition, sets.join(";"))
    }

    pub(crate) fn decode(stored: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(stored).ok()?.split(';');
        let edition = u64::from_str_radix(parts.next()?, 16).ok()?;
        let sets: Vec<Vary> = parts.take(MOST_SETS).map(Vary::from_text).collect::<Option<_>>()?;
        (!sets.is_empty()).then_some(Self { edition, sets })
    }

    /// The keys that a response to this request may have.
    pub(crate) fn keys(&self, primary: &CacheKey, request: &HeaderMap) -> impl Iterator<Item = CacheKey> {
        self.sets.iter().map(|vary| vary.key(request).of_variant(primary, self.edition))
    }
}

/// A stored response.
pub(crate) struct Stored {
    pub(crate) head: Arc<Head>,
    pub(crate) body: Body,
}

/// What is stored for a request.
pub(crate) struct Lookup {
    /// The key under which its response would be stored, as far as is known.
    pub(crate) key: CacheKey,
    /// How many loads had ended when it was looked for.
    pub(crate) looked: u64,
    pub(crate) stored: Option<Stored>,
    /// The record of variants, and how long that is kept.
    pub(crate) variants: Option<(Variants, Option<Timestamp>)>,
}

/// A layer that fails is one that has nothing.
async fn open(cache: &Cache<()>, key: &CacheKey) -> Option<Body> {
    found(key, cache.open_body(key.clone()).await)
}

fn found(key: &CacheKey, opened: BackendResult<Option<Body>>) -> Option<Body> {
    opened.unwrap_or_else(|error| {
        tracing::debug!(%key, %error, "a stored response could not be read");
        None
    })
}

/// Whether it is a record of variants.
fn is_record(body: &Body) -> bool {
    body.metadata(VARIANTS).is_some()
}

pub(crate) fn variants_of(body: &Body) -> Option<Variants> {
    Variants::decode(body.metadata(VARIANTS)?)
}

/// A look for what is stored under the key of a resource, that has begun.
pub(crate) struct Begun {
    looked: u64,
    opened: Result<Option<Body>, TryOpen>,
}

/// Begins to look for what is stored under the key of a resource.
pub(crate) fn begin(rules: &Rules, primary: &CacheKey) -> Begun {
    let cache = &rules.cache;
    Begun { looked: cache.body_loads_ended(primary), opened: cache.try_open_body(primary) }
}

impl Begun {
    /// The response, if it is at hand and does not vary.
    ///
    /// # Errors
    /// If there is more to be done.
    pub(crate) fn at_once(self, rules: &Rules, primary: &CacheKey) -> Result<Lookup, Self> {
        match self.opened {
            Ok(Some(body)) if !is_record(&body) => Ok(response(rules, primary, self.looked, body)),
            opened => Err(Self { opened, ..self }),
        }
    }

    /// The response to a request with these fields.
    pub(crate) async fn end(self, rules: &Rules, primary: &CacheKey, request: &HeaderMap) -> Lookup {
        let Self { looked, opened } = self;
        let nothing = Lookup { key: primary.clone(), looked, stored: None, variants: None };
        let body = match opened {
            Ok(body) => body,
            Err(opening) => found(primary, rules.cache.open_tried_body(primary, opening).await),
        };
        let Some(body) = body else { return nothing };
        let Some(variants) = variants_of(&body) else { return response(rules, primary, looked, body) };
        let kept = body.entry().lifetime().expire();
        let mut best: Option<Lookup> = None;
        for key in variants.keys(primary, request) {
            let found = look_for_variant(rules, key, variants.clone(), kept).await;
            let came = |lookup: &Lookup| lookup.stored.as_ref().map(|stored| stored.head.head.came);
            // The latest counts (RFC 9111, 4.1).
            if best.as_ref().is_none_or(|best| came(best) < came(&found)) {
                best = Some(found);
            }
        }
        best.unwrap_or(nothing)
    }
}

/// What is stored under the key of a resource, and is no record of variants.
fn response(rules: &Rules, primary: &CacheKey, looked: u64, body: Body) -> Lookup {
    let stored = rules.head_of(primary, &body).map(|head| Stored { head, body });
    Lookup { key: primary.clone(), looked, stored, variants: None }
}

/// Looks for the response to a request with these fields.
pub(crate) async fn look(rules: &Rules, primary: &CacheKey, request: &HeaderMap) -> Lookup {
    begin(rules, primary).end(rules, primary, request).await
}

/// Looks for a variant of which a record tells.
pub(crate) async fn look_for_variant(
    rules: &Rules,
    key: CacheKey,
    variants: Variants,
    kept: Option<Timestamp>,
) -> Lookup {
    let looked = rules.cache.body_loads_ended(&key);
    let stored = open(&rules.cache, &key).await.and_then(|body| {
        let head = rules.head_of(&key, &body)?;
        Some(Stored { head, body })
    });
    Lookup { key, looked, stored, variants: Some((variants, kept)) }
}
