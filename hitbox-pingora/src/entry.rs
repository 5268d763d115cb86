//! What a response of Pingora is in a backend: a body whose entry carries the metadata.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hitbox_backend::Body;
use hitbox_backend::internal::DecodedMetadata;
use hitbox_backend::wrap::Layout;
use hitbox_core::{BackendLabel, CacheKey, CacheValue, Details, Lifetime, Scope, Timestamp};
use pingora_cache::CacheMeta;
use pingora_cache::key::{CacheHashKey, CompactCacheKey, HashBinary, str2hex};
use pingora_error::Result;
use pingora_http::ResponseHeader;

use crate::purges::Moment;

/// Names of the metadata: Pingora's own two halves of a [`CacheMeta`], and the user whose quota the entry counts to.
const INTERNAL: &str = "pingora.internal";
const HEADER: &str = "pingora.header";
const USER_TAG: &str = "pingora.user_tag";

const PRIMARY: &str = "primary";
const VARIANCE: &str = "variance";

/// Where a response that was found is stored. It is in the [extensions](CacheMeta::extensions) of its metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stored {
    /// The dotted path of the layer that has it, as `outer.inner.moka`.
    pub layer: BackendLabel,
    /// Tells this body from others that were stored under the same key before or after it.
    pub generation: u64,
    /// The end of freshness of what was found.
    pub(crate) fresh_until: Option<Timestamp>,
}

/// When a response was asked for, in the extensions of its key.
#[derive(Clone, Copy)]
pub(crate) struct Asked(pub(crate) Moment);

/// Tags of a response, by which [`BackendStorage::invalidate_tags`](crate::BackendStorage::invalidate_tags) finds it. Put them into
/// the [extensions](CacheMeta::extensions_mut) of its metadata before it is stored, in `response_cache_filter`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags(pub Vec<String>);

/// The key of a backend for one of Pingora's.
pub(crate) fn key_of(name: &str, key: &impl CacheHashKey) -> CacheKey {
    let mut builder = CacheKey::builder(name);
    builder.push(PRIMARY, Some(&in_hex(&key.primary_bin())));
    if let Some(variance) = key.variance_bin() {
        builder.push(VARIANCE, Some(&in_hex(&variance)));
    }
    builder.build()
}

/// As [`CacheHashKey::primary`] has it, without the cost of formatting, which is a twentieth of a hit in memory.
fn in_hex(hash: &HashBinary) -> [u8; 2 * size_of::<HashBinary>()] {
    std::array::from_fn(|at| {
        let byte = hash[at / 2];
        b"0123456789abcdef"[usize::from(if at % 2 == 0 { byte >> 4 } else { byte & 15 })]
    })
}

/// The key of Pingora's for one of a backend; nothing if it is of somebody else.
pub(crate) fn compact_key(name: &str, key: &CacheKey, entry: &CacheValue<()>) -> Option<CompactCacheKey> {
    if key.prefix() != name || key.has_namespace() {
        return None;
    }
    let (mut primary, mut variance) = (None, None);
    for part in key.parts() {
        let hash = str2hex(std::str::from_utf8(part.value?).ok()?)?;
        match part.name {
            PRIMARY => primary = Some(hash),
            VARIANCE => variance = Some(Box::new(hash)),
            _ => return None,
        }
    }
    let user_tag = entry.details().and_then(|details| details.metadata.get(USER_TAG));
    let user_tag = user_tag.map_or_else(String::new, |tag| String::from_utf8_lossy(tag).into_owned());
    Some(CompactCacheKey { primary: primary?, variance, user_tag: user_tag.into_boxed_str() })
}

/// The metadata under which a response is stored.
pub(crate) fn metadata_of(meta: &CacheMeta, user_tag: &str) -> Result<BTreeMap<String, Bytes>> {
    let (internal, header) = meta.serialize()?;
    // It takes more than it can read.
    CacheMeta::deserialize(&internal, &header)?;
    let mut metadata =
        BTreeMap::from([(INTERNAL.to_owned(), internal.into()), (HEADER.to_owned(), header.into())]);
    if !user_tag.is_empty() {
        metadata.insert(USER_TAG.to_owned(), Bytes::copy_from_slice(user_tag.as_bytes()));
    }
    Ok(metadata)
}

/// How long a response stays: it is fresh until Pingora says otherwise, and kept for its windows of serving stale, and so much longer.
pub(crate) fn lifetime_of(meta: &CacheMeta, keep_stale: Duration) -> Lifetime {
    let fresh_until = Timestamp::from(meta.fresh_until());
    let window = meta.stale_while_revalidate_sec().max(meta.stale_if_error_sec());
    let expire = fresh_until + Duration::from_secs(window.into()) + keep_stale;
    Lifetime::new(Some(fresh_until), Some(expire), None)
}

/// The entry of a response without its body.
pub(crate) fn entry_of(
    meta: &CacheMeta,
    user_tag: &str,
    keep_stale: Duration,
    now: Timestamp,
) -> Result<CacheValue<()>> {
    let mut details = Details::default();
    details.metadata = metadata_of(meta, user_tag)?;
    let tags = meta.extensions().get::<Tags>();
    details.scopes = tags.into_iter().flat_map(|tags| &tags.0).map(|tag| Scope::tag(tag.as_str())).collect();
    Ok(CacheValue::new(())
        .with_lifetime(lifetime_of(meta, keep_stale))
        .with_created(Some(now))
        .with_details(details))
}

/// Metadata that were decoded lately. To decode a header takes a tenth of a hit in memory.
#[derive(Debug, Default)]
pub(crate) struct Metas(DecodedMetadata<NewMeta, 2>);

impl Metas {
    /// The metadata of a response that was found under a key; nothing if it has none of Pingora's.
    pub(crate) fn of(&self, key: &CacheKey, body: &Body, layout: &Layout) -> Result<Option<CacheMeta>> {
        let (Some(internal), Some(header)) = (body.metadata(INTERNAL), body.metadata(HEADER)) else {
            return Ok(None);
        };
        let stored = [internal, header];
        let mut meta = match self.0.of(key, stored) {
            Some(known) => known.make(),
            None => {
                let meta = CacheMeta::deserialize(internal, header)?;
                if let Some(new) = NewMeta::of(&meta) {
                    self.0.remember(key, body, layout, stored, &Arc::new(new));
                }
                meta
            }
        };
        let fresh_until = body.entry().lifetime().fresh_until();
        // Whoever expires it changes its times, and not its metadata.
        if let Some(fresh_until) = fresh_until
            && fresh_until < Timestamp::from(meta.fresh_until())
        {
            meta.expire_at(system_time(fresh_until));
        }
        let stored = Stored { layer: body.label(), generation: body.generation(), fresh_until };
        meta.extensions_mut().insert(stored);
        Ok(Some(meta))
    }
}

/// What makes the metadata of a response that has not been validated yet: Pingora makes others by decoding alone.
#[derive(Debug)]
struct NewMeta {
    fresh_until: SystemTime,
    created: SystemTime,
    stale_while_revalidate: u32,
    stale_if_error: u32,
    variance: Option<HashBinary>,
    epoch: Option<SystemTime>,
    header: ResponseHeader,
}

impl NewMeta {
    fn of(meta: &CacheMeta) -> Option<Self> {
        let created = meta.created();
        let is_new = meta.updated() == created && meta.provenance() == created;
        is_new.then(|| Self {
            fresh_until: meta.fresh_until(),
            created,
            stale_while_revalidate: meta.stale_while_revalidate_sec(),
            stale_if_error: meta.stale_if_error_sec(),
            variance: meta.variance(),
            epoch: meta.epoch_override(),
            header: meta.response_header_copy(),
        })
    }

    fn make(&self) -> CacheMeta {
        let header = self.header.clone();
        let windows = (self.stale_while_revalidate, self.stale_if_error);
        let mut meta = CacheMeta::new(self.fresh_until, self.created, windows.0, windows.1, header);
        if let Some(variance) = self.variance {
            meta.set_variance(variance);
        }
        if let Some(epoch) = self.epoch {
            meta.set_epoch_override(epoch);
        }
        meta
    }
}

fn system_time(at: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(at.as_millis())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use pingora_cache::CacheMeta;
    use pingora_http::ResponseHeader;

    use super::NewMeta;

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::new(1_790_000_000, 123_456_789)
    }

    fn stored(change: impl FnOnce(&mut CacheMeta)) -> CacheMeta {
        let mut header = ResponseHeader::build(203, None).expect("a header");
        for (name, value) in [("ETag", "a"), ("x-Odd-Case", "1"), ("Set", "one"), ("Set", "two")] {
            header.append_header(name, value).expect("a field");
        }
        let mut meta = CacheMeta::new(now() + Duration::from_millis(3_600_250), now(), 10, 20, header);
        change(&mut meta);
        let (internal, header) = meta.serialize().expect("it is written");
        CacheMeta::deserialize(&internal, &header).expect("it is read")
    }

    #[test]
    fn what_is_made_again_is_what_was_decoded() {
        let changes: [fn(&mut CacheMeta); 6] = [
            |_| (),
            |meta| meta.set_variance([7; 16]),
            |meta| meta.set_epoch_override(now() - Duration::from_secs(9)),
            |meta| meta.disable_serve_stale(),
            |meta| meta.expire_at(now() - Duration::from_secs(5)),
            |meta| {
                meta.set_variance([1; 16]);
                meta.set_epoch_override(now());
            },
        ];
        for change in changes {
            let meta = stored(change);
            let made = NewMeta::of(&meta).expect("it has not been validated").make();
            assert_eq!(made.serialize().expect("it is written"), meta.serialize().expect("it is written"));
            assert_eq!(made.headers(), meta.headers());
        }
    }

    #[test]
    fn what_has_been_validated_is_decoded_each_time() {
        let validated = stored(|meta| {
            // Pingora asks its own clock when that is.
            meta.update_freshness(now(), 1, 2);
        });
        assert!(NewMeta::of(&validated).is_none());
    }
}
