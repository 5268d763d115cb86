//! What a response of Pingora is in a backend: a body whose entry carries the metadata.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
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
    // Without the room that compressing needed: what is counted is what it holds.
    let [internal, header] = [internal, header].map(|bytes| Bytes::from(bytes.into_boxed_slice()));
    let mut metadata = BTreeMap::from([(INTERNAL.to_owned(), internal), (HEADER.to_owned(), header)]);
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

/// Headers that were decoded lately. To decode one takes a tenth of a hit in memory.
#[derive(Debug, Default)]
pub(crate) struct Metas {
    headers: DecodedMetadata<ResponseHeader, 2>,
    /// A header without fields, as it is stored. Pingora decodes nothing without a header.
    blank: OnceLock<Vec<u8>>,
}

impl Metas {
    /// The metadata of a response that was found under a key; nothing if it has none of Pingora's.
    pub(crate) fn of(&self, key: &CacheKey, body: &Body, layout: &Layout) -> Result<Option<CacheMeta>> {
        let (Some(internal), Some(header)) = (body.metadata(INTERNAL), body.metadata(HEADER)) else {
            return Ok(None);
        };
        let stored = [internal, header];
        let mut meta = match self.headers.of(key, stored) {
            Some(known) => {
                let mut meta = CacheMeta::deserialize(internal, self.blank()?)?;
                *meta.response_header_mut() = (*known).clone();
                meta
            }
            None => {
                let meta = CacheMeta::deserialize(internal, header)?;
                // They are stored compressed.
                let text = meta.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
                if self.headers.takes(body, layout, text, meta.headers().len()) {
                    self.headers.remember(key, stored, Arc::new(meta.response_header_copy()));
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

    fn blank(&self) -> Result<&[u8]> {
        if let Some(blank) = self.blank.get() {
            return Ok(blank);
        }
        let header = ResponseHeader::build(200, Some(0))?;
        let (_, blank) = CacheMeta::new(UNIX_EPOCH, UNIX_EPOCH, 0, 0, header).serialize()?;
        Ok(self.blank.get_or_init(|| blank))
    }
}

fn system_time(at: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(at.as_millis())
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use pingora_cache::CacheMeta;
    use pingora_http::ResponseHeader;

    use super::metadata_of;

    #[test]
    fn metadata_hold_what_they_are_counted_as() {
        let mut header = ResponseHeader::build(200, None).expect("a header");
        header.append_header("link", "abcd".repeat(1000)).expect("a field");
        let meta = CacheMeta::new(UNIX_EPOCH, UNIX_EPOCH, 0, 0, header);
        for (name, bytes) in metadata_of(&meta, "somebody").expect("they are written") {
            let counted = bytes.len();
            assert_eq!(Vec::from(bytes).capacity(), counted, "{name}");
        }
    }
}
